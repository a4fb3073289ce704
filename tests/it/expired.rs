//! Keys whose time has come, where the server itself must notice.

use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Nobody tells a replica that a key of its own has ended.
#[test]
fn keys_that_a_writable_replica_makes_die_there() {
    let (primary, replica) =
        (Server::subject(), Launch::subject().args(&["--replica-read-only", "no"]).start());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
    p.ok("SET theirs v PX 86400000");
    wait_for("the key arrives", SOON, || r.run("EXISTS theirs").int() == 1);
    r.ok("SET set v PX 50");
    r.ok("SETEX setex 1 v");
    r.ok("SET later v");
    r.expect("PEXPIRE later 50", ":1");
    r.expect("RPUSH list a", ":1");
    r.expect("PEXPIRE list 50", ":1");
    r.ok("SET kept v PX 50");
    r.expect("PERSIST kept", ":1");
    wait_for("the keys are gone and not only hidden", SOON, || r.run("DBSIZE").int() == 2);
    r.expect("GET kept", "\"v\"");
    r.expect("GET theirs", "\"v\"");
    assert_eq!(r.info("expired_keys"), "4");
}

#[test]
fn a_scan_deletes_the_dead_keys_that_it_meets() {
    let server = Server::subject();
    let mut c = server.connect();
    c.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    c.ok("SET stays v");
    for i in 0..50 {
        c.ok(&format!("SET dead:{i} v PX 1"));
    }
    wait_for("the scans have met all of them", SOON, || {
        c.run("SCAN 0 COUNT 1000");
        c.run("DBSIZE").int() == 1
    });
    assert_eq!(c.info("expired_keys"), "50");
}

/// Neighbours: RANDOMKEY deletes as SCAN does, KEYS only hides, and on a replica none of them deletes.
#[test]
fn randomkey_deletes_the_dead_keys_that_it_meets_and_a_replica_none() {
    for server in [Server::subject(), Server::real()] {
        let replica = Server::subject();
        let (mut c, mut r) = (server.connect(), replica.connect());
        r.ok(&format!("REPLICAOF 127.0.0.1 {}", server.port));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        for (at, walk) in ["RANDOMKEY", "SCAN 0 COUNT 1000"].into_iter().enumerate() {
            c.ok("FLUSHALL");
            c.ok("DEBUG SET-ACTIVE-EXPIRE 0");
            c.ok("SET stays v");
            c.pipeline(&(0..20).map(|i| format!("SET dead:{i} v PX 300")).collect::<Vec<_>>());
            wait_for("the replica has them", SOON, || r.run("DBSIZE").int() == 21);
            wait_for("they have died", SOON, || r.run("EXISTS dead:19").int() == 0);
            for look in ["KEYS *", "SCAN 0 COUNT 1000", "RANDOMKEY"] {
                assert!(!r.run(look).to_string().contains("dead"), "{look}");
            }
            r.expect("DBSIZE", ":21");
            assert_eq!(c.run("KEYS *").items().len(), 1);
            c.expect("DBSIZE", ":21");
            wait_for("the primary has met all of them", SOON, || {
                c.run(walk);
                c.run("DBSIZE").int() == 1
            });
            assert_eq!(c.info_int("expired_keys"), 20 * (at as i64 + 1), "{walk}");
            wait_for("and says so", SOON, || r.run("DBSIZE").int() == 1);
        }
    }
}

