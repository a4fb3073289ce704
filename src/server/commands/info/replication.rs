//! The section of replication, and its counters in the section of counters.

use crate::server::node::Node;
use crate::server::node::fields::Fields;

pub fn write(node: &Node, out: &mut Fields) {
    node.peers.replication.write_section(node, out);
}

/// Bytes of the links.
pub fn write_traffic(node: &Node, out: &mut Fields) {
    let (input, output) = node.peers.replication.traffic();
    out.field("total_net_repl_input_bytes", input);
    out.field("total_net_repl_output_bytes", output);
}

/// How replicas were brought up to date.
pub fn write_syncs(node: &Node, out: &mut Fields) {
    let (full, partial, refused) = node.peers.replication.syncs();
    out.field("sync_full", full);
    out.field("sync_partial_ok", partial);
    out.field("sync_partial_err", refused);
}
