//! Changing a slot's table.

use std::alloc::{dealloc, handle_alloc_error, realloc};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::bucket::{as_buckets, fill_hole, layout, new_buckets, put, tag_of};
use super::{FIRST, LOAD, Place, SEGMENT, SlotTable, first_capacity};
use crate::base::prefetch::prefetch;
use crate::keyspace::entry::{Entry, EntryRef};

/// The only access to a table, as `&mut SlotTable` would be, but for its numbers, which other threads
/// may read at any time (see [`super::SharedTable`]).
#[derive(Debug)]
pub(in crate::keyspace) struct TableMut<'a>(&'a SlotTable, PhantomData<&'a mut SlotTable>);

impl Deref for TableMut<'_> {
    type Target = SlotTable;

    #[inline(always)]
    fn deref(&self) -> &SlotTable {
        self.0
    }
}

impl<'a> TableMut<'a> {
    /// # Safety
    /// No other reference to the table is used while this one lives, but for its atomics.
    #[inline(always)]
    pub(super) unsafe fn new(table: &'a SlotTable) -> Self {
        Self(table, PhantomData)
    }

    #[inline(always)]
    pub fn get_mut(self, place: Place) -> &'a mut Entry {
        let bucket = self.bucket_of(place);
        // SAFETY: the place holds an entry, which is a transparent pointer; `self` is the only access.
        unsafe { &mut *(&raw mut (*bucket).places[place.index()]).cast::<Entry>() }
    }

    /// Puts another entry of the same key in the place; returns the old one.
    #[inline]
    pub fn replace(self, place: Place, entry: Entry) -> Entry {
        std::mem::replace(self.get_mut(place), entry)
    }

    /// Says which snapshots need nothing more of this table.
    pub fn set_parities(&mut self, parities: u32) {
        self.0.parities.store(parities, Relaxed);
    }

    /// Takes all entries out, as a table of their own. Both say of the snapshot what this one said.
    pub fn take(self) -> SlotTable {
        let taken = SlotTable::new(self.parities());
        taken.first.store(self.first(), Relaxed);
        taken.buckets.store(self.buckets(), Relaxed);
        taken.len.store(self.0.len.load(Relaxed), Relaxed);
        taken.rest.store(self.0.rest.load(Relaxed), Relaxed);
        self.0.buckets.store(0, Relaxed);
        self.0.len.store(0, Relaxed);
        self.0.first.store(std::ptr::null_mut(), Relaxed);
        self.0.rest.store(std::ptr::null_mut(), Relaxed);
        taken
    }

    /// Adds an entry whose key is not in the table, which grows when it is full if it `resizes`.
    pub fn insert(
        mut self,
        hash: u64,
        entry: Entry,
        hash_of: impl Fn(&[u8]) -> u64,
        resizes: impl Fn() -> bool,
    ) {
        if self.len() as u64 * u64::from(LOAD.1) >= u64::from(self.buckets()) * u64::from(LOAD.0)
            && (self.buckets() == 0 || resizes())
        {
            self.grow(hash_of);
        }
        self.put(hash, entry.into_raw());
        self.set_len(self.len() + 1);
    }

    /// Takes the entry out of its place. The table shrinks when it has become empty enough, if it `resizes`.
    pub fn remove(
        mut self,
        place: Place,
        hash_of: impl Fn(&[u8]) -> u64,
        resizes: impl Fn() -> bool,
    ) -> Entry {
        let (bucket, index) = (self.bucket_of(place), place.index());
        // SAFETY: the place holds an entry; the hole that is left is filled at once, from the chain of
        // which the bucket is.
        let entry = unsafe {
            let entry = Entry::from_raw((*bucket).places[index]);
            fill_hole(self.bucket_at(place.bucket() as usize), bucket, index);
            entry
        };
        self.set_len(self.len() - 1);
        // A quarter of the growing load, so that growing and shrinking do not chase each other.
        if self.buckets() > 1 && self.len() < self.buckets() as usize && resizes() {
            self.shrink(hash_of);
        }
        entry
    }

    /// Gives the bucket of a table without entries back.
    pub fn release(self) {
        if self.is_empty() && self.buckets() == 1 {
            let first = self.0.first.swap(std::ptr::null_mut(), Relaxed);
            self.0.buckets.store(0, Relaxed);
            // SAFETY: allocated with this layout when the first bucket was made, or fitted to one; no entry is left in it.
            unsafe { dealloc(first.cast(), layout(first_capacity(1))) };
        }
    }

    #[inline]
    fn set_len(&mut self, n: usize) {
        self.0.len.store(u32::try_from(n).expect("fewer than 2^32 keys a slot"), Relaxed);
    }

    fn set_buckets(&mut self, n: usize) {
        self.0.buckets.store(u32::try_from(n).expect("fewer buckets than keys"), Relaxed);
    }

    /// Puts an entry, which the table owns from now on, where it belongs. There are buckets.
    fn put(&mut self, hash: u64, entry: *mut u8) {
        // SAFETY: the bucket exists; every caller hands over an entry that it owns.
        unsafe { put(self.bucket_at(self.index_of(hash)), tag_of(hash), entry) };
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
        let entries = self.take_chain(buddy);
        self.put_all(entries, hash_of);
    }

    /// Makes room for bucket number `n`.
    fn reserve_bucket(&mut self, n: usize) {
        if n == 0 {
            self.0.first.store(new_buckets(first_capacity(1)), Relaxed);
        } else if n < FIRST {
            self.resize_first(n, n + 1);
        } else if n.is_multiple_of(SEGMENT) {
            if n == FIRST {
                self.0.rest.store(Box::into_raw(Box::default()), Relaxed);
            }
            // SAFETY: made when bucket FIRST was; `self` is the only access.
            unsafe { (*self.0.rest.load(Relaxed)).push(new_buckets(SEGMENT)) };
        }
    }

    /// Fits the first segment, which holds `from` buckets, to `to` of them. Those that go are empty.
    fn resize_first(&mut self, from: usize, to: usize) {
        let (old, new) = (first_capacity(from), first_capacity(to));
        if new == old {
            return;
        }
        // SAFETY: allocated with `layout(old)`; a tail that comes is zeroed before use.
        unsafe {
            let p = realloc(self.first().cast(), layout(old), layout(new).size());
            if p.is_null() {
                handle_alloc_error(layout(new));
            }
            let p = as_buckets(p);
            if new > old {
                p.add(old).write_bytes(0, new - old);
            }
            self.0.first.store(p, Relaxed);
        }
    }

    #[cold]
    fn shrink(&mut self, hash_of: impl Fn(&[u8]) -> u64) {
        let last = self.buckets() as usize - 1;
        let moved = self.take_chain(last);
        self.set_buckets(last);
        self.put_all(moved, hash_of);
        if last < FIRST {
            self.resize_first(last + 1, last);
        } else if last.is_multiple_of(SEGMENT) {
            self.free_last_segment();
        }
    }

    /// Frees the last segment, none of whose buckets is in use.
    fn free_last_segment(&mut self) {
        // SAFETY: there is a segment behind the first, so there is the vector; `self` is the only access.
        let rest = unsafe { &mut *self.0.rest.load(Relaxed) };
        let segment = rest.pop().expect("the segment of the last bucket");
        // SAFETY: allocated by new_buckets(SEGMENT) and empty.
        unsafe { dealloc(segment.cast(), layout(SEGMENT)) };
        if rest.is_empty() {
            // SAFETY: made by `Box::into_raw`; the pointer is forgotten with it.
            drop(unsafe { Box::from_raw(self.0.rest.swap(std::ptr::null_mut(), Relaxed)) });
        }
    }

    /// Puts entries that were taken out back where they belong now.
    fn put_all(&mut self, entries: SmallVec<[*mut u8; 14]>, hash_of: impl Fn(&[u8]) -> u64) {
        for &p in &entries {
            prefetch(p);
        }
        for p in entries {
            // SAFETY: just taken out of the table, so live and owned by nobody else.
            let hash = hash_of(unsafe { EntryRef::from_raw(p) }.key());
            self.put(hash, p);
        }
    }

    /// Empties bucket `i`, which exists, and frees the rest of its chain.
    pub(super) fn take_chain(&mut self, i: usize) -> SmallVec<[*mut u8; 14]> {
        let mut entries = SmallVec::new();
        assert!(i < self.buckets() as usize, "a bucket of the table");
        // SAFETY: the chain is live; overflow buckets were allocated one by one.
        unsafe {
            let head = self.bucket_at(i);
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

    /// As [`SlotTable::scan`], with entries that may be changed in place.
    pub fn scan_mut(&mut self, at: u64, f: &mut impl FnMut(&mut Entry)) -> Option<u64> {
        if self.buckets() == 0 {
            return None;
        }
        // SAFETY: the bucket exists, its chain is live, a place with a tag holds a live entry, and `self`
        // is the only access.
        unsafe {
            let mut b = self.bucket_at(self.bucket_at_position(at));
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
}
