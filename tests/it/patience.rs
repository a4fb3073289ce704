//! What a client notices of another that holds a shard, or the keys that it sends away, for long: nothing,
//! unless it needs just those. `DEBUG HOLD-SHARD` is our own, and so are these tests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::client::{Client, Reply};
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, heavy, light, wait_for};

/// Generous for a machine that does other things, and far from the seconds of a hold.
const USUAL: Duration = Duration::from_millis(50);

fn node() -> Server {
    Launch::subject().args(&["--io-threads", "2", "--enable-debug-command", "yes"]).start()
}

/// Runs `commands` again and again on a connection of its own until `stop`; returns what each run took, in order
/// of time taken.
fn latencies(port: u16, commands: &[&str], stop: &AtomicBool) -> Vec<Duration> {
    let mut client = Client::connect(port);
    let mut all = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for command in commands {
            let start = Instant::now();
            let reply = client.run(command).to_string();
            all.push(start.elapsed());
            assert!(!reply.starts_with('-'), "{command}: {reply}");
        }
    }
    all.sort_unstable();
    all
}

/// The time that 999 of 1,000 stay below.
fn p999(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 999 / 1000]
}

/// `held` and the keys of the others are in different shards.
const OTHERS: &[&str] = &[
    "SET other 1",
    "GET other",
    "PING",
    "INFO",
    "CLIENT LIST",
    "DBSIZE",
    "MGET other another",
    "INCR count",
];

fn nobody_else_notices(hold: &str) {
    if subject_is_real() {
        return;
    }
    let _alone = heavy();
    let server = node();
    let mut judge = server.connect();
    judge.ok("SET held 1");
    let mut holder = server.connect();
    let stop = AtomicBool::new(false);
    let port = server.port;
    std::thread::scope(|scope| {
        holder.send(&hold.split(' ').collect::<Vec<_>>());
        // More of them than there are workers: a worker that slept for each would sleep all the time.
        let mut waiting: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        let start = Instant::now();
        for (i, client) in waiting.iter_mut().enumerate() {
            match i % 4 {
                0 => client.send(&["INCR", "held"]),
                1 => client.send(&["GET", "held"]),
                2 => client.send(&["MSET", "held", "5", "other", "5"]),
                _ => client.send_raw(b"WATCH held\r\nMULTI\r\nGET held\r\nEXEC\r\n"),
            }
        }
        let mut keys = server.connect();
        keys.send(&["KEYS", "*"]);
        let mut flush = server.connect();
        flush.send(&["FLUSHALL"]);
        let others: Vec<_> = (0..4).map(|_| scope.spawn(|| latencies(port, OTHERS, &stop))).collect();
        assert_eq!(holder.read().to_string(), "+OK");
        let held_for = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert!(held_for > Duration::from_millis(2500), "the shard was held for {held_for:?} only");
        for other in others {
            let times = other.join().expect("a client");
            assert!(p999(&times) < USUAL, "{hold}: p99.9 of {} is {:?}", times.len(), p999(&times));
        }
        for client in &mut waiting {
            let reply = client.read().to_string();
            assert!(!reply.starts_with('-'), "{reply}");
        }
        // Whether it comes before FLUSHALL or behind it.
        assert!(matches!(keys.read(), Reply::Array(_)));
        assert_eq!(flush.read().to_string(), "+OK");
    });
}

#[test]
fn clients_of_other_shards_do_not_notice_a_holder_that_declares_itself() {
    nobody_else_notices("DEBUG HOLD-SHARD held 3");
}

#[test]
fn clients_of_other_shards_do_not_notice_a_holder_that_nobody_knows_of() {
    nobody_else_notices("DEBUG HOLD-SHARD held 3 QUIETLY");
}

