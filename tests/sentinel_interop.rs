//! Sentinels with real programs: ours beside and instead of redis-sentinel, over our nodes and real ones.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::client::{Client, Reply};
use common::server::{Launch, Server, free_port, fresh_dir, subject};
use common::{SOON, light, wait_for};

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

/// The primary is killed; everybody agrees on another one; the old one comes back as its replica.
fn survives_a_kill(of: Program, watched_by: &[Program]) {
    let _alone = light();
    let mut servers = nodes(of);
    let old = servers[0].port.to_string();
    let guards = guards(watched_by, servers[0].port);
    servers[0].kill();
    for guard in &guards {
        wait_for("every sentinel names another primary", FAILOVER, || guard.primary() != old);
    }
    let new = guards[0].primary();
    assert!(guards.iter().all(|g| g.primary() == new), "they agree");
    let at = servers.iter().position(|s| s.port.to_string() == new).expect("one of ours");
    servers[at].connect().ok("SET k v");
    let other = 3 - at;
    // Sentinels close clients of nodes whose role they change, so each look is a new connection.
    wait_for("the other replica follows", FAILOVER, || servers[other].connect().info("master_port") == new);
    let has = |client: &mut Client| client.try_run("GET k").is_ok_and(|r| r.text() == "v");
    wait_for("it has the write", SOON, || has(&mut servers[other].connect()));
    servers[0].start_again();
    wait_for("the old primary follows", FAILOVER, || follows(&servers[0], &new));
}

#[test]
fn real_sentinels_watch_our_nodes() {
    survives_a_kill(Program::Ours, &[Program::Real; 3]);
}

#[test]
fn ours_watch_real_nodes() {
    survives_a_kill(Program::Real, &[Program::Ours; 3]);
}

#[test]
fn two_real_sentinels_and_one_of_ours() {
    survives_a_kill(Program::Real, &[Program::Real, Program::Real, Program::Ours]);
}

#[test]
fn one_real_sentinel_and_two_of_ours() {
    survives_a_kill(Program::Ours, &[Program::Ours, Program::Ours, Program::Real]);
}

/// Only one sentinel finds the primary down in time: votes of the other kind make it the leader.
#[test]
fn either_kind_is_elected_by_votes_of_the_other() {
    let _alone = light();
    for (leader, voter) in [(Program::Ours, Program::Real), (Program::Real, Program::Ours)] {
        let mut servers = nodes(Program::Ours);
        let old = servers[0].port.to_string();
        let guards = guards(&[leader, voter, voter], servers[0].port);
        guards[0].connect().ok("SENTINEL SET mymaster quorum 1");
        for guard in &guards[1..] {
            guard.connect().ok("SENTINEL SET mymaster down-after-milliseconds 60000");
        }
        let vote = format!("+vote-for-leader {}", guards[0].connect().run("SENTINEL MYID").text());
        servers[0].kill();
        for guard in &guards {
            wait_for("every sentinel names another primary", FAILOVER, || guard.primary() != old);
        }
        assert!(guards[0].log().contains("+elected-leader"), "{}", guards[0].log());
        assert!(guards[1..].iter().any(|guard| guard.log().contains(&vote)), "{}", guards[1].log());
    }
}

/// Five of both kinds, of which three must agree: the primary goes with two of them, one of each kind.
#[test]
fn five_sentinels_of_both_kinds_survive_the_loss_of_two() {
    let _alone = light();
    let mut servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let programs = [Program::Ours, Program::Real, Program::Ours, Program::Real, Program::Ours];
    let mut guards = guards(&programs, servers[0].port);
    let quorum = guards[0].connect().run("SENTINEL CKQUORUM mymaster").to_string();
    assert!(quorum.starts_with("+OK 5 usable Sentinels"), "{quorum}");
    guards[0].kill();
    guards[1].kill();
    servers[0].kill();
    for guard in &guards[2..] {
        wait_for("every sentinel names another primary", FAILOVER, || guard.primary() != old);
    }
    let new = guards[2].primary();
    guards[0].launch();
    guards[1].launch();
    servers[0].start_again();
    for guard in &guards {
        wait_for("they agree", FAILOVER, || guard.primary() == new);
    }
    wait_for("the old primary follows", FAILOVER, || follows(&servers[0], &new));
}

