//! Both sides of replication, their drivers, and the wire between them, in virtual time.
//!
//! The data set of a node is the text of all writes so far; its RDB is that text between brackets. A node converges
//! when its text equals the primary's.

use std::collections::BTreeMap;

use crate::base::rng::Rng;
use crate::base::time::MonoMs;
use crate::repl::primary::{self, LinkId, Primary, Replconf, Target};
use crate::repl::replica::{self, Event, Position, Replica};
use crate::repl::{History, Request, Window};

pub(super) const STEP_MS: MonoMs = 100;

/// The primary's side: the machine, and the driver around it.
pub(super) struct Node {
    pub(super) primary: Primary,
    pub(super) history: History,
    /// The whole stream; `kept_from` says what of it counts as still there.
    pub(super) stream: Vec<u8>,
    pub(super) kept_from: Option<u64>,
    pub(super) data: String,
    pub(super) links: BTreeMap<LinkId, Peer>,
    pub(super) password: Option<&'static str>,
    /// What PSYNC is answered with, instead of being served.
    pub(super) psync_error: Option<&'static str>,
    pub(super) knows_psync: bool,
    pub(super) ordered: Option<Target>,
    pub(super) full_syncs: usize,
    pub(super) logs: Vec<String>,
}

/// A connection as the primary's driver sees it.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) received: Vec<u8>,
    pub(super) to_send: Vec<u8>,
    pub(super) cursor: Option<u64>,
    pub(super) authenticated: bool,
}

