//! Drives [`cluster`](crate::cluster): sockets on the bus port, a clock, and nodes.conf.
//!
//! One thread with a tokio runtime runs [`Bus::run`]. Everybody else reaches the state through the
//! handle: workers that run CLUSTER commands use [`Bus::read`] and [`Bus::admin`], and what the machine
//! wants of the node goes to a [`BusHost`].
//!
//! All actions, whoever's event caused them, pass through one queue and are carried out one after the
//! other, so that nothing overtakes a write of nodes.conf that it must wait for. The bus thread carries
//! them out; a worker that waits for its command's effects may do so in its place, where that saves it
//! from waiting for two other threads to wake up (moving a slot takes half a dozen such commands).
//!
//! | file | concept |
//! |---|---|
//! | `wire` | one connection: packets in and out |
//! | `cluster_config` | the directives, as the machine takes them |
//!
//! nodes.conf is written and fsynced in [`nodes_file`](crate::server::disk::nodes_file).

pub mod cluster_config;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::base::rng::Rng;
use crate::base::time::MonoMs;
use crate::cluster::message;
use crate::cluster::nodes_conf::NodesConfError;
use crate::cluster::report::LinkInfo;
use crate::cluster::{
    Action, ClusterState, Config, Event, LinkId, NodeId, Now, ReplicationFacts, SlotBitmap, View,
};
use crate::server::control::bus::wire::Outlet;
pub use crate::server::disk::nodes_file::{NodesFile, NodesFileError};
use crate::server::net::dial;
use crate::server::net::link::Link;
use crate::server::net::tls::Session;
use crate::server::process::logging::log;

/// How long an administrator's command waits for its effects. Only a stuck disk takes longer.
const ADMIN_WAIT: Duration = Duration::from_secs(2);

/// The rest of the node, as the bus sees it.
///
/// `now` and `replication` are called by any thread with the cluster state locked: they must not call back.
/// What changes data or role, and may have to wait for shards' locks, is called on threads made for waiting,
/// so that a stalled shard does not keep the bus from hearing others. The rest is called on the bus thread, or
/// by a worker that waits for its command's effects.
pub trait BusHost: Send + Sync {
    /// Both clocks; the origin of the monotonic one is the host's.
    fn now(&self) -> Now;
    /// Own offset, and when the primary was last heard. Cheap: asked before every event.
    fn replication(&self) -> ReplicationFacts;
    /// Replicate this primary, at a new role, primary or address.
    fn set_primary(&self, id: NodeId, ip: &str, port: u16);
    /// Stop replicating; serve with the data that is there.
    fn become_primary(&self);
    /// Workers route by this view from now on.
    fn publish(&self, view: Arc<View>);
    /// Delete the keys of slots that went to another node.
    fn drop_slots(&self, slots: &SlotBitmap);
    /// Delete all keys.
    fn flush_all(&self);
    /// Let no write through until then. When it returns, none is under way and [`replication`](Self::replication)
    /// says the final offset.
    fn pause_writes(&self, until: MonoMs);
    /// Lets writes through again, before the time of [`pause_writes`](Self::pause_writes) is over.
    fn unpause(&self);
    /// A published message for local subscribers.
    fn deliver(&self, channel: &[u8], payload: &[u8], shard: bool);
    /// The session of a connection to a node (`tls-cluster`); `None`: the bus is plain.
    fn session_to(&self, _host: &str) -> std::io::Result<Option<Session>> {
        Ok(None)
    }
    /// That of a node which has connected.
    fn session_of_peer(&self) -> std::io::Result<Option<Session>> {
        Ok(None)
    }
    /// nodes.conf cannot be written: without it this node could vote twice, so it must end.
    fn fatal(&self, what: &str);
}

/// Why a node cannot start as part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// nodes.conf cannot be opened or locked.
    #[error(transparent)]
    File(#[from] NodesFileError),
    /// nodes.conf, by its name, is not what a node wrote.
    #[error("Unrecoverable error: corrupted cluster config file \"{0}\": {1}")]
    Corrupt(String, NodesConfError),
}

