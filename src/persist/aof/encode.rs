//! A value as the commands that make it: what a base holds with `aof-use-rdb-preamble no`.
//!
//! The commands and their order are those of the bases that redis-server 7.4.1 wrote.

use crate::base::num::format_f64;
use crate::base::time::UnixMs;
use crate::resp::request::write_command;
use crate::value::stream::Group;
use crate::value::{Hash, Stream, ValueRef};

/// Elements of one command.
const ELEMENTS: usize = 64;

/// Appends the commands that make `key`.
pub fn encode_entry(out: &mut Vec<u8>, key: &[u8], value: ValueRef<'_>, expire: Option<UnixMs>) {
    match value {
        ValueRef::String(bytes) => put(out, &[b"SET", key, bytes]),
        ValueRef::List(list) => {
            let mut many = Many::new(out, "RPUSH", key, 1);
            list.for_each(|element| many.push(element.to_vec()));
            many.flush();
        }
        ValueRef::Set(set) => {
            let mut many = Many::new(out, "SADD", key, 1);
            set.iter().for_each(|member| many.push(member.to_vec()));
            many.flush();
        }
        ValueRef::Hash(hash) if hash.next_time().is_some() => encode_timed_hash(out, key, hash),
        ValueRef::Hash(hash) => {
            let mut many = Many::new(out, "HMSET", key, 2);
            for (field, value) in hash.iter() {
                many.push(field.to_vec());
                many.push(value.to_vec());
            }
            many.flush();
        }
        ValueRef::SortedSet(zset) => {
            let mut many = Many::new(out, "ZADD", key, 2);
            for (member, score) in zset {
                many.push(format_f64(score).into_bytes());
                many.push(member.to_vec());
            }
            many.flush();
        }
        ValueRef::Stream(stream) => encode_stream(out, key, stream),
    }
    if let Some(at) = expire {
        put(out, &[b"PEXPIREAT", key, at.to_string().as_bytes()]);
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

    fn flush(&mut self) {
        if !self.args.is_empty() {
            let mut words: Vec<&[u8]> = vec![self.name.as_bytes(), self.key];
            words.extend(self.args.iter().map(Vec::as_slice));
            put(self.out, &words);
            self.args.clear();
        }
    }
}

/// Field by field, each with its time.
fn encode_timed_hash(out: &mut Vec<u8>, key: &[u8], hash: &Hash) {
    for (field, value, time) in hash.iter_timed() {
        let field = field.to_vec();
        put(out, &[b"HMSET", key, &field, &value.to_vec()]);
        if let Some(at) = time {
            put(out, &[b"HPEXPIREAT", key, at.to_string().as_bytes(), b"FIELDS", b"1", &field]);
        }
    }
}

fn encode_stream(out: &mut Vec<u8>, key: &[u8], stream: &Stream) {
    for entry in stream {
        let mut args: Vec<Vec<u8>> = vec![b"XADD".to_vec(), key.to_vec(), entry.id.to_string().into_bytes()];
        for (field, value) in entry.fields {
            args.extend([field.to_vec(), value.to_vec()]);
        }
        write_command(out, &args);
    }
    let text = |text: &dyn ToString| text.to_string().into_bytes();
    if stream.is_empty() {
        // An entry that goes at once: XADD is the only way to a stream.
        put(out, &[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
    }
    put(
        out,
        &[
            b"XSETID",
            key,
            &text(&stream.last_id()),
            b"ENTRIESADDED",
            &text(&stream.entries_added()),
            b"MAXDELETEDID",
            &text(&stream.max_deleted_id()),
        ],
    );
    for (name, group) in &stream.groups {
        encode_group(out, key, name, group);
    }
}

fn encode_group(out: &mut Vec<u8>, key: &[u8], name: &[u8], group: &Group) {
    let text = |text: &dyn ToString| text.to_string().into_bytes();
    // -1: not known.
    let read = group.entries_read.map_or("-1".into(), |n| n.to_string());
    let last = text(&group.last_id);
    put(out, &[b"XGROUP", b"CREATE", key, name, &last, b"ENTRIESREAD", read.as_bytes()]);
    for (_, consumer) in group.consumers() {
        if consumer.pending().is_empty() {
            put(out, &[b"XGROUP", b"CREATECONSUMER", key, name, &consumer.name]);
        }
        for id in consumer.pending() {
            let Some(pending) = group.pending().get(id) else { continue };
            put(
                out,
                &[
                    b"XCLAIM",
                    key,
                    name,
                    &consumer.name,
                    b"0",
                    &text(id),
                    b"TIME",
                    &text(&pending.delivered_ms),
                    b"RETRYCOUNT",
                    &text(&pending.deliveries),
                    b"JUSTID",
                    b"FORCE",
                ],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Limits;
    use crate::value::stream::{Pending, StreamId};

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
}
