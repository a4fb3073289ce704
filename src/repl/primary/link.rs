//! One connection of a replica: what it said of itself, and how far it is.

use super::{Action, Content, LinkId, Primary, log};
use crate::base::num::{parse_i64, parse_u64};
use crate::base::time::MonoMs;
use crate::repl::Level;
use crate::resp::request::split_words;

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has introduced itself, but not asked for data.
    Handshake,
    /// It needs a snapshot that has not begun.
    WaitStart,
    /// It needs the file that is being written.
    WaitEnd,
    /// The RDB is being sent to it between marks: nothing else may go to it until it has said that it has all.
    Streaming,
    /// The file is being sent to it.
    SendBulk,
    /// It follows the stream, or will as soon as it has loaded what it got.
    Online,
}

impl State {
    /// The state as INFO names it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Handshake => "handshake",
            State::WaitStart | State::WaitEnd | State::Streaming => "wait_bgsave",
            State::SendBulk => "send_bulk",
            State::Online => "online",
        }
    }
}

/// A connection.
pub(super) struct Link {
    pub(super) state: State,
    /// The address that the connection comes from.
    pub(super) peer_ip: String,
    /// The address that it wants to be known by.
    pub(super) announced_ip: Option<String>,
    /// The port where it serves; 0 until it has told.
    pub(super) port: u16,
    /// It can take an RDB between marks.
    pub(super) eof: bool,
    /// It understands an id behind `+CONTINUE`.
    pub(super) psync2: bool,
    /// It wants the RDB and nothing after it.
    pub(super) rdb_only: bool,
    pub(super) content: Content,
    /// It asked with SYNC, so that it gets no line before the RDB and sends no acknowledgements.
    pub(super) old: bool,
    /// The stream starts here once it has its RDB; also where the snapshot stands.
    pub(super) start: u64,
    /// Online, but the stream waits for its first acknowledgement.
    pub(super) awaits_ack: bool,
    pub(super) asked_at: MonoMs,
    /// When it last acknowledged or gave a sign of life.
    pub(super) heard: MonoMs,
    /// The offset that it has applied.
    pub(super) acked: u64,
    /// The offset that it has on its disk.
    pub(super) synced: u64,
}

impl Link {
    fn new(now: MonoMs, peer_ip: &str) -> Self {
        Self {
            state: State::Handshake,
            peer_ip: peer_ip.to_owned(),
            announced_ip: None,
            port: 0,
            eof: false,
            psync2: false,
            rdb_only: false,
            content: Content::ALL,
            old: false,
            start: 0,
            awaits_ack: false,
            asked_at: now,
            heard: now,
            acked: 0,
            synced: 0,
        }
    }

    pub(super) fn ip(&self) -> &str {
        self.announced_ip.as_deref().unwrap_or(&self.peer_ip)
    }

    /// The replica as log lines name it.
    pub(super) fn name(&self) -> String {
        match self.port {
            0 => format!("{}:<unknown-replica-port>", self.ip()),
            port => format!("{}:{port}", self.ip()),
        }
    }
}

/// The answer to REPLCONF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replconf {
    /// The option was taken.
    Ok,
    /// An acknowledgement: no reply.
    Silent,
    /// The text of an error reply.
    Error(String),
}

/// An address is not longer than this.
const MAX_IP: usize = 255;

impl Primary {
    pub(super) fn link(&mut self, now: MonoMs, id: LinkId, peer_ip: &str) -> &mut Link {
        self.replicas.entry(id).or_insert_with(|| Link::new(now, peer_ip))
    }

