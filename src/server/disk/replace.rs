//! Replacing a file as a whole: readers see the old content or the new one, also after a power cut.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{DiskFile, remove, rename, sync_folder};

/// A file that is written beside another and takes its name at the end. Dropped before that, it goes.
#[derive(Debug)]
pub struct Replacement {
    file: Option<DiskFile>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Replacement {
    /// Begins to replace `path`, which need not exist, in a file of this name in the same folder.
    pub fn create(path: &Path, temporary_name: impl AsRef<OsStr>) -> io::Result<Self> {
        let temporary = path.with_file_name(temporary_name.as_ref());
        // A process that had this one's number may have left it. It is not followed, if it is a link.
        let _ = fs::remove_file(&temporary);
        let file = DiskFile::open(OpenOptions::new().write(true).create_new(true), &temporary)?;
        Ok(Self { file: Some(file), temporary, path: path.to_owned() })
    }

    /// The new content.
    pub fn file(&self) -> &DiskFile {
        self.file.as_ref().expect("there until it has the name")
    }

    /// Gives the new file the name. With `sync` its content is on the disk before; that the name is, too,
    /// takes [`sync_folder`].
    pub fn rename(mut self, sync: bool) -> io::Result<DiskFile> {
        if sync {
            self.file().sync_all()?;
        }
        rename(&self.temporary, &self.path)?;
        Ok(self.file.take().expect("there until it has the name"))
    }

    /// Gives the new file the name; both are on the disk when this returns.
    pub fn finish(self) -> io::Result<()> {
        let path = self.path.clone();
        drop(self.rename(true)?);
        sync_folder(&path)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What is left of the attempt is of no use to anybody.
            let _ = remove(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_replaced_at_the_end_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("keystead-replace-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        fs::write(&path, "old").unwrap();
        fs::write(folder.join("file.tmp"), "of a crash").unwrap();

        let abandoned = Replacement::create(&path, "file.tmp").unwrap();
        abandoned.file().write_all(b"half of the ne").unwrap();
        drop(abandoned);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");

        let new = Replacement::create(&path, "file.tmp").unwrap();
        new.file().write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        new.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");
        fs::remove_dir_all(&folder).unwrap();
    }
}
