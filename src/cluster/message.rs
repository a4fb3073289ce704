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

use std::net::IpAddr;

use super::node::{ID_LEN, NodeFlags, NodeId};
use super::slots::{BITMAP_LEN, SlotBitmap};

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

impl Message {
    /// Reads one whole packet. Never panics and allocates no more than a small multiple of its length.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        match packet_len(packet)? {
            Some(len) if len == packet.len() => {}
            _ => return Err(DecodeError::Malformed("length")),
        }
        let (head, body) = packet.split_at(HEADER_LEN);
        let mut r = Reader { bytes: &head[8..] };
        let version = r.u16()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let port = r.u16()?;
        let kind = r.u16()?;
        let count = r.u16()?;
        let current_epoch = r.u64()?;
        let config_epoch = r.u64()?;
        let offset = r.u64()?;
        let sender = r.id()?.ok_or(DecodeError::Malformed("sender id"))?;
        let slots = r.slots()?;
        let primary = r.id()?;
        let ip = r.ip()?;
        let extensions = r.u16()?;
        r.take(30)?;
        let pport = r.u16()?;
        let cport = r.u16()?;
        let flags = NodeFlags(r.u16()?);
        let state_ok = r.take(1)?[0] == 0;
        let mflags = r.take(1)?[0];
        let header = Header {
            sender,
            port,
            pport,
            cport,
            ip,
            flags,
            state_ok,
            mflags,
            current_epoch,
            config_epoch,
            offset,
            slots,
            primary,
        };
        let body = decode_body(kind, count, extensions, &mut Reader { bytes: body })?;
        Ok(Self { header, body })
    }

    /// The whole packet, its total length included.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + 1024);
        encode_header(&self.header, &mut out);
        let (kind, count, extensions) = encode_body(&self.body, &mut out);
        let len = length(out.len());
        out[4..8].copy_from_slice(&len.to_be_bytes());
        out[12..14].copy_from_slice(&kind.to_be_bytes());
        out[14..16].copy_from_slice(&count.to_be_bytes());
        out[2214..2216].copy_from_slice(&extensions.to_be_bytes());
        out
    }
}

/// A length as packets carry it.
fn length(n: usize) -> u32 {
    u32::try_from(n).expect("what is longer than a packet may be is not sent")
}

/// The type, count, extension and length fields are filled in once the body is known.
fn encode_header(h: &Header, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0; 4]);
    put16(out, VERSION);
    put16(out, h.port);
    out.extend_from_slice(&[0; 4]);
    put64(out, h.current_epoch);
    put64(out, h.config_epoch);
    put64(out, h.offset);
    out.extend_from_slice(h.sender.as_bytes());
    out.extend_from_slice(h.slots.as_bytes());
    out.extend_from_slice(h.primary.as_ref().map_or(&NodeId::NULL_BYTES, |p| p.as_bytes()));
    put_text(out, &h.ip, IP_LEN);
    out.extend_from_slice(&[0; 32]);
    put16(out, h.pport);
    put16(out, h.cport);
    put16(out, h.flags.0);
    out.extend_from_slice(&[u8::from(!h.state_ok), h.mflags, 0, 0]);
    debug_assert_eq!(out.len(), HEADER_LEN);
}

