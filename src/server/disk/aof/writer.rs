//! The thread that writes the log to the append-only file, and the one that puts it on the disk once a second.
//!
//! It is a reader of the log: writers hand nothing over and never wait for it. Under `appendfsync always` replies
//! to writes wait, in their connections' outboxes, for the fsync that covers them; one fsync covers all that wait.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::command::gate;
use crate::config::choice::AppendFsync;
use crate::keyspace::log::{Gone, Reader, Taken};
use crate::persist::aof::timestamp;
use crate::resp::write_command;
use crate::server::disk::aof::group::Group;
use crate::server::disk::aof::rewrite::Move;
use crate::server::disk::aof::{Aof, rewrite};
use crate::server::disk::file::DiskFile;
use crate::server::node::{Node, unix_ms};
use crate::server::process::affinity;
use crate::server::process::clock::now_ns;
use crate::server::process::crash;
use crate::server::process::os_error::words;

/// Bytes of the log that are written at once.
const BATCH: usize = 4 << 20;
/// How often it looks after time when nothing is new, and after the log while something is.
const IDLE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(2);
/// Under `always`, bytes for which blocks are set aside at once.
const RESERVE: u64 = 4 << 20;
/// How often a pause before an fsync looks whether it is over.
const LOOKS: u32 = 4;
/// `everysec` keeps from writing for so long while an fsync runs, which would hold up the write.
const POSTPONE: Duration = Duration::from_secs(2);
const EVERY_SECOND: Duration = Duration::from_secs(1);
/// When this much waits for a slow disk, replies to further writes wait, too: memory is bounded by what clients
/// send without reading replies.
const BACKLOG_MAX: u64 = 256 << 20;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Write what `reader` brings to this file.
    Begin {
        reader: Reader,
        file: DiskFile,
        /// The database that is selected where the reader stands.
        db: Option<u16>,
        /// Of what the files are worth.
        era: u64,
        /// The data before are on the disk, too; without it the first base is still being written.
        whole: bool,
    },
    /// Go on in a new increment from this offset, where `db` is selected. The answer tells how that went.
    Cut { offset: u64, db: Option<u16>, done: Sender<io::Result<()>> },
    /// Go on in another folder, and answer how many nanoseconds it took to give the files there their names.
    Move(Box<Move>, Sender<io::Result<u64>>),
    /// The base is on the disk; an error of the files before is of no account any more. The answer comes when the files
    /// hold all that was in the log by then, and what `appendfsync` promises holds for what comes.
    Whole(Sender<()>),
    /// Write and fsync what there is, and answer whether it is on the disk.
    Flush(Sender<bool>),
    /// The same up to this offset, then write no more.
    End(u64),
    /// Write no more; the file is of no use.
    Abandon,
}

/// Wakes the thread from the log. Only `always` is in a hurry: otherwise it looks by itself while there is something
/// to do, so that workers need not wake it once a round.
#[derive(Debug)]
pub(super) struct Bell {
    thread: Thread,
    eager: AtomicBool,
    asleep: AtomicBool,
}

impl Bell {
    /// Wakes it in any case.
    pub fn ring(&self) {
        self.thread.unpark();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.eager.load(Ordering::Relaxed)
            || (self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel))
        {
            self.thread.unpark();
        }
    }
}

/// The file that is written.
struct Target {
    reader: Reader,
    file: Arc<DiskFile>,
    /// Bytes of whole units in the file.
    size: u64,
    /// Bytes for which the disk has set blocks aside.
    reserved: u64,
    /// Must be selected before the next unit.
    select: Option<u16>,
    /// Behind that are bytes of a write that failed, which could not be taken off.
    torn: bool,
    /// Nothing is written from this offset on.
    ends_at: u64,
    cuts: VecDeque<(u64, Option<u16>, Sender<io::Result<()>>)>,
    era: u64,
    whole: bool,
    /// The file has bytes for which no fsync was begun.
    unsynced: bool,
    /// The second of the last annotation.
    stamp: i64,
}

