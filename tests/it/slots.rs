//! Slots that leave a node, and who waits for something of them there; the rest of CLUSTER's subcommands.

use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, light, wait_for};

const LONG: Duration = Duration::from_secs(90);
/// "bar" is in this slot, of the first half.
const SLOT: u16 = 5061;

fn node() -> Server {
    Launch::subject().cluster().args(&["--enable-debug-command", "yes"]).start()
}

fn id(node: &Server) -> String {
    node.connect().run("CLUSTER MYID").text()
}

fn known(node: &Server, count: usize) -> bool {
    let info = node.connect().run("CLUSTER INFO").text();
    info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}\r\n"))
}

/// What follows from there being one database alone.
/// Clients of a node, each of which has sent one of these.
fn clients_of(node: &Server, commands: &[&str]) -> Vec<Client> {
    let send = |command: &&str| {
        let mut client = node.connect();
        client.send(&command.split(' ').collect::<Vec<_>>());
        client
    };
    commands.iter().map(send).collect()
}

#[test]
fn a_cluster_has_one_database() {
    let node = Launch::subject().cluster().args(&["--databases", "4"]).start();
    let mut c = node.connect();
    c.ok("CLUSTER ADDSLOTSRANGE 0 16383");
    wait_for("it serves", SOON, || c.run("CLUSTER INFO").text().contains("cluster_state:ok"));
    c.ok("SELECT 0");
    c.expect("SELECT 1", "-ERR SELECT is not allowed in cluster mode");
    c.ok("SET k v");
    c.expect("MOVE k 1", "-ERR MOVE is not allowed in cluster mode");
    c.expect("SWAPDB 0 1", "-ERR SWAPDB is not allowed in cluster mode");
    assert!(c.info("db0").starts_with("keys=1,"));
    if !subject_is_real() {
        c.expect("CONFIG GET databases", "[\"databases\", \"1\"]");
        c.expect("COPY k {k}2 DB 1", "-ERR DB index is out of range");
    }
}

/// Two primaries, each with half of the slots, and as many empty ones as are asked for.
fn cluster(others: usize) -> Vec<Server> {
    let nodes: Vec<Server> = (0..2 + others).map(|_| node()).collect();
    nodes[0].connect().ok("CLUSTER ADDSLOTSRANGE 0 8191");
    nodes[1].connect().ok("CLUSTER ADDSLOTSRANGE 8192 16383");
    for node in &nodes[1..] {
        node.connect().ok(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port));
    }
    wait_for("the nodes know each other", LONG, || nodes.iter().all(|n| known(n, nodes.len())));
    nodes
}

fn replicate(replica: &Server, primary: &Server) {
    replica.connect().ok(&format!("CLUSTER REPLICATE {}", id(primary)));
    wait_for("the replica follows", LONG, || replica.connect().info("master_link_status") == "up");
}

fn listener(node: &Server) -> Client {
    let mut client = node.connect();
    client.expect("SSUBSCRIBE bar", "[\"ssubscribe\", \"bar\", :1]");
    client
}

fn hears_that_it_left(client: &mut Client) {
    assert_eq!(client.read().to_string(), "[\"sunsubscribe\", \"bar\", :0]");
    // It is a client like others again.
    client.expect("PING", "+PONG");
}

