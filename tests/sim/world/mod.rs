//! Nodes, their driver, the network, disks and clocks, all in virtual time and from one seed.
//!
//! | file | concept |
//! |---|---|
//! | `node` | a node: its driver, its disk, its clocks and its data |
//! | `network` | connections: their order, breaks and partitions |

mod network;
mod node;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use keystead::base::rng::Rng;
use keystead::cluster::{Event, LinkId, NodeId};

use crate::bystander::Bystander;
use crate::check::Checker;
use crate::moves::Move;
use network::{Conn, Item};
use node::SimNode;

/// A mistake to make on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// The driver goes on before what it must wait for is on disk.
    NoWaitForDisk,
}

pub enum Happening {
    Crash {
        node: usize,
        incarnation: u32,
    },
    Tick {
        node: usize,
        incarnation: u32,
    },
    DiskDone {
        node: usize,
        incarnation: u32,
    },
    /// A connection attempt arrives, or fails.
    Dial {
        from: usize,
        incarnation: u32,
        link: LinkId,
        ip: String,
    },
    Dialled {
        conn: usize,
    },
    Refused {
        node: usize,
        incarnation: u32,
        link: LinkId,
    },
    Arrive {
        conn: usize,
        to: usize,
        item: Item,
    },
    Resume {
        node: usize,
    },
    Restart {
        node: usize,
        keep_data: bool,
    },
    Heal {
        from: usize,
        to: usize,
    },
    /// The next command of an administrator who moves a slot.
    Move(Move),
}

struct Scheduled {
    at: u64,
    seq: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub nodes: Vec<SimNode>,
    pub checker: Checker,
    /// Hears what the node of its number hears and says, from when a test puts it there.
    pub bystanders: BTreeMap<usize, Bystander>,
    pub trace: bool,
    pub fault: Fault,
    /// Upper bound of a packet's way, milliseconds.
    pub latency_ms: u64,
    pub sync_ms: u64,
    /// Voters are killed right after their votes.
    pub hunt: bool,
    pub steps: u64,
    /// Promotions seen.
    pub failovers: u64,
    /// Slots moved, as their administrators think.
    pub moves: u64,
    /// A move is under way.
    pub moving: bool,
    conns: Vec<Conn>,
    /// `blocked[a][b]`: nothing gets from a to b.
    blocked: Vec<Vec<bool>>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    seq: u64,
}

const START: u64 = 1_000_000;

impl World {
    pub fn new(seed: u64, count: usize, node_timeout_ms: u64, fault: Fault, trace: bool) -> Self {
        let mut world = Self {
            now: START,
            rng: Rng::new(seed),
            nodes: Vec::new(),
            checker: Checker::new(fault == Fault::NoWaitForDisk),
            bystanders: BTreeMap::new(),
            trace,
            fault,
            latency_ms: 2,
            sync_ms: 5,
            hunt: false,
            steps: 0,
            failovers: 0,
            moves: 0,
            moving: false,
            conns: Vec::new(),
            blocked: vec![vec![false; count]; count],
            queue: BinaryHeap::new(),
            seq: 0,
        };
        for i in 0..count {
            let node = SimNode::new(i, node_timeout_ms, &mut world.rng);
            world.nodes.push(node);
            world.start(i, true);
        }
        world
    }

    /// A formed cluster: the first `primaries` nodes share the slots, the others replicate them in turn.
    pub fn cluster(
        seed: u64,
        count: usize,
        primaries: usize,
        timeout: u64,
        fault: Fault,
        trace: bool,
    ) -> Self {
        let mut w = Self::new(seed, count, timeout, fault, trace);
        w.form(primaries);
        w
    }

    /// Makes a cluster of fresh nodes, as tools do.
    pub fn form(&mut self, primaries: usize) {
        let count = self.nodes.len();
        for i in 0..count {
            self.admin(i, |s, now| s.set_config_epoch(now, i as i64 + 1)).expect("a fresh node");
        }
        for i in 0..primaries {
            let slots: Vec<u16> =
                (0..16384u32).filter(|s| *s as usize * primaries / 16384 == i).map(|s| s as u16).collect();
            self.admin(i, |s, now| s.add_slots(now, &slots)).expect("free slots");
        }
        for i in 1..count {
            let (ip, port) = (self.nodes[0].ip.clone(), self.nodes[0].config.port);
            self.admin(i, |s, now| s.meet(now, &ip, port, 0)).expect("a good address");
        }
        let all_know = |w: &World| w.nodes.iter().all(|n| n.knows_all(count));
        assert!(self.run_until(60_000, all_know), "the nodes did not meet: {:?}", self.checker.violation);
        for i in primaries..count {
            let primary = self.nodes[(i - primaries) % primaries].id.expect("named");
            self.admin(i, |s, now| s.replicate(now, &primary, &keystead::cluster::NoKeys)).expect("empty");
        }
        let ready = |w: &World| crate::check::converged(w).is_ok() && w.all_synced();
        let formed = self.run_until(60_000, ready);
        let missing = crate::check::converged(self);
        assert!(formed, "no cluster formed: {missing:?} {:?}", self.checker.violation);
        self.trace(|| "--- cluster formed".into());
    }

