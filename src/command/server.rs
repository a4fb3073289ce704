//! The server family: INFO, CONFIG, COMMAND, DEBUG, SHUTDOWN and what concerns the whole data set.

use super::ctx::{Ctx, DONE};
use super::help::help;
use super::request::{CommandFilter, CommandsRequest, ConfigRequest, Request, Shutdown};
use super::spec::{Command, Group::Server, flags::*};
use super::{Fail, Result, is};

pub const COMMANDS: &[Command] = &[
    Command::new("info", -1, Server, info)
        .flags(LOADING | STALE)
        .categories(&["@dangerous"])
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .complexity("O(1)")
        .doc("1.0.0", "[section [section ...]]", "Describes the server and its counters."),
    Command::container("config", Server, CONFIG).doc("2.0.0", "", "Commands about the configuration."),
    Command::new("command", -1, Server, command)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .tips(&["nondeterministic_output_order"])
        .subcommands(COMMAND)
        .complexity("O(N) where N is the number of commands")
        .doc("2.8.13", "", "Describes all commands."),
    Command::new("dbsize", 1, Server, dbsize)
        .flags(READONLY | FAST)
        .categories(&["@keyspace"])
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .complexity("O(1)")
        .doc("1.0.0", "", "Counts the keys of the database."),
    Command::new("flushdb", -1, Server, flushdb)
        .flags(WRITE | LOCK_ALL)
        .categories(&["@keyspace", "@dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of keys")
        .doc("1.0.0", "[ASYNC | SYNC]", "Deletes all keys of the database."),
    Command::new("flushall", -1, Server, flushall)
        .flags(WRITE | LOCK_ALL)
        .categories(&["@keyspace", "@dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of keys")
        .doc("1.0.0", "[ASYNC | SYNC]", "Deletes all keys of all databases."),
    Command::new("time", 1, Server, time)
        .flags(LOADING | STALE | FAST)
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("2.6.0", "", "Tells the time of the server."),
    Command::new("shutdown", -1, Server, shutdown)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY)
        .complexity("O(N) where N is the number of keys, if they are saved")
        .doc("1.0.0", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", "Ends the server."),
    Command::new("debug", -2, Server, debug)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE | LOCK_ALL | SYSTEM)
        .doc("1.0.0", "subcommand [argument [argument ...]]", "For tests and developers."),
];

const ADMINISTER: Flags = ADMIN | NOSCRIPT | LOADING | STALE;

const CONFIG: &[Command] = &[
    Command::new("get", -3, Server, config_get)
        .flags(ADMINISTER)
        .complexity("O(N) where N is the number of directives asked for")
        .doc("2.0.0", "parameter [parameter ...]", "Returns directives by name or pattern."),
    Command::new("help", 2, Server, config_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "5.0.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("resetstat", 2, Server, config_resetstat)
        .flags(ADMINISTER)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("2.0.0", "", "Sets the counters of INFO to zero."),
    Command::new("rewrite", 2, Server, config_rewrite)
        .flags(ADMINISTER)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("2.8.0", "", "Writes what has been set to the configuration file."),
    Command::new("set", -4, Server, config_set)
        .flags(ADMINISTER)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of directives")
        .doc("2.0.0", "parameter value [parameter value ...]", "Sets directives, all or none."),
];

const COMMAND: &[Command] = &[
    Command::new("count", 2, Server, command_count)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .complexity("O(1)")
        .doc("2.8.13", "", "Counts the commands."),
    Command::new("docs", -2, Server, command_docs)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .tips(&["nondeterministic_output_order"])
        .complexity("O(N) where N is the number of commands")
        .doc("7.0.0", "[command-name [command-name ...]]", "Documents commands."),
    Command::new("getkeys", -4, Server, command_getkeys)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .complexity("O(N) where N is the number of arguments")
        .doc("2.8.13", "command [arg [arg ...]]", "Picks the keys from a whole command."),
    Command::new("getkeysandflags", -4, Server, command_getkeysandflags)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .complexity("O(N) where N is the number of arguments")
        .doc(
            "7.0.0",
            "command [arg [arg ...]]",
            "Picks the keys from a whole command, and says what it does with each.",
        ),
    Command::new("help", 2, Server, command_help)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .complexity("O(1)")
        .doc("5.0.0", "", "Lists the subcommands."),
    Command::new("info", -2, Server, command_info)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .tips(&["nondeterministic_output_order"])
        .complexity("O(N) where N is the number of commands")
        .doc("2.8.13", "[command-name [command-name ...]]", "Describes commands."),
    Command::new("list", -2, Server, command_list)
        .flags(LOADING | STALE)
        .categories(&["@connection"])
        .tips(&["nondeterministic_output_order"])
        .complexity("O(N) where N is the number of commands")
        .doc(
            "7.0.0",
            "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
            "Lists the names of commands.",
        ),
];

fn owned(args: &[&[u8]]) -> Vec<Vec<u8>> {
    args.iter().map(|a| a.to_vec()).collect()
}

fn info(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let sections = args[1..].iter().map(|a| String::from_utf8_lossy(a).to_ascii_lowercase()).collect();
    Ctx::node(Request::Info { sections })
}

fn config_get(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Ctx::node(Request::Config(ConfigRequest::Get(owned(&args[2..]))))
}

fn config_set(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let pairs = args[2..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Fail::Syntax);
    }
    let pairs = pairs.map(|p| (p[0].to_vec(), p[1].to_vec())).collect();
    Ctx::node(Request::Config(ConfigRequest::Set(pairs)))
}

fn config_rewrite(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Config(ConfigRequest::Rewrite))
}

