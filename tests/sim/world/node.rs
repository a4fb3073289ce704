//! A node and its driver, which carries out what the machine decides; its disk, its clocks and its data.

use std::collections::{BTreeMap, VecDeque};

use keystead::base::rng::Rng;
use keystead::cluster::message::Kind;
use keystead::cluster::{Action, ClusterState, Config, Event, LinkId, NodeId, Now, ReplicationFacts};

use super::network::Item;
use super::{Fault, Happening, World};

const UNIX_START: i64 = 1_700_000_000_000;

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
    pub(super) inbox: VecDeque<Happening>,
    pub(super) incarnation: u32,
    /// Actions behind a sync that is under way.
    pub(super) queue: VecDeque<Action>,
    pub(super) syncing: Option<String>,
    pub(super) links: BTreeMap<LinkId, (usize, usize)>,
    pub(super) next_inbound: u64,
    pub(super) tick_at: u64,
    /// Added to virtual time: clocks have their own origins.
    pub(super) mono_origin: u64,
    pub(super) unix_skew: i64,
}

impl SimNode {
    /// Not yet started, and with nothing on its disk.
    pub(super) fn new(i: usize, node_timeout_ms: u64, rng: &mut Rng) -> Self {
        let port = 7000 + i as u16;
        Self {
            name: format!("n{i}"),
            ip: format!("10.0.0.{}", i + 1),
            config: Config { node_timeout_ms, port, bus_port: port + 10_000, ..Config::default() },
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
            mono_origin: rng.below(1 << 30),
            unix_skew: rng.below(400) as i64 - 200,
        }
    }

    pub(super) fn knows_all(&self, count: usize) -> bool {
        let Some(state) = &self.state else { return false };
        let infos = state.node_infos();
        infos.len() == count && infos.iter().all(|i| i.connected)
    }
}

impl World {
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

    pub(super) fn start(&mut self, node: usize, keep_data: bool) {
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

    pub(super) fn resume(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].stopped, false) {
            return;
        }
        self.trace(|| format!("*** n{node} goes on"));
        for what in std::mem::take(&mut self.nodes[node].inbox) {
            self.happen(what);
        }
    }

    fn clock(&self, node: usize) -> Now {
        let n = &self.nodes[node];
        Now { mono: self.now + n.mono_origin, unix: UNIX_START + self.now as i64 + n.unix_skew }
    }

    pub(super) fn step(&mut self, node: usize, event: Event) {
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
    pub(super) fn replicate(&mut self, node: usize) {
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

    /// What was being written is on the disk.
    pub(super) fn synced(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if let Some(text) = n.syncing.take() {
            n.disk.synced = Some(text);
            n.disk.unsynced = None;
        }
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
}
