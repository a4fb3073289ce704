//! The file that is written: whole units appended to an increment, blocks set aside behind them, a failed write taken
//! off again.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use bytes::Bytes;

use crate::keyspace::log::{Reader, Taken};
use crate::persist::aof::timestamp;
use crate::resp::write_command;
use crate::server::disk::aof::rewrite;
use crate::server::disk::file::DiskFile;
use crate::server::node::unix_ms;
use crate::server::process::os_error::words;

/// Bytes of the log that are written at once.
pub(super) const BATCH: usize = 4 << 20;
/// Under `always`, bytes for which blocks are set aside at once.
const RESERVE: u64 = 4 << 20;

pub(super) struct Increment {
    pub reader: Reader,
    pub file: Arc<DiskFile>,
    /// Bytes of whole units in the file.
    pub size: u64,
    /// Bytes for which the disk has set blocks aside.
    pub reserved: u64,
    /// Must be selected before the next unit.
    pub select: Option<u16>,
    /// Behind that are bytes of a write that failed, which could not be taken off.
    pub torn: bool,
    /// Nothing is written from this offset on.
    pub ends_at: u64,
    pub cuts: VecDeque<(u64, Option<u16>, Sender<io::Result<()>>)>,
    pub era: u64,
    pub whole: bool,
    /// The file has bytes for which no fsync was begun.
    pub unsynced: bool,
    /// The second of the last annotation.
    pub stamp: i64,
}

impl Increment {
    /// Begins behind what the file has.
    pub fn new(reader: Reader, file: DiskFile, select: Option<u16>, era: u64, whole: bool) -> Self {
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
    pub fn catch_up(&mut self, end: u64, stamps: bool) -> io::Result<()> {
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
    pub fn reserve(&mut self) {
        if self.size + RESERVE / 4 > self.reserved {
            // Where that is not possible, blocks come as they are needed; only once is it asked for them.
            let _ = self.file.reserve(self.size, RESERVE);
            self.reserved = self.size + RESERVE;
        }
    }

    /// Gives the blocks behind the end back.
    pub fn release(&mut self) {
        if self.reserved > self.size && self.file.truncate(self.size).is_ok() {
            self.reserved = self.size;
        }
    }

    /// Appends whole units. On an error the file is as it was.
    pub fn write(&mut self, taken: &Taken, stamps: bool) -> io::Result<()> {
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
