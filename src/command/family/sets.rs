//! The set family, but for the algebra of several sets (see [`super::set_algebra`]).

use smallvec::SmallVec;

use super::random;
use super::scan::{self, Scan};
use crate::base::rng::Rng;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::Set, flags::*, key, one};
use crate::command::{CommandError, Result, bulk_item, non_negative};
use crate::keyspace::event;
use crate::keyspace::lazy::Cause;
use crate::resp::Reply;
use crate::value::{self, Kind};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("sadd", -3, Set, sadd)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::INSERT)])
        .history(&[("2.4.0", "Several members at once.")])
        .doc("1.0.0", "key member ...", "Adds members to a set, and creates the set if there is none."),
    Command::new("srem", -3, Set, srem)
        .complexity("O(N)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::DELETE)])
        .history(&[("2.4.0", "Several members at once.")])
        .doc("1.0.0", "key member ...", "Removes members from a set."),
    Command::new("smembers", 2, Set, smembers)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .doc("1.0.0", "key", "Returns all members of a set."),
    Command::new("sismember", 3, Set, sismember)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("1.0.0", "key member", "Tells whether a value is a member of a set."),
    Command::new("smismember", -3, Set, smismember)
        .complexity("O(N)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("6.2.0", "key member ...", "Tells for each of several values whether it is a member of a set."),
    Command::new("scard", 2, Set, scard)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("1.0.0", "key", "Returns the number of members of a set."),
    Command::new("spop", -2, Set, spop)
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE)])
        .tips(&["nondeterministic_output"])
        .history(&[("3.2.0", "The argument for a count.")])
        .doc("1.0.0", "key [count@3.2.0]", "Takes random members out of a set."),
    Command::new("srandmember", -2, Set, srandmember)
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .history(&[("2.6.0", "The argument for a count, which may be negative.")])
        .doc("1.0.0", "key [count@2.6.0]", "Returns random members of a set."),
    Command::new("smove", 4, Set, smove)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .doc("1.0.0", "source destination member", "Moves a member from one set to another."),
    Command::new("sscan", -3, Set, sscan)
        .complexity("O(1)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc(
            "2.8.0",
            "key cursor [MATCH pattern] [COUNT count]",
            "Goes through the members of a set step by step.",
        ),
];

fn sadd(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let set = ctx.db.set_or_new(args[1])?;
    let mut added = 0;
    for member in &args[2..] {
        added += i64::from(set.add(member, ctx.limits));
    }
    if added > 0 {
        ctx.db.changed(args[1], event::SADD);
        ctx.db.count_elements(added as usize);
    }
    ctx.reply.int(added);
    DONE
}

fn srem(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(set) = ctx.db.set_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    let removed = args[2..].iter().filter(|member| set.remove(member)).count();
    let empty = set.is_empty();
    ctx.reply_removed(args[1], removed, empty, event::SREM)
}

fn smembers(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(set) = ctx.db.set(args[1])? else {
        ctx.reply.set(0);
        return DONE;
    };
    ctx.reply.set(set.len());
    set.iter().for_each(|member| bulk_item(ctx.reply, member));
    DONE
}

fn sismember(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let found = ctx.db.set(args[1])?.is_some_and(|s| s.contains(args[2]));
    ctx.reply.int(i64::from(found));
    DONE
}

fn smismember(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let set = ctx.db.set(args[1])?;
    ctx.reply.array(args.len() - 2);
    for member in &args[2..] {
        ctx.reply.int(i64::from(set.is_some_and(|s| s.contains(member))));
    }
    DONE
}

fn scard(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.db.set(args[1])?.map_or(0, value::Set::len);
    ctx.reply.int(len as i64);
    DONE
}

/// Members of one SREM that replicas are sent for a SPOP.
const SREM_MEMBERS: usize = 1024;

fn spop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match args {
        [_, key] => pop_one(ctx, key),
        [_, key, count] => pop_many(ctx, key, non_negative(count)?),
        _ => Err(CommandError::Syntax),
    }
}

