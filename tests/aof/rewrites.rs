//! Rewrites, and the file switched on, off and moved while the server runs.

use std::fs;
use std::time::Duration;

use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use crate::workload::{Load, digest, every_type};

use super::{ON, aof, check, folder, manifest, rewrite, stop};

#[test]
fn a_rewrite_under_load_loses_nothing() {
    for preamble in ["yes", "no"] {
        let mut server = aof(&["--aof-use-rdb-preamble", preamble]);
        let mut client = server.connect();
        every_type(&mut client, true);
        let load = Load::start(server.port, 2);
        for _ in 0..3 {
            rewrite(&mut client);
        }
        drop(load);
        // Keys of a short life would be a part of one digest and not of the other.
        wait_for("they have died", SOON, || client.info("db0").contains("expires=2,"));
        let before = digest(&mut client);
        stop(&mut server);
        let kind = if preamble == "yes" { "rdb" } else { "aof" };
        assert_eq!(
            manifest(server.dir()),
            format!(
                "file appendonly.aof.4.base.{kind} seq 4 type b\nfile appendonly.aof.4.incr.aof seq 4 type i\n"
            )
        );
        wait_for("history goes", SOON, || folder(server.dir()).len() == 3);
        server.start_again();
        let mut client = server.connect();
        wait_for("they have died again", SOON, || client.info("db0").contains("expires=2,"));
        assert_eq!(digest(&mut client), before, "preamble {preamble}");
    }
}

/// A rewrite that ends because it is of no use any more is no failure: after three of those, rewrites would have to wait
/// for a minute, and nothing would be written meanwhile.
#[test]
fn rewrites_that_are_given_up_are_no_failures() {
    let mut server = aof(&["--rdbcompression", "no"]);
    let mut client = server.connect();
    client.run("DEBUG POPULATE 3000 key 1000");
    client.ok("CONFIG SET rdb-key-save-delay 5000");
    client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    for given_up in 1..=4 {
        client.ok("CONFIG SET appendonly no");
        client.ok("CONFIG SET appendonly yes");
        wait_for("it ends", SOON, || client.info("aof_rewrites") == given_up.to_string());
        if given_up == 4 {
            client.ok("CONFIG SET rdb-key-save-delay 0");
        }
        wait_for("the next one begins", SOON, || client.info("aof_rewrite_scheduled") == "0");
    }
    wait_for("the first base is there", SOON, || client.info("aof_rewrite_in_progress") == "0");
    assert_eq!(client.info("aof_last_bgrewrite_status"), "ok");
    assert_eq!(client.info("aof_rewrites_consecutive_failures"), "0");
    let before = digest(&mut client);
    stop(&mut server);
    server.start_again();
    assert_eq!(digest(&mut server.connect()), before);
}

#[test]
fn it_is_switched_on_where_the_directory_is_by_then() {
    let mut server = Launch::subject().args(&["--enable-protected-configs", "yes"]).start();
    let mut client = server.connect();
    client.ok("SET a 1");
    let other = server.dir().join("other");
    fs::create_dir(&other).expect("the directory");
    client.ok(&format!("CONFIG SET dir {}", other.display()));
    client.ok("CONFIG SET appendonly yes");
    wait_for("the first base is there", SOON, || {
        client.info("aof_rewrite_scheduled") == "0" && client.info("aof_rewrite_in_progress") == "0"
    });
    client.ok("CONFIG SET appendfsync always");
    client.ok("SET b 2");
    server.kill();
    assert_eq!(folder(&other).len(), 3);
    assert!(!server.dir().join("appendonlydir").exists());
    server.start_again_with(&["--dir", other.to_str().expect("text"), ON[0], ON[1]]);
    server.connect().expect("MGET a b", "[\"1\", \"2\"]");
}

