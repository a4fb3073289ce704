//! A bad disk: every kind of file that the server writes, and every step that may fail (`DEBUG DISK-FAULT`).
//!
//! What must hold each time: the server says so, refuses writes where Redis refuses them, goes on serving reads, leaves
//! no half file under a final name, never takes a failed fsync for a good one, and recovers when the disk does.

mod common;
#[path = "it/workload.rs"]
#[allow(dead_code)] // other tests use the rest
mod workload;

use common::client::{Client, encode, words};
use common::server::{Launch, Server, fresh_dir};
use common::{SOON, wait_for};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use workload::{digest, every_type};

/// The text with which Redis refuses writes after a failed save.
const SAVE_REFUSED: &str =
    "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.";

fn fault(client: &mut Client, what: &str) {
    client.ok(&format!("DEBUG DISK-FAULT {what}"));
}

/// Files of a directory and of the folder in it that no end of a step may leave.
fn left_over(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for dir in [dir.to_owned(), dir.join("appendonlydir")] {
        for file in fs::read_dir(dir).into_iter().flatten().flatten() {
            names.push(file.file_name().to_string_lossy().into_owned());
        }
    }
    names.retain(|name| name.starts_with("temp-") || name.contains(".tmp"));
    names
}

fn stop(server: &mut Server) {
    let _ = server.connect().try_run("SHUTDOWN NOSAVE");
    server.wait_exit();
}

fn bgsave(client: &mut Client) -> String {
    client.expect("BGSAVE", "+Background saving started");
    wait_for("the save ends", SOON, || client.info("rdb_bgsave_in_progress") == "0");
    client.info("rdb_last_bgsave_status")
}

#[test]
fn a_data_file_that_cannot_be_written() {
    let mut server = Launch::subject().args(&["--save", "3600 1000000"]).start();
    let mut client = server.connect();
    every_type(&mut client, true);
    client.ok("SAVE");
    let path = server.dir().join("dump.rdb");
    let faults = [
        ("open temp- EROFS", "Read-only file system"),
        ("open temp- ENOSPC", "No space left on device"),
        ("write temp- ENOSPC", "No space left on device"),
        ("write temp- SHORT", "No space left on device"),
        ("sync temp- EIO", "Input/output error"),
        ("rename dump.rdb EIO", "Input/output error"),
    ];
    for (n, (step, why)) in faults.into_iter().enumerate() {
        let old = fs::read(&path).expect("the file");
        client.ok(&format!("SET round {n}"));
        fault(&mut client, step);
        client.expect("SAVE", "-ERR");
        assert_eq!(bgsave(&mut client), "err", "{step}");
        let refused = client.run("SET k v").to_string();
        assert!(refused.starts_with(SAVE_REFUSED), "{step}: {refused}");
        client.expect("GET round", &format!("\"{n}\""));
        assert!(fs::read(&path).expect("the file") == old, "{step}");
        assert_eq!(left_over(server.dir()), [""; 0], "{step}");
        assert!(server.log().contains(&format!("Write error saving DB on disk (dump.rdb): {why}")), "{step}");
        fault(&mut client, "OFF");
        assert_eq!(bgsave(&mut client), "ok");
        client.ok("SET k v");
    }
    client.ok("SAVE");
    let before = digest(&mut client);
    stop(&mut server);
    server.start_again();
    assert_eq!(digest(&mut server.connect()), before);
}

#[test]
fn a_save_on_a_slow_disk_holds_up_nobody() {
    let server = Server::subject();
    let mut client = server.connect();
    every_type(&mut client, true);
    fault(&mut client, "sync temp- SLOW-1500");
    client.expect("BGSAVE", "+Background saving started");
    let begun = Instant::now();
    client.ok("SET a 1");
    client.expect("GET a", "\"1\"");
    assert_eq!(client.info("rdb_bgsave_in_progress"), "1");
    assert!(begun.elapsed() < Duration::from_secs(1));
    wait_for("the save ends", SOON, || client.info("rdb_bgsave_in_progress") == "0");
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
}

fn aof(args: &[&str]) -> Server {
    Launch::subject().args(&["--appendonly", "yes"]).args(args).start()
}

/// Whether this command is in the first increment.
fn is_written(server: &Server, command: &str) -> bool {
    let (path, command) =
        (server.dir().join("appendonlydir/appendonly.aof.1.incr.aof"), encode(&words(command)));
    fs::read(path).is_ok_and(|file| file.windows(command.len()).any(|bytes| bytes == command))
}

