//! RDB files: written, loaded, exchanged with a real Redis, damaged, interrupted.

use crate::common::client::Client;
use crate::common::server::{Launch, Server};
use crate::common::{SOON, heavy, wait_for};
use crate::workload::{Load, digest, every_type};
use std::fs;
use std::process::Command;
use std::time::Duration;

#[test]
fn save_and_restart_bring_everything_back() {
    let mut server = Server::subject();
    let mut client = server.connect();
    every_type(&mut client, true);
    let before = digest(&mut client);
    let keys = client.run("DBSIZE").int();
    client.ok("SAVE");
    server.restart();
    let mut client = server.connect();
    assert_eq!(digest(&mut client), before);
    assert_eq!(client.run("DBSIZE").int(), keys);
    client.expect("PEXPIRETIME hash", ":9999999999999");
    client.expect("OBJECT ENCODING intset", "\"intset\"");
    client.expect("OBJECT ENCODING bighash", "\"hashtable\"");
    client.expect("LLEN longlist", ":601");
}

#[test]
fn save_keeps_only_its_own_client_waiting() {
    if crate::common::server::subject_is_real() {
        return;
    }
    let server = Launch::subject().args(&["--rdb-key-save-delay", "200", "--io-threads", "1"]).start();
    let (mut saver, mut other) = (server.connect(), server.connect());
    other.run("DEBUG POPULATE 5000 key 10");
    saver.send(&["SAVE"]);
    wait_for("a part is done", SOON, || other.info_int("current_save_keys_processed") > 1);
    other.ok("SET k v");
    other.expect("SAVE", "-ERR Background save already in progress");
    assert_eq!(saver.read().to_string(), "+OK");
    assert!(other.info_int("rdb_last_save_time") > 0);
}

#[test]
fn bgsave_does_the_same_beside_the_clients() {
    let mut server = Server::subject();
    let mut client = server.connect();
    every_type(&mut client, true);
    let before = digest(&mut client);
    let changes = client.info_int("rdb_changes_since_last_save");
    assert!(changes > 0);
    client.expect("BGSAVE", "+Background saving started");
    wait_for("the save ends", SOON, || client.info("rdb_bgsave_in_progress") == "0");
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
    assert_eq!(client.info_int("rdb_changes_since_last_save"), 0);
    server.restart();
    assert_eq!(digest(&mut server.connect()), before);
}

/// The first writer of a large key that a save has not reached encodes it turn by turn, and is put aside in between:
/// whichever way it comes, it writes after that, and the file holds the key as it was.
#[test]
fn large_keys_are_written_while_a_save_wants_them() {
    if crate::common::server::subject_is_real() {
        return;
    }
    for (command, running) in
        [("BGSAVE", "rdb_bgsave_in_progress"), ("BGREWRITEAOF", "aof_rewrite_in_progress")]
    {
        let args = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--rdb-key-save-delay", "500"];
        let mut server = Launch::subject().args(&args).start();
        let mut client = server.connect();
        fill_large(&mut client);
        client.run("DEBUG POPULATE 1000 small 10");
        let before = (digest(&mut client), client.run("XPENDING stream g").to_string());
        client.run(command);
        wait_for("it runs", SOON, || client.info(running) == "1");
        client.expect("HSET hash f7 new", ":0");
        client.expect("EVAL \"return redis.call('SADD', KEYS[1], 'new')\" 1 set", ":1");
        client.ok("MULTI");
        client.run("ZADD zset 1 new");
        client.run("RPUSH list new");
        client.expect("EXEC", "[:1, :20001]");
        client.expect("XACK stream g 1-1", ":1");
        let after = digest(&mut client);
        wait_for("it ends", SOON, || client.info(running) == "0");
        assert_eq!(client.info("rdb_last_bgsave_status") + &client.info("aof_last_bgrewrite_status"), "okok");
        let (log, want) = match command {
            "BGSAVE" => ("no", before),
            _ => ("yes", (after, client.run("XPENDING stream g").to_string())),
        };
        let _ = client.try_run("SHUTDOWN NOSAVE");
        server.wait_exit();
        server.start_again_with(&["--appendonly", log]);
        let mut client = server.connect();
        let now = (digest(&mut client), client.run("XPENDING stream g").to_string());
        assert_eq!(now, want, "{command}");
    }
}

