//! Readers of the log: where they are, what the log keeps for them, how they are woken, and the replies that
//! wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::history::{Share, Taken};
use super::{Log, UnitInfo, UnitKind};

/// What a reader takes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Every byte: a replica.
    Everything,
    /// Whole units that change data, as files hold them: a file.
    Data,
    /// Whole units that change data of this slot, or of none or several: whoever receives the slot.
    Slot(u16),
}

impl Takes {
    fn share_of(self, unit: UnitInfo) -> Share {
        match (unit.kind, self) {
            (UnitKind::LinkOnly, _) => Share::Nothing,
            (UnitKind::Split, Self::Data) => Share::OfFiles,
            (_, Self::Slot(slot)) if unit.slot.is_some_and(|own| own != slot) => Share::Nothing,
            _ => Share::Whole,
        }
    }
}

/// Why a reader cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Another history has begun: what the reader has is worth nothing. It stands at the beginning of the new
    /// one, and goes on from there when it reads again.
    Rebased,
    /// What it would read next is not kept.
    Lost,
}

/// Nobody's replies wait.
const NONE: u64 = u64::MAX;

/// A reader as the log sees it.
#[derive(Debug)]
struct Seat {
    takes: Takes,
    /// The history is kept from here on.
    position: AtomicU64,
    /// Everything before is on disk; [`NONE`] for a reader that writes to none.
    synced: AtomicU64,
    /// Replies wait until the log has passed this; [`NONE`] while they do not wait for this reader.
    barrier: AtomicU64,
    rebased: AtomicBool,
    waker: Waker,
}

/// All readers, and who waits for them.
#[derive(Debug)]
pub(super) struct Readers {
    seats: ArcSwap<Vec<Arc<Seat>>>,
    /// The least barrier: replies to writes up to here may leave. Changes under the lock of `waiting`.
    passed: AtomicU64,
    waiting: Mutex<Vec<(u64, Waker)>>,
}

impl Default for Readers {
    fn default() -> Self {
        Self { seats: ArcSwap::default(), passed: AtomicU64::new(NONE), waiting: Mutex::default() }
    }
}

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.seats.load().is_empty()
    }

    /// The history from here on is needed by a reader; `u64::MAX` without one.
    pub(super) fn needed_from(&self) -> u64 {
        self.seats.load().iter().map(|seat| seat.position.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }

    /// The same of those that take units; a new one begins at the end of the log.
    pub(super) fn needed_by_files_from(&self) -> u64 {
        let seats = self.seats.load();
        let takes_units = |seat: &&Arc<Seat>| seat.takes != Takes::Everything;
        let positions = seats.iter().filter(takes_units).map(|seat| seat.position.load(Ordering::Acquire));
        positions.min().unwrap_or(u64::MAX)
    }

    /// Puts all readers at the beginning of another history. [`Readers::pass`] and [`Readers::ring`] come next.
    pub(super) fn rebase(&self, offset: u64) {
        for seat in self.seats.load().iter() {
            seat.rebased.store(true, Ordering::Release);
            seat.position.store(offset, Ordering::Release);
            seat.barrier.store(NONE, Ordering::Release);
            if seat.synced.load(Ordering::Acquire) != NONE {
                // Nothing of the new history is on disk, and this is where it begins.
                seat.synced.store(0, Ordering::Release);
            }
        }
    }

    /// Wakes the readers that are not at `end`.
    pub(super) fn ring(&self, end: u64) {
        let seats = self.seats.load();
        for seat in seats.iter() {
            if seat.position.load(Ordering::Acquire) != end {
                seat.waker.wake_by_ref();
            }
        }
    }

    /// Looks anew how far all barriers are, and wakes those who waited for that.
    pub(super) fn pass(&self) {
        let mut waiting = self.waiting.lock();
        let seats = self.seats.load();
        let passed = seats.iter().map(|seat| seat.barrier.load(Ordering::Acquire)).min().unwrap_or(NONE);
        self.passed.store(passed, Ordering::Release);
        if waiting.is_empty() {
            return;
        }
        let ready: Vec<_> = waiting.extract_if(.., |(offset, _)| *offset <= passed).collect();
        drop(waiting);
        for (_, waker) in ready {
            waker.wake();
        }
    }
}

