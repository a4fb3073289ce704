//! Shard locks. A command takes the locks of all its keys at once, in ascending order, so that no
//! two commands wait for each other.
//!
//! A thread that holds some shards waits for another one for [`PATIENCE`] at most: for as long as it waits, the
//! shards that it holds are closed to everybody. A worker never waits for longer than that: if [`Keyspace::try_lock`]
//! fails, the client is put aside (see [`super::board`]). Only threads that serve no clients sleep until a shard is
//! free ([`Keyspace::lock`]), and they hold no other shard meanwhile.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};
use std::time::Duration;

use parking_lot::RawMutex;
use parking_lot::lock_api::{self, RawMutex as _, RawMutexTimed as _};

use super::board::{Board, Busy, Reason, Waiting};

use super::db::own::OwnKeys;
use super::expiry::ExpiryIndex;
use super::lock_set::LockSet;
use super::snapshot::Saved;
use super::table::{SlotTable, TableMut};
use super::under_way::UnderWay;
use super::watch::Watchers;
use super::{DbIndex, Keyspace, ShardTables, Tables, shard_of, table_index};
use crate::base::time::UnixMs;

/// How long a worker sleeps for a shard at most: longer than nearly every command holds one, and shorter than a
/// client would notice.
pub const PATIENCE: Duration = Duration::from_millis(1);
/// How often one attempt at several shards sleeps.
const SLEEPS: u32 = 2;
/// For a client that was put aside this many times the worker sleeps longer than usual, and does so although others
/// wait on the board: so no client starves.
const TRIES_BEFORE_QUEUEING: u32 = 8;
const PATIENCE_IN_QUEUE: Duration = Duration::from_millis(4);

/// A client waits on the board for this shard.
const WANTED: u8 = 1;
/// Its holder has said that it will keep it for long ([`Locked::declare_long`]).
const LONG: u8 = 2;

/// One lock and what of the shard is not per database. A pair of cache lines, so that neighbours do not collide.
#[repr(align(128))]
pub(crate) struct ShardLock {
    raw: RawMutex,
    marks: AtomicU8,
    shard: u16,
    board: Arc<Board>,
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
    pub under_way: Vec<UnderWay>,
}

// SAFETY: `side` is reached only while `raw` is locked, and may be used by any thread.
unsafe impl Sync for ShardLock where Side: Send {}

/// A mutex is unlocked by the thread that locked it, so what unlocks it does not leave its thread.
type StaysOnThread = PhantomData<<RawMutex as lock_api::RawMutex>::GuardMarker>;

/// Unlocks on drop.
pub(super) struct ShardGuard<'a>(&'a ShardLock, StaysOnThread);

impl ShardLock {
    pub(super) fn new(shard: usize, board: &Arc<Board>) -> Self {
        Self {
            raw: RawMutex::INIT,
            marks: AtomicU8::new(0),
            shard: shard as u16,
            board: Arc::clone(board),
            side: UnsafeCell::new(Side::default()),
        }
    }

    /// Locks the shard if nobody holds it.
    #[inline(always)]
    pub(super) fn lock_if_free(&self) -> Option<ShardGuard<'_>> {
        self.raw.try_lock().then(|| ShardGuard(self, PhantomData))
    }

    /// Locks the shard for a client that has waited for it `tries` times, if it can be had within a moment.
    #[inline(always)]
    fn lock_soon(&self, tries: u32, sleeps: &mut u32) -> bool {
        self.raw.try_lock() || self.wait_a_moment(tries, sleeps)
    }

    #[cold]
    fn wait_a_moment(&self, tries: u32, sleeps: &mut u32) -> bool {
        let marks = self.marks.load(Ordering::Relaxed);
        let queues = tries >= TRIES_BEFORE_QUEUEING;
        // Not worth waiting: the holder takes long, or another worker has waited for it in vain.
        if marks & LONG != 0 || (marks & WANTED != 0 && !queues) || *sleeps == 0 {
            return false;
        }
        *sleeps -= 1;
        self.raw.try_lock_for(if queues { PATIENCE_IN_QUEUE } else { PATIENCE })
    }

    /// # Safety
    /// The caller has locked it.
    #[inline(always)]
    unsafe fn unlock(&self) {
        // SAFETY: as the caller promises.
        unsafe { self.raw.unlock() };
        // The mark must be looked at after the lock is seen free: `still_wanted` does it in the other order,
        // so that one of the two sees the other. On x86-64 the instruction that unlocks is a full fence.
        if cfg!(target_arch = "x86_64") {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        if self.marks.load(Ordering::Relaxed) & WANTED != 0 {
            self.board.wake_waiting(usize::from(self.shard), false, || self.clear(WANTED));
        }
    }

    /// Marks the shard as waited for. False when it is free by now.
    fn still_wanted(&self) -> bool {
        self.marks.fetch_or(WANTED, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.raw.is_locked()
    }

    fn clear(&self, mark: u8) {
        self.marks.fetch_and(!mark, Ordering::SeqCst);
    }
}

impl Drop for ShardGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the guard exists because the lock was taken.
        unsafe { self.0.unlock() };
    }
}

