//! The table of one slot: 64-byte buckets of seven one-byte tags and seven entry pointers, grown
//! one bucket at a time by linear hashing (Litwin 1980).
//!
//! With `n` buckets and `L = floor(log2 n)`, an entry lives in bucket `h mod 2^(L+1)`, or in
//! `h mod 2^L` where that bucket does not exist yet. Adding bucket `n` splits bucket `n - 2^L` and
//! touches no other, so growth never pauses, however many keys one slot holds. A full bucket chains.
//!
//! **Scan order.** Ordered by their hash bits read backwards, the entries of a bucket are one
//! contiguous run, and splitting or merging buckets never reorders entries. A cursor is a position
//! in that order, so a scan returns every entry that is present from start to end, whatever is
//! inserted, deleted, split or merged meanwhile.
//!
//! **Who may touch what.** A [`SlotTable`] is read through `&SlotTable` and changed through
//! [`TableMut`], of which there is at most one and then no other reference. What stands in the
//! keyspace is a [`SharedTable`]: it shows anybody the numbers of the table, which are atomics that stay
//! where they are, and the table itself only to the holder of the shard's lock.

use std::alloc::dealloc;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32};

use super::entry::{Entry, EntryRef};
use crate::base::prefetch::prefetch;
use crate::base::size_class::size_class;
use bucket::{Bucket, CHAINED, layout, matches, same, tag_of};

mod bucket;
mod change;
mod scan;
mod shared;

pub(in crate::keyspace) use change::TableMut;
pub(in crate::keyspace) use shared::SharedTable;

/// Buckets of the first segment at most. It grows in size classes, by reallocation: at most 56 KiB are moved.
/// Under Miri it is small, so that few keys go through every case.
const FIRST: usize = if cfg!(miri) { 16 } else { 1024 };

/// Buckets of each further segment, for a slot with thousands of keys.
const SEGMENT: usize = if cfg!(miri) { 4 } else { 64 };

/// Bits of the hash that choose the bucket; also the width of a scan position.
pub const POSITION_BITS: u32 = 48;

/// Entries a bucket holds on average before the table grows, as a fraction: 5 of 7.
const LOAD: (u32, u32) = (5, 1);

// The first segment is full when the second begins, which starts at a multiple of its size.
const _: () = assert!(FIRST.is_power_of_two() && FIRST.is_multiple_of(SEGMENT));
// Two tables, with all that a prefetch and a look-up read of them, to a cache line.
const _: () = assert!(size_of::<SlotTable>() == 32);

/// The entries of one slot. All fields are atomics, so that a reader without the lock sees a number
/// that once was right; whoever holds the lock needs no order beyond the lock's own.
#[derive(Debug)]
pub struct SlotTable {
    first: AtomicPtr<Bucket>,
    buckets: AtomicU32,
    len: AtomicU32,
    /// Segments behind the first; null if there are none.
    rest: AtomicPtr<Vec<*mut Bucket>>,
    /// A bit for each snapshot that may run (see `snapshot`): equal to the parity of its lane if that has saved all
    /// of this slot.
    parities: AtomicU32,
}

/// Where an entry stands, as numbers that the table checks: a place that the table has changed under may
/// name another entry or none, which is a bug, but never memory that is not an entry's.
#[derive(Clone, Copy, Debug)]
pub struct Place(NonZeroU64);

/// In one word, because a place goes through registers in the search for every key: 32 bits say which bucket, 24 how
/// many of its chain come before the entry's, and 8 the index in there plus one.
impl Place {
    #[inline(always)]
    fn new(bucket: usize, depth: u32, index: u32) -> Self {
        assert!(depth < 1 << 24, "a chain of a hundred million entries");
        let word = (bucket as u64) << 32 | u64::from(depth) << 8 | u64::from(index + 1);
        Self(NonZeroU64::new(word).expect("the last byte is not 0"))
    }

