//! One TCP connection of the bus: cuts packets out of what arrives, sends what is queued.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::cluster::message::{PACKET_MAX, packet_len};
use crate::cluster::{Event, LinkId};
use crate::server::control::bus::Bus;
use crate::server::net::link::Link;

const READ_CHUNK: usize = 16 << 10;

/// The sending side of a link, as the bus keeps it.
#[derive(Debug)]
pub struct Outlet {
    queue: UnboundedSender<Bytes>,
    /// Bytes queued and not yet given to the kernel.
    pub queued: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Outlet {
    /// Queues a packet; returns how many bytes wait now.
    pub fn send(&self, packet: Bytes) -> usize {
        let len = packet.len();
        let queued = self.queued.fetch_add(len, Ordering::Relaxed) + len;
        // Fails only when the link's task has just ended; the machine hears of that separately.
        let _ = self.queue.send(packet);
        queued
    }

    /// Drops the connection and what waits for it.
    pub fn close(&self) {
        self.task.abort();
    }
}

/// Starts the task of an open connection and registers its outlet with the bus.
pub fn start(bus: &Arc<Bus>, link: LinkId, stream: Link) {
    let (queue, waiting) = unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let task = tokio::spawn({
        let (bus, queued) = (Arc::clone(bus), Arc::clone(&queued));
        async move {
            let ended = tokio::select! {
                r = receive(&bus, link, &stream) => r,
                r = transmit(waiting, &stream, &queued) => r,
            };
            if let Err(error) = ended {
                tracing::debug!("Cluster bus link: {error}");
            }
            bus.link_ended(link);
        }
    });
    bus.register(link, Outlet { queue, queued, task: task.abort_handle() });
}

/// Reads packets until the peer closes, or sends something else.
async fn receive(bus: &Arc<Bus>, link: LinkId, stream: &Link) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_CHUNK);
    loop {
        loop {
            match packet_len(&buffer) {
                Ok(Some(len)) if len > PACKET_MAX => {
                    return Err(not_a_packet(format!("packet of {len} bytes")));
                }
                Ok(Some(len)) if buffer.len() >= len => {
                    let packet = buffer.split_to(len).freeze();
                    if bus.drops(&packet) {
                        if bus.close_on_drop.load(Ordering::Relaxed) {
                            return Err(io::Error::other("closed with a packet that DEBUG has dropped"));
                        }
                        continue;
                    }
                    bus.step(Event::Received { link, packet });
                }
                Ok(_) => break,
                Err(error) => return Err(not_a_packet(error)),
            }
        }
        let kept = buffer.len();
        buffer.resize(kept + READ_CHUNK, 0);
        let n = stream.read(&mut buffer[kept..]).await?;
        buffer.truncate(kept + n);
        if n == 0 {
            return Ok(());
        }
    }
}

/// Garbage closes the link, and an administrator hears of it in the words of Redis.
fn not_a_packet(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    tracing::warn!("Bad message length or signature received from Cluster bus.");
    io::Error::other(why)
}

async fn transmit(
    mut waiting: UnboundedReceiver<Bytes>,
    stream: &Link,
    queued: &AtomicUsize,
) -> io::Result<()> {
    while let Some(packet) = waiting.recv().await {
        stream.write_all(&packet).await?;
        queued.fetch_sub(packet.len(), Ordering::Relaxed);
    }
    Ok(())
}

/// Both ends' addresses as the machine wants them: the peer's, then our own.
pub fn addresses(stream: &Link) -> (String, String) {
    // An IPv4 address that came over an IPv6 socket is an IPv4 address.
    let text = |address: SocketAddr| address.ip().to_canonical().to_string();
    stream.addresses().map_or_else(|_| Default::default(), |(peer, local)| (text(peer), text(local)))
}
