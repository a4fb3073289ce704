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

use std::alloc::{dealloc, handle_alloc_error, realloc};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32};

use super::entry::{Entry, EntryRef};
use bucket::{Bucket, CHAINED, fill_hole, layout, matches, new_buckets, put, same, tag_of};

mod bucket;
mod scan;

/// Buckets of the first segment at most. It grows in size classes, by reallocation: at most 56 KiB are moved.
/// Under Miri it is small, so that few keys go through every case.
const FIRST: usize = if cfg!(miri) { 16 } else { 1024 };

/// Buckets of each further segment, for a slot with thousands of keys.
const SEGMENT: usize = if cfg!(miri) { 4 } else { 64 };

/// Bits of the hash that choose the bucket; also the width of a scan position.
pub const POSITION_BITS: u32 = 48;

/// Entries a bucket holds on average before the table grows, as a fraction: 5 of 7.
const LOAD: (u32, u32) = (5, 1);

/// Hints the processor to load the line at `p`. Any address is allowed.
#[inline(always)]
pub(in crate::keyspace) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// The entries of one slot.
#[derive(Debug)]
pub struct SlotTable {
    /// Atomic, as are the two below, because a prefetch and CLUSTER COUNTKEYSINSLOT read them without
    /// the shard's lock. Everybody else holds it, so relaxed order is enough.
    first: AtomicPtr<Bucket>,
    buckets: AtomicU32,
    len: AtomicU32,
    /// Segments behind the first.
    rest: Option<Box<Vec<*mut Bucket>>>,
    /// The snapshot that has this slot on record (see `snapshot`).
    pub(in crate::keyspace) saved_in: u32,
}

// SAFETY: the table owns its buckets and entries; whoever holds the shard's lock has the only access.
unsafe impl Send for SlotTable {}

/// Where an entry stands. Valid until the table changes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    bucket: *mut Bucket,
    index: usize,
}

/// Buckets allocated for a first segment of `n`: the allocator's size classes.
fn first_capacity(n: usize) -> usize {
    if n <= 8 { n } else { n.next_multiple_of(1 << ((n - 1).ilog2() - 2)) }
}

impl Default for SlotTable {
    fn default() -> Self {
        Self::new()
    }
}

impl SlotTable {
    pub const fn new() -> Self {
        Self {
            first: AtomicPtr::new(std::ptr::null_mut()),
            buckets: AtomicU32::new(0),
            len: AtomicU32::new(0),
            rest: None,
            saved_in: 0,
        }
    }

    #[inline(always)]
    fn buckets(&self) -> u32 {
        self.buckets.load(Relaxed)
    }

    #[inline(always)]
    fn first(&self) -> *mut Bucket {
        self.first.load(Relaxed)
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Relaxed) as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn bucket_at(&self, i: usize) -> *mut Bucket {
        debug_assert!(i < self.buckets() as usize);
        // SAFETY: `i` is below the number of buckets, and each segment but the last is whole.
        unsafe {
            if i < FIRST {
                self.first().add(i)
            } else {
                let rest = self.rest.as_ref().expect("more buckets than the first segment holds");
                rest[(i - FIRST) / SEGMENT].add(i % SEGMENT)
            }
        }
    }

    /// The bucket number of a hash. The table must not be empty of buckets.
    #[inline(always)]
    fn index_of(&self, hash: u64) -> usize {
        index_in(self.buckets(), position_bits(hash))
    }

    /// Keys of a live table, read without the lock: a moment's picture.
    pub(in crate::keyspace) fn len_now(table: *const Self) -> usize {
        // SAFETY: the field is an atomic of a live table.
        unsafe { (*table).len.load(Relaxed) as usize }
    }

    /// Starts loading the bucket of `hash`. Needs no lock: the address may be stale, and then the
    /// prefetch is wasted, but nothing is read through it. `table` points to a live table.
    #[inline]
    pub(in crate::keyspace) fn prefetch_bucket(table: *const Self, hash: u64) {
        // SAFETY: the two fields are atomics of a live table, so reading them races with nobody.
        let (first, buckets) = unsafe { ((*table).first.load(Relaxed), (*table).buckets.load(Relaxed)) };
        if buckets != 0 {
            // A bucket behind the first segment is found by the next stage.
            prefetch(first.wrapping_add(index_in(buckets, position_bits(hash)) % FIRST));
        }
    }