/// Starts again after kill -9; whatever was acknowledged is there, and the folder is whole.
fn comes_back(server: &mut Server, before: &str) {
    server.kill();
    let check = std::process::Command::new(common::server::subject())
        .arg("--check-aof")
        .arg(server.dir().join("appendonlydir/appendonly.aof.manifest"))
        .output()
        .expect("the check");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    server.start_again();
    assert_eq!(digest(&mut server.connect()), before);
}

#[test]
fn an_increment_that_cannot_be_written() {
    for (step, why) in [
        ("write incr ENOSPC", "No space left on device"),
        ("write incr EROFS", "Read-only file system"),
        ("write incr SHORT", "No space left on device"),
        ("write incr EIO", "Input/output error"),
    ] {
        for policy in ["always", "everysec", "no"] {
            let mut server = aof(&["--appendfsync", policy]);
            let mut client = server.connect();
            every_type(&mut client, true);
            client.ok("SET last one");
            wait_for("all of it is written", SOON, || is_written(&server, "SET last one"));
            fault(&mut client, step);
            // Under `always` the reply waits for the disk; otherwise it is there before the file is written.
            let mut writer = server.connect();
            writer.send(&["SET", "held", "x"]);
            let expected = format!("-MISCONF Errors writing to the AOF file: {why}");
            wait_for("writes are refused", SOON, || client.run("PING").to_string() == expected);
            client.expect("SET k v", &expected);
            let by_script = client.run("EVAL 'return redis.call(\"SET\", KEYS[1], 1)' 1 k").to_string();
            assert!(by_script.starts_with(&expected), "{by_script}");
            client.expect("GET string", "\"hello\"");
            client.expect("GET held", "\"x\"");
            assert_eq!(client.info("aof_last_write_status"), "err");
            assert!(server.log().contains(&format!("Error writing to the AOF file: {why}")));
            fault(&mut client, "OFF");
            wait_for("writes are taken", SOON, || client.run("SET k v").to_string() == "+OK");
            assert_eq!(writer.read().to_string(), "+OK");
            assert!(server.log().contains("AOF write error looks solved, Redis can write again."));
            assert_eq!(client.info("aof_last_write_status"), "ok");
            // What was not yet written goes with the process, unless somebody waited for it.
            wait_for("all of it is written", SOON, || is_written(&server, "SET k v"));
            let before = digest(&mut client);
            comes_back(&mut server, &before);
        }
    }
}

/// Redis ends in the same way: nobody may go on as if it had succeeded.
#[test]
fn an_fsync_that_fails_under_always_ends_the_server() {
    let mut server = aof(&["--appendfsync", "always"]);
    let mut client = server.connect();
    client.ok("SET a 1");
    fault(&mut client, "sync incr EIO");
    client.send(&["SET", "b", "1"]);
    assert!(client.try_read().is_err(), "the write was acknowledged");
    assert!(!server.wait_exit().success());
    assert!(server.log().contains("Can't persist AOF for fsync error when the AOF fsync policy is 'always'"));
    server.start_again();
    server.connect().expect("GET a", "\"1\"");
}

/// A file whose fsync failed is given up: a new base, begun later, says what it said.
#[test]
fn an_fsync_that_fails_under_everysec_is_made_up_for_by_a_rewrite() {
    let mut server = aof(&["--appendfsync", "everysec"]);
    let mut client = server.connect();
    every_type(&mut client, true);
    client.expect("WAITAOF 1 0 5000", "[:1, :0]");
    fault(&mut client, "sync base EIO");
    fault(&mut client, "sync rewriteaof EIO");
    fault(&mut client, "sync appendonly.aof.1.incr EIO");
    client.ok("SET a 1");
    let refused = "-MISCONF Errors writing to the AOF file: Input/output error";
    wait_for("writes are refused", SOON, || client.run("SET b 1").to_string() == refused);
    assert!(server.log().contains("Fail to fsync the AOF file: Input/output error"));
    // Neither an fsync of the same file nor time makes it good.
    client.expect("GET a", "\"1\"");
    wait_for("a rewrite fails", SOON, || client.info("aof_last_bgrewrite_status") == "err");
    client.expect("WAITAOF 1 0 100", "[:0, :0]");
    client.expect("SET b 1", refused);
    fault(&mut client, "OFF");
    let reply = client.run("BGREWRITEAOF").to_string();
    assert!(reply.starts_with("+Background") || reply.starts_with("-ERR Background"), "{reply}");
    wait_for("writes are taken", SOON, || client.run("SET b 1").to_string() == "+OK");
    client.expect("WAITAOF 1 0 5000", "[:1, :0]");
    let manifest =
        fs::read_to_string(server.dir().join("appendonlydir/appendonly.aof.manifest")).expect("it");
    assert!(!manifest.contains("appendonly.aof.1.incr.aof seq 1 type i"), "{manifest}");
    let before = digest(&mut client);
    comes_back(&mut server, &before);
}