/// A collection of 20,000 elements of each type.
fn fill_large(client: &mut Client) {
    for i in 0..200 {
        let numbers = (i * 100 + 1..=i * 100 + 100).map(|n| n.to_string());
        let each = |form: fn(&str) -> String| numbers.clone().map(|n| form(&n)).collect::<Vec<_>>().join(" ");
        client.run(&format!("HSET hash {}", each(|n| format!("f{n} {}", "v".repeat(60)))));
        client.run(&format!("SADD set {}", each(|n| format!("{n}-{}", "m".repeat(60)))));
        client.run(&format!("ZADD zset {}", each(|n| format!("{n} {n}-{}", "m".repeat(60)))));
        client.run(&format!("RPUSH list {}", each(|n| format!("{n}-{}", "e".repeat(60)))));
        client.pipeline(&numbers.map(|n| format!("XADD stream {n}-1 field value")).collect::<Vec<_>>());
    }
    client.run("XGROUP CREATE stream g 0");
    client.run("XREADGROUP GROUP g c COUNT 20000 STREAMS stream >");
}

#[test]
fn a_bgsave_under_load_is_one_moment() {
    let _serial = heavy();
    let mut server = Server::subject();
    let mut client = server.connect();
    let value = "x".repeat(100);
    for first in (0..100_000).step_by(1000) {
        client.pipeline(&(first..first + 1000).map(|i| format!("SET key:{i} {value}")).collect::<Vec<_>>());
    }
    // Every transaction moves one from one counter to the other: a snapshot of one moment has the sum 0.
    let load = Load::start(server.port, 1);
    let mut mover = server.connect();
    client.expect("BGSAVE", "+Background saving started");
    let mut i = 0;
    wait_for("the save ends", Duration::from_secs(60), || {
        for _ in 0..20 {
            i += 1;
            let (from, to) = (i * 7 % 1000, i * 13 % 1000);
            mover.pipeline(&[
                "MULTI".to_owned(),
                format!("DECR moved:{from}"),
                format!("INCR moved:{to}"),
                "EXEC".to_owned(),
            ]);
        }
        client.info("rdb_bgsave_in_progress") == "0"
    });
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
    load.end();
    server.kill();
    server.start_again();
    let mut client = server.connect();
    let sum: i64 = (0..1000).map(|i| client.run(&format!("GET moved:{i}")).text().parse().unwrap_or(0)).sum();
    assert_eq!(sum, 0);
    client.expect("EXISTS key:0 key:99999", ":2");
}

#[test]
fn files_are_exchanged_with_a_real_redis() {
    for (write, read) in [(Launch::subject(), Launch::real()), (Launch::real(), Launch::subject())] {
        let writer = write.start();
        let mut client = writer.connect();
        every_type(&mut client, true);
        let before = digest(&mut client);
        client.ok("SAVE");
        drop(client);
        let mut reader = read.start();
        reader.kill();
        fs::copy(writer.dir().join("dump.rdb"), reader.dir().join("dump.rdb")).expect("copy the file");
        reader.start_again();
        let mut client = reader.connect();
        assert_eq!(digest(&mut client), before);
        client.expect("GET string", "\"hello\"");
        client.expect("LINDEX list 6", "\"100000\"");
        client.expect("XLEN bigstream", ":600");
        client.ok("SELECT 9");
        client.expect("GET other", "\"database\"");
    }
}

