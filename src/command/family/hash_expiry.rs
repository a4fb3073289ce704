//! When fields of hashes expire. A field whose moment has passed is deleted at once, and replicas are told so;
//! otherwise they are told the moment and never a duration.

use crate::base::num::parse_i64;
use crate::base::time::UnixMs;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::Hash, KeySpec, flags::*, key, one};
use crate::command::{CommandError, Result, int, is};
use crate::keyspace::db::Expiring;
use crate::keyspace::event;
use crate::value::timed::LATEST;

const CHANGED: &[KeySpec] = &[one(1, key::RW | key::UPDATE)];
const SEEN: &[KeySpec] = &[one(1, key::RO | key::ACCESS)];

/// The row of a command that gives times.
const fn sets(
    name: &'static str,
    run: crate::command::ctx::Handler,
    syntax: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, -6, Hash, run)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(CHANGED)
        .doc("7.4.0", syntax, summary)
}

/// The row of a command that shows times.
const fn shows(name: &'static str, run: crate::command::ctx::Handler, summary: &'static str) -> Command {
    Command::new(name, -5, Hash, run).complexity("O(N)").flags(READONLY | FAST).keys(SEEN).doc(
        "7.4.0",
        "key FIELDS (numfields:integer field ...)",
        summary,
    )
}

pub(super) const COMMANDS: &[Command] = &[
    sets(
        "hexpire",
        hexpire,
        "key seconds [condition=<NX | XX | GT | LT>] FIELDS (numfields:integer field ...)",
        "Sets how many seconds fields have left.",
    ),
    sets(
        "hpexpire",
        hpexpire,
        "key milliseconds [condition=<NX | XX | GT | LT>] FIELDS (numfields:integer field ...)",
        "Sets how many milliseconds fields have left.",
    ),
    sets(
        "hexpireat",
        hexpireat,
        "key unix-time-seconds [condition=<NX | XX | GT | LT>] FIELDS (numfields:integer field ...)",
        "Sets the second at which fields expire.",
    ),
    sets(
        "hpexpireat",
        hpexpireat,
        "key unix-time-milliseconds [condition=<NX | XX | GT | LT>] FIELDS (numfields:integer field ...)",
        "Sets the millisecond at which fields expire.",
    ),
    shows("httl", httl, "Returns how many seconds fields have left."),
    shows("hpttl", hpttl, "Returns how many milliseconds fields have left."),
    shows("hexpiretime", hexpiretime, "Returns the second at which fields expire."),
    shows("hpexpiretime", hpexpiretime, "Returns the millisecond at which fields expire."),
    Command::new("hpersist", -5, Hash, hpersist).complexity("O(N)").flags(WRITE | FAST).keys(CHANGED).doc(
        "7.4.0",
        "key FIELDS (numfields:integer field ...)",
        "Takes the expiry from fields.",
    ),
];

/// What a field gets for an answer.
const MISSING: i64 = -2;
const STAYS: i64 = -1;
const REFUSED: i64 = 0;
const DONE_SO: i64 = 1;
const DELETED: i64 = 2;

/// NX, XX, GT and LT: at most one of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    Without,
    With,
    Later,
    Earlier,
}

impl Condition {
    fn parse(word: &[u8]) -> Option<Self> {
        Some(match word {
            w if is(w, "nx") => Self::Without,
            w if is(w, "xx") => Self::With,
            w if is(w, "gt") => Self::Later,
            w if is(w, "lt") => Self::Earlier,
            _ => return None,
        })
    }

    /// Whether an expiry may become `at`. A field without one counts as living for ever: GT never gives it one, LT
    /// always does (page of HEXPIRE).
    fn allows(self, old: Option<UnixMs>, at: UnixMs) -> bool {
        match self {
            Self::Always => true,
            Self::Without => old.is_none(),
            Self::With => old.is_some(),
            Self::Later => old.is_some_and(|old| at > old),
            Self::Earlier => old.is_none_or(|old| at < old),
        }
    }
}

