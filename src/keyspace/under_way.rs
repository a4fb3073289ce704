//! Keys under way: MIGRATE has sent them to another node, which has not acknowledged them. Readers see them, and a
//! client that would write to one is put aside until they are acknowledged or given up.
//!
//! Each is marked in its shard, and the marks change under the shard's lock.

use super::board::Busy;
use super::locks::Locked;
use super::{DbIndex, shard_of};
use crate::base::crc16::key_slot;

/// A key that MIGRATE has sent and nobody has acknowledged.
pub(crate) struct UnderWay {
    db: DbIndex,
    key: Box<[u8]>,
    /// Which MIGRATE that is.
    parcel: u64,
}

impl Locked<'_> {
    /// Holds keys back from writers until [`let_through`](Self::let_through): they are on their way to another
    /// node. Returns the number of the parcel that they make.
    pub fn hold_back(&mut self, db: DbIndex, keys: &[Vec<u8>]) -> u64 {
        let parcel = self.keyspace().board.send_off(keys.len());
        for key in keys {
            let mark = UnderWay { db, key: key.as_slice().into(), parcel };
            self.side_mut(shard_of(key_slot(key))).under_way.push(mark);
        }
        parcel
    }

    /// Lets writers of a parcel's keys go on. Returns for each whether it was held back all the time, so that
    /// it is as it was when it was sent.
    pub fn let_through(&mut self, parcel: u64, keys: &[Vec<u8>]) -> Vec<bool> {
        let was_held = |key: &Vec<u8>| {
            let shard = shard_of(key_slot(key));
            self.end_marks(shard, |mark| mark.parcel == parcel && *mark.key == **key)
        };
        keys.iter().map(was_held).collect()
    }

    /// Lets writers of keys go on that are not here any more: those of a database that `gone` accepts.
    pub(super) fn forget_under_way(&mut self, shard: usize, db: DbIndex, gone: impl Fn(&[u8]) -> bool) {
        if self.keyspace().board.writers_look_first() {
            self.end_marks(shard, |mark| mark.db == db && gone(&mark.key));
        }
    }

    /// Ends marks of a shard, and wakes those who wait for keys of it. False if there was none.
    fn end_marks(&mut self, shard: usize, which: impl Fn(&UnderWay) -> bool) -> bool {
        let marks = &mut self.side_mut(shard).under_way;
        let before = marks.len();
        marks.retain(|mark| !which(mark));
        let ended = before - marks.len();
        if ended > 0 {
            self.keyspace().board.arrive(ended);
            self.keyspace().board.wake_waiting(shard, true, || {});
        }
        ended > 0
    }

    /// The first of these keys that is under way, if one is: nobody may write to it now. The database does not
    /// matter, because some commands write to another one too. Keys whose shard is not locked are passed over.
    #[inline(always)]
    pub fn under_way<'a>(&mut self, keys: impl IntoIterator<Item = &'a [u8]>) -> Option<Busy> {
        if self.keyspace().board.writers_look_first() { self.find_under_way(keys.into_iter()) } else { None }
    }

    #[cold]
    fn find_under_way<'a>(&mut self, mut keys: impl Iterator<Item = &'a [u8]>) -> Option<Busy> {
        keys.find_map(|key| {
            let shard = shard_of(key_slot(key));
            let held = self.has(shard) && self.side_mut(shard).under_way.iter().any(|mark| *mark.key == *key);
            held.then_some(Busy { shard, key: true })
        })
    }
}
