//! CLUSTER: asks of the state machine, and its answers as replies.

use std::sync::Arc;

use crate::cluster::report::{NodeInfo, Shard};
use crate::cluster::{ClusterState, Endpoint, FailoverMode, Keys, NodeId, Now};
use crate::command::request::{ClusterRequest, Failover, SlotChange, SlotMove};
use crate::command::{Client, Fail};
use crate::keyspace::Keyspace;
use crate::resp::Reply;
use crate::server::commands::fail;
use crate::server::control::bus::{Bus, Door};
use crate::server::node::Node;

/// Counts keys without a lock, so that the cluster's lock may be held meanwhile.
struct SlotCounts<'a>(&'a Keyspace);

impl Keys for SlotCounts<'_> {
    fn count_in_slot(&self, slot: u16) -> u64 {
        self.0.slot_len(0, slot) as u64
    }

    fn count(&self) -> u64 {
        self.0.len(0) as u64
    }
}

pub fn perform(node: &Arc<Node>, client: &Client, request: ClusterRequest, reply: &mut Reply) {
    let Some(bus) = node.bus.get() else {
        return fail(node, client, reply, "ERR This instance has cluster support disabled");
    };
    let bus = &bus.door(client.executing.is_some());
    let keys = SlotCounts(&node.shared.keyspace);
    let result = match request {
        ClusterRequest::Meet { ip, port, bus_port } => {
            let bus_port = bus_port
                .or(port.checked_add(10_000))
                .ok_or_else(|| format!("ERR Invalid node address specified: {ip}:{port}"));
            bus_port.and_then(|bus_port| bus.admin(|s, now| s.meet(now, &ip, port, bus_port)))
        }
        ClusterRequest::Forget(id) => with_id(bus, &id, crate::cluster::state::ClusterState::forget),
        ClusterRequest::Replicate(id) => with_id(bus, &id, |s, now, id| s.replicate(now, id, &keys)),
        ClusterRequest::Failover(how) => bus.admin(|s, now| s.failover(now, mode(how))),
        ClusterRequest::Reset { hard } => bus.admin(|s, now| s.reset(now, hard, &keys)),
        ClusterRequest::Slots(SlotChange::Add, slots) => bus.admin(|s, now| s.add_slots(now, &slots)),
        ClusterRequest::Slots(SlotChange::Delete, slots) => bus.admin(|s, now| s.del_slots(now, &slots)),
        ClusterRequest::FlushSlots => bus.admin(|s, now| s.flush_slots(now, &keys)),
        ClusterRequest::SetSlot(wanted) => set_slot(bus, wanted, &keys),
        ClusterRequest::SetConfigEpoch(epoch) => bus.admin(|s, now| s.set_config_epoch(now, epoch)),
        ClusterRequest::SaveConfig => {
            bus.admin(crate::cluster::state::ClusterState::save_config);
            Ok(())
        }
        ClusterRequest::BumpEpoch => {
            let (bumped, epoch) = bus.admin(crate::cluster::state::ClusterState::bump_epoch);
            return reply.simple(&format!("{} {epoch}", if bumped { "BUMPED" } else { "STILL" }));
        }
        ClusterRequest::CountFailureReports(id) => {
            match with_id(bus, &id, crate::cluster::state::ClusterState::count_failure_reports) {
                Ok(n) => return reply.int(n as i64),
                Err(e) => Err(e),
            }
        }
        ClusterRequest::Replicas(id) => match with_id(bus, &id, |s, _, id| s.replicas_lines(id)) {
            Ok(lines) => return bulk_lines(&lines, reply),
            Err(e) => Err(e),
        },
        show => return self::show(bus, &show, reply),
    };
    match result {
        Ok(()) => reply.ok(),
        Err(text) => fail(node, client, reply, &text),
    }
}

fn mode(how: Failover) -> FailoverMode {
    match how {
        Failover::Graceful => FailoverMode::Default,
        Failover::Force => FailoverMode::Force,
        Failover::Takeover => FailoverMode::Takeover,
    }
}

/// Calls with a node id, or refuses what is none.
fn with_id<R>(
    bus: &Door<'_>,
    id: &[u8],
    call: impl FnOnce(&mut ClusterState, Now, &NodeId) -> Result<R, String>,
) -> Result<R, String> {
    match NodeId::parse(id) {
        Some(id) => bus.admin(|s, now| call(s, now, &id)),
        None => Err(format!("ERR Unknown node {}", String::from_utf8_lossy(id))),
    }
}

fn set_slot(
    bus: &Door<'_>,
    wanted: Result<(u16, SlotMove), Fail>,
    keys: &SlotCounts<'_>,
) -> Result<(), String> {
    bus.admin(|s, now| {
        s.check_may_move()?;
        let (slot, how) = wanted.map_err(|fail| fail.to_string())?;
        match how {
            SlotMove::Stable => s.set_slot_stable(now, slot),
            SlotMove::Migrating(id) => s.set_slot_migrating(now, slot, &id),
            SlotMove::Importing(id) => s.set_slot_importing(now, slot, &id),
            SlotMove::Node(id) => s.set_slot_node(now, slot, &id, keys),
        }
    })
}

fn show(bus: &Bus, what: &ClusterRequest, reply: &mut Reply) {
    match what {
        ClusterRequest::Info => {
            reply.verbatim("txt", &bus.read(ClusterState::info).text(bus.links_over_limit()));
        }
        ClusterRequest::Nodes => reply.verbatim("txt", &bus.read(ClusterState::nodes_text)),
        ClusterRequest::MyId => reply.bulk_str(bus.read(ClusterState::my_id).as_str()),
        ClusterRequest::MyShardId => reply.bulk_str(bus.read(ClusterState::my_shard_id).as_str()),
        ClusterRequest::SlotMap => slots(bus, reply),
        ClusterRequest::Shards => {
            let (shards, endpoint) = bus.read(|s| (s.shards(), s.config().preferred_endpoint));
            reply.array(shards.len());
            for shard in &shards {
                self::shard(shard, endpoint, reply);
            }
        }
        _ => links(bus, reply),
    }
}

fn bulk_lines(lines: &[String], reply: &mut Reply) {
    reply.array(lines.len());
    for line in lines {
        reply.bulk_str(line);
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

fn slots(bus: &Bus, reply: &mut Reply) {
    let (ranges, preferred) = bus.read(|s| (s.slot_ranges(), s.config().preferred_endpoint));
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
            reply.int(i64::from(node.address.port));
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
}

fn shard(shard: &Shard, preferred: Endpoint, reply: &mut Reply) {
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
        reply.map(7 + usize::from(named));
        reply.bulk_str("id");
        reply.bulk_str(node.id.as_str());
        reply.bulk_str("port");
        reply.int(i64::from(node.address.port));
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

fn links(bus: &Bus, reply: &mut Reply) {
    let links = bus.link_infos();
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
}