#[test]
fn what_goes_over_all_shards_waits_for_the_one_that_is_held_and_is_complete() {
    if subject_is_real() {
        return;
    }
    let server = node();
    let mut judge = server.connect();
    for i in 0..500 {
        judge.ok(&format!("SET key:{i} x"));
    }
    let mut holder = server.connect();
    holder.send(&["DEBUG", "HOLD-SHARD", "key:7", "0.5"]);
    let mut keys = server.connect();
    keys.send(&["KEYS", "key:*"]);
    // A scan gives what it has, and waits only where it is.
    let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let reply = judge.run(&format!("SCAN {cursor} COUNT 100"));
        cursor = reply.items()[0].text();
        seen.extend(reply.items()[1].items().iter().map(Reply::text));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 500);
    assert!(judge.run("RANDOMKEY").text().starts_with("key:"));
    assert_eq!(keys.read().items().len(), 500);
    assert_eq!(holder.read().to_string(), "+OK");
}

#[test]
fn a_blocked_client_outlives_a_shard_that_is_held() {
    if subject_is_real() {
        return;
    }
    let server = node();
    let mut judge = server.connect();
    let (mut popper, mut in_vain) = (server.connect(), server.connect());
    popper.send(&["BLPOP", "list", "elsewhere", "0"]);
    in_vain.send(&["BLPOP", "list", "0.3"]);
    wait_for("both are blocked", SOON, || judge.info_int("blocked_clients") == 2);
    let mut holder = server.connect();
    holder.send(&["DEBUG", "HOLD-SHARD", "list", "1"]);
    // Its time is up while the shard is held, and it is told at once.
    let start = Instant::now();
    assert_eq!(in_vain.read().to_string(), "nil-array");
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    judge.expect("RPUSH elsewhere x", ":1");
    assert_eq!(popper.read().to_string(), "[\"elsewhere\", \"x\"]");
    assert_eq!(holder.read().to_string(), "+OK");
    // Neither of the two is in the queue of the key any more.
    judge.expect("RPUSH list y", ":1");
    judge.expect("LLEN list", ":1");
}

/// A node that takes keys: answers `answers` one after the other, each time that it is let.
struct Peer {
    listener: TcpListener,
    stream: Option<TcpStream>,
}

impl Peer {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").expect("a port"), stream: None }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// Has `client` send it a key; the answer is still to come.
    fn is_sent(&self, client: &mut Client, key: &str) {
        client.send(&["MIGRATE", "127.0.0.1", &self.port().to_string(), key, "0", "20000"]);
    }

    /// Waits until a MIGRATE has sent something.
    fn hear(&mut self) -> String {
        let listener = &self.listener;
        let stream = self.stream.get_or_insert_with(|| listener.accept().expect("a connection").0);
        let mut buf = [0; 4096];
        let n = stream.read(&mut buf).expect("a command");
        String::from_utf8_lossy(&buf[..n]).into_owned()
    }

    fn say(&mut self, text: &str) {
        self.stream.as_mut().expect("heard before").write_all(text.as_bytes()).expect("sent");
    }
}

#[test]
fn a_migrate_to_a_node_that_does_not_answer_stops_nobody_but_who_writes_to_its_keys() {
    let _alone = heavy();
    if subject_is_real() {
        return;
    }
    let server = node();
    let mut peer = Peer::new();
    let mut judge = server.connect();
    judge.ok("SET moving 1");
    let (mut mover, mut writer, mut exec) = (server.connect(), server.connect(), server.connect());
    let stop = AtomicBool::new(false);
    let commands: Vec<&str> = OTHERS.iter().copied().chain(["GET moving", "KEYS *"]).collect();
    let port = server.port;
    std::thread::scope(|scope| {
        let start = Instant::now();
        mover.send(&["MIGRATE", "127.0.0.1", &peer.port().to_string(), "moving", "0", "3000"]);
        assert!(peer.hear().contains("RESTORE"));
        writer.send(&["INCR", "moving"]);
        for line in ["MULTI", "GET other", "INCRBY moving 10"] {
            exec.run(line);
        }
        exec.send(&["EXEC"]);
        let others: Vec<_> = (0..4).map(|_| scope.spawn(|| latencies(port, &commands, &stop))).collect();
        assert_eq!(mover.read().to_string(), "-IOERR error or timeout reading to target instance");
        assert!(start.elapsed() > Duration::from_millis(2900));
        stop.store(true, Ordering::Relaxed);
        for other in others {
            let times = other.join().expect("a client");
            assert!(p999(&times) < USUAL, "p99.9 of {} is {:?}", times.len(), p999(&times));
        }
    });
    // It stays, and those who waited find it.
    assert!(matches!(writer.read(), Reply::Int(2 | 12)));
    assert!(matches!(exec.read().items(), [_, Reply::Int(11 | 12)]));
    judge.expect("GET moving", "\"12\"");
}

