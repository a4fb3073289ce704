//! The orderly end: SHUTDOWN, SIGTERM and SIGINT.
//!
//! Writes are paused, replicas get what they have not yet received (for `shutdown-timeout` at most),
//! the data set is saved if it is to be, then the acceptor, the control thread and the workers end,
//! the latter with what they can still send. Source: the documentation of SHUTDOWN.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::command::gate;
use crate::resp::Reply;
use crate::server::disk::{aof, rdb_file};
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::node::pause::Purpose;

/// SHUTDOWN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Save also where no save points are configured.
    pub save: bool,
    /// Do not save although save points are configured.
    pub nosave: bool,
    /// Do not wait for replicas that lag behind.
    pub now: bool,
    /// End even if saving fails.
    pub force: bool,
    /// Call off the shutdown under way.
    pub abort: bool,
}

/// A shutdown under way, and the clients that asked for it.
#[derive(Debug, Default)]
pub struct ShutdownState {
    /// The node ends: loops that look here stop.
    pub begun: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    under_way: bool,
    /// Files under way were given up: see [`ShutdownState::closes_files`].
    closes_files: bool,
    aborted: bool,
    /// Until when replicas are waited for.
    deadline: Option<Instant>,
    /// Worker, token and number of the clients whose SHUTDOWN waits.
    waiting: Vec<(usize, usize, u64)>,
}

impl ShutdownState {
    /// The end makes its own files now: what the timer began would only be in its way.
    pub fn closes_files(&self) -> bool {
        self.inner.lock().closes_files
    }

    /// How long replicas are still waited for, in milliseconds; `None` unless the node is about to end.
    pub fn remaining_ms(&self) -> Option<u128> {
        let deadline = self.inner.lock().deadline?;
        Some(deadline.saturating_duration_since(Instant::now()).as_millis())
    }
}

/// How often waiting is looked after.
const LOOK: Duration = Duration::from_millis(10);

/// Begins to end the node. `client` waits for the outcome: it is answered only if there is an error.
pub fn begin(node: &Arc<Node>, how: Shutdown, client: Option<(usize, usize, u64)>) {
    let mut state = node.life.shutdown.inner.lock();
    state.waiting.extend(client);
    if state.under_way {
        return;
    }
    state.under_way = true;
    state.aborted = false;
    drop(state);
    let on_control = Arc::clone(node);
    if let Some(control) = node.life.threads.control.get() {
        control.spawn(async move { run(&on_control, how).await });
    }
}

/// SHUTDOWN ABORT. False when there is nothing to abort, or no more.
pub fn abort(node: &Node) -> bool {
    let mut state = node.life.shutdown.inner.lock();
    let possible = state.under_way && !node.life.shutdown.begun.load(Ordering::Acquire);
    state.aborted |= possible;
    possible
}

async fn run(node: &Arc<Node>, how: Shutdown) {
    tracing::info!("User requested shutdown...");
    // What is not yet loaded must not replace the file that it is loaded from.
    let loading = node.shared.gate.load(Ordering::Acquire) & gate::LOADING != 0;
    let wanted = how.save || (!how.nosave && !node.config.load().save.0.is_empty());
    let saves = wanted && !loading;
    node.shared.scripts.stop_all(how.nosave);
    stop_writes(node).await;
    if !how.now && lags(node) {
        wait_for_replicas(node).await;
    }
    report_replicas(node);
    if node.files.aof.is_beginning() {
        if !how.force {
            tracing::warn!("Writing initial AOF, can't exit.");
            return give_up(node);
        }
        tracing::warn!("Writing initial AOF. Exit anyway.");
    }
    // The first one goes on if the end was refused: who asks again must not find it begun anew.
    node.life.shutdown.inner.lock().closes_files = true;
    aof::give_up_rewrite(node);
    give_up_save(node).await;
    let called_off = || node.life.shutdown.inner.lock().aborted;
    if saves && !called_off() {
        tracing::info!("Saving the final RDB snapshot before exiting.");
        if !save(node).await {
            if !how.force {
                tracing::warn!("Error trying to save the DB, can't exit.");
                tracing::warn!("Errors trying to shut down the server. Check the logs for more information.");
                return give_up(node);
            }
            tracing::warn!("Error trying to save the DB, but forced to exit.");
        }
    }
    if !called_off() && !complete_aof(node).await && !how.force {
        tracing::warn!("Errors trying to shut down the server. Check the logs for more information.");
        return give_up(node);
    }
    let state = node.life.shutdown.inner.lock();
    if state.aborted {
        drop(state);
        tracing::warn!("Shutdown manually aborted.");
        return give_up(node);
    }
    node.life.shutdown.begun.store(true, Ordering::Release);
    drop(state);
    if let Some(acceptor) = node.life.threads.acceptor.get() {
        acceptor.wake();
    }
    node.send_all(|| Mail::Shutdown);
}

