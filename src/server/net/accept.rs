//! Accepting connections: the main thread takes them and deals them out to the workers in turn.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};

use crate::config::Config;
use crate::server::net::connection::{Secured, Stream};
use crate::server::net::listen;
use crate::server::net::mailbox::{Mail, Waits};
use crate::server::node::Node;
use crate::server::process::os_error::words;

/// The refusal of protected mode, as Redis words it.
const DENIED: &str = "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default user. In this mode connections are only accepted from the loopback interface. If you want to connect from external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by editing the Redis configuration file, and setting the protected mode option to 'no', and then restarting the server. 3) If you started the server manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an authentication password for the default user. NOTE: You only need to do one of the above things in order for the server to start accepting connections from the outside.\r\n";

const FULL: &str = "-ERR max number of clients reached\r\n";

/// So many connections of a port wait for a worker at most. More are left to the system, where each port has a queue of
/// its own and a client waits without being refused.
const WAITING: usize = 256;
/// How long the acceptor leaves them there before it looks again.
const LEFT: Duration = Duration::from_millis(1);

const WAKER: Token = Token(usize::MAX);
const UNIX: Token = Token(usize::MAX - 1);

/// The other threads' way to the acceptor.
#[derive(Debug)]
pub struct Acceptor {
    waker: Waker,
    registry: Registry,
    tcp: Mutex<Vec<TcpListener>>,
    tls: Mutex<Vec<TcpListener>>,
    /// Connections of `port`, and of the unix socket, that no worker has taken on yet.
    waiting_tcp: Arc<AtomicUsize>,
    /// The same of `tls-port`.
    waiting_tls: Arc<AtomicUsize>,
}

/// A directive that names a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `port`
    Tcp,
    /// `tls-port`
    Tls,
}

impl Kind {
    /// The port that it names; 0: none.
    pub fn port(self, config: &Config) -> u16 {
        match self {
            Self::Tcp => config.port,
            Self::Tls => config.tls_port,
        }
    }

    /// Tokens of its listeners count from here.
    fn first_token(self) -> usize {
        match self {
            Self::Tcp => 0,
            Self::Tls => 1 << 16,
        }
    }
}

impl Acceptor {
    /// Makes it look whether the node ends.
    pub fn wake(&self) {
        // A waker fails only when its poll is gone: the node is ending.
        let _ = self.waker.wake();
    }

    fn listeners(&self, kind: Kind) -> &Mutex<Vec<TcpListener>> {
        match kind {
            Kind::Tcp => &self.tcp,
            Kind::Tls => &self.tls,
        }
    }

    fn waiting(&self, kind: Kind) -> &Arc<AtomicUsize> {
        match kind {
            Kind::Tcp => &self.waiting_tcp,
            Kind::Tls => &self.waiting_tls,
        }
    }

    /// How many more connections may wait for a worker.
    fn room(&self, kind: Kind) -> usize {
        WAITING.saturating_sub(self.waiting(kind).load(Ordering::Relaxed))
    }

    /// Listens as `new` says instead of as `old` said (CONFIG SET port, tls-port, bind). After an error it listens
    /// as before.
    pub fn listen_anew(&self, kind: Kind, old: &Config, new: &Config) -> Result<(), listen::TcpError> {
        let mut present = self.listeners(kind).lock();
        let (old_port, port) = (kind.port(old), kind.port(new));
        if port != old_port {
            // The old listeners go once the new ones are there: nobody is turned away.
            let listeners = listen::tcp(new, port)?;
            self.close(&mut present);
            *present = self.open(kind, listeners);
            return Ok(());
        }
        // On one port old addresses may stand in the way of new ones (`*` and any other).
        self.close(&mut present);
        let listeners = listen::tcp(new, port);
        let (listeners, outcome) = match listeners {
            Ok(listeners) => (listeners, Ok(())),
            Err(error) => {
                let restored = listen::tcp(old, old_port)
                    .inspect_err(|e| tracing::warn!("Nobody can connect any more: {e}"));
                (restored.unwrap_or_default(), Err(error))
            }
        };
        *present = self.open(kind, listeners);
        outcome
    }

