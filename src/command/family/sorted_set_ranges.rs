//! Ranges of sorted sets by rank, by score and by member: shown, counted, stored, removed.

use std::ops::{Bound, Range};

use super::sorted_sets::{open_members, show_member};
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::SortedSet, flags::*, key, one};
use crate::command::{CommandError, Result, clamp_range, int, is, trim_start};
use crate::encoding::item::IntText;
use crate::keyspace::{Event, event};
use crate::value::sorted_set::LexBound;
use crate::value::{self, Value};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("zcount", 4, SortedSet, zcount)
        .complexity("O(log(N))")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("2.0.0", "key min:double max:double", "Counts the members with scores between two bounds."),
    Command::new("zlexcount", 4, SortedSet, zlexcount)
        .complexity("O(log(N))")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("2.8.9", "key min max", "Counts the members between two members, where all scores are equal."),
    Command::new("zrange", -4, SortedSet, zrange)
        .complexity("O(log(N)+M)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("6.2.0", "The options `REV`, `BYSCORE`, `BYLEX` and `LIMIT`.")])
        .doc(
            "1.2.0",
            "key start:string stop:string [sortby@6.2.0=<BYSCORE | BYLEX>] [REV@6.2.0] \
             [LIMIT limit@6.2.0=(offset count)] [WITHSCORES]",
            "Returns members between two ranks, scores or members.",
        ),
    Command::new("zrangestore", -5, SortedSet, zrangestore)
        .complexity("O(log(N)+M)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::OW | key::UPDATE), one(2, key::RO | key::ACCESS)])
        .doc(
            "6.2.0",
            "dst src min max [sortby=<BYSCORE | BYLEX>] [REV] [LIMIT (offset count)]",
            "Stores the members between two ranks, scores or members in a key.",
        ),
    Command::new("zrangebyscore", -4, SortedSet, zrangebyscore)
        .deprecated("6.2.0", "`ZRANGE` with `BYSCORE`")
        .complexity("O(log(N)+M)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("2.0.0", "The option `WITHSCORES`.")])
        .doc(
            "1.0.5",
            "key min:double max:double [WITHSCORES@2.0.0] [LIMIT (offset count)]",
            "Returns the members with scores between two bounds.",
        ),
    Command::new("zrevrangebyscore", -4, SortedSet, zrevrangebyscore)
        .deprecated("6.2.0", "`ZRANGE` with `REV` and `BYSCORE`")
        .complexity("O(log(N)+M)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("2.1.6", "`WITHSCORES` may be anywhere among the options.")])
        .doc(
            "2.2.0",
            "key max:double min:double [WITHSCORES] [LIMIT (offset count)]",
            "Returns the members with scores between two bounds, the highest first.",
        ),
    Command::new("zrevrange", -4, SortedSet, zrevrange)
        .deprecated("6.2.0", "`ZRANGE` with `REV`")
        .complexity("O(log(N)+M)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc(
            "1.2.0",
            "key start stop [WITHSCORES]",
            "Returns the members between two ranks, the highest score first.",
        ),
    Command::new("zrangebylex", -4, SortedSet, zrangebylex)
        .deprecated("6.2.0", "`ZRANGE` with `BYLEX`")
        .complexity("O(log(N)+M)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc(
            "2.8.9",
            "key min max [LIMIT (offset count)]",
            "Returns the members between two members, where all scores are equal.",
        ),
    Command::new("zrevrangebylex", -4, SortedSet, zrevrangebylex)
        .deprecated("6.2.0", "`ZRANGE` with `REV` and `BYLEX`")
        .complexity("O(log(N)+M)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc(
            "2.8.9",
            "key max min [LIMIT (offset count)]",
            "Returns the members between two members in reverse order, where all scores are equal.",
        ),
    Command::new("zremrangebyrank", 4, SortedSet, zremrangebyrank)
        .complexity("O(log(N)+M)")
        .flags(WRITE)
        .keys(&[one(1, key::RW | key::DELETE)])
        .doc("2.0.0", "key start stop", "Removes the members between two ranks."),
    Command::new("zremrangebyscore", 4, SortedSet, zremrangebyscore)
        .complexity("O(log(N)+M)")
        .flags(WRITE)
        .keys(&[one(1, key::RW | key::DELETE)])
        .doc("1.2.0", "key min:double max:double", "Removes the members with scores between two bounds."),
    Command::new("zremrangebylex", 4, SortedSet, zremrangebylex)
        .complexity("O(log(N)+M)")
        .flags(WRITE)
        .keys(&[one(1, key::RW | key::DELETE)])
        .doc("2.8.9", "key min max", "Removes the members between two members, where all scores are equal."),
];

/// What the ends of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Member,
}

/// The two ends of a range.
#[derive(Clone, Copy, Debug)]
enum Ends<'a> {
    Rank(i64, i64),
    Score(Bound<f64>, Bound<f64>),
    Member(LexBound<'a>, LexBound<'a>),
}

impl<'a> Ends<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Self> {
        Ok(match by {
            By::Rank => Ends::Rank(int(min)?, int(max)?),
            By::Score => Ends::Score(score_bound(min)?, score_bound(max)?),
            By::Member => Ends::Member(lex_bound(min)?, lex_bound(max)?),
        })
    }

    /// The ranks that the range covers, lowest score first. Ranks given in reverse count from the highest.
    fn ranks(self, set: &value::SortedSet, reverse: bool) -> Range<usize> {
        match self {
            Ends::Rank(start, stop) => {
                let (len, range) = (set.len(), clamp_range(start, stop, set.len()));
                if reverse { len - range.end..len - range.start } else { range }
            }
            Ends::Score(min, max) => set.score_range(min, max),
            Ends::Member(min, max) => set.lex_range(min, max),
        }
    }
}

