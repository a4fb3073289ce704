//! What a command sees of the data: the keys of one database, under the locks it holds.
//!
//! Every change goes through here, so that the snapshot, the expiry index, the counters and the
//! watchers are right without a handler knowing of them. A handler that changed a key says so with
//! [`Db::changed`].
//!
//! | file | concept |
//! |---|---|
//! | `look` | looking keys up, and what that counts as |
//! | `change` | entries that come, change and go, with what must be kept right then |
//! | `strings` | strings, which are changed within their entry while they are short |
//! | `fields` | fields of hashes that expire |
//! | `expire` | keys that expire |
//! | `own` | keys that a writable replica expires itself |
//! | `watchers` | who is told that a key changed |
//! | `effects` | what a command brings about besides its reply |
//! | `walk` | walks over a database: KEYS, SCAN, RANDOMKEY |
//! | `flush` | emptying a database or a slot |
//! | `swap` | SWAPDB |

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::board::Reason;
use super::lazy::Cause;
use super::lock_set::LockSet;
use super::locks::Locked;
use super::table::{Place, SlotTable, TableMut};
use super::{DbIndex, Hashed, Keyspace, Known, Tables};
use crate::base::time::UnixMs;

/// A command that goes through so many elements takes several milliseconds: longer than anybody sleeps for a shard.
const GIANT: usize = 50_000;

mod change;
mod effects;
mod expire;
mod fields;
mod flush;
mod look;
pub(super) mod own;
mod strings;
mod swap;
mod walk;
mod watchers;

use change::{bump, shift};
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
    /// Whether reads stamp the access clock (CLIENT NO-TOUCH).
    touch: bool,
    /// The key that was asked for last, by address and length, and its hash.
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

#[cfg(test)]
mod tests;
