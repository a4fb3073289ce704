//! What a sentinel answers and tells its subscribers: as redis-sentinel does, live and recorded.

use crate::common::client::Reply;
use crate::common::server::{Launch, Server, free_port};
use crate::common::{SOON, light, wait_for};

use super::{FAILOVER, Guard, Program, field, has_peers, nodes, wait_until_formed};

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
    let text = include_str!("../facts/sentinel-7.4.txt");
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
    let recorded =
        include_str!("../facts/sentinel-7.4.txt").lines().filter_map(|l| l.strip_prefix("event: "));
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
