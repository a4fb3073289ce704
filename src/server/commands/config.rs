//! CONFIG: showing, changing and writing back the configuration, and bringing changes into effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::help::help;
use crate::command::spec::{Group::Server, flags::*};
use crate::command::{Command, Ctx, DONE, Fail, Result};
use crate::config::set::{Change, SetError};
use crate::config::{self, Config, Meaning, table};
use crate::server::commands::node;
use crate::server::control::clustering;
use crate::server::disk::{config_file, rdb_file};
use crate::server::node::Node;
use crate::server::process::os_error::words;
use crate::server::process::{crash, limits};
use crate::server::start;

pub const COMMANDS: &[Command] =
    &[Command::container("config", Server, CONFIG).doc("2.0.0", "", "Commands about the configuration.")];

const ADMINISTER: Flags = ADMIN | NOSCRIPT | LOADING | STALE;

const CONFIG: &[Command] = &[
    Command::new("get", -3, Server, get)
        .flags(ADMINISTER)
        .complexity("O(N) where N is the number of directives asked for")
        .history(&[("7.0.0", "Several parameters at once.")])
        .doc("2.0.0", "parameter ...", "Returns directives by name or pattern."),
    Command::new("help", 2, Server, config_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "5.0.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("resetstat", 2, Server, resetstat)
        .flags(ADMINISTER | READS_COUNTERS)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("2.0.0", "", "Sets the counters of INFO to zero."),
    Command::new("rewrite", 2, Server, rewrite)
        .flags(ADMINISTER)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("2.8.0", "", "Writes what has been set to the configuration file."),
    Command::new("set", -4, Server, set)
        .flags(ADMINISTER)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of directives")
        .history(&[("7.0.0", "Several parameters at once.")])
        .doc("2.0.0", "data=(parameter value) ...", "Sets directives, all or none."),
];

fn get(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let found = config::get::get(&node(ctx).config.load(), &args[2..]);
    ctx.reply.map(found.len());
    for (name, value) in found {
        ctx.reply.bulk(&name);
        ctx.reply.bulk(&value);
    }
    DONE
}

fn set(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (pairs, []) = args[2..].as_chunks::<2>() else { return Err(Fail::Syntax) };
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|[name, value]| (*name, *value)).collect();
    let node = node(ctx);
    let _one_at_a_time = node.config_change.lock();
    let changed = config::set::set(&node.config.load(), &pairs, ctx.client.is_local());
    changed.and_then(|change| take_effect(node, change)).map_err(|e| Fail::owned(format!("ERR {e}")))?;
    ctx.reply.ok();
    DONE
}

fn rewrite(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    rewrite_file(node(ctx))?;
    ctx.reply.ok();
    DONE
}

fn resetstat(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    node(ctx).reset_stats();
    ctx.reply.ok();
    DONE
}

fn config_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "config", CONFIG);
    DONE
}

fn rewrite_file(node: &Node) -> Result<()> {
    let path = node
        .origin
        .config_file
        .as_ref()
        .ok_or(Fail::text("ERR The server is running without a config file"))?;
    let _one_at_a_time = node.config_change.lock();
    let written = config_file::read_or_empty(path).and_then(|old| {
        config_file::replace(path, &config::rewrite::rewrite(&old, &node.config.load(), None))
    });
    match written {
        Ok(()) => {
            tracing::info!("CONFIG REWRITE executed with success.");
            Ok(())
        }
        Err(e) => {
            tracing::warn!("CONFIG REWRITE failed: {}", words(&e));
            Err(Fail::owned(format!("ERR Rewriting config file: {}", words(&e))))
        }
    }
}

