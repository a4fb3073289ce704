//! Shard locks. A command takes the locks of all its keys at once, in ascending order, so that no
//! two commands wait for each other.

use std::cell::UnsafeCell;
use std::marker::PhantomData;

use parking_lot::RawMutex;
use parking_lot::lock_api::{self, RawMutex as _};

use super::db::own::OwnKeys;
use super::expiry::ExpiryIndex;
use super::snapshot::Saved;
use super::table::{SlotTable, TableMut};
use super::watch::Watchers;
use super::{Keyspace, SHARDS, ShardTables, Tables, shard_of, table_index};

/// One lock and what of the shard is not per database. A pair of cache lines, so that neighbours do not collide.
#[repr(align(128))]
pub(crate) struct ShardLock {
    raw: RawMutex,
    side: UnsafeCell<Side>,
}

/// What a shard keeps besides its tables.
#[derive(Default)]
pub(crate) struct Side {
    pub watchers: Watchers,
    /// Entries as they were when the snapshot under way began, already encoded.
    pub saved: Saved,
    /// Keys that a writable replica lets die itself.
    pub own: OwnKeys,
}

// SAFETY: `side` is reached only while `raw` is locked, and may be used by any thread.
unsafe impl Sync for ShardLock where Side: Send {}

impl Default for ShardLock {
    fn default() -> Self {
        Self { raw: RawMutex::INIT, side: UnsafeCell::new(Side::default()) }
    }
}

/// A mutex is unlocked by the thread that locked it, so what unlocks it does not leave its thread.
type StaysOnThread = PhantomData<<RawMutex as lock_api::RawMutex>::GuardMarker>;

/// Unlocks on drop.
pub(super) struct ShardGuard<'a>(&'a ShardLock, StaysOnThread);

impl ShardLock {
    #[inline(always)]
    pub(super) fn lock(&self) -> ShardGuard<'_> {
        self.raw.lock();
        ShardGuard(self, PhantomData)
    }
}

impl Drop for ShardGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the guard exists because the lock was taken.
        unsafe { self.0.raw.unlock() };
    }
}

// A set is whole words.
const _: () = assert!(SHARDS.is_multiple_of(64));

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockSet([u64; SHARDS / 64]);

impl LockSet {
    pub const NONE: Self = Self([0; SHARDS / 64]);
    pub const ALL: Self = Self([u64::MAX; SHARDS / 64]);

    #[inline]
    pub fn of_slot(slot: u16) -> Self {
        let mut set = Self::NONE;
        set.add_slot(slot);
        set
    }

    #[inline]
    pub fn add_slot(&mut self, slot: u16) {
        self.add_shard(shard_of(slot));
    }

    #[inline]
    pub(super) fn add_shard(&mut self, shard: usize) {
        self.0[shard / 64] |= 1 << (shard % 64);
    }

    #[inline]
    pub fn has_shard(&self, shard: usize) -> bool {
        self.0[shard / 64] >> (shard % 64) & 1 != 0
    }

    #[inline]
    pub fn has_slot(&self, slot: u16) -> bool {
        self.has_shard(shard_of(slot))
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    pub fn union(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a |= b;
        }
        self
    }

    pub fn contains(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| a & b == b)
    }

    /// The shards in ascending order.
    #[inline]
    fn shards(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = bits;
            std::iter::from_fn(move || {
                if bits == 0 {
                    return None;
                }
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

/// Shards that are locked as long as this lives. The only way to data.
pub struct Locked<'k> {
    ks: &'k Keyspace,
    set: LockSet,
    /// The one shard of the common command, to unlock it without a walk over the set.
    only: Option<usize>,
    thread: StaysOnThread,
}

/// Does not compile if `Locked` could be sent to another thread: `Check` would then hold in two ways.
const _: () = {
    trait Check<Way> {
        const HOLDS: () = ();
    }
    struct Any;
    struct Sent;
    impl<T> Check<Any> for T {}
    impl<T: Send> Check<Sent> for T {}
    let () = <Locked<'static> as Check<_>>::HOLDS;
};

impl std::fmt::Debug for Locked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Locked").field(&self.set).finish()
    }
}

impl Keyspace {
    /// Locks the shards of `set`, waiting for each. A thread must not hold another [`Locked`].
    pub fn lock(&self, set: LockSet) -> Locked<'_> {
        for shard in set.shards() {
            self.locks[shard].raw.lock();
        }
        Locked { ks: self, set, only: None, thread: PhantomData }
    }

    /// Locks the shard of one slot.
    #[inline(always)]
    pub fn lock_slot(&self, slot: u16) -> Locked<'_> {
        let shard = shard_of(slot);
        self.locks[shard].raw.lock();
        Locked { ks: self, set: LockSet::of_slot(slot), only: Some(shard), thread: PhantomData }
    }

    /// Locks one shard by number.
    pub(crate) fn lock_shard(&self, shard: usize) -> Locked<'_> {
        self.lock_slot(shard as u16)
    }

    pub fn lock_all(&self) -> Locked<'_> {
        self.lock(LockSet::ALL)
    }
}

impl Drop for Locked<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.only {
            // SAFETY: exactly the shards of the set were locked by this value's maker.
            Some(shard) => unsafe { self.ks.locks[shard].raw.unlock() },
            None => self.unlock_all(),
        }
    }
}

