//! A value as the commands that make it: what a base holds with `aof-use-rdb-preamble no`.
//!
//! The commands and their order are those of the bases that redis-server 7.4.1 wrote.

mod stream;

use std::ops::ControlFlow;

use crate::base::num::format_f64;
use crate::base::time::UnixMs;
use crate::keyspace::snapshot::{Part, Position};
use crate::resp::write_command;
use crate::value::{Hash, List, SortedSet, ValueRef};

/// Elements of one command.
const ELEMENTS: usize = 64;

/// Appends the commands that make `key`.
pub fn encode_entry(out: &mut Vec<u8>, key: &[u8], value: ValueRef<'_>, expire: Option<UnixMs>) {
    let end = encode_part(out, key, value, expire, Part::WHOLE);
    debug_assert!(end.is_none(), "there is room for all of it");
}

/// Appends some of the commands that make `key`. Returns where the next part begins, `None` behind the last. The parts
/// make the key if the value stays as it is.
pub fn encode_part(
    out: &mut Vec<u8>,
    key: &[u8],
    value: ValueRef<'_>,
    expire: Option<UnixMs>,
    part: Part,
) -> Option<Position> {
    let (from, end) = (part.from.index, out.len().saturating_add(part.most));
    let next = match value {
        ValueRef::String(bytes) => encode_string(out, key, bytes, from, part.most),
        ValueRef::List(list) => encode_list(out, key, list, from, end),
        ValueRef::Set(set) => {
            let mut many = Many::new(out, "SADD", key, 1);
            many.step_by_step(from, end, |many, at| set.step(at, |member| many.push(member.to_vec())))
        }
        ValueRef::Hash(hash) if hash.next_time().is_some() => encode_timed_hash(out, key, hash, from, end),
        ValueRef::Hash(hash) => {
            let mut many = Many::new(out, "HMSET", key, 2);
            many.step_by_step(from, end, |many, at| {
                hash.step(at, |field, value, _| {
                    many.push(field.to_vec());
                    many.push(value.to_vec());
                })
            })
        }
        ValueRef::SortedSet(zset) => encode_sorted_set(out, key, zset, from, end),
        ValueRef::Stream(stream) => {
            if let Some(next) = stream::encode(out, key, stream, part.from, end) {
                return Some(next);
            }
            None
        }
    };
    if next.is_none()
        && let Some(at) = expire
    {
        put(out, &[b"PEXPIREAT", key, at.to_string().as_bytes()]);
    }
    next.map(Position::at)
}

/// Writes from the byte `from` on, `most` of them.
fn encode_string(out: &mut Vec<u8>, key: &[u8], bytes: &[u8], from: usize, most: usize) -> Option<usize> {
    if from == 0 {
        out.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n${}\r\n", key.len()).as_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(format!("\r\n${}\r\n", bytes.len()).as_bytes());
    }
    let to = from.saturating_add(most).min(bytes.len());
    out.extend_from_slice(&bytes[from..to]);
    if to < bytes.len() {
        return Some(to);
    }
    out.extend_from_slice(b"\r\n");
    None
}

// All of these write from the element or step `from` on, and end behind the one that brings them to `end` bytes.

fn encode_list(out: &mut Vec<u8>, key: &[u8], list: &List, from: usize, end: usize) -> Option<usize> {
    let mut many = Many::new(out, "RPUSH", key, 1);
    let mut at = from;
    list.walk(from..list.len(), |element| {
        many.push(element.to_vec());
        at += 1;
        if many.is_at(end) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    many.flush();
    (at < list.len()).then_some(at)
}

fn encode_sorted_set(
    out: &mut Vec<u8>,
    key: &[u8],
    zset: &SortedSet,
    from: usize,
    end: usize,
) -> Option<usize> {
    let mut many = Many::new(out, "ZADD", key, 2);
    let mut at = from;
    for (member, score) in zset.range(from..zset.len()) {
        if at > from && many.is_at(end) {
            break;
        }
        many.push(format_f64(score).into_bytes());
        many.push(member.to_vec());
        at += 1;
    }
    many.flush();
    (at < zset.len()).then_some(at)
}

/// Field by field, each with its time.
fn encode_timed_hash(out: &mut Vec<u8>, key: &[u8], hash: &Hash, from: usize, end: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at = hash.step(at, |field, value, time| {
            let field = field.to_vec();
            put(out, &[b"HMSET", key, &field, &value.to_vec()]);
            if let Some(time) = time {
                put(out, &[b"HPEXPIREAT", key, time.to_string().as_bytes(), b"FIELDS", b"1", &field]);
            }
        })?;
        if out.len() >= end {
            return Some(at);
        }
    }
}

fn put(out: &mut Vec<u8>, words: &[&[u8]]) {
    write_command(out, words);
}

/// A command with as many elements as may be, again and again.
struct Many<'a> {
    out: &'a mut Vec<u8>,
    name: &'static str,
    key: &'a [u8],
    /// Arguments of all elements of one command.
    most: usize,
    args: Vec<Vec<u8>>,
}

impl<'a> Many<'a> {
    /// `each`: arguments of an element.
    fn new(out: &'a mut Vec<u8>, name: &'static str, key: &'a [u8], each: usize) -> Self {
        Self { out, name, key, most: ELEMENTS * each, args: Vec::new() }
    }

    fn push(&mut self, arg: Vec<u8>) {
        self.args.push(arg);
        if self.args.len() == self.most {
            self.flush();
        }
    }

