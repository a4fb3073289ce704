//! What a command sees of the data: the keys of one database, under the locks it holds.
//!
//! Every change goes through here, so that the snapshot, the expiry index, the counters and the
//! watchers are right without a handler knowing of them. A handler that changed a key says so with
//! [`Db::changed`].

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::board::Reason;
use super::entry::{Body, Entry, EntryRef, INLINE_MAX};
use super::event;
use super::expiry::Reference;
use super::lazy::Cause;
use super::lock_set::LockSet;
use super::locks::Locked;
use super::table::{Place, SlotTable, TableMut};
use super::usage;
use super::{DbIndex, Garbage, Hashed, Keyspace, Known, SLOTS_PER_SHARD, Tables, shard_of, table_index};
use crate::base::time::UnixMs;
use crate::value::{Kind, Value, ValueMut, ValueRef};

/// A command that goes through so many elements takes several milliseconds: longer than anybody sleeps for a shard.
const GIANT: usize = 50_000;

mod dying;
mod effects;
mod fields;
mod flush;
pub(super) mod own;
mod swap;
mod walk;
mod watchers;

pub use effects::{Audience, Effects, Notice};

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
    /// SET without an option: the key lives until it is deleted.
    Clear,
    /// KEEPTTL: as it was before.
    Keep,
    /// Unix milliseconds.
    At(UnixMs),
}

/// One database under locks. See the module.
pub struct Db<'l, 'k> {
    locked: &'l mut Locked<'k>,
    ks: &'k Keyspace,
    tables: &'k Tables,
    index: DbIndex,
    /// The time at which the command runs, Unix milliseconds: whatever has expired by then is dead.
    pub now: UnixMs,
    expiring: Expiring,
    access: u32,
    /// Whether a use stamps the access clock (CLIENT NO-TOUCH).
    touch: bool,
    /// A key whose hash is known already, by address and length: the one that was asked for last.
    hint: Cell<(*const [u8], Hashed)>,
    /// Further keys whose hashes are known, in the order in which most commands ask for them.
    hints: Cell<&'l [Known<'l>]>,
    /// Where everything that the command brings about is collected.
    pub effects: &'l mut Effects,
}

impl std::fmt::Debug for Db<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("index", &self.index).finish_non_exhaustive()
    }
}

