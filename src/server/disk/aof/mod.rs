//! The append-only file: every change on the disk, in the folder that Redis 7 lays out.
//!
//! | file | concept |
//! |---|---|
//! | `folder` | the files and their manifest |
//! | `load` | reading them at the start |
//! | `writer` | **where the log is written and fsynced**: the thread |
//! | `increment` | the file that it writes |
//! | `syncer` | the thread that waits for the disk |
//! | `bell` | how the writer is woken |
//! | `group` | which writes share an fsync |
//! | `rewrite` | a new base from a snapshot |
//!
//! Source: Redis's documentation ("Redis persistence"), and what redis-server 7.0.15 does.

mod bell;
mod folder;
mod group;
mod increment;
mod load;
mod rewrite;
mod syncer;
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::choice::AppendFsync;
use crate::keyspace::Locked;
use crate::keyspace::log::Takes;
use crate::server::disk::file::DiskFile;
use crate::server::disk::rdb_file::{self, Form};
use crate::server::node::Node;
use crate::server::process::os_error::words;
use bell::Bell;
use folder::Folder;
use rewrite::BackOff;
use writer::Order;

/// What a node has of its append-only file.
#[derive(Debug)]
pub struct Aof {
    node: OnceLock<Weak<Node>>,
    bell: OnceLock<Arc<Bell>>,
    orders: Mutex<Vec<Order>>,
    /// Held while it is decided whether replies wait for the disk.
    barrier: Mutex<()>,
    folder: Mutex<Folder>,
    /// It is written, or will be once its first base is.
    on: AtomicBool,
    standing: Mutex<Standing>,
    /// The last write and the last fsync were good.
    pub write_ok: AtomicBool,
    /// Times that a write waited for an fsync in the background, since the start or CONFIG RESETSTAT.
    pub delayed_fsync: AtomicU64,
    /// 1 while an fsync runs in the background, otherwise 0.
    pub pending_fsync: AtomicU64,
    /// Bytes of the log that are not written yet.
    pub behind: AtomicU64,
    /// Bytes of the increment that is written, and of all other files.
    increment_size: AtomicU64,
    other_size: AtomicU64,
    /// Bytes after the last rewrite, or at the start: growth counts from there.
    pub rewrite_base_size: AtomicU64,
    /// A rewrite begins as soon as that is possible.
    pub scheduled: AtomicBool,
    /// The first rewrite after CONFIG SET appendonly is about to begin.
    starting: AtomicBool,
    /// Unix milliseconds when the rewrite under way began; 0 when none is.
    pub rewriting_since_ms: AtomicI64,
    /// Seconds that the last rewrite took; -1 before the first.
    pub last_rewrite_s: AtomicI64,
    /// The last rewrite was good, or there was none.
    pub rewrite_ok: AtomicBool,
    /// Rewrites that were begun, since the start or CONFIG RESETSTAT.
    pub rewrites: AtomicU64,
    /// Rewrites that failed since the last good one.
    pub failures: AtomicU64,
    /// DEBUG AOF-FLUSH-SLEEP: microseconds that pass before each write.
    pub flush_sleep_us: AtomicU64,
    back_off: Mutex<BackOff>,
}

/// What the files are worth. Rewrites and the writer learn here that what they do is of no use any more.
#[derive(Debug, Default)]
struct Standing {
    /// The files hold all data: there is a base.
    whole: bool,
    /// Rises whenever a rewrite under way loses its worth.
    era: u64,
}

impl Default for Aof {
    fn default() -> Self {
        Self {
            node: OnceLock::new(),
            bell: OnceLock::new(),
            orders: Mutex::default(),
            barrier: Mutex::default(),
            folder: Mutex::default(),
            on: AtomicBool::new(false),
            standing: Mutex::default(),
            write_ok: AtomicBool::new(true),
            delayed_fsync: AtomicU64::new(0),
            pending_fsync: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            increment_size: AtomicU64::new(0),
            other_size: AtomicU64::new(0),
            rewrite_base_size: AtomicU64::new(0),
            scheduled: AtomicBool::new(false),
            starting: AtomicBool::new(false),
            rewriting_since_ms: AtomicI64::new(0),
            last_rewrite_s: AtomicI64::new(-1),
            rewrite_ok: AtomicBool::new(true),
            rewrites: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            flush_sleep_us: AtomicU64::new(0),
            back_off: Mutex::default(),
        }
    }
}

impl Aof {
    /// Whether it is written, or will be once its first base is.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Whether the first base is still to come.
    pub fn is_beginning(&self) -> bool {
        self.is_on() && !self.standing.lock().whole
    }

    fn era(&self) -> u64 {
        self.standing.lock().era
    }

