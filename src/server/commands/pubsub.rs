//! Subscriptions and messages.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::Client;
use crate::command::request::{PubSubRequest, Space};
use crate::pubsub::Subscriber;
use crate::resp::Reply;
use crate::server::node::Node;

pub fn perform(node: &Node, client: &mut Client, request: PubSubRequest, reply: &mut Reply) {
    match request {
        PubSubRequest::Subscribe(space, channels) => {
            let who = subscriber(client);
            for channel in channels {
                if own(client, space).insert(channel.clone()) {
                    node.pubsub.subscribe(space, &channel, &who);
                }
                let verb = if space == Space::Global { "subscribe" } else { "ssubscribe" };
                confirm(reply, verb, Some(&channel), count(client, space));
            }
        }
        PubSubRequest::PatternSubscribe(patterns) => {
            let who = subscriber(client);
            for pattern in patterns {
                if client.patterns.insert(pattern.clone()) {
                    node.pubsub.subscribe_pattern(&pattern, &who);
                }
                confirm(reply, "psubscribe", Some(&pattern), count(client, Space::Global));
            }
        }
        PubSubRequest::Unsubscribe(space, channels) => {
            let verb = if space == Space::Global { "unsubscribe" } else { "sunsubscribe" };
            let channels = or_all(channels, own(client, space));
            if channels.is_empty() {
                confirm(reply, verb, None, count(client, space));
            }
            for channel in channels {
                if own(client, space).remove(&channel) {
                    node.pubsub.unsubscribe(space, &channel, client.id);
                }
                confirm(reply, verb, Some(&channel), count(client, space));
            }
        }
        PubSubRequest::PatternUnsubscribe(patterns) => {
            let patterns = or_all(patterns, &client.patterns);
            if patterns.is_empty() {
                confirm(reply, "punsubscribe", None, count(client, Space::Global));
            }
            for pattern in patterns {
                if client.patterns.remove(&pattern) {
                    node.pubsub.unsubscribe_pattern(&pattern, client.id);
                }
                confirm(reply, "punsubscribe", Some(&pattern), count(client, Space::Global));
            }
        }
        PubSubRequest::Publish(space, channel, message) => {
            let receivers = node.publish(space, &channel, &message);
            if let Some(forward) = node.hooks.forward_publish.get() {
                forward(space, &channel, &message);
            }
            reply.int(receivers as i64);
        }
        PubSubRequest::Channels(space, pattern) => {
            let names = node.pubsub.channels(space, pattern.as_deref());
            reply.array(names.len());
            for name in names {
                reply.bulk(&name);
            }
        }
        PubSubRequest::Subscribers(space, channels) => {
            reply.array(channels.len() * 2);
            for channel in channels {
                reply.bulk(&channel);
                reply.int(node.pubsub.listeners(space, &channel) as i64);
            }
        }
        PubSubRequest::Patterns => reply.int(node.pubsub.pattern_count() as i64),
    }
    client.settle_subscribed();
    client.version += 1;
}

/// What the registry knows the client by.
fn subscriber(client: &mut Client) -> Arc<Subscriber> {
    let (id, worker, token, resp3) = (client.id, client.worker, client.token, client.resp3);
    let new = || Arc::new(Subscriber::new(id, worker, token, resp3));
    Arc::clone(client.subscriber.get_or_insert_with(new))
}

fn own(client: &mut Client, space: Space) -> &mut BTreeSet<Vec<u8>> {
    match space {
        Space::Global => &mut client.channels,
        Space::Shard => &mut client.shard_channels,
    }
}

/// The number that confirmations tell: channels and patterns together, or channels of slots.
fn count(client: &Client, space: Space) -> usize {
    match space {
        Space::Global => client.channels.len() + client.patterns.len(),
        Space::Shard => client.shard_channels.len(),
    }
}

fn or_all(named: Vec<Vec<u8>>, all: &BTreeSet<Vec<u8>>) -> Vec<Vec<u8>> {
    if named.is_empty() { all.iter().cloned().collect() } else { named }
}

fn confirm(reply: &mut Reply, verb: &str, name: Option<&[u8]>, count: usize) {
    reply.push(3);
    reply.bulk_str(verb);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.int(count as i64);
}

/// Gives up all subscriptions without a word (RESET, a closed connection).
pub fn forget(node: &Node, client: &mut Client) {
    for channel in std::mem::take(&mut client.channels) {
        node.pubsub.unsubscribe(Space::Global, &channel, client.id);
    }
    for channel in std::mem::take(&mut client.shard_channels) {
        node.pubsub.unsubscribe(Space::Shard, &channel, client.id);
    }
    for pattern in std::mem::take(&mut client.patterns) {
        node.pubsub.unsubscribe_pattern(&pattern, client.id);
    }
    client.subscriber = None;
    client.settle_subscribed();
}
