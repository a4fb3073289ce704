//! Who belongs to the cluster: MEET and its handshake, FORGET, REPLICATE, RESET.

use std::net::IpAddr;

use super::action::{Action, Keys, Level, Now};
use super::link::LinkId;
use super::message::Header;
use super::node::{MYSELF, Node, NodeFlags, NodeId, NodeIx, Shard};
use super::state::ClusterState;

/// A forgotten node may not come back by gossip for so long; time enough to tell all nodes to forget it.
const FORGET_MS: u64 = 60_000;
/// Bound on remembered forgotten nodes: peers can add to them.
const FORGOTTEN_MAX: usize = 4096;

impl ClusterState {
    /// CLUSTER MEET. `cport` 0: port + 10000.
    pub fn meet(&mut self, now: Now, ip: &str, port: u16, cport: u16) -> Result<(), String> {
        self.now = now;
        let bad = || format!("ERR Invalid node address specified: {ip}:{port}");
        let cport = if cport == 0 { port.checked_add(10_000).ok_or_else(bad)? } else { cport };
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        if port == 0 {
            return Err(bad());
        }
        self.start_handshake(&ip.to_string(), port, cport, NodeFlags::HANDSHAKE | NodeFlags::MEET);
        self.todo.save = true;
        Ok(())
    }

    /// Adds a node whose name is not known yet; its first PONG tells it.
    pub(super) fn start_handshake(&mut self, ip: &str, port: u16, cport: u16, flags: NodeFlags) {
        let under_way = self
            .nodes
            .iter()
            .any(|(_, n)| n.in_handshake() && n.address.ip == ip && n.address.cport == cport);
        if under_way {
            return;
        }
        let id = NodeId::random(&mut self.rng);
        let mut node = Node::new(id, flags, self.now.mono);
        ip.clone_into(&mut node.address.ip);
        node.address.port = port;
        node.address.cport = cport;
        if let Some(ix) = self.nodes.insert(node) {
            self.connect(ix);
        }
    }

    /// The PONG that ends a handshake. The node gets its real name. If that name is known already, the node is dropped,
    /// and the known one is where it answered: MEET tells the nodes of a cluster that has moved where they are.
    pub(super) fn end_handshake(&mut self, link: LinkId, ix: NodeIx, header: &Header) {
        if let Some(known) = self.nodes.find(&header.sender) {
            let name = self.named(known);
            let text = format!("Handshake: we already know node {name}, updating the address if needed.");
            self.log(Level::Verbose, text);
            let address = self.address_of(link, header);
            self.remove_node(ix);
            if known != MYSELF {
                self.move_node(known, address);
            }
            return;
        }
        self.log(Level::Debug, format!("Handshake with node {} completed.", header.sender));
        self.nodes.rename(ix, header.sender);
        let node = &mut self.nodes[ix];
        node.shard = Shard::invented(header.sender);
        node.flags.clear(NodeFlags::HANDSHAKE);
        node.flags.set(header.flags.only(NodeFlags::MASTER | NodeFlags::SLAVE));
        if node.flags.has(NodeFlags::MASTER) {
            node.flags.clear(NodeFlags::SLAVE);
        }
        self.changed();
    }

    /// A node leaves the table; nothing may refer to it afterwards.
    pub(super) fn remove_node(&mut self, ix: NodeIx) {
        self.drop_all_slots_of(ix);
        self.slots.migrating.retain(|_, n| *n != ix);
        self.slots.importing.retain(|_, n| *n != ix);
        for link in [self.nodes[ix].outbound, self.nodes[ix].inbound].into_iter().flatten() {
            self.close_link(link);
        }
        for link in self.links.values_mut().filter(|l| l.node == Some(ix)) {
            link.node = None;
        }
        for replica in self.nodes.places() {
            if self.nodes[replica].primary == Some(ix) {
                self.set_primary_of(replica, None);
            }
        }
        self.set_primary_of(ix, None);
        if self.manual.replica == Some(ix) {
            self.reset_manual_failover();
        }
        let gone = self.nodes.remove(ix);
        for (_, node) in self.nodes.iter_mut() {
            node.failure_reports.remove(&gone.id);
        }
        self.changed();
    }

