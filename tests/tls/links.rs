//! Links between servers over TLS, with real Redis at the other end: replication, MIGRATE, the cluster bus, Sentinel.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::client::Client;
use crate::common::server::{Launch, Server, free_port, fresh_dir, subject};
use crate::common::{SOON, light, wait_for};

use super::{
    LONG, Secure, certificates, cli, cli_with, directives_from, file, make_certificates, newer_certificates,
    openssl, ours, text, with_tls,
};

#[test]
fn replication_over_tls_both_ways_with_a_real_redis() {
    let _guard = light();
    let pairs: [(fn() -> Launch, fn() -> Launch); 3] = [
        (Launch::subject, Launch::real),
        (Launch::real, Launch::subject),
        (Launch::subject, Launch::subject),
    ];
    for (primary, replica) in pairs {
        let (primary, port) = with_tls(primary(), &["--tls-replication", "yes"]);
        let (replica, replica_port) = with_tls(replica(), &["--tls-replication", "yes"]);
        let (mut p, mut r) = (primary.connect(), replica.connect());
        // More than any buffer on the way holds.
        p.run(&format!("SETRANGE big {} x", 8 << 20));
        for i in 0..2000 {
            p.ok(&format!("SET key:{i} {}", "v".repeat(200)));
        }
        r.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        assert_eq!(r.run("DBSIZE"), p.run("DBSIZE"));
        // The replica tells the port that speaks TLS.
        wait_for("the replica is listed", SOON, || {
            p.info("slave0").contains(&format!("ip=127.0.0.1,port={replica_port},state=online"))
        });
        p.run(&format!("SETRANGE other {} y", 5 << 20));
        assert_eq!(p.run("WAIT 1 20000").int(), 1);
        assert_eq!(r.run("STRLEN other").int(), (5 << 20) + 1);
        // A link that is cut goes on from where it was.
        let full = p.info("sync_full");
        p.run("CLIENT KILL TYPE replica");
        wait_for("it is back", SOON, || p.info("sync_partial_ok") != "0");
        p.ok("SET after cut");
        wait_for("the replica caught up", SOON, || r.run("GET after").text() == "cut");
        assert_eq!(p.info("sync_full"), full);
    }
}

#[test]
fn a_replica_that_speaks_no_tls_is_not_served_on_the_tls_port() {
    let _guard = light();
    let (primary, port) = ours(&[]);
    let plain = Server::subject();
    let mut r = plain.connect();
    r.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
    wait_for("the primary says why", SOON, || {
        primary.log().contains("Error accepting a client connection: received corrupt message")
    });
    assert_eq!(r.info("master_link_status"), "down");
}

#[test]
fn migrate_over_tls_both_ways_with_a_real_redis() {
    let _guard = light();
    let (ours, our_port) = ours(&["--tls-cluster", "yes"]);
    let (theirs, their_port) = with_tls(Launch::real(), &["--tls-cluster", "yes"]);
    let (mut a, mut b) = (ours.connect(), theirs.connect());
    let value = "v".repeat(3 << 20);
    let there = |from: &mut Client, to: &mut Client, port: u16| {
        from.ok(&format!("SET one {value}"));
        from.run("RPUSH two a b c");
        from.ok(&format!("MIGRATE 127.0.0.1 {port} \"\" 0 20000 KEYS one two"));
        assert_eq!(from.run("EXISTS one two").int(), 0);
        assert_eq!(to.run("STRLEN one").int(), 3 << 20);
        assert_eq!(to.run("LRANGE two 0 -1").items().len(), 3);
        to.ok("FLUSHALL");
    };
    there(&mut a, &mut b, their_port);
    there(&mut b, &mut a, our_port);
    // To a port that speaks no TLS.
    a.ok("SET stays here");
    let failed = a.run(&format!("MIGRATE 127.0.0.1 {} stays 0 2000", theirs.port)).text();
    assert!(failed.starts_with("IOERR error or timeout"), "{failed}");
    assert_eq!(a.run("GET stays").text(), "here");
    // Where nobody listens a session cannot begin.
    b.ok("SET stays here");
    let nobody = format!("MIGRATE 127.0.0.1 {} stays 0 2000", free_port());
    for client in [&mut a, &mut b] {
        client.expect(&nobody, "-IOERR error or timeout connecting to the client");
    }
}

