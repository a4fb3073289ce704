//! The section of memory.

use std::fs;
use std::sync::atomic::Ordering;

use crate::command::client::Role;
use crate::config::choice::Choice;
use crate::keyspace::Keyspace;
use crate::server::node::Node;
use crate::server::node::fields::{Fields, Value, human};
use crate::server::process::allocator;

/// What memory is taken for, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Allocated now.
    pub used: u64,
    /// The most that was used at once.
    pub peak: u64,
    /// Held by the process as the system counts it, code and free pages of the allocator included.
    pub resident: u64,
    /// Used before there were data.
    pub at_start: u64,
    /// Kept of the log, for replicas and other readers.
    pub backlog: u64,
    /// Taken by all clients, buffers included.
    pub clients: u64,
    /// Used for other things than data.
    pub overhead: u64,
}

impl Sizes {
    /// As it is now; raises the peak where it is passed.
    pub fn of(node: &Node) -> Self {
        let used = allocator::used();
        let peak = node.records.counters.memory_peak.fetch_max(used, Ordering::Relaxed).max(used);
        let at_start = node.records.counters.memory_at_start.load(Ordering::Relaxed);
        let backlog = node.shared.keyspace.log.len();
        let clients = node.people.clients.memory() as u64;
        let overhead = (at_start + backlog + clients + key_tables(&node.shared.keyspace)).min(used);
        Self { used, peak, resident: resident(), at_start, backlog, clients, overhead }
    }
}

/// What else memory is taken for beside data, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The connections of replicas.
    pub replicas: u64,
    /// What waits to be sent on the cluster bus.
    pub links: u64,
    /// What the append-only file has not been given yet.
    pub aof: u64,
    /// The texts of scripts.
    pub scripts: u64,
    /// The texts of libraries.
    pub functions: u64,
}

impl Parts {
    /// As it is now.
    pub fn of(node: &Node) -> Self {
        let replicas = node.people.clients.all().into_iter().filter(|entry| entry.role == Role::Replica);
        let aof = &node.files.aof;
        let scripts = &node.shared.scripts;
        Self {
            replicas: replicas.map(|entry| entry.usage.lock().total as u64).sum(),
            links: node.peers.bus.get().map_or(0, |bus| bus.queued() as u64),
            aof: if aof.is_on() { aof.behind.load(Ordering::Relaxed) } else { 0 },
            scripts: scripts.script_bytes() as u64,
            functions: scripts.libraries().iter().map(|library| library.code.len() as u64).sum(),
        }
    }
}

/// The section `memory`.
pub fn write(node: &Node, out: &mut Fields) {
    let config = node.config.load();
    let Sizes { used, peak, resident: rss, at_start, backlog, clients, overhead } = Sizes::of(node);
    let dataset = used - overhead;
    let total = total_system();
    out.size("used_memory", used);
    out.size("used_memory_rss", rss);
    out.size("used_memory_peak", peak);
    out.field("used_memory_peak_perc", percent(used, peak));
    out.field("used_memory_overhead", overhead);
    out.field("used_memory_startup", at_start);
    out.field("used_memory_dataset", dataset);
    out.field("used_memory_dataset_perc", percent(dataset, used.saturating_sub(at_start)));
    // What the allocator holds beyond what is in use shows in the resident size only: its own
    // statistics would cost every allocation something.
    out.field("allocator_allocated", used);
    out.field("allocator_active", rss);
    out.field("allocator_resident", rss);
    out.field("allocator_muzzy", 0);
    out.size("total_system_memory", total);
    // Scripts and functions share their interpreters.
    let scripts = &node.shared.scripts;
    let (vm, libraries) = (scripts.interpreters.load(Ordering::Relaxed), scripts.libraries());
    let parts = Parts::of(node);
    let (of_scripts, of_functions) = (parts.scripts, parts.functions);
    out.field("used_memory_lua", vm);
    out.field("used_memory_vm_eval", vm);
    out.field("used_memory_lua_human", human(vm));
    out.field("used_memory_scripts_eval", of_scripts);
    out.field("number_of_cached_scripts", scripts.script_count());
    out.field("number_of_functions", libraries.function_count());
    out.field("number_of_libraries", libraries.len());
    out.field("used_memory_vm_functions", 0);
    out.size("used_memory_vm_total", vm);
    out.field("used_memory_functions", of_functions);
    out.size("used_memory_scripts", of_scripts + of_functions);
    out.size("maxmemory", config.maxmemory);
    out.field("maxmemory_policy", config.maxmemory_policy.name());
    out.field("allocator_frag_ratio", ratio(rss, used));
    out.field("allocator_frag_bytes", rss.saturating_sub(used));
    out.field("allocator_rss_ratio", "1.00");
    out.field("allocator_rss_bytes", 0);
    out.field("rss_overhead_ratio", "1.00");
    out.field("rss_overhead_bytes", 0);
    out.field("mem_fragmentation_ratio", ratio(rss, used));
    out.field("mem_fragmentation_bytes", rss as i64 - used as i64);
    out.field("mem_not_counted_for_evict", node.shared.keyspace.log.beyond_backlog());
    out.field("mem_replication_backlog", backlog);
    out.field("mem_total_replication_buffers", backlog);
    out.field("mem_clients_slaves", parts.replicas);
    out.field("mem_clients_normal", clients);
    out.field("mem_cluster_links", parts.links);
    out.field("mem_aof_buffer", parts.aof);
    out.field("mem_allocator", "jemalloc-5.3.0");
    out.field("active_defrag_running", 0);
    out.field("lazyfree_pending_objects", (node.shared.memory.being_freed)());
    out.field("lazyfreed_objects", node.shared.keyspace.stats.lazily_freed.load(Ordering::Relaxed));
}

/// Bytes of the tables that find the keys, as far as they are fixed: one header a slot of each
/// database in use. Those of the first one are there from the start.
fn key_tables(keyspace: &Keyspace) -> u64 {
    let used = (1..keyspace.databases() as u16).filter(|db| !keyspace.is_empty(*db)).count();
    (used * crate::base::crc16::SLOTS * 16) as u64
}

fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{share:.2}%")
}

fn ratio(a: u64, b: u64) -> Value {
    Value::Decimal(if b == 0 { 0.0 } else { a as f64 / b as f64 }, 2)
}

/// Resident memory of the process in bytes; 0 where the system does not tell.
pub fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn total_system() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}
