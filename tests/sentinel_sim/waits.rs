//! Waits of Redis that are shorter here, one by one (the table of `keystead::sentinel`), each with what makes it safe;
//! and the waits of `failover-timeout`, which are as long.

use crate::scenarios::until_switched;
use crate::world::{Fault, NAME, World};

fn formed(seed: u64, servers: usize, guards: usize, quorum: usize) -> World {
    World::formed(seed, servers, guards, quorum, Fault::None, std::env::var("SIM_TRACE").is_ok())
}

/// Everybody gave its vote and nobody won: another election is called within a second, and not after twice
/// `failover-timeout`. Who leads is still a matter of a majority in an epoch of its own.
#[test]
fn a_split_election_is_called_again_at_once() {
    let mut splits = 0;
    for seed in 0..40 {
        let mut world = formed(seed, 3, 4, 2);
        world.crash_server(0);
        until_switched(&mut world, 0, 6000);
        splits += world.told("-failover-abort-not-elected");
    }
    assert!(splits > 0, "no election was split");
}

/// Whoever refuses connections has no vote to give: the others do not wait for it.
#[test]
fn a_split_election_does_not_wait_for_who_is_not_there() {
    let mut splits = 0;
    for seed in 0..40 {
        let mut world = formed(seed, 3, 3, 2);
        world.crash_guard(2);
        world.crash_server(0);
        until_switched(&mut world, 0, 6000);
        splits += world.told("-failover-abort-not-elected");
        // It comes back into a settled group, and cannot vote in what is over.
        world.start_guard(2);
        world.start_server(0);
        assert!(world.run_until(60_000, |w| w.settled().is_ok()), "{:?}", world.settled());
        assert_eq!(world.checker.violation, None);
    }
    assert!(splits > 0, "no election was split");
}

/// `failover-timeout`: a minority calls no elections that it cannot win more often than Redis, and those who stood against
/// one another do not do so for ever at the same moments.
#[test]
fn a_minority_waits_for_twice_the_timeout() {
    for seed in 0..10 {
        let mut world = formed(seed, 3, 5, 2);
        for i in 2..5 {
            world.crash_guard(i);
        }
        world.crash_server(0);
        world.run_for(65_000);
        let tries =
            |i| world.events.iter().filter(move |e| (e.1, e.2.as_str()) == (i, "+try-failover")).map(|e| e.0);
        let mut starts: Vec<u64> = tries(0).chain(tries(1)).collect();
        starts.sort_unstable();
        assert!(starts.len() >= 3, "{starts:?}");
        for i in 0..2 {
            let own: Vec<u64> = tries(i).collect();
            assert!(own.windows(2).all(|pair| pair[1] - pair[0] >= 20_000), "{own:?}");
        }
        assert!(starts[2] - starts[0] <= 21_200, "{starts:?}");
        assert_eq!(world.told("+elected-leader"), 0);
    }
}

/// A sentinel that stands still has no vote to give either, once it is found down.
#[test]
fn a_split_election_does_not_wait_for_who_stands_still() {
    for seed in 0..40 {
        let mut world = formed(seed, 3, 3, 2);
        let process = world.guard(2);
        world.pause(process);
        world.crash_server(0);
        let switched = |w: &World| [0, 1].into_iter().all(|i| w.primary_of(i) != Some(0));
        assert!(world.run_until(6000, switched), "{:?}", world.events);
    }
}

/// The promoted replica dies while the leader still moves the others to it: the leader votes in the next failover.
#[test]
fn a_promoted_replica_that_dies_at_once_is_replaced() {
    for seed in 0..20 {
        let mut world = formed(seed, 4, 3, 2);
        world.servers[2].priority = 10;
        world.run_for(25_000);
        world.crash_server(0);
        assert!(world.run_until(6000, |w| w.told("+promoted-slave") == 1));
        world.crash_server(2);
        // The one that led has no vote in the next before its time; the others have.
        let replaced = |w: &World| (0..3).all(|i| matches!(w.primary_of(i), Some(1 | 3)));
        assert!(world.run_until(30_000, replaced), "{:?}", world.events);
    }
}

/// There was nobody to promote. The lone replica is promoted as soon as it can be reached, with all that it had.
#[test]
fn a_lone_replica_is_promoted_as_soon_as_it_can_be_reached() {
    for seed in 0..20 {
        let mut world = formed(seed, 2, 3, 2).with_clients(2);
        world.run_for(5000);
        let cut_off: Vec<usize> = (0..world.guards.len()).map(|i| world.guard(i)).collect();
        for guard in &cut_off {
            world.block(*guard, 1);
            world.block(1, *guard);
        }
        world.run_for(3000);
        world.crash_server(0);
        world.run_for(15_000);
        assert!(world.told("-failover-abort-no-good-slave") > 0);
        assert_eq!(world.told("+promoted-slave"), 0);
        world.heal_network();
        until_switched(&mut world, 0, 8000);
        let since = world.now;
        assert!(world.run_until(5000, |w| w.all_write_to(1, since)), "clients write to it");
        let data = world.servers[1].data.clone();
        // What it had not got yet when the primary died is all that may be missing.
        let lost = world.checker.nothing_else_is_lost(&data);
        assert!(world.checker.violation.is_none() && lost < 10, "{:?}, {lost}", world.checker.violation);
    }
}

