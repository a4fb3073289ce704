//! CLIENT PAUSE: commands wait until a time.

use std::sync::Arc;

use crate::base::time::MonoMs;
use crate::command::gate;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;

/// What is paused until when.
#[derive(Debug, Default)]
pub struct Pause {
    until: MonoMs,
    all: bool,
    active: bool,
}

impl Node {
    /// Pauses clients' writes, or all their commands, for a while. A pause under way is never
    /// shortened or weakened.
    pub fn pause_clients(&self, for_ms: u64, all: bool) {
        let mut pause = self.pause.lock();
        let until = self.mono_ms().saturating_add(for_ms);
        if pause.active {
            pause.until = pause.until.max(until);
            pause.all |= all;
        } else {
            *pause = Pause { until, all, active: true };
        }
        let bit = if pause.all { gate::PAUSED_ALL } else { gate::PAUSED_WRITES };
        self.shared.set_gate(bit, true);
    }

    /// CLIENT UNPAUSE: also when the time is over.
    pub fn unpause_clients(&self) {
        let mut pause = self.pause.lock();
        pause.active = false;
        self.shared.set_gate(gate::PAUSED_ALL | gate::PAUSED_WRITES, false);
        drop(pause);
        self.send_all(|| Mail::Unpaused);
    }

    /// Ends a pause whose time has come.
    pub fn end_pause_in_time(self: &Arc<Self>) {
        let pause = self.pause.lock();
        let over = pause.active && self.mono_ms() >= pause.until;
        drop(pause);
        if over {
            self.unpause_clients();
        }
    }
}
