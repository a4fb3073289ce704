//! MIGRATE: keys to another node over a connection that is made for the purpose.
//!
//! The keys' shards stay locked from the first byte sent to the last answer read, so that each key
//! is at one of the two nodes at any moment. Other shards are served meanwhile.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;

use crate::command::Client;
use crate::command::request::Migrate;
use crate::keyspace::{Db, event};
use crate::persist::rdb::{Options, payload};
use crate::resp::Reply;
use crate::resp::request::write_command;
use crate::server::node::Node;

/// The longest error that a peer is heard out for.
const MAX_LINE: usize = 4096;

pub fn perform(node: &Arc<Node>, client: &Client, m: &Migrate, db: &mut Db<'_, '_>, reply: &mut Reply) {
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
        return reply.simple("NOKEY");
    }
    let answers = match exchange(m, &batch, head + moved.len()) {
        Ok(answers) => answers,
        Err(Trouble::Connect) => {
            return crate::server::commands::fail(
                node,
                client,
                reply,
                "IOERR error or timeout connecting to the client",
            );
        }
        Err(Trouble::Write) => {
            return crate::server::commands::fail(
                node,
                client,
                reply,
                "IOERR error or timeout writing to target instance",
            );
        }
        Err(Trouble::Read) => {
            return crate::server::commands::fail(
                node,
                client,
                reply,
                "IOERR error or timeout reading to target instance",
            );
        }
    };
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
    match error {
        Some(text) => {
            let text = format!("ERR Target instance replied with error: {}", text.trim_start_matches('-'));
            crate::server::commands::fail(node, client, reply, &text);
        }
        None => reply.ok(),
    }
}

enum Trouble {
    Connect,
    Write,
    Read,
}

/// Sends everything and reads as many one-line answers.
fn exchange(m: &Migrate, batch: &[u8], answers: usize) -> Result<Vec<String>, Trouble> {
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
        io::ErrorKind::ConnectionRefused => Trouble::Write,
        _ => Trouble::Connect,
    })?;
    stream.write_all(batch).map_err(|_| Trouble::Write)?;
    let mut lines = Vec::with_capacity(answers);
    let (mut line, mut buf) = (Vec::new(), [0u8; 4096]);
    while lines.len() < answers {
        let n = stream.read(&mut buf).map_err(|_| Trouble::Read)?;
        if n == 0 {
            return Err(Trouble::Read);
        }
        for &b in &buf[..n] {
            match b {
                b'\n' => lines.push(String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned()),
                b'\r' => {}
                _ if line.len() < MAX_LINE => line.push(b),
                _ => return Err(Trouble::Read),
            }
        }
    }
    Ok(lines)
}
