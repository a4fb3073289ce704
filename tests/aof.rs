//! The append-only file: written, loaded, rewritten, exchanged with a real Redis, damaged, interrupted.
//!
//! Where a real Redis stands beside it (interop, bytes of an increment), it is the judge; the other tests demand what
//! Redis documents and were not run against one.

mod common;
#[path = "it/workload.rs"]
#[allow(dead_code)] // other tests use the rest
mod workload;

use common::client::{Client, encode, words};
use common::server::{Launch, Server, fresh_dir};
use common::{SOON, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use workload::{Load, digest, every_type};

const ON: [&str; 2] = ["--appendonly", "yes"];

fn aof(args: &[&str]) -> Server {
    Launch::subject().args(&ON).args(args).start()
}

/// The files of the folder by name.
fn folder(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir.join("appendonlydir"))
        .expect("the folder")
        .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn manifest(dir: &Path) -> String {
    fs::read_to_string(dir.join("appendonlydir/appendonly.aof.manifest")).expect("the manifest")
}

fn last_increment(dir: &Path) -> PathBuf {
    let text = manifest(dir);
    let line = text.lines().last().expect("a line");
    dir.join("appendonlydir").join(line.split(' ').nth(1).expect("a name"))
}

fn rewrite(client: &mut Client) {
    client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    wait_for("the rewrite ends", SOON, || client.info("aof_rewrite_in_progress") == "0");
    assert_eq!(client.info("aof_last_bgrewrite_status"), "ok");
}

/// Ends without saving: what comes back is from the append-only file.
fn stop(server: &mut Server) {
    let _ = server.connect().try_run("SHUTDOWN NOSAVE");
    server.wait_exit();
}

/// Ends the server and starts it again; fails once it cannot start.
fn refuses_to_start(dir: &Path, args: &[&str]) -> String {
    let out = Command::new(common::server::subject())
        .args(["--port", "0", "--unixsocket", "s.sock", "--save", "", "--dir"])
        .arg(dir)
        .args(ON)
        .args(args)
        .output()
        .expect("start the server");
    assert!(!out.status.success());
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn every_change_is_there_after_a_restart() {
    for policy in ["always", "everysec", "no"] {
        let mut server = aof(&["--appendfsync", policy]);
        let mut client = server.connect();
        every_type(&mut client, true);
        client.pipeline(&["MULTI", "SET a 1", "INCR a", "EXEC"]);
        let before = digest(&mut client);
        stop(&mut server);
        assert_eq!(
            manifest(server.dir()),
            "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
        );
        server.start_again();
        let mut client = server.connect();
        assert_eq!(digest(&mut client), before, "{policy}");
        client.expect("GET a", "\"2\"");
        assert!(server.log().contains("DB loaded from append only file"));
        // It goes on in the same increment.
        client.ok("SET b 2");
        stop(&mut server);
        server.start_again();
        server.connect().expect("GET b", "\"2\"");
        assert_eq!(folder(server.dir()).len(), 3);
    }
}

/// What both write without timestamps and for the same commands has the same bytes.
#[test]
fn an_increment_has_the_bytes_that_redis_writes() {
    let write = |server: Server| {
        let mut server = server;
        let mut client = server.connect();
        let lines = [
            "SET a 1",
            "SELECT 3",
            "RPUSH l a b",
            "GET a",
            "MULTI",
            "SADD s x",
            "INCR n",
            "EXEC",
            // One write, or none, is no transaction.
            "MULTI",
            "SET one 1",
            "GET one",
            "EXEC",
            "MULTI",
            "DEL nosuch",
            "EXEC",
            "SORT l ALPHA STORE sorted",
            "SMOVE s t x",
            "GETDEL one",
            "COPY l m",
            "BITOP NOT n2 n",
            "PFMERGE p",
            "SELECT 0",
        ];
        client.pipeline(&lines);
        client.pipeline(&["SPOP nothing", "DEL a", "SET c 1 PXAT 9999999999999"]);
        stop(&mut server);
        String::from_utf8(fs::read(last_increment(server.dir())).expect("the increment")).expect("text")
    };
    assert_eq!(write(aof(&[])), write(Launch::real().args(&ON).start()));
}

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

/// One folder, five times from one server to the other, each time with writes and rewrites.
#[test]
fn a_folder_changes_hands_between_us_and_redis() {
    for preamble in ["yes", "no"] {
        let dir =
            std::env::temp_dir().join(format!("keystead-aof-hand-over-{}-{preamble}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let mut before = None;
        for turn in 0..10 {
            let launch = if turn % 2 == 0 { Launch::subject() } else { Launch::real() };
            let args = ["--aof-use-rdb-preamble", preamble, "--aof-timestamp-enabled", "yes"];
            let mut server = launch.args(&ON).args(&args).dir(&dir).start();
            let mut client = server.connect();
            if let Some(before) = &before {
                assert_eq!(&digest(&mut client), before, "turn {turn}, preamble {preamble}");
            } else {
                every_type(&mut client, true);
                client
                    .pipeline(&["XGROUP CREATE stream g 0", "XREADGROUP GROUP g c COUNT 2 STREAMS stream >"]);
            }
            client.pipeline(&[
                format!("SET turn:{turn} x"),
                "INCR turns".into(),
                format!("XADD stream * turn {turn}"),
            ]);
            if turn % 4 > 1 {
                rewrite(&mut client);
                client.pipeline(&["MULTI", "INCR turns", "RPUSH list x", "EXEC"]);
            }
            before = Some(digest(&mut client));
            stop(&mut server);
        }
        fs::remove_dir_all(&dir).expect("remove the directory");
    }
}

#[test]
fn a_file_of_an_older_server_is_taken_over() {
    let mut server = aof(&[]);
    let mut client = server.connect();
    every_type(&mut client, false);
    rewrite(&mut client);
    client.ok("SET tail x");
    let before = digest(&mut client);
    stop(&mut server);
    // Before Redis 7 the base with its preamble and what followed were one file.
    let dir = server.dir().to_owned();
    let mut old = fs::read(dir.join("appendonlydir/appendonly.aof.2.base.rdb")).expect("the base");
    old.extend(fs::read(last_increment(&dir)).expect("the increment"));
    fs::remove_dir_all(dir.join("appendonlydir")).expect("remove");
    fs::write(dir.join("appendonly.aof"), old).expect("write");
    server.start_again();
    let mut client = server.connect();
    assert_eq!(digest(&mut client), before);
    assert!(server.log().contains("Successfully migrated an old-style AOF"));
    assert!(!dir.join("appendonly.aof").exists());
    client.ok("SET more x");
    stop(&mut server);
    assert_eq!(
        manifest(&dir),
        "file appendonly.aof seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
    );
    server.start_again();
    server.connect().expect("MGET tail more", "[\"x\", \"x\"]");
}

/// A crash may come when the manifest names the old file and the file is not yet in the folder.
#[test]
fn a_file_of_an_older_server_is_taken_over_in_a_second_attempt() {
    for launch in [Launch::subject(), Launch::real()] {
        let dir = fresh_dir();
        fs::create_dir(dir.join("appendonlydir")).expect("the folder");
        fs::write(dir.join("appendonly.aof"), "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n").expect("the file");
        let manifest = dir.join("appendonlydir/appendonly.aof.manifest");
        fs::write(manifest, "file appendonly.aof seq 1 type b\n").expect("the manifest");
        let mut server = launch.args(&ON).dir(&dir).start();
        server.connect().expect("GET a", "\"1\"");
        assert!(!dir.join("appendonly.aof").exists());
        stop(&mut server);
        fs::remove_dir_all(&dir).expect("remove the directory");
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

/// Data that came and went without a record leave the files behind: they are made anew.
#[test]
fn a_full_synchronisation_that_breaks_off_leaves_no_old_data_in_the_files() {
    let primary = Launch::subject().args(&["--databases", "20"]).start();
    let mut on_primary = primary.connect();
    on_primary.ok("SELECT 18");
    on_primary.ok("SET too far");
    let mut replica = aof(&["--appendfsync", "always"]);
    let mut client = replica.connect();
    client.ok("SET old x");
    client.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the load fails", SOON, || {
        replica.log().contains("Redis server configured to handle more than 16 databases")
    });
    wait_for("it is let in", SOON, || client.run("REPLICAOF NO ONE").to_string() == "+OK");
    wait_for("the load is over", SOON, || client.info("loading") == "0");
    wait_for("a base of what is there now", SOON, || {
        client.info("aof_rewrite_scheduled") == "0" && client.info("aof_rewrite_in_progress") == "0"
    });
    client.expect("DBSIZE", ":0");
    client.ok("SET new x");
    replica.kill();
    replica.start_again();
    replica.connect().expect("EXISTS old", ":0");
    replica.connect().expect("GET new", "\"x\"");
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

#[test]
fn what_a_crash_cut_off_is_taken_back() {
    let mut server = aof(&[]);
    let mut client = server.connect();
    client.pipeline(&["SET a 1", "MULTI", "SET b 1", "SET c 1", "EXEC"]);
    stop(&mut server);
    let dir = server.dir().to_owned();
    let path = last_increment(&dir);
    let whole = fs::read(&path).expect("read");
    let text = String::from_utf8_lossy(&whole).into_owned();
    let first = text.find("*1\r\n$5\r\nMULTI").expect("a transaction");
    for end in first..whole.len() {
        if !(end - first).is_multiple_of(9) && end + 1 != whole.len() {
            continue;
        }
        fs::write(&path, &whole[..end]).expect("write");
        server.start_again();
        let mut client = server.connect();
        client.expect("EXISTS a b c", ":1");
        stop(&mut server);
        assert_eq!(fs::read(&path).expect("read"), &whole[..first], "{end}");
    }
    fs::write(&path, &whole[..whole.len() - 3]).expect("write");
    let log = refuses_to_start(&dir, &["--aof-load-truncated", "no"]);
    assert!(
        log.contains("Unexpected end of file reading the append only file appendonly.aof.1.incr.aof"),
        "{log}"
    );
}

#[test]
fn damage_is_refused_with_its_place() {
    let mut server = aof(&[]);
    let mut client = server.connect();
    client.pipeline(&["SET a 1", "SET b 2"]);
    stop(&mut server);
    let dir = server.dir().to_owned();
    let path = last_increment(&dir);
    let whole = fs::read(&path).expect("read");
    let mut bytes = whole.clone();
    bytes[23] = b'X';
    fs::write(&path, &bytes).expect("write");
    let log = refuses_to_start(&dir, &[]);
    assert!(log.contains("Bad file format reading the append only file appendonly.aof.1.incr.aof"), "{log}");
    fs::write(&path, "*1\r\n$7\r\nNONSENS\r\n").expect("write");
    let log = refuses_to_start(&dir, &[]);
    assert!(log.contains("Unknown command 'NONSENS' reading the append only file"), "{log}");
    fs::write(&path, &whole).expect("write");
    fs::write(dir.join("appendonlydir/appendonly.aof.manifest"), "file x seq 0 type b\n").expect("write");
    let log = refuses_to_start(&dir, &[]);
    assert!(log.contains("FATAL AOF MANIFEST FILE ERROR") && log.contains("at line 1"), "{log}");
    fs::write(
        dir.join("appendonlydir/appendonly.aof.manifest"),
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile gone seq 1 type i\n",
    )
    .expect("write");
    let log = refuses_to_start(&dir, &[]);
    assert!(log.contains("gone"), "{log}");
}

/// What a client has been told, and when: the greatest value of its counters.
#[derive(Default)]
struct Told(Mutex<Vec<(Instant, i64)>>);

impl Told {
    fn note(&self, value: i64) {
        self.0.lock().expect("no panic").push((Instant::now(), value));
    }

    fn last(&self) -> i64 {
        self.0.lock().expect("no panic").last().map_or(0, |told| told.1)
    }

    /// What was told at least so long before `end`.
    fn before(&self, end: Instant, age: Duration) -> i64 {
        let told = self.0.lock().expect("no panic");
        told.iter().rev().find(|told| told.0 + age <= end).map_or(0, |told| told.1)
    }
}

/// Raises two counters in one transaction, then two others in one script, until the server is gone.
fn raise(port: u16, n: usize, told: &Told) {
    let mut client = Client::connect(port);
    let script = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])";
    let lines = [
        "MULTI".to_owned(),
        format!("INCR {{{n}}}a"),
        format!("INCR {{{n}}}b"),
        "EXEC".into(),
        format!("EVAL \"{script}\" 2 {{{n}}}c {{{n}}}d"),
    ];
    loop {
        for (at, line) in lines.iter().enumerate() {
            let Ok(reply) = client.try_run(line) else { return };
            if at == 4 {
                told.note(reply.int());
            }
        }
    }
}

/// The server is killed again and again under load. Transactions and scripts are whole or absent, and no more is
/// lost than what was acknowledged within `may_lose` of the kill. `None`: nothing is promised.
fn kill_under_load(policy: &str, rounds: u64, may_lose: Option<Duration>) {
    let mut server = aof(&["--appendfsync", policy, "--auto-aof-rewrite-min-size", "1mb"]);
    let mut lost = 0;
    for round in 0..rounds {
        let told: Vec<_> = (0..4).map(|_| Arc::new(Told::default())).collect();
        let port = server.port;
        let clients = told.iter().enumerate().map(|(n, told)| {
            let told = Arc::clone(told);
            std::thread::spawn(move || raise(port, n, &told))
        });
        let clients: Vec<_> = clients.collect();
        // A different moment each time, also in the middle of rewrites.
        let enough = 20 + round * 37 % 200;
        wait_for("there is load", SOON, || {
            told.iter().all(|t| t.0.lock().expect("no panic").len() as u64 > enough)
        });
        if round % 4 == 1 {
            server.connect().run("BGREWRITEAOF");
        }
        let killed = Instant::now();
        server.kill();
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        server.start_again();
        let mut client = server.connect();
        for (n, told) in told.iter().enumerate() {
            let reply = client.run(&format!("MGET {{{n}}}a {{{n}}}b {{{n}}}c {{{n}}}d"));
            let there: Vec<i64> =
                reply.items().iter().map(|item| item.text().parse().expect("a number")).collect();
            assert_eq!(there[0], there[1], "round {round}: half a transaction");
            assert_eq!(there[2], there[3], "round {round}: half a script");
            lost += (told.last() - there[2]).max(0);
            if let Some(may_lose) = may_lose {
                let promised = told.before(killed, may_lose);
                assert!(
                    there[2] >= promised && there[0] >= promised,
                    "round {round}: {there:?} of {promised}"
                );
            }
        }
    }
    println!("{policy}: {rounds} kills, {lost} acknowledged rounds of writes lost");
}

/// `KEYSTEAD_KILLS=200` kills so often.
fn rounds() -> u64 {
    std::env::var("KEYSTEAD_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

#[test]
fn kill_9_with_always_loses_nothing() {
    // Also what was acknowledged at the moment of the kill.
    kill_under_load("always", rounds(), Some(Duration::ZERO));
}

#[test]
fn kill_9_with_everysec_loses_a_second_at_most() {
    kill_under_load("everysec", rounds(), Some(Duration::from_secs(1)));
}

#[test]
fn kill_9_with_no_leaves_whole_transactions() {
    kill_under_load("no", rounds(), None);
}

#[test]
fn a_full_synchronisation_begins_the_file_anew() {
    let primary = Server::subject();
    let mut on_primary = primary.connect();
    every_type(&mut on_primary, true);
    let mut replica = aof(&[]);
    let mut client = replica.connect();
    client.ok("SET own x");
    client.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || client.info("master_link_status") == "up");
    wait_for("the file is there", SOON, || {
        client.info("aof_rewrite_scheduled") == "0" && client.info("aof_rewrite_in_progress") == "0"
    });
    on_primary.pipeline(&["SET after x", "SELECT 4", "SET other x"]);
    on_primary.expect("WAIT 1 0", ":1");
    let before = digest(&mut on_primary);
    assert_eq!(digest(&mut client), before);
    client.ok("REPLICAOF NO ONE");
    stop(&mut replica);
    replica.start_again();
    assert_eq!(digest(&mut replica.connect()), before);
}

#[test]
fn waitaof_counts_what_is_on_disks() {
    if common::server::subject_is_real() {
        return; // 7.0 does not have it.
    }
    let primary = aof(&["--appendfsync", "everysec"]);
    let mut client = primary.connect();
    client.ok("SET a 1");
    client.expect("WAITAOF 1 0 0", "[:1, :0]");
    let replica = aof(&["--appendfsync", "always"]);
    let mut on_replica = replica.connect();
    on_replica.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || on_replica.info("master_link_status") == "up");
    client.ok("SET b 1");
    client.expect("WAITAOF 1 1 20000", "[:1, :1]");
    on_replica.ok("CONFIG SET appendonly no");
    client.ok("SET c 1");
    client.expect("WAITAOF 1 1 3000", "[:1, :0]");
}

/// It would be a wait without end.
#[test]
fn waitaof_for_a_file_that_is_turned_off_ends() {
    if common::server::subject_is_real() {
        return; // 7.0 does not have it.
    }
    let primary = aof(&["--appendfsync", "everysec"]);
    let (mut client, mut waiting) = (primary.connect(), primary.connect());
    waiting.ok("SET a 1");
    waiting.send(&["WAITAOF", "1", "1", "0"]);
    wait_for("it waits", SOON, || client.info("blocked_clients") == "1");
    client.ok("CONFIG SET appendonly no");
    let told = waiting.read().to_string();
    assert_eq!(told, "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");
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

/// On a small file system of its own, where that may be made. Redis differs: it ends under `always`.
#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let dir = std::env::temp_dir().join(format!("keystead-aof-full-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&dir).output();
    if !mount.is_ok_and(|out| out.status.success()) {
        eprintln!("no file system can be mounted here: skipped");
        return;
    }
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
            let _ = fs::remove_dir(&self.0);
        }
    }
    let _unmount = Unmount(dir.clone());
    let mut server = Launch::subject().args(&ON).dir(&dir).start();
    let mut client = server.connect();
    client.ok("SET key before");
    let ballast = dir.join("ballast");
    let value = "x".repeat(100_000);
    let mut refused = String::new();
    wait_for("the disk is full", SOON, || {
        refused = client.run(&format!("SET big:{} {value}", client.local_port())).to_string();
        refused.starts_with("-MISCONF")
    });
    assert_eq!(refused, "-MISCONF Errors writing to the AOF file: No space left on device");
    client.expect("GET key", "\"before\"");
    assert_eq!(client.info("aof_last_write_status"), "err");
    assert!(client.run("PING").to_string().starts_with("-MISCONF"));
    let _ = fs::remove_file(ballast);
    let remount = Command::new("mount").args(["-o", "remount,size=16m"]).arg(&dir).status();
    assert!(remount.is_ok_and(|status| status.success()));
    wait_for("it has recovered", SOON, || client.run("SET key after").to_string() == "+OK");
    assert!(server.log().contains("AOF write error looks solved"));
    let before = digest(&mut client);
    stop(&mut server);
    server.start_again();
    assert_eq!(digest(&mut server.connect()), before);
}

/// The program's output and whether it was content. `check`: rdb or aof.
fn check(check: &str, args: &[&str], answer: &str) -> (String, bool) {
    use std::io::Write;
    use std::process::Stdio;
    let real = common::server::subject_is_real();
    let mut command = if real {
        Command::new(format!("redis-check-{check}"))
    } else {
        let mut command = Command::new(common::server::subject());
        command.arg(format!("--check-{check}"));
        command
    };
    let child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("start the check");
    child.stdin.take().expect("its input").write_all(answer.as_bytes()).expect("answer");
    let out = child.wait_with_output().expect("wait for the check");
    (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.success())
}

#[test]
fn the_check_of_a_folder_finds_damage_and_cuts_it_off() {
    let mut server = aof(&[]);
    let mut client = server.connect();
    every_type(&mut client, true);
    rewrite(&mut client);
    client.pipeline(&["SET a 1", "MULTI", "SET b 1", "SET c 1", "EXEC"]);
    stop(&mut server);
    let dir = server.dir().to_owned();
    let manifest = dir.join("appendonlydir/appendonly.aof.manifest");
    let manifest = manifest.to_str().expect("text");
    let (out, ok) = check("aof", &[manifest], "");
    assert!(ok && out.ends_with("All AOF files and manifest are valid\n"), "{out}");
    assert!(
        out.contains("RDB looks OK") && out.contains("INCR AOF appendonly.aof.2.incr.aof is valid"),
        "{out}"
    );
    let path = last_increment(&dir);
    let whole = fs::read(&path).expect("read");
    let multi = String::from_utf8_lossy(&whole).find("*1\r\n$5\r\nMULTI").expect("a transaction");
    for end in multi + 1..whole.len() {
        fs::write(&path, &whole[..end]).expect("write");
        let (out, ok) = check("aof", &[manifest], "");
        let said = format!("size={end}, ok_up_to={multi}, ");
        assert!(!ok && out.contains(&said) && out.contains("Use the --fix option"), "{end}: {out}");
    }
    let (out, ok) = check("aof", &["--fix", manifest], "n\n");
    assert!(!ok && out.ends_with("Continue? [y/N]: Aborting...\n"), "{out}");
    let (out, ok) = check("aof", &["--fix", manifest], "y\n");
    assert!(ok && out.contains("Successfully truncated AOF appendonly.aof.2.incr.aof"), "{out}");
    assert_eq!(fs::read(&path).expect("read"), &whole[..multi]);
    assert!(check("aof", &[manifest], "").1);
    let (out, ok) = check("aof", &[], "");
    assert!(
        !ok && out.contains("[--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>"),
        "{out}"
    );
}

#[test]
fn a_folder_is_cut_at_a_point_in_time() {
    let mut server = aof(&["--aof-timestamp-enabled", "yes"]);
    let mut client = server.connect();
    client.ok("SET a 1");
    let stamp = |name: &Path| {
        let text = String::from_utf8(fs::read(name).expect("read")).expect("text");
        let stamps =
            text.lines().filter_map(|line| line.strip_prefix("#TS:").map(|s| s.trim().parse::<i64>()));
        stamps.map(|stamp| stamp.expect("a number")).collect::<Vec<_>>()
    };
    let path = last_increment(server.dir());
    wait_for("a second stamp", SOON, || {
        client.ok("SET b 1");
        stamp(&path).len() > 1
    });
    stop(&mut server);
    let first = stamp(&path)[0];
    let manifest = server.dir().join("appendonlydir/appendonly.aof.manifest");
    let manifest = manifest.to_str().expect("text");
    let (out, ok) = check("aof", &["--truncate-to-timestamp", "1", manifest], "");
    assert!(!ok && out.contains("has nothing before timestamp 1"), "{out}");
    let (out, ok) = check("aof", &["--truncate-to-timestamp", &first.to_string(), manifest], "");
    assert!(
        ok && out
            .contains(&format!("Successfully truncated AOF appendonly.aof.1.incr.aof to timestamp {first}"))
    );
    assert_eq!(stamp(&path), [first]);
    server.start_again();
    server.connect().expect("GET a", "\"1\"");
}

/// A folder that is damaged has no such point: nothing is cut, and it is not called sound. Told beside redis-check-aof.
#[test]
fn a_damaged_folder_is_not_cut_at_a_point_in_time() {
    let dir = fresh_dir();
    let manifest = dir.join("appendonly.aof.manifest");
    fs::write(&manifest, "file appendonly.aof.1.incr.aof seq 1 type i\n").expect("write");
    let bytes = "#TS:100\r\n*1\r\n$4\r\nPING\r\ndamage";
    fs::write(dir.join("appendonly.aof.1.incr.aof"), bytes).expect("write");
    let words = ["--truncate-to-timestamp", "200", manifest.to_str().expect("text")];
    let real = Command::new("redis-check-aof").args(words).output().expect("redis-check-aof");
    let real = (String::from_utf8_lossy(&real.stdout).into_owned(), real.status.success());
    for (who, (out, ok)) in [("Redis", real), ("ours", check("aof", &words, ""))] {
        assert!(!ok && out.contains("size=29, ok_up_to=23, "), "{who}: {out}");
        assert!(out.ends_with("is not valid. Use the --fix option to try fixing it.\n"), "{who}: {out}");
    }
    assert_eq!(fs::read(dir.join("appendonly.aof.1.incr.aof")).expect("read"), bytes.as_bytes());
    fs::remove_dir_all(&dir).expect("remove the directory");
}

/// Keys whose time came while the server was down were alive when they were changed: they keep their time, and die.
#[test]
fn a_key_that_died_since_keeps_its_time_through_its_changes() {
    let changes = [
        ("SET append 1", "APPEND append x"),
        ("SET setrange 1", "SETRANGE setrange 3 x"),
        ("SET setbit 1", "SETBIT setbit 9 1"),
        ("SET incr 1", "INCR incr"),
        ("SET incrby 1", "INCRBY incrby 5"),
        ("SET keepttl 1", "SET keepttl 7 KEEPTTL"),
        ("SET bitfield 1", "BITFIELD bitfield SET u8 0 1"),
        ("PFADD pfadd a", "PFADD pfadd b"),
        ("RPUSH rpush a", "RPUSH rpush b"),
        ("HSET hincrby f 1", "HINCRBY hincrby f 1"),
    ];
    let key = |change: &str| change.split(' ').nth(1).expect("a key").to_owned();
    for launch in [Launch::subject(), Launch::real()] {
        let dir = fresh_dir();
        let lines = changes.iter().flat_map(|(first, change)| {
            [first.to_string(), format!("PEXPIREAT {} 1000", key(change)), change.to_string()]
        });
        let bytes: Vec<u8> = lines.flat_map(|line| encode(&words(&line))).collect();
        fs::write(dir.join("appendonly.aof"), bytes).expect("write");
        let mut server = launch.args(&ON).dir(&dir).start();
        let mut client = server.connect();
        for (_, change) in changes {
            client.expect(&format!("EXISTS {}", key(change)), ":0");
        }
        stop(&mut server);
        fs::remove_dir_all(&dir).expect("remove the directory");
    }
}

/// Servers before Redis 5 wrote scripts down as they were called: what was accepted then is not refused now.
#[test]
fn scripts_of_an_older_file_are_obeyed() {
    let lines = [
        "SET dead 1",
        "PEXPIREAT dead 1000",
        r#"EVAL "redis.call('append', KEYS[1], 'x')" 1 dead"#,
        r#"EVAL "redis.call('set', KEYS[1], 'x')" 1 alive"#,
    ];
    let bytes: Vec<u8> = lines.iter().flat_map(|line| encode(&words(line))).collect();
    for args in [["--replicaof", "127.0.0.1 1"], ["--maxmemory", "1"]] {
        for launch in [Launch::subject(), Launch::real()] {
            let dir = fresh_dir();
            fs::write(dir.join("appendonly.aof"), &bytes).expect("write");
            let mut server = launch.args(&ON).args(&args).dir(&dir).start();
            server.connect().expect("MGET dead alive", r#"[nil, "x"]"#);
            stop(&mut server);
            fs::remove_dir_all(&dir).expect("remove the directory");
        }
    }
}

/// A long value is held twice while it is loaded, as it stands in the file and as it becomes, and no third time.
#[test]
fn a_long_value_takes_twice_its_size_while_it_is_loaded() {
    const LEN: usize = 64 << 20;
    let mut server = aof(&[]);
    stop(&mut server);
    let mut bytes = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n${LEN}\r\n").into_bytes();
    bytes.resize(bytes.len() + LEN, b'x');
    bytes.extend_from_slice(b"\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n");
    fs::write(last_increment(server.dir()), bytes).expect("write");
    server.start_again();
    let mut client = server.connect();
    client.expect("STRLEN long", &format!(":{LEN}"));
    client.expect("GET a", "\"1\"");
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    let peak_kb: usize = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kb < (2 * LEN + LEN * 3 / 4) / 1024, "{peak_kb} kB");
}

/// What was cut off within a line is no manifest.
#[test]
fn a_manifest_without_its_last_line_end_is_refused() {
    let mut server = aof(&[]);
    stop(&mut server);
    let path = server.dir().join("appendonlydir/appendonly.aof.manifest");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.trim_end()).expect("write");
    let log = refuses_to_start(server.dir(), &[]);
    assert!(log.contains("The AOF manifest file contains too long line"), "{log}");
}

