//! The cluster family: CLUSTER and its subcommands, ASKING, READONLY, READWRITE.

use super::ctx::{Ctx, DONE};
use super::help::help;
use super::request::{ClusterRequest, Failover, Request, SlotChange, SlotMove};
use super::spec::{Command, Group::Cluster, flags::*};
use super::{Fail, Result, int, is};
use crate::base::crc16::{SLOTS, key_slot};

pub const COMMANDS: &[Command] = &[
    Command::container("cluster", Cluster, CLUSTER).doc("3.0.0", "", "Commands about the cluster."),
    Command::new("asking", 1, Cluster, asking)
        .flags(FAST | KEEPS_ASKING)
        .categories(&["@connection"])
        .complexity("O(1)")
        .doc("3.0.0", "", "Lets the next command use a slot that is being imported."),
    Command::new("readonly", 1, Cluster, readonly)
        .flags(LOADING | STALE | FAST)
        .categories(&["@connection"])
        .complexity("O(1)")
        .doc("3.0.0", "", "Lets the connection read from a replica."),
    Command::new("readwrite", 1, Cluster, readwrite)
        .flags(LOADING | STALE | FAST)
        .categories(&["@connection"])
        .complexity("O(1)")
        .doc("3.0.0", "", "Ends READONLY."),
];

const SHOWS: Flags = LOADING | STALE;
const CHANGES: Flags = ADMIN | NO_ASYNC_LOADING | STALE;

const CLUSTER: &[Command] = &[
    row("addslots", -3, CHANGES, add_slots, "3.0.0", "slot [slot ...]", "Assigns slots to this node."),
    row(
        "addslotsrange",
        -4,
        CHANGES,
        add_slot_ranges,
        "7.0.0",
        "start-slot end-slot [start-slot end-slot ...]",
        "Assigns ranges of slots to this node.",
    ),
    row("bumpepoch", 2, CHANGES, bump_epoch, "3.0.0", "", "Raises the configuration epoch of this node."),
    row(
        "count-failure-reports",
        3,
        ADMIN | STALE,
        count_failure_reports,
        "3.0.0",
        "node-id",
        "Counts the nodes that report another one as failing.",
    ),
    row("countkeysinslot", 3, STALE, count_keys, "3.0.0", "slot", "Counts the keys of a slot."),
    row(
        "delslots",
        -3,
        CHANGES,
        del_slots,
        "3.0.0",
        "slot [slot ...]",
        "Makes slots unassigned, as this node knows.",
    ),
    row(
        "delslotsrange",
        -4,
        CHANGES,
        del_slot_ranges,
        "7.0.0",
        "start-slot end-slot [start-slot end-slot ...]",
        "Makes ranges of slots unassigned, as this node knows.",
    ),
    row(
        "failover",
        -2,
        CHANGES,
        failover,
        "3.0.0",
        "[FORCE | TAKEOVER]",
        "Makes this replica take over from its primary.",
    ),
    row("flushslots", 2, CHANGES, flush_slots, "3.0.0", "", "Makes all slots of this node unassigned."),
    row("forget", 3, CHANGES, forget, "3.0.0", "node-id", "Removes a node from those that this one knows."),
    row(
        "getkeysinslot",
        4,
        STALE | LOCK_ALL,
        keys_in_slot,
        "3.0.0",
        "slot count",
        "Returns names of keys of a slot.",
    ),
    row("help", 2, SHOWS, cluster_help, "5.0.0", "", "Lists the subcommands."),
    row("info", 2, STALE, info, "3.0.0", "", "Describes the state of the cluster."),
    row("keyslot", 3, STALE, slot_of_key, "3.0.0", "key", "Returns the slot of a key."),
    row("links", 2, STALE, links, "7.0.0", "", "Lists the connections to other nodes."),
    row(
        "meet",
        -4,
        CHANGES,
        meet,
        "3.0.0",
        "ip port [cluster-bus-port]",
        "Makes this node know another one.",
    ),
    row("myid", 2, STALE, my_id, "3.0.0", "", "Returns the id of this node."),
    row("myshardid", 2, STALE, my_shard_id, "7.2.0", "", "Returns the id of this node's shard."),
    row("nodes", 2, STALE, nodes, "3.0.0", "", "Describes all nodes as this one sees them."),
    row("replicas", 3, ADMIN | STALE, replicas, "5.0.0", "node-id", "Lists the replicas of a primary."),
    row("replicate", 3, CHANGES, replicate, "3.0.0", "node-id", "Makes this node a replica of a primary."),
    row(
        "reset",
        -2,
        ADMIN | STALE | NOSCRIPT,
        reset,
        "3.0.0",
        "[HARD | SOFT]",
        "Makes this node forget the cluster.",
    ),
    row("saveconfig", 2, CHANGES, save_config, "3.0.0", "", "Writes the cluster's configuration file."),
    row(
        "set-config-epoch",
        3,
        CHANGES,
        set_config_epoch,
        "3.0.0",
        "config-epoch",
        "Sets the configuration epoch of a new node.",
    ),
    row(
        "setslot",
        -4,
        CHANGES,
        set_slot,
        "3.0.0",
        "slot <IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>",
        "Begins, ends or settles the move of a slot.",
    ),
    row("shards", 2, LOADING | STALE, shards, "7.0.0", "", "Lists the shards with their slots and nodes."),
    row(
        "slaves",
        3,
        ADMIN | STALE,
        replicas,
        "3.0.0",
        "node-id",
        "Lists the replicas of a primary, by the old name.",
    ),
    row("slots", 2, LOADING | STALE, slots, "3.0.0", "", "Lists the ranges of slots with their nodes."),
];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: super::ctx::Handler,
    since: &'static str,
    syntax: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Cluster, run)
        .flags(flags)
        .tips(&["nondeterministic_output"])
        .complexity("O(N) where N is what the reply lists, O(1) without a list")
        .doc(since, syntax, summary)
}

