//! The list family: all that concerns one list and never waits. See [`super::list_moves`] for the rest.

use std::ops::ControlFlow;

use super::queues::QueueEnd;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::List, flags::*, key, one};
use crate::command::{CommandError, Result, bulk_item, clamp_range, int, is, non_negative};
use crate::encoding::Item;
use crate::keyspace::{Event, event};
use crate::value::{self, list::Side};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("lpush", -3, List, lpush)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::INSERT)])
        .history(&[("2.4.0", "Several elements at once.")])
        .doc(
            "1.0.0",
            "key element ...",
            "Puts elements in front of a list, and creates the list if there is none.",
        ),
    Command::new("rpush", -3, List, rpush)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::INSERT)])
        .history(&[("2.4.0", "Several elements at once.")])
        .doc(
            "1.0.0",
            "key element ...",
            "Puts elements at the end of a list, and creates the list if there is none.",
        ),
    Command::new("lpushx", -3, List, lpushx)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::INSERT)])
        .history(&[("4.0.0", "Several elements at once.")])
        .doc("2.2.0", "key element ...", "Puts elements in front of a list that exists."),
    Command::new("rpushx", -3, List, rpushx)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::INSERT)])
        .history(&[("4.0.0", "Several elements at once.")])
        .doc("2.2.0", "key element ...", "Puts elements at the end of a list that exists."),
    Command::new("lpop", -2, List, lpop)
        .complexity("O(N)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE)])
        .history(&[("6.2.0", "The argument for a count.")])
        .doc("1.0.0", "key [count@6.2.0]", "Takes the first elements out of a list."),
    Command::new("rpop", -2, List, rpop)
        .complexity("O(N)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE)])
        .history(&[("6.2.0", "The argument for a count.")])
        .doc("1.0.0", "key [count@6.2.0]", "Takes the last elements out of a list."),
    Command::new("llen", 2, List, llen)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("1.0.0", "key", "Returns the length of a list."),
    Command::new("lindex", 3, List, lindex)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("1.0.0", "key index", "Returns the element of a list at an index."),
    Command::new("lset", 4, List, lset)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .doc("1.0.0", "key index element", "Replaces the element of a list at an index."),
    Command::new("linsert", 5, List, linsert)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::INSERT)])
        .doc(
            "2.2.0",
            "key where=<BEFORE | AFTER> pivot element",
            "Puts an element in front of or behind another one of a list.",
        ),
    Command::new("lrem", 4, List, lrem)
        .complexity("O(N+M)")
        .flags(WRITE)
        .keys(&[one(1, key::RW | key::DELETE)])
        .doc("1.0.0", "key count element", "Removes elements that are equal to a value from a list."),
    Command::new("lrange", 4, List, lrange)
        .complexity("O(S+N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("1.0.0", "key start stop", "Returns the elements of a list between two indices."),
    Command::new("ltrim", 4, List, ltrim)
        .complexity("O(N)")
        .flags(WRITE)
        .keys(&[one(1, key::RW | key::DELETE)])
        .doc("1.0.0", "key start stop", "Removes all but the elements between two indices from a list."),
    Command::new("lpos", -3, List, lpos)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc(
            "6.0.6",
            "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
            "Returns the indices of elements that are equal to a value.",
        ),
];

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Left,
    Right,
}

impl QueueEnd for End {
    fn parse(arg: &[u8]) -> Result<Self> {
        if is(arg, "left") {
            Ok(End::Left)
        } else if is(arg, "right") {
            Ok(End::Right)
        } else {
            Err(CommandError::Syntax)
        }
    }

    fn command(self) -> &'static [u8] {
        match self {
            End::Left => b"LPOP",
            End::Right => b"RPOP",
        }
    }

    fn take(self, ctx: &mut Ctx<'_, '_, '_>, key: &[u8], count: Option<usize>) -> Result<Option<usize>> {
        let Some(list) = ctx.db.list_mut(key)? else { return Ok(None) };
        let n = count.unwrap_or(1).min(list.len());
        ctx.reply.array(2);
        ctx.reply.bulk(key);
        if count.is_some() {
            ctx.reply.array(n);
        }
        for _ in 0..n {
            self.pop(list, |item| bulk_item(ctx.reply, item));
        }
        let empty = list.is_empty();
        ctx.remove_if_empty(key, empty, self.pop_event());
        ctx.db.count_elements(n);
        Ok(Some(n))
    }
}

