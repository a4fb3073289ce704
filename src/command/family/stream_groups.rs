//! Consumer groups: who is given which entry, and what is acknowledged.

use super::stream_reads::{open_stream, show_entries, show_entry};
use super::streams::{bulk_id, id, id_text};
use crate::base::time::UnixMs;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::Stream, flags::*, key, one};
use crate::command::{CommandError, Result, int, is, shown, wrong_arguments};
use crate::keyspace::event;
use crate::resp::Reply;
use crate::value::stream::{Group, Pending};
use crate::value::{self, StreamId, ValueRef};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("xack", -4, Stream, xack)
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .complexity("O(1)")
        .doc(
            "5.0.0",
            "key group id ...",
            "Takes entries out of the ones that a group has been given and not acknowledged.",
        ),
    Command::container("xgroup", Stream, SUBCOMMANDS).doc("5.0.0", "", "Manages consumer groups."),
];

const SUBCOMMANDS: &[Command] = &[
    Command::new("create", -5, Stream, create)
        .flags(WRITE | DENYOOM)
        .keys(&[one(2, key::RW | key::INSERT)])
        .complexity("O(1)")
        .history(&[("7.0.0", "The option `ENTRIESREAD`.")])
        .doc(
            "5.0.0",
            "key group id-selector=<id | new-id=$> [MKSTREAM] [ENTRIESREAD \
             entriesread~entries-read]",
            "Creates a consumer group.",
        ),
    Command::new("createconsumer", 5, Stream, createconsumer)
        .flags(WRITE | DENYOOM)
        .keys(&[one(2, key::RW | key::INSERT)])
        .complexity("O(1)")
        .doc("6.2.0", "key group consumer", "Creates a consumer of a group."),
    Command::new("delconsumer", 5, Stream, delconsumer)
        .flags(WRITE)
        .keys(&[one(2, key::RW | key::DELETE)])
        .complexity("O(1)")
        .doc("5.0.0", "key group consumer", "Removes a consumer from a group."),
    Command::new("destroy", 4, Stream, destroy)
        .flags(WRITE)
        .keys(&[one(2, key::RW | key::DELETE)])
        .complexity("O(N)")
        .doc("5.0.0", "key group", "Removes a consumer group."),
    Command::new("help", 2, Stream, help).flags(LOADING | STALE).complexity("O(1)").doc(
        "5.0.0",
        "",
        "Returns what the subcommands do.",
    ),
    Command::new("setid", -5, Stream, setid)
        .flags(WRITE)
        .keys(&[one(2, key::RW | key::UPDATE)])
        .complexity("O(1)")
        .history(&[("7.0.0", "The option `ENTRIESREAD`.")])
        .doc(
            "5.0.0",
            "key group id-selector=<id | new-id=$> [ENTRIESREAD entriesread~entries-read]",
            "Sets the last entry that a group has been given.",
        ),
];

/// The group and the consumer that XREADGROUP names.
#[derive(Clone, Copy)]
pub(super) struct GroupRead<'a> {
    pub(super) group: &'a [u8],
    pub(super) consumer: &'a [u8],
    /// What is given counts as acknowledged.
    pub(super) no_ack: bool,
}

impl GroupRead<'_> {
    /// Refuses a key without the group.
    pub(super) fn check(&self, ctx: &mut Ctx<'_, '_, '_>, key: &[u8]) -> Result<()> {
        match ctx.db.stream(key)?.and_then(|s| s.groups.get(self.group)) {
            Some(_) => Ok(()),
            None => Err(CommandError::owned(format!(
                "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option",
                shown(key),
                shown(self.group)
            ))),
        }
    }
}

