//! What a seed does to sentinels and servers, and what must be true when it stops.

use crate::world::{Fault, NAME, World};

/// Under faults; then all heals.
const FAULTY_MS: u64 = 90_000;
/// Two failover timeouts, an election, and the repairs that follow.
const HEALED_MS: u64 = 120_000;

pub fn run(seed: u64, fault: Fault, trace: bool) -> Result<World, String> {
    let guards = if seed.is_multiple_of(3) { 5 } else { 3 };
    let servers = 2 + (seed % 3) as usize;
    let mut world = World::formed(seed, servers, guards, guards / 2 + 1, fault, trace);
    world.hunt = seed.is_multiple_of(2);
    let end = world.now + FAULTY_MS;
    while world.now < end && world.checker.violation.is_none() {
        misfortune(&mut world);
        let pause = world.rng.below(4000);
        world.run_for(pause);
    }
    heal(&mut world);
    let settled = world.run_until(HEALED_MS, |w| w.settled().is_ok());
    if let Some(violation) = world.checker.violation.take() {
        return Err(violation);
    }
    if !settled {
        return Err(format!("not settled: {:?}", world.settled()));
    }
    Ok(world)
}

fn heal(world: &mut World) {
    world.heal_network();
    for i in 0..world.servers.len() {
        world.resume(i);
        world.start_server(i);
    }
    for i in 0..world.guards.len() {
        world.resume(world.guard(i));
        world.start_guard(i);
    }
}

fn misfortune(world: &mut World) {
    let server = world.rng.below(world.servers.len() as u64) as usize;
    let guard = world.rng.below(world.guards.len() as u64) as usize;
    match world.rng.below(16) {
        0..=2 => {
            // The primary, most of the time: that is where the work is.
            let victim = world.primary_of(guard).unwrap_or(server);
            world.crash_server(victim);
        }
        3..=4 => world.start_server(server),
        5 => world.crash_guard(guard),
        6..=7 => world.start_guard(guard),
        8 => world.pause(server),
        9 => {
            let process = world.guard(guard);
            world.pause(process);
        }
        10..=11 => {
            world.resume(server);
            let process = world.guard(guard);
            world.resume(process);
        }
        12 => {
            let (a, b) = (world.guard(guard), server);
            world.isolate(&[a, b]);
        }
        13..=14 => world.heal_network(),
        _ => {
            let primary = world.primary_of(guard);
            let timeout = 5000 + world.rng.below(10_000);
            world.admin(guard, |s| {
                // Neither may do harm at any moment.
                if timeout.is_multiple_of(2) {
                    s.reset(NAME.as_bytes());
                } else {
                    s.set(NAME, &["failover-timeout", &timeout.to_string()]).expect("a good value");
                }
            });
            world.trace(|| format!("*** an administrator at s{guard}, primary {primary:?}"));
        }
    }
}
