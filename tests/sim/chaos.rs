//! What a seed does: forms a cluster, breaks it in every way for a while, heals it, and demands that it
//! becomes whole.

use std::fmt;

use keystead::base::rng::Rng;
use keystead::cluster::FailoverMode;

use crate::check::converged;
use crate::world::{Fault, World};

const NODE_TIMEOUT_MS: u64 = 1000;
const CHAOS_MS: u64 = 25_000;
/// A failed primary that nobody replaced is taken back after two timeouts, an election is repeated after
/// as many, rejoining takes up to five seconds: several rounds of all that.
const HEAL_MS: u64 = 60_000;

/// What happened in runs.
#[derive(Default, Clone, Copy)]
pub struct Totals {
    pub failovers: u64,
    pub crashes: u64,
    pub moves: u64,
    /// Slots that nobody owned after a move was disturbed.
    pub orphans: u64,
    pub steps: u64,
    pub virtual_ms: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.failovers += other.failovers;
        self.crashes += other.crashes;
        self.moves += other.moves;
        self.orphans += other.orphans;
        self.steps += other.steps;
        self.virtual_ms += other.virtual_ms;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.virtual_ms / 60_000;
        write!(
            f,
            "{minutes} virtual minutes, {} steps, {} crashes, {} promotions, {} slots moved, {} to be fixed",
            self.steps, self.crashes, self.failovers, self.moves, self.orphans
        )
    }
}

/// Runs one seed. `Err` says what was violated.
pub fn run(seed: u64, nodes: Option<usize>, fault: Fault, trace: bool) -> Result<Totals, String> {
    let mut dice = Rng::new(seed ^ 0x5eed);
    let count = nodes.unwrap_or(6 + dice.below(7) as usize);
    let primaries = (3 + dice.below(3) as usize).min(count / 2).max(1);
    let mut w = World::cluster(seed, count, primaries, NODE_TIMEOUT_MS, fault, trace);
    w.latency_ms = [1, 5, 40][dice.below(3) as usize];
    w.sync_ms = [1, 20, 200][dice.below(3) as usize];
    w.hunt = dice.chance(1, 3);
    if fault == Fault::NoWaitForDisk {
        // The window of that mistake is as long as a sync.
        w.hunt = true;
        w.sync_ms = 200;
    }
    // In half of the seeds administrators move slots; then epochs come from them, too, and two nodes may
    // have the same one for a moment.
    let moving = dice.chance(1, 2) && fault == Fault::None;
    w.checker.epochs_collide = moving;
    let mut crashes = 0;
    let start = w.now;
    while w.now < start + CHAOS_MS && w.checker.violation.is_none() {
        w.run_for(dice.below(1500));
        if moving {
            w.begin_move();
        }
        crashes += u64::from(trouble(&mut w, &mut dice));
    }
    w.hunt = false;
    w.heal();
    w.latency_ms = 5;
    w.sync_ms = 5;
    if moving {
        // Moves under way end, and the nodes get a moment to learn of each other what happened.
        w.run_for(HEAL_MS / 4);
        w.settle_open_slots();
    }
    let mut whole = w.run_until_looking(200, HEAL_MS, |w| converged(w).is_ok());
    let mut orphans = 0;
    if moving && !whole {
        orphans = w.adopt_orphan_slots();
        whole = orphans > 0 && w.run_until_looking(200, HEAL_MS, |w| converged(w).is_ok());
    }
    if let Some(violation) = w.checker.violation {
        return Err(violation);
    }
    if !whole {
        let text = converged(&w).err().unwrap_or_default();
        return Err(format!("not whole {} s after the end of all faults: {text}", HEAL_MS / 1000));
    }
    let virtual_ms = w.now - start;
    Ok(Totals { failovers: w.failovers, crashes, moves: w.moves, orphans, steps: w.steps, virtual_ms })
}

/// One fault. True for a crash.
fn trouble(w: &mut World, dice: &mut Rng) -> bool {
    let count = w.nodes.len() as u64;
    let node = dice.below(count) as usize;
    let other = dice.below(count) as usize;
    let ms = 200 + dice.below(6000);
    match dice.below(12) {
        0..=3 => {
            // Short outages too: a node that is back before it was missed remembers its votes.
            let ms = if dice.chance(1, 2) { dice.below(300) } else { ms };
            w.crash(node);
            w.restart_in(node, ms, dice.chance(3, 4));
            return true;
        }
        4 => w.stop_for(node, ms),
        5 => {
            w.trace(|| format!("*** n{node} no longer reaches n{other} for {ms} ms"));
            w.block_for(node, other, ms);
        }
        6 => {
            w.trace(|| format!("*** n{node} is cut off for {ms} ms"));
            for peer in (0..w.nodes.len()).filter(|p| *p != node) {
                w.block_for(node, peer, ms);
                w.block_for(peer, node, ms);
            }
        }
        7 => split(w, dice, ms),
        8 | 9 => {
            for _ in 0..=dice.below(5) {
                w.break_a_link();
            }
        }
        10 => {
            let mode = if dice.chance(1, 2) { FailoverMode::Default } else { FailoverMode::Force };
            if w.nodes[node].state.is_some() && !w.nodes[node].stopped {
                let result = w.admin(node, |s, now| s.failover(now, mode));
                w.trace(|| format!("*** CLUSTER FAILOVER on n{node} ({mode:?}): {result:?}"));
            }
        }
        _ => w.latency_ms = [1, 5, 40, 300][dice.below(4) as usize],
    }
    false
}

/// A partition into two sides.
fn split(w: &mut World, dice: &mut Rng, ms: u64) {
    let side: Vec<bool> = w.nodes.iter().map(|_| dice.chance(1, 2)).collect();
    w.trace(|| format!("*** partition {side:?} for {ms} ms"));
    for a in 0..side.len() {
        for b in 0..side.len() {
            if side[a] != side[b] {
                w.block_for(a, b, ms);
            }
        }
    }
}
