//! The context in effect. CONFIG SET makes another, and so do files that change: connections that are there keep the
//! one that they began with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::config::Config;
use crate::server::net::tls::Session;
use crate::server::net::tls::context::{Context, TlsError, is_used};

/// Days before the end of our certificate from which on the log warns of it, once a day.
const WARN_DAYS: u64 = 30;
const DAY: Duration = Duration::from_secs(86_400);

/// What a node has of TLS.
#[derive(Debug, Default)]
pub struct Tls {
    context: ArcSwapOption<Context>,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// As they were when they were last read, whether or not they were of use.
    seen: Vec<Option<Mark>>,
    warned: Option<SystemTime>,
}

/// By what a change of a file is seen: when it changed (also to whom it belongs, and who may read it), its length, and
/// which file it is.
type Mark = (i64, i64, u64, u64);

impl Tls {
    /// The context, unless nothing speaks TLS.
    pub fn context(&self) -> Option<Arc<Context>> {
        self.context.load_full()
    }

    /// The session of a connection to `host`; `None` where none is wanted.
    pub fn towards(&self, wanted: bool, host: &str) -> io::Result<Option<Session>> {
        if !wanted {
            return Ok(None);
        }
        let context = self.context().ok_or_else(|| io::Error::other("TLS is not configured"))?;
        context.connect(host).map(Some).map_err(io::Error::other)
    }

    /// The session of a node that has connected to the bus; `None` where none is wanted.
    pub fn of_peer(&self, wanted: bool) -> io::Result<Option<Session>> {
        if !wanted {
            return Ok(None);
        }
        let context = self.context().ok_or_else(|| io::Error::other("TLS is not configured"))?;
        context.accept_peer().map(Some).map_err(io::Error::other)
    }

    /// Makes the context of a configuration. After an error the former one stays.
    pub fn configure(&self, config: &Config) -> Result<(), TlsError> {
        let mut files = self.files.lock();
        let seen = marks(config);
        let context = if is_used(config) { Some(Arc::new(Context::load(config)?)) } else { None };
        self.context.store(context);
        files.seen = seen;
        files.warned = None;
        Ok(())
    }

    /// Reads the files again if they have changed, and warns of a certificate that expires. Waits for the disk.
    pub fn look(&self, config: &Config, now: SystemTime) {
        if self.context.load().is_none() {
            return;
        }
        let mut files = self.files.lock();
        let seen = marks(config);
        if seen != files.seen {
            // A certificate that was replaced before its key does not fit it yet: the key's change is seen, too.
            files.seen = seen;
            match Context::load(config) {
                Ok(context) => {
                    tracing::info!("The TLS certificates have changed and were read again.");
                    self.context.store(Some(Arc::new(context)));
                    files.warned = None;
                }
                Err(e) => {
                    tracing::warn!("The TLS certificates have changed and are not taken over: {e}");
                }
            }
        }
        let Some(context) = self.context() else { return };
        let due = files.warned.is_none_or(|at| now.duration_since(at).is_ok_and(|since| since >= DAY));
        let left = context.days_left(now);
        if due && left.is_none_or(|days| days < WARN_DAYS) {
            files.warned = Some(now);
            let file = &config.tls_cert_file;
            match left {
                Some(days) => tracing::warn!("The TLS certificate {file} expires in {days} days."),
                None => tracing::warn!("The TLS certificate {file} has expired."),
            }
        }
    }
}

fn marks(config: &Config) -> Vec<Option<Mark>> {
    let files = [
        &config.tls_cert_file,
        &config.tls_key_file,
        &config.tls_client_cert_file,
        &config.tls_client_key_file,
        &config.tls_ca_cert_file,
        &config.tls_ca_cert_dir,
    ];
    // A file of a folder may be written anew in its place, which its folder does not show.
    let mut inside: Vec<PathBuf> = fs::read_dir(&config.tls_ca_cert_dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    inside.sort();
    files.iter().map(|path| mark(Path::new(path))).chain(inside.iter().map(|path| mark(path))).collect()
}

fn mark(path: &Path) -> Option<Mark> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ctime(), metadata.ctime_nsec(), metadata.len(), metadata.ino()))
}
