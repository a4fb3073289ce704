//! DEBUG, for tests and for simulating trouble.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::base::crc16::key_slot;
use crate::base::glob;
use crate::base::num::{parse_f64, parse_i64};
use crate::command::Client;
use crate::config::set::allowed;
use crate::exec::After;
use crate::keyspace::board::Reason;
use crate::keyspace::db::SetExpire;
use crate::keyspace::{Db, event};
use crate::resp::Reply;
use crate::server::commands::{fail, reload};
use crate::server::net::mailbox::Mail;
use crate::server::node::{Node, unix_ms};
use crate::value::digest::Digest;

const FORBIDDEN: &str = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.";

const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DIGEST",
    "    A number that is equal for equal data sets.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    A number for each key's value.",
    "HOLD-SHARD <key> <seconds> [QUIETLY]",
    "    Keystead's own: a thread holds the lock of the key's shard for a time, declared as long or not.",
    "OBJECT <key>",
    "    Shows how a key's value is stored.",
    "PANIC",
    "    Lets the server crash by a panic.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Creates string keys prefix:0 and so on that do not exist yet.",
    "PROTOCOL <string|integer|double|null|array|set|map|attrib|push|verbatim|true|false|bignum>",
    "    Replies with a value of the type.",
    "RELOAD",
    "    Saves the data set, empties it, and loads it again.",
    "SEGFAULT",
    "    Lets the server crash by a bad access.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Switches the search for dead keys off or on.",
    "SLEEP <seconds>",
    "    Stops the whole server for a time.",
    "STRINGMATCH-LEN <length> <pattern>",
    "    Matches a pattern against a string of that length.",
    "HELP",
    "    Prints this help.",
];

pub fn perform(
    node: &Arc<Node>,
    client: &Client,
    words: &[Vec<u8>],
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) -> After {
    if !allowed(node.config.load().enable_debug_command, client.is_local()) {
        fail(node, client, reply, FORBIDDEN);
        return After::Done;
    }
    // It saves and loads under locks of its own, so it cannot be a part of a transaction.
    if words.len() == 1 && words[0].eq_ignore_ascii_case(b"reload") && client.executing.is_none() {
        return reload::begin(node, client, reply);
    }
    if words[0].eq_ignore_ascii_case(b"hold-shard") && (3..5).contains(&words.len()) {
        return hold_shard(node, client, &words[1], &words[2], words.len() == 4, reply);
    }
    at_once(node, client, words, db, reply);
    After::Done
}

