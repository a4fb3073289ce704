//! What the outside tests share: servers that they start, a client that hides nothing, a proxy that
//! breaks links.
//!
//! The server under test is the crate's own binary; with `KEYSTEAD_SERVER=/usr/bin/redis-server` the
//! same tests run against a real Redis, which is how every expectation in them was first proved.
#![allow(dead_code)] // each test binary uses its own part

pub mod client;
pub mod proxy;
pub mod server;
pub mod witness;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How long an ordinary condition may take before a test fails. Generous: machines of CI are slow.
pub const SOON: Duration = Duration::from_secs(20);

static MACHINE: RwLock<()> = RwLock::new(());

/// Tests that measure time or keep a core busy take this, so that they do not run beside each other or
/// beside [`light`] ones and turn each other's deadlines into noise.
pub fn heavy() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Tests that start many processes and mostly wait for them: side by side, but not beside a [`heavy`] one.
pub fn light() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Between two looks at a condition: soon first, then less often, so that looking costs the servers
/// little on a small machine.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_LAST: Duration = Duration::from_millis(80);

/// Polls `condition` until it holds; panics with `what` once `deadline` has passed.
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut pause = LOOK_FIRST;
    while !condition() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::park_timeout(pause);
        pause = (pause * 5 / 4).min(LOOK_LAST);
    }
}
