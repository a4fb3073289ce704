//! Scripts and functions: EVAL and its kin, SCRIPT, FUNCTION. The executor runs what these rows name.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::glob;
use crate::command::help::help;
use crate::command::spec::{Group::Scripting, KeySpec, counted, flags::*, key};
use crate::command::{Command, CommandError, Ctx, DONE, Outcome, Result, is, shown, wrong_arguments};
use crate::exec::Shared;
use crate::exec::libraries::{self, engine};
use crate::exec::script::busy_fail;
use crate::persist::rdb::functions;
use crate::resp::Reply;
use crate::script::{self, Libraries, Library, Running, Store, shebang};
use crate::server::commands::node;
use crate::server::process::clock::now_ns;

const RUNS: Flags = NOSCRIPT | STALE | SKIP_MONITOR | NO_MANDATORY_KEYS | MOVABLE_KEYS | RUNS_SCRIPT;
const WRITES: Flags = RUNS | MAY_REPLICATE;
const READS: Flags = RUNS | READONLY;

const NOTES: &str =
    "The key specification cannot tell which of the keys a script writes to, nor other keys that it uses";
const WRITTEN: KeySpec = counted(2, key::RW | key::ACCESS | key::UPDATE);
const READ: KeySpec = counted(2, key::RO | key::ACCESS);

const EVERY_SHARD: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];
const EVERY_NODE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];
const ONE_IS_KILLED: &[&str] = &["request_policy:all_shards", "response_policy:one_succeeded"];

const AS_LONG_AS_IT_TAKES: &str = "Depends on the script.";

/// EVAL and its relatives, SCRIPT, FUNCTION and FCALL.
pub const COMMANDS: &[Command] = &[
    Command::new("eval", -3, Scripting, run)
        .flags(WRITES)
        .keys(&[WRITTEN.notes(NOTES)])
        .complexity(AS_LONG_AS_IT_TAKES)
        .doc("2.6.0", "script numkeys [key ...] [arg ...]", "Runs a script."),
    Command::new("eval_ro", -3, Scripting, run)
        .flags(READS)
        .keys(&[READ.notes(NOTES)])
        .complexity(AS_LONG_AS_IT_TAKES)
        .doc("7.0.0", "script numkeys [key ...] [arg ...]", "Runs a script that changes nothing."),
    Command::new("evalsha", -3, Scripting, run)
        .flags(WRITES)
        .keys(&[WRITTEN])
        .complexity(AS_LONG_AS_IT_TAKES)
        .doc("2.6.0", "sha1 numkeys [key ...] [arg ...]", "Runs a script that the node knows, by its SHA-1."),
    Command::new("evalsha_ro", -3, Scripting, run)
        .flags(READS)
        .keys(&[READ])
        .complexity(AS_LONG_AS_IT_TAKES)
        .doc(
            "7.0.0",
            "sha1 numkeys [key ...] [arg ...]",
            "Runs a script that the node knows and that changes nothing, by its SHA-1.",
        ),
    Command::new("fcall", -3, Scripting, run)
        .flags(WRITES)
        .keys(&[WRITTEN.notes(NOTES)])
        .complexity(AS_LONG_AS_IT_TAKES)
        .doc("7.0.0", "function numkeys [key ...] [arg ...]", "Calls a function of a library."),
    Command::new("fcall_ro", -3, Scripting, run)
        .flags(READS)
        .keys(&[READ.notes(NOTES)])
        .complexity(AS_LONG_AS_IT_TAKES)
        .doc(
            "7.0.0",
            "function numkeys [key ...] [arg ...]",
            "Calls a function of a library that changes nothing.",
        ),
    Command::container("script", Scripting, SCRIPT).doc("2.6.0", "", "Scripts that the node knows."),
    Command::container("function", Scripting, FUNCTION).doc("7.0.0", "", "Libraries of functions."),
];