    fn bucket(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    fn depth(self) -> u32 {
        self.0.get() as u32 >> 8
    }

    fn index(self) -> usize {
        usize::from(self.0.get() as u8 - 1)
    }
}

/// Buckets allocated for a first segment of `n`: the allocator's size classes.
fn first_capacity(n: usize) -> usize {
    size_class(n * size_of::<Bucket>()) / size_of::<Bucket>()
}

impl Default for SlotTable {
    fn default() -> Self {
        Self::new(0)
    }
}

impl SlotTable {
    /// An empty table that the snapshots of these parities need not save.
    pub const fn new(parities: u32) -> Self {
        Self {
            first: AtomicPtr::new(std::ptr::null_mut()),
            buckets: AtomicU32::new(0),
            len: AtomicU32::new(0),
            rest: AtomicPtr::new(std::ptr::null_mut()),
            parities: AtomicU32::new(parities),
        }
    }

    /// To change a table that is nobody else's.
    pub(in crate::keyspace) fn exclusive(&mut self) -> TableMut<'_> {
        // SAFETY: `self` is borrowed mutably for as long.
        unsafe { TableMut::new(self) }
    }

    #[inline(always)]
    fn buckets(&self) -> u32 {
        self.buckets.load(Relaxed)
    }

    #[inline(always)]
    fn first(&self) -> *mut Bucket {
        self.first.load(Relaxed)
    }

    /// Segments behind the first.
    fn rest(&self) -> &[*mut Bucket] {
        // SAFETY: null or a vector that this table owns, which changes through `TableMut` only.
        unsafe { self.rest.load(Relaxed).as_ref() }.map_or(&[], Vec::as_slice)
    }