    /// The files are worth nothing any more, nor is a rewrite under way. True if they held all data before.
    fn lose(&self) -> bool {
        let mut standing = self.standing.lock();
        standing.era += 1;
        std::mem::take(&mut standing.whole)
    }

    /// A base that was begun in this era is in its place. False: another era has come, and it is of no use.
    fn complete(&self, era: u64) -> bool {
        let mut standing = self.standing.lock();
        let counts = standing.era == era && self.is_on();
        standing.whole |= counts;
        counts
    }

    /// Whether a rewrite is under way.
    pub fn is_rewriting(&self) -> bool {
        self.rewriting_since_ms.load(Ordering::Acquire) != 0
    }

    /// What INFO calls a rewrite in progress: who sets appendonly and then waits for the end of the rewrite must not
    /// find it not yet begun.
    pub fn is_rewrite_shown(&self) -> bool {
        self.starting.load(Ordering::Acquire) || self.is_rewriting()
    }

    /// Bytes of all files.
    pub fn current_size(&self) -> u64 {
        self.other_size.load(Ordering::Relaxed) + self.increment_size.load(Ordering::Relaxed)
    }

    fn growth_percent(&self) -> u64 {
        let base = self.rewrite_base_size.load(Ordering::Relaxed).max(1);
        (self.current_size() * 100 / base).saturating_sub(100)
    }

    fn order(&self, order: Order) {
        self.orders.lock().push(order);
        self.wake();
    }

    /// The data were replaced without a record: the files are worth nothing until a new base is there.
    pub fn data_replaced(&self) {
        if self.is_on() {
            self.lose();
            self.scheduled.store(true, Ordering::Release);
        }
    }

