//! Passing over a value without making it: what cuts a file into pieces must know where each ends.

use std::io::Read;

use crate::persist::rdb::error::{Problem, Result};
use crate::persist::rdb::source::Source;
use crate::persist::rdb::value_type;

/// Elements above which a value counts as large, and bytes of a string or packed block.
const MANY: u64 = 1 << 14;
const LONG: u64 = 1 << 20;

/// Whether the value of type `code` that comes next is so large that it should not be held twice.
pub(in crate::persist::rdb) fn is_large<R: Read>(source: &mut Source<R>, code: u8) -> Result<bool> {
    let (ahead, most) = match code {
        value_type::LIST
        | value_type::SET
        | value_type::ZSET
        | value_type::ZSET_2
        | value_type::HASH
        | value_type::HASH_METADATA_PRE_GA => (0, MANY),
        value_type::HASH_METADATA => (8, MANY),
        // Each node holds many.
        value_type::LIST_QUICKLIST
        | value_type::LIST_QUICKLIST_2
        | value_type::STREAM_LISTPACKS
        | value_type::STREAM_LISTPACKS_2
        | value_type::STREAM_LISTPACKS_3 => (0, MANY / 64),
        value_type::HASH_LISTPACK_EX => (8, LONG),
        _ => (0, LONG),
    };
    Ok(source.peek_length(ahead)?.is_some_and(|count| count > most))
}

/// Takes the body of a value of type `code`.
pub(in crate::persist::rdb) fn skip<R: Read>(source: &mut Source<R>, code: u8) -> Result<()> {
    match code {
        value_type::LIST | value_type::LIST_QUICKLIST | value_type::SET => strings(source, 1),
        value_type::HASH => strings(source, 2),
        value_type::LIST_QUICKLIST_2 => {
            for _ in 0..source.length(COUNT)? {
                source.length(COUNT)?;
                source.skip_string(STRING)?;
            }
            Ok(())
        }
        value_type::ZSET => {
            for _ in 0..source.length(COUNT)? {
                source.skip_string(STRING)?;
                match source.u8(SCORE)? {
                    253.. => {}
                    len => source.skip(u64::from(len), SCORE)?,
                }
            }
            Ok(())
        }
        value_type::ZSET_2 => {
            for _ in 0..source.length(COUNT)? {
                source.skip_string(STRING)?;
                source.skip(8, SCORE)?;
            }
            Ok(())
        }
        value_type::HASH_METADATA | value_type::HASH_METADATA_PRE_GA => {
            if code == value_type::HASH_METADATA {
                source.skip(8, TIME)?;
            }
            for _ in 0..source.length(COUNT)? {
                source.length(TIME)?;
                source.skip_string(STRING)?;
                source.skip_string(STRING)?;
            }
            Ok(())
        }
        value_type::HASH_LISTPACK_EX => {
            source.skip(8, TIME)?;
            source.skip_string(STRING)
        }
        value_type::STREAM_LISTPACKS | value_type::STREAM_LISTPACKS_2 | value_type::STREAM_LISTPACKS_3 => {
            stream(source, code)
        }
        value_type::STRING
        | value_type::HASH_ZIPMAP
        | value_type::LIST_ZIPLIST
        | value_type::SET_INTSET
        | value_type::ZSET_ZIPLIST
        | value_type::HASH_ZIPLIST
        | value_type::HASH_LISTPACK
        | value_type::ZSET_LISTPACK
        | value_type::SET_LISTPACK
        | value_type::HASH_LISTPACK_EX_PRE_GA => source.skip_string(STRING),
        _ => Err(source.error(Problem::UnknownType(code))),
    }
}

// Errors here are told by whoever reads the piece.
const COUNT: &str = "a count";
const STRING: &str = "a string";
const SCORE: &str = "a score";
const TIME: &str = "a time";
const ID: &str = "an id";

/// A count, and so many times `each` strings.
fn strings<R: Read>(source: &mut Source<R>, each: u64) -> Result<()> {
    for _ in 0..source.length(COUNT)? {
        for _ in 0..each {
            source.skip_string(STRING)?;
        }
    }
    Ok(())
}

fn lengths<R: Read>(source: &mut Source<R>, count: usize) -> Result<()> {
    (0..count).try_for_each(|_| source.length(ID).map(drop))
}

/// See `stream`, which reads it.
fn stream<R: Read>(source: &mut Source<R>, code: u8) -> Result<()> {
    strings(source, 2)?;
    let counted = code > value_type::STREAM_LISTPACKS;
    lengths(source, if counted { 8 } else { 3 })?;
    for _ in 0..source.length(COUNT)? {
        source.skip_string(STRING)?;
        lengths(source, if counted { 3 } else { 2 })?;
        for _ in 0..source.length(COUNT)? {
            source.skip(16 + 8, ID)?;
            source.length(COUNT)?;
        }
        for _ in 0..source.length(COUNT)? {
            source.skip_string(STRING)?;
            source.skip(if code >= value_type::STREAM_LISTPACKS_3 { 16 } else { 8 }, TIME)?;
            for _ in 0..source.length(COUNT)? {
                source.skip(16, ID)?;
            }
        }
    }
    Ok(())
}
