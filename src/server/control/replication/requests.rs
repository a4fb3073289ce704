//! What commands ask of replication.

use std::sync::Arc;

use crate::command::{Client, CommandError};
use crate::keyspace::Locked;
use crate::repl::primary::Replconf;
use crate::server::control::replication::feed::peer_ip;
use crate::server::control::replication::state::Leaver;
use crate::server::control::replication::{role, wait};
use crate::server::node::Node;

/// REPLCONF, its words from the first option on. False when there is no answer.
pub fn replconf(node: &Arc<Node>, client: &mut Client, words: &[&[u8]]) -> Result<bool, CommandError> {
    client.introduced = true;
    let mut state = node.peers.replication.lock();
    let mut out = Vec::new();
    let answer = state.primary.replconf(node.mono_ms(), client.id, peer_ip(&client.addr), words, &mut out);
    state.carry_out(node, out);
    match answer {
        Replconf::Ok => Ok(true),
        Replconf::Silent => Ok(false),
        Replconf::Error(text) => Err(CommandError::owned(text)),
    }
}

/// What has become of REPLICAOF.
pub enum Change {
    /// It was done.
    Done,
    /// The node follows that primary already.
    Same,
    /// The client is answered once what has arrived of the stream is applied.
    Later,
}

/// REPLICAOF; `None`: follow no one. Every shard is locked. Without `may_wait` what has arrived of the stream and is
/// not applied is lost.
pub fn change_role(
    node: &Arc<Node>,
    client: &Client,
    address: Option<(String, u16)>,
    locked: &mut Locked<'_>,
    may_wait: bool,
) -> Change {
    let mut state = node.peers.replication.lock();
    let user = format!("id={} addr={}", client.id, client.addr);
    let Some((host, port)) = address else {
        let leaver = Leaver::Client(client.worker, client.token, client.id, user.clone());
        if may_wait && role::leave(&mut state, leaver) {
            return Change::Later;
        }
        if role::promote_locked(node, locked, &mut state) {
            tracing::info!("MASTER MODE enabled (user request from '{user}')");
        }
        return Change::Done;
    };
    let line = format!("REPLICAOF {host}:{port} enabled (user request from '{user}')");
    if !role::follow_locked(node, locked, &mut state, (host, port), true) {
        tracing::info!(
            "REPLICAOF would result into synchronization with the master we are already connected with. No operation performed."
        );
        return Change::Same;
    }
    tracing::info!("{line}");
    Change::Done
}

/// A client's connection closed on its worker.
pub fn on_close(node: &Arc<Node>, client: &Client, waited: bool) {
    if !client.introduced && !waited {
        return;
    }
    let mut state = node.peers.replication.lock();
    let mut out = Vec::new();
    state.primary.closed(node.mono_ms(), client.id, &mut out);
    state.carry_out(node, out);
    wait::forget(&mut state, client.id);
}