    fn open(&self, kind: Kind, listeners: Vec<std::net::TcpListener>) -> Vec<TcpListener> {
        let mut tcp: Vec<_> = listeners.into_iter().map(TcpListener::from_std).collect();
        for (i, listener) in tcp.iter_mut().enumerate() {
            let token = Token(kind.first_token() + i);
            if let Err(e) = self.registry.register(listener, token, Interest::READABLE) {
                tracing::warn!("A listening socket cannot be watched: {}", words(&e));
            }
        }
        tcp
    }

    fn close(&self, tcp: &mut Vec<TcpListener>) {
        for mut listener in tcp.drain(..) {
            // Closing would do, too.
            let _ = self.registry.deregister(&mut listener);
        }
    }
}

/// Everything the accepting thread works with.
pub struct AcceptLoop {
    poll: Poll,
    acceptor: Arc<Acceptor>,
    unix: Option<UnixListener>,
    next_worker: usize,
}

impl std::fmt::Debug for AcceptLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcceptLoop").field("acceptor", &self.acceptor).finish_non_exhaustive()
    }
}

impl AcceptLoop {
    /// Registers sockets that are bound already, and itself as the acceptor of the node.
    pub fn new(
        node: &Node,
        tcp: Vec<std::net::TcpListener>,
        tls: Vec<std::net::TcpListener>,
        unix: Option<std::os::unix::net::UnixListener>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let registry = poll.registry().try_clone()?;
        let acceptor = Arc::new(Acceptor {
            waker,
            registry,
            tcp: Mutex::default(),
            tls: Mutex::default(),
            waiting_tcp: Arc::default(),
            waiting_tls: Arc::default(),
        });
        *acceptor.tcp.lock() = acceptor.open(Kind::Tcp, tcp);
        *acceptor.tls.lock() = acceptor.open(Kind::Tls, tls);
        assert!(node.life.threads.acceptor.set(Arc::clone(&acceptor)).is_ok(), "there is one acceptor");
        let mut unix = unix.map(UnixListener::from_std);
        if let Some(listener) = &mut unix {
            poll.registry().register(listener, UNIX, Interest::READABLE)?;
        }
        Ok(Self { poll, acceptor, unix, next_worker: 0 })
    }

    /// Accepts until the node ends.
    pub fn run(mut self, node: &Node) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        // Whether more connections wait than were taken at once.
        let mut more = false;
        while !node.life.shutdown.begun.load(Ordering::Acquire) {
            // Now and then without an event: a listener that ran out of descriptors is tried again.
            let left = [Kind::Tcp, Kind::Tls].iter().any(|kind| self.acceptor.room(*kind) == 0);
            let wait = match more {
                true if left => LEFT,
                true => Duration::ZERO,
                false => Duration::from_millis(500),
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            more =
                self.accept_tcp(node, Kind::Tcp) | self.accept_tcp(node, Kind::Tls) | self.accept_unix(node);
        }
        Ok(())
    }

    fn accept_tcp(&mut self, node: &Node, kind: Kind) -> bool {
        let (mut next, mut more) = (self.next_worker, false);
        let at_once = node.config.load().max_new_connections_per_cycle as usize;
        let at_once = at_once.min(self.acceptor.room(kind));
        let waiting = self.acceptor.waiting(kind);
        for listener in self.acceptor.listeners(kind).lock().iter() {
            more |= accept_some(
                at_once,
                || listener.accept(),
                |(stream, peer)| {
                    let config = node.config.load();
                    // These fail only on a connection that is gone already.
                    let _ = stream.set_nodelay(true);
                    if config.tcp_keepalive > 0 {
                        let every = Duration::from_secs(u64::from(config.tcp_keepalive));
                        let keepalive =
                            TcpKeepalive::new().with_time(every).with_interval(every / 3).with_retries(3);
                        let _ = SockRef::from(&stream.as_fd()).set_tcp_keepalive(&keepalive);
                    }
                    let guarded = config.protected_mode && node.people.accounts.default_user().nopass;
                    let refusal =
                        if guarded && !peer.ip().to_canonical().is_loopback() { Some(DENIED) } else { None };
                    tracing::debug!("Accepted {peer}");
                    let local = stream.local_addr().map(|a| a.to_string()).unwrap_or_default();
                    if let Some(stream) = wrap(node, kind, stream) {
                        admit(node, stream, peer.to_string(), local, refusal, waiting, &mut next);
                    }
                },
            );
        }
        self.next_worker = next;
        more
    }

