//! SWAPDB: two databases exchange their numbers.

use std::sync::atomic::Ordering;

use super::Db;
use crate::keyspace::{DbIndex, LockSet, SHARDS};

impl Db<'_, '_> {
    /// Exchanges two databases. Every shard must be locked. Whoever watches a key that is in one of them
    /// is told, and whoever is blocked on a key looks at it again.
    pub fn swap(&mut self, a: DbIndex, b: DbIndex) {
        assert!(self.locked.set().contains(&LockSet::ALL), "databases are exchanged with every shard locked");
        let places = &self.ks.places;
        let (a_place, b_place) = (&places[usize::from(a)], &places[usize::from(b)]);
        b_place.store(a_place.swap(b_place.load(Ordering::Relaxed), Ordering::Relaxed), Ordering::Relaxed);
        // What was looked up so far stands elsewhere now.
        self.select(self.index);
        if a == b {
            return;
        }
        for (db, other) in [(a, b), (b, a)] {
            for shard in 0..SHARDS {
                self.tell_swapped(shard, db, other);
            }
        }
    }

    fn tell_swapped(&mut self, shard: usize, db: DbIndex, other: DbIndex) {
        for key in self.locked.side_mut(shard).watchers.keys(db) {
            let h = self.ks.hashed(&key);
            let holds = |db| self.locked.table(self.ks.tables(db), h.slot).find(h.hash, &key).is_some();
            let (here, there) = (holds(db), holds(other));
            let watchers = &mut self.locked.side_mut(shard).watchers;
            if here || there {
                watchers.touch(db, &key, !here);
            }
            if watchers.is_awaited(db, &key) {
                self.effects.ready.push((db, key.into_vec()));
            }
        }
    }
}
