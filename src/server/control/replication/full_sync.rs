//! Full synchronisation: one snapshot for all replicas that wait, to their sockets as it is produced or to a
//! file first.
//!
//! Between the snapshot's thread and each socket stands a bounded channel. Only that thread waits for a slow
//! replica; writers never do, because the walk holds no lock while it hands a chunk out.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::repl::primary::{Content, LinkId, Target};
use crate::server::control::replication::feed::{Order, Piece};
use crate::server::control::replication::state::State;
use crate::server::disk::file::DiskFile;
use crate::server::disk::rdb_file;
use crate::server::disk::rdb_file::Dump;
use crate::server::node::Node;
use crate::server::process::affinity;

/// Chunks that may lie between the snapshot and a socket.
const CHUNKS_AHEAD: usize = 16;
const CHUNK: usize = 64 * 1024;

/// Starts the snapshot on a thread of its own: the caller holds the replication lock, and may hold shards.
pub(super) fn start(node: &Arc<Node>, target: Target, content: Content) {
    let for_thread = Arc::clone(node);
    let started = std::thread::Builder::new().name("full-sync".into()).spawn(move || {
        affinity::bind_or_warn("bgsave-cpulist", &for_thread.config.load().bgsave_cpulist);
        run(&for_thread, target, content);
    });
    if let Err(e) = started {
        tracing::warn!("Can't start a thread for a full synchronisation: {e}");
        let node = Arc::clone(node);
        // The lock is held here: tell the machine later.
        crate::server::control::replication::spawn(&Arc::clone(&node), async move { fail(&node) });
    }
}

fn run(node: &Arc<Node>, target: Target, content: Content) {
    let Some((dump, ids, mark)) = begin(node, content) else { return };
    let result = match target {
        Target::Sockets => to_sockets(node, dump, &ids, mark),
        Target::Disk => to_disk(node, dump),
    };
    if let Err(e) = result {
        tracing::warn!("Full synchronisation failed: {e}");
        fail(node);
    }
}

fn fail(node: &Arc<Node>) {
    with_machine(node, |state, out| state.primary.snapshot_failed(out));
}

fn with_machine<R>(
    node: &Arc<Node>,
    f: impl FnOnce(&mut State, &mut Vec<crate::repl::primary::Action>) -> R,
) -> R {
    let mut state = node.peers.replication.lock();
    let mut out = Vec::new();
    let result = f(&mut state, &mut out);
    state.carry_out(node, out);
    result
}

/// Begins the dump, and notes the offset of the log that it stands at. `None` when another snapshot is under way.
fn begin(node: &Arc<Node>, content: Content) -> Option<(Dump, Vec<LinkId>, Vec<u8>)> {
    let locked = node.shared.keyspace.lock_all();
    let dump = if content.keys { rdb_file::begin(node, &locked) } else { Some(rdb_file::without_keys(node)) };
    let Some(dump) = dump else {
        let now = node.mono_ms();
        with_machine(node, |state, out| state.primary.snapshot_delayed(now, out));
        return None;
    };
    let log = &node.shared.keyspace.log;
    let (ids, mark) = with_machine(node, |state, out| {
        if state.upstream.is_none() {
            // Replicas that begin here know no selected database.
            log.forget_db();
        }
        let offset = log.end();
        state.primary.snapshot_started(offset, &state.history, out)
    });
    Some((dump, ids, mark))
}

/// Hands the RDB to all links as it is produced.
fn to_sockets(node: &Arc<Node>, dump: Dump, ids: &[LinkId], mark: Vec<u8>) -> io::Result<()> {
    let mut outputs = Vec::new();
    with_machine(node, |state, _| {
        for id in ids {
            if let Some(feed) = state.feeds.get(id) {
                let (output, pieces) = mpsc::channel(CHUNKS_AHEAD);
                // A task that is gone drops the pieces.
                let _ = feed.orders.send(Order::Rdb(pieces));
                outputs.push(output);
            }
        }
    });
    let fanout = Fanout { outputs, chunk: Vec::with_capacity(CHUNK) };
    let config = node.config.load_full();
    let used = (node.shared.memory.used)();
    let written = dump.write(fanout, config.rdbchecksum, used, || Ok(())).and_then(|mut fanout| {
        fanout.write_all(&mark)?;
        fanout.finish();
        Ok(())
    });
    match written {
        // When every replica has left, nobody needs to be told of a failure.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => {
            with_machine(node, |state, _| state.primary.stream_ready());
            Ok(())
        }
    }
}

