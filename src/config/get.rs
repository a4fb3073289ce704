//! CONFIG GET.

use std::collections::HashSet;

use super::table::{DIRECTIVES, names};
use super::{Config, table};
use crate::base::glob;

/// Names and values of the directives that the patterns select, each once: those of a pattern in
/// the table's order. A name given in full comes back as it was typed, and may be a hidden one.
pub fn get(config: &Config, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for pattern in patterns {
        if !pattern.iter().any(|b| b"[*?".contains(b)) {
            if let Some(row) = table::find(pattern)
                && seen.insert(pattern.to_ascii_lowercase())
            {
                found.push((pattern.to_vec(), row.show(config)));
            }
            continue;
        }
        for row in DIRECTIVES.iter().filter(|row| !row.hidden) {
            for name in names(row) {
                if glob::matches_nocase(pattern, name.as_bytes()) && seen.insert(name.into()) {
                    found.push((name.into(), row.show(config)));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<&[u8]> = patterns.iter().map(|p| p.as_bytes()).collect();
        let pairs = get(&Config::default(), &patterns);
        pairs
            .iter()
            .map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v)))
            .collect()
    }

    #[test]
    fn patterns_and_names_select_each_directive_once() {
        assert_eq!(shown(&["MaxMemory", "maxmemory"]), ["MaxMemory=0"]);
        assert_eq!(
            shown(&["*-PRIORITY", "hz", "no-such"]),
            ["replica-priority=100", "slave-priority=100", "hz=10"]
        );
        assert_eq!(shown(&["save", "unixsocketperm"]), ["save=3600 1 300 100 60 10000", "unixsocketperm=0"]);
    }

    #[test]
    fn hidden_directives_must_be_named_in_full() {
        assert!(shown(&["watchdog*"]).is_empty());
        assert_eq!(shown(&["watchdog-period"]), ["watchdog-period=0"]);
        assert!(!shown(&["*"]).iter().any(|line| line.starts_with("use-exit-on-panic")));
    }
}