#[test]
fn uncompressed_and_unchecked_files_load_too() {
    for args in [["--rdbcompression", "no"], ["--rdbchecksum", "no"]] {
        for (write, read) in [(Launch::subject(), Launch::real()), (Launch::real(), Launch::subject())] {
            let writer = write.args(&args).start();
            let mut client = writer.connect();
            every_type(&mut client, false);
            let before = digest(&mut client);
            client.ok("SAVE");
            let mut reader = read.start();
            reader.kill();
            fs::copy(writer.dir().join("dump.rdb"), reader.dir().join("dump.rdb")).expect("copy the file");
            reader.start_again();
            assert_eq!(digest(&mut reader.connect()), before);
        }
    }
}

#[test]
fn a_damaged_file_stops_the_start() {
    let writer = Server::subject();
    let mut client = writer.connect();
    every_type(&mut client, false);
    client.ok("SAVE");
    let good = fs::read(writer.dir().join("dump.rdb")).expect("the file");
    let mut wrong_sum = good.clone();
    let last = wrong_sum.len() - 1;
    wrong_sum[last] ^= 0xff;
    let mut wrong_middle = good.clone();
    let middle = good.len() / 2;
    for byte in &mut wrong_middle[middle..middle + 4] {
        *byte ^= 0xff;
    }
    let mut wrong_version = good.clone();
    wrong_version[5..9].copy_from_slice(b"9999");
    let cases = [
        ("checksum", wrong_sum),
        ("middle", wrong_middle),
        ("version", wrong_version),
        ("no RDB", b"REDXS0010".to_vec()),
        ("cut", good[..good.len() / 3].to_vec()),
    ];
    for (what, bytes) in cases {
        let dir = crate::common::server::fresh_dir();
        fs::write(dir.join("dump.rdb"), bytes).expect("write");
        let port = crate::common::server::free_port().to_string();
        let output = std::process::Command::new(crate::common::server::subject())
            .args(["--port", &port, "--bind", "127.0.0.1", "--dir", &dir.to_string_lossy()])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("run");
        let log =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {log}");
        assert!(log.contains("RDB") || log.contains("load"), "{what}: {log}");
        let _ = fs::remove_dir_all(dir);
    }
}

#[test]
fn a_kill_during_bgsave_leaves_the_old_file() {
    let _serial = heavy();
    let mut server = Server::subject();
    let mut client = server.connect();
    client.ok("SET marker old");
    client.ok("SAVE");
    let old = fs::read(server.dir().join("dump.rdb")).expect("the file");
    client.ok("SET marker new");
    let value = "x".repeat(200);
    for first in (0..300_000).step_by(2000) {
        client.pipeline(&(first..first + 2000).map(|i| format!("SET key:{i} {value}")).collect::<Vec<_>>());
    }
    client.ok("CONFIG SET rdb-key-save-delay 50");
    client.expect("BGSAVE", "+Background saving started");
    assert_eq!(client.info("rdb_bgsave_in_progress"), "1");
    server.kill();
    assert_eq!(fs::read(server.dir().join("dump.rdb")).expect("the file"), old);
    server.start_again();
    server.connect().expect("GET marker", "\"old\"");
}

/// A save under way, however long it takes, holds up no end: it is given up, and the last one is made, also where a save
/// point asks for one again at once.
#[test]
fn an_end_during_bgsave_saves_anew() {
    let args = ["--save", "3600 1000000", "--shutdown-timeout", "1", "--rdbcompression", "no"];
    let mut server = Launch::subject().args(&args).start();
    let mut client = server.connect();
    client.run("DEBUG POPULATE 4000 key 4096");
    client.ok("CONFIG SET rdb-key-save-delay 20000");
    client.expect("BGSAVE", "+Background saving started");
    client.ok("CONFIG SET rdb-key-save-delay 0");
    client.ok("SET last x");
    client.ok("CONFIG SET save \"1 1\"");
    wait_for("another is due", SOON, || {
        let now: i64 = client.run("TIME").items()[0].text().parse().expect("seconds");
        now > client.info_int("rdb_last_save_time") + 1
    });
    assert_eq!(client.info("rdb_bgsave_in_progress"), "1");
    server.signal("TERM");
    assert!(server.wait_exit().success());
    let log = server.log();
    assert!(log.contains("There is a child saving an .rdb. Killing it!"), "{log}");
    assert!(!log.contains("changes in 1 seconds. Saving..."), "{log}");
    let files = fs::read_dir(server.dir()).expect("the directory").map(|f| f.expect("a file").file_name());
    let left: Vec<_> = files.filter(|name| name.to_string_lossy().starts_with("temp-")).collect();
    assert!(left.is_empty(), "{left:?}");
    server.start_again();
    let mut client = server.connect();
    client.expect("GET last", "\"x\"");
    client.expect("DBSIZE", ":4001");
}

