//! What a node counts of itself, for INFO.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::exec::stats::CommandStats;
use crate::server::node::expiry::ExpiryStats;
use crate::server::node::rates::{Exceeded, Rates};

/// Counters that belong to no subject with a state of its own.
#[derive(Debug)]
pub struct Counters {
    /// Of the commands, one for each executor.
    pub commands: Vec<Arc<CommandStats>>,
    /// Of the clients' sockets.
    pub net: NetStats,
    /// How fast some of them grow.
    pub rates: Mutex<Rates>,
    /// Of the search for dead keys.
    pub expiry: ExpiryStats,
    /// How long memory has been above its limit.
    pub exceeded: Exceeded,
    /// The most memory that was seen in use, in bytes.
    pub memory_peak: AtomicU64,
    /// Memory taken before there were data, in bytes.
    pub memory_at_start: AtomicU64,
}

/// Bytes and events of clients' sockets.
#[derive(Debug, Default)]
pub struct NetStats {
    /// Bytes read.
    pub input_bytes: AtomicU64,
    /// Bytes written.
    pub output_bytes: AtomicU64,
    /// Calls that read something.
    pub reads: AtomicU64,
    /// Calls that wrote.
    pub writes: AtomicU64,
    /// Rounds of all workers.
    pub rounds: AtomicU64,
    /// Clients closed for what they sent.
    pub query_limit_closed: AtomicU64,
    /// Clients closed for what they did not read.
    pub output_limit_closed: AtomicU64,
    /// Errors that our primary or a replica of ours should have had no reason for.
    pub unexpected_errors: AtomicU64,
    /// Times that workers' reply buffers were made smaller.
    pub reply_shrinks: AtomicU64,
    /// Times that they had to grow.
    pub reply_expands: AtomicU64,
}

impl Counters {
    /// Of so many executors, which know so many commands.
    pub fn new(executors: usize, commands: usize) -> Self {
        Self {
            commands: (0..executors).map(|_| Arc::new(CommandStats::new(commands))).collect(),
            net: NetStats::default(),
            rates: Mutex::default(),
            expiry: ExpiryStats::default(),
            exceeded: Exceeded::default(),
            memory_peak: AtomicU64::new(0),
            memory_at_start: AtomicU64::new(0),
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.commands.iter().for_each(|stats| stats.reset());
        let net = &self.net;
        for counter in [
            &net.input_bytes,
            &net.output_bytes,
            &net.reads,
            &net.writes,
            &net.rounds,
            &net.query_limit_closed,
            &net.output_limit_closed,
            &net.unexpected_errors,
            &net.reply_shrinks,
            &net.reply_expands,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.exceeded.reset();
        self.expiry.reset();
        *self.rates.lock() = Rates::default();
    }
}
