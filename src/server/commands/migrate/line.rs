//! A connection to the node that keys go to, kept open between two MIGRATEs.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;

use super::Order;
use crate::server::net::tls::{Session, Shake};
use crate::server::node::Node;

/// The longest error that a peer is heard out for.
const MAX_LINE: usize = 4096;

/// Where the connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Connect,
    Write,
    Read,
}

impl Trouble {
    /// What the client is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Connect => "IOERR error or timeout connecting to the client",
            Self::Write => "IOERR error or timeout writing to target instance",
            Self::Read => "IOERR error or timeout reading to target instance",
        }
    }
}

/// What the peer answered, one line a command, and what ended that too early.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub lines: Vec<String>,
    pub trouble: Option<Trouble>,
}

/// See the module. The connections of all lines are counted (`migrate_cached_sockets`).
pub(super) struct Line<'a> {
    stream: Option<Wire>,
    node: &'a Node,
}

/// What carries the keys: TLS where the cluster's links have it.
struct Wire {
    socket: TcpStream,
    session: Option<Session>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.socket.read(buf),
            Some(session) => session.read(&mut self.socket, buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.socket.write(buf),
            Some(session) => session.write_one(&mut self.socket, buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Line<'a> {
    pub fn new(node: &'a Node) -> Self {
        Self { stream: None, node }
    }

    pub fn close(&mut self) {
        if self.stream.take().is_some() {
            self.node.peers.couriers.sockets.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Sends everything and reads as many answers.
    pub fn exchange(&mut self, order: &Order) -> Answers {
        let kept = self.stream.is_some();
        let mut answers = Answers::default();
        let Err((trouble, error)) = self.attempt(order, &mut answers.lines) else { return answers };
        self.close();
        // The peer may have closed a connection that was silent for some time.
        let timed_out = matches!(error, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if kept && answers.lines.is_empty() && !timed_out {
            return self.exchange(order);
        }
        answers.trouble = Some(trouble);
        answers
    }

    fn attempt(&mut self, order: &Order, lines: &mut Vec<String>) -> Result<(), (Trouble, io::ErrorKind)> {
        if self.stream.is_none() {
            // Redis learns that nobody listens when it writes, and says so; over TLS it has written before.
            let plain = !self.node.config.load().tls_cluster;
            self.stream = Some(self.connect(order).map_err(|e| match e.kind() {
                io::ErrorKind::ConnectionRefused if plain => (Trouble::Write, e.kind()),
                kind => (Trouble::Connect, kind),
            })?);
            self.node.peers.couriers.sockets.fetch_add(1, Ordering::Relaxed);
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let send = |stream: &mut Wire| {
            set_timeouts(&stream.socket, order)?;
            stream.write_all(&order.bytes)
        };
        send(stream).map_err(|e| (Trouble::Write, e.kind()))?;
        read_lines(stream, order.head + order.keys, lines).map_err(|e| (Trouble::Read, e.kind()))
    }

    fn connect(&self, order: &Order) -> io::Result<Wire> {
        let session = self.node.peers.tls.towards(self.node.config.load().tls_cluster, &order.host)?;
        let target =
            (order.host.as_str(), order.port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let mut socket = TcpStream::connect_timeout(&target, order.timeout)?;
        socket.set_nodelay(true)?;
        set_timeouts(&socket, order)?;
        let Some(mut session) = session else { return Ok(Wire { socket, session: None }) };
        match session.shake(&mut socket)? {
            Shake::Done => Ok(Wire { socket, session: Some(session) }),
            Shake::Read | Shake::Write => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

fn set_timeouts(socket: &TcpStream, order: &Order) -> io::Result<()> {
    socket.set_read_timeout(Some(order.timeout))?;
    socket.set_write_timeout(Some(order.timeout))
}

fn read_lines(stream: &mut Wire, number: usize, lines: &mut Vec<String>) -> io::Result<()> {
    let (mut line, mut buf) = (Vec::new(), [0u8; 4096]);
    while lines.len() < number {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for &b in &buf[..n] {
            match b {
                b'\n' if lines.len() < number => {
                    lines.push(String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned());
                }
                b'\r' => {}
                _ if line.len() < MAX_LINE => line.push(b),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
    // A node that answers more than it was asked is not understood.
    if line.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
