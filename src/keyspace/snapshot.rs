//! Snapshots without a fork: the whole keyspace at one point in time, written while writers go on.
//!
//! [`Keyspace::begin_snapshot`] runs with every shard locked for a moment: it raises the snapshot
//! number, and with it every slot counts as not yet saved. [`Walk`] then visits slot after slot
//! with a short lock each. A writer about to change an entry that the walk has not reached first
//! encodes it as it was, into a buffer beside the slot, which the walk collects when it comes by.
//! So a writer pays for the entry that it changes, once, and the memory that a snapshot takes is
//! what changed while it ran. A large entry is written part by part, and its shard is free in between, also by
//! a writer ([`writers`]).
//!
//! Several snapshots may run at once, each in a lane of its own. A lane has a parity, which turns when a snapshot
//! begins in it. Every entry and every table carries one bit a lane: equal to the lane's parity where that snapshot
//! has it on record. Entries added meanwhile carry the parities of the time and are part of no snapshot. When a walk
//! ends every table and entry has its lane's parity, which the next snapshot of the lane takes to mean "not yet
//! saved". So a writer finds out with one comparison, of its table's bits with the parities, that there is nothing
//! to do. The walk marks every table of every database, also the empty ones; a database that comes into being begins
//! with the parities of the time.

mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::entry::{Entry, EntryRef};
use super::lock_set::LockSet;
use super::locks::Locked;
use super::table::SlotTable;
use super::{DbIndex, Keyspace, SLOTS_PER_SHARD, slot_at};
use crate::base::crc16::SLOTS;
use crate::value::StreamId;
use writers::Begun;
pub(crate) use writers::Saved;

/// Appends a part of an entry in the snapshot's format. Returns where the next one begins, `None` behind the last.
pub type Encode = dyn Fn(EntryRef<'_>, Part, &mut Vec<u8>) -> Option<Position> + Send + Sync;

/// A part of an encoded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub from: Position,
    /// It ends behind the element that makes it so many bytes.
    pub most: usize,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { from: Position::START, most: usize::MAX };
}

/// A place within an entry, as its encoder counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of an element or of a step.
    pub index: usize,
    /// Within that, the id of a stream behind which it goes on.
    pub behind: Option<StreamId>,
}

impl Position {
    /// The beginning of the entry.
    pub const START: Self = Self::at(0);

    /// The beginning of an element or step.
    pub const fn at(index: usize) -> Self {
        Self { index, behind: None }
    }
}

/// Bytes after which the walk lets go of a slot's lock and hands out what it has.
const CHUNK: usize = 64 * 1024;

/// Snapshots that may run at once: for a data file, for the append-only file and for replicas. Entries have room for
/// so many bits.
const LANES: usize = 3;

/// What walks and writers share.
#[derive(Default)]
pub(crate) struct Shared {
    lanes: [Lane; LANES],
    frozen: Mutex<Vec<Frozen>>,
}

#[derive(Default)]
struct Lane {
    running: AtomicBool,
    encode: RwLock<Option<Arc<Encode>>>,
    /// A writer has encoded a part of something.
    ahead: AtomicBool,
}

/// A table that was flushed before walks reached it, or a large entry that was deleted, in a table of its own.
struct Frozen {
    /// Of its database.
    place: usize,
    table: SlotTable,
    /// The bits of the lanes that still need it.
    wanted: u32,
}

impl Keyspace {
    /// Whether any snapshot is being written.
    pub fn is_snapshot_running(&self) -> bool {
        self.snapshot.lanes.iter().any(|lane| lane.running.load(Ordering::Acquire))
    }

