//! `--check-aof` and `--check-rdb`, beside redis-check-aof and redis-check-rdb.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::server::{Server, fresh_dir};
use crate::common::{SOON, wait_for};
use crate::workload::every_type;

use super::{aof, check, last_increment, rewrite, stop};

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
