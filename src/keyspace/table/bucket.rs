//! A bucket of a slot's table: 64 bytes, seven places with a one-byte tag each. A full one chains.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use crate::keyspace::entry::Entry;

// A bucket is one cache line, whose places hold entries as `TableMut::get_mut` shows them.
const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);
const _: () = assert!(size_of::<Entry>() == size_of::<*mut u8>());

/// Seven entries and their tags.
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Bytes 0 to 6: tags, 0 for an empty place. Byte 7: 1 when place 6 points to the next bucket of the chain.
    pub meta: u64,
    pub places: [*mut u8; 7],
}

const ONES: u64 = 0x0001_0101_0101_0101;
const HIGHS: u64 = 0x0080_8080_8080_8080;
pub(super) const CHAINED: u64 = 1 << 56;

/// Never 0, so that an empty place matches no tag.
#[inline(always)]
pub(super) fn tag_of(hash: u64) -> u64 {
    (hash & 0x7f) | 0x80
}

/// A mask with the high bit of each byte of `meta` that may equal `tag`; false hits are possible, misses are not.
#[inline(always)]
pub(super) fn matches(meta: u64, tag: u64) -> u64 {
    let x = (meta & !(0xff << 56)) ^ (tag * ONES);
    x.wrapping_sub(ONES) & !x & HIGHS
}

impl Bucket {
    pub fn capacity(&self) -> usize {
        if self.meta & CHAINED != 0 { 6 } else { 7 }
    }

    pub fn tag(&self, i: usize) -> u64 {
        (self.meta >> (8 * i)) & 0xff
    }

    pub fn set(&mut self, i: usize, tag: u64, entry: *mut u8) {
        self.meta = (self.meta & !(0xff << (8 * i))) | tag << (8 * i);
        self.places[i] = entry;
    }

    /// The next bucket of the chain; null at its end.
    pub fn next(&self) -> *mut Bucket {
        if self.meta & CHAINED != 0 { as_buckets(self.places[6]) } else { std::ptr::null_mut() }
    }
}

/// Whether two keys are equal, in words of eight bytes: they nearly always are where their tags are,
/// and a call for so few bytes costs more than the comparison.
#[inline(always)]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
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

pub(super) fn layout(buckets: usize) -> Layout {
    Layout::array::<Bucket>(buckets).expect("a segment has at most 1024 buckets")
}

pub(super) fn new_buckets(n: usize) -> *mut Bucket {
    // SAFETY: the layout is not empty. All zero is a valid empty bucket.
    let p = unsafe { alloc_zeroed(layout(n)) };
    if p.is_null() {
        handle_alloc_error(layout(n));
    }
    as_buckets(p)
}

/// What the allocator gave for a [`layout`].
pub(super) fn as_buckets(p: *mut u8) -> *mut Bucket {
    p.cast()
}

/// Adds an entry to the chain that starts at `bucket`.
///
/// # Safety
/// `bucket` is live and `entry` is owned by the caller.
pub(super) unsafe fn put(mut bucket: *mut Bucket, tag: u64, entry: *mut u8) {
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

/// Closes the hole at a place of `bucket` with the last entry of its chain, which starts at `head`, and
/// frees the last bucket if that empties it.
///
/// # Safety
/// `bucket` is of the chain at `head`, and the entry at `index` was moved out.
pub(super) unsafe fn fill_hole(head: *mut Bucket, bucket: *mut Bucket, index: usize) {
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
        (*bucket).set(index, tag, entry);
        (*last).set(tail, 0, std::ptr::null_mut());
        if !before.is_null() && (0..7).all(|i| (*last).tag(i) == 0) {
            (*before).meta &= !CHAINED;
            (*before).set(6, 0, std::ptr::null_mut());
            dealloc(last.cast(), layout(1));
        }
    }
}
