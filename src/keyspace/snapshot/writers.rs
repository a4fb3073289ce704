//! What a writer does for the snapshots under way: an entry that is not saved yet is encoded before it is changed.
//!
//! - A small entry is encoded at once ([`Keyspace::preserve`]).
//! - Encoding a large one would hold up everybody who needs its shard. So a command asks about its keys before it runs
//!   ([`Keyspace::save_ahead`]): one part is encoded, the client is put aside, others have their turn, and the command
//!   asks again, until the entry is saved.
//! - A large entry that is deleted or overwritten (also by expiry and eviction) is not encoded: it is kept for the
//!   walks as it is ([`Keyspace::keep`]).
//! - A command that comes to a large entry without having asked (from a script that did not declare the key) encodes
//!   the rest in one go.

use std::sync::atomic::Ordering;

use hashbrown::HashMap;

use super::{CHUNK, Keyspace, LANES, Part, Position, Walk};
use crate::base::crc16::key_slot;
use crate::keyspace::board::Busy;
use crate::keyspace::locks::Locked;
use crate::keyspace::table::Place;
use crate::keyspace::{DbIndex, SHARDS, shard_of};

/// So many bytes a writer encodes before it unlocks the shard.
const TURN: usize = 2 * CHUNK;

/// What writers and walks have encoded of a shard.
#[derive(Default)]
pub(crate) struct Saved {
    /// Entries that a walk has not reached, by its lane, the place of their database and the slot.
    entries: HashMap<(usize, usize, u16), Vec<u8>>,
    /// The large entry in which each lane's walk stands, if it has unlocked the shard between two parts.
    pub(super) begun: [Option<Begun>; LANES],
    /// Large entries that a writer has begun to encode before the walk of that lane reached them.
    pub(super) ahead: Vec<(usize, Begun)>,
}

/// A large entry of which a part is encoded. It counts as not saved until all of it is, so that a writer that is
/// about to change it comes here.
pub(super) struct Begun {
    /// Of its database.
    pub place: usize,
    pub key: Box<[u8]>,
    /// Where it goes on; `None`: all is encoded.
    pub from: Option<Position>,
    /// What was encoded and is not passed on yet.
    pub encoded: Vec<Vec<u8>>,
}

impl Begun {
    pub fn new(place: usize, key: &[u8], from: Position) -> Self {
        Self { place, key: key.into(), from: Some(from), encoded: Vec::new() }
    }

    fn is(&self, place: usize, key: &[u8]) -> bool {
        self.place == place && *self.key == *key
    }

    /// Takes what a writer has begun for a walk.
    pub fn take(all: &mut Vec<(usize, Self)>, lane: usize, place: usize, key: &[u8]) -> Option<Self> {
        let at = all.iter().position(|(of, begun)| *of == lane && begun.is(place, key))?;
        Some(all.swap_remove(at).1)
    }
}

impl Saved {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ahead.is_empty() && self.begun.iter().all(Option::is_none)
    }

    /// Hands a walk what writers have saved of a slot.
    pub(super) fn collect(&mut self, lane: usize, place: usize, slot: u16, out: &mut Vec<Vec<u8>>) {
        if !self.entries.is_empty() {
            out.extend(self.entries.remove(&(lane, place, slot)));
        }
        let done =
            |begun: &Begun| begun.place == place && begun.from.is_none() && key_slot(&begun.key) == slot;
        for (_, begun) in self.ahead.extract_if(.., |(of, begun)| *of == lane && done(begun)) {
            out.extend(begun.encoded);
        }
    }
}

/// An entry that a writer is about to change.
#[derive(Clone, Copy)]
struct Subject {
    db: DbIndex,
    slot: u16,
    place: Place,
}

impl Keyspace {
    /// Saves the entry as it is for the snapshots that still need it. The caller has found that not all of its table
    /// is saved.
    #[cold]
    pub(in crate::keyspace) fn preserve(
        &self,
        locked: &mut Locked<'_>,
        db: DbIndex,
        slot: u16,
        place: Place,
    ) {
        let subject = Subject { db, slot, place };
        for lane in self.lanes_that_want(locked, subject) {
            self.encode_more(locked, subject, lane, usize::MAX);
        }
    }