#[test]
fn the_check_of_a_data_file_names_the_place_of_damage() {
    let server = Server::subject();
    let mut client = server.connect();
    every_type(&mut client, true);
    client.ok("SAVE");
    let path = server.dir().join("dump.rdb");
    let name = path.to_str().expect("text");
    let (out, ok) = check("rdb", &[name], "");
    assert!(ok && out.contains("Checksum OK") && out.contains("\\o/ RDB looks OK! \\o/"), "{out}");
    let keys = client.run("DBSIZE").int() + 2;
    assert!(
        out.contains(&format!("[info] {keys} keys read\n[info] 2 expires\n[info] 0 already expired\n")),
        "{out}"
    );
    let whole = fs::read(&path).expect("read");
    for end in [0, 5, 9, 30, 200, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..end]).expect("write");
        let (out, ok) = check("rdb", &[name], "");
        assert!(!ok && out.contains("--- RDB ERROR DETECTED ---\n[offset "), "{end}: {out}");
    }
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("write");
    assert!(!check("rdb", &[name], "").1);
}

#[test]
fn the_checks_tell_their_version() {
    for kind in ["aof", "rdb"] {
        for word in ["-v", "--version"] {
            let (out, good) = check(kind, &[word], "");
            assert!(good && out.starts_with(&format!("keystead-check-{kind} ")), "{out}");
        }
    }
}

#[test]
fn debug_loadaof_brings_back_what_is_there() {
    let server = aof(&[]);
    let mut client = server.connect();
    every_type(&mut client, true);
    let before = digest(&mut client);
    client.ok("DEBUG LOADAOF");
    assert_eq!(digest(&mut client), before);
    client.ok("SET more x");
    client.ok("DEBUG LOADAOF");
    client.expect("GET more", "\"x\"");
}
