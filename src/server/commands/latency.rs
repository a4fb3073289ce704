//! LATENCY: what held the node up, and how long commands take.

use std::fmt::Write as _;

use crate::command::help::help;
use crate::command::spec::{Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result, shown};
use crate::exec::histogram::Sum;
use crate::server::commands::node;
use crate::server::node::latency::Series;
use crate::server::node::{Node, unix_ms};

pub const COMMANDS: &[Command] = &[Command::container("latency", Server, LATENCY).doc(
    "2.8.13",
    "",
    "Commands about how long things take.",
)];

const READ: Flags = ADMIN | NOSCRIPT | LOADING | STALE;
const TIPS: &[&str] = &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

const LATENCY: &[Command] = &[
    Command::new("doctor", 2, Server, doctor).flags(READ).tips(TIPS).complexity("O(1)").doc(
        "2.8.13",
        "",
        "Says in words what held the server up.",
    ),
    Command::new("graph", 3, Server, graph).flags(READ).tips(TIPS).complexity("O(1)").doc(
        "2.8.13",
        "event",
        "Draws how long an event took over time.",
    ),
    Command::new("help", 2, Server, latency_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "2.8.13",
        "",
        "Lists the subcommands.",
    ),
    Command::new("histogram", -2, Server, histogram)
        .flags(READ)
        .tips(TIPS)
        .complexity("O(N) where N is the number of commands with calls")
        .doc("7.0.0", "[command ...]", "Tells how many calls of commands took how long."),
    Command::new("history", 3, Server, history).flags(READ).tips(TIPS).complexity("O(1)").doc(
        "2.8.13",
        "event",
        "Returns the times of an event.",
    ),
    Command::new("latest", 2, Server, latest).flags(READ).tips(TIPS).complexity("O(1)").doc(
        "2.8.13",
        "",
        "Returns the last time of each event.",
    ),
    Command::new("reset", -2, Server, reset)
        .flags(READ)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum"])
        .complexity("O(1)")
        .doc("2.8.13", "[event ...]", "Forgets events."),
];

fn latency_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "latency", LATENCY);
    DONE
}

fn latest(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let events = node(ctx).records.latency.all();
    ctx.reply.array(events.len());
    for (name, series) in &events {
        let Some(last) = series.samples.back() else { continue };
        ctx.reply.array(4);
        ctx.reply.bulk_str(name);
        ctx.reply.int(last.time);
        ctx.reply.int(last.millis as i64);
        ctx.reply.int(series.longest as i64);
    }
    DONE
}

fn history(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let samples =
        node(ctx).records.latency.get(args[2]).map(|(_, series)| series.samples).unwrap_or_default();
    ctx.reply.array(samples.len());
    for sample in &samples {
        ctx.reply.array(2);
        ctx.reply.int(sample.time);
        ctx.reply.int(sample.millis as i64);
    }
    DONE
}

fn reset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let monitor = &node(ctx).records.latency;
    let forgotten = match &args[2..] {
        [] => monitor.reset(None),
        events => events.iter().map(|event| monitor.reset(Some(event))).sum(),
    };
    ctx.reply.int(forgotten as i64);
    DONE
}

fn graph(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some((name, series)) = node(ctx).records.latency.get(args[2]) else {
        let event = shown(args[2]);
        return Err(CommandError::owned(format!("ERR No samples available for event '{event}'")));
    };
    ctx.reply.verbatim("txt", &drawn(name, &series, unix_ms() / 1000));
    DONE
}

/// Columns that a graph has at most, and its rows.
const WIDTH: usize = 80;
const HEIGHT: u64 = 4;