    /// Begins a snapshot: everything as it is while `locked` holds every shard. `None` when as many
    /// snapshots as may be are being written already.
    ///
    /// # Panics
    /// When not every shard is locked.
    pub fn begin_snapshot(self: &Arc<Self>, locked: &Locked<'_>, encode: Arc<Encode>) -> Option<Walk> {
        assert!(locked.set().contains(&LockSet::ALL), "a snapshot begins with every shard locked");
        let lanes = &self.snapshot.lanes;
        let lane = lanes.iter().position(|lane| !lane.running.swap(true, Ordering::AcqRel))?;
        *lanes[lane].encode.write() = Some(encode);
        self.board.begin_looking();
        self.parities.fetch_xor(1 << lane, Ordering::Relaxed);
        let databases = (0..self.databases() as DbIndex)
            .filter_map(|db| Some((db, self.existing_tables(db)?)))
            .filter(|(db, _)| !self.is_empty(*db))
            .map(|(db, _)| (db, self.len(db), self.volatile_len(db)))
            .collect();
        let mut names = vec![0; self.databases()];
        for db in 0..self.databases() as DbIndex {
            names[self.place(db)] = db;
        }
        Some(Walk {
            ks: Arc::clone(self),
            lane,
            databases,
            names,
            at: Cursor::default(),
            thawed: Thawed::default(),
        })
    }

    /// The bits of tables and entries that no snapshot needs any more.
    #[inline]
    pub(super) fn parities(&self) -> u32 {
        self.parities.load(Ordering::Relaxed)
    }

    /// Sets aside a table that is about to be dropped, if a snapshot under way still needs it.
    pub(super) fn freeze(&self, db: DbIndex, table: SlotTable) -> Option<SlotTable> {
        let wanted = table.parities() ^ self.parities();
        if wanted == 0 {
            return Some(table);
        }
        self.snapshot.frozen.lock().push(Frozen { place: self.place(db), table, wanted });
        None
    }

    /// Sets aside an entry that has left its table, if a snapshot under way still needs it.
    pub(super) fn keep(&self, db: DbIndex, entry: Entry) -> Option<Entry> {
        let parities = entry.as_ref().parities();
        if parities == self.parities() {
            return Some(entry);
        }
        let mut table = SlotTable::new(parities);
        let hash = self.hash(entry.as_ref().key());
        table.exclusive().insert(hash, entry, |key| self.hash(key), || true);
        self.freeze(db, table);
        None
    }
}

/// How far a walk is with the first frozen table that it wants.
#[derive(Clone, Copy, Default, PartialEq)]
struct Thawed {
    /// Of the table's scan.
    position: u64,
    /// Within the first entry there that is not on record.
    from: Option<Position>,
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
    lane: usize,
    /// Database, keys and keys with an expiry when the snapshot began.
    databases: Vec<(DbIndex, usize, usize)>,
    /// The database at each place when the snapshot began. Two of them may have changed places since.
    names: Vec<DbIndex>,
    at: Cursor,
    thawed: Thawed,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("lane", &self.lane).finish_non_exhaustive()
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
    /// What writers have encoded is handed out when the lock is free again: it may be much.
    fn visit(&mut self, place: usize, out: &mut Vec<u8>) {
        let mut written = Vec::new();
        let mut encoded = Vec::new();
        self.visit_locked(place, &mut written, &mut encoded);
        for bytes in written.into_iter().chain([encoded]) {
            append(bytes, out);
        }
    }

    /// `written`: by writers; what is encoded here comes behind it.
    fn visit_locked(&mut self, place: usize, written: &mut Vec<Vec<u8>>, encoded: &mut Vec<u8>) {
        let shard = self.at.table / SLOTS_PER_SHARD;
        let ks = Arc::clone(&self.ks);
        let mut locked = ks.lock_shard(shard);
        if let Some(begun) = locked.side_mut(shard).saved.begun[self.lane].take() {
            let more = self.go_on(&mut locked, begun, written, encoded);
            locked.side_mut(shard).saved.begun[self.lane] = more;
            return;
        }
        let slot = loop {
            let slot = slot_at(self.at.table);
            locked.side_mut(shard).saved.collect(self.lane, place, slot, written);
            let mut table = locked.table_mut(ks.tables_at(place), slot);
            if !table.is_empty() {
                break slot;
            }
            let parities = self.with_own(table.parities());
            table.set_parities(parities);
            self.at = Cursor { table: self.at.table + 1, position: 0, ..self.at };
            if self.at.table / SLOTS_PER_SHARD != shard {
                return;
            }
        };
        let begun = self.encode_slot(&mut locked, place, slot, encoded);
        locked.side_mut(shard).saved.begun[self.lane] = begun;
    }

