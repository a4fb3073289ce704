//! Every directive, declared once. Names, ranges and defaults: the configuration reference of
//! Redis 7.4, checked against CONFIG GET of a running server.
//!
//! `here` and `none` say what a directive means in this server, see [`Meaning`].

use super::directive::Effect::{
    AclLog, AppendFsync, AppendOnly, Backlog, Cluster, CrashReport, Directory, Encodings, Events, Gate,
    Listeners, Locale, Log, Memory as MemoryLimit, Observers, OomScore, OpenFiles, Password, SaveFailure,
    Scripts, Title, Tls, TlsListeners,
};
use super::directive::Form::{Bool, Choice, Compound, Int, Memory, MemoryOrPercent, Octal, Secret, Text};
use super::directive::{Directive, Form, Meaning, Place};
use super::settings::{self, Settings};

/// The row called `name`, by its name or its alias, in any case of letters.
pub fn find(name: &[u8]) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|row| names(row).any(|n| name.eq_ignore_ascii_case(n.as_bytes())))
}

/// The names of a row: its own and its alias.
pub fn names(row: &Directive) -> impl Iterator<Item = &'static str> {
    std::iter::once(row.name).chain(row.alias)
}

/// The place of a field.
macro_rules! at {
    ($field:ident) => {
        Place { get: |s: &Settings| &s.$field, get_mut: |s: &mut Settings| &mut s.$field }
    };
}

const INT_MAX: i128 = i32::MAX as i128;
const INT_MIN: i128 = i32::MIN as i128;
const UINT_MAX: i128 = u32::MAX as i128;
const LONG_MAX: i128 = i64::MAX as i128;
const ULONG_MAX: i128 = u64::MAX as i128;

const fn here(name: &'static str, default: &'static str, form: Form) -> Directive {
    Directive::new(name, default, form, Meaning::Here)
}

const fn none(name: &'static str, default: &'static str, form: Form) -> Directive {
    Directive::new(name, default, form, Meaning::None)
}