/// One column a sample, the newest at the right; under it, from top to bottom, how long ago it was.
fn drawn(name: &str, series: &Series, now: i64) -> String {
    let samples: Vec<_> = series.samples.iter().rev().take(WIDTH).rev().collect();
    let high = samples.iter().map(|s| s.millis).max().unwrap_or(0);
    let low = samples.iter().map(|s| s.millis).min().unwrap_or(0);
    let mut out = format!(
        "{name} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.longest,
        "-".repeat(WIDTH)
    );
    for row in (1..=HEIGHT).rev() {
        let filled = |millis: u64| (millis - low) * HEIGHT >= (high - low) * row && millis > low;
        let mut line: String = samples.iter().map(|s| if filled(s.millis) { '#' } else { ' ' }).collect();
        if row == 1 {
            line = samples.iter().map(|s| if filled(s.millis) { '#' } else { '_' }).collect();
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let ages: Vec<Vec<char>> = samples.iter().map(|s| age(now - s.time).chars().collect()).collect();
    for row in 0..ages.iter().map(Vec::len).max().unwrap_or(0) {
        let line: String = ages.iter().map(|age| age.get(row).copied().unwrap_or(' ')).collect();
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// A time span with its unit: `12s`, `3m`, `5h`, `2d`.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 86400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// What may help against an event.
fn advice(event: &str) -> &'static str {
    match event {
        "command" | "fast-command" => {
            "look with SLOWLOG GET which commands take long; slow ones on big values are better cut into \
             smaller steps (SCAN in place of KEYS, UNLINK in place of DEL)"
        }
        "expire-cycle" => {
            "many keys end at the same moment; spread their times, or lower active-expire-effort"
        }
        "eviction-cycle" | "eviction-del" => {
            "memory is at its limit; raise maxmemory, or lower maxmemory-eviction-tenacity"
        }
        _ => "look at the disk and at what else runs on this machine",
    }
}

fn doctor(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let threshold = node.config.load().latency_monitor_threshold;
    let events = node.records.latency.all();
    ctx.reply.verbatim("txt", &diagnosis(threshold, &events));
    DONE
}

fn diagnosis(threshold: u64, events: &[(&'static str, Series)]) -> String {
    if events.is_empty() && threshold == 0 {
        return "The latency monitor is off, so nothing is known. Switch it on with CONFIG SET \
                latency-monitor-threshold <milliseconds>, and ask again later.\n"
            .into();
    }
    if events.is_empty() {
        return format!("Nothing has taken {threshold} milliseconds or longer so far.\n");
    }
    let mut text = String::new();
    for (name, series) in events {
        let count = series.samples.len() as u64;
        let mean = series.samples.iter().map(|s| s.millis).sum::<u64>() / count.max(1);
        // A String takes everything.
        let _ = writeln!(
            text,
            "{name}: in {count} seconds, {mean} ms on average, {} ms at most. Advice: {}.",
            series.longest,
            advice(name)
        );
    }
    text
}

/// The times of a command's calls on all threads; `None` without any.
pub fn times(node: &Node, id: usize) -> Option<Sum> {
    let mut sum = None;
    for stats in &node.records.counters.commands {
        stats.add_times(id, &mut sum);
    }
    sum.filter(|sum| sum.calls() > 0)
}

/// The commands that LATENCY HISTOGRAM tells of: a container stands for its subcommands.
fn named(node: &Node, names: &[&[u8]]) -> Vec<usize> {
    let table = &node.shared.commands;
    if names.is_empty() {
        return (0..table.len()).collect();
    }
    let mut ids = Vec::new();
    for name in names {
        let (container, sub) = match name.iter().position(|b| *b == b'|') {
            Some(at) => (&name[..at], Some(&name[at + 1..])),
            None => (*name, None),
        };
        let Some(id) = table.find(container) else { continue };
        match sub {
            Some(sub) => ids.extend(table.find_sub(id, sub)),
            None => ids.extend(std::iter::once(id).chain(table.get(id).subcommands.iter().copied())),
        }
    }
    ids
}

fn histogram(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let known: Vec<_> =
        named(node, &args[2..]).into_iter().filter_map(|id| Some((id, times(node, id)?))).collect();
    let reply = &mut *ctx.reply;
    reply.map(known.len());
    for (id, sum) in &known {
        reply.bulk_str(&node.shared.commands.get(*id).name);
        reply.map(2);
        reply.bulk(b"calls");
        reply.int(sum.calls() as i64);
        reply.bulk(b"histogram_usec");
        let doublings = sum.doublings();
        reply.map(doublings.len());
        for (micros, calls) in doublings {
            reply.int(micros as i64);
            reply.int(calls as i64);
        }
    }
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::node::latency::Sample;

    #[test]
    fn a_graph_shows_the_longest_highest_and_how_long_ago() {
        let samples = [(100, 10), (160, 30), (199, 50)].map(|(time, millis)| Sample { time, millis });
        let series = Series { samples: samples.into(), longest: 70 };
        let text = drawn("command", &series, 200);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "command - high 50 ms, low 10 ms (all time high 70 ms)");
        assert_eq!(lines[1], "-".repeat(80));
        assert_eq!(&lines[2..], ["  #", "  #", " ##", "_##", "141", "m0s", " s"]);
    }
}
