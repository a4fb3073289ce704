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
    /// Data that are loaded. Redis looks at its clients first after two megabytes of a file, so that a short load is
    /// not seen; here the clients concerned wait for a moment before they are told -LOADING.
    Load,
}

/// For so long, in milliseconds, no client is told that data are loaded.
pub const LOADS_UNSEEN_MS: u64 = 200;

/// What is paused until when, by purpose.
#[derive(Debug, Default)]
pub struct Pauses([Option<Pause>; 4]);

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
        let [others @ .., load] = &self.0;
        let mut others = others.iter().flatten();
        node.shared.set_gate(gate::PAUSED_ALL, others.clone().any(|p| p.all));
        node.shared.set_gate(gate::PAUSED_WRITES, others.next().is_some());
        node.shared.set_gate(gate::LOADS_UNSEEN, load.is_some());
    }
}

impl Node {
    /// Pauses clients' writes, or all their commands, for a while. A pause under way is never
    /// shortened or weakened by another of its purpose.
    pub fn pause_clients(&self, purpose: Purpose, for_ms: u64, all: bool) {
        let mut pauses = self.life.pauses.lock();
        let mut pause = Pause { until: self.mono_ms().saturating_add(for_ms), all };
        let slot = &mut pauses.0[purpose as usize];
        if let Some(former) = slot {
            pause = Pause { until: pause.until.max(former.until), all: all || former.all };
        }
        *slot = Some(pause);
        pauses.settle(self);
    }

    /// The data begin to be loaded anew.
    pub fn begin_load(&self) {
        self.pause_clients(Purpose::Load, LOADS_UNSEEN_MS, true);
        self.shared.set_gate(gate::LOADING, true);
    }

    /// The data are there.
    pub fn end_load(&self) {
        self.shared.set_gate(gate::LOADING, false);
        self.unpause_clients(Purpose::Load);
    }

    /// Ends the pause of this purpose.
    pub fn unpause_clients(&self, purpose: Purpose) {
        self.end_pauses(|pauses| pauses.0[purpose as usize] = None);
    }

    /// Ends the pauses whose time has come.
    pub fn end_pause_in_time(self: &Arc<Self>) {
        let now = self.mono_ms();
        let is_over = |pause: &Pause| now >= pause.until;
        if self.life.pauses.lock().active().any(is_over) {
            self.end_pauses(|pauses| {
                for slot in &mut pauses.0 {
                    *slot = slot.filter(|pause| !is_over(pause));
                }
            });
        }
    }

    /// Clients that were held try again, whatever is still paused: that holds them anew.
    fn end_pauses(&self, end: impl FnOnce(&mut Pauses)) {
        let mut pauses = self.life.pauses.lock();
        end(&mut pauses);
        pauses.settle(self);
        drop(pauses);
        self.send_all(|| Mail::Unpaused);
    }
}
