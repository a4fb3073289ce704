//! Level 3: the keyspace. 16,384 slot tables a database, grouped into 128 shards of one lock each.
//!
//! - [`entry`], [`table`]: how a key and a slot are stored;
//! - [`locks`], [`lock_set`]: which shards a command holds ([`locks::Locked`]), and sets of them;
//! - [`board`]: who holds a shard for long, and who waits for one without sleeping; `under_way`: keys that MIGRATE has
//!   sent and that nobody may write to before they are acknowledged;
//! - [`db`]: what a command sees: keys of one database under the locks it holds;
//! - [`expiry`], [`evict`]: how keys go by time and by memory; [`lazy`]: how replicas are told;
//! - [`snapshot`]: one point in time, written without a fork;
//! - [`log`]: every change, in order;
//! - [`event`]: what happens to keys, by name;
//! - [`watch`]: who wants to know that a key changed (WATCH, blocked clients);
//! - [`tracking`]: who has read which key and keeps what it read (CLIENT TRACKING).

use std::cell::UnsafeCell;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::base::crc16::{SLOTS, key_slot};
use crate::base::prefetch::prefetch as prefetch_line;
use crate::base::time::UnixMs;

pub mod board;
pub mod db;
pub mod entry;
pub mod event;
pub mod evict;
pub mod expiry;
pub mod lazy;
pub mod lock_set;
pub mod locks;
pub mod log;
pub mod snapshot;
pub mod table;
pub mod tracking;
mod under_way;
pub mod usage;
pub mod watch;

pub use db::{Audience, Db, Effects};
pub use entry::{Entry, EntryRef};
pub use event::Event;
pub use lock_set::LockSet;
pub use locks::Locked;
pub use log::{Log, UnitInfo};
pub use usage::Usage;

use expiry::ExpiryIndex;
use table::{SharedTable, SlotTable};

/// Number of locks. Slot `s` belongs to shard `s % SHARDS`, so that a run of slots spreads over all.
pub const SHARDS: usize = 128;
/// Number of slot tables under one lock.
pub const SLOTS_PER_SHARD: usize = SLOTS / SHARDS;
// Every slot has a shard, and every shard as many slots, which `table_index` and `slot_at` rely on.
const _: () = assert!(SLOTS.is_multiple_of(SHARDS) && SHARDS.is_power_of_two() && SLOTS <= 1 << 16);

/// Number of a database. Validated against [`Keyspace::databases`].
pub type DbIndex = u16;

/// The slot and the hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The slot, from 0 to 16,383.
    pub slot: u16,
    /// The hash that finds the key in its slot's table; differs from start to start.
    pub hash: u64,
}

/// A key with its hash.
pub type Known<'a> = (&'a [u8], Hashed);

/// All data of the node, and what every thread needs to work on it.
pub struct Keyspace {
    locks: Box<[locks::ShardLock]>,
    /// Who holds a shard for long, and who waits for one.
    pub board: Arc<board::Board>,
    databases: Box<[OnceLock<Box<Tables>>]>,
    /// The place in `databases` of each database: SWAPDB exchanges two. Changes only while every shard
    /// is locked.
    places: Box<[AtomicU16]>,
    hasher: foldhash::quality::RandomState,
    /// What entries that are read or written are stamped with. Advanced by the server's timer.
    pub usage: Usage,
    /// How deletions are told to replicas.
    pub lazy: lazy::Lazy,
    /// A bit for each snapshot that may run: it turns when one begins. Changes only while every shard is locked.
    parities: AtomicU32,
    snapshot: snapshot::Shared,
    /// Every change, for replicas.
    pub log: Arc<Log>,
    /// Counters for INFO.
    pub stats: Stats,
    /// Which clients have read which keys (CLIENT TRACKING).
    pub tracking: tracking::Tracking,
    /// Which events are published (`notify-keyspace-events`).
    pub events: event::Wanted,
    discard: Box<dyn Fn(Garbage) + Send + Sync>,
    /// The tables keep as many buckets as they have (DEBUG DICT-RESIZING 0).
    pub tables_stay: AtomicBool,
}

