//! What the outside tests share: servers that they start, a client that hides nothing, a proxy that
//! breaks links.
//!
//! The server under test is the crate's own binary; with `KEYSTEAD_SERVER=/usr/bin/redis-server` the
//! same tests run against a real Redis, which is how every expectation in them was first proved.
#![allow(dead_code)] // each test binary uses its own part

pub mod client;
pub mod proxy;
pub mod server;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an ordinary condition may take before a test fails. Generous: machines of CI are slow.
pub const SOON: Duration = Duration::from_secs(20);

/// Tests that start many processes or keep a core busy take this, so that they do not run beside
/// each other and turn each other's deadlines into noise.
pub fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polls `condition` until it holds; panics with `what` once `deadline` has passed.
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
