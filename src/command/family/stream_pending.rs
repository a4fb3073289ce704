//! What a group has given and not got back: XPENDING tells of it, XCLAIM and XAUTOCLAIM give it to
//! another consumer. Replicas are sent an XCLAIM for each entry that changes hands or goes.

use std::ops::RangeInclusive;

use super::stream_groups::Told;
use super::stream_reads::{range_end, range_start, show_entry};
use super::streams::{bulk_id, id};
use crate::base::num::parse_i64;
use crate::base::time::UnixMs;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::Stream, flags::*, key, one};
use crate::command::{CommandError, Result, int, is, shown};
use crate::keyspace::event;
use crate::resp::Reply;
use crate::value::stream::{ConsumerId, Group, Pending};
use crate::value::{self, StreamId};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("xpending", -3, Stream, xpending)
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .complexity("O(N)")
        .history(&[("6.2.0", "`IDLE` and ranges without its ends.")])
        .doc(
            "5.0.0",
            "key group [filters=([IDLE min-idle-time:integer@6.2.0] start:string end:string count [consumer])]",
            "Tells what a group has been given and not acknowledged.",
        ),
    Command::new("xclaim", -6, Stream, xclaim)
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .tips(&["nondeterministic_output"])
        .complexity("O(log N)")
        .doc(
            "5.0.0",
            "key group consumer min-idle-time id ... [IDLE ms:integer] [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
            "Gives a consumer entries that others have not acknowledged.",
        ),
    Command::new("xautoclaim", -6, Stream, xautoclaim)
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::DELETE)])
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .history(&[("7.0.0", "The list of entries that are gone.")])
        .doc(
            "6.2.0",
            "key group consumer min-idle-time start:string [COUNT count] [JUSTID]",
            "Gives a consumer entries that others have kept unacknowledged for a time.",
        ),
];

fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (shown(key), shown(group));
    CommandError::owned(format!("NOGROUP No such key '{key}' or consumer group '{group}'"))
}

/// What stands behind the group in XPENDING.
struct Filter<'a> {
    /// Milliseconds since the last delivery, at least.
    idle: i64,
    ids: RangeInclusive<StreamId>,
    count: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    fn parse(words: &[&'a [u8]]) -> Result<Self> {
        if !(3..=6).contains(&words.len()) {
            return Err(CommandError::Syntax);
        }
        let (idle, words) = if is(words[0], "idle") {
            let idle = int(words[1])?;
            if words.len() < 5 {
                return Err(CommandError::Syntax);
            }
            (idle, &words[2..])
        } else {
            (0, words)
        };
        let count = usize::try_from(int(words[2])?).unwrap_or(0);
        let ids = range_start(words[0])?..=range_end(words[1])?;
        Ok(Self { idle, ids, count, consumer: words.get(3).copied() })
    }

    fn admits(&self, pending: &Pending, now: UnixMs) -> bool {
        self.idle <= 0 || now.saturating_sub(pending.delivered_ms) >= self.idle
    }
}

fn xpending(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let filter = if args.len() == 3 { None } else { Some(Filter::parse(&args[3..])?) };
    let now = ctx.db.now;
    let stream = ctx.db.stream(args[1])?;
    let group = stream.and_then(|s| s.groups.get(args[2])).ok_or_else(|| no_group(args[1], args[2]))?;
    match filter {
        None => summary(ctx.reply, group),
        Some(filter) => list(ctx.reply, group, &filter, now),
    }
    DONE
}

/// How many entries are pending, between which ids, and how many of each consumer.
fn summary(reply: &mut Reply, group: &Group) {
    reply.array(4);
    reply.int(group.pending().len() as i64);
    let (Some((first, _)), Some((last, _))) =
        (group.pending().first_key_value(), group.pending().last_key_value())
    else {
        reply.null();
        reply.null();
        return reply.null_array();
    };
    bulk_id(reply, *first);
    bulk_id(reply, *last);
    let busy: Vec<_> = group.consumers().filter(|(_, consumer)| !consumer.pending().is_empty()).collect();
    reply.array(busy.len());
    for (_, consumer) in busy {
        reply.array(2);
        reply.bulk(&consumer.name);
        reply.bulk_int(consumer.pending().len() as i64);
    }
}

fn list(reply: &mut Reply, group: &Group, filter: &Filter<'_>, now: UnixMs) {
    // A map panics when it is asked for a range that ends before it begins.
    let mut found: Vec<(StreamId, &Pending)> = Vec::new();
    if filter.ids.start() <= filter.ids.end() {
        let all = group.pending().range(filter.ids.clone()).map(|(id, pending)| (*id, pending));
        let admitted = |(_, pending): &(StreamId, &Pending)| filter.admits(pending, now);
        match filter.consumer {
            None => found.extend(all.filter(admitted).take(filter.count)),
            Some(name) => {
                let own = group.find_consumer(name).map(|id| group.consumer(id).pending());
                let own = own.into_iter().flat_map(|ids| ids.range(filter.ids.clone()));
                let own = own.filter_map(|id| Some((*id, group.pending().get(id)?)));
                found.extend(own.filter(admitted).take(filter.count));
            }
        }
    }
    reply.array(found.len());
    for (id, pending) in found {
        reply.array(4);
        bulk_id(reply, id);
        reply.bulk(&group.consumer(pending.consumer).name);
        reply.int(now.saturating_sub(pending.delivered_ms).max(0));
        reply.int(pending.deliveries as i64);
    }
}

