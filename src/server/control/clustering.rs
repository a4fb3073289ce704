//! This node as a member of a cluster: the bus's way to the data, to replication and to clients.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::base::crc16::key_slot;
use crate::base::time::MonoMs;
use crate::cluster::{Keys, NodeId, Now, ReplicationFacts, SlotBitmap, View};
use crate::config::Config;
use crate::keyspace::Effects;
use crate::pubsub::Space;
use crate::server::control::bus::cluster_config::{bus_port, cluster_config};
use crate::server::control::bus::{Bus, BusError, BusHost};
use crate::server::control::replication;
use crate::server::control::shard_channels;
use crate::server::disk::nodes_file::NodesFile;
use crate::server::net::listen;
use crate::server::net::tls::Session;
use crate::server::node::pause::Purpose;
use crate::server::node::{Node, unix_ms};

/// Why a node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The clients' port: the bus would be 10,000 above it.
    #[error("Port number too high for cluster mode: {0} + 10000 is above 65535")]
    Port(u16),
    /// The port of the bus, which cannot be listened on.
    #[error("Failed listening on port {0} (cluster), aborting.")]
    Listen(u16),
    /// nodes.conf cannot be had, or is not what a node wrote.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The control thread cannot be set up for it.
    #[error("Unable to start the cluster bus: {0}")]
    Thread(std::io::Error),
}

/// A member that answers its clients, but talks to no other node yet.
pub struct Member {
    bus: Arc<Bus>,
    file: NodesFile,
    listeners: Vec<TcpListener>,
}

/// Opens nodes.conf and the bus port. Clients may come afterwards.
pub fn open(node: &Arc<Node>, seed: u64) -> Result<Member, ClusterError> {
    let config = node.config.load_full();
    let port = bus_port(&config).ok_or(ClusterError::Port(config.port))?;
    let listeners = listen::tcp(&config, port).map_err(|error| {
        tracing::warn!("{error}");
        ClusterError::Listen(port)
    })?;
    let host = Arc::new(Way { node: Arc::downgrade(node) });
    let (bus, file) = Bus::open(Path::new(&config.cluster_config_file), cluster_config(&config), seed, host)?;
    bus.link_buffer_limit.store(config.cluster_link_sendbuf_limit as usize, Ordering::Relaxed);
    bus.source.lock().clone_from(&config.bind_source_addr);
    assert!(node.peers.bus.set(Arc::clone(&bus)).is_ok(), "the bus is opened once");
    bus.post(|s, now| s.claim_data(now, &Loaded(node)));
    Ok(Member { bus, file, listeners })
}

/// Starts the bus, on a thread of its own, so that nothing else on this node can make it late.
pub fn start(node: &Arc<Node>, member: Member) -> Result<(), ClusterError> {
    let Member { bus, file, listeners } = member;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClusterError::Thread)?;
    node.life.threads.runtimes.lock().push(runtime.handle().clone());
    let thread = std::thread::Builder::new().name("bus".into());
    let watched = Arc::downgrade(node);
    thread
        .spawn(move || {
            crate::server::process::crash::guard_thread();
            runtime.block_on(async {
                tokio::spawn(Arc::clone(&bus).run(file, listeners));
                while watched.upgrade().is_some_and(|n| !n.life.shutdown.begun.load(Ordering::Acquire)) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            runtime.shutdown_background();
        })
        .map_err(ClusterError::Thread)?;
    Ok(())
}

/// Hands changed directives to the bus.
pub fn configure(node: &Node, config: &Config) {
    if let Some(bus) = node.peers.bus.get() {
        bus.link_buffer_limit.store(config.cluster_link_sendbuf_limit as usize, Ordering::Relaxed);
        bus.source.lock().clone_from(&config.bind_source_addr);
        // The reply to CONFIG SET says that it is so; it may stand in a transaction, which holds locks.
        bus.door(true).admin(|s, now| s.set_config(now, cluster_config(config)));
    }
}

/// The keys that were loaded, counted without a lock.
struct Loaded<'a>(&'a Node);

