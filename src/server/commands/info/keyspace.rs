//! The section of databases.

use crate::server::node::fields::Fields;
use crate::server::node::{Node, unix_ms};

pub fn write(node: &Node, out: &mut Fields) {
    let keyspace = &node.shared.keyspace;
    for db in 0..keyspace.databases() as u16 {
        let keys = keyspace.len(db);
        if keys == 0 {
            continue;
        }
        let expires = keyspace.volatile_len(db);
        let ttl = keyspace.mean_deadline(db).map_or(0, |at| (at - unix_ms()).max(0));
        let hashes = keyspace.timed_hashes(db);
        out.field(
            format_args!("db{db}"),
            format_args!("keys={keys},expires={expires},avg_ttl={ttl},subexpiry={hashes}"),
        );
    }
}
