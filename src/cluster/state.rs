//! The state machine: what a node knows of the cluster, and the one way in and out of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::action::{Action, Event, Level, Now, ReplicationFacts};
use super::config::Config;
use super::election::Election;
use super::link::{Link, LinkId};
use super::manual::ManualFailover;
use super::message::{self, Body, Header, Kind, Message, mflag};
use super::node::{MYSELF, Node, NodeFlags, NodeId, NodeIx, Nodes, Shard};
use super::slots::SlotMap;
use super::view::Down;
use crate::base::rng::Rng;
use crate::base::time::MonoMs;

/// Packets by [`Kind`], for CLUSTER INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By number of their type.
    pub sent: [u64; Kind::ALL.len()],
    /// By number of their type.
    pub received: [u64; Kind::ALL.len()],
    /// What came and was no packet; the link was closed.
    pub malformed: u64,
}

impl Stats {
    /// Packets of all types.
    pub fn total_sent(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Packets of all types.
    pub fn total_received(&self) -> u64 {
        self.received.iter().sum()
    }
}

/// Work that a step leaves for its end, so that it is done once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Todo {
    pub save: bool,
    /// What leaves after this step must not leave before the file is on disk.
    pub sync: bool,
    pub view: bool,
    /// Look again whether the cluster serves.
    pub health: bool,
    pub failover: bool,
    /// Tell everybody what this node is now.
    pub announce: bool,
}

/// What the driver was last told that this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica { id: NodeId, ip: String, port: u16 },
}

/// One node's knowledge of the cluster and its part in it.
///
/// Feed it with [`step`](Self::step) and with the administrator's calls (`meet`, `add_slots`, ...);
/// carry out the actions that `step` returns, and after an administrator's call those of
/// [`take_actions`](Self::take_actions), in their order. It reads no clock: every input brings the time.
#[derive(Clone, Debug)]
pub struct ClusterState {
    pub(super) config: Config,
    pub(super) rng: Rng,
    pub(super) now: Now,
    pub(super) nodes: Nodes,
    pub(super) slots: SlotMap,
    /// The highest epoch seen anywhere: the clock of elections.
    pub(super) current_epoch: u64,
    /// Epoch of our last vote. Never two votes in one epoch.
    pub(super) last_vote_epoch: u64,
    pub(super) down: Option<Down>,
    /// Primaries with slots, failed ones included: what majorities are counted of.
    pub(super) size: usize,
    pub(super) last_minority: Option<MonoMs>,
    pub(super) started: Option<MonoMs>,
    pub(super) last_cron: Option<MonoMs>,
    pub(super) cron_runs: u64,
    pub(super) election: Election,
    pub(super) manual: ManualFailover,
    /// Forgotten nodes, and until when gossip may not bring them back.
    pub(super) forgotten: BTreeMap<NodeId, MonoMs>,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) next_link: u64,
    pub(super) facts: ReplicationFacts,
    pub(super) stats: Stats,
    pub(super) todo: Todo,
    pub(super) role: Role,
    pub(super) out: Vec<Action>,
}

impl ClusterState {
    /// A node that knows nobody, named from `rng`.
    pub fn new(config: Config, mut rng: Rng, now: Now) -> Self {
        let id = NodeId::random(&mut rng);
        let mut myself = Node::new(id, NodeFlags::MYSELF | NodeFlags::MASTER, now.mono);
        myself.shard = Shard::told(NodeId::random(&mut rng));
        let mut state = Self {
            config: Config::default(),
            rng,
            now,
            nodes: Nodes::new(myself),
            slots: SlotMap::default(),
            current_epoch: 0,
            last_vote_epoch: 0,
            down: Some(Down::Waiting),
            size: 0,
            last_minority: None,
            started: None,
            last_cron: None,
            cron_runs: 0,
            election: Election::default(),
            manual: ManualFailover::default(),
            forgotten: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 1,
            facts: ReplicationFacts::default(),
            stats: Stats::default(),
            todo: Todo { save: true, sync: true, view: true, ..Todo::default() },
            role: Role::Primary,
            out: Vec::new(),
        };
        state.set_config(now, config);
        state
    }

