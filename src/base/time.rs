//! Time as numbers. Code that depends on the time is given it as an argument; only `server` reads clocks.

/// Milliseconds since the Unix epoch (wall clock): expiry times, file times.
pub type UnixMs = i64;

/// Milliseconds of a monotonic clock with an arbitrary origin: timeouts, timers, state machines.
pub type MonoMs = u64;
