//! A set of shards, as commands need them and locks are held.

use super::{SHARDS, shard_of};

// A set is whole words.
const _: () = assert!(SHARDS.is_multiple_of(64));

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockSet([u64; SHARDS / 64]);

impl LockSet {
    /// No shard.
    pub const NONE: Self = Self([0; SHARDS / 64]);
    /// Every shard.
    pub const ALL: Self = Self([u64::MAX; SHARDS / 64]);

    /// The shard of one slot.
    #[inline]
    pub fn of_slot(slot: u16) -> Self {
        let mut set = Self::NONE;
        set.add_slot(slot);
        set
    }

    /// The shards of slots.
    #[inline]
    pub fn of_slots(slots: impl IntoIterator<Item = u16>) -> Self {
        let mut set = Self::NONE;
        slots.into_iter().for_each(|slot| set.add_slot(slot));
        set
    }

    /// Adds the shard of a slot.
    #[inline]
    pub fn add_slot(&mut self, slot: u16) {
        self.add_shard(shard_of(slot));
    }

    #[inline]
    pub(super) fn add_shard(&mut self, shard: usize) {
        self.0[shard / 64] |= 1 << (shard % 64);
    }

    /// Whether a shard, by number, is in the set.
    #[inline]
    pub fn has_shard(&self, shard: usize) -> bool {
        self.0[shard / 64] >> (shard % 64) & 1 != 0
    }

    /// Whether the shard of a slot is in the set.
    #[inline]
    pub fn has_slot(&self, slot: u16) -> bool {
        self.has_shard(shard_of(slot))
    }

    /// Whether no shard is in the set.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// The first shard in it.
    pub fn first(&self) -> Option<usize> {
        self.shards().next()
    }

    /// The shards of both.
    pub fn union(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a |= b;
        }
        self
    }

    /// Whether every shard of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| a & b == b)
    }

    /// The shards in ascending order.
    #[inline]
    pub(super) fn shards(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = bits;
            std::iter::from_fn(move || {
                if bits == 0 {
                    return None;
                }
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_know_their_shards_in_order() {
        let mut set = LockSet::NONE;
        for slot in [16383, 5, 128 + 5, 70] {
            set.add_slot(slot);
        }
        assert_eq!(set.shards().collect::<Vec<_>>(), [5, 70, 127]);
        assert!(LockSet::ALL.contains(&set) && !set.contains(&LockSet::ALL));
        assert_eq!(LockSet::ALL.shards().count(), SHARDS);
    }
}
