//! Loading: one thread cuts the file into pieces, and all turn them into keys.

use std::fs::File;
use std::io::{self, Read};
use std::ops;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use parking_lot::Mutex;

use crate::base::num::parse_i64;
use crate::base::time::UnixMs;
use crate::exec::libraries;
use crate::keyspace::db::Expiring;
use crate::keyspace::lazy::Cause;
use crate::keyspace::{Db, DbIndex, Effects, event};
use crate::persist::rdb::{self, Entry, Fragment, Piece, Problem, Range, Reader, Record};
use crate::repl::{ReplId, SavedPosition};
use crate::server::disk::rdb_file::{self, delay};
use crate::server::node::tuning;
use crate::server::node::{Node, unix_ms};
use crate::server::process::crash;
use crate::server::process::os_error::words;
use crate::value::Limits;

/// Bytes of a piece.
const PIECE: u64 = 64 << 10;

/// What data are loaded from.
pub trait Input: Read {
    /// The file that it is, read from its beginning; `None` if what was read once is gone.
    fn file(&self) -> Option<&File>;
}

impl Input for &File {
    fn file(&self) -> Option<&File> {
        self.metadata().is_ok_and(|m| m.is_file()).then_some(*self)
    }
}

impl Input for File {
    fn file(&self) -> Option<&File> {
        self.metadata().is_ok_and(|m| m.is_file()).then_some(self)
    }
}

/// A part of a file.
struct Part<'a> {
    file: &'a File,
    at: u64,
    to: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(usize::try_from(self.to - self.at).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut out[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

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
pub fn load<R: Input>(
    node: &Node,
    input: R,
    total: Option<u64>,
    keep_on: &dyn Fn() -> bool,
) -> Result<Loaded, rdb::Error> {
    let mut reader = open(node, input)?;
    node.files.save.loading.begin(total.unwrap_or(0));
    load_records(node, &mut reader, false, keep_on)
}

/// What becomes of a key of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    /// The file's takes its place.
    Replace,
    /// There can be none but by damage: it stands in the file twice.
    Damage,
    /// The server ends: whoever loads is wrong about what there is.
    Refuse,
}

/// As [`load`], into a keyspace that may hold keys.
pub fn load_over<R: Input>(
    node: &Node,
    input: R,
    total: Option<u64>,
    same: Same,
) -> Result<Loaded, rdb::Error> {
    let mut reader = open(node, input)?;
    node.files.save.loading.begin(total.unwrap_or(0));
    read_records(node, &mut reader, false, same, &|| true)
}

/// Reads the header.
pub(super) fn open<R: Read>(node: &Node, input: R) -> Result<Reader<R>, rdb::Error> {
    let limits = node.shared.limits.load();
    let verify = node.config.load().rdbchecksum && limits.verify_checksums;
    Reader::with_checksum(input, limits.as_ref().clone(), verify)
}

/// As [`load`], up to the end mark. `keep_dead`: commands follow that count on keys whose time has come.
pub(super) fn load_records<R: Input>(
    node: &Node,
    reader: &mut Reader<R>,
    keep_dead: bool,
    keep_on: &dyn Fn() -> bool,
) -> Result<Loaded, rdb::Error> {
    read_records(node, reader, keep_dead, Same::Damage, keep_on).map_err(|mut error| {
        if node.config.load().hide_user_data_from_log {
            error.key = None;
        }
        error
    })
}

fn read_records<R: Input>(
    node: &Node,
    reader: &mut Reader<R>,
    keep_dead: bool,
    same: Same,
    keep_on: &dyn Fn() -> bool,
) -> Result<Loaded, rdb::Error> {
    let limits = node.shared.limits.load_full();
    let file = reader.input().file().and_then(|file| file.try_clone().ok());
    if file.is_some() {
        reader.allow_ranges();
    }
    let shared = Shared { node, limits: &limits, file, same, now: unix_ms(), failed: AtomicBool::new(false) };
    // The calling thread is one of them.
    let helpers = tuning::workers(&node.config.load()).saturating_sub(1);
    let (jobs, queue) = sync_channel(2 * helpers.max(1));
    let queue = Mutex::new(queue);
    let (cut, mut tallies) = thread::scope(|scope| {
        let mut threads: Vec<ScopedJoinHandle<'_, Tally>> = Vec::new();
        for _ in 0..helpers {
            let helper = thread::Builder::new().name("load-helper".into());
            match helper.spawn_scoped(scope, || help(&shared, &queue)) {
                Ok(thread) => threads.push(thread),
                Err(e) => tracing::warn!("Can't start a thread that helps to load: {}", words(&e)),
            }
        }
        let jobs = (!threads.is_empty()).then_some(jobs);
        let mut cutter =
            Cutter { shared: &shared, jobs, keep_dead, tally: Tally::default(), seen: Seen::default() };
        let result = cutter.run(reader, keep_on);
        drop(cutter.jobs.take());
        let tallies = threads.into_iter().map(|thread| thread.join().expect("a panic ends the process"));
        let mut tallies: Vec<Tally> = tallies.collect();
        tallies.push(cutter.tally);
        (result.map(|()| cutter.seen), tallies)
    });
    // A helper knows more of what is wrong in its piece than the cutter.
    let errors = tallies.iter_mut().filter_map(|tally| tally.error.take());
    if let Some(error) = errors.min_by_key(|error| error.offset) {
        return Err(error);
    }
    let seen = cut?;
    let skipped = reader.empty_keys_skipped() + tallies.iter().map(|tally| tally.skipped).sum::<u64>();
    if skipped > 0 {
        tracing::warn!("{skipped} keys with an empty value are left out");
    }
    Ok(sum_up(node, &tallies, &seen))
}

/// Adds up what the threads have done, and says it in the words that tools wait for.
fn sum_up(node: &Node, tallies: &[Tally], seen: &Seen) -> Loaded {
    let mut loaded = Loaded { replication: seen.position(), ..Loaded::default() };
    loaded.deletions.log_wanted = loaded.replication.is_some();
    for tally in tallies {
        loaded.keys += tally.keys;
        loaded.expired += tally.expired;
        for (db, key) in &tally.dead {
            loaded.deletions.record(*db, &[node.shared.keyspace.lazy.command(Cause::Expiry), key]);
        }
    }
    tracing::info!("Done loading RDB, keys loaded: {}, keys expired: {}.", loaded.keys, loaded.expired);
    loaded
}

fn mistake(offset: u64, key: Option<Vec<u8>>, expected: &'static str, why: &'static str) -> rdb::Error {
    rdb::Error { offset, key, problem: Problem::Malformed { expected, why } }
}

/// What all threads know.
struct Shared<'a> {
    node: &'a Node,
    limits: &'a Limits,
    /// What is loaded, where it can be read again from any place.
    file: Option<File>,
    same: Same,
    now: UnixMs,
    /// One of them has found damage: the others need not go on.
    failed: AtomicBool,
}

