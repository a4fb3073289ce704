//! DEBUG RELOAD: the data set through its file and back.

use std::fs::File;
use std::sync::Arc;
use std::thread;

use crate::command::{Ctx, Fail, Outcome, Result, gate, is};
use crate::keyspace::Effects;
use crate::resp::Reply;
use crate::server::commands::node;
use crate::server::disk::rdb_file;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::process::os_error::words;

/// What becomes of the data around a reload.
#[derive(Clone, Copy)]
struct How {
    save: bool,
    flush: bool,
}

impl How {
    fn parse(words: &[&[u8]]) -> Result<Self> {
        let mut how = Self { save: true, flush: true };
        for word in words {
            if is(word, "nosave") {
                how.save = false;
            } else if is(word, "noflush") {
                how.flush = false;
            } else if !is(word, "merge") {
                return Err(Fail::text(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
        Ok(how)
    }
}

/// Starts it on a thread of its own, since the client's worker holds the locks that it needs. Other
/// clients are told meanwhile that data are being loaded.
pub fn run(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let how = How::parse(&args[2..])?;
    if ctx.client.executing.is_some() {
        return Err(Fail::text("ERR DEBUG RELOAD is not allowed inside a transaction"));
    }
    let (node, client) = (node(ctx), &*ctx.client);
    let for_thread = Arc::clone(node);
    let (worker, token, id) = (client.worker, client.token, client.id);
    let body = move || {
        let mut reply = Reply::new();
        match reload(&for_thread, how) {
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
        Ok(_) => Ok(Outcome::Suspended),
        Err(e) => {
            node.shared.set_gate(gate::LOADING, false);
            Err(Fail::owned(format!("ERR cannot start a thread: {e}")))
        }
    }
}

fn reload(node: &Node, how: How) -> std::result::Result<(), String> {
    let done = save_and_load(node, how);
    node.shared.set_gate(gate::LOADING, false);
    done
}

fn save_and_load(node: &Node, how: How) -> std::result::Result<(), String> {
    if how.save && !rdb_file::save_now(node) {
        return Err("the data set could not be saved".into());
    }
    let keyspace = &node.shared.keyspace;
    if how.flush {
        let mut locked = keyspace.lock_all();
        for db in 0..keyspace.databases() as u16 {
            keyspace.flush(&mut locked, db, &mut Effects::default());
        }
        node.invalidate_all();
    }
    let file = File::open(rdb_file::path(&node.config.load())).map_err(|e| words(&e))?;
    let total = file.metadata().ok().map(|m| m.len());
    rdb_file::load(node, file, total, &|| true).map(|_| ()).map_err(|e| e.to_string())
}
