//! The body of a value on the way in, in every form since Redis 2.6.
//!
//! All of it may come from an attacker (RESTORE), so every packed block is checked in full, members must be
//! distinct, and a count only says how much to read, never how much to allocate.

mod module;
mod skip;
mod zipmap;

use std::io::Read;
use std::sync::Arc;

use super::encode::{NODE_PACKED, NODE_PLAIN};
use super::error::{Error, Problem, Result};
use super::source::Source;
use super::{stream, value_type};
use crate::encoding::listpack::Packed;
use crate::encoding::{IntSet, Malformed, ziplist};
use crate::value::timed::{self, Timed};
use crate::value::{Hash, Limits, List, Set, SortedSet, Value, sorted_set::Added};

pub(super) use module::skip_module_aux;
pub(super) use skip::{is_large, skip};

/// Room is made for at most this many elements before any of them arrives.
const TRUSTED_COUNT: u64 = 1 << 16;

/// Reads the body of a value of type `code`. A collection without elements is the problem [`Problem::Empty`],
/// with all its bytes taken.
pub(super) fn value<R: Read>(source: &mut Source<R>, code: u8, limits: &Limits) -> Result<Value> {
    Ok(match code {
        value_type::STRING => Value::String(Arc::new(source.string("the bytes of a string")?)),
        value_type::LIST
        | value_type::LIST_ZIPLIST
        | value_type::LIST_QUICKLIST
        | value_type::LIST_QUICKLIST_2 => {
            let list = list(source, code, limits)?;
            non_empty(source, list.is_empty())?;
            Value::List(Box::new(list))
        }
        value_type::SET | value_type::SET_INTSET | value_type::SET_LISTPACK => {
            let set = set(source, code, limits)?;
            non_empty(source, set.is_empty())?;
            Value::Set(set)
        }
        value_type::ZSET | value_type::ZSET_2 | value_type::ZSET_ZIPLIST | value_type::ZSET_LISTPACK => {
            let zset = sorted_set(source, code, limits)?;
            non_empty(source, zset.is_empty())?;
            Value::SortedSet(zset)
        }
        value_type::HASH | value_type::HASH_ZIPMAP | value_type::HASH_ZIPLIST | value_type::HASH_LISTPACK => {
            let hash = hash(source, code, limits)?;
            non_empty(source, hash.is_empty())?;
            Value::Hash(hash)
        }
        value_type::HASH_METADATA
        | value_type::HASH_METADATA_PRE_GA
        | value_type::HASH_LISTPACK_EX
        | value_type::HASH_LISTPACK_EX_PRE_GA => {
            let hash = timed_hash(source, code, limits)?;
            non_empty(source, hash.is_empty())?;
            Value::Hash(hash)
        }
        value_type::STREAM_LISTPACKS | value_type::STREAM_LISTPACKS_2 | value_type::STREAM_LISTPACKS_3 => {
            Value::Stream(Box::new(stream::read(source, code)?))
        }
        value_type::MODULE | value_type::MODULE_2 => {
            let module = module::name(source.length("the id of a module")?);
            return Err(source.error(Problem::Module(module)));
        }
        _ => return Err(source.error(Problem::UnknownType(code))),
    })
}

fn non_empty<R: Read>(source: &Source<R>, empty: bool) -> Result<()> {
    if empty { Err(source.error(Problem::Empty)) } else { Ok(()) }
}

fn list<R: Read>(source: &mut Source<R>, code: u8, limits: &Limits) -> Result<List> {
    let mut list = List::new();
    match code {
        value_type::LIST => {
            for _ in 0..source.length("the number of elements of a list")? {
                list.push_back(&source.string("an element of a list")?, limits);
            }
        }
        value_type::LIST_ZIPLIST => list.append_listpack(&ziplist(source, "the ziplist of a list")?, limits),
        value_type::LIST_QUICKLIST => {
            for _ in 0..source.length("the number of nodes of a list")? {
                list.append_listpack(&ziplist(source, "a ziplist of a list")?, limits);
            }
        }
        _ => {
            for _ in 0..source.length("the number of nodes of a list")? {
                match source.length("the kind of a list node")? {
                    NODE_PLAIN => list.push_back(&source.string("an element of a list")?, limits),
                    NODE_PACKED => list.append_listpack(&listpack(source, "a listpack of a list")?, limits),
                    kind => return source.unexpected("the kind of a list node (1 or 2)", kind),
                }
            }
        }
    }
    Ok(list)
}

fn set<R: Read>(source: &mut Source<R>, code: u8, limits: &Limits) -> Result<Set> {
    match code {
        value_type::SET => {
            let count = source.length("the number of members of a set")?;
            let mut set = Set::with_capacity(trusted(count), limits);
            for _ in 0..count {
                if !set.add(&source.string("a member of a set")?, limits) {
                    return source.malformed("the members of a set", TWICE);
                }
            }
            Ok(set)
        }
        value_type::SET_INTSET => {
            let bytes = source.string("the intset of a set")?;
            let ints =
                IntSet::from_bytes(&bytes).map_err(|bad| damaged(source, "the intset of a set", bad))?;
            Ok(Set::from_intset(ints, limits))
        }
        _ => {
            let members = listpack(source, "the listpack of a set")?;
            match Set::from_listpack(members, limits) {
                Some(set) => Ok(set),
                None => source.malformed("the listpack of a set", TWICE),
            }
        }
    }
}

