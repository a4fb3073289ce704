//! The gate: conditions of the node and of the client that may refuse a command, as bits, so that
//! the common case is one test.

use super::spec::{Command, flags};

// Conditions of the node.
/// Data are being loaded.
pub const LOADING: u32 = 1 << 0;
/// A replica without its primary that must not serve stale data.
pub const STALE: u32 = 1 << 1;
/// A replica that takes no writes.
pub const READ_ONLY: u32 = 1 << 2;
/// There is a memory limit to look at.
pub const MEMORY_LIMIT: u32 = 1 << 3;
/// The last save failed and `stop-writes-on-bgsave-error` is set.
pub const SAVE_FAILED: u32 = 1 << 4;
/// Fewer good replicas than `min-replicas-to-write`.
pub const FEW_REPLICAS: u32 = 1 << 5;
/// Keys belong to slots that this node may not own.
pub const CLUSTER: u32 = 1 << 6;
/// Writes wait: CLIENT PAUSE WRITE or a failover under way.
pub const PAUSED_WRITES: u32 = 1 << 7;
/// Everything waits: CLIENT PAUSE ALL.
pub const PAUSED_ALL: u32 = 1 << 8;
/// Loading has begun only a moment ago: a client that would be told -LOADING waits instead.
pub const LOADS_UNSEEN: u32 = 1 << 10;
/// The append-only file cannot be written.
pub const LOG_FAILED: u32 = 1 << 9;

// Conditions of the client.
/// The client must say AUTH or HELLO first.
pub const UNAUTHENTICATED: u32 = 1 << 16;
/// The client listens to channels by RESP2, where most commands would mix replies with messages.
pub const SUBSCRIBED: u32 = 1 << 17;
/// Of a client: its user may not do everything. Of the node: rights were changed, and the conditions of some clients
/// are not updated yet.
pub const RESTRICTED: u32 = 1 << 20;
/// The client monitors: to Redis it is a kind of replica, which must leave keys alone.
pub const MONITORS: u32 = 1 << 21;
/// Commands are queued until EXEC.
pub const IN_MULTI: u32 = 1 << 18;
/// The command before was ASKING.
pub const ASKING: u32 = 1 << 19;

/// Conditions of the node that refuse every write, whoever it comes from.
pub const STOPS_WRITES: u32 = READ_ONLY | SAVE_FAILED | LOG_FAILED | FEW_REPLICAS;

/// Conditions of the node that concern a command that runs a script if the script's own words say so.
pub const OF_SCRIPTS: u32 = STOPS_WRITES | STALE | MEMORY_LIMIT;

/// The conditions that concern a command.
pub const fn needs(c: &Command) -> u32 {
    let mut bits = IN_MULTI | PAUSED_ALL;
    if !c.has(flags::LOADING) {
        bits |= LOADING | LOADS_UNSEEN;
    }
    if !c.has(flags::STALE) {
        bits |= STALE;
    }
    if c.has(flags::WRITE) {
        bits |= STOPS_WRITES;
    }
    if c.has(flags::TELLS_SAVE_FAILED) {
        bits |= SAVE_FAILED | LOG_FAILED;
    }
    if c.flags & (flags::WRITE | flags::MAY_REPLICATE) != 0 {
        bits |= PAUSED_WRITES;
    }
    if c.flags & (flags::READONLY | flags::WRITE | flags::MAY_REPLICATE) != 0 {
        bits |= MONITORS;
    }
    if c.has(flags::DENYOOM) {
        bits |= MEMORY_LIMIT;
    }
    if c.has(flags::RUNS_SCRIPT) {
        bits |= OF_SCRIPTS;
    }
    if !c.keys.is_empty() {
        bits |= CLUSTER;
    }
    if !c.has(flags::KEEPS_ASKING) {
        bits |= ASKING;
    }
    if !c.has(flags::NO_AUTH) {
        bits |= UNAUTHENTICATED | RESTRICTED;
    }
    if !c.has(flags::IN_SUBSCRIBED) {
        bits |= SUBSCRIBED;
    }
    bits
}
