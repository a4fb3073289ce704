//! Counters of one executor. Its thread writes them, INFO reads them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::histogram::{Histogram, Sum};

/// Counters of one command.
#[derive(Debug, Default)]
pub struct Counter {
    /// Calls that ran, failed ones included.
    pub calls: AtomicU64,
    /// Time that those calls took together.
    pub nanos: AtomicU64,
    /// Refused before it ran.
    pub rejected: AtomicU64,
    /// Ran and answered with an error.
    pub failed: AtomicU64,
    /// Made by the first call that counts there.
    histogram: OnceLock<Histogram>,
}

/// Counters of one executor, by command id.
#[derive(Debug)]
pub struct CommandStats {
    /// By the id of the command table.
    pub commands: Box<[Counter]>,
    /// Look-ups of keys that were there.
    pub hits: AtomicU64,
    /// Look-ups of keys that were not.
    pub misses: AtomicU64,
    /// Error replies of any code.
    pub error_replies: AtomicU64,
    /// Error replies by code.
    errors: Mutex<Errors>,
}

/// Kinds of errors that are told apart. Source: the limit of 7.4.
const MOST_KINDS: usize = 128;
/// What stands for all kinds once there were more of them.
const DISABLED: &str = "ERRORSTATS_DISABLED";

/// How often each kind of error was answered.
#[derive(Debug, Default)]
pub struct Errors {
    counts: BTreeMap<String, u64>,
    disabled: bool,
}

impl Errors {
    fn count(&mut self, code: &str, by: u64) {
        if self.disabled {
            return;
        }
        if let Some(count) = self.counts.get_mut(code) {
            *count += by;
        } else if self.counts.len() < MOST_KINDS {
            self.counts.insert(code.to_owned(), by);
        } else {
            tracing::warn!(
                "Errorstats stopped adding new errors because the number of errors reached the limit \
                 (suggested action: reset with 'CONFIG RESETSTAT')."
            );
            self.disable();
        }
    }

    fn disable(&mut self) {
        self.disabled = true;
        self.counts = BTreeMap::from([(DISABLED.to_owned(), 1)]);
    }

    /// Those of all executors together, by code.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a CommandStats>) -> BTreeMap<String, u64> {
        let mut sum = Self::default();
        for stats in all {
            let errors = stats.errors.lock();
            if errors.disabled {
                sum.disable();
            }
            errors.counts.iter().for_each(|(code, count)| sum.count(code, *count));
        }
        sum.counts
    }
}

/// Adds to a counter that only this thread writes: no read-modify-write needed.
#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Bytes of the code of an error at most.
const LONGEST_CODE: usize = 30;

impl CommandStats {
    /// Counters for the ids below `commands`.
    pub fn new(commands: usize) -> Self {
        Self {
            commands: (0..commands).map(|_| Counter::default()).collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            error_replies: AtomicU64::new(0),
            errors: Mutex::default(),
        }
    }

    /// Counts calls that took `nanos` together, also in the histogram of the command if `histogram` says so.
    #[inline]
    pub fn count_calls(&self, id: usize, calls: u64, nanos: u64, histogram: bool) {
        let c = &self.commands[id];
        bump(&c.calls, calls);
        bump(&c.nanos, nanos);
        if histogram {
            c.histogram.get_or_init(Histogram::default).count(calls, nanos / calls);
        }
    }

    /// Adds the times of a command's calls to `sum`.
    pub fn add_times(&self, id: usize, sum: &mut Option<Sum>) {
        if let Some(histogram) = self.commands[id].histogram.get() {
            sum.get_or_insert_default().add(histogram);
        }
    }

    /// All calls.
    pub fn calls(&self) -> u64 {
        self.commands.iter().map(|c| c.calls.load(Ordering::Relaxed)).sum()
    }

    /// Nanoseconds of all calls.
    pub fn nanos(&self) -> u64 {
        self.commands.iter().map(|c| c.nanos.load(Ordering::Relaxed)).sum()
    }

    /// Counts a call that ended in an error reply.
    pub fn count_failed(&self, id: usize, text: &str) {
        self.fail(id);
        self.count_error(text);
    }

    /// As [`count_failed`](Self::count_failed), for an error whose text is counted elsewhere.
    pub fn fail(&self, id: usize) {
        bump(&self.commands[id].failed, 1);
    }

    /// Counts a call that was refused before it ran.
    pub fn count_rejected(&self, id: usize, text: &str) {
        self.reject(id);
        self.count_error(text);
    }

    /// As [`count_rejected`](Self::count_rejected), for a refusal whose text is counted elsewhere.
    pub fn reject(&self, id: usize) {
        bump(&self.commands[id].rejected, 1);
    }

    /// Counts an error reply by its code, the first word; a text that begins with none (a script's own) is an ERR.
    pub fn count_error(&self, text: &str) {
        let end = text.bytes().take(LONGEST_CODE + 1).position(|byte| byte == b' ');
        let code = end.map_or("ERR", |end| &text[..end]);
        bump(&self.error_replies, 1);
        self.errors.lock().count(code, 1);
    }

    /// Look-ups that commands have made since the last call.
    pub fn add_lookups(&self, hits: u64, misses: u64) {
        bump(&self.hits, hits);
        bump(&self.misses, misses);
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for c in &self.commands {
            for counter in [&c.calls, &c.nanos, &c.rejected, &c.failed] {
                counter.store(0, Ordering::Relaxed);
            }
            if let Some(histogram) = c.histogram.get() {
                histogram.reset();
            }
        }
        self.hits.store(0, Ordering::Relaxed);
        self.misses.store(0, Ordering::Relaxed);
        self.error_replies.store(0, Ordering::Relaxed);
        *self.errors.lock() = Errors::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_kinds_of_errors_are_told_apart_no_more() {
        let all = [CommandStats::new(1), CommandStats::new(1)];
        for i in 0..MOST_KINDS {
            all[i % 2].count_error(&format!("CODE{i} text"));
            all[0].count_error("CODE0 another text");
        }
        let errors = Errors::of(&all);
        assert_eq!((errors.len(), errors["CODE0"], errors["CODE1"]), (128, 129, 1));
        all[1].count_error("MORE of them");
        assert_eq!(Errors::of(&all), BTreeMap::from([(DISABLED.to_owned(), 1)]));
        all[0].count_error("CODE0 text");
        assert_eq!(all[0].error_replies.load(Ordering::Relaxed), 64 + 128 + 1);
        all.iter().for_each(CommandStats::reset);
        all[0].count_error("CODE0 text");
        assert_eq!(Errors::of(&all), BTreeMap::from([("CODE0".to_owned(), 1)]));
        // A word alone is no code, nor is one of 31 bytes.
        all[0].count_error("plain");
        all[0].count_error(&format!("{} x", "y".repeat(31)));
        assert_eq!(Errors::of(&all)["ERR"], 2);
        (0..200).for_each(|i| all[1].count_error(&format!("CODE{i} text")));
        assert_eq!(Errors::of(&all), BTreeMap::from([(DISABLED.to_owned(), 1)]));
    }
}
