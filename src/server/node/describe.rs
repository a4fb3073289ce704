//! Clients in one line each, as CLIENT LIST and the log show them.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::base::time::UnixMs;
use crate::command::Client;
use crate::server::node::Node;
use crate::server::node::connected::{ClientEntry, ClientState};

/// Seconds that a connection has existed.
pub fn age_seconds(node: &Node, created: UnixMs) -> u64 {
    u64::try_from(node.steady_ms() - created).unwrap_or(0) / 1000
}

/// The line of CLIENT LIST of a client, for the log.
pub fn describe_client(node: &Node, entry: &ClientEntry) -> String {
    let mut line = String::new();
    describe(node, None, entry, &mut line);
    line.truncate(line.trim_end().len());
    line
}

/// The line of CLIENT LIST of a client that runs a command at this moment.
pub fn describe_running(node: &Node, client: &Client, name: &str, args: &[&[u8]]) -> String {
    let mut line = String::new();
    if let Some(entry) = node.people.clients.get(client.id) {
        // The stand-in of a client that was blocked has no address: all of it is in its entry.
        let own = (!client.addr.is_empty()).then_some((client, name, args));
        describe(node, own, &entry, &mut line);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Who asks for a line of CLIENT LIST, and by what: the name of the command and its arguments.
pub type Asking<'a> = (&'a Client, &'a str, &'a [&'a [u8]]);

/// Appends the line of a client.
pub fn describe(node: &Node, asking: Option<Asking<'_>>, entry: &ClientEntry, out: &mut String) {
    let own = asking.filter(|(client, ..)| client.id == entry.id);
    let mut usage = *entry.usage.lock();
    if let Some((_, _, args)) = own {
        usage.see_running(args);
    }
    let state = own.map_or_else(|| entry.state.lock().clone(), |(client, ..)| ClientState::of(client));
    let blocked = entry.blocked.load(Ordering::Relaxed) || entry.paused.load(Ordering::Relaxed);
    let flags = state.marks.text(blocked);
    let last_seen = entry.last_seen.load(Ordering::Relaxed);
    let idle = if own.is_some() { 0 } else { (node.steady_ms() / 1000 - last_seen).max(0) };
    let command = match (own, entry.last_command.load(Ordering::Relaxed)) {
        (Some((client, name, _)), _) => client.runs_others.unwrap_or(name).to_owned(),
        (None, id) if id < node.shared.commands.len() => node.shared.commands.get(id).name.clone(),
        _ => "NULL".to_owned(),
    };
    // A String takes everything.
    let _ = writeln!(
        out,
        "id={} addr={} laddr={} fd={} name={} age={} idle={idle} flags={flags} db={} sub={} psub={} ssub={} multi={} watch={} qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events={} cmd={command} user={} redir={} resp={} lib-name={} lib-ver={}",
        entry.id,
        entry.addr,
        entry.local_addr,
        entry.fd,
        String::from_utf8_lossy(&state.name),
        age_seconds(node, entry.created),
        state.db,
        state.channels,
        state.patterns,
        state.shard_channels,
        state.multi,
        state.watched,
        usage.query,
        usage.query_free,
        usage.argv,
        usage.multi,
        usage.output,
        usage.reply_peak,
        usage.output,
        usage.pieces,
        usage.listed,
        usage.total,
        if usage.output > 0 { "rw" } else { "r" },
        state.user,
        state.redirection,
        if state.resp3 { 3 } else { 2 },
        String::from_utf8_lossy(&state.lib_name),
        String::from_utf8_lossy(&state.lib_ver),
    );
}
