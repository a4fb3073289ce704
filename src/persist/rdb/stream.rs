//! The body of a stream, out and in.
//!
//! Nodes (id, listpack), counters, then the consumer groups: each with its pending entries, and its consumers,
//! which repeat the ids of theirs. Version 2 added the counters behind the last id and `entries_read`;
//! version 3 the time when a consumer last got an entry. Version 2 is written, all three are read.

use std::cmp::Ordering;
use std::io::Read;
use std::ops::Bound;

use super::decode::listpack;
use super::error;
use super::sink::{put_length, put_string};
use super::source::Source;
use super::value_type::{STREAM_LISTPACKS, STREAM_LISTPACKS_3};
use crate::base::time::UnixMs;
use crate::keyspace::snapshot::Position;
use crate::value::stream::{Consumer, Group, Pending};
use crate::value::{Stream, StreamId};

/// `entries_read` of a group where it is not known.
const UNKNOWN: u64 = u64::MAX;
/// The time of something that never happened.
const NEVER: i64 = -1;

/// A part of a stream, up to `end` bytes of `out`; see [`super::encode_part`]. The steps are the nodes, the counters,
/// then of each group its pending entries and each of its consumers; within these it goes on behind an id.
pub(super) fn put(
    out: &mut Vec<u8>,
    stream: &Stream,
    compress: bool,
    from: Position,
    end: usize,
) -> Option<Position> {
    let nodes = stream.nodes();
    let counters = nodes.len();
    if from == Position::START {
        put_length(out, nodes.len() as u64);
    }
    for (n, (first, listpack)) in nodes.enumerate().skip(from.index) {
        if n > from.index && out.len() >= end {
            return Some(Position::at(n));
        }
        put_string(out, &first.to_bytes(), false);
        put_string(out, listpack.as_bytes(), compress);
    }
    if from.index <= counters {
        put_length(out, stream.len());
        put_id(out, stream.last_id());
        put_id(out, stream.first_id());
        put_id(out, stream.max_deleted_id());
        put_length(out, stream.entries_added());
        put_length(out, stream.groups.len() as u64);
    }
    let mut groups = Groups { out, compress, from, end, step: counters };
    stream.groups.iter().try_for_each(|(name, group)| groups.put(name, group)).err()
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    put_length(out, id.ms);
    put_length(out, id.seq);
}

/// What is written of the groups of a stream. Its methods end with where the next part begins.
struct Groups<'a> {
    out: &'a mut Vec<u8>,
    compress: bool,
    from: Position,
    end: usize,
    /// The one that was looked at last.
    step: usize,
}

impl Groups<'_> {
    fn put(&mut self, name: &[u8], group: &Group) -> Result<(), Position> {
        if let Some(from) = self.next_step()? {
            if from == Bound::Unbounded {
                put_string(self.out, name, self.compress);
                put_id(self.out, group.last_id);
                put_length(self.out, group.entries_read.unwrap_or(UNKNOWN));
                put_length(self.out, group.pending().len() as u64);
            }
            for (id, pending) in group.pending().range((from, Bound::Unbounded)) {
                self.out.extend_from_slice(&id.to_bytes());
                self.out.extend_from_slice(&pending.delivered_ms.to_le_bytes());
                put_length(self.out, pending.deliveries);
                self.end_behind(*id)?;
            }
            put_length(self.out, group.consumers().len() as u64);
        }
        group.consumers().try_for_each(|(_, consumer)| self.put_consumer(consumer))
    }

    fn put_consumer(&mut self, consumer: &Consumer) -> Result<(), Position> {
        let Some(from) = self.next_step()? else { return Ok(()) };
        if from == Bound::Unbounded {
            put_string(self.out, &consumer.name, self.compress);
            self.out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
            put_length(self.out, consumer.pending().len() as u64);
        }
        for id in consumer.pending().range((from, Bound::Unbounded)) {
            self.out.extend_from_slice(&id.to_bytes());
            self.end_behind(*id)?;
        }
        Ok(())
    }

    /// The ids with which the next step goes on; `None` if an earlier part has written it.
    fn next_step(&mut self) -> Result<Option<Bound<StreamId>>, Position> {
        self.step += 1;
        match self.step.cmp(&self.from.index) {
            Ordering::Less => Ok(None),
            Ordering::Equal => Ok(Some(self.from.behind.map_or(Bound::Unbounded, Bound::Excluded))),
            Ordering::Greater if self.out.len() >= self.end => Err(Position::at(self.step)),
            Ordering::Greater => Ok(Some(Bound::Unbounded)),
        }
    }

    fn end_behind(&self, id: StreamId) -> Result<(), Position> {
        let place = Position { index: self.step, behind: Some(id) };
        if self.out.len() >= self.end { Err(place) } else { Ok(()) }
    }
}

/// Blocks keep the sizes that they came with, whatever the limits are here.
pub(super) fn read<R: Read>(source: &mut Source<R>, code: u8) -> error::Result<Stream> {
    let mut stream = Stream::new();
    for _ in 0..source.length("the number of nodes of a stream")? {
        read_node(source, &mut stream)?;
    }
    let length = source.length("the number of entries of a stream")?;
    // Release candidates of Redis 5.0 told the number before an XDEL. The entries themselves are right.
    if length != stream.len() {
        tracing::warn!("A stream of {} entries says that it has {length}: counted anew", stream.len());
    }
    read_counters(source, code, &mut stream)?;
    for _ in 0..source.length("the number of groups of a stream")? {
        let name = source.string("the name of a group")?;
        let group = read_group(source, code)?;
        if stream.groups.insert(name.into(), group).is_some() {
            return source.malformed("the groups of a stream", "a name occurs twice");
        }
    }
    Ok(stream)
}

