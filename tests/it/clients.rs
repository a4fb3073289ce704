//! What clients do to one another and to the server while it runs: pauses, kills, changes of the
//! configuration that concern connections, orderly ends that are called off.

use crate::common::client::{Client, Reply};
use crate::common::server::{Launch, Server, free_port};
use crate::common::{SOON, wait_for};
use std::io::Read;
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

#[test]
fn a_pause_ends_by_itself() {
    let server = Server::subject();
    let mut judge = server.connect();
    let mut other = server.connect();
    let start = Instant::now();
    judge.ok("CLIENT PAUSE 400");
    other.expect("PING", "+PONG");
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
    judge.ok("CLIENT PAUSE 100000 WRITE");
    other.send(&["SET", "k", "v"]);
    let mut third = server.connect();
    third.expect("GET k", "nil");
    // A transaction with a write in it waits as a whole.
    third.ok("MULTI");
    third.run("GET k");
    third.expect("EXEC", "[nil]");
    judge.ok("CLIENT UNPAUSE");
    assert_eq!(other.read().to_string(), "+OK");
}

#[test]
fn a_blocked_client_is_unblocked_as_asked() {
    let server = Server::subject();
    let mut judge = server.connect();
    let mut blocked = server.connect();
    let id = blocked.run("CLIENT ID").int();
    for (how, reply) in
        [("TIMEOUT", "nil-array"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK")]
    {
        blocked.send(&["BLPOP", "none", "0"]);
        wait_for("it is blocked", SOON, || judge.info_int("blocked_clients") == 1);
        judge.expect(&format!("CLIENT UNBLOCK {id} {how}"), ":1");
        assert_eq!(blocked.read().to_string(), reply);
        judge.expect(&format!("CLIENT UNBLOCK {id}"), ":0");
    }
    assert_eq!(judge.info_int("blocked_clients"), 0);
}

/// Its worker answers it later, but from then on it is served by nobody: on one worker, on several, in a transaction.
#[test]
fn what_is_pushed_after_a_client_was_unblocked_or_killed_stays() {
    let server = Server::subject();
    let mut judge = server.connect();
    for round in 0..60 {
        let mut waiting = server.connect();
        let id = waiting.run("CLIENT ID").int();
        waiting.send(&["BLPOP", "l", "0"]);
        wait_for("it is blocked", SOON, || judge.info_int("blocked_clients") == 1);
        let (end, killed) = match round % 3 {
            0 => (format!("CLIENT KILL ID {id}"), true),
            _ => (format!("CLIENT UNBLOCK {id}"), false),
        };
        let replies = if round % 2 == 0 {
            judge.pipeline(&[&*end, "RPUSH l a", "LLEN l"])
        } else {
            judge.pipeline(&["MULTI", "RPUSH l a", &*end, "EXEC", "LLEN l"])[3..].to_vec()
        };
        assert_eq!(replies.last().map(Reply::int), Some(1), "round {round}: {replies:?}");
        if killed {
            assert!(!judge.run("CLIENT LIST").text().contains(&format!("id={id} ")));
            assert!(waiting.closed());
        } else {
            assert_eq!(waiting.read().to_string(), "nil-array");
        }
        judge.expect("DEL l", ":1");
    }
}

/// As Redis 7.2 and later tell it; before, the answer was UNBLOCKED.
#[test]
fn a_reader_of_a_group_is_told_that_its_stream_is_gone() {
    let server = Server::subject();
    let mut judge = server.connect();
    let mut reader = server.connect();
    let no_group =
        "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option".to_owned();
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value".to_owned();
    for (change, reply) in [("DEL s", &no_group), ("XGROUP DESTROY s g", &no_group), ("SET s x", &wrong_type)]
    {
        judge.run("DEL s");
        judge.ok("XGROUP CREATE s g $ MKSTREAM");
        reader.send(&["XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "s", ">"]);
        wait_for("it is blocked", SOON, || judge.info_int("blocked_clients") == 1);
        judge.run(change);
        assert_eq!(&reader.read().to_string(), reply, "{change}");
    }
    // A client that reads without a group waits on.
    judge.run("DEL s");
    reader.send(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]);
    wait_for("it is blocked", SOON, || judge.info_int("blocked_clients") == 1);
    judge.ok("SET s x");
    judge.run("DEL s");
    judge.run("XADD s 1-1 f v");
    assert_eq!(reader.read().to_string(), "[[\"s\", [[\"1-1\", [\"f\", \"v\"]]]]]");
}

/// Reading such a request from its start again at every piece took a minute.
#[test]
fn a_command_of_very_many_arguments_may_come_in_small_pieces() {
    let server = Server::subject();
    let mut client = server.connect();
    let mut words = vec![b"MSET".to_vec()];
    words.extend((0..200_000).map(|i| format!("{i:0100}").into_bytes()));
    let request = crate::common::client::encode(&words);
    let start = Instant::now();
    for piece in request.chunks(16 * 1024) {
        client.send_raw(piece);
    }
    // The next one comes with its end.
    client.send_raw(b"PING\r\n");
    assert_eq!(client.read().to_string(), "+OK");
    assert_eq!(client.read().to_string(), "+PONG");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    client.expect("DBSIZE", ":100000");
    // A mistake far behind the start is told at once.
    client.send_raw(&request[..request.len() - 200_000]);
    client.send_raw(&[b'!'; 200]);
    assert!(client.read().to_string().starts_with("-ERR Protocol error: expected '$', got"));
    assert!(client.closed());
}

#[test]
fn a_listener_that_was_killed_is_counted_no_more() {
    let server = Launch::subject().args(&["--io-threads", "2"]).start();
    let mut killer = server.connect();
    for round in 0..50 {
        let mut listener = server.connect();
        let id = listener.run("CLIENT ID").int();
        listener.run("SUBSCRIBE ch");
        listener.run("PSUBSCRIBE c*");
        killer.expect("PUBLISH ch x", ":2");
        killer.expect(&format!("CLIENT KILL ID {id}"), ":1");
        assert_eq!(killer.run("PUBLISH ch x").int(), 0, "round {round}");
        killer.expect("PUBSUB NUMSUB ch", "[\"ch\", :0]");
        killer.expect("PUBSUB NUMPAT", ":0");
    }
}

#[test]
fn clients_are_killed_by_what_they_are() {
    let server = Server::subject();
    let mut judge = server.connect();
    let mut listener = server.connect();
    listener.run("SUBSCRIBE ch");
    let mut normal = server.connect();
    normal.run("PING");
    judge.expect("CLIENT KILL TYPE pubsub", ":1");
    assert!(listener.closed());
    judge.expect("CLIENT KILL USER nobody", "-ERR No such user 'nobody'");
    let local = format!("127.0.0.1:{}", server.port);
    // Nobody but the two is there, and the asker is spared.
    wait_for("the listener is gone", SOON, || judge.run("CLIENT LIST").text().lines().count() == 2);
    judge.expect(&format!("CLIENT KILL LADDR {local}"), ":1");
    assert!(normal.closed());
    judge.expect("CLIENT KILL SKIPME no", ":1");
    assert!(judge.closed());
}

#[test]
fn the_port_can_be_changed_while_it_runs() {
    let server = Server::subject();
    let mut client = server.connect();
    let port = free_port();
    client.ok(&format!("CONFIG SET port {port}"));
    wait_for("the new port answers", SOON, || {
        Client::try_connect(port).is_ok_and(|mut c| c.try_run("PING").is_ok())
    });
    client.expect("PING", "+PONG");
    assert_eq!(client.info("tcp_port"), port.to_string());
    let taken = Server::subject();
    let refused = client.run(&format!("CONFIG SET port {}", taken.port)).text();
    assert!(refused.contains("Unable to listen on this port"), "{refused}");
    client.expect("CONFIG GET port", &format!("[\"port\", \"{port}\"]"));
}

#[test]
fn a_new_password_concerns_new_connections() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("CONFIG SET requirepass secret");
    client.expect("PING", "+PONG");
    let mut new = server.connect();
    new.expect("PING", "-NOAUTH Authentication required.");
    // What is no command at all is told to anybody.
    assert!(new.run("FOO").text().starts_with("ERR unknown command 'FOO'"));
    new.ok("AUTH secret");
    new.expect("PING", "+PONG");
    client.ok(r#"CONFIG SET requirepass """#);
    server.connect().expect("PING", "+PONG");
}

/// An address of this machine that is not the loopback, if it has one.
fn other_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses the address that it would send from.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn protected_mode_refuses_strangers_with_a_text() {
    let Some(address) = other_address() else { return };
    let server = Launch::subject().args(&["--bind", "127.0.0.1", &address.to_string()]).start();
    let mut stranger = TcpStream::connect((address, server.port)).expect("connect");
    let mut text = String::new();
    stranger.read_to_string(&mut text).expect("a refusal");
    assert!(text.starts_with("-DENIED Redis is running in protected mode"), "{text}");
    let mut client = server.connect();
    assert_eq!(client.info("rejected_connections"), "1");
    client.ok("CONFIG SET protected-mode no");
    let mut guest = TcpStream::connect((address, server.port)).expect("connect");
    std::io::Write::write_all(&mut guest, b"PING\r\n").expect("send");
    let mut reply = [0; 7];
    guest.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn debug_is_forbidden_unless_it_is_allowed() {
    let server = Launch::subject().args(&["--enable-debug-command", "no"]).start();
    let refused = server.connect().run("DEBUG SLEEP 0").text();
    assert!(refused.starts_with("ERR DEBUG command not allowed."), "{refused}");
    let server = Launch::subject().args(&["--enable-debug-command", "local"]).start();
    server.connect().ok("DEBUG SLEEP 0");
}

#[test]
fn commands_go_by_their_new_names() {
    let server = Launch::subject()
        .args(&["--rename-command", "FLUSHALL", "wipe", "--rename-command", "KEYS", ""])
        .start();
    let mut client = server.connect();
    client.ok("SET k v");
    assert!(client.run("FLUSHALL").text().starts_with("ERR unknown command 'FLUSHALL'"));
    assert!(client.run("KEYS *").text().starts_with("ERR unknown command 'KEYS'"));
    client.ok("WIPE");
    client.expect("DBSIZE", ":0");
    client.expect("WIPE a", "-ERR syntax error");
}

#[test]
fn a_client_that_sends_without_an_end_is_closed() {
    let server = Launch::subject().args(&["--client-query-buffer-limit", "1mb"]).start();
    let mut client = server.connect();
    client.run("PING");
    let _ = client.try_send_raw(b"*2\r\n$4\r\nECHO\r\n$4000000\r\n");
    let junk = vec![b'x'; 64 * 1024];
    wait_for("it is closed", SOON, || (0..60).any(|_| client.try_send_raw(&junk).is_err()));
    assert!(client.closed());
}

#[test]
fn statistics_begin_anew() {
    let server = Server::subject();
    let mut client = server.connect();
    client.run("GET none");
    client.run("NOSUCH");
    assert!(client.info_int("keyspace_misses") > 0);
    assert!(client.run("INFO errorstats").text().contains("errorstat_ERR:count=1"));
    client.ok("CONFIG RESETSTAT");
    assert_eq!(client.info("keyspace_misses"), "0");
    assert!(!client.run("INFO commandstats").text().contains("cmdstat_get"));
    assert!(!client.run("INFO errorstats").text().contains("errorstat_ERR"));
}

/// EXEC that is refused counts as a call that failed, its queue not at all; a queue that runs counts once.
#[test]
fn commands_of_a_transaction_are_counted_once() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("CONFIG RESETSTAT");
    let line = |client: &mut Client, name: &str| {
        let text = client.run("INFO commandstats").text();
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{name}:"))).unwrap_or_default();
        let number = |field: &str| {
            let value = line.split(',').find_map(|f| f.strip_prefix(field)?.strip_prefix('='));
            value.map_or(0, |v| v.trim().parse::<u64>().expect("a number"))
        };
        (number("calls"), number("rejected_calls"), number("failed_calls"))
    };
    client.ok("MULTI");
    client.run("SET k v");
    client.run("LPUSH k v");
    client.run("EXEC");
    assert_eq!(line(&mut client, "set"), (1, 0, 0));
    assert_eq!(line(&mut client, "lpush"), (1, 0, 1));
    assert_eq!(line(&mut client, "exec"), (1, 0, 0));
    client.ok("MULTI");
    client.run("SET k v");
    client.run("GET");
    client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(line(&mut client, "exec"), (2, 0, 1));
    assert_eq!(line(&mut client, "set"), (1, 0, 0));
    assert_eq!(line(&mut client, "get"), (0, 1, 0));
    client.run("AUTH wrong");
    client.run("CONFIG SET nosuch x");
    assert_eq!(line(&mut client, "auth"), (1, 0, 1));
    assert_eq!(line(&mut client, "config|set"), (1, 0, 1));
    assert_eq!(client.info("total_error_replies"), "5");
}

#[test]
fn what_is_freed_in_the_background_and_time_above_the_limit_are_counted() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("DEBUG POPULATE 1000");
    client.ok("FLUSHALL ASYNC");
    wait_for("all is freed", SOON, || client.info("lazyfreed_objects") == "1000");
    wait_for("nothing is left to free", SOON, || client.info("lazyfree_pending_objects") == "0");
    client.ok("CONFIG RESETSTAT");
    assert_eq!(client.info("lazyfreed_objects"), "0");
    client.ok("SET k v");
    client.ok("CONFIG SET maxmemory 1000");
    client.run("SET k w");
    wait_for("time passes", SOON, || client.info_int("current_eviction_exceeded_time") > 20);
    client.ok("CONFIG SET maxmemory 0");
    client.run("SET k w");
    wait_for("it is over", SOON, || client.info("current_eviction_exceeded_time") == "0");
    assert!(client.info_int("total_eviction_exceeded_time") > 20);
}