/// Writes the RDB to a file, then sends that to whoever waits for it.
fn to_disk(node: &Arc<Node>, dump: Dump) -> io::Result<()> {
    let config = node.config.load_full();
    let name = format!("{}sync-{}.rdb", rdb_file::temporary_prefix(), dump.number());
    let path = Path::new(&config.dir).join(name);
    let file = Temporary(path);
    let used = (node.shared.memory.used)();
    dump.write(io::BufWriter::new(&DiskFile::create(&file.0)?), config.rdbchecksum, used, || Ok(()))?
        .flush()?;
    let length = fs::metadata(&file.0)?.len();
    let mut readers = Vec::new();
    let mut failed = None;
    with_machine(node, |state, out| {
        for id in state.primary.file_ready(length, out) {
            match File::open(&file.0) {
                Ok(reader) => readers.push((id, reader)),
                Err(e) => failed = Some(e),
            }
        }
    });
    for (id, reader) in readers {
        let (output, pieces) = mpsc::channel(CHUNKS_AHEAD);
        with_machine(node, |state, _| {
            if let Some(feed) = state.feeds.get(&id) {
                let _ = feed.orders.send(Order::Rdb(pieces));
            }
        });
        // A thread each, so that a slow replica holds up nobody.
        std::thread::Builder::new()
            .name("full-sync-file".into())
            .spawn(move || send_file(reader, &output))?;
    }
    failed.map_or(Ok(()), Err)
}

fn send_file(mut file: File, output: &mpsc::Sender<Piece>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let piece = match file.read(&mut chunk) {
            Ok(0) => Piece::End,
            Ok(n) => Piece::Bytes(Bytes::copy_from_slice(&chunk[..n])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                // Without the end mark the link is closed.
                tracing::warn!("Read error sending DB to replica: {e}");
                return;
            }
        };
        let last = matches!(piece, Piece::End);
        if output.blocking_send(piece).is_err() || last {
            return;
        }
    }
}

/// A file that goes when it was sent: readers that have it open still can read it.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may not have come into being.
        let _ = fs::remove_file(&self.0);
    }
}

/// A sink that hands everything to several links, and forgets those that are gone.
struct Fanout {
    outputs: Vec<mpsc::Sender<Piece>>,
    chunk: Vec<u8>,
}

impl Fanout {
    fn hand_out(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK)));
        self.outputs.retain(|output| output.blocking_send(Piece::Bytes(chunk.clone())).is_ok());
        if self.outputs.is_empty() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn finish(mut self) {
        if !self.chunk.is_empty() && self.hand_out().is_err() {
            return;
        }
        for output in self.outputs {
            // Whoever is gone needs no end.
            let _ = output.blocking_send(Piece::End);
        }
    }
}

impl Write for Fanout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.hand_out()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a link got, and whether it was whole.
    fn drain(mut pieces: mpsc::Receiver<Piece>) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(&bytes),
                Piece::End => return (out, true),
            }
        }
        (out, false)
    }

    #[test]
    fn a_link_that_leaves_does_not_hold_up_the_others() {
        let (one, pieces_of_one) = mpsc::channel(CHUNKS_AHEAD);
        let (two, pieces_of_two) = mpsc::channel(CHUNKS_AHEAD);
        let mut fanout = Fanout { outputs: vec![one, two], chunk: Vec::new() };
        let data: Vec<u8> = (0..5 * CHUNK as u32).map(|i| i as u8).collect();
        fanout.write_all(&data[..=CHUNK]).unwrap();
        drop(pieces_of_two);
        fanout.write_all(&data[CHUNK + 1..]).unwrap();
        assert_eq!(fanout.outputs.len(), 1);
        fanout.finish();
        assert_eq!(drain(pieces_of_one), (data, true));
    }

    #[test]
    fn without_links_the_snapshot_ends_early_and_without_an_end_it_counts_as_broken() {
        let (output, pieces) = mpsc::channel(CHUNKS_AHEAD);
        let mut fanout = Fanout { outputs: vec![output], chunk: Vec::new() };
        fanout.write_all(&[1; CHUNK]).unwrap();
        drop(fanout);
        assert_eq!(drain(pieces), (vec![1; CHUNK], false));
        let mut nobody = Fanout { outputs: vec![], chunk: Vec::new() };
        assert_eq!(nobody.write_all(&[1; CHUNK]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
