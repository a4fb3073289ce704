//! Clients that mean harm, or do not know better: what they cost is bounded, and others are answered meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::client::{Client, encode};
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::witness::beside_another;
use crate::common::{SOON, heavy, wait_for};

const MB: u64 = 1 << 20;
/// A server with one thread for clients, so that whoever means harm and whoever does not meet there.
fn subject() -> Launch {
    Launch::subject().args(&["--io-threads", "1"])
}

/// Checks that the server takes at most `most` bytes more than `before`, once what is to be freed is freed.
#[track_caller]
fn bounded(server: &Server, before: u64, most: u64) {
    let grown = || server.resident().saturating_sub(before);
    wait_for("its memory is bounded", SOON, || grown() < most);
}

fn send_in_vain(client: &mut Client, bytes: &[u8]) {
    // The server may have closed the connection.
    let _ = client.try_send_raw(bytes);
}

#[test]
fn a_slow_loris_costs_its_connections_only() {
    let _alone = heavy();
    let server = subject().start();
    let before = server.resident();
    beside_another(&server, || {
        let mut loris: Vec<Client> = (0..500).map(|_| server.connect()).collect();
        let request = encode(&["ECHO", "at last"]);
        for byte in &request {
            for client in &mut loris {
                client.send_raw(&[*byte]);
            }
        }
        bounded(&server, before, 40 * MB);
        for client in &mut loris {
            assert_eq!(client.read().text(), "at last");
        }
    });
}

#[test]
fn half_requests_are_forgotten_with_their_connections() {
    let _alone = heavy();
    let server = subject().start();
    let mut judge = server.connect();
    let before = server.resident();
    beside_another(&server, || {
        for half in
            [&b"*"[..], b"*2\r\n$3\r\nGE", b"*2\r\n$3\r\nSET\r\n$1000000\r\nabc", b"SET k \"abc", b"\r"]
        {
            let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.send_raw(half));
            judge.expect("PING", "+PONG");
        }
    });
    wait_for("their connections are closed", SOON, || judge.info_int("connected_clients") == 1);
    judge.expect("EXISTS k", ":0");
    bounded(&server, before, 40 * MB);
}

#[test]
fn lengths_that_are_only_declared_take_no_memory() {
    let _alone = heavy();
    let server = subject().start();
    let before = server.resident();
    beside_another(&server, || {
        let mut waiting: Vec<Client> = (0..100).map(|_| server.connect()).collect();
        for (client, head) in waiting.iter_mut().zip(
            [
                &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n"[..],
                b"*1000000\r\n",
                b"*2\r\n$4\r\nECHO\r\n$500000000\r\nx",
                b"*1048576\r\n$3\r\nDEL\r\n",
            ]
            .into_iter()
            .cycle(),
        ) {
            client.send_raw(head);
        }
        for head in
            [&b"*2147483648\r\n"[..], b"*1\r\n$-5\r\n", b"*1\r\n$536870913\r\n", b"*99999999999999999999\r\n"]
        {
            let mut client = server.connect();
            client.send_raw(head);
            let error = client.read().to_string();
            assert!(error.starts_with("-ERR Protocol error: invalid "), "{error}");
            assert!(client.closed());
        }
        bounded(&server, before, 60 * MB);
    });
}

/// Seconds of processor time that a server has taken.
fn seconds_of_work(server: &Server) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let fields = stat.rsplit(") ").next().map(|rest| rest.split(' ').skip(11)).expect("times");
    let ticks: f64 = fields.take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / 100.0 // USER_HZ, which is the same everywhere
}

/// Of many short words as much is read at once as has come, not one word after the other.
#[test]
fn requests_of_very_many_words_are_read_in_large_pieces() {
    let server = Server::subject();
    let mut client = server.connect();
    let before = client.info_int("total_reads_processed");
    let words: Vec<&str> = ["RPUSH", "list"].into_iter().chain(std::iter::repeat_n("x", 300_000)).collect();
    assert_eq!(client.cmd(&words).int(), 300_000);
    let reads = client.info_int("total_reads_processed") - before;
    assert!(reads < 20_000, "{reads} reads for two megabytes");
}

/// What a client adds is not compared with all that it said before.
#[test]
fn very_many_watched_keys_and_prefixes_take_little_time() {
    let server = Server::subject();
    let mut client = server.connect();
    let began = seconds_of_work(&server);
    let keys = (0..100_000).map(|i| format!("key:{i:06}"));
    let words: Vec<String> = ["WATCH".to_owned()].into_iter().chain(keys.clone()).collect();
    assert_eq!(client.cmd(&words).text(), "OK");
    assert_eq!(client.cmd(&words).text(), "OK");
    let mut words = ["CLIENT", "TRACKING", "ON", "BCAST"].map(str::to_owned).to_vec();
    words.extend(keys.flat_map(|key| ["PREFIX".to_owned(), key]));
    client.run("HELLO 3");
    assert_eq!(client.cmd(&words).text(), "OK");
    let took = seconds_of_work(&server) - began;
    // Redis needs some minutes for both.
    assert!(took < 6.0 || subject_is_real(), "{took} s of work");
}

