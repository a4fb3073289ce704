//! Snapshots beside writers: each is exactly what was there when it began.

use super::*;
use crate::base::rng::Rng;
use crate::keyspace::db::{Expiring, SetExpire};
use crate::keyspace::{Db, Effects};
use crate::value::ValueRef;
use std::collections::BTreeMap;

type Picture = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys and values, a value in parts of `most` bytes.
fn encode_by(most: usize) -> Arc<Encode> {
    Arc::new(move |e, part, out| {
        let ValueRef::String(v) = e.value() else { panic!("only strings here") };
        if part.from == Position::START {
            out.extend_from_slice(&(e.key().len() as u32).to_le_bytes());
            out.extend_from_slice(e.key());
            out.extend_from_slice(&(v.len() as u32).to_le_bytes());
        }
        let rest = &v[part.from.index..];
        let len = if part.most == usize::MAX { rest.len() } else { rest.len().min(most) };
        out.extend_from_slice(&rest[..len]);
        (len < rest.len()).then_some(Position::at(part.from.index + len))
    })
}

/// Values of a number's length are large.
fn encode() -> Arc<Encode> {
    encode_by(7)
}

fn decode(mut bytes: &[u8], into: &mut Picture) {
    let mut part = || {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        bytes = rest;
        Some(part.to_vec())
    };
    while let Some(key) = part() {
        let value = part().unwrap();
        assert!(into.insert(key, value).is_none(), "every key once");
    }
}

fn set(ks: &Keyspace, key: &[u8], value: &[u8]) {
    let mut locked = ks.lock_slot(ks.hashed(key).slot);
    Db::new(&mut locked, 0, 1, Expiring::Delete, &mut Effects::default()).set_string(
        key,
        value,
        SetExpire::Clear,
    );
}

fn delete(ks: &Keyspace, key: &[u8]) {
    let mut locked = ks.lock_slot(ks.hashed(key).slot);
    Db::new(&mut locked, 0, 1, Expiring::Delete, &mut Effects::default()).remove(key);
}

type Change = fn(&Keyspace, &[u8]);

/// What may become of a large entry between two parts of it.
const CHANGES: [Change; 3] = [
    |ks, key| set(ks, key, b"other"),
    |ks, key| {
        delete(ks, key);
        set(ks, key, b"a new one");
    },
    |ks, _| {
        ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
        set(ks, b"aa", b"another of the same name");
    },
];

/// Afterwards a writer finds out with one look that there is nothing to save: in a database that was
/// empty, in one that came into being meanwhile, and in one that comes later.
#[test]
fn a_snapshot_puts_every_table_of_every_database_on_record() {
    let ks = Arc::new(Keyspace::new(4, Box::new(drop)));
    let everything_is_on_record = |db: DbIndex| {
        let (locked, parities) = (ks.lock_all(), ks.parities());
        (0..SLOTS as u16).all(|slot| locked.table(ks.tables(db), slot).parities() == parities)
    };
    set(&ks, b"key", b"value");
    ks.tables(1);
    let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
    assert_eq!(walk.databases(), [(0, 1, 0)], "only what there is to write");
    assert!(!everything_is_on_record(0) && !everything_is_on_record(1));
    ks.tables(2);
    while walk.next_chunk(&mut Vec::new()).is_some() {}
    drop(walk);
    for db in 0..4 {
        assert!(everything_is_on_record(db), "database {db}");
    }
}

/// A database keeps its part in the snapshot when it changes its number, also with one that never was.
#[test]
fn a_snapshot_holds_what_is_swapped_away() {
    let ks = Arc::new(Keyspace::new(4, Box::new(drop)));
    set(&ks, b"key", b"value");
    let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
    let (mut locked, mut effects) = (ks.lock_all(), Effects::default());
    Db::new(&mut locked, 1, 1, Expiring::Delete, &mut effects).swap(0, 3);
    drop(locked);
    let (mut got, mut out) = (Picture::new(), vec![]);
    assert_eq!(walk.next_chunk(&mut out), Some(0));
    decode(&out, &mut got);
    assert_eq!(got, Picture::from([(b"key".to_vec(), b"value".to_vec())]));
}

