//! Sentinels with real programs: ours beside and instead of redis-sentinel, over our nodes and real ones.

#[path = "../common/mod.rs"]
mod common;

mod failovers;
mod process;
mod scripts;
mod words;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::client::{Client, Reply};
use common::server::{Launch, Server, free_port, fresh_dir, subject};
use common::{SOON, wait_for};

/// A failover, on a loaded machine.
const FAILOVER: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, PartialEq)]
enum Program {
    Ours,
    Real,
}

/// A sentinel, with its configuration file.
struct Guard {
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
    program: Program,
}

impl Guard {
    /// Watches `mymaster` on `port` with these further lines.
    fn start(program: Program, port: u16, quorum: u32, lines: &str) -> Guard {
        let mut guard = Guard { child: None, port: free_port(), dir: fresh_dir(), program };
        let text = format!(
            "# what I wrote\nport {}\nbind 127.0.0.1\ndir {}\n\nsentinel monitor mymaster 127.0.0.1 {port} {quorum}\n\
             # patience\nsentinel down-after-milliseconds mymaster 2000\n{lines}",
            guard.port,
            guard.dir.display()
        );
        fs::write(guard.file(), text).expect("write the configuration");
        guard.launch();
        guard
    }

    fn file(&self) -> PathBuf {
        self.dir.join("sentinel.conf")
    }

    fn launch(&mut self) {
        let log = fs::File::create(self.dir.join("sentinel.log")).expect("make the log");
        let mut command = match self.program {
            Program::Ours => {
                let mut command = Command::new(subject());
                command.arg(self.file()).arg("--sentinel");
                command
            }
            Program::Real => {
                let mut command = Command::new("redis-sentinel");
                command.arg(self.file());
                command
            }
        };
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share the log")).stderr(log);
        self.child = Some(command.spawn().expect("start a sentinel"));
        wait_for("the sentinel answers", SOON, || {
            Client::try_connect(self.port).is_ok_and(|mut c| c.try_run("PING").is_ok())
        });
    }

    fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("sentinel.log")).unwrap_or_default()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn primary(&self) -> String {
        self.connect().run("SENTINEL GET-MASTER-ADDR-BY-NAME mymaster").items()[1].text()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- sentinel on {}\n{}", self.port, self.log());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn node(program: Program) -> Launch {
    if program == Program::Ours { Launch::subject() } else { Launch::real() }
}

/// A primary and two replicas that follow it.
fn nodes(program: Program) -> Vec<Server> {
    let primary = node(program).start();
    let port = primary.port.to_string();
    let replica = || node(program).args(&["--replicaof", "127.0.0.1", &port]).start();
    let all = vec![primary, replica(), replica()];
    for replica in &all[1..] {
        let mut client = replica.connect();
        wait_for("the replica is in step", SOON, || client.info("master_link_status") == "up");
    }
    all
}

/// The value of a field in a reply of names and values.
fn field(reply: &Reply, name: &str) -> String {
    let items = reply.items();
    let at = items.iter().position(|i| i.text() == name).unwrap_or_else(|| panic!("no {name} in {reply}"));
    items[at + 1].text()
}

/// Whether a sentinel is connected to so many others. CKQUORUM counts those it has only heard of, too.
fn has_peers(client: &mut Client, count: usize) -> bool {
    let reply = client.run("SENTINEL SENTINELS mymaster");
    reply.items().len() == count && reply.items().iter().all(|peer| field(peer, "flags") == "sentinel")
}

/// Every sentinel knows two replicas and all the others.
fn wait_until_formed(guards: &[Guard]) {
    for guard in guards {
        let mut client = guard.connect();
        wait_for("the sentinels know one another", SOON, || {
            has_peers(&mut client, guards.len() - 1)
                && client.run("SENTINEL REPLICAS mymaster").items().len() == 2
                && client
                    .run("SENTINEL REPLICAS mymaster")
                    .items()
                    .iter()
                    .all(|r| field(r, "flags") == "slave" && field(r, "master-link-status") == "ok")
        });
    }
}

fn guards(programs: &[Program], port: u16) -> Vec<Guard> {
    let lines = "sentinel failover-timeout mymaster 20000\n";
    let quorum = programs.len() as u32 / 2 + 1;
    let all: Vec<Guard> = programs.iter().map(|p| Guard::start(*p, port, quorum, lines)).collect();
    wait_until_formed(&all);
    all
}

fn script(dir: &Path, name: &str, body: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("write a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
    path.display().to_string()
}
