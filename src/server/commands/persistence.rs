//! SAVE and BGSAVE.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::keyspace::Db;
use crate::resp::Reply;
use crate::server::disk::rdb_file;
use crate::server::node::Node;

pub fn save(node: &Arc<Node>, reply: &mut Reply) {
    if node.save.is_running() {
        reply.error("ERR Background save already in progress");
    } else if rdb_file::save_now(node) {
        reply.ok();
    } else {
        reply.error("ERR");
    }
}

pub fn background_save(node: &Arc<Node>, schedule: bool, db: &mut Db<'_, '_>, reply: &mut Reply) {
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
    if rdb_file::save_in_background(node, db.locked()) {
        reply.simple("Background saving started");
    } else {
        reply.error("ERR");
    }
}