const SCRIPT: &[Command] = &[
    Command::new("debug", 3, Scripting, script_debug).flags(NOSCRIPT).complexity("O(1)").doc(
        "3.2.0",
        "mode=<YES | SYNC | NO>",
        "Debugs scripts of this connection step by step; only NO is supported.",
    ),
    Command::new("exists", -3, Scripting, script_exists)
        .flags(NOSCRIPT)
        .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"])
        .complexity("O(N) for N scripts")
        .doc("2.6.0", "sha1 ...", "Tells which scripts the node knows."),
    Command::new("flush", -2, Scripting, script_flush)
        .flags(NOSCRIPT)
        .tips(EVERY_NODE)
        .complexity("O(N) for N scripts")
        .history(&[("6.2.0", "The options `ASYNC` and `SYNC`.")])
        .doc("2.6.0", "[flush-type@6.2.0=<ASYNC | SYNC>]", "Forgets all scripts."),
    Command::new("help", 2, Scripting, script_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "5.0.0",
        "",
        "Prints help.",
    ),
    Command::new("kill", 2, Scripting, script_kill)
        .flags(NOSCRIPT | ALLOW_BUSY)
        .tips(ONE_IS_KILLED)
        .complexity("O(1)")
        .doc("2.6.0", "", "Stops the script that runs, if it has not written."),
    Command::new("load", 3, Scripting, script_load)
        .flags(NOSCRIPT | STALE)
        .tips(EVERY_NODE)
        .complexity("O(N) for N bytes")
        .doc("2.6.0", "script", "Compiles a script, and keeps it."),
];

const FUNCTION: &[Command] = &[
    Command::new("delete", 3, Scripting, function_delete)
        .flags(NOSCRIPT | WRITE | LOCK_ALL)
        .tips(EVERY_SHARD)
        .complexity("O(1)")
        .doc("7.0.0", "library-name", "Deletes a library."),
    Command::new("dump", 2, Scripting, function_dump).flags(NOSCRIPT).complexity("O(N) for N libraries").doc(
        "7.0.0",
        "",
        "All libraries in one value, for FUNCTION RESTORE.",
    ),
    Command::new("flush", -2, Scripting, function_flush)
        .flags(NOSCRIPT | WRITE | LOCK_ALL)
        .tips(EVERY_SHARD)
        .complexity("O(N) for N functions")
        .doc("7.0.0", "[flush-type=<ASYNC | SYNC>]", "Deletes all libraries."),
    Command::new("help", 2, Scripting, function_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "7.0.0",
        "",
        "Prints help.",
    ),
    Command::new("kill", 2, Scripting, function_kill)
        .flags(NOSCRIPT | ALLOW_BUSY)
        .tips(ONE_IS_KILLED)
        .complexity("O(1)")
        .doc("7.0.0", "", "Stops the function that runs, if it has not written."),
    Command::new("list", -2, Scripting, function_list)
        .flags(NOSCRIPT)
        .tips(&["nondeterministic_output_order"])
        .complexity("O(N) for N functions")
        .doc("7.0.0", "[LIBRARYNAME library-name-pattern:string] [WITHCODE]", "Tells of all libraries."),
    Command::new("load", -3, Scripting, function_load)
        .flags(NOSCRIPT | WRITE | DENYOOM | LOCK_ALL)
        .tips(EVERY_SHARD)
        .complexity("O(1), and what the library's text takes to run")
        .doc("7.0.0", "[REPLACE] function-code", "Creates a library."),
    Command::new("restore", -3, Scripting, function_restore)
        .flags(NOSCRIPT | WRITE | DENYOOM | LOCK_ALL)
        .tips(EVERY_SHARD)
        .complexity("O(N) for N functions")
        .doc(
            "7.0.0",
            "serialized-value [policy=<FLUSH | APPEND | REPLACE>]",
            "Creates the libraries of FUNCTION DUMP's value.",
        ),
    Command::new("stats", 2, Scripting, function_stats)
        .flags(NOSCRIPT | ALLOW_BUSY)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .complexity("O(1)")
        .doc("7.0.0", "", "Tells of the function that runs, and how many there are."),
];

/// The executor runs it.
fn run(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ok(Outcome::Script)
}

fn store<'c>(ctx: &Ctx<'c, '_, '_>) -> &'c Store {
    &node(ctx).shared.scripts
}

