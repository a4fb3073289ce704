//! The server family, as far as the data are concerned: DBSIZE, FLUSHDB, FLUSHALL.

use crate::acl::category;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group::Server, flags::*};
use crate::command::{CommandError, Result, is};
use crate::keyspace::lazy::Cause;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("dbsize", 1, Server, dbsize)
        .flags(READONLY | FAST)
        .categories(category::KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .complexity("O(1)")
        .doc("1.0.0", "", "Counts the keys of the database."),
    Command::new("flushdb", -1, Server, flushdb)
        .flags(WRITE | LOCK_ALL)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of keys")
        .history(&[("4.0.0", "The mode `ASYNC`."), ("6.2.0", "The mode `SYNC`.")])
        .doc("1.0.0", "[flush-type=<ASYNC@4.0.0 | SYNC@6.2.0>]", "Deletes all keys of the database."),
];

fn dbsize(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(ctx.db.len() as i64);
    DONE
}

/// Whether what goes counts as freed lazily. Beyond that ASYNC and SYNC make no difference here: values are always
/// dropped on a thread of their own.
fn flushes_lazily(ctx: &Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<bool> {
    match &args[1..] {
        [] => Ok(ctx.db.keyspace().lazy.is_lazy(Cause::Flush)),
        [mode] if is(mode, "async") => Ok(true),
        [mode] if is(mode, "sync") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

fn flushdb(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let index = ctx.db.index();
    flush(ctx, index..=index, args)
}

/// FLUSHALL, as far as it concerns the data.
pub fn flush_all(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let last = ctx.db.keyspace().databases() as u16 - 1;
    flush(ctx, 0..=last, args)
}

fn flush(ctx: &mut Ctx<'_, '_, '_>, databases: std::ops::RangeInclusive<u16>, args: &[&[u8]]) -> Result {
    let lazily = flushes_lazily(ctx, args)?;
    let mut deleted = 0;
    for index in databases {
        deleted += ctx.db.flush(index, lazily);
    }
    ctx.db.effects.dirty += deleted as u64;
    // Recorded even where nothing was deleted: a replica may still hold keys that have expired here.
    ctx.record(args);
    ctx.reply.ok();
    DONE
}