#[test]
fn expired_keys_do_not_come_back() {
    let mut server = Server::subject();
    let mut client = server.connect();
    client.ok("SET soon v PX 300");
    client.ok("SET later v PX 1000000");
    client.ok("SAVE");
    wait_for("it expires", SOON, || client.run("EXISTS soon").int() == 0);
    server.restart();
    let mut client = server.connect();
    client.expect("EXISTS soon", ":0");
    client.expect("DBSIZE", ":1");
    assert!(client.run("PTTL later").int() > 0);
}

#[test]
fn save_points_save_by_themselves() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok(r#"CONFIG SET save "1 5""#);
    client.pipeline(&(0..10).map(|i| format!("SET key:{i} v")).collect::<Vec<_>>());
    wait_for("the file is there", SOON, || server.dir().join("dump.rdb").exists());
    wait_for("nothing is unsaved", SOON, || client.info("rdb_changes_since_last_save") == "0");
}

#[test]
fn a_save_that_fails_refuses_writes_until_one_succeeds() {
    let server = Launch::subject().args(&["--enable-protected-configs", "yes"]).start();
    let mut client = server.connect();
    client.ok(r#"CONFIG SET save "3600 1""#);
    client.ok("SET k v");
    // A directory stands where the file must go.
    fs::create_dir(server.dir().join("taken.rdb")).expect("create a directory");
    fs::write(server.dir().join("taken.rdb/in"), "").expect("write");
    client.ok("CONFIG SET dbfilename taken.rdb");
    assert_eq!(client.run("SAVE").to_string(), "-ERR");
    client.run("BGSAVE");
    wait_for("the save fails", SOON, || client.info("rdb_last_bgsave_status") == "err");
    wait_for("no save runs", SOON, || client.info("rdb_bgsave_in_progress") == "0");
    let refused = client.run("SET k w").text();
    assert!(refused.starts_with("MISCONF Redis is configured to save RDB snapshots"), "{refused}");
    assert!(client.run("PING").text().starts_with("MISCONF "), "who asks for its health is told");
    client.expect("GET k", "\"v\"");
    client.ok("CONFIG SET dbfilename dump.rdb");
    client.expect("BGSAVE", "+Background saving started");
    wait_for("the save succeeds", SOON, || client.info("rdb_last_bgsave_status") == "ok");
    client.ok("SET k w");
}

/// As on a full disk.
#[test]
fn a_save_that_does_not_fit_keeps_the_old_file() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("SET k v");
    client.ok("SAVE");
    let old = fs::read(server.dir().join("dump.rdb")).expect("the file");
    client.run("DEBUG POPULATE 20000 key 100");
    let limit = Command::new("prlimit").args(["--fsize=100000", "--pid", &server.pid().to_string()]).status();
    assert!(limit.is_ok_and(|status| status.success()), "prlimit");
    assert_eq!(client.run("SAVE").to_string(), "-ERR");
    client.expect("BGSAVE", "+Background saving started");
    wait_for("it fails", SOON, || {
        client.info("rdb_last_bgsave_status") == "err" && client.info("rdb_bgsave_in_progress") == "0"
    });
    assert!(fs::read(server.dir().join("dump.rdb")).expect("the file") == old);
    let left = fs::read_dir(server.dir())
        .expect("list")
        .flatten()
        .filter(|f| f.path().extension() == Some("rdb".as_ref()));
    assert_eq!(left.count(), 1, "no temporary file is left");
}

