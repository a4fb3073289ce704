//! COMMAND: what commands there are, told from the table.

use crate::base::glob;
use crate::command::request::{CommandFilter, CommandsRequest};
use crate::command::spec::{Begin, Find, KeySpec, flags, key};
use crate::command::table::Listed;
use crate::command::{CommandTable, KeyPositions, is};
use crate::resp::Reply;
use crate::server::commands::docs;
use crate::server::node::Node;

pub fn perform(node: &Node, request: CommandsRequest, reply: &mut Reply) {
    let table = &node.shared.commands;
    match request {
        CommandsRequest::All => all(table, reply),
        CommandsRequest::Count => reply.int(table.commands().count() as i64),
        CommandsRequest::Info(names) if names.is_empty() => all(table, reply),
        CommandsRequest::Info(names) => {
            reply.array(names.len());
            for name in names {
                match find(table, &name) {
                    Some(id) => info(table, table.get(id), reply),
                    None => reply.null(),
                }
            }
        }
        CommandsRequest::Docs(names) => {
            let ids: Vec<usize> = if names.is_empty() {
                table.commands().map(|(id, _)| id).collect()
            } else {
                names.iter().filter_map(|name| find(table, name)).collect()
            };
            reply.map(ids.len());
            for id in ids {
                docs::describe(table, table.get(id), reply);
            }
        }
        CommandsRequest::List(filter) => {
            let names: Vec<&str> = (0..table.len())
                .map(|id| table.get(id))
                .filter(|listed| passes(listed, &filter))
                .map(|listed| listed.name.as_str())
                .collect();
            reply.array(names.len());
            for name in names {
                reply.bulk_str(name);
            }
        }
        CommandsRequest::Keys { of, with_flags } => {
            let args: Vec<&[u8]> = of.iter().map(Vec::as_slice).collect();
            if let Err(text) = keys(table, &args, with_flags, reply) {
                reply.error(text);
            }
        }
    }
}

/// A command by its name, or a subcommand by `container|name`.
fn find(table: &CommandTable, name: &[u8]) -> Option<usize> {
    match name.iter().position(|b| *b == b'|') {
        None => table.find(name),
        Some(bar) => table.find_sub(table.find(&name[..bar])?, &name[bar + 1..]),
    }
}

fn all(table: &CommandTable, reply: &mut Reply) {
    reply.array(table.commands().count());
    for (_, listed) in table.commands() {
        info(table, listed, reply);
    }
}

fn passes(listed: &Listed, filter: &CommandFilter) -> bool {
    match filter {
        CommandFilter::None => true,
        // There are no modules.
        CommandFilter::Module => false,
        CommandFilter::Category(name) => {
            let categories = listed.command.acl_categories();
            categories.iter().any(|c| is(name, c.trim_start_matches('@')))
        }
        CommandFilter::Pattern(pattern) => glob::matches_nocase(pattern, listed.name.as_bytes()),
    }
}

/// The ten parts that COMMAND tells of a command.
fn info(table: &CommandTable, listed: &Listed, reply: &mut Reply) {
    let command = listed.command;
    reply.array(10);
    reply.bulk_str(&listed.name);
    reply.int(i64::from(command.arity));
    let names = flags::NAMES.iter().filter(|(flag, _)| command.has(*flag)).map(|(_, name)| *name);
    status_set(names.collect(), reply);
    let (first, last, step) = command.legacy_range();
    for n in [first, last, step] {
        reply.int(n);
    }
    status_set(command.acl_categories(), reply);
    reply.set(command.tips.len());
    for tip in command.tips {
        reply.bulk_str(tip);
    }
    reply.set(command.keys.len());
    for spec in command.keys {
        key_spec(spec, reply);
    }
    match listed.subcommands.len() {
        0 => reply.set(0),
        n => reply.array(n),
    }
    for id in &listed.subcommands {
        info(table, table.get(*id), reply);
    }
}

fn status_set(names: Vec<&str>, reply: &mut Reply) {
    reply.set(names.len());
    for name in names {
        reply.simple(name);
    }
}

