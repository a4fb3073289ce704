//! The one log: every change of data as RESP records, in the order in which data changed.
//!
//! Writers append while they hold the locks of what they changed. Readers (replicas, the AOF, a
//! moving slot) are offsets into it. With no reader wanted nothing is appended.
//!
//! Offsets count bytes since the replication history began, as `master_repl_offset` does.
//!
//! While the node follows another one its own writers append nothing; the log is a copy of the other's,
//! byte for byte, and grows by [`Log::append_stream`]. Who may call that holds a ticket, which ends when
//! the node follows somebody else or nobody.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::resp::request::write_command;

/// Appends gather in blocks of this size before a new one is taken.
const BLOCK: usize = 64 * 1024;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// The replication history kept in memory. See the module.
#[derive(Debug)]
pub struct Log {
    wanted: AtomicBool,
    /// The ticket of the stream that is followed. Changes only while every shard is locked.
    ticket: AtomicU64,
    /// Copy of `Inner::end` for readers that only ask for the offset.
    end: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Offset of the first byte kept.
    start: u64,
    end: u64,
    blocks: VecDeque<Bytes>,
    /// What was appended since the last read, not yet shared with readers.
    tail: BytesMut,
    /// The database of the last record; -1 when the next one must begin with SELECT.
    db: i64,
    /// Bytes of history to keep (`repl-backlog-size`).
    keep: u64,
    /// Readers hold the history from here on, whatever `keep` says.
    pinned: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

impl Log {
    pub fn new(keep: u64) -> Self {
        let inner = Inner {
            start: 0,
            end: 0,
            blocks: VecDeque::new(),
            tail: BytesMut::new(),
            db: -1,
            keep,
            pinned: u64::MAX,
        };
        Self {
            wanted: AtomicBool::new(false),
            ticket: AtomicU64::new(0),
            end: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// Whether there is a reader or a history to keep: whether writers must append.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Begins or ends the history. Call with all shards locked, so that no writer is half-way.
    pub fn set_wanted(&self, wanted: bool) {
        let mut inner = self.inner.lock();
        self.wanted.store(wanted, Ordering::Relaxed);
        if !wanted {
            inner.blocks.clear();
            inner.tail = BytesMut::new();
            inner.start = inner.end;
            inner.db = -1;
        }
    }

    /// Ends what this node's writers append: the stream of another node takes its place. What is kept
    /// stays. Returns the ticket for [`Log::append_stream`]; older ones are void. Call with all shards
    /// locked.
    pub fn follow(&self) -> u64 {
        let _inner = self.inner.lock();
        self.wanted.store(false, Ordering::Relaxed);
        self.ticket.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends following: the node's own writers append again if `wanted`, beginning with a SELECT. What is
    /// kept stays. Call with all shards locked.
    pub fn lead(&self, wanted: bool) {
        let mut inner = self.inner.lock();
        inner.db = -1;
        self.ticket.fetch_add(1, Ordering::Relaxed);
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// The ticket of whoever changes data now. It is void once the node follows another, or nobody.
    pub fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Relaxed)
    }

    /// Whether the holder of a ticket may still change data. Ask with the shards of those data locked.
    pub fn accepts(&self, ticket: u64) -> bool {
        self.ticket.load(Ordering::Relaxed) == ticket
    }

    /// Appends a part of the stream that is followed; behind it `db` is selected. False, and nothing is
    /// appended, when the ticket is void.
    pub fn append_stream(&self, ticket: u64, bytes: &[u8], db: u16) -> bool {
        let mut inner = self.inner.lock();
        if !self.accepts(ticket) {
            return false;
        }
        inner.push(bytes);
        inner.db = i64::from(db);
        inner.trim();
        self.end.store(inner.end, Ordering::Release);
        true
    }

    /// The end, and the database that is selected there, if any is.
    pub fn position(&self) -> (u64, Option<u16>) {
        let inner = self.inner.lock();
        (inner.end, u16::try_from(inner.db).ok())
    }

    /// Bytes appended since the history began.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The window of offsets that can be read: first byte kept, end.
    pub fn window(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.start, inner.end)
    }

    /// Appends records that must stand together, each run with its database; a SELECT goes in front where the
    /// database changes. `wrapped`: between MULTI and EXEC. Returns the new end. The caller holds the locks of
    /// what the records change.
    pub fn append_unit(&self, runs: &[(u16, &[u8])], wrapped: bool) -> u64 {
        let mut inner = self.inner.lock();
        if !self.is_wanted() {
            // The log changed hands between the look at `wanted` and the lock.
            return inner.end;
        }
        if wrapped {
            inner.push(MULTI);
        }
        for (db, records) in runs.iter().filter(|r| !r.1.is_empty()) {
            inner.select(*db);
            inner.push(records);
        }
        if wrapped {
            inner.push(EXEC);
        }
        inner.trim();
        self.end.store(inner.end, Ordering::Release);
        inner.end
    }

    /// Appends records of one database.
    pub fn append(&self, db: u16, records: &[u8]) -> u64 {
        self.append_unit(&[(db, records)], false)
    }

    /// Appends records that belong to no database.
    pub fn append_raw(&self, bytes: &[u8]) -> u64 {
        let mut inner = self.inner.lock();
        if !self.is_wanted() {
            return inner.end;
        }
        inner.push(bytes);
        inner.trim();
        self.end.store(inner.end, Ordering::Release);
        inner.end
    }

    /// Makes the next record begin with SELECT: a reader that starts now knows no database.
    pub fn forget_db(&self) {
        self.inner.lock().db = -1;
    }

    /// Continues a history at `offset`, with nothing kept before it (a replica after a full sync), and
    /// with `db` selected.
    pub fn restart_at(&self, offset: u64, db: Option<u16>) {
        let mut inner = self.inner.lock();
        inner.blocks.clear();
        inner.tail = BytesMut::new();
        inner.start = offset;
        inner.end = offset;
        inner.db = db.map_or(-1, i64::from);
        self.end.store(offset, Ordering::Release);
    }

    pub fn set_keep(&self, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.keep = bytes;
        inner.trim();
    }

    pub fn keep(&self) -> u64 {
        self.inner.lock().keep
    }

    /// Tells the offset of the slowest reader; `u64::MAX` when there is none.
    pub fn pin(&self, offset: u64) {
        let mut inner = self.inner.lock();
        inner.pinned = offset;
        inner.trim();
    }

    /// Bytes kept.
    pub fn len(&self) -> u64 {
        let inner = self.inner.lock();
        inner.end - inner.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Blocks from `offset` on, at most about `max` bytes. `None` when `offset` is not in the window.
    pub fn read(&self, offset: u64, max: usize) -> Option<Vec<Bytes>> {
        let mut inner = self.inner.lock();
        if offset < inner.start || offset > inner.end {
            return None;
        }
        inner.share_tail();
        let mut out = Vec::new();
        let mut at = inner.start;
        let mut taken = 0;
        // Readers are nearly always at the end: look from the back for the block of `offset`.
        let mut first = inner.blocks.len();
        let mut block_end = inner.end;
        while first > 0 && block_end > offset {
            first -= 1;
            block_end -= inner.blocks[first].len() as u64;
            at = block_end;
        }
        for block in inner.blocks.iter().skip(first) {
            let end = at + block.len() as u64;
            if end > offset {
                let from = offset.saturating_sub(at) as usize;
                out.push(block.slice(from..));
                taken += block.len() - from;
            }
            at = end;
            if taken >= max {
                break;
            }
        }
        Some(out)
    }
}

impl Inner {
    fn select(&mut self, db: u16) {
        if self.db != i64::from(db) {
            let mut select = Vec::with_capacity(32);
            write_command(&mut select, &[&b"SELECT"[..], itoa::Buffer::new().format(db).as_bytes()]);
            self.push(&select);
            self.db = i64::from(db);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.share_tail();
            self.tail = BytesMut::with_capacity(BLOCK.max(bytes.len()));
        }
        self.tail.extend_from_slice(bytes);
        self.end += bytes.len() as u64;
    }

    /// Turns the tail into a block; what is left of its allocation goes on as the tail.
    fn share_tail(&mut self) {
        if !self.tail.is_empty() {
            let block = self.tail.split().freeze();
            self.blocks.push_back(block);
        }
    }

    fn trim(&mut self) {
        let floor = self.end.saturating_sub(self.keep).min(self.pinned);
        while let Some(block) = self.blocks.front() {
            let next = self.start + block.len() as u64;
            if next > floor {
                break;
            }
            self.start = next;
            self.blocks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(log: &Log, from: u64) -> Vec<u8> {
        log.read(from, usize::MAX).unwrap().concat()
    }

    #[test]
    fn a_reader_at_any_offset_gets_the_rest() {
        let log = Log::new(1 << 20);
        log.set_wanted(true);
        for i in 0..1000 {
            log.append(0, format!("record {i};").as_bytes());
            if i % 7 == 0 {
                let _ = log.read(log.end(), 10);
            }
        }
        let all = text(&log, 0);
        assert!(all.starts_with(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\nrecord 0;record 1;"));
        for from in (0..all.len()).step_by(37) {
            assert_eq!(text(&log, from as u64), &all[from..]);
        }
        assert_eq!(log.end(), all.len() as u64);
        assert!(log.read(log.end() + 1, 1).is_none());
    }

    #[test]
    fn only_the_holder_of_the_ticket_appends_while_another_node_is_followed() {
        let log = Log::new(1 << 20);
        log.set_wanted(true);
        log.append(0, b"own");
        let kept = log.end();
        let (old, ticket) = (log.follow(), log.follow());
        log.append(0, b"a late writer");
        log.append_raw(b"a late ping");
        assert!(!log.append_stream(old, b"from the primary before", 0));
        assert!(log.append_stream(ticket, b"theirs", 3));
        assert_eq!(text(&log, kept), b"theirs");
        assert_eq!(log.position(), (kept + 6, Some(3)));
        log.lead(true);
        assert!(!log.append_stream(ticket, b"late", 0));
        log.append(3, b"own");
        assert!(text(&log, kept).ends_with(b"theirs*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\nown"));
    }

    #[test]
    fn only_the_window_is_kept_and_a_pin_holds_it() {
        let log = Log::new(1000);
        log.set_wanted(true);
        for _ in 0..50_000 {
            log.append(0, b"0123456789");
        }
        let _ = log.read(log.end(), 1);
        for _ in 0..20_000 {
            log.append(0, b"0123456789");
        }
        let (start, end) = log.window();
        assert!(end - start <= 2 * BLOCK as u64 + 1000, "{}", end - start);
        assert!(log.read(start.saturating_sub(1), 1).is_none());
        log.pin(end);
        for _ in 0..50_000 {
            log.append(0, b"0123456789");
        }
        assert!(log.window().0 <= end);
        assert_eq!(text(&log, end).len(), 500_000);
    }
}
