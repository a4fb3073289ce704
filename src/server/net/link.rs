//! A connection of the control thread: to a peer, or of a replica that has left its worker. Plain or TLS, it is read
//! and written without blocking, by whoever shares it.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use crate::server::net::tls::{Session, Shake};

/// A socket that has left its worker.
#[derive(Debug)]
pub enum Socket {
    /// From a port of ours, or to one of the primary's.
    Tcp(std::net::TcpStream),
    /// From the socket of `unixsocket`.
    Unix(std::os::unix::net::UnixStream),
    /// As `Tcp`, encrypted.
    Tls(std::net::TcpStream, Box<Session>),
}

/// See the module. Any thread may write.
#[derive(Debug)]
pub enum Link {
    /// As that of [`Socket`], like the others here.
    Tcp(TcpStream),
    /// Of a peer on the same machine.
    Unix(UnixStream),
    /// Encrypted; the lock is held for one call.
    Tls(TcpStream, Box<Mutex<Session>>),
}

impl Socket {
    /// Call in the control thread's runtime. `delay`: small packets may be gathered.
    pub fn adopt(self, delay: bool) -> io::Result<Link> {
        let tcp = |s: std::net::TcpStream| {
            s.set_nonblocking(true)?;
            s.set_nodelay(!delay)?;
            TcpStream::from_std(s)
        };
        Ok(match self {
            Self::Tcp(s) => Link::Tcp(tcp(s)?),
            Self::Unix(s) => {
                s.set_nonblocking(true)?;
                Link::Unix(UnixStream::from_std(s)?)
            }
            Self::Tls(s, session) => Link::Tls(tcp(s)?, Box::new(Mutex::new(*session))),
        })
    }
}

impl Link {
    /// A connection of its own, after the handshake of `session` if there is to be TLS.
    pub async fn secured(socket: TcpStream, session: Option<Session>) -> io::Result<Self> {
        // Messages are small and must not wait for others.
        socket.set_nodelay(true)?;
        let Some(mut session) = session else { return Ok(Self::Tcp(socket)) };
        loop {
            match session.shake(&mut Tries(&socket))? {
                Shake::Done => return Ok(Self::Tls(socket, Box::new(Mutex::new(session)))),
                Shake::Read => socket.readable().await?,
                Shake::Write => socket.writable().await?,
            }
        }
    }

    /// Both ends, the peer's first; of a TCP connection.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(s) | Self::Tls(s, _) => Ok((s.peer_addr()?, s.local_addr()?)),
            Self::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Has the kernel take no more than about `bytes` that it has not sent yet; 0: as many as it likes.
    pub fn limit_unsent(&self, bytes: u32) -> io::Result<()> {
        match self {
            Self::Tcp(s) | Self::Tls(s, _) => SockRef::from(s).set_tcp_notsent_lowat(bytes),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Waits until it may be read.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.readable().await,
            Self::Unix(s) => s.readable().await,
            Self::Tls(_, session) if session.lock().has_more() => Ok(()),
            Self::Tls(s, _) => s.readable().await,
        }
    }

    /// Waits until it may be written.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) | Self::Tls(s, _) => s.writable().await,
            Self::Unix(s) => s.writable().await,
        }
    }

    /// Reads what has come; 0 at the end.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_read(buffer),
            Self::Unix(s) => s.try_read(buffer),
            Self::Tls(s, session) => session.lock().read(&mut Tries(s), buffer),
        }
    }

    /// Writes what the socket takes at once. What it did not take must be offered again as it was: see [`Session`].
    pub fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_write_vectored(bytes),
            Self::Unix(s) => s.try_write_vectored(bytes),
            Self::Tls(s, session) => session.lock().write_pieces(&mut Tries(s), bytes),
        }
    }

    /// Reads what comes next; 0 at the end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.readable().await?;
            match self.try_read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Writes everything. A caller that does not wait for the end of it must not write again.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(&[IoSlice::new(bytes)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A socket of tokio as one that does not block.
struct Tries<'a>(&'a TcpStream);

impl Read for Tries<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Tries<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_packets_are_gathered_only_where_that_is_asked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for delay in [false, true] {
            let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let Link::Tcp(stream) = Socket::Tcp(socket).adopt(delay).unwrap() else { unreachable!() };
            assert_eq!(stream.nodelay().unwrap(), !delay);
        }
    }
}
