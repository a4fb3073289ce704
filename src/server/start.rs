//! From a configuration to a running node.

use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use mio::{Poll, Waker};
use tracing::{info, warn};

use crate::acl::User;
use crate::base::hex::random_id;
use crate::base::rng::Rng;
use crate::base::version;
use crate::command::{CommandTable, gate};
use crate::config::Config;
use crate::exec::observe::Observers;
use crate::exec::script::Claims;
use crate::exec::{MemoryLimit, Shared};
use crate::keyspace::{Garbage, Keyspace};
use crate::script::Store;
use crate::sentinel::Sentinel;
use crate::server::commands;
use crate::server::commands::info as info_text;
use crate::server::control::Control;
use crate::server::control::clustering;
use crate::server::control::clustering::ClusterError;
use crate::server::control::replication;
use crate::server::disk::{aof, rdb_load};
use crate::server::net::accept::AcceptLoop;
use crate::server::net::listen;
use crate::server::net::mailbox::{Mail, Mailbox};
use crate::server::net::tls::Tls;
use crate::server::node::pause::LOADS_UNSEEN_MS;
use crate::server::node::tuning;
use crate::server::node::{Node, Origin, unix_ms};
use crate::server::process::affinity;
use crate::server::process::crash;
use crate::server::process::{allocator, os_error};
use crate::server::sentinel::Driver;
use crate::server::worker::{WAKER, Worker};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the directives of TLS name cannot be used; the log says why.
    #[error("Failed to configure TLS. Check logs for more info.")]
    Tls,
    /// A port of clients that cannot be listened on, and its kind (`tcp`, `tls`).
    #[error("Failed listening on port {0} ({1}), aborting.")]
    Listen(u16, &'static str),
    /// `unixsocket` cannot be made.
    #[error("Failed opening Unix socket: bind: {}", os_error::words(.0))]
    UnixSocket(io::Error),
    /// `locale-collate` names none that the system knows.
    #[error("Failed to configure LOCALE for invalid locale name.")]
    Locale,
    /// `port` 0 and no `unixsocket`.
    #[error("Configured to not listen anywhere, exiting.")]
    Nowhere,
    /// The data on disk cannot be loaded; why, as the log tells it.
    #[error("{0}")]
    Data(String),
    /// It cannot be a member of its cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{what}: {}", os_error::words(source))]
    #[expect(missing_docs, reason = "the text of the error tells")]
    System { what: &'static str, source: io::Error },
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// Starts a node and serves until it is shut down. `on_start` is called once, when it can be shut down but has
/// no data yet; `on_ready` once, when clients may come.
pub fn serve(
    config: Config,
    renames: &[(String, String)],
    users: Vec<User>,
    sentinel: Option<Sentinel>,
    origin: Origin,
    on_start: impl FnOnce(&Arc<Node>),
    on_ready: impl FnOnce(),
) -> Result<(), StartError> {
    if tuning::collation(&config).is_none() {
        return Err(StartError::Locale);
    }
    let tls = Tls::default();
    tls.configure(&config).map_err(|error| {
        warn!("{error}");
        StartError::Tls
    })?;
    let listeners = Listeners::open(&config)?;
    let kinds = listeners.kinds();
    warn_about_system(&config);
    let mut seed = Rng::new(seed());
    // One is there for those who come while scripts hang on all the others.
    let workers = tuning::workers(&config) + 1;
    let mut node = make_node(config, renames, users, workers, &mut seed, origin)?;
    node.peers.tls = tls;
    let node = Arc::new(node);
    node.show_title(&node.config.load());
    info!("Running mode={}, port={}.", node.mode_name(), node.config.load().shown_port());
    describe_crashes(&node);
    let accepting = listeners.accept_for(&node)?;
    let mut threads = start_workers(&node, workers, &mut seed)?;
    threads.push(Control::start(&node).map_err(system("cannot start the control thread"))?);
    if let Err(e) = allocator::return_large() {
        warn!("The memory of large values will go back to the system late: {e}");
    }
    node.records.counters.memory_at_start.store(allocator::used(), Ordering::Relaxed);
    show_logo(&node);
    info!("Server initialized");
    let is_sentinel = sentinel.is_some();
    if let Some(sentinel) = sentinel {
        watch(&node, sentinel)?;
    }
    let (filled, until_filled) = mpsc::channel();
    threads.push(start_accepting(&node, accepting, until_filled)?);
    replication::prepare(&node);
    on_start(&node);
    let served = if is_sentinel { Ok(()) } else { fill(&node, &mut seed) };
    drop(filled);
    if served.is_ok() {
        if !node.life.shutdown.begun.load(Ordering::Acquire) {
            kinds.iter().for_each(|kind| info!("Ready to accept connections {kind}"));
            on_ready();
        }
        for thread in threads {
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
    if kinds.contains(&"unix") {
        remove_unix_socket(&node);
    }
    served
}

/// What clients may connect to.
struct Listeners {
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    unix: Option<UnixListener>,
}

impl Listeners {
    fn open(config: &Config) -> Result<Self, StartError> {
        let listen = |port: u16, kind| {
            listen::tcp(config, port).map_err(|error| {
                warn!("{error}");
                StartError::Listen(port, kind)
            })
        };
        let (tcp, tls) = (listen(config.port, "tcp")?, listen(config.tls_port, "tls")?);
        let unix = listen::unix(config).map_err(StartError::UnixSocket)?;
        if tcp.is_empty() && tls.is_empty() && unix.is_none() {
            return Err(StartError::Nowhere);
        }
        Ok(Self { tcp, tls, unix })
    }

    /// The kinds that there are, by the names that the log has for them.
    fn kinds(&self) -> Vec<&'static str> {
        [("tcp", !self.tcp.is_empty()), ("unix", self.unix.is_some()), ("tls", !self.tls.is_empty())]
            .into_iter()
            .filter_map(|(kind, is_there)| is_there.then_some(kind))
            .collect()
    }

    fn accept_for(self, node: &Node) -> Result<AcceptLoop, StartError> {
        AcceptLoop::new(node, self.tcp, self.tls, self.unix).map_err(system("cannot accept connections"))
    }
}

/// Starts the thread that accepts clients. They may connect while data are loaded, and wait for an answer as long as
/// nearly every load takes; then they are told of it. `filled` is closed once the data are there.
fn start_accepting(
    node: &Arc<Node>,
    accepting: AcceptLoop,
    filled: mpsc::Receiver<()>,
) -> Result<JoinHandle<()>, StartError> {
    let node = Arc::clone(node);
    let accept = move || {
        // Nothing is ever sent.
        let _ = filled.recv_timeout(Duration::from_millis(LOADS_UNSEEN_MS));
        if let Err(e) = accepting.run(&node) {
            warn!("Connections can no longer be accepted: {}", os_error::words(&e));
        }
    };
    let thread = thread::Builder::new().name("accept".into()).spawn(accept);
    thread.map_err(system("cannot start the accepting thread"))
}

fn remove_unix_socket(node: &Node) {
    info!("Removing the unix socket file.");
    if let Err(e) = std::fs::remove_file(&node.config.load().unixsocket) {
        warn!("The unix socket file cannot be removed: {}", os_error::words(&e));
    }
}

/// Begins to watch others, instead of serving data.
fn watch(node: &Arc<Node>, sentinel: Sentinel) -> Result<(), StartError> {
    node.shared.set_gate(gate::LOADING, false);
    let file = node.life.origin.config_file.clone().unwrap_or_default();
    Driver::start(node, sentinel, file)
        .map_err(system("cannot start the thread that writes the configuration"))
}

/// Brings the data, and the node into its place among others.
fn fill(node: &Arc<Node>, seed: &mut Rng) -> Result<(), StartError> {
    let has_aof = aof::load_at_start(node).map_err(StartError::Data)?;
    let loaded = if has_aof { None } else { rdb_load::load_at_start(node).map_err(StartError::Data)? };
    if node.life.shutdown.begun.load(Ordering::Acquire) {
        return Ok(());
    }
    aof::start(node).map_err(StartError::Data)?;
    let position = loaded.as_ref().and_then(|loaded| loaded.replication);
    // A client that is let in finds a member of the cluster.
    let clustered = node.config.load().cluster_enabled;
    let member = clustered.then(|| clustering::open(node, seed.next_u64())).transpose()?;
    replication::start(node, position);
    if let Some(member) = member {
        clustering::start(node, member)?;
    }
    if let Some(mut loaded) = loaded {
        replication::tell_of_expired(node, &mut loaded.deletions);
    }
    Ok(())
}

/// The banner, for people and for tools that wait for it: asked for, or on a terminal.
fn show_logo(node: &Node) {
    let config = node.config.load();
    let Some(log) = &node.life.origin.log else { return };
    let on_terminal = log.file().is_none() && io::stdout().is_terminal();
    if !(config.always_show_logo || on_terminal) {
        return;
    }
    log.write(&format!(
        "
    ___
   / _ \\     Keystead {} {} bit
  | (_) |
   \\   /     Running in {} mode
    | |      Port: {}
    | |_     PID: {}
    |___|

",
        version::KEYSTEAD,
        usize::BITS,
        node.mode_name(),
        config.shown_port(),
        std::process::id(),
    ));
}

/// What the system limits, although the configuration asks for it.
fn warn_about_system(config: &Config) {
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    if let Some(most) = read("/proc/sys/net/core/somaxconn")
        && most < config.tcp_backlog
    {
        warn!(
            "WARNING: The TCP backlog setting of {} cannot be enforced because /proc/sys/net/core/somaxconn is set to the lower value of {most}.",
            config.tcp_backlog
        );
    }
}

fn describe_crashes(node: &Arc<Node>) {
    let node = Arc::downgrade(node);
    crash::describe(move || {
        node.upgrade().map_or(String::new(), |node| info_text::render(&node, &["everything".to_owned()]))
    });
}

fn start_workers(
    node: &Arc<Node>,
    workers: usize,
    seed: &mut Rng,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut mailboxes = Vec::new();
    let mut polls = Vec::new();
    for _ in 0..workers {
        let poll = Poll::new().map_err(system("cannot create an event queue"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system("cannot create a waker"))?;
        mailboxes.push(Arc::new(Mailbox::new(waker)));
        polls.push(poll);
    }
    assert!(node.life.threads.workers.set(mailboxes.clone()).is_ok(), "workers are set once");
    let woken = mailboxes.clone();
    node.shared.keyspace.board.wake_by(Box::new(move |who| {
        woken[who.worker].send(Mail::Free { token: who.token, client: who.client });
    }));
    polls
        .into_iter()
        .zip(mailboxes)
        .enumerate()
        .map(|(index, (poll, mailbox))| {
            let worker = Worker::new(index, Arc::clone(node), poll, mailbox, seed.next_u64());
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || worker.run())
        })
        .collect::<Result<_, _>>()
        .map_err(system("cannot start a worker"))
}

/// A seed that differs from start to start. Nothing secret hangs on it.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() ^ unix_ms() as u64
}

/// Values on their way to the thread that frees memory.
static GARBAGE_WAITING: AtomicUsize = AtomicUsize::new(0);

/// Starts the thread that frees memory, on these cores. Returns what hands garbage over to it.
fn start_freeing(cores: String) -> Result<impl Fn(Garbage) + Send + Sync, StartError> {
    let (garbage, bin) = mpsc::channel::<Garbage>();
    thread::Builder::new()
        .name("free".into())
        .spawn(move || {
            crash::guard_thread();
            affinity::bind_or_warn("bio-cpulist", &cores);
            for garbage in bin {
                let objects = garbage.objects();
                drop(garbage);
                GARBAGE_WAITING.fetch_sub(objects, Ordering::Relaxed);
            }
        })
        .map_err(system("cannot start the thread that frees memory"))?;
    Ok(move |g: Garbage| {
        GARBAGE_WAITING.fetch_add(g.objects(), Ordering::Relaxed);
        // When the thread is gone the node is ending, and dropping here is as good.
        let _ = garbage.send(g);
    })
}

fn make_node(
    config: Config,
    renames: &[(String, String)],
    users: Vec<User>,
    workers: usize,
    rng: &mut Rng,
    origin: Origin,
) -> Result<Node, StartError> {
    let discard = start_freeing(config.bio_cpulist.clone())?;
    let databases = config.databases.clamp(1, 65535) as usize;
    allocator::set_exact(config.maxmemory > 0);
    let keyspace = Keyspace::new(databases, Box::new(discard));
    keyspace.log.set_keep(config.repl_backlog_size);
    tuning::configure_usage(&keyspace.usage, &config, unix_ms() as u64 / 1000);
    tuning::configure_deletions(&keyspace.lazy, &config);
    keyspace.events.set(config.notify_keyspace_events);
    let shared = Shared {
        keyspace: Arc::new(keyspace),
        commands: CommandTable::new(origin.mode, commands::FAMILIES, renames),
        gate: AtomicU32::new(
            // Until the data file is read; there may be clients before.
            gate::LOADING
                | if config.maxmemory > 0 { gate::MEMORY_LIMIT } else { 0 }
                | if config.cluster_enabled { gate::CLUSTER } else { 0 },
        ),
        limits: ArcSwap::from_pointee(tuning::limits(&config, rng.next_u64())),
        memory: MemoryLimit {
            limit: AtomicU64::new(config.maxmemory),
            policy: AtomicU8::new(config.maxmemory_policy as u8),
            samples: AtomicU32::new(config.maxmemory_samples),
            most: AtomicU64::new(tuning::eviction_batch(&config)),
            used: allocator::used,
            being_freed: || GARBAGE_WAITING.load(Ordering::Relaxed),
        },
        log_trouble: ArcSwap::default(),
        view: ArcSwapOption::empty(),
        is_replica: AtomicBool::new(false),
        scripts: Store::default(),
        busy_after_ms: AtomicU64::new(config.busy_reply_threshold),
        observers: Observers::default(),
        claims: Claims::default(),
    };
    let run_id = random_id(rng);
    let node = Node::new(Box::leak(Box::new(shared)), config, workers + 1, run_id, origin);
    tuning::configure_observers(&node, &node.config.load());
    users.into_iter().for_each(|user| node.people.accounts.put(user));
    Ok(node)
}
