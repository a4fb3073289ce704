//! What a client may make the server keep for it: replies that it does not read, input without an end.

use std::io::{ErrorKind, Read};

use crate::common::client::{Client, encode};
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, wait_for};

/// Whether the server closes the connection without sending anything (more).
fn cut_off(client: &mut Client) -> bool {
    match client.try_read() {
        Ok(reply) => panic!("it got {}", &reply.to_string()[..40]),
        Err(e) => {
            matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        }
    }
}

/// Collections whose whole content is far longer than 200,000 bytes.
fn fill(judge: &mut Client) {
    judge.ok("DEBUG POPULATE 10000 a:key:with:a:name:of:some:length");
    let words = |first: &[&str], pair: bool| {
        let mut words: Vec<String> = first.iter().map(ToString::to_string).collect();
        for i in 0..5000 {
            words.extend(pair.then(|| format!("{i}")));
            words.push(format!("{i:0100}"));
        }
        words
    };
    judge.cmd(&words(&["RPUSH", "list"], false));
    judge.cmd(&words(&["SADD", "set"], false));
    judge.cmd(&words(&["HSET", "hash"], true));
    judge.cmd(&words(&["ZADD", "zset"], true));
    judge.cmd(&["SET".to_owned(), "long".to_owned(), "x".repeat(150_000)]);
}

#[test]
fn a_reply_beyond_the_hard_limit_is_not_sent_and_its_client_is_closed() {
    let server = Server::subject();
    let mut judge = server.connect();
    fill(&mut judge);
    judge.ok("CONFIG SET client-output-buffer-limit 'normal 200000 0 0'");
    judge.expect("STRLEN long", ":150000");
    assert_eq!(judge.run("GET long").text().len(), 150_000, "what is below the limit is sent");
    judge.ok("CONFIG RESETSTAT");
    let peak = judge.info_int("used_memory");
    let commands = [
        "KEYS *",
        "LRANGE list 0 -1",
        "SMEMBERS set",
        "HGETALL hash",
        "HVALS hash",
        "ZRANGE zset 0 -1 WITHSCORES",
        "HRANDFIELD hash -100000000 WITHVALUES",
        "SRANDMEMBER set -100000000",
        "ZRANDMEMBER zset -100000000",
        "MGET long long long",
        "SCAN 0 COUNT 100000",
    ];
    for command in commands {
        let mut client = server.connect();
        client.send(&command.split(' ').collect::<Vec<_>>());
        assert!(cut_off(&mut client), "{command}");
    }
    // Replies of a pipeline add up; what stands behind the one too many is not run.
    let mut client = server.connect();
    let mut pipeline = encode(&["GET", "long"]).repeat(3);
    pipeline.extend(encode(&["SET", "behind", "1"]));
    client.send_raw(&pipeline);
    assert!(cut_off(&mut client));
    judge.expect("EXISTS behind", ":0");
    // A transaction runs to its end first.
    let mut client = server.connect();
    client.ok("MULTI");
    for command in ["SET before 1", "LRANGE list 0 -1", "GET long", "SET after 1"] {
        client.expect(command, "+QUEUED");
    }
    client.send(&["EXEC"]);
    assert!(cut_off(&mut client));
    judge.expect("EXISTS before after", ":2");
    assert_eq!(judge.info_int("client_output_buffer_limit_disconnections"), commands.len() as i64 + 2);
    if !subject_is_real() {
        let grown = judge.info_int("used_memory_peak") - peak;
        assert!(grown < 8 << 20, "{grown} bytes more at the most");
    }
    // A client that wants no replies is answered none, however long.
    let mut client = server.connect();
    client.send(&["CLIENT", "REPLY", "OFF"]);
    client.send(&["LRANGE", "list", "0", "-1"]);
    client.send(&["CLIENT", "REPLY", "ON"]);
    assert_eq!(client.read().to_string(), "+OK");
}

