//! The append-only file: written, loaded, rewritten, exchanged with a real Redis, damaged, interrupted.
//!
//! Where a real Redis stands beside it (interop, bytes of an increment), it is the judge; the other tests demand what
//! Redis documents and were not run against one.

#[path = "../common/mod.rs"]
mod common;
#[path = "../it/workload.rs"]
#[allow(dead_code)] // other tests use the rest
mod workload;

mod check;
mod kills;
mod loading;
mod redis;
mod replicas;
mod rewrites;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::client::Client;
use common::server::{Launch, Server};
use common::{SOON, wait_for};
use workload::digest;

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