/// However the node learns of it.
#[test]
fn sharded_subscribers_hear_sunsubscribe_when_their_slot_leaves() {
    let _light = light();
    let nodes = cluster(1);
    let (mut a, mut b) = (nodes[0].connect(), nodes[1].connect());
    let (id_a, id_b) = (id(&nodes[0]), id(&nodes[1]));
    // SETSLOT at the owner. While the slot moves they go on listening.
    let mut client = listener(&nodes[0]);
    a.ok(&format!("CLUSTER SETSLOT {SLOT} MIGRATING {id_b}"));
    a.expect("SPUBLISH bar still", ":1");
    assert_eq!(client.read().to_string(), "[\"smessage\", \"bar\", \"still\"]");
    a.ok(&format!("CLUSTER SETSLOT {SLOT} NODE {id_b}"));
    hears_that_it_left(&mut client);
    a.expect("PUBSUB SHARDNUMSUB bar", "[\"bar\", :0]");
    // The word of another node: b takes it, and a is told by nobody else.
    b.ok(&format!("CLUSTER SETSLOT {SLOT} NODE {id_b}"));
    a.ok(&format!("CLUSTER SETSLOT {SLOT} IMPORTING {id_b}"));
    a.ok(&format!("CLUSTER SETSLOT {SLOT} NODE {id_a}"));
    let mut client = listener(&nodes[0]);
    wait_for("b knows that a has it", LONG, || b.run("SPUBLISH bar x").text().starts_with("MOVED"));
    b.ok(&format!("CLUSTER SETSLOT {SLOT} IMPORTING {id_a}"));
    b.ok(&format!("CLUSTER SETSLOT {SLOT} NODE {id_b}"));
    hears_that_it_left(&mut client);
    // DELSLOTS. The listener has a second channel, which stays.
    let mut client = listener(&nodes[1]);
    client.expect("SSUBSCRIBE foo", "[\"ssubscribe\", \"foo\", :2]");
    b.ok(&format!("CLUSTER DELSLOTS {SLOT}"));
    assert_eq!(client.read().to_string(), "[\"sunsubscribe\", \"bar\", :1]");
    client.expect("SUNSUBSCRIBE", "[\"sunsubscribe\", \"foo\", :0]");
    // RESET.
    let mut client = nodes[1].connect();
    client.expect("SSUBSCRIBE foo", "[\"ssubscribe\", \"foo\", :1]");
    b.ok("CLUSTER RESET");
    assert_eq!(client.read().to_string(), "[\"sunsubscribe\", \"foo\", :0]");
}

/// A client that is told of changes by prefix has read none of the keys; it is told of each all the same. Redis 7.0
/// tells nobody.
#[test]
fn broadcast_trackers_hear_of_the_keys_that_leave_with_a_slot() {
    let _light = light();
    let nodes = cluster(0);
    let mut client = nodes[0].connect();
    client.run("HELLO 3");
    client.ok("SET bar 1");
    client.ok("CLIENT TRACKING ON BCAST PREFIX ba");
    // The other node takes the slot in a newer epoch, and this one is told by nobody else.
    let id_a = id(&nodes[0]);
    let mut b = nodes[1].connect();
    b.ok(&format!("CLUSTER SETSLOT {SLOT} IMPORTING {id_a}"));
    b.ok(&format!("CLUSTER SETSLOT {SLOT} NODE {}", id(&nodes[1])));
    client.set_read_timeout(SOON);
    assert_eq!(client.read().to_string(), "push [\"invalidate\", [\"bar\"]]");
}

#[test]
fn sharded_subscribers_of_a_replica_hear_when_it_goes_to_another_primary() {
    let _light = light();
    if subject_is_real() {
        // It lets them listen to a channel of which it hears nothing any more.
        return;
    }
    let nodes = cluster(1);
    replicate(&nodes[2], &nodes[0]);
    let mut client = listener(&nodes[2]);
    nodes[2].connect().ok(&format!("CLUSTER REPLICATE {}", id(&nodes[1])));
    hears_that_it_left(&mut client);
}

/// A client that blocks in BLPOP waits on while its slot moves, and is redirected when it has left.
#[test]
fn blocked_clients_are_redirected_when_their_slot_has_left_and_not_before() {
    let _light = light();
    let nodes = cluster(0);
    let (mut a, mut b) = (nodes[0].connect(), nodes[1].connect());
    let (id_a, id_b) = (id(&nodes[0]), id(&nodes[1]));
    let blocked = |count: i64| {
        wait_for("clients are blocked", SOON, || nodes[0].connect().info_int("blocked_clients") == count);
    };
    let mut waiting = nodes[0].connect();
    waiting.send(&["BLPOP", "bar", "0"]);
    blocked(1);
    a.ok(&format!("CLUSTER SETSLOT {SLOT} MIGRATING {id_b}"));
    a.ok(&format!("CLUSTER SETSLOT {SLOT} STABLE"));
    a.expect("RPUSH bar v", ":1");
    assert_eq!(waiting.read().to_string(), "[\"bar\", \"v\"]");
    // In every command that blocks, and whoever tells of the move.
    let commands =
        ["BLPOP bar 0", "BZPOPMIN {bar}z 30", "BLMOVE bar {bar}o LEFT LEFT 0", "BLMPOP 0 1 bar LEFT"];
    let mut clients = clients_of(&nodes[0], &commands);
    blocked(clients.len() as i64);
    b.ok(&format!("CLUSTER SETSLOT {SLOT} IMPORTING {id_a}"));
    b.ok(&format!("CLUSTER SETSLOT {SLOT} NODE {id_b}"));
    for (client, command) in clients.iter_mut().zip(commands) {
        let moved = format!("-MOVED {SLOT} 127.0.0.1:{}", nodes[1].port);
        assert_eq!(client.read().to_string(), moved, "{command}");
        client.expect("PING", "+PONG");
    }
    blocked(0);
}

