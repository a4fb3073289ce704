//! What a node does to its data by itself: eviction and expiry.

use std::sync::atomic::Ordering;

use super::{Executor, Host};
use crate::base::time::UnixMs;
use crate::config::choice::MaxmemoryPolicy;
use crate::keyspace::db::Expiring;
use crate::keyspace::{Db, Locked};

impl Executor {
    /// Evicts until memory is below its limit. False when nothing is left to evict.
    pub fn make_room(&mut self, host: &mut dyn Host, now: UnixMs) -> bool {
        let memory = &self.shared.memory;
        let limit = memory.limit.load(Ordering::Relaxed);
        if limit == 0 || (memory.used)() <= limit {
            return true;
        }
        if self.shared.is_replica.load(Ordering::Relaxed) {
            return false;
        }
        let policy = MaxmemoryPolicy::from_number(memory.policy.load(Ordering::Relaxed));
        let samples = memory.samples.load(Ordering::Relaxed) as usize;
        let shared = self.shared;
        self.effects.log_wanted = shared.keyspace.log.is_wanted();
        for _ in 0..memory.most.load(Ordering::Relaxed) {
            let evicted = shared.keyspace.evict_one(policy, &mut self.rng, samples, now, &mut self.effects);
            let Some(mut locked) = evicted else { return false };
            self.settle(host, now, &mut locked);
            drop(locked);
            if (shared.memory.used)() <= limit {
                return true;
            }
        }
        true
    }

    /// Deletes some keys whose time has come from one shard, as a primary does in the background.
    pub fn expire_shard(&mut self, host: &mut dyn Host, shard: usize, now: UnixMs, max: usize) -> usize {
        let shared = self.shared;
        let ks = &*shared.keyspace;
        let mut looked_at = 0;
        for db in 0..ks.databases() as u16 {
            if ks.volatile_len(db) + ks.timed_hashes(db) == 0 {
                continue;
            }
            let mut locked = ks.lock_slot(shard as u16);
            self.effects.log_wanted = ks.log.is_wanted();
            looked_at += Db::new(&mut locked, db, now, Expiring::Delete, &mut self.effects).expire_due(max);
            self.settle(host, now, &mut locked);
        }
        looked_at
    }

    /// Ends what the node did by itself, under its locks: each record is a unit of the log, events are published,
    /// and clients that waited for keys which went are told.
    fn settle(&mut self, host: &mut dyn Host, now: UnixMs, locked: &mut Locked<'_>) {
        self.publish_notices(host);
        if self.effects.has_records() {
            self.effects.append_to(&self.shared.keyspace.log, false);
        }
        if !self.effects.ready.is_empty() {
            self.serve_blocked(host, now, locked);
        }
    }
}