/// Every directive, by subject.
#[rustfmt::skip] // one row a line
pub static DIRECTIVES: &[Directive] = &[
    // Network
    here("bind", "* -::*", Compound(at!(bind))).moves(&[Listeners, TlsListeners, Title]),
    here("bind-source-addr", "", Text(at!(bind_source_addr))).moves(&[Cluster]),
    here("port", "6379", Int(0, 65535, at!(port))).moves(&[Listeners, Cluster, Title]),
    here("tcp-backlog", "511", Int(0, INT_MAX, at!(tcp_backlog))).immutable(),
    here("unixsocket", "", Text(at!(unixsocket))).immutable(),
    here("unixsocketperm", "0", Octal(0, 0o777, at!(unixsocketperm))).immutable(),
    here("timeout", "0", Int(0, INT_MAX, at!(timeout))),
    here("tcp-keepalive", "300", Int(0, INT_MAX, at!(tcp_keepalive))),
    here("protected-mode", "yes", Bool(at!(protected_mode))),
    here("socket-mark-id", "0", Int(0, UINT_MAX, at!(socket_mark_id))).immutable(),
    // TLS
    here("tls-port", "0", Int(0, 65535, at!(tls_port))).moves(&[Tls, TlsListeners, Cluster]),
    here("tls-cert-file", "", Text(at!(tls_cert_file))).moves(&[Tls]),
    here("tls-key-file", "", Text(at!(tls_key_file))).moves(&[Tls]),
    here("tls-key-file-pass", "", Secret(at!(tls_key_file_pass))).sensitive().moves(&[Tls]),
    here("tls-client-cert-file", "", Text(at!(tls_client_cert_file))).moves(&[Tls]),
    here("tls-client-key-file", "", Text(at!(tls_client_key_file))).moves(&[Tls]),
    here("tls-client-key-file-pass", "", Secret(at!(tls_client_key_file_pass))).sensitive().moves(&[Tls]),
    here("tls-dh-params-file", "", Text(at!(tls_dh_params_file))).moves(&[Tls]),
    here("tls-ca-cert-file", "", Text(at!(tls_ca_cert_file))).moves(&[Tls]),
    here("tls-ca-cert-dir", "", Text(at!(tls_ca_cert_dir))).moves(&[Tls]),
    here("tls-auth-clients", "yes", Choice(at!(tls_auth_clients))).moves(&[Tls]),
    here("tls-replication", "no", Bool(at!(tls_replication))).moves(&[Tls, Cluster]),
    here("tls-cluster", "no", Bool(at!(tls_cluster))).moves(&[Tls, Cluster]),
    here("tls-protocols", "", Text(at!(tls_protocols))).moves(&[Tls]),
    here("tls-ciphers", "", Text(at!(tls_ciphers))).moves(&[Tls]),
    here("tls-ciphersuites", "", Text(at!(tls_ciphersuites))).moves(&[Tls]),
    here("tls-prefer-server-ciphers", "no", Bool(at!(tls_prefer_server_ciphers))).moves(&[Tls]),
    here("tls-session-caching", "yes", Bool(at!(tls_session_caching))).moves(&[Tls]),
    here("tls-session-cache-size", "20480", Int(0, INT_MAX, at!(tls_session_cache_size))).moves(&[Tls]),
    here("tls-session-cache-timeout", "300", Int(0, INT_MAX, at!(tls_session_cache_timeout))).moves(&[Tls]),
    // Process
    here("daemonize", "no", Bool(at!(daemonize))).immutable(),
    here("supervised", "no", Choice(at!(supervised))).immutable(),
    here("pidfile", "", Text(at!(pidfile))).immutable(),
    here("loglevel", "notice", Choice(at!(loglevel))).moves(&[Log]),
    here("logfile", "", Text(at!(logfile))).immutable(),
    here("log-format", "redis", Choice(at!(log_format))).moves(&[Log]),
    here("syslog-enabled", "no", Bool(at!(syslog_enabled))).immutable(),
    here("syslog-ident", "redis", Text(at!(syslog_ident))).immutable(),
    here("syslog-facility", "local0", Choice(at!(syslog_facility))).immutable(),
    here("crash-log-enabled", "yes", Bool(at!(crash_log_enabled))).moves(&[CrashReport]),
    none("crash-memcheck-enabled", "yes", Bool(at!(crash_memcheck_enabled))),
    here("use-exit-on-panic", "no", Bool(at!(use_exit_on_panic))).hidden().moves(&[CrashReport]),
    here("databases", "16", Int(1, INT_MAX, at!(databases))).immutable(),
    here("always-show-logo", "no", Bool(at!(always_show_logo))).immutable(),
    here("set-proc-title", "yes", Bool(at!(set_proc_title))).immutable(),
    here("proc-title-template", "{title} {listen-addr} {server-mode}", Text(at!(proc_title_template))).check(settings::proc_title_is_valid).moves(&[Title]),
    here("shutdown-timeout", "10", Int(0, INT_MAX, at!(shutdown_timeout))),
    here("shutdown-on-sigint", "default", Compound(at!(shutdown_on_sigint))),
    here("shutdown-on-sigterm", "default", Compound(at!(shutdown_on_sigterm))),
    here("oom-score-adj", "no", Choice(at!(oom_score_adj))).moves(&[OomScore]),
    here("oom-score-adj-values", "0 200 800", Compound(at!(oom_score_adj_values))).moves(&[OomScore]),
    none("disable-thp", "yes", Bool(at!(disable_thp))).immutable(),
    here("io-threads", "0", Int(0, 128, at!(io_threads))).immutable(),
    none("io-threads-do-reads", "no", Bool(at!(io_threads_do_reads))).immutable(),
    here("server-cpulist", "", Text(at!(server_cpulist))).alias("server_cpulist").immutable(),
    here("bio-cpulist", "", Text(at!(bio_cpulist))).alias("bio_cpulist").immutable(),
    here("aof-rewrite-cpulist", "", Text(at!(aof_rewrite_cpulist))).alias("aof_rewrite_cpulist").immutable(),
    here("bgsave-cpulist", "", Text(at!(bgsave_cpulist))).alias("bgsave_cpulist").immutable(),
    here("hz", "10", Int(0, INT_MAX, at!(hz))),
    none("dynamic-hz", "yes", Bool(at!(dynamic_hz))),
    none("ignore-warnings", "", Text(at!(ignore_warnings))),
    here("locale-collate", "", Text(at!(locale_collate))).moves(&[Locale, Encodings]),
    none("watchdog-period", "0", Int(0, INT_MAX, at!(watchdog_period))).hidden(),
    here("key-load-delay", "0", Int(INT_MIN, INT_MAX, at!(key_load_delay))).hidden(),
    none("loading-process-events-interval-bytes", "2097152", Int(1024, INT_MAX, at!(loading_process_events_interval_bytes))).hidden(),
    none("req-res-logfile", "", Text(at!(req_res_logfile))).immutable().hidden(),
    here("enable-debug-command", "no", Choice(at!(enable_debug_command))).immutable(),
    here("enable-module-command", "no", Choice(at!(enable_module_command))).immutable(),
    here("enable-protected-configs", "no", Choice(at!(enable_protected_configs))).immutable(),
    // Snapshots
    here("save", "3600 1 300 100 60 10000", Compound(at!(save))).moves(&[SaveFailure]),
    here("dbfilename", "dump.rdb", Text(at!(dbfilename))).protected().check(settings::dbfilename_is_a_name),
    here("dir", ".", Text(at!(dir))).protected().moves(&[Directory]).not_while_loading(),
    here("rdbcompression", "yes", Bool(at!(rdbcompression))).moves(&[Encodings]),
    here("rdbchecksum", "yes", Bool(at!(rdbchecksum))).immutable(),
    none("rdb-del-sync-files", "no", Bool(at!(rdb_del_sync_files))),
    here("rdb-key-save-delay", "0", Int(INT_MIN, INT_MAX, at!(rdb_key_save_delay))).hidden(),
    here("rdb-save-incremental-fsync", "yes", Bool(at!(rdb_save_incremental_fsync))),
    here("stop-writes-on-bgsave-error", "yes", Bool(at!(stop_writes_on_bgsave_error))).moves(&[SaveFailure]),
    none("sanitize-dump-payload", "no", Choice(at!(sanitize_dump_payload))),
    // AppendOnly
    here("appendonly", "no", Bool(at!(appendonly))).moves(&[AppendOnly]).not_while_loading(),
    here("appendfilename", "appendonly.aof", Text(at!(appendfilename))).immutable().check(settings::appendfilename_is_a_name),
    here("appenddirname", "appendonlydir", Text(at!(appenddirname))).immutable().check(settings::appenddirname_is_a_name),
    here("appendfsync", "everysec", Choice(at!(appendfsync))).moves(&[AppendFsync]),
    here("no-appendfsync-on-rewrite", "no", Bool(at!(no_appendfsync_on_rewrite))),
    here("auto-aof-rewrite-percentage", "100", Int(0, INT_MAX, at!(auto_aof_rewrite_percentage))),
    here("auto-aof-rewrite-min-size", "67108864", Memory(0, LONG_MAX, at!(auto_aof_rewrite_min_size))),
    here("aof-load-truncated", "yes", Bool(at!(aof_load_truncated))),
    here("aof-use-rdb-preamble", "yes", Bool(at!(aof_use_rdb_preamble))),
    here("aof-timestamp-enabled", "no", Bool(at!(aof_timestamp_enabled))),
    here("aof-rewrite-incremental-fsync", "yes", Bool(at!(aof_rewrite_incremental_fsync))),
    here("aof-disable-auto-gc", "no", Bool(at!(aof_disable_auto_gc))).hidden(),
    // Replication
    here("replicaof", "", Compound(at!(replicaof))).alias("slaveof").immutable(),
    here("masterauth", "", Secret(at!(masterauth))).sensitive(),
    here("masteruser", "", Text(at!(masteruser))).sensitive(),
    here("replica-serve-stale-data", "yes", Bool(at!(replica_serve_stale_data))).alias("slave-serve-stale-data").moves(&[Gate]),
    here("replica-read-only", "yes", Bool(at!(replica_read_only))).alias("slave-read-only").moves(&[Gate]),
    here("replica-priority", "100", Int(0, INT_MAX, at!(replica_priority))).alias("slave-priority"),
    here("replica-announced", "yes", Bool(at!(replica_announced))),
    here("replica-announce-ip", "", Text(at!(replica_announce_ip))).alias("slave-announce-ip"),
    here("replica-announce-port", "0", Int(0, 65535, at!(replica_announce_port))).alias("slave-announce-port"),
    here("replica-ignore-maxmemory", "yes", Bool(at!(replica_ignore_maxmemory))).alias("slave-ignore-maxmemory").moves(&[Gate]),
    here("replica-ignore-disk-write-errors", "no", Bool(at!(replica_ignore_disk_write_errors))),
    none("replica-lazy-flush", "no", Bool(at!(replica_lazy_flush))).alias("slave-lazy-flush"),
    here("repl-backlog-size", "1048576", Memory(1, LONG_MAX, at!(repl_backlog_size))).moves(&[Backlog]),
    here("repl-backlog-ttl", "3600", Int(0, LONG_MAX, at!(repl_backlog_ttl))),
    here("repl-timeout", "60", Int(1, INT_MAX, at!(repl_timeout))),
    here("repl-ping-replica-period", "10", Int(1, INT_MAX, at!(repl_ping_replica_period))).alias("repl-ping-slave-period").moves(&[Cluster]),
    here("repl-disable-tcp-nodelay", "no", Bool(at!(repl_disable_tcp_nodelay))),
    here("repl-diskless-sync", "yes", Bool(at!(repl_diskless_sync))),
    here("repl-diskless-sync-delay", "5", Int(0, INT_MAX, at!(repl_diskless_sync_delay))),
    here("repl-diskless-sync-max-replicas", "0", Int(0, INT_MAX, at!(repl_diskless_sync_max_replicas))),
    here("repl-diskless-load", "disabled", Choice(at!(repl_diskless_load))).not_while_loading(),
    here("reply-after-handover", "yes", Bool(at!(reply_after_handover))),
    here("min-replicas-to-write", "0", Int(0, INT_MAX, at!(min_replicas_to_write))).alias("min-slaves-to-write").moves(&[Gate]),
    here("min-replicas-max-lag", "10", Int(0, INT_MAX, at!(min_replicas_max_lag))).alias("min-slaves-max-lag").moves(&[Gate]),
    none("propagation-error-behavior", "ignore", Choice(at!(propagation_error_behavior))),
    // Cluster
    here("cluster-enabled", "no", Bool(at!(cluster_enabled))).immutable(),
    here("cluster-config-file", "nodes.conf", Text(at!(cluster_config_file))).immutable(),
    here("cluster-node-timeout", "15000", Int(0, LONG_MAX, at!(cluster_node_timeout))).moves(&[Cluster]),
    here("cluster-port", "0", Int(0, 65535, at!(cluster_port))).immutable(),
    here("cluster-replica-validity-factor", "10", Int(0, INT_MAX, at!(cluster_replica_validity_factor))).alias("cluster-slave-validity-factor").moves(&[Cluster]),
    here("cluster-migration-barrier", "1", Int(0, INT_MAX, at!(cluster_migration_barrier))).moves(&[Cluster]),
    here("cluster-allow-replica-migration", "yes", Bool(at!(cluster_allow_replica_migration))).moves(&[Cluster]),
    here("cluster-require-full-coverage", "yes", Bool(at!(cluster_require_full_coverage))).moves(&[Cluster]),
    here("cluster-replica-no-failover", "no", Bool(at!(cluster_replica_no_failover))).alias("cluster-slave-no-failover").moves(&[Cluster]),
    here("cluster-allow-reads-when-down", "no", Bool(at!(cluster_allow_reads_when_down))).moves(&[Cluster]),
    here("cluster-allow-pubsubshard-when-down", "yes", Bool(at!(cluster_allow_pubsubshard_when_down))).moves(&[Cluster]),
    here("cluster-link-sendbuf-limit", "0", Memory(0, ULONG_MAX, at!(cluster_link_sendbuf_limit))).moves(&[Cluster]),
    here("cluster-announce-ip", "", Text(at!(cluster_announce_ip))).moves(&[Cluster]),
    here("cluster-announce-port", "0", Int(0, 65535, at!(cluster_announce_port))).moves(&[Cluster]),
    here("cluster-announce-tls-port", "0", Int(0, 65535, at!(cluster_announce_tls_port))).moves(&[Cluster]),
    here("cluster-announce-bus-port", "0", Int(0, 65535, at!(cluster_announce_bus_port))).moves(&[Cluster]),
    here("cluster-announce-hostname", "", Text(at!(cluster_announce_hostname))).check(settings::hostname_is_valid).moves(&[Cluster]),
    here("cluster-announce-human-nodename", "", Text(at!(cluster_announce_human_nodename))).check(settings::human_nodename_is_valid).moves(&[Cluster]),
    here("cluster-preferred-endpoint-type", "ip", Choice(at!(cluster_preferred_endpoint_type))).moves(&[Cluster]),
    here("cluster-ping-interval", "0", Int(0, LONG_MAX, at!(cluster_ping_interval))).hidden().moves(&[Cluster]),
    // Memory
    here("maxmemory", "0", Memory(0, ULONG_MAX, at!(maxmemory))).moves(&[MemoryLimit, Gate]),
    here("maxmemory-policy", "noeviction", Choice(at!(maxmemory_policy))).moves(&[MemoryLimit]),
    here("maxmemory-samples", "5", Int(1, 64, at!(maxmemory_samples))).moves(&[MemoryLimit]),
    here("maxmemory-eviction-tenacity", "10", Int(0, 100, at!(maxmemory_eviction_tenacity))).moves(&[MemoryLimit]),
    here("maxmemory-clients", "0", MemoryOrPercent(at!(maxmemory_clients))),
    here("active-expire-effort", "1", Int(1, 10, at!(active_expire_effort))),
    here("lazyfree-lazy-eviction", "no", Bool(at!(lazyfree_lazy_eviction))).moves(&[MemoryLimit]),
    here("lazyfree-lazy-expire", "no", Bool(at!(lazyfree_lazy_expire))).moves(&[MemoryLimit]),
    here("lazyfree-lazy-server-del", "no", Bool(at!(lazyfree_lazy_server_del))).moves(&[MemoryLimit]),
    here("lazyfree-lazy-user-del", "no", Bool(at!(lazyfree_lazy_user_del))).moves(&[MemoryLimit]),
    here("lazyfree-lazy-user-flush", "no", Bool(at!(lazyfree_lazy_user_flush))).moves(&[MemoryLimit]),
    here("lfu-log-factor", "10", Int(0, INT_MAX, at!(lfu_log_factor))).moves(&[MemoryLimit]),
    here("lfu-decay-time", "1", Int(0, INT_MAX, at!(lfu_decay_time))).moves(&[MemoryLimit]),
    none("activerehashing", "yes", Bool(at!(activerehashing))),
    none("activedefrag", "no", Bool(at!(activedefrag))),
    none("active-defrag-ignore-bytes", "104857600", Memory(1, LONG_MAX, at!(active_defrag_ignore_bytes))),
    none("active-defrag-threshold-lower", "10", Int(0, 1000, at!(active_defrag_threshold_lower))),
    none("active-defrag-threshold-upper", "100", Int(0, 1000, at!(active_defrag_threshold_upper))),
    none("active-defrag-cycle-min", "1", Int(1, 99, at!(active_defrag_cycle_min))),
    none("active-defrag-cycle-max", "25", Int(1, 99, at!(active_defrag_cycle_max))),
    none("active-defrag-max-scan-fields", "1000", Int(1, LONG_MAX, at!(active_defrag_max_scan_fields))),
    none("jemalloc-bg-thread", "yes", Bool(at!(jemalloc_bg_thread))),
    // Clients
    here("maxclients", "10000", Int(1, UINT_MAX, at!(maxclients))).moves(&[OpenFiles]),
    here("max-new-connections-per-cycle", "10", Int(1, 1000, at!(max_new_connections_per_cycle))),
    here("max-new-tls-connections-per-cycle", "1", Int(1, 1000, at!(max_new_tls_connections_per_cycle))),
    here("client-default-resp", "2", Int(2, 3, at!(client_default_resp))).immutable().hidden(),
    here("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", Compound(at!(client_output_buffer_limit))),
    here("client-query-buffer-limit", "1073741824", Memory(1_048_576, LONG_MAX, at!(client_query_buffer_limit))),
    here("proto-max-bulk-len", "536870912", Memory(1_048_576, LONG_MAX, at!(proto_max_bulk_len))).moves(&[Encodings]),
    here("notify-keyspace-events", "", Compound(at!(notify_keyspace_events))).moves(&[Events]),
    here("tracking-table-max-keys", "1000000", Int(0, LONG_MAX, at!(tracking_table_max_keys))).moves(&[Observers]),
    // Security
    here("requirepass", "", Secret(at!(requirepass))).sensitive().moves(&[Password]),
    here("aclfile", "", Text(at!(aclfile))).immutable(),
    here("acllog-max-len", "128", Int(0, LONG_MAX, at!(acllog_max_len))).moves(&[AclLog]),
    here("acl-pubsub-default", "resetchannels", Choice(at!(acl_pubsub_default))),
    // Scripting
    here("busy-reply-threshold", "5000", Int(0, LONG_MAX, at!(busy_reply_threshold))).alias("lua-time-limit").moves(&[Scripts]),
    // Encodings
    here("hash-max-listpack-entries", "512", Int(0, LONG_MAX, at!(hash_max_listpack_entries))).alias("hash-max-ziplist-entries").moves(&[Encodings]),
    here("hash-max-listpack-value", "64", Memory(0, LONG_MAX, at!(hash_max_listpack_value))).alias("hash-max-ziplist-value").moves(&[Encodings]),
    here("list-max-listpack-size", "-2", Int(INT_MIN, INT_MAX, at!(list_max_listpack_size))).alias("list-max-ziplist-size").moves(&[Encodings]),
    here("list-compress-depth", "0", Int(0, INT_MAX, at!(list_compress_depth))).moves(&[Encodings]),
    here("set-max-intset-entries", "512", Int(0, LONG_MAX, at!(set_max_intset_entries))).moves(&[Encodings]),
    here("set-max-listpack-entries", "128", Int(0, LONG_MAX, at!(set_max_listpack_entries))).moves(&[Encodings]),
    here("set-max-listpack-value", "64", Memory(0, LONG_MAX, at!(set_max_listpack_value))).moves(&[Encodings]),
    here("zset-max-listpack-entries", "128", Int(0, LONG_MAX, at!(zset_max_listpack_entries))).alias("zset-max-ziplist-entries").moves(&[Encodings]),
    here("zset-max-listpack-value", "64", Memory(0, LONG_MAX, at!(zset_max_listpack_value))).alias("zset-max-ziplist-value").moves(&[Encodings]),
    here("stream-node-max-bytes", "4096", Memory(0, LONG_MAX, at!(stream_node_max_bytes))).moves(&[Encodings]),
    here("stream-node-max-entries", "100", Int(0, LONG_MAX, at!(stream_node_max_entries))).moves(&[Encodings]),
    here("hll-sparse-max-bytes", "3000", Memory(0, LONG_MAX, at!(hll_sparse_max_bytes))).moves(&[Encodings]),
    // Observability
    here("slowlog-log-slower-than", "10000", Int(-1, LONG_MAX, at!(slowlog_log_slower_than))).moves(&[Observers]),
    here("slowlog-max-len", "128", Int(0, LONG_MAX, at!(slowlog_max_len))),
    here("latency-monitor-threshold", "0", Int(0, LONG_MAX, at!(latency_monitor_threshold))).moves(&[Observers]),
    here("latency-tracking", "yes", Bool(at!(latency_tracking))).moves(&[Observers]),
    here("latency-tracking-info-percentiles", "50 99 99.9", Compound(at!(latency_tracking_info_percentiles))),
    here("hide-user-data-from-log", "no", Bool(at!(hide_user_data_from_log))),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::collections::BTreeMap;

    /// `CONFIG GET *` of redis-server 7.0.15 without a file (`dir` made relative).
    const REDIS_7_0: &str = include_str!("../../tests/facts/config-get-redis-7.0.15.tsv");

    #[test]
    fn defaults_are_those_of_a_running_redis() {
        let config = Config::default();
        let mut missing = BTreeMap::new();
        for line in REDIS_7_0.lines() {
            let (name, value) = line.split_once('\t').unwrap();
            let ours = find(name.as_bytes()).map(|row| String::from_utf8(row.show(&config)).unwrap());
            if ours.as_deref() != Some(value) {
                missing.insert(name, (value, ours));
            }
        }
        // Ours by decision: as many workers as there are cores.
        assert_eq!(missing.remove("io-threads"), Some(("1", Some("0".into()))));
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_name_is_declared_once() {
        let mut all = std::collections::HashSet::new();
        for name in DIRECTIVES.iter().flat_map(names) {
            assert!(all.insert(name), "{name} is declared twice");
        }
        for added_since in [
            "client-default-resp",
            "cluster-announce-human-nodename",
            "cluster-ping-interval",
            "hide-user-data-from-log",
            "locale-collate",
            "max-new-connections-per-cycle",
            "max-new-tls-connections-per-cycle",
            "req-res-logfile",
            "set-max-listpack-entries",
            "set-max-listpack-value",
            "log-format",
            "reply-after-handover",
        ] {
            assert!(all.contains(added_since), "{added_since}");
        }
    }

    #[test]
    fn numbers_fit_their_fields_at_both_ends_of_the_range() {
        for row in DIRECTIVES {
            if let Int(low, high, _) | Memory(low, high, _) = &row.form {
                for bound in [low, high] {
                    let text = bound.to_string();
                    let mut config = Config::default();
                    // Values beyond 64 signed bits cannot be written as a plain integer.
                    if i64::try_from(*bound).is_ok() {
                        row.read(&mut config, &[text.as_bytes()], true).unwrap();
                    }
                }
            }
        }
    }

    const MANUAL: &str = include_str!("../../conf/keystead.conf");

    fn load(text: &str) -> Config {
        crate::config::file::load(text.as_bytes(), false, &mut |_| Ok(vec![])).unwrap().config
    }

    /// A directive's line, active or commented out: a `#` directly before the name.
    fn directive(line: &str) -> Option<&str> {
        let line = line.strip_prefix('#').unwrap_or(line);
        line.starts_with(|c: char| c.is_ascii_lowercase()).then_some(line)
    }

    #[test]
    fn the_manual_states_the_defaults() {
        assert_eq!(load(MANUAL), Config::default());
        // So do the lines that are commented out because the directive does nothing (yet), unless
        // the default is to be unset.
        for line in MANUAL.lines().filter_map(directive) {
            let row = find(line.split(' ').next().unwrap().as_bytes());
            let row = row.unwrap_or_else(|| panic!("unknown directive: {line}"));
            let config = load(line);
            assert!(row.default.is_empty() || config == Config::default(), "not the default: {line}");
        }
    }

    #[test]
    fn the_manual_explains_every_directive_and_says_what_does_nothing() {
        let mut explained = BTreeMap::new();
        for block in MANUAL.split("\n\n") {
            let about: String = block.lines().filter(|line| directive(line).is_none()).collect();
            let meaning = match () {
                () if about.starts_with("# No effect here") => Meaning::None,
                () => Meaning::Here,
            };
            for line in block.lines().filter_map(directive) {
                assert!(about.len() > 20, "no explanation: {line}");
                explained.insert(line.split(' ').next().unwrap(), (meaning, about.contains("Fixed.")));
            }
        }
        for row in DIRECTIVES {
            let (meaning, fixed) =
                explained.get(row.name).unwrap_or_else(|| panic!("{} is not explained", row.name));
            assert_eq!(*meaning, row.meaning, "what the manual says about {}", row.name);
            assert!(*fixed == row.immutable || row.meaning == Meaning::None, "Fixed: {}", row.name);
        }
    }
}
