//! Clients that wait: for a key, for the node, for the end of a pause.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::command::TimeoutReply;
use crate::keyspace::watch::Waiter;
use crate::resp::Reply;
use crate::server::control::replication;
use crate::server::net::connection::{Connection, Hold, Wait};
use crate::server::node::unix_ms;
use crate::server::worker::Worker;
use crate::server::worker::deadlines::Kind;
use crate::server::worker::segment::Segment;

impl Worker {
    /// Lets a connection run nothing until `hold` ends.
    pub(super) fn hold(&mut self, c: &mut Connection, hold: Hold) {
        self.held.insert(c.client.token);
        if let Some(counter) = hold.counter(&self.node.people.clients) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        c.entry.blocked.store(hold.is_blocked(), Ordering::Release);
        c.entry.paused.store(matches!(hold, Hold::Pause { .. }), Ordering::Relaxed);
        if let Hold::Keys(wait) = &hold {
            *c.entry.waiter.lock() = Some(Arc::clone(&wait.waiter));
        }
        c.hold = Some(hold);
    }

    /// The connections whose hold `such` accepts, by place and client id.
    pub(super) fn held_by(&self, such: impl Fn(&Hold) -> bool) -> Vec<(usize, u64)> {
        let held = self.held.iter().filter_map(|token| self.connections[*token].as_ref());
        held.filter(|c| c.hold.as_ref().is_some_and(&such)).map(|c| (c.client.token, c.client.id)).collect()
    }

    /// Why a client runs nothing, if it does not.
    pub(super) fn hold_of(&mut self, token: usize, client: u64) -> Option<&Hold> {
        self.connection(token, client)?.hold.as_ref()
    }

    /// Ends what holds a client, if something does, and returns it.
    pub(super) fn end_hold(&mut self, token: usize, client: u64) -> Option<Hold> {
        let c = self.connection(token, client)?;
        let hold = c.hold.take()?;
        c.entry.blocked.store(false, Ordering::Release);
        if matches!(hold, Hold::Keys(_)) {
            *c.entry.waiter.lock() = None;
            c.client.end_caching();
        }
        c.entry.paused.store(false, Ordering::Relaxed);
        if let Some(counter) = hold.counter(&self.node.people.clients) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
        self.held.remove(&token);
        self.deadlines.set(token, Kind::Blocked, None);
        Some(hold)
    }

    /// Runs the command of a client that was put aside or held by a pause.
    pub(super) fn try_again(&mut self, token: usize, client: u64) {
        let deadline = self.deadlines.get(token, Kind::Blocked);
        match self.end_hold(token, client) {
            Some(Hold::Pause { again: Some(wait) } | Hold::Aside { again: Some(wait) }) => {
                self.rerun(wait, deadline);
            }
            Some(_) => self.go_on(token),
            None => {}
        }
    }