/// What XCLAIM and XAUTOCLAIM do to an entry that changes hands.
struct Claim {
    consumer: ConsumerId,
    /// Only what was given at least as many milliseconds ago is taken.
    min_idle: i64,
    delivered_ms: UnixMs,
    /// Sets the count of deliveries.
    deliveries: Option<u64>,
    /// The ids alone are wanted, which is no delivery.
    just_id: bool,
}

impl Claim {
    fn is_old_enough(&self, pending: &Pending, now: UnixMs) -> bool {
        self.min_idle == 0 || now.saturating_sub(pending.delivered_ms) >= self.min_idle
    }

    /// Gives the entry to the consumer.
    fn take(&self, group: &mut Group, id: StreamId, old: Option<Pending>, now: UnixMs) -> Pending {
        let before = old.map_or(1, |pending| pending.deliveries);
        let counted = if self.just_id { before } else { before.saturating_add(1) };
        let deliveries = self.deliveries.unwrap_or(counted);
        let pending = Pending { consumer: self.consumer, delivered_ms: self.delivered_ms, deliveries };
        group.assign(id, pending);
        group.consumer_mut(self.consumer).active_ms = Some(now);
        pending
    }
}

/// The stream, and the consumer of its group, which is made if it is not there; true if it was made.
fn claimant<'a>(
    ctx: &'a mut Ctx<'_, '_, '_>,
    args: &[&[u8]],
) -> Result<(&'a mut value::Stream, ConsumerId, bool)> {
    let now = ctx.db.now;
    let stream = ctx.db.stream_mut(args[1])?.ok_or_else(|| no_group(args[1], args[2]))?;
    let group = stream.groups.get_mut(args[2]).ok_or_else(|| no_group(args[1], args[2]))?;
    let known = group.find_consumer(args[3]);
    let consumer = known.or_else(|| group.add_consumer(args[3], now));
    let consumer = consumer.ok_or_else(|| no_group(args[1], args[2]))?;
    group.consumer_mut(consumer).seen_ms = now;
    Ok((stream, consumer, known.is_none()))
}

/// The end of both commands, which made `changes` to the group: who is told what.
fn finish(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], made: bool, changes: usize, mut told: Told) {
    if made {
        ctx.db.changed(args[1], event::XGROUP_CREATECONSUMER);
        // Redis does not tell replicas of a consumer that got nothing, and they lack it.
        if told.is_empty() {
            told.consumer(args[1], args[2], args[3]);
        }
    }
    if changes > 0 {
        ctx.db.changed(args[1], event::PENDING);
        ctx.db.count_elements(changes);
    }
    told.record(ctx);
}

/// The options of XCLAIM.
#[derive(Default)]
struct Options {
    delivered_ms: Option<UnixMs>,
    deliveries: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: Option<StreamId>,
}

impl Options {
    fn parse(words: &[&[u8]], now: UnixMs) -> Result<Self> {
        let mut o = Self::default();
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let number =
                |value: Option<&&[u8]>, wrong| Some(parse_i64(value?).ok_or(CommandError::text(wrong)));
            if is(word, "force") {
                o.force = true;
            } else if is(word, "justid") {
                o.just_id = true;
            } else if is(word, "idle")
                && let Some(n) = number(words.next(), "ERR Invalid IDLE option argument for XCLAIM")
            {
                o.delivered_ms = Some(now.saturating_sub(n?));
            } else if is(word, "time")
                && let Some(n) = number(words.next(), "ERR Invalid TIME option argument for XCLAIM")
            {
                o.delivered_ms = Some(n?);
            } else if is(word, "retrycount")
                && let Some(n) = number(words.next(), "ERR Invalid RETRYCOUNT option argument for XCLAIM")
            {
                o.deliveries = u64::try_from(n?).ok();
            } else if is(word, "lastid")
                && let Some(text) = words.next()
            {
                o.last_id = Some(id(text, 0)?);
            } else {
                let word = shown(word);
                return Err(CommandError::owned(format!("ERR Unrecognized XCLAIM option '{word}'")));
            }
        }
        // A time in the future or before 1970 counts as now: the client's clock may be wrong.
        o.delivered_ms = o.delivered_ms.filter(|at| (0..=now).contains(at));
        Ok(o)
    }
}

fn min_idle(arg: &[u8], wrong: &'static str) -> Result<i64> {
    Ok(parse_i64(arg).ok_or(CommandError::text(wrong))?.max(0))
}

