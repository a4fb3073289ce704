//! COMMAND: what commands there are, told from the table.

use crate::acl::category;
use crate::base::glob;
use crate::command::help::help;
use crate::command::spec::{Begin, EVERYWHERE, Find, Group::Server, KeySpec, flags, flags::*, key};
use crate::command::table::CommandEntry;
use crate::command::{Command, CommandError, CommandTable, Ctx, DONE, Result, is};
use crate::resp::Reply;
use crate::server::commands::{docs, node};

pub const COMMANDS: &[Command] = &[Command::new("command", -1, Server, command)
    .flags(LOADING | STALE)
    .categories(category::CONNECTION)
    .tips(&["nondeterministic_output_order"])
    .subcommands(COMMAND)
    .complexity("O(N) where N is the number of commands")
    .doc("2.8.13", "", "Describes all commands.")
    .modes(EVERYWHERE)];

const COMMAND: &[Command] = &[
    Command::new("count", 2, Server, command_count)
        .flags(LOADING | STALE)
        .categories(category::CONNECTION)
        .complexity("O(1)")
        .doc("2.8.13", "", "Counts the commands."),
    Command::new("docs", -2, Server, command_docs)
        .flags(LOADING | STALE)
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .complexity("O(N) where N is the number of commands")
        .doc("7.0.0", "[command-name ...]", "Documents commands."),
    Command::new("getkeys", -3, Server, command_getkeys)
        .flags(LOADING | STALE)
        .categories(category::CONNECTION)
        .complexity("O(N) where N is the number of arguments")
        .doc("2.8.13", "command [arg ...]", "Picks the keys from a whole command."),
    Command::new("getkeysandflags", -3, Server, command_getkeysandflags)
        .flags(LOADING | STALE)
        .categories(category::CONNECTION)
        .complexity("O(N) where N is the number of arguments")
        .doc(
            "7.0.0",
            "command [arg ...]",
            "Picks the keys from a whole command, and says what it does with each.",
        ),
    Command::new("help", 2, Server, command_help)
        .flags(LOADING | STALE)
        .categories(category::CONNECTION)
        .complexity("O(1)")
        .doc("5.0.0", "", "Lists the subcommands."),
    Command::new("info", -2, Server, command_info)
        .flags(LOADING | STALE)
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .complexity("O(N) where N is the number of commands")
        .history(&[("7.0.0", "Several commands may be named, or none.")])
        .doc("2.8.13", "[command-name ...]", "Describes commands."),
    Command::new("list", -2, Server, command_list)
        .flags(LOADING | STALE)
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .complexity("O(N) where N is the number of commands")
        .doc(
            "7.0.0",
            "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
            "Lists the names of commands.",
        ),
];

fn table<'c>(ctx: &Ctx<'c, '_, '_>) -> &'c CommandTable {
    &node(ctx).shared.commands
}

fn command(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    all(table(ctx), ctx.reply);
    DONE
}

fn command_count(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(table(ctx).commands().count() as i64);
    DONE
}

fn command_info(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (table, names) = (table(ctx), &args[2..]);
    if names.is_empty() {
        all(table, ctx.reply);
        return DONE;
    }
    ctx.reply.array(names.len());
    for name in names {
        match find(table, name) {
            Some(id) => info(table, table.get(id), ctx.reply),
            None => ctx.reply.null(),
        }
    }
    DONE
}

fn command_docs(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (table, names) = (table(ctx), &args[2..]);
    let ids: Vec<usize> = if names.is_empty() {
        table.commands().map(|(id, _)| id).collect()
    } else {
        names.iter().filter_map(|name| find(table, name)).collect()
    };
    ctx.reply.map(ids.len());
    for id in ids {
        docs::describe(table, table.get(id), ctx.reply);
    }
    DONE
}

