//! The sorted set family: members and their scores. Ranges, pops and algebra are in files of their own.

use super::random;
use super::scan::{self, Scan};
use crate::base::num::{format_f64, parse_f64};
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::SortedSet, flags::*, key, one};
use crate::command::{CommandError, Result, bulk_item, is};
use crate::encoding::Item;
use crate::keyspace::event;
use crate::resp::Reply;
use crate::value::sorted_set::Added;
use crate::value::{self, Kind, Limits};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("zadd", -4, SortedSet, zadd)
        .complexity("O(log(N))")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .history(&[
            ("2.4.0", "Several members at once."),
            ("3.0.2", "The options `XX`, `NX`, `CH` and `INCR`."),
            ("6.2.0", "The options `GT` and `LT`."),
        ])
        .doc(
            "1.2.0",
            "key [condition@3.0.2=<NX | XX>] [comparison@6.2.0=<GT | LT>] \
             [change@3.0.2=CH] [increment@3.0.2=INCR] data=(score member) ...",
            "Gives members of a sorted set their scores, and creates the sorted set if there is none.",
        ),
    Command::new("zincrby", 4, SortedSet, zincrby)
        .complexity("O(log(N))")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc(
            "1.2.0",
            "key increment member",
            "Adds a number to the score of a member; a missing member counts as 0.",
        ),
    Command::new("zscore", 3, SortedSet, zscore)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("1.2.0", "key member", "Returns the score of a member."),
    Command::new("zmscore", -3, SortedSet, zmscore)
        .complexity("O(N)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("6.2.0", "key member ...", "Returns the scores of several members."),
    Command::new("zcard", 2, SortedSet, zcard)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("1.2.0", "key", "Returns the number of members of a sorted set."),
    Command::new("zrank", -3, SortedSet, zrank)
        .complexity("O(log(N))")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("7.2.0", "The option `WITHSCORE`.")])
        .doc("2.0.0", "key member [WITHSCORE]", "Returns the rank of a member, the lowest score first."),
    Command::new("zrevrank", -3, SortedSet, zrevrank)
        .complexity("O(log(N))")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("7.2.0", "The option `WITHSCORE`.")])
        .doc("2.0.0", "key member [WITHSCORE]", "Returns the rank of a member, the highest score first."),
    Command::new("zrem", -3, SortedSet, zrem)
        .complexity("O(M*log(N))")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::DELETE)])
        .history(&[("2.4.0", "Several members at once.")])
        .doc("1.2.0", "key member ...", "Removes members from a sorted set."),
    Command::new("zrandmember", -2, SortedSet, zrandmember)
        .complexity("O(N)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc("6.2.0", "key [options=(count [WITHSCORES])]", "Returns random members of a sorted set."),
    Command::new("zscan", -3, SortedSet, zscan)
        .complexity("O(1)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc(
            "2.8.0",
            "key cursor [MATCH pattern] [COUNT count]",
            "Goes through the members of a sorted set step by step.",
        ),
];

/// The options of ZADD.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Options {
    only_new: bool,
    only_existing: bool,
    only_greater: bool,
    only_less: bool,
    count_changes: bool,
    increment: bool,
}

/// What ZADD did to one member.
enum Outcome {
    /// The options forbade it.
    Kept,
    New(f64),
    Changed(f64),
    Same(f64),
}

/// A score argument.
pub(super) fn score(arg: &[u8]) -> Result<f64> {
    // A minus before zero is dropped: both zeros are one score.
    parse_f64(arg).map(|x| if x == 0.0 { 0.0 } else { x }).ok_or(CommandError::NotFloat)
}

