//! The files of certificates and keys: refused, replaced while the server runs, expiring, encrypted.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::common::client::Client;
use crate::common::server::{Launch, Server, free_port, fresh_dir, subject};
use crate::common::{SOON, light, wait_for};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{
    Secure, certificates, cli, cli_with, directives, file, make_certificates, newer_certificates, openssl,
    ours, text,
};

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

/// Beside a file of authorities it may be empty, or come later.
#[test]
fn a_folder_of_authorities_may_be_empty_beside_a_file() {
    let _guard = light();
    let (server, port) = ours(&["--tls-ca-cert-dir", "/none"]);
    assert_eq!(cli(port, &["PING"]), "PONG");
    assert!(server.log().contains("tls-ca-cert-dir: /none: No such file or directory."));
    let folder = fresh_dir();
    let mut admin = server.connect();
    admin.ok(&format!("CONFIG SET tls-ca-cert-dir {}", folder.display()));
    assert_eq!(cli(port, &["PING"]), "PONG");
    let refused = admin.run("CONFIG SET tls-ca-cert-file ''").text();
    assert!(refused.contains("'tls-ca-cert-file') - Unable to update TLS configuration."), "{refused}");
    let restored = "Possibly related to new tls-ca-cert-file setting. Restoring previous settings.";
    assert!(server.log().contains(restored));
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
    let dir = fresh_dir();
    make_certificates(&dir);
    let newer = newer_certificates(&dir);
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
