//! A worker: the thread that reads clients' commands, runs them and writes the replies.
//!
//! Each wake-up is one round: **gather** what all ready connections have sent, **parse** up to 32
//! commands across them, **prefetch** the memory that they will touch in stages, **run** them in
//! order, and **send** once a connection. Prefetching across connections is what hides the cache
//! misses that otherwise dominate a command.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::clients::ClientState;
use super::connection::{Connection, Hold, Outbox, Stream};
use super::mailbox::{Mail, Mailbox};
use super::node::{Node, unix_ms};
use super::{replication, requests};
use crate::base::time::UnixMs;
use crate::command::client::ReplyMode;
use crate::command::spec::flags;
use crate::command::{Client, Fail, Request, TimeoutReply};
use crate::exec::{After, Blocked, Executor, Host};
use crate::keyspace::watch::Waiter;
use crate::keyspace::{Db, Hashed, SHARDS, Upcoming, prefetch};
use crate::resp::{Limits, Parsed, Progress, ProtocolError, Reply, parse};

/// The token of the mailbox's waker; listeners and connections count from 0 and up.
pub const WAKER: Token = Token(usize::MAX);
/// Listeners have tokens from here on.
pub const FIRST_LISTENER: usize = usize::MAX - 64;

/// What is read from a connection at once.
const READ_SIZE: usize = 16 * 1024;
/// Room for the input of one round.
const GATHER_SIZE: usize = 1 << 20;
/// A request that is not complete after so many bytes is looked through piece by piece.
const LONG_REQUEST: usize = 4 * READ_SIZE;
/// Commands parsed and prefetched together.
const BATCH: usize = 32;
/// Keys of one command that are prefetched.
const PREFETCH_KEYS: usize = 16;

/// How often a worker looks for dead keys, at how many shards, and how many keys it deletes of each
/// at the least `active-expire-effort`.
const EXPIRY_PERIOD_MS: UnixMs = 20;
const SHARDS_PER_PERIOD: usize = 4;
const EXPIRY_KEYS: usize = 200;

/// One worker's own state.
pub struct Worker {
    pub index: usize,
    pub node: Arc<Node>,
    pub poll: Poll,
    pub mailbox: Arc<Mailbox>,
    executor: Executor,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    /// Tokens that may have more to read than the last read took.
    ready: Vec<usize>,
    reply: Reply,
    /// Room for the input of a round.
    gathered: Vec<u8>,
    /// Kept for its allocation.
    segments: Vec<Segment>,
    last_second: u64,
    last_ms: UnixMs,
    next_expiry_ms: UnixMs,
    next_shard: usize,
    /// The end of the log when replicas were last woken.
    log_end: u64,
    /// `client-query-buffer-limit`, looked up once a second.
    query_limit: usize,
    stopped: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The input of one connection in a round.
struct Segment {
    token: usize,
    /// In the gather buffer, or in `own` when the connection had its own buffer.
    range: Range<usize>,
    own: Option<Vec<u8>>,
    /// How far it was parsed, from the start of the segment.
    parsed: usize,
    /// How far the request that is not complete was looked through, if it is a long one.
    progress: Option<Progress>,
    /// How far it was run: where input goes back to the connection from.
    consumed: usize,
    need: usize,
    /// The connection runs nothing more in this round.
    stopped: bool,
    exhausted: bool,
    authenticated: bool,
    db: u16,
    reply: Range<usize>,
    commands: u32,
    last_command: usize,
}

impl Segment {
    fn input<'a>(&'a self, gathered: &'a [u8]) -> &'a [u8] {
        match &self.own {
            Some(own) => own,
            None => &gathered[self.range.clone()],
        }
    }
}

/// One parsed request.
struct Item {
    segment: usize,
    /// Where the next request begins in the segment.
    end: usize,
    argv: Range<usize>,
    what: What,
}

enum What {
    /// The id of a command, and the hash of its key if it has exactly one.
    Command(usize, Option<Hashed>),
    Odd(Box<Odd>),
}

/// What is not a command that may run as it came.
enum Odd {
    Refused(Fail),
    Inline(Vec<Vec<u8>>),
    Broken(ProtocolError),
}

/// What is parsed together: requests, their arguments, and the keys that they will look up.
#[derive(Default)]
struct Batch<'a> {
    items: Vec<Item>,
    argv: Vec<&'a [u8]>,
    keys: Vec<Upcoming<'static>>,
}

impl Batch<'_> {
    fn clear(&mut self) {
        self.items.clear();
        self.argv.clear();
        self.keys.clear();
    }
}

