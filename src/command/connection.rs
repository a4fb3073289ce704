//! The connection family.

use super::ctx::{Ctx, DONE};
use super::spec::{Command, Group::Connection, flags::*};
use super::{Fail, Result, int};

pub const COMMANDS: &[Command] = &[
    Command::new("ping", -1, Connection, ping)
        .flags(FAST | IN_SUBSCRIBED)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("1.0.0", "[message]", "Answers PONG, or the message."),
    Command::new("echo", 2, Connection, echo).flags(LOADING | STALE | FAST).doc(
        "1.0.0",
        "message",
        "Returns the message.",
    ),
    Command::new("select", 2, Connection, select).flags(LOADING | STALE | FAST).doc(
        "1.0.0",
        "index",
        "Changes the database of the connection.",
    ),
];

fn ping(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 2 {
        return Err(Fail::Arity("ping".into()));
    }
    let message = args.get(1).copied();
    if ctx.client.is_subscribed_resp2() {
        ctx.reply.array(2);
        ctx.reply.bulk(b"pong");
        ctx.reply.bulk(message.unwrap_or(b""));
    } else if let Some(message) = message {
        ctx.reply.bulk(message);
    } else {
        ctx.reply.simple("PONG");
    }
    DONE
}

fn echo(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.reply.bulk(args[1]);
    DONE
}

fn select(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let index = int(args[1]).map_err(|_| Fail::text("ERR invalid DB index"))?;
    if ctx.clustered && index != 0 {
        return Err(Fail::text("ERR SELECT is not allowed in cluster mode"));
    }
    let databases = ctx.db.keyspace().databases() as i64;
    if !(0..databases).contains(&index) {
        return Err(Fail::text("ERR DB index is out of range"));
    }
    ctx.client.db = index as u16;
    ctx.db.select(index as u16);
    ctx.reply.ok();
    DONE
}