/// A primary that hands over by CLUSTER FAILOVER has paused writes meanwhile.
#[test]
fn blocked_clients_are_answered_when_their_primary_hands_over() {
    let _light = light();
    if subject_is_real() {
        // It leaves those without an answer that its pause of writes holds (redis/redis#5770).
        return;
    }
    let nodes = cluster(1);
    replicate(&nodes[2], &nodes[0]);
    let commands = ["BLPOP bar 0", "BZPOPMIN {bar}z 30", "XREAD BLOCK 0 STREAMS {bar}s $"];
    let mut clients = clients_of(&nodes[0], &commands);
    wait_for("all block", SOON, || nodes[0].connect().info("blocked_clients") == "3");
    wait_for("the failover begins", LONG, || nodes[2].connect().run("CLUSTER FAILOVER").to_string() == "+OK");
    for (client, command) in clients.iter_mut().zip(commands) {
        let answer = client.read().text();
        assert!(answer.starts_with("MOVED") || answer.starts_with("UNBLOCKED"), "{command}: {answer}");
    }
    wait_for("roles are exchanged", LONG, || nodes[2].connect().info("role") == "master");
    // And back, in a transaction that holds the lock of a key: what needs all locks comes after it.
    wait_for("the former primary follows", LONG, || nodes[0].connect().info("master_link_status") == "up");
    let mut a = nodes[0].connect();
    a.ok("READONLY");
    a.ok("MULTI");
    a.expect("GET bar", "+QUEUED");
    a.expect("CLUSTER FAILOVER TAKEOVER", "+QUEUED");
    let start = Instant::now();
    a.expect("EXEC", "[nil, +OK]");
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    wait_for("it is primary again", LONG, || a.info("role") == "master");
}

#[test]
fn debug_drops_packets_of_the_bus() {
    let _light = light();
    let (a, b) = (node(), node());
    let received = |kind: &str| {
        let info = a.connect().run("CLUSTER INFO").text();
        let field = format!("cluster_stats_messages_{kind}_received:");
        let line = info.lines().find_map(|l| l.strip_prefix(&field).map(str::to_owned));
        line.and_then(|n| n.parse::<u64>().ok()).unwrap_or_default()
    };
    let nodes = |server: &Server| server.connect().run("CLUSTER NODES").text().lines().count();
    let meet = format!("CLUSTER MEET 127.0.0.1 {}", a.port);
    a.connect().ok("DEBUG DROP-CLUSTER-PACKET-FILTER 2");
    b.connect().ok(&meet);
    wait_for("a has received a MEET", SOON, || received("meet") > 0);
    // It was dropped: a does not know b, and does not answer.
    assert_eq!((nodes(&a), received("ping")), (1, 0));
    a.connect().ok("DEBUG DROP-CLUSTER-PACKET-FILTER -1");
    wait_for("they know each other", LONG, || {
        b.connect().ok(&meet);
        nodes(&a) == 2 && b.connect().run("CLUSTER NODES").text().matches(" connected").count() == 2
    });
    if subject_is_real() {
        // 7.0 does not close links.
        return;
    }
    // The link by which b pings a.
    let made = || {
        let links = b.connect().run("CLUSTER LINKS");
        let texts = links.items().iter().map(ToString::to_string).filter(|l| l.contains("\"to\""));
        texts.filter_map(|l| l.split("create-time").nth(1).map(str::to_owned)).collect::<String>()
    };
    let before = made();
    a.connect().ok("DEBUG CLOSE-CLUSTER-LINK-ON-PACKET-DROP 1");
    a.connect().ok("DEBUG DROP-CLUSTER-PACKET-FILTER -2");
    wait_for("the link is closed", LONG, || made() != before);
    assert!(a.log().contains("Dropping packet that matches debug drop filter"));
    a.connect().ok("DEBUG DROP-CLUSTER-PACKET-FILTER -1");
    wait_for("they find each other again", LONG, || {
        [&a, &b].iter().all(|n| n.connect().run("CLUSTER NODES").text().matches(" connected").count() == 2)
    });
    a.connect().expect("DEBUG DROP-CLUSTER-PACKET-FILTER x", "-ERR value is not an integer or out of range");
}

