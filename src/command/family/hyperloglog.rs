//! The HyperLogLog family. The value is a string: see [`crate::value::hyperloglog`].

use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::HyperLogLog, flags::*, key, one, range};
use crate::command::{CommandError, Result, is, shown};
use crate::keyspace::db::Expiring;
use crate::keyspace::event;
use crate::value::hyperloglog::{self as hll, Corrupted, Union};
use crate::value::{Kind, ValueRef};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("pfadd", -2, HyperLogLog, pfadd)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::INSERT)])
        .doc("2.8.9", "key [element ...]", "Counts elements in, and makes the counter if there is none."),
    Command::new("pfcount", -2, HyperLogLog, pfcount)
        .complexity("O(1)")
        .flags(READONLY | MAY_REPLICATE)
        .keys(&[range(1, -1, 1, key::RW | key::ACCESS).notes(
            "RW because it may change the internal representation of the key, and propagate to replicas",
        )])
        .doc("2.8.9", "key ...", "Estimates how many different elements one or several counters have seen."),
    Command::new("pfmerge", -2, HyperLogLog, pfmerge)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::ACCESS | key::INSERT), range(2, -1, 1, key::RO | key::ACCESS)])
        .doc("2.8.9", "destkey [sourcekey ...]", "Makes one counter of what several have seen."),
    Command::new("pfdebug", 3, HyperLogLog, pfdebug)
        .complexity("N/A")
        .flags(WRITE | DENYOOM | ADMIN | SYSTEM)
        .keys(&[one(2, key::RW | key::ACCESS)])
        .doc("2.8.9", "subcommand key", "Shows how a counter is stored, for developers."),
    Command::new("pfselftest", 1, HyperLogLog, pfselftest).complexity("N/A").flags(ADMIN | SYSTEM).doc(
        "2.8.9",
        "",
        "Checks that counters count, for developers.",
    ),
];

const NOT_ONE: CommandError = CommandError::text("WRONGTYPE Key is not a valid HyperLogLog string value.");

impl From<Corrupted> for CommandError {
    fn from(Corrupted: Corrupted) -> Self {
        CommandError::text("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// What a key holds, which must be a HyperLogLog.
fn checked(value: ValueRef<'_>) -> Result<&[u8]> {
    match value {
        ValueRef::String(bytes) if hll::is_valid(bytes) => Ok(bytes),
        ValueRef::String(_) => Err(NOT_ONE),
        _ => Err(CommandError::WrongType),
    }
}

/// Without elements it only makes the key (page of PFADD). 1 where the estimate may have changed.
fn pfadd(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let max_sparse = ctx.limits.hll_sparse_max_bytes;
    let count_in = |bytes: &mut Vec<u8>| {
        // To have made it counts as a change, too.
        let mut changes = usize::from(bytes.is_empty());
        if bytes.is_empty() {
            *bytes = hll::empty();
        }
        for element in &args[2..] {
            changes += usize::from(hll::add(bytes, element, max_sparse)?);
        }
        if changes > 0 {
            hll::forget_cached(bytes);
        }
        Ok::<usize, Corrupted>(changes)
    };
    let changes = ctx.db.edit_string_if(args[1], |old| checked(old).map(drop), count_in)??;
    if changes > 0 {
        ctx.db.changed(args[1], event::PFADD);
        ctx.db.count_elements(changes);
    }
    ctx.reply.int(i64::from(changes > 0));
    DONE
}

fn pfcount(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = if let [_, key] = args { count_one(ctx, key)? } else { union(ctx, &args[1..])?.0.count() };
    ctx.reply.int(count as i64);
    DONE
}

/// The estimate of one key. It is remembered in the value, of which replicas are told.
fn count_one(ctx: &mut Ctx<'_, '_, '_>, key: &[u8]) -> Result<u64> {
    let Some(value) = ctx.db.read(key) else { return Ok(0) };
    let bytes = checked(value)?;
    if let Some(known) = hll::cached(bytes) {
        return Ok(known);
    }
    let count = hll::count(bytes)?;
    // A node whose data may not change, a replica above all, counts again next time.
    if ctx.db.expiring() != Expiring::Hide {
        // It was used by being read.
        ctx.db.set_touch(false);
        ctx.db.edit_string(key, |bytes| hll::set_cached(bytes, count));
        ctx.db.changed(key, event::MADE);
    }
    Ok(count)
}

/// The union of the counters under these keys, and whether one of them is dense.
fn union(ctx: &mut Ctx<'_, '_, '_>, keys: &[&[u8]]) -> Result<(Union, bool)> {
    let (mut union, mut any_dense) = (Union::default(), false);
    for key in keys {
        let Some(value) = ctx.db.read(key) else { continue };
        let bytes = checked(value)?;
        any_dense |= !hll::is_sparse(bytes);
        union.merge(bytes)?;
    }
    Ok((union, any_dense))
}

/// The target counts as a source when it exists (page of PFMERGE), and becomes dense when one of them is.
fn pfmerge(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (union, any_dense) = union(ctx, &args[1..])?;
    let max_sparse = ctx.limits.hll_sparse_max_bytes;
    let exists = ctx.db.expect_kind(args[1], Kind::String)?;
    ctx.db.edit_string(args[1], |bytes| {
        if !exists {
            *bytes = hll::empty();
        }
        if any_dense {
            hll::make_dense(bytes)?;
        }
        union.write_to(bytes, max_sparse)?;
        hll::forget_cached(bytes);
        Ok::<(), Corrupted>(())
    })?;
    ctx.db.changed(args[1], event::PFADD);
    ctx.reply.ok();
    DONE
}

/// A developer's look counts neither as a hit nor as a use of the key.
fn pfdebug(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (word, key) = (args[1], args[2]);
    peeked(ctx, key)?;
    match word {
        w if is(w, "getreg") => {
            make_dense(ctx, key)?;
            let mut registers = Union::default();
            registers.merge(peeked(ctx, key)?)?;
            ctx.reply.array(hll::REGISTERS);
            registers.registers().iter().for_each(|value| ctx.reply.int(i64::from(*value)));
        }
        w if is(w, "decode") => {
            let bytes = peeked(ctx, key)?;
            if !hll::is_sparse(bytes) {
                return Err(CommandError::text("ERR HLL encoding is not sparse"));
            }
            let text = hll::describe(bytes)?;
            ctx.reply.bulk_str(&text);
        }
        w if is(w, "encoding") => {
            let sparse = hll::is_sparse(peeked(ctx, key)?);
            ctx.reply.simple(if sparse { "sparse" } else { "dense" });
        }
        w if is(w, "todense") => {
            let converted = make_dense(ctx, key)?;
            ctx.reply.int(i64::from(converted));
        }
        _ => {
            let word = shown(word);
            return Err(CommandError::owned(format!("ERR Unknown PFDEBUG subcommand '{word}'")));
        }
    }
    DONE
}

fn peeked<'a>(ctx: &'a mut Ctx<'_, '_, '_>, key: &[u8]) -> Result<&'a [u8]> {
    match ctx.db.peek(key) {
        None => Err(CommandError::text("ERR The specified key does not exist")),
        Some(entry) => checked(entry.value()),
    }
}

fn make_dense(ctx: &mut Ctx<'_, '_, '_>, key: &[u8]) -> Result<bool> {
    let converted = ctx.db.edit_string(key, hll::make_dense)?;
    if converted {
        ctx.db.changed(key, event::MADE);
    }
    Ok(converted)
}

fn pfselftest(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    hll::self_test().map_err(|what| CommandError::owned(format!("TESTFAILED {what}")))?;
    ctx.reply.ok();
    DONE
}
