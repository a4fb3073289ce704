//! The stream on its way from the log to the socket of one replica.
//!
//! The thread that has appended to the log also writes to the sockets of the replicas: a worker does so after a batch
//! of commands and before it sends their replies, so that what was acknowledged survives the end of this process
//! (`reply-after-handover`). If a socket is full, the link's task sends the rest, and the replies to those writes
//! wait, but for no longer than [`STALLED`]: then the replica counts as out of sync, and no reply waits for it until
//! it has caught up.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::keyspace::Log;
use crate::keyspace::log::{Gone, Reader, Takes};
use crate::server::net::link::Link;
use crate::server::node::Node;

/// How long replies wait for a replica whose socket takes nothing.
pub(super) const STALLED: Duration = Duration::from_millis(100);
/// What is read from the log at once.
const READ_SIZE: usize = 256 * 1024;
/// What one call hands over at most: the rest is the task's, because a worker has other things to do.
const HAND_OVER_MAX: u64 = 1 << 20;

/// How far the stream is.
#[derive(Debug)]
pub(super) enum Flow {
    /// The socket has everything, or the stream has not begun.
    InSync,
    /// The socket is full.
    Behind,
    /// What comes next is not kept, or another history has begun.
    Lost,
    Broken(io::Error),
}

/// The sending side of a replica's link. See the module.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: Link,
    log: Arc<Log>,
    sent: Arc<AtomicU64>,
    state: Mutex<Flowing>,
    /// The link's task must look at it.
    attention: Notify,
}

#[derive(Debug, Default)]
struct Flowing {
    /// Its place in the log, once it follows the stream.
    reader: Option<Reader>,
    /// What came before the stream is sent.
    flows: bool,
    /// Whether replies wait for this replica while it is in sync (`reply-after-handover`), and whether they do
    /// at this moment.
    awaited: bool,
    awaited_now: bool,
    /// The end of the log when the socket was full and had all before; and when that was.
    behind: Option<(u64, Instant)>,
    lost: bool,
    broken: Option<io::Error>,
}

/// What the log wakes when it has grown.
struct HandOver(Weak<Outlet>);

impl Wake for HandOver {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(outlet) = self.0.upgrade() {
            outlet.hand_over_once();
        }
    }
}

impl Outlet {
    pub(super) fn new(node: &Node, socket: Link) -> Arc<Self> {
        Arc::new(Self {
            socket,
            log: Arc::clone(&node.shared.keyspace.log),
            sent: Arc::clone(&node.peers.replication.output_bytes),
            state: Mutex::default(),
            attention: Notify::new(),
        })
    }

    pub(super) fn socket(&self) -> &Link {
        &self.socket
    }

    /// Resolves when the socket was full or the stream cannot go on.
    pub(super) async fn wants_attention(&self) {
        self.attention.notified().await;
    }

    /// Reserves the stream from `offset` on, which must be kept.
    pub(super) fn reserve(self: &Arc<Self>, offset: u64) {
        let waker = Arc::new(HandOver(Arc::downgrade(self))).into();
        let reader = self.log.register(Takes::Everything, offset, waker);
        self.state.lock().reader = Some(reader);
    }

    /// Begins to send what was reserved: all that comes before it is sent.
    pub(super) fn begin(&self) {
        self.state.lock().flows = true;
        self.attention.notify_one();
    }

    /// Where in the log it is; `None` before it follows the stream.
    pub(super) fn position(&self) -> Option<u64> {
        self.state.lock().reader.as_ref().map(Reader::position)
    }

    /// Ends the stream: the log keeps nothing for it, and no reply waits for it.
    pub(super) fn end(&self) {
        let reader = self.state.lock().reader.take();
        drop(reader);
    }

    /// Whether replies wait for this replica while it is in sync.
    pub(super) fn set_awaited(&self, awaited: bool) {
        let mut state = self.state.lock();
        state.awaited = awaited;
        if !awaited {
            state.wait_no_more();
        }
    }

    /// Hands the socket what it has missed, for the link's task.
    pub(super) fn hand_over(&self) -> Flow {
        let mut state = self.state.lock();
        state.hand_over(self);
        match state.broken.take() {
            Some(e) => Flow::Broken(e),
            None if state.lost => Flow::Lost,
            None if state.behind.is_some() => Flow::Behind,
            None => Flow::InSync,
        }
    }

    /// As [`Outlet::hand_over`], for whoever appended. What is left is the task's.
    fn hand_over_once(&self) {
        let mut state = self.state.lock();
        if !state.flows || state.behind.is_some() || state.lost || state.broken.is_some() {
            return;
        }
        state.hand_over(self);
        if state.behind.is_some() || state.lost || state.broken.is_some() {
            self.attention.notify_one();
        }
    }

    fn write(&self, pieces: &[bytes::Bytes]) -> io::Result<u64> {
        let slices: SmallVec<[IoSlice<'_>; 32]> = pieces.iter().take(32).map(|p| IoSlice::new(p)).collect();
        match self.socket.try_write(&slices)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            n => {
                self.sent.fetch_add(n as u64, Ordering::Relaxed);
                Ok(n as u64)
            }
        }
    }
}

impl Flowing {
    fn hand_over(&mut self, outlet: &Outlet) {
        let mut handed = 0;
        while let Some(reader) = self.reader.as_ref().filter(|_| self.flows) {
            let from = reader.position();
            let taken = match reader.read(READ_SIZE) {
                Ok(taken) => taken,
                Err(Gone::Lost | Gone::Rebased) => {
                    self.lost = true;
                    return self.wait_no_more();
                }
            };
            if taken.pieces.is_empty() {
                self.behind = None;
                self.awaited_now = self.awaited;
                return reader.set_barrier(self.awaited.then_some(from));
            }
            match outlet.write(&taken.pieces) {
                Ok(n) => {
                    reader.advance(from + n);
                    if self.awaited_now {
                        reader.set_barrier(Some(from + n));
                    }
                    handed += n;
                    if handed >= HAND_OVER_MAX {
                        return self.note_behind(outlet.log.end());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return self.note_behind(outlet.log.end());
                }
                Err(e) => {
                    self.broken = Some(e);
                    return self.wait_no_more();
                }
            }
        }
    }

    /// The socket does not have everything up to `end`.
    fn note_behind(&mut self, end: u64) {
        let position = self.reader.as_ref().map_or(u64::MAX, Reader::position);
        match self.behind {
            Some((mark, since)) if position < mark => {
                if since.elapsed() >= STALLED {
                    self.wait_no_more();
                }
            }
            _ => self.behind = Some((end, Instant::now())),
        }
    }

    fn wait_no_more(&mut self) {
        self.awaited_now = false;
        if let Some(reader) = &self.reader {
            reader.set_barrier(None);
        }
    }
}
