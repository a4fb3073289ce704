use super::*;

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId::new(ms, seq)
}

fn sample(n: u64) -> Stream {
    let mut s = Stream::new();
    for i in 1..=n {
        let value = i.to_string();
        let name = if i % 7 == 0 { "odd" } else { "n" };
        s.append(id(i, i % 3), &[name, &value], &Limits { stream_node_max_entries: 10, ..Limits::default() });
    }
    s
}

fn ids<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<u64> {
    entries.map(|e| e.id.ms).collect()
}

#[test]
fn ranges_read_both_ways() {
    let s = sample(55);
    assert_eq!(s.nodes().len(), 6);
    assert_eq!(ids(s.iter()), (1..=55).collect::<Vec<_>>());
    assert_eq!(ids(s.iter().rev()), (1..=55).rev().collect::<Vec<_>>());
    assert_eq!(ids(s.range(id(8, 0), id(23, 0))), (8..=22).collect::<Vec<_>>());
    assert_eq!(ids(s.range(id(8, 0), id(23, 5)).rev()), (8..=23).rev().collect::<Vec<_>>());
    assert_eq!(ids(s.range(id(9, 1), id(5, 1))), [0u64; 0]);
    let mut both = s.range(id(3, 0), id(6, 9));
    assert_eq!(both.next().unwrap().id.ms, 3);
    assert_eq!(both.next_back().unwrap().id.ms, 6);
    assert_eq!(ids(both), [4, 5]);
    for entry in &s {
        let fields: Vec<_> = entry.fields.map(|(f, v)| (f.to_vec(), v.as_int().unwrap())).collect();
        let name = if entry.id.ms % 7 == 0 { "odd" } else { "n" };
        assert_eq!(fields, [(name.as_bytes().to_vec(), entry.id.ms as i64)]);
    }
}

#[test]
fn deleting_hides_entries_and_drops_empty_nodes() {
    let mut s = sample(30);
    assert!(!s.remove(id(5, 0)));
    for i in 1..=10 {
        assert!(s.remove(id(i, i % 3)));
        assert!(!s.remove(id(i, i % 3)));
    }
    assert_eq!((s.len(), s.nodes().len()), (20, 2));
    assert!(s.remove(id(15, 0)));
    assert_eq!(ids(s.iter()), (11..=14).chain(16..=30).collect::<Vec<_>>());
    assert_eq!(ids(s.iter().rev()), (16..=30).rev().chain((11..=14).rev()).collect::<Vec<_>>());
    assert_eq!((s.max_deleted_id(), s.last_id(), s.entries_added()), (id(15, 0), id(30, 0), 30));
    assert_eq!(s.first_id(), id(11, 2));
}

#[test]
fn trimming_by_length_and_by_id() {
    let mut s = sample(100);
    assert_eq!(s.trim(Trim::MaxLen(55), true, 0), 40);
    assert_eq!(s.trim(Trim::MaxLen(55), false, 0), 5);
    assert_eq!(s.first_id().ms, 46);
    assert_eq!(s.trim(Trim::MinId(id(63, 0)), true, 0), 15);
    assert_eq!(s.trim(Trim::MinId(id(63, 0)), false, 0), 2);
    assert_eq!(ids(s.iter()), (63..=100).collect::<Vec<_>>());
    assert_eq!(s.trim(Trim::MaxLen(0), false, 5), 0);
    assert_eq!(s.trim(Trim::MaxLen(0), false, 0), 38);
    assert!(s.is_empty() && s.nodes().len() == 0);
}

#[test]
fn nodes_from_a_file_are_checked() {
    let s = sample(25);
    let mut copy = Stream::new();
    for (first, lp) in s.nodes() {
        copy.push_node(first, Listpack::from_listpack(lp.as_bytes()).unwrap()).unwrap();
    }
    assert_eq!(ids(copy.iter()), ids(s.iter()));
    let (first, lp) = s.nodes().next().unwrap();
    assert!(copy.push_node(first, lp.clone()).is_err(), "ids must ascend");
    for i in 0..lp.len() {
        let mut damaged = Listpack::new();
        lp.iter().enumerate().filter(|(n, _)| *n != i).for_each(|(_, item)| damaged.push_back_item(item));
        assert!(Stream::new().push_node(first, damaged).is_err(), "element {i} missing");
    }
}

#[test]
fn pending_entries_belong_to_one_consumer() {
    let mut g = Group::new(StreamId::MIN, Some(0));
    let a = g.add_consumer(b"a", 1).unwrap();
    let b = g.add_consumer(b"b", 1).unwrap();
    assert_eq!(g.add_consumer(b"a", 2), None);
    g.assign(id(1, 0), Pending { consumer: a, delivered_ms: 5, deliveries: 1 });
    g.assign(id(2, 0), Pending { consumer: a, delivered_ms: 5, deliveries: 1 });
    g.assign(id(1, 0), Pending { consumer: b, delivered_ms: 9, deliveries: 2 });
    assert_eq!(g.consumer(a).pending().len(), 1);
    assert_eq!(g.consumer(b).pending().len(), 1);
    assert!(g.acknowledge(id(2, 0)) && !g.acknowledge(id(2, 0)));
    assert_eq!(g.remove_consumer(b"b"), Some(1));
    assert!(g.pending().is_empty());
    assert_eq!(g.consumers().map(|(_, c)| c.name.to_vec()).collect::<Vec<_>>(), [b"a".to_vec()]);
}
