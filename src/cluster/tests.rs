//! One node among scripted peers: what it answers to which packet, and in which order.

mod elections;
mod failures;

use bytes::Bytes;

use super::config::Config;
use super::message::{self, Body, Extensions, Gossip, GossipEntry, Header, Kind, Message, mflag};
use super::node::{NodeFlags, NodeId};
use super::slots::SlotBitmap;
use super::view::View;
use super::{Action, ClusterState, Event, Keys, LinkId, NoKeys, Now, ReplicationFacts};
use crate::base::rng::Rng;

const NOW: Now = Now { mono: 1_000_000, unix: 1_700_000_000_000 };
/// The link on which a scripted peer talks to us.
const IN: LinkId = LinkId::inbound(1);

fn id(digit: char) -> NodeId {
    NodeId::parse(digit.to_string().repeat(40).as_bytes()).unwrap()
}

/// Primaries 5 (ourselves, slots 0-9), 6 (10-19) and 7 (the rest), replica 8 of 7.
fn load() -> ClusterState {
    let line = |n: u16, role: &str, epoch: u16, slots: &str| {
        let id = id(char::from_digit(u32::from(n), 10).unwrap());
        format!("{id} 10.0.0.{n}:700{n}@1700{n} {role} 0 0 {epoch} connected {slots}\n")
    };
    let text = line(5, "myself,master -", 5, "0-9")
        + &line(6, "master -", 6, "10-19")
        + &line(7, "master -", 7, "20-16383")
        + &line(8, &format!("slave {}", id('7')), 7, "")
        + "vars currentEpoch 9 lastVoteEpoch 8\n";
    ClusterState::load(Config::default(), Rng::new(1), NOW, &text).unwrap()
}

/// After its first round: its links to all are up.
fn node() -> ClusterState {
    let mut state = load();
    let actions = state.step(NOW, Event::Tick);
    for action in actions {
        if let Action::Connect { link, ip, .. } = action {
            state.step(NOW, Event::Connected { link, peer_ip: ip, local_ip: "10.0.0.5".into() });
        }
    }
    state.step(NOW, Event::Accepted { link: IN, peer_ip: "10.0.0.9".into(), local_ip: "10.0.0.5".into() });
    state
}

/// What a peer says of itself.
fn header(sender: char, config_epoch: u64, slots: &[(u16, u16)], primary: Option<char>) -> Header {
    let n = sender.to_digit(16).unwrap() as u16;
    let role = if primary.is_some() { NodeFlags::SLAVE } else { NodeFlags::MASTER };
    Header {
        sender: id(sender),
        port: 7000 + n,
        pport: 0,
        cport: 17000 + n,
        ip: format!("10.0.0.{n}"),
        flags: role | NodeFlags::MYSELF,
        state_ok: true,
        mflags: mflag::EXTENSIONS,
        current_epoch: 9,
        config_epoch,
        offset: 0,
        slots: slots.iter().flat_map(|(a, b)| *a..=*b).collect::<SlotBitmap>(),
        primary: primary.map(id),
    }
}

fn hear(state: &mut ClusterState, header: Header, body: Body) -> Vec<Action> {
    let packet = Bytes::from(Message { header, body }.encode());
    state.step(NOW, Event::Received { link: IN, packet })
}

fn ping() -> Body {
    Body::Ping(Gossip::default())
}

/// Types of the packets sent, in order.
fn sent(actions: &[Action]) -> Vec<Kind> {
    let packets = actions.iter().filter_map(|a| match a {
        Action::Send { packet, .. } => Some(Message::decode(packet).unwrap()),
        _ => None,
    });
    packets.filter_map(|m| m.body.kind()).collect()
}

fn persists_first(actions: &[Action]) -> bool {
    matches!(actions.first(), Some(Action::Persist { sync: true, .. }))
}

/// Makes 7 fail here, as the others see it.
fn seven_fails(state: &mut ClusterState) {
    hear(state, header('6', 6, &[(10, 19)], None), Body::Fail(id('7')));
}

