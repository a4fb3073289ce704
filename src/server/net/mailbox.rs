//! Messages to a worker from other threads: new connections, published messages, answers to
//! clients that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Instant;

use mio::Waker;
use parking_lot::Mutex;

use crate::keyspace::watch::Waiter;
use crate::resp::Reply;
use crate::server::net::connection::Stream;

/// Counts a connection that no worker has taken on yet, until it is dropped.
#[derive(Debug)]
pub struct Waits(Arc<AtomicUsize>);

impl Waits {
    /// Counts one more.
    pub fn counted(in_all: &Arc<AtomicUsize>) -> Self {
        in_all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(in_all))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One message. `token` is the place of a connection on its worker, `client` the id that must be there: a message
/// for one that has gone is dropped. `written_to` is an offset of the log.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are told above and by their variants")]
pub enum Mail {
    /// A connection that was accepted for this worker; or one that is to be told why it is not.
    Accepted { stream: Stream, peer: String, local: String, refusal: Option<&'static str>, waits: Waits },
    /// Bytes for a client outside its replies (a published message).
    Push { token: usize, client: u64, bytes: Arc<[u8]> },
    /// What a blocked client's command answered, and the end of the log behind what it wrote.
    Unblocked { waiter: Arc<Waiter>, reply: Reply, written_to: u64 },
    /// Keys that this client, or one whose invalidations are `redirected` to it, has read are stale; `None`: all.
    Stale { token: usize, client: u64, keys: Option<Arc<[Box<[u8]>]>>, redirected: bool },
    /// The client to whom this one's invalidations go is gone.
    RedirectionBroken { token: usize, client: u64, redirect: u64 },
    /// A blocked client's command may succeed now.
    Retry { waiter: Arc<Waiter> },
    /// A client whose command was suspended gets its reply and goes on. `written_to`: the end of the log behind
    /// what was written for it, or 0.
    Resume { token: usize, client: u64, reply: Reply, written_to: u64 },
    /// A client is to be closed (CLIENT KILL); `after_reply`: once its output is written.
    Kill { token: usize, client: u64, after_reply: bool },
    /// A client that waits for keys goes on with nothing (CLIENT UNBLOCK).
    Unblock { token: usize, client: u64, with_error: bool, claimed: bool },
    /// The node has become a replica: blocked clients are let go with an error.
    Demoted,
    /// What users may do has changed: of this one, or of all.
    Rights { user: Option<Arc<str>> },
    /// Do nothing until then (DEBUG SLEEP).
    Sleep(Instant),
    /// A new view of the cluster: blocked clients whose slot has left are sent away.
    SlotsChanged,
    /// The slot of a channel that a client listens to has left: SUNSUBSCRIBE, without being asked.
    ChannelLeft { token: usize, client: u64, channel: Arc<[u8]> },
    /// Clients that were postponed may try again.
    Unpaused,
    /// A client that was put aside for a shard or a key may try again.
    Free { token: usize, client: u64 },
    /// To be dropped once the round in which it comes is over, which tells the sender.
    Settle(tokio::sync::mpsc::Sender<()>),
    /// Close everything and end.
    Shutdown,
}

impl Mail {
    /// Whether it is about what has happened, and concerns one connection: what it was about came before all that
    /// is read from a connection from now on.
    fn is_news(&self) -> bool {
        matches!(self, Self::Push { .. } | Self::Stale { .. } | Self::Unblocked { .. })
    }

    /// Whether this must wait until the worker is through with what the connection at `token` runs.
    pub fn awaits(&self, token: usize) -> bool {
        match self {
            Self::Push { token: of, .. }
            | Self::Stale { token: of, .. }
            | Self::RedirectionBroken { token: of, .. }
            | Self::Resume { token: of, .. }
            | Self::Kill { token: of, .. }
            | Self::Unblock { token: of, .. }
            | Self::ChannelLeft { token: of, .. }
            | Self::Free { token: of, .. } => *of == token,
            Self::Unblocked { waiter, .. } | Self::Retry { waiter } => waiter.token == token,
            // The round is not over.
            Self::Settle(_) => true,
            Self::Accepted { .. }
            | Self::Demoted
            | Self::Rights { .. }
            | Self::Sleep(_)
            | Self::SlotsChanged
            | Self::Unpaused
            | Self::Shutdown => false,
        }
    }
}

/// The way to a worker.
#[derive(Debug)]
pub struct Mailbox {
    mails: Mutex<Vec<Mail>>,
    waker: Waker,
    /// Whether the worker was woken and has not looked yet.
    rung: AtomicBool,
}

impl Mailbox {
    /// An empty one. `waker` ends the wait of its worker's poll.
    pub fn new(waker: Waker) -> Self {
        Self { mails: Mutex::default(), waker, rung: AtomicBool::new(false) }
    }

    /// Puts a message in and wakes the worker, unless it was woken and has not looked yet.
    pub fn send(&self, mail: Mail) {
        self.mails.lock().push(mail);
        self.ring();
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A waker fails only when its poll is gone: the node is ending.
            let _ = self.waker.wake();
        }
    }

    /// Takes the news that stand before any other message.
    pub fn take_news(&self) -> Vec<Mail> {
        if !self.rung.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut mails = self.mails.lock();
        let end = mails.iter().position(|mail| !mail.is_news()).unwrap_or(mails.len());
        mails.drain(..end).collect()
    }

    /// Takes all messages.
    pub fn take(&self) -> Vec<Mail> {
        if !self.rung.load(Ordering::Relaxed) || !self.rung.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.mails.lock())
    }
}

/// Wakes the worker without a message: it looks itself.
impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}
