//! OBJECT: how a value is kept. A look at a key here does not count as a use of it.

use crate::base::num::parse_i64;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group::Generic, flags::*, key, one};
use crate::command::{CommandError, Result};
use crate::keyspace::{Db, EntryRef};
use crate::value::ValueRef;

pub(super) const COMMANDS: &[Command] =
    &[Command::container("object", Generic, SUBCOMMANDS).doc("2.2.3", "", "Tells how a value is kept.")];

const SUBCOMMANDS: &[Command] = &[
    Command::new("encoding", 3, Generic, encoding)
        .flags(READONLY)
        .keys(&[one(2, key::RO)])
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("2.2.3", "key", "Returns the encoding of a value."),
    Command::new("freq", 3, Generic, freq)
        .flags(READONLY)
        .keys(&[one(2, key::RO)])
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("4.0.0", "key", "Returns how often a key was used, on a logarithmic scale."),
    Command::new("help", 2, Generic, help).flags(LOADING | STALE).complexity("O(1)").doc(
        "6.2.0",
        "",
        "Returns what the subcommands do.",
    ),
    Command::new("idletime", 3, Generic, idletime)
        .flags(READONLY)
        .keys(&[one(2, key::RO)])
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("2.2.3", "key", "Returns how many seconds ago a key was used."),
    Command::new("refcount", 3, Generic, refcount)
        .flags(READONLY)
        .keys(&[one(2, key::RO)])
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("2.2.3", "key", "Returns the number of references to a value."),
];

/// A look that counts as one, but is no use of the key.
fn look<'a>(db: &'a mut Db<'_, '_>, key: &[u8]) -> Option<EntryRef<'a>> {
    if db.exists(key) {
        db.effects.hits += 1;
    } else {
        db.effects.misses += 1;
    }
    db.peek(key)
}

fn encoding(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match look(ctx.db, args[2]) {
        None => ctx.reply.null(),
        Some(entry) => ctx.reply.bulk_str(encoding_of(entry)),
    }
    DONE
}

/// The encoding that an entry's value has in Redis.
pub fn encoding_of(entry: EntryRef<'_>) -> &'static str {
    if entry.is_raw() {
        "raw"
    } else if entry.is_text() {
        "embstr"
    } else {
        entry.value().encoding_name()
    }
}

fn idletime(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let usage = &ctx.db.keyspace().usage;
    match look(ctx.db, args[2]) {
        None => ctx.reply.null(),
        Some(_) if usage.counts() => {
            return Err(CommandError::text(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(entry) => ctx.reply.int(i64::from(usage.idle_seconds(entry.access()))),
    }
    DONE
}

fn freq(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let usage = &ctx.db.keyspace().usage;
    match look(ctx.db, args[2]) {
        None => ctx.reply.null(),
        Some(_) if !usage.counts() => {
            return Err(CommandError::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(entry) => ctx.reply.int(i64::from(usage.frequency(entry.access()))),
    }
    DONE
}

fn refcount(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let tracked = ctx.db.keyspace().usage.tracks_each_value();
    match look(ctx.db, args[2]) {
        None => ctx.reply.null(),
        Some(entry) => ctx.reply.int(references(entry, tracked)),
    }
    DONE
}

/// Values are not shared, so each has one reference. Redis shares small integers unless their use is
/// `tracked`, and says so with the largest number; clients see the same here.
pub fn references(entry: EntryRef<'_>, tracked: bool) -> i64 {
    let shared = !tracked && !entry.is_raw() && !entry.is_text() && is_small_integer(entry.value());
    if shared { i64::from(i32::MAX) } else { 1 }
}

fn is_small_integer(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::String(s) => s.len() <= 4 && parse_i64(s).is_some_and(|n| n >= 0),
        _ => false,
    }
}

fn help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    crate::command::help::help(ctx.reply, "object", SUBCOMMANDS);
    DONE
}
