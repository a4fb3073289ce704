//! Intersection, union and difference of sets.

use std::ops::ControlFlow;

use super::members::{Asked, Member, Members};
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::Set, counted, flags::*, key, one, range};
use crate::command::{CommandError, Result, at_least_one, bulk_item, is};
use crate::encoding::Item;
use crate::encoding::item::IntText;
use crate::keyspace::{Db, Event, event};
use crate::value::{self, Value, ValueRef};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("sinter", -2, Set, sinter)
        .complexity("O(N*M)")
        .flags(READONLY)
        .keys(&[range(1, -1, 1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .doc("1.0.0", "key ...", "Returns the members that all of the sets have."),
    Command::new("sinterstore", -3, Set, sinterstore)
        .complexity("O(N*M)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::OW | key::UPDATE), range(2, -1, 1, key::RO | key::ACCESS)])
        .doc("1.0.0", "destination key ...", "Stores the members that all of the sets have in a key."),
    Command::new("sintercard", -3, Set, sintercard)
        .complexity("O(N*M)")
        .flags(READONLY | MOVABLE_KEYS)
        .keys(&[counted(1, key::RO | key::ACCESS)])
        .doc("7.0.0", "numkeys key ... [LIMIT limit]", "Counts the members that all of the sets have."),
    Command::new("sunion", -2, Set, sunion)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[range(1, -1, 1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .doc("1.0.0", "key ...", "Returns the members that any of the sets has."),
    Command::new("sunionstore", -3, Set, sunionstore)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::OW | key::UPDATE), range(2, -1, 1, key::RO | key::ACCESS)])
        .doc("1.0.0", "destination key ...", "Stores the members that any of the sets has in a key."),
    Command::new("sdiff", -2, Set, sdiff)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[range(1, -1, 1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output_order"])
        .doc("1.0.0", "key ...", "Returns the members of the first set that none of the others has."),
    Command::new("sdiffstore", -3, Set, sdiffstore)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::OW | key::UPDATE), range(2, -1, 1, key::RO | key::ACCESS)])
        .doc(
            "1.0.0",
            "destination key ...",
            "Stores the members of the first set that none of the others has in a key.",
        ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

impl Operation {
    /// What happens to the key that its result is stored in.
    const fn event(self) -> Event {
        match self {
            Operation::Intersection => event::SINTERSTORE,
            Operation::Union => event::SUNIONSTORE,
            Operation::Difference => event::SDIFFSTORE,
        }
    }
}

fn sinter(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer(ctx, args, Operation::Intersection)
}

fn sunion(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer(ctx, args, Operation::Union)
}

fn sdiff(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer(ctx, args, Operation::Difference)
}

fn sinterstore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    store(ctx, args, Operation::Intersection)
}

fn sunionstore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    store(ctx, args, Operation::Union)
}

fn sdiffstore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    store(ctx, args, Operation::Difference)
}

fn answer(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], operation: Operation) -> Result {
    check(ctx, &args[1..])?;
    let result = combine(&sets(ctx.db, &args[1..]), operation);
    ctx.reply.set(result.len());
    result.into_iter().for_each(|member| bulk_item(ctx.reply, member));
    DONE
}

/// What the destination held is replaced, whatever its type; an empty result deletes it (page of SINTERSTORE).
fn store(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], operation: Operation) -> Result {
    check(ctx, &args[2..])?;
    let mut result = value::Set::new();
    for member in combine(&sets(ctx.db, &args[2..]), operation) {
        result.add(member.text(&mut IntText::new()), ctx.limits);
    }
    let len = result.len();
    ctx.store(args[1], (len > 0).then_some(Value::Set(result)), operation.event());
    ctx.reply.int(len as i64);
    DONE
}

fn sintercard(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let n = at_least_one(args[1], "ERR numkeys should be greater than 0")?;
    if n > args.len() - 2 {
        return Err(CommandError::text("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, options) = args[2..].split_at(n);
    let limit = limit_option(options)?;
    check(ctx, keys)?;
    let mut count = 0;
    intersect(&sets(ctx.db, keys), |_| {
        count += 1;
        count < limit
    });
    ctx.reply.int(count as i64);
    DONE
}

/// The `LIMIT` of SINTERCARD and ZINTERCARD; 0 means none.
pub(super) fn limit_option(options: &[&[u8]]) -> Result<usize> {
    let mut limit = usize::MAX;
    for pair in options.chunks(2) {
        match pair {
            [word, n] if is(word, "limit") => {
                let n = crate::base::num::parse_i64(n).and_then(|n| usize::try_from(n).ok());
                limit = match n.ok_or(CommandError::text("ERR LIMIT can't be negative"))? {
                    0 => usize::MAX,
                    n => n,
                };
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(limit)
}

/// Refuses keys that hold something else. Counts as a look at each.
fn check(ctx: &mut Ctx<'_, '_, '_>, keys: &[&[u8]]) -> Result<()> {
    let mut members = 0;
    for key in keys {
        members += ctx.db.set(key)?.map_or(0, value::Set::len);
    }
    ctx.db.announce_work(ctx.command.name, members);
    Ok(())
}

/// The sets under checked keys; `None` where there is none.
fn sets<'a>(db: &'a Db<'_, '_>, keys: &[&[u8]]) -> Vec<Option<&'a value::Set>> {
    keys.iter()
        .map(|key| match db.view(key)?.value() {
            ValueRef::Set(set) => Some(set),
            _ => None,
        })
        .collect()
}

/// The members that result, each once.
fn combine<'a>(sets: &[Option<&'a value::Set>], operation: Operation) -> Vec<Item<'a>> {
    let mut result = Vec::new();
    match operation {
        Operation::Intersection => intersect(sets, |member| {
            result.push(member);
            true
        }),
        Operation::Union => {
            let mut seen = Members::default();
            sets.iter().flatten().flat_map(|set| set.iter()).for_each(|member| {
                if seen.insert(Member::of(member)) {
                    result.push(member);
                }
            });
        }
        Operation::Difference => {
            let Some((Some(first), others)) = sets.split_first() else { return result };
            let others: Vec<Asked<'_>> =
                others.iter().flatten().map(|other| Asked::of(other, first.len())).collect();
            first.iter().for_each(|member| {
                if !others.iter().any(|other| other.has(member)) {
                    result.push(member);
                }
            });
        }
    }
    result
}

/// Shows the members that all sets have to `f`, which says whether to go on.
fn intersect<'a>(sets: &[Option<&'a value::Set>], mut f: impl FnMut(Item<'a>) -> bool) {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<&value::Set>>>() else { return };
    // The smallest is gone through, and the others are asked, small ones first.
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return };
    let others: Vec<Asked<'_>> = others.iter().map(|other| Asked::of(other, smallest.len())).collect();
    // The iterator of a set goes through it much faster by itself than step by step.
    let _ = smallest.iter().try_for_each(|member| {
        let goes_on = !others.iter().all(|other| other.has(member)) || f(member);
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
}
