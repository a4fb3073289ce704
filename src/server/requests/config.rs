//! CONFIG: showing, changing and writing back the configuration, and bringing changes into effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fail;
use crate::command::Client;
use crate::command::request::ConfigRequest;
use crate::config::set::{Change, SetError};
use crate::config::{Config, Meaning, get, rewrite, set, table};
use crate::resp::Reply;
use crate::server::node::Node;
use crate::server::process::{crash, limits};
use crate::server::{clustering, config_file, listen, persistence, start};

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
    let written = std::fs::read(path)
        .and_then(|old| config_file::replace(path, &rewrite::rewrite(&old, &node.config.load(), None)));
    match written {
        Ok(()) => {
            tracing::info!("CONFIG REWRITE executed with success.");
            Ok(())
        }
        Err(e) => {
            tracing::warn!("CONFIG REWRITE failed: {e}");
            Err(format!("ERR Rewriting config file: {e}"))
        }
    }
}

/// Brings a change into effect and publishes it. What can fail comes first, so that a failure
/// leaves everything as it was.
fn take_effect(node: &Node, change: Change) -> Result<(), SetError> {
    let Change { mut config, changed } = change;
    let has = |names: &[&str]| changed.iter().any(|name| names.contains(name));
    let mut listeners = None;
    if has(&["port", "bind"]) {
        let moved = |(_, e): (String, std::io::Error)| {
            tracing::warn!("Could not listen as CONFIG SET asks: {e}");
            let name = if has(&["port"]) { "port" } else { "bind" };
            SetError::failed(name, "Unable to listen on this port. Check server logs.")
        };
        listeners = Some(listen::tcp(&config, config.port).map_err(moved)?);
    }
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
    if has(&["oom-score-adj", "oom-score-adj-values"])
        && let Err(e) = node.origin.oom_score.lock().apply(&config, node.is_replica())
    {
        tracing::warn!("Unable to write oom_score_adj: {e}");
        return Err(SetError::failed(
            "oom-score-adj",
            "Failed to apply new oom_score_adj configuration, check server logs.",
        ));
    }
    if has(&["dir"]) {
        let moved = std::env::set_current_dir(&config.dir).and_then(|()| std::env::current_dir());
        config.dir = moved.map_err(|e| SetError::failed("dir", e.to_string()))?.display().to_string();
    }
    if let (Some(listeners), Some(acceptor)) = (listeners, node.acceptor.get()) {
        acceptor.replace_tcp(listeners);
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

/// Copies what threads read elsewhere than in the configuration.
fn follow(node: &Node, config: &Config) {
    if let Some(log) = &node.origin.log {
        log.set_level(config.loglevel);
        log.set_format(config.log_format);
    }
    crash::configure(config.crash_log_enabled, config.use_exit_on_panic);
    let memory = &node.shared.memory;
    memory.limit.store(config.maxmemory, Ordering::Relaxed);
    memory.evict.store(start::evicts(config.maxmemory_policy), Ordering::Relaxed);
    memory.samples.store(config.maxmemory_samples, Ordering::Relaxed);
    memory.most.store(start::eviction_batch(config), Ordering::Relaxed);
    node.settle_gate();
    persistence::note_failure(node);
    clustering::configure(node, config);
    let seed = node.shared.limits.load().hash_seed;
    node.shared.limits.store(Arc::new(start::limits(config, seed)));
}
