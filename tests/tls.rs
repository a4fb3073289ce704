//! TLS with real programs on the other side: redis-cli, redis-benchmark, redis-server and redis-sentinel 7.0, openssl.

mod common;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::client::{Client, Reply, decode, encode};
use common::server::{Launch, Server, free_port, fresh_dir, subject};
use common::witness::beside_another;
use common::{SOON, heavy, light, wait_for};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A failover, on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// The certificates that all tests share.
fn certificates() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = fresh_dir();
        make_certificates(&dir);
        dir
    })
}

fn make_certificates(dir: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-certs");
    let made = Command::new(script).arg(dir).output().expect("run make-certs");
    assert!(made.status.success(), "{}", text(&made));
}

fn file(name: &str) -> String {
    certificates().join(name).display().to_string()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What openssl says.
fn openssl(args: &[&str], dir: &Path) -> String {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("run openssl");
    text(&output)
}

/// The directives of a node that speaks TLS on `port`, as a node of a cluster would have them.
fn directives(port: u16) -> Vec<String> {
    directives_from(certificates(), port)
}

fn directives_from(dir: &Path, port: u16) -> Vec<String> {
    let mut args = vec!["--tls-port".to_owned(), port.to_string()];
    for (name, value) in
        [("--tls-cert-file", "redis.crt"), ("--tls-key-file", "redis.key"), ("--tls-ca-cert-file", "ca.crt")]
    {
        args.extend([name.to_owned(), dir.join(value).display().to_string()]);
    }
    args
}

fn with_tls(launch: Launch, more: &[&str]) -> (Server, u16) {
    let port = free_port();
    let args = directives(port);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    (launch.args(&args).start(), port)
}

fn ours(more: &[&str]) -> (Server, u16) {
    with_tls(Launch::subject(), more)
}

/// `redis-cli` over TLS, with the client's certificate.
fn cli(port: u16, args: &[&str]) -> String {
    let (certificate, key) = (file("client.crt"), file("client.key"));
    let shown = ["--cert", certificate.as_str(), "--key", key.as_str()];
    cli_with(port, &shown, args)
}

fn cli_with(port: u16, options: &[&str], args: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["--tls", "--cacert", &file("ca.crt"), "-p", &port.to_string()])
        .args(options)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("run redis-cli");
    text(&output).trim().to_owned()
}

/// A client of our own, for what needs a connection that stays.
struct Secure {
    stream: StreamOwned<ClientConnection, TcpStream>,
    input: Vec<u8>,
}

impl Secure {
    /// Believes in the authority `ca.crt` of `dir`, and shows its client's certificate.
    fn connect(port: u16, dir: &Path) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
        let shown = CertificateDer::from_pem_file(dir.join("client.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join("client.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![shown], key)
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Secure { stream: StreamOwned::new(session, socket), input: Vec::new() }
    }

    fn run(&mut self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        self.stream.write_all(&encode(&words)).unwrap();
        self.read()
    }