/// `1.5`, `(1.5` for exclusive, infinities. As `strtod` has it, white space may stand in front, nothing
/// reads as zero, and what no double can hold as infinite or zero.
fn score_bound(arg: &[u8]) -> Result<Bound<f64>> {
    let (exclusive, text) = match arg {
        [b'(', rest @ ..] => (true, rest),
        _ => (false, arg),
    };
    let x = if text.is_empty() {
        0.0
    } else {
        crate::base::num::parse_f64_of_any_size(trim_start(text))
            .ok_or(CommandError::text("ERR min or max is not a float"))?
    };
    Ok(if exclusive { Bound::Excluded(x) } else { Bound::Included(x) })
}

fn lex_bound(arg: &[u8]) -> Result<LexBound<'_>> {
    match arg {
        b"-" => Ok(LexBound::Lowest),
        b"+" => Ok(LexBound::Highest),
        [b'(', rest @ ..] => Ok(LexBound::Excluded(rest)),
        [b'[', rest @ ..] => Ok(LexBound::Included(rest)),
        _ => Err(CommandError::text("ERR min or max not valid string range item")),
    }
}

/// What ZRANGE and all its older names ask for.
struct Query<'a> {
    ends: Ends<'a>,
    reverse: bool,
    offset: i64,
    /// Negative: all.
    count: i64,
    with_scores: bool,
}

