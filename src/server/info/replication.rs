//! The section of replication, and its counters in the section of counters.

use super::Lines;
use crate::server::node::Node;

pub fn write(node: &Node, out: &mut Lines) {
    let log = &node.shared.keyspace.log;
    let (first, end) = log.window();
    out.field("role", "master");
    out.field("connected_slaves", 0);
    out.field("master_failover_state", "no-failover");
    out.field("master_replid", &node.run_id);
    out.field("master_replid2", "0".repeat(40));
    out.field("master_repl_offset", end);
    out.field("second_repl_offset", -1);
    out.field("repl_backlog_active", u8::from(log.is_wanted()));
    out.field("repl_backlog_size", node.config.load().repl_backlog_size);
    out.field("repl_backlog_first_byte_offset", if log.is_wanted() { first + 1 } else { 0 });
    out.field("repl_backlog_histlen", end - first);
}

/// Bytes of the links.
pub fn write_traffic(_node: &Node, out: &mut Lines) {
    out.field("total_net_repl_input_bytes", 0);
    out.field("total_net_repl_output_bytes", 0);
}

/// How replicas were brought up to date.
pub fn write_syncs(_node: &Node, out: &mut Lines) {
    out.field("sync_full", 0);
    out.field("sync_partial_ok", 0);
    out.field("sync_partial_err", 0);
}
