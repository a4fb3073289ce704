//! Packets as bytes.

use super::{
    Body, EXTENSION_HEADER_LEN, Gossip, HEADER_LEN, Header, IP_LEN, Kind, Message, SIGNATURE, VERSION,
    extension,
};
use crate::cluster::node::NodeId;

impl Message {
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
