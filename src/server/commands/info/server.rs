//! The section of the process and its environment.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::version;
use crate::server::node::Node;
use crate::server::node::fields::Fields;
use crate::server::process::supervise::Supervisor;

pub fn write(node: &Node, out: &mut Fields) {
    let config = node.config.load();
    let uptime = node.mono_ms() / 1000;
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
    out.field("redis_version", version::REDIS);
    out.field("keystead_version", version::KEYSTEAD);
    out.field("redis_git_sha1", "00000000");
    out.field("redis_git_dirty", 0);
    out.field("redis_build_id", 0);
    out.field("redis_mode", node.mode_name());
    out.field("os", os());
    out.field("arch_bits", usize::BITS);
    out.field("monotonic_clock", "POSIX clock_gettime");
    out.field("multiplexing_api", "epoll");
    out.field("atomicvar_api", "rust-std");
    out.field("gcc_version", "0.0.0");
    out.field("process_id", std::process::id());
    let supervised = match node.life.origin.supervisor {
        Supervisor::None => "no",
        Supervisor::Systemd(_) => "systemd",
        Supervisor::Upstart => "upstart",
    };
    out.field("process_supervised", supervised);
    out.field("run_id", &node.life.run_id);
    out.field("tcp_port", config.shown_port());
    out.field("server_time_usec", micros);
    out.field("uptime_in_seconds", uptime);
    out.field("uptime_in_days", uptime / 86_400);
    if let Some(ms) = node.life.shutdown.remaining_ms() {
        out.field("shutdown_in_milliseconds", ms);
    }
    out.field("hz", config.hz);
    out.field("configured_hz", config.hz);
    out.field("lru_clock", node.steady_s() & 0xff_ffff);
    out.field("executable", node.life.origin.executable.display().to_string());
    let file = node.life.origin.config_file.as_ref().map_or(String::new(), |f| f.display().to_string());
    out.field("config_file", file);
    let workers = node.life.threads.workers.get().map_or(1, Vec::len);
    out.field("io_threads_active", u8::from(workers > 1));
    out.field("worker_threads", workers);
    if let Some(tls) = node.peers.tls.context() {
        out.field("tls_cert_expire_time", tls.expires);
    }
    let binds: Vec<String> = config.bind.0.iter().map(|b| format!("bind={b}")).collect();
    let listens = |port: u16| port > 0 && !binds.is_empty();
    let mut listeners = Vec::new();
    if listens(config.port) {
        listeners.push(format!("name=tcp,{},port={}", binds.join(","), config.port));
    }
    if !config.unixsocket.is_empty() {
        listeners.push(format!("name=unix,bind={}", config.unixsocket));
    }
    if listens(config.tls_port) {
        listeners.push(format!("name=tls,{},port={}", binds.join(","), config.tls_port));
    }
    for (i, listener) in listeners.iter().enumerate() {
        out.field(format_args!("listener{i}"), listener);
    }
}

/// System, release and machine.
fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}