fn request(epoch: u64, slots: &[(u16, u16)]) -> Header {
    Header { current_epoch: epoch, ..header('8', 7, slots, Some('7')) }
}

#[test]
fn a_vote_leaves_after_it_is_on_disk_and_once_an_epoch() {
    let mut state = node();
    seven_fails(&mut state);
    // 8 talks to us on a connection of its own.
    state.step(NOW, Event::Closed { link: IN });
    state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    let actions = hear(&mut state, request(10, &[(20, 16383)]), Body::AuthRequest);
    assert!(persists_first(&actions), "{actions:?}");
    let Some(Action::Persist { text, .. }) = actions.first() else { panic!() };
    assert!(text.contains("currentEpoch 10 lastVoteEpoch 10"), "{text}");
    assert_eq!(sent(&actions), [Kind::AuthAck]);
    let again = hear(&mut state, request(10, &[(20, 16383)]), Body::AuthRequest);
    assert_eq!(sent(&again), [], "a second vote in one epoch");
    let soon = hear(&mut state, request(11, &[(20, 16383)]), Body::AuthRequest);
    assert_eq!(sent(&soon), [], "a second vote about one primary within two timeouts");
}

/// As Redis, the directive takes any number of milliseconds up to 2^63 - 1.
#[test]
fn the_longest_node_timeout_is_no_fault_in_the_sums() {
    for node_timeout_ms in [(1 << 63) - 1, (1 << 62) + 1, u64::MAX] {
        let config = Config {
            node_timeout_ms,
            ping_interval_ms: node_timeout_ms,
            replica_validity_factor: i32::MAX as u64,
            ..Config::default()
        };
        // A voter, which heard of the failure and votes.
        let mut state = node();
        state.set_config(NOW, config.clone());
        seven_fails(&mut state);
        state.step(NOW, Event::Closed { link: IN });
        state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
        let actions = hear(&mut state, request(10, &[(20, 16383)]), Body::AuthRequest);
        assert_eq!(sent(&actions), [Kind::AuthAck]);
        hear(&mut state, request(11, &[(20, 16383)]), Body::AuthRequest);
        assert_eq!(state.count_failure_reports(NOW, &id('7')), Ok(0));
        // The replica: stands, and asks.
        let text = state.nodes_conf().replace("myself,", "").replace("slave ", "myself,slave ");
        let mut replica = ClusterState::load(config, Rng::new(1), NOW, &text).unwrap();
        replica.set_replication_facts(ReplicationFacts { offset: 1, last_io: Some(NOW.mono) });
        let mut asked = false;
        for second in 0..5 {
            let now = Now { mono: NOW.mono + second * 1000, ..NOW };
            for action in replica.step(now, Event::Tick) {
                match action {
                    Action::Connect { link, ip, .. } => {
                        replica.step(now, Event::Connected { link, peer_ip: ip, local_ip: String::new() });
                    }
                    action => asked |= sent(&[action]).contains(&Kind::AuthRequest),
                }
            }
            assert!(replica.next_tick() > now.mono);
        }
        assert!(asked, "the timeout does not keep it from standing");
    }
}

#[test]
fn no_vote_for_an_old_epoch_a_working_primary_or_an_outdated_claim() {
    for (fails, epoch, config_epoch, granted) in
        [(true, 10, 7, true), (true, 8, 7, false), (false, 10, 7, false), (true, 10, 3, false)]
    {
        let mut state = node();
        if fails {
            seven_fails(&mut state);
            state.step(NOW, Event::Closed { link: IN });
            state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
        }
        let claim = Header { config_epoch, ..request(epoch, &[(20, 16383)]) };
        let actions = hear(&mut state, claim, Body::AuthRequest);
        assert_eq!(sent(&actions).contains(&Kind::AuthAck), granted, "{fails} {epoch} {config_epoch}");
    }
}