fn script_debug(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if is(args[2], "no") {
        ctx.reply.ok();
        return DONE;
    }
    Err(if is(args[2], "yes") || is(args[2], "sync") {
        CommandError::text("ERR this server has no debugger for scripts")
    } else {
        CommandError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO")
    })
}

fn script_exists(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let store = store(ctx);
    ctx.reply.array(args.len() - 2);
    args[2..].iter().for_each(|sha| ctx.reply.int(store.script(sha).is_some().into()));
    DONE
}

fn script_flush(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 3 || args.get(2).is_some_and(|word| !is(word, "sync") && !is(word, "async")) {
        return Err(CommandError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    store(ctx).flush_scripts();
    ctx.reply.ok();
    DONE
}

fn script_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "script", SCRIPT);
    DONE
}

fn script_load(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let store = store(ctx);
    let engine = engine(store)?;
    let known = store.script(script::sha1_hex(args[2]).as_bytes()).is_some();
    let script = engine.keep(store, args[2], true)?;
    if let Err(text) = engine.compile(&script) {
        if !known {
            store.forget(&script.script);
        }
        return Err(CommandError::owned(text));
    }
    ctx.reply.bulk_str(&script.script.sha);
    DONE
}

fn script_kill(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    kill(ctx, false)
}

fn function_kill(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    kill(ctx, true)
}

/// Kills what runs of functions, or of scripts, and has not written.
fn kill(ctx: &mut Ctx<'_, '_, '_>, functions: bool) -> Result {
    let store = store(ctx);
    let running = store.running();
    let of_kind: Vec<&Arc<Running>> =
        running.iter().filter(|running| running.function.is_some() == functions).collect();
    if of_kind.is_empty() {
        let idle = running.is_empty();
        return Err(if idle {
            CommandError::text("NOTBUSY No scripts in execution right now.")
        } else {
            busy_fail(store)
        });
    }
    if of_kind.into_iter().filter(|running| running.kill()).count() == 0 {
        return Err(CommandError::text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        ));
    }
    ctx.reply.ok();
    DONE
}

fn function_load(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (code, options) = args[2..].split_last().ok_or(CommandError::Syntax)?;
    let mut replace = false;
    for option in options {
        if !is(option, "replace") {
            let option = shown(option);
            return Err(CommandError::owned(format!("ERR Unknown option given: {option}")));
        }
        replace = true;
    }
    let store = store(ctx);
    let mut libraries = Libraries::clone(&store.libraries());
    let name = libraries::add(store, &mut libraries, code, replace)?;
    replace_libraries(ctx, libraries);
    ctx.record(args);
    ctx.reply.bulk_str(&name);
    DONE
}

/// All shards are locked: what comes later in the log, or in a snapshot, comes later here.
fn replace_libraries(ctx: &mut Ctx<'_, '_, '_>, libraries: Libraries) {
    store(ctx).set_libraries(libraries);
    ctx.db.count_change();
}

fn function_delete(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let mut libraries = Libraries::clone(&store(ctx).libraries());
    if !libraries.remove(&String::from_utf8_lossy(args[2])) {
        return Err(CommandError::text("ERR Library not found"));
    }
    replace_libraries(ctx, libraries);
    ctx.record(args);
    ctx.reply.ok();
    DONE
}

fn function_flush(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 3 {
        return Err(wrong_arguments("FUNCTION", args[1]));
    }
    if args.get(2).is_some_and(|word| !is(word, "sync") && !is(word, "async")) {
        return Err(CommandError::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    replace_libraries(ctx, Libraries::default());
    ctx.record(args);
    ctx.reply.ok();
    DONE
}

fn function_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "function", FUNCTION);
    DONE
}

fn function_dump(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let libraries = store(ctx).libraries();
    let payload = functions::dump(libraries.iter().map(|library| library.code.as_slice()));
    ctx.reply.bulk(&payload);
    DONE
}

