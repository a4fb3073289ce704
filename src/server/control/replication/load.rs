//! The thread that loads the RDB of a full synchronisation: by way of a file, so that the old data stay until the
//! new are there as a whole; or as it comes, where there are no old data and `repl-diskless-load` allows it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedSender};

use crate::config::choice::DisklessLoad;
use crate::keyspace::{Effects, Locked};
use crate::repl::ReplId;
use crate::repl::replica::Position;
use crate::script::Libraries;
use crate::server::control::replication::following::Report;
use crate::server::disk::file::DiskFile;
use crate::server::disk::rdb_load::{self, Input};
use crate::server::node::Node;

/// Parts of the RDB that may wait for this thread.
const CHUNKS_AHEAD: usize = 16;

/// What the thread is given.
pub(super) enum Chunk {
    Bytes(Vec<u8>),
    /// The RDB is whole. If the channel closes without this, it broke off.
    End,
}

/// Starts the thread for the RDB that puts us at `position`; `None`: a primary that has no offsets. It reports
/// how it ended.
pub(super) fn start(
    node: &Arc<Node>,
    ticket: u64,
    number: u64,
    position: Option<Position>,
    reports: UnboundedSender<Report>,
) -> io::Result<mpsc::Sender<Chunk>> {
    let (chunks, queue) = mpsc::channel(CHUNKS_AHEAD);
    let node = Arc::clone(node);
    std::thread::Builder::new().name("load".into()).spawn(move || {
        let result = run(&node, ticket, position, Pipe { queue, chunk: Vec::new(), at: 0, ended: false });
        // Fails only when the link is gone, which then needs no report.
        let _ = reports.send(Report::Loaded(number, result));
    })?;
    Ok(chunks)
}

fn run(node: &Arc<Node>, ticket: u64, position: Option<Position>, mut pipe: Pipe) -> Result<(), String> {
    let config = node.config.load_full();
    let ks = &node.shared.keyspace;
    let is_empty = (0..ks.databases() as u16).all(|db| ks.is_empty(db));
    if config.repl_diskless_load == DisklessLoad::OnEmptyDb && is_empty {
        return replace(node, ticket, position, pipe, None);
    }
    let path = Path::new(&config.dir).join(format!("temp-{}.{ticket}.rdb", std::process::id()));
    let spooled = (|| {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
        let file = DiskFile::open(&options, &path)?;
        // The file is gone once nobody has it open.
        std::fs::remove_file(&path)?;
        io::copy(&mut pipe, &mut &file)?;
        file.as_file().rewind()?;
        Ok(file)
    })();
    let file = spooled.map_err(|e: io::Error| format!("the temporary file: {e}"))?;
    let length = file.size().ok();
    replace(node, ticket, position, file.as_file(), length)
}

/// Puts the data of `input`, which has this length if it is known, in the place of what is there.
fn replace(
    node: &Arc<Node>,
    ticket: u64,
    position: Option<Position>,
    input: impl Input,
    length: Option<u64>,
) -> Result<(), String> {
    let _one_at_a_time = node.peers.replication.loading.lock();
    {
        let mut locked = node.shared.keyspace.lock_all();
        let mut state = node.peers.replication.lock();
        if state.upstream.as_ref().is_none_or(|u| u.ticket != ticket) {
            return Err("another primary is followed now".into());
        }
        node.begin_load();
        // Our own replicas hold what is about to go.
        state.disconnect_replicas(node);
        node.shared.keyspace.log.set_backlog(false);
        state.stream_kept = false;
        flush(node, &mut locked);
    }
    let input = WhileFollowed { node, ticket, input };
    let result = rdb_load::load(node, input, length, &|| true);
    let mut locked = node.shared.keyspace.lock_all();
    let mut state = node.peers.replication.lock();
    let followed = state.upstream.as_ref().is_some_and(|u| u.ticket == ticket);
    let outcome = match result {
        Ok(loaded) if followed => {
            let log = &node.shared.keyspace.log;
            let position = position
                .unwrap_or_else(|| Position { id: ReplId::random(&mut state.rng), offset: log.end() });
            state.history.adopt(position.id);
            log.restart_at(position.offset, loaded.replication.map(|r| r.db));
            state.stream_kept = true;
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(e) => {
            // A part of the data is worse than none.
            flush(node, &mut locked);
            Err(e.to_string())
        }
    };
    // Also if the load broke off: what was there before is gone.
    node.files.aof.data_replaced();
    node.end_load();
    outcome
}

fn flush(node: &Node, locked: &mut Locked<'_>) {
    let ks = &node.shared.keyspace;
    for db in 0..ks.databases() as u16 {
        ks.flush(locked, db, &mut Effects::default());
    }
    node.shared.scripts.set_libraries(Libraries::default());
    node.invalidate_all();
}

impl Input for Pipe {
    fn file(&self) -> Option<&File> {
        None
    }
}

/// The RDB as it comes over the link.
struct Pipe {
    queue: mpsc::Receiver<Chunk>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            match self.queue.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => (self.chunk, self.at) = (bytes, 0),
                Some(Chunk::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let n = out.len().min(self.chunk.len() - self.at);
        out[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl<R: Input> Input for WhileFollowed<'_, R> {
    fn file(&self) -> Option<&File> {
        self.input.file()
    }
}

/// Ends with an error once the node follows somebody else.
struct WhileFollowed<'a, R> {
    node: &'a Node,
    ticket: u64,
    input: R,
}

impl<R: Read> Read for WhileFollowed<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.node.shared.keyspace.log.accepts(self.ticket) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.input.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_breaks_off_is_no_whole_file() {
        let pipe = || {
            let (sender, queue) = mpsc::channel(8);
            (sender, Pipe { queue, chunk: Vec::new(), at: 0, ended: false })
        };
        let (sender, mut whole) = pipe();
        for part in ["RED", "", "IS0010"] {
            assert!(sender.blocking_send(Chunk::Bytes(part.into())).is_ok());
        }
        assert!(sender.blocking_send(Chunk::End).is_ok());
        let mut out = String::new();
        whole.read_to_string(&mut out).unwrap();
        assert_eq!(out, "REDIS0010");

        let (sender, mut broken) = pipe();
        assert!(sender.blocking_send(Chunk::Bytes("REDIS".into())).is_ok());
        drop(sender);
        let error = broken.read_to_string(&mut String::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