    fn read(&mut self) -> Reply {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some((reply, len)) = decode(&self.input) {
                self.input.drain(..len);
                return reply;
            }
            let n = self.stream.read(&mut chunk).expect("a reply");
            assert_ne!(n, 0, "the connection was closed");
            self.input.extend_from_slice(&chunk[..n]);
        }
    }

    /// The certificate that the server has shown.
    fn certificate(&mut self) -> Vec<u8> {
        self.run("PING");
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

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

/// Starts our server with what cannot work, and returns what it says.
fn refused(args: &[&str]) -> String {
    let mut child = Command::new(subject())
        .args(["--port", "0", "--bind", "127.0.0.1", "--save", ""])
        .args(["--tls-port", &free_port().to_string()])
        .args(args)
        .current_dir(certificates())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the server");
    wait_for("the server gives up", SOON, || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    text(&output)
}

#[test]
fn wrong_files_stop_the_start_with_the_words_of_redis() {
    let _guard = light();
    let identity = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key"];
    let with = |more: &[&str]| refused(&identity.iter().chain(more).copied().collect::<Vec<_>>());
    let ca = ["--tls-ca-cert-file", "ca.crt"];
    for (said, expected) in [
        (refused(&[]), "No tls-cert-file configured!"),
        (refused(&["--tls-cert-file", "server.crt"]), "No tls-key-file configured!"),
        (with(&[]), "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when"),
        (
            refused(&["--tls-cert-file", "none.crt", "--tls-key-file", "server.key", ca[0], ca[1]]),
            "Failed to load certificate: none.crt: No such file or directory",
        ),
        (
            refused(&["--tls-cert-file", "server.crt", "--tls-key-file", "client.key", ca[0], ca[1]]),
            "Failed to load private key: client.key: it is not the key of the certificate",
        ),
        (
            refused(&["--tls-cert-file", "server.key", "--tls-key-file", "server.key", ca[0], ca[1]]),
            "Failed to load certificate: server.key: there is no certificate in it",
        ),
        (
            with(&["--tls-ca-cert-file", "none.crt"]),
            "Failed to configure CA certificate(s) file/directory: none.crt: No such file or directory",
        ),
        (with(&[ca[0], ca[1], "--tls-protocols", "TLSv1"]), "tls-protocols: TLSv1 is not offered here"),
        (with(&[ca[0], ca[1], "--tls-dh-params-file", "x"]), "tls-dh-params-file: "),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("Failed to configure TLS. Check logs for more info."), "{said}");
    }
    // A folder of authorities does as well as a file.
    let (server, port) = (Launch::subject(), free_port());
    let folder = fresh_dir();
    fs::copy(file("ca.crt"), folder.join("one.pem")).unwrap();
    fs::write(folder.join("README"), "not a certificate").unwrap();
    let _server = server
        .args(&["--tls-port", &port.to_string(), "--tls-ca-cert-dir", &folder.display().to_string()])
        .args(&["--tls-cert-file", &file("server.crt"), "--tls-key-file", &file("server.key")])
        .start();
    assert_eq!(cli(port, &["PING"]), "PONG");
}

#[test]
fn config_set_opens_and_closes_the_port_and_keeps_what_works() {
    let _guard = light();
    let server = Server::subject();
    let mut admin = server.connect();
    let port = free_port();
    let failed = "Unable to update TLS configuration. Check server logs.";
    assert!(admin.run(&format!("CONFIG SET tls-port {port}")).text().ends_with(failed));
    // Without a port nothing looks at the files, as in Redis.
    admin.ok("CONFIG SET tls-cert-file none.crt");
    let files: Vec<String> = directives(port).chunks(2).map(|c| format!("{} {}", &c[0][2..], c[1])).collect();
    admin.ok(&format!("CONFIG SET {}", files.join(" ")));
    assert_eq!(cli(port, &["PING"]), "PONG");
    let mut stays = Secure::connect(port, certificates());
    assert_eq!(stays.run("PING").text(), "PONG");
    assert!(admin.run("CONFIG SET tls-cert-file none.crt").text().ends_with(failed));
    assert_eq!(admin.run("CONFIG GET tls-cert-file").items()[1].text(), file("redis.crt"));
    assert_eq!(cli(port, &["PING"]), "PONG");
    let taken = free_port();
    let _other = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    assert!(admin.run(&format!("CONFIG SET tls-port {taken}")).text().ends_with(
        "(possibly related to argument 'tls-port') - Unable to listen on this port. Check server logs."
    ));
    assert_eq!(cli(port, &["PING"]), "PONG");
    let moved = free_port();
    admin.ok(&format!("CONFIG SET tls-port {moved}"));
    assert_eq!(cli(moved, &["PING"]), "PONG");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    // Only TLS is left.
    admin.ok("CONFIG SET port 0");
    assert_eq!(cli(moved, &["CONFIG", "GET", "port"]), "port\n0");
    assert!(cli(moved, &["INFO", "server"]).contains(&format!("tcp_port:{moved}")));
    assert_eq!(cli(moved, &["CONFIG", "SET", "port", &server.port.to_string()]), "OK");
    admin.ok("CONFIG SET tls-port 0");
    assert!(TcpStream::connect(("127.0.0.1", moved)).is_err());
    assert_eq!(stays.run("PING").text(), "PONG", "whoever is connected stays");
    assert_eq!(admin.info("tls_cert_expire_time"), "");
}

#[test]
fn certificates_that_change_are_taken_over_and_nobody_is_dropped() {
    let _guard = light();
    let (dir, newer) = (fresh_dir(), fresh_dir());
    make_certificates(&dir);
    // The same authority has signed another one.
    for name in ["ca.crt", "ca.key"] {
        fs::copy(dir.join(name), newer.join(name)).unwrap();
    }
    make_certificates(&newer);
    let port = free_port();
    let path = |name: &str| dir.join(name).display().to_string();
    let server = Launch::subject()
        .args(&["--tls-port", &port.to_string(), "--tls-ca-cert-file", &path("ca.crt")])
        .args(&["--tls-cert-file", &path("server.crt"), "--tls-key-file", &path("server.key")])
        .start();
    let mut old = Secure::connect(port, &dir);
    let first = old.certificate();
    // The certificate first, which does not fit the key that is there.
    fs::copy(newer.join("server.crt"), dir.join("server.crt")).unwrap();
    wait_for("the half change is noticed", SOON, || {
        server.log().contains("and are not taken over: Failed to load")
    });
    assert_eq!(Secure::connect(port, &dir).certificate(), first, "the old pair serves");
    fs::copy(newer.join("server.key"), dir.join("server.key")).unwrap();
    wait_for("the change is taken over", SOON, || Secure::connect(port, &dir).certificate() != first);
    assert_eq!(old.run("PING").text(), "PONG");
    // By CONFIG SET, to yet other files.
    let mut admin = server.connect();
    admin.ok(&format!("CONFIG SET tls-cert-file {} tls-key-file {}", path("redis.crt"), path("redis.key")));
    let shown = Secure::connect(port, &dir).certificate();
    assert_eq!(shown, CertificateDer::from_pem_file(dir.join("redis.crt")).unwrap().to_vec());
    assert_eq!(old.run("PING").text(), "PONG");
}

/// As Kubernetes gives a secret: each file is a link into a folder that is a link, and that one is put in another's
/// place. And a folder of authorities, of which one file is written anew where it is.
#[test]
fn certificates_behind_links_and_in_folders_are_taken_over() {
    let _guard = light();
    let (dir, authorities) = (fresh_dir(), fresh_dir());
    for version in ["..1", "..2"] {
        fs::create_dir(dir.join(version)).unwrap();
        make_certificates(&dir.join(version));
    }
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, dir.join(at)).unwrap();
    link("..1", "..data");
    for name in ["server.crt", "server.key"] {
        link(&format!("..data/{name}"), name);
    }
    let path = |name: &str| dir.join(name).display().to_string();
    fs::copy(path("..1/ca.crt"), authorities.join("ca.crt")).unwrap();
    let port = free_port();
    let _server = Launch::subject()
        .args(&["--tls-port", &port.to_string(), "--tls-ca-cert-dir", &authorities.display().to_string()])
        .args(&["--tls-cert-file", &path("server.crt"), "--tls-key-file", &path("server.key")])
        .start();
    // Whom the second authority has signed is a stranger, and knows nobody here.
    let ping = |version: &str| {
        let of = |name: &str| path(&format!("{version}/{name}"));
        let output = Command::new("redis-cli")
            .args([
                "--tls",
                "--cacert",
                &of("ca.crt"),
                "--cert",
                &of("client.crt"),
                "--key",
                &of("client.key"),
            ])
            .args(["-p", &port.to_string(), "PING"])
            .stdin(Stdio::null())
            .output()
            .expect("run redis-cli");
        text(&output)
    };
    assert_eq!(ping("..1").trim(), "PONG");
    assert_ne!(ping("..2").trim(), "PONG");
    link("..2", "..new");
    fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
    fs::copy(path("..2/ca.crt"), authorities.join("ca.crt")).unwrap();
    wait_for("both changes are taken over", SOON, || ping("..2").trim() == "PONG");
}

