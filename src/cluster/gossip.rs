//! PING, PONG and MEET: what a node tells of itself and of others, and what it believes of what it hears.

use super::action::Level;
use super::link::LinkId;
use super::message::{Body, Extensions, Gossip, GossipEntry, Header, Kind, Message, mflag};
use super::node::{Extended, MYSELF, Node, NodeFlags, NodeIx, Shard};
use super::state::ClusterState;

/// At least so many nodes are gossiped about, as far as there are so many.
const MIN_GOSSIP: usize = 3;

impl ClusterState {
    /// Sends a PING, PONG or MEET with the gossip section that a peer on this link should get.
    pub(super) fn send_gossip(&mut self, link: LinkId, kind: Kind) {
        let Some(peer) = self.links.get(&link).map(|l| l.node) else { return };
        let known = peer.map_or(Extended::Unknown, |p| self.nodes[p].extended);
        let gossip = Gossip { entries: self.gossip_entries(peer), extensions: self.extensions(known) };
        let body = match kind {
            Kind::Ping => Body::Ping(gossip),
            Kind::Pong => Body::Pong(gossip),
            Kind::Meet => Body::Meet(gossip),
            other => unreachable!("{other:?} carries no gossip"),
        };
        if kind == Kind::Ping
            && !link.is_inbound()
            && let Some(peer) = peer
        {
            self.nodes[peer].ping_sent = Some(self.now.mono);
        }
        let message = self.gossip_message(body);
        self.send_message(link, &message);
    }

    /// Tells the configuration without being asked: after a change of role, slots or suspicion.
    pub(super) fn broadcast_pong(&mut self, want: impl Fn(&Node) -> bool) {
        let entries = self.gossip_entries(None);
        for old in [false, true] {
            let known = if old { Extended::HostnamesOnly } else { Extended::All };
            let gossip = Gossip { entries: entries.clone(), extensions: self.extensions(known) };
            let message = self.gossip_message(Body::Pong(gossip));
            self.broadcast(&message, |n| (n.extended == Extended::HostnamesOnly) == old && want(n));
        }
    }

    /// A PING, PONG or MEET: its header, and no other packet's, says that this node understands extensions.
    fn gossip_message(&self, body: Body) -> Message {
        let mut header = self.header();
        header.mflags |= mflag::EXTENSIONS;
        Message { header, body }
    }

    /// What this node tells of itself behind the gossip section, from its first packet on. The receiver takes what
    /// is missing as withdrawn.
    fn extensions(&self, receiver: Extended) -> Extensions {
        let me = self.me();
        let some = |name: &String| Some(name.clone()).filter(|n| !n.is_empty());
        let hostname = some(&me.hostname);
        if receiver == Extended::HostnamesOnly {
            return Extensions { hostname, ..Extensions::default() };
        }
        let shard_id = me.shard.told.then_some(me.shard.id);
        let now = self.now.mono;
        let forgotten = self.forgotten.iter().filter(|(_, until)| **until > now);
        Extensions {
            hostname,
            // Where no shard id is sent, an empty name shows the peer that this is no version before 7.2, which
            // knows neither.
            human_name: some(&me.human_name).or_else(|| shard_id.is_none().then(String::new)),
            forgotten: forgotten.map(|(id, until)| (*id, (until - now).div_ceil(1000))).collect(),
            shard_id,
            unknown: 0,
        }
    }

    /// A tenth of the nodes at random, and every suspected one: within two node timeouts each node so
    /// hears of each other often enough for reports of a failure to meet (Redis Cluster specification,
    /// "Failure detection").
    fn gossip_entries(&mut self, receiver: Option<NodeIx>) -> Vec<GossipEntry> {
        let others = self.nodes.len().saturating_sub(2);
        let wanted = (self.nodes.len() / 10).max(MIN_GOSSIP).min(others);
        let mut chosen: Vec<NodeIx> = Vec::with_capacity(wanted + 1);
        let mut left = wanted * 3;
        while chosen.len() < wanted && left > 0 {
            left -= 1;
            let ix = self.nodes.random(&mut self.rng);
            let node = &self.nodes[ix];
            let unusable = node.flags.has(NodeFlags::HANDSHAKE | NodeFlags::NOADDR)
                || (node.outbound.is_none() && node.slot_count == 0);
            if ix != MYSELF
                && Some(ix) != receiver
                && !node.is_suspected()
                && !unusable
                && !chosen.contains(&ix)
            {
                chosen.push(ix);
            }
        }
        chosen.extend(
            self.nodes
                .iter()
                .filter(|(ix, n)| {
                    *ix != MYSELF
                        && n.is_suspected()
                        && !n.flags.has(NodeFlags::HANDSHAKE | NodeFlags::NOADDR)
                })
                .map(|(ix, _)| ix),
        );
        chosen.iter().map(|ix| self.gossip_entry(&self.nodes[*ix])).collect()
    }

