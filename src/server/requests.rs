//! What commands ask of the node, fulfilled. One file an area; this one hands out.

use super::node::Node;
use crate::command::{Client, Request};
use crate::exec::After;
use crate::keyspace::Db;
use crate::resp::Reply;

/// Fulfils a request of `client`. Takes no shard lock: `db` holds what there is.
pub fn perform(
    node: &Node,
    request: Request,
    client: &mut Client,
    db: &mut Db<'_, '_>,
    reply: &mut Reply,
) -> After {
    let _ = (node, client, db);
    match request {
        Request::Info { sections } => reply.verbatim("txt", &sections.join(",")),
    }
    After::Done
}

/// What a client leaves behind when its connection closes.
pub fn on_close(node: &Node, client: &mut Client) {
    let _ = (node, client);
}
