//! What a node does to its data by itself: eviction and expiry.

use std::sync::atomic::Ordering;

use super::{Executor, Host};
use crate::base::time::UnixMs;
use crate::config::choice::MaxmemoryPolicy;
use crate::keyspace::Db;
use crate::keyspace::db::Expiring;

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
        let dirty = self.effects.dirty;
        for _ in 0..memory.most.load(Ordering::Relaxed) {
            if !shared.keyspace.evict_one(policy, &mut self.rng, samples, now, &mut self.effects) {
                return false;
            }
            self.effects.dirty = dirty;
            self.serve_unlocked(host, now);
            if (shared.memory.used)() <= limit {
                return true;
            }
        }
        true
    }

    /// Deletes some keys whose time has come from one shard, as a primary does in the background. A shard
    /// that somebody holds has its turn when it comes up again.
    pub fn expire_shard(&mut self, host: &mut dyn Host, shard: usize, now: UnixMs, max: usize) -> usize {
        let shared = self.shared;
        let ks = &*shared.keyspace;
        let mut looked_at = 0;
        for db in 0..ks.databases() as u16 {
            if ks.volatile_len(db) == 0 {
                continue;
            }
            let Some(mut locked) = ks.lock_shard_if_free(shard) else { continue };
            self.effects.log_wanted = ks.log.is_wanted();
            looked_at += Db::new(&mut locked, db, now, Expiring::Delete, &mut self.effects).expire_due(max);
            if self.effects.has_records() {
                self.effects.append_to(&ks.log, false);
            }
            drop(locked);
            self.serve_unlocked(host, now);
        }
        looked_at
    }
}
