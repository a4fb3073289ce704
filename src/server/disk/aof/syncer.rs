//! The thread that waits for the disk, so that the one that writes need not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Thread};

use crate::server::disk::file::DiskFile;
use crate::server::process::crash;

/// A file, up to where it was to be on the disk, and how that went.
pub(super) type Synced = (Arc<DiskFile>, u64, io::Result<()>);

/// The thread that waits for the disk.
pub(super) struct Syncer {
    busy: Arc<AtomicBool>,
    /// It was given a file, and what became of that is not yet known here.
    pub pending: bool,
    files: Sender<(Arc<DiskFile>, u64)>,
    results: Receiver<Synced>,
}

impl Syncer {
    pub fn start(writer: Thread) -> io::Result<Self> {
        let (files, queue) = channel::<(Arc<DiskFile>, u64)>();
        let (sender, results) = channel();
        let busy = Arc::new(AtomicBool::new(false));
        let is_busy = Arc::clone(&busy);
        thread::Builder::new().name("aof-fsync".into()).spawn(move || {
            crash::guard_thread();
            for (file, position) in queue {
                let result = file.sync_data();
                // The writer is gone when the node ends.
                let _ = sender.send((file, position, result));
                is_busy.store(false, Ordering::Release);
                writer.unpark();
            }
        })?;
        Ok(Self { busy, pending: false, files, results })
    }

    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    pub fn begin(&mut self, file: Arc<DiskFile>, position: u64) {
        self.busy.store(true, Ordering::Release);
        self.pending = true;
        // The thread lives as long as this.
        let _ = self.files.send((file, position));
    }

    /// What it has done, if it has.
    pub fn ended(&mut self) -> Option<Synced> {
        let synced = self.results.try_recv().ok()?;
        self.pending = false;
        Some(synced)
    }

    /// The same, but waits for it; `None` if it was given nothing.
    pub fn wait(&mut self) -> Option<Synced> {
        if !std::mem::take(&mut self.pending) {
            return None;
        }
        self.results.recv().ok()
    }
}
