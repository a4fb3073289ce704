//! An entry on the way out: attributes, type, key, and the value in the form that its encoding suggests.
//!
//! Every form but that of hashes with times of fields (7.4) is one that a Redis 7.0 loads, so a set in listpack
//! encoding goes out member by member (its own form came with version 11).

use super::sink::{INTEGER_TEXT_MAX, put_integer, put_length, put_lzf, put_string};
use super::{opcode, value_type};
use crate::base::time::UnixMs;
use crate::encoding::Item;
use crate::keyspace::snapshot::{Part, Position};
use crate::value::set::Packed;
use crate::value::timed::Timed;
use crate::value::{Hash, List, Set, SortedSet, ValueRef, list};

/// What a file says about a key besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Milliseconds since 1970; `None`: the key stays.
    pub expire: Option<UnixMs>,
    /// Seconds since the last use; written where eviction is by LRU.
    pub idle_s: Option<u64>,
    /// Counter of uses; written where eviction is by LFU.
    pub freq: Option<u8>,
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directive `rdbcompression`: LZF for strings above 20 bytes where it saves space.
    pub compress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { compress: true }
    }
}

/// Appends the record of one key. Blocks of whole records may be put together in any order.
#[inline]
pub fn encode_entry(out: &mut Vec<u8>, key: &[u8], value: ValueRef<'_>, meta: &Meta, options: Options) {
    let end = encode_part(out, key, value, meta, options, Part::WHOLE);
    debug_assert!(end.is_none(), "there is room for all of it");
}

/// Appends a part of the record of one key. Returns where the next one begins, `None` behind the last. The parts
/// make up the record if the value stays as it is, wherever in memory. Strings that may be
/// compressed and what stands in one listpack are one part.
#[inline]
pub fn encode_part(
    out: &mut Vec<u8>,
    key: &[u8],
    value: ValueRef<'_>,
    meta: &Meta,
    options: Options,
    part: Part,
) -> Option<Position> {
    if part.from == Position::START {
        put_head(out, key, value, meta, options);
    }
    put_value(out, value, options, part)
}

/// All that stands before the value.
#[inline]
fn put_head(out: &mut Vec<u8>, key: &[u8], value: ValueRef<'_>, meta: &Meta, options: Options) {
    if let Some(expire) = meta.expire {
        out.push(opcode::EXPIRE_MS);
        out.extend_from_slice(&expire.to_le_bytes());
    }
    if let Some(idle_s) = meta.idle_s {
        out.push(opcode::IDLE);
        put_length(out, idle_s);
    }
    if let Some(freq) = meta.freq {
        out.extend_from_slice(&[opcode::FREQ, freq]);
    }
    out.push(type_of(value));
    put_string(out, key, options.compress);
}

/// The type byte that announces the form in which [`put_value`] writes `value`.
#[inline]
pub(super) fn type_of(value: ValueRef<'_>) -> u8 {
    match value {
        ValueRef::String(_) => value_type::STRING,
        ValueRef::List(_) => value_type::LIST_QUICKLIST_2,
        ValueRef::Set(set) => match set.packed() {
            Some(Packed::IntSet(_)) => value_type::SET_INTSET,
            _ => value_type::SET,
        },
        ValueRef::Hash(hash) if hash.packed().is_some() => value_type::HASH_LISTPACK,
        ValueRef::Hash(hash) if hash.next_time().is_none() => value_type::HASH,
        ValueRef::Hash(hash) if hash.timed().is_some_and(|t| t.packed().is_some()) => {
            value_type::HASH_LISTPACK_EX
        }
        ValueRef::Hash(_) => value_type::HASH_METADATA,
        ValueRef::SortedSet(zset) if zset.packed().is_some() => value_type::ZSET_LISTPACK,
        ValueRef::SortedSet(_) => value_type::ZSET_2,
        ValueRef::Stream(_) => value_type::STREAM_LISTPACKS_2,
    }
}

/// Appends a part of the body of a value; see [`encode_part`].
#[inline]
pub(super) fn put_value(
    out: &mut Vec<u8>,
    value: ValueRef<'_>,
    options: Options,
    part: Part,
) -> Option<Position> {
    let (compress, from) = (options.compress, part.from.index);
    let end = out.len().saturating_add(part.most);
    let next = match value {
        ValueRef::String(bytes) if !compress && bytes.len() > part.most.max(INTEGER_TEXT_MAX) => {
            put_long_string(out, bytes, from, part.most)
        }
        ValueRef::String(bytes) => {
            put_string(out, bytes, compress);
            None
        }
        ValueRef::List(list) => put_list(out, list, compress, from, end),
        ValueRef::Set(set) => put_set(out, set, compress, from, end),
        ValueRef::Hash(hash) => put_hash(out, hash, compress, from, end),
        ValueRef::SortedSet(zset) => put_sorted_set(out, zset, compress, from, end),
        ValueRef::Stream(stream) => return super::stream::put(out, stream, compress, part.from, end),
    };
    next.map(Position::at)
}

