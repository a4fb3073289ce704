//! The replicas of this node, as a state machine.
//!
//! ```text
//! REPLCONF ... -> PSYNC -> (+CONTINUE)   -> Online
//!                     \-> (+FULLRESYNC) -> WaitStart -> WaitEnd -> SendBulk -> Online
//!                                                   \-> Streaming ------------> Online
//! ```
//!
//! One snapshot serves all replicas that wait when it starts. Its target is sockets (the RDB is streamed between
//! two marks, `$EOF:`) or disk (the length is known first, `$<length>`), for which replicas may still join while it
//! is written, because the stream that follows the snapshot's offset is kept for them all the same.
//!
//! | file | concept |
//! |---|---|
//! | `link` | one replica: its state, and what it says by REPLCONF |
//! | `sync` | how a synchronisation is asked for, waits, and ends |
//! | `report` | what INFO and ROLE tell |

mod link;
mod report;
mod sync;

use std::collections::BTreeMap;

use super::{History, Level};
use crate::base::rng::Rng;
use crate::base::time::MonoMs;

pub use link::{Replconf, State};
pub use report::RoleEntry;

/// Names a connection; given by the driver, never used again for another.
pub type LinkId = u64;

/// How the primary treats its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directive `repl-timeout`.
    pub timeout_ms: MonoMs,
    /// Directive `repl-ping-replica-period`.
    pub ping_period_ms: MonoMs,
    /// Directive `repl-diskless-sync`.
    pub diskless: bool,
    /// Directive `repl-diskless-sync-delay`: how long a snapshot to sockets waits for more replicas.
    pub diskless_delay_ms: MonoMs,
    /// Directive `repl-diskless-sync-max-replicas`: so many need not wait; 0 for no such number.
    pub diskless_max_replicas: usize,
    /// Directive `repl-backlog-ttl`; 0 for ever.
    pub backlog_ttl_ms: MonoMs,
    /// Directive `min-replicas-max-lag`.
    pub max_lag_ms: MonoMs,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout_ms: 60_000,
            ping_period_ms: 10_000,
            diskless: true,
            diskless_delay_ms: 5_000,
            diskless_max_replicas: 0,
            backlog_ttl_ms: 3_600_000,
            max_lag_ms: 10_000,
        }
    }
}

/// What the driver does, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Queue bytes on a replica's connection.
    Send(LinkId, Vec<u8>),
    /// Send the stream from this offset on, and go on as it grows.
    Stream(LinkId, u64),
    /// Begin to keep the stream, from now on.
    KeepStream,
    /// Forget the stream that is kept, and keep none.
    DropStream,
    /// Take a snapshot of this for this target; [`Primary::snapshot_started`] tells that it has begun.
    StartSnapshot(Target, Content),
    /// Append these bytes to the stream.
    Append(&'static [u8]),
    /// Close a replica's connection.
    Close(LinkId),
    /// Write a line to the log.
    Log(Level, String),
}

/// Where a snapshot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a file first, then with its length to every replica that waits for it.
    Disk,
    /// To the replicas as it is produced.
    Sockets,
}

/// What a replica wants of an RDB (`REPLCONF rdb-filter-only`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The data set.
    pub keys: bool,
    /// The function libraries.
    pub functions: bool,
}

impl Content {
    /// What a replica gets that asks for nothing in particular.
    pub const ALL: Self = Self { keys: true, functions: true };
}

/// All replicas. See the module.
pub struct Primary {
    config: Config,
    replicas: BTreeMap<LinkId, link::Link>,
    snapshot: Snapshot,
    /// No snapshot is ordered before this.
    snapshot_not_before: MonoMs,
    /// Since when there was no replica at all; `None` while there is one.
    alone_since: Option<MonoMs>,
    last_ping: MonoMs,
    last_newline: MonoMs,
    rng: Rng,
}

enum Snapshot {
    None,
    /// Asked for, not begun.
    Ordered(Target, Content),
    Running {
        target: Target,
        content: Content,
        offset: u64,
    },
}