#[test]
fn slots_taken_by_a_higher_epoch_are_dropped_and_by_a_lower_one_answered_with_an_update() {
    let mut state = node();
    let actions = hear(&mut state, header('6', 8, &[(5, 19)], None), ping());
    assert!(persists_first(&actions));
    let lost = actions.iter().find_map(|a| match a {
        Action::DropSlotKeys(slots) => Some(slots.ranges()),
        _ => None,
    });
    assert_eq!(lost, Some(vec![(5, 9)]));
    assert_eq!(state.slot_owner(5), Some(id('6')));
    let mut state = node();
    let actions = hear(&mut state, header('6', 4, &[(5, 19)], None), ping());
    assert_eq!(state.slot_owner(5), Some(id('5')));
    assert_eq!(sent(&actions), [Kind::Pong, Kind::Update]);
}

/// Found by the simulator's moving slots: 7 gave slot 20 to 6, whose epoch is lower, and is heard first.
#[test]
fn a_slot_that_its_owner_claims_no_more_goes_to_whoever_does() {
    let mut state = node();
    hear(&mut state, header('7', 7, &[(21, 16383)], None), ping());
    assert_eq!(
        state.slot_owner(20),
        Some(id('7')),
        "better a redirection too many than a slot without owner"
    );
    state.step(NOW, Event::Closed { link: IN });
    state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    let actions = hear(&mut state, header('6', 6, &[(10, 20)], None), ping());
    assert_eq!(state.slot_owner(20), Some(id('6')));
    assert_eq!(sent(&actions), [Kind::Pong], "nothing is said for 7 that it does not say itself");
}

#[test]
fn a_primary_that_lost_its_last_slot_follows_who_took_it() {
    let mut state = node();
    let actions = hear(&mut state, header('6', 9, &[(0, 19)], None), ping());
    let follows = actions.iter().find_map(|a| match a {
        Action::SetPrimary { id, ip, port } => Some((*id, ip.as_str(), *port)),
        _ => None,
    });
    assert_eq!(follows, Some((id('6'), "10.0.0.6", 7006)));
    assert!(!actions.iter().any(|a| matches!(a, Action::DropSlotKeys(_))), "a full sync replaces the data");
}

/// Found by the simulator (seed 46 of its first version): a packet from before a role change arrives,
/// on the other of two connections, after one from after it. The header of a replica carries its
/// primary's epoch, here ours; taken for its own it looked like two primaries with one epoch.
#[test]
fn a_late_packet_of_a_former_primary_is_no_epoch_collision() {
    let mut state = node();
    hear(&mut state, header('6', 5, &[(0, 9)], Some('5')), ping());
    hear(&mut state, header('6', 4, &[(10, 19)], None), ping());
    assert_eq!((state.my_info().config_epoch, state.current_epoch()), (5, 9));
}

#[test]
fn of_two_primaries_with_one_epoch_the_one_with_the_smaller_name_takes_another() {
    let mut state = node();
    let actions = hear(&mut state, header('6', 5, &[(10, 19)], None), ping());
    // 6 was known with a higher epoch; what counts is what it says now.
    assert_eq!((state.my_info().config_epoch, state.current_epoch()), (10, 10));
    assert!(persists_first(&actions));
}

#[test]
fn a_stranger_is_answered_and_joins_by_meet_only() {
    let mut state = node();
    let stranger = || header('a', 1, &[], None);
    let actions = hear(&mut state, stranger(), ping());
    assert_eq!((sent(&actions), state.node_infos().len()), (vec![Kind::Pong], 4));
    let actions = hear(&mut state, stranger(), Body::Meet(Gossip::default()));
    let connect = actions.iter().find_map(|a| match a {
        Action::Connect { link, ip, port } => Some((*link, ip.as_str(), *port)),
        _ => None,
    });
    let Some((link, "10.0.0.10", 17010)) = connect else { panic!("{actions:?}") };
    let (peer_ip, local_ip) = ("10.0.0.10".into(), "10.0.0.5".into());
    let actions = state.step(NOW, Event::Connected { link, peer_ip, local_ip });
    assert_eq!(sent(&actions), [Kind::Ping]);
    let packet = Message { header: stranger(), body: Body::Pong(Gossip::default()) }.encode().into();
    state.step(NOW, Event::Received { link, packet });
    let info = state.node_infos().into_iter().find(|n| n.id == id('a')).expect("known by its name now");
    assert!(info.connected && !info.flags.has(NodeFlags::HANDSHAKE));
}

