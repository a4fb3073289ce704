//! The section of files.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::command::gate;
use crate::server::disk::aof::Aof;
use crate::server::disk::rdb_file::LoadProgress;
use crate::server::node::fields::{Fields, Value};
use crate::server::node::{Node, unix_ms};

pub fn write(node: &Node, out: &mut Fields) {
    let gates = node.shared.gate.load(Ordering::Relaxed);
    out.field("loading", u8::from(gates & gate::LOADING != 0));
    out.field("async_loading", 0);
    out.field("current_cow_peak", 0);
    out.field("current_cow_size", 0);
    out.field("current_cow_size_age", 0);
    let (done, total) = node.files.save.progress();
    out.field(
        "current_fork_perc",
        Value::Decimal(if total == 0 { 0.0 } else { done as f64 * 100.0 / total as f64 }, 2),
    );
    out.field("current_save_keys_processed", done);
    out.field("current_save_keys_total", total);
    out.field("rdb_changes_since_last_save", node.shared.keyspace.stats.dirty.load(Ordering::Relaxed));
    let save = &node.files.save;
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
    write_aof(&node.files.aof, out);
    out.field("module_fork_in_progress", 0);
    out.field("module_fork_last_cow_size", 0);
    if node.files.aof.is_on() {
        write_aof_sizes(&node.files.aof, out);
    }
    if gates & gate::LOADING != 0 {
        write_loading(&node.files.save.loading, out);
    }
}

fn write_aof(aof: &Aof, out: &mut Fields) {
    let status = |ok: &AtomicBool| if ok.load(Ordering::Acquire) { "ok" } else { "err" };
    let since = aof.rewriting_since_ms.load(Ordering::Relaxed);
    out.field("aof_enabled", u8::from(aof.is_on()));
    // `in_progress` is set before `scheduled` is cleared, so they are read in the other order: a client never sees
    // neither.
    let scheduled = aof.scheduled.load(Ordering::Acquire);
    out.field("aof_rewrite_in_progress", u8::from(aof.is_rewrite_shown()));
    out.field("aof_rewrite_scheduled", u8::from(scheduled));
    out.field("aof_last_rewrite_time_sec", aof.last_rewrite_s.load(Ordering::Relaxed));
    out.field("aof_current_rewrite_time_sec", if since == 0 { -1 } else { (unix_ms() - since) / 1000 });
    out.field("aof_last_bgrewrite_status", status(&aof.rewrite_ok));
    out.field("aof_rewrites", aof.rewrites.load(Ordering::Relaxed));
    out.field("aof_rewrites_consecutive_failures", aof.failures.load(Ordering::Relaxed));
    out.field("aof_last_write_status", status(&aof.write_ok));
    out.field("aof_last_cow_size", 0);
}

/// What there is to say only while it is written.
fn write_aof_sizes(aof: &Aof, out: &mut Fields) {
    out.field("aof_current_size", aof.current_size());
    out.field("aof_base_size", aof.rewrite_base_size.load(Ordering::Relaxed));
    out.field("aof_pending_rewrite", u8::from(aof.scheduled.load(Ordering::Relaxed)));
    out.field("aof_buffer_length", aof.behind.load(Ordering::Relaxed));
    out.field("aof_pending_bio_fsync", aof.pending_fsync.load(Ordering::Relaxed));
    out.field("aof_delayed_fsync", aof.delayed_fsync.load(Ordering::Relaxed));
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
    out.field("loading_rdb_used_mem", progress.used_memory.load(Ordering::Relaxed));
    out.field("loading_loaded_bytes", done);
    out.field("loading_loaded_perc", Value::Decimal(share * 100.0, 2));
    out.field("loading_eta_seconds", eta as u64);
}