/// Each was compared with Redis.
#[test]
fn a_lone_node_is_changed_and_shown_by_all_subcommands() {
    let _light = light();
    let node = node();
    let mut c = node.connect();
    let nobody = "9".repeat(40);
    c.expect("CLUSTER BUMPEPOCH", "+BUMPED 1");
    c.expect("CLUSTER BUMPEPOCH", "+STILL 1");
    c.expect("CLUSTER SET-CONFIG-EPOCH 5", "-ERR Node config epoch is already non-zero");
    c.expect("CLUSTER SET-CONFIG-EPOCH -1", "-ERR Invalid config epoch specified: -1");
    for what in ["COUNT-FAILURE-REPORTS", "REPLICAS", "SLAVES"] {
        c.expect(&format!("CLUSTER {what} {nobody}"), &format!("-ERR Unknown node {nobody}"));
    }
    let me = id(&node);
    c.expect(&format!("CLUSTER COUNT-FAILURE-REPORTS {me}"), ":0");
    c.expect(&format!("CLUSTER REPLICAS {me}"), "[]");
    c.expect("CLUSTER ADDSLOTSRANGE 0 10 20 30", "+OK");
    c.expect("CLUSTER DELSLOTSRANGE 0 5 25 30", "+OK");
    let ranges: Vec<(i64, i64)> = c
        .run("CLUSTER SLOTS")
        .items()
        .iter()
        .map(|row| (row.items()[0].int(), row.items()[1].int()))
        .collect();
    assert_eq!(ranges, [(6, 10), (20, 24)]);
    c.expect("CLUSTER DELSLOTSRANGE 0 1", "-ERR Slot 0 is already unassigned");
    c.expect("CLUSTER LINKS", "[]");
    let file = node.dir().join("nodes.conf");
    std::fs::remove_file(&file).expect("a file of the cluster");
    c.expect("CLUSTER SAVECONFIG", "+OK");
    assert!(std::fs::read_to_string(&file).expect("it is there again").contains(" 6-10 20-24\n"));
    c.expect("CLUSTER FLUSHSLOTS x", "-ERR wrong number of arguments for 'cluster|flushslots' command");
    c.expect("CLUSTER FLUSHSLOTS", "+OK");
    c.expect("CLUSTER SLOTS", "[]");
    if !subject_is_real() {
        // Redis has it since 7.2.
        assert_eq!(c.run("CLUSTER MYSHARDID").text().len(), 40);
        c.expect("CONFIG GET databases", "[\"databases\", \"1\"]");
    }
    c.ok("CLUSTER RESET HARD");
    assert_ne!(id(&node), me);
    c.expect("CLUSTER SET-CONFIG-EPOCH 7", "+OK");
    c.expect("CLUSTER BUMPEPOCH", "+STILL 7");
    assert!(c.run("CLUSTER HELP").items().len() > 30);
}

#[test]
fn links_replicas_and_shards_of_a_cluster() {
    let _light = light();
    let nodes = cluster(1);
    replicate(&nodes[2], &nodes[0]);
    let (primary, replica) = (id(&nodes[0]), id(&nodes[2]));
    let mut b = nodes[1].connect();
    for what in ["REPLICAS", "SLAVES"] {
        wait_for("the others know the replica", LONG, || {
            let lines = b.run(&format!("CLUSTER {what} {primary}"));
            lines.items().len() == 1 && lines.items()[0].text().starts_with(&replica)
        });
    }
    // Two links to and from each of the others.
    wait_for("all links are there", LONG, || b.run("CLUSTER LINKS").items().len() == 4);
    if subject_is_real() {
        return;
    }
    let shard = |n: usize| nodes[n].connect().run("CLUSTER MYSHARDID").text();
    assert_eq!(shard(0), shard(2));
    assert_ne!(shard(0), shard(1));
    wait_for("both are in one shard everywhere", LONG, || {
        nodes.iter().all(|node| {
            node.connect().ok("CLUSTER SAVECONFIG");
            let text = std::fs::read_to_string(node.dir().join("nodes.conf")).expect("nodes.conf");
            text.matches(&format!("shard-id={}", shard(0))).count() == 2
        })
    });
}

