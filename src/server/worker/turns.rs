//! Which connections go first. Most send a few whole requests, read their replies, and are served in the round that
//! finds them. Those that cost more go behind all others: clients that send more than is read at once, that send
//! requests piece by piece, that do not read their replies, and that have just connected or are disconnecting. A
//! worker serves these in the order in which they came, for [`TURN_NS`] at a time, and then looks after the others
//! again. So however much one connection, or a thousand, ask for, the others hardly wait.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::server::net::connection::Stream;
use crate::server::net::mailbox::Mail;
use crate::server::process::clock::now_ns;
use crate::server::worker::Worker;

/// How long those that go behind are served before the others are looked after again, in nanoseconds. A connection
/// whose commands have run for so long in one round goes behind, too.
pub(super) const TURN_NS: u64 = 50_000;
/// How many of those behind are served at once.
const AT_ONCE: usize = 2;

/// The connections that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Places of connections; each of them knows that it is here ([`Connection::in_line`]).
    ///
    /// [`Connection::in_line`]: crate::server::net::connection::Connection
    line: VecDeque<usize>,
    /// The same of those in their TLS handshake, which takes long: they are in nobody's way but each other's.
    shaking: VecDeque<usize>,
    /// Connections that were accepted and have no place yet.
    newcomers: VecDeque<Mail>,
    /// The same of those that will begin with a handshake.
    strangers: VecDeque<Mail>,
}

impl Turns {
    pub fn is_empty(&self) -> bool {
        self.line.is_empty() && self.shaking.is_empty() && !self.has_newcomers()
    }

    fn has_newcomers(&self) -> bool {
        !self.newcomers.is_empty() || !self.strangers.is_empty()
    }

    pub fn expect(&mut self, newcomer: Mail) {
        let shakes = matches!(newcomer, Mail::Accepted { stream: Stream::Tls(_), .. });
        if shakes { &mut self.strangers } else { &mut self.newcomers }.push_back(newcomer);
    }
}

impl Worker {
    /// Puts those that go behind in line for their turn; those that are left go first.
    pub(super) fn line_up(&mut self, readable: &mut Vec<usize>) {
        readable.retain(|token| match self.connections.get_mut(*token).and_then(Option::as_mut) {
            Some(c) if c.behind => {
                if !std::mem::replace(&mut c.in_line, true) {
                    let shakes = c.stream.is_handshaking();
                    if shakes { &mut self.turns.shaking } else { &mut self.turns.line }.push_back(*token);
                }
                false
            }
            _ => true,
        });
    }

    /// Serves some of those who go behind, for a limited time, and takes on some of those who have just come.
    pub(super) fn serve_those_behind(&mut self, gathered: &mut [u8]) {
        if self.turns.is_empty() {
            return;
        }
        let began = now_ns();
        while !self.turns.is_empty() {
            for newcomer in [self.turns.newcomers.pop_front(), self.turns.strangers.pop_front()] {
                if let Some(Mail::Accepted { stream, peer, local, refusal, waits }) = newcomer {
                    drop(waits);
                    self.adopt(stream, peer, local, refusal);
                }
            }
            let tokens = self.next_in_line();
            let mut from = 0;
            while from < tokens.len() {
                from += self.round(gathered, &tokens[from..]);
            }
            if now_ns().wrapping_sub(began) >= TURN_NS || (tokens.is_empty() && !self.turns.has_newcomers()) {
                return;
            }
        }
    }

    /// Takes those out of their lines that are served next: one in its handshake, if any may go on, and others.
    fn next_in_line(&mut self) -> SmallVec<[usize; AT_ONCE]> {
        let mut next = SmallVec::new();
        while self.shakes_left > 0
            && next.is_empty()
            && let Some(token) = self.turns.shaking.pop_front()
        {
            next.extend(self.leaves_its_line(token).then_some(token));
        }
        let mut waiting: SmallVec<[usize; AT_ONCE]> = SmallVec::new();
        while next.len() < AT_ONCE
            && let Some(token) = self.turns.line.pop_front()
        {
            if self.scripts.runs_at(token) {
                waiting.push(token);
            } else if self.leaves_its_line(token) {
                next.push(token);
            }
        }
        // A connection whose script runs is not in its place: it stays in line, and nobody waits for it.
        self.turns.line.extend(waiting);
        next
    }

    /// False: the connection is gone. Its place may be another's, which is in line for itself or not at all.
    fn leaves_its_line(&mut self, token: usize) -> bool {
        self.connections[token].as_mut().is_some_and(|c| std::mem::take(&mut c.in_line))
    }
}