/// COMMAND LIST FILTERBY.
enum Filter<'a> {
    None,
    Module,
    Category(&'a [u8]),
    Pattern(&'a [u8]),
}

impl<'a> Filter<'a> {
    fn parse(words: &[&'a [u8]]) -> Result<Self> {
        match *words {
            [] => Ok(Self::None),
            [by, what, _] if is(by, "filterby") && is(what, "module") => Ok(Self::Module),
            [by, what, name] if is(by, "filterby") && is(what, "aclcat") => Ok(Self::Category(name)),
            [by, what, text] if is(by, "filterby") && is(what, "pattern") => Ok(Self::Pattern(text)),
            _ => Err(CommandError::Syntax),
        }
    }
}

fn command_list(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (table, filter) = (table(ctx), Filter::parse(&args[2..])?);
    let names: Vec<&str> = (0..table.len())
        .map(|id| table.get(id))
        .filter(|entry| passes(entry, &filter))
        .map(|entry| entry.name.as_str())
        .collect();
    ctx.reply.array(names.len());
    for name in names {
        ctx.reply.bulk_str(name);
    }
    DONE
}

fn command_getkeys(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let found = keys(table(ctx), &args[2..])?;
    ctx.reply.array(found.len());
    for (key, _) in found {
        ctx.reply.bulk(key);
    }
    DONE
}

fn command_getkeysandflags(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let found = keys(table(ctx), &args[2..])?;
    ctx.reply.array(found.len());
    for (key, flags) in found {
        ctx.reply.array(2);
        ctx.reply.bulk(key);
        key_flags(flags, ctx.reply);
    }
    DONE
}

fn command_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "command", COMMAND);
    DONE
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
    for (_, entry) in table.commands() {
        info(table, entry, reply);
    }
}

fn passes(entry: &CommandEntry, filter: &Filter<'_>) -> bool {
    match filter {
        Filter::None => true,
        // There are no modules.
        Filter::Module => false,
        Filter::Category(name) => {
            category::find(name).is_some_and(|bit| entry.command.acl_categories() & bit != 0)
        }
        Filter::Pattern(pattern) => glob::matches_nocase(pattern, entry.name.as_bytes()),
    }
}

/// The ten parts that COMMAND tells of a command.
fn info(table: &CommandTable, entry: &CommandEntry, reply: &mut Reply) {
    let command = entry.command;
    reply.array(10);
    reply.bulk_str(&entry.name);
    reply.int(i64::from(command.arity));
    let names = flags::NAMES.iter().filter(|(flag, _)| command.has(*flag)).map(|(_, name)| *name);
    status_set(names.collect(), reply);
    let (first, last, step) = command.legacy_range();
    for n in [first, last, step] {
        reply.int(n);
    }
    let categories: Vec<_> = category::names(command.acl_categories()).collect();
    reply.set(categories.len());
    for name in categories {
        reply.simple(&format!("@{name}"));
    }
    reply.set(command.tips.len());
    for tip in command.tips {
        reply.bulk_str(tip);
    }
    reply.set(command.keys.len());
    for spec in command.keys {
        key_spec(spec, reply);
    }
    match entry.subcommands.len() {
        0 => reply.set(0),
        n => reply.array(n),
    }
    for id in &entry.subcommands {
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

/// The keys of a whole command, with what it does with each (GETKEYS and GETKEYSANDFLAGS).
fn keys<'a>(table: &CommandTable, args: &[&'a [u8]]) -> Result<Vec<(&'a [u8], u16)>> {
    const UNKNOWN: CommandError = CommandError::text("ERR Invalid command specified");
    const INVALID: CommandError = CommandError::text("ERR Invalid arguments specified for command");
    let container = table.find(args[0]).ok_or(UNKNOWN)?;
    let id = match args.get(1) {
        Some(word) if !table.get(container).subcommands.is_empty() => {
            table.find_sub(container, word).ok_or(UNKNOWN)?
        }
        _ => container,
    };
    let command = table.get(id).command;
    if command.keys.iter().all(|spec| spec.flags & key::NOT_KEY != 0) {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    if !command.accepts(args.len()) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let uses = command.key_uses(args).unwrap_or_default();
    // PFMERGE may do without a source; a specification that finds no key is an error for all that.
    let beyond = |spec: &KeySpec| matches!(spec.begin, Begin::Index(at) if at >= args.len());
    if (uses.is_empty() || command.keys.iter().any(beyond)) && !command.has(flags::NO_MANDATORY_KEYS) {
        return Err(INVALID);
    }
    // Here all of them are known, whatever their specification leaves out.
    Ok(uses.into_iter().map(|(at, flags)| (args[at], flags & !key::INCOMPLETE)).collect())
}