    /// Starts loading the entry of `hash`, if its bucket has one that may be it.
    #[inline]
    pub(in crate::keyspace) fn prefetch_entry(&self, hash: u64) {
        if self.buckets() != 0 {
            // SAFETY: the bucket exists.
            let bucket = unsafe { &*self.bucket_at(self.index_of(hash)) };
            let hits = matches(bucket.meta, tag_of(hash));
            if hits != 0 {
                prefetch(bucket.places[hits.trailing_zeros() as usize / 8]);
            }
        }
    }

    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        self.find_by(hash, |e| same(e.key(), key))
    }

    /// The first entry with this hash's tag that `want` accepts.
    #[inline]
    pub fn find_by(&self, hash: u64, want: impl Fn(EntryRef<'_>) -> bool) -> Option<Place> {
        if self.buckets() == 0 {
            return None;
        }
        let tag = tag_of(hash);
        let mut bucket = self.bucket_at(self.index_of(hash));
        // SAFETY: buckets of a chain are live; a place whose tag matches holds a live entry.
        unsafe {
            loop {
                let meta = (*bucket).meta;
                let mut hits = matches(meta, tag);
                while hits != 0 {
                    let index = hits.trailing_zeros() as usize / 8;
                    if (*bucket).tag(index) == tag && want(EntryRef::from_raw((*bucket).places[index])) {
                        return Some(Place { bucket, index });
                    }
                    hits &= hits - 1;
                }
                if meta & CHAINED == 0 {
                    return None;
                }
                bucket = (*bucket).next();
            }
        }
    }

    #[inline]
    pub fn get(&self, place: Place) -> EntryRef<'_> {
        // SAFETY: a place is valid until the table changes, and `&self` keeps it from changing.
        unsafe { EntryRef::from_raw((*place.bucket).places[place.index]) }
    }

    #[inline]
    pub fn get_mut(&mut self, place: Place) -> &mut Entry {
        // SAFETY: as for `get`; Entry is a transparent pointer, and the place holds one.
        unsafe { &mut *(&raw mut (*place.bucket).places[place.index]).cast::<Entry>() }
    }

    /// Puts another entry of the same key in the place; returns the old one.
    #[inline]
    pub fn replace(&mut self, place: Place, entry: Entry) -> Entry {
        std::mem::replace(self.get_mut(place), entry)
    }

    /// Adds an entry whose key is not in the table.
    pub fn insert(&mut self, hash: u64, entry: Entry, hash_of: impl Fn(&[u8]) -> u64) {
        if self.len() as u64 * u64::from(LOAD.1) >= u64::from(self.buckets()) * u64::from(LOAD.0) {
            self.grow(hash_of);
        }
        // SAFETY: there is at least one bucket now.
        unsafe { put(self.bucket_at(self.index_of(hash)), tag_of(hash), entry.into_raw()) };
        self.set_len(self.len() + 1);
    }

    /// Takes the entry out of its place.
    pub fn remove(&mut self, place: Place, hash: u64, hash_of: impl Fn(&[u8]) -> u64) -> Entry {
        // SAFETY: the place is valid and owned.
        let entry = unsafe { Entry::from_raw((*place.bucket).places[place.index]) };
        // SAFETY: the chain that starts at the hash's bucket holds the place.
        unsafe { fill_hole(self.bucket_at(self.index_of(hash)), place) };
        self.set_len(self.len() - 1);
        // A quarter of the growing load, so that growing and shrinking do not chase each other.
        if self.buckets() > 1 && self.len() < self.buckets() as usize {
            self.shrink(hash_of);
        }
        entry
    }

    #[inline]
    fn set_len(&mut self, n: usize) {
        self.len.store(n as u32, Relaxed);
    }

    fn set_buckets(&mut self, n: usize) {
        self.buckets.store(n as u32, Relaxed);
    }

    #[cold]
    fn grow(&mut self, hash_of: impl Fn(&[u8]) -> u64) {
        let n = self.buckets() as usize;
        self.reserve_bucket(n);
        self.set_buckets(n + 1);
        if n == 0 {
            return;
        }
        let buddy = n - (1 << n.ilog2());
        // Take the whole buddy chain apart and put each entry where it belongs now.
        self.redistribute(buddy, hash_of);
    }

    /// Makes room for bucket number `n`.
    fn reserve_bucket(&mut self, n: usize) {
        if n < FIRST {
            let (old, new) = (first_capacity(n), first_capacity(n + 1));
            if n == 0 {
                self.first.store(new_buckets(new), Relaxed);
            } else if new != old {
                // SAFETY: allocated with `layout(old)`; the new tail is zeroed before use.
                unsafe {
                    let p = realloc(self.first().cast(), layout(old), layout(new).size()).cast::<Bucket>();
                    if p.is_null() {
                        handle_alloc_error(layout(new));
                    }
                    p.add(old).write_bytes(0, new - old);
                    self.first.store(p, Relaxed);
                }
            }
        } else if n.is_multiple_of(SEGMENT) {
            self.rest.get_or_insert_default().push(new_buckets(SEGMENT));
        }
    }

    #[cold]
    fn shrink(&mut self, hash_of: impl Fn(&[u8]) -> u64) {
        let last = self.buckets() as usize - 1;
        let moved = self.take_chain(last);
        self.set_buckets(last);
        for p in moved {
            // SAFETY: just taken out of the last bucket.
            let hash = hash_of(unsafe { EntryRef::from_raw(p) }.key());
            // SAFETY: the bucket exists.
            unsafe { put(self.bucket_at(self.index_of(hash)), tag_of(hash), p) };
        }
        if last >= FIRST {
            if last.is_multiple_of(SEGMENT) {
                let segment =
                    self.rest.as_mut().and_then(|r| r.pop()).expect("the segment of the last bucket");
                // SAFETY: allocated by new_buckets(SEGMENT) and empty.
                unsafe { dealloc(segment.cast(), layout(SEGMENT)) };
                if last == FIRST {
                    self.rest = None;
                }
            }
        } else {
            let (old, new) = (first_capacity(last + 1), first_capacity(last));
            if new != old {
                // SAFETY: allocated with `layout(old)`; the buckets behind `new` are empty.
                let p = unsafe { realloc(self.first().cast(), layout(old), layout(new).size()) };
                if p.is_null() {
                    handle_alloc_error(layout(new));
                }
                self.first.store(p.cast(), Relaxed);
            }
        }
    }

    fn redistribute(&mut self, bucket: usize, hash_of: impl Fn(&[u8]) -> u64) {
        let entries = self.take_chain(bucket);
        for &p in &entries {
            prefetch(p);
        }
        for p in entries {
            // SAFETY: just taken out of the chain.
            let hash = hash_of(unsafe { EntryRef::from_raw(p) }.key());
            // SAFETY: the bucket exists.
            unsafe { put(self.bucket_at(self.index_of(hash)), tag_of(hash), p) };
        }
    }

    /// Empties a bucket and frees the rest of its chain.
    fn take_chain(&mut self, bucket: usize) -> smallvec::SmallVec<[*mut u8; 14]> {
        let mut entries = smallvec::SmallVec::new();
        let head = self.bucket_at(bucket);
        // SAFETY: the chain is live; overflow buckets were allocated one by one.
        unsafe {
            let mut b = head;
            while !b.is_null() {
                let next = (*b).next();
                for i in 0..(*b).capacity() {
                    if (*b).tag(i) != 0 {
                        entries.push((*b).places[i]);
                    }
                }
                if b != head {
                    dealloc(b.cast(), layout(1));
                }
                b = next;
            }
            head.write_bytes(0, 1);
        }
        entries
    }

    pub fn bucket_bytes(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |r| r.len() * SEGMENT);
        (first_capacity((self.buckets() as usize).min(FIRST)) + rest) * size_of::<Bucket>()
    }
}

impl Drop for SlotTable {
    fn drop(&mut self) {
        for i in 0..self.buckets() as usize {
            for p in self.take_chain(i) {
                // SAFETY: taken out of the table, owned once.
                drop(unsafe { Entry::from_raw(p) });
            }
        }
        // SAFETY: the segments were allocated with these layouts.
        unsafe {
            if self.buckets() > 0 {
                dealloc(self.first().cast(), layout(first_capacity((self.buckets() as usize).min(FIRST))));
            }
            for segment in self.rest.iter().flat_map(|r| r.iter()) {
                dealloc(segment.cast(), layout(SEGMENT));
            }
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
