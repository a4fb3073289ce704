//! What commands ask of the node, fulfilled. One file an area; this one hands out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::node::Node;
use super::persistence;
use crate::command::{Client, Request};
use crate::exec::After;
use crate::keyspace::Db;
use crate::resp::Reply;

/// Fulfils a request of `client`. Takes no shard lock: `db` holds what there is.
pub fn perform(
    node: &Arc<Node>,
    request: Request,
    client: &mut Client,
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) -> After {
    let _ = client;
    match request {
        Request::Save => save(node, reply),
        Request::BackgroundSave { schedule } => background_save(node, schedule, db, reply),
        Request::LastSave => reply.int(node.save.last_save_s.load(Ordering::Acquire)),
        Request::Info { sections } => reply.verbatim("txt", &sections.join(",")),
    }
    After::Done
}

/// What a client leaves behind when its connection closes.
pub fn on_close(node: &Node, client: &mut Client) {
    let _ = (node, client);
}

fn save(node: &Arc<Node>, reply: &mut Reply) {
    if node.save.is_running() {
        reply.error("ERR Background save already in progress");
    } else if persistence::save_now(node) {
        reply.ok();
    } else {
        reply.error("ERR Error saving the DB. Check the server logs.");
    }
}

fn background_save(node: &Arc<Node>, schedule: bool, db: &mut Db<'_, '_>, reply: &mut Reply) {
    if node.save.is_running() {
        return reply.error("ERR Background save already in progress");
    }
    if node.shared.keyspace.is_snapshot_running() {
        if schedule {
            node.save.scheduled.store(true, Ordering::Release);
            return reply.simple("Background saving scheduled");
        }
        return reply.error("ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule a BGSAVE whenever possible.");
    }
    if persistence::save_in_background(node, db.locked()) {
        reply.simple("Background saving started");
    } else {
        reply.error("ERR Error saving the DB. Check the server logs.");
    }
}
