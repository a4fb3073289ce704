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

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32};

use super::entry::{Entry, EntryRef};
use crate::base::rng::Rng;

/// Buckets of the first segment at most. It grows in size classes, by reallocation: at most 56 KiB are moved.
const FIRST: usize = 1024;

/// Buckets of each further segment, for a slot with thousands of keys.
const SEGMENT: usize = 64;

/// Bits of the hash that choose the bucket; also the width of a scan position.
pub const POSITION_BITS: u32 = 48;

/// Entries a bucket holds on average before the table grows, as a fraction: 5 of 7.
const LOAD: (u32, u32) = (5, 1);

#[repr(C, align(64))]
struct Bucket {
    /// Bytes 0 to 6: tags, 0 for an empty place. Byte 7: 1 when place 6 points to the next bucket of the chain.
    meta: u64,
    places: [*mut u8; 7],
}

const ONES: u64 = 0x0001_0101_0101_0101;
const HIGHS: u64 = 0x0080_8080_8080_8080;
const CHAINED: u64 = 1 << 56;

/// Never 0, so that an empty place matches no tag.
#[inline(always)]
fn tag_of(hash: u64) -> u64 {
    (hash & 0x7f) | 0x80
}

#[inline(always)]
fn position_bits(hash: u64) -> u64 {
    hash >> (64 - POSITION_BITS)
}

/// A mask with the high bit of each byte of `meta` that may equal `tag`; false hits are possible, misses are not.
#[inline(always)]
fn matches(meta: u64, tag: u64) -> u64 {
    let x = (meta & !(0xff << 56)) ^ (tag * ONES);
    x.wrapping_sub(ONES) & !x & HIGHS
}

impl Bucket {
    fn capacity(&self) -> usize {
        if self.meta & CHAINED != 0 { 6 } else { 7 }
    }

    fn tag(&self, i: usize) -> u64 {
        (self.meta >> (8 * i)) & 0xff
    }

    fn set(&mut self, i: usize, tag: u64, entry: *mut u8) {
        self.meta = (self.meta & !(0xff << (8 * i))) | tag << (8 * i);
        self.places[i] = entry;
    }

    fn next(&self) -> *mut Bucket {
        if self.meta & CHAINED != 0 { self.places[6].cast() } else { std::ptr::null_mut() }
    }
}

/// Hints the processor to load the line at `p`. Any address is allowed.
#[inline(always)]
pub(super) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Whether two keys are equal, in words of eight bytes: they nearly always are where their tags are,
/// and a call for so few bytes costs more than the comparison.
#[inline(always)]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut differ = 0;
    for (x, y) in a_words.iter().zip(b_words) {
        differ |= u64::from_ne_bytes(*x) ^ u64::from_ne_bytes(*y);
    }
    if let (Some(x), Some(y)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        // The last words overlap those before.
        differ |= u64::from_ne_bytes(*x) ^ u64::from_ne_bytes(*y);
    } else {
        for (x, y) in a_rest.iter().zip(b_rest) {
            differ |= u64::from(x ^ y);
        }
    }
    differ == 0
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
    pub(super) saved_in: u32,
}

// SAFETY: the table owns its buckets and entries; whoever holds the shard's lock has the only access.
unsafe impl Send for SlotTable {}

/// Where an entry stands. Valid until the table changes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    bucket: *mut Bucket,
    index: usize,
}

fn layout(buckets: usize) -> Layout {
    Layout::array::<Bucket>(buckets).expect("a segment has at most 1024 buckets")
}

/// Buckets allocated for a first segment of `n`: the allocator's size classes.
fn first_capacity(n: usize) -> usize {
    if n <= 8 { n } else { n.next_multiple_of(1 << ((n - 1).ilog2() - 2)) }
}

