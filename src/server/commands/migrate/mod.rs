//! MIGRATE: keys to another node.
//!
//! The worker encodes the keys under their locks and hands them to a [`courier`], a thread that has the
//! connection to that node. While they are under way no lock is held: readers of the keys go on, writers of them
//! are put aside, and everybody else does not notice. [`crate::exec::parcel`] says what holds at the end.
//!
//! In a transaction all this happens at once, under the locks of the transaction, whose holder declares itself.

use std::sync::Arc;

use crate::command::Client;
use crate::command::request::Migrate;
use crate::exec::After;
use crate::exec::parcel::Parcel;
use crate::keyspace::board::Reason;
use crate::keyspace::{Db, event};
use crate::persist::rdb::{Options, payload};
use crate::resp::Reply;
use crate::resp::request::write_command;
use crate::server::commands::fail;
use crate::server::node::Node;

pub mod courier;
mod line;

use courier::Job;
use line::{Answers, Line, Trouble};

/// What is sent, and how long each step of that may take.
#[derive(Debug)]
struct Order {
    host: String,
    port: u16,
    timeout: std::time::Duration,
    bytes: Vec<u8>,
    /// Commands before those of the keys, and the keys: each has one answer.
    head: usize,
    keys: usize,
}

pub fn perform(
    node: &Arc<Node>,
    client: &Client,
    m: Migrate,
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) -> After {
    let (order, keys) = pack(node, &m, db);
    if keys.is_empty() {
        reply.simple("NOKEY");
        return After::Done;
    }
    if client.executing.is_some() {
        at_once(node, client, &order, if m.copy { &[] } else { &keys }, db, reply);
        return After::Done;
    }
    // A copy is of the moment when it was made: what is written behind it does not matter.
    let parcel = (!m.copy).then(|| {
        let (index, ticket) = (db.index(), db.keyspace().log.ticket());
        Parcel { number: db.locked().hold_back(index, &keys), db: index, keys, ticket }
    });
    let job = Job { order, parcel, worker: client.worker, token: client.token, client: client.id };
    let Err(job) = node.couriers.send(node, Box::new(job)) else { return After::Suspended };
    if let Some(parcel) = job.parcel {
        db.locked().let_through(parcel.number, &parcel.keys);
    }
    fail(node, client, reply, Trouble::Connect.text());
    After::Done
}

/// Encodes the keys that there are.
fn pack(node: &Node, m: &Migrate, db: &mut Db<'_, '_>) -> (Order, Vec<Vec<u8>>) {
    let options = Options { compress: node.config.load().rdbcompression };
    let name: &[u8] = if node.bus.get().is_some() { b"RESTORE-ASKING" } else { b"RESTORE" };
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
        let Some(entry) = db.peek(key) else { continue };
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
fn at_once(
    node: &Arc<Node>,
    client: &Client,
    order: &Order,
    keys: &[Vec<u8>],
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) {
    let now = db.now;
    db.locked().declare_long(Reason::Command("migrate"), now);
    let (arrived, result) = judge(order, Line::new(&node.couriers.sockets).exchange(order));
    let mut gone: Vec<&[u8]> = vec![b"DEL"];
    for (key, _) in keys.iter().zip(&arrived).filter(|(_, arrived)| **arrived) {
        if db.remove(key) {
            db.changed(key, event::DEL);
            gone.push(key);
        }
    }
    if gone.len() > 1 {
        db.record(&gone);
    }
    match result {
        Ok(()) => reply.ok(),
        Err(text) => fail(node, client, reply, &text),
    }
}

/// Which of the keys have arrived, and what the client is told.
fn judge(order: &Order, answers: Answers) -> (Vec<bool>, Result<(), String>) {
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
