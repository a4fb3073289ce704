//! Level 4: what leaves the process and comes back: the RDB codec.
//!
//! Nothing here opens a file or a socket; callers bring a `Read` or a `Write`.

pub mod rdb;
