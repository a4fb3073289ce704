//! The one log: every change of data as RESP records, in the order in which data changed.
//!
//! | file | concept |
//! |---|---|
//! | `unit` | what the log is cut into: a command, or MULTI to EXEC |
//! | `history` | the blocks that are kept |
//! | `reader` | who reads the log, and the replies that wait for that |
//!
//! Writers append while they hold the locks of what they changed. Readers (replicas, a file, a moving slot) are
//! registered offsets into it. With no reader and no backlog wanted nothing is appended.
//!
//! Offsets count bytes since the replication history began, as `master_repl_offset` does.
//!
//! While the node follows another one its own writers append nothing; the log is a copy of the other's,
//! byte for byte, and grows by [`Log::append_stream`]. Its caller holds a ticket, which ends when
//! the node follows somebody else or nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};

use crate::resp::write_command;

mod history;
mod reader;
mod unit;

use history::{FILLER, History};
use reader::Readers;

pub use history::Taken;
pub use reader::{Gone, Reader, Takes};
pub use unit::{UnitInfo, UnitKind};

/// See the module.
#[derive(Debug)]
pub struct Log {
    wanted: AtomicBool,
    /// The ticket of the stream that is followed. Changes only while every shard is locked.
    ticket: AtomicU64,
    /// Copy of the history's end for readers that only ask for the offset.
    end: AtomicU64,
    inner: Mutex<Inner>,
    readers: Readers,
}

#[derive(Debug)]
struct Inner {
    history: History,
    /// The database of the last record; `None` when the next one must begin with SELECT.
    db: Option<u16>,
    /// Whether history is kept for readers to come.
    backlog: bool,
    /// Bytes of that (`repl-backlog-size`).
    keep: u64,
    /// The node's own writers append; not the stream of another node.
    leads: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

impl Log {
    /// `keep`: bytes of the backlog.
    pub fn new(keep: u64) -> Self {
        let inner = Inner { history: History::default(), db: None, backlog: false, keep, leads: true };
        Self {
            wanted: AtomicBool::new(false),
            ticket: AtomicU64::new(0),
            end: AtomicU64::new(0),
            inner: Mutex::new(inner),
            readers: Readers::default(),
        }
    }

    /// Whether writers must append: whether there is a reader or a backlog to keep, and no other node's stream
    /// is followed.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn settle_wanted(&self, inner: &Inner) {
        let wanted = inner.leads && (inner.backlog || !self.readers.is_empty());
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Begins or ends the backlog. Call with all shards locked, so that no writer is half-way.
    pub fn set_backlog(&self, kept: bool) {
        let mut inner = self.inner.lock();
        inner.backlog = kept;
        self.settle_wanted(&inner);
        if !kept && self.readers.is_empty() {
            let end = inner.history.end;
            inner.history.restart_at(end);
            inner.db = None;
        }
        self.trim(&mut inner);
    }

    /// Ends what this node's writers append: the stream of another node takes its place. What is kept
    /// stays. Returns the ticket for [`Log::append_stream`]; older ones are void. Call with all shards
    /// locked.
    pub fn follow(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.leads = false;
        self.settle_wanted(&inner);
        self.ticket.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends following: the node's own writers append again, beginning with a SELECT. What is kept stays. Call
    /// with all shards locked.
    pub fn lead(&self) {
        let mut inner = self.inner.lock();
        (inner.db, inner.leads) = (None, true);
        self.ticket.fetch_add(1, Ordering::Relaxed);
        self.settle_wanted(&inner);
    }

    /// The ticket of whoever changes data now. It is void once the node follows another, or nobody.
    pub fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Relaxed)
    }

    /// Whether the holder of a ticket may still change data. Ask with the shards of those data locked.
    pub fn accepts(&self, ticket: u64) -> bool {
        self.ticket.load(Ordering::Relaxed) == ticket
    }

    /// Appends a unit of the stream that is followed; behind it `db` is selected. False, and nothing is
    /// appended, when the ticket is void.
    pub fn append_stream(&self, ticket: u64, bytes: &[u8], db: u16, info: UnitInfo) -> bool {
        let mut inner = self.inner.lock();
        if !self.accepts(ticket) {
            return false;
        }
        inner.history.begin_unit(bytes.len()).extend_from_slice(bytes);
        inner.db = Some(db);
        self.end_unit(inner, info, bytes.len());
        true
    }

    /// The end, and the database that is selected there, if any is.
    pub fn position(&self) -> (u64, Option<u16>) {
        let inner = self.inner.lock();
        (inner.history.end, inner.db)
    }

