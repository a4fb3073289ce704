//! The connection of one replica. A task of the control thread sends what the state machine orders, then the stream
//! from the replica's place in the log (which `stream` writes to the socket), and reads acknowledgements.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::command::Client;
use crate::command::client::SyncRequest;
use crate::repl::primary::{Action, LinkId};
use crate::repl::{FromReplica, Refusal, Request, Verdict};
use crate::resp::{Limits, Parsed, parse};
use crate::server::control::replication::state::{Feed, State};
use crate::server::control::replication::stream::{Flow, Outlet};
use crate::server::control::replication::{failover, wait};
use crate::server::net::link::{Link, Socket};
use crate::server::node::Node;

/// A replica has no long requests.
const MAX_REQUEST: usize = 64 * 1024;

/// So much of an RDB may wait in the kernel. A replica is expected to speak within `repl-timeout` once its RDB was
/// sent, so that what is still on its way to a slow one must be little: the kernel would take megabytes.
const RDB_UNSENT_MAX: u32 = 128 * 1024;

/// What the connection is to send next.
pub(super) enum Order {
    Bytes(Vec<u8>),
    /// An RDB, as it is produced.
    Rdb(mpsc::Receiver<Piece>),
    /// The stream, from the place in the log that was reserved for it.
    Stream,
}

/// A part of an RDB on its way to a replica.
pub(super) enum Piece {
    Bytes(Bytes),
    /// The RDB is whole. If the channel closes without this, it is damaged.
    End,
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
    let id = client.id;
    let outlet = node.life.threads.control.get().and_then(|control| {
        let _runtime = control.handle().enter();
        match socket.adopt(node.config.load().repl_disable_tcp_nodelay) {
            Ok(link) => Some(Outlet::new(node, link)),
            Err(e) => {
                tracing::warn!("A replica's connection cannot be taken over: {e}");
                None
            }
        }
    });
    let Some(outlet) = outlet else {
        node.people.clients.remove(id);
        let mut state = node.peers.replication.lock();
        let mut out = Vec::new();
        state.primary.closed(node.mono_ms(), id, &mut out);
        return state.carry_out(node, out);
    };
    let locked = node.shared.keyspace.lock_all();
    let mut state = node.peers.replication.lock();
    state
        .feeds
        .insert(id, Feed { orders, outlet: Arc::clone(&outlet), task: None, over_soft_limit_since: None });
    let task =
        crate::server::control::replication::spawn(node, serve(Arc::clone(node), id, outlet, queue, input));
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
    let out = answer(node, &mut state, client, &request);
    state.carry_out(node, out);
    drop(locked);
}

/// What becomes of a request for data, which is counted.
fn answer(node: &Arc<Node>, state: &mut State, client: &Client, request: &SyncRequest) -> Vec<Action> {
    let id = client.id;
    let (now, window, ip) = (node.mono_ms(), state.window(node), peer_ip(&client.addr));
    let counters = &node.peers.replication;
    let mut out = Vec::new();
    match request {
        SyncRequest::Sync => {
            counters.sync_full.fetch_add(1, Ordering::Relaxed);
            state.primary.sync(now, id, ip, &mut state.history, window.is_some(), &mut out);
        }
        SyncRequest::Psync { id: history, from } => {
            let request = Request { id: history, from: *from };
            match state.primary.psync(now, id, ip, request, &mut state.history, window, &mut out) {
                Some(Verdict::Continue { .. }) => {
                    counters.sync_partial_ok.fetch_add(1, Ordering::Relaxed);
                }
                Some(Verdict::Full(why)) => {
                    if why != Refusal::Requested {
                        counters.sync_partial_err.fetch_add(1, Ordering::Relaxed);
                    }
                    counters.sync_full.fetch_add(1, Ordering::Relaxed);
                }
                None => {}
            }
        }
    }
    out
}

/// The address without its port.
pub(super) fn peer_ip(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(ip, _)| ip.trim_start_matches('[').trim_end_matches(']'))
}

/// Serves a replica until its connection ends.
async fn serve(
    node: Arc<Node>,
    id: LinkId,
    outlet: Arc<Outlet>,
    orders: mpsc::UnboundedReceiver<Order>,
    input: Vec<u8>,
) {
    // Whichever ends first: either way the connection is of no more use.
    tokio::select! {
        () = listen(&node, id, outlet.socket(), input) => {}
        result = talk(&node, id, &outlet, orders) => {
            if let Err(e) = result {
                tracing::debug!("Writing to replica {id}: {e}");
            }
        }
    }
    node.peers.replication.lock().forget(&node, id);
}

