//! Scripted cases.

use crate::world::{Fault, NAME, World};

fn formed(seed: u64) -> World {
    World::formed(seed, 3, 3, 2, Fault::None, std::env::var("SIM_TRACE").is_ok())
}

/// Runs until all sentinels name another server than `old`; how long that took.
pub fn until_switched(world: &mut World, old: usize, limit: u64) -> u64 {
    let start = world.now;
    let all = |w: &World| (0..w.guards.len()).all(|i| w.primary_of(i).is_none_or(|p| p != old));
    assert!(world.run_until(limit, all), "not switched within {limit} ms: {:?}", world.events);
    world.now - start
}

#[test]
fn a_dead_primary_is_replaced_soon_after_down_after() {
    let mut times = Vec::new();
    for seed in 0..30 {
        let mut world = formed(seed);
        world.crash_server(0);
        times.push(until_switched(&mut world, 0, 3000));
        // Whose own clock runs on evenly is not in TILT for what happens to others.
        assert_eq!(world.told("+tilt"), 0);
    }
    times.sort_unstable();
    // A second of silence, counted from the last reply to a ping, which was up to a second ago.
    assert!(times[times.len() - 1] <= 1500, "{times:?}");
}

#[test]
fn the_old_primary_is_reconfigured_when_it_returns() {
    let mut world = formed(1);
    world.crash_server(0);
    until_switched(&mut world, 0, 5000);
    world.run_for(60_000);
    world.start_server(0);
    assert!(world.run_until(60_000, |w| w.settled().is_ok()), "{:?}", world.settled());
    assert!(world.told("+convert-to-slave") >= 1);
}

#[test]
fn no_failover_without_quorum() {
    let mut world = World::formed(2, 3, 3, 3, Fault::None, false);
    world.crash_guard(2);
    world.crash_server(0);
    world.run_for(60_000);
    assert_eq!(world.told("+odown"), 0);
    assert_eq!(world.told("+try-failover"), 0);
    assert_eq!(world.primary_of(0), Some(0));
}

#[test]
fn no_failover_without_a_majority() {
    let mut world = World::formed(3, 3, 5, 2, Fault::None, false);
    for i in 2..5 {
        world.crash_guard(i);
    }
    world.crash_server(0);
    world.run_for(60_000);
    assert!(world.told("+odown") > 0, "the quorum was reached");
    assert_eq!(world.told("+elected-leader"), 0);
    assert_eq!(world.told("+promoted-slave"), 0);
    assert!(world.told("-failover-abort-not-elected") > 0);
}

#[test]
fn a_minority_with_the_primary_keeps_it_and_learns_of_the_new_one() {
    let mut world = formed(4);
    let alone = world.guard(0);
    world.isolate(&[0, alone]);
    world.run_for(20_000);
    assert_eq!(world.primary_of(0), Some(0));
    let promoted = world.primary_of(1).expect("it runs");
    assert_ne!(promoted, 0);
    world.heal_network();
    assert!(world.run_until(60_000, |w| w.settled() == Ok(promoted)), "{:?}", world.settled());
    assert!(world.told("+config-update-from") > 0);
}

#[test]
fn a_restart_within_down_after_is_no_failover() {
    let mut world = formed(5);
    for i in 0..3 {
        world.admin(i, |s| s.set(NAME, &["down-after-milliseconds", "3000"]));
    }
    world.run_for(1000);
    world.crash_server(0);
    world.run_for(1500);
    world.start_server(0);
    world.run_for(30_000);
    assert_eq!(world.told("+try-failover"), 0, "{:?}", world.events);
    assert!(world.told("+reboot") >= 1);
}

#[test]
fn the_replica_of_the_smaller_priority_is_promoted() {
    let mut world = formed(6);
    world.servers[2].priority = 10;
    world.run_for(25_000);
    world.crash_server(0);
    until_switched(&mut world, 0, 5000);
    assert_eq!(world.primary_of(0), Some(2));
}

#[test]
fn a_replica_of_priority_0_is_never_promoted() {
    let mut world = World::formed(7, 2, 3, 2, Fault::None, false);
    world.servers[1].priority = 0;
    world.run_for(25_000);
    world.crash_server(0);
    world.run_for(60_000);
    assert!(world.told("-failover-abort-no-good-slave") > 0);
    assert_eq!(world.told("+promoted-slave"), 0);
    // As soon as there is a good one the failover goes on: nobody waits for twice the timeout again.
    world.servers[1].priority = 1;
    until_switched(&mut world, 0, 15_000);
}

