//! The stream family: entries come and go. Reading is in [`super::stream_reads`], groups are in
//! [`super::stream_groups`].

use super::stream_reads::show_entry;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Command, Group::Stream, flags::*, key, one};
use crate::command::{CommandError, Result, int, is, shown, trim_start, up_to_nul, wrong_arguments};
use crate::keyspace::event;
use crate::resp::Reply;
use crate::value::stream::Trim;
use crate::value::{self, StreamId, ValueRef};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("xadd", -5, Stream, xadd)
        .flags(WRITE | DENYOOM | FAST)
        .keys(
            &[one(1, key::RW | key::UPDATE).notes("UPDATE because entries may be removed at the other end")],
        )
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .history(&[
            ("6.2.0", "The options `NOMKSTREAM`, `MINID` and `LIMIT`."),
            ("7.0.0", "Ids whose second part is left to the server."),
        ])
        .doc(
            "5.0.0",
            "key [NOMKSTREAM@6.2.0] [trim=(strategy=<MAXLEN | MINID@6.2.0> \
             [operator=<equal== | approximately=~>] threshold [LIMIT count@6.2.0])] \
             id-selector=<auto-id=* | id> data=(field value) ...",
            "Appends an entry to a stream, and creates the stream if there is none.",
        ),
    Command::new("xlen", 2, Stream, xlen)
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .complexity("O(1)")
        .doc("5.0.0", "key", "Returns the number of entries of a stream."),
    Command::new("xdel", -3, Stream, xdel)
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::DELETE)])
        .complexity("O(1)")
        .doc("5.0.0", "key id ...", "Removes entries by their ids."),
    Command::new("xtrim", -4, Stream, xtrim)
        .flags(WRITE)
        .keys(&[one(1, key::RW | key::DELETE)])
        .tips(&["nondeterministic_output"])
        .complexity("O(N)")
        .history(&[("6.2.0", "The options `MINID` and `LIMIT`.")])
        .doc(
            "5.0.0",
            "key trim=(strategy=<MAXLEN | MINID@6.2.0> [operator=<equal== | \
             approximately=~>] threshold [LIMIT count@6.2.0])",
            "Removes old entries from a stream.",
        ),
    Command::new("xsetid", -3, Stream, xsetid)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .complexity("O(1)")
        .history(&[("7.0.0", "The options `ENTRIESADDED` and `MAXDELETEDID`.")])
        .doc(
            "5.0.0",
            "key last-id [ENTRIESADDED entries-added@7.0.0] [MAXDELETEDID \
             max-deleted-id@7.0.0]",
            "Sets the last id and the counters of a stream.",
        ),
    Command::container("xinfo", Stream, INFO).doc("5.0.0", "", "Tells about streams and their groups."),
];

