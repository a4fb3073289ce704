//! Ids of stream entries.

use crate::base::num::parse_u64;

/// `ms-seq`. Ordered by time, then by sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The part before the dash: usually milliseconds since 1970.
    pub ms: u64,
    /// The part behind the dash: counts entries of the same `ms`.
    pub seq: u64,
}

impl StreamId {
    /// 0-0, which no entry can have.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The id after which nothing can be added.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The id `ms-seq`.
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The next id, `None` after the greatest.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The id before this, `None` before 0-0.
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// Parses `ms-seq` or `ms`, for which the sequence number is `default_seq`.
    pub fn parse(text: &[u8], default_seq: u64) -> Option<Self> {
        match memchr::memchr(b'-', text) {
            Some(dash) => Some(Self { ms: parse_u64(&text[..dash])?, seq: parse_u64(&text[dash + 1..])? }),
            None => Some(Self { ms: parse_u64(text)?, seq: default_seq }),
        }
    }

    /// The sixteen bytes under which a file stores the id: both numbers big endian.
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.ms) << 64) | u128::from(self.seq)).to_be_bytes()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gives.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let n = u128::from_be_bytes(bytes);
        Self { ms: (n >> 64) as u64, seq: n as u64 }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}
