//! The categories of commands, as bits.

#![expect(missing_docs, reason = "the categories of the documentation, \"Access Control List\"")]

/// A set of categories.
pub type Categories = u32;

pub const KEYSPACE: Categories = 1 << 0;
pub const READ: Categories = 1 << 1;
pub const WRITE: Categories = 1 << 2;
pub const SET: Categories = 1 << 3;
pub const SORTED_SET: Categories = 1 << 4;
pub const LIST: Categories = 1 << 5;
pub const HASH: Categories = 1 << 6;
pub const STRING: Categories = 1 << 7;
pub const BITMAP: Categories = 1 << 8;
pub const HYPERLOGLOG: Categories = 1 << 9;
pub const GEO: Categories = 1 << 10;
pub const STREAM: Categories = 1 << 11;
pub const PUBSUB: Categories = 1 << 12;
pub const ADMIN: Categories = 1 << 13;
pub const FAST: Categories = 1 << 14;
pub const SLOW: Categories = 1 << 15;
pub const BLOCKING: Categories = 1 << 16;
pub const DANGEROUS: Categories = 1 << 17;
pub const CONNECTION: Categories = 1 << 18;
pub const TRANSACTION: Categories = 1 << 19;
pub const SCRIPTING: Categories = 1 << 20;

/// Every category with its name, in the order in which ACL CAT and COMMAND name them.
pub const NAMES: [(Categories, &str); 21] = [
    (KEYSPACE, "keyspace"),
    (READ, "read"),
    (WRITE, "write"),
    (SET, "set"),
    (SORTED_SET, "sortedset"),
    (LIST, "list"),
    (HASH, "hash"),
    (STRING, "string"),
    (BITMAP, "bitmap"),
    (HYPERLOGLOG, "hyperloglog"),
    (GEO, "geo"),
    (STREAM, "stream"),
    (PUBSUB, "pubsub"),
    (ADMIN, "admin"),
    (FAST, "fast"),
    (SLOW, "slow"),
    (BLOCKING, "blocking"),
    (DANGEROUS, "dangerous"),
    (CONNECTION, "connection"),
    (TRANSACTION, "transaction"),
    (SCRIPTING, "scripting"),
];

/// The category called `name`, in any case of letters.
pub fn find(name: &[u8]) -> Option<Categories> {
    NAMES.iter().find(|(_, known)| name.eq_ignore_ascii_case(known.as_bytes())).map(|(bit, _)| *bit)
}

/// The names of a set, in order.
pub fn names(set: Categories) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(bit, _)| set & bit != 0).map(|(_, name)| *name)
}
