//! What commands ask of replication.

use std::sync::Arc;

use crate::command::Client;
use crate::command::client::Role;
use crate::command::request::ReplicationRequest;
use crate::exec::After;
use crate::keyspace::Db;
use crate::repl::primary::Replconf;
use crate::resp::Reply;
use crate::server::control::replication::feed::peer_ip;
use crate::server::control::replication::{role, wait};
use crate::server::node::Node;

/// Fulfils a request of `client`.
pub fn perform(
    node: &Arc<Node>,
    request: ReplicationRequest,
    client: &mut Client,
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) -> After {
    match request {
        ReplicationRequest::Replconf(words) => replconf(node, client, &words, reply),
        ReplicationRequest::Sync(request) => {
            if client.role != Role::Normal {
                return After::Done;
            }
            let state = node.replication.lock();
            if state.upstream.as_ref().is_some_and(|u| !u.replica.is_up()) {
                reply.error("NOMASTERLINK Can't SYNC while not connected with my master");
                return After::Done;
            }
            client.sync = Some(request);
            client.role = Role::Replica;
            client.version += 1;
            return After::Detached;
        }
        ReplicationRequest::Follow(address) => change_role(node, client, address, db, reply),
        ReplicationRequest::Role => crate::server::control::replication::info::role(node, reply),
        ReplicationRequest::Wait { local, replicas, timeout_ms, may_wait } => {
            let goal = wait::Goal { offset: client.written_to, local, replicas };
            return wait::begin(node, client, goal, timeout_ms, may_wait, reply);
        }
    }
    After::Done
}

fn replconf(node: &Arc<Node>, client: &mut Client, words: &[Vec<u8>], reply: &mut Reply) {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    client.introduced = true;
    let mut state = node.replication.lock();
    let mut out = Vec::new();
    match state.primary.replconf(node.mono_ms(), client.id, peer_ip(&client.addr), &words, &mut out) {
        Replconf::Ok => reply.ok(),
        Replconf::Silent => {}
        Replconf::Error(text) => reply.error(&text),
    }
    state.carry_out(node, out);
}

/// REPLICAOF. Every shard is locked.
fn change_role(
    node: &Arc<Node>,
    client: &Client,
    address: Option<(String, u16)>,
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) {
    if client.role == Role::Replica {
        return reply.error("ERR Command is not valid when client is a replica.");
    }
    let mut state = node.replication.lock();
    let user = format!("id={} addr={}", client.id, client.addr);
    match address {
        None => {
            if role::promote_locked(node, db.locked(), &mut state) {
                tracing::info!("MASTER MODE enabled (user request from '{user}')");
            }
        }
        Some((host, port)) => {
            let line = format!("REPLICAOF {host}:{port} enabled (user request from '{user}')");
            if !role::follow_locked(node, db.locked(), &mut state, (host, port), true) {
                tracing::info!(
                    "REPLICAOF would result into synchronization with the master we are already connected with. No operation performed."
                );
                return reply.simple("OK Already connected to specified master");
            }
            tracing::info!("{line}");
        }
    }
    reply.ok();
}

/// A client's connection closed on its worker.
pub fn on_close(node: &Arc<Node>, client: &Client, waited: bool) {
    if !client.introduced && !waited {
        return;
    }
    let mut state = node.replication.lock();
    let mut out = Vec::new();
    state.primary.closed(node.mono_ms(), client.id, &mut out);
    state.carry_out(node, out);
    wait::forget(&mut state, client.id);
}
