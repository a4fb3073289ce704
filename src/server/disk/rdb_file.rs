//! Saving and loading: RDB files from snapshots, and back.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::time::UnixMs;
use crate::base::version;
use crate::command::gate;
use crate::config::Config;
use crate::keyspace::db::Expiring;
use crate::keyspace::lazy::Cause;
use crate::keyspace::snapshot::{Encode, Walk};
use crate::keyspace::{Db, Effects, Locked, event};
use crate::persist::aof;
use crate::persist::rdb::{self, Meta, Options, Preamble, Reader, Record, ReplicationInfo, Writer};
use crate::repl::ReplId;
use crate::resp::request::write_command;
use crate::script::Libraries;
use crate::server::commands::scripting;
use crate::server::control::replication::SavedPosition;
use crate::server::disk::file::DiskFile;
use crate::server::disk::replace::Replacement;
use crate::server::node::{Node, unix_ms};
use crate::server::process::os_error::words;

/// Bytes after which a save asks the disk to begin writing, so that the final fsync is short.
const SYNC_EVERY: u64 = 32 << 20;

/// The pause that a directive for tests asks for after the keys of this range of numbers: microseconds for each,
/// or, if it is negative, one microsecond after so many.
fn delay(directive: i32, keys: Range<u64>) -> Duration {
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
    /// The last background save was good, or there was none.
    pub last_ok: AtomicBool,
    /// Seconds that the last background save took; -1 before the first.
    pub last_duration_s: AtomicI64,
    /// Unix milliseconds when the save under way began; 0 when none is.
    pub running_since_ms: AtomicI64,
    /// Unix seconds of the last attempt, so that a failing disk is not tried ten times a second.
    pub last_try_s: AtomicI64,
    /// Saves that ended well, since the start or CONFIG RESETSTAT.
    pub saves: AtomicU64,
    /// Dumps begun so far.
    dumps: AtomicU64,
    /// The save under way is to be given up. Held while a file gets its final name.
    given_up: Mutex<bool>,
    /// BGSAVE SCHEDULE: begin when the snapshot under way is through.
    pub scheduled: AtomicBool,
    /// Keys that the load at the start brought.
    pub loaded_keys: AtomicU64,
    /// Keys that the load at the start left out because their time was over.
    pub load_expired: AtomicU64,
    /// Keys of the snapshot under way, or of the last one.
    pub keys_total: AtomicU64,
    /// Those of [`keys_total`](Self::keys_total) that are encoded.
    pub keys_done: Arc<AtomicU64>,
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
    /// Bytes of the files before this one.
    before: AtomicU64,
}

