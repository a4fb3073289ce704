//! Lists as queues: elements that move between keys, and clients that wait for one.
//!
//! Every blocking command first tries at once; when there is nothing it asks to be blocked and runs
//! again when one of its keys has changed. Replicas get the command that does not block.

use super::ctx::{Collections, Ctx, DONE, TimeoutReply};
use super::lists::End;
use super::spec::{Command, Group::List, counted, flags::*, key, one, range};
use super::{Fail, Result, at_least_one, bulk_item, is, timeout};
use crate::value::Kind;

pub const COMMANDS: &[Command] = &[
    Command::new("lmove", 5, List, lmove)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .doc(
            "6.2.0",
            "source destination <LEFT | RIGHT> <LEFT | RIGHT>",
            "Takes an element from one end of a list and puts it at an end of another one.",
        ),
    Command::new("rpoplpush", 3, List, rpoplpush)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .doc(
            "1.2.0",
            "source destination",
            "Takes the last element of a list and puts it in front of another one.",
        ),
    Command::new("lmpop", -4, List, lmpop)
        .complexity("O(N+M)")
        .flags(WRITE | MOVABLE_KEYS)
        .keys(&[counted(1, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "7.0.0",
            "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
            "Takes elements out of the first list of several that has any.",
        ),
    Command::new("blpop", -3, List, blpop)
        .complexity("O(N)")
        .flags(WRITE | NOSCRIPT | BLOCKING)
        .keys(&[range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "2.0.0",
            "key [key ...] timeout",
            "Takes the first element of the first list that has any, and waits for one.",
        ),
    Command::new("brpop", -3, List, brpop)
        .complexity("O(N)")
        .flags(WRITE | NOSCRIPT | BLOCKING)
        .keys(&[range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "2.0.0",
            "key [key ...] timeout",
            "Takes the last element of the first list that has any, and waits for one.",
        ),
    Command::new("blmove", 6, List, blmove)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | NOSCRIPT | BLOCKING)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .doc(
            "6.2.0",
            "source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout",
            "Moves an element as LMOVE does, and waits for one.",
        ),
    Command::new("brpoplpush", 4, List, brpoplpush)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | NOSCRIPT | BLOCKING)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .doc("2.2.0", "source destination timeout", "Moves an element as RPOPLPUSH does, and waits for one."),
    Command::new("blmpop", -5, List, blmpop)
        .complexity("O(N+M)")
        .flags(WRITE | BLOCKING | MOVABLE_KEYS)
        .keys(&[counted(2, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "7.0.0",
            "timeout numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
            "Takes elements as LMPOP does, and waits for some.",
        ),
];

fn lmove(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (from, to) = (End::parse(args[3])?, End::parse(args[4])?);
    if !move_element(ctx, args, from, to)? {
        ctx.reply.null();
    }
    DONE
}

fn rpoplpush(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if !move_element(ctx, args, End::Right, End::Left)? {
        ctx.reply.null();
    }
    DONE
}

/// Moves one element from `args[1]` to `args[2]` and replies with it. False, with no reply, when there is none.
fn move_element(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], from: End, to: End) -> Result<bool> {
    let (source, destination) = (args[1], args[2]);
    if !ctx.db.expect_kind(source, Kind::List)? {
        return Ok(false);
    }
    ctx.db.expect_kind(destination, Kind::List)?;
    let Some(list) = ctx.db.list_mut(source)? else { return Ok(false) };
    let element = match from {
        End::Left => list.pop_front(),
        End::Right => list.pop_back(),
    };
    let Some(element) = element else { return Ok(false) };
    let empty = list.is_empty();
    // A list that rotates is never empty in between.
    if source != destination {
        ctx.remove_if_empty(source, empty);
    }
    let list = ctx.db.list_or_new(destination)?;
    match to {
        End::Left => list.push_front(&element, ctx.limits),
        End::Right => list.push_back(&element, ctx.limits),
    }
    ctx.db.changed(destination);
    ctx.reply.bulk(&element);
    Ok(true)
}

fn lmpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (keys, end, count) = several(args, 1)?;
    if !pop_several(ctx, &args[keys], end, count)? {
        ctx.reply.null_array();
    }
    DONE
}

/// The keys, the end and the count of LMPOP and BLMPOP; the number of keys is argument `at`.
fn several(args: &[&[u8]], at: usize) -> Result<(std::ops::Range<usize>, End, usize)> {
    let n = at_least_one(args[at], "ERR numkeys should be greater than 0")?;
    let keys = at + 1..(at + 1).saturating_add(n);
    let end = End::parse(args.get(keys.end).ok_or(Fail::Syntax)?)?;
    let count = match &args[keys.end + 1..] {
        [] => 1,
        [word, count] if is(word, "count") => at_least_one(count, "ERR count should be greater than 0")?,
        _ => return Err(Fail::Syntax),
    };
    Ok((keys, end, count))
}

/// Takes up to `count` elements out of the first list that has any. False, with no reply, when none has.
fn pop_several(ctx: &mut Ctx<'_, '_, '_>, keys: &[&[u8]], end: End, count: usize) -> Result<bool> {
    for key in keys {
        let Some(list) = ctx.db.list_mut(key)? else { continue };
        let n = count.min(list.len());
        ctx.reply.array(2);
        ctx.reply.bulk(key);
        ctx.reply.array(n);
        for _ in 0..n {
            let reply = &mut *ctx.reply;
            match end {
                End::Left => list.pop_front_with(|item| bulk_item(reply, item)),
                End::Right => list.pop_back_with(|item| bulk_item(reply, item)),
            };
        }
        let empty = list.is_empty();
        ctx.remove_if_empty(key, empty);
        let pop: &[u8] = if end == End::Left { b"LPOP" } else { b"RPOP" };
        ctx.record(&[pop, key, itoa::Buffer::new().format(n).as_bytes()]);
        return Ok(true);
    }
    Ok(false)
}

fn blpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    blocking_pop(ctx, args, End::Left)
}

fn brpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    blocking_pop(ctx, args, End::Right)
}

