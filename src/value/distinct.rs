//! Whether elements read from outside are all different.

use std::collections::BTreeSet;
use std::hash::Hasher;

use foldhash::{SharedSeed, fast::FoldHasher};
use smallvec::SmallVec;

use crate::encoding::{Item, item::IntText};

/// True if no two items have the same text. Hashes first, so that a small sound file costs no allocation.
pub fn distinct<'a>(items: impl Iterator<Item = Item<'a>> + Clone) -> bool {
    let mut buf = IntText::new();
    let mut hashes: SmallVec<[u64; 64]> = SmallVec::new();
    for item in items.clone() {
        let mut hasher = FoldHasher::with_seed(0, SharedSeed::global_fixed());
        hasher.write(item.text(&mut buf));
        hashes.push(hasher.finish());
    }
    hashes.sort_unstable();
    if hashes.is_sorted_by(|a, b| a < b) {
        return true;
    }
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item.to_vec()))
}