/// Nobody holds its shard for longer than a part takes, and what is changed meanwhile is saved as it was.
#[test]
fn a_large_entry_is_saved_part_by_part() {
    let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
    let large = |n: u8| (vec![b'a' + n; 2], vec![n; 10 * CHUNK]);
    let nothing: Change = |_, _| {};
    for change in std::iter::once(nothing).chain(CHANGES) {
        let mut want = Picture::new();
        for (key, value) in (0..4).map(large) {
            set(&ks, &key, &value);
            want.insert(key, value);
        }
        let mut walk = ks.begin_snapshot(&ks.lock_all(), encode_by(CHUNK)).unwrap();
        let (mut got, mut out, mut parts) = (Picture::new(), vec![], 0);
        loop {
            let before = out.len();
            if walk.next_chunk(&mut out).is_none() {
                break;
            }
            parts += 1;
            if parts == 3 {
                // No table is on record yet, and one of them is begun.
                want.keys().for_each(|key| change(&ks, key));
            } else if parts < 3 {
                assert!(out.len() - before < 2 * CHUNK, "{} bytes in one part", out.len() - before);
            }
        }
        decode(&out, &mut got);
        assert!(got == want, "{:?}", got.keys());
        assert!(parts > 4, "{parts}");
        ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
    }
}

/// A writer who looks first encodes a large entry turn by turn, from wherever the walk is with it, and whatever
/// becomes of the entry between two turns: every snapshot under way gets it as it was, once.
#[test]
fn a_writer_saves_a_large_entry_turn_by_turn() {
    let large = |n: u8| (vec![b'a' + n; 2], vec![n; (1 << 20) + 9 * CHUNK]);
    let ahead = |ks: &Keyspace, key: &[u8]| ks.lock_slot(ks.hashed(key).slot).save_ahead(0, [key]);
    for (at, change) in CHANGES.iter().enumerate() {
        for (walked, turns) in [(0, 0), (0, 1), (0, 1000), (2, 0), (2, 3), (2, 1000), (20, 1)] {
            let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
            let mut want = Picture::new();
            for (key, value) in (0..3).map(large) {
                set(&ks, &key, &value);
                want.insert(key, value);
            }
            let begin = || ks.begin_snapshot(&ks.lock_all(), encode_by(CHUNK)).unwrap();
            let mut walks = [(begin(), vec![]), (begin(), vec![])];
            (0..walked).for_each(|_| _ = walks[0].0.next_chunk(&mut walks[0].1));
            for key in want.keys() {
                let taken = (0..turns).take_while(|_| ahead(&ks, key).is_some()).count();
                assert!(taken == turns || taken > 10 && taken < 100, "{taken}");
                if turns == 1000 {
                    set(&ks, key, b"at once");
                }
            }
            want.keys().for_each(|key| change(&ks, key));
            for (walk, out) in &mut walks {
                while walk.next_chunk(out).is_some() {}
                let mut got = Picture::new();
                decode(out, &mut got);
                assert!(got == want, "change {at} behind {walked} and {turns}");
            }
            drop(walks);
            assert!(ahead(&ks, b"aa").is_none() && !ks.board.writers_look_first());
            assert!(
                (0..super::super::SHARDS).all(|shard| ks.lock_shard(shard).side_mut(shard).saved.is_empty())
            );
        }
    }
}

/// Who deletes, overwrites or flushes a large entry encodes nothing of it: the walks write it, part by part.
#[test]
fn a_large_entry_that_goes_is_kept_for_the_walks() {
    let changes: [fn(&Keyspace, &[u8]); 3] = [
        |ks, key| set(ks, key, b"other"),
        delete,
        |ks, _| _ = ks.flush(&mut ks.lock_all(), 0, &mut Effects::default()),
    ];
    for change in changes {
        let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
        let want = Picture::from([(b"aa".to_vec(), vec![1; (1 << 20) + 9 * CHUNK])]);
        want.iter().for_each(|(key, value)| set(&ks, key, value));
        let begin = || ks.begin_snapshot(&ks.lock_all(), encode_by(CHUNK)).unwrap();
        let walks = [begin(), begin()];
        change(&ks, b"aa");
        let shard = super::super::shard_of(ks.hashed(b"aa").slot);
        assert!(ks.lock_shard(shard).side_mut(shard).saved.is_empty());
        for mut walk in walks {
            let (mut got, mut out, mut before) = (Picture::new(), vec![], 0);
            while walk.next_chunk(&mut out).is_some() {
                assert!(out.len() - before < 2 * CHUNK, "{} bytes in one part", out.len() - before);
                before = out.len();
            }
            decode(&out, &mut got);
            assert!(got == want, "{:?}", got.keys());
        }
        assert!(ks.snapshot.frozen.lock().is_empty());
    }
}

