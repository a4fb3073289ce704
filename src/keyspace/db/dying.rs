//! Keys whose time has come, found by the index.

use std::sync::atomic::Ordering;

use super::Db;
use crate::base::time::UnixMs;
use crate::keyspace::expiry::{ExpiryIndex, Reference};
use crate::keyspace::locks::Locked;
use crate::keyspace::{EntryRef, Hashed, SLOTS_PER_SHARD, slot_at};

/// So many stale references of a shard are let be. More would be megabytes in a cache of few keys that come and go: one
/// that has a tick for itself takes a hundred bytes.
const SLACK: usize = 64;

impl Db<'_, '_> {
    /// Deletes up to `max` keys and fields of the locked shards whose time has come; returns how many it looked at.
    pub fn expire_due(&mut self, max: usize) -> usize {
        let mut looked_at = 0;
        for shard in self.locked.shards() {
            let due = self.locked.expiry_mut(self.tables, shard).take_due(self.now, max);
            looked_at += due.len();
            for reference in due {
                self.settle(shard, reference);
            }
            self.compact_index(shard);
            looked_at += self.expire_due_fields(shard, max);
            self.compact_field_index(shard);
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
        let mut later = Vec::new();
        let table = self.table(slot);
        if let Some(place) = table.find_by(reference.hash(), |e| e.expire().is_some()) {
            later.extend(table.get(place).expire());
        }
        for at in later {
            self.locked.expiry_mut(self.tables, shard).file(at, reference);
        }
    }

    pub(in crate::keyspace) fn expiry_index(&mut self, shard: usize) -> &mut ExpiryIndex {
        self.locked.expiry_mut(self.tables, shard)
    }

    /// Rebuilds a shard's index of fields when most of its references are stale.
    #[expect(clippy::redundant_closure_for_method_calls, reason = "a method would be of one lifetime only")]
    pub(super) fn compact_field_index(&mut self, shard: usize) {
        let timed = Locked::shard_tables(self.tables, shard).timed_hashes.load(Ordering::Relaxed);
        if self.locked.field_expiry_mut(self.tables, shard).len() <= timed * 2 + SLACK {
            return;
        }
        let live = self.references(shard, |e| e.next_field_time());
        let index = self.locked.field_expiry_mut(self.tables, shard);
        index.clear();
        live.into_iter().for_each(|(at, reference)| index.file(at, reference));
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

    /// Rebuilds a shard's index when most of its references are stale.
    #[expect(clippy::redundant_closure_for_method_calls, reason = "a method would be of one lifetime only")]
    fn compact_index(&mut self, shard: usize) {
        let volatile = Locked::shard_tables(self.tables, shard).volatile.load(Ordering::Relaxed);
        if self.locked.expiry_mut(self.tables, shard).len() <= volatile * 2 + SLACK {
            return;
        }
        let live = self.references(shard, |e| e.expire());
        let index = self.locked.expiry_mut(self.tables, shard);
        index.clear();
        for (at, reference) in live {
            index.file(at, reference);
        }
    }
}