/// What one thread has done.
#[derive(Default)]
struct Tally {
    keys: u64,
    expired: u64,
    skipped: u64,
    /// Keys that were left out, of which replicas must be told.
    dead: Vec<(DbIndex, Vec<u8>)>,
    error: Option<rdb::Error>,
    effects: Effects,
}

/// What becomes of keys whose time has come.
#[derive(Clone, Copy)]
struct Dead {
    dropped: bool,
    /// Replicas go on from the file's stream.
    told: bool,
}

struct Job {
    entries: Entries,
    dead: Dead,
}

/// What a thread turns into keys.
enum Entries {
    Fragment(Fragment),
    Range(Range),
}

/// What the file says beside its entries.
#[derive(Default)]
struct Seen {
    id: Option<ReplId>,
    offset: Option<u64>,
    stream_db: u16,
}

impl Seen {
    fn position(&self) -> Option<SavedPosition> {
        self.id.zip(self.offset).map(|(id, offset)| SavedPosition { id, offset, db: self.stream_db })
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        match name {
            b"repl-id" => self.id = ReplId::parse(value),
            b"repl-stream-db" => self.stream_db = text.parse().unwrap_or(0),
            b"repl-offset" => self.offset = text.parse().ok(),
            _ => {}
        }
    }
}

/// Says who wrote the file and when, in the words that tools know.
fn tell_origin(node: &Node, name: &[u8], value: &[u8]) {
    let number = parse_i64(value);
    match (name, number) {
        (b"redis-ver" | b"valkey-ver", _) => {
            tracing::info!("Loading RDB produced by version {}", value.escape_ascii());
        }
        (b"ctime", Some(second)) => {
            tracing::info!("RDB age {} seconds", (unix_ms() / 1000).saturating_sub(second).max(0));
        }
        (b"aof-base", Some(1)) => tracing::info!("RDB is base AOF"),
        (b"used-mem", Some(bytes)) => {
            let bytes = u64::try_from(bytes).unwrap_or(0);
            node.files.save.loading.used_memory.store(bytes, Ordering::Relaxed);
            tracing::info!("RDB memory usage when created {:.2} Mb", bytes as f64 / f64::from(1 << 20));
        }
        _ => {}
    }
}

