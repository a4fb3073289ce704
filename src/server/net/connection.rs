//! A client's connection on its worker: socket, unparsed input, unsent output.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::command::{Client, TimeoutReply};
use crate::keyspace::Log;
use crate::keyspace::watch::Waiter;
use crate::resp::reply::Piece;
use crate::resp::{Progress, Reply};
use crate::server::net::link::Socket;
use crate::server::net::tls::{Session, Shake};
use crate::server::node::connected::{ClientEntry, Clients, Usage};

/// Unsent output that no limit counts, as in Redis, whose clients have a buffer of this size.
pub const FREE_OUTPUT: usize = 16 * 1024;

/// Small replies that wait are put together up to so many bytes: a size of which memory comes in small pages.
const CHUNK: usize = 64 * 1024;

/// What is sent of queued output at once: to copy megabytes into the system takes longer than others should wait.
const SEND_SIZE: usize = 256 * 1024;

/// What carries a client's bytes.
#[derive(Debug)]
pub enum Stream {
    /// Of the ports of clients.
    Tcp(TcpStream),
    /// Of `unixsocket`.
    Unix(UnixStream),
    /// Of `tls-port`.
    Tls(Box<Secured>),
}

/// A connection that speaks TLS.
#[derive(Debug)]
pub struct Secured {
    /// Carries the records.
    pub tcp: TcpStream,
    /// Encrypts and decrypts; it does not own the socket.
    pub session: Session,
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(s) => s,
            Self::Unix(s) => s,
            Self::Tls(s) => &mut s.tcp,
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
            Self::Tls(s) => s.tcp.as_raw_fd(),
        }
    }

    /// The socket, for a runtime of another kind. It must not be registered.
    pub fn into_std(self) -> Socket {
        match self {
            Self::Tcp(s) => Socket::Tcp(s.into()),
            Self::Unix(s) => Socket::Unix(s.into()),
            Self::Tls(s) => Socket::Tls(s.tcp.into(), Box::new(s.session)),
        }
    }

    /// The handshake is not over: nothing of the client's own can be read or written yet.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Self::Tls(s) if s.session.is_handshaking())
    }

    /// Whether, after `n` bytes of `room` were read, there may be more although no event will say so.
    #[inline]
    pub fn may_have_more(&self, n: usize, room: usize) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => n == room,
            // What is decrypted already is no business of the socket's.
            Self::Tls(s) => s.session.has_more(),
        }
    }

    /// Goes on with the handshake.
    pub fn shake(&mut self) -> io::Result<Shake> {
        match self {
            Self::Tls(s) => s.session.shake(&mut s.tcp),
            Self::Tcp(_) | Self::Unix(_) => Ok(Shake::Done),
        }
    }

    /// Sends what TLS itself has to say, if the socket takes it now.
    pub fn send_own(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(s) => s.session.send(&mut s.tcp).map(|_| ()),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// Tells the peer that this is the end, if the socket takes it now.
    pub fn say_end(&mut self) {
        if let Self::Tls(s) = self {
            s.session.end();
            // A peer that is gone need not hear it.
            let _ = s.session.send(&mut s.tcp);
        }
    }

    /// Ends the worker's interest in it.
    pub fn deregister(&mut self, registry: &Registry) {
        // Fails only when it was never registered.
        let _ = registry.deregister(self.source());
    }

    /// As [`io::Read`]; `WouldBlock` when nothing is there.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
            Self::Tls(s) => s.session.read(&mut s.tcp, buf),
        }
    }

    /// As [`io::Write`]; `WouldBlock` when the system takes nothing.
    pub fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
            Self::Tls(s) => s.session.write_one(&mut s.tcp, buf),
        }
    }

    /// As [`Stream::write`]. What was not taken must be offered again as it was: see [`Session`].
    fn write_vectored(&mut self, bufs: &mut [IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write_vectored(bufs),
            Self::Unix(s) => s.write_vectored(bufs),
            Self::Tls(s) => s.session.write(&mut s.tcp, bufs),
        }
    }
}

/// A chunk of unsent output, and the offset of the log that must be passed before it leaves.
#[derive(Debug)]
struct Chunk {
    content: Content,
    not_before: u64,
}

#[derive(Debug)]
enum Content {
    Owned(Vec<u8>),
    Value(Arc<Vec<u8>>),
    Message(Arc<[u8]>),
}

