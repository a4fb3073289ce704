//! The connection of one replica on the control thread: what the machine orders, then the stream from its
//! cursor in the log; and back come acknowledgements.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::command::Client;
use crate::command::client::SyncRequest;
use crate::repl::primary::LinkId;
use crate::repl::{Request, Verdict, decide};
use crate::resp::{Limits, Parsed, parse};
use crate::server::control::replication::state::Feed;
use crate::server::control::replication::wait;
use crate::server::node::{Node, unix_ms};

/// What is read from the log at once.
const READ_SIZE: usize = 256 * 1024;
/// A replica has no long requests.
const MAX_REQUEST: usize = 64 * 1024;

/// What the connection is to send next.
pub(super) enum Order {
    Bytes(Vec<u8>),
    /// An RDB, as it is produced.
    Rdb(mpsc::Receiver<Piece>),
    /// The stream, from the cursor on.
    Stream,
}

/// A part of an RDB on its way to a replica.
pub(super) enum Piece {
    Bytes(Bytes),
    /// The RDB is whole. A channel that closes without it brought a damaged one.
    End,
}

/// A socket that has left its worker.
#[derive(Debug)]
pub enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// The halves of a socket on the control thread.
type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

impl Socket {
    /// Only on the control thread. `delay`: small packets may be gathered.
    fn split(self, delay: bool) -> io::Result<Halves> {
        Ok(match self {
            Self::Tcp(s) => {
                s.set_nonblocking(true)?;
                s.set_nodelay(!delay)?;
                let (read, write) = tokio::net::TcpStream::from_std(s)?.into_split();
                (Box::new(read), Box::new(write))
            }
            Self::Unix(s) => {
                s.set_nonblocking(true)?;
                let (read, write) = tokio::net::UnixStream::from_std(s)?.into_split();
                (Box::new(read), Box::new(write))
            }
        })
    }
}

/// Takes a connection that asked for data over from its worker, which holds no lock. `input` was not parsed,
/// `output` not sent.
pub fn take_over(node: &Arc<Node>, client: &mut Client, socket: Socket, input: Vec<u8>, output: Vec<u8>) {
    let Some(request) = client.sync.take() else { return };
    let (orders, queue) = mpsc::unbounded_channel();
    if !output.is_empty() {
        // The receiver is here.
        let _ = orders.send(Order::Bytes(output));
    }
    let cursor = Arc::new(AtomicU64::new(u64::MAX));
    let id = client.id;
    let locked = node.shared.keyspace.lock_all();
    let mut state = node.replication.lock();
    state
        .feeds
        .insert(id, Feed { orders, cursor: Arc::clone(&cursor), task: None, over_soft_limit_since: None });
    let task = crate::server::control::replication::spawn(
        node,
        serve(Arc::clone(node), id, socket, queue, cursor, input),
    );
    // Since the request was looked at, the link to our own primary may have gone.
    let has_data = state.upstream.as_ref().is_none_or(|u| u.replica.is_up());
    if task.is_none() || !has_data {
        if let Some(task) = task {
            task.abort();
        }
        state.forget(node, id);
        return;
    }
    if let Some(feed) = state.feeds.get_mut(&id) {
        feed.task = task;
    }
    let (now, window, ip) = (node.mono_ms(), state.window(node), peer_ip(&client.addr));
    let (state, counters) = (&mut *state, &node.replication);
    let mut out = Vec::new();
    match &request {
        SyncRequest::Sync => {
            counters.sync_full.fetch_add(1, Ordering::Relaxed);
            state.primary.sync(now, id, ip, &mut state.history, window.is_some(), &mut out);
        }
        SyncRequest::Psync { id: history, from } => {
            let request = Request { id: history, from: *from };
            match decide(&state.history, window, request) {
                Verdict::Continue { .. } => counters.sync_partial_ok.fetch_add(1, Ordering::Relaxed),
                Verdict::Full(_) => {
                    if history != b"?" {
                        counters.sync_partial_err.fetch_add(1, Ordering::Relaxed);
                    }
                    counters.sync_full.fetch_add(1, Ordering::Relaxed)
                }
            };
            state.primary.psync(now, id, ip, request, &mut state.history, window, &mut out);
        }
    }
    state.carry_out(node, out);
    drop(locked);
}

/// The address without its port.
pub(super) fn peer_ip(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(ip, _)| ip.trim_start_matches('[').trim_end_matches(']'))
}

/// Serves a replica until its connection ends.
async fn serve(
    node: Arc<Node>,
    id: LinkId,
    socket: Socket,
    orders: mpsc::UnboundedReceiver<Order>,
    cursor: Arc<AtomicU64>,
    input: Vec<u8>,
) {
    match socket.split(node.config.load().repl_disable_tcp_nodelay) {
        Ok((read, write)) => {
            // Whichever ends first: either way the connection is of no more use.
            tokio::select! {
                () = listen(&node, id, read, input) => {}
                result = talk(&node, id, write, orders, &cursor) => {
                    if let Err(e) = result {
                        tracing::debug!("Writing to replica {id}: {e}");
                    }
                }
            }
        }
        Err(e) => tracing::warn!("A replica's connection cannot be taken over: {e}"),
    }
    node.replication.lock().forget(&node, id);
}

