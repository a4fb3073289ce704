//! What can be wrong with an RDB file or a DUMP payload. Every error says where, in which key, and what
//! was expected there.

use std::{fmt, io};

/// A failure to read RDB data.
#[derive(Debug)]
pub struct Error {
    /// Bytes from the beginning of the file or payload to where reading stopped.
    pub offset: u64,
    /// The key whose value was being read.
    pub key: Option<Vec<u8>>,
    /// What went wrong there.
    pub problem: Problem,
}

/// The kinds of failure, so that callers can tell a damaged file from one that is only too new.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file or stream could not be read.
    #[error("{0}")]
    Io(io::Error),
    /// What the end of the data cut off.
    #[error("expected {0}, found the end of the data")]
    Truncated(&'static str),
    /// Something else stands where a part of the format must be.
    #[error("expected {expected}, found {found}")]
    #[expect(missing_docs, reason = "the text of the error tells")]
    Unexpected { expected: &'static str, found: String },
    /// A part that contradicts itself.
    #[error("expected {expected}: {why}")]
    #[expect(missing_docs, reason = "the text of the error tells")]
    Malformed { expected: &'static str, why: &'static str },
    /// Number of the value type.
    #[error("value type {0} is not known to this version")]
    UnknownType(u8),
    /// Name of the module, as far as the type's id tells it.
    #[error("a value of the module '{0}', which is not available here")]
    Module(String),
    /// Version of the file.
    #[error("RDB version {0} is newer than this server understands")]
    Version(u32),
    /// The checksum of the file or payload, and that of its bytes.
    #[error("RDB CRC error: expected {expected:016x}, the data gives {computed:016x}")]
    #[expect(missing_docs, reason = "told above")]
    Checksum { expected: u64, computed: u64 },
    /// A collection without elements. Files of old servers hold such keys; they are skipped, not fatal.
    #[error("a collection without elements")]
    Empty,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.offset)?;
        if let Some(key) = &self.key {
            // A hostile key must not fill the log.
            let shown = &key[..key.len().min(128)];
            write!(f, ", key '{}'", shown.escape_ascii())?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Error {}

/// What reading RDB data gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
