//! Level 1: the packed byte encodings that values keep in memory and that RDB files carry.
//!
//! Facts: the listpack specification (antirez/listpack) and the RDB files of Redis.

pub mod entry;
pub mod framed;
pub mod intset;
pub mod item;
pub mod listpack;
pub mod lzf;
pub mod ziplist;

pub use intset::IntSet;
pub use item::Item;
pub use listpack::{Dense, Listpack};

/// Bytes from outside that are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);