/// A name is there once, however many show it: the client, the list of clients, the log of slow commands.
#[test]
fn long_names_of_clients_are_kept_once() {
    if subject_is_real() {
        return;
    }
    let _alone = heavy();
    let server = Server::subject();
    let mut judge = server.connect();
    judge.ok("CONFIG SET slowlog-log-slower-than 0");
    let before = judge.info_int("used_memory");
    let (name, library) = ("n".repeat(4 << 20), "l".repeat(4 << 20));
    let mut named: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut named {
        assert_eq!(client.cmd(&["CLIENT", "SETNAME", &name]).text(), "OK");
        assert_eq!(client.cmd(&["CLIENT", "SETINFO", "lib-name", &library]).text(), "OK");
        client.ok("MULTI");
        client.ok("DISCARD");
        client.ok("SELECT 1");
    }
    wait_for("80 MB of names take 80 MB", SOON, || judge.info_int("used_memory") - before < 110 << 20);
}

/// Before a password nobody may make the server wait for much.
#[test]
fn strangers_may_declare_little() {
    let server = Launch::subject().args(&["--requirepass", "secret"]).start();
    for head in [&b"*11\r\n"[..], b"*2\r\n$16385\r\n"] {
        let mut client = server.connect();
        client.send_raw(head);
        let error = client.read().to_string();
        assert!(error.starts_with("-ERR Protocol error: unauthenticated "), "{error}");
        assert!(client.closed());
    }
}

#[test]
fn who_asks_a_million_times_and_reads_nothing_is_cut_off_at_its_limit() {
    let _alone = heavy();
    let server = subject().start();
    server.connect().ok("CONFIG SET client-output-buffer-limit \"normal 4mb 0 0\"");
    let before = server.resident();
    beside_another(&server, || {
        let mut client = server.connect();
        client.stream().set_write_timeout(Some(Duration::from_secs(2))).expect("set a timeout");
        let requests = b"ECHO a-reply-that-takes-some-room-in-the-end\r\n".repeat(1000);
        for _ in 0..1000 {
            if client.try_send_raw(&requests).is_err() {
                break;
            }
        }
    });
    bounded(&server, before, 60 * MB);
}

#[test]
fn thousands_of_connections_come_and_go() {
    let _alone = heavy();
    let server = subject().start();
    let mut judge = server.connect();
    judge.expect("PING", "+PONG"); // or its own descriptor might not be there yet
    let before = server.resident();
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).map_or(0, std::iter::Iterator::count);
    let open = descriptors();
    beside_another(&server, || {
        for round in 0..50 {
            let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
            if round % 2 == 0 {
                clients.iter_mut().for_each(|client| client.send_raw(b"PING\r\nSUBSCRIBE ch\r\nWATCH k\r\n"));
            }
        }
    });
    wait_for("all are gone", SOON, || judge.info_int("connected_clients") == 1 && descriptors() <= open);
    judge.expect("PUBSUB CHANNELS", "[]");
    bounded(&server, before, 40 * MB);
}

#[test]
fn a_listener_that_never_reads_is_cut_off_at_its_limit() {
    let _alone = heavy();
    let server = subject().start();
    let mut publisher = server.connect();
    publisher.ok("CONFIG SET client-output-buffer-limit \"pubsub 8mb 0 0\"");
    let before = server.resident();
    beside_another(&server, || {
        let mut listener = server.connect();
        listener.run("SUBSCRIBE ch");
        let message = "x".repeat(1 << 20);
        for _ in 0..100 {
            publisher.cmd(&["PUBLISH", "ch", &message]);
        }
        wait_for("it is cut off", SOON, || publisher.run("PUBLISH ch x").int() == 0);
    });
    bounded(&server, before, 40 * MB);
}

/// A server of one worker in which a string of a megabyte stands, to be counted.
fn one_worker() -> Server {
    let server = Launch::subject().args(&["--io-threads", "1"]).start();
    server.connect().expect("SETRANGE bits 1000000 x", ":1000001");
    server
}

/// Lets the server find all at once what is sent by `send`.
fn at_once(server: &Server, send: impl FnOnce()) {
    server.signal("STOP");
    // One thread hears the signal; until it has run, the others go on.
    wait_for("all its threads have stopped", SOON, || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    });
    send();
    server.signal("CONT");
}

