//! Opening, losing and closing links.

use super::action::Action;
use super::link::{Link, LinkId};
use super::message::Kind;
use super::node::{NodeFlags, NodeIx};
use super::state::ClusterState;

impl ClusterState {
    /// Starts a connection to a node whose address is known.
    pub(super) fn connect(&mut self, ix: NodeIx) {
        let node = &self.nodes[ix];
        debug_assert!(node.outbound.is_none() && !node.address.ip.is_empty());
        let (ip, port) = (node.address.ip.clone(), node.address.cport);
        let id = LinkId::outbound(self.next_link);
        self.next_link += 1;
        let now = self.now.mono;
        let node = &mut self.nodes[ix];
        node.outbound = Some(id);
        // From here on the node owes us an answer, also if the connection never opens.
        node.ping_sent.get_or_insert(now);
        let link = Link {
            node: Some(ix),
            created: self.now.mono,
            up: false,
            peer_ip: String::new(),
            local_ip: String::new(),
        };
        self.links.insert(id, link);
        self.out.push(Action::Connect { link: id, ip, port });
    }

    /// The first packet on a new link is a PING, or a MEET to a node that shall add us to its own.
    pub(super) fn link_connected(&mut self, id: LinkId, peer_ip: String, local_ip: String) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.up = true;
        link.peer_ip = peer_ip;
        link.local_ip = local_ip;
        let Some(ix) = link.node else { return };
        // A ping that was unanswered before stays unanswered: a node that accepts connections
        // and says nothing must not look alive.
        let unanswered = self.nodes[ix].ping_sent;
        let meet = self.nodes[ix].flags.has(NodeFlags::MEET);
        self.send_gossip(id, if meet { Kind::Meet } else { Kind::Ping });
        if unanswered.is_some() {
            self.nodes[ix].ping_sent = unanswered;
        }
        self.nodes[ix].flags.clear(NodeFlags::MEET);
    }

    /// A link broke. The node counts as pinged from now on, so that silence is measured.
    pub(super) fn link_closed(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        let Some(ix) = link.node else { return };
        let now = self.now.mono;
        let node = &mut self.nodes[ix];
        if id.is_inbound() {
            if node.inbound == Some(id) {
                node.inbound = None;
            }
            return;
        }
        node.outbound = None;
        node.ping_sent.get_or_insert(now);
        // A connection that worked is worth another try at once: if the process is gone we know it now.
        if link.up && !node.in_handshake() && !node.address.ip.is_empty() {
            self.connect(ix);
        }
    }

    pub(super) fn close_link(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        if let Some(ix) = link.node
            && let Some(node) = self.nodes.get_mut(ix)
        {
            if node.outbound == Some(id) {
                node.outbound = None;
            }
            if node.inbound == Some(id) {
                node.inbound = None;
            }
        }
        self.out.push(Action::CloseLink(id));
    }

    /// Remembers whose inbound link this is. A node has one; an older one is what it has left behind.
    pub(super) fn bind_inbound(&mut self, id: LinkId, ix: NodeIx) {
        if self.nodes[ix].inbound == Some(id) {
            return;
        }
        if let Some(old) = self.nodes[ix].inbound {
            self.close_link(old);
        }
        self.nodes[ix].inbound = Some(id);
        if let Some(link) = self.links.get_mut(&id) {
            link.node = Some(ix);
        }
    }
}
