//! A worker: the thread that reads clients' commands, runs them and writes the replies.
//!
//! Each wake-up is one round: **gather** what all ready connections have sent, **parse** up to 64
//! commands across them, **prefetch** the memory that they will touch in stages, **run** them in
//! order, and **send** once a connection. Prefetching across connections is what hides the cache
//! misses that otherwise dominate a command.
//!
//! | file | concept |
//! |---|---|
//! | `segment` | the two ends of a round: gather and send |
//! | `batch` | its middle: parse, prefetch, run |
//! | `turns` | which connections go first, and which go behind |
//! | `scripts` | scripts and long transactions, which serve the others from within |
//! | `waiting` | clients that wait: for a key, for the node, for the end of a pause |
//! | `held` | replies that wait for the log |
//! | `mail` | what other threads want of a connection |
//! | `deadlines` | what becomes due, in the order of time |
//! | `expiry` | keys and fields that have died, of its share of the shards |
//! | `shaking` | handshakes of TLS, which are rationed |
//! | `greedy` | clients that are closed for the memory that they take |

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::base::time::UnixMs;
use crate::command::{Client, gate};
use crate::config::compound::OutputLimits;
use crate::exec::Executor;
use crate::exec::upkeep::Room;
use crate::keyspace::Garbage;
use crate::resp::Reply;
use crate::server::commands;
use crate::server::control::replication;
use crate::server::net::connection::{Connection, Hold, Outbox, Sent, Stream, Wait};
use crate::server::net::mailbox::Mailbox;
use crate::server::node::connected::Usage;
use crate::server::node::host::NodeHost;
use crate::server::node::{Node, unix_ms};
use crate::server::process::clock::now_ns;

mod batch;
mod deadlines;
mod expiry;
mod greedy;
mod held;
mod mail;
mod scripts;
mod segment;
mod shaking;
mod turns;
mod waiting;

use batch::Batch;
use deadlines::{Deadlines, Kind};
use expiry::Expiry;
use held::Held;
use scripts::Scripts;
use segment::Segment;
use turns::Turns;

/// The token of the mailbox's waker; listeners and connections count from 0 and up.
pub const WAKER: Token = Token(usize::MAX);
/// Listeners have tokens from here on.
pub const FIRST_LISTENER: usize = usize::MAX - 64;

/// What is read from a connection at once.
const READ_SIZE: usize = 16 * 1024;
/// The memory of a client that took so many bytes is freed by another thread when it disconnects, so that others need
/// not wait for that.
const MUCH_TO_FREE: usize = 256 * 1024;
/// Room for the input of one round.
const GATHER_SIZE: usize = 1 << 20;