impl<'l, 'k> Db<'l, 'k> {
    /// The database `index`, under the locks that are held.
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
            hint: Cell::new((
                std::ptr::slice_from_raw_parts(std::ptr::null(), 0),
                Hashed { slot: 0, hash: 0 },
            )),
            hints: Cell::new(&[]),
            effects,
        }
    }

    /// Tells the hashes of keys that will be asked for.
    #[inline]
    pub fn set_hints(&mut self, keys: &'l [Known<'l>]) {
        if let [(key, hashed), more @ ..] = keys {
            self.hint = Cell::new((*key, *hashed));
            self.hints = Cell::new(more);
        }
    }

    /// CLIENT NO-TOUCH turns it off: access time and frequency are then left alone.
    pub fn set_touch(&mut self, touch: bool) {
        self.touch = touch;
    }

    /// Its number, as SELECT counts.
    pub fn index(&self) -> DbIndex {
        self.index
    }

    /// Goes on in another database.
    pub fn select(&mut self, index: DbIndex) {
        self.index = index;
        self.tables = self.ks.tables(index);
    }

    /// All databases of the node.
    pub fn keyspace(&self) -> &'k Keyspace {
        self.ks
    }

    /// The locks under which it is used.
    pub fn locked(&mut self) -> &mut Locked<'k> {
        self.locked
    }

    /// Tells those who wait for the locked shards that `command` is to go through so many elements, if that takes long.
    pub fn announce_work(&mut self, command: &'static str, elements: usize) {
        if elements >= GIANT && !self.locked.is_declared() {
            self.locked.declare_long(Reason::Command(command), self.now);
        }
    }

    /// Which shards are locked.
    pub fn lock_set(&self) -> LockSet {
        self.locked.set()
    }

    /// What is done with a key whose time is over.
    pub fn expiring(&self) -> Expiring {
        self.expiring
    }

    #[inline(always)]
    fn hashed(&self, key: &[u8]) -> Hashed {
        let (last, hashed) = self.hint.get();
        if std::ptr::eq(last, key) { hashed } else { self.hashed_next(key) }
    }

    #[inline(never)]
    fn hashed_next(&self, key: &[u8]) -> Hashed {
        match self.hints.get() {
            [(next, hashed), more @ ..] if std::ptr::eq(*next, key) => {
                self.hint.set((key, *hashed));
                self.hints.set(more);
                *hashed
            }
            _ => self.ks.hashed(key),
        }
    }

    #[inline(always)]
    pub(in crate::keyspace) fn table(&self, slot: u16) -> &SlotTable {
        self.locked.table(self.tables, slot)
    }

    #[inline(always)]
    fn table_mut(&mut self, slot: u16) -> TableMut<'_> {
        self.locked.table_mut(self.tables, slot)
    }

    /// Finds a live key. A dead one is deleted or hidden.
    #[inline(always)]
    fn locate(&mut self, key: &[u8]) -> Option<(Hashed, Place)> {
        let h = self.hashed(key);
        let (place, entry) = self.table(h.slot).find_entry(h.hash, key)?;
        if let Some(at) = entry.expire()
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

    /// Whether a key with this expiry must be deleted before anything else is done with it.
    #[inline(always)]
    fn is_dead(&self, expire: Option<UnixMs>) -> bool {
        expire.is_some_and(|at| self.now > at) && self.expiring == Expiring::Delete
    }

    #[cold]
    fn expire_now(&mut self, h: Hashed, place: Place) {
        let key = self.table(h.slot).get(place).key().to_vec();
        self.delete_at(h, place, Cause::Expiry);
        self.ks.stats.expired_keys.fetch_add(1, Ordering::Relaxed);
        self.effects.note_slot(h.slot);
        self.effects.record(self.index, &[self.ks.lazy.command(Cause::Expiry), &key]);
        self.changed(&key, event::EXPIRED);
    }

    /// Looks a key up for reading: counts a hit or a miss, tells of a miss, and stamps the access clock.
    #[inline]
    pub fn entry(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (h, place) = self.locate_counted(key)?;
        if self.touch {
            let access = self.used(h, place);
            let entry = self.table_mut(h.slot).get_mut(place);
            entry.set_access(access);
            return Some(entry.as_ref());
        }
        Some(self.table(h.slot).get(place))
    }

    #[inline(always)]
    fn locate_counted(&mut self, key: &[u8]) -> Option<(Hashed, Place)> {
        let found = self.locate(key);
        match found {
            Some(_) => self.effects.hits += 1,
            None => {
                self.effects.misses += 1;
                self.notify(key, event::KEYMISS);
            }
        }
        found
    }

    /// As [`Db::entry`], without stamping the access: to ask about a key is not to use it (TTL, TYPE, EXISTS).
    #[inline]
    pub fn glance(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (h, place) = self.locate_counted(key)?;
        Some(self.table(h.slot).get(place))
    }

    /// Looks a key up for its value: counts a hit or a miss and stamps the access.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        self.entry(key).map(EntryRef::value)
    }

    /// The look of a command that goes on to write, which is when the key counts as used. A command that `look` refuses
    /// has used it, too.
    pub fn inspect<T, E>(
        &mut self,
        key: &[u8],
        look: impl FnOnce(Option<ValueRef<'_>>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let located = self.locate(key);
        let found = look(located.map(|(h, place)| self.table(h.slot).get(place).value()));
        if found.is_err()
            && let Some((h, place)) = located
        {
            self.stamp(h, place);
        }
        found
    }

    /// Looks a key up without a trace: no hit, no access (writers that look first).
    #[inline]
    pub fn peek(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (h, place) = self.locate(key)?;
        Some(self.table(h.slot).get(place))
    }

    /// Looks a key up without changing anything, so that several can be looked at side by side; a
    /// dead one reads as missing.
    pub fn view(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let h = self.hashed(key);
        let (_, entry) = self.table(h.slot).find_entry(h.hash, key)?;
        (self.expiring == Expiring::Ignore || !entry.is_expired(self.now)).then_some(entry)
    }

    /// Whether a key is dead and still there, to be deleted by whoever meets it next.
    pub fn awaits_deletion(&self, key: &[u8]) -> bool {
        let h = self.hashed(key);
        self.table(h.slot).find_entry(h.hash, key).is_some_and(|(_, entry)| self.is_dead(entry.expire()))
    }

    /// Whether a key is there, without a trace.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The type of a key's value, without a trace.
    pub fn kind(&mut self, key: &[u8]) -> Option<Kind> {
        self.peek(key).map(EntryRef::kind)
    }

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
    fn open(&mut self, h: Hashed, place: Place) -> Option<ValueMut<'_>> {
        self.before_change(h, place);
        let access = self.used(h, place);
        let entry = self.table_mut(h.slot).get_mut(place);
        entry.set_access(access);
        entry.object_mut()
    }

    /// Saves the entry for a snapshot that has not reached it.
    #[inline(always)]
    fn before_change(&mut self, h: Hashed, place: Place) {
        if self.table(h.slot).parities() != self.ks.parities() {
            self.ks.preserve(self.locked, self.index, h.slot, place);
        }
    }

    /// As [`Db::before_change`], for an entry that will leave its table for good: a large one is not encoded, because
    /// [`Db::dispose`] keeps it for the snapshot as it is.
    fn before_removal(&mut self, h: Hashed, place: Place) {
        let is_heavy = |entry: EntryRef<'_>| entry.object().is_some_and(|value| value.is_heavy());
        if self.table(h.slot).parities() != self.ks.parities() && !is_heavy(self.table(h.slot).get(place)) {
            self.ks.preserve(self.locked, self.index, h.slot, place);
        }
    }

    /// Sets a string, whatever the key held before.
    #[inline]
    pub fn set_string(&mut self, key: &[u8], bytes: &[u8], expire: SetExpire) {
        let h = self.hashed(key);
        if let SetExpire::At(at) = expire {
            self.note_own(key, Some(at));
        }
        match self.table(h.slot).find_entry(h.hash, key) {
            Some((place, entry)) => {
                let old = entry.expire();
                self.overwrite(h, place, old, key, bytes, expire);
            }
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
        let located = self.locate(key);
        let entry = located.map(|(h, place)| self.table(h.slot).get(place));
        let old = entry.and_then(EntryRef::expire);
        let bytes = match new(entry.map(EntryRef::value)) {
            Ok(bytes) => bytes,
            Err(refusal) => {
                located.into_iter().for_each(|(h, place)| self.stamp(h, place));
                return Err(refusal);
            }
        };
        match located {
            Some((h, place)) => self.overwrite(h, place, old, key, bytes.as_ref(), SetExpire::Keep),
            // Not `add_string`: a replica may hold the key, dead and hidden.
            None => self.set_string(key, bytes.as_ref(), SetExpire::Keep),
        }
        Ok(())
    }

    fn add_string(&mut self, h: Hashed, key: &[u8], bytes: &[u8], expire: SetExpire) {
        let at = if let SetExpire::At(at) = expire { Some(at) } else { None };
        self.add(h, Entry::new(key, Body::string(bytes), at));
    }

    /// Gives a string other bytes. `old`: the expiry that it has.
    #[inline(always)]
    fn overwrite(
        &mut self,
        h: Hashed,
        place: Place,
        old: Option<UnixMs>,
        key: &[u8],
        bytes: &[u8],
        expire: SetExpire,
    ) {
        if self.is_dead(old) {
            self.expire_now(h, place);
            return self.add_string(h, key, bytes, expire);
        }
        self.before_removal(h, place);
        let access = self.used(h, place);
        // Who does not see a dead key makes another in its place.
        let (now, sees_dead) = (self.now, self.expiring == Expiring::Ignore);
        let entry = self.table_mut(h.slot).get_mut(place);
        let at = match expire {
            SetExpire::Clear => None,
            SetExpire::Keep => old.filter(|at| sees_dead || now <= *at),
            SetExpire::At(at) => Some(at),
        };
        if at == old {
            entry.set_access(access);
            if entry.overwrite_inline(bytes) {
                return;
            }
        }
        self.swap_entry(h, place, Entry::new(key, Body::string(bytes), at), old, access);
    }

    /// Changes a string that exists by giving it other bytes; its expiry stays. `raw` marks a
    /// string that APPEND or SETRANGE built.
    pub fn replace_string(&mut self, key: &[u8], bytes: Vec<u8>, raw: bool) {
        if bytes.len() > INLINE_MAX {
            let expire = self.expire_of(key).flatten();
            self.insert(key, Value::String(Arc::new(bytes)), expire);
            return;
        }
        self.set_string(key, &bytes, SetExpire::Keep);
        if raw && let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_raw(true);
        }
    }

    /// Changes the string under `key`, in place where that is possible; it is made, empty, when the key is missing.
    /// Its expiry stays. The key must hold no other type.
    pub fn edit_string<T>(&mut self, key: &[u8], change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let Ok(result) = self.edit_string_if(key, |_| Ok::<(), Infallible>(()), change);
        result
    }

    /// As [`Db::edit_string`], once `check` has agreed to what is there, if something is; it refuses other types.
    pub fn edit_string_if<T, E>(
        &mut self,
        key: &[u8],
        check: impl FnOnce(ValueRef<'_>) -> std::result::Result<(), E>,
        change: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> std::result::Result<T, E> {
        let Some((h, place)) = self.locate(key) else {
            let mut bytes = Vec::new();
            let result = change(&mut bytes);
            self.replace_string(key, bytes, true);
            return Ok(result);
        };
        let entry = self.table(h.slot).get(place);
        if let Err(refusal) = check(entry.value()) {
            self.stamp(h, place);
            return Err(refusal);
        }
        let old = entry.expire();
        let mut bytes = match entry.value() {
            ValueRef::String(bytes) if entry.object().is_none() => bytes.to_vec(),
            _ => match self.open(h, place) {
                Some(ValueMut::String(shared)) => return Ok(change(Arc::make_mut(shared))),
                _ => unreachable!("somebody has looked at the type"),
            },
        };
        let result = change(&mut bytes);
        if bytes.len() > INLINE_MAX {
            self.replace_string(key, bytes, true);
        } else {
            self.overwrite(h, place, old, key, &bytes, SetExpire::Keep);
            self.table_mut(h.slot).get_mut(place).set_raw(true);
        }
        Ok(result)
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

    /// Notes a use of a key that is neither read nor changed in its value (EXPIRE, RENAME). True if it is there.
    pub fn touch(&mut self, key: &[u8]) -> bool {
        let Some((h, place)) = self.locate(key) else { return false };
        self.stamp(h, place);
        true
    }

    /// Notes a use of an entry.
    fn stamp(&mut self, h: Hashed, place: Place) {
        let access = self.used(h, place);
        self.table_mut(h.slot).get_mut(place).set_access(access);
    }

    /// What an entry that is used now is stamped with.
    #[inline(always)]
    fn used(&mut self, h: Hashed, place: Place) -> u32 {
        if usage::is_counted(self.access) || !self.touch { self.count_use(h, place) } else { self.access }
    }

    /// CLIENT NO-TOUCH leaves what is remembered as it is, whatever the command does to the key.
    #[cold]
    fn count_use(&mut self, h: Hashed, place: Place) -> u32 {
        let access = self.table(h.slot).get(place).access();
        if self.touch { self.ks.usage.count(access, &mut self.effects.rng) } else { access }
    }

    /// Adds an entry whose key is not there.
    fn add(&mut self, h: Hashed, mut entry: Entry) {
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

    fn swap_entry(
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

    fn delete_at(&mut self, h: Hashed, place: Place, cause: Cause) {
        self.before_removal(h, place);
        let entry = self.take_place(h, place);
        self.dispose(entry, cause);
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

    /// Takes an entry out of its table. The caller has done what must be done before a change.
    fn take_place(&mut self, h: Hashed, place: Place) -> Entry {
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
    fn dispose(&self, entry: Entry, cause: Cause) {
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

    /// The expiry of a key: `None` for a missing key, `Some(None)` for one that stays.
    pub fn expire_of(&mut self, key: &[u8]) -> Option<Option<UnixMs>> {
        self.peek(key).map(EntryRef::expire)
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

    /// Empties a database. Every shard must be locked. Returns how many keys there were. `lazily`: they count as freed
    /// lazily.
    pub fn flush(&mut self, index: DbIndex, lazily: bool) -> usize {
        self.effects.flushed |= self.ks.tracking.is_on();
        let keys = self.ks.flush(self.locked, index, self.effects);
        if lazily {
            self.ks.stats.lazily_freed.fetch_add(keys as u64, Ordering::Relaxed);
        }
        keys
    }

    /// Records a command in the log in place of the one that runs.
    pub fn record<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.effects.recorded = true;
        self.effects.record(self.index, args);
    }

    /// Records the deletion of a key in the log in place of the command that runs.
    pub fn record_deletion(&mut self, cause: Cause, key: &[u8]) {
        self.record(&[self.ks.lazy.command(cause), key]);
    }

    /// Counts a change that concerns no key.
    pub fn count_change(&mut self) {
        self.effects.dirty += 1;
    }

    /// Counts the elements that changed with a key, which counts as one of them by itself
    /// (`rdb_changes_since_last_save`).
    pub fn count_elements(&mut self, elements: usize) {
        self.effects.dirty += elements.saturating_sub(1) as u64;
    }

    /// Says that replicas are told nothing of what the command that runs has changed.
    pub fn record_nothing(&mut self) {
        self.effects.recorded = true;
    }

    /// Keys of the database.
    pub fn len(&self) -> usize {
        self.ks.len(self.index)
    }

    /// Without any key; dead keys that are still stored count as keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

#[cfg(test)]
mod tests;
