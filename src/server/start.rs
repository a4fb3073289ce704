//! From a configuration to a running node.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use arc_swap::{ArcSwap, ArcSwapOption};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use super::connection::Stream;
use super::mailbox::{Mail, Mailbox};
use super::node::{Node, unix_ms};
use super::worker::{WAKER, Worker};
use super::{allocator, listen, persistence};
use crate::base::rng::Rng;
use crate::command::{CommandTable, gate};
use crate::config::Config;
use crate::config::choice::MaxmemoryPolicy;
use crate::exec::{MemoryLimit, Shared};
use crate::keyspace::{Garbage, Keyspace};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("Could not create server TCP listening socket {address}: bind: {source}")]
    Bind { address: String, source: std::io::Error },
    #[error("{0}")]
    Data(String),
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

/// Starts a node and serves until it is shut down. `on_ready` is called once, when clients may come.
pub fn serve(
    config: Config,
    renames: &[(String, String)],
    on_ready: impl FnOnce(&Arc<Node>),
) -> Result<(), StartError> {
    let listeners = listen::tcp(&config, config.port)
        .map_err(|(address, source)| StartError::Bind { address, source })?;
    let mut seed = Rng::new(seed());
    let workers = workers(&config);
    let node = Arc::new(make_node(config, renames, workers, &mut seed));
    let system = |what| move |source| StartError::System { what, source };
    let mut mailboxes = Vec::new();
    let mut polls = Vec::new();
    for _ in 0..workers {
        let poll = Poll::new().map_err(system("cannot create an event queue"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system("cannot create a waker"))?;
        mailboxes.push(Arc::new(Mailbox::new(waker)));
        polls.push(poll);
    }
    assert!(node.workers.set(mailboxes.clone()).is_ok(), "workers are set once");
    let threads: Vec<_> = polls
        .into_iter()
        .zip(mailboxes)
        .enumerate()
        .map(|(index, (poll, mailbox))| {
            let worker = Worker::new(index, Arc::clone(&node), poll, mailbox, seed.next_u64());
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || worker.run())
        })
        .collect::<Result<_, _>>()
        .map_err(system("cannot start a worker"))?;
    // Clients may connect meanwhile; they are told that data are being loaded.
    persistence::load_at_start(&node).map_err(StartError::Data)?;
    tracing::info!("Ready to accept connections tcp");
    on_ready(&node);
    accept(&node, listeners).map_err(system("cannot accept connections"))?;
    for thread in threads {
        // A worker that panicked has reported it; the others still end in order.
        let _ = thread.join();
    }
    if !node.config.load().save.0.is_empty() {
        tracing::info!("Saving the final RDB snapshot before exiting.");
        persistence::save_now(&node);
    }
    Ok(())
}

/// How many workers there are: as configured, or one for each core.
pub fn workers(config: &Config) -> usize {
    match config.io_threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads as usize,
    }
}

/// A seed that differs from start to start. Nothing secret hangs on it.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() ^ unix_ms() as u64
}

fn make_node(config: Config, renames: &[(String, String)], workers: usize, rng: &mut Rng) -> Node {
    let (garbage, bin) = std::sync::mpsc::channel::<Garbage>();
    thread::Builder::new()
        .name("free".into())
        .spawn(move || bin.into_iter().for_each(drop))
        .expect("a thread can be started before any client is there");
    let discard = Box::new(move |g| {
        // When the thread is gone the node is ending, and dropping here is as good.
        let _ = garbage.send(g);
    });
    let shared = Shared {
        keyspace: Arc::new(Keyspace::new(config.databases.clamp(1, 65535) as usize, discard)),
        commands: CommandTable::new(renames),
        gate: AtomicU32::new(if config.maxmemory > 0 { gate::MEMORY_LIMIT } else { 0 }),
        limits: ArcSwap::from_pointee(limits(&config, rng.next_u64())),
        memory: MemoryLimit {
            limit: AtomicU64::new(config.maxmemory),
            evict: AtomicBool::new(config.maxmemory_policy != MaxmemoryPolicy::NoEviction),
            samples: AtomicU32::new(config.maxmemory_samples),
            used: allocator::used,
        },
        view: ArcSwapOption::empty(),
        is_replica: AtomicBool::new(false),
    };
    let run_id = random_hex(rng);
    Node::new(Box::leak(Box::new(shared)), config, workers + 1, run_id)
}

/// Forty random hexadecimal digits, as run ids and replication ids are.
pub fn random_hex(rng: &mut Rng) -> String {
    (0..40).map(|_| char::from(b"0123456789abcdef"[rng.below(16) as usize])).collect()
}

/// The encoding thresholds of a configuration.
pub fn limits(config: &Config, hash_seed: u64) -> crate::value::Limits {
    crate::value::Limits {
        hash_max_listpack_entries: config.hash_max_listpack_entries as usize,
        hash_max_listpack_value: config.hash_max_listpack_value as usize,
        list_max_listpack_size: config.list_max_listpack_size,
        list_compress_depth: config.list_compress_depth,
        set_max_intset_entries: config.set_max_intset_entries as usize,
        set_max_listpack_entries: config.set_max_listpack_entries as usize,
        set_max_listpack_value: config.set_max_listpack_value as usize,
        zset_max_listpack_entries: config.zset_max_listpack_entries as usize,
        zset_max_listpack_value: config.zset_max_listpack_value as usize,
        stream_node_max_bytes: config.stream_node_max_bytes as usize,
        stream_node_max_entries: config.stream_node_max_entries,
        hash_seed,
    }
}

/// Accepts connections on this thread and deals them out to the workers in turn.
fn accept(node: &Arc<Node>, listeners: Vec<std::net::TcpListener>) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listeners: Vec<TcpListener> = listeners.into_iter().map(TcpListener::from_std).collect();
    for (i, listener) in listeners.iter_mut().enumerate() {
        poll.registry().register(listener, Token(i), Interest::READABLE)?;
    }
    let workers = node.workers.get().map_or(1, Vec::len);
    let mut next = 0;
    let mut events = Events::with_capacity(64);
    while !node.shutting_down.load(Ordering::Acquire) {
        match poll.poll(&mut events, Some(std::time::Duration::from_millis(100))) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        node.shared.keyspace.set_access_clock((unix_ms() / 1000) as u32);
        persistence::cron(node);
        for event in &events {
            let Some(listener) = listeners.get(event.token().0) else { continue };
            loop {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        // Fails only on a connection that is gone already.
                        let _ = stream.set_nodelay(true);
                        let local = stream.local_addr().map(|a| a.to_string()).unwrap_or_default();
                        node.clients.accepted.fetch_add(1, Ordering::Relaxed);
                        node.send(next, Mail::Accepted(Stream::Tcp(stream), peer.to_string(), local));
                        next = (next + 1) % workers;
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => {
                        tracing::warn!("Accepting client connection: {e}");
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}
