//! Which writes share an fsync under `appendfsync always`.
//!
//! Clients that were answered after an fsync send their next writes at once. If the next fsync began without them, it
//! would cover only what came during the last one: clients fall into groups that wait for each other's fsyncs. So where
//! an fsync takes long, the next one waits for a part of that time, or until as many writes are there as the last one
//! covered and found behind it. Where that is in vain, it is tried less and less often.

use std::time::Duration;

/// An fsync that takes less is not worth a pause.
const WORTH: Duration = Duration::from_micros(200);
/// The longest pause.
const MOST: Duration = Duration::from_millis(5);
/// The pause is so many times shorter than an fsync.
const SHARE: u32 = 4;
/// After pauses in vain, at most 2 to this power fsyncs come without one.
const RARELY: u32 = 6;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// Units written that no fsync covers.
    written: u64,
    /// Those that the last fsync covered, and those that came while it ran.
    expected: u64,
    /// What the last fsync took.
    took: Duration,
    /// Pauses in vain, in a row.
    in_vain: u32,
    /// Fsyncs before the next pause.
    skipped: u32,
}

impl Group {
    /// So many units were written.
    pub fn wrote(&mut self, units: u64) {
        self.written += units;
    }

    /// An fsync has covered all that was written; `arrived` tells how many units came while it ran.
    pub fn synced(&mut self, took: Duration, arrived: impl FnOnce() -> u64) {
        let covered = std::mem::take(&mut self.written);
        self.expected = if took < WORTH { 0 } else { covered + arrived() };
        self.took = took;
    }

    /// How long the next fsync may wait for more; `None` if it is not to.
    pub fn patience(&mut self) -> Option<Duration> {
        if self.written >= self.expected {
            return None;
        }
        if self.skipped > 0 {
            self.skipped -= 1;
            return None;
        }
        Some((self.took / SHARE).min(MOST))
    }

    /// Whether all are there with so many that are not yet written.
    pub fn is_complete(&self, ahead: u64) -> bool {
        self.written + ahead >= self.expected
    }

    /// How a pause ended.
    pub fn paused(&mut self, complete: bool) {
        self.in_vain = if complete { 0 } else { (self.in_vain + 1).min(RARELY) };
        self.skipped = (1 << self.in_vain) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(8);

    #[test]
    fn those_who_were_answered_are_waited_for() {
        let mut group = Group::default();
        group.wrote(30);
        assert_eq!(group.patience(), None, "nothing is known");
        group.synced(SLOW, || 20);
        group.wrote(20);
        assert_eq!(group.patience(), Some(SLOW / 4));
        assert!(!group.is_complete(29));
        assert!(group.is_complete(30));
        group.paused(true);
        group.wrote(30);
        assert_eq!(group.patience(), None, "all are there");
        group.synced(Duration::from_micros(100), || 0);
        group.wrote(1);
        assert_eq!(group.patience(), None, "it is fast");
    }

    #[test]
    fn one_client_alone_never_waits() {
        let mut group = Group::default();
        for _ in 0..3 {
            group.wrote(1);
            assert_eq!(group.patience(), None);
            group.synced(SLOW, || 0);
        }
    }

    #[test]
    fn what_is_in_vain_becomes_rare() {
        let mut group = Group::default();
        group.synced(SLOW, || 2);
        let mut pauses = 0;
        for _ in 0..1000 {
            group.wrote(1);
            if group.patience().is_some() {
                pauses += 1;
                group.paused(false);
            }
            group.synced(SLOW, || 1);
        }
        assert!((10..25).contains(&pauses), "{pauses}");
        group.paused(true);
        group.wrote(1);
        assert!(group.patience().is_some());
    }
}
