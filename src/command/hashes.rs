//! The hash family.

use super::ctx::{Collections, Ctx, DONE};
use super::scan::{self, Scan};
use super::spec::{Command, Group::Hash, flags::*, key, one};
use super::{Fail, Result, bulk_item, int, is, random};
use crate::base::long_double::LongDouble;
use crate::encoding::item::IntText;
use crate::keyspace::event;
use crate::value;

pub const COMMANDS: &[Command] = &[
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
        return Err(Fail::Arity(ctx.command.name.to_owned()));
    }
    let hash = ctx.db.hash_or_new(args[1])?;
    let mut created = 0;
    for pair in args[2..].chunks_exact(2) {
        created += i64::from(hash.set(pair[0], pair[1], ctx.limits));
    }
    ctx.db.changed(args[1], event::HSET);
    Ok(created)
}

fn hsetnx(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let hash = ctx.db.hash_or_new(args[1])?;
    let missing = !hash.contains(args[2]);
    if missing {
        hash.set(args[2], args[3], ctx.limits);
        ctx.db.changed(args[1], event::HSET);
    }
    ctx.reply.int(i64::from(missing));
    DONE
}

fn hget(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match ctx.db.hash(args[1])?.and_then(|h| h.get(args[2])) {
        Some(value) => bulk_item(ctx.reply, value),
        None => ctx.reply.null(),
    }
    DONE
}

fn hmget(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let hash = ctx.db.hash(args[1])?;
    ctx.reply.array(args.len() - 2);
    for field in &args[2..] {
        match hash.and_then(|h| h.get(field)) {
            Some(value) => bulk_item(ctx.reply, value),
            None => ctx.reply.null(),
        }
    }
    DONE
}

fn hgetall(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(hash) = ctx.db.hash(args[1])? else {
        ctx.reply.map(0);
        return DONE;
    };
    ctx.reply.map(hash.len());
    for (field, value) in hash.iter() {
        bulk_item(ctx.reply, field);
        bulk_item(ctx.reply, value);
    }
    DONE
}

fn hkeys(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(hash) = ctx.db.hash(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    ctx.reply.array(hash.len());
    hash.iter().for_each(|(field, _)| bulk_item(ctx.reply, field));
    DONE
}

fn hvals(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(hash) = ctx.db.hash(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    ctx.reply.array(hash.len());
    hash.iter().for_each(|(_, value)| bulk_item(ctx.reply, value));
    DONE
}

fn hdel(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(hash) = ctx.db.hash_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    let removed = args[2..].iter().filter(|field| hash.remove(field)).count();
    let empty = hash.is_empty();
    ctx.reply_removed(args[1], removed, empty, event::HDEL)
}

fn hlen(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.db.hash(args[1])?.map_or(0, value::Hash::len);
    ctx.reply.int(len as i64);
    DONE
}

fn hexists(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let found = ctx.db.hash(args[1])?.is_some_and(|h| h.contains(args[2]));
    ctx.reply.int(i64::from(found));
    DONE
}

fn hstrlen(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.db.hash(args[1])?.and_then(|h| h.get(args[2])).map_or(0, |v| v.len());
    ctx.reply.int(len as i64);
    DONE
}

fn hincrby(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let by = int(args[3])?;
    // A look first: what is refused must not leave an empty hash behind.
    let old = match ctx.db.hash(args[1])?.and_then(|h| h.get(args[2])) {
        None => 0,
        Some(value) => value.as_int().ok_or(Fail::text("ERR hash value is not an integer"))?,
    };
    let new = old.checked_add(by).ok_or(Fail::text("ERR increment or decrement would overflow"))?;
    let text = &mut itoa::Buffer::new();
    ctx.db.hash_or_new(args[1])?.set(args[2], text.format(new).as_bytes(), ctx.limits);
    ctx.db.changed(args[1], event::HINCRBY);
    ctx.reply.int(new);
    DONE
}

fn hincrbyfloat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let by = LongDouble::parse(args[3]).ok_or(Fail::NotFloat)?;
    if !by.is_finite() {
        return Err(Fail::text("ERR value is NaN or Infinity"));
    }
    let old = match ctx.db.hash(args[1])?.and_then(|h| h.get(args[2])) {
        None => LongDouble::ZERO,
        Some(value) => LongDouble::parse(value.text(&mut IntText::new()))
            .ok_or(Fail::text("ERR hash value is not a float"))?,
    };
    let new = old + by;
    if !new.is_finite() {
        return Err(Fail::text("ERR increment would produce NaN or Infinity"));
    }
    let text = new.to_string();
    ctx.db.hash_or_new(args[1])?.set(args[2], text.as_bytes(), ctx.limits);
    ctx.db.changed(args[1], event::HINCRBYFLOAT);
    // Replicas get the result: their floating point may differ.
    ctx.record(&[b"HSET", args[1], args[2], text.as_bytes()]);
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
                return Err(Fail::Syntax);
            }
            (Some(count), true)
        }
        _ => {
            random::count(args[2])?;
            return Err(Fail::Syntax);
        }
    };
    let Some(hash) = ctx.db.hash(args[1])? else {
        random::reply_nothing(ctx.reply, count);
        return DONE;
    };
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
    let Some(hash) = ctx.db.hash(args[1])? else { return scan::reply_nothing(ctx.reply) };
    let scan = Scan::parse(cursor, &args[3..], scan::Of::Hash)?;
    let mut found = Vec::new();
    let next = scan.steps(|cursor, count| {
        hash.scan(cursor, count, |field, value| {
            if scan.matches(field) {
                found.push(field.to_vec());
                if !scan.no_values {
                    found.push(value.to_vec());
                }
            }
        })
    });
    Scan::reply(ctx.reply, next, &found)
}
