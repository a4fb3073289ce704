//! The wire itself: split writes, limits before AUTH, large values, deep pipelines.

use crate::common::client::{Client, encode, quoted};
use crate::common::server::{Launch, Server};
use std::time::Duration;

/// Every kind of request, as one stream of bytes, and its replies in notation.
const STREAM: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\nbc\r\nGET k\r\n\r\n*0\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\nECHO \"a b\"\n*1\r\n$3\r\nFOO\r\n*2\r\n$6\r\nSTRLEN\r\n$1\r\nk\r\n*1\r\n!\r\n";
const REPLIES: &[&str] = &[
    "+OK",
    "\"a\\r\\nbc\"",
    "\"\"",
    "\"a b\"",
    "-ERR unknown command 'FOO', with args beginning with: ",
    ":5",
    "-ERR Protocol error: expected '$', got '!'",
];

#[test]
fn a_stream_may_be_split_after_every_byte() {
    let server = Server::subject();
    for split in 1..STREAM.len() {
        let mut client = server.connect();
        let (first, second) = STREAM.split_at(split);
        client.send_raw(first);
        // The halves must arrive apart: another connection's round trip lies between them.
        server.connect().run("PING");
        client.send_raw(second);
        for expected in REPLIES {
            assert_eq!(client.read().to_string(), *expected, "split at {split}: {}", quoted(first));
        }
        assert!(client.closed(), "split at {split}");
    }
}

#[test]
fn a_stream_may_come_byte_by_byte() {
    let server = Server::subject();
    let mut client = server.connect();
    for byte in STREAM {
        client.send_raw(&[*byte]);
    }
    for expected in REPLIES {
        assert_eq!(client.read().to_string(), *expected);
    }
}

#[test]
fn a_thousand_commands_in_one_write_answer_in_order() {
    let server = Server::subject();
    let mut client = server.connect();
    let batch: Vec<u8> = (0..1000).flat_map(|i| encode(&["ECHO".to_owned(), i.to_string()])).collect();
    client.send_raw(&batch);
    for i in 0..1000 {
        assert_eq!(client.read().text(), i.to_string());
    }
}

#[test]
fn large_values_go_in_and_out_whole() {
    let server = Server::subject();
    let mut client = server.connect();
    for size in [1, 16 * 1024 - 1, 16 * 1024, 64 * 1024, 1 << 20, 20 << 20] {
        let value: Vec<u8> = (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(client.cmd(&[b"SET", &b"k"[..], &value]).to_string(), "+OK");
        let reply = client.cmd(&["GET", "k"]);
        assert!(reply.bytes() == Some(&value), "{size} bytes come back as they went");
    }
}

#[test]
fn a_slow_reader_gets_every_reply() {
    let server = Server::subject();
    let mut client = server.connect();
    let value = "x".repeat(100_000);
    client.cmd(&["SET", "k", &value]);
    let batch: Vec<u8> = (0..200).flat_map(|_| encode(&["GET", "k"])).collect();
    client.send_raw(&batch); // 20 MB of replies, more than the kernel holds
    server.connect().expect("PING", "+PONG");
    for _ in 0..200 {
        assert_eq!(client.read().bytes().map(<[u8]>::len), Some(100_000));
    }
}

#[test]
fn an_inline_line_has_a_limit() {
    let server = Server::subject();
    let mut client = server.connect();
    let _ = client.try_send_raw(&vec![b'a'; 65 * 1024 + 1]);
    assert_eq!(client.read().text(), "ERR Protocol error: too big inline request");
    assert!(client.closed());
    let mut client = server.connect();
    let mut line = b"*".to_vec();
    line.resize(65 * 1024 + 1, b'1');
    let _ = client.try_send_raw(&line);
    assert_eq!(client.read().text(), "ERR Protocol error: too big mbulk count string");
    let mut client = server.connect();
    let mut line = b"*1\r\n$".to_vec();
    line.resize(65 * 1024 + 6, b'1');
    let _ = client.try_send_raw(&line);
    assert_eq!(client.read().text(), "ERR Protocol error: too big bulk count string");
}

#[test]
fn who_has_not_authenticated_may_send_little() {
    let server = Launch::subject().args(&["--requirepass", "secret"]).start();
    let mut client = server.connect();
    client.expect("GET k", "-NOAUTH Authentication required.");
    client.expect("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.");
    let refused = client.run("HELLO 3").text();
    let text = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO";
    assert!(refused.starts_with(text), "{refused}");
    client.send_raw(b"*11\r\n");
    assert_eq!(client.read().text(), "ERR Protocol error: unauthenticated multibulk length");
    assert!(client.closed());
    let mut client = server.connect();
    client.send_raw(b"*2\r\n$3\r\nGET\r\n$16385\r\n");
    assert_eq!(client.read().text(), "ERR Protocol error: unauthenticated bulk length");
    let mut client = server.connect();
    client.ok("AUTH secret");
    client.ok("SET k v");
    let mut client = server.connect();
    client.ok("AUTH default secret");
    let mut client = server.connect();
    assert!(client.run("HELLO 3 AUTH default secret").to_string().starts_with("{\"server\": \"redis\""));
    client.expect("GET k", "\"v\"");
    client.expect("RESET", "+RESET");
    client.expect("GET k", "-NOAUTH Authentication required.");
    client.expect("QUIT", "+OK");
}

#[test]
fn a_half_sent_command_costs_its_size_and_no_more() {
    let server = Server::subject();
    let before = server.resident();
    // Each announces half a gigabyte and sends nothing of it.
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = server.connect();
            client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc");
            client
        })
        .collect();
    let mut judge = server.connect();
    judge.set_read_timeout(Duration::from_secs(5));
    judge.expect("PING", "+PONG");
    assert!(server.resident() < before + (100 << 20), "{} bytes", server.resident());
    drop(clients);
}

#[test]
fn errors_show_bytes_that_are_no_text_as_they_came() {
    let server = Server::subject();
    let mut client = server.connect();
    let cases: &[(&[&[u8]], &[u8])] = &[
        (
            &[b"\xff\xfe", b"a\x80b"],
            b"-ERR unknown command '\xff\xfe', with args beginning with: 'a\x80b' \r\n",
        ),
        (&[b"CLIENT", b"\xff"], b"-ERR unknown subcommand '\xff'. Try CLIENT HELP.\r\n"),
        (&[b"XPENDING", b"k\xff", b"g\x00h"], b"-NOGROUP No such key 'k\xff' or consumer group 'g'\r\n"),
        (
            &[b"CONFIG", b"SET", b"\xf4\x8f\xbf\xbf", b"x"],
            b"-ERR Unknown option or number of arguments for CONFIG SET - '\xf4\x8f\xbf\xbf'\r\n",
        ),
        (&[b"EVAL", b"return redis.error_reply('MY \xff')", b"0"], b"-MY \xff\r\n"),
        (&[b"DEBUG", b"ERROR", b"A \xff"], b"-A \xff\r\n"),
    ];
    for (words, expected) in cases {
        client.send(words);
        let (_, bytes) = client.try_read_raw().expect("a reply");
        assert!(bytes.starts_with(expected), "{words:?}: {bytes:?}");
    }
}
