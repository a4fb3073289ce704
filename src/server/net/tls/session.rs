//! One connection's session, without its socket, which each call is handed: what a worker's thread, a task of the
//! control thread and a blocking thread do with theirs is the same.
//!
//! Reading says 0 at the end of the connection, and `WouldBlock` when a socket that does not block has no more.
//! Writing takes what the socket took *whole*: after `WouldBlock`, or fewer bytes than offered, the next call must
//! offer the bytes that were not taken first, as they were. So nothing that was taken is ever left behind here, and
//! who keeps what was not taken needs to know nothing of records.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::Connection;
use smallvec::SmallVec;

/// What a handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shake {
    Done,
    Read,
    Write,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    tls: Connection,
    /// Bytes that are decrypted and not read.
    ready: usize,
    /// The socket had no more when it was last read.
    drained: bool,
    /// Bytes that are encrypted, and whose records the socket has not taken whole.
    owed: usize,
    /// The peer has said that nothing more comes; its socket may stay open.
    ended: bool,
    /// What is wrong with the connection, once what came before was read.
    failure: Option<io::Error>,
}

impl Session {
    pub fn new(tls: impl Into<Connection>) -> Self {
        Self { tls: tls.into(), ready: 0, drained: false, owed: 0, ended: false, failure: None }
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Reading again is of use although no event will say so.
    pub fn has_more(&self) -> bool {
        self.ready > 0 || !self.drained || self.ended || self.failure.is_some()
    }

    /// Goes on with the handshake as far as the socket lets it.
    pub fn shake(&mut self, socket: &mut (impl Read + Write)) -> io::Result<Shake> {
        loop {
            if !self.send(socket)? {
                return Ok(Shake::Write);
            }
            if !self.tls.is_handshaking() {
                return Ok(Shake::Done);
            }
            match self.receive(socket) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Shake::Read),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads what was sent to us.
    pub fn read(&mut self, socket: &mut (impl Read + Write), buf: &mut [u8]) -> io::Result<usize> {
        if self.ready == 0
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        let mut got = self.take(buf)?;
        while got < buf.len() && (got == 0 || !self.drained) {
            match self.receive(socket) {
                Ok(0) if got == 0 => return Ok(0),
                Ok(0) => break,
                Ok(_) => got += self.take(&mut buf[got..])?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if got == 0 => return Err(e),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => {
                    self.failure = Some(e);
                    break;
                }
            }
        }
        Ok(got)
    }

    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ready == 0 {
            return Ok(0);
        }
        let n = self.tls.reader().read(buf)?;
        self.ready -= n;
        Ok(n)
    }

    /// Takes records from the socket and opens them; 0 at the end.
    fn receive(&mut self, socket: &mut (impl Read + Write)) -> io::Result<usize> {
        let mut watched = Watched { socket, drained: false };
        let received = self.tls.read_tls(&mut watched);
        self.drained = watched.drained;
        let n = received?;
        if n == 0 {
            return Ok(0);
        }
        match self.tls.process_new_packets() {
            Ok(state) => {
                self.ready = state.plaintext_bytes_to_read();
                self.ended = state.peer_has_closed();
            }
            Err(e) => {
                // The peer is told why, if it still listens.
                let _ = self.send(socket);
                return Err(io::Error::new(ErrorKind::InvalidData, e));
            }
        }
        // Of the handshake, or an answer to a change of keys. What does not leave now leaves with the next write.
        self.send(socket)?;
        Ok(n)
    }

    /// Sends bytes; see the module.
    pub fn write(&mut self, socket: &mut impl Write, mut bytes: &mut [IoSlice<'_>]) -> io::Result<usize> {
        if !self.send(socket)? || self.tls.is_handshaking() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut done = std::mem::take(&mut self.owed);
        IoSlice::advance_slices(&mut bytes, done);
        while !bytes.is_empty() {
            let n = self.tls.writer().write_vectored(bytes)?;
            if n == 0 {
                break;
            }
            if !self.send(socket)? {
                self.owed = n;
                return if done > 0 { Ok(done) } else { Err(ErrorKind::WouldBlock.into()) };
            }
            IoSlice::advance_slices(&mut bytes, n);
            done += n;
        }
        Ok(done)
    }

    /// As [`Session::write`], of one piece.
    pub fn write_one(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.write(socket, &mut [IoSlice::new(bytes)])
    }

    /// As [`Session::write`], of pieces that stay as they are.
    pub fn write_pieces(&mut self, socket: &mut impl Write, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pieces: SmallVec<[IoSlice<'_>; 32]> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        self.write(socket, &mut pieces)
    }

    /// Nothing more will be written: the peer is told so with what is sent next.
    pub fn end(&mut self) {
        self.tls.send_close_notify();
    }

    /// Hands the socket the records that wait; false when it took them in part.
    pub fn send(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// A socket of which it is noted whether it had less than it was asked for.
struct Watched<'a, S> {
    socket: &'a mut S,
    drained: bool,
}

impl<S: Read> Read for Watched<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.socket.read(buf);
        self.drained = match &result {
            // The end: the next read finds it, too.
            Ok(0) => false,
            Ok(n) => *n < buf.len(),
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        };
        result
    }
}
