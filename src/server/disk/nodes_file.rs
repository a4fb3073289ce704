//! nodes.conf on the disk: locked against a second process, replaced as a whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use super::file::{DiskFile, sync_folder};
use super::replace::Replacement;

/// Why nodes.conf cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodesFileError {
    #[error(
        "Sorry, the cluster configuration file {0} is already used by a different Redis Cluster node. \
         Please make sure that different nodes use different cluster configuration files."
    )]
    /// Its name: another process holds its lock.
    InUse(String),
    /// Its name, and why it cannot be opened.
    #[error("Can't open {0} in order to acquire a lock: {1}")]
    Open(String, io::Error),
}

/// The file, and the lock that lasts as long as this value.
#[derive(Debug)]
pub struct NodesFile {
    path: PathBuf,
    /// The open file that carries the lock. A new file is locked before it is renamed over the old one, so that at
    /// no moment a second process could take the lock.
    locked: DiskFile,
    /// To the thread that closes replaced files. Closing a file that was replaced may block until its data are
    /// written back, on a busy disk for seconds: too long for the thread that answers for the cluster.
    replaced: SyncSender<DiskFile>,
}

/// Replaced files that may wait to be closed.
const REPLACED_MAX: usize = 64;

impl NodesFile {
    /// Opens or creates the file and locks it. Also returns its text, empty for a new node.
    pub fn open(path: &Path) -> Result<(Self, String), NodesFileError> {
        let name = || path.display().to_string();
        let fail = |e| NodesFileError::Open(name(), e);
        let file =
            DiskFile::open(OpenOptions::new().read(true).append(true).create(true), path).map_err(fail)?;
        lock(file.as_file(), path)?;
        let mut text = String::new();
        file.as_file().read_to_string(&mut text).map_err(fail)?;
        let (replaced, closing) = sync_channel::<DiskFile>(REPLACED_MAX);
        let closer = std::thread::Builder::new().name("nodes.conf".into());
        closer.spawn(move || closing.into_iter().for_each(drop)).map_err(fail)?;
        Ok((Self { path: path.to_owned(), locked: file, replaced }, text))
    }

    /// Replaces the content; with `sync` it is on disk when this returns.
    pub fn replace(&mut self, text: &str, sync: bool) -> io::Result<()> {
        let temporary = self.path.with_extension(format!("conf.tmp-{}", std::process::id()));
        let new = Replacement::create(&self.path, temporary.file_name().unwrap_or_default())?;
        new.file().write_all(text.as_bytes())?;
        new.file().as_file().try_lock().map_err(io::Error::other)?;
        let old = std::mem::replace(&mut self.locked, new.rename(sync)?);
        match self.replaced.try_send(old) {
            Ok(()) => {}
            // So many wait that this one is closed here.
            Err(TrySendError::Full(old) | TrySendError::Disconnected(old)) => drop(old),
        }
        if sync {
            sync_folder(&self.path)?;
        }
        Ok(())
    }
}

fn lock(file: &File, path: &Path) -> Result<(), NodesFileError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(NodesFileError::InUse(path.display().to_string())),
        Err(TryLockError::Error(e)) => Err(NodesFileError::Open(path.display().to_string(), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_also_after_the_file_was_replaced() {
        let directory = std::env::temp_dir().join(format!("keystead-nodes-file-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("nodes.conf");
        let (mut file, text) = NodesFile::open(&path).unwrap();
        assert_eq!(text, "");
        assert!(matches!(NodesFile::open(&path), Err(NodesFileError::InUse(_))));
        file.replace("one\n", true).unwrap();
        file.replace("two\n", false).unwrap();
        assert!(matches!(NodesFile::open(&path), Err(NodesFileError::InUse(_))));
        drop(file);
        assert_eq!(NodesFile::open(&path).unwrap().1, "two\n");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
