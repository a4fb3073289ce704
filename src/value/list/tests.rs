use super::*;
use crate::base::rng::Rng;

fn owned<'a>(items: impl Iterator<Item = Item<'a>>) -> Vec<Vec<u8>> {
    items.map(|i| i.to_vec()).collect()
}

fn value(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => vec![b'x'; rng.below(200) as usize],
        1 => vec![b'y'; 3000 + rng.below(9000) as usize],
        2 => (rng.next_u64() as i64 >> rng.below(64)).to_string().into_bytes(),
        _ => rng.below(30).to_string().into_bytes(),
    }
}

/// No block empty or beyond the bound, and the counts right.
fn check(list: &List, limits: &Limits) {
    let bound = Bound::of(limits);
    assert_eq!(list.blocks().map(Block::count).sum::<usize>(), list.len());
    for block in list.blocks() {
        assert!(block.count() > 0);
        assert!(block.count() == 1 || bound.allows(block, 0, 0));
        assert_eq!(block.iter().count(), block.count());
    }
}

#[test]
fn behaves_as_a_deque_at_every_block_size() {
    let rounds = if cfg!(miri) { 200 } else { 6000 };
    for (seed, size) in (0u64..).zip([-1, -2, -5, 1, 3, 100]) {
        let limits = Limits { list_max_listpack_size: size, ..Limits::default() };
        let mut rng = Rng::new(seed);
        let (mut list, mut model) = (List::new(), VecDeque::<Vec<u8>>::new());
        for round in 0..rounds {
            let v = value(&mut rng);
            let at = rng.below(model.len() as u64 + 1) as usize;
            // The list grows for a while, then shrinks.
            match if round < rounds / 2 { rng.below(10) } else { 3 + rng.below(8) } {
                0 | 1 => {
                    list.push_back(&v, &limits);
                    model.push_back(v);
                }
                2 | 3 => {
                    list.push_front(&v, &limits);
                    model.push_front(v);
                }
                4 => {
                    assert_eq!(list.set(at, &v, &limits), at < model.len());
                    if let Some(old) = model.get_mut(at) {
                        *old = v;
                    }
                }
                5 | 6 => {
                    let found = model.iter().position(|m| *m == v);
                    let side = if rng.chance(1, 2) { Side::Before } else { Side::After };
                    let new = value(&mut rng);
                    assert_eq!(list.insert(side, &v, &new, &limits), found.is_some());
                    if let Some(i) = found {
                        model.insert(i + usize::from(side == Side::After), new);
                    }
                }
                7 if rng.chance(1, 5) => {
                    let count = rng.below(7) as i64 - 3;
                    let mut hits: Vec<usize> = (0..model.len()).filter(|&i| model[i] == v).collect();
                    if count < 0 {
                        hits.reverse();
                    }
                    if count != 0 {
                        hits.truncate(count.unsigned_abs() as usize);
                    }
                    assert_eq!(list.remove(&v, count), hits.len());
                    hits.sort_unstable();
                    hits.iter().rev().for_each(|&i| drop(model.remove(i)));
                }
                8 => assert_eq!(list.pop_back(), model.pop_back()),
                9 => assert_eq!(list.pop_front(), model.pop_front()),
                _ if rng.chance(1, 100) => {
                    let end = at + rng.below((model.len() - at) as u64 + 1) as usize;
                    list.trim(at..end);
                    model.truncate(end);
                    model.drain(..at);
                }
                _ => assert_eq!(list.get(at).map(|i| i.to_vec()), model.get(at).cloned()),
            }
            assert_eq!(list.len(), model.len());
            assert_eq!(list.front().map(|i| i.to_vec()).as_ref(), model.front());
            assert_eq!(list.back().map(|i| i.to_vec()).as_ref(), model.back());
            if round % (rounds / 40) == 0 {
                check(&list, &limits);
                assert_eq!(VecDeque::from(owned(list.iter())), model);
                let (a, b) = (rng.below(model.len() as u64 + 1) as usize, model.len());
                assert_eq!(
                    owned(list.range(a..b).rev()),
                    owned(list.range(a..b)).into_iter().rev().collect::<Vec<_>>()
                );
                let mut copy = List::new();
                for node in list.nodes() {
                    match node {
                        Node::Plain(b) => copy.push_back(b, &limits),
                        Node::Packed(packed) => {
                            let mut bytes = Vec::new();
                            packed.write_to(&mut bytes);
                            assert_eq!(bytes.len(), packed.len());
                            copy.append_listpack(&Listpack::from_bytes(&bytes).unwrap(), &limits);
                        }
                    }
                }
                assert_eq!(VecDeque::from(owned(copy.iter())), model);
                check(&copy, &limits);
            }
        }
    }
}

#[test]
fn iterates_from_both_ends_to_the_middle() {
    let limits = Limits { list_max_listpack_size: 7, ..Limits::default() };
    let mut list = List::new();
    for n in 0..100 {
        list.push_back(n.to_string().as_bytes(), &limits);
    }
    let mut both = list.range(5..95);
    for n in 0..45 {
        assert_eq!(both.next(), Some(Item::Int(5 + n)));
        assert_eq!(both.next_back(), Some(Item::Int(94 - n)));
    }
    assert_eq!((both.next(), both.next_back()), (None, None));
}

#[test]
fn the_encoding_follows_the_size() {
    let limits = Limits::default();
    let mut list = List::new();
    while list.encoding_name() == "listpack" {
        list.push_back(&[b'x'; 100], &limits);
    }
    assert_eq!(list.len(), 8192usize.div_ceil(103));
    // The second block goes first; then the first must be half empty.
    list.pop_back().unwrap();
    while list.encoding_name() == "quicklist" {
        list.pop_front().unwrap();
    }
    assert_eq!(list.len(), 4096 / 103);
    let mut list = List::new();
    list.push_back(&[b'x'; 10_000], &limits);
    assert_eq!(list.encoding_name(), "quicklist");
    assert!(matches!(list.nodes().next(), Some(Node::Plain(b)) if b.len() == 10_000));
    list.pop_back();
    assert_eq!((list.len(), list.encoding_name(), list.nodes().len()), (0, "listpack", 0));
}

#[test]
fn a_queue_keeps_its_memory_small() {
    let limits = Limits::default();
    let mut list = List::new();
    for n in 0..50_000 {
        list.push_back(format!("job {n}").as_bytes(), &limits);
        if n >= 5 {
            assert_eq!(list.pop_front().unwrap(), format!("job {}", n - 5).into_bytes());
        }
    }
    assert!(list.memory_bytes() < 256, "{}", list.memory_bytes());
}