#[test]
fn a_certificate_that_expires_is_shown_and_warned_of() {
    let _guard = light();
    let dir = fresh_dir();
    make_certificates(&dir);
    openssl(
        &["req", "-x509", "-key", "server.key", "-subj", "/CN=short", "-days", "10", "-out", "short.crt"],
        &dir,
    );
    let port = free_port();
    let path = |name: &str| dir.join(name).display().to_string();
    let server = Launch::subject()
        .args(&["--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
        .args(&["--tls-cert-file", &path("short.crt"), "--tls-key-file", &path("server.key")])
        .start();
    wait_for("the warning", SOON, || server.log().contains("short.crt expires in 9 days."));
    let ends = openssl(&["x509", "-in", "short.crt", "-noout", "-enddate"], &dir);
    let ends = ends.trim().trim_start_matches("notAfter=");
    let seconds = Command::new("date").args(["-d", ends, "+%s"]).output().expect("run date");
    let mut admin = server.connect();
    assert_eq!(admin.info("tls_cert_expire_time"), text(&seconds).trim());
    // One of a year is nothing to warn of.
    let before = server.log().matches("expires in").count();
    admin.ok(&format!("CONFIG SET tls-cert-file {}", path("server.crt")));
    assert!(
        admin.info("tls_cert_expire_time").parse::<u64>().unwrap() > text(&seconds).trim().parse().unwrap()
    );
    assert_eq!(before, 1);
}

#[test]
fn encrypted_keys_are_read_with_their_pass_phrase() {
    let _guard = light();
    let dir = fresh_dir();
    make_certificates(&dir);
    let convert = |args: &[&str]| {
        let mut all = vec!["pkcs8", "-topk8", "-in", "server.key", "-passout", "pass:secret words"];
        all.extend(args);
        openssl(&all, &dir);
    };
    convert(&["-v2", "aes256", "-out", "aes.key"]);
    convert(&["-scrypt", "-out", "scrypt.key"]);
    convert(&["-v2", "des3", "-out", "des.key"]);
    openssl(
        &[
            "rsa",
            "-in",
            "server.key",
            "-aes256",
            "-traditional",
            "-passout",
            "pass:secret words",
            "-out",
            "old.key",
        ],
        &dir,
    );
    let (server, port) = (Server::subject(), free_port());
    let mut admin = server.connect();
    let path = |name: &str| dir.join(name).display().to_string();
    let set = |admin: &mut Client, key: &str, pass: &str| {
        admin
            .run(&format!(
                "CONFIG SET tls-port {port} tls-auth-clients no tls-cert-file {} tls-key-file {} tls-key-file-pass \"{pass}\"",
                path("server.crt"),
                path(key)
            ))
            .text()
    };
    assert!(set(&mut admin, "aes.key", "").contains("Unable to update TLS configuration"));
    assert!(server.log().contains("aes.key: the key is encrypted, and no pass phrase is configured"));
    assert!(set(&mut admin, "aes.key", "wrong").contains("Unable to update TLS configuration"));
    assert!(server.log().contains("aes.key: the key cannot be decrypted"));
    assert!(set(&mut admin, "old.key", "secret words").contains("Unable to update TLS configuration"));
    assert!(server.log().contains("old.key: the key is encrypted in a way that is not read"));
    assert!(set(&mut admin, "des.key", "secret words").contains("Unable to update TLS configuration"));
    assert!(server.log().contains("des.key: the key is encrypted in a way that is not read"));
    for key in ["aes.key", "scrypt.key", "server.key"] {
        assert_eq!(set(&mut admin, key, "secret words"), "OK", "{key}");
        let ping = Command::new("redis-cli")
            .args(["--tls", "--cacert", &path("ca.crt"), "-p", &port.to_string(), "PING"])
            .output()
            .unwrap();
        assert_eq!(text(&ping).trim(), "PONG", "{key}");
    }
    assert!(!server.log().contains("secret words"));
}

/// Certificates as `openssl` makes them when nothing else is said: one that is its own authority, and one of version 1.
#[test]
fn certificates_that_openssl_makes_unasked_are_believed() {
    let _guard = light();
    let dir = fresh_dir();
    make_certificates(&dir);
    openssl(
        &["req", "-x509", "-key", "redis.key", "-subj", "/CN=alone", "-days", "100", "-out", "alone.crt"],
        &dir,
    );
    openssl(&["req", "-new", "-key", "client.key", "-subj", "/CN=old", "-out", "old.csr"], &dir);
    openssl(
        &[
            "x509",
            "-req",
            "-in",
            "old.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            "old.crt",
        ],
        &dir,
    );
    assert!(openssl(&["x509", "-in", "old.crt", "-noout", "-text"], &dir).contains("Version: 1 (0x0)"));
    let path = |name: &str| dir.join(name).display().to_string();
    let launch = |crt: &str, key: &str, ca: &str, program: fn() -> Launch| {
        let port = free_port();
        let server = program()
            .args(&["--tls-port", &port.to_string(), "--tls-replication", "yes"])
            .args(&[
                "--tls-cert-file",
                &path(crt),
                "--tls-key-file",
                &path(key),
                "--tls-ca-cert-file",
                &path(ca),
            ])
            .start();
        (server, port)
    };
    for (crt, key, ca) in [("alone.crt", "redis.key", "alone.crt"), ("old.crt", "client.key", "ca.crt")] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let (ours, our_port) = launch(crt, key, ca, Launch::subject);
            let (real, real_port) = launch(crt, key, ca, Launch::real);
            let (mut a, mut b) = (ours.connect(), real.connect());
            a.ok(&format!("CONFIG SET tls-protocols {version}"));
            b.ok(&format!("CONFIG SET tls-protocols {version}"));
            // As a server that is shown such a certificate, then as a client that is.
            b.ok(&format!("REPLICAOF 127.0.0.1 {our_port}"));
            wait_for("they replicate", SOON, || b.info("master_link_status") == "up");
            b.ok("REPLICAOF NO ONE");
            a.ok(&format!("REPLICAOF 127.0.0.1 {real_port}"));
            wait_for("the other way", SOON, || a.info("master_link_status") == "up");
        }
    }
    // Signed by nobody whom the node knows: refused all the same.
    openssl(&["x509", "-req", "-in", "old.csr", "-signkey", "client.key", "-out", "self.crt"], &dir);
    let (_ours, port) = launch("redis.crt", "redis.key", "ca.crt", Launch::subject);
    let shown = ["--cert", &path("self.crt"), "--key", &path("client.key"), "--cacert", &path("ca.crt")];
    assert_ne!(cli_with(port, &shown, &["PING"]), "PONG");
    let shown = ["--cert", &path("old.crt"), "--key", &path("client.key"), "--cacert", &path("ca.crt")];
    assert_eq!(cli_with(port, &shown, &["PING"]), "PONG");
}

