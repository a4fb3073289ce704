//! INFO: sections of typed fields, shown as `field:value` lines. One file a section or two; the field names are Redis's.
//! Source: the documentation of INFO.
//!
//! [`replication`], [`persistence`] and [`cluster`] tell what the parts of the server that they are
//! called after know.

use std::fmt::Write as _;

use crate::acl::category;
use crate::command::spec::{EVERYWHERE, Group::Server, Mode, flags::*};
use crate::command::{Command, Ctx, DONE, Result};
use crate::server::commands::node;
use crate::server::node::Node;
use crate::server::node::fields::Fields;

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
    let all = if node.life.origin.mode == Mode::Sentinel { SENTINEL_SECTIONS } else { SECTIONS };
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
        for (name, value) in fields.iter() {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }
    text
}
