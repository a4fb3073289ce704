//! Clients that wait until enough replicas have their writes (WAIT).

use std::sync::Arc;
use std::time::Duration;

use super::super::mailbox::Mail;
use super::super::node::Node;
use super::state::State;
use crate::command::Client;
use crate::exec::After;
use crate::repl::GETACK_RECORD;
use crate::resp::Reply;

/// One of them.
pub(super) struct Wait {
    worker: usize,
    token: usize,
    client: u64,
    /// The offset behind its last write, and how many replicas must have applied the log up to there.
    offset: u64,
    replicas: usize,
}

/// WAIT. A timeout of 0 is none.
pub(super) fn begin(
    node: &Arc<Node>,
    client: &Client,
    replicas: usize,
    timeout_ms: u64,
    may_wait: bool,
    reply: &mut Reply,
) -> After {
    let mut state = node.replication.lock();
    if state.upstream.is_some() {
        reply.error(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
        );
        return After::Done;
    }
    let acknowledged = state.primary.acknowledged_by(client.written_to);
    if acknowledged >= replicas || !may_wait {
        reply.int(acknowledged as i64);
        return After::Done;
    }
    state.waits.push(Wait {
        worker: client.worker,
        token: client.token,
        client: client.id,
        offset: client.written_to,
        replicas,
    });
    node.shared.keyspace.log.append_raw(GETACK_RECORD);
    drop(state);
    node.replication.ring();
    if timeout_ms > 0 {
        let (node, client) = (Arc::clone(node), client.id);
        super::spawn(&Arc::clone(&node), async move {
            tokio::time::sleep(Duration::from_millis(timeout_ms)).await;
            let mut state = node.replication.lock();
            if let Some(at) = state.waits.iter().position(|w| w.client == client) {
                let wait = state.waits.swap_remove(at);
                answer(&node, &state, &wait);
            }
        });
    }
    After::Suspended
}

/// Answers those whose replicas have acknowledged.
pub(super) fn serve(node: &Node, state: &mut State) {
    let primary = &state.primary;
    let done: Vec<Wait> =
        state.waits.extract_if(.., |w| primary.acknowledged_by(w.offset) >= w.replicas).collect();
    for wait in &done {
        answer(node, state, wait);
    }
}

fn answer(node: &Node, state: &State, wait: &Wait) {
    let mut reply = Reply::new();
    reply.int(state.primary.acknowledged_by(wait.offset) as i64);
    node.send(wait.worker, Mail::Resume { token: wait.token, client: wait.client, reply });
}

/// A client that waited is gone.
pub(super) fn forget(state: &mut State, client: u64) {
    state.waits.retain(|w| w.client != client);
}
