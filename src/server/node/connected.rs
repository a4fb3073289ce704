//! All clients of the node, for those who ask about them: CLIENT LIST, CLIENT KILL, `maxclients`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::base::time::UnixMs;
use crate::command::Client;
use crate::command::client::Role;
use crate::command::marks::Marks;
use crate::keyspace::watch::Waiter;

/// What others may know of a client. Its worker keeps it up to date.
#[derive(Debug)]
pub struct ClientEntry {
    /// As CLIENT ID tells it.
    pub id: u64,
    /// The worker that owns its connection.
    pub worker: usize,
    /// Place of its connection there.
    pub token: AtomicUsize,
    /// The socket's number, -1 for none.
    pub fd: i32,
    /// As it was when the entry was made.
    pub role: Role,
    /// Of the peer, as `ip:port` or as the path of the Unix socket.
    pub addr: String,
    /// Our end of the connection, as `ip:port` or as a path.
    pub local_addr: String,
    /// When it connected, by [`Node::steady_ms`](super::Node::steady_ms).
    pub created: UnixMs,
    /// Id of the last command in the table; `usize::MAX`: none yet.
    pub last_command: AtomicUsize,
    /// When it last sent something, in seconds of that clock.
    pub last_seen: AtomicI64,
    /// As of its last round.
    pub usage: Mutex<Usage>,
    /// It is to be closed for the memory that it takes.
    pub evicted: AtomicBool,
    /// The client waits for keys, and CLIENT UNBLOCK may end that.
    pub blocked: AtomicBool,
    /// While it is blocked on keys: its place in their queues. CLIENT UNBLOCK and KILL claim it before they end the
    /// wait, so that nobody serves it from then on.
    pub waiter: Mutex<Option<Arc<Waiter>>>,
    /// Held by a pause.
    pub paused: AtomicBool,
    /// Its wait, if it waits, ends by time.
    pub times_out: AtomicBool,
    /// A copy of the client's own state, made when it changed.
    pub state: Mutex<ClientState>,
}

/// Bytes that a client takes, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input that is not run yet.
    pub query: usize,
    /// What is allocated for more input.
    pub query_free: usize,
    /// Arguments of the command that waits for keys.
    pub argv: usize,
    /// Arguments of the commands that MULTI has queued.
    pub multi: usize,
    /// Output that is not sent, up to what no limit counts.
    pub output: usize,
    /// Output beyond what no limit counts, with what its pieces take.
    pub listed: usize,
    /// Number of those pieces.
    pub pieces: usize,
    /// The longest reply of the last seconds.
    pub reply_peak: usize,
    /// All of it, with what every connection takes.
    pub total: usize,
}

impl Usage {
    /// As the client looks while this command of it runs.
    pub fn see_running(&mut self, args: &[&[u8]]) {
        // As on the wire.
        let digits = |n: usize| n.checked_ilog10().map_or(1, |log| log as usize + 1);
        let head = |n: usize| digits(n) + 3;
        let request = head(args.len()) + args.iter().map(|a| head(a.len()) + a.len() + 2).sum::<usize>();
        self.query += request;
        self.argv = args.iter().map(|a| a.len()).sum();
        self.total += request + self.argv;
    }
}

/// The most that one client has taken in each of the last seconds: input and output.
#[derive(Debug, Default)]
struct Recent {
    seconds: [(u64, usize, usize); 8],
}

impl Recent {
    fn note(&mut self, second: u64, input: usize, output: usize) {
        let slot = &mut self.seconds[second as usize % 8];
        if slot.0 != second {
            *slot = (second, 0, 0);
        }
        *slot = (second, slot.1.max(input), slot.2.max(output));
    }

    fn most(&self, second: u64) -> (usize, usize) {
        let recent = self.seconds.iter().filter(|slot| slot.0 + 8 > second);
        recent.fold((0, 0), |(input, output), slot| (input.max(slot.1), output.max(slot.2)))
    }
}

/// Classes of clients as CLIENT LIST TYPE names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of CLIENT LIST TYPE")]
pub enum ClientKind {
    Normal,
    Primary,
    Replica,
    PubSub,
}

impl ClientKind {
    /// By the word of CLIENT LIST TYPE, in any case of letters; `slave` and `master` included.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [
            ("normal", Self::Normal),
            ("slave", Self::Replica),
            ("replica", Self::Replica),
            ("pubsub", Self::PubSub),
            ("master", Self::Primary),
        ]
        .into_iter()
        .find(|(n, _)| name.eq_ignore_ascii_case(n.as_bytes()))
        .map(|(_, kind)| kind)
    }

    /// The class of a client of a role with or without subscriptions.
    pub fn of(role: Role, subscribed: bool) -> Self {
        match role {
            Role::Replica => Self::Replica,
            Role::Primary => Self::Primary,
            Role::Normal | Role::File if subscribed => Self::PubSub,
            Role::Normal | Role::File => Self::Normal,
        }
    }
}

