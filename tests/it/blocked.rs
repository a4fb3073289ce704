//! Blocked clients are answered once, in every turn of events.

use std::time::Duration;

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, wait_for};

fn blocked(judge: &mut Client, count: i64) {
    wait_for("clients are blocked", SOON, || judge.info_int("blocked_clients") == count);
}

fn send(client: &mut Client, line: &str) {
    client.send(&line.split(' ').collect::<Vec<_>>());
}

/// The mode at the time of the command holds for its late reply.
#[test]
fn client_reply_holds_for_the_late_reply_of_a_blocking_command() {
    let server = Server::subject();
    let mut judge = server.connect();
    for (command, end) in [
        ("BLPOP list 0", "RPUSH list v"),
        ("BZPOPMIN zset 0", "ZADD zset 1 v"),
        ("XREAD BLOCK 0 STREAMS stream $", "XADD stream * f v"),
        ("BLPOP list 0.05", "PING"),
        ("BLPOP list 0", "CLIENT UNBLOCK $id ERROR"),
    ] {
        let mut client = server.connect();
        let id = client.run("CLIENT ID").int().to_string();
        send(&mut client, "CLIENT REPLY SKIP");
        send(&mut client, command);
        if !command.ends_with(".05") {
            blocked(&mut judge, 1);
        }
        judge.run(&end.replace("$id", &id));
        client.expect("ECHO next", "\"next\"");
        send(&mut client, "CLIENT REPLY OFF");
        send(&mut client, command);
        if !command.ends_with(".05") {
            blocked(&mut judge, 1);
        }
        judge.run(&end.replace("$id", &id));
        send(&mut client, "PING");
        client.ok("CLIENT REPLY ON");
        client.expect("ECHO next", "\"next\"");
    }
}

/// The command of a blocked client that is run again while the node is paused waits on, and keeps its deadline.
#[test]
fn a_blocked_command_outlives_a_pause() {
    if subject_is_real() {
        return;
    }
    let server = Launch::subject().args(&["--io-threads", "2"]).start();
    let (mut judge, mut holder) = (server.connect(), server.connect());
    let mut wait_in_pause = |command: &str| {
        let mut client = server.connect();
        send(&mut client, command);
        blocked(&mut judge, 1);
        // Its command needs a shard that another holds, so that it is run again when the pause is on.
        send(&mut holder, "DEBUG HOLD-SHARD target 0.5");
        wait_for("the shard is held", SOON, || {
            let mut probe = server.connect();
            probe.set_read_timeout(Duration::from_millis(100));
            probe.try_run("EXISTS target").is_err()
        });
        judge.expect("RPUSH source v", ":1");
        judge.ok("CLIENT PAUSE 100000 WRITE");
        holder.read();
        client
    };
    let mut client = wait_in_pause("BLMOVE source target LEFT RIGHT 0");
    send(&mut client, "PING");
    let mut timed = server.connect();
    assert_eq!(timed.info("blocked_clients"), "1");
    timed.ok("CLIENT UNPAUSE");
    assert_eq!(client.read().to_string(), "\"v\"");
    assert_eq!(client.read().to_string(), "+PONG");
    timed.run("DEL source");
    // By time, by hand, and by the end of the connection.
    let mut client = wait_in_pause("BLMOVE source target LEFT RIGHT 1.5");
    send(&mut client, "PING");
    assert_eq!(client.read().to_string(), "nil-array");
    assert_eq!(client.read().to_string(), "+PONG");
    timed.ok("CLIENT UNPAUSE");
    timed.run("DEL source");
    let mut client = server.connect();
    let id = client.run("CLIENT ID").int();
    drop(client);
    let mut client = wait_in_pause("BLMOVE source target LEFT RIGHT 0");
    timed.expect(&format!("CLIENT UNBLOCK {} ERROR", id + 1), ":1");
    assert!(client.read().to_string().starts_with("-UNBLOCKED"));
    client.expect("PING", "+PONG");
    timed.ok("CLIENT UNPAUSE");
    timed.run("DEL source");
    drop(wait_in_pause("BLMOVE source target LEFT RIGHT 0"));
    wait_for("nobody is blocked", SOON, || timed.info("blocked_clients") == "0");
    timed.ok("CLIENT UNPAUSE");
    timed.expect("LRANGE source 0 -1", "[\"v\"]");
}

