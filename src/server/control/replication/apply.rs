//! The thread that applies our primary's stream: command by command, each appended to our own log as it came.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::base::time::MonoMs;
use crate::command::client::{Role, Upstream};
use crate::command::spec::flags;
use crate::command::{Client, gate};
use crate::exec::Executor;
use crate::keyspace::{Known, UnitInfo};
use crate::repl::FromPrimary;
use crate::resp::{Limits, Parsed, Reply, parse};
use crate::server::control::replication::following::Report;
use crate::server::node::host::NodeHost;
use crate::server::node::{Node, unix_ms};
use crate::server::process::clock::now_ns;

/// Parts of the stream that may wait for this thread.
const ITEMS_AHEAD: usize = 16;
/// What our primary took is taken here, too; lengths must only not overflow when they are added.
const LIMITS: Limits = Limits { max_bulk: usize::MAX / 4, authenticated: true };

/// How often it is said that the disk takes nothing.
const WARN_EVERY_MS: MonoMs = 10_000;

/// What the thread is given.
pub(super) enum Item {
    /// A stream begins where the log ends.
    Begin,
    Stream(Vec<u8>),
    /// The connection has ended: forget what is incomplete, and tell.
    Barrier,
}

/// Starts the thread. It ends when the sender is dropped or the ticket is void.
pub(super) fn start(
    node: &Arc<Node>,
    ticket: u64,
    reports: UnboundedSender<Report>,
) -> io::Result<mpsc::Sender<Item>> {
    let (items, queue) = mpsc::channel(ITEMS_AHEAD);
    let node = Arc::clone(node);
    std::thread::Builder::new().name("apply".into()).spawn(move || run(node, ticket, queue, reports))?;
    Ok(items)
}

fn run(node: Arc<Node>, ticket: u64, mut queue: mpsc::Receiver<Item>, reports: UnboundedSender<Report>) {
    let mut applier = Applier::new(node, ticket, reports);
    while let Some(item) = queue.blocking_recv() {
        if !applier.node.shared.keyspace.log.accepts(ticket) {
            return;
        }
        match item {
            Item::Begin => {
                applier.begin();
                applier.list();
            }
            Item::Stream(bytes) => applier.stream(bytes),
            Item::Barrier => {
                applier.begin();
                applier.unlist();
                // The link is gone when the node follows another primary.
                let _ = applier.reports.send(Report::Drained);
            }
        }
        applier.node.shared.keyspace.log.ring();
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.unlist();
    }
}

struct Applier {
    node: Arc<Node>,
    executor: Executor,
    client: Client,
    /// What is not a complete command yet, and how long it must be before another look is of use.
    input: Vec<u8>,
    need: usize,
    /// The stream made no sense: nothing more of it counts until it begins again.
    broken: bool,
    reply: Reply,
    reports: UnboundedSender<Report>,
    /// When it was last said that the disk takes nothing.
    warned_at: Option<MonoMs>,
}

impl Applier {
    fn new(node: Arc<Node>, ticket: u64, reports: UnboundedSender<Report>) -> Self {
        let stats = node.records.counters.commands.last().expect("a node has executors");
        let executor =
            Executor::new(node.shared, Box::new(Arc::clone(&node)), Arc::clone(stats), ticket, now_ns);
        let mut client = Client {
            id: node.people.clients.next_id(),
            // No connection of a worker has this place: whoever looks for one there asks replication.
            worker: 0,
            token: usize::MAX,
            created: node.steady_ms(),
            role: Role::Primary,
            upstream: Some(Box::new(Upstream { ticket, raw: Vec::new() })),
            ..Client::default()
        };
        client.set_authenticated(true);
        Self {
            node,
            executor,
            client,
            input: Vec::new(),
            need: 1,
            broken: false,
            reply: Reply::new(),
            reports,
            warned_at: None,
        }
    }

    fn begin(&mut self) {
        self.input.clear();
        (self.need, self.broken) = (1, false);
        // The stream begins again in front of a transaction that was cut off.
        self.client.take_multi();
        self.client.db = self.node.shared.keyspace.log.position().1.unwrap_or(0);
        if let Some(upstream) = &mut self.client.upstream {
            upstream.raw.clear();
        }
    }

    /// Shows the primary among the clients, now that its stream is followed.
    fn list(&mut self) {
        let mut state = self.node.peers.replication.lock();
        let ticket = self.client.upstream.as_ref().map_or(0, |u| u.ticket);
        let Some(upstream) = state.upstream.as_mut().filter(|u| u.ticket == ticket) else { return };
        let config = upstream.replica.config();
        self.client.addr = format!("{}:{}", config.host, config.port);
        if upstream.client.replace(self.client.id).is_none() && self.node.people.clients.reserve(usize::MAX) {
            self.node.people.clients.add(&self.client, -1);
        }
    }

    fn unlist(&mut self) {
        self.node.people.clients.remove(self.client.id);
        let mut state = self.node.peers.replication.lock();
        if let Some(upstream) = state.upstream.as_mut().filter(|u| u.client == Some(self.client.id)) {
            upstream.client = None;
        }
    }