impl Log {
    /// Adds a reader at `position`, which must be kept: from now on the log keeps what it has not taken.
    /// `waker` is woken by [`Log::ring`]: it unparks a thread, or schedules a task, or does the work itself.
    ///
    /// A reader is gone when it is dropped. If the log was not wanted before, call with all shards locked.
    pub fn register(self: &Arc<Self>, takes: Takes, position: u64, waker: Waker) -> Reader {
        let seat = Arc::new(Seat {
            takes,
            position: AtomicU64::new(position),
            synced: AtomicU64::new(NONE),
            barrier: AtomicU64::new(NONE),
            rebased: AtomicBool::new(false),
            waker,
        });
        self.change_readers(|seats| seats.push(Arc::clone(&seat)));
        Reader { log: Arc::clone(self), seat }
    }

    fn change_readers(&self, change: impl Fn(&mut Vec<Arc<Seat>>)) {
        let mut inner = self.inner.lock();
        self.readers.seats.rcu(|seats| {
            let mut seats = Vec::clone(seats);
            change(&mut seats);
            seats
        });
        self.settle_wanted(&inner);
        self.trim(&mut inner);
        drop(inner);
        self.readers.pass();
    }

    /// Lets readers have what was appended. Called once after a batch of commands, and before its replies leave.
    #[inline]
    pub fn ring(&self) {
        self.readers.ring(self.end());
    }

    /// Replies to writes that end at or before this offset may leave; `u64::MAX` when nobody is waited for.
    #[inline]
    pub fn passed(&self) -> u64 {
        self.readers.passed.load(Ordering::Acquire)
    }

    /// Wakes `waker`, once, when the log has passed `offset`; at once if it has.
    pub fn when_passed(&self, offset: u64, waker: Waker) {
        let mut waiting = self.readers.waiting.lock();
        if self.passed() >= offset {
            drop(waiting);
            return waker.wake();
        }
        waiting.push((offset, waker));
    }

    /// From now on replies to writes wait for the readers that write to a disk, which they see to themselves otherwise.
    pub fn hold_for_disk(&self) {
        for seat in self.readers.seats.load().iter() {
            if seat.synced.load(Ordering::Acquire) != NONE && seat.barrier.load(Ordering::Acquire) == NONE {
                seat.barrier.store(seat.position.load(Ordering::Acquire), Ordering::Release);
            }
        }
        self.readers.pass();
    }

    /// Up to where the log is on this node's own disk; `None` when no reader writes it to one.
    pub fn synced(&self) -> Option<u64> {
        let seats = self.readers.seats.load();
        seats.iter().map(|seat| seat.synced.load(Ordering::Acquire)).filter(|synced| *synced != NONE).min()
    }
}

/// The handle of whoever reads the log. See [`Log::register`].
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    seat: Arc<Seat>,
}

impl Reader {
    /// Whether another history has begun since it last read.
    pub fn is_rebased(&self) -> bool {
        self.seat.rebased.load(Ordering::Acquire)
    }

    /// The offset that it reads next.
    pub fn position(&self) -> u64 {
        self.seat.position.load(Ordering::Acquire)
    }

    /// What comes next of what it takes, out of about `max` bytes. It stays where it is until it says with
    /// [`Reader::advance`] that it is done with it.
    pub fn read(&self, max: usize) -> Result<Taken, Gone> {
        self.read_until(max, u64::MAX)
    }

    /// As [`Reader::read`], and nothing from `until` on, where a unit begins. A reader that takes everything does
    /// not know of units.
    pub fn read_until(&self, max: usize, until: u64) -> Result<Taken, Gone> {
        let takes = self.seat.takes;
        let mut inner = self.log.inner.lock();
        if self.seat.rebased.swap(false, Ordering::AcqRel) {
            return Err(Gone::Rebased);
        }
        let (history, position) = (&mut inner.history, self.position());
        let taken = match takes {
            Takes::Everything => history.read(position, max),
            Takes::Data | Takes::Slot(_) => {
                history.read_units(position, max, until, |unit| takes.share_of(unit))
            }
        };
        taken.ok_or(Gone::Lost)
    }

