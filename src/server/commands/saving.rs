//! Saving: SAVE, BGSAVE, LASTSAVE.

use std::sync::atomic::Ordering;

use crate::acl::category;
use crate::command::family::server::flush_all;
use crate::command::spec::{Command, Group::Server, flags::*};
use crate::command::{CommandError, Ctx, DONE, Outcome, Result, is};
use crate::resp::Reply;
use crate::server::commands::node;
use crate::server::disk::aof::{self, Rewriting};
use crate::server::disk::rdb_file;
use crate::server::net::mailbox::Mail;

pub const COMMANDS: &[Command] = &[
    Command::new("save", 1, Server, save)
        .complexity("O(N)")
        .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI | LOCK_ALL | READS_COUNTERS)
        .doc("1.0.0", "", "Saves the data to disk while the connection waits."),
    Command::new("bgsave", -1, Server, bgsave)
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING | LOCK_ALL | READS_COUNTERS)
        .history(&[("3.2.2", "The option `SCHEDULE`.")])
        .doc("1.0.0", "[SCHEDULE@3.2.2]", "Saves the data to disk in the background."),
    Command::new("bgrewriteaof", 1, Server, bgrewriteaof)
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING | LOCK_ALL)
        .doc("1.0.0", "", "Rewrites the append-only file in the background."),
    Command::new("lastsave", 1, Server, lastsave)
        .complexity("O(1)")
        .flags(LOADING | STALE | FAST)
        .categories(category::ADMIN | category::DANGEROUS)
        .tips(&["nondeterministic_output"])
        .doc("1.0.0", "", "Returns the Unix time of the last successful save."),
    Command::new("flushall", -1, Server, flushall)
        .flags(WRITE | LOCK_ALL)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of keys")
        .history(&[("4.0.0", "The mode `ASYNC`."), ("6.2.0", "The mode `SYNC`.")])
        .doc("1.0.0", "[flush-type=<ASYNC@4.0.0 | SYNC@6.2.0>]", "Deletes all keys of all databases."),
];

const RUNNING: CommandError = CommandError::text("ERR Background save already in progress");
/// The log says why.
const FAILED: CommandError = CommandError::text("ERR");

/// The client waits, and nobody else does.
fn save(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let node = node(ctx);
    if node.files.save.is_running() {
        return Err(RUNNING);
    }
    let (worker, token, client) = (ctx.client.worker, ctx.client.token, ctx.client.id);
    let started = rdb_file::save_aside(node, ctx.db.locked(), move |node, result| {
        let mut reply = Reply::new();
        match result {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(&FAILED.to_string()),
        }
        node.send(worker, Mail::Resume { token, client, reply, written_to: 0 });
    });
    if started { Ok(Outcome::Suspended) } else { Err(FAILED) }
}

fn bgsave(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let schedule = match args {
        [_] => false,
        [_, word] if is(word, "schedule") => true,
        _ => return Err(CommandError::Syntax),
    };
    let node = node(ctx);
    if node.files.save.is_running() {
        return Err(RUNNING);
    }
    if node.shared.keyspace.is_snapshot_running() {
        if !schedule {
            return Err(CommandError::text(
                "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule a BGSAVE whenever possible.",
            ));
        }
        node.files.save.scheduled.store(true, Ordering::Release);
        ctx.reply.simple("Background saving scheduled");
        return DONE;
    }
    if !rdb_file::save_in_background(node, ctx.db.locked()) {
        return Err(FAILED);
    }
    ctx.reply.simple("Background saving started");
    DONE
}

fn bgrewriteaof(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    match aof::rewrite(node(ctx), ctx.db.locked()) {
        Rewriting::Started => ctx.reply.simple("Background append only file rewriting started"),
        Rewriting::Scheduled => ctx.reply.simple("Background append only file rewriting scheduled"),
        Rewriting::Running => {
            return Err(CommandError::text("ERR Background append only file rewriting already in progress"));
        }
    }
    DONE
}

fn lastsave(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(node(ctx).files.save.last_save_s.load(Ordering::Acquire));
    DONE
}

fn flushall(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let done = flush_all(ctx, args)?;
    // What this thread has not told yet is saved with the rest.
    let changes = std::mem::take(&mut ctx.db.effects.dirty);
    node(ctx).shared.keyspace.stats.dirty.fetch_add(changes, Ordering::Relaxed);
    // No file is to hold what is gone.
    rdb_file::after_flush(node(ctx));
    Ok(done)
}
