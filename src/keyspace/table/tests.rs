//! The table against a map, and scans under churn.

use super::*;
use crate::base::rng::Rng;
use crate::keyspace::entry::Body;
use std::collections::{BTreeSet, HashSet};

fn hash_of(key: &[u8]) -> u64 {
    let mut x = Rng::new(u64::from_le_bytes(key.try_into().unwrap()));
    x.next_u64()
}

fn insert(t: &mut SlotTable, k: u64) {
    let key = k.to_le_bytes();
    t.exclusive().insert(hash_of(&key), Entry::new(&key, Body::Inline(b"v"), None), hash_of, || true);
}

fn remove(t: &mut SlotTable, k: u64) -> bool {
    let key = k.to_le_bytes();
    let Some(place) = t.find(hash_of(&key), &key) else { return false };
    drop(t.exclusive().remove(place, hash_of, || true));
    true
}

fn id(e: EntryRef<'_>) -> u64 {
    u64::from_le_bytes(e.key().try_into().unwrap())
}

#[test]
fn behaves_as_a_map_through_growth_and_shrinking() {
    let (mut t, mut model, mut rng) = (SlotTable::default(), BTreeSet::new(), Rng::new(3));
    let (rounds, keys) = if cfg!(miri) { (1200, 400) } else { (60_000u64, 12_000) };
    for round in 0..rounds {
        let k = rng.below(keys);
        // First it grows, then it shrinks to nothing.
        if rng.chance(if round < rounds / 3 * 2 { 3 } else { 1 }, 4) {
            if model.insert(k) {
                insert(&mut t, k);
            }
        } else {
            assert_eq!(remove(&mut t, k), model.remove(&k));
        }
        assert_eq!(t.len(), model.len());
    }
    let mut seen: Vec<_> = vec![];
    t.for_each(|e| seen.push(id(e)));
    seen.sort_unstable();
    assert!(seen.iter().eq(model.iter()));
    for k in &model {
        assert!(remove(&mut t, *k));
    }
    assert_eq!(t.buckets(), 1);
    t.exclusive().release();
    assert_eq!(t.buckets(), 0);
    insert(&mut t, 1);
    t.exclusive().release();
    assert!(remove(&mut t, 1), "what has an entry stays");
}

#[test]
fn a_scan_returns_what_stays_whatever_else_happens() {
    let mut rng = Rng::new(11);
    let (many, keys) = if cfg!(miri) { (100, 400) } else { (2000, 20_000) };
    for (start, churn_up) in [(many, true), (many, false), (0, true)] {
        let mut t = SlotTable::default();
        let stays: HashSet<u64> = (0..many / 7).map(|i| i * 7919 + 1_000_000).collect();
        for k in 0..start {
            insert(&mut t, k);
        }
        for &k in &stays {
            insert(&mut t, k);
        }
        let mut seen = HashSet::new();
        let (mut at, mut steps) = (Some(0), 0);
        while let Some(position) = at {
            at = t.scan(position, &mut |e| {
                seen.insert(id(e));
            });
            steps += 1;
            assert!(steps < 100_000, "a scan ends");
            for _ in 0..8 {
                let k = rng.below(keys);
                let present = t.find(hash_of(&k.to_le_bytes()), &k.to_le_bytes()).is_some();
                if present && !(churn_up && rng.chance(3, 4)) {
                    remove(&mut t, k);
                } else if !present && churn_up && steps < many + 1000 {
                    insert(&mut t, k);
                }
            }
        }
        assert!(stays.is_subset(&seen));
    }
}

#[test]
fn random_entries_are_nearly_uniform() {
    let mut t = SlotTable::default();
    for k in 0..100 {
        insert(&mut t, k);
    }
    let (mut counts, mut rng) = ([0u32; 100], Rng::new(5));
    for _ in 0..if cfg!(miri) { 50 } else { 100_000 } {
        counts[id(t.random(&mut rng).unwrap()) as usize] += 1;
    }
    // Expected 1000 each, standard deviation 32.
    assert!(cfg!(miri) || counts.iter().all(|c| (820..1180).contains(c)), "{counts:?}");
}

#[test]
fn five_thousand_keys_cost_under_sixteen_bucket_bytes_each() {
    let mut t = SlotTable::default();
    let keys = if cfg!(miri) { 200 } else { 5000 };
    for k in 0..keys {
        insert(&mut t, k);
    }
    assert!(t.bucket_bytes() < 16 * keys as usize, "{}", t.bucket_bytes());
}

/// A place that is kept while the table changes names another entry or none, never freed memory. (Miri
/// would tell.)
#[test]
fn a_stale_place_is_caught() {
    let mut t = SlotTable::default();
    let keys = 200;
    for k in 0..keys {
        insert(&mut t, k);
    }
    let places: Vec<_> =
        (0..keys).filter_map(|k| t.find(hash_of(&k.to_le_bytes()), &k.to_le_bytes())).collect();
    assert!(places.len() == keys as usize && places.iter().any(|p| p.depth() > 0));
    for k in 1..keys {
        remove(&mut t, k);
    }
    let (mut named, mut refused) = (0, 0);
    // A panic takes Miri a second.
    let some = places.into_iter().step_by(if cfg!(miri) { 50 } else { 1 });
    let tried = some.len();
    for place in some {
        let read = std::panic::AssertUnwindSafe(|| id(t.get(place)));
        match std::panic::catch_unwind(read) {
            Ok(id) => named += usize::from(id == 0),
            Err(_) => refused += 1,
        }
    }
    assert!((cfg!(miri) || named >= 1) && refused + named == tried);
}
