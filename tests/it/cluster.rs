//! Clusters: formed and changed by redis-cli, mixed with real nodes, losing primaries.

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, heavy, light, wait_for};
use crate::workload::digest;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NODE_TIMEOUT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(90);

/// `redis-cli --cluster ...` to its end.
#[track_caller]
fn cli(args: &[&str]) -> String {
    let (ok, text) = try_cli(args);
    assert!(ok, "redis-cli --cluster {}:\n{text}", args.join(" "));
    text
}

fn try_cli(args: &[&str]) -> (bool, String) {
    let mut child = Command::new("redis-cli")
        .arg("--cluster")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("redis-cli");
    // `fix` asks even with --cluster-yes.
    let _ = child.stdin.take().map(|mut input| input.write_all(b"yes\nyes\n"));
    let output = child.wait_with_output().expect("redis-cli ends");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn address(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port)
}

struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Six nodes, the first three primaries; formed by redis-cli.
    fn create(primaries: fn() -> Launch, replicas: fn() -> Launch) -> Cluster {
        let mut nodes: Vec<Server> = (0..3).map(|_| primaries().cluster().start()).collect();
        nodes.extend((0..3).map(|_| replicas().cluster().start()));
        let addresses: Vec<String> = nodes.iter().map(address).collect();
        let mut args = vec!["create"];
        args.extend(addresses.iter().map(String::as_str));
        args.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let text = cli(&args);
        assert!(text.contains("[OK] All 16384 slots covered."), "{text}");
        let cluster = Cluster { nodes };
        wait_for("the cluster is whole", LONG, || cluster.whole(3));
        cluster
    }

    /// Every node says ok, knows the others, and `replicas` replicas are linked.
    fn whole(&self, replicas: usize) -> bool {
        let mut linked = 0;
        for node in &self.nodes {
            let mut client = node.connect();
            if !client.run("CLUSTER INFO").text().contains("cluster_state:ok") {
                return false;
            }
            linked += usize::from(client.info("master_link_status") == "up");
            let lines = client.run("CLUSTER NODES").text();
            if lines.lines().count() != self.nodes.len()
                || lines.contains("fail")
                || lines.contains("handshake")
            {
                return false;
            }
            if lines.matches("slave").count() != replicas {
                return false;
            }
        }
        linked == replicas
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(address).collect()
    }

    /// The index of the node that serves `slot`, as the first living node sees it.
    fn owner(&self, slot: u16, seen_by: usize) -> Option<usize> {
        let slots = self.nodes[seen_by].connect().run("CLUSTER SLOTS");
        let row = slots.items().iter().find(|r| {
            let (first, last) = (r.items()[0].int(), r.items()[1].int());
            (first..=last).contains(&i64::from(slot))
        })?;
        let port = row.items()[2].items()[1].int();
        self.nodes.iter().position(|n| i64::from(n.port) == port)
    }

    /// Pairs of (primary, replica) by index, as the first node sees them.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let text = self.nodes[0].connect().run("CLUSTER NODES").text();
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split(' ').collect()).collect();
        let index = |row: &Vec<&str>| {
            let port = row[1].split(['@', ',']).next().and_then(|a| a.rsplit(':').next()).unwrap_or_default();
            self.nodes.iter().position(|n| n.port.to_string() == port)
        };
        let mut out = Vec::new();
        for row in rows.iter().filter(|r| r[2].contains("slave")) {
            let primary = rows.iter().find(|p| p[0] == row[3]);
            if let (Some(p), Some(r)) = (primary.and_then(index), index(row)) {
                out.push((p, r));
            }
        }
        out
    }

    #[track_caller]
    fn digests_equal(&self) {
        let pairs = self.pairs();
        assert!(!pairs.is_empty());
        for (primary, replica) in pairs {
            let (mut p, mut r) = (self.nodes[primary].connect(), self.nodes[replica].connect());
            wait_for("the offsets meet", LONG, || {
                p.info_int("master_repl_offset") == r.info_int("slave_repl_offset")
            });
            assert_eq!(
                digest(&mut p),
                digest(&mut r),
                "{} and {}",
                self.nodes[primary].port,
                self.nodes[replica].port
            );
        }
    }

    fn check(&self) {
        let text = cli(&["check", &self.addresses()[0]]);
        assert!(text.contains("[OK] All nodes agree about slots configuration."), "{text}");
        assert!(text.contains("[OK] All 16384 slots covered."), "{text}");
    }
}