/// Puts the append-only file on the disk. False when that failed.
async fn complete_aof(node: &Arc<Node>) -> bool {
    if !node.files.aof.is_on() {
        return true;
    }
    tracing::info!("Calling fsync() on the AOF file.");
    let node = Arc::clone(node);
    // A thread that panicked has ended the process already.
    tokio::task::spawn_blocking(move || aof::flush(&node)).await.unwrap_or(false)
}

/// Longer than any end takes.
const FOREVER_MS: u64 = u64::MAX / 2;

/// Pauses writes. On return nobody is inside one any more: what is answered with success is in the data that the
/// replicas wait for and that are saved.
async fn stop_writes(node: &Arc<Node>) {
    node.pause_clients(Purpose::Shutdown, FOREVER_MS, false);
    let (passed, mut all_passed) = tokio::sync::mpsc::channel::<()>(1);
    node.send_all(|| Mail::Settle(passed.clone()));
    drop(passed);
    // Nothing ever comes: it ends when every worker has dropped its own.
    all_passed.recv().await;
}

/// The end has a save of its own, or none: one under way is of no use.
async fn give_up_save(node: &Arc<Node>) {
    let node = Arc::clone(node);
    // It waits for a file that is about to get its name. A thread that panicked has ended the process already.
    let _ = tokio::task::spawn_blocking(move || rdb_file::give_up_save(&node)).await;
}

/// Saves once what was given up has ended. False when it failed.
async fn save(node: &Arc<Node>) -> bool {
    while node.files.save.is_running() || node.files.aof.is_rewriting() {
        tokio::time::sleep(LOOK).await;
    }
    let node = Arc::clone(node);
    // A thread that panicked has ended the process already.
    tokio::task::spawn_blocking(move || rdb_file::save_now(&node)).await.unwrap_or(false)
}

fn lags(node: &Node) -> bool {
    let (replicas, end) = node.peers.replication.followers(node);
    replicas.iter().any(|(_, offset)| *offset < end)
}

/// Says which replicas have everything; tools read it.
fn report_replicas(node: &Node) {
    let (replicas, end) = node.peers.replication.followers(node);
    let lagging: Vec<_> = replicas.iter().filter(|(_, offset)| *offset < end).collect();
    for (address, offset) in &lagging {
        tracing::info!("Lagging replica {address} reported offset {} behind master", end - offset);
    }
    if !replicas.is_empty() {
        tracing::info!(
            "{} of {} replicas are in sync when shutting down.",
            replicas.len() - lagging.len(),
            replicas.len()
        );
    }
}

/// Waits until the replicas have everything, the time is over, or it is called off.
async fn wait_for_replicas(node: &Node) {
    let seconds = u64::from(node.config.load().shutdown_timeout);
    tracing::info!("Waiting for replicas before shutting down.");
    let deadline = Instant::now() + Duration::from_secs(seconds);
    node.life.shutdown.inner.lock().deadline = Some(deadline);
    while lags(node) && Instant::now() < deadline {
        if node.life.shutdown.inner.lock().aborted {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The node goes on; those who asked for its end are told.
fn give_up(node: &Node) {
    node.unpause_clients(Purpose::Shutdown);
    node.shared.scripts.ending.store(false, Ordering::Release);
    let mut state = node.life.shutdown.inner.lock();
    state.under_way = false;
    state.closes_files = false;
    state.deadline = None;
    for (worker, token, client) in state.waiting.drain(..) {
        let mut reply = Reply::new();
        reply.error("ERR Errors trying to SHUTDOWN. Check logs.");
        node.send(worker, Mail::Resume { token, client, reply, written_to: 0 });
    }
}
