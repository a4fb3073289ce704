//! Scripts, and transactions of many commands, have turns of their own, at the end of a round, one connection after
//! the other.
//!
//! By then all other clients of the round are answered: no frame of the stack below a long script holds their input
//! or replies. While such a script runs, the worker serves its other clients from within it
//! ([`Host::meanwhile`](crate::exec::Host::meanwhile)), with a second executor: only the connection whose script it
//! is waits. Other scripts wait, too, because their interpreter is in use, and are told so once
//! `busy-reply-threshold` has passed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Events;

use crate::base::time::UnixMs;
use crate::command::spec::{Group, flags};
use crate::exec::{After, Executor};
use crate::keyspace::Known;
use crate::resp::Reply;
use crate::server::net::connection::Connection;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::node::host::{Meanwhile, NodeHost};
use crate::server::worker::batch::{Irregular, Item, What};
use crate::server::worker::deadlines::Kind;
use crate::server::worker::{READ_SIZE, Worker};

/// Room for what is read meanwhile, at once.
const ROOM: usize = 4 * READ_SIZE;

/// What a worker keeps of its scripts.
pub(super) struct Scripts {
    /// Places of connections whose next command runs one.
    waiting: VecDeque<usize>,
    /// Places of connections whose last command ran one. Their new input is not parsed yet: it will most likely run
    /// another.
    unseen: VecDeque<usize>,
    /// Whether it is the turn of one of them.
    turn: bool,
    /// The place of the connection whose command runs.
    running: Option<usize>,
    /// It has run for longer than `busy-reply-threshold`.
    long: bool,
    /// Somebody was served meanwhile.
    served: bool,
    /// The other side of that connection has closed it meanwhile.
    closed: bool,
    /// Mail that must wait until it has run.
    mail: Vec<Mail>,
    /// For the others, while it runs.
    spare: Option<Box<Executor>>,
    /// Lent to the host of a script: a new reference each time would cost workers a cache line that all share.
    node: Option<Arc<Node>>,
}

impl Scripts {
    /// Whether no mail waits for a script's end.
    pub(super) fn has_no_mail(&self) -> bool {
        self.running.is_none() && self.mail.is_empty()
    }

    pub fn new(spare: Box<Executor>, node: Arc<Node>) -> Self {
        Self {
            waiting: VecDeque::new(),
            unseen: VecDeque::new(),
            turn: false,
            running: None,
            long: false,
            served: false,
            closed: false,
            mail: Vec::new(),
            spare: Some(spare),
            node: Some(node),
        }
    }

    /// Lets a connection that most likely wants to run another script wait for its turn: looking at its input first
    /// would parse it twice. Not while a script runs, when others are served at once.
    pub fn wait_unseen(&mut self, token: usize) -> bool {
        let free = self.running.is_none();
        if free {
            self.unseen.push_back(token);
        }
        free
    }

    /// Lets a connection wait for its turn.
    pub fn wait(&mut self, token: usize) {
        if !self.waiting.contains(&token) {
            self.waiting.push_back(token);
        }
    }

    /// Whether scripts may run now.
    pub fn is_turn(&self) -> bool {
        self.turn && self.running.is_none()
    }

    /// Notes that a connection which is not in its place was closed by the other side.
    pub fn note_closed(&mut self, token: usize) {
        self.closed |= self.runs_at(token);
    }

    /// Whether the connection at this place runs a script at this moment.
    pub fn runs_at(&self, token: usize) -> bool {
        self.running == Some(token)
    }
}

impl Worker {
    /// Whether a command runs a script, and has to wait for the turn of scripts.
    pub(super) fn runs_later(&self, item: &Item, c: &Connection) -> bool {
        let beside = self.scripts.running.is_some();
        // While one takes long others are refused at once.
        if self.scripts.turn || (beside && self.scripts.long) {
            return false;
        }
        let id = match &item.what {
            What::Command(id) => Some(*id),
            What::Irregular(irregular) => match &**irregular {
                Irregular::Inline(words) => {
                    let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                    self.executor.look_up(&args).ok()
                }
                Irregular::Refused(_) | Irregular::Broken(_) => None,
            },
        };
        id.is_some_and(|id| {
            let command = self.executor.shared.commands.get(id).command;
            command.has(flags::RUNS_SCRIPT)
                || (beside && command.group == Group::Scripting && !command.has(flags::ALLOW_BUSY))
                || (command.has(flags::RUNS_QUEUE) && may_take_long(c))
        })
    }

