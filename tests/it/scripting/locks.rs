//! The locks of scripts: nobody sees half of one, and those that cross each other both succeed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::server::subject_is_real;
use crate::common::{SOON, wait_for};

use super::node;

/// Waits for its key's lock with the other's key unlocked, or not at all: see the module of `exec::script`.
const STRAYING: &str = "redis.call('SET', KEYS[1], 'half') \
    local n = 0 for i = 1, tonumber(ARGV[2]) do n = n + i % 7 end \
    if ARGV[1] ~= '' then \
        local seen = redis.call('GET', ARGV[1]) \
        if seen == 'half' then return 'torn' end \
        redis.call('INCR', ARGV[1] .. ':visits') \
    end \
    redis.call('SET', KEYS[1], 'whole') return 'done'";

/// Moves one to a key that it does not declare, and wakes those who wait for the lists.
const WAKING: &str = "redis.call('DECR', KEYS[1]) redis.call('RPUSH', 'l', 'x') \
    redis.call('RPUSH', 'm', 'x') redis.call('INCR', ARGV[1]) return 'done'";

/// A text that the node sees for the first time is read before it runs: it needs no locks but those of its keys.
#[test]
fn a_new_script_that_keeps_to_its_keys_needs_no_others() {
    if subject_is_real() {
        return;
    }
    let server = node("2");
    let [mut admin, mut hanging] = [(); 2].map(|()| server.connect());
    admin.ok("CONFIG SET busy-reply-threshold 600000");
    admin.ok("SET {x} 1");
    let sha = admin.cmd(&["SCRIPT", "LOAD", "while true do redis.call('GET', KEYS[1]) end"]).text();
    hanging.send(&["EVALSHA", &sha, "1", "{a}"]);
    wait_for("it holds its key", SOON, || {
        let mut probe = server.connect();
        probe.set_read_timeout(Duration::from_millis(100));
        probe.try_run("GET {a}").is_err()
    });
    let mut number = 0;
    wait_for("a new script beside it", SOON, || {
        number += 1;
        // On the worker whose script hangs it would wait for its turn.
        let mut client = server.connect();
        client.set_read_timeout(Duration::from_millis(500));
        let told =
            client.try_run(&format!(r#"EVAL "return redis.call('GET', KEYS[1]) .. ' {number}'" 1 {{x}}"#));
        told.is_ok_and(|told| told.to_string() == format!("\"1 {number}\""))
    });
    admin.ok("SCRIPT KILL");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
}

/// Two scripts that had kept to their keys come to each other's at the same moment, both with changes made.
#[test]
fn scripts_that_stray_into_each_other_both_succeed_whole() {
    let server = node("2");
    let mut admin = server.connect();
    for round in 0..12 {
        // Another text is another script, of which nothing is known.
        let code = format!("{STRAYING} -- {round}");
        for _ in 0..4 {
            for key in ["a", "b"] {
                assert_eq!(admin.cmd(&["EVAL", &code, "1", key, "", "1"]).to_string(), "\"done\"");
            }
        }
        let told: Vec<String> = thread::scope(|scope| {
            let both = [("a", "b"), ("b", "a")].map(|(own, other)| {
                let (code, mut client) = (&code, server.connect());
                scope.spawn(move || client.cmd(&["EVAL", code, "1", own, other, "3000000"]).to_string())
            });
            both.map(|thread| thread.join().expect("it ends")).into()
        });
        assert_eq!(told, ["\"done\"", "\"done\""], "round {round}");
        assert_eq!(admin.run("MGET a b").to_string(), "[\"whole\", \"whole\"]");
        let visits = (round + 1).to_string();
        assert_eq!(admin.run("MGET a:visits b:visits").to_string(), format!("[\"{visits}\", \"{visits}\"]"));
    }
}

/// Moves one from its declared key to the key that it is told.
fn moving(round: u32) -> String {
    format!("redis.call('DECR', KEYS[1]) redis.call('INCR', ARGV[1]) return {round}")
}

#[test]
fn nobody_sees_half_of_a_script_whatever_keys_it_comes_to() {
    let server = node("2");
    let (a, b) = ("a", "b");
    let mut setup = server.connect();
    setup.ok("MSET a 1000 b 1000");
    let stop = AtomicBool::new(false);
    let mut refused = 0;
    thread::scope(|scope| {
        let checker = scope.spawn(|| {
            let mut client = server.connect();
            let mut sums = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let both = client.run("MGET a b");
                sums.push(both.items().iter().map(|n| n.text().parse::<i64>().unwrap()).sum::<i64>());
            }
            sums
        });
        for round in 0..20 {
            let script = moving(round);
            // It keeps to its keys until it is trusted.
            for key in [a, b, a, b] {
                setup.cmd(&["EVAL", &script, "1", key, key]);
            }
            let cross = |from: &'static str, to: &'static str| {
                let (script, server) = (script.clone(), &server);
                scope.spawn(move || {
                    let mut client = server.connect();
                    let run = |_| client.cmd(&["EVAL", &script, "1", from, to]).to_string();
                    (0..50).map(run).filter(|reply| reply.starts_with('-')).count()
                })
            };
            let both = [cross(a, b), cross(b, a)];
            refused += both.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
        }
        stop.store(true, Ordering::Relaxed);
        let sums = checker.join().unwrap();
        // A command of a script that was refused is not made good by anybody.
        let least = 2000 - refused as i64;
        assert!(sums.len() > 100 && sums.iter().all(|sum| (least..=2000).contains(sum)), "{sums:?}");
        assert!(refused <= 20, "{refused}");
    });
}

#[test]
fn blocked_clients_and_transactions_see_no_half_of_a_script() {
    const RUNS: usize = 150;
    let node = node("2");
    let (server, ended) = (&node, &AtomicBool::new(false));
    let mut judge = server.connect();
    judge.ok("MSET a 1000 b 1000 c 1000");
    let popped = thread::scope(|scope| {
        let checker = scope.spawn(move || {
            let mut client = server.connect();
            let mut sums = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                for line in ["MULTI", "GET a", "GET b", "GET c"] {
                    client.run(line);
                }
                for all in [client.run("EXEC"), client.run("MGET a b c")] {
                    sums.push(all.items().iter().map(|n| n.text().parse::<i64>().unwrap()).sum::<i64>());
                }
            }
            sums
        });
        let poppers = ["BLPOP l 0.1", "BLPOP l 0.1", "BLMOVE m done LEFT RIGHT 0.1"].map(|line| {
            scope.spawn(move || {
                let (mut client, mut popped) = (server.connect(), 0);
                while !ended.load(Ordering::Relaxed) {
                    popped += usize::from(!client.run(line).to_string().starts_with("nil"));
                }
                popped
            })
        });
        let movers = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a")].map(|(from, to)| {
            scope.spawn(move || {
                let mut client = server.connect();
                for run in 0..RUNS {
                    // Another text is another script, of which nothing is known.
                    let code = format!("{WAKING} -- {}", run / 30);
                    let told = if run % 3 == 0 {
                        client.run("MULTI");
                        client.run(&format!("INCRBY {to} 0"));
                        client.cmd(&["EVAL", &code, "1", from, to]);
                        client.run("EXEC").items()[1].to_string()
                    } else {
                        client.cmd(&["EVAL", &code, "1", from, to]).to_string()
                    };
                    assert_eq!(told, "\"done\"");
                }
            })
        });
        let moved = movers.map(thread::ScopedJoinHandle::join);
        ended.store(true, Ordering::Relaxed);
        let popped = poppers.map(|popper| popper.join().unwrap());
        moved.into_iter().for_each(|mover| mover.unwrap());
        let sums = checker.join().unwrap();
        assert!(sums.len() > 10 && sums.iter().all(|sum| *sum == 3000), "{sums:?}");
        popped
    });
    // Each push woke one, or is there still.
    assert_eq!((popped[0] + popped[1]) as i64 + judge.run("LLEN l").int(), 4 * RUNS as i64);
    assert_eq!(judge.run("LLEN m").int() + judge.run("LLEN done").int(), 4 * RUNS as i64);
}
