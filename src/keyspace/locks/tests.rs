//! Locks taken, waited for, declared, and keys under way.

use super::*;
use crate::base::crc16::key_slot;

#[test]
fn shards_are_added_only_when_all_of_them_are_free() {
    let ks = Keyspace::new(1, Box::new(drop));
    let mut mine = ks.lock_slot(5);
    let theirs = ks.lock_slot(7);
    let mut more = LockSet::of_slot(6);
    more.add_slot(7);
    assert!(!mine.try_extend(more) && !mine.set().has_slot(6));
    drop(theirs);
    assert!(mine.try_extend(more) && mine.set().contains(&more) && mine.set().has_slot(5));
    drop(mine);
    assert!(ks.lock_slot(5).try_extend(LockSet::ALL));
}

#[test]
#[should_panic(expected = "without its lock")]
fn data_without_its_lock_is_a_bug() {
    let ks = Keyspace::new(1, Box::new(drop));
    let locked = ks.lock_slot(0);
    let _ = locked.table(ks.tables(0), 1);
}

#[test]
fn crossing_commands_do_not_deadlock() {
    let ks = Keyspace::new(1, Box::new(drop));
    std::thread::scope(|scope| {
        for t in 0..4u16 {
            let ks = &ks;
            scope.spawn(move || {
                for i in 0..2000u16 {
                    let mut set = LockSet::of_slot(i.wrapping_mul(7 + t));
                    set.add_slot(i.wrapping_mul(13) % 16384);
                    set.add_slot(t);
                    drop(ks.lock(set));
                    if i % 100 == 0 {
                        drop(ks.lock_all());
                    }
                }
            });
        }
    });
}

fn keyspace() -> (Arc<Keyspace>, Arc<parking_lot::Mutex<Vec<u64>>>) {
    let ks = Arc::new(Keyspace::new(2, Box::new(drop)));
    let woken = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let list = Arc::clone(&woken);
    ks.board.wake_by(Box::new(move |who| list.lock().push(who.client)));
    (ks, woken)
}

fn client(client: u64) -> Waiting {
    Waiting { worker: 0, token: client as usize, client }
}

#[test]
fn who_waits_for_a_shard_is_woken_in_order_when_it_is_free() {
    let (ks, woken) = keyspace();
    let held = ks.lock_slot(5);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let busy = ks.try_lock_slot(5, 0).unwrap_err();
            assert_eq!((busy, ks.board.holder(5).is_none()), (Busy { shard: 5, key: false }, true));
            let (mut first, mut second) = (0, 0);
            assert!(ks.put_aside(client(1), busy, &mut first) && ks.put_aside(client(2), busy, &mut second));
            // The first comes again and keeps its place.
            assert!(ks.put_aside(client(1), busy, &mut first) && first < second);
            // All shards but one are free, and none of them is kept.
            assert_eq!(ks.try_lock(LockSet::ALL, 0).unwrap_err().shard, 5);
            drop(ks.lock_slot(4));
        });
    });
    assert!(woken.lock().is_empty() && ks.board.waiting() == 2);
    drop(held);
    assert_eq!((&**woken.lock(), ks.board.waiting()), (&[1, 2][..], 0));
    drop(ks.try_lock_slot(5, 0).unwrap());
    assert_eq!(woken.lock().len(), 2, "nobody is woken twice");
}

#[test]
fn a_shard_that_is_free_by_now_is_not_waited_for() {
    let (ks, woken) = keyspace();
    assert!(!ks.put_aside(client(1), Busy { shard: 5, key: false }, &mut 0));
    drop(ks.lock_slot(5));
    assert!(woken.lock().is_empty() && ks.try_lock_slot(5, 0).is_ok());
}

#[test]
fn a_holder_that_declares_itself_is_on_the_board_until_it_ends() {
    let (ks, woken) = keyspace();
    let mut held = ks.lock_slot(5);
    assert!(ks.put_aside(client(1), Busy { shard: 5, key: false }, &mut 0));
    held.declare_long(Reason::Script, 7);
    assert_eq!(*woken.lock(), [1], "it may be told what runs");
    let holder = ks.board.holder(5).unwrap();
    assert_eq!((holder.reason, holder.since), (Reason::Script, 7));
    assert!(held.try_extend(LockSet::of_slot(6)) && ks.board.holder(6).is_some());
    drop(held);
    assert!(ks.board.holder(5).is_none() && ks.board.holder(6).is_none());
    assert!(ks.try_lock(LockSet::ALL, 0).is_ok());
}

#[test]
fn a_key_under_way_is_held_back_until_it_is_let_through() {
    let (ks, woken) = keyspace();
    ks.tables(1);
    let keys = [b"a".to_vec()];
    let slot = key_slot(b"a");
    let parcel = ks.lock_slot(slot).hold_back(0, &keys);
    let mut locked = ks.lock_slot(slot);
    assert_eq!(locked.under_way([&b"b"[..]]), None);
    let busy = locked.under_way([&b"b"[..], b"a"]).unwrap();
    assert!(ks.put_aside(client(1), busy, &mut 0));
    drop(locked);
    // That the shard is unlocked changes nothing for a client that waits for the key.
    drop(ks.lock_slot(slot));
    assert!(woken.lock().is_empty());
    assert_eq!(ks.lock_slot(slot).let_through(parcel, &keys), [true]);
    assert_eq!((&**woken.lock(), ks.lock_slot(slot).under_way([&b"a"[..]])), (&[1][..], None));
    assert_eq!(ks.lock_slot(slot).let_through(parcel, &keys), [false]);
    // What is flushed is not held back.
    let parcel = ks.lock_slot(slot).hold_back(0, &keys);
    ks.flush(&mut ks.lock_all(), 1, &mut crate::keyspace::Effects::default());
    assert!(ks.lock_slot(slot).under_way([&b"a"[..]]).is_some());
    ks.flush(&mut ks.lock_all(), 0, &mut crate::keyspace::Effects::default());
    assert!(ks.lock_slot(slot).under_way([&b"a"[..]]).is_none());
    assert_eq!(ks.lock_slot(slot).let_through(parcel, &keys), [false]);
}

/// Workers that put clients aside, against holders that come and go: nobody is forgotten.
#[test]
fn nobody_who_waits_is_forgotten() {
    let (ks, woken) = keyspace();
    let done = std::sync::atomic::AtomicBool::new(false);
    let aside = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _held = ks.lock_slot(5);
                    std::hint::spin_loop();
                }
            });
        }
        let mut aside = 0;
        for i in 0..20_000 {
            aside += usize::from(ks.put_aside(client(i), Busy { shard: 5, key: false }, &mut 0));
        }
        done.store(true, Ordering::Relaxed);
        aside
    });
    assert_eq!((woken.lock().len(), ks.board.waiting()), (aside, 0));
}