/// Writes what a consumer gets of one stream: new entries, or with `from` those behind it that it has not
/// acknowledged. False, with nothing written, when there is nothing new.
pub(super) fn read_group(
    ctx: &mut Ctx<'_, '_, '_>,
    found: &mut Reply,
    key: &[u8],
    read: &GroupRead<'_>,
    from: Option<StreamId>,
    count: usize,
) -> Result<bool> {
    let now = ctx.db.now;
    let mut told = Told::new(ctx.db.effects.log_wanted);
    let Some(stream) = ctx.db.stream_mut(key)? else { return Ok(false) };
    let Some(group) = stream.groups.get_mut(read.group) else { return Ok(false) };
    let known = group.find_consumer(read.consumer);
    let consumer = known.or_else(|| group.add_consumer(read.consumer, now));
    let Some(consumer) = consumer else { return Ok(false) };
    group.consumer_mut(consumer).seen_ms = now;
    let after = from.unwrap_or(group.last_id);
    if from.is_some() {
        let pending = group.consumer(consumer).pending();
        let start = after.next().unwrap_or(StreamId::MAX);
        let ids: Vec<StreamId> = pending.range(start..).take(count).copied().collect();
        deliver_again(stream, read.group, &ids, now);
        open_stream(found, key);
        show_pending(found, stream, &ids);
    }
    let start = if from.is_some() { None } else { after.next() };
    let ids: Vec<StreamId> = start
        .map(|start| stream.range(start, StreamId::MAX).take(count).map(|entry| entry.id).collect())
        .unwrap_or_default();
    if let (Some(&first), Some(&last)) = (ids.first(), ids.last()) {
        open_stream(found, key);
        show_entries(found, stream.range(first, last));
        give(stream, read, &ids, now);
    }
    let group = &stream.groups[read.group];
    if known.is_none() && (read.no_ack || ids.is_empty()) {
        told.consumer(key, read.group, read.consumer);
    }
    if !read.no_ack {
        let pending = Pending { consumer, delivered_ms: now, deliveries: 1 };
        for id in &ids {
            told.claim(key, read.group, group, *id, &pending, *id);
        }
    }
    // XCLAIM does not tell how many entries the group has read.
    if !ids.is_empty() {
        told.place(key, read.group, group);
    }
    if known.is_none() {
        ctx.db.changed(key, event::XGROUP_CREATECONSUMER);
    }
    if !ids.is_empty() {
        ctx.db.changed(key, event::PENDING);
    }
    if from.is_some() {
        // Redis counts it as a change, although replicas are not told of it.
        ctx.db.count_change();
    }
    told.record(ctx);
    Ok(from.is_some() || !ids.is_empty())
}

/// Writes pending entries; those that the stream has no more are shown without fields.
fn show_pending(found: &mut Reply, stream: &value::Stream, ids: &[StreamId]) {
    found.array(ids.len());
    for id in ids {
        match stream.range(*id, *id).next() {
            Some(entry) => show_entry(found, &entry),
            None => {
                found.array(2);
                bulk_id(found, *id);
                found.null_array();
            }
        }
    }
}

/// Counts a further delivery of those of a group's pending entries that are in the stream.
fn deliver_again(stream: &mut value::Stream, group: &[u8], ids: &[StreamId], now: UnixMs) {
    let present: Vec<StreamId> = ids.iter().copied().filter(|id| stream.contains(*id)).collect();
    let Some(group) = stream.groups.get_mut(group) else { return };
    for id in present {
        if let Some(entry) = group.pending().get(&id).copied() {
            let deliveries = entry.deliveries.saturating_add(1);
            group.assign(id, Pending { delivered_ms: now, deliveries, ..entry });
        }
    }
}

/// What replicas are told of a group in place of the command that read or claimed from it: it would read
/// something else there, and its time would be another.
pub(super) struct Told(Option<Vec<Vec<Vec<u8>>>>);

impl Told {
    pub(super) fn new(wanted: bool) -> Self {
        Self(wanted.then(Vec::new))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(Vec::is_empty)
    }

    fn add(&mut self, words: &[&[u8]]) {
        if let Some(records) = &mut self.0 {
            records.push(words.iter().map(|word| word.to_vec()).collect());
        }
    }

    /// A consumer is there.
    pub(super) fn consumer(&mut self, key: &[u8], group: &[u8], consumer: &[u8]) {
        self.add(&[b"XGROUP", b"CREATECONSUMER", key, group, consumer]);
    }

