//! Processes, the network between them, disks and clocks, all in virtual time and from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt::Write as _;

use keystead::base::rng::Rng;
use keystead::resp::decode::Value;
use keystead::sentinel::settings::Line;
use keystead::sentinel::{Action, Event, LinkId, ScriptEnd, Sentinel};

use crate::check::Checker;
use crate::client::{Client, Letter};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// The driver says that something is on disk before it is.
    NoWaitForDisk,
}

/// A server: what Sentinel sees of it.
pub struct Server {
    pub ip: String,
    pub alive: bool,
    /// `None`: it is a primary.
    pub follows: Option<String>,
    pub run_id: String,
    pub offset: u64,
    pub priority: u32,
    /// The writes that it has, in order.
    pub data: Vec<u64>,
    /// How many of them it had when it last became a primary.
    promoted_with: usize,
    /// Since when its link to its primary is down.
    link_down: Option<u64>,
    subscribers: BTreeSet<usize>,
}

pub struct Guard {
    pub ip: String,
    pub state: Option<Sentinel>,
    disk: Vec<Vec<String>>,
    /// Being written; when it ends, the machine is told.
    writing: Option<(u64, Vec<Vec<String>>)>,
    waiting: VecDeque<(u64, Vec<Line>)>,
    incarnation: u32,
    origin: u64,
    tick_at: u64,
    links: BTreeMap<LinkId, usize>,
    /// Answers that wait until what they say is on disk: connection and question.
    answers: Vec<(usize, Vec<String>, u64)>,
    last_handed: u64,
}

/// Servers come first, sentinels after them.
type Process = usize;

struct Conn {
    from: Process,
    to: Process,
    incarnations: [u32; 2],
    link: LinkId,
    open: bool,
    /// Each direction keeps its order.
    last: [u64; 2],
    held: [Vec<Packet>; 2],
}

