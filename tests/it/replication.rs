//! Replication between Keystead and real servers, through links that break.

use crate::common::client::{Client, Reply, encode};
use crate::common::proxy::Proxy;
use crate::common::server::{Launch, Server, fresh_dir};
use crate::common::{SOON, heavy, wait_for};
use crate::workload::{Load, digest, every_type};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

fn follow(replica: &mut Client, port: u16) {
    replica.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
}

fn linked(replica: &mut Client) -> bool {
    replica.info("master_link_status") == "up"
}

/// Waits until the replica has applied all that the primary has, and compares their data.
#[track_caller]
fn converge(primary: &mut Client, replica: &mut Client) {
    wait_for("the link is up", Duration::from_secs(60), || linked(replica));
    wait_for("the offsets meet", Duration::from_secs(60), || {
        let ours = primary.info_int("master_repl_offset");
        let theirs = replica.info_int("slave_repl_offset");
        ours == theirs && ours == primary.info_int("master_repl_offset")
    });
    // Keys that expire now are gone here before they are gone there.
    wait_for("the digests are equal", Duration::from_secs(10), || digest(primary) == digest(replica));
}

/// The pairs of primary and replica that must work.
fn pairs() -> [(&'static str, Launch, Launch); 3] {
    [
        ("a real replica of ours", Launch::subject(), Launch::real()),
        ("our replica of a real one", Launch::real(), Launch::subject()),
        ("our replica of ours", Launch::subject(), Launch::subject()),
    ]
}

#[test]
fn a_full_sync_carries_every_type() {
    for (what, primary, replica) in pairs() {
        let (primary, replica) = (primary.start(), replica.start());
        let (mut p, mut r) = (primary.connect(), replica.connect());
        every_type(&mut p, true);
        r.ok("SET gone v"); // what the replica had is gone afterwards
        follow(&mut r, primary.port);
        converge(&mut p, &mut r);
        r.expect("GET string", "\"hello\"");
        r.expect("EXISTS gone", ":0");
        assert_eq!(p.info("sync_full"), "1", "{what}");
        r.expect("SET k v", "-READONLY You can't write against a read only replica.");
        // Every type again, now as commands of the stream.
        p.ok("FLUSHALL");
        every_type(&mut p, true);
        p.ok("SET soon v PX 100");
        p.run("SPOP set");
        p.run("XADD stream * f v");
        p.run("INCRBYFLOAT f 0.1");
        p.pipeline(&["MULTI", "SET a 1", "INCR a", "EXEC"]);
        converge(&mut p, &mut r);
        wait_for("it expires on both", SOON, || {
            p.run("EXISTS soon").int() == 0 && r.run("DBSIZE") == p.run("DBSIZE")
        });
        converge(&mut p, &mut r);
    }
}

#[test]
fn info_and_role_tell_of_the_link() {
    for (what, primary, replica) in pairs() {
        let (primary, replica) = (primary.start(), replica.start());
        let (mut p, mut r) = (primary.connect(), replica.connect());
        p.ok("SET k v");
        follow(&mut r, primary.port);
        converge(&mut p, &mut r);
        assert_eq!(r.info("role"), "slave", "{what}");
        assert_eq!(r.info("master_host"), "127.0.0.1");
        assert_eq!(r.info("master_port"), primary.port.to_string());
        assert_eq!(r.info("slave_read_only"), "1");
        assert_eq!(p.info("connected_slaves"), "1");
        wait_for("the replica is online", SOON, || p.info("slave0").contains("state=online"));
        let line = p.info("slave0");
        assert!(
            line.starts_with(&format!("ip=127.0.0.1,port={},state=online,offset=", replica.port)),
            "{line}"
        );
        assert_eq!(p.info("master_replid"), r.info("master_replid"));
        let role = r.run("ROLE").to_string();
        assert!(
            role.starts_with(&format!("[\"slave\", \"127.0.0.1\", :{}, \"connected\", :", primary.port)),
            "{role}"
        );
        let role = p.run("ROLE").to_string();
        assert!(role.contains(&format!("[[\"127.0.0.1\", \"{}\", \"", replica.port)), "{role}");
        let log = replica.log();
        assert!(log.contains("MASTER <-> REPLICA sync: Finished with success"), "{log}");
    }
}

#[test]
fn a_cut_link_is_mended_by_a_partial_sync() {
    for (what, primary, replica) in pairs() {
        let (primary, replica) = (primary.start(), replica.start());
        let (mut p, mut r) = (primary.connect(), replica.connect());
        every_type(&mut p, false);
        let proxy = Proxy::to(primary.port);
        follow(&mut r, proxy.port);
        converge(&mut p, &mut r);
        for cut in 1..=3 {
            proxy.refuse(true);
            p.pipeline(&(0..100).map(|i| format!("SET cut:{cut}:{i} v")).collect::<Vec<_>>());
            proxy.refuse(false);
            wait_for("a partial sync", SOON, || p.info_int("sync_partial_ok") >= cut);
            converge(&mut p, &mut r);
        }
        assert_eq!(p.info("sync_full"), "1", "{what}");
    }
}

#[test]
fn a_gap_larger_than_the_backlog_takes_a_full_sync() {
    for (what, primary, replica) in pairs() {
        let primary = primary.args(&["--repl-backlog-size", "16kb"]).start();
        let replica = replica.start();
        let (mut p, mut r) = (primary.connect(), replica.connect());
        let proxy = Proxy::to(primary.port);
        follow(&mut r, proxy.port);
        converge(&mut p, &mut r);
        proxy.refuse(true);
        let value = "x".repeat(10_000);
        // The log may keep whole blocks: write far more than any of them.
        p.pipeline(&(0..1000).map(|i| format!("SET gap:{i} {value}")).collect::<Vec<_>>());
        proxy.refuse(false);
        converge(&mut p, &mut r);
        assert_eq!(p.info("sync_full"), "2", "{what}");
    }
}

/// For five seconds, or as many as FOLLOW_SECONDS says.
#[test]
fn a_real_and_our_replica_follow_the_same_primary_through_cut_links_under_load() {
    let _serial = heavy();
    let (primary, real, ours) = (Server::subject(), Server::real(), Server::subject());
    let (mut p, mut a, mut b) = (primary.connect(), real.connect(), ours.connect());
    every_type(&mut p, false);
    let load = Load::start(primary.port, 2);
    let (to_real, to_ours) = (Proxy::to(primary.port), Proxy::to(primary.port));
    follow(&mut a, to_real.port);
    follow(&mut b, to_ours.port);
    wait_for("both links are up", Duration::from_secs(60), || linked(&mut a) && linked(&mut b));
    let seconds = std::env::var("FOLLOW_SECONDS").map_or(5, |s| s.parse().expect("a number of seconds"));
    let (began, sixth) = (Instant::now(), Duration::from_secs(seconds) / 6);
    let load_goes_on = |until: Duration| {
        let written = load.written();
        wait_for("the load goes on", until + Duration::from_secs(60), || {
            load.written() > written + 2000 && began.elapsed() >= until
        });
    };
    for cut in 1..=5 {
        load_goes_on(sixth * u32::try_from(cut).expect("five at most"));
        to_real.cut();
        to_ours.cut();
        wait_for("both are back by partial syncs", Duration::from_secs(60), || {
            p.info_int("sync_partial_ok") >= 2 * cut && linked(&mut a) && linked(&mut b)
        });
    }
    load_goes_on(sixth * 6);
    let written = load.end();
    converge(&mut p, &mut a);
    converge(&mut p, &mut b);
    assert!(p.info_int("sync_full") <= 2, "full syncs: {}", p.info("sync_full"));
    let took = began.elapsed().as_secs();
    println!("{written} commands in {took} s through five cuts, {} partial syncs", p.info("sync_partial_ok"));
}

#[test]
fn our_replica_follows_a_real_primary_under_load() {
    let _serial = heavy();
    let (primary, replica) = (Server::real(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    every_type(&mut p, false);
    let load = Load::start(primary.port, 2);
    let proxy = Proxy::to(primary.port);
    follow(&mut r, proxy.port);
    wait_for("the link is up", Duration::from_secs(60), || linked(&mut r));
    for cut in 1..=5 {
        let written = load.written();
        wait_for("the load goes on", Duration::from_secs(60), || load.written() > written + 2000);
        proxy.cut();
        wait_for("a partial sync", Duration::from_secs(60), || {
            p.info_int("sync_partial_ok") >= cut && linked(&mut r)
        });
    }
    load.end();
    converge(&mut p, &mut r);
}

#[test]
fn wait_counts_the_replicas_that_have_it() {
    let (primary, one, two) = (Server::subject(), Server::real(), Server::subject());
    let (mut p, mut a, mut b) = (primary.connect(), one.connect(), two.connect());
    p.expect("WAIT 0 10", ":0");
    let proxy = Proxy::to(primary.port);
    follow(&mut a, primary.port);
    follow(&mut b, proxy.port);
    converge(&mut p, &mut a);
    converge(&mut p, &mut b);
    p.ok("SET k v");
    p.expect("WAIT 2 10000", ":2");
    a.expect("GET k", "\"v\"");
    b.expect("GET k", "\"v\"");
    // One link stands still: WAIT says so when its time is up.
    proxy.stall(true);
    p.ok("SET k w");
    p.expect("WAIT 2 300", ":1");
    proxy.stall(false);
    p.expect("WAIT 2 10000", ":2");
    // Inside a transaction it does not wait.
    p.pipeline(&["MULTI", "SET k x", "WAIT 2 0"]);
    assert!(p.run("EXEC").to_string().starts_with("[+OK, :"));
}

/// What a wait takes is given back when it ends, however long it might have lasted.
#[test]
fn a_wait_that_ended_early_leaves_nothing_behind() {
    const WAITS: i64 = 5000;
    let server = Server::subject();
    let (mut waiting, mut other) = (server.connect(), server.connect());
    let id = waiting.run("CLIENT ID").int();
    let mut wait_and_be_unblocked = |times: i64| {
        for _ in 0..times {
            waiting.send(&["WAIT", "1", "3600000"]);
            wait_for("it waits", SOON, || other.run(&format!("CLIENT UNBLOCK {id}")).int() == 1);
            assert_eq!(waiting.read(), Reply::Int(0));
        }
        other.info_int("used_memory")
    };
    let before = wait_and_be_unblocked(200);
    let grown = wait_and_be_unblocked(WAITS) - before;
    assert!(grown < 100 * WAITS, "{grown} bytes more after {WAITS} waits");
}

#[test]
fn a_promoted_replica_goes_on_with_the_history() {
    for (what, primary, replica) in pairs() {
        let (primary, promoted, other) = (primary.start(), replica.start(), Server::real());
        let (mut p, mut n, mut o) = (primary.connect(), promoted.connect(), other.connect());
        every_type(&mut p, false);
        follow(&mut n, primary.port);
        follow(&mut o, primary.port);
        converge(&mut p, &mut n);
        converge(&mut p, &mut o);
        let old = p.info("master_replid");
        n.ok("REPLICAOF NO ONE");
        assert_eq!(n.info("role"), "master", "{what}");
        assert_eq!(n.info("master_replid2"), old, "{what}");
        assert_ne!(n.info("master_replid"), old, "{what}");
        assert!(n.info_int("second_repl_offset") > 0, "{what}");
        n.ok("SET after promotion");
        // The other replica changes sides without a full sync.
        follow(&mut o, promoted.port);
        converge(&mut n, &mut o);
        assert_eq!(n.info("sync_partial_ok"), "1", "{what}");
        assert_eq!(n.info("sync_full"), "0", "{what}");
        o.expect("GET after", "\"promotion\"");
    }
}

#[test]
fn replicas_chain() {
    for (what, middle, last) in [
        ("ours in the middle", Launch::subject(), Launch::real()),
        ("ours at the end", Launch::real(), Launch::subject()),
        ("both ours", Launch::subject(), Launch::subject()),
    ] {
        let (primary, middle, last) = (Server::real(), middle.start(), last.start());
        let (mut p, mut m, mut l) = (primary.connect(), middle.connect(), last.connect());
        every_type(&mut p, false);
        follow(&mut m, primary.port);
        wait_for("the middle is linked", Duration::from_secs(30), || linked(&mut m));
        follow(&mut l, middle.port);
        let load = Load::start(primary.port, 1);
        wait_for("the load runs", Duration::from_secs(30), || load.written() > 1000);
        load.end();
        converge(&mut p, &mut m);
        converge(&mut p, &mut l);
        assert_eq!(l.info("master_replid"), p.info("master_replid"), "{what}");
    }
}

#[test]
fn a_replica_without_its_primary_serves_what_it_has() {
    let (mut primary, replica) = (Server::real(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    p.ok("SET k v");
    follow(&mut r, primary.port);
    converge(&mut p, &mut r);
    primary.kill();
    wait_for("the link is down", SOON, || r.info("master_link_status") == "down");
    r.expect("GET k", "\"v\"");
    r.ok("CONFIG SET replica-serve-stale-data no");
    r.expect("GET k", "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
    r.expect("PING", "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
    assert!(r.run("INFO replication").text().contains("role:slave"));
}

#[test]
fn min_replicas_to_write_refuses_alone() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("CONFIG SET min-replicas-to-write 1");
    client.expect("SET k v", "-NOREPLICAS Not enough good replicas to write.");
    client.expect("GET k", "nil");
    let replica = Server::real();
    let mut r = replica.connect();
    follow(&mut r, server.port);
    wait_for("writes go again", SOON, || client.run("SET k v").text() == "OK");
    converge(&mut client, &mut r);
}

#[test]
fn replicas_authenticate() {
    for (what, primary, replica) in pairs() {
        let primary = primary.args(&["--requirepass", "secret"]).start();
        let replica = replica.args(&["--masterauth", "secret"]).start();
        let mut p = primary.connect();
        p.ok("AUTH secret");
        p.ok("SET k v");
        let mut r = replica.connect();
        follow(&mut r, primary.port);
        converge(&mut p, &mut r);
        r.expect("GET k", "\"v\"");
        let stranger = Launch::real().start();
        let mut s = stranger.connect();
        follow(&mut s, primary.port);
        wait_for("it tries", SOON, || stranger.log().contains("NOAUTH"));
        assert!(!linked(&mut s), "{what}");
    }
}

#[test]
fn a_replica_that_was_restarted_goes_on_where_its_file_stops() {
    for (what, primary, replica) in pairs() {
        let (primary, mut replica) = (primary.start(), replica.start());
        let (mut p, mut r) = (primary.connect(), replica.connect());
        every_type(&mut p, true);
        follow(&mut r, primary.port);
        converge(&mut p, &mut r);
        let _ = r.try_run("SHUTDOWN SAVE");
        replica.wait_exit();
        p.pipeline(&(0..100).map(|i| format!("INCR while-away:{}", i % 7)).collect::<Vec<_>>());
        replica.start_again_with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        let mut r = replica.connect();
        converge(&mut p, &mut r);
        assert_eq!((p.info_int("sync_full"), p.info_int("sync_partial_ok")), (1, 1), "{what}");
        r.expect("SET k v", "-READONLY You can't write against a read only replica.");
    }
}

/// The stream says once which database it means: who goes on in its midst has it from the file.
#[test]
fn a_replica_that_was_restarted_knows_which_database_the_stream_means() {
    for (what, primary, replica) in pairs() {
        let (primary, mut replica) = (primary.start(), replica.start());
        let (mut p, mut r) = (primary.connect(), replica.connect());
        follow(&mut r, primary.port);
        wait_for("the link is up", SOON, || linked(&mut r));
        p.ok("SELECT 3");
        p.ok("SET before x");
        converge(&mut p, &mut r);
        let _ = r.try_run("SHUTDOWN SAVE");
        replica.wait_exit();
        p.ok("SET after x");
        replica.start_again_with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        let mut r = replica.connect();
        converge(&mut p, &mut r);
        assert_eq!((p.info_int("sync_full"), p.info_int("sync_partial_ok")), (1, 1), "{what}");
        r.expect("EXISTS after", ":0");
        r.ok("SELECT 3");
        r.expect("MGET before after", r#"["x", "x"]"#);
    }
}

#[test]
fn a_primary_that_was_restarted_is_followed_without_a_full_sync() {
    let (mut primary, replica) = (Server::subject(), Server::real());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    every_type(&mut p, true);
    follow(&mut r, primary.port);
    converge(&mut p, &mut r);
    let _ = p.try_run("SHUTDOWN SAVE");
    primary.wait_exit();
    primary.start_again();
    let mut p = primary.connect();
    p.ok("SET after restart");
    converge(&mut p, &mut r);
    assert_eq!((p.info_int("sync_full"), p.info_int("sync_partial_ok")), (0, 1));
    r.expect("GET after", "\"restart\"");
}

#[test]
fn a_primary_turned_replica_goes_on_with_its_own_history() {
    let (one, two) = (Server::subject(), Server::subject());
    let (mut a, mut b) = (one.connect(), two.connect());
    every_type(&mut a, true);
    follow(&mut b, one.port);
    converge(&mut a, &mut b);
    b.ok("REPLICAOF NO ONE");
    b.ok("SET by b");
    follow(&mut a, two.port);
    converge(&mut b, &mut a);
    assert_eq!((b.info_int("sync_full"), b.info_int("sync_partial_ok")), (0, 1));
    a.expect("GET by", "\"b\"");
    // And back, while clients of the former primary wait for something.
    let mut blocked = two.connect();
    blocked.send(&["BLPOP", "nothing", "0"]);
    wait_for("the client waits", SOON, || b.info_int("blocked_clients") == 1);
    a.ok("REPLICAOF NO ONE");
    follow(&mut b, one.port);
    assert!(blocked.read().to_string().starts_with("-UNBLOCKED"));
    assert!(blocked.closed(), "so that it looks for the primary");
    converge(&mut a, &mut b);
    assert_eq!((a.info_int("sync_full"), a.info_int("sync_partial_ok")), (1, 1));
}

#[test]
fn both_ends_of_a_link_are_listed_and_can_be_killed() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    follow(&mut r, primary.port);
    converge(&mut p, &mut r);
    assert_eq!((p.info("connected_clients"), p.info("connected_slaves")), ("1".into(), "1".into()));
    let listed = |c: &mut Client, kind: &str| c.run(&format!("CLIENT LIST TYPE {kind}")).text();
    assert!(listed(&mut p, "replica").contains(" flags=S "), "{}", listed(&mut p, "replica"));
    assert!(listed(&mut r, "master").contains(" flags=M "), "{}", listed(&mut r, "master"));
    for (cuts, (killer, kind)) in [(1, ("p", "replica")), (2, ("r", "master"))] {
        let killer = if killer == "p" { &mut p } else { &mut r };
        killer.expect(&format!("CLIENT KILL TYPE {kind}"), ":1");
        wait_for("a partial sync", SOON, || p.info_int("sync_partial_ok") == cuts);
        converge(&mut p, &mut r);
    }
    assert_eq!(p.info("sync_full"), "1");
}

#[test]
fn a_file_for_the_sync_serves_replicas_that_come_late() {
    let primary = Launch::subject().args(&["--repl-diskless-sync", "no"]).start();
    let mut p = primary.connect();
    every_type(&mut p, true);
    let ours = Launch::subject().args(&["--repl-diskless-load", "on-empty-db"]).start();
    let real = Server::real();
    let (mut a, mut b) = (ours.connect(), real.connect());
    follow(&mut a, primary.port);
    follow(&mut b, primary.port);
    converge(&mut p, &mut a);
    converge(&mut p, &mut b);
    assert!(primary.log().contains("Starting BGSAVE for SYNC with target: disk"));
    let files = std::fs::read_dir(primary.dir()).expect("list the directory").flatten();
    assert!(files.map(|f| f.file_name()).all(|name| name == "server.log"), "the file is gone");
}

#[test]
fn a_full_sync_waits_for_more_replicas() {
    let primary = Launch::subject().args(&["--repl-diskless-sync-delay", "2"]).start();
    let (ours, real) = (Server::subject(), Server::real());
    let (mut p, mut a, mut b) = (primary.connect(), ours.connect(), real.connect());
    every_type(&mut p, true);
    follow(&mut a, primary.port);
    follow(&mut b, primary.port);
    converge(&mut p, &mut a);
    converge(&mut p, &mut b);
    assert_eq!(primary.log().matches("Starting BGSAVE for SYNC").count(), 1, "one snapshot for both");
    assert_eq!(p.info("sync_full"), "2");
}

/// An answer would end up in the middle of the stream.
#[test]
fn a_replica_that_asks_for_anything_is_cut_off() {
    let server = Server::subject();
    for (line, cut) in
        [("PING", true), ("GET k", true), ("REPLCONF ACK 0", false), ("REPLCONF GETACK *", false)]
    {
        let mut replica = server.connect();
        assert!(replica.run("PSYNC ? -1").text().starts_with("FULLRESYNC"), "{line}");
        let attached = |c: &mut Client| c.info("connected_slaves") == "1";
        let mut other = server.connect();
        wait_for("it is listed", SOON, || attached(&mut other));
        replica.send(&line.split(' ').collect::<Vec<_>>());
        if cut {
            wait_for("it is cut off", SOON, || !attached(&mut other));
        } else {
            other.ok("SET k v");
            assert!(attached(&mut other), "{line}");
            drop(replica);
            wait_for("it is gone", SOON, || !attached(&mut other));
        }
    }
}

#[test]
fn a_backlog_without_replicas_is_dropped_in_time() {
    let primary = Launch::subject().args(&["--repl-backlog-ttl", "1"]).start();
    let replica = Server::subject();
    let (mut p, mut r) = (primary.connect(), replica.connect());
    follow(&mut r, primary.port);
    converge(&mut p, &mut r);
    let id = p.info("master_replid");
    r.ok("REPLICAOF NO ONE");
    wait_for("the backlog is freed", SOON, || p.info("repl_backlog_active") == "0");
    assert_ne!(p.info("master_replid"), id);
    // Nothing is known of what is written now, so it must come as a whole.
    p.ok("SET unlogged v");
    follow(&mut r, primary.port);
    converge(&mut p, &mut r);
    assert_eq!(p.info("sync_full"), "2");
}

/// A connection that counts in a key of its own, several commands at a time, until its server is gone.
fn count_until_gone(port: u16, key: &str, acknowledged: &AtomicI64) {
    let mut client = Client::connect(port);
    let batch = encode(&["INCR", key]).repeat(4);
    while client.try_send_raw(&batch).is_ok() {
        for _ in 0..4 {
            match client.try_read() {
                Ok(Reply::Int(n)) => acknowledged.store(n, Ordering::Relaxed),
                _ => return,
            }
        }
    }
}

/// Kills a primary under load and compares what its replicas have with what it has acknowledged. Returns how many
/// writes were acknowledged.
fn kill_and_compare(round: u64) -> i64 {
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    let (mut primary, replicas) = (Server::subject(), [Server::subject(), Server::subject()]);
    let mut clients: Vec<Client> = replicas.iter().map(Server::connect).collect();
    let mut p = primary.connect();
    for replica in &mut clients {
        follow(replica, primary.port);
    }
    // A replica is in sync once it has acknowledged something of the stream: then the primary waits for it.
    for replica in &mut clients {
        wait_for("the link is up", SOON, || linked(replica));
    }
    p.ok("SET begin now");
    p.expect("WAIT 2 20000", ":2");
    let acknowledged: [AtomicI64; 4] = Default::default();
    let total = || acknowledged.iter().map(|n| n.load(Ordering::Relaxed)).sum::<i64>();
    std::thread::scope(|scope| {
        for (key, acknowledged) in KEYS.iter().zip(&acknowledged) {
            let port = primary.port;
            scope.spawn(move || count_until_gone(port, key, acknowledged));
        }
        let enough = 500 + i64::try_from(round % 7).expect("below seven") * 300;
        wait_for("the load runs", Duration::from_secs(60), || total() >= enough);
        primary.kill();
    });
    for replica in &mut clients {
        wait_for("the link is down", SOON, || !linked(replica));
        // What has arrived is applied before the replica tries to connect again.
        wait_for("it has applied what it has read", SOON, || {
            replica.info("slave_read_repl_offset") == replica.info("slave_repl_offset")
                && replica.run("ROLE").to_string().contains("\"connect")
        });
        replica.ok("REPLICAOF NO ONE");
        for (key, acknowledged) in KEYS.iter().zip(&acknowledged) {
            let (has, acknowledged) =
                (replica.run(&format!("GET {key}")).text(), acknowledged.load(Ordering::Relaxed));
            let has: i64 = has.parse().unwrap_or(0);
            assert!(has >= acknowledged, "round {round}: {key} is {has}, {acknowledged} was acknowledged");
        }
    }
    total()
}

/// Three kills, or as many as KILLS says.
#[test]
fn what_a_primary_acknowledged_outlives_it() {
    let _serial = heavy();
    let kills = std::env::var("KILLS").map_or(3, |n| n.parse().expect("a number of kills"));
    let acknowledged: i64 = (0..kills).map(kill_and_compare).sum();
    println!("{kills} kills, {acknowledged} acknowledged writes, none lost");
}

#[test]
fn a_replica_that_takes_nothing_holds_up_replies_only_for_a_moment() {
    let (primary, replica) = (Server::subject(), Server::real());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    let proxy = Proxy::to(primary.port);
    follow(&mut r, proxy.port);
    converge(&mut p, &mut r);
    // A limit that it may exceed for longer than milliseconds can tell.
    p.ok("CONFIG SET client-output-buffer-limit 'replica 0 1 18446744073709552'");
    proxy.stall(true);
    // More than all sockets on the way hold.
    let value = "x".repeat(100_000);
    let began = Instant::now();
    for reply in p.pipeline(&(0..500).map(|i| format!("SET k:{} {value}", i % 5)).collect::<Vec<_>>()) {
        assert_eq!(reply.text(), "OK");
    }
    p.ok("SET last one");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(p.info("connected_slaves"), "1");
    proxy.stall(false);
    converge(&mut p, &mut r);
    assert_eq!(p.info("sync_full"), "1");
    // It can be switched off and on while replicas are there.
    for on in ["no", "yes"] {
        p.ok(&format!("CONFIG SET reply-after-handover {on}"));
        p.ok(&format!("SET after {on}"));
        converge(&mut p, &mut r);
    }
}

#[test]
fn writes_are_refused_the_moment_a_replica_is_gone() {
    let (primary, mut replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    follow(&mut r, primary.port);
    converge(&mut p, &mut r);
    p.ok("CONFIG SET min-replicas-to-write 1");
    p.ok("SET k v");
    replica.kill();
    wait_for("the replica is gone", SOON, || p.info("connected_slaves") == "0");
    p.expect("SET k v", "-NOREPLICAS Not enough good replicas to write.");
}

/// Two neighbours: a replica that goes by itself, and a transaction that was queued while it was there.
#[test]
fn a_queued_transaction_is_refused_when_the_replica_is_gone() {
    for primary in [Server::subject(), Server::real()] {
        let replica = Server::subject();
        let (mut p, mut r) = (primary.connect(), replica.connect());
        follow(&mut r, primary.port);
        converge(&mut p, &mut r);
        p.ok("CONFIG SET min-replicas-to-write 1");
        wait_for("the replica is counted", SOON, || p.info("min_slaves_good_slaves") == "1");
        p.ok("SET k v");
        p.ok("MULTI");
        p.expect("SET k w", "+QUEUED");
        let mut judge = primary.connect();
        r.ok("REPLICAOF NO ONE");
        wait_for("the replica is gone", SOON, || judge.info("connected_slaves") == "0");
        p.expect(
            "EXEC",
            "-EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write.",
        );
        p.expect("SET k w", "-NOREPLICAS Not enough good replicas to write.");
        p.expect("GET k", "\"v\"");
        // A client that needs none writes on.
        p.ok("CONFIG SET min-replicas-to-write 0");
        p.ok("SET k w");
    }
}

/// What the command of a blocked client wrote when it was served counts for the WAIT behind it.
#[test]
fn wait_behind_a_blocked_command_waits_for_what_it_wrote() {
    let (primary, replica) = (Server::subject(), Server::real());
    let (mut p, mut r, mut popper) = (primary.connect(), replica.connect(), primary.connect());
    let proxy = Proxy::to(primary.port);
    follow(&mut r, proxy.port);
    converge(&mut p, &mut r);
    popper.send(&["BLPOP", "list", "0"]);
    wait_for("it is blocked", SOON, || p.info_int("blocked_clients") == 1);
    proxy.stall(true);
    p.expect("RPUSH list v", ":1");
    assert_eq!(popper.read().to_string(), "[\"list\", \"v\"]");
    popper.expect("WAIT 1 300", ":0");
    proxy.stall(false);
    popper.expect("WAIT 1 20000", ":1");
}

#[test]
fn commands_of_the_primary_are_counted() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    follow(&mut r, primary.port);
    converge(&mut p, &mut r);
    r.ok("CONFIG RESETSTAT");
    p.ok("SET k v");
    p.expect("LPUSH l element", ":1");
    converge(&mut p, &mut r);
    let stats = r.run("INFO commandstats").text();
    for name in ["set", "lpush"] {
        assert!(stats.contains(&format!("cmdstat_{name}:calls=1,")), "{stats}");
    }
}

#[test]
fn a_replica_may_ask_for_functions_alone() {
    let primary = Server::subject();
    let mut p = primary.connect();
    every_type(&mut p, false);
    p.expect("REPLCONF rdb-filter-only keys", "-ERR Unsupported rdb-filter-only option: keys");
    for (option, keys) in [("--functions-rdb", false), ("--rdb", true)] {
        let dir = fresh_dir();
        let out = std::process::Command::new("redis-cli")
            .args(["-p", &primary.port.to_string(), option])
            .arg(dir.join("dump.rdb"))
            .output()
            .expect("run redis-cli");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let loaded = Launch::real().dir(&dir).start();
        assert_eq!(loaded.connect().run("DBSIZE").int() > 0, keys, "{option}");
        drop(loaded);
        std::fs::remove_dir_all(dir).expect("remove the directory");
    }
}

#[test]
fn another_history_is_begun_by_hand() {
    for launch in [Launch::subject(), Launch::real()] {
        let primary = launch.start();
        let replica = Server::real();
        let (mut p, mut r) = (primary.connect(), replica.connect());
        follow(&mut r, primary.port);
        converge(&mut p, &mut r);
        let before = p.info("master_replid");
        p.ok("DEBUG CHANGE-REPL-ID");
        assert_ne!(p.info("master_replid"), before);
        assert_eq!(p.info("master_replid2"), "0".repeat(40));
    }
}

#[test]
fn a_sync_that_waits_for_others_is_shared_and_each_state_has_its_name() {
    for launch in [Launch::subject(), Launch::real()] {
        let primary = launch.args(&["--repl-diskless-sync-delay", "1"]).start();
        let (one, two) = (Server::subject(), Server::real());
        let (mut p, mut a, mut b) = (primary.connect(), one.connect(), two.connect());
        p.ok("SET k v");
        for replica in [&mut a, &mut b] {
            follow(replica, primary.port);
        }
        wait_for("both wait", SOON, || p.info("connected_slaves") == "2");
        for line in ["slave0", "slave1"] {
            assert!(p.info(line).contains("state=wait_bgsave,offset=0,lag=0"), "{}", p.info(line));
        }
        for replica in [&mut a, &mut b] {
            let role = replica.run("ROLE").to_string();
            assert!(role.contains("\"handshake\", :-1]"), "{role}");
            assert_eq!(replica.info("master_sync_in_progress"), "0");
        }
        assert_eq!(p.run("ROLE").items()[2], Reply::Array(Vec::new()), "they are not in sync yet");
        converge(&mut p, &mut a);
        converge(&mut p, &mut b);
        wait_for("both are online", SOON, || {
            ["slave0", "slave1"].iter().all(|line| p.info(line).contains("state=online"))
        });
        let begun = primary.log().matches("Starting BGSAVE for SYNC").count();
        assert_eq!(begun, 1, "{}", primary.log());
    }
}

/// A replica must speak within `repl-timeout` once its RDB was sent. A slow one cannot while the kernel still holds
/// megabytes for it: it was cut off, asked again, and never got in step.
#[test]
fn an_rdb_counts_as_sent_when_little_of_it_is_on_its_way() {
    const SIZE: usize = 160 * 100_000;
    for diskless in ["yes", "no"] {
        let args =
            ["--repl-diskless-sync", diskless, "--repl-diskless-sync-delay", "0", "--rdbcompression", "no"];
        let primary = Launch::subject().args(&args).start();
        let mut p = primary.connect();
        p.ok("DEBUG POPULATE 160 k 100000");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(32 * 1024).expect("a small buffer");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], primary.port)).into()).expect("connect");
        let mut replica = TcpStream::from(socket);
        replica.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        replica.write_all(b"REPLCONF capa eof\r\nPSYNC ? -1\r\n").expect("ask for everything");
        let mut chunk = vec![0; 64 * 1024];
        // Up to a megabyte at a time.
        let mut take = || (0..16).map_while(|_| replica.read(&mut chunk).ok()).sum::<usize>();
        let mut taken = 0;
        wait_for("it was sent", SOON, || {
            taken += take();
            p.info("slave0").contains("state=online")
        });
        let mut held = 0;
        wait_for("it has arrived", SOON, || {
            held += take();
            taken + held >= SIZE
        });
        assert!(held < 1_500_000, "{held} bytes were still on their way");
    }
}

/// Redis looks at nobody while it loads so little: its clients wait, and are not told of it.
#[test]
fn a_short_load_is_not_seen_by_the_clients_of_a_replica() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    for i in 0..2000 {
        p.cmd(&["SET", &format!("key:{i}"), "value"]);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut looker = replica.connect();
            let mut looks = 0;
            while !stop.load(Ordering::Relaxed) {
                let keys = looker.run("DBSIZE").to_string();
                assert!(keys.starts_with(':'), "{keys}");
                looks += 1;
            }
            looks
        });
        for _ in 0..10 {
            follow(&mut r, primary.port);
            wait_for("it is linked", SOON, || linked(&mut r));
            r.ok("REPLICAOF NO ONE");
            // No history that could be continued.
            r.ok("SET other history");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(looker.join().expect("no error was answered") > 10);
    });
}