#[test]
fn a_known_node_that_answers_to_meet_is_where_it_answered() {
    let mut state = node();
    state.meet(NOW, "10.0.0.66", 7066, 0).unwrap();
    let actions = state.take_actions();
    let link = actions.iter().find_map(|a| match a {
        Action::Connect { link, .. } => Some(*link),
        _ => None,
    });
    let link = link.expect("it connects to who is met");
    state.step(NOW, Event::Connected { link, peer_ip: "10.0.0.66".into(), local_ip: "10.0.0.5".into() });
    let moved =
        Header { ip: "10.0.0.66".into(), port: 7066, cport: 17066, ..header('6', 6, &[(10, 19)], None) };
    let packet = Message { header: moved, body: Body::Pong(Gossip::default()) }.encode().into();
    state.step(NOW, Event::Received { link, packet });
    let infos = state.node_infos();
    assert_eq!(infos.len(), 4, "nobody is added");
    let six = infos.into_iter().find(|n| n.id == id('6')).expect("it stays");
    assert_eq!((six.address.ip.as_str(), six.address.port, six.address.cport), ("10.0.0.66", 7066, 17066));
}

#[test]
fn a_forgotten_node_does_not_come_back_by_gossip_for_a_minute() {
    let mut state = node();
    state.forget(NOW, &id('8')).unwrap();
    assert_eq!(state.forget(NOW, &id('5')), Err("ERR I tried hard but I can't forget myself...".into()));
    let entry = GossipEntry {
        id: id('8'),
        ping_sent: 0,
        pong_received: 0,
        ip: "10.0.0.8".into(),
        port: 7008,
        cport: 17008,
        flags: NodeFlags::SLAVE,
        pport: 0,
    };
    let gossip = || Body::Ping(Gossip { entries: vec![entry.clone()], ..Gossip::default() });
    hear(&mut state, header('6', 6, &[(10, 19)], None), gossip());
    assert_eq!(state.node_infos().len(), 3);
    let later = Now { mono: NOW.mono + 60_001, unix: NOW.unix + 60_001 };
    let packet = Message { header: header('6', 6, &[(10, 19)], None), body: gossip() }.encode().into();
    state.step(later, Event::Received { link: IN, packet });
    assert_eq!(state.node_infos().len(), 4);
}

#[test]
fn what_is_no_packet_closes_the_link_and_is_counted() {
    let mut state = node();
    let mut packet = Message { header: header('6', 6, &[], None), body: ping() }.encode();
    packet[15] = 200; // more gossip than there is
    let actions = state.step(NOW, Event::Received { link: IN, packet: packet.into() });
    assert!(actions.iter().any(|a| matches!(a, Action::CloseLink(IN))), "{actions:?}");
    assert_eq!(state.info().stats.malformed, 1);
}

struct OneKeyIn(u16);

impl Keys for OneKeyIn {
    fn count_in_slot(&self, slot: u16) -> u64 {
        u64::from(slot == self.0)
    }

    fn count(&self) -> u64 {
        1
    }
}

/// With a raised `proto-max-bulk-len`, clients publish what no link would take.
#[test]
fn a_published_message_too_long_for_a_packet_costs_no_link() {
    let mut state = node();
    state.take_actions();
    let room = message::PACKET_MAX - message::HEADER_LEN - 8 - 4;
    state.publish(NOW, b"chan", &vec![b'x'; room], false);
    let actions = state.take_actions();
    assert!(!sent(&actions).is_empty());
    assert!(
        actions
            .iter()
            .all(|a| !matches!(a, Action::Send { packet, .. } if packet.len() > message::PACKET_MAX))
    );
    state.publish(NOW, b"chan", &vec![b'x'; room + 1], false);
    assert!(sent(&state.take_actions()).is_empty());
}

