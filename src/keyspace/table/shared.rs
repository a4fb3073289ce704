//! A slot's table where all threads reach it.

use std::sync::atomic::Ordering::Relaxed;

use super::{FIRST, SlotTable, TableMut, index_in, position_bits};
use crate::base::prefetch::prefetch;

/// A table among those of its shard. Anybody may ask it for its numbers; the table is the lock holder's.
#[derive(Debug)]
pub(in crate::keyspace) struct SharedTable(SlotTable);

impl SharedTable {
    pub fn new(parities: u32) -> Self {
        Self(SlotTable::new(parities))
    }

    /// Keys of the table: as of some moment, unless the shard is locked.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Starts loading the table's header.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        prefetch(self);
    }

    /// Starts loading the bucket of `hash`. Needs no lock: the two numbers may not belong together or
    /// may be stale, and then the prefetch is wasted, but nothing is read at the address.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        let (first, buckets) = (self.0.first.load(Relaxed), self.0.buckets.load(Relaxed));
        if buckets != 0 {
            // A bucket behind the first segment is found by the next stage.
            prefetch(first.wrapping_add(index_in(buckets, position_bits(hash)) % FIRST));
        }
    }

    /// # Safety
    /// The caller holds the lock of the table's shard, and no [`TableMut`] of it exists, for as long as
    /// the borrow.
    #[inline(always)]
    pub unsafe fn locked(&self) -> &SlotTable {
        &self.0
    }

    /// # Safety
    /// The caller holds the lock of the table's shard, and no other reference that the lock gave to this
    /// table exists, for as long as the borrow.
    #[inline(always)]
    pub unsafe fn locked_mut(&self) -> TableMut<'_> {
        // SAFETY: the caller's promise.
        unsafe { TableMut::new(&self.0) }
    }
}
