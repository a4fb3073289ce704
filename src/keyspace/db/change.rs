//! Changing keys: values in place, entries that come, are replaced and go, and their expiry. Whatever a change must
//! keep right (what snapshots still want, the counts, the index by time) is kept right here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Db;
use crate::base::time::UnixMs;
use crate::keyspace::entry::{Body, Entry, EntryRef, INLINE_MAX};
use crate::keyspace::expiry::Reference;
use crate::keyspace::lazy::Cause;
use crate::keyspace::locks::Locked;
use crate::keyspace::table::Place;
use crate::keyspace::{Garbage, Hashed, SLOTS_PER_SHARD, event, shard_of, table_index};
use crate::value::{Value, ValueMut};

impl Db<'_, '_> {
    /// A key for modification in place: `None` when it is missing, `Some(None)` when it holds an
    /// inline string, which is changed by [`Db::set_string`].
    #[inline]
    pub fn write(&mut self, key: &[u8]) -> Option<Option<ValueMut<'_>>> {
        let (h, place) = self.locate(key)?;
        Some(self.open(h, place))
    }

    /// As [`Db::write`], with `new` put in first when the key is missing.
    #[inline]
    pub fn write_or_insert(&mut self, key: &[u8], new: impl FnOnce() -> Value) -> Option<ValueMut<'_>> {
        if let Some((h, place)) = self.locate(key) {
            return self.open(h, place);
        }
        self.insert(key, new(), None);
        let (h, place) = self.locate(key).expect("inserted just now, without an expiry");
        self.table_mut(h.slot).get_mut(place).object_mut()
    }

    #[inline]
    pub(super) fn open(&mut self, h: Hashed, place: Place) -> Option<ValueMut<'_>> {
        self.before_change(h, place);
        let access = self.used(h, place);
        let entry = self.table_mut(h.slot).get_mut(place);
        entry.set_access(access);
        entry.object_mut()
    }

    /// Puts a value under a key, whatever it held before. True if it did hold something.
    pub fn insert(&mut self, key: &[u8], value: Value, expire: Option<UnixMs>) -> bool {
        let entry = match &value {
            Value::String(s) if s.len() <= INLINE_MAX => Entry::new(key, Body::Inline(s), expire),
            _ => Entry::new(key, Body::Object(value), expire),
        };
        let h = self.hashed(key);
        self.note_own(key, expire);
        match self.table(h.slot).find(h.hash, key) {
            None => self.add(h, entry),
            Some(place) => {
                let old = self.table(h.slot).get(place).expire();
                if self.is_dead(old) {
                    self.expire_now(h, place);
                    self.add(h, entry);
                    return false;
                }
                self.before_removal(h, place);
                // A key that is overwritten keeps how often it was used.
                let access = self.used(h, place);
                self.swap_entry(h, place, entry, old, access);
                return true;
            }
        }
        false
    }

    /// Sets or clears the expiry of a key. False when it is not there.
    pub fn set_expire(&mut self, key: &[u8], expire: Option<UnixMs>) -> bool {
        let Some((h, place)) = self.locate(key) else { return false };
        self.note_own(key, expire);
        self.before_change(h, place);
        let old = self.table(h.slot).get(place).expire();
        self.table_mut(h.slot).get_mut(place).set_expire(expire);
        self.note_expire(h, old, expire);
        true
    }

    /// Deletes a key that something else takes the place of, or that is used up. False when it was not there (or dead).
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.delete(key, Cause::Server)
    }

    /// Deletes a key for this cause. False when it was not there (or dead).
    pub fn delete(&mut self, key: &[u8], cause: Cause) -> bool {
        let Some((h, place)) = self.locate(key) else { return false };
        self.delete_at(h, place, cause);
        true
    }

    pub(super) fn delete_at(&mut self, h: Hashed, place: Place, cause: Cause) {
        self.before_removal(h, place);
        let entry = self.take_place(h, place);
        self.dispose(entry, cause);
        if matches!(cause, Cause::Eviction | Cause::Expiry) {
            // In a small cache, whose keys go like this, each slot that ever had a key would keep a bucket.
            self.table_mut(h.slot).release();
        }
    }

    /// As [`Db::remove`], without a look at whether its time has come: a dead key is there and goes, not expires, as in
    /// Redis where a command puts its result in place of what a key held.
    pub fn remove_unseen(&mut self, key: &[u8]) -> bool {
        let h = self.hashed(key);
        let Some(place) = self.table(h.slot).find(h.hash, key) else { return false };
        self.delete_at(h, place, Cause::Server);
        true
    }

    /// Takes a value out: its value and expiry.
    pub fn take(&mut self, key: &[u8]) -> Option<(Value, Option<UnixMs>)> {
        let (h, place) = self.locate(key)?;
        self.before_change(h, place);
        let entry = self.take_place(h, place);
        let expire = entry.as_ref().expire();
        Some((entry.into_value(), expire))
    }

    /// Saves the entry for a snapshot that has not reached it.
    #[inline(always)]
    pub(super) fn before_change(&mut self, h: Hashed, place: Place) {
        if self.table(h.slot).parities() != self.ks.parities() {
            self.ks.preserve(self.locked, self.index, h.slot, place);
        }
    }

    /// As [`Db::before_change`], for an entry that will be removed from its table: a large one is not encoded,
    /// because [`Db::dispose`] keeps it for the snapshot as it is.
    #[inline]
    pub(super) fn before_removal(&mut self, h: Hashed, place: Place) {
        let is_heavy = |entry: EntryRef<'_>| entry.object().is_some_and(|value| value.is_heavy());
        if self.table(h.slot).parities() != self.ks.parities() && !is_heavy(self.table(h.slot).get(place)) {
            self.ks.preserve(self.locked, self.index, h.slot, place);
        }
    }

    /// Adds an entry whose key is not there.
    #[inline]
    pub(super) fn add(&mut self, h: Hashed, mut entry: Entry) {
        self.notify(entry.as_ref().key(), event::NEW);
        entry.set_access(self.access);
        entry.set_parities(self.ks.parities());
        let expire = entry.as_ref().expire();
        let fields = entry.as_ref().next_field_time();
        let ks = self.ks;
        self.table_mut(h.slot).insert(h.hash, entry, |k| ks.hash(k), || ks.resizes());
        let shard = Locked::shard_tables(self.tables, shard_of(h.slot));
        bump(&shard.keys, 1);
        self.note_expire(h, None, expire);
        self.note_fields(h, None, fields);
    }

    #[inline]
    pub(super) fn swap_entry(
        &mut self,
        h: Hashed,
        place: Place,
        mut entry: Entry,
        old_expire: Option<UnixMs>,
        access: u32,
    ) {
        entry.set_access(access);
        entry.set_parities(self.ks.parities());
        let expire = entry.as_ref().expire();
        let fields = entry.as_ref().next_field_time();
        let old = self.table_mut(h.slot).replace(place, entry);
        self.note_fields(h, old.as_ref().next_field_time(), fields);
        self.dispose(old, Cause::Server);
        self.note_expire(h, old_expire, expire);
    }

    /// Keeps the expiry index and its count right when an entry's expiry changes.
    #[inline]
    pub(super) fn note_expire(&mut self, h: Hashed, old: Option<UnixMs>, new: Option<UnixMs>) {
        if old.is_none() && new.is_none() {
            return;
        }
        let shard = shard_of(h.slot);
        let counts = Locked::shard_tables(self.tables, shard);
        match (old, new) {
            (None, Some(_)) => bump(&counts.volatile, 1),
            (Some(_), None) => bump(&counts.volatile, -1),
            _ => {}
        }
        shift(&counts.deadlines, new.unwrap_or(0).wrapping_sub(old.unwrap_or(0)));
        if let Some(at) = new
            && old.is_none_or(|old| at < old)
        {
            let reference = Reference::new(table_index(h.slot) % SLOTS_PER_SHARD, h.hash);
            self.locked.expiry_mut(self.tables, shard).file(at, reference);
        }
    }

    /// Takes an entry out of its table. The caller has done what must be done before a change.
    #[inline]
    pub(super) fn take_place(&mut self, h: Hashed, place: Place) -> Entry {
        let ks = self.ks;
        let entry = self.table_mut(h.slot).remove(place, |k| ks.hash(k), || ks.resizes());
        let shard = Locked::shard_tables(self.tables, shard_of(h.slot));
        bump(&shard.keys, -1);
        if let Some(at) = entry.as_ref().expire() {
            bump(&shard.volatile, -1);
            shift(&shard.deadlines, at.wrapping_neg());
        }
        if entry.as_ref().next_field_time().is_some() {
            bump(&shard.timed_hashes, -1);
        }
        entry
    }

    /// Drops an entry here, or on another thread when that would take long or a snapshot still needs it.
    #[inline]
    pub(super) fn dispose(&self, entry: Entry, cause: Cause) {
        let Some(value) = entry.as_ref().object() else { return };
        if self.ks.lazy.is_lazy(cause) && value.is_freed_lazily() {
            self.ks.stats.lazily_freed.fetch_add(1, Ordering::Relaxed);
        }
        if value.is_heavy()
            && let Some(entry) = self.ks.keep(self.index, entry)
        {
            self.ks.discard(Garbage::Value(entry.into_value()));
        }
    }
}

/// Adds to a counter that is written under a lock only: no read-modify-write needed.
#[inline]
pub(super) fn bump(counter: &AtomicUsize, by: isize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
}

/// As [`bump`], for a sum of times.
#[inline]
pub(super) fn shift(sum: &AtomicU64, by: UnixMs) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
}
