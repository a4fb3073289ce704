//! The configuration on disk: read with its includes at the start, replaced by CONFIG REWRITE.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::replace::Replacement;
use crate::config::{Loaded, file};
use crate::server::process::cli::Invocation;
use crate::server::process::os_error::words;

/// Why the configuration could not be read. The text goes to stderr before the exit.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("Fatal error, can't open config file '{}': {}\n", path.display(), words(error))]
    #[expect(missing_docs, reason = "the text of the error tells")]
    Open { path: PathBuf, error: io::Error },
    /// Standard input, which `-` stands for.
    #[error("Fatal error, can't read the configuration from standard input: {}\n", words(.0))]
    Stdin(io::Error),
    /// A line of the file or of the command line is wrong.
    #[error(transparent)]
    Line(#[from] file::FileError),
}

/// Reads the file, then standard input, then the directives of the command line.
pub fn read(invocation: &Invocation) -> Result<Loaded, ReadError> {
    let mut text = Vec::new();
    if let Some(path) = &invocation.config_file {
        text = fs::read(path).map_err(|error| ReadError::Open { path: path.clone(), error })?;
    }
    if invocation.stdin {
        io::stdin().read_to_end(&mut text).map_err(ReadError::Stdin)?;
    }
    text.extend(&invocation.directives);
    Ok(file::load(&text, invocation.sentinel, &mut included)?)
}

/// The files that an `include` names: those that a pattern matches, in the order of their names, or
/// the one file, which must exist.
fn included(pattern: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let open = |path: &Path| match fs::read(path) {
        Ok(content) => Ok((path.display().to_string(), content)),
        Err(error) => {
            Err(format!("Fatal error, can't open config file '{}': {}", path.display(), words(&error)))
        }
    };
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![open(Path::new(pattern))?]);
    }
    let paths = glob::glob(pattern).map_err(|error| format!("Bad include pattern: {error}"))?;
    paths.filter_map(Result::ok).map(|path| open(&path)).collect()
}

/// The text of the file; empty if somebody removed it since the start.
pub fn read_or_empty(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        read => read,
    }
}

/// Replaces the file as a whole: readers see the old text or the new one, also after a power cut.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // A link stays a link: its target is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let new = Replacement::create(&path, name)?;
    if let Ok(old) = fs::metadata(&path) {
        // A process that may not give it back to its owner leaves it as its own. Before the mode, which
        // this may reduce.
        let _ = std::os::unix::fs::fchown(new.file().as_file(), Some(old.uid()), Some(old.gid()));
        new.file().as_file().set_permissions(old.permissions())?;
    }
    new.file().write_all(text)?;
    new.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder that goes when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("keystead-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_includes_and_directives_in_order() {
        let folder = Folder::new("config-read");
        let root = folder.0.display();
        folder.write("a-1.conf", "port 1\ntimeout 1");
        folder.write("a-2.conf", "port 2");
        let main = folder.write(
            "main.conf",
            &format!("port 9\ninclude {root}/a-*.conf\ninclude {root}/none-*.conf\nhz 20"),
        );
        let invocation = Invocation {
            config_file: Some(main.clone()),
            stdin: false,
            sentinel: false,
            directives: b"\nhz \"30\" ".to_vec(),
        };
        let config = read(&invocation).unwrap().config;
        assert_eq!((config.port, config.timeout, config.hz), (2, 1, 30));

        folder.write("main.conf", &format!("include {root}/gone.conf"));
        let error = read(&invocation).unwrap_err().to_string();
        assert!(
            error.contains("at line 1") && error.ends_with("gone.conf': No such file or directory\n"),
            "{error}"
        );
        fs::remove_file(&main).unwrap();
        let error = read(&invocation).unwrap_err().to_string();
        assert!(error.starts_with("Fatal error, can't open config file '"), "{error}");
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let folder = Folder::new("config-replace");
        let real = folder.write("real.conf", "old\n");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.0.join("link.conf");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"new\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new\n");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2, "nothing is left over");
        assert!(replace(&folder.0.join("gone/x.conf"), b"x").is_err());
        assert_eq!(read_or_empty(&folder.0.join("gone.conf")).unwrap(), b"");
    }
}