/// The fields behind `FIELDS n` at the head of `args`. `wrong_count` refuses an `n` that is no positive number.
fn fields<'s, 'a>(args: &'s [&'a [u8]], wrong_count: CommandError) -> Result<&'s [&'a [u8]]> {
    let (Some(word), Some(count)) = (args.first(), args.get(1)) else {
        return Err(CommandError::text("ERR The `numfields` parameter must match the number of arguments"));
    };
    if !is(word, "fields") {
        return Err(CommandError::text(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let count = parse_i64(count).filter(|n| *n > 0).ok_or(wrong_count)?;
    if count != args.len() as i64 - 2 {
        return Err(CommandError::text("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(&args[2..])
}

fn hexpire(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    set_times(ctx, args, 1000, now)
}

fn hpexpire(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    set_times(ctx, args, 1, now)
}

fn hexpireat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_times(ctx, args, 1000, 0)
}

fn hpexpireat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_times(ctx, args, 1, 0)
}

/// The moment of a time argument in units of `unit` milliseconds from `from` on.
fn moment(ctx: &Ctx<'_, '_, '_>, arg: &[u8], unit: i64, from: UnixMs) -> Result<UnixMs> {
    let n = int(arg)?;
    if n < 0 {
        return Err(CommandError::text("ERR invalid expire time, must be >= 0"));
    }
    let at = n.checked_mul(unit).and_then(|ms| ms.checked_add(from)).filter(|at| *at <= LATEST);
    at.ok_or_else(|| CommandError::ExpireTime(ctx.command.name.to_owned()))
}

fn set_times(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], unit: i64, from: UnixMs) -> Result {
    let key = args[1];
    let exists = ctx.db.expect_kind(key, crate::value::Kind::Hash)?;
    let at = moment(ctx, args[2], unit, from)?;
    let (condition, rest) = match Condition::parse(args[3]) {
        Some(condition) => (condition, &args[4..]),
        None => (Condition::Always, &args[3..]),
    };
    let fields = fields(rest, CommandError::text("ERR Parameter `numFields` should be greater than 0"))?;
    if !exists {
        return reply_missing(ctx, fields.len());
    }
    // Only a primary deletes; a replica waits to be told.
    let deletes = at <= ctx.db.now && ctx.db.expiring() == Expiring::Delete;
    ctx.db.expire_fields(key, fields);
    let Some(hash) = ctx.db.hash_mut(key)? else { return reply_missing(ctx, fields.len()) };
    let before = hash.next_time();
    let mut answers = Vec::with_capacity(fields.len());
    let (mut set, mut deleted): (Vec<&[u8]>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    for field in fields {
        answers.push(match hash.time(field) {
            None => MISSING,
            Some(old) if !condition.allows(old, at) => REFUSED,
            Some(_) if deletes => {
                hash.remove(field);
                deleted.push(field);
                DELETED
            }
            Some(_) => {
                hash.set_time(field, Some(at), ctx.limits);
                set.push(field);
                DONE_SO
            }
        });
    }
    let empty = hash.is_empty();
    ctx.db.fields_changed(key, before);
    if !set.is_empty() {
        let mut buffers = (itoa::Buffer::new(), itoa::Buffer::new());
        let (at, count) = (buffers.0.format(at).as_bytes(), buffers.1.format(set.len()).as_bytes());
        let mut record: Vec<&[u8]> = vec![b"HPEXPIREAT", key, at, b"FIELDS", count];
        record.extend_from_slice(&set);
        ctx.record(&record);
        ctx.db.changed(key, event::HEXPIRE);
    }
    if !deleted.is_empty() {
        let mut record: Vec<&[u8]> = vec![b"HDEL", key];
        record.extend_from_slice(&deleted);
        ctx.record(&record);
        ctx.remove_if_empty(key, empty, event::HDEL);
    }
    reply_ints(ctx, &answers)
}

fn reply_missing(ctx: &mut Ctx<'_, '_, '_>, fields: usize) -> Result {
    reply_ints(ctx, &vec![MISSING; fields])
}

fn reply_ints(ctx: &mut Ctx<'_, '_, '_>, numbers: &[i64]) -> Result {
    ctx.reply.array(numbers.len());
    numbers.iter().for_each(|n| ctx.reply.int(*n));
    DONE
}

const NOT_POSITIVE: CommandError = CommandError::text("ERR Number of fields must be a positive integer");

fn httl(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    show_times(ctx, args, |at| ((at - now).max(0) + 999) / 1000)
}

fn hpttl(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    show_times(ctx, args, |at| (at - now).max(0))
}

fn hexpiretime(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show_times(ctx, args, |at| (at + 999) / 1000)
}

fn hpexpiretime(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show_times(ctx, args, |at| at)
}

fn show_times(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], number: impl Fn(UnixMs) -> i64) -> Result {
    let now = ctx.db.field_clock();
    let hash = ctx.db.hash(args[1])?;
    let fields = fields(&args[2..], NOT_POSITIVE)?;
    let answer = |field: &&[u8]| match hash.and_then(|hash| hash.time(field)) {
        None => MISSING,
        Some(None) => STAYS,
        Some(Some(at)) if at < now => MISSING,
        Some(Some(at)) => number(at),
    };
    let answers: Vec<i64> = fields.iter().map(answer).collect();
    reply_ints(ctx, &answers)
}

fn hpersist(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let key = args[1];
    ctx.db.expect_kind(key, crate::value::Kind::Hash)?;
    let fields = fields(&args[2..], NOT_POSITIVE)?;
    ctx.db.expire_fields(key, fields);
    let Some(hash) = ctx.db.hash_mut(key)? else { return reply_missing(ctx, fields.len()) };
    let before = hash.next_time();
    let mut answers = Vec::with_capacity(fields.len());
    for field in fields {
        answers.push(match hash.time(field) {
            None => MISSING,
            Some(None) => STAYS,
            Some(Some(_)) => {
                hash.set_time(field, None, ctx.limits);
                DONE_SO
            }
        });
    }
    if answers.contains(&DONE_SO) {
        ctx.db.fields_changed(key, before);
        ctx.db.changed(key, event::HPERSIST);
    }
    reply_ints(ctx, &answers)
}