impl Keys for Loaded<'_> {
    fn count_in_slot(&self, slot: u16) -> u64 {
        self.0.shared.keyspace.slot_len(0, slot) as u64
    }

    fn count(&self) -> u64 {
        self.0.shared.keyspace.len(0) as u64
    }
}

/// The bus's view of the node. Weak, because the node holds the bus.
struct Way {
    node: Weak<Node>,
}

impl Way {
    fn node(&self) -> Arc<Node> {
        self.node.upgrade().expect("the bus ends before the node does")
    }
}

impl BusHost for Way {
    fn session_to(&self, host: &str) -> std::io::Result<Option<Session>> {
        let node = self.node();
        node.peers.tls.towards(node.config.load().tls_cluster, host)
    }

    fn session_of_peer(&self) -> std::io::Result<Option<Session>> {
        let node = self.node();
        node.peers.tls.of_peer(node.config.load().tls_cluster)
    }

    fn now(&self) -> Now {
        Now { mono: self.node().mono_ms() + 1, unix: unix_ms() }
    }

    fn replication(&self) -> ReplicationFacts {
        let node = self.node();
        let facts = node.peers.replication.facts(&node);
        ReplicationFacts { offset: facts.offset, last_io: facts.last_io }
    }

    fn set_primary(&self, _id: NodeId, ip: &str, port: u16) {
        replication::follow(&self.node(), (ip.to_owned(), port));
    }

    fn become_primary(&self) {
        replication::promote(&self.node());
    }

    fn publish(&self, view: Arc<View>) {
        let node = self.node();
        let before = node.shared.view.swap(Some(Arc::clone(&view)));
        // Clients that are blocked on keys of a slot that has left must be redirected.
        node.redirect_blocked();
        shard_channels::follow_slots(&node, before.as_deref(), &view);
    }

    fn drop_slots(&self, slots: &SlotBitmap) {
        let node = self.node();
        let ks = &node.shared.keyspace;
        for slot in slots.iter() {
            let mut effects = Effects::default();
            effects.log_wanted = ks.log.is_wanted();
            let mut locked = ks.lock_slot(slot);
            // Later changes are carried out meanwhile: the slot may be back already.
            let back = node.shared.view.load().as_ref().is_some_and(|view| {
                let state = view.slot(slot);
                state.is_mine() || state.is_importing()
            });
            if back || node.is_replica() {
                continue;
            }
            let mut keys = Vec::new();
            crate::keyspace::Db::new(
                &mut locked,
                0,
                unix_ms(),
                crate::keyspace::db::Expiring::Ignore,
                &mut effects,
            )
            .for_each_in_slot(slot, |e| keys.push(e.key().to_vec()));
            if keys.is_empty() {
                continue;
            }
            // Replicas hear of each key: they do not know why the slot went.
            for key in &keys {
                debug_assert_eq!(key_slot(key), slot);
                effects.record(0, &[&b"DEL"[..], key]);
            }
            ks.flush_slot(&mut locked, 0, slot, &mut effects);
            node.invalidate(&effects.stale, 0);
            node.broadcast(&effects.broadcast);
            effects.append_to(&ks.log, false);
        }
    }

    fn flush_all(&self) {
        let node = self.node();
        let ks = &node.shared.keyspace;
        let mut locked = ks.lock_all();
        for db in 0..ks.databases() as u16 {
            ks.flush(&mut locked, db, &mut Effects::default());
        }
        node.invalidate_all();
    }

    fn pause_writes(&self, until: MonoMs) {
        let node = self.node();
        node.pause_clients(Purpose::Failover, until.saturating_sub(self.now().mono), false);
        // A write that passed the gate before holds locks until it is in the log.
        drop(node.shared.keyspace.lock_all());
    }

    fn unpause(&self) {
        self.node().unpause_clients(Purpose::Failover);
    }

    fn deliver(&self, channel: &[u8], payload: &[u8], shard: bool) {
        self.node().publish(if shard { Space::Shard } else { Space::Global }, channel, payload);
    }

    fn fatal(&self, what: &str) {
        tracing::error!("{what}");
        std::process::exit(1);
    }
}