#[test]
fn a_slow_fsync_postpones_and_is_counted() {
    let mut server = aof(&["--appendfsync", "everysec"]);
    let mut client = server.connect();
    fault(&mut client, "sync incr SLOW-2500");
    let mut slowest = Duration::ZERO;
    wait_for("it is counted", SOON, || {
        let begun = Instant::now();
        client.ok("SET a 1");
        client.expect("GET a", "\"1\"");
        slowest = slowest.max(begun.elapsed());
        client.info_int("aof_delayed_fsync") > 0
    });
    assert!(slowest < Duration::from_secs(1), "nobody waits for the disk: {slowest:?}");
    assert!(server.log().contains("Asynchronous AOF fsync is taking too long (disk is busy?)."));
    fault(&mut client, "OFF");
    let before = digest(&mut client);
    stop(&mut server);
    server.start_again();
    assert_eq!(digest(&mut server.connect()), before);
}

/// What the disk was given and has not confirmed is not on it, whatever else ends meanwhile.
#[test]
fn an_fsync_under_way_is_waited_for() {
    for (what, goes_on) in [("BGREWRITEAOF", "cuts"), ("CONFIG SET appendfsync always", "is in a hurry")] {
        let server = aof(&["--appendfsync", "everysec"]);
        let mut client = server.connect();
        client.ok("SET a 1");
        client.expect("WAITAOF 1 0 20000", "[:1, :0]");
        // INFO tells of that fsync's end a moment later.
        wait_for("the fsync is over", SOON, || client.info("aof_pending_bio_fsync") == "0");
        fault(&mut client, "sync incr SLOW-60000");
        client.ok("SET a 2");
        wait_for("the fsync is under way", SOON, || client.info("aof_pending_bio_fsync") == "1");
        client.run(what);
        client.expect("WAITAOF 1 0 1500", "[:0, :0]");
        assert_eq!(client.info("aof_pending_bio_fsync"), "1", "{goes_on}");
    }
}

/// Once INFO says that the first base is written, what was answered before is on the disk, and `always` holds.
#[test]
fn the_first_base_comes_with_what_was_written_meanwhile() {
    let server = Launch::subject().args(&["--appendfsync", "always"]).start();
    let mut client = server.connect();
    fault(&mut client, "sync incr SLOW-2000");
    client.ok("CONFIG SET appendonly yes");
    client.ok("SET a 1");
    wait_for("the first base is there", SOON, || {
        client.info("aof_rewrite_scheduled") == "0" && client.info("aof_rewrite_in_progress") == "0"
    });
    client.expect("WAITAOF 1 0 1", "[:1, :0]");
}

#[test]
fn always_holds_from_the_answer_to_config_set_on() {
    let server = aof(&["--appendfsync", "everysec"]);
    let (mut client, mut hurried) = (server.connect(), server.connect());
    client.ok("DEBUG AOF-FLUSH-SLEEP 3000000");
    client.ok("SET a 1");
    client.ok("CONFIG SET appendfsync always");
    hurried.send(&["SET", "b", "1"]);
    hurried.set_read_timeout(Duration::from_millis(500));
    assert!(hurried.try_read().is_err(), "it is not on the disk");
    client.ok("DEBUG AOF-FLUSH-SLEEP 0");
    hurried.set_read_timeout(SOON);
    assert_eq!(hurried.read().to_string(), "+OK");
}

