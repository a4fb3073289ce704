//! Who wants to know that a key changed: transactions that WATCH it, and clients blocked on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::{HashMap, HashSet};

use super::DbIndex;
use crate::acl::Login;

type Key = (DbIndex, Box<[u8]>);

/// Set when a watched key changes; EXEC looks at it.
pub type Dirty = Arc<AtomicBool>;

/// A transaction that watches a key.
#[derive(Debug)]
struct Watcher {
    dirty: Dirty,
    /// The key's time was over when it was named, and the key is still there: that it goes is no change.
    dead: bool,
}

/// A client that waits for a key. Its command is run again on its behalf when the key may have
/// what it waits for; `claimed` decides between that, its timeout and its disconnection.
#[derive(Debug)]
pub struct Waiter {
    /// Id of the client.
    pub client: u64,
    /// Number of the worker that owns its connection.
    pub worker: usize,
    /// Place of the connection at that worker.
    pub token: usize,
    /// The database that its command runs on.
    pub db: DbIndex,
    /// Whether it is answered by RESP3.
    pub resp3: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// The user as whom it runs.
    pub login: Option<Login>,
    /// The command, to be run again.
    pub argv: Vec<Vec<u8>>,
    /// For each key, where that is possible, the command that concerns it alone.
    pub alone: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    /// The command is told when its key goes, too (XREADGROUP).
    pub for_loss: bool,
    /// The client tracks keys and is to hear when what this command has read changes (CLIENT TRACKING).
    pub remembers: bool,
    /// Set once by whoever answers the client.
    pub claimed: AtomicBool,
}

impl Waiter {
    /// True for the one caller that may answer the client.
    pub fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody has answered the client already.
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }
}

/// The watchers of one shard.
#[derive(Debug, Default)]
pub struct Watchers {
    transactions: HashMap<Key, Vec<Watcher>>,
    blocked: HashMap<Key, VecDeque<Arc<Waiter>>>,
    /// Keys on which a client is blocked that is told when they go.
    for_loss: usize,
}

/// 1 if one of them is told when the key goes.
fn count_for_loss(list: &VecDeque<Arc<Waiter>>) -> usize {
    usize::from(list.iter().any(|w| w.for_loss))
}

impl Watchers {
    /// Whether nobody watches and nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.blocked.is_empty()
    }

    /// Has `dirty` set when `key` changes. Once is enough. `dead`: its time is over, but it is still there.
    pub fn watch(&mut self, db: DbIndex, key: &[u8], dirty: &Dirty, dead: bool) {
        let list = self.transactions.entry((db, key.into())).or_default();
        if !list.iter().any(|w| Arc::ptr_eq(&w.dirty, dirty)) {
            list.push(Watcher { dirty: Arc::clone(dirty), dead });
        }
    }

    /// Takes back what [`watch`](Self::watch) did.
    pub fn unwatch(&mut self, db: DbIndex, key: &[u8], dirty: &Dirty) {
        let key = (db, key.into());
        if let Some(list) = self.transactions.get_mut(&key) {
            list.retain(|w| !Arc::ptr_eq(&w.dirty, dirty));
            if list.is_empty() {
                self.transactions.remove(&key);
            }
        }
    }

    /// Whether `dirty` watches `key` since a time when it was dead already.
    pub fn watches_dead(&self, db: DbIndex, key: &[u8], dirty: &Dirty) -> bool {
        let list = self.transactions.get(&(db, key.into()));
        list.is_some_and(|list| list.iter().any(|w| w.dead && Arc::ptr_eq(&w.dirty, dirty)))
    }

    /// Marks the transactions that watch `key`. `gone`: it is not there any more.
    pub fn touch(&mut self, db: DbIndex, key: &[u8], gone: bool) {
        let Some(list) = self.transactions.remove(&(db, key.into())) else { return };
        let mut staying = Vec::new();
        for watcher in list {
            if watcher.dead && gone {
                staying.push(Watcher { dead: false, ..watcher });
            } else {
                watcher.dirty.store(true, Ordering::Release);
            }
        }
        if !staying.is_empty() {
            self.transactions.insert((db, key.into()), staying);
        }
    }

    /// Whether a client is blocked on `key`.
    pub fn is_awaited(&self, db: DbIndex, key: &[u8]) -> bool {
        self.blocked.contains_key(&(db, key.into()))
    }

    /// The keys of `db` that transactions watch or clients are blocked on.
    pub fn keys(&self, db: DbIndex) -> HashSet<Box<[u8]>> {
        let keys = self.transactions.keys().chain(self.blocked.keys());
        keys.filter(|(of, _)| *of == db).map(|(_, key)| key.clone()).collect()
    }

    /// Queues a client behind those that wait for `key` already.
    pub fn block(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let list = self.blocked.entry((waiter.db, key.into())).or_default();
        self.for_loss -= count_for_loss(list);
        list.push_back(Arc::clone(waiter));
        self.for_loss += count_for_loss(list);
    }

    /// Keys that clients are blocked on.
    pub fn blocked_keys(&self) -> usize {
        self.blocked.len()
    }

    /// Those of them on which a client is blocked that is told when they go.
    pub fn keys_for_loss(&self) -> usize {
        self.for_loss
    }

    /// The clients blocked on `key` in the order of their coming; those already answered are dropped.
    pub fn blocked_on(&mut self, db: DbIndex, key: &[u8]) -> Vec<Arc<Waiter>> {
        let key = (db, key.into());
        let Some(list) = self.blocked.get_mut(&key) else { return Vec::new() };
        self.for_loss -= count_for_loss(list);
        list.retain(|w| !w.is_claimed());
        self.for_loss += count_for_loss(list);
        if list.is_empty() {
            self.blocked.remove(&key);
            return Vec::new();
        }
        list.iter().cloned().collect()
    }

    /// Forgets a client that was answered.
    pub fn unblock(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        let key = (waiter.db, key.into());
        if let Some(list) = self.blocked.get_mut(&key) {
            self.for_loss -= count_for_loss(list);
            list.retain(|w| !Arc::ptr_eq(w, waiter));
            self.for_loss += count_for_loss(list);
            if list.is_empty() {
                self.blocked.remove(&key);
            }
        }
    }
}