const INFO: &[Command] = &[
    Command::new("consumers", 4, Stream, consumers)
        .flags(READONLY)
        .keys(&[one(2, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .history(&[("7.2.0", "The field `inactive`.")])
        .doc("5.0.0", "key group", "Lists the consumers of a group."),
    Command::new("groups", 3, Stream, groups)
        .flags(READONLY)
        .keys(&[one(2, key::RO | key::ACCESS)])
        .complexity("O(1)")
        .history(&[("7.0.0", "The fields `entries-read` and `lag`.")])
        .doc("5.0.0", "key", "Lists the groups of a stream."),
    Command::new("help", 2, Stream, help).flags(LOADING | STALE).complexity("O(1)").doc("5.0.0", "", "Returns what the subcommands do."),
    Command::new("stream", -3, Stream, stream)
        .flags(READONLY)
        .keys(&[one(2, key::RO | key::ACCESS)])
        .complexity("O(1)")
        .history(&[("6.0.0", "The option `FULL`."), ("7.0.0", "The fields `max-deleted-entry-id`, `entries-added`, `recorded-first-entry-id`, `entries-read` and `lag`."), ("7.2.0", "The field `active-time`, and a new meaning of `seen-time`.")])
        .doc("5.0.0", "key [full-block=(FULL [COUNT count])]", "Tells about a stream."),
];

const INVALID_ID: CommandError =
    CommandError::text("ERR Invalid stream ID specified as stream command argument");

/// Redis copies an id into 128 bytes to read it.
const LONGEST_ID: usize = 127;

/// An id with both parts or only the first, for which the second is `default_seq`.
pub(super) fn id(arg: &[u8], default_seq: u64) -> Result<StreamId> {
    if arg.len() > LONGEST_ID {
        return Err(INVALID_ID);
    }
    let arg = up_to_nul(arg);
    let (ms, seq) = match memchr::memchr(b'-', arg) {
        Some(dash) => (number(&arg[..dash]), number(&arg[dash + 1..])),
        None => (number(arg), Some(default_seq)),
    };
    ms.zip(seq).map(|(ms, seq)| StreamId::new(ms, seq)).ok_or(INVALID_ID)
}

/// An unsigned number; white space, a plus sign and zeros may stand in front, as `strtoull` has it.
fn number(text: &[u8]) -> Option<u64> {
    let text = trim_start(text);
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, &b| n.checked_mul(10)?.checked_add(u64::from((b as char).to_digit(10)?)))
}

pub(super) fn bulk_id(reply: &mut Reply, id: StreamId) {
    reply.bulk(&id_text(id));
}

/// The text of an id, without the heap.
pub(super) fn id_text(id: StreamId) -> smallvec::SmallVec<[u8; 64]> {
    let mut text = smallvec::SmallVec::new();
    text.extend_from_slice(itoa::Buffer::new().format(id.ms).as_bytes());
    text.push(b'-');
    text.extend_from_slice(itoa::Buffer::new().format(id.seq).as_bytes());
    text
}

/// The trimming part of XADD and XTRIM.
struct TrimOptions {
    keep: Trim,
    approximate: bool,
    /// The argument with the threshold; `~` stands before it where the trim is approximate.
    threshold: usize,
    /// Removals at most; 0: any number.
    limit: u64,
}

/// What stands between the key and the id (XADD) or the end (XTRIM).
#[derive(Default)]
struct Options {
    trim: Option<TrimOptions>,
    /// XADD only to a stream that exists.
    only_existing: bool,
    /// What XADD is given; read before what stands in front of it is looked at as a whole.
    id: Option<NewId>,
    /// The argument at which the options end.
    end: usize,
}

impl Options {
    fn parse(ctx: &Ctx<'_, '_, '_>, args: &[&[u8]], adds: bool) -> Result<Self> {
        let (mut trim, mut approximate, mut limit) = (None, false, None);
        let mut o = Self { end: 2, ..Self::default() };
        while let Some(&word) = args.get(o.end) {
            let behind = &args[o.end + 1..];
            let max_len = is(word, "maxlen");
            if adds && word == b"*" {
                o.id = Some(NewId::Next);
                break;
            } else if !behind.is_empty() && (max_len || is(word, "minid")) {
                if trim.is_some() {
                    return Err(CommandError::text(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                    ));
                }
                let mark = behind.len() >= 2 && matches!(behind[0], b"~" | b"=");
                approximate = mark && behind[0] == b"~";
                let at = o.end + 1 + usize::from(mark);
                let threshold = args[at];
                let keep = if max_len {
                    let n = int(threshold)?;
                    let wrong = CommandError::text("ERR The MAXLEN argument must be >= 0.");
                    Trim::MaxLen(u64::try_from(n).map_err(|_| wrong)?)
                } else {
                    Trim::MinId(id(threshold, 0)?)
                };
                trim = Some((keep, at));
                o.end = at + 1;
            } else if !behind.is_empty() && is(word, "limit") {
                let n = int(behind[0])?;
                limit = Some(
                    u64::try_from(n)
                        .map_err(|_| CommandError::text("ERR The LIMIT argument must be >= 0."))?,
                );
                o.end += 2;
            } else if adds && is(word, "nomkstream") {
                o.only_existing = true;
                o.end += 1;
            } else if adds {
                o.id = Some(NewId::parse(word)?);
                break;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if let Some(wrong) = match (trim, limit) {
            (None, Some(_)) => {
                Some("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy")
            }
            // Our primary replaces `~` by `=` in what it sends, and leaves LIMIT in: from it that is no error.
            (Some(_), Some(_)) if !approximate && !ctx.client.role.is_obeyed() => {
                Some("ERR syntax error, LIMIT cannot be used without the special ~ option")
            }
            _ => None,
        } {
            return Err(CommandError::text(wrong));
        }
        // Without a limit an approximate trim stops after a hundred full blocks.
        let usual = match ctx.limits.stream_node_max_entries {
            0 => 10_000,
            n => n.saturating_mul(100).min(1_000_000),
        };
        let limit = if approximate { limit.unwrap_or(usual) } else { 0 };
        o.trim = trim.map(|(keep, threshold)| TrimOptions { keep, approximate, threshold, limit });
        Ok(o)
    }
}

/// The id that XADD is given: complete, without its second part, or left to the server.
#[derive(Clone, Copy)]
enum NewId {
    Exact(StreamId),
    Ms(u64),
    Next,
}

impl NewId {
    fn parse(arg: &[u8]) -> Result<Self> {
        match arg {
            [ms @ .., b'-', b'*'] => number(ms).map(NewId::Ms).ok_or(INVALID_ID),
            _ => id(arg, 0).map(NewId::Exact),
        }
    }

    /// The id of the entry, if it may follow `last`. When the clock stands behind the last entry, its milliseconds
    /// go on to be used (page of XADD).
    fn after(self, last: StreamId, now_ms: u64) -> Option<StreamId> {
        let id = match self {
            NewId::Exact(id) => id,
            NewId::Ms(ms) if ms == last.ms => StreamId::new(ms, last.seq.checked_add(1)?),
            NewId::Ms(ms) => StreamId::new(ms, 0),
            NewId::Next if now_ms > last.ms => StreamId::new(now_ms, 0),
            NewId::Next => last.next()?,
        };
        (id > last).then_some(id)
    }
}

fn xadd(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let key = args[1];
    let o = Options::parse(ctx, args, true)?;
    let arity = || CommandError::Arity(ctx.command.name.to_owned());
    let new = o.id.ok_or_else(arity)?;
    let fields = &args[o.end + 1..];
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(arity());
    }
    if matches!(new, NewId::Exact(StreamId::MIN)) {
        return Err(CommandError::text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let now = u64::try_from(ctx.db.now).unwrap_or(0);
    let id = ctx.db.inspect(key, |value| match value {
        None if o.only_existing => Ok(None),
        None => next_id(new, StreamId::MIN, now).map(Some),
        Some(ValueRef::Stream(stream)) => next_id(new, stream.last_id(), now).map(Some),
        Some(_) => Err(CommandError::WrongType),
    })?;
    let Some(id) = id else {
        ctx.reply.null();
        return DONE;
    };
    let stream = ctx.db.stream_or_new(key)?;
    stream.append(id, fields, ctx.limits);
    let trimmed = o.trim.as_ref().map_or(0, |trim| stream.trim(trim.keep, trim.approximate, trim.limit));
    let kept = Kept::of(stream);
    ctx.db.changed(key, event::XADD);
    if trimmed > 0 {
        ctx.db.notify(key, event::XTRIM);
    }
    bulk_id(ctx.reply, id);
    let text = id_text(id);
    let given = if matches!(new, NewId::Exact(_)) { args[o.end] } else { &text };
    kept.record(ctx, args, o.trim.as_ref(), Some((o.end, given)));
    DONE
}

/// The id of an entry behind `last`.
fn next_id(new: NewId, last: StreamId, now: u64) -> Result<StreamId> {
    if last == StreamId::MAX {
        return Err(CommandError::text(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    new.after(last, now).ok_or(CommandError::text(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ))
}

/// What a trim has left, which replicas are told instead of what was asked for: they may cut their blocks elsewhere.
struct Kept {
    len: u64,
    first: StreamId,
}

impl Kept {
    fn of(stream: &value::Stream) -> Self {
        Self { len: stream.len(), first: stream.first_id() }
    }

    /// Records the command with this in place of an approximate threshold, and the id that an entry got.
    fn record(
        &self,
        ctx: &mut Ctx<'_, '_, '_>,
        args: &[&[u8]],
        trim: Option<&TrimOptions>,
        new: Option<(usize, &[u8])>,
    ) {
        if !ctx.db.effects.log_wanted {
            return;
        }
        let mut told = args.to_vec();
        if let Some((at, id)) = new {
            told[at] = id;
        }
        let threshold = match trim.map(|trim| trim.keep) {
            Some(Trim::MinId(_)) => id_text(self.first),
            _ => itoa::Buffer::new().format(self.len).as_bytes().into(),
        };
        if let Some(trim) = trim.filter(|trim| trim.approximate) {
            told[trim.threshold - 1] = b"=";
            told[trim.threshold] = &threshold;
        }
        ctx.record(&told);
    }
}

fn xtrim(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let trim = Options::parse(ctx, args, false)?.trim.ok_or(CommandError::Syntax)?;
    let Some(stream) = ctx.db.stream_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    let removed = stream.trim(trim.keep, trim.approximate, trim.limit);
    let kept = Kept::of(stream);
    if removed > 0 {
        ctx.db.changed(args[1], event::XTRIM);
        ctx.db.count_elements(removed as usize);
        kept.record(ctx, args, Some(&trim), None);
    }
    ctx.reply.int(removed as i64);
    DONE
}

fn xlen(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.db.stream(args[1])?.map_or(0, value::Stream::len);
    ctx.reply.int(len as i64);
    DONE
}

fn xdel(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(stream) = ctx.db.stream_mut(args[1])? else {
        ctx.reply.int(0);
        return DONE;
    };
    // All ids are read before anything changes.
    let ids = args[2..].iter().map(|arg| id(arg, 0)).collect::<Result<Vec<_>>>()?;
    let removed = ids.into_iter().filter(|id| stream.remove(*id)).count();
    if removed > 0 {
        ctx.db.changed(args[1], event::XDEL);
        ctx.db.count_elements(removed);
    }
    ctx.reply.int(removed as i64);
    DONE
}

fn xsetid(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let last = id(args[2], 0)?;
    let (mut added, mut max_deleted) = (None, None);
    for pair in args[3..].chunks(2) {
        match pair {
            [word, n] if is(word, "entriesadded") => {
                let n = u64::try_from(int(n)?);
                added = Some(n.map_err(|_| CommandError::text("ERR entries_added must be positive"))?);
            }
            [word, text] if is(word, "maxdeletedid") => {
                let deleted = id(text, 0)?;
                if last < deleted {
                    return Err(CommandError::text(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    ));
                }
                max_deleted = Some(deleted);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let stream = ctx.db.stream_mut(args[1])?.ok_or(CommandError::NoSuchKey)?;
    if last < max_deleted.unwrap_or(stream.max_deleted_id()) {
        return Err(CommandError::text(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    if let Some(entry) = stream.iter().next_back() {
        if last < entry.id {
            return Err(CommandError::text(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if added.is_some_and(|n| n < stream.len()) {
            return Err(CommandError::text(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
    }
    let added = added.unwrap_or(stream.entries_added());
    let max_deleted = max_deleted.filter(|id| *id != StreamId::MIN).unwrap_or(stream.max_deleted_id());
    stream.set_counters(last, added, max_deleted);
    ctx.db.changed(args[1], event::XSETID);
    ctx.reply.ok();
    DONE
}

/// What XINFO STREAM FULL shows of entries and of pending ones, unless told otherwise.
const FULL_COUNT: usize = 10;

fn stream(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let stream = ctx.db.stream(args[2])?.ok_or(CommandError::NoSuchKey)?;
    let full = match &args[3..] {
        [] => None,
        [word] if is(word, "full") => Some(FULL_COUNT),
        [word, count, n] if is(word, "full") && is(count, "count") => Some(match int(n)? {
            0 => usize::MAX,
            n => usize::try_from(n).unwrap_or(FULL_COUNT),
        }),
        _ => return Err(wrong_arguments("XINFO", args[1])),
    };
    let reply = &mut *ctx.reply;
    let nodes = stream.nodes().len() as i64;
    reply.map(if full.is_some() { 9 } else { 10 });
    reply.bulk(b"length");
    reply.int(stream.len() as i64);
    // Blocks stand in one ordered map here, which counts as a tree of one node more.
    reply.bulk(b"radix-tree-keys");
    reply.int(nodes);
    reply.bulk(b"radix-tree-nodes");
    reply.int(nodes + 1);
    for (name, id) in
        [("last-generated-id", stream.last_id()), ("max-deleted-entry-id", stream.max_deleted_id())]
    {
        reply.bulk_str(name);
        bulk_id(reply, id);
    }
    reply.bulk(b"entries-added");
    reply.int(stream.entries_added() as i64);
    reply.bulk(b"recorded-first-entry-id");
    bulk_id(reply, stream.first_id());
    let Some(count) = full else {
        reply.bulk(b"groups");
        reply.int(stream.groups.len() as i64);
        for (name, entry) in
            [("first-entry", stream.iter().next()), ("last-entry", stream.iter().next_back())]
        {
            reply.bulk_str(name);
            match entry {
                Some(entry) => show_entry(reply, &entry),
                None => reply.null(),
            }
        }
        return DONE;
    };
    reply.bulk(b"entries");
    reply.array(count.min(stream.len() as usize));
    stream.iter().take(count).for_each(|entry| show_entry(reply, &entry));
    super::stream_groups::show_groups_fully(reply, stream, count);
    DONE
}

fn groups(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let stream = ctx.db.stream(args[2])?.ok_or(CommandError::NoSuchKey)?;
    super::stream_groups::show_groups(ctx.reply, stream);
    DONE
}

fn consumers(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    let stream = ctx.db.stream(args[2])?.ok_or(CommandError::NoSuchKey)?;
    let group = stream.groups.get(args[3]).ok_or_else(|| {
        CommandError::owned(format!(
            "NOGROUP No such consumer group '{}' for key name '{}'",
            shown(args[3]),
            shown(args[2])
        ))
    })?;
    super::stream_groups::show_consumers(ctx.reply, group, now);
    DONE
}

fn help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    crate::command::help::help(ctx.reply, "xinfo", INFO);
    DONE
}
