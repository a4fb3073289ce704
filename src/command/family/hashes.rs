//! The hash family.

use super::random;
use super::scan::{self, Scan};
use crate::base::long_double::LongDouble;
use crate::base::time::UnixMs;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::Hash, flags::*, key, one};
use crate::command::{CommandError, Result, bulk_item, int, is};
use crate::encoding::Item;
use crate::encoding::item::IntText;
use crate::keyspace::event;
use crate::resp::Reply;
use crate::value::{self, ValueRef};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("hset", -4, Hash, hset)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .history(&[("4.0.0", "Several pairs at once.")])
        .doc(
            "2.0.0",
            "key data=(field value) ...",
            "Sets fields of a hash, and creates the hash if there is none.",
        ),
    Command::new("hsetnx", 4, Hash, hsetnx)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::INSERT)])
        .doc("2.0.0", "key field value", "Sets a field of a hash only when the field does not exist."),
    Command::new("hmset", -4, Hash, hmset)
        .deprecated("4.0.0", "`HSET`")
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .doc(
            "2.0.0",
            "key data=(field value) ...",
            "Sets fields of a hash: the old name of HSET with several fields.",
        ),
    Command::new("hget", 3, Hash, hget)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("2.0.0", "key field", "Returns the value of a field."),
    Command::new("hmget", -3, Hash, hmget)
        .complexity("O(N)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("2.0.0", "key field ...", "Returns the values of several fields."),
    Command::new("hgetall", 2, Hash, hgetall)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "key", "Returns all fields of a hash with their values."),
    Command::new("hdel", -3, Hash, hdel)
        .complexity("O(N)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::DELETE)])
        .history(&[("2.4.0", "Several fields at once.")])
        .doc("2.0.0", "key field ...", "Removes fields from a hash."),
    Command::new("hlen", 2, Hash, hlen)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("2.0.0", "key", "Returns the number of fields of a hash."),
    Command::new("hexists", 3, Hash, hexists)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("2.0.0", "key field", "Tells whether a hash has a field."),
    Command::new("hkeys", 2, Hash, hkeys)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "key", "Returns all fields of a hash."),
    Command::new("hvals", 2, Hash, hvals)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .doc("2.0.0", "key", "Returns all values of a hash."),
    Command::new("hincrby", 4, Hash, hincrby)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc(
            "2.0.0",
            "key field increment",
            "Adds a number to the integer value of a field; a missing field counts as 0.",
        ),
    Command::new("hincrbyfloat", 4, Hash, hincrbyfloat)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc(
            "2.6.0",
            "key field increment:double",
            "Adds a floating point number to the value of a field; a missing field counts as 0.",
        ),
    Command::new("hstrlen", 3, Hash, hstrlen)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("3.2.0", "key field", "Returns the length of the value of a field."),
    Command::new("hrandfield", -2, Hash, hrandfield)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc("6.2.0", "key [options=(count [WITHVALUES])]", "Returns random fields of a hash."),
    Command::new("hscan", -3, Hash, hscan)
        .complexity("O(1)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc(
            "2.8.0",
            "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
            "Goes through the fields of a hash step by step.",
        ),
];

fn hset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let created = set_fields(ctx, args)?;
    ctx.reply.int(created);
    DONE
}

fn hmset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_fields(ctx, args)?;
    ctx.reply.ok();
    DONE
}

/// Sets pairs of fields and values; returns how many fields are new.
fn set_fields(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<i64> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(ctx.command.name.to_owned()));
    }
    let now = ctx.db.field_clock();
    let mut hash = ctx.db.hash_or_new(args[1])?;
    if hash.has_dead(now) {
        let fields: Vec<&[u8]> = args[2..].iter().step_by(2).copied().collect();
        ctx.db.expire_fields(args[1], &fields);
        hash = ctx.db.hash_or_new(args[1])?;
    }
    let before = hash.next_time();
    let mut created = 0;
    for pair in args[2..].chunks_exact(2) {
        created += i64::from(hash.set(pair[0], pair[1], ctx.limits));
    }
    // A field that is set loses its time.
    if before.is_some() {
        ctx.db.fields_changed(args[1], before);
    }
    ctx.db.changed(args[1], event::HSET);
    ctx.db.count_elements((args.len() - 2) / 2);
    Ok(created)
}

/// A field whose time has come counts as missing.
fn hsetnx(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.field_clock();
    let mut hash = ctx.db.hash_or_new(args[1])?;
    if hash.has_dead(now) {
        ctx.db.expire_fields(args[1], &args[2..3]);
        hash = ctx.db.hash_or_new(args[1])?;
    }
    let missing = !hash.contains(args[2]);
    if missing {
        hash.set(args[2], args[3], ctx.limits);
        ctx.db.changed(args[1], event::HSET);
    }
    ctx.reply.int(i64::from(missing));
    DONE
}