fn ask(ctx: &Ctx<'_, '_, '_>, request: ClusterRequest) -> Result {
    clustered(ctx)?;
    Ctx::node(Request::Cluster(request))
}

/// Outside cluster mode that is the answer, whatever the arguments are.
fn clustered(ctx: &Ctx<'_, '_, '_>) -> Result<()> {
    if ctx.clustered { Ok(()) } else { Err(Fail::text("ERR This instance has cluster support disabled")) }
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
    help(ctx.reply, "cluster", CLUSTER);
    DONE
}

fn slot(arg: &[u8]) -> Result<u16> {
    match int(arg) {
        Ok(n) if (0..SLOTS as i64).contains(&n) => Ok(n as u16),
        _ => Err(Fail::text("ERR Invalid or out of range slot")),
    }
}

/// A slot to look at; a number that is none is `invalid`.
fn slot_in(arg: &[u8], invalid: &'static str) -> Result<u16> {
    let n = int(arg)?;
    u16::try_from(n).ok().filter(|n| usize::from(*n) < SLOTS).ok_or(Fail::text(invalid))
}

fn slot_list(args: &[&[u8]]) -> Result<Vec<u16>> {
    args.iter().map(|a| slot(a)).collect()
}

fn ranges(ctx: &Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<Vec<u16>> {
    if !args.len().is_multiple_of(2) {
        return Err(Fail::Arity(format!("cluster|{}", ctx.command.name)));
    }
    let mut slots = Vec::new();
    for pair in args.chunks_exact(2) {
        let (start, end) = (slot(pair[0])?, slot(pair[1])?);
        if start > end {
            return Err(Fail::owned(format!(
                "ERR start slot number {start} is greater than end slot number {end}"
            )));
        }
        slots.extend(start..=end);
    }
    Ok(slots)
}

fn add_slots(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let slots = slot_list(&args[2..])?;
    ask(ctx, ClusterRequest::Slots(SlotChange::Add, slots))
}

fn add_slot_ranges(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let slots = ranges(ctx, &args[2..])?;
    ask(ctx, ClusterRequest::Slots(SlotChange::Add, slots))
}

fn del_slots(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let slots = slot_list(&args[2..])?;
    ask(ctx, ClusterRequest::Slots(SlotChange::Delete, slots))
}

fn del_slot_ranges(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let slots = ranges(ctx, &args[2..])?;
    ask(ctx, ClusterRequest::Slots(SlotChange::Delete, slots))
}

fn flush_slots(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::FlushSlots)
}