    /// An entry is a consumer's, or if it is no more in the stream, nobody's.
    pub(super) fn claim(
        &mut self,
        key: &[u8],
        name: &[u8],
        group: &Group,
        id: StreamId,
        pending: &Pending,
        last_id: StreamId,
    ) {
        if self.0.is_none() {
            return;
        }
        let consumer = &group.consumer(pending.consumer).name;
        let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.add(&[
            b"XCLAIM",
            key,
            name,
            consumer,
            b"0",
            &id_text(id),
            b"TIME",
            time.format(pending.delivered_ms).as_bytes(),
            b"RETRYCOUNT",
            count.format(pending.deliveries).as_bytes(),
            b"FORCE",
            b"JUSTID",
            b"LASTID",
            &id_text(last_id),
        ]);
    }

    /// The group's place in the stream.
    pub(super) fn place(&mut self, key: &[u8], name: &[u8], group: &Group) {
        let read = group.entries_read.map_or_else(|| "-1".to_owned(), |n| n.to_string());
        self.add(&[b"XGROUP", b"SETID", key, name, &id_text(group.last_id), b"ENTRIESREAD", read.as_bytes()]);
    }

    pub(super) fn record(self, ctx: &mut Ctx<'_, '_, '_>) {
        ctx.db.record_nothing();
        self.0.iter().flatten().for_each(|words| ctx.record(words));
    }
}

/// Notes that new entries went to a consumer.
fn give(stream: &mut value::Stream, read: &GroupRead<'_>, ids: &[StreamId], now: UnixMs) {
    // Looked up first: the group is part of the stream.
    let places: Vec<(bool, Option<u64>)> =
        ids.iter().map(|id| (!has_deleted_since(stream, *id), position(stream, *id))).collect();
    let Some(group) = stream.groups.get_mut(read.group) else { return };
    let Some(consumer) = group.find_consumer(read.consumer) else { return };
    group.consumer_mut(consumer).active_ms = Some(now);
    for (id, (countable, position)) in ids.iter().zip(places) {
        group.entries_read = match group.entries_read {
            Some(n) if countable => Some(n + 1),
            _ => position,
        };
        group.last_id = *id;
        if !read.no_ack {
            group.assign(*id, Pending { consumer, delivered_ms: now, deliveries: 1 });
        }
    }
}

/// Whether entries were deleted from `start` on, so that counting cannot tell what was read. What was deleted
/// in front of the first entry that is left is of no matter.
fn has_deleted_since(stream: &value::Stream, start: StreamId) -> bool {
    let deleted = stream.max_deleted_id();
    !stream.is_empty() && deleted != StreamId::MIN && stream.first_id() <= deleted && start <= deleted
}

/// How many entries were ever added up to `id`, where that can be told.
fn position(stream: &value::Stream, id: StreamId) -> Option<u64> {
    let added = stream.entries_added();
    if added == 0 {
        return Some(0);
    }
    if (stream.is_empty() && id <= stream.last_id()) || id == stream.last_id() {
        return Some(added);
    }
    if id > stream.last_id() {
        return None;
    }
    let (first, deleted) = (stream.first_id(), stream.max_deleted_id());
    if deleted == StreamId::MIN || deleted < first {
        if id < first {
            return added.checked_sub(stream.len());
        }
        if id == first {
            return added.checked_sub(stream.len()).map(|n| n + 1);
        }
    }
    None
}

/// How many entries the group has not been given, where that can be told. Below zero when the group was told
/// to have read more than there are (XGROUP CREATE ... ENTRIESREAD), as in Redis.
fn lag(stream: &value::Stream, group: &Group) -> Option<i64> {
    let added = stream.entries_added();
    if added == 0 {
        return Some(0);
    }
    let read = match group.entries_read {
        Some(read) if !has_deleted_since(stream, group.last_id) => Some(read),
        _ => position(stream, group.last_id),
    };
    read.map(|read| (added as i64).wrapping_sub(read as i64))
}

fn int_or_null(reply: &mut Reply, n: Option<i64>) {
    match n {
        Some(n) => reply.int(n),
        None => reply.null(),
    }
}

