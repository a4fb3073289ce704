//! What a command sees of the data: the keys of one database, under the locks it holds.
//!
//! Every change goes through here, so that the snapshot, the expiry index, the counters and the
//! watchers are right without a handler knowing of them. A handler that changed a key says so with
//! [`Db::changed`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::entry::{Body, Entry, EntryRef, INLINE_MAX};
use super::expiry::{ExpiryIndex, Reference};
use super::locks::{LockSet, Locked};
use super::table::{Place, SlotTable};
use super::usage;
use super::watch::{Dirty, Waiter, Watchers};
use super::{
    DbIndex, Garbage, Hashed, Keyspace, SHARDS, SLOTS_PER_SHARD, Tables, shard_of, slot_at, table_index,
};
use crate::base::rng::Rng;
use crate::base::time::UnixMs;
use crate::resp::request::write_command;
use crate::value::{Kind, Value, ValueRef};

/// What happens to a key whose time has come when a command meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// It is deleted, and a DEL is logged: on a primary.
    Delete,
    /// It reads as missing but stays until the primary deletes it: on a replica.
    Hide,
    /// It is there: a replica that applies its primary's stream.
    Ignore,
}

/// The expiry of a string that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetExpire {
    Clear,
    Keep,
    At(UnixMs),
}

/// What running a command brought about besides its reply. Reused from command to command.
#[derive(Debug, Default)]
pub struct Effects {
    /// Whether somebody reads the log.
    pub log_wanted: bool,
    /// RESP records for the log, and the database of each run of them.
    records: Vec<u8>,
    runs: Vec<(DbIndex, usize)>,
    /// A handler has recorded what replicas must do, so the command itself is not.
    pub recorded: bool,
    /// Keys that clients are blocked on and that changed.
    pub ready: Vec<(DbIndex, Vec<u8>)>,
    /// Changes made.
    pub dirty: u64,
    pub hits: u64,
    pub misses: u64,
    /// Draws whether a use counts under an LFU policy.
    pub rng: Rng,
}

impl Effects {
    pub fn seeded(seed: u64) -> Self {
        Self { rng: Rng::new(seed), ..Self::default() }
    }

    /// Records a command for the log.
    pub fn record<A: AsRef<[u8]>>(&mut self, db: DbIndex, args: &[A]) {
        if self.log_wanted {
            write_command(&mut self.records, args);
            self.close_run(db);
        }
    }

    fn close_run(&mut self, db: DbIndex) {
        match self.runs.last_mut() {
            Some((last, end)) if *last == db => *end = self.records.len(),
            _ => self.runs.push((db, self.records.len())),
        }
    }

    /// Whether anything is recorded.
    pub fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// Appends what is recorded to the log as one unit, and forgets it.
    pub fn append_to(&mut self, log: &super::Log) -> u64 {
        let mut from = 0;
        let runs: smallvec::SmallVec<[(DbIndex, &[u8]); 4]> = self
            .runs
            .iter()
            .map(|&(db, end)| (db, &self.records[std::mem::replace(&mut from, end)..end]))
            .collect();
        let end = log.append_unit(&runs);
        drop(runs);
        self.discard_records();
        end
    }

    pub fn discard_records(&mut self) {
        self.records.clear();
        self.runs.clear();
    }

    /// Takes the records out, to put others in front of or around them (MULTI).
    pub fn take_records(&mut self) -> Vec<(DbIndex, Vec<u8>)> {
        let mut from = 0;
        let runs = self
            .runs
            .iter()
            .map(|&(db, end)| (db, self.records[std::mem::replace(&mut from, end)..end].to_vec()))
            .collect();
        self.discard_records();
        runs
    }

    /// Adds bytes that are already records.
    pub fn record_raw(&mut self, db: DbIndex, bytes: &[u8]) {
        self.records.extend_from_slice(bytes);
        self.close_run(db);
    }
}

