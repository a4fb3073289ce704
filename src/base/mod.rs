//! Level 0: time types, seeded random numbers, glob patterns, number text, checksums, levels of log lines, and what is
//! known of processor and allocator.

pub mod collation;
pub mod crc16;
pub mod geohash;
pub mod glob;
pub mod hex;
pub mod log;
pub mod long_double;
pub mod lossless;
pub mod num;
pub mod prefetch;
pub mod rng;
pub mod size_class;
pub mod time;
pub mod version;
