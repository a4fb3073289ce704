//! One database through its interface: expiry, scans, watchers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::base::crc16::key_slot;
use crate::base::rng::Rng;
use crate::config::choice::MaxmemoryPolicy;
use crate::config::compound::{Compound, KeyspaceEvents};
use crate::keyspace::evict::{Eviction, Pool};
use crate::keyspace::watch::{Dirty, Waiter};
use crate::keyspace::{EntryRef, SHARDS, event, shard_of};
use crate::value::Value;

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
    ks.log.set_backlog(true);
    effects.append_to(&ks.log, true);
    assert!(ks.log.read(0, 1000).unwrap().pieces.concat().ends_with(b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"));
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
            let visit = &mut |e: EntryRef<'_>| assert!(seen.insert(e.key().to_vec()));
            cursor = db.scan(cursor, 0, &mut Vec::new(), visit).unwrap();
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
        db.changed(b"k", event::XGROUP_CREATE);
        db.notify(b"k", event::EXPIRE);
    });
    assert!(!dirty.load(Ordering::Relaxed));
    with(&ks, 0, |db| db.changed(b"k", event::SET));
    assert!(dirty.load(Ordering::Relaxed));
}

/// A keyspace whose key `k` is watched and waited for, and everything of it published; the key's time
/// comes at 100.
struct Witness {
    ks: Keyspace,
    watched: Dirty,
}

impl Witness {
    fn new() -> Self {
        let (ks, watched) = (Keyspace::new(2, Box::new(drop)), Dirty::default());
        let mut events = KeyspaceEvents::default();
        events.read(&[b"KEAmn"], true).unwrap();
        ks.events.set(events);
        with(&ks, 0, |db| {
            db.set_string(b"k", b"v", SetExpire::At(100));
            for key in [&b"k"[..], b"missing"] {
                db.watch(key, &watched);
                db.block(key, &waiter());
            }
        });
        Self { ks, watched }
    }

    /// Does something to the key, which must break the transaction once and wake the client once, and be
    /// published as `events`.
    fn expect(&self, events: &[&str], step: impl FnOnce(&Keyspace, &mut Effects)) {
        let mut effects = Effects::seeded(1);
        step(&self.ks, &mut effects);
        let published: Vec<_> = effects.notices.iter().map(|n| (n.db, n.event.name(), &*n.key)).collect();
        let expected: Vec<_> = events.iter().map(|name| (0, *name, &b"k"[..])).collect();
        assert_eq!(published, expected);
        assert_eq!(effects.ready, [(0, b"k".to_vec())], "a blocked client looks again");
        assert!(self.watched.load(Ordering::Relaxed));
        assert_eq!(effects.dirty, 0, "what the node does by itself is no change of a client");
    }
}

fn waiter() -> Arc<Waiter> {
    Arc::new(Waiter {
        client: 1,
        worker: 0,
        token: 0,
        db: 0,
        resp3: false,
        no_touch: false,
        login: None,
        argv: Vec::new(),
        alone: Vec::new(),
        remembers: false,
        for_loss: false,
        claimed: false.into(),
    })
}

#[test]
fn a_dead_key_that_is_met_tells_once_that_it_expired() {
    Witness::new().expect(&["expired", "keymiss"], |ks, effects| {
        let mut locked = ks.lock_all();
        assert!(Db::new(&mut locked, 0, 101, Expiring::Delete, effects).read(b"k").is_none());
    });
    Witness::new().expect(&["expired"], |ks, effects| {
        assert!(!Db::new(&mut ks.lock_all(), 0, 101, Expiring::Delete, effects).exists(b"k"));
    });
    Witness::new().expect(&["expired", "new"], |ks, effects| {
        let mut locked = ks.lock_all();
        Db::new(&mut locked, 0, 101, Expiring::Delete, effects).set_string(b"k", b"v", SetExpire::Clear);
    });
    Witness::new().expect(&["expired", "new"], |ks, effects| {
        let value = Value::String(Arc::new(vec![0; 1000]));
        Db::new(&mut ks.lock_all(), 0, 101, Expiring::Delete, effects).insert(b"k", value, None);
    });
}

#[test]
fn a_dead_key_that_the_clock_finds_tells_once_that_it_expired() {
    Witness::new().expect(&["expired"], |ks, effects| {
        let mut locked = ks.lock_all();
        let mut db = Db::new(&mut locked, 0, 1000, Expiring::Delete, effects);
        assert_eq!((db.expire_due(10), db.expire_due(10)), (1, 0));
    });
}

#[test]
fn an_evicted_key_tells_so_once() {
    Witness::new().expect(&["evicted"], |ks, effects| {
        let mut rng = Rng::new(1);
        let evict = |rng: &mut Rng, effects: &mut Effects| {
            matches!(
                ks.evict_one(MaxmemoryPolicy::AllkeysRandom, &mut Pool::default(), rng, 5, 0, effects),
                Eviction::Done(_)
            )
        };
        assert!(evict(&mut rng, effects));
        assert!(!evict(&mut rng, effects));
    });
}

#[test]
fn a_flush_and_a_lost_slot_tell_once_of_keys_that_were_there() {
    Witness::new().expect(&[], |ks, effects| {
        let mut locked = ks.lock_all();
        assert_eq!((ks.flush(&mut locked, 0, effects), ks.flush(&mut locked, 0, effects)), (1, 0));
        ks.flush(&mut locked, 1, effects);
    });
    Witness::new().expect(&[], |ks, effects| {
        let mut locked = ks.lock_all();
        let slot = key_slot(b"k");
        ks.flush_slot(&mut locked, 0, slot ^ SHARDS as u16, effects);
        for keys in [1, 0] {
            assert_eq!(ks.flush_slot(&mut locked, 0, slot, effects), keys);
        }
    });
}

#[test]
fn events_are_noted_only_for_who_publishes_them() {
    let ks = Keyspace::new(1, Box::new(drop));
    let noted = |letters: &[u8], effects: Effects| {
        let mut events = KeyspaceEvents::default();
        events.read(&[letters], true).unwrap();
        ks.events.set(events);
        let mut effects = effects;
        Db::new(&mut ks.lock_all(), 0, 0, Expiring::Delete, &mut effects).changed(b"k", event::LPUSH);
        (effects.notices.len(), effects.dirty)
    };
    for (letters, count) in [(&b"KA"[..], 1), (b"El", 1), (b"", 0), (b"A", 0), (b"KEg$shzxetdmn", 0)] {
        assert_eq!(noted(letters, Effects::seeded(1)), (count, 1));
        assert_eq!(noted(letters, Effects::default()), (0, 1));
    }
}

#[test]
fn giant_work_is_announced_and_a_script_keeps_its_own_announcement() {
    let ks = Keyspace::new(1, Box::new(drop));
    let mut effects = Effects::default();
    let holder = || ks.board.holder(shard_of(5)).map(|holder| (holder.reason, holder.since));
    let mut locked = ks.lock_slot(5);
    let mut db = Db::new(&mut locked, 0, 7, Expiring::Delete, &mut effects);
    db.announce_work("sunion", GIANT - 1);
    assert_eq!(holder(), None);
    db.announce_work("sunion", GIANT);
    assert_eq!(holder(), Some((Reason::Command("sunion"), 7)));
    drop(locked);
    assert_eq!(holder(), None);
    let mut locked = ks.lock_slot(5);
    locked.declare_long(Reason::Script, 1);
    Db::new(&mut locked, 0, 7, Expiring::Delete, &mut effects).announce_work("sunion", GIANT);
    assert_eq!(holder(), Some((Reason::Script, 1)));
}
