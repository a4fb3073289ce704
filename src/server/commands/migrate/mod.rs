//! MIGRATE: keys to another node.
//!
//! The worker encodes the keys under their locks and hands them to a [`courier`], a thread that has the
//! connection to that node. While they are under way no lock is held: readers of the keys go on, writers of them
//! are put aside, and everybody else does not notice. [`crate::exec::parcel`] says what holds at the end.
//!
//! Within a transaction the keys are sent under the locks of the transaction, which declares that it takes long.

use std::sync::Arc;
use std::time::Duration;

use crate::acl::category;
use crate::command::spec::{
    Begin, Group::Generic, KeyPositions, KeySpec, Keyword, behind, behind_option, flags::*, key, one,
};
use crate::command::{Command, CommandError, Ctx, DONE, Outcome, Result, int, is};
use crate::exec::parcel::Parcel;
use crate::keyspace::board::Reason;
use crate::keyspace::{Db, event};
use crate::persist::rdb::{Options, payload};
use crate::resp::write_command;
use crate::server::commands::node;
use crate::server::node::Node;

pub mod courier;
mod line;

use courier::Job;
use line::{Answers, Line, Trouble};

const MOVED: u16 = key::RW | key::ACCESS | key::DELETE;

const KEYS: Keyword = Keyword { word: "keys", told_from: -2, from: 6, options: &[("auth", 1), ("auth2", 2)] };

/// What stands behind AUTH and AUTH2, in front of the keys.
fn passwords(args: &[&[u8]]) -> KeyPositions {
    let end = KEYS.find(args).unwrap_or(args.len());
    [("auth", 1), ("auth2", 2)]
        .iter()
        .flat_map(|(word, n)| behind_option(&args[..end], 6, word, *n))
        .collect()
}

/// MIGRATE.
pub const COMMANDS: &[Command] = &[Command::new("migrate", -6, Generic, migrate)
    .flags(WRITE | MOVABLE_KEYS | ANYWHERE)
    .secrets(passwords)
    .keys(&[
        KeySpec { begin: Begin::IndexUnless(3, KEYS), ..one(3, MOVED) },
        behind(KEYS, 0, MOVED | key::INCOMPLETE),
    ])
    .categories(category::DANGEROUS)
    .tips(&["nondeterministic_output"])
    .complexity("O(N) where N is the size of the values")
    .history(&[
        ("3.0.0", "The options `COPY` and `REPLACE`."),
        ("3.0.6", "The option `KEYS`."),
        ("4.0.7", "The option `AUTH`."),
        ("6.0.0", "The option `AUTH2`."),
    ])
    .doc(
        "2.6.0",
        "host port key-selector=<key | empty-string=> destination-db timeout:integer \
             [COPY@3.0.0] [REPLACE@3.0.0] [authentication=<AUTH auth~password@4.0.7 | \
             AUTH2 auth2@6.0.0=(username password)>] [KEYS keys~key@3.0.6 ...]",
        "Moves keys to another node; each is at one of the two at any moment.",
    )];

/// MIGRATE, checked for form.
struct Migrate {
    host: String,
    port: u16,
    db: i64,
    timeout: Duration,
    copy: bool,
    replace: bool,
    /// User, if one was named, and password.
    auth: Option<(Option<Vec<u8>>, Vec<u8>)>,
    keys: Vec<Vec<u8>>,
}

fn parse(args: &[&[u8]]) -> Result<Migrate> {
    let (mut copy, mut replace, mut auth) = (false, false, None);
    let mut keys = vec![args[3].to_vec()];
    let mut i = 6;
    while i < args.len() {
        let left = args.len() - i - 1;
        if is(args[i], "copy") {
            copy = true;
        } else if is(args[i], "replace") {
            replace = true;
        } else if is(args[i], "auth") {
            if left < 1 {
                return Err(CommandError::Syntax);
            }
            auth = Some((None, args[i + 1].to_vec()));
            i += 1;
        } else if is(args[i], "auth2") {
            if left < 2 {
                return Err(CommandError::Syntax);
            }
            auth = Some((Some(args[i + 1].to_vec()), args[i + 2].to_vec()));
            i += 2;
        } else if is(args[i], "keys") {
            if !args[3].is_empty() {
                return Err(CommandError::text(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ));
            }
            keys = args[i + 1..].iter().map(|k| k.to_vec()).collect();
            break;
        } else {
            return Err(CommandError::Syntax);
        }
        i += 1;
    }
    let (db, timeout) = (int(args[4])?, int(args[5])?);
    let timeout = Duration::from_millis(if timeout <= 0 { 1000 } else { timeout as u64 });
    Ok(Migrate {
        host: String::from_utf8_lossy(args[1]).into_owned(),
        // What is no port becomes port 0, on which nobody listens: the connection is refused, as with a wrong port.
        port: int(args[2]).ok().and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        db,
        timeout,
        copy,
        replace,
        auth,
        keys,
    })
}

