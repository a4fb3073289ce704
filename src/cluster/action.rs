//! What goes into the state machine beside packets, and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;

use super::link::LinkId;
use super::node::NodeId;
use super::slots::SlotBitmap;
use super::view::View;
pub use crate::base::log::Level;
use crate::base::time::{MonoMs, UnixMs};

/// Both clocks at one moment. The monotonic one decides; the wall clock only goes into texts and gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of the monotonic clock.
    pub mono: MonoMs,
    /// Milliseconds since 1970.
    pub unix: UnixMs,
}

impl Now {
    /// Wall-clock time of a monotonic moment; 0 stays 0, which means never.
    pub fn to_unix(self, t: MonoMs) -> UnixMs {
        if t == 0 { 0 } else { self.unix - (self.mono as i64 - t as i64) }
    }

    /// Monotonic moment of a wall-clock time; what lies before the origin becomes 1.
    pub fn to_mono(self, t: UnixMs) -> MonoMs {
        if t == 0 { 0 } else { (self.mono as i64 - self.unix.saturating_sub(t)).max(1) as MonoMs }
    }
}

/// What the driver tells the state machine. `link` names the connection; the addresses are those of its two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are told above")]
pub enum Event {
    /// Due at [`next_tick`](super::ClusterState::next_tick) or earlier.
    Tick,
    /// A peer connected to the bus port.
    Accepted { link: LinkId, peer_ip: String, local_ip: String },
    /// A link asked for by [`Action::Connect`] is open.
    Connected { link: LinkId, peer_ip: String, local_ip: String },
    /// A link of either direction failed, was refused or ended. Not for links closed by [`Action::CloseLink`].
    Closed { link: LinkId },
    /// One whole packet, as [`packet_len`](super::message::packet_len) cuts them.
    Received { link: LinkId, packet: Bytes },
}

/// The order is a contract: actions are carried out one after the other, and what follows a
/// `Persist` with `sync` waits until the text is on disk, also when it came from a later step.
#[derive(Clone, Debug)]
pub enum Action {
    /// Replace nodes.conf by `text`, atomically. Without `sync` it need not be on disk before going on.
    Persist {
        /// The whole new file.
        text: String,
        /// Whether what follows waits until the text is on disk.
        sync: bool,
    },
    /// Follow this primary: at a new role, a new primary or a new address of it.
    SetPrimary {
        /// The primary's name.
        id: NodeId,
        /// Its address for replication.
        ip: String,
        /// Its client port.
        port: u16,
    },
    /// Stop replicating and serve as primary with the data that is there.
    BecomePrimary,
    /// From now on workers decide by this view.
    PublishView(Arc<View>),
    /// Open a link; answered by `Connected` or `Closed`.
    Connect {
        /// The id under which the link is spoken of from now on.
        link: LinkId,
        /// The peer's address.
        ip: String,
        /// The peer's bus port.
        port: u16,
    },
    /// Close it now; what was queued on it is dropped. Not answered.
    CloseLink(LinkId),
    /// Queue one packet on an open link.
    Send {
        /// Of either direction.
        link: LinkId,
        /// With its header, ready to be written.
        packet: Bytes,
    },
    /// These slots went to another primary: delete their keys here. The view that says so is published before.
    DropSlotKeys(SlotBitmap),
    /// CLUSTER RESET of a replica empties it.
    FlushAll,
    /// Manual failover: no writes until then, or until `UnpauseClients`.
    PauseClients {
        /// Monotonic milliseconds.
        until: MonoMs,
    },
    /// Ends `PauseClients` before its time.
    UnpauseClients,
    /// Hand a published message to local subscribers.
    Deliver {
        /// Its name, as the publisher gave it.
        channel: Vec<u8>,
        /// What was published.
        payload: Vec<u8>,
        /// A shard channel (SPUBLISH) rather than a global one.
        shard: bool,
    },
    /// Write a line to the log.
    Log {
        /// How loud it is.
        level: Level,
        /// One line, without its end.
        text: String,
    },
}

/// What the state machine must know of replication. Refresh it before each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReplicationFacts {
    /// Own offset: the end of the log of a primary, what a replica has applied.
    pub offset: u64,
    /// Replica: when the present primary last sent something. `None`: never synchronised with it since start.
    pub last_io: Option<MonoMs>,
}

/// What the state machine must know of the data.
pub trait Keys {
    /// Number of keys in one slot.
    fn count_in_slot(&self, slot: u16) -> u64;
    /// Number of all keys.
    fn count(&self) -> u64;
}

/// A node without data.
#[derive(Clone, Copy, Debug)]
pub struct NoKeys;

impl Keys for NoKeys {
    fn count_in_slot(&self, _slot: u16) -> u64 {
        0
    }

    fn count(&self) -> u64 {
        0
    }
}