    /// Sends a reply to a client that waited, and goes on with what it sent meanwhile.
    pub(super) fn answer(&mut self, token: usize, mut reply: Reply) {
        self.hand_over();
        let log = self.log_state();
        if let Some(c) = self.connections[token].as_mut() {
            if !std::mem::take(&mut c.mute) {
                c.queue_reply(&mut reply, &log);
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
        c.unrun = false;
        if c.input.is_empty() {
            return;
        }
        let own = std::mem::take(&mut c.input);
        let mut segments = [Segment::new(token, 0..0, Some(own), c)];
        self.run_segments(&[], &mut segments);
        self.send(&[], &mut segments);
    }

    /// Redirects blocked clients whose slot has left, like clients that ask now. Their commands are not run
    /// again: that could keep them in a pause, or ask for keys that a moving slot has given away already.
    pub(super) fn redirect_blocked(&mut self) {
        for (token, client) in self.held_by(|hold| hold.wait().is_some()) {
            let Some(c) = self.connections[token].as_ref() else { continue };
            let Some(wait) = c.hold.as_ref().and_then(Hold::wait) else { continue };
            let args: Vec<&[u8]> = wait.waiter.argv.iter().map(Vec::as_slice).collect();
            if let Err(why) = self.executor.still_serves(&c.client, &args) {
                self.give_up(token, client, Some(&why.to_string()), false);
            }
        }
    }

    /// Runs the command of a blocked client again on its own worker.
    pub(super) fn retry(&mut self, waiter: &Arc<Waiter>) {
        let Some(c) = self.connection(waiter.token, waiter.client) else { return };
        let Some(Hold::Keys(wait)) = &c.hold else { return };
        if !Arc::ptr_eq(&wait.waiter, waiter) {
            return;
        }
        // From now on CLIENT UNBLOCK and KILL cannot claim it, and ask this worker to end the wait: see `unblock`.
        *c.entry.waiter.lock() = None;
        if !waiter.claim() {
            return;
        }
        let wait = Box::new(wait.clone());
        let deadline = self.deadlines.get(waiter.token, Kind::Blocked);
        self.executor.forget_waiter(waiter, unix_ms());
        self.end_hold(waiter.token, waiter.client);
        self.rerun(wait, deadline);
    }

    /// Runs the command of a client whose wait was broken off; if it has to wait again, it waits until `deadline`.
    fn rerun(&mut self, wait: Box<Wait>, deadline: Option<Instant>) {
        let (waiter, token) = (Arc::clone(&wait.waiter), wait.waiter.token);
        let Some(mut c) = self.connections[token].take() else { return };
        let args: Vec<&[u8]> = waiter.argv.iter().map(Vec::as_slice).collect();
        let mut reply = Reply::new();
        if let Ok(id) = self.executor.look_up(&args) {
            let mut s = Segment::new(token, 0..0, None, &c);
            s.again = Some(wait);
            self.run_command(&mut c, id, &args, &[], &mut s, 0, unix_ms(), &mut reply);
        }
        let done = c.hold.is_none();
        if !done {
            self.deadlines.set(token, Kind::Blocked, deadline);
            c.entry.times_out.store(deadline.is_some(), Ordering::Relaxed);
        }
        self.connections[token] = Some(c);
        if done {
            self.answer(token, reply);
        }
    }

    /// Answers a client whose wait has ended by time.
    pub(super) fn time_out(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_ref() else { return };
        self.give_up(token, c.client.id, None, false);
    }

    /// CLIENT UNBLOCK, of a client that waits for keys or for replicas. `claimed`: nobody else answers it any more.
    pub(super) fn unblock(&mut self, token: usize, client: u64, with_error: bool, claimed: bool) {
        const WHY: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
        if !matches!(self.hold_of(token, client), Some(Hold::Host { .. })) {
            return self.give_up(token, client, with_error.then_some(WHY), claimed);
        }
        let Some(mut reply) = replication::stop_waiting(&self.node, client) else { return };
        self.end_hold(token, client);
        if with_error {
            self.executor.stats.count_error(WHY);
            reply = Reply::new();
            reply.error(WHY);
        }
        self.answer(token, reply);
    }

    /// Ends the wait of a blocked client as its timeout would, or with an error. Nothing happens when the client is
    /// gone, does not wait, or is being served at this moment: then its reply is on its way. `claimed`: the caller
    /// has claimed it already, so that nobody serves it.
    pub(super) fn give_up(&mut self, token: usize, client: u64, error: Option<&str>, claimed: bool) {
        if let Some(reply) = self.end_wait(token, client, error, claimed) {
            self.answer(token, reply);
        }
    }

    /// As [`give_up`](Self::give_up); the reply is not sent yet.
    fn end_wait(&mut self, token: usize, client: u64, error: Option<&str>, claimed: bool) -> Option<Reply> {
        let hold = self.hold_of(token, client)?;
        let wait = hold.wait().cloned()?;
        if matches!(hold, Hold::Keys(_)) {
            if !claimed && !wait.waiter.claim() {
                return None;
            }
            self.executor.forget_waiter(&wait.waiter, unix_ms());
        }
        self.end_hold(token, client);
        self.executor.count_unblocked(&wait.waiter, error);
        let mut reply = Reply::new();
        reply.set_resp3(wait.waiter.resp3);
        match error {
            Some(text) => reply.error(text),
            None => write_timeout(wait.timeout_reply, &mut reply),
        }
        Some(reply)
    }

    /// Ends every wait with an error: what the client waited for cannot happen on a replica. The connections are closed, as
    /// in Redis, so that their clients look for the primary.
    pub(super) fn give_up_all(&mut self) {
        const WHY: &str =
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
        for (token, client) in self.held_by(Hold::is_blocked) {
            let reply = if matches!(self.hold_of(token, client), Some(Hold::Host { .. })) {
                self.end_hold(token, client);
                self.executor.stats.count_error(WHY);
                let mut reply = Reply::new();
                reply.error(WHY);
                Some(reply)
            } else {
                self.end_wait(token, client, Some(WHY), false)
            };
            let Some(reply) = reply else { continue };
            // What it has sent behind the command is not run.
            if let Some(c) = self.connections[token].as_mut() {
                c.input = Vec::default();
                c.closing = true;
            }
            self.answer(token, reply);
        }
    }
}

fn write_timeout(kind: TimeoutReply, reply: &mut Reply) {
    match kind {
        TimeoutReply::Null => reply.null(),
        TimeoutReply::NullArray => reply.null_array(),
    }
}
