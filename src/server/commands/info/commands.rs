//! The sections of commands and of error replies.

use std::sync::atomic::Ordering;

use crate::config::compound::Percentiles;
use crate::exec::stats::Errors;
use crate::server::commands::latency::times;
use crate::server::node::Node;
use crate::server::node::fields::Fields;

pub fn calls(node: &Node, out: &mut Fields) {
    for id in 0..node.shared.commands.len() {
        let (mut calls, mut nanos, mut rejected, mut failed) = (0, 0, 0, 0);
        for stats in &node.records.counters.commands {
            let counter = &stats.commands[id];
            calls += counter.calls.load(Ordering::Relaxed);
            nanos += counter.nanos.load(Ordering::Relaxed);
            rejected += counter.rejected.load(Ordering::Relaxed);
            failed += counter.failed.load(Ordering::Relaxed);
        }
        if calls + rejected + failed == 0 {
            continue;
        }
        let micros = nanos / 1000;
        let each = if calls == 0 { 0.0 } else { nanos as f64 / 1000.0 / calls as f64 };
        let name = &node.shared.commands.get(id).name;
        out.field(
            format_args!("cmdstat_{name}"),
            format_args!(
                "calls={calls},usec={micros},usec_per_call={each:.2},rejected_calls={rejected},failed_calls={failed}"
            ),
        );
    }
}

/// The percentiles of each command's times, in microseconds.
pub fn latencies(node: &Node, out: &mut Fields) {
    let config = node.config.load();
    let percentiles = &config.latency_tracking_info_percentiles.0;
    for id in 0..node.shared.commands.len() {
        let Some(sum) = times(node, id) else { continue };
        let shown =
            |p: &f64| format!("p{}={:.3}", Percentiles::shown(*p), sum.percentile(*p) as f64 / 1000.0);
        let all: Vec<String> = percentiles.iter().map(shown).collect();
        let name = &node.shared.commands.get(id).name;
        out.field(format_args!("latency_percentiles_usec_{name}"), all.join(","));
    }
}

pub fn errors(node: &Node, out: &mut Fields) {
    for (code, count) in Errors::of(node.records.counters.commands.iter().map(|stats| &**stats)) {
        out.field(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}