/// One worker's own state.
pub struct Worker {
    /// Its number, from 0; mail and clients name it by that.
    pub index: usize,
    /// The node that it works for.
    pub node: Arc<Node>,
    /// What it waits at for sockets and its mailbox.
    pub poll: Poll,
    /// Where other threads leave messages for it.
    pub mailbox: Arc<Mailbox>,
    /// Boxed, because it changes places with another for each script.
    executor: Box<Executor>,
    scripts: Scripts,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    /// Places of connections that run nothing for now.
    held: BTreeSet<usize>,
    deadlines: Deadlines,
    /// Tokens that may have more to read than the last read took.
    ready: Vec<usize>,
    turns: Turns,
    reply: Reply,
    /// Bytes that it took at the end of the last round.
    reply_capacity: usize,
    /// Room for the input of a round.
    gathered: Vec<u8>,
    /// Kept for their allocation.
    segments: Vec<Segment>,
    batch: Batch<'static>,
    /// When [`Worker::on_time`] last ran, by [`Node::steady_ms`], in seconds; `last_ms` in milliseconds.
    last_second: u64,
    last_ms: UnixMs,
    expiry: Expiry,
    /// The end of the log when its readers were last woken.
    log_end: u64,
    replies_held: Held,
    /// Looked up at each wake-up: `client-output-buffer-limit` and `client-query-buffer-limit`.
    output_limits: OutputLimits,
    query_limit: usize,
    /// How many handshakes may go on in this wake-up (`max-new-tls-connections-per-cycle`).
    shakes_left: u32,
    /// `timeout` in seconds, looked up once a second.
    idle_limit: u64,
    /// Memory is above its limit, and keys can go.
    evicting: bool,
    /// What clients took, in bytes, when nobody was left to be evicted.
    spared_at: usize,
    stopped: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker without connections; it runs on the thread that calls [`run`](Self::run).
    pub fn new(index: usize, node: Arc<Node>, poll: Poll, mailbox: Arc<Mailbox>, seed: u64) -> Self {
        let executor = |seed| {
            let node_of_commands = Box::new(Arc::clone(&node));
            let stats = Arc::clone(&node.records.counters.commands[index]);
            Box::new(Executor::new(node.shared, node_of_commands, stats, seed, now_ns))
        };
        let (executor, spare) = (executor(seed), executor(seed.rotate_left(32)));
        let scripts = Scripts::new(spare, Arc::clone(&node));
        Self {
            index,
            node,
            poll,
            mailbox,
            executor,
            scripts,
            connections: Vec::new(),
            free: Vec::new(),
            held: BTreeSet::new(),
            deadlines: Deadlines::default(),
            ready: Vec::new(),
            turns: Turns::default(),
            reply: Reply::new(),
            reply_capacity: 0,
            gathered: vec![0; GATHER_SIZE],
            segments: Vec::new(),
            batch: Batch::default(),
            last_second: 0,
            last_ms: 0,
            expiry: Expiry::of_worker(index),
            log_end: 0,
            replies_held: Held::default(),
            output_limits: OutputLimits::default(),
            query_limit: usize::MAX,
            shakes_left: 0,
            idle_limit: 0,
            evicting: false,
            spared_at: 0,
            stopped: false,
        }
    }

    /// Serves until the node ends.
    pub fn run(mut self) {
        crate::server::process::crash::guard_thread();
        let mut events = Events::with_capacity(1024);
        let mut gathered = std::mem::take(&mut self.gathered);
        while !self.stopped {
            let rests = self.ready.is_empty() && self.turns.is_empty();
            let timeout = if rests { self.idle_timeout() } else { Duration::ZERO };
            let readable = self.wait_for_events(&mut events, timeout);
            self.node.records.counters.net.rounds.fetch_add(1, Ordering::Relaxed);
            self.reload_limits();
            self.executor.refresh();
            self.executor.publish_counts();
            let mut from = 0;
            while from < readable.len() {
                from += self.round(&mut gathered, &readable[from..]);
            }
            self.read_mail();
            self.serve_those_behind(&mut gathered);
            self.run_scripts();
            self.on_time();
            self.evict_clients();
            self.hand_over();
            self.release_held();
        }
    }

    /// Which connections have something to read and go first. Those that can be written to are written to here.
    fn wait_for_events(&mut self, events: &mut Events, timeout: Duration) -> Vec<usize> {
        if let Err(e) = self.poll.poll(events, Some(timeout))
            && e.kind() != ErrorKind::Interrupted
        {
            tracing::warn!("worker {} cannot wait for events: {e}", self.index);
        }
        let mut readable = std::mem::take(&mut self.ready);
        let carried_over = !readable.is_empty();
        for event in &*events {
            let Token(token) = event.token();
            if token >= FIRST_LISTENER {
                continue;
            }
            if event.is_writable() {
                self.on_writable(token);
            }
            if event.is_read_closed() {
                match self.connections.get_mut(token).and_then(Option::as_mut) {
                    Some(c) => (c.read_closed, c.behind) = (true, true),
                    None => self.scripts.note_closed(token),
                }
            }
            if event.is_readable() || event.is_error() || event.is_read_closed() {
                readable.push(token);
            }
        }
        if carried_over {
            // A connection may be left over from the last round and have an event, too. Twice in one round, its
            // later input would be parsed without what is left of the earlier.
            readable.sort_unstable();
            readable.dedup();
        }
        self.line_up(&mut readable);
        readable
    }

