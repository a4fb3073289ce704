//! Directives whose effect shows outside the protocol: in ps, on cores, in addresses, on disks and in the log.

use crate::common::client::Client;
use crate::common::server::{Launch, Server, fresh_dir, real, subject};
use crate::common::{SOON, wait_for};
use std::fs;
use std::process::Command;
use std::time::Instant;

/// What ps shows.
fn title(server: &Server) -> String {
    let bytes = fs::read(format!("/proc/{}/cmdline", server.pid())).expect("the command line");
    String::from_utf8_lossy(&bytes).trim_end_matches(['\0', ' ']).replace('\0', " ")
}

fn follow(replica: &mut Client, port: u16) {
    replica.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
    wait_for("the link is up", SOON, || replica.info("master_link_status") == "up");
}

#[test]
fn ps_shows_the_title_that_the_template_says() {
    for (launch, program) in [(Launch::subject(), subject()), (Launch::real(), real())] {
        let program = program.display().to_string();
        let server = launch.cluster().start();
        let mut client = server.connect();
        let port = server.port;
        assert_eq!(title(&server), format!("{program} 127.0.0.1:{port} [cluster]"));
        client.cmd(&[
            "CONFIG",
            "SET",
            "proc-title-template",
            "{port}+{tls-port} <{config-file}> {server-mode} ",
        ]);
        assert_eq!(title(&server), format!("{port}+0 <-> [cluster]"));
        // Longer than the command line was, and still whole: Redis shows 255 bytes.
        let long = "x".repeat(245);
        client.cmd(&["CONFIG", "SET", "proc-title-template", &format!("{long}{{port}}")]);
        assert_eq!(title(&server), format!("{long}{port}"));
        client.expect("CONFIG SET proc-title-template {none}", "-ERR CONFIG SET failed (possibly related to argument 'proc-title-template') - template format is invalid or contains unknown variables");
    }
    let untouched = Launch::subject().args(&["--set-proc-title", "no"]).start();
    assert!(title(&untouched).contains("--set-proc-title no"), "{}", title(&untouched));
}

#[test]
fn links_come_from_the_address_that_is_bound() {
    for launch in [Launch::subject(), Launch::real()] {
        let primary = Launch::subject().start();
        let replica = launch.args(&["--bind-source-addr", "127.0.0.2"]).start();
        let (mut p, mut r) = (primary.connect(), replica.connect());
        follow(&mut r, primary.port);
        assert!(p.info("slave0").starts_with("ip=127.0.0.2,"), "{}", p.info("slave0"));
        r.ok("CONFIG SET bind-source-addr 127.0.0.3");
        r.ok("REPLICAOF NO ONE");
        follow(&mut r, primary.port);
        assert!(p.info("slave0").starts_with("ip=127.0.0.3,"), "{}", p.info("slave0"));
    }
}

#[test]
fn links_of_the_bus_come_from_the_address_that_is_bound() {
    for launch in [Launch::subject(), Launch::real()] {
        let bound = launch.cluster().args(&["--bind-source-addr", "127.0.0.2"]).start();
        let other = Launch::subject().cluster().start();
        let (mut b, mut o) = (bound.connect(), other.connect());
        b.ok(&format!("CLUSTER MEET 127.0.0.1 {}", other.port));
        // The other one knows it by the address that its link came from.
        let seen = format!(" 127.0.0.2:{}@", bound.port);
        wait_for("they have met", SOON, || o.run("CLUSTER NODES").text().contains(&seen));
    }
}

#[test]
fn a_silent_node_is_pinged_as_often_as_the_directive_says() {
    let quick = ["--cluster-ping-interval", "100", "--cluster-node-timeout", "60000"];
    let nodes = [0, 1].map(|_| Launch::subject().cluster().args(&quick).start());
    let mut client = nodes[0].connect();
    client.ok(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[1].port));
    let mut pings = || {
        let text = client.run("CLUSTER INFO").text();
        let field = text.lines().find_map(|line| line.strip_prefix("cluster_stats_messages_ping_sent:"));
        field.map_or(0, |count| count.trim().parse::<u64>().expect("a number"))
    };
    wait_for("they have met", SOON, || pings() >= 2);
    let (begin, first) = (Instant::now(), pings());
    wait_for("twenty pings", SOON, || pings() >= first + 20);
    // At random a node is pinged once a second only.
    assert!(begin.elapsed().as_secs() < 12, "{:?}", begin.elapsed());
}