    fn all_synced(&self) -> bool {
        self.nodes.iter().all(|n| n.follows.is_none() || n.data.last_io.is_some())
    }

    pub fn by_id(&self, id: &NodeId) -> Option<&SimNode> {
        self.nodes.iter().find(|n| n.id == Some(*id))
    }

    /// Prints a line of the trace.
    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.trace {
            let t = self.now - START;
            println!("{:>4}.{:03} {}", t / 1000, t % 1000, text());
        }
    }

    pub fn at(&mut self, at: u64, what: Happening) {
        self.seq += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), seq: self.seq, what }));
    }

    // What tests do to the world.

    /// Runs until `done` holds; false if it does not within `ms`, or a check failed.
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&World) -> bool) -> bool {
        self.run_until_looking(10, ms, done)
    }

    /// As [`run_until`](Self::run_until), looking every so many milliseconds.
    pub fn run_until_looking(&mut self, every_ms: u64, ms: u64, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + ms;
        let mut next_look = self.now;
        loop {
            if self.now >= next_look {
                if self.checker.violation.is_some() {
                    return false;
                }
                if done(self) {
                    return true;
                }
                next_look = self.now + every_ms;
            }
            if !self.happen_until(end) {
                self.now = end;
                return done(self);
            }
        }
    }

    pub fn run_for(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.checker.violation.is_none() && self.happen_until(end) {}
        self.now = end;
    }

    /// Ends all partitions, stops and outages.
    pub fn heal(&mut self) {
        self.trace(|| "--- all heals".into());
        for a in 0..self.nodes.len() {
            for b in 0..self.nodes.len() {
                self.unblock(a, b);
            }
        }
        for node in 0..self.nodes.len() {
            self.resume(node);
            if self.nodes[node].state.is_none() {
                self.start(node, true);
            }
        }
    }

    // The machinery.

    /// The next thing that happens before `end`. False if there is none.
    fn happen_until(&mut self, end: u64) -> bool {
        if self.queue.peek().is_none_or(|s| s.0.at > end) {
            return false;
        }
        let Some(Reverse(next)) = self.queue.pop() else { return false };
        self.now = next.at;
        self.happen(next.what);
        true
    }

    fn happen(&mut self, what: Happening) {
        // A stopped process sees nothing until it goes on; then it sees it all, in order.
        let concerned = match &what {
            Happening::Tick { node, .. } | Happening::Refused { node, .. } => Some(*node),
            Happening::DiskDone { node, .. } => Some(*node),
            Happening::Dialled { conn } => Some(self.conns[*conn].ends[0].0),
            Happening::Arrive { conn, to, .. } => Some(self.conns[*conn].ends[*to].0),
            _ => None,
        };
        if let Some(node) = concerned
            && self.nodes[node].stopped
        {
            self.nodes[node].inbox.push_back(what);
            return;
        }
        match what {
            Happening::Tick { node, incarnation } => {
                if self.lives(node, incarnation) && self.nodes[node].tick_at <= self.now {
                    self.replicate(node);
                    self.step(node, Event::Tick);
                }
            }
            Happening::DiskDone { node, incarnation } => {
                if self.lives(node, incarnation) {
                    self.synced(node);
                }
            }
            Happening::Dial { from, incarnation, link, ip } => self.dial(from, incarnation, link, &ip),
            Happening::Dialled { conn } => self.dialled(conn),
            Happening::Refused { node, incarnation, link } => {
                if self.lives(node, incarnation) {
                    self.step(node, Event::Closed { link });
                }
            }
            Happening::Arrive { conn, to, item } => self.arrive(conn, to, item),
            Happening::Crash { node, incarnation } => {
                if self.lives(node, incarnation) {
                    self.crash(node);
                    let ms = self.rng.below(50);
                    self.restart_in(node, ms, true);
                }
            }
            Happening::Resume { node } => self.resume(node),
            Happening::Restart { node, keep_data } => {
                if self.nodes[node].state.is_none() {
                    self.start(node, keep_data);
                }
            }
            Happening::Heal { from, to } => self.unblock(from, to),
            Happening::Move(m) => self.go_on_moving(m),
        }
    }
}
