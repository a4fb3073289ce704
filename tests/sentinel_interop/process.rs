//! The process of a sentinel: its file, its disk, its addresses, its users.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::client::Client;
use crate::common::server::{Server, free_port, fresh_dir, subject};
use crate::common::{SOON, light, wait_for};

use super::{FAILOVER, Guard, Program, field, has_peers, nodes};

#[test]
fn the_state_survives_a_restart_and_the_file_stays_the_users() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let mut guard = Guard::start(Program::Ours, servers[0].port, 1, "sentinel parallel-syncs mymaster 2 \n");
    let mut client = guard.connect();
    wait_for("the replicas are known", SOON, || client.run("SENTINEL REPLICAS mymaster").items().len() == 2);
    let id = client.run("SENTINEL MYID").text();
    client.ok("SENTINEL SET mymaster quorum 3 auth-pass \"a b\"");
    client.ok("SENTINEL SET mymaster auth-pass \"\"");
    client.ok("SENTINEL CONFIG SET announce-port 5000");
    client.ok("SENTINEL MONITOR \"two words\" 127.0.0.1 1 1");
    guard.kill();
    let text = fs::read_to_string(guard.file()).expect("the file");
    assert!(text.starts_with("# what I wrote\nport "), "{text}");
    let monitor = format!("\n\nsentinel monitor mymaster 127.0.0.1 {} 3\n# patience\n", servers[0].port);
    assert!(text.contains(&monitor), "{text}");
    assert!(text.contains("sentinel parallel-syncs mymaster 2 \n"), "a line that still holds is not touched");
    // A file in which lines stand twice is healed.
    let double = format!("{text}sentinel known-replica mymaster 127.0.0.1 {}\n", servers[1].port);
    fs::write(guard.file(), double).expect("write the file");
    guard.launch();
    assert!(guard.log().contains("twice"), "{}", guard.log());
    let mut client = guard.connect();
    assert_eq!(client.run("SENTINEL MYID").text(), id);
    let master = client.run("SENTINEL MASTER mymaster");
    assert_eq!((field(&master, "quorum"), field(&master, "num-slaves")), ("3".into(), "2".into()));
    assert_eq!(client.run("SENTINEL CONFIG GET announce-port").items()[1].text(), "5000");
    assert_eq!(client.run("SENTINEL MASTERS").items().len(), 2);
    let healed = fs::read_to_string(guard.file()).expect("the file");
    let known = format!("known-replica mymaster 127.0.0.1 {}", servers[1].port);
    assert_eq!(healed.matches(&known).count(), 1, "{healed}");
}

#[test]
fn a_disk_that_fails_is_reported_and_tried_again() {
    let _alone = light();
    let guard = Guard::start(Program::Ours, free_port(), 1, "");
    let mut client = guard.connect();
    let moved = guard.dir.with_extension("away");
    fs::rename(&guard.dir, &moved).expect("take the folder away");
    let reply = client.run("SENTINEL FLUSHCONFIG").to_string();
    assert!(reply.starts_with("-ERR Failed to save config file"), "{reply}");
    assert_eq!(client.run("PING").to_string(), "+PONG");
    fs::rename(&moved, &guard.dir).expect("bring it back");
    client.ok("SENTINEL FLUSHCONFIG");
    assert!(guard.log().contains("was not able to save the new configuration"), "{}", guard.log());
}