/// Returns type, count and number of extensions for the header.
fn encode_body(body: &Body, out: &mut Vec<u8>) -> (u16, u16, u16) {
    let plain = |kind: Kind| (kind as u16, 0, 0);
    match body {
        Body::Ping(g) => encode_gossip(Kind::Ping, g, out),
        Body::Pong(g) => encode_gossip(Kind::Pong, g, out),
        Body::Meet(g) => encode_gossip(Kind::Meet, g, out),
        Body::Fail(id) => {
            out.extend_from_slice(id.as_bytes());
            plain(Kind::Fail)
        }
        Body::Publish { channel, payload } => {
            encode_publish(channel, payload, out);
            plain(Kind::Publish)
        }
        Body::PublishShard { channel, payload } => {
            encode_publish(channel, payload, out);
            plain(Kind::PublishShard)
        }
        Body::AuthRequest => plain(Kind::AuthRequest),
        Body::AuthAck => plain(Kind::AuthAck),
        Body::Update { config_epoch, node, slots } => {
            put64(out, *config_epoch);
            out.extend_from_slice(node.as_bytes());
            out.extend_from_slice(slots.as_bytes());
            plain(Kind::Update)
        }
        Body::MfStart => plain(Kind::MfStart),
        Body::Module => {
            // Module id, length 0, type, and the three bytes that the sender's structure pads with.
            out.extend_from_slice(&[0; 16]);
            plain(Kind::Module)
        }
        Body::Unknown(kind) => (*kind, 0, 0),
    }
}

fn encode_publish(channel: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&length(channel.len()).to_be_bytes());
    out.extend_from_slice(&length(payload.len()).to_be_bytes());
    out.extend_from_slice(channel);
    out.extend_from_slice(payload);
}

fn encode_gossip(kind: Kind, gossip: &Gossip, out: &mut Vec<u8>) -> (u16, u16, u16) {
    for g in &gossip.entries {
        out.extend_from_slice(g.id.as_bytes());
        out.extend_from_slice(&g.ping_sent.to_be_bytes());
        out.extend_from_slice(&g.pong_received.to_be_bytes());
        put_text(out, &g.ip, IP_LEN);
        put16(out, g.port);
        put16(out, g.cport);
        put16(out, g.flags.0);
        put16(out, g.pport);
        put16(out, 0);
    }
    let x = &gossip.extensions;
    let mut extensions = 0;
    let mut extend = |kind: u16, data: &[u8]| {
        // Data is padded with zeros to a multiple of eight bytes.
        let padded = data.len().next_multiple_of(8);
        out.extend_from_slice(&((EXTENSION_HEADER_LEN + padded) as u32).to_be_bytes());
        put16(out, kind);
        put16(out, 0);
        out.extend_from_slice(data);
        out.resize(out.len() + padded - data.len(), 0);
        extensions += 1;
    };
    // Host names end with a zero byte.
    if let Some(name) = &x.hostname {
        extend(extension::HOSTNAME, &[name.as_bytes(), b"\0"].concat());
    }
    if let Some(name) = &x.human_name {
        extend(extension::HUMAN_NAME, &[name.as_bytes(), b"\0"].concat());
    }
    for (id, seconds) in &x.forgotten {
        extend(extension::FORGOTTEN, &[&id.as_bytes()[..], &seconds.to_be_bytes()].concat());
    }
    if let Some(id) = &x.shard_id {
        extend(extension::SHARD_ID, id.as_bytes());
    }
    (kind as u16, gossip.entries.len() as u16, extensions)
}

mod extension {
    pub const HOSTNAME: u16 = 0;
    pub const HUMAN_NAME: u16 = 1;
    pub const FORGOTTEN: u16 = 2;
    pub const SHARD_ID: u16 = 3;
}

fn decode_body(kind: u16, count: u16, extensions: u16, r: &mut Reader<'_>) -> Result<Body, DecodeError> {
    let body = match kind {
        0 => Body::Ping(decode_gossip(count, extensions, r)?),
        1 => Body::Pong(decode_gossip(count, extensions, r)?),
        2 => Body::Meet(decode_gossip(count, extensions, r)?),
        3 => Body::Fail(r.id()?.ok_or(DecodeError::Malformed("failing node's id"))?),
        4 => {
            let (channel, payload) = decode_publish(r)?;
            Body::Publish { channel, payload }
        }
        5 => Body::AuthRequest,
        6 => Body::AuthAck,
        7 => {
            let config_epoch = r.u64()?;
            let node = r.id()?.ok_or(DecodeError::Malformed("updated node's id"))?;
            Body::Update { config_epoch, node, slots: r.slots()? }
        }
        8 => Body::MfStart,
        9 => return Ok(Body::Module),
        10 => {
            let (channel, payload) = decode_publish(r)?;
            Body::PublishShard { channel, payload }
        }
        other => return Ok(Body::Unknown(other)),
    };
    if r.bytes.is_empty() { Ok(body) } else { Err(DecodeError::Malformed("length")) }
}