#[test]
fn a_subscriber_is_closed_by_the_limit_of_its_class() {
    let server = Server::subject();
    let mut judge = server.connect();
    judge.ok("CONFIG SET client-output-buffer-limit 'pubsub 100000 0 0 normal 0 0 0'");
    let mut listener = server.connect();
    listener.run("SUBSCRIBE ch");
    judge.cmd(&["PUBLISH".to_owned(), "ch".to_owned(), "x".repeat(50_000)]);
    assert_eq!(listener.read().items().len(), 3);
    judge.cmd(&["PUBLISH".to_owned(), "ch".to_owned(), "x".repeat(200_000)]);
    assert!(cut_off(&mut listener));
    judge.cmd(&["SET".to_owned(), "k".to_owned(), "x".repeat(200_000)]);
    assert_eq!(judge.run("GET k").text().len(), 200_000);
    // The soft limit: so much for so long.
    judge.ok("CONFIG SET client-output-buffer-limit 'pubsub 0 100000 1'");
    let mut listener = server.connect();
    listener.run("SUBSCRIBE ch");
    let message = ["PUBLISH".to_owned(), "ch".to_owned(), "x".repeat(1 << 20)];
    for _ in 0..16 {
        judge.cmd(&message);
    }
    wait_for("the listener is closed", SOON, || judge.cmd(&message).int() == 0);
    assert_eq!(judge.info_int("client_output_buffer_limit_disconnections"), 2);
}

/// CVE-2025-21605.
#[test]
fn who_has_not_logged_in_cannot_leave_replies_unread() {
    if subject_is_real() {
        return;
    }
    let server = Launch::subject().args(&["--requirepass", "secret"]).start();
    let mut judge = server.connect();
    judge.ok("AUTH secret");
    let before = judge.info_int("used_memory");
    for flood in ["PING\r\n", "AUTH wrong\r\n", "NOSUCH\r\n", "*1\r\n$3\r\nGET\r\n"] {
        let mut stranger = server.connect();
        let piece = flood.as_bytes().repeat(4000);
        wait_for("it is closed", SOON, || stranger.try_send_raw(&piece).is_err());
    }
    assert_eq!(judge.info_int("client_output_buffer_limit_disconnections"), 4);
    let grown = judge.info_int("used_memory") - before;
    assert!(grown < 1 << 20, "{grown} bytes more");
    // Who logs in and reads late gets all.
    let mut client = server.connect();
    client.send_raw(&[&b"AUTH secret\r\n"[..], &b"ECHO 0123456789\r\n".repeat(50_000)].concat());
    assert_eq!(client.read().to_string(), "+OK");
    assert!((0..50_000).all(|_| client.read().text() == "0123456789"));
}

/// A number of a client's line in CLIENT LIST.
fn number(judge: &mut Client, id: i64, field: &str) -> usize {
    let line = judge.run(&format!("CLIENT LIST ID {id}")).text();
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {field} in {line}"))
}

/// A client that has sent nearly all of an argument of so many bytes.
fn half_sent(server: &Server, bytes: usize) -> (Client, i64) {
    let mut client = server.connect();
    let id = client.run("CLIENT ID").int();
    client.send_raw(format!("*2\r\n$4\r\nECHO\r\n${bytes}\r\n").as_bytes());
    client.send_raw(&vec![b'x'; bytes - 100]);
    (client, id)
}

