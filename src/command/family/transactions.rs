//! The transaction family. Queueing and EXEC itself are the executor's.

use std::sync::Arc;

use crate::command::ctx::{Ctx, DONE, Outcome, Transaction};
use crate::command::spec::{Command, Group::Transactions, flags::*, key, range};
use crate::command::{CommandError, Result};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("multi", 1, Transactions, multi)
        .complexity("O(1)")
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY | NOT_QUEUED | KEEPS_ASKING)
        .doc("1.2.0", "", "Starts a transaction."),
    Command::new("exec", 1, Transactions, exec)
        .flags(NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG | NOT_QUEUED | RUNS_QUEUE)
        .doc("1.2.0", "", "Runs all commands of a transaction."),
    Command::new("discard", 1, Transactions, discard)
        .complexity("O(N)")
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY | NOT_QUEUED)
        .doc("2.0.0", "", "Forgets a transaction."),
    Command::new("watch", -2, Transactions, watch)
        .complexity("O(1)")
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY | NOT_QUEUED)
        .keys(&[range(1, -1, 1, key::RO)])
        .doc("2.2.0", "key ...", "Makes the next transaction depend on keys that must not change."),
    Command::new("unwatch", 1, Transactions, unwatch)
        .complexity("O(1)")
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY)
        .doc("2.2.0", "", "Forgets the watched keys."),
];

fn multi(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    if ctx.client.in_multi() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    ctx.client.begin_multi();
    ctx.reply.ok();
    DONE
}

fn exec(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    if !ctx.client.in_multi() {
        return Err(CommandError::text("ERR EXEC without MULTI"));
    }
    Ok(Outcome::Transaction(Transaction::Exec))
}

fn discard(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    if !ctx.client.in_multi() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    ctx.reply.ok();
    Ok(Outcome::Transaction(Transaction::Discard))
}

fn watch(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if ctx.client.in_multi() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let dirty = Arc::clone(ctx.client.dirty.get_or_insert_default());
    for key in &args[1..] {
        if ctx.client.watched.insert((ctx.db.index(), key.to_vec())) {
            ctx.db.watch(key, &dirty);
            ctx.client.version += 1;
        }
    }
    ctx.reply.ok();
    DONE
}

fn unwatch(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.ok();
    Ok(Outcome::Transaction(Transaction::Unwatch))
}