    /// Runs what connections have sent from their first script on.
    pub(super) fn run_scripts(&mut self) {
        while let Some(token) = self.scripts.waiting.pop_front().or_else(|| self.scripts.unseen.pop_front()) {
            if self.connections[token].as_ref().is_none_or(|c| c.hold.is_some()) {
                continue;
            }
            self.scripts.turn = true;
            self.go_on(token);
            self.scripts.turn = false;
        }
    }

    /// Runs a command that may serve the worker's other connections while it takes long.
    #[cold]
    pub(super) fn run_beside_others(
        &mut self,
        c: &mut Connection,
        id: usize,
        args: &[&[u8]],
        keys: &[Known<'_>],
        now: UnixMs,
        reply: &mut Reply,
    ) -> After {
        let token = c.client.token;
        let spare = self.scripts.spare.take().expect("one script runs at a time");
        let node = self.scripts.node.take().expect("as for the spare");
        let mut executor = std::mem::replace(&mut self.executor, spare);
        self.scripts.running = Some(token);
        self.scripts.long = false;
        executor.make_room_for_scripts(&mut NodeHost::new(&node), now);
        let mut host = NodeHost::with(&node, self);
        let after = executor.execute(&mut host, &mut c.client, id, args, keys, now, reply);
        self.scripts.spare = Some(std::mem::replace(&mut self.executor, executor));
        self.scripts.node = Some(node);
        self.scripts.running = None;
        if std::mem::take(&mut self.scripts.served) {
            c.read_closed |= std::mem::take(&mut self.scripts.closed);
            // What came for this connection meanwhile was left in its socket and in the mail.
            self.ready.push(token);
            self.scripts.turn = true;
            if let Some(spare) = &mut self.scripts.spare {
                self.executor.take_over_chores(spare);
            }
            if self.idle_limit > 0 {
                // It was not in its place when its time came.
                self.deadlines.set(token, Kind::Idle, Some(Instant::now() + Duration::from_secs(1)));
            }
        }
        after
    }

    /// The mail that can be read now.
    pub(super) fn mail_for_now(&mut self) -> Vec<Mail> {
        let mut mails = self.mailbox.take();
        match self.scripts.running {
            Some(token) => {
                // What the user of the running script may do is looked at when it has ended.
                let rights = mails.iter().filter_map(|mail| match mail {
                    Mail::Rights { user } => Some(Mail::Rights { user: user.clone() }),
                    _ => None,
                });
                self.scripts.mail.extend(rights);
                let (later, now) = mails.into_iter().partition(|mail| mail.awaits(token));
                self.scripts.mail.extend::<Vec<Mail>>(later);
                now
            }
            None if self.scripts.mail.is_empty() => mails,
            None => {
                let mut all = std::mem::take(&mut self.scripts.mail);
                all.append(&mut mails);
                all
            }
        }
    }
}

impl Meanwhile for Worker {
    #[cold]
    fn serve_meanwhile(&mut self, long: bool) {
        self.scripts.served = true;
        self.scripts.long = long;
        self.scripts.turn = false;
        let mut events = Events::with_capacity(256);
        let mut readable = self.wait_for_events(&mut events, Duration::ZERO);
        readable.retain(|token| !self.scripts.runs_at(*token));
        self.executor.refresh();
        if !readable.is_empty() || !self.turns.is_empty() {
            let mut gathered = vec![0; ROOM];
            let mut from = 0;
            while from < readable.len() {
                from += self.round(&mut gathered, &readable[from..]);
            }
            self.serve_those_behind(&mut gathered);
        }
        self.read_mail();
        // Some of them may want something else.
        for token in std::mem::take(&mut self.scripts.unseen) {
            if self.connections[token].as_ref().is_some_and(|c| c.hold.is_none()) {
                self.go_on(token);
            }
        }
        // They are told that a script runs, once that is due.
        let waiting = if long { std::mem::take(&mut self.scripts.waiting) } else { VecDeque::new() };
        for token in waiting {
            if self.connections[token].as_ref().is_some_and(|c| c.hold.is_none()) {
                self.go_on(token);
            }
        }
        if self.deadlines.next().is_some() {
            self.meet_deadlines(Instant::now());
        }
        self.hand_over();
        self.release_held();
    }
}

/// Whether what MULTI has queued is long, or runs scripts.
fn may_take_long(c: &Connection) -> bool {
    let multi = c.client.multi();
    multi.is_some_and(|multi| {
        multi.is_long() || multi.queue.iter().any(|queued| queued.command.has(flags::RUNS_SCRIPT))
    })
}
