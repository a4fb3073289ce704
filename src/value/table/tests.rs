use std::collections::BTreeSet;

use super::*;

struct Plain;
impl Shape for Plain {
    const HEAD: usize = 0;
    const TAIL: bool = false;
}

fn add(t: &mut Table<Plain>, key: &[u8]) -> bool {
    let hash = t.hash(key);
    match t.search(hash, key) {
        Search::Found(_) => false,
        Search::Missing(vacancy) => {
            t.insert(vacancy, Record::new(hash, b"", key, b""));
            true
        }
    }
}

fn remove(t: &mut Table<Plain>, key: &[u8]) -> bool {
    t.find(key).map(|place| t.remove(place)).is_some()
}

fn keys(t: &Table<Plain>) -> BTreeSet<Vec<u8>> {
    let all: Vec<_> = t.iter().map(|r| r.key().to_vec()).collect();
    assert_eq!(all.len(), t.len());
    all.into_iter().collect()
}

#[test]
fn holds_what_a_set_of_the_standard_library_holds() {
    let rounds = if cfg!(miri) { 600 } else { 60_000 };
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let (mut t, mut model) = (Table::<Plain>::new(seed), BTreeSet::new());
        for round in 0..rounds {
            // Grow, churn, then shrink to nothing.
            let insert_of_10 = if round < rounds / 3 {
                8
            } else if round < rounds / 2 {
                5
            } else {
                1
            };
            let key = format!("k{}", rng.below(rounds / 6)).into_bytes();
            if rng.chance(insert_of_10, 10) {
                assert_eq!(add(&mut t, &key), model.insert(key));
            } else {
                assert_eq!(remove(&mut t, &key), model.remove(&key));
            }
            assert_eq!(t.len(), model.len());
        }
        assert_eq!(keys(&t), model);
        assert_eq!(keys(&t.clone()), model);
        assert_eq!(t.record_bytes, t.iter().map(Record::size).sum::<usize>());
        for key in &model {
            assert!(t.get(key).is_some() && remove(&mut t, key));
        }
        assert_eq!((t.buckets.len(), t.overflow.len(), t.record_bytes), (1, 0, 0));
    }
}

#[test]
fn a_scan_shows_everything_that_stays() {
    for (seed, grow) in (0..20).zip([true, false].into_iter().cycle()) {
        let mut rng = Rng::new(seed);
        let mut t = Table::new(seed);
        let n = if cfg!(miri) { 100 } else { 1000 };
        for i in 0..n {
            add(&mut t, format!("stays{i}").as_bytes());
            if !grow {
                for k in 0..10 {
                    assert!(add(&mut t, format!("goes{i}.{k}").as_bytes()));
                }
            }
        }
        let (mut seen, mut cursor, mut step) = (BTreeSet::new(), 0, 0);
        loop {
            cursor = t.scan(cursor, 10, |r| {
                seen.insert(r.key().to_vec());
            });
            if cursor == 0 {
                break;
            }
            for _ in 0..rng.below(60) {
                step += 1;
                if grow {
                    add(&mut t, format!("comes{step}").as_bytes());
                } else {
                    remove(&mut t, format!("goes{}.{}", rng.below(n), rng.below(10)).as_bytes());
                }
            }
        }
        assert!((0..n).all(|i| seen.contains(format!("stays{i}").as_bytes())));
    }
}

#[test]
fn a_cursor_from_elsewhere_is_harmless() {
    let mut t = Table::<Plain>::new(1);
    for i in 0..100 {
        assert!(add(&mut t, &[i]));
    }
    let mut rng = Rng::new(5);
    for _ in 0..1000 {
        t.scan(rng.next_u64(), 10, |_| {});
    }
    t.scan(u64::MAX, usize::MAX, |_| {});
}

#[test]
fn every_record_is_drawn_equally_often() {
    let mut t = Table::<Plain>::new(1);
    for i in 0..200 {
        assert!(add(&mut t, &[i]));
    }
    let mut rng = Rng::new(9);
    let mut drawn = [0u32; 200];
    let rounds = if cfg!(miri) { 1 } else { 1000 };
    for _ in 0..200 * rounds {
        drawn[usize::from(t.at(t.random(&mut rng).unwrap()).key()[0])] += 1;
    }
    // A Poisson count of mean 1000 leaves this interval about once in 10^9 draws.
    assert!(cfg!(miri) || drawn.iter().all(|n| (800..1200).contains(n)), "{drawn:?}");
}