fn new_buckets(n: usize) -> *mut Bucket {
    // SAFETY: the layout is not empty. All zero is a valid empty bucket.
    let p = unsafe { alloc_zeroed(layout(n)) };
    if p.is_null() {
        handle_alloc_error(layout(n));
    }
    p.cast()
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
    pub(super) fn len_now(table: *const Self) -> usize {
        // SAFETY: the field is an atomic of a live table.
        unsafe { (*table).len.load(Relaxed) as usize }
    }

    /// Starts loading the bucket of `hash`. Needs no lock: the address may be stale, and then the
    /// prefetch is wasted, but nothing is read through it. `table` points to a live table.
    #[inline]
    pub(super) fn prefetch_bucket(table: *const Self, hash: u64) {
        // SAFETY: the two fields are atomics of a live table, so reading them races with nobody.
        let (first, buckets) = unsafe { ((*table).first.load(Relaxed), (*table).buckets.load(Relaxed)) };
        if buckets != 0 {
            // A bucket behind the first segment is found by the next stage.
            prefetch(first.wrapping_add(index_in(buckets, position_bits(hash)) % FIRST));
        }
    }

    /// Starts loading the entry of `hash`, if its bucket has one that may be it.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u64) {
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

    fn each_in_bucket<'a>(&'a self, bucket: usize, f: &mut impl FnMut(EntryRef<'a>)) {
        let mut b = self.bucket_at(bucket);
        // SAFETY: the chain is live; a place with a tag holds a live entry.
        unsafe {
            while !b.is_null() {
                for i in 0..(*b).capacity() {
                    if (*b).tag(i) != 0 {
                        f(EntryRef::from_raw((*b).places[i]));
                    }
                }
                b = (*b).next();
            }
        }
    }

    pub fn for_each<'a>(&'a self, mut f: impl FnMut(EntryRef<'a>)) {
        for i in 0..self.buckets() as usize {
            self.each_in_bucket(i, &mut f);
        }
    }

    /// As [`SlotTable::scan`], with entries that may be changed in place.
    pub(super) fn scan_mut(&mut self, at: u64, f: &mut impl FnMut(&mut Entry)) -> Option<u64> {
        if self.buckets() == 0 {
            return None;
        }
        let mut b = self.bucket_at(index_in(self.buckets(), reverse(at)));
        // SAFETY: as in `each_in_bucket`, with the only access to the table.
        unsafe {
            while !b.is_null() {
                for i in 0..(*b).capacity() {
                    if (*b).tag(i) != 0 {
                        f(&mut *(&raw mut (*b).places[i]).cast::<Entry>());
                    }
                }
                b = (*b).next();
            }
        }
        self.position_after(at)
    }

    /// Visits the bucket at scan position `at` (0 to start). Returns the next position, `None` at the end.
    pub fn scan<'a>(&'a self, at: u64, f: &mut impl FnMut(EntryRef<'a>)) -> Option<u64> {
        if self.buckets() == 0 {
            return None;
        }
        let at = at & ((1 << POSITION_BITS) - 1);
        self.each_in_bucket(index_in(self.buckets(), reverse(at)), f);
        self.position_after(at)
    }

    /// The position behind the bucket at `at`, `None` behind the last.
    fn position_after(&self, at: u64) -> Option<u64> {
        let index = index_in(self.buckets(), reverse(at));
        // The run of a bucket that is told apart by `depth` bits is 2^(POSITION_BITS - depth) wide.
        let level = self.buckets().ilog2();
        let split = (self.buckets() as usize) - (1 << level);
        let depth = if index < split || index >= 1 << level { level + 1 } else { level };
        let width = 1u64 << (POSITION_BITS - depth);
        let next = (at & !(width - 1)) + width;
        (next < 1 << POSITION_BITS).then_some(next)
    }

    /// A uniformly random entry. `None` when the table is empty.
    ///
    /// Draws a bucket and a rank below a bound that few chains exceed, and draws again when there is
    /// no entry at that rank; entries behind the bound are reached by a fallback after many draws.
    pub fn random(&self, rng: &mut Rng) -> Option<EntryRef<'_>> {
        if self.is_empty() {
            return None;
        }
        for _ in 0..256 {
            let bucket = rng.below(u64::from(self.buckets())) as usize;
            let rank = rng.below(16) as usize;
            let mut seen = 0;
            let mut hit = None;
            self.each_in_bucket(bucket, &mut |e| {
                if seen == rank {
                    hit = Some(e);
                }
                seen += 1;
            });
            if hit.is_some() {
                return hit;
            }
        }
        let nth = rng.below(self.len() as u64) as usize;
        let mut seen = 0;
        let mut hit = None;
        self.for_each(|e| {
            if seen == nth {
                hit = Some(e);
            }
            seen += 1;
        });
        hit
    }

    /// Bytes of the buckets.
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
fn index_in(buckets: u32, bits: u64) -> usize {
    let level = buckets.ilog2();
    let index = bits & ((2 << level) - 1);
    if index < u64::from(buckets) { index as usize } else { (bits & ((1 << level) - 1)) as usize }
}

fn reverse(position: u64) -> u64 {
    position.reverse_bits() >> (64 - POSITION_BITS)
}

/// Adds an entry to the chain that starts at `bucket`.
///
/// # Safety
/// `bucket` is live and `entry` is owned by the caller.
unsafe fn put(mut bucket: *mut Bucket, tag: u64, entry: *mut u8) {
    // SAFETY: walks live buckets; a fresh bucket is zeroed.
    unsafe {
        loop {
            let b = &mut *bucket;
            for i in 0..b.capacity() {
                if b.tag(i) == 0 {
                    b.set(i, tag, entry);
                    return;
                }
            }
            if b.meta & CHAINED == 0 {
                let next = new_buckets(1);
                (*next).set(0, b.tag(6), b.places[6]);
                b.set(6, 0, next.cast());
                b.meta |= CHAINED;
            }
            bucket = b.next();
        }
    }
}