/// A handle to the cluster, shared by all threads.
pub struct Bus {
    inner: Mutex<Inner>,
    /// Signalled when an action was carried out.
    progress: Condvar,
    queued: Notify,
    /// The next tick is earlier than the timer was set to.
    sooner: Notify,
    timer: AtomicU64,
    links: Mutex<BTreeMap<LinkId, Outlet>>,
    next_inbound: AtomicU64,
    /// `cluster-link-sendbuf-limit`, bytes; 0: none.
    pub link_buffer_limit: AtomicUsize,
    links_over_limit: AtomicU64,
    /// `DEBUG DROP-CLUSTER-PACKET-FILTER`: packets of this type are not taken in; -2: none is, -1: all are.
    pub drop_filter: AtomicI64,
    /// `DEBUG CLOSE-CLUSTER-LINK-ON-PACKET-DROP`: the link of a dropped packet is closed.
    pub close_on_drop: AtomicBool,
    host: Arc<dyn BusHost>,
    /// Directive `bind-source-addr`: where links come from; empty: wherever the system likes.
    pub source: Mutex<String>,
    /// nodes.conf, once the bus runs. Before [`Bus::inner`] where both are locked.
    file: Mutex<Option<NodesFile>>,
}

struct Inner {
    state: ClusterState,
    queue: VecDeque<Action>,
    /// An action is being carried out: no other may begin.
    busy: bool,
    /// It may wait for shards' locks.
    busy_with_shards: bool,
    /// Actions ever queued, and carried out.
    put_in: u64,
    carried_out: u64,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

impl Bus {
    /// Reads nodes.conf, or makes a new node, and locks the file. Serves nothing yet: see [`run`](Self::run).
    pub fn open(
        path: &Path,
        config: Config,
        seed: u64,
        host: Arc<dyn BusHost>,
    ) -> Result<(Arc<Self>, NodesFile), BusError> {
        let (file, text) = NodesFile::open(path)?;
        let (rng, now) = (Rng::new(seed), host.now());
        let state = if text.is_empty() {
            let state = ClusterState::new(config, rng, now);
            tracing::info!("No cluster configuration found, I'm {}", state.my_id());
            state
        } else {
            let state = ClusterState::load(config, rng, now, &text)
                .map_err(|e| BusError::Corrupt(path.display().to_string(), e))?;
            tracing::info!("Node configuration loaded, I'm {}", state.my_id());
            state
        };
        // Workers need a view before the first command.
        host.publish(state.view());
        let bus = Self {
            inner: Mutex::new(Inner {
                state,
                queue: VecDeque::new(),
                busy: false,
                busy_with_shards: false,
                put_in: 0,
                carried_out: 0,
            }),
            progress: Condvar::new(),
            queued: Notify::new(),
            sooner: Notify::new(),
            timer: AtomicU64::new(0),
            links: Mutex::new(BTreeMap::new()),
            next_inbound: AtomicU64::new(1),
            link_buffer_limit: AtomicUsize::new(0),
            links_over_limit: AtomicU64::new(0),
            drop_filter: AtomicI64::new(-1),
            close_on_drop: AtomicBool::new(false),
            host,
            source: Mutex::default(),
            file: Mutex::default(),
        };
        Ok((Arc::new(bus), file))
    }

    /// Looks at the state.
    pub fn read<R>(&self, look: impl FnOnce(&ClusterState) -> R) -> R {
        look(&self.inner.lock().state)
    }

    /// An administrator's command. Returns when what it asks for is done and, where that matters, on disk.
    ///
    /// Not for the bus thread, and not with shard locks held: see [`door`](Self::door).
    pub fn admin<R>(&self, call: impl FnOnce(&mut ClusterState, Now) -> R) -> R {
        self.door(false).admin(call)
    }

    /// The way in for a thread that may hold shard locks.
    pub fn door(&self, holds_locks: bool) -> Door<'_> {
        Door { bus: self, holds_locks }
    }

    fn await_effects(&self, ticket: u64, holds_locks: bool) {
        let deadline = Instant::now() + ADMIN_WAIT;
        let mut inner = self.inner.lock();
        while inner.carried_out < ticket {
            // The bus waits for locks that this thread holds.
            if holds_locks && inner.waits_for_shards(ticket) {
                break;
            }
            if self.progress.wait_until(&mut inner, deadline).timed_out() {
                break;
            }
        }
    }