/// Something that takes long to drop. The server drops it on a thread of its own.
pub enum Garbage {
    /// A large collection or string.
    Value(crate::value::Value),
    /// The tables of an emptied database.
    Tables(Vec<SlotTable>),
    /// What a client leaves behind: no data.
    Buffers(Box<dyn Send>),
}

impl Garbage {
    /// The keys or values that it was.
    pub fn objects(&self) -> usize {
        match self {
            Self::Value(_) => 1,
            Self::Tables(tables) => tables.iter().map(SlotTable::len).sum(),
            Self::Buffers(_) => 0,
        }
    }
}

impl std::fmt::Debug for Garbage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Garbage").field("objects", &self.objects()).finish_non_exhaustive()
    }
}

/// Counters of the keyspace that INFO shows.
#[derive(Debug, Default)]
pub struct Stats {
    /// Keys deleted because their time had come.
    pub expired_keys: AtomicU64,
    /// Hash fields deleted because their time had come.
    pub expired_fields: AtomicU64,
    /// Keys deleted because memory was needed.
    pub evicted_keys: AtomicU64,
    /// Values of lazy deletions that Redis, too, leaves to a thread, as `lazyfreed_objects`.
    pub lazily_freed: AtomicU64,
    /// Changes since the last save, as `rdb_changes_since_last_save`.
    pub dirty: AtomicU64,
    /// Keys that clients wait for.
    pub blocking_keys: AtomicUsize,
    /// Those of them for whose waiters it matters that the key goes, too.
    pub blocking_keys_for_loss: AtomicUsize,
    /// Keys of a writable replica's own that have an expiry.
    pub own_volatile_keys: AtomicUsize,
}

/// A key that a batch of commands will look up. See [`Keyspace::upcoming`].
pub struct Upcoming<'k> {
    table: &'k SharedTable,
    lock: &'k locks::ShardLock,
    hash: u64,
}

impl std::fmt::Debug for Upcoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upcoming").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// Brings the buckets and then the entries of keys near, stage by stage, so that their cache misses
/// overlap. The last stage looks into a bucket that another thread may be freeing, so it takes the
/// shard's lock, and is left out where that is not free.
#[inline]
pub fn prefetch(keys: &[Upcoming<'_>]) {
    if keys.len() < 2 {
        return;
    }
    for k in keys {
        k.table.prefetch_bucket(k.hash);
    }
    for k in keys {
        let Some(_guard) = k.lock.lock_if_free() else { continue };
        // SAFETY: the shard of the table is locked as long as the guard lives.
        unsafe { k.table.locked() }.prefetch_entry(k.hash);
    }
}

/// The slot tables of one database, in shard-major order, and per shard what goes with them.
pub(crate) struct Tables {
    slots: Box<[SharedTable]>,
    shards: Box<[ShardTables]>,
}

#[derive(Default)]
#[repr(align(64))]
pub(crate) struct ShardTables {
    expiry: UnsafeCell<ExpiryIndex>,
    /// The same for the first field of a hash that goes.
    field_expiry: UnsafeCell<ExpiryIndex>,
    /// Keys, and keys with an expiry. Written under the shard's lock, read by anybody.
    keys: AtomicUsize,
    volatile: AtomicUsize,
    /// Hashes with a field that goes.
    timed_hashes: AtomicUsize,
    /// The sum of the times, in milliseconds, at which keys of this shard expire. It may wrap: a mean of
    /// absurd times is absurd anyway.
    deadlines: AtomicU64,
}

// SAFETY: the expiry indices are reached only through `Locked`, which holds the lock of its shard, and may be
// used by any thread; the rest are atomics.
unsafe impl Sync for ShardTables where ExpiryIndex: Send {}

impl Tables {
    /// Tables that the snapshots of these parities need not save.
    fn new(parities: u32) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| SharedTable::new(parities)).collect(),
            shards: (0..SHARDS).map(|_| ShardTables::default()).collect(),
        }
    }
}

