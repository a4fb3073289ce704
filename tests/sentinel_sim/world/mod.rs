//! Processes, the network between them, disks and clocks, all in virtual time and from one seed.
//!
//! | file | concept |
//! |---|---|
//! | `server` | servers as Sentinel sees them |
//! | `guard` | sentinels: the driver of each machine, and its disk |
//! | `network` | connections, and the walls that keep packets back |
//! | `settled` | what shall be so in the end |

mod guard;
mod network;
mod server;
mod settled;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use keystead::base::rng::Rng;
use keystead::sentinel::{Event, LinkId, ScriptEnd};

use crate::check::Checker;
use crate::client::{Client, Letter};
use guard::Guard;
use network::{Conn, Packet};
use server::Server;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// The driver says that something is on disk before it is.
    NoWaitForDisk,
}

/// Servers come first, sentinels after them.
type Process = usize;

pub enum Happening {
    Tick(usize, u32),
    Dial {
        from: Process,
        incarnation: u32,
        link: LinkId,
        ip: String,
    },
    Arrive {
        conn: usize,
        way: usize,
        packet: Packet,
    },
    Written(usize, u32),
    /// kill -9, and a start right after.
    CrashGuard(usize, u32),
    StartGuard(usize),
    Replicate,
    ScriptEnds {
        guard: usize,
        incarnation: u32,
        script: u64,
        end: ScriptEnd,
    },
    ClientTurn(usize),
    ClientGivesUp(usize, u64),
    Letter {
        from: Process,
        to: Process,
        letter: Letter,
    },
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub servers: Vec<Server>,
    pub guards: Vec<Guard>,
    pub clients: Vec<Client>,
    pub checker: Checker,
    pub trace: bool,
    pub latency_ms: u64,
    /// Voters are killed right after their votes.
    pub hunt: bool,
    /// Acknowledged writes that the primary did not have in the end.
    pub lost: usize,
    pub events: Vec<(u64, usize, String, String)>,
    fault: Fault,
    paused: BTreeSet<Process>,
    inboxes: BTreeMap<Process, Vec<Happening>>,
    blocked: BTreeSet<(Process, Process)>,
    conns: Vec<Conn>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    pending: BTreeMap<u64, Happening>,
    seq: u64,
}

type Scheduled = (u64, u64);

pub const NAME: &str = "mymaster";
/// What each sentinel has in its file, as SENTINEL SET takes it.
pub const ORDINARY: [&str; 4] = ["down-after-milliseconds", "1000", "failover-timeout", "10000"];
const PORT: u16 = 6379;
const GUARD_PORT: u16 = 26379;
/// What `rename-command` puts before a name here.
pub const RENAMED: &str = "renamed-";

impl World {
    pub fn new(seed: u64, servers: usize, guards: usize, quorum: usize, fault: Fault, trace: bool) -> Self {
        let mut world = Self {
            now: 1000,
            rng: Rng::new(seed),
            servers: Vec::new(),
            guards: Vec::new(),
            clients: Vec::new(),
            checker: Checker::default(),
            trace,
            latency_ms: 3,
            hunt: false,
            lost: 0,
            events: Vec::new(),
            fault,
            paused: BTreeSet::new(),
            inboxes: BTreeMap::new(),
            blocked: BTreeSet::new(),
            conns: Vec::new(),
            queue: BinaryHeap::new(),
            pending: BTreeMap::new(),
            seq: 0,
        };
        for i in 0..servers {
            let run_id = world.fresh_id();
            world.servers.push(Server::new(i, run_id));
        }
        for i in 0..guards {
            let origin = world.rng.below(1 << 30);
            world.guards.push(Guard::new(i, quorum, origin));
            world.start_guard(i);
        }
        world.at(world.now, Happening::Replicate);
        world
    }

    /// Sentinels that know one another and all replicas.
    pub fn formed(
        seed: u64,
        servers: usize,
        guards: usize,
        quorum: usize,
        fault: Fault,
        trace: bool,
    ) -> Self {
        let mut world = Self::new(seed, servers, guards, quorum, fault, trace);
        let formed = world.run_until(60_000, |w| {
            w.guards.iter().all(|g| {
                let state = g.state.as_ref().expect("nobody crashed");
                state.replica_fields(NAME).is_ok_and(|r| {
                    r.len() == servers - 1
                        && r.iter().all(|f| f.iter().any(|(n, v)| *n == "flags" && v == "slave"))
                }) && state.sentinel_fields(NAME).is_ok_and(|s| s.len() == guards - 1)
                    && state.check_quorum(NAME).is_ok_and(|text| text.starts_with(&format!("OK {guards} ")))
            })
        });
        assert!(formed, "seed {seed}: the sentinels did not find one another");
        world.run_for(3000);
        world.trace(|| "--- formed".into());
        world
    }