/// What is sent, and how long each step of that may take.
#[derive(Debug)]
struct Order {
    host: String,
    port: u16,
    timeout: Duration,
    bytes: Vec<u8>,
    /// Commands before those of the keys, and the keys: each has one answer.
    head: usize,
    keys: usize,
}

fn migrate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let m = parse(args)?;
    let node = node(ctx);
    let (order, keys) = pack(node, &m, ctx.db);
    if keys.is_empty() {
        ctx.reply.simple("NOKEY");
        return DONE;
    }
    if ctx.client.executing.is_some() {
        return at_once(node, &order, if m.copy { &[] } else { &keys }, ctx);
    }
    // A copy is of the moment when it was made: what is written behind it does not matter.
    let parcel = (!m.copy).then(|| {
        let (index, ticket) = (ctx.db.index(), ctx.db.keyspace().log.ticket());
        Parcel { number: ctx.db.locked().hold_back(index, &keys), db: index, keys, ticket }
    });
    let client = &*ctx.client;
    let job = Job { order, parcel, worker: client.worker, token: client.token, client: client.id };
    let Err(job) = node.peers.couriers.send(node, Box::new(job)) else { return Ok(Outcome::Suspended) };
    if let Some(parcel) = job.parcel {
        ctx.db.locked().let_through(parcel.number, &parcel.keys);
    }
    Err(CommandError::text(Trouble::Connect.text()))
}

/// Encodes the keys that there are.
fn pack(node: &Node, m: &Migrate, db: &mut Db<'_, '_>) -> (Order, Vec<Vec<u8>>) {
    let options = Options { compress: node.config.load().rdbcompression };
    let name: &[u8] = if node.peers.bus.get().is_some() { b"RESTORE-ASKING" } else { b"RESTORE" };
    let (mut bytes, mut head, mut keys) = (Vec::new(), 1, Vec::new());
    if let Some((user, password)) = &m.auth {
        let mut words: Vec<&[u8]> = vec![b"AUTH"];
        words.extend(user.as_deref());
        words.push(password);
        write_command(&mut bytes, &words);
        head += 1;
    }
    write_command(&mut bytes, &[&b"SELECT"[..], m.db.to_string().as_bytes()]);
    let now = db.now;
    for key in &m.keys {
        let Some(entry) = db.entry(key) else { continue };
        // A key that dies on the way must arrive with a time to live of its own, not for ever.
        let ttl = entry.expire().map_or(0, |at| (at - now).max(1)).to_string();
        let mut dump = Vec::new();
        payload::dump(&mut dump, entry.value(), options);
        let mut words: Vec<&[u8]> = vec![name, key, ttl.as_bytes(), &dump];
        if m.replace {
            words.push(b"REPLACE");
        }
        write_command(&mut bytes, &words);
        keys.push(key.clone());
    }
    let order =
        Order { host: m.host.clone(), port: m.port, timeout: m.timeout, bytes, head, keys: keys.len() };
    (order, keys)
}

/// Sends and deletes under the locks that are held.
fn at_once(node: &Arc<Node>, order: &Order, keys: &[Vec<u8>], ctx: &mut Ctx<'_, '_, '_>) -> Result {
    let now = ctx.db.now;
    ctx.db.locked().declare_long(Reason::Command("migrate"), now);
    let (arrived, result) = judge(order, Line::new(node).exchange(order));
    let mut gone: Vec<&[u8]> = vec![b"DEL"];
    for (key, _) in keys.iter().zip(&arrived).filter(|(_, arrived)| **arrived) {
        if ctx.db.remove(key) {
            ctx.db.changed(key, event::DEL);
            gone.push(key);
        }
    }
    if gone.len() > 1 {
        ctx.db.record(&gone);
    }
    result.map_err(CommandError::owned)?;
    ctx.reply.ok();
    DONE
}

/// Which of the keys have arrived, and what the client is told.
fn judge(order: &Order, answers: Answers) -> (Vec<bool>, std::result::Result<(), String>) {
    let Answers { lines, trouble } = answers;
    let (head, rest) = lines.split_at(order.head.min(lines.len()));
    // A refused AUTH or SELECT concerns all keys.
    let refused = head.iter().find(|line| line.starts_with('-'));
    let arrived =
        (0..order.keys).map(|i| refused.is_none() && rest.get(i).is_some_and(|line| !line.starts_with('-')));
    let arrived = arrived.collect();
    let error = refused.or_else(|| rest.iter().find(|line| line.starts_with('-')));
    let result = match (error, trouble) {
        (Some(line), _) => {
            Err(format!("ERR Target instance replied with error: {}", line.trim_start_matches('-')))
        }
        (None, Some(trouble)) => Err(trouble.text().into()),
        (None, None) => Ok(()),
    };
    (arrived, result)
}
