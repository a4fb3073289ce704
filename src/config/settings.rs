//! The typed fields behind the directives. Units stand in the field's comment; names are the
//! directives' own. Defaults are not here but in the table: see [`super::Config::default`].

use super::choice::*;
use super::compound::*;

/// What the server reads. Made through [`super::Config`] only: `Settings::default()` is blank.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    // Network
    /// Addresses to listen on.
    pub bind: Bind,
    /// Local address of outgoing connections; empty: chosen by the system.
    pub bind_source_addr: String,
    /// TCP port of clients; 0: none.
    pub port: u16,
    /// Length of the queue of connections not yet accepted.
    pub tcp_backlog: u32,
    /// Path of the Unix socket; empty: none.
    pub unixsocket: String,
    /// Mode of the Unix socket's file; 0: left to the umask.
    pub unixsocketperm: u32,
    /// Seconds after which an idle client is closed; 0: never.
    pub timeout: u32,
    /// Seconds between keepalive probes of a client's connection; 0: none.
    pub tcp_keepalive: u32,
    /// Refuse remote clients while no password is set and no address is bound.
    pub protected_mode: bool,
    /// Mark of listening sockets for the packet filter; 0: none.
    pub socket_mark_id: u32,
    // TLS
    /// TLS port of clients; 0: none.
    pub tls_port: u16,
    /// Certificate shown to clients and peers.
    pub tls_cert_file: String,
    /// Its private key.
    pub tls_key_file: String,
    /// Pass phrase of the private key.
    pub tls_key_file_pass: Secret,
    /// Certificate used towards other nodes; empty: the server's.
    pub tls_client_cert_file: String,
    /// Its private key.
    pub tls_client_key_file: String,
    /// Pass phrase of that key.
    pub tls_client_key_file_pass: Secret,
    /// Diffie-Hellman parameters.
    pub tls_dh_params_file: String,
    /// Bundle of trusted authorities.
    pub tls_ca_cert_file: String,
    /// Directory of trusted authorities.
    pub tls_ca_cert_dir: String,
    /// Whether clients must show a certificate.
    pub tls_auth_clients: TlsAuthClients,
    /// Use TLS towards the primary.
    pub tls_replication: bool,
    /// Use TLS on the cluster bus.
    pub tls_cluster: bool,
    /// Allowed versions, separated by spaces; empty: the safe ones.
    pub tls_protocols: String,
    /// Cipher suites up to TLS 1.2.
    pub tls_ciphers: String,
    /// Cipher suites of TLS 1.3.
    pub tls_ciphersuites: String,
    /// Choose by the server's order, not the client's.
    pub tls_prefer_server_ciphers: bool,
    /// Let clients resume a session.
    pub tls_session_caching: bool,
    /// Sessions kept; 0: unlimited.
    pub tls_session_cache_size: u32,
    /// Seconds that a session may be resumed.
    pub tls_session_cache_timeout: u32,
    // Process
    /// Go to the background.
    pub daemonize: bool,
    /// How the supervisor is told about readiness.
    pub supervised: Supervised,
    /// Path of the file that holds the process id; empty: none, or a default when in the background.
    pub pidfile: String,
    /// Least level that is written.
    pub loglevel: LogLevel,
    /// Path of the log; empty: standard output.
    pub logfile: String,
    /// Form of a log line.
    pub log_format: LogFormat,
    /// Also write to the system log.
    pub syslog_enabled: bool,
    /// Name in the system log.
    pub syslog_ident: String,
    /// Facility of the system log.
    pub syslog_facility: SyslogFacility,
    /// Write a report when the process crashes.
    pub crash_log_enabled: bool,
    /// Check memory in a crash report.
    pub crash_memcheck_enabled: bool,
    /// Exit with status 1 instead of aborting when a panic ends the process.
    pub use_exit_on_panic: bool,
    /// Number of databases.
    pub databases: u32,
    /// Show a logo at the start.
    pub always_show_logo: bool,
    /// Change the process title.
    pub set_proc_title: bool,
    /// Form of the process title.
    pub proc_title_template: String,
    /// Seconds that a shutdown waits for replicas.
    pub shutdown_timeout: u32,
    /// What SIGINT does about saving and waiting.
    pub shutdown_on_sigint: ShutdownOn,
    /// What SIGTERM does about saving and waiting.
    pub shutdown_on_sigterm: ShutdownOn,
    /// Whether the kernel's out-of-memory score is adjusted.
    pub oom_score_adj: OomScoreAdj,
    /// The adjustment as primary, replica, and background child.
    pub oom_score_adj_values: OomScoreAdjValues,
    /// Turn transparent huge pages off.
    pub disable_thp: bool,
    /// Worker threads; 0: one for each core.
    pub io_threads: u32,
    /// Let threads read.
    pub io_threads_do_reads: bool,
    /// Cores of the server's threads.
    pub server_cpulist: String,
    /// Cores of background threads.
    pub bio_cpulist: String,
    /// Cores of the rewriting child.
    pub aof_rewrite_cpulist: String,
    /// Cores of the saving child.
    pub bgsave_cpulist: String,
    /// Runs of the periodic work per second, 1 to 500.
    pub hz: u32,
    /// Raise the frequency with the number of clients.
    pub dynamic_hz: bool,
    /// Start-up warnings to ignore.
    pub ignore_warnings: String,
    /// Locale by which SORT ALPHA compares.
    pub locale_collate: String,
    /// Milliseconds until the watchdog reports; 0: off.
    pub watchdog_period: u32,
    /// Microseconds of pause for each key loaded, for tests.
    pub key_load_delay: i32,
    /// Bytes between two looks at clients while loading.
    pub loading_process_events_interval_bytes: u32,
    /// File for a trace of requests and replies.
    pub req_res_logfile: String,
    /// Who may use DEBUG.
    pub enable_debug_command: WhoMay,
    /// Who may use MODULE.
    pub enable_module_command: WhoMay,
    /// Who may set protected directives at run time.
    pub enable_protected_configs: WhoMay,
    // Snapshots
    /// Save points of the snapshot file.
    pub save: SavePoints,
    /// Name of the snapshot file, inside `dir`.
    pub dbfilename: String,
    /// Working directory.
    pub dir: String,
    /// Compress strings in snapshots.
    pub rdbcompression: bool,
    /// Write and check the checksum of snapshots.
    pub rdbchecksum: bool,
    /// Delete transfer files when nothing else needs them.
    pub rdb_del_sync_files: bool,
    /// Microseconds to pause after each key that is saved, for tests; negative: one microsecond after so many keys.
    pub rdb_key_save_delay: i32,
    /// Flush a snapshot to disk in steps.
    pub rdb_save_incremental_fsync: bool,
    /// Refuse writes after a failed save.
    pub stop_writes_on_bgsave_error: bool,
    /// How deeply payloads of RESTORE and of snapshots are checked.
    pub sanitize_dump_payload: SanitizeDump,
    // AppendOnly
    /// Write the append-only log.
    pub appendonly: bool,
    /// First part of the log's file names.
    pub appendfilename: String,
    /// Directory of the log, inside `dir`.
    pub appenddirname: String,
    /// When the log is flushed to disk.
    pub appendfsync: AppendFsync,
    /// Do not flush while the log is rewritten.
    pub no_appendfsync_on_rewrite: bool,
    /// Growth in percent that starts a rewrite; 0: never.
    pub auto_aof_rewrite_percentage: u32,
    /// Bytes below which no rewrite starts by itself.
    pub auto_aof_rewrite_min_size: u64,
    /// Accept a log that ends in the middle of a record.
    pub aof_load_truncated: bool,
    /// Start a rewritten log with a snapshot.
    pub aof_use_rdb_preamble: bool,
    /// Write time marks into the log.
    pub aof_timestamp_enabled: bool,
    /// Flush a rewritten log in steps.
    pub aof_rewrite_incremental_fsync: bool,
    /// Keep log files that are no longer needed, for tests.
    pub aof_disable_auto_gc: bool,
    // Replication
    /// The primary to follow at the start.
    pub replicaof: PrimaryAddress,
    /// Password towards the primary.
    pub masterauth: Secret,
    /// User towards the primary; empty: the default user.
    pub masteruser: String,
    /// Answer clients while the link to the primary is down.
    pub replica_serve_stale_data: bool,
    /// Refuse writes of clients on a replica.
    pub replica_read_only: bool,
    /// Rank when Sentinel promotes a replica; 0: never.
    pub replica_priority: u32,
    /// Let Sentinel know this replica.
    pub replica_announced: bool,
    /// Address to report to the primary; empty: that of the connection.
    pub replica_announce_ip: String,
    /// Port to report to the primary; 0: the real one.
    pub replica_announce_port: u16,
    /// Leave eviction to the primary.
    pub replica_ignore_maxmemory: bool,
    /// Keep applying the stream when the disk refuses writes.
    pub replica_ignore_disk_write_errors: bool,
    /// Free the old data in the background when a full sync replaces it.
    pub replica_lazy_flush: bool,
    /// Bytes of the stream kept for partial syncs.
    pub repl_backlog_size: u64,
    /// Seconds after the last replica left until the backlog is freed; 0: never.
    pub repl_backlog_ttl: u64,
    /// Seconds of silence that end a replication link.
    pub repl_timeout: u32,
    /// Seconds between pings to replicas.
    pub repl_ping_replica_period: u32,
    /// Let the kernel gather small packets to replicas.
    pub repl_disable_tcp_nodelay: bool,
    /// Send the snapshot without a file.
    pub repl_diskless_sync: bool,
    /// Seconds to wait for more replicas before a sync starts.
    pub repl_diskless_sync_delay: u32,
    /// Waiting replicas that start a sync at once; 0: no such number.
    pub repl_diskless_sync_max_replicas: u32,
    /// Load a snapshot from the socket.
    pub repl_diskless_load: DisklessLoad,
    /// Answer a write when the replicas in sync have been sent it.
    pub reply_after_handover: bool,
    /// Replicas in good state without which writes are refused; 0: none needed.
    pub min_replicas_to_write: u32,
    /// Seconds of lag up to which a replica counts as good.
    pub min_replicas_max_lag: u32,
    /// What an error while applying the stream does.
    pub propagation_error_behavior: PropagationError,
    // Cluster
    /// Run as a cluster node.
    pub cluster_enabled: bool,
    /// Name of the node's own state file.
    pub cluster_config_file: String,
    /// Milliseconds without an answer after which a node is suspected.
    pub cluster_node_timeout: u64,
    /// Port of the bus; 0: `port` + 10000.
    pub cluster_port: u16,
    /// Node timeouts of silence after which a replica no longer stands for election; 0: always.
    pub cluster_replica_validity_factor: u32,
    /// Replicas a primary keeps before one of them may move to an orphan.
    pub cluster_migration_barrier: u32,
    /// Let replicas move to orphaned primaries.
    pub cluster_allow_replica_migration: bool,
    /// Serve only while every slot has an owner.
    pub cluster_require_full_coverage: bool,
    /// Never start a failover by itself.
    pub cluster_replica_no_failover: bool,
    /// Serve reads while the cluster is down.
    pub cluster_allow_reads_when_down: bool,
    /// Serve sharded channels while the cluster is down.
    pub cluster_allow_pubsubshard_when_down: bool,
    /// Bytes queued on a bus link beyond which it is closed; 0: no limit.
    pub cluster_link_sendbuf_limit: u64,
    /// Address to tell others; empty: found out.
    pub cluster_announce_ip: String,
    /// Client port to tell others; 0: the real one.
    pub cluster_announce_port: u16,
    /// TLS port to tell others; 0: the real one.
    pub cluster_announce_tls_port: u16,
    /// Bus port to tell others; 0: the real one.
    pub cluster_announce_bus_port: u16,
    /// Host name to tell others; empty: none.
    pub cluster_announce_hostname: String,
    /// Name for people, shown in logs; empty: none.
    pub cluster_announce_human_nodename: String,
    /// What redirections name: address, host name or nothing.
    pub cluster_preferred_endpoint_type: EndpointType,
    /// Milliseconds between pings of a random node; 0: one second.
    pub cluster_ping_interval: u64,
    // Memory
    /// Bytes that data may take; 0: no limit.
    pub maxmemory: u64,
    /// Which keys leave when the limit is reached.
    pub maxmemory_policy: MaxmemoryPolicy,
    /// Keys compared for each eviction.
    pub maxmemory_samples: u32,
    /// How long eviction may hold up clients, 0 to 100.
    pub maxmemory_eviction_tenacity: u32,
    /// Bytes that all clients' buffers may take; 0: no limit.
    pub maxmemory_clients: MemoryOrPercent,
    /// How eagerly expired keys are looked for, 1 to 10.
    pub active_expire_effort: u32,
    /// Free evicted values in the background.
    pub lazyfree_lazy_eviction: bool,
    /// Free expired values in the background.
    pub lazyfree_lazy_expire: bool,
    /// Free replaced values in the background.
    pub lazyfree_lazy_server_del: bool,
    /// Let DEL free in the background.
    pub lazyfree_lazy_user_del: bool,
    /// Let FLUSHALL free in the background when it is not told how.
    pub lazyfree_lazy_user_flush: bool,
    /// How fast the frequency counter saturates.
    pub lfu_log_factor: u32,
    /// Minutes for the frequency counter to fall by one; 0: never.
    pub lfu_decay_time: u32,
    /// Rehash tables in idle time.
    pub activerehashing: bool,
    /// Defragment memory in idle time.
    pub activedefrag: bool,
    /// Waste below which defragmentation rests.
    pub active_defrag_ignore_bytes: u64,
    /// Percentage of waste at which it starts.
    pub active_defrag_threshold_lower: u32,
    /// Percentage of waste at which it works hardest.
    pub active_defrag_threshold_upper: u32,
    /// Least share of CPU time, in percent.
    pub active_defrag_cycle_min: u32,
    /// Greatest share of CPU time, in percent.
    pub active_defrag_cycle_max: u32,
    /// Fields scanned at once.
    pub active_defrag_max_scan_fields: u64,
    /// Let the allocator return memory from its own thread.
    pub jemalloc_bg_thread: bool,
    // Clients
    /// Greatest number of clients at once.
    pub maxclients: u32,
    /// Connections accepted at one wake-up.
    pub max_new_connections_per_cycle: u32,
    /// TLS connections accepted at one wake-up.
    pub max_new_tls_connections_per_cycle: u32,
    /// Protocol version of a new connection.
    pub client_default_resp: u32,
    /// Limits of what waits to be sent, by class of client.
    pub client_output_buffer_limit: OutputLimits,
    /// Bytes of unparsed input that close a client.
    pub client_query_buffer_limit: u64,
    /// Bytes of the longest argument.
    pub proto_max_bulk_len: u64,
    /// Events published about keys.
    pub notify_keyspace_events: KeyspaceEvents,
    /// Keys remembered for client-side caching; 0: unlimited.
    pub tracking_table_max_keys: u64,
    // Security
    /// Password of the default user; empty: none.
    pub requirepass: Secret,
    /// File of users; empty: none.
    pub aclfile: String,
    /// Entries of the log of refused actions.
    pub acllog_max_len: u64,
    /// Channels that a new user may use.
    pub acl_pubsub_default: PubsubDefault,
    // Scripting
    /// Milliseconds after which clients that need what a script holds are answered -BUSY; 0: never.
    pub busy_reply_threshold: u64,
    // Encodings
    /// Fields of the largest compact hash.
    pub hash_max_listpack_entries: u64,
    /// Bytes of the longest field or value in a compact hash.
    pub hash_max_listpack_value: u64,
    /// Elements (positive) or size class (negative) of a list's block.
    pub list_max_listpack_size: i32,
    /// Blocks at either end of a list that stay uncompressed; 0: none is compressed.
    pub list_compress_depth: u32,
    /// Members of the largest set of integers.
    pub set_max_intset_entries: u64,
    /// Members of the largest compact set.
    pub set_max_listpack_entries: u64,
    /// Bytes of the longest member of a compact set.
    pub set_max_listpack_value: u64,
    /// Members of the largest compact sorted set.
    pub zset_max_listpack_entries: u64,
    /// Bytes of the longest member of a compact sorted set.
    pub zset_max_listpack_value: u64,
    /// Bytes of a stream's block; 0: no limit.
    pub stream_node_max_bytes: u64,
    /// Entries of a stream's block; 0: no limit.
    pub stream_node_max_entries: u64,
    /// Bytes of the largest sparse HyperLogLog.
    pub hll_sparse_max_bytes: u64,
    // Observability
    /// Microseconds from which a command enters the slow log; 0: all, negative: none.
    pub slowlog_log_slower_than: i64,
    /// Entries of the slow log.
    pub slowlog_max_len: u64,
    /// Milliseconds from which an event is recorded; 0: off.
    pub latency_monitor_threshold: u64,
    /// Record how long each command takes.
    pub latency_tracking: bool,
    /// Percentiles shown by INFO.
    pub latency_tracking_info_percentiles: Percentiles,
    /// Keep keys and values out of the log.
    pub hide_user_data_from_log: bool,
}

