//! CONFIG: showing, changing and writing back the configuration, and bringing changes into effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::help::help;
use crate::command::spec::{Group::Server, KeyPositions, flags::*};
use crate::command::{self, Command, CommandError, Ctx, DONE, gate, is};
use crate::config::directive::{Directive, Effect};
use crate::config::rewrite::Extent;
use crate::config::set::{Change, SetError};
use crate::config::{self, Config, Meaning, table};
use crate::server::commands::node;
use crate::server::control::clustering;
use crate::server::disk::{aof, config_file, rdb_file};
use crate::server::net::accept::Kind;
use crate::server::node::Node;
use crate::server::node::tuning;
use crate::server::process::allocator;
use crate::server::process::os_error::words;
use crate::server::process::{crash, limits};
use crate::value::Limits;

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
        .secrets(sensitive_values)
        .flags(ADMINISTER)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(N) where N is the number of directives")
        .history(&[("7.0.0", "Several parameters at once.")])
        .doc("2.0.0", "data=(parameter value) ...", "Sets directives, all or none."),
];

fn get(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> command::Result {
    let found = config::get::get(&node(ctx).told_config(), &args[2..]);
    ctx.reply.map(found.len());
    for (name, value) in found {
        ctx.reply.bulk(&name);
        ctx.reply.bulk(&value);
    }
    DONE
}

/// Where the values of secret directives stand.
fn sensitive_values(args: &[&[u8]]) -> KeyPositions {
    let is_secret = |at: &usize| table::find(args[at - 1]).is_some_and(|row| row.sensitive);
    (3..args.len()).step_by(2).filter(is_secret).collect()
}

/// The directive that is the default user's password.
const PASSWORD: &str = "requirepass";

fn set(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> command::Result {
    let (pairs, []) = args[2..].as_chunks::<2>() else { return Err(CommandError::Syntax) };
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|[name, value]| (*name, *value)).collect();
    let node = node(ctx);
    let touchy = |(name, _): &(&[u8], &[u8])| table::find(name).is_some_and(|row| row.not_while_loading);
    if node.shared.gate.load(Ordering::Acquire) & gate::LOADING != 0 && pairs.iter().any(touchy) {
        return Err(CommandError::text("LOADING Redis is loading the dataset in memory"));
    }
    let _one_at_a_time = node.config_change.lock();
    let changed = config::set::set(&node.config.load(), &pairs, ctx.client.is_local());
    let changed = changed.map(|mut change| {
        // ACL commands may have given the default user another password since it was set.
        if pairs.iter().any(|(name, _)| is(name, PASSWORD)) && !change.changed.contains(&PASSWORD) {
            change.changed.push(PASSWORD);
        }
        change
    });
    changed
        .and_then(|change| take_effect(node, change))
        .map_err(|e| CommandError::owned(format!("ERR {e}")))?;
    ctx.reply.ok();
    DONE
}

fn rewrite(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> command::Result {
    rewrite_file(node(ctx), Extent::Changed)?;
    ctx.reply.ok();
    DONE
}

fn resetstat(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> command::Result {
    node(ctx).reset_stats();
    ctx.reply.ok();
    DONE
}

fn config_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> command::Result {
    help(ctx.reply, "config", CONFIG);
    DONE
}

/// Writes the configuration to the file that it came from.
pub(super) fn rewrite_file(node: &Node, extent: Extent) -> Result<(), CommandError> {
    let path = node
        .life
        .origin
        .config_file
        .as_ref()
        .ok_or(CommandError::text("ERR The server is running without a config file"))?;
    let _one_at_a_time = node.config_change.lock();
    let written = config_file::read_or_empty(path).and_then(|old| {
        let config = node.told_config();
        // With a file of users they stand there.
        let users = config.aclfile.is_empty().then(|| node.people.accounts.all());
        let users: Option<Vec<_>> = users.map(|users| users.iter().map(|user| user.declaration()).collect());
        config_file::replace(path, &config::rewrite::rewrite(&old, &config, users.as_deref(), extent))
    });
    match written {
        Ok(()) => {
            tracing::info!("CONFIG REWRITE executed with success.");
            Ok(())
        }
        Err(e) => {
            tracing::warn!("CONFIG REWRITE failed: {}", words(&e));
            Err(CommandError::owned(format!("ERR Rewriting config file: {}", words(&e))))
        }
    }
}

/// Brings a part of the server from the first configuration to the second. The first is still in effect.
type Refusable = fn(&Node, &Config, &Config) -> Result<(), SetError>;

/// What the system may refuse. Each is taken back, by going the other way, when a later one fails; so these
/// come first, and a failure leaves everything as it was.
const REFUSABLE: &[(Effect, Refusable)] = &[
    (Effect::OpenFiles, open_files),
    (Effect::Directory, directory),
    (Effect::OomScore, oom_score),
    (Effect::Locale, locale),
    (Effect::Tls, tls),
    (Effect::Listeners, |node, from, to| listen(node, Kind::Tcp, from, to)),
    (Effect::TlsListeners, |node, from, to| listen(node, Kind::Tls, from, to)),
    (Effect::AppendOnly, append_only),
];

/// The rest: copies what threads read elsewhere than in the configuration, which is in effect already.
const FOLLOWING: &[(Effect, fn(&Node, &Config))] = &[
    (Effect::Log, log),
    (Effect::Title, Node::show_title),
    (Effect::Password, |node, config| node.set_default_password(&config.requirepass.0)),
    (Effect::AclLog, |node, config| {
        node.people.denials.truncate(usize::try_from(config.acllog_max_len).unwrap_or(usize::MAX));
    }),
    (Effect::CrashReport, |_, config| crash::configure(config.crash_log_enabled, config.use_exit_on_panic)),
    (Effect::Memory, memory),
    (Effect::Scripts, |node, config| {
        node.shared.busy_after_ms.store(config.busy_reply_threshold, Ordering::Relaxed);
    }),
    (Effect::Events, |node, config| node.shared.keyspace.events.set(config.notify_keyspace_events)),
    (Effect::Gate, |node, _| node.settle_gate()),
    (Effect::SaveFailure, |node, _| rdb_file::note_failure(node)),
    (Effect::Cluster, clustering::configure),
    (Effect::Encodings, encodings),
    (Effect::Observers, tuning::configure_observers),
    (Effect::Backlog, |node, config| node.shared.keyspace.log.set_keep(config.repl_backlog_size)),
    (Effect::AppendFsync, |node, _| aof::policy_changed(node)),
];

/// The value of a directive as CONFIG GET shows it.
pub(super) fn shown(node: &Node, name: &str) -> String {
    let found = config::get::get(&node.config.load(), &[name.as_bytes()]);
    found
        .into_iter()
        .next()
        .map_or_else(String::new, |(_, value)| String::from_utf8_lossy(&value).into_owned())
}

/// Sets one directive, as CONFIG SET does.
pub(super) fn set_one(node: &Node, name: &str, value: &str) -> Result<(), SetError> {
    let _one_at_a_time = node.config_change.lock();
    let change = config::set::set(&node.config.load(), &[(name.as_bytes(), value.as_bytes())], true)?;
    take_effect(node, change)
}

/// Brings a change into effect and publishes it.
fn take_effect(node: &Node, change: Change) -> Result<(), SetError> {
    let Change { mut config, changed } = change;
    let rows: Vec<&Directive> = changed.iter().filter_map(|name| table::find(name.as_bytes())).collect();
    let moved = |effect: Effect| rows.iter().any(|row| row.moves.contains(&effect));
    let before = node.config.load();
    let mut done: Vec<Refusable> = Vec::new();
    for (_, apply) in REFUSABLE.iter().filter(|(effect, _)| moved(*effect)) {
        if let Err(error) = apply(node, &before, &config) {
            if let SetError::Failed { name, .. } = &error {
                tracing::warn!(
                    "Failed applying new configuration. Possibly related to new {name} setting. Restoring previous settings."
                );
            }
            for undo in done.iter().rev() {
                if let Err(error) = undo(node, &config, &before) {
                    tracing::warn!("What a failed CONFIG SET began stays: {error}");
                }
            }
            return Err(error);
        }
        done.push(*apply);
    }
    if moved(Effect::Directory) {
        config.dir =
            std::env::current_dir().map_err(|e| SetError::failed("dir", words(&e)))?.display().to_string();
    }
    node.config.store(Arc::new(config));
    let config = node.config.load();
    for (_, follow) in FOLLOWING.iter().filter(|(effect, _)| moved(*effect)) {
        follow(node, &config);
    }
    for row in rows.iter().filter(|row| row.meaning == Meaning::None) {
        tracing::warn!("{} is set, but has no effect in this server", row.name);
    }
    Ok(())
}

fn open_files(_: &Node, _: &Config, to: &Config) -> Result<(), SetError> {
    match limits::raise_open_files(to.maxclients, tuning::own_files(to)) {
        Ok(n) if n >= to.maxclients => Ok(()),
        Ok(n) => Err(SetError::failed(
            "maxclients",
            format!(
                "The operating system is not able to handle the specified number of clients, try with {n}"
            ),
        )),
        Err(text) => Err(SetError::failed("maxclients", text)),
    }
}

fn directory(_: &Node, _: &Config, to: &Config) -> Result<(), SetError> {
    std::env::set_current_dir(&to.dir).map_err(|e| SetError::failed("dir", words(&e)))
}

fn locale(_: &Node, _: &Config, to: &Config) -> Result<(), SetError> {
    let known = tuning::collation(to).is_some();
    if known { Ok(()) } else { Err(SetError::failed("locale-collate", "Invalid locale name")) }
}

fn oom_score(node: &Node, _: &Config, to: &Config) -> Result<(), SetError> {
    node.life.origin.oom_score.lock().apply(to, node.is_replica()).map_err(|e| {
        tracing::warn!("Unable to write oom_score_adj: {}", words(&e));
        SetError::failed(
            "oom-score-adj",
            "Failed to apply new oom_score_adj configuration, check server logs.",
        )
    })
}

fn tls(node: &Node, from: &Config, to: &Config) -> Result<(), SetError> {
    node.peers.tls.configure(to).map_err(|e| {
        tracing::warn!("{e}");
        // Which of several is to blame the log says.
        let moved = |row: &&Directive| row.moves.contains(&Effect::Tls) && row.show(from) != row.show(to);
        let name = table::DIRECTIVES.iter().find(moved).map_or("tls-cert-file", |row| row.name);
        SetError::failed(name, "Unable to update TLS configuration. Check server logs.")
    })
}

fn listen(node: &Node, kind: Kind, from: &Config, to: &Config) -> Result<(), SetError> {
    let Some(acceptor) = node.life.threads.acceptor.get() else { return Ok(()) };
    acceptor.listen_anew(kind, from, to).map_err(|e| {
        tracing::warn!("{e}");
        let name = match kind {
            _ if kind.port(from) == kind.port(to) => "bind",
            Kind::Tcp => "port",
            Kind::Tls => "tls-port",
        };
        let text = match name {
            "bind" => "Failed to bind to specified addresses.",
            _ => "Unable to listen on this port. Check server logs.",
        };
        SetError::failed(name, text)
    })
}

fn append_only(node: &Node, _: &Config, to: &Config) -> Result<(), SetError> {
    aof::turn(node, to.appendonly).map_err(|e| {
        tracing::warn!("{e}");
        SetError::failed("appendonly", "Unable to turn on AOF. Check server logs.")
    })
}

fn log(node: &Node, config: &Config) {
    if let Some(log) = &node.life.origin.log {
        log.set_level(config.loglevel);
        log.set_format(config.log_format);
    }
}

fn memory(node: &Node, config: &Config) {
    let memory = &node.shared.memory;
    allocator::set_exact(config.maxmemory > 0);
    memory.limit.store(config.maxmemory, Ordering::Relaxed);
    memory.policy.store(config.maxmemory_policy as u8, Ordering::Relaxed);
    memory.samples.store(config.maxmemory_samples, Ordering::Relaxed);
    memory.most.store(tuning::eviction_batch(config), Ordering::Relaxed);
    tuning::configure_usage(&node.shared.keyspace.usage, config, node.steady_s());
    tuning::configure_deletions(&node.shared.keyspace.lazy, config);
}

fn encodings(node: &Node, config: &Config) {
    let before = node.shared.limits.load();
    // What DEBUG has set stays.
    let Limits { verify_checksums, list_packed_threshold, .. } = **before;
    let limits = tuning::limits(config, before.hash_seed);
    node.shared.limits.store(Arc::new(Limits { list_packed_threshold, verify_checksums, ..limits }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_effect_has_somebody_who_brings_it_about_and_a_directive() {
        for effect in Effect::ALL {
            let known = REFUSABLE.iter().map(|a| a.0).chain(FOLLOWING.iter().map(|a| a.0));
            assert_eq!(known.filter(|known| *known == effect).count(), 1, "{effect:?}");
            let mut rows = table::DIRECTIVES.iter();
            assert!(rows.any(|row| row.moves.contains(&effect)), "{effect:?} follows from a directive");
        }
    }
}
