//! The append-only file: a folder with a base, the commands since, and a manifest that names them.
//!
//! | file | concept |
//! |---|---|
//! | [`manifest`] | which files there are, and in which order they are read |
//! | [`stream`] | commands and annotations, one after the other |
//! | [`encode`] | a value as the commands that make it: a base without RDB |
//!
//! Source: the description of the multi-part AOF in Redis's documentation ("Redis persistence"), checked against
//! folders that redis-server 7.0.15 and 7.4.1 wrote.

pub mod encode;
pub mod manifest;
pub mod stream;

pub use manifest::Manifest;

/// The line that tells when the commands behind it were written.
pub fn timestamp(unix_s: i64) -> String {
    format!("#TS:{unix_s}\r\n")
}
