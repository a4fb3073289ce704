//! What a real node of 7.4 would believe of shards in the place of one of ours. It puts a replica into
//! its primary's shard when it learns whose it is, and afterwards believes what each node tells of itself; so
//! a replica and its primary must never tell different things for long. A node that dies while it believes
//! that they differ does not start again.

use std::collections::BTreeMap;

use keystead::cluster::NodeId;
use keystead::cluster::message::{Body, Message};

#[derive(Default)]
pub struct Bystander {
    /// Shard and primary of every node heard.
    nodes: BTreeMap<NodeId, (NodeId, Option<NodeId>)>,
    differs_since: Option<u64>,
    /// How long a replica and its primary were believed to be in different shards, milliseconds.
    pub longest_ms: u64,
    /// Replicas heard, for tests that must not be void.
    pub replicas: u64,
}

impl Bystander {
    pub fn hear(&mut self, now: u64, packet: &[u8]) {
        let message = Message::decode(packet).expect("a packet");
        let (Body::Ping(gossip) | Body::Pong(gossip) | Body::Meet(gossip)) = message.body else { return };
        let (sender, primary) = (message.header.sender, message.header.primary);
        // Until it tells, a node is in a shard of its own.
        let shard_of = |nodes: &BTreeMap<_, (NodeId, _)>, id| nodes.get(&id).map_or(id, |n| n.0);
        let before = self.nodes.get(&sender).and_then(|n| n.1);
        let mut shard = shard_of(&self.nodes, sender);
        if let Some(primary) = primary {
            self.replicas += 1;
            if before != Some(primary) {
                shard = shard_of(&self.nodes, primary);
            }
        }
        self.nodes.insert(sender, (gossip.extensions.shard_id.unwrap_or(shard), primary));
        let differs = self
            .nodes
            .values()
            .any(|(shard, primary)| primary.is_some_and(|p| shard_of(&self.nodes, p) != *shard));
        if differs {
            let since = *self.differs_since.get_or_insert(now);
            self.longest_ms = self.longest_ms.max(now - since);
        } else if let Some(since) = self.differs_since.take() {
            self.longest_ms = self.longest_ms.max(now - since);
        }
    }
}
