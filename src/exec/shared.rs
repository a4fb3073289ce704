//! What all executors of a node share: the data, the table of commands, and conditions that change while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::observe::Observers;
use super::script;
use crate::cluster::view::View;
use crate::command::table::CommandEntry;
use crate::command::{CommandTable, gate};
use crate::keyspace::db::Expiring;
use crate::keyspace::{Keyspace, Known};
use crate::script::Store;
use crate::value::Limits;

/// What all executors of a node share.
pub struct Shared {
    /// All data of the node.
    pub keyspace: Arc<Keyspace>,
    /// Names as `rename-command` left them.
    pub commands: CommandTable,
    /// Conditions of the node: bits of [`gate`].
    pub gate: AtomicU32,
    /// Directives that shape values; each executor takes a change over with its next batch of commands.
    pub limits: ArcSwap<Limits>,
    /// `maxmemory` and how keys are evicted.
    pub memory: MemoryLimit,
    /// Why the append-only file cannot be written, in the system's words.
    pub log_trouble: ArcSwap<String>,
    /// Who owns which slot; `None` outside cluster mode.
    pub view: ArcSwapOption<View>,
    /// This node follows a primary: its clients see dead keys as missing, and it deletes none.
    pub is_replica: AtomicBool,
    /// Scripts and functions.
    pub scripts: Store,
    /// `busy-reply-threshold` in milliseconds: a client that needs the locks of a script that has run for longer
    /// is told -BUSY; 0: none is.
    pub busy_after_ms: AtomicU64,
    /// Who looks at commands that have run.
    pub observers: Observers,
    /// Which script may wait for further locks while it holds some.
    pub claims: script::Claims,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// `maxmemory` and how it is measured.
pub struct MemoryLimit {
    /// Bytes; 0: none.
    pub limit: AtomicU64,
    /// `maxmemory-policy`, by its number.
    pub policy: AtomicU8,
    /// `maxmemory-samples`: keys that are compared to find the one to evict.
    pub samples: AtomicU32,
    /// How many keys are evicted in one go; after that commands run although memory is still above its limit
    /// (`maxmemory-eviction-tenacity`).
    pub most: AtomicU64,
    /// Bytes allocated now.
    pub used: fn() -> u64,
    /// Values that are gone but whose memory is still being freed.
    pub being_freed: fn() -> usize,
}

impl Shared {
    /// Sets or clears a condition of the node.
    pub fn set_gate(&self, bit: u32, on: bool) {
        if on {
            self.gate.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.gate.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Whether memory is above `limit`, not counting what the log keeps for readers that are behind (replicas, the
    /// append-only file): keys that are evicted would make that longer still.
    pub fn is_above(&self, limit: u64) -> bool {
        let used = (self.memory.used)();
        used > limit && used.saturating_sub(self.keyspace.log.beyond_backlog()) > limit
    }

    /// Goes through the keys of a call with their hashes; through none if they cannot be told.
    #[inline(always)]
    pub fn each_key<'a>(&self, entry: &CommandEntry, args: &[&'a [u8]], mut f: impl FnMut(Known<'a>)) {
        if let Some(at) = entry.single_key {
            if let Some(key) = args.get(at) {
                f((key, self.keyspace.hashed(key)));
            }
        } else if !entry.command.keys.is_empty() {
            let positions = entry.command.key_positions(args).unwrap_or_default();
            positions.into_iter().for_each(|at| f((args[at], self.keyspace.hashed(args[at]))));
        }
    }

    /// How this node treats keys whose time has come.
    pub fn expiring(&self) -> Expiring {
        // While writes are paused nothing may change, not even by itself: a failover relies on it.
        let paused = self.gate.load(Ordering::Relaxed) & gate::PAUSED_WRITES != 0;
        if paused || self.is_replica.load(Ordering::Relaxed) { Expiring::Hide } else { Expiring::Delete }
    }
}