fn xclaim(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (key, name) = (args[1], args[2]);
    if !ctx.db.stream(key)?.is_some_and(|s| s.groups.contains_key(name)) {
        return Err(no_group(key, name));
    }
    let now = ctx.db.now;
    let min_idle = min_idle(args[4], "ERR Invalid min-idle-time argument for XCLAIM")?;
    let ids: Vec<StreamId> = args[5..].iter().map_while(|arg| id(arg, 0).ok()).collect();
    let o = Options::parse(&args[5 + ids.len()..], now)?;
    let mut told = Told::new(ctx.db.effects.log_wanted);
    let mut claimed = Reply::new();
    claimed.set_resp3(ctx.reply.is_resp3());
    let (stream, consumer, made) = claimant(ctx, args)?;
    let delivered_ms = o.delivered_ms.unwrap_or(now);
    let claim = Claim { consumer, min_idle, delivered_ms, deliveries: o.deliveries, just_id: o.just_id };
    let (mut taken, mut changes, mut moved_on) = (0, 0, false);
    // The entries are read while the group changes.
    let mut groups = std::mem::take(&mut stream.groups);
    let group = groups.get_mut(name).expect("the claimant's group");
    if let Some(last) = o.last_id.filter(|last| *last > group.last_id) {
        group.last_id = last;
        moved_on = true;
    }
    for id in ids {
        let old = group.pending().get(&id).copied();
        let entry = stream.range(id, id).next();
        match (entry, old) {
            // It is in the stream no more.
            (None, Some(old)) => {
                told.claim(key, name, group, id, &old, group.last_id);
                group.acknowledge(id);
            }
            (Some(entry), old) if old.map_or(o.force, |pending| claim.is_old_enough(&pending, now)) => {
                let pending = claim.take(group, id, old, now);
                told.claim(key, name, group, id, &pending, group.last_id);
                taken += 1;
                if o.just_id {
                    bulk_id(&mut claimed, id);
                } else {
                    show_entry(&mut claimed, &entry);
                }
            }
            _ => continue,
        }
        changes += 1;
    }
    if moved_on && changes == 0 {
        told.place(key, name, group);
        changes = 1;
    }
    stream.groups = groups;
    ctx.reply.array(taken);
    ctx.reply.append(claimed);
    finish(ctx, args, made, changes, told);
    DONE
}

/// Entries that XAUTOCLAIM looks at for each one that it may claim.
const LOOKED_AT: usize = 10;

fn xautoclaim(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (key, name) = (args[1], args[2]);
    let min_idle = min_idle(args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
    let start = range_start(args[5])?;
    let (mut count, mut just_id) = (100, false);
    let mut words = args[6..].iter();
    while let Some(&word) = words.next() {
        if is(word, "justid") {
            just_id = true;
        } else if is(word, "count")
            && let Some(n) = words.next()
        {
            let wrong = || CommandError::text("ERR COUNT must be > 0");
            let n = parse_i64(n).and_then(|n| usize::try_from(n).ok());
            count = n.filter(|n| (1..=MOST).contains(n)).ok_or_else(wrong)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let now = ctx.db.now;
    let mut told = Told::new(ctx.db.effects.log_wanted);
    // Counts as a look-up, and is one use with what follows.
    ctx.db.glance(key);
    let (mut claimed, mut gone) = (Reply::new(), Vec::new());
    claimed.set_resp3(ctx.reply.is_resp3());
    let (stream, consumer, made) = claimant(ctx, args)?;
    let claim = Claim { consumer, min_idle, delivered_ms: now, deliveries: None, just_id };
    let mut groups = std::mem::take(&mut stream.groups);
    let group = groups.get_mut(name).expect("the claimant's group");
    let mut taken = 0;
    let (mut next, mut looked_at) = (Some(start), 0);
    let end = loop {
        let from = next.map(|next| group.pending().range(next..).next());
        let Some((&id, &pending)) = from.flatten() else { break StreamId::MIN };
        if looked_at == count.saturating_mul(LOOKED_AT) || taken + gone.len() == count {
            break id;
        }
        looked_at += 1;
        next = id.next();
        let Some(entry) = stream.range(id, id).next() else {
            told.claim(key, name, group, id, &pending, group.last_id);
            group.acknowledge(id);
            gone.push(id);
            continue;
        };
        if claim.is_old_enough(&pending, now) {
            let pending = claim.take(group, id, Some(pending), now);
            told.claim(key, name, group, id, &pending, group.last_id);
            taken += 1;
            if just_id {
                bulk_id(&mut claimed, id);
            } else {
                show_entry(&mut claimed, &entry);
            }
        }
    };
    stream.groups = groups;
    let reply = &mut *ctx.reply;
    reply.array(3);
    bulk_id(reply, end);
    reply.array(taken);
    reply.append(claimed);
    reply.array(gone.len());
    for id in &gone {
        bulk_id(reply, *id);
    }
    finish(ctx, args, made, taken + gone.len(), told);
    DONE
}

/// The greatest COUNT of XAUTOCLAIM: more ids than that fill the memory.
const MOST: usize = i64::MAX as usize / 16;