fn decode_publish(r: &mut Reader<'_>) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    let channel = r.u32()? as usize;
    let payload = r.u32()? as usize;
    Ok((r.take(channel)?.to_vec(), r.take(payload)?.to_vec()))
}

fn decode_gossip(count: u16, extensions: u16, r: &mut Reader<'_>) -> Result<Gossip, DecodeError> {
    if r.bytes.len() < usize::from(count) * GOSSIP_LEN {
        return Err(DecodeError::Malformed("gossip section"));
    }
    let mut entries = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let id = r.id()?.ok_or(DecodeError::Malformed("gossiped id"))?;
        let ping_sent = r.u32()?;
        let pong_received = r.u32()?;
        let ip = r.ip()?;
        let (port, cport, flags, pport) = (r.u16()?, r.u16()?, NodeFlags(r.u16()?), r.u16()?);
        r.u16()?;
        entries.push(GossipEntry { id, ping_sent, pong_received, ip, port, cport, flags, pport });
    }
    let mut x = Extensions::default();
    for _ in 0..extensions {
        decode_extension(&mut x, r)?;
    }
    Ok(Gossip { entries, extensions: x })
}

fn decode_extension(x: &mut Extensions, r: &mut Reader<'_>) -> Result<(), DecodeError> {
    let bad = DecodeError::Malformed("extension");
    let len = r.u32()? as usize;
    let kind = r.u16()?;
    r.u16()?;
    if !len.is_multiple_of(8) {
        return Err(bad);
    }
    let mut data = Reader { bytes: r.take(len.checked_sub(EXTENSION_HEADER_LEN).ok_or(bad)?)? };
    match kind {
        extension::HOSTNAME => x.hostname = Some(data.text()),
        extension::HUMAN_NAME => x.human_name = Some(data.text()),
        extension::FORGOTTEN => x.forgotten.push((data.id()?.ok_or(bad)?, data.u64()?)),
        extension::SHARD_ID => x.shard_id = data.id()?,
        _ => x.unknown += 1,
    }
    Ok(())
}

fn put16(out: &mut Vec<u8>, n: u16) {
    out.extend_from_slice(&n.to_be_bytes());
}

fn put64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_be_bytes());
}

/// `text` in a field of `width` bytes that always ends with a zero byte.
fn put_text(out: &mut Vec<u8>, text: &str, width: usize) {
    let kept = &text.as_bytes()[..text.len().min(width - 1)];
    out.extend_from_slice(kept);
    out.resize(out.len() + width - kept.len(), 0);
}

/// Takes fields off the front; running out of bytes is the peer's fault.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if self.bytes.len() < n {
            return Err(DecodeError::Malformed("length"));
        }
        let (taken, rest) = self.bytes.split_at(n);
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// `None` for the name of nobody.
    fn id(&mut self) -> Result<Option<NodeId>, DecodeError> {
        let bytes = self.take(ID_LEN)?;
        if bytes == NodeId::NULL_BYTES {
            return Ok(None);
        }
        NodeId::parse(bytes).map(Some).ok_or(DecodeError::Malformed("node id"))
    }

    fn slots(&mut self) -> Result<SlotBitmap, DecodeError> {
        let bytes = self.take(BITMAP_LEN)?;
        SlotBitmap::from_bytes(bytes).ok_or(DecodeError::Malformed("slots"))
    }

    /// Empty, hence unknown, if it is neither an address nor a host name (peers may announce one).
    fn ip(&mut self) -> Result<String, DecodeError> {
        let text = Reader { bytes: self.take(IP_LEN)? }.text();
        Ok(if text.parse::<IpAddr>().is_ok() || is_host_name(&text) { text } else { String::new() })
    }

    /// Up to the first zero byte; empty if it is no host name.
    fn text(&self) -> String {
        let end = memchr::memchr(0, self.bytes).unwrap_or(self.bytes.len());
        let text = String::from_utf8_lossy(&self.bytes[..end]);
        if text.bytes().all(|c| c.is_ascii_graphic() && c != b',') {
            text.into_owned()
        } else {
            String::new()
        }
    }
}

