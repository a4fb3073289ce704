//! Packets of the cluster bus, byte for byte (bus protocol version 1, signature `RCmb`).
//!
//! A packet is a 2,256-byte header that repeats the sender's whole configuration, and a body that
//! depends on the type. All integers are in network byte order. Offsets in the header:
//!
//! ```text
//!    0 "RCmb"   4 total length u32    8 version u16   10 port u16   12 type u16   14 count u16
//!   16 currentEpoch u64   24 configEpoch u64   32 replication offset u64   40 sender id [40]
//!   80 slots [2048]   2128 primary's id [40]   2168 ip [46]   2214 extensions u16   2216 unused [30]
//! 2246 other client port u16   2248 bus port u16   2250 flags u16   2252 state u8   2253 mflags [3]
//! ```
//!
//! Source: `clusterMsg` of Redis 7.0 and 7.2 as the servers send it; `tests` holds captured packets.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use super::node::{NodeFlags, NodeId};
use super::slots::SlotBitmap;

/// Bytes of the part that every packet starts with.
pub const HEADER_LEN: usize = 2256;
/// Bytes of a packet at most: a link that brings a longer one is cut. The longest carry a published
/// message, whose parts are bounded by `proto-max-bulk-len`, of which this is the default and some room.
pub const PACKET_MAX: usize = if cfg!(test) { 1 << 20 } else { (512 << 20) + (1 << 20) };
const SIGNATURE: &[u8; 4] = b"RCmb";
const VERSION: u16 = 1;
const GOSSIP_LEN: usize = 104;
const IP_LEN: usize = 46;
/// Length, type and a reserved half word before the data of an extension.
const EXTENSION_HEADER_LEN: usize = 8;

/// Bits of the first byte of `mflags`.
pub mod mflag {
    /// The primary has paused its clients for a manual failover.
    pub const PAUSED: u8 = 1;
    /// Vote even though the primary works: its administrator asked for the failover.
    pub const FORCE_ACK: u8 = 2;
    /// The sender understands extensions.
    pub const EXTENSIONS: u8 = 4;
}

/// Types as numbered on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "the types as the bus protocol names them")]
pub enum Kind {
    Ping = 0,
    Pong = 1,
    Meet = 2,
    Fail = 3,
    Publish = 4,
    AuthRequest = 5,
    AuthAck = 6,
    Update = 7,
    MfStart = 8,
    Module = 9,
    PublishShard = 10,
}

impl Kind {
    /// All types, in the order of their numbers: an array of counters is indexed by `kind as usize`.
    pub const ALL: [Kind; 11] = [
        Kind::Ping,
        Kind::Pong,
        Kind::Meet,
        Kind::Fail,
        Kind::Publish,
        Kind::AuthRequest,
        Kind::AuthAck,
        Kind::Update,
        Kind::MfStart,
        Kind::Module,
        Kind::PublishShard,
    ];

    /// The word in the `cluster_stats_messages_<word>_sent` fields of CLUSTER INFO.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Ping => "ping",
            Kind::Pong => "pong",
            Kind::Meet => "meet",
            Kind::Fail => "fail",
            Kind::Publish => "publish",
            Kind::AuthRequest => "auth-req",
            Kind::AuthAck => "auth-ack",
            Kind::Update => "update",
            Kind::MfStart => "mfstart",
            Kind::Module => "module",
            Kind::PublishShard => "publishshard",
        }
    }
}

/// The part that every packet starts with: what the sender says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name of the sender.
    pub sender: NodeId,
    /// The sender's client port.
    pub port: u16,
    /// The sender's other client port (plain beside TLS, or TLS beside plain); 0 without.
    pub pport: u16,
    /// The sender's bus port.
    pub cport: u16,
    /// Empty: the receiver takes the connection's address.
    pub ip: String,
    /// The sender's own flags.
    pub flags: NodeFlags,
    /// The cluster state as the sender sees it.
    pub state_ok: bool,
    /// See [`mflag`].
    pub mflags: u8,
    /// The greatest epoch that the sender has seen.
    pub current_epoch: u64,
    /// Of the sender, or of its primary when it is a replica.
    pub config_epoch: u64,
    /// Bytes of the replication stream that the sender has written or, as a replica, applied.
    pub offset: u64,
    /// Of the sender, or of its primary when it is a replica.
    pub slots: SlotBitmap,
    /// Whom the sender replicates; `None` for a primary.
    pub primary: Option<NodeId>,
}

