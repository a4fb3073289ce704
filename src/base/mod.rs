//! Level 0: time types, seeded random numbers, glob patterns, number text, checksums.

pub mod crc16;
pub mod glob;
pub mod long_double;
pub mod num;
pub mod rng;
pub mod time;
pub mod version;
