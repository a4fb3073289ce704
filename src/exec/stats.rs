//! Counters of one executor. Its thread writes them, INFO reads them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::histogram::{Histogram, Sum};

/// Counters of one command.
#[derive(Debug, Default)]
pub struct Counter {
    pub calls: AtomicU64,
    pub nanos: AtomicU64,
    pub rejected: AtomicU64,
    pub failed: AtomicU64,
    /// Made by the first call that counts there.
    histogram: OnceLock<Histogram>,
}

/// Counters of one executor, by command id.
#[derive(Debug)]
pub struct CommandStats {
    pub commands: Box<[Counter]>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    /// Error replies by code.
    pub errors: Mutex<HashMap<String, u64>>,
}

/// Adds to a counter that only this thread writes: no read-modify-write needed.
#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl CommandStats {
    pub fn new(commands: usize) -> Self {
        Self {
            commands: (0..commands).map(|_| Counter::default()).collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            errors: Mutex::default(),
        }
    }

    /// Counts a call that took `nanos`, also in the histogram of the command if `histogram` says so.
    #[inline]
    pub fn count_call(&self, id: usize, nanos: u64, histogram: bool) {
        let c = &self.commands[id];
        bump(&c.calls, 1);
        bump(&c.nanos, nanos);
        if histogram {
            c.histogram.get_or_init(Histogram::default).count(nanos);
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
        bump(&self.commands[id].failed, 1);
        self.count_error(text);
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

    /// Counts an error reply by its code, the first word.
    pub fn count_error(&self, text: &str) {
        let code = text.split(' ').next().unwrap_or_default();
        *self.errors.lock().entry_ref(code).or_insert(0) += 1;
    }

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
        self.errors.lock().clear();
    }
}
