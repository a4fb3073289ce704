//! The section of counters.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pubsub::Space;
use crate::server::node::Node;
use crate::server::node::fields::{Fields, Value};

pub fn write(node: &Node, out: &mut Fields) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let rates = node.records.counters.rates.lock();
    let keys = &node.shared.keyspace.stats;
    let calls: u64 = node.records.counters.commands.iter().map(|s| s.calls()).sum();
    let hits: u64 = node.records.counters.commands.iter().map(|s| get(&s.hits)).sum();
    let misses: u64 = node.records.counters.commands.iter().map(|s| get(&s.misses)).sum();
    let errors: u64 = node.records.counters.commands.iter().map(|s| get(&s.error_replies)).sum();
    let command_us: u64 = node.records.counters.commands.iter().map(|s| s.nanos()).sum::<u64>() / 1000;
    let kilo = |rate: u64| Value::Decimal(rate as f64 / 1024.0, 2);
    out.field("total_connections_received", get(&node.people.clients.accepted));
    out.field("total_commands_processed", calls);
    out.field("instantaneous_ops_per_sec", rates.commands.per_second());
    out.field("total_net_input_bytes", get(&node.records.counters.net.input_bytes));
    out.field("total_net_output_bytes", get(&node.records.counters.net.output_bytes));
    crate::server::commands::info::replication::write_traffic(node, out);
    out.field("instantaneous_input_kbps", kilo(rates.input_bytes.per_second()));
    out.field("instantaneous_output_kbps", kilo(rates.output_bytes.per_second()));
    out.field("instantaneous_input_repl_kbps", kilo(rates.repl_input_bytes.per_second()));
    out.field("instantaneous_output_repl_kbps", kilo(rates.repl_output_bytes.per_second()));
    out.field("rejected_connections", get(&node.people.clients.rejected));
    crate::server::commands::info::replication::write_syncs(node, out);
    out.field("expired_subkeys", get(&keys.expired_fields));
    out.field("expired_keys", get(&keys.expired_keys));
    out.field("expired_stale_perc", Value::Decimal(node.records.counters.expiry.stale_percent(), 2));
    out.field("expired_time_cap_reached_count", node.records.counters.expiry.capped());
    out.field("expire_cycle_cpu_milliseconds", node.records.counters.expiry.milliseconds());
    out.field("evicted_keys", get(&keys.evicted_keys));
    out.field("evicted_clients", get(&node.people.clients.evicted));
    out.field("evicted_scripts", get(&node.shared.scripts.evicted));
    let (total, current) = node.records.counters.exceeded.milliseconds(node.mono_ms());
    out.field("total_eviction_exceeded_time", total);
    out.field("current_eviction_exceeded_time", current);
    out.field("keyspace_hits", hits);
    out.field("keyspace_misses", misses);
    out.field("pubsub_channels", node.people.pubsub.channel_count(Space::Global));
    out.field("pubsub_patterns", node.people.pubsub.pattern_count());
    out.field("pubsubshard_channels", node.people.pubsub.channel_count(Space::Shard));
    out.field("latest_fork_usec", 0);
    out.field("total_forks", 0);
    out.field("migrate_cached_sockets", node.peers.couriers.sockets.load(Ordering::Relaxed));
    out.field("slave_expires_tracked_keys", keys.own_volatile_keys.load(Ordering::Relaxed));
    out.field("active_defrag_hits", 0);
    out.field("active_defrag_misses", 0);
    out.field("active_defrag_key_hits", 0);
    out.field("active_defrag_key_misses", 0);
    out.field("total_active_defrag_time", 0);
    out.field("current_active_defrag_time", 0);
    let tracking = &node.shared.keyspace.tracking;
    out.field("tracking_total_keys", tracking.keys());
    out.field("tracking_total_items", tracking.items());
    out.field("tracking_total_prefixes", node.people.trackers.prefixes());
    out.field("unexpected_error_replies", get(&node.records.counters.net.unexpected_errors));
    out.field("total_error_replies", errors);
    out.field("dump_payload_sanitizations", 0);
    out.field("total_reads_processed", get(&node.records.counters.net.reads));
    out.field("total_writes_processed", get(&node.records.counters.net.writes));
    // With one worker nothing is read or written beside it.
    let threaded = u64::from(node.life.threads.workers.get().map_or(1, Vec::len) > 1);
    out.field("io_threaded_reads_processed", threaded * get(&node.records.counters.net.reads));
    out.field("io_threaded_writes_processed", threaded * get(&node.records.counters.net.writes));
    out.field("client_query_buffer_limit_disconnections", get(&node.records.counters.net.query_limit_closed));
    out.field(
        "client_output_buffer_limit_disconnections",
        get(&node.records.counters.net.output_limit_closed),
    );
    out.field("reply_buffer_shrinks", get(&node.records.counters.net.reply_shrinks));
    out.field("reply_buffer_expands", get(&node.records.counters.net.reply_expands));
    out.field("eventloop_cycles", get(&node.records.counters.net.rounds));
    out.field("eventloop_duration_sum", crate::server::commands::info::cpu::workers_us().max(command_us));
    out.field("eventloop_duration_cmd_sum", command_us);
    out.field("instantaneous_eventloop_cycles_per_sec", rates.rounds.per_second());
    // Of the commands alone: the rest is not measured from moment to moment.
    let busy_us = rates.command_nanos.per_second() / 1000;
    let each = busy_us.checked_div(rates.rounds.per_second()).unwrap_or(0);
    out.field("instantaneous_eventloop_duration_usec", each);
    for (name, count) in node.people.denials.counts() {
        out.field(name, count);
    }
}
