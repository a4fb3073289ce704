//! Rates of the recent past: the `instantaneous_` fields of INFO.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::time::MonoMs;

/// Samples that a rate is the mean of.
const SAMPLES: usize = 16;

/// One counter's recent growth.
#[derive(Debug, Default)]
pub struct Rate {
    last: Option<(MonoMs, u64)>,
    samples: [u64; SAMPLES],
    next: usize,
}

impl Rate {
    /// Takes the counter's value at a moment.
    pub fn sample(&mut self, now: MonoMs, value: u64) {
        if let Some((then, before)) = self.last
            && now > then
        {
            self.samples[self.next] = value.saturating_sub(before) * 1000 / (now - then);
            self.next = (self.next + 1) % SAMPLES;
        }
        self.last = Some((now, value));
    }

    /// Growth a second.
    pub fn per_second(&self) -> u64 {
        self.samples.iter().sum::<u64>() / SAMPLES as u64
    }
}

/// The rates that INFO shows.
#[derive(Debug, Default)]
pub struct Rates {
    /// Calls of commands.
    pub commands: Rate,
    /// Nanoseconds spent in commands, by all threads.
    pub command_nanos: Rate,
    /// Bytes read from clients.
    pub input_bytes: Rate,
    /// Bytes written to clients.
    pub output_bytes: Rate,
    /// Bytes that our primary sent.
    pub repl_input_bytes: Rate,
    /// Bytes sent to replicas.
    pub repl_output_bytes: Rate,
    /// Rounds of the workers.
    pub rounds: Rate,
}

/// How long memory has been above its limit although keys were evicted, or none could be.
#[derive(Debug, Default)]
pub struct Exceeded {
    /// Since when, or 0.
    since: AtomicU64,
    total_ms: AtomicU64,
}

impl Exceeded {
    /// Notes whether it is, at a moment.
    pub fn note(&self, exceeded: bool, now: MonoMs) {
        if exceeded {
            let _ = self.since.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed);
        } else if self.since.load(Ordering::Relaxed) != 0 {
            let since = self.since.swap(0, Ordering::Relaxed);
            let lasted = if since == 0 { 0 } else { now.saturating_sub(since) };
            self.total_ms.fetch_add(lasted, Ordering::Relaxed);
        }
    }

    /// Altogether, and this time.
    pub fn milliseconds(&self, now: MonoMs) -> (u64, u64) {
        let since = self.since.load(Ordering::Relaxed);
        let current = if since == 0 { 0 } else { now.saturating_sub(since) };
        (self.total_ms.load(Ordering::Relaxed) + current, current)
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.total_ms.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_above_the_limit_adds_up() {
        let exceeded = Exceeded::default();
        exceeded.note(false, 5);
        exceeded.note(true, 10);
        exceeded.note(true, 20);
        assert_eq!(exceeded.milliseconds(30), (20, 20));
        exceeded.note(false, 40);
        exceeded.note(true, 100);
        assert_eq!(exceeded.milliseconds(101), (31, 1));
        exceeded.reset();
        assert_eq!(exceeded.milliseconds(200), (0, 0));
    }

    #[test]
    fn a_steady_counter_has_its_rate() {
        let mut rate = Rate::default();
        for i in 0..20 {
            rate.sample(i * 100, i * 50);
        }
        assert_eq!(rate.per_second(), 500);
        rate.sample(2000, 0);
        assert!(rate.per_second() < 500, "a counter that was reset does not wrap");
    }
}
