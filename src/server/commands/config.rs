//! CONFIG: showing, changing and writing back the configuration, and bringing changes into effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::Client;
use crate::command::request::ConfigRequest;
use crate::config::set::{Change, SetError};
use crate::config::{Config, Meaning, get, rewrite, set, table};
use crate::resp::Reply;
use crate::server::commands::fail;
use crate::server::control::clustering;
use crate::server::disk::{config_file, rdb_file};
use crate::server::node::Node;
use crate::server::process::allocator;
use crate::server::process::os_error::words;
use crate::server::process::{crash, limits};
use crate::server::start;

pub fn perform(node: &Node, client: &Client, request: ConfigRequest, reply: &mut Reply) {
    match request {
        ConfigRequest::Get(patterns) => {
            let patterns: Vec<&[u8]> = patterns.iter().map(Vec::as_slice).collect();
            let found = get::get(&node.config.load(), &patterns);
            reply.map(found.len());
            for (name, value) in found {
                reply.bulk(&name);
                reply.bulk(&value);
            }
        }
        ConfigRequest::Set(pairs) => {
            let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(n, v)| (&n[..], &v[..])).collect();
            let _one_at_a_time = node.config_change.lock();
            let changed = set::set(&node.config.load(), &pairs, client.is_local());
            match changed.and_then(|change| take_effect(node, change)) {
                Ok(()) => reply.ok(),
                Err(e) => fail(node, client, reply, &format!("ERR {e}")),
            }
        }
        ConfigRequest::Rewrite => match rewrite_file(node) {
            Ok(()) => reply.ok(),
            Err(text) => fail(node, client, reply, &text),
        },
        ConfigRequest::ResetStat => {
            node.reset_stats();
            reply.ok();
        }
    }
}

fn rewrite_file(node: &Node) -> Result<(), String> {
    let path = node.origin.config_file.as_ref().ok_or("ERR The server is running without a config file")?;
    let _one_at_a_time = node.config_change.lock();
    let written = config_file::read_or_empty(path)
        .and_then(|old| config_file::replace(path, &rewrite::rewrite(&old, &node.config.load(), None)));
    match written {
        Ok(()) => {
            tracing::info!("CONFIG REWRITE executed with success.");
            Ok(())
        }
        Err(e) => {
            tracing::warn!("CONFIG REWRITE failed: {}", words(&e));
            Err(format!("ERR Rewriting config file: {}", words(&e)))
        }
    }
}

/// Brings a change into effect and publishes it. What can fail comes first, so that a failure
/// leaves everything as it was.
fn take_effect(node: &Node, change: Change) -> Result<(), SetError> {
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
fn enter(dir: &str) -> Result<String, SetError> {
    let moved = std::env::set_current_dir(dir).and_then(|()| std::env::current_dir());
    Ok(moved.map_err(|e| SetError::failed("dir", words(&e)))?.display().to_string())
}

/// Changes that the system may refuse, beside the directory. Each is taken back when a later one fails.
fn touch_system(node: &Node, config: &Config, changed: &[&str]) -> Result<(), SetError> {
    let has = |names: &[&str]| changed.iter().any(|name| names.contains(name));
    if has(&["locale-collate"]) && start::collation(config).is_none() {
        return Err(SetError::failed("locale-collate", "Invalid locale name"));
    }
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
    allocator::set_exact(config.maxmemory > 0);
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
