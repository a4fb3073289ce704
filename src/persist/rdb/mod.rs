//! The RDB codec: one for SAVE, BGSAVE, loading, DUMP and RESTORE, and full synchronisation.
//!
//! A file is a header (`REDIS` and four digits of version), a sequence of records, an end mark and a checksum.
//! A record is an opcode with its arguments, or a value type followed by a key and the value's body.
//!
//! | file | concept |
//! |---|---|
//! | `source` | bytes that come in: lengths, strings, offset, running checksum |
//! | `sink` | the same primitives on the way out |
//! | `checksum`, `error` | CRC-64; where a file is damaged, and what was expected there |
//! | `encode`, `decode`, `stream` | the body of a value |
//! | `writer`, `reader` | a file as a whole |
//! | `pieces` | a file cut into pieces, for threads that load side by side |
//! | [`payload`] | what DUMP returns and RESTORE takes |
//! | [`functions`] | the same for libraries of functions |
//!
//! What is written is the oldest form that holds the data, so that a Redis 7.0 can load it (version 10).
//! What is read reaches up to version 12, the one of Redis 7.4.
//! Source: the format as Redis 7.2 and earlier write it, checked against files of redis-server 7.0.15.

pub mod checksum;
mod decode;
mod encode;
mod error;
pub mod functions;
pub mod payload;
mod pieces;
mod reader;
mod sink;
mod source;
mod stream;
mod writer;

pub use encode::{Meta, Options, encode_entry, encode_part};
pub use error::{Error, Problem, Result};
pub use pieces::{Fragment, Piece, Range};
pub use reader::{Entry, Reader, Record};
pub use writer::{Preamble, ReplicationInfo, Writer};

/// The version that is written: Redis 7.0's.
pub const VERSION_WRITTEN: u32 = 10;
/// The version that is written where fields of hashes have times, which no earlier one knows: Redis 7.4's.
pub const VERSION_WITH_TIMES: u32 = 12;
/// The newest version that is read: Redis 7.4's.
pub const VERSION_READ: u32 = 12;
/// The version in the header of files that Valkey writes since 9.0, whose value types are a superset.
pub const VERSION_VALKEY: u32 = 80;

/// What can stand where a record begins, apart from a value type.
mod opcode {
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION2: u8 = 245;
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE_DB: u8 = 251;
    pub const EXPIRE_MS: u8 = 252;
    pub const EXPIRE_S: u8 = 253;
    pub const SELECT_DB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// How a value's body is laid out. Some are only read: newer servers write another form.
mod value_type {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_2: u8 = 5;
    pub const MODULE: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM_LISTPACKS: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_LISTPACKS_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_LISTPACKS_3: u8 = 21;
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    pub const HASH_METADATA: u8 = 24;
    pub const HASH_LISTPACK_EX: u8 = 25;
}

#[cfg(test)]
mod tests;
