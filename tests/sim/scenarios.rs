//! Scripted cases: a cluster, an event, what must follow and how soon.

use keystead::cluster::{FailoverMode, NoKeys};

use crate::bystander::Bystander;
use crate::check::converged;
use crate::world::{Fault, World};

const TIMEOUT: u64 = 2000;

fn cluster(seed: u64, count: usize, primaries: usize) -> World {
    let trace = std::env::var("SIM_TRACE").is_ok();
    World::cluster(seed, count, primaries, TIMEOUT, Fault::None, trace)
}

fn serves(w: &World, node: usize) -> bool {
    w.nodes[node].serving
}

fn is_replica(w: &World, node: usize) -> bool {
    w.nodes[node].state.as_ref().is_some_and(keystead::cluster::ClusterState::is_replica)
}

/// kill -9 of a primary with one replica: the replica serves soon after the node timeout, and the old
/// primary comes back as its replica.
#[test]
fn a_lone_replica_takes_over_right_after_the_node_timeout() {
    for seed in 0..20 {
        let mut w = cluster(seed, 6, 3);
        w.run_for(5000);
        let killed = w.now;
        w.crash(0);
        assert!(w.run_until(10_000, |w| serves(w, 3)), "seed {seed}: nobody took over");
        let took = w.now - killed;
        assert!((TIMEOUT..TIMEOUT + 250).contains(&took), "seed {seed}: took {took} ms");
        w.restart_in(0, 1000, true);
        let back = |w: &World| is_replica(w, 0) && converged(w).is_ok();
        assert!(w.run_until(20_000, back), "seed {seed}: {:?}", converged(&w));
        assert_eq!(w.failovers, 1);
    }
}

/// Two primaries die at once: their replicas must not spend their votes on each other.
#[test]
fn replicas_of_two_primaries_that_fail_together_do_not_collide() {
    for seed in 0..20 {
        let mut w = cluster(seed, 10, 5);
        w.run_for(5000);
        let killed = w.now;
        w.crash(0);
        w.crash(1);
        assert!(w.run_until(10_000, |w| serves(w, 5) && serves(w, 6)), "seed {seed}: not both took over");
        let took = w.now - killed;
        assert!(took < TIMEOUT + 1500, "seed {seed}: took {took} ms");
    }
}

/// The one with more data wins, whatever the order of names.
#[test]
fn of_two_replicas_the_one_with_newer_data_takes_over() {
    for seed in 0..20 {
        let mut w = cluster(seed, 7, 3);
        // n3 and n6 replicate n0. n3 no longer gets its data.
        w.block(0, 3);
        w.block(3, 0);
        w.run_for(1000);
        w.crash(0);
        assert!(w.run_until(15_000, |w| serves(w, 3) || serves(w, 6)), "seed {seed}: nobody took over");
        assert!(serves(&w, 6), "seed {seed}: the replica with older data took over");
    }
}

/// A replica that restarted without data stands back for its sibling, also where any age is allowed.
#[test]
fn an_empty_replica_never_wins_while_another_has_data() {
    for seed in 0..20 {
        let mut w = cluster(seed, 7, 3);
        for node in &mut w.nodes {
            node.config.replica_validity_factor = 0;
        }
        for i in 0..7 {
            let config = w.nodes[i].config.clone();
            w.admin(i, |s, now| s.set_config(now, config));
        }
        w.run_for(2000);
        w.crash(0);
        w.crash(3);
        w.restart_in(3, 100, false);
        // The sibling with the data is away when the election could start.
        w.stop_for(6, 1900);
        assert!(w.run_until(30_000, |w| serves(w, 3) || serves(w, 6)), "seed {seed}: nobody took over");
        assert!(serves(&w, 6), "seed {seed}: the empty replica took over");
    }
}

/// CLUSTER FAILOVER without a failure: roles swap, and the replica has every write.
#[test]
fn a_manual_failover_swaps_roles_without_losing_a_write() {
    for seed in 0..20 {
        let mut w = cluster(seed, 6, 3);
        w.run_for(2000);
        w.admin(3, |s, now| s.failover(now, FailoverMode::Default)).expect("primary is up");
        assert!(w.run_until(5000, |w| serves(w, 3)), "seed {seed}: no takeover");
        assert!(w.nodes[3].data.offset >= w.nodes[0].data.offset, "seed {seed}: writes were lost");
        assert!(w.run_until(5000, |w| is_replica(w, 0) && converged(w).is_ok()), "seed {seed}");
        assert_eq!(w.nodes[0].data.paused_until, 0, "seed {seed}: clients stay paused");
    }
}

