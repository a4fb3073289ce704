//! Emptying a database or a slot.

use std::sync::atomic::Ordering;

use super::{Db, Effects, Expiring, bump, shift};
use crate::base::crc16::key_slot;
use crate::base::time::UnixMs;
use crate::keyspace::locks::Locked;
use crate::keyspace::table::SlotTable;
use crate::keyspace::tracking::{Changed, Stale};
use crate::keyspace::{
    DbIndex, EntryRef, Event, Garbage, Keyspace, SHARDS, SLOTS_PER_SHARD, Tables, event, shard_of, slot_at,
};

/// So many small keys are dropped in less time than it takes to hand them to another thread.
const FEW: usize = 64;

impl Keyspace {
    /// Empties a database. Every shard must be locked. Returns how many keys there were.
    pub fn flush(&self, locked: &mut Locked<'_>, db: DbIndex, effects: &mut Effects) -> usize {
        let Some(tables) = self.existing_tables(db) else { return 0 };
        let keys = self.len(db);
        for shard in 0..SHARDS {
            Self::announce_loss(locked, db, shard, effects, event::FLUSHED, |_| true);
        }
        let slots: Vec<u16> = (0..SHARDS * SLOTS_PER_SHARD).map(slot_at).collect();
        self.empty_slots(locked, tables, db, &slots);
        for shard in 0..SHARDS {
            let own = &mut locked.side_mut(shard).own;
            let before = own.len();
            own.retain(|(of, _)| *of != db);
            self.stats.own_volatile_keys.fetch_sub(before - own.len(), Ordering::Relaxed);
            locked.forget_under_way(shard, db, |_| true);
            locked.expiry_mut(tables, shard).clear();
            locked.field_expiry_mut(tables, shard).clear();
            let counts = Locked::shard_tables(tables, shard);
            counts.keys.store(0, Ordering::Relaxed);
            counts.volatile.store(0, Ordering::Relaxed);
            counts.timed_hashes.store(0, Ordering::Relaxed);
            counts.deadlines.store(0, Ordering::Relaxed);
        }
        keys
    }

    /// Empties one slot of a database, whose shard is locked (a slot that was lost to another node).
    pub fn flush_slot(
        &self,
        locked: &mut Locked<'_>,
        db: DbIndex,
        slot: u16,
        effects: &mut Effects,
    ) -> usize {
        let stale = self.tracking.take_slot(slot).into_iter();
        effects.stale.extend(stale.map(|(key, readers)| Stale { key, readers }));
        let Some(tables) = self.existing_tables(db) else { return 0 };
        if self.tracking.broadcasts() {
            let changed = |key: &[u8]| Changed { key: key.into(), writer: 0 };
            locked.table(tables, slot).for_each(|e| effects.broadcast.push(changed(e.key())));
        }
        Self::announce_loss(locked, db, shard_of(slot), effects, event::MOVED_AWAY, |key| {
            key_slot(key) == slot
        });
        let (mut keys, mut volatile, mut timed, mut deadlines) = (0isize, 0isize, 0isize, 0 as UnixMs);
        locked.table(tables, slot).for_each(|e| {
            keys += 1;
            volatile += isize::from(e.expire().is_some());
            timed += isize::from(e.next_field_time().is_some());
            deadlines = deadlines.wrapping_add(e.expire().unwrap_or(0));
        });
        self.empty_slots(locked, tables, db, &[slot]);
        let shard = shard_of(slot);
        locked.forget_under_way(shard, db, |k| crate::base::crc16::key_slot(k) == slot);
        let counts = Locked::shard_tables(tables, shard);
        bump(&counts.keys, -keys);
        bump(&counts.volatile, -volatile);
        bump(&counts.timed_hashes, -timed);
        shift(&counts.deadlines, deadlines.wrapping_neg());
        keys as usize
    }

    /// Reports `event` for those keys of a shard that `gone` picks, that exist, and that somebody watches or waits
    /// for. The many others are not reported one by one: nobody would hear of them.
    fn announce_loss(
        locked: &mut Locked<'_>,
        db: DbIndex,
        shard: usize,
        effects: &mut Effects,
        event: Event,
        gone: impl Fn(&[u8]) -> bool,
    ) {
        let concerned = locked.side_mut(shard).watchers.keys(db);
        if concerned.is_empty() {
            return;
        }
        let mut db = Db::new(locked, db, 0, Expiring::Ignore, effects);
        for key in concerned {
            if gone(&key) && db.exists(&key) {
                db.lost(&key, event);
            }
        }
    }

    fn empty_slots(&self, locked: &mut Locked<'_>, tables: &Tables, db: DbIndex, slots: &[u16]) {
        let mut dropped = Vec::new();
        for &slot in slots {
            let table = locked.table_mut(tables, slot);
            if table.is_empty() {
                continue;
            }
            dropped.extend(self.freeze(db, table.take()));
        }
        // A few small keys are dropped here: while anything waits to be freed nobody is refused for want of memory.
        let keys: usize = dropped.iter().map(SlotTable::len).sum();
        let mut takes_long = keys > FEW;
        if !takes_long {
            let mut look = |e: EntryRef<'_>| takes_long |= e.object().is_some_and(|value| value.is_heavy());
            dropped.iter().for_each(|table| table.for_each(&mut look));
        }
        if takes_long {
            self.discard(Garbage::Tables(dropped));
        }
    }
}
