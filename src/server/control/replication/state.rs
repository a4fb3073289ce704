//! Both machines, the history of the data and the connections of the replicas, behind one lock; and what the
//! machine of the primary's side orders, carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use crate::base::rng::Rng;
use crate::base::time::MonoMs;
use crate::command::gate;
use crate::keyspace::log::{Reader, Takes};
use crate::repl::failover::Failover;
use crate::repl::primary::{Action, LinkId, Primary};
use crate::repl::replica::Replica;
use crate::repl::{History, Window};
use crate::resp::Reply;
use crate::server::control::replication::feed::Order;
use crate::server::control::replication::stream::Outlet;
use crate::server::control::replication::wait::Wait;
use crate::server::control::replication::{failover, full_sync, link_config};
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::process::logging;

/// See the module.
pub(super) struct State {
    pub primary: Primary,
    pub history: History,
    /// Whether there is a backlog: whether the log goes back without a gap to where its window begins.
    pub stream_kept: bool,
    pub rng: Rng,
    pub feeds: BTreeMap<LinkId, Feed>,
    /// The link to our primary; `None` on a primary.
    pub upstream: Option<Upstream>,
    /// Keeps the part of the log that replicas need once they have their RDB.
    pub kept_for_syncs: Option<Reader>,
    /// FAILOVER is under way.
    pub failover: Option<Failover>,
    /// A thread is about to take its next step.
    pub failover_steps: bool,
    pub waits: Vec<Wait>,
    pub waits_begun: u64,
    /// The offset of the log at which the replicas were last asked how far they are.
    pub asked_at: u64,
}

/// One replica's connection.
pub(super) struct Feed {
    pub orders: UnboundedSender<Order>,
    pub outlet: Arc<Outlet>,
    pub task: Option<AbortHandle>,
    /// Since when more than the soft limit waits for it.
    pub over_soft_limit_since: Option<MonoMs>,
}

/// The link to our primary.
pub(super) struct Upstream {
    pub replica: Replica,
    /// What allows this link to append to the log.
    pub ticket: u64,
    pub task: Option<AbortHandle>,
    /// The number of the client that stands for the primary, while its stream is followed.
    pub client: Option<u64>,
    /// CLIENT KILL has closed it: connect again.
    pub cut: bool,
    /// Those who wait until what has arrived is applied, because this primary is to be followed no more.
    pub leavers: Vec<Leaver>,
    /// Rung when the first of them comes.
    pub leave: Arc<Notify>,
}

/// A client or thread that is told when the node follows its primary no more.
pub(super) enum Leaver {
    /// A client that has said REPLICAOF NO ONE: its worker, its place there, its number and its name for the log.
    Client(usize, usize, u64, String),
    /// A thread.
    Thread(std::sync::mpsc::Sender<()>),
}

impl Leaver {
    pub(super) fn tell(self, node: &Node) {
        match self {
            Self::Client(worker, token, client, _) => {
                let mut reply = Reply::new();
                reply.ok();
                node.send(worker, Mail::Resume { token, client, reply, written_to: 0 });
            }
            // It waits no longer than it must.
            Self::Thread(sender) => _ = sender.send(()),
        }
    }
}

impl State {
    pub(super) fn new(mut rng: Rng) -> Self {
        Self {
            primary: Primary::new(0, crate::repl::primary::Config::default(), Rng::new(rng.next_u64())),
            history: History::new(&mut rng),
            stream_kept: false,
            rng,
            feeds: BTreeMap::new(),
            upstream: None,
            kept_for_syncs: None,
            failover: None,
            failover_steps: false,
            waits: Vec::new(),
            waits_begun: 0,
            asked_at: 0,
        }
    }

    /// The part of the stream that is kept.
    pub(super) fn window(&self, node: &Node) -> Option<Window> {
        let (start, end) = node.shared.keyspace.log.window();
        self.stream_kept.then_some(Window { start, end })
    }

    /// What happens by time. `locked`: every shard is locked, so that the backlog may be given up.
    pub(super) fn tick(&mut self, node: &Arc<Node>, locked: bool) {
        let (now, config) = (node.mono_ms(), node.config.load());
        self.primary.set_config(link_config::primary(&config));
        let log = &node.shared.keyspace.log;
        if log.keep() != config.repl_backlog_size {
            log.set_keep(config.repl_backlog_size);
        }
        let mut out = Vec::new();
        // A node that hands over waits for its replicas to have everything: pings would move the end of the stream.
        let leads = self.upstream.is_none() && self.failover.is_none();
        let ours = if leads { Some(&mut self.history) } else { None };
        self.primary.tick(now, ours, locked && self.stream_kept, &mut out);
        self.carry_out(node, out);
        failover::advance(node, self);
        self.drop_slow(node, now);
        self.settle(node);
    }