#[test]
fn one_who_asks_for_much_runs_little_of_it_before_others() {
    let server = one_worker();
    let (mut greedy, mut other) = (server.connect(), server.connect());
    for client in [&mut greedy, &mut other] {
        client.expect("PING", "+PONG");
    }
    at_once(&server, || {
        greedy.send_raw(&b"INCR ran\r\nBITCOUNT bits\r\n".repeat(400));
        other.send_raw(b"GET ran\r\n");
    });
    let ran: i64 = other.read().text().parse().unwrap_or(0);
    assert!(ran <= 100, "{ran} of 400 ran before");
    for n in 1..=400 {
        assert_eq!((greedy.read().int(), greedy.read().int()), (n, 4));
    }
}

#[test]
fn many_who_ask_byte_by_byte_go_behind_who_does_not() {
    let server = one_worker();
    let mut other = server.connect();
    other.expect("PING", "+PONG");
    let mut loris: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    loris.iter_mut().for_each(|client| client.send_raw(b"INC"));
    let begun = |line: &str| line.contains(" qbuf=3 ");
    wait_for("their first bytes are there", SOON, || {
        other.run("CLIENT LIST").text().lines().filter(|line| begun(line)).count() == 300
    });
    at_once(&server, || {
        loris.iter_mut().for_each(|client| client.send_raw(b"R ran\r\n"));
        other.send_raw(b"GET ran\r\n");
    });
    let ran: i64 = other.read().text().parse().unwrap_or(0);
    assert!(ran <= 50, "{ran} of 300 ran before");
    let mut answers: Vec<i64> = loris.iter_mut().map(|client| client.read().int()).collect();
    answers.sort_unstable();
    assert!(answers.into_iter().eq(1..=300), "each of them is served in the end");
}

#[test]
fn others_are_served_while_a_deep_queue_is_run() {
    const DEPTH: usize = 5_000;
    let server = one_worker();
    let (mut deep, mut other) = (server.connect(), server.connect());
    other.ok("SET elsewhere v");
    deep.ok("MULTI");
    deep.send_raw(&b"BITCOUNT bits\r\n".repeat(DEPTH));
    (0..DEPTH).for_each(|_| assert_eq!(deep.read().text(), "QUEUED"));
    deep.send_raw(b"EXEC\r\nPING\r\n");
    deep.stream().set_nonblocking(true).expect("a socket that does not wait");
    let mut answered = 0;
    while deep.stream().peek(&mut [0]).is_err() {
        other.expect("GET elsewhere", "\"v\"");
        answered += 1;
    }
    assert!(answered > 10, "{answered} answers to another");
    deep.stream().set_nonblocking(false).expect("a socket that waits");
    assert_eq!(deep.read().items().iter().filter(|count| count.int() == 4).count(), DEPTH);
    assert_eq!(deep.read().text(), "PONG");
}

/// A megabyte that the system takes at once is sent in pieces, all of them in the end.
#[test]
fn long_replies_arrive_whole_whatever_is_sent_at_once() {
    let server = one_worker();
    let mut client = server.connect();
    let long = "0123456789abcdef".repeat(200_000);
    assert_eq!(client.cmd(&["SET", "long", &long]).text(), "OK");
    client.send_raw(&b"GET long\r\nPING\r\n".repeat(10));
    for _ in 0..10 {
        assert_eq!((client.read().text() == long, client.read().text()), (true, "PONG".to_owned()));
    }
}

#[test]
fn browsers_are_sent_away() {
    let _alone = heavy();
    let server = subject().start();
    let before = server.resident();
    beside_another(&server, || {
        for _ in 0..50 {
            send_as_browsers(&server);
        }
    });
    server.connect().expect("EXISTS victim", ":0");
    assert!(server.log().contains("Possible SECURITY ATTACK detected"), "{}", server.log());
    bounded(&server, before, 40 * MB);
}

fn send_as_browsers(server: &Server) {
    for request in [
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\nSET victim 1\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET victim 1\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\nSET victim 1\r\n",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
        stream.set_read_timeout(Some(SOON)).expect("set a timeout");
        stream.write_all(request.as_bytes()).expect("send");
        let mut answer = Vec::new();
        // It may be reset, as not all of it was read.
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("+OK"), "{request}");
    }
}