/// `redis-cli --cluster` over TLS.
fn cluster(args: &[&str]) -> String {
    let (ca, certificate, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let output = Command::new("redis-cli")
        .arg("--cluster")
        .args(args)
        .args(["--tls", "--cacert", &ca, "--cert", &certificate, "--key", &key])
        .stdin(Stdio::null())
        .output()
        .expect("run redis-cli");
    text(&output)
}

/// Three primaries with a replica each, of both kinds, form a cluster, redirect, move slots and fail over: all over
/// TLS.
#[test]
fn a_mixed_cluster_over_tls() {
    let _guard = light();
    let secure = ["--tls-cluster", "yes", "--tls-replication", "yes"];
    let kinds: [fn() -> Launch; 6] =
        [Launch::subject, Launch::real, Launch::subject, Launch::real, Launch::subject, Launch::real];
    // The bus lies ten thousand above the TLS port, and so both must be free.
    let mut nodes: Vec<(Server, u16)> = kinds.map(|kind| with_tls(kind().cluster(), &secure)).into();
    let addresses: Vec<String> = nodes.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    let mut args = vec!["create"];
    args.extend(addresses.iter().map(String::as_str));
    args.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    let said = cluster(&args);
    assert!(said.contains("[OK] All 16384 slots covered."), "{said}");
    let whole = |nodes: &[(Server, u16)], replicas: usize| {
        let mut linked = 0;
        let fine = nodes.iter().all(|(node, _)| {
            let mut client = node.connect();
            linked += usize::from(client.info("master_link_status") == "up");
            client.run("CLUSTER INFO").text().contains("cluster_state:ok")
                && client.run("CLUSTER NODES").text().matches("slave").count() == replicas
        });
        fine && linked == replicas
    };
    wait_for("the cluster is whole", LONG, || whole(&nodes, 3));
    // Clients that speak TLS are sent to ports that do, the rest to the others; as a real Redis says it.
    for ((server, port), other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let (tls, plain) =
            (cli(*port, &["CLUSTER", "SLOTS"]), server.connect().run("CLUSTER SLOTS").to_string());
        assert!(tls.contains(&other.1.to_string()) && !tls.contains(&other.0.port.to_string()), "{tls}");
        assert!(
            plain.contains(&other.0.port.to_string()) && !plain.contains(&other.1.to_string()),
            "{plain}"
        );
        let (tls, plain) = (cli(*port, &["CLUSTER", "NODES"]), server.connect().run("CLUSTER NODES").text());
        assert!(tls.contains(&format!("127.0.0.1:{}@", other.1)), "{tls}");
        assert!(plain.contains(&format!("127.0.0.1:{}@{}", other.0.port, other.1 + 10_000)), "{plain}");
    }
    let shards = nodes[0].0.connect().run("CLUSTER SHARDS").to_string();
    assert!(
        shards.contains(&format!("\"port\", :{}, \"tls-port\", :{}", nodes[2].0.port, nodes[2].1)),
        "{shards}"
    );
    for i in 0..50 {
        let key = format!("key:{i}");
        assert_eq!(cli(nodes[i % 3].1, &["-c", "SET", &key, "v"]), "OK");
        assert_eq!(cli(nodes[(i + 1) % 3].1, &["-c", "GET", &key]), "v");
    }
    // Slots with their keys go from ours to the real one and back.
    for (from, to) in [(0, 1), (1, 0)] {
        // News of slots travel by gossip, and redis-cli moves none before all have heard the last.
        wait_for("the nodes agree", LONG, || {
            cluster(&["check", &addresses[0]]).contains("[OK] All nodes agree about slots configuration.")
        });
        let id = |n: usize| nodes[n].0.connect().run("CLUSTER MYID").text();
        let said = cluster(&[
            "reshard",
            &addresses[0],
            "--cluster-from",
            &id(from),
            "--cluster-to",
            &id(to),
            "--cluster-slots",
            "1000",
            "--cluster-yes",
        ]);
        assert!(!said.contains("[ERR]") && !said.contains("Error"), "{said}");
    }
    let said = cluster(&["check", &addresses[0]]);
    assert!(said.contains("[OK] All 16384 slots covered."), "{said}");
    for i in 0..50 {
        assert_eq!(cli(nodes[2].1, &["-c", "GET", &format!("key:{i}")]), "v");
    }
    // A primary of each kind dies: its replica takes over.
    for n in [0, 1] {
        nodes[n].0.kill();
        let gone = format!(":{},", nodes[n].0.port);
        wait_for("a replica takes over", LONG, || {
            nodes[n + 1..].iter().all(|(node, _)| {
                let mut client = node.connect();
                client.run("CLUSTER INFO").text().contains("cluster_state:ok")
                    && !client.run("CLUSTER SLOTS").to_string().contains(&gone)
            })
        });
        for i in 0..50 {
            assert_eq!(cli(nodes[2].1, &["-c", "GET", &format!("key:{i}")]), "v");
        }
    }
}

/// A node without TLS, and one without a certificate, are not let onto the bus.
#[test]
fn the_bus_takes_only_nodes_with_a_certificate() {
    let _guard = light();
    let (node, port) =
        with_tls(Launch::subject().cluster(), &["--tls-cluster", "yes", "--tls-auth-clients", "no"]);
    let bus = port + 10_000;
    // Clients need none here, nodes do.
    assert_eq!(cli_with(port, &[], &["PING"]), "PONG");
    let address = format!("127.0.0.1:{bus}");
    let ca = file("ca.crt");
    let said = openssl(&["s_client", "-connect", &address, "-CAfile", &ca, "-tls1_2"], certificates());
    assert!(said.contains("alert"), "{said}");
    let mut plain = TcpStream::connect(("127.0.0.1", bus)).unwrap();
    plain.set_read_timeout(Some(SOON)).unwrap();
    plain.write_all(&[0x52; 4096]).unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    assert!(rest.len() < 64, "nothing but an alert");
    assert_eq!(node.connect().run("PING").text(), "PONG");
}

struct Guard {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Guard {
    /// A sentinel that speaks TLS alone, and watches what listens on `port`.
    fn start(program: &str, port: u16) -> Guard {
        Self::start_with(program, port, certificates())
    }

    fn start_with(program: &str, port: u16, certificates: &Path) -> Guard {
        let own = free_port();
        let dir = fresh_dir();
        let mut lines: Vec<String> = directives_from(certificates, own)
            .chunks(2)
            .map(|pair| format!("{} {}", &pair[0][2..], pair[1]))
            .collect();
        lines.extend(["port 0", "bind 127.0.0.1", "tls-replication yes"].map(str::to_owned));
        lines.push(format!("dir {}", dir.display()));
        lines.push(format!("sentinel monitor mymaster 127.0.0.1 {port} 2"));
        lines.push("sentinel down-after-milliseconds mymaster 2000\n".to_owned());
        let path = dir.join("sentinel.conf");
        fs::write(&path, lines.join("\n")).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(program);
        command.arg(&path);
        if program != "redis-sentinel" {
            command.arg("--sentinel");
        }
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let guard = Guard { child, port: own, dir };
        wait_for("the sentinel listens", SOON, || TcpStream::connect(("127.0.0.1", own)).is_ok());
        guard
    }

    fn primary(&self, field: &str) -> String {
        let said = cli(self.port, &["SENTINEL", "MASTER", "mymaster"]);
        let mut lines = said.lines();
        lines.find(|l| *l == field);
        lines.next().unwrap_or_default().to_owned()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sentinel ---\n{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
    }
}

/// Sentinels of both kinds find each other, watch nodes of both kinds and fail over, where nothing but TLS is spoken
/// between them.
#[test]
fn sentinels_over_tls() {
    let _guard = light();
    let kinds: [(fn() -> Launch, fn() -> Launch); 2] =
        [(Launch::subject, Launch::real), (Launch::real, Launch::subject)];
    for (primary, replica) in kinds {
        let (mut primary, port) = with_tls(primary(), &["--tls-replication", "yes"]);
        let (replica, replica_port) = with_tls(replica(), &["--tls-replication", "yes"]);
        let mut r = replica.connect();
        r.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        let ours = subject().display().to_string();
        let guards = ["redis-sentinel", &ours, &ours].map(|program| Guard::start(program, port));
        wait_for("they know each other and the replica", LONG, || {
            guards.iter().all(|g| g.primary("num-other-sentinels") == "2" && g.primary("num-slaves") == "1")
        });
        primary.kill();
        wait_for("the replica is the primary", LONG, || {
            guards.iter().all(|g| g.primary("port") == replica_port.to_string())
        });
        // Its clients were cut off.
        wait_for("it knows", SOON, || replica.connect().info("role") == "master");
        // The old one comes back as a replica of the new one.
        primary.start_again();
        wait_for("the old one follows", LONG, || primary.connect().info("master_link_status") == "up");
        assert_eq!(primary.connect().info("master_port"), replica_port.to_string());
    }
}

/// A sentinel takes over new certificates as a node does.
#[test]
fn a_sentinel_takes_over_certificates_that_change() {
    let _guard = light();
    let dir = fresh_dir();
    make_certificates(&dir);
    let newer = newer_certificates(&dir);
    let guard = Guard::start_with(&subject().display().to_string(), free_port(), &dir);
    let mut old = Secure::connect(guard.port, &dir);
    let first = old.certificate();
    for name in ["redis.key", "redis.crt"] {
        fs::copy(newer.join(name), dir.join(name)).unwrap();
    }
    wait_for("the change is taken over", SOON, || Secure::connect(guard.port, &dir).certificate() != first);
    assert_eq!(old.run("PING").text(), "PONG", "whoever is connected stays");
}
