//! How the use of keys is remembered, in the 24 bits that each entry has for it: the second of the
//! last use, or under an LFU policy 16 bits of minutes and a counter that grows by the logarithm of
//! the uses and falls by time.
//! Source: the documentation of key eviction, "LFU", and of `lfu-log-factor` and `lfu-decay-time`.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::base::rng::Rng;
use crate::config::choice::MaxmemoryPolicy;

/// Set in a stamp under an LFU policy; it lies outside of the bits that an entry keeps.
const COUNTS: u32 = 1 << 24;
const SECONDS: u32 = COUNTS - 1;
const MINUTES: u32 = 0xffff;
/// A new key is not the first to go.
const FIRST_COUNT: u32 = 5;

/// The clock of uses, and how they are counted.
#[derive(Debug, Default)]
pub struct Usage {
    stamp: AtomicU32,
    counts: AtomicBool,
    /// Whether each value has a use of its own, so that small integers cannot be one shared object.
    tracks: AtomicBool,
    log_factor: AtomicU32,
    decay_minutes: AtomicU32,
}

impl Usage {
    /// Follows the configuration: `maxmemory-policy` and whether there is a limit, `lfu-log-factor`,
    /// `lfu-decay-time`. The clock must be set anew.
    pub fn configure(&self, policy: MaxmemoryPolicy, limited: bool, log_factor: u32, decay_minutes: u32) {
        self.counts.store(policy.is_lfu(), Ordering::Relaxed);
        self.tracks.store(limited && (policy.is_lru() || policy.is_lfu()), Ordering::Relaxed);
        self.log_factor.store(log_factor, Ordering::Relaxed);
        self.decay_minutes.store(decay_minutes, Ordering::Relaxed);
    }

    /// Sets the clock to a number of seconds, of a clock that never goes back.
    pub fn set_clock(&self, seconds: u64) {
        let stamp = if self.counts() { with_minutes(seconds, FIRST_COUNT) } else { seconds as u32 & SECONDS };
        self.stamp.store(stamp, Ordering::Relaxed);
    }

    /// What a new entry is stamped with, and every use of it unless [`is_counted`].
    #[inline]
    pub(super) fn stamp(&self) -> u32 {
        self.stamp.load(Ordering::Relaxed)
    }

    /// Whether uses are counted: an LFU policy is chosen.
    pub fn counts(&self) -> bool {
        self.counts.load(Ordering::Relaxed)
    }

    /// Whether `maxmemory-policy` needs to know when or how often each key is used.
    pub fn tracks_each_value(&self) -> bool {
        self.tracks.load(Ordering::Relaxed)
    }

    /// Seconds since `access` was stamped.
    pub fn idle_seconds(&self, access: u32) -> u32 {
        self.stamp().wrapping_sub(access) & SECONDS
    }

    /// The count of uses in `access`, less one for each time of decay since.
    pub fn frequency(&self, access: u32) -> u8 {
        let since = (self.stamp() >> 8 & MINUTES).wrapping_sub(access >> 8) & MINUTES;
        let periods = since.checked_div(self.decay_minutes.load(Ordering::Relaxed)).unwrap_or(0);
        (access & 0xff).saturating_sub(periods) as u8
    }

    /// `access` after one use more: the higher the count, the rarer it grows.
    pub(super) fn count(&self, access: u32, rng: &mut Rng) -> u32 {
        let count = u32::from(self.frequency(access));
        let beyond = u64::from(count.saturating_sub(FIRST_COUNT));
        let rarity = beyond * u64::from(self.log_factor.load(Ordering::Relaxed)) + 1;
        let grown = count < 255 && rng.chance(1, rarity);
        self.with_count((count + u32::from(grown)) as u8)
    }

    /// An access of now with this count.
    pub(super) fn with_count(&self, count: u8) -> u32 {
        self.stamp() & !0xff | u32::from(count)
    }
}

/// Whether a stamp says that uses are counted.
#[inline(always)]
pub(super) fn is_counted(stamp: u32) -> bool {
    stamp & COUNTS != 0
}

fn with_minutes(seconds: u64, count: u32) -> u32 {
    COUNTS | ((seconds / 60) as u32 & MINUTES) << 8 | count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(log_factor: u32, decay_minutes: u32) -> Usage {
        let usage = Usage::default();
        usage.configure(MaxmemoryPolicy::AllkeysLfu, true, log_factor, decay_minutes);
        usage.set_clock(1_700_000_000);
        usage
    }

    /// The table in the comments of redis.conf: hits and the count that they lead to, by factor.
    #[test]
    fn counts_grow_by_the_logarithm_of_the_uses() {
        for (factor, hits, around) in [
            (0, 100, 105),
            (0, 1000, 255),
            (1, 1000, 49),
            (10, 1000, 18),
            (10, 100_000, 142),
            (100, 100_000, 49),
        ] {
            let usage = counting(factor, 1);
            let mut rng = Rng::new(7);
            let runs = 20;
            let sum: u32 = (0..runs)
                .map(|_| (0..hits).fold(usage.stamp(), |access, _| usage.count(access, &mut rng)) & 0xff)
                .sum();
            let mean = sum / runs;
            assert!(
                mean.abs_diff(around) <= 2 + around / 8,
                "factor {factor}, {hits} hits: {mean}, not {around}"
            );
        }
    }

    #[test]
    fn counts_fall_by_the_minutes_without_a_use() {
        let usage = counting(10, 2);
        let access = usage.with_count(100);
        usage.set_clock(1_700_000_000 + 60 * 20);
        assert_eq!(usage.frequency(access), 90);
        usage.set_clock(1_700_000_000 + 60 * 500);
        assert_eq!(usage.frequency(access), 0);
        let forever = counting(10, 0);
        forever.set_clock(1_700_000_000 + 60 * 5000);
        assert_eq!(forever.frequency(access), 100);
        // The minutes have 16 bits and go round.
        let usage = counting(10, 1);
        let late = Usage::default();
        late.configure(MaxmemoryPolicy::VolatileLfu, true, 10, 1);
        late.set_clock(0xffff * 60);
        let access = late.with_count(50);
        usage.set_clock((0xffff + 3) * 60);
        assert_eq!(usage.frequency(access), 47);
    }

    #[test]
    fn without_lfu_the_stamp_is_a_clock_of_seconds() {
        let usage = Usage::default();
        usage.set_clock(0x1ff_fffe);
        let access = usage.stamp();
        assert!(!is_counted(access));
        usage.set_clock(0x1ff_fffe + 5);
        assert_eq!(usage.idle_seconds(access), 5);
    }
}
