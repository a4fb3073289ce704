//! Going to the background, and the file that tells the process id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::server::process::allocator;

/// Leaves the parent, which exits with success, and goes on in a child without a terminal: a session
/// of its own, with standard input, output and error on /dev/null.
///
/// Must be called while the process has no thread beside the caller's and the allocator's own, which
/// know about forks: the child keeps only the caller's.
pub fn to_background() -> io::Result<()> {
    // Opened first, so that whoever started the server still sees a failure.
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: no thread but the allocator's, which takes its locks around a fork, can hold a lock that
    // the child would find taken for ever.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        // SAFETY: `_exit` ends the parent at once, without running what belongs to the child now.
        _ => unsafe { libc::_exit(0) },
    }
    // SAFETY: setsid takes nothing; dup2 replaces descriptors 0 to 2, of which Rust's standard streams
    // only know the numbers. `null` is open until the end of the function.
    unsafe {
        libc::setsid();
        let null = std::os::fd::AsRawFd::as_raw_fd(&null);
        for standard in 0..=2 {
            if libc::dup2(null, standard) == -1 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    allocator::after_fork();
    Ok(())
}

/// The file that holds the process id while the server runs.
#[derive(Debug)]
pub struct PidFile(PathBuf);

/// Where the id goes in the background when the configuration does not say.
const DEFAULT_PATH: &str = "/var/run/keystead.pid";

impl PidFile {
    /// The path to use: the configured one, a default in the background, otherwise none.
    pub fn path(configured: &str, background: bool) -> Option<PathBuf> {
        match configured {
            "" => background.then(|| DEFAULT_PATH.into()),
            path => Some(path.into()),
        }
    }

    /// Writes the file. The server goes on when this fails, but says so.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Absolute, because the server changes its directory.
        let path = std::path::absolute(path)?;
        fs::write(&path, format!("{}\n", std::process::id()))?;
        Ok(Self(path))
    }

    /// Removes the file at the end of an orderly shutdown.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_comes_and_goes() {
        assert_eq!(PidFile::path("", false), None);
        assert_eq!(PidFile::path("", true), Some(DEFAULT_PATH.into()));
        let path = std::env::temp_dir().join(format!("keystead-pidfile-{}", std::process::id()));
        let file = PidFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        file.remove().unwrap();
        assert!(!path.exists());
        assert!(PidFile::create(Path::new("/no/such/folder/pid")).is_err());
    }
}
