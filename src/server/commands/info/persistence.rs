//! The section of files.

use std::sync::atomic::Ordering;

use crate::command::gate;
use crate::server::commands::info::{Fields, Value};
use crate::server::disk::rdb_file::LoadProgress;
use crate::server::node::{Node, unix_ms};

pub fn write(node: &Node, out: &mut Fields) {
    let gates = node.shared.gate.load(Ordering::Relaxed);
    out.field("loading", u8::from(gates & gate::LOADING != 0));
    out.field("async_loading", 0);
    out.field("current_cow_peak", 0);
    out.field("current_cow_size", 0);
    out.field("current_cow_size_age", 0);
    out.field("current_fork_perc", "0.00");
    out.field("current_save_keys_processed", node.save.keys_done.load(Ordering::Relaxed));
    out.field("current_save_keys_total", node.save.keys_total.load(Ordering::Relaxed));
    out.field("rdb_changes_since_last_save", node.shared.keyspace.stats.dirty.load(Ordering::Relaxed));
    let save = &node.save;
    let running_since = save.running_since_ms.load(Ordering::Relaxed);
    let running_s = if running_since == 0 { -1 } else { (unix_ms() - running_since) / 1000 };
    out.field("rdb_bgsave_in_progress", u8::from(save.is_running()));
    out.field("rdb_last_save_time", save.last_save_s.load(Ordering::Relaxed));
    out.field("rdb_last_bgsave_status", if save.last_ok.load(Ordering::Relaxed) { "ok" } else { "err" });
    out.field("rdb_last_bgsave_time_sec", save.last_duration_s.load(Ordering::Relaxed));
    out.field("rdb_current_bgsave_time_sec", running_s);
    out.field("rdb_saves", save.saves.load(Ordering::Relaxed));
    out.field("rdb_last_cow_size", 0);
    out.field("rdb_last_load_keys_expired", save.load_expired.load(Ordering::Relaxed));
    out.field("rdb_last_load_keys_loaded", save.loaded_keys.load(Ordering::Relaxed));
    out.field("aof_enabled", 0);
    out.field("aof_rewrite_in_progress", 0);
    out.field("aof_rewrite_scheduled", 0);
    out.field("aof_last_rewrite_time_sec", -1);
    out.field("aof_current_rewrite_time_sec", -1);
    out.field("aof_last_bgrewrite_status", "ok");
    out.field("aof_rewrites", 0);
    out.field("aof_rewrites_consecutive_failures", 0);
    out.field("aof_last_write_status", "ok");
    out.field("aof_last_cow_size", 0);
    out.field("module_fork_in_progress", 0);
    out.field("module_fork_last_cow_size", 0);
    if gates & gate::LOADING != 0 {
        write_loading(&node.save.loading, out);
    }
}

/// How far the load under way is.
fn write_loading(progress: &LoadProgress, out: &mut Fields) {
    let since_ms = progress.since_ms.load(Ordering::Relaxed);
    let done = progress.done.load(Ordering::Relaxed);
    // The end of a stream is not known: then it is always near.
    let total = progress.total.load(Ordering::Relaxed).max(done);
    let elapsed_s = (unix_ms() - since_ms).max(0) as f64 / 1000.0;
    let share = if total == 0 { 0.0 } else { done as f64 / total as f64 };
    let eta = if share == 0.0 { 1.0 } else { elapsed_s * (1.0 - share) / share };
    out.field("loading_start_time", since_ms / 1000);
    out.field("loading_total_bytes", total);
    out.field("loading_rdb_used_mem", 0);
    out.field("loading_loaded_bytes", done);
    out.field("loading_loaded_perc", Value::Decimal(share * 100.0, 2));
    out.field("loading_eta_seconds", eta as u64);
}
