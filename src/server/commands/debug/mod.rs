//! DEBUG, for tests and for simulating trouble: the table of its words, and those that touch little else.
//!
//! | file | concept |
//! |---|---|
//! | `crash` | ends of the process that no user asks for |
//! | `trouble` | threads that stand still, shards that are held, bad disks, lost packets |
//! | `values` | how keys and values are kept; digests |
//! | `tables` | how full tables are |
//! | `reload` | the data set through its file and back |
//! | `switches` | settings that no directive has |
//! | `replies` | replies of every type, errors, lines of the log |

use std::fmt::Write as _;

use crate::base::glob;
use crate::base::num::leading_i64;
use crate::command::spec::{Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result, is, wrong_arguments};
use crate::config::rewrite::Extent;
use crate::config::set::allowed;
use crate::keyspace::Audience;
use crate::server::commands::{config, node};

mod crash;
mod reload;
mod replies;
mod switches;
mod tables;
mod trouble;
mod values;

pub const COMMANDS: &[Command] = &[Command::new("debug", -2, Server, debug)
    .flags(ADMIN | NOSCRIPT | LOADING | STALE | LOCK_ALL | READS_COUNTERS | SYSTEM)
    .doc("1.0.0", "", "For tests and developers.")];

const FORBIDDEN: CommandError = CommandError::text(
    "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.",
);

