//! Level 2: the values a key can hold, each with its compact and its full encoding.
//!
//! The keyspace stores short strings inline and never as a [`Value`]; everything else is one of these.

use std::sync::Arc;

pub mod bits;
pub mod digest;
mod distinct;
mod form;
pub mod hash;
pub mod hyperloglog;
pub mod list;
mod record;
mod segments;
pub mod set;
pub mod sorted_set;
pub mod stream;
mod table;
pub mod timed;

pub use hash::Hash;
pub use list::List;
pub use set::Set;
pub use sorted_set::SortedSet;
pub use stream::{Stream, StreamId};
pub use table::Stage;

/// A value on its way into the keyspace or out of it. There it is the body of an entry, unless it is a short string.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the types as TYPE names them")]
pub enum Value {
    /// Shared, so that a reply can be sent without a copy; a writer clones only while one is under way.
    String(Arc<Vec<u8>>),
    List(Box<List>),
    Set(Set),
    Hash(Hash),
    SortedSet(SortedSet),
    Stream(Box<Stream>),
}

impl Value {
    /// The value, for reading.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::String(s) => ValueRef::String(s),
            Value::List(v) => ValueRef::List(v),
            Value::Set(v) => ValueRef::Set(v),
            Value::Hash(v) => ValueRef::Hash(v),
            Value::SortedSet(v) => ValueRef::SortedSet(v),
            Value::Stream(v) => ValueRef::Stream(v),
        }
    }

    /// The type as commands see it.
    pub fn kind(&self) -> Kind {
        self.as_ref().kind()
    }
}

