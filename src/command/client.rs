//! A client as commands see it: its state between commands, without its socket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::gate;
use super::marks::Marks;
use super::spec::Command;
use crate::acl::{DEFAULT_USER, Login, User};
use crate::base::time::UnixMs;
use crate::keyspace::DbIndex;
use crate::keyspace::watch::Dirty;
use crate::pubsub::Subscriber;

/// A command queued by MULTI.
#[derive(Debug)]
pub struct Queued {
    /// Its row, found while it was queued.
    pub command: &'static Command,
    /// Index of the command in the command table, for its statistics.
    pub id: usize,
    /// All words, the name included.
    pub argv: Vec<Vec<u8>>,
}

/// The commands of a transaction in order, in blocks, so that a long queue is never copied to a larger allocation
/// while others wait.
#[derive(Debug, Default)]
pub struct Queue {
    /// All but the last one are full.
    blocks: Vec<Vec<Queued>>,
}

impl Queue {
    /// Commands of a block.
    const BLOCK: usize = 512;

    /// Adds one behind the others.
    pub fn push(&mut self, queued: Queued) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < Self::BLOCK => block.push(queued),
            _ => self.blocks.push(vec![queued]),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let last = self.blocks.last().map_or(0, Vec::len);
        self.blocks.len().saturating_sub(1) * Self::BLOCK + last
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The commands in order.
    pub fn iter(&self) -> impl Iterator<Item = &Queued> + Clone {
        self.blocks.iter().flatten()
    }
}

/// The state of MULTI.
#[derive(Debug, Default)]
pub struct Multi {
    /// What EXEC will run, in order.
    pub queue: Queue,
    /// A command was refused while queueing: EXEC will refuse all.
    pub aborted: bool,
    /// Bytes of the arguments in the queue.
    pub bytes: usize,
}

impl Multi {
    /// Whether so much is queued that others should be served while it runs.
    pub fn is_long(&self) -> bool {
        self.queue.len() >= 512
    }
}

/// Which of the keys that it reads a tracking client keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// Every key that it reads.
    #[default]
    All,
    /// Those of commands behind CLIENT CACHING YES.
    OptIn,
    /// All but those of commands behind CLIENT CACHING NO.
    OptOut,
}

/// CLIENT TRACKING.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    /// The client that is told in its place; 0: itself.
    pub redirect: u64,
    /// BCAST: it hears of all keys that begin with one of the prefixes.
    pub broadcasts: bool,
    /// With `broadcasts`; empty: it hears of all keys.
    pub prefixes: Vec<Vec<u8>>,
    /// Chosen with CLIENT TRACKING, for as long as it lasts.
    pub caching: Caching,
    /// CLIENT CACHING was just said.
    pub said: bool,
    /// It does not want to hear of what it changes itself.
    pub noloop: bool,
    /// Set when the client that is told in its place is gone.
    pub broken: Arc<AtomicBool>,
}

/// CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// Every reply is sent.
    #[default]
    On,
    /// No reply is sent until CLIENT REPLY ON.
    Off,
    /// The next command's reply is not sent.
    SkipNext,
    /// The reply of the command that runs is not sent.
    Skip,
}

/// What kind of peer this is, as CLIENT LIST TYPE tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Whoever sends commands of its own.
    #[default]
    Normal,
    /// Our replica's connection.
    Replica,
    /// Our own primary's stream.
    Primary,
    /// The append-only file that is read.
    File,
}

impl Role {
    /// Whether what it sends was accepted before, and is not refused or redirected again.
    pub fn is_obeyed(self) -> bool {
        matches!(self, Self::Primary | Self::File)
    }
}

/// The stream of our own primary, on the client that applies it.
#[derive(Debug, Default)]
pub struct Upstream {
    /// Allows to append to the log while this primary is followed.
    pub ticket: u64,
    /// What the command or transaction under way looked like on the wire. It goes to the log under the
    /// locks of the data that it changes.
    pub raw: Vec<u8>,
}

/// How a replica asked for data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncRequest {
    /// From before PSYNC.
    Sync,
    /// The id of the history that it knows, and the first byte wanted, counted from 1.
    Psync {
        /// As it was sent: 40 characters, or `?` for none.
        id: Vec<u8>,
        /// Offset in bytes; -1: it has nothing and wants a full copy.
        from: i64,
    },
}

/// How long a client has waited for a shard or a key that another holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Its place in the queue; 0: it does not wait.
    pub ticket: u64,
    /// How often it was put aside for the command that comes next.
    pub tries: u32,
    /// A script that takes long holds what it needs: it is told so.
    pub busy: bool,
}

