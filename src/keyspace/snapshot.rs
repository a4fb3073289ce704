//! Snapshots without a fork: the whole keyspace as it was at one point in time, while clients go on writing.
//!
//! [`Keyspace::begin_snapshot`] locks every shard for a moment and marks every slot as not yet saved. A background
//! thread, the [`Walk`], then saves slot after slot with a short lock each. A command that is about to change an
//! entry which is not saved yet encodes it first, as it was, into a buffer of its shard; the walk takes that buffer
//! along when it reaches the slot. So a writer pays once for each entry that it changes, and a snapshot takes as much
//! memory as was changed while it ran. A large entry is encoded part by part, and its shard is unlocked between two
//! parts, whether the walk does it or a writer ([`writers`]).
//!
//! Several snapshots may run at once, each in a lane of its own. How an entry shows whether it is saved: each lane
//! has a bit, its parity, which is inverted when a snapshot begins in it, and every entry and every table carries one
//! bit for each lane. A bit that equals the parity means "saved, or not part of this snapshot"; a bit that differs
//! means "not saved yet". Entries and databases that are created while a snapshot runs begin with bits that equal the
//! parities. When a walk ends, the bits of all entries and tables (also of empty tables) equal the parity, so that
//! inverting it marks all of them again. A writer finds out that there is nothing to save by one comparison, of its
//! table's bits with the parities.

mod writers;

use std::collections::VecDeque;
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

/// So many bytes are encoded before the walk unlocks the slot and passes them on.
const CHUNK: usize = 64 * 1024;

/// Snapshots that may run at once: for a data file, for the append-only file and for replicas. Entries have room for
/// so many bits.
const LANES: usize = 3;

/// What walks and writers share.
#[derive(Default)]
pub(crate) struct Shared {
    lanes: [Lane; LANES],
    frozen: Mutex<VecDeque<Frozen>>,
}

#[derive(Default)]
struct Lane {
    running: AtomicBool,
    encode: RwLock<Option<Arc<Encode>>>,
    /// A writer has encoded a part of something.
    ahead: AtomicBool,
}

/// What was removed before every snapshot had saved it, and is kept until then: a table that was flushed, or a large
/// entry that was deleted (in a table of its own).
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

    /// The bits of tables and entries that every snapshot has saved.
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
        self.snapshot.frozen.lock().push_back(Frozen { place: self.place(db), table, wanted });
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

/// How far a walk has come in the first frozen table that it has not saved.
#[derive(Clone, Copy, Default, PartialEq)]
struct Thawed {
    /// Of the table's scan.
    position: u64,
    /// Within the first entry there that is not saved.
    from: Option<Position>,
}

#[derive(Clone, Copy, Default)]
struct Cursor {
    database: DbIndex,
    table: usize,
    position: u64,
}

/// Goes over all slots and saves what a snapshot consists of. One that is dropped before its end goes on to the end
/// and throws away what it encodes: the bits must be right for the next snapshot.
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
            // An empty database has nothing to save, but its tables must be marked as saved.
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

    /// Encodes a part of the slot at the cursor, or of the next slot of its shard that is not empty, and moves on.
    /// What writers have encoded may be large, so it is copied only after the shard is unlocked.
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

    /// Encodes a part of a slot. Returns the large entry at which it stopped, if there is one.
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
            // FLUSHALL moves whole tables to the frozen ones, without looking at their entries.
            let mut frozen = ks.snapshot.frozen.lock();
            let mut tables = frozen.iter_mut().filter(|frozen| frozen.place == begun.place);
            let found = tables.find_map(|frozen| Some((find(&frozen.table)?, &mut frozen.table)));
            let (at, table) = found.expect("a writer saves what a walk still needs of an entry");
            self.save(table.exclusive().get_mut(at), &*encode, part, encoded)
        };
        next.map(|from| Begun { from: Some(from), ..begun })
    }

    /// The next chunk of what was flushed or deleted meanwhile. The list is locked for one chunk only: a command that
    /// flushes or deletes waits for it with shards locked.
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
                    // The order must stay: a walk of another lane remembers how far it is in its first table.
                    let gone = all.remove(at).map(|frozen| frozen.table);
                    ks.discard(super::Garbage::Tables(gone.into_iter().collect()));
                }
            }
            if out.len() > begin {
                return Some(self.names[place]);
            }
        }
    }

    /// Encodes a part of a frozen table. [`Walk::thawed`] says how far it came; it is back at the beginning when the
    /// table is done.
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

    /// These bits, with that of this lane set to "saved".
    fn with_own(&self, parities: u32) -> u32 {
        let bit = 1 << self.lane;
        (parities & !bit) | (self.ks.parities() & bit)
    }

    /// Whether this snapshot still has to save an entry.
    fn wants(&self, entry: &Entry) -> bool {
        let parities = entry.as_ref().parities();
        parities != self.with_own(parities)
    }

    /// Encodes a part of an entry that is not saved, and marks it as saved behind the last part.
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
mod tests;
