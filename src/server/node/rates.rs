//! Rates of the recent past: the `instantaneous_` fields of INFO.

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
    pub commands: Rate,
    pub command_nanos: Rate,
    pub input_bytes: Rate,
    pub output_bytes: Rate,
    pub repl_input_bytes: Rate,
    pub repl_output_bytes: Rate,
    pub rounds: Rate,
}

#[cfg(test)]
mod tests {
    use super::*;

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
