//! Level 4: what leaves the process and comes back: RDB, and the parts of an append-only file.
//!
//! Nothing here opens a file or a socket; callers bring a `Read` or a `Write`.

pub mod aof;
pub mod rdb;
