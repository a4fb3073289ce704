//! Which deletions are lazy: UNLINK, and what the `lazyfree-lazy-*` directives name. Large values are freed in the
//! background in any case; a lazy deletion is counted (`lazyfreed_objects`), and told to replicas as UNLINK.

use std::sync::atomic::{AtomicU8, Ordering};

/// Why a key is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client asked for it by a command other than DEL or UNLINK.
    User,
    /// Its time had come.
    Expiry,
    /// Memory was needed.
    Eviction,
    /// A command left nothing of it, or put something else in its place.
    Server,
    /// A client asked for it by UNLINK.
    Unlink,
    /// FLUSHALL or FLUSHDB without ASYNC or SYNC.
    Flush,
}

/// The causes whose deletions are lazy.
#[derive(Debug, Default)]
pub struct Lazy(AtomicU8);

impl Lazy {
    /// Sets for each cause whether its deletions are lazy.
    pub fn configure(&self, causes: &[(Cause, bool)]) {
        let bits =
            causes.iter().filter(|(_, lazy)| *lazy).fold(0, |bits, (cause, _)| bits | 1 << *cause as u8);
        self.0.store(bits, Ordering::Relaxed);
    }

    /// Whether deletions of this cause are lazy.
    pub fn is_lazy(&self, cause: Cause) -> bool {
        cause == Cause::Unlink || self.0.load(Ordering::Relaxed) >> (cause as u8) & 1 == 1
    }

    /// The command that replicas are sent for a deletion.
    pub fn command(&self, cause: Cause) -> &'static [u8] {
        if self.is_lazy(cause) { b"UNLINK" } else { b"DEL" }
    }
}
