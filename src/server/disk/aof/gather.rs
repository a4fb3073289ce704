//! How long a write under `appendfsync always` waits for others, so that one fsync covers them all.
//!
//! Clients that wait for the disk come back together once they are answered. If the next fsync begins with the first of
//! them, they fall into two groups for good: each waits for the fsync of the other, and an fsync covers one half. So
//! the next one waits until as many have come as were answered, but for no longer than an fsync takes: then it
//! would have been better not to wait, and it is tried more and more rarely. A client that is alone never waits.

use std::time::Duration;

/// It looks so often who has come.
const SLICE: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_millis(2);
/// Fsyncs that do not wait after waiting was in vain, at most.
const SKIPPED_MAX: u32 = 127;

#[derive(Debug, Default)]
pub(super) struct Gather {
    /// The end of the log that makes it worth an fsync.
    wanted: u64,
    /// Up to where the last fsync covered it.
    synced: u64,
    /// A moving mean of what fsyncs take.
    fsync: Duration,
    /// Fsyncs that still do not wait, and how many they were last.
    skip: u32,
    skipped: u32,
}

impl Gather {
    /// An fsync that took so long has covered the log up to `synced`; it has grown to `end` meanwhile.
    pub fn note_fsync(&mut self, took: Duration, synced: u64, end: u64) {
        let answered = synced.saturating_sub(self.synced);
        // Some may be through.
        self.wanted = end + answered - answered / 8;
        self.synced = synced;
        self.fsync = (self.fsync * 7 + took) / 8;
    }

    /// Waits until enough has come to the log, whose end is `end`, or for as long as makes sense. `sleep` returns how
    /// long that really took.
    pub fn wait(&mut self, end: impl Fn() -> u64, mut sleep: impl FnMut(Duration) -> Duration) {
        if end() >= self.wanted {
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let (most, mut slept) = (self.fsync.min(LONGEST), Duration::ZERO);
        while end() < self.wanted {
            if slept >= most {
                self.skipped = (2 * self.skipped + 1).min(SKIPPED_MAX);
                self.skip = self.skipped;
                return;
            }
            slept += sleep(SLICE);
        }
        self.skipped = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const FSYNC: Duration = Duration::from_millis(100);

    /// An fsync that covered `synced`, while the log grew to `end`.
    fn after(synced: u64, end: u64) -> Gather {
        let mut gather = Gather::default();
        gather.note_fsync(FSYNC, synced, end);
        gather
    }

    #[test]
    fn it_waits_for_as_many_as_were_answered() {
        let (mut gather, end) = (after(800, 1600), Cell::new(1600));
        let sleep = |pause| {
            end.set(end.get() + 50);
            pause
        };
        gather.wait(|| end.get(), sleep);
        assert_eq!(end.get(), 2300, "an eighth may be through");
    }

    #[test]
    fn who_is_alone_does_not_wait() {
        let mut gather = after(100, 100);
        for round in 2..50 {
            gather.wait(|| round * 100, |_| panic!("it waits"));
            gather.note_fsync(FSYNC, round * 100, round * 100);
        }
    }

    #[test]
    fn when_nobody_comes_it_is_tried_more_and_more_rarely() {
        let (mut gather, mut waits, mut slept) = (Gather::default(), 0, Duration::ZERO);
        for round in 1..=400 {
            gather.note_fsync(FSYNC, round * 100, round * 100);
            let before = slept;
            gather.wait(
                || round * 100,
                |pause| {
                    slept += pause;
                    pause
                },
            );
            waits += u32::from(slept > before);
            assert!(slept - before <= LONGEST, "{:?}", slept - before);
        }
        // After 0, 1, 3, 7, 15, 31, 63 and then each 127 that do not.
        assert_eq!(waits, 9);
    }
}
