//! What happens to a key, by the names under which `notify-keyspace-events` publishes it.
//!
//! Every change goes with its event through [`super::Db::changed`]. The event decides who is told
//! beside the subscribers: a command that changes a value counts as a change, breaks transactions
//! that watch the key and wakes clients blocked on it; what a node does by itself (expiry, eviction)
//! counts as no change; the groups of a stream are no part of the value that a transaction watches.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::config::compound::KeyspaceEvents;

/// One kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its class, or none for what is not published.
    class: KeyspaceEvents,
    name: &'static str,
    /// Whether it counts as a change since the last save, and goes to the log.
    pub(super) counts: bool,
    /// Whether it breaks transactions that watch the key.
    pub(super) breaks_watch: bool,
    /// Whether clients that are blocked on the key look at it again.
    pub(super) wakes: bool,
}

impl Event {
    /// A command's change of a value.
    const fn of(class: KeyspaceEvents, name: &'static str) -> Self {
        Self { class, name, counts: true, breaks_watch: true, wakes: true }
    }

    /// The same event, not counted: the node does it by itself, or it is part of a change that is counted already.
    pub const fn uncounted(self) -> Self {
        Self { counts: false, ..self }
    }

    /// A change beside the value: of a stream's groups and counters.
    const fn beside(self) -> Self {
        Self { breaks_watch: false, wakes: false, ..self }
    }

    const fn waking(self) -> Self {
        Self { wakes: true, ..self }
    }

    /// The class under which it is published.
    pub const fn class(self) -> KeyspaceEvents {
        self.class
    }

    /// The name under which it is published; empty when it is not.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// Declares events of one class.
macro_rules! events {
    ($class:ident: $($id:ident = $name:literal),* $(,)?) => {
        $(#[doc = concat!("`", $name, "`, in the documentation of keyspace notifications.")]
        pub const $id: Event = Event::of(KeyspaceEvents::$class, $name);)*
    };
}

events!(GENERIC:
    DEL = "del",
    EXPIRE = "expire",
    PERSIST = "persist",
    RENAME_FROM = "rename_from",
    RENAME_TO = "rename_to",
    MOVE_FROM = "move_from",
    MOVE_TO = "move_to",
    COPY_TO = "copy_to",
    RESTORE = "restore",
);

events!(STRING:
    SET = "set",
    SETRANGE = "setrange",
    INCRBY = "incrby",
    INCRBYFLOAT = "incrbyfloat",
    APPEND = "append",
    SETBIT = "setbit",
    PFADD = "pfadd",
);

events!(LIST:
    LPUSH = "lpush",
    RPUSH = "rpush",
    LPOP = "lpop",
    RPOP = "rpop",
    LINSERT = "linsert",
    LSET = "lset",
    LREM = "lrem",
    LTRIM = "ltrim",
    SORTSTORE = "sortstore",
);

events!(SET:
    SADD = "sadd",
    SREM = "srem",
    SPOP = "spop",
    SINTERSTORE = "sinterstore",
    SUNIONSTORE = "sunionstore",
    SDIFFSTORE = "sdiffstore",
);

events!(HASH:
    HSET = "hset",
    HINCRBY = "hincrby",
    HINCRBYFLOAT = "hincrbyfloat",
    HDEL = "hdel",
    HEXPIRE = "hexpire",
    HPERSIST = "hpersist",
);

events!(SORTED_SET:
    ZADD = "zadd",
    ZINCR = "zincr",
    ZREM = "zrem",
    ZREMRANGEBYSCORE = "zremrangebyscore",
    ZREMRANGEBYRANK = "zremrangebyrank",
    ZREMRANGEBYLEX = "zremrangebylex",
    ZPOPMIN = "zpopmin",
    ZPOPMAX = "zpopmax",
    ZRANGESTORE = "zrangestore",
    ZUNIONSTORE = "zunionstore",
    ZINTERSTORE = "zinterstore",
    ZDIFFSTORE = "zdiffstore",
    GEOSEARCHSTORE = "geosearchstore",
    GEORADIUSSTORE = "georadiusstore",
);

events!(STREAM:
    XADD = "xadd",
    XDEL = "xdel",
    XTRIM = "xtrim",
);

macro_rules! beside {
    ($($id:ident = $name:literal),* $(,)?) => {
        $(#[doc = concat!("`", $name, "`, in the documentation of keyspace notifications.")]
        pub const $id: Event = Event::of(KeyspaceEvents::STREAM, $name).beside();)*
    };
}

beside!(
    XSETID = "xsetid",
    XGROUP_CREATE = "xgroup-create",
    XGROUP_SETID = "xgroup-setid",
    XGROUP_CREATECONSUMER = "xgroup-createconsumer",
    XGROUP_DELCONSUMER = "xgroup-delconsumer",
);

/// Those who wait for the group are told that it is gone.
pub const XGROUP_DESTROY: Event = Event::of(KeyspaceEvents::STREAM, "xgroup-destroy").beside().waking();

/// A key is there that was not. Goes before the event of what brought it.
pub const NEW: Event = Event::of(KeyspaceEvents::NEW, "new").uncounted();
/// A key was looked up for reading in vain.
pub const KEYMISS: Event = Event::of(KeyspaceEvents::KEY_MISS, "keymiss").uncounted().beside();
/// The node deleted a key whose time had come.
pub const EXPIRED: Event = Event::of(KeyspaceEvents::EXPIRED, "expired").uncounted();
/// The node deleted a key to make room.
pub const EVICTED: Event = Event::of(KeyspaceEvents::EVICTED, "evicted").uncounted();
/// Fields of a hash went because their time had come.
pub const HEXPIRED: Event = Event::of(KeyspaceEvents::HASH, "hexpired").uncounted();

/// A key was put in without an event of its own: a stream that XGROUP CREATE makes, DEBUG POPULATE.
pub const MADE: Event = Event::of(KeyspaceEvents::NONE, "");
/// Entries of a stream were given to a consumer or acknowledged.
pub const PENDING: Event = Event::of(KeyspaceEvents::NONE, "").beside();
/// A file or a primary brought the key.
pub const LOADED: Event = Event::of(KeyspaceEvents::NONE, "").uncounted();
/// The database was emptied. FLUSHALL and FLUSHDB count their keys themselves.
pub const FLUSHED: Event = Event::of(KeyspaceEvents::NONE, "").uncounted();
/// The slot of the key belongs to another node now.
pub const MOVED_AWAY: Event = Event::of(KeyspaceEvents::NONE, "").uncounted();

/// What the node publishes, for every thread to test.
#[derive(Debug, Default)]
pub struct Wanted(AtomicU16);

impl Wanted {
    /// Without `K` or `E` no class is published.
    pub fn set(&self, events: KeyspaceEvents) {
        let published = events.has(KeyspaceEvents::KEYSPACE) || events.has(KeyspaceEvents::KEYEVENT);
        self.0.store(if published { events.bits() } else { 0 }, Ordering::Relaxed);
    }

    /// Whether one of the classes or forms in `events` is published.
    #[inline(always)]
    pub fn has(&self, events: KeyspaceEvents) -> bool {
        self.0.load(Ordering::Relaxed) & events.bits() != 0
    }
}