/// As containers mount it: nothing can take its place, so it is written over. Needs a kernel that lets users mount.
#[test]
fn a_file_that_is_mounted_by_itself_is_written_in_place() {
    let mounts = |script: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "sh"]).args(args).stdin(Stdio::null());
        command
    };
    if !mounts("mount --bind \"$1\" \"$1\"", &["/"]).output().is_ok_and(|out| out.status.success()) {
        println!("left out: nothing can be mounted here");
        return;
    }
    let mut guard = Guard::start(Program::Ours, free_port(), 1, "");
    guard.kill();
    let file = guard.file().display().to_string();
    let script = "mount --bind \"$1\" \"$1\" && exec \"$2\" \"$1\" --sentinel";
    let mut command = mounts(script, &[&file, &subject().display().to_string()]);
    guard.child =
        Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start a sentinel"));
    wait_for("the sentinel answers", SOON, || {
        Client::try_connect(guard.port).is_ok_and(|mut c| c.try_run("PING").is_ok())
    });
    let mut client = guard.connect();
    client.ok("SENTINEL SET mymaster failover-timeout 123456");
    client.ok("SENTINEL FLUSHCONFIG");
    let text = fs::read_to_string(guard.file()).expect("the file");
    assert!(text.starts_with("# what I wrote\n"), "{text}");
    assert!(text.contains("\nsentinel failover-timeout mymaster 123456\n"), "{text}");
    // What becomes shorter leaves nothing behind.
    client.ok("SENTINEL REMOVE mymaster");
    client.ok("SENTINEL FLUSHCONFIG");
    let text = fs::read_to_string(guard.file()).expect("the file");
    assert!(!text.contains("mymaster") && text.ends_with('\n'), "{text}");
    let left = fs::read_dir(&guard.dir).expect("the folder").count();
    assert_eq!(left, 2, "the configuration and the log");
}

/// `bind-source-addr` is for all links, whichever sentinel.
#[test]
fn links_come_from_the_address_that_is_bound() {
    let _alone = light();
    let primary = Server::subject();
    for program in [Program::Ours, Program::Real] {
        let guard = Guard::start(program, primary.port, 1, "bind-source-addr 127.0.0.2\n");
        let mut client = primary.connect();
        wait_for("it has both links", SOON, || {
            let listed = client.run("CLIENT LIST").text();
            let both = |kind: &str| {
                listed.lines().any(|c| c.contains(" addr=127.0.0.2:") && c.contains(&format!("-{kind} ")))
            };
            both("cmd") && both("pubsub")
        });
        drop(guard);
        wait_for("it is gone", SOON, || !client.run("CLIENT LIST").text().contains("name=sentinel-"));
    }
}

#[test]
fn there_is_no_start_without_a_file_that_can_be_written() {
    let refused = |args: &[&str]| {
        let out = Command::new(subject()).args(args).stdin(Stdio::null()).output().expect("run it");
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(refused(&["--sentinel"]).contains("Sentinel needs config file on disk"));
    let dir = fresh_dir();
    let path = dir.join("s.conf");
    for (line, message) in [
        ("sentinel monitor m 127.0.0.1 1 0", "Quorum must be 1 or greater."),
        ("sentinel monitor m some.host 1 1", "Can't resolve instance hostname."),
        ("sentinel nosuch m 1", "Unrecognized sentinel configuration statement."),
        ("sentinel down-after-milliseconds m 1", "No such master with specified name."),
        ("sentinel myid x", "Malformed Sentinel id in myid option."),
    ] {
        fs::write(&path, format!("port 0\n{line}\n")).expect("write the file");
        let told = refused(&[&path.display().to_string(), "--sentinel"]);
        assert!(told.contains(message) && told.contains(line) && told.contains("at line 2"), "{told}");
    }
    let _ = fs::remove_dir_all(&dir);
}

#[test]
fn names_of_hosts_work() {
    let _alone = light();
    let mut servers = nodes(Program::Ours);
    let lines = "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n";
    let mut guard = Guard::start(Program::Ours, servers[0].port, 1, lines);
    guard.kill();
    let text = fs::read_to_string(guard.file()).expect("the file");
    let text: String = text.replace(
        &format!("mymaster 127.0.0.1 {}", servers[0].port),
        &format!("mymaster localhost {}", servers[0].port),
    );
    fs::write(guard.file(), text).expect("write the file");
    guard.launch();
    let mut client = guard.connect();
    client.ok("SENTINEL SET mymaster down-after-milliseconds 1000");
    client.expect(
        "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster",
        &format!("[\"localhost\", \"{}\"]", servers[0].port),
    );
    client.expect(
        "SENTINEL MONITOR other no.such.host.invalid 1 1",
        "-ERR Invalid IP address or hostname specified",
    );
    wait_for("the replicas are known", SOON, || {
        client.run("SENTINEL REPLICAS mymaster").items().len() == 2
            && client
                .run("SENTINEL REPLICAS mymaster")
                .items()
                .iter()
                .all(|r| field(r, "master-link-status") == "ok")
    });
    let old = servers[0].port.to_string();
    servers[0].kill();
    wait_for("the failover", FAILOVER, || guard.primary() != old);
    guard.connect().ok("SENTINEL FLUSHCONFIG");
    let text = fs::read_to_string(guard.file()).expect("the file");
    let mut known: Vec<&str> = text.lines().filter(|line| line.starts_with("sentinel known-")).collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), text.matches("sentinel known-").count(), "{text}");
    assert_eq!(text.matches("\nsentinel monitor mymaster ").count(), 1, "{text}");
}