fn blocking_pop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], end: End) -> Result {
    let last = args.len() - 1;
    let timeout = timeout(args[last])?;
    for key in &args[1..last] {
        let Some(list) = ctx.db.list_mut(key)? else { continue };
        let reply = &mut *ctx.reply;
        reply.array(2);
        reply.bulk(key);
        match end {
            End::Left => list.pop_front_with(|item| bulk_item(reply, item)),
            End::Right => list.pop_back_with(|item| bulk_item(reply, item)),
        };
        let empty = list.is_empty();
        ctx.remove_if_empty(key, empty);
        let pop: &[u8] = if end == End::Left { b"LPOP" } else { b"RPOP" };
        ctx.record(&[pop, key]);
        return DONE;
    }
    ctx.wait(1..last, timeout, TimeoutReply::NullArray, |at| vec![args[0], args[at], args[last]])
}

fn blmove(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (from, to) = (End::parse(args[3])?, End::parse(args[4])?);
    let timeout = timeout(args[5])?;
    if move_element(ctx, args, from, to)? {
        ctx.record(&[b"LMOVE", args[1], args[2], from.word(), to.word()]);
        return DONE;
    }
    ctx.wait(1..2, timeout, TimeoutReply::Null, |_| Vec::new())
}

fn brpoplpush(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let timeout = timeout(args[3])?;
    if move_element(ctx, args, End::Right, End::Left)? {
        ctx.record(&[b"RPOPLPUSH", args[1], args[2]]);
        return DONE;
    }
    ctx.wait(1..2, timeout, TimeoutReply::Null, |_| Vec::new())
}

fn blmpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (keys, end, count) = several(args, 2)?;
    let timeout = timeout(args[1])?;
    if pop_several(ctx, &args[keys.clone()], end, count)? {
        return DONE;
    }
    let end = keys.end;
    ctx.wait(keys, timeout, TimeoutReply::NullArray, |at| {
        [&[args[0], args[1], b"1", args[at]], &args[end..]].concat()
    })
}
