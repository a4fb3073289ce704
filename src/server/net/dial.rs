//! Connections that the node opens, from the address of `bind-source-addr` if it is given.

use std::io;
use std::net::IpAddr;

use tokio::net::{TcpSocket, TcpStream, ToSocketAddrs};

/// Connects to the first address of `target` that answers. An empty `source` leaves the choice of ours to the
/// system; with one, only addresses of its family are tried.
pub async fn connect(target: impl ToSocketAddrs, source: &str) -> io::Result<TcpStream> {
    if source.is_empty() {
        return TcpStream::connect(target).await;
    }
    let source: IpAddr = source.parse().map_err(io::Error::other)?;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host(target).await? {
        if address.is_ipv4() != source.is_ipv4() {
            continue;
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind((source, 0).into())?;
        match socket.connect(address).await {
            Ok(connection) => return Ok(connection),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}