/// Sentinels log in to nodes and to one another as users, and have users of their own.
#[test]
fn sentinels_have_users_and_are_users() {
    const RULES: &str = "on >sp allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info \
                         +client|setname +client|kill +script|kill";
    let _alone = light();
    let servers = nodes(Program::Ours);
    for server in &servers {
        server.connect().ok(&format!("ACL SETUSER watcher {RULES}"));
    }
    let lines = "sentinel auth-user mymaster watcher\nsentinel auth-pass mymaster sp\nsentinel sentinel-user guard\n\
                 sentinel sentinel-pass gp\nuser default off\nuser guard on >gp ~* &* +@all\n";
    let programs = [Program::Ours, Program::Real, Program::Ours];
    let guards: Vec<Guard> = programs.iter().map(|p| Guard::start(*p, servers[0].port, 2, lines)).collect();
    for guard in &guards {
        let mut client = guard.connect();
        client.expect("SENTINEL MASTERS", "-NOAUTH Authentication required.");
        client.expect("AUTH guard x", "-WRONGPASS invalid username-password pair or user is disabled.");
        client.ok("AUTH guard gp");
        client.expect("ACL WHOAMI", "\"guard\"");
        wait_for("the sentinels know one another", SOON, || {
            has_peers(&mut client, 2) && client.run("SENTINEL REPLICAS mymaster").items().len() == 2
        });
        wait_for("the primary is well", SOON, || {
            field(&client.run("SENTINEL MASTER mymaster"), "flags") == "master"
        });
    }
    let seen = servers[0].connect().run("CLIENT LIST").text();
    assert!(seen.matches("user=watcher ").count() >= 3, "{seen}");
    assert_eq!(servers[0].connect().run("ACL LOG").to_string(), "[]", "they may do all that they need");
    // A user that is made here is written with the sentinel's own state, and is there again after a restart.
    let mut guard = guards.into_iter().next().expect("ours");
    let mut client = guard.connect();
    client.ok("AUTH guard gp");
    client.ok("ACL SETUSER reader on >rp +sentinel|masters +ping");
    client.expect(
        "ACL DRYRUN reader SENTINEL FLUSHCONFIG",
        "\"User reader has no permissions to run the 'sentinel|flushconfig' command\"",
    );
    client.ok("SENTINEL FLUSHCONFIG");
    let text = fs::read_to_string(guard.file()).expect("the file");
    assert!(text.contains("\nuser default off ") && text.contains("\nuser reader on "), "{text}");
    guard.kill();
    guard.launch();
    let mut client = guard.connect();
    client.ok("AUTH reader rp");
    assert_eq!(client.run("SENTINEL MASTERS").items().len(), 1);
    client.expect(
        "SENTINEL RESET *",
        "-NOPERM User reader has no permissions to run the 'sentinel|reset' command",
    );
}
