//! Reading the append-only file at the start: base and increments, through the same executor as clients' commands.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use smallvec::SmallVec;

use super::folder::Folder;
use crate::command::Client;
use crate::command::client::Role;
use crate::exec::Executor;
use crate::keyspace::Known;
use crate::persist::aof::stream::{Commands, Error as StreamError, Item, Problem};
use crate::resp::Reply;
use crate::server::disk::rdb_load::{self, rest};
use crate::server::node::host::NodeHost;
use crate::server::node::{Node, unix_ms};
use crate::server::process::clock::now_ns;
use crate::server::process::os_error::words;

/// How many commands are run between two looks at whether to go on.
const PROGRESS_COMMANDS: u64 = 1024;

/// Reads all files of the folder. The caller holds no lock and has set the gate to LOADING. False: there was
/// nothing to read. The error is for the log.
pub(super) fn load(node: &Arc<Node>, folder: &Folder, keep_on: &dyn Fn() -> bool) -> Result<bool, String> {
    if folder.manifest.is_empty() {
        return Ok(false);
    }
    let (base, increments) = folder.sizes();
    node.files.save.loading.begin(base + increments);
    let parts: Vec<_> = folder.manifest.parts().collect();
    for (n, part) in parts.iter().enumerate() {
        let started = Instant::now();
        let is_base = n == 0 && folder.manifest.base.is_some();
        let size = load_part(node, &folder.path(&part.name), &part.name, n + 1 == parts.len(), keep_on)?;
        if !keep_on() {
            break;
        }
        node.files.save.loading.next_file(size);
        if size > 0 {
            tracing::info!(
                "DB loaded from {} file {}: {:.3} seconds",
                if is_base { "base" } else { "incr" },
                part.name,
                started.elapsed().as_secs_f64()
            );
        }
    }
    Ok(true)
}

/// Reads a file; returns its bytes. `last`: its end may be missing.
fn load_part(
    node: &Arc<Node>,
    path: &Path,
    name: &str,
    last: bool,
    keep_on: &dyn Fn() -> bool,
) -> Result<u64, String> {
    let (mut commands, size) = open_part(node, path, name, keep_on)?;
    let mut run = Run::new(node);
    let (whole, problem) = match run_commands(&mut run, &mut commands, name, keep_on)? {
        Ended::GivenUp => return Ok(size),
        Ended::AtEnd { whole, problem } => (whole, problem),
    };
    run.finish();
    let is_short = problem.is_some();
    if let Some(error) = problem {
        refuse_unless_short(&error, name)?;
    }
    if run.client.in_multi() {
        tracing::warn!("Revert incomplete MULTI/EXEC transaction in AOF file {name}");
    }
    if is_short || run.client.in_multi() {
        truncate(node, path, name, last, whole)?;
    }
    Ok(size)
}

