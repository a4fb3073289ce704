//! What a packet changes: the order of its parts is the protocol's.

use super::action::{Action, Level};
use super::link::LinkId;
use super::message::{Body, DecodeError, Gossip, Header, Kind, Message, mflag};
use super::node::{Address, MYSELF, NodeFlags, NodeId, NodeIx};
use super::state::ClusterState;

/// Who sent a packet.
enum Identity {
    Known(NodeIx),
    Stranger,
    /// Another node than before answers on the link, which is closed.
    Changed,
}

impl ClusterState {
    pub(super) fn receive(&mut self, link: LinkId, packet: &[u8]) {
        if !self.links.contains_key(&link) {
            return;
        }
        let message = match Message::decode(packet) {
            Ok(message) => message,
            // A later version may speak to us while a cluster is upgraded; that is no reason to hang up.
            Err(DecodeError::Version(_)) => return,
            Err(error) => {
                self.stats.malformed += 1;
                self.log(Level::Warning, format!("Bad message on the cluster bus: {error}"));
                self.close_link(link);
                return;
            }
        };
        if let Some(kind) = message.body.kind() {
            self.count_received(kind as u16);
        }
        if message.header.sender == self.me().id {
            return self.receive_own(link, &message);
        }
        let sender = match self.identify(link, &message.header) {
            Identity::Known(sender) => Some(sender),
            Identity::Stranger => None,
            Identity::Changed => return,
        };
        if let Some(sender) = sender {
            self.hear_header(sender, &message.header);
        }
        match &message.body {
            Body::Ping(gossip) | Body::Pong(gossip) | Body::Meet(gossip) => {
                self.hear_ping(link, sender, &message, gossip);
            }
            body => {
                // The rest is only for nodes that know each other.
                if let Some(sender) = sender {
                    self.hear_other(sender, &message, body);
                }
            }
        }
    }

    /// A packet of this type came. Types of later versions are not counted.
    pub fn count_received(&mut self, kind: u16) {
        if let Some(count) = self.stats.received.get_mut(usize::from(kind)) {
            *count += 1;
        }
    }

    /// Somebody met us with our own address: answer, learn nothing.
    fn receive_own(&mut self, link: LinkId, message: &Message) {
        let node = self.links.get(&link).and_then(|l| l.node);
        match message.body {
            Body::Ping(_) | Body::Meet(_) => self.send_gossip(link, Kind::Pong),
            _ => {
                if let Some(ix) = node.filter(|ix| self.nodes[*ix].in_handshake()) {
                    self.remove_node(ix);
                }
            }
        }
    }

    /// Who sent it.
    fn identify(&mut self, link: LinkId, header: &Header) -> Identity {
        let known = self.nodes.find(&header.sender).filter(|ix| !self.nodes[*ix].in_handshake());
        let bound = self.links.get(&link).and_then(|l| l.node);
        match bound {
            Some(bound) if !self.nodes[bound].in_handshake() && self.nodes[bound].id != header.sender => {
                if !link.is_inbound() {
                    // Another node answers at this address: we do not know where ours is.
                    let node = &self.nodes[bound];
                    let text = format!(
                        "PONG contains mismatching sender ID. About node {} added {} ms ago, having flags {}",
                        node.id,
                        self.now.mono.saturating_sub(node.created),
                        node.flags.0
                    );
                    self.log(Level::Debug, text);
                    let node = &mut self.nodes[bound];
                    node.flags.set(NodeFlags::NOADDR);
                    node.address = Address::default();
                    self.changed();
                }
                self.close_link(link);
                Identity::Changed
            }
            _ => {
                if link.is_inbound()
                    && let Some(ix) = known
                {
                    self.bind_inbound(link, ix);
                }
                known.map_or(Identity::Stranger, Identity::Known)
            }
        }
    }