/// As in Redis, `dir` counts from the next rewrite on. Here the former files stay complete until the new ones are, so
/// that a crash at any moment, or a rewrite that fails, loses nothing that was acknowledged.
#[test]
fn a_rewrite_moves_it_where_the_directory_is_by_then() {
    let args =
        ["--enable-protected-configs", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"];
    for crash in [false, true] {
        let mut server = aof(&args);
        let mut client = server.connect();
        client.run("DEBUG POPULATE 2000 key 100");
        rewrite(&mut client);
        let other = server.dir().join("other");
        fs::create_dir(&other).expect("the directory");
        client.ok("SELECT 3");
        client.ok("SET before x");
        client.ok(&format!("CONFIG SET dir {}", other.display()));
        // A disk that is full there: all goes on where it was.
        client.ok("DEBUG DISK-FAULT write temp- enospc");
        client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
        wait_for("the rewrite fails", SOON, || client.info("aof_last_bgrewrite_status") == "err");
        client.ok("DEBUG DISK-FAULT off");
        client.ok("SET between x");
        // The crash comes before it is through.
        client.ok(&format!("CONFIG SET rdb-key-save-delay {}", if crash { 10_000 } else { 200 }));
        client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
        client.ok("SET meanwhile x");
        client.pipeline(&["MULTI", "INCR n", "INCR n", "EXEC"]);
        let mut from = server.dir().to_owned();
        if !crash {
            wait_for("the rewrite ends", SOON, || client.info("aof_rewrite_in_progress") == "0");
            assert_eq!(client.info("aof_last_bgrewrite_status"), "ok");
            client.ok("SET after x");
            client.expect("WAITAOF 1 0 20000", "[:1, :0]");
            from = other;
        }
        server.kill();
        server.start_again_with(&["--dir", from.to_str().expect("text"), ON[0], ON[1]]);
        let mut client = server.connect();
        client.expect("DBSIZE", ":2000");
        client.ok("SELECT 3");
        client.expect("MGET before between meanwhile n", r#"["x", "x", "x", "2"]"#);
        client.expect("EXISTS after", if crash { ":0" } else { ":1" });
    }
}

#[test]
fn it_is_switched_on_and_off_at_run_time() {
    let mut server = Launch::subject().start();
    let mut client = server.connect();
    every_type(&mut client, true);
    assert_eq!(client.info("aof_enabled"), "0");
    client.ok("CONFIG SET appendonly yes");
    client.ok("SET later x");
    wait_for("the first base is there", SOON, || {
        client.info("aof_rewrite_scheduled") == "0" && client.info("aof_rewrite_in_progress") == "0"
    });
    assert_eq!(client.info("aof_enabled"), "1");
    client.ok("CONFIG SET appendfsync always");
    client.ok("SET last x");
    let before = digest(&mut client);
    server.kill();
    server.start_again_with(&ON);
    let mut client = server.connect();
    assert_eq!(digest(&mut client), before);
    client.ok("CONFIG SET appendonly no");
    client.ok("SET lost x");
    client.expect(
        "WAITAOF 1 0 0",
        "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
    );
    stop(&mut server);
    server.start_again();
    assert_eq!(digest(&mut server.connect()), before);
}

/// Who switches it on and waits for the end of the rewrite finds the first base written: at no moment does INFO say
/// that nothing is under way before.
#[test]
fn the_first_rewrite_is_seen_from_the_answer_to_config_set_on() {
    let server = Launch::subject().start();
    let mut client = server.connect();
    client.run("DEBUG POPULATE 20000");
    for round in 1..=20 {
        client.ok("CONFIG SET appendonly yes");
        wait_for("the rewrite ends", SOON, || client.info("aof_rewrite_in_progress") == "0");
        assert_eq!(client.info_int("aof_rewrites"), round);
        assert!(manifest(server.dir()).contains(" type b"), "a base is there");
        client.ok("CONFIG SET appendonly no");
    }
}

/// Each takes a picture of its own, and waits for none of the others.
#[test]
fn a_rewrite_and_a_full_synchronisation_do_not_wait_for_a_save() {
    let mut server = aof(&[]);
    let mut client = server.connect();
    every_type(&mut client, true);
    client.run("DEBUG POPULATE 4000 many 10");
    // A save that takes as long as it is wanted.
    client.ok("CONFIG SET rdb-key-save-delay 5000");
    client.expect("BGSAVE", "+Background saving started");
    wait_for("the save has begun", SOON, || client.info_int("current_save_keys_processed") > 0);
    client.ok("CONFIG SET rdb-key-save-delay 0");
    let load = Load::start(server.port, 1);
    rewrite(&mut client);
    let replica = Server::subject();
    let mut on_replica = replica.connect();
    on_replica.ok(&format!("REPLICAOF 127.0.0.1 {}", server.port));
    wait_for("the link is up", SOON, || on_replica.info("master_link_status") == "up");
    assert_eq!(client.info("rdb_bgsave_in_progress"), "1", "the save is still being written");
    client.expect("BGSAVE", "-ERR Background save already in progress");
    drop(load);
    wait_for("they have died", SOON, || client.info("db0").contains("expires=2,"));
    client.expect("WAIT 1 10000", ":1");
    let before = digest(&mut client);
    assert_eq!(digest(&mut on_replica), before);
    wait_for("the save ends", Duration::from_secs(60), || client.info("rdb_bgsave_in_progress") == "0");
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
    stop(&mut server);
    let out = check("rdb", &[server.dir().join("dump.rdb").to_str().expect("text")], "");
    assert!(out.1, "{}", out.0);
    server.start_again();
    let mut client = server.connect();
    wait_for("they have died again", SOON, || client.info("db0").contains("expires=2,"));
    assert_eq!(digest(&mut client), before);
}

#[test]
fn growth_begins_a_rewrite() {
    let server = aof(&["--auto-aof-rewrite-min-size", "64kb", "--auto-aof-rewrite-percentage", "50"]);
    let mut client = server.connect();
    for i in 0..200 {
        client.ok(&format!("SET key {}{i}", "x".repeat(1000)));
    }
    wait_for("a rewrite begins", SOON, || server.log().contains("Starting automatic rewriting of AOF on "));
    wait_for("it is rewritten", SOON, || client.info_int("aof_current_size") < 150_000);
}
