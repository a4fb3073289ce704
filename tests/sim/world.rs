//! Nodes, their driver, the network, disks and clocks, all in virtual time and from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bytes::Bytes;
use keystead::base::rng::Rng;
use keystead::cluster::message::Kind;
use keystead::cluster::{Action, ClusterState, Config, Event, LinkId, NodeId, Now, ReplicationFacts};

use crate::bystander::Bystander;
use crate::check::Checker;
use crate::moves::Move;

/// A mistake to make on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// The driver goes on before what it must wait for is on disk.
    NoWaitForDisk,
}

/// What is on a node's disk.
#[derive(Default)]
pub struct Disk {
    synced: Option<String>,
    /// Written later, not synced: a crash keeps it or not.
    unsynced: Option<String>,
}

/// The data of a node, as far as elections care.
#[derive(Clone, Copy, Default, Debug)]
pub struct Data {
    pub offset: u64,
    pub last_io: Option<u64>,
    pub paused_until: u64,
}

pub struct SimNode {
    pub name: String,
    pub ip: String,
    pub config: Config,
    /// `None` while crashed.
    pub state: Option<ClusterState>,
    pub id: Option<NodeId>,
    pub disk: Disk,
    pub data: Data,
    /// The ip of the primary that the driver was told to follow.
    pub follows: Option<String>,
    /// Workers serve slots of their own.
    pub serving: bool,
    /// Of the stopped process; its events wait in `inbox`.
    pub stopped: bool,
    inbox: VecDeque<Happening>,
    incarnation: u32,
    /// Actions behind a sync that is under way.
    queue: VecDeque<Action>,
    syncing: Option<String>,
    links: BTreeMap<LinkId, (usize, usize)>,
    next_inbound: u64,
    tick_at: u64,
    /// Added to virtual time: clocks have their own origins.
    mono_origin: u64,
    unix_skew: i64,
}

pub enum Item {
    Packet(Bytes),
    Close,
}

struct Conn {
    /// Opener and acceptor: node, its incarnation, its name of the link.
    ends: [(usize, u32, LinkId); 2],
    /// This end knows that it is over.
    closed: [bool; 2],
    /// Packets under way are lost.
    broken: bool,
    /// Nothing to an end arrives before what was sent to it earlier.
    last_arrival: [u64; 2],
    /// Waits for a partition to end.
    held: [VecDeque<Item>; 2],
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
const UNIX_START: i64 = 1_700_000_000_000;

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
            let ip = format!("10.0.0.{}", i + 1);
            let port = 7000 + i as u16;
            let config = Config { node_timeout_ms, port, bus_port: port + 10_000, ..Config::default() };
            let node = SimNode {
                name: format!("n{i}"),
                ip,
                config,
                state: None,
                id: None,
                disk: Disk::default(),
                data: Data::default(),
                follows: None,
                serving: false,
                stopped: false,
                inbox: VecDeque::new(),
                incarnation: 0,
                queue: VecDeque::new(),
                syncing: None,
                links: BTreeMap::new(),
                next_inbound: 1,
                tick_at: 0,
                mono_origin: world.rng.below(1 << 30),
                unix_skew: world.rng.below(400) as i64 - 200,
            };
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