fn bump_epoch(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::BumpEpoch)
}

fn count_failure_reports(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::CountFailureReports(args[2].to_vec()))
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
    let Ok(max) = usize::try_from(max?) else { return Err(Fail::text(INVALID)) };
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
    clustered(ctx)?;
    let how = match args[2..] {
        [] => Failover::Graceful,
        [w] if is(w, "force") => Failover::Force,
        [w] if is(w, "takeover") => Failover::Takeover,
        [_] => return Err(Fail::Syntax),
        _ => return Err(unknown_form(args)),
    };
    ask(ctx, ClusterRequest::Failover(how))
}

fn forget(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::Forget(args[2].to_vec()))
}

fn replicate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::Replicate(args[2].to_vec()))
}

fn replicas(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::Replicas(args[2].to_vec()))
}

fn info(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::Info)
}

fn links(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::Links)
}

fn my_id(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::MyId)
}

fn my_shard_id(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::MyShardId)
}

fn nodes(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::Nodes)
}

fn shards(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::Shards)
}

fn slots(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::SlotMap)
}

fn save_config(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::SaveConfig)
}

fn meet(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let text = |at: usize| String::from_utf8_lossy(args[at]).into_owned();
    if args.len() > 5 {
        return Err(unknown_form(args));
    }
    let port = |at: usize, what: &str| match int(args[at]) {
        Ok(n @ 1..=65535) => Ok(n as u16),
        Ok(_) => Err(Fail::owned(format!("ERR Invalid node address specified: {}:{}", text(2), text(3)))),
        Err(_) => Err(Fail::owned(format!("ERR Invalid {what} port specified: {}", text(at)))),
    };
    let base = port(3, "base")?;
    let bus = if args.len() == 5 { Some(port(4, "bus")?) } else { None };
    ask(ctx, ClusterRequest::Meet { ip: text(2), port: base, bus_port: bus })
}

fn reset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let hard = match args[2..] {
        [] => false,
        [w] if is(w, "hard") => true,
        [w] if is(w, "soft") => false,
        [_] => return Err(Fail::Syntax),
        _ => return Err(unknown_form(args)),
    };
    ask(ctx, ClusterRequest::Reset { hard })
}

fn set_config_epoch(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    clustered(ctx)?;
    let epoch = int(args[2])?;
    ask(ctx, ClusterRequest::SetConfigEpoch(epoch))
}

fn set_slot(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ask(ctx, ClusterRequest::SetSlot(slot_move(args)))
}

fn slot_move(args: &[&[u8]]) -> Result<(u16, SlotMove)> {
    let slot = slot(args[2])?;
    let how = match args[3..] {
        [word, id] if is(word, "migrating") => SlotMove::Migrating(id.to_vec()),
        [word, id] if is(word, "importing") => SlotMove::Importing(id.to_vec()),
        [word, id] if is(word, "node") => SlotMove::Node(id.to_vec()),
        [word] if is(word, "stable") => SlotMove::Stable,
        _ => {
            return Err(Fail::text(
                "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP",
            ));
        }
    };
    Ok((slot, how))
}

/// More arguments than any form of the subcommand has.
fn unknown_form(args: &[&[u8]]) -> Fail {
    let sub = String::from_utf8_lossy(args[1]);
    Fail::owned(format!("ERR unknown subcommand or wrong number of arguments for '{sub}'. Try CLUSTER HELP."))
}
