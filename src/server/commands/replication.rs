//! The commands by which replicas find their primary and speak with it, and those that tell of it.

use std::time::Duration;

use crate::acl::category;
use crate::base::num::parse_i64;
use crate::command::client::{Role, SyncRequest};
use crate::command::spec::{Group::Generic, Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Outcome, Result, is, timeout_ms};
use crate::repl::failover::Order;
use crate::server::commands::node;
use crate::server::control::replication::{self, Change, Goal, Waiting};

pub const COMMANDS: &[Command] = &[
    Command::new("replicaof", 3, Server, replicaof)
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING | LOCK_ALL)
        .doc(
            "5.0.0",
            "args=<host-port=(host port) | no-one=(NO ONE)>",
            "Makes the node follow a primary, or be one.",
        ),
    Command::new("slaveof", 3, Server, replicaof)
        .deprecated("5.0.0", "`REPLICAOF`")
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING | LOCK_ALL)
        .doc(
            "1.0.0",
            "args=<host-port=(host port) | no-one=(NO ONE)>",
            "Makes the node follow a primary, or be one.",
        ),
    Command::new("failover", -1, Server, failover).flags(ADMIN | NOSCRIPT | STALE | LOCK_ALL).doc(
        "6.2.0",
        "[TO target=(host port:integer [FORCE])] [ABORT] [TIMEOUT milliseconds:integer]",
        "Hands the part of the primary over to a replica.",
    ),
    Command::new("role", 1, Server, role)
        .complexity("O(1)")
        .flags(NOSCRIPT | LOADING | STALE | FAST)
        .categories(category::ADMIN | category::DANGEROUS)
        .doc("2.8.12", "", "Tells the part that the node plays in replication."),
    Command::new("replconf", -1, Server, replconf)
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY | SYSTEM)
        .doc("3.0.0", "", "What replicas and primaries tell each other."),
    Command::new("psync", -3, Server, psync)
        .flags(ADMIN | NO_ASYNC_LOADING | NO_MULTI | NOSCRIPT | LOCK_ALL)
        .doc("2.8.0", "replicationid offset", "Asks for the stream, from a point in a history on."),
    Command::new("sync", 1, Server, sync)
        .flags(ADMIN | NO_ASYNC_LOADING | NO_MULTI | NOSCRIPT | LOCK_ALL)
        .doc("1.0.0", "", "Asks for all data and the stream that follows them."),
    Command::new("wait", 3, Generic, wait)
        .complexity("O(1)")
        .flags(BLOCKING)
        .categories(category::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc(
            "3.0.0",
            "numreplicas timeout:integer",
            "Waits until replicas have applied what the connection wrote.",
        ),
    Command::new("waitaof", 4, Generic, waitaof)
        .complexity("O(1)")
        .flags(BLOCKING)
        .categories(category::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc(
            "7.2.0",
            "numlocal numreplicas timeout:integer",
            "Waits until what the connection wrote is on disk here and at replicas.",
        ),
];

fn replicaof(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if ctx.clustered {
        return Err(CommandError::text("ERR REPLICAOF not allowed in cluster mode."));
    }
    if node(ctx).peers.replication.is_failing_over() {
        return Err(CommandError::text("ERR REPLICAOF not allowed while failing over."));
    }
    let address = if is(args[1], "no") && is(args[2], "one") {
        None
    } else {
        let port = parse_i64(args[2]).and_then(|p| u16::try_from(p).ok());
        let port = port.ok_or(CommandError::text("ERR Invalid master port"))?;
        let host = std::str::from_utf8(args[1]).map_err(|_| CommandError::text("ERR Invalid master host"))?;
        Some((host.to_owned(), port))
    };
    if ctx.client.role == Role::Replica {
        return Err(CommandError::text("ERR Command is not valid when client is a replica."));
    }
    match replication::change_role(node(ctx), ctx.client, address, ctx.db.locked(), ctx.may_block) {
        Change::Done => ctx.reply.ok(),
        Change::Same => ctx.reply.simple("OK Already connected to specified master"),
        Change::Later => return Ok(Outcome::Suspended),
    }
    DONE
}

fn failover(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if ctx.clustered {
        return Err(CommandError::text(
            "ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead.",
        ));
    }
    let node = node(ctx);
    if matches!(&args[1..], [word] if is(word, "abort")) {
        replication::failover::abort(node, ctx.db.locked())?;
    } else {
        replication::failover::begin(node, failover_order(&args[1..])?, ctx.db.locked())?;
    }
    ctx.reply.ok();
    DONE
}

/// `[TO host port] [FORCE] [TIMEOUT milliseconds]`, each once, in any order.
fn failover_order(mut words: &[&[u8]]) -> std::result::Result<Order, CommandError> {
    let mut order = Order::default();
    while let [word, rest @ ..] = words {
        words = match rest {
            [ms, rest @ ..] if is(word, "timeout") && order.timeout_ms.is_none() => {
                let ms = parse_i64(ms).ok_or(CommandError::NotInteger)?;
                let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0);
                order.timeout_ms =
                    Some(ms.ok_or(CommandError::text("ERR FAILOVER timeout must be greater than 0"))?);
                rest
            }
            [host, port, rest @ ..] if is(word, "to") && order.to.is_none() => {
                let port = parse_i64(port).ok_or(CommandError::NotInteger)?;
                // What is no port is no replica's.
                let port = u16::try_from(port).unwrap_or(0);
                order.to = Some((String::from_utf8_lossy(host).into_owned(), port));
                rest
            }
            _ if is(word, "force") && !order.force => {
                order.force = true;
                rest
            }
            _ => return Err(CommandError::Syntax),
        };
    }
    Ok(order)
}

