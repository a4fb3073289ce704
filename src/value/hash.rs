//! Hash values.

use std::collections::BTreeMap;

use super::Limits;
use crate::base::rng::Rng;
use crate::encoding::{Item, Listpack};

/// A map from fields to values.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    items: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Hash {
    pub fn new() -> Self {
        Self::default()
    }

    /// A hash from a listpack of fields and values in turn; `None` if a field occurs twice or a value is missing.
    pub fn from_listpack(pairs: Listpack, limits: &Limits) -> Option<Self> {
        let mut hash = Self::new();
        let mut items = pairs.iter();
        while let Some(field) = items.next() {
            if !hash.set(&field.to_vec(), &items.next()?.to_vec(), limits) {
                return None;
            }
        }
        Some(hash)
    }

    /// An empty hash in the encoding that suits `fields` fields, to be filled without conversions.
    pub fn with_capacity(_fields: usize, _limits: &Limits) -> Self {
        Self::new()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Sets a field; true if it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8], _limits: &Limits) -> bool {
        self.items.insert(field.to_vec(), value.to_vec()).is_none()
    }

    pub fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        self.items.get(field).map(|v| Item::Bytes(v))
    }

    pub fn contains(&self, field: &[u8]) -> bool {
        self.items.contains_key(field)
    }

    /// Removes a field; false if it was not there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        self.items.remove(field).is_some()
    }

    /// Fields with their values in no particular order, the same while the hash does not change.
    pub fn iter(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>)> + '_ {
        self.items.iter().map(|(f, v)| (Item::Bytes(f), Item::Bytes(v)))
    }

    /// A field and its value, each with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<(Item<'_>, Item<'_>)> {
        let n = self.len() as u64;
        if n == 0 { None } else { self.iter().nth(rng.below(n) as usize) }
    }

    /// One step of a scan: shows about `count` fields and returns the cursor to go on with, 0 at the end.
    /// A field present from the first to the last step is shown at least once.
    pub fn scan(&self, _cursor: u64, _count: usize, mut f: impl FnMut(Item<'_>, Item<'_>)) -> u64 {
        self.iter().for_each(|(field, value)| f(field, value));
        0
    }

    /// The listpack of fields and values in turn, if the hash is in that encoding.
    pub fn packed(&self) -> Option<&Listpack> {
        None
    }

    pub fn encoding_name(&self) -> &'static str {
        "hashtable"
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        self.items.iter().map(|(f, v)| f.capacity() + v.capacity() + 48).sum()
    }
}
