use std::collections::BTreeMap;

use super::*;

/// Scores that collide often, so that members decide the order as well.
fn random_score(rng: &mut Rng) -> f64 {
    match rng.below(10) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => 0.1 + rng.below(5) as f64,
        3 => 1e300 * rng.below(3) as f64,
        _ => rng.below(20) as f64 - 10.0,
    }
}

fn sorted(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<_> = model.iter().map(|(m, s)| (m.clone(), *s)).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    all
}

fn owned<'a>(items: impl Iterator<Item = (Item<'a>, f64)>) -> Vec<(Vec<u8>, f64)> {
    items.map(|(m, s)| (m.to_vec(), s)).collect()
}

#[test]
fn both_encodings_keep_order_and_rank() {
    let small = Limits { zset_max_listpack_entries: 20, ..Limits::default() };
    let rounds = if cfg!(miri) { 400 } else { 8000 };
    for members in [10, 19, 200, 3000u64] {
        let mut rng = Rng::new(members);
        let (mut z, mut model) = (SortedSet::new(), BTreeMap::new());
        for round in 0..rounds {
            let member = format!("m{}", rng.below(members)).into_bytes();
            let adds_of_10 = if round < rounds / 2 { 8 } else { 3 };
            if rng.chance(adds_of_10, 10) {
                let score = random_score(&mut rng);
                let want = match model.insert(member.clone(), score) {
                    None => Added::New,
                    Some(old) if old == score => Added::Same,
                    Some(old) => Added::Moved(old),
                };
                assert_eq!(z.add(&member, score, &small), want);
            } else {
                assert_eq!(z.remove(&member), model.remove(&member));
            }
            assert_eq!(z.len(), model.len());
            if round % (rounds / 20) == 0 {
                let all = sorted(&model);
                assert_eq!(owned(z.iter()), all);
                assert_eq!(owned(z.clone().iter().rev()), all.iter().rev().cloned().collect::<Vec<_>>());
                for _ in 0..20.min(all.len()) {
                    let (a, b) = (rng.below(all.len() as u64) as usize, rng.below(all.len() as u64) as usize);
                    let (a, b) = (a.min(b), a.max(b));
                    assert_eq!(owned(z.range(a..b)), all[a..b]);
                    assert_eq!(
                        owned(z.range(a..b).rev()),
                        all[a..b].iter().rev().cloned().collect::<Vec<_>>()
                    );
                    assert_eq!(z.rank(&all[a].0), Some((a, all[a].1)));
                    assert_eq!(z.score(&all[b].0), Some(all[b].1));
                    assert_eq!(z.at(a).map(|(m, s)| (m.to_vec(), s)), Some(all[a].clone()));
                    let (low, high) = (all[a].1, all[b].1);
                    let want = |f: &dyn Fn(f64) -> bool| all.iter().filter(|(_, s)| f(*s)).count();
                    let range = z.score_range(Bound::Included(low), Bound::Excluded(high));
                    assert_eq!(range.len(), want(&|s| s >= low && s < high));
                    let range = z.score_range(Bound::Excluded(low), Bound::Unbounded);
                    assert_eq!(range.len(), want(&|s| s > low));
                }
            }
        }
        let all = sorted(&model);
        let half = all.len() / 2;
        assert_eq!(z.remove_range(1..half), half - 1);
        assert_eq!(owned(z.iter()), [&all[..1], &all[half..]].concat());
        let mut lowest = vec![];
        while let Some(popped) = z.pop_first_with(|m, s| (m.to_vec(), s)) {
            lowest.push(popped);
            z.pop_last_with(|m, s| lowest.push((m.to_vec(), s)));
        }
        assert_eq!(lowest.len(), all.len() - (half - 1));
        assert!(z.is_empty() && z.iter().next().is_none() && z.first().is_none());
    }
}

#[test]
fn members_in_order_fill_the_leaves() {
    for step in [1.0, -1.0] {
        let mut z = SortedSet::new();
        let n = if cfg!(miri) { 300 } else { 20_000 };
        for i in 0..n {
            z.add(format!("{i:06}").as_bytes(), f64::from(i) * step, &Limits::default());
        }
        let View::Full(full) = z.0.view() else { panic!("large") };
        assert!(cfg!(miri) || full.tree.memory_bytes() < 18 * n as usize);
        assert!(z.iter().map(|(_, s)| s).is_sorted());
        assert_eq!(z.iter().len(), n as usize);
    }
}

#[test]
fn members_of_one_score_are_ranged_by_their_bytes() {
    for entries in [0, 128] {
        let limits = Limits { zset_max_listpack_entries: entries, ..Limits::default() };
        let mut z = SortedSet::new();
        for m in ["b", "a", "d", "c", "10", "9"] {
            assert_eq!(z.add(m.as_bytes(), 0.0, &limits), Added::New);
        }
        let texts = |range| {
            owned(z.range(range)).into_iter().map(|(m, _)| String::from_utf8(m).unwrap()).collect::<Vec<_>>()
        };
        use LexBound::{Excluded, Highest, Included, Lowest};
        assert_eq!(texts(z.lex_range(Lowest, Highest)), ["10", "9", "a", "b", "c", "d"]);
        assert_eq!(texts(z.lex_range(Included(b"a"), Excluded(b"c"))), ["a", "b"]);
        assert_eq!(texts(z.lex_range(Excluded(b"a"), Included(b"c"))), ["b", "c"]);
        assert_eq!(texts(z.lex_range(Lowest, Excluded(b"9"))), ["10"]);
        assert!(
            z.lex_range(Highest, Lowest).is_empty() && z.lex_range(Included(b"c"), Included(b"a")).is_empty()
        );
    }
}

#[test]
fn encodings_follow_the_limits() {
    let limits = Limits::default();
    let mut z = SortedSet::new();
    for n in 0..128 {
        assert_eq!(z.add(n.to_string().as_bytes(), 1.5, &limits), Added::New);
    }
    assert_eq!(z.encoding_name(), "listpack");
    assert_eq!(z.add(b"127", 2.5, &limits), Added::Moved(1.5));
    assert_eq!(z.encoding_name(), "listpack");
    z.add(b"128", 3.0, &limits);
    assert_eq!((z.encoding_name(), z.len()), ("skiplist", 129));
    let mut z = SortedSet::new();
    z.add(&[b'x'; 65], 1.0, &limits);
    assert_eq!(z.encoding_name(), "skiplist");

    // Together they outgrow a listpack, whatever is configured.
    let limits = Limits { zset_max_listpack_value: usize::MAX, ..limits };
    let mut z = SortedSet::new();
    for (letter, encoding) in [(b'a', "listpack"), (b'b', "skiplist")] {
        assert_eq!(z.add(&vec![letter; 600 << 10], 1.0, &limits), Added::New);
        assert_eq!(z.encoding_name(), encoding);
    }
}

#[test]
fn unsound_pairs_in_a_file_are_refused() {
    let of = |items: &[&str]| {
        let mut lp = Dense::new();
        for i in items {
            lp.push_back(i.as_bytes());
        }
        SortedSet::from_listpack(lp, &Limits::default())
    };
    assert_eq!(of(&["a", "1", "b", "1.5"]).unwrap().len(), 2);
    assert!(of(&["a", "1", "b"]).is_none(), "no score");
    assert!(of(&["a", "nan"]).is_none(), "not a number");
    assert!(of(&["a", "one"]).is_none(), "not a number");
    assert!(of(&["a", "2", "b", "1"]).is_none(), "wrong order");
    assert!(of(&["a", "1", "a", "2"]).is_none(), "a member twice");
}