    fn fresh_id(&mut self) -> String {
        (0..40).map(|_| char::from(b"0123456789abcdef"[self.rng.below(16) as usize])).collect()
    }

    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>4}.{:03} {}", self.now / 1000, self.now % 1000, text());
        }
    }

    /// Names a request or a write; never used again.
    pub fn number(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub fn at(&mut self, at: u64, what: Happening) {
        self.seq += 1;
        self.queue.push(Reverse((at.max(self.now), self.seq)));
        self.pending.insert(self.seq, what);
    }

    pub fn run_until(&mut self, ms: u64, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + ms;
        while self.now < end && self.checker.violation.is_none() {
            self.run_for(20);
            if done(self) {
                return true;
            }
        }
        false
    }

    pub fn run_for(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(Reverse((at, seq))) = self.queue.peek().copied() {
            if at > end || self.checker.violation.is_some() {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(what) = self.pending.remove(&seq) {
                self.happen(what);
            }
        }
        self.now = end;
        self.look();
    }

    // What tests do to the world. Processes are numbered: servers, then sentinels.

    pub fn guard(&self, i: usize) -> Process {
        self.servers.len() + i
    }

    fn processes(&self) -> usize {
        self.servers.len() + self.guards.len() + self.clients.len()
    }

    pub fn pause(&mut self, process: Process) {
        self.trace(|| format!("*** p{process} stops"));
        self.paused.insert(process);
    }

    pub fn resume(&mut self, process: Process) {
        if self.paused.remove(&process) {
            self.trace(|| format!("*** p{process} goes on"));
            for what in self.inboxes.remove(&process).unwrap_or_default() {
                self.happen(what);
            }
        }
    }

    pub fn told(&self, kind: &str) -> usize {
        self.events.iter().filter(|e| e.2 == kind).count()
    }

    // The machinery.

    fn happen(&mut self, what: Happening) {
        let concerned = match &what {
            Happening::Tick(i, _) | Happening::Written(i, _) => Some(self.guard(*i)),
            Happening::Arrive { conn, way, .. } => {
                let conn = &self.conns[*conn];
                Some(if *way == 0 { conn.to } else { conn.from })
            }
            Happening::Letter { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(process) = concerned.filter(|p| self.paused.contains(p)) {
            return self.inboxes.entry(process).or_default().push(what);
        }
        match what {
            Happening::Tick(i, incarnation) => {
                if self.guards[i].incarnation == incarnation && self.guards[i].tick_at <= self.now {
                    self.step(i, Event::Tick);
                }
            }
            Happening::Written(i, incarnation) => {
                if self.guards[i].incarnation == incarnation {
                    self.written(i);
                }
            }
            Happening::Dial { from, incarnation, link, ip } => self.dial(from, incarnation, link, &ip),
            Happening::Arrive { conn, way, packet } => self.arrive(conn, way, packet),
            Happening::Replicate => self.replicate(),
            Happening::CrashGuard(i, incarnation) => {
                if self.guards[i].incarnation == incarnation {
                    self.crash_guard(i);
                    let soon = self.now + self.rng.below(50);
                    self.at(soon, Happening::StartGuard(i));
                }
            }
            Happening::StartGuard(i) => self.start_guard(i),
            Happening::ScriptEnds { guard, incarnation, script, end } => {
                if self.guards[guard].incarnation == incarnation {
                    self.step(guard, Event::ScriptEnded { script, end });
                }
            }
            Happening::ClientTurn(c) => self.client_turn(c),
            Happening::ClientGivesUp(c, number) => self.client_gives_up(c, number),
            Happening::Letter { from, to, letter } => self.deliver(from, to, letter),
        }
    }

    pub fn is_alive(&self, process: Process) -> bool {
        match self.servers.get(process) {
            Some(server) => server.alive,
            None => self.guards[process - self.servers.len()].state.is_some(),
        }
    }

    fn incarnation(&self, process: Process) -> u32 {
        match self.servers.get(process) {
            Some(_) => 0,
            None => self.guards[process - self.servers.len()].incarnation,
        }
    }
}
