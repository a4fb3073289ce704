//! Saving: RDB files from snapshots.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::base::time::UnixMs;
use crate::base::version;
use crate::command::gate;
use crate::config::Config;
use crate::keyspace::snapshot::{Encode, Walk};
use crate::keyspace::{DbIndex, Locked};
use crate::persist::aof;
use crate::persist::rdb::{self, Meta, Options, Preamble, ReplicationInfo, Writer};
use crate::repl::SavedPosition;
use crate::resp::write_command;
use crate::script::Libraries;
use crate::server::disk::file::DiskFile;
use crate::server::disk::replace::Replacement;
use crate::server::node::{Node, unix_ms};
use crate::server::process::affinity;
use crate::server::process::clock::now_ns;
use crate::server::process::os_error::words;

/// Bytes after which a save asks the disk to begin writing, so that the final fsync is short.
const SYNC_EVERY: u64 = 32 << 20;

/// The pause that a directive for tests asks for after the keys of this range of numbers: microseconds for each,
/// or, if it is negative, one microsecond after so many.
pub(super) fn delay(directive: i32, keys: Range<u64>) -> Duration {
    let each = u64::from(directive.unsigned_abs());
    Duration::from_micros(match directive {
        0.. => (keys.end - keys.start).saturating_mul(each),
        _ => keys.end / each - keys.start / each,
    })
}

/// What INFO and the cron know of saving.
#[derive(Debug)]
pub struct SaveState {
    /// Unix seconds of the last successful save, or of the start.
    pub last_save_s: AtomicI64,
    /// The same on the node's monotonic clock, in milliseconds: when the next one is due.
    saved_at_ms: AtomicU64,
    /// When the last attempt was, so that a failing disk is not tried ten times a second.
    tried_at_ms: AtomicU64,
    /// The last background save was good, or there was none.
    pub last_ok: AtomicBool,
    /// Seconds that the last background save took; -1 before the first.
    pub last_duration_s: AtomicI64,
    /// Unix milliseconds when the save under way began; 0 when none is.
    pub running_since_ms: AtomicI64,
    /// Saves that ended well, since the start or CONFIG RESETSTAT.
    pub saves: AtomicU64,
    /// Dumps begun so far.
    dumps: AtomicU64,
    /// The save under way is to be given up. Held while a file gets its final name.
    given_up: Mutex<bool>,
    /// BGSAVE SCHEDULE: begin at the next tick.
    pub scheduled: AtomicBool,
    /// Keys that the load at the start brought.
    pub loaded_keys: AtomicU64,
    /// Keys that the load at the start left out because their time was over.
    pub load_expired: AtomicU64,
    /// Keys of the snapshot under way, or of the last one.
    keys_total: AtomicU64,
    /// Those of [`keys_total`](Self::keys_total) that are encoded. Whoever takes the snapshot holds it, too.
    keys_done: ArcSwap<AtomicU64>,
    /// The load under way, or the last one.
    pub loading: LoadProgress,
}

/// How far a load under way is.
#[derive(Debug, Default)]
pub struct LoadProgress {
    /// Unix milliseconds.
    pub since_ms: AtomicI64,
    /// Bytes of the file; 0 for a stream whose length is not known.
    pub total: AtomicU64,
    /// Bytes read so far, of all files.
    pub done: AtomicU64,
    /// Bytes of memory that the writer of the data file used, if the file tells.
    pub used_memory: AtomicU64,
    /// Bytes of the files before this one.
    before: AtomicU64,
}

