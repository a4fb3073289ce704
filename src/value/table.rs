//! The hash table of large collections: linear hashing over buckets of one cache line.
//!
//! Growing splits one bucket and shrinking merges one, so no operation ever pays for the size of the
//! collection. With `2^level` buckets and `split` of them already split, a key belongs to the bucket of
//! its hash's lowest `level` bits, or `level + 1` bits where that bucket was split (Litwin 1980). A full
//! bucket goes on in the overflow pool; its last slot then holds the link.
//!
//! A scan's cursor is a position in the order of bit-reversed hashes. Every bucket is an interval of
//! that order, and splitting and merging cut and join intervals, so a scan that goes on where an interval
//! ended misses nothing that was there all the time.

use std::hash::Hasher;

use foldhash::{SharedSeed, quality::FoldHasher};
use smallvec::SmallVec;

use super::record::{Mark, Record, Shape, Slot, mark};
use super::segments::Segments;
use crate::base::prefetch::prefetch;
use crate::base::rng::Rng;

const SLOTS: usize = 8;
const LAST: usize = SLOTS - 1;

/// Splitting keeps the mean number of records a bucket at or below 21/4: the measured best between
/// empty slots and overflow buckets.
const GROW_ABOVE: (usize, usize) = (21, 4);
/// Merging keeps it at or above 3/2.
const SHRINK_BELOW: (usize, usize) = (3, 2);

#[repr(align(64))]
struct Bucket<S: Shape>([Slot<S>; SLOTS]);

impl<S: Shape> Default for Bucket<S> {
    #[inline]
    fn default() -> Self {
        Self([const { Slot::EMPTY }; SLOTS])
    }
}

impl<S: Shape> Clone for Bucket<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Shape> Bucket<S> {
    #[inline]
    fn link(&self) -> Option<usize> {
        self.0[LAST].link()
    }
}

/// Records by key.
pub struct Table<S: Shape> {
    /// `2^level + split` of them.
    buckets: Segments<Bucket<S>>,
    overflow: Segments<Bucket<S>>,
    level: u32,
    len: usize,
    record_bytes: usize,
    seed: SharedSeed,
}

impl<S: Shape> Clone for Table<S> {
    fn clone(&self) -> Self {
        Self {
            buckets: self.buckets.clone(),
            overflow: self.overflow.clone(),
            seed: self.seed.clone(),
            ..*self
        }
    }
}

/// A bucket of either array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Main(usize),
    Overflow(usize),
}

/// Stages of prefetching: each needs the memory that the stage before has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The bucket's lines.
    Bucket,
    /// The record that the bucket points to.
    Record,
}

/// Where a record is, until the table changes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    bucket: At,
    slot: usize,
}

/// What a search for a key came to.
#[derive(Clone, Copy, Debug)]
pub enum Search {
    Found(Place),
    /// Where a new record goes.
    Missing(Vacancy),
}

/// The end of a search that found nothing.
#[derive(Clone, Copy, Debug)]
pub struct Vacancy {
    /// The last bucket of the chain, and its first empty slot if there is one.
    bucket: At,
    slot: Option<usize>,
}

impl<S: Shape> Table<S> {
    /// An empty table; `seed` decides where keys go.
    pub fn new(seed: u64) -> Self {
        let mut buckets = Segments::new();
        buckets.push();
        Self {
            buckets,
            overflow: Segments::new(),
            level: 0,
            len: 0,
            record_bytes: 0,
            seed: SharedSeed::from_u64(seed),
        }
    }

    /// Makes the buckets for `records` records, within reason: the number may come from a hostile file.
    /// Only of an empty table.
    pub fn reserve(&mut self, records: usize) {
        assert!(self.len == 0, "buckets are laid out before they are filled");
        let wanted = records.min(1 << 16) * GROW_ABOVE.1 / GROW_ABOVE.0 + 1;
        while self.buckets.len() < wanted {
            self.buckets.push();
        }
        self.level = self.buckets.len().ilog2();
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Heap bytes, without the allocator's rounding.
    pub fn memory_bytes(&self) -> usize {
        let buckets = self.buckets.capacity() + self.overflow.capacity();
        size_of::<Self>() + buckets * size_of::<Bucket<S>>() + self.record_bytes
    }

    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(0, &self.seed);
        hasher.write(key);
        hasher.finish()
    }

