//! MEMORY: what keys and the server take.

use std::fmt::Write as _;

use crate::command::help::help;
use crate::command::spec::{Group::Server, flags::*, key, one};
use crate::command::{Command, CommandError, Ctx, DONE, Result, int, is};
use crate::keyspace::EntryRef;
use crate::resp::Reply;
use crate::server::commands::info::memory::{Parts, Sizes};
use crate::server::commands::node;
use crate::server::process::allocator;
use crate::value::ValueRef;

pub const COMMANDS: &[Command] =
    &[Command::container("memory", Server, MEMORY).doc("4.0.0", "", "Commands about memory.")];

const TIPS: &[&str] = &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

const MEMORY: &[Command] = &[
    Command::new("doctor", 2, Server, doctor).tips(TIPS).complexity("O(1)").doc(
        "4.0.0",
        "",
        "Says in words what is remarkable about memory.",
    ),
    Command::new("help", 2, Server, memory_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "4.0.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("malloc-stats", 2, Server, malloc_stats).tips(TIPS).complexity("O(1)").doc(
        "4.0.0",
        "",
        "Returns what the allocator tells of itself.",
    ),
    Command::new("purge", 2, Server, purge)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("4.0.0", "", "Gives freed memory back to the system."),
    Command::new("stats", 2, Server, stats).tips(TIPS).complexity("O(1)").doc(
        "4.0.0",
        "",
        "Tells what memory is taken for.",
    ),
    Command::new("usage", -3, Server, usage)
        .flags(READONLY)
        .keys(&[one(2, key::RO)])
        .complexity("O(N) where N is the number of nodes of a list or a stream, otherwise O(1)")
        .doc("4.0.0", "key [SAMPLES count]", "Returns the bytes that a key and its value take."),
];

fn memory_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "memory", MEMORY);
    DONE
}

