//! DEBUG, for tests and for simulating trouble.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::base::crc16::key_slot;
use crate::base::glob;
use crate::base::lossless;
use crate::base::num::{leading_i64, parse_f64, parse_i64, parse_memory};
use crate::base::size_class::size_class;
use crate::cluster::NodeId;
use crate::command::family::object::{encoding_of, references};
use crate::command::spec::{Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Outcome, Result, is, wrong_arguments};
use crate::config::rewrite::Extent;
use crate::config::set::allowed;
use crate::encoding::Item;
use crate::keyspace::board::Reason;
use crate::keyspace::db::SetExpire;
use crate::keyspace::{Audience, Db, event};
use crate::persist::rdb::{Options, payload};
use crate::resp::Reply;
use crate::server::commands::{config, debug_tables, node, reload};
use crate::server::disk::fault::{self, Step, Trouble};
use crate::server::net::mailbox::Mail;
use crate::server::node::{Node, REPLY_PEAK_MS, unix_ms};
use crate::server::process::allocator;
use crate::value::digest::Digest;
use crate::value::{Limits, ValueRef, list};

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
    word("assert", (0, 0), "", assertion, "Lets the server crash by an assertion that does not hold."),
    word(
        "aof-flush-sleep",
        (1, 1),
        "<microseconds>",
        aof_flush_sleep,
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
        cluster_link,
        "Closes the links of the cluster bus to a node, or from it.",
    ),
    word("change-repl-id", (0, 0), "", change_repl_id, "Begins a history that no replica can continue."),
    word(
        "close-cluster-link-on-packet-drop",
        (1, 1),
        "<0|1>",
        close_on_drop,
        "Closes the link that a packet came by which DROP-CLUSTER-PACKET-FILTER drops.",
    ),
    word(
        "config-rewrite-force-all",
        (0, 0),
        "",
        config_rewrite_force_all,
        "Writes all directives to the configuration file, also those at their defaults.",
    ),
    refused("crash-and-recover", (0, 1), "[<milliseconds>]", no_restart),
    word(
        "dict-resizing",
        (1, 1),
        "<0|1>",
        dict_resizing,
        "Lets the tables of keys keep the buckets that they have, or grow and shrink again.",
    ),
    word(
        "disk-fault",
        (1, 3),
        "<open|write|sync|rename|remove> <part-of-name> <ENOSPC|EROFS|EIO|SHORT|SLOW-milliseconds> | OFF",
        disk_fault,
        "Lets this step fail, or take long, for files of such names. OFF: the disk is good again.",
    ),
    word("digest", (0, 0), "", digest, "A number that is equal for equal data sets."),
    word("digest-value", (0, MANY), "[<key> ...]", digest_value, "A number for each key's value."),
    word(
        "drop-cluster-packet-filter",
        (1, 1),
        "<packet-type>",
        drop_filter,
        "Drops packets of this type that come by the cluster bus: -1 none, -2 all.",
    ),
    word("error", (1, 1), "<text>", error, "Replies with an error."),
    word(
        "hold-shard",
        (2, 3),
        "<key> <seconds> [QUIETLY]",
        hold_shard,
        "Keystead's own: a thread holds the lock of the key's shard for a time, declared as long or not.",
    ),
    word(
        "htstats",
        (1, MANY),
        "<dbid> [full]",
        debug_tables::of_database,
        "Describes the tables of a database.",
    ),
    word(
        "htstats-key",
        (1, MANY),
        "<key> [full]",
        debug_tables::of_key,
        "Describes the table of a key's value.",
    ),
    word("leak", (1, 1), "<text>", leak, "Loses the memory of a copy of the text."),
    word("listpack", (1, 1), "<key>", listpack, "Prints the entries of a value's listpack on stdout."),
    word(
        "loadaof",
        (0, 0),
        "",
        reload::load_aof,
        "Puts the append-only file on the disk, empties the data set, and loads it again from there.",
    ),
    word("log", (1, 1), "<text>", log, "Writes a line to the log."),
    word("mallctl", (1, MANY), "<name> [<number>]", mallctl, "Reads or sets a number of jemalloc."),
    word("mallctl-str", (1, MANY), "<name> [<text>]", mallctl_text, "Reads or sets a text of jemalloc."),
    word(
        "object",
        (1, 2),
        "<key> [fast]",
        object,
        "Shows how a key's value is stored; fast: without what takes time to find out.",
    ),
    word("oom", (0, 0), "", out_of_memory, "Lets the server crash for want of memory."),
    word("panic", (0, 0), "", panic, "Lets the server crash by a panic."),
    word(
        "pause-cron",
        (1, 1),
        "<0|1>",
        pause_cron,
        "Stops what happens by the clock alone, or lets it go on.",
    ),
    word(
        "populate",
        (1, 3),
        "<count> [<prefix>] [<size>]",
        populate,
        "Creates string keys prefix:0 and so on that do not exist yet.",
    ),
    word(
        "protocol",
        (1, 1),
        "<string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false>",
        protocol,
        "Replies with a value of the type.",
    ),
    word(
        "quicklist-packed-threshold",
        (1, 1),
        "<size>",
        packed_threshold,
        "Elements of lists that are as long stand in a node by themselves; 0 is the default.",
    ),
    word(
        "quicklist",
        (1, 2),
        "<key> [<0|1>]",
        quicklist,
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
        reply_buffer,
        "When a client's longest reply is forgotten; whether workers give back what a long reply took.",
    ),
    refused("restart", (0, 1), "[<milliseconds>]", no_restart),
    word("sdslen", (1, 1), "<key>", sds_length, "Shows how long a key and its string are."),
    word("segfault", (0, 0), "", segfault, "Lets the server crash by a bad access."),
    word(
        "set-active-expire",
        (1, 1),
        "<0|1>",
        set_active_expire,
        "Switches the search for dead keys off or on.",
    ),
    word(
        "set-disable-deny-scripts",
        (1, 1),
        "<0|1>",
        allow_in_scripts,
        "Lets scripts run commands that they may not run otherwise.",
    ),
    word(
        "set-skip-checksum-validation",
        (1, 1),
        "<0|1>",
        skip_checksums,
        "Takes files and payloads whose checksum is wrong, or refuses them again.",
    ),
    word("sleep", (1, 1), "<seconds>", sleep, "Stops the whole server for a time."),
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