/// Whether a server is a replica of the one on this port. Connections may be closed while that changes.
fn follows(server: &Server, port: &str) -> bool {
    let Ok(mut client) = Client::try_connect(server.port) else { return false };
    let info = client.try_run("INFO replication").map_or_else(|_| String::new(), |r| r.text());
    info.contains("role:slave") && info.contains(&format!("master_port:{port}\r\n"))
}

/// Whichever sentinel is told to, the others follow its failover.
#[test]
fn failovers_by_hand_are_followed_by_the_other_kind() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let guards = guards(&[Program::Ours, Program::Real, Program::Ours], servers[0].port);
    for leader in &guards[..2] {
        let before = leader.primary();
        wait_for("a replica is good enough", FAILOVER, || {
            leader.connect().run("SENTINEL FAILOVER mymaster").to_string() == "+OK"
        });
        for guard in &guards {
            wait_for("the switch is followed", FAILOVER, || guard.primary() != before);
        }
        let new = leader.primary();
        wait_for("all others are its replicas", FAILOVER, || {
            servers.iter().all(|s| s.port.to_string() == new || follows(s, &new))
        });
        wait_for("the failover is over", FAILOVER, || {
            let masters = leader.connect().run("SENTINEL MASTER mymaster");
            field(&masters, "flags") == "master" && field(&masters, "num-slaves") == "2"
        });
    }
}

/// The procedure of the guides: DEBUG SLEEP on the primary.
#[test]
fn a_primary_that_sleeps_is_replaced_and_returns_as_a_replica() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let guards = guards(&[Program::Ours; 3], servers[0].port);
    let mut sleeper = servers[0].connect();
    sleeper.send(&["DEBUG", "SLEEP", "10"]);
    for guard in &guards {
        wait_for("every sentinel names another primary", FAILOVER, || guard.primary() != old);
    }
    // Whoever slept was demoted right after, which closes its clients; its answer may be lost with that.
    let _ = sleeper.try_read();
    let new = guards[0].primary();
    wait_for("it follows", FAILOVER, || follows(&servers[0], &new));
}

/// The same with the sleep of the guides, of which other nodes' clients notice nothing.
#[test]
#[ignore = "takes a minute: scripts/test sentinel-long"]
fn a_primary_that_sleeps_for_half_a_minute_is_replaced_and_returns_as_a_replica() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let guards = guards(&[Program::Ours, Program::Real, Program::Ours], servers[0].port);
    let mut sleeper = servers[0].connect();
    sleeper.send(&["DEBUG", "SLEEP", "30"]);
    for guard in &guards {
        wait_for("every sentinel names another primary", FAILOVER, || guard.primary() != old);
    }
    let new = guards[0].primary();
    let _ = sleeper.try_read();
    wait_for("it follows", FAILOVER, || follows(&servers[0], &new));
    assert!(guards.iter().all(|guard| guard.primary() == new));
}

