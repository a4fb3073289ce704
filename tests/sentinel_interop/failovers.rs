//! Failovers by groups of both kinds: after a kill, a sleep, the loss of a zone, and by hand.

use std::fs;
use std::time::Duration;

use crate::common::client::{Client, Reply};
use crate::common::server::Server;
use crate::common::{SOON, light, wait_for};

use super::{FAILOVER, Guard, Program, field, guards, nodes};

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