fn hash<R: Read>(source: &mut Source<R>, code: u8, limits: &Limits) -> Result<Hash> {
    const PAIRS: &str = "a field occurs twice or has no value";
    let packed = match code {
        value_type::HASH => {
            let count = source.length("the number of fields of a hash")?;
            let mut hash = Hash::with_capacity(trusted(count), limits);
            for _ in 0..count {
                let field = source.string("a field of a hash")?;
                if !hash.set(&field, &source.string("the value of a field")?, limits) {
                    return source.malformed("the fields of a hash", TWICE);
                }
            }
            return Ok(hash);
        }
        value_type::HASH_ZIPMAP => {
            let bytes = source.string("the zipmap of a hash")?;
            zipmap::to_listpack(&bytes).map_err(|bad| damaged(source, "the zipmap of a hash", bad))?
        }
        value_type::HASH_ZIPLIST => ziplist(source, "the ziplist of a hash")?,
        _ => listpack(source, "the listpack of a hash")?,
    };
    match Hash::from_listpack(packed, limits) {
        Some(hash) => Ok(hash),
        None => source.malformed("the pairs of a hash", PAIRS),
    }
}

/// A hash with times of fields: 7.4 writes the first of the times in front, its release candidates did not.
fn timed_hash<R: Read>(source: &mut Source<R>, code: u8, limits: &Limits) -> Result<Hash> {
    const LATE: &str = "a time is out of range";
    let first = match code {
        value_type::HASH_METADATA | value_type::HASH_LISTPACK_EX => {
            Some(i64::from_le_bytes(source.array("the first time of a hash")?))
        }
        _ => None,
    };
    if matches!(code, value_type::HASH_LISTPACK_EX | value_type::HASH_LISTPACK_EX_PRE_GA) {
        let triples = listpack(source, "the listpack of a hash with times")?;
        return match Timed::from_listpack(triples, limits) {
            Some(timed) => Ok(Hash::from_timed(timed)),
            None => {
                source.malformed("the fields of a hash with times", "one occurs twice or has no sound time")
            }
        };
    }
    let count = source.length("the number of fields of a hash")?;
    let mut hash = Hash::with_capacity(trusted(count), limits);
    for _ in 0..count {
        let after = source.length("the time of a field")?;
        let field = source.string("a field of a hash")?;
        if !hash.set(&field, &source.string("the value of a field")?, limits) {
            return source.malformed("the fields of a hash", TWICE);
        }
        if after > 0 {
            let at =
                i64::try_from(after).ok().and_then(|n| n.checked_add(first.map_or(0, |first| first - 1)));
            let Some(at) = at.filter(|at| (0..=timed::LATEST).contains(at)) else {
                return source.malformed("the times of a hash", LATE);
            };
            hash.set_time(&field, Some(at), limits);
        }
    }
    Ok(hash)
}

fn sorted_set<R: Read>(source: &mut Source<R>, code: u8, limits: &Limits) -> Result<SortedSet> {
    let packed = match code {
        value_type::ZSET_ZIPLIST => ziplist(source, "the ziplist of a sorted set")?,
        value_type::ZSET_LISTPACK => listpack(source, "the listpack of a sorted set")?,
        _ => return plain_sorted_set(source, code, limits),
    };
    match SortedSet::from_listpack(packed, limits) {
        Some(zset) => Ok(zset),
        None => source.malformed(
            "the pairs of a sorted set",
            "a member occurs twice, a score is no number, or they are not in order",
        ),
    }
}

fn plain_sorted_set<R: Read>(source: &mut Source<R>, code: u8, limits: &Limits) -> Result<SortedSet> {
    let count = source.length("the number of members of a sorted set")?;
    let mut zset = SortedSet::with_capacity(trusted(count), limits);
    for _ in 0..count {
        let member = source.string("a member of a sorted set")?;
        let score = if code == value_type::ZSET {
            source.text_double("a score")?
        } else {
            f64::from_le_bytes(source.array("a score")?)
        };
        if score.is_nan() {
            return source.unexpected("a score", "not a number");
        }
        if zset.add(&member, score, limits) != Added::New {
            return source.malformed("the members of a sorted set", TWICE);
        }
    }
    Ok(zset)
}

const TWICE: &str = "one occurs twice";

fn trusted(count: u64) -> usize {
    count.min(TRUSTED_COUNT) as usize
}

pub(super) fn listpack<R: Read, const BACK: bool>(
    source: &mut Source<R>,
    what: &'static str,
) -> Result<Packed<BACK>> {
    let bytes = source.string(what)?;
    Packed::from_listpack(&bytes).map_err(|bad| damaged(source, what, bad))
}

fn ziplist<R: Read, const BACK: bool>(source: &mut Source<R>, what: &'static str) -> Result<Packed<BACK>> {
    let bytes = source.string(what)?;
    ziplist::to_listpack(&bytes).map_err(|bad| damaged(source, what, bad))
}

fn damaged<R: Read>(source: &Source<R>, expected: &'static str, _: Malformed) -> Error {
    source.error(Problem::Malformed { expected, why: "its bytes are damaged" })
}