/// Shards that are locked as long as this lives. The only way to data.
pub struct Locked<'k> {
    ks: &'k Keyspace,
    /// The shard, if exactly one is held, as by nearly every command; else [`NO_SHARD`]. To build, ask and unlock a set
    /// costs such a command 5 % of its time.
    one: usize,
    held: Held,
    thread: StaysOnThread,
}

const NO_SHARD: usize = usize::MAX;

/// What a [`Locked`] holds.
enum Held {
    /// `one`, or nothing.
    One,
    Many(LockSet),
    /// These shards have an entry on the board, with this number.
    Declared(LockSet, u64),
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
        f.debug_tuple("Locked").field(&self.set()).finish()
    }
}

impl Keyspace {
    /// Locks the shards of `set` for a client that was put aside `tries` times for them, if they can be had within
    /// a moment. A thread must not hold another [`Locked`].
    pub fn try_lock(&self, set: LockSet, tries: u32) -> Result<Locked<'_>, Busy> {
        let mut sleeps = SLEEPS;
        self.lock_in_order(set, None, |lock| lock.lock_soon(tries, &mut sleeps))
    }

    /// As [`try_lock`](Self::try_lock), for the shard of one slot.
    #[inline(always)]
    pub fn try_lock_slot(&self, slot: u16, tries: u32) -> Result<Locked<'_>, Busy> {
        let shard = shard_of(slot);
        if self.locks[shard].lock_soon(tries, &mut 1) {
            Ok(self.locked_one(shard))
        } else {
            Err(Busy { shard, key: false })
        }
    }

    /// For a command that needs no shard.
    #[inline(always)]
    pub fn lock_nothing(&self) -> Locked<'_> {
        Locked { ks: self, one: NO_SHARD, held: Held::One, thread: PhantomData }
    }

    /// Whether somebody holds a shard at this moment.
    pub(crate) fn is_locked(&self, shard: usize) -> bool {
        self.locks[shard].raw.is_locked()
    }

    /// Locks one shard, by number, if nobody holds it: for work that can be done later as well.
    pub(crate) fn lock_shard_if_free(&self, shard: usize) -> Option<Locked<'_>> {
        self.locks[shard].raw.try_lock().then(|| self.locked_one(shard))
    }

    /// Locks the shards of `set`, sleeping until they are free: not for a thread that serves clients. It must
    /// not hold another [`Locked`].
    pub fn lock(&self, set: LockSet) -> Locked<'_> {
        let mut mine = None;
        loop {
            let mut sleeps = SLEEPS;
            match self.lock_in_order(set, mine, |lock| lock.lock_soon(TRIES_BEFORE_QUEUEING, &mut sleeps)) {
                Ok(locked) => return locked,
                Err(busy) => {
                    // All others are unlocked by now. This one is kept for the next round.
                    self.locks[busy.shard].raw.lock();
                    mine = Some(busy.shard);
                }
            }
        }
    }

    /// Locks the shard of one slot, sleeping until it is free. See [`lock`](Self::lock).
    #[inline(always)]
    pub fn lock_slot(&self, slot: u16) -> Locked<'_> {
        let shard = shard_of(slot);
        self.locks[shard].raw.lock();
        self.locked_one(shard)
    }

    /// As [`lock_slot`](Self::lock_slot), for a shard by number.
    pub(crate) fn lock_shard(&self, shard: usize) -> Locked<'_> {
        self.lock_slot(shard as u16)
    }

    /// Locks every shard, sleeping until it has them all: then nobody else reads or writes.
    pub fn lock_all(&self) -> Locked<'_> {
        self.lock(LockSet::ALL)
    }

    #[inline(always)]
    fn locked_one(&self, shard: usize) -> Locked<'_> {
        Locked { ks: self, one: shard, held: Held::One, thread: PhantomData }
    }

    /// Takes the locks of `set` in ascending order but for `mine`, which the caller holds. When `take` gives
    /// one up, all are let go.
    fn lock_in_order(
        &self,
        set: LockSet,
        mine: Option<usize>,
        mut take: impl FnMut(&ShardLock) -> bool,
    ) -> Result<Locked<'_>, Busy> {
        let mut taken = LockSet::NONE;
        if let Some(shard) = mine {
            taken.add_shard(shard);
        }
        for shard in set.shards().filter(|shard| Some(*shard) != mine) {
            if !take(&self.locks[shard]) {
                self.unlock(taken);
                return Err(Busy { shard, key: false });
            }
            taken.add_shard(shard);
        }
        Ok(Locked { ks: self, one: NO_SHARD, held: Held::Many(set), thread: PhantomData })
    }

    /// Unlocks shards that the caller has locked.
    fn unlock(&self, set: LockSet) {
        for shard in set.shards() {
            // SAFETY: only makers of a `Locked`, and what drops one, come here, with what they locked.
            unsafe { self.locks[shard].unlock() };
        }
    }

    /// Puts a client on the board until what its command lacks is free. False when it is free by now, and
    /// the command is to be tried again at once. For a key under way, its shard must be locked.
    pub fn put_aside(&self, who: Waiting, busy: Busy, ticket: &mut u64) -> bool {
        let lock = &self.locks[busy.shard];
        self.board.put_aside(who, busy, ticket, || busy.key || lock.still_wanted())
    }
}

