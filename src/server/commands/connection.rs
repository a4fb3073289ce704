//! AUTH, HELLO and RESET: who a client is and which protocol it speaks.

use std::sync::Arc;

use crate::acl::{DEFAULT_USER, User};
use crate::base::version;
use crate::command::client::ReplyMode;
use crate::command::family::connection::check_name;
use crate::command::spec::{EVERYWHERE, Group::Connection, Mode, behind_option, flags::*};
use crate::command::{
    Client, Command, CommandError, Ctx, DONE, Outcome, Result, Transaction, int, is, shown,
};
use crate::server::commands::{node, pubsub};
use crate::server::node::Node;

pub const COMMANDS: &[Command] = &[
    Command::new("auth", -2, Connection, auth)
        .secrets(|args| (1..args.len()).collect())
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .complexity("O(N) where N is the number of passwords of the user")
        .history(&[("6.0.0", "The argument for the name of a user (ACL).")])
        .doc("1.0.0", "[username@6.0.0] password", "Authenticates the connection.")
        .modes(EVERYWHERE),
    Command::new("hello", -1, Connection, hello)
        .secrets(|args| behind_option(args, 2, "auth", 2))
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .complexity("O(1)")
        .history(&[("6.2.0", "The version may be left out.")])
        .doc(
            "6.0.0",
            "[arguments=(protover [AUTH (username password)] [SETNAME clientname])]",
            "Agrees on the protocol, and says who the server is.",
        )
        .modes(EVERYWHERE),
    Command::new("reset", 1, Connection, reset)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY | IN_SUBSCRIBED | NOT_QUEUED)
        .complexity("O(1)")
        .doc("6.2.0", "", "Makes the connection as it was when it was new."),
];

const WRONG: CommandError =
    CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");
const NO_PASSWORD: CommandError = CommandError::text(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
);
const HELLO_FIRST: CommandError = CommandError::text(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
);

/// A user and a password in plain text.
struct Credentials<'a> {
    /// `None`: the default user, by AUTH of one argument.
    user: Option<&'a [u8]>,
    password: &'a [u8],
}

/// Checks a user's password, and makes the client that user. `args`: the command by which it asks.
fn authenticate(
    node: &Node,
    client: &mut Client,
    args: &[&[u8]],
    credentials: &Credentials<'_>,
) -> Result<()> {
    if credentials.user.is_none() && node.people.accounts.default_user().nopass {
        return Err(NO_PASSWORD);
    }
    let name = credentials.user.unwrap_or(DEFAULT_USER.as_bytes());
    let user = node.people.accounts.get(name);
    // An unknown user takes as long as a known one.
    let user = user.unwrap_or_else(|| Arc::new(User::deleted("", &node.shared.commands)));
    let admitted = user.admits(credentials.password).then(|| node.people.accounts.log_in(name)).flatten();
    let Some(login) = admitted else {
        node.note_failed_login(client, args, name);
        return Err(WRONG);
    };
    client.log_in(Some(login), true);
    if client.tracks.is_some() {
        // It hears of what its new user may read.
        node.settle_tracking(client);
    }
    Ok(())
}

fn auth(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let credentials = match *args {
        [_, password] => Credentials { user: None, password },
        [_, user, password] => Credentials { user: Some(user), password },
        _ => return Err(CommandError::Syntax),
    };
    authenticate(node(ctx), ctx.client, args, &credentials)?;
    ctx.reply.ok();
    DONE
}

/// HELLO, checked for form.
#[derive(Default)]
struct Hello<'a> {
    /// 2 or 3; `None`: stay.
    protocol: Option<u8>,
    credentials: Option<Credentials<'a>>,
    name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Self> {
        let mut hello = Self::default();
        if let Some(version) = args.get(1) {
            let version = int(version)
                .map_err(|_| CommandError::text("ERR Protocol version is not an integer or out of range"))?;
            if !(2..=3).contains(&version) {
                return Err(CommandError::text("NOPROTO unsupported protocol version"));
            }
            hello.protocol = Some(version as u8);
        }
        let mut rest = args.get(2..).unwrap_or_default();
        loop {
            rest = match *rest {
                [] => return Ok(hello),
                [word, user, password, ref rest @ ..] if is(word, "auth") => {
                    hello.credentials = Some(Credentials { user: Some(user), password });
                    rest
                }
                [word, name, ref rest @ ..] if is(word, "setname") => {
                    check_name(name)?;
                    hello.name = Some(name);
                    rest
                }
                [word, ..] => {
                    let word = shown(word);
                    return Err(CommandError::owned(format!("ERR Syntax error in HELLO option '{word}'")));
                }
            };
        }
    }
}

fn hello(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let hello = Hello::parse(args)?;
    let (node, client) = (node(ctx), &mut *ctx.client);
    if let Some(credentials) = &hello.credentials {
        authenticate(node, client, args, credentials)?;
    }
    if !client.is_authenticated() {
        return Err(HELLO_FIRST);
    }
    if let Some(name) = hello.name {
        client.name = name.into();
    }
    if let Some(protocol) = hello.protocol {
        set_protocol(client, protocol == 3);
    }
    client.version += 1;
    let reply = &mut *ctx.reply;
    reply.set_resp3(client.resp3);
    let is_sentinel = node.life.origin.mode == Mode::Sentinel;
    reply.map(if is_sentinel { 6 } else { 7 });
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk_str(version::REDIS);
    reply.bulk(b"proto");
    reply.int(if client.resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.int(client.id as i64);
    reply.bulk(b"mode");
    reply.bulk_str(node.mode_name());
    if !is_sentinel {
        reply.bulk(b"role");
        reply.bulk(if node.is_replica() { b"replica" } else { b"master" });
    }
    reply.bulk(b"modules");
    reply.array(0);
    DONE
}

fn set_protocol(client: &mut Client, resp3: bool) {
    client.resp3 = resp3;
    client.settle_subscribed();
    if let Some(subscriber) = &client.subscriber {
        subscriber.set_resp3(resp3);
    }
}

/// The executor forgets the transaction; this, everything else.
fn reset(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let (node, client) = (node(ctx), &mut *ctx.client);
    pubsub::forget(node, client);
    node.stop_monitoring(client);
    node.stop_tracking(client);
    set_protocol(client, node.config.load().client_default_resp == 3);
    client.db = 0;
    client.name = Arc::default();
    client.reply_mode = ReplyMode::On;
    client.readonly = false;
    client.set_asking(false);
    client.no_evict = false;
    client.no_touch = false;
    node.log_in_as_default(client);
    ctx.reply.set_resp3(client.resp3);
    ctx.reply.simple("RESET");
    Ok(Outcome::Transaction(Transaction::Reset))
}
