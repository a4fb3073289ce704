//! Level 7: sockets, files, clocks and threads. Everything above decides; this does.
//!
//! A room may use those above it, and [`node`], which all share; `tests/layers.rs` keeps this true. Of the rooms below
//! its own place `node` names nothing but the parts that it is made of.
//!
//! | room | holds |
//! |---|---|
//! | [`process`] | what any server process needs: command line, log, signals, daemon, limits, crash report |
//! | [`net`] | sockets: listen, accept, connection, mailbox; TLS; links of the control thread |
//! | [`node`] | what all threads share, by what it is about: people, records, peers, files, its life; what an executor wants of it |
//! | [`disk`] | every file: configuration, RDB, append-only file, nodes.conf |
//! | [`control`] | the tokio thread: cluster bus, replication links, timers |
//! | [`sentinel`] | watching others: links, the file, scripts of a Sentinel |
//! | [`shutdown`] | ends the node in order |
//! | [`commands`] | the commands that need the node, one file a family; INFO |
//! | [`worker`] | the rounds: gather, parse, prefetch, run, send |
//! | [`start`] | builds the node and its threads in order |
//! | [`boot`] | from the command line to a node that runs |

// The only level that reads clocks.
#![allow(clippy::disallowed_methods)]

pub mod process;

pub mod net;

pub mod node;

pub mod disk;

pub mod control;

pub mod sentinel;

pub mod shutdown;

pub mod commands;

pub mod worker;

pub mod start;

pub mod boot;
