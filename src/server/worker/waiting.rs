//! Clients that wait: for a key, for the node, for the end of a pause.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::command::TimeoutReply;
use crate::command::client::ReplyMode;
use crate::keyspace::watch::Waiter;
use crate::resp::Reply;
use crate::server::net::connection::{Connection, Hold};
use crate::server::node::unix_ms;
use crate::server::worker::Worker;
use crate::server::worker::deadlines::Kind;
use crate::server::worker::segment::Segment;

impl Worker {
    /// Lets a connection run nothing until `hold` ends.
    pub(super) fn hold(&mut self, c: &mut Connection, hold: Hold) {
        self.held.insert(c.client.token);
        c.hold = Some(hold);
    }

    /// Connections whose hold is such: places and clients.
    pub(super) fn held_by(&self, such: impl Fn(&Hold) -> bool) -> Vec<(usize, u64)> {
        let held = self.held.iter().filter_map(|token| self.connections[*token].as_ref());
        held.filter(|c| c.hold.as_ref().is_some_and(&such)).map(|c| (c.client.token, c.client.id)).collect()
    }

    /// Ends a client's wait. False when it is gone or does not wait.
    pub(super) fn end_hold(&mut self, token: usize, client: u64) -> bool {
        let Some(c) = self.connection(token, client) else { return false };
        let hold = c.hold.take();
        if matches!(hold, Some(Hold::Keys { .. })) {
            c.entry.blocked.store(false, Ordering::Release);
            self.node.clients.blocked.fetch_sub(1, Ordering::Relaxed);
        }
        if matches!(hold, Some(Hold::Pause)) {
            self.node.clients.paused.fetch_sub(1, Ordering::Relaxed);
        }
        self.held.remove(&token);
        self.deadlines.set(token, Kind::Blocked, None);
        hold.is_some()
    }

    /// Runs the command of a client that was put aside.
    pub(super) fn try_again(&mut self, token: usize, client: u64) {
        let Some(c) = self.connection(token, client) else { return };
        if !matches!(c.hold, Some(Hold::Aside { .. })) {
            return;
        }
        let hold = c.hold.take();
        self.held.remove(&token);
        match hold {
            Some(Hold::Aside { again: Some(again) }) => self.rerun(&again.0, again.1),
            _ => self.go_on(token),
        }
    }

    /// Sends a reply to a client that waited, and goes on with what it sent meanwhile.
    pub(super) fn answer(&mut self, token: usize, reply: &Reply) {
        self.hand_over();
        let log = self.log_state();
        if let Some(c) = self.connections[token].as_mut() {
            if c.client.reply_mode == ReplyMode::On {
                c.queue_reply(reply, &log);
            }
            self.flush_now(token);
        }
        self.go_on(token);
    }

    /// Runs a connection's kept input, as if it had just come.
    pub(super) fn go_on(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_mut() else { return };
        if c.more_to_read {
            self.ready.push(token);
        }
        if c.input.is_empty() {
            return;
        }
        let own = std::mem::take(&mut c.input);
        let mut segments = [Segment::new(token, 0..0, Some(own), c)];
        self.run_segments(&[], &mut segments);
        self.send(&[], &mut segments);
    }

    /// Sends blocked clients away whose slot has left, as clients that ask now are. Their commands are not run
    /// again: that could keep them in a pause, or ask for keys that a moving slot has given away already.
    pub(super) fn redirect_blocked(&mut self) {
        for (token, _) in self.held_by(|hold| matches!(hold, Hold::Keys { .. })) {
            let Some(c) = self.connections[token].as_ref() else { continue };
            let Some(Hold::Keys { waiter, .. }) = &c.hold else { continue };
            let args: Vec<&[u8]> = waiter.argv.iter().map(Vec::as_slice).collect();
            let Err(why) = self.executor.still_serves(&c.client, &args) else { continue };
            if !waiter.claim() {
                continue;
            }
            let waiter = Arc::clone(waiter);
            self.executor.forget_waiter(&waiter, unix_ms());
            self.end_hold(token, waiter.client);
            let text = why.to_string();
            self.executor.stats.count_error(&text);
            let mut reply = Reply::new();
            reply.error(&text);
            self.answer(token, &reply);
        }
    }

