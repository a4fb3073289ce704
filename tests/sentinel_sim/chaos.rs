//! What a seed does to sentinels, servers and clients, and what must be true when it stops.

use crate::world::{Fault, NAME, ORDINARY, RENAMED, World};

/// Under faults; then all heals.
const FAULTY_MS: u64 = 90_000;
/// Two failover timeouts, an election, and the repairs that follow.
const HEALED_MS: u64 = 120_000;
/// A client that was given a wrong address asks its next sentinel after a second of silence.
const CLIENTS_MS: u64 = 5000;
const CLIENTS: usize = 2;

pub fn run(seed: u64, fault: Fault, trace: bool) -> Result<World, String> {
    let guards = if seed.is_multiple_of(3) { 5 } else { 3 };
    let servers = 2 + (seed % 3) as usize;
    let mut world = World::formed(seed, servers, guards, guards / 2 + 1, fault, trace).with_clients(CLIENTS);
    world.hunt = seed.is_multiple_of(2);
    let end = world.now + FAULTY_MS;
    while world.now < end && world.checker.violation.is_none() {
        misfortune(&mut world);
        let pause = world.rng.below(4000);
        world.run_for(pause);
    }
    heal(&mut world);
    let outcome = recovers(&mut world);
    match world.checker.violation.take() {
        Some(violation) => Err(violation),
        None => outcome.map(|()| world),
    }
}

/// Everybody agrees for good, clients write to the primary that sentinels name, and it has what it must have.
fn recovers(world: &mut World) -> Result<(), String> {
    let end = world.now + HEALED_MS;
    while world.now < end && world.checker.violation.is_none() {
        if !world.run_until(end - world.now, |w| w.settled().is_ok()) {
            return Err(format!("not settled: {:?}", world.settled()));
        }
        let (primary, since) = (world.settled()?, world.now);
        let found = world.run_until(CLIENTS_MS, |w| w.all_write_to(primary, since));
        // A failover that was under way may have gone on.
        if world.settled() == Ok(primary) {
            if !found && world.checker.violation.is_none() {
                return Err(format!("not all clients found server {primary} within {CLIENTS_MS} ms"));
            }
            let data = std::mem::take(&mut world.servers[primary].data);
            world.lost = world.checker.nothing_else_is_lost(&data);
            return Ok(());
        }
    }
    Err(format!("not settled: {:?}", world.settled()))
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
    let newest = (0..world.guards.len()).max_by_key(|i| world.number_of(*i, "config-epoch"));
    let newest = newest.expect("there are sentinels");
    for i in 0..world.guards.len() {
        if world.number_of(i, "quorum").is_none() {
            world.watch_as(i, newest, world.guards.len() / 2 + 1);
        }
        world.admin(i, |s| s.set(NAME, &ORDINARY).expect("good values"));
    }
}

fn misfortune(world: &mut World) {
    let server = world.rng.below(world.servers.len() as u64) as usize;
    let guard = world.rng.below(world.guards.len() as u64) as usize;
    match world.rng.below(20) {
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
            let mut group = vec![world.guard(guard), server];
            if world.rng.chance(1, 2) {
                group.push(world.client(0));
            }
            world.isolate(&group);
        }
        13..=14 => world.heal_network(),
        15 => {
            // Seconds to hours, as after a machine was suspended.
            let ms = [3000, 60_000, 20 * 60_000, 3 * 3_600_000][world.rng.below(4) as usize];
            let leap = ms / 2 + world.rng.below(ms);
            world.leap(guard, leap);
        }
        16 => watch_anew(world, guard),
        17 => {
            world.trace(|| format!("*** SENTINEL RESET at s{guard}"));
            world.admin(guard, |s| s.reset(NAME.as_bytes()));
        }
        _ => set(world, guard),
    }
}

/// SENTINEL REMOVE, and MONITOR now or later. It forgets the newest configuration, so an administrator does it to one
/// sentinel at a time, while most know it without this one.
fn watch_anew(world: &mut World, guard: usize) {
    let newest = world.checker.newest_epoch();
    let knows = |i: &usize| *i != guard && world.number_of(*i, "config-epoch") == Some(newest);
    let others: Vec<usize> = (0..world.guards.len()).filter(knows).collect();
    if others.len() < world.guards.len() / 2 + 1 {
        return;
    }
    let other = others[world.rng.below(others.len() as u64) as usize];
    let was_watching = world.primary_of(guard).is_some();
    if was_watching {
        world.unwatch(guard);
    }
    if !was_watching || world.rng.chance(1, 2) {
        world.watch_as(guard, other, world.guards.len() / 2 + 1);
    }
}

/// SENTINEL SET of any option, to something that lets a group work.
fn set(world: &mut World, guard: usize) {
    let n = world.rng.below(10_000);
    let majority = world.guards.len() as u64 / 2 + 1;
    let quorum = majority + n % (world.guards.len() as u64 - majority + 1);
    let number = |least: u64| (least + n % 5000).to_string();
    let command = ["ping", "info", "publish", "slaveof", "multi", "exec", "config", "client"][n as usize % 8];
    let (option, values) = match world.rng.below(10) {
        0 => ("down-after-milliseconds", vec![number(500)]),
        1 => ("failover-timeout", vec![number(3000)]),
        2 => ("parallel-syncs", vec![(1 + n % 3).to_string()]),
        3 => ("quorum", vec![quorum.to_string()]),
        4 => ("master-reboot-down-after-period", vec![number(0)]),
        5 => ("notification-script", vec!["/opt/notify".to_owned()]),
        6 => ("client-reconfig-script", vec!["/opt/reconfig".to_owned()]),
        7 => ("auth-pass", vec![n.to_string()]),
        8 => ("auth-user", vec![n.to_string()]),
        _ => {
            let name = if n.is_multiple_of(2) { command.to_owned() } else { format!("{RENAMED}{command}") };
            (
                "rename-command",
                vec![command.to_owned(), name.to_ascii_uppercase().replace("RENAMED", "renamed")],
            )
        }
    };
    world.trace(|| format!("*** SENTINEL SET {option} {values:?} at s{guard}"));
    let words: Vec<&str> = std::iter::once(option).chain(values.iter().map(String::as_str)).collect();
    // Who watches nobody refuses it.
    if world.primary_of(guard).is_some() {
        world.admin(guard, |s| s.set(NAME, &words)).expect("it runs").expect("a good value");
    }
}