/// The options stand in any order before the pairs, and the first word that is none of them ends them. NX
/// excludes XX, GT and LT, and GT excludes LT (page of ZADD).
pub(super) fn zadd(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let mut o = Options::default();
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let flag = match word.len() {
            2 if is(word, "nx") => &mut o.only_new,
            2 if is(word, "xx") => &mut o.only_existing,
            2 if is(word, "gt") => &mut o.only_greater,
            2 if is(word, "lt") => &mut o.only_less,
            2 if is(word, "ch") => &mut o.count_changes,
            4 if is(word, "incr") => &mut o.increment,
            _ => break,
        };
        *flag = true;
        at += 1;
    }
    let pairs = &args[at..];
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    if o.only_new && o.only_existing {
        return Err(CommandError::text("ERR XX and NX options at the same time are not compatible"));
    }
    if [o.only_greater, o.only_less, o.only_new].iter().filter(|on| **on).count() > 1 {
        return Err(CommandError::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if o.increment && pairs.len() > 2 {
        return Err(CommandError::text("ERR INCR option supports a single increment-element pair"));
    }
    // All scores are read before anything changes: one that is no number leaves the set as it was.
    let scores: smallvec::SmallVec<[f64; 4]> =
        pairs.iter().step_by(2).map(|text| score(text)).collect::<Result<_>>()?;
    if o.increment {
        return increment(ctx, args[1], pairs[1], scores[0], o);
    }
    if o.only_existing && !ctx.db.expect_kind(args[1], Kind::SortedSet)? {
        ctx.reply.int(0);
        return DONE;
    }
    let set = ctx.db.sorted_set_or_new(args[1])?;
    let (mut new, mut changed) = (0, 0);
    for (pair, score) in pairs.chunks_exact(2).zip(scores) {
        match put(set, pair[1], score, o, ctx.limits)? {
            Outcome::New(_) => new += 1,
            Outcome::Changed(_) => changed += 1,
            Outcome::Kept | Outcome::Same(_) => {}
        }
    }
    if new + changed > 0 {
        ctx.db.changed(args[1], event::ZADD);
        ctx.db.count_elements((new + changed) as usize);
    }
    ctx.reply.int(if o.count_changes { new + changed } else { new });
    DONE
}

fn zincrby(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let by = score(args[2])?;
    increment(ctx, args[1], args[3], by, Options { increment: true, ..Options::default() })
}

/// ZINCRBY and ZADD INCR: the new score, or null when an option forbade it (page of ZADD).
fn increment(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], member: &[u8], by: f64, o: Options) -> Result {
    let exists = ctx.db.expect_kind(key, Kind::SortedSet)?;
    if !exists && o.only_existing {
        ctx.reply.null();
        return DONE;
    }
    let set = ctx.db.sorted_set_or_new(key)?;
    match put(set, member, by, o, ctx.limits)? {
        Outcome::Kept => ctx.reply.null(),
        Outcome::Same(score) => ctx.reply.double(score),
        Outcome::New(score) | Outcome::Changed(score) => {
            ctx.db.changed(key, event::ZINCR);
            ctx.reply.double(score);
        }
    }
    DONE
}

/// Gives one member its score as far as the options allow.
#[inline]
fn put(
    set: &mut value::SortedSet,
    member: &[u8],
    score: f64,
    o: Options,
    limits: &Limits,
) -> Result<Outcome> {
    let plain = Options { count_changes: o.count_changes, ..Options::default() };
    let mut score = score;
    if o != plain {
        match set.score(member) {
            Some(_) if o.only_new => return Ok(Outcome::Kept),
            Some(old) => {
                if o.increment {
                    score += old;
                    if score.is_nan() {
                        return Err(CommandError::text("ERR resulting score is not a number (NaN)"));
                    }
                }
                if (o.only_greater && score <= old) || (o.only_less && score >= old) {
                    return Ok(Outcome::Kept);
                }
            }
            None if o.only_existing => return Ok(Outcome::Kept),
            None => {}
        }
    }
    Ok(match set.add(member, score, limits) {
        Added::New => Outcome::New(score),
        Added::Moved(_) => Outcome::Changed(score),
        Added::Same => Outcome::Same(score),
    })
}

