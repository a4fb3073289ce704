//! Events of keys on their way to those who subscribe to them, and stale keys to those who track them.

use super::{Executor, Host};

impl Executor {
    /// Hands over events in the order in which they came about. To be called under the locks of their keys, so that
    /// the events of one key leave in the order of its changes.
    #[inline(always)]
    pub(super) fn publish_notices(&mut self, host: &mut dyn Host) {
        if self.effects.has_news() {
            self.hand_over(host);
        }
    }

    #[cold]
    fn hand_over(&mut self, host: &mut dyn Host) {
        for notice in self.effects.notices.drain(..) {
            host.notify(&notice);
        }
        let flushed = std::mem::take(&mut self.effects.flushed);
        if flushed || !self.effects.stale.is_empty() {
            host.invalidate(&self.effects.stale, flushed, self.effects.writer);
            self.effects.stale.clear();
        }
    }
}