    /// Whether DEBUG has this packet dropped. It is counted all the same.
    fn drops(&self, packet: &[u8]) -> bool {
        let filter = self.drop_filter.load(Ordering::Relaxed);
        if filter == -1 {
            return false;
        }
        let kind = message::kind(packet);
        let dropped = filter == -2 || filter == i64::from(kind);
        if dropped {
            self.inner.lock().state.count_received(kind);
            tracing::warn!("Dropping packet that matches debug drop filter");
        }
        dropped
    }

    /// As [`admin`](Self::admin) without waiting: for PUBLISH.
    pub fn post<R>(&self, call: impl FnOnce(&mut ClusterState, Now) -> R) -> R {
        let result = self.change(call).0;
        self.queued.notify_one();
        result
    }

    /// CLUSTER LINKS: each link and the bytes that wait on it.
    pub fn link_infos(&self) -> Vec<(LinkInfo, usize)> {
        let infos = self.read(ClusterState::links);
        let links = self.links.lock();
        let waiting = |id| links.get(&id).map_or(0, |o: &Outlet| o.queued.load(Ordering::Relaxed));
        infos.into_iter().map(|info| (info, waiting(info.link))).collect()
    }

    /// Closes the links with a node that are wanted by their direction (inbound or not), as if it had done so.
    pub fn sever(&self, peer: NodeId, wanted: impl Fn(bool) -> bool) {
        let links = self.read(ClusterState::links);
        for info in links.iter().filter(|info| info.node == peer && wanted(info.inbound)) {
            if let Some(outlet) = self.links.lock().remove(&info.link) {
                outlet.close();
            }
            self.step(Event::Closed { link: info.link });
        }
    }

    /// The last line of CLUSTER INFO.
    pub fn links_over_limit(&self) -> u64 {
        self.links_over_limit.load(Ordering::Relaxed)
    }

    fn step(&self, event: Event) {
        self.apply(|state, now| ((), state.step(now, event)));
        self.queued.notify_one();
    }

    fn change<R>(&self, call: impl FnOnce(&mut ClusterState, Now) -> R) -> (R, u64) {
        self.apply(|state, now| {
            let result = call(state, now);
            (result, state.take_actions())
        })
    }

    /// Changes the state under its lock and queues what follows from it; the caller sees to it that
    /// somebody carries it out.
    fn apply<R>(&self, call: impl FnOnce(&mut ClusterState, Now) -> (R, Vec<Action>)) -> (R, u64) {
        let mut inner = self.inner.lock();
        let now = self.host.now();
        inner.state.set_replication_facts(self.host.replication());
        let (result, actions) = call(&mut inner.state, now);
        inner.put_in += actions.len() as u64;
        let ticket = inner.put_in;
        inner.queue.extend(actions);
        let next_tick = inner.state.next_tick();
        drop(inner);
        if next_tick < self.timer.load(Ordering::Acquire) {
            self.sooner.notify_one();
        }
        (result, ticket)
    }