/// A replica that goes on where the primary's file stops has the keys still that ended meanwhile.
#[test]
fn a_primary_tells_which_keys_ended_before_it_loaded_them() {
    let (mut primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
    p.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    p.ok("SET stays v");
    p.ok("SET dead v PX 300");
    p.ok("SELECT 3");
    p.ok("SET dead v PX 300");
    wait_for("the keys arrive", SOON, || {
        r.info_int("slave_repl_offset") == p.info_int("master_repl_offset") && r.run("DBSIZE").int() == 2
    });
    p.send(&["SHUTDOWN", "SAVE"]);
    primary.wait_exit();
    // A hidden key reads as missing and is counted still.
    wait_for("the key has ended", SOON, || r.run("EXISTS dead").int() == 0);
    r.expect("DBSIZE", ":2");
    primary.start_again();
    let mut p = primary.connect();
    wait_for("the link is up again", SOON, || r.info("master_link_status") == "up");
    wait_for("the replica is told", SOON, || r.run("DBSIZE").int() == 1);
    r.ok("SELECT 3");
    wait_for("in the other database, too", SOON, || r.run("DBSIZE").int() == 0);
    assert_eq!((p.info("sync_full"), p.info("sync_partial_ok")), ("0".to_owned(), "1".to_owned()));
    assert_eq!(p.info("rdb_last_load_keys_expired"), "2");
}

/// How long the threads of workers have run.
fn worked(server: &Server) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the server's threads");
    let tasks = tasks.flatten().map(|task| task.path());
    let is_worker =
        |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("worker-"));
    let ran = |task: PathBuf| -> u64 {
        let text = fs::read_to_string(task.join("schedstat")).expect("a thread's times");
        text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds")
    };
    Duration::from_nanos(tasks.filter(is_worker).map(ran).sum())
}

/// It takes a share of the time as long as keys die, not a number of keys; and a worker that sleeps wakes up for it. At
/// most one of a hundred is left after two seconds: half of the worker's time is for them, so they may cost it one.
#[test]
fn one_worker_deletes_many_dead_keys_in_little_time() {
    let server = Launch::subject().args(&["--io-threads", "1"]).start();
    let mut client = server.connect();
    client.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    let lines: Vec<String> = (0..200_000).map(|i| format!("SET k:{i} v PX 1")).collect();
    for part in lines.chunks(2000) {
        client.pipeline(part);
    }
    assert_eq!(client.info_int("expired_keys"), 0);
    let before = worked(&server);
    client.ok("DEBUG SET-ACTIVE-EXPIRE 1");
    // Nothing else wakes the worker meanwhile.
    client.expect("BLPOP none 3", "nil-array");
    let gone = client.info_int("expired_keys");
    assert!(gone > 60_000, "{gone}");
    wait_for("one of a hundred is left", SOON, || client.info_int("expired_keys") >= 198_000);
    let cost = worked(&server).saturating_sub(before);
    assert!(cost < Duration::from_secs(1), "{cost:?}");
}

/// A transaction is broken by a watched key that dies before EXEC, also where nobody may delete it (on a replica), and
/// not by one that was dead already, however it goes.
#[test]
fn exec_looks_whether_watched_keys_have_died() {
    for real in [false, true] {
        let server = || if real { Server::real() } else { Server::subject() };
        let (primary, replica) = (server(), server());
        let (mut p, mut r, mut judge) = (primary.connect(), replica.connect(), replica.connect());
        r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        p.ok("DEBUG SET-ACTIVE-EXPIRE 0");
        let mut round = |on_replica: bool, dead: bool, then: &[&str]| {
            p.ok("SET k v PX 300");
            assert_eq!(p.run("WAIT 1 10000").int(), 1);
            // To look at the primary would delete it there.
            let mut dies = || wait_for("it has died", SOON, || judge.run("EXISTS k").int() == 0);
            let watcher = if on_replica { &mut r } else { &mut p };
            if dead {
                dies();
                watcher.ok("WATCH k");
            } else {
                watcher.ok("WATCH k");
                dies();
            }
            p.pipeline(then);
            assert_eq!(p.run("WAIT 1 10000").int(), 1);
            let watcher = if on_replica { &mut r } else { &mut p };
            watcher.pipeline(&["MULTI", "ECHO x", "EXEC"])[2].to_string()
        };
        let (runs, broken) = ("[\"x\"]", "nil-array");
        for on_replica in [false, true] {
            for (dead, then, result) in [
                (false, &[][..], broken),
                (true, &[], runs),
                (true, &["GET k"], runs),
                (true, &["FLUSHALL"], runs),
                (true, &["SWAPDB 0 1"], runs),
                (true, &["SET k w"], broken),
                (true, &["GET k", "SET k w"], broken),
            ] {
                assert_eq!(round(on_replica, dead, then), result, "{real} {on_replica} {dead} {then:?}");
            }
        }
    }
}