/// What the sender says of a third node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipEntry {
    /// Name of that node.
    pub id: NodeId,
    /// Unix seconds, 0 for none.
    pub ping_sent: u32,
    /// Unix seconds, 0 for none.
    pub pong_received: u32,
    /// Its address, as the sender knows it.
    pub ip: String,
    /// Its client port.
    pub port: u16,
    /// Its bus port.
    pub cport: u16,
    /// Its flags, as the sender sees them: how PFAIL spreads.
    pub flags: NodeFlags,
    /// Its other client port; 0 without.
    pub pport: u16,
}

/// What may follow the gossip section.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Extensions {
    /// The sender's `cluster-announce-hostname`; `None`: it announces none.
    pub hostname: Option<String>,
    /// The sender's `cluster-announce-human-nodename`.
    pub human_name: Option<String>,
    /// Node and seconds for which nobody may add it again.
    pub forgotten: Vec<(NodeId, u64)>,
    /// The shard that the sender belongs to.
    pub shard_id: Option<NodeId>,
    /// Number of extensions of types unknown here.
    pub unknown: u32,
}

/// The body of PING, PONG and MEET.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Gossip {
    /// Some of the nodes that the sender knows.
    pub entries: Vec<GossipEntry>,
    /// What stands behind them.
    pub extensions: Extensions,
}

/// The part of a packet that depends on its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Are you there?
    Ping(Gossip),
    /// Yes; also sent unasked when something of the sender has changed.
    Pong(Gossip),
    /// As a ping, but the receiver shall get to know the sender.
    Meet(Gossip),
    /// A majority has found this node to fail.
    Fail(NodeId),
    /// A message for everybody who listens to a channel.
    Publish {
        /// Any name: it has no slot.
        channel: Vec<u8>,
        /// What was published.
        payload: Vec<u8>,
    },
    /// A message for a shard channel; sent within the shard only.
    PublishShard {
        /// Its slot is one of the shard's.
        channel: Vec<u8>,
        /// What was published.
        payload: Vec<u8>,
    },
    /// A replica asks for a vote in the epoch of the header.
    AuthRequest,
    /// The vote of a primary for that epoch.
    AuthAck,
    /// The receiver believes something outdated: this node owns these slots.
    Update {
        /// The owner's, which is newer than the receiver's belief.
        config_epoch: u64,
        /// Name of the owner.
        node: NodeId,
        /// All slots that it owns.
        slots: SlotBitmap,
    },
    /// A replica asks its primary to pause its clients for a manual failover.
    MfStart,
    /// A module's message; nobody here listens.
    Module,
    /// A type of a later version.
    Unknown(u16),
}

impl Body {
    /// `None` for a type of a later version.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Body::Ping(_) => Kind::Ping,
            Body::Pong(_) => Kind::Pong,
            Body::Meet(_) => Kind::Meet,
            Body::Fail(_) => Kind::Fail,
            Body::Publish { .. } => Kind::Publish,
            Body::PublishShard { .. } => Kind::PublishShard,
            Body::AuthRequest => Kind::AuthRequest,
            Body::AuthAck => Kind::AuthAck,
            Body::Update { .. } => Kind::Update,
            Body::MfStart => Kind::MfStart,
            Body::Module => Kind::Module,
            Body::Unknown(_) => return None,
        })
    }
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What the sender says of itself.
    pub header: Header,
    /// What it wants to say.
    pub body: Body,
}

/// Why bytes are not a packet. Always the peer's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// It does not begin with `RCmb`.
    #[error("bad signature")]
    Signature,
    /// The total length of the packet, as it claims.
    #[error("length field {0} is shorter than a header")]
    Length(u32),
    /// Another version of the bus protocol.
    #[error("protocol version {0}")]
    Version(u16),
    /// The part that does not hold together.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// Length of the packet that `buffer` starts with, once enough of it is there to tell.
///
/// The length is the peer's claim: buffer what arrives, never allocate it ahead.
pub fn packet_len(buffer: &[u8]) -> Result<Option<usize>, DecodeError> {
    if !SIGNATURE.starts_with(&buffer[..buffer.len().min(4)]) {
        return Err(DecodeError::Signature);
    }
    let Some(len) = buffer.get(4..8) else { return Ok(None) };
    let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]);
    if (len as usize) < HEADER_LEN {
        return Err(DecodeError::Length(len));
    }
    Ok(Some(len as usize))
}

/// The type of a whole packet, as numbered on the wire.
pub fn kind(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[12], packet[13]])
}

/// Letters, digits, dash, underscore and dot, at most 255 characters: what may be announced as a host name.
pub fn is_host_name(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

/// Types of extensions, as numbered on the wire.
mod extension {
    pub const HOSTNAME: u16 = 0;
    pub const HUMAN_NAME: u16 = 1;
    pub const FORGOTTEN: u16 = 2;
    pub const SHARD_ID: u16 = 3;
}
