//! XTRIM and the trimming part of XADD.

use super::{Stream, StreamId, node};

/// What trimming keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// At most this many entries, the newest.
    MaxLen(u64),
    /// Entries from this id on.
    MinId(StreamId),
}

impl Stream {
    /// Removes old entries; returns how many. With `approximate` only whole blocks go; `limit`, if not 0,
    /// bounds the number removed in one call (a block that would exceed it stays).
    pub fn trim(&mut self, keep: Trim, approximate: bool, limit: u64) -> u64 {
        let mut removed = 0;
        while let Some(oldest) = self.nodes.first_entry() {
            let first = *oldest.key();
            let lp = oldest.get();
            let entries = node::live(lp);
            let (satisfied, whole) = match keep {
                Trim::MaxLen(n) => (self.len <= n, self.len - entries >= n),
                Trim::MinId(id) => (first >= id, node::last_id(lp, first) < id),
            };
            if satisfied || (limit != 0 && removed + entries > limit) {
                break;
            }
            if whole {
                oldest.remove();
                self.len -= entries;
                removed += entries;
            } else {
                if !approximate {
                    removed += self.trim_within_first(keep);
                }
                break;
            }
        }
        removed
    }

    /// Deletes single entries of the first block, which does not go as a whole.
    fn trim_within_first(&mut self, keep: Trim) -> u64 {
        let Some(mut oldest) = self.nodes.first_entry() else { return 0 };
        let first = *oldest.key();
        let ids: Vec<StreamId> = node::entries(oldest.get(), first).map(|e| e.id).collect();
        let most = match keep {
            Trim::MaxLen(n) => self.len.saturating_sub(n) as usize,
            Trim::MinId(id) => ids.partition_point(|i| *i < id),
        };
        let mut removed = 0;
        for id in ids.into_iter().take(most) {
            match node::delete(oldest.get_mut(), first, id) {
                node::Deleted::One => removed += 1,
                node::Deleted::NotFound => {}
                node::Deleted::Last => {
                    removed += 1;
                    oldest.remove();
                    break;
                }
            }
        }
        self.len -= removed;
        removed
    }
}
