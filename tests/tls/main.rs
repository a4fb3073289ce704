//! TLS with real programs on the other side: redis-cli, redis-benchmark, redis-server and redis-sentinel 7.0, openssl.

#[path = "../common/mod.rs"]
mod common;

mod certificates;
mod clients;
mod handshakes;
mod links;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::SOON;
use common::client::{Reply, decode, encode};
use common::server::{Launch, Server, free_port, fresh_dir};
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

/// Others, which the same authority has signed, in a folder of their own.
fn newer_certificates(dir: &Path) -> PathBuf {
    let newer = fresh_dir();
    for name in ["ca.crt", "ca.key"] {
        fs::copy(dir.join(name), newer.join(name)).expect("copy the authority");
    }
    make_certificates(&newer);
    newer
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