fn config_resetstat(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Config(ConfigRequest::ResetStat))
}

fn config_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "config", CONFIG);
    DONE
}

fn command(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Commands(CommandsRequest::All))
}

fn command_count(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Commands(CommandsRequest::Count))
}

fn command_info(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Ctx::node(Request::Commands(CommandsRequest::Info(owned(&args[2..]))))
}

fn command_docs(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Ctx::node(Request::Commands(CommandsRequest::Docs(owned(&args[2..]))))
}

fn command_list(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let filter = match &args[2..] {
        [] => CommandFilter::None,
        [by, what, value] if is(by, "filterby") => {
            if is(what, "module") {
                CommandFilter::Module
            } else if is(what, "aclcat") {
                CommandFilter::Category(value.to_vec())
            } else if is(what, "pattern") {
                CommandFilter::Pattern(value.to_vec())
            } else {
                return Err(Fail::Syntax);
            }
        }
        _ => return Err(Fail::Syntax),
    };
    Ctx::node(Request::Commands(CommandsRequest::List(filter)))
}

fn command_getkeys(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Ctx::node(Request::Commands(CommandsRequest::Keys { of: owned(&args[2..]), with_flags: false }))
}

fn command_getkeysandflags(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Ctx::node(Request::Commands(CommandsRequest::Keys { of: owned(&args[2..]), with_flags: true }))
}

fn command_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "command", COMMAND);
    DONE
}

fn dbsize(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(ctx.db.len() as i64);
    DONE
}

/// ASYNC and SYNC make no difference here: values are always dropped on a thread of their own.
fn check_flush_mode(args: &[&[u8]]) -> Result<()> {
    match &args[1..] {
        [] => Ok(()),
        [mode] if is(mode, "async") || is(mode, "sync") => Ok(()),
        _ => Err(Fail::Syntax),
    }
}

fn flushdb(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    check_flush_mode(args)?;
    let index = ctx.db.index();
    flush(ctx, index..=index, args)
}

fn flushall(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    check_flush_mode(args)?;
    let last = ctx.db.keyspace().databases() as u16 - 1;
    flush(ctx, 0..=last, args)
}

fn flush(ctx: &mut Ctx<'_, '_, '_>, databases: std::ops::RangeInclusive<u16>, args: &[&[u8]]) -> Result {
    let mut deleted = 0;
    for index in databases {
        deleted += ctx.db.flush(index);
    }
    // Replicas flush too even if there was nothing: they may still hold keys that are dead here.
    ctx.db.effects.dirty += deleted as u64 + 1;
    ctx.record(args);
    ctx.reply.ok();
    DONE
}

fn time(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Time)
}

fn shutdown(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let mut how = Shutdown::default();
    for word in &args[1..] {
        let option = [
            ("save", &mut how.save),
            ("nosave", &mut how.nosave),
            ("now", &mut how.now),
            ("force", &mut how.force),
            ("abort", &mut how.abort),
        ]
        .into_iter()
        .find(|(name, _)| is(word, name));
        *option.ok_or(Fail::Syntax)?.1 = true;
    }
    if (how.save && how.nosave) || (how.abort && args.len() > 2) {
        return Err(Fail::Syntax);
    }
    Ctx::node(Request::Shutdown(how))
}

fn debug(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Ctx::node(Request::Debug(owned(&args[1..])))
}
