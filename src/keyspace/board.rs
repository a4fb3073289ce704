//! The board of shards: which holders keep one for long, and which clients wait for one.
//!
//! A worker that does not get a shard within [`PATIENCE`](super::locks::PATIENCE) writes the client whose command
//! needs it on the board, and goes on with its other clients. The thread that unlocks the shard sees a mark on the
//! lock, and has the clients woken in the order in which they first came.
//!
//! A holder that takes long says so ([`Locked::declare_long`](super::Locked::declare_long)): then no worker sleeps
//! for its shards, and a client that needs one of them can be told what runs (-BUSY).
//!
//! Keys *under way* belong to a MIGRATE whose target has not acknowledged them. Nobody holds their
//! shard: readers go on, and a client that would write to one of them waits on the board until MIGRATE is done.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::lock_set::LockSet;
use crate::base::time::UnixMs;

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A script that has run for longer than `busy-reply-threshold`: clients that need its shards are told -BUSY.
    Script,
    /// A command that says so itself.
    Command(&'static str),
}

/// A holder that has declared itself.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// Why it takes long.
    pub reason: Reason,
    /// Since when, in milliseconds since 1970.
    pub since: UnixMs,
    shards: LockSet,
}

/// Where a client is whose command waits: the number of its worker, its place there, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Number of its worker.
    pub worker: usize,
    /// Its place at that worker.
    pub token: usize,
    /// Its id, which is never given twice.
    pub client: u64,
}

/// What a command has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Number of the shard.
    pub shard: usize,
    /// The shard is free, but one of its keys is under way.
    pub key: bool,
}

type Wake = Box<dyn Fn(Waiting) + Send + Sync>;

/// See the module.
#[derive(Default)]
pub struct Board {
    lists: Mutex<Lists>,
    /// Reasons for writers to look at their keys first: keys under way in all shards, which change under the lock of
    /// the key's shard, and snapshots.
    reasons: AtomicUsize,
    wake: OnceLock<Wake>,
}

#[derive(Debug, Default)]
struct Lists {
    /// By the number of the entry.
    holders: BTreeMap<u64, Holder>,
    /// By shard and ticket: first come, first woken.
    waiting: BTreeMap<(usize, u64), (Waiting, bool)>,
    /// The number given out last: of an entry, a parcel or a ticket.
    last: u64,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("lists", &self.lists).finish_non_exhaustive()
    }
}

impl Board {
    /// Sets how a waiting client's worker is told that it may try again. To be called once, before there
    /// are clients.
    pub fn wake_by(&self, wake: Wake) {
        let _ = self.wake.set(wake);
    }

    /// Tells a client's worker to try again.
    pub fn wake(&self, who: Waiting) {
        if let Some(wake) = self.wake.get() {
            wake(who);
        }
    }

    /// Who holds a shard, if it has declared itself.
    pub fn holder(&self, shard: usize) -> Option<Holder> {
        self.lists.lock().holders.values().find(|h| h.shards.has_shard(shard)).copied()
    }

    /// Clients that wait for a shard or a key.
    pub fn waiting(&self) -> usize {
        self.lists.lock().waiting.len()
    }

    /// Whether commands must look at the keys that they would write to: some may be on their way to another node, or
    /// wanted by a snapshot.
    #[inline(always)]
    pub fn writers_look_first(&self) -> bool {
        self.reasons.load(Ordering::Relaxed) != 0
    }

    /// Counts keys that are sent off; returns the number of their parcel.
    pub(super) fn send_off(&self, keys: usize) -> u64 {
        self.reasons.fetch_add(keys, Ordering::Relaxed);
        let mut lists = self.lists.lock();
        lists.last += 1;
        lists.last
    }

    /// A snapshot begins.
    pub(super) fn begin_looking(&self) {
        self.reasons.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(super) fn end_looking(&self) {
        self.reasons.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn arrive(&self, keys: usize) {
        self.reasons.fetch_sub(keys, Ordering::Relaxed);
    }

    /// Notes a holder; returns the number of its entry.
    pub(super) fn declare(&self, shards: LockSet, reason: Reason, since: UnixMs) -> u64 {
        let mut lists = self.lists.lock();
        lists.last += 1;
        let number = lists.last;
        lists.holders.insert(number, Holder { reason, since, shards });
        number
    }

    pub(super) fn widen(&self, number: u64, more: LockSet) {
        if let Some(holder) = self.lists.lock().holders.get_mut(&number) {
            holder.shards = holder.shards.union(more);
        }
    }

    pub(super) fn end(&self, number: u64) {
        self.lists.lock().holders.remove(&number);
    }

    /// Puts a client on the board if `still_busy`. That is asked while the board is locked, so that a holder that
    /// lets go afterwards finds the client here. `ticket` is 0 when the client waits for the first time, and tells
    /// its place in the queue from then on.
    pub(super) fn put_aside(
        &self,
        who: Waiting,
        busy: Busy,
        ticket: &mut u64,
        still_busy: impl FnOnce() -> bool,
    ) -> bool {
        let mut lists = self.lists.lock();
        if !still_busy() {
            return false;
        }
        if *ticket == 0 {
            lists.last += 1;
            *ticket = lists.last;
        }
        lists.waiting.insert((busy.shard, *ticket), (who, busy.key));
        true
    }

    /// Wakes the clients that wait for a shard (or, with `keys`, for keys of it). `first` runs while the board is
    /// locked, so that nobody is put on it between that and the waking.
    #[cold]
    pub(super) fn wake_waiting(&self, shard: usize, keys: bool, first: impl FnOnce()) {
        let mut lists = self.lists.lock();
        first();
        let woken: Vec<(u64, Waiting)> = lists
            .waiting
            .range((shard, 0)..=(shard, u64::MAX))
            .filter(|(_, (_, key))| *key == keys)
            .map(|((_, ticket), (who, _))| (*ticket, *who))
            .collect();
        for (ticket, _) in &woken {
            lists.waiting.remove(&(shard, *ticket));
        }
        drop(lists);
        for (_, who) in woken {
            self.wake(who);
        }
    }
}