/// Reads acknowledgements until the connection ends or the peer speaks nonsense.
async fn listen(
    node: &Arc<Node>,
    id: LinkId,
    mut read: Box<dyn AsyncRead + Send + Unpin>,
    mut input: Vec<u8>,
) {
    let limits = Limits { max_bulk: MAX_REQUEST, authenticated: true };
    let mut chunk = [0; 4096];
    let entry = node.clients.get(id);
    loop {
        let mut at = 0;
        let mut argv: Vec<&[u8]> = Vec::new();
        loop {
            argv.clear();
            match parse(&input, &mut at, &mut argv, &limits) {
                Ok(Parsed::Command) if hear(node, id, &argv) => {}
                Ok(Parsed::Inline(words))
                    if hear(node, id, &words.iter().map(Vec::as_slice).collect::<Vec<_>>()) => {}
                Ok(Parsed::Command | Parsed::Inline(_)) => return,
                Ok(Parsed::Empty) => node.replication.lock().primary.newline(node.mono_ms(), id),
                Ok(Parsed::Incomplete { .. }) => break,
                Err(e) => {
                    tracing::warn!("A replica sent what is no request ({e}): closing the link.");
                    return;
                }
            }
        }
        drop(argv);
        input.drain(..at);
        match read.read(&mut chunk).await {
            Ok(n) if n > 0 && input.len() + n <= 2 * MAX_REQUEST => {
                input.extend_from_slice(&chunk[..n]);
                if let Some(entry) = &entry {
                    entry.last_seen.store(unix_ms() / 1000, Ordering::Relaxed);
                }
            }
            _ => return,
        }
    }
}

/// One request of a replica. False for what would be answered: answers have no place in the stream.
fn hear(node: &Arc<Node>, id: LinkId, words: &[&[u8]]) -> bool {
    let is = |word: &[u8], name: &[u8]| word.eq_ignore_ascii_case(name);
    match words {
        [name, what, ..] if is(name, b"replconf") && (is(what, b"ack") || is(what, b"getack")) => {
            let mut state = node.replication.lock();
            let mut out = Vec::new();
            state.primary.replconf(node.mono_ms(), id, "", &words[1..], &mut out);
            state.carry_out(node, out);
            wait::serve(node, &mut state);
            true
        }
        // It is being served; to ask again changes nothing.
        [name, ..] if is(name, b"psync") || is(name, b"sync") => true,
        [] => true,
        [name, ..] => {
            let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
            tracing::warn!("Replica generated a reply to command '{name}', disconnecting it");
            false
        }
    }
}

async fn talk(
    node: &Arc<Node>,
    id: LinkId,
    mut write: Box<dyn AsyncWrite + Send + Unpin>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    cursor: &AtomicU64,
) -> io::Result<()> {
    let log = &node.shared.keyspace.log;
    let mut streaming = false;
    loop {
        let grown = node.replication.grown.notified();
        tokio::pin!(grown);
        // From here on a ring counts, so that none is lost between the look at the log and the wait.
        grown.as_mut().enable();
        if streaming {
            let from = cursor.load(Ordering::Acquire);
            let Some(blocks) = log.read(from, READ_SIZE) else {
                tracing::warn!("Replica {id} is behind what is kept of the stream: closing the link.");
                return Ok(());
            };
            let mut sent = 0;
            for block in &blocks {
                send(node, &mut write, block).await?;
                sent += block.len() as u64;
                cursor.store(from + sent, Ordering::Release);
            }
            if sent > 0 {
                continue;
            }
        }
        let order = tokio::select! {
            order = orders.recv() => order,
            () = grown, if streaming => continue,
        };
        match order {
            Some(Order::Bytes(bytes)) => send(node, &mut write, &bytes).await?,
            Some(Order::Stream) => streaming = true,
            Some(Order::Rdb(pieces)) => {
                if !send_rdb(node, &mut write, pieces).await? {
                    return Ok(());
                }
                let mut state = node.replication.lock();
                let mut out = Vec::new();
                state.primary.rdb_sent(node.mono_ms(), id, &mut out);
                state.carry_out(node, out);
            }
            None => return Ok(()),
        }
    }
}

/// False when the RDB broke off.
async fn send_rdb(
    node: &Arc<Node>,
    write: &mut Box<dyn AsyncWrite + Send + Unpin>,
    mut pieces: mpsc::Receiver<Piece>,
) -> io::Result<bool> {
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Bytes(bytes) => send(node, write, &bytes).await?,
            Piece::End => return Ok(true),
        }
    }
    Ok(false)
}

/// Sends all of `bytes`. A peer that takes nothing for `repl-timeout` is given up.
async fn send(
    node: &Arc<Node>,
    write: &mut Box<dyn AsyncWrite + Send + Unpin>,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let patience = Duration::from_secs(u64::from(node.config.load().repl_timeout));
        let n = tokio::time::timeout(patience, write.write(bytes))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        node.replication.output_bytes.fetch_add(n as u64, Ordering::Relaxed);
        bytes = &bytes[n..];
    }
    Ok(())
}
