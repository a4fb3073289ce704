//! What an executor asks of the thread that it runs on, and what it tells that thread of a connection.

use std::sync::Arc;
use std::time::Duration;

use super::observe::Seen;
use super::rights::Denied;
use crate::command::TimeoutReply;
use crate::keyspace::db::Notice;
use crate::keyspace::tracking::{Changed, Stale};
use crate::keyspace::watch::Waiter;
use crate::resp::Reply;

/// What the executor needs of the thread that it runs on: a worker, or one that loads or applies a stream.
pub trait Host {
    /// Sends a blocked client what its command answered. `written_to` is the end of the log behind what the
    /// command wrote; 0 when it wrote nothing.
    fn deliver(&mut self, waiter: &Arc<Waiter>, reply: Reply, written_to: u64);

    /// Publishes an event of a key. Must take no shard lock.
    fn notify(&mut self, notice: &Notice);

    /// Asks the owner of a blocked client to run its command again.
    fn retry(&mut self, waiter: &Arc<Waiter>);

    /// Sends invalidations of these keys, or of all if `flushed`, to the clients that track them. `writer`: the
    /// client whose command changed them, or 0. Must take no shard lock.
    fn invalidate(&mut self, stale: &[Stale], flushed: bool, writer: u64);

    /// Tells clients that track by prefix (BCAST) that these keys have changed. Must take no shard lock.
    fn broadcast(&mut self, changed: &[Changed]);

    /// Shows a call that took at least [`Observers::long_from`](super::observe::Observers::long_from).
    fn took_long(&mut self, seen: &Seen<'_>);

    /// Shows a call while somebody monitors. Must take no shard lock.
    fn ran(&mut self, seen: &Seen<'_>);

    /// What ran from now on may have to begin anew: it is shown once [`Host::show_held`] says that it stays.
    fn hold_shown(&mut self) {}

    /// Shows what was held, or forgets it; what runs from now on is shown at once.
    fn show_held(&mut self, _stays: bool) {}

    /// Notes that a user was not allowed to run a command. Must take no shard lock.
    fn denied(&mut self, denied: &Denied<'_>);

    /// Tells how long the node did something by itself, by the name of the event for the latency monitor.
    fn did(&mut self, event: &'static str, nanos: u64);

    /// Is called every now and then while a script or a long transaction runs: a worker serves its other clients
    /// then. `long`: it has run for longer than `busy-reply-threshold`.
    fn meanwhile(&mut self, _long: bool) {}
}

/// What is to happen to the connection after a command.
#[derive(Debug)]
pub enum After {
    /// The reply is complete.
    Done,
    /// The client waits.
    Blocked(Box<Blocked>),
    /// The connection waits for something else that its host knows (WAIT, a paused node); nothing
    /// more of it is run until the host says so.
    Suspended,
    /// Run the same command again later: the node is paused.
    Postponed,
    /// Run the same command again when the client, which is on the board, is woken.
    Aside,
    /// The connection leaves its worker for a replication link.
    Detached,
}

/// How a client waits.
#[derive(Debug)]
pub struct Blocked {
    /// Registered with the keys.
    pub waiter: Arc<Waiter>,
    /// How long from now on; `None`: without limit.
    pub timeout: Option<Duration>,
    /// What it gets when the time is over.
    pub timeout_reply: TimeoutReply,
}