    /// CLUSTER FORGET.
    pub fn forget(&mut self, now: Now, id: &NodeId) -> Result<(), String> {
        self.now = now;
        let Some(ix) = self.nodes.find(id) else {
            // Another node may have told us to forget it already; saying it again is no mistake.
            return if self.is_forgotten(id) { Ok(()) } else { Err(format!("ERR Unknown node {id}")) };
        };
        if ix == MYSELF {
            return Err("ERR I tried hard but I can't forget myself...".into());
        }
        if self.me().primary == Some(ix) {
            return Err("ERR Can't forget my master!".into());
        }
        self.forget_for(*id, FORGET_MS);
        self.remove_node(ix);
        Ok(())
    }

    /// Another node was told to forget it.
    pub(super) fn hear_forgotten(&mut self, id: NodeId, seconds: u64) {
        let Some(ix) = self.nodes.find(&id) else { return };
        if ix == MYSELF || self.me().primary == Some(ix) {
            return;
        }
        self.forget_for(id, seconds.saturating_mul(1000).min(FORGET_MS));
        self.remove_node(ix);
    }

    fn forget_for(&mut self, id: NodeId, ms: u64) {
        let now = self.now.mono;
        self.forgotten.retain(|_, until| *until > now);
        if self.forgotten.len() < FORGOTTEN_MAX {
            self.forgotten.insert(id, now + ms);
        }
    }

    pub(super) fn is_forgotten(&self, id: &NodeId) -> bool {
        self.forgotten.get(id).is_some_and(|until| *until > self.now.mono)
    }

    /// CLUSTER REPLICATE.
    pub fn replicate(&mut self, now: Now, id: &NodeId, keys: &dyn Keys) -> Result<(), String> {
        self.now = now;
        let ix = self.nodes.find(id).ok_or_else(|| format!("ERR Unknown node {id}"))?;
        if ix == MYSELF {
            return Err("ERR Can't replicate myself".into());
        }
        if self.nodes[ix].is_replica() {
            return Err("ERR I can only replicate a master, not a replica.".into());
        }
        if self.me().is_primary() && (self.me().slot_count != 0 || keys.count() != 0) {
            return Err("ERR To set a master the node must be empty and without assigned slots.".into());
        }
        self.follow_primary(ix);
        self.changed_durably();
        Ok(())
    }

    /// CLUSTER RESET: forget all others; hard, also name and epochs.
    pub fn reset(&mut self, now: Now, hard: bool, keys: &dyn Keys) -> Result<(), String> {
        self.now = now;
        if self.me().is_primary() && keys.count() != 0 {
            return Err("ERR CLUSTER RESET can't be called with master nodes containing keys".into());
        }
        if self.me().is_replica() {
            self.make_primary(MYSELF);
            self.out.push(Action::FlushAll);
        }
        self.election = super::election::Election::default();
        self.reset_manual_failover();
        for ix in self.nodes.places().into_iter().filter(|ix| *ix != MYSELF) {
            self.remove_node(ix);
        }
        self.slots.migrating.clear();
        self.slots.importing.clear();
        self.drop_all_slots_of(MYSELF);
        self.nodes[MYSELF].shard = Shard::told(NodeId::random(&mut self.rng));
        if hard {
            self.current_epoch = 0;
            self.last_vote_epoch = 0;
            self.nodes[MYSELF].config_epoch = 0;
            let id = NodeId::random(&mut self.rng);
            self.nodes.rename(MYSELF, id);
            // Nodes that knew us by the old name must find out by new connections.
            for link in self.links.keys().copied().collect::<Vec<_>>() {
                self.close_link(link);
            }
        }
        self.changed_durably();
        Ok(())
    }

    /// CLUSTER SAVECONFIG.
    pub fn save_config(&mut self, now: Now) {
        self.now = now;
        self.todo.save = true;
        self.todo.sync = true;
    }

    /// CLUSTER COUNT-FAILURE-REPORTS.
    pub fn count_failure_reports(&mut self, now: Now, id: &NodeId) -> Result<usize, String> {
        self.now = now;
        let ix = self.nodes.find(id).ok_or_else(|| format!("ERR Unknown node {id}"))?;
        Ok(self.failure_reports(ix))
    }
}