#[test]
fn replication_over_tls_both_ways_with_a_real_redis() {
    let _guard = light();
    let pairs: [(fn() -> Launch, fn() -> Launch); 3] = [
        (Launch::subject, Launch::real),
        (Launch::real, Launch::subject),
        (Launch::subject, Launch::subject),
    ];
    for (primary, replica) in pairs {
        let (primary, port) = with_tls(primary(), &["--tls-replication", "yes"]);
        let (replica, replica_port) = with_tls(replica(), &["--tls-replication", "yes"]);
        let (mut p, mut r) = (primary.connect(), replica.connect());
        // More than any buffer on the way holds.
        p.run(&format!("SETRANGE big {} x", 8 << 20));
        for i in 0..2000 {
            p.ok(&format!("SET key:{i} {}", "v".repeat(200)));
        }
        r.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        assert_eq!(r.run("DBSIZE"), p.run("DBSIZE"));
        // The replica tells the port that speaks TLS.
        wait_for("the replica is listed", SOON, || {
            p.info("slave0").contains(&format!("ip=127.0.0.1,port={replica_port},state=online"))
        });
        p.run(&format!("SETRANGE other {} y", 5 << 20));
        assert_eq!(p.run("WAIT 1 20000").int(), 1);
        assert_eq!(r.run("STRLEN other").int(), (5 << 20) + 1);
        // A link that is cut goes on from where it was.
        let full = p.info("sync_full");
        p.run("CLIENT KILL TYPE replica");
        wait_for("it is back", SOON, || p.info("sync_partial_ok") != "0");
        p.ok("SET after cut");
        wait_for("the replica caught up", SOON, || r.run("GET after").text() == "cut");
        assert_eq!(p.info("sync_full"), full);
    }
}

