//! ACL LOG: what was refused lately.

use std::collections::VecDeque;

use crate::base::time::UnixMs;

/// Refusals that are the same but for the time are one entry while they come within this time.
const SAME_WITHIN_MS: UnixMs = 60_000;
/// How many of the newest entries are looked at for one that is the same.
const LOOKED_AT: usize = 10;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of ACL LOG")]
pub enum Reason {
    /// A wrong password, or a user that is not.
    Auth,
    Command,
    Key,
    Channel,
}

impl Reason {
    /// As ACL LOG says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
        }
    }
}

/// Where it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// By itself.
    Toplevel,
    /// While queueing, or in EXEC.
    Multi,
    /// Called by a script.
    Script,
}

impl Context {
    /// As ACL LOG says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Toplevel => "toplevel",
            Self::Multi => "multi",
            Self::Script => "lua",
        }
    }
}

/// What was refused to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was not allowed.
    pub reason: Reason,
    /// Where it was refused.
    pub context: Context,
    /// The command, the key or the channel.
    pub object: Vec<u8>,
    /// The name that the client was logged in as, or wanted to be.
    pub user: Vec<u8>,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counts up from 0; never used again.
    pub id: u64,
    /// How often the same was refused, each time soon after the last.
    pub count: u64,
    /// What it was.
    pub refusal: Refusal,
    /// The client's line of CLIENT LIST when it was refused last.
    pub client: String,
    /// When it was refused first, Unix milliseconds.
    pub created: UnixMs,
    /// When it was refused last, Unix milliseconds.
    pub updated: UnixMs,
}

/// The newest entries, the newest first.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl Log {
    /// Adds a refusal; at most `max` entries are kept.
    pub fn note(&mut self, refusal: Refusal, client: String, now: UnixMs, max: usize) {
        let is_same = |e: &Entry| e.refusal == refusal && (now - e.updated).abs() <= SAME_WITHIN_MS;
        let known = self.entries.iter().take(LOOKED_AT).position(is_same);
        match known.and_then(|at| self.entries.remove(at)) {
            Some(entry) => {
                self.entries.push_front(Entry { count: entry.count + 1, client, updated: now, ..entry });
            }
            None => {
                let (id, count) = (self.next_id, 1);
                self.next_id += 1;
                self.entries.push_front(Entry { id, count, refusal, client, created: now, updated: now });
            }
        }
        self.entries.truncate(max);
    }

    /// At most `count` entries.
    pub fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().take(count)
    }

    /// ACL LOG RESET.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Keeps at most `max` entries.
    pub fn truncate(&mut self, max: usize) {
        self.entries.truncate(max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(object: &str) -> Refusal {
        let (reason, context) = (Reason::Command, Context::Toplevel);
        Refusal { reason, context, object: object.into(), user: b"u".to_vec() }
    }

    fn noted(refusals: &[(&str, UnixMs)]) -> Vec<(String, u64)> {
        let mut log = Log::default();
        for (object, at) in refusals {
            log.note(refused(object), String::new(), *at, 128);
        }
        let shown = |e: &Entry| (String::from_utf8_lossy(&e.refusal.object).into_owned(), e.count);
        log.newest(usize::MAX).map(shown).collect()
    }

    /// As in Redis.
    #[test]
    fn what_is_refused_again_within_a_minute_is_one_entry() {
        let entry = |object: &str, count| (object.to_owned(), count);
        assert_eq!(noted(&[("get", 0), ("set", 1), ("get", 60_000)]), [entry("get", 2), entry("set", 1)]);
        assert_eq!(noted(&[("get", 0), ("get", 60_001)]), [entry("get", 1), entry("get", 1)]);
    }

    #[test]
    fn only_the_ten_newest_are_looked_at() {
        let others: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        for (between, count) in [(9, 2), (10, 1)] {
            let mut refusals = vec![("get", 0)];
            refusals.extend(others[..between].iter().map(|object| (object.as_str(), 0)));
            refusals.push(("get", 0));
            assert_eq!(noted(&refusals)[0], ("get".to_owned(), count), "{between}");
        }
    }
}
