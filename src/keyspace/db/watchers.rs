//! Who is told that a key changed: transactions that watch it, clients that wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Db;
use crate::keyspace::shard_of;
use crate::keyspace::watch::{Dirty, Waiter, Watchers};

impl Db<'_, '_> {
    /// Says that `key` was changed: counts it, marks transactions that watch it, and notes that
    /// clients blocked on it may go on.
    #[inline(always)]
    pub fn changed(&mut self, key: &[u8]) {
        self.effects.dirty += 1;
        let slot = self.hashed(key).slot;
        self.effects.note_slot(slot);
        if !self.locked.side_mut(shard_of(slot)).watchers.is_empty() {
            self.touch_watchers(key);
        }
    }

    pub(super) fn touch_watchers(&mut self, key: &[u8]) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        if self.locked.side_mut(shard).watchers.touch(index, key) {
            self.effects.ready.push((index, key.to_vec()));
        }
    }

    /// Marks `dirty` when `key` changes.
    pub fn watch(&mut self, key: &[u8], dirty: &Dirty) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.locked.side_mut(shard).watchers.watch(index, key, dirty);
    }

    pub fn unwatch(&mut self, key: &[u8], dirty: &Dirty) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.locked.side_mut(shard).watchers.unwatch(index, key, dirty);
    }

    /// Queues a client behind those that wait for `key` already.
    pub fn block(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let shard = shard_of(self.hashed(key).slot);
        self.waiting_at(shard, |watchers| watchers.block(key, waiter));
    }

    pub fn unblock(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let shard = shard_of(self.hashed(key).slot);
        self.waiting_at(shard, |watchers| watchers.unblock(key, waiter));
    }

    /// The clients that wait for `key`, first come first.
    pub fn blocked_on(&mut self, key: &[u8]) -> Vec<Arc<Waiter>> {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.waiting_at(shard, |watchers| watchers.blocked_on(index, key))
    }

    /// Changes who waits for keys of a shard, and keeps the count of those keys right.
    fn waiting_at<R>(&mut self, shard: usize, change: impl FnOnce(&mut Watchers) -> R) -> R {
        let watchers = &mut self.locked.side_mut(shard).watchers;
        let before = watchers.blocked_keys();
        let result = change(watchers);
        let counter = &self.ks.stats.blocking_keys;
        match watchers.blocked_keys().wrapping_sub(before) {
            0 => {}
            grown => _ = counter.fetch_add(grown, Ordering::Relaxed),
        }
        result
    }
}