#[test]
fn a_replica_that_speaks_no_tls_is_not_served_on_the_tls_port() {
    let _guard = light();
    let (primary, port) = ours(&[]);
    let plain = Server::subject();
    let mut r = plain.connect();
    r.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
    wait_for("the primary says why", SOON, || {
        primary.log().contains("Error accepting a client connection: received corrupt message")
    });
    assert_eq!(r.info("master_link_status"), "down");
}

#[test]
fn migrate_over_tls_both_ways_with_a_real_redis() {
    let _guard = light();
    let (ours, our_port) = ours(&["--tls-cluster", "yes"]);
    let (theirs, their_port) = with_tls(Launch::real(), &["--tls-cluster", "yes"]);
    let (mut a, mut b) = (ours.connect(), theirs.connect());
    let value = "v".repeat(3 << 20);
    let there = |from: &mut Client, to: &mut Client, port: u16| {
        from.ok(&format!("SET one {value}"));
        from.run("RPUSH two a b c");
        from.ok(&format!("MIGRATE 127.0.0.1 {port} \"\" 0 20000 KEYS one two"));
        assert_eq!(from.run("EXISTS one two").int(), 0);
        assert_eq!(to.run("STRLEN one").int(), 3 << 20);
        assert_eq!(to.run("LRANGE two 0 -1").items().len(), 3);
        to.ok("FLUSHALL");
    };
    there(&mut a, &mut b, their_port);
    there(&mut b, &mut a, our_port);
    // To a port that speaks no TLS.
    a.ok("SET stays here");
    let failed = a.run(&format!("MIGRATE 127.0.0.1 {} stays 0 2000", theirs.port)).text();
    assert!(failed.starts_with("IOERR error or timeout"), "{failed}");
    assert_eq!(a.run("GET stays").text(), "here");
}