/// The thread that cuts. It reads pieces, too, while all others are busy.
struct Cutter<'a> {
    shared: &'a Shared<'a>,
    jobs: Option<SyncSender<Job>>,
    keep_dead: bool,
    tally: Tally,
    seen: Seen,
}

impl Cutter<'_> {
    fn run<R: Read>(&mut self, reader: &mut Reader<R>, keep_on: &dyn Fn() -> bool) -> Result<(), rdb::Error> {
        let node = self.shared.node;
        let pause = node.config.load().key_load_delay;
        let most = if pause == 0 { PIECE } else { 1 };
        let mut keys = 0;
        while !self.shared.failed.load(Ordering::Relaxed)
            && let Some(piece) = reader.next_piece(most)?
        {
            let before = keys;
            match piece {
                Piece::Record(Record::Entry(entry)) => {
                    keys += 1;
                    let dead = self.dead();
                    self.shared.insert(entry, reader.offset(), dead, &mut self.tally)?;
                }
                Piece::Record(record) => self.note(record, reader.offset())?,
                Piece::Fragment(fragment) => {
                    keys += fragment.keys;
                    if fragment.keys > 0 {
                        self.hand_over(Entries::Fragment(fragment));
                    }
                }
                Piece::Range(range) => {
                    keys += 1;
                    self.hand_over(Entries::Range(range));
                }
            }
            rest(pause, before..keys);
            node.files.save.loading.reached(reader.offset());
            node.sleep_along();
            if !keep_on() {
                break;
            }
        }
        Ok(())
    }

    /// A record that is no entry, and ends at `offset`.
    fn note(&mut self, record: Record, offset: u64) -> Result<(), rdb::Error> {
        match record {
            Record::Aux { name, value } => {
                self.seen.aux(&name, &value);
                tell_origin(self.shared.node, &name, &value);
            }
            Record::Function(code) => {
                let shared = self.shared;
                let replace = shared.same == Same::Replace;
                libraries::load(&shared.node.shared.scripts, &code, replace).map_err(|text| {
                    tracing::warn!("A function library cannot be loaded: {text}");
                    mistake(offset, None, "a function library", "see the log")
                })?;
            }
            Record::ModuleAux { module } => {
                tracing::warn!("Data of the module {module} are left out: this server has no modules");
            }
            _ => {}
        }
        Ok(())
    }

    /// A node of a cluster learns its role later. With a history to go on from, expiry finds what is dead, and tells
    /// replicas.
    fn dead(&self) -> Dead {
        let node = self.shared.node;
        let is_replica = node.shared.is_replica.load(Ordering::Acquire);
        let waits = node.config.load().cluster_enabled && self.seen.id.is_some();
        // The file tells of its stream before it tells of keys.
        Dead { dropped: !self.keep_dead && !is_replica && !waits, told: self.seen.position().is_some() }
    }

    fn hand_over(&mut self, entries: Entries) {
        let job = Job { entries, dead: self.dead() };
        let left = match &self.jobs {
            Some(jobs) => match jobs.try_send(job) {
                Ok(()) => return,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
            },
            None => job,
        };
        self.shared.read(&left, &mut self.tally);
    }
}

/// The pause that a directive for tests asks for.
pub(super) fn rest(pause: i32, keys: ops::Range<u64>) {
    if pause != 0 {
        thread::sleep(delay(pause, keys));
    }
}

/// Reads pieces until no more come.
fn help(shared: &Shared<'_>, queue: &Mutex<Receiver<Job>>) -> Tally {
    crash::guard_thread();
    let mut tally = Tally::default();
    loop {
        let job = queue.lock().recv();
        let Ok(job) = job else { return tally };
        if !shared.failed.load(Ordering::Relaxed) {
            shared.read(&job, &mut tally);
        }
    }
}