/// The chosen replica dies before anybody saw it promoted: another one is chosen at once, not after `failover-timeout`.
/// If it had become a primary already, it comes back as one that nobody named, and is made to follow.
#[test]
fn a_chosen_replica_that_dies_is_replaced_by_another() {
    let mut again = 0;
    for seed in 0..30 {
        let mut world = formed(seed, 3, 3, 2);
        world.servers[2].priority = 10;
        world.run_for(25_000);
        world.crash_server(0);
        while world.told("+failover-state-wait-promotion") == 0 {
            world.run_for(1);
        }
        world.run_for(seed % 5);
        world.crash_server(2);
        until_switched(&mut world, 0, 6000);
        // In some seeds the promotion was seen just before: that is another failover.
        assert!(world.run_until(60_000, |w| w.told("+promoted-slave") > 0 && w.primary_of(0) == Some(1)));
        again += usize::from(world.told("+selected-slave") == 2 && world.told("+elected-leader") == 1);
        world.start_server(2);
        world.start_server(0);
        assert!(world.run_until(120_000, |w| w.settled() == Ok(1)), "{:?}", world.settled());
        assert_eq!(world.checker.violation, None);
    }
    assert!(again > 0, "it was never chosen again within one failover");
}

/// With nobody else to choose, a chosen replica that restarts is waited for.
#[test]
fn a_lone_chosen_replica_that_restarts_is_promoted_all_the_same() {
    let mut world = formed(3, 2, 3, 2);
    world.crash_server(0);
    assert!(world.run_until(6000, |w| w.told("+failover-state-wait-promotion") == 1));
    world.run_for(4);
    world.crash_server(1);
    world.run_for(3000);
    world.start_server(1);
    until_switched(&mut world, 0, 30_000);
    assert_eq!(world.primary_of(0), Some(1));
}

/// A replica that was told of the new primary and is gone frees its place at once, not after ten seconds.
#[test]
fn a_replica_that_is_gone_gives_its_place_back() {
    let mut world = formed(4, 4, 1, 1);
    world.servers[1].priority = 10;
    world.run_for(25_000);
    // It does not reach its new primary.
    world.block(1, 2);
    world.block(2, 1);
    world.admin(0, |s| s.failover(NAME)).expect("it runs").expect("there is a replica");
    assert!(world.run_until(5000, |w| w.told("+slave-reconf-inprog") == 1), "{:?}", world.events);
    world.crash_server(2);
    assert!(world.run_until(2500, |w| w.told("+slave-reconf-sent") == 2), "{:?}", world.events);
    world.start_server(2);
    world.heal_network();
    assert!(world.run_until(60_000, |w| w.settled() == Ok(1)), "{:?}", world.settled());
}

/// A refusal is no reason to find anybody down sooner: who restarts refuses, too.
#[test]
fn a_refused_connection_does_not_shorten_down_after() {
    for seed in 0..10 {
        let mut world = formed(seed, 3, 3, 2);
        for i in 0..3 {
            world
                .admin(i, |s| s.set(NAME, &["down-after-milliseconds", "3000"]))
                .expect("it runs")
                .expect("good");
        }
        for _ in 0..5 {
            world.crash_server(0);
            world.run_for(1500);
            world.start_server(0);
            world.run_for(5000);
        }
        assert_eq!(world.told("+sdown"), 0, "{:?}", world.events);
        world.crash_server(0);
        let start = world.now;
        assert!(world.run_until(5000, |w| w.told("+sdown") > 0));
        // Counted from the last reply to a ping, which came within the second before.
        assert!((1900..3200).contains(&(world.now - start)), "{}", world.now - start);
    }
}

/// `failover-timeout`: a chosen replica that stands still is waited for so long, and nothing has changed then.
#[test]
fn a_promotion_that_does_not_come_is_given_up() {
    let mut world = formed(17, 2, 1, 1);
    world.admin(0, |s| s.failover(NAME)).expect("it runs").expect("there is a replica");
    world.pause(1);
    world.run_for(9900);
    assert_eq!(world.told("-failover-abort-slave-timeout"), 0);
    world.run_for(300);
    assert_eq!(world.told("-failover-abort-slave-timeout"), 1);
    world.resume(1);
    assert!(world.run_until(60_000, |w| w.settled() == Ok(0)), "{:?}", world.settled());
    assert_eq!(world.told("+promoted-slave"), 0);
}
