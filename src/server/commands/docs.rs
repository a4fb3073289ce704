//! COMMAND DOCS: a command's documentation from its row.

use crate::command::CommandTable;
use crate::command::spec::flags;
use crate::command::syntax::{Argument, arguments};
use crate::command::table::CommandEntry;
use crate::resp::Reply;

/// Writes the command's name and the map of what is known about it.
pub fn describe(table: &CommandTable, entry: &CommandEntry, reply: &mut Reply) {
    let command = entry.command;
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
        + usize::from(!command.history.is_empty())
        + usize::from(!arguments.is_empty())
        + usize::from(!entry.subcommands.is_empty());
    reply.bulk_str(&entry.name);
    reply.map(fields);
    text("summary", command.summary, reply);
    text("since", command.since, reply);
    text("group", command.group.name(), reply);
    if !command.complexity.is_empty() {
        text("complexity", command.complexity, reply);
    }
    if !labels.is_empty() {
        reply.bulk(b"doc_flags");
        names(&labels, reply);
    }
    if let Some((since, instead)) = command.deprecated {
        text("deprecated_since", since, reply);
        text("replaced_by", instead, reply);
    }
    if !command.history.is_empty() {
        reply.bulk(b"history");
        reply.set(command.history.len());
        for (version, change) in command.history {
            reply.array(2);
            reply.bulk_str(version);
            reply.bulk_str(change);
        }
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        list(&arguments, reply);
    }
    if !entry.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(entry.subcommands.len());
        for id in &entry.subcommands {
            describe(table, table.get(*id), reply);
        }
    }
}

fn text(name: &str, value: &str, reply: &mut Reply) {
    reply.bulk_str(name);
    reply.bulk_str(value);
}

fn names(names: &[&str], reply: &mut Reply) {
    reply.set(names.len());
    for name in names {
        reply.simple(name);
    }
}

fn list(arguments: &[Argument], reply: &mut Reply) {
    reply.array(arguments.len());
    for argument in arguments {
        describe_argument(argument, reply);
    }
}

fn describe_argument(a: &Argument, reply: &mut Reply) {
    let flags: Vec<&str> =
        [(a.optional, "optional"), (a.multiple, "multiple"), (a.multiple_token, "multiple_token")]
            .into_iter()
            .filter_map(|(on, name)| on.then_some(name))
            .collect();
    let is_value = a.arguments.is_empty() && a.kind != "pure-token";
    let shown = is_value.then(|| a.shown.as_ref().unwrap_or(&a.name));
    let texts = [
        ("display_text", shown),
        ("token", a.token.as_ref()),
        ("since", a.since.as_ref()),
        ("deprecated_since", a.deprecated_since.as_ref()),
    ];
    let fields = 2
        + texts.iter().filter(|(_, value)| value.is_some()).count()
        + usize::from(a.key_spec.is_some())
        + usize::from(!flags.is_empty())
        + usize::from(!a.arguments.is_empty());
    reply.map(fields);
    text("name", &a.name, reply);
    text("type", &a.kind, reply);
    for (name, value) in texts {
        if let Some(value) = value {
            text(name, value, reply);
        }
        if name == "display_text"
            && let Some(number) = a.key_spec
        {
            reply.bulk(b"key_spec_index");
            reply.int(number as i64);
        }
    }
    if !flags.is_empty() {
        reply.bulk(b"flags");
        names(&flags, reply);
    }
    if !a.arguments.is_empty() {
        reply.bulk(b"arguments");
        list(&a.arguments, reply);
    }
}