    /// Encodes some of a slot. Returns the entry at which it stopped because that is large.
    fn encode_slot(
        &mut self,
        locked: &mut Locked<'_>,
        place: usize,
        slot: u16,
        out: &mut Vec<u8>,
    ) -> Option<Begun> {
        let (ks, encode) = (Arc::clone(&self.ks), self.encode());
        let mut ahead = std::mem::take(&mut locked.side_mut(super::shard_of(slot)).saved.ahead);
        let mut table = locked.table_mut(ks.tables_at(place), slot);
        let (mut position, mut begun) = (Some(self.at.position), None);
        while let Some(at) = position {
            position = table.scan_mut(at, &mut |entry| {
                if begun.is_some() || !self.wants(entry) {
                    return;
                }
                begun = Begun::take(&mut ahead, self.lane, place, entry.as_ref().key()).or_else(|| {
                    let next =
                        self.save(entry, &*encode, Part { from: Position::START, most: CHUNK }, out)?;
                    Some(Begun::new(place, entry.as_ref().key(), next))
                });
            });
            if begun.is_some() {
                // The others that stand there come when it is done.
                position = Some(at);
            }
            if begun.is_some() || out.len() >= CHUNK {
                break;
            }
        }
        match position {
            Some(at) => self.at.position = at,
            None => {
                let parities = self.with_own(table.parities());
                table.set_parities(parities);
                self.at = Cursor { table: self.at.table + 1, position: 0, ..self.at };
            }
        }
        locked.side_mut(super::shard_of(slot)).saved.ahead = ahead;
        begun
    }

    /// Encodes more of a large entry; `None` when that was the end of it.
    fn go_on(
        &self,
        locked: &mut Locked<'_>,
        mut begun: Begun,
        written: &mut Vec<Vec<u8>>,
        encoded: &mut Vec<u8>,
    ) -> Option<Begun> {
        written.append(&mut begun.encoded);
        let (ks, encode) = (&*self.ks, self.encode());
        let (h, part) = (ks.hashed(&begun.key), Part { from: begun.from?, most: CHUNK });
        let wanted = |entry: EntryRef<'_>| entry.parities() != self.with_own(entry.parities());
        let find = |table: &SlotTable| table.find_by(h.hash, |e| e.key() == &*begun.key && wanted(e));
        let table = locked.table_mut(ks.tables_at(begun.place), h.slot);
        let next = if let Some(at) = find(&table) {
            self.save(table.get_mut(at), &*encode, part, encoded)
        } else {
            // Whoever flushes looks at no entry.
            let mut frozen = ks.snapshot.frozen.lock();
            let mut tables = frozen.iter_mut().filter(|frozen| frozen.place == begun.place);
            let found = tables.find_map(|frozen| Some((find(&frozen.table)?, &mut frozen.table)));
            let (at, table) = found.expect("a writer saves what a walk still needs of an entry");
            self.save(table.exclusive().get_mut(at), &*encode, part, encoded)
        };
        next.map(|from| Begun { from: Some(from), ..begun })
    }