/// Why nothing is written for now.
enum Trouble {
    None,
    /// The last write failed. It is tried again once a second.
    Write {
        next_try: Instant,
    },
    /// An fsync failed: what the file holds on the disk is not known, until a base is there that was begun
    /// later. `covered`: another file is written since, and the base is on its way.
    Sync {
        covered: bool,
    },
}

pub(super) struct Writer {
    node: Arc<Node>,
    bell: Arc<Bell>,
    /// When it last had something to do.
    active: Instant,
    target: Option<Target>,
    trouble: Trouble,
    group: Group,
    syncer: Syncer,
    last_sync: Instant,
    postponed_since: Option<Instant>,
    far_behind: bool,
}

/// Starts both threads; returns the handle by which the writer is woken.
pub(super) fn start(node: &Arc<Node>) -> io::Result<Arc<Bell>> {
    let node = Arc::clone(node);
    let (ready, handle) = channel();
    thread::Builder::new().name("aof".into()).spawn(move || {
        crash::guard_thread();
        affinity::bind_or_warn("bio-cpulist", &node.config.load().bio_cpulist);
        // The other thread inherits it.
        let syncer = match Syncer::start(thread::current()) {
            Ok(syncer) => syncer,
            Err(e) => {
                let _ = ready.send(Err(e));
                return;
            }
        };
        let bell =
            Bell { thread: thread::current(), eager: AtomicBool::new(true), asleep: AtomicBool::new(false) };
        let bell = Arc::new(bell);
        let _ = ready.send(Ok(Arc::clone(&bell)));
        Writer {
            node,
            bell,
            active: Instant::now(),
            target: None,
            trouble: Trouble::None,
            group: Group::default(),
            syncer,
            last_sync: Instant::now(),
            postponed_since: None,
            far_behind: false,
        }
        .run();
    })?;
    handle.recv().map_err(|_| io::Error::other("the thread ended"))?
}

impl Writer {
    fn aof(&self) -> &Aof {
        &self.node.files.aof
    }

    fn run(mut self) {
        while !self.node.life.shutdown.begun.load(Ordering::Acquire) {
            self.node.sleep_along();
            while let Some(order) = self.next_order() {
                self.obey(order);
            }
            self.note_synced();
            let more = self.write_some();
            self.sync();
            self.show();
            if !more {
                self.rest();
            }
        }
    }

    /// One at a time: what is still to come shows to whoever writes meanwhile.
    fn next_order(&self) -> Option<Order> {
        let mut orders = self.aof().orders.lock();
        if orders.is_empty() { None } else { Some(orders.remove(0)) }
    }

