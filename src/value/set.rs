//! Set values.

use std::collections::BTreeSet;

use super::Limits;
use crate::base::rng::Rng;
use crate::encoding::{IntSet, Item, Listpack};

/// A set of byte strings.
#[derive(Clone, Debug, Default)]
pub struct Set {
    items: BTreeSet<Vec<u8>>,
}

/// The bytes behind a set, for writers that can copy them.
#[derive(Clone, Copy, Debug)]
pub enum Packed<'a> {
    IntSet(&'a IntSet),
    Listpack(&'a Listpack),
}

impl Set {
    pub fn new() -> Self {
        Self::default()
    }

    /// A set from a checked intset, converted if it is beyond the limits.
    pub fn from_intset(ints: IntSet, limits: &Limits) -> Self {
        let mut set = Self::new();
        for n in ints.iter() {
            set.add(n.to_string().as_bytes(), limits);
        }
        set
    }

    /// A set from a listpack of members; `None` if a member occurs twice.
    pub fn from_listpack(members: Listpack, limits: &Limits) -> Option<Self> {
        let mut set = Self::new();
        members.iter().all(|m| set.add(&m.to_vec(), limits)).then_some(set)
    }

    /// An empty set in the encoding that suits `members` members, to be filled without conversions.
    pub fn with_capacity(_members: usize, _limits: &Limits) -> Self {
        Self::new()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a member; false if it was there.
    pub fn add(&mut self, member: &[u8], _limits: &Limits) -> bool {
        self.items.insert(member.to_vec())
    }

    /// Removes a member; false if it was not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.items.remove(member)
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        self.items.contains(member)
    }

    /// Members in no particular order, the same while the set does not change.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> + '_ {
        self.items.iter().map(|v| Item::Bytes(v))
    }

    /// A member, each with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<Item<'_>> {
        let n = self.len() as u64;
        (n > 0).then(|| Item::Bytes(self.items.iter().nth(rng.below(n) as usize).expect("below the length")))
    }

    /// Removes a random member after showing it to `f`.
    pub fn pop_with<R>(&mut self, rng: &mut Rng, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let member = self.random(rng)?.to_vec();
        self.remove(&member);
        Some(f(Item::Bytes(&member)))
    }

    /// One step of a scan: shows about `count` members and returns the cursor to go on with, 0 at the end.
    /// A member present from the first to the last step is shown at least once.
    pub fn scan(&self, _cursor: u64, _count: usize, f: impl FnMut(Item<'_>)) -> u64 {
        self.iter().for_each(f);
        0
    }

    /// The compact bytes, if the set is in a compact encoding.
    pub fn packed(&self) -> Option<Packed<'_>> {
        None
    }

    pub fn encoding_name(&self) -> &'static str {
        "hashtable"
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        self.items.iter().map(|v| v.capacity() + 24).sum()
    }
}
