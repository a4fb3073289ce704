//! Eviction under `maxmemory`: some keys of a random shard become candidates, and the candidate that the policy values
//! least is deleted. [`Pool`] keeps the others for the next time.
//!
//! Keys of any kind are drawn from the tables, keys with an expiry from the index by time. The one
//! that ends soonest needs no drawing: it stands first in that index.

use std::sync::atomic::Ordering;

use super::db::Expiring;
use super::entry::EntryRef;
use super::expiry::{Reference, tick_of};
use super::lazy::Cause;
use super::usage::Usage;
use super::{Db, DbIndex, Effects, Keyspace, Locked, SHARDS, SLOTS_PER_SHARD, event, shard_of, slot_at};
use crate::base::crc16::key_slot;
use crate::base::rng::Rng;
use crate::base::time::UnixMs;
use crate::config::choice::MaxmemoryPolicy;
use pool::Candidate;

mod pool;

pub use pool::Pool;

/// How many shards are tried for one that nobody holds.
const SHARDS_TRIED: usize = 16;

/// What became of an attempt to evict a key.
#[derive(Debug)]
pub enum Eviction<'k> {
    /// A key is gone. Its shard is locked until the record of that is in the log.
    Done(Locked<'k>),
    /// The policy lets no key go.
    Nothing,
    /// The shards that were tried are held. Nobody waits for them: whoever holds all shards, for long, would hold up
    /// every worker.
    Held,
}