/// Bytes below which a backlog would not hold a single reply.
const REPL_BACKLOG_MIN_BYTES: u64 = 16 * 1024;

impl Settings {
    /// Brings values that are accepted but not usable to the nearest usable one, as CONFIG GET
    /// of Redis shows them afterwards.
    pub(super) fn settle(&mut self) {
        self.hz = self.hz.clamp(1, 500);
        self.repl_backlog_size = self.repl_backlog_size.max(REPL_BACKLOG_MIN_BYTES);
    }
}

// What must hold for single directives, beyond their form.

pub(super) fn dbfilename_is_a_name(s: &Settings) -> Result<(), &'static str> {
    is_name(&s.dbfilename).then_some(()).ok_or("dbfilename can't be a path, just a filename")
}

pub(super) fn appendfilename_is_a_name(s: &Settings) -> Result<(), &'static str> {
    match s.appendfilename.as_str() {
        "" => Err("appendfilename can't be empty"),
        name => is_name(name).then_some(()).ok_or("appendfilename can't be a path, just a filename"),
    }
}

pub(super) fn appenddirname_is_a_name(s: &Settings) -> Result<(), &'static str> {
    match s.appenddirname.as_str() {
        "" => Err("appenddirname can't be empty"),
        name => is_name(name).then_some(()).ok_or("appenddirname can't be a path, just a dirname"),
    }
}