/// Where the rest of a write that failed cannot be taken off at once, nothing is written behind it.
#[test]
fn a_short_write_that_cannot_be_taken_off_is_not_written_behind() {
    let mut server = aof(&["--appendfsync", "everysec"]);
    let mut client = server.connect();
    client.ok("SET a 1");
    client.expect("WAITAOF 1 0 20000", "[:1, :0]");
    fault(&mut client, "truncate incr EIO");
    fault(&mut client, "write incr SHORT");
    client.ok(&format!("SET b {}", "x".repeat(100)));
    wait_for("it fails", SOON, || client.info("aof_last_write_status") == "err");
    assert!(server.log().contains("Could not remove short write from the append-only file."));
    fault(&mut client, "OFF");
    wait_for("writes are taken", SOON, || client.run("SET c 1").to_string() == "+OK");
    client.expect("WAITAOF 1 0 20000", "[:1, :0]");
    let before = digest(&mut client);
    comes_back(&mut server, &before);
    assert!(!server.log().contains("short read"), "{}", server.log());
}

/// Reads and other clients do not wait for a slow fsync under `always`; the reply of the write does.
#[test]
fn a_slow_fsync_under_always_holds_up_only_who_writes() {
    let server = aof(&["--appendfsync", "always"]);
    let (mut client, mut writer) = (server.connect(), server.connect());
    client.ok("SET a 0");
    fault(&mut client, "sync incr SLOW-1000");
    let begun = Instant::now();
    writer.send(&["SET", "a", "1"]);
    wait_for("it is done", SOON, || client.run("GET a").to_string() == "\"1\"");
    assert!(begun.elapsed() < Duration::from_millis(800), "a read waited");
    assert_eq!(writer.read().to_string(), "+OK");
    assert!(begun.elapsed() >= Duration::from_secs(1), "the write did not wait");
}

#[test]
fn a_rewrite_that_fails_leaves_what_was_there() {
    let mut server = aof(&[]);
    let mut client = server.connect();
    every_type(&mut client, true);
    for step in [
        "open rewriteaof EROFS",
        "write rewriteaof ENOSPC",
        "write rewriteaof SHORT",
        "sync rewriteaof EIO",
        "rename base EIO",
        "sync base EIO",
        "open incr EROFS",
        "open manifest EROFS",
        "write manifest ENOSPC",
        "write manifest SHORT",
        "sync temp-appendonly.aof.manifest EIO",
        "rename manifest EIO",
        "sync manifest EIO",
    ] {
        fault(&mut client, step);
        client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
        wait_for("the rewrite ends", SOON, || client.info("aof_rewrite_in_progress") == "0");
        assert_eq!(client.info("aof_last_bgrewrite_status"), "err", "{step}");
        client.ok(&format!("SET after {}", step.replace(' ', "-")));
        let before = digest(&mut client);
        client.expect("WAITAOF 1 0 5000", "[:1, :0]");
        assert_eq!(left_over(server.dir()), [""; 0], "{step}");
        comes_back(&mut server, &before);
        client = server.connect();
        client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
        wait_for("the rewrite ends", SOON, || client.info("aof_rewrite_in_progress") == "0");
        assert_eq!(client.info("aof_last_bgrewrite_status"), "ok", "{step}");
        comes_back(&mut server, &before);
        client = server.connect();
    }
}

#[test]
fn it_cannot_be_switched_on_where_nothing_can_be_written() {
    let server = Server::subject();
    let mut client = server.connect();
    fault(&mut client, "open incr EROFS");
    client.expect(
        "CONFIG SET appendonly yes",
        "-ERR CONFIG SET failed (possibly related to argument 'appendonly') - Unable to turn on AOF. Check server logs.",
    );
    assert!(server.log().contains("Can't open the append-only file: Read-only file system"));
    client.expect("CONFIG GET appendonly", "[\"appendonly\", \"no\"]");
    client.ok("SET a 1");
    fault(&mut client, "OFF");
    client.ok("CONFIG SET appendonly yes");
    client.expect("WAITAOF 1 0 10000", "[:1, :0]");
}