impl Chunk {
    fn new(content: Content, not_before: u64) -> Self {
        Self { content, not_before }
    }

    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Owned(b) => b,
            Content::Value(b) => b,
            Content::Message(b) => b,
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
    /// Everything is sent.
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

    /// The offset of the log that must be passed before anything of this leaves; `None` when nothing waits for
    /// the log.
    pub fn held_until(&self, passed: u64) -> Option<u64> {
        self.chunks.front().map(|chunk| chunk.not_before).filter(|offset| *offset > passed)
    }

    fn push(&mut self, chunk: Chunk) {
        self.len += chunk.bytes().len();
        if let (Content::Owned(new), Some(last)) = (&chunk.content, self.chunks.back_mut())
            && last.not_before == chunk.not_before
            && let Content::Owned(last) = &mut last.content
            && last.len() + new.len() <= CHUNK
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

/// What the system has taken of a client's replies and messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Bytes, before they are encrypted.
    pub bytes: u64,
    /// How often something was sent.
    pub writes: u64,
}

impl Sent {
    #[inline]
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.writes += 1;
    }
}

/// How far the log is as a round's replies leave.
#[derive(Clone, Copy, Debug)]
pub struct LogState {
    /// Where the log ends, bytes since the beginning of its history.
    pub end: u64,
    /// Replies to writes up to here may leave.
    pub passed: u64,
}

impl LogState {
    /// Read at the end of a round, before its replies leave.
    pub fn of(log: &Log) -> Self {
        // In this order: what ends at `end` may be passed, and nothing behind it was written by this worker.
        Self { end: log.end(), passed: log.passed() }
    }

    /// What must be passed before a reply to this client leaves; 0 when nothing must.
    #[inline]
    fn barrier(&self, client: &Client) -> u64 {
        // An offset behind the end is of a history that is no more.
        if client.written_to <= self.passed { 0 } else { client.written_to.min(self.end) }
    }
}

/// A blocked client's command. When its wait ends by time stands in the worker's deadlines.
#[derive(Clone, Debug)]
pub struct Wait {
    /// What its keys know it by.
    pub waiter: Arc<Waiter>,
    /// What the client gets when its time is over.
    pub timeout_reply: TimeoutReply,
}

/// Why a connection runs no further commands for now. `again`: the command of a blocked client that was to be
/// run again, which is no input any more; the client is blocked as before.
#[derive(Debug)]
pub enum Hold {
    /// Blocked on keys.
    Keys(Wait),
    /// Waits for its host, which answers. `blocked`: in a command that is made to wait (WAIT), which ends when
    /// the node becomes a replica.
    Host {
        /// CLIENT LIST shows it as blocked.
        blocked: bool,
    },
    /// The node is paused; the input is tried again.
    Pause {
        /// `None`: it was not blocked before.
        again: Option<Box<Wait>>,
    },
    /// On the board, for a shard or a key that another has: the input is tried again.
    Aside {
        /// `None`: it was not blocked before.
        again: Option<Box<Wait>>,
    },
}

impl Hold {
    /// How a client that is blocked on keys waits.
    pub fn wait(&self) -> Option<&Wait> {
        match self {
            Self::Keys(wait) => Some(wait),
            Self::Pause { again } | Self::Aside { again } => again.as_deref(),
            Self::Host { .. } => None,
        }
    }

    /// Whether the client waits in a command that is made to wait.
    pub fn is_blocked(&self) -> bool {
        self.wait().is_some() || matches!(self, Self::Host { blocked: true })
    }

    /// Whom this client is counted among.
    pub fn counter<'c>(&self, clients: &'c Clients) -> Option<&'c AtomicUsize> {
        match self {
            hold if hold.is_blocked() => Some(&clients.blocked),
            Self::Pause { .. } => Some(&clients.paused),
            _ => None,
        }
    }
}

