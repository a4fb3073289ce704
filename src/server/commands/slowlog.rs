//! SLOWLOG: the last commands that took long.

use crate::command::help::help;
use crate::command::spec::{Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result, int, wrong_arguments};
use crate::server::commands::node;

pub const COMMANDS: &[Command] =
    &[Command::container("slowlog", Server, SLOWLOG).doc("2.2.12", "", "Commands about the slow log.")];

const READ: Flags = ADMIN | LOADING | STALE;

const SLOWLOG: &[Command] = &[
    Command::new("get", -2, Server, get)
        .flags(READ)
        .tips(&["nondeterministic_output", "request_policy:all_nodes"])
        .complexity("O(N) where N is the number of entries returned")
        .history(&[("4.0.0", "The client's address and name in each entry.")])
        .doc("2.2.12", "[count]", "Returns the newest entries."),
    Command::new("help", 2, Server, slowlog_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "6.2.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("len", 2, Server, len)
        .flags(READ)
        .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:agg_sum"])
        .complexity("O(1)")
        .doc("2.2.12", "", "Counts the entries."),
    Command::new("reset", 2, Server, reset)
        .flags(READ)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of entries")
        .doc("2.2.12", "", "Forgets all entries."),
];

fn get(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = match &args[2..] {
        [] => 10,
        [count] => int(count)
            .ok()
            .filter(|count| *count >= -1)
            .ok_or(CommandError::text("ERR count should be greater than or equal to -1"))?,
        _ => return Err(wrong_arguments("SLOWLOG", args[1])),
    };
    let entries = node(ctx).records.slowlog.newest(usize::try_from(count).unwrap_or(usize::MAX));
    let reply = &mut *ctx.reply;
    reply.array(entries.len());
    for entry in &entries {
        reply.array(6);
        reply.int(entry.id as i64);
        reply.int(entry.time);
        reply.int(entry.micros as i64);
        reply.array(entry.args.len());
        entry.args.iter().for_each(|arg| reply.bulk(arg));
        reply.bulk_str(&entry.addr);
        reply.bulk(&entry.name);
    }
    DONE
}

fn len(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(node(ctx).records.slowlog.len() as i64);
    DONE
}

fn reset(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    node(ctx).records.slowlog.reset();
    ctx.reply.ok();
    DONE
}

fn slowlog_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "slowlog", SLOWLOG);
    DONE
}
