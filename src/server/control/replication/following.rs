//! The connection to our primary, on the control thread: drives [`Replica`](crate::repl::replica::Replica).
//!
//! What arrives goes on through bounded channels to the threads that apply the stream and load the RDB. While they
//! are behind, nothing is read. After a connection has ended the next one is not begun before everything that came
//! over it is applied, because PSYNC must ask for exactly what is missing.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::MissedTickBehavior;

use crate::repl::ReplId;
use crate::repl::replica::{Action, Event};
use crate::server::control::replication::apply::Item;
use crate::server::control::replication::load;
use crate::server::control::replication::load::Chunk;
use crate::server::control::replication::{TICK, link_config, role};
use crate::server::control::replication::{apply, failover};
use crate::server::net::tls::Session;
use crate::server::net::{dial, link};
use crate::server::node::Node;
use crate::server::process::logging::log;

/// What is read from the connection at once.
const READ_SIZE: usize = 64 * 1024;

/// What the threads report.
pub(super) enum Report {
    /// The primary wants an acknowledgement.
    GetAck,
    /// Everything before the barrier is applied.
    Drained,
    /// The stream is not what a primary sends.
    Broken(String),
    /// The RDB with this number is the data set now; or the reason why it is not.
    Loaded(u64, Result<(), String>),
}

/// What waits for its thread to take it.
enum Parcel {
    Apply(Item),
    Load(Chunk),
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<link::Link>> + Send>>;

struct Link {
    node: Arc<Node>,
    ticket: u64,
    connecting: Option<Connecting>,
    connection: Option<link::Link>,
    unsent: Vec<u8>,
    /// To be connected once everything is applied.
    wants_connection: bool,
    parcels: VecDeque<Parcel>,
    applier: mpsc::Sender<Item>,
    loader: Option<mpsc::Sender<Chunk>>,
    /// Number of the RDB under way.
    transfer: u64,
    /// The RDB is whole, and its data are being loaded: nothing is read.
    loading: bool,
    loaded: Option<Result<(), String>>,
    reports: UnboundedSender<Report>,
    /// The node follows somebody else.
    replaced: bool,
    /// The node is to follow nobody once everything is applied.
    leaving: bool,
}

/// Follows the primary of `ticket` until the node follows another one or none.
pub(super) async fn drive(node: Arc<Node>, ticket: u64) {
    let (reports, mut arrived) = mpsc::unbounded_channel();
    let applier = match apply::start(&node, ticket, reports.clone()) {
        Ok(applier) => applier,
        Err(e) => return tracing::warn!("Can't start a thread for the stream of the primary: {e}"),
    };
    let mut link = Link {
        node,
        ticket,
        connecting: None,
        connection: None,
        unsent: Vec::new(),
        wants_connection: false,
        parcels: VecDeque::new(),
        applier,
        loader: None,
        transfer: 0,
        loading: false,
        loaded: None,
        reports,
        replaced: false,
        leaving: false,
    };
    let leave = link
        .node
        .peers
        .replication
        .lock()
        .upstream
        .as_ref()
        .map(|u| Arc::clone(&u.leave))
        .unwrap_or_default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; READ_SIZE];
    while !link.replaced {
        let may_read = !link.loading && link.parcels.is_empty();
        tokio::select! {
            _ = ticks.tick(), if !link.leaving => link.step(Event::Tick).await,
            made = connected(&mut link.connecting) => link.on_connected(made).await,
            result = readable(link.connection.as_ref()), if may_read => link.on_readable(result, &mut buffer).await,
            result = writable(link.connection.as_ref()), if !link.unsent.is_empty() => link.on_writable(result).await,
            () = forward(&mut link.parcels, &link.applier, link.loader.as_ref()), if !link.parcels.is_empty() => {}
            Some(report) = arrived.recv() => link.on_report(report).await,
            () = leave.notified() => link.leave(),
        }
    }
}

/// Connects, from `source` if it is given, and over TLS if there is a session for it.
async fn connect(
    address: (String, u16),
    source: String,
    session: io::Result<Option<Session>>,
) -> io::Result<link::Link> {
    let session = session?;
    link::Link::secured(dial::connect(address, &source).await?, session).await
}