/// Index of a slot's table: the slots of a shard stand together.
#[inline(always)]
const fn table_index(slot: u16) -> usize {
    shard_of(slot) * SLOTS_PER_SHARD + slot as usize / SHARDS
}

const fn slot_at(table_index: usize) -> u16 {
    ((table_index % SLOTS_PER_SHARD) * SHARDS + table_index / SLOTS_PER_SHARD) as u16
}

/// The shard of a slot.
#[inline(always)]
pub const fn shard_of(slot: u16) -> usize {
    slot as usize % SHARDS
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("databases", &self.databases.len()).finish_non_exhaustive()
    }
}

impl Keyspace {
    /// `discard` is given what takes long to drop; it may send it to another thread.
    pub fn new(databases: usize, discard: Box<dyn Fn(Garbage) + Send + Sync>) -> Self {
        assert!(databases > 0 && databases <= usize::from(DbIndex::MAX), "a valid number of databases");
        let board = Arc::default();
        let ks = Self {
            locks: (0..SHARDS).map(|shard| locks::ShardLock::new(shard, &board)).collect(),
            board,
            databases: (0..databases).map(|_| OnceLock::new()).collect(),
            places: (0..databases).map(|place| AtomicU16::new(place as u16)).collect(),
            hasher: foldhash::quality::RandomState::default(),
            usage: Usage::default(),
            lazy: lazy::Lazy::default(),
            parities: AtomicU32::new(0),
            snapshot: snapshot::Shared::default(),
            log: Arc::default(),
            stats: Stats::default(),
            tracking: tracking::Tracking::default(),
            events: event::Wanted::default(),
            discard,
            tables_stay: AtomicBool::new(false),
        };
        ks.tables(0);
        ks
    }

    /// How many there are (`databases`).
    pub fn databases(&self) -> usize {
        self.databases.len()
    }

    /// Where a database stands now.
    #[inline(always)]
    fn place(&self, db: DbIndex) -> usize {
        usize::from(self.places[usize::from(db)].load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn tables(&self, db: DbIndex) -> &Tables {
        self.tables_at(self.place(db))
    }

    /// The tables at a place.
    fn tables_at(&self, place: usize) -> &Tables {
        self.databases[place].get_or_init(|| Box::new(Tables::new(self.parities())))
    }

    /// The tables of a database that has ever been used.
    #[inline(always)]
    pub(crate) fn existing_tables(&self, db: DbIndex) -> Option<&Tables> {
        self.databases[self.place(db)].get().map(|t| &**t)
    }

    /// Whether tables grow and shrink with their keys.
    fn resizes(&self) -> bool {
        !self.tables_stay.load(Ordering::Relaxed)
    }

    /// The hash of a key in the tables of this process.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut h = self.hasher.build_hasher();
        h.write(key);
        h.finish()
    }

    /// The slot and the hash of a key, for whoever needs both.
    #[inline]
    pub fn hashed(&self, key: &[u8]) -> Hashed {
        Hashed { slot: key_slot(key), hash: self.hash(key) }
    }

    /// Announces that a key will be looked up: starts loading its slot's header, the first stage of
    /// [`prefetch`].
    #[inline(always)]
    pub fn upcoming(&self, db: DbIndex, key: Hashed) -> Option<Upcoming<'_>> {
        let table = &self.existing_tables(db)?.slots[table_index(key.slot)];
        let lock = &self.locks[shard_of(key.slot)];
        table.prefetch_header();
        prefetch_line(lock);
        Some(Upcoming { table, lock, hash: key.hash })
    }

