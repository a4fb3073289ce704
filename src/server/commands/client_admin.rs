//! CLIENT: connections, one's own and others'.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashSet;

use crate::command::client::{ReplyMode, Role};
use crate::command::family::connection::check_name;
use crate::command::help::help;
use crate::command::spec::{EVERYWHERE, Group::Connection, flags::*};
use crate::command::{
    Client, Command, CommandError, Ctx, DONE, Result, int, is, shown, timeout_ms, wrong_arguments,
};
use crate::server::commands::{node, tracking};
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;
use crate::server::node::connected::{ClientEntry, ClientKind};
use crate::server::node::describe::{age_seconds, describe};
use crate::server::node::pause::Purpose;

pub const COMMANDS: &[Command] = &[Command::container("client", Connection, CLIENT)
    .doc("2.4.0", "", "Commands about connections.")
    .modes(EVERYWHERE)];

const OWN: Flags = NOSCRIPT | LOADING | STALE | KEEPS_CACHING;
const OTHERS: Flags = ADMIN | NOSCRIPT | LOADING | STALE | KEEPS_CACHING;

const CLIENT: &[Command] = &[
    Command::new("caching", 3, Connection, tracking::caching).flags(OWN).complexity("O(1)").doc(
        "6.0.0",
        "mode=<YES | NO>",
        "Says whether the client keeps what the next command reads.",
    ),
    Command::new("getname", 2, Connection, getname).flags(OWN).complexity("O(1)").doc(
        "2.6.9",
        "",
        "Returns the name of the connection.",
    ),
    Command::new("getredir", 2, Connection, tracking::getredir).flags(OWN).complexity("O(1)").doc(
        "6.0.0",
        "",
        "Returns the number of the connection that is told of stale keys.",
    ),
    Command::new("help", 2, Connection, client_help)
        .flags(LOADING | STALE | KEEPS_CACHING)
        .complexity("O(1)")
        .doc("5.0.0", "", "Lists the subcommands."),
    Command::new("id", 2, Connection, id).flags(OWN).complexity("O(1)").doc(
        "5.0.0",
        "",
        "Returns the number of the connection.",
    ),
    Command::new("info", 2, Connection, info)
        .flags(OWN)
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("6.2.0", "", "Describes the connection."),
    Command::new("kill", -3, Connection, kill)
        .flags(OTHERS)
        .complexity("O(N) where N is the number of clients")
        .history(&[
            ("2.8.12", "The form with filters."),
            ("2.8.12", "The option `ID`."),
            ("3.2.0", "The value `master` of `TYPE`."),
            ("5.0.0", "The value `replica` of `TYPE`, for `slave`."),
            ("6.2.0", "The option `LADDR`."),
            ("7.4.0", "The option `MAXAGE`."),
        ])
        .doc(
            "2.4.0",
            "filter=<old-format~ip:port!2.8.12 | new-format=<[ID client-id@2.8.12] | \
             [TYPE client-type@2.8.12=<NORMAL | MASTER@3.2.0 | SLAVE | REPLICA@5.0.0 | \
             PUBSUB>] | [USER username] | [ADDR addr~ip:port] | [LADDR \
             laddr~ip:port@6.2.0] | [SKIPME <YES | NO>] | [MAXAGE maxage@7.4.0]> ...>",
            "Closes connections.",
        ),
    Command::new("list", -2, Connection, list)
        .flags(OTHERS)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of clients")
        .history(&[
            ("2.8.12", "Each client's number, `id`."),
            ("5.0.0", "The option `TYPE`."),
            ("6.0.0", "The field `user`."),
            ("6.2.0", "The fields `argv-mem`, `tot-mem`, `laddr` and `redir`, and the option `ID`."),
            ("7.0.0", "The fields `resp`, `multi-mem`, `rbs` and `rbp`."),
            ("7.0.3", "The field `ssub`."),
        ])
        .doc(
            "2.4.0",
            "[TYPE client-type@5.0.0=<NORMAL | MASTER | REPLICA | PUBSUB>] [ID \
             client-id@6.2.0 ...]",
            "Describes all connections, or some.",
        ),
    Command::new("no-evict", 3, Connection, no_evict).flags(OTHERS).complexity("O(1)").doc(
        "7.0.0",
        "enabled=<ON | OFF>",
        "Protects the connection when clients' buffers take too much memory.",
    ),
    Command::new("no-touch", 3, Connection, no_touch).flags(OWN).complexity("O(1)").doc(
        "7.2.0",
        "enabled=<ON | OFF>",
        "Keeps the connection's reads from counting as uses of keys.",
    ),
    Command::new("pause", -3, Connection, pause)
        .flags(OTHERS)
        .complexity("O(1)")
        .history(&[("6.2.0", "The mode `WRITE`.")])
        .doc("3.0.0", "timeout:integer [mode@6.2.0=<WRITE | ALL>]", "Makes clients' commands wait."),
    Command::new("reply", 3, Connection, reply).flags(OWN).complexity("O(1)").doc(
        "3.2.0",
        "action=<ON | OFF | SKIP>",
        "Says whether replies are sent.",
    ),
    Command::new("setinfo", 4, Connection, setinfo)
        .flags(OWN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc(
            "7.2.0",
            "attr=<LIB-NAME libname | LIB-VER libver>",
            "Tells the client library of the connection.",
        ),
    Command::new("setname", 3, Connection, setname)
        .flags(OWN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(1)")
        .doc("2.6.9", "connection-name", "Names the connection."),
    Command::new("tracking", -3, Connection, tracking::tracking).flags(OWN).complexity("O(1)").doc(
        "6.0.0",
        "status=<ON | OFF> [REDIRECT client-id] [PREFIX prefix PREFIX...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
        "Tells the connection when keys that it has read change.",
    ),
    Command::new("trackinginfo", 2, Connection, tracking::trackinginfo).flags(OWN).complexity("O(1)").doc(
        "6.2.0",
        "",
        "Describes how the connection tracks keys.",
    ),
    Command::new("unblock", -3, Connection, unblock)
        .flags(OTHERS)
        .complexity("O(log N) where N is the number of clients")
        .doc("5.0.0", "client-id [unblock-type=<TIMEOUT | ERROR>]", "Ends the wait of a blocked client."),
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
    let word = shown(args[2]);
    let field = if is(args[2], "lib-name") {
        &mut ctx.client.lib_name
    } else if is(args[2], "lib-ver") {
        &mut ctx.client.lib_ver
    } else {
        return Err(CommandError::owned(format!("ERR Unrecognized option '{word}'")));
    };
    if !clean {
        return Err(CommandError::owned(format!(
            "ERR {word} cannot contain spaces, newlines or special characters."
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
        Err(CommandError::Syntax)
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
        return Err(CommandError::Syntax);
    }
    DONE
}

fn info(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let mut text = String::new();
    if let Some(entry) = node.people.clients.get(ctx.client.id) {
        describe(node, Some((ctx.client, "client|info", args)), &entry, &mut text);
    }
    ctx.reply.verbatim("txt", &text);
    DONE
}

fn kind(name: &[u8]) -> Result<ClientKind> {
    ClientKind::from_name(name)
        .ok_or_else(|| CommandError::owned(format!("ERR Unknown client type '{}'", shown(name))))
}

/// Which clients CLIENT LIST shows.
enum ListFilter {
    All,
    Kind(ClientKind),
    Ids(Vec<u64>),
}

impl ListFilter {
    fn parse(words: &[&[u8]]) -> Result<Self> {
        match words {
            [] => Ok(Self::All),
            [word, name] if is(word, "type") => Ok(Self::Kind(kind(name)?)),
            [word, ids @ ..] if is(word, "id") && !ids.is_empty() => {
                // No client has a number below 1: such a one is found by nobody.
                let number = |n| u64::try_from(n).unwrap_or(0);
                let ids = ids
                    .iter()
                    .map(|id| int(id).map(number).map_err(|_| CommandError::text("ERR Invalid client ID")));
                Ok(Self::Ids(ids.collect::<Result<_>>()?))
            }
            _ => Err(CommandError::Syntax),
        }
    }
}

fn list(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let filter = ListFilter::parse(&args[2..])?;
    let node = node(ctx);
    let entries = match &filter {
        ListFilter::Ids(ids) => ids.iter().filter_map(|id| node.people.clients.get(*id)).collect(),
        _ => node.people.clients.all(),
    };
    let mut text = String::new();
    for entry in &entries {
        if let ListFilter::Kind(wanted) = filter
            && wanted != kind_of(entry)
        {
            continue;
        }
        describe(node, Some((ctx.client, "client|list", args)), entry, &mut text);
    }
    ctx.reply.verbatim("txt", &text);
    DONE
}

/// Which clients CLIENT KILL closes: those that meet every condition given.
struct KillFilter<'a> {
    id: Option<u64>,
    kind: Option<ClientKind>,
    user: Option<&'a [u8]>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    /// Seconds since the connection was made, at least.
    max_age: Option<u64>,
    skip_me: bool,
}

impl<'a> KillFilter<'a> {
    fn parse(node: &Node, words: &[&'a [u8]]) -> Result<Self> {
        let mut filter = Self {
            id: None,
            kind: None,
            user: None,
            address: None,
            local_address: None,
            max_age: None,
            skip_me: true,
        };
        let (pairs, []) = words.as_chunks::<2>() else { return Err(CommandError::Syntax) };
        for [option, value] in pairs {
            filter.read(node, option, value)?;
        }
        Ok(filter)
    }

    fn read(&mut self, node: &Node, option: &[u8], value: &'a [u8]) -> Result<()> {
        if is(option, "id") {
            let id = int(value).ok().filter(|id| *id > 0);
            self.id = Some(id.ok_or(CommandError::text("ERR client-id should be greater than 0"))? as u64);
        } else if is(option, "maxage") {
            let age =
                int(value).map_err(|_| CommandError::text("ERR maxage is not an integer or out of range"))?;
            let age = u64::try_from(age).ok().filter(|age| *age > 0);
            self.max_age = Some(age.ok_or(CommandError::text("ERR maxage should be greater than 0"))?);
        } else if is(option, "type") {
            self.kind = Some(kind(value)?);
        } else if is(option, "addr") {
            self.address = Some(value);
        } else if is(option, "laddr") {
            self.local_address = Some(value);
        } else if is(option, "user") {
            if node.people.accounts.get(value).is_none() {
                return Err(CommandError::owned(format!("ERR No such user '{}'", shown(value))));
            }
            self.user = Some(value);
        } else if is(option, "skipme") {
            self.skip_me = match value {
                v if is(v, "yes") => true,
                v if is(v, "no") => false,
                _ => return Err(CommandError::Syntax),
            };
        } else {
            return Err(CommandError::Syntax);
        }
        Ok(())
    }
}

/// CLIENT KILL: of one argument, the client at this address.
fn kill(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    if let [_, _, address] = args {
        let found = node.people.clients.all().into_iter().find(|e| e.addr.as_bytes() == *address);
        close(node, ctx.client, &[found.ok_or(CommandError::text("ERR No such client"))?]);
        ctx.reply.ok();
        return DONE;
    }
    let filter = KillFilter::parse(node, &args[2..])?;
    let mut meant = node.people.clients.all();
    meant.retain(|entry| is_meant(node, ctx.client, entry, &filter));
    close(node, ctx.client, &meant);
    ctx.reply.int(meant.len() as i64);
    DONE
}

fn pause(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let all = match &args[3..] {
        [] => true,
        [word] if is(word, "all") => true,
        [word] if is(word, "write") => false,
        [_] => return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(wrong_arguments("CLIENT", args[1])),
    };
    let time = timeout_ms(args[2], ctx.db.now)?.unwrap_or_default();
    node(ctx).pause_clients(Purpose::Command, time.as_millis() as u64, all);
    ctx.reply.ok();
    DONE
}

fn unpause(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    node(ctx).unpause_clients(Purpose::Command);
    ctx.reply.ok();
    DONE
}

fn unblock(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let with_error = match &args[3..] {
        [] => false,
        [word] if is(word, "timeout") => false,
        [word] if is(word, "error") => true,
        [_] => return Err(CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(wrong_arguments("CLIENT", args[1])),
    };
    // No client has a number below 1: such a one is found by nobody.
    let id = u64::try_from(int(args[2])?).unwrap_or(0);
    let node = node(ctx);
    let unblocked = node.people.clients.get(id).is_some_and(|entry| {
        let Ok(claimed) = claim(&entry) else { return false };
        if !entry.blocked.swap(false, Ordering::AcqRel) {
            return false;
        }
        let token = entry.token.load(Ordering::Relaxed);
        node.send(entry.worker, Mail::Unblock { token, client: id, with_error, claimed });
        true
    });
    ctx.reply.int(i64::from(unblocked));
    DONE
}

/// Claims a client that is blocked on keys, so that nobody serves it any more. False: it is blocked on none, or its
/// worker is about to run its command again. An error: it was served just now.
fn claim(entry: &ClientEntry) -> std::result::Result<bool, ()> {
    match &*entry.waiter.lock() {
        Some(waiter) if waiter.claim() => Ok(true),
        Some(_) => Err(()),
        None => Ok(false),
    }
}

fn kind_of(entry: &ClientEntry) -> ClientKind {
    let state = entry.state.lock();
    ClientKind::of(entry.role, state.channels + state.patterns + state.shard_channels > 0)
}

fn is_meant(node: &Node, client: &Client, entry: &ClientEntry, filter: &KillFilter<'_>) -> bool {
    let is = |wanted: Option<&[u8]>, value: &[u8]| wanted.is_none_or(|w| w == value);
    filter.id.is_none_or(|id| id == entry.id)
        && filter.kind.is_none_or(|wanted| wanted == kind_of(entry))
        && is(filter.user, entry.state.lock().user.as_bytes())
        && is(filter.address, entry.addr.as_bytes())
        && is(filter.local_address, entry.local_addr.as_bytes())
        && filter.max_age.is_none_or(|age| age_seconds(node, entry.created) >= age)
        && !(filter.skip_me && entry.id == client.id)
}

/// Closes these clients. Their workers close the connections; from now on no list element is popped for them, no
/// message counts them as receivers, and CLIENT LIST does not show them.
fn close(node: &Node, client: &mut Client, meant: &[Arc<ClientEntry>]) {
    // The client that asks still gets the reply.
    client.close_after_reply |= meant.iter().any(|entry| entry.id == client.id);
    let others = || meant.iter().filter(|entry| entry.id != client.id);
    let listeners = others().filter(|entry| kind_of(entry) == ClientKind::PubSub).map(|entry| entry.id);
    let listeners: HashSet<u64> = listeners.collect();
    if !listeners.is_empty() {
        node.people.pubsub.unsubscribe_all(&listeners);
    }
    for entry in others() {
        let _ = claim(entry);
        if entry.role == Role::Normal {
            node.people.clients.remove(entry.id);
        }
        let token = entry.token.load(Ordering::Relaxed);
        node.send(entry.worker, Mail::Kill { token, client: entry.id, after_reply: false });
    }
}