    /// Sleeps until there may be something to do.
    fn rest(&mut self) {
        let eager = self.node.config.load().appendfsync == AppendFsync::Always;
        self.bell.eager.store(eager, Ordering::Relaxed);
        let log = &self.node.shared.keyspace.log;
        let is_behind = |target: &Target| target.reader.position() != log.end();
        if eager {
            return thread::park_timeout(IDLE);
        }
        if self.target.is_some() && self.active.elapsed() < IDLE {
            return thread::park_timeout(POLL);
        }
        self.bell.asleep.store(true, Ordering::SeqCst);
        if !self.target.as_ref().is_some_and(is_behind) {
            thread::park_timeout(IDLE);
        }
        self.bell.asleep.store(false, Ordering::Relaxed);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin { reader, file, db, era, whole } => {
                self.target = Some(Target::new(reader, file, db, era, whole));
                self.recover();
            }
            Order::Move(there, done) => {
                // Whoever rewrites waits for it.
                let _ = done.send(self.go_elsewhere(*there));
            }
            Order::Cut { offset, db, done } => match &mut self.target {
                Some(target) => target.cuts.push_back((offset, db, done)),
                // Nothing is written any more: dropping `done` tells.
                None => drop(done),
            },
            Order::Whole(done) => {
                if let Some(target) = &mut self.target {
                    target.whole = true;
                }
                if matches!(self.trouble, Trouble::Sync { covered: true }) {
                    self.recover();
                }
                self.set_barrier();
                self.flush();
                // Whoever rewrites waits for it.
                let _ = done.send(());
            }
            Order::Flush(done) => {
                let _ = done.send(self.flush());
            }
            Order::End(offset) => {
                if let Some(target) = &mut self.target {
                    target.ends_at = offset;
                }
                if self.target.is_some() && !self.flush() {
                    tracing::warn!("The append only file could not be completed when it was turned off");
                }
                self.close();
                // Who waits for more than that waits in vain.
                self.node.peers.replication.log_synced(&self.node);
            }
            Order::Abandon => self.close(),
        }
    }

    /// Writes what came since the new base to the increment beside it, and goes on there. Until both have their names
    /// the file before is the one that counts, and nothing is promised but by it; an error changes nothing.
    fn go_elsewhere(&mut self, there: Move) -> io::Result<u64> {
        let stamps = self.node.config.load().aof_timestamp_enabled;
        let log = &self.node.shared.keyspace.log;
        let Move { reader, file, db, mut place } = there;
        let mut next = Target::new(reader, file, db, place.era, true);
        let present = self.target.as_mut().ok_or_else(rewrite::given_up);
        let renaming = present.and_then(|present| {
            next.catch_up(log.end(), stamps)?;
            let renaming = place.finish(&self.node.files.aof)?;
            present.release();
            Ok(renaming)
        });
        let renaming = renaming.inspect_err(|_| place.give_up())?;
        let position = next.reader.position();
        next.reader.set_synced(position);
        next.reader.set_barrier(Some(position));
        self.target = Some(next);
        self.recover();
        self.set_barrier();
        self.node.peers.replication.log_synced(&self.node);
        Ok(renaming)
    }

    fn close(&mut self) {
        if let Some(target) = &mut self.target {
            target.release();
        }
        // Replies that wait for it are let go with the reader.
        self.target = None;
        self.recover();
    }

    /// Writes all that is in the log now, and puts it on the disk.
    fn flush(&mut self) -> bool {
        let ends_at = self.target.as_ref().map_or(u64::MAX, |target| target.ends_at);
        let end = self.node.shared.keyspace.log.end().min(ends_at);
        self.postponed_since = None;
        if let Trouble::Write { next_try } = &mut self.trouble {
            *next_try = Instant::now();
        }
        while self.target.as_ref().is_some_and(|t| t.reader.position() < end) {
            if !self.write_batch() {
                return false;
            }
        }
        self.sync_now()
    }

    /// Writes a batch if now is the time for it; returns whether there is more.
    fn write_some(&mut self) -> bool {
        let end = self.node.shared.keyspace.log.end();
        let Some(target) = &self.target else { return false };
        let has_news = target.reader.position() != end || target.reader.is_rebased();
        if !has_news && target.cuts.is_empty() {
            return false;
        }
        self.active = Instant::now();
        if self.postpones() {
            return false;
        }
        self.write_batch() && self.target.as_ref().is_some_and(|t| t.reader.position() < end)
    }

    /// Whether an fsync under way holds writing up (`everysec`).
    fn postpones(&mut self) -> bool {
        let every_second = self.node.config.load().appendfsync == AppendFsync::EverySecond;
        if !every_second || !self.syncer.is_busy() {
            self.postponed_since = None;
            return false;
        }
        let since = *self.postponed_since.get_or_insert_with(Instant::now);
        if since.elapsed() < POSTPONE {
            return true;
        }
        self.postponed_since = None;
        self.aof().delayed_fsync.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without waiting for fsync to complete, this may slow down Redis."
        );
        false
    }

    /// Writes what comes next. False: that was not possible.
    fn write_batch(&mut self) -> bool {
        let again = matches!(self.trouble, Trouble::Write { .. });
        match self.trouble {
            Trouble::Write { next_try } if Instant::now() < next_try => return false,
            _ => {}
        }
        let Some(target) = &mut self.target else { return false };
        let cut = target.cuts.front().map_or(u64::MAX, |cut| cut.0);
        let until = cut.min(target.ends_at);
        let taken = match target.reader.read_until(BATCH, until) {
            Ok(taken) => taken,
            Err(gone) => {
                self.begin_again(gone);
                return false;
            }
        };
        if self.hear_of_cuts(taken.end) {
            // Read again, up to there.
            return true;
        }
        match self.aof().flush_sleep_us.load(Ordering::Relaxed) {
            0 => {}
            us => thread::sleep(Duration::from_micros(us)),
        }
        let Some(target) = &mut self.target else { return false };
        let config = self.node.config.load();
        let (stamps, always) = (config.aof_timestamp_enabled, config.appendfsync == AppendFsync::Always);
        drop(config);
        let began = now_ns();
        if always {
            target.reserve();
        }
        let written = target.write(&taken, stamps);
        let nanos = now_ns().wrapping_sub(began);
        // What else kept the disk busy meanwhile.
        let beside = if self.syncer.is_busy() {
            "aof-write-pending-fsync"
        } else if self.node.shared.keyspace.is_snapshot_running() {
            "aof-write-active-child"
        } else {
            "aof-write-alone"
        };
        self.node.note_event("aof-write", nanos);
        self.node.note_event(beside, nanos);
        if let Err(e) = written {
            self.write_failed(&e);
            return false;
        }
        self.group.wrote(taken.units);
        if again {
            tracing::warn!("AOF write error looks solved, Redis can write again.");
            self.recover();
        }
        if taken.end >= cut {
            self.cut();
        }
        true
    }

    /// Takes orders to cut that came since orders were last looked at. True if the increment is to end before `end`:
    /// what lies between would go with it when it is deleted. Such an order is there before anything behind its
    /// place is in the log, because it is given with every shard locked.
    fn hear_of_cuts(&mut self, end: u64) -> bool {
        let mut orders = self.node.files.aof.orders.lock();
        let other = |order: &Order| {
            matches!(order, Order::Begin { .. } | Order::Move(..) | Order::End(_) | Order::Abandon)
        };
        let ours = orders.iter().position(other).unwrap_or(orders.len());
        let cuts: Vec<Order> =
            orders.extract_if(..ours, |order| matches!(order, Order::Cut { .. })).collect();
        drop(orders);
        let before = cuts.iter().any(|order| matches!(order, Order::Cut { offset, .. } if *offset < end));
        cuts.into_iter().for_each(|order| self.obey(order));
        before
    }

    /// Another history has begun: a full synchronisation has replaced the data. A new base must come first.
    fn begin_again(&mut self, gone: Gone) {
        if gone == Gone::Lost {
            tracing::warn!("The append only file has lost its place in the log: it is written anew");
        }
        let era = self.target.take().map(|target| target.era);
        self.recover();
        if era == Some(self.aof().era()) {
            self.aof().lose();
        }
        if !self.aof().is_rewriting() {
            rewrite::begin_first(&self.node);
        }
    }

    fn write_failed(&mut self, error: &io::Error) {
        if matches!(self.trouble, Trouble::None) {
            tracing::warn!("Error writing to the AOF file: {}", words(error));
        }
        // Under `always`, too: replies to what is not on the disk are held back anyhow.
        self.trouble = Trouble::Write { next_try: Instant::now() + EVERY_SECOND };
        self.refuse_writes(error);
    }

    fn refuse_writes(&self, error: &io::Error) {
        self.node.shared.log_trouble.store(Arc::new(words(error)));
        self.aof().write_ok.store(false, Ordering::Release);
        self.node.shared.set_gate(gate::LOG_FAILED, true);
    }

    fn recover(&mut self) {
        self.trouble = Trouble::None;
        self.aof().write_ok.store(true, Ordering::Release);
        self.node.shared.set_gate(gate::LOG_FAILED, false);
    }

    /// Goes on in a new increment: all before it is in the present one.
    fn cut(&mut self) {
        // A file that cannot be put on the disk is why a new base is made.
        let may = self.sync_now() || matches!(self.trouble, Trouble::Sync { .. });
        let Some(target) = &mut self.target else { return };
        let Some((_, db, done)) = target.cuts.pop_front() else { return };
        let next = if may {
            self.node.files.aof.folder.lock().begin_increment()
        } else {
            Err(io::Error::other("the increment before cannot be put on the disk"))
        };
        let result = next.map(|(name, file)| {
            tracing::info!("Creating AOF incr file {name} on background rewrite");
            self.node.files.aof.other_size.fetch_add(target.size, Ordering::Relaxed);
            target.release();
            (target.file, target.size, target.select) = (Arc::new(file), 0, db);
            (target.reserved, target.unsynced, target.stamp) = (0, false, 0);
            if let Trouble::Sync { covered } = &mut self.trouble {
                *covered = true;
            }
        });
        // Whoever rewrites may have given up.
        let _ = done.send(result);
    }

    /// What `appendfsync` asks for; `None` where `no-appendfsync-on-rewrite` spares it.
    fn policy(&self) -> Option<AppendFsync> {
        let config = self.node.config.load();
        let spared = config.no_appendfsync_on_rewrite && self.node.shared.keyspace.is_snapshot_running();
        (!spared).then_some(config.appendfsync)
    }

    fn sync(&mut self) {
        match self.policy() {
            Some(AppendFsync::Always) => {
                self.gather();
                self.sync_now();
            }
            Some(AppendFsync::EverySecond) => self.sync_soon(),
            _ => {}
        }
        self.set_barrier();
    }

    /// Has more writes share the next fsync, where that is worth a pause.
    fn gather(&mut self) {
        let Some(target) = self.target.as_ref().filter(|target| target.unsynced) else { return };
        let Some(patience) = self.group.patience() else { return };
        // It looks by itself: workers need not wake it.
        self.bell.eager.store(false, Ordering::Relaxed);
        let until = Instant::now() + patience;
        let complete = loop {
            if self.group.is_complete(target.reader.units_ahead(BATCH)) {
                break true;
            }
            if Instant::now() >= until {
                break false;
            }
            thread::park_timeout(patience / LOOKS);
        };
        self.bell.eager.store(true, Ordering::Relaxed);
        self.group.paused(complete);
        let end = self.node.shared.keyspace.log.end();
        while self.target.as_ref().is_some_and(|t| t.reader.position() < end) && self.write_batch() {}
    }

    /// Puts everything on the disk before it returns.
    fn sync_now(&mut self) -> bool {
        // What the other thread was given is not on the disk before it has said so.
        if let Some(synced) = self.syncer.wait() {
            self.take_synced(synced);
        }
        if matches!(self.trouble, Trouble::Sync { .. }) {
            return false;
        }
        let Some(target) = &mut self.target else { return true };
        if target.unsynced {
            let began = now_ns();
            let synced = target.file.sync_data();
            let nanos = now_ns().wrapping_sub(began);
            self.node.note_event("aof-fsync-always", nanos);
            self.group.synced(Duration::from_nanos(nanos), || target.reader.units_ahead(BATCH));
            if let Err(e) = synced {
                self.sync_failed(&e);
                return false;
            }
            target.unsynced = false;
            self.last_sync = Instant::now();
        }
        let position = target.reader.position();
        self.synced_to(position);
        true
    }

    /// Has the other thread put everything on the disk, once a second.
    fn sync_soon(&mut self) {
        let Some(target) = &mut self.target else { return };
        if self.syncer.pending || matches!(self.trouble, Trouble::Sync { .. }) {
            return;
        }
        let position = target.reader.position();
        if !target.unsynced {
            self.synced_to(position);
        } else if self.last_sync.elapsed() >= EVERY_SECOND {
            target.unsynced = false;
            self.last_sync = Instant::now();
            self.syncer.begin(Arc::clone(&target.file), position);
        }
    }

    /// Hears of the other thread's fsync.
    fn note_synced(&mut self) {
        if let Some(synced) = self.syncer.ended() {
            self.take_synced(synced);
        }
    }

    fn take_synced(&mut self, (file, position, result): Synced) {
        match (result, &self.target) {
            // A file that is written no more: what became of it is known elsewhere.
            (_, target) if target.as_ref().is_none_or(|t| !Arc::ptr_eq(&t.file, &file)) => {}
            (Ok(()), _) => self.synced_to(position),
            (Err(e), _) => self.sync_failed(&e),
        }
    }

    fn synced_to(&mut self, position: u64) {
        let Some(target) = &self.target else { return };
        if target.whole && self.node.shared.keyspace.log.synced().is_none_or(|synced| synced < position) {
            target.reader.set_synced(position);
            self.node.peers.replication.log_synced(&self.node);
        }
    }

    /// After a failed fsync nobody knows what the disk holds of this file, and a later one that succeeds says
    /// nothing of it: only a new base and a new increment do.
    fn sync_failed(&mut self, error: &io::Error) {
        if self.node.config.load().appendfsync == AppendFsync::Always {
            tracing::warn!(
                "Can't persist AOF for fsync error when the AOF fsync policy is 'always': {}. Exiting...",
                words(error)
            );
            std::process::exit(1);
        }
        tracing::warn!("Fail to fsync the AOF file: {}", words(error));
        self.trouble = Trouble::Sync { covered: false };
        if let Some(target) = &mut self.target {
            target.unsynced = true;
        }
        self.refuse_writes(error);
        self.aof().scheduled.store(true, Ordering::Release);
    }

    /// Which replies wait for the disk.
    fn set_barrier(&mut self) {
        let Some(target) = &self.target else { return };
        let _policy = self.node.files.aof.barrier.lock();
        let always = self.policy() == Some(AppendFsync::Always);
        let position = target.reader.position();
        let behind = self.node.shared.keyspace.log.end().saturating_sub(position);
        if behind > BACKLOG_MAX && !self.far_behind {
            tracing::warn!(
                "The append only file is {behind} bytes behind: replies to writes wait for the disk until it has caught up"
            );
        }
        self.far_behind = behind > BACKLOG_MAX || (self.far_behind && behind > BACKLOG_MAX / 2);
        if always && target.whole && target.unsynced {
            // An fsync has failed: what waits for one goes on waiting.
            return;
        }
        let waits = (always && target.whole) || self.far_behind;
        target.reader.set_barrier(waits.then_some(position));
    }

    /// What INFO says.
    fn show(&self) {
        let aof = self.aof();
        let (size, position) =
            self.target.as_ref().map_or((0, None), |t| (t.size, Some(t.reader.position())));
        aof.increment_size.store(size, Ordering::Relaxed);
        let end = self.node.shared.keyspace.log.end();
        aof.behind.store(position.map_or(0, |p| end.saturating_sub(p)), Ordering::Relaxed);
        aof.pending_fsync.store(u64::from(self.syncer.is_busy()), Ordering::Relaxed);
    }
}