    /// Bytes appended since the history began.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The window of offsets that can be read: first byte kept, end.
    pub fn window(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.history.start, inner.history.end)
    }

    /// Appends a unit that changes data: `runs` of records, each with its database; a SELECT goes in front where
    /// the database changes. `wrapped`: MULTI and EXEC stand around it, with the first SELECT inside, as Redis sends
    /// it since 7.2 (before, SELECT came first). `slot`: see [`UnitInfo`]. Returns the new end. The caller holds the
    /// locks of what the records change, and is [`Effects`](crate::keyspace::Effects).
    pub(in crate::keyspace) fn append_unit(
        &self,
        runs: &[(u16, &[u8])],
        wrapped: bool,
        slot: Option<u16>,
    ) -> u64 {
        let mut inner = self.inner.lock();
        if !self.is_wanted() {
            // The log changed hands between the look at `wanted` and the lock.
            return inner.history.end;
        }
        let parts = Parts::new(runs, wrapped, inner.db);
        parts.write(inner.history.begin_unit(parts.len));
        inner.db = parts.db;
        self.end_unit(inner, UnitInfo::data(slot), parts.len)
    }

    /// As [`Log::append_unit`], for records of which links to replicas get these, and files those.
    pub(in crate::keyspace) fn append_split_unit(
        &self,
        for_links: &[(u16, &[u8])],
        for_files: &[(u16, &[u8])],
        wrapped: bool,
        slot: Option<u16>,
    ) -> u64 {
        let mut inner = self.inner.lock();
        if !self.is_wanted() {
            return inner.history.end;
        }
        // Neither knows what the other has selected.
        let (links, files) = (Parts::new(for_links, wrapped, None), Parts::new(for_files, wrapped, None));
        inner.db = None;
        let mut bytes = BytesMut::with_capacity(files.len);
        files.write(&mut bytes);
        let len = if links.len > 0 { links.len } else { FILLER.len() };
        let out = inner.history.begin_unit(len);
        if links.len > 0 {
            links.write(out);
        } else {
            out.extend_from_slice(FILLER);
        }
        inner.history.end_split_unit(slot, len, bytes.freeze());
        self.end_of(inner)
    }

    /// Appends a unit for links to replicas alone. Nothing while another node is followed: its own come.
    pub fn append_link_only(&self, bytes: &[u8]) -> u64 {
        let mut inner = self.inner.lock();
        if !self.is_wanted() {
            return inner.history.end;
        }
        inner.history.begin_unit(bytes.len()).extend_from_slice(bytes);
        self.end_unit(inner, UnitInfo::LINK_ONLY, bytes.len())
    }

    #[inline]
    fn end_unit(&self, mut inner: MutexGuard<'_, Inner>, info: UnitInfo, len: usize) -> u64 {
        inner.history.end_unit(info, len);
        self.end_of(inner)
    }

    /// A unit is complete.
    #[inline]
    fn end_of(&self, mut inner: MutexGuard<'_, Inner>) -> u64 {
        self.trim(&mut inner);
        let end = inner.history.end;
        self.end.store(end, Ordering::Release);
        end
    }

    /// Makes the next record begin with SELECT: a reader that starts now knows no database.
    pub fn forget_db(&self) {
        self.inner.lock().db = None;
    }

    /// Begins another history at `offset`, with nothing kept before it (a replica after a full sync), and with
    /// `db` selected. Readers are told.
    pub fn restart_at(&self, offset: u64, db: Option<u16>) {
        let mut inner = self.inner.lock();
        inner.history.restart_at(offset);
        inner.db = db;
        inner.backlog = true;
        self.settle_wanted(&inner);
        self.end.store(offset, Ordering::Release);
        // Before the lock is given back: a reader that has not heard of it must not find its offset here.
        self.readers.rebase(offset);
        drop(inner);
        self.readers.pass();
        self.readers.ring(u64::MAX);
    }

    /// Sets the bytes of the backlog.
    pub fn set_keep(&self, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.keep = bytes;
        self.trim(&mut inner);
    }

    /// Bytes of the backlog.
    pub fn keep(&self) -> u64 {
        self.inner.lock().keep
    }

    /// Bytes kept.
    pub fn len(&self) -> u64 {
        let (start, end) = self.window();
        end - start
    }

    /// Bytes kept beyond the backlog, because a reader is behind.
    pub fn beyond_backlog(&self) -> u64 {
        let inner = self.inner.lock();
        let kept = inner.history.end - inner.history.start;
        kept.saturating_sub(if inner.backlog { inner.keep } else { 0 }) + inner.history.bytes_for_files()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything from `offset` on, at most about `max` bytes. `None` when `offset` is not in the window.
    pub fn read(&self, offset: u64, max: usize) -> Option<Taken> {
        self.inner.lock().history.read(offset, max)
    }

    /// Forgets what neither the backlog nor a reader needs.
    fn trim(&self, inner: &mut Inner) {
        let keep = if inner.backlog { inner.keep } else { 0 };
        let floor = inner.history.end.saturating_sub(keep);
        if inner.history.may_trim(floor) {
            inner.history.trim(floor.min(self.readers.needed_from()));
        }
        if inner.history.bytes_for_files() > 0 {
            inner.history.trim_for_files(self.readers.needed_by_files_from());
        }
    }
}

