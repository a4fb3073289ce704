//! Union, intersection and difference of sorted sets; plain sets take part with scores of 1.

use super::set_algebra::limit_option;
use super::sorted_set_ranges::store;
use super::sorted_sets::{open_members, show_member};
use crate::base::num::parse_f64;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group::SortedSet, counted, flags::*, key, one};
use crate::command::{CommandError, Result, int, is};
use crate::encoding::Item;
use crate::encoding::item::IntText;
use crate::keyspace::{Db, EntryRef, event};
use crate::value::{self, Limits, Set, ValueRef};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("zunionstore", -4, SortedSet, zunionstore)
        .complexity("O(N)+O(M log(M))")
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[one(1, key::OW | key::UPDATE), counted(2, key::RO | key::ACCESS)])
        .doc(
            "2.0.0",
            "destination numkeys key ... [WEIGHTS weight ...] [AGGREGATE <SUM | MIN | MAX>]",
            "Stores the members that any of the sorted sets has in a key.",
        ),
    Command::new("zinterstore", -4, SortedSet, zinterstore)
        .complexity("O(N*K)+O(M*log(M))")
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[one(1, key::OW | key::UPDATE), counted(2, key::RO | key::ACCESS)])
        .doc(
            "2.0.0",
            "destination numkeys key ... [WEIGHTS weight ...] [AGGREGATE <SUM | MIN | MAX>]",
            "Stores the members that all of the sorted sets have in a key.",
        ),
    Command::new("zdiffstore", -4, SortedSet, zdiffstore)
        .complexity("O(L + (N-K)log(N))")
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[one(1, key::OW | key::UPDATE), counted(2, key::RO | key::ACCESS)])
        .doc(
            "6.2.0",
            "destination numkeys key ...",
            "Stores the members of the first sorted set that none of the others has in a key.",
        ),
    Command::new("zunion", -3, SortedSet, zunion)
        .complexity("O(N)+O(M*log(M))")
        .flags(READONLY | MOVABLE_KEYS)
        .keys(&[counted(1, key::RO | key::ACCESS)])
        .doc(
            "6.2.0",
            "numkeys key ... [WEIGHTS weight ...] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
            "Returns the members that any of the sorted sets has.",
        ),
    Command::new("zinter", -3, SortedSet, zinter)
        .complexity("O(N*K)+O(M*log(M))")
        .flags(READONLY | MOVABLE_KEYS)
        .keys(&[counted(1, key::RO | key::ACCESS)])
        .doc(
            "6.2.0",
            "numkeys key ... [WEIGHTS weight ...] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
            "Returns the members that all of the sorted sets have.",
        ),
    Command::new("zdiff", -3, SortedSet, zdiff)
        .complexity("O(L + (N-K)log(N))")
        .flags(READONLY | MOVABLE_KEYS)
        .keys(&[counted(1, key::RO | key::ACCESS)])
        .doc(
            "6.2.0",
            "numkeys key ... [WITHSCORES]",
            "Returns the members of the first sorted set that none of the others has.",
        ),
    Command::new("zintercard", -3, SortedSet, zintercard)
        .complexity("O(N*K)")
        .flags(READONLY | MOVABLE_KEYS)
        .keys(&[counted(1, key::RO | key::ACCESS)])
        .doc(
            "7.0.0",
            "numkeys key ... [LIMIT limit]",
            "Counts the members that all of the sorted sets have.",
        ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// How scores of one member in several sets become one.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // +inf and -inf add up to 0, which Redis does, too.
            Aggregate::Sum => not_nan(a + b),
            Aggregate::Min => a.min(b),
            Aggregate::Max => a.max(b),
        }
    }
}

/// 0 in place of what is no number, as infinity times a weight of 0.
fn not_nan(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x }
}

/// One operand.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Missing,
    Sorted(&'a value::SortedSet),
    Plain(&'a Set),
}

impl<'a> Operand<'a> {
    fn len(self) -> usize {
        match self {
            Operand::Missing => 0,
            Operand::Sorted(set) => set.len(),
            Operand::Plain(set) => set.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Operand::Missing => None,
            Operand::Sorted(set) => set.score(member),
            Operand::Plain(set) => set.contains(member).then_some(1.0),
        }
    }

    fn iter(self) -> impl Iterator<Item = (Item<'a>, f64)> {
        let (sorted, plain) = match self {
            Operand::Missing => (None, None),
            Operand::Sorted(set) => (Some(set.iter()), None),
            Operand::Plain(set) => (None, Some(set.iter())),
        };
        sorted.into_iter().flatten().chain(plain.into_iter().flatten().map(|member| (member, 1.0)))
    }
}

struct Query<'a> {
    operands: Vec<(Operand<'a>, f64)>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// Keys of a query, checked: `at` is the argument that counts them.
fn keys<'k>(ctx: &mut Ctx<'_, '_, '_>, args: &'k [&'k [u8]], at: usize) -> Result<&'k [&'k [u8]]> {
    let n = int(args[at])?;
    let n = usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| {
        CommandError::owned(format!("ERR at least 1 input key is needed for '{}' command", ctx.command.name))
    })?;
    let keys = args.get(at + 1..(at + 1).saturating_add(n)).ok_or(CommandError::Syntax)?;
    let mut members = 0;
    for key in keys {
        members += match ctx.db.read(key) {
            None => 0,
            Some(ValueRef::SortedSet(set)) => set.len(),
            Some(ValueRef::Set(set)) => set.len(),
            Some(_) => return Err(CommandError::WrongType),
        };
    }
    ctx.db.announce_work(ctx.command.name, members);
    Ok(keys)
}

