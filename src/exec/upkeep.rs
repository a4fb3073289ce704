//! What a node does to its data by itself: eviction and expiry.

use std::sync::atomic::Ordering;

use super::{Executor, Host};
use crate::base::crc16::key_slot;
use crate::base::time::UnixMs;
use crate::command::gate;
use crate::config::choice::MaxmemoryPolicy;
use crate::keyspace::db::Expiring;
use crate::keyspace::evict::Eviction;
use crate::keyspace::{Db, Locked};

/// How memory compares with its limit after an attempt to evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Below the limit, or there is none to heed.
    Enough,
    /// Above it, but more can be evicted: the next attempt goes on.
    Soon,
    /// Above it, and nothing can be evicted.
    Lacking,
}

impl Executor {
    /// Evicts some keys if memory is above its limit.
    pub fn make_room(&mut self, host: &mut dyn Host, now: UnixMs) -> Room {
        let shared = self.shared;
        let memory = &shared.memory;
        let limit = memory.limit.load(Ordering::Relaxed);
        if limit == 0 || !shared.is_above(limit) || !self.may_evict() {
            return Room::Enough;
        }
        let policy = MaxmemoryPolicy::from_number(memory.policy.load(Ordering::Relaxed));
        let samples = memory.samples.load(Ordering::Relaxed) as usize;
        self.effects.log_wanted = shared.keyspace.log.is_wanted();
        let began = self.stopwatch.now();
        let mut room = Room::Soon;
        for _ in 0..memory.most.load(Ordering::Relaxed) {
            // Values that were evicted still count as used memory until another thread has freed them; to evict more
            // meanwhile would be too much.
            if (memory.being_freed)() > 0 {
                break;
            }
            let evicting_since = self.stopwatch.now();
            let mut locked = match shared.keyspace.evict_one(
                policy,
                &mut self.pool,
                &mut self.rng,
                samples,
                now,
                &mut self.effects,
            ) {
                Eviction::Done(locked) => locked,
                Eviction::Held => break,
                Eviction::Nothing => {
                    room = Room::Lacking;
                    break;
                }
            };
            host.did("eviction-del", self.stopwatch.now().wrapping_sub(evicting_since));
            self.settle(host, now, &mut locked);
            drop(locked);
            if !shared.is_above(limit) {
                room = Room::Enough;
                break;
            }
        }
        host.did("eviction-cycle", self.stopwatch.now().wrapping_sub(began));
        room
    }

    /// Nothing is evicted while data are loaded or writes are paused; nor on a replica that leaves it to its
    /// primary, whose gate does not know the limit.
    fn may_evict(&self) -> bool {
        let gate = self.shared.gate.load(Ordering::Relaxed);
        let held = gate::LOADING | gate::PAUSED_ALL | gate::PAUSED_WRITES;
        gate & gate::MEMORY_LIMIT != 0 && gate & held == 0
    }

    /// Deletes keys of one shard that clients of this replica made, and whose time has come. Nobody is told:
    /// the log is the primary's stream.
    pub fn expire_own(&mut self, host: &mut dyn Host, shard: usize, now: UnixMs) {
        let shared = self.shared;
        let Some(mut locked) = shared.keyspace.lock_shard_if_free(shard) else { return };
        self.effects.log_wanted = false;
        Db::new(&mut locked, 0, now, Expiring::Delete, &mut self.effects).expire_own();
        self.settle(host, now, &mut locked);
    }

    /// Deletes some keys whose time has come from one shard, as a primary does in the background. A shard that is
    /// held is left for the next time.
    pub fn expire_shard(&mut self, host: &mut dyn Host, shard: usize, now: UnixMs, max: usize) -> usize {
        let shared = self.shared;
        let ks = &*shared.keyspace;
        let mut looked_at = 0;
        for db in 0..ks.databases() as u16 {
            if ks.volatile_len(db) + ks.timed_hashes(db) == 0 {
                continue;
            }
            let Some(mut locked) = ks.lock_shard_if_free(shard) else { continue };
            self.effects.log_wanted = ks.log.is_wanted();
            looked_at += Db::new(&mut locked, db, now, Expiring::Delete, &mut self.effects).expire_due(max);
            self.settle(host, now, &mut locked);
        }
        looked_at
    }

    /// Deletes keys that a walk found dead. Those of shards that are held are left to active expiry.
    #[cold]
    pub(super) fn bury(&mut self, host: &mut dyn Host, now: UnixMs) {
        let shared = self.shared;
        for (db, key) in std::mem::take(&mut self.effects.dead) {
            let Ok(mut locked) = shared.keyspace.try_lock_slot(key_slot(&key), 0) else { continue };
            self.effects.log_wanted = shared.keyspace.log.is_wanted();
            Db::new(&mut locked, db, now, shared.expiring(), &mut self.effects).exists(&key);
            self.settle(host, now, &mut locked);
        }
    }

    /// Completes what the node did by itself, under its locks: events are published, each record becomes a unit of
    /// the log, and clients that were blocked on these keys are served.
    fn settle(&mut self, host: &mut dyn Host, now: UnixMs, locked: &mut Locked<'_>) {
        self.effects.writer = 0;
        self.publish_notices(host, false);
        if self.effects.has_records() {
            self.effects.append_to(&self.shared.keyspace.log, false);
        }
        if !self.effects.ready.is_empty() {
            self.serve_blocked(host, now, locked);
        }
    }
}
