//! Which deletions replicas are told as UNLINK, and which as DEL: the `lazyfree-lazy-*` directives. Here
//! large values are freed in the background in any case; a Redis that reads the stream is told what to do.

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
    /// A command left nothing of it.
    Server,
}

/// The causes whose deletions are told as UNLINK.
#[derive(Debug, Default)]
pub struct Lazy(AtomicU8);

impl Lazy {
    /// Sets for each cause whether its deletions are lazy.
    pub fn configure(&self, causes: &[(Cause, bool)]) {
        let bits =
            causes.iter().filter(|(_, lazy)| *lazy).fold(0, |bits, (cause, _)| bits | 1 << *cause as u8);
        self.0.store(bits, Ordering::Relaxed);
    }

    /// The command that replicas are sent for a deletion.
    pub fn command(&self, cause: Cause) -> &'static [u8] {
        if self.0.load(Ordering::Relaxed) >> (cause as u8) & 1 == 1 { b"UNLINK" } else { b"DEL" }
    }
}