/// What a writer of the keyspace changes in place.
#[derive(Debug)]
#[expect(missing_docs, reason = "the types as TYPE names them")]
pub enum ValueMut<'a> {
    String(&'a mut Arc<Vec<u8>>),
    List(&'a mut List),
    Set(&'a mut Set),
    Hash(&'a mut Hash),
    SortedSet(&'a mut SortedSet),
    Stream(&'a mut Stream),
}

/// What a reader of the keyspace sees.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the types as TYPE names them")]
pub enum ValueRef<'a> {
    String(&'a [u8]),
    List(&'a List),
    Set(&'a Set),
    Hash(&'a Hash),
    SortedSet(&'a SortedSet),
    Stream(&'a Stream),
}

impl ValueRef<'_> {
    /// A copy.
    pub fn to_owned(&self) -> Value {
        match *self {
            ValueRef::String(s) => Value::String(Arc::new(s.to_vec())),
            ValueRef::List(v) => Value::List(Box::new(v.clone())),
            ValueRef::Set(v) => Value::Set(v.clone()),
            ValueRef::Hash(v) => Value::Hash(v.clone()),
            ValueRef::SortedSet(v) => Value::SortedSet(v.clone()),
            ValueRef::Stream(v) => Value::Stream(Box::new(v.clone())),
        }
    }

    /// The type as commands see it.
    pub fn kind(&self) -> Kind {
        match self {
            ValueRef::String(_) => Kind::String,
            ValueRef::List(_) => Kind::List,
            ValueRef::Set(_) => Kind::Set,
            ValueRef::Hash(_) => Kind::Hash,
            ValueRef::SortedSet(_) => Kind::SortedSet,
            ValueRef::Stream(_) => Kind::Stream,
        }
    }

    /// What OBJECT ENCODING says. For a string it is the encoding that its bytes allow; the entry knows whether it is
    /// `raw`.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            ValueRef::String(s) if s.len() <= 20 && crate::base::num::parse_i64(s).is_some() => "int",
            ValueRef::String(s) if s.len() <= 44 => "embstr",
            ValueRef::String(_) => "raw",
            ValueRef::List(v) => v.encoding_name(),
            ValueRef::Set(v) => v.encoding_name(),
            ValueRef::Hash(v) => v.encoding_name(),
            ValueRef::SortedSet(v) => v.encoding_name(),
            ValueRef::Stream(v) => v.encoding_name(),
        }
    }

    /// Begins to fetch the memory that an operation on a member or field will touch; see [`Set::prefetch`].
    #[inline]
    pub fn prefetch(&self, member: &[u8], stage: Stage) -> bool {
        match self {
            ValueRef::Set(v) => v.prefetch(member, stage),
            ValueRef::Hash(v) => v.prefetch(member, stage),
            ValueRef::SortedSet(v) => v.prefetch(member, stage),
            ValueRef::String(_) | ValueRef::List(_) | ValueRef::Stream(_) => false,
        }
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        match self {
            ValueRef::String(s) => s.len(),
            ValueRef::List(v) => size_of::<List>() + v.memory_bytes(),
            ValueRef::Set(v) => v.memory_bytes(),
            ValueRef::Hash(v) => v.memory_bytes(),
            ValueRef::SortedSet(v) => v.memory_bytes(),
            ValueRef::Stream(v) => size_of::<Stream>() + v.memory_bytes(),
        }
    }
}

/// The type of a value as TYPE and SCAN name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types as TYPE names them")]
pub enum Kind {
    String,
    List,
    Set,
    Hash,
    SortedSet,
    Stream,
}

impl Kind {
    /// The kind that is this number as an integer.
    #[inline]
    pub(crate) const fn numbered(n: u16) -> Self {
        match n {
            0 => Self::String,
            1 => Self::List,
            2 => Self::Set,
            3 => Self::Hash,
            4 => Self::SortedSet,
            _ => Self::Stream,
        }
    }

    /// As TYPE shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::SortedSet => "zset",
            Kind::Stream => "stream",
        }
    }
}

/// Thresholds at which a compact encoding becomes a full one, and what else limits values. The fields are the
/// directives of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fields of a hash that is a listpack.
    pub hash_max_listpack_entries: usize,
    /// Bytes of the longest field or value of such a hash.
    pub hash_max_listpack_value: usize,
    /// Positive: entries a node; -1 to -5: 4, 8, 16, 32, 64 KiB a node.
    pub list_max_listpack_size: i32,
    /// Bytes of a list's element that is a node by itself. No directive: DEBUG sets it.
    pub list_packed_threshold: usize,
    /// Blocks at either end of a list that are never compressed; 0: none is compressed.
    pub list_compress_depth: usize,
    /// Members of a set that is an intset.
    pub set_max_intset_entries: usize,
    /// Members of a set that is a listpack.
    pub set_max_listpack_entries: usize,
    /// Bytes of the longest member of such a set.
    pub set_max_listpack_value: usize,
    /// Members of a sorted set that is a listpack.
    pub zset_max_listpack_entries: usize,
    /// Bytes of the longest member of such a sorted set.
    pub zset_max_listpack_value: usize,
    /// Bytes of a stream's node; 0: no limit.
    pub stream_node_max_bytes: usize,
    /// Entries of a stream's node; 0: no limit.
    pub stream_node_max_entries: u64,
    /// Bytes of a HyperLogLog in the sparse form.
    pub hll_sparse_max_bytes: usize,
    /// Payloads hold long strings compressed: `rdbcompression`.
    pub compress_payloads: bool,
    /// Compare the checksums of files and payloads. No directive: DEBUG clears it.
    pub verify_checksums: bool,
    /// The longest string that a command may build: `proto-max-bulk-len`.
    pub max_string: usize,
    /// How SORT ALPHA compares: `locale-collate`.
    pub collation: crate::base::collation::Collation,
    /// Seeds the hash tables of large collections, so that clients cannot choose colliding members.
    /// No directive: a server draws it once when it starts.
    pub hash_seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 128,
            hash_max_listpack_value: 64,
            list_max_listpack_size: -2,
            list_packed_threshold: usize::MAX,
            list_compress_depth: 0,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
            hll_sparse_max_bytes: 3000,
            compress_payloads: true,
            verify_checksums: true,
            max_string: 512 << 20,
            collation: crate::base::collation::Collation::default(),
            hash_seed: 0,
        }
    }
}

impl ValueRef<'_> {
    /// Whether Redis would free this in the background where a deletion is lazy. It goes by the number of
    /// allocations, counted for each type in its own way: nodes of a list, elements of a table, about two tree nodes
    /// for each listpack of a stream. A packed value is one allocation.
    pub fn is_freed_lazily(&self) -> bool {
        let pieces = match self {
            ValueRef::String(_) => 1,
            ValueRef::List(v) => v.nodes().len(),
            ValueRef::Set(v) if v.encoding_name() == "hashtable" => v.len(),
            ValueRef::Hash(v) if v.encoding_name() == "hashtable" => v.len(),
            ValueRef::SortedSet(v) if v.encoding_name() == "skiplist" => v.len(),
            ValueRef::Set(_) | ValueRef::Hash(_) | ValueRef::SortedSet(_) => 1,
            ValueRef::Stream(v) => {
                let pending = v.groups.values().next().map_or(0, |group| group.pending().len());
                2 * v.nodes().len() + v.groups.len() * (1 + pending)
            }
        };
        pieces > LAZY_PIECES
    }

    /// Whether dropping this takes so long that it is done on another thread.
    pub fn is_heavy(&self) -> bool {
        match self {
            ValueRef::String(s) => s.len() > 1 << 20,
            ValueRef::List(v) => v.len() > MANY,
            ValueRef::Set(v) => v.len() > MANY,
            ValueRef::Hash(v) => v.len() > MANY,
            ValueRef::SortedSet(v) => v.len() > MANY,
            ValueRef::Stream(v) => v.len() > MANY as u64,
        }
    }
}

/// Redis frees up to so many pieces at once.
const LAZY_PIECES: usize = 64;

/// Elements that take about as long to free as handing them over.
const MANY: usize = 4096;
