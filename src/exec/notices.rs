//! Publishes what happened to keys: events to their subscribers, invalidations to the clients that track keys.

use super::{Executor, Host};

impl Executor {
    /// Publishes events in the order in which they happened. To be called under the locks of their keys, so that the
    /// events of one key leave in the order of its changes. A client that tracks by prefix (BCAST) is told of each
    /// key once a transaction or script, at its end (`is_part`: more of it follows).
    #[inline(always)]
    pub(super) fn publish_notices(&mut self, host: &mut dyn Host, is_part: bool) {
        if self.effects.has_news() {
            self.hand_over(host, is_part);
        }
    }

    #[cold]
    fn hand_over(&mut self, host: &mut dyn Host, is_part: bool) {
        for notice in self.effects.notices.drain(..) {
            host.notify(&notice);
        }
        let flushed = std::mem::take(&mut self.effects.flushed);
        if flushed || !self.effects.stale.is_empty() {
            host.invalidate(&self.effects.stale, flushed, self.effects.writer);
            self.effects.stale.clear();
        }
        // A client that was blocked on a key, and is served next, may change it once more.
        if !is_part && self.effects.ready.is_empty() && !self.effects.broadcast.is_empty() {
            host.broadcast(&self.effects.broadcast);
            self.effects.broadcast.clear();
        }
    }
}
