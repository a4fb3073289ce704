//! COMMAND DOCS: a command's documentation from its row.

use crate::command::CommandTable;
use crate::command::spec::flags;
use crate::command::syntax::{Argument, arguments};
use crate::command::table::Listed;
use crate::resp::Reply;

/// Writes the command's name and the map of what is known about it.
pub fn describe(table: &CommandTable, listed: &Listed, reply: &mut Reply) {
    let command = listed.command;
    let arguments = arguments(command.syntax);
    let labels: Vec<&str> =
        [(command.deprecated.is_some(), "deprecated"), (command.has(flags::SYSTEM), "syscmd")]
            .into_iter()
            .filter_map(|(on, name)| on.then_some(name))
            .collect();
    let fields = 3
        + usize::from(!command.complexity.is_empty())
        + usize::from(!labels.is_empty())
        + 2 * usize::from(command.deprecated.is_some())
        + usize::from(!arguments.is_empty())
        + usize::from(!listed.subcommands.is_empty());
    reply.bulk_str(&listed.name);
    reply.map(fields);
    text("summary", command.summary, reply);
    text("since", command.since, reply);
    text("group", command.group.name(), reply);
    if !command.complexity.is_empty() {
        text("complexity", command.complexity, reply);
    }
    if !labels.is_empty() {
        reply.bulk(b"doc_flags");
        reply.set(labels.len());
        labels.iter().for_each(|label| reply.simple(label));
    }
    if let Some((since, instead)) = command.deprecated {
        text("deprecated_since", since, reply);
        text("replaced_by", instead, reply);
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        reply.array(arguments.len());
        let mut keys = 0;
        for a in &arguments {
            argument(a, command.keys.len(), &mut keys, reply);
        }
    }
    if !listed.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(listed.subcommands.len());
        for id in &listed.subcommands {
            describe(table, table.get(*id), reply);
        }
    }
}

fn text(name: &str, value: &str, reply: &mut Reply) {
    reply.bulk_str(name);
    reply.bulk_str(value);
}

/// `specs`: key specifications that are there to be named; `keys`: those named already.
fn argument(a: &Argument, specs: usize, keys: &mut usize, reply: &mut Reply) {
    let is_key = a.kind == "key" && *keys < specs;
    let flags: Vec<&str> = [(a.optional, "optional"), (a.multiple, "multiple")]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect();
    let shows_name = a.arguments.is_empty() && a.kind != "pure-token";
    let fields = 2
        + usize::from(shows_name)
        + usize::from(is_key)
        + usize::from(a.token.is_some())
        + usize::from(!flags.is_empty())
        + usize::from(!a.arguments.is_empty());
    reply.map(fields);
    text("name", &a.name, reply);
    text("type", a.kind, reply);
    if shows_name {
        text("display_text", &a.name, reply);
    }
    if is_key {
        reply.bulk(b"key_spec_index");
        reply.int(*keys as i64);
        *keys += 1;
    }
    if let Some(token) = &a.token {
        text("token", token, reply);
    }
    if !flags.is_empty() {
        reply.bulk(b"flags");
        reply.set(flags.len());
        for flag in flags {
            reply.simple(flag);
        }
    }
    if !a.arguments.is_empty() {
        reply.bulk(b"arguments");
        reply.array(a.arguments.len());
        for inner in &a.arguments {
            argument(inner, specs, keys, reply);
        }
    }
}