fn zscore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match ctx.db.sorted_set(args[1])?.and_then(|s| s.score(args[2])) {
        Some(score) => ctx.reply.double(score),
        None => ctx.reply.null(),
    }
    DONE
}

fn zmscore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let set = ctx.db.sorted_set(args[1])?;
    ctx.reply.array(args.len() - 2);
    for member in &args[2..] {
        match set.and_then(|s| s.score(member)) {
            Some(score) => ctx.reply.double(score),
            None => ctx.reply.null(),
        }
    }
    DONE
}

fn zcard(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.db.sorted_set(args[1])?.map_or(0, value::SortedSet::len);
    ctx.reply.int(len as i64);
    DONE
}

fn zrank(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    rank(ctx, args, false)
}

fn zrevrank(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    rank(ctx, args, true)
}

fn rank(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], reverse: bool) -> Result {
    let with_score = match &args[3..] {
        [] => false,
        [word] if is(word, "withscore") => true,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(CommandError::Arity(ctx.command.name.to_owned())),
    };
    let set = ctx.db.sorted_set(args[1])?;
    let found = set.and_then(|s| s.rank(args[2]).map(|(rank, score)| (rank, score, s.len())));
    let Some((rank, score, len)) = found else {
        if with_score {
            ctx.reply.null_array();
        } else {
            ctx.reply.null();
        }
        return DONE;
    };
    let rank = if reverse { len - 1 - rank } else { rank };
    if with_score {
        ctx.reply.array(2);
    }
    ctx.reply.int(rank as i64);
    if with_score {
        ctx.reply.double(score);
    }
    DONE
}

fn zrem(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(set) = ctx.db.sorted_set_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    let removed = args[2..].iter().filter(|member| set.remove(member).is_some()).count();
    let empty = set.is_empty();
    ctx.reply_removed(args[1], removed, empty, event::ZREM)
}

/// The array around `n` members, with their scores or without: in RESP3 each pair is an array of its own.
pub(super) fn open_members(reply: &mut Reply, n: usize, with_scores: bool) {
    reply.array(if with_scores && !reply.is_resp3() { 2 * n } else { n });
}

/// One member inside of [`open_members`].
pub(super) fn show_member(reply: &mut Reply, (member, score): (Item<'_>, f64), with_scores: bool) {
    if with_scores && reply.is_resp3() {
        reply.array(2);
    }
    bulk_item(reply, member);
    if with_scores {
        reply.double(score);
    }
}

fn zrandmember(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = args.get(2).map(|count| random::count(count)).transpose()?;
    let with_scores = match args.get(3..).unwrap_or_default() {
        [] => false,
        [word] if is(word, "withscores") => true,
        _ => return Err(CommandError::Syntax),
    };
    random::pairs_count(count, with_scores)?;
    let Some(set) = ctx.db.sorted_set(args[1])? else {
        random::reply_nothing(ctx.reply, count);
        return DONE;
    };
    let Some(count) = count else {
        if let Some((member, _)) = set.random(ctx.rng) {
            bulk_item(ctx.reply, member);
        }
        return DONE;
    };
    random::reply_elements(
        ctx.reply,
        ctx.rng,
        count,
        set.len(),
        |reply, n| open_members(reply, n, with_scores),
        |rng| set.random(rng),
        || set.iter(),
        |reply, pair| show_member(reply, pair, with_scores),
    );
    DONE
}

fn zscan(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let cursor = scan::cursor(args[2])?;
    let Some(set) = ctx.db.sorted_set(args[1])? else { return scan::reply_nothing(ctx.reply) };
    let scan = Scan::parse(cursor, &args[3..], scan::Of::Members)?;
    let mut found = Vec::new();
    let next = scan.steps(|cursor, count| {
        set.scan(cursor, count, |member, score| {
            if scan.matches(member) {
                found.push(member.to_vec());
                found.push(format_f64(score).into_bytes());
            }
        })
    });
    Scan::reply(ctx.reply, next, &found)
}
