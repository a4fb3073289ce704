//! What an executor wants of its node while it runs commands.

use std::sync::Arc;

use crate::exec::Host;
use crate::exec::observe::Seen;
use crate::exec::rights::Denied;
use crate::keyspace::db::Notice;
use crate::keyspace::tracking::{Changed, Stale};
use crate::keyspace::watch::Waiter;
use crate::resp::Reply;
use crate::server::net::mailbox::Mail;
use crate::server::node::{Node, monitors};

/// Bytes of lines for monitors that are held at most.
const MOST_HELD: usize = 64 * 1024;

/// Serves others while a script runs.
pub trait Meanwhile {
    /// One round for them. `long`: those who need what the script holds are to be told.
    fn serve_meanwhile(&mut self, long: bool);
}

/// The executor's way to the rest of the node.
pub struct NodeHost<'a> {
    /// The node that the executor belongs to.
    pub node: &'a Arc<Node>,
    /// Whoever has others to serve while a script runs long.
    beside: Option<&'a mut dyn Meanwhile>,
    /// Lines for monitors that are not sent yet.
    held: Option<Vec<u8>>,
}

impl<'a> NodeHost<'a> {
    /// For commands that do not run for long on a worker's thread.
    pub fn new(node: &'a Arc<Node>) -> Self {
        Self { node, beside: None, held: None }
    }

    /// For a script, beside which others are served.
    pub fn with(node: &'a Arc<Node>, beside: &'a mut dyn Meanwhile) -> Self {
        Self { node, beside: Some(beside), held: None }
    }
}

impl Host for NodeHost<'_> {
    fn deliver(&mut self, waiter: &Arc<Waiter>, reply: Reply, written_to: u64) {
        self.node.send(waiter.worker, Mail::Unblocked { waiter: Arc::clone(waiter), reply, written_to });
    }

    fn notify(&mut self, notice: &Notice) {
        self.node.publish_notice(notice);
    }

    fn retry(&mut self, waiter: &Arc<Waiter>) {
        self.node.send(waiter.worker, Mail::Retry { waiter: Arc::clone(waiter) });
    }

    fn invalidate(&mut self, stale: &[Stale], flushed: bool, writer: u64) {
        if flushed {
            self.node.invalidate_all();
        }
        self.node.invalidate(stale, writer);
    }

    fn broadcast(&mut self, changed: &[Changed]) {
        self.node.broadcast(changed);
    }

    fn took_long(&mut self, seen: &Seen<'_>) {
        self.node.note_long(seen);
    }

    fn ran(&mut self, seen: &Seen<'_>) {
        let line = monitors::line(seen);
        match &mut self.held {
            // A script may read for ever. What of it is not held any more is shown again if it begins anew after all.
            Some(held) if held.len() + line.len() > MOST_HELD => {
                self.show_held(true);
                self.node.show_to_monitors(line);
            }
            Some(held) => held.extend(line),
            None => self.node.show_to_monitors(line),
        }
    }

    fn hold_shown(&mut self) {
        self.held = Some(Vec::new());
    }

    fn show_held(&mut self, stays: bool) {
        let held = self.held.take().unwrap_or_default();
        if stays && !held.is_empty() {
            self.node.show_to_monitors(held);
        }
    }

    fn denied(&mut self, denied: &Denied<'_>) {
        self.node.note_denied(denied);
    }

    fn did(&mut self, event: &'static str, nanos: u64) {
        self.node.note_event(event, nanos);
    }

    fn meanwhile(&mut self, long: bool) {
        if let Some(beside) = &mut self.beside {
            beside.serve_meanwhile(long);
        }
    }
}
