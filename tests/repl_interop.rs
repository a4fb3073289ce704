//! The replication machines against a real Redis 7.0 on the other side, in both roles.

mod common;

use common::client::Client;
use common::server::{Launch, Server};
use common::{SOON, wait_for};
use keystead::base::rng::Rng;
use keystead::persist::rdb::{
    Meta, Options, Preamble, Reader, Record, VERSION_WRITTEN, Writer, encode_entry,
};
use keystead::repl::primary::{self, LinkId, Primary, Replconf, Target};
use keystead::repl::replica::{self, Event, Replica};
use keystead::repl::{History, Request, Window};
use keystead::value::{Limits, ValueRef};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What arrives within a moment; `None` when the peer has closed.
fn read_some(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut chunk = vec![0; 16 << 10];
    match stream.read(&mut chunk) {
        Ok(0) => None,
        Ok(n) => {
            chunk.truncate(n);
            Some(chunk)
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(Vec::new()),
        Err(_) => None,
    }
}

fn prepare(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("set a timeout");
    stream.set_nodelay(true).expect("set nodelay");
    stream
}

/// A replica of ours that keeps what it gets and applies nothing.
struct Follower {
    start: Instant,
    replica: Replica,
    stream: Option<TcpStream>,
    rdb: Vec<u8>,
    keys: Vec<Vec<u8>>,
    received: Vec<u8>,
    continued: usize,
    logs: Vec<String>,
}

impl Follower {
    fn new(port: u16, password: Option<&str>) -> Self {
        let config = replica::Config {
            host: "127.0.0.1".into(),
            port,
            user: None,
            password: password.map(Into::into),
            listening_port: 7777,
            announce_ip: None,
            timeout_ms: 10_000,
        };
        Self {
            start: Instant::now(),
            replica: Replica::new(0, config, None),
            stream: None,
            rdb: vec![],
            keys: vec![],
            received: vec![],
            continued: 0,
            logs: vec![],
        }
    }

    /// Does what there is to do.
    fn turn(&mut self) {
        self.step(Event::Tick);
        if let Some(stream) = &mut self.stream {
            match read_some(stream) {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => self.step(Event::Bytes(&bytes)),
                None => {
                    self.stream = None;
                    self.step(Event::Closed("the peer closed"));
                }
            }
        }
    }

    fn step(&mut self, event: Event<'_>) {
        use replica::Action;
        let now = self.start.elapsed().as_millis() as u64;
        let mut out = vec![];
        self.replica.step(now, event, &mut out);
        for action in out {
            match action {
                Action::Connect => match TcpStream::connect(("127.0.0.1", self.replica.config().port)) {
                    Ok(stream) => {
                        self.stream = Some(prepare(stream));
                        self.step(Event::Connected);
                    }
                    Err(e) => self.step(Event::Failed(&e.to_string())),
                },
                Action::Close => self.stream = None,
                Action::Send(bytes) => {
                    self.stream.as_mut().expect("a connection").write_all(&bytes).expect("send");
                }
                Action::TakenOver | Action::Refused => unreachable!("nobody hands over"),
                Action::Continue(_) => self.continued += 1,
                Action::FullSync { .. } => self.rdb.clear(),
                Action::Rdb(bytes) => self.rdb.extend(bytes),
                Action::RdbEnd => {
                    self.load();
                    self.step(Event::Loaded(Ok(())));
                }
                Action::Stream(bytes) => {
                    self.received.extend_from_slice(&bytes);
                    let position = self.replica.position().expect("a position");
                    self.replica.applied(position.offset + bytes.len() as u64);
                }
                Action::Log(_, line) => self.logs.push(line),
            }
        }
    }

    fn load(&mut self) {
        self.keys.clear();
        for record in Reader::open(&self.rdb[..], Limits::default()).expect("a header") {
            if let Record::Entry(entry) = record.expect("a record") {
                self.keys.push(entry.key);
            }
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            self.turn();
            assert!(start.elapsed() < SOON, "{what}: {:#?}", self.logs);
        }
    }

    fn has_received(&self, text: &str) -> bool {
        memchr::memmem::find(&self.received, text.as_bytes()).is_some()
    }
}

fn follow_a_real_primary(settings: &[&str], password: Option<&str>) {
    let server = Launch::real().args(settings).start();
    let mut c = server.connect();
    let mut f = Follower::new(server.port, password);
    if let Some(password) = password {
        // Only now, so that the start itself needs none.
        c.ok(&format!("CONFIG SET requirepass {password}"));
        c.ok(&format!("AUTH {password}"));
    }
    c.ok("SET before x");
    f.until("the first synchronisation", |f| f.replica.is_up());
    assert_eq!(f.keys, [b"before"]);
    c.ok("SET after y");
    f.until("the stream", |f| f.has_received("after"));
    f.until("an acknowledgement", |_| {
        let line = c.info("slave0");
        line.contains("port=7777,state=online")
            && line.contains(&format!("offset={}", c.info("master_repl_offset")))
    });
    for round in 1..=3 {
        f.stream = None;
        f.step(Event::Closed("the test cuts it"));
        c.ok(&format!("SET missed:{round} z"));
        f.until("what was missed", |f| f.has_received(&format!("missed:{round}")));
        assert_eq!(f.continued, round);
    }
    assert_eq!((c.info_int("sync_full"), c.info_int("sync_partial_ok")), (1, 3));
    let mut info = String::new();
    f.replica.write_info(f.start.elapsed().as_millis() as u64, &mut info);
    assert!(info.contains("master_link_status:up"), "{info}");
    let offset = f.replica.role_offset();
    assert!(offset > 0 && offset <= c.info_int("master_repl_offset"));
}

#[test]
fn a_real_primary_is_followed_without_its_disk() {
    follow_a_real_primary(&["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"], None);
}

#[test]
fn a_real_primary_is_followed_from_its_disk_and_with_a_password() {
    follow_a_real_primary(&["--repl-diskless-sync", "no"], Some("secret"));
}

/// A primary of ours that holds one key and passes on what it is told to.
struct Leader {
    start: Instant,
    listener: TcpListener,
    primary: Primary,
    history: History,
    stream: Vec<u8>,
    kept: bool,
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
    logs: Vec<String>,
}

struct Link {
    socket: TcpStream,
    received: Vec<u8>,
    cursor: Option<usize>,
}

impl Leader {
    fn new(diskless: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        listener.set_nonblocking(true).expect("set nonblocking");
        let mut rng = Rng::new(u64::from(std::process::id()));
        let config = primary::Config { diskless, diskless_delay_ms: 0, ..primary::Config::default() };
        Self {
            start: Instant::now(),
            listener,
            history: History::new(&mut rng),
            primary: Primary::new(0, config, rng),
            stream: vec![],
            kept: false,
            links: BTreeMap::new(),
            next: 1,
            logs: vec![],
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    fn append(&mut self, words: &[&str]) {
        self.stream.extend(common::client::encode(words));
    }

    fn turn(&mut self) {
        if let Ok((socket, _)) = self.listener.accept() {
            socket.set_nonblocking(false).expect("set blocking");
            self.links.insert(self.next, Link { socket: prepare(socket), received: vec![], cursor: None });
            self.next += 1;
        }
        let mut out = vec![];
        let now = self.now();
        self.primary.tick(now, Some(&mut self.history), self.kept, &mut out);
        self.carry_out(out);
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.serve(id);
        }
        for link in self.links.values_mut() {
            if let Some(cursor) = &mut link.cursor {
                let _ = link.socket.write_all(&self.stream[*cursor..]);
                *cursor = self.stream.len();
            }
        }
    }

    fn serve(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match read_some(&mut link.socket) {
            Some(bytes) => link.received.extend(bytes),
            None => self.close(id),
        }
        while let Some(words) = self.links.get_mut(&id).and_then(|link| take_command(&mut link.received)) {
            self.command(id, &words);
        }
    }

    fn close(&mut self, id: LinkId) {
        self.links.remove(&id);
        let (now, mut out) = (self.now(), vec![]);
        self.primary.closed(now, id, &mut out);
        self.carry_out(out);
    }

    fn command(&mut self, id: LinkId, words: &[Vec<u8>]) {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let (now, mut out) = (self.now(), vec![]);
        let reply = match words[..] {
            [] => {
                self.primary.newline(now, id);
                None
            }
            [b"PING"] => Some("+PONG".to_owned()),
            [b"REPLCONF", ref args @ ..] => {
                match self.primary.replconf(now, id, "127.0.0.1", args, &mut out) {
                    Replconf::Ok => Some("+OK".to_owned()),
                    Replconf::Silent => None,
                    Replconf::Error(text) => Some(format!("-{text}")),
                }
            }
            [b"PSYNC", history, from] => {
                let from = String::from_utf8_lossy(from).parse().expect("an offset");
                let window = self.kept.then_some(Window { start: 0, end: self.stream.len() as u64 });
                let request = Request { id: history, from };
                self.primary.psync(now, id, "127.0.0.1", request, &mut self.history, window, &mut out);
                None
            }
            _ => panic!("{words:?}"),
        };
        if let (Some(reply), Some(link)) = (reply, self.links.get_mut(&id)) {
            link.socket.write_all(format!("{reply}\r\n").as_bytes()).expect("reply");
        }
        self.carry_out(out);
    }

    fn carry_out(&mut self, actions: Vec<primary::Action>) {
        use primary::Action;
        for action in actions {
            match action {
                Action::Send(id, bytes) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        let _ = link.socket.write_all(&bytes);
                    }
                }
                Action::Stream(id, offset) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.cursor = Some(offset as usize);
                    }
                }
                Action::KeepStream => self.kept = true,
                Action::DropStream => self.kept = false,
                Action::StartSnapshot(target, _) => self.snapshot(target),
                Action::Append(record) => self.stream.extend_from_slice(record),
                Action::Close(id) => self.close(id),
                Action::Log(_, line) => self.logs.push(line),
            }
        }
    }

    fn snapshot(&mut self, target: Target) {
        let mut w = Writer::new(Vec::new(), true);
        let preamble = Preamble {
            version: VERSION_WRITTEN,
            redis_version: "7.4.1",
            created: 0,
            used_memory: 0,
            replication: None,
            aof_base: false,
        };
        w.preamble(&preamble).expect("write");
        w.database(0, 1, 0).expect("write");
        let mut block = vec![];
        encode_entry(&mut block, b"from-rdb", ValueRef::String(b"v"), &Meta::default(), Options::default());
        w.entries(&block).expect("write");
        let rdb = w.finish().expect("write");

        let (now, mut out) = (self.now(), vec![]);
        let (ids, mark) = self.primary.snapshot_started(self.stream.len() as u64, &self.history, &mut out);
        let ids = match target {
            Target::Sockets => {
                self.primary.stream_ready();
                ids
            }
            Target::Disk => self.primary.file_ready(rdb.len() as u64, &mut out),
        };
        self.carry_out(std::mem::take(&mut out));
        for id in ids {
            if let Some(link) = self.links.get_mut(&id) {
                let _ = link.socket.write_all(&[&rdb[..], &mark].concat());
            }
            self.primary.rdb_sent(now, id, &mut out);
        }
        self.carry_out(out);
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            self.turn();
            assert!(start.elapsed() < SOON, "{what}: {:#?}", self.logs);
        }
    }
}

