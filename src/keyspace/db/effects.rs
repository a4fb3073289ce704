//! What running a command brings about besides its reply.

use crate::base::rng::Rng;
use crate::keyspace::tracking::{Changed, Stale};
use crate::keyspace::{DbIndex, Event, Log};
use crate::resp::write_command;

/// One event that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The database of the key.
    pub db: DbIndex,
    /// What happened to the key.
    pub event: Event,
    /// Its whole name.
    pub key: Box<[u8]>,
}

/// For whom records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audience {
    /// Links to replicas.
    pub links: bool,
    /// Files.
    pub files: bool,
}

impl Audience {
    /// Nearly always.
    pub const ALL: Self = Self { links: true, files: true };
}

impl Default for Audience {
    fn default() -> Self {
        Self::ALL
    }
}

/// What running a command brought about besides its reply. Reused from command to command.
#[derive(Debug, Default)]
pub struct Effects {
    /// Whether somebody reads the log.
    pub log_wanted: bool,
    /// For whom the records are that come next.
    pub audience: Audience,
    /// RESP records for the log; of each run of them the database, the end, and for whom it is.
    records: Vec<u8>,
    runs: Vec<(DbIndex, usize, Audience)>,
    /// Some are not for all.
    split: bool,
    slots: Slots,
    /// Records since the last append.
    count: usize,
    /// A handler has recorded what replicas must do, so the command itself is not.
    pub recorded: bool,
    /// Keys that were met dead by a walk that holds no lock any more.
    pub dead: Vec<(DbIndex, Vec<u8>)>,
    /// Keys that clients are blocked on and that changed.
    pub ready: Vec<(DbIndex, Vec<u8>)>,
    /// Whether somebody publishes [`Effects::notices`].
    pub publishes: bool,
    /// Events that are to be published, in the order in which they came about.
    pub notices: Vec<Notice>,
    /// Keys that those who track them must read anew.
    pub stale: Vec<Stale>,
    /// Keys that have changed, for those who hear of all.
    pub broadcast: Vec<Changed>,
    /// A database was emptied, and somebody tracks keys.
    pub flushed: bool,
    /// The client whose command runs, or 0.
    pub writer: u64,
    /// A script called it.
    pub scripted: bool,
    /// Changes made.
    pub dirty: u64,
    /// Look-ups of keys that were there.
    pub hits: u64,
    /// Look-ups of keys that were not.
    pub misses: u64,
    /// Draws whether a use counts under an LFU policy.
    pub rng: Rng,
}

/// The slots of the keys that changed since the last append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slots {
    #[default]
    None,
    One(u16),
    Many,
}

impl Effects {
    /// The effects of an executor, which publishes events.
    pub fn seeded(seed: u64) -> Self {
        Self { rng: Rng::new(seed), publishes: true, ..Self::default() }
    }

    /// Whether somebody has to be told of something.
    #[inline(always)]
    pub fn has_news(&self) -> bool {
        !self.notices.is_empty() || !self.stale.is_empty() || self.flushed || !self.broadcast.is_empty()
    }

    /// Records a command for the log.
    pub fn record<A: AsRef<[u8]>>(&mut self, db: DbIndex, args: &[A]) {
        if self.log_wanted {
            write_command(&mut self.records, args);
            self.count += 1;
            self.close_run(db);
        }
    }

    fn close_run(&mut self, db: DbIndex) {
        let audience = self.audience;
        self.split |= audience != Audience::ALL;
        match self.runs.last_mut() {
            Some((last, end, of)) if *last == db && *of == audience => *end = self.records.len(),
            _ => self.runs.push((db, self.records.len(), audience)),
        }
    }

    /// Whether anything is recorded.
    pub fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// Notes that a key of `slot` changed.
    #[inline]
    pub(in crate::keyspace) fn note_slot(&mut self, slot: u16) {
        self.slots = match self.slots {
            Slots::None => Slots::One(slot),
            Slots::One(one) if one == slot => return,
            _ => Slots::Many,
        };
    }

    /// The slot of all keys that changed since it was last asked; `None` when there were none, or several slots.
    pub fn take_slot(&mut self) -> Option<u16> {
        if let Slots::One(slot) = std::mem::take(&mut self.slots) { Some(slot) } else { None }
    }

    /// Appends what is recorded to the log as one unit, and forgets it: the one door to the log for what this
    /// node's own writers change. `together`: several records stand between MULTI and EXEC.
    pub fn append_to(&mut self, log: &Log, together: bool) -> u64 {
        let (slot, wrapped) = (self.take_slot(), together && self.count > 1);
        let end = if self.split {
            let (links, files) = (self.runs_for(|to| to.links), self.runs_for(|to| to.files));
            log.append_split_unit(&links, &files, wrapped, slot)
        } else {
            log.append_unit(&self.runs_for(|_| true), wrapped, slot)
        };
        self.discard_records();
        end
    }

    /// The runs that are for some, each with its database.
    fn runs_for(&self, is_for: impl Fn(Audience) -> bool) -> smallvec::SmallVec<[(DbIndex, &[u8]); 4]> {
        let mut from = 0;
        let runs = self.runs.iter().filter_map(|&(db, end, audience)| {
            let records = &self.records[std::mem::replace(&mut from, end)..end];
            is_for(audience).then_some((db, records))
        });
        runs.collect()
    }

    /// Forgets what was recorded for the log: no unit comes of it.
    pub fn discard_records(&mut self) {
        self.records.clear();
        self.runs.clear();
        (self.count, self.slots, self.split) = (0, Slots::None, false);
    }
}