#[test]
fn channels_of_slots_follow_the_directive_when_the_cluster_is_down() {
    for launch in [Launch::subject(), Launch::real()] {
        let server = launch.cluster().start();
        let mut client = server.connect();
        client.ok("CLUSTER ADDSLOTSRANGE 0 16000");
        wait_for("the cluster is down", SOON, || {
            client.run("CLUSTER INFO").text().contains("cluster_state:fail")
        });
        // {a} is slot 15495.
        client.expect("SPUBLISH {a} x", ":0");
        client.ok("CONFIG SET cluster-allow-pubsubshard-when-down no");
        client.expect("SPUBLISH {a} x", "-CLUSTERDOWN The cluster is down");
        client.expect("SSUBSCRIBE {a}", "-CLUSTERDOWN The cluster is down");
    }
}

/// A replica whose saves fail: a folder stands where the file would go.
fn replica_without_a_disk(launch: Launch, primary: &Server, settings: &[&str]) -> Server {
    let replica = launch.args(&["--save", "3600 1"]).args(settings).start();
    let mut client = replica.connect();
    follow(&mut client, primary.port);
    fs::create_dir(replica.dir().join("dump.rdb")).expect("make a folder");
    fs::write(replica.dir().join("dump.rdb/file"), "").expect("fill it");
    client.run("BGSAVE");
    wait_for("the save has failed", SOON, || client.info("rdb_last_bgsave_status") == "err");
    replica
}

#[test]
fn a_replica_that_cannot_write_to_its_disk_ends() {
    for launch in [Launch::subject(), Launch::real()] {
        // A file in memory, so that the link itself needs no disk.
        let primary = Launch::subject().start();
        let mut replica = replica_without_a_disk(launch, &primary, &["--repl-diskless-load", "swapdb"]);
        primary.connect().ok("SET k v");
        assert!(!replica.wait_exit().success());
        assert!(replica.log().contains("Replica was unable to write command to disk."), "{}", replica.log());
    }
}

#[test]
fn a_replica_may_go_on_without_its_disk() {
    for launch in [Launch::subject(), Launch::real()] {
        let primary = Launch::subject().start();
        let settings = ["--repl-diskless-load", "swapdb", "--replica-ignore-disk-write-errors", "yes"];
        let replica = replica_without_a_disk(launch, &primary, &settings);
        let mut client = replica.connect();
        primary.connect().ok("SET k v");
        wait_for("it is applied", SOON, || client.run("GET k").to_string() == "\"v\"");
        primary.connect().ok("SET k w");
        wait_for("the next, too", SOON, || client.run("GET k").to_string() == "\"w\"");
        let line = "Replica is applying a command even though it is unable to write to disk.";
        assert_eq!(replica.log().matches(line).count(), 1, "{}", replica.log());
    }
}

#[test]
fn what_clients_sent_stays_out_of_the_log() {
    for (hidden, quoted) in [("no", true), ("yes", false)] {
        let primary = Launch::subject().start();
        let writable = ["--replica-read-only", "no", "--hide-user-data-from-log", hidden];
        let replica = Launch::subject().args(&writable).start();
        let (mut p, mut r) = (primary.connect(), replica.connect());
        follow(&mut r, primary.port);
        r.ok("SET secret-key string");
        p.run("LPUSH secret-key element");
        wait_for("the error is logged", SOON, || replica.log().contains("== CRITICAL =="));
        let log = replica.log();
        assert!(log.contains("WRONGTYPE"), "{log}");
        assert_eq!(log.to_lowercase().contains("'lpush'"), quoted, "{log}");
        // A file that breaks off within a value names the key.
        r.ok("REPLICAOF NO ONE");
        r.cmd(&["SET", "secret-key", &"value ".repeat(2000)]);
        r.ok("CONFIG SET rdbcompression no");
        r.ok("SAVE");
        let file = replica.dir().join("dump.rdb");
        let whole = fs::read(&file).expect("read the file");
        let folder = fresh_dir();
        fs::write(folder.join("dump.rdb"), &whole[..whole.len() / 2]).expect("write half of it");
        let ended = Command::new(subject())
            .args(["--port", "0", "--unixsocket", "s", "--hide-user-data-from-log", hidden, "--dir"])
            .arg(&folder)
            .output()
            .expect("run the server");
        let log = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(!ended.status.success(), "{log}");
        assert_eq!(log.contains("secret-key"), quoted, "{log}");
        fs::remove_dir_all(&folder).expect("remove the folder");
    }
}
