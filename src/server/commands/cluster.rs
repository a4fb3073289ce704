//! The cluster family: CLUSTER and its subcommands, ASKING, READONLY, READWRITE. Asks of the state machine,
//! and its answers as replies.

use std::ops::RangeInclusive;

use crate::acl::category;
use crate::base::crc16::{SLOTS, key_slot};
use crate::cluster::report::{NodeInfo, Shard};
use crate::cluster::{ClusterState, Endpoint, FailoverMode, Keys, NodeId, Now};
use crate::command::help::help;
use crate::command::spec::{Group::Cluster, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result, int, is, shown};
use crate::keyspace::Keyspace;
use crate::resp::Reply;
use crate::server::commands::node;
use crate::server::control::bus::Door;

pub const COMMANDS: &[Command] = &[
    Command::container("cluster", Cluster, CLUSTER).doc("3.0.0", "", "Commands about the cluster."),
    Command::new("asking", 1, Cluster, asking)
        .flags(FAST | KEEPS_ASKING)
        .categories(category::CONNECTION)
        .complexity("O(1)")
        .doc("3.0.0", "", "Lets the next command use a slot that is being imported."),
    Command::new("readonly", 1, Cluster, readonly)
        .flags(LOADING | STALE | FAST)
        .categories(category::CONNECTION)
        .complexity("O(1)")
        .doc("3.0.0", "", "Lets the connection read from a replica."),
    Command::new("readwrite", 1, Cluster, readwrite)
        .flags(LOADING | STALE | FAST)
        .categories(category::CONNECTION)
        .complexity("O(1)")
        .doc("3.0.0", "", "Ends READONLY."),
];

const SHOWS: Flags = LOADING | STALE;
const CHANGES: Flags = ADMIN | NO_ASYNC_LOADING | STALE;