/// What needs nothing but the locks that DEBUG holds: all of them.
fn at_once(node: &Node, client: &Client, words: &[Vec<u8>], db: &mut Db<'_, '_>, reply: &mut Reply) {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let name = words[0].to_ascii_lowercase();
    match (name.as_slice(), &words[1..]) {
        (b"help", []) => {
            reply.array(HELP.len());
            for line in HELP {
                reply.simple(line);
            }
        }
        (b"sleep", [seconds]) => {
            let seconds = parse_f64(seconds).filter(|s| *s > 0.0).unwrap_or(0.0);
            sleep(node, client, Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
            reply.ok();
        }
        (b"segfault", []) => crash(),
        (b"panic", []) => panic!("called by DEBUG PANIC"),
        (b"set-active-expire", [on]) => {
            node.active_expire.store(parse_i64(on).is_some_and(|n| n != 0), Ordering::Relaxed);
            reply.ok();
        }
        (b"digest", []) => reply.simple(&hex(&digest(db))),
        (b"digest-value", keys) => {
            reply.array(keys.len());
            for key in keys {
                let mut digest = Digest::default();
                if let Some(entry) = db.peek(key) {
                    digest.add_value(entry.value(), entry.expire().is_some());
                }
                reply.simple(&hex(&digest));
            }
        }
        (b"object", [key]) => object(node, client, key, db, reply),
        (b"populate", [count, rest @ ..]) if rest.len() <= 2 => {
            populate(node, client, count, rest, db, reply);
        }
        (b"stringmatch-len", [length, pattern]) => match parse_i64(length).map(usize::try_from) {
            Some(Ok(length)) if length <= 1 << 20 => {
                reply.bool(glob::matches(pattern, &vec![b'a'; length]));
            }
            _ => fail(node, client, reply, "ERR value is not an integer or out of range"),
        },
        (b"protocol", [kind]) => protocol(node, client, kind, reply),
        _ => {
            let word = String::from_utf8_lossy(words[0]);
            let text =
                format!("ERR unknown subcommand or wrong number of arguments for '{word}'. Try DEBUG HELP.");
            fail(node, client, reply, &text);
        }
    }
}

/// Stops all threads, as a machine that stands still would: people use it to simulate a dead node.
fn sleep(node: &Node, client: &Client, time: Duration) {
    let Some(until) = Instant::now().checked_add(time) else { return };
    for worker in (0..node.workers.get().map_or(0, Vec::len)).filter(|w| *w != client.worker) {
        node.send(worker, Mail::Sleep(until));
    }
    for runtime in node.runtimes.lock().iter() {
        runtime.spawn(async move { sleep_until(until) });
    }
    node.asleep_until_ms.store(node.mono_ms().saturating_add(time.as_millis() as u64), Ordering::Release);
    sleep_until(until);
}

pub fn sleep_until(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Holds a shard as a script or a giant command would, but on a thread of its own. `quietly`: without declaring
/// that it takes long.
fn hold_shard(
    node: &Arc<Node>,
    client: &Client,
    key: &[u8],
    seconds: &[u8],
    quietly: bool,
    reply: &mut Reply,
) -> After {
    let time = parse_f64(seconds).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let (Some(time), None) = (time, client.executing) else {
        fail(node, client, reply, "ERR Invalid arguments");
        return After::Done;
    };
    let (slot, for_thread) = (key_slot(key), Arc::clone(node));
    let (worker, token, client_id) = (client.worker, client.token, client.id);
    let body = move || {
        let mut locked = for_thread.shared.keyspace.lock_slot(slot);
        if !quietly {
            locked.declare_long(Reason::Command("debug"), unix_ms());
        }
        std::thread::sleep(time);
        drop(locked);
        let mut reply = Reply::new();
        reply.ok();
        for_thread.send(worker, Mail::Resume { token, client: client_id, reply, written_to: 0 });
    };
    match std::thread::Builder::new().name("hold-shard".into()).spawn(body) {
        Ok(_) => After::Suspended,
        Err(e) => {
            fail(node, client, reply, &format!("ERR cannot start a thread: {e}"));
            After::Done
        }
    }
}

/// Dies as by a bad access: the report and the exit status are those of the signal.
fn crash() {
    if signal_hook::low_level::raise(signal_hook::consts::SIGSEGV).is_err() {
        std::process::abort();
    }
}

/// Every database's keys and values; all shards are locked.
fn digest(db: &mut Db<'_, '_>) -> Digest {
    let mut digest = Digest::default();
    let selected = db.index();
    for index in 0..db.keyspace().databases() as u16 {
        if db.keyspace().is_empty(index) {
            continue;
        }
        db.select(index);
        digest.begin_database(u32::from(index));
        db.for_each(|entry| digest.add_key(entry.key(), entry.value(), entry.expire().is_some()));
    }
    db.select(selected);
    digest
}

fn hex(digest: &Digest) -> String {
    use std::fmt::Write as _;
    digest.0.iter().fold(String::with_capacity(40), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn object(node: &Node, client: &Client, key: &[u8], db: &mut Db<'_, '_>, reply: &mut Reply) {
    let keyspace = db.keyspace();
    let Some(entry) = db.peek(key) else { return fail(node, client, reply, "ERR no such key") };
    let idle = keyspace.usage.idle_seconds(entry.access());
    reply.simple(&format!(
        "Value at:0x0 refcount:1 encoding:{} serializedlength:0 lru:{} lru_seconds_idle:{idle}",
        entry.value().encoding_name(),
        entry.access(),
    ));
}

fn populate(
    node: &Node,
    client: &Client,
    count: &[u8],
    rest: &[&[u8]],
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) {
    let prefix = rest.first().copied().unwrap_or(b"key");
    let size = rest.get(1).map(|s| parse_i64(s).and_then(|n| usize::try_from(n).ok()));
    let count = parse_i64(count).filter(|n| *n >= 0);
    let (Some(count), true) = (count, size != Some(None)) else {
        return fail(node, client, reply, "ERR value is not an integer or out of range");
    };
    for i in 0..count {
        let key = [prefix, b":", i.to_string().as_bytes()].concat();
        if db.exists(&key) {
            continue;
        }
        let mut value = format!("value:{i}").into_bytes();
        if let Some(Some(size)) = size {
            value.resize(size, 0);
        }
        db.set_string(&key, &value, SetExpire::Clear);
        db.changed(&key, event::MADE);
        db.record(&[&b"SET"[..], &key, &value]);
    }
    reply.ok();
}

/// A value of each type of the protocol, for tests of clients.
fn protocol(node: &Node, client: &Client, kind: &[u8], reply: &mut Reply) {
    let resp3 = client.resp3;
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.int(12345),
        b"double" => reply.double(3141.0 / 1000.0),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.int(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.int(n));
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.int(n);
                reply.bool(n == 1);
            }
        }
        b"attrib" if resp3 => {
            reply.raw(b"|1\r\n");
            reply.bulk(b"key-popularity");
            reply.array(2);
            reply.bulk(b"key:123");
            reply.int(90);
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" if resp3 => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.int(42);
        }
        b"verbatim" => reply.verbatim("txt", "This is a verbatim\nstring"),
        b"true" => reply.bool(true),
        b"false" => reply.bool(false),
        b"bignum" if resp3 => reply.raw(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => reply.bulk(b"1234567999999999999999999999999999999"),
        _ => fail(
            node,
            client,
            reply,
            "ERR Wrong protocol type name. Please use one of the following: string|integer|double|null|array|set|map|attrib|push|verbatim|true|false",
        ),
    }
}