/// The conditions of a client, kept as one word that the gate tests, and what MULTI has queued.
#[derive(Debug)]
pub struct Conditions {
    /// Bits of [`gate`].
    bits: u32,
    multi: Option<Box<Multi>>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { bits: gate::UNAUTHENTICATED, multi: None }
    }
}

/// The connection's state that commands read and change.
#[derive(Debug, Default)]
pub struct Client {
    /// As CLIENT ID tells it: never given twice while the node runs.
    pub id: u64,
    /// Number of the worker that owns the connection.
    pub worker: usize,
    /// Place among the connections of its worker; free for another once it has closed.
    pub token: usize,
    /// Set when it becomes a replica's link; clients of the node's own begin with theirs.
    pub role: Role,
    /// The database that SELECT chose.
    pub db: DbIndex,
    /// HELLO 3 was said: maps, sets, doubles and pushes have types of their own.
    pub resp3: bool,
    /// CLIENT SETNAME; empty: none. It may be long, and is shared with whoever shows it.
    pub name: Arc<[u8]>,
    /// CLIENT SETINFO LIB-NAME; empty: none.
    pub lib_name: Arc<[u8]>,
    /// CLIENT SETINFO LIB-VER; empty: none.
    pub lib_ver: Arc<[u8]>,
    /// The user as whom it is logged in, at first the default user. `None`: its rights are not checked (see
    /// [`Role::is_obeyed`]). Set by [`log_in`](Self::log_in).
    pub login: Option<Login>,
    /// It speaks TLS.
    pub tls: bool,
    /// Of the peer, as `ip:port` or as the path of the Unix socket.
    pub addr: String,
    /// Our end of the connection, as `ip:port` or as a path.
    pub local_addr: String,
    /// When it connected, Unix milliseconds.
    pub created: UnixMs,
    /// What CLIENT REPLY asked for.
    pub reply_mode: ReplyMode,
    /// READONLY on a cluster replica.
    pub readonly: bool,
    /// CLIENT NO-EVICT: it is not closed for the memory that it takes.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH: what it reads looks no more recently used than before.
    pub no_touch: bool,
    /// CLIENT TRACKING.
    pub tracks: Option<Box<Tracks>>,
    /// What the gate looks at before each command.
    pub conditions: Conditions,
    /// Commands of the transaction that runs at this moment.
    pub executing: Option<usize>,
    /// The name of the command that the client sent, while that runs others: EXEC, or one that runs a script.
    pub runs_others: Option<&'static str>,
    /// Keys that WATCH named, with their databases.
    pub watched: BTreeSet<(DbIndex, Vec<u8>)>,
    /// Set when a watched key changes.
    pub dirty: Option<Dirty>,
    /// SUBSCRIBE.
    pub channels: BTreeSet<Vec<u8>>,
    /// PSUBSCRIBE.
    pub patterns: BTreeSet<Vec<u8>>,
    /// SSUBSCRIBE.
    pub shard_channels: BTreeSet<Vec<u8>>,
    /// What the registry of listeners knows the client by, once it has subscribed to something.
    pub subscriber: Option<Arc<Subscriber>>,
    /// The offset of the log behind this client's last write, for WAIT.
    pub written_to: u64,
    /// QUIT and the like: the connection ends once its output is sent.
    pub close_after_reply: bool,
    /// Since when the command at hand waits for a shard or a key.
    pub aside: Aside,
    /// On the client of a [`Role::Primary`].
    pub upstream: Option<Box<Upstream>>,
    /// It has said REPLCONF: the node knows it as a replica to be.
    pub introduced: bool,
    /// What it asked for when it became a replica.
    pub sync: Option<SyncRequest>,
    /// Raised by whatever changes what CLIENT LIST shows.
    pub version: u32,
}

impl Client {
    /// What the gate must know of the client: bits of [`gate`].
    #[inline(always)]
    pub fn conditions(&self) -> u32 {
        self.conditions.bits
    }

    fn has(&self, condition: u32) -> bool {
        self.conditions.bits & condition != 0
    }

    fn set(&mut self, condition: u32, on: bool) {
        if on {
            self.conditions.bits |= condition;
        } else {
            self.conditions.bits &= !condition;
        }
    }

    /// It has logged in, or needs not to.
    pub fn is_authenticated(&self) -> bool {
        !self.has(gate::UNAUTHENTICATED)
    }