    fn accept_unix(&mut self, node: &Node) -> bool {
        let Some(listener) = &self.unix else { return false };
        let at_once = node.config.load().max_new_connections_per_cycle as usize;
        let waiting = self.acceptor.waiting(Kind::Tcp);
        let next = &mut self.next_worker;
        accept_some(
            at_once,
            || listener.accept(),
            |(stream, _)| {
                let path = format!("{}:0", node.config.load().unixsocket);
                tracing::debug!("Accepted connection to {path}");
                admit(node, Stream::Unix(stream), path.clone(), path, None, waiting, next);
            },
        )
    }
}

/// Accepts until nobody waits any more (false), or until a bounded number is taken (true).
fn accept_some<S>(
    at_once: usize,
    mut accept: impl FnMut() -> io::Result<S>,
    mut took: impl FnMut(S),
) -> bool {
    for _ in 0..at_once {
        match accept() {
            Ok(connection) => took(connection),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(e) => {
                tracing::warn!("Accepting client connection: {}", words(&e));
                return false;
            }
        }
    }
    true
}

/// The connection as its clients speak.
fn wrap(node: &Node, kind: Kind, stream: TcpStream) -> Option<Stream> {
    if kind == Kind::Tcp {
        return Some(Stream::Tcp(stream));
    }
    // There is none when TLS was just turned off.
    match node.peers.tls.context()?.accept() {
        Ok(session) => Some(Stream::Tls(Box::new(Secured { tcp: stream, session }))),
        Err(e) => {
            tracing::warn!("Error accepting a client connection: {e}");
            None
        }
    }
}

/// Hands a connection to the next worker, or refuses it with a text.
fn admit(
    node: &Node,
    mut stream: Stream,
    peer: String,
    local: String,
    refusal: Option<&'static str>,
    waiting: &Arc<AtomicUsize>,
    next_worker: &mut usize,
) {
    node.people.clients.accepted.fetch_add(1, Ordering::Relaxed);
    let max = node.config.load().maxclients as usize;
    let is_tls = matches!(stream, Stream::Tls(_));
    // A client that speaks TLS can be told why only after its handshake, for which it must have a place.
    let at_once = refusal.filter(|_| !is_tls);
    let at_once = at_once.or_else(|| (!node.people.clients.reserve(max)).then_some(FULL));
    if at_once.or(refusal).is_some() {
        node.people.clients.rejected.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(text) = at_once {
        // Best effort: a client that does not read loses the explanation.
        let _ = stream.write(text.as_bytes());
        return;
    }
    let worker = choose_worker(node, next_worker);
    node.send(worker, Mail::Accepted { stream, peer, local, refusal, waits: Waits::counted(waiting) });
}

/// The worker that is next, unless a script keeps it busy. The last one is for when that is so of all others.
fn choose_worker(node: &Node, next: &mut usize) -> usize {
    let spare = node.life.threads.workers.get().map_or(1, |workers| workers.len() - 1);
    let running = node.shared.scripts.running();
    for _ in 0..spare {
        let worker = *next;
        *next = (worker + 1) % spare;
        if !running.iter().any(|running| running.worker == worker) {
            return worker;
        }
    }
    spare
}