/// The complaint: RESET forgets replicas and sentinels for ten seconds, and a primary that dies meanwhile has none.
#[test]
fn a_primary_that_dies_right_after_a_reset_is_replaced() {
    let mut world = formed(8);
    for i in 0..3 {
        assert_eq!(world.admin(i, |s| s.reset(b"*")), Some(1));
    }
    world.crash_server(0);
    until_switched(&mut world, 0, 3000);
    assert_eq!(world.told("-failover-abort-no-good-slave"), 0);
}

#[test]
fn a_reset_forgets_what_is_gone() {
    let mut world = formed(9);
    world.crash_server(2);
    world.crash_guard(2);
    world.run_for(5000);
    world.admin(0, |s| s.reset(b"my*"));
    world.run_for(15_000);
    let state = world.guards[0].state.as_ref().expect("it runs");
    assert_eq!(state.replica_fields(NAME).map(|r| r.len()), Ok(1));
    assert_eq!(state.sentinel_fields(NAME).map(|s| s.len()), Ok(1));
}

#[test]
fn a_replica_that_is_gone_for_good_ages_out() {
    let mut world = formed(10);
    world.crash_server(2);
    let listed =
        |w: &World| w.guards[0].state.as_ref().and_then(|s| s.replica_fields(NAME).ok()).map(|r| r.len());
    world.run_for(3_000_000);
    assert_eq!(listed(&world), Some(2));
    world.run_for(1_000_000);
    assert_eq!(listed(&world), Some(1));
}

#[test]
fn a_primary_that_was_replaced_is_awaited_for_ever() {
    let mut world = formed(11);
    world.crash_server(0);
    until_switched(&mut world, 0, 3000);
    world.run_for(8_000_000);
    world.start_server(0);
    assert!(world.run_until(60_000, |w| w.settled().is_ok()), "{:?}", world.settled());
}

#[test]
fn a_sentinel_that_stood_still_judges_nobody() {
    let mut world = formed(12);
    let process = world.guard(0);
    world.pause(process);
    world.run_for(20_000);
    world.resume(process);
    world.run_for(5000);
    let of_it = |kind: &str| world.events.iter().filter(|e| e.1 == 0 && e.2 == kind).count();
    assert_eq!((of_it("+tilt"), of_it("+sdown")), (1, 0));
    world.run_for(40_000);
    assert_eq!(world.told("-tilt"), 1);
}

#[test]
fn a_manual_failover_needs_no_agreement() {
    let mut world = formed(13);
    assert_eq!(world.admin(1, |s| s.failover(NAME)), Some(Ok(())));
    assert_eq!(world.admin(1, |s| s.failover(NAME)), Some(Err("INPROG Failover already in progress".into())));
    until_switched(&mut world, 0, 3000);
    assert!(world.run_until(60_000, |w| w.settled().is_ok()), "{:?}", world.settled());
    assert_eq!(world.told("+sdown"), 0, "{:?}", world.events);
}

#[test]
fn a_leader_that_crashes_after_its_election_is_followed_by_another() {
    let mut world = formed(14);
    world.crash_server(0);
    assert!(world.run_until(5000, |w| w.told("+elected-leader") == 1));
    let leader = world.events.iter().find(|e| e.2 == "+elected-leader").expect("just seen").1;
    world.crash_guard(leader);
    assert!(world.run_until(60_000, |w| w.told("+switch-master") > 0));
}

#[test]
fn a_failover_by_hand_publishes_its_events_in_order() {
    let mut world = World::formed(15, 2, 1, 1, Fault::None, false);
    world.events.clear();
    world.admin(0, |s| s.failover(NAME)).expect("it runs").expect("there is a replica");
    assert!(world.run_until(5000, |w| w.told("+switch-master") == 1));
    let kinds: Vec<&str> = world.events.iter().map(|e| e.2.as_str()).collect();
    // As a sentinel of 7.4.1 publishes them.
    let want = [
        "+new-epoch",
        "+try-failover",
        "+vote-for-leader",
        "+elected-leader",
        "+failover-state-select-slave",
        "+selected-slave",
        "+failover-state-send-slaveof-noone",
        "+failover-state-wait-promotion",
        "-role-change",
        "+promoted-slave",
        "+failover-state-reconf-slaves",
        "+failover-end",
        "+switch-master",
        "+slave",
    ];
    assert_eq!(kinds[..want.len()], want);
}