fn is_name(text: &str) -> bool {
    !text.contains(['/', '\\'])
}

pub(super) fn hostname_is_valid(s: &Settings) -> Result<(), &'static str> {
    let name = &s.cluster_announce_hostname;
    if name.len() >= 256 {
        return Err("Hostnames must be less than 256 characters");
    }
    let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    valid.then_some(()).ok_or("Hostnames may only contain alphanumeric characters, hyphens or dots")
}

pub(super) fn human_nodename_is_valid(s: &Settings) -> Result<(), &'static str> {
    let name = &s.cluster_announce_human_nodename;
    // The name stands in space-separated lines of nodes.conf and in logs.
    let valid = name.len() < 256
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~".contains(&b));
    valid.then_some(()).ok_or("Announced human node name contained invalid character")
}

pub(super) fn proc_title_is_valid(s: &Settings) -> Result<(), &'static str> {
    const WRONG: &str = "template format is invalid or contains unknown variables";
    const KNOWN: [&str; 7] =
        ["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];
    let mut rest = s.proc_title_template.as_str();
    if rest.is_empty() {
        return Err(WRONG);
    }
    while let Some((_, after)) = rest.split_once('{') {
        match after.split_once('}') {
            Some((name, tail)) if KNOWN.contains(&name) => rest = tail,
            _ => return Err(WRONG),
        }
    }
    Ok(())
}
