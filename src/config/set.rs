//! CONFIG SET: all pairs or none.

use thiserror::Error;

use super::choice::WhoMay;
use super::directive::Directive;
use super::{Config, table};
use crate::base::lossless;

/// What CONFIG SET asks for, checked. The caller brings it into effect and publishes `config`, or
/// drops it and answers [`SetError::Failed`].
#[derive(Debug)]
pub struct Change {
    /// The settings as they would be.
    pub config: Config,
    /// The directives whose value differs from before, by their names in the table.
    pub changed: Vec<&'static str>,
}

/// Why nothing was set. The texts are replies, without the leading `ERR `.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SetError {
    /// The word in place of a directive, as the client typed it.
    #[error("Unknown option or number of arguments for CONFIG SET - '{}'", lossless::text(.0))]
    Unknown(Vec<u8>),
    /// A directive that cannot take its value, and why.
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {message}")]
    Failed {
        /// As the table of directives spells it.
        name: String,
        /// Why the value was refused; ends the error reply.
        message: String,
    },
}

impl SetError {
    /// A refusal on account of the directive `name`.
    pub fn failed(name: &str, message: impl Into<String>) -> Self {
        Self::Failed { name: name.into(), message: message.into() }
    }
}

/// Checks the pairs of a CONFIG SET against `config`. `local`: the client is on this machine, which
/// `enable-protected-configs local` asks about.
pub fn set(config: &Config, pairs: &[(&[u8], &[u8])], local: bool) -> Result<Change, SetError> {
    let mut rows: Vec<(&'static Directive, &'static str)> = Vec::with_capacity(pairs.len());
    for (typed, _) in pairs {
        let (row, name) = named(typed).ok_or_else(|| SetError::Unknown(typed.to_vec()))?;
        if row.immutable {
            return Err(SetError::failed(&lossless::text(typed), "can't set immutable config"));
        }
        if row.protected && !allowed(config.enable_protected_configs, local) {
            return Err(SetError::failed(&lossless::text(typed), "can't set protected config"));
        }
        if rows.iter().any(|(_, earlier)| *earlier == name) {
            return Err(SetError::failed(&lossless::text(typed), "duplicate parameter"));
        }
        rows.push((row, name));
    }
    let mut changed_config = config.clone();
    for ((row, name), (_, value)) in rows.iter().zip(pairs) {
        row.read(&mut changed_config, &[value], true).map_err(|message| SetError::failed(name, message))?;
    }
    let mut changed: Vec<_> = rows
        .iter()
        .filter(|(row, _)| row.show(&changed_config) != row.show(config))
        .map(|(row, _)| row.name)
        .collect();
    // A directive and its alias may both be named.
    changed.dedup();
    Ok(Change { config: changed_config, changed })
}

/// The row called `typed`, and the name or alias by which it was called.
fn named(typed: &[u8]) -> Option<(&'static Directive, &'static str)> {
    let row = table::find(typed)?;
    let name = table::names(row).find(|n| typed.eq_ignore_ascii_case(n.as_bytes()))?;
    Some((row, name))
}

