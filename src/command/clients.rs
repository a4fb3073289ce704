//! CLIENT: connections, one's own and others'.

use super::client::ReplyMode;
use super::connection::check_name;
use super::ctx::{Ctx, DONE};
use super::help::help;
use super::request::{ClientKind, ClientRequest, KillFilter, ListFilter, Request};
use super::spec::{Command, Group::Connection, flags::*};
use super::{Fail, Result, int, is, wrong_arguments};

pub const COMMANDS: &[Command] =
    &[Command::container("client", Connection, CLIENT).doc("2.4.0", "", "Commands about connections.")];

const OWN: Flags = NOSCRIPT | LOADING | STALE;
const OTHERS: Flags = ADMIN | NOSCRIPT | LOADING | STALE;

const CLIENT: &[Command] = &[
    Command::new("getname", 2, Connection, getname)
        .flags(OWN)
        .complexity("O(1)")
        .doc("2.6.9", "", "Returns the name of the connection."),
    Command::new("help", 2, Connection, client_help)
        .flags(LOADING | STALE)
        .complexity("O(1)")
        .doc("5.0.0", "", "Lists the subcommands."),
    Command::new("id", 2, Connection, id)
        .flags(OWN)
        .complexity("O(1)")
        .doc("5.0.0", "", "Returns the number of the connection."),
    Command::new("info", 2, Connection, info)
        .flags(OWN)
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("6.2.0", "", "Describes the connection."),
    Command::new("kill", -3, Connection, kill).flags(OTHERS).complexity("O(N) where N is the number of clients").doc(
        "2.4.0",
        "<ip:port | <[ID client-id] | [TYPE <NORMAL | MASTER | SLAVE | REPLICA | PUBSUB>] | [USER username] | [ADDR ip:port] | [LADDR ip:port] | [SKIPME <YES | NO>] | [MAXAGE maxage] [[ID client-id] | [TYPE <NORMAL | MASTER | SLAVE | REPLICA | PUBSUB>] | [USER username] | [ADDR ip:port] | [LADDR ip:port] | [SKIPME <YES | NO>] | [MAXAGE maxage] ...]>>",
        "Closes connections.",
    ),
    Command::new("list", -2, Connection, list)
        .flags(OTHERS)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of clients")
        .doc(
            "2.4.0",
            "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]",
            "Describes all connections, or some.",
        ),
    Command::new("no-evict", 3, Connection, no_evict)
        .flags(OTHERS)
        .complexity("O(1)")
        .doc("7.0.0", "<ON | OFF>", "Protects the connection when clients' buffers take too much memory."),
    Command::new("no-touch", 3, Connection, no_touch)
        .flags(OWN)
        .complexity("O(1)")
        .doc("7.2.0", "<ON | OFF>", "Keeps the connection's reads from counting as uses of keys."),
    Command::new("pause", -3, Connection, pause)
        .flags(OTHERS)
        .complexity("O(1)")
        .doc("3.0.0", "timeout [WRITE | ALL]", "Makes clients' commands wait."),
    Command::new("reply", 3, Connection, reply)
        .flags(OWN)
        .complexity("O(1)")
        .doc("3.2.0", "<ON | OFF | SKIP>", "Says whether replies are sent."),
    Command::new("setinfo", 4, Connection, setinfo)
        .flags(OWN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("7.2.0", "<LIB-NAME libname | LIB-VER libver>", "Tells the client library of the connection."),
    Command::new("setname", 3, Connection, setname)
        .flags(OWN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("2.6.9", "connection-name", "Names the connection."),
    Command::new("unblock", -3, Connection, unblock)
        .flags(OTHERS)
        .complexity("O(log N) where N is the number of clients")
        .doc("5.0.0", "client-id [TIMEOUT | ERROR]", "Ends the wait of a blocked client."),
    Command::new("unpause", 2, Connection, unpause)
        .flags(OTHERS)
        .complexity("O(N) where N is the number of clients that wait")
        .doc("6.2.0", "", "Ends a pause."),
];

fn client_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "client", CLIENT);
    DONE
}

fn id(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(ctx.client.id as i64);
    DONE
}

fn getname(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    if ctx.client.name.is_empty() {
        ctx.reply.null();
    } else {
        ctx.reply.bulk(&ctx.client.name);
    }
    DONE
}

fn setname(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    check_name(args[2])?;
    ctx.client.name = args[2].to_vec();
    ctx.client.version += 1;
    ctx.reply.ok();
    DONE
}

fn setinfo(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let clean = args[3].iter().all(|b| (b'!'..=b'~').contains(b));
    let (field, name) = if is(args[2], "lib-name") {
        (&mut ctx.client.lib_name, "lib-name")
    } else if is(args[2], "lib-ver") {
        (&mut ctx.client.lib_ver, "lib-ver")
    } else {
        let word = String::from_utf8_lossy(args[2]);
        return Err(Fail::owned(format!("ERR Unrecognized option '{word}'")));
    };
    if !clean {
        return Err(Fail::owned(format!(
            "ERR {name} cannot contain spaces, newlines or special characters."
        )));
    }
    *field = args[3].to_vec();
    ctx.client.version += 1;
    ctx.reply.ok();
    DONE
}

