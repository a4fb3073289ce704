//! Handshakes that stop, many at once, and clients that speak something else: nobody else waits for them.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::witness::beside_another;
use crate::common::{SOON, heavy, light, wait_for};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::{LONG, cli, ours};

/// The slowest of some commands.
fn slowest(client: &mut Client, commands: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..commands {
        let asked = Instant::now();
        client.run("PING");
        slowest = slowest.max(asked.elapsed());
    }
    slowest
}

/// A first message of a handshake.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut session =
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn handshakes_that_stop_half_way_are_ended_and_slow_nobody() {
    let _guard = heavy();
    let (server, port) = ours(&["--max-new-connections-per-cycle", "100"]);
    let mut other = server.connect();
    slowest(&mut other, 1000);
    let before = server.resident();
    let hello = client_hello();
    let began = Instant::now();
    let mut stopped = Vec::new();
    for i in 0..600 {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // Nothing, half of the first message, all of it.
        socket.write_all(&hello[..[0, hello.len() / 2, hello.len()][i % 3]]).unwrap();
        stopped.push(socket);
    }
    let beside = slowest(&mut other, 2000);
    assert!(beside < Duration::from_millis(500), "{beside:?} beside handshakes that stop");
    wait_for("all of them are there", SOON, || other.info("connected_clients") == "601");
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 600 * 128 * 1024, "{} bytes for each", grown / 600);
    // Somebody who means it is served meanwhile.
    assert_eq!(cli(port, &["PING"]), "PONG");
    wait_for("they are ended", LONG, || other.info("connected_clients") == "1");
    let lasted = began.elapsed();
    assert!(lasted > Duration::from_secs(9), "not before their time: {lasted:?}");
    assert!(server.log().contains("Error accepting a client connection: the handshake takes too long"));
    for mut socket in stopped {
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        // Closed, whether or not something was unread.
        let _ = socket.read_to_end(&mut rest);
    }
}

/// Those that go do not pile up behind those that came, and nobody who speaks no TLS has to wait for them.
#[test]
fn handshakes_that_stop_are_in_nobodys_way() {
    let _guard = heavy();
    let (server, port) = ours(&["--io-threads", "1"]);
    let before = server.resident();
    let hello = client_hello();
    let mut stopped = VecDeque::new();
    beside_another(&server, || {
        for part in [0, hello.len() / 2, hello.len() - 1] {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            socket.write_all(&hello[..part]).unwrap();
            stopped.push_back(socket);
        }
        if stopped.len() > 300 {
            stopped.drain(..3);
        }
    });
    let mut judge = server.connect();
    wait_for("those that went are gone", SOON, || judge.info_int("connected_clients") <= 301);
    drop(stopped);
    wait_for("all are gone", SOON, || judge.info_int("connected_clients") == 1);
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 300 * 128 * 1024, "{grown} bytes");
}

#[test]
fn many_handshakes_at_once_leave_room_for_others() {
    let _guard = heavy();
    let (server, port) =
        ours(&["--io-threads", "1", "--tls-auth-clients", "no", "--max-new-connections-per-cycle", "1000"]);
    let mut other = server.connect();
    let hello = client_hello();
    let sockets: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            socket.write_all(&hello).unwrap();
            socket
        })
        .collect();
    // Each costs a signature: together they would hold the only worker up for long.
    let beside = slowest(&mut other, 500);
    assert!(beside < Duration::from_millis(250), "{beside:?}");
    for mut socket in sockets {
        let mut first = [0; 1];
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.read_exact(&mut first).unwrap();
        assert_eq!(first[0], 0x16, "every one of them is answered");
    }
}

#[test]
fn other_protocols_on_the_wrong_port_are_turned_away() {
    let _guard = light();
    let (server, port) = ours(&[]);
    let mut admin = server.connect();
    let talk = |port: u16, bytes: &[u8]| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let _ = socket.write_all(bytes);
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        said
    };
    // An alert, and the end.
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"*1\r\n$4\r\nPING\r\n", &[0; 1000], &[0xff; 100_000]]
    {
        let said = talk(port, bytes);
        assert!(said.is_empty() || said[0] == 0x15, "{said:?}");
    }
    // A message of a handshake that says to be longer than any is.
    let mut endless = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    endless.resize(5 + 0x4000, 0);
    let said = talk(port, &endless.repeat(20));
    assert!(said.is_empty() || said[0] == 0x15, "{said:?}");
    // TLS on the plain port is a request that does not end, or a wrong one; nobody else sees anything of it.
    let mut lost = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    lost.write_all(&client_hello()).unwrap();
    assert_eq!(admin.run("PING").text(), "PONG");
    drop(lost);
    wait_for("nobody is left", SOON, || admin.info("connected_clients") == "1");
    assert!(server.log().contains("Error accepting a client connection: received corrupt message"));
}
