//! Replication, driven: the machines of [`crate::repl`] with sockets, the log and the snapshot.
//!
//! | file | concept |
//! |---|---|
//! | `state` | both machines, the history and the replicas, behind one lock |
//! | `role` | becoming a replica, becoming a primary |
//! | `failover` | handing over to a replica, and taking over (FAILOVER) |
//! | `feed` | the connection of one replica |
//! | `stream` | the log on its way to the socket of a replica, and the replies that wait for that |
//! | `full_sync` | one snapshot for the replicas that wait |
//! | `following` | the connection to our primary |
//! | `apply` | the thread that applies our primary's stream |
//! | `load` | the thread that loads our primary's RDB |
//! | `wait` | clients that wait for replicas (WAIT) |
//! | `requests`, `info` | what commands do, and what INFO and ROLE say |
//! | `link_config` | the directives, as the machines take them |
//!
//! # Locks
//!
//! Shards first, then [`state::State`]. Whom the node follows, its history, and whether its own writers append
//! to the log change only while both are held; so whoever holds the locks of some data may rely on all three.

mod apply;
pub mod failover;
mod feed;
mod following;
mod full_sync;
mod info;
mod link_config;
mod load;
mod requests;
mod role;
mod state;
mod stream;
mod wait;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;

use crate::base::rng::Rng;
use crate::base::time::MonoMs;
use crate::command::gate;
use crate::keyspace::Effects;
use crate::repl::primary::RoleEntry;
use crate::repl::{History, ReplId, SavedPosition};
use crate::server::node::Node;
use state::State;

pub use feed::take_over;
pub use info::{Facts, role};
pub use requests::{Change, change_role, on_close, replconf};
pub use role::{follow, promote};
pub use wait::{Goal, Waiting, begin as wait, stop as stop_waiting};

/// The machines' clock.
const TICK: Duration = Duration::from_millis(100);
/// Every so many ticks it is asked whether the backlog is still of use.
const BACKLOG_TICKS: u64 = 10;

/// What a node has of replication.
pub struct Replication {
    state: Mutex<State>,
    /// Held while an RDB of a primary replaces the data: one at a time.
    loading: Mutex<()>,
    /// When our present primary last sent something, plus one; 0: never.
    last_io: AtomicU64,
    link_up: AtomicBool,
    sync_full: AtomicU64,
    sync_partial_ok: AtomicU64,
    sync_partial_err: AtomicU64,
    /// Bytes from our primary, and to replicas.
    input_bytes: AtomicU64,
    output_bytes: Arc<AtomicU64>,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replication").finish_non_exhaustive()
    }
}

impl Replication {
    /// Follows nobody. `seed`: what its replication ids are drawn from.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(State::new(Rng::new(seed))),
            loading: Mutex::default(),
            last_io: AtomicU64::new(0),
            link_up: AtomicBool::new(false),
            sync_full: AtomicU64::new(0),
            sync_partial_ok: AtomicU64::new(0),
            sync_partial_err: AtomicU64::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The id of the history that the node continues.
    pub fn id(&self) -> ReplId {
        self.lock().history.id()
    }

    /// Begins another history with the data that are there (DEBUG CHANGE-REPL-ID): no replica can go on from the
    /// former one.
    pub fn change_id(&self) {
        let state = &mut *self.lock();
        tracing::info!("Changing replication IDs after receiving change-repl-id");
        state.history.forget(&mut state.rng);
    }

    /// The point in the history that the data are at while every shard is locked; `None` while no stream is
    /// kept, since then offsets say nothing.
    pub fn saved_position(&self, node: &Node) -> Option<SavedPosition> {
        let state = self.lock();
        let (offset, db) = node.shared.keyspace.log.position();
        state.stream_kept.then(|| SavedPosition { id: state.history.id(), offset, db: db.unwrap_or(0) })
    }

    /// Brings the gate's conditions that depend on the role and on replicas up to date.
    pub fn settle(&self, node: &Node) {
        self.lock().settle(node);
    }

    /// More of the log is on this node's disk: answers the clients that wait for that (WAITAOF).
    pub fn log_synced(&self, node: &Node) {
        let mut state = self.lock();
        wait::serve(node, &mut state);
    }

    /// Replicas that follow the stream: where each has got to, as `address:port`, and the end of the stream.
    pub fn followers(&self, node: &Node) -> (Vec<(String, u64)>, u64) {
        let end = node.shared.keyspace.log.end();
        let replicas = self.lock().primary.role();
        let shown = |r: RoleEntry| (format!("{}:{}", r.ip, r.port), r.offset);
        (replicas.into_iter().map(shown).collect(), end)
    }