#[test]
fn a_slot_moves_as_redis_cli_moves_it() {
    let mut state = node();
    state.set_slot_migrating(NOW, 3, id('6').as_bytes()).unwrap();
    let view = state.view();
    assert!(view.slot(3).is_mine() && view.slot(3).is_migrating());
    let serving = View { down: None, ..View::clone(&view) };
    assert!(!serving.serves(3) && serving.serves(4), "only the slot that moves needs a closer look");
    assert_eq!(view.ask(3, false).as_deref(), Some("ASK 3 10.0.0.6:7006"));
    let held = state.set_slot_node(NOW, 3, id('6').as_bytes(), &OneKeyIn(3));
    assert!(held.unwrap_err().contains("while I still hold keys for this hash slot"));
    state.set_slot_node(NOW, 3, id('6').as_bytes(), &NoKeys).unwrap();
    assert_eq!(state.view().moved(3, false).as_deref(), Some("MOVED 3 10.0.0.6:7006"));
    assert!(!state.view().slot(3).is_moving());
    // And one the other way: the new owner's claim gets a higher epoch, on disk before it is told.
    state.set_slot_importing(NOW, 12, id('6').as_bytes()).unwrap();
    let view = state.view();
    let serving = View { down: None, ..View::clone(&view) };
    assert!(view.slot(12).is_moving() && !serving.serves(12) && serving.serves(4));
    state.take_actions();
    state.set_slot_node(NOW, 12, id('5').as_bytes(), &NoKeys).unwrap();
    let actions = state.take_actions();
    assert!(persists_first(&actions));
    assert_eq!(sent(&actions), [Kind::Pong; 3]);
    assert_eq!(state.my_info().config_epoch, 10);
    // The next needs no higher epoch, and is not forgotten either.
    state.set_slot_importing(NOW, 13, id('6').as_bytes()).unwrap();
    state.take_actions();
    state.set_slot_node(NOW, 13, id('5').as_bytes(), &NoKeys).unwrap();
    assert!(persists_first(&state.take_actions()));
}

/// As in Redis: who is given the slot again goes on moving it.
#[test]
fn a_slot_that_is_deleted_stays_marked_as_migrating() {
    let mut state = node();
    state.set_slot_migrating(NOW, 3, id('6').as_bytes()).unwrap();
    state.del_slots(NOW, &[3]).unwrap();
    assert!(state.view().slot(3).is_migrating() && !state.view().slot(3).is_mine());
    state.flush_slots(NOW, &NoKeys).unwrap();
    assert!(state.view().slot(3).is_migrating());
    state.add_slots(NOW, &[3]).unwrap();
    assert_eq!(state.view().ask(3, false).as_deref(), Some("ASK 3 10.0.0.6:7006"));
}

#[test]
fn errors_are_those_of_redis() {
    let mut state = node();
    let unknown = id('f');
    let replica = id('8');
    let f40 = "f".repeat(40);
    for (result, text) in [
        (state.add_slots(NOW, &[16000]), "Slot 16000 is already busy".to_string()),
        (state.del_slots(NOW, &[1, 1]), "Slot 1 specified multiple times".into()),
        (state.del_slots(NOW, &[16384]), "Invalid or out of range slot".into()),
        (state.set_slot_migrating(NOW, 10, unknown.as_bytes()), "I'm not the owner of hash slot 10".into()),
        (state.set_slot_migrating(NOW, 1, unknown.as_bytes()), format!("I don't know about node {f40}")),
        (state.set_slot_migrating(NOW, 1, replica.as_bytes()), "Target node is not a master".into()),
        (state.set_slot_importing(NOW, 1, replica.as_bytes()), "I'm already the owner of hash slot 1".into()),
        (state.set_slot_node(NOW, 1, unknown.as_bytes(), &NoKeys), format!("Unknown node {f40}")),
        (state.replicate(NOW, &id('5'), &NoKeys), "Can't replicate myself".into()),
        (state.replicate(NOW, &replica, &NoKeys), "I can only replicate a master, not a replica.".into()),
        (
            state.replicate(NOW, &id('6'), &NoKeys),
            "To set a master the node must be empty and without assigned slots.".into(),
        ),
        (
            state.failover(NOW, super::FailoverMode::Force),
            "You should send CLUSTER FAILOVER to a replica".into(),
        ),
        (state.meet(NOW, "foo", 77, 0), "Invalid node address specified: foo:77".into()),
        (state.meet(NOW, "127.0.0.1", 60000, 0), "Invalid node address specified: 127.0.0.1:60000".into()),
        (
            state.set_config_epoch(NOW, 3),
            "The user can assign a config epoch only when the node does not know any other node.".into(),
        ),
        (
            state.reset(NOW, false, &OneKeyIn(1)),
            "CLUSTER RESET can't be called with master nodes containing keys".into(),
        ),
        (state.flush_slots(NOW, &OneKeyIn(1)), "DB must be empty to perform CLUSTER FLUSHSLOTS.".into()),
    ] {
        assert_eq!(result, Err(format!("ERR {text}")));
    }
}