/// After a failover all stays as it is: nobody is found down, nothing is switched back, for five minutes.
#[test]
#[ignore = "takes five minutes: scripts/test sentinel-long"]
fn five_minutes_after_a_failover_nothing_has_moved() {
    let _alone = light();
    let mut servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let guards = guards(&[Program::Ours, Program::Real, Program::Ours], servers[0].port);
    servers[0].kill();
    for guard in &guards {
        wait_for("it is replaced", FAILOVER, || guard.primary() != old);
    }
    servers[0].start_again();
    let new = guards[0].primary();
    wait_for("all others follow", FAILOVER, || {
        servers.iter().all(|s| s.port.to_string() == new || follows(s, &new))
    });
    let all_well = |guard: &Guard| {
        let mut client = guard.connect();
        let flags = |reply: &Reply| reply.items().iter().map(|i| field(i, "flags")).collect::<Vec<_>>();
        field(&client.run("SENTINEL MASTER mymaster"), "flags") == "master"
            && flags(&client.run("SENTINEL REPLICAS mymaster")) == ["slave", "slave"]
            && flags(&client.run("SENTINEL SENTINELS mymaster")) == ["sentinel", "sentinel"]
    };
    for guard in &guards {
        wait_for("all is well", FAILOVER, || all_well(guard));
    }
    let epochs: Vec<String> =
        guards.iter().map(|g| field(&g.connect().run("SENTINEL MASTER mymaster"), "config-epoch")).collect();
    let until = std::time::Instant::now() + Duration::from_secs(300);
    let (mut looks, mut writer) =
        (0, servers.iter().find(|s| s.port.to_string() == new).expect("ours").connect());
    // Looks again and again for the whole time; a look that fails ends the test.
    while std::time::Instant::now() < until {
        for (guard, epoch) in guards.iter().zip(&epochs) {
            assert!(all_well(guard), "{}", guard.log());
            assert_eq!(guard.primary(), new);
            assert_eq!(&field(&guard.connect().run("SENTINEL MASTER mymaster"), "config-epoch"), epoch);
        }
        writer.ok("SET k v");
        looks += 1;
        std::thread::park_timeout(Duration::from_secs(1));
    }
    assert!(looks > 100, "{looks}");
}

#[test]
fn a_primary_that_restarts_in_time_is_kept() {
    let _alone = light();
    let mut servers = nodes(Program::Ours);
    let guards = guards(&[Program::Ours; 3], servers[0].port);
    for guard in &guards {
        guard.connect().ok("SENTINEL SET mymaster down-after-milliseconds 10000");
    }
    let port = servers[0].port.to_string();
    servers[0].kill();
    servers[0].start_again();
    for guard in &guards {
        wait_for("the restart is noticed", FAILOVER, || guard.log().contains("+reboot"));
        assert_eq!(guard.primary(), port);
        assert!(!guard.log().contains("+sdown master"), "{}", guard.log());
    }
}

/// Numbers, ids and placeholders of a recorded reply and of a live one become the same word.
fn shape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '<' => {
                for c in chars.by_ref() {
                    if c == '>' {
                        break;
                    }
                }
                out.push('N');
            }
            '-' if chars.peek().is_some_and(char::is_ascii_digit) => {}
            c if c.is_ascii_hexdigit() => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(char::is_ascii_alphanumeric) {
                    word.push(c);
                }
                let hex = word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit());
                let number = word.bytes().all(|b| b.is_ascii_digit());
                out.push_str(if hex || number { "N" } else { &word });
            }
            c if c.is_ascii_alphabetic() => {
                out.push(c);
                while let Some(c) = chars.next_if(char::is_ascii_alphanumeric) {
                    out.push(c);
                }
            }
            c => out.push(c),
        }
    }
    // A replica is in step or not yet.
    out.replace("\"err\"", "\"ok\"")
}

