//! Whole servers, judged from outside: processes, sockets, files, links and other servers.
//!
//! What a single connection sees of a command stands in `tests/sessions`; here is what needs more
//! than that. What Redis does too was first run against a real one (`KEYSTEAD_SERVER=/usr/bin/redis-server`), but
//! not yet `buffers` and `scripting`. In `blocked` the count of a waiting BLPOP and RENAME are as 7.2 documents them, and
//! 7.0 differs; `patience` shows what only this server does.

#[path = "../common/mod.rs"]
mod common;

mod acl;
mod admin;
mod blocked;
mod buffers;
mod changes;
mod clients;
mod clock;
mod cluster;
mod connection;
mod debug;
mod directives;
mod events;
mod expired;
mod failover;
mod families;
mod figures;
mod hostile;
mod keys;
mod maxmemory;
mod observe;
mod patience;
mod persistence;
mod protocol;
mod pubsub;
mod replication;
mod scripting;
mod slots;
mod start;
mod tools;
mod workload;
