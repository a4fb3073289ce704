//! Reading streams: ranges of entries, and what has come since an id, for which clients may wait.

use std::time::Duration;

use super::stream_groups::{GroupRead, read_group};
use super::streams::{bulk_id, id, id_text};
use crate::base::time::UnixMs;
use crate::command::ctx::{Block, Collections, Ctx, DONE, Outcome, TimeoutReply};
use crate::command::spec::{Command, Group::Stream, Keyword, behind, flags::*, key, one};
use crate::command::{CommandError, Result, bulk_item, int, is, timeout_ms, up_to_nul};
use crate::resp::Reply;
use crate::value::stream::Entry;
use crate::value::{self, StreamId};

const STREAMS: Keyword =
    Keyword { word: "streams", told_from: 1, from: 1, options: &[("group", 2), ("count", 1), ("block", 1)] };

pub(super) const COMMANDS: &[Command] = &[
    Command::new("xrange", -4, Stream, xrange).flags(READONLY).keys(&[one(1, key::RO | key::ACCESS)]).complexity("O(N)").history(&[("6.2.0", "Exclusive ends of ranges.")])
        .doc("5.0.0", "key start:string end:string [COUNT count]", "Returns the entries between two ids."),
    Command::new("xrevrange", -4, Stream, xrevrange).flags(READONLY).keys(&[one(1, key::RO | key::ACCESS)]).complexity("O(N)").history(&[("6.2.0", "Exclusive ends of ranges.")])
        .doc("5.0.0", "key end:string start:string [COUNT count]", "Returns the entries between two ids, the newest first."),
    Command::new("xread", -4, Stream, xread).flags(READONLY | BLOCKING | MOVABLE_KEYS).keys(&[behind(STREAMS, 2, key::RO | key::ACCESS)]).doc("5.0.0", "[COUNT count] [BLOCK milliseconds] STREAMS (key ... id ...)", "Returns the entries of several streams behind given ids, and waits for some if asked to."),
    Command::new("xreadgroup", -7, Stream, xreadgroup).flags(WRITE | BLOCKING | MOVABLE_KEYS | WAITS_FOR_LOSS).keys(&[behind(Keyword { told_from: 4, ..STREAMS }, 2, key::RO | key::ACCESS)]).doc("5.0.0", "GROUP group-block=(group consumer) [COUNT count] [BLOCK milliseconds] \
             [NOACK] STREAMS (key ... id ...)", "Returns entries that a group has not been given yet, or those that one consumer has not acknowledged."),
];

/// An entry: its id and its fields with their values.
pub(super) fn show_entry(reply: &mut Reply, entry: &Entry<'_>) {
    reply.array(2);
    bulk_id(reply, entry.id);
    let fields = entry.fields.clone();
    reply.array(2 * fields.len());
    for (field, value) in fields {
        bulk_item(reply, field);
        bulk_item(reply, value);
    }
}

/// Entries of which the number is known only when all are written.
pub(super) fn show_entries<'a>(reply: &mut Reply, entries: impl Iterator<Item = Entry<'a>> + Clone) {
    reply.array(entries.clone().count());
    entries.for_each(|entry| show_entry(reply, &entry));
}

fn xrange(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show_range(ctx, args, args[2], args[3], false)
}

fn xrevrange(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show_range(ctx, args, args[3], args[2], true)
}

fn show_range(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], start: &[u8], end: &[u8], reverse: bool) -> Result {
    let (start, end) = (range_start(start)?, range_end(end)?);
    let mut count = None;
    for pair in args[4..].chunks(2) {
        match pair {
            [word, n] if is(word, "count") => count = Some(usize::try_from(int(n)?).unwrap_or(0)),
            _ => return Err(CommandError::Syntax),
        }
    }
    let Some(stream) = ctx.db.stream(args[1])? else {
        ctx.reply.array(0);
        return DONE;
    };
    // Null for a count of 0 of a stream that exists, an empty array for one that does not: so does Redis.
    if count == Some(0) {
        ctx.reply.null_array();
        return DONE;
    }
    let (entries, count) = (stream.range(start, end), count.unwrap_or(usize::MAX));
    if reverse {
        show_entries(ctx.reply, entries.rev().take(count));
    } else {
        show_entries(ctx.reply, entries.take(count));
    }
    DONE
}

