//! A client's connection on its worker: socket, unparsed input, unsent output.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::command::{Client, TimeoutReply};
use crate::keyspace::watch::Waiter;
use crate::resp::reply::Piece;
use crate::resp::{Progress, Reply};
use crate::server::control::replication::Socket;
use crate::server::node::clients::ClientEntry;

/// A socket of either family.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(s) => s,
            Self::Unix(s) => s,
        }
    }

    /// Registers for both directions once: readiness is edge-triggered.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.source(), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// The number of the descriptor.
    pub fn fd(&self) -> i32 {
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Unix(s) => s.as_raw_fd(),
        }
    }

    /// The socket, for a runtime of another kind. It must not be registered.
    pub fn into_std(self) -> Socket {
        match self {
            Self::Tcp(s) => Socket::Tcp(s.into()),
            Self::Unix(s) => Socket::Unix(s.into()),
        }
    }

    pub fn deregister(&mut self, registry: &Registry) {
        // Fails only when it was never registered.
        let _ = registry.deregister(self.source());
    }

    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
        }
    }

    pub fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write_vectored(bufs),
            Self::Unix(s) => s.write_vectored(bufs),
        }
    }
}

/// A chunk of unsent output.
#[derive(Debug)]
enum Chunk {
    Owned(Vec<u8>),
    Value(Arc<Vec<u8>>),
    Message(Arc<[u8]>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(b) => b,
            Self::Value(b) => b,
            Self::Message(b) => b,
        }
    }
}

/// Output that the socket did not take yet.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are sent.
    sent: usize,
    len: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// What is not sent, in one piece.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len);
        for (i, chunk) in self.chunks.iter().enumerate() {
            out.extend_from_slice(&chunk.bytes()[if i == 0 { self.sent } else { 0 }..]);
        }
        out
    }

    /// Bytes not sent.
    pub fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, chunk: Chunk) {
        self.len += chunk.bytes().len();
        if let (Chunk::Owned(new), Some(Chunk::Owned(last))) = (&chunk, self.chunks.back_mut())
            && last.len() + new.len() <= 16 * 1024
        {
            last.extend_from_slice(new);
            return;
        }
        self.chunks.push_back(chunk);
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while n > 0 {
            let first =
                self.chunks.front().expect("no more was sent than there was").bytes().len() - self.sent;
            if n < first {
                self.sent += n;
                return;
            }
            n -= first;
            self.sent = 0;
            self.chunks.pop_front();
        }
    }
}

/// Why a connection runs no further commands for now.
#[derive(Debug)]
pub enum Hold {
    /// Blocked on keys. When that ends by time stands in the worker's deadlines.
    Keys { waiter: Arc<Waiter>, timeout_reply: TimeoutReply },
    /// Waits for its host (WAIT); the host answers.
    Host,
    /// The node is paused; the input is tried again.
    Pause,
    /// On the board, for a shard or a key that another has: the input is tried again. `again`: the command
    /// of a blocked client, which is no input any more, and when its wait ends.
    Aside { again: Option<Box<(Arc<Waiter>, Option<Instant>)>> },
}

/// One client on its worker.
#[derive(Debug)]
pub struct Connection {
    pub stream: Stream,
    pub client: Client,
    pub entry: Arc<ClientEntry>,
    /// Input that is not a complete command yet, or that waits behind a hold.
    pub input: Vec<u8>,
    /// Bytes that `input` must hold before parsing it again is of use.
    pub need: usize,
    /// How far the long request that `input` begins with was looked through.
    pub progress: Option<Progress>,
    pub output: Outbox,
    pub hold: Option<Hold>,
    /// Close once the output is sent.
    pub closing: bool,
    /// Seconds of the worker's clock when the client last sent something.
    pub last_seen: u64,
    /// When the output first exceeded the soft limit.
    pub over_soft_limit_since: Option<u64>,
    /// The socket may have more to read although no event will say so again.
    pub more_to_read: bool,
}

impl Connection {
    /// Queues bytes behind what is not sent, without sending. Short messages are gathered.
    pub fn queue_message(&mut self, bytes: Arc<[u8]>) {
        self.output.push(if bytes.len() <= 1024 {
            Chunk::Owned(bytes.to_vec())
        } else {
            Chunk::Message(bytes)
        });
    }

    pub fn queue_reply(&mut self, reply: &Reply) {
        self.queue_segment(reply, 0, reply.len());
    }

    fn queue_segment(&mut self, reply: &Reply, from: usize, to: usize) {
        for piece in reply.segment(from, to) {
            self.output.push(match piece {
                Piece::Bytes(b) => Chunk::Owned(b.to_vec()),
                Piece::Shared(v) => Chunk::Value(Arc::clone(v)),
            });
        }
    }

    /// Sends a part of a reply buffer; what the socket does not take is queued.
    #[inline]
    pub fn send_segment(&mut self, reply: &Reply, from: usize, to: usize) -> io::Result<()> {
        if !self.output.is_empty() || !reply.is_plain() {
            self.queue_segment(reply, from, to);
            return self.flush();
        }
        let bytes = &reply.bytes()[from..to];
        match self.stream.write(bytes) {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(n) => {
                self.output.push(Chunk::Owned(bytes[n..].to_vec()));
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.output.push(Chunk::Owned(bytes.to_vec()));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Sends what is queued until the socket takes no more.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let mut slices: smallvec::SmallVec<[IoSlice<'_>; 16]> = smallvec::SmallVec::new();
            for (i, chunk) in self.output.chunks.iter().take(16).enumerate() {
                slices.push(IoSlice::new(&chunk.bytes()[if i == 0 { self.output.sent } else { 0 }..]));
            }
            let written = self.stream.write_vectored(&slices);
            drop(slices);
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.output.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
