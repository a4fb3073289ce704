//! Walks over a slot's table: all of it, step by step, and at random.

use super::{POSITION_BITS, SlotTable, index_in};
use crate::base::rng::Rng;
use crate::keyspace::entry::EntryRef;

impl SlotTable {
    fn each_in_bucket<'a>(&'a self, bucket: usize, f: &mut impl FnMut(EntryRef<'a>)) {
        assert!(bucket < self.buckets() as usize, "a bucket of the table");
        // SAFETY: the bucket exists and its chain is live; a place with a tag holds a live entry; nothing
        // of it changes while `self` is borrowed.
        unsafe {
            let mut b = self.bucket_at(bucket);
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

    /// Calls `f` with each entry, in no useful order.
    pub fn for_each<'a>(&'a self, mut f: impl FnMut(EntryRef<'a>)) {
        for i in 0..self.buckets() as usize {
            self.each_in_bucket(i, &mut f);
        }
    }

    /// Calls `f` with how many entries each bucket holds, with those chained to it.
    pub fn for_each_chain(&self, f: &mut impl FnMut(usize)) {
        for i in 0..self.buckets() as usize {
            let mut length = 0;
            self.each_in_bucket(i, &mut |_| length += 1);
            f(length);
        }
    }

    /// Visits the bucket at scan position `at` (0 to start). Returns the next position, `None` at the end.
    pub fn scan<'a>(&'a self, at: u64, f: &mut impl FnMut(EntryRef<'a>)) -> Option<u64> {
        if self.buckets() == 0 {
            return None;
        }
        let at = at & ((1 << POSITION_BITS) - 1);
        self.each_in_bucket(self.bucket_at_position(at), f);
        self.position_after(at)
    }

    /// The number of the bucket at a scan position. The table must have buckets.
    pub(super) fn bucket_at_position(&self, at: u64) -> usize {
        index_in(self.buckets(), reverse(at))
    }

    /// The position behind the bucket at `at`, `None` behind the last.
    pub(super) fn position_after(&self, at: u64) -> Option<u64> {
        let index = self.bucket_at_position(at);
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
        // No chain has more than all.
        let bound = self.len().min(16) as u64;
        for _ in 0..256 {
            let bucket = rng.below(u64::from(self.buckets())) as usize;
            let rank = rng.below(bound) as usize;
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
}

fn reverse(position: u64) -> u64 {
    position.reverse_bits() >> (64 - POSITION_BITS)
}
