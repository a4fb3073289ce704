//! Events of keys across connections and servers: their order, and who tells of what.

use std::thread;

use crate::common::client::Client;
use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};

/// A listener to every event of a server, which publishes all of them.
fn listen(server: &Server, letters: &str) -> Client {
    let mut listener = server.connect();
    listener.ok(&format!("CONFIG SET notify-keyspace-events {letters}"));
    listener.run("PSUBSCRIBE __key*");
    listener
}

/// The next event, as the rest of its channel's name and what it carries.
fn next(listener: &mut Client) -> String {
    let message = listener.read();
    let [_, _, channel, rest] = message.items() else { panic!("not an event: {message}") };
    format!("{} {}", channel.text().split('@').nth(1).unwrap_or_default(), rest.text())
}

#[test]
fn events_of_one_key_come_in_the_order_of_its_changes() {
    let server = Launch::subject().args(&["--io-threads", "4"]).start();
    let mut listener = listen(&server, "Eg$");
    let changes: usize = thread::scope(|scope| {
        let rival = || {
            let mut client = server.connect();
            let mut changes = 0;
            for _ in 0..300 {
                let replies = client.pipeline(&["SETNX k v", "DEL k"]);
                changes += replies.iter().map(|reply| reply.int() as usize).sum::<usize>();
            }
            changes
        };
        let rivals: Vec<_> = (0..4).map(|_| scope.spawn(rival)).collect();
        rivals.into_iter().map(|rival| rival.join().expect("a client that ends")).sum()
    });
    for i in 0..changes {
        let expected = if i % 2 == 0 { "0__:set k" } else { "0__:del k" };
        assert_eq!(next(&mut listener), expected, "change {i} of {changes}");
    }
}

#[test]
fn a_replica_tells_of_what_its_primary_does_and_not_of_what_it_loads() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    p.ok("SET loaded v");
    let mut listener = listen(&replica, "EAn");
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the data are there", SOON, || r.run("EXISTS loaded").int() == 1);
    p.ok("SET k v PX 50");
    for expected in ["0__:new k", "0__:set k", "0__:expire k", "0__:del k"] {
        assert_eq!(next(&mut listener), expected);
    }
}

#[test]
fn a_key_that_leaves_by_migrate_is_deleted_here_and_restored_there() {
    let (source, target) = (Server::subject(), Server::subject());
    let mut client = source.connect();
    client.ok("SET k v");
    let (mut here, mut there) = (listen(&source, "EA"), listen(&target, "EAn"));
    client.ok(&format!("MIGRATE 127.0.0.1 {} k 1 5000", target.port));
    assert_eq!(next(&mut here), "0__:del k");
    assert_eq!((next(&mut there), next(&mut there)), ("1__:new k".into(), "1__:restore k".into()));
}

#[test]
fn a_file_that_is_loaded_makes_no_events() {
    let server = Launch::subject().args(&["--enable-debug-command", "yes"]).start();
    let mut client = server.connect();
    client.ok("SET k v");
    let mut listener = listen(&server, "EAn");
    client.ok("DEBUG RELOAD");
    client.ok("DEBUG POPULATE 1 made");
    client.ok("SET k w");
    assert_eq!((next(&mut listener), next(&mut listener)), ("0__:new made:0".into(), "0__:set k".into()));
}

/// Two nodes of a cluster that know each other; the first one has all slots.
fn two_nodes() -> [Server; 2] {
    let launch = || Launch::subject().cluster().args(&["--enable-debug-command", "yes"]).start();
    let nodes = [launch(), launch()];
    nodes[0].connect().ok("CLUSTER ADDSLOTSRANGE 0 16383");
    nodes[0].connect().ok(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[1].port));
    for node in &nodes {
        let mut client = node.connect();
        wait_for("the cluster is whole", SOON, || {
            let info = client.run("CLUSTER INFO").text();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        });
    }
    nodes
}

#[test]
fn a_node_of_a_cluster_tells_of_its_own_keys_only() {
    let nodes = two_nodes();
    let (mut here, mut there) = (listen(&nodes[0], "EA"), listen(&nodes[1], "EA"));
    let mut client = nodes[0].connect();
    client.ok("SET k v");
    client.run("PUBLISH __keyevent@9__:mine x");
    assert_eq!((next(&mut here), next(&mut here)), ("0__:set k".into(), "9__:mine x".into()));
    assert_eq!(next(&mut there), "9__:mine x", "messages go to all nodes, events do not");
}

/// To look whether the keys of a slot that moves are here is no command on them: a dead one stays for the next
/// command, under whose locks its end is logged and told.
#[test]
fn a_key_that_dies_in_a_slot_that_moves_goes_with_the_next_command_on_it() {
    let nodes = two_nodes();
    let target = nodes[1].connect().run("CLUSTER MYID").text();
    let (mut client, mut reader) = (nodes[0].connect(), nodes[0].connect());
    client.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    client.ok("XGROUP CREATE x g $ MKSTREAM");
    client.expect("XGROUP CREATECONSUMER x g c", ":1");
    let mut listener = listen(&nodes[0], "Ex$");
    reader.send(&["XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "x", ">"]);
    wait_for("the reader waits", SOON, || client.info_int("blocked_clients") == 1);
    client.expect("PEXPIRE x 30", ":1");
    client.ok("SET timer v PX 60");
    wait_for("its time has come", SOON, || client.run("EXISTS timer").int() == 0);
    let slot = client.run("CLUSTER KEYSLOT x").int();
    client.ok(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
    client.expect("TYPE x", &format!("-ASK {slot} 127.0.0.1:{}", nodes[1].port));
    client.ok("SET other v");
    client.ok(&format!("CLUSTER SETSLOT {slot} STABLE"));
    client.expect("TYPE x", "+none");
    for expected in ["0__:set timer", "0__:expired timer", "0__:set other", "0__:expired x"] {
        assert_eq!(next(&mut listener), expected);
    }
    assert!(reader.read().to_string().starts_with('-'));
}
