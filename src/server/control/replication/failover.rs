//! FAILOVER, driven: the pause, the change of roles, and what becomes of a refusal.

use std::sync::Arc;

use crate::command::{Client, CommandError};
use crate::keyspace::Locked;
use crate::repl::failover::{Failover, Order, Step};
use crate::server::control::replication::role;
use crate::server::control::replication::state::State;
use crate::server::node::Node;
use crate::server::node::pause::Purpose;

/// Longer than any handing over takes: its own clock ends it.
const FOREVER_MS: u64 = u64::MAX / 2;

/// FAILOVER. Every shard is locked: whatever is in the log now is all that there will be.
pub fn begin(node: &Node, order: Order, locked: &Locked<'_>) -> Result<(), CommandError> {
    role::assert_all(locked);
    let mut state = node.peers.replication.lock();
    if state.failover.is_some() {
        return Err(CommandError::text("ERR FAILOVER already in progress."));
    }
    if state.upstream.is_some() {
        return Err(CommandError::text("ERR FAILOVER is not valid when server is a replica."));
    }
    let failover = order.begin(node.mono_ms(), &state.primary).map_err(CommandError::text)?;
    tracing::info!("FAILOVER requested to {}.", failover.target());
    state.failover = Some(failover);
    node.pause_clients(Purpose::Failover, FOREVER_MS, false);
    Ok(())
}

/// FAILOVER ABORT. Every shard is locked.
pub fn abort(node: &Arc<Node>, locked: &Locked<'_>) -> Result<(), CommandError> {
    let mut state = node.peers.replication.lock();
    if state.failover.is_none() {
        return Err(CommandError::text("ERR No failover in progress."));
    }
    abort_locked(node, locked, &mut state, "Failover manually aborted");
    Ok(())
}

fn abort_locked(node: &Arc<Node>, locked: &Locked<'_>, state: &mut State, why: &str) {
    let Some(failover) = state.failover.take() else { return };
    tracing::info!("FAILOVER to {} aborted: {why}", failover.target());
    if failover.is_in_progress() {
        role::promote_locked(node, locked, state);
    }
    node.unpause_clients(Purpose::Failover);
}

/// Time went by, or a replica has acknowledged more: goes on with what is under way. Roles change on another
/// thread, because this one must not wait for shards.
pub(super) fn advance(node: &Arc<Node>, state: &mut State) {
    let Some(failover) = &state.failover else { return };
    let step = failover.look(node.mono_ms(), &state.primary, node.shared.keyspace.log.end());
    if step == Step::Wait || std::mem::replace(&mut state.failover_steps, true) {
        return;
    }
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || {
        let locked = node.shared.keyspace.lock_all();
        let mut state = node.peers.replication.lock();
        state.failover_steps = false;
        take_step(&node, &locked, &mut state);
    });
}

fn take_step(node: &Arc<Node>, locked: &Locked<'_>, state: &mut State) {
    let Some(failover) = &mut state.failover else { return };
    match failover.look(node.mono_ms(), &state.primary, node.shared.keyspace.log.end()) {
        Step::Wait => {}
        Step::Abort(why) => abort_locked(node, locked, state, why),
        Step::HandOver { to, why } => {
            tracing::info!("{why}");
            failover.handed_over(to.clone());
            role::follow_locked(node, locked, state, to, true);
        }
    }
}

/// Our former replica is our primary now.
pub(super) fn succeeded(node: &Node) {
    node.peers.replication.lock().failover = None;
    node.unpause_clients(Purpose::Failover);
}

/// Our former replica stays what it was, and so do we. The caller holds no lock.
pub(super) fn refused(node: &Arc<Node>) {
    let locked = node.shared.keyspace.lock_all();
    let mut state = node.peers.replication.lock();
    if state.failover.as_ref().is_some_and(Failover::is_in_progress) {
        abort_locked(node, &locked, &mut state, "Failover target rejected psync request");
    }
}

/// PSYNC FAILOVER of our primary: it wants to be our replica. `id` is the history that it has. Every shard is locked.
pub fn take_over(
    node: &Arc<Node>,
    client: &Client,
    id: &[u8],
    locked: &Locked<'_>,
) -> Result<(), CommandError> {
    let mut state = node.peers.replication.lock();
    tracing::warn!("Failover request received for replid {}.", id.escape_ascii());
    if state.upstream.is_none() {
        return Err(CommandError::text("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if !id.eq_ignore_ascii_case(state.history.id().as_str().as_bytes()) {
        return Err(CommandError::text("ERR PSYNC FAILOVER replid must match my replid."));
    }
    role::promote_locked(node, locked, &mut state);
    let user = format!("id={} addr={}", client.id, client.addr);
    tracing::info!("MASTER MODE enabled (failover request from '{user}')");
    Ok(())
}

impl super::Replication {
    /// Whether the node is handing over.
    pub fn is_failing_over(&self) -> bool {
        self.lock().failover.is_some()
    }
}