#[derive(Clone)]
pub enum Packet {
    Opened,
    Request(Vec<String>),
    Reply(Value),
    Close,
}

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
            world.servers.push(Server {
                ip: format!("10.0.0.{}", i + 1),
                alive: true,
                follows: (i > 0).then(|| "10.0.0.1".to_owned()),
                run_id,
                offset: 0,
                priority: 100,
                data: Vec::new(),
                promoted_with: 0,
                link_down: None,
                subscribers: BTreeSet::new(),
            });
        }
        for i in 0..guards {
            let lines = [
                "monitor mymaster 10.0.0.1 6379 Q",
                "down-after-milliseconds mymaster 1000",
                "failover-timeout mymaster 10000",
                "deny-scripts-reconfig no",
            ];
            let disk = lines
                .iter()
                .map(|l| l.replace('Q', &quorum.to_string()).split(' ').map(str::to_owned).collect())
                .collect();
            let origin = world.rng.below(1 << 30);
            world.guards.push(Guard {
                ip: format!("10.0.1.{}", i + 1),
                state: None,
                disk,
                writing: None,
                waiting: VecDeque::new(),
                incarnation: 0,
                origin,
                tick_at: 0,
                links: BTreeMap::new(),
                answers: Vec::new(),
                last_handed: 0,
            });
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

    fn look(&mut self) {
        for (i, guard) in self.guards.iter().enumerate() {
            if let Some(state) = &guard.state
                && let Ok(fields) = state.primary_fields(NAME)
                && let Some((ip, port)) = state.address_by_name(NAME)
            {
                let epoch = fields.iter().find(|(n, _)| *n == "config-epoch").map_or("0", |(_, v)| v);
                self.checker.config(i, epoch.parse().expect("a number"), &format!("{ip}:{port}"));
            }
        }
    }

    // What tests do to the world. Processes are numbered: servers, then sentinels.

    pub fn guard(&self, i: usize) -> Process {
        self.servers.len() + i
    }

    fn processes(&self) -> usize {
        self.servers.len() + self.guards.len() + self.clients.len()
    }

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

    pub fn crash_server(&mut self, i: usize) {
        if std::mem::replace(&mut self.servers[i].alive, false) {
            self.trace(|| format!("*** server {i} crashes"));
            self.servers[i].subscribers.clear();
            self.gone(i);
        }
    }

    /// Comes back as its configuration file says, which CONFIG REWRITE kept up to date.
    pub fn start_server(&mut self, i: usize) {
        if !self.servers[i].alive {
            self.trace(|| format!("*** server {i} starts"));
            self.servers[i].run_id = self.fresh_id();
            self.servers[i].alive = true;
            self.servers[i].link_down = Some(self.now);
        }
    }

    pub fn crash_guard(&mut self, i: usize) {
        if self.guards[i].state.take().is_none() {
            return;
        }
        self.trace(|| format!("*** s{i} crashes"));
        let keep = self.rng.chance(1, 2);
        let guard = &mut self.guards[i];
        guard.incarnation += 1;
        guard.links.clear();
        guard.answers.clear();
        guard.waiting.clear();
        if let Some((_, lines)) = guard.writing.take().filter(|_| keep) {
            guard.disk = lines;
        }
        self.checker.restarted(i);
        let process = self.guard(i);
        self.gone(process);
    }

    pub fn start_guard(&mut self, i: usize) {
        if self.guards[i].state.is_some() {
            return;
        }
        self.trace(|| format!("*** s{i} starts"));
        let rng = Rng::new(self.rng.next_u64());
        let now = self.now;
        let guard = &mut self.guards[i];
        let (mut state, _) =
            Sentinel::read(&guard.disk, GUARD_PORT, rng, now + guard.origin).expect("its own lines");
        let actions = state.take_actions();
        guard.state = Some(state);
        guard.tick_at = 0;
        self.carry_out(i, actions);
        self.schedule(i);
    }

    fn gone(&mut self, process: Process) {
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

    /// Its clock leaps: the machine was suspended.
    pub fn leap(&mut self, i: usize, ms: u64) {
        self.trace(|| format!("*** the clock of s{i} leaps by {ms} ms"));
        self.guards[i].origin += ms;
        self.schedule(i);
    }

    /// An administrator's command to a sentinel.
    pub fn admin<T>(&mut self, i: usize, call: impl FnOnce(&mut Sentinel) -> T) -> Option<T> {
        let now = self.now + self.guards[i].origin;
        let state = self.guards[i].state.as_mut()?;
        let result = call(state.at_time(now));
        let actions = state.take_actions();
        self.carry_out(i, actions);
        self.schedule(i);
        Some(result)
    }

    /// A number that SENTINEL MASTER of a sentinel shows; `None`: it is down, or watches nobody.
    pub fn number_of(&self, i: usize, field: &str) -> Option<u64> {
        let fields = self.guards[i].state.as_ref()?.primary_fields(NAME).ok()?;
        fields.iter().find(|(name, _)| *name == field)?.1.parse().ok()
    }

    /// SENTINEL REMOVE.
    pub fn unwatch(&mut self, i: usize) {
        self.trace(|| format!("*** s{i} is to watch nobody"));
        let _ = self.admin(i, |s| s.remove(NAME));
        self.checker.restarted(i);
    }

    /// SENTINEL MONITOR with what another sentinel names, as an administrator would find it out.
    pub fn watch_as(&mut self, i: usize, other: usize, quorum: usize) {
        let Some((ip, port)) = self.guards[other].state.as_ref().and_then(|s| s.address_by_name(NAME)) else {
            return;
        };
        self.trace(|| format!("*** s{i} is to watch {ip}"));
        self.admin(i, |s| {
            if s.monitor(NAME, &ip, &port.to_string(), &quorum.to_string()).is_ok() {
                s.set(NAME, &ORDINARY).expect("good values");
            }
        });
    }

    /// The address that a sentinel gives to clients, as an index of a server.
    pub fn primary_of(&self, i: usize) -> Option<usize> {
        let (ip, _) = self.guards[i].state.as_ref()?.address_by_name(NAME)?;
        self.servers.iter().position(|s| s.ip == ip)
    }

    /// Whether every sentinel names one server, which is a primary, and every other server follows it.
    pub fn settled(&self) -> Result<usize, String> {
        let connected = (0..self.guards.len()).filter(|i| !self.is_island(*i));
        let named: Vec<_> = connected.map(|i| self.primary_of(i)).collect();
        if named.len() <= self.guards.len() / 2 {
            return Err("most sentinels know no other".into());
        }
        let Some(Some(primary)) = named.first().copied() else { return Err("no sentinel".into()) };
        if named.iter().any(|n| *n != Some(primary)) {
            return Err(format!("sentinels name {named:?}"));
        }
        let ip = &self.servers[primary].ip;
        for (i, server) in self.servers.iter().enumerate() {
            let right =
                if i == primary { server.follows.is_none() } else { server.follows.as_ref() == Some(ip) };
            // An administrator's RESET forgets who is down; nobody can repair what nobody knows.
            if (!right && self.is_known(i)) || !server.alive {
                return Err(format!("server {i} follows {:?}, the primary is {primary}", server.follows));
            }
        }
        Ok(primary)
    }

    pub fn is_known(&self, server: usize) -> bool {
        (0..self.guards.len()).any(|guard| !self.is_island(guard) && self.knows(guard, server))
    }

    /// Whether a sentinel and the others have forgotten one another: RESETs on both sides of a cut do that, and nobody
    /// is left who could bring them together again.
    fn is_island(&self, guard: usize) -> bool {
        let lists = |i: usize, ip: &str| {
            let peers =
                self.guards[i].state.as_ref().and_then(|s| s.sentinel_fields(NAME).ok()).unwrap_or_default();
            peers.iter().flatten().any(|(name, value)| *name == "ip" && value == ip)
        };
        let mut others = (0..self.guards.len()).filter(|i| *i != guard);
        self.guards.len() > 1
            && others.all(|i| !lists(i, &self.guards[guard].ip) && !lists(guard, &self.guards[i].ip))
    }

    /// Whether a sentinel knows a server as a replica, or as the primary.
    fn knows(&self, guard: usize, server: usize) -> bool {
        let Some(state) = &self.guards[guard].state else { return false };
        let listed = |fields: &Vec<(&str, String)>| {
            fields.iter().any(|(n, v)| *n == "ip" && *v == self.servers[server].ip)
        };
        self.primary_of(guard) == Some(server)
            || state.replica_fields(NAME).is_ok_and(|r| r.iter().any(listed))
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
                if self.guards[i].incarnation == incarnation
                    && let Some((generation, lines)) = self.guards[i].writing.take()
                {
                    self.guards[i].disk = lines;
                    self.write_next(i);
                    if self.fault == Fault::None {
                        self.persisted(i, generation);
                    }
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

    fn persisted(&mut self, i: usize, generation: u64) {
        self.step(i, Event::Persisted { generation, done: true });
        let (ready, rest) =
            std::mem::take(&mut self.guards[i].answers).into_iter().partition(|(_, _, g)| *g <= generation);
        self.guards[i].answers = rest;
        let ready: Vec<(usize, Vec<String>, u64)> = ready;
        for (conn, words, _) in ready {
            self.answer(i, conn, &words);
        }
    }

    fn step(&mut self, i: usize, event: Event) {
        let guard = &mut self.guards[i];
        let now = self.now + guard.origin;
        let Some(state) = guard.state.as_mut() else { return };
        let actions = state.step(now, event);
        self.carry_out(i, actions);
        self.schedule(i);
    }

    fn schedule(&mut self, i: usize) {
        let guard = &self.guards[i];
        let Some(state) = &guard.state else { return };
        let due = state.next_tick().saturating_sub(guard.origin);
        if guard.tick_at <= self.now || due < guard.tick_at {
            let incarnation = guard.incarnation;
            self.guards[i].tick_at = due.max(self.now + 1);
            self.at(due.max(self.now + 1), Happening::Tick(i, incarnation));
        }
    }

    fn carry_out(&mut self, i: usize, actions: Vec<Action>) {
        let incarnation = self.guards[i].incarnation;
        for action in actions {
            if self.guards[i].incarnation != incarnation {
                return;
            }
            match action {
                Action::Persist { generation, lines } => {
                    self.guards[i].last_handed = generation;
                    self.guards[i].waiting.push_back((generation, lines));
                    self.write_next(i);
                    if self.fault == Fault::NoWaitForDisk {
                        self.persisted(i, generation);
                    }
                }
                Action::Connect { link, host, .. } => {
                    let at = self.now + 1 + self.rng.below(self.latency_ms);
                    let from = self.guard(i);
                    self.at(at, Happening::Dial { from, incarnation, link, ip: host });
                }
                Action::Close(link) => {
                    if let Some(conn) = self.guards[i].links.remove(&link) {
                        self.hang_up(conn, 1);
                    }
                }
                Action::Send { link, words } => {
                    if let Some(conn) = self.guards[i].links.get(&link).copied() {
                        if words[1..].first().is_some_and(|w| w == "is-master-down-by-addr")
                            && words[5] != "*"
                        {
                            // Whoever asks for votes has given its own.
                            self.checker.vote(i, words[4].parse().expect("an epoch"), &words[5].clone());
                        }
                        self.transmit(conn, 0, Packet::Request(words));
                    }
                }
                Action::Publish { channel, payload } => self.published(i, channel, payload),
                Action::Log { .. } | Action::Resolve { .. } => {}
                Action::RunScript { script, .. } => self.run_script(i, script),
                Action::KillScript { script } => {
                    let end = ScriptEnd::Signal(9);
                    self.at(self.now, Happening::ScriptEnds { guard: i, incarnation, script, end });
                }
                Action::Crash => panic!("nobody asked for crashes"),
            }
        }
    }

    /// Scripts fail as often as not, and some never end by themselves.
    fn run_script(&mut self, i: usize, script: u64) {
        let (incarnation, end) = (self.guards[i].incarnation, ScriptEnd::Exit(self.rng.below(3) as i32));
        let at = self.now + self.rng.below(100_000);
        self.at(at, Happening::ScriptEnds { guard: i, incarnation, script, end });
    }

    fn published(&mut self, i: usize, channel: String, payload: String) {
        self.trace(|| format!("s{i} {channel} {payload}"));
        let Some(state) = &self.guards[i].state else { return };
        let forced = state
            .primary_fields(NAME)
            .is_ok_and(|f| f.iter().any(|(n, v)| *n == "flags" && v.contains("force_failover")));
        if channel == "+elected-leader" && !forced {
            let (id, epoch) = (state.my_id().to_owned(), state.current_epoch());
            let voters = state.sentinel_fields(NAME).map_or(0, |s| s.len()) + 1;
            let quorum = self.number_of(i, "quorum").expect("it watches") as usize;
            self.checker.elected(i, epoch, &id, voters, quorum);
        }
        if channel == "+promoted-slave" {
            self.checker.switches += 1;
            let ip = payload.split(' ').nth(2).expect("an address");
            if let Some(at) = self.servers.iter().position(|s| s.ip == ip) {
                let server = &self.servers[at];
                self.checker.accepted(self.now, at, &server.data[..server.promoted_with]);
            }
        }
        if channel == "+selected-slave" {
            let chosen = payload.split(' ').nth(1).expect("a name").to_owned();
            self.checker.selected(i, &chosen, &state.replica_fields(NAME).unwrap_or_default());
        }
        if matches!(channel.as_str(), "+sdown" | "+odown" | "+try-failover") && state.tilt_seconds().is_some()
        {
            self.checker.fail(format!("s{i} {channel} {payload} while in TILT"));
        }
        self.events.push((self.now, i, channel, payload));
    }

    fn write_next(&mut self, i: usize) {
        let slow = self.rng.below(6);
        let guard = &mut self.guards[i];
        if guard.writing.is_some() {
            return;
        }
        if let Some((generation, lines)) = guard.waiting.pop_front() {
            let text = lines.into_iter().filter(|l| l.needed).map(|l| l.words).collect();
            guard.writing = Some((generation, text));
            let incarnation = guard.incarnation;
            self.at(self.now + slow, Happening::Written(i, incarnation));
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

    fn dial(&mut self, from: Process, incarnation: u32, link: LinkId, ip: &str) {
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
    fn transmit(&mut self, conn: usize, way: usize, packet: Packet) {
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
    fn hang_up(&mut self, conn: usize, to_end: usize) {
        self.conns[conn].open = false;
        let way = 1 - to_end;
        if let Some(server) = self.servers.get_mut(self.conns[conn].to) {
            server.subscribers.remove(&conn);
        }
        self.transmit(conn, way, Packet::Close);
    }

    fn arrive(&mut self, conn: usize, way: usize, packet: Packet) {
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

    fn reply(&mut self, conn: usize, reply: Value) {
        self.transmit(conn, 1, Packet::Reply(reply));
    }

    fn serve(&mut self, i: usize, conn: usize, words: &[String]) {
        let simple = |text: &str| Value::Simple(text.into());
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        // `rename-command` of some sentinel; the others call it as ever.
        let reply = match words[0].strip_prefix(RENAMED).unwrap_or(&words[0]) {
            "PING" => simple("PONG"),
            "INFO" => bulk(&self.info(i)),
            "SUBSCRIBE" => {
                self.servers[i].subscribers.insert(conn);
                Value::Array(vec![bulk("subscribe"), bulk(&words[1]), Value::Int(1)])
            }
            "PUBLISH" => {
                for subscriber in self.servers[i].subscribers.clone() {
                    let message = Value::Array(vec![bulk("message"), bulk(&words[1]), bulk(&words[2])]);
                    self.reply(subscriber, message);
                }
                Value::Int(1)
            }
            "SLAVEOF" => {
                self.follow(i, words);
                simple("QUEUED")
            }
            "CLIENT" if words[1] == "KILL" && words[3] == "pubsub" => {
                // Everybody but the caller.
                let others: Vec<usize> = (0..self.conns.len())
                    .filter(|c| *c != conn && self.conns[*c].open && self.conns[*c].to == i)
                    .collect();
                for other in others {
                    self.hang_up(other, 0);
                }
                simple("QUEUED")
            }
            _ => simple("OK"),
        };
        self.reply(conn, reply);
    }

    fn follow(&mut self, i: usize, words: &[String]) {
        let target = (words[1] != "NO").then(|| words[1].clone());
        self.trace(|| format!("server {i} follows {target:?}"));
        let now = self.now;
        let server = &mut self.servers[i];
        if target.is_some() && server.follows != target {
            server.link_down = Some(now);
        }
        if target.is_none() && server.follows.is_some() {
            server.promoted_with = server.data.len();
        }
        server.follows = target;
        self.cut_clients(i);
    }

    /// A replica takes over what it lacks, and drops what its primary does not have.
    fn take_over(&mut self, i: usize, primary: usize) {
        let data = std::mem::take(&mut self.servers[i].data);
        let theirs = &self.servers[primary].data;
        // Numbers are given once, so one that is in the same place means that all before it are, too.
        let same = data.last().is_none_or(|last| theirs.get(data.len() - 1) == Some(last));
        let keep = if same { data.len() } else { 0 };
        let news = theirs[keep..].to_vec();
        let mut data = data;
        data.truncate(keep);
        data.extend(news);
        self.servers[i].data = data;
    }

    fn info(&self, i: usize) -> String {
        let server = &self.servers[i];
        let mut out = format!("run_id:{}\r\n", server.run_id);
        if let Some(primary) = &server.follows {
            let _ = write!(
                out,
                "role:slave\r\nmaster_host:{primary}\r\nmaster_port:{PORT}\r\nmaster_link_status:{}\r\n\
                 slave_repl_offset:{}\r\nslave_priority:{}\r\nreplica_announced:1\r\n",
                if server.link_down.is_some() { "down" } else { "up" },
                server.offset,
                server.priority
            );
            if let Some(since) = server.link_down {
                let _ = write!(out, "master_link_down_since_seconds:{}\r\n", (self.now - since) / 1000);
            }
        } else {
            out += "role:master\r\n";
        }
        let followers = self
            .servers
            .iter()
            .filter(|s| s.alive && s.link_down.is_none() && s.follows.as_ref() == Some(&server.ip));
        for (n, follower) in followers.enumerate() {
            let _ = write!(out, "slave{n}:ip={},port={PORT},state=online,offset=0,lag=0\r\n", follower.ip);
        }
        out
    }

    fn serve_guard(&mut self, i: usize, conn: usize, words: Vec<String>) {
        match words[0].as_str() {
            "PING" => self.reply(conn, Value::Simple("PONG".into())),
            "PUBLISH" => {
                self.admin(i, |s| s.hear_hello(&words[2]));
                self.reply(conn, Value::Int(1));
            }
            "SENTINEL" => {
                let epoch = words[4].parse().expect("an epoch");
                let candidate = (words[5] != "*").then(|| words[5].clone());
                self.admin(i, |s| s.hear_question(&words[2], PORT, epoch, candidate.as_deref()));
                let handed = self.guards[i].last_handed;
                let busy = self.guards[i].writing.is_some() || !self.guards[i].waiting.is_empty();
                if busy && self.fault == Fault::None && candidate.is_some() {
                    self.guards[i].answers.push((conn, words, handed));
                } else {
                    self.answer(i, conn, &words);
                }
            }
            _ => self.reply(conn, Value::Simple("OK".into())),
        }
    }

    fn answer(&mut self, i: usize, conn: usize, words: &[String]) {
        let Some(state) = &self.guards[i].state else { return };
        let answer = state.answer(&words[2], PORT, words[5] != "*");
        if let Some(leader) = &answer.leader {
            self.checker.vote(i, answer.leader_epoch, leader);
            if self.hunt && self.rng.chance(1, 3) {
                let incarnation = self.guards[i].incarnation;
                self.at(self.now, Happening::CrashGuard(i, incarnation));
            }
        }
        let leader = answer.leader.unwrap_or_else(|| "*".into());
        let reply = vec![
            Value::Int(i64::from(answer.down)),
            Value::Bulk(leader.into_bytes()),
            Value::Int(answer.leader_epoch as i64),
        ];
        self.reply(conn, Value::Array(reply));
    }

    /// Primaries get writes, replicas that reach their primary have its data.
    fn replicate(&mut self) {
        for i in 0..self.servers.len() {
            if !self.servers[i].alive || self.paused.contains(&i) {
                continue;
            }
            let Some(ip) = self.servers[i].follows.clone() else {
                self.servers[i].offset += 10;
                continue;
            };
            let primary = self.servers.iter().position(|s| s.ip == ip);
            let reached = primary.is_some_and(|p| {
                p != i && self.servers[p].alive && !self.paused.contains(&p) && !self.is_blocked(i, p)
            });
            if let (true, Some(p)) = (reached, primary) {
                self.take_over(i, p);
                self.servers[i].offset = self.servers[p].offset;
                self.servers[i].link_down = None;
            } else if self.servers[i].link_down.is_none() {
                self.servers[i].link_down = Some(self.now);
            }
        }
        self.at(self.now + 100, Happening::Replicate);
    }
}