/// Redis ends, too: a node that forgets its vote may vote twice.
#[test]
fn a_node_that_cannot_write_nodes_conf_ends() {
    for step in [
        "open nodes EROFS",
        "write nodes ENOSPC",
        "write nodes SHORT",
        "sync nodes EIO",
        "rename nodes.conf EIO",
    ] {
        let mut server = Launch::subject().cluster().start();
        let mut client = server.connect();
        client.ok("CLUSTER ADDSLOTS 1 2 3");
        let id = client.run("CLUSTER MYID").text();
        let path = server.dir().join("nodes.conf");
        wait_for("it is written", SOON, || fs::read_to_string(&path).is_ok_and(|text| text.contains(" 1-3")));
        let old = fs::read(&path).expect("nodes.conf");
        fault(&mut client, step);
        let _ = client.try_run("CLUSTER ADDSLOTS 4");
        assert!(!server.wait_exit().success(), "{step}");
        assert!(server.log().contains("Fatal: can't update cluster config file"), "{step}");
        assert!(fs::read(&path).expect("nodes.conf") == old, "{step}");
        let again = Launch::subject().cluster().dir(server.dir()).start();
        assert_eq!(again.connect().run("CLUSTER MYID").text(), id);
    }
}

#[test]
fn a_configuration_that_cannot_be_rewritten_stays() {
    let dir = fresh_dir();
    let path = dir.join("own.conf");
    fs::write(&path, "# mine\nhz 10\n").expect("write");
    let server = Launch::subject().file(&path).dir(&dir).start();
    let mut client = server.connect();
    client.ok("CONFIG SET hz 20");
    for (step, why) in [
        ("open own.conf EROFS", "Read-only file system"),
        ("write own.conf ENOSPC", "No space left on device"),
        ("write own.conf SHORT", "No space left on device"),
        ("sync own.conf EIO", "Input/output error"),
        ("rename own.conf EIO", "Input/output error"),
    ] {
        fault(&mut client, step);
        client.expect("CONFIG REWRITE", &format!("-ERR Rewriting config file: {why}"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "# mine\nhz 10\n", "{step}");
        assert_eq!(left_over(&dir), [""; 0], "{step}");
        fault(&mut client, "OFF");
    }
    client.ok("CONFIG REWRITE");
    assert!(fs::read_to_string(&path).expect("read").contains("hz 20"));
}

#[test]
fn a_full_synchronisation_by_a_file_that_cannot_be_written() {
    let primary = Launch::subject().args(&["--repl-diskless-sync", "no"]).start();
    let mut client = primary.connect();
    every_type(&mut client, true);
    for step in ["open sync EROFS", "write sync ENOSPC", "write sync SHORT"] {
        fault(&mut client, step);
        let replica = Server::subject();
        let mut on_replica = replica.connect();
        on_replica.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        let failed = primary.log().matches("Full synchronisation failed").count();
        wait_for("it fails", SOON, || primary.log().matches("Full synchronisation failed").count() > failed);
        client.ok("SET k v");
        assert_eq!(on_replica.info("master_link_status"), "down");
        fault(&mut client, "OFF");
        wait_for("the link is up", SOON, || on_replica.info("master_link_status") == "up");
        client.expect("WAIT 1 5000", ":1");
        assert_eq!(digest(&mut on_replica), digest(&mut client), "{step}");
        assert_eq!(left_over(primary.dir()), [""; 0], "{step}");
    }
}

#[test]
fn a_replica_that_cannot_keep_what_it_is_sent_tries_again() {
    let primary = Server::subject();
    let mut client = primary.connect();
    every_type(&mut client, true);
    let replica = Server::subject();
    let mut on_replica = replica.connect();
    on_replica.ok("SET own data");
    for step in ["open temp- EROFS", "write temp- ENOSPC"] {
        on_replica.ok("REPLICAOF NO ONE");
        fault(&mut on_replica, step);
        on_replica.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        client.ok("DEBUG CHANGE-REPL-ID");
        wait_for("it fails", SOON, || replica.log().contains("the temporary file: "));
        assert!(on_replica.info_int("db0") != 0, "its data stay");
        fault(&mut on_replica, "OFF");
        wait_for("the link is up", SOON, || on_replica.info("master_link_status") == "up");
        client.ok("SET k v");
        client.expect("WAIT 1 5000", ":1");
        assert_eq!(digest(&mut on_replica), digest(&mut client), "{step}");
    }
}

/// A file system of a few megabytes.
struct SmallDisk {
    at: std::path::PathBuf,
}

impl SmallDisk {
    /// `None` where nobody may mount one; the log of the test says so.
    fn mount() -> Option<Self> {
        let at = fresh_dir();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&at);
        if mount.output().is_ok_and(|out| out.status.success()) {
            return Some(Self { at });
        }
        println!("left out: only root may mount a file system of a few megabytes");
        let _ = fs::remove_dir(&at);
        None
    }

    /// Nothing more goes onto it.
    fn fill(&self) {
        let mut rest = fs::File::create(self.at.join("rest")).expect("a file");
        for block in [1 << 16, 1 << 12, 1] {
            while std::io::Write::write_all(&mut rest, &vec![0; block]).is_ok() {}
        }
    }

    /// There is room again.
    fn clear(&self) {
        fs::remove_file(self.at.join("rest")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.at).output();
        let _ = fs::remove_dir(&self.at);
    }
}