const CLUSTER: &[Command] = &[
    Command::new("addslots", -3, Cluster, add_slots)
        .flags(CHANGES)
        .complexity("O(N) where N is the number of slots")
        .doc("3.0.0", "slot ...", "Assigns slots to this node."),
    Command::new("addslotsrange", -4, Cluster, add_slot_ranges)
        .flags(CHANGES)
        .complexity("O(N) where N is the number of slots")
        .doc("7.0.0", "range=(start-slot end-slot) ...", "Assigns ranges of slots to this node."),
    Command::new("bumpepoch", 2, Cluster, bump_epoch)
        .flags(CHANGES)
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("3.0.0", "", "Raises the configuration epoch of this node."),
    Command::new("count-failure-reports", 3, Cluster, count_failure_reports)
        .flags(ADMIN | STALE)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of reports")
        .doc("3.0.0", "node-id", "Counts the nodes that report another one as failing."),
    Command::new("countkeysinslot", 3, Cluster, count_keys).flags(STALE).complexity("O(1)").doc(
        "3.0.0",
        "slot",
        "Counts the keys of a slot.",
    ),
    Command::new("delslots", -3, Cluster, del_slots)
        .flags(CHANGES)
        .complexity("O(N) where N is the number of slots")
        .doc("3.0.0", "slot ...", "Makes slots unassigned, as this node knows."),
    Command::new("delslotsrange", -4, Cluster, del_slot_ranges)
        .flags(CHANGES)
        .complexity("O(N) where N is the number of slots")
        .doc(
            "7.0.0",
            "range=(start-slot end-slot) ...",
            "Makes ranges of slots unassigned, as this node knows.",
        ),
    Command::new("failover", -2, Cluster, failover).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "[options=<FORCE | TAKEOVER>]",
        "Makes this replica take over from its primary.",
    ),
    Command::new("flushslots", 2, Cluster, flush_slots).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "",
        "Makes all slots of this node unassigned.",
    ),
    Command::new("forget", 3, Cluster, forget).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "node-id",
        "Removes a node from those that this one knows.",
    ),
    Command::new("getkeysinslot", 4, Cluster, keys_in_slot)
        .flags(STALE | LOCK_ALL)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of keys asked for")
        .doc("3.0.0", "slot count", "Returns names of keys of a slot."),
    Command::new("help", 2, Cluster, cluster_help).flags(SHOWS).complexity("O(1)").doc(
        "5.0.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("info", 2, Cluster, info)
        .flags(STALE)
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("3.0.0", "", "Describes the state of the cluster."),
    Command::new("keyslot", 3, Cluster, slot_of_key)
        .flags(STALE)
        .complexity("O(N) where N is the length of the key")
        .doc("3.0.0", "key:string", "Returns the slot of a key."),
    Command::new("links", 2, Cluster, links)
        .flags(STALE)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of nodes")
        .doc("7.0.0", "", "Lists the connections to other nodes."),
    Command::new("meet", -4, Cluster, meet)
        .flags(CHANGES)
        .complexity("O(1)")
        .history(&[("4.0.0", "The argument for the port of the bus.")])
        .doc("3.0.0", "ip port [cluster-bus-port@4.0.0]", "Makes this node know another one."),
    Command::new("myid", 2, Cluster, my_id).flags(STALE).complexity("O(1)").doc(
        "3.0.0",
        "",
        "Returns the id of this node.",
    ),
    Command::new("myshardid", 2, Cluster, my_shard_id)
        .flags(STALE)
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("7.2.0", "", "Returns the id of this node's shard."),
    Command::new("nodes", 2, Cluster, nodes)
        .flags(STALE)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of nodes")
        .doc("3.0.0", "", "Describes all nodes as this one sees them."),
    Command::new("replicas", 3, Cluster, replicas)
        .flags(ADMIN | STALE)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of replicas")
        .doc("5.0.0", "node-id", "Lists the replicas of a primary."),
    Command::new("replicate", 3, Cluster, replicate).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "node-id",
        "Makes this node a replica of a primary.",
    ),
    Command::new("reset", -2, Cluster, reset)
        .flags(ADMIN | STALE | NOSCRIPT)
        .complexity("O(N) where N is the number of nodes and, of a replica, of its keys")
        .doc("3.0.0", "[reset-type=<HARD | SOFT>]", "Makes this node forget the cluster."),
    Command::new("saveconfig", 2, Cluster, save_config).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "",
        "Writes the cluster's configuration file.",
    ),
    Command::new("set-config-epoch", 3, Cluster, set_config_epoch).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "config-epoch",
        "Sets the configuration epoch of a new node.",
    ),
    Command::new("setslot", -4, Cluster, set_slot).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "slot subcommand=<IMPORTING importing~node-id | MIGRATING migrating~node-id | \
             NODE node~node-id | STABLE>",
        "Begins, ends or settles the move of a slot.",
    ),
    Command::new("shards", 2, Cluster, shards)
        .flags(LOADING | STALE)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is the number of nodes")
        .doc("7.0.0", "", "Lists the shards with their slots and nodes."),
    Command::new("slaves", 3, Cluster, replicas)
        .flags(ADMIN | STALE)
        .tips(&["nondeterministic_output"])
        .deprecated("5.0.0", "`CLUSTER REPLICAS`")
        .complexity("O(N) where N is the number of replicas")
        .doc("3.0.0", "node-id", "Lists the replicas of a primary, by the old name."),
    Command::new("slots", 2, Cluster, slots)
        .flags(LOADING | STALE)
        .tips(&["nondeterministic_output"])
        .deprecated("7.0.0", "`CLUSTER SHARDS`")
        .complexity("O(N) where N is the number of ranges")
        .history(&[("4.0.0", "The ids of nodes."), ("7.0.0", "More about the addresses of nodes.")])
        .doc("3.0.0", "", "Lists the ranges of slots with their nodes."),
];

const DISABLED: CommandError = CommandError::text("ERR This instance has cluster support disabled");

/// The bus; without one, that is the answer, whatever the arguments are.
fn bus<'c>(ctx: &Ctx<'c, '_, '_>) -> Result<Door<'c>> {
    let bus = node(ctx).peers.bus.get().ok_or(DISABLED)?;
    Ok(bus.door(ctx.client.executing.is_some()))
}

fn clustered(ctx: &Ctx<'_, '_, '_>) -> Result<()> {
    if ctx.clustered { Ok(()) } else { Err(DISABLED) }
}

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

/// The keys of the node that asks.
fn keys<'c>(ctx: &Ctx<'c, '_, '_>) -> SlotCounts<'c> {
    SlotCounts(&node(ctx).shared.keyspace)
}

fn asking(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    ctx.client.set_asking(true);
    ctx.reply.ok();
    DONE
}

fn readonly(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    ctx.client.readonly = true;
    ctx.client.version += 1;
    ctx.reply.ok();
    DONE
}

fn readwrite(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    ctx.client.readonly = false;
    ctx.client.version += 1;
    ctx.reply.ok();
    DONE
}

fn cluster_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    help(ctx.reply, "cluster", CLUSTER);
    DONE
}

fn slot(arg: &[u8]) -> Result<u16> {
    match int(arg) {
        Ok(n) if (0..SLOTS as i64).contains(&n) => Ok(n as u16),
        _ => Err(CommandError::text("ERR Invalid or out of range slot")),
    }
}