/// Letters, digits, dash, underscore and dot, at most 255 characters: what may be announced as a host name.
pub fn is_host_name(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const PING: &[u8] = include_bytes!("../../tests/golden/bus-ping-7.0.bin");
    const MEET: &[u8] = include_bytes!("../../tests/golden/bus-meet-hostname-7.0.bin");
    const PUBLISH: &[u8] = include_bytes!("../../tests/golden/bus-publish-7.0.bin");
    /// One packet of each kind between nodes of 7.4.1: kind, a description, and all bytes in hex.
    const OF_7_4: &str = include_str!("../../tests/golden/bus-packets-7.4.tsv");

    fn id(text: &str) -> NodeId {
        NodeId::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn packets_of_a_real_server_read_and_write_back_byte_for_byte() {
        for packet in [PING, MEET, PUBLISH] {
            let message = Message::decode(packet).unwrap();
            assert_eq!(message.encode(), packet);
        }
    }

    fn packets_of_7_4() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        OF_7_4.lines().skip(1).map(|line| {
            let (kind, hex) = (line.split('\t').next().unwrap(), line.split('\t').next_back().unwrap());
            let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
            (kind, (0..hex.len()).step_by(2).map(byte).collect())
        })
    }

    #[test]
    fn packets_of_7_4_read_and_write_back_byte_for_byte() {
        let mut kinds = Vec::new();
        for (name, packet) in packets_of_7_4() {
            let message = Message::decode(&packet).unwrap();
            assert_eq!(message.encode(), packet, "{name}");
            kinds.extend(message.body.kind());
            let (Body::Ping(gossip) | Body::Pong(gossip) | Body::Meet(gossip)) = message.body else {
                assert_eq!(message.header.mflags & mflag::EXTENSIONS, 0, "{name}");
                continue;
            };
            let x = &gossip.extensions;
            assert_eq!(message.header.mflags & mflag::EXTENSIONS, mflag::EXTENSIONS, "{name}");
            assert!(x.hostname.is_some() && x.human_name.is_some() && x.shard_id.is_some(), "{name}: {x:?}");
        }
        kinds.dedup();
        // All but a module's.
        assert_eq!(kinds.len(), Kind::ALL.len() - 1, "{kinds:?}");
    }

    #[test]
    fn a_meet_of_a_real_server_says_who_and_where() {
        let Message { header, body } = Message::decode(MEET).unwrap();
        assert_eq!(header.sender, id("ed3eb97670f260ebfb5719588a423b403baa9507"));
        assert_eq!((header.port, header.cport, header.flags.0), (21001, 31001, 17));
        assert_eq!((header.current_epoch, header.config_epoch, header.offset), (1, 0, 0));
        assert_eq!(header.slots.ranges(), [(0, 100)]);
        assert_eq!((header.state_ok, header.mflags, header.primary), (true, mflag::EXTENSIONS, None));
        let Body::Meet(gossip) = body else { panic!("{body:?}") };
        assert_eq!(gossip.extensions.hostname.as_deref(), Some("host-a.example"));
        let entry = &gossip.entries[0];
        assert_eq!(entry.id, id("5736f9ab31cf3299d5f435475f4ac7fc60948437"));
        assert_eq!((entry.ip.as_str(), entry.port, entry.cport), ("127.0.0.1", 21002, 31002));
        assert_eq!((entry.ping_sent, entry.pong_received), (0, 0x6b01_9ed0));
    }

    #[test]
    fn a_published_message_of_a_real_server_is_whole() {
        let body = Message::decode(PUBLISH).unwrap().body;
        assert_eq!(body, Body::Publish { channel: b"chan".to_vec(), payload: b"hello".to_vec() });
    }

    /// A message of each type, and all extensions.
    fn one_of_each() -> Vec<Message> {
        let Message { mut header, body } = Message::decode(MEET).unwrap();
        let Body::Meet(mut gossip) = body else { panic!("{body:?}") };
        let node = gossip.entries[0].id;
        header.primary = Some(node);
        header.ip = "fe80::1".into();
        gossip.extensions = Extensions {
            hostname: Some("a".repeat(16)),
            human_name: Some("shop-7".into()),
            forgotten: vec![(node, 59)],
            shard_id: Some(header.sender),
            unknown: 0,
        };
        let slots = header.slots.clone();
        let channel = b"news".to_vec();
        let bodies = vec![
            Body::Ping(gossip.clone()),
            Body::Pong(gossip.clone()),
            Body::Meet(gossip),
            Body::Fail(node),
            Body::Publish { channel: channel.clone(), payload: vec![0; 100] },
            Body::PublishShard { channel, payload: vec![] },
            Body::AuthRequest,
            Body::AuthAck,
            Body::Update { config_epoch: 7, node, slots },
            Body::MfStart,
            Body::Module,
            Body::Unknown(77),
        ];
        bodies.into_iter().map(|body| Message { header: header.clone(), body }).collect()
    }

    #[test]
    fn every_type_reads_back_as_written() {
        for message in one_of_each() {
            assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = Rng::new(5);
        let packets: Vec<Vec<u8>> = one_of_each().iter().map(Message::encode).collect();
        for round in 0..20_000 {
            let mut packet = packets[round % packets.len()].clone();
            if rng.chance(1, 3) {
                packet.truncate(rng.below(packet.len() as u64 + 1) as usize);
            }
            for _ in 0..rng.below(8) {
                if !packet.is_empty() {
                    // Mostly where the structure is, not in the slots.
                    let len = packet.len() as u64;
                    let at = if rng.chance(1, 2) {
                        rng.below(len.min(80))
                    } else {
                        len - 1 - rng.below(len.min(300))
                    };
                    packet[at as usize] = rng.next_u64() as u8;
                }
            }
            if rng.chance(1, 2) && packet.len() >= 8 {
                let len = packet.len() as u32;
                packet[4..8].copy_from_slice(&len.to_be_bytes());
            }
            let _ = Message::decode(&packet);
        }
    }

    #[test]
    fn a_text_that_would_break_nodes_conf_is_dropped() {
        let mut message = one_of_each().swap_remove(0);
        message.header.ip = "1.2.3.4\nvars".into();
        assert_eq!(Message::decode(&message.encode()).unwrap().header.ip, "");
        let Body::Ping(gossip) = &mut message.body else { panic!() };
        gossip.extensions.hostname = Some("a,b c".into());
        message.header.ip.clear();
        let Body::Ping(gossip) = Message::decode(&message.encode()).unwrap().body else { panic!() };
        assert_eq!(gossip.extensions.hostname.as_deref(), Some(""));
    }

    #[test]
    fn the_length_is_known_before_the_packet_is_whole() {
        assert_eq!(packet_len(b""), Ok(None));
        assert_eq!(packet_len(b"RCm"), Ok(None));
        assert_eq!(packet_len(b"GET"), Err(DecodeError::Signature));
        assert_eq!(packet_len(&PING[..8]), Ok(Some(PING.len())));
        assert_eq!(packet_len(b"RCmb\0\0\0\x10"), Err(DecodeError::Length(16)));
    }
}
