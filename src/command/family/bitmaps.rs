//! The bitmap family: strings as arrays of bits.

use std::sync::Arc;

use super::strings::longest;
use crate::base::num::parse_i64;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group::Bitmap, flags::*, key, one, range};
use crate::command::{CommandError, Result, int, is};
use crate::keyspace::{EntryRef, event};
use crate::value::bits::{self, FieldType, Operation, Overflow};
use crate::value::{Value, ValueRef};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("setbit", 4, Bitmap, setbit)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc(
            "2.2.0",
            "key offset value:integer",
            "Sets or clears a bit of a string and returns the old one.",
        ),
    Command::new("getbit", 3, Bitmap, getbit)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("2.2.0", "key offset", "Returns a bit of a string."),
    Command::new("bitcount", -2, Bitmap, bitcount)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("7.0.0", "Ranges in bits.")])
        .doc(
            "2.6.0",
            "key [range=(start end [unit@7.0.0=<BYTE | BIT>])]",
            "Counts the bits of a string that are set.",
        ),
    Command::new("bitpos", -3, Bitmap, bitpos)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("7.0.0", "Ranges in bits.")])
        .doc(
            "2.8.7",
            "key bit [range=(start [end-unit-block=(end [unit@7.0.0=<BYTE | BIT>])])]",
            "Finds the first bit of a string that is set or clear.",
        ),
    Command::new("bitop", -4, Bitmap, bitop)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(2, key::OW | key::UPDATE), range(3, -1, 1, key::RO | key::ACCESS)])
        .doc(
            "2.6.0",
            "operation=<AND | OR | XOR | NOT> destkey key ...",
            "Combines strings bit by bit and stores the result.",
        ),
    Command::new("bitfield", -2, Bitmap, bitfield)
        .complexity("O(1) for each subcommand specified")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::UPDATE | key::ACCESS | key::VARIABLE_FLAGS)
            .notes("This command allows both access and modification of the key")])
        .doc(
            "3.2.0",
            "key [operation=<GET get-block=(encoding offset) | \
             write=([OVERFLOW overflow-block=<WRAP | SAT | FAIL>] \
             write-operation=<SET set-block=(encoding offset value:integer) | \
             INCRBY incrby-block=(encoding offset increment)>)> ...]",
            "Reads and writes integers of any width at any bit of a string.",
        ),
    Command::new("bitfield_ro", -2, Bitmap, bitfield_ro)
        .complexity("O(1) for each subcommand specified")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc(
            "6.0.0",
            "key [GET get-block=(encoding offset) GET...]",
            "Reads integers of any width at any bit of a string.",
        ),
];

const BAD_OFFSET: CommandError = CommandError::text("ERR bit offset is not an integer or out of range");

/// The offset of a bit that the client may write: its byte lies below `proto-max-bulk-len`.
fn bit_offset(ctx: &Ctx<'_, '_, '_>, arg: &[u8]) -> Result<u64> {
    in_reach(ctx, parse_i64(arg).ok_or(BAD_OFFSET)?)
}

fn in_reach(ctx: &Ctx<'_, '_, '_>, offset: i64) -> Result<u64> {
    match u64::try_from(offset) {
        Ok(offset) if ((offset / 8) as usize) < longest(ctx) => Ok(offset),
        _ => Err(BAD_OFFSET),
    }
}

/// Changes the string under `key`, which becomes at least `len` bytes long first. Returns whether it grew, and
/// what `change` returns.
fn change_string<T>(
    ctx: &mut Ctx<'_, '_, '_>,
    key: &[u8],
    len: usize,
    change: impl FnOnce(&mut [u8]) -> T,
) -> Result<(bool, T)> {
    let is_string = |old: ValueRef<'_>| match old {
        ValueRef::String(_) => Ok(()),
        _ => Err(CommandError::WrongType),
    };
    ctx.db.edit_string_if(key, is_string, |bytes| {
        let grows = bytes.len() < len;
        if grows {
            bytes.resize(len, 0);
        }
        (grows, change(bytes))
    })
}

fn setbit(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let offset = bit_offset(ctx, args[2])?;
    let on = match parse_i64(args[3]) {
        Some(bit @ (0 | 1)) => bit == 1,
        _ => return Err(CommandError::text("ERR bit is not an integer or out of range")),
    };
    let len = (offset / 8) as usize + 1;
    let (grew, old) = change_string(ctx, args[1], len, |bytes| bits::set(bytes, offset, on))?;
    if grew || old != on {
        ctx.db.changed(args[1], event::SETBIT);
    }
    ctx.reply.int(i64::from(old));
    DONE
}