fn on_or_off(word: &[u8]) -> Result<bool> {
    if is(word, "on") {
        Ok(true)
    } else if is(word, "off") {
        Ok(false)
    } else {
        Err(Fail::Syntax)
    }
}

fn no_evict(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.client.no_evict = on_or_off(args[2])?;
    ctx.client.version += 1;
    ctx.reply.ok();
    DONE
}

fn no_touch(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.client.no_touch = on_or_off(args[2])?;
    ctx.client.version += 1;
    ctx.reply.ok();
    DONE
}

fn reply(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if is(args[2], "on") {
        ctx.client.reply_mode = ReplyMode::On;
        ctx.reply.ok();
    } else if is(args[2], "off") {
        ctx.client.reply_mode = ReplyMode::Off;
    } else if is(args[2], "skip") {
        if ctx.client.reply_mode != ReplyMode::Off {
            ctx.client.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(Fail::Syntax);
    }
    DONE
}

fn info(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Client(ClientRequest::Info))
}

fn kind(name: &[u8]) -> Result<ClientKind> {
    ClientKind::from_name(name)
        .ok_or_else(|| Fail::owned(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(name))))
}

fn list(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let filter = match &args[2..] {
        [] => ListFilter::All,
        [word, name] if is(word, "type") => ListFilter::Kind(kind(name)?),
        [word, ids @ ..] if is(word, "id") && !ids.is_empty() => {
            // No client has a number below 1: such a one is found by nobody.
            let number = |n| u64::try_from(n).unwrap_or(0);
            let ids =
                ids.iter().map(|id| int(id).map(number).map_err(|_| Fail::text("ERR Invalid client ID")));
            ListFilter::Ids(ids.collect::<Result<_>>()?)
        }
        _ => return Err(Fail::Syntax),
    };
    Ctx::node(Request::Client(ClientRequest::List(filter)))
}

fn kill(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if let [_, _, address] = args {
        return Ctx::node(Request::Client(ClientRequest::KillAddress(address.to_vec())));
    }
    let mut filter = KillFilter {
        id: None,
        kind: None,
        user: None,
        address: None,
        local_address: None,
        max_age: None,
        skip_me: true,
    };
    let pairs = args[2..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Fail::Syntax);
    }
    for pair in pairs {
        let value = pair[1];
        if is(pair[0], "id") {
            let id = int(value).ok().filter(|id| *id > 0);
            filter.id = Some(id.ok_or(Fail::text("ERR client-id should be greater than 0"))? as u64);
        } else if is(pair[0], "maxage") {
            let age = int(value).map_err(|_| Fail::text("ERR maxage is not an integer or out of range"))?;
            let age = u64::try_from(age).ok().filter(|age| *age > 0);
            filter.max_age = Some(age.ok_or(Fail::text("ERR maxage should be greater than 0"))?);
        } else if is(pair[0], "type") {
            filter.kind = Some(kind(value)?);
        } else if is(pair[0], "addr") {
            filter.address = Some(value.to_vec());
        } else if is(pair[0], "laddr") {
            filter.local_address = Some(value.to_vec());
        } else if is(pair[0], "user") {
            // There is one user so far.
            if value != b"default" {
                return Err(Fail::owned(format!("ERR No such user '{}'", String::from_utf8_lossy(value))));
            }
            filter.user = Some(value.to_vec());
        } else if is(pair[0], "skipme") {
            filter.skip_me = match value {
                v if is(v, "yes") => true,
                v if is(v, "no") => false,
                _ => return Err(Fail::Syntax),
            };
        } else {
            return Err(Fail::Syntax);
        }
    }
    Ctx::node(Request::Client(ClientRequest::Kill(filter)))
}

fn pause(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let all = match &args[3..] {
        [] => true,
        [word] if is(word, "all") => true,
        [word] if is(word, "write") => false,
        [_] => return Err(Fail::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(wrong_arguments("CLIENT", args[1])),
    };
    let ms = int(args[2]).map_err(|_| Fail::text("ERR timeout is not an integer or out of range"))?;
    let for_ms = u64::try_from(ms).map_err(|_| Fail::text("ERR timeout is negative"))?;
    Ctx::node(Request::Client(ClientRequest::Pause { for_ms, all }))
}

fn unpause(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Client(ClientRequest::Unpause))
}

fn unblock(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let with_error = match &args[3..] {
        [] => false,
        [word] if is(word, "timeout") => false,
        [word] if is(word, "error") => true,
        [_] => return Err(Fail::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(wrong_arguments("CLIENT", args[1])),
    };
    // No client has a number below 1: such a one is found by nobody.
    let id = u64::try_from(int(args[2])?).unwrap_or(0);
    Ctx::node(Request::Client(ClientRequest::Unblock { id, with_error }))
}
