//! kill -9 under load, by the policy of `appendfsync`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::{SOON, wait_for};

use super::aof;

/// What a client has been told, and when: the greatest value of its counters.
#[derive(Default)]
struct Told(Mutex<Vec<(Instant, i64)>>);

impl Told {
    fn note(&self, value: i64) {
        self.0.lock().expect("no panic").push((Instant::now(), value));
    }

    fn last(&self) -> i64 {
        self.0.lock().expect("no panic").last().map_or(0, |told| told.1)
    }

    /// What was told at least so long before `end`.
    fn before(&self, end: Instant, age: Duration) -> i64 {
        let told = self.0.lock().expect("no panic");
        told.iter().rev().find(|told| told.0 + age <= end).map_or(0, |told| told.1)
    }
}

/// Raises two counters in one transaction, then two others in one script, until the server is gone.
fn raise(port: u16, n: usize, told: &Told) {
    let mut client = Client::connect(port);
    let script = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])";
    let lines = [
        "MULTI".to_owned(),
        format!("INCR {{{n}}}a"),
        format!("INCR {{{n}}}b"),
        "EXEC".into(),
        format!("EVAL \"{script}\" 2 {{{n}}}c {{{n}}}d"),
    ];
    loop {
        for (at, line) in lines.iter().enumerate() {
            let Ok(reply) = client.try_run(line) else { return };
            if at == 4 {
                told.note(reply.int());
            }
        }
    }
}

/// The server is killed again and again under load. Transactions and scripts are whole or absent, and no more is
/// lost than what was acknowledged within `may_lose` of the kill. `None`: nothing is promised.
fn kill_under_load(policy: &str, rounds: u64, may_lose: Option<Duration>) {
    let mut server = aof(&["--appendfsync", policy, "--auto-aof-rewrite-min-size", "1mb"]);
    let mut lost = 0;
    for round in 0..rounds {
        let told: Vec<_> = (0..4).map(|_| Arc::new(Told::default())).collect();
        let port = server.port;
        let clients = told.iter().enumerate().map(|(n, told)| {
            let told = Arc::clone(told);
            std::thread::spawn(move || raise(port, n, &told))
        });
        let clients: Vec<_> = clients.collect();
        // A different moment each time, also in the middle of rewrites.
        let enough = 20 + round * 37 % 200;
        wait_for("there is load", SOON, || {
            told.iter().all(|t| t.0.lock().expect("no panic").len() as u64 > enough)
        });
        if round % 4 == 1 {
            server.connect().run("BGREWRITEAOF");
        }
        let killed = Instant::now();
        server.kill();
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        server.start_again();
        let mut client = server.connect();
        for (n, told) in told.iter().enumerate() {
            let reply = client.run(&format!("MGET {{{n}}}a {{{n}}}b {{{n}}}c {{{n}}}d"));
            let there: Vec<i64> =
                reply.items().iter().map(|item| item.text().parse().expect("a number")).collect();
            assert_eq!(there[0], there[1], "round {round}: half a transaction");
            assert_eq!(there[2], there[3], "round {round}: half a script");
            lost += (told.last() - there[2]).max(0);
            if let Some(may_lose) = may_lose {
                let promised = told.before(killed, may_lose);
                assert!(
                    there[2] >= promised && there[0] >= promised,
                    "round {round}: {there:?} of {promised}"
                );
            }
        }
    }
    println!("{policy}: {rounds} kills, {lost} acknowledged rounds of writes lost");
}

/// `KEYSTEAD_KILLS=200` kills so often.
fn rounds() -> u64 {
    std::env::var("KEYSTEAD_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

#[test]
fn kill_9_with_always_loses_nothing() {
    // Also what was acknowledged at the moment of the kill.
    kill_under_load("always", rounds(), Some(Duration::ZERO));
}

#[test]
fn kill_9_with_everysec_loses_a_second_at_most() {
    kill_under_load("everysec", rounds(), Some(Duration::from_secs(1)));
}

#[test]
fn kill_9_with_no_leaves_whole_transactions() {
    kill_under_load("no", rounds(), None);
}
