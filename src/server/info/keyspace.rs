//! The section of databases.

use super::Lines;
use crate::server::node::Node;

pub fn write(node: &Node, out: &mut Lines) {
    let keyspace = &node.shared.keyspace;
    for db in 0..keyspace.databases() as u16 {
        let keys = keyspace.len(db);
        if keys == 0 {
            continue;
        }
        let expires = keyspace.volatile_len(db);
        out.field(format_args!("db{db}"), format_args!("keys={keys},expires={expires},avg_ttl=0"));
    }
}
