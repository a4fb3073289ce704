//! INFO: sections of `field:value` lines. One file a section or two; the field names are Redis's.
//! Source: the documentation of INFO.
//!
//! [`replication`], [`persistence`] and [`cluster`] tell what the parts of the server that they are
//! called after know.

use std::fmt::{Display, Write as _};

use crate::server::node::Node;

mod clients;
mod cluster;
mod commands;
mod cpu;
mod keyspace;
mod memory;
mod persistence;
mod replication;
mod server;
mod stats;

/// Lines under construction.
#[derive(Debug, Default)]
pub struct Lines(String);

impl Lines {
    pub fn field(&mut self, name: impl Display, value: impl Display) {
        // A String takes everything.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// The text so far, for writers that know nothing of fields.
    pub fn text(&mut self) -> &mut String {
        &mut self.0
    }

    /// A size in bytes, and the same for people.
    pub fn size(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(format_args!("{name}_human"), human(bytes));
    }
}

/// Whether a section is shown unless it is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Always,
    /// By `all` and `everything` only.
    OnRequest,
}

struct Section {
    title: &'static str,
    shown: Shown,
    write: fn(&Node, &mut Lines),
}

const fn section(title: &'static str, write: fn(&Node, &mut Lines)) -> Section {
    Section { title, shown: Shown::Always, write }
}

const SECTIONS: &[Section] = &[
    section("Server", server::write),
    section("Clients", clients::write),
    section("Memory", memory::write),
    section("Persistence", persistence::write),
    section("Stats", stats::write),
    section("Replication", replication::write),
    section("CPU", cpu::write),
    section("Modules", |_, _| {}),
    Section { title: "Commandstats", shown: Shown::OnRequest, write: commands::calls },
    section("Errorstats", commands::errors),
    section("Cluster", cluster::write),
    section("Keyspace", keyspace::write),
];

/// The text of the sections named, in lower case; of the default ones if none is.
pub fn render(node: &Node, names: &[String]) -> String {
    let named = |name: &str| names.iter().any(|n| n == name);
    let default = names.is_empty() || named("default");
    let everything = named("all") || named("everything");
    let mut lines = Lines::default();
    for section in SECTIONS {
        let by_default = default && section.shown == Shown::Always;
        if !(everything || by_default || named(&section.title.to_ascii_lowercase())) {
            continue;
        }
        if !lines.0.is_empty() {
            lines.0.push_str("\r\n");
        }
        let _ = write!(lines.0, "# {}\r\n", section.title);
        (section.write)(node, &mut lines);
    }
    lines.0
}

/// Bytes as `1.50M`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1 << 20, "1.00M"), (1610612736, "1.50G")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