/// Marks of the two kinds of list nodes.
pub(super) const NODE_PLAIN: u64 = 1;
pub(super) const NODE_PACKED: u64 = 2;

/// Writes from the byte `from` on, `most` of them.
fn put_long_string(out: &mut Vec<u8>, bytes: &[u8], from: usize, most: usize) -> Option<usize> {
    if from == 0 {
        put_length(out, bytes.len() as u64);
    }
    let to = from.saturating_add(most).min(bytes.len());
    out.extend_from_slice(&bytes[from..to]);
    (to < bytes.len()).then_some(to)
}

// All of these write from the element or step `from` on, and end behind the one that brings them to `end` bytes.

fn put_list(out: &mut Vec<u8>, list: &List, compress: bool, from: usize, end: usize) -> Option<usize> {
    let nodes = list.nodes();
    if from == 0 {
        put_length(out, nodes.len() as u64);
    }
    let mut listpack = Vec::new();
    for (n, node) in nodes.enumerate().skip(from) {
        if n > from && out.len() >= end {
            return Some(n);
        }
        put_length(out, if node.is_plain() { NODE_PLAIN } else { NODE_PACKED });
        match node {
            list::Node::Plain(element) => put_string(out, element, compress),
            // Whatever `rdbcompression` says, as in Redis.
            list::Node::Compressed(block) => put_lzf(out, block.lzf(), block.bytes()),
            list::Node::Packed(block) => {
                listpack.clear();
                block.write_to(&mut listpack);
                put_string(out, &listpack, compress);
            }
        }
    }
    None
}

fn put_set(out: &mut Vec<u8>, set: &Set, compress: bool, from: usize, end: usize) -> Option<usize> {
    if let Some(Packed::IntSet(ints)) = set.packed() {
        put_string(out, ints.as_bytes(), compress);
        return None;
    }
    let mut at = from;
    if at == 0 {
        put_length(out, set.len() as u64);
    }
    loop {
        at = set.step(at, |member| put_item(out, member, compress))?;
        if out.len() >= end {
            return Some(at);
        }
    }
}

fn put_hash(out: &mut Vec<u8>, hash: &Hash, compress: bool, from: usize, end: usize) -> Option<usize> {
    if let Some(pairs) = hash.packed() {
        put_string(out, &pairs.to_listpack(), compress);
        return None;
    }
    let mut at = from;
    let first = hash.next_time();
    if at == 0 {
        if let Some(first) = first {
            out.extend_from_slice(&first.to_le_bytes());
            if let Some(triples) = hash.timed().and_then(Timed::packed) {
                put_string(out, &triples.to_listpack(), compress);
                return None;
            }
        }
        put_length(out, hash.len() as u64);
    }
    loop {
        at = hash.step(at, |field, value, time| {
            if let Some(first) = first {
                // Counted from the first one on; 0 for a field that stays.
                put_length(out, time.map_or(0, |time| (time - first) as u64 + 1));
            }
            put_item(out, field, compress);
            put_item(out, value, compress);
        })?;
        if out.len() >= end {
            return Some(at);
        }
    }
}

/// From the highest score down, as Redis does: its loader then always inserts at the head.
fn put_sorted_set(
    out: &mut Vec<u8>,
    zset: &SortedSet,
    compress: bool,
    from: usize,
    end: usize,
) -> Option<usize> {
    if let Some(pairs) = zset.packed() {
        put_string(out, &pairs.to_listpack(), compress);
        return None;
    }
    if from == 0 {
        put_length(out, zset.len() as u64);
    }
    for (n, (member, score)) in zset.range(0..zset.len() - from).rev().enumerate() {
        if n > 0 && out.len() >= end {
            return Some(from + n);
        }
        put_item(out, member, compress);
        out.extend_from_slice(&score.to_le_bytes());
    }
    None
}

pub(super) fn put_item(out: &mut Vec<u8>, item: Item<'_>, compress: bool) {
    match item {
        Item::Bytes(bytes) => put_string(out, bytes, compress),
        Item::Int(n) => put_integer(out, n),
    }
}