    /// Keys of a database. Exact when every shard is locked, otherwise of about this moment.
    pub fn len(&self, db: DbIndex) -> usize {
        self.existing_tables(db).map_or(0, |t| t.shards.iter().map(|s| s.keys.load(Ordering::Relaxed)).sum())
    }

    /// Whether a database has no key.
    pub fn is_empty(&self, db: DbIndex) -> bool {
        self.len(db) == 0
    }

    /// Keys of one slot, dead ones included. Takes no lock.
    pub fn slot_len(&self, db: DbIndex, slot: u16) -> usize {
        self.existing_tables(db).map_or(0, |t| t.slots[table_index(slot)].len())
    }

    /// Keys with an expiry of a database.
    pub fn volatile_len(&self, db: DbIndex) -> usize {
        self.existing_tables(db)
            .map_or(0, |t| t.shards.iter().map(|s| s.volatile.load(Ordering::Relaxed)).sum())
    }

    /// Hashes of a database with a field that goes.
    pub fn timed_hashes(&self, db: DbIndex) -> usize {
        self.existing_tables(db)
            .map_or(0, |t| t.shards.iter().map(|s| s.timed_hashes.load(Ordering::Relaxed)).sum())
    }

    /// The mean time at which the keys with an expiry of a database expire; `None` if there are none.
    pub fn mean_deadline(&self, db: DbIndex) -> Option<UnixMs> {
        let (mut keys, mut sum) = (0, 0i128);
        for shard in &self.existing_tables(db)?.shards {
            keys += shard.volatile.load(Ordering::Relaxed) as i128;
            sum += i128::from(shard.deadlines.load(Ordering::Relaxed) as i64);
        }
        (keys > 0).then(|| (sum / keys) as UnixMs)
    }

    /// Hands over what takes long to drop.
    pub fn discard(&self, garbage: Garbage) {
        (self.discard)(garbage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Two threads change and flush one slot, and each fetches ahead what the other is changing. Miri runs
    /// this, too, and tells of every access that races with another.
    #[test]
    fn two_threads_share_a_slot() {
        let ks = Keyspace::new(1, Box::new(drop));
        let slot = key_slot(b"{one}");
        let rounds = if cfg!(miri) { 12 } else { 5000 };
        let work = |seed| {
            let mut rng = Rng::new(seed);
            for round in 0..rounds {
                let keys: Vec<_> = (0..4).map(|_| format!("{{one}}{}", rng.below(50))).collect();
                prefetch(
                    &keys.iter().filter_map(|k| ks.upcoming(0, ks.hashed(k.as_bytes()))).collect::<Vec<_>>(),
                );
                for key in &keys {
                    let (mut locked, mut effects) = (ks.lock_slot(slot), Effects::default());
                    let mut db = Db::new(&mut locked, 0, 1, db::Expiring::Delete, &mut effects);
                    if rng.chance(3, 4) {
                        db.set_string(key.as_bytes(), &[b'v'; 20], db::SetExpire::Clear);
                    } else {
                        db.remove(key.as_bytes());
                    }
                }
                assert!(ks.slot_len(0, slot) <= 50);
                if round % 10 == 9 {
                    ks.flush_slot(&mut ks.lock_slot(slot), 0, slot, &mut Effects::default());
                }
                if round == rounds / 2 && seed == 1 {
                    ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| work(1));
            scope.spawn(|| work(2));
        });
        let mut keys = 0;
        ks.lock_slot(slot).table(ks.tables(0), slot).for_each(|_| keys += 1);
        assert_eq!((ks.slot_len(0, slot), ks.len(0)), (keys, keys));
    }

    #[test]
    fn every_slot_has_its_own_table() {
        for slot in 0..SLOTS as u16 {
            assert_eq!(slot_at(table_index(slot)), slot);
            assert_eq!(table_index(slot) / SLOTS_PER_SHARD, shard_of(slot));
        }
    }
}