/// What they have sent behind the command is not run.
#[test]
fn blocked_clients_of_a_primary_turned_replica_are_let_go_and_closed() {
    let (server, other) = (Server::subject(), Server::subject());
    let mut judge = server.connect();
    judge.ok("XGROUP CREATE x g $ MKSTREAM");
    let commands = [
        "BLPOP list 0",
        "BZPOPMIN zset 100",
        "XREAD BLOCK 0 STREAMS x $",
        "XREADGROUP GROUP g c BLOCK 0 STREAMS x >",
        "WAIT 1 0",
    ];
    let mut clients = commands.map(|_| server.connect());
    for (client, command) in clients.iter_mut().zip(commands) {
        if command.starts_with("WAIT") {
            client.ok("SET k v");
        }
        send(client, command);
        send(client, "PING");
    }
    blocked(&mut judge, commands.len() as i64);
    judge.ok(&format!("REPLICAOF 127.0.0.1 {}", other.port));
    for (client, command) in clients.iter_mut().zip(commands) {
        let why =
            "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
        assert_eq!(client.read().to_string(), why, "{command}");
        assert!(client.closed() && client.try_read().is_err(), "{command}");
    }
    blocked(&mut judge, 0);
    let errors = judge.run("INFO errorstats").text();
    assert!(errors.contains("errorstat_UNBLOCKED:count=5"), "{errors}");
}

/// However the stream goes.
#[test]
fn readers_of_a_group_hear_when_their_stream_goes() {
    let server = Server::subject();
    let mut judge = server.connect();
    for change in [
        "RENAME s other",
        "FLUSHALL",
        "FLUSHDB ASYNC",
        "SWAPDB 0 1",
        "PEXPIRE s 30",
        "MOVE s 2",
        "CONFIG SET maxmemory 1 maxmemory-policy allkeys-lru",
        "UNLINK s",
    ] {
        judge.ok("FLUSHALL");
        judge.ok("XGROUP CREATE s g $ MKSTREAM");
        let mut reader = server.connect();
        send(&mut reader, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        blocked(&mut judge, 1);
        judge.run(change);
        if change.starts_with("CONFIG") && subject_is_real() {
            judge.run("SET by x");
        }
        assert!(reader.read().to_string().starts_with("-NOGROUP"), "{change}");
        judge.ok("CONFIG SET maxmemory 0");
        reader.expect("PING", "+PONG");
    }
    blocked(&mut judge, 0);
}

#[test]
fn a_blocking_command_is_counted_when_it_ends() {
    let server = Server::subject();
    let (mut judge, mut client) = (server.connect(), server.connect());
    let id = client.run("CLIENT ID").int();
    judge.ok("CONFIG RESETSTAT");
    let count = |judge: &mut Client, what: &str| {
        let text = judge.run("INFO commandstats").text();
        let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_blpop:")).unwrap_or_default();
        let field = line.split(',').find_map(|field| field.strip_prefix(what)).unwrap_or("=0");
        field[1..].trim().parse::<i64>().expect("a number")
    };
    send(&mut client, "BLPOP list 0");
    blocked(&mut judge, 1);
    assert_eq!(count(&mut judge, "calls"), 0);
    judge.run("RPUSH list v");
    client.read();
    assert_eq!(count(&mut judge, "calls"), 1);
    client.expect("BLPOP list 0.01", "nil-array");
    assert_eq!(count(&mut judge, "calls"), 2);
    send(&mut client, "BLPOP list 0");
    blocked(&mut judge, 1);
    judge.expect(&format!("CLIENT UNBLOCK {id}"), ":1");
    client.read();
    assert_eq!((count(&mut judge, "calls"), count(&mut judge, "failed_calls")), (3, 0));
    send(&mut client, "BLPOP list 0");
    blocked(&mut judge, 1);
    judge.expect(&format!("CLIENT UNBLOCK {id} ERROR"), ":1");
    client.read();
    assert_eq!((count(&mut judge, "calls"), count(&mut judge, "failed_calls")), (4, 1));
    assert_eq!(count(&mut judge, "rejected_calls"), 0);
    assert!(judge.run("INFO errorstats").text().contains("errorstat_UNBLOCKED:count=1"));
    judge.ok("SET text v");
    client.expect("BLPOP text 0", "-WRONGTYPE Operation against a key holding the wrong kind of value");
    client.run("BLPOP");
    assert_eq!((count(&mut judge, "calls"), count(&mut judge, "failed_calls")), (5, 2));
    assert_eq!(count(&mut judge, "rejected_calls"), 1);
}

#[test]
fn a_blocked_command_that_fails_when_it_is_served_is_counted_so() {
    let server = Server::subject();
    let (mut judge, mut client) = (server.connect(), server.connect());
    judge.ok("CONFIG RESETSTAT");
    send(&mut client, "BLMOVE source target LEFT RIGHT 0");
    blocked(&mut judge, 1);
    judge.ok("SET target text");
    judge.expect("RPUSH source v", ":1");
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(client.read().to_string(), wrong);
    let stats = judge.run("INFO commandstats").text();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_blmove:calls=1,")).unwrap_or(&stats);
    assert!(line.ends_with("rejected_calls=0,failed_calls=1"), "{line}");
    judge.expect("LRANGE source 0 -1", "[\"v\"]");
}
