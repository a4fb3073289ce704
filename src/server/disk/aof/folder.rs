//! The folder of the append-only file, and its manifest on the disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::persist::aof::Manifest;
use crate::server::disk::file::{DiskFile, rename, sync_folder};
use crate::server::disk::replace::Replacement;
use crate::server::process::clock::now_ns;
use crate::server::process::os_error::words;

/// What the manifest says, and where. Changes are on the disk before they are here.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    /// Absolute: `dir` may change.
    path: PathBuf,
    /// `appendfilename`, with which all names begin.
    pub prefix: String,
    pub manifest: Manifest,
}

impl Folder {
    /// Reads the manifest that the configuration names; without one there is nothing yet. The error is for the log.
    pub fn open(config: &Config) -> Result<Self, String> {
        let here =
            std::env::current_dir().map_err(|e| format!("Error getting the directory: {}", words(&e)))?;
        let (path, prefix) = (here.join(&config.appenddirname), config.appendfilename.clone());
        let mut folder = Self { path, prefix, manifest: Manifest::default() };
        let file = folder.manifest_path();
        match fs::read(&file) {
            Ok(bytes) => {
                let damaged =
                    |e| format!("*** FATAL AOF MANIFEST FILE ERROR ***\nIn {}:\n{e}", file.display());
                folder.manifest = Manifest::parse(&bytes).map_err(damaged)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                tracing::debug!("The AOF manifest file {} doesn't exist", folder.manifest_name());
            }
            Err(e) => {
                return Err(format!(
                    "Fatal error: can't open the AOF manifest file {} for reading: {}",
                    folder.manifest_name(),
                    words(&e)
                ));
            }
        }
        Ok(folder)
    }

    /// Whether the configuration wants it elsewhere by now: `dir` may have changed.
    pub fn is_elsewhere(&self, config: &Config) -> bool {
        std::env::current_dir().is_ok_and(|here| self.path != here.join(&config.appenddirname))
    }

    /// Goes to where the configuration wants it by now.
    pub fn follow(&mut self, config: &Config) -> Result<(), String> {
        if self.is_elsewhere(config) {
            *self = Self::open(config)?;
        }
        Ok(())
    }

    fn manifest_name(&self) -> String {
        format!("{}.manifest", self.prefix)
    }

    fn manifest_path(&self) -> PathBuf {
        self.path(&self.manifest_name())
    }

