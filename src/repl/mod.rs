//! Level 2: replication, as state machines without sockets and clocks.
//!
//! | file | concept |
//! |---|---|
//! | `id` | replication ids, and the history of data that they name |
//! | [`failover`] | a primary hands over to one of its replicas (FAILOVER) |
//! | `psync` | may a replica go on from where it was, or must it copy everything? |
//! | [`primary`] | the replicas of this node: handshake, full synchronisation, acknowledgements, WAIT |
//! | [`replica`] | the link to our primary: handshake, transfer, stream, reconnection |
//! | `word` | what is said about the link itself among the commands of the stream |
//!
//! The driver owns the sockets, the log and the snapshots. It passes events in and carries out the actions that
//! come back, in their order. Offsets count the bytes of the replication stream, as `master_repl_offset` does;
//! PSYNC alone speaks of the first byte *wanted*, which is one more.
//!
//! Source: behaviour of redis-server 7.0.15 and the documentation of replication.

pub mod failover;
mod id;
pub mod primary;
mod psync;
pub mod replica;
mod word;

pub use crate::base::log::Level;
pub use id::{History, ReplId, SavedPosition};
pub use psync::{Refusal, Request, Verdict, Window, decide};
pub use word::{FromPrimary, FromReplica};

/// What a primary appends to the stream when it has nothing to say, so that replicas know that it lives.
pub const PING_RECORD: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// What a primary appends to the stream to hear from all replicas at once, for WAIT.
pub const GETACK_RECORD: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";

#[cfg(test)]
mod tests;