    /// How long to sleep when nothing happens.
    fn idle_timeout(&self) -> Duration {
        if self.evicting {
            return Duration::from_millis(1);
        }
        let longest = self.expiry.idle_timeout(self.last_ms);
        self.deadlines.next().map_or(longest, |at| longest.min(at.saturating_duration_since(Instant::now())))
    }

    /// Reads, runs and answers as many of `tokens` as fit one round; returns how many.
    fn round(&mut self, gathered: &mut [u8], tokens: &[usize]) -> usize {
        let mut segments = std::mem::take(&mut self.segments);
        let taken = self.gather(gathered, tokens, &mut segments);
        self.read_news();
        self.run_segments(gathered, &mut segments);
        self.send(gathered, &mut segments);
        segments.clear();
        self.segments = segments;
        taken
    }

    /// What happens by time: deadlines of connections, dead keys, and what was left to do later.
    fn on_time(&mut self) {
        let steady_ms = self.node.steady_ms();
        if steady_ms == self.last_ms {
            return;
        }
        self.last_ms = steady_ms;
        let now = unix_ms();
        if self.deadlines.next().is_some() {
            self.meet_deadlines(Instant::now());
        }
        self.evict_some(now);
        if steady_ms >= self.expiry.next_ms {
            self.executor.do_chores(now);
            self.expire_some(now, steady_ms);
        }
        let second = steady_ms as u64 / 1000;
        if second != self.last_second {
            self.last_second = second;
            self.reload_idle_limit();
        }
    }

    fn meet_deadlines(&mut self, now: Instant) {
        while let Some((token, kind)) = self.deadlines.take_due(now) {
            match kind {
                Kind::Blocked => self.time_out(token),
                Kind::Idle => self.close_if_idle(token),
                Kind::Output => self.check_output(token),
                Kind::Handshake => self.give_handshake_up(token),
            }
        }
    }

    fn reload_limits(&mut self) {
        let config = self.node.config.load();
        self.output_limits = config.client_output_buffer_limit;
        self.query_limit = config.client_query_buffer_limit as usize;
        self.shakes_left = config.max_new_tls_connections_per_cycle;
    }

    fn reload_idle_limit(&mut self) {
        let idle_limit = u64::from(self.node.config.load().timeout);
        if std::mem::replace(&mut self.idle_limit, idle_limit) != idle_limit {
            for token in 0..self.connections.len() {
                if self.connections[token].is_some() {
                    self.close_if_idle(token);
                }
            }
        }
    }

    /// Evicts keys while memory is above its limit, also when nobody writes.
    fn evict_some(&mut self, now: UnixMs) {
        if self.node.shared.gate.load(Ordering::Relaxed) & gate::MEMORY_LIMIT == 0 {
            self.node.records.counters.exceeded.note(false, self.node.mono_ms());
            return;
        }
        let room = self.executor.make_room(&mut NodeHost::new(&self.node), now);
        self.evicting = room == Room::Soon;
        self.node.records.counters.exceeded.note(room != Room::Enough, self.node.mono_ms());
    }

    /// Closes a client that was silent for longer than `timeout` seconds, or sets the time to look again.
    fn close_if_idle(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_ref() else { return };
        let idle = self.last_second.saturating_sub(c.last_seen);
        let waits = c.hold.is_some() || c.client.subscriptions() > 0;
        if self.idle_limit == 0 {
            self.deadlines.set(token, Kind::Idle, None);
        } else if idle > self.idle_limit && !waits && !self.node.life.stopped.cron.load(Ordering::Relaxed) {
            self.close(token);
        } else {
            let left = if waits { self.idle_limit } else { self.idle_limit.saturating_sub(idle) };
            self.deadlines.set(token, Kind::Idle, Some(Instant::now() + Duration::from_secs(left + 1)));
        }
    }