#[test]
fn the_buffers_of_each_client_are_shown() {
    let server = Server::subject();
    let mut judge = server.connect();
    let own = judge.run("CLIENT INFO").text();
    assert!(own.contains(" qbuf=26 ") && own.contains(" argv-mem=10 "), "{own}");
    // Input without its end.
    let used = judge.info_int("used_memory");
    let (_half, id) = half_sent(&server, 1_000_000);
    wait_for("the input is there", SOON, || number(&mut judge, id, "qbuf") >= 999_900);
    assert!(number(&mut judge, id, "tot-mem") >= 999_900);
    wait_for("memory counts it, too", SOON, || judge.info_int("used_memory") > used + 900_000);
    assert!(judge.info_int("client_recent_max_input_buffer") >= 999_900);
    // What MULTI has queued.
    let mut client = server.connect();
    let id = client.run("CLIENT ID").int();
    client.ok("MULTI");
    for _ in 0..10 {
        client.cmd(&["SET".to_owned(), "k".to_owned(), "x".repeat(10_000)]);
    }
    let multi = number(&mut judge, id, "multi-mem");
    assert!((100_000..110_000).contains(&multi), "{multi}");
    client.run("DISCARD");
    assert_eq!(number(&mut judge, id, "multi-mem"), 0);
    // A command that waits.
    client.send(&["BLPOP".to_owned(), "k".repeat(1000), "0".to_owned()]);
    wait_for("it waits", SOON, || number(&mut judge, id, "argv-mem") >= 1000);
    // Replies that nobody reads.
    judge.cmd(&["SET".to_owned(), "long".to_owned(), "x".repeat(5 << 20)]);
    let before = judge.info_int("mem_clients_normal");
    let mut slow = server.connect();
    let id = slow.run("CLIENT ID").int();
    slow.send_raw(&encode(&["GET", "long"]).repeat(4));
    wait_for("replies wait", SOON, || number(&mut judge, id, "omem") > 5 << 20);
    assert!(number(&mut judge, id, "oll") > 0);
    assert!(number(&mut judge, id, "tot-mem") > 5 << 20);
    assert!(judge.info_int("mem_clients_normal") > before + (5 << 20));
    assert!(judge.info_int("client_recent_max_output_buffer") > 5 << 20);
    drop(slow);
    wait_for("they are gone", SOON, || judge.info_int("mem_clients_normal") < before + (1 << 20));
}

#[test]
fn the_greediest_clients_go_when_all_together_take_too_much() {
    let server = Server::subject();
    let mut judge = server.connect();
    judge.ok("CLIENT NO-EVICT on");
    let size = |judge: &mut Client, id: i64| number(judge, id, "qbuf");
    let sizes = [500_000, 1_200_000, 700_000];
    let mut few: Vec<_> = sizes.map(|bytes| half_sent(&server, bytes)).into();
    for ((_, id), bytes) in few.iter().zip(sizes) {
        wait_for("its input is there", SOON, || size(&mut judge, *id) > bytes - 1000);
    }
    judge.ok("CONFIG SET maxmemory-clients 2mb");
    let (mut largest, id) = few.remove(1);
    assert!(cut_off(&mut largest));
    assert!(server.log().contains(&format!("Evicting client: id={id} addr=")), "{}", server.log());
    assert_eq!(judge.info_int("evicted_clients"), 1);
    for (client, _) in &mut few {
        client.send_raw(&[b'x'; 100]);
        client.send_raw(b"\r\n");
        assert!(client.read().text().len() >= 500_000, "the others stay");
    }
    // One that is protected makes the others go. What MULTI has queued counts as well.
    let (mut spared, id) = half_sent(&server, 1_500_000);
    wait_for("its input is there", SOON, || size(&mut judge, id) > 1_400_000);
    let mut queuing = server.connect();
    spared.send_raw(&[b'x'; 100]);
    spared.send_raw(b"\r\n");
    spared.read();
    spared.ok("CLIENT NO-EVICT on");
    spared.send_raw(b"*2\r\n$4\r\nECHO\r\n$1900000\r\n");
    spared.send_raw(&vec![b'x'; 1_900_000]);
    queuing.ok("MULTI");
    wait_for("it is closed", SOON, || {
        let long = ["SET".to_owned(), "k".to_owned(), "x".repeat(100_000)];
        queuing.try_send_raw(&encode(&long)).is_err() || queuing.try_read().is_err()
    });
    spared.send_raw(b"\r\n");
    assert_eq!(spared.read().text().len(), 1_900_000);
    // A limit that leaves nobody room to speak counts as 128 kB.
    let mut guest = server.connect();
    judge.ok("CONFIG SET maxmemory-clients 1");
    judge.ok("CLIENT NO-EVICT off");
    guest.ok("SET k v");
    judge.ok("CLIENT NO-EVICT on");
    // A share of maxmemory.
    judge.ok("CONFIG SET maxmemory 100mb maxmemory-clients 1%");
    let (mut greedy, _) = half_sent(&server, 1_100_000);
    assert!(cut_off(&mut greedy));
}