impl Node {
    pub(super) fn new(config: primary::Config) -> Self {
        let mut rng = Rng::new(42);
        Self {
            history: History::new(&mut rng),
            primary: Primary::new(0, config, rng),
            stream: vec![],
            kept_from: None,
            data: String::new(),
            links: BTreeMap::new(),
            password: None,
            psync_error: None,
            knows_psync: true,
            ordered: None,
            full_syncs: 0,
            logs: vec![],
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.stream.len() as u64
    }

    pub(super) fn window(&self) -> Option<Window> {
        self.kept_from.map(|start| Window { start, end: self.end() })
    }

    pub(super) fn write(&mut self, text: &str) {
        self.data.push_str(text);
        if self.kept_from.is_some() {
            self.stream.extend_from_slice(text.as_bytes());
        }
    }

    pub(super) fn carry_out(&mut self, actions: Vec<primary::Action>) {
        use primary::Action;
        for action in actions {
            match action {
                Action::Send(id, bytes) => {
                    if bytes.starts_with(b"+FULLRESYNC") {
                        self.full_syncs += 1;
                    }
                    self.links.get_mut(&id).unwrap().to_send.extend(bytes);
                }
                Action::Stream(id, offset) => self.links.get_mut(&id).unwrap().cursor = Some(offset),
                Action::KeepStream => self.kept_from = Some(self.end()),
                Action::DropStream => self.kept_from = None,
                Action::StartSnapshot(target, _) => self.ordered = Some(target),
                // A ping changes no data, so it is kept out of the text.
                Action::Append(_) => {}
                Action::Close(id) => {
                    self.links.remove(&id);
                }
                Action::Log(_, line) => self.logs.push(line),
            }
        }
    }

    pub(super) fn tick(&mut self, now: MonoMs) {
        let mut out = vec![];
        let kept = self.kept_from.is_some();
        self.primary.tick(now, Some(&mut self.history), kept, &mut out);
        self.carry_out(out);
        if let Some(target) = self.ordered.take() {
            self.snapshot(now, target);
        }
        let end = self.stream.len();
        for peer in self.links.values_mut() {
            if let Some(cursor) = &mut peer.cursor {
                peer.to_send.extend_from_slice(&self.stream[*cursor as usize..end]);
                *cursor = end as u64;
            }
        }
    }

    pub(super) fn snapshot(&mut self, now: MonoMs, target: Target) {
        let mut out = vec![];
        let rdb = format!("<{}>", self.data).into_bytes();
        let (ids, mark) = self.primary.snapshot_started(self.end(), &self.history, &mut out);
        self.carry_out(std::mem::take(&mut out));
        let ids = match target {
            Target::Sockets => {
                self.primary.stream_ready();
                ids
            }
            Target::Disk => self.primary.file_ready(rdb.len() as u64, &mut out),
        };
        self.carry_out(std::mem::take(&mut out));
        for id in ids {
            let peer = self.links.get_mut(&id).unwrap();
            peer.to_send.extend_from_slice(&rdb);
            peer.to_send.extend_from_slice(&mark);
            self.primary.rdb_sent(now, id, &mut out);
        }
        self.carry_out(out);
    }

    pub(super) fn receive(&mut self, now: MonoMs, id: LinkId, bytes: &[u8]) {
        let Some(peer) = self.links.get_mut(&id) else { return };
        peer.received.extend_from_slice(bytes);
        while let Some(words) = self.links.get_mut(&id).and_then(|peer| take_command(&mut peer.received)) {
            self.command(now, id, &words);
        }
    }

    pub(super) fn reply(&mut self, id: LinkId, text: &str) {
        self.links.get_mut(&id).unwrap().to_send.extend_from_slice(format!("{text}\r\n").as_bytes());
    }

    pub(super) fn command(&mut self, now: MonoMs, id: LinkId, words: &[Vec<u8>]) {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut out = vec![];
        let open = self.password.is_none() || self.links[&id].authenticated;
        match words[..] {
            [] => self.primary.newline(now, id),
            [b"AUTH", .., password] => {
                let right = self.password.is_some_and(|p| p.as_bytes() == password);
                self.links.get_mut(&id).unwrap().authenticated = right;
                self.reply(id, if right { "+OK" } else { "-WRONGPASS invalid username-password pair" });
            }
            _ if !open => self.reply(id, "-NOAUTH Authentication required."),
            [b"PING"] => self.reply(id, "+PONG"),
            [b"REPLCONF", ref args @ ..] => {
                match self.primary.replconf(now, id, "10.0.0.1", args, &mut out) {
                    Replconf::Ok => self.reply(id, "+OK"),
                    Replconf::Silent => {}
                    Replconf::Error(text) => self.reply(id, &format!("-{text}")),
                }
            }
            [b"PSYNC", ..] if !self.knows_psync => self.reply(id, "-ERR unknown command"),
            [b"PSYNC", ..] if self.psync_error.is_some() => {
                let text = self.psync_error.unwrap();
                self.reply(id, text);
            }
            [b"PSYNC", history, from] => {
                let from = std::str::from_utf8(from).unwrap().parse().unwrap();
                let request = Request { id: history, from };
                let window = self.window();
                self.primary.psync(now, id, "10.0.0.1", request, &mut self.history, window, &mut out);
            }
            [b"SYNC"] => {
                let kept = self.kept_from.is_some();
                self.primary.sync(now, id, "10.0.0.1", &mut self.history, kept, &mut out);
            }
            _ => panic!("{words:?}"),
        }
        self.carry_out(out);
    }

    pub(super) fn logged(&self, text: &str) -> usize {
        self.logs.iter().filter(|line| line.contains(text)).count()
    }
}

/// A whole command at the front of `bytes`, in either protocol; an empty line is an empty one.
pub(super) fn take_command(bytes: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut at = 0;
    let line = |at: &mut usize| {
        let end = *at + bytes[*at..].iter().position(|b| *b == b'\n')?;
        let text = bytes[*at..end].trim_ascii_end().to_vec();
        *at = end + 1;
        Some(text)
    };
    let head = line(&mut at)?;
    let words = match head.strip_prefix(b"*") {
        None => head.split(|b| *b == b' ').filter(|w| !w.is_empty()).map(<[u8]>::to_vec).collect(),
        Some(count) => {
            let count: usize = std::str::from_utf8(count).unwrap().parse().unwrap();
            let mut words = vec![];
            for _ in 0..count {
                line(&mut at)?;
                words.push(line(&mut at)?);
            }
            words
        }
    };
    bytes.drain(..at);
    Some(words)
}

/// The replica's side: the machine, and the driver around it.
pub(super) struct Follower {
    pub(super) replica: Replica,
    pub(super) data: String,
    pub(super) rdb: Vec<u8>,
    pub(super) to_send: Vec<u8>,
    pub(super) link: Option<LinkId>,
    pub(super) wants_connection: bool,
    pub(super) load_fails: bool,
    pub(super) logs: Vec<String>,
}

impl Follower {
    pub(super) fn new(config: replica::Config, position: Option<Position>, data: &str) -> Self {
        Self {
            replica: Replica::new(0, config, position),
            data: data.to_owned(),
            rdb: vec![],
            to_send: vec![],
            link: None,
            wants_connection: false,
            load_fails: false,
            logs: vec![],
        }
    }

    pub(super) fn step(&mut self, now: MonoMs, event: Event<'_>) {
        let mut out = vec![];
        self.replica.step(now, event, &mut out);
        let mut whole = false;
        for action in out {
            use replica::Action;
            match action {
                Action::Connect => self.wants_connection = true,
                Action::Close => self.link = None,
                Action::Send(bytes) => self.to_send.extend(bytes),
                Action::TakenOver | Action::Refused => unreachable!("nobody hands over"),
                Action::Continue(_) => {}
                Action::FullSync { .. } => self.rdb.clear(),
                Action::Rdb(bytes) => self.rdb.extend(bytes),
                Action::RdbEnd => whole = true,
                Action::Stream(bytes) => {
                    self.data.push_str(std::str::from_utf8(&bytes).unwrap());
                    if let Some(p) = self.replica.position() {
                        self.replica.applied(p.offset + bytes.len() as u64);
                    }
                }
                Action::Log(_, line) => self.logs.push(line),
            }
        }
        if whole {
            self.load(now);
        }
    }

    pub(super) fn load(&mut self, now: MonoMs) {
        if self.load_fails {
            self.step(now, Event::Loaded(Err("it is damaged")));
            return;
        }
        let rdb = std::str::from_utf8(&self.rdb).unwrap();
        let text = rdb.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
        self.data = text.expect("a whole RDB").to_owned();
        self.step(now, Event::Loaded(Ok(())));
    }

