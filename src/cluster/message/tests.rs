use super::*;
use crate::base::rng::Rng;

const PING: &[u8] = include_bytes!("../../../tests/golden/bus-ping-7.0.bin");
const MEET: &[u8] = include_bytes!("../../../tests/golden/bus-meet-hostname-7.0.bin");
const PUBLISH: &[u8] = include_bytes!("../../../tests/golden/bus-publish-7.0.bin");
/// One packet of each kind between nodes of 7.4.1: kind, a description, and all bytes in hex.
const OF_7_4: &str = include_str!("../../../tests/golden/bus-packets-7.4.tsv");

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
                let at =
                    if rng.chance(1, 2) { rng.below(len.min(80)) } else { len - 1 - rng.below(len.min(300)) };
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