fn getbit(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let offset = bit_offset(ctx, args[2])?;
    let bit = ctx.string(args[1])?.is_some_and(|bytes| bits::get(bytes, offset));
    ctx.reply.int(i64::from(bit));
    DONE
}

/// The unit of a range: true for bits.
fn in_bits(word: &[u8]) -> Result<bool> {
    match word {
        w if is(w, "bit") => Ok(true),
        w if is(w, "byte") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// The bits, both included, from the byte or bit `start` to `end` of a string of `len` bytes; negative ones are
/// counted from the end. `None` for none.
fn bit_range(start: i64, end: i64, in_bits: bool, len: usize) -> Option<(u64, u64)> {
    let units = if in_bits { len as i64 * 8 } else { len as i64 };
    let from = if start < 0 { units.saturating_add(start).max(0) } else { start };
    let to = if end < 0 { units.saturating_add(end).max(0) } else { end }.min(units - 1);
    if from > to {
        return None;
    }
    let (from, to) = (from as u64, to as u64);
    Some(if in_bits { (from, to) } else { (from * 8, to * 8 + 7) })
}

fn bitcount(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (start, end, unit) = match args {
        [_, _] => (0, -1, false),
        [_, _, start, end] => (int(start)?, int(end)?, false),
        [_, _, start, end, unit] => (int(start)?, int(end)?, in_bits(unit)?),
        _ => return Err(CommandError::Syntax),
    };
    let bytes = ctx.string(args[1])?.unwrap_or_default();
    // Two negative ends in the wrong order count nothing, even where cutting at 0 would make them equal.
    let backwards = start < 0 && end < 0 && start > end;
    let range = bit_range(start, end, unit, bytes.len()).filter(|_| !backwards);
    let count = range.map_or(0, |(first, last)| bits::count_between(bytes, first, last));
    ctx.reply.int(count as i64);
    DONE
}

fn bitpos(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let on = match int(args[2])? {
        bit @ (0 | 1) => bit == 1,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    if args.len() > 6 {
        return Err(CommandError::Syntax);
    }
    let start = args.get(3).map_or(Ok(0), |arg| int(arg))?;
    let unit = args.get(5).map_or(Ok(false), |arg| in_bits(arg))?;
    let end = args.get(4).map(|arg| int(arg)).transpose()?;
    let position = match ctx.string(args[1])? {
        // A missing key reads as zeros without end (page of BITPOS).
        None => (!on).then_some(0),
        Some(bytes) => bit_range(start, end.unwrap_or(-1), unit, bytes.len()).and_then(|(first, last)| {
            let found = bits::position(bytes, on, first, last);
            // Without an end the string goes on with zeros: the first zero of a string of ones is behind it (page
            // of BITPOS).
            found.or_else(|| (!on && end.is_none()).then_some(last + 1))
        }),
    };
    ctx.reply.int(position.map_or(-1, |at| at as i64));
    DONE
}

/// Short strings count as filled up with zeros (page of BITOP), and an empty result deletes the target.
fn bitop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let operation = match args[1] {
        w if is(w, "and") => Operation::And,
        w if is(w, "or") => Operation::Or,
        w if is(w, "xor") => Operation::Xor,
        w if is(w, "not") => Operation::Not,
        _ => return Err(CommandError::Syntax),
    };
    if operation == Operation::Not && args.len() != 4 {
        return Err(CommandError::text("ERR BITOP NOT must be called with a single source key."));
    }
    // A look at each first: it makes dead ones go, and counts hits and misses.
    for key in &args[3..] {
        ctx.string(key)?;
    }
    let source = |key: &&[u8]| match ctx.db.view(key).map(EntryRef::value) {
        Some(ValueRef::String(bytes)) => bytes,
        _ => &[],
    };
    let sources: Vec<&[u8]> = args[3..].iter().map(source).collect();
    let result = bits::combine(operation, &sources);
    let (target, len) = (args[2], result.len());
    ctx.store(target, (len > 0).then(|| Value::String(Arc::new(result))), event::SET);
    ctx.db.mark_raw(target);
    ctx.reply.int(len as i64);
    DONE
}

/// One step of BITFIELD.
struct Step {
    field: FieldType,
    offset: u64,
    action: Action,
}

enum Action {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

impl Step {
    /// Does the step; what it answers is `None` when the number does not fit.
    fn run(&self, bytes: &mut [u8]) -> (Option<i64>, bool) {
        let field = self.field;
        let old = field.read(bytes, self.offset);
        let (wanted, overflow) = match self.action {
            Action::Get => return (Some(old), false),
            // SET takes the 64 bits of its argument as they are: for an unsigned field -1 is the greatest number.
            Action::Set(n, overflow) if field.signed => (i128::from(n), overflow),
            Action::Set(n, overflow) => (i128::from(n as u64), overflow),
            Action::Add(by, overflow) => (i128::from(old) + i128::from(by), overflow),
        };
        let Some(new) = field.fit(wanted, overflow) else { return (None, false) };
        field.write(bytes, self.offset, new);
        let shown = if matches!(self.action, Action::Set(..)) { old } else { new };
        (Some(shown), old != new)
    }
}

/// OVERFLOW holds for the SETs and INCRBYs behind it, until the next OVERFLOW (page of BITFIELD).
fn steps(ctx: &Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut at = 2;
    while at < args.len() {
        let left = args.len() - at - 1;
        let word = args[at];
        if is(word, "overflow") && left >= 1 {
            overflow = match args[at + 1] {
                w if is(w, "wrap") => Overflow::Wrap,
                w if is(w, "sat") => Overflow::Saturate,
                w if is(w, "fail") => Overflow::Fail,
                _ => return Err(CommandError::text("ERR Invalid OVERFLOW type specified")),
            };
            at += 2;
            continue;
        }
        let reads = is(word, "get") && left >= 2;
        if !reads && !(left >= 3 && (is(word, "set") || is(word, "incrby"))) {
            return Err(CommandError::Syntax);
        }
        let field = field_type(args[at + 1])?;
        let offset = field_offset(ctx, args[at + 2], field)?;
        let action = match word {
            _ if reads => Action::Get,
            w if is(w, "set") => Action::Set(int(args[at + 3])?, overflow),
            _ => Action::Add(int(args[at + 3])?, overflow),
        };
        at += if reads { 3 } else { 4 };
        steps.push(Step { field, offset, action });
    }
    Ok(steps)
}

fn field_type(arg: &[u8]) -> Result<FieldType> {
    const WRONG: CommandError = CommandError::text(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
    );
    let (signed, digits) = match arg {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => return Err(WRONG),
    };
    match parse_i64(digits) {
        Some(bits) if (1..=if signed { 64 } else { 63 }).contains(&bits) => {
            Ok(FieldType { signed, bits: bits as u32 })
        }
        _ => Err(WRONG),
    }
}

/// An offset in bits, or behind `#` in fields.
fn field_offset(ctx: &Ctx<'_, '_, '_>, arg: &[u8], field: FieldType) -> Result<u64> {
    match arg {
        [b'#', digits @ ..] => {
            let n = parse_i64(digits).and_then(|n| n.checked_mul(i64::from(field.bits)));
            in_reach(ctx, n.ok_or(BAD_OFFSET)?)
        }
        _ => bit_offset(ctx, arg),
    }
}

fn bitfield(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let steps = steps(ctx, args)?;
    let writes = steps.iter().filter(|s| !matches!(s.action, Action::Get));
    // The string grows for every write, also for one that OVERFLOW FAIL then refuses.
    let Some(last) = writes.map(|s| s.offset + u64::from(s.field.bits) - 1).max() else {
        return read_fields(ctx, args[1], &steps);
    };
    let (grew, results) = change_string(ctx, args[1], (last / 8) as usize + 1, |bytes| {
        steps.iter().map(|step| step.run(bytes)).collect::<Vec<_>>()
    })?;
    if results.iter().any(|(_, changed)| *changed) || grew && results.iter().any(|(n, _)| n.is_some()) {
        ctx.db.changed(args[1], event::SETBIT);
        ctx.db.count_elements(results.iter().filter(|(_, changed)| *changed).count());
    } else if grew {
        // Nothing fitted, yet the string is longer than it was: replicas must follow.
        ctx.db.changed(args[1], event::MADE);
    }
    ctx.reply.array(results.len());
    for (number, _) in results {
        match number {
            Some(n) => ctx.reply.int(n),
            None => ctx.reply.null(),
        }
    }
    DONE
}

fn bitfield_ro(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let steps = steps(ctx, args)?;
    if steps.iter().any(|s| !matches!(s.action, Action::Get)) {
        return Err(CommandError::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_fields(ctx, args[1], &steps)
}

fn read_fields(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], steps: &[Step]) -> Result {
    let numbers: Vec<i64> = {
        let bytes = ctx.string(key)?.unwrap_or_default();
        steps.iter().map(|s| s.field.read(bytes, s.offset)).collect()
    };
    ctx.reply.array(numbers.len());
    numbers.into_iter().for_each(|n| ctx.reply.int(n));
    DONE
}
