//! What directives mean for the parts of a node.

use std::sync::atomic::Ordering;
use std::thread;

use crate::base::collation::Collation;
use crate::config::Config;
use crate::keyspace::lazy::{Cause, Lazy};
use crate::keyspace::usage::Usage;
use crate::server::node::Node;
use crate::value::Limits;

/// How many workers there are: `io-threads`, or as many as there are cores.
pub fn workers(config: &Config) -> usize {
    match config.io_threads as usize {
        0 => thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// Descriptors that the server needs for itself beside Redis's reserve: event queues and wakers.
pub fn own_files(config: &Config) -> u64 {
    2 * (workers(config) as u64 + 1) + 8
}

/// From which time on calls are noted, and whether their times are counted in histograms.
pub fn configure_observers(node: &Node, config: &Config) {
    node.records.latency.set_threshold(config.latency_monitor_threshold);
    let slow =
        u64::try_from(config.slowlog_log_slower_than).map_or(u64::MAX, |micros| micros.saturating_mul(1000));
    let late = match config.latency_monitor_threshold {
        0 => u64::MAX,
        millis => millis.saturating_mul(1_000_000),
    };
    node.shared.keyspace.tracking.set_most(config.tracking_table_max_keys);
    let observers = &node.shared.observers;
    observers.long_from.store(slow.min(late), Ordering::Relaxed);
    observers.histograms.store(config.latency_tracking, Ordering::Relaxed);
}

/// How many keys one command may evict: a hundred for each step of the tenacity, all at its end.
pub fn eviction_batch(config: &Config) -> u64 {
    match config.maxmemory_eviction_tenacity {
        100.. => u64::MAX,
        tenacity => u64::from(tenacity) * 100 + 1,
    }
}

/// How uses of keys are remembered. `now`: [`Node::steady_s`].
pub fn configure_usage(usage: &Usage, config: &Config, now: u64) {
    let limited = config.maxmemory > 0;
    usage.configure(config.maxmemory_policy, limited, config.lfu_log_factor, config.lfu_decay_time);
    usage.set_clock(now);
}

/// Which deletions are lazy.
pub fn configure_deletions(lazy: &Lazy, config: &Config) {
    lazy.configure(&[
        (Cause::User, config.lazyfree_lazy_user_del),
        (Cause::Expiry, config.lazyfree_lazy_expire),
        (Cause::Eviction, config.lazyfree_lazy_eviction),
        (Cause::Server, config.lazyfree_lazy_server_del),
        (Cause::Flush, config.lazyfree_lazy_user_flush),
    ]);
}

/// The order of `locale-collate`; `None` if the system has no such locale. An environment that names one which
/// is not installed means the order of bytes.
pub fn collation(config: &Config) -> Option<Collation> {
    let name = &config.locale_collate;
    Collation::of(name).or_else(|| name.is_empty().then(Collation::default))
}

/// The encoding thresholds of a configuration.
pub fn limits(config: &Config, hash_seed: u64) -> Limits {
    Limits {
        hash_max_listpack_entries: config.hash_max_listpack_entries as usize,
        hash_max_listpack_value: config.hash_max_listpack_value as usize,
        list_max_listpack_size: config.list_max_listpack_size,
        list_packed_threshold: usize::MAX,
        list_compress_depth: config.list_compress_depth as usize,
        set_max_intset_entries: config.set_max_intset_entries as usize,
        set_max_listpack_entries: config.set_max_listpack_entries as usize,
        set_max_listpack_value: config.set_max_listpack_value as usize,
        zset_max_listpack_entries: config.zset_max_listpack_entries as usize,
        zset_max_listpack_value: config.zset_max_listpack_value as usize,
        stream_node_max_bytes: config.stream_node_max_bytes as usize,
        stream_node_max_entries: config.stream_node_max_entries,
        hll_sparse_max_bytes: config.hll_sparse_max_bytes as usize,
        compress_payloads: config.rdbcompression,
        verify_checksums: true,
        max_string: config.proto_max_bulk_len as usize,
        collation: collation(config).unwrap_or_default(),
        hash_seed,
    }
}