/// Three snapshots in a row, each raced by random writes, deletions and once a flush: each must
/// be exactly what was there when it began.
#[test]
fn a_snapshot_is_one_point_in_time() {
    let mut rng = Rng::new(9);
    let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
    let mut model = Picture::new();
    let write = |rng: &mut Rng, model: &mut Picture| {
        let key = format!("key:{{{}}}{}", rng.below(40), rng.below(300)).into_bytes();
        if rng.chance(3, 4) {
            let value = rng.next_u64().to_string().into_bytes();
            set(&ks, &key, &value);
            model.insert(key, value);
        } else {
            delete(&ks, &key);
            model.remove(&key);
        }
    };
    let (writes, beside) = if cfg!(miri) { (100, 20) } else { (5000, 200) };
    // The second is raced by a flush, the last is given up.
    for round in if cfg!(miri) { 1..3 } else { 0..4 } {
        for _ in 0..writes {
            write(&mut rng, &mut model);
        }
        let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
        let (want, mut got, mut out) = (model.clone(), Picture::new(), vec![]);
        assert_eq!(walk.keys(), want.len());
        if round == 3 || (cfg!(miri) && round != 1) {
            drop(walk);
            continue;
        }
        for step in 0.. {
            for _ in 0..beside {
                write(&mut rng, &mut model);
            }
            if round == 1 && step == 1 {
                ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
                model.clear();
            }
            if walk.next_chunk(&mut out).is_none() {
                break;
            }
        }
        decode(&out, &mut got);
        assert!(got == want, "round {round}: {} keys for {}", got.len(), want.len());
    }
    let mut walk = ks.begin_snapshot(&ks.lock_all(), encode()).unwrap();
    let (mut got, mut out) = (Picture::new(), vec![]);
    while walk.next_chunk(&mut out).is_some() {}
    decode(&out, &mut got);
    assert!(got == model, "after an aborted snapshot");
}

/// Snapshots that begin while others run: each is what was there at its own begin, whoever is written, deleted
/// and flushed meanwhile, and whichever ends first.
#[test]
fn several_snapshots_are_a_point_in_time_each() {
    let mut rng = Rng::new(11);
    let ks = Arc::new(Keyspace::new(1, Box::new(drop)));
    let mut model = Picture::new();
    // The last of three is what was written so far.
    let mut walks: Vec<(Walk, Picture, Vec<u8>)> = Vec::new();
    let (steps, mut ended) = (if cfg!(miri) { 60 } else { 4000 }, 0);
    for step in 0..steps {
        for _ in 0..20 {
            let key = format!("key:{{{}}}{}", rng.below(40), rng.below(300)).into_bytes();
            if rng.chance(3, 4) {
                let value = rng.next_u64().to_string().into_bytes();
                set(&ks, &key, &value);
                model.insert(key, value);
            } else {
                delete(&ks, &key);
                model.remove(&key);
            }
        }
        if rng.chance(1, 200) {
            ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
            model.clear();
        }
        if rng.chance(1, 4) {
            match ks.begin_snapshot(&ks.lock_all(), encode()) {
                Some(walk) => walks.push((walk, model.clone(), vec![])),
                None => assert_eq!(walks.len(), LANES),
            }
        }
        if !walks.is_empty() {
            let at = rng.below(walks.len() as u64) as usize;
            let (walk, _, out) = &mut walks[at];
            if walk.next_chunk(out).is_none() {
                let (_, want, out) = walks.swap_remove(at);
                let mut got = Picture::new();
                decode(&out, &mut got);
                assert!(got == want, "step {step}: {} keys for {}", got.len(), want.len());
                ended += 1;
            }
        }
        // One is given up.
        if rng.chance(1, 100) && !walks.is_empty() {
            walks.pop();
        }
    }
    assert!(ended > steps / 20, "{ended}");
    assert!(ks.snapshot.frozen.lock().is_empty() || !walks.is_empty());
}