    /// What every packet of a known node tells: it lives, its epochs, its replication offset.
    fn hear_header(&mut self, sender: NodeIx, header: &Header) {
        let now = self.now.mono;
        let node = &mut self.nodes[sender];
        node.data_received = now;
        // A replica's header carries its primary's epoch: nothing of its own.
        if header.primary.is_none() && header.config_epoch > node.config_epoch {
            node.config_epoch = header.config_epoch;
            self.changed_durably();
            self.hear_of_winner(header.config_epoch);
        }
        let node = &mut self.nodes[sender];
        node.repl_offset = header.offset;
        node.repl_offset_time = Some(now);
        if header.current_epoch > self.current_epoch {
            self.current_epoch = header.current_epoch;
            self.changed_durably();
        }
        let from_my_primary = self.me().is_replica() && self.me().primary == Some(sender);
        if from_my_primary && header.mflags & mflag::PAUSED != 0 {
            self.hear_paused_offset(header.offset);
        }
    }

    fn hear_ping(&mut self, link: LinkId, sender: Option<NodeIx>, message: &Message, gossip: &Gossip) {
        let header = &message.header;
        let asks = !matches!(message.body, Body::Pong(_));
        if asks {
            let meet = matches!(message.body, Body::Meet(_));
            self.learn_own_ip(link, meet);
            if sender.is_none() && meet {
                let address = self.address_of(link, header);
                self.start_handshake(&address.ip, address.port, address.cport, NodeFlags::HANDSHAKE);
                self.todo.save = true;
            }
            self.send_gossip(link, Kind::Pong);
        }
        let mut sender = sender;
        if !link.is_inbound()
            && let Some(bound) = self.links.get(&link).and_then(|l| l.node)
        {
            if self.nodes[bound].in_handshake() {
                if !matches!(message.body, Body::Pong(_)) {
                    return;
                }
                self.end_handshake(link, bound, header);
                if sender.is_some() {
                    return;
                }
                sender = Some(bound);
                self.hear_header(bound, header);
            }
            if matches!(message.body, Body::Pong(_)) {
                let now = self.now.mono;
                let node = &mut self.nodes[bound];
                node.pong_received = now;
                node.ping_sent = None;
                self.heard_alive(bound);
            }
        }
        let Some(sender) = sender else { return };
        let no_failover = header.flags.has(NodeFlags::NOFAILOVER);
        self.nodes[sender].flags.put(NodeFlags::NOFAILOVER, no_failover);
        if matches!(message.body, Body::Ping(_)) {
            self.follow_address(link, sender, header);
        }
        self.hear_role(sender, header);
        self.hear_claims(sender, header);
        self.resolve_epoch_collision(sender, header);
        self.hear_gossip(sender, gossip);
        // Gossip adds nodes and a forgotten-node extension removes them; the sender may be one.
        if self.nodes.get(sender).is_some() {
            self.hear_extensions(sender, header, &gossip.extensions);
        }
    }

    /// A node learns its own address from the address that peers reach it at.
    fn learn_own_ip(&mut self, link: LinkId, meet: bool) {
        if self.config.announce_ip.is_some() || !(meet || self.me().address.ip.is_empty()) {
            return;
        }
        let Some(ip) = self.links.get(&link).map(|l| l.local_ip.clone()) else { return };
        if !ip.is_empty() && self.me().address.ip != ip {
            self.log(Level::Notice, format!("IP address for this node updated to {ip}"));
            self.nodes[MYSELF].address.ip = ip;
            self.changed();
        }
    }

    /// Where the sender says it is reached, or where its connection comes from.
    pub(super) fn address_of(&self, link: LinkId, header: &Header) -> Address {
        let seen = || self.links.get(&link).map(|l| l.peer_ip.clone()).unwrap_or_default();
        let ip = if header.ip.is_empty() { seen() } else { header.ip.clone() };
        Address { ip, port: header.port, pport: header.pport, cport: header.cport }
    }

    /// A node that moved pings from elsewhere, or announces it.
    fn follow_address(&mut self, link: LinkId, sender: NodeIx, header: &Header) {
        if !link.is_inbound() {
            return;
        }
        let address = self.address_of(link, header);
        self.move_node(sender, address);
    }