    /// REPLCONF of a connection from `peer_ip`; `args` are what follows the command's name.
    pub fn replconf(
        &mut self,
        now: MonoMs,
        id: LinkId,
        peer_ip: &str,
        args: &[&[u8]],
        out: &mut Vec<Action>,
    ) -> Replconf {
        if !args.len().is_multiple_of(2) {
            return Replconf::Error("ERR syntax error".into());
        }
        for pair in args.chunks_exact(2) {
            let (option, value) = (pair[0], pair[1]);
            if option.eq_ignore_ascii_case(b"ack") {
                self.acknowledged(now, id, args, out);
                return Replconf::Silent;
            }
            if option.eq_ignore_ascii_case(b"getack") {
                // For replicas, in the stream; whoever else sends it gets no answer either.
                return Replconf::Silent;
            }
            if let Err(text) = self.link(now, id, peer_ip).set(option, value) {
                return Replconf::Error(text);
            }
        }
        Replconf::Ok
    }

    /// `ACK <offset> [FACK <offset>]`
    fn acknowledged(&mut self, now: MonoMs, id: LinkId, args: &[&[u8]], out: &mut Vec<Action>) {
        let Some(link) = self.replicas.get_mut(&id).filter(|l| l.state != State::Handshake) else { return };
        let number = |name: &[u8]| {
            let pair = args.chunks_exact(2).find(|pair| pair[0].eq_ignore_ascii_case(name))?;
            parse_u64(pair[1])
        };
        let Some(offset) = number(b"ack") else { return };
        link.heard = now;
        link.acked = link.acked.max(offset);
        if let Some(synced) = number(b"fack") {
            link.synced = link.synced.max(synced);
        }
        if link.awaits_ack && link.state == State::Online {
            link.awaits_ack = false;
            let (name, start) = (link.name(), link.start);
            log(out, Level::Notice, format!("Synchronization with replica {name} succeeded"));
            out.push(Action::Stream(id, start));
        }
    }

    /// An empty line from a replica: it lives, and is busy loading.
    pub fn newline(&mut self, now: MonoMs, id: LinkId) {
        if let Some(link) = self.replicas.get_mut(&id) {
            link.heard = now;
        }
    }
}

/// The parts that `rdb-filter-only` names, words as in a line of commands; keys have no name, so they are always
/// left out.
fn filtered(value: &[u8]) -> Result<Content, String> {
    let mut content = Content { keys: false, functions: false };
    let words = split_words(value).ok_or("ERR Missing rdb-filter-only values")?;
    for word in &words {
        if !word.eq_ignore_ascii_case(b"functions") {
            let word = String::from_utf8_lossy(word);
            return Err(format!("ERR Unsupported rdb-filter-only option: {word}"));
        }
        content.functions = true;
    }
    Ok(content)
}

impl Link {
    fn set(&mut self, option: &[u8], value: &[u8]) -> Result<(), String> {
        let flag = |value: &[u8]| match parse_i64(value) {
            Some(n @ (0 | 1)) => Ok(n != 0),
            Some(_) => Err("ERR value is out of range, value must between 0 and 1".to_owned()),
            None => Err("ERR value is not an integer or out of range".to_owned()),
        };
        match option.to_ascii_lowercase().as_slice() {
            b"listening-port" => match parse_i64(value) {
                Some(port) => self.port = u16::try_from(port).unwrap_or(0),
                None => return Err("ERR value is not an integer or out of range".into()),
            },
            b"ip-address" if value.len() > MAX_IP => {
                let text = format!(
                    "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                );
                return Err(text);
            }
            b"ip-address" => {
                let ip = String::from_utf8_lossy(value).into_owned();
                self.announced_ip = (!ip.is_empty()).then_some(ip);
            }
            b"capa" if value.eq_ignore_ascii_case(b"eof") => self.eof = true,
            b"capa" if value.eq_ignore_ascii_case(b"psync2") => self.psync2 = true,
            // Replicas may learn more than we know of.
            b"capa" | b"version" => {}
            b"rdb-only" => self.rdb_only = flag(value)?,
            b"rdb-filter-only" => self.content = filtered(value)?,
            _ => {
                let option = String::from_utf8_lossy(option);
                return Err(format!("ERR Unrecognized REPLCONF option: {option}"));
            }
        }
        Ok(())
    }
}
