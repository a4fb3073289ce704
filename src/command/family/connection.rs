//! The connection family, as far as the connection itself is concerned.

use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, EVERYWHERE, Group::Connection, flags::*};
use crate::command::{CommandError, Result, small_int};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("ping", -1, Connection, ping)
        .flags(FAST | IN_SUBSCRIBED | TELLS_SAVE_FAILED)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("1.0.0", "[message]", "Answers PONG, or the message.")
        .modes(EVERYWHERE),
    Command::new("echo", 2, Connection, echo).flags(LOADING | STALE | FAST).complexity("O(1)").doc(
        "1.0.0",
        "message",
        "Returns the message.",
    ),
    Command::new("select", 2, Connection, select).flags(LOADING | STALE | FAST).complexity("O(1)").doc(
        "1.0.0",
        "index",
        "Changes the database of the connection.",
    ),
    Command::new("quit", -1, Connection, quit)
        .deprecated("7.2.0", "closing the connection")
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY | IN_SUBSCRIBED | NOT_QUEUED)
        .complexity("O(1)")
        .doc("1.0.0", "", "Closes the connection."),
];

/// To a RESP2 client that listens to channels it answers in the form of a message (page of PING).
fn ping(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 2 {
        return Err(CommandError::Arity("ping".into()));
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
    let index = i64::from(small_int(args[1])?);
    if ctx.clustered && index != 0 {
        return Err(CommandError::text("ERR SELECT is not allowed in cluster mode"));
    }
    let databases = ctx.db.keyspace().databases() as i64;
    if !(0..databases).contains(&index) {
        return Err(CommandError::text("ERR DB index is out of range"));
    }
    ctx.client.db = index as u16;
    ctx.client.version += 1;
    ctx.db.select(index as u16);
    ctx.reply.ok();
    DONE
}

fn quit(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.client.close_after_reply = true;
    ctx.reply.ok();
    DONE
}

/// Refuses names with characters that would break the lines of CLIENT LIST.
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(());
    }
    Err(CommandError::text("ERR Client names cannot contain spaces, newlines or special characters."))
}
