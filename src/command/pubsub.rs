//! The pub/sub family. Who is subscribed to what is the node's affair.

use super::ctx::{Ctx, DONE};
use super::help::help;
use super::request::{PubSubRequest, Request, Space};
use super::spec::{Command, Group::PubSub, KeySpec, flags::*, key, one, range};
use super::{Result, wrong_arguments};

const LISTENING: Flags = PUBSUB_FLAGS | IN_SUBSCRIBED | PUSHES;
const PUBSUB_FLAGS: Flags = PUBSUB | NOSCRIPT | LOADING | STALE;
const ASKING_FLAGS: Flags = PUBSUB | LOADING | STALE;

/// A channel that belongs to a slot: routed like a key, but none.
const CHANNEL: KeySpec = one(1, key::NOT_KEY);

pub const COMMANDS: &[Command] = &[
    Command::new("subscribe", -2, PubSub, subscribe)
        .flags(LISTENING)
        .complexity("O(N) where N is the number of channels")
        .doc("2.0.0", "channel [channel ...]", "Listens to channels."),
    Command::new("unsubscribe", -1, PubSub, unsubscribe)
        .flags(LISTENING)
        .complexity("O(N) where N is the number of channels")
        .doc("2.0.0", "[channel [channel ...]]", "Stops listening to channels."),
    Command::new("psubscribe", -2, PubSub, psubscribe)
        .flags(LISTENING)
        .complexity("O(N) where N is the number of patterns")
        .doc("2.0.0", "pattern [pattern ...]", "Listens to all channels that match patterns."),
    Command::new("punsubscribe", -1, PubSub, punsubscribe)
        .flags(LISTENING)
        .complexity("O(N) where N is the number of patterns")
        .doc("2.0.0", "[pattern [pattern ...]]", "Stops listening to patterns."),
    Command::new("ssubscribe", -2, PubSub, ssubscribe)
        .flags(LISTENING)
        .keys(&[range(1, -1, 1, key::NOT_KEY)])
        .complexity("O(N) where N is the number of channels")
        .doc("7.0.0", "shardchannel [shardchannel ...]", "Listens to channels that belong to slots."),
    Command::new("sunsubscribe", -1, PubSub, sunsubscribe)
        .flags(LISTENING)
        .keys(&[range(1, -1, 1, key::NOT_KEY)])
        .complexity("O(N) where N is the number of channels")
        .doc(
            "7.0.0",
            "[shardchannel [shardchannel ...]]",
            "Stops listening to channels that belong to slots.",
        ),
    Command::new("publish", 3, PubSub, publish)
        .flags(PUBSUB | LOADING | STALE | FAST)
        .complexity("O(N+M) where N is the number of listeners of the channel and M that of all patterns")
        .doc("2.0.0", "channel message", "Sends a message to a channel."),
    Command::new("spublish", 3, PubSub, spublish)
        .flags(PUBSUB | LOADING | STALE | FAST)
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
        .doc("2.8.0", "[channel [channel ...]]", "Counts the listeners of channels."),
    Command::new("shardchannels", -2, PubSub, shardchannels)
        .flags(ASKING_FLAGS)
        .complexity("O(N) where N is the number of channels")
        .doc("7.0.0", "[pattern]", "Lists the channels of slots that somebody listens to."),
    Command::new("shardnumsub", -2, PubSub, shardnumsub)
        .flags(ASKING_FLAGS)
        .complexity("O(N) where N is the number of channels asked for")
        .doc("7.0.0", "[shardchannel [shardchannel ...]]", "Counts the listeners of channels of slots."),
];

fn owned(args: &[&[u8]]) -> Vec<Vec<u8>> {
    args.iter().map(|a| a.to_vec()).collect()
}

fn ask(request: PubSubRequest) -> Result {
    Ctx::node(Request::PubSub(request))
}

fn subscribe(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::Subscribe(Space::Global, owned(&args[1..])))
}

fn unsubscribe(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::Unsubscribe(Space::Global, owned(&args[1..])))
}

fn ssubscribe(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::Subscribe(Space::Shard, owned(&args[1..])))
}

fn sunsubscribe(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::Unsubscribe(Space::Shard, owned(&args[1..])))
}

fn psubscribe(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::PatternSubscribe(owned(&args[1..])))
}

fn punsubscribe(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::PatternUnsubscribe(owned(&args[1..])))
}

fn publish(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    tell_replicas(ctx, args);
    ask(PubSubRequest::Publish(Space::Global, args[1].to_vec(), args[2].to_vec()))
}

fn spublish(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    tell_replicas(ctx, args);
    ask(PubSubRequest::Publish(Space::Shard, args[1].to_vec(), args[2].to_vec()))
}

/// Replicas have listeners too. No data changed, so the message is recorded explicitly; in a cluster
/// the bus brings it to all nodes.
fn tell_replicas(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) {
    if !ctx.clustered {
        ctx.record(args);
    }
}

fn channels(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    list(Space::Global, args)
}

fn shardchannels(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    list(Space::Shard, args)
}

fn list(space: Space, args: &[&[u8]]) -> Result {
    if args.len() > 3 {
        return Err(wrong_arguments("PUBSUB", args[1]));
    }
    ask(PubSubRequest::Channels(space, args.get(2).map(|p| p.to_vec())))
}

fn numsub(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::Subscribers(Space::Global, owned(&args[2..])))
}

fn shardnumsub(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(PubSubRequest::Subscribers(Space::Shard, owned(&args[2..])))
}

fn numpat(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(PubSubRequest::Patterns)
}

fn pubsub_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "pubsub", SUBCOMMANDS);
    DONE
}
