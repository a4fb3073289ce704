//! DEBUG RELOAD and DEBUG LOADAOF: the data set through its file and back.

use std::fs::File;
use std::sync::Arc;
use std::thread;

use crate::command::{CommandError, Ctx, Outcome, Result, is};
use crate::keyspace::Effects;
use crate::resp::Reply;
use crate::script::Libraries;
use crate::server::commands::node;
use crate::server::disk::rdb_load::Same;
use crate::server::disk::{aof, rdb_file, rdb_load};
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::process::os_error::words;

/// What becomes of the data around a reload.
#[derive(Clone, Copy)]
struct How {
    save: bool,
    flush: bool,
    /// Keys of the file take the place of those that are there; otherwise there must be none.
    merge: bool,
}

impl How {
    fn parse(words: &[&[u8]]) -> Result<Self> {
        let mut how = Self { save: true, flush: true, merge: false };
        for word in words {
            if is(word, "nosave") {
                how.save = false;
            } else if is(word, "noflush") {
                how.flush = false;
            } else if is(word, "merge") {
                how.merge = true;
            } else {
                return Err(CommandError::text(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
        Ok(how)
    }
}

/// DEBUG RELOAD.
pub fn run(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let how = How::parse(&args[2..])?;
    begin(ctx, "RELOAD", "ERR Error trying to load the RDB dump, check server logs.", move |node| {
        save_and_load(node, how)?;
        tracing::warn!("DB reloaded by DEBUG RELOAD");
        Ok(())
    })
}

/// DEBUG LOADAOF.
pub fn load_aof(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let failed = "ERR Error trying to load the AOF files, check server logs.";
    begin(ctx, "LOADAOF", failed, |node| {
        let is_on = node.files.aof.is_on();
        if is_on && !aof::flush(node) {
            return Err("the append-only file cannot be put on the disk".into());
        }
        empty(node);
        if !is_on {
            return Err("there is no append-only file: appendonly is off".into());
        }
        aof::load_again(node)?;
        tracing::warn!("Append Only File loaded by DEBUG LOADAOF");
        Ok(())
    })
}

/// Starts it on a thread of its own, since the client's worker holds the locks that it needs. Other
/// clients are told meanwhile that data are being loaded.
fn begin(
    ctx: &mut Ctx<'_, '_, '_>,
    what: &'static str,
    failed: &'static str,
    body: impl FnOnce(&Arc<Node>) -> std::result::Result<(), String> + Send + 'static,
) -> Result {
    if ctx.client.executing.is_some() {
        return Err(CommandError::owned(format!("ERR DEBUG {what} is not allowed inside a transaction")));
    }
    let (node, client) = (node(ctx), &*ctx.client);
    let for_thread = Arc::clone(node);
    let (worker, token, id) = (client.worker, client.token, client.id);
    let body = move || {
        let mut reply = Reply::new();
        let done = body(&for_thread);
        for_thread.end_load();
        match done {
            Ok(()) => reply.ok(),
            Err(e) => {
                tracing::warn!("DEBUG {what}: {e}");
                reply.error(failed);
            }
        }
        for_thread.send(worker, Mail::Resume { token, client: id, reply, written_to: 0 });
    };
    node.begin_load();
    match thread::Builder::new().name("reload".into()).spawn(body) {
        Ok(_) => Ok(Outcome::Suspended),
        Err(e) => {
            node.end_load();
            Err(CommandError::owned(format!("ERR cannot start a thread: {e}")))
        }
    }
}

fn empty(node: &Node) {
    let keyspace = &node.shared.keyspace;
    let mut locked = keyspace.lock_all();
    for db in 0..keyspace.databases() as u16 {
        keyspace.flush(&mut locked, db, &mut Effects::default());
    }
    node.shared.scripts.set_libraries(Libraries::default());
}

fn save_and_load(node: &Node, how: How) -> std::result::Result<(), String> {
    if how.save && !rdb_file::save_now(node) {
        return Err("the data set could not be saved".into());
    }
    if how.flush {
        empty(node);
        node.invalidate_all();
    }
    let file = File::open(rdb_file::path(&node.config.load())).map_err(|e| words(&e))?;
    let total = file.metadata().ok().map(|m| m.len());
    let same = if how.merge { Same::Replace } else { Same::Refuse };
    rdb_load::load_over(node, file, total, same).map(|_| ()).map_err(|e| e.to_string())
}
