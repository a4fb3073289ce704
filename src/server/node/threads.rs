//! The threads of a node, and the ways to reach them.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::server::control::Control;
use crate::server::net::accept::Acceptor;
use crate::server::net::mailbox::{Mail, Mailbox};

/// Each is set once, when its thread starts; before that, what is sent to it is of no use to anybody.
#[derive(Default)]
pub struct Threads {
    /// The workers' mailboxes, filled before the first client is accepted.
    pub workers: OnceLock<Vec<Arc<Mailbox>>>,
    /// The thread of links, timers and other things that are not clients.
    pub control: OnceLock<Control>,
    /// Every tokio runtime of the node, which DEBUG SLEEP stops with the rest.
    pub runtimes: Mutex<Vec<Handle>>,
    /// What hands new connections to the workers.
    pub acceptor: OnceLock<Arc<Acceptor>>,
}

impl Threads {
    /// Sends a message to one worker.
    pub fn send(&self, worker: usize, mail: Mail) {
        if let Some(mailbox) = self.workers.get().and_then(|w| w.get(worker)) {
            mailbox.send(mail);
        }
    }

    /// Sends a message to every worker.
    pub fn send_all(&self, mail: impl Fn() -> Mail) {
        for mailbox in self.workers.get().into_iter().flatten() {
            mailbox.send(mail());
        }
    }
}