#[test]
fn a_bus_port_full_of_garbage_disturbs_nobody() {
    let _alone = heavy();
    let server = subject().cluster().start();
    let mut judge = server.connect();
    judge.ok("CLUSTER ADDSLOTSRANGE 0 16383");
    wait_for("the cluster is up", SOON, || judge.run("CLUSTER INFO").text().contains("cluster_state:ok"));
    let before = server.resident();
    let connect = || TcpStream::connect(("127.0.0.1", server.port + 10_000)).expect("connect");
    beside_another(&server, || {
        let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for _ in 0..50 {
            let mut stream = connect();
            let _ = stream.write_all(&noise);
        }
        // The right first words, and then lengths that nobody has: too long, too short, and never come.
        let mut waiting = Vec::new();
        for length in [u32::MAX, 1 << 30, 0, 15, 3000] {
            let mut stream = connect();
            let mut head = b"RCmb".to_vec();
            head.extend_from_slice(&length.to_be_bytes());
            head.extend_from_slice(&[0, 1, 0, 0]);
            head.extend_from_slice(&[0xff; 500]);
            let _ = stream.write_all(&head);
            waiting.push(stream);
        }
        let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let _ = connect().write_all(http);
        bounded(&server, before, 40 * MB);
        drop(waiting);
    });
    assert!(judge.run("CLUSTER INFO").text().contains("cluster_state:ok\r\n"));
    assert_eq!(judge.run("CLUSTER NODES").text().lines().count(), 1);
    let told = "Bad message length or signature received from Cluster bus.";
    assert!(server.log().matches(told).count() >= 50, "an administrator hears of it");
}

#[test]
fn a_deep_queue_counts_as_its_clients_memory() {
    let _alone = heavy();
    let server = subject().start();
    let mut judge = server.connect();
    judge.ok("CONFIG SET maxmemory-clients 30mb");
    let before = server.resident();
    let mut evicted = 0;
    beside_another(&server, || {
        let mut client = server.connect();
        client.ok("MULTI");
        let requests = b"SET k 0123456789012345678901234567890123456789\r\n".repeat(1000);
        let mut reader = client.stream().try_clone().expect("a second handle");
        let drain = std::thread::spawn(move || {
            let mut sink = vec![0; 65536];
            // Unless it is cut off this times out.
            while reader.read(&mut sink).is_ok_and(|n| n > 0) {}
        });
        for _ in 0..1000 {
            if client.try_send_raw(&requests).is_err() {
                break;
            }
        }
        drain.join().expect("the reader ends, because the client is cut off");
        evicted += 1;
    });
    assert_eq!(judge.info_int("evicted_clients"), evicted);
    judge.expect("EXISTS k", ":0");
    bounded(&server, before, 80 * MB);
}

#[test]
fn others_are_served_while_giant_rules_are_applied() {
    let server = one_worker();
    let (mut admin, mut other) = (server.connect(), server.connect());
    other.ok("SET elsewhere v");
    let mut words: Vec<String> = ["ACL", "SETUSER", "u", "on"].map(str::to_owned).to_vec();
    words.extend((0..100_000).map(|i| format!("~key:{i}")));
    admin.send_raw(&encode(&words));
    admin.stream().set_nonblocking(true).expect("a socket that does not wait");
    let mut answered = 0;
    while admin.stream().peek(&mut [0]).is_err() {
        other.expect("GET elsewhere", "\"v\"");
        answered += 1;
    }
    assert!(answered > 10, "{answered} answers to another");
    admin.stream().set_nonblocking(false).expect("a socket that waits");
    assert_eq!(admin.read().text(), "OK");
}

#[test]
fn giant_rules_of_users_hold_up_nobody() {
    let _alone = heavy();
    let server = subject().start();
    let mut admin = server.connect();
    let before = server.resident();
    beside_another(&server, || {
        let mut words: Vec<String> = ["ACL", "SETUSER", "u", "on", ">p"].map(str::to_owned).to_vec();
        for i in 0..50_000 {
            words.extend([
                format!("~key:{i}"),
                format!("&ch:{i}"),
                format!("+select|{i}"),
                format!("(~s:{i})"),
            ]);
        }
        assert_eq!(admin.cmd(&words).text(), "OK");
        let selector = (0..100_000).map(|i| format!("~t:{i}")).collect::<Vec<_>>().join(" ");
        assert_eq!(admin.cmd(&["ACL", "SETUSER", "v", "on", &format!("({selector})")]).text(), "OK");
        let mut user = server.connect();
        user.ok("AUTH u p");
        user.ok("SELECT 7");
        user.expect("PING", "-NOPERM User u has no permissions to run the 'ping' command");
        let pattern = format!("~{}", "[a-z]*".repeat(100_000));
        assert_eq!(
            admin.cmd(&["ACL", "SETUSER", "u", "resetkeys", "clearselectors", "+get", &pattern]).text(),
            "OK"
        );
        user.expect(&format!("GET {}", "a".repeat(1000)), "-NOPERM No permissions to access a key");
        admin.expect("ACL DELUSER u v", ":2");
    });
    bounded(&server, before, 200 * MB);
}

#[test]
fn an_inline_line_without_end_is_cut_off() {
    let _alone = heavy();
    let server = subject().start();
    let before = server.resident();
    beside_another(&server, || {
        let mut client = server.connect();
        let part = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            send_in_vain(&mut client, &part);
        }
        if subject_is_real() {
            return;
        }
        assert!(client.closed());
    });
    bounded(&server, before, 40 * MB);
}
