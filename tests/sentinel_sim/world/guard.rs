//! Sentinels: the driver of each machine, its disk, and what the checker is told of it.

use std::collections::{BTreeMap, VecDeque};

use keystead::base::rng::Rng;
use keystead::resp::decode::Value;
use keystead::sentinel::settings::Line;
use keystead::sentinel::{Action, Event, LinkId, ScriptEnd, Sentinel};

use super::network::Packet;
use super::{Fault, GUARD_PORT, Happening, NAME, ORDINARY, PORT, World};

pub struct Guard {
    pub ip: String,
    pub state: Option<Sentinel>,
    pub(super) disk: Vec<Vec<String>>,
    /// Being written; when it ends, the machine is told.
    pub(super) writing: Option<(u64, Vec<Vec<String>>)>,
    pub(super) waiting: VecDeque<(u64, Vec<Line>)>,
    pub(super) incarnation: u32,
    pub(super) origin: u64,
    pub(super) tick_at: u64,
    pub(super) links: BTreeMap<LinkId, usize>,
    /// Answers that wait until what they say is on disk: connection and question.
    pub(super) answers: Vec<(usize, Vec<String>, u64)>,
    pub(super) last_handed: u64,
}

impl Guard {
    /// Down, with the file that an administrator wrote.
    pub(super) fn new(i: usize, quorum: usize, origin: u64) -> Self {
        let lines = [
            "monitor mymaster 10.0.0.1 6379 Q",
            "down-after-milliseconds mymaster 1000",
            "failover-timeout mymaster 10000",
            "deny-scripts-reconfig no",
        ];
        let words =
            |line: &str| line.replace('Q', &quorum.to_string()).split(' ').map(str::to_owned).collect();
        Self {
            ip: format!("10.0.1.{}", i + 1),
            state: None,
            disk: lines.into_iter().map(words).collect(),
            writing: None,
            waiting: VecDeque::new(),
            incarnation: 0,
            origin,
            tick_at: 0,
            links: BTreeMap::new(),
            answers: Vec::new(),
            last_handed: 0,
        }
    }
}

impl World {
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

    /// Shows the checker which primary each sentinel names, and of which epoch.
    pub(super) fn look(&mut self) {
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

    /// The address that a sentinel gives to clients, as an index of a server.
    pub fn primary_of(&self, i: usize) -> Option<usize> {
        let (ip, _) = self.guards[i].state.as_ref()?.address_by_name(NAME)?;
        self.servers.iter().position(|s| s.ip == ip)
    }

    pub(super) fn step(&mut self, i: usize, event: Event) {
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

    pub(super) fn written(&mut self, i: usize) {
        let Some((generation, lines)) = self.guards[i].writing.take() else { return };
        self.guards[i].disk = lines;
        self.write_next(i);
        if self.fault == Fault::None {
            self.persisted(i, generation);
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

    pub(super) fn serve_guard(&mut self, i: usize, conn: usize, words: Vec<String>) {
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
}