    /// Number of entries, dead ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Relaxed) as usize
    }

    /// Whether there is no entry.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A bit for each snapshot: equal to its parity where it needs nothing more of this table.
    #[inline(always)]
    pub(in crate::keyspace) fn parities(&self) -> u32 {
        self.parities.load(Relaxed)
    }

    /// The first bucket of chain `i`.
    ///
    /// # Safety
    /// `i` is below the number of buckets.
    #[inline(always)]
    unsafe fn bucket_at(&self, i: usize) -> *mut Bucket {
        debug_assert!(i < self.buckets() as usize);
        if i < FIRST {
            // SAFETY: the first segment has at least as many buckets as there are, up to FIRST.
            unsafe { self.first().add(i) }
        } else {
            // SAFETY: each segment has SEGMENT buckets.
            unsafe { self.rest()[(i - FIRST) / SEGMENT].add(i % SEGMENT) }
        }
    }

    /// The bucket number of a hash, below the number of buckets. The table must have buckets.
    #[inline(always)]
    fn index_of(&self, hash: u64) -> usize {
        index_in(self.buckets(), position_bits(hash))
    }

    /// Starts loading the entry of `hash`, if its bucket has one that may be it.
    #[inline]
    pub(in crate::keyspace) fn prefetch_entry(&self, hash: u64) {
        if self.buckets() != 0 {
            // SAFETY: the bucket exists, and nobody changes it while `self` is borrowed.
            let bucket = unsafe { &*self.bucket_at(self.index_of(hash)) };
            let hits = matches(bucket.meta, tag_of(hash));
            if hits != 0 {
                prefetch(bucket.places[hits.trailing_zeros() as usize / 8]);
            }
        }
    }

    /// Where the entry of `key` is; `hash` is that of the key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        Some(self.find_entry(hash, key)?.0)
    }

    /// The entry of a key, and where it stands.
    #[inline]
    pub fn find_entry(&self, hash: u64, key: &[u8]) -> Option<(Place, EntryRef<'_>)> {
        self.search(hash, |e| same(e.key(), key))
    }

    /// The first entry with this hash's tag that `want` accepts.
    pub fn find_by(&self, hash: u64, want: impl Fn(EntryRef<'_>) -> bool) -> Option<Place> {
        Some(self.search(hash, want)?.0)
    }

    #[inline(always)]
    fn search(&self, hash: u64, want: impl Fn(EntryRef<'_>) -> bool) -> Option<(Place, EntryRef<'_>)> {
        if self.buckets() == 0 {
            return None;
        }
        let (tag, number) = (tag_of(hash), self.index_of(hash));
        let mut depth = 0;
        // SAFETY: the bucket exists, buckets of a chain are live, and a place whose tag matches holds a
        // live entry; nothing of it changes while `self` is borrowed.
        unsafe {
            let mut bucket = self.bucket_at(number);
            loop {
                let meta = (*bucket).meta;
                let mut hits = matches(meta, tag);
                while hits != 0 {
                    let index = hits.trailing_zeros() / 8;
                    if (*bucket).tag(index as usize) == tag {
                        let entry = EntryRef::from_raw((*bucket).places[index as usize]);
                        if want(entry) {
                            return Some((Place::new(number, depth, index), entry));
                        }
                    }
                    hits &= hits - 1;
                }
                if meta & CHAINED == 0 {
                    return None;
                }
                bucket = (*bucket).next();
                depth += 1;
            }
        }
    }

    /// The bucket of a place.
    ///
    /// # Panics
    /// When no entry stands there: the table has changed since the place was found.
    #[inline(always)]
    fn bucket_of(&self, place: Place) -> *mut Bucket {
        assert!(place.bucket() < self.buckets(), "a place of a table that has shrunk");
        // SAFETY: the bucket exists, and a chain's buckets are live.
        unsafe {
            let mut bucket = self.bucket_at(place.bucket() as usize);
            for _ in 0..place.depth() {
                bucket = (*bucket).next();
                assert!(!bucket.is_null(), "a place of a chain that is shorter now");
            }
            assert!((*bucket).tag(place.index()) != 0, "a place without an entry");
            bucket
        }
    }

    /// The entry at a place that this table has given out and that has not been changed since.
    #[inline(always)]
    pub fn get(&self, place: Place) -> EntryRef<'_> {
        // SAFETY: the place holds an entry, and `&self` keeps the table from changing.
        unsafe { EntryRef::from_raw((*self.bucket_of(place)).places[place.index()]) }
    }

    /// Bytes of all buckets but those of chains.
    pub fn bucket_bytes(&self) -> usize {
        let first = first_capacity((self.buckets() as usize).min(FIRST));
        (first + self.rest().len() * SEGMENT) * size_of::<Bucket>()
    }
}

impl Drop for SlotTable {
    fn drop(&mut self) {
        let buckets = self.buckets() as usize;
        let mut table = self.exclusive();
        for i in 0..buckets {
            for p in table.take_chain(i) {
                // SAFETY: taken out of the table, owned once.
                drop(unsafe { Entry::from_raw(p) });
            }
        }
        if buckets > 0 {
            // SAFETY: allocated with this layout, and its chains are gone.
            unsafe { dealloc(self.first().cast(), layout(first_capacity(buckets.min(FIRST)))) };
        }
        for segment in self.rest() {
            // SAFETY: allocated with this layout, and its chains are gone.
            unsafe { dealloc(segment.cast(), layout(SEGMENT)) };
        }
        let rest = self.rest.load(Relaxed);
        if !rest.is_null() {
            // SAFETY: made by `Box::into_raw`, and not used any more.
            drop(unsafe { Box::from_raw(rest) });
        }
    }
}

#[inline(always)]
fn position_bits(hash: u64) -> u64 {
    hash >> (64 - POSITION_BITS)
}

/// The number of the bucket, of so many, that a hash with these position bits belongs to.
#[inline(always)]
fn index_in(buckets: u32, bits: u64) -> usize {
    let level = buckets.ilog2();
    let index = bits & ((2 << level) - 1);
    if index < u64::from(buckets) { index as usize } else { (bits & ((1 << level) - 1)) as usize }
}

#[cfg(test)]
mod tests;
