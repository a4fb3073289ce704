//! The section of the cluster.

use crate::server::node::Node;
use crate::server::node::fields::Fields;

pub fn write(node: &Node, out: &mut Fields) {
    out.field("cluster_enabled", u8::from(node.config.load().cluster_enabled));
}

/// Links of the bus.
pub fn connections(node: &Node) -> usize {
    node.peers.bus.get().map_or(0, |bus| bus.link_infos().len())
}
