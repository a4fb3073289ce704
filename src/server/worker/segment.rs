//! The two ends of a round: reading what connections sent, and sending what they are answered.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::command::client::ReplyMode;
use crate::config::compound::OutputLimit;
use crate::resp::Progress;
use crate::resp::Reply;
use crate::server::net::connection::{Connection, FREE_OUTPUT, Sent, Wait};
use crate::server::worker::deadlines::Kind;
use crate::server::worker::{READ_SIZE, Worker};

/// A client that has not authenticated may leave so many bytes of replies unread, beyond what every client may
/// ([`FREE_OUTPUT`]). Source: CVE-2025-21605.
const STRANGERS_OUTPUT: u64 = 1024;

/// A client that waits may send so many bytes ahead; the rest stays in its socket.
const HELD_INPUT: usize = 64 * 1024;
/// How much of a long request is read at once, and set aside for it before it has come.
const LONG_READ: usize = 1 << 20;
/// The same of a request of many short words. What is read at once is not parsed yet, and stays well below the least
/// `client-query-buffer-limit`, which is 1 MiB.
const SHORT_WORDS_READ: usize = 256 * 1024;

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
    /// There was more to read than was read.
    pub full: bool,
    /// It has run commands for long enough: what is not parsed yet runs at its next turn.
    pub unrun: bool,
    /// The connection runs nothing more in this round.
    pub stopped: bool,
    pub exhausted: bool,
    pub authenticated: bool,
    pub db: u16,
    pub reply: Range<usize>,
    /// The replies were more than the client may let wait.
    pub cut_off: bool,
    pub commands: u32,
    /// The id of the command that was called last, also if it was refused; `usize::MAX`: an unknown command. `None`:
    /// none was called.
    pub last_command: Option<usize>,
    /// In place of input: the command of a blocked client, which runs again.
    pub again: Option<Box<Wait>>,
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
            full: false,
            unrun: false,
            stopped: false,
            exhausted: false,
            authenticated: c.client.is_authenticated(),
            db: c.client.db,
            reply: 0..0,
            cut_off: false,
            commands: 0,
            last_command: None,
            again: None,
        }
    }

    /// Leaves what is not parsed yet to the connection's next turn. False: nothing is left.
    pub fn ends_turn(&mut self) -> bool {
        self.unrun = !self.stopped && !self.exhausted;
        self.stopped |= self.unrun;
        self.unrun
    }

    pub fn input<'a>(&'a self, gathered: &'a [u8]) -> &'a [u8] {
        match &self.own {
            Some(own) => own,
            None => &gathered[self.range.clone()],
        }
    }
}

/// Whether a client's input that has not run exceeds `client-query-buffer-limit`: bytes that are not parsed yet, and
/// the queue of MULTI.
fn over_query_limit(c: &Connection, input: usize, limit: usize) -> bool {
    if input <= limit && !c.client.in_multi() {
        return false;
    }
    let queued = c.client.multi().map_or(0, |multi| multi.bytes);
    let parsed = c.progress.map_or(0, |progress| progress.parsed());
    input.saturating_sub(parsed) + queued > limit
}

/// Reads on behind the part of a long request that a connection has kept, into its own buffer. Returns how many bytes
/// came, and for how many there was room.
fn read_long(c: &mut Connection) -> (io::Result<usize>, usize) {
    let kept = c.input.len();
    make_room(&mut c.input, c.need);
    let most = if c.need.saturating_sub(kept) < READ_SIZE { SHORT_WORDS_READ } else { LONG_READ };
    let room = (c.input.capacity() - kept).min(most);
    c.input.resize(kept + room, 0);
    let read = c.stream.read(&mut c.input[kept..]);
    c.input.truncate(kept + read.as_ref().map_or(0, |n| *n));
    (read, room)
}

/// Makes room for what comes next of a request that is incomplete until `need` bytes of it are there: up to the end of
/// a long argument and no further, so that it is kept in one piece of its length; and of many short ones, for more
/// of them at once than one.
fn make_room(input: &mut Vec<u8>, need: usize) {
    let kept = input.len();
    let missing = need.saturating_sub(kept).max(1);
    if input.capacity() - kept >= missing.min(READ_SIZE) {
        return;
    }
    input.reserve_exact(if missing >= READ_SIZE {
        // For all of it only once half of it has come.
        missing.min(kept.max(LONG_READ))
    } else {
        kept.min(LONG_READ.max(kept / 8)).max(READ_SIZE)
    });
}