impl End {
    fn pop<R>(self, list: &mut value::List, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        match self {
            End::Left => list.pop_front_with(f),
            End::Right => list.pop_back_with(f),
        }
    }

    pub(super) const fn push_event(self) -> Event {
        match self {
            End::Left => event::LPUSH,
            End::Right => event::RPUSH,
        }
    }

    pub(super) const fn pop_event(self) -> Event {
        match self {
            End::Left => event::LPOP,
            End::Right => event::RPOP,
        }
    }
}

fn lpush(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    push(ctx, args, End::Left, true)
}

fn rpush(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    push(ctx, args, End::Right, true)
}

fn lpushx(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    push(ctx, args, End::Left, false)
}

fn rpushx(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    push(ctx, args, End::Right, false)
}

fn push(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], end: End, create: bool) -> Result {
    let list = if create {
        ctx.db.list_or_new(args[1])?
    } else {
        match ctx.db.list_mut(args[1])? {
            Some(list) => list,
            None => {
                ctx.reply.int(0);
                return DONE;
            }
        }
    };
    for element in &args[2..] {
        match end {
            End::Left => list.push_front(element, ctx.limits),
            End::Right => list.push_back(element, ctx.limits),
        }
    }
    ctx.reply.int(list.len() as i64);
    ctx.db.changed(args[1], end.push_event());
    ctx.db.count_elements(args.len() - 2);
    DONE
}

fn lpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    pop(ctx, args, End::Left)
}

fn rpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    pop(ctx, args, End::Right)
}

/// Without a count one element or null, with one an array, even of one element (page of LPOP). A count of 0
/// changes nothing.
fn pop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], end: End) -> Result {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(non_negative(count)?),
        _ => return Err(CommandError::Arity(ctx.command.name.to_owned())),
    };
    let Some(list) = ctx.db.list_mut(args[1])? else {
        if count.is_some() {
            ctx.reply.null_array();
        } else {
            ctx.reply.null();
        }
        return DONE;
    };
    let n = match count {
        Some(0) => {
            ctx.reply.array(0);
            return DONE;
        }
        Some(n) => {
            let n = n.min(list.len());
            ctx.reply.array(n);
            n
        }
        None => 1,
    };
    for _ in 0..n {
        end.pop(list, |item| bulk_item(ctx.reply, item));
    }
    let empty = list.is_empty();
    ctx.remove_if_empty(args[1], empty, end.pop_event());
    ctx.db.count_elements(n);
    DONE
}

fn llen(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.db.list(args[1])?.map_or(0, value::List::len);
    ctx.reply.int(len as i64);
    DONE
}

/// The place that an index means in a list of `len` elements; negative ones count from the end.
fn index_in(index: i64, len: usize) -> Option<usize> {
    let at = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(at).ok().filter(|at| *at < len)
}

fn lindex(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(list) = ctx.db.list(args[1])? else {
        ctx.reply.null();
        return DONE;
    };
    let at = index_in(int(args[2])?, list.len());
    if at.and_then(|at| list.get_with(at, |item| bulk_item(ctx.reply, item))).is_none() {
        ctx.reply.null();
    }
    DONE
}

fn lset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    // The key is looked at before the index.
    let list = ctx.db.list_mut(args[1])?.ok_or(CommandError::NoSuchKey)?;
    let index = int(args[2])?;
    let at = index_in(index, list.len()).ok_or(CommandError::IndexOutOfRange)?;
    list.set(at, args[3], ctx.limits);
    ctx.db.changed(args[1], event::LSET);
    ctx.reply.ok();
    DONE
}