    /// Runs the cluster's part of this node until the runtime ends.
    pub async fn run(
        self: Arc<Self>,
        file: NodesFile,
        listeners: Vec<std::net::TcpListener>,
    ) -> std::io::Result<()> {
        for listener in listeners {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(Arc::clone(&self).accept(listener));
        }
        *self.file.lock() = Some(file);
        tokio::spawn(Arc::clone(&self).carry_out());
        self.keep_time().await;
        Ok(())
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            self.step(Event::Tick);
            let due = self.read(ClusterState::next_tick);
            self.timer.store(due, Ordering::Release);
            let now = self.host.now().mono;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(due.saturating_sub(now))) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match self.host.session_of_peer() {
                    // Here, because there is nothing to wait for.
                    Ok(None) => {
                        if let Ok(stream) = Link::secured(stream, None).await {
                            self.welcome(stream);
                        }
                    }
                    Ok(session) => drop(tokio::spawn(Arc::clone(&self).shake_hands(stream, session))),
                    Err(error) => tracing::warn!("Error accepting cluster node connection: {error}"),
                },
                Err(error) => {
                    tracing::warn!("Error accepting cluster node: {error}");
                    // Out of descriptors, most likely; a busy loop would not help.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Takes in a node that speaks TLS. One that does not finish its handshake is not waited for.
    async fn shake_hands(self: Arc<Self>, stream: TcpStream, session: Option<Session>) {
        let patience = Duration::from_millis(self.read(|s| s.config().handshake_timeout_ms()));
        match tokio::time::timeout(patience, Link::secured(stream, session)).await {
            Ok(Ok(stream)) => self.welcome(stream),
            Ok(Err(error)) => tracing::debug!("Error accepting cluster node connection: {error}"),
            Err(_) => {
                tracing::debug!("Error accepting cluster node connection: the handshake takes too long");
            }
        }
    }

    fn welcome(self: &Arc<Self>, stream: Link) {
        let link = LinkId::inbound(self.next_inbound.fetch_add(1, Ordering::Relaxed));
        let (peer_ip, local_ip) = wire::addresses(&stream);
        self.step(Event::Accepted { link, peer_ip, local_ip });
        wire::start(self, link, stream);
    }

    async fn carry_out(self: Arc<Self>) {
        loop {
            let Some(action) = self.next_action(|_| true) else {
                self.queued.notified().await;
                continue;
            };
            if let Action::Persist { text, sync } = action {
                // On another thread: a slow disk must not keep this one from hearing the others.
                let bus = Arc::clone(&self);
                let written = spawn_blocking(move || {
                    let mut file = bus.file.lock();
                    bus.persist(file.as_mut().expect("the bus runs"), &text, sync);
                });
                if written.await.is_err() {
                    // The runtime ends.
                    return;
                }
            } else if let Some(waiting) = self.act(action) {
                // Fails only if the runtime ends, or the host panicked, which ends the process.
                let _ = waiting.await;
            }
            self.action_done();
        }
    }

    /// Carries out the next actions on this thread, which may wait, as far as they need no other thread. The rest
    /// is left to the bus thread.
    fn carry_out_here(&self) {
        if let Some(file) = &mut *self.file.lock() {
            let here = |action: &Action| {
                matches!(
                    action,
                    Action::Persist { .. }
                        | Action::PublishView(_)
                        | Action::Send { .. }
                        | Action::CloseLink(_)
                        | Action::Log { .. }
                )
            };
            while let Some(action) = self.next_action(here) {
                match action {
                    Action::Persist { text, sync } => self.persist(file, &text, sync),
                    other => self.act_at_once(other),
                }
                self.action_done();
            }
        }
        self.queued.notify_one();
    }

    /// Takes the first action in the queue if it is wanted and none is under way.
    fn next_action(&self, wanted: impl Fn(&Action) -> bool) -> Option<Action> {
        let mut inner = self.inner.lock();
        if inner.busy || !inner.queue.front().is_some_and(wanted) {
            return None;
        }
        inner.busy = true;
        let action = inner.queue.pop_front();
        inner.busy_with_shards = action.as_ref().is_some_and(needs_shards);
        action
    }

    fn action_done(&self) {
        let mut inner = self.inner.lock();
        inner.busy = false;
        inner.busy_with_shards = false;
        inner.carried_out += 1;
        self.progress.notify_all();
    }

    fn persist(&self, file: &mut NodesFile, text: &str, sync: bool) {
        if let Err(error) = file.replace(text, sync) {
            self.host.fatal(&format!("Fatal: can't update cluster config file: {error}"));
        }
    }

    /// Carries out an action, or begins to: what it returns is to be waited for before the next one.
    fn act(self: &Arc<Self>, action: Action) -> Option<JoinHandle<()>> {
        let (bus, host) = (Arc::clone(self), Arc::clone(&self.host));
        match action {
            Action::Persist { .. } => unreachable!("carried out by its caller"),
            Action::SetPrimary { id, ip, port } => {
                return Some(spawn_blocking(move || host.set_primary(id, &ip, port)));
            }
            Action::BecomePrimary => return Some(spawn_blocking(move || host.become_primary())),
            Action::FlushAll => return Some(spawn_blocking(move || host.flush_all())),
            // Deleting may take long, and nothing depends on its end.
            Action::DropSlotKeys(slots) => drop(spawn_blocking(move || host.drop_slots(&slots))),
            Action::PauseClients { until } => drop(spawn_blocking(move || {
                host.pause_writes(until);
                bus.post(ClusterState::clients_paused);
            })),
            Action::Connect { link, ip, port } => self.connect(link, &ip, port),
            other => self.act_at_once(other),
        }
        None
    }

    /// Carries out an action that needs neither a wait nor the bus thread.
    fn act_at_once(&self, action: Action) {
        match action {
            Action::PublishView(view) => self.host.publish(view),
            Action::CloseLink(link) => {
                if let Some(outlet) = self.links.lock().remove(&link) {
                    outlet.close();
                }
            }
            Action::Send { link, packet } => self.send(link, packet),
            Action::UnpauseClients => self.host.unpause(),
            Action::Deliver { channel, payload, shard } => self.host.deliver(&channel, &payload, shard),
            Action::Log { level, text } => log(level, &text),
            _ => unreachable!("its caller's"),
        }
    }

    /// Bytes that wait for other nodes to take them.
    pub fn queued(&self) -> usize {
        self.links.lock().values().map(|outlet| outlet.queued.load(Ordering::Relaxed)).sum()
    }

    fn connect(self: &Arc<Self>, link: LinkId, ip: &str, port: u16) {
        let bus = Arc::clone(self);
        let timeout = Duration::from_millis(self.read(|s| s.config().node_timeout_ms));
        let target = ip.parse().map(|ip| SocketAddr::new(ip, port));
        let session = self.host.session_to(ip);
        tokio::spawn(async move {
            let (Ok(target), Ok(session)) = (target, session) else { return bus.link_ended(link) };
            let source = bus.source.lock().clone();
            let connecting = async { Link::secured(dial::connect(target, &source).await?, session).await };
            match tokio::time::timeout(timeout, connecting).await {
                Ok(Ok(stream)) => {
                    let (peer_ip, local_ip) = wire::addresses(&stream);
                    // Registered first: the machine answers with the first packet at once.
                    wire::start(&bus, link, stream);
                    if bus.read(|s| s.wants_link(link)) {
                        bus.step(Event::Connected { link, peer_ip, local_ip });
                    } else if let Some(outlet) = bus.links.lock().remove(&link) {
                        outlet.close();
                    }
                }
                _ => bus.link_ended(link),
            }
        });
    }

    fn send(&self, link: LinkId, packet: bytes::Bytes) {
        let links = self.links.lock();
        let Some(outlet) = links.get(&link) else { return };
        let waiting = outlet.send(packet);
        drop(links);
        let limit = self.link_buffer_limit.load(Ordering::Relaxed);
        if limit != 0 && waiting > limit {
            self.links_over_limit.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "Freeing cluster link: {waiting} bytes wait on it, more than cluster-link-sendbuf-limit"
            );
            if let Some(outlet) = self.links.lock().remove(&link) {
                outlet.close();
            }
            self.step(Event::Closed { link });
        }
    }