    /// Units that it has not taken, out of about `max` bytes.
    pub fn units_ahead(&self, max: usize) -> u64 {
        let takes = self.seat.takes;
        let mut inner = self.log.inner.lock();
        let taken = inner.history.read_units(self.position(), max, u64::MAX, |unit| takes.share_of(unit));
        taken.map_or(0, |taken| taken.units)
    }

    /// It needs nothing before `offset` any more.
    pub fn advance(&self, offset: u64) {
        self.seat.position.store(offset, Ordering::Release);
    }

    /// Everything before `offset` is on disk. For readers that write to one.
    pub fn set_synced(&self, offset: u64) {
        // Once another history has begun the offset means nothing; the reader hears of that when it reads next.
        let _none_begins_now = self.log.inner.lock();
        if !self.is_rebased() {
            self.seat.synced.store(offset, Ordering::Release);
        }
    }

    /// Replies to writes behind `offset` wait for this reader from now on; with `None` they do not. Those who
    /// waited for what is passed now are woken.
    pub fn set_barrier(&self, offset: Option<u64>) {
        let offset = offset.unwrap_or(NONE);
        if self.seat.barrier.swap(offset, Ordering::AcqRel) != offset {
            self.log.readers.pass();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log.change_readers(|seats| seats.retain(|seat| !Arc::ptr_eq(seat, &self.seat)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    /// A log that keeps no history of its own.
    fn log() -> Arc<Log> {
        let log = Arc::new(Log::new(0));
        log.lead();
        log
    }

    fn unit(log: &Log, slot: u16, text: &str) -> u64 {
        log.append_unit(&[(0, text.as_bytes())], false, Some(slot))
    }

    fn text(reader: &Reader) -> String {
        let taken = reader.read(usize::MAX).unwrap();
        reader.advance(taken.end);
        String::from_utf8(taken.pieces.concat()).unwrap()
    }

    #[test]
    fn the_log_is_wanted_while_there_is_a_reader_and_keeps_what_the_slowest_needs() {
        let log = log();
        assert!(!log.is_wanted());
        unit(&log, 1, "nobody hears this");
        assert_eq!(log.end(), 0);
        let slow = log.register(Takes::Data, 0, Waker::noop().clone());
        let fast = log.register(Takes::Data, 0, Waker::noop().clone());
        assert!(log.is_wanted());
        for i in 0..50_000 {
            unit(&log, 1, &format!("<{i}>"));
            if i % 1000 == 0 {
                text(&fast);
            }
        }
        assert_eq!(log.window(), (0, log.end()));
        assert!(text(&slow).ends_with("<49998><49999>"));
        drop(slow);
        text(&fast);
        unit(&log, 1, "more");
        assert!(log.len() < 200_000, "{}", log.len());
        drop(fast);
        assert!(!log.is_wanted());
    }

    /// WAITAOF would count data as synced that have just arrived.
    #[test]
    fn a_sync_of_a_former_history_says_nothing_of_the_next() {
        let log = log();
        let file = log.register(Takes::Data, 0, Waker::noop().clone());
        file.set_synced(0);
        let end = unit(&log, 1, "of the former history");
        log.restart_at(5, None);
        file.set_synced(end);
        assert_eq!((file.position(), log.synced()), (5, Some(0)));
        assert_eq!(file.read(100), Err(Gone::Rebased));
        file.set_synced(6);
        assert_eq!(log.synced(), Some(6));
    }

    #[test]
    fn a_file_gets_no_link_only_units_and_a_slot_its_own() {
        let log = log();
        let link = log.register(Takes::Everything, 0, Waker::noop().clone());
        let file = log.register(Takes::Data, 0, Waker::noop().clone());
        let slot = log.register(Takes::Slot(7), 0, Waker::noop().clone());
        log.append_link_only(b"<ping>");
        unit(&log, 7, "<a>");
        unit(&log, 8, "<b>");
        log.append_link_only(b"<getack>");
        unit(&log, 7, "<c>");
        log.append_unit(&[(0, &b"<all>"[..])], false, None);
        let select = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n";
        assert_eq!(text(&link), format!("<ping>{select}<a><b><getack><c><all>"));
        assert_eq!(text(&file), format!("{select}<a><b><c><all>"));
        assert_eq!(text(&slot), format!("{select}<a><c><all>"));
        assert_eq!((file.position(), text(&file)), (log.end(), String::new()));
    }

    #[test]
    fn files_hold_something_else_in_the_place_of_a_split_unit() {
        let log = log();
        let readers = [Takes::Everything, Takes::Data, Takes::Slot(1), Takes::Slot(2)]
            .map(|takes| log.register(takes, log.end(), Waker::noop().clone()));
        unit(&log, 1, "before,");
        log.append_split_unit(&[(0, &b"link,"[..])], &[(0, &b"file,"[..])], false, Some(1));
        log.append_split_unit(&[], &[(0, &b"file alone,"[..])], true, Some(1));
        log.append_split_unit(&[(0, &b"link alone,"[..])], &[], true, Some(1));
        unit(&log, 2, "after,");
        let select = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n";
        let [multi, exec] = ["*1\r\n$5\r\nMULTI\r\n", "*1\r\n$4\r\nEXEC\r\n"];
        let ping = "*1\r\n$4\r\nPING\r\n";
        let links = format!("{select}before,{select}link,{ping}{multi}{select}link alone,{exec}");
        let told = readers.each_ref().map(text);
        let moved = links.replace(ping, &format!("{multi}{select}file alone,{exec}"));
        assert_eq!(told[0], format!("{links}{select}after,"));
        assert_eq!(
            told[1],
            format!("{select}before,{select}file,{multi}{select}file alone,{exec}{select}after,")
        );
        assert_eq!(told[2], moved);
        assert_eq!(told[3], format!("{select}after,"));
    }

    /// What is for files alone is not of the backlog, which could keep it for ever: it goes when all files have it.
    #[test]
    fn what_is_for_files_goes_when_they_have_it() {
        let log = Arc::new(Log::new(1 << 20));
        log.set_backlog(true);
        log.lead();
        let link = log.register(Takes::Everything, 0, Waker::noop().clone());
        let split = || log.append_split_unit(&[], &[(0, &[b'x'; 1000][..])], false, None);
        split();
        assert_eq!(log.beyond_backlog(), 0, "nobody writes files");
        let files = [0, 1].map(|_| log.register(Takes::Data, log.end(), Waker::noop().clone()));
        for _ in 0..100 {
            split();
        }
        assert!(log.beyond_backlog() > 100 * 1000);
        assert_eq!(text(&files[0]).matches('x').count(), 100 * 1000);
        split();
        assert!(log.beyond_backlog() > 101 * 1000, "one of them is behind");
        assert_eq!(text(&files[1]).matches('x').count(), 101 * 1000);
        assert_eq!(text(&files[0]).matches('x').count(), 1000);
        split();
        assert!(log.beyond_backlog() < 2000);
        assert_eq!(text(&link), "*1\r\n$4\r\nPING\r\n".repeat(103));
    }

    #[test]
    fn units_are_read_whole_whatever_may_be_taken_at_once() {
        let log = log();
        let file = log.register(Takes::Data, 0, Waker::noop().clone());
        let mut expected = Vec::new();
        for i in 0..3000 {
            let text = format!("<{}>", "x".repeat(i % 97));
            unit(&log, 1, &text);
            expected.push(text);
            if i % 50 == 0 {
                log.append_link_only(b"<ping>");
            }
        }
        let mut units = 0;
        loop {
            let taken = file.read(100).unwrap();
            if taken.end == file.position() {
                break;
            }
            let bytes = String::from_utf8(taken.pieces.concat()).unwrap();
            let bytes = bytes.strip_prefix("*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n").unwrap_or(&bytes);
            let count = bytes.matches('>').count();
            assert_eq!(bytes, expected[units..units + count].concat());
            units += count;
            file.advance(taken.end);
        }
        assert_eq!(units, 3000);
    }

    #[test]
    fn a_file_reads_up_to_where_the_next_one_begins() {
        let log = log();
        let file = log.register(Takes::Data, 0, Waker::noop().clone());
        unit(&log, 1, "<a>");
        log.append_link_only(b"<ping>");
        let cut = log.end();
        unit(&log, 1, "<b>");
        let before = file.read_until(usize::MAX, cut).unwrap();
        assert_eq!((before.end, before.pieces.concat().ends_with(b"<a>")), (cut, true));
        file.advance(cut);
        assert_eq!(file.read_until(usize::MAX, cut).unwrap(), Taken { end: cut, ..Taken::default() });
        assert_eq!(text(&file), "<b>");
    }

    #[test]
    fn another_history_tells_its_readers_and_lets_no_reply_wait() {
        let log = log();
        let reader = log.register(Takes::Data, 0, Waker::noop().clone());
        unit(&log, 1, "old");
        reader.set_barrier(Some(0));
        reader.set_synced(3);
        log.restart_at(1000, Some(3));
        assert_eq!((log.passed(), log.synced()), (u64::MAX, Some(0)));
        assert_eq!(reader.read(100), Err(Gone::Rebased));
        assert_eq!(reader.position(), 1000);
        log.append_unit(&[(3, &b"new"[..])], false, None);
        assert_eq!(text(&reader), "new");
        reader.advance(5);
        assert_eq!(reader.read(100), Err(Gone::Lost));
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn replies_leave_when_the_last_barrier_is_passed() {
        let log = log();
        assert_eq!(log.passed(), u64::MAX);
        let (one, two) = (
            log.register(Takes::Everything, 0, Waker::noop().clone()),
            log.register(Takes::Data, 0, Waker::noop().clone()),
        );
        one.set_barrier(Some(10));
        two.set_barrier(Some(20));
        assert_eq!(log.passed(), 10);
        let woken = Arc::new(Count::default());
        let count = || woken.0.load(Ordering::Relaxed);
        log.when_passed(10, Arc::clone(&woken).into());
        assert_eq!(count(), 1, "that is passed already");
        for offset in [15, 20, 21] {
            log.when_passed(offset, Arc::clone(&woken).into());
        }
        one.set_barrier(Some(30));
        assert_eq!((log.passed(), count()), (20, 3));
        two.set_barrier(None);
        assert_eq!((log.passed(), count()), (30, 4));
        drop(one);
        assert_eq!(log.passed(), u64::MAX);
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    #[test]
    fn a_thread_that_is_parked_is_woken_for_what_is_new() {
        let log = log();
        let writer = Arc::clone(&log);
        let (ready, begin) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let waker = Arc::new(Unpark(std::thread::current())).into();
            let reader = log.register(Takes::Data, 0, waker);
            ready.send(()).unwrap();
            let mut heard = String::new();
            while !heard.ends_with("<99>") {
                if reader.position() == log.end() {
                    std::thread::park_timeout(Duration::from_secs(60));
                }
                heard += &text(&reader);
            }
            heard
        });
        begin.recv().unwrap();
        for i in 0..100 {
            unit(&writer, 1, &format!("<{i}>"));
            writer.ring();
        }
        assert_eq!(thread.join().unwrap().matches('<').count(), 100);
    }

    #[test]
    fn a_task_that_waits_is_woken_for_what_is_new() {
        let log = log();
        let writer = Arc::clone(&log);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reader = None;
            let grown = std::future::poll_fn(|cx| {
                let reader =
                    reader.get_or_insert_with(|| log.register(Takes::Data, log.end(), cx.waker().clone()));
                if reader.position() == log.end() {
                    std::task::Poll::Pending
                } else {
                    std::task::Poll::Ready(())
                }
            });
            let write = async {
                tokio::task::yield_now().await;
                unit(&writer, 1, "news");
                writer.ring();
            };
            tokio::join!(grown, write);
        });
    }
}
