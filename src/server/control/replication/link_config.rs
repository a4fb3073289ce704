//! The directives of replication, as the machines want them.

use crate::base::time::MonoMs;
use crate::config::Config;
use crate::repl::{primary, replica};

const fn ms(seconds: u32) -> MonoMs {
    seconds as MonoMs * 1000
}

pub(super) fn primary(config: &Config) -> primary::Config {
    primary::Config {
        timeout_ms: ms(config.repl_timeout),
        ping_period_ms: ms(config.repl_ping_replica_period),
        diskless: config.repl_diskless_sync,
        diskless_delay_ms: ms(config.repl_diskless_sync_delay),
        diskless_max_replicas: config.repl_diskless_sync_max_replicas as usize,
        backlog_ttl_ms: config.repl_backlog_ttl.saturating_mul(1000),
        max_lag_ms: ms(config.min_replicas_max_lag),
    }
}

pub(super) fn replica(config: &Config, address: (String, u16)) -> replica::Config {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let port = match config.replica_announce_port {
        0 if config.tls_replication && config.tls_port != 0 => config.tls_port,
        0 => config.port,
        announced => announced,
    };
    replica::Config {
        host: address.0,
        port: address.1,
        user: given(&config.masteruser),
        password: given(&String::from_utf8_lossy(&config.masterauth)),
        listening_port: port,
        announce_ip: given(&config.replica_announce_ip),
        timeout_ms: ms(config.repl_timeout),
    }
}
