//! The socket of a replica: it has left its worker, and is read and written without blocking.

use std::io::{self, IoSlice};

/// A socket that has left its worker.
#[derive(Debug)]
pub enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// The same, watched by the control thread. Any thread may write.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    /// Call in the control thread's runtime. `delay`: small packets may be gathered.
    pub(super) fn adopt(self, delay: bool) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(s) => {
                s.set_nonblocking(true)?;
                s.set_nodelay(!delay)?;
                Stream::Tcp(tokio::net::TcpStream::from_std(s)?)
            }
            Self::Unix(s) => {
                s.set_nonblocking(true)?;
                Stream::Unix(tokio::net::UnixStream::from_std(s)?)
            }
        })
    }
}

impl Stream {
    /// Waits until it may be written.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.writable().await,
            Self::Unix(s) => s.writable().await,
        }
    }

    /// Writes what the socket takes at once.
    pub(super) fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_write_vectored(bytes),
            Self::Unix(s) => s.try_write_vectored(bytes),
        }
    }

    /// Reads what comes next; 0 at the end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Tcp(s) => {
                    s.readable().await?;
                    s.try_read(buffer)
                }
                Self::Unix(s) => {
                    s.readable().await?;
                    s.try_read(buffer)
                }
            };
            match result {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
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
            let Stream::Tcp(stream) = Socket::Tcp(socket).adopt(delay).unwrap() else { unreachable!() };
            assert_eq!(stream.nodelay().unwrap(), !delay);
        }
    }
}
