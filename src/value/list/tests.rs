use std::ops::ControlFlow;

use super::*;
use crate::base::rng::Rng;
use crate::encoding::lzf;

fn value(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => vec![b'x'; rng.below(200) as usize],
        1 => vec![b'y'; 3000 + rng.below(9000) as usize],
        2 => (rng.next_u64() as i64 >> rng.below(64)).to_string().into_bytes(),
        _ => rng.below(30).to_string().into_bytes(),
    }
}

/// The elements of a range by both ways of reading, which must agree.
fn range(list: &List, range: Range<usize>) -> Vec<Vec<u8>> {
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    list.for_each_in(range.clone(), |item| forth.push(item.to_vec()));
    list.walk_back(range, |item| {
        back.push(item.to_vec());
        ControlFlow::Continue(())
    });
    back.reverse();
    assert_eq!(forth, back);
    forth
}

fn all(list: &List) -> VecDeque<Vec<u8>> {
    range(list, 0..list.len()).into()
}

/// No block empty or beyond the bound, the counts right, and those blocks compressed that should be.
fn check(list: &List, limits: &Limits) {
    let (bound, depth, n) = (Bound::of(limits), limits.list_compress_depth, list.blocks().len());
    assert_eq!(list.blocks().map(View::count).sum::<usize>(), list.len());
    for (number, view) in list.blocks().enumerate() {
        let mut room = None;
        let block = view.read(&mut room);
        assert!(block.count() > 0);
        assert!(block.count() == 1 || bound.allows(view, 0, 0));
        assert_eq!(block.iter().count(), view.count());
        let inner = depth > 0 && number.min(n - 1 - number) >= depth;
        let mut again = Stored::Open(block.clone());
        again.compress(|block| bound.plain(block));
        let worth = matches!(again, Stored::Compressed(_));
        assert_eq!(matches!(view, View::Compressed(_)), inner && worth, "block {number} of {n}");
    }
}

#[test]
fn behaves_as_a_deque_at_every_block_size() {
    let rounds = if cfg!(miri) { 200 } else { 6000 };
    let shapes =
        [(-1, 0), (-2, 0), (-5, 0), (1, 0), (3, 0), (100, 0), (1, 1), (3, 2), (3, 500), (100, 1), (-1, 3)];
    for (seed, (list_max_listpack_size, list_compress_depth)) in (0u64..).zip(shapes) {
        let limits = Limits { list_max_listpack_size, list_compress_depth, ..Limits::default() };
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
                _ => assert_eq!(list.get_with(at, |i| i.to_vec()), model.get(at).cloned()),
            }
            assert_eq!(list.len(), model.len());
            assert_eq!(list.front().map(|i| i.to_vec()).as_ref(), model.front());
            assert_eq!(list.back().map(|i| i.to_vec()).as_ref(), model.back());
            if round % (rounds / 40) == 0 {
                check(&list, &limits);
                assert_eq!(all(&list), model);
                let from = rng.below(model.len() as u64 + 1) as usize;
                let to = from + rng.below((model.len() - from) as u64 + 1) as usize;
                assert!(model.range(from..to).eq(&range(&list, from..to)));
                let mut copy = List::new();
                for node in list.nodes() {
                    append(&mut copy, node, &limits);
                }
                assert_eq!(all(&copy), model);
                check(&copy, &limits);
            }
        }
    }
}

/// As a file that is loaded.
fn append(list: &mut List, node: Node<'_>, limits: &Limits) {
    let unpacked = match node {
        Node::Compressed(c) => lzf::decompress(c.lzf(), c.bytes()).expect("well formed"),
        Node::Plain(element) => element.to_vec(),
        Node::Packed(packed) => {
            let mut bytes = Vec::new();
            packed.write_to(&mut bytes);
            bytes
        }
    };
    assert_eq!(unpacked.len(), node.bytes());
    if node.is_plain() {
        list.push_back(&unpacked, limits);
    } else {
        list.append_listpack(&Listpack::from_listpack(&unpacked).unwrap(), limits);
    }
}

#[test]
fn a_walk_ends_when_told_to() {
    let limits = Limits { list_max_listpack_size: 7, ..Limits::default() };
    let mut list = List::new();
    for n in 0..100 {
        list.push_back(n.to_string().as_bytes(), &limits);
    }
    let mut seen = Vec::new();
    let mut three = |item: Item<'_>| {
        seen.push(item.to_vec());
        if seen.len() % 3 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    list.walk(5..95, &mut three);
    list.walk_back(5..95, &mut three);
    assert_eq!(
        seen,
        [b"5", b"6", b"7"]
            .map(|b| b.to_vec())
            .into_iter()
            .chain([b"94", b"93", b"92"].map(|b| b.to_vec()))
            .collect::<Vec<_>>()
    );
}

/// The rules of quicklist: blocks of less than 48 bytes, and those that would not save more than eight, are
/// left as they are.
#[test]
fn only_blocks_that_gain_by_it_are_compressed() {
    let limits = Limits { list_max_listpack_size: 1, list_compress_depth: 1, ..Limits::default() };
    // A listpack of one element of n < 64 bytes takes n + 9; of four times the same 13 and a run, n + 9 - k.
    for (element, compressed) in [
        (vec![b'a'; 38], false),
        (vec![b'a'; 39], true),
        ((0..60).collect(), false),
        ([(0..60).collect(), vec![b'a'; 12]].concat(), false),
        ([(0..60).collect(), vec![b'a'; 40]].concat(), true),
    ] {
        let mut list = List::new();
        (0..3).for_each(|_| list.push_back(&element, &limits));
        let nodes: Vec<_> = list.nodes().collect();
        assert!(matches!(nodes[..], [Node::Packed(_), _, Node::Packed(_)]));
        assert_eq!(matches!(nodes[1], Node::Compressed(_)), compressed, "{element:?}");
    }
}

#[test]
fn compressed_blocks_take_less_memory() {
    let fill = |list_compress_depth| {
        let limits = Limits { list_compress_depth, ..Limits::default() };
        let mut list = List::new();
        for n in 0..20_000 {
            list.push_back(format!("{{\"job\": {n}, \"state\": \"waiting\"}}").as_bytes(), &limits);
        }
        list.memory_bytes()
    };
    assert!(fill(1) * 3 < fill(0), "{} and {}", fill(1), fill(0));
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
