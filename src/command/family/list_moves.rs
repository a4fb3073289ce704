//! Lists as queues: elements that move between keys, and clients that wait for one.

use super::lists::End;
use super::queues::{self, QueueEnd};
use crate::command::ctx::{Collections, Ctx, DONE, TimeoutReply};
use crate::command::spec::{Command, Group::List, counted, flags::*, key, one, range};
use crate::command::{Result, timeout};
use crate::value::Kind;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("lmove", 5, List, lmove)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .doc(
            "6.2.0",
            "source destination wherefrom=<LEFT | RIGHT> whereto=<LEFT | RIGHT>",
            "Takes an element from one end of a list and puts it at an end of another one.",
        ),
    Command::new("rpoplpush", 3, List, rpoplpush)
        .deprecated("6.2.0", "`LMOVE` from `RIGHT` to `LEFT`")
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
            "numkeys key ... where=<LEFT | RIGHT> [COUNT count]",
            "Takes elements out of the first list of several that has any.",
        ),
    Command::new("blpop", -3, List, blpop)
        .complexity("O(N)")
        .flags(WRITE | BLOCKING)
        .keys(&[range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)])
        .history(&[("6.0.0", "The timeout may be a fraction of a second.")])
        .doc(
            "2.0.0",
            "key ... timeout",
            "Takes the first element of the first list that has any, and waits for one.",
        ),
    Command::new("brpop", -3, List, brpop)
        .complexity("O(N)")
        .flags(WRITE | BLOCKING)
        .keys(&[range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)])
        .history(&[("6.0.0", "The timeout may be a fraction of a second.")])
        .doc(
            "2.0.0",
            "key ... timeout",
            "Takes the last element of the first list that has any, and waits for one.",
        ),
    Command::new("blmove", 6, List, blmove)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | BLOCKING)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .doc(
            "6.2.0",
            "source destination wherefrom=<LEFT | RIGHT> whereto=<LEFT | RIGHT> timeout",
            "Moves an element as LMOVE does, and waits for one.",
        ),
    Command::new("brpoplpush", 4, List, brpoplpush)
        .deprecated("6.2.0", "`BLMOVE` from `RIGHT` to `LEFT`")
        .complexity("O(1)")
        .flags(WRITE | DENYOOM | BLOCKING)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::RW | key::INSERT)])
        .history(&[("6.0.0", "The timeout may be a fraction of a second.")])
        .doc("2.2.0", "source destination timeout", "Moves an element as RPOPLPUSH does, and waits for one."),
    Command::new("blmpop", -5, List, blmpop)
        .complexity("O(N+M)")
        .flags(WRITE | BLOCKING | MOVABLE_KEYS)
        .keys(&[counted(2, key::RW | key::ACCESS | key::DELETE)])
        .doc(
            "7.0.0",
            "timeout numkeys key ... where=<LEFT | RIGHT> [COUNT count]",
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
    // The destination is looked at only when there is something to move.
    if let Err(wrong) = ctx.db.expect_kind(destination, Kind::List) {
        ctx.db.touch(source);
        return Err(wrong);
    }
    let Some(list) = ctx.db.list_mut(source)? else { return Ok(false) };
    let element = match from {
        End::Left => list.pop_front(),
        End::Right => list.pop_back(),
    };
    let Some(element) = element else { return Ok(false) };
    // A list of one element that is moved to itself stays (page of LMOVE: the list is rotated).
    let emptied = list.is_empty() && source != destination;
    let list = ctx.db.list_or_new(destination)?;
    match to {
        End::Left => list.push_front(&element, ctx.limits),
        End::Right => list.push_back(&element, ctx.limits),
    }
    ctx.db.changed(destination, to.push_event());
    ctx.remove_if_empty(source, emptied, from.pop_event().uncounted());
    ctx.reply.bulk(&element);
    Ok(true)
}

fn lmpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::mpop::<End>(ctx, args)
}

fn blpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::bpop(ctx, args, End::Left)
}

fn brpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::bpop(ctx, args, End::Right)
}

/// Replicas are told the command that does not wait.
fn blmove(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (from, to) = (End::parse(args[3])?, End::parse(args[4])?);
    let timeout = timeout(args[5], ctx.db.now)?;
    if move_element(ctx, args, from, to)? {
        ctx.record(&[b"LMOVE", args[1], args[2], args[3], args[4]]);
        return DONE;
    }
    ctx.wait(1..2, timeout, TimeoutReply::Null, |_| Vec::new())
}

/// As [`blmove`].
fn brpoplpush(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let timeout = timeout(args[3], ctx.db.now)?;
    if move_element(ctx, args, End::Right, End::Left)? {
        ctx.record(&[b"RPOPLPUSH", args[1], args[2]]);
        return DONE;
    }
    ctx.wait(1..2, timeout, TimeoutReply::Null, |_| Vec::new())
}

fn blmpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::bmpop::<End>(ctx, args)
}