impl Primary {
    /// A node without replicas. `rng` draws the names of histories and the end marks of snapshots.
    pub fn new(now: MonoMs, config: Config, rng: Rng) -> Self {
        Self {
            config,
            replicas: BTreeMap::new(),
            snapshot: Snapshot::None,
            snapshot_not_before: now,
            alone_since: Some(now),
            last_ping: now,
            last_newline: now,
            rng,
        }
    }

    /// Takes new settings; they count from the next tick or request on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// A connection is gone, whoever closed it. Also for connections that were no replicas.
    pub fn closed(&mut self, now: MonoMs, id: LinkId, out: &mut Vec<Action>) {
        let Some(link) = self.replicas.remove(&id) else { return };
        if link.state != State::Handshake {
            log(out, Level::Notice, format!("Connection with replica {} lost.", link.name()));
        }
        if self.attached().next().is_none() && self.alone_since.is_none() {
            self.alone_since = Some(now);
        }
    }

    /// Closes all replicas, which shall learn what the node has become when they come back.
    pub fn disconnect_all(&mut self, out: &mut Vec<Action>) {
        out.extend(self.attached().map(|(id, _)| Action::Close(id)));
    }

    /// Time went by; about ten times a second. `ours` is our history while we are a primary ourselves: a replica
    /// passes on the pings of its own primary and keeps its stream.
    pub fn tick(
        &mut self,
        now: MonoMs,
        ours: Option<&mut History>,
        stream_kept: bool,
        out: &mut Vec<Action>,
    ) {
        self.drop_silent(now, out);
        self.comfort_waiting(now, out);
        self.start_snapshot_if_due(now, out);
        let Some(history) = ours else { return };
        if now.saturating_sub(self.last_ping) >= self.config.ping_period_ms {
            self.last_ping = now;
            if self.attached().next().is_some() {
                out.push(Action::Append(super::PING_RECORD));
            }
        }
        let ttl = self.config.backlog_ttl_ms;
        if let Some(since) = self.alone_since
            && stream_kept
            && ttl > 0
            && now.saturating_sub(since) > ttl
        {
            // Changes have no offsets from now on: under the old ids a replica that comes back could pass for one
            // that has them.
            history.forget(&mut self.rng);
            self.alone_since = Some(now);
            out.push(Action::DropStream);
            let text =
                format!("Replication backlog freed after {} seconds without connected replicas.", ttl / 1000);
            log(out, Level::Notice, text);
        }
    }

    /// Closes replicas that have said nothing for too long.
    fn drop_silent(&mut self, now: MonoMs, out: &mut Vec<Action>) {
        for (id, link) in &self.replicas {
            // A replica that is being fed need not speak: the driver notices when its connection takes nothing. A
            // replica from before PSYNC never speaks.
            if link.state == State::Online
                && !link.old
                && now.saturating_sub(link.heard) > self.config.timeout_ms
            {
                log(
                    out,
                    Level::Warning,
                    format!("Disconnecting timedout replica (streaming sync): {}", link.name()),
                );
                out.push(Action::Close(*id));
            }
        }
    }

    /// Sends an empty line to those that wait, so that they do not give us up.
    fn comfort_waiting(&mut self, now: MonoMs, out: &mut Vec<Action>) {
        if now.saturating_sub(self.last_newline) < 1000 {
            return;
        }
        self.last_newline = now;
        for (id, link) in &self.replicas {
            if matches!(link.state, State::WaitStart | State::WaitEnd) {
                out.push(Action::Send(*id, b"\n".to_vec()));
            }
        }
    }

    /// Connections that have sent PSYNC or SYNC.
    fn attached(&self) -> impl Iterator<Item = (LinkId, &link::Link)> {
        self.replicas.iter().filter(|(_, l)| l.state != State::Handshake).map(|(id, l)| (*id, l))
    }
}

fn log(out: &mut Vec<Action>, level: Level, text: impl Into<String>) {
    out.push(Action::Log(level, text.into()));
}
