//! The middle of a round: commands are parsed, prefetched and run in batches.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::base::time::UnixMs;
use crate::command::client::ReplyMode;
use crate::command::spec::flags;
use crate::command::table::CommandEntry;
use crate::command::{Client, CommandError};
use crate::exec::{After, Blocked};
use crate::keyspace::{Hashed, Known, Upcoming, prefetch};
use crate::resp::{Limits, Parsed, Progress, ProtocolError, Reply, parse};
use crate::server::net::connection::{Connection, Hold, Wait};
use crate::server::node::connected::ClientState;
use crate::server::node::host::NodeHost;
use crate::server::node::unix_ms;
use crate::server::process::clock::now_ns;
use crate::server::worker::deadlines::Kind;
use crate::server::worker::segment::Segment;
use crate::server::worker::turns::TURN_NS;
use crate::server::worker::{READ_SIZE, Worker};

/// A request that is still incomplete after so many bytes is parsed piece by piece, as it arrives.
const LONG_REQUEST: usize = 4 * READ_SIZE;
/// Commands parsed and prefetched together. With 32, INCR among five million counters costs 6 % more; the rest is
/// alike.
const BATCH: usize = 64;
/// Keys of one command that are prefetched.
const PREFETCH_KEYS: usize = 16;

/// One parsed request.
pub(super) struct Item {
    segment: usize,
    /// Where the next request begins in the segment.
    end: usize,
    argv: Range<usize>,
    keys: Range<usize>,
    /// It may have to wait for the turn of scripts.
    scripted: bool,
    pub what: What,
}

impl Item {
    /// Whether both call the same command.
    #[inline]
    fn is_like(&self, next: &Self) -> bool {
        matches!((&self.what, &next.what), (What::Command(own), What::Command(other)) if own == other)
    }
}

pub(super) enum What {
    /// The id of a command.
    Command(usize),
    Irregular(Box<Irregular>),
}

/// A request that is not a known command in the usual form.
pub(super) enum Irregular {
    Refused(CommandError),
    Inline(Vec<Vec<u8>>),
    Broken(ProtocolError),
}

/// What is parsed together: requests, their arguments, and the keys that they will look up.
#[derive(Default)]
pub(super) struct Batch<'a> {
    items: Vec<Item>,
    argv: Vec<&'a [u8]>,
    keys: Vec<Known<'a>>,
    upcoming: Vec<Upcoming<'static>>,
}

