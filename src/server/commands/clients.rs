//! CLIENT, as far as it concerns more than the asking connection.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::Client;
use crate::command::request::{ClientKind, ClientRequest, KillFilter, ListFilter};
use crate::exec::After;
use crate::resp::Reply;
use crate::server::commands::{age_seconds, fail};
use crate::server::net::mailbox::Mail;
use crate::server::node::clients::{ClientEntry, ClientState};
use crate::server::node::{Node, unix_ms};

pub fn perform(node: &Node, client: &mut Client, request: ClientRequest, reply: &mut Reply) -> After {
    match request {
        ClientRequest::Info => {
            let mut text = String::new();
            if let Some(entry) = node.clients.get(client.id) {
                describe(node, client, &entry, "client|info", &mut text);
            }
            reply.verbatim("txt", &text);
        }
        ClientRequest::List(filter) => list(node, client, &filter, reply),
        ClientRequest::KillAddress(address) => {
            let found = node.clients.all().into_iter().find(|e| e.addr.as_bytes() == address);
            match found {
                Some(entry) => {
                    kill(node, client, &entry);
                    reply.ok();
                }
                None => fail(node, client, reply, "ERR No such client"),
            }
        }
        ClientRequest::Kill(filter) => {
            let all = node.clients.all();
            let mut killed = 0;
            for entry in &all {
                if is_meant(client, entry, &filter) {
                    kill(node, client, entry);
                    killed += 1;
                }
            }
            reply.int(killed);
        }
        ClientRequest::Pause { for_ms, all } => {
            node.pause_clients(for_ms, all);
            reply.ok();
        }
        ClientRequest::Unpause => {
            node.unpause_clients();
            reply.ok();
        }
        ClientRequest::Unblock { id, with_error } => {
            let entry = node.clients.get(id);
            // Whoever lowers the flag is the one that unblocked the client.
            let unblocked = entry.filter(|e| e.blocked.swap(false, Ordering::AcqRel));
            if let Some(entry) = &unblocked {
                let token = entry.token.load(Ordering::Relaxed);
                node.send(entry.worker, Mail::Unblock { token, client: id, with_error });
            }
            reply.int(i64::from(unblocked.is_some()));
        }
    }
    After::Done
}

fn kind(entry: &ClientEntry) -> ClientKind {
    let state = entry.state.lock();
    ClientKind::of(entry.role, state.channels + state.patterns + state.shard_channels > 0)
}

fn is_meant(client: &Client, entry: &ClientEntry, filter: &KillFilter) -> bool {
    let is = |wanted: &Option<Vec<u8>>, value: &[u8]| wanted.as_ref().is_none_or(|w| w == value);
    filter.id.is_none_or(|id| id == entry.id)
        && filter.kind.is_none_or(|wanted| wanted == kind(entry))
        && is(&filter.user, entry.state.lock().user.as_bytes())
        && is(&filter.address, entry.addr.as_bytes())
        && is(&filter.local_address, entry.local_addr.as_bytes())
        && filter.max_age.is_none_or(|age| age_seconds(entry.created) >= age)
        && !(filter.skip_me && entry.id == client.id)
}

fn kill(node: &Node, client: &mut Client, entry: &Arc<ClientEntry>) {
    if entry.id == client.id {
        // It still gets the reply.
        client.close_after_reply = true;
        return;
    }
    let token = entry.token.load(Ordering::Relaxed);
    node.send(entry.worker, Mail::Kill { token, client: entry.id, after_reply: false });
}

fn list(node: &Node, client: &Client, filter: &ListFilter, reply: &mut Reply) {
    let entries = match filter {
        ListFilter::Ids(ids) => ids.iter().filter_map(|id| node.clients.get(*id)).collect(),
        _ => node.clients.all(),
    };
    let mut text = String::new();
    for entry in &entries {
        if let ListFilter::Kind(wanted) = filter
            && *wanted != kind(entry)
        {
            continue;
        }
        describe(node, client, entry, "client|list", &mut text);
    }
    reply.verbatim("txt", &text);
}

/// A line of CLIENT LIST. `own`: the command that the asking client runs.
fn describe(node: &Node, asking: &Client, entry: &ClientEntry, own: &str, out: &mut String) {
    let is_self = asking.id == entry.id;
    let state = if is_self { ClientState::of(asking, false) } else { entry.state.lock().clone() };
    let blocked = entry.blocked.load(Ordering::Relaxed);
    let flags = match (blocked, state.flags.as_str()) {
        (true, "N") => "b".to_owned(),
        (true, flags) => format!("{flags}b"),
        (false, flags) => flags.to_owned(),
    };
    let last_seen = entry.last_seen.load(Ordering::Relaxed);
    let idle = if is_self { 0 } else { (unix_ms() / 1000 - last_seen).max(0) };
    let command = match entry.last_command.load(Ordering::Relaxed) {
        _ if is_self => own.to_owned(),
        id if id < node.shared.commands.len() => node.shared.commands.get(id).name.clone(),
        _ => "NULL".to_owned(),
    };
    let query = entry.query_bytes.load(Ordering::Relaxed);
    let output = entry.output_bytes.load(Ordering::Relaxed);
    let size = size_of::<crate::server::net::connection::Connection>() + size_of::<ClientEntry>();
    // A String takes everything.
    let _ = writeln!(
        out,
        "id={} addr={} laddr={} fd={} name={} age={} idle={idle} flags={flags} db={} sub={} psub={} ssub={} multi={} watch={} qbuf={query} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} omem={output} tot-mem={} events={} cmd={command} user={} redir=-1 resp={} lib-name={} lib-ver={}",
        entry.id,
        entry.addr,
        entry.local_addr,
        entry.fd,
        String::from_utf8_lossy(&state.name),
        age_seconds(entry.created),
        state.db,
        state.channels,
        state.patterns,
        state.shard_channels,
        state.multi,
        state.watched,
        usize::from(output > 0),
        size + query + output,
        if output > 0 { "rw" } else { "r" },
        state.user,
        if state.resp3 { 3 } else { 2 },
        String::from_utf8_lossy(&state.lib_name),
        String::from_utf8_lossy(&state.lib_ver),
    );
}