fn function_restore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 4 {
        return Err(wrong_arguments("FUNCTION", args[1]));
    }
    let policy = args.get(3).copied().unwrap_or(b"append");
    let (flush, replace) = (is(policy, "flush"), is(policy, "replace"));
    if !flush && !replace && !is(policy, "append") {
        return Err(CommandError::text(
            "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
        ));
    }
    let codes = functions::restore(args[2], ctx.limits.verify_checksums)
        .map_err(|refused| CommandError::text(refused.reply()))?;
    let store = store(ctx);
    let mut libraries = if flush { Libraries::default() } else { Libraries::clone(&store.libraries()) };
    for code in codes {
        // The words here are without quotation marks.
        let (name, body_at) = shebang::of_library(&code)?;
        if !replace && libraries.get(&name).is_some() {
            return Err(CommandError::owned(format!("ERR Library {name} already exists")));
        }
        let library = engine(store)?.load(store, name, &code, body_at)?;
        libraries
            .add(Arc::new(library), replace)
            .map_err(|text| CommandError::owned(format!("ERR {text}")))?;
    }
    replace_libraries(ctx, libraries);
    ctx.record(args);
    ctx.reply.ok();
    DONE
}

fn function_list(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (mut pattern, mut with_code) = (None, false);
    let mut words = args[2..].iter();
    while let Some(word) = words.next() {
        if is(word, "withcode") && !with_code {
            with_code = true;
        } else if is(word, "libraryname") && pattern.is_none() {
            pattern =
                Some(*words.next().ok_or(CommandError::text("ERR library name argument was not given"))?);
        } else {
            let word = shown(word);
            return Err(CommandError::owned(format!("ERR Unknown argument {word}")));
        }
    }
    let libraries = store(ctx).libraries();
    let listed: Vec<&Arc<Library>> = libraries
        .iter()
        .filter(|library| pattern.is_none_or(|p| glob::matches(p, library.name.as_bytes())))
        .collect();
    ctx.reply.array(listed.len());
    for library in listed {
        describe(ctx.reply, library, with_code);
    }
    DONE
}

fn describe(reply: &mut Reply, library: &Library, with_code: bool) {
    reply.map(3 + usize::from(with_code));
    reply.bulk_str("library_name");
    reply.bulk_str(&library.name);
    reply.bulk_str("engine");
    reply.bulk_str("LUA");
    reply.bulk_str("functions");
    reply.array(library.functions.len());
    for function in library.functions.values() {
        reply.map(3);
        reply.bulk_str("name");
        reply.bulk_str(&function.name);
        reply.bulk_str("description");
        match &function.description {
            Some(text) => reply.bulk(text),
            None => reply.null(),
        }
        reply.bulk_str("flags");
        let names = function.flags.names();
        reply.set(names.len());
        names.iter().for_each(|name| reply.simple(name));
    }
    if with_code {
        reply.bulk_str("library_code");
        reply.bulk(&library.code);
    }
}

fn function_stats(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let (store, reply) = (store(ctx), &mut *ctx.reply);
    reply.map(2);
    reply.bulk_str("running_script");
    match store.running().iter().find(|running| running.function.is_some()) {
        Some(running) => {
            reply.map(3);
            reply.bulk_str("name");
            reply.bulk_str(running.function.as_deref().unwrap_or_default());
            reply.bulk_str("command");
            reply.array(running.command.len());
            running.command.iter().for_each(|arg| reply.bulk(arg));
            reply.bulk_str("duration_ms");
            reply.int((now_ns().saturating_sub(running.began) / 1_000_000) as i64);
        }
        None => reply.null(),
    }
    let libraries = store.libraries();
    reply.bulk_str("engines");
    reply.map(1);
    reply.bulk_str("LUA");
    reply.map(2);
    reply.bulk_str("libraries_count");
    reply.int(libraries.len() as i64);
    reply.bulk_str("functions_count");
    reply.int(libraries.function_count() as i64);
    DONE
}

/// Whether a script has run for longer than `busy-reply-threshold`.
pub fn one_takes_long(shared: &Shared) -> bool {
    let (threshold, now) = (shared.busy_after_ms.load(Ordering::Relaxed), now_ns());
    let takes_long = |running: &Arc<Running>| now.saturating_sub(running.began) / 1_000_000 >= threshold;
    threshold != 0 && shared.scripts.running().iter().any(takes_long)
}