/// `parallel-syncs` and `failover-timeout`: one replica that cannot reach the new primary takes a place, but not for ever.
#[test]
fn replicas_are_moved_so_many_at_a_time_and_none_is_awaited_for_ever() {
    for (parallel, sent, done) in [("1", 1, 0), ("2", 2, 1)] {
        let mut world = World::formed(16, 4, 1, 1, Fault::None, false);
        world
            .admin(0, |s| s.set(NAME, &["parallel-syncs", parallel]))
            .expect("it runs")
            .expect("a good value");
        world.servers[1].priority = 10;
        world.run_for(25_000);
        world.block(1, 2);
        world.block(2, 1);
        world.admin(0, |s| s.failover(NAME)).expect("it runs").expect("there is a replica");
        world.run_for(9000);
        let told =
            |w: &World| ["sent", "inprog", "done"].map(|what| w.told(&format!("+slave-reconf-{what}")));
        assert_eq!(told(&world), [sent, sent, done], "{:?}", world.events);
        assert!(world.run_until(5000, |w| w.told("+failover-end") == 1), "{:?}", world.events);
        assert_eq!(world.told("+failover-end-for-timeout"), 1);
        // Whoever was not told yet is told now.
        assert_eq!(world.told("+slave-reconf-sent-be"), 2 - sent);
        assert_eq!(world.primary_of(0), Some(1));
    }
}

/// Clients that ask sentinels write again soon after the primary died, and find all that was replicated.
#[test]
fn clients_find_the_new_primary_and_miss_only_what_was_not_replicated() {
    let mut waits = Vec::new();
    for seed in 0..30 {
        let mut world = formed(seed).with_clients(3);
        world.run_for(5000);
        let before = world.servers[0].data.clone();
        // Replicas fetch what is new every 100 ms.
        world.run_for(150);
        world.crash_server(0);
        let start = world.now;
        assert!(world.run_until(5000, |w| {
            w.clients.iter().all(|c| c.acked.is_some_and(|(at, by)| at > start && by != 0))
        }));
        waits.push(world.now - start);
        let new = world.primary_of(0).expect("it runs");
        assert!(before.len() > 50 && before.iter().all(|write| world.servers[new].data.contains(write)));
    }
    waits.sort_unstable();
    // A second of silence, the election, and a client's own pause.
    assert!(waits[waits.len() - 1] <= 2500, "{waits:?}");
}

/// A clock that leaps by hours stops the judging for a while, not the watching; the others go on meanwhile.
#[test]
fn a_clock_that_leaps_stops_nothing_for_long() {
    for leap in [3000, 3_600_000, 48 * 3_600_000] {
        let mut world = formed(19);
        world.leap(0, leap);
        world.run_for(500);
        assert_eq!(world.told("+tilt"), 1);
        world.crash_server(0);
        until_switched(&mut world, 0, 5000);
        assert!(world.run_until(40_000, |w| w.told("-tilt") == 1), "{:?}", world.events);
        world.start_server(0);
        assert!(world.run_until(60_000, |w| w.settled().is_ok()), "{:?}", world.settled());
        // It judges again like the others.
        let (old, others) = (world.settled().expect("just seen"), [1, 2]);
        world.crash_guard(others[0]);
        world.crash_server(old);
        until_switched(&mut world, old, 15_000);
    }
}

/// What is told before the first tick after a standstill decides nothing either.
#[test]
fn an_answer_that_waited_while_the_process_stood_still_decides_nothing() {
    let mut world = formed(20);
    let process = world.guard(0);
    world.pause(process);
    world.crash_server(0);
    assert!(world.run_until(5000, |w| [1, 2].into_iter().all(|i| w.primary_of(i) != Some(0))));
    world.run_for(5000);
    world.resume(process);
    world.run_for(20_000);
    let judged = |e: &&(u64, usize, String, String)| {
        e.1 == 0 && matches!(e.2.as_str(), "+sdown" | "+odown" | "+try-failover")
    };
    assert_eq!(world.events.iter().filter(judged).count(), 0, "{:?}", world.events);
    assert_ne!(world.primary_of(0), Some(0), "it follows what it hears");
}

/// Whoever is made to watch a primary anew keeps to the votes that it cast.
#[test]
fn a_vote_binds_also_after_remove_and_monitor() {
    let mut world = formed(21);
    world.crash_server(0);
    assert!(world.run_until(5000, |w| w.told("+elected-leader") == 1));
    let epoch = world.guards[0].state.as_ref().expect("it runs").current_epoch();
    let voter = world.events.iter().find(|e| e.2 == "+vote-for-leader").expect("votes were cast").1;
    world.unwatch(voter);
    world.watch_as(voter, (voter + 1) % 3, 2);
    let stranger = "b".repeat(40);
    let votes = world.told("+vote-for-leader");
    world.admin(voter, |s| s.hear_question("10.0.0.1", 6379, epoch, Some(&stranger)));
    assert_eq!(world.told("+vote-for-leader"), votes, "a second vote in epoch {epoch}");
}