#[test]
fn a_hard_reset_leaves_a_new_node() {
    let mut state = node();
    state.reset(NOW, true, &NoKeys).unwrap();
    let info = state.info();
    assert_eq!((info.known_nodes, info.slots_assigned, info.current_epoch, info.my_epoch), (1, 0, 0, 0));
    assert_ne!(state.my_id(), id('5'));
    let closed = state.take_actions().iter().filter(|a| matches!(a, Action::CloseLink(_))).count();
    assert_eq!(closed, 4);
}

/// A node of 7.4.1 as it was when it sent a packet of the recording, and what it was called there.
fn as_7_4(line: &str, host: &str, human: &str) -> ClusterState {
    let port: u16 = line[line.find(':').unwrap() + 1..line.find('@').unwrap()].parse().unwrap();
    let config = Config {
        port,
        bus_port: port + 11_000,
        announce_hostname: Some(host.into()),
        announce_human_name: Some(human.into()),
        ..Config::default()
    };
    ClusterState::load(config, Rng::new(1), NOW, line).unwrap()
}

fn packet_of_7_4(kind: &str) -> Vec<u8> {
    let all = include_str!("../../tests/golden/bus-packets-7.4.tsv");
    let line = all.lines().find(|l| l.starts_with(kind)).unwrap();
    let hex = line.rsplit('\t').next().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn only_packet(actions: &[Action]) -> &[u8] {
    let mut packets = actions.iter().filter_map(|a| match a {
        Action::Send { packet, .. } => Some(packet.as_ref()),
        _ => None,
    });
    let packet = packets.next().unwrap();
    assert!(packets.next().is_none());
    packet
}

/// Its first words to a stranger: support of extensions, its names and its shard, byte for byte.
#[test]
fn the_first_packet_to_a_stranger_is_that_of_7_4() {
    let mut node = as_7_4(
        "8321c79ea8b1ca52190b27b522f2e32c22735295 :23711@34711,node-0.example.org,tls-port=0,nodename=human-0,\
         shard-id=56af011f2ca4e770b2d9c1bb5f7972bb9c20f442 myself,master - 0 0 1 connected 0-5460\n\
         vars currentEpoch 1 lastVoteEpoch 0\n",
        "node-0.example.org",
        "human-0",
    );
    node.meet(NOW, "127.0.0.1", 23712, 34712).unwrap();
    let actions = node.take_actions();
    let link = actions.iter().find_map(|a| match a {
        Action::Connect { link, .. } => Some(*link),
        _ => None,
    });
    let (peer_ip, local_ip) = ("127.0.0.1".into(), "127.0.0.1".into());
    let actions = node.step(NOW, Event::Connected { link: link.unwrap(), peer_ip, local_ip });
    assert_eq!(only_packet(&actions), packet_of_7_4("MEET\t0"));
}

#[test]
fn the_answer_to_a_stranger_is_that_of_7_4() {
    let mut node = as_7_4(
        "e8598fbae1679d7a9527ef9e66a0e127204c9220 :23713@34713,node-2.example.org,tls-port=0,nodename=human-2,\
         shard-id=941823a141ea132466156b400ba8cd5286921929 myself,master - 0 0 3 connected 10922-16383\n\
         vars currentEpoch 3 lastVoteEpoch 0\n",
        "node-2.example.org",
        "human-2",
    );
    node.step(NOW, Event::Accepted { link: IN, peer_ip: "127.0.0.1".into(), local_ip: "127.0.0.1".into() });
    let packet = Bytes::from(packet_of_7_4("PING\t2"));
    let actions = node.step(NOW, Event::Received { link: IN, packet });
    assert_eq!(only_packet(&actions), packet_of_7_4("PONG\t0"));
}

fn gossip_sent(actions: &[Action]) -> Vec<Extensions> {
    let packets = actions.iter().filter_map(|a| match a {
        Action::Send { packet, .. } => Some(Message::decode(packet).unwrap().body),
        _ => None,
    });
    packets
        .filter_map(|body| match body {
            Body::Ping(g) | Body::Pong(g) | Body::Meet(g) => Some(g.extensions),
            _ => None,
        })
        .collect()
}

fn telling(x: Extensions) -> Body {
    Body::Ping(Gossip { extensions: x, ..Gossip::default() })
}

fn shard(digit: char) -> Extensions {
    Extensions { shard_id: Some(id(digit)), ..Extensions::default() }
}

/// Redis's REPLICATE says nothing by itself; a third node that restarts before the next ping has a wrong file.
#[test]
fn a_shard_is_taken_over_with_replicate_and_told_at_once() {
    let mut state = node();
    hear(&mut state, header('6', 6, &[(10, 19)], None), telling(shard('e')));
    state.flush_slots(NOW, &NoKeys).unwrap();
    state.take_actions();
    state.replicate(NOW, &id('6'), &NoKeys).unwrap();
    let actions = state.take_actions();
    assert!(persists_first(&actions));
    let told = gossip_sent(&actions);
    assert_eq!(told.len(), 3, "to all: {actions:?}");
    assert!(told.iter().all(|x| x.shard_id == Some(id('e'))), "{told:?}");
    assert_eq!(state.my_shard_id(), id('e'));
    // Its primary turns out to be in another: so are we, and the others hear it now.
    let actions = hear(&mut state, header('6', 6, &[(10, 19)], None), telling(shard('d')));
    assert!(gossip_sent(&actions).iter().filter(|x| x.shard_id == Some(id('d'))).count() >= 3);
    assert_eq!(state.my_shard_id(), id('d'));
}

/// A primary of 7.0 has no shard id. Everybody invents one for it, and nobody tells its own.
#[test]
fn the_shard_of_a_primary_that_told_none_is_kept_to_ourselves() {
    let mut state = node();
    state.flush_slots(NOW, &NoKeys).unwrap();
    state.replicate(NOW, &id('6'), &NoKeys).unwrap();
    let told = gossip_sent(&state.take_actions());
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|x| x.shard_id.is_none()), "{told:?}");
    let infos = state.node_infos();
    assert_eq!(infos[0].shard_id, infos[1].shard_id, "in our file they do not differ");
    let again = ClusterState::load(Config::default(), Rng::new(1), NOW, &state.nodes_conf()).unwrap();
    assert_eq!(again.my_shard_id(), infos[0].shard_id);
    // In its place we are a primary, and have one to tell.
    state.failover(NOW, super::FailoverMode::Takeover).unwrap();
    let told = gossip_sent(&state.take_actions());
    assert!(told.iter().all(|x| x.shard_id == Some(infos[0].shard_id)), "{told:?}");
}