fn read_node<R: Read>(source: &mut Source<R>, stream: &mut Stream) -> error::Result<()> {
    let id = source.string("the id of a stream node")?;
    let Ok(id) = <[u8; 16]>::try_from(id) else {
        return source.malformed("the id of a stream node", "it does not have 16 bytes");
    };
    let node = listpack(source, "the listpack of a stream node")?;
    if stream.push_node(StreamId::from_bytes(id), node).is_err() {
        return source.malformed("the listpack of a stream node", "its entries are damaged or out of order");
    }
    Ok(())
}

fn read_counters<R: Read>(source: &mut Source<R>, code: u8, stream: &mut Stream) -> error::Result<()> {
    let last_id = read_id(source, "the last id of a stream")?;
    if stream.iter().next_back().is_some_and(|last| last.id > last_id) {
        return source.malformed("the last id of a stream", "an entry is beyond it");
    }
    let (mut max_deleted, mut added) = (StreamId::MIN, stream.len());
    if code > STREAM_LISTPACKS {
        // The first id follows from the nodes.
        read_id(source, "the first id of a stream")?;
        max_deleted = read_id(source, "the greatest deleted id of a stream")?;
        added = source.length("the number of entries ever added")?.max(stream.len());
    }
    stream.set_counters(last_id, added, max_deleted);
    Ok(())
}

fn read_id<R: Read>(source: &mut Source<R>, what: &'static str) -> error::Result<StreamId> {
    Ok(StreamId { ms: source.length(what)?, seq: source.length(what)? })
}

fn raw_id<R: Read>(source: &mut Source<R>, what: &'static str) -> error::Result<StreamId> {
    Ok(StreamId::from_bytes(source.array(what)?))
}

fn time<R: Read>(source: &mut Source<R>, what: &'static str) -> error::Result<UnixMs> {
    Ok(i64::from_le_bytes(source.array(what)?))
}

/// An entry of a group's list whose consumer is not known yet.
struct Unclaimed {
    id: StreamId,
    delivered_ms: UnixMs,
    deliveries: u64,
}

fn read_group<R: Read>(source: &mut Source<R>, code: u8) -> error::Result<Group> {
    let last_id = read_id(source, "the last id of a group")?;
    let mut entries_read = None;
    if code > STREAM_LISTPACKS {
        entries_read = Some(source.length("the entries read by a group")?).filter(|&n| n != UNKNOWN);
    }
    let mut group = Group::new(last_id, entries_read);
    let pending = read_pending(source)?;
    for _ in 0..source.length("the number of consumers of a group")? {
        read_consumer(source, code, &mut group, &pending)?;
    }
    // Every consumer's entries are distinct and of the group's list, so equal counts mean that all are owned.
    if group.pending().len() != pending.len() {
        return source.malformed("the pending entries of a group", "one has no consumer");
    }
    Ok(group)
}

/// The pending entries of a group, in ascending order.
fn read_pending<R: Read>(source: &mut Source<R>) -> error::Result<Vec<Unclaimed>> {
    let mut pending: Vec<Unclaimed> = Vec::new();
    for _ in 0..source.length("the number of pending entries of a group")? {
        let entry = Unclaimed {
            id: raw_id(source, "the id of a pending entry")?,
            delivered_ms: time(source, "the delivery time of a pending entry")?,
            deliveries: source.length("the delivery count of a pending entry")?,
        };
        if pending.last().is_some_and(|last| last.id >= entry.id) {
            return source.malformed("the pending entries of a group", "their ids do not ascend");
        }
        pending.push(entry);
    }
    Ok(pending)
}

fn read_consumer<R: Read>(
    source: &mut Source<R>,
    code: u8,
    group: &mut Group,
    pending: &[Unclaimed],
) -> error::Result<()> {
    let name = source.string("the name of a consumer")?;
    let seen_ms = time(source, "the time when a consumer was seen")?;
    let active_ms = if code >= STREAM_LISTPACKS_3 {
        Some(time(source, "the time when a consumer was active")?).filter(|&ms| ms != NEVER)
    } else {
        Some(seen_ms)
    };
    let Some(consumer) = group.add_consumer(&name, seen_ms) else {
        return source.malformed("the consumers of a group", "a name occurs twice");
    };
    group.consumer_mut(consumer).active_ms = active_ms;
    for _ in 0..source.length("the number of pending entries of a consumer")? {
        let id = raw_id(source, "the id of a pending entry")?;
        let Ok(at) = pending.binary_search_by_key(&id, |entry| entry.id) else {
            return source.unexpected("the id of a pending entry of the group", id);
        };
        if group.pending().contains_key(&id) {
            return source.malformed("the pending entries of a consumer", "another consumer has one of them");
        }
        let Unclaimed { delivered_ms, deliveries, .. } = pending[at];
        group.assign(id, Pending { consumer, delivered_ms, deliveries });
    }
    Ok(())
}
