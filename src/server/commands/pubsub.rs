//! The pub/sub family: subscriptions and messages.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::help::help;
use crate::command::spec::{Channels, EVERYWHERE, Group::PubSub, KeySpec, flags::*, key, one, range};
use crate::command::{Client, Command, CommandError, Ctx, DONE, Result, wrong_arguments};
use crate::pubsub::{Space, Subscriber};
use crate::resp::Reply;
use crate::server::commands::node;
use crate::server::control::shard_channels;
use crate::server::node::Node;

const LISTENING: Flags = PUBSUB_FLAGS | IN_SUBSCRIBED | PUSHES;
const PUBSUB_FLAGS: Flags = PUBSUB | NOSCRIPT | LOADING | STALE;
const ASKING_FLAGS: Flags = PUBSUB | LOADING | STALE;

/// A channel that belongs to a slot: routed like a key, but none.
const CHANNEL: KeySpec = one(1, key::NOT_KEY);

/// Subscribing and publishing, to channels of all kinds.
pub const COMMANDS: &[Command] = &[
    Command::new("subscribe", -2, PubSub, subscribe)
        .flags(LISTENING)
        .channels(Channels::All)
        .complexity("O(N) where N is the number of channels")
        .doc("2.0.0", "channel ...", "Listens to channels.")
        .modes(EVERYWHERE),
    Command::new("unsubscribe", -1, PubSub, unsubscribe)
        .flags(LISTENING)
        .complexity("O(N) where N is the number of channels")
        .doc("2.0.0", "[channel ...]", "Stops listening to channels.")
        .modes(EVERYWHERE),
    Command::new("psubscribe", -2, PubSub, psubscribe)
        .flags(LISTENING)
        .channels(Channels::Patterns)
        .complexity("O(N) where N is the number of patterns")
        .doc("2.0.0", "pattern ...", "Listens to all channels that match patterns.")
        .modes(EVERYWHERE),
    Command::new("punsubscribe", -1, PubSub, punsubscribe)
        .flags(LISTENING)
        .complexity("O(N) where N is the number of patterns")
        .doc("2.0.0", "[pattern ...]", "Stops listening to patterns.")
        .modes(EVERYWHERE),
    Command::new("ssubscribe", -2, PubSub, ssubscribe)
        .flags(LISTENING)
        .keys(&[range(1, -1, 1, key::NOT_KEY)])
        .channels(Channels::All)
        .complexity("O(N) where N is the number of channels")
        .doc("7.0.0", "shardchannel ...", "Listens to channels that belong to slots."),
    Command::new("sunsubscribe", -1, PubSub, sunsubscribe)
        .flags(LISTENING)
        .keys(&[range(1, -1, 1, key::NOT_KEY)])
        .complexity("O(N) where N is the number of channels")
        .doc("7.0.0", "[shardchannel ...]", "Stops listening to channels that belong to slots."),
    Command::new("publish", 3, PubSub, publish)
        .channels(Channels::First)
        .flags(PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE)
        .complexity("O(N+M) where N is the number of listeners of the channel and M that of all patterns")
        .doc("2.0.0", "channel message", "Sends a message to a channel."),
    Command::new("spublish", 3, PubSub, spublish)
        .channels(Channels::First)
        .flags(PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE)
        .keys(&[CHANNEL])
        .complexity("O(N) where N is the number of listeners of the channel")
        .doc("7.0.0", "shardchannel message", "Sends a message to a channel that belongs to a slot."),
    Command::container("pubsub", PubSub, SUBCOMMANDS).doc("2.8.0", "", "Commands about channels."),
];

