//! Pauses: clients' commands wait until a time. Several purposes may pause at once; each ends on its own.

use std::sync::Arc;

use crate::base::time::MonoMs;
use crate::command::gate;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;

/// Who pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// CLIENT PAUSE.
    Command,
    /// The end of the node, which waits for its replicas.
    Shutdown,
    /// A primary that hands over: FAILOVER, or CLUSTER FAILOVER of its replica.
    Failover,
}

/// What is paused until when, by purpose.
#[derive(Debug, Default)]
pub struct Pauses([Option<Pause>; 3]);

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: MonoMs,
    all: bool,
}

impl Pauses {
    fn active(&self) -> impl Iterator<Item = &Pause> {
        self.0.iter().flatten()
    }

    /// Brings the gate in line.
    fn settle(&self, node: &Node) {
        node.shared.set_gate(gate::PAUSED_WRITES, self.active().next().is_some());
        node.shared.set_gate(gate::PAUSED_ALL, self.active().any(|p| p.all));
    }
}

impl Node {
    /// Pauses clients' writes, or all their commands, for a while. A pause under way is never
    /// shortened or weakened by another of its purpose.
    pub fn pause_clients(&self, purpose: Purpose, for_ms: u64, all: bool) {
        let mut pauses = self.pauses.lock();
        let mut pause = Pause { until: self.mono_ms().saturating_add(for_ms), all };
        let slot = &mut pauses.0[purpose as usize];
        if let Some(former) = slot {
            pause = Pause { until: pause.until.max(former.until), all: all || former.all };
        }
        *slot = Some(pause);
        pauses.settle(self);
    }

    /// Ends the pause of this purpose.
    pub fn unpause_clients(&self, purpose: Purpose) {
        self.end_pauses(|pauses| pauses.0[purpose as usize] = None);
    }

    /// Ends the pauses whose time has come.
    pub fn end_pause_in_time(self: &Arc<Self>) {
        let now = self.mono_ms();
        let is_over = |pause: &Pause| now >= pause.until;
        if self.pauses.lock().active().any(is_over) {
            self.end_pauses(|pauses| {
                for slot in &mut pauses.0 {
                    *slot = slot.filter(|pause| !is_over(pause));
                }
            });
        }
    }

    /// Clients that were held try again, whatever is still paused: that holds them anew.
    fn end_pauses(&self, end: impl FnOnce(&mut Pauses)) {
        let mut pauses = self.pauses.lock();
        end(&mut pauses);
        pauses.settle(self);
        drop(pauses);
        self.send_all(|| Mail::Unpaused);
    }
}
