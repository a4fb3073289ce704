//! Eviction under `maxmemory`: the least recently used of a sample goes.

use std::sync::atomic::Ordering;

use super::db::Expiring;
use super::{Db, DbIndex, Effects, Keyspace, SHARDS, SLOTS_PER_SHARD, slot_at};
use crate::base::rng::Rng;
use crate::base::time::UnixMs;

impl Keyspace {
    /// Evicts one key of any database, chosen as the one idle for longest among `samples` random
    /// keys of a random shard, and logs its deletion. False when there is no key. The caller
    /// holds no lock.
    pub fn evict_one(&self, rng: &mut Rng, samples: usize, now: UnixMs, effects: &mut Effects) -> bool {
        let Some((db, shard)) = self.random_shard(rng) else { return false };
        let mut locked = self.lock_shard(shard);
        let mut db = Db::new(&mut locked, db, now, Expiring::Ignore, effects);
        let Some(victim) = db.idlest(shard, rng, samples) else { return true };
        db.remove(&victim);
        db.changed(&victim);
        db.record(&[&b"DEL"[..], &victim]);
        self.stats.evicted_keys.fetch_add(1, Ordering::Relaxed);
        db.effects.append_to(&self.log);
        true
    }

    /// A shard of a database that has keys, by their share of all keys.
    fn random_shard(&self, rng: &mut Rng) -> Option<(DbIndex, usize)> {
        let total: usize = (0..self.databases() as DbIndex).map(|db| self.len(db)).sum();
        if total == 0 {
            return None;
        }
        let mut nth = rng.below(total as u64) as usize;
        for db in 0..self.databases() as DbIndex {
            let Some(tables) = self.existing_tables(db) else { continue };
            for shard in 0..SHARDS {
                let keys = tables.shards[shard].keys.load(Ordering::Relaxed);
                if nth < keys {
                    return Some((db, shard));
                }
                nth -= keys;
            }
        }
        // Keys went meanwhile.
        Some((0, rng.below(SHARDS as u64) as usize))
    }
}

impl Db<'_, '_> {
    /// The key of `shard` that was idle for longest among some random ones.
    fn idlest(&self, shard: usize, rng: &mut Rng, samples: usize) -> Option<Vec<u8>> {
        let mut victim: Option<(u32, Vec<u8>)> = None;
        let start = rng.below(SLOTS_PER_SHARD as u64) as usize;
        let mut left = samples.max(1);
        // Each non-empty slot gives one sample; the round repeats until there are enough.
        for round in 0..samples.max(1) {
            for i in 0..SLOTS_PER_SHARD {
                let slot = slot_at(shard * SLOTS_PER_SHARD + (start + i) % SLOTS_PER_SHARD);
                let Some(entry) = self.table(slot).random(rng) else { continue };
                let idle = self.keyspace().idle_seconds(entry.access());
                if victim.as_ref().is_none_or(|(most, _)| idle > *most) {
                    victim = Some((idle, entry.key().to_vec()));
                }
                left -= 1;
                if left == 0 {
                    return victim.map(|v| v.1);
                }
            }
            if round == 0 && victim.is_none() {
                return None;
            }
        }
        victim.map(|v| v.1)
    }
}
