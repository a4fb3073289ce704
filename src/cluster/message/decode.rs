//! Bytes as packets. Whatever is wrong with them is the peer's fault.

use std::net::IpAddr;

use super::{
    Body, DecodeError, EXTENSION_HEADER_LEN, Extensions, GOSSIP_LEN, Gossip, GossipEntry, HEADER_LEN, Header,
    IP_LEN, Message, VERSION, extension, is_host_name, packet_len,
};
use crate::cluster::node::{ID_LEN, NodeFlags, NodeId};
use crate::cluster::slots::{BITMAP_LEN, SlotBitmap};

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