    fn clock(&self, node: usize) -> Now {
        let n = &self.nodes[node];
        Now { mono: self.now + n.mono_origin, unix: UNIX_START + self.now as i64 + n.unix_skew }
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

    /// An administrator's command; its actions are carried out as a step's are.
    pub fn admin<T>(&mut self, node: usize, call: impl FnOnce(&mut ClusterState, Now) -> T) -> T {
        let now = self.clock(node);
        self.refresh_facts(node);
        let state = self.nodes[node].state.as_mut().expect("the node runs");
        let result = call(state, now);
        let actions = state.take_actions();
        self.carry_out(node, actions);
        result
    }

    /// kill -9. What was not synced is kept or not.
    pub fn crash(&mut self, node: usize) {
        if self.nodes[node].state.take().is_none() {
            return;
        }
        self.trace(|| format!("*** n{node} crashes"));
        let keep = self.rng.chance(1, 2);
        let keep_syncing = self.rng.chance(1, 2);
        let n = &mut self.nodes[node];
        n.incarnation += 1;
        n.queue.clear();
        n.inbox.clear();
        n.stopped = false;
        n.serving = false;
        n.follows = None;
        if let Some(text) = n.syncing.take().filter(|_| keep_syncing) {
            n.disk.synced = Some(text);
            n.disk.unsynced = None;
        }
        if let Some(text) = n.disk.unsynced.take().filter(|_| keep) {
            n.disk.synced = Some(text);
        }
        for (_, (conn, end)) in std::mem::take(&mut n.links) {
            self.hang_up(conn, end);
        }
    }

    pub fn restart_in(&mut self, node: usize, ms: u64, keep_data: bool) {
        let at = self.now + ms;
        self.at(at, Happening::Restart { node, keep_data });
    }

    /// SIGSTOP; SIGCONT follows.
    pub fn stop_for(&mut self, node: usize, ms: u64) {
        if self.nodes[node].state.is_some() && !self.nodes[node].stopped {
            self.trace(|| format!("*** n{node} stops for {ms} ms"));
            self.nodes[node].stopped = true;
            let at = self.now + ms;
            self.at(at, Happening::Resume { node });
        }
    }

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
                    let n = &mut self.nodes[node];
                    if let Some(text) = n.syncing.take() {
                        n.disk.synced = Some(text);
                        n.disk.unsynced = None;
                    }
                    self.drain(node);
                }
            }
            Happening::Dial { from, incarnation, link, ip } => self.dial(from, incarnation, link, &ip),
            Happening::Dialled { conn } => {
                let (node, incarnation, link) = self.conns[conn].ends[0];
                let peer = self.conns[conn].ends[1].0;
                if self.lives(node, incarnation) && !self.conns[conn].closed[0] {
                    let (peer_ip, local_ip) = (self.nodes[peer].ip.clone(), self.nodes[node].ip.clone());
                    self.step(node, Event::Connected { link, peer_ip, local_ip });
                }
            }
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

    pub fn lives(&self, node: usize, incarnation: u32) -> bool {
        self.nodes[node].state.is_some() && self.nodes[node].incarnation == incarnation
    }

    pub fn incarnation(&self, node: usize) -> u32 {
        self.nodes[node].incarnation
    }

    /// Whether a node has actions that wait for its disk.
    pub fn is_behind(&self, node: usize) -> bool {
        self.nodes[node].syncing.is_some() || !self.nodes[node].queue.is_empty()
    }

    fn start(&mut self, node: usize, keep_data: bool) {
        let now = self.clock(node);
        let rng = Rng::new(self.rng.next_u64());
        let n = &mut self.nodes[node];
        if !keep_data {
            n.data = Data::default();
        }
        n.data.last_io = None;
        n.data.paused_until = 0;
        let config = n.config.clone();
        let mut state = match &n.disk.synced {
            Some(text) => match ClusterState::load(config, rng, now, text) {
                Ok(state) => state,
                Err(error) => panic!("n{node} cannot read its own nodes.conf: {error}\n{text}"),
            },
            None => ClusterState::new(config, rng, now),
        };
        n.id = Some(state.my_id());
        self.checker.wrote(node, &state.nodes_conf());
        let n = &mut self.nodes[node];
        let actions = state.take_actions();
        n.state = Some(state);
        self.trace(|| format!("*** n{node} starts"));
        self.carry_out(node, actions);
        self.schedule_tick(node);
    }

    fn resume(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].stopped, false) {
            return;
        }
        self.trace(|| format!("*** n{node} goes on"));
        for what in std::mem::take(&mut self.nodes[node].inbox) {
            self.happen(what);
        }
    }

    fn step(&mut self, node: usize, event: Event) {
        self.steps += 1;
        let now = self.clock(node);
        self.refresh_facts(node);
        let Some(state) = self.nodes[node].state.as_mut() else { return };
        let actions = state.step(now, event);
        self.carry_out(node, actions);
        self.schedule_tick(node);
    }

    fn schedule_tick(&mut self, node: usize) {
        let n = &self.nodes[node];
        let Some(state) = &n.state else { return };
        let at = (state.next_tick() - n.mono_origin).max(self.now + 1);
        if n.tick_at <= self.now || at < n.tick_at {
            let incarnation = n.incarnation;
            self.nodes[node].tick_at = at;
            self.at(at, Happening::Tick { node, incarnation });
        }
    }

    fn refresh_facts(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let last_io = n.data.last_io.map(|t| t + n.mono_origin);
        if let Some(state) = &mut n.state {
            state.set_replication_facts(ReplicationFacts { offset: n.data.offset, last_io });
        }
    }

    /// Primaries that serve get writes; replicas that reach their primary have its data.
    fn replicate(&mut self, node: usize) {
        let writes = self.rng.below(50);
        let Some(ip) = self.nodes[node].follows.clone() else {
            let now = self.now;
            let n = &mut self.nodes[node];
            if n.serving && now >= n.data.paused_until {
                n.data.offset += writes;
            }
            return;
        };
        let Some(primary) = self.nodes.iter().position(|n| n.ip == ip) else { return };
        let p = &self.nodes[primary];
        let reachable = !self.blocked[node][primary] && !self.blocked[primary][node];
        if p.state.is_some() && !p.stopped && p.follows.is_none() && reachable {
            let offset = p.data.offset;
            self.nodes[node].data.offset = offset;
            self.nodes[node].data.last_io = Some(self.now);
        }
    }

    fn carry_out(&mut self, node: usize, actions: Vec<Action>) {
        self.checker.stepped(node, &actions);
        self.nodes[node].queue.extend(actions);
        self.drain(node);
    }

    /// The driver: one action after the other, waiting for the disk where it is told to.
    fn drain(&mut self, node: usize) {
        while self.nodes[node].syncing.is_none() || self.fault == Fault::NoWaitForDisk {
            let Some(action) = self.nodes[node].queue.pop_front() else { return };
            self.act(node, action);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Persist { text, sync } => {
                if sync {
                    self.nodes[node].syncing = Some(text);
                    let at = self.now + self.rng.below(self.sync_ms + 1);
                    let incarnation = self.nodes[node].incarnation;
                    self.at(at, Happening::DiskDone { node, incarnation });
                } else {
                    self.nodes[node].disk.unsynced = Some(text);
                }
            }
            Action::Connect { link, ip, port: _ } => {
                let at = self.now + self.rng.below(self.latency_ms + 1);
                let incarnation = self.nodes[node].incarnation;
                self.at(at, Happening::Dial { from: node, incarnation, link, ip });
            }
            Action::CloseLink(link) => {
                if let Some((conn, end)) = self.nodes[node].links.remove(&link) {
                    self.hang_up(conn, end);
                }
            }
            Action::Send { link, packet } => {
                if let Some((conn, end)) = self.nodes[node].links.get(&link).copied() {
                    let to = self.conns[conn].ends[1 - end].0;
                    if let Some(bystander) = self.bystanders.get_mut(&node) {
                        bystander.hear(self.now, &packet);
                    }
                    if let Some(id) = self.nodes[to].id {
                        self.checker.sent(&packet, id);
                    }
                    if self.hunt && packet[12..14] == [0, Kind::AuthAck as u8] {
                        self.hunt_voter(node, to);
                    }
                    self.transmit(conn, 1 - end, Item::Packet(packet));
                }
            }
            Action::PublishView(view) => {
                self.nodes[node].id = Some(view.myself);
                self.nodes[node].serving = self.checker.published(&view);
            }
            Action::SetPrimary { id, ip, .. } => {
                self.trace(|| format!("n{node} follows {id:?} at {ip}"));
                if self.nodes[node].follows.as_ref() != Some(&ip) {
                    self.nodes[node].data.last_io = None;
                }
                self.nodes[node].follows = Some(ip);
            }
            Action::BecomePrimary => {
                self.trace(|| format!("n{node} becomes primary"));
                self.failovers += 1;
                self.nodes[node].follows = None;
            }
            Action::PauseClients { .. } => {
                let until = self.now + 10_000;
                self.nodes[node].data.paused_until = until;
                self.admin(node, ClusterState::clients_paused);
            }
            Action::UnpauseClients => self.nodes[node].data.paused_until = 0,
            Action::DropSlotKeys(_) | Action::FlushAll | Action::Deliver { .. } => {}
            Action::Log { text, .. } => self.trace(|| format!("n{node}: {text}")),
        }
    }

    /// The moment in which votes get lost: a voter dies right after its vote has left, comes back at
    /// once, and the candidate is cut off from all who could tell of it.
    fn hunt_voter(&mut self, voter: usize, candidate: usize) {
        if self.rng.chance(1, 3) {
            return;
        }
        let incarnation = self.nodes[voter].incarnation;
        let at = self.now + self.rng.below(5);
        self.at(at, Happening::Crash { node: voter, incarnation });
        let ms = 1000 + self.rng.below(5000);
        for other in (0..self.nodes.len()).filter(|n| *n != candidate) {
            self.block_for(candidate, other, ms);
            self.block_for(other, candidate, ms);
        }
    }

    fn dial(&mut self, from: usize, incarnation: u32, link: LinkId, ip: &str) {
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

    /// One end closes: the other learns of it after what was sent before.
    fn hang_up(&mut self, conn: usize, end: usize) {
        self.conns[conn].closed[end] = true;
        self.transmit(conn, 1 - end, Item::Close);
    }

    fn transmit(&mut self, conn: usize, to: usize, item: Item) {
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

    fn arrive(&mut self, conn: usize, to: usize, item: Item) {
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

impl SimNode {
    fn knows_all(&self, count: usize) -> bool {
        let Some(state) = &self.state else { return false };
        let infos = state.node_infos();
        infos.len() == count && infos.iter().all(|i| i.connected)
    }
}