impl Worker {
    /// Reads what connections have sent, each once, and makes segments of it, as far as `gathered` has room. Returns how
    /// many of `tokens` were looked after.
    pub(super) fn gather(
        &mut self,
        gathered: &mut [u8],
        tokens: &[usize],
        segments: &mut Vec<Segment>,
    ) -> usize {
        let (mut used, mut taken, mut input_bytes) = (0, 0, 0);
        for &token in tokens {
            let may = self.may_be_read(token) && !self.resume_unrun(token, segments);
            let Some(c) = self.connections.get_mut(token).and_then(Option::as_mut).filter(|_| may) else {
                taken += 1;
                continue;
            };
            let kept = c.input.len();
            let long = kept > 0 && kept.max(c.need) > READ_SIZE;
            if !long && used + kept + READ_SIZE > gathered.len() {
                break;
            }
            taken += 1;
            if c.hold.is_some() && kept > HELD_INPUT {
                // Enough waits already; the rest stays in the socket until the hold ends.
                c.more_to_read = true;
                continue;
            }
            let (read, room) = if long {
                read_long(c)
            } else {
                let space = &mut gathered[used..used + kept + READ_SIZE];
                space[..kept].copy_from_slice(&c.input);
                (c.stream.read(&mut space[kept..]), READ_SIZE)
            };
            match read {
                Ok(0) => self.close(token),
                Ok(n) if over_query_limit(c, kept + n, self.query_limit) => self.close_for_input(token),
                Ok(n) => {
                    input_bytes += n as u64;
                    c.more_to_read = false;
                    let full = c.stream.may_have_more(n, room) || c.read_closed;
                    if full {
                        c.behind = true;
                        self.ready.push(token);
                    }
                    let range = (!long).then_some(used..used + kept + n);
                    let came = range.clone().map(|range| &gathered[range][kept..]);
                    if !self.keeps_input(token, came) {
                        used = range.as_ref().map_or(used, |range| range.end);
                        self.begin_segment(token, range, full, segments);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => self.ready.push(token),
                Err(_) => self.close(token),
            }
        }
        if input_bytes > 0 {
            self.node.records.counters.net.reads.fetch_add(segments.len() as u64, Ordering::Relaxed);
            self.node.records.counters.net.input_bytes.fetch_add(input_bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Does what comes before reading: the handshake goes on, and replies that are left are sent.
    #[inline]
    fn may_be_read(&mut self, token: usize) -> bool {
        if self.is_handshaking(token) && !self.shake(token) {
            return false;
        }
        if self.connections.get(token).and_then(Option::as_ref).is_some_and(|c| c.more_to_send) {
            self.flush_now(token);
        }
        true
    }

    /// Takes up commands that a connection has sent and that its last turn did not come to.
    #[inline]
    fn resume_unrun(&mut self, token: usize, segments: &mut Vec<Segment>) -> bool {
        let Some(c) = self.connections.get_mut(token).and_then(Option::as_mut) else { return false };
        let resumes = c.unrun && c.hold.is_none();
        if resumes {
            c.unrun = false;
            let own = std::mem::take(&mut c.input);
            segments.push(Segment::new(token, 0..0, Some(own), c));
            // What has come since is read behind it.
            self.ready.push(token);
        }
        resumes
    }

    /// Leaves input with its connection if that runs nothing for now. `came`: what was read and is not in its own
    /// buffer yet.
    #[inline]
    fn keeps_input(&mut self, token: usize, came: Option<&[u8]>) -> bool {
        let Some(c) = self.connections[token].as_mut() else { return true };
        let held = c.hold.is_some();
        let waits = held
            || (came.is_some()
                && self.executor.runs_scripts(c.entry.last_command.load(Ordering::Relaxed))
                && self.scripts.wait_unseen(token));
        if waits {
            c.input.extend_from_slice(came.unwrap_or_default());
        }
        if held {
            c.note_usage(&self.node.people.clients, self.last_second);
        }
        waits
    }

    /// Hands a connection's input over to the round: what stands at `range` of the gather buffer, or its own buffer.
    #[inline]
    fn begin_segment(
        &mut self,
        token: usize,
        range: Option<Range<usize>>,
        full: bool,
        segments: &mut Vec<Segment>,
    ) {
        let Some(c) = self.connections[token].as_mut() else { return };
        let input = std::mem::take(&mut c.input);
        let own = range.is_none().then_some(input);
        let mut segment = Segment::new(token, range.unwrap_or(0..0), own, c);
        segment.full = full;
        segments.push(segment);
    }

    #[cold]
    fn close_for_input(&mut self, token: usize) {
        if let Some(c) = self.connections[token].as_ref() {
            tracing::warn!(
                "Closing client that reached max query buffer length: id={} addr={}",
                c.client.id,
                c.client.addr
            );
        }
        self.node.records.counters.net.query_limit_closed.fetch_add(1, Ordering::Relaxed);
        self.close(token);
    }

    /// Sends each connection its replies and gives back what it has not consumed.
    pub(super) fn send(&mut self, gathered: &[u8], segments: &mut [Segment]) {
        // A client that has the reply and asks for INFO finds the command counted.
        self.executor.publish_counts();
        self.hand_over();
        let log = self.log_state();
        let mut reply = std::mem::take(&mut self.reply);
        let second = self.last_second;
        let peak_seconds = self.node.people.reply_peak_ms.load(Ordering::Relaxed) / 1000;
        let mut sent = Sent::default();
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
                // Progress counts from the start of the request, so the input must begin there.
                c.progress = s.progress.filter(|_| s.consumed == s.parsed);
            }
            c.unrun = s.unrun;
            c.last_seen = second;
            c.entry.last_seen.store(second as i64, Ordering::Relaxed);
            if let Some(id) = s.last_command {
                c.entry.last_command.store(id, Ordering::Relaxed);
            }
            if s.cut_off {
                self.close_for_output(s.token);
                continue;
            }
            let mut failed = false;
            if !s.reply.is_empty() {
                failed = c.send_segment(&mut reply, s.reply.start, s.reply.end, &log).is_err();
                if s.reply.len() > c.reply_peak.0 || second.saturating_sub(c.reply_peak.1) > peak_seconds {
                    c.reply_peak = (s.reply.len(), second);
                }
            }
            let Sent { bytes, writes } = std::mem::take(&mut c.sent);
            (sent.bytes, sent.writes) = (sent.bytes + bytes, sent.writes + writes);
            let unread = !c.output.is_empty() && c.output.held_until(log.passed).is_none();
            c.behind = s.full || s.unrun || unread || !c.input.is_empty();
            if c.more_to_send || c.unrun {
                self.ready.push(s.token);
            }
            c.note_usage(&self.node.people.clients, second);
            if failed || (c.closing && c.output.is_empty()) {
                self.close(s.token);
            } else if c.client.sync.is_some() {
                self.detach(s.token);
            } else if !c.output.is_empty() {
                self.check_output(s.token);
                self.note_held(s.token, log.passed);
            }
        }
        self.count_sent(sent);
        self.keep_reply_buffer(reply);
    }

    #[inline]
    pub(super) fn count_sent(&self, sent: Sent) {
        if sent.bytes > 0 {
            self.node.records.counters.net.writes.fetch_add(sent.writes, Ordering::Relaxed);
            self.node.records.counters.net.output_bytes.fetch_add(sent.bytes, Ordering::Relaxed);
        }
    }

    /// Keeps the buffer for the next round, and counts when it had to grow or is given back in part.
    fn keep_reply_buffer(&mut self, mut reply: Reply) {
        let net = &self.node.records.counters.net;
        if reply.capacity() > self.reply_capacity {
            net.reply_expands.fetch_add(1, Ordering::Relaxed);
        }
        if self.node.people.reply_resizing.load(Ordering::Relaxed) {
            net.reply_shrinks.fetch_add(u64::from(reply.recycle()), Ordering::Relaxed);
        } else {
            reply.clear();
        }
        self.reply_capacity = reply.capacity();
        self.reply = reply;
    }

    pub(super) fn on_writable(&mut self, token: usize) {
        let Some(c) = self.connections.get_mut(token).and_then(Option::as_mut) else { return };
        if c.stream.is_handshaking() {
            return self.ready.push(token);
        }
        if c.output.is_empty() {
            // If the connection is broken, the next read tells.
            let _ = c.stream.send_own();
            return;
        }
        let failed = c.flush(self.node.shared.keyspace.log.passed()).is_err();
        let sent = std::mem::take(&mut c.sent);
        let ended = failed || (c.closing && c.output.is_empty());
        self.count_sent(sent);
        let Some(c) = self.connections[token].as_mut() else { return };
        if ended {
            self.close(token);
        } else {
            c.note_usage(&self.node.people.clients, self.last_second);
            self.go_on_sending(token);
        }
    }

    /// Lets a connection that was sent enough for now be sent more at its next turn.
    pub(super) fn go_on_sending(&mut self, token: usize) {
        if let Some(c) = self.connections[token].as_mut()
            && c.more_to_send
        {
            c.behind = true;
            self.ready.push(token);
        }
    }

    fn limit_for(&self, c: &Connection) -> OutputLimit {
        let limits = &self.output_limits;
        if c.client.subscriptions() > 0 { limits.pubsub } else { limits.normal }
    }

    /// How many bytes of replies the client may be given at once.
    #[inline]
    pub(super) fn room_for(&self, c: &Connection) -> usize {
        let hard = self.limit_for(c).hard_bytes;
        // A client that wants no replies needs no limit.
        if hard == 0 || c.client.reply_mode != ReplyMode::On {
            return usize::MAX;
        }
        (hard as usize).saturating_add(FREE_OUTPUT).saturating_sub(c.output.len())
    }

    /// Closes a client whose unsent output exceeds its limit.
    pub(super) fn check_output(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_ref() else { return };
        let limit = self.limit_for(c);
        let counted = c.output.len().saturating_sub(FREE_OUTPUT) as u64;
        let over_hard = limit.hard_bytes > 0 && counted > limit.hard_bytes;
        let over_soft = limit.soft_bytes > 0 && counted > limit.soft_bytes;
        let stranger = !c.client.is_authenticated() && counted > STRANGERS_OUTPUT;
        let Some(c) = self.connections[token].as_mut() else { return };
        if !over_soft {
            c.over_soft_limit_since = None;
        }
        let since = over_soft.then(|| *c.over_soft_limit_since.get_or_insert(self.last_second));
        let too_long = since.is_some_and(|at| self.last_second.saturating_sub(at) > limit.soft_seconds);
        if over_hard || stranger || too_long {
            self.close_for_output(token);
        } else if !c.output.is_empty() && self.deadlines.get(token, Kind::Output).is_none() {
            self.deadlines.set(token, Kind::Output, Some(Instant::now() + Duration::from_secs(1)));
        }
    }

    #[cold]
    fn close_for_output(&mut self, token: usize) {
        let Some(c) = self.connections[token].as_ref() else { return };
        tracing::warn!(
            "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits.",
            c.client.id,
            c.client.addr
        );
        self.node.records.counters.net.output_limit_closed.fetch_add(1, Ordering::Relaxed);
        self.close(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long argument takes its length and hardly more; of short ones many are read at once, however many there are.
    #[test]
    fn room_is_made_for_a_long_argument_or_for_many_short_ones() {
        let (end, mut reads) = (100 << 20, 0);
        let mut input = vec![0; READ_SIZE];
        while input.len() < end {
            make_room(&mut input, end);
            let room = (input.capacity() - input.len()).min(200_000);
            input.resize(input.len() + room, 0);
            reads += 1;
        }
        assert_eq!((input.len(), input.capacity()), (end, end));
        assert!(reads < 600, "{reads} reads");

        let (mut reads, mut grown) = (0, 0);
        let mut input = vec![0; READ_SIZE];
        while input.len() < end {
            let before = input.capacity();
            let need = input.len() + 7;
            make_room(&mut input, need);
            grown += usize::from(input.capacity() > before);
            let room = (input.capacity() - input.len()).min(200_000);
            assert!(room >= 7);
            input.resize(input.len() + room, 0);
            reads += 1;
        }
        assert!(reads < 800 && grown < 80, "{reads} reads, {grown} times grown");
    }
}