impl<'a> Query<'a> {
    /// Parses the ends and what follows them. `by` and `reverse` are what the command's name says;
    /// `None` lets options say it.
    fn parse(args: &[&'a [u8]], by: Option<By>, reverse: Option<bool>, store: bool) -> Result<Self> {
        let (mut by, mut reverse) = (by, reverse);
        let (mut offset, mut count, mut with_scores) = (0, -1, false);
        let mut i = 2;
        while let Some(word) = args.get(i) {
            if !store && is(word, "withscores") {
                with_scores = true;
            } else if is(word, "limit") && i + 2 < args.len() {
                (offset, count) = (int(args[i + 1])?, int(args[i + 2])?);
                i += 2;
            } else if reverse.is_none() && is(word, "rev") {
                reverse = Some(true);
            } else if by.is_none() && is(word, "bylex") {
                by = Some(By::Member);
            } else if by.is_none() && is(word, "byscore") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
            i += 1;
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if by == By::Rank {
            if count != -1 {
                return Err(CommandError::text(
                    "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
                ));
            }
            // Where it is not refused, it has no meaning.
            offset = 0;
        }
        if by == By::Member && with_scores {
            return Err(CommandError::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // In reverse the higher end comes first.
        let (min, max) = if reverse && by != By::Rank { (args[1], args[0]) } else { (args[0], args[1]) };
        Ok(Self { ends: Ends::parse(by, min, max)?, reverse, offset, count, with_scores })
    }

    /// The ranks of the answer, lowest score first.
    fn ranks(&self, set: &value::SortedSet) -> Range<usize> {
        let all = self.ends.ranks(set, self.reverse);
        // A negative offset skips everything, as in Redis.
        let skip = usize::try_from(self.offset).unwrap_or(usize::MAX).min(all.len());
        let take = usize::try_from(self.count).unwrap_or(usize::MAX).min(all.len() - skip);
        if self.reverse {
            all.end - skip - take..all.end - skip
        } else {
            all.start + skip..all.start + skip + take
        }
    }
}

fn zrange(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args, None, None)
}

fn zrevrange(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args, Some(By::Rank), Some(true))
}

fn zrangebyscore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args, Some(By::Score), Some(false))
}

fn zrevrangebyscore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args, Some(By::Score), Some(true))
}

fn zrangebylex(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args, Some(By::Member), Some(false))
}

fn zrevrangebylex(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args, Some(By::Member), Some(true))
}

fn show(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], by: Option<By>, reverse: Option<bool>) -> Result {
    let query = Query::parse(&args[2..], by, reverse, false)?;
    let Some(set) = ctx.db.sorted_set(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    let ranks = query.ranks(set);
    open_members(ctx.reply, ranks.len(), query.with_scores);
    let members = set.range(ranks);
    if query.reverse {
        members.rev().for_each(|pair| show_member(ctx.reply, pair, query.with_scores));
    } else {
        members.for_each(|pair| show_member(ctx.reply, pair, query.with_scores));
    }
    DONE
}

fn zrangestore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let query = Query::parse(&args[3..], None, None, true)?;
    let limits = ctx.limits;
    let mut result = value::SortedSet::new();
    if let Some(set) = ctx.db.sorted_set(args[2])? {
        let mut buf = IntText::new();
        for (member, score) in set.range(query.ranks(set)) {
            result.add(member.text(&mut buf), score, limits);
        }
    }
    store(ctx, args[1], result, event::ZRANGESTORE)
}

/// Puts a result under a key, or deletes the key for an empty one, and replies with its length.
pub(super) fn store(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], result: value::SortedSet, event: Event) -> Result {
    let len = result.len();
    ctx.store(key, (len > 0).then_some(Value::SortedSet(result)), event);
    ctx.reply.int(len as i64);
    DONE
}

fn zcount(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    count(ctx, args, By::Score)
}

fn zlexcount(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    count(ctx, args, By::Member)
}

fn count(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], by: By) -> Result {
    let ends = Ends::parse(by, args[2], args[3])?;
    let n = ctx.db.sorted_set(args[1])?.map_or(0, |set| ends.ranks(set, false).len());
    ctx.reply.int(n as i64);
    DONE
}

fn zremrangebyrank(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    remove(ctx, args, By::Rank)
}

fn zremrangebyscore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    remove(ctx, args, By::Score)
}

fn zremrangebylex(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    remove(ctx, args, By::Member)
}

fn remove(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], by: By) -> Result {
    let ends = Ends::parse(by, args[2], args[3])?;
    let Some(set) = ctx.db.sorted_set_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    let ranks = ends.ranks(set, false);
    let removed = set.remove_range(ranks);
    let empty = set.is_empty();
    if removed > 0 {
        let event = match by {
            By::Rank => event::ZREMRANGEBYRANK,
            By::Score => event::ZREMRANGEBYSCORE,
            By::Member => event::ZREMRANGEBYLEX,
        };
        ctx.remove_if_empty(args[1], empty, event);
        ctx.db.count_elements(removed);
    }
    ctx.reply.int(removed as i64);
    DONE
}
