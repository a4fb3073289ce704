//! Clients that know sentinels: they ask one for the primary, write to it, note what was acknowledged, and ask again
//! after -READONLY, a connection that broke, or silence.

use crate::world::{Happening, World};

/// Silence after which a request is given up.
const PATIENCE_MS: u64 = 1000;
/// Between two requests.
const PACE_MS: u64 = 200;

#[derive(Default)]
pub struct Client {
    /// The sentinel that is asked next.
    sentinel: usize,
    /// Whom it takes for the primary.
    pub primary: Option<usize>,
    /// The request that is out.
    waits_for: Option<u64>,
    /// The last acknowledged write: when, and by which server.
    pub acked: Option<(u64, usize)>,
}

/// What clients and the others tell one another. Each has the number of the request.
#[derive(Clone, Copy, Debug)]
pub enum Letter {
    /// To a sentinel: SENTINEL GET-MASTER-ADDR-BY-NAME.
    Where(u64),
    Here(u64, Option<usize>),
    /// To a server: a write. The number names it in the data.
    Write(u64),
    /// Written at this moment by this server.
    Written(u64, u64, usize),
    ReadOnly(u64),
    /// The connection to this server is gone.
    Cut(usize),
}

impl World {
    /// Adds clients; they begin at once.
    pub fn with_clients(mut self, count: usize) -> Self {
        for c in 0..count {
            self.clients.push(Client { sentinel: c, ..Client::default() });
            self.at(self.now, Happening::ClientTurn(c));
        }
        self
    }

    pub fn client(&self, c: usize) -> usize {
        self.servers.len() + self.guards.len() + c
    }

    /// Whether every client had a write acknowledged by this server since. One that is still connected to a primary that
    /// sentinels were made to forget by a RESET cannot know better.
    pub fn all_write_to(&self, server: usize, since: u64) -> bool {
        let lost = |c: &Client| c.primary.is_some_and(|at| !self.is_known(at));
        self.clients.iter().all(|c| lost(c) || c.acked.is_some_and(|(at, by)| at > since && by == server))
    }

    pub fn client_turn(&mut self, c: usize) {
        let number = self.number();
        let (to, letter) = match self.clients[c].primary {
            Some(server) => (server, Letter::Write(number)),
            None => (self.guard(self.clients[c].sentinel % self.guards.len()), Letter::Where(number)),
        };
        self.clients[c].waits_for = Some(number);
        self.post(self.client(c), to, letter);
        self.at(self.now + PATIENCE_MS, Happening::ClientGivesUp(c, number));
    }

    pub fn client_gives_up(&mut self, c: usize, number: u64) {
        if self.clients[c].waits_for == Some(number) {
            self.look_elsewhere(c);
        }
    }

    /// The next sentinel is asked.
    fn look_elsewhere(&mut self, c: usize) {
        let client = &mut self.clients[c];
        (client.primary, client.waits_for) = (None, None);
        client.sentinel += 1;
        let soon = self.now + 10 + self.rng.below(PACE_MS);
        self.at(soon, Happening::ClientTurn(c));
    }

    fn hear(&mut self, c: usize, letter: Letter) {
        let (waits_for, primary) = (self.clients[c].waits_for, self.clients[c].primary);
        match letter {
            Letter::Here(number, found) if waits_for == Some(number) => match found {
                Some(server) => {
                    self.clients[c].primary = Some(server);
                    self.client_turn(c);
                }
                None => self.look_elsewhere(c),
            },
            Letter::Written(number, at, server) if waits_for == Some(number) => {
                self.checker.acknowledged(number, server, at);
                let client = &mut self.clients[c];
                (client.waits_for, client.acked) = (None, Some((self.now, server)));
                let next = self.now + self.rng.below(PACE_MS);
                self.at(next, Happening::ClientTurn(c));
            }
            Letter::ReadOnly(number) if waits_for == Some(number) => self.look_elsewhere(c),
            Letter::Cut(server) if waits_for.is_some() && primary == Some(server) => self.look_elsewhere(c),
            _ => {}
        }
    }

    /// A letter comes after a while, or never if the network is cut.
    fn post(&mut self, from: usize, to: usize, letter: Letter) {
        if !self.is_blocked(from, to) {
            let at = self.now + 1 + self.rng.below(self.latency_ms);
            self.at(at, Happening::Letter { from, to, letter });
        }
    }

    pub fn deliver(&mut self, from: usize, to: usize, letter: Letter) {
        let first_client = self.client(0);
        if to >= first_client {
            return self.hear(to - first_client, letter);
        }
        let answer = match letter {
            Letter::Where(number) if self.is_alive(to) => {
                Letter::Here(number, self.primary_of(to - self.servers.len()))
            }
            Letter::Where(number) => Letter::Here(number, None),
            Letter::Write(_) if !self.is_alive(to) => Letter::Cut(to),
            Letter::Write(number) if self.servers[to].follows.is_some() => Letter::ReadOnly(number),
            Letter::Write(number) => {
                self.servers[to].data.push(number);
                Letter::Written(number, self.now, to)
            }
            _ => return,
        };
        self.post(to, from, answer);
    }

    /// A server ended, or closed its clients.
    pub fn cut_clients(&mut self, server: usize) {
        for c in 0..self.clients.len() {
            if self.clients[c].primary == Some(server) {
                self.post(server, self.client(c), Letter::Cut(server));
            }
        }
    }
}