/// One database under locks. See the module.
pub struct Db<'l, 'k> {
    locked: &'l mut Locked<'k>,
    ks: &'k Keyspace,
    tables: &'k Tables,
    index: DbIndex,
    pub now: UnixMs,
    expiring: Expiring,
    access: u32,
    /// Whether reads stamp the access clock (CLIENT NO-TOUCH).
    touch: bool,
    /// The key whose hash the router has computed already, by address.
    hint: (*const u8, Hashed),
    pub effects: &'l mut Effects,
}

impl std::fmt::Debug for Db<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("index", &self.index).finish_non_exhaustive()
    }
}

impl<'l, 'k> Db<'l, 'k> {
    #[inline]
    pub fn new(
        locked: &'l mut Locked<'k>,
        index: DbIndex,
        now: UnixMs,
        expiring: Expiring,
        effects: &'l mut Effects,
    ) -> Self {
        let ks = locked.keyspace();
        Self {
            tables: ks.tables(index),
            access: ks.usage.stamp(),
            locked,
            ks,
            index,
            now,
            expiring,
            touch: true,
            hint: (std::ptr::null(), Hashed { slot: 0, hash: 0 }),
            effects,
        }
    }

    /// Tells the hash of the first key, which the router knows.
    #[inline]
    pub fn set_hint(&mut self, key: &[u8], hashed: Hashed) {
        self.hint = (key.as_ptr(), hashed);
    }

    pub fn set_touch(&mut self, touch: bool) {
        self.touch = touch;
    }

    pub fn index(&self) -> DbIndex {
        self.index
    }

    /// Goes on in another database.
    pub fn select(&mut self, index: DbIndex) {
        self.index = index;
        self.tables = self.ks.tables(index);
    }