    /// The same, of what was flushed or deleted meanwhile: a part at a time, because who flushes or deletes waits
    /// for the list of it with shards locked.
    fn next_frozen(&mut self, out: &mut Vec<u8>) -> Option<DbIndex> {
        let (ks, bit) = (Arc::clone(&self.ks), 1 << self.lane);
        let encode = self.encode();
        let begin = out.len();
        loop {
            let mut all = ks.snapshot.frozen.lock();
            let at = all.iter().position(|frozen| frozen.wanted & bit != 0)?;
            let frozen = &mut all[at];
            let place = frozen.place;
            self.encode_frozen(&mut frozen.table, &*encode, out);
            if self.thawed == Thawed::default() {
                frozen.wanted &= !bit;
                if frozen.wanted == 0 {
                    // In order: the walks of other lanes may be within the first of theirs.
                    ks.discard(super::Garbage::Tables(vec![all.remove(at).table]));
                }
            }
            if out.len() > begin {
                return Some(self.names[place]);
            }
        }
    }

    /// Encodes some of a frozen table. [`Walk::thawed`] says how far it came: at its beginning when that was all.
    fn encode_frozen(&mut self, table: &mut SlotTable, encode: &Encode, out: &mut Vec<u8>) {
        let begin = out.len();
        let Thawed { position, mut from } = std::mem::take(&mut self.thawed);
        let mut next = Some(position);
        while let Some(position) = next {
            let mut stopped = None;
            next = table.exclusive().scan_mut(position, &mut |entry| {
                if stopped.is_none() && self.wants(entry) {
                    let part = Part { from: from.take().unwrap_or(Position::START), most: CHUNK };
                    stopped = self.save(entry, encode, part, out);
                }
            });
            if stopped.is_some() {
                // The others that stand there come when it is done.
                self.thawed = Thawed { position, from: stopped };
                return;
            }
            if out.len() - begin >= CHUNK {
                self.thawed = Thawed { position: next.unwrap_or(0), from: None };
                return;
            }
        }
    }

    fn encode(&self) -> Arc<Encode> {
        self.ks.snapshot.lanes[self.lane].encode.read().clone().expect("set while a snapshot runs")
    }

    /// These bits, with the one of this lane as it is where it is on record.
    fn with_own(&self, parities: u32) -> u32 {
        let bit = 1 << self.lane;
        (parities & !bit) | (self.ks.parities() & bit)
    }

    /// Whether an entry is not on record.
    fn wants(&self, entry: &Entry) -> bool {
        let parities = entry.as_ref().parities();
        parities != self.with_own(parities)
    }

    /// Encodes a part of an entry that is not on record, and puts it there at its end.
    fn save(&self, entry: &mut Entry, encode: &Encode, part: Part, out: &mut Vec<u8>) -> Option<Position> {
        let next = encode(entry.as_ref(), part, out);
        if next.is_none() {
            entry.set_parities(self.with_own(entry.as_ref().parities()));
        }
        next
    }
}