impl Target {
    /// Begins behind what the file has.
    fn new(reader: Reader, file: DiskFile, select: Option<u16>, era: u64, whole: bool) -> Self {
        let size = file.size().unwrap_or(0);
        Self {
            reader,
            file: Arc::new(file),
            size,
            reserved: size,
            select,
            torn: false,
            ends_at: u64::MAX,
            cuts: VecDeque::new(),
            era,
            whole,
            unsynced: false,
            stamp: 0,
        }
    }

    /// Writes all up to `end`, and puts it on the disk.
    fn catch_up(&mut self, end: u64, stamps: bool) -> io::Result<()> {
        while self.reader.position() < end {
            let taken = self.reader.read_until(BATCH, u64::MAX).map_err(|_| rewrite::given_up())?;
            self.write(&taken, stamps)?;
        }
        self.file.sync_data()?;
        self.unsynced = false;
        Ok(())
    }

    /// Has blocks set aside behind the end, so that an fsync need not note new ones each time. The size stays: whoever
    /// reads the file meets nothing but commands.
    fn reserve(&mut self) {
        if self.size + RESERVE / 4 > self.reserved {
            // Where that is not possible, blocks come as they are needed; only once is it asked for them.
            let _ = self.file.reserve(self.size, RESERVE);
            self.reserved = self.size + RESERVE;
        }
    }