impl Shared<'_> {
    /// Turns a piece into keys.
    fn read(&self, job: &Job, tally: &mut Tally) {
        if tally.error.is_some() {
            return;
        }
        match (&job.entries, &self.file) {
            (Entries::Fragment(fragment), _) => {
                self.read_all(fragment.entries(self.limits.clone()), job.dead, tally);
            }
            (Entries::Range(range), Some(file)) => {
                let part = Part { file, at: range.from, to: range.to };
                self.read_all(range.entries(part, self.limits.clone()), job.dead, tally);
            }
            (Entries::Range(_), None) => unreachable!("ranges are of files"),
        }
    }

    fn read_all<R: Read>(&self, mut reader: Reader<R>, dead: Dead, tally: &mut Tally) {
        while let Some(record) = reader.next() {
            let inserted = record.and_then(|record| match record {
                Record::Entry(entry) => self.insert(entry, reader.offset(), dead, tally),
                _ => Ok(()),
            });
            if let Err(error) = inserted {
                tally.error = Some(error);
                self.failed.store(true, Ordering::Relaxed);
                return;
            }
        }
        tally.skipped += reader.empty_keys_skipped();
    }

    /// Makes a key of an entry that ends at `offset`.
    fn insert(&self, entry: Entry, offset: u64, dead: Dead, tally: &mut Tally) -> Result<(), rdb::Error> {
        let ks = &self.node.shared.keyspace;
        let index = u16::try_from(entry.db).ok().filter(|index| usize::from(*index) < ks.databases());
        let Some(index) = index else {
            tracing::warn!(
                "FATAL: Data file was created with a Redis server configured to handle more than {} databases. Exiting",
                ks.databases()
            );
            return Err(mistake(offset, None, "a database that is configured here", "there are fewer"));
        };
        if dead.dropped && entry.expire.is_some_and(|at| at < self.now) {
            tally.expired += 1;
            if dead.told {
                tally.dead.push((index, entry.key));
            }
            return Ok(());
        }
        let mut locked = ks.lock_slot(ks.hashed(&entry.key).slot);
        let mut db = Db::new(&mut locked, index, self.now, Expiring::Ignore, &mut tally.effects);
        if self.same == Same::Refuse && db.peek(&entry.key).is_some() {
            let hidden = self.node.config.load().hide_user_data_from_log;
            let key = if hidden { "*redacted*".to_owned() } else { entry.key.escape_ascii().to_string() };
            tracing::warn!("RDB has duplicated key '{key}' in DB {index}");
            panic!("Duplicated key found in RDB file");
        }
        let is_second = db.insert(&entry.key, entry.value, entry.expire);
        if is_second && self.same == Same::Damage {
            return Err(mistake(offset, Some(entry.key), "a key that is not there yet", "it occurs twice"));
        }
        db.set_usage(&entry.key, entry.idle_s, entry.freq);
        db.changed(&entry.key, event::LOADED);
        tally.keys += 1;
        Ok(())
    }
}

/// Loads the data file at the start. A file that is not there is an empty keyspace; so is one that is given up because
/// the node is to end.
pub fn load_at_start(node: &Node) -> Result<Option<Loaded>, String> {
    let path = rdb_file::path(&node.config.load());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(e) => {
            return Err(format!("Fatal error loading the DB {}: {}. Exiting.", path.display(), words(&e)));
        }
    };
    let started = Instant::now();
    let total = file.metadata().ok().map(|m| m.len());
    let result = load(node, file, total, &|| !node.life.shutdown.begun.load(Ordering::Acquire));
    if node.life.shutdown.begun.load(Ordering::Acquire) {
        // The gate stays closed: a part of the data is not to be seen, nor saved.
        return Ok(None);
    }
    match result {
        Ok(loaded) => {
            node.files.save.loaded_keys.store(loaded.keys, Ordering::Relaxed);
            node.files.save.load_expired.store(loaded.expired, Ordering::Relaxed);
            tracing::info!("DB loaded from disk: {:.3} seconds", started.elapsed().as_secs_f64());
            Ok(Some(loaded))
        }
        Err(e) => Err(format!("Fatal error loading the DB {}: {e}. Exiting.", path.display())),
    }
}