impl LoadProgress {
    pub(super) fn begin(&self, total: u64) {
        self.since_ms.store(unix_ms(), Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.used_memory.store(0, Ordering::Relaxed);
        self.before.store(0, Ordering::Relaxed);
    }

    /// The file that is read was read up to `offset`.
    pub(super) fn reached(&self, offset: u64) {
        self.done.store(self.before.load(Ordering::Relaxed) + offset, Ordering::Relaxed);
    }

    /// A file of so many bytes is read, and the next one comes.
    pub(super) fn next_file(&self, bytes: u64) {
        self.before.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl SaveState {
    /// Nothing saved and nothing under way; the start counts as a save.
    pub fn new(now: UnixMs) -> Self {
        Self {
            last_save_s: AtomicI64::new(now / 1000),
            last_ok: AtomicBool::new(true),
            last_duration_s: AtomicI64::new(-1),
            running_since_ms: AtomicI64::new(0),
            saved_at_ms: AtomicU64::new(0),
            tried_at_ms: AtomicU64::new(0),
            saves: AtomicU64::new(0),
            dumps: AtomicU64::new(0),
            given_up: Mutex::default(),
            scheduled: AtomicBool::new(false),
            loaded_keys: AtomicU64::new(0),
            load_expired: AtomicU64::new(0),
            keys_total: AtomicU64::new(0),
            keys_done: ArcSwap::default(),
            loading: LoadProgress::default(),
        }
    }

    /// Keys that are encoded, and all, of the snapshot under way; zeros when there is none.
    pub fn progress(&self) -> (u64, u64) {
        let done = self.keys_done.load_full();
        // Besides this one and our own there is that of who takes it.
        if Arc::strong_count(&done) <= 2 {
            return (0, 0);
        }
        (done.load(Ordering::Relaxed), self.keys_total.load(Ordering::Relaxed))
    }

    /// Whether a background save is under way.
    pub fn is_running(&self) -> bool {
        self.running_since_ms.load(Ordering::Acquire) != 0
    }
}

/// What file a dump is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A data file.
    Rdb,
    /// The base of an append-only file.
    AofBase,
    /// The same, as commands.
    Commands,
}

/// Everything at one point in time, on its way into a file or to replicas.
#[derive(Debug)]
pub struct Dump {
    form: Form,
    /// `None`: without keys.
    walk: Option<Walk>,
    /// Of the format: the lowest that knows everything in it.
    version: u32,
    libraries: Arc<Libraries>,
    /// Changes counted so far: what the save covers.
    dirty: u64,
    /// Names its temporary file: no other dump of this process has it.
    number: u64,
    replication: Option<SavedPosition>,
    /// Keys encoded so far.
    done: Arc<AtomicU64>,
    /// `rdb-key-save-delay`
    pause: i32,
}

/// Begins a dump of everything. All shards are locked. `None` while as many as may be are being written.
pub fn begin(node: &Node, locked: &Locked<'_>) -> Option<Dump> {
    begin_as(node, locked, Form::Rdb)
}

/// As [`begin`], for another form.
pub fn begin_as(node: &Node, locked: &Locked<'_>, form: Form) -> Option<Dump> {
    let config = node.config.load();
    let ks = &node.shared.keyspace;
    let done = Arc::<AtomicU64>::default();
    let walk = ks.begin_snapshot(locked, encoder(node, &config, form, &done))?;
    node.files.save.keys_done.store(Arc::clone(&done));
    node.files.save.keys_total.store(walk.keys() as u64, Ordering::Relaxed);
    let has_times = (0..ks.databases() as DbIndex).any(|db| ks.timed_hashes(db) > 0);
    Some(Dump {
        form,
        walk: Some(walk),
        version: if has_times { rdb::VERSION_WITH_TIMES } else { rdb::VERSION_WRITTEN },
        dirty: ks.stats.dirty.load(Ordering::Relaxed),
        done,
        pause: config.rdb_key_save_delay,
        ..without_keys(node)
    })
}

/// How an entry is written in this form, and counted.
fn encoder(node: &Node, config: &Config, form: Form, done: &Arc<AtomicU64>) -> Arc<Encode> {
    let (options, policy) = (Options { compress: config.rdbcompression }, config.maxmemory_policy);
    let ks = Arc::clone(&node.shared.keyspace);
    let done = Arc::clone(done);
    if form == Form::Commands {
        return Arc::new(move |entry, part, out: &mut Vec<u8>| {
            let next = aof::encode::encode_part(out, entry.key(), entry.value(), entry.expire(), part);
            if next.is_none() {
                done.fetch_add(1, Ordering::Relaxed);
            }
            next
        });
    }
    Arc::new(move |entry, part, out: &mut Vec<u8>| {
        let idle_s = policy.is_lru().then(|| u64::from(ks.usage.idle_seconds(entry.access())));
        let freq = policy.is_lfu().then(|| ks.usage.frequency(entry.access()));
        let meta = Meta { expire: entry.expire(), idle_s, freq };
        let next = rdb::encode_part(out, entry.key(), entry.value(), &meta, options, part);
        if next.is_none() {
            done.fetch_add(1, Ordering::Relaxed);
        }
        next
    })
}

/// Begins a dump of everything but the keys. All shards are locked.
pub fn without_keys(node: &Node) -> Dump {
    Dump {
        form: Form::Rdb,
        walk: None,
        version: rdb::VERSION_WRITTEN,
        libraries: node.shared.scripts.libraries(),
        dirty: 0,
        number: node.files.save.dumps.fetch_add(1, Ordering::Relaxed),
        replication: node.peers.replication.saved_position(node),
        done: Arc::default(),
        pause: 0,
    }
}

impl Dump {
    /// A number that no other dump of this process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Writes the dump to `sink`, on the calling thread, and returns the sink.
    /// It ends early with the error of `go_on`, which is asked now and then.
    pub fn write<W: Write>(
        mut self,
        sink: W,
        checksum: bool,
        used_memory: u64,
        go_on: impl Fn() -> io::Result<()>,
    ) -> io::Result<W> {
        if self.form == Form::Commands {
            return self.write_commands(sink, go_on);
        }
        let mut writer = Writer::new(sink, checksum);
        writer.preamble(&Preamble {
            version: self.version,
            redis_version: version::REDIS,
            created: unix_ms(),
            used_memory,
            replication: self
                .replication
                .as_ref()
                .filter(|_| self.form == Form::Rdb)
                .map(|at| ReplicationInfo { stream_db: at.db.into(), id: at.id.as_str(), offset: at.offset }),
            aof_base: self.form == Form::AofBase,
        })?;
        for library in self.libraries.iter() {
            writer.function(&library.code)?;
        }
        let Some(mut walk) = self.walk.take() else { return writer.finish() };
        let sizes: Vec<_> = walk.databases().to_vec();
        let (mut block, mut current, mut before) = (Vec::with_capacity(128 << 10), None, 0);
        while let Some(db) = walk.next_chunk(&mut block) {
            go_on()?;
            if current != Some(db) {
                let (keys, expires) = sizes.iter().find(|s| s.0 == db).map_or((0, 0), |s| (s.1, s.2));
                writer.database(u32::from(db), keys as u64, expires as u64)?;
                current = Some(db);
            }
            writer.entries(&block)?;
            block.clear();
            before = self.rest(before);
        }
        writer.finish()
    }

    /// Keeps the pause that a directive for tests asks for since `before` keys were done; returns how many are now.
    fn rest(&self, before: u64) -> u64 {
        let done = self.done.load(Ordering::Relaxed);
        if self.pause != 0 {
            std::thread::sleep(delay(self.pause, before..done));
        }
        done
    }

    fn write_commands<W: Write>(mut self, mut sink: W, go_on: impl Fn() -> io::Result<()>) -> io::Result<W> {
        for library in self.libraries.iter() {
            let mut load = Vec::new();
            write_command(&mut load, &[&b"FUNCTION"[..], b"LOAD", &library.code[..]]);
            sink.write_all(&load)?;
        }
        let Some(mut walk) = self.walk.take() else { return Ok(sink) };
        let (mut block, mut current, mut before) = (Vec::with_capacity(128 << 10), None, 0);
        while let Some(db) = walk.next_chunk(&mut block) {
            go_on()?;
            if current.replace(db) != Some(db) {
                let mut select = Vec::new();
                write_command(&mut select, &[&b"SELECT"[..], db.to_string().as_bytes()]);
                sink.write_all(&select)?;
            }
            sink.write_all(&block)?;
            block.clear();
            before = self.rest(before);
        }
        Ok(sink)
    }
}

/// A file that asks the disk to begin writing now and then.
pub(super) struct PacedFile<'a> {
    file: &'a DiskFile,
    since_sync: u64,
    /// Bytes after which it asks; `u64::MAX`: never.
    every: u64,
}

impl<'a> PacedFile<'a> {
    /// `paced`: the directive that asks for it.
    pub(super) fn new(file: &'a DiskFile, paced: bool) -> Self {
        Self { file, since_sync: 0, every: if paced { SYNC_EVERY } else { u64::MAX } }
    }
}

impl Write for PacedFile<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut file = self.file;
        let n = file.write(buf)?;
        self.since_sync += n as u64;
        if self.since_sync >= self.every {
            self.since_sync = 0;
            self.file.sync_data()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the data file: to a temporary file beside it, synced, then renamed. `go_on` is asked before each of
/// these steps; it holds what it returns until the file has its name.
pub fn write_file<G>(
    node: &Node,
    dump: Dump,
    config: &Config,
    go_on: impl Fn() -> io::Result<G>,
) -> io::Result<()> {
    let new = Replacement::create(&path(config), format!("{}{}.rdb", temporary_prefix(), dump.number))?;
    match write_and_sync(dump, new.file(), config, (node.shared.memory.used)(), go_on) {
        Ok(_guard) => new.finish(),
        Err(e) => {
            let began = now_ns();
            drop(new);
            if e.kind() == GIVEN_UP {
                node.note_event("rdb-unlink-temp-file", now_ns().wrapping_sub(began));
            }
            Err(e)
        }
    }
}

fn write_and_sync<G>(
    dump: Dump,
    file: &DiskFile,
    config: &Config,
    used_memory: u64,
    go_on: impl Fn() -> io::Result<G>,
) -> io::Result<G> {
    let paced = PacedFile::new(file, config.rdb_save_incremental_fsync);
    dump.write(paced, config.rdbchecksum, used_memory, || go_on().map(drop))?;
    file.sync_all()?;
    go_on()
}

/// How the names of this process's temporary files begin.
pub fn temporary_prefix() -> String {
    format!("temp-{}-", std::process::id())
}

/// Removes what a save leaves behind that the end of the process cuts short.
pub fn remove_unfinished() {
    for file in fs::read_dir(".").into_iter().flatten().flatten() {
        if file.file_name().to_str().is_some_and(|name| name.starts_with(&temporary_prefix())) {
            // It may be finished, and gone, at this moment.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Where the data file is, relative to the working directory, which `dir` has set.
pub fn path(config: &Config) -> PathBuf {
    PathBuf::from(&config.dbfilename)
}

/// Saves on the calling thread, which holds no shard lock. False when it failed or one is under way.
pub fn save_now(node: &Node) -> bool {
    let locked = node.shared.keyspace.lock_all();
    let Some(dump) = begin_save(node, &locked) else { return false };
    drop(locked);
    run_save(node, dump).is_ok()
}

/// Begins a dump for the data file, of which one is written at a time.
fn begin_save(node: &Node, locked: &Locked<'_>) -> Option<Dump> {
    let state = &node.files.save;
    if state.is_running() {
        return None;
    }
    let dump = begin(node, locked)?;
    *state.given_up.lock() = false;
    state.running_since_ms.store(unix_ms(), Ordering::Release);
    Some(dump)
}

/// Starts BGSAVE. All shards are locked. False when a save is under way.
pub fn save_in_background(node: &Arc<Node>, locked: &Locked<'_>) -> bool {
    let started = save_aside(node, locked, |_, result| match result {
        Ok(()) => tracing::info!("Background saving terminated with success"),
        Err(e) if e.kind() == GIVEN_UP => tracing::warn!("Background saving terminated: {e}"),
        Err(_) => tracing::warn!("Background saving error"),
    });
    if started {
        tracing::info!("Background saving started by pid {}", std::process::id());
    }
    started
}

/// Saves on a thread of its own, and calls `then` there with what came of it. All shards are locked. False when a save
/// is under way.
pub fn save_aside(
    node: &Arc<Node>,
    locked: &Locked<'_>,
    then: impl FnOnce(&Node, io::Result<()>) + Send + 'static,
) -> bool {
    let Some(dump) = begin_save(node, locked) else { return false };
    let for_thread = Arc::clone(node);
    let started = std::thread::Builder::new().name("save".into()).spawn(move || {
        affinity::bind_or_warn("bgsave-cpulist", &for_thread.config.load().bgsave_cpulist);
        then(&for_thread, run_save(&for_thread, dump));
    });
    match started {
        Ok(_) => true,
        Err(e) => {
            tracing::warn!("Can't save in background: {}", words(&e));
            node.files.save.running_since_ms.store(0, Ordering::Release);
            node.files.save.last_ok.store(false, Ordering::Release);
            false
        }
    }
}

/// How the error of a save that was given up is told from one of the disk.
const GIVEN_UP: io::ErrorKind = io::ErrorKind::Interrupted;

/// Saves as SAVE and BGSAVE do, unless the save is given up.
fn run_save(node: &Node, dump: Dump) -> io::Result<()> {
    let state = &node.files.save;
    let started = Instant::now();
    state.tried_at_ms.store(node.mono_ms(), Ordering::Relaxed);
    let result = save_to_file(node, dump, || {
        let given_up = state.given_up.lock();
        if *given_up { Err(io::Error::new(GIVEN_UP, "it was given up")) } else { Ok(given_up) }
    });
    state.last_duration_s.store(started.elapsed().as_secs() as i64, Ordering::Relaxed);
    state.running_since_ms.store(0, Ordering::Release);
    result
}

/// Writes the data file, and notes how that ended. `go_on`: see [`write_file`].
fn save_to_file<G>(node: &Node, dump: Dump, go_on: impl Fn() -> io::Result<G>) -> io::Result<()> {
    let (config, state, dirty) = (node.config.load_full(), &node.files.save, dump.dirty);
    let result = write_file(node, dump, &config, go_on);
    match &result {
        Ok(()) => {
            tracing::info!("DB saved on disk");
            state.last_save_s.store(unix_ms() / 1000, Ordering::Release);
            state.saved_at_ms.store(node.mono_ms(), Ordering::Relaxed);
            state.saves.fetch_add(1, Ordering::Relaxed);
            node.shared.keyspace.stats.dirty.fetch_sub(dirty, Ordering::Relaxed);
        }
        Err(e) if e.kind() == GIVEN_UP => return result,
        Err(e) => {
            tracing::warn!("Write error saving DB on disk ({}): {}", path(&config).display(), words(e));
        }
    }
    state.last_ok.store(result.is_ok(), Ordering::Release);
    note_failure(node);
    result
}

/// Ends a save under way: the node ends.
pub fn give_up_save(node: &Node) {
    if node.files.save.is_running() {
        tracing::warn!("There is a child saving an .rdb. Killing it!");
        *node.files.save.given_up.lock() = true;
    }
}

/// FLUSHALL has emptied everything; all shards are locked. A save under way would bring back what is gone, so it
/// is given up; and where saves are configured, the file shows at once that there is nothing.
pub fn after_flush(node: &Node) {
    if node.files.save.is_running() {
        *node.files.save.given_up.lock() = true;
    }
    if !node.config.load().save.0.is_empty() {
        let dirty = node.shared.keyspace.stats.dirty.load(Ordering::Relaxed);
        // What went wrong is noted already; the flush has happened all the same.
        let _ = save_to_file(node, Dump { dirty, ..without_keys(node) }, || Ok(()));
    }
}

/// Refuses writes after a failed save when `stop-writes-on-bgsave-error` says so and saving is configured.
pub fn note_failure(node: &Node) {
    let config = node.config.load();
    let refuse = config.stop_writes_on_bgsave_error
        && !config.save.0.is_empty()
        && !node.files.save.last_ok.load(Ordering::Acquire);
    node.shared.set_gate(gate::SAVE_FAILED, refuse);
}

/// Ten times a second: begins the saves that save points and BGSAVE SCHEDULE ask for.
pub fn cron(node: &Arc<Node>) {
    let (config, state) = (node.config.load_full(), &node.files.save);
    let loading = node.shared.gate.load(Ordering::Acquire) & gate::LOADING != 0;
    if loading || state.is_running() {
        return;
    }
    let since_s = |at: &AtomicU64| node.mono_ms().saturating_sub(at.load(Ordering::Relaxed)) / 1000;
    let dirty = node.shared.keyspace.stats.dirty.load(Ordering::Relaxed);
    let due = config.save.0.iter().find(|p| dirty >= p.changes && since_s(&state.saved_at_ms) > p.seconds);
    let may_retry = state.last_ok.load(Ordering::Acquire) || since_s(&state.tried_at_ms) > 5;
    if let Some(point) = due.filter(|_| may_retry) {
        tracing::info!("{} changes in {} seconds. Saving...", point.changes, point.seconds);
    } else if !state.scheduled.swap(false, Ordering::AcqRel) {
        return;
    }
    state.scheduled.store(false, Ordering::Release);
    save_in_background(node, &node.shared.keyspace.lock_all());
}
