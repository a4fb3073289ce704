//! Level 7: sockets, files, clocks and threads. Everything above decides; this does.
//!
//! - [`boot`]: from the command line to a running node, and its end;
//! - [`start`]: from a configuration to a running node;
//! - [`node`]: what all threads of a node share;
//! - [`accept`], [`listen`]: how clients come in;
//! - [`control`]: the thread of links and timers;
//! - [`worker`], [`connection`], [`mailbox`]: clients;
//! - [`requests`]: what commands ask of the node;
//! - [`bus`]: the cluster's links, clock and nodes.conf;
//! - [`requests`], [`info`], [`pause`]: what commands ask of the node;
//! - [`replication`]: replicas, the link to our primary, full synchronisation;
//! - [`shutdown`]: the orderly end;
//! - [`cli`], [`logging`], [`process`]: command line, log, and the node as a process;
//! - [`os_error`]: the system's errors in its words;
//! - [`allocator`]: memory, counted.

pub mod accept;
pub mod allocator;
pub mod boot;
pub mod bus;
pub mod cli;
pub mod clients;
pub mod clustering;
pub mod config_file;
pub mod connection;
pub mod control;
pub mod info;
pub mod listen;
pub mod logging;
pub mod mailbox;
pub mod node;
pub mod os_error;
pub mod pause;
pub mod persistence;
pub mod process;
pub mod rates;
pub mod replication;
pub mod requests;
pub mod shutdown;
pub mod start;
pub mod worker;