/// Brings a change into effect and publishes it. What can fail comes first, so that a failure
/// leaves everything as it was.
fn take_effect(node: &Node, change: Change) -> std::result::Result<(), SetError> {
    let Change { mut config, changed } = change;
    let has = |names: &[&str]| changed.iter().any(|name| names.contains(name));
    if has(&["maxclients"]) {
        let fits = limits::raise_open_files(config.maxclients, start::own_files(&config));
        match fits {
            Ok(n) if n >= config.maxclients => {}
            Ok(n) => {
                let text = format!(
                    "The operating system is not able to handle the specified number of clients, try with {n}"
                );
                return Err(SetError::failed("maxclients", text));
            }
            Err(text) => return Err(SetError::failed("maxclients", text)),
        }
    }
    if has(&["dir"]) {
        config.dir = enter(&config.dir)?;
    }
    if let Err(error) = touch_system(node, &config, &changed) {
        if has(&["dir"]) {
            // It was there a moment ago.
            let _ = enter(&node.config.load().dir);
        }
        return Err(error);
    }
    node.config.store(Arc::new(config));
    let config = node.config.load();
    follow(node, &config);
    for name in &changed {
        if table::find(name.as_bytes()).is_some_and(|row| row.meaning == Meaning::Later) {
            tracing::warn!("{name} is set, but has no effect in this release");
        }
    }
    if has(&["repl-backlog-size"]) {
        node.shared.keyspace.log.set_keep(config.repl_backlog_size);
    }
    Ok(())
}

/// Goes to the directory; returns its absolute path.
fn enter(dir: &str) -> std::result::Result<String, SetError> {
    let moved = std::env::set_current_dir(dir).and_then(|()| std::env::current_dir());
    Ok(moved.map_err(|e| SetError::failed("dir", words(&e)))?.display().to_string())
}

/// Changes that the system may refuse, beside the directory. Each is taken back when a later one fails.
fn touch_system(node: &Node, config: &Config, changed: &[&str]) -> std::result::Result<(), SetError> {
    let has = |names: &[&str]| changed.iter().any(|name| names.contains(name));
    let score = has(&["oom-score-adj", "oom-score-adj-values"]);
    if score && let Err(e) = node.origin.oom_score.lock().apply(config, node.is_replica()) {
        tracing::warn!("Unable to write oom_score_adj: {}", words(&e));
        return Err(SetError::failed(
            "oom-score-adj",
            "Failed to apply new oom_score_adj configuration, check server logs.",
        ));
    }
    if has(&["port", "bind"])
        && let Some(acceptor) = node.acceptor.get()
        && let Err(e) = acceptor.listen_anew(&node.config.load(), config)
    {
        tracing::warn!("{e}");
        if score && let Err(e) = node.origin.oom_score.lock().apply(&node.config.load(), node.is_replica()) {
            tracing::warn!("Unable to write oom_score_adj: {}", words(&e));
        }
        return Err(if has(&["port"]) {
            SetError::failed("port", "Unable to listen on this port. Check server logs.")
        } else {
            SetError::failed("bind", "Failed to bind to specified addresses.")
        });
    }
    Ok(())
}

/// Copies what threads read elsewhere than in the configuration.
fn follow(node: &Node, config: &Config) {
    if let Some(log) = &node.origin.log {
        log.set_level(config.loglevel);
        log.set_format(config.log_format);
    }
    crash::configure(config.crash_log_enabled, config.use_exit_on_panic);
    let memory = &node.shared.memory;
    memory.limit.store(config.maxmemory, Ordering::Relaxed);
    memory.policy.store(config.maxmemory_policy as u8, Ordering::Relaxed);
    start::configure_usage(&node.shared.keyspace.usage, config);
    memory.samples.store(config.maxmemory_samples, Ordering::Relaxed);
    memory.most.store(start::eviction_batch(config), Ordering::Relaxed);
    node.shared.keyspace.events.set(config.notify_keyspace_events);
    node.settle_gate();
    rdb_file::note_failure(node);
    clustering::configure(node, config);
    let seed = node.shared.limits.load().hash_seed;
    node.shared.limits.store(Arc::new(start::limits(config, seed)));
}
