//! Rewriting: a new base from the one snapshot while writers go on, and a new increment from where it stands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use crate::command::gate;
use crate::keyspace::Locked;
use crate::keyspace::log::{Reader, Takes};
use crate::server::disk::aof::Aof;
use crate::server::disk::aof::folder::Folder;
use crate::server::disk::aof::writer::Order;
use crate::server::disk::file::DiskFile;
use crate::server::disk::rdb_file::{self, Dump, Form, PacedFile};
use crate::server::node::{Node, unix_ms};
use crate::server::process::affinity;
use crate::server::process::os_error::words;

/// After so many failures in a row, rewrites that nobody asked for wait.
const FAILURES_AT_ONCE: u64 = 3;
/// The longest such wait.
const DELAY_MAX_MINUTES: u64 = 60;

/// What becomes of the increments.
enum After {
    /// Nothing is written: the base is all there is.
    Base,
    /// The present one is cut where the dump stands; the writer tells.
    Cut(Receiver<io::Result<()>>),
    /// There is none yet: this reader begins where the dump stands, with the database that is selected there.
    First(Reader, Option<u16>),
    /// As [`First`](Self::First), in another folder, while those in the present one go on.
    Elsewhere(Reader, Option<u16>),
}

/// What is to be written behind a base in another folder.
#[derive(Debug)]
pub(super) struct Move {
    pub reader: Reader,
    pub file: DiskFile,
    /// The database that is selected where the reader stands.
    pub db: Option<u16>,
    pub place: Place,
}

/// A complete base that has not its name yet, and the folder that it is for.
#[derive(Debug)]
pub(super) struct Place {
    pub era: u64,
    folder: Folder,
    base: PathBuf,
    rdb: bool,
}

impl Place {
    /// The increment has all that is in the log: gives the files their names. Returns how many nanoseconds that took.
    pub fn finish(&mut self, aof: &Aof) -> io::Result<u64> {
        let mut folder = aof.folder.lock();
        if aof.era() != self.era {
            return Err(given_up());
        }
        let renaming = self.folder.replace_base(&self.base, self.rdb, true, true)?;
        *folder = std::mem::take(&mut self.folder);
        Ok(renaming)
    }

    pub fn give_up(&self) {
        self.folder.drop_temporary_increment();
    }
}

/// The waits after failures.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    delay_minutes: u64,
    until: Option<Instant>,
}

/// Begins to rewrite on a thread of its own. All shards are locked. False: another snapshot is under way.
pub(super) fn begin(node: &Arc<Node>, locked: &Locked<'_>) -> bool {
    let (aof, config) = (&node.files.aof, node.config.load());
    let Some(waker) = aof.waker() else { return false };
    if aof.is_rewriting() {
        return false;
    }
    let form = if config.aof_use_rdb_preamble { Form::AofBase } else { Form::Commands };
    drop(config);
    let Some(dump) = rdb_file::begin_as(node, locked, form) else { return false };
    let era = aof.era();
    aof.rewriting_since_ms.store(unix_ms(), Ordering::Release);
    aof.scheduled.store(false, Ordering::Release);
    let log = &node.shared.keyspace.log;
    let (offset, db) = log.position();
    let after = if !aof.is_on() {
        After::Base
    } else if aof.is_beginning() {
        let reader = log.register(Takes::Data, offset, waker);
        reader.set_synced(0);
        After::First(reader, db)
    } else if aof.folder.lock().is_elsewhere(&node.config.load()) {
        After::Elsewhere(log.register(Takes::Data, offset, waker), db)
    } else {
        let (done, outcome) = channel();
        aof.order(Order::Cut { offset, db, done });
        After::Cut(outcome)
    };
    let for_thread = Arc::clone(node);
    let started = thread::Builder::new().name("aof-rewrite".into()).spawn(move || {
        affinity::bind_or_warn("aof-rewrite-cpulist", &for_thread.config.load().aof_rewrite_cpulist);
        run(&for_thread, dump, form, after, era);
    });
    match started {
        Ok(_) => {
            tracing::info!("Background append only file rewriting started by pid {}", std::process::id());
            true
        }
        Err(e) => {
            tracing::warn!("Can't rewrite append only file in background: {}", words(&e));
            node.files.aof.rewriting_since_ms.store(0, Ordering::Release);
            false
        }
    }
}

/// The files that are there are worthless: begins a base and a first increment as soon as that is possible.
pub(super) fn begin_first(node: &Arc<Node>) {
    let locked = node.shared.keyspace.lock_all();
    let aof = &node.files.aof;
    if aof.is_beginning() && !begin(node, &locked) {
        tracing::info!(
            "AOF was enabled but there is already another background operation. An AOF background was scheduled to start when possible."
        );
        aof.scheduled.store(true, Ordering::Release);
    }
}

fn run(node: &Arc<Node>, dump: Dump, form: Form, after: After, era: u64) {
    let aof = &node.files.aof;
    let started = Instant::now();
    let first = matches!(after, After::First(..));
    let result = rewrite(node, dump, form, after, era);
    aof.last_rewrite_s.store(started.elapsed().as_secs() as i64, Ordering::Relaxed);
    aof.rewrites.fetch_add(1, Ordering::Relaxed);
    match result {
        Ok(size) => {
            aof.rewrite_ok.store(true, Ordering::Release);
            aof.failures.store(0, Ordering::Release);
            aof.other_size.store(size, Ordering::Relaxed);
            aof.rewrite_base_size.store(size, Ordering::Relaxed);
            if aof.complete(era) {
                let (done, taken_over) = channel();
                aof.order(Order::Whole(done));
                // It is gone when the node ends.
                let _ = taken_over.recv();
            }
            tracing::info!("Background AOF rewrite finished successfully");
        }
        Err(e) => {
            if e.kind() == GIVEN_UP {
                tracing::warn!("Background AOF rewrite terminated: {e}");
            } else {
                aof.rewrite_ok.store(false, Ordering::Release);
                aof.failures.fetch_add(1, Ordering::AcqRel);
                tracing::warn!("Background AOF rewrite terminated with error: {}", words(&e));
            }
            if first {
                aof.order(Order::Abandon);
                aof.folder.lock().drop_temporary_increment();
            }
            // Without it nothing is kept.
            if aof.is_beginning() {
                aof.scheduled.store(true, Ordering::Release);
            }
        }
    }
    aof.rewriting_since_ms.store(0, Ordering::Release);
}

