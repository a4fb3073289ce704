//! What a start finds: every change, files of older servers, damage, keys that died meanwhile.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::client::{encode, words};
use crate::common::server::{Launch, fresh_dir};
use crate::workload::{digest, every_type};

use super::{ON, aof, folder, last_increment, manifest, rewrite, stop};

/// Ends the server and starts it again; fails once it cannot start.
fn refuses_to_start(dir: &Path, args: &[&str]) -> String {
    let out = Command::new(crate::common::server::subject())
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