/// The parts of [`Client`] that CLIENT LIST shows.
#[derive(Clone, Debug, Default)]
pub struct ClientState {
    /// CLIENT SETNAME; empty: none.
    pub name: Vec<u8>,
    /// The ACL user.
    pub user: String,
    /// The database that SELECT chose.
    pub db: u16,
    /// It speaks RESP3; otherwise RESP2.
    pub resp3: bool,
    /// CLIENT SETINFO LIB-NAME; empty: none.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER; empty: none.
    pub lib_ver: Vec<u8>,
    /// Number of channels subscribed to.
    pub channels: usize,
    /// Number of patterns subscribed to.
    pub patterns: usize,
    /// Number of shard channels subscribed to.
    pub shard_channels: usize,
    /// Commands queued by MULTI; -1 outside.
    pub multi: i64,
    /// Number of keys watched.
    pub watched: usize,
    /// CLIENT NO-EVICT: it is not closed for the memory that it takes.
    pub no_evict: bool,
    /// What the letters are made of that CLIENT LIST shows.
    pub marks: Marks,
    /// As CLIENT GETREDIR tells it.
    pub redirection: i64,
}

/// The registry.
#[derive(Debug, Default)]
pub struct Clients {
    entries: DashMap<u64, Arc<ClientEntry>>,
    next_id: AtomicU64,
    count: AtomicUsize,
    /// Clients waiting for keys.
    pub blocked: AtomicUsize,
    /// Clients that a pause holds.
    pub paused: AtomicUsize,
    /// Connections taken, since the start or CONFIG RESETSTAT.
    pub accepted: AtomicU64,
    /// Connections turned away because of `maxclients`, since the start or CONFIG RESETSTAT.
    pub rejected: AtomicU64,
    /// Bytes that the clients of all workers take.
    memory: AtomicUsize,
    recent: Mutex<Recent>,
    /// Held by the worker that looks for clients to evict.
    pub evicting: Mutex<()>,
    /// Clients closed because of `maxmemory-clients`, since the start or CONFIG RESETSTAT.
    pub evicted: AtomicU64,
}

impl Clients {
    /// An id that no client has had.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Clients now, with those that are being accepted; `maxclients` limits it.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// No clients.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the clients of all workers take.
    #[inline]
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// A client that took `before` takes `now`.
    pub fn count_memory(&self, before: usize, now: usize) {
        self.memory.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Notes what a client has waiting to be run and to be sent.
    pub fn note_buffers(&self, second: u64, input: usize, output: usize) {
        self.recent.lock().note(second, input, output);
    }

    /// The most input and output, in bytes, that a client has had waiting in the last seconds.
    pub fn recent_buffers(&self, second: u64) -> (usize, usize) {
        self.recent.lock().most(second)
    }

    /// Lists a client for which a place was reserved.
    pub fn add(&self, client: &Client, fd: i32) -> Arc<ClientEntry> {
        let entry = Arc::new(ClientEntry {
            id: client.id,
            worker: client.worker,
            token: AtomicUsize::new(client.token),
            fd,
            role: client.role,
            addr: client.addr.clone(),
            local_addr: client.local_addr.clone(),
            created: client.created,
            last_command: AtomicUsize::new(usize::MAX),
            last_seen: AtomicI64::new(client.created / 1000),
            usage: Mutex::new(Usage { total: size_of::<ClientEntry>(), ..Usage::default() }),
            evicted: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            waiter: Mutex::new(None),
            paused: AtomicBool::new(false),
            times_out: AtomicBool::new(false),
            state: Mutex::new(ClientState::of(client)),
        });
        self.entries.insert(client.id, Arc::clone(&entry));
        entry
    }

    /// Takes a place for a client that will be added; false when there are `max` already.
    pub fn reserve(&self, max: usize) -> bool {
        let took = |n| (n < max).then_some(n + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, took).is_ok()
    }

    /// Gives back the place of a client that was never added.
    pub fn release(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Forgets a client that has gone; of no effect for one that was never added.
    pub fn remove(&self, id: u64) {
        if self.entries.remove(&id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The client of this id; `None` once it has gone.
    pub fn get(&self, id: u64) -> Option<Arc<ClientEntry>> {
        self.entries.get(&id).map(|e| Arc::clone(&e))
    }

    /// All clients by id.
    pub fn all(&self) -> Vec<Arc<ClientEntry>> {
        let mut all: Vec<_> = self.entries.iter().map(|e| Arc::clone(&e)).collect();
        all.sort_by_key(|e| e.id);
        all
    }
}

impl ClientState {
    /// A copy of what a client's connection knows.
    pub fn of(client: &Client) -> Self {
        Self {
            name: client.name.clone(),
            user: client.user_name().to_owned(),
            db: client.db,
            resp3: client.resp3,
            lib_name: client.lib_name.clone(),
            lib_ver: client.lib_ver.clone(),
            channels: client.channels.len(),
            patterns: client.patterns.len(),
            shard_channels: client.shard_channels.len(),
            multi: match (client.multi(), client.executing) {
                (Some(multi), _) => multi.queue.len() as i64,
                (None, Some(commands)) => commands as i64,
                (None, None) => -1,
            },
            watched: client.watched.len(),
            no_evict: client.no_evict,
            marks: client.marks(),
            redirection: client.redirection(),
        }
    }
}
