//! Keys whose time has come: met by a command, or found by the index (active expiry).

use std::sync::atomic::Ordering;

use super::{Db, Expiring};
use crate::base::time::UnixMs;
use crate::keyspace::expiry::{ExpiryIndex, Reference};
use crate::keyspace::lazy::Cause;
use crate::keyspace::locks::Locked;
use crate::keyspace::table::Place;
use crate::keyspace::{EntryRef, Hashed, SLOTS_PER_SHARD, Tables, event, slot_at};

/// An index is not rebuilt for fewer stale references than this. More would be megabytes in a cache of few keys that come
/// and go: one that has a tick for itself takes a hundred bytes.
const FEW_REFERENCES: usize = 64;

/// One of the two indices by time that a shard has in each database: of keys, or of hashes with fields that expire.
type IndexOf<'k> = for<'a> fn(&'a mut Locked<'k>, &'a Tables, usize) -> &'a mut ExpiryIndex;

impl<'k> Db<'_, 'k> {
    /// Whether a key with this expiry must be deleted before anything else is done with it.
    #[inline(always)]
    pub(super) fn is_dead(&self, expire: Option<UnixMs>) -> bool {
        expire.is_some_and(|at| self.now > at) && self.expiring == Expiring::Delete
    }

    #[cold]
    pub(super) fn expire_now(&mut self, h: Hashed, place: Place) {
        let key = self.table(h.slot).get(place).key().to_vec();
        self.delete_at(h, place, Cause::Expiry);
        self.ks.stats.expired_keys.fetch_add(1, Ordering::Relaxed);
        self.effects.note_slot(h.slot);
        self.effects.record(self.index, &[self.ks.lazy.command(Cause::Expiry), &key]);
        self.changed(&key, event::EXPIRED);
    }

    /// Deletes up to `max` keys and fields of the locked shards whose time has come; returns how many it looked at.
    #[expect(clippy::redundant_closure_for_method_calls, reason = "a method would be of one lifetime only")]
    pub fn expire_due(&mut self, max: usize) -> usize {
        let mut looked_at = 0;
        for shard in self.locked.shards() {
            let due = self.locked.expiry_mut(self.tables, shard).take_due(self.now, max);
            looked_at += due.len();
            for reference in due {
                self.settle(shard, reference);
            }
            looked_at += self.expire_due_fields(shard, max);
            let counts = Locked::shard_tables(self.tables, shard);
            let (keys, hashes) =
                (counts.volatile.load(Ordering::Relaxed), counts.timed_hashes.load(Ordering::Relaxed));
            self.compact(shard, Locked::expiry_mut, keys, |e| e.expire());
            self.compact(shard, Locked::field_expiry_mut, hashes, |e| e.next_field_time());
        }
        looked_at
    }

    /// Deletes what a due reference points to, or files it anew.
    fn settle(&mut self, shard: usize, reference: Reference) {
        let slot = slot_at(shard * SLOTS_PER_SHARD + reference.slot_in_shard());
        let now = self.now;
        while let Some(place) = self.table(slot).find_by(reference.hash(), |e| e.is_expired(now)) {
            let hash = self.ks.hash(self.table(slot).get(place).key());
            self.expire_now(Hashed { slot, hash }, place);
        }
        let table = self.table(slot);
        let later = table.find_by(reference.hash(), |e| e.expire().is_some());
        if let Some(at) = later.and_then(|place| table.get(place).expire()) {
            self.locked.expiry_mut(self.tables, shard).file(at, reference);
        }
    }

    pub(in crate::keyspace) fn expiry_index(&mut self, shard: usize) -> &mut ExpiryIndex {
        self.locked.expiry_mut(self.tables, shard)
    }

    /// The entries of a shard that have a time, with it.
    fn references(
        &self,
        shard: usize,
        time: impl Fn(EntryRef<'_>) -> Option<UnixMs>,
    ) -> Vec<(UnixMs, Reference)> {
        let mut live = Vec::new();
        for i in 0..SLOTS_PER_SHARD {
            self.table(slot_at(shard * SLOTS_PER_SHARD + i)).for_each(|e| {
                live.extend(time(e).map(|at| (at, Reference::new(i, self.ks.hash(e.key())))));
            });
        }
        live
    }

    /// Rebuilds an index of a shard when most of its references are stale. `live`: how many entries have a `time`.
    fn compact(
        &mut self,
        shard: usize,
        index: IndexOf<'k>,
        live: usize,
        time: impl Fn(EntryRef<'_>) -> Option<UnixMs>,
    ) {
        if index(self.locked, self.tables, shard).len() <= live * 2 + FEW_REFERENCES {
            return;
        }
        let references = self.references(shard, time);
        let index = index(self.locked, self.tables, shard);
        index.clear();
        references.into_iter().for_each(|(at, reference)| index.file(at, reference));
    }
}
