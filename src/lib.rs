//! Keystead: a Redis-protocol cluster node server that runs commands on every core and never forks.
//!
//! # Layers
//!
//! A module imports only from lines above its own; `tests/layers.rs` keeps this true.
//!
//! | level | modules | knows |
//! |---|---|---|
//! | 0 | [`base`] | nothing: time, seeded random numbers, glob, number text, checksums |
//! | 1 | [`resp`], [`encoding`] | bytes |
//! | 2 | [`value`], [`config`], [`acl`], [`pubsub`], [`cluster`], [`repl`] | their own subject; the last two are pure state machines |
//! | 3 | [`keyspace`] | slots, shards, locks, expiry, eviction, scan, snapshot, waiters, the log |
//! | 4 | [`persist`] | RDB |
//! | 5 | [`command`] | one file a family; specification and handler side by side |
//! | 6 | [`exec`] | the way of a command: sessions, transactions, propagation |
//! | 7 | [`server`] | the only one with sockets, files, clocks, threads |

pub mod base;

pub mod encoding;
pub mod resp;

pub mod acl;
pub mod cluster;
pub mod config;
pub mod pubsub;
pub mod repl;
pub mod value;

pub mod keyspace;

pub mod persist;

pub mod command;

pub mod exec;

pub mod server;