/// XINFO GROUPS.
pub(super) fn show_groups(reply: &mut Reply, stream: &value::Stream) {
    reply.array(stream.groups.len());
    for (name, group) in &stream.groups {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"consumers");
        reply.int(group.consumers().len() as i64);
        reply.bulk(b"pending");
        reply.int(group.pending().len() as i64);
        reply.bulk(b"last-delivered-id");
        bulk_id(reply, group.last_id);
        reply.bulk(b"entries-read");
        int_or_null(reply, group.entries_read.map(|n| n as i64));
        reply.bulk(b"lag");
        int_or_null(reply, lag(stream, group));
    }
}

/// XINFO CONSUMERS.
pub(super) fn show_consumers(reply: &mut Reply, group: &Group, now: UnixMs) {
    reply.array(group.consumers().len());
    for (_, consumer) in group.consumers() {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(&consumer.name);
        reply.bulk(b"pending");
        reply.int(consumer.pending().len() as i64);
        reply.bulk(b"idle");
        reply.int((now - consumer.seen_ms).max(0));
        reply.bulk(b"inactive");
        reply.int(consumer.active_ms.map_or(-1, |at| (now - at).max(0)));
    }
}

/// The groups of XINFO STREAM FULL, with up to `count` pending entries of each.
pub(super) fn show_groups_fully(reply: &mut Reply, stream: &value::Stream, count: usize) {
    reply.bulk(b"groups");
    reply.array(stream.groups.len());
    for (name, group) in &stream.groups {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"last-delivered-id");
        bulk_id(reply, group.last_id);
        reply.bulk(b"entries-read");
        int_or_null(reply, group.entries_read.map(|n| n as i64));
        reply.bulk(b"lag");
        int_or_null(reply, lag(stream, group));
        reply.bulk(b"pel-count");
        reply.int(group.pending().len() as i64);
        reply.bulk(b"pending");
        reply.array(count.min(group.pending().len()));
        for (id, pending) in group.pending().iter().take(count) {
            reply.array(4);
            bulk_id(reply, *id);
            reply.bulk(&group.consumer(pending.consumer).name);
            reply.int(pending.delivered_ms);
            reply.int(pending.deliveries as i64);
        }
        reply.bulk(b"consumers");
        reply.array(group.consumers().len());
        for (_, consumer) in group.consumers() {
            reply.map(5);
            reply.bulk(b"name");
            reply.bulk(&consumer.name);
            reply.bulk(b"seen-time");
            reply.int(consumer.seen_ms);
            reply.bulk(b"active-time");
            reply.int(consumer.active_ms.unwrap_or(-1));
            reply.bulk(b"pel-count");
            reply.int(consumer.pending().len() as i64);
            reply.bulk(b"pending");
            let shown = consumer.pending().iter().take(count);
            reply.array(shown.len());
            for (id, pending) in shown.filter_map(|id| Some((id, group.pending().get(id)?))) {
                reply.array(3);
                bulk_id(reply, *id);
                reply.int(pending.delivered_ms);
                reply.int(pending.deliveries as i64);
            }
        }
    }
}

fn xack(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let exists = ctx.db.stream(args[1])?.is_some_and(|s| s.groups.contains_key(args[2]));
    if !exists {
        ctx.reply.int(0);
        return DONE;
    }
    let ids = args[3..].iter().map(|arg| id(arg, 0)).collect::<Result<Vec<_>>>()?;
    let Some(group) = ctx.db.stream_mut(args[1])?.and_then(|s| s.groups.get_mut(args[2])) else {
        return Err(CommandError::NoSuchKey);
    };
    let done = ids.into_iter().filter(|id| group.acknowledge(*id)).count();
    if done > 0 {
        ctx.db.changed(args[1], event::PENDING);
        ctx.db.count_elements(done);
    }
    ctx.reply.int(done as i64);
    DONE
}

const NO_KEY: CommandError = CommandError::text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
);

