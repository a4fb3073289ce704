//! The handshake: PING; AUTH and REPLCONF in one go; then PSYNC, or SYNC for a peer that does not know it.

use std::collections::VecDeque;

use super::transfer::Transfer;
use super::{Action, Position, Replica, State, command, log, shown};
use crate::base::time::MonoMs;
use crate::repl::{Level, ReplId};

/// No reply of a handshake is longer.
const MAX_LINE: usize = 4096;

/// The replies that are still to come, in their order.
pub(super) struct Handshake {
    expected: VecDeque<Step>,
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ping,
    Auth,
    ListeningPort,
    IpAddress,
    Capabilities,
    Psync,
}

impl Handshake {
    pub(super) fn begin(out: &mut Vec<Action>) -> Self {
        out.push(Action::Send(command(&[b"PING"])));
        Self { expected: [Step::Ping].into() }
    }
}

impl Replica {
    /// Takes one line, or what there is of it, and returns what follows it.
    pub(super) fn handshake_bytes<'a>(
        &mut self,
        now: MonoMs,
        bytes: &'a [u8],
        out: &mut Vec<Action>,
    ) -> &'a [u8] {
        let end = memchr::memchr(b'\n', bytes);
        let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if self.line.len() + part.len() > MAX_LINE {
            self.give_up(now, "Bad protocol from MASTER, a reply is too long".into(), out);
            return &[];
        }
        self.line.extend_from_slice(part);
        if end.is_none() {
            return &[];
        }
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        // An empty line is a sign of life of a primary that still prepares its answer.
        if !line.is_empty() {
            self.reply(now, &line, out);
        }
        if matches!(self.state, State::Waiting { .. }) { &[] } else { &rest[1..] }
    }

    fn reply(&mut self, now: MonoMs, line: &[u8], out: &mut Vec<Action>) {
        let State::Handshake(handshake) = &mut self.state else { return };
        let Some(step) = handshake.expected.pop_front() else {
            self.give_up(now, format!("Unexpected reply from MASTER: {}", shown(line)), out);
            return;
        };
        let done = handshake.expected.is_empty();
        let refused = line[0] == b'-';
        let text = shown(line);
        match step {
            Step::Ping => {
                // A primary that wants a password first is alive, too.
                let alive = !refused
                    || line.starts_with(b"-NOAUTH")
                    || line.starts_with(b"-NOPERM")
                    || line.starts_with(b"-ERR operation not permitted");
                if !alive {
                    self.give_up(now, format!("Error reply to PING from master: '{text}'"), out);
                    return;
                }
                log(out, Level::Notice, "Master replied to PING, replication can continue...");
                self.introduce(out);
                return;
            }
            Step::Auth if refused => {
                self.give_up(now, format!("Unable to AUTH to MASTER: {text}"), out);
                return;
            }
            Step::ListeningPort | Step::IpAddress | Step::Capabilities if refused => {
                let option = match step {
                    Step::ListeningPort => "listening-port",
                    Step::IpAddress => "ip-address",
                    _ => "capa",
                };
                let text = format!("(Non critical) Master does not understand REPLCONF {option}: {text}");
                log(out, Level::Notice, text);
            }
            Step::Auth | Step::ListeningPort | Step::IpAddress | Step::Capabilities => {}
            Step::Psync => {
                self.psync_reply(now, line, out);
                return;
            }
        }
        if done {
            self.ask(out);
        }
    }

    /// Says who we are and what we can do, without waiting in between.
    fn introduce(&mut self, out: &mut Vec<Action>) {
        let mut expected = VecDeque::new();
        let mut bytes = Vec::new();
        if let Some(password) = &self.config.password {
            match &self.config.user {
                Some(user) => bytes.extend(command(&[b"AUTH", user.as_bytes(), password.as_bytes()])),
                None => bytes.extend(command(&[b"AUTH", password.as_bytes()])),
            }
            expected.push_back(Step::Auth);
        }
        let port = self.config.listening_port.to_string();
        bytes.extend(command(&[b"REPLCONF", b"listening-port", port.as_bytes()]));
        expected.push_back(Step::ListeningPort);
        if let Some(ip) = &self.config.announce_ip {
            bytes.extend(command(&[b"REPLCONF", b"ip-address", ip.as_bytes()]));
            expected.push_back(Step::IpAddress);
        }
        bytes.extend(command(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"]));
        expected.push_back(Step::Capabilities);
        out.push(Action::Send(bytes));
        self.state = State::Handshake(Handshake { expected });
    }

    fn ask(&mut self, out: &mut Vec<Action>) {
        let (id, from) = match &self.position {
            Some(p) => (p.id.to_string(), (p.offset + 1).to_string()),
            None => ("?".to_owned(), "-1".to_owned()),
        };
        let text = if self.position.is_some() {
            format!("Trying a partial resynchronization (request {id}:{from}).")
        } else {
            "Partial resynchronization not possible (no cached master)".into()
        };
        log(out, Level::Notice, text);
        let mut words: Vec<&[u8]> = vec![b"PSYNC", id.as_bytes(), from.as_bytes()];
        if self.hands_over {
            words.push(b"FAILOVER");
        }
        out.push(Action::Send(command(&words)));
        self.state = State::Handshake(Handshake { expected: [Step::Psync].into() });
    }

    fn psync_reply(&mut self, now: MonoMs, line: &[u8], out: &mut Vec<Action>) {
        let text = shown(line);
        if std::mem::take(&mut self.hands_over) {
            let taken = line.starts_with(b"+FULLRESYNC") || line.starts_with(b"+CONTINUE");
            if !taken {
                self.give_up(
                    now,
                    format!("Unable to hand over, PSYNC FAILOVER was answered with: {text}"),
                    out,
                );
                out.push(Action::Refused);
                return;
            }
            out.push(Action::TakenOver);
        }
        if let Some(arguments) = line.strip_prefix(b"+FULLRESYNC") {
            match full_resync(arguments) {
                Some(position) => {
                    let text = format!("Full resync from master: {}:{}", position.id, position.offset);
                    log(out, Level::Notice, text);
                    self.transfer(Some(position));
                }
                None => self.give_up(now, "Master replied with wrong +FULLRESYNC syntax.".into(), out),
            }
        } else if let Some(arguments) = line.strip_prefix(b"+CONTINUE") {
            self.resume(now, arguments.trim_ascii(), out);
        } else if line.starts_with(b"-NOMASTERLINK") || line.starts_with(b"-LOADING") {
            let text = format!("Master is currently unable to PSYNC but should be in the future: {text}");
            self.give_up(now, text, out);
        } else {
            // A primary from before PSYNC says that it knows no such command; others may have worse reasons.
            if line.starts_with(b"-ERR") {
                let text = format!("Master does not support PSYNC or is in error state (reply: {text})");
                log(out, Level::Notice, text);
            } else {
                log(out, Level::Warning, format!("Unexpected reply to PSYNC from master: {text}"));
            }
            log(out, Level::Notice, "Retrying with SYNC...");
            out.push(Action::Send(b"SYNC\r\n".to_vec()));
            self.transfer(None);
        }
    }

    fn transfer(&mut self, position: Option<Position>) {
        // The old position is given up: after a failed transfer everything is asked for again.
        self.position = None;
        self.state = State::Transfer(Transfer::new(position));
    }

    fn resume(&mut self, now: MonoMs, id: &[u8], out: &mut Vec<Action>) {
        let Some(position) = &mut self.position else {
            let text = "Bad protocol from MASTER, it continues what was never begun".to_owned();
            self.give_up(now, text, out);
            return;
        };
        log(out, Level::Notice, "Successful partial resynchronization with master.");
        if let Some(id) = ReplId::parse(id)
            && id != position.id
        {
            log(out, Level::Notice, format!("Master replication ID changed to {id}"));
            position.id = id;
        }
        out.push(Action::Continue(position.id));
        log(out, Level::Notice, "MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.");
        self.read_offset = position.offset;
        self.up(now);
    }
}

/// ` <id> <offset>`
fn full_resync(arguments: &[u8]) -> Option<Position> {
    let arguments = arguments.strip_prefix(b" ")?;
    let (id, offset) = arguments.split_at_checked(40)?;
    let offset = crate::base::num::parse_u64(offset.strip_prefix(b" ")?)?;
    Some(Position { id: ReplId::parse(id)?, offset })
}
