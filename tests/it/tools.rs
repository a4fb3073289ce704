//! The modes of redis-cli run clean on this server.

use crate::common::client::encode;
use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// Some keys of each type.
fn filled(settings: &[&str]) -> Server {
    let server = Launch::subject().args(settings).start();
    let mut client = server.connect();
    client.ok("DEBUG POPULATE 500");
    for i in 0..200 {
        client.pipeline(&[
            format!("RPUSH list e{i}"),
            format!("SADD set m{i}"),
            format!("HSET hash f{i} v"),
            format!("ZADD zset {i} m{i}"),
            format!("XADD stream * f {i}"),
        ]);
    }
    server
}

/// A mode of redis-cli that ends by itself: what it says.
#[track_caller]
fn cli(server: &Server, args: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &server.port.to_string()])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("run redis-cli");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{args:?}: {text}{errors}");
    assert!(!text.contains("ERR") && !text.to_lowercase().contains("error"), "{args:?}: {text}");
    text
}

/// A mode of redis-cli that goes on for ever: is ended once it has said something that `enough` accepts.
#[track_caller]
fn watch(server: &Server, args: &[&str], enough: impl Fn(&str) -> bool) {
    let mut child = Command::new("redis-cli")
        .args(["-p", &server.port.to_string()])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run redis-cli");
    let said = Arc::new(Mutex::new(Vec::new()));
    let mut out = child.stdout.take().expect("its output");
    let for_thread = Arc::clone(&said);
    let reader = thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = out.read(&mut chunk) {
            for_thread.lock().expect("the text").extend_from_slice(&chunk[..n]);
        }
    });
    let text = || String::from_utf8_lossy(&said.lock().expect("the text")).into_owned();
    wait_for(&format!("{args:?}"), SOON, || enough(&text()));
    child.kill().expect("end redis-cli");
    let ended = child.wait_with_output().expect("redis-cli has ended");
    reader.join().expect("the reader");
    assert!(ended.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    assert!(!text().contains("ERR"), "{args:?}: {}", text());
}

#[test]
fn redis_cli_finds_big_keys_and_scans() {
    let server = filled(&[]);
    let text = cli(&server, &["--bigkeys"]);
    assert!(text.contains("Sampled 505 keys in the keyspace!"), "{text}");
    for found in [
        "Biggest   list found",
        "Biggest   hash found",
        "Biggest    set found",
        "Biggest   zset found",
        "Biggest stream found",
    ] {
        assert!(text.contains(found), "{found}: {text}");
    }
    let text = cli(&server, &["--memkeys"]);
    assert!(text.contains("Sampled 505 keys in the keyspace!"), "{text}");
    let scanned = cli(&server, &["--scan", "--pattern", "key:1?"]);
    assert_eq!(scanned.lines().count(), 10, "{scanned}");
    assert_eq!(cli(&server, &["--scan"]).lines().count(), 505);
}

#[test]
fn redis_cli_finds_hot_keys() {
    let server = filled(&["--maxmemory-policy", "allkeys-lfu"]);
    let mut client = server.connect();
    for _ in 0..500 {
        client.run("GET key:7");
    }
    let text = cli(&server, &["--hotkeys"]);
    assert!(text.contains("Sampled 505 keys in the keyspace!") && text.contains("key:7"), "{text}");
}

#[test]
fn redis_cli_measures_and_shows() {
    let server = filled(&[]);
    watch(&server, &["--stat", "-i", "0.1"], |text| text.lines().count() >= 4 && text.contains("505"));
    watch(&server, &["--latency-dist", "-i", "0.1"], |text| text.len() > 50);
    let text = cli(&server, &["--latency", "--raw", "-i", "1"]);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers.len(), 4, "{text}");
}

#[test]
fn redis_cli_pipes_commands_in() {
    let server = Server::subject();
    let mut child = Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run redis-cli");
    let mut input = child.stdin.take().expect("its input");
    for i in 0..5000 {
        input.write_all(&encode(&["SET", &format!("k:{i}"), "v"])).expect("write a command");
    }
    drop(input);
    let output = child.wait_with_output().expect("redis-cli ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("errors: 0, replies: 5000"), "{text}");
    server.connect().expect("DBSIZE", ":5000");
}