/// Two neighbours of a replica of others in a wrong shard: the node itself is that replica, and a file in which two
/// replicas of one primary are each in another one. A real 7.4 starts from neither.
#[test]
fn a_file_whose_shards_disagree_is_healed_with_a_line_for_each_replica() {
    let [own, primarys, others] = ["aa", "bb", "cc"].map(|digits| digits.repeat(20));
    let [primary, other] = ["d1", "e2"].map(|digits| digits.repeat(20));
    let mut node = Launch::subject().cluster().start();
    let me = id(&node);
    node.connect().ok("CLUSTER SAVECONFIG");
    node.kill();
    let at =
        |port: u16, shard: &str| format!("127.0.0.1:{port}@{},,tls-port=0,shard-id={shard}", port + 10_000);
    let text = format!(
        "{me} {} myself,slave {primary} 0 0 1 connected\n\
         {other} {} slave {primary} 0 0 1 connected\n\
         {primary} {} master - 0 0 1 connected 0-16383\n\
         vars currentEpoch 1 lastVoteEpoch 0\n",
        at(node.port, &own),
        at(1, &others),
        at(2, &primarys),
    );
    let file = node.dir().join("nodes.conf");
    std::fs::write(&file, text).expect("write nodes.conf");
    node.start_again();
    let mut c = node.connect();
    c.expect("CLUSTER MYSHARDID", &format!("\"{primarys}\""));
    for (replica, shard) in [(&me, &own), (&other, &others)] {
        let line = format!("Replica {replica} was in shard {shard} ");
        wait_for(&line, LONG, || node.log().contains(&line));
    }
    c.ok("CLUSTER SAVECONFIG");
    let text = std::fs::read_to_string(&file).expect("nodes.conf");
    assert_eq!(text.matches(&format!("shard-id={primarys}")).count(), 3, "{text}");
    // Then there is nothing left to say.
    node.kill();
    let before = node.log().len();
    node.start_again();
    wait_for("it follows", LONG, || node.log()[before..].contains("Connecting to MASTER"));
    assert!(!node.log()[before..].contains("was in shard"));
}

/// Who said READONLY is served by a replica, unless the command writes. Scripts that say whether they write are taken
/// by their word, the others are looked at command by command.
#[test]
fn a_replica_serves_those_who_accept_it_what_writes_nothing() {
    for launch in [Launch::subject(), Launch::real()] {
        let (primary, replica) = (launch.clone().cluster().start(), launch.cluster().start());
        let (mut p, mut r) = (primary.connect(), replica.connect());
        p.ok("CLUSTER ADDSLOTSRANGE 0 16383");
        p.ok(&format!("CLUSTER MEET 127.0.0.1 {}", replica.port));
        wait_for("both know each other", LONG, || known(&primary, 2) && known(&replica, 2));
        let said = "#!lua name=l\nredis.register_function('w', function() return 1 end)\n\
            redis.register_function{function_name='r', callback=function() return 2 end, flags={'no-writes'}}";
        p.cmd(&["FUNCTION", "LOAD", said]);
        wait_for("it follows", LONG, || {
            r.run(&format!("CLUSTER REPLICATE {}", id(&primary))).to_string() == "+OK"
        });
        wait_for("the link is up", LONG, || r.info("master_link_status") == "up");
        r.ok("READONLY");
        wait_for("it serves", LONG, || r.run("GET k").to_string() == "nil");
        let quiet = "#!lua flags=no-writes\nreturn 1";
        let served: &[&[&str]] = &[
            &["EVAL", "return redis.call('GET', KEYS[1])", "1", "k"],
            &["EVAL", quiet, "1", "k"],
            &["EVAL_RO", "return 1", "1", "k"],
            &["FCALL", "r", "1", "k"],
            &["FCALL_RO", "r", "1", "k"],
            &["PFCOUNT", "k"],
            &["PUBLISH", "k", "x"],
            &["SPUBLISH", "k", "x"],
        ];
        for command in served {
            let reply = r.cmd(command).to_string();
            assert!(!reply.starts_with('-'), "{command:?}: {reply}");
            r.ok("MULTI");
            r.expect("GET k", "+QUEUED");
            assert_eq!(r.cmd(command).to_string(), "+QUEUED", "{command:?}");
            assert_eq!(r.run("EXEC").items().len(), 2, "{command:?}");
        }
        let elsewhere: &[&[&str]] = &[
            &["EVAL", "#!lua\nreturn 1", "1", "k"],
            &["FCALL", "w", "1", "k"],
            &["FCALL_RO", "w", "1", "k"],
            &["SORT", "k"],
            &["PFADD", "k"],
        ];
        for command in elsewhere {
            let reply = r.cmd(command).to_string();
            assert!(reply.starts_with("-MOVED "), "{command:?}: {reply}");
        }
        let write = r.cmd(&["EVAL", "return redis.call('SET', KEYS[1], '1')", "1", "k"]).to_string();
        assert!(write.starts_with("-READONLY "), "{write}");
    }
}