    /// AUTH, HELLO AUTH and RESET decide it.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.set(gate::UNAUTHENTICATED, !authenticated);
    }

    /// It is shown all commands (MONITOR).
    pub fn monitors(&self) -> bool {
        self.has(gate::MONITORS)
    }

    /// MONITOR begins it, RESET and the end of the connection end it.
    pub fn set_monitors(&mut self, monitors: bool) {
        self.set(gate::MONITORS, monitors);
    }

    /// Is this user from now on.
    pub fn log_in(&mut self, login: Option<Login>, authenticated: bool) {
        self.login = login;
        self.set_authenticated(authenticated);
        self.settle_rights();
        self.version += 1;
    }

    /// Brings the condition that follows from the user's rights up to date.
    pub fn settle_rights(&mut self) {
        let restricted = self.user().is_some_and(|user| !user.is_unrestricted());
        self.set(gate::RESTRICTED, restricted);
    }

    /// The user as it is now.
    #[inline]
    pub fn user(&mut self) -> Option<&User> {
        self.login.as_mut().map(Login::user)
    }

    /// As ACL WHOAMI tells it; that of the default user where nobody is asked.
    pub fn user_name(&self) -> &str {
        self.login.as_ref().map_or(DEFAULT_USER, |login| login.name())
    }

    /// ASKING: the next command may use a slot that is being imported.
    pub fn set_asking(&mut self, asking: bool) {
        self.set(gate::ASKING, asking);
    }

    /// MULTI was said, and neither EXEC nor DISCARD since.
    pub fn in_multi(&self) -> bool {
        self.conditions.multi.is_some()
    }

    /// MULTI: what comes is queued from now on.
    pub fn begin_multi(&mut self) {
        self.resume_multi(Box::default());
    }

    /// Goes on with a queue that was taken out.
    pub fn resume_multi(&mut self, multi: Box<Multi>) {
        self.conditions.multi = Some(multi);
        self.set(gate::IN_MULTI, true);
        self.version += 1;
    }

    /// The open transaction, to queue a command in it; `None` outside MULTI.
    pub fn multi_mut(&mut self) -> Option<&mut Multi> {
        self.conditions.multi.as_deref_mut()
    }

    /// The open transaction; `None` outside MULTI.
    pub fn multi(&self) -> Option<&Multi> {
        self.conditions.multi.as_deref()
    }

    /// Ends MULTI and gives what was queued.
    pub fn take_multi(&mut self) -> Option<Box<Multi>> {
        self.set(gate::IN_MULTI, false);
        self.version += 1;
        self.conditions.multi.take()
    }

    /// Updates the condition that follows from subscriptions and protocol. To be called after each change of either.
    pub fn settle_subscribed(&mut self) {
        self.set(gate::SUBSCRIBED, !self.resp3 && self.subscriptions() > 0);
    }

    /// To whom invalidations go, as CLIENT GETREDIR tells: 0 the client itself, -1 nobody.
    pub fn redirection(&self) -> i64 {
        self.tracks.as_ref().map_or(-1, |tracks| tracks.redirect as i64)
    }

    /// Forgets what CLIENT CACHING said.
    pub fn end_caching(&mut self) {
        if let Some(tracks) = &mut self.tracks {
            tracks.said = false;
        }
    }

    /// Whether the client may only use the pub/sub commands: subscribed, in RESP2.
    pub fn is_subscribed_resp2(&self) -> bool {
        self.has(gate::SUBSCRIBED)
    }

    /// What CLIENT LIST's `flags` are made of.
    pub fn marks(&self) -> Marks {
        let tracks = self.tracks.as_deref();
        let own = [
            (self.monitors(), 'O'),
            (self.role == Role::Replica, 'S'),
            (self.role == Role::Primary, 'M'),
            (self.subscriptions() > 0, 'P'),
            (self.conditions.multi.is_some() || self.executing.is_some(), 'x'),
            (tracks.is_some(), 't'),
            (tracks.is_some_and(|tracks| tracks.broadcasts), 'B'),
            (self.close_after_reply, 'c'),
            (self.is_unix_socket(), 'U'),
            (self.readonly, 'r'),
            (self.no_evict, 'e'),
            (self.no_touch, 'T'),
        ];
        let bits = own.iter().filter(|(on, _)| *on).fold(0, |bits, (_, letter)| bits | Marks::bit(*letter));
        Marks { own: bits, broken: tracks.map(|t| Arc::clone(&t.broken)), dirty: self.dirty.clone() }
    }

    /// Whether the client came by the unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.addr.ends_with(":0")
    }

    /// Whether the client is on this machine.
    pub fn is_local(&self) -> bool {
        self.is_unix_socket() || self.addr.starts_with("127.") || self.addr.starts_with("[::1]")
    }

    /// Channels and patterns.
    pub fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shard_channels.len()
    }
}