impl Batch<'_> {
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.argv.clear();
        self.keys.clear();
        self.upcoming.clear();
    }

    /// Its memory, for a batch of other input.
    fn emptied<'b>(mut self) -> Batch<'b> {
        self.clear();
        // Collected in place. It is empty, so no borrow of the former input is left.
        let argv = self.argv.into_iter().map(|_| -> &'b [u8] { &[] }).collect();
        let keys =
            self.keys.into_iter().map(|_| -> Known<'b> { (&[], Hashed { slot: 0, hash: 0 }) }).collect();
        Batch { items: self.items, argv, keys, upcoming: self.upcoming }
    }
}

impl Worker {
    /// Parses and runs everything in the segments, in batches.
    pub(super) fn run_segments(&mut self, gathered: &[u8], segments: &mut [Segment]) {
        let config = self.node.config.load();
        let max_bulk = config.proto_max_bulk_len as usize;
        drop(config);
        let now = unix_ms();
        let mut batch = std::mem::take(&mut self.batch).emptied();
        let mut at = 0;
        let (mut began, mut turn_of) = (now_ns(), 0);
        // Inputs are read while the segments' other fields change. Few segments have their own.
        let owned: Vec<(usize, Vec<u8>)> =
            segments.iter_mut().enumerate().filter_map(|(i, s)| Some((i, s.own.take()?))).collect();
        let input_of = |s: &Segment, i: usize| -> &[u8] {
            if owned.is_empty() {
                return &gathered[s.range.clone()];
            }
            match owned.binary_search_by_key(&i, |o| o.0) {
                Ok(at) => &owned[at].1,
                Err(_) => &gathered[s.range.clone()],
            }
        };
        for (i, own) in &owned {
            let s = &mut segments[*i];
            let limits = Limits { max_bulk, authenticated: s.authenticated };
            if let Some(mut progress) = s.progress.take()
                && let Some(need) = progress.advance(own, &limits)
            {
                (s.progress, s.need, s.exhausted) = (Some(progress), need, true);
            }
        }
        loop {
            batch.clear();
            while batch.items.len() < BATCH && at < segments.len() {
                let s = &mut segments[at];
                if s.stopped || s.exhausted {
                    at += 1;
                    continue;
                }
                // Before authentication each command may change how the next is parsed.
                if !s.authenticated && batch.items.last().is_some_and(|i| i.segment == at) {
                    break;
                }
                self.parse_one(input_of(s, at), at, s, max_bulk, &mut batch);
            }
            if batch.items.is_empty() {
                break;
            }
            prefetch(&batch.upcoming);
            self.run_batch(&batch, segments, now);
            let last = batch.items.last().map_or(0, |item| item.segment);
            let time = now_ns();
            if last != turn_of {
                (began, turn_of) = (time, last);
            } else if time.wrapping_sub(began) > TURN_NS && segments[last].ends_turn() {
                at = last + 1;
            }
        }
        self.batch = batch.emptied();
        for (i, own) in owned {
            segments[i].own = Some(own);
        }
    }

    #[inline(always)]
    pub(super) fn parse_one<'a>(
        &self,
        input: &'a [u8],
        index: usize,
        s: &mut Segment,
        max_bulk: usize,
        batch: &mut Batch<'a>,
    ) {
        let (first, first_key) = (batch.argv.len(), batch.keys.len());
        let limits = Limits { max_bulk, authenticated: s.authenticated };
        let mut end = s.parsed;
        let irregular = match parse(input, &mut end, &mut batch.argv, &limits) {
            Ok(Parsed::Command) => {
                let args = &batch.argv[first..];
                match self.executor.look_up(args) {
                    Ok(id) => {
                        let entry = self.executor.shared.commands.get(id);
                        self.announce_keys(entry, args, s.db, &mut batch.keys, &mut batch.upcoming);
                        s.parsed = end;
                        batch.items.push(Item {
                            segment: index,
                            end,
                            argv: first..batch.argv.len(),
                            keys: first_key..batch.keys.len(),
                            scripted: entry.scripted,
                            what: What::Command(id),
                        });
                        return;
                    }
                    Err(fail) => Irregular::Refused(fail),
                }
            }
            Ok(Parsed::Inline(words)) => Irregular::Inline(words),
            Ok(Parsed::Empty) => {
                s.parsed = end;
                s.consumed = s.consumed.max(end);
                return;
            }
            Ok(Parsed::Incomplete { need }) => {
                s.need = need;
                s.exhausted = true;
                if input.len() - s.parsed > LONG_REQUEST {
                    let mut progress = Progress::default();
                    s.progress = progress.advance(&input[s.parsed..], &limits).map(|_| progress);
                }
                return;
            }
            Err(e) => {
                s.exhausted = true;
                Irregular::Broken(e)
            }
        };
        s.parsed = end;
        let (argv, what) = (first..batch.argv.len(), What::Irregular(Box::new(irregular)));
        batch.items.push(Item { segment: index, end, argv, keys: 0..0, scripted: true, what });
    }

    /// Adds the keys of a command to those of the batch, and the first ones to those that are prefetched.
    #[inline(always)]
    fn announce_keys<'a>(
        &self,
        entry: &CommandEntry,
        args: &[&'a [u8]],
        db: u16,
        keys: &mut Vec<Known<'a>>,
        upcoming: &mut Vec<Upcoming<'static>>,
    ) {
        let shared = self.executor.shared;
        let enough = upcoming.len() + PREFETCH_KEYS;
        shared.each_key(entry, args, |(key, hashed)| {
            keys.push((key, hashed));
            if upcoming.len() < enough
                && let Some(table) = shared.keyspace.upcoming(db, hashed)
            {
                upcoming.push(table);
            }
        });
    }

    pub(super) fn run_batch(&mut self, batch: &Batch<'_>, segments: &mut [Segment], now: UnixMs) {
        self.executor.start_batch();
        let mut reply = std::mem::take(&mut self.reply);
        for items in batch.items.chunk_by(|a, b| a.segment == b.segment) {
            let s = &mut segments[items[0].segment];
            if s.stopped {
                continue;
            }
            let Some(mut c) = self.connections[s.token].take() else {
                s.stopped = true;
                continue;
            };
            if s.reply.is_empty() {
                s.reply.start = reply.len();
                reply.begin(self.room_for(&c));
            }
            for (i, item) in items.iter().enumerate() {
                self.executor.expect_alike(items.get(i + 1).is_some_and(|next| item.is_like(next)));
                if item.scripted && self.runs_later(item, &c) {
                    self.scripts.wait(s.token);
                    s.stopped = true;
                    break;
                }
                let (args, keys) = (&batch.argv[item.argv.clone()], &batch.keys[item.keys.clone()]);
                self.run_item(item, args, keys, &mut c, s, now, &mut reply);
                if reply.is_cut_off() {
                    s.cut_off = true;
                    s.stopped = true;
                }
                if s.stopped {
                    break;
                }
            }
            s.reply.end = reply.len();
            s.authenticated = c.client.is_authenticated();
            s.db = c.client.db;
            self.connections[s.token] = Some(c);
        }
        self.executor.end_batch();
        self.reply = reply;
    }

    #[expect(clippy::too_many_arguments, reason = "all that a call is made of")]
    #[inline(always)]
    pub(super) fn run_item(
        &mut self,
        item: &Item,
        args: &[&[u8]],
        keys: &[Known<'_>],
        c: &mut Connection,
        s: &mut Segment,
        now: UnixMs,
        reply: &mut Reply,
    ) {
        let before = reply.len();
        let quiet = c.client.reply_mode != ReplyMode::On;
        match &item.what {
            What::Command(id) => self.run_command(c, *id, args, keys, s, item.end, now, reply),
            What::Irregular(irregular) => self.run_irregular(irregular, args, c, s, item.end, now, reply),
        }
        // A command that runs again later is not answered yet.
        let later = matches!(c.hold, Some(Hold::Pause { .. } | Hold::Aside { .. }));
        if c.client.reply_mode != ReplyMode::On && !later {
            c.mute = c.hold.is_some();
            let pushes = matches!(item.what, What::Command(id) if self.executor.shared.commands.get(id).command.has(flags::PUSHES));
            apply_reply_mode(&mut c.client, if pushes { reply.len() } else { before }, reply);
        }
        if quiet || c.client.reply_mode != ReplyMode::On {
            reply.begin(self.room_for(c));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a call is made of")]
    #[cold]
    pub(super) fn run_irregular(
        &mut self,
        irregular: &Irregular,
        args: &[&[u8]],
        c: &mut Connection,
        s: &mut Segment,
        end: usize,
        now: UnixMs,
        reply: &mut Reply,
    ) {
        match irregular {
            Irregular::Inline(words) => {
                let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                match self.executor.look_up(&args) {
                    Ok(id) => self.run_command(c, id, &args, &[], s, end, now, reply),
                    Err(fail) => self.refuse(c, &fail, &args, s, end, reply),
                }
            }
            Irregular::Refused(fail) => self.refuse(c, fail, args, s, end, reply),
            Irregular::Broken(e) => {
                reply.error(&format!("ERR {e}"));
                self.executor.stats.count_error("ERR ");
                c.closing = true;
                s.stopped = true;
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        c: &mut Connection,
        fail: &CommandError,
        args: &[&[u8]],
        s: &mut Segment,
        end: usize,
        reply: &mut Reply,
    ) {
        s.consumed = end;
        if *fail == CommandError::OtherProtocol {
            tracing::warn!(
                "Possible SECURITY ATTACK detected: HTTP from {}, connection closed",
                c.client.addr
            );
            c.closing = true;
            s.stopped = true;
            return;
        }
        let named = self.executor.named(args);
        s.last_command = Some(named.unwrap_or(usize::MAX));
        if let (Some(id), CommandError::Arity(_)) = (named, fail) {
            self.executor.stats.reject(id);
        }
        let text = self.executor.note_refusal(&mut c.client, None, fail.clone()).to_string();
        reply.error(&text);
        self.executor.stats.count_error(&text);
    }

    #[expect(clippy::too_many_arguments, reason = "all that a call is made of")]
    #[inline(always)]
    pub(super) fn run_command(
        &mut self,
        c: &mut Connection,
        id: usize,
        args: &[&[u8]],
        keys: &[Known<'_>],
        s: &mut Segment,
        end: usize,
        now: UnixMs,
        reply: &mut Reply,
    ) {
        let version = c.client.version;
        let begin = std::mem::replace(&mut s.consumed, end);
        s.commands += 1;
        s.last_command = Some(id);
        let after = if self.scripts.is_turn() {
            self.run_beside_others(c, id, args, keys, now, reply)
        } else {
            let mut host = NodeHost::new(&self.node);
            self.executor.execute(&mut host, &mut c.client, id, args, keys, now, reply)
        };
        match after {
            After::Done => {}
            After::Blocked(blocked) => {
                let Blocked { waiter, timeout, timeout_reply } = *blocked;
                let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
                c.entry.times_out.store(timeout.is_some(), Ordering::Relaxed);
                self.hold(c, Hold::Keys(Wait { waiter, timeout_reply }));
                self.deadlines.set(s.token, Kind::Blocked, deadline);
                s.stopped = true;
            }
            After::Suspended => {
                let blocked = self.executor.shared.commands.get(id).command.has(flags::BLOCKING);
                self.hold(c, Hold::Host { blocked });
                s.stopped = true;
            }
            After::Postponed => {
                let again = s.again.take();
                self.hold(c, Hold::Pause { again });
                s.consumed = begin;
                s.stopped = true;
            }
            After::Aside => {
                let again = s.again.take();
                self.hold(c, Hold::Aside { again });
                s.consumed = begin;
                s.stopped = true;
            }
            After::Detached => s.stopped = true,
        }
        if c.client.close_after_reply {
            c.closing = true;
            s.stopped = true;
        }
        if c.client.version != version {
            *c.entry.state.lock() = ClientState::of(&c.client);
        }
    }
}

/// CLIENT REPLY: takes back the reply from `before` on of a client that wants none.
#[inline]
#[cold]
fn apply_reply_mode(client: &mut Client, before: usize, reply: &mut Reply) {
    match client.reply_mode {
        ReplyMode::On => {}
        ReplyMode::Off => reply.truncate(before),
        ReplyMode::SkipNext => {
            reply.truncate(before);
            client.reply_mode = ReplyMode::Skip;
        }
        ReplyMode::Skip => {
            reply.truncate(before);
            client.reply_mode = ReplyMode::On;
        }
    }
}