    /// Gives the blocks behind the end back.
    fn release(&mut self) {
        if self.reserved > self.size && self.file.truncate(self.size).is_ok() {
            self.reserved = self.size;
        }
    }

    /// Appends whole units. On an error the file is as it was.
    fn write(&mut self, taken: &Taken, stamps: bool) -> io::Result<()> {
        if self.torn {
            self.file.truncate(self.size)?;
            self.torn = false;
        }
        if taken.pieces.is_empty() {
            self.reader.advance(taken.end);
            return Ok(());
        }
        let mut head = Vec::new();
        let now_s = unix_ms() / 1000;
        if stamps && now_s > self.stamp {
            head.extend_from_slice(timestamp(now_s).as_bytes());
        }
        if let Some(db) = self.select {
            write_command(&mut head, &[&b"SELECT"[..], db.to_string().as_bytes()]);
        }
        let len = head.len() as u64 + taken.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let mut pieces = vec![Bytes::from(head)];
        pieces.extend(taken.pieces.iter().cloned());
        if let Err(e) = write_all(&self.file, &pieces) {
            // A part of it may be there.
            if let Err(e) = self.file.truncate(self.size) {
                self.torn = true;
                tracing::warn!(
                    "Could not remove short write from the append-only file.  Redis may refuse to load the AOF the next time it starts.  ftruncate: {}",
                    words(&e)
                );
            }
            // It gave back what was set aside.
            self.reserved = self.size;
            return Err(e);
        }
        if stamps {
            self.stamp = now_s;
        }
        self.select = None;
        self.size += len;
        self.unsynced = true;
        self.reader.advance(taken.end);
        Ok(())
    }
}

