//! Limits of the process: open files for `maxclients`, the kernel's out-of-memory score.

use std::fs;
use std::io;

use tracing::{info, warn};

use crate::config::Config;
use crate::config::choice::OomScoreAdj;
use crate::server::process::os_error::words;

/// Descriptors for everything that is not a client: files, links, listeners.
const RESERVED_FILES: u64 = 32;

/// Raises the limit of open files so that `maxclients` clients fit beside what the server needs for
/// itself (`own` descriptors more than Redis's reserve). Returns the number of clients that fit;
/// the error is a message that stops the start.
pub fn raise_open_files(maxclients: u32, own: u64) -> Result<u32, String> {
    let reserved = RESERVED_FILES + own;
    let wanted = u64::from(maxclients) + reserved;
    let current = open_files().unwrap_or_else(|error| {
        warn!(
            "Unable to obtain the current NOFILE limit ({}), assuming 1024 and setting the max clients configuration accordingly.",
            words(&error)
        );
        1024
    });
    if current >= wanted {
        return Ok(maxclients);
    }
    // The greatest limit that the system grants lies between the current one and the wanted one.
    let (mut reached, mut refused, mut refusal) = (current, wanted + 1, None);
    let mut attempt = wanted;
    while reached < attempt {
        match set_open_files(attempt) {
            Ok(()) => reached = attempt,
            Err(error) => (refused, refusal) = (attempt, Some(error)),
        }
        attempt = reached + (refused - reached) / 2;
    }
    let Some(refusal) = refusal else {
        info!("Increased maximum number of open files to {reached} (it was originally set to {current}).");
        return Ok(maxclients);
    };
    if reached <= reserved {
        return Err(format!(
            "Your current 'ulimit -n' of {current} is not enough for the server to start. \
             Please increase your open file limit to at least {wanted}. Exiting."
        ));
    }
    let fitting = (reached - reserved) as u32;
    warn!("You requested maxclients of {maxclients} requiring at least {wanted} max file descriptors.");
    warn!("Server can't set maximum open files to {wanted} because of OS error: {}.", words(&refusal));
    warn!(
        "Current maximum open files is {reached}. maxclients has been reduced to {fitting} to compensate \
         for low ulimit. If you need higher maxclients increase 'ulimit -n'."
    );
    Ok(fitting)
}

/// The soft limit of open files.
pub fn open_files() -> io::Result<u64> {
    Ok(open_files_limit()?.rlim_cur)
}

fn open_files_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to `limit` only.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_open_files(files: u64) -> io::Result<()> {
    // The hard limit is never lowered: without privileges there is no way back.
    let limit = libc::rlimit { rlim_cur: files, rlim_max: open_files_limit()?.rlim_max.max(files) };
    // SAFETY: the call reads `limit` only.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The process's out-of-memory score, and what it was before the server touched it.
#[derive(Debug, Default)]
pub struct OomScore {
    /// Set while the score is ours.
    before: Option<i32>,
}

const OOM_FILE: &str = "/proc/self/oom_score_adj";

impl OomScore {
    /// Applies `oom-score-adj` for a primary or a replica; to be called at the start, when the
    /// directives change and when the role changes.
    pub fn apply(&mut self, config: &Config, is_replica: bool) -> io::Result<()> {
        let values = config.oom_score_adj_values;
        let value = if is_replica { values.replica } else { values.primary };
        let score = match (config.oom_score_adj, self.before) {
            (OomScoreAdj::No, None) => return Ok(()),
            (OomScoreAdj::No, Some(before)) => {
                self.before = None;
                before
            }
            (OomScoreAdj::Absolute, _) => {
                self.before()?;
                value
            }
            (OomScoreAdj::Yes | OomScoreAdj::Relative, _) => self.before()? + value,
        };
        // The kernel's own range.
        fs::write(OOM_FILE, score.clamp(-1000, 1000).to_string())
    }

    fn before(&mut self) -> io::Result<i32> {
        if let Some(before) = self.before {
            return Ok(before);
        }
        let text = fs::read_to_string(OOM_FILE)?;
        let before = text.trim().parse().map_err(io::Error::other)?;
        self.before = Some(before);
        Ok(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_the_system_allows() {
        let before = open_files().unwrap();
        // More than any system allows: what fits is told, and it leaves room for the server's own.
        let fitting = raise_open_files(u32::MAX, 8).unwrap();
        assert!(u64::from(fitting) + RESERVED_FILES + 8 <= open_files().unwrap());
        assert!(open_files().unwrap() >= before);
        assert_eq!(raise_open_files(10, 8), Ok(10));
    }

    #[test]
    fn the_score_rises_and_returns() {
        let now = || fs::read_to_string(OOM_FILE).unwrap().trim().parse::<i32>().unwrap();
        let before = now();
        let mut config = Config::default();
        let mut score = OomScore::default();
        score.apply(&config, true).unwrap();
        assert_eq!(now(), before, "off by default");
        // Raising needs no privilege; falling back may.
        config.oom_score_adj = OomScoreAdj::Relative;
        config.oom_score_adj_values.replica = 7;
        score.apply(&config, true).unwrap();
        assert_eq!(now(), (before + 7).min(1000));
        config.oom_score_adj = OomScoreAdj::No;
        score.apply(&config, true).unwrap();
        assert_eq!(now(), before);
    }
}