impl<'k> Locked<'k> {
    #[inline(never)]
    fn unlock_all(&mut self) {
        for shard in self.set.shards() {
            // SAFETY: as in `drop`, whose part this is.
            unsafe { self.ks.locks[shard].raw.unlock() };
        }
    }

    pub fn keyspace(&self) -> &'k Keyspace {
        self.ks
    }

    /// Locks further shards if nobody holds them. They cannot be waited for: that would break the order
    /// in which shards are locked.
    pub fn try_extend(&mut self, more: LockSet) -> bool {
        let mut added = LockSet::NONE;
        for shard in more.shards().filter(|shard| !self.set.has_shard(*shard)) {
            if !self.ks.locks[shard].raw.try_lock() {
                for shard in added.shards() {
                    // SAFETY: locked just now.
                    unsafe { self.ks.locks[shard].raw.unlock() };
                }
                return false;
            }
            added.add_shard(shard);
        }
        self.set = self.set.union(added);
        self.only = None;
        true
    }

    pub fn set(&self) -> &LockSet {
        &self.set
    }

    /// The table of a slot.
    ///
    /// # Panics
    /// When the slot's shard is not locked: a command that touches keys it has not declared.
    #[inline(always)]
    pub(super) fn table<'a>(&'a self, tables: &'a Tables, slot: u16) -> &'a SlotTable {
        assert!(self.set.has_slot(slot), "slot {slot} is used without its lock");
        // SAFETY: the shard is locked by `self`, and a `TableMut` borrows `self` mutably.
        unsafe { tables.slots[table_index(slot)].locked() }
    }

    #[inline(always)]
    pub(super) fn table_mut<'a>(&'a mut self, tables: &'a Tables, slot: u16) -> TableMut<'a> {
        assert!(self.set.has_slot(slot), "slot {slot} is used without its lock");
        // SAFETY: the shard is locked by `self`, which is borrowed mutably as long as the table is.
        unsafe { tables.slots[table_index(slot)].locked_mut() }
    }

    #[inline(always)]
    pub(super) fn side_mut(&mut self, shard: usize) -> &mut Side {
        assert!(self.set.has_shard(shard), "shard {shard} is used without its lock");
        // SAFETY: as for `table_mut`.
        unsafe { &mut *self.ks.locks[shard].side.get() }
    }

    pub(super) fn expiry_mut<'a>(&'a mut self, tables: &'a Tables, shard: usize) -> &'a mut ExpiryIndex {
        assert!(self.set.has_shard(shard), "shard {shard} is used without its lock");
        // SAFETY: as for `table_mut`.
        unsafe { &mut *tables.shards[shard].expiry.get() }
    }

    pub(super) fn field_expiry_mut<'a>(
        &'a mut self,
        tables: &'a Tables,
        shard: usize,
    ) -> &'a mut ExpiryIndex {
        assert!(self.set.has_shard(shard), "shard {shard} is used without its lock");
        // SAFETY: as for `table_mut`.
        unsafe { &mut *tables.shards[shard].field_expiry.get() }
    }

    pub(super) fn shard_tables(tables: &Tables, shard: usize) -> &ShardTables {
        &tables.shards[shard]
    }

    /// Shards in the set, ascending.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        self.set.shards()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_know_their_shards_in_order() {
        let mut set = LockSet::NONE;
        for slot in [16383, 5, 128 + 5, 70] {
            set.add_slot(slot);
        }
        assert_eq!(set.shards().collect::<Vec<_>>(), [5, 70, 127]);
        assert!(LockSet::ALL.contains(&set) && !set.contains(&LockSet::ALL));
        assert_eq!(LockSet::ALL.shards().count(), SHARDS);
    }

    #[test]
    fn shards_are_added_only_when_all_of_them_are_free() {
        let ks = Keyspace::new(1, Box::new(drop));
        let mut mine = ks.lock_slot(5);
        let theirs = ks.lock_slot(7);
        let mut more = LockSet::of_slot(6);
        more.add_slot(7);
        assert!(!mine.try_extend(more) && !mine.set().has_slot(6));
        drop(theirs);
        assert!(mine.try_extend(more) && mine.set().contains(&more) && mine.set().has_slot(5));
        drop(mine);
        assert!(ks.lock_slot(5).try_extend(LockSet::ALL));
    }

    #[test]
    #[should_panic(expected = "without its lock")]
    fn data_without_its_lock_is_a_bug() {
        let ks = Keyspace::new(1, Box::new(drop));
        let locked = ks.lock_slot(0);
        let _ = locked.table(ks.tables(0), 1);
    }

    #[test]
    fn crossing_commands_do_not_deadlock() {
        let ks = Keyspace::new(1, Box::new(drop));
        std::thread::scope(|scope| {
            for t in 0..4u16 {
                let ks = &ks;
                scope.spawn(move || {
                    for i in 0..2000u16 {
                        let mut set = LockSet::of_slot(i.wrapping_mul(7 + t));
                        set.add_slot(i.wrapping_mul(13) % 16384);
                        set.add_slot(t);
                        drop(ks.lock(set));
                        if i % 100 == 0 {
                            drop(ks.lock_all());
                        }
                    }
                });
            }
        });
    }
}