/// One client on its worker.
#[derive(Debug)]
pub struct Connection {
    /// Non-blocking, registered with the worker's poll.
    pub stream: Stream,
    /// What commands know and change of it.
    pub client: Client,
    /// What other threads see of it.
    pub entry: Arc<ClientEntry>,
    /// Input that is not a complete command yet, or that waits behind a hold.
    pub input: Vec<u8>,
    /// Bytes that `input` must hold before parsing it again is of use.
    pub need: usize,
    /// How far the long request that `input` begins with was looked through.
    pub progress: Option<Progress>,
    /// What the socket has not taken yet.
    pub output: Outbox,
    /// Its output waits for the log, and its worker knows.
    pub held: bool,
    /// `None`: its input runs as it comes.
    pub hold: Option<Hold>,
    /// The command that waits was sent while no reply was wanted (CLIENT REPLY).
    pub mute: bool,
    /// Close once the output is sent.
    pub closing: bool,
    /// Seconds of the worker's clock when the client last sent something.
    pub last_seen: u64,
    /// When the output first exceeded the soft limit.
    pub over_soft_limit_since: Option<u64>,
    /// The socket may have more to read although no event will say so again.
    pub more_to_read: bool,
    /// The peer has said all that it will say: what is read last is the end, of which no event tells again.
    pub read_closed: bool,
    /// It goes behind the others: see `worker::turns`.
    pub behind: bool,
    /// It waits there for its turn.
    pub in_line: bool,
    /// Its input holds requests that it may run at its next turn, before more is read.
    pub unrun: bool,
    /// The socket may take more of its output although no event will say so.
    pub more_to_send: bool,
    /// What was sent and not counted yet.
    pub sent: Sent,
    /// The longest reply of the last seconds, and the second of it.
    pub reply_peak: (usize, u64),
    /// What the node was last told of the memory that it takes.
    pub usage: Usage,
}

impl Connection {
    /// What it takes at this moment.
    fn measure(&self) -> Usage {
        // What a channel or pattern takes beside its name, which its listeners share.
        const SUBSCRIPTION: usize = 64;
        let wait = self.hold.as_ref().and_then(Hold::wait);
        let argv = wait.map_or(0, |wait| wait.waiter.argv.iter().map(Vec::len).sum());
        let multi = self
            .client
            .multi()
            .map_or(0, |multi| multi.bytes + multi.queue.len() * size_of::<crate::command::client::Queued>());
        let unsent = self.output.len();
        let listed = unsent.saturating_sub(FREE_OUTPUT);
        let pieces = if listed > 0 { self.output.chunks.len() } else { 0 };
        let fixed = size_of::<Self>() + size_of::<ClientEntry>() + self.client.subscriptions() * SUBSCRIPTION;
        Usage {
            query: self.input.len(),
            query_free: self.input.capacity() - self.input.len(),
            argv,
            multi,
            output: unsent - listed,
            listed: listed + pieces * size_of::<Chunk>(),
            pieces,
            reply_peak: self.reply_peak.0,
            total: fixed + self.input.capacity() + argv + multi + unsent + pieces * size_of::<Chunk>(),
        }
    }

    /// Tells the node what it takes, if that has changed.
    #[inline]
    pub fn note_usage(&mut self, clients: &Clients, second: u64) {
        let usage = self.measure();
        if usage != self.usage {
            self.tell_usage(usage, clients, second);
        }
    }

    fn tell_usage(&mut self, usage: Usage, clients: &Clients, second: u64) {
        let before = std::mem::replace(&mut self.usage, usage);
        clients.count_memory(before.total, usage.total);
        if usage.query + usage.output + usage.listed > 0 {
            clients.note_buffers(second, usage.query + usage.query_free, usage.listed);
        }
        *self.entry.usage.lock() = usage;
    }

    /// Queues bytes behind what is not sent, without sending. Short messages are gathered.
    pub fn queue_message(&mut self, bytes: Arc<[u8]>) {
        let content =
            if bytes.len() <= 1024 { Content::Owned(bytes.to_vec()) } else { Content::Message(bytes) };
        self.output.push(Chunk::new(content, 0));
    }

    /// Queues a reply without sending.
    pub fn queue_reply(&mut self, reply: &mut Reply, log: &LogState) {
        self.queue_segment(reply, 0, reply.len(), log.barrier(&self.client));
    }

    fn queue_segment(&mut self, reply: &mut Reply, from: usize, to: usize, not_before: u64) {
        for piece in reply.take(from, to) {
            let content = match piece {
                Piece::Owned(bytes) => Content::Owned(bytes),
                Piece::Shared(value) => Content::Value(value),
            };
            self.output.push(Chunk::new(content, not_before));
        }
    }