/// Values know what they take, so nothing is sampled: the option is checked for form.
fn usage(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    for option in args[3..].chunks(2) {
        let &[word, count] = option else { return Err(CommandError::Syntax) };
        if !is(word, "samples") || int(count)? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    match ctx.db.peek(args[2]) {
        None => ctx.reply.null(),
        Some(entry) => ctx.reply.int(bytes_of(entry) as i64),
    }
    DONE
}

/// Bytes of an entry, its value, and its place in the table of its slot.
fn bytes_of(entry: EntryRef<'_>) -> usize {
    const PLACE: usize = 8;
    let outside = match (entry.object().is_some(), entry.value()) {
        // An inline string is part of the entry.
        (false, _) => 0,
        (true, ValueRef::String(s)) => s.len() + size_of::<Vec<u8>>() + 16,
        (true, value) => value.memory_bytes(),
    };
    entry.shell_bytes() + PLACE + outside
}

fn number(reply: &mut Reply, name: &str, n: i64) {
    reply.bulk_str(name);
    reply.int(n);
}

fn decimal(reply: &mut Reply, name: &str, x: f64) {
    reply.bulk_str(name);
    reply.double(x);
}

/// Bytes of the headers of all slots' tables of one database.
const TABLES_OF_SLOTS: i64 = (crate::base::crc16::SLOTS * 16) as i64;

fn stats(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let keyspace = &node.shared.keyspace;
    let (sizes, parts) = (Sizes::of(node), Parts::of(node));
    let used_databases: Vec<u16> =
        (0..keyspace.databases() as u16).filter(|db| !keyspace.is_empty(*db)).collect();
    let keys: usize = used_databases.iter().map(|db| keyspace.len(*db)).sum();
    let beyond_start = sizes.used.saturating_sub(sizes.at_start);
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    let ratio = sizes.resident as f64 / sizes.used.max(1) as f64;
    let rest = sizes.resident as i64 - sizes.used as i64;
    let reply = &mut *ctx.reply;
    reply.map(31 + used_databases.len());
    number(reply, "peak.allocated", sizes.peak as i64);
    number(reply, "total.allocated", sizes.used as i64);
    number(reply, "startup.allocated", sizes.at_start as i64);
    number(reply, "replication.backlog", sizes.backlog as i64);
    number(reply, "clients.slaves", parts.replicas as i64);
    number(reply, "clients.normal", sizes.clients as i64);
    number(reply, "cluster.links", parts.links as i64);
    number(reply, "aof.buffer", parts.aof as i64);
    number(reply, "lua.caches", parts.scripts as i64);
    number(reply, "functions.caches", parts.functions as i64);
    for db in &used_databases {
        reply.bulk_str(&format!("db.{db}"));
        reply.map(2);
        // What is fixed: the headers of the tables of the slots. What keys take is theirs.
        number(reply, "overhead.hashtable.main", TABLES_OF_SLOTS);
        number(reply, "overhead.hashtable.expires", keyspace.volatile_len(*db) as i64 * 8);
    }
    number(reply, "overhead.db.hashtable.lut", TABLES_OF_SLOTS * used_databases.len() as i64);
    // Tables grow bucket by bucket: none is copied.
    number(reply, "overhead.db.hashtable.rehashing", 0);
    number(reply, "db.dict.rehashing.count", 0);
    number(reply, "overhead.total", sizes.overhead as i64);
    number(reply, "keys.count", keys as i64);
    number(reply, "keys.bytes-per-key", beyond_start.checked_div(keys as u64).unwrap_or(0) as i64);
    number(reply, "dataset.bytes", (sizes.used - sizes.overhead) as i64);
    decimal(reply, "dataset.percentage", share(sizes.used - sizes.overhead, beyond_start));
    decimal(reply, "peak.percentage", share(sizes.used, sizes.peak));
    number(reply, "allocator.allocated", sizes.used as i64);
    number(reply, "allocator.active", sizes.resident as i64);
    number(reply, "allocator.resident", sizes.resident as i64);
    number(reply, "allocator.muzzy", 0);
    decimal(reply, "allocator-fragmentation.ratio", ratio);
    number(reply, "allocator-fragmentation.bytes", rest);
    decimal(reply, "allocator-rss.ratio", 1.0);
    number(reply, "allocator-rss.bytes", 0);
    decimal(reply, "rss-overhead.ratio", 1.0);
    number(reply, "rss-overhead.bytes", 0);
    decimal(reply, "fragmentation", ratio);
    number(reply, "fragmentation.bytes", rest);
    DONE
}

fn doctor(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let text = diagnosis(&Sizes::of(node(ctx)), node(ctx).config.load().maxmemory);
    ctx.reply.verbatim("txt", &text);
    DONE
}

/// Below this there is nothing to say: what is fixed outweighs the data.
const TOO_LITTLE: u64 = 5 << 20;

fn diagnosis(sizes: &Sizes, limit: u64) -> String {
    let beyond_start = sizes.used.saturating_sub(sizes.at_start);
    if beyond_start < TOO_LITTLE {
        return "There are hardly any data, so there is nothing to say about their memory.\n".into();
    }
    let mut text = String::new();
    let mut remark = |words: std::fmt::Arguments<'_>| {
        // A String takes everything.
        let _ = writeln!(text, "* {words}");
    };
    if sizes.peak > sizes.used + sizes.used / 2 {
        remark(format_args!(
            "Peak: {} bytes were allocated once, {} are now. The resident memory may still be that of the peak; \
             MEMORY PURGE gives it back.",
            sizes.peak, sizes.used
        ));
    }
    if sizes.resident > sizes.used + sizes.used * 2 / 5 {
        remark(format_args!(
            "Fragmentation: {} bytes are resident for {} allocated.",
            sizes.resident, sizes.used
        ));
    }
    if limit > 0 && sizes.used > limit / 10 * 9 {
        remark(format_args!("Limit: {} of the {limit} bytes of maxmemory are taken.", sizes.used));
    }
    if text.is_empty() { "Nothing about memory is remarkable.\n".into() } else { text }
}

fn purge(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    allocator::purge().map_err(|e| CommandError::owned(format!("ERR Error purging dirty pages: {e}")))?;
    ctx.reply.ok();
    DONE
}

fn malloc_stats(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.verbatim("txt", &allocator::report());
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_names_what_is_remarkable() {
        let mb = 1 << 20;
        let sizes = |used, peak, resident| Sizes {
            used: used * mb,
            peak: peak * mb,
            resident: resident * mb,
            ..Sizes::default()
        };
        for (sizes, limit, words) in [
            (sizes(1, 1, 9), 0, "hardly any data"),
            (sizes(100, 100, 110), 0, "Nothing"),
            (sizes(100, 200, 110), 0, "Peak:"),
            (sizes(100, 100, 150), 0, "Fragmentation:"),
            (sizes(100, 100, 100), 101 * mb, "Limit:"),
        ] {
            assert!(diagnosis(&sizes, limit).contains(words), "{words}");
        }
    }
}
