//! Clients that wait until enough replicas have their writes (WAIT).

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Client, Fail};
use crate::repl::GETACK_RECORD;
use crate::resp::Reply;
use crate::server::control::replication::state::State;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;

/// One of them.
pub(super) struct Wait {
    /// Never used again, so that the timer of a wait that is over cannot end the next one.
    number: u64,
    worker: usize,
    token: usize,
    client: u64,
    /// The offset behind its last write, and how many replicas must have applied the log up to there.
    offset: u64,
    replicas: usize,
}

/// How WAIT begins.
pub enum Waiting {
    /// So many replicas have what the client wrote; the answer is given at once.
    Over(usize),
    /// The client is answered later.
    Begun,
}

/// WAIT; without a timeout for ever. Without `may_wait` the answer is given at once.
pub fn begin(
    node: &Arc<Node>,
    client: &Client,
    replicas: usize,
    timeout: Option<Duration>,
    may_wait: bool,
) -> Result<Waiting, Fail> {
    let mut state = node.replication.lock();
    if state.upstream.is_some() {
        return Err(Fail::text(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let acknowledged = state.primary.acknowledged_by(client.written_to);
    if acknowledged >= replicas || !may_wait {
        return Ok(Waiting::Over(acknowledged));
    }
    state.waits_begun += 1;
    let number = state.waits_begun;
    state.waits.push(Wait {
        number,
        worker: client.worker,
        token: client.token,
        client: client.id,
        offset: client.written_to,
        replicas,
    });
    // Whoever is asked for more than this client wrote answers for that, too.
    if state.asked_at < client.written_to || state.waits.len() == 1 {
        state.asked_at = node.shared.keyspace.log.append_raw(GETACK_RECORD);
    }
    drop(state);
    node.replication.ring();
    if let Some(timeout) = timeout {
        let node = Arc::clone(node);
        crate::server::control::replication::spawn(&Arc::clone(&node), async move {
            tokio::time::sleep(timeout).await;
            let mut state = node.replication.lock();
            if let Some(at) = state.waits.iter().position(|w| w.number == number) {
                let wait = state.waits.swap_remove(at);
                answer(&node, &state, &wait);
            }
        });
    }
    Ok(Waiting::Begun)
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
    node.send(wait.worker, Mail::Resume { token: wait.token, client: wait.client, reply, written_to: 0 });
}

/// A client that waited is gone.
pub(super) fn forget(state: &mut State, client: u64) {
    state.waits.retain(|w| w.client != client);
}
