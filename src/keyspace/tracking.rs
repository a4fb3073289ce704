//! Which clients have read which keys and keep what they read (CLIENT TRACKING).
//!
//! # Order
//!
//! A reader is entered under the lock of its key's shard, and whoever changes the key takes the readers out
//! under that lock ([`super::Db::changed`]). The invalidations are handed to the readers' workers before the lock
//! is released, and the reply of the command that made them necessary leaves only after that. A worker writes
//! what is in its mailbox behind the replies of its round: so no invalidation overtakes the value that it is about.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{SHARDS, shard_of};
use crate::base::crc16::key_slot;

/// Numbers of clients.
pub type Readers = SmallVec<[u64; 2]>;

/// A key whose value is not any more what those who read it have seen.
#[derive(Clone, Debug)]
pub struct Stale {
    /// Its whole name; of whatever database.
    pub key: Box<[u8]>,
    /// The clients that have read it. Those who want to hear of all keys are told otherwise: see [`Changed`].
    pub readers: Readers,
}

/// A key that has changed, for those who want to hear of all keys (BCAST).
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its whole name; of whatever database.
    pub key: Box<[u8]>,
    /// The client whose command changed it, or 0 for the node by itself and for scripts.
    pub writer: u64,
}

/// The readers of the keys of one shard.
type Shard = HashMap<Box<[u8]>, Readers>;

/// All readers. Keys are told apart by name alone, not by database, as clients are told of them.
#[derive(Debug)]
pub struct Tracking {
    /// Somebody tracks: the one test that it costs while nobody does.
    on: AtomicBool,
    /// Somebody wants to hear of keys that nobody has read (BCAST).
    broadcasts: AtomicBool,
    shards: Box<[Mutex<Shard>]>,
    keys: AtomicUsize,
    items: AtomicUsize,
    /// `tracking-table-max-keys`; 0: no limit.
    most: AtomicU64,
    /// Where the search for a key to forget goes on.
    hand: AtomicUsize,
}

impl Default for Tracking {
    fn default() -> Self {
        Self {
            on: AtomicBool::new(false),
            broadcasts: AtomicBool::new(false),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            most: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }
}

impl Tracking {
    /// Whether any client tracks. When none does, commands pay one load.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether any client wants to hear of keys that it has not read (BCAST).
    pub fn broadcasts(&self) -> bool {
        self.broadcasts.load(Ordering::Relaxed)
    }

    /// Whether somebody tracks, and whether somebody wants to hear of all keys.
    pub fn set_on(&self, on: bool, broadcasts: bool) {
        self.broadcasts.store(broadcasts, Ordering::Release);
        self.on.store(on, Ordering::Release);
        if !on {
            self.clear();
        }
    }

    /// `tracking-table-max-keys`; 0: no limit.
    pub fn set_most(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Keys that somebody has read.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Pairs of a key and a reader.
    pub fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    /// Notes that `client` has read `key`. Its shard is locked.
    pub fn remember(&self, slot: u16, key: &[u8], client: u64) {
        let mut shard = self.shards[shard_of(slot)].lock();
        let readers = shard.entry(key.into()).or_insert_with(|| {
            self.keys.fetch_add(1, Ordering::Relaxed);
            Readers::new()
        });
        if !readers.contains(&client) {
            readers.push(client);
            self.items.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes out the readers of a key that changed.
    pub fn take(&self, slot: u16, key: &[u8]) -> Readers {
        let taken = self.shards[shard_of(slot)].lock().remove(key);
        taken.map(|readers| self.taken(readers)).unwrap_or_default()
    }

    fn taken(&self, readers: Readers) -> Readers {
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.items.fetch_sub(readers.len(), Ordering::Relaxed);
        readers
    }

    /// Takes out the readers of all keys of a slot.
    pub fn take_slot(&self, slot: u16) -> Vec<(Box<[u8]>, Readers)> {
        let mut shard = self.shards[shard_of(slot)].lock();
        shard.extract_if(|key, _| key_slot(key) == slot).map(|(key, r)| (key, self.taken(r))).collect()
    }

    /// Takes out as many keys as there are above the limit, of any shard.
    pub fn make_room(&self) -> Vec<(Box<[u8]>, Readers)> {
        let mut out = Vec::new();
        let most = match self.most.load(Ordering::Relaxed) {
            0 => return out,
            most => most as usize,
        };
        let mut empty = 0;
        while self.keys() > most && empty < SHARDS {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.shards[at].lock();
            match shard.extract_if(|_, _| true).next() {
                Some((key, readers)) => {
                    empty = 0;
                    out.push((key, self.taken(readers)));
                }
                None => empty += 1,
            }
        }
        out
    }

    /// Forgets all readers.
    pub fn clear(&self) {
        for shard in &self.shards {
            for (_, readers) in shard.lock().drain() {
                self.taken(readers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_taken_out_once_and_counted() {
        let tracking = Tracking::default();
        for (key, client) in [("a", 1), ("a", 2), ("a", 1), ("b", 1)] {
            tracking.remember(key_slot(key.as_bytes()), key.as_bytes(), client);
        }
        assert_eq!((tracking.keys(), tracking.items()), (2, 3));
        assert_eq!(tracking.take(key_slot(b"a"), b"a").as_slice(), [1, 2]);
        assert!(tracking.take(key_slot(b"a"), b"a").is_empty());
        let of_slot = tracking.take_slot(key_slot(b"b"));
        assert_eq!(of_slot.len(), 1);
        assert_eq!((tracking.keys(), tracking.items()), (0, 0));
    }

    #[test]
    fn what_is_too_much_is_taken_out_of_any_shard() {
        let tracking = Tracking::default();
        let names: Vec<String> = (0..100).map(|n| format!("key{n}")).collect();
        for name in &names {
            tracking.remember(key_slot(name.as_bytes()), name.as_bytes(), 7);
        }
        assert!(tracking.make_room().is_empty(), "without a limit all stay");
        tracking.set_most(1);
        assert_eq!((tracking.make_room().len(), tracking.keys(), tracking.items()), (99, 1, 1));
    }
}