/// What a sentinel of 7.4.1 answered, command by command.
#[test]
fn commands_answer_as_recorded() {
    let _alone = light();
    let primary = Server::subject();
    let port = primary.port.to_string();
    let replica = Launch::subject().args(&["--replicaof", "127.0.0.1", &port]).start();
    let mut linked = replica.connect();
    wait_for("the replica is in step", SOON, || linked.info("master_link_status") == "up");
    let lines = "sentinel down-after-milliseconds mymaster 60000\n";
    let guards: Vec<Guard> = (0..2).map(|_| Guard::start(Program::Ours, primary.port, 2, lines)).collect();
    let mut client = guards[0].connect();
    wait_for("the sentinels know one another", SOON, || {
        has_peers(&mut client, 1)
            && client
                .run("SENTINEL REPLICAS mymaster")
                .items()
                .iter()
                .any(|r| field(r, "master-link-status") == "ok")
    });
    let text = include_str!("facts/sentinel-7.4.txt");
    let (session, _) = text.split_once("# a subscriber of *").expect("the part of single commands");
    let mut recorded = session.lines().peekable();
    let mut compared = 0;
    let mut wrong = Vec::new();
    while let Some(line) = recorded.next() {
        if line == "# after HELLO 3" {
            client.run("HELLO 3");
        }
        let Some(command) = line.strip_prefix("> ") else { continue };
        let want = recorded.next_if(|l| !l.starts_with(['>', '#'])).unwrap_or_default();
        if client.info("redis_mode").is_empty() {
            client = guards[0].connect();
        }
        let mut got = client.run(command);
        match command {
            // No ACL yet; the order of names is ours.
            "ACL WHOAMI" => continue,
            "INFO sentinel" => continue,
            "ROLE" => {
                let Reply::Array(items) = &mut got else { panic!("{got}") };
                items[1] = items[1].clone().sorted();
                assert_eq!(got.to_string(), "[\"sentinel\", [\"bad name\", \"mymaster\", \"x\"]]");
                continue;
            }
            _ => {}
        }
        compared += 1;
        if shape(&got.to_string()) != shape(want) {
            wrong.push(format!("{command}\n  want {want}\n  got  {got}"));
        }
        // Back to RESP2 behind the two commands that were recorded so.
        if command.starts_with("SENTINEL SENTINELS mymaster") {
            client.run("HELLO 2");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 90, "only {compared} were compared");
    let info = client.run("INFO sentinel").text();
    let line = info.lines().find(|l| l.contains("name=mymaster")).expect("its line");
    assert!(line.ends_with(&format!("status=ok,address=127.0.0.1:{port},slaves=1,sentinels=2")), "{info}");
}

/// What a subscriber of 7.4.1 was told: a primary that is not there is watched and let go, another one is switched.
#[test]
fn events_are_told_as_recorded() {
    let _alone = light();
    let primary = Server::subject();
    let port = primary.port.to_string();
    let _replica = Launch::subject().args(&["--replicaof", "127.0.0.1", &port]).start();
    let guard = Guard::start(Program::Ours, primary.port, 2, "");
    let mut client = guard.connect();
    // Nothing but what is done here is to happen, also on a busy machine.
    client.ok("SENTINEL DEBUG tilt-trigger 60000");
    client.ok("SENTINEL SET mymaster down-after-milliseconds 60000");
    wait_for("the replica is in step", SOON, || {
        let replicas = client.run("SENTINEL REPLICAS mymaster");
        replicas.items().iter().any(|r| field(r, "master-link-status") == "ok")
    });
    let mut subscriber = guard.connect();
    subscriber.run("PSUBSCRIBE *");
    client.ok("SENTINEL SET mymaster down-after-milliseconds 59000");
    client.ok("SENTINEL MONITOR other 127.0.0.1 1 1");
    client.ok("SENTINEL SET other down-after-milliseconds 300");
    let recorded = include_str!("facts/sentinel-7.4.txt").lines().filter_map(|l| l.strip_prefix("event: "));
    let mut compared = 0;
    for want in recorded {
        assert_eq!(shape(&subscriber.read().to_string()), shape(want), "{want}");
        compared += 1;
        if want.contains("\"-failover-abort-no-good-slave\"") {
            client.ok("SENTINEL REMOVE other");
        } else if want.contains("\"-monitor\"") {
            wait_for("a replica is good enough", FAILOVER, || {
                client.run("SENTINEL FAILOVER mymaster").to_string() == "+OK"
            });
        }
    }
    assert!(compared > 25, "only {compared} were compared");
}

/// The usages that HELP tells, which tools take for the list of what there is.
#[test]
fn help_names_what_redis_sentinel_names() {
    let _alone = light();
    let usages = |program| {
        let guard = Guard::start(program, free_port(), 1, "");
        let told = guard.connect().run("SENTINEL HELP");
        let lines: Vec<String> = told.items().iter().map(Reply::text).collect();
        lines.into_iter().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>()
    };
    assert_eq!(usages(Program::Ours), usages(Program::Real));
}

/// What monitors ask a sentinel besides SENTINEL: the same fields in the same order.
#[test]
fn info_and_role_are_as_redis_sentinel_has_them() {
    let _alone = light();
    let port = free_port();
    let guards = [Guard::start(Program::Ours, port, 1, ""), Guard::start(Program::Real, port, 1, "")];
    let shapes = guards.each_ref().map(|guard| {
        let info = guard.connect().run("INFO sentinel").text();
        let names = info.lines().map(|line| line.split(':').next().unwrap_or_default().to_owned());
        (names.collect::<Vec<_>>(), guard.connect().run("ROLE").to_string())
    });
    assert_eq!(shapes[0], shapes[1]);
    let sections = guards.each_ref().map(|guard| {
        let info = guard.connect().run("INFO").text();
        info.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(sections[0], sections[1]);
}

/// A whole zone goes: the primary, a replica and a sentinel at once. The other two sentinels promote what is left.
#[test]
fn the_loss_of_a_zone_is_survived() {
    let _alone = light();
    let mut servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let mut guards = guards(&[Program::Ours, Program::Real, Program::Ours], servers[0].port);
    servers[0].kill();
    servers[1].kill();
    guards[0].kill();
    let left = servers[2].port.to_string();
    for guard in &guards[1..] {
        wait_for("what is left is promoted", FAILOVER, || guard.primary() == left);
    }
    wait_for("it takes writes", FAILOVER, || {
        Client::try_connect(servers[2].port)
            .is_ok_and(|mut c| c.try_run("SET k v").is_ok_and(|r| r.to_string() == "+OK"))
    });
    // The zone returns: with what it knew, the primary of before follows, and so does its sentinel.
    servers[0].start_again();
    servers[1].start_again();
    guards[0].launch();
    for server in &servers[..2] {
        wait_for("it follows", FAILOVER, || follows(server, &left));
    }
    wait_for("the sentinel learns of it", FAILOVER, || guards[0].primary() == left);
    assert_ne!(old, left);
}

/// Two of three sentinels are gone with the primary: one alone may find it down, and must not replace it. Once the
/// others are back the failover happens.
#[test]
fn without_a_quorum_nothing_is_replaced_until_it_is_back() {
    let _alone = light();
    let mut servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let mut guards = guards(&[Program::Ours; 3], servers[0].port);
    guards[1].kill();
    guards[2].kill();
    servers[0].kill();
    wait_for("it is found down", FAILOVER, || {
        guards[0].log().contains(&format!("+sdown master mymaster 127.0.0.1 {old}"))
    });
    wait_for("the others are found down", FAILOVER, || {
        guards[0].log().matches("+sdown sentinel").count() == 2
    });
    let refused = guards[0].connect().run("SENTINEL CKQUORUM mymaster").to_string();
    assert!(refused.starts_with("-NOQUORUM 1 usable Sentinels"), "{refused}");
    let log = guards[0].log();
    assert!(
        !log.contains("+odown") && !log.contains("+switch-master") && !log.contains("+elected-leader"),
        "{log}"
    );
    assert_eq!(guards[0].primary(), old);
    guards[1].launch();
    guards[2].launch();
    for guard in &guards {
        wait_for("it is replaced", FAILOVER, || guard.primary() != old);
    }
}

/// Down for longer than the window: it is replaced, and follows when it is back.
#[test]
fn a_primary_that_restarts_too_late_returns_as_a_replica() {
    let _alone = light();
    let mut servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let guards = guards(&[Program::Ours; 3], servers[0].port);
    servers[0].kill();
    for guard in &guards {
        wait_for("it is replaced", FAILOVER, || guard.primary() != old);
    }
    let new = guards[0].primary();
    servers[0].start_again();
    wait_for("it follows", FAILOVER, || follows(&servers[0], &new));
    wait_for("it counts as a replica", FAILOVER, || {
        guards.iter().all(|guard| {
            let replicas = guard.connect().run("SENTINEL REPLICAS mymaster");
            replicas.items().iter().any(|r| field(r, "port") == old && field(r, "flags") == "slave")
        })
    });
    // A sentinel that saw a restart does not take a replica for a primary.
    assert!(guards.iter().all(|guard| guard.primary() == new));
}

fn script(dir: &Path, name: &str, body: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("write a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
    path.display().to_string()
}

/// SENTINEL SIMULATE-FAILURE: whoever ends right after a promotion has written it, and all follow once it is back.
#[test]
fn a_sentinel_that_ends_after_a_promotion_remembers_it() {
    let _alone = light();
    for program in [Program::Real, Program::Ours] {
        let servers = nodes(Program::Ours);
        let old = servers[0].port.to_string();
        let mut guards = guards(&[program; 3], servers[0].port);
        guards[0].connect().ok("SENTINEL SIMULATE-FAILURE crash-after-promotion");
        let leader = &mut guards[0];
        let mut code = None;
        wait_for("it ends", FAILOVER, || {
            // It may end before it answers.
            let _ =
                Client::try_connect(leader.port).and_then(|mut c| c.try_run("SENTINEL FAILOVER mymaster"));
            code = leader.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            code.is_some()
        });
        assert_eq!(code.expect("it ended").code(), Some(99));
        let text = fs::read_to_string(leader.file()).expect("the file");
        assert!(!text.contains(&format!("sentinel monitor mymaster 127.0.0.1 {old} ")), "{text}");
        assert!(text.contains("sentinel config-epoch mymaster 1\n"), "{text}");
        leader.launch();
        for guard in &guards {
            wait_for("all name the promoted one", FAILOVER, || guard.primary() != old);
        }
    }
}

#[test]
fn scripts_get_their_arguments_and_are_tried_again() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let dir = fresh_dir();
    let (notes, moves) = (dir.join("notes"), dir.join("moves"));
    let notify = script(&dir, "notify", &format!("echo \"$#:$1:$2\" >> {}", notes.display()));
    // Fails with 1 at first, which asks for another try.
    let reconfig = script(
        &dir,
        "reconfig",
        &format!("echo \"$*\" >> {0}\n[ $(wc -l < {0}) -ge 3 ] || exit 1", moves.display()),
    );
    let lines = format!(
        "sentinel notification-script mymaster {notify}\nsentinel client-reconfig-script mymaster {reconfig}\n"
    );
    let guard = Guard::start(Program::Ours, servers[0].port, 1, &lines);
    let mut client = guard.connect();
    client.ok("SENTINEL DEBUG script-retry-delay 50");
    wait_for("a replica is good enough", FAILOVER, || {
        client.run("SENTINEL FAILOVER mymaster").to_string() == "+OK"
    });
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    wait_for("the third try", FAILOVER, || read(&moves).lines().count() == 3);
    let new = guard.primary();
    let want = format!("mymaster leader start 127.0.0.1 {} 127.0.0.1 {new}", servers[0].port);
    assert!(read(&moves).lines().all(|line| line == want), "{}", read(&moves));
    let switch = format!("2:+switch-master:mymaster 127.0.0.1 {} 127.0.0.1 {new}", servers[0].port);
    wait_for("the switch is notified", FAILOVER, || read(&notes).lines().any(|l| l == switch));
    wait_for("a new epoch is notified", FAILOVER, || {
        read(&notes).lines().any(|l| l.starts_with("2:+new-epoch:"))
    });
    wait_for("nothing is left in the queue", FAILOVER, || {
        client.run("SENTINEL PENDING-SCRIPTS").items().is_empty()
    });
    let _ = fs::remove_dir_all(&dir);
}

/// Whoever follows another's failover calls its script, too. It gets none of our descriptors, and is killed when it does
/// not end.
#[test]
fn a_script_gets_no_descriptors_and_is_killed_when_it_does_not_end() {
    let _alone = light();
    let servers = nodes(Program::Ours);
    let old = servers[0].port.to_string();
    let dir = fresh_dir();
    let notes = dir.join("notes");
    let body = "{ echo \"$*\"; for fd in /proc/$$/fd/*; do readlink $fd; done; echo end; } >> NOTES\nexec sleep 1000";
    let path = script(&dir, "reconfig", &body.replace("NOTES", &notes.display().to_string()));
    let observed = format!("sentinel client-reconfig-script mymaster {path}\n");
    let all = ["", &observed].map(|lines| Guard::start(Program::Ours, servers[0].port, 2, lines));
    wait_until_formed(&all);
    let mut client = all[1].connect();
    client.ok("SENTINEL DEBUG script-max-runtime 500");
    let mut subscriber = all[1].connect();
    subscriber.run("SUBSCRIBE -script-timeout");
    wait_for("a replica is good enough", FAILOVER, || {
        all[0].connect().run("SENTINEL FAILOVER mymaster").to_string() == "+OK"
    });
    let told = subscriber.read().items()[2].text();
    let pid = told.strip_prefix(&format!("{path} ")).unwrap_or_else(|| panic!("{told}"));
    assert!(pid.parse::<u32>().is_ok_and(|pid| pid > 1), "{told}");
    // Killed by a signal: it is tried again later.
    wait_for("it is scheduled again", FAILOVER, || {
        let queue = client.run("SENTINEL PENDING-SCRIPTS");
        let [script] = queue.items() else { return false };
        field(script, "flags") == "scheduled"
            && field(script, "retry-num") == "1"
            && field(script, "pid") == "0"
    });
    let text = fs::read_to_string(&notes).expect("it ran");
    let mut lines = text.lines();
    let want = format!("mymaster observer start 127.0.0.1 {old} 127.0.0.1 {}", all[1].primary());
    assert_eq!(lines.next(), Some(want.as_str()));
    // What this process was started with may be open, too, but nothing that the sentinel opened.
    let open: Vec<&str> = lines.take_while(|line| *line != "end").collect();
    assert!(open.contains(&"/dev/null"), "{text}");
    let folder = all[1].dir.display().to_string();
    let ours =
        |to: &&&str| to.starts_with("socket:") || to.starts_with("anon_inode:") || to.starts_with(&folder);
    assert_eq!(open.iter().find(ours), None, "{text}");
    let _ = fs::remove_dir_all(&dir);
}

/// The primary is killed and comes back; then the primary is forgotten.
fn events_of_a_failover(program: Program) -> std::collections::BTreeSet<String> {
    let mut servers = nodes(Program::Ours);
    let old = servers[0].port;
    let guard = Guard::start(program, old, 1, "sentinel failover-timeout mymaster 20000\n");
    let mut client = guard.connect();
    // What returns is repaired after four of these, and its role is seen with the next INFO.
    client.ok("SENTINEL DEBUG publish-period 500 info-period 500");
    wait_until_formed(std::slice::from_ref(&guard));
    let mut subscriber = guard.connect();
    subscriber.run("PSUBSCRIBE *");
    servers[0].kill();
    let mut events = std::collections::BTreeSet::new();
    let mut until = |channel: &str, text: &str| loop {
        let message = subscriber.read();
        let words = message.items();
        events.insert(format!("{} {}", words[2].text(), shape(&words[3].text())));
        if words[2].text() == channel && words[3].text().contains(text) {
            return;
        }
    };
    until("+switch-master", "");
    until("+sdown", &format!(":{old} "));
    servers[0].start_again();
    until("-sdown", &format!(":{old} "));
    until("+convert-to-slave", &format!(":{old} "));
    until("+role-change", &format!(":{old} "));
    client.run("SENTINEL RESET mymaster");
    until("+slave", "");
    until("+slave", "");
    client.ok("SENTINEL SET mymaster quorum 2");
    until("+set", "quorum");
    client.ok("SENTINEL REMOVE mymaster");
    until("-monitor", "");
    events
}

/// A whole failover and what follows, as a subscriber sees it: both kinds tell the same events with the same words.
#[test]
fn a_failover_is_told_as_redis_sentinel_tells_it() {
    let _alone = light();
    let told = std::thread::scope(|scope| {
        let both = [Program::Ours, Program::Real];
        both.map(|program| scope.spawn(move || events_of_a_failover(program)))
            .map(|t| t.join().expect("no failure"))
    });
    let differ: Vec<&String> = told[0].symmetric_difference(&told[1]).collect();
    assert!(differ.is_empty(), "{differ:#?}\n{told:#?}");
    assert!(told[0].len() > 25, "{told:#?}");
}

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
