//! The index that finds dead keys by time.
//!
//! Every key with an expiry has at least one reference filed at or before its time. A reference is
//! eight bytes: the slot within the shard and the hash, enough to find the entry again. When its
//! time comes the entry is looked up: dead, it goes; not yet dead, because the expiry was moved
//! back meanwhile, it is filed anew; gone, nothing happens. So prolonging an expiry costs nothing.

use std::collections::BTreeMap;

use crate::base::rng::Rng;
use crate::base::time::UnixMs;

/// References are filed by ticks of 128 ms.
const TICK_SHIFT: u32 = 7;

/// Eight bits of slot within the shard, 48 of position, seven of tag: what [`super::table`] needs of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference(u64);

impl Reference {
    /// For a key with this hash, in the slot that is the `slot_in_shard`th of its shard.
    pub fn new(slot_in_shard: usize, hash: u64) -> Self {
        Self((hash & !0xff00 & !0x80) | (slot_in_shard as u64) << 8)
    }

    /// Which slot of its shard.
    pub fn slot_in_shard(self) -> usize {
        (self.0 >> 8) as usize & 0xff
    }

    /// A hash that finds the same bucket and tag as the entry's own.
    pub fn hash(self) -> u64 {
        self.0 & !0xff00
    }
}

/// References of one shard of one database.
#[derive(Debug, Default)]
pub struct ExpiryIndex {
    ticks: BTreeMap<u64, Vec<Reference>>,
    len: usize,
}

pub(super) fn tick_of(at: UnixMs) -> u64 {
    (at.max(0) as u64) >> TICK_SHIFT
}

impl ExpiryIndex {
    /// Files a reference, to be looked at once `at` (milliseconds since 1970) is over.
    pub fn file(&mut self, at: UnixMs, reference: Reference) {
        self.ticks.entry(tick_of(at)).or_default().push(reference);
        self.len += 1;
    }

    /// References kept, including those whose key is gone.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no reference is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes up to `max` references whose tick lies wholly before `now`.
    pub fn take_due(&mut self, now: UnixMs, max: usize) -> Vec<Reference> {
        let mut due = Vec::new();
        let end = tick_of(now);
        while due.len() < max {
            let Some(mut first) = self.ticks.first_entry() else { break };
            if *first.key() >= end {
                break;
            }
            let want = max - due.len();
            let list = first.get_mut();
            if list.len() <= want {
                due.append(list);
                first.remove();
            } else {
                due.extend(list.drain(list.len() - want..));
            }
        }
        self.len -= due.len();
        due
    }

    /// A random reference with its tick: of the ticks in use, crowded ones count no more than others.
    pub fn random(&self, rng: &mut Rng) -> Option<(u64, Reference)> {
        let (first, last) = (*self.ticks.first_key_value()?.0, *self.ticks.last_key_value()?.0);
        let from = first + rng.below(last - first + 1);
        let (tick, list) = self.ticks.range(from..).next()?;
        Some((*tick, list[rng.below(list.len() as u64) as usize]))
    }

    /// The last reference of the first tick.
    pub fn first(&self) -> Option<(u64, Reference)> {
        let (tick, list) = self.ticks.first_key_value()?;
        Some((*tick, *list.last()?))
    }

    /// Takes out what [`ExpiryIndex::first`] shows.
    pub fn forget_first(&mut self) {
        let Some(mut first) = self.ticks.first_entry() else { return };
        first.get_mut().pop();
        self.len -= 1;
        if first.get().is_empty() {
            first.remove();
        }
    }

    /// Forgets all references: the shard was emptied.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_out_when_their_tick_is_past() {
        let mut index = ExpiryIndex::default();
        for i in 0..100u64 {
            index.file(1000 + i as i64, Reference::new(i as usize, i << 32 | 0x7f));
        }
        assert!(index.take_due(900, 10).is_empty());
        assert_eq!(index.take_due(5000, 30).len(), 30);
        assert_eq!((index.take_due(5000, 1000).len(), index.len()), (70, 0));
        let r = Reference::new(200, 0xdead_beef_1234_5633);
        assert_eq!((r.slot_in_shard(), r.hash()), (200, 0xdead_beef_1234_0033));
    }
}
