//! A list without repetition that stays fast when somebody makes it very long.

use hashbrown::HashMap;
use std::hash::Hash;

/// Things in the order in which they came, each once, with something that belongs to each.
#[derive(Clone, Debug)]
pub struct Distinct<K, V = ()> {
    list: Vec<(K, V)>,
    places: HashMap<K, usize>,
}

impl<K, V> Default for Distinct<K, V> {
    fn default() -> Self {
        Self { list: Vec::new(), places: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone, V> Distinct<K, V> {
    /// What belongs to `key`, which is appended if it is new.
    pub fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let at = *self.places.entry(key.clone()).or_insert_with(|| {
            self.list.push((key, new()));
            self.list.len() - 1
        });
        &mut self.list[at].1
    }

    /// Takes `key` out. False when it is not there.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(at) = self.places.remove(key) else { return false };
        self.list.remove(at);
        self.places.values_mut().filter(|place| **place > at).for_each(|place| *place -= 1);
        true
    }

    pub fn clear(&mut self) {
        self.list.clear();
        self.places.clear();
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (K, V)> {
        self.list.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
