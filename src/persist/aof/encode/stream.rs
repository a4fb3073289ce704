//! The commands that make a stream and its groups.

use std::cmp::Ordering;
use std::ops::Bound;

use super::put;
use crate::keyspace::snapshot::Position;
use crate::resp::write_command;
use crate::value::stream::{Consumer, Group};
use crate::value::{Stream, StreamId};

/// A part of the commands, up to `end` bytes of `out`; see [`super::encode_part`]. The steps are the entries, what
/// stands beside them, then each group and each of its consumers; within entries and consumers it goes on behind an
/// id.
pub(super) fn encode(
    out: &mut Vec<u8>,
    key: &[u8],
    stream: &Stream,
    from: Position,
    end: usize,
) -> Option<Position> {
    let mut steps = Steps { out, key, from, end, step: 0 };
    let groups =
        |steps: &mut Steps<'_>| stream.groups.iter().try_for_each(|(name, group)| steps.group(name, group));
    steps.entries(stream).and_then(|()| steps.counters(stream)).and_then(|()| groups(&mut steps)).err()
}

/// Writes step after step. Its methods end with where the next part begins.
struct Steps<'a> {
    out: &'a mut Vec<u8>,
    key: &'a [u8],
    from: Position,
    end: usize,
    /// The number of the next one.
    step: usize,
}

impl Steps<'_> {
    /// The ids with which the next step goes on; `None` if an earlier part has written it.
    fn next(&mut self) -> Result<Option<Bound<StreamId>>, Position> {
        let step = self.step;
        self.step += 1;
        match step.cmp(&self.from.index) {
            Ordering::Less => Ok(None),
            Ordering::Equal => Ok(Some(self.from.behind.map_or(Bound::Unbounded, Bound::Excluded))),
            Ordering::Greater if self.out.len() >= self.end => Err(Position::at(step)),
            Ordering::Greater => Ok(Some(Bound::Unbounded)),
        }
    }

    fn end_behind(&self, id: StreamId) -> Result<(), Position> {
        let place = Position { index: self.step - 1, behind: Some(id) };
        if self.out.len() >= self.end { Err(place) } else { Ok(()) }
    }

    fn entries(&mut self, stream: &Stream) -> Result<(), Position> {
        let start = match self.next()? {
            None => return Ok(()),
            Some(Bound::Excluded(id)) => match id.next() {
                Some(next) => next,
                None => return Ok(()),
            },
            Some(_) => StreamId::MIN,
        };
        for entry in stream.range(start, StreamId::MAX) {
            let mut args: Vec<Vec<u8>> = vec![b"XADD".to_vec(), self.key.to_vec(), text(&entry.id)];
            for (field, value) in entry.fields {
                args.extend([field.to_vec(), value.to_vec()]);
            }
            write_command(self.out, &args);
            self.end_behind(entry.id)?;
        }
        Ok(())
    }

    fn counters(&mut self, stream: &Stream) -> Result<(), Position> {
        if self.next()?.is_none() {
            return Ok(());
        }
        if stream.is_empty() {
            // An entry that goes at once: XADD is the only way to a stream.
            put(self.out, &[b"XADD", self.key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
        }
        let (last, added) = (text(&stream.last_id()), text(&stream.entries_added()));
        let deleted = text(&stream.max_deleted_id());
        let words: [&[u8]; 7] =
            [b"XSETID", self.key, &last, b"ENTRIESADDED", &added, b"MAXDELETEDID", &deleted];
        put(self.out, &words);
        Ok(())
    }

    fn group(&mut self, name: &[u8], group: &Group) -> Result<(), Position> {
        if self.next()?.is_some() {
            // -1: not known.
            let read = group.entries_read.map_or("-1".into(), |n| n.to_string());
            let last = text(&group.last_id);
            put(self.out, &[b"XGROUP", b"CREATE", self.key, name, &last, b"ENTRIESREAD", read.as_bytes()]);
        }
        group.consumers().try_for_each(|(_, consumer)| self.consumer(name, group, consumer))
    }

    fn consumer(&mut self, name: &[u8], group: &Group, consumer: &Consumer) -> Result<(), Position> {
        let Some(from) = self.next()? else { return Ok(()) };
        if consumer.pending().is_empty() {
            put(self.out, &[b"XGROUP", b"CREATECONSUMER", self.key, name, &consumer.name]);
        }
        for id in consumer.pending().range((from, Bound::Unbounded)) {
            let Some(pending) = group.pending().get(id) else { continue };
            let (entry, time) = (text(id), text(&pending.delivered_ms));
            let count = text(&pending.deliveries);
            let claim: [&[u8]; 12] = [
                b"XCLAIM",
                self.key,
                name,
                &consumer.name,
                b"0",
                &entry,
                b"TIME",
                &time,
                b"RETRYCOUNT",
                &count,
                b"JUSTID",
                b"FORCE",
            ];
            put(self.out, &claim);
            self.end_behind(*id)?;
        }
        Ok(())
    }
}

fn text(value: &impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}