    pub(super) fn logged(&self, text: &str) -> usize {
        self.logs.iter().filter(|line| line.contains(text)).count()
    }
}

/// Both sides and the wire between them.
pub(super) struct World {
    pub(super) now: MonoMs,
    pub(super) node: Node,
    pub(super) followers: Vec<Follower>,
    pub(super) next_link: LinkId,
    pub(super) reachable: bool,
    /// Bytes still to be delivered to replicas before their link is cut; then `None`.
    pub(super) cut_after: Option<usize>,
    /// The same towards the primary.
    pub(super) cut_back_after: Option<usize>,
}

impl World {
    pub(super) fn new(node: Node, followers: Vec<Follower>) -> Self {
        Self { now: 0, node, followers, next_link: 1, reachable: true, cut_after: None, cut_back_after: None }
    }

    pub(super) fn pair() -> Self {
        Self::new(Node::new(config()), vec![Follower::new(upstream(), None, "")])
    }

    pub(super) fn step(&mut self) {
        self.now += STEP_MS;
        let now = self.now;
        self.node.tick(now);
        for i in 0..self.followers.len() {
            self.followers[i].step(now, Event::Tick);
            self.exchange(i);
        }
    }

    /// Carries bytes both ways until both sides are silent.
    pub(super) fn exchange(&mut self, i: usize) {
        let now = self.now;
        self.forget_closed();
        if std::mem::take(&mut self.followers[i].wants_connection) {
            if !self.reachable {
                self.followers[i].step(now, Event::Failed("Connection refused"));
                return;
            }
            let id = self.next_link;
            self.next_link += 1;
            self.node.links.insert(id, Peer::default());
            self.followers[i].link = Some(id);
            self.followers[i].to_send.clear();
            self.followers[i].step(now, Event::Connected);
        }
        let Some(id) = self.followers[i].link else {
            self.forget_closed();
            return;
        };
        loop {
            let up = std::mem::take(&mut self.followers[i].to_send);
            let (up, cut) = limited(up, &mut self.cut_back_after);
            self.node.receive(now, id, &up);
            if cut {
                return self.cut(i);
            }
            let Some(peer) = self.node.links.get_mut(&id) else {
                self.followers[i].link = None;
                self.followers[i].step(now, Event::Closed("Connection reset by peer"));
                return;
            };
            let down = std::mem::take(&mut peer.to_send);
            let (down, cut) = limited(down, &mut self.cut_after);
            if !down.is_empty() {
                self.followers[i].step(now, Event::Bytes(&down));
            }
            if cut {
                return self.cut(i);
            }
            if self.followers[i].link != Some(id) {
                self.forget_closed();
                return;
            }
            if down.is_empty() && self.followers[i].to_send.is_empty() {
                return;
            }
        }
    }

    /// Breaks the link of a follower.
    pub(super) fn cut(&mut self, i: usize) {
        if self.followers[i].link.take().is_some() {
            let now = self.now;
            self.followers[i].step(now, Event::Closed("Connection reset by peer"));
        }
        self.forget_closed();
    }

    /// Lets the primary know of links that its replicas have closed.
    pub(super) fn forget_closed(&mut self) {
        let open: Vec<_> = self.followers.iter().filter_map(|f| f.link).collect();
        let closed: Vec<_> = self.node.links.keys().copied().filter(|id| !open.contains(id)).collect();
        let mut out = vec![];
        for id in closed {
            self.node.links.remove(&id);
            self.node.primary.closed(self.now, id, &mut out);
        }
        self.node.carry_out(out);
    }

    pub(super) fn run(&mut self, ms: MonoMs) {
        for _ in 0..ms / STEP_MS {
            self.step();
        }
    }

    #[track_caller]
    pub(super) fn converge(&mut self) {
        for _ in 0..300 {
            self.step();
            if self.followers.iter().all(|f| f.replica.is_up() && f.data == self.node.data) {
                return;
            }
        }
        let logs: Vec<_> = self.followers.iter().map(|f| &f.logs).collect();
        panic!("no convergence; primary: {:#?}, replicas: {logs:#?}", self.node.logs);
    }
}

/// What of `bytes` passes before the limit, and whether the limit is reached, which ends it.
pub(super) fn limited(mut bytes: Vec<u8>, limit: &mut Option<usize>) -> (Vec<u8>, bool) {
    let Some(left) = limit else { return (bytes, false) };
    if bytes.len() < *left {
        *left -= bytes.len();
        return (bytes, false);
    }
    bytes.truncate(*left);
    *limit = None;
    (bytes, true)
}

pub(super) fn config() -> primary::Config {
    primary::Config { diskless_delay_ms: 0, ..primary::Config::default() }
}

pub(super) fn upstream() -> replica::Config {
    replica::Config {
        host: "10.0.0.9".into(),
        port: 6379,
        user: None,
        password: None,
        listening_port: 6380,
        announce_ip: None,
        timeout_ms: 60_000,
    }
}
