//! MIGRATE: keys to another node over a connection that is made for the purpose.
//!
//! The keys' shards stay locked from the first byte sent to the last answer read, so that each key
//! is at one of the two nodes at any moment. Other shards are served meanwhile.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::command::spec::{Begin, Group::Generic, KeySpec, Keyword, behind, flags::*, key, one};
use crate::command::{Command, Ctx, DONE, Fail, Result, int, is};
use crate::keyspace::event;
use crate::persist::rdb::{Options, payload};
use crate::resp::request::write_command;
use crate::server::commands::node;

const MOVED: u16 = key::RW | key::ACCESS | key::DELETE;

const KEYS: Keyword = Keyword { word: "keys", told_from: -2, from: 6, options: &[("auth", 1), ("auth2", 2)] };

pub const COMMANDS: &[Command] = &[Command::new("migrate", -6, Generic, migrate)
    .flags(WRITE | MOVABLE_KEYS | ANYWHERE)
    .keys(&[
        KeySpec { begin: Begin::IndexUnless(3, KEYS), ..one(3, MOVED) },
        behind(KEYS, 0, MOVED | key::INCOMPLETE),
    ])
    .categories(&["@dangerous"])
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

/// The longest error that a peer is heard out for.
const MAX_LINE: usize = 4096;

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
                return Err(Fail::Syntax);
            }
            auth = Some((None, args[i + 1].to_vec()));
            i += 1;
        } else if is(args[i], "auth2") {
            if left < 2 {
                return Err(Fail::Syntax);
            }
            auth = Some((Some(args[i + 1].to_vec()), args[i + 2].to_vec()));
            i += 2;
        } else if is(args[i], "keys") {
            if !args[3].is_empty() {
                return Err(Fail::text(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ));
            }
            keys = args[i + 1..].iter().map(|k| k.to_vec()).collect();
            break;
        } else {
            return Err(Fail::Syntax);
        }
        i += 1;
    }
    let (db, timeout) = (int(args[4])?, int(args[5])?);
    let timeout = Duration::from_millis(if timeout <= 0 { 1000 } else { timeout as u64 });
    Ok(Migrate {
        host: String::from_utf8_lossy(args[1]).into_owned(),
        // Nobody listens on port 0, so that what is no port is refused by the network like a wrong one.
        port: int(args[2]).ok().and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        db,
        timeout,
        copy,
        replace,
        auth,
        keys,
    })
}

fn migrate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (m, node, db) = (&parse(args)?, node(ctx), &mut *ctx.db);
    let options = Options { compress: node.config.load().rdbcompression };
    let clustered = node.bus.get().is_some();
    let mut moved: Vec<&[u8]> = Vec::new();
    let mut batch = Vec::new();
    let mut head = 0;
    if let Some((user, password)) = &m.auth {
        let mut words: Vec<&[u8]> = vec![b"AUTH"];
        words.extend(user.as_deref());
        words.push(password);
        write_command(&mut batch, &words);
        head += 1;
    }
    write_command(&mut batch, &[&b"SELECT"[..], m.db.to_string().as_bytes()]);
    head += 1;
    let now = db.now;
    for key in &m.keys {
        let Some(entry) = db.peek(key) else { continue };
        // A key that dies on the way must arrive with a time to live of its own, not for ever.
        let ttl = entry.expire().map_or(0, |at| (at - now).max(1)).to_string();
        let mut dump = Vec::new();
        payload::dump(&mut dump, entry.value(), options);
        let name: &[u8] = if clustered { b"RESTORE-ASKING" } else { b"RESTORE" };
        let mut words: Vec<&[u8]> = vec![name, key, ttl.as_bytes(), &dump];
        if m.replace {
            words.push(b"REPLACE");
        }
        write_command(&mut batch, &words);
        moved.push(key);
    }
    if moved.is_empty() {
        ctx.reply.simple("NOKEY");
        return DONE;
    }
    let answers = exchange(m, &batch, head + moved.len())?;
    // A refused AUTH or SELECT concerns all keys.
    let mut error = answers[..head].iter().find(|a| a.starts_with('-')).cloned();
    let refused_all = error.is_some();
    let mut gone: Vec<&[u8]> = vec![b"DEL"];
    for (key, answer) in moved.iter().zip(&answers[head..]) {
        if refused_all || answer.starts_with('-') {
            error.get_or_insert_with(|| answer.clone());
        } else if !m.copy && db.remove(key) {
            db.changed(key, event::DEL);
            gone.push(key);
        }
    }
    if gone.len() > 1 {
        db.record(&gone);
    }
    if let Some(text) = error {
        let text = text.trim_start_matches('-');
        return Err(Fail::owned(format!("ERR Target instance replied with error: {text}")));
    }
    ctx.reply.ok();
    DONE
}

const NOT_CONNECTED: Fail = Fail::text("IOERR error or timeout connecting to the client");
const NOT_WRITTEN: Fail = Fail::text("IOERR error or timeout writing to target instance");
const NOT_READ: Fail = Fail::text("IOERR error or timeout reading to target instance");

/// Sends everything and reads as many one-line answers.
fn exchange(m: &Migrate, batch: &[u8], answers: usize) -> Result<Vec<String>> {
    let connect = || -> io::Result<TcpStream> {
        let target = (m.host.as_str(), m.port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let stream = TcpStream::connect_timeout(&target, m.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(m.timeout))?;
        stream.set_write_timeout(Some(m.timeout))?;
        Ok(stream)
    };
    // Redis learns that nobody listens when it writes, and says so.
    let mut stream = connect().map_err(|e| match e.kind() {
        io::ErrorKind::ConnectionRefused => NOT_WRITTEN,
        _ => NOT_CONNECTED,
    })?;
    stream.write_all(batch).map_err(|_| NOT_WRITTEN)?;
    let mut lines = Vec::with_capacity(answers);
    let (mut line, mut buf) = (Vec::new(), [0u8; 4096]);
    while lines.len() < answers {
        let n = stream.read(&mut buf).map_err(|_| NOT_READ)?;
        if n == 0 {
            return Err(NOT_READ);
        }
        for &b in &buf[..n] {
            match b {
                b'\n' => lines.push(String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned()),
                b'\r' => {}
                _ if line.len() < MAX_LINE => line.push(b),
                _ => return Err(NOT_READ),
            }
        }
    }
    Ok(lines)
}