/// A client that follows redirections, for a load through failovers.
struct Follower {
    ports: Vec<u16>,
    port: u16,
    client: Option<Client>,
}

impl Follower {
    fn new(cluster: &Cluster) -> Follower {
        let ports: Vec<u16> = cluster.nodes.iter().map(|n| n.port).collect();
        Follower { port: ports[0], ports, client: None }
    }

    /// Whether the command was acknowledged, following at most five redirections.
    fn run(&mut self, words: &[&str]) -> Option<String> {
        for _ in 0..5 {
            if self.client.is_none() {
                self.client = Client::try_connect(self.port).ok();
            }
            let Some(client) = &mut self.client else {
                self.next();
                continue;
            };
            client.set_read_timeout(Duration::from_secs(2));
            let bytes = crate::common::client::encode(words);
            let reply = client.try_send_raw(&bytes).and_then(|()| client.try_read());
            let Ok(reply) = reply else {
                self.next();
                continue;
            };
            let text = reply.text();
            if let Some(target) = text.strip_prefix("MOVED ") {
                self.port = target.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap_or(self.port);
                self.client = None;
            } else if reply.to_string().starts_with('-') {
                self.next();
                return None;
            } else {
                return Some(text);
            }
        }
        None
    }

    /// Asks another node next time.
    fn next(&mut self) {
        let at = self.ports.iter().position(|p| *p == self.port).unwrap_or(0);
        self.port = self.ports[(at + 1) % self.ports.len()];
        self.client = None;
    }
}

