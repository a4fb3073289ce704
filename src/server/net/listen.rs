//! Listening sockets.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;
use crate::server::process::os_error::words;

/// An address that cannot be listened on, as `address:port`.
#[derive(Debug, thiserror::Error)]
#[error("Warning: Could not create server TCP listening socket {address}: {}", words(source))]
#[expect(missing_docs, reason = "told above")]
pub struct TcpError {
    pub address: String,
    pub source: io::Error,
}

/// Opens a listener on every address of `bind`. An address marked optional may be missing; a name must be known even
/// so, as in Redis.
pub fn tcp(config: &Config, port: u16) -> Result<Vec<std::net::TcpListener>, TcpError> {
    let mut listeners = Vec::new();
    if port == 0 {
        return Ok(listeners);
    }
    for (address, optional) in config.bind.addresses() {
        let ip = match address {
            "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "::*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            text => match resolve(text) {
                Ok(ip) => ip,
                Err(source) => return Err(TcpError { address: format!("{text}:{port}"), source }),
            },
        };
        match open(SocketAddr::new(ip, port), config.tcp_backlog, config.socket_mark_id) {
            Ok(l) => listeners.push(l),
            Err(e) if optional && is_missing_address(&e) => {}
            Err(source) => return Err(TcpError { address: format!("{address}:{port}"), source }),
        }
    }
    Ok(listeners)
}

fn resolve(text: &str) -> io::Result<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    use std::net::ToSocketAddrs;
    let mut found = (text, 0).to_socket_addrs()?;
    found.next().map(|a| a.ip()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn is_missing_address(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT)
    )
}

/// Opens the unix socket if there is to be one, in place of what an earlier process left.
pub fn unix(config: &Config) -> io::Result<Option<UnixListener>> {
    if config.unixsocket.is_empty() {
        return Ok(None);
    }
    // Most often there is nothing to remove; whatever else is wrong shows when binding.
    let _ = fs::remove_file(&config.unixsocket);
    let listener = UnixListener::bind(&config.unixsocket)?;
    listener.set_nonblocking(true)?;
    if config.unixsocketperm != 0 {
        fs::set_permissions(&config.unixsocket, fs::Permissions::from_mode(config.unixsocketperm))?;
    }
    Ok(Some(listener))
}

/// Opens one listener. `mark` is for packet filters (SO_MARK), which the connections inherit; 0 sets none.
pub fn open(address: SocketAddr, backlog: u32, mark: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if mark != 0
        && let Err(error) = socket.set_mark(mark)
    {
        // A process that may not set one still serves, as in Redis.
        tracing::warn!("socket-mark-id {mark}: {}", words(&error));
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_bears_the_mark_that_is_asked_for() {
        let any = "127.0.0.1:0".parse().unwrap();
        let mark_of = |mark| Socket::from(open(any, 1, mark).unwrap()).mark().unwrap();
        assert_eq!(mark_of(0), 0);
        let probe = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Without the right to set one it serves without.
        let may = probe.set_mark(7).is_ok();
        assert_eq!(mark_of(7), if may { 7 } else { 0 });
    }
}
