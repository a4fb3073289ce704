//! A worker's part of active expiry: it goes round its share of the shards, a few at a time, and for longer while many
//! keys die.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Worker;
use crate::base::time::UnixMs;
use crate::exec::Host;
use crate::keyspace::SHARDS;
use crate::server::node::expiry::Round;
use crate::server::node::host::NodeHost;
use crate::server::process::clock::now_ns;

/// How often a worker looks for dead keys, and at how many shards. One that slept for longer looks at more.
const PERIOD_MS: UnixMs = 20;
const SHARDS_PER_PERIOD: usize = 4;
/// So many keys of a shard are deleted in one go.
const KEYS_AT_ONCE: usize = 200;
/// While more than that expire, it goes on for so long at a time (which is what a client waits for at most), ...
const SLICE_NS: u64 = 1_000_000;
/// ... and then serves clients, so that it takes this share of its time, and more for each step of
/// `active-expire-effort` above 1. In percent; about what the slow and the fast cycles of Redis take together.
const SHARE: u64 = 50;
const SHARE_A_STEP: u64 = 2;
/// Nothing else happening, a worker sleeps for so long.
const SLEEP_MS: UnixMs = 100;

/// Where a worker is on its rounds.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// When it goes on, as `Node::steady_ms` tells time.
    pub next_ms: UnixMs,
    /// When it was here last, by the same clock.
    last_ms: UnixMs,
    /// The shard that comes next.
    shard: usize,
    /// So many shards are still to be visited because keys died in large numbers; 0: no more keys die than usual.
    behind: usize,
}

impl Expiry {
    pub(super) fn of_worker(index: usize) -> Self {
        Self { shard: index, ..Self::default() }
    }

    /// How long its worker may sleep, `now` being by the same clock.
    pub(super) fn idle_timeout(&self, now: UnixMs) -> Duration {
        let wanted = if self.behind > 0 { self.next_ms - now } else { SLEEP_MS };
        Duration::from_millis(wanted.clamp(1, SLEEP_MS) as u64)
    }
}

impl Worker {
    /// Deletes what is dead at `now`, a while at a time. `steady_ms`: as `Node::steady_ms`.
    pub(super) fn expire_some(&mut self, now: UnixMs, steady_ms: UnixMs) {
        self.expiry.next_ms = steady_ms + PERIOD_MS;
        let slept = steady_ms - std::mem::replace(&mut self.expiry.last_ms, steady_ms);
        let slept = slept.clamp(PERIOD_MS, SLEEP_MS);
        if !self.node.active_expire() {
            return;
        }
        let workers = self.node.life.threads.workers.get().map_or(1, Vec::len);
        let turn = SHARDS.div_ceil(workers);
        let due = (SHARDS_PER_PERIOD * slept as usize / PERIOD_MS as usize).min(turn);
        let (began, mut nanos, mut dead, mut visited) = (now_ns(), 0, 0, 0);
        while nanos < SLICE_NS && (visited < due || self.expiry.behind > 0) {
            let found = self.expire_next_shard(workers, now);
            let behind = if found >= KEYS_AT_ONCE { turn } else { self.expiry.behind.saturating_sub(1) };
            self.expiry.behind = behind;
            (dead, visited) = (dead + found, visited + 1);
            nanos = now_ns().wrapping_sub(began);
        }
        let capped = self.expiry.behind > 0;
        if capped {
            let share = SHARE + SHARE_A_STEP * (u64::from(self.node.config.load().active_expire_effort) - 1);
            let pause_ms = (nanos / share * (100 - share)).div_ceil(1_000_000);
            self.expiry.next_ms = steady_ms + (nanos / 1_000_000 + pause_ms) as UnixMs;
        }
        NodeHost::new(&self.node).did("expire-cycle", nanos);
        let keyspace = &self.node.shared.keyspace;
        let all: usize = (0..keyspace.databases() as u16).map(|db| keyspace.volatile_len(db)).sum();
        let volatile = all * visited.min(SHARDS) / SHARDS + dead;
        self.node.records.counters.expiry.note(Round { nanos, dead, volatile, capped });
    }

    /// Looks at the shard that comes next; how many keys it has found dead.
    fn expire_next_shard(&mut self, workers: usize, now: UnixMs) -> usize {
        let shard = self.expiry.shard;
        self.expiry.shard = if shard + workers < SHARDS { shard + workers } else { self.index % SHARDS };
        let host = &mut NodeHost::new(&self.node);
        if self.node.shared.is_replica.load(Ordering::Relaxed) {
            self.executor.expire_own(host, shard, now);
            return 0;
        }
        self.executor.expire_shard(host, shard, now, KEYS_AT_ONCE)
    }
}