#[test]
fn the_limit_of_input_counts_what_multi_queues_and_not_what_is_parsed() {
    let server = Launch::subject().args(&["--client-query-buffer-limit", "1mb"]).start();
    let mut client = server.connect();
    let mut words = vec!["MSET".to_owned()];
    words.extend((0..30_000).map(|i| format!("{i:0100}")));
    assert_eq!(client.cmd(&words).to_string(), "+OK");
    client.ok("MULTI");
    let long = encode(&["SET".to_owned(), "k".to_owned(), "x".repeat(100_000)]);
    for _ in 0..10 {
        client.send_raw(&long);
        assert_eq!(client.read().to_string(), "+QUEUED");
    }
    wait_for("it is closed", SOON, || client.try_send_raw(&long).is_err() || client.try_read().is_err());
    let mut judge = server.connect();
    assert_eq!(judge.info_int("client_query_buffer_limit_disconnections"), 1);
    judge.expect("EXISTS k", ":0");
}

/// The most that was resident since the last call, in bytes.
fn peak(server: &Server) -> u64 {
    let of_process = format!("/proc/{}", server.pid());
    let status = std::fs::read_to_string(format!("{of_process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    std::fs::write(format!("{of_process}/clear_refs"), "5").unwrap();
    kilobytes * 1024
}

/// Elements that are drawn, keys and values are copied into a reply once, and sent from where they are.
#[test]
fn a_huge_reply_is_in_memory_once() {
    let server = Server::subject();
    let mut client = server.connect();
    let fields: Vec<String> = (0..500).map(|i| format!("{i:0200}")).collect();
    client.cmd(&[&["SADD".to_owned(), "set".to_owned()], &fields[..]].concat());
    client.ok(&format!("SET part {}", "x".repeat(8000)));
    client.ok("DEBUG POPULATE 600000 a:key:with:a:name:of:some:length 1");
    let mget = ["MGET"].into_iter().chain(["part"; 12_000]).collect::<Vec<_>>().join(" ");
    for command in ["SRANDMEMBER set -500000", mget.as_str(), "KEYS *"] {
        let (before, _) = (server.resident(), peak(&server));
        client.send(&command.split(' ').collect::<Vec<_>>());
        client.send(&["PING"]);
        let (mut length, mut piece, mut end) = (0, vec![0; 1 << 20], Vec::new());
        while !end.ends_with(b"+PONG\r\n") {
            let n = client.stream().read(&mut piece).expect("more of the reply");
            length += n as u64;
            end.extend_from_slice(&piece[n.saturating_sub(7)..n]);
            end.drain(..end.len().saturating_sub(7));
        }
        let most = peak(&server) - before;
        assert!(length > 20_000_000, "{command:.20}: {length} bytes");
        assert!(most < length + length / 2 + 8_000_000, "{command:.20}: {most} bytes for {length}");
    }
}

/// What a value outgrows goes back to the system at once.
#[test]
fn a_value_that_grows_leaves_no_memory_behind() {
    let server = Server::subject();
    let mut client = server.connect();
    let part = vec![b'x'; 20_000_000];
    let (before, _) = (server.resident(), peak(&server));
    for _ in 0..10 {
        client.cmd(&[&b"APPEND"[..], b"grown", &part]);
    }
    client.expect("STRLEN grown", ":200000000");
    let most = peak(&server) - before;
    assert!(most < 460_000_000, "{most} bytes");
}