/// Writes the base and puts it in its place. Returns its bytes.
fn rewrite(node: &Arc<Node>, dump: Dump, form: Form, after: After, era: u64) -> io::Result<u64> {
    let (aof, config) = (&node.files.aof, node.config.load_full());
    let go_on = || if aof.era() == era { Ok(()) } else { Err(given_up()) };
    let (mut first, mut cut, mut elsewhere) = (false, None, None);
    match after {
        After::Base => aof.folder.lock().follow(&config).map_err(io::Error::other)?,
        After::Cut(outcome) => cut = Some(outcome),
        After::First(reader, db) => {
            let mut folder = aof.folder.lock();
            folder.follow(&config).map_err(io::Error::other)?;
            let file = folder.create_temporary_increment()?;
            let name = folder.temporary_increment();
            let name = name.file_name().unwrap_or_default().display();
            tracing::info!("Creating AOF incr file {name} on background rewrite");
            aof.order(Order::Begin { reader, file, db, era, whole: false });
            first = true;
        }
        After::Elsewhere(reader, db) => {
            elsewhere = Some((reader, db, Folder::open(&config).map_err(io::Error::other)?));
        }
    }
    let name = format!("{}rewriteaof-bg.aof", rdb_file::temporary_prefix());
    let temporary = Temporary(std::env::current_dir()?.join(name).into_boxed_path());
    let file = DiskFile::create(&temporary.0)?;
    let used = (node.shared.memory.used)();
    let paced = PacedFile::new(&file, config.aof_rewrite_incremental_fsync);
    dump.write(paced, config.rdbchecksum, used, go_on)?;
    file.sync_all()?;
    let size = file.size()?;
    tracing::info!("Successfully created the temporary AOF base file {}", temporary.0.display());
    if let Some(outcome) = cut {
        outcome.recv().map_err(|_| given_up())??;
    }
    tracing::info!("Background AOF rewrite terminated with success");
    let rdb = form == Form::AofBase;
    let renaming = if let Some((reader, db, folder)) = elsewhere {
        let file = folder.create_temporary_increment()?;
        let base = temporary.0.to_path_buf();
        go_on_there(aof, Move { reader, file, db, place: Place { era, folder, base, rdb } })?
    } else {
        let mut folder = aof.folder.lock();
        go_on()?;
        folder.replace_base(&temporary.0, rdb, first, aof.is_on())?
    };
    node.note_event("aof-rename", renaming);
    if !config.aof_disable_auto_gc {
        aof.folder.lock().delete_history();
    }
    Ok(size)
}

/// Has the writer go on in another folder. What is in the present one stays, and is complete up to then.
fn go_on_there(aof: &Aof, there: Move) -> io::Result<u64> {
    let (done, outcome) = channel();
    aof.order(Order::Move(Box::new(there), done));
    outcome.recv().map_err(|_| given_up())?
}

/// How the error of a rewrite that was given up is told from one of the disk: it is no failure.
const GIVEN_UP: io::ErrorKind = io::ErrorKind::Interrupted;

pub(super) fn given_up() -> io::Error {
    io::Error::new(GIVEN_UP, "it was given up")
}

/// A file that goes unless it got another name.
struct Temporary(Box<Path>);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It has its final name, or is of no use.
        let _ = fs::remove_file(&self.0);
    }
}

/// Ten times a second: begins the rewrites that are scheduled or that growth asks for.
pub(super) fn cron(node: &Arc<Node>) {
    let (aof, config) = (&node.files.aof, node.config.load_full());
    let loading = node.shared.gate.load(Ordering::Acquire) & gate::LOADING != 0;
    if loading || aof.is_rewriting() {
        return;
    }
    let growth = aof.growth_percent();
    let grown = aof.is_on()
        && config.auto_aof_rewrite_percentage > 0
        && aof.current_size() > config.auto_aof_rewrite_min_size
        && growth >= u64::from(config.auto_aof_rewrite_percentage);
    let scheduled = aof.scheduled.load(Ordering::Acquire);
    if !(scheduled || grown) || is_held_back(aof) {
        return;
    }
    if !scheduled {
        tracing::info!("Starting automatic rewriting of AOF on {growth}% growth");
    }
    begin(node, &node.shared.keyspace.lock_all());
}

/// Whether so many rewrites have failed in a row that the next one must wait.
fn is_held_back(aof: &Aof) -> bool {
    let mut back_off = aof.back_off.lock();
    if aof.failures.load(Ordering::Acquire) < FAILURES_AT_ONCE {
        *back_off = BackOff::default();
        return false;
    }
    match back_off.until {
        Some(until) if Instant::now() < until => true,
        Some(_) => {
            back_off.until = None;
            false
        }
        None => {
            let minutes = (back_off.delay_minutes * 2).clamp(1, DELAY_MAX_MINUTES);
            tracing::warn!(
                "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in {minutes} minutes"
            );
            back_off.delay_minutes = minutes;
            back_off.until = Some(Instant::now() + std::time::Duration::from_secs(60 * minutes));
            true
        }
    }
}