/// The executor's way to the rest of the node.
#[derive(Debug)]
pub struct NodeHost<'a> {
    pub node: &'a Arc<Node>,
}

impl Host for NodeHost<'_> {
    fn perform(
        &mut self,
        request: Request,
        client: &mut Client,
        db: &mut Db<'_, '_>,
        reply: &mut Reply,
    ) -> After {
        requests::perform(self.node, request, client, db, reply)
    }

    fn deliver(&mut self, waiter: &Arc<Waiter>, reply: Reply) {
        self.node.send(waiter.worker, Mail::Unblocked { waiter: Arc::clone(waiter), reply });
    }

    fn retry(&mut self, waiter: &Arc<Waiter>) {
        self.node.send(waiter.worker, Mail::Retry { waiter: Arc::clone(waiter) });
    }
}

impl Worker {
    pub fn new(index: usize, node: Arc<Node>, poll: Poll, mailbox: Arc<Mailbox>, seed: u64) -> Self {
        let executor = Executor::new(node.shared, Arc::clone(&node.stats[index]), seed);
        Self {
            index,
            node,
            poll,
            mailbox,
            executor,
            connections: Vec::new(),
            free: Vec::new(),
            ready: Vec::new(),
            reply: Reply::new(),
            gathered: vec![0; GATHER_SIZE],
            segments: Vec::new(),
            last_second: 0,
            last_ms: 0,
            next_expiry_ms: 0,
            next_shard: index,
            log_end: 0,
            query_limit: usize::MAX,
            stopped: false,
        }
    }

    /// Serves until the node ends.
    pub fn run(mut self) {
        super::process::crash::guard_thread();
        let mut events = Events::with_capacity(1024);
        let mut gathered = std::mem::take(&mut self.gathered);
        while !self.stopped {
            let timeout = if self.ready.is_empty() { self.idle_timeout() } else { Duration::ZERO };
            if let Err(e) = self.poll.poll(&mut events, Some(timeout))
                && e.kind() != ErrorKind::Interrupted
            {
                tracing::warn!("worker {} cannot wait for events: {e}", self.index);
            }
            let mut readable = std::mem::take(&mut self.ready);
            let carried_over = !readable.is_empty();
            for event in &events {
                let Token(token) = event.token();
                if token >= FIRST_LISTENER {
                    continue;
                }
                if event.is_writable() {
                    self.on_writable(token);
                }
                if event.is_readable() || event.is_error() || event.is_read_closed() {
                    readable.push(token);
                }
            }
            if carried_over {
                // A connection may be carried over and have an event too. Twice in a round it would
                // have its later input parsed without what the earlier left over.
                readable.sort_unstable();
                readable.dedup();
            }
            self.node.net.rounds.fetch_add(1, Ordering::Relaxed);
            self.executor.refresh();
            self.executor.publish_counts();
            let mut from = 0;
            while from < readable.len() {
                from += self.round(&mut gathered, &readable[from..]);
            }
            self.read_mail();
            self.on_time();
            self.feed_replicas();
        }
    }

    /// Wakes the replicas' links when this wake-up has brought something for them.
    #[inline]
    fn feed_replicas(&mut self) {
        let end = self.node.shared.keyspace.log.end();
        if end != self.log_end {
            self.log_end = end;
            self.node.replication.ring();
        }
    }

    /// How long to sleep when nothing happens: blocked clients have deadlines.
    fn idle_timeout(&self) -> Duration {
        let mut timeout = Duration::from_millis(100);
        if self.node.clients.blocked.load(Ordering::Relaxed) == 0 {
            return timeout;
        }
        let now = Instant::now();
        for c in self.connections.iter().flatten() {
            if let Some(Hold::Keys { deadline: Some(at), .. }) = &c.hold {
                timeout = timeout.min(at.saturating_duration_since(now));
            }
        }
        timeout
    }

    /// Reads, runs and answers as many of `tokens` as fit one round; returns how many.
    fn round(&mut self, gathered: &mut [u8], tokens: &[usize]) -> usize {
        let mut segments = std::mem::take(&mut self.segments);
        let taken = self.gather(gathered, tokens, &mut segments);
        self.run_segments(gathered, &mut segments);
        self.executor.publish_counts();
        self.send(gathered, &mut segments);
        segments.clear();
        self.segments = segments;
        taken
    }