/// `redis-cli --cluster` over TLS.
fn cluster(args: &[&str]) -> String {
    let (ca, certificate, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let output = Command::new("redis-cli")
        .arg("--cluster")
        .args(args)
        .args(["--tls", "--cacert", &ca, "--cert", &certificate, "--key", &key])
        .stdin(Stdio::null())
        .output()
        .expect("run redis-cli");
    text(&output)
}

/// Three primaries with a replica each, of both kinds, form a cluster, redirect, move slots and fail over: all over
/// TLS.
#[test]
fn a_mixed_cluster_over_tls() {
    let _guard = light();
    let secure = ["--tls-cluster", "yes", "--tls-replication", "yes"];
    let kinds: [fn() -> Launch; 6] =
        [Launch::subject, Launch::real, Launch::subject, Launch::real, Launch::subject, Launch::real];
    // The bus lies ten thousand above the TLS port, and so both must be free.
    let mut nodes: Vec<(Server, u16)> = kinds.map(|kind| with_tls(kind().cluster(), &secure)).into();
    let addresses: Vec<String> = nodes.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    let mut args = vec!["create"];
    args.extend(addresses.iter().map(String::as_str));
    args.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    let said = cluster(&args);
    assert!(said.contains("[OK] All 16384 slots covered."), "{said}");
    let whole = |nodes: &[(Server, u16)], replicas: usize| {
        let mut linked = 0;
        let fine = nodes.iter().all(|(node, _)| {
            let mut client = node.connect();
            linked += usize::from(client.info("master_link_status") == "up");
            client.run("CLUSTER INFO").text().contains("cluster_state:ok")
                && client.run("CLUSTER NODES").text().matches("slave").count() == replicas
        });
        fine && linked == replicas
    };
    wait_for("the cluster is whole", LONG, || whole(&nodes, 3));
    // Clients that speak TLS are sent to ports that do, the rest to the others; as a real Redis says it.
    for ((server, port), other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let (tls, plain) =
            (cli(*port, &["CLUSTER", "SLOTS"]), server.connect().run("CLUSTER SLOTS").to_string());
        assert!(tls.contains(&other.1.to_string()) && !tls.contains(&other.0.port.to_string()), "{tls}");
        assert!(
            plain.contains(&other.0.port.to_string()) && !plain.contains(&other.1.to_string()),
            "{plain}"
        );
        let (tls, plain) = (cli(*port, &["CLUSTER", "NODES"]), server.connect().run("CLUSTER NODES").text());
        assert!(tls.contains(&format!("127.0.0.1:{}@", other.1)), "{tls}");
        assert!(plain.contains(&format!("127.0.0.1:{}@{}", other.0.port, other.1 + 10_000)), "{plain}");
    }
    let shards = nodes[0].0.connect().run("CLUSTER SHARDS").to_string();
    assert!(
        shards.contains(&format!("\"port\", :{}, \"tls-port\", :{}", nodes[2].0.port, nodes[2].1)),
        "{shards}"
    );
    for i in 0..50 {
        let key = format!("key:{i}");
        assert_eq!(cli(nodes[i % 3].1, &["-c", "SET", &key, "v"]), "OK");
        assert_eq!(cli(nodes[(i + 1) % 3].1, &["-c", "GET", &key]), "v");
    }
    // Slots with their keys go from ours to the real one and back.
    for (from, to) in [(0, 1), (1, 0)] {
        // News of slots travel by gossip, and redis-cli moves none before all have heard the last.
        wait_for("the nodes agree", LONG, || {
            cluster(&["check", &addresses[0]]).contains("[OK] All nodes agree about slots configuration.")
        });
        let id = |n: usize| nodes[n].0.connect().run("CLUSTER MYID").text();
        let said = cluster(&[
            "reshard",
            &addresses[0],
            "--cluster-from",
            &id(from),
            "--cluster-to",
            &id(to),
            "--cluster-slots",
            "1000",
            "--cluster-yes",
        ]);
        assert!(!said.contains("[ERR]") && !said.contains("Error"), "{said}");
    }
    let said = cluster(&["check", &addresses[0]]);
    assert!(said.contains("[OK] All 16384 slots covered."), "{said}");
    for i in 0..50 {
        assert_eq!(cli(nodes[2].1, &["-c", "GET", &format!("key:{i}")]), "v");
    }
    // A primary of each kind dies: its replica takes over.
    for n in [0, 1] {
        nodes[n].0.kill();
        let gone = format!(":{},", nodes[n].0.port);
        wait_for("a replica takes over", LONG, || {
            nodes[n + 1..].iter().all(|(node, _)| {
                let mut client = node.connect();
                client.run("CLUSTER INFO").text().contains("cluster_state:ok")
                    && !client.run("CLUSTER SLOTS").to_string().contains(&gone)
            })
        });
        for i in 0..50 {
            assert_eq!(cli(nodes[2].1, &["-c", "GET", &format!("key:{i}")]), "v");
        }
    }
}

/// A node without TLS, and one without a certificate, are not let onto the bus.
#[test]
fn the_bus_takes_only_nodes_with_a_certificate() {
    let _guard = light();
    let (node, port) =
        with_tls(Launch::subject().cluster(), &["--tls-cluster", "yes", "--tls-auth-clients", "no"]);
    let bus = port + 10_000;
    // Clients need none here, nodes do.
    assert_eq!(cli_with(port, &[], &["PING"]), "PONG");
    let address = format!("127.0.0.1:{bus}");
    let ca = file("ca.crt");
    let said = openssl(&["s_client", "-connect", &address, "-CAfile", &ca, "-tls1_2"], certificates());
    assert!(said.contains("alert"), "{said}");
    let mut plain = TcpStream::connect(("127.0.0.1", bus)).unwrap();
    plain.set_read_timeout(Some(SOON)).unwrap();
    plain.write_all(&[0x52; 4096]).unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    assert!(rest.len() < 64, "nothing but an alert");
    assert_eq!(node.connect().run("PING").text(), "PONG");
}

struct Guard {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Guard {
    /// A sentinel that speaks TLS alone, and watches what listens on `port`.
    fn start(program: &str, port: u16) -> Guard {
        Self::start_with(program, port, certificates())
    }

    fn start_with(program: &str, port: u16, certificates: &Path) -> Guard {
        let own = free_port();
        let dir = fresh_dir();
        let mut lines: Vec<String> = directives_from(certificates, own)
            .chunks(2)
            .map(|pair| format!("{} {}", &pair[0][2..], pair[1]))
            .collect();
        lines.extend(["port 0", "bind 127.0.0.1", "tls-replication yes"].map(str::to_owned));
        lines.push(format!("dir {}", dir.display()));
        lines.push(format!("sentinel monitor mymaster 127.0.0.1 {port} 2"));
        lines.push("sentinel down-after-milliseconds mymaster 2000\n".to_owned());
        let path = dir.join("sentinel.conf");
        fs::write(&path, lines.join("\n")).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(program);
        command.arg(&path);
        if program != "redis-sentinel" {
            command.arg("--sentinel");
        }
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let guard = Guard { child, port: own, dir };
        wait_for("the sentinel listens", SOON, || TcpStream::connect(("127.0.0.1", own)).is_ok());
        guard
    }

    fn primary(&self, field: &str) -> String {
        let said = cli(self.port, &["SENTINEL", "MASTER", "mymaster"]);
        let mut lines = said.lines();
        lines.find(|l| *l == field);
        lines.next().unwrap_or_default().to_owned()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sentinel ---\n{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
    }
}

/// Sentinels of both kinds find each other, watch nodes of both kinds and fail over, where nothing but TLS is spoken
/// between them.
#[test]
fn sentinels_over_tls() {
    let _guard = light();
    let kinds: [(fn() -> Launch, fn() -> Launch); 2] =
        [(Launch::subject, Launch::real), (Launch::real, Launch::subject)];
    for (primary, replica) in kinds {
        let (mut primary, port) = with_tls(primary(), &["--tls-replication", "yes"]);
        let (replica, replica_port) = with_tls(replica(), &["--tls-replication", "yes"]);
        let mut r = replica.connect();
        r.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
        wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
        let ours = subject().display().to_string();
        let guards = ["redis-sentinel", &ours, &ours].map(|program| Guard::start(program, port));
        wait_for("they know each other and the replica", LONG, || {
            guards.iter().all(|g| g.primary("num-other-sentinels") == "2" && g.primary("num-slaves") == "1")
        });
        primary.kill();
        wait_for("the replica is the primary", LONG, || {
            guards.iter().all(|g| g.primary("port") == replica_port.to_string())
        });
        // Its clients were cut off.
        wait_for("it knows", SOON, || replica.connect().info("role") == "master");
        // The old one comes back as a replica of the new one.
        primary.start_again();
        wait_for("the old one follows", LONG, || primary.connect().info("master_link_status") == "up");
        assert_eq!(primary.connect().info("master_port"), replica_port.to_string());
    }
}

/// A sentinel takes over new certificates as a node does.
#[test]
fn a_sentinel_takes_over_certificates_that_change() {
    let _guard = light();
    let (dir, newer) = (fresh_dir(), fresh_dir());
    make_certificates(&dir);
    for name in ["ca.crt", "ca.key"] {
        fs::copy(dir.join(name), newer.join(name)).unwrap();
    }
    make_certificates(&newer);
    let guard = Guard::start_with(&subject().display().to_string(), free_port(), &dir);
    let mut old = Secure::connect(guard.port, &dir);
    let first = old.certificate();
    for name in ["redis.key", "redis.crt"] {
        fs::copy(newer.join(name), dir.join(name)).unwrap();
    }
    wait_for("the change is taken over", SOON, || Secure::connect(guard.port, &dir).certificate() != first);
    assert_eq!(old.run("PING").text(), "PONG", "whoever is connected stays");
}

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