    /// Writes what `step` pushes, again and again from where it says, to the end or behind `end` bytes.
    fn step_by_step(
        &mut self,
        from: usize,
        end: usize,
        mut step: impl FnMut(&mut Self, usize) -> Option<usize>,
    ) -> Option<usize> {
        let mut next = Some(from);
        while let Some(at) = next {
            next = step(self, at);
            if self.is_at(end) {
                break;
            }
        }
        self.flush();
        next
    }

    /// Whether so many bytes are written.
    fn is_at(&self, end: usize) -> bool {
        self.out.len() >= end
    }

    fn flush(&mut self) {
        if !self.args.is_empty() {
            let mut words: Vec<&[u8]> = vec![self.name.as_bytes(), self.key];
            words.extend(self.args.iter().map(Vec::as_slice));
            put(self.out, &words);
            self.args.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::stream::{Group, Pending};
    use crate::value::{Limits, Set, Stream, StreamId};

    fn words(out: &[u8]) -> Vec<String> {
        let mut commands = crate::persist::aof::stream::Commands::new(out, Vec::new(), 0);
        let mut lines = Vec::new();
        while let Some(crate::persist::aof::stream::Item::Command(argv)) = commands.next_item().unwrap() {
            let words: Vec<_> = argv.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            lines.push(words.join(" "));
        }
        lines
    }

    /// As redis-server 7.4.1 wrote `stream:one` and `stream:empty`.
    #[test]
    fn streams_with_groups() {
        let mut stream = Stream::new();
        stream.append(StreamId::new(1, 1), &["f", "v"], &Limits::default());
        stream.set_counters(StreamId::new(5, 1), 5, StreamId::new(3, 1));
        let mut group = Group::new(StreamId::new(4, 1), None);
        let alice = group.add_consumer(b"alice", 1).unwrap();
        group.add_consumer(b"idle", 1);
        group.assign(StreamId::new(2, 1), Pending { consumer: alice, delivered_ms: 7, deliveries: 1 });
        stream.groups.insert(b"g1"[..].into(), group);
        let mut out = Vec::new();
        encode_entry(&mut out, b"s", ValueRef::Stream(&stream), Some(9));
        assert_eq!(
            words(&out),
            [
                "XADD s 1-1 f v",
                "XSETID s 5-1 ENTRIESADDED 5 MAXDELETEDID 3-1",
                "XGROUP CREATE s g1 4-1 ENTRIESREAD -1",
                "XCLAIM s g1 alice 0 2-1 TIME 7 RETRYCOUNT 1 JUSTID FORCE",
                "XGROUP CREATECONSUMER s g1 idle",
                "PEXPIREAT s 9"
            ]
        );
        out.clear();
        encode_entry(&mut out, b"e", ValueRef::Stream(&Stream::new()), None);
        assert_eq!(words(&out)[0], "XADD e MAXLEN 0 0-1 x y");
    }
    /// One element a command, so that the parts are the whole cut in pieces.
    #[test]
    fn parts_make_up_the_whole() {
        let limits = Limits { hash_max_listpack_entries: 4, ..Limits::default() };
        let names: Vec<String> = (0..3000).map(|n| format!("name:{n}")).collect();
        let string = names.concat().repeat(2);
        let (mut list, mut set, mut zset) = (List::new(), Set::new(), SortedSet::new());
        let (mut hash, mut timed, mut stream) = (Hash::new(), Hash::new(), Stream::new());
        let mut group = Group::new(StreamId::new(4, 1), Some(7));
        let consumers = ["a", "b", "c"].map(|name| group.add_consumer(name.as_bytes(), 1).unwrap());
        for (n, name) in (1u64..).zip(&names) {
            let name = name.as_bytes();
            list.push_back(name, &limits);
            set.add(name, &limits);
            zset.add(name, n as f64, &limits);
            for hash in [&mut hash, &mut timed] {
                hash.set(name, name, &limits);
            }
            stream.append(StreamId::new(n, 0), &["f", "v"], &limits);
            let pending = Pending { consumer: consumers[n as usize % 2], delivered_ms: 7, deliveries: n };
            group.assign(StreamId::new(n, 0), pending);
        }
        timed.set_time(b"name:7", Some(1 << 42), &limits);
        stream.groups.insert(b"g1"[..].into(), group.clone());
        stream.groups.insert(b"g2"[..].into(), group);
        for value in [
            ValueRef::String(string.as_bytes()),
            ValueRef::List(&list),
            ValueRef::Set(&set),
            ValueRef::SortedSet(&zset),
            ValueRef::Hash(&hash),
            ValueRef::Hash(&timed),
            ValueRef::Stream(&stream),
        ] {
            let mut whole = Vec::new();
            encode_entry(&mut whole, b"k", value, Some(9));
            // Commands end with parts; what they say is the same.
            let said = |out: &[u8]| -> Vec<String> {
                words(out).iter().flat_map(|line| line.split(' ').skip(2).map(str::to_owned)).collect()
            };
            for most in [1, 3000] {
                let (mut out, mut from, mut parts) = (Vec::new(), Some(Position::START), 0);
                while let Some(at) = from {
                    let begin = out.len();
                    from = encode_part(&mut out, b"k", value, Some(9), Part { from: at, most });
                    assert!(out.len() - begin < most + 3000, "{} bytes in a part", out.len() - begin);
                    parts += 1;
                }
                assert!(parts > 10, "{parts}");
                assert!(said(&out) == said(&whole), "{:?} in {parts} parts", value.kind());
            }
        }
    }
}