/// The words behind an id: MKSTREAM (of CREATE) and ENTRIESREAD.
fn group_options(args: &[&[u8]], creates: bool) -> Result<(bool, Option<u64>)> {
    let (mut make, mut read) = (false, None);
    let mut words = args[5..].iter();
    while let Some(&word) = words.next() {
        if creates && is(word, "mkstream") {
            make = true;
        } else if is(word, "entriesread") && !words.as_slice().is_empty() {
            read =
                match int(words.next().ok_or(CommandError::Syntax)?)? {
                    -1 => None,
                    n => Some(u64::try_from(n).map_err(|_| {
                        CommandError::text("ERR value for ENTRIESREAD must be positive or -1")
                    })?),
                };
        } else {
            return Err(wrong_arguments("XGROUP", args[1]));
        }
    }
    Ok((make, read))
}

fn create(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (make, read) = group_options(args, true)?;
    let (key, name) = (args[2], args[3]);
    let last = ctx.db.inspect(key, |value| match value {
        None => Ok(None),
        Some(ValueRef::Stream(stream)) => Ok(Some(stream.last_id())),
        Some(_) => Err(CommandError::WrongType),
    })?;
    if last.is_none() && !make {
        return Err(NO_KEY);
    }
    // Each option once, however often it stands there.
    if args.len() > 8 {
        return Err(wrong_arguments("XGROUP", args[1]));
    }
    let from = if args[4] == b"$" { last.unwrap_or(StreamId::MIN) } else { id(args[4], 0)? };
    let stream = ctx.db.stream_or_new(key)?;
    if stream.groups.contains_key(name) {
        return Err(CommandError::text("BUSYGROUP Consumer Group name already exists"));
    }
    stream.groups.insert(name.into(), Group::new(from, read));
    if last.is_none() {
        ctx.db.changed(key, event::MADE);
        ctx.db.notify(key, event::XGROUP_CREATE);
    } else {
        ctx.db.changed(key, event::XGROUP_CREATE);
    }
    ctx.reply.ok();
    DONE
}

/// The group that a subcommand is about.
fn group<'a>(ctx: &'a mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<&'a mut Group> {
    let stream = ctx.db.stream_mut(args[2])?.ok_or(NO_KEY)?;
    stream.groups.get_mut(args[3]).ok_or_else(|| no_group(args))
}

fn no_group(args: &[&[u8]]) -> CommandError {
    let (name, key) = (shown(args[3]), shown(args[2]));
    CommandError::owned(format!("NOGROUP No such consumer group '{name}' for key name '{key}'"))
}

fn setid(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (_, read) = group_options(args, false)?;
    let stream = ctx.db.stream_mut(args[2])?.ok_or(NO_KEY)?;
    let last = stream.last_id();
    let group = stream.groups.get_mut(args[3]).ok_or_else(|| no_group(args))?;
    if args.len() > 7 {
        return Err(wrong_arguments("XGROUP", args[1]));
    }
    let from = match args[4] {
        b"$" => last,
        b"-" => StreamId::MIN,
        b"+" => StreamId::MAX,
        arg => id(arg, 0)?,
    };
    (group.last_id, group.entries_read) = (from, read);
    ctx.db.changed(args[2], event::XGROUP_SETID);
    ctx.reply.ok();
    DONE
}

fn destroy(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let gone = ctx.db.stream_mut(args[2])?.ok_or(NO_KEY)?.groups.remove(args[3]).is_some();
    if gone {
        ctx.db.changed(args[2], event::XGROUP_DESTROY);
    }
    ctx.reply.int(i64::from(gone));
    DONE
}

fn createconsumer(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    let created = group(ctx, args)?.add_consumer(args[4], now).is_some();
    if created {
        ctx.db.changed(args[2], event::XGROUP_CREATECONSUMER);
    }
    ctx.reply.int(i64::from(created));
    DONE
}

fn delconsumer(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let pending = group(ctx, args)?.remove_consumer(args[4]);
    if pending.is_some() {
        ctx.db.changed(args[2], event::XGROUP_DELCONSUMER);
    }
    ctx.reply.int(pending.unwrap_or(0) as i64);
    DONE
}

fn help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    crate::command::help::help(ctx.reply, "xgroup", SUBCOMMANDS);
    DONE
}
