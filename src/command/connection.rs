//! The connection family, without CLIENT.

use super::ctx::{Ctx, DONE, Outcome, Transaction};
use super::request::{Credentials, Hello, Request};
use super::spec::{Command, Group::Connection, flags::*};
use super::{Fail, Result, int, is, small_int};

pub const COMMANDS: &[Command] = &[
    Command::new("ping", -1, Connection, ping)
        .flags(FAST | IN_SUBSCRIBED | TELLS_SAVE_FAILED)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("1.0.0", "[message]", "Answers PONG, or the message."),
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
    Command::new("auth", -2, Connection, auth)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .complexity("O(N) where N is the number of passwords of the user")
        .doc("1.0.0", "[username] password", "Authenticates the connection."),
    Command::new("hello", -1, Connection, hello)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .complexity("O(1)")
        .doc(
            "6.0.0",
            "[protover [AUTH username password] [SETNAME clientname]]",
            "Agrees on the protocol, and says who the server is.",
        ),
    Command::new("quit", -1, Connection, quit)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY | IN_SUBSCRIBED | NOT_QUEUED)
        .complexity("O(1)")
        .doc("1.0.0", "", "Closes the connection."),
    Command::new("reset", 1, Connection, reset)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY | IN_SUBSCRIBED | NOT_QUEUED)
        .complexity("O(1)")
        .doc("6.2.0", "", "Makes the connection as it was when it was new."),
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
    let index = i64::from(small_int(args[1])?);
    if ctx.clustered && index != 0 {
        return Err(Fail::text("ERR SELECT is not allowed in cluster mode"));
    }
    let databases = ctx.db.keyspace().databases() as i64;
    if !(0..databases).contains(&index) {
        return Err(Fail::text("ERR DB index is out of range"));
    }
    ctx.client.db = index as u16;
    ctx.client.version += 1;
    ctx.db.select(index as u16);
    ctx.reply.ok();
    DONE
}

fn auth(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let credentials = match args {
        [_, password] => Credentials { user: None, password: password.to_vec() },
        [_, user, password] => Credentials { user: Some(user.to_vec()), password: password.to_vec() },
        _ => return Err(Fail::Syntax),
    };
    Ctx::node(Request::Auth(credentials))
}

fn hello(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let mut request = Hello { protocol: None, credentials: None, name: None };
    if let Some(version) = args.get(1) {
        let version =
            int(version).map_err(|_| Fail::text("ERR Protocol version is not an integer or out of range"))?;
        if !(2..=3).contains(&version) {
            return Err(Fail::text("NOPROTO unsupported protocol version"));
        }
        request.protocol = Some(version as u8);
    }
    let mut rest = args.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [] => break,
            [word, user, password, rest @ ..] if is(word, "auth") => {
                request.credentials =
                    Some(Credentials { user: Some(user.to_vec()), password: password.to_vec() });
                rest
            }
            [word, name, rest @ ..] if is(word, "setname") => {
                check_name(name)?;
                request.name = Some(name.to_vec());
                rest
            }
            [word, ..] => {
                let word = String::from_utf8_lossy(word);
                return Err(Fail::owned(format!("ERR Syntax error in HELLO option '{word}'")));
            }
        };
    }
    Ctx::node(Request::Hello(request))
}

fn quit(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.client.close_after_reply = true;
    ctx.reply.ok();
    DONE
}

fn reset(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ok(Outcome::Transaction(Transaction::Reset))
}

/// Refuses names with characters that would break the lines of CLIENT LIST.
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(());
    }
    Err(Fail::text("ERR Client names cannot contain spaces, newlines or special characters."))
}