#[test]
fn a_key_under_way_is_read_here_and_written_when_it_has_gone() {
    if subject_is_real() {
        return;
    }
    let server = node();
    let mut peer = Peer::new();
    let (mut judge, mut mover, mut writer) = (server.connect(), server.connect(), server.connect());
    judge.ok("SET a 5");
    peer.is_sent(&mut mover, "a");
    peer.hear();
    judge.expect("GET a", "\"5\"");
    writer.send(&["INCR", "a"]);
    peer.say("+OK\r\n+OK\r\n");
    assert_eq!(mover.read().to_string(), "+OK");
    assert_eq!(writer.read().to_string(), ":1");
    // Another MIGRATE of the same key is a writer, too.
    peer.is_sent(&mut mover, "a");
    peer.hear();
    peer.is_sent(&mut writer, "a");
    peer.say("+OK\r\n+OK\r\n");
    assert_eq!(mover.read().to_string(), "+OK");
    assert_eq!(writer.read().to_string(), "+NOKEY");
    let mut blocked = server.connect();
    judge.expect("RPUSH b x", ":1");
    // Now `b`, which a blocked client would move an element into.
    peer.is_sent(&mut mover, "b");
    peer.hear();
    blocked.send(&["BLMOVE", "source", "b", "LEFT", "RIGHT", "0"]);
    judge.expect("RPUSH source y", ":1");
    judge.expect("LRANGE b 0 -1", "[\"x\"]");
    peer.say("+OK\r\n-BUSYKEY Target key name already exists.\r\n");
    assert_eq!(
        mover.read().to_string(),
        "-ERR Target instance replied with error: BUSYKEY Target key name already exists."
    );
    assert_eq!(blocked.read().to_string(), "\"y\"");
    judge.expect("LRANGE b 0 -1", "[\"x\", \"y\"]");
}

#[test]
fn what_is_flushed_while_it_is_under_way_is_not_deleted_once_more() {
    if subject_is_real() {
        return;
    }
    let server = node();
    let mut peer = Peer::new();
    let (mut judge, mut mover) = (server.connect(), server.connect());
    judge.ok("SET a 5");
    peer.is_sent(&mut mover, "a");
    peer.hear();
    judge.ok("FLUSHALL");
    judge.ok("SET a new");
    peer.say("+OK\r\n+OK\r\n");
    assert_eq!(mover.read().to_string(), "+OK");
    judge.expect("GET a", "\"new\"");
}

#[test]
fn a_migrate_that_breaks_off_moves_what_was_acknowledged() {
    let _others = light();
    let server = if subject_is_real() { Server::subject() } else { node() };
    let mut peer = Peer::new();
    let port = peer.port().to_string();
    let (mut judge, mut mover) = (server.connect(), server.connect());
    judge.ok("MSET a 1 b 2 c 3");
    mover.send(&["MIGRATE", "127.0.0.1", &port, "", "0", "20000", "KEYS", "a", "b", "c"]);
    peer.hear();
    peer.say("+OK\r\n+OK\r\n-ERR no\r\n");
    let stream = peer.stream.take().expect("a connection");
    stream.shutdown(std::net::Shutdown::Both).expect("closed");
    assert_eq!(mover.read().to_string(), "-ERR Target instance replied with error: ERR no");
    judge.expect("MGET a b c", "[nil, \"2\", \"3\"]");
}