    fn gossip_entry(&self, node: &Node) -> GossipEntry {
        let seconds = |t| (self.now.to_unix(t) / 1000) as u32;
        GossipEntry {
            id: node.id,
            ping_sent: node.ping_sent.map_or(0, seconds),
            pong_received: seconds(node.pong_received),
            ip: node.address.ip.clone(),
            port: node.address.port,
            cport: node.address.cport,
            flags: node.flags,
            pport: node.address.pport,
        }
    }

    /// What a node that we know says of others.
    pub(super) fn hear_gossip(&mut self, sender: NodeIx, gossip: &Gossip) {
        for entry in &gossip.entries {
            match self.nodes.find(&entry.id) {
                Some(MYSELF) => {}
                Some(ix) => self.hear_of_known(sender, ix, entry),
                None => self.hear_of_unknown(entry),
            }
        }
    }

    fn hear_of_known(&mut self, sender: NodeIx, ix: NodeIx, entry: &GossipEntry) {
        let failing = entry.flags.has(NodeFlags::FAIL | NodeFlags::PFAIL);
        if self.nodes[sender].is_voting() && sender != ix {
            if failing {
                self.report_failure(sender, ix);
            } else {
                self.withdraw_report(sender, ix);
            }
        }
        let now = self.now;
        let node = &mut self.nodes[ix];
        if failing {
            return;
        }
        // Somebody else had an answer from it: that is as good as one of our own, unless we wait for one.
        if !node.flags.has(NodeFlags::FAIL | NodeFlags::PFAIL)
            && node.ping_sent.is_none()
            && node.failure_reports.is_empty()
        {
            let heard = now.to_mono(i64::from(entry.pong_received) * 1000);
            if heard <= now.mono + 500 && heard > node.pong_received {
                node.pong_received = heard;
            }
        }
        // We cannot reach it, the sender can, elsewhere: it has moved.
        let moved = node.address.ip != entry.ip
            || node.address.port != entry.port
            || node.address.cport != entry.cport;
        if node.flags.has(NodeFlags::FAIL | NodeFlags::PFAIL)
            && !entry.flags.has(NodeFlags::NOADDR)
            && !entry.ip.is_empty()
            && moved
        {
            node.address.ip.clone_from(&entry.ip);
            node.address.port = entry.port;
            node.address.pport = entry.pport;
            node.address.cport = entry.cport;
            node.flags.clear(NodeFlags::NOADDR);
            if let Some(link) = node.outbound {
                self.close_link(link);
            }
            self.changed();
        }
    }

    /// A node that a member of the cluster knows becomes known here too, unless it was forgotten on purpose.
    fn hear_of_unknown(&mut self, entry: &GossipEntry) {
        if entry.flags.has(NodeFlags::NOADDR | NodeFlags::HANDSHAKE)
            || entry.ip.is_empty()
            || self.is_forgotten(&entry.id)
        {
            return;
        }
        // Its state is for us to find out; its role is confirmed by its first packet.
        let mut flags = entry.flags.only(NodeFlags::MASTER | NodeFlags::SLAVE | NodeFlags::NOFAILOVER);
        if flags.has(NodeFlags::MASTER) {
            flags.clear(NodeFlags::SLAVE);
        }
        let mut node = Node::new(entry.id, flags, self.now.mono);
        node.address.ip.clone_from(&entry.ip);
        node.address.port = entry.port;
        node.address.pport = entry.pport;
        node.address.cport = entry.cport;
        if self.nodes.insert(node).is_some() {
            self.log(Level::Debug, format!("Node {} added by gossip", entry.id));
            self.changed();
        }
    }

    /// Extensions that a known node sent, which withdraw what they no longer say. A version before 7.2 that
    /// has no host name to tell does not even say that it understands extensions.
    pub(super) fn hear_extensions(&mut self, sender: NodeIx, header: &Header, x: &Extensions) {
        let hostname = x.hostname.as_deref().unwrap_or_default();
        if self.nodes[sender].hostname != hostname {
            hostname.clone_into(&mut self.nodes[sender].hostname);
            self.changed();
        }
        let sent_all = x.shard_id.is_some() || x.human_name.is_some();
        let understands = header.mflags & mflag::EXTENSIONS != 0;
        if sent_all {
            self.nodes[sender].extended = Extended::All;
        } else if !understands || x.hostname.is_some() {
            self.nodes[sender].extended = Extended::HostnamesOnly;
        }
        if sent_all {
            let name = x.human_name.as_deref().unwrap_or_default();
            if self.nodes[sender].human_name != name {
                name.clone_into(&mut self.nodes[sender].human_name);
                self.todo.save = true;
            }
        }
        // A replica is in its primary's shard whatever it says before it has learnt so.
        if let Some(id) = x.shard_id.filter(|_| header.primary.is_none()) {
            self.set_shard(sender, Shard::told(id));
        }
        for (id, seconds) in &x.forgotten {
            self.hear_forgotten(*id, *seconds);
        }
    }
}
