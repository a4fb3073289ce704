//! The cluster family: CLUSTER and its subcommands, ASKING, READONLY, READWRITE. Asks of the state machine,
//! and its answers as replies.
//!
//! | file | concept |
//! |---|---|
//! | `slots` | who has which slots, how they move, and the keys in them |
//! | `map` | the cluster as clients and tools are shown it |

mod map;
mod slots;

use crate::acl::category;
use crate::cluster::{ClusterState, FailoverMode, Keys, NodeId, Now};
use crate::command::help::help;
use crate::command::spec::{Group::Cluster, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result, int, is, shown};
use crate::keyspace::Keyspace;
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
    Command::new("addslots", -3, Cluster, slots::add_slots)
        .flags(CHANGES)
        .complexity("O(N) where N is the number of slots")
        .doc("3.0.0", "slot ...", "Assigns slots to this node."),
    Command::new("addslotsrange", -4, Cluster, slots::add_slot_ranges)
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
    Command::new("countkeysinslot", 3, Cluster, slots::count_keys).flags(STALE).complexity("O(1)").doc(
        "3.0.0",
        "slot",
        "Counts the keys of a slot.",
    ),
    Command::new("delslots", -3, Cluster, slots::del_slots)
        .flags(CHANGES)
        .complexity("O(N) where N is the number of slots")
        .doc("3.0.0", "slot ...", "Makes slots unassigned, as this node knows."),
    Command::new("delslotsrange", -4, Cluster, slots::del_slot_ranges)
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
    Command::new("flushslots", 2, Cluster, slots::flush_slots).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "",
        "Makes all slots of this node unassigned.",
    ),
    Command::new("forget", 3, Cluster, forget).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "node-id",
        "Removes a node from those that this one knows.",
    ),
    Command::new("getkeysinslot", 4, Cluster, slots::keys_in_slot)
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
    Command::new("keyslot", 3, Cluster, slots::slot_of_key)
        .flags(STALE)
        .complexity("O(N) where N is the length of the key")
        .doc("3.0.0", "key:string", "Returns the slot of a key."),
    Command::new("links", 2, Cluster, map::links)
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
    Command::new("setslot", -4, Cluster, slots::set_slot).flags(CHANGES).complexity("O(1)").doc(
        "3.0.0",
        "slot subcommand=<IMPORTING importing~node-id | MIGRATING migrating~node-id | \
             NODE node~node-id | STABLE>",
        "Begins, ends or settles the move of a slot.",
    ),
    Command::new("shards", 2, Cluster, map::shards)
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
    Command::new("slots", 2, Cluster, map::slots)
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