    fn stream(&mut self, bytes: Vec<u8>) {
        if self.broken {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        if input.is_empty() {
            input = bytes;
        } else {
            input.extend_from_slice(&bytes);
        }
        let mut at = 0;
        if input.len() >= self.need {
            self.executor.refresh();
            let mut argv: Vec<&[u8]> = Vec::new();
            loop {
                let begin = at;
                argv.clear();
                match parse(&input, &mut at, &mut argv, &LIMITS) {
                    Ok(Parsed::Command) => self.apply(&input[begin..at], &argv),
                    Ok(Parsed::Inline(words)) => {
                        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                        self.apply(&input[begin..at], &words);
                    }
                    Ok(Parsed::Empty) => self.pass_on(&input[begin..at], UnitInfo::LINK_ONLY),
                    Ok(Parsed::Incomplete { need }) => {
                        self.need = need;
                        break;
                    }
                    Err(e) => {
                        // Fails only when the link is gone, which then needs no report.
                        let _ = self.reports.send(Report::Broken(e.to_string()));
                        (at, self.broken) = (input.len(), true);
                        break;
                    }
                }
            }
            self.executor.publish_counts();
        }
        input.drain(..at);
        self.input = input;
    }

    fn apply(&mut self, raw: &[u8], args: &[&[u8]]) {
        self.node.sleep_along();
        let word = FromPrimary::of(args);
        match word {
            FromPrimary::AsksForOffset | FromPrimary::Configures => {}
            FromPrimary::SignOfLife => self.look_up_and_execute(args),
            FromPrimary::Command => {
                if let Some(upstream) = &mut self.client.upstream {
                    upstream.raw.extend_from_slice(raw);
                }
                self.look_up_and_execute(args);
            }
        }
        if word.is_for_links() {
            self.pass_on(raw, UnitInfo::LINK_ONLY);
        } else if !self.client.in_multi() {
            // A command that changed no data was not appended under its locks.
            self.pass_on(&[], UnitInfo::data(None));
        }
        if word == FromPrimary::AsksForOffset {
            let _ = self.reports.send(Report::GetAck);
        }
    }

    fn look_up_and_execute(&mut self, args: &[&[u8]]) {
        match self.executor.look_up(args) {
            Ok(id) => self.execute(id, args),
            Err(fail) => self.complain(&fail.to_string(), args),
        }
    }

    fn execute(&mut self, id: usize, args: &[&[u8]]) {
        let mut keys = SmallVec::<[Known<'_>; 4]>::new();
        let shared = &self.node.shared;
        shared.each_key(shared.commands.get(id), args, |key| keys.push(key));
        self.check_disk(id);
        let mut host = NodeHost::new(&self.node);
        self.reply.clear();
        // Whatever a command wants to happen to its connection, the link goes on.
        self.executor.execute(&mut host, &mut self.client, id, args, &keys, unix_ms(), &mut self.reply);
        if let Some(text) = self.reply.as_error() {
            self.complain(String::from_utf8_lossy(text).trim_end(), args);
        }
    }

    /// A replica that cannot write to its disk ends, unless `replica-ignore-disk-write-errors` says that data in
    /// memory are better than none.
    fn check_disk(&mut self, id: usize) {
        let shared = self.node.shared;
        let failed = gate::SAVE_FAILED | gate::LOG_FAILED;
        let writes = shared.commands.get(id).command.has(flags::WRITE);
        if !writes || shared.gate.load(Ordering::Relaxed) & failed == 0 {
            return;
        }
        assert!(
            self.node.config.load().replica_ignore_disk_write_errors,
            "Replica was unable to write command to disk."
        );
        let now = self.node.mono_ms();
        if self.warned_at.is_none_or(|then| now > then + WARN_EVERY_MS) {
            self.warned_at = Some(now);
            tracing::warn!("Replica is applying a command even though it is unable to write to disk.");
        }
    }

    /// A command that the primary ran and we cannot: the data may differ from now on.
    fn complain(&self, error: &str, args: &[&[u8]]) {
        self.node.records.counters.net.unexpected_errors.fetch_add(1, Ordering::Relaxed);
        let name = String::from_utf8_lossy(args[0]).into_owned();
        // Behind its first word an error may quote what a client sent.
        let hidden = self.node.config.load().hide_user_data_from_log;
        let code = error.split(' ').next().unwrap_or_default();
        let (error, name) = if hidden { (code, "*redacted*") } else { (error, name.as_str()) };
        tracing::warn!(
            "== CRITICAL == This replica is sending an error to its master: '{error}' after processing the command '{name}'"
        );
    }

    /// Appends to our log what is waiting and `raw`.
    fn pass_on(&mut self, raw: &[u8], info: UnitInfo) {
        let Some(upstream) = &mut self.client.upstream else { return };
        upstream.raw.extend_from_slice(raw);
        if !upstream.raw.is_empty() {
            self.node.shared.keyspace.log.append_stream(upstream.ticket, &upstream.raw, self.client.db, info);
            upstream.raw.clear();
        }
    }
}
