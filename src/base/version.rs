//! Versions as users see them.

/// Our own version.
pub const KEYSTEAD: &str = env!("CARGO_PKG_VERSION");

/// The level of Redis that clients may rely on, shown as `redis_version`.
pub const REDIS: &str = "7.4.1";