/// Closes the hole at `place` with the last entry of its chain, which starts at `head`, and frees
/// the last bucket if that empties it.
///
/// # Safety
/// `place` is a place of the chain at `head` whose entry was moved out.
unsafe fn fill_hole(head: *mut Bucket, place: Place) {
    // SAFETY: walks live buckets of one chain.
    unsafe {
        let (mut before, mut last) = (std::ptr::null_mut::<Bucket>(), head);
        while (*last).meta & CHAINED != 0 {
            before = last;
            last = (*last).next();
        }
        let tail =
            (0..7).rev().find(|&i| (*last).tag(i) != 0).expect("the last bucket of a chain is never empty");
        let (tag, entry) = ((*last).tag(tail), (*last).places[tail]);
        (*place.bucket).set(place.index, tag, entry);
        (*last).set(tail, 0, std::ptr::null_mut());
        if !before.is_null() && (0..7).all(|i| (*last).tag(i) == 0) {
            (*before).meta &= !CHAINED;
            (*before).set(6, 0, std::ptr::null_mut());
            dealloc(last.cast(), layout(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::Body;
    use std::collections::{BTreeMap, HashSet};

    fn hash_of(key: &[u8]) -> u64 {
        let mut x = Rng::new(u64::from_le_bytes(key.try_into().unwrap()));
        x.next_u64()
    }

    fn insert(t: &mut SlotTable, k: u64) {
        let key = k.to_le_bytes();
        t.insert(hash_of(&key), Entry::new(&key, Body::Inline(b"v"), None), hash_of);
    }

    fn remove(t: &mut SlotTable, k: u64) -> bool {
        let key = k.to_le_bytes();
        let Some(place) = t.find(hash_of(&key), &key) else { return false };
        drop(t.remove(place, hash_of(&key), hash_of));
        true
    }

    fn id(e: EntryRef<'_>) -> u64 {
        u64::from_le_bytes(e.key().try_into().unwrap())
    }

    #[test]
    fn behaves_as_a_map_through_growth_and_shrinking() {
        let (mut t, mut model, mut rng) = (SlotTable::new(), BTreeMap::new(), Rng::new(3));
        for round in 0..60_000u64 {
            let k = rng.below(12_000);
            // First it grows, then it shrinks to nothing.
            if rng.chance(if round < 40_000 { 3 } else { 1 }, 4) {
                if model.insert(k, ()).is_none() {
                    insert(&mut t, k);
                }
            } else {
                assert_eq!(remove(&mut t, k), model.remove(&k).is_some());
            }
            assert_eq!(t.len(), model.len());
        }
        let mut seen: Vec<_> = vec![];
        t.for_each(|e| seen.push(id(e)));
        seen.sort_unstable();
        assert!(seen.iter().eq(model.keys()));
        for k in model.keys() {
            assert!(remove(&mut t, *k));
        }
        assert_eq!(t.buckets(), 1);
    }

    #[test]
    fn a_scan_returns_what_stays_whatever_else_happens() {
        let mut rng = Rng::new(11);
        for (start, churn_up) in [(2000u64, true), (2000, false), (0, true)] {
            let mut t = SlotTable::new();
            let stays: HashSet<u64> = (0..300).map(|i| i * 7919 + 1_000_000).collect();
            for k in 0..start {
                insert(&mut t, k);
            }
            for &k in &stays {
                insert(&mut t, k);
            }
            let mut seen = HashSet::new();
            let (mut at, mut steps) = (Some(0), 0);
            while let Some(position) = at {
                at = t.scan(position, &mut |e| {
                    seen.insert(id(e));
                });
                steps += 1;
                assert!(steps < 100_000, "a scan ends");
                for _ in 0..8 {
                    let k = rng.below(20_000);
                    let present = t.find(hash_of(&k.to_le_bytes()), &k.to_le_bytes()).is_some();
                    if present && !(churn_up && rng.chance(3, 4)) {
                        remove(&mut t, k);
                    } else if !present && churn_up && steps < 3000 {
                        insert(&mut t, k);
                    }
                }
            }
            assert!(stays.is_subset(&seen));
        }
    }

    #[test]
    fn random_entries_are_nearly_uniform() {
        let mut t = SlotTable::new();
        for k in 0..100 {
            insert(&mut t, k);
        }
        let (mut counts, mut rng) = ([0u32; 100], Rng::new(5));
        for _ in 0..100_000 {
            counts[id(t.random(&mut rng).unwrap()) as usize] += 1;
        }
        // Expected 1000 each, standard deviation 32.
        assert!(counts.iter().all(|c| (820..1180).contains(c)), "{counts:?}");
    }

    #[test]
    fn five_thousand_keys_cost_under_sixteen_bucket_bytes_each() {
        let mut t = SlotTable::new();
        for k in 0..5000 {
            insert(&mut t, k);
        }
        assert!(t.bucket_bytes() < 16 * 5000, "{}", t.bucket_bytes());
    }
}
