//! The directives of the cluster as the state machine takes them.

use crate::cluster::{self, Endpoint};
use crate::config::Config;
use crate::config::choice::EndpointType;

/// Distance of the bus port from the port, where `cluster-port` does not name it.
const BUS_PORT_OFFSET: u16 = 10_000;

/// The port that the bus listens on. `None` where `port` leaves no room for the offset.
pub fn bus_port(config: &Config) -> Option<u16> {
    match config.cluster_port {
        0 => client_port(config).checked_add(BUS_PORT_OFFSET),
        port => Some(port),
    }
}

fn client_port(config: &Config) -> u16 {
    if config.tls_cluster { config.tls_port } else { config.port }
}

/// The settings of the state machine; they may change at run time, except the ports.
pub fn cluster_config(config: &Config) -> cluster::Config {
    let text = |t: &String| Some(t.clone()).filter(|t| !t.is_empty());
    let plain = (config.port, config.cluster_announce_port);
    let secured = (config.tls_port, config.cluster_announce_tls_port);
    let ((port, announce_port), (pport, announce_pport)) =
        if config.tls_cluster { (secured, plain) } else { (plain, secured) };
    cluster::Config {
        node_timeout_ms: config.cluster_node_timeout,
        ping_interval_ms: config.cluster_ping_interval,
        migration_barrier: config.cluster_migration_barrier as usize,
        require_full_coverage: config.cluster_require_full_coverage,
        allow_reads_when_down: config.cluster_allow_reads_when_down,
        allow_pubsubshard_when_down: config.cluster_allow_pubsubshard_when_down,
        allow_replica_migration: config.cluster_allow_replica_migration,
        replica_validity_factor: u64::from(config.cluster_replica_validity_factor),
        replica_no_failover: config.cluster_replica_no_failover,
        preferred_endpoint: match config.cluster_preferred_endpoint_type {
            EndpointType::Ip => Endpoint::Ip,
            EndpointType::Hostname => Endpoint::Hostname,
            EndpointType::Unknown => Endpoint::Unknown,
        },
        repl_ping_period_s: u64::from(config.repl_ping_replica_period),
        port,
        tls: config.tls_cluster,
        pport,
        replicate_tls: config.tls_replication,
        bus_port: bus_port(config).unwrap_or_default(),
        announce_ip: text(&config.cluster_announce_ip),
        announce_port,
        announce_pport,
        announce_bus_port: config.cluster_announce_bus_port,
        announce_hostname: text(&config.cluster_announce_hostname),
        announce_human_name: text(&config.cluster_announce_human_nodename),
    }
}