/// Writers over all slots; the time of the last acknowledged write to `tag`'s slot is kept.
struct ClusterLoad {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl ClusterLoad {
    fn start(cluster: &Cluster, tag: &str) -> ClusterLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let threads = (0..3)
            .map(|id| {
                let (stop, count) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                let mut follower = Follower::new(cluster);
                let tag = tag.to_owned();
                thread::spawn(move || {
                    let mut i = 0;
                    while !stop.load(Ordering::Relaxed) {
                        i += 1;
                        // Writer 0 writes to the slot of the tag, which is the one that is watched.
                        let key =
                            if id == 0 { format!("{{{tag}}}:{i}") } else { format!("key:{id}:{}", i % 5000) };
                        let done = follower.run(&["SET", &key, &i.to_string()]).is_some();
                        if done && id == 0 {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        thread::park_timeout(Duration::from_millis(if done { 1 } else { 10 }));
                    }
                })
            })
            .collect();
        ClusterLoad { stop, acknowledged, threads }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn end(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for ClusterLoad {
    fn drop(&mut self) {
        self.halt();
    }
}

/// A cluster under load loses the primary of a slot by kill -9; its replica must serve within node
/// timeout + 2 s, the old primary must come back as a replica, and every pair must agree.
fn lose_a_primary(primaries: fn() -> Launch, replicas: fn() -> Launch) {
    let _serial = heavy();
    let mut cluster = Cluster::create(primaries, replicas);
    cluster.check();
    let load = ClusterLoad::start(&cluster, "watched");
    wait_for("the load runs", LONG, || load.acknowledged() > 200);
    let slot = cluster.nodes[0].connect().run("CLUSTER KEYSLOT {watched}").int() as u16;
    let victim = cluster.owner(slot, 0).expect("an owner");
    cluster.nodes[victim].kill();
    let killed = Instant::now();
    let before = load.acknowledged();
    // One write may have been acknowledged while the kill was under way.
    wait_for("the replica serves", LONG, || load.acknowledged() > before + 1);
    let took = killed.elapsed();
    println!("first write acknowledged {took:?} after the kill");
    // A real Redis waits longer before it stands for election.
    let slack = Duration::from_millis(if subject_is_real() { 4000 } else { 500 });
    assert!(took < NODE_TIMEOUT + Duration::from_secs(2) + slack, "{took:?}");
    let living = usize::from(victim == 0);
    let mut heir = victim;
    wait_for("all see the heir", LONG, || {
        heir = cluster.owner(slot, living).unwrap_or(victim);
        heir != victim
    });
    cluster.nodes[victim].start_again();
    wait_for("the old primary follows", LONG, || cluster.whole(3));
    let mut old = cluster.nodes[victim].connect();
    assert_eq!(old.info("role"), "slave");
    assert_eq!(old.info("master_port"), cluster.nodes[heir].port.to_string());
    load.end();
    cluster.check();
    cluster.digests_equal();
}

#[test]
fn a_cluster_of_ours_loses_a_primary() {
    lose_a_primary(Launch::subject, Launch::subject);
}

#[test]
fn our_replicas_of_real_primaries_take_over() {
    lose_a_primary(Launch::real, Launch::subject);
}

#[test]
fn real_replicas_of_our_primaries_take_over() {
    lose_a_primary(Launch::subject, Launch::real);
}

#[test]
fn redis_cli_adds_moves_balances_and_removes() {
    let _light = light();
    let mut cluster = Cluster::create(Launch::subject, Launch::subject);
    let mut follower = Follower::new(&cluster);
    for i in 0..500 {
        assert!(follower.run(&["SET", &format!("key:{i}"), &i.to_string()]).is_some());
        assert!(follower.run(&["RPUSH", &format!("list:{i}"), "a", "b"]).is_some());
    }
    let text = cli(&["info", &cluster.addresses()[0]]);
    assert!(text.contains("[OK] 1000 keys in 3 masters."), "{text}");
    let added = Launch::subject().cluster().start();
    let id = |server: &Server| server.connect().run("CLUSTER MYID").text();
    cli(&["add-node", &address(&added), &cluster.addresses()[0]]);
    cluster.nodes.push(added);
    wait_for("the new node is known", LONG, || cluster.whole(3));
    // Resharding under reads and writes: clients follow MOVED and see every key all the time.
    let load = ClusterLoad::start(&cluster, "key:1");
    let text = cli(&[
        "reshard",
        &cluster.addresses()[0],
        "--cluster-from",
        &id(&cluster.nodes[0]),
        "--cluster-to",
        &id(&cluster.nodes[6]),
        "--cluster-slots",
        "500",
        "--cluster-yes",
    ]);
    assert!(!text.contains("ERR"), "{text}");
    load.end();
    wait_for("all agree", LONG, || try_cli(&["check", &cluster.addresses()[1]]).0);
    // To a share of its own, smaller than the others' so that this is soon done.
    let new = id(&cluster.nodes[6]);
    let (entry, weight) = (cluster.addresses()[0].clone(), format!("{new}=0.2"));
    cli(&["rebalance", &entry, "--cluster-use-empty-masters", "--cluster-weight", &weight]);
    wait_for("all agree", LONG, || try_cli(&["check", &cluster.addresses()[1]]).0);
    cluster.check();
    let mut follower = Follower::new(&cluster);
    for i in 0..500 {
        assert_eq!(follower.run(&["GET", &format!("key:{i}")]), Some(i.to_string()), "key:{i}");
        assert_eq!(follower.run(&["LLEN", &format!("list:{i}")]).as_deref(), Some("2"), "list:{i}");
    }
    cluster.digests_equal();
    // Empty it again and take it out.
    cli(&["rebalance", &cluster.addresses()[0], "--cluster-weight", &format!("{new}=0")]);
    wait_for("all agree", LONG, || try_cli(&["check", &cluster.addresses()[1]]).0);
    cli(&["del-node", &cluster.addresses()[0], &new]);
    cluster.nodes.pop();
    wait_for("it is forgotten", LONG, || cluster.whole(3));
    for i in 0..500 {
        assert_eq!(follower.run(&["GET", &format!("key:{i}")]), Some(i.to_string()), "key:{i}");
    }
}

#[test]
fn redis_cli_moves_slots_between_ours_and_real_nodes() {
    let _light = light();
    let nodes: Vec<Server> = [Launch::subject(), Launch::real(), Launch::subject()]
        .into_iter()
        .map(|l| l.cluster().start())
        .collect();
    let addresses: Vec<String> = nodes.iter().map(address).collect();
    cli(&["create", &addresses[0], &addresses[1], &addresses[2], "--cluster-yes"]);
    let cluster = Cluster { nodes };
    wait_for("the cluster is whole", LONG, || cluster.whole(0));
    let mut follower = Follower::new(&cluster);
    for i in 0..300 {
        assert!(follower.run(&["HSET", &format!("hash:{i}"), "f", &i.to_string(), "g", "w"]).is_some());
    }
    let id = |n: usize| cluster.nodes[n].connect().run("CLUSTER MYID").text();
    for (from, to) in [(0, 1), (1, 0), (1, 2)] {
        let text = cli(&[
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
        assert!(!text.contains("ERR"), "{text}");
        wait_for("all agree", LONG, || try_cli(&["check", &addresses[2]]).0);
    }
    for i in 0..300 {
        assert_eq!(follower.run(&["HGET", &format!("hash:{i}"), "f"]), Some(i.to_string()), "hash:{i}");
    }
}

#[test]
fn redis_cli_fixes_a_slot_left_open() {
    let _light = light();
    let nodes: Vec<Server> = (0..3).map(|_| Launch::subject().cluster().start()).collect();
    let addresses: Vec<String> = nodes.iter().map(address).collect();
    cli(&["create", &addresses[0], &addresses[1], &addresses[2], "--cluster-yes"]);
    let cluster = Cluster { nodes };
    wait_for("the cluster is whole", LONG, || cluster.whole(0));
    let (mut a, mut b) = (cluster.nodes[0].connect(), cluster.nodes[1].connect());
    a.ok("SET {06S}k v"); // slot 0
    let (id_a, id_b) = (a.run("CLUSTER MYID").text(), b.run("CLUSTER MYID").text());
    a.ok(&format!("CLUSTER SETSLOT 0 MIGRATING {id_b}"));
    b.ok(&format!("CLUSTER SETSLOT 0 IMPORTING {id_a}"));
    let (ok, text) = try_cli(&["check", &addresses[0]]);
    assert!(!ok && text.contains("[WARNING]"), "{text}");
    cli(&["fix", &addresses[0], "--cluster-yes"]);
    cluster.check();
    let mut follower = Follower::new(&cluster);
    assert_eq!(follower.run(&["GET", "{06S}k"]).as_deref(), Some("v"));
    // A slot that nobody serves.
    let owner = cluster.owner(5, 0).expect("an owner");
    for node in &cluster.nodes {
        node.connect().run("CLUSTER DELSLOTS 5");
    }
    let (ok, text) = try_cli(&["check", &addresses[0]]);
    assert!(!ok, "{text}");
    assert_eq!(cluster.owner(5, owner), None);
    cli(&["fix", &addresses[0], "--cluster-yes"]);
    wait_for("the slot is served", LONG, || try_cli(&["check", &addresses[0]]).0);
}

#[test]
fn redirections_have_redis_texts() {
    let _light = light();
    let nodes: Vec<Server> = (0..3).map(|_| Launch::subject().cluster().start()).collect();
    let mut lone = nodes[0].connect();
    lone.expect("GET k", "-CLUSTERDOWN Hash slot not served");
    assert!(
        lone.run("CLUSTER INFO").text().starts_with("cluster_enabled:1\r\ncluster_state:fail\r\n")
            || lone.run("CLUSTER INFO").text().starts_with("cluster_state:fail\r\n")
    );
    let addresses: Vec<String> = nodes.iter().map(address).collect();
    cli(&["create", &addresses[0], &addresses[1], &addresses[2], "--cluster-yes"]);
    let cluster = Cluster { nodes };
    wait_for("the cluster is whole", LONG, || cluster.whole(0));
    let mut a = cluster.nodes[0].connect();
    // "foo" is in slot 12182, which the third node serves; "bar" in 5061, the first one's.
    a.expect("CLUSTER KEYSLOT foo", ":12182");
    a.expect("CLUSTER KEYSLOT a{foo}b{x}", ":12182");
    a.expect("CLUSTER KEYSLOT {}foo", ":9500");
    a.expect("GET foo", &format!("-MOVED 12182 127.0.0.1:{}", cluster.nodes[2].port));
    a.expect("MGET foo bar", "-CROSSSLOT Keys in request don't hash to the same slot");
    a.expect("MSET {bar}1 a {bar}2 b", "+OK");
    a.expect("MGET {bar}1 {bar}2", "[\"a\", \"b\"]");
    a.expect("SELECT 1", "-ERR SELECT is not allowed in cluster mode");
    a.expect("REPLICAOF 127.0.0.1 1", "-ERR REPLICAOF not allowed in cluster mode.");
    a.ok("MULTI");
    a.expect("GET foo", &format!("-MOVED 12182 127.0.0.1:{}", cluster.nodes[2].port));
    assert!(a.run("EXEC").text().starts_with("EXECABORT"));
    a.ok("MULTI");
    a.expect("SET {bar}1 c", "+QUEUED");
    a.expect("EXEC", "[+OK]");
    // A slot on its way: the source asks for what it has not, the target serves only ASKING.
    let mut c = cluster.nodes[2].connect();
    let (id_a, id_c) = (a.run("CLUSTER MYID").text(), c.run("CLUSTER MYID").text());
    c.ok("SET {foo}here v");
    c.ok(&format!("CLUSTER SETSLOT 12182 MIGRATING {id_a}"));
    a.ok(&format!("CLUSTER SETSLOT 12182 IMPORTING {id_c}"));
    c.expect("GET {foo}here", "\"v\"");
    c.expect("GET {foo}new", &format!("-ASK 12182 127.0.0.1:{}", cluster.nodes[0].port));
    c.expect("MGET {foo}here {foo}new", "-TRYAGAIN Multiple keys request during rehashing of slot");
    a.expect("SET {foo}new v", &format!("-MOVED 12182 127.0.0.1:{}", cluster.nodes[2].port));
    a.ok("ASKING");
    a.ok("SET {foo}new v");
    a.expect("GET {foo}new", &format!("-MOVED 12182 127.0.0.1:{}", cluster.nodes[2].port));
    // ASKING is for one command, or for the transaction that it begins; one key named twice is one key.
    let elsewhere = format!("-MOVED 12182 127.0.0.1:{}", cluster.nodes[2].port);
    a.ok("ASKING");
    a.expect("PING", "+PONG");
    a.expect("GET {foo}new", &elsewhere);
    a.ok("ASKING");
    a.expect("MGET {foo}none {foo}none", "[nil, nil]");
    a.ok("ASKING");
    a.ok("MULTI");
    a.expect("GET {foo}new", "+QUEUED");
    a.expect("GET {foo}new", "+QUEUED");
    a.expect("EXEC", "[\"v\", \"v\"]");
    a.expect("GET {foo}new", &elsewhere);
    c.ok("MULTI");
    c.expect("GET {foo}here", "+QUEUED");
    c.expect("GET {foo}new", &format!("-ASK 12182 127.0.0.1:{}", cluster.nodes[0].port));
    assert!(c.run("EXEC").text().starts_with("EXECABORT"));
    c.expect("CLUSTER COUNTKEYSINSLOT 12182", ":1");
    c.expect("CLUSTER GETKEYSINSLOT 12182 10", "[\"{foo}here\"]");
    c.ok(&format!("MIGRATE 127.0.0.1 {} {{foo}}here 0 5000", cluster.nodes[0].port));
    c.expect(&format!("MIGRATE 127.0.0.1 {} {{foo}}here 0 5000", cluster.nodes[0].port), "+NOKEY");
    c.expect("CLUSTER COUNTKEYSINSLOT 12182", ":0");
    a.ok(&format!("CLUSTER SETSLOT 12182 NODE {id_a}"));
    c.ok(&format!("CLUSTER SETSLOT 12182 NODE {id_a}"));
    a.expect("MGET {foo}here {foo}new", "[\"v\", \"v\"]");
    c.expect("GET {foo}here", &format!("-MOVED 12182 127.0.0.1:{}", cluster.nodes[0].port));
}

/// Each was compared with Redis: its texts, and which of several mistakes it tells.
#[test]
fn mistakes_are_answered_with_redis_texts() {
    let _light = light();
    let cluster = Cluster::create(Launch::subject, Launch::subject);
    let (p, r) = cluster.pairs()[0];
    let (mut primary, mut replica) = (cluster.nodes[p].connect(), cluster.nodes[r].connect());
    let alone = Server::subject();
    let mut lone = alone.connect();
    let unknown = "9".repeat(40);
    let (own, of_replica) = (primary.run("CLUSTER MYID").text(), replica.run("CLUSTER MYID").text());
    let masters = "-ERR Please use SETSLOT only with masters.";
    for (line, on_primary, on_replica) in [
        ("COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range", ""),
        ("COUNTKEYSINSLOT 16384", "-ERR Invalid slot", ""),
        ("GETKEYSINSLOT -1 1", "-ERR Invalid slot or number of keys", ""),
        ("GETKEYSINSLOT 1 -1", "-ERR Invalid slot or number of keys", ""),
        ("ADDSLOTS 16384", "-ERR Invalid or out of range slot", ""),
        ("ADDSLOTSRANGE 5 2", "-ERR start slot number 5 is greater than end slot number 2", ""),
        ("MEET 127.0.0.1 0", "-ERR Invalid node address specified: 127.0.0.1:0", ""),
        ("MEET nohost 6000", "-ERR Invalid node address specified: nohost:6000", ""),
        ("FORGET $own", "-ERR I tried hard but I can't forget myself...", "-ERR Can't forget my master!"),
        ("REPLICATE $unknown", &format!("-ERR Unknown node {unknown}"), ""),
        ("REPLICAS $replica", "-ERR The specified node is not a master", ""),
        ("SETSLOT x STABLE", "-ERR Invalid or out of range slot", masters),
        (
            "SETSLOT 1 STABLE x",
            "-ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP",
            masters,
        ),
        ("SETSLOT 1 NODE x", "-ERR Unknown node x", masters),
        ("SETSLOT 1 NODE $replica", "-ERR Target node is not a master", masters),
        (
            "FAILOVER FORCE x",
            "-ERR unknown subcommand or wrong number of arguments for 'FAILOVER'. Try CLUSTER HELP.",
            "",
        ),
        ("FAILOVER x", "-ERR syntax error", ""),
        ("RESET x", "-ERR syntax error", ""),
    ] {
        let line = line.replace("$own", &own).replace("$replica", &of_replica).replace("$unknown", &unknown);
        let line = format!("CLUSTER {line}");
        primary.expect(&line, on_primary);
        replica.expect(&line, if on_replica.is_empty() { on_primary } else { on_replica });
        lone.expect(&line, "-ERR This instance has cluster support disabled");
    }
}

#[test]
fn a_cluster_without_a_slot_is_down() {
    let _light = light();
    let mut nodes: Vec<Server> = (0..3).map(|_| Launch::subject().cluster().start()).collect();
    let addresses: Vec<String> = nodes.iter().map(address).collect();
    cli(&["create", &addresses[0], &addresses[1], &addresses[2], "--cluster-yes"]);
    let cluster = Cluster { nodes };
    wait_for("the cluster is whole", LONG, || cluster.whole(0));
    nodes = cluster.nodes;
    nodes[1].kill(); // no replica: its slots are lost until it returns
    let mut a = nodes[0].connect();
    wait_for("the cluster is down", SOON, || a.run("CLUSTER INFO").text().contains("cluster_state:fail"));
    a.expect("GET bar", "-CLUSTERDOWN The cluster is down");
    a.ok("CONFIG SET cluster-require-full-coverage no");
    wait_for("the other slots are served", SOON, || a.run("GET bar").to_string() == "nil");
    a.ok("CONFIG SET cluster-require-full-coverage yes");
    nodes[1].start_again();
    wait_for("it is whole again", LONG, || a.run("CLUSTER INFO").text().contains("cluster_state:ok"));
    wait_for("slots are served", LONG, || a.run("GET bar").to_string() == "nil");
}

#[test]
fn replicas_redirect_or_serve_reads_on_request() {
    let _light = light();
    let cluster = Cluster::create(Launch::subject, Launch::subject);
    let mut follower = Follower::new(&cluster);
    assert!(follower.run(&["SET", "bar", "v"]).is_some());
    let (primary, replica) = *cluster.pairs().iter().find(|(p, _)| *p == 0).expect("the first node's pair");
    let mut r = cluster.nodes[replica].connect();
    let moved = format!("-MOVED 5061 127.0.0.1:{}", cluster.nodes[primary].port);
    r.expect("GET bar", &moved);
    r.ok("READONLY");
    wait_for("the replica has it", SOON, || r.run("GET bar").text() == "v");
    r.expect("SET bar w", &moved);
    r.ok("READWRITE");
    r.expect("GET bar", &moved);
}

#[test]
fn a_manual_failover_loses_nothing() {
    let _light = light();
    let cluster = Cluster::create(Launch::subject, Launch::subject);
    let load = ClusterLoad::start(&cluster, "bar");
    wait_for("the load runs", LONG, || load.acknowledged() > 200);
    let (_, replica) = *cluster.pairs().iter().find(|(p, _)| *p == 0).expect("the first node's pair");
    let mut r = cluster.nodes[replica].connect();
    r.ok("CLUSTER FAILOVER");
    wait_for("roles are exchanged", LONG, || r.info("role") == "master");
    wait_for("the cluster is whole", LONG, || cluster.whole(3));
    load.end();
    cluster.digests_equal();
    r.expect("CLUSTER FAILOVER", "-ERR You should send CLUSTER FAILOVER to a replica");
}

#[test]
fn nodes_keep_their_identity_over_a_restart() {
    let _light = light();
    let mut cluster = Cluster::create(Launch::subject, Launch::subject);
    let ids: Vec<String> = cluster.nodes.iter().map(|n| n.connect().run("CLUSTER MYID").text()).collect();
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start_again();
    }
    wait_for("the cluster is whole", LONG, || cluster.whole(3));
    let again: Vec<String> = cluster.nodes.iter().map(|n| n.connect().run("CLUSTER MYID").text()).collect();
    assert_eq!(ids, again);
    cluster.check();
}

#[test]
fn redis_benchmark_runs_on_a_cluster() {
    let _light = light();
    let cluster = Cluster::create(Launch::subject, Launch::subject);
    let output = Command::new("redis-benchmark")
        .args(["-p", &cluster.nodes[0].port.to_string(), "--cluster", "-q", "-n", "5000", "-r", "1000", "-t"])
        .arg("set,get,incr,lpush,sadd,hset,zadd")
        .stdin(Stdio::null())
        .output()
        .expect("run redis-benchmark");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.to_lowercase().contains("error"), "{text}\n{errors}");
    assert!(text.lines().any(|l| l.starts_with("ZADD") && l.contains("requests per second")), "{text}");
}
