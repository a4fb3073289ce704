//! Fields of hashes whose time has come. Hashes have an index of their own, by the time of their first field to go;
//! as with keys, a reference may be early and is never late.

use std::sync::atomic::Ordering;

use super::{Db, Expiring, bump};
use crate::base::time::UnixMs;
use crate::keyspace::expiry::Reference;
use crate::keyspace::locks::Locked;
use crate::keyspace::table::Place;
use crate::keyspace::{Hashed, SLOTS_PER_SHARD, event, shard_of, slot_at, table_index};
use crate::value::{Hash, ValueMut, ValueRef};

/// Fields of one hash that go at once, so that a big one does not hold its shard for long.
const AT_ONCE: usize = 1000;

impl Db<'_, '_> {
    /// Fields whose time lies before this count as dead. Where expiry is ignored none does.
    #[inline]
    pub fn field_clock(&self) -> UnixMs {
        if self.expiring == Expiring::Ignore { UnixMs::MIN } else { self.now }
    }

    /// Keeps the count of hashes with times and their index right. To be called when the first time of a hash
    /// may have changed in place, with what it was before.
    #[inline]
    pub fn fields_changed(&mut self, key: &[u8], before: Option<UnixMs>) {
        let Some((h, place)) = self.locate(key) else { return };
        let after = self.table(h.slot).get(place).next_field_time();
        self.note_fields(h, before, after);
    }

    #[inline]
    pub(super) fn note_fields(&mut self, h: Hashed, before: Option<UnixMs>, after: Option<UnixMs>) {
        if before == after {
            return;
        }
        let shard = shard_of(h.slot);
        let counts = Locked::shard_tables(self.tables, shard);
        match (before, after) {
            (None, Some(_)) => bump(&counts.timed_hashes, 1),
            (Some(_), None) => bump(&counts.timed_hashes, -1),
            _ => {}
        }
        if let Some(at) = after
            && before.is_none_or(|before| at < before)
        {
            let reference = Reference::new(table_index(h.slot) % SLOTS_PER_SHARD, h.hash);
            self.locked.field_expiry_mut(self.tables, shard).file(at, reference);
        }
    }

    /// Deletes those of `fields` whose time has come, where this node deletes. A command that names fields does so
    /// first, and then meets only fields that live.
    pub fn expire_fields(&mut self, key: &[u8], fields: &[&[u8]]) {
        if self.expiring != Expiring::Delete {
            return;
        }
        let now = self.now;
        let Some((h, place)) = self.locate(key) else { return };
        let Some(ValueRef::Hash(hash)) = self.table(h.slot).get(place).object() else { return };
        let mut dead: Vec<Vec<u8>> =
            fields.iter().filter(|field| hash.is_dead(field, now)).map(|field| field.to_vec()).collect();
        dead.sort();
        dead.dedup();
        self.take_fields(h, place, |hash| {
            for field in &dead {
                hash.remove(field);
            }
            dead
        });
    }

    /// Deletes all fields of a hash whose time has come, where this node deletes.
    pub fn expire_all_fields(&mut self, key: &[u8]) {
        if self.expiring == Expiring::Delete
            && let Some((h, place)) = self.locate(key)
        {
            let now = self.now;
            self.take_fields(h, place, |hash| hash.take_due(now, usize::MAX));
        }
    }

    /// Deletes what `take` takes out of a hash: replicas and subscribers are told, and an empty hash goes.
    fn take_fields(&mut self, h: Hashed, place: Place, take: impl FnOnce(&mut Hash) -> Vec<Vec<u8>>) {
        self.before_change(h, place);
        let entry = self.table_mut(h.slot).get_mut(place);
        let key = entry.as_ref().key().to_vec();
        let before = entry.as_ref().next_field_time();
        let Some(ValueMut::Hash(hash)) = entry.object_mut() else { return };
        let gone = take(hash);
        let (empty, after) = (hash.is_empty(), hash.next_time());
        if gone.is_empty() {
            return;
        }
        self.note_fields(h, before, after);
        self.ks.stats.expired_fields.fetch_add(gone.len() as u64, Ordering::Relaxed);
        let mut record: Vec<&[u8]> = vec![b"HDEL", &key];
        record.extend(gone.iter().map(Vec::as_slice));
        self.effects.record(self.index, &record);
        if empty {
            self.take_place(h, place);
        }
        self.changed(&key, event::HEXPIRED);
        if empty {
            self.notify(&key, event::DEL);
        }
    }

    /// Deletes up to `max` fields of a shard whose time has come; returns how much it looked at.
    pub(super) fn expire_due_fields(&mut self, shard: usize, max: usize) -> usize {
        let due = self.locked.field_expiry_mut(self.tables, shard).take_due(self.now, max);
        let now = self.now;
        let mut looked_at = due.len();
        for reference in due {
            let slot = slot_at(shard * SLOTS_PER_SHARD + reference.slot_in_shard());
            let is_due = |e: crate::keyspace::EntryRef<'_>| e.next_field_time().is_some_and(|at| at < now);
            while let Some(place) = self.table(slot).find_by(reference.hash(), is_due) {
                let key = self.table(slot).get(place).key().to_vec();
                if self.locked.save_ahead(self.index, [&*key]).is_some() {
                    // A part of a large one is saved for a snapshot; its fields go when that has all of it.
                    break;
                }
                let hash = self.ks.hash(&key);
                self.take_fields(Hashed { slot, hash }, place, |hash| {
                    let gone = hash.take_due(now, AT_ONCE);
                    looked_at += gone.len();
                    gone
                });
                if looked_at >= max {
                    break;
                }
            }
            let table = self.table(slot);
            let later = table.find_by(reference.hash(), |e| e.next_field_time().is_some());
            if let Some(at) = later.and_then(|place| table.get(place).next_field_time()) {
                self.locked.field_expiry_mut(self.tables, shard).file(at, reference);
            }
        }
        looked_at
    }
}
