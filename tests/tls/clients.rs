//! What clients meet on the TLS port: redis-cli and redis-benchmark, certificates of clients, protocols, ciphers and
//! resumed sessions.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::common::client::encode;
use crate::common::server::fresh_dir;
use crate::common::{SOON, light, wait_for};

use super::{Secure, certificates, cli, cli_with, file, make_certificates, openssl, ours, text};

#[test]
fn redis_cli_and_redis_benchmark_speak_tls() {
    let _guard = light();
    let (server, port) = ours(&[]);
    assert_eq!(cli(port, &["PING"]), "PONG");
    assert_eq!(cli(port, &["SET", "k", &"x".repeat(100_000)]), "OK");
    assert_eq!(cli(port, &["GET", "k"]).len(), 100_000);
    let listed = cli(port, &["CLIENT", "LIST"]);
    assert!(listed.contains(&format!("laddr=127.0.0.1:{port} ")), "{listed}");
    for (depth, size, tests) in [
        ("1", "3", "set,get,lpush,lrange_100"),
        ("16", "3", "set,get"),
        ("64", "100", "set,get"),
        ("4", "100000", "set,get"),
    ] {
        let run = Command::new("redis-benchmark")
            .args(["--tls", "--cacert", &file("ca.crt")])
            .args(["--cert", &file("client.crt"), "--key", &file("client.key")])
            .args(["-p", &port.to_string(), "-P", depth, "-d", size, "-n", "2000", "-c", "20", "--csv"])
            .args(["-t", tests])
            .output()
            .expect("run redis-benchmark");
        let output = text(&run);
        assert!(run.status.success() && output.contains("\"GET\""), "{output}");
        assert!(!output.to_lowercase().contains("error"), "{output}");
    }
    // Large requests come in pieces that end anywhere, also in the middle of a record.
    for _ in 0..10 {
        let mut pipeline = Vec::new();
        for i in 0..40 {
            pipeline.extend_from_slice(&encode(&["SET", &format!("k{i}"), &"v".repeat(100_000)]));
        }
        let mut several: Vec<Secure> = (0..4).map(|_| Secure::connect(port, certificates())).collect();
        std::thread::scope(|scope| {
            for secure in &mut several {
                scope.spawn(|| {
                    secure.stream.write_all(&pipeline).unwrap();
                    for _ in 0..40 {
                        assert_eq!(secure.read().text(), "OK");
                    }
                });
            }
        });
    }
    // A reply of 20 MB goes through a socket that takes a part at a time.
    let mut client = server.connect();
    client.run(&format!("SETRANGE big {} x", 20 << 20));
    let mut secure = Secure::connect(port, certificates());
    assert_eq!(secure.run("GET big").bytes().map(<[u8]>::len), Some((20 << 20) + 1));
    assert_eq!(secure.run("PING").text(), "PONG");
    // Many commands at once, whose records hold parts of them.
    let mut pipeline = Vec::new();
    for i in 0..20_000 {
        pipeline.extend_from_slice(&encode(&["RPUSH", "list", &i.to_string()]));
    }
    secure.stream.write_all(&pipeline).unwrap();
    for i in 1..=20_000 {
        assert_eq!(secure.read().int(), i);
    }
    let info = client.run("INFO server").text();
    let shown = info.lines().find(|l| l.starts_with("listener1:")).unwrap_or_default();
    assert_eq!(shown, format!("listener1:name=tls,bind=127.0.0.1,port={port}"));
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let _guard = light();
    let (server, port) = ours(&[]);
    let mut admin = server.connect();
    // Of another authority.
    let strange = fresh_dir();
    make_certificates(&strange);
    let stranger = [strange.join("client.crt"), strange.join("client.key")].map(|p| p.display().to_string());
    let stranger = ["--cert", stranger[0].as_str(), "--key", stranger[1].as_str()];
    let answers = |shown: &[&str]| cli_with(port, shown, &["PING"]);
    assert_eq!(cli(port, &["PING"]), "PONG");
    assert_ne!(answers(&[]), "PONG");
    assert_ne!(answers(&stranger), "PONG");
    wait_for("the log says why", SOON, || {
        let log = server.log();
        log.contains("Error accepting a client connection: peer sent no certificates")
            && log.contains("Error accepting a client connection: invalid peer certificate")
    });
    admin.ok("CONFIG SET tls-auth-clients optional");
    assert_eq!(answers(&[]), "PONG");
    assert_eq!(cli(port, &["PING"]), "PONG");
    assert_ne!(answers(&stranger), "PONG");
    admin.ok("CONFIG SET tls-auth-clients no");
    assert_eq!(answers(&[]), "PONG");
    assert_eq!(answers(&stranger), "PONG");
    admin.ok("CONFIG SET tls-auth-clients yes");
    assert_ne!(answers(&[]), "PONG");
    // A server's certificate is no client's: its purposes say so.
    let (certificate, key) = (file("server.crt"), file("server.key"));
    assert_ne!(answers(&["--cert", &certificate, "--key", &key]), "PONG");
}

