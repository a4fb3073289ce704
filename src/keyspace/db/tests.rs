//! One database through its interface: expiry, scans, watchers.

use std::sync::atomic::Ordering;

use super::*;
use crate::base::crc16::key_slot;
use crate::base::rng::Rng;
use crate::keyspace::watch::Dirty;

fn with<R>(ks: &Keyspace, now: UnixMs, f: impl FnOnce(&mut Db<'_, '_>) -> R) -> (R, Effects) {
    let mut effects = Effects::default();
    effects.log_wanted = true;
    let mut locked = ks.lock_all();
    let r = f(&mut Db::new(&mut locked, 0, now, Expiring::Delete, &mut effects));
    drop(locked);
    (r, effects)
}

#[test]
fn the_mean_deadline_follows_every_change() {
    let ks = Keyspace::new(1, Box::new(drop));
    assert_eq!(ks.mean_deadline(0), None);
    with(&ks, 1, |db| {
        db.set_string(b"{a}1", b"v", SetExpire::At(1000));
        db.set_string(b"b", b"v", SetExpire::At(3000));
        db.set_string(b"stays", b"v", SetExpire::Clear);
    });
    assert_eq!(ks.mean_deadline(0), Some(2000));
    with(&ks, 1, |db| {
        db.set_expire(b"b", Some(5000));
        db.set_string(b"stays", b"v", SetExpire::At(6000));
    });
    assert_eq!(ks.mean_deadline(0), Some(4000));
    with(&ks, 1, |db| {
        db.set_expire(b"b", None);
        db.remove(b"stays");
        db.set_string(b"{a}2", b"v", SetExpire::At(3000));
    });
    assert_eq!(ks.mean_deadline(0), Some(2000));
    ks.flush_slot(&mut ks.lock_all(), 0, key_slot(b"a"), &mut Effects::default());
    assert_eq!(ks.mean_deadline(0), None);
    with(&ks, 1, |db| db.set_string(b"c", b"v", SetExpire::At(7000)));
    ks.flush(&mut ks.lock_all(), 0, &mut Effects::default());
    with(&ks, 1, |db| db.set_string(b"c", b"v", SetExpire::At(8000)));
    assert_eq!(ks.mean_deadline(0), Some(8000));
}

#[test]
fn dead_keys_go_when_met_and_leave_a_del() {
    let ks = Keyspace::new(1, Box::new(drop));
    with(&ks, 100, |db| db.set_string(b"k", b"v", SetExpire::At(150)));
    assert!(with(&ks, 150, |db| db.exists(b"k")).0);
    let (found, mut effects) = with(&ks, 151, |db| db.exists(b"k"));
    assert!(!found && ks.is_empty(0));
    ks.log.set_wanted(true);
    effects.append_to(&ks.log, true);
    assert!(ks.log.read(0, 1000).unwrap().concat().ends_with(b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"));
}

#[test]
fn the_index_finds_all_dead_keys_and_none_that_were_prolonged() {
    let ks = Keyspace::new(1, Box::new(drop));
    with(&ks, 0, |db| {
        for i in 0..10_000 {
            db.set_string(format!("dead{i}").as_bytes(), b"v", SetExpire::At(1000 + i % 500));
            let kept = format!("kept{i}");
            db.set_string(kept.as_bytes(), b"v", SetExpire::At(1000));
            db.set_expire(kept.as_bytes(), Some(50_000));
        }
    });
    assert_eq!((ks.len(0), ks.volatile_len(0)), (20_000, 20_000));
    with(&ks, 3000, |db| while db.expire_due(100) > 0 {});
    assert_eq!((ks.len(0), ks.volatile_len(0)), (10_000, 10_000));
    with(&ks, 60_000, |db| while db.expire_due(100) > 0 {});
    assert_eq!((ks.len(0), ks.volatile_len(0)), (0, 0));
}

#[test]
fn a_full_scan_meets_every_key_once() {
    let ks = Keyspace::new(1, Box::new(drop));
    with(&ks, 0, |db| {
        for i in 0..5000 {
            db.set_string(format!("{{tag{}}}{i}", i % 100).as_bytes(), b"v", SetExpire::Clear);
        }
        let (mut cursor, mut seen) = (0, std::collections::HashSet::new());
        loop {
            cursor = db.scan(cursor, 0, &mut |e| assert!(seen.insert(e.key().to_vec()))).unwrap();
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), 5000);
        assert!(db.random_key(&mut Rng::new(1), 0).unwrap().is_some());
    });
    assert_eq!(ks.flush(&mut ks.lock_all(), 0, &mut Effects::default()), 5000);
    assert!(ks.is_empty(0));
}

#[test]
fn a_watched_key_marks_its_transaction_only_when_it_changes() {
    let ks = Keyspace::new(1, Box::new(drop));
    let dirty = Dirty::default();
    with(&ks, 0, |db| {
        db.watch(b"k", &dirty);
        db.changed(b"other", event::SET);
    });
    assert!(!dirty.load(Ordering::Relaxed));
    with(&ks, 0, |db| db.changed(b"k", event::SET));
    assert!(dirty.load(Ordering::Relaxed));
}