impl Keyspace {
    /// Evicts one key of any database as `policy` has it, chosen among `samples` keys of a random shard and those in
    /// `pool`, and records its deletion. The caller must hold no lock.
    pub fn evict_one(
        &self,
        policy: MaxmemoryPolicy,
        pool: &mut Pool,
        rng: &mut Rng,
        samples: usize,
        now: UnixMs,
        effects: &mut Effects,
    ) -> Eviction<'_> {
        if policy == MaxmemoryPolicy::NoEviction {
            return Eviction::Nothing;
        }
        pool.rank_by(policy);
        for _ in 0..SHARDS_TRIED {
            let Some((db, shard)) = self.random_shard(rng, policy.is_volatile()) else {
                return Eviction::Nothing;
            };
            if let Some(mut locked) = self.lock_shard_if_free(shard) {
                let mut db = Db::new(&mut locked, db, now, Expiring::Ignore, effects);
                db.draw_candidates(policy, shard, rng, samples, pool);
            }
            while let Some(candidate) = pool.take() {
                let shard = shard_of(key_slot(&candidate.key));
                let Some(mut locked) = self.lock_shard_if_free(shard) else { continue };
                if Db::new(&mut locked, candidate.db, now, Expiring::Ignore, effects)
                    .evict(policy, &candidate)
                {
                    return Eviction::Done(locked);
                }
            }
        }
        Eviction::Held
    }

    /// A shard of a database that has keys (with an expiry, if `volatile`), by their share of all those.
    fn random_shard(&self, rng: &mut Rng, volatile: bool) -> Option<(DbIndex, usize)> {
        let databases = 0..self.databases() as DbIndex;
        let total: usize =
            databases.clone().map(|db| if volatile { self.volatile_len(db) } else { self.len(db) }).sum();
        if total == 0 {
            return None;
        }
        let mut nth = rng.below(total as u64) as usize;
        for db in databases {
            let Some(tables) = self.existing_tables(db) else { continue };
            for (shard, counts) in tables.shards.iter().enumerate() {
                let counter = if volatile { &counts.volatile } else { &counts.keys };
                let keys = counter.load(Ordering::Relaxed);
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

/// How little `policy` values an entry, among those that may go: the higher, the sooner it goes.
fn rank(policy: MaxmemoryPolicy, usage: &Usage, entry: EntryRef<'_>) -> Option<u64> {
    let expire = entry.expire();
    if policy.is_volatile() && expire.is_none() {
        return None;
    }
    Some(match policy {
        MaxmemoryPolicy::VolatileTtl => u64::MAX - expire.unwrap_or(UnixMs::MAX).max(0).unsigned_abs(),
        _ if policy.is_lfu() => u64::from(255 - usage.frequency(entry.access())),
        _ if policy.is_lru() => u64::from(usage.idle_seconds(entry.access())),
        _ => 0,
    })
}

impl Db<'_, '_> {
    /// Offers some keys of `shard` to the pool.
    fn draw_candidates(
        &mut self,
        policy: MaxmemoryPolicy,
        shard: usize,
        rng: &mut Rng,
        samples: usize,
        pool: &mut Pool,
    ) {
        let usage = &self.keyspace().usage;
        let index = self.index();
        let mut offer = |entry: EntryRef<'_>| {
            if let Some(rank) = rank(policy, usage, entry) {
                pool.offer(rank, index, entry.key());
            }
        };
        let samples = if policy.is_lru() || policy.is_lfu() { samples.max(1) } else { 1 };
        if policy == MaxmemoryPolicy::VolatileTtl {
            if let Some(key) = self.soonest_to_end(shard)
                && let Some(entry) = self.view(&key)
            {
                offer(entry);
            }
        } else if policy.is_volatile() {
            self.draw_volatile(shard, rng, samples, &mut offer);
        } else {
            self.draw_any(shard, rng, samples, &mut offer);
        }
    }

    /// Deletes a key, and records that; false if it is gone or was used since it became a candidate.
    fn evict(&mut self, policy: MaxmemoryPolicy, candidate: &Candidate) -> bool {
        let key = &candidate.key;
        let rank = self.view(key).and_then(|entry| rank(policy, &self.keyspace().usage, entry));
        if rank.is_none_or(|rank| rank < candidate.rank) {
            return false;
        }
        self.delete(key, Cause::Eviction);
        self.changed(key, event::EVICTED);
        self.record_deletion(Cause::Eviction, key);
        self.keyspace().stats.evicted_keys.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Shows some random entries of a shard, or all if there are no more. Each is as likely as any other, and as likely
    /// to be the first that is shown: where slots have few keys, drawing slots would show a key that is alone in its slot
    /// far more often, and a cache of 7,000 keys hit two reads in a hundred less.
    fn draw_any(&self, shard: usize, rng: &mut Rng, samples: usize, consider: &mut impl FnMut(EntryRef<'_>)) {
        let table = |i: usize| self.table(slot_at(shard * SLOTS_PER_SHARD + i));
        // How many keys the slots have up to each of them.
        let (mut sums, mut keys) = ([0; SLOTS_PER_SHARD], 0);
        for (i, sum) in sums.iter_mut().enumerate() {
            keys += table(i).len();
            *sum = keys;
        }
        if keys <= samples {
            (0..SLOTS_PER_SHARD).for_each(|i| table(i).for_each(&mut *consider));
            return;
        }
        for _ in 0..samples {
            let nth = rng.below(keys as u64) as usize;
            table(sums.partition_point(|sum| *sum <= nth)).random(rng).map(&mut *consider);
        }
    }

    /// Shows some random entries of a shard that have an expiry. When drawing meets none, since most
    /// references are stale, the first in time is shown.
    fn draw_volatile(
        &mut self,
        shard: usize,
        rng: &mut Rng,
        samples: usize,
        consider: &mut impl FnMut(EntryRef<'_>),
    ) {
        let mut left = samples;
        for _ in 0..samples * 4 {
            let Some((_, reference)) = self.expiry_index(shard).random(rng) else { return };
            if let Some(entry) = self.volatile_entry(shard, reference) {
                consider(entry);
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
        if left == samples
            && let Some(key) = self.soonest_to_end(shard)
            && let Some(entry) = self.view(&key)
        {
            consider(entry);
        }
    }

    /// The entry with an expiry that a reference stands for.
    fn volatile_entry(&self, shard: usize, reference: Reference) -> Option<EntryRef<'_>> {
        let table = self.table(slot_at(shard * SLOTS_PER_SHARD + reference.slot_in_shard()));
        Some(table.get(table.find_by(reference.hash(), |e| e.expire().is_some())?))
    }

    /// The key of `shard` whose time comes first, to the tick of the index. References that stand before
    /// their key's time are put right on the way.
    fn soonest_to_end(&mut self, shard: usize) -> Option<Vec<u8>> {
        while let Some((tick, reference)) = self.expiry_index(shard).first() {
            let table = self.table(slot_at(shard * SLOTS_PER_SHARD + reference.slot_in_shard()));
            // Several keys may look the same to a reference.
            let due = |e: EntryRef<'_>| e.expire().is_some_and(|at| tick_of(at) <= tick);
            if let Some(place) = table.find_by(reference.hash(), due) {
                return Some(table.get(place).key().to_vec());
            }
            let later = self.volatile_entry(shard, reference).and_then(EntryRef::expire);
            let index = self.expiry_index(shard);
            index.forget_first();
            if let Some(at) = later {
                index.file(at, reference);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::db::SetExpire;

    /// In one slot, a hundred keys that stay and a hundred that end, the later the higher their number;
    /// the ones below ten of each kind were used most recently and most often.
    fn filled(policy: MaxmemoryPolicy) -> Keyspace {
        let ks = Keyspace::new(1, Box::new(drop));
        ks.usage.configure(policy, true, 0, 1);
        ks.usage.set_clock(1_000_000);
        let mut effects = Effects::default();
        let mut locked = ks.lock_all();
        let mut db = Db::new(&mut locked, 0, 0, Expiring::Delete, &mut effects);
        for i in 0..100 {
            db.set_string(format!("{{t}}stays:{i}").as_bytes(), b"v", SetExpire::Clear);
            db.set_string(format!("{{t}}ends:{i}").as_bytes(), b"v", SetExpire::At(1_000_000 + i * 1000));
        }
        ks.usage.set_clock(1_000_010);
        let mut db = Db::new(&mut locked, 0, 0, Expiring::Delete, &mut effects);
        for i in 0..200 {
            for kind in ["stays", "ends"] {
                assert!(db.read(format!("{{t}}{kind}:{}", i % 10).as_bytes()).is_some());
            }
        }
        drop(locked);
        ks
    }

    fn evicts(ks: &Keyspace, policy: MaxmemoryPolicy, rng: &mut Rng, effects: &mut Effects) -> bool {
        matches!(ks.evict_one(policy, &mut Pool::default(), rng, 1000, 0, effects), Eviction::Done(_))
    }

    /// Evicts `n` keys one by one; returns those that are left.
    fn left_after(policy: MaxmemoryPolicy, n: usize) -> Vec<String> {
        let ks = filled(policy);
        let (mut rng, mut effects) = (Rng::new(3), Effects::default());
        for _ in 0..n {
            assert!(evicts(&ks, policy, &mut rng, &mut effects));
        }
        let mut keys = Vec::new();
        let mut locked = ks.lock_all();
        Db::new(&mut locked, 0, 0, Expiring::Ignore, &mut effects)
            .for_each(|e| keys.push(String::from_utf8_lossy(e.key()).into_owned()));
        assert_eq!(keys.len(), 200 - n);
        keys
    }

    fn count(keys: &[String], kind: &str, numbers: std::ops::Range<u32>) -> usize {
        numbers.filter(|i| keys.contains(&format!("{{t}}{kind}:{i}"))).count()
    }

    #[test]
    fn each_policy_spares_what_it_must() {
        use MaxmemoryPolicy::*;
        for policy in [VolatileLru, VolatileLfu, VolatileRandom, VolatileTtl] {
            assert_eq!(count(&left_after(policy, 60), "stays", 0..100), 100, "{policy:?}");
        }
        for policy in [AllkeysLru, AllkeysLfu] {
            let left = left_after(policy, 150);
            assert_eq!((count(&left, "stays", 0..10), count(&left, "ends", 0..10)), (10, 10), "{policy:?}");
        }
        for policy in [VolatileLru, VolatileLfu] {
            assert_eq!(count(&left_after(policy, 60), "ends", 0..10), 10, "{policy:?}");
        }
        let left = left_after(AllkeysRandom, 100);
        assert!(count(&left, "stays", 0..100) > 20 && count(&left, "ends", 0..100) > 20);
    }

    #[test]
    fn the_ones_that_end_soonest_go_first() {
        let left = left_after(MaxmemoryPolicy::VolatileTtl, 50);
        assert_eq!((count(&left, "ends", 0..50), count(&left, "ends", 50..100)), (0, 50));
    }

    #[test]
    fn a_policy_without_a_victim_says_so() {
        let ks = filled(MaxmemoryPolicy::VolatileRandom);
        let (mut rng, mut effects) = (Rng::new(3), Effects::default());
        for _ in 0..100 {
            assert!(evicts(&ks, MaxmemoryPolicy::VolatileRandom, &mut rng, &mut effects));
        }
        assert_eq!((ks.len(0), ks.volatile_len(0)), (100, 0));
        for policy in [MaxmemoryPolicy::VolatileRandom, MaxmemoryPolicy::NoEviction] {
            let eviction = ks.evict_one(policy, &mut Pool::default(), &mut rng, 5, 0, &mut effects);
            assert!(matches!(eviction, Eviction::Nothing), "{eviction:?}");
        }
        assert!(evicts(&ks, MaxmemoryPolicy::AllkeysRandom, &mut rng, &mut effects));
    }

    /// One draw of five shows none of the older half in one of 32 cases.
    #[test]
    fn what_earlier_draws_have_shown_is_not_forgotten() {
        let ks = Keyspace::new(1, Box::new(drop));
        ks.usage.configure(MaxmemoryPolicy::AllkeysLru, true, 0, 1);
        let (mut rng, mut effects, mut pool) = (Rng::new(3), Effects::default(), Pool::default());
        let name = |n: u32| format!("key:{n}").into_bytes();
        let mut locked = ks.lock_all();
        for n in 0..4000 {
            ks.usage.set_clock(1_000_000 + u64::from(n));
            Db::new(&mut locked, 0, 0, Expiring::Delete, &mut effects).set_string(
                &name(n),
                b"v",
                SetExpire::Clear,
            );
        }
        drop(locked);
        for _ in 0..1000 {
            let eviction = ks.evict_one(MaxmemoryPolicy::AllkeysLru, &mut pool, &mut rng, 5, 0, &mut effects);
            assert!(matches!(eviction, Eviction::Done(_)));
        }
        let mut locked = ks.lock_all();
        let db = Db::new(&mut locked, 0, 0, Expiring::Ignore, &mut effects);
        let newer = (2000..4000).filter(|n| db.view(&name(*n)).is_none()).count();
        assert!(newer <= 5, "{newer} keys of the newer half are gone");
    }

    /// A command that comes beside a holder of all shards would be refused for memory that can be made.
    #[test]
    fn that_shards_are_held_is_not_that_nothing_can_go() {
        let ks = filled(MaxmemoryPolicy::AllkeysLru);
        let (mut rng, mut effects, mut pool) = (Rng::new(3), Effects::default(), Pool::default());
        let held = ks.lock_all();
        let eviction = ks.evict_one(MaxmemoryPolicy::AllkeysLru, &mut pool, &mut rng, 5, 0, &mut effects);
        assert!(matches!(eviction, Eviction::Held), "{eviction:?}");
        drop(held);
        assert!(evicts(&ks, MaxmemoryPolicy::AllkeysLru, &mut rng, &mut effects));
    }
}