#[test]
fn replicas_of_a_replica_go_with_it_into_another_shard() {
    let mut state = node();
    hear(&mut state, header('6', 6, &[(10, 19)], None), telling(shard('e')));
    state.step(NOW, Event::Closed { link: IN });
    state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    // 7, whose replica 8 is, replicates 6.
    hear(&mut state, header('7', 7, &[(10, 19)], Some('6')), ping());
    let shards: Vec<NodeId> = state.node_infos().iter().map(|n| n.shard_id).collect();
    assert_eq!(shards[1..], [id('e'); 3]);
}

#[test]
fn a_host_name_that_a_7_0_peer_takes_back_is_forgotten() {
    let mut state = node();
    let named = Extensions { hostname: Some("six.example".into()), ..Extensions::default() };
    hear(&mut state, header('6', 6, &[(10, 19)], None), telling(named));
    assert_eq!(state.node_infos()[1].hostname, "six.example");
    assert!(state.nodes_text(false).contains("10.0.0.6:7006@17006,six.example "));
    // It does not even say that it understands extensions when it has none to send.
    hear(&mut state, Header { mflags: 0, ..header('6', 6, &[(10, 19)], None) }, ping());
    assert_eq!(state.node_infos()[1].hostname, "");
}

#[test]
fn a_7_0_peer_is_told_host_names_alone_and_a_later_one_all() {
    let mut state = node();
    let config = Config {
        announce_hostname: Some("five.example".into()),
        announce_human_name: Some("five".into()),
        ..state.config().clone()
    };
    state.set_config(NOW, config);
    let hostname = Some("five.example".to_owned());
    // What it is was not heard yet.
    let first =
        gossip_sent(&hear(&mut state, Header { mflags: 0, ..header('6', 6, &[(10, 19)], None) }, ping()));
    assert_eq!(
        (first[0].human_name.as_deref(), first[0].shard_id),
        (Some("five"), Some(state.my_shard_id()))
    );
    let then =
        gossip_sent(&hear(&mut state, Header { mflags: 0, ..header('6', 6, &[(10, 19)], None) }, ping()));
    assert_eq!(then, [Extensions { hostname: hostname.clone(), ..Extensions::default() }]);
    // It is upgraded.
    let six = Extensions { human_name: Some("six".into()), ..shard('e') };
    hear(&mut state, header('6', 6, &[(10, 19)], None), telling(six));
    assert_eq!(state.node_infos()[1].human_name, "six");
    let then = gossip_sent(&hear(&mut state, header('6', 6, &[(10, 19)], None), telling(shard('e'))));
    assert_eq!((&then[0].hostname, then[0].shard_id), (&hostname, Some(state.my_shard_id())));
    assert_eq!(state.node_infos()[1].human_name, "", "it took its name back");
}

