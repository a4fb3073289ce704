//! INFO replication, the counters of INFO stats, ROLE, and what the cluster asks.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::super::node::Node;
use crate::base::time::MonoMs;
use crate::resp::Reply;

/// What the cluster must know of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The end of the log of a primary; what a replica has applied.
    pub offset: u64,
    /// When our present primary last sent something; `None`: never, since the node follows it.
    pub last_io: Option<MonoMs>,
    pub link_up: bool,
}

impl Facts {
    /// Cheap, and without locks.
    pub fn of(node: &Node) -> Self {
        Self {
            offset: node.shared.keyspace.log.end(),
            last_io: node.replication.last_io.load(Ordering::Relaxed).checked_sub(1),
            link_up: node.replication.link_up.load(Ordering::Acquire),
        }
    }
}

/// Appends the section INFO replication, without its title.
pub fn write_section(node: &Node, out: &mut String) {
    let (now, config, log) = (node.mono_ms(), node.config.load(), &node.shared.keyspace.log);
    let mut state = node.replication.lock();
    let state = &mut *state;
    let mut lines = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        write!(lines, "{name}:{value}\r\n").expect("writing to a string");
    };
    line("role", &if state.upstream.is_some() { "slave" } else { "master" });
    out.push_str(&std::mem::take(&mut lines));
    if let Some(upstream) = &mut state.upstream {
        upstream.replica.applied(log.end());
        upstream.replica.write_info(now, out);
        let mut line = |name: &str, value: u32| {
            write!(out, "{name}:{value}\r\n").expect("writing to a string");
        };
        line("slave_priority", config.replica_priority);
        line("slave_read_only", config.replica_read_only.into());
        line("replica_announced", config.replica_announced.into());
    }
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        write!(out, "{name}:{value}\r\n").expect("writing to a string");
    };
    line("connected_slaves", &state.primary.connected());
    if config.min_replicas_to_write > 0 && config.min_replicas_max_lag > 0 {
        line("min_slaves_good_slaves", &state.primary.good(now));
    }
    state.primary.write_info(now, out);
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        write!(out, "{name}:{value}\r\n").expect("writing to a string");
    };
    let (start, end) = log.window();
    let (first, length) = if state.stream_kept { (start + 1, end - start) } else { (0, 0) };
    line("master_failover_state", &"no-failover");
    line("master_replid", &state.history.id());
    line("master_replid2", &state.history.second_id());
    line("master_repl_offset", &end);
    line("second_repl_offset", &state.history.second_offset());
    line("repl_backlog_active", &u8::from(state.stream_kept));
    line("repl_backlog_size", &config.repl_backlog_size);
    line("repl_backlog_first_byte_offset", &first);
    line("repl_backlog_histlen", &length);
}

/// Appends the counters that belong to INFO stats.
pub fn write_stats(node: &Node, out: &mut String) {
    let r = &node.replication;
    for (name, counter) in [
        ("sync_full", &r.sync_full),
        ("sync_partial_ok", &r.sync_partial_ok),
        ("sync_partial_err", &r.sync_partial_err),
    ] {
        write!(out, "{name}:{}\r\n", counter.load(Ordering::Relaxed)).expect("writing to a string");
    }
}

/// The reply to ROLE.
pub(super) fn role(node: &Node, reply: &mut Reply) {
    let end = node.shared.keyspace.log.end();
    let mut state = node.replication.lock();
    if let Some(upstream) = &mut state.upstream {
        let replica = &mut upstream.replica;
        replica.applied(end);
        reply.array(5);
        reply.bulk(b"slave");
        reply.bulk_str(&replica.config().host);
        reply.int(replica.config().port.into());
        reply.bulk_str(replica.role_state());
        reply.int(replica.role_offset());
        return;
    }
    let replicas = state.primary.role();
    reply.array(3);
    reply.bulk(b"master");
    reply.int(end as i64);
    reply.array(replicas.len());
    for replica in replicas {
        reply.array(3);
        reply.bulk_str(&replica.ip);
        reply.bulk_str(&replica.port.to_string());
        reply.bulk_str(&replica.offset.to_string());
    }
}
