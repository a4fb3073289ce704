//! The section of processor time.

use std::fs;

use crate::server::node::Node;
use crate::server::node::fields::{Fields, Value};

/// Ticks a second in /proc/*/stat: fixed for all that Linux shows to programs.
const TICKS: f64 = 100.0;

pub fn write(_node: &Node, out: &mut Fields) {
    let [user, system, children_user, children_system] = times("/proc/self/stat");
    // The main thread's directory has the process's number.
    let [main_user, main_system, ..] = times(&format!("/proc/self/task/{}/stat", std::process::id()));
    let mut field = |name, seconds: f64| out.field(name, Value::Decimal(seconds, 6));
    field("used_cpu_sys", system);
    field("used_cpu_user", user);
    field("used_cpu_sys_children", children_system);
    field("used_cpu_user_children", children_user);
    field("used_cpu_sys_main_thread", main_system);
    field("used_cpu_user_main_thread", main_user);
}

/// Microseconds that the workers have run. Source: the first field of schedstat, in proc(5).
pub fn workers_us() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let workers = tasks.filter(|task| read(task.path().join("comm")).starts_with("worker-"));
    let nanos = workers.map(|task| {
        let text = read(task.path().join("schedstat"));
        text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    });
    nanos.sum::<u64>() / 1000
}

/// Seconds: user, system, and the same of children that ended. Source: proc(5).
fn times(path: &str) -> [f64; 4] {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The name in parentheses may contain spaces; the fields behind it are counted from 3.
    let behind = text.rsplit(')').next().unwrap_or_default();
    let mut fields = behind.split_whitespace().skip(11).map(|n| n.parse().unwrap_or(0.0) / TICKS);
    std::array::from_fn(|_| fields.next().unwrap_or(0.0))
}
