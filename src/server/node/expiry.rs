//! What the search for dead keys has found, and what it cost.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Of all workers together. The share of dead keys is a running mean to which the newest round adds so much.
const WEIGHT: f64 = 0.05;

/// The counters.
#[derive(Debug, Default)]
pub struct ExpiryStats {
    nanos: AtomicU64,
    capped: AtomicU64,
    stale: Mutex<f64>,
}

/// One round of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// How long it took.
    pub nanos: u64,
    /// Keys that it found dead.
    pub dead: usize,
    /// Keys with an expiry where it looked, the dead ones included.
    pub volatile: usize,
    /// It ended although there was more to do.
    pub capped: bool,
}

impl ExpiryStats {
    /// Adds a round.
    pub fn note(&self, round: Round) {
        self.nanos.fetch_add(round.nanos, Ordering::Relaxed);
        self.capped.fetch_add(u64::from(round.capped), Ordering::Relaxed);
        let share = if round.volatile == 0 { 0.0 } else { round.dead as f64 / round.volatile as f64 };
        let mut stale = self.stale.lock();
        *stale = share * WEIGHT + *stale * (1.0 - WEIGHT);
    }

    /// Field `expired_stale_perc`: how many of a hundred keys with an expiry are dead.
    pub fn stale_percent(&self) -> f64 {
        *self.stale.lock() * 100.0
    }

    /// Rounds that ended although there was more to do.
    pub fn capped(&self) -> u64 {
        self.capped.load(Ordering::Relaxed)
    }

    /// Milliseconds that all rounds took.
    pub fn milliseconds(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed) / 1_000_000
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.nanos.store(0, Ordering::Relaxed);
        self.capped.store(0, Ordering::Relaxed);
        *self.stale.lock() = 0.0;
    }
}
