//! Connections as such: limits, timeouts, many of them, output limits.

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, heavy, wait_for};
use std::time::{Duration, Instant};

#[test]
fn maxclients_refuses_with_a_text() {
    let server = Launch::subject().args(&["--maxclients", "10"]).start();
    let mut kept: Vec<Client> = Vec::new();
    wait_for("the connection of the start is gone", SOON, || {
        server.connect().try_run("INFO clients").is_ok_and(|r| r.text().contains("connected_clients:1\r"))
    });
    for _ in 0..10 {
        let mut client = server.connect();
        // The probes above may still be closing.
        wait_for("a place", SOON, || {
            client.try_run("PING").is_ok_and(|r| r.text() == "PONG") || {
                client = server.connect();
                false
            }
        });
        kept.push(client);
    }
    let mut refused = server.connect();
    assert_eq!(refused.read().text(), "ERR max number of clients reached");
    assert!(refused.closed());
    assert!(kept[0].info_int("rejected_connections") >= 1);
    kept[0].ok("CONFIG SET maxclients 20");
    server.connect().expect("PING", "+PONG");
}

#[test]
fn idle_connections_are_closed_after_timeout() {
    let server = Launch::subject().args(&["--timeout", "1"]).start();
    let mut idle = server.connect();
    idle.expect("PING", "+PONG");
    let mut subscriber = server.connect();
    subscriber.run("SUBSCRIBE ch");
    assert!(idle.closed());
    // A subscriber waits by profession.
    server.connect().expect("PUBLISH ch x", ":1");
    assert_eq!(subscriber.read().to_string(), "[\"message\", \"ch\", \"x\"]");
}

#[test]
fn client_list_shows_every_connection() {
    let server = Server::subject();
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.ok(&format!("CLIENT SETNAME c{i}"));
    }
    let list = clients[0].run("CLIENT LIST").text();
    for (i, client) in clients.iter().enumerate() {
        let line = list.lines().find(|l| l.contains(&format!(" name=c{i} "))).expect("a line for each");
        assert!(line.contains(&format!(" addr=127.0.0.1:{} ", client.local_port())), "{line}");
        assert!(line.contains(&format!(" laddr=127.0.0.1:{} ", server.port)), "{line}");
    }
    let address = format!("127.0.0.1:{}", clients[1].local_port());
    clients[0].ok(&format!("CLIENT KILL {address}"));
    assert!(clients[1].closed());
    let id = clients[2].run("CLIENT ID").int();
    clients[0].expect(&format!("CLIENT KILL ID {id}"), ":1");
    assert!(clients[2].closed());
    wait_for("the list forgets them", SOON, || clients[0].run("CLIENT LIST").text().lines().count() == 3);
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped_at_its_output_limit() {
    let server = Server::subject();
    let mut judge = server.connect();
    judge.ok(r#"CONFIG SET client-output-buffer-limit "pubsub 1mb 1mb 1""#);
    let mut deaf = server.connect();
    deaf.run("SUBSCRIBE ch");
    let message = "x".repeat(100_000);
    wait_for("the subscriber is dropped", SOON, || judge.cmd(&["PUBLISH", "ch", &message]).int() == 0);
    wait_for("it sees the end", SOON, || deaf.closed());
}

/// Lets time pass, where time is what a test is about.
fn pass(time: Duration) {
    let start = Instant::now();
    wait_for("time passes", SOON, || start.elapsed() >= time);
}

/// What waited once, long ago, and was read meanwhile does not count.
#[test]
fn a_soft_limit_gives_its_time_anew() {
    let server = Server::subject();
    let mut judge = server.connect();
    judge.ok(r#"CONFIG SET client-output-buffer-limit "pubsub 0 1mb 2""#);
    let mut slow = server.connect();
    slow.run("SUBSCRIBE ch");
    let message = "x".repeat(100_000);
    // More than the kernel keeps, less than the limit.
    let mut sent = 0;
    wait_for("something waits", SOON, || {
        sent += 1;
        judge.cmd(&["PUBLISH", "ch", &message]);
        judge
            .run("CLIENT LIST TYPE pubsub")
            .text()
            .split(" omem=")
            .nth(1)
            .is_some_and(|rest| !rest.starts_with("0 "))
    });
    pass(Duration::from_millis(1100));
    for _ in 0..sent {
        slow.read();
    }
    pass(Duration::from_secs(3));
    let start = Instant::now();
    wait_for("the subscriber is dropped", SOON, || judge.cmd(&["PUBLISH", "ch", &message]).int() == 0);
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn the_unix_socket_serves_too() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let dir = crate::common::server::fresh_dir();
    let path = dir.join("s.sock");
    let server = Launch::subject().args(&["--unixsocket", &path.to_string_lossy()]).start();
    let mut stream = UnixStream::connect(&path).expect("connect to the socket file");
    stream.write_all(b"PING\r\n").expect("send");
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"+PONG\r\n");
    server.connect().expect("PING", "+PONG");
}

#[test]
fn ten_thousand_idle_connections_cost_less_than_ten_kilobytes_each() {
    const COUNT: u64 = 10_000;
    let _serial = heavy();
    let _ = std::process::Command::new("true").status();
    // Both sides of each connection are descriptors: ours are limited too.
    let limit = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft: u64 = limit
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .and_then(|l| l.split_whitespace().nth(3)?.parse().ok())
        .unwrap_or(1024);
    let count = COUNT.min(soft.saturating_sub(200));
    let server = Launch::subject().args(&["--maxclients", "20000"]).start();
    let mut judge = server.connect();
    judge.expect("PING", "+PONG");
    let before = server.resident();
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..count {
        let mut client = server.connect();
        client.expect("PING", "+PONG");
        clients.push(client);
    }
    wait_for("all are connected", SOON, || judge.info_int("connected_clients") >= count as i64);
    let each = server.resident().saturating_sub(before) / count;
    println!("{count} connections: {each} bytes each");
    if !subject_is_real() {
        // A real Redis starts each with a 16 KB reply buffer that it gives back later.
        assert!(each < 10 * 1024, "{each} bytes each");
    }
    for client in clients.iter_mut().step_by(100) {
        client.expect("PING", "+PONG");
    }
    drop(clients);
    wait_for("all are gone", Duration::from_secs(60), || judge.info_int("connected_clients") == 1);
}