#[test]
fn a_save_on_a_disk_that_is_really_full() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.at.display().to_string();
    // The log is elsewhere.
    let mut server = Launch::subject().args(&["--save", "3600 1000000", "--dir", &dir]).start();
    let mut client = server.connect();
    every_type(&mut client, true);
    client.ok("DEBUG POPULATE 10000 key 100");
    client.ok("SAVE");
    let old = fs::read(disk.at.join("dump.rdb")).expect("the file");
    disk.fill();
    client.ok("SET round 1");
    client.expect("SAVE", "-ERR");
    assert_eq!(bgsave(&mut client), "err");
    let refused = client.run("SET k v").to_string();
    assert!(refused.starts_with(SAVE_REFUSED), "{refused}");
    client.expect("GET round", "\"1\"");
    assert!(fs::read(disk.at.join("dump.rdb")).expect("the file") == old);
    assert_eq!(left_over(&disk.at), [""; 0]);
    assert!(server.log().contains("No space left on device"), "{}", server.log());
    disk.clear();
    assert_eq!(bgsave(&mut client), "ok");
    client.ok("SET k v");
    client.ok("SAVE");
    let before = digest(&mut client);
    stop(&mut server);
    server.start_again();
    assert_eq!(digest(&mut server.connect()), before);
    server.kill();
}

#[test]
fn an_append_only_file_on_a_disk_that_is_really_full() {
    for policy in ["always", "everysec"] {
        let Some(disk) = SmallDisk::mount() else { return };
        let dir = disk.at.display().to_string();
        let mut server = aof(&["--appendfsync", policy, "--dir", &dir]);
        let mut client = server.connect();
        every_type(&mut client, true);
        client.expect("WAITAOF 1 0 10000", "[:1, :0]");
        disk.fill();
        let mut writer = server.connect();
        let value = "x".repeat(1 << 20);
        for _ in 0..5 {
            // In the end more than what was set aside for it.
            writer.send(&["SET", "large", &value]);
        }
        let expected = "-MISCONF Errors writing to the AOF file: No space left on device";
        wait_for("writes are refused", SOON, || client.run("PING").to_string() == expected);
        client.expect("SET k v", expected);
        client.expect("GET string", "\"hello\"");
        disk.clear();
        wait_for("writes are taken", SOON, || client.run("SET k v").to_string() == "+OK");
        client.expect("WAITAOF 1 0 10000", "[:1, :0]");
        let before = digest(&mut client);
        server.kill();
        server.start_again();
        assert_eq!(digest(&mut server.connect()), before);
        server.kill();
    }
}

/// Whoever asks for the end again and again sees it: what holds it up goes on and is completed.
#[test]
fn an_end_that_is_refused_lets_the_first_base_be_completed() {
    let mut server = Server::subject();
    let mut client = server.connect();
    client.ok("DEBUG POPULATE 300 key 10");
    // Three seconds for the base.
    client.ok("CONFIG SET rdb-key-save-delay 10000");
    client.ok("CONFIG SET appendonly yes");
    client.expect("SHUTDOWN", "-ERR Errors trying to SHUTDOWN. Check logs.");
    client.expect("SET a 1", "+OK");
    assert_eq!(client.info("aof_enabled"), "1");
    wait_for("it ends", SOON, || client.try_run("SHUTDOWN").is_err());
    assert!(server.wait_exit().success());
    let log = server.log();
    assert!(log.contains("Writing initial AOF, can't exit."), "{log}");
    assert_eq!(log.matches("Background append only file rewriting started").count(), 1, "{log}");
    server.start_again_with(&["--appendonly", "yes"]);
    let mut client = server.connect();
    client.expect("DBSIZE", ":301");
    client.expect("GET a", "\"1\"");
}