    /// Runs the command of a blocked client again on its own worker.
    pub(super) fn retry(&mut self, waiter: &Arc<Waiter>) {
        let Some(c) = self.connection(waiter.token, waiter.client) else { return };
        let Some(Hold::Keys { waiter: current, .. }) = &c.hold else { return };
        if !Arc::ptr_eq(current, waiter) || !waiter.claim() {
            return;
        }
        let deadline = self.deadlines.get(waiter.token, Kind::Blocked);
        self.executor.forget_waiter(waiter, unix_ms());
        self.end_hold(waiter.token, waiter.client);
        self.rerun(waiter, deadline);
    }

    /// Runs the command of a client that waits no more for the moment; if it waits again, then until `deadline`.
    fn rerun(&mut self, waiter: &Arc<Waiter>, deadline: Option<Instant>) {
        let token = waiter.token;
        let Some(mut c) = self.connections[token].take() else { return };
        let args: Vec<&[u8]> = waiter.argv.iter().map(Vec::as_slice).collect();
        let mut reply = Reply::new();
        if let Ok(id) = self.executor.look_up(&args) {
            let mut s = Segment::new(token, 0..0, None, &c);
            self.run_command(&mut c, id, &args, None, &mut s, 0, unix_ms(), &mut reply);
        }
        match &mut c.hold {
            Some(Hold::Keys { .. }) => self.deadlines.set(token, Kind::Blocked, deadline),
            Some(Hold::Aside { again }) => *again = Some(Box::new((Arc::clone(waiter), deadline))),
            _ => {}
        }
        let done = c.hold.is_none();
        self.connections[token] = Some(c);
        if done {
            self.answer(token, &reply);
        }
    }

    /// Answers a client whose wait has ended by time.
    pub(super) fn time_out(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_mut() else { return };
        let Some(Hold::Keys { waiter, timeout_reply }) = &c.hold else { return };
        // A claimed waiter is being served at this moment; its answer is on its way.
        if !waiter.claim() {
            return;
        }
        let (waiter, kind) = (Arc::clone(waiter), *timeout_reply);
        let mut reply = Reply::new();
        reply.set_resp3(c.client.resp3);
        write_timeout(kind, &mut reply);
        self.executor.forget_waiter(&waiter, unix_ms());
        self.end_hold(token, waiter.client);
        self.answer(token, &reply);
    }

    /// Ends the wait of a client as its timeout would, or with an error.
    pub(super) fn unblock(&mut self, token: usize, client: u64, with_error: bool) {
        let Some(c) = self.connection(token, client) else { return };
        let Some(Hold::Keys { waiter, timeout_reply }) = &c.hold else { return };
        if !waiter.claim() {
            return;
        }
        let (waiter, kind) = (Arc::clone(waiter), *timeout_reply);
        let mut reply = Reply::new();
        reply.set_resp3(c.client.resp3);
        if with_error {
            reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
        } else {
            write_timeout(kind, &mut reply);
        }
        self.executor.forget_waiter(&waiter, unix_ms());
        self.end_hold(token, client);
        self.answer(token, &reply);
    }

    /// Ends every wait with an error, and the connection with it: what the client waited for cannot
    /// happen on a replica.
    pub(super) fn let_go(&mut self) {
        for (token, client) in self.held_by(|hold| matches!(hold, Hold::Keys { .. } | Hold::Host)) {
            let Some(c) = self.connections[token].as_ref() else { continue };
            let waiter = match &c.hold {
                Some(Hold::Keys { waiter, .. }) if waiter.claim() => Some(Arc::clone(waiter)),
                Some(Hold::Host) => None,
                _ => continue,
            };
            if let Some(waiter) = waiter {
                self.executor.forget_waiter(&waiter, unix_ms());
            }
            self.end_hold(token, client);
            let mut reply = Reply::new();
            reply.error(
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            );
            if let Some(c) = self.connections[token].as_mut() {
                c.closing = true;
                c.input.clear();
            }
            self.answer(token, &reply);
        }
    }
}

fn write_timeout(kind: TimeoutReply, reply: &mut Reply) {
    match kind {
        TimeoutReply::Null => reply.null(),
        TimeoutReply::NullArray => reply.null_array(),
    }
}