    /// The bits of the hash that tell the buckets before `split` apart from others: all of the lower level.
    #[inline]
    fn mask(&self) -> usize {
        (1 << self.level) - 1
    }

    #[inline]
    fn split(&self) -> usize {
        self.buckets.len() - (1 << self.level)
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        let wide = hash as usize & (2 * self.mask() + 1);
        if wide < self.buckets.len() { wide } else { wide & self.mask() }
    }

    #[inline]
    fn bucket(&self, at: At) -> &Bucket<S> {
        match at {
            At::Main(i) => &self.buckets[i],
            At::Overflow(i) => &self.overflow[i],
        }
    }

    #[inline]
    fn bucket_mut(&mut self, at: At) -> &mut Bucket<S> {
        match at {
            At::Main(i) => &mut self.buckets[i],
            At::Overflow(i) => &mut self.overflow[i],
        }
    }

    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&Record<S>> {
        let hash = self.hash(key);
        let want = mark(hash, key.len());
        let mut bucket = &self.buckets[self.bucket_of(hash)];
        loop {
            if let Some(slot) = position(bucket, want, key) {
                return bucket.0[slot].record();
            }
            bucket = &self.overflow[bucket.link()?];
        }
    }

    /// Begins to fetch what an operation on `key` will touch.
    #[inline]
    pub fn prefetch(&self, key: &[u8], stage: Stage) {
        let hash = self.hash(key);
        let bucket = &self.buckets[self.bucket_of(hash)];
        match stage {
            Stage::Bucket => prefetch(bucket),
            Stage::Record => {
                let want = mark(hash, key.len());
                if let Some(slot) = bucket.0.iter().find(|s| s.mark() == want) {
                    slot.prefetch();
                }
            }
        }
    }

    /// Looks for a key whose hash is `hash`.
    #[inline]
    pub fn search(&self, hash: u64, key: &[u8]) -> Search {
        let want = mark(hash, key.len());
        let mut at = At::Main(self.bucket_of(hash));
        loop {
            let bucket = self.bucket(at);
            if let Some(slot) = position(bucket, want, key) {
                return Search::Found(Place { bucket: at, slot });
            }
            match bucket.link() {
                Some(next) => at = At::Overflow(next),
                None => {
                    let slot = bucket.0.iter().position(Slot::is_empty);
                    return Search::Missing(Vacancy { bucket: at, slot });
                }
            }
        }
    }

    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<Place> {
        match self.search(self.hash(key), key) {
            Search::Found(place) => Some(place),
            Search::Missing(_) => None,
        }
    }

    #[inline]
    pub fn at(&self, place: Place) -> &Record<S> {
        self.bucket(place.bucket).0[place.slot].record().expect("places void when the table changes")
    }

    /// Finds a record for a change of anything but its key.
    pub fn update<R>(&mut self, place: Place, f: impl FnOnce(&mut Record<S>) -> R) -> R {
        let slot = &mut self.bucket_mut(place.bucket).0[place.slot];
        let record = slot.record_mut().expect("places void when the table changes");
        let before = record.size();
        let result = f(record);
        let after = record.size();
        self.record_bytes = self.record_bytes + after - before;
        result
    }

    /// Puts a record where the search for its key ended.
    pub fn insert(&mut self, vacancy: Vacancy, record: Record<S>) {
        self.len += 1;
        self.record_bytes += record.size();
        match vacancy.slot {
            Some(slot) => self.bucket_mut(vacancy.bucket).0[slot] = record.into(),
            None => self.extend(vacancy.bucket, record),
        }
        if self.len * GROW_ABOVE.1 > self.buckets.len() * GROW_ABOVE.0 {
            self.split_one();
        }
    }

