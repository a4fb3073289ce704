//! Settings of the state machine; each field is the directive `cluster-<name>` unless said otherwise.

/// What CLUSTER SLOTS, MOVED and ASK name a node by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Endpoint {
    /// By the address that the node announces or was seen under.
    #[default]
    Ip,
    /// By the name that the node announces.
    Hostname,
    /// The client shall keep the address that it used.
    Unknown,
}

/// No time of the machine is longer: a hundred years.
const LONGEST_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// May be replaced at run time with [`set_config`](super::ClusterState::set_config).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Silence after which a node counts as PFAIL, in milliseconds.
    pub node_timeout_ms: u64,
    /// Silence after which a node is pinged; 0: half the node timeout.
    pub ping_interval_ms: u64,
    /// Working replicas that a primary keeps when one of its own moves to an orphaned primary.
    pub migration_barrier: usize,
    /// Serve nothing while a slot has no working owner.
    pub require_full_coverage: bool,
    /// Serve commands that only read while the cluster is down.
    pub allow_reads_when_down: bool,
    /// Serve shard channels while the cluster is down.
    pub allow_pubsubshard_when_down: bool,
    /// Replicas may move to orphaned primaries.
    pub allow_replica_migration: bool,
    /// 0: a replica's data is never too old to take over.
    pub replica_validity_factor: u64,
    /// This replica never stands for election.
    pub replica_no_failover: bool,
    /// How clients are told to reach a node.
    pub preferred_endpoint: Endpoint,
    /// Seconds between the primary's pings to its replicas (`repl-ping-replica-period`).
    pub repl_ping_period_s: u64,
    /// Port for clients that this node listens on (`port`, or `tls-port` with `tls-cluster`).
    pub port: u16,
    /// Whether `port` is the one for TLS (`tls-cluster`).
    pub tls: bool,
    /// The other client port, 0 without.
    pub pport: u16,
    /// Bus port that this node listens on: `cluster-port`, or `port` + 10000.
    pub bus_port: u16,
    /// Address that other nodes shall use; `None`: the one that they see.
    pub announce_ip: Option<String>,
    /// Whether replicas speak TLS to their primary (`tls-replication`).
    pub replicate_tls: bool,
    /// 0: `port`.
    pub announce_port: u16,
    /// 0: `pport`.
    pub announce_pport: u16,
    /// 0: `bus_port`.
    pub announce_bus_port: u16,
    /// Host name for clients.
    pub announce_hostname: Option<String>,
    /// Name for people, in logs and nodes.conf.
    pub announce_human_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_timeout_ms: 15_000,
            ping_interval_ms: 0,
            migration_barrier: 1,
            require_full_coverage: true,
            allow_reads_when_down: false,
            allow_pubsubshard_when_down: true,
            allow_replica_migration: true,
            replica_validity_factor: 10,
            replica_no_failover: false,
            preferred_endpoint: Endpoint::Ip,
            repl_ping_period_s: 10,
            port: 6379,
            tls: false,
            pport: 0,
            bus_port: 16379,
            announce_ip: None,
            replicate_tls: false,
            announce_port: 0,
            announce_pport: 0,
            announce_bus_port: 0,
            announce_hostname: None,
            announce_human_name: None,
        }
    }
}

impl Config {
    /// The client port that other nodes are told.
    pub fn announced_port(&self) -> u16 {
        if self.announce_port != 0 { self.announce_port } else { self.port }
    }

    /// The other client port that they are told.
    pub fn announced_pport(&self) -> u16 {
        if self.announce_pport != 0 { self.announce_pport } else { self.pport }
    }

    /// The bus port that other nodes are told.
    pub fn announced_bus_port(&self) -> u16 {
        if self.announce_bus_port != 0 { self.announce_bus_port } else { self.bus_port }
    }

    /// Times beyond [`LONGEST_MS`] as that: the machine adds them up and multiplies them.
    pub(super) fn bounded(mut self) -> Self {
        self.node_timeout_ms = self.node_timeout_ms.min(LONGEST_MS);
        self.ping_interval_ms = self.ping_interval_ms.min(LONGEST_MS);
        self
    }

    /// A node that was not heard for this long is pinged.
    pub fn silence_ms(&self) -> u64 {
        if self.ping_interval_ms > 0 { self.ping_interval_ms } else { self.node_timeout_ms / 2 }
    }

    /// A node whose name is not known after this long is dropped.
    pub fn handshake_timeout_ms(&self) -> u64 {
        self.node_timeout_ms.max(1000)
    }
}