/// As 7.4 does it: the id, and in brackets the human name, which is empty without one.
#[test]
fn lines_of_the_log_name_nodes_by_their_human_names() {
    let mut state = node();
    let logged = |actions: &[Action]| -> Vec<String> {
        let texts = actions.iter().filter_map(|a| match a {
            Action::Log { text, .. } => Some(text.clone()),
            _ => None,
        });
        texts.collect()
    };
    let seven = Extensions { human_name: Some("human-7".into()), ..shard('e') };
    hear(&mut state, header('7', 7, &[(20, 16383)], None), telling(seven));
    state.step(NOW, Event::Closed { link: IN });
    state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    let fail = hear(&mut state, header('6', 6, &[(10, 19)], None), Body::Fail(id('7')));
    let (six, seven, eight) = (id('6'), id('7'), id('8'));
    assert_eq!(logged(&fail)[0], format!("FAIL message received from {six} () about {seven} (human-7)"));
    state.step(NOW, Event::Closed { link: IN });
    state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    let vote = hear(&mut state, request(10, &[(20, 16383)]), Body::AuthRequest);
    assert_eq!(logged(&vote), [format!("Failover auth granted to {eight} () for epoch 10")]);
    let late = hear(&mut state, request(9, &[(20, 16383)]), Body::AuthRequest);
    assert_eq!(logged(&late), [format!("Failover auth denied to {eight} (): reqEpoch (9) < curEpoch(10)")]);
    // The winner, and the former primary as its replica.
    let won = Header { current_epoch: 10, ..header('8', 10, &[(20, 16383)], None) };
    hear(&mut state, won, telling(shard('e')));
    state.step(NOW, Event::Closed { link: IN });
    state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    let lost = hear(&mut state, header('6', 11, &[(0, 19)], None), ping());
    assert_eq!(
        logged(&lost)[0],
        format!("Configuration change detected. Reconfiguring myself as a replica of {six} ()")
    );
}