    /// Adds an overflow bucket to a full chain, for one more record.
    fn extend(&mut self, last: At, record: Record<S>) {
        let next = self.overflow.len();
        self.overflow.push();
        let displaced = std::mem::replace(&mut self.bucket_mut(last).0[LAST], Slot::new_link(next));
        self.overflow[next].0[0] = displaced;
        self.overflow[next].0[1] = record.into();
    }

    /// Takes a record out.
    pub fn remove(&mut self, place: Place) -> Record<S> {
        let hash = self.hash(self.at(place).key());
        let record = self.bucket_mut(place.bucket).0[place.slot].take().expect("a record was there");
        self.len -= 1;
        self.record_bytes -= record.size();
        let head = At::Main(self.bucket_of(hash));
        if self.bucket(head).link().is_some() {
            self.close_gap(head, place);
        }
        if self.len * SHRINK_BELOW.1 < self.buckets.len() * SHRINK_BELOW.0 && self.buckets.len() > 1 {
            self.merge_one();
        }
        record
    }

    /// Fills the gap with a record from the end of the chain. An overflow bucket that would be left with a single one
    /// is given back.
    fn close_gap(&mut self, head: At, gap: Place) {
        let (mut before, mut last) = (head, head);
        while let Some(next) = self.bucket(last).link() {
            (before, last) = (last, At::Overflow(next));
        }
        if gap.bucket != last {
            let filler = self.bucket_mut(last).0.iter_mut().rev().find_map(Slot::take);
            let filler = filler.expect("an overflow bucket has records");
            self.bucket_mut(gap.bucket).0[gap.slot] = filler.into();
        }
        let mut left = self.bucket(last).0.iter().enumerate().filter(|(_, s)| !s.is_empty());
        if let (Some((slot, _)), None) = (left.next(), left.next()) {
            let record = self.bucket_mut(last).0[slot].take().expect("a record is left");
            self.bucket_mut(before).0[LAST] = record.into();
            if let At::Overflow(i) = last {
                self.free_overflow(i);
            }
        }
    }

    /// Gives an empty overflow bucket's memory back; the pool stays dense.
    fn free_overflow(&mut self, hole: usize) {
        let moved = self.overflow.pop();
        let from = self.overflow.len();
        if from == hole {
            return;
        }
        let record = moved.0.iter().find_map(Slot::record).expect("overflow buckets in use have records");
        let hash = self.hash(record.key());
        self.overflow[hole] = moved;
        // The bucket that links to the one that moved is found on the chain of its records.
        let mut at = At::Main(self.bucket_of(hash));
        while let Some(next) = self.bucket(at).link() {
            if next == from {
                self.bucket_mut(at).0[LAST] = Slot::new_link(hole);
                return;
            }
            at = At::Overflow(next);
        }
        unreachable!("every overflow bucket is linked from the chain of its records");
    }

    /// Empties the chain of a bucket.
    fn take_chain(&mut self, main: usize) -> SmallVec<[Record<S>; 24]> {
        let mut records = SmallVec::new();
        let mut at = At::Main(main);
        let mut links: SmallVec<[usize; 4]> = SmallVec::new();
        loop {
            let bucket = self.bucket_mut(at);
            records.extend(bucket.0.iter_mut().filter_map(Slot::take));
            let Some(next) = bucket.link() else { break };
            bucket.0[LAST] = Slot::EMPTY;
            links.push(next);
            at = At::Overflow(next);
        }
        // Highest first: the bucket that moves into a hole is then never one of these.
        links.sort_unstable();
        for next in links.into_iter().rev() {
            self.free_overflow(next);
        }
        records
    }

    /// Adds a record to the chain of a bucket that it belongs to.
    fn put(&mut self, main: usize, record: Record<S>) {
        let mut at = At::Main(main);
        while let Some(next) = self.bucket(at).link() {
            at = At::Overflow(next);
        }
        match self.bucket_mut(at).0.iter_mut().find(|s| s.is_empty()) {
            Some(slot) => *slot = record.into(),
            None => self.extend(at, record),
        }
    }

