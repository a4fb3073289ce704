//! The commands that need more than the data and the client: one file a family, each row beside its handler.
//! They reach the node through what its executors carry ([`Ctx::node`]).

use std::sync::Arc;

use crate::command::{Client, Ctx, Families};
use crate::server::node::Node;

mod acl;
mod client_admin;
mod cluster;
mod command;
mod config;
mod connection;
mod debug;
mod docs;
pub mod info;
mod latency;
mod memory;
pub mod migrate;
mod modules;
mod monitor;
mod process;
pub mod pubsub;
mod replication;
mod saving;
pub mod scripting;
pub mod sentinel;
mod slowlog;
mod tracking;

/// The families of this room, for the table of commands.
pub const FAMILIES: &Families = &[
    connection::COMMANDS,
    acl::COMMANDS,
    client_admin::COMMANDS,
    pubsub::COMMANDS,
    info::COMMANDS,
    config::COMMANDS,
    command::COMMANDS,
    process::COMMANDS,
    debug::COMMANDS,
    saving::COMMANDS,
    replication::COMMANDS,
    cluster::COMMANDS,
    migrate::COMMANDS,
    scripting::COMMANDS,
    sentinel::COMMANDS,
    slowlog::COMMANDS,
    latency::COMMANDS,
    monitor::COMMANDS,
    memory::COMMANDS,
    modules::COMMANDS,
];

/// The node that a handler runs on.
fn node<'c>(ctx: &Ctx<'c, '_, '_>) -> &'c Arc<Node> {
    ctx.node.downcast_ref().expect("every executor of the server is given its node")
}

/// What a client leaves behind when its connection closes. `waited`: it was suspended.
pub fn on_close(node: &Arc<Node>, client: &mut Client, waited: bool) {
    node.stop_monitoring(client);
    node.stop_tracking(client);
    pubsub::forget(node, client);
    crate::server::control::replication::on_close(node, client, waited);
}

/// What a client leaves behind when its connection becomes a replica's.
pub fn on_detach(node: &Node, client: &mut Client) {
    node.stop_monitoring(client);
    node.stop_tracking(client);
    pubsub::forget(node, client);
}
