//! DEBUG RELOAD: the data set through its file and back.

use std::fs::File;
use std::sync::Arc;
use std::thread;

use crate::command::{Client, gate};
use crate::exec::After;
use crate::keyspace::Effects;
use crate::resp::Reply;
use crate::server::commands::fail;
use crate::server::disk::rdb_file;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::process::os_error::words;

/// Starts it on a thread of its own, since the client's worker holds the locks that it needs. Other
/// clients are told meanwhile that data are being loaded.
pub fn begin(node: &Arc<Node>, client: &Client, reply: &mut Reply) -> After {
    let for_thread = Arc::clone(node);
    let (worker, token, id) = (client.worker, client.token, client.id);
    let body = move || {
        let mut reply = Reply::new();
        match reload(&for_thread) {
            Ok(()) => reply.ok(),
            Err(e) => {
                tracing::warn!("DEBUG RELOAD: {e}");
                reply.error("ERR Error trying to load the RDB dump, check server logs.");
            }
        }
        for_thread.send(worker, Mail::Resume { token, client: id, reply, written_to: 0 });
    };
    node.shared.set_gate(gate::LOADING, true);
    match thread::Builder::new().name("reload".into()).spawn(body) {
        Ok(_) => After::Suspended,
        Err(e) => {
            node.shared.set_gate(gate::LOADING, false);
            fail(node, client, reply, &format!("ERR cannot start a thread: {e}"));
            After::Done
        }
    }
}

fn reload(node: &Node) -> Result<(), String> {
    let done = save_and_load(node);
    node.shared.set_gate(gate::LOADING, false);
    done
}

fn save_and_load(node: &Node) -> Result<(), String> {
    if !rdb_file::save_now(node) {
        return Err("the data set could not be saved".into());
    }
    let keyspace = &node.shared.keyspace;
    let mut locked = keyspace.lock_all();
    for db in 0..keyspace.databases() as u16 {
        keyspace.flush(&mut locked, db, &mut Effects::default());
    }
    drop(locked);
    let file = File::open(rdb_file::path(&node.config.load())).map_err(|e| words(&e))?;
    let total = file.metadata().ok().map(|m| m.len());
    rdb_file::load(node, file, total, &|| true).map(|_| ()).map_err(|e| e.to_string())
}
