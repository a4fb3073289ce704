//! What other threads want of a worker's connections.

use std::time::Instant;

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

    /// What a client was to be told before it sent what was gathered now stands in front of its replies: who has
    /// seen the reply to a write, and asks on another connection then, finds the invalidation there.
    #[inline]
    pub(super) fn read_news(&mut self) {
        if self.scripts.has_no_mail() {
            let news = self.mailbox.take_news();
            if !news.is_empty() {
                self.deliver(news);
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one short arm for each kind of mail")]
    fn deliver(&mut self, mails: Vec<Mail>) {
        // Messages for one listener are gathered and sent together, before anything else happens to its connection.
        let mut listeners = Vec::new();
        for mail in mails {
            if !matches!(mail, Mail::Push { .. } | Mail::Stale { .. } | Mail::ChannelLeft { .. }) {
                self.flush_all(&mut listeners);
            }
            match mail {
                Mail::Accepted { .. } => self.turns.expect(mail),
                Mail::Push { token, client, bytes } => {
                    if let Some(c) = self.connection(token, client)
                        // A RESP2 client that has just left its last channel would take a message for a reply.
                        && (c.client.resp3 || c.client.subscriptions() > 0 || c.client.monitors())
                    {
                        c.queue_message(bytes);
                        listeners.push(token);
                    }
                }
                Mail::Stale { token, client, keys, redirected } => {
                    if let Some(c) = self.connection(token, client)
                        && let Some(bytes) = trackers::message(&c.client, keys.as_deref(), redirected)
                    {
                        c.queue_message(bytes);
                        listeners.push(token);
                    }
                }
                Mail::RedirectionBroken { token, client, redirect } => {
                    if let Some(c) = self.connection(token, client) {
                        // CLIENT LIST shows it.
                        c.client.version += 1;
                        *c.entry.state.lock() = ClientState::of(&c.client);
                        if let Some(bytes) = trackers::broken_message(&c.client, redirect) {
                            c.queue_message(bytes);
                            self.flush_now(token);
                        }
                    }
                }
                Mail::ChannelLeft { token, client, channel } => {
                    let node = &self.node;
                    let place = self.connections.get_mut(token).and_then(Option::as_deref_mut);
                    let c = place.filter(|c| c.client.id == client);
                    if let Some(c) = c
                        && let Some(message) = commands::pubsub::leave(node, &mut c.client, &channel)
                    {
                        c.queue_message(message);
                        listeners.push(token);
                    }
                }
                Mail::Unblocked { waiter, reply, written_to } => {
                    if self.end_hold(waiter.token, waiter.client).is_some() {
                        if let Some(c) = self.connection(waiter.token, waiter.client) {
                            c.client.written_to = c.client.written_to.max(written_to);
                        }
                        self.answer(waiter.token, &reply);
                    }
                }
                Mail::Retry { waiter } => self.retry(&waiter),
                Mail::Resume { token, client, reply, written_to } => {
                    if matches!(self.hold_of(token, client), Some(Hold::Host { .. })) {
                        self.end_hold(token, client);
                        if let Some(c) = self.connection(token, client) {
                            c.client.written_to = c.client.written_to.max(written_to);
                        }
                        self.answer(token, &reply);
                    }
                }
                Mail::Kill { token, client, after_reply } => {
                    if let Some(c) = self.connection(token, client) {
                        if after_reply && !c.output.is_empty() {
                            c.closing = true;
                        } else {
                            self.close(token);
                        }
                    } else {
                        self.node.peers.replication.kill(&self.node, client);
                    }
                }
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
                Mail::Shutdown => {
                    for token in 0..self.connections.len() {
                        if let Some(c) = self.connections[token].as_mut() {
                            let passed = self.node.shared.keyspace.log.passed();
                            while c.flush(passed).is_ok() && c.more_to_send {}
                        }
                        self.close(token);
                    }
                    self.stopped = true;
                }
            }
        }
        self.flush_all(&mut listeners);
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
        // What is too much is not sent first, whether or not the socket would take it.
        if self.connections[token].as_ref().is_some_and(|c| c.output.len() > FREE_OUTPUT) {
            self.check_output(token);
        }
        let Some(c) = self.connections[token].as_mut() else { return };
        if c.flush(passed).is_err() || (c.closing && c.output.is_empty()) {
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
