//! Connections between processes, and the walls that keep packets back.

use keystead::resp::decode::Value;
use keystead::sentinel::{Event, LinkId};

use super::{Happening, Process, World};

pub struct Conn {
    pub(super) from: Process,
    pub(super) to: Process,
    pub(super) incarnations: [u32; 2],
    pub(super) link: LinkId,
    pub(super) open: bool,
    /// Each direction keeps its order.
    pub(super) last: [u64; 2],
    pub(super) held: [Vec<Packet>; 2],
}

#[derive(Clone)]
pub enum Packet {
    Opened,
    Request(Vec<String>),
    Reply(Value),
    Close,
}

impl World {
    /// Stops one way from `a` to `b`; what is sent arrives when it is open again.
    pub fn block(&mut self, a: Process, b: Process) {
        self.blocked.insert((a, b));
    }

    /// Whether the way between two is closed in either direction.
    pub fn is_blocked(&self, a: Process, b: Process) -> bool {
        self.blocked.contains(&(a, b)) || self.blocked.contains(&(b, a))
    }

    /// Cuts a group off from all others, both ways.
    pub fn isolate(&mut self, group: &[Process]) {
        self.trace(|| format!("*** {group:?} cut off"));
        for a in 0..self.processes() {
            for b in 0..self.processes() {
                if group.contains(&a) != group.contains(&b) {
                    self.block(a, b);
                }
            }
        }
    }

    pub fn heal_network(&mut self) {
        self.trace(|| "*** the network heals".into());
        self.blocked.clear();
        for conn in 0..self.conns.len() {
            for way in 0..2 {
                for packet in std::mem::take(&mut self.conns[conn].held[way]) {
                    self.transmit(conn, way, packet);
                }
            }
        }
    }

    pub(super) fn dial(&mut self, from: Process, incarnation: u32, link: LinkId, ip: &str) {
        let i = from - self.servers.len();
        if self.guards[i].incarnation != incarnation {
            return;
        }
        let to = self
            .servers
            .iter()
            .position(|s| s.ip == ip)
            .or_else(|| self.guards.iter().position(|g| g.ip == ip).map(|g| self.guard(g)));
        // Nobody answers from an address that is not there, nor through a wall.
        let Some(to) = to else { return };
        if self.is_blocked(from, to) {
            return;
        }
        if !self.is_alive(to) {
            if self.paused.contains(&from) {
                return;
            }
            return self.step(i, Event::Closed { link });
        }
        let incarnations = [incarnation, self.incarnation(to)];
        self.conns.push(Conn {
            from,
            to,
            incarnations,
            link,
            open: true,
            last: [0; 2],
            held: [vec![], vec![]],
        });
        let conn = self.conns.len() - 1;
        self.guards[i].links.insert(link, conn);
        self.transmit(conn, 1, Packet::Opened);
    }

    /// `way` 0: from the opener to the other.
    pub(super) fn transmit(&mut self, conn: usize, way: usize, packet: Packet) {
        let c = &self.conns[conn];
        let path = if way == 0 { (c.from, c.to) } else { (c.to, c.from) };
        if self.blocked.contains(&path) {
            return self.conns[conn].held[way].push(packet);
        }
        let at = (self.now + 1 + self.rng.below(self.latency_ms)).max(self.conns[conn].last[way] + 1);
        self.conns[conn].last[way] = at;
        self.at(at, Happening::Arrive { conn, way, packet });
    }

    /// One end is gone: the other learns of it. `to_end`: which end learns, 0 the opener.
    pub(super) fn hang_up(&mut self, conn: usize, to_end: usize) {
        self.conns[conn].open = false;
        let way = 1 - to_end;
        if let Some(server) = self.servers.get_mut(self.conns[conn].to) {
            server.subscribers.remove(&conn);
        }
        self.transmit(conn, way, Packet::Close);
    }

    pub(super) fn arrive(&mut self, conn: usize, way: usize, packet: Packet) {
        let c = &self.conns[conn];
        let (from, to, link, incarnations) = (c.from, c.to, c.link, c.incarnations);
        if way == 1 {
            let i = from - self.servers.len();
            if self.guards[i].incarnation != incarnations[0] || !self.guards[i].links.contains_key(&link) {
                return;
            }
            match packet {
                Packet::Opened => {
                    let local_ip = self.guards[i].ip.clone();
                    self.step(i, Event::Connected { link, peer_ip: String::new(), local_ip });
                }
                Packet::Reply(reply) => self.step(i, Event::Reply { link, reply }),
                Packet::Close => {
                    self.guards[i].links.remove(&link);
                    self.step(i, Event::Closed { link });
                }
                Packet::Request(_) => {}
            }
            return;
        }
        let Packet::Request(words) = packet else { return };
        if !self.conns[conn].open || !self.is_alive(to) || self.incarnation(to) != incarnations[1] {
            return;
        }
        if to < self.servers.len() {
            self.serve(to, conn, &words);
        } else {
            self.serve_guard(to - self.servers.len(), conn, words);
        }
    }

    pub(super) fn reply(&mut self, conn: usize, reply: Value) {
        self.transmit(conn, 1, Packet::Reply(reply));
    }

    pub(super) fn gone(&mut self, process: Process) {
        if let Some(inbox) = self.inboxes.get_mut(&process) {
            inbox.clear();
        }
        self.paused.remove(&process);
        if process < self.servers.len() {
            self.cut_clients(process);
        }
        for conn in 0..self.conns.len() {
            let ends = [self.conns[conn].from, self.conns[conn].to];
            if self.conns[conn].open && ends.contains(&process) {
                self.hang_up(conn, usize::from(ends[0] == process));
            }
        }
    }
}