    /// For a command that is about to write to these keys: encodes a part of the first one that is large and not
    /// saved. `Some`: there was such a key, and the command must unlock its shards and ask again.
    #[cold]
    pub(in crate::keyspace) fn save_ahead<'a>(
        &self,
        locked: &mut Locked<'_>,
        db: DbIndex,
        mut keys: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Busy> {
        if !self.is_snapshot_running() {
            return None;
        }
        let tables = self.existing_tables(db)?;
        keys.find_map(|key| {
            let h = self.hashed(key);
            if !locked.has_slot(h.slot) || locked.table(tables, h.slot).parities() == self.parities() {
                return None;
            }
            let (place, entry) = locked.table(tables, h.slot).find_entry(h.hash, key)?;
            if !entry.object()?.is_heavy() {
                return None;
            }
            let subject = Subject { db, slot: h.slot, place };
            let lane = self.lanes_that_want(locked, subject).next()?;
            self.snapshot.lanes[lane].ahead.store(true, Ordering::Relaxed);
            self.encode_more(locked, subject, lane, TURN);
            // Whether another snapshot wants it, too, shows when the command comes again.
            Some(Busy { shard: shard_of(h.slot), key: false })
        })
    }

    /// The lanes whose walks have not got an entry.
    fn lanes_that_want(
        &self,
        locked: &Locked<'_>,
        Subject { db, slot, place }: Subject,
    ) -> impl Iterator<Item = usize> + use<> {
        let entry = locked.table(self.tables(db), slot).get(place);
        let wanted = entry.parities() ^ self.parities();
        (0..LANES).filter(move |lane| wanted & 1 << lane != 0)
    }

    /// Encodes more of an entry for the walk of a lane, and marks it as saved behind the last part.
    fn encode_more(&self, locked: &mut Locked<'_>, subject: Subject, lane: usize, most: usize) {
        let Subject { db, slot, place } = subject;
        let (at, shard, tables) = (self.place(db), shard_of(slot), self.tables(db));
        let encode = self.snapshot.lanes[lane].encode.read().clone();
        let saved = &mut locked.side_mut(shard).saved;
        let (mut walked, mut ahead) = (saved.begun[lane].take(), std::mem::take(&mut saved.ahead));
        let entry = locked.table_mut(tables, slot).get_mut(place);
        let key = entry.as_ref().key();
        let begun = match &mut walked {
            Some(begun) if begun.is(at, key) => Some(begun),
            _ => {
                ahead.iter_mut().find(|(of, begun)| *of == lane && begun.is(at, key)).map(|(_, begun)| begun)
            }
        };
        let from = begun
            .as_ref()
            .map_or(Some(Position::START), |begun| begun.from)
            .expect("what is encoded is on record");
        let mut bytes = Vec::new();
        let next = encode.and_then(|encode| encode(entry.as_ref(), Part { from, most }, &mut bytes));
        match (begun, next) {
            (Some(begun), next) => {
                begun.from = next;
                begun.encoded.push(std::mem::take(&mut bytes));
            }
            (None, Some(next)) => {
                let encoded = vec![std::mem::take(&mut bytes)];
                ahead.push((lane, Begun { encoded, ..Begun::new(at, key, next) }));
            }
            (None, None) => {}
        }
        if next.is_none() {
            let (before, bit) = (entry.as_ref().parities(), 1 << lane);
            entry.set_parities((before & !bit) | (self.parities() & bit));
        }
        let saved = &mut locked.side_mut(shard).saved;
        (saved.begun[lane], saved.ahead) = (walked, ahead);
        if !bytes.is_empty() {
            saved.entries.entry((lane, at, slot)).or_default().extend_from_slice(&bytes);
        }
    }
}

impl Walk {
    /// Drops what writers have begun and nobody finished, because the entries were flushed.
    pub(super) fn forget_ahead(&self) {
        for shard in 0..SHARDS {
            self.ks.lock_shard(shard).side_mut(shard).saved.ahead.retain(|(lane, _)| *lane != self.lane);
        }
    }
}