    fn gather(&mut self, gathered: &mut [u8], tokens: &[usize], segments: &mut Vec<Segment>) -> usize {
        let mut used = 0;
        let (mut taken, mut input_bytes) = (0, 0);
        for &token in tokens {
            let Some(c) = self.connections.get_mut(token).and_then(Option::as_mut) else {
                taken += 1;
                continue;
            };
            let kept = c.input.len();
            let large = kept > 0 && kept.max(c.need) > READ_SIZE;
            if !large && used + kept + READ_SIZE > gathered.len() {
                break;
            }
            taken += 1;
            if c.hold.is_some() && kept > 64 * 1024 {
                // Enough waits already; the rest stays in the socket until the hold ends.
                c.more_to_read = true;
                continue;
            }
            let (read, room) = if large {
                let room = c.need.saturating_sub(kept).clamp(READ_SIZE, 1 << 20);
                c.input.resize(kept + room, 0);
                let read = c.stream.read(&mut c.input[kept..]);
                c.input.truncate(kept + read.as_ref().map_or(0, |n| *n));
                (read, room)
            } else {
                gathered[used..used + kept].copy_from_slice(&c.input);
                (c.stream.read(&mut gathered[used + kept..used + kept + READ_SIZE]), READ_SIZE)
            };
            match read {
                Ok(0) => {
                    self.close(token);
                    continue;
                }
                Ok(n) if kept + n > self.query_limit => {
                    tracing::warn!(
                        "Closing client that reached max query buffer length: id={} addr={}",
                        c.client.id,
                        c.client.addr
                    );
                    self.node.net.query_limit_closed.fetch_add(1, Ordering::Relaxed);
                    self.close(token);
                }
                Ok(n) => {
                    input_bytes += n as u64;
                    c.more_to_read = false;
                    if n == room {
                        self.ready.push(token);
                    }
                    if c.hold.is_some() {
                        if !large {
                            c.input.extend_from_slice(&gathered[used + kept..used + kept + n]);
                        }
                        continue;
                    }
                    let own = large.then(|| std::mem::take(&mut c.input));
                    let range = used..used + kept + n;
                    if own.is_none() {
                        c.input = Vec::new();
                        used = range.end;
                    }
                    segments.push(Segment::new(token, range, own, c));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => self.ready.push(token),
                Err(_) => self.close(token),
            }
        }
        if input_bytes > 0 {
            self.node.net.reads.fetch_add(segments.len() as u64, Ordering::Relaxed);
            self.node.net.input_bytes.fetch_add(input_bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Parses and runs everything in the segments, in batches.
    fn run_segments(&mut self, gathered: &[u8], segments: &mut [Segment]) {
        let config = self.node.config.load();
        let max_bulk = config.proto_max_bulk_len as usize;
        drop(config);
        let now = unix_ms();
        let mut batch = Batch::default();
        let mut at = 0;
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
            prefetch(&batch.keys);
            self.run_batch(&batch, segments, now);
        }
        for (i, own) in owned {
            segments[i].own = Some(own);
        }
    }

    #[inline(always)]
    fn parse_one<'a>(
        &self,
        input: &'a [u8],
        index: usize,
        s: &mut Segment,
        max_bulk: usize,
        batch: &mut Batch<'a>,
    ) {
        let first = batch.argv.len();
        let limits = Limits { max_bulk, authenticated: s.authenticated };
        let mut end = s.parsed;
        let odd = match parse(input, &mut end, &mut batch.argv, &limits) {
            Ok(Parsed::Command) => {
                let args = &batch.argv[first..];
                match self.executor.look_up(args) {
                    Ok(id) => {
                        let hashed = self.announce_keys(id, args, s.db, &mut batch.keys);
                        s.parsed = end;
                        let (argv, what) = (first..batch.argv.len(), What::Command(id, hashed));
                        batch.items.push(Item { segment: index, end, argv, what });
                        return;
                    }
                    Err(fail) => Odd::Refused(fail),
                }
            }
            Ok(Parsed::Inline(words)) => Odd::Inline(words),
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
                Odd::Broken(e)
            }
        };
        s.parsed = end;
        let (argv, what) = (first..batch.argv.len(), What::Odd(Box::new(odd)));
        batch.items.push(Item { segment: index, end, argv, what });
    }

    /// Adds the keys of a command to those that the batch will look up. Returns the hash of its key
    /// if it has exactly one.
    #[inline(always)]
    fn announce_keys(
        &self,
        id: usize,
        args: &[&[u8]],
        db: u16,
        keys: &mut Vec<Upcoming<'static>>,
    ) -> Option<Hashed> {
        let shared = self.executor.shared;
        let listed = shared.commands.get(id);
        if let Some(at) = listed.single_key {
            let hashed = shared.keyspace.hashed(args.get(at)?);
            if let Some(key) = shared.keyspace.upcoming(db, hashed) {
                keys.push(key);
            }
            return Some(hashed);
        }
        if !listed.command.keys.is_empty() {
            let positions = listed.command.key_positions(args).unwrap_or_default();
            for at in positions.into_iter().take(PREFETCH_KEYS) {
                keys.extend(shared.keyspace.upcoming(db, shared.keyspace.hashed(args[at])));
            }
        }
        None
    }

    fn run_batch(&mut self, batch: &Batch<'_>, segments: &mut [Segment], now: UnixMs) {
        let started = Instant::now();
        let mut reply = std::mem::take(&mut self.reply);
        let mut ran = 0u32;
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
            }
            for item in items {
                self.run_item(item, &batch.argv[item.argv.clone()], &mut c, s, now, &mut reply);
                ran += 1;
                if s.stopped {
                    break;
                }
            }
            s.reply.end = reply.len();
            self.connections[s.token] = Some(c);
        }
        self.reply = reply;
        // One clock read a batch: each command is counted with its share of the batch's time.
        let share = started.elapsed().as_nanos() as u64 / u64::from(ran.max(1));
        self.executor.stats.count_calls(batch.items.iter().filter_map(|item| match item.what {
            What::Command(id, _) if item.end <= segments[item.segment].consumed => Some((id, share)),
            _ => None,
        }));
    }

    #[inline(always)]
    fn run_item(
        &mut self,
        item: &Item,
        args: &[&[u8]],
        c: &mut Connection,
        s: &mut Segment,
        now: UnixMs,
        reply: &mut Reply,
    ) {
        let before = reply.len();
        match &item.what {
            What::Command(id, hashed) => self.run_command(c, *id, args, *hashed, s, item.end, now, reply),
            What::Odd(odd) => self.run_odd(odd, c, s, item.end, now, reply),
        }
        if c.client.reply_mode != ReplyMode::On {
            let pushes = matches!(item.what, What::Command(id, _) if self.executor.shared.commands.get(id).command.has(flags::PUSHES));
            apply_reply_mode(&mut c.client, if pushes { reply.len() } else { before }, reply);
        }
    }

    #[cold]
    fn run_odd(
        &mut self,
        odd: &Odd,
        c: &mut Connection,
        s: &mut Segment,
        end: usize,
        now: UnixMs,
        reply: &mut Reply,
    ) {
        match odd {
            Odd::Inline(words) => {
                let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                match self.executor.look_up(&args) {
                    Ok(id) => self.run_command(c, id, &args, None, s, end, now, reply),
                    Err(fail) => self.refuse(c, &fail, s, end, reply),
                }
            }
            Odd::Refused(fail) => self.refuse(c, fail, s, end, reply),
            Odd::Broken(e) => {
                reply.error(&format!("ERR {e}"));
                self.executor.stats.count_error("ERR");
                c.closing = true;
                s.stopped = true;
            }
        }
    }

    fn refuse(&mut self, c: &mut Connection, fail: &Fail, s: &mut Segment, end: usize, reply: &mut Reply) {
        s.consumed = end;
        if *fail == Fail::OtherProtocol {
            tracing::warn!(
                "Possible SECURITY ATTACK detected: HTTP from {}, connection closed",
                c.client.addr
            );
            c.closing = true;
            s.stopped = true;
            return;
        }
        let text = self.executor.note_refusal(&mut c.client, None, fail.clone()).to_string();
        reply.error(&text);
        self.executor.stats.count_error(&text);
    }

    #[inline(always)]
    fn run_command(
        &mut self,
        c: &mut Connection,
        id: usize,
        args: &[&[u8]],
        hashed: Option<Hashed>,
        s: &mut Segment,
        end: usize,
        now: UnixMs,
        reply: &mut Reply,
    ) {
        let mut host = NodeHost { node: &self.node };
        let version = c.client.version;
        let begin = std::mem::replace(&mut s.consumed, end);
        s.commands += 1;
        s.last_command = id;
        match self.executor.execute(&mut host, &mut c.client, id, args, hashed, now, reply) {
            After::Done => {}
            After::Blocked(blocked) => {
                let Blocked { waiter, timeout, timeout_reply } = *blocked;
                let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
                c.hold = Some(Hold::Keys { waiter, deadline, timeout_reply });
                c.entry.times_out.store(timeout.is_some(), Ordering::Relaxed);
                c.entry.blocked.store(true, Ordering::Release);
                self.node.clients.blocked.fetch_add(1, Ordering::Relaxed);
                s.stopped = true;
            }
            After::Suspended => {
                c.hold = Some(Hold::Host);
                s.stopped = true;
            }
            After::Postponed => {
                c.hold = Some(Hold::Pause);
                s.consumed = begin;
                s.stopped = true;
            }
            After::Detached => s.stopped = true,
        }
        if c.client.close_after_reply {
            c.closing = true;
            s.stopped = true;
        }
        s.authenticated = c.client.authenticated;
        s.db = c.client.db;
        if c.client.version != version {
            *c.entry.state.lock() = ClientState::of(&c.client, c.hold.is_some());
        }
    }

    /// Sends each connection its replies and gives back what it has not consumed.
    fn send(&mut self, gathered: &[u8], segments: &mut [Segment]) {
        let reply = std::mem::take(&mut self.reply);
        let second = self.last_second;
        let mut output_bytes = 0;
        for s in segments {
            let Some(c) = self.connections[s.token].as_mut() else { continue };
            let left = &s.input(gathered)[s.consumed..];
            if !left.is_empty() {
                c.input = if s.own.is_some() && s.consumed == 0 {
                    s.own.take().unwrap_or_default()
                } else {
                    left.to_vec()
                };
                c.need = s.need;
                // It counts from the start of the request, which must be where the input begins.
                c.progress = s.progress.filter(|_| s.consumed == s.parsed);
            }
            c.entry.query_bytes.store(c.input.len(), Ordering::Relaxed);
            c.last_seen = second;
            c.entry.last_seen.store(second as i64, Ordering::Relaxed);
            c.entry.last_command.store(s.last_command, Ordering::Relaxed);
            let mut failed = false;
            if !s.reply.is_empty() {
                output_bytes += s.reply.len() as u64;
                failed = c.send_segment(&reply, s.reply.start, s.reply.end).is_err();
            }
            if failed || (c.closing && c.output.is_empty()) {
                self.close(s.token);
            } else if c.client.sync.is_some() {
                self.detach(s.token);
            } else if !c.output.is_empty() {
                self.check_output(s.token);
            }
        }
        if output_bytes > 0 {
            self.node.net.writes.fetch_add(1, Ordering::Relaxed);
            self.node.net.output_bytes.fetch_add(output_bytes, Ordering::Relaxed);
        }
        self.reply = reply;
        self.reply.recycle();
    }

    fn on_writable(&mut self, token: usize) {
        let Some(c) = self.connections.get_mut(token).and_then(Option::as_mut) else { return };
        if c.output.is_empty() {
            return;
        }
        if c.flush().is_err() || (c.closing && c.output.is_empty()) {
            self.close(token);
        } else {
            c.entry.output_bytes.store(c.output.len(), Ordering::Relaxed);
        }
    }

    /// Closes a client whose unsent output exceeds its limit.
    fn check_output(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_mut() else { return };
        c.entry.output_bytes.store(c.output.len(), Ordering::Relaxed);
        let config = self.node.config.load();
        let limits = &config.client_output_buffer_limit;
        let limit = if c.client.subscriptions() > 0 { &limits.pubsub } else { &limits.normal };
        let len = c.output.len() as u64;
        let over_hard = limit.hard_bytes > 0 && len > limit.hard_bytes;
        let over_soft = limit.soft_bytes > 0 && len > limit.soft_bytes;
        if !over_soft {
            c.over_soft_limit_since = None;
        }
        let since = over_soft.then(|| *c.over_soft_limit_since.get_or_insert(self.last_second));
        if over_hard || since.is_some_and(|at| self.last_second.saturating_sub(at) > limit.soft_seconds) {
            tracing::warn!(
                "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits.",
                c.client.id,
                c.client.addr
            );
            self.node.net.output_limit_closed.fetch_add(1, Ordering::Relaxed);
            self.close(token);
        }
    }

    fn read_mail(&mut self) {
        // Messages to listeners are gathered and sent once a connection, before anything else that
        // may happen to it.
        let mut listeners = Vec::new();
        for mail in self.mailbox.take() {
            if !matches!(mail, Mail::Push { .. }) {
                self.flush_all(&mut listeners);
            }
            match mail {
                Mail::Accepted(stream, addr, local) => self.adopt(stream, addr, local),
                Mail::Push { token, client, bytes } => {
                    if let Some(c) = self.connection(token, client)
                        // Who has just left its last channel takes whatever comes for a reply.
                        && (c.client.resp3 || c.client.subscriptions() > 0)
                    {
                        c.queue_message(bytes);
                        listeners.push(token);
                    }
                }
                Mail::Unblocked { waiter, reply } => {
                    if self.end_hold(waiter.token, waiter.client) {
                        self.answer(waiter.token, &reply);
                    }
                }
                Mail::Retry { waiter } => self.retry(&waiter),
                Mail::Resume { token, client, reply } => {
                    if self.end_hold(token, client) {
                        self.answer(token, &reply);
                    }
                }
                Mail::Kill { token, client, after_reply } => {
                    if let Some(c) = self.connection(token, client) {
                        if after_reply && !c.output.is_empty() {
                            c.closing = true;
                        } else {
                            self.close(token);
                        }
                    } else {
                        self.node.replication.kill(&self.node, client);
                    }
                }
                Mail::Demoted => self.let_go(),
                Mail::Unblock { token, client, with_error } => self.unblock(token, client, with_error),
                Mail::Sleep(until) => std::thread::sleep(until.saturating_duration_since(Instant::now())),
                Mail::Recheck => self.recheck_blocked(),
                Mail::Unpaused => {
                    let paused = |c: &Connection| matches!(c.hold, Some(Hold::Pause));
                    let tokens: Vec<usize> = self
                        .connections
                        .iter()
                        .flatten()
                        .filter(|c| paused(c))
                        .map(|c| c.client.token)
                        .collect();
                    for token in tokens {
                        if let Some(c) = self.connections[token].as_mut() {
                            c.hold = None;
                        }
                        self.go_on(token);
                    }
                }
                Mail::Shutdown => {
                    for token in 0..self.connections.len() {
                        if let Some(c) = self.connections[token].as_mut() {
                            let _ = c.flush();
                        }
                        self.close(token);
                    }
                    self.stopped = true;
                }
            }
        }
        self.flush_all(&mut listeners);
    }

    /// Sends what was queued for these connections.
    fn flush_all(&mut self, tokens: &mut Vec<usize>) {
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens.drain(..) {
            self.flush_now(token);
        }
    }

    fn connection(&mut self, token: usize, client: u64) -> Option<&mut Connection> {
        let c = self.connections.get_mut(token)?.as_deref_mut()?;
        (c.client.id == client).then_some(c)
    }

    fn flush_now(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_mut() else { return };
        if c.flush().is_err() || (c.closing && c.output.is_empty()) {
            self.close(token);
        } else if !c.output.is_empty() {
            self.check_output(token);
        }
    }

    /// Ends a client's wait. False when it is gone or does not wait.
    fn end_hold(&mut self, token: usize, client: u64) -> bool {
        let Some(c) = self.connection(token, client) else { return false };
        let hold = c.hold.take();
        if matches!(hold, Some(Hold::Keys { .. })) {
            c.entry.blocked.store(false, Ordering::Release);
            self.node.clients.blocked.fetch_sub(1, Ordering::Relaxed);
        }
        hold.is_some()
    }

    /// Sends a reply to a client that waited, and goes on with what it sent meanwhile.
    fn answer(&mut self, token: usize, reply: &Reply) {
        if let Some(c) = self.connections[token].as_mut() {
            if c.client.reply_mode == ReplyMode::On {
                c.queue_reply(reply);
            }
            self.flush_now(token);
        }
        self.go_on(token);
    }

    /// Runs a connection's kept input, as if it had just come.
    fn go_on(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_mut() else { return };
        if c.more_to_read {
            self.ready.push(token);
        }
        if c.input.is_empty() {
            return;
        }
        let own = std::mem::take(&mut c.input);
        let mut segments = [Segment::new(token, 0..0, Some(own), c)];
        self.run_segments(&[], &mut segments);
        self.send(&[], &mut segments);
    }

    /// Runs the commands of all blocked clients again: those whose slot has left are redirected,
    /// the others go on waiting.
    fn recheck_blocked(&mut self) {
        let waiters: Vec<Arc<Waiter>> = self
            .connections
            .iter()
            .flatten()
            .filter_map(|c| {
                if let Some(Hold::Keys { waiter, .. }) = &c.hold { Some(Arc::clone(waiter)) } else { None }
            })
            .collect();
        for waiter in waiters {
            self.retry(&waiter);
        }
    }

    /// Runs the command of a blocked client again on its own worker.
    fn retry(&mut self, waiter: &Arc<Waiter>) {
        let Some(c) = self.connection(waiter.token, waiter.client) else { return };
        let Some(Hold::Keys { waiter: current, deadline, .. }) = &c.hold else { return };
        if !Arc::ptr_eq(current, waiter) || !waiter.claim() {
            return;
        }
        let deadline = *deadline;
        let now = unix_ms();
        self.executor.forget_waiter(waiter, now);
        self.end_hold(waiter.token, waiter.client);
        let Some(mut c) = self.connections[waiter.token].take() else { return };
        let args: Vec<&[u8]> = waiter.argv.iter().map(Vec::as_slice).collect();
        let mut reply = Reply::new();
        if let Ok(id) = self.executor.look_up(&args) {
            let mut s = Segment::new(waiter.token, 0..0, None, &c);
            self.run_command(&mut c, id, &args, None, &mut s, 0, now, &mut reply);
        }
        // The wait goes on until the time that it began with.
        if let Some(Hold::Keys { deadline: at, .. }) = &mut c.hold {
            *at = deadline;
        }
        let done = c.hold.is_none();
        self.connections[waiter.token] = Some(c);
        if done {
            self.answer(waiter.token, &reply);
        }
    }

    /// What happens by time: deadlines of blocked clients, idle clients, dead keys.
    fn on_time(&mut self) {
        let now_ms = unix_ms();
        if now_ms == self.last_ms {
            return;
        }
        self.last_ms = now_ms;
        if self.node.clients.blocked.load(Ordering::Relaxed) > 0 {
            self.time_out_blocked(Instant::now(), now_ms);
        }
        if now_ms >= self.next_expiry_ms {
            self.next_expiry_ms = now_ms + EXPIRY_PERIOD_MS;
            self.expire_some(now_ms);
        }
        let second = now_ms as u64 / 1000;
        if second != self.last_second {
            self.last_second = second;
            self.query_limit = self.node.config.load().client_query_buffer_limit as usize;
            self.close_idle(second);
        }
    }

    /// This worker's part of active expiry: its share of the shards, each with a bounded number of
    /// keys, so that all shards are visited within a second.
    fn expire_some(&mut self, now: UnixMs) {
        if self.node.shared.is_replica.load(Ordering::Relaxed) || !self.node.active_expire() {
            return;
        }
        let workers = self.node.workers.get().map_or(1, Vec::len);
        let keys = EXPIRY_KEYS * self.node.config.load().active_expire_effort as usize;
        for _ in 0..SHARDS_PER_PERIOD {
            let shard = self.next_shard;
            self.next_shard += workers;
            if self.next_shard >= SHARDS {
                self.next_shard = self.index % SHARDS;
            }
            self.executor.expire_shard(shard, now, keys);
        }
    }

    fn time_out_blocked(&mut self, now: Instant, now_ms: UnixMs) {
        for token in 0..self.connections.len() {
            let Some(c) = self.connections[token].as_mut() else { continue };
            let Some(Hold::Keys { waiter, deadline: Some(at), timeout_reply }) = &c.hold else { continue };
            // A claimed waiter is being served at this moment; its answer is on its way.
            if *at > now || !waiter.claim() {
                continue;
            }
            let (waiter, kind) = (Arc::clone(waiter), *timeout_reply);
            let mut reply = Reply::new();
            reply.set_resp3(c.client.resp3);
            write_timeout(kind, &mut reply);
            self.executor.forget_waiter(&waiter, now_ms);
            self.end_hold(token, waiter.client);
            self.answer(token, &reply);
        }
    }

    /// Ends the wait of a client as its timeout would, or with an error.
    fn unblock(&mut self, token: usize, client: u64, with_error: bool) {
        let Some(c) = self.connection(token, client) else { return };
        let Some(Hold::Keys { waiter, timeout_reply, .. }) = &c.hold else { return };
        if !waiter.claim() {
            return;
        }
        let (waiter, kind) = (Arc::clone(waiter), *timeout_reply);
        let mut reply = Reply::new();
        reply.set_resp3(c.client.resp3);
        if with_error {
            reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
        } else {
            write_timeout(kind, &mut reply);
        }
        self.executor.forget_waiter(&waiter, unix_ms());
        self.end_hold(token, client);
        self.answer(token, &reply);
    }

    /// Ends every wait with an error, and the connection with it: what the client waited for cannot
    /// happen on a replica.
    fn let_go(&mut self) {
        for token in 0..self.connections.len() {
            let Some(c) = self.connections[token].as_ref() else { continue };
            let waiter = match &c.hold {
                Some(Hold::Keys { waiter, .. }) if waiter.claim() => Some(Arc::clone(waiter)),
                Some(Hold::Host) => None,
                _ => continue,
            };
            let client = c.client.id;
            if let Some(waiter) = waiter {
                self.executor.forget_waiter(&waiter, unix_ms());
            }
            self.end_hold(token, client);
            let mut reply = Reply::new();
            reply.error(
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            );
            if let Some(c) = self.connections[token].as_mut() {
                c.closing = true;
                c.input.clear();
            }
            self.answer(token, &reply);
        }
    }

    /// Closes clients that were silent for longer than `timeout` seconds.
    fn close_idle(&mut self, second: u64) {
        let timeout = u64::from(self.node.config.load().timeout);
        for token in 0..self.connections.len() {
            let Some(c) = self.connections[token].as_ref() else { continue };
            let idle = second.saturating_sub(c.last_seen);
            if timeout > 0 && idle > timeout && c.hold.is_none() && c.client.subscriptions() == 0 {
                self.close(token);
            } else if !c.output.is_empty() || c.over_soft_limit_since.is_some() {
                self.check_output(token);
            }
        }
    }

    /// Takes a new connection on.
    fn adopt(&mut self, mut stream: Stream, addr: String, local_addr: String) {
        let token = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        if let Err(e) = stream.register(self.poll.registry(), Token(token)) {
            tracing::warn!("Error registering fd event for the new client: {e}");
            self.free.push(token);
            self.node.clients.release();
            return;
        }
        let fd = stream.fd();
        let client = Client {
            id: self.node.clients.next_id(),
            worker: self.index,
            token,
            addr,
            local_addr,
            created: unix_ms(),
            authenticated: self.node.admits_without_password(),
            resp3: self.node.config.load().client_default_resp == 3,
            user: "default".into(),
            ..Client::default()
        };
        let entry = self.node.clients.add(&client, fd);
        self.connections[token] = Some(Box::new(Connection {
            stream,
            client,
            entry,
            input: Vec::new(),
            need: 0,
            progress: None,
            output: Outbox::default(),
            hold: None,
            closing: false,
            last_seen: self.last_second,
            over_soft_limit_since: None,
            more_to_read: false,
        }));
        // It may have sent something before it was registered.
        self.ready.push(token);
    }

    /// Hands a connection that asked for our data to the control thread.
    fn detach(&mut self, token: usize) {
        let Some(mut c) = self.connections[token].take() else { return };
        c.stream.deregister(self.poll.registry());
        self.free.push(token);
        self.executor.unwatch(&mut c.client);
        requests::on_detach(&self.node, &mut c.client);
        c.client.token = usize::MAX;
        // Under its new role, in the place of the former entry.
        self.node.clients.add(&c.client, c.stream.fd());
        let Connection { stream, mut client, input, output, .. } = *c;
        replication::take_over(&self.node, &mut client, stream.into_std(), input, output.into_bytes());
    }

    fn close(&mut self, token: usize) {
        let Some(mut c) = self.connections[token].take() else { return };
        tracing::debug!("Client closed connection id={} addr={}", c.client.id, c.client.addr);
        c.stream.deregister(self.poll.registry());
        self.free.push(token);
        self.node.clients.remove(c.client.id);
        let waited = matches!(c.hold, Some(Hold::Host));
        if let Some(Hold::Keys { waiter, .. }) = c.hold.take() {
            self.node.clients.blocked.fetch_sub(1, Ordering::Relaxed);
            waiter.claimed.store(true, Ordering::Release);
            self.executor.forget_waiter(&waiter, unix_ms());
        }
        self.executor.unwatch(&mut c.client);
        requests::on_close(&self.node, &mut c.client, waited);
    }
}

impl Segment {
    fn new(token: usize, range: Range<usize>, own: Option<Vec<u8>>, c: &Connection) -> Self {
        // Only input that was kept has been looked through.
        let has_own = own.is_some();
        Self {
            token,
            range,
            own,
            parsed: 0,
            progress: c.progress.filter(|_| has_own),
            consumed: 0,
            need: 0,
            stopped: false,
            exhausted: false,
            authenticated: c.client.authenticated,
            db: c.client.db,
            reply: 0..0,
            commands: 0,
            last_command: usize::MAX,
        }
    }
}

fn write_timeout(kind: TimeoutReply, reply: &mut Reply) {
    match kind {
        TimeoutReply::Null => reply.null(),
        TimeoutReply::NullArray => reply.null_array(),
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
