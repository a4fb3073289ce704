//! What DEBUG stops of a node, so that tests see it without.

use std::sync::atomic::{AtomicBool, AtomicU64};

/// Nothing, at the start.
#[derive(Debug, Default)]
pub struct Stopped {
    /// DEBUG SET-ACTIVE-EXPIRE 0: dead keys are not deleted in the background.
    pub expiry: AtomicBool,
    /// DEBUG PAUSE-CRON: what happens by the clock alone does not happen.
    pub cron: AtomicBool,
    /// Until when DEBUG SLEEP has stopped everything, in milliseconds on the node's monotonic clock.
    pub until_ms: AtomicU64,
}
