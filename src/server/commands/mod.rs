//! What commands ask of the node, fulfilled. One file an area; this one hands out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::{Client, Request};
use crate::exec::After;
use crate::keyspace::Db;
use crate::resp::Reply;
use crate::server::control::replication;
use crate::server::node::{Node, unix_ms};

mod auth;
mod clients;
mod cluster;
mod command;
mod config;
mod debug;
mod docs;
pub mod info;
pub mod migrate;
mod persistence;
mod pubsub;
mod reload;

/// Fulfils a request of `client`. Takes no shard lock: `db` holds what there is.
pub fn perform(
    node: &Arc<Node>,
    request: Request,
    client: &mut Client,
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) -> After {
    match request {
        Request::Auth(credentials) => auth::auth(node, client, &credentials, reply),
        Request::Hello(hello) => auth::hello(node, client, hello, reply),
        Request::Reset => auth::reset(node, client, reply),
        Request::Client(request) => return clients::perform(node, client, request, reply),
        Request::PubSub(request) => pubsub::perform(node, client, request, reply),
        Request::Info { sections } => reply.verbatim("txt", &info::render(node, &sections)),
        Request::Replication(request) => return replication::perform(node, request, client, db, reply),
        Request::Cluster(request) => cluster::perform(node, client, request, reply),
        Request::Migrate(request) => return migrate::perform(node, client, request, db, reply),
        Request::Time => time(reply),
        Request::Save => persistence::save(node, reply),
        Request::BackgroundSave { schedule } => persistence::background_save(node, schedule, db, reply),
        Request::LastSave => reply.int(node.save.last_save_s.load(Ordering::Acquire)),
        Request::Config(request) => config::perform(node, client, request, reply),
        Request::Commands(request) => command::perform(node, request, reply),
        Request::Debug(words) => return debug::perform(node, client, &words, db, reply),
        Request::Shutdown(how) => return shutdown(node, client, how, reply),
    }
    After::Done
}

/// What a client leaves behind when its connection closes. `waited`: it was suspended.
pub fn on_close(node: &Arc<Node>, client: &mut Client, waited: bool) {
    pubsub::forget(node, client);
    replication::on_close(node, client, waited);
}

/// What a client leaves behind when its connection becomes a replica's.
pub fn on_detach(node: &Node, client: &mut Client) {
    pubsub::forget(node, client);
}

/// An error reply of a request; counted like that of a handler.
fn fail(node: &Node, client: &Client, reply: &mut Reply, text: &str) {
    reply.error(text);
    if let Some(stats) = node.stats.get(client.worker) {
        stats.count_error(text);
    }
}

fn time(reply: &mut Reply) {
    let micros = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64);
    reply.array(2);
    reply.bulk_int(micros / 1_000_000);
    reply.bulk_int(micros % 1_000_000);
}

fn shutdown(
    node: &Arc<Node>,
    client: &Client,
    how: crate::command::request::Shutdown,
    reply: &mut Reply,
) -> After {
    if how.abort {
        if crate::server::shutdown::abort(node) {
            reply.ok();
        } else {
            fail(node, client, reply, "ERR No shutdown in progress.");
        }
        return After::Done;
    }
    crate::server::shutdown::begin(node, how, Some((client.worker, client.token, client.id)));
    After::Suspended
}

/// Seconds that a connection has existed.
fn age_seconds(created: crate::base::time::UnixMs) -> u64 {
    u64::try_from(unix_ms() - created).unwrap_or(0) / 1000
}
