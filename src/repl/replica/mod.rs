//! The link to our primary, as a state machine.
//!
//! ```text
//! Waiting -> Connecting -> Handshake -> (+CONTINUE)   -> Streaming
//!    ^                              \-> (+FULLRESYNC) -> Transfer -> Loading -> Streaming
//!    '---------- any failure: again after a second ----------------------------'
//! ```
//!
//! The driver keeps one connection at most: after it was told to close one, or has told that one was closed, it
//! passes nothing on from it.
//!
//! | file | concept |
//! |---|---|
//! | `handshake` | what is said before PSYNC, and its answers |
//! | `transfer` | the RDB on its way, by length or up to a mark |
//! | `report` | what INFO and ROLE tell |

mod handshake;
mod report;
mod transfer;

use super::{Level, ReplId};
use crate::base::time::MonoMs;
use crate::resp::write_command;
use handshake::Handshake;
use transfer::Transfer;

/// How long to wait before a failed connection is tried again, and how often the offset is acknowledged.
const SECOND_MS: MonoMs = 1000;

/// Whom to follow, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The primary's name or address.
    pub host: String,
    /// The primary's client port.
    pub port: u16,
    /// Directive `masteruser`.
    pub user: Option<String>,
    /// Directive `masterauth`; without it no AUTH is sent.
    pub password: Option<String>,
    /// The port that the primary shall tell others to find us at: `replica-announce-port` or our own.
    pub listening_port: u16,
    /// Directive `replica-announce-ip`.
    pub announce_ip: Option<String>,
    /// Directive `repl-timeout`, in milliseconds.
    pub timeout_ms: MonoMs,
}

/// A point in a history: what a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The history.
    pub id: ReplId,
    /// Bytes of the stream that were applied.
    pub offset: u64,
}