    /// Takes in one event; returns what is to be done about it, in order.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Tick => self.tick(),
            Event::Accepted { link, peer_ip, local_ip } => {
                assert!(link.is_inbound(), "accepted links are numbered as inbound");
                let link_state = Link { node: None, created: now.mono, up: true, peer_ip, local_ip };
                self.links.insert(link, link_state);
            }
            Event::Connected { link, peer_ip, local_ip } => self.link_connected(link, peer_ip, local_ip),
            Event::Closed { link } => self.link_closed(link),
            Event::Received { link, packet } => self.receive(link, &packet),
        }
        self.take_actions()
    }

    /// What the administrator's calls since the last step ask for, in order. [`step`](Self::step) calls it.
    pub fn take_actions(&mut self) -> Vec<Action> {
        if std::mem::take(&mut self.todo.failover) {
            self.run_failover();
        }
        if std::mem::take(&mut self.todo.health) {
            self.update_health();
        }
        if std::mem::take(&mut self.todo.announce) {
            self.broadcast_pong(|_| true);
        }
        let rest = std::mem::take(&mut self.out);
        let todo = std::mem::take(&mut self.todo);
        // The look at health may ask for another one.
        self.todo.health = todo.health;
        let mut actions = Vec::with_capacity(rest.len() + 3);
        if todo.save {
            actions.push(Action::Persist { text: self.nodes_conf(), sync: todo.sync });
        }
        // Workers must not serve as primary before the node is one, nor still when it is one no more.
        let role = self.follow_role();
        let promoted = matches!(role, Some(Action::BecomePrimary));
        let view = todo.view.then(|| Action::PublishView(self.view()));
        if promoted {
            actions.extend(role.into_iter().chain(view));
        } else {
            actions.extend(view.into_iter().chain(role));
        }
        actions.extend(rest);
        actions
    }

    /// When the next [`Event::Tick`] is due at the latest: silence must be noticed the moment that it lasts
    /// too long, not at the next round of a coarse timer.
    pub fn next_tick(&self) -> MonoMs {
        let cron = self.last_cron.map_or(self.now.mono, |t| t + super::cron::CRON_MS);
        let silence = self.nodes.iter().filter_map(|(_, n)| self.suspicion_deadline(n)).min();
        let election = self.election_deadline();
        [Some(cron), silence, election, self.manual.deadline].into_iter().flatten().min().unwrap_or(cron)
    }

    /// Takes new settings; what others see of this node follows with the next packets.
    pub fn set_config(&mut self, now: Now, config: Config) {
        self.now = now;
        self.config = config.bounded();
        self.update_own_announcement();
        self.todo.view = true;
        self.todo.health = true;
    }

    /// What the data side knows of replication at this moment.
    pub fn set_replication_facts(&mut self, facts: ReplicationFacts) {
        self.facts = facts;
        if self.manual.may_become_ready() {
            self.check_manual_failover_offset();
        }
    }

    /// Brings what this node tells of itself in line with its configuration.
    pub(super) fn update_own_announcement(&mut self) {
        let config = &self.config;
        let me = &mut self.nodes[MYSELF];
        let before = (me.address.clone(), me.hostname.clone(), me.human_name.clone(), me.flags);
        if let Some(ip) = &config.announce_ip {
            me.address.ip.clone_from(ip);
        }
        me.address.port = config.announced_port();
        me.address.pport = config.announced_pport();
        me.address.cport = config.announced_bus_port();
        me.hostname = config.announce_hostname.clone().unwrap_or_default();
        me.human_name = config.announce_human_name.clone().unwrap_or_default();
        me.flags.put(NodeFlags::NOFAILOVER, config.replica_no_failover);
        if before != (me.address.clone(), me.hostname.clone(), me.human_name.clone(), me.flags) {
            self.changed();
        }
    }

    /// Tells the driver when role, primary or the primary's address is another than it was told.
    fn follow_role(&mut self) -> Option<Action> {
        let me = &self.nodes[MYSELF];
        if me.is_primary() {
            let before = std::mem::replace(&mut self.role, Role::Primary);
            return (before != Role::Primary).then_some(Action::BecomePrimary);
        }
        let primary = &self.nodes[me.primary?];
        if primary.address.ip.is_empty() {
            return None;
        }
        let (id, ip) = (primary.id, primary.address.ip.clone());
        let port = match primary.address.port_of(self.config.tls, self.config.replicate_tls) {
            0 => primary.address.port,
            port => port,
        };
        let role = Role::Replica { id, ip: ip.clone(), port };
        let before = std::mem::replace(&mut self.role, role.clone());
        (before != role).then_some(Action::SetPrimary { id, ip, port })
    }

    // What the parts of the machine share.

    /// Configuration changed: write it down and show it.
    pub(super) fn changed(&mut self) {
        self.todo.save = true;
        self.todo.view = true;
        self.todo.health = true;
    }

    /// As [`changed`](Self::changed), and nothing leaves before it is on disk.
    pub(super) fn changed_durably(&mut self) {
        self.changed();
        self.todo.sync = true;
    }

    pub(super) fn log(&mut self, level: Level, text: String) {
        self.out.push(Action::Log { level, text });
    }

    /// A node as lines of the log name it: its id, and in brackets its human name.
    pub(super) fn named(&self, ix: NodeIx) -> String {
        let node = &self.nodes[ix];
        format!("{} ({})", node.id, node.human_name)
    }

    pub(super) fn me(&self) -> &Node {
        &self.nodes[MYSELF]
    }

    /// The primary whose slots this node's packets carry: itself, or whom it replicates.
    pub(super) fn my_shards_primary(&self) -> NodeIx {
        self.me().primary.unwrap_or(MYSELF)
    }

    /// Votes and failure reports that make a majority.
    pub(super) fn majority(&self) -> usize {
        self.size / 2 + 1
    }

    pub(super) fn header(&self) -> Header {
        let me = self.me();
        let primary = &self.nodes[self.my_shards_primary()];
        let paused = me.is_primary() && self.manual.deadline.is_some();
        Header {
            sender: me.id,
            port: me.address.port,
            pport: me.address.pport,
            cport: me.address.cport,
            ip: self.config.announce_ip.clone().unwrap_or_default(),
            flags: me.flags,
            state_ok: self.down.is_none(),
            mflags: if paused { mflag::PAUSED } else { 0 },
            current_epoch: self.current_epoch,
            config_epoch: primary.config_epoch,
            offset: self.facts.offset,
            slots: primary.slots.clone(),
            primary: me.primary.map(|p| self.nodes[p].id),
        }
    }

    pub(super) fn send(&mut self, link: LinkId, body: Body) {
        let message = Message { header: self.header(), body };
        self.send_message(link, &message);
    }

    pub(super) fn send_message(&mut self, link: LinkId, message: &Message) {
        let kind = message.body.kind().expect("only known types are sent");
        self.send_packet(link, kind, &Bytes::from(message.encode()));
    }

    /// Queues a packet on a link that is up; on another it is lost, as on a broken one.
    pub(super) fn send_packet(&mut self, link: LinkId, kind: Kind, packet: &Bytes) {
        if self.links.get(&link).is_some_and(|l| l.up) {
            self.stats.sent[kind as usize] += 1;
            self.out.push(Action::Send { link, packet: packet.clone() });
        }
    }

    /// The same packet to every node that `want` accepts and that a link is up to.
    pub(super) fn broadcast(&mut self, message: &Message, want: impl Fn(&Node) -> bool) {
        let kind = message.body.kind().expect("only known types are sent");
        let packet = Bytes::from(message.encode());
        let links: Vec<LinkId> = self
            .nodes
            .iter()
            .filter(|(_, n)| !n.is_myself() && !n.in_handshake() && want(n))
            .filter_map(|(_, n)| n.outbound)
            .collect();
        for link in links {
            self.send_packet(link, kind, &packet);
        }
    }

    /// PUBLISH and SPUBLISH reach the other nodes: all, or those of this shard.
    pub fn publish(&mut self, now: Now, channel: &[u8], payload: &[u8], shard: bool) {
        self.now = now;
        if message::HEADER_LEN + 8 + channel.len() + payload.len() > message::PACKET_MAX {
            // Possible with a raised `proto-max-bulk-len`: whoever received it would cut the link.
            let bytes = payload.len();
            self.log(Level::Warning, format!("A published message of {bytes} bytes stays on this node"));
            return;
        }
        let (channel, payload) = (channel.to_vec(), payload.to_vec());
        let body =
            if shard { Body::PublishShard { channel, payload } } else { Body::Publish { channel, payload } };
        let message = Message { header: self.header(), body };
        let my_shard = self.my_shards_primary();
        let members: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(ix, n)| !shard || *ix == my_shard || n.primary == Some(my_shard))
            .map(|(_, n)| n.id)
            .collect();
        self.broadcast(&message, |n| members.contains(&n.id));
    }
}