/// What `openssl s_client` has agreed on, or why it has not.
fn agreed(port: u16, options: &[&str]) -> String {
    let address = format!("127.0.0.1:{port}");
    let (ca, certificate, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let mut args =
        vec!["s_client", "-connect", &address, "-CAfile", &ca, "-cert", &certificate, "-key", &key];
    args.extend(options);
    let said = openssl(&args, certificates());
    said.lines().find(|l| l.starts_with("New, ") || l.starts_with("Reused, ")).unwrap_or_default().to_owned()
}

#[test]
fn protocols_and_ciphers_are_those_of_the_directives() {
    let _guard = light();
    let (server, port) = ours(&[]);
    let mut admin = server.connect();
    assert_eq!(agreed(port, &[]), "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384");
    assert_eq!(agreed(port, &["-tls1_2"]), "New, TLSv1.2, Cipher is ECDHE-RSA-AES256-GCM-SHA384");
    assert!(agreed(port, &["-tls1_1"]).contains("(NONE)"));
    admin.ok("CONFIG SET tls-protocols TLSv1.2");
    assert_eq!(agreed(port, &[]), "New, TLSv1.2, Cipher is ECDHE-RSA-AES256-GCM-SHA384");
    assert!(agreed(port, &["-tls1_3"]).contains("(NONE)"));
    admin.ok("CONFIG SET tls-protocols TLSv1.3");
    assert!(agreed(port, &["-tls1_2"]).contains("(NONE)"));
    admin.ok("CONFIG SET tls-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384");
    assert_eq!(agreed(port, &[]), "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384", "the client's order");
    admin.ok("CONFIG SET tls-prefer-server-ciphers yes");
    assert_eq!(agreed(port, &[]), "New, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256", "the server's order");
    admin.run("CONFIG SET tls-protocols \"\"");
    admin.ok("CONFIG SET tls-ciphers ECDHE-RSA-CHACHA20-POLY1305");
    assert_eq!(agreed(port, &["-tls1_2"]), "New, TLSv1.2, Cipher is ECDHE-RSA-CHACHA20-POLY1305");
    // What is not offered is refused, and the log says what is.
    for (name, value, why) in [
        ("tls-protocols", "TLSv1.1", "tls-protocols: TLSv1.1 is not offered here"),
        ("tls-protocols", "TLSv9", "Invalid tls-protocols specified."),
        ("tls-ciphers", "AES128-SHA", "'AES128-SHA' is not offered here. Offered are ECDHE-"),
        ("tls-ciphersuites", "TLS_AES_128_CCM_SHA256", "'TLS_AES_128_CCM_SHA256' is not offered here."),
        ("tls-dh-params-file", "some.dh", "tls-dh-params-file: keys are exchanged over elliptic curves only"),
    ] {
        let before = admin.run(&format!("CONFIG GET {name}"));
        assert_eq!(
            admin.run(&format!("CONFIG SET {name} {value}")).text(),
            format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - \
                 Unable to update TLS configuration. Check server logs."
            )
        );
        assert!(server.log().contains(why), "{why}: {}", server.log());
        assert_eq!(admin.run(&format!("CONFIG GET {name}")), before);
    }
    assert_eq!(agreed(port, &["-tls1_2"]), "New, TLSv1.2, Cipher is ECDHE-RSA-CHACHA20-POLY1305");
}

#[test]
fn sessions_are_resumed_where_that_is_allowed() {
    let _guard = light();
    let (server, port) = ours(&[]);
    let mut admin = server.connect();
    let dir = fresh_dir();
    let kept = dir.join("session").display().to_string();
    // TLS 1.3 hands the ticket out after the handshake.
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-CAfile", &file("ca.crt")])
            .args(["-cert", &file("client.crt"), "-key", &file("client.key"), version, "-quiet"])
            .args(["-sess_out", &kept])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run openssl");
        child.stdin.as_mut().unwrap().write_all(b"PING\r\nQUIT\r\n").unwrap();
        assert_eq!(text(&child.wait_with_output().unwrap()), "+PONG\r\n+OK\r\n");
        assert!(agreed(port, &[version, "-sess_in", &kept]).starts_with("Reused, "), "{version}");
        admin.ok("CONFIG SET tls-session-caching no");
        assert!(agreed(port, &[version, "-sess_in", &kept]).starts_with("New, "), "{version}");
        admin.ok("CONFIG SET tls-session-caching yes");
    }
}

/// Protected mode explains itself after the handshake, for which a client from outside is let in.
#[test]
fn protected_mode_explains_itself_over_tls() {
    let _guard = light();
    let found = Command::new("hostname").arg("-I").output().expect("run hostname");
    let Some(outside) = text(&found).split(' ').find(|a| a.contains('.')).map(str::to_owned) else {
        eprintln!("left out: this machine has no address but the loopback's");
        return;
    };
    let (server, port) = ours(&["--bind", "0.0.0.0", "--tls-auth-clients", "no"]);
    let said = cli_with(port, &["-h", &outside], &["PING"]);
    assert!(said.contains("DENIED Redis is running in protected mode"), "{said}");
    let mut admin = server.connect();
    wait_for("it is closed", SOON, || admin.info("connected_clients") == "1");
    assert_eq!(admin.info("rejected_connections"), "1");
    admin.ok("CONFIG SET protected-mode no");
    assert_eq!(cli_with(port, &["-h", &outside], &["PING"]), "PONG");
}

#[test]
fn a_full_server_closes_and_the_end_is_announced() {
    let _guard = light();
    let (server, port) = ours(&["--maxclients", "2"]);
    let mut admin = server.connect();
    // The start has looked whether the server answers.
    wait_for("nobody else is there", SOON, || admin.info("connected_clients") == "1");
    let mut one = Secure::connect(port, certificates());
    assert_eq!(one.run("PING").text(), "PONG");
    // No handshake was done: nothing can be said.
    assert_ne!(cli(port, &["PING"]), "PONG");
    assert_eq!(admin.info("rejected_connections"), "1");
    // QUIT ends the session as TLS wants it, not only the connection.
    assert_eq!(one.run("QUIT").text(), "OK");
    let mut rest = Vec::new();
    assert_eq!(one.stream.read_to_end(&mut rest).expect("a close_notify"), 0);
}
