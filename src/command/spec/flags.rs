//! Flags of a command: those that COMMAND INFO lists, and behind [`LOCK_ALL`] a few of our own.

/// A set of flags.
pub type Flags = u64;

/// May change data: refused on read-only replicas and while writes are stopped.
pub const WRITE: Flags = 1 << 0;
/// Reads keys and changes none.
pub const READONLY: Flags = 1 << 1;
/// Refused when memory is over its limit.
pub const DENYOOM: Flags = 1 << 2;
/// For administrators: in the categories `@admin` and `@dangerous`, and hidden from MONITOR.
pub const ADMIN: Flags = 1 << 3;
/// Part of publish and subscribe: in the category `@pubsub`.
pub const PUBSUB: Flags = 1 << 4;
/// Refused inside scripts.
pub const NOSCRIPT: Flags = 1 << 5;
/// May make its client wait: in the category `@blocking`.
pub const BLOCKING: Flags = 1 << 6;
/// Allowed while data are loaded.
pub const LOADING: Flags = 1 << 7;
/// Allowed on a replica that has lost its primary.
pub const STALE: Flags = 1 << 8;
/// MONITOR does not show it.
pub const SKIP_MONITOR: Flags = 1 << 9;
/// The slow log does not record it.
pub const SKIP_SLOWLOG: Flags = 1 << 10;
/// Runs in a slot that is being imported, as if ASKING stood before it.
pub const ASKING: Flags = 1 << 11;
/// Takes no longer on more data than O(log N): in the category `@fast`, all others in `@slow`.
pub const FAST: Flags = 1 << 12;
/// Allowed before authentication.
pub const NO_AUTH: Flags = 1 << 13;
/// Tells replicas something although it changes no data. COMMAND does not show it.
pub const MAY_REPLICATE: Flags = 1 << 14;
/// Where its keys stand depends on its other arguments.
pub const MOVABLE_KEYS: Flags = 1 << 15;
/// Refused while a replica loads beside its old data; only shown, as we never do.
pub const NO_ASYNC_LOADING: Flags = 1 << 16;
/// Refused inside MULTI.
pub const NO_MULTI: Flags = 1 << 17;
/// Allowed while a script runs for too long.
pub const ALLOW_BUSY: Flags = 1 << 18;
/// Takes keys, but may be called without any.
pub const NO_MANDATORY_KEYS: Flags = 1 << 19;

/// Runs with every shard locked: it looks at the whole keyspace.
pub const LOCK_ALL: Flags = 1 << 32;
/// Goes from shard to shard and locks each for its own part only. In a transaction all are locked.
pub const EACH_SHARD: Flags = 1 << 33;
/// Reaches keys that its arguments do not name, by patterns: the executor asks it which locks it needs.
pub const PATTERN_KEYS: Flags = 1 << 34;
/// Runs a script: the executor does it, and decides which locks it takes.
pub const RUNS_SCRIPT: Flags = 1 << 35;
/// Runs what MULTI has queued: the executor does it.
pub const RUNS_QUEUE: Flags = 1 << 36;
/// Served wherever its keys are, also in a slot that is being imported.
pub const ANYWHERE: Flags = 1 << 37;
/// Allowed for a RESP2 client in subscribed mode.
pub const IN_SUBSCRIBED: Flags = 1 << 38;
/// Runs at once inside MULTI instead of being queued.
pub const NOT_QUEUED: Flags = 1 << 39;
/// Leaves ASKING as it is, for the command or the transaction that follows.
pub const KEEPS_ASKING: Flags = 1 << 40;
/// Leaves what CLIENT CACHING said for the command that follows.
pub const KEEPS_CACHING: Flags = 1 << 41;
/// What it answers are messages out of band, which CLIENT REPLY does not silence.
pub const PUSHES: Flags = 1 << 42;
/// Reads the node's counters: what its thread has counted so far is added to them first.
pub const READS_COUNTERS: Flags = 1 << 43;
/// For servers among themselves and developers.
pub const SYSTEM: Flags = 1 << 44;
/// Refused as writes are while saving fails, so that a client that only looks whether the node is well hears of it.
pub const TELLS_SAVE_FAILED: Flags = 1 << 45;
/// A client that waits in it is told when its key goes, or becomes another type.
pub const WAITS_FOR_LOSS: Flags = 1 << 46;

/// Names of the flags that COMMAND shows.
pub const NAMES: &[(Flags, &str)] = &[
    (WRITE, "write"),
    (READONLY, "readonly"),
    (DENYOOM, "denyoom"),
    (ADMIN, "admin"),
    (PUBSUB, "pubsub"),
    (NOSCRIPT, "noscript"),
    (BLOCKING, "blocking"),
    (LOADING, "loading"),
    (STALE, "stale"),
    (SKIP_MONITOR, "skip_monitor"),
    (SKIP_SLOWLOG, "skip_slowlog"),
    (ASKING, "asking"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
    (MOVABLE_KEYS, "movablekeys"),
    (NO_ASYNC_LOADING, "no_async_loading"),
    (NO_MULTI, "no_multi"),
    (ALLOW_BUSY, "allow_busy"),
    (NO_MANDATORY_KEYS, "no_mandatory_keys"),
];