const SUBCOMMANDS: &[Command] = &[
    Command::new("channels", -2, PubSub, channels)
        .flags(ASKING_FLAGS)
        .complexity("O(N) where N is the number of channels")
        .doc("2.8.0", "[pattern]", "Lists the channels that somebody listens to."),
    Command::new("help", 2, PubSub, pubsub_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "6.2.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("numpat", 2, PubSub, numpat).flags(ASKING_FLAGS).complexity("O(1)").doc(
        "2.8.0",
        "",
        "Counts the patterns that somebody listens to.",
    ),
    Command::new("numsub", -2, PubSub, numsub)
        .flags(ASKING_FLAGS)
        .complexity("O(N) where N is the number of channels asked for")
        .doc("2.8.0", "[channel ...]", "Counts the listeners of channels."),
    Command::new("shardchannels", -2, PubSub, shardchannels)
        .flags(ASKING_FLAGS)
        .complexity("O(N) where N is the number of channels")
        .doc("7.0.0", "[pattern]", "Lists the channels of slots that somebody listens to."),
    Command::new("shardnumsub", -2, PubSub, shardnumsub)
        .flags(ASKING_FLAGS)
        .complexity("O(N) where N is the number of channels asked for")
        .doc("7.0.0", "[shardchannel ...]", "Counts the listeners of channels of slots."),
];

fn subscribe(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    subscribe_in(ctx, Space::Global, &args[1..])
}

fn ssubscribe(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    // In a transaction it is refused, other than SUBSCRIBE: so does Redis.
    if !ctx.may_block {
        return Err(CommandError::text("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client"));
    }
    subscribe_in(ctx, Space::Shard, &args[1..])
}

fn unsubscribe(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    unsubscribe_in(ctx, Space::Global, &args[1..])
}

fn sunsubscribe(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    unsubscribe_in(ctx, Space::Shard, &args[1..])
}

fn subscribe_in(ctx: &mut Ctx<'_, '_, '_>, space: Space, channels: &[&[u8]]) -> Result {
    let (node, client) = (node(ctx), &mut *ctx.client);
    let who = subscriber(client);
    let verb = if space == Space::Global { "subscribe" } else { "ssubscribe" };
    for channel in channels {
        if own(client, space).insert(channel.to_vec()) {
            node.people.pubsub.subscribe(space, channel, &who);
            if space == Space::Shard {
                shard_channels::subscribed(node, client, channel);
            }
        }
        confirm(ctx.reply, verb, Some(channel), count(client, space));
    }
    client.settle_subscribed();
    client.version += 1;
    DONE
}

fn unsubscribe_in(ctx: &mut Ctx<'_, '_, '_>, space: Space, channels: &[&[u8]]) -> Result {
    let (node, client) = (node(ctx), &mut *ctx.client);
    let verb = if space == Space::Global { "unsubscribe" } else { "sunsubscribe" };
    let channels = or_all(channels, own(client, space));
    if channels.is_empty() {
        confirm(ctx.reply, verb, None, count(client, space));
    }
    for channel in channels {
        if own(client, space).remove(&channel) {
            node.people.pubsub.unsubscribe(space, &channel, client.id);
        }
        confirm(ctx.reply, verb, Some(&channel), count(client, space));
    }
    client.settle_subscribed();
    client.version += 1;
    DONE
}

fn psubscribe(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (node, client) = (node(ctx), &mut *ctx.client);
    let who = subscriber(client);
    for pattern in &args[1..] {
        if client.patterns.insert(pattern.to_vec()) {
            node.people.pubsub.subscribe_pattern(pattern, &who);
        }
        confirm(ctx.reply, "psubscribe", Some(pattern), count(client, Space::Global));
    }
    client.settle_subscribed();
    client.version += 1;
    DONE
}

fn punsubscribe(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (node, client) = (node(ctx), &mut *ctx.client);
    let patterns = or_all(&args[1..], &client.patterns);
    if patterns.is_empty() {
        confirm(ctx.reply, "punsubscribe", None, count(client, Space::Global));
    }
    for pattern in patterns {
        if client.patterns.remove(&pattern) {
            node.people.pubsub.unsubscribe_pattern(&pattern, client.id);
        }
        confirm(ctx.reply, "punsubscribe", Some(&pattern), count(client, Space::Global));
    }
    client.settle_subscribed();
    client.version += 1;
    DONE
}

fn publish(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    send(ctx, Space::Global, args)
}

fn spublish(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    send(ctx, Space::Shard, args)
}