/// Whether a client may do what `who` guards.
pub fn allowed(who: WhoMay, local: bool) -> bool {
    match who {
        WhoMay::Nobody => false,
        WhoMay::Everybody => true,
        WhoMay::Local => local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_set(config: &mut Config, pairs: &[(&str, &str)]) -> String {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        match set(config, &pairs, true) {
            Ok(change) => {
                *config = change.config;
                change.changed.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_session() {
        let mut config = Config::default();
        let c = &mut config;
        assert_eq!(
            try_set(c, &[("MAXMEMORY", "1gb"), ("slave-priority", "5")]),
            "maxmemory replica-priority"
        );
        assert_eq!((c.maxmemory, c.replica_priority), (1 << 30, 5));
        assert_eq!(try_set(c, &[("maxmemory", "1gb")]), "");
        assert_eq!(try_set(c, &[("save", "60 100 900 1")]), "save");
        assert_eq!(c.save.0.len(), 2);
        assert_eq!(try_set(c, &[("save", "")]), "save");
        assert!(c.save.0.is_empty());
        assert_eq!(
            try_set(c, &[("client-output-buffer-limit", "normal 1 2 3 replica 1kb 2mb 3")]),
            "client-output-buffer-limit"
        );
        assert_eq!(c.client_output_buffer_limit.pubsub.soft_seconds, 60);
        assert_eq!(try_set(c, &[("maxmemory", "")]), "maxmemory");
        assert_eq!(try_set(c, &[("repl-backlog-size", "1024")]), "repl-backlog-size");
        assert_eq!(c.repl_backlog_size, 16384);
        assert_eq!(try_set(c, &[("loglevel", "nothing"), ("log-format", "json")]), "loglevel log-format");
    }

    #[test]
    fn one_mistake_leaves_everything_as_it_was() {
        let mut config = Config::default();
        let before = config.clone();
        for (pairs, message) in [
            (
                &[("maxmemory", "100mb"), ("foo", "1")][..],
                "Unknown option or number of arguments for CONFIG SET - 'foo'",
            ),
            (
                &[("maxmemory", "100mb"), ("port", "abc")],
                "CONFIG SET failed (possibly related to argument 'port') - \
                 argument couldn't be parsed into an integer",
            ),
            (
                &[("daemonize", "yes")],
                "CONFIG SET failed (possibly related to argument 'daemonize') - can't set immutable config",
            ),
            (
                &[("dir", "/tmp")],
                "CONFIG SET failed (possibly related to argument 'dir') - can't set protected config",
            ),
            (
                &[("hz", "1"), ("HZ", "2")],
                "CONFIG SET failed (possibly related to argument 'HZ') - duplicate parameter",
            ),
            (
                &[("save", "60 100 30")],
                "CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters",
            ),
            (
                &[("notify-keyspace-events", "K E")],
                "CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - \
                 Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
            ),
            (
                &[("oom-score-adj-values", "1 2")],
                "CONFIG SET failed (possibly related to argument 'oom-score-adj-values') - \
                 wrong number of arguments",
            ),
        ] {
            assert_eq!(try_set(&mut config, pairs), message);
            assert_eq!(config, before);
        }
        assert!(allowed(WhoMay::Local, true) && !allowed(WhoMay::Local, false));
    }

    /// Events as redis-server 7.0.15 shows them after CONFIG SET, but that it hides an `n` beside `A`:
    /// whoever adds a letter to what is shown would lose it.
    #[test]
    fn keyspace_events_come_back_in_canonical_order() {
        for (given, shown) in [
            ("KEA", "AKE"),
            ("EKxg", "gxKE"),
            ("Kg$lshzxetdm", "AKm"),
            ("", ""),
            ("nmdt", "tdnm"),
            ("mEKn", "nKEm"),
            ("mnKA", "AnKm"),
        ] {
            let mut config = Config::default();
            try_set(&mut config, &[("notify-keyspace-events", given)]);
            let got = crate::config::get::get(&config, &[b"notify-keyspace-events"]);
            assert_eq!(String::from_utf8_lossy(&got[0].1), shown);
        }
    }

    #[test]
    fn percentiles_and_shares_of_memory_are_shown_as_redis_shows_them() {
        let mut config = Config::default();
        for (name, given, shown) in [
            ("latency-tracking-info-percentiles", "50.5 99 33.33333333333", "50.5 99 33.333333"),
            ("latency-tracking-info-percentiles", "", ""),
            ("latency-tracking-info-percentiles", "0 100", "0 100"),
            ("maxmemory-clients", "50%", "50%"),
            ("maxmemory-clients", "0%", "0"),
            ("maxmemory-clients", "1mb", "1048576"),
            ("shutdown-on-sigterm", "now nosave", "nosave now"),
            ("bind", "127.0.0.1 -::1", "127.0.0.1 -::1"),
            ("bind", "", ""),
        ] {
            try_set(&mut config, &[(name, given)]);
            assert_eq!(String::from_utf8_lossy(&table::find(name.as_bytes()).unwrap().show(&config)), shown);
        }
    }
}