fn write_all(mut file: &DiskFile, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let most = rest.len().min(512);
        match file.write_vectored(&rest[..most]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

type Synced = (Arc<DiskFile>, u64, io::Result<()>);

/// The thread that waits for the disk.
struct Syncer {
    busy: Arc<AtomicBool>,
    /// It was given a file, and what became of that is not yet known here.
    pending: bool,
    files: Sender<(Arc<DiskFile>, u64)>,
    results: Receiver<Synced>,
}

impl Syncer {
    fn start(writer: Thread) -> io::Result<Self> {
        let (files, queue) = channel::<(Arc<DiskFile>, u64)>();
        let (sender, results) = channel();
        let busy = Arc::new(AtomicBool::new(false));
        let is_busy = Arc::clone(&busy);
        thread::Builder::new().name("aof-fsync".into()).spawn(move || {
            crash::guard_thread();
            for (file, position) in queue {
                let result = file.sync_data();
                // The writer is gone when the node ends.
                let _ = sender.send((file, position, result));
                is_busy.store(false, Ordering::Release);
                writer.unpark();
            }
        })?;
        Ok(Self { busy, pending: false, files, results })
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    fn begin(&mut self, file: Arc<DiskFile>, position: u64) {
        self.busy.store(true, Ordering::Release);
        self.pending = true;
        // The thread lives as long as this.
        let _ = self.files.send((file, position));
    }

    /// What it has done, if it has.
    fn ended(&mut self) -> Option<Synced> {
        let synced = self.results.try_recv().ok()?;
        self.pending = false;
        Some(synced)
    }

    /// The same, but waits for it; `None` if it was given nothing.
    fn wait(&mut self) -> Option<Synced> {
        if !std::mem::take(&mut self.pending) {
            return None;
        }
        self.results.recv().ok()
    }
}