    /// Takes a new connection on; one with a `refusal` is told that and closed.
    fn adopt(&mut self, mut stream: Stream, addr: String, local_addr: String, refusal: Option<&str>) {
        let token = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        if let Err(e) = stream.register(self.poll.registry(), Token(token)) {
            tracing::warn!("Error registering fd event for the new client: {e}");
            self.free.push(token);
            self.node.people.clients.release();
            return;
        }
        let fd = stream.fd();
        let mut client = Client {
            id: self.node.people.clients.next_id(),
            worker: self.index,
            token,
            tls: matches!(stream, Stream::Tls(_)),
            addr,
            local_addr,
            created: self.node.steady_ms(),
            resp3: self.node.config.load().client_default_resp == 3,
            ..Client::default()
        };
        self.node.log_in_as_default(&mut client);
        let entry = self.node.people.clients.add(&client, fd);
        self.connections[token] = Some(Box::new(Connection {
            stream,
            client,
            entry,
            input: Vec::new(),
            need: 0,
            progress: None,
            output: Outbox::default(),
            held: false,
            hold: None,
            mute: false,
            closing: false,
            last_seen: self.last_second,
            over_soft_limit_since: None,
            more_to_read: false,
            read_closed: false,
            behind: true,
            in_line: false,
            unrun: false,
            more_to_send: false,
            sent: Sent::default(),
            reply_peak: (0, self.last_second),
            usage: Usage::default(),
        }));
        if let Some(c) = self.connections[token].as_mut() {
            if let Some(text) = refusal {
                c.queue_message(text.as_bytes().into());
                c.closing = true;
            }
            c.note_usage(&self.node.people.clients, self.last_second);
        }
        self.close_if_idle(token);
        self.expect_handshake(token);
        // It may have sent something before it was registered.
        self.ready.push(token);
    }

    /// Hands a connection that asked for our data to the control thread.
    fn detach(&mut self, token: usize) {
        let Some(mut c) = self.connections[token].take() else { return };
        c.stream.deregister(self.poll.registry());
        self.free_place(token);
        self.executor.unwatch(&mut c.client);
        commands::on_detach(&self.node, &mut c.client);
        self.node.people.clients.count_memory(c.usage.total, 0);
        c.client.token = usize::MAX;
        // Under its new role, in the place of the former entry.
        self.node.people.clients.add(&c.client, c.stream.fd());
        let Connection { stream, mut client, input, output, .. } = *c;
        let node = Arc::clone(&self.node);
        // It locks all shards, and a worker must not sleep for them.
        let attach = move || {
            replication::take_over(&node, &mut client, stream.into_std(), input, output.into_bytes());
        };
        if let Err(e) = std::thread::Builder::new().name("attach".into()).spawn(attach) {
            tracing::warn!("A replica is sent away, because no thread can be started for it: {e}");
        }
    }

    /// Leaves the place of a connection that is gone to the next one.
    fn free_place(&mut self, token: usize) {
        self.held.remove(&token);
        self.deadlines.forget(token);
        self.free.push(token);
    }

    fn close(&mut self, token: usize) {
        let Some(mut c) = self.connections[token].take() else { return };
        tracing::debug!("Client closed connection id={} addr={}", c.client.id, c.client.addr);
        c.stream.say_end();
        c.stream.deregister(self.poll.registry());
        self.free_place(token);
        // In this order: see `close_greediest`.
        self.node.people.clients.count_memory(c.usage.total, 0);
        self.node.people.clients.remove(c.client.id);
        let hold = c.hold.take();
        if let Some(counter) = hold.as_ref().and_then(|hold| hold.counter(&self.node.people.clients)) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
        let waited = matches!(hold, Some(Hold::Host { .. }));
        if let Some(Hold::Keys(Wait { waiter, .. })) = hold {
            waiter.claimed.store(true, Ordering::Release);
            self.executor.forget_waiter(&waiter, unix_ms());
        }
        self.executor.unwatch(&mut c.client);
        commands::on_close(&self.node, &mut c.client, waited);
        if c.usage.total >= MUCH_TO_FREE {
            let left = (c.client.take_multi(), std::mem::take(&mut c.input), std::mem::take(&mut c.output));
            self.node.shared.keyspace.discard(Garbage::Buffers(Box::new(left)));
        }
    }
}
