//! FAILOVER: a primary hands over to its replica, ours to a real one and back. Judged by a real Redis first.

use crate::common::client::Client;
use crate::common::proxy::Proxy;
use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use crate::workload::{Load, digest};
use std::time::Duration;

/// A primary with a replica that is online.
struct Pair {
    primary: Server,
    replica: Server,
    p: Client,
    r: Client,
}

impl Pair {
    fn new(primary: Launch, replica: Launch) -> Pair {
        let quick = ["--repl-diskless-sync-delay", "0"];
        let (primary, replica) = (primary.args(&quick).start(), replica.args(&quick).start());
        let (mut p, mut r) = (primary.connect(), replica.connect());
        p.ok("SET k v");
        r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        wait_for("the replica is online", SOON, || p.info("slave0").contains("state=online"));
        Pair { primary, replica, p, r }
    }

    fn state(&mut self) -> String {
        self.p.info("master_failover_state")
    }
}

fn pairs() -> [(&'static str, Launch, Launch); 3] {
    [
        ("ours to ours", Launch::subject(), Launch::subject()),
        ("ours to a real one", Launch::subject(), Launch::real()),
        ("a real one to ours", Launch::real(), Launch::subject()),
    ]
}

#[test]
fn the_parts_change_without_a_full_sync_or_a_lost_write() {
    for (what, primary, replica) in pairs() {
        let mut pair = Pair::new(primary, replica);
        let load = Load::start(pair.primary.port, 2);
        wait_for("writes", SOON, || load.written() > 100);
        pair.p.ok("FAILOVER");
        wait_for(what, SOON, || pair.p.info("role") == "slave" && pair.r.info("role") == "master");
        wait_for("the new link", SOON, || pair.p.info("master_link_status") == "up");
        assert_eq!(pair.state(), "no-failover", "{what}");
        assert_eq!(pair.p.info("master_port"), pair.replica.port.to_string(), "{what}");
        drop(load);
        // The writer that was held is refused now; what was acknowledged before is on both.
        pair.p.expect("SET k w", "-READONLY You can't write against a read only replica.");
        pair.r.ok("SET after w");
        wait_for("the same data", SOON, || digest(&mut pair.p) == digest(&mut pair.r));
        assert_eq!(pair.r.info("sync_partial_ok"), "1", "{what}");
        let (old, new) = (pair.primary.log(), pair.replica.log());
        assert!(old.contains("FAILOVER requested to any replica."), "{what}: {old}");
        let synced = format!("Failover target 127.0.0.1:{} is synced, failing over.", pair.replica.port);
        assert!(old.contains(&synced), "{what}: {old}");
        assert!(new.contains("Failover request received for replid "), "{what}: {new}");
        assert!(new.contains("MASTER MODE enabled (failover request from 'id="), "{what}: {new}");
        // And back again, to the replica named.
        let target = format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 10000", pair.primary.port);
        wait_for("the former primary is online", SOON, || pair.r.info("slave0").contains("state=online"));
        pair.r.ok(&target);
        wait_for("back", SOON, || pair.p.info("role") == "master" && pair.r.info("role") == "slave");
        pair.p.ok("SET k back");
        wait_for("the same data", SOON, || digest(&mut pair.p) == digest(&mut pair.r));
    }
}

#[test]
fn a_replica_that_never_catches_up_is_not_handed_over_to() {
    for (what, primary, replica) in pairs() {
        let mut pair = Pair::new(primary, replica);
        let port = pair.replica.port;
        pair.replica.signal("STOP");
        pair.p.ok("SET k 1");
        pair.p.ok("FAILOVER TIMEOUT 300");
        assert_eq!(pair.state(), "waiting-for-sync", "{what}");
        let own = pair.primary.port;
        let mut writer = pair.primary.connect();
        writer.send(&["SET", "held", "1"]);
        for (command, reply) in [
            ("FAILOVER", "-ERR FAILOVER already in progress."),
            ("REPLICAOF NO ONE", "-ERR REPLICAOF not allowed while failing over."),
            ("GET k", "\"1\""),
        ] {
            pair.p.expect(command, reply);
        }
        wait_for("the time is up", SOON, || pair.state() == "no-failover");
        // The write that waited goes through: the node is the primary still.
        assert_eq!(writer.read().to_string(), "+OK", "{what}");
        assert!(
            pair.primary
                .log()
                .contains("FAILOVER to any replica aborted: Replica never caught up before timeout")
        );
        pair.p.ok(&format!("FAILOVER TO 127.0.0.1 {port} TIMEOUT 60000"));
        pair.p.ok("FAILOVER ABORT");
        pair.p.ok("SET k 2");
        let line = format!("FAILOVER to 127.0.0.1:{port} aborted: Failover manually aborted");
        assert!(pair.primary.log().contains(&line), "{what}");
        for (command, reply) in [
            (format!("FAILOVER TO 127.0.0.1 {own}"), "-ERR FAILOVER target HOST and PORT is not a replica."),
            (
                format!("FAILOVER TO 127.0.0.1 {port} FORCE"),
                "-ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
            ),
            ("FAILOVER ABORT".to_owned(), "-ERR No failover in progress."),
        ] {
            pair.p.expect(&command, reply);
        }
        pair.replica.signal("CONT");
        wait_for("the same data", SOON, || digest(&mut pair.p) == digest(&mut pair.r));
    }
}

#[test]
fn force_hands_over_when_the_time_is_up_and_abort_takes_it_back() {
    for (what, primary, replica) in pairs() {
        let mut pair = Pair::new(primary, replica);
        let port = pair.replica.port;
        pair.replica.signal("STOP");
        pair.p.ok("SET k 1");
        pair.p.ok(&format!("FAILOVER TO 127.0.0.1 {port} TIMEOUT 100 FORCE"));
        wait_for("it is forced", SOON, || pair.state() == "failover-in-progress");
        assert_eq!(pair.p.info("role"), "slave", "{what}");
        pair.p.expect("SET k 2", "-READONLY You can't write against a read only replica.");
        pair.p.ok("FAILOVER ABORT");
        assert_eq!((pair.state(), pair.p.info("role")), ("no-failover".into(), "master".into()), "{what}");
        pair.p.ok("SET k 3");
        pair.replica.signal("CONT");
        wait_for("it follows again", SOON, || {
            pair.r.info("master_link_status") == "up" && digest(&mut pair.p) == digest(&mut pair.r)
        });
        let line = format!("FAILOVER to 127.0.0.1:{port} time out exceeded, failing over.");
        assert!(pair.primary.log().contains(&line), "{what}");
    }
}

#[test]
fn a_target_that_is_no_replica_of_this_history_refuses() {
    for (what, primary, replica) in pairs() {
        let mut pair = Pair::new(primary, replica);
        let mut stray = pair.replica.connect();
        stray.expect("PSYNC x 1 FAILOVER", "-ERR PSYNC FAILOVER replid must match my replid.");
        let mut stray = pair.primary.connect();
        stray.expect("PSYNC x 1 FAILOVER", "-ERR PSYNC FAILOVER can't be sent to a master.");
        // The replica is gone from this primary before it hears of the failover, and refuses to take over.
        pair.replica.signal("STOP");
        pair.p.ok("SET k 1");
        pair.p.ok(&format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 100 FORCE", pair.replica.port));
        wait_for("it is forced", SOON, || pair.state() == "failover-in-progress");
        pair.r.send(&["REPLICAOF", "NO", "ONE"]);
        pair.replica.signal("CONT");
        assert_eq!(pair.r.read().to_string(), "+OK", "{what}");
        wait_for("the roles are clear", SOON, || pair.state() == "no-failover");
        // Whichever came first on the replica: either it took over, or both are primaries.
        assert_eq!(pair.r.info("role"), "master", "{what}");
        let log = pair.primary.log();
        let refused = log.contains("aborted: Failover target rejected psync request");
        assert_eq!(pair.p.info("role"), if refused { "master" } else { "slave" }, "{what}: {log}");
    }
}

#[test]
fn a_replica_behind_a_slow_link_is_waited_for() {
    for (what, primary, replica) in pairs() {
        let pair = Pair::new(primary, replica);
        let Pair { primary, replica: _replica, mut p, mut r } = pair;
        let proxy = Proxy::to(primary.port);
        proxy.delay(Duration::from_millis(100));
        r.ok(&format!("REPLICAOF 127.0.0.1 {}", proxy.port));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        wait_for("the replica is online", SOON, || p.info("slave0").contains("state=online"));
        p.ok("FAILOVER");
        wait_for(what, SOON, || r.info("role") == "master" && p.info("master_link_status") == "up");
        p.expect("GET k", "\"v\"");
    }
}