impl Drop for Locked<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(lock) = self.ks.locks.get(self.one) {
            // SAFETY: exactly this shard was locked by this value's maker.
            unsafe { lock.unlock() };
        } else if !matches!(self.held, Held::One) {
            self.unlock_all();
        }
    }
}

impl<'k> Locked<'k> {
    #[inline(never)]
    fn unlock_all(&mut self) {
        let set = self.set();
        if let Held::Declared(_, entry) = self.held {
            self.ks.board.end(entry);
            set.shards().for_each(|shard| self.ks.locks[shard].clear(LONG));
        }
        self.ks.unlock(set);
    }

    /// Says that these shards will be held for long. From now on no worker sleeps for them, and the clients that wait
    /// for them are woken, because they may be answered now (-BUSY; see [`Board::holder`]). `since`: when that began.
    pub fn declare_long(&mut self, reason: Reason, since: UnixMs) {
        let (board, set) = (&self.ks.board, self.set());
        if let Held::Declared(_, entry) = self.held {
            board.end(entry);
        }
        self.held = Held::Declared(set, board.declare(set, reason, since));
        self.one = NO_SHARD;
        for shard in set.shards() {
            let lock = &self.ks.locks[shard];
            lock.marks.fetch_or(LONG, Ordering::SeqCst);
            if lock.marks.load(Ordering::SeqCst) & WANTED != 0 {
                board.wake_waiting(shard, false, || lock.clear(WANTED));
            }
        }
    }

    /// Whether its holder has declared itself.
    pub fn is_declared(&self) -> bool {
        matches!(self.held, Held::Declared(..))
    }

