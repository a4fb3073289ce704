//! What all threads of a node share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::clients::Clients;
use super::mailbox::{Mail, Mailbox};
use super::persistence::SaveState;
use crate::base::time::{MonoMs, UnixMs};
use crate::config::Config;
use crate::exec::Shared;
use crate::exec::stats::CommandStats;

/// A running node.
pub struct Node {
    pub shared: &'static Shared,
    pub config: ArcSwap<Config>,
    pub clients: Clients,
    /// The workers' mailboxes, filled before the first client is accepted.
    pub workers: OnceLock<Vec<Arc<Mailbox>>>,
    /// Counters of every executor.
    pub stats: Vec<Arc<CommandStats>>,
    pub net: NetStats,
    pub run_id: String,
    started: Instant,
    pub started_unix_ms: UnixMs,
    pub shutting_down: AtomicBool,
    pub active_expire: AtomicBool,
    pub save: SaveState,
}

/// Bytes and events of clients' sockets.
#[derive(Debug, Default)]
pub struct NetStats {
    pub input_bytes: AtomicU64,
    pub output_bytes: AtomicU64,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Node {
    pub fn new(shared: &'static Shared, config: Config, executors: usize, run_id: String) -> Self {
        let commands = shared.commands.len();
        Self {
            shared,
            config: ArcSwap::from_pointee(config),
            clients: Clients::default(),
            workers: OnceLock::new(),
            stats: (0..executors).map(|_| Arc::new(CommandStats::new(commands))).collect(),
            net: NetStats::default(),
            run_id,
            started: Instant::now(),
            started_unix_ms: unix_ms(),
            shutting_down: AtomicBool::new(false),
            active_expire: AtomicBool::new(true),
            save: SaveState::new(unix_ms()),
        }
    }

    /// Milliseconds since the node started, on the monotonic clock.
    pub fn mono_ms(&self) -> MonoMs {
        self.started.elapsed().as_millis() as MonoMs
    }

    /// Whether dead keys are deleted in the background (`DEBUG SET-ACTIVE-EXPIRE`).
    pub fn active_expire(&self) -> bool {
        self.active_expire.load(Ordering::Relaxed)
    }

    /// Whether new clients need not authenticate.
    pub fn admits_without_password(&self) -> bool {
        self.config.load().requirepass.0.is_empty()
    }

    /// The id of the data's history, which a saved file names.
    pub fn replication_id(&self) -> String {
        self.run_id.clone()
    }

    pub fn send(&self, worker: usize, mail: Mail) {
        if let Some(mailbox) = self.workers.get().and_then(|w| w.get(worker)) {
            mailbox.send(mail);
        }
    }

    /// Ends the node: workers send what is queued and close their clients, nobody new is accepted.
    pub fn stop(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.send_all(|| Mail::Shutdown);
    }

    /// Sends a message to every worker.
    pub fn send_all(&self, mail: impl Fn() -> Mail) {
        for mailbox in self.workers.get().into_iter().flatten() {
            mailbox.send(mail());
        }
    }
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as UnixMs)
}
