//! Level 2: the cluster. A node's part in it as a pure state machine, and the packets it speaks.
//!
//! Events go into [`ClusterState::step`], actions come out; `server::control::bus` drives it with sockets, a clock
//! and a disk, `tests/sim` with none of them. Where to look:
//!
//! | file | subject |
//! |---|---|
//! | [`message`] | packets, byte for byte as Redis 7 sends them |
//! | [`node`], [`link`], [`slots`] | nodes, their links, slot bitmaps and owners |
//! | [`state`] | the machine: what goes in, what comes out, in which order |
//! | `receive` | what a packet changes |
//! | `gossip` | what nodes tell of each other |
//! | `links`, `cron` | connections, pings, timers |
//! | `failure` | PFAIL, reports, FAIL, clearing |
//! | `health` | whether the cluster serves |
//! | `election` | who stands when a primary failed, and **where a vote is cast** (`hear_auth_request`) |
//! | `manual` | CLUSTER FAILOVER |
//! | `orphans` | replicas that move to primaries without any |
//! | `ownership` | slot claims, epochs, SETSLOT and its relatives |
//! | `membership` | MEET, FORGET, REPLICATE, RESET |
//! | [`nodes_conf`] | the file, and the text of CLUSTER NODES |
//! | [`view`] | what workers read: who owns a slot |
//! | [`report`] | what the other CLUSTER commands show |
//! | [`config`], [`action`] | settings; events, actions and facts |
//!
//! Source of the rules, unless a file says otherwise: the Redis Cluster specification.

pub mod action;
pub mod config;
mod cron;
mod election;
mod failure;
mod gossip;
mod health;
pub mod link;
mod links;
mod manual;
mod membership;
pub mod message;
pub mod node;
pub mod nodes_conf;
mod orphans;
mod ownership;
mod receive;
pub mod report;
pub mod slots;
pub mod state;
pub mod view;

#[cfg(test)]
mod tests;

pub use action::{Action, Event, Keys, Level, NoKeys, Now, ReplicationFacts};
pub use config::{Config, Endpoint};
pub use link::LinkId;
pub use manual::FailoverMode;
pub use node::{NodeFlags, NodeId, NodeIx};
pub use slots::SlotBitmap;
pub use state::ClusterState;
pub use view::View;