/// A whole command at the front of `bytes`; an empty line is an empty one.
fn take_command(bytes: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    if bytes.first() == Some(&b'\n') {
        bytes.remove(0);
        return Some(vec![]);
    }
    let (command, used) = common::client::decode(bytes)?;
    bytes.drain(..used);
    Some(command.items().iter().map(|word| word.bytes().expect("a word").to_vec()).collect())
}

fn lead_a_real_replica(diskless: bool) {
    let server: Server = Launch::real().start();
    let mut c: Client = server.connect();
    let mut leader = Leader::new(diskless);
    c.ok(&format!("REPLICAOF 127.0.0.1 {}", leader.port()));
    leader.until("the link is up", |_| c.info("master_link_status") == "up");
    c.expect("GET from-rdb", "\"v\"");
    leader.append(&["SELECT", "0"]);
    leader.append(&["SET", "from-stream", "w"]);
    leader.until("the stream is applied", |_| c.run("GET from-stream").text() == "w");
    leader.stream.extend_from_slice(keystead::repl::GETACK_RECORD);
    leader
        .until("an acknowledgement on demand", |l| l.primary.acknowledged_by(l.stream.len() as u64 - 1) == 1);
    let mut info = String::new();
    leader.primary.write_info(leader.now(), &mut info);
    assert!(info.starts_with(&format!("slave0:ip=127.0.0.1,port={},state=online", server.port)), "{info}");

    for round in 0..3 {
        let id = *leader.links.keys().next().expect("a link");
        leader.close(id);
        leader.append(&["SET", "missed", &round.to_string()]);
        leader.until("what was missed", |_| c.run("GET missed").text() == round.to_string());
    }
    let count = |leader: &Leader, text: &str| leader.logs.iter().filter(|l| l.contains(text)).count();
    assert_eq!(count(&leader, "Replication ID mismatch"), 1, "it asked to go on from its own history");
    assert_eq!(count(&leader, "Partial resynchronization request from"), 3);
    assert_eq!(c.info("master_replid"), leader.history.id().as_str());

    c.ok("REPLICAOF NO ONE");
    wait_for("it is a primary", SOON, || c.info("role") == "master");
    leader.until("we notice", |l| l.primary.connected() == 0);
}

#[test]
fn a_real_replica_is_fed_between_marks() {
    lead_a_real_replica(true);
}

#[test]
fn a_real_replica_is_fed_with_a_file() {
    lead_a_real_replica(false);
}