/// `-`, `+`, an id, or one behind `(` that is not in the range itself.
pub(super) fn range_start(arg: &[u8]) -> Result<StreamId> {
    match up_to_nul(arg) {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        [b'(', rest @ ..] if !rest.is_empty() => {
            id(rest, 0)?.next().ok_or(CommandError::text("ERR invalid start ID for the interval"))
        }
        _ => id(arg, 0),
    }
}

/// As [`range_start`]; an id without its second part means the last of its millisecond (page of XRANGE).
pub(super) fn range_end(arg: &[u8]) -> Result<StreamId> {
    match up_to_nul(arg) {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        [b'(', rest @ ..] if !rest.is_empty() => {
            id(rest, u64::MAX)?.previous().ok_or(CommandError::text("ERR invalid end ID for the interval"))
        }
        _ => id(arg, u64::MAX),
    }
}

/// The arguments of XREAD and XREADGROUP.
struct Read<'a> {
    count: usize,
    /// Waits when there is nothing, for `timeout` or for ever.
    blocks: bool,
    timeout: Option<Duration>,
    group: Option<GroupRead<'a>>,
    /// Where the keys begin; as many ids follow them.
    first_key: usize,
    streams: usize,
}

impl<'a> Read<'a> {
    fn parse(args: &[&'a [u8]], of_group: bool, now: UnixMs) -> Result<Self> {
        let mut read =
            Self { count: usize::MAX, blocks: false, timeout: None, group: None, first_key: 0, streams: 0 };
        let mut no_ack = false;
        let mut at = 1;
        while let Some(&word) = args.get(at) {
            let more = args.len() - 1 - at;
            if more > 0 && is(word, "block") {
                read.blocks = true;
                read.timeout = timeout_ms(args[at + 1], now)?;
                at += 2;
            } else if more > 0 && is(word, "count") {
                read.count = match int(args[at + 1])? {
                    n @ 1.. => n as usize,
                    _ => usize::MAX,
                };
                at += 2;
            } else if more > 0 && is(word, "streams") {
                if !more.is_multiple_of(2) {
                    let (name, new) = if of_group { ("xreadgroup", '>') } else { ("xread", '$') };
                    return Err(CommandError::owned(format!(
                        "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{new}' must be specified."
                    )));
                }
                (read.first_key, read.streams) = (at + 1, more / 2);
                break;
            } else if more > 1 && is(word, "group") {
                if !of_group {
                    return Err(CommandError::text(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                read.group = Some(GroupRead { group: args[at + 1], consumer: args[at + 2], no_ack: false });
                at += 3;
            } else if is(word, "noack") {
                if !of_group {
                    return Err(CommandError::text(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                no_ack = true;
                at += 1;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if read.streams == 0 {
            return Err(CommandError::Syntax);
        }
        if of_group && read.group.is_none() {
            return Err(CommandError::text("ERR Missing GROUP option for XREADGROUP"));
        }
        read.group = read.group.map(|group| GroupRead { no_ack, ..group });
        Ok(read)
    }

    /// Each key with the argument that says from where to read.
    fn pairs<'b>(&self, args: &'b [&'a [u8]]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a, 'b> {
        let keys = &args[self.first_key..self.first_key + self.streams];
        keys.iter().copied().zip(args[self.first_key + self.streams..].iter().copied())
    }

    /// Waits with the ids that are known now in place of those that mean "from now on".
    fn wait(&self, ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], ids: Option<&[StreamId]>) -> Result {
        if !self.blocks || !ctx.may_block {
            ctx.reply.null_array();
            return DONE;
        }
        let mut argv: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
        let places = &mut argv[self.first_key + self.streams..];
        for (place, id) in places.iter_mut().zip(ids.unwrap_or_default()) {
            *place = id_text(*id).to_vec();
        }
        let keys: Vec<usize> = (self.first_key..self.first_key + self.streams).collect();
        let alone = |&at: &usize| {
            let pair = [argv[at].clone(), argv[at + self.streams].clone()];
            [&argv[..self.first_key], &pair].concat()
        };
        let alone = if keys.len() > 1 { keys.iter().map(alone).collect() } else { Vec::new() };
        let timeout_reply = TimeoutReply::NullArray;
        let block = Block {
            keys,
            timeout: self.timeout,
            timeout_reply,
            argv: Some(argv),
            alone,
            for_loss: self.group.is_some(),
        };
        Ok(Outcome::Block(Box::new(block)))
    }
}

fn xread(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let read = Read::parse(args, false, ctx.db.now)?;
    let mut after = Vec::with_capacity(read.streams);
    for (key, from) in read.pairs(args) {
        let stream = ctx.db.stream(key)?;
        after.push(match from {
            b"$" => stream.map_or(StreamId::MIN, value::Stream::last_id),
            // The last entry itself (7.4); if it was deleted, what comes after it.
            b"+" => stream.and_then(|s| s.last_id().previous()).unwrap_or(StreamId::MIN),
            b">" => {
                return Err(CommandError::text(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            _ => id(from, 0)?,
        });
    }
    let mut found = Reply::new();
    found.set_resp3(ctx.reply.is_resp3());
    let mut streams = 0;
    for ((key, _), after) in read.pairs(args).zip(&after) {
        let (Some(stream), Some(start)) = (ctx.db.stream(key)?, after.next()) else { continue };
        let entries = stream.range(start, StreamId::MAX);
        if entries.clone().next().is_some() {
            open_stream(&mut found, key);
            show_entries(&mut found, entries.take(read.count));
            streams += 1;
        }
    }
    if streams == 0 {
        return read.wait(ctx, args, Some(&after));
    }
    close_streams(ctx.reply, streams, found);
    DONE
}

/// A stream's name in front of its entries: a pair in RESP2, a key of a map in RESP3.
pub(super) fn open_stream(reply: &mut Reply, key: &[u8]) {
    if !reply.is_resp3() {
        reply.array(2);
    }
    reply.bulk(key);
}

fn close_streams(reply: &mut Reply, streams: usize, found: Reply) {
    if reply.is_resp3() {
        reply.map(streams);
    } else {
        reply.array(streams);
    }
    reply.append(found);
}

fn xreadgroup(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let read = Read::parse(args, true, ctx.db.now)?;
    let Some(group) = read.group else { return Err(CommandError::Syntax) };
    let mut from = Vec::with_capacity(read.streams);
    for (key, text) in read.pairs(args) {
        group.check(ctx, key)?;
        from.push(match text {
            b"$" => {
                return Err(CommandError::text(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
                ));
            }
            b"+" => {
                return Err(CommandError::text(
                    "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The + ID would just return an empty result set.",
                ));
            }
            b">" => None,
            // The greatest id is how Redis writes `>` down, so that it means the same.
            _ => Some(id(text, 0)?).filter(|id| *id != StreamId::MAX),
        });
    }
    let mut found = Reply::new();
    found.set_resp3(ctx.reply.is_resp3());
    let mut streams = 0;
    // Redis looks each up again to read it.
    ctx.db.effects.hits += read.streams as u64;
    for ((key, _), from) in read.pairs(args).zip(from) {
        if read_group(ctx, &mut found, key, &group, from, read.count)? {
            streams += 1;
        }
    }
    if streams == 0 {
        return read.wait(ctx, args, None);
    }
    close_streams(ctx.reply, streams, found);
    DONE
}