/// Without a copy where that is possible.
fn append(bytes: Vec<u8>, out: &mut Vec<u8>) {
    if out.is_empty() {
        *out = bytes;
    } else {
        out.extend_from_slice(&bytes);
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Every entry must leave with this snapshot's parity, or the next one would miss it.
        let mut scratch = Vec::new();
        while self.next_chunk(&mut scratch).is_some() {
            scratch.clear();
        }
        self.ks.board.end_looking();
        let lane = &self.ks.snapshot.lanes[self.lane];
        *lane.encode.write() = None;
        if lane.ahead.swap(false, Ordering::Relaxed) {
            self.forget_ahead();
        }
        lane.running.store(false, Ordering::Release);
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

    /// Keys and values, a value in parts of `most` bytes.
    fn encode_by(most: usize) -> Arc<Encode> {
        Arc::new(move |e, part, out| {
            let ValueRef::String(v) = e.value() else { panic!("only strings here") };
            if part.from == Position::START {
                out.extend_from_slice(&(e.key().len() as u32).to_le_bytes());
                out.extend_from_slice(e.key());
                out.extend_from_slice(&(v.len() as u32).to_le_bytes());
            }
            let rest = &v[part.from.index..];
            let len = if part.most == usize::MAX { rest.len() } else { rest.len().min(most) };
            out.extend_from_slice(&rest[..len]);
            (len < rest.len()).then_some(Position::at(part.from.index + len))
        })
    }

    /// Values of a number's length are large.
    fn encode() -> Arc<Encode> {
        encode_by(7)
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
            let (locked, parities) = (ks.lock_all(), ks.parities());
            (0..SLOTS as u16).all(|slot| locked.table(ks.tables(db), slot).parities() == parities)
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

    /// Nobody holds its shard for longer than a part takes, and what is changed meanwhile is saved as it was.
    #[test]
    fn a_large_entry_is_saved_part_by_part() {
        let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
        let large = |n: u8| (vec![b'a' + n; 2], vec![n; 10 * CHUNK]);
        // What becomes of it between two parts.
        let changes: [fn(&Keyspace, &[u8]); 4] = [
            |_, _| {},
            |ks, key| set(ks, key, b"other"),
            |ks, key| {
                delete(ks, key);
                set(ks, key, b"a new one");
            },
            |ks, _| {
                ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
                set(ks, b"aa", b"another of the same name");
            },
        ];
        for change in changes {
            let mut want = Picture::new();
            for (key, value) in (0..4).map(large) {
                set(&ks, &key, &value);
                want.insert(key, value);
            }
            let mut walk = ks.begin_snapshot(&ks.lock_all(), encode_by(CHUNK)).unwrap();
            let (mut got, mut out, mut parts) = (Picture::new(), vec![], 0);
            loop {
                let before = out.len();
                if walk.next_chunk(&mut out).is_none() {
                    break;
                }
                parts += 1;
                if parts == 3 {
                    // No table is on record yet, and one of them is begun.
                    want.keys().for_each(|key| change(&ks, key));
                } else if parts < 3 {
                    assert!(out.len() - before < 2 * CHUNK, "{} bytes in one part", out.len() - before);
                }
            }
            decode(&out, &mut got);
            assert!(got == want, "{:?}", got.keys());
            assert!(parts > 4, "{parts}");
            ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
        }
    }

    /// A writer who looks first encodes a large entry turn by turn, from wherever the walk is with it, and whatever
    /// becomes of the entry between two turns: every snapshot under way gets it as it was, once.
    #[test]
    fn a_writer_saves_a_large_entry_turn_by_turn() {
        let large = |n: u8| (vec![b'a' + n; 2], vec![n; (1 << 20) + 9 * CHUNK]);
        let ahead = |ks: &Keyspace, key: &[u8]| ks.lock_slot(ks.hashed(key).slot).save_ahead(0, [key]);
        let changes: [fn(&Keyspace, &[u8]); 3] = [
            |ks, key| set(ks, key, b"other"),
            |ks, key| {
                delete(ks, key);
                set(ks, key, b"a new one");
            },
            |ks, _| {
                ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
                set(ks, b"aa", b"another of the same name");
            },
        ];
        for (at, change) in changes.iter().enumerate() {
            for (walked, turns) in [(0, 0), (0, 1), (0, 1000), (2, 0), (2, 3), (2, 1000), (20, 1)] {
                let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
                let mut want = Picture::new();
                for (key, value) in (0..3).map(large) {
                    set(&ks, &key, &value);
                    want.insert(key, value);
                }
                let begin = || ks.begin_snapshot(&ks.lock_all(), encode_by(CHUNK)).unwrap();
                let mut walks = [(begin(), vec![]), (begin(), vec![])];
                (0..walked).for_each(|_| _ = walks[0].0.next_chunk(&mut walks[0].1));
                for key in want.keys() {
                    let taken = (0..turns).take_while(|_| ahead(&ks, key).is_some()).count();
                    assert!(taken == turns || taken > 10 && taken < 100, "{taken}");
                    if turns == 1000 {
                        set(&ks, key, b"at once");
                    }
                }
                want.keys().for_each(|key| change(&ks, key));
                for (walk, out) in &mut walks {
                    while walk.next_chunk(out).is_some() {}
                    let mut got = Picture::new();
                    decode(out, &mut got);
                    assert!(got == want, "change {at} behind {walked} and {turns}");
                }
                drop(walks);
                assert!(ahead(&ks, b"aa").is_none() && !ks.board.writers_look_first());
                assert!(
                    (0..super::super::SHARDS).all(|shard| ks
                        .lock_shard(shard)
                        .side_mut(shard)
                        .saved
                        .is_empty())
                );
            }
        }
    }

    /// Who deletes, overwrites or flushes a large entry encodes nothing of it: the walks write it, part by part.
    #[test]
    fn a_large_entry_that_goes_is_kept_for_the_walks() {
        let changes: [fn(&Keyspace, &[u8]); 3] = [
            |ks, key| set(ks, key, b"other"),
            delete,
            |ks, _| _ = ks.flush(&mut ks.lock_all(), 0, &mut Effects::default()),
        ];
        for change in changes {
            let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
            let want = Picture::from([(b"aa".to_vec(), vec![1; (1 << 20) + 9 * CHUNK])]);
            want.iter().for_each(|(key, value)| set(&ks, key, value));
            let begin = || ks.begin_snapshot(&ks.lock_all(), encode_by(CHUNK)).unwrap();
            let walks = [begin(), begin()];
            change(&ks, b"aa");
            let shard = super::super::shard_of(ks.hashed(b"aa").slot);
            assert!(ks.lock_shard(shard).side_mut(shard).saved.is_empty());
            for mut walk in walks {
                let (mut got, mut out, mut before) = (Picture::new(), vec![], 0);
                while walk.next_chunk(&mut out).is_some() {
                    assert!(out.len() - before < 2 * CHUNK, "{} bytes in one part", out.len() - before);
                    before = out.len();
                }
                decode(&out, &mut got);
                assert!(got == want, "{:?}", got.keys());
            }
            assert!(ks.snapshot.frozen.lock().is_empty());
        }
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

    /// Snapshots that begin while others run: each is what was there at its own begin, whoever is written, deleted
    /// and flushed meanwhile, and whichever ends first.
    #[test]
    fn several_snapshots_are_a_point_in_time_each() {
        let mut rng = Rng::new(11);
        let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
        let mut model = Picture::new();
        // The last of three is what was written so far.
        let mut walks: Vec<(Walk, Picture, Vec<u8>)> = Vec::new();
        let (steps, mut ended) = (if cfg!(miri) { 60 } else { 4000 }, 0);
        for step in 0..steps {
            for _ in 0..20 {
                let key = format!("key:{{{}}}{}", rng.below(40), rng.below(300)).into_bytes();
                if rng.chance(3, 4) {
                    let value = rng.next_u64().to_string().into_bytes();
                    set(&ks, &key, &value);
                    model.insert(key, value);
                } else {
                    delete(&ks, &key);
                    model.remove(&key);
                }
            }
            if rng.chance(1, 200) {
                ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
                model.clear();
            }
            if rng.chance(1, 4) {
                match ks.begin_snapshot(&ks.lock_all(), encode()) {
                    Some(walk) => walks.push((walk, model.clone(), vec![])),
                    None => assert_eq!(walks.len(), LANES),
                }
            }
            if !walks.is_empty() {
                let at = rng.below(walks.len() as u64) as usize;
                let (walk, _, out) = &mut walks[at];
                if walk.next_chunk(out).is_none() {
                    let (_, want, out) = walks.swap_remove(at);
                    let mut got = Picture::new();
                    decode(&out, &mut got);
                    assert!(got == want, "step {step}: {} keys for {}", got.len(), want.len());
                    ended += 1;
                }
            }
            // One is given up.
            if rng.chance(1, 100) && !walks.is_empty() {
                walks.pop();
            }
        }
        assert!(ended > steps / 20, "{ended}");
        assert!(ks.snapshot.frozen.lock().is_empty() || !walks.is_empty());
    }
}
