//! Slot ownership: a bitmap of slots per node (as packets carry it) and the owner of every slot.

use std::collections::BTreeMap;
use std::fmt;

use super::node::NodeIx;
use crate::base::crc16::SLOTS;

/// Bytes of a slot bitmap on the wire.
pub const BITMAP_LEN: usize = SLOTS / 8;

/// One bit per slot, slot 0 in the lowest bit of the first byte.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotBitmap(Box<[u8; BITMAP_LEN]>);

impl Default for SlotBitmap {
    fn default() -> Self {
        Self(Box::new([0; BITMAP_LEN]))
    }
}

impl SlotBitmap {
    /// `None` unless `bytes` is exactly a bitmap long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BITMAP_LEN] = bytes.try_into().ok()?;
        Some(Self(Box::new(*bytes)))
    }

    /// The 2,048 bytes as packets carry them; slot `s` is bit `s % 8` of byte `s / 8`.
    pub fn as_bytes(&self) -> &[u8; BITMAP_LEN] {
        &self.0
    }

    /// Whether the slot is in the set.
    pub fn get(&self, slot: u16) -> bool {
        self.0[usize::from(slot / 8)] & (1 << (slot % 8)) != 0
    }

    /// Adds a slot.
    pub fn set(&mut self, slot: u16) {
        self.0[usize::from(slot / 8)] |= 1 << (slot % 8);
    }

    /// Takes a slot out.
    pub fn clear(&mut self, slot: u16) {
        self.0[usize::from(slot / 8)] &= !(1 << (slot % 8));
    }

    /// Number of slots in the set.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|b| b.count_ones()).sum()
    }

    /// Whether no slot is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// Set slots in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().enumerate().filter(|(_, b)| **b != 0).flat_map(|(i, b)| {
            let b = *b;
            (0..8).filter(move |bit| b & (1 << bit) != 0).map(move |bit| (i * 8 + bit) as u16)
        })
    }

    /// Runs of set slots, both ends included, ascending. Runs are long and few: it goes by words.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges = Vec::new();
        let mut start: Option<u16> = None;
        for (i, word) in self.0.chunks_exact(8).enumerate() {
            let word = word.iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
            if word == if start.is_some() { u64::MAX } else { 0 } {
                continue;
            }
            for bit in 0..64 {
                let slot = (i * 64 + bit) as u16;
                match (word >> bit & 1 == 1, start) {
                    (true, None) => start = Some(slot),
                    (false, Some(first)) => {
                        ranges.push((first, slot - 1));
                        start = None;
                    }
                    _ => {}
                }
            }
        }
        if let Some(first) = start {
            ranges.push((first, SLOTS as u16 - 1));
        }
        ranges
    }
}

impl FromIterator<u16> for SlotBitmap {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut map = Self::default();
        for slot in slots {
            map.set(slot);
        }
        map
    }
}

impl fmt::Debug for SlotBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.ranges())
    }
}

const UNOWNED: u16 = u16::MAX;

/// Who owns each slot, and which slots are on their way from or to this node.
#[derive(Clone, Debug)]
pub struct SlotMap {
    owners: Box<[u16]>,
    /// Slots whose owner, as we believe, does not say so any more: whoever claims one next has it. Until
    /// then clients are better sent to the former owner than refused.
    pub unclaimed: SlotBitmap,
    /// Own slots that an administrator moves to another node.
    pub migrating: BTreeMap<u16, NodeIx>,
    /// Others' slots that an administrator moves here.
    pub importing: BTreeMap<u16, NodeIx>,
}

impl Default for SlotMap {
    fn default() -> Self {
        let unclaimed = SlotBitmap::default();
        Self {
            owners: vec![UNOWNED; SLOTS].into(),
            unclaimed,
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
        }
    }
}

impl SlotMap {
    /// The place of the node that owns a slot.
    pub fn owner(&self, slot: u16) -> Option<NodeIx> {
        let owner = self.owners[usize::from(slot)];
        (owner != UNOWNED).then_some(NodeIx(owner))
    }

    /// Gives a slot to a node, or to nobody.
    pub fn set_owner(&mut self, slot: u16, owner: Option<NodeIx>) {
        self.owners[usize::from(slot)] = owner.map_or(UNOWNED, |n| n.0);
        self.unclaimed.clear(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_neighbours_only() {
        let map: SlotBitmap = [0, 1, 2, 7, 8, 100, 16382, 16383].into_iter().collect();
        assert_eq!(map.ranges(), [(0, 2), (7, 8), (100, 100), (16382, 16383)]);
        assert_eq!(map.count(), 8);
        assert_eq!(map.iter().count(), 8);
    }
}