async fn connected(connecting: &mut Option<Connecting>) -> io::Result<link::Link> {
    match connecting {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn readable(connection: Option<&link::Link>) -> io::Result<()> {
    match connection {
        Some(connection) => connection.readable().await,
        None => pending().await,
    }
}

async fn writable(connection: Option<&link::Link>) -> io::Result<()> {
    match connection {
        Some(connection) => connection.writable().await,
        None => pending().await,
    }
}

/// Hands the first parcel over once its thread has room. A thread that is gone has reported why.
async fn forward(
    parcels: &mut VecDeque<Parcel>,
    applier: &mpsc::Sender<Item>,
    loader: Option<&mpsc::Sender<Chunk>>,
) {
    match (parcels.front(), loader) {
        (Some(Parcel::Apply(_)), _) => {
            let room = applier.reserve().await;
            if let (Some(Parcel::Apply(item)), Ok(room)) = (parcels.pop_front(), room) {
                room.send(item);
            }
        }
        (Some(Parcel::Load(_)), Some(loader)) => {
            let room = loader.reserve().await;
            if let (Some(Parcel::Load(chunk)), Ok(room)) = (parcels.pop_front(), room) {
                room.send(chunk);
            }
        }
        (Some(Parcel::Load(_)), None) => {
            parcels.pop_front();
        }
        (None, _) => {}
    }
}

/// An error in the operating system's words.
fn words(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Link {
    /// Lets the machine know, and does what it orders.
    async fn step(&mut self, event: Event<'_>) {
        let node = Arc::clone(&self.node);
        let (now, mut out) = (node.mono_ms(), Vec::new());
        let mut cut = false;
        {
            let mut state = node.peers.replication.lock();
            let Some(upstream) = state.upstream.as_mut().filter(|u| u.ticket == self.ticket) else {
                self.replaced = true;
                return;
            };
            let replica = &mut upstream.replica;
            replica.applied(node.shared.keyspace.log.end());
            replica.set_synced(node.shared.keyspace.log.synced());
            if matches!(event, Event::Tick) {
                cut = std::mem::take(&mut upstream.cut);
                let config = replica.config();
                let address = (config.host.clone(), config.port);
                replica.set_config(link_config::replica(&node.config.load(), address));
            }
            replica.step(now, if cut { Event::Closed("it was killed") } else { event }, &mut out);
            if replica.is_up() && matches!(event, Event::Bytes(_) | Event::Loaded(_)) {
                node.peers.replication.heard_primary(now);
            }
            state.settle(&node);
        }
        if cut {
            self.hang_up();
        }
        for action in out {
            self.carry_out(action).await;
        }
    }

    async fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect => {
                self.hang_up();
                self.wants_connection = true;
                self.parcels.push_back(Parcel::Apply(Item::Barrier));
            }
            Action::Close => self.hang_up(),
            Action::Send(bytes) => self.unsent.extend_from_slice(&bytes),
            Action::Continue(id) => {
                self.adopt(id).await;
                self.parcels.push_back(Parcel::Apply(Item::Begin));
            }
            Action::FullSync { position, .. } => {
                self.transfer += 1;
                self.loaded = None;
                let started =
                    load::start(&self.node, self.ticket, self.transfer, position, self.reports.clone());
                match started {
                    Ok(loader) => self.loader = Some(loader),
                    Err(e) => self.loaded = Some(Err(words(&e))),
                }
            }
            Action::Rdb(bytes) => self.parcels.push_back(Parcel::Load(Chunk::Bytes(bytes))),
            Action::RdbEnd => {
                self.parcels.push_back(Parcel::Load(Chunk::End));
                self.loading = true;
            }
            Action::Stream(bytes) => self.parcels.push_back(Parcel::Apply(Item::Stream(bytes))),
            Action::TakenOver => failover::succeeded(&self.node),
            Action::Refused => {
                let node = Arc::clone(&self.node);
                tokio::task::spawn_blocking(move || failover::refused(&node));
            }
            Action::Log(level, text) => log(level, &text),
        }
    }

    /// Ends the connection. What has arrived of the stream is still applied.
    fn hang_up(&mut self) {
        self.connection = None;
        self.connecting = None;
        self.wants_connection = false;
        self.unsent.clear();
        self.parcels.retain(|p| matches!(p, Parcel::Apply(_)));
        self.loader = None;
        self.loading = false;
    }

    /// Reads no more, and has the node become a primary when what has arrived is applied.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.hang_up();
            self.parcels.push_back(Parcel::Apply(Item::Barrier));
        }
    }

    /// The primary goes on from our position, perhaps under another id.
    async fn adopt(&mut self, id: ReplId) {
        let (node, ticket) = (Arc::clone(&self.node), self.ticket);
        // Waits for all shards, which this thread must not.
        let done = tokio::task::spawn_blocking(move || {
            let _locked = node.shared.keyspace.lock_all();
            let mut state = node.peers.replication.lock();
            if state.upstream.as_ref().is_none_or(|u| u.ticket != ticket) {
                return;
            }
            let before = state.history.id();
            state.history.continue_as(id, node.shared.keyspace.log.end());
            state.stream_kept = true;
            if before != id {
                // Our own replicas learn the new id when they come back.
                state.disconnect_replicas(&node);
            }
        });
        if done.await.is_err() {
            self.replaced = true;
        }
    }

    async fn on_connected(&mut self, made: io::Result<link::Link>) {
        self.connecting = None;
        match made {
            Ok(connection) => {
                self.connection = Some(connection);
                self.step(Event::Connected).await;
            }
            Err(e) => self.step(Event::Failed(&words(&e))).await,
        }
    }

    async fn on_readable(&mut self, result: io::Result<()>, buffer: &mut [u8]) {
        let Some(connection) = &self.connection else { return };
        match result.and_then(|()| connection.try_read(buffer)) {
            Ok(0) => self.closed("the connection was closed").await,
            Ok(n) => {
                self.node.peers.replication.input_bytes.fetch_add(n as u64, Ordering::Relaxed);
                self.step(Event::Bytes(&buffer[..n])).await;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => self.closed(&words(&e)).await,
        }
    }

    async fn on_writable(&mut self, result: io::Result<()>) {
        let Some(connection) = &self.connection else {
            self.unsent.clear();
            return;
        };
        match result.and_then(|()| connection.try_write(&[IoSlice::new(&self.unsent)])) {
            Ok(n) => {
                self.unsent.drain(..n);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => self.closed(&words(&e)).await,
        }
    }

    async fn closed(&mut self, why: &str) {
        self.hang_up();
        self.step(Event::Closed(why)).await;
    }

    async fn on_report(&mut self, report: Report) {
        match report {
            Report::GetAck => {
                let node = Arc::clone(&self.node);
                let mut state = node.peers.replication.lock();
                if let Some(upstream) = state.upstream.as_mut().filter(|u| u.ticket == self.ticket) {
                    upstream.replica.applied(node.shared.keyspace.log.end());
                    upstream.replica.set_synced(node.shared.keyspace.log.synced());
                    if let Some(Action::Send(bytes)) = upstream.replica.acknowledge(node.mono_ms()) {
                        self.unsent.extend_from_slice(&bytes);
                    }
                }
            }
            Report::Drained if self.leaving => {
                let (node, ticket) = (Arc::clone(&self.node), self.ticket);
                // Waits for all shards, which this thread must not.
                tokio::task::spawn_blocking(move || role::left(&node, ticket));
            }
            Report::Drained if self.wants_connection => {
                self.wants_connection = false;
                let (address, config) = (self.address(), self.node.config.load());
                let session = self.node.peers.tls.towards(config.tls_replication, &address.0);
                let source = config.bind_source_addr.clone();
                self.connecting = Some(Box::pin(connect(address, source, session)));
            }
            Report::Drained => {}
            Report::Broken(why) => {
                tracing::warn!("Protocol error from MASTER: {why}. Closing the link.");
                self.closed(&why).await;
            }
            Report::Loaded(number, result) => {
                if number == self.transfer {
                    self.loaded = Some(result);
                }
            }
        }
        // A load that failed is told at once, also before all of the RDB was handed over.
        if let Some(result) = self.loaded.take_if(|result| self.loading || result.is_err()) {
            self.loading = false;
            self.loader = None;
            if result.is_ok() {
                self.parcels.push_back(Parcel::Apply(Item::Begin));
            }
            let told = result.as_ref().copied().map_err(String::as_str);
            self.step(Event::Loaded(told)).await;
        }
    }

    fn address(&self) -> (String, u16) {
        let state = self.node.peers.replication.lock();
        state.upstream.as_ref().map_or_else(Default::default, |u| {
            let config = u.replica.config();
            (config.host.clone(), config.port)
        })
    }
}
