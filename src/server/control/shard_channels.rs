//! Sharded channels: when a slot leaves this node, the clients that have subscribed to its channels are unsubscribed.
//!
//! There is one place that sees every way by which a slot leaves (SETSLOT, DELSLOTS, RESET, the word of another
//! node, becoming a replica): the view that workers get.

use std::sync::Arc;

use crate::base::crc16::key_slot;
use crate::cluster::view::View;
use crate::cluster::{NodeId, NodeIx};
use crate::command::Client;
use crate::pubsub::Space;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;

/// Ends subscriptions to channels whose slots another node owns now. `before` and `now`: two consecutive views.
pub fn follow_slots(node: &Node, before: Option<&View>, now: &View) {
    for channel in node.people.pubsub.channels(Space::Shard, None) {
        let slot = key_slot(&channel);
        if is_heard(now, slot) && before.is_none_or(|before| owner(before, slot) == owner(now, slot)) {
            continue;
        }
        let channel: Arc<[u8]> = channel.into();
        for who in node.people.pubsub.subscribers(Space::Shard, &channel) {
            let (token, client, channel) = (who.token, who.client, Arc::clone(&channel));
            node.send(who.worker, Mail::ChannelLeft { token, client, channel });
        }
    }
}

/// After a subscription: whether the slot has left since it was looked at. [`follow_slots`] may have been too
/// early to find the client.
pub fn subscribed(node: &Node, client: &Client, channel: &[u8]) {
    let left = node.shared.view.load().as_deref().is_some_and(|view| !is_heard(view, key_slot(channel)));
    if left {
        let (token, client_id, channel) = (client.token, client.id, channel.into());
        node.send(client.worker, Mail::ChannelLeft { token, client: client_id, channel });
    }
}

/// Whether messages of a slot's channels reach this node.
fn is_heard(view: &View, slot: u16) -> bool {
    let state = view.slot(slot);
    state.is_mine() || state.is_my_primarys() || state.is_importing()
}

fn owner(view: &View, slot: u16) -> Option<NodeId> {
    let ix: NodeIx = view.slot(slot).owner()?;
    view.node(ix).map(|node| node.id)
}
