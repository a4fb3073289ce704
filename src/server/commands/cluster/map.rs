//! The cluster as clients and tools are shown it: SLOTS, SHARDS, LINKS.

use super::bus;
use crate::cluster::Endpoint;
use crate::cluster::report::{NodeInfo, Shard};
use crate::command::{Ctx, DONE, Result};
use crate::resp::Reply;

pub fn slots(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let (bus, tls, reply) = (bus(ctx)?, ctx.client.tls, &mut *ctx.reply);
    let (ranges, preferred, main) =
        bus.read(|s| (s.slot_ranges(), s.config().preferred_endpoint, s.config().tls));
    reply.array(ranges.len());
    for range in &ranges {
        reply.array(2 + range.nodes.len());
        reply.int(i64::from(range.start));
        reply.int(i64::from(range.end));
        for node in &range.nodes {
            reply.array(4);
            match endpoint(node, preferred) {
                "" if preferred == Endpoint::Unknown => reply.null(),
                host => reply.bulk_str(host),
            }
            reply.int(i64::from(node.address.port_of(main, tls)));
            reply.bulk_str(node.id.as_str());
            // The addresses that are not in the first place.
            let mut others = Vec::new();
            if preferred != Endpoint::Ip {
                others.push(("ip", &node.address.ip));
            }
            if preferred != Endpoint::Hostname && !node.hostname.is_empty() {
                others.push(("hostname", &node.hostname));
            }
            reply.map(others.len());
            for (name, value) in others {
                reply.bulk_str(name);
                reply.bulk_str(value);
            }
        }
    }
    DONE
}

pub fn shards(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let (shards, endpoint, main) =
        bus(ctx)?.read(|s| (s.shards(), s.config().preferred_endpoint, s.config().tls));
    ctx.reply.array(shards.len());
    for shard in &shards {
        self::shard(shard, endpoint, main, ctx.reply);
    }
    DONE
}

/// `main`: the first port of a node is the one for TLS.
fn shard(shard: &Shard, preferred: Endpoint, main: bool, reply: &mut Reply) {
    reply.map(2);
    reply.bulk_str("slots");
    reply.array(shard.slots.len() * 2);
    for (start, end) in &shard.slots {
        reply.int(i64::from(*start));
        reply.int(i64::from(*end));
    }
    reply.bulk_str("nodes");
    reply.array(shard.nodes.len());
    for node in &shard.nodes {
        let named = !node.hostname.is_empty();
        let ports =
            [("port", node.address.port_of(main, false)), ("tls-port", node.address.port_of(main, true))];
        let ports = || ports.iter().filter(|(_, port)| *port != 0);
        reply.map(6 + ports().count() + usize::from(named));
        reply.bulk_str("id");
        reply.bulk_str(node.id.as_str());
        for (name, port) in ports() {
            reply.bulk_str(name);
            reply.int(i64::from(*port));
        }
        reply.bulk_str("ip");
        reply.bulk_str(&node.address.ip);
        reply.bulk_str("endpoint");
        reply.bulk_str(endpoint(node, preferred));
        if named {
            reply.bulk_str("hostname");
            reply.bulk_str(&node.hostname);
        }
        reply.bulk_str("role");
        reply.bulk_str(if node.is_replica() { "replica" } else { "master" });
        reply.bulk_str("replication-offset");
        reply.int(node.replication_offset as i64);
        reply.bulk_str("health");
        reply.bulk_str(node.health());
    }
}

/// The host that clients are to use; empty where they shall keep the one that they have.
fn endpoint(node: &NodeInfo, preferred: Endpoint) -> &str {
    match preferred {
        Endpoint::Ip => &node.address.ip,
        Endpoint::Hostname if node.hostname.is_empty() => "?",
        Endpoint::Hostname => &node.hostname,
        Endpoint::Unknown => "",
    }
}

pub fn links(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let (links, reply) = (bus(ctx)?.link_infos(), &mut *ctx.reply);
    reply.array(links.len());
    for (link, waiting) in &links {
        reply.map(6);
        reply.bulk_str("direction");
        reply.bulk_str(if link.inbound { "from" } else { "to" });
        reply.bulk_str("node");
        reply.bulk_str(link.node.as_str());
        reply.bulk_str("create-time");
        reply.int(link.created);
        reply.bulk_str("events");
        reply.bulk_str(if *waiting > 0 { "rw" } else { "r" });
        reply.bulk_str("send-buffer-allocated");
        reply.int(*waiting as i64);
        reply.bulk_str("send-buffer-used");
        reply.int(*waiting as i64);
    }
    DONE
}