/// -1 when the pivot is not in the list, 0 when there is no list (page of LINSERT).
fn linsert(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let side = if is(args[2], "after") {
        Side::After
    } else if is(args[2], "before") {
        Side::Before
    } else {
        return Err(CommandError::Syntax);
    };
    let Some(list) = ctx.db.list_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    if list.insert(side, args[3], args[4], ctx.limits) {
        ctx.reply.int(list.len() as i64);
        ctx.db.changed(args[1], event::LINSERT);
    } else {
        ctx.reply.int(-1);
    }
    DONE
}

/// The sign of the count is the direction: from the head, from the tail, or 0 for all (page of LREM).
fn lrem(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = int(args[2])?;
    let Some(list) = ctx.db.list_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    let removed = list.remove(args[3], count);
    let empty = list.is_empty();
    ctx.reply.int(removed as i64);
    if removed > 0 {
        ctx.remove_if_empty(args[1], empty, event::LREM);
        ctx.db.count_elements(removed);
    }
    DONE
}

fn lrange(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    let Some(list) = ctx.db.list(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    let range = clamp_range(start, stop, list.len());
    ctx.reply.array(range.len());
    list.for_each_in(range, |item| bulk_item(ctx.reply, item));
    DONE
}

fn ltrim(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    if let Some(list) = ctx.db.list_mut(args[1])? {
        let before = list.len();
        list.trim(clamp_range(start, stop, before));
        let (after, empty) = (list.len(), list.is_empty());
        // Whoever watches the key is told even when everything stays.
        let event = if after == before { event::LTRIM.uncounted() } else { event::LTRIM };
        ctx.remove_if_empty(args[1], empty, event);
        ctx.db.count_elements(before - after);
    }
    ctx.reply.ok();
    DONE
}

/// COUNT 0 means all matches, MAXLEN 0 no limit on elements to compare, and a negative RANK searches from the
/// tail (page of LPOS).
fn lpos(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (mut rank, mut count, mut most) = (1i64, None, 0usize);
    let mut options = args[3..].iter();
    while let Some(&option) = options.next() {
        let value = options.next().copied();
        match value {
            Some(value) if is(option, "rank") => {
                rank = value_in_range(value)?;
                if rank == 0 {
                    return Err(CommandError::text(
                        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                    ));
                }
            }
            Some(value) if is(option, "count") => {
                count = Some(positive_or(value, "ERR COUNT can't be negative")?);
            }
            Some(value) if is(option, "maxlen") => most = positive_or(value, "ERR MAXLEN can't be negative")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let Some(list) = ctx.db.list(args[1])? else {
        match count {
            Some(_) => ctx.reply.array(0),
            None => ctx.reply.null(),
        }
        return DONE;
    };
    let wanted = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(n) => n,
    };
    let most = if most == 0 { usize::MAX } else { most }.min(list.len());
    let found = places(list, args[2], rank, most, wanted);
    if count.is_some() {
        ctx.reply.array(found.len());
        for at in found {
            ctx.reply.int(at as i64);
        }
    } else {
        match found.first() {
            Some(at) => ctx.reply.int(*at as i64),
            None => ctx.reply.null(),
        }
    }
    DONE
}

/// The indices of up to `wanted` elements that equal `element`, from the match number `rank` on. Of up to `most`
/// elements, from the tail if the rank is negative.
fn places(list: &value::List, element: &[u8], rank: i64, most: usize, wanted: usize) -> Vec<usize> {
    let (mut to_skip, mut seen, mut found) = (rank.unsigned_abs() - 1, 0, Vec::new());
    let len = list.len();
    let look = |item: Item<'_>| {
        seen += 1;
        match item.is(element) {
            true if to_skip > 0 => to_skip -= 1,
            true => found.push(if rank > 0 { seen - 1 } else { len - seen }),
            false => {}
        }
        if found.len() < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    if rank > 0 {
        list.walk(0..most, look);
    } else {
        list.walk_back(len - most..len, look);
    }
    found
}

/// A signed rank: its smallest value has no counterpart.
fn value_in_range(arg: &[u8]) -> Result<i64> {
    match int(arg)? {
        i64::MIN => Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        n => Ok(n),
    }
}

fn positive_or(arg: &[u8], text: &'static str) -> Result<usize> {
    crate::base::num::parse_i64(arg).and_then(|n| usize::try_from(n).ok()).ok_or(CommandError::text(text))
}