impl LoadProgress {
    pub(super) fn begin(&self, total: u64) {
        self.since_ms.store(unix_ms(), Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
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
            last_try_s: AtomicI64::new(0),
            saves: AtomicU64::new(0),
            dumps: AtomicU64::new(0),
            given_up: Mutex::default(),
            scheduled: AtomicBool::new(false),
            loaded_keys: AtomicU64::new(0),
            load_expired: AtomicU64::new(0),
            keys_total: AtomicU64::new(0),
            keys_done: Arc::default(),
            loading: LoadProgress::default(),
        }
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

/// Begins a dump of everything. All shards are locked. `None` while another one is being written.
pub fn begin(node: &Node, locked: &Locked<'_>) -> Option<Dump> {
    begin_as(node, locked, Form::Rdb)
}

/// As [`begin`], for another form.
pub fn begin_as(node: &Node, locked: &Locked<'_>, form: Form) -> Option<Dump> {
    let config = node.config.load();
    let ks = &node.shared.keyspace;
    let walk = ks.begin_snapshot(locked, encoder(node, &config, form))?;
    node.save.keys_done.store(0, Ordering::Relaxed);
    node.save.keys_total.store(walk.keys() as u64, Ordering::Relaxed);
    Some(Dump {
        form,
        walk: Some(walk),
        dirty: ks.stats.dirty.load(Ordering::Relaxed),
        pause: config.rdb_key_save_delay,
        ..without_keys(node)
    })
}

/// How an entry is written in this form.
fn encoder(node: &Node, config: &Config, form: Form) -> Arc<Encode> {
    let (options, policy) = (Options { compress: config.rdbcompression }, config.maxmemory_policy);
    let ks = Arc::clone(&node.shared.keyspace);
    let done = Arc::clone(&node.save.keys_done);
    if form == Form::Commands {
        return Arc::new(move |entry, out: &mut Vec<u8>| {
            done.fetch_add(1, Ordering::Relaxed);
            aof::encode::encode_entry(out, entry.key(), entry.value(), entry.expire());
        });
    }
    Arc::new(move |entry, out: &mut Vec<u8>| {
        done.fetch_add(1, Ordering::Relaxed);
        let idle_s = policy.is_lru().then(|| u64::from(ks.usage.idle_seconds(entry.access())));
        let freq = policy.is_lfu().then(|| ks.usage.frequency(entry.access()));
        let meta = Meta { expire: entry.expire(), idle_s, freq };
        rdb::encode_entry(out, entry.key(), entry.value(), &meta, options);
    })
}

/// Begins a dump of everything but the keys. All shards are locked.
pub fn without_keys(node: &Node) -> Dump {
    Dump {
        form: Form::Rdb,
        walk: None,
        libraries: node.shared.scripts.libraries(),
        dirty: 0,
        number: node.save.dumps.fetch_add(1, Ordering::Relaxed),
        replication: node.replication.saved_position(node),
        done: Arc::clone(&node.save.keys_done),
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

/// Writes a dump to `path`: to a temporary file beside it, synced, then renamed. `go_on` is asked before each of
/// these steps; it holds what it returns until the file has its name.
pub fn write_file<G>(
    dump: Dump,
    path: &Path,
    config: &Config,
    used_memory: u64,
    go_on: impl Fn() -> io::Result<G>,
) -> io::Result<()> {
    let new = Replacement::create(path, format!("{}{}.rdb", temporary_prefix(), dump.number))?;
    let file = PacedFile::new(new.file(), config.rdb_save_incremental_fsync);
    dump.write(file, config.rdbchecksum, used_memory, || go_on().map(drop))?;
    new.file().sync_all()?;
    let _guard = go_on()?;
    new.finish()
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
    let dump = begin(node, &node.shared.keyspace.lock_all());
    let Some(dump) = dump else { return false };
    note_begin(&node.save);
    run_save(node, dump).is_ok()
}

fn note_begin(state: &SaveState) {
    *state.given_up.lock() = false;
    state.running_since_ms.store(unix_ms(), Ordering::Release);
}

/// Starts a save on a thread of its own. All shards are locked. False when one is under way.
pub fn save_in_background(node: &Arc<Node>, locked: &Locked<'_>) -> bool {
    let Some(dump) = begin(node, locked) else { return false };
    note_begin(&node.save);
    let for_thread = Arc::clone(node);
    let started =
        std::thread::Builder::new().name("save".into()).spawn(move || match run_save(&for_thread, dump) {
            Ok(()) => tracing::info!("Background saving terminated with success"),
            Err(e) if e.kind() == GIVEN_UP => tracing::warn!("Background saving terminated: {e}"),
            Err(_) => tracing::warn!("Background saving error"),
        });
    match started {
        Ok(_) => {
            tracing::info!("Background saving started by pid {}", std::process::id());
            true
        }
        Err(e) => {
            tracing::warn!("Can't save in background: {}", words(&e));
            node.save.running_since_ms.store(0, Ordering::Release);
            node.save.last_ok.store(false, Ordering::Release);
            false
        }
    }
}

/// How the error of a save that was given up is told from one of the disk.
const GIVEN_UP: io::ErrorKind = io::ErrorKind::Interrupted;

/// Saves as SAVE and BGSAVE do, unless the save is given up.
fn run_save(node: &Node, dump: Dump) -> io::Result<()> {
    let state = &node.save;
    let started = Instant::now();
    state.last_try_s.store(unix_ms() / 1000, Ordering::Relaxed);
    let result = save_to_file(node, dump, || {
        let given_up = state.given_up.lock();
        if *given_up { Err(io::Error::new(GIVEN_UP, "the data were flushed")) } else { Ok(given_up) }
    });
    state.last_duration_s.store(started.elapsed().as_secs() as i64, Ordering::Relaxed);
    state.running_since_ms.store(0, Ordering::Release);
    result
}

/// Writes the data file, and notes how that ended. `go_on`: see [`write_file`].
fn save_to_file<G>(node: &Node, dump: Dump, go_on: impl Fn() -> io::Result<G>) -> io::Result<()> {
    let (config, state, dirty) = (node.config.load_full(), &node.save, dump.dirty);
    let used = (node.shared.memory.used)();
    let result = write_file(dump, &path(&config), &config, used, go_on);
    match &result {
        Ok(()) => {
            tracing::info!("DB saved on disk");
            state.last_save_s.store(unix_ms() / 1000, Ordering::Release);
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

/// FLUSHALL has emptied everything; all shards are locked. A save under way would bring back what is gone, so it
/// is given up; and where saves are configured, the file shows at once that there is nothing.
pub fn after_flush(node: &Node) {
    if node.save.is_running() {
        *node.save.given_up.lock() = true;
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
        && !node.save.last_ok.load(Ordering::Acquire);
    node.shared.set_gate(gate::SAVE_FAILED, refuse);
}

/// Ten times a second: begins the saves that save points and BGSAVE SCHEDULE ask for.
pub fn cron(node: &Arc<Node>) {
    let (config, state) = (node.config.load_full(), &node.save);
    let loading = node.shared.gate.load(Ordering::Acquire) & gate::LOADING != 0;
    if loading || state.is_running() || node.shared.keyspace.is_snapshot_running() {
        return;
    }
    let now_s = unix_ms() / 1000;
    let dirty = node.shared.keyspace.stats.dirty.load(Ordering::Relaxed);
    let since_save = (now_s - state.last_save_s.load(Ordering::Acquire)).max(0) as u64;
    let since_try = now_s - state.last_try_s.load(Ordering::Relaxed);
    let due = config.save.0.iter().find(|p| dirty >= p.changes && since_save > p.seconds);
    let may_retry = state.last_ok.load(Ordering::Acquire) || since_try > 5;
    if let Some(point) = due.filter(|_| may_retry) {
        tracing::info!("{} changes in {} seconds. Saving...", point.changes, point.seconds);
    } else if !state.scheduled.swap(false, Ordering::AcqRel) {
        return;
    }
    state.scheduled.store(false, Ordering::Release);
    save_in_background(node, &node.shared.keyspace.lock_all());
}

/// How many keys are loaded between two looks at whether to go on.
const PROGRESS_KEYS: u64 = 1024;

/// What a file brought besides its keys.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Keys that are there now because of it.
    pub keys: u64,
    /// Keys left out because their time was over.
    pub expired: u64,
    /// What replicas that go on from `replication` must be told of the expired ones. Empty where the
    /// file says nothing of a stream.
    pub deletions: Effects,
    /// Where the writer's stream was.
    pub replication: Option<SavedPosition>,
}

/// Reads RDB into the keyspace. The caller holds no lock and has set the gate to LOADING.
///
/// On a primary, keys whose time has come are left out. It ends early, with a part of the data, once
/// `keep_on` is false. `total`: bytes of the input, if they are known.
pub fn load<R: Read>(
    node: &Node,
    input: R,
    total: Option<u64>,
    keep_on: &dyn Fn() -> bool,
) -> Result<Loaded, rdb::Error> {
    let mut reader = open(node, input)?;
    node.save.loading.begin(total.unwrap_or(0));
    load_records(node, &mut reader, false, keep_on)
}

/// Reads the header.
pub(super) fn open<R: Read>(node: &Node, input: R) -> Result<Reader<R>, rdb::Error> {
    let limits = node.shared.limits.load();
    let verify = node.config.load().rdbchecksum && limits.verify_checksums;
    Reader::with_checksum(input, limits.as_ref().clone(), verify)
}

/// As [`load`], up to the end mark. `keep_dead`: commands follow that count on keys whose time has come.
pub(super) fn load_records<R: Read>(
    node: &Node,
    reader: &mut Reader<R>,
    keep_dead: bool,
    keep_on: &dyn Fn() -> bool,
) -> Result<Loaded, rdb::Error> {
    let ks = &node.shared.keyspace;
    let pause = node.config.load().key_load_delay;
    let (mut loaded, mut effects, mut functions) = (Loaded::default(), Effects::default(), Vec::new());
    let (mut id, mut offset, mut stream_db) = (None, None, 0);
    let is_replica = node.shared.is_replica.load(Ordering::Acquire);
    let clustered = node.config.load().cluster_enabled;
    let now = unix_ms();
    while let Some(record) = reader.next().transpose()? {
        match record {
            Record::Aux { name, value } => {
                let value = String::from_utf8_lossy(&value).into_owned();
                match name.as_slice() {
                    b"repl-id" => id = ReplId::parse(value.as_bytes()),
                    b"repl-stream-db" => stream_db = value.parse().unwrap_or(0),
                    b"repl-offset" => offset = value.parse().ok(),
                    _ => {}
                }
            }
            Record::Entry(entry) => {
                // A node of a cluster learns its role later. With a history to go on from, expiry finds
                // what is dead, and tells replicas.
                let may_drop = !keep_dead && !is_replica && (!clustered || id.is_none());
                if may_drop && entry.expire.is_some_and(|at| at < now) {
                    loaded.expired += 1;
                    // The file tells of its stream before it tells of keys.
                    if let (Ok(index), true) = (u16::try_from(entry.db), id.is_some() && offset.is_some()) {
                        loaded.deletions.log_wanted = true;
                        loaded.deletions.record(index, &[ks.lazy.command(Cause::Expiry), &entry.key]);
                    }
                    continue;
                }
                let Ok(index) = u16::try_from(entry.db) else { continue };
                if usize::from(index) >= ks.databases() {
                    tracing::warn!(
                        "FATAL: Data file was created with a Redis server configured to handle more than {} databases. Exiting",
                        ks.databases()
                    );
                    return Err(reader_error(
                        reader,
                        "a database that is configured here",
                        "there are fewer",
                    ));
                }
                let mut locked = ks.lock_slot(ks.hashed(&entry.key).slot);
                let mut db = Db::new(&mut locked, index, now, Expiring::Ignore, &mut effects);
                db.insert(&entry.key, entry.value, entry.expire);
                db.set_usage(&entry.key, entry.idle_s, entry.freq);
                db.changed(&entry.key, event::LOADED);
                loaded.keys += 1;
                if pause != 0 {
                    std::thread::sleep(delay(pause, loaded.keys - 1..loaded.keys));
                }
                if loaded.keys % PROGRESS_KEYS == 0 {
                    node.save.loading.reached(reader.offset());
                    node.sleep_along();
                    if !keep_on() {
                        break;
                    }
                }
            }
            Record::Function(code) => functions.push(code),
            Record::ModuleAux { module } => {
                tracing::warn!("Data of the module {module} are left out: this server has no modules");
            }
            _ => {}
        }
    }
    if let Err(text) = scripting::load_all(&node.shared.scripts, &functions) {
        tracing::warn!("A function library cannot be loaded: {text}");
        return Err(reader_error(reader, "a function library", "see the log"));
    }
    if reader.empty_keys_skipped() > 0 {
        tracing::warn!("{} keys with an empty value are left out", reader.empty_keys_skipped());
    }
    loaded.replication = id.zip(offset).map(|(id, offset)| SavedPosition { id, offset, db: stream_db });
    Ok(loaded)
}

fn reader_error<R>(_reader: &Reader<R>, expected: &'static str, why: &'static str) -> rdb::Error {
    rdb::Error { offset: 0, key: None, problem: rdb::Problem::Malformed { expected, why } }
}

/// Loads the data file at the start; the gate stays closed. A file that is not there is an empty keyspace; so is
/// one that is given up because the node is to end.
pub fn load_at_start(node: &Node) -> Result<Option<Loaded>, String> {
    let path = path(&node.config.load());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(format!("Fatal error loading the DB {}: {}. Exiting.", path.display(), words(&e)));
        }
    };
    let started = Instant::now();
    let total = file.metadata().ok().map(|m| m.len());
    let result = load(node, file, total, &|| !node.shutdown.begun.load(Ordering::Acquire));
    if node.shutdown.begun.load(Ordering::Acquire) {
        // It stays closed: a part of the data is not to be seen, nor saved.
        return Ok(None);
    }
    match result {
        Ok(loaded) => {
            node.save.loaded_keys.store(loaded.keys, Ordering::Relaxed);
            node.save.load_expired.store(loaded.expired, Ordering::Relaxed);
            tracing::info!(
                "Done loading RDB, keys loaded: {}, keys expired: {}.",
                loaded.keys,
                loaded.expired
            );
            tracing::info!("DB loaded from disk: {:.3} seconds", started.elapsed().as_secs_f64());
            Ok(Some(loaded))
        }
        Err(e) => Err(format!("Fatal error loading the DB {}: {e}. Exiting.", path.display())),
    }
}
