//! Snapshots without a fork: the whole keyspace at one point in time, written while writers go on.
//!
//! [`Keyspace::begin_snapshot`] runs with every shard locked for a moment: it raises the snapshot
//! number, and with it every slot counts as not yet saved. [`Walk`] then visits slot after slot
//! with a short lock each. A writer about to change an entry that the walk has not reached first
//! encodes it as it was, into a buffer beside the slot, which the walk collects when it comes by.
//! So a writer pays for the entry that it changes, once, and the memory that a snapshot takes is
//! what changed while it ran.
//!
//! A table carries the number of the snapshot that has all of it on record, so that a writer finds out
//! with one comparison that there is nothing to do. The walk numbers every table of every database, also
//! the empty ones, and a database that comes into being begins with the number of the time.
//!
//! An entry carries one bit, the parity of the snapshot that last had it on record. Entries added
//! meanwhile carry the new parity and are not part of the snapshot. When the walk ends every entry
//! has the parity of this snapshot, which the next one takes to mean "not yet saved".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::entry::{Entry, EntryRef};
use super::locks::{LockSet, Locked};
use super::table::{Place, SlotTable};
use super::{DbIndex, Keyspace, SLOTS_PER_SHARD, slot_at};
use crate::base::crc16::SLOTS;

/// Appends one entry in the snapshot's format.
pub type Encode = dyn Fn(EntryRef<'_>, &mut Vec<u8>) + Send + Sync;

/// Bytes after which the walk lets go of a slot's lock and hands out what it has.
const CHUNK: usize = 64 * 1024;

/// Encoded entries of slots that the walk has not reached, by the place of their database and the slot.
#[derive(Default)]
pub(crate) struct Saved(HashMap<(usize, u16), Vec<u8>>);

/// What walk and writers share.
#[derive(Default)]
pub(crate) struct Shared {
    running: AtomicBool,
    encode: RwLock<Option<Arc<Encode>>>,
    /// Tables that were flushed before the walk reached them, with the place of their database.
    frozen: Mutex<Vec<(usize, SlotTable)>>,
}

impl Keyspace {
    /// Whether a snapshot is being written.
    pub fn is_snapshot_running(&self) -> bool {
        self.snapshot.running.load(Ordering::Acquire)
    }

    /// Begins a snapshot: everything as it is while `locked` holds every shard. `None` when a
    /// snapshot is being written already.
    ///
    /// # Panics
    /// When not every shard is locked.
    pub fn begin_snapshot(self: &Arc<Self>, locked: &Locked<'_>, encode: Arc<Encode>) -> Option<Walk> {
        assert!(locked.set().contains(&LockSet::ALL), "a snapshot begins with every shard locked");
        if self.snapshot.running.swap(true, Ordering::AcqRel) {
            return None;
        }
        *self.snapshot.encode.write() = Some(encode);
        let number = self.snapshot_number.load(Ordering::Relaxed).wrapping_add(1);
        self.snapshot_number.store(number, Ordering::Relaxed);
        let databases = (0..self.databases() as DbIndex)
            .filter_map(|db| Some((db, self.existing_tables(db)?)))
            .filter(|(db, _)| !self.is_empty(*db))
            .map(|(db, _)| (db, self.len(db), self.volatile_len(db)))
            .collect();
        let mut names = vec![0; self.databases()];
        for db in 0..self.databases() as DbIndex {
            names[self.place(db)] = db;
        }
        Some(Walk { ks: Arc::clone(self), number, databases, names, at: Cursor::default(), frozen: None })
    }

    /// The number that tables which are on record carry.
    #[inline]
    pub(super) fn snapshot_number(&self) -> u32 {
        self.snapshot_number.load(Ordering::Relaxed)
    }

    /// Parity of entries that the snapshot under way need not save.
    #[inline]
    pub(super) fn parity(&self) -> bool {
        self.snapshot_number() & 1 != 0
    }

    /// Saves the entry as it is if the snapshot under way still needs it. The caller has found
    /// that the table is not on record.
    #[cold]
    pub(super) fn preserve(&self, locked: &mut Locked<'_>, db: DbIndex, slot: u16, place: Place) {
        let tables = self.tables(db);
        let parity = self.parity();
        let entry = locked.table_mut(tables, slot).get_mut(place);
        if entry.as_ref().parity() == parity {
            return;
        }
        entry.set_parity(parity);
        let Some(encode) = self.snapshot.encode.read().clone() else { return };
        let mut bytes = Vec::new();
        encode(locked.table(tables, slot).get(place), &mut bytes);
        locked
            .side_mut(super::shard_of(slot))
            .saved
            .0
            .entry((self.place(db), slot))
            .or_default()
            .extend_from_slice(&bytes);
    }

    /// Sets aside a table that is about to be dropped, if the snapshot under way still needs it.
    pub(super) fn freeze(&self, db: DbIndex, table: SlotTable) -> Option<SlotTable> {
        if !self.is_snapshot_running() || table.saved_in() == self.snapshot_number() {
            return Some(table);
        }
        self.snapshot.frozen.lock().push((self.place(db), table));
        None
    }
}

#[derive(Clone, Copy, Default)]
struct Cursor {
    database: DbIndex,
    table: usize,
    position: u64,
}

/// The walk over a snapshot. Dropping it before its end finishes the walk without keeping anything.
pub struct Walk {
    ks: Arc<Keyspace>,
    number: u32,
    /// Database, keys and keys with an expiry when the snapshot began.
    databases: Vec<(DbIndex, usize, usize)>,
    /// The database at each place when the snapshot began. Two of them may have changed places since.
    names: Vec<DbIndex>,
    at: Cursor,
    /// Flushed tables, taken once the databases are through.
    frozen: Option<Vec<(usize, SlotTable)>>,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Walk {
    /// Databases in the snapshot: number, keys, keys with an expiry.
    pub fn databases(&self) -> &[(DbIndex, usize, usize)] {
        &self.databases
    }

    /// Keys in the snapshot.
    pub fn keys(&self) -> usize {
        self.databases.iter().map(|d| d.1).sum()
    }

    /// Appends the next encoded entries to `out`, about 64 KiB, all of the database returned.
    /// `None` at the end. A database may come up again behind others when it was flushed meanwhile.
    pub fn next_chunk(&mut self, out: &mut Vec<u8>) -> Option<DbIndex> {
        let begin = out.len();
        while usize::from(self.at.database) < self.ks.databases() {
            let db = self.at.database;
            // Where it stood when the snapshot began; SWAPDB may have given it another place meanwhile.
            let place = self.names.iter().position(|name| *name == db).expect("each database has a place");
            // A database that was empty has nothing to save, and tables to be put on record all the same.
            while self.at.table < SLOTS && self.ks.databases[place].get().is_some() {
                self.visit(place, out);
                if out.len() - begin >= CHUNK {
                    return Some(db);
                }
            }
            self.at = Cursor { database: self.at.database + 1, ..Cursor::default() };
            if out.len() > begin {
                return Some(db);
            }
        }
        self.next_frozen(out)
    }

    /// Encodes some of the slot under the cursor, or of the next of its shard that is not empty, and moves on.
    fn visit(&mut self, place: usize, out: &mut Vec<u8>) {
        let shard = self.at.table / SLOTS_PER_SHARD;
        let ks = &*self.ks;
        let mut locked = ks.lock_shard(shard);
        let slot = loop {
            let slot = slot_at(self.at.table);
            let saved = &mut locked.side_mut(shard).saved.0;
            if !saved.is_empty()
                && let Some(saved) = saved.remove(&(place, slot))
            {
                out.extend_from_slice(&saved);
            }
            let mut table = locked.table_mut(ks.tables_at(place), slot);
            if !table.is_empty() {
                break slot;
            }
            table.set_saved_in(self.number);
            self.at = Cursor { table: self.at.table + 1, position: 0, ..self.at };
            if self.at.table / SLOTS_PER_SHARD != shard {
                return;
            }
        };
        let encode = ks.snapshot.encode.read().clone().expect("set while a snapshot runs");
        let parity = ks.parity();
        let mut table = locked.table_mut(ks.tables_at(place), slot);
        let (begin, mut position) = (out.len(), Some(self.at.position));
        while let Some(at) = position {
            position = table.scan_mut(at, &mut |entry| save(entry, parity, &*encode, out));
            if out.len() - begin >= CHUNK {
                break;
            }
        }
        match position {
            Some(at) => self.at.position = at,
            None => {
                table.set_saved_in(self.number);
                self.at = Cursor { table: self.at.table + 1, position: 0, ..self.at };
            }
        }
    }

    fn next_frozen(&mut self, out: &mut Vec<u8>) -> Option<DbIndex> {
        let ks = &*self.ks;
        let frozen = self.frozen.get_or_insert_with(|| std::mem::take(&mut *ks.snapshot.frozen.lock()));
        let (encode, parity) = (ks.snapshot.encode.read().clone()?, ks.parity());
        while let Some((place, mut table)) = frozen.pop() {
            let begin = out.len();
            let mut position = Some(0);
            while let Some(at) = position {
                position = table.exclusive().scan_mut(at, &mut |entry| save(entry, parity, &*encode, out));
            }
            ks.discard(super::Garbage::Tables(vec![table]));
            if out.len() > begin {
                return Some(self.names[place]);
            }
        }
        None
    }
}

fn save(entry: &mut Entry, parity: bool, encode: &Encode, out: &mut Vec<u8>) {
    if entry.as_ref().parity() != parity {
        encode(entry.as_ref(), out);
        entry.set_parity(parity);
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Every entry must leave with this snapshot's parity, or the next one would miss it.
        let mut scratch = Vec::new();
        while self.next_chunk(&mut scratch).is_some() {
            scratch.clear();
        }
        *self.ks.snapshot.encode.write() = None;
        self.ks.snapshot.running.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::keyspace::Effects;
    use crate::keyspace::db::{Expiring, SetExpire};
    use crate::value::ValueRef;
    use std::collections::BTreeMap;

    type Picture = BTreeMap<Vec<u8>, Vec<u8>>;

    fn encode() -> Arc<Encode> {
        Arc::new(|e, out| {
            let ValueRef::String(v) = e.value() else { panic!("only strings here") };
            for part in [e.key(), v] {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
                out.extend_from_slice(part);
            }
        })
    }

    fn decode(mut bytes: &[u8], into: &mut Picture) {
        let mut part = || {
            let (len, rest) = bytes.split_first_chunk::<4>()?;
            let (part, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
            bytes = rest;
            Some(part.to_vec())
        };
        while let Some(key) = part() {
            let value = part().unwrap();
            assert!(into.insert(key, value).is_none(), "every key once");
        }
    }

    fn set(ks: &Keyspace, key: &[u8], value: &[u8]) {
        let mut locked = ks.lock_slot(ks.hashed(key).slot);
        Db::new(&mut locked, 0, 1, Expiring::Delete, &mut Effects::default()).set_string(
            key,
            value,
            SetExpire::Clear,
        );
    }
    use crate::keyspace::Db;

    fn delete(ks: &Keyspace, key: &[u8]) {
        let mut locked = ks.lock_slot(ks.hashed(key).slot);
        Db::new(&mut locked, 0, 1, Expiring::Delete, &mut Effects::default()).remove(key);
    }

    /// Afterwards a writer finds out with one look that there is nothing to save: in a database that was
    /// empty, in one that came into being meanwhile, and in one that comes later.
    #[test]
    fn a_snapshot_puts_every_table_of_every_database_on_record() {
        let ks = Arc::new(Keyspace::new(4, Box::new(drop)));
        let everything_is_on_record = |db: DbIndex| {
            let (locked, number) = (ks.lock_all(), ks.snapshot_number());
            (0..SLOTS as u16).all(|slot| locked.table(ks.tables(db), slot).saved_in() == number)
        };
        set(&ks, b"key", b"value");
        ks.tables(1);
        let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
        assert_eq!(walk.databases(), [(0, 1, 0)], "only what there is to write");
        assert!(!everything_is_on_record(0) && !everything_is_on_record(1));
        ks.tables(2);
        while walk.next_chunk(&mut Vec::new()).is_some() {}
        drop(walk);
        for db in 0..4 {
            assert!(everything_is_on_record(db), "database {db}");
        }
    }

    /// A database keeps its part in the snapshot when it changes its number, also with one that never was.
    #[test]
    fn a_snapshot_holds_what_is_swapped_away() {
        let ks = Arc::new(Keyspace::new(4, Box::new(drop)));
        set(&ks, b"key", b"value");
        let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
        let (mut locked, mut effects) = (ks.lock_all(), Effects::default());
        Db::new(&mut locked, 1, 1, Expiring::Delete, &mut effects).swap(0, 3);
        drop(locked);
        let (mut got, mut out) = (Picture::new(), vec![]);
        assert_eq!(walk.next_chunk(&mut out), Some(0));
        decode(&out, &mut got);
        assert_eq!(got, Picture::from([(b"key".to_vec(), b"value".to_vec())]));
    }

    /// Three snapshots in a row, each raced by random writes, deletions and once a flush: each must
    /// be exactly what was there when it began.
    #[test]
    fn a_snapshot_is_one_point_in_time() {
        let mut rng = Rng::new(9);
        let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
        let mut model = Picture::new();
        let write = |rng: &mut Rng, model: &mut Picture| {
            let key = format!("key:{{{}}}{}", rng.below(40), rng.below(300)).into_bytes();
            if rng.chance(3, 4) {
                let value = rng.next_u64().to_string().into_bytes();
                set(&ks, &key, &value);
                model.insert(key, value);
            } else {
                delete(&ks, &key);
                model.remove(&key);
            }
        };
        let (writes, beside) = if cfg!(miri) { (100, 20) } else { (5000, 200) };
        // The second is raced by a flush, the last is given up.
        for round in if cfg!(miri) { 1..3 } else { 0..4 } {
            for _ in 0..writes {
                write(&mut rng, &mut model);
            }
            let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
            assert!(ks.begin_snapshot(&ks.lock_all(), encode()).is_none(), "one at a time");
            let (want, mut got, mut out) = (model.clone(), Picture::new(), vec![]);
            assert_eq!(walk.keys(), want.len());
            if round == 3 || (cfg!(miri) && round != 1) {
                drop(walk);
                continue;
            }
            for step in 0.. {
                for _ in 0..beside {
                    write(&mut rng, &mut model);
                }
                if round == 1 && step == 1 {
                    ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
                    model.clear();
                }
                if walk.next_chunk(&mut out).is_none() {
                    break;
                }
            }
            decode(&out, &mut got);
            assert!(got == want, "round {round}: {} keys for {}", got.len(), want.len());
        }
        let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
        let (mut got, mut out) = (Picture::new(), vec![]);
        while walk.next_chunk(&mut out).is_some() {}
        decode(&out, &mut got);
        assert!(got == model, "after an aborted snapshot");
    }
}
