//! INFO replication, ROLE, and what the cluster asks.

use std::sync::atomic::Ordering;

use crate::base::time::MonoMs;
use crate::repl::failover::Failover;
use crate::resp::Reply;
use crate::server::control::replication::Replication;
use crate::server::node::Node;
use crate::server::node::fields::Fields;

/// What the cluster must know of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The end of the log of a primary; what a replica has applied.
    pub offset: u64,
    /// When our present primary last sent something; `None`: never, since the node follows it.
    pub last_io: Option<MonoMs>,
    /// The link to the primary is up and its stream is applied.
    pub link_up: bool,
}

impl Replication {
    /// Cheap, and without locks.
    pub fn facts(&self, node: &Node) -> Facts {
        Facts {
            offset: node.shared.keyspace.log.end(),
            last_io: self.last_io.load(Ordering::Relaxed).checked_sub(1),
            link_up: self.link_up.load(Ordering::Acquire),
        }
    }

    /// Appends the fields of INFO replication.
    pub fn write_section(&self, node: &Node, out: &mut Fields) {
        let (now, config, log) = (node.mono_ms(), node.config.load(), &node.shared.keyspace.log);
        let mut state = self.lock();
        if let Some(upstream) = &mut state.upstream {
            out.field("role", "slave");
            upstream.replica.applied(log.end());
            let mut text = String::new();
            upstream.replica.write_info(now, &mut text);
            out.lines(&text);
            out.field("slave_priority", config.replica_priority);
            out.field("slave_read_only", u8::from(config.replica_read_only));
            out.field("replica_announced", u8::from(config.replica_announced));
        } else {
            out.field("role", "master");
        }
        out.field("connected_slaves", state.primary.connected());
        if config.min_replicas_to_write > 0 && config.min_replicas_max_lag > 0 {
            out.field("min_slaves_good_slaves", state.primary.good(now));
        }
        let mut text = String::new();
        state.primary.write_info(now, &mut text);
        out.lines(&text);
        let (start, end) = log.window();
        let (first, length) = if state.stream_kept { (start + 1, end - start) } else { (0, 0) };
        out.field("master_failover_state", Failover::state_name(state.failover.as_ref()));
        out.field("master_replid", state.history.id().as_str());
        out.field("master_replid2", state.history.second_id());
        out.field("master_repl_offset", end);
        out.field("second_repl_offset", state.history.second_offset());
        out.field("repl_backlog_active", u8::from(state.stream_kept));
        out.field("repl_backlog_size", config.repl_backlog_size);
        out.field("repl_backlog_first_byte_offset", first);
        out.field("repl_backlog_histlen", length);
    }

    /// Full synchronisations, partial ones, and requests for partial ones that were refused.
    pub fn syncs(&self) -> (u64, u64, u64) {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.sync_full), read(&self.sync_partial_ok), read(&self.sync_partial_err))
    }

    /// Bytes received from our primary, and sent to replicas.
    pub fn traffic(&self) -> (u64, u64) {
        (self.input_bytes.load(Ordering::Relaxed), self.output_bytes.load(Ordering::Relaxed))
    }
}

/// The reply to ROLE.
pub fn role(node: &Node, reply: &mut Reply) {
    let end = node.shared.keyspace.log.end();
    let mut state = node.peers.replication.lock();
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