/// Reads acknowledgements until the connection ends or the peer speaks nonsense.
async fn listen(node: &Arc<Node>, id: LinkId, socket: &Link, mut input: Vec<u8>) {
    let limits = Limits { max_bulk: MAX_REQUEST, authenticated: true };
    let mut chunk = [0; 4096];
    let entry = node.people.clients.get(id);
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
                Ok(Parsed::Empty) => node.peers.replication.lock().primary.newline(node.mono_ms(), id),
                Ok(Parsed::Incomplete { .. }) => break,
                Err(e) => {
                    tracing::warn!("A replica sent what is no request ({e}): closing the link.");
                    return;
                }
            }
        }
        drop(argv);
        input.drain(..at);
        match socket.read(&mut chunk).await {
            Ok(n) if n > 0 && input.len() + n <= 2 * MAX_REQUEST => {
                input.extend_from_slice(&chunk[..n]);
                if let Some(entry) = &entry {
                    entry.last_seen.store(node.steady_ms() / 1000, Ordering::Relaxed);
                }
            }
            _ => return,
        }
    }
}

/// One request of a replica. False for what would be answered: answers have no place in the stream.
fn hear(node: &Arc<Node>, id: LinkId, words: &[&[u8]]) -> bool {
    match FromReplica::of(words) {
        FromReplica::Reports => {
            let mut state = node.peers.replication.lock();
            let mut out = Vec::new();
            state.primary.replconf(node.mono_ms(), id, "", &words[1..], &mut out);
            state.carry_out(node, out);
            wait::serve(node, &mut state);
            failover::advance(node, &mut state);
            true
        }
        FromReplica::Repeats => true,
        FromReplica::Command => {
            let name = &words[0][..words[0].len().min(64)];
            let name = String::from_utf8_lossy(name);
            node.records.counters.net.unexpected_errors.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("Replica generated a reply to command '{name}', disconnecting it");
            false
        }
    }
}

async fn talk(
    node: &Arc<Node>,
    id: LinkId,
    outlet: &Arc<Outlet>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<()> {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = outlet.wants_attention() => {
                if catch_up(node, id, outlet).await? {
                    continue;
                }
                return Ok(());
            }
        };
        match order {
            Some(Order::Bytes(bytes)) => send(node, outlet, &bytes).await?,
            Some(Order::Stream) => outlet.begin(),
            Some(Order::Rdb(pieces)) => {
                if !send_rdb(node, outlet, pieces).await? {
                    return Ok(());
                }
                let mut state = node.peers.replication.lock();
                let mut out = Vec::new();
                state.primary.rdb_sent(node.mono_ms(), id, &mut out);
                state.carry_out(node, out);
            }
            None => return Ok(()),
        }
    }
}

/// Hands a socket that was full what it has missed. False when that is not kept any more.
async fn catch_up(node: &Arc<Node>, id: LinkId, outlet: &Arc<Outlet>) -> io::Result<bool> {
    let mut moved = (0, tokio::time::Instant::now());
    loop {
        match outlet.hand_over() {
            Flow::InSync => return Ok(true),
            Flow::Behind => {}
            Flow::Lost => {
                tracing::warn!("Replica {id} is behind what is kept of the stream: closing the link.");
                return Ok(false);
            }
            Flow::Broken(e) => return Err(e),
        }
        let (now, position) = (tokio::time::Instant::now(), outlet.position());
        if position != Some(moved.0) {
            moved = (position.unwrap_or(0), now);
        }
        if now - moved.1 >= patience(node) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // It looks again from time to time, so that replies wait no longer than
        // [`STALLED`](super::stream::STALLED).
        let _ = tokio::time::timeout(super::stream::STALLED / 4, outlet.socket().writable()).await;
    }
}

/// False when the RDB broke off.
async fn send_rdb(node: &Arc<Node>, outlet: &Outlet, mut pieces: mpsc::Receiver<Piece>) -> io::Result<bool> {
    outlet.socket().limit_unsent(RDB_UNSENT_MAX)?;
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Bytes(bytes) => send(node, outlet, &bytes).await?,
            Piece::End => {
                outlet.socket().limit_unsent(0)?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// How long a peer may take nothing before it is given up.
fn patience(node: &Node) -> Duration {
    Duration::from_secs(u64::from(node.config.load().repl_timeout))
}

/// Sends all of `bytes`. A peer that takes nothing for `repl-timeout` is given up.
async fn send(node: &Arc<Node>, outlet: &Outlet, mut bytes: &[u8]) -> io::Result<()> {
    let socket = outlet.socket();
    while !bytes.is_empty() {
        tokio::time::timeout(patience(node), socket.writable())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match socket.try_write(&[io::IoSlice::new(bytes)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                node.peers.replication.output_bytes.fetch_add(n as u64, Ordering::Relaxed);
                bytes = &bytes[n..];
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