    fn register(&self, link: LinkId, outlet: Outlet) {
        self.links.lock().insert(link, outlet);
    }

    /// A connection ended by itself, or never came about.
    fn link_ended(&self, link: LinkId) {
        self.links.lock().remove(&link);
        self.step(Event::Closed { link });
    }
}

impl Inner {
    /// Whether anything up to this ticket may have to wait for a shard's lock.
    fn waits_for_shards(&self, ticket: u64) -> bool {
        let queued = ticket.saturating_sub(self.carried_out + u64::from(self.busy));
        let queued = usize::try_from(queued).unwrap_or(usize::MAX);
        self.busy_with_shards || self.queue.iter().take(queued).any(needs_shards)
    }
}

/// Whether the bus waits for the end of this action, and the action for locks of shards.
fn needs_shards(action: &Action) -> bool {
    matches!(action, Action::SetPrimary { .. } | Action::BecomePrimary | Action::FlushAll)
}

/// An administrator's way in. A command of a transaction holds the locks of the transaction's keys: what needs
/// those is done after the transaction, and not waited for.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    bus: &'a Bus,
    holds_locks: bool,
}

impl Door<'_> {
    /// As [`Bus::admin`].
    pub fn admin<R>(&self, call: impl FnOnce(&mut ClusterState, Now) -> R) -> R {
        let (result, ticket) = self.bus.change(call);
        self.bus.carry_out_here();
        self.bus.await_effects(ticket, self.holds_locks);
        result
    }
}

impl std::ops::Deref for Door<'_> {
    type Target = Bus;

    fn deref(&self) -> &Bus {
        self.bus
    }
}
