//! Sorted sets as queues: the lowest or highest members are taken out, and clients may wait for one.

use super::queues::{self, QueueEnd};
use super::sorted_sets::{open_members, show_member};
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::SortedSet, counted, flags::*, key, one, range};
use crate::command::{CommandError, Result, bulk_item, is, non_negative};
use crate::encoding::Item;
use crate::keyspace::{Event, event};
use crate::value;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("zpopmin", -2, SortedSet, zpopmin).complexity("O(log(N)*M)").flags(WRITE | FAST).keys(&[one(1, key::RW | key::ACCESS | key::DELETE)]).doc("5.0.0", "key [count]", "Takes the members with the lowest scores out of a sorted set."),
    Command::new("zpopmax", -2, SortedSet, zpopmax).complexity("O(log(N)*M)").flags(WRITE | FAST).keys(&[one(1, key::RW | key::ACCESS | key::DELETE)]).doc("5.0.0", "key [count]", "Takes the members with the highest scores out of a sorted set."),
    Command::new("bzpopmin", -3, SortedSet, bzpopmin).complexity("O(log(N))").flags(WRITE | BLOCKING | FAST).keys(&[range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)]).history(&[("6.0.0", "The timeout may be a fraction of a second.")])
        .doc("5.0.0", "key ... timeout", "Takes the member with the lowest score out of the first sorted set that has any, and waits for one."),
    Command::new("bzpopmax", -3, SortedSet, bzpopmax).complexity("O(log(N))").flags(WRITE | BLOCKING | FAST).keys(&[range(1, -2, 1, key::RW | key::ACCESS | key::DELETE)]).history(&[("6.0.0", "The timeout may be a fraction of a second.")])
        .doc("5.0.0", "key ... timeout", "Takes the member with the highest score out of the first sorted set that has any, and waits for one."),
    Command::new("zmpop", -4, SortedSet, zmpop).complexity("O(K) + O(M*log(N))").flags(WRITE | MOVABLE_KEYS).keys(&[counted(1, key::RW | key::ACCESS | key::DELETE)]).doc("7.0.0", "numkeys key ... where=<MIN | MAX> [COUNT count]", "Takes members out of the first sorted set of several that has any."),
    Command::new("bzmpop", -5, SortedSet, bzmpop).complexity("O(K) + O(M*log(N))").flags(WRITE | BLOCKING | MOVABLE_KEYS).keys(&[counted(2, key::RW | key::ACCESS | key::DELETE)]).doc("7.0.0", "timeout numkeys key ... where=<MIN | MAX> [COUNT count]", "Takes members as ZMPOP does, and waits for some."),
];

/// Which end of the order is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Lowest,
    Highest,
}

impl QueueEnd for End {
    fn parse(arg: &[u8]) -> Result<Self> {
        if is(arg, "min") {
            Ok(End::Lowest)
        } else if is(arg, "max") {
            Ok(End::Highest)
        } else {
            Err(CommandError::Syntax)
        }
    }

    fn command(self) -> &'static [u8] {
        match self {
            End::Lowest => b"ZPOPMIN",
            End::Highest => b"ZPOPMAX",
        }
    }

    fn take(self, ctx: &mut Ctx<'_, '_, '_>, key: &[u8], count: Option<usize>) -> Result<Option<usize>> {
        let Some(set) = ctx.db.sorted_set_mut(key)? else { return Ok(None) };
        let n = count.unwrap_or(1).min(set.len());
        let reply = &mut *ctx.reply;
        reply.array(if count.is_some() { 2 } else { 3 });
        reply.bulk(key);
        if count.is_some() {
            reply.array(n);
        }
        for _ in 0..n {
            self.pop(set, |member, score| {
                // Pairs of a count are nested in both protocols.
                if count.is_some() {
                    reply.array(2);
                }
                bulk_item(reply, member);
                reply.double(score);
            });
        }
        let empty = set.is_empty();
        ctx.remove_if_empty(key, empty, self.event());
        ctx.db.count_elements(n);
        Ok(Some(n))
    }
}

impl End {
    const fn event(self) -> Event {
        match self {
            End::Lowest => event::ZPOPMIN,
            End::Highest => event::ZPOPMAX,
        }
    }

    fn pop<R>(self, set: &mut value::SortedSet, f: impl FnOnce(Item<'_>, f64) -> R) -> Option<R> {
        match self {
            End::Lowest => set.pop_first_with(f),
            End::Highest => set.pop_last_with(f),
        }
    }
}

fn zpopmin(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    pop(ctx, args, End::Lowest)
}

fn zpopmax(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    pop(ctx, args, End::Highest)
}

/// RESP3 nests each pair of a count in an array of its own; RESP2 has one flat array.
fn pop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], end: End) -> Result {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(non_negative(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let Some(set) = ctx.db.sorted_set_mut(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    let (before, reply) = (set.len(), &mut *ctx.reply);
    match count {
        Some(0) => {
            reply.array(0);
            return DONE;
        }
        // Without a count the pair stands alone.
        None => {
            reply.array(2);
            end.pop(set, |member, score| {
                bulk_item(reply, member);
                reply.double(score);
            });
        }
        Some(n) => {
            let n = n.min(set.len());
            open_members(reply, n, true);
            for _ in 0..n {
                end.pop(set, |member, score| show_member(reply, (member, score), true));
            }
        }
    }
    let (left, empty) = (set.len(), set.is_empty());
    ctx.remove_if_empty(args[1], empty, end.event());
    ctx.db.count_elements(before - left);
    DONE
}

fn bzpopmin(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::bpop(ctx, args, End::Lowest)
}

fn bzpopmax(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::bpop(ctx, args, End::Highest)
}

fn zmpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::mpop::<End>(ctx, args)
}

fn bzmpop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    queues::bmpop::<End>(ctx, args)
}
