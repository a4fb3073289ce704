//! What other threads want of a worker's connections.

use std::sync::Arc;
use std::time::Instant;

use crate::resp::Reply;
use crate::server::commands;
use crate::server::net::connection::{Connection, FREE_OUTPUT, Hold};
use crate::server::net::mailbox::Mail;
use crate::server::node::connected::ClientState;
use crate::server::node::trackers;
use crate::server::worker::Worker;

impl Worker {
    pub(super) fn read_mail(&mut self) {
        let mails = self.mail_for_now();
        self.deliver(mails);
    }

    /// Messages that were pushed to a client before it sent the input of this round are queued in front of its
    /// replies: a client that has seen the reply to a write, and then sends a command on another connection, finds
    /// the invalidation there.
    #[inline]
    pub(super) fn read_news(&mut self) {
        if self.scripts.has_no_mail() {
            let news = self.mailbox.take_news();
            if !news.is_empty() {
                self.deliver(news);
            }
        }
    }

    fn deliver(&mut self, mails: Vec<Mail>) {
        // Messages for one listener are gathered and sent together, before anything else happens to its connection.
        let mut listeners = Vec::new();
        for mail in mails {
            match mail {
                Mail::Push { .. } | Mail::Stale { .. } | Mail::ChannelLeft { .. } => {
                    listeners.extend(self.queue_message_of(mail));
                }
                other => {
                    self.flush_all(&mut listeners);
                    self.act_on(other);
                }
            }
        }
        self.flush_all(&mut listeners);
    }

    /// Queues a message for the client that it is for. Returns the place of that client's connection.
    fn queue_message_of(&mut self, mail: Mail) -> Option<usize> {
        let (token, message) = match mail {
            Mail::Push { token, client, bytes } => {
                let c = self.connection(token, client)?;
                // A RESP2 client that has just left its last channel would take a message for a reply.
                let listens = c.client.resp3 || c.client.subscriptions() > 0 || c.client.monitors();
                (token, listens.then_some(bytes)?)
            }
            Mail::Stale { token, client, keys, redirected } => {
                let c = self.connection(token, client)?;
                (token, trackers::message(&c.client, keys.as_deref(), redirected)?)
            }
            Mail::ChannelLeft { token, client, channel } => {
                let node = Arc::clone(&self.node);
                let c = self.connection(token, client)?;
                (token, commands::pubsub::leave(&node, &mut c.client, &channel)?)
            }
            _ => return None,
        };
        self.connections[token].as_mut()?.queue_message(message);
        Some(token)
    }

    /// What is to happen at once.
    fn act_on(&mut self, mail: Mail) {
        match mail {
            Mail::Push { .. } | Mail::Stale { .. } | Mail::ChannelLeft { .. } => {
                unreachable!("queued by its caller")
            }
            Mail::Accepted { .. } => self.turns.expect(mail),
            Mail::RedirectionBroken { token, client, redirect } => {
                self.tell_redirection_broken(token, client, redirect);
            }
            Mail::Unblocked { waiter, reply, written_to } => {
                if self.hold_of(waiter.token, waiter.client).is_some() {
                    self.resume(waiter.token, waiter.client, reply, written_to);
                }
            }
            Mail::Retry { waiter } => self.retry(&waiter),
            Mail::Resume { token, client, reply, written_to } => {
                if matches!(self.hold_of(token, client), Some(Hold::Host { .. })) {
                    self.resume(token, client, reply, written_to);
                }
            }
            Mail::Kill { token, client, after_reply } => self.kill(token, client, after_reply),
            Mail::Rights { user } => self.settle_rights(user.as_deref()),
            Mail::Demoted => self.give_up_all(),
            Mail::Unblock { token, client, with_error, claimed } => {
                self.unblock(token, client, with_error, claimed);
            }
            Mail::Sleep(until) => std::thread::sleep(until.saturating_duration_since(Instant::now())),
            Mail::SlotsChanged => self.redirect_blocked(),
            Mail::Settle(sender) => drop(sender),
            Mail::Unpaused => {
                for (token, client) in self.held_by(|hold| matches!(hold, Hold::Pause { .. })) {
                    self.try_again(token, client);
                }
            }
            Mail::Free { token, client } => {
                if matches!(self.hold_of(token, client), Some(Hold::Aside { .. })) {
                    self.try_again(token, client);
                }
            }
            Mail::Shutdown => self.close_all(),
        }
    }