fn send(ctx: &mut Ctx<'_, '_, '_>, space: Space, args: &[&[u8]]) -> Result {
    // Replicas have listeners too. No data changed, so the message is recorded explicitly; in a cluster
    // the bus brings it to all nodes.
    if !ctx.clustered {
        ctx.record(args);
    }
    let node = node(ctx);
    let receivers = node.publish(space, args[1], args[2]);
    if let Some(bus) = node.peers.bus.get() {
        bus.post(|s, now| s.publish(now, args[1], args[2], space == Space::Shard));
    }
    ctx.reply.int(receivers as i64);
    DONE
}

fn channels(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    list(ctx, Space::Global, args)
}

fn shardchannels(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    list(ctx, Space::Shard, args)
}

fn list(ctx: &mut Ctx<'_, '_, '_>, space: Space, args: &[&[u8]]) -> Result {
    if args.len() > 3 {
        return Err(wrong_arguments("PUBSUB", args[1]));
    }
    let names = node(ctx).people.pubsub.channels(space, args.get(2).copied());
    ctx.reply.array(names.len());
    for name in names {
        ctx.reply.bulk(&name);
    }
    DONE
}

fn numsub(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    subscribers(ctx, Space::Global, &args[2..])
}

fn shardnumsub(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    subscribers(ctx, Space::Shard, &args[2..])
}

fn subscribers(ctx: &mut Ctx<'_, '_, '_>, space: Space, channels: &[&[u8]]) -> Result {
    let node = node(ctx);
    ctx.reply.array(channels.len() * 2);
    for channel in channels {
        ctx.reply.bulk(channel);
        ctx.reply.int(node.people.pubsub.listeners(space, channel) as i64);
    }
    DONE
}

fn numpat(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(node(ctx).people.pubsub.pattern_count() as i64);
    DONE
}

fn pubsub_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "pubsub", SUBCOMMANDS);
    DONE
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

fn or_all(named: &[&[u8]], all: &BTreeSet<Vec<u8>>) -> Vec<Vec<u8>> {
    if named.is_empty() { all.iter().cloned().collect() } else { named.iter().map(|n| n.to_vec()).collect() }
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

/// Ends a subscription to a channel whose slot has left; the message that tells the client so, if it had one.
pub fn leave(node: &Node, client: &mut Client, channel: &[u8]) -> Option<Arc<[u8]>> {
    if !client.shard_channels.remove(channel) {
        return None;
    }
    node.people.pubsub.unsubscribe(Space::Shard, channel, client.id);
    let mut message = Reply::new();
    message.set_resp3(client.resp3);
    confirm(&mut message, "sunsubscribe", Some(channel), client.shard_channels.len());
    client.settle_subscribed();
    client.version += 1;
    Some(message.into_bytes().into())
}

/// Whether a client may stay connected after its user has changed: the user is there, and may hear all that the
/// client listens to.
pub fn may_go_on(client: &mut Client) -> bool {
    let patterns = std::mem::take(&mut client.patterns);
    let channels = [std::mem::take(&mut client.channels), std::mem::take(&mut client.shard_channels)];
    let goes_on = client.user().is_none_or(|user| {
        !user.deleted
            && patterns.iter().all(|pattern| user.may_hear(pattern, true))
            && channels.iter().flatten().all(|channel| user.may_hear(channel, false))
    });
    client.patterns = patterns;
    [client.channels, client.shard_channels] = channels;
    goes_on
}

/// Gives up all subscriptions without a word (RESET, a closed connection).
pub fn forget(node: &Node, client: &mut Client) {
    for channel in std::mem::take(&mut client.channels) {
        node.people.pubsub.unsubscribe(Space::Global, &channel, client.id);
    }
    for channel in std::mem::take(&mut client.shard_channels) {
        node.people.pubsub.unsubscribe(Space::Shard, &channel, client.id);
    }
    for pattern in std::mem::take(&mut client.patterns) {
        node.people.pubsub.unsubscribe_pattern(&pattern, client.id);
    }
    client.subscriber = None;
    client.settle_subscribed();
}
