//! How large a block of a list may grow.

use super::block::Block;
use super::stored::View;
use crate::encoding::{Item, listpack};
use crate::value::Limits;

/// The most that a block holds.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub bytes: usize,
    pub count: usize,
    /// Bytes of an entry that stands in a block by itself.
    pub alone: usize,
}

impl Bound {
    /// None at all.
    pub const NONE: Self = Self { bytes: usize::MAX, count: usize::MAX, alone: usize::MAX };

    /// Reads `list-max-listpack-size`.
    pub fn of(limits: &Limits) -> Self {
        let alone = limits.list_packed_threshold;
        match limits.list_max_listpack_size {
            // Blocks limited by count are limited to the default size as well, as in Redis.
            n @ 0.. => Self { bytes: 8192, count: (n as usize).max(1), alone },
            n => {
                let bytes = 4096 << n.saturating_neg().min(5).saturating_sub(1);
                Self { bytes, count: usize::MAX, alone }
            }
        }
    }

    /// Whether a block is one entry that stands by itself.
    #[inline]
    fn is_alone(self, view: View<'_>) -> bool {
        view.count() == 1 && view.entries_bytes() >= self.alone
    }

    /// Whether a block may take so many bytes and entries more.
    #[inline]
    pub fn allows(self, view: View<'_>, bytes: usize, count: usize) -> bool {
        view.entries_bytes() + listpack::OVERHEAD + bytes <= self.bytes
            && view.count() + count <= self.count
            && bytes < self.alone
            && !self.is_alone(view)
    }

    /// The element of a block that a file holds without a listpack around it.
    pub fn plain(self, block: &Block) -> Option<&[u8]> {
        let large = block.count() == 1 && block.listpack_bytes() > 8192;
        match block.iter().next() {
            Some(Item::Bytes(element)) if large || self.is_alone(View::Open(block)) => Some(element),
            _ => None,
        }
    }
}