    /// Where the file of this name is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn create(&self) -> io::Result<()> {
        match fs::create_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
            Ok(()) => sync_folder(&self.path),
        }
    }

    /// Replaces the manifest; it is on the disk when this returns.
    pub fn persist(&mut self, manifest: Manifest) -> io::Result<()> {
        self.create()?;
        let file = Replacement::create(&self.manifest_path(), format!("temp-{}", self.manifest_name()))?;
        io::Write::write_all(&mut file.file(), manifest.to_text().as_bytes())?;
        file.finish()?;
        self.manifest = manifest;
        Ok(())
    }

    /// Whether the manifest that a start would read names this file: one that could not be put on the disk may have
    /// got its name all the same. Where that is not known, it does.
    fn is_named_on_disk(&self, name: &str) -> bool {
        let manifest = fs::read(self.manifest_path()).map(|bytes| Manifest::parse(&bytes));
        match manifest {
            Ok(Ok(manifest)) => manifest.parts().any(|part| part.name == name),
            Ok(Err(_)) => true,
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Adds an empty increment, which is written from now on. Returns its name.
    pub fn begin_increment(&mut self) -> io::Result<(String, DiskFile)> {
        let mut manifest = self.manifest.clone();
        let name = manifest.new_increment(&self.prefix);
        self.create()?;
        let file = fresh(&self.path(&name))?;
        self.persist(manifest)?;
        Ok((name, file))
    }

    /// Opens the last increment to go on with it, or adds the first one.
    pub fn continue_increment(&mut self) -> io::Result<DiskFile> {
        let Some(last) = self.manifest.increments.last() else {
            let (name, file) = self.begin_increment()?;
            tracing::info!("Creating AOF incr file {name} on server start");
            return Ok(file);
        };
        let file = DiskFile::open(OpenOptions::new().append(true).create(true), &self.path(&last.name))?;
        tracing::info!("Opening AOF incr file {} on server start", last.name);
        Ok(file)
    }

    /// The file in which increments gather while the first base is being written.
    pub fn temporary_increment(&self) -> PathBuf {
        self.path(&self.temporary_name())
    }

    fn temporary_name(&self) -> String {
        format!("temp-{}.incr", self.prefix)
    }

    pub fn create_temporary_increment(&self) -> io::Result<DiskFile> {
        self.create()?;
        fresh(&self.temporary_increment())
    }

    pub fn drop_temporary_increment(&self) {
        // It may not be there.
        let _ = fs::remove_file(self.temporary_increment());
    }

    /// Makes a file that is complete and on the disk the base. `first`: the increments before are worthless, and the
    /// temporary one is the next. `writes`: the last increment is the one that is written now. Returns how many
    /// nanoseconds it took to give the files their names.
    pub fn replace_base(&mut self, new: &Path, rdb: bool, first: bool, writes: bool) -> io::Result<u64> {
        self.create()?;
        let mut manifest = self.manifest.clone();
        let name = manifest.new_base(&self.prefix, rdb);
        manifest.retire_increments(usize::from(writes && !first));
        let began = now_ns();
        rename(new, &self.path(&name)).inspect_err(|e| {
            tracing::warn!(
                "Error trying to rename the temporary AOF base file {} into {name}: {}",
                new.display(),
                words(e)
            );
        })?;
        tracing::info!("Successfully renamed the temporary AOF base file {} into {name}", new.display());
        let mut renamed = None;
        let mut renaming = now_ns().wrapping_sub(began);
        let persisted = (|| {
            if first {
                let increment = manifest.new_increment(&self.prefix);
                let path = self.path(&increment);
                rename(&self.temporary_increment(), &path)?;
                let temporary = self.temporary_name();
                tracing::info!(
                    "Successfully renamed the temporary AOF incr file {temporary} into {increment}"
                );
                renamed = Some(path);
                renaming = now_ns().wrapping_sub(began);
            }
            sync_folder(&self.path(&name))?;
            self.persist(manifest)
        })();
        if persisted.is_err() && !self.is_named_on_disk(&name) {
            // Nothing names them.
            let _ = fs::remove_file(self.path(&name));
            if let Some(path) = renamed {
                let _ = rename(&path, &self.temporary_increment());
            }
        }
        persisted.map(|()| renaming)
    }

    /// Deletes what nobody needs any more.
    pub fn delete_history(&mut self) {
        let mut manifest = self.manifest.clone();
        if manifest.history.is_empty() {
            return;
        }
        for part in std::mem::take(&mut manifest.history) {
            tracing::info!("Removing the history file {} in the background", part.name);
            if let Err(e) = fs::remove_file(self.path(&part.name))
                && e.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("The history file {} cannot be removed: {}", part.name, words(&e));
            }
        }
        if let Err(e) = self.persist(manifest) {
            tracing::warn!(
                "The AOF manifest file {} cannot be replaced: {}",
                self.manifest_name(),
                words(&e)
            );
        }
    }

    /// Takes over a file from before there were folders: it becomes the base. The error is for the log.
    pub fn upgrade(&mut self) -> Result<(), String> {
        let old = PathBuf::from(&self.prefix);
        let adopted = Manifest::adopt(&self.prefix);
        // A crash may have come between the manifest and the move.
        let was_begun = self.manifest == adopted && !self.path(&self.prefix).exists();
        if !(self.manifest.is_empty() || was_begun) || !old.is_file() {
            return Ok(());
        }
        let moved = self.create().and_then(|()| self.persist(adopted));
        let moved = moved.and_then(|()| rename(&old, &self.path(&self.prefix)));
        moved.and_then(|()| sync_folder(&self.path(&self.prefix))).map_err(|e| {
            format!(
                "Error trying to move the old AOF file {} into dir {}: {}",
                self.prefix,
                self.path.display(),
                words(&e)
            )
        })?;
        tracing::info!(
            "Successfully migrated an old-style AOF file ({}) into the AOF directory ({}).",
            self.prefix,
            self.path.display()
        );
        Ok(())
    }

    /// Bytes of the base and of all increments.
    pub fn sizes(&self) -> (u64, u64) {
        let size = |name: &str| fs::metadata(self.path(name)).map_or(0, |m| m.len());
        let base = self.manifest.base.as_ref().map_or(0, |part| size(&part.name));
        (base, self.manifest.increments.iter().map(|part| size(&part.name)).sum())
    }
}

/// An empty file that is appended to, in the place of one that a crash left before the manifest named it.
fn fresh(path: &Path) -> io::Result<DiskFile> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    DiskFile::open(OpenOptions::new().append(true).create_new(true), path)
}
