//! Walks over a database: all of it, one slot, step by step, at random.

use std::sync::atomic::Ordering;

use super::{Db, Expiring};
use crate::base::crc16::{SLOTS, key_slot};
use crate::base::rng::Rng;
use crate::keyspace::board::Busy;
use crate::keyspace::entry::EntryRef;
use crate::keyspace::{DbIndex, SHARDS, SLOTS_PER_SHARD, slot_at};

impl Db<'_, '_> {
    /// Calls `f` with how many keys each bucket of a database holds. Every shard is locked.
    pub fn for_each_chain(&self, index: DbIndex, f: &mut impl FnMut(usize)) {
        let Some(tables) = self.ks.existing_tables(index) else { return };
        for slot in 0..SLOTS as u16 {
            self.locked.table(tables, slot).for_each_chain(f);
        }
    }

    /// Visits every live key of the shards that are locked.
    pub fn for_each(&self, mut f: impl FnMut(EntryRef<'_>)) {
        for shard in self.locked.shards() {
            self.for_each_of_shard(shard, &mut f);
        }
    }

    fn for_each_of_shard(&self, shard: usize, f: &mut impl FnMut(EntryRef<'_>)) {
        for i in 0..SLOTS_PER_SHARD {
            self.for_each_in_slot(slot_at(shard * SLOTS_PER_SHARD + i), &mut *f);
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

    /// Does something with a shard locked. A command that goes over all shards holds none of them, or, in a
    /// transaction, all; it is told when it would have to sleep for one. `tries`: how often that was so.
    pub fn in_shard<R>(
        &mut self,
        shard: usize,
        tries: u32,
        visit: impl FnOnce(&Db<'_, '_>) -> R,
    ) -> Result<R, Busy> {
        if self.locked.set().has_shard(shard) {
            return Ok(visit(self));
        }
        assert!(self.locked.set().is_empty(), "one lock after the other only with none in hand");
        let mut locked = self.ks.try_lock_slot(shard as u16, tries)?;
        Ok(visit(&Db::new(&mut locked, self.index, self.now, self.expiring, self.effects)))
    }

    /// Visits every live key of the database, shard by shard: first those that nobody holds.
    pub fn for_each_by_shard(&mut self, tries: u32, mut visit: impl FnMut(EntryRef<'_>)) -> Result<(), Busy> {
        let all = self.locked.set().has_shard(0);
        let (mut later, ks) = (Vec::new(), self.ks);
        for shard in 0..SHARDS {
            if !all && ks.is_locked(shard) {
                later.push(shard);
            } else {
                self.in_shard(shard, tries, |db| db.for_each_of_shard(shard, &mut visit))?;
            }
        }
        for shard in later {
            self.in_shard(shard, tries, |db| db.for_each_of_shard(shard, &mut visit))?;
        }
        Ok(())
    }

    /// One step of a scan over the database: visits one bucket and returns the next cursor, 0 at the end.
    /// Empty slots are passed over in the same step. See [`in_shard`](Self::in_shard) for `tries`.
    ///
    /// A cursor is the number of the table plus one position within it: 14 low bits and 48 high
    /// bits. Any number is a valid cursor. Dead keys are not shown; where they may be deleted they are
    /// named in `dead`, for the caller to do so.
    pub fn scan(
        &mut self,
        cursor: u64,
        tries: u32,
        dead: &mut Vec<Vec<u8>>,
        visit: &mut impl FnMut(EntryRef<'_>),
    ) -> Result<u64, Busy> {
        let (first, position) = ((cursor & 0x3fff) as usize, cursor >> 14);
        let mut from = first;
        for shard in first / SLOTS_PER_SHARD..SHARDS {
            let tables = from..(shard + 1) * SLOTS_PER_SHARD;
            from = tables.end;
            // A shard without keys need not be waited for.
            if self.tables.shards[shard].keys.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let next = self.in_shard(shard, tries, |db| {
                let index = tables.clone().find(|&i| !db.table(slot_at(i)).is_empty())?;
                Some(db.scan_table(index, if index == first { position } else { 0 }, dead, visit))
            })?;
            if let Some(next) = next {
                return Ok(next);
            }
        }
        Ok(0)
    }

    /// Deletes keys that a walk has found dead: at once where their locks are held, otherwise when the command
    /// is over.
    pub fn bury(&mut self, dead: Vec<Vec<u8>>) {
        for key in dead {
            if self.locked.set().has_slot(key_slot(&key)) {
                self.exists(&key);
            } else {
                self.effects.dead.push((self.index, key));
            }
        }
    }

    /// Visits one bucket of a table; returns the next cursor.
    fn scan_table(
        &self,
        index: usize,
        position: u64,
        dead: &mut Vec<Vec<u8>>,
        visit: &mut impl FnMut(EntryRef<'_>),
    ) -> u64 {
        let next = self.table(slot_at(index)).scan(position, &mut |e| {
            if self.expiring == Expiring::Ignore || !e.is_expired(self.now) {
                visit(e);
            } else if self.expiring == Expiring::Delete {
                dead.push(e.key().to_vec());
            }
        });
        match next {
            Some(position) => position << 14 | index as u64,
            None if index + 1 < SHARDS * SLOTS_PER_SHARD => (index + 1) as u64,
            None => 0,
        }
    }

    /// A uniformly random key that is alive, if one is found within some tries; dead ones that it meets are deleted. See
    /// [`in_shard`](Self::in_shard) for `tries`.
    pub fn random_key(&mut self, rng: &mut Rng, tries: u32) -> Result<Option<Vec<u8>>, Busy> {
        let (mut dead, mut busy) = (None, None);
        for _ in 0..100 {
            let total = self.ks.len(self.index);
            if total == 0 {
                break;
            }
            // Keys may go between the two counts.
            let Some((shard, nth)) = self.nth_key(rng.below(total as u64) as usize) else { continue };
            let drawn = self.in_shard(shard, tries, |db| {
                let entry = db.nth_of_shard(shard, nth, rng)?;
                Some((entry.key().to_vec(), db.expiring != Expiring::Ignore && entry.is_expired(db.now)))
            });
            match drawn {
                Ok(Some((key, false))) => return Ok(Some(key)),
                Ok(Some((key, true))) if self.expiring == Expiring::Delete => {
                    self.effects.dead.push((self.index, key));
                }
                Ok(Some((key, true))) => dead = Some(key),
                // It went between the draw and the lock.
                Ok(None) => {}
                // Another shard will do, unless the keys are all here.
                Err(held) if busy.is_some() => return Err(held),
                Err(held) => busy = Some(held),
            }
        }
        // Nearly everything is dead. A replica shows a dead key rather than none, as Redis does.
        Ok(dead)
    }

    /// The shard of the `nth` key, and how many keys of that shard are before it.
    fn nth_key(&self, mut nth: usize) -> Option<(usize, usize)> {
        for (shard, tables) in self.tables.shards.iter().enumerate() {
            let keys = tables.keys.load(Ordering::Relaxed);
            if nth < keys {
                return Some((shard, nth));
            }
            nth -= keys;
        }
        None
    }

    /// A random entry of the slot that holds the `nth` key of a shard.
    fn nth_of_shard(&self, shard: usize, mut nth: usize, rng: &mut Rng) -> Option<EntryRef<'_>> {
        for i in 0..SLOTS_PER_SHARD {
            let table = self.table(slot_at(shard * SLOTS_PER_SHARD + i));
            if nth < table.len() {
                return table.random(rng);
            }
            nth -= table.len();
        }
        None
    }
}
