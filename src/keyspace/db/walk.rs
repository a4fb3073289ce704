//! Walks over a database: all of it, one slot, step by step, at random.

use std::sync::atomic::Ordering;

use super::{Db, Expiring};
use crate::base::rng::Rng;
use crate::keyspace::entry::EntryRef;
use crate::keyspace::{SHARDS, SLOTS_PER_SHARD, slot_at};

impl Db<'_, '_> {
    /// Visits every live key of the shards that are locked.
    pub fn for_each(&self, mut f: impl FnMut(EntryRef<'_>)) {
        for shard in self.locked.shards() {
            for i in 0..SLOTS_PER_SHARD {
                self.table(slot_at(shard * SLOTS_PER_SHARD + i)).for_each(|e| {
                    if self.expiring == Expiring::Ignore || !e.is_expired(self.now) {
                        f(e);
                    }
                });
            }
        }
    }

    /// Visits the live keys of one slot.
    pub fn for_each_in_slot(&self, slot: u16, mut f: impl FnMut(EntryRef<'_>)) {
        self.table(slot).for_each(|e| {
            if self.expiring == Expiring::Ignore || !e.is_expired(self.now) {
                f(e);
            }
        });
    }

    /// One step of a scan over the database, with every shard locked: visits one bucket and returns
    /// the next cursor, 0 at the end. Empty slots are passed over in the same step.
    ///
    /// A cursor is the number of the table plus one position within it: 14 low bits and 48 high
    /// bits. Any number is a valid cursor. Dead keys are not shown; where they may be deleted they are
    /// named in `dead`, for the caller to do so.
    pub fn scan(&self, cursor: u64, dead: &mut Vec<Vec<u8>>, f: &mut impl FnMut(EntryRef<'_>)) -> u64 {
        let (first, position) = ((cursor & 0x3fff) as usize, cursor >> 14);
        let tables = SHARDS * SLOTS_PER_SHARD;
        let Some(index) = (first..tables).find(|&i| !self.table(slot_at(i)).is_empty()) else { return 0 };
        let from = if index == first { position } else { 0 };
        let next = self.table(slot_at(index)).scan(from, &mut |e| {
            if self.expiring == Expiring::Ignore || !e.is_expired(self.now) {
                f(e);
            } else if self.expiring == Expiring::Delete {
                dead.push(e.key().to_vec());
            }
        });
        match next {
            Some(position) => position << 14 | index as u64,
            None if index + 1 < tables => (index + 1) as u64,
            None => 0,
        }
    }

    /// A uniformly random key that is alive, if one is found within some tries. Every shard must be locked.
    pub fn random_key(&self, rng: &mut Rng) -> Option<&[u8]> {
        let total = self.ks.len(self.index);
        if total == 0 {
            return None;
        }
        let mut last = None;
        for _ in 0..100 {
            let entry = self.nth_slot_entry(rng.below(total as u64) as usize, rng)?;
            last = Some(entry.key());
            if self.expiring == Expiring::Ignore || !entry.is_expired(self.now) {
                return last;
            }
        }
        // Nearly everything is dead. A replica shows a dead key rather than none, as Redis does.
        if self.expiring == Expiring::Hide { last } else { None }
    }

    /// A random entry of the slot that holds the `nth` key.
    fn nth_slot_entry(&self, mut nth: usize, rng: &mut Rng) -> Option<EntryRef<'_>> {
        for (shard, tables) in self.tables.shards.iter().enumerate() {
            let keys = tables.keys.load(Ordering::Relaxed);
            if nth >= keys {
                nth -= keys;
                continue;
            }
            for i in 0..SLOTS_PER_SHARD {
                let table = self.table(slot_at(shard * SLOTS_PER_SHARD + i));
                if nth < table.len() {
                    return table.random(rng);
                }
                nth -= table.len();
            }
        }
        None
    }
}