fn pop_one(ctx: &mut Ctx<'_, '_, '_>, key: &[u8]) -> Result {
    let Some(set) = ctx.db.set_mut(key)? else {
        ctx.reply.null();
        return DONE;
    };
    let reply = &mut *ctx.reply;
    let member = set.pop_with(ctx.rng, |member| {
        bulk_item(reply, member);
        SmallVec::<[u8; 64]>::from_slice(member.text(&mut itoa::Buffer::new()))
    });
    let empty = set.is_empty();
    ctx.remove_if_empty(key, empty, event::SPOP);
    // Replicas remove what chance has chosen here.
    if let Some(member) = member {
        ctx.record(&[b"SREM", key, &member[..]]);
    }
    DONE
}

fn pop_many(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], count: usize) -> Result {
    let Some(set) = ctx.db.set_mut(key)? else {
        ctx.reply.set(0);
        return DONE;
    };
    if count == 0 {
        ctx.reply.set(0);
        return DONE;
    }
    // Nothing is left to chance when all are taken: replicas are told that the key is deleted.
    if count >= set.len() {
        let all = set.len();
        ctx.reply.set(all);
        set.iter().for_each(|member| bulk_item(ctx.reply, member));
        // Redis reads such a set as SUNION does.
        ctx.db.effects.hits += 1;
        ctx.remove_if_empty(key, true, event::SPOP);
        ctx.db.count_elements(all);
        ctx.db.record_deletion(Cause::Server, key);
        return DONE;
    }
    ctx.reply.set(count);
    let mut popped: Vec<Vec<u8>> = Vec::with_capacity(count);
    for _ in 0..count {
        let reply = &mut *ctx.reply;
        popped.extend(set.pop_with(ctx.rng, |member| {
            bulk_item(reply, member);
            member.to_vec()
        }));
    }
    ctx.db.changed(key, event::SPOP);
    ctx.db.count_elements(popped.len());
    for members in popped.chunks(SREM_MEMBERS) {
        let mut record: Vec<&[u8]> = vec![b"SREM", key];
        record.extend(members.iter().map(Vec::as_slice));
        ctx.record(&record);
    }
    DONE
}

/// A negative count may give a member several times (page of SRANDMEMBER).
fn srandmember(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(random::count(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let Some(set) = ctx.db.set(args[1])? else {
        random::reply_nothing(ctx.reply, count);
        return DONE;
    };
    let Some(count) = count else {
        if let Some(member) = set.random(ctx.rng) {
            bulk_item(ctx.reply, member);
        }
        return DONE;
    };
    let (open, one, all) = (Reply::array, |rng: &mut Rng| set.random(rng), || set.iter());
    random::reply_elements(ctx.reply, ctx.rng, count, set.len(), open, one, all, bulk_item);
    DONE
}

/// A missing source is answered before the type of the destination is looked at.
fn smove(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (source, destination, member) = (args[1], args[2], args[3]);
    // Both are looked at, whatever comes of it: that is a use of them, and a dead one goes.
    let held = ctx.db.expect_kind(source, Kind::Set);
    if !matches!(held, Ok(true)) {
        ctx.db.touch(destination);
        held?;
        ctx.reply.int(0);
        return DONE;
    }
    if let Err(wrong) = ctx.db.expect_kind(destination, Kind::Set) {
        ctx.db.touch(source);
        return Err(wrong);
    }
    let Some(set) = ctx.db.set_mut(source)? else { return Err(CommandError::NoSuchKey) };
    let moves = source != destination;
    let found = if moves { set.remove(member) } else { set.contains(member) };
    let empty = set.is_empty();
    if !found || !moves {
        ctx.db.touch(destination);
        ctx.reply.int(i64::from(found));
        return DONE;
    }
    ctx.remove_if_empty(source, empty, event::SREM);
    if ctx.db.set_or_new(destination)?.add(member, ctx.limits) {
        ctx.db.changed(destination, event::SADD);
    }
    ctx.reply.int(1);
    DONE
}

fn sscan(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let cursor = scan::cursor(args[2])?;
    let Some(set) = ctx.db.set(args[1])? else { return scan::reply_nothing(ctx.reply) };
    let scan = Scan::parse(cursor, &args[3..], scan::Of::Members)?;
    let mut found = Vec::new();
    let next = scan.steps(|cursor, count| {
        set.scan(cursor, count, |member| {
            if scan.matches(member) {
                found.push(member.to_vec());
            }
        })
    });
    Scan::reply(ctx.reply, next, &found)
}