fn hash_of(value: Option<ValueRef<'_>>) -> Result<Option<&value::Hash>> {
    match value {
        None => Ok(None),
        Some(ValueRef::Hash(hash)) => Ok(Some(hash)),
        Some(_) => Err(CommandError::WrongType),
    }
}

/// The value of a field whose time has not come.
#[inline]
fn live<'h>(hash: &'h value::Hash, field: &[u8], now: UnixMs) -> Option<Item<'h>> {
    hash.get(field).filter(|_| !hash.is_dead(field, now))
}

/// Shows every field whose time has not come.
fn each_live(hash: &value::Hash, now: UnixMs, mut show: impl FnMut(Item<'_>, Item<'_>)) {
    if hash.has_dead(now) {
        let alive = hash.iter_timed().filter(|(_, _, at)| at.is_none_or(|at| at >= now));
        alive.for_each(|(field, value, _)| show(field, value));
    } else {
        hash.iter().for_each(|(field, value)| show(field, value));
    }
}

/// How many fields [`each_live`] shows.
fn live_len(hash: &value::Hash, now: UnixMs) -> usize {
    let mut len = 0;
    if hash.has_dead(now) {
        each_live(hash, now, |_, _| len += 1);
        len
    } else {
        hash.len()
    }
}

/// Looks at fields of a hash with `look`; those whose time has come are deleted afterwards.
#[inline]
fn look_at_fields(
    ctx: &mut Ctx<'_, '_, '_>,
    key: &[u8],
    fields: &[&[u8]],
    mut look: impl FnMut(&mut Reply, Option<Item<'_>>),
) -> Result {
    let now = ctx.db.field_clock();
    let hash = ctx.db.hash(key)?;
    for field in fields {
        look(ctx.reply, hash.and_then(|h| live(h, field, now)));
    }
    if hash.is_some_and(|h| h.has_dead(now)) {
        ctx.db.expire_fields(key, fields);
    }
    DONE
}

fn value_or_null(reply: &mut Reply, value: Option<Item<'_>>) {
    match value {
        Some(value) => bulk_item(reply, value),
        None => reply.null(),
    }
}

fn hget(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    look_at_fields(ctx, args[1], &args[2..], value_or_null)
}

fn hmget(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    // Written before the type is known: a reply that ends in an error is taken back whole.
    ctx.reply.array(args.len() - 2);
    look_at_fields(ctx, args[1], &args[2..], value_or_null)
}

fn hgetall(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.field_clock();
    let Some(hash) = ctx.db.hash(args[1])? else {
        ctx.reply.map(0);
        return DONE;
    };
    ctx.reply.map(live_len(hash, now));
    each_live(hash, now, |field, value| {
        bulk_item(ctx.reply, field);
        bulk_item(ctx.reply, value);
    });
    DONE
}

fn hkeys(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.field_clock();
    let Some(hash) = ctx.db.hash(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    ctx.reply.array(live_len(hash, now));
    each_live(hash, now, |field, _| bulk_item(ctx.reply, field));
    DONE
}

fn hvals(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.field_clock();
    let Some(hash) = ctx.db.hash(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    ctx.reply.array(live_len(hash, now));
    each_live(hash, now, |_, value| bulk_item(ctx.reply, value));
    DONE
}

fn hdel(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.field_clock();
    let mut hash = ctx.db.hash_mut(args[1])?;
    if hash.as_ref().is_some_and(|h| h.has_dead(now)) {
        ctx.db.expire_fields(args[1], &args[2..]);
        hash = ctx.db.hash_mut(args[1])?;
    }
    let Some(hash) = hash else {
        ctx.reply.int(0);
        return DONE;
    };
    let before = hash.next_time();
    let removed = args[2..].iter().filter(|field| hash.remove(field)).count();
    let empty = hash.is_empty();
    if before.is_some() {
        ctx.db.fields_changed(args[1], before);
    }
    ctx.reply_removed(args[1], removed, empty, event::HDEL)
}

/// Fields whose time has come count until they are deleted.
fn hlen(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.db.hash(args[1])?.map_or(0, value::Hash::len);
    ctx.reply.int(len as i64);
    DONE
}

fn hexists(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    look_at_fields(ctx, args[1], &args[2..], |reply, value| reply.int(i64::from(value.is_some())))
}

fn hstrlen(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    look_at_fields(ctx, args[1], &args[2..], |reply, value| reply.int(value.map_or(0, |v| v.len()) as i64))
}

/// Sets the field of HINCRBY or HINCRBYFLOAT, whose time stays unless it has come.
fn set_sum(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], field: &[u8], text: &[u8]) -> Result<()> {
    let now = ctx.db.field_clock();
    let mut hash = ctx.db.hash_or_new(key)?;
    if hash.is_dead(field, now) {
        ctx.db.expire_fields(key, &[field]);
        hash = ctx.db.hash_or_new(key)?;
    }
    hash.set_keeping_time(field, text, ctx.limits);
    Ok(())
}

fn hincrby(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let by = int(args[3])?;
    let now = ctx.db.field_clock();
    // A look first: what is refused must not leave an empty hash behind.
    let new = ctx.db.inspect(args[1], |value| {
        let old = match hash_of(value)?.and_then(|h| live(h, args[2], now)) {
            None => 0,
            Some(value) => value.as_int().ok_or(CommandError::text("ERR hash value is not an integer"))?,
        };
        old.checked_add(by).ok_or(CommandError::text("ERR increment or decrement would overflow"))
    })?;
    let text = &mut itoa::Buffer::new();
    set_sum(ctx, args[1], args[2], text.format(new).as_bytes())?;
    ctx.db.changed(args[1], event::HINCRBY);
    ctx.reply.int(new);
    DONE
}

fn hincrbyfloat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let by = LongDouble::parse(args[3]).ok_or(CommandError::NotFloat)?;
    if !by.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let now = ctx.db.field_clock();
    let (new, time) = ctx.db.inspect(args[1], |value| {
        let hash = hash_of(value)?;
        let old = match hash.and_then(|h| live(h, args[2], now)) {
            None => LongDouble::ZERO,
            Some(value) => LongDouble::parse(value.text(&mut IntText::new()))
                .ok_or(CommandError::text("ERR hash value is not a float"))?,
        };
        let new = old + by;
        if !new.is_finite() {
            return Err(CommandError::text("ERR increment would produce NaN or Infinity"));
        }
        Ok((new, hash.filter(|h| !h.is_dead(args[2], now)).and_then(|h| h.time(args[2])).flatten()))
    })?;
    let text = new.to_string();
    set_sum(ctx, args[1], args[2], text.as_bytes())?;
    ctx.db.changed(args[1], event::HINCRBYFLOAT);
    // Replicas get the result: their floating point may differ. HSET takes the time from the field.
    ctx.record(&[b"HSET", args[1], args[2], text.as_bytes()]);
    if let Some(at) = time {
        let mut buffer = itoa::Buffer::new();
        let at = buffer.format(at).as_bytes();
        ctx.record(&[b"HPEXPIREAT", args[1], at, b"FIELDS", b"1", args[2]]);
    }
    ctx.reply.bulk(text.as_bytes());
    DONE
}

fn hrandfield(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (count, with_values) = match args {
        [_, _] => (None, false),
        [_, _, count] => (Some(random::count(count)?), false),
        [_, _, count, word] => {
            let count = random::count(count)?;
            if !is(word, "withvalues") {
                return Err(CommandError::Syntax);
            }
            random::pairs_count(Some(count), true)?;
            (Some(count), true)
        }
        _ => {
            random::count(args[2])?;
            return Err(CommandError::Syntax);
        }
    };
    let now = ctx.db.field_clock();
    let mut found = ctx.db.hash(args[1])?;
    if found.is_some_and(|h| h.has_dead(now)) {
        ctx.db.expire_all_fields(args[1]);
        found = ctx.db.hash(args[1])?;
    }
    let Some(mut hash) = found.filter(|h| live_len(h, now) > 0) else {
        random::reply_nothing(ctx.reply, count);
        return DONE;
    };
    // A replica may not delete fields whose time has come: it draws from a copy without them.
    let mut alive = value::Hash::new();
    if hash.has_dead(now) {
        alive.clone_from(hash);
        alive.take_due(now, usize::MAX);
        hash = &alive;
    }
    let Some(count) = count else {
        if let Some((field, _)) = hash.random(ctx.rng) {
            bulk_item(ctx.reply, field);
        }
        return DONE;
    };
    // RESP3 has an array for each pair, RESP2 one flat array.
    let nested = ctx.reply.is_resp3() && with_values;
    random::reply_elements(
        ctx.reply,
        ctx.rng,
        count,
        hash.len(),
        |reply, n| reply.array(if with_values && !nested { 2 * n } else { n }),
        |rng| hash.random(rng),
        || hash.iter(),
        |reply, (field, value)| {
            if nested {
                reply.array(2);
            }
            bulk_item(reply, field);
            if with_values {
                bulk_item(reply, value);
            }
        },
    );
    DONE
}

fn hscan(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let cursor = scan::cursor(args[2])?;
    let now = ctx.db.field_clock();
    let Some(hash) = ctx.db.hash(args[1])? else { return scan::reply_nothing(ctx.reply) };
    let dying = hash.has_dead(now);
    let scan = Scan::parse(cursor, &args[3..], scan::Of::Hash)?;
    let mut found = Vec::new();
    let next = scan.steps(|cursor, count| {
        hash.scan(cursor, count, |field, value| {
            let dead = dying && hash.is_dead(field.text(&mut IntText::new()), now);
            if !dead && scan.matches(field) {
                found.push(field.to_vec());
                if !scan.no_values {
                    found.push(value.to_vec());
                }
            }
        })
    });
    Scan::reply(ctx.reply, next, &found)
}
