//! A file that is written, and names that change: every step that a disk can refuse.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::fault::{Step, check};

/// A file that is written.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    /// Under which it was opened, without its folder.
    name: Box<str>,
}

impl DiskFile {
    /// As [`OpenOptions::open`], unless a fault is armed for it.
    pub fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        let name = name_of(path);
        check(Step::Open, &name, 0)?;
        Ok(Self { file: options.open(path)?, name })
    }

    /// An empty file, whatever was there.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::open(OpenOptions::new().write(true).create(true).truncate(true), path)
    }

    /// For what changes no content.
    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// Puts the content on the disk.
    pub fn sync_data(&self) -> io::Result<()> {
        check(Step::Sync, &self.name, 0)?;
        self.file.sync_data()
    }

    /// The same with what the folder says of it.
    pub fn sync_all(&self) -> io::Result<()> {
        check(Step::Sync, &self.name, 0)?;
        self.file.sync_all()
    }

    /// Cuts it off behind so many bytes.
    pub fn truncate(&self, bytes: u64) -> io::Result<()> {
        check(Step::Truncate, &self.name, 0)?;
        self.file.set_len(bytes)
    }

    /// Sets blocks aside for bytes behind its end; its size stays.
    pub fn reserve(&self, from: u64, bytes: u64) -> io::Result<()> {
        let (from, bytes) = (from as libc::off_t, bytes as libc::off_t);
        // SAFETY: a plain call on a descriptor that is open.
        match unsafe { libc::fallocate(self.file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its bytes.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl Write for &DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = check(Step::Write, &self.name, bytes.len())?;
        (&self.file).write(&bytes[..most])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        if check(Step::Write, &self.name, len)? == len {
            return (&self.file).write_vectored(slices);
        }
        // Short: what a disk takes last is a part of the first slice.
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.write(first)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn name_of(path: &Path) -> Box<str> {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}

/// Gives a file another name.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    check(Step::Rename, &name_of(to), 0)?;
    fs::rename(from, to)
}

/// Removes a file.
pub fn remove(path: &Path) -> io::Result<()> {
    check(Step::Remove, &name_of(path), 0)?;
    fs::remove_file(path)
}

/// Puts the name of a file on the disk.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    check(Step::Sync, &name_of(path), 0)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