/// TAKEOVER asks nobody, FORCE needs no primary.
#[test]
fn a_forced_failover_needs_no_primary_and_a_takeover_no_majority() {
    let mut w = cluster(1, 6, 3);
    w.crash(0);
    w.run_for(500);
    let refused = w.admin(3, |s, now| s.failover(now, FailoverMode::Default));
    assert_eq!(refused, Err("ERR Master is down or failed, please use CLUSTER FAILOVER FORCE".into()));
    w.admin(3, |s, now| s.failover(now, FailoverMode::Force)).expect("a replica");
    assert!(w.run_until(1000, |w| serves(w, 3)), "not elected");
    for node in [1, 2, 4] {
        w.crash(node);
    }
    w.admin(5, |s, now| s.failover(now, FailoverMode::Takeover)).expect("a replica");
    assert!(!is_replica(&w, 5));
}

/// A minority stops serving within the node timeout and starts again after it has heard of the others.
#[test]
fn a_primary_in_a_minority_stops_serving() {
    for seed in 0..10 {
        let mut w = cluster(seed, 6, 3);
        // n0 alone on one side.
        for peer in 1..6 {
            w.block(0, peer);
            w.block(peer, 0);
        }
        w.run_for(TIMEOUT + TIMEOUT / 2 + 500);
        assert!(!serves(&w, 0), "seed {seed}: the minority still serves");
        assert!(w.run_until(5000, |w| serves(w, 3)), "seed {seed}: the majority does not serve");
        w.heal();
        assert!(w.run_until(20_000, |w| is_replica(w, 0) && converged(w).is_ok()), "seed {seed}");
    }
}

/// A primary that lost its only replica gets one of a primary that has two.
#[test]
fn a_spare_replica_moves_to_an_orphaned_primary() {
    let mut w = cluster(4, 7, 3);
    w.crash(4);
    let n1 = w.nodes[1].ip.clone();
    let moved = |w: &World| [3, 6].iter().any(|n| w.nodes[*n].follows.as_ref() == Some(&n1));
    assert!(w.run_until(30_000, moved), "no replica moved");
    let still = [3, 6].iter().filter(|n| w.nodes[**n].follows.as_ref() == Some(&w.nodes[0].ip)).count();
    assert_eq!(still, 1, "n0 keeps one");
}

/// A real node must never see a replica and its primary in different shards, whatever happens to ours.
#[test]
fn third_nodes_hear_of_a_shard_at_once() {
    for seed in 0..20 {
        let mut w = World::new(seed, 7, TIMEOUT, Fault::None, std::env::var("SIM_TRACE").is_ok());
        w.bystanders = (0..7).map(|n| (n, Bystander::default())).collect();
        w.form(3);
        let late = |w: &World| w.bystanders.values().map(|b| b.longest_ms).max();
        assert!(late(&w) <= Some(HEARD_MS), "seed {seed}: {:?} ms after REPLICATE", late(&w));
        w.admin(3, |s, now| s.failover(now, FailoverMode::Default)).expect("primary is up");
        assert!(w.run_until(5000, |w| serves(w, 3)), "seed {seed}: no takeover");
        w.admin(4, |s, now| s.failover(now, FailoverMode::Takeover)).expect("a replica");
        w.run_for(5000);
        w.crash(2);
        assert!(w.run_until(10_000, |w| serves(w, 5)), "seed {seed}: nobody took over");
        w.restart_in(2, 1000, true);
        assert!(w.run_until(20_000, |w| converged(w).is_ok()), "seed {seed}: {:?}", converged(&w));
        // And one that goes to another primary.
        let other = w.nodes[5].id.expect("named");
        w.admin(6, |s, now| s.replicate(now, &other, &NoKeys)).expect("a replica");
        w.run_for(100);
        assert_eq!(converged(&w), Ok(()), "seed {seed}: not all know of it");
        assert!(late(&w) <= Some(HEARD_MS), "seed {seed}: {:?} ms", late(&w));
        assert!(w.bystanders.values().all(|b| b.replicas > 20), "seed {seed}: nothing was heard");
        assert_eq!(w.checker.violation, None, "seed {seed}");
    }
}

/// A packet's way and a write of nodes.conf.
const HEARD_MS: u64 = 10;

/// The whole cluster loses power: it comes back with the same roles.
#[test]
fn a_cluster_that_restarts_as_a_whole_comes_back() {
    for seed in 0..10 {
        let mut w = cluster(seed, 6, 3);
        w.run_for(1000);
        for node in 0..6 {
            w.crash(node);
            w.restart_in(node, 500, true);
        }
        w.run_for(1000);
        assert!(w.run_until(20_000, |w| converged(w).is_ok()), "seed {seed}: {:?}", converged(&w));
        assert_eq!(w.failovers, 0, "seed {seed}");
    }
}
