//! Level 7: sockets, files, clocks and threads. Everything above decides; this does.
//!
//! A room may use those above it:
//!
//! | room | holds |
//! |---|---|
//! | [`process`] | what any server process needs: command line, log, signals, daemon, limits, crash report |
//! | [`net`] | sockets: listen, accept, connection, mailbox; TLS; links of the control thread |
//! | [`disk`] | every file: configuration, RDB, nodes.conf |
//! | [`node`] | what all threads share |
//! | [`control`] | the tokio thread: cluster bus, replication links, timers |
//! | [`sentinel`] | watching others: links, the file, scripts of a Sentinel |
//! | [`commands`] | the commands that need the node, one file a family; INFO |
//! | [`worker`] | the rounds: gather, parse, prefetch, run, send |
//! | [`boot`], [`start`], [`shutdown`] | build all of it in order, and end it in order |

// The only level that reads clocks.
#![allow(clippy::disallowed_methods)]

pub mod process;

pub mod net;

pub mod disk;

pub mod node;

pub mod control;

pub mod sentinel;

pub mod commands;

pub mod worker;

pub mod boot;
pub mod shutdown;
pub mod start;
