//! Keys that clients of a writable replica gave an expiry. Its primary does not know of them and never
//! tells when they end, so the replica remembers their names and lets them die itself.

use std::sync::atomic::Ordering;

use hashbrown::HashSet;

use super::{Db, Expiring};
use crate::base::time::UnixMs;
use crate::keyspace::{DbIndex, shard_of};

/// The names, by database.
pub(in crate::keyspace) type OwnKeys = HashSet<(DbIndex, Box<[u8]>)>;

impl Db<'_, '_> {
    /// Remembers a key that gets the expiry `at` while the node leaves expiry to its primary.
    #[inline(always)]
    pub(super) fn note_own(&mut self, key: &[u8], at: Option<UnixMs>) {
        if self.expiring == Expiring::Hide && at.is_some() {
            self.remember(key);
        }
    }

    #[cold]
    fn remember(&mut self, key: &[u8]) {
        let (shard, index) = (shard_of(self.hashed(key).slot), self.index);
        if self.locked.side_mut(shard).own.insert((index, key.into())) {
            self.ks.stats.own_volatile_keys.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Deletes those of the locked shards whose time has come, and forgets those without an expiry.
    pub fn expire_own(&mut self) {
        for shard in self.locked.shards() {
            let mut own = std::mem::take(&mut self.locked.side_mut(shard).own);
            let before = own.len();
            own.retain(|(index, key)| {
                self.select(*index);
                matches!(self.expire_of(key), Some(Some(_)))
            });
            self.ks.stats.own_volatile_keys.fetch_sub(before - own.len(), Ordering::Relaxed);
            self.locked.side_mut(shard).own = own;
        }
    }
}
