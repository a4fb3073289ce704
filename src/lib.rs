//! Keystead: a Redis-protocol cluster node server that runs commands on every core and never forks.
//!
//! # Five ideas
//!
//! 1. **The slot is the unit.** 16,384 slot tables, also outside cluster mode, in 128 shards of one
//!    lock each: [`keyspace`].
//! 2. **Any worker runs any command, under the locks of its keys.** Each command declares its keys;
//!    the executor locks their shards in ascending order: [`exec`]. Nobody sleeps in a lock for long: a
//!    client whose command needs a shard that is held is put aside ([`keyspace::board`]).
//! 3. **One log.** Every change is a RESP record, appended under those locks; replicas are cursors
//!    into it: [`keyspace::log`].
//! 4. **One snapshot, without a fork.** A writer saves the entry that it is about to change, a walk
//!    saves the rest: [`keyspace::snapshot`].
//! 5. **Everything that decides is a pure state machine.** The cluster ([`cluster`]) and replication
//!    ([`repl`]) take events and the time, and return actions; [`server`] carries them out.
//!
//! # Layers
//!
//! A module imports only from lines above its own; `tests/layers.rs` keeps this true.
//!
//! | level | modules | knows |
//! |---|---|---|
//! | 0 | [`base`] | nothing: time, seeded random numbers, glob, number text, checksums |
//! | 1 | [`resp`], [`encoding`] | bytes |
//! | 2 | [`value`], [`config`], [`pubsub`], [`cluster`], [`repl`] | their own subject; the last two are pure state machines |
//! | 3 | [`keyspace`] | slots, shards, locks, expiry, eviction, scan, snapshot, waiters, the log |
//! | 4 | [`persist`] | RDB |
//! | 5 | [`command`] | one file a family; specification and handler side by side |
//! | 6 | [`exec`] | the way of a command: gate, route, transactions, propagation |
//! | 7 | [`server`] | the only one with sockets, files, clocks, threads |
//!
//! # A tour
//!
//! **Where SET runs.** A worker wakes up ([`server::worker`], `Worker::run`), gathers what its
//! connections sent (`worker::segment`), parses up to 64 commands across them ([`resp::request::parse`]),
//! prefetches the memory of their keys, and hands each to [`exec::Executor::execute`]
//! (`worker::batch`). That passes the gate, checks
//! the slot (`exec::route`), locks the key's shard and calls the handler: `set` in
//! [`command::strings`], which calls [`keyspace::Db::set_string`], which finds the entry in a
//! [`keyspace::table::SlotTable`]. What the command recorded goes to the log before the lock is
//! released; the replies are sent once a round.
//!
//! **Who hears of a change.** Whatever changes a key says so with [`keyspace::Db::changed`] and names the
//! event ([`keyspace::event`]): commands, expiry, eviction, a flush, a lost slot. There transactions that
//! watch the key are broken, blocked clients are noted, and events that `notify-keyspace-events` asks for
//! are collected; [`exec`] publishes them before the locks are released. So do invalidations leave for those who
//! keep what they have read ([`keyspace::tracking`]). Who looks at commands and not at keys, MONITOR and the slow
//! log, is shown each call where it ends ([`exec::observe`]).
//!
//! **Where a vote is decided.** `hear_auth_request` in `cluster::election`. The vote leaves only after
//! the `Persist` action before it is on disk: the order of actions is a contract ([`cluster::Action`]).
//! `scripts/sim` runs that machine under a simulated faulty network and a crashing disk.
//!
//! **Where a reply waits for its replicas.** A worker hands what was appended to the log's readers before it sends
//! (`worker::held`); the link of a replica writes at once (`replication::stream`), and the connection's outbox
//! holds what the log was not yet passed on for.
//!
//! **Where an fsync happens.** nodes.conf: `server::disk::nodes_file`. RDB files:
//! [`server::disk::rdb_file::write_file`].
//!
//! **How a replica follows.** `repl::replica` decides, `server::control::replication::link` reads the socket,
//! `server::control::replication::apply` runs the stream on a thread of its own.
//!
//! **How to add a command.** A handler and its row in the family's file under [`command`], or under
//! [`server::commands`] if it needs more than the data and the client; nothing else needs to know: lookup,
//! arity, locks, routing, refusals, propagation and COMMAND all derive from the row ([`command::spec`]).

// Who reads a clock cannot be replayed: see clippy.toml.
#![warn(clippy::disallowed_methods)]

pub mod base;

pub mod encoding;
pub mod resp;

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