    /// From now on the node is reached there.
    pub(super) fn move_node(&mut self, node: NodeIx, address: Address) {
        if address.ip.is_empty() || self.nodes[node].address == address {
            return;
        }
        let name = self.named(node);
        self.log(
            Level::Notice,
            format!("Address updated for node {name}, now {}:{}", address.ip, address.port),
        );
        self.nodes[node].address = address;
        self.nodes[node].flags.clear(NodeFlags::NOADDR);
        if let Some(link) = self.nodes[node].outbound {
            self.close_link(link);
        }
        self.changed();
    }

    fn hear_role(&mut self, sender: NodeIx, header: &Header) {
        let Some(primary_id) = header.primary else {
            self.make_primary(sender);
            return;
        };
        if self.nodes[sender].is_primary() {
            self.log_lost_role(sender, primary_id, header.config_epoch);
            self.drop_all_slots_of(sender);
            let node = &mut self.nodes[sender];
            node.flags.clear(NodeFlags::MASTER | NodeFlags::MIGRATE_TO);
            node.flags.set(NodeFlags::SLAVE);
            self.changed();
        }
        let primary = self.nodes.find(&primary_id).filter(|p| *p != sender);
        if primary.is_some() && self.nodes[sender].primary != primary {
            self.set_primary_of(sender, primary);
        }
    }

    /// A primary says that it is a replica now.
    fn log_lost_role(&mut self, sender: NodeIx, primary: NodeId, epoch: u64) {
        let (name, shard) = (self.named(sender), self.nodes[sender].shard.id);
        let slots = self.nodes[sender].slot_count;
        let primary = self.nodes.find(&primary).filter(|p| *p != sender);
        let (primary, new_shard) = match primary {
            Some(p) => (self.named(p), self.nodes[p].shard.id),
            None => (String::new(), shard),
        };
        if !primary.is_empty() && new_shard == shard {
            let text = format!(
                "A failover occurred in shard {shard}; node {name} lost {slots} slot(s) to node {primary} with a config epoch of {epoch}"
            );
            return self.log(Level::Notice, text);
        }
        let text = format!(
            "Node {name} is no longer master of shard {shard}; removed all {slots} slot(s) it used to own"
        );
        self.log(Level::Notice, text);
        if !primary.is_empty() {
            self.log(Level::Notice, format!("Node {name} is now part of shard {new_shard}"));
        }
    }

    /// The slots in the header, compared with what we believe of that shard.
    fn hear_claims(&mut self, sender: NodeIx, header: &Header) {
        let claimer = if self.nodes[sender].is_primary() { Some(sender) } else { self.nodes[sender].primary };
        let Some(claimer) = claimer else { return };
        if self.nodes[claimer].slots == header.slots {
            if claimer == sender && !self.slots.unclaimed.is_empty() {
                self.note_unclaimed(sender, &header.slots);
            }
            return;
        }
        if claimer == sender {
            self.hear_slots(sender, header.config_epoch, &header.slots);
        }
        self.correct_outdated_claim(sender, header.config_epoch, &header.slots);
    }

    fn hear_other(&mut self, sender: NodeIx, message: &Message, body: &Body) {
        match body {
            Body::Ping(_) | Body::Pong(_) | Body::Meet(_) => unreachable!("handled with their gossip"),
            Body::Fail(id) => {
                if let Some(ix) = self.nodes.find(id) {
                    self.hear_fail(sender, ix);
                }
            }
            Body::Publish { channel, payload } => {
                let (channel, payload) = (channel.clone(), payload.clone());
                self.out.push(Action::Deliver { channel, payload, shard: false });
            }
            Body::PublishShard { channel, payload } => {
                let (channel, payload) = (channel.clone(), payload.clone());
                self.out.push(Action::Deliver { channel, payload, shard: true });
            }
            Body::AuthRequest => self.hear_auth_request(sender, message),
            Body::AuthAck => self.hear_vote(sender, message.header.current_epoch),
            Body::Update { config_epoch, node, slots } => {
                if let Some(ix) = self.nodes.find(node) {
                    self.hear_update(ix, *config_epoch, slots);
                }
            }
            Body::MfStart => self.hear_mfstart(sender),
            Body::Module | Body::Unknown(_) => {}
        }
    }
}
