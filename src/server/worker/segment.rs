//! The two ends of a round: reading what connections sent, and sending what they are answered.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::resp::Progress;
use crate::server::net::connection::Connection;
use crate::server::worker::deadlines::Kind;
use crate::server::worker::{READ_SIZE, Worker};

/// The input of one connection in a round.
pub(super) struct Segment {
    pub token: usize,
    /// In the gather buffer, or in `own` when the connection had its own buffer.
    pub range: Range<usize>,
    pub own: Option<Vec<u8>>,
    /// How far it was parsed, from the start of the segment.
    pub parsed: usize,
    /// How far the request that is not complete was looked through, if it is a long one.
    pub progress: Option<Progress>,
    /// How far it was run: where input goes back to the connection from.
    pub consumed: usize,
    pub need: usize,
    /// The connection runs nothing more in this round.
    pub stopped: bool,
    pub exhausted: bool,
    pub authenticated: bool,
    pub db: u16,
    pub reply: Range<usize>,
    pub commands: u32,
    pub last_command: usize,
}

impl Segment {
    pub fn new(token: usize, range: Range<usize>, own: Option<Vec<u8>>, c: &Connection) -> Self {
        // Only input that was kept has been looked through.
        let has_own = own.is_some();
        Self {
            token,
            range,
            own,
            parsed: 0,
            progress: c.progress.filter(|_| has_own),
            consumed: 0,
            need: 0,
            stopped: false,
            exhausted: false,
            authenticated: c.client.is_authenticated(),
            db: c.client.db,
            reply: 0..0,
            commands: 0,
            last_command: usize::MAX,
        }
    }

    pub fn input<'a>(&'a self, gathered: &'a [u8]) -> &'a [u8] {
        match &self.own {
            Some(own) => own,
            None => &gathered[self.range.clone()],
        }
    }
}

