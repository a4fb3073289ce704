//! A connection to the node that keys go to, kept open between two MIGRATEs.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Order;

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

/// See the module. `open` counts the connections of all lines (`migrate_cached_sockets`).
pub(super) struct Line<'a> {
    stream: Option<TcpStream>,
    open: &'a AtomicUsize,
}

impl<'a> Line<'a> {
    pub fn new(open: &'a AtomicUsize) -> Self {
        Self { stream: None, open }
    }

    pub fn close(&mut self) {
        if self.stream.take().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
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
            // Redis learns that nobody listens when it writes, and says so.
            self.stream = Some(connect(order).map_err(|e| match e.kind() {
                io::ErrorKind::ConnectionRefused => (Trouble::Write, e.kind()),
                kind => (Trouble::Connect, kind),
            })?);
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let send = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(order.timeout))?;
            stream.set_write_timeout(Some(order.timeout))?;
            stream.write_all(&order.bytes)
        };
        send(stream).map_err(|e| (Trouble::Write, e.kind()))?;
        read_lines(stream, order.head + order.keys, lines).map_err(|e| (Trouble::Read, e.kind()))
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

fn connect(order: &Order) -> io::Result<TcpStream> {
    let target =
        (order.host.as_str(), order.port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&target, order.timeout)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read_lines(stream: &mut TcpStream, number: usize, lines: &mut Vec<String>) -> io::Result<()> {
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
    // Who says more than it was asked is not understood.
    if line.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