fn sleep(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let seconds = parse_f64(args[2]).filter(|s| *s > 0.0).unwrap_or(0.0);
    stop_all(node(ctx), ctx.client.worker, Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    ctx.reply.ok();
    DONE
}

/// Stops all threads, as a machine that stands still would: people use it to simulate a dead node. Called on
/// the thread of `worker`.
fn stop_all(node: &Node, worker: usize, time: Duration) {
    let Some(until) = Instant::now().checked_add(time) else { return };
    for other in (0..node.life.threads.workers.get().map_or(0, Vec::len)).filter(|w| *w != worker) {
        node.send(other, Mail::Sleep(until));
    }
    for runtime in node.life.threads.runtimes.lock().iter() {
        runtime.spawn(async move { sleep_until(until) });
    }
    node.life
        .stopped
        .until_ms
        .store(node.mono_ms().saturating_add(time.as_millis() as u64), Ordering::Release);
    sleep_until(until);
}

pub fn sleep_until(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

fn panic(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    panic!("called by DEBUG PANIC");
}

fn assertion(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    assert!(args.is_empty(), "called by DEBUG ASSERT");
    DONE
}

/// As an allocation of half of all addresses would end.
fn out_of_memory(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let half = std::alloc::Layout::array::<u8>(usize::MAX / 2).expect("at most isize::MAX bytes");
    std::alloc::handle_alloc_error(half);
}

fn dict_resizing(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.db.keyspace().tables_stay.store(!is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

fn leak(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    std::mem::forget(args[2].to_vec());
    ctx.reply.ok();
    DONE
}

/// Only links hear of it, as in Redis; no file does.
fn replicate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.db.effects.audience = Audience { links: true, files: false };
    ctx.record(&args[2..]);
    ctx.reply.ok();
    DONE
}

fn no_restart(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Err(CommandError::text(
        "ERR Not supported: the server does not start itself again; DEBUG SEGFAULT crashes it, SHUTDOWN ends it",
    ))
}

/// Holds a shard as a script or a giant command would, but on a thread of its own; QUIETLY: without declaring
/// that it takes long.
fn hold_shard(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let time = parse_f64(args[3]).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let quietly = args.get(4).is_some_and(|word| is(word, "quietly"));
    let (Some(time), None) = (time, ctx.client.executing) else {
        return Err(CommandError::text("ERR Invalid arguments"));
    };
    if args.len() > 4 && !quietly {
        return Err(CommandError::Syntax);
    }
    let (slot, for_thread) = (key_slot(args[2]), Arc::clone(node(ctx)));
    let (worker, token, client) = (ctx.client.worker, ctx.client.token, ctx.client.id);
    let body = move || {
        let mut locked = for_thread.shared.keyspace.lock_slot(slot);
        if !quietly {
            locked.declare_long(Reason::Command("debug"), unix_ms());
        }
        std::thread::sleep(time);
        drop(locked);
        let mut reply = Reply::new();
        reply.ok();
        for_thread.send(worker, Mail::Resume { token, client, reply, written_to: 0 });
    };
    match std::thread::Builder::new().name("hold-shard".into()).spawn(body) {
        Ok(_) => Ok(Outcome::Suspended),
        Err(e) => Err(CommandError::owned(format!("ERR cannot start a thread: {e}"))),
    }
}

/// Dies as by a bad access: the report and the exit status are those of the signal.
fn segfault(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    if signal_hook::low_level::raise(signal_hook::consts::SIGSEGV).is_err() {
        std::process::abort();
    }
    DONE
}

fn set_active_expire(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    node(ctx).life.stopped.expiry.store(!is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

fn digest(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let digest = digest_all(ctx.db);
    ctx.reply.simple(&digest.to_string());
    DONE
}

fn digest_value(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.reply.array(args.len() - 2);
    for key in &args[2..] {
        let mut digest = Digest::default();
        if let Some(entry) = ctx.db.peek(key) {
            digest.add_value(entry.value(), entry.expire().is_some());
        }
        ctx.reply.simple(&digest.to_string());
    }
    DONE
}

/// Every database's keys and values; all shards are locked.
fn digest_all(db: &mut Db<'_, '_>) -> Digest {
    let mut digest = Digest::default();
    let selected = db.index();
    for index in 0..db.keyspace().databases() as u16 {
        if db.keyspace().is_empty(index) {
            continue;
        }
        db.select(index);
        digest.begin_database(u32::from(index));
        db.for_each(|entry| digest.add_key(entry.key(), entry.value(), entry.expire().is_some()));
    }
    db.select(selected);
    digest
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

fn error(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    Err(CommandError::owned(lossless::text(args[2]).replace(['\r', '\n'], " ")))
}

fn log(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    tracing::warn!("DEBUG LOG: {}", String::from_utf8_lossy(args[2]));
    ctx.reply.ok();
    DONE
}

/// Whether a switch is on: a number that is not 0.
fn is_on(word: &[u8]) -> bool {
    leading_i64(word) != 0
}

fn aof_flush_sleep(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let us = u64::try_from(leading_i64(args[2])).unwrap_or(0);
    node(ctx).files.aof.flush_sleep_us.store(us, Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

fn pause_cron(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    node(ctx).life.stopped.cron.store(is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

fn drop_filter(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let kind = crate::command::int(args[2])?;
    if let Some(bus) = node(ctx).peers.bus.get() {
        bus.drop_filter.store(kind, Ordering::Relaxed);
    }
    ctx.reply.ok();
    DONE
}

fn close_on_drop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if let Some(bus) = node(ctx).peers.bus.get() {
        bus.close_on_drop.store(is_on(args[2]), Ordering::Relaxed);
    }
    ctx.reply.ok();
    DONE
}

/// Severs the link that a node made (FROM), the one made to it (TO), or both.
fn cluster_link(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if !is(args[2], "kill") || args.len() != 5 {
        return Err(wrong_arguments("DEBUG", args[1]));
    }
    let bus = node(ctx)
        .peers
        .bus
        .get()
        .ok_or(CommandError::text("ERR Debug option only available for cluster mode enabled setup!"))?;
    let unknown = || CommandError::owned(format!("ERR Unknown node {}", lossless::text(args[4])));
    let peer = NodeId::parse(args[4]).filter(|id| bus.read(|state| state.knows(id))).ok_or_else(unknown)?;
    let [from, to, all] = ["from", "to", "all"].map(|word| is(args[3], word));
    if !(from || to || all) {
        return Err(CommandError::owned(format!("ERR Unknown direction {}", lossless::text(args[3]))));
    }
    bus.sever(peer, |inbound| all || if inbound { from } else { to });
    ctx.reply.ok();
    DONE
}

fn disk_fault(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match args {
        [_, _, off] if is(off, "off") => fault::clear(),
        [_, _, step, name, trouble] => {
            let (step, trouble) = fault_of(step, trouble).ok_or(CommandError::Syntax)?;
            fault::add(step, &String::from_utf8_lossy(name), trouble);
        }
        _ => return Err(CommandError::Syntax),
    }
    ctx.reply.ok();
    DONE
}

/// The words of DISK-FAULT.
fn fault_of(step: &[u8], trouble: &[u8]) -> Option<(Step, Trouble)> {
    let step = match step.to_ascii_lowercase().as_slice() {
        b"open" => Step::Open,
        b"write" => Step::Write,
        b"sync" => Step::Sync,
        b"truncate" => Step::Truncate,
        b"rename" => Step::Rename,
        b"remove" => Step::Remove,
        _ => return None,
    };
    let trouble = match trouble.to_ascii_lowercase().as_slice() {
        b"enospc" => Trouble::Error(libc::ENOSPC),
        b"erofs" => Trouble::Error(libc::EROFS),
        b"eio" => Trouble::Error(libc::EIO),
        b"short" => Trouble::Short,
        word => {
            let ms = parse_i64(word.strip_prefix(b"slow-")?)?;
            Trouble::Slow(Duration::from_millis(u64::try_from(ms).ok()?))
        }
    };
    Some((step, trouble))
}

fn skip_checksums(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let _one_at_a_time = node.config_change.lock();
    let limits = Limits { verify_checksums: !is_on(args[2]), ..Limits::clone(&node.shared.limits.load()) };
    node.shared.limits.store(Arc::new(limits));
    ctx.reply.ok();
    DONE
}

fn mallctl(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let value = args.get(3).map(|n| parse_i64(n).ok_or(CommandError::NotInteger)).transpose()?;
    let name = String::from_utf8_lossy(args[2]);
    match allocator::control(&name, value.map(|n| n as u64)) {
        Ok(number) => ctx.reply.int(number as i64),
        Err(text) => return Err(CommandError::owned(format!("ERR {text}"))),
    }
    DONE
}

fn mallctl_text(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = String::from_utf8_lossy(args[2]);
    match allocator::control_text(&name, args.get(3).copied()) {
        Ok(text) => ctx.reply.bulk(&text),
        Err(text) => return Err(CommandError::owned(format!("ERR {text}"))),
    }
    DONE
}

fn listpack(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let value = entry.value();
    if value.encoding_name() != "listpack" {
        return Err(CommandError::text("ERR Not a listpack encoded object."));
    }
    let entries: Vec<String> = match value {
        ValueRef::List(list) => {
            let mut entries = Vec::new();
            list.for_each(|item| entries.push(shown(item)));
            entries
        }
        ValueRef::Set(set) => set.iter().map(shown).collect(),
        ValueRef::Hash(hash) => hash.iter().flat_map(|(field, value)| [shown(field), shown(value)]).collect(),
        ValueRef::SortedSet(set) => {
            set.iter().flat_map(|(member, score)| [shown(member), score.to_string()]).collect()
        }
        ValueRef::String(_) | ValueRef::Stream(_) => vec![],
    };
    println!("{{listpack of {} entries}}", entries.len());
    for (index, entry) in entries.iter().enumerate() {
        println!("{{index {index}, {entry}}}");
    }
    ctx.reply.simple("Listpack structure printed on stdout");
    DONE
}

fn shown(item: Item<'_>) -> String {
    match item {
        Item::Bytes(bytes) => format!("string {:?}", String::from_utf8_lossy(bytes)),
        Item::Int(n) => format!("integer {n}"),
    }
}

fn quicklist(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let ValueRef::List(list) = entry.value() else {
        return Err(CommandError::text("ERR Not a quicklist encoded object."));
    };
    if list.encoding_name() != "quicklist" {
        return Err(CommandError::text("ERR Not a quicklist encoded object."));
    }
    println!("{{quicklist of {} entries in {} nodes}}", list.len(), list.nodes().len());
    for (index, node) in list.nodes().enumerate() {
        let form = if node.is_plain() { "plain" } else { "listpack" };
        let compressed = match node {
            list::Node::Compressed(c) => format!(", {} bytes compressed", c.lzf().len()),
            _ => String::new(),
        };
        println!("{{node {index}, {form}, {} bytes{compressed}}}", node.bytes());
    }
    if args.get(3).is_some_and(|level| is_on(level)) {
        let mut index = 0;
        list.for_each(|item| {
            println!("{{index {index}, {}}}", shown(item));
            index += 1;
        });
    }
    ctx.reply.simple("Quicklist structure printed on stdout");
    DONE
}

fn object(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let config = node(ctx).config.load();
    let keyspace = ctx.db.keyspace();
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let value = entry.value();
    let fast = args.get(3).is_some_and(|word| is(word, "fast"));
    let mut text = format!(
        "Value at:{:p} refcount:{} encoding:{}",
        entry.key().as_ptr(),
        references(entry, keyspace.usage.tracks_each_value()),
        encoding_of(entry),
    );
    // A String takes everything.
    if !fast {
        let mut saved = Vec::new();
        payload::dump(&mut saved, value, Options { compress: config.rdbcompression });
        let _ = write!(text, " serializedlength:{}", saved.len() - payload::FRAME);
    }
    let (access, idle) = (entry.access(), keyspace.usage.idle_seconds(entry.access()));
    let _ = write!(text, " lru:{access} lru_seconds_idle:{idle}");
    if let ValueRef::List(list) = value
        && list.encoding_name() == "quicklist"
    {
        let nodes = list.nodes().len();
        let _ = write!(
            text,
            " ql_nodes:{nodes} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{}",
            list.len() as f64 / nodes as f64,
            config.list_max_listpack_size,
            u8::from(list.compresses()),
        );
        if !fast {
            let bytes: usize = list.nodes().map(|node| node.bytes()).sum();
            let _ = write!(text, " ql_uncompressed_size:{bytes}");
        }
    }
    ctx.reply.simple(&text);
    DONE
}

fn populate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = crate::command::non_negative(args[2])?;
    let prefix = args.get(3).copied().unwrap_or(b"key");
    let size = args.get(4).map(|size| crate::command::non_negative(size)).transpose()?.unwrap_or(0);
    let db = &mut *ctx.db;
    for i in 0..count {
        let key = [prefix, b":", i.to_string().as_bytes()].concat();
        if db.exists(&key) {
            continue;
        }
        let mut value = format!("value:{i}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        db.set_string(&key, &value, SetExpire::Clear);
        db.changed(&key, event::MADE);
    }
    // Redis does not tell replicas of them either.
    db.record_nothing();
    ctx.reply.ok();
    DONE
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

fn reply_buffer(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    if is(args[2], "peak-reset-time") {
        let time = match args[3] {
            word if is(word, "never") => u64::MAX,
            word if is(word, "reset") => REPLY_PEAK_MS,
            word => u64::try_from(crate::command::int(word)?).map_err(|_| CommandError::NotInteger)?,
        };
        node.people.reply_peak_ms.store(time, Ordering::Relaxed);
    } else if is(args[2], "resizing") {
        node.people.reply_resizing.store(is_on(args[3]), Ordering::Relaxed);
    } else {
        return Err(wrong_arguments("DEBUG", args[1]));
    }
    ctx.reply.ok();
    DONE
}

fn packed_threshold(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    const MOST: u64 = 4 << 30;
    let text = std::str::from_utf8(args[2]).unwrap_or_default();
    let size = parse_memory(text).filter(|size| *size < MOST);
    let size = size.ok_or(CommandError::text(
        "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
    ))?;
    let node = node(ctx);
    let _one_at_a_time = node.config_change.lock();
    let list_packed_threshold = if size == 0 { usize::MAX } else { size as usize };
    let limits = Limits { list_packed_threshold, ..Limits::clone(&node.shared.limits.load()) };
    node.shared.limits.store(Arc::new(limits));
    ctx.reply.ok();
    DONE
}

fn allow_in_scripts(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    node(ctx).shared.scripts.may_run_all.store(is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

/// Keys and strings have no free room here, and lie in one allocation with what is known of them.
fn sds_length(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let ValueRef::String(value) = entry.value() else {
        return Err(CommandError::text("ERR Not an sds encoded string."));
    };
    if encoding_of(entry) == "int" {
        return Err(CommandError::text("ERR Not an sds encoded string."));
    }
    let (key, value) = (args[2].len(), value.len());
    ctx.reply.simple(&format!(
        "key_sds_len:{key}, key_sds_avail:0, key_zmalloc: {}, val_sds_len:{value}, val_sds_avail:0, val_zmalloc: {}",
        size_class(key),
        size_class(value),
    ));
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

/// A value of each type of the protocol, for tests of clients.
fn protocol(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    const RESP3_ONLY: CommandError = CommandError::text("ERR RESP2 is not supported by this command");
    let (resp3, reply) = (ctx.client.resp3, &mut *ctx.reply);
    match args[2].to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.int(12345),
        b"double" => reply.double(3141.0 / 1000.0),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.int(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.int(n));
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.int(n);
                reply.bool(n == 1);
            }
        }
        b"push" if !resp3 => return Err(RESP3_ONLY),
        b"attrib" => {
            if resp3 {
                reply.raw(b"|1\r\n");
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.int(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            // A message out of band comes behind the reply to the command that caused it.
            reply.bulk(b"Some real reply following the push reply");
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.int(42);
        }
        b"verbatim" => reply.verbatim("txt", "This is a verbatim\nstring"),
        b"true" => reply.bool(true),
        b"false" => reply.bool(false),
        b"bignum" if resp3 => reply.raw(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => reply.bulk(b"1234567999999999999999999999999999999"),
        _ => {
            return Err(CommandError::text(
                "ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    DONE
}