#[test]
fn functions_of_a_file_are_loaded_and_saved_again() {
    let real = Launch::real().start();
    let mut client = real.connect();
    client.cmd(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function() return 1 end)",
    ]);
    client.ok("SET k v");
    client.ok("SAVE");
    let mut server = Server::subject();
    server.kill();
    fs::copy(real.dir().join("dump.rdb"), server.dir().join("dump.rdb")).expect("copy the file");
    server.start_again();
    let mut client = server.connect();
    client.expect("GET k", "\"v\"");
    client.expect("FCALL f 0", ":1");
    client.ok("SAVE");
    server.kill();
    server.start_again();
    server.connect().expect("FCALL f 0", ":1");
}

#[test]
fn a_save_that_has_ended_shows_no_keys() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("SET k v");
    client.expect("BGSAVE", "+Background saving started");
    wait_for("it has ended", SOON, || client.info_int("rdb_saves") == 1);
    for field in ["current_save_keys_processed", "current_save_keys_total"] {
        wait_for(field, SOON, || client.info_int(field) == 0);
    }
    client.expect("GET k", "\"v\"");
}

#[test]
fn a_save_under_way_shows_how_far_it_is() {
    let mut server = Launch::subject().args(&["--rdb-key-save-delay", "200"]).start();
    let mut client = server.connect();
    client.run("DEBUG POPULATE 20000 key 10");
    client.expect("BGSAVE", "+Background saving started");
    client.expect("BGSAVE SCHEDULE", "-ERR Background save already in progress");
    wait_for("a part is done", SOON, || {
        (1..20_000).contains(&client.info_int("current_save_keys_processed"))
    });
    assert_eq!(client.info_int("current_save_keys_total"), 20_000);
    assert_eq!(client.info_int("rdb_bgsave_in_progress"), 1);
    // An end without saving does not wait for it, and leaves nothing of it.
    assert!(client.try_run("SHUTDOWN NOSAVE").is_err());
    assert_eq!(server.wait_exit().code(), Some(0));
    let mut left = fs::read_dir(server.dir()).expect("list").flatten();
    assert!(!left.any(|f| f.path().extension() == Some("rdb".as_ref())), "a temporary file is left");
}

#[test]
fn flushall_ends_a_save_and_resets_the_counter_where_saves_are_configured() {
    for launch in [Launch::subject(), Launch::real()] {
        let server = launch.args(&["--rdb-key-save-delay", "500000"]).start();
        let mut c = server.connect();
        c.ok("MSET a 1 b 2");
        assert_eq!(c.info("rdb_changes_since_last_save"), "2");
        // It would take a second.
        c.run("BGSAVE");
        c.ok("FLUSHALL");
        wait_for("the save has ended", Duration::from_secs(15), || c.info("rdb_bgsave_in_progress") == "0");
        assert_eq!(c.info("rdb_last_bgsave_status"), "ok");
        assert_eq!(c.info("rdb_changes_since_last_save"), "4", "without save points every change counts");
        assert!(!server.dir().join("dump.rdb").exists());

        c.ok("CONFIG SET save \"3600 1000\"");
        c.ok("MSET a 1 b 2");
        c.run("BGSAVE");
        c.ok("FLUSHALL");
        assert_eq!(c.info("rdb_changes_since_last_save"), "0", "the empty data set is saved at once");
        assert!(server.dir().join("dump.rdb").exists());
        wait_for("the save has ended", Duration::from_secs(15), || c.info("rdb_bgsave_in_progress") == "0");
        let names =
            std::fs::read_dir(server.dir()).expect("list the directory").flatten().map(|f| f.file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with("temp-")));
    }
}
