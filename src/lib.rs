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
//! 5. **Everything that decides is a pure state machine.** The cluster ([`cluster`]), replication
//!    ([`repl`]) and Sentinel ([`sentinel`]) take events and the time, and return actions; [`server`] carries them out.
//!
//! # Layers
//!
//! A module imports only from lines above its own; `tests/layers.rs` keeps this true.
//!
//! | level | modules | knows |
//! |---|---|---|
//! | 0 | [`base`] | nothing: time, seeded random numbers, glob, number text, checksums |
//! | 1 | [`resp`], [`encoding`] | bytes |
//! | 2 | [`value`], [`config`], [`acl`], [`pubsub`], [`script`], [`cluster`], [`repl`], [`sentinel`] | their own subject; the last three are pure state machines |
//! | 3 | [`keyspace`] | slots, shards, locks, expiry, eviction, scan, snapshot, waiters, the log |
//! | 4 | [`persist`] | RDB, and the parts of an append-only file |
//! | 5 | [`command`] | what rows say; the families, one file each, row and handler side by side |
//! | 6 | [`exec`] | the way of a command: admit, lock, call, log, unlock |
//! | 7 | [`server`] | the only one with sockets, files, clocks, threads |
//!
//! # A tour
//!
//! **Where SET runs.** A worker wakes up ([`server::worker`], `Worker::run`), gathers what its
//! connections sent (`worker::segment`), parses up to 64 commands across them ([`resp::request::parse`]),
//! prefetches the memory of their keys, and hands each to [`exec::Executor::execute`]
//! (`worker::batch`). That asks whether the command may run at all (`exec::admit`) and here (`exec::route`),
//! locks the key's shard ([`keyspace::locks`]), and calls the handler (`exec::call`, the only place that does):
//! `set` in [`command::family::strings`]. The handler calls [`keyspace::Db::set_string`], which finds the entry in a
//! [`keyspace::table::SlotTable`], and says what it did with [`keyspace::Db::changed`]. What the command
//! recorded goes to the log as one unit before the lock is released; the replies are sent once a round.
//!
//! **Who goes first.** Clients that send a few whole requests and read the replies; those that cost more go behind, a
//! twentieth of a millisecond at a time (`worker::turns`). Scripts and long transactions run last, and serve the others
//! from within (`worker::scripts`).
//!
//! **What if the lock is not free.** The client is put aside (`exec::aside`): its worker writes it on the board
//! ([`keyspace::board`]) and goes on with the others; whoever unlocks the shard has it woken, and its command
//! starts again. MIGRATE holds no lock while it talks to the other node: readers go on, a client that would write to
//! one of its keys is put aside, and what the other node took is deleted when its answer comes ([`exec::parcel`]).
//!
//! **Whether a user may.** Users and their rules are [`acl`]; a client that is not all-powerful has a bit in its
//! conditions, and
//! `exec::rights` asks about each of its commands just before they run: a client's, EXEC's, a script's, and those of
//! clients who waited. When rights change, every command is asked about until each worker has looked at its
//! clients (`Node::rights_changed`).
//!
//! **Who hears of a change.** Whatever changes a key says so with [`keyspace::Db::changed`] and names the
//! event ([`keyspace::event`]): commands, expiry, eviction, a flush, a lost slot. There transactions that
//! watch the key are broken, blocked clients are noted ([`keyspace::watch`]), and events that
//! `notify-keyspace-events` asks for are collected. Before the locks are released, [`exec`] publishes the events
//! (`exec::notices`), tells those who keep what they have read that it is stale ([`keyspace::tracking`]), and runs
//! the commands of blocked clients (`exec::blocked`). MONITOR and the slow log, which look at commands and not at
//! keys, are shown each call where it ends ([`exec::observe`]).
//!
//! **What the log is.** Units ([`keyspace::log`]: `unit`), each a command or MULTI to EXEC with its slot; the blocks
//! that are kept (`history`); and registered readers with their positions, for whom blocks are kept and who are
//! woken (`reader`).
//!
//! **Where a vote is decided.** `hear_auth_request` in `cluster::election`. The vote leaves only after
//! the `Persist` action before it is on disk: the order of actions is a contract ([`cluster::Action`]).
//! `scripts/sim` runs that machine under a simulated faulty network and a crashing disk.
//!
//! **Where TLS is.** A session without its socket ([`server::net::tls`]): the worker that owns a connection opens and
//! seals its records (`net::connection`), the control thread those of links (`net::link`). A replica takes its session
//! along when it leaves its worker. Handshakes are rationed in `worker::shaking`.
//!
//! **Where a reply waits for its replicas.** A worker hands what was appended to the log's readers before it sends
//! (`worker::held`); the link of a replica writes at once (`replication::stream`), and the connection's outbox
//! holds what the log was not yet passed on for.
//!
//! **How a sentinel works.** `sentinel::state` takes events and returns actions, `server::sentinel` carries them out; a
//! vote is cast in `sentinel::vote` (`cast`) and told only once it is on disk.
//!
//! **Where an fsync happens.** In `server::disk::file`, where each step that a disk can refuse is one function. Who
//! asks for it: `server::disk::replace`, for every file that is replaced as a whole: nodes.conf
//! (`disk::nodes_file`), the configuration (`disk::config_file`), RDB files
//! ([`write_file`](server::disk::rdb_file::write_file)). The append-only
//! file: `Writer::sync_now` in `disk::aof::writer`, a thread that reads the log; under `appendfsync always` replies
//! wait for it as they wait for replicas.
//!
//! **How a replica follows.** [`repl::replica`] decides, `server::control::replication::following` reads the socket.
//! `load` beside it loads the RDB, and `apply` runs the stream on a thread of its own, through the same
//! [`execute`](exec::Executor::execute) as a client's commands; each goes to our own log as it came, so that
//! replicas of ours see the same offsets.
//!
//! **How a primary is followed.** [`repl::primary`] decides, `feed` in the same folder drives the connection of one
//! replica. `full_sync` takes one snapshot for all that wait; `stream` hands the log to the socket.
//!
//! **How to add a command.** One edit in one file: a handler and its row in `COMMANDS`, under [`command::family`], or
//! under [`server::commands`] if it needs more than the data and the client. Lookup, arity, locks, routing, refusals,
//! propagation and COMMAND all derive from the row ([`command::spec`]). A new file is named once, in the list of
//! families beside it ([`command::family`], [`server::commands`]).
//!
//! **How to add a directive.** A field in [`config::settings`] and a row in [`config::table`], which says its form, its
//! default and what takes effect when it changes.
//!
//! **What a folder holds** stands in a table at the head of its `mod.rs`, which `tests/layers.rs` compares with the
//! files.

// Code that reads a clock cannot be replayed: see clippy.toml.
#![warn(clippy::disallowed_methods)]
// What is public says what it is.
#![warn(missing_docs)]

pub mod base;

pub mod encoding;
pub mod resp;

pub mod acl;
pub mod cluster;
pub mod config;
pub mod pubsub;
pub mod repl;
pub mod script;
pub mod sentinel;
pub mod value;

pub mod keyspace;

pub mod persist;

pub mod command;

pub mod exec;

pub mod server;
