//! Emptying a database or a slot.

use std::sync::atomic::Ordering;

use super::{bump, shift};
use crate::base::time::UnixMs;
use crate::keyspace::locks::Locked;
use crate::keyspace::{DbIndex, Garbage, Keyspace, SHARDS, SLOTS_PER_SHARD, Tables, shard_of, slot_at};

impl Keyspace {
    /// Empties a database. Every shard must be locked. Returns how many keys there were.
    pub fn flush(&self, locked: &mut Locked<'_>, db: DbIndex) -> usize {
        let Some(tables) = self.existing_tables(db) else { return 0 };
        let keys = self.len(db);
        // A watched key that is not there does not change by being flushed.
        for shard in 0..SHARDS {
            for key in locked.side_mut(shard).watchers.watched(db) {
                let h = self.hashed(&key);
                if locked.table(tables, h.slot).find(h.hash, &key).is_some() {
                    locked.side_mut(shard).watchers.touch(db, &key);
                }
            }
        }
        let slots: Vec<u16> = (0..SHARDS * SLOTS_PER_SHARD).map(slot_at).collect();
        self.empty_slots(locked, tables, db, &slots);
        for shard in 0..SHARDS {
            locked.forget_under_way(shard, db, |_| true);
            locked.expiry_mut(tables, shard).clear();
            let counts = Locked::shard_tables(tables, shard);
            counts.keys.store(0, Ordering::Relaxed);
            counts.volatile.store(0, Ordering::Relaxed);
            counts.deadlines.store(0, Ordering::Relaxed);
        }
        keys
    }

    /// Empties one slot of a database, whose shard is locked (a slot that was lost to another node).
    pub fn flush_slot(&self, locked: &mut Locked<'_>, db: DbIndex, slot: u16) -> usize {
        let Some(tables) = self.existing_tables(db) else { return 0 };
        let (mut keys, mut volatile, mut deadlines) = (0isize, 0isize, 0 as UnixMs);
        locked.table(tables, slot).for_each(|e| {
            keys += 1;
            volatile += isize::from(e.expire().is_some());
            deadlines = deadlines.wrapping_add(e.expire().unwrap_or(0));
        });
        self.empty_slots(locked, tables, db, &[slot]);
        let shard = shard_of(slot);
        locked.forget_under_way(shard, db, |k| crate::base::crc16::key_slot(k) == slot);
        locked.side_mut(shard).watchers.touch_where(db, |k| crate::base::crc16::key_slot(k) == slot);
        let counts = Locked::shard_tables(tables, shard);
        bump(&counts.keys, -keys);
        bump(&counts.volatile, -volatile);
        shift(&counts.deadlines, deadlines.wrapping_neg());
        keys as usize
    }

    fn empty_slots(&self, locked: &mut Locked<'_>, tables: &Tables, db: DbIndex, slots: &[u16]) {
        let mut dropped = Vec::new();
        for &slot in slots {
            let table = locked.table_mut(tables, slot);
            if table.is_empty() {
                continue;
            }
            let old = std::mem::take(table);
            // The new table is empty and needs no saving; what was saved of the old one stays on record.
            table.saved_in = old.saved_in;
            dropped.extend(self.freeze(db, old));
        }
        if !dropped.is_empty() {
            self.discard(Garbage::Tables(dropped));
        }
    }
}
