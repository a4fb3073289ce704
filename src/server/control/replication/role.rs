//! Becoming a replica, becoming a primary. Both happen between two commands: with every shard locked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Config;
use crate::config::compound::PrimaryAddress;
use crate::keyspace::{LockSet, Locked};
use crate::repl::failover::Failover;
use crate::repl::replica::{Position, Replica};
use crate::server::control::replication::following;
use crate::server::control::replication::link_config;
use crate::server::control::replication::state::{Leaver, State, Upstream};
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::process::logging;
use crate::server::process::os_error::words;

/// Follows the primary at `address`, keeping the data until it is known whether they are a part of its history.
/// Nothing changes if the node follows it already. The caller holds no lock.
pub fn follow(node: &Arc<Node>, address: (String, u16)) {
    let locked = node.shared.keyspace.lock_all();
    follow_locked(node, &locked, &mut node.peers.replication.lock(), address, true);
}

/// How long a promotion waits for what has arrived of the stream to be applied.
const PATIENCE: Duration = Duration::from_millis(500);

/// Follows nobody, with the data that are there and what has arrived of the stream. The caller holds no lock, and
/// may wait.
pub fn promote(node: &Arc<Node>) {
    let (sender, told) = std::sync::mpsc::channel();
    let waits = leave(&mut node.peers.replication.lock(), Leaver::Thread(sender));
    if waits && told.recv_timeout(PATIENCE).is_ok() {
        return;
    }
    let locked = node.shared.keyspace.lock_all();
    promote_locked(node, &locked, &mut node.peers.replication.lock());
}

/// Has the link to our primary end, and the node become a primary once everything that came over it is applied:
/// then `leaver` is told. False when there is nothing to wait for.
pub(super) fn leave(state: &mut State, leaver: Leaver) -> bool {
    let Some(upstream) = state.upstream.as_mut().filter(|u| u.replica.is_up()) else { return false };
    upstream.leavers.push(leaver);
    upstream.leave.notify_one();
    true
}

/// Everything that has arrived is applied: the node becomes a primary. The caller holds no lock.
pub(super) fn left(node: &Arc<Node>, ticket: u64) {
    let locked = node.shared.keyspace.lock_all();
    let mut state = node.peers.replication.lock();
    if state.upstream.as_ref().is_some_and(|u| u.ticket == ticket) {
        promote_locked(node, &locked, &mut state);
    }
}

pub(super) fn assert_all(locked: &Locked<'_>) {
    assert!(locked.set().contains(&LockSet::ALL), "roles change with every shard locked");
}

/// As [`follow`]; false if the node follows that primary already. `has_history`: the data are a point in a
/// history that the primary may share.
pub(super) fn follow_locked(
    node: &Arc<Node>,
    locked: &Locked<'_>,
    state: &mut State,
    address: (String, u16),
    has_history: bool,
) -> bool {
    assert_all(locked);
    let log = &node.shared.keyspace.log;
    let mut former = None;
    let position = match state.upstream.take() {
        Some(old)
            if (old.replica.config().host.as_str(), old.replica.config().port) == (&address.0, address.1) =>
        {
            state.upstream = Some(old);
            return false;
        }
        Some(mut old) => {
            if let Some(task) = &old.task {
                task.abort();
            }
            std::mem::take(&mut old.leavers).into_iter().for_each(|leaver| leaver.tell(node));
            old.replica.applied(log.end());
            let position = old.replica.position();
            former = Some(old.replica);
            position
        }
        None if !has_history => None,
        None => {
            tracing::info!(
                "Before turning into a replica, using my own master parameters to synthesize a cached master: \
                 I may be able to synchronize with the new master with just a partial transfer."
            );
            Some(Position { id: state.history.id(), offset: log.end() })
        }
    };
    let config = node.config.load();
    let now = node.mono_ms();
    let mut replica = Replica::new(now, link_config::replica(&config, address.clone()), position);
    if let Some(former) = former {
        replica = replica.after(now, &former);
    }
    if state.failover.as_ref().is_some_and(Failover::is_in_progress) {
        replica = replica.handing_over();
    }
    let ticket = log.follow();
    node.shared.is_replica.store(true, Ordering::Release);
    node.peers.replication.last_io.store(0, Ordering::Relaxed);
    state.upstream = Some(Upstream {
        replica,
        ticket,
        task: None,
        client: None,
        cut: false,
        leavers: Vec::new(),
        leave: Arc::default(),
    });
    let task = crate::server::control::replication::spawn(node, following::drive(Arc::clone(node), ticket));
    if let Some(upstream) = &mut state.upstream {
        upstream.task = task;
    }
    state.waits.clear();
    state.settle(node);
    remember(node, Some(address));
    show(node, logging::Role::Replica);
    node.send_all(|| Mail::Demoted);
    true
}

/// As [`promote`]; false if the node is a primary already.
pub(super) fn promote_locked(node: &Arc<Node>, locked: &Locked<'_>, state: &mut State) -> bool {
    assert_all(locked);
    let Some(old) = state.upstream.take() else { return false };
    if let Some(task) = &old.task {
        task.abort();
    }
    let log = &node.shared.keyspace.log;
    let line = state.history.promote(log.end(), &mut state.rng);
    tracing::info!("{line}");
    log.lead();
    node.shared.is_replica.store(false, Ordering::Release);
    // They must learn of the new id when they come back.
    state.disconnect_replicas(node);
    state.settle(node);
    remember(node, None);
    show(node, logging::Role::Primary);
    for leaver in old.leavers {
        if let Leaver::Client(.., user) = &leaver {
            tracing::info!("MASTER MODE enabled (user request from '{user}')");
        }
        leaver.tell(node);
    }
    true
}

/// Shows the role in log lines, and to the system when memory runs out.
fn show(node: &Node, role: logging::Role) {
    if let Some(log) = &node.life.origin.log {
        log.set_role(role);
    }
    if let Err(e) =
        node.life.origin.oom_score.lock().apply(&node.config.load(), role == logging::Role::Replica)
    {
        tracing::warn!("Unable to write oom_score_adj: {}", words(&e));
    }
}

/// Shows the role in the configuration, where CONFIG REWRITE finds it. In a cluster nodes.conf knows it.
fn remember(node: &Node, primary: Option<(String, u16)>) {
    node.config.rcu(|config| {
        let mut config = Config::clone(config);
        if !config.cluster_enabled {
            config.replicaof = PrimaryAddress(primary.clone());
        }
        config
    });
}