/// The bytes of a unit that changes data.
struct Parts<'a> {
    runs: &'a [(u16, &'a [u8])],
    /// In front of each run, if the database changes there.
    selects: smallvec::SmallVec<[Option<smallvec::SmallVec<[u8; 32]>>; 4]>,
    wrapped: bool,
    /// Bytes of all.
    len: usize,
    /// The database that is selected behind it.
    db: Option<u16>,
}

impl<'a> Parts<'a> {
    fn new(runs: &'a [(u16, &'a [u8])], wrapped: bool, mut db: Option<u16>) -> Self {
        let (mut selects, mut len) = (smallvec::SmallVec::<[_; 4]>::new(), 0);
        for (index, records) in runs {
            let select = (db != Some(*index)).then(|| select(*index));
            len += select.as_ref().map_or(0, smallvec::SmallVec::len) + records.len();
            db = Some(*index);
            selects.push(select);
        }
        let wrapped = wrapped && len > 0;
        len += if wrapped { MULTI.len() + EXEC.len() } else { 0 };
        Self { runs, selects, wrapped, len, db }
    }

    fn write(&self, out: &mut BytesMut) {
        if self.wrapped {
            out.extend_from_slice(MULTI);
        }
        for ((_, records), select) in self.runs.iter().zip(&self.selects) {
            out.extend_from_slice(select.as_deref().unwrap_or_default());
            out.extend_from_slice(records);
        }
        if self.wrapped {
            out.extend_from_slice(EXEC);
        }
    }
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

fn select(db: u16) -> smallvec::SmallVec<[u8; 32]> {
    let mut out = Vec::with_capacity(32);
    write_command(&mut out, &[&b"SELECT"[..], itoa::Buffer::new().format(db).as_bytes()]);
    smallvec::SmallVec::from_slice(&out)
}

#[cfg(test)]
mod tests {
    use super::history::BLOCK;
    use super::*;

    fn text(log: &Log, from: u64) -> Vec<u8> {
        log.read(from, usize::MAX).unwrap().pieces.concat()
    }

    fn append(log: &Log, db: u16, records: &[u8]) -> u64 {
        log.append_unit(&[(db, records)], false, None)
    }

    fn kept(keep: u64) -> Log {
        let log = Log::new(keep);
        log.set_backlog(true);
        log
    }

    #[test]
    fn a_reader_at_any_offset_gets_the_rest() {
        let log = kept(1 << 20);
        for i in 0..1000 {
            append(&log, 0, format!("record {i};").as_bytes());
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

    /// Two transactions, the second of which changed two databases.
    #[test]
    fn select_stands_inside_multi_and_again_where_the_database_changes() {
        let log = kept(1 << 20);
        log.append_unit(&[(0, &b"<a><b>"[..])], true, None);
        log.append_unit(&[(2, &b"<a>"[..]), (3, b"<b>")], true, None);
        append(&log, 3, b"<c>");
        append(&log, 4, b"<d>");
        let words = String::from_utf8(text(&log, 0)).unwrap();
        let words = words
            .replace("*1\r\n$5\r\nMULTI\r\n", "MULTI ")
            .replace("*1\r\n$4\r\nEXEC\r\n", " EXEC ")
            .replace("*2\r\n$6\r\nSELECT\r\n$1\r\n", "SELECT ")
            .replace("\r\n", " ");
        assert_eq!(words, "MULTI SELECT 0 <a><b> EXEC MULTI SELECT 2 <a>SELECT 3 <b> EXEC <c>SELECT 4 <d>");
    }

    #[test]
    fn only_the_holder_of_the_ticket_appends_while_another_node_is_followed() {
        let log = kept(1 << 20);
        append(&log, 0, b"own");
        let kept = log.end();
        let (old, ticket) = (log.follow(), log.follow());
        append(&log, 0, b"a late writer");
        log.append_link_only(b"a late ping");
        assert!(!log.append_stream(old, b"from the primary before", 0, UnitInfo::data(None)));
        assert!(log.append_stream(ticket, b"theirs", 3, UnitInfo::data(None)));
        assert_eq!(text(&log, kept), b"theirs");
        assert_eq!(log.position(), (kept + 6, Some(3)));
        log.lead();
        assert!(!log.append_stream(ticket, b"late", 0, UnitInfo::data(None)));
        append(&log, 3, b"own");
        assert!(text(&log, kept).ends_with(b"theirs*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\nown"));
    }

    #[test]
    fn only_the_backlog_is_kept() {
        let log = kept(1000);
        for _ in 0..50_000 {
            append(&log, 0, b"0123456789");
        }
        let _ = log.read(log.end(), 1);
        for _ in 0..20_000 {
            append(&log, 0, b"0123456789");
        }
        let (start, end) = log.window();
        assert!(end - start <= 2 * BLOCK as u64 + 1000, "{}", end - start);
        assert!(log.read(start.saturating_sub(1), 1).is_none());
        log.set_backlog(false);
        assert_eq!((log.is_wanted(), log.window()), (false, (end, end)));
    }
}