fn key_flags(flags: u16, reply: &mut Reply) {
    let names = key::NAMES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name);
    status_set(names.collect(), reply);
}

fn key_spec(spec: &KeySpec, reply: &mut Reply) {
    reply.map(if spec.notes.is_empty() { 3 } else { 4 });
    if !spec.notes.is_empty() {
        reply.bulk(b"notes");
        reply.bulk_str(spec.notes);
    }
    reply.bulk(b"flags");
    key_flags(spec.flags, reply);
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) | Begin::IndexUnless(index, _) => {
            search("index", &[("index", index as i64)], None, reply);
        }
        Begin::Keyword(k) => {
            search("keyword", &[("startfrom", i64::from(k.told_from))], Some(k.word), reply);
        }
        Begin::EachKeyword(k, shown) => {
            search("keyword", &[("startfrom", i64::from(k.told_from))], Some(shown), reply);
        }
        Begin::Unknown | Begin::UnknownKeyword(_) => {
            search("unknown", &[], None, reply);
            reply.bulk(b"find_keys");
            search("unknown", &[], None, reply);
            return;
        }
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let fields = [("lastkey", i64::from(last)), ("keystep", step as i64), ("limit", limit as i64)];
            search("range", &fields, None, reply);
        }
        Find::Count { count, first, step } => {
            let fields = [("keynumidx", count as i64), ("firstkey", first as i64), ("keystep", step as i64)];
            search("keynum", &fields, None, reply);
        }
    }
}

fn search(kind: &str, fields: &[(&str, i64)], keyword: Option<&str>, reply: &mut Reply) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk_str(kind);
    reply.bulk(b"spec");
    reply.map(fields.len() + usize::from(keyword.is_some()));
    if let Some(word) = keyword {
        reply.bulk(b"keyword");
        reply.bulk_str(&word.to_ascii_uppercase());
    }
    for (name, value) in fields {
        reply.bulk_str(name);
        reply.int(*value);
    }
}

/// GETKEYS and GETKEYSANDFLAGS.
fn keys(
    table: &CommandTable,
    args: &[&[u8]],
    with_flags: bool,
    reply: &mut Reply,
) -> Result<(), &'static str> {
    let container = table.find(args[0]).ok_or("ERR Invalid command specified")?;
    let sub = args.get(1).and_then(|word| table.find_sub(container, word));
    let command = table.get(sub.unwrap_or(container)).command;
    if command.keys.iter().all(|spec| spec.flags & key::NOT_KEY != 0) {
        return Err("ERR The command has no key arguments");
    }
    if !command.accepts(args.len()) {
        return Err("ERR Invalid number of arguments specified for command");
    }
    let mut found: Vec<(usize, u16)> = Vec::new();
    for spec in command.keys.iter().filter(|s| s.flags & key::NOT_KEY == 0) {
        let mut positions = KeyPositions::new();
        if !spec.positions(args, &mut positions) {
            return Err("ERR Invalid arguments specified for command");
        }
        let flags = flags_in_use(command.name, spec.flags, args);
        found.extend(positions.into_iter().map(|at| (at, flags)));
    }
    if found.is_empty() {
        return Err("ERR The command has no key arguments");
    }
    reply.array(found.len());
    for (at, flags) in found {
        if with_flags {
            reply.array(2);
            reply.bulk(args[at]);
            key_flags(flags, reply);
        } else {
            reply.bulk(args[at]);
        }
    }
    Ok(())
}

/// What a command whose flags vary does with these arguments.
fn flags_in_use(name: &str, declared: u16, args: &[&[u8]]) -> u16 {
    if declared & key::VARIABLE_FLAGS == 0 {
        return declared;
    }
    let says = |words: &[&str]| args.iter().skip(2).any(|a| words.iter().any(|w| is(a, w)));
    match name {
        "set" if says(&["get"]) => key::RW | key::ACCESS | key::UPDATE,
        "set" => key::OW | key::UPDATE,
        "bitfield" if !says(&["set", "incrby"]) => key::RO | key::ACCESS,
        _ => declared & !key::VARIABLE_FLAGS,
    }
}