    /// Carries out what the machine ordered. Every shard is locked if the stream may begin or end.
    pub(super) fn carry_out(&mut self, node: &Arc<Node>, actions: Vec<Action>) {
        let log = &node.shared.keyspace.log;
        for action in actions {
            match action {
                Action::Send(id, bytes) => self.order(id, Order::Bytes(bytes)),
                Action::Stream(id, offset) => {
                    if let Some(feed) = self.feeds.get(&id) {
                        feed.outlet.set_awaited(self.awaits_replicas(node));
                        feed.outlet.reserve(offset);
                    }
                    self.order(id, Order::Stream);
                }
                Action::KeepStream => {
                    assert!(
                        self.upstream.is_none(),
                        "a replica keeps its primary's stream from the first sync on"
                    );
                    log.set_backlog(true);
                    self.stream_kept = true;
                }
                Action::DropStream => {
                    log.set_backlog(false);
                    self.stream_kept = false;
                }
                Action::StartSnapshot(target, content) => full_sync::start(node, target, content),
                Action::Append(bytes) => {
                    log.append_link_only(bytes);
                }
                Action::Close(id) => self.close(node, id),
                Action::Log(level, text) => logging::log(level, &text),
            }
        }
        self.keep_for_syncs(node);
    }

    fn order(&self, id: LinkId, order: Order) {
        if let Some(feed) = self.feeds.get(&id) {
            // The task is gone when its connection broke; it reports that itself.
            let _ = feed.orders.send(order);
        }
    }

    /// Closes a replica's connection.
    pub(super) fn close(&mut self, node: &Arc<Node>, id: LinkId) {
        if let Some(feed) = self.forget(node, id)
            && let Some(task) = feed.task
        {
            task.abort();
        }
    }

    /// A replica's connection is gone. `None` if that was known.
    pub(super) fn forget(&mut self, node: &Arc<Node>, id: LinkId) -> Option<Feed> {
        let feed = self.feeds.remove(&id)?;
        feed.outlet.end();
        node.people.clients.remove(id);
        let mut out = Vec::new();
        self.primary.closed(node.mono_ms(), id, &mut out);
        self.carry_out(node, out);
        // Writes are refused from now on if it was one replica too few.
        self.settle(node);
        Some(feed)
    }

    pub(super) fn disconnect_replicas(&mut self, node: &Arc<Node>) {
        let mut out = Vec::new();
        self.primary.disconnect_all(&mut out);
        self.carry_out(node, out);
    }

    /// Has the log keep what replicas will need once they have their RDB. Those that follow the stream have
    /// places of their own in it.
    fn keep_for_syncs(&mut self, node: &Node) {
        let log = &node.shared.keyspace.log;
        match (self.primary.needed_from(), &self.kept_for_syncs) {
            (None, _) => self.kept_for_syncs = None,
            (Some(from), Some(reader)) => reader.advance(from),
            (Some(from), None) => {
                self.kept_for_syncs = Some(log.register(Takes::Everything, from, Waker::noop().clone()));
            }
        }
    }

    /// Whether replies wait for the replicas that are in sync.
    fn awaits_replicas(&self, node: &Node) -> bool {
        self.upstream.is_none() && node.config.load().reply_after_handover
    }

    /// Closes replicas for which more waits than `client-output-buffer-limit` allows.
    fn drop_slow(&mut self, node: &Arc<Node>, now: MonoMs) {
        let config = node.config.load();
        let limit = &config.client_output_buffer_limit.replica;
        let end = node.shared.keyspace.log.end();
        let needed = self.primary.needed_from();
        let mut slow = Vec::new();
        for (id, feed) in &mut self.feeds {
            let from = feed.outlet.position().or(needed).unwrap_or(end);
            let waits = end.saturating_sub(from);
            // The backlog is there anyway: a limit below its size would save nothing.
            let above = |bytes: u64| bytes > 0 && waits > bytes.max(config.repl_backlog_size);
            if !above(limit.soft_bytes) {
                feed.over_soft_limit_since = None;
            }
            let soft = above(limit.soft_bytes).then(|| *feed.over_soft_limit_since.get_or_insert(now));
            let soft = soft.is_some_and(|since| now.saturating_sub(since) / 1000 >= limit.soft_seconds);
            if above(limit.hard_bytes) || soft {
                slow.push((*id, waits));
            }
        }
        for (id, waits) in slow {
            node.records.counters.net.output_limit_closed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "Client id={id} (replica, {waits} bytes behind) scheduled to be closed ASAP for overcoming of output buffer limits."
            );
            self.close(node, id);
        }
    }

    /// Brings the conditions that depend on replication up to date.
    pub(super) fn settle(&self, node: &Node) {
        let config = node.config.load();
        let is_replica = self.upstream.is_some();
        let up = self.upstream.as_ref().is_some_and(|u| u.replica.is_up());
        node.peers.replication.link_up.store(up, Ordering::Release);
        for feed in self.feeds.values() {
            feed.outlet.set_awaited(self.awaits_replicas(node));
        }
        let set = |bit, on| node.shared.set_gate(bit, on);
        let limited = config.maxmemory > 0 && !(is_replica && config.replica_ignore_maxmemory);
        set(gate::MEMORY_LIMIT, limited);
        set(gate::READ_ONLY, is_replica && config.replica_read_only);
        set(gate::STALE, is_replica && !up && !config.replica_serve_stale_data);
        let wanted = config.min_replicas_to_write as usize;
        let guarded = !is_replica && wanted > 0 && config.min_replicas_max_lag > 0;
        set(gate::FEW_REPLICAS, guarded && self.primary.good(node.mono_ms()) < wanted);
    }
}
