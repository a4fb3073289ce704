//! Connections to primaries, replicas and other sentinels: one task each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::resp::decode::Decoder;
use crate::sentinel::{Event, LinkId};
use crate::server::net::dial;
use crate::server::net::link::Link;
use crate::server::net::tls::Session;
use crate::server::node::Node;
use crate::server::sentinel::Driver;

/// No reply that is waited for is longer: INFO of a primary with very many replicas.
const REPLY_MAX: usize = 16 << 20;

/// Opens a connection; what is sent before it is there waits.
pub(super) fn open(driver: &Arc<Driver>, node: &Node, link: LinkId, host: String, port: u16) {
    let (outlet, inlet) = mpsc::unbounded_channel();
    driver.links.lock().insert(link, outlet);
    let driver = Arc::clone(driver);
    let Some(control) = node.life.threads.control.get() else { return };
    let session = node.peers.tls.towards(node.config.load().tls_replication, &host);
    control.spawn(async move {
        if let Err(e) = serve(&driver, link, (host, port), session, inlet).await {
            tracing::trace!("link {}: {e}", link.0);
        }
        // A link that the machine closed is not there any more, and it knows.
        if driver.links.lock().remove(&link).is_some() {
            driver.step(Event::Closed { link });
        }
    });
}

async fn serve(
    driver: &Arc<Driver>,
    link: LinkId,
    address: (String, u16),
    session: io::Result<Option<Session>>,
    mut inlet: UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    let source = driver.bind_source();
    let stream = tokio::select! {
        connected = connect(address, &source, session) => connected?,
        // Closed before it came about: nothing can be sent earlier.
        _ = inlet.recv() => return Ok(()),
    };
    let (peer, local) = stream.addresses()?;
    let text = |address: SocketAddr| address.ip().to_canonical().to_string();
    driver.step(Event::Connected { link, peer_ip: text(peer), local_ip: text(local) });
    let mut replies = Decoder::default();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut chunk) => {
                let n = read?;
                if n == 0 {
                    return Ok(());
                }
                replies.feed(&chunk[..n]);
                take_replies(driver, link, &mut replies)?;
            }
            bytes = inlet.recv() => match bytes {
                Some(bytes) => stream.write_all(&bytes).await?,
                None => return Ok(()),
            },
        }
    }
}

async fn connect(
    address: (String, u16),
    source: &str,
    session: io::Result<Option<Session>>,
) -> io::Result<Link> {
    let session = session?;
    Link::secured(dial::connect(address, source).await?, session).await
}

fn take_replies(driver: &Arc<Driver>, link: LinkId, replies: &mut Decoder) -> io::Result<()> {
    while let Some(reply) = replies.next_reply().map_err(io::Error::other)? {
        driver.step(Event::Reply { link, reply });
    }
    if replies.pending() > REPLY_MAX {
        return Err(io::Error::other("a reply that does not end"));
    }
    Ok(())
}

/// Looks a name up on behalf of the machine.
pub(super) fn resolve(driver: &Arc<Driver>, node: &Node, host: String) {
    let driver = Arc::clone(driver);
    let Some(control) = node.life.threads.control.get() else { return };
    control.spawn(async move {
        let found = tokio::net::lookup_host((host.as_str(), 0)).await.ok().and_then(|mut f| f.next());
        let ip = found.map(|a| a.ip().to_canonical().to_string());
        driver.step(Event::Resolved { host, ip });
    });
}