    /// Sends a part of a reply buffer, unless it must wait for the log; what the socket does not take is queued.
    #[inline]
    pub fn send_segment(
        &mut self,
        reply: &mut Reply,
        from: usize,
        to: usize,
        log: &LogState,
    ) -> io::Result<()> {
        let not_before = log.barrier(&self.client);
        if !self.output.is_empty() || !reply.is_plain() || not_before > 0 || to - from > SEND_SIZE {
            self.queue_segment(reply, from, to, not_before);
            return self.flush(log.passed);
        }
        let bytes = &reply.bytes()[from..to];
        match self.stream.write(bytes) {
            Ok(n) if n == bytes.len() => {
                self.sent.add(n);
                Ok(())
            }
            Ok(n) => {
                self.sent.add(n);
                self.output.push(Chunk::new(Content::Owned(bytes[n..].to_vec()), 0));
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.output.push(Chunk::new(Content::Owned(bytes.to_vec()), 0));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Sends what is queued, up to what must wait for more of the log than is passed, until the socket takes no
    /// more, or it was enough for now ([`Connection::more_to_send`]).
    pub fn flush(&mut self, passed: u64) -> io::Result<()> {
        let before = self.output.len();
        let ended = self.flush_queued(passed);
        let sent = before - self.output.len();
        if sent > 0 {
            self.sent.add(sent);
        }
        ended
    }

    fn flush_queued(&mut self, passed: u64) -> io::Result<()> {
        let mut left = SEND_SIZE;
        self.more_to_send = false;
        while !self.output.is_empty() && self.output.held_until(passed).is_none() {
            let mut slices: smallvec::SmallVec<[IoSlice<'_>; 16]> = smallvec::SmallVec::new();
            let free = self.output.chunks.iter().take_while(|chunk| chunk.not_before <= passed);
            let mut room = SEND_SIZE;
            for (i, chunk) in free.take(16).enumerate() {
                if room == 0 {
                    break;
                }
                let unsent = &chunk.bytes()[if i == 0 { self.output.sent } else { 0 }..];
                let now = &unsent[..unsent.len().min(room)];
                room -= now.len();
                slices.push(IoSlice::new(now));
            }
            let written = self.stream.write_vectored(&mut slices);
            drop(slices);
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.output.advance(n);
                    left = left.saturating_sub(n);
                    if left == 0 {
                        self.more_to_send = !self.output.is_empty();
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = Client::default();
        let connection = Connection {
            stream: Stream::Unix(ours),
            entry: Clients::default().add(&client, -1),
            client,
            input: Vec::new(),
            need: 0,
            progress: None,
            output: Outbox::default(),
            held: false,
            hold: None,
            mute: false,
            closing: false,
            last_seen: 0,
            over_soft_limit_since: None,
            more_to_read: false,
            read_closed: false,
            behind: false,
            in_line: false,
            unrun: false,
            more_to_send: false,
            sent: Sent::default(),
            reply_peak: (0, 0),
            usage: Usage::default(),
        };
        (connection, theirs)
    }

    fn reply(text: &str) -> Reply {
        let mut reply = Reply::new();
        reply.simple(text);
        reply
    }

    fn arrived(theirs: &mut UnixStream) -> String {
        let mut buffer = [0; 4096];
        let n = theirs.read(&mut buffer).unwrap_or(0);
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    #[test]
    fn a_reply_waits_for_the_log_and_what_follows_waits_behind_it() {
        let (mut c, mut theirs) = pair();
        let send = |c: &mut Connection, text: &str, end, passed| {
            let mut reply = reply(text);
            let len = reply.len();
            c.send_segment(&mut reply, 0, len, &LogState { end, passed }).unwrap();
        };
        send(&mut c, "read", 100, 50);
        assert_eq!(arrived(&mut theirs), "+read\r\n", "nothing was written");
        c.client.written_to = 80;
        send(&mut c, "write", 100, 50);
        c.queue_message(Arc::from(&b"+message\r\n"[..]));
        c.client.written_to = 100;
        send(&mut c, "another", 100, 60);
        assert_eq!((arrived(&mut theirs), c.output.held_until(60)), (String::new(), Some(80)));
        c.flush(80).unwrap();
        assert_eq!(arrived(&mut theirs), "+write\r\n+message\r\n");
        assert_eq!(c.output.held_until(80), Some(100));
        c.flush(u64::MAX).unwrap();
        assert_eq!((arrived(&mut theirs).as_str(), c.output.is_empty()), ("+another\r\n", true));
    }

    #[test]
    fn an_offset_of_a_former_history_holds_nothing_back() {
        let (mut c, mut theirs) = pair();
        c.client.written_to = 5000;
        let mut reply = reply("read");
        let len = reply.len();
        c.send_segment(&mut reply, 0, len, &LogState { end: 100, passed: 100 }).unwrap();
        assert_eq!(arrived(&mut theirs), "+read\r\n");
    }
}
