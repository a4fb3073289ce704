//! The section of connections.

use std::sync::atomic::Ordering;

use crate::command::client::Role;
use crate::server::node::Node;
use crate::server::node::fields::Fields;

pub fn write(node: &Node, out: &mut Fields) {
    let all = node.people.clients.all();
    let (mut input, mut output) = node.people.clients.recent_buffers(node.steady_s());
    let (mut pubsub, mut watching, mut watched) = (0, 0, 0);
    let (mut replicas, mut timed) = (0, 0);
    for entry in &all {
        replicas += usize::from(entry.role == Role::Replica);
        let usage = *entry.usage.lock();
        input = input.max(usage.query + usage.query_free);
        output = output.max(usage.listed);
        timed +=
            usize::from(entry.blocked.load(Ordering::Relaxed) && entry.times_out.load(Ordering::Relaxed));
        let state = entry.state.lock();
        pubsub += usize::from(state.channels + state.patterns + state.shard_channels > 0);
        watching += usize::from(state.watched > 0);
        watched += state.watched;
    }
    out.field("connected_clients", all.len() - replicas);
    out.field("cluster_connections", crate::server::commands::info::cluster::connections(node));
    out.field("maxclients", node.config.load().maxclients);
    out.field("client_recent_max_input_buffer", input);
    out.field("client_recent_max_output_buffer", output);
    let held = [&node.people.clients.blocked, &node.people.clients.paused].map(|n| n.load(Ordering::Relaxed));
    out.field("blocked_clients", held.iter().sum::<usize>());
    out.field("tracking_clients", node.people.trackers.len());
    out.field("pubsub_clients", pubsub);
    out.field("watching_clients", watching);
    out.field("clients_in_timeout_table", timed);
    out.field("total_watched_keys", watched);
    let blocking = node.shared.keyspace.stats.blocking_keys.load(Ordering::Relaxed);
    out.field("total_blocking_keys", blocking);
    let for_loss = node.shared.keyspace.stats.blocking_keys_for_loss.load(Ordering::Relaxed);
    out.field("total_blocking_keys_on_nokey", for_loss);
}
