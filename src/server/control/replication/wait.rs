//! Clients that wait until enough replicas have their writes (WAIT), or until they are on disk (WAITAOF).

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::command::{Client, CommandError};
use crate::repl::GETACK_RECORD;
use crate::repl::primary::Action;
use crate::resp::Reply;
use crate::server::control::replication::state::State;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;

/// What a client waits for.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// The offset behind its last write.
    pub offset: u64,
    /// WAITAOF: whether the log must be on this node's own disk, too, and on the replicas' disks. `None`: WAIT,
    /// which counts what replicas have applied.
    pub local: Option<bool>,
    /// How many replicas must have it.
    pub replicas: usize,
}

impl Goal {
    /// What there is: whether this node has it on disk, and how many replicas have it as it is wanted.
    fn reached(&self, node: &Node, state: &State) -> (bool, usize) {
        let synced = node.shared.keyspace.log.synced().is_some_and(|synced| synced >= self.offset);
        let replicas = match self.local {
            None => state.primary.acknowledged_by(self.offset),
            Some(_) => state.primary.synced_by(self.offset),
        };
        (synced, replicas)
    }

    fn is_reached(&self, node: &Node, state: &State) -> bool {
        let (synced, replicas) = self.reached(node, state);
        replicas >= self.replicas && (synced || self.local != Some(true))
    }

    fn answer(&self, node: &Node, state: &State, reply: &mut Reply) {
        let (synced, replicas) = self.reached(node, state);
        if self.local.is_some() {
            reply.array(2);
            reply.int(i64::from(synced));
        }
        reply.int(replicas as i64);
    }
}

/// One of them.
pub(super) struct Wait {
    /// Never used again, so that the timer of a wait that is over cannot end the next one.
    number: u64,
    worker: usize,
    token: usize,
    client: u64,
    goal: Goal,
    /// Ends the wait by time.
    timer: Option<AbortHandle>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

const NO_FILE: &str = "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";

/// How WAIT and WAITAOF begin.
pub enum Waiting {
    /// The answer is written.
    Over,
    /// The client is answered later.
    Begun,
}

/// WAIT and WAITAOF; without a timeout for ever. Without `may_wait` the answer is given at once.
pub fn begin(
    node: &Arc<Node>,
    client: &Client,
    goal: Goal,
    timeout: Option<Duration>,
    may_wait: bool,
    reply: &mut Reply,
) -> Result<Waiting, CommandError> {
    let mut state = node.peers.replication.lock();
    if state.upstream.is_some() {
        return Err(CommandError::text(match goal.local {
            None => {
                "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated."
            }
            Some(_) => {
                "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not propagated."
            }
        }));
    }
    if goal.local == Some(true) && !node.files.aof.is_on() {
        return Err(CommandError::text(NO_FILE));
    }
    if goal.is_reached(node, &state) || !may_wait {
        goal.answer(node, &state, reply);
        return Ok(Waiting::Over);
    }
    state.waits_begun += 1;
    let number = state.waits_begun;
    let (worker, token) = (client.worker, client.token);
    let timer =
        timeout.and_then(|timeout| super::spawn(node, end_in_time(Arc::clone(node), number, timeout)));
    state.waits.push(Wait { number, worker, token, client: client.id, goal, timer });
    // A replica that was asked behind this client's write answers for it, too.
    // While the node hands over, the end of the stream stands still; replicas tell by themselves.
    if state.failover.is_none() && (state.asked_at < goal.offset || state.waits.len() == 1) {
        state.carry_out(node, vec![Action::Append(GETACK_RECORD)]);
        state.asked_at = node.shared.keyspace.log.end();
    }
    drop(state);
    node.shared.keyspace.log.ring();
    Ok(Waiting::Begun)
}

/// Answers the wait of this number when its time is over, if it is not answered by then.
async fn end_in_time(node: Arc<Node>, number: u64, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    let mut state = node.peers.replication.lock();
    if let Some(at) = state.waits.iter().position(|w| w.number == number) {
        let wait = state.waits.swap_remove(at);
        answer(&node, &state, &wait);
    }
}

/// Answers those whose goal is reached, and those whose goal cannot be reached because there is no append-only file
/// any more.
pub(super) fn serve(node: &Node, state: &mut State) {
    let mut waits = std::mem::take(&mut state.waits);
    for wait in waits.extract_if(.., |w| w.goal.is_reached(node, state)) {
        answer(node, state, &wait);
    }
    if !node.files.aof.is_on() {
        for wait in waits.extract_if(.., |w| w.goal.local == Some(true)) {
            let mut reply = Reply::new();
            reply.error(NO_FILE);
            resume(node, &wait, reply);
        }
    }
    state.waits = waits;
}

fn answer(node: &Node, state: &State, wait: &Wait) {
    let mut reply = Reply::new();
    wait.goal.answer(node, state, &mut reply);
    resume(node, wait, reply);
}

fn resume(node: &Node, wait: &Wait, reply: Reply) {
    node.send(wait.worker, Mail::Resume { token: wait.token, client: wait.client, reply, written_to: 0 });
}

/// Ends a client's wait before its time, with what there is. `None`: it does not wait, or its answer is on its way.
pub fn stop(node: &Node, client: u64) -> Option<Reply> {
    let mut state = node.peers.replication.lock();
    let at = state.waits.iter().position(|w| w.client == client)?;
    let wait = state.waits.swap_remove(at);
    let mut reply = Reply::new();
    wait.goal.answer(node, &state, &mut reply);
    Some(reply)
}

/// A client that waited is gone.
pub(super) fn forget(state: &mut State, client: u64) {
    state.waits.retain(|w| w.client != client);
}
