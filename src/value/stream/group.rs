//! Consumer groups: who has been given which entry and has not acknowledged it.

use std::collections::{BTreeMap, BTreeSet};

use super::StreamId;
use crate::base::time::UnixMs;

/// A consumer within its group, by index; stays valid until the consumer is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsumerId(u32);

/// A group: its place in the stream, its consumers and what they have not acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The last entry delivered.
    pub last_id: StreamId,
    /// How many entries the group has read, if that is known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    /// `None` where a consumer was removed.
    consumers: Vec<Option<Consumer>>,
    by_name: BTreeMap<Box<[u8]>, ConsumerId>,
}

/// An entry delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who got it last.
    pub consumer: ConsumerId,
    /// When that was, in milliseconds since 1970.
    pub delivered_ms: UnixMs,
    /// How often it was delivered to anybody.
    pub deliveries: u64,
}

/// A reader of a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// As XGROUP and XREADGROUP call it.
    pub name: Box<[u8]>,
    /// When it last tried to read or claim.
    pub seen_ms: UnixMs,
    /// When it last got an entry; `None` if never.
    pub active_ms: Option<UnixMs>,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    /// Ids of its unacknowledged entries, ascending.
    pub fn pending(&self) -> &BTreeSet<StreamId> {
        &self.pending
    }
}

impl Group {
    /// A group without consumers that goes on behind `last_id`.
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        Self { last_id, entries_read, ..Self::default() }
    }

    /// Unacknowledged entries of the whole group, ascending.
    pub fn pending(&self) -> &BTreeMap<StreamId, Pending> {
        &self.pending
    }

    /// Consumers by name.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = (ConsumerId, &Consumer)> {
        self.by_name.values().map(|&id| (id, self.consumer(id)))
    }

    /// The consumer of this name.
    pub fn find_consumer(&self, name: &[u8]) -> Option<ConsumerId> {
        self.by_name.get(name).copied()
    }

    /// The id must be that of a consumer that is there.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        self.consumers[id.0 as usize].as_ref().expect("ids of removed consumers are not kept")
    }

    /// As [`consumer`](Self::consumer), for changes.
    pub fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        self.consumers[id.0 as usize].as_mut().expect("ids of removed consumers are not kept")
    }

    /// Adds a consumer; `None` if the name is taken.
    pub fn add_consumer(&mut self, name: &[u8], now: UnixMs) -> Option<ConsumerId> {
        if self.by_name.contains_key(name) {
            return None;
        }
        let consumer =
            Consumer { name: name.into(), seen_ms: now, active_ms: None, pending: BTreeSet::new() };
        let index = match self.consumers.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.consumers.push(None);
                self.consumers.len() - 1
            }
        };
        self.consumers[index] = Some(consumer);
        let id = ConsumerId(index as u32);
        self.by_name.insert(name.into(), id);
        Some(id)
    }

    /// Removes a consumer and forgets its unacknowledged entries; returns how many there were.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let id = self.by_name.remove(name)?;
        let consumer = self.consumers[id.0 as usize].take()?;
        for entry in &consumer.pending {
            self.pending.remove(entry);
        }
        Some(consumer.pending.len())
    }

    /// Makes an entry pending for a consumer, taking it from another one if need be.
    pub fn assign(&mut self, entry: StreamId, pending: Pending) {
        if let Some(old) = self.pending.insert(entry, pending)
            && old.consumer != pending.consumer
        {
            self.consumer_mut(old.consumer).pending.remove(&entry);
        }
        self.consumer_mut(pending.consumer).pending.insert(entry);
    }

    /// XACK of one entry; false if it was not pending.
    pub fn acknowledge(&mut self, entry: StreamId) -> bool {
        let Some(old) = self.pending.remove(&entry) else { return false };
        self.consumer_mut(old.consumer).pending.remove(&entry);
        true
    }

    /// Heap bytes, estimated.
    pub fn memory_bytes(&self) -> usize {
        self.pending.len() * 64 + self.consumers.len() * 96 + size_of::<Self>()
    }
}
