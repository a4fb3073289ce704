//! INFO: sections of typed fields, shown as `field:value` lines. One file a section or two; the field names are Redis's.
//! Source: the documentation of INFO.
//!
//! [`replication`], [`persistence`] and [`cluster`] tell what the parts of the server that they are
//! called after know.

use std::fmt::{Display, Write as _};

use crate::acl::category;
use crate::command::spec::{EVERYWHERE, Group::Server, Mode, flags::*};
use crate::command::{Command, Ctx, DONE, Result};
use crate::server::commands::node;
use crate::server::node::Node;

mod clients;
mod cluster;
mod commands;
mod cpu;
mod keyspace;
pub mod memory;
mod persistence;
mod replication;
mod sentinel;
mod server;
mod stats;

/// INFO.
pub const COMMANDS: &[Command] = &[Command::new("info", -1, Server, info)
    .flags(LOADING | STALE | READS_COUNTERS)
    .categories(category::DANGEROUS)
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
    .complexity("O(1)")
    .history(&[("7.0.0", "Several sections at once.")])
    .doc("1.0.0", "[section ...]", "Describes the server and its counters.")
    .modes(EVERYWHERE)];

fn info(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let sections: Vec<String> =
        args[1..].iter().map(|a| String::from_utf8_lossy(a).to_ascii_lowercase()).collect();
    ctx.reply.verbatim("txt", &render(node(ctx), &sections));
    DONE
}

/// What a field tells. INFO shows it as text; who counts and compares takes the number.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Shown in decimal digits.
    Integer(i128),
    /// A number, and how many decimals INFO shows.
    Decimal(f64, usize),
    /// Shown as it is.
    Text(String),
}

macro_rules! integer {
    ($($t:ty)*) => {$(
        impl From<$t> for Value {
            fn from(value: $t) -> Self {
                Self::Integer(value as i128)
            }
        }
    )*};
}
integer!(u8 u16 u32 u64 usize u128 i32 i64);

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<std::fmt::Arguments<'_>> for Value {
    fn from(text: std::fmt::Arguments<'_>) -> Self {
        Self::Text(text.to_string())
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(n) => write!(f, "{n}"),
            Self::Decimal(n, places) => write!(f, "{n:.places$}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Fields of a section, in order.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Appends a field; its name is unique within the section.
    pub fn field(&mut self, name: impl Display, value: impl Into<Value>) {
        self.0.push((name.to_string(), value.into()));
    }

    /// Takes over `field:value` lines of writers that know nothing of fields.
    pub fn lines(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.parse().map_or_else(|_| value.into(), Value::Integer);
            self.0.push((name.to_owned(), value));
        }
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
    write: fn(&Node, &mut Fields),
}

const fn section(title: &'static str, write: fn(&Node, &mut Fields)) -> Section {
    Section { title, shown: Shown::Always, write }
}

/// The sections of a sentinel, which has no data.
const SENTINEL_SECTIONS: &[Section] = &[
    section("Server", server::write),
    section("Clients", clients::write),
    section("Stats", stats::write),
    section("CPU", cpu::write),
    section("Sentinel", sentinel::write),
];

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
    Section { title: "Latencystats", shown: Shown::OnRequest, write: commands::latencies },
    section("Cluster", cluster::write),
    section("Keyspace", keyspace::write),
];

/// The sections named, in lower case, or the default ones if none is: the title of each and its fields.
pub fn sections(node: &Node, names: &[String]) -> Vec<(&'static str, Fields)> {
    let named = |name: &str| names.iter().any(|n| n == name);
    let default = names.is_empty() || named("default");
    let everything = named("all") || named("everything");
    let wanted = |section: &&Section| {
        let by_default = default && section.shown == Shown::Always;
        everything || by_default || named(&section.title.to_ascii_lowercase())
    };
    let filled = |section: &Section| {
        let mut fields = Fields::default();
        (section.write)(node, &mut fields);
        (section.title, fields)
    };
    let all = if node.origin.mode == Mode::Sentinel { SENTINEL_SECTIONS } else { SECTIONS };
    all.iter().filter(wanted).map(filled).collect()
}

/// The text of the sections named.
pub fn render(node: &Node, names: &[String]) -> String {
    let mut text = String::new();
    for (title, fields) in sections(node, names) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        // A String takes everything.
        let _ = write!(text, "# {title}\r\n");
        for (name, value) in &fields.0 {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }
    text
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