impl Worker {
    pub(super) fn gather(
        &mut self,
        gathered: &mut [u8],
        tokens: &[usize],
        segments: &mut Vec<Segment>,
    ) -> usize {
        let mut used = 0;
        let (mut taken, mut input_bytes) = (0, 0);
        for &token in tokens {
            let Some(c) = self.connections.get_mut(token).and_then(Option::as_mut) else {
                taken += 1;
                continue;
            };
            let kept = c.input.len();
            let large = kept > 0 && kept.max(c.need) > READ_SIZE;
            if !large && used + kept + READ_SIZE > gathered.len() {
                break;
            }
            taken += 1;
            if c.hold.is_some() && kept > 64 * 1024 {
                // Enough waits already; the rest stays in the socket until the hold ends.
                c.more_to_read = true;
                continue;
            }
            let (read, room) = if large {
                let room = c.need.saturating_sub(kept).clamp(READ_SIZE, 1 << 20);
                c.input.resize(kept + room, 0);
                let read = c.stream.read(&mut c.input[kept..]);
                c.input.truncate(kept + read.as_ref().map_or(0, |n| *n));
                (read, room)
            } else {
                gathered[used..used + kept].copy_from_slice(&c.input);
                (c.stream.read(&mut gathered[used + kept..used + kept + READ_SIZE]), READ_SIZE)
            };
            match read {
                Ok(0) => self.close(token),
                Ok(n) if kept + n > self.query_limit => {
                    tracing::warn!(
                        "Closing client that reached max query buffer length: id={} addr={}",
                        c.client.id,
                        c.client.addr
                    );
                    self.node.net.query_limit_closed.fetch_add(1, Ordering::Relaxed);
                    self.close(token);
                }
                Ok(n) => {
                    input_bytes += n as u64;
                    c.more_to_read = false;
                    if n == room {
                        self.ready.push(token);
                    }
                    if c.hold.is_some() {
                        if !large {
                            c.input.extend_from_slice(&gathered[used + kept..used + kept + n]);
                        }
                        continue;
                    }
                    let own = large.then(|| std::mem::take(&mut c.input));
                    let range = used..used + kept + n;
                    if own.is_none() {
                        c.input = Vec::new();
                        used = range.end;
                    }
                    segments.push(Segment::new(token, range, own, c));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => self.ready.push(token),
                Err(_) => self.close(token),
            }
        }
        if input_bytes > 0 {
            self.node.net.reads.fetch_add(segments.len() as u64, Ordering::Relaxed);
            self.node.net.input_bytes.fetch_add(input_bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Sends each connection its replies and gives back what it has not consumed.
    pub(super) fn send(&mut self, gathered: &[u8], segments: &mut [Segment]) {
        self.hand_over();
        let log = self.log_state();
        let reply = std::mem::take(&mut self.reply);
        let second = self.last_second;
        let mut output_bytes = 0;
        for s in segments {
            let Some(c) = self.connections[s.token].as_mut() else { continue };
            let left = &s.input(gathered)[s.consumed..];
            if !left.is_empty() {
                c.input = if s.own.is_some() && s.consumed == 0 {
                    s.own.take().unwrap_or_default()
                } else {
                    left.to_vec()
                };
                c.need = s.need;
                // It counts from the start of the request, which must be where the input begins.
                c.progress = s.progress.filter(|_| s.consumed == s.parsed);
            }
            c.entry.query_bytes.store(c.input.len(), Ordering::Relaxed);
            c.last_seen = second;
            c.entry.last_seen.store(second as i64, Ordering::Relaxed);
            c.entry.last_command.store(s.last_command, Ordering::Relaxed);
            let mut failed = false;
            if !s.reply.is_empty() {
                output_bytes += s.reply.len() as u64;
                failed = c.send_segment(&reply, s.reply.start, s.reply.end, &log).is_err();
            }
            if failed || (c.closing && c.output.is_empty()) {
                self.close(s.token);
            } else if c.client.sync.is_some() {
                self.detach(s.token);
            } else if !c.output.is_empty() {
                self.check_output(s.token);
                self.note_held(s.token, log.passed);
            }
        }
        if output_bytes > 0 {
            self.node.net.writes.fetch_add(1, Ordering::Relaxed);
            self.node.net.output_bytes.fetch_add(output_bytes, Ordering::Relaxed);
        }
        self.reply = reply;
        self.reply.recycle();
    }

    pub(super) fn on_writable(&mut self, token: usize) {
        let Some(c) = self.connections.get_mut(token).and_then(Option::as_mut) else { return };
        if c.output.is_empty() {
            return;
        }
        if c.flush(self.node.shared.keyspace.log.passed()).is_err() || (c.closing && c.output.is_empty()) {
            self.close(token);
        } else {
            c.entry.output_bytes.store(c.output.len(), Ordering::Relaxed);
        }
    }

    /// Closes a client whose unsent output exceeds its limit.
    pub(super) fn check_output(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_mut() else { return };
        c.entry.output_bytes.store(c.output.len(), Ordering::Relaxed);
        let config = self.node.config.load();
        let limits = &config.client_output_buffer_limit;
        let limit = if c.client.subscriptions() > 0 { &limits.pubsub } else { &limits.normal };
        let len = c.output.len() as u64;
        let over_hard = limit.hard_bytes > 0 && len > limit.hard_bytes;
        let over_soft = limit.soft_bytes > 0 && len > limit.soft_bytes;
        if !over_soft {
            c.over_soft_limit_since = None;
        }
        let since = over_soft.then(|| *c.over_soft_limit_since.get_or_insert(self.last_second));
        if over_hard || since.is_some_and(|at| self.last_second.saturating_sub(at) > limit.soft_seconds) {
            tracing::warn!(
                "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits.",
                c.client.id,
                c.client.addr
            );
            self.node.net.output_limit_closed.fetch_add(1, Ordering::Relaxed);
            self.close(token);
        } else if len > 0 && self.deadlines.get(token, Kind::Output).is_none() {
            self.deadlines.set(token, Kind::Output, Some(Instant::now() + Duration::from_secs(1)));
        }
    }
}