/// Opens a file and loads the RDB that it may begin with. Returns the commands that follow, and the size of the file.
fn open_part(
    node: &Arc<Node>,
    path: &Path,
    name: &str,
    keep_on: &dyn Fn() -> bool,
) -> Result<(Commands<File>, u64), String> {
    let unreadable = |e: io::Error| {
        format!("Fatal error: can't open the append log file {name} for reading: {}", words(&e))
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut head = [0; 6];
    let has_head = size >= 6 && file.read_exact(&mut head).is_ok();
    file.rewind().map_err(unreadable)?;
    if !has_head || !(head.starts_with(b"REDIS") || head == *b"VALKEY") {
        return Ok((Commands::new(file, Vec::new(), 0).of_size(size), size));
    }
    tracing::info!("Reading RDB base file on AOF loading...");
    let damaged = |e| format!("Error reading the RDB base file {name}, AOF loading aborted: {e}");
    let mut reader = rdb_load::open(node, file).map_err(damaged)?;
    rdb_load::load_records(node, &mut reader, true, keep_on).map_err(damaged)?;
    let offset = reader.offset();
    let (file, ahead) = reader.into_parts();
    Ok((Commands::new(file, ahead, offset).of_size(size), size))
}

/// How the commands of a file came to an end.
enum Ended {
    /// Nobody wants them any more.
    GivenUp,
    AtEnd {
        /// Up to here the data are whole: behind the last command that is in no open transaction.
        whole: u64,
        problem: Option<StreamError>,
    },
}

fn run_commands(
    run: &mut Run<'_>,
    commands: &mut Commands<File>,
    name: &str,
    keep_on: &dyn Fn() -> bool,
) -> Result<Ended, String> {
    let node = run.node;
    let pause = node.config.load().key_load_delay;
    let mut whole = commands.offset();
    let mut count = 0_u64;
    loop {
        match commands.next_item() {
            Ok(None) => return Ok(Ended::AtEnd { whole, problem: None }),
            Ok(Some(Item::Command(argv))) => {
                run.command(&argv, name)?;
                rest(pause, count..count + 1);
            }
            Ok(Some(Item::Timestamp(_) | Item::Annotation)) => {}
            Err(e) => return Ok(Ended::AtEnd { whole, problem: Some(e) }),
        }
        if !run.client.in_multi() {
            whole = commands.offset();
        }
        count += 1;
        if count.is_multiple_of(PROGRESS_COMMANDS) {
            node.files.save.loading.reached(commands.offset());
            node.sleep_along();
            if !keep_on() {
                return Ok(Ended::GivenUp);
            }
        }
    }
}

/// A file may end too early; anything else that is wrong with it is an error.
fn refuse_unless_short(error: &StreamError, name: &str) -> Result<(), String> {
    match &error.problem {
        Problem::Truncated => Ok(()),
        Problem::Io(e) => {
            Err(format!("Unrecoverable error reading the append only file {name}: {}", words(e)))
        }
        Problem::Format(_) => Err(format!(
            "Bad file format reading the append only file {name} ({error}): make a backup of your AOF file, \
             then use ./keystead-check-aof --fix <filename.manifest>"
        )),
    }
}

/// Takes off what a crash left of a command at the end, if that is allowed.
fn truncate(node: &Node, path: &Path, name: &str, last: bool, whole: u64) -> Result<(), String> {
    tracing::warn!("!!! Warning: short read while loading the AOF file {name}!!!");
    if !last {
        return Err(format!("Fatal error: the truncated file {name} is not the last file (offset {whole})"));
    }
    if !node.config.load().aof_load_truncated {
        return Err(format!(
            "Unexpected end of file reading the append only file {name} at offset {whole}. You can: 1) Make a backup \
             of your AOF file, then use ./keystead-check-aof --fix <filename.manifest>. 2) Alternatively you can set \
             the 'aof-load-truncated' configuration option to yes and restart the server."
        ));
    }
    tracing::warn!("!!! Truncating the AOF {name} at offset {whole} !!!");
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(whole).and_then(|()| file.sync_all()))
        .map_err(|e| format!("Error truncating the AOF file {name}: {}", words(&e)))?;
    tracing::warn!("AOF {name} loaded anyway because aof-load-truncated is enabled");
    Ok(())
}

/// The client that stands for a file.
struct Run<'a> {
    node: &'a Arc<Node>,
    executor: Executor,
    client: Client,
    reply: Reply,
    /// Commands that were answered with an error.
    refused: u64,
}

impl<'a> Run<'a> {
    fn new(node: &'a Arc<Node>) -> Self {
        let stats = Arc::clone(node.records.counters.commands.last().expect("a node has executors"));
        let mut executor = Executor::new(node.shared, Box::new(Arc::clone(node)), stats, 0, now_ns);
        executor.refresh();
        let mut client = Client {
            worker: 0,
            token: usize::MAX,
            created: unix_ms(),
            role: Role::File,
            ..Client::default()
        };
        client.set_authenticated(true);
        Self { node, executor, client, reply: Reply::new(), refused: 0 }
    }

    fn command(&mut self, argv: &[&[u8]], name: &str) -> Result<(), String> {
        let Ok(id) = self.executor.look_up(argv) else {
            let shown = argv[0][..argv[0].len().min(64)].escape_ascii().to_string();
            return Err(format!("Unknown command '{shown}' reading the append only file {name}"));
        };
        let mut keys = SmallVec::<[Known<'_>; 4]>::new();
        let shared = &self.node.shared;
        shared.each_key(shared.commands.get(id), argv, |key| keys.push(key));
        self.reply.clear();
        let mut host = NodeHost::new(self.node);
        self.executor.execute(&mut host, &mut self.client, id, argv, &keys, unix_ms(), &mut self.reply);
        if let Some(text) = self.reply.as_error() {
            if self.refused == 0 {
                let text = String::from_utf8_lossy(text).trim_end().to_owned();
                let name = argv[0].escape_ascii();
                tracing::warn!(
                    "A command of the append only file was answered with an error: '{name}': {text}"
                );
            }
            self.refused += 1;
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.executor.publish_counts();
        // What was loaded is on the disk.
        self.node.shared.keyspace.stats.dirty.store(0, Ordering::Relaxed);
        if self.refused > 1 {
            tracing::warn!("{} commands of the append only file were answered with an error", self.refused);
        }
    }
}
