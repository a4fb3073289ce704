//! Who is told that a key changed: transactions that watch it, clients that wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Db, Notice};
use crate::keyspace::tracking::{Changed, Stale};
use crate::keyspace::watch::{Dirty, Waiter, Watchers};
use crate::keyspace::{Event, event, shard_of};

impl Db<'_, '_> {
    /// Says what happened to `key`, once for each change: the one door through which WATCH, blocked clients
    /// and subscribers to events hear of it. [`Event`] tells who is concerned.
    #[inline(always)]
    pub fn changed(&mut self, key: &[u8], event: Event) {
        if event.counts {
            self.effects.dirty += 1;
        }
        let slot = self.hashed(key).slot;
        self.effects.note_slot(slot);
        let shard = shard_of(slot);
        if !self.locked.side_mut(shard).watchers.is_empty() {
            self.tell_watchers(shard, key, event, false);
        }
        if self.ks.tracking.is_on() && event.breaks_watch {
            self.tell_trackers(slot, key, event);
        }
        self.notify(key, event);
    }

    /// As [`Db::changed`], for a key that goes with all of its database or slot: trackers hear of these together.
    pub fn lost(&mut self, key: &[u8], event: Event) {
        let slot = self.hashed(key).slot;
        self.effects.note_slot(slot);
        self.tell_watchers(shard_of(slot), key, event, true);
    }

    /// Names a further event of a change that went through [`Db::changed`], or an event that is no change.
    #[inline(always)]
    pub fn notify(&mut self, key: &[u8], event: Event) {
        if self.ks.events.has(event.class()) {
            self.note(key, event);
        }
    }

    #[cold]
    fn tell_trackers(&mut self, slot: u16, key: &[u8], event: Event) {
        let readers = self.ks.tracking.take(slot, key);
        if !readers.is_empty() {
            self.effects.stale.push(Stale { key: key.into(), readers });
        }
        if self.ks.tracking.broadcasts() {
            // Who does not want to hear of its own changes (NOLOOP) hears of those that its scripts made, and of what has
            // expired or was evicted, as in Redis.
            let own = event != event::EXPIRED && event != event::EVICTED && !self.effects.scripted;
            let writer = if own { self.effects.writer } else { 0 };
            self.effects.broadcast.push(Changed { key: key.into(), writer });
        }
    }

    #[cold]
    fn tell_watchers(&mut self, shard: usize, key: &[u8], event: Event, goes: bool) {
        let (index, h) = (self.index, self.hashed(key));
        let gone = goes || self.table(h.slot).find_entry(h.hash, key).is_none();
        let watchers = &mut self.locked.side_mut(shard).watchers;
        if event.breaks_watch {
            watchers.touch(index, key, gone);
        }
        if event.wakes && watchers.is_awaited(index, key) {
            self.effects.ready.push((index, key.to_vec()));
        }
    }

    #[cold]
    fn note(&mut self, key: &[u8], event: Event) {
        if self.effects.publishes {
            self.effects.notices.push(Notice { db: self.index, event, key: key.into() });
        }
    }

    /// Marks `dirty` when `key` changes. A key that is dead already may go: that is no change.
    pub fn watch(&mut self, key: &[u8], dirty: &Dirty) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        let dead = self.is_over(key);
        self.locked.side_mut(shard).watchers.watch(index, key, dirty, dead);
    }

    /// Whether `key`, which `dirty` watches, has died since. It may be there still: on a replica, until its primary says
    /// that it goes.
    pub fn has_died(&mut self, key: &[u8], dirty: &Dirty) -> bool {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.is_over(key) && !self.locked.side_mut(shard).watchers.watches_dead(index, key, dirty)
    }

    /// Whether the time of a key that is still there is over, whoever may delete it.
    fn is_over(&self, key: &[u8]) -> bool {
        let h = self.hashed(key);
        self.table(h.slot).find_entry(h.hash, key).is_some_and(|(_, entry)| entry.is_expired(self.now))
    }

    /// Takes back what [`watch`](Self::watch) did.
    pub fn unwatch(&mut self, key: &[u8], dirty: &Dirty) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.locked.side_mut(shard).watchers.unwatch(index, key, dirty);
    }

    /// Queues a client behind those that wait for `key` already.
    pub fn block(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let shard = shard_of(self.hashed(key).slot);
        self.waiting_at(shard, |watchers| watchers.block(key, waiter));
    }

    /// Takes a client out of the queue of `key`, wherever in it it stands.
    pub fn unblock(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let shard = shard_of(self.hashed(key).slot);
        self.waiting_at(shard, |watchers| watchers.unblock(key, waiter));
    }

    /// The clients that wait for `key`, first come first.
    pub fn blocked_on(&mut self, key: &[u8]) -> Vec<Arc<Waiter>> {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        self.waiting_at(shard, |watchers| watchers.blocked_on(index, key))
    }

    /// Changes which clients wait for keys of a shard, and keeps the count of those keys right.
    fn waiting_at<R>(&mut self, shard: usize, change: impl FnOnce(&mut Watchers) -> R) -> R {
        let watchers = &mut self.locked.side_mut(shard).watchers;
        let before = (watchers.blocked_keys(), watchers.keys_for_loss());
        let result = change(watchers);
        let stats = &self.ks.stats;
        for (counter, grown) in [
            (&stats.blocking_keys, watchers.blocked_keys().wrapping_sub(before.0)),
            (&stats.blocking_keys_for_loss, watchers.keys_for_loss().wrapping_sub(before.1)),
        ] {
            if grown != 0 {
                counter.fetch_add(grown, Ordering::Relaxed);
            }
        }
        result
    }
}
