//! Slots: who has them, how they move, and the keys in them.

use std::ops::RangeInclusive;

use super::{bus, clustered, keys};
use crate::base::crc16::{SLOTS, key_slot};
use crate::command::{CommandError, Ctx, DONE, Result, int, is};

pub fn add_slots(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let slots = slot_list(&args[2..])?;
    bus.admin(|s, now| s.add_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

pub fn add_slot_ranges(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let (slots, rest) = ranges(ctx, &args[2..])?;
    bus.admin(|s, _| s.check_free(&slots))?;
    rest?;
    bus.admin(|s, now| s.add_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

pub fn del_slots(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let slots = slot_list(&args[2..])?;
    bus.admin(|s, now| s.del_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

pub fn del_slot_ranges(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let (slots, rest) = ranges(ctx, &args[2..])?;
    bus.admin(|s, _| s.check_assigned(&slots))?;
    rest?;
    bus.admin(|s, now| s.del_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

pub fn flush_slots(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let keys = keys(ctx);
    bus(ctx)?.admin(|s, now| s.flush_slots(now, &keys))?;
    ctx.reply.ok();
    DONE
}

pub fn count_keys(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let slot = slot_of(int(args[2])?).ok_or(CommandError::text("ERR Invalid slot"))?;
    ctx.reply.int(ctx.db.keyspace().slot_len(0, slot) as i64);
    DONE
}

pub fn keys_in_slot(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    // What is no number is refused before a number that is out of range.
    let (slot, max) = (int(args[2])?, int(args[3])?);
    let (Some(slot), Ok(max)) = (slot_of(slot), usize::try_from(max)) else {
        return Err(CommandError::text("ERR Invalid slot or number of keys"));
    };
    let mut keys = Vec::new();
    ctx.db.for_each_in_slot(slot, |e| {
        if keys.len() < max {
            keys.push(e.key().to_vec());
        }
    });
    ctx.reply.array(keys.len());
    for key in &keys {
        ctx.reply.bulk(key);
    }
    DONE
}

pub fn slot_of_key(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    ctx.reply.int(i64::from(key_slot(args[2])));
    DONE
}

pub fn set_slot(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let keys = keys(ctx);
    bus(ctx)?.admin(|s, now| {
        // A replica refuses before it looks at mistakes in the arguments.
        s.check_may_move()?;
        let (slot, how) = slot_move(args)?;
        match how {
            SlotMove::Stable => s.set_slot_stable(now, slot),
            SlotMove::Migrating(id) => s.set_slot_migrating(now, slot, id),
            SlotMove::Importing(id) => s.set_slot_importing(now, slot, id),
            SlotMove::Node(id) => s.set_slot_node(now, slot, id, &keys),
        }
        .map_err(CommandError::owned)
    })?;
    ctx.reply.ok();
    DONE
}

/// CLUSTER SETSLOT, read.
enum SlotMove<'a> {
    Migrating(&'a [u8]),
    Importing(&'a [u8]),
    Node(&'a [u8]),
    Stable,
}

fn slot_move<'a>(args: &[&'a [u8]]) -> Result<(u16, SlotMove<'a>)> {
    let slot = slot(args[2])?;
    let how = match args[3..] {
        [word, id] if is(word, "migrating") => SlotMove::Migrating(id),
        [word, id] if is(word, "importing") => SlotMove::Importing(id),
        [word, id] if is(word, "node") => SlotMove::Node(id),
        [word] if is(word, "stable") => SlotMove::Stable,
        _ => {
            return Err(CommandError::text(
                "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP",
            ));
        }
    };
    Ok((slot, how))
}

fn slot(arg: &[u8]) -> Result<u16> {
    int(arg).ok().and_then(slot_of).ok_or(CommandError::text("ERR Invalid or out of range slot"))
}

/// The slot of this number, if there is one.
fn slot_of(n: i64) -> Option<u16> {
    u16::try_from(n).ok().filter(|n| usize::from(*n) < SLOTS)
}

fn slot_list(args: &[&[u8]]) -> Result<Vec<u16>> {
    args.iter().map(|a| slot(a)).collect()
}

/// The slots of the ranges in front of the first one that is no range. Redis checks the slots of those before it
/// reports that one.
fn ranges(ctx: &Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<(Vec<u16>, Result)> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(format!("cluster|{}", ctx.command.name)));
    }
    let mut slots = Vec::new();
    for pair in args.chunks_exact(2) {
        match range(pair[0], pair[1]) {
            Ok(range) => slots.extend(range),
            Err(error) => return Ok((slots, Err(error))),
        }
    }
    Ok((slots, DONE))
}

fn range(start: &[u8], end: &[u8]) -> Result<RangeInclusive<u16>> {
    let (start, end) = (slot(start)?, slot(end)?);
    if start > end {
        return Err(CommandError::owned(format!(
            "ERR start slot number {start} is greater than end slot number {end}"
        )));
    }
    Ok(start..=end)
}
