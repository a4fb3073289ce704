//! Stream values: entries in blocks that are listpacks in Redis's own layout, so that RDB copies them.

mod group;
mod id;
mod node;
mod trim;

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Limits;
use crate::encoding::{Listpack, Malformed};

pub use group::{Consumer, ConsumerId, Group, Pending};
pub use id::StreamId;
pub use node::{Entry, Fields};
pub use trim::Trim;

/// Entries with ascending ids, and the consumer groups that read them.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// By the id that the node's deltas count from, which is at most its first entry's.
    nodes: BTreeMap<StreamId, Listpack>,
    len: u64,
    last_id: StreamId,
    entries_added: u64,
    max_deleted_id: StreamId,
    /// Consumer groups by name.
    pub groups: BTreeMap<Box<[u8]>, Group>,
}

impl Stream {
    /// A stream to which nothing was ever added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries, deleted ones not counted.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no entry is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The greatest id ever added, also if that entry is gone; 0-0 at first.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The id of the first entry; 0-0 if there is none.
    pub fn first_id(&self) -> StreamId {
        self.iter().next().map_or(StreamId::MIN, |e| e.id)
    }

    /// How many entries were ever added.
    pub fn entries_added(&self) -> u64 {
        self.entries_added
    }

    /// The greatest id that XDEL removed; 0-0 at first.
    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// XSETID, and what a file states after the entries.
    pub fn set_counters(&mut self, last_id: StreamId, entries_added: u64, max_deleted_id: StreamId) {
        (self.last_id, self.entries_added, self.max_deleted_id) = (last_id, entries_added, max_deleted_id);
    }

    /// Appends an entry of fields and values in turn. `id` is greater than [`Stream::last_id`], which
    /// the caller has checked.
    pub fn append<T: AsRef<[u8]>>(&mut self, id: StreamId, fields: &[T], limits: &Limits) {
        assert!(id > self.last_id, "ids are checked where they arrive");
        assert!(fields.len().is_multiple_of(2), "fields come with values");
        let room = |lp: &Listpack| {
            let added: usize = fields.iter().map(|f| f.as_ref().len()).sum();
            node::has_room(lp, added, limits)
        };
        match self.nodes.last_entry() {
            Some(mut last) if room(last.get()) => {
                let first = *last.key();
                node::append(last.get_mut(), first, id, fields);
            }
            _ => {
                let mut lp = node::new(fields);
                node::append(&mut lp, id, id, fields);
                self.nodes.insert(id, lp);
            }
        }
        self.len += 1;
        self.entries_added += 1;
        self.last_id = id;
    }

    /// XDEL of one entry; false if it is not there.
    pub fn remove(&mut self, id: StreamId) -> bool {
        let Some((&first, lp)) = self.nodes.range_mut(..=id).next_back() else { return false };
        match node::delete(lp, first, id) {
            node::Deleted::NotFound => return false,
            node::Deleted::One => {}
            node::Deleted::Last => {
                self.nodes.remove(&first);
            }
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        true
    }

    /// Whether there is an entry of this id.
    pub fn contains(&self, id: StreamId) -> bool {
        self.range(id, id).next().is_some()
    }

    /// All entries, ascending.
    pub fn iter(&self) -> Range<'_> {
        self.range(StreamId::MIN, StreamId::MAX)
    }

    /// The entries with ids from `start` to `end`, both included; `.rev()` for descending order.
    pub fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        if start > end {
            return Range::default();
        }
        // The node that may hold `start` begins at or before it.
        let from = self.nodes.range(..=start).next_back().map_or(start, |(first, _)| *first);
        Range {
            start,
            end,
            nodes: self.nodes.range((Bound::Included(from), Bound::Included(end))),
            front: None,
            back: None,
        }
    }

    /// The blocks with the ids that their deltas count from, as RDB stores them.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (StreamId, &Listpack)> {
        self.nodes.iter().map(|(id, lp)| (*id, lp))
    }

    /// Appends a block read from a file, after a full check. The counters but the length stay as they are.
    pub fn push_node(&mut self, first: StreamId, listpack: Listpack) -> Result<(), Malformed> {
        let bad = Malformed("stream node");
        let checked = node::check(&listpack, first).ok_or(bad)?;
        if let Some((&before, lp)) = self.nodes.last_key_value()
            && (before >= first || node::last_id(lp, before) >= checked.first_id)
        {
            return Err(bad);
        }
        self.len = self.len.checked_add(checked.live).ok_or(bad)?;
        if checked.live > 0 {
            self.nodes.insert(first, listpack);
        }
        Ok(())
    }

    /// As OBJECT ENCODING shows it.
    pub fn encoding_name(&self) -> &'static str {
        "stream"
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        let nodes: usize = self.nodes.values().map(|lp| lp.memory_bytes() + 32).sum();
        nodes + self.groups.iter().map(|(name, g)| name.len() + g.memory_bytes()).sum::<usize>()
    }
}

impl<'a> IntoIterator for &'a Stream {
    type Item = Entry<'a>;
    type IntoIter = Range<'a>;

    fn into_iter(self) -> Range<'a> {
        self.iter()
    }
}

/// Entries of a range of ids, from both ends.
#[derive(Clone, Debug, Default)]
pub struct Range<'a> {
    start: StreamId,
    end: StreamId,
    nodes: std::collections::btree_map::Range<'a, StreamId, Listpack>,
    front: Option<node::Entries<'a>>,
    back: Option<node::Entries<'a>>,
}

impl<'a> Iterator for Range<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if let Some(entries) = &mut self.front {
                for entry in entries.by_ref() {
                    if entry.id > self.end {
                        return None;
                    }
                    if entry.id >= self.start {
                        return Some(entry);
                    }
                }
            }
            self.front = match self.nodes.next() {
                Some((first, lp)) => Some(node::entries(lp, *first)),
                // What the other end has begun belongs to both.
                None => Some(self.back.take()?),
            };
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entries) = &mut self.back {
                while let Some(entry) = entries.next_back() {
                    if entry.id < self.start {
                        return None;
                    }
                    if entry.id <= self.end {
                        return Some(entry);
                    }
                }
            }
            self.back = match self.nodes.next_back() {
                Some((first, lp)) => Some(node::entries(lp, *first)),
                None => Some(self.front.take()?),
            };
        }
    }
}

#[cfg(test)]
mod tests;