fn operands<'a>(db: &'a Db<'_, '_>, keys: &[&[u8]]) -> Vec<Operand<'a>> {
    keys.iter()
        .map(|key| match db.view(key).map(EntryRef::value) {
            Some(ValueRef::SortedSet(set)) => Operand::Sorted(set),
            Some(ValueRef::Set(set)) => Operand::Plain(set),
            _ => Operand::Missing,
        })
        .collect()
}

/// What follows the keys.
fn options<'a>(
    operands: Vec<Operand<'a>>,
    words: &[&[u8]],
    operation: Operation,
    stored: bool,
) -> Result<Query<'a>> {
    let n = operands.len();
    let mut query = Query {
        operands: operands.into_iter().map(|operand| (operand, 1.0)).collect(),
        aggregate: Aggregate::Sum,
        with_scores: false,
    };
    let combines = operation != Operation::Difference;
    let mut rest = words;
    while let [word, behind @ ..] = rest {
        if combines && behind.len() >= n && is(word, "weights") {
            for ((_, weight), text) in query.operands.iter_mut().zip(behind) {
                *weight = parse_f64(text).ok_or(CommandError::text("ERR weight value is not a float"))?;
            }
            rest = &behind[n..];
        } else if combines && !behind.is_empty() && is(word, "aggregate") {
            query.aggregate = match behind[0] {
                w if is(w, "sum") => Aggregate::Sum,
                w if is(w, "min") => Aggregate::Min,
                w if is(w, "max") => Aggregate::Max,
                _ => return Err(CommandError::Syntax),
            };
            rest = &behind[1..];
        } else if !stored && is(word, "withscores") {
            query.with_scores = true;
            rest = behind;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(query)
}

impl Query<'_> {
    fn run(mut self, operation: Operation, limits: &Limits) -> value::SortedSet {
        let mut result = value::SortedSet::new();
        let mut buf = IntText::new();
        if operation != Operation::Difference {
            // From the smallest set on. Scores are added up in this order, which shows in the last digits.
            self.operands.sort_by_key(|(operand, _)| operand.len());
        }
        match operation {
            Operation::Union => {
                for (operand, weight) in &self.operands {
                    for (member, score) in operand.iter() {
                        let (member, score) = (member.text(&mut buf), not_nan(score * weight));
                        let score = result.score(member).map_or(score, |old| self.aggregate.of(old, score));
                        result.add(member, score, limits);
                    }
                }
            }
            Operation::Intersection => {
                let Some(((smallest, weight), others)) = self.operands.split_first() else { return result };
                for (member, score) in smallest.iter() {
                    let member = member.text(&mut buf);
                    let score = others.iter().try_fold(not_nan(score * weight), |sum, (other, weight)| {
                        Some(self.aggregate.of(sum, not_nan(other.score(member)? * weight)))
                    });
                    if let Some(score) = score {
                        result.add(member, score, limits);
                    }
                }
            }
            Operation::Difference => {
                let Some(((first, _), others)) = self.operands.split_first() else { return result };
                for (member, score) in first.iter() {
                    let member = member.text(&mut buf);
                    if others.iter().all(|(other, _)| other.score(member).is_none()) {
                        result.add(member, score, limits);
                    }
                }
            }
        }
        result
    }
}

fn zunion(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer(ctx, args, Operation::Union)
}

fn zinter(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer(ctx, args, Operation::Intersection)
}

fn zdiff(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer(ctx, args, Operation::Difference)
}

fn zunionstore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer_into(ctx, args, Operation::Union)
}

fn zinterstore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer_into(ctx, args, Operation::Intersection)
}

fn zdiffstore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    answer_into(ctx, args, Operation::Difference)
}

fn answer(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], operation: Operation) -> Result {
    let keys = keys(ctx, args, 1)?;
    let query = options(operands(ctx.db, keys), &args[2 + keys.len()..], operation, false)?;
    let with_scores = query.with_scores;
    let result = query.run(operation, ctx.limits);
    open_members(ctx.reply, result.len(), with_scores);
    result.iter().for_each(|pair| show_member(ctx.reply, pair, with_scores));
    DONE
}

fn answer_into(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], operation: Operation) -> Result {
    let keys = keys(ctx, args, 2)?;
    let query = options(operands(ctx.db, keys), &args[3 + keys.len()..], operation, true)?;
    let result = query.run(operation, ctx.limits);
    let event = match operation {
        Operation::Union => event::ZUNIONSTORE,
        Operation::Intersection => event::ZINTERSTORE,
        Operation::Difference => event::ZDIFFSTORE,
    };
    store(ctx, args[1], result, event)
}

fn zintercard(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let keys = keys(ctx, args, 1)?;
    let limit = limit_option(&args[2 + keys.len()..])?;
    let mut operands = operands(ctx.db, keys);
    operands.sort_by_key(|operand| operand.len());
    let mut buf = IntText::new();
    let count = operands.split_first().map_or(0, |(smallest, others)| {
        smallest
            .iter()
            .filter(|(member, _)| {
                let member = member.text(&mut buf);
                others.iter().all(|other| other.score(member).is_some())
            })
            .take(limit)
            .count()
    });
    ctx.reply.int(count as i64);
    DONE
}