/// A word behind DEBUG.
struct Word {
    name: &'static str,
    /// Words behind it: at least, and at most.
    arguments: (usize, usize),
    syntax: &'static str,
    summary: &'static str,
    /// Is given DEBUG's arguments, the word itself at 1.
    run: fn(&mut Ctx<'_, '_, '_>, &[&[u8]]) -> Result,
}

/// Without an upper limit.
const MANY: usize = usize::MAX;

const WORDS: &[Word] = &[
    word("assert", (0, 0), "", crash::assertion, "Lets the server crash by an assertion that does not hold."),
    word(
        "aof-flush-sleep",
        (1, 1),
        "<microseconds>",
        trouble::aof_flush_sleep,
        "Waits before each write to the append-only file.",
    ),
    refused("client-enforce-reply-list", (1, 1), "<0|1>", |_, _| {
        Err(CommandError::text("ERR Not supported: replies have no other place here than their list"))
    }),
    word("client-eviction", (0, 0), "", client_eviction, "Shows how many clients take how much memory."),
    word(
        "clusterlink",
        (1, MANY),
        "KILL <to|from|all> <node-id>",
        trouble::cluster_link,
        "Closes the links of the cluster bus to a node, or from it.",
    ),
    word("change-repl-id", (0, 0), "", change_repl_id, "Begins a history that no replica can continue."),
    word(
        "close-cluster-link-on-packet-drop",
        (1, 1),
        "<0|1>",
        trouble::close_on_drop,
        "Closes the link that a packet came by which DROP-CLUSTER-PACKET-FILTER drops.",
    ),
    word(
        "config-rewrite-force-all",
        (0, 0),
        "",
        config_rewrite_force_all,
        "Writes all directives to the configuration file, also those at their defaults.",
    ),
    refused("crash-and-recover", (0, 1), "[<milliseconds>]", crash::no_restart),
    word(
        "dict-resizing",
        (1, 1),
        "<0|1>",
        switches::dict_resizing,
        "Lets the tables of keys keep the buckets that they have, or grow and shrink again.",
    ),
    word(
        "disk-fault",
        (1, 3),
        "<open|write|sync|truncate|rename|remove> <part-of-name> <ENOSPC|EROFS|EIO|SHORT|SLOW-milliseconds> | OFF",
        trouble::disk_fault,
        "Lets this step fail, or take long, for files of such names. OFF: the disk is good again.",
    ),
    word("digest", (0, 0), "", values::digest, "A number that is equal for equal data sets."),
    word("digest-value", (0, MANY), "[<key> ...]", values::digest_value, "A number for each key's value."),
    word(
        "drop-cluster-packet-filter",
        (1, 1),
        "<packet-type>",
        trouble::drop_filter,
        "Drops packets of this type that come by the cluster bus: -1 none, -2 all.",
    ),
    word("error", (1, 1), "<text>", replies::error, "Replies with an error."),
    word(
        "hold-shard",
        (2, 3),
        "<key> <seconds> [QUIETLY]",
        trouble::hold_shard,
        "Keystead's own: a thread holds the lock of the key's shard for a time, declared as long or not.",
    ),
    word("htstats", (1, MANY), "<dbid> [full]", tables::of_database, "Describes the tables of a database."),
    word("htstats-key", (1, MANY), "<key> [full]", tables::of_key, "Describes the table of a key's value."),
    word("leak", (1, 1), "<text>", crash::leak, "Loses the memory of a copy of the text."),
    word(
        "listpack",
        (1, 1),
        "<key>",
        values::listpack,
        "Prints the entries of a value's listpack on stdout.",
    ),
    word(
        "loadaof",
        (0, 0),
        "",
        reload::load_aof,
        "Puts the append-only file on the disk, empties the data set, and loads it again from there.",
    ),
    word("log", (1, 1), "<text>", replies::log, "Writes a line to the log."),
    word("mallctl", (1, MANY), "<name> [<number>]", switches::mallctl, "Reads or sets a number of jemalloc."),
    word(
        "mallctl-str",
        (1, MANY),
        "<name> [<text>]",
        switches::mallctl_text,
        "Reads or sets a text of jemalloc.",
    ),
    word(
        "object",
        (1, 2),
        "<key> [fast]",
        values::object,
        "Shows how a key's value is stored; fast: without what takes time to find out.",
    ),
    word("oom", (0, 0), "", crash::out_of_memory, "Lets the server crash for want of memory."),
    word("panic", (0, 0), "", crash::panic, "Lets the server crash by a panic."),
    word(
        "pause-cron",
        (1, 1),
        "<0|1>",
        trouble::pause_cron,
        "Stops what happens by the clock alone, or lets it go on.",
    ),
    word(
        "populate",
        (1, 3),
        "<count> [<prefix>] [<size>]",
        values::populate,
        "Creates string keys prefix:0 and so on that do not exist yet.",
    ),
    word(
        "protocol",
        (1, 1),
        "<string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false>",
        replies::protocol,
        "Replies with a value of the type.",
    ),
    word(
        "quicklist-packed-threshold",
        (1, 1),
        "<size>",
        switches::packed_threshold,
        "Elements of lists that are as long stand in a node by themselves; 0 is the default.",
    ),
    word(
        "quicklist",
        (1, 2),
        "<key> [<0|1>]",
        values::quicklist,
        "Prints the nodes of a list on stdout; 1: with their elements.",
    ),
    word(
        "reload",
        (0, MANY),
        "[MERGE] [NOFLUSH] [NOSAVE]",
        reload::run,
        "Saves the data set, empties it, and loads it again.",
    ),
    word(
        "replicate",
        (1, MANY),
        "<word> [<word> ...]",
        replicate,
        "Sends a command to the replicas that does not run here: their data may differ afterwards.",
    ),
    word(
        "replybuffer",
        (2, 2),
        "PEAK-RESET-TIME <NEVER|RESET|milliseconds> | RESIZING <0|1>",
        switches::reply_buffer,
        "When a client's longest reply is forgotten; whether workers give back what a long reply took.",
    ),
    refused("restart", (0, 1), "[<milliseconds>]", crash::no_restart),
    word("sdslen", (1, 1), "<key>", values::sds_length, "Shows how long a key and its string are."),
    word("segfault", (0, 0), "", crash::segfault, "Lets the server crash by a bad access."),
    word(
        "set-active-expire",
        (1, 1),
        "<0|1>",
        trouble::set_active_expire,
        "Switches the search for dead keys off or on.",
    ),
    word(
        "set-disable-deny-scripts",
        (1, 1),
        "<0|1>",
        switches::allow_in_scripts,
        "Lets scripts run commands that they may not run otherwise.",
    ),
    word(
        "set-skip-checksum-validation",
        (1, 1),
        "<0|1>",
        switches::skip_checksums,
        "Takes files and payloads whose checksum is wrong, or refuses them again.",
    ),
    word("sleep", (1, 1), "<seconds>", trouble::sleep, "Stops the whole server for a time."),
    word("stringmatch-test", (0, 0), "", stringmatch_test, "Matches random patterns against random strings."),
    refused("structsize", (0, 0), "", |_, _| {
        Err(CommandError::text(
            "ERR Not supported: MEMORY USAGE tells what a key takes, whatever it is made of",
        ))
    }),
];

const fn word(
    name: &'static str,
    arguments: (usize, usize),
    syntax: &'static str,
    run: fn(&mut Ctx<'_, '_, '_>, &[&[u8]]) -> Result,
    summary: &'static str,
) -> Word {
    Word { name, arguments, syntax, summary, run }
}

/// One of Redis that has no meaning here.
const fn refused(
    name: &'static str,
    arguments: (usize, usize),
    syntax: &'static str,
    run: fn(&mut Ctx<'_, '_, '_>, &[&[u8]]) -> Result,
) -> Word {
    word(name, arguments, syntax, run, "Not supported; the error says why.")
}

fn debug(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if !allowed(node(ctx).config.load().enable_debug_command, ctx.client.is_local()) {
        return Err(FORBIDDEN);
    }
    if is(args[1], "help") && args.len() == 2 {
        return help(ctx);
    }
    let fits = |word: &Word| (word.arguments.0..=word.arguments.1).contains(&(args.len() - 2));
    match WORDS.iter().find(|word| is(args[1], word.name)).filter(|word| fits(word)) {
        Some(word) => (word.run)(ctx, args),
        None => Err(wrong_arguments("DEBUG", args[1])),
    }
}

fn help(ctx: &mut Ctx<'_, '_, '_>) -> Result {
    let mut lines = vec!["DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:".to_owned()];
    for word in WORDS {
        lines.push(format!("{} {}", word.name.to_ascii_uppercase(), word.syntax).trim_end().to_owned());
        lines.push(format!("    {}", word.summary));
    }
    lines.extend(["HELP".to_owned(), "    Prints this help.".to_owned()]);
    ctx.reply.array(lines.len());
    for line in &lines {
        ctx.reply.simple(line);
    }
    DONE
}

/// Only links hear of it, as in Redis; no file does.
fn replicate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.db.effects.audience = Audience { links: true, files: false };
    ctx.record(&args[2..]);
    ctx.reply.ok();
    DONE
}

fn change_repl_id(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    node(ctx).peers.replication.change_id();
    ctx.reply.ok();
    DONE
}

fn config_rewrite_force_all(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    config::rewrite_file(node(ctx), Extent::All)?;
    ctx.reply.ok();
    DONE
}

/// Whether a switch is on: a number that is not 0.
fn is_on(word: &[u8]) -> bool {
    leading_i64(word) != 0
}

/// Whatever the pattern and the string are, matching ends, and soon.
fn stringmatch_test(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    for _ in 0..100_000 {
        let mut random = |most| {
            let mut bytes = vec![0; ctx.rng.below(most) as usize];
            ctx.rng.fill(&mut bytes);
            bytes.iter().map(|byte| b"*?[]^-\\ab"[usize::from(*byte) % 9]).collect::<Vec<u8>>()
        };
        let (string, pattern) = (random(32), random(32));
        std::hint::black_box(glob::matches(&pattern, &string));
    }
    ctx.reply.simple("Apparently Redis did not crash: test passed");
    DONE
}

/// Clients by the memory that they take, in the doubling steps of Redis.
fn client_eviction(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    const FIRST: u32 = 15;
    const LAST: u32 = 32;
    let node = node(ctx);
    let config = node.config.load();
    if config.maxmemory_clients.bytes(config.maxmemory) == 0 {
        return Err(CommandError::text("ERR maxmemory-clients is disabled."));
    }
    let totals: Vec<usize> = node.people.clients.all().iter().map(|entry| entry.usage.lock().total).collect();
    let mut text = String::new();
    for step in FIRST..=LAST + 1 {
        let low = if step == FIRST { 0usize } else { 1 << (step - 1) };
        let high = if step > LAST { usize::MAX } else { (1 << step) - 1 };
        let within: Vec<usize> =
            totals.iter().copied().filter(|total| (low..=high).contains(total)).collect();
        let range =
            if step > LAST { format!("{low:>10}+            ") } else { format!("{low:>10} - {high:>10}") };
        let _ = writeln!(
            text,
            "bucket {range}: tot-mem: {:>10}, clients: {}",
            within.iter().sum::<usize>(),
            within.len()
        );
    }
    ctx.reply.verbatim("txt", &text);
    DONE
}
