//! The clock that commands are timed with. It is read once a command, so it is the processor's own counter where
//! the kernel itself keeps time by that, and the monotonic clock elsewhere.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Nanoseconds since a moment before the first call.
#[inline]
pub fn now_ns() -> u64 {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);
    CLOCK.now_ns()
}

enum Clock {
    Monotonic {
        began: Instant,
    },
    #[cfg(target_arch = "x86_64")]
    Counter {
        began: u64,
        /// Nanoseconds of a tick, times 2^32.
        scale: u64,
    },
}

impl Clock {
    fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if counter::is_trusted() {
            let (began, scale) = counter::measure();
            return Self::Counter { began, scale };
        }
        Self::Monotonic { began: Instant::now() }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        match self {
            Self::Monotonic { began } => began.elapsed().as_nanos() as u64,
            #[cfg(target_arch = "x86_64")]
            Self::Counter { began, scale } => {
                let ticks = counter::read().wrapping_sub(*began);
                ((u128::from(ticks) * u128::from(*scale)) >> 32) as u64
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use super::{Duration, Instant};

    /// How long the counter is compared with the monotonic clock: an error of 100 ns is 0.01 % of it.
    const COMPARED: Duration = Duration::from_millis(1);

    /// Whether the counter runs evenly and alike on all cores: the kernel has looked into that.
    pub fn is_trusted() -> bool {
        std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .is_ok_and(|source| source.trim() == "tsc")
    }

    #[inline(always)]
    pub fn read() -> u64 {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// The counter now, and the nanoseconds of a tick, times 2^32.
    pub fn measure() -> (u64, u64) {
        let (first_ticks, first) = both();
        while first.elapsed() < COMPARED {
            std::hint::spin_loop();
        }
        let (ticks, last) = both();
        let nanos = (last - first).as_nanos();
        let ticks = u128::from(ticks.wrapping_sub(first_ticks).max(1));
        (first_ticks, ((nanos << 32) / ticks) as u64)
    }

    /// Both clocks at one moment: of several pairs the one that was read fastest.
    fn both() -> (u64, Instant) {
        let pair = || {
            let before = read();
            let instant = Instant::now();
            (read().wrapping_sub(before), before, instant)
        };
        let (gap, before, instant) = (0..16).map(|_| pair()).min_by_key(|p| p.0).expect("sixteen pairs");
        (before.wrapping_add(gap / 2), instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_as_fast_as_the_monotonic_clock() {
        let (start, began) = (now_ns(), Instant::now());
        while began.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (measured, real) = (now_ns() - start, began.elapsed().as_nanos() as u64);
        // Between the readings of the two the thread may have to wait for its core.
        assert!(measured >= 19_900_000 && measured <= real + real / 100, "{measured} of {real} ns");
    }
}
