//! The thread that writes the log to the append-only file, and decides when that goes to the disk.
//!
//! It is a reader of the log: writers hand nothing over and never wait for it. Under `appendfsync always` replies
//! to writes wait, in their connections' outboxes, for the fsync that covers them; one fsync covers all that wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::gate;
use crate::config::choice::AppendFsync;
use crate::keyspace::log::{Gone, Reader};
use crate::server::disk::aof::bell::Bell;
use crate::server::disk::aof::group::Group;
use crate::server::disk::aof::increment::{BATCH, Increment};
use crate::server::disk::aof::rewrite::Move;
use crate::server::disk::aof::syncer::{Synced, Syncer};
use crate::server::disk::aof::{Aof, rewrite};
use crate::server::disk::file::DiskFile;
use crate::server::node::Node;
use crate::server::process::affinity;
use crate::server::process::clock::now_ns;
use crate::server::process::crash;
use crate::server::process::os_error::words;

/// How often it looks after time when nothing is new, and after the log while something is.
const IDLE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(2);
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
    increment: Option<Increment>,
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
        let bell = Arc::new(Bell::of_this_thread());
        let _ = ready.send(Ok(Arc::clone(&bell)));
        Writer {
            node,
            bell,
            active: Instant::now(),
            increment: None,
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
        let is_behind = |increment: &Increment| increment.reader.position() != log.end();
        if eager {
            return thread::park_timeout(IDLE);
        }
        if self.increment.is_some() && self.active.elapsed() < IDLE {
            return thread::park_timeout(POLL);
        }
        self.bell.asleep.store(true, Ordering::SeqCst);
        if !self.increment.as_ref().is_some_and(is_behind) {
            thread::park_timeout(IDLE);
        }
        self.bell.asleep.store(false, Ordering::Relaxed);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin { reader, file, db, era, whole } => {
                self.increment = Some(Increment::new(reader, file, db, era, whole));
                self.recover();
            }
            Order::Move(there, done) => {
                // Whoever rewrites waits for it.
                let _ = done.send(self.go_elsewhere(*there));
            }
            Order::Cut { offset, db, done } => match &mut self.increment {
                Some(increment) => increment.cuts.push_back((offset, db, done)),
                // Nothing is written any more: dropping `done` tells.
                None => drop(done),
            },
            Order::Whole(done) => {
                if let Some(increment) = &mut self.increment {
                    increment.whole = true;
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
                if let Some(increment) = &mut self.increment {
                    increment.ends_at = offset;
                }
                if self.increment.is_some() && !self.flush() {
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
        let mut next = Increment::new(reader, file, db, place.era, true);
        let present = self.increment.as_mut().ok_or_else(rewrite::given_up);
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
        self.increment = Some(next);
        self.recover();
        self.set_barrier();
        self.node.peers.replication.log_synced(&self.node);
        Ok(renaming)
    }

    fn close(&mut self) {
        if let Some(increment) = &mut self.increment {
            increment.release();
        }
        // Replies that wait for it are let go with the reader.
        self.increment = None;
        self.recover();
    }

    /// Writes all that is in the log now, and puts it on the disk.
    fn flush(&mut self) -> bool {
        let ends_at = self.increment.as_ref().map_or(u64::MAX, |increment| increment.ends_at);
        let end = self.node.shared.keyspace.log.end().min(ends_at);
        self.postponed_since = None;
        if let Trouble::Write { next_try } = &mut self.trouble {
            *next_try = Instant::now();
        }
        while self.increment.as_ref().is_some_and(|t| t.reader.position() < end) {
            if !self.write_batch() {
                return false;
            }
        }
        self.sync_now()
    }

    /// Writes a batch if now is the time for it; returns whether there is more.
    fn write_some(&mut self) -> bool {
        let end = self.node.shared.keyspace.log.end();
        let Some(increment) = &self.increment else { return false };
        let has_news = increment.reader.position() != end || increment.reader.is_rebased();
        if !has_news && increment.cuts.is_empty() {
            return false;
        }
        self.active = Instant::now();
        if self.postpones() {
            return false;
        }
        self.write_batch() && self.increment.as_ref().is_some_and(|t| t.reader.position() < end)
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
        let Some(increment) = &mut self.increment else { return false };
        let cut = increment.cuts.front().map_or(u64::MAX, |cut| cut.0);
        let until = cut.min(increment.ends_at);
        let taken = match increment.reader.read_until(BATCH, until) {
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
        let Some(increment) = &mut self.increment else { return false };
        let config = self.node.config.load();
        let (stamps, always) = (config.aof_timestamp_enabled, config.appendfsync == AppendFsync::Always);
        drop(config);
        let began = now_ns();
        if always {
            increment.reserve();
        }
        let written = increment.write(&taken, stamps);
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
        let era = self.increment.take().map(|increment| increment.era);
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
        let Some(increment) = &mut self.increment else { return };
        let Some((_, db, done)) = increment.cuts.pop_front() else { return };
        let next = if may {
            self.node.files.aof.folder.lock().begin_increment()
        } else {
            Err(io::Error::other("the increment before cannot be put on the disk"))
        };
        let result = next.map(|(name, file)| {
            tracing::info!("Creating AOF incr file {name} on background rewrite");
            self.node.files.aof.other_size.fetch_add(increment.size, Ordering::Relaxed);
            increment.release();
            (increment.file, increment.size, increment.select) = (Arc::new(file), 0, db);
            (increment.reserved, increment.unsynced, increment.stamp) = (0, false, 0);
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
        let Some(increment) = self.increment.as_ref().filter(|increment| increment.unsynced) else { return };
        let Some(patience) = self.group.patience() else { return };
        // It looks by itself: workers need not wake it.
        self.bell.eager.store(false, Ordering::Relaxed);
        let until = Instant::now() + patience;
        let complete = loop {
            if self.group.is_complete(increment.reader.units_ahead(BATCH)) {
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
        while self.increment.as_ref().is_some_and(|t| t.reader.position() < end) && self.write_batch() {}
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
        let Some(increment) = &mut self.increment else { return true };
        if increment.unsynced {
            let began = now_ns();
            let synced = increment.file.sync_data();
            let nanos = now_ns().wrapping_sub(began);
            self.node.note_event("aof-fsync-always", nanos);
            self.group.synced(Duration::from_nanos(nanos), || increment.reader.units_ahead(BATCH));
            if let Err(e) = synced {
                self.sync_failed(&e);
                return false;
            }
            increment.unsynced = false;
            self.last_sync = Instant::now();
        }
        let position = increment.reader.position();
        self.synced_to(position);
        true
    }

    /// Has the other thread put everything on the disk, once a second.
    fn sync_soon(&mut self) {
        let Some(increment) = &mut self.increment else { return };
        if self.syncer.pending || matches!(self.trouble, Trouble::Sync { .. }) {
            return;
        }
        let position = increment.reader.position();
        if !increment.unsynced {
            self.synced_to(position);
        } else if self.last_sync.elapsed() >= EVERY_SECOND {
            increment.unsynced = false;
            self.last_sync = Instant::now();
            self.syncer.begin(Arc::clone(&increment.file), position);
        }
    }

    /// Hears of the other thread's fsync.
    fn note_synced(&mut self) {
        if let Some(synced) = self.syncer.ended() {
            self.take_synced(synced);
        }
    }

    fn take_synced(&mut self, (file, position, result): Synced) {
        match (result, &self.increment) {
            // A file that is written no more: what became of it is known elsewhere.
            (_, increment) if increment.as_ref().is_none_or(|t| !Arc::ptr_eq(&t.file, &file)) => {}
            (Ok(()), _) => self.synced_to(position),
            (Err(e), _) => self.sync_failed(&e),
        }
    }

    fn synced_to(&mut self, position: u64) {
        let Some(increment) = &self.increment else { return };
        if increment.whole && self.node.shared.keyspace.log.synced().is_none_or(|synced| synced < position) {
            increment.reader.set_synced(position);
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
        if let Some(increment) = &mut self.increment {
            increment.unsynced = true;
        }
        self.refuse_writes(error);
        self.aof().scheduled.store(true, Ordering::Release);
    }

    /// Which replies wait for the disk.
    fn set_barrier(&mut self) {
        let Some(increment) = &self.increment else { return };
        let _policy = self.node.files.aof.barrier.lock();
        let always = self.policy() == Some(AppendFsync::Always);
        let position = increment.reader.position();
        let behind = self.node.shared.keyspace.log.end().saturating_sub(position);
        if behind > BACKLOG_MAX && !self.far_behind {
            tracing::warn!(
                "The append only file is {behind} bytes behind: replies to writes wait for the disk until it has caught up"
            );
        }
        self.far_behind = behind > BACKLOG_MAX || (self.far_behind && behind > BACKLOG_MAX / 2);
        if always && increment.whole && increment.unsynced {
            // An fsync has failed: what waits for one goes on waiting.
            return;
        }
        let waits = (always && increment.whole) || self.far_behind;
        increment.reader.set_barrier(waits.then_some(position));
    }

    /// What INFO says.
    fn show(&self) {
        let aof = self.aof();
        let (size, position) =
            self.increment.as_ref().map_or((0, None), |t| (t.size, Some(t.reader.position())));
        aof.increment_size.store(size, Ordering::Relaxed);
        let end = self.node.shared.keyspace.log.end();
        aof.behind.store(position.map_or(0, |p| end.saturating_sub(p)), Ordering::Relaxed);
        aof.pending_fsync.store(u64::from(self.syncer.is_busy()), Ordering::Relaxed);
    }
}