    /// Has the writer look at the configuration and at its orders.
    pub fn wake(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    fn waker(&self) -> Option<Waker> {
        self.bell.get().map(|bell| Arc::clone(bell).into())
    }
}

/// Reads the folder, and the data in it where they are wanted. The gate stays closed: no write may come before
/// somebody writes it down. False: other data files may be read. The error is for the log.
pub fn load_at_start(node: &Arc<Node>) -> Result<bool, String> {
    let config = node.config.load_full();
    let mut folder = Folder::open(&config)?;
    if !config.appendonly {
        *node.files.aof.folder.lock() = folder;
        return Ok(false);
    }
    folder.upgrade()?;
    let started = Instant::now();
    let keep_on = || !node.life.shutdown.begun.load(Ordering::Acquire);
    let loaded = load::load(node, &folder, &keep_on)?;
    *node.files.aof.folder.lock() = folder;
    if loaded && keep_on() {
        tracing::info!("DB loaded from append only file: {:.3} seconds", started.elapsed().as_secs_f64());
    }
    Ok(true)
}

/// Reads the files again; they are on the disk, and the gate is closed. The error is for the log.
pub fn load_again(node: &Arc<Node>) -> Result<(), String> {
    let folder = node.files.aof.folder.lock().clone();
    load::load(node, &folder, &|| true).map(drop)
}

/// Starts the writer, and begins to write where that is configured. No client is served yet.
pub fn start(node: &Arc<Node>) -> Result<(), String> {
    let aof = &node.files.aof;
    let bell =
        writer::start(node).map_err(|e| format!("cannot start the thread of the AOF: {}", words(&e)))?;
    // They are set once.
    let _ = (aof.bell.set(bell), aof.node.set(Arc::downgrade(node)));
    if !node.config.load().appendonly {
        return Ok(());
    }
    let file = open_files(node).map_err(|e| format!("The AOF cannot be opened: {}", words(&e)))?;
    let (base, increments) = aof.folder.lock().sizes();
    let size = file.size().unwrap_or(0);
    aof.other_size.store((base + increments).saturating_sub(size), Ordering::Relaxed);
    aof.increment_size.store(size, Ordering::Relaxed);
    aof.rewrite_base_size.store(base + increments, Ordering::Relaxed);
    let log = &node.shared.keyspace.log;
    let _locked = node.shared.keyspace.lock_all();
    let (offset, db) = log.position();
    let Some(waker) = aof.waker() else { return Ok(()) };
    let reader = log.register(Takes::Data, offset, waker);
    reader.set_synced(offset);
    if node.config.load().appendfsync == AppendFsync::Always {
        reader.set_barrier(Some(offset));
    }
    aof.on.store(true, Ordering::Release);
    let era = aof.era();
    aof.standing.lock().whole = true;
    aof.order(Order::Begin { reader, file, db, era, whole: true });
    Ok(())
}

/// The increment to go on with. Where there is nothing at all, the data become a base first.
fn open_files(node: &Arc<Node>) -> io::Result<DiskFile> {
    let config = node.config.load();
    let mut folder = node.files.aof.folder.lock();
    if folder.manifest.is_empty() {
        let rdb = config.aof_use_rdb_preamble;
        let form = if rdb { Form::AofBase } else { Form::Commands };
        let dump = rdb_file::begin_as(node, &node.shared.keyspace.lock_all(), form);
        let Some(dump) = dump else { return Err(io::Error::other("another snapshot is under way")) };
        let path = std::env::current_dir()?.join(format!("{}rewriteaof.aof", rdb_file::temporary_prefix()));
        let file = DiskFile::create(&path)?;
        dump.write(&file, config.rdbchecksum, (node.shared.memory.used)(), || Ok(()))?;
        file.sync_all()?;
        folder.replace_base(&path, rdb, false, false)?;
        if let Some(base) = &folder.manifest.base {
            tracing::info!("Creating AOF base file {} on server start", base.name);
        }
    }
    let file = folder.continue_increment()?;
    if !config.aof_disable_auto_gc {
        folder.delete_history();
    }
    Ok(file)
}

/// CONFIG SET appendonly. The error is for the log.
pub fn turn(node: &Node, on: bool) -> Result<(), String> {
    let aof = &node.files.aof;
    if on == aof.is_on() {
        return Ok(());
    }
    if !on {
        let folder = aof.folder.lock();
        aof.on.store(false, Ordering::Release);
        aof.scheduled.store(false, Ordering::Release);
        if !aof.lose() {
            folder.drop_temporary_increment();
        }
        aof.order(Order::End(node.shared.keyspace.log.end()));
        return Ok(());
    }
    let Some(node) = aof.node.get().and_then(Weak::upgrade) else {
        return Err("the node is starting".into());
    };
    let created = {
        let mut folder = aof.folder.lock();
        folder.follow(&node.config.load())?;
        folder.create_temporary_increment().inspect(|_| folder.drop_temporary_increment())
    };
    created.map_err(|e| format!("Can't open the append-only file: {}", words(&e)))?;
    // A rewrite that began before would miss what is written from now on.
    aof.lose();
    aof.on.store(true, Ordering::Release);
    // Whoever looks sees at once that it is to come; the timer may be the first to begin it.
    aof.starting.store(true, Ordering::Release);
    aof.scheduled.store(true, Ordering::Release);
    // It locks all shards, for which a worker must not sleep.
    let begun = thread::Builder::new().name("aof-start".into()).spawn(move || {
        if node.files.aof.is_on() && node.files.aof.scheduled.swap(false, Ordering::AcqRel) {
            rewrite::begin_first(&node);
        }
        node.files.aof.starting.store(false, Ordering::Release);
    });
    begun.map(drop).map_err(|e| {
        aof.on.store(false, Ordering::Release);
        aof.scheduled.store(false, Ordering::Release);
        aof.starting.store(false, Ordering::Release);
        format!("Can't start a thread: {}", words(&e))
    })
}

/// CONFIG SET appendfsync: from now on replies wait for the disk if that is asked for.
pub fn policy_changed(node: &Node) {
    let aof = &node.files.aof;
    let decided = aof.barrier.lock();
    if node.config.load().appendfsync == AppendFsync::Always {
        node.shared.keyspace.log.hold_for_disk();
    }
    drop(decided);
    aof.wake();
}

/// How BGREWRITEAOF begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewriting {
    /// It began.
    Started,
    /// It begins when the snapshot under way is through.
    Scheduled,
    /// One is under way.
    Running,
}

/// BGREWRITEAOF. All shards are locked.
pub fn rewrite(node: &Arc<Node>, locked: &Locked<'_>) -> Rewriting {
    if node.files.aof.is_rewriting() {
        Rewriting::Running
    } else if rewrite::begin(node, locked) {
        Rewriting::Started
    } else {
        node.files.aof.scheduled.store(true, Ordering::Release);
        Rewriting::Scheduled
    }
}

/// Ten times a second.
pub fn cron(node: &Arc<Node>) {
    rewrite::cron(node);
}

/// Writes what there is and puts it on the disk. The caller holds no lock. False: that failed.
pub fn flush(node: &Node) -> bool {
    if !node.files.aof.is_on() {
        return true;
    }
    let (done, outcome) = channel();
    node.files.aof.order(Order::Flush(done));
    outcome.recv().unwrap_or(false)
}

/// Ends a rewrite under way: the node ends.
pub fn give_up_rewrite(node: &Node) {
    if node.files.aof.is_rewriting() {
        tracing::warn!("There is a child rewriting the AOF. Killing it!");
        node.files.aof.standing.lock().era += 1;
    }
}