    /// Whose shards these are.
    pub fn keyspace(&self) -> &'k Keyspace {
        self.ks
    }

    /// Locks further shards if nobody holds them. They cannot be waited for: that would break the order
    /// in which shards are locked.
    pub fn try_extend(&mut self, more: LockSet) -> bool {
        let mut added = LockSet::NONE;
        for shard in more.shards().filter(|shard| !self.has(*shard)) {
            if !self.ks.locks[shard].raw.try_lock() {
                self.ks.unlock(added);
                return false;
            }
            added.add_shard(shard);
        }
        let set = self.set().union(added);
        self.one = NO_SHARD;
        self.held = match self.held {
            Held::One | Held::Many(_) => Held::Many(set),
            Held::Declared(_, entry) => {
                self.ks.board.widen(entry, added);
                let mark = |shard: usize| _ = self.ks.locks[shard].marks.fetch_or(LONG, Ordering::SeqCst);
                added.shards().for_each(mark);
                Held::Declared(set, entry)
            }
        };
        true
    }

    /// The first shard of `set` that is not among these.
    pub fn missing(&self, set: &LockSet) -> Option<usize> {
        set.shards().find(|shard| !self.has(*shard))
    }

    /// Whether one of these keys of a database is large and wanted by a snapshot: then a part of it has been encoded,
    /// and the command that would write to it comes again once these locks were free.
    #[inline(always)]
    pub fn save_ahead<'a>(&mut self, db: DbIndex, keys: impl IntoIterator<Item = &'a [u8]>) -> Option<Busy> {
        let ks = self.ks;
        if ks.board.writers_look_first() { ks.save_ahead(self, db, keys.into_iter()) } else { None }
    }

    /// The shards that are held.
    pub fn set(&self) -> LockSet {
        match self.held {
            Held::One if self.one == NO_SHARD => LockSet::NONE,
            Held::One => LockSet::of_slot(self.one as u16),
            Held::Many(set) | Held::Declared(set, _) => set,
        }
    }

    /// Whether the shard of a slot is held.
    #[inline]
    pub fn has_slot(&self, slot: u16) -> bool {
        self.has(shard_of(slot))
    }

    /// Whether a shard, by number, is held.
    #[inline(always)]
    pub(super) fn has(&self, shard: usize) -> bool {
        self.one == shard || self.has_among_others(shard)
    }

    fn has_among_others(&self, shard: usize) -> bool {
        match &self.held {
            Held::One => false,
            Held::Many(set) | Held::Declared(set, _) => set.has_shard(shard),
        }
    }

    /// The table of a slot.
    ///
    /// # Panics
    /// When the slot's shard is not locked: a command that touches keys it has not declared.
    #[inline(always)]
    pub(super) fn table<'a>(&'a self, tables: &'a Tables, slot: u16) -> &'a SlotTable {
        assert!(self.has(shard_of(slot)), "slot {slot} is used without its lock");
        // SAFETY: the shard is locked by `self`, and a `TableMut` borrows `self` mutably.
        unsafe { tables.slots[table_index(slot)].locked() }
    }

    #[inline(always)]
    pub(super) fn table_mut<'a>(&'a mut self, tables: &'a Tables, slot: u16) -> TableMut<'a> {
        assert!(self.has(shard_of(slot)), "slot {slot} is used without its lock");
        // SAFETY: the shard is locked by `self`, which is borrowed mutably as long as the table is.
        unsafe { tables.slots[table_index(slot)].locked_mut() }
    }

    #[inline(always)]
    pub(super) fn side_mut(&mut self, shard: usize) -> &mut Side {
        assert!(self.has(shard), "shard {shard} is used without its lock");
        // SAFETY: as for `table_mut`.
        unsafe { &mut *self.ks.locks[shard].side.get() }
    }

    pub(super) fn expiry_mut<'a>(&'a mut self, tables: &'a Tables, shard: usize) -> &'a mut ExpiryIndex {
        assert!(self.has(shard), "shard {shard} is used without its lock");
        // SAFETY: as for `table_mut`.
        unsafe { &mut *tables.shards[shard].expiry.get() }
    }

    pub(super) fn field_expiry_mut<'a>(
        &'a mut self,
        tables: &'a Tables,
        shard: usize,
    ) -> &'a mut ExpiryIndex {
        assert!(self.has(shard), "shard {shard} is used without its lock");
        // SAFETY: as for `table_mut`.
        unsafe { &mut *tables.shards[shard].field_expiry.get() }
    }

    pub(super) fn shard_tables(tables: &Tables, shard: usize) -> &ShardTables {
        &tables.shards[shard]
    }

    /// Shards in the set, ascending.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        self.set().shards()
    }
}

#[cfg(test)]
mod tests;