/// A slot to look at; a number that is none is `invalid`.
fn slot_in(arg: &[u8], invalid: &'static str) -> Result<u16> {
    let n = int(arg)?;
    u16::try_from(n).ok().filter(|n| usize::from(*n) < SLOTS).ok_or(CommandError::text(invalid))
}

fn slot_list(args: &[&[u8]]) -> Result<Vec<u16>> {
    args.iter().map(|a| slot(a)).collect()
}

/// The slots of the ranges in front of the first one that is no range. Redis checks the slots of those before it
/// reports that one.
fn ranges(ctx: &Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<(Vec<u16>, Result)> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(format!("cluster|{}", ctx.command.name)));
    }
    let mut slots = Vec::new();
    for pair in args.chunks_exact(2) {
        match range(pair[0], pair[1]) {
            Ok(range) => slots.extend(range),
            Err(error) => return Ok((slots, Err(error))),
        }
    }
    Ok((slots, DONE))
}

fn range(start: &[u8], end: &[u8]) -> Result<RangeInclusive<u16>> {
    let (start, end) = (slot(start)?, slot(end)?);
    if start > end {
        return Err(CommandError::owned(format!(
            "ERR start slot number {start} is greater than end slot number {end}"
        )));
    }
    Ok(start..=end)
}

fn add_slots(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let slots = slot_list(&args[2..])?;
    bus.admin(|s, now| s.add_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

fn add_slot_ranges(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let (slots, rest) = ranges(ctx, &args[2..])?;
    bus.admin(|s, _| s.check_free(&slots))?;
    rest?;
    bus.admin(|s, now| s.add_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

fn del_slots(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let slots = slot_list(&args[2..])?;
    bus.admin(|s, now| s.del_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

fn del_slot_ranges(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let (slots, rest) = ranges(ctx, &args[2..])?;
    bus.admin(|s, _| s.check_assigned(&slots))?;
    rest?;
    bus.admin(|s, now| s.del_slots(now, &slots))?;
    ctx.reply.ok();
    DONE
}

fn flush_slots(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let keys = keys(ctx);
    bus(ctx)?.admin(|s, now| s.flush_slots(now, &keys))?;
    ctx.reply.ok();
    DONE
}

fn bump_epoch(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let (bumped, epoch) = bus(ctx)?.admin(ClusterState::bump_epoch);
    ctx.reply.simple(&format!("{} {epoch}", if bumped { "BUMPED" } else { "STILL" }));
    DONE
}

fn count_failure_reports(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let reports = with_id(&bus(ctx)?, args[2], ClusterState::count_failure_reports)?;
    ctx.reply.int(reports as i64);
    DONE
}

fn count_keys(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let slot = slot_in(args[2], "ERR Invalid slot")?;
    ctx.reply.int(ctx.db.keyspace().slot_len(0, slot) as i64);
    DONE
}

fn keys_in_slot(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    const INVALID: &str = "ERR Invalid slot or number of keys";
    let (slot, max) = (slot_in(args[2], INVALID), int(args[3]));
    let Ok(max) = usize::try_from(max?) else { return Err(CommandError::text(INVALID)) };
    let slot = slot?;
    let mut keys = Vec::new();
    ctx.db.for_each_in_slot(slot, |e| {
        if keys.len() < max {
            keys.push(e.key().to_vec());
        }
    });
    ctx.reply.array(keys.len());
    for key in &keys {
        ctx.reply.bulk(key);
    }
    DONE
}

fn slot_of_key(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    ctx.reply.int(i64::from(key_slot(args[2])));
    DONE
}

fn failover(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let mode = match args[2..] {
        [] => FailoverMode::Default,
        [w] if is(w, "force") => FailoverMode::Force,
        [w] if is(w, "takeover") => FailoverMode::Takeover,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(unknown_form(args)),
    };
    bus.admin(|s, now| s.failover(now, mode))?;
    ctx.reply.ok();
    DONE
}

fn forget(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    with_id(&bus(ctx)?, args[2], ClusterState::forget)?;
    ctx.reply.ok();
    DONE
}

fn replicate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let keys = keys(ctx);
    with_id(&bus(ctx)?, args[2], |s, now, id| s.replicate(now, id, &keys))?;
    ctx.reply.ok();
    DONE
}

fn replicas(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let tls = ctx.client.tls;
    let lines = with_id(&bus(ctx)?, args[2], |s, _, id| s.replicas_lines(id, tls))?;
    ctx.reply.array(lines.len());
    for line in &lines {
        ctx.reply.bulk_str(line);
    }
    DONE
}

fn info(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    ctx.reply.verbatim("txt", &bus.read(ClusterState::info).text(bus.links_over_limit()));
    DONE
}

fn my_id(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.bulk_str(bus(ctx)?.read(ClusterState::my_id).as_str());
    DONE
}

fn my_shard_id(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.bulk_str(bus(ctx)?.read(ClusterState::my_shard_id).as_str());
    DONE
}

fn nodes(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let tls = ctx.client.tls;
    ctx.reply.verbatim("txt", &bus(ctx)?.read(|s| s.nodes_text(tls)));
    DONE
}

fn save_config(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    bus(ctx)?.admin(ClusterState::save_config);
    ctx.reply.ok();
    DONE
}

fn meet(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let cluster = bus(ctx)?;
    let text = |at: usize| String::from_utf8_lossy(args[at]).into_owned();
    if args.len() > 5 {
        return Err(unknown_form(args));
    }
    let invalid =
        || CommandError::owned(format!("ERR Invalid node address specified: {}:{}", text(2), text(3)));
    let port = |at: usize, what: &str| match int(args[at]) {
        Ok(n @ 1..=65535) => Ok(n as u16),
        Ok(_) => Err(invalid()),
        Err(_) => Err(CommandError::owned(format!("ERR Invalid {what} port specified: {}", text(at)))),
    };
    let base = port(3, "base")?;
    let bus_port = match args.len() {
        5 => port(4, "bus")?,
        _ => base.checked_add(10_000).ok_or_else(invalid)?,
    };
    cluster.admin(|s, now| s.meet(now, &text(2), base, bus_port))?;
    ctx.reply.ok();
    DONE
}

fn reset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let hard = match args[2..] {
        [] => false,
        [w] if is(w, "hard") => true,
        [w] if is(w, "soft") => false,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(unknown_form(args)),
    };
    let keys = keys(ctx);
    bus.admin(|s, now| s.reset(now, hard, &keys))?;
    ctx.reply.ok();
    DONE
}

fn set_config_epoch(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bus = bus(ctx)?;
    let epoch = int(args[2])?;
    bus.admin(|s, now| s.set_config_epoch(now, epoch))?;
    ctx.reply.ok();
    DONE
}

/// CLUSTER SETSLOT, read.
enum SlotMove<'a> {
    Migrating(&'a [u8]),
    Importing(&'a [u8]),
    Node(&'a [u8]),
    Stable,
}

fn set_slot(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let keys = keys(ctx);
    bus(ctx)?.admin(|s, now| {
        // A replica refuses before it looks at mistakes in the arguments.
        s.check_may_move()?;
        let (slot, how) = slot_move(args)?;
        match how {
            SlotMove::Stable => s.set_slot_stable(now, slot),
            SlotMove::Migrating(id) => s.set_slot_migrating(now, slot, id),
            SlotMove::Importing(id) => s.set_slot_importing(now, slot, id),
            SlotMove::Node(id) => s.set_slot_node(now, slot, id, &keys),
        }
        .map_err(CommandError::owned)
    })?;
    ctx.reply.ok();
    DONE
}

fn slot_move<'a>(args: &[&'a [u8]]) -> Result<(u16, SlotMove<'a>)> {
    let slot = slot(args[2])?;
    let how = match args[3..] {
        [word, id] if is(word, "migrating") => SlotMove::Migrating(id),
        [word, id] if is(word, "importing") => SlotMove::Importing(id),
        [word, id] if is(word, "node") => SlotMove::Node(id),
        [word] if is(word, "stable") => SlotMove::Stable,
        _ => {
            return Err(CommandError::text(
                "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP",
            ));
        }
    };
    Ok((slot, how))
}

/// More arguments than any form of the subcommand has.
fn unknown_form(args: &[&[u8]]) -> CommandError {
    let sub = shown(args[1]);
    CommandError::owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try CLUSTER HELP."
    ))
}

/// Calls with a node id, or refuses what is none.
fn with_id<R>(
    bus: &Door<'_>,
    id: &[u8],
    call: impl FnOnce(&mut ClusterState, Now, &NodeId) -> std::result::Result<R, String>,
) -> Result<R> {
    match NodeId::parse(id) {
        Some(id) => Ok(bus.admin(|s, now| call(s, now, &id))?),
        None => Err(CommandError::owned(format!("ERR Unknown node {}", shown(id)))),
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

fn slots(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
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

fn shards(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
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

fn links(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
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