    fn split_one(&mut self) {
        let low = self.split();
        let high = self.buckets.len();
        let bit = 1u64 << self.level;
        let records = self.take_chain(low);
        self.buckets.push();
        if self.buckets.len() == 2 << self.level {
            self.level += 1;
        }
        // Hashing first lets the processor fetch all keys at once.
        let ups: SmallVec<[bool; 24]> = records.iter().map(|r| self.hash(r.key()) & bit != 0).collect();
        for (record, up) in records.into_iter().zip(ups) {
            self.put(if up { high } else { low }, record);
        }
    }

    fn merge_one(&mut self) {
        if self.split() == 0 {
            self.level -= 1;
        }
        let high = self.buckets.len() - 1;
        let low = high & self.mask();
        let records = self.take_chain(high);
        self.buckets.pop();
        for record in records {
            self.put(low, record);
        }
    }

    /// All records, in an order that stays while the table does.
    pub fn iter(&self) -> impl Iterator<Item = &Record<S>> + Clone {
        self.buckets.iter().chain(self.overflow.iter()).flat_map(|b| &b.0).filter_map(Slot::record)
    }

    /// Shows the records of one array element: a step of [`Table::iter`] that begins at 0. Returns where to go on,
    /// `None` at the end. Every record is shown once if the table does not change between the steps.
    pub fn step(&self, at: usize, f: impl FnMut(&Record<S>)) -> Option<usize> {
        let main = self.buckets.len();
        let bucket = if at < main { &self.buckets[at] } else { &self.overflow[at - main] };
        bucket.0.iter().filter_map(Slot::record).for_each(f);
        (at + 1 < main + self.overflow.len()).then_some(at + 1)
    }

    /// A record, each with the same probability: every record has one slot, and slots are drawn until
    /// one is full, on average at most six times.
    pub fn random(&self, rng: &mut Rng) -> Option<Place> {
        if self.len == 0 {
            return None;
        }
        let main = self.buckets.len();
        let slots = (main + self.overflow.len()) * SLOTS;
        loop {
            let i = rng.below(slots as u64) as usize;
            let (bucket, slot) = (i / SLOTS, i % SLOTS);
            let bucket = if bucket < main { At::Main(bucket) } else { At::Overflow(bucket - main) };
            if self.bucket(bucket).0[slot].record().is_some() {
                return Some(Place { bucket, slot });
            }
        }
    }

    /// Shows how many records each bucket holds with those chained to it.
    pub fn for_each_chain(&self, f: &mut impl FnMut(usize)) {
        for main in self.buckets.iter() {
            let (mut bucket, mut length) = (main, 0);
            loop {
                length += bucket.0.iter().filter_map(Slot::record).count();
                let Some(next) = bucket.link() else { break };
                bucket = &self.overflow[next];
            }
            f(length);
        }
    }

    /// Shows whole buckets from `cursor` on until about `count` records were shown or ten times as many
    /// buckets were looked at. Returns the cursor to go on with, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(&Record<S>)) -> u64 {
        let (mut cursor, mut shown, mut looked) = (cursor, 0, 0);
        loop {
            let (low, wide) = (self.mask(), 2 * self.mask() + 1);
            let mask = if (cursor as usize & low) < self.split() { wide } else { low };
            let mut bucket = &self.buckets[cursor as usize & mask];
            loop {
                for record in bucket.0.iter().filter_map(Slot::record) {
                    f(record);
                    shown += 1;
                }
                let Some(next) = bucket.link() else { break };
                bucket = &self.overflow[next];
            }
            // The next interval: count up from the highest bit that the bucket looked at.
            cursor = (cursor | !(mask as u64)).reverse_bits().wrapping_add(1).reverse_bits();
            looked += 1;
            if cursor == 0 || shown >= count || looked >= count.saturating_mul(10) {
                return cursor;
            }
        }
    }
}

/// Where in a bucket the key is.
#[inline]
fn position<S: Shape>(bucket: &Bucket<S>, want: Mark, key: &[u8]) -> Option<usize> {
    bucket.0.iter().position(|s| s.mark() == want && s.record().is_some_and(|r| r.key() == key))
}

#[cfg(test)]
mod tests;