    fn tell_redirection_broken(&mut self, token: usize, client: u64, redirect: u64) {
        let Some(c) = self.connection(token, client) else { return };
        // CLIENT LIST shows it.
        c.client.version += 1;
        *c.entry.state.lock() = ClientState::of(&c.client);
        if let Some(bytes) = trackers::broken_message(&c.client, redirect) {
            c.queue_message(bytes);
            self.flush_now(token);
        }
    }

    /// Answers a client that waited. `written_to`: the end of the log behind what its command wrote.
    fn resume(&mut self, token: usize, client: u64, reply: Reply, written_to: u64) {
        self.end_hold(token, client);
        if let Some(c) = self.connection(token, client) {
            c.client.written_to = c.client.written_to.max(written_to);
        }
        self.answer(token, reply);
    }

    /// CLIENT KILL. A connection that no worker has is a replica's, or the one to our primary.
    fn kill(&mut self, token: usize, client: u64, after_reply: bool) {
        match self.connection(token, client) {
            Some(c) if after_reply && !c.output.is_empty() => c.closing = true,
            Some(_) => self.close(token),
            None => self.node.peers.replication.kill(&self.node, client),
        }
    }

    /// The node ends: sends what can be sent at once, and closes every connection.
    fn close_all(&mut self) {
        for token in 0..self.connections.len() {
            if let Some(c) = self.connections[token].as_mut() {
                let passed = self.node.shared.keyspace.log.passed();
                while c.flush(passed).is_ok() && c.more_to_send {}
            }
            self.close(token);
        }
        self.stopped = true;
    }

    /// The rights of one user or of all have changed: closes clients whose user is gone, and those who listen to
    /// what their user may not hear any more.
    fn settle_rights(&mut self, user: Option<&str>) {
        for token in 0..self.connections.len() {
            let Some(c) = self.connections[token].as_mut() else { continue };
            if user.is_some_and(|user| user != c.client.user_name()) {
                continue;
            }
            if commands::pubsub::may_go_on(&mut c.client) {
                self.node.settle_client(&mut c.client);
            } else if c.output.is_empty() {
                self.close(token);
            } else {
                c.closing = true;
            }
        }
        self.node.rights_settled();
    }

    /// Sends what was queued for these connections.
    pub(super) fn flush_all(&mut self, tokens: &mut Vec<usize>) {
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens.drain(..) {
            self.flush_now(token);
        }
    }

    pub(super) fn connection(&mut self, token: usize, client: u64) -> Option<&mut Connection> {
        let c = self.connections.get_mut(token)?.as_deref_mut()?;
        (c.client.id == client).then_some(c)
    }

    pub(super) fn flush_now(&mut self, token: usize) {
        let passed = self.node.shared.keyspace.log.passed();
        // The output limit is checked before anything is sent, whether or not the socket would take it.
        if self.connections[token].as_ref().is_some_and(|c| c.output.len() > FREE_OUTPUT) {
            self.check_output(token);
        }
        let Some(c) = self.connections[token].as_mut() else { return };
        let failed = c.flush(passed).is_err();
        let sent = std::mem::take(&mut c.sent);
        let ended = failed || (c.closing && c.output.is_empty());
        self.count_sent(sent);
        let Some(c) = self.connections[token].as_mut() else { return };
        if ended {
            self.close(token);
        } else {
            c.note_usage(&self.node.people.clients, self.last_second);
            if !c.output.is_empty() {
                self.check_output(token);
                self.note_held(token, passed);
                self.go_on_sending(token);
            }
        }
    }
}