    /// Whether there is something to hand on to replicas: always, unless a primary is followed whose data have
    /// not come.
    pub fn has_data(&self) -> bool {
        self.lock().upstream.as_ref().is_none_or(|u| u.replica.is_up())
    }

    /// Closes the connection of a replica, or the one to our primary (CLIENT KILL).
    pub fn kill(&self, node: &Arc<Node>, client: u64) {
        let mut state = self.lock();
        if let Some(upstream) = state.upstream.as_mut().filter(|u| u.client == Some(client)) {
            upstream.cut = true;
        }
        state.close(node, client);
    }

    /// Zeroes the counters of INFO stats (CONFIG RESETSTAT).
    pub fn reset_stats(&self) {
        for counter in [
            &self.sync_full,
            &self.sync_partial_ok,
            &self.sync_partial_err,
            &self.input_bytes,
            &*self.output_bytes,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn heard_primary(&self, now: MonoMs) {
        self.last_io.store(now + 1, Ordering::Relaxed);
    }
}

/// What must be known of replication before data are loaded: a replica keeps keys whose time has come.
pub fn prepare(node: &Node) {
    let config = node.config.load();
    let is_replica = config.replicaof.0.is_some() && !config.cluster_enabled;
    node.shared.is_replica.store(is_replica, Ordering::Release);
    node.shared.set_gate(gate::READ_ONLY, is_replica && config.replica_read_only);
}

/// Begins replication: resumes the history that the data file was at, lets clients in, and
/// follows the configured primary.
pub fn start(node: &Arc<Node>, file: Option<SavedPosition>) {
    let config = node.config.load_full();
    let primary = if config.cluster_enabled { None } else { config.replicaof.0.clone() };
    {
        let locked = node.shared.keyspace.lock_all();
        let mut state = node.peers.replication.lock();
        if let Some(at) = file {
            if primary.is_some() {
                state.history.adopt(at.id);
            } else {
                state.history = History::restarted(at.id, at.offset, &mut state.rng);
            }
            // The stream of a primary that is followed goes on where this database is selected; our own begins
            // with a SELECT.
            node.shared.keyspace.log.restart_at(at.offset, primary.as_ref().map(|_| at.db));
            state.stream_kept = true;
        }
        node.shared.keyspace.log.set_keep(config.repl_backlog_size);
        // Only now: a write before this would stand at an offset of the history that ended. And before a primary
        // is followed, since a full synchronization closes the gate again.
        node.shared.set_gate(gate::LOADING, false);
        if let Some(address) = primary {
            role::follow_locked(node, &locked, &mut state, address, file.is_some());
        }
    }
    spawn(node, clock(Arc::clone(node)));
}

/// Appends the deletions of keys that had expired when the data file was loaded: a replica that goes on from
/// where the file was has them still. A replica of another node leaves that to its primary.
pub fn tell_of_expired(node: &Node, deletions: &mut Effects) {
    if deletions.has_records() && !node.is_replica() {
        let _locked = node.shared.keyspace.lock_all();
        deletions.append_to(&node.shared.keyspace.log, false);
    }
}

/// Runs a task on the control thread.
fn spawn<F>(node: &Node, task: F) -> Option<AbortHandle>
where
    F: Future<Output = ()> + Send + 'static,
{
    // Without the thread the node is not running, or no more.
    Some(node.life.threads.control.get()?.spawn(task).abort_handle())
}

async fn clock(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0u64.. {
        ticks.tick().await;
        if node.life.shutdown.begun.load(Ordering::Acquire) {
            return;
        }
        if node.life.stopped.cron.load(Ordering::Relaxed) {
            continue;
        }
        let idle = {
            let mut state = node.peers.replication.lock();
            // Without shard locks the backlog cannot be given up: the machine is told of none.
            state.tick(&node, false);
            state.stream_kept && state.primary.connected() == 0
        };
        node.shared.keyspace.log.ring();
        if idle && n % BACKLOG_TICKS == 0 && !node.shared.is_replica.load(Ordering::Relaxed) {
            // Not on this thread: a stalled shard must not stop the cluster bus.
            let node = Arc::clone(&node);
            tokio::task::spawn_blocking(move || {
                let _locked = node.shared.keyspace.lock_all();
                node.peers.replication.lock().tick(&node, true);
            });
        }
    }
}
