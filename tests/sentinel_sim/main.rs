//! Sentinels under a seeded scheduler: the shipping state machine in virtual time, with primaries and replicas that
//! answer as servers do, over a network that breaks and on disks that lose what was not synced.
//!
//! `SENTINEL_SEEDS=A..B` replaces the seeds of the default run, `SIM_TRACE=1` prints what happens.
//!
//! - `world`: processes, network, disks, clocks
//! - `check`: what must hold at every moment
//! - `client`: clients that follow the primary, and what they were acknowledged
//! - `chaos`: what a seed does
//! - `scenarios`: scripted cases; `waits`: those of waits that are shorter than Redis's

mod chaos;
mod check;
mod client;
mod scenarios;
mod waits;
mod world;

use std::time::Instant;

#[test]
fn seeds() {
    let range = std::env::var("SENTINEL_SEEDS").unwrap_or_else(|_| "0..500".into());
    let (from, to) = range.split_once("..").expect("SENTINEL_SEEDS is A..B");
    let (from, to): (u64, u64) = (from.parse().expect("first seed"), to.parse().expect("end of seeds"));
    let trace = std::env::var("SIM_TRACE").is_ok();
    let (start, mut switches, mut votes, mut failed) = (Instant::now(), 0, 0, Vec::new());
    let (mut acknowledged, mut lost) = (0, 0);
    for seed in from..to {
        match chaos::run(seed, world::Fault::None, trace) {
            Ok(world) => {
                switches += world.checker.switches;
                votes += world.checker.votes_told();
                acknowledged += world.checker.acknowledged_count();
                lost += world.lost;
            }
            Err(violation) => {
                println!("seed {seed}: {violation}");
                failed.push(seed);
            }
        }
    }
    println!(
        "{} seeds in {:.1} s: {switches} failovers, {votes} votes, {acknowledged} writes acknowledged, {lost} of them \
         lost as replication allows",
        to - from,
        start.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    assert!(to - from < 50 || switches > to - from, "hardly a seed had a failover");
}

/// The checkers must find what they look for: a driver that lets a vote leave before it is on disk lets a sentinel
/// that crashes vote twice.
#[test]
fn a_vote_given_twice_is_found() {
    let found = (0..600).find_map(|seed| {
        let violation = chaos::run(seed, world::Fault::NoWaitForDisk, false).err()?;
        violation.contains("voted for").then_some((seed, violation))
    });
    let (seed, violation) = found.expect("the planted bug was not found");
    println!("found by seed {seed}: {violation}");
}
