//! Connections between nodes: each keeps its order, breaks, and waits for partitions to end.

use std::collections::VecDeque;

use bytes::Bytes;
use keystead::cluster::{Event, LinkId};

use super::{Happening, World};

pub enum Item {
    Packet(Bytes),
    Close,
}

pub struct Conn {
    /// Opener and acceptor: node, its incarnation, its name of the link.
    pub(super) ends: [(usize, u32, LinkId); 2],
    /// This end knows that it is over.
    pub(super) closed: [bool; 2],
    /// Packets under way are lost.
    pub(super) broken: bool,
    /// Nothing to an end arrives before what was sent to it earlier.
    pub(super) last_arrival: [u64; 2],
    /// Waits for a partition to end.
    pub(super) held: [VecDeque<Item>; 2],
}

impl World {
    /// Nothing gets from one node to another any more; TCP keeps it for later.
    pub fn block(&mut self, from: usize, to: usize) {
        self.blocked[from][to] = true;
    }

    pub fn block_for(&mut self, from: usize, to: usize, ms: u64) {
        self.block(from, to);
        let at = self.now + ms;
        self.at(at, Happening::Heal { from, to });
    }

    pub fn unblock(&mut self, from: usize, to: usize) {
        if !std::mem::replace(&mut self.blocked[from][to], false) {
            return;
        }
        for conn in 0..self.conns.len() {
            for end in 0..2 {
                let c = &mut self.conns[conn];
                if c.ends[end].0 == to && c.ends[1 - end].0 == from {
                    for item in std::mem::take(&mut c.held[end]) {
                        self.transmit(conn, end, item);
                    }
                }
            }
        }
    }

    /// Breaks one connection at random: both ends notice, what was under way is lost.
    pub fn break_a_link(&mut self) {
        let open: Vec<usize> =
            (0..self.conns.len()).filter(|c| self.conns[*c].closed == [false, false]).collect();
        if open.is_empty() {
            return;
        }
        let conn = open[self.rng.below(open.len() as u64) as usize];
        self.trace(|| {
            format!("*** link n{} - n{} breaks", self.conns[conn].ends[0].0, self.conns[conn].ends[1].0)
        });
        self.conns[conn].broken = true;
        for end in 0..2 {
            self.conns[conn].held[end].clear();
            self.transmit(conn, end, Item::Close);
        }
    }

    pub(super) fn dial(&mut self, from: usize, incarnation: u32, link: LinkId, ip: &str) {
        let back = self.now + self.rng.below(self.latency_ms + 1);
        let peer = self.nodes.iter().position(|n| n.ip == ip);
        let refused = Happening::Refused { node: from, incarnation, link };
        let Some(peer) = peer else { return self.at(back, refused) };
        if self.blocked[from][peer] || self.blocked[peer][from] {
            // No answer: the driver gives up after a while.
            let timeout = self.nodes[from].config.node_timeout_ms;
            return self.at(back + timeout, refused);
        }
        if self.nodes[peer].state.is_none() {
            return self.at(back, refused);
        }
        if !self.lives(from, incarnation) {
            return;
        }
        let n = &mut self.nodes[peer];
        let inbound = LinkId::inbound(n.next_inbound);
        n.next_inbound += 1;
        let conn = self.conns.len();
        self.nodes[from].links.insert(link, (conn, 0));
        self.nodes[peer].links.insert(inbound, (conn, 1));
        let ends = [(from, incarnation, link), (peer, self.nodes[peer].incarnation, inbound)];
        self.conns.push(Conn {
            ends,
            closed: [false, false],
            broken: false,
            last_arrival: [back, self.now],
            held: [VecDeque::new(), VecDeque::new()],
        });
        let (peer_ip, local_ip) = (self.nodes[from].ip.clone(), self.nodes[peer].ip.clone());
        // A stopped process has its connections accepted by the kernel; it learns of them with the
        // first packet, which is all that the machine needs.
        self.step(peer, Event::Accepted { link: inbound, peer_ip, local_ip });
        self.at(back, Happening::Dialled { conn });
    }

    /// The opener learns that it is connected.
    pub(super) fn dialled(&mut self, conn: usize) {
        let (node, incarnation, link) = self.conns[conn].ends[0];
        let peer = self.conns[conn].ends[1].0;
        if self.lives(node, incarnation) && !self.conns[conn].closed[0] {
            let (peer_ip, local_ip) = (self.nodes[peer].ip.clone(), self.nodes[node].ip.clone());
            self.step(node, Event::Connected { link, peer_ip, local_ip });
        }
    }

    /// One end closes: the other learns of it after what was sent before.
    pub(super) fn hang_up(&mut self, conn: usize, end: usize) {
        self.conns[conn].closed[end] = true;
        self.transmit(conn, 1 - end, Item::Close);
    }

    pub(super) fn transmit(&mut self, conn: usize, to: usize, item: Item) {
        let c = &mut self.conns[conn];
        if c.closed[to] {
            return;
        }
        let (from_node, to_node) = (c.ends[1 - to].0, c.ends[to].0);
        if self.blocked[from_node][to_node] {
            c.held[to].push_back(item);
            return;
        }
        let at = (self.now + self.rng.below(self.latency_ms + 1)).max(c.last_arrival[to]);
        self.conns[conn].last_arrival[to] = at;
        self.at(at, Happening::Arrive { conn, to, item });
    }

    pub(super) fn arrive(&mut self, conn: usize, to: usize, item: Item) {
        let c = &mut self.conns[conn];
        let (node, incarnation, link) = c.ends[to];
        if c.closed[to] || self.nodes[node].incarnation != incarnation {
            return;
        }
        match item {
            Item::Packet(_) if c.broken => {}
            Item::Packet(packet) => {
                if let Some(bystander) = self.bystanders.get_mut(&node) {
                    bystander.hear(self.now, &packet);
                }
                self.step(node, Event::Received { link, packet });
            }
            Item::Close => {
                c.closed[to] = true;
                self.nodes[node].links.remove(&link);
                self.step(node, Event::Closed { link });
            }
        }
    }
}