/// What the driver tells.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Time went by. About ten times a second; nothing depends on the exact rate.
    Tick,
    /// The connection that was asked for is open.
    Connected,
    /// The connection could not be made, and why.
    Failed(&'a str),
    /// The peer closed the connection, or reading or writing failed, and how.
    Closed(&'a str),
    /// What the primary sent, in pieces of any length.
    Bytes(&'a [u8]),
    /// The RDB that ended with [`Action::RdbEnd`] is the data set now; or it could not be.
    Loaded(Result<(), &'a str>),
}

/// What the driver does, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection to the configured address.
    Connect,
    /// Close the connection. Not answered.
    Close,
    /// Write bytes to the connection.
    Send(Vec<u8>),
    /// The primary goes on from our position under this id, which may be a new one for the same history.
    Continue(ReplId),
    /// An RDB follows that replaces the data set. `None` if the primary knows no PSYNC. `length` where the
    /// primary told it.
    FullSync {
        /// What the replica will hold once the RDB is loaded.
        position: Option<Position>,
        /// Bytes of the RDB.
        length: Option<u64>,
    },
    /// A part of the RDB.
    Rdb(Vec<u8>),
    /// The RDB is whole. Load it and tell; read nothing from the connection meanwhile.
    RdbEnd,
    /// A part of the stream, to be applied.
    Stream(Vec<u8>),
    /// The peer has taken our part over, as PSYNC FAILOVER asked for.
    TakenOver,
    /// The peer does not take our part over.
    Refused,
    /// Write a line to the log.
    Log(Level, String),
}

/// The link. See the module.
pub struct Replica {
    config: Config,
    state: State,
    /// What we hold, once a synchronisation has succeeded: what PSYNC asks to go on from.
    position: Option<Position>,
    /// Bytes of the stream that arrived, whether applied or not.
    read_offset: u64,
    last_io: MonoMs,
    last_ack: MonoMs,
    /// Up to where the stream is on this node's own disk; `None` when it is written to none.
    synced: Option<u64>,
    /// When the link went down; `None` while it is up or was never.
    down_since: Option<MonoMs>,
    /// An unfinished line of the handshake.
    line: Vec<u8>,
    /// The peer is our replica still, and PSYNC asks it to take our part over (FAILOVER).
    hands_over: bool,
}

enum State {
    Waiting { until: MonoMs },
    Connecting,
    Handshake(Handshake),
    Transfer(Transfer),
    Loading { position: Option<Position>, held: Vec<u8>, last_newline: MonoMs },
    Streaming { since: MonoMs },
}

impl Replica {
    /// A link that connects on the first tick. `position` is what the node holds already: its own history if it was
    /// a primary, what it got from another primary, or what its file says.
    pub fn new(now: MonoMs, config: Config, position: Option<Position>) -> Self {
        Self {
            config,
            state: State::Waiting { until: now },
            position,
            read_offset: position.map_or(0, |p| p.offset),
            last_io: now,
            last_ack: now,
            synced: None,
            down_since: None,
            line: Vec::new(),
            hands_over: false,
        }
    }

    /// A link to a replica that shall become our primary.
    pub fn handing_over(self) -> Self {
        Self { hands_over: true, ..self }
    }

    /// This link follows another one of the same node: what was up until now is down from now on.
    pub fn after(mut self, now: MonoMs, former: &Self) -> Self {
        self.down_since = if former.is_up() { Some(now) } else { former.down_since };
        self
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes credentials, announcements or the timeout; they count from the next handshake or tick on. To follow
    /// another address, make another link.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// What the node holds; `None` before the first success and from the beginning of a full synchronisation on.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Tells how much of the stream was applied. A transaction counts when it is whole, so that a link that breaks
    /// inside one goes on before it.
    pub fn applied(&mut self, offset: u64) {
        if let Some(position) = &mut self.position {
            position.offset = offset;
        }
    }

    /// Notes up to where the stream is on this node's own disk: the acknowledgement tells it.
    pub fn set_synced(&mut self, offset: Option<u64>) {
        self.synced = offset;
    }

    /// The acknowledgement to send when the stream asks for one (REPLCONF GETACK).
    pub fn acknowledge(&mut self, now: MonoMs) -> Option<Action> {
        let (State::Streaming { .. }, Some(position)) = (&self.state, self.position) else { return None };
        self.last_ack = now;
        let offset = position.offset.to_string();
        let synced = self.synced.map(|synced| synced.min(position.offset).to_string());
        let mut words: Vec<&[u8]> = vec![b"REPLCONF", b"ACK", offset.as_bytes()];
        if let Some(synced) = &synced {
            words.extend([b"FACK", synced.as_bytes()]);
        }
        Some(Action::Send(command(&words)))
    }

    /// Takes one event in; what is to be done is appended to `out`.
    pub fn step(&mut self, now: MonoMs, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::Tick => self.tick(now, out),
            Event::Connected => self.connected(now, out),
            Event::Failed(why) => {
                log(out, Level::Warning, format!("Error condition on socket for SYNC: {why}"));
                self.retry(now);
            }
            Event::Closed(why) => self.closed(now, why, out),
            Event::Bytes(bytes) => self.bytes(now, bytes, out),
            Event::Loaded(result) => self.loaded(now, result, out),
        }
    }

    fn tick(&mut self, now: MonoMs, out: &mut Vec<Action>) {
        let silent = now.saturating_sub(self.last_io) > self.config.timeout_ms;
        match &mut self.state {
            State::Waiting { until } if now >= *until => self.connect(now, "Connecting", out),
            State::Waiting { .. } => {}
            State::Connecting | State::Handshake(_) if silent => {
                self.give_up(now, "Timeout connecting to the MASTER...".into(), out);
            }
            State::Transfer(_) if silent => {
                let text = "Timeout receiving bulk data from MASTER... If the problem persists try to set the \
                            'repl-timeout' parameter in redis.conf to a larger value.";
                self.give_up(now, text.into(), out);
            }
            State::Streaming { .. } if silent => {
                log(out, Level::Warning, "MASTER timeout: no data nor PING received...");
                log(out, Level::Notice, "Connection with master lost.");
                out.push(Action::Close);
                self.lost(now, out);
            }
            State::Connecting | State::Handshake(_) | State::Transfer(_) => {}
            State::Loading { last_newline, .. } => {
                // An empty line keeps the primary from taking us for dead.
                if now.saturating_sub(*last_newline) >= SECOND_MS {
                    *last_newline = now;
                    out.push(Action::Send(b"\n".to_vec()));
                }
            }
            State::Streaming { .. } => {
                if now.saturating_sub(self.last_ack) >= SECOND_MS {
                    out.extend(self.acknowledge(now));
                }
            }
        }
    }

    fn connect(&mut self, now: MonoMs, verb: &str, out: &mut Vec<Action>) {
        log(out, Level::Notice, format!("{verb} to MASTER {}:{}", self.config.host, self.config.port));
        out.push(Action::Connect);
        log(out, Level::Notice, "MASTER <-> REPLICA sync started");
        self.line.clear();
        self.last_io = now;
        self.state = State::Connecting;
    }

    fn connected(&mut self, now: MonoMs, out: &mut Vec<Action>) {
        self.last_io = now;
        log(out, Level::Notice, "Non blocking connect for SYNC fired the event.");
        self.state = State::Handshake(Handshake::begin(out));
    }

    fn bytes(&mut self, now: MonoMs, mut bytes: &[u8], out: &mut Vec<Action>) {
        self.last_io = now;
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Handshake(_) => self.handshake_bytes(now, bytes, out),
                State::Transfer(_) => self.transfer_bytes(now, bytes, out),
                State::Loading { held, .. } => {
                    held.extend_from_slice(bytes);
                    return;
                }
                State::Streaming { .. } => {
                    self.read_offset += bytes.len() as u64;
                    out.push(Action::Stream(bytes.to_vec()));
                    return;
                }
                // Nothing is expected from a connection that was given up.
                State::Waiting { .. } | State::Connecting => return,
            };
        }
    }

    fn transfer_bytes<'a>(&mut self, now: MonoMs, bytes: &'a [u8], out: &mut Vec<Action>) -> &'a [u8] {
        let State::Transfer(transfer) = &mut self.state else { return bytes };
        match transfer.feed(bytes, out) {
            Ok(transfer::Fed { rest, whole: false }) => rest,
            Ok(transfer::Fed { rest, whole: true }) => {
                let position = transfer.position();
                log(out, Level::Notice, "MASTER <-> REPLICA sync: Flushing old data");
                log(out, Level::Notice, "MASTER <-> REPLICA sync: Loading DB in memory");
                out.push(Action::RdbEnd);
                self.state = State::Loading { position, held: Vec::new(), last_newline: now };
                rest
            }
            Err(text) => {
                self.give_up(now, text, out);
                &[]
            }
        }
    }

    fn loaded(&mut self, now: MonoMs, result: Result<(), &str>, out: &mut Vec<Action>) {
        if let (Err(why), State::Transfer(_) | State::Loading { .. }) = (result, &self.state) {
            // Also before all of it is there: who cannot keep it need not be sent the rest.
            let text = format!("Failed trying to load the MASTER synchronization DB: {why}");
            self.give_up(now, text, out);
            return;
        }
        let State::Loading { position, held, .. } = &mut self.state else { return };
        let (position, held) = (*position, std::mem::take(held));
        self.position = position;
        self.read_offset = position.map_or(0, |p| p.offset);
        log(out, Level::Notice, "MASTER <-> REPLICA sync: Finished with success");
        self.up(now);
        // A primary that streamed its RDB sends nothing more before it hears this.
        out.extend(self.acknowledge(now));
        self.bytes(now, &held, out);
    }

    fn up(&mut self, now: MonoMs) {
        (self.last_io, self.down_since) = (now, None);
        self.state = State::Streaming { since: now };
    }

    fn closed(&mut self, now: MonoMs, why: &str, out: &mut Vec<Action>) {
        match &self.state {
            State::Streaming { .. } => {
                log(out, Level::Notice, "Connection with master lost.");
                self.lost(now, out);
            }
            State::Transfer(_) | State::Loading { .. } => {
                log(out, Level::Warning, format!("I/O error trying to sync with MASTER: {why}"));
                self.retry(now);
            }
            State::Connecting | State::Handshake(_) => {
                log(out, Level::Warning, format!("Error condition on socket for SYNC: {why}"));
                self.retry(now);
            }
            State::Waiting { .. } => {}
        }
    }

    /// A link that was up is gone: connect again at once, but not in a circle.
    fn lost(&mut self, now: MonoMs, out: &mut Vec<Action>) {
        let State::Streaming { since } = self.state else { return };
        if self.position.is_some() {
            log(out, Level::Notice, "Caching the disconnected master state.");
        }
        self.down_since = Some(now);
        if now.saturating_sub(since) >= SECOND_MS {
            self.connect(now, "Reconnecting", out);
        } else {
            self.retry(now);
        }
    }

    /// Closes the connection because of `text` and tries again later.
    fn give_up(&mut self, now: MonoMs, text: String, out: &mut Vec<Action>) {
        log(out, Level::Warning, text);
        out.push(Action::Close);
        self.retry(now);
    }

    fn retry(&mut self, now: MonoMs) {
        self.line.clear();
        self.state = State::Waiting { until: now + SECOND_MS };
    }
}

fn log(out: &mut Vec<Action>, level: Level, text: impl Into<String>) {
    out.push(Action::Log(level, text.into()));
}

/// A command as the wire carries it.
/// What a primary said, for the log: quotes stand as they are, and what is not printed is escaped.
fn shown(said: &[u8]) -> String {
    said.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write_command(&mut out, words);
    out
}