fn role(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    replication::role(node(ctx), ctx.reply);
    DONE
}

fn replconf(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if replication::replconf(node(ctx), ctx.client, &args[1..])? {
        ctx.reply.ok();
    }
    DONE
}

fn psync(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let from = parse_i64(args[2]).ok_or(CommandError::NotInteger)?;
    if ctx.client.role == Role::Normal && args.get(3).is_some_and(|word| is(word, "failover")) {
        if ctx.clustered {
            return Err(CommandError::text("ERR FAILOVER not allowed in cluster mode."));
        }
        replication::failover::take_over(node(ctx), ctx.client, args[1], ctx.db.locked())?;
    }
    become_replica(ctx, SyncRequest::Psync { id: args[1].to_vec(), from })
}

fn sync(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    become_replica(ctx, SyncRequest::Sync)
}

fn become_replica(ctx: &mut Ctx<'_, '_, '_>, request: SyncRequest) -> Result {
    let (node, client) = (node(ctx), &mut *ctx.client);
    if client.role != Role::Normal {
        return DONE;
    }
    if node.peers.replication.is_failing_over() {
        return Err(CommandError::text("NOMASTERLINK Can't SYNC while failing over"));
    }
    if !node.peers.replication.has_data() {
        return Err(CommandError::text("NOMASTERLINK Can't SYNC while not connected with my master"));
    }
    client.sync = Some(request);
    client.role = Role::Replica;
    client.version += 1;
    Ok(Outcome::Detached)
}

fn wait(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let replicas = parse_i64(args[1]).ok_or(CommandError::NotInteger)?;
    let timeout = timeout_ms(args[2], ctx.db.now)?;
    wait_for(ctx, None, usize::try_from(replicas).unwrap_or(0), timeout)
}

fn waitaof(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let local = match parse_i64(args[1]).ok_or(CommandError::NotInteger)? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR value is out of range, value must between 0 and 1")),
    };
    let replicas = parse_i64(args[2]).and_then(|n| usize::try_from(n).ok());
    let replicas = replicas.ok_or(CommandError::text("ERR value is out of range, must be positive"))?;
    let timeout = timeout_ms(args[3], ctx.db.now)?;
    wait_for(ctx, Some(local), replicas, timeout)
}

fn wait_for(
    ctx: &mut Ctx<'_, '_, '_>,
    local: Option<bool>,
    replicas: usize,
    timeout: Option<Duration>,
) -> Result {
    let goal = Goal { offset: ctx.client.written_to, local, replicas };
    match replication::wait(node(ctx), ctx.client, goal, timeout, ctx.may_block, ctx.reply)? {
        Waiting::Over => DONE,
        Waiting::Begun => Ok(Outcome::Suspended),
    }
}
