//! Replication: the commands by which replicas find their primary and speak with it, and those that
//! tell of it. All of them are the node's affair.

use super::client::SyncRequest;
use super::ctx::Ctx;
use super::request::{ReplicationRequest, Request};
use super::spec::{Command, Group::Generic, Group::Server, flags::*};
use super::{Fail, Result, is};
use crate::base::num::parse_i64;

pub const COMMANDS: &[Command] = &[
    Command::new("replicaof", 3, Server, replicaof)
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING | LOCK_ALL)
        .doc("5.0.0", "host port | NO ONE", "Makes the node follow a primary, or be one."),
    Command::new("slaveof", 3, Server, replicaof)
        .deprecated("5.0.0", "`REPLICAOF`")
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING | LOCK_ALL)
        .doc("1.0.0", "host port | NO ONE", "Makes the node follow a primary, or be one."),
    Command::new("role", 1, Server, role)
        .complexity("O(1)")
        .flags(NOSCRIPT | LOADING | STALE | FAST)
        .categories(&["@admin", "@dangerous"])
        .doc("2.8.12", "", "Tells the part that the node plays in replication."),
    Command::new("replconf", -1, Server, replconf)
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY | SYSTEM)
        .doc("3.0.0", "", "What replicas and primaries tell each other."),
    Command::new("psync", -3, Server, psync).flags(ADMIN | NO_ASYNC_LOADING | NO_MULTI | NOSCRIPT).doc(
        "2.8.0",
        "replicationid offset",
        "Asks for the stream, from a point in a history on.",
    ),
    Command::new("sync", 1, Server, sync).flags(ADMIN | NO_ASYNC_LOADING | NO_MULTI | NOSCRIPT).doc(
        "1.0.0",
        "",
        "Asks for all data and the stream that follows them.",
    ),
    Command::new("wait", 3, Generic, wait)
        .complexity("O(1)")
        .flags(BLOCKING)
        .categories(&["@connection"])
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc("3.0.0", "numreplicas timeout", "Waits until replicas have applied what the connection wrote."),
    Command::new("waitaof", 4, Generic, waitaof)
        .complexity("O(1)")
        .flags(BLOCKING)
        .categories(&["@connection"])
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc(
            "7.2.0",
            "numlocal numreplicas timeout",
            "Waits until what the connection wrote is on disk here and at replicas.",
        ),
];

fn node(request: ReplicationRequest) -> Result {
    Ctx::node(Request::Replication(request))
}

fn replicaof(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if ctx.clustered {
        return Err(Fail::text("ERR REPLICAOF not allowed in cluster mode."));
    }
    if is(args[1], "no") && is(args[2], "one") {
        return node(ReplicationRequest::Follow(None));
    }
    let port = parse_i64(args[2]).and_then(|p| u16::try_from(p).ok());
    let port = port.ok_or(Fail::text("ERR Invalid master port"))?;
    let host = std::str::from_utf8(args[1]).map_err(|_| Fail::text("ERR Invalid master host"))?;
    node(ReplicationRequest::Follow(Some((host.to_owned(), port))))
}

fn role(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    node(ReplicationRequest::Role)
}

fn replconf(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    node(ReplicationRequest::Replconf(args[1..].iter().map(|a| a.to_vec()).collect()))
}

fn psync(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    // The primary that hands over so gives it up at an error, and goes on as primary.
    if args.get(3).is_some_and(|word| is(word, "failover")) {
        return Err(Fail::text("ERR PSYNC FAILOVER is not supported"));
    }
    let from = parse_i64(args[2]).ok_or(Fail::NotInteger)?;
    node(ReplicationRequest::Sync(SyncRequest::Psync { id: args[1].to_vec(), from }))
}

fn sync(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    node(ReplicationRequest::Sync(SyncRequest::Sync))
}

fn wait(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let replicas = parse_i64(args[1]).ok_or(Fail::NotInteger)?;
    node(ReplicationRequest::Wait {
        local: None,
        replicas: usize::try_from(replicas).unwrap_or(0),
        timeout_ms: timeout_ms(args[2])?,
        may_wait: ctx.may_block,
    })
}

fn waitaof(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let local = match parse_i64(args[1]).ok_or(Fail::NotInteger)? {
        0 => false,
        1 => true,
        _ => return Err(Fail::text("ERR value is out of range, value must between 0 and 1")),
    };
    let replicas = parse_i64(args[2]).and_then(|n| usize::try_from(n).ok());
    node(ReplicationRequest::Wait {
        local: Some(local),
        replicas: replicas.ok_or(Fail::text("ERR value is out of range, must be positive"))?,
        timeout_ms: timeout_ms(args[3])?,
        may_wait: ctx.may_block,
    })
}

fn timeout_ms(arg: &[u8]) -> Result<u64> {
    let timeout = parse_i64(arg).ok_or(Fail::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(timeout).map_err(|_| Fail::text("ERR timeout is negative"))
}