#[test]
fn the_connection_of_a_migrate_is_kept_for_ten_seconds() {
    let _others = light();
    let server = Server::subject();
    let mut judge = server.connect();
    assert_eq!(judge.info_int("migrate_cached_sockets"), 0);
    let mut target = Server::subject();
    let start = Instant::now();
    for i in 0..3 {
        judge.ok(&format!("SET k{i} v"));
        judge.ok(&format!("MIGRATE 127.0.0.1 {} k{i} 0 5000", target.port));
        assert_eq!(judge.info_int("migrate_cached_sockets"), 1);
    }
    // A connection that the other node has closed is made again.
    target.restart();
    judge.ok("SET again v");
    judge.ok(&format!("MIGRATE 127.0.0.1 {} again 0 5000", target.port));
    wait_for("the connection is closed", SOON, || judge.info_int("migrate_cached_sockets") == 0);
    assert!(start.elapsed() > Duration::from_secs(9), "{:?}", start.elapsed());
}

#[test]
fn keys_of_two_million_stops_no_other_worker() {
    if subject_is_real() {
        return;
    }
    let _alone = heavy();
    let server = node();
    let mut judge = server.connect();
    judge.set_read_timeout(Duration::from_secs(120));
    judge.ok("DEBUG POPULATE 2000000");
    judge.ok("SET other 1");
    let (port, stop) = (server.port, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let others: Vec<_> =
            (0..4).map(|_| scope.spawn(|| latencies(port, &["GET other", "SET other 2"], &stop))).collect();
        let start = Instant::now();
        let mut found = 0;
        for _ in 0..3 {
            // Nothing matches, so that what is measured is the walk.
            found += judge.run("KEYS nothing*").items().len();
        }
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(found, 0);
        let mut worst: Vec<Duration> = others
            .into_iter()
            .map(|other| *other.join().expect("a client").last().expect("a time"))
            .collect();
        worst.sort_unstable();
        println!("three KEYS took {took:?}; the slowest command of each client: {worst:?}");
        // Two of the four are on the worker that is busy. A third of a KEYS leaves room for other programs.
        assert!(
            worst[1] < USUAL.max(took / 9),
            "three KEYS took {took:?}; the slowest of each client: {worst:?}"
        );
    });
}

/// Who holds all shards for long stops every client; another program stops one or two, so the least of the longest
/// waits counts.
#[test]
fn random_keys_and_a_flush_in_the_background_stop_no_other_worker() {
    if subject_is_real() {
        return;
    }
    let _alone = heavy();
    let server = node();
    let mut judge = server.connect();
    judge.set_read_timeout(Duration::from_secs(120));
    judge.ok("DEBUG POPULATE 500000");
    let (port, stop) = (server.port, AtomicBool::new(false));
    let measured = std::thread::scope(|scope| {
        let others: Vec<_> =
            (0..4).map(|_| scope.spawn(|| latencies(port, &["GET other", "SET other 2"], &stop))).collect();
        for _ in 0..1000 {
            assert!(!judge.run("RANDOMKEY").text().is_empty());
            assert!(judge.run("DBSIZE").int() >= 500_000);
        }
        judge.ok("FLUSHALL ASYNC");
        wait_for("all is freed", SOON, || judge.info("lazyfree_pending_objects") == "0");
        stop.store(true, Ordering::Relaxed);
        let ends = others.into_iter().map(|other| *other.join().expect("a client").last().expect("a time"));
        ends.collect::<Vec<_>>()
    });
    let least = measured.iter().min().expect("four clients");
    assert!(*least < Duration::from_secs(1), "every client waited for {least:?} at least");
}