    pub fn keyspace(&self) -> &'k Keyspace {
        self.ks
    }

    pub fn locked(&mut self) -> &mut Locked<'k> {
        self.locked
    }

    pub fn lock_set(&self) -> &LockSet {
        self.locked.set()
    }

    pub fn expiring(&self) -> Expiring {
        self.expiring
    }

    #[inline(always)]
    fn hashed(&self, key: &[u8]) -> Hashed {
        if self.hint.0 == key.as_ptr() && !key.is_empty() { self.hint.1 } else { self.ks.hashed(key) }
    }

    #[inline(always)]
    pub(super) fn table(&self, slot: u16) -> &SlotTable {
        self.locked.table(self.tables, slot)
    }

    #[inline(always)]
    fn table_mut(&mut self, slot: u16) -> &mut SlotTable {
        self.locked.table_mut(self.tables, slot)
    }

    /// Finds a live key. A dead one is deleted or hidden.
    #[inline(always)]
    fn locate(&mut self, key: &[u8]) -> Option<(Hashed, Place)> {
        let h = self.hashed(key);
        let table = self.table(h.slot);
        let place = table.find(h.hash, key)?;
        if let Some(at) = table.get(place).expire()
            && self.now > at
            && self.expiring != Expiring::Ignore
        {
            if self.expiring == Expiring::Delete {
                self.expire_now(h, place);
            }
            return None;
        }
        Some((h, place))
    }

    #[cold]
    fn expire_now(&mut self, h: Hashed, place: Place) {
        let key = self.table(h.slot).get(place).key().to_vec();
        self.take_place(h, place);
        self.ks.stats.expired_keys.fetch_add(1, Ordering::Relaxed);
        self.effects.record(self.index, &[&b"DEL"[..], &key]);
        self.touch_watchers(&key);
    }

    /// Looks a key up for reading: counts a hit or a miss and stamps the access clock.
    #[inline]
    pub fn entry(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let Some((h, place)) = self.locate(key) else {
            self.effects.misses += 1;
            return None;
        };
        self.effects.hits += 1;
        if self.touch {
            let access = self.used(h, place);
            self.table_mut(h.slot).get_mut(place).set_access(access);
        }
        Some(self.table(h.slot).get(place))
    }

    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        self.entry(key).map(EntryRef::value)
    }

    /// Looks a key up without a trace: no hit, no access (TTL, TYPE, OBJECT, writers that look first).
    #[inline]
    pub fn peek(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (h, place) = self.locate(key)?;
        Some(self.table(h.slot).get(place))
    }

    /// Looks a key up without changing anything, so that several can be looked at side by side; a
    /// dead one reads as missing.
    pub fn view(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let h = self.hashed(key);
        let table = self.table(h.slot);
        let entry = table.get(table.find(h.hash, key)?);
        (self.expiring == Expiring::Ignore || !entry.is_expired(self.now)).then_some(entry)
    }

    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    pub fn kind(&mut self, key: &[u8]) -> Option<Kind> {
        self.peek(key).map(EntryRef::kind)
    }

    /// A key for modification in place: `None` when it is missing, `Some(None)` when it holds an
    /// inline string, which is changed by [`Db::set_string`].
    #[inline]
    pub fn write(&mut self, key: &[u8]) -> Option<Option<&mut Value>> {
        let (h, place) = self.locate(key)?;
        Some(self.open(h, place))
    }

    /// As [`Db::write`], with `new` put in first when the key is missing.
    #[inline]
    pub fn write_or_insert(&mut self, key: &[u8], new: impl FnOnce() -> Value) -> Option<&mut Value> {
        if let Some((h, place)) = self.locate(key) {
            return self.open(h, place);
        }
        self.insert(key, new(), None);
        let (h, place) = self.locate(key).expect("inserted just now, without an expiry");
        self.table_mut(h.slot).get_mut(place).object_mut()
    }

    #[inline]
    fn open(&mut self, h: Hashed, place: Place) -> Option<&mut Value> {
        self.before_change(h, place);
        let access = self.used(h, place);
        let entry = self.table_mut(h.slot).get_mut(place);
        entry.set_access(access);
        entry.object_mut()
    }

    /// Saves the entry for a snapshot that has not reached it.
    #[inline(always)]
    fn before_change(&mut self, h: Hashed, place: Place) {
        if self.table(h.slot).saved_in != self.ks.snapshot_number() {
            self.ks.preserve(self.locked, self.index, h.slot, place);
        }
    }

    /// Sets a string, whatever the key held before.
    #[inline]
    pub fn set_string(&mut self, key: &[u8], bytes: &[u8], expire: SetExpire) {
        let h = self.hashed(key);
        match self.table(h.slot).find(h.hash, key) {
            Some(place) => self.overwrite(h, place, key, bytes, expire),
            None => self.add_string(h, key, bytes, expire),
        }
    }

    /// Sets a key to the string that `new` makes of its value, with one look-up; its expiry stays.
    /// An error of `new` changes nothing.
    #[inline]
    pub fn update_string<B: AsRef<[u8]>, E>(
        &mut self,
        key: &[u8],
        new: impl FnOnce(Option<ValueRef<'_>>) -> std::result::Result<B, E>,
    ) -> std::result::Result<(), E> {
        match self.locate(key) {
            Some((h, place)) => {
                let bytes = new(Some(self.table(h.slot).get(place).value()))?;
                self.overwrite(h, place, key, bytes.as_ref(), SetExpire::Keep);
            }
            // Not `add_string`: a replica may hold the key, dead and hidden.
            None => self.set_string(key, new(None)?.as_ref(), SetExpire::Keep),
        }
        Ok(())
    }

    fn add_string(&mut self, h: Hashed, key: &[u8], bytes: &[u8], expire: SetExpire) {
        let at = if let SetExpire::At(at) = expire { Some(at) } else { None };
        self.add(h, Entry::new(key, Body::string(bytes), at));
    }

    #[inline]
    fn overwrite(&mut self, h: Hashed, place: Place, key: &[u8], bytes: &[u8], expire: SetExpire) {
        self.before_change(h, place);
        let access = self.used(h, place);
        let old = self.table(h.slot).get(place).expire();
        let at = match expire {
            SetExpire::Clear => None,
            SetExpire::Keep => old.filter(|at| self.now <= *at),
            SetExpire::At(at) => Some(at),
        };
        if at == old {
            let entry = self.table_mut(h.slot).get_mut(place);
            entry.set_access(access);
            if entry.overwrite_inline(bytes) {
                return;
            }
        }
        self.swap_entry(h, place, Entry::new(key, Body::string(bytes), at), old, access);
    }

    /// Changes a string that exists by giving it other bytes; its expiry stays. `raw` marks a
    /// string that APPEND or SETRANGE built.
    pub fn replace_string(&mut self, key: &[u8], bytes: &[u8], raw: bool) {
        self.set_string(key, bytes, SetExpire::Keep);
        if raw
            && bytes.len() <= INLINE_MAX
            && let Some((h, place)) = self.locate(key)
        {
            self.table_mut(h.slot).get_mut(place).set_raw(true);
        }
    }

    /// Marks a string as one that APPEND or SETRANGE built (it moved here from another key).
    pub fn mark_raw(&mut self, key: &[u8]) {
        if let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_raw(true);
        }
    }

    /// Marks a string as one that INCRBYFLOAT computed.
    pub fn mark_text(&mut self, key: &[u8]) {
        if let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_text();
        }
    }

    /// Puts a value under a key, whatever it held before.
    pub fn insert(&mut self, key: &[u8], value: Value, expire: Option<UnixMs>) {
        let entry = match &value {
            Value::String(s) if s.len() <= INLINE_MAX => Entry::new(key, Body::Inline(s), expire),
            _ => Entry::new(key, Body::Object(value), expire),
        };
        let h = self.hashed(key);
        match self.table(h.slot).find(h.hash, key) {
            None => self.add(h, entry),
            Some(place) => {
                self.before_change(h, place);
                let old = self.table(h.slot).get(place).expire();
                self.swap_entry(h, place, entry, old, self.access);
            }
        }
    }

    /// Overwrites what is remembered of a key's use, as RESTORE or a file tells it: its frequency under an
    /// LFU policy, otherwise the seconds since.
    pub fn set_usage(&mut self, key: &[u8], idle_seconds: Option<u64>, frequency: Option<u8>) {
        let access = match (usage::is_counted(self.access), idle_seconds, frequency) {
            (true, _, Some(frequency)) => self.ks.usage.with_count(frequency),
            // The clock has 24 bits.
            (false, Some(seconds), _) => self.access.wrapping_sub(seconds.min(0xff_ffff) as u32),
            _ => return,
        };
        self.set_access(key, access);
    }

    /// Overwrites what is remembered of a key's use with what [`EntryRef::access`] said of another one.
    pub fn set_access(&mut self, key: &[u8], access: u32) {
        if let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_access(access);
        }
    }

    /// Notes a use of a key that is neither read nor changed in its value (EXPIRE, RENAME).
    pub fn touch(&mut self, key: &[u8]) {
        if let Some((h, place)) = self.locate(key) {
            let access = self.used(h, place);
            self.table_mut(h.slot).get_mut(place).set_access(access);
        }
    }

    /// What an entry that is used now is stamped with.
    #[inline(always)]
    fn used(&mut self, h: Hashed, place: Place) -> u32 {
        if usage::is_counted(self.access) { self.count_use(h, place) } else { self.access }
    }

    #[cold]
    fn count_use(&mut self, h: Hashed, place: Place) -> u32 {
        let access = self.table(h.slot).get(place).access();
        self.ks.usage.count(access, &mut self.effects.rng)
    }

    /// Adds an entry whose key is not there.
    fn add(&mut self, h: Hashed, mut entry: Entry) {
        entry.set_access(self.access);
        entry.set_parity(self.ks.parity());
        let expire = entry.as_ref().expire();
        let ks = self.ks;
        self.table_mut(h.slot).insert(h.hash, entry, |k| ks.hash(k));
        let shard = Locked::shard_tables(self.tables, shard_of(h.slot));
        bump(&shard.keys, 1);
        self.note_expire(h, None, expire);
    }

    fn swap_entry(
        &mut self,
        h: Hashed,
        place: Place,
        mut entry: Entry,
        old_expire: Option<UnixMs>,
        access: u32,
    ) {
        entry.set_access(access);
        entry.set_parity(self.ks.parity());
        let expire = entry.as_ref().expire();
        let old = self.table_mut(h.slot).replace(place, entry);
        self.dispose(old);
        self.note_expire(h, old_expire, expire);
    }

    /// Keeps the expiry index and its count right when an entry's expiry changes.
    fn note_expire(&mut self, h: Hashed, old: Option<UnixMs>, new: Option<UnixMs>) {
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

    /// Deletes a key. False when it was not there (or dead).
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some((h, place)) = self.locate(key) else { return false };
        let entry = self.take_place(h, place);
        self.dispose(entry);
        true
    }

    /// Takes a value out: its value and expiry.
    pub fn take(&mut self, key: &[u8]) -> Option<(Value, Option<UnixMs>)> {
        let (h, place) = self.locate(key)?;
        let entry = self.take_place(h, place);
        let expire = entry.as_ref().expire();
        Some((entry.into_value(), expire))
    }

    fn take_place(&mut self, h: Hashed, place: Place) -> Entry {
        self.before_change(h, place);
        let ks = self.ks;
        let entry = self.table_mut(h.slot).remove(place, h.hash, |k| ks.hash(k));
        let shard = Locked::shard_tables(self.tables, shard_of(h.slot));
        bump(&shard.keys, -1);
        if let Some(at) = entry.as_ref().expire() {
            bump(&shard.volatile, -1);
            shift(&shard.deadlines, at.wrapping_neg());
        }
        entry
    }

    /// Drops an entry here, or on another thread when that would take long.
    #[inline]
    fn dispose(&self, entry: Entry) {
        if entry.as_ref().object().is_some_and(Value::is_heavy) {
            self.ks.discard(Garbage::Value(entry.into_value()));
        }
    }

    /// The expiry of a key: `None` for a missing key, `Some(None)` for one that stays.
    pub fn expire_of(&mut self, key: &[u8]) -> Option<Option<UnixMs>> {
        self.peek(key).map(EntryRef::expire)
    }

    /// Sets or clears the expiry of a key. False when it is not there.
    pub fn set_expire(&mut self, key: &[u8], expire: Option<UnixMs>) -> bool {
        let Some((h, place)) = self.locate(key) else { return false };
        self.before_change(h, place);
        let old = self.table(h.slot).get(place).expire();
        self.table_mut(h.slot).get_mut(place).set_expire(expire);
        self.note_expire(h, old, expire);
        true
    }

    /// Says that `key` was changed: counts it, marks transactions that watch it, and notes that
    /// clients blocked on it may go on.
    #[inline(always)]
    pub fn changed(&mut self, key: &[u8]) {
        self.effects.dirty += 1;
        let slot = self.hashed(key).slot;
        if !self.locked.side_mut(shard_of(slot)).watchers.is_empty() {
            self.touch_watchers(key);
        }
    }

    fn touch_watchers(&mut self, key: &[u8]) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        if self.locked.side_mut(shard).watchers.touch(index, key) {
            self.effects.ready.push((index, key.to_vec()));
        }
    }

    /// Records a command in the log in place of the one that runs.
    pub fn record<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.effects.recorded = true;
        self.effects.record(self.index, args);
    }

    /// Marks `dirty` when `key` changes.
    pub fn watch(&mut self, key: &[u8], dirty: &Dirty) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.locked.side_mut(shard).watchers.watch(index, key, dirty);
    }

    pub fn unwatch(&mut self, key: &[u8], dirty: &Dirty) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.locked.side_mut(shard).watchers.unwatch(index, key, dirty);
    }

    /// Queues a client behind those that wait for `key` already.
    pub fn block(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let shard = shard_of(self.hashed(key).slot);
        self.waiting_at(shard, |watchers| watchers.block(key, waiter));
    }

    pub fn unblock(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let shard = shard_of(self.hashed(key).slot);
        self.waiting_at(shard, |watchers| watchers.unblock(key, waiter));
    }

    /// The clients that wait for `key`, first come first.
    pub fn blocked_on(&mut self, key: &[u8]) -> Vec<Arc<Waiter>> {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.waiting_at(shard, |watchers| watchers.blocked_on(index, key))
    }

    /// Changes who waits for keys of a shard, and keeps the count of those keys right.
    fn waiting_at<R>(&mut self, shard: usize, change: impl FnOnce(&mut Watchers) -> R) -> R {
        let watchers = &mut self.locked.side_mut(shard).watchers;
        let before = watchers.blocked_keys();
        let result = change(watchers);
        let counter = &self.ks.stats.blocking_keys;
        match watchers.blocked_keys().wrapping_sub(before) {
            0 => {}
            grown => _ = counter.fetch_add(grown, Ordering::Relaxed),
        }
        result
    }

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
    /// bits. Any number is a valid cursor.
    pub fn scan(&self, cursor: u64, f: &mut impl FnMut(EntryRef<'_>)) -> u64 {
        let (first, position) = ((cursor & 0x3fff) as usize, cursor >> 14);
        let tables = SHARDS * SLOTS_PER_SHARD;
        let Some(index) = (first..tables).find(|&i| !self.table(slot_at(i)).is_empty()) else { return 0 };
        let from = if index == first { position } else { 0 };
        let next = self.table(slot_at(index)).scan(from, &mut |e| {
            if self.expiring == Expiring::Ignore || !e.is_expired(self.now) {
                f(e);
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

    /// Keys of the database.
    pub fn len(&self) -> usize {
        self.ks.len(self.index)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Deletes up to `max` keys of the locked shards whose time has come; returns how many it looked at.
    pub fn expire_due(&mut self, max: usize) -> usize {
        let mut looked_at = 0;
        for shard in self.locked.shards() {
            let due = self.locked.expiry_mut(self.tables, shard).take_due(self.now, max);
            looked_at += due.len();
            for reference in due {
                self.settle(shard, reference);
            }
            self.compact_index(shard);
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

    pub(super) fn expiry_index(&mut self, shard: usize) -> &mut ExpiryIndex {
        self.locked.expiry_mut(self.tables, shard)
    }

    /// Rebuilds a shard's index when most of its references are stale.
    fn compact_index(&mut self, shard: usize) {
        let volatile = Locked::shard_tables(self.tables, shard).volatile.load(Ordering::Relaxed);
        if self.locked.expiry_mut(self.tables, shard).len() <= volatile * 2 + 1024 {
            return;
        }
        let mut live = Vec::with_capacity(volatile);
        for i in 0..SLOTS_PER_SHARD {
            self.table(slot_at(shard * SLOTS_PER_SHARD + i)).for_each(|e| {
                if let Some(at) = e.expire() {
                    live.push((at, Reference::new(i, self.ks.hash(e.key()))));
                }
            });
        }
        let index = self.locked.expiry_mut(self.tables, shard);
        index.clear();
        for (at, reference) in live {
            index.file(at, reference);
        }
    }
}

/// Adds to a counter that is written under a lock only: no read-modify-write needed.
#[inline]
fn bump(counter: &std::sync::atomic::AtomicUsize, by: isize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
}

/// As [`bump`], for a sum of times.
#[inline]
fn shift(sum: &std::sync::atomic::AtomicU64, by: UnixMs) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::crc16::key_slot;

    fn with<R>(ks: &Keyspace, now: UnixMs, f: impl FnOnce(&mut Db<'_, '_>) -> R) -> (R, Effects) {
        let mut effects = Effects { log_wanted: true, ..Effects::default() };
        let mut locked = ks.lock_all();
        let r = f(&mut Db::new(&mut locked, 0, now, Expiring::Delete, &mut effects));
        drop(locked);
        (r, effects)
    }

    #[test]
    fn the_mean_deadline_follows_every_change() {
        let ks = Keyspace::new(1, Box::new(drop));
        assert_eq!(ks.mean_deadline(0), None);
        with(&ks, 1, |db| {
            db.set_string(b"{a}1", b"v", SetExpire::At(1000));
            db.set_string(b"b", b"v", SetExpire::At(3000));
            db.set_string(b"stays", b"v", SetExpire::Clear);
        });
        assert_eq!(ks.mean_deadline(0), Some(2000));
        with(&ks, 1, |db| {
            db.set_expire(b"b", Some(5000));
            db.set_string(b"stays", b"v", SetExpire::At(6000));
        });
        assert_eq!(ks.mean_deadline(0), Some(4000));
        with(&ks, 1, |db| {
            db.set_expire(b"b", None);
            db.remove(b"stays");
            db.set_string(b"{a}2", b"v", SetExpire::At(3000));
        });
        assert_eq!(ks.mean_deadline(0), Some(2000));
        ks.flush_slot(&mut ks.lock_all(), 0, key_slot(b"a"));
        assert_eq!(ks.mean_deadline(0), None);
        with(&ks, 1, |db| db.set_string(b"c", b"v", SetExpire::At(7000)));
        ks.flush(&mut ks.lock_all(), 0);
        with(&ks, 1, |db| db.set_string(b"c", b"v", SetExpire::At(8000)));
        assert_eq!(ks.mean_deadline(0), Some(8000));
    }

    #[test]
    fn dead_keys_go_when_met_and_leave_a_del() {
        let ks = Keyspace::new(1, Box::new(drop));
        with(&ks, 100, |db| db.set_string(b"k", b"v", SetExpire::At(150)));
        assert!(with(&ks, 150, |db| db.exists(b"k")).0);
        let (found, mut effects) = with(&ks, 151, |db| db.exists(b"k"));
        assert!(!found && ks.is_empty(0));
        ks.log.set_wanted(true);
        effects.append_to(&ks.log);
        assert!(ks.log.read(0, 1000).unwrap().concat().ends_with(b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"));
    }

    #[test]
    fn the_index_finds_all_dead_keys_and_none_that_were_prolonged() {
        let ks = Keyspace::new(1, Box::new(drop));
        with(&ks, 0, |db| {
            for i in 0..10_000 {
                db.set_string(format!("dead{i}").as_bytes(), b"v", SetExpire::At(1000 + i % 500));
                let kept = format!("kept{i}");
                db.set_string(kept.as_bytes(), b"v", SetExpire::At(1000));
                db.set_expire(kept.as_bytes(), Some(50_000));
            }
        });
        assert_eq!((ks.len(0), ks.volatile_len(0)), (20_000, 20_000));
        with(&ks, 3000, |db| while db.expire_due(100) > 0 {});
        assert_eq!((ks.len(0), ks.volatile_len(0)), (10_000, 10_000));
        with(&ks, 60_000, |db| while db.expire_due(100) > 0 {});
        assert_eq!((ks.len(0), ks.volatile_len(0)), (0, 0));
    }

    #[test]
    fn a_full_scan_meets_every_key_once() {
        let ks = Keyspace::new(1, Box::new(drop));
        with(&ks, 0, |db| {
            for i in 0..5000 {
                db.set_string(format!("{{tag{}}}{i}", i % 100).as_bytes(), b"v", SetExpire::Clear);
            }
            let (mut cursor, mut seen) = (0, std::collections::HashSet::new());
            loop {
                cursor = db.scan(cursor, &mut |e| assert!(seen.insert(e.key().to_vec())));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen.len(), 5000);
            assert!(db.random_key(&mut Rng::new(1)).is_some());
        });
        assert_eq!(ks.flush(&mut ks.lock_all(), 0), 5000);
        assert!(ks.is_empty(0));
    }

    #[test]
    fn a_watched_key_marks_its_transaction_only_when_it_changes() {
        let ks = Keyspace::new(1, Box::new(drop));
        let dirty = Dirty::default();
        with(&ks, 0, |db| {
            db.watch(b"k", &dirty);
            db.changed(b"other");
        });
        assert!(!dirty.load(Ordering::Relaxed));
        with(&ks, 0, |db| db.changed(b"k"));
        assert!(dirty.load(Ordering::Relaxed));
    }
}
