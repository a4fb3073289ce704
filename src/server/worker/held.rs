//! Replies to writes that must not be sent before the log was passed on up to that write: to the replicas that are in
//! sync (`reply-after-handover`), and to the disk (`appendfsync always`). Their connections go on running commands.

use std::sync::Arc;

use crate::server::net::connection::LogState;
use crate::server::worker::Worker;

/// The connections of a worker that hold replies back.
#[derive(Debug, Default)]
pub(super) struct Held {
    tokens: Vec<usize>,
    /// The offset at which the worker is woken.
    woken_at: Option<u64>,
}

impl Worker {
    /// Lets the log's readers have what was appended, if something was.
    #[inline]
    pub(super) fn hand_over(&mut self) {
        let log = &self.node.shared.keyspace.log;
        let end = log.end();
        if end != self.log_end {
            self.log_end = end;
            log.ring();
        }
    }

    pub(super) fn log_state(&self) -> LogState {
        LogState::of(&self.node.shared.keyspace.log)
    }

    /// Notes a connection whose output may wait for the log, `passed` so far.
    pub(super) fn note_held(&mut self, token: usize, passed: u64) {
        let Some(c) = self.connections[token].as_mut() else { return };
        let Some(offset) = c.output.held_until(passed) else { return };
        if !std::mem::replace(&mut c.held, true) {
            self.replies_held.tokens.push(token);
        }
        if self.replies_held.woken_at.is_none_or(|at| offset < at) {
            self.replies_held.woken_at = Some(offset);
            let waker = Arc::clone(&self.mailbox).into();
            self.node.shared.keyspace.log.when_passed(offset, waker);
        }
    }

    /// Sends the replies that need not wait any more.
    #[inline]
    pub(super) fn release_held(&mut self) {
        if let Some(offset) = self.replies_held.woken_at
            && self.node.shared.keyspace.log.passed() >= offset
        {
            self.replies_held.woken_at = None;
            // Those that must wait longer are noted again by `flush_now`.
            for token in std::mem::take(&mut self.replies_held.tokens) {
                if self.scripts.runs_at(token) {
                    self.replies_held.tokens.push(token);
                    self.replies_held.woken_at = Some(offset);
                    continue;
                }
                if let Some(c) = self.connections[token].as_mut() {
                    c.held = false;
                }
                self.flush_now(token);
            }
        }
    }
}
