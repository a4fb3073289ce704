//! Suspicion, failure and recovery over time, and what gossip tells of them.

use std::collections::BTreeMap;

use super::*;

/// A node and its links to the others, whom it knows by the last digit of their addresses.
struct Linked {
    state: ClusterState,
    links: BTreeMap<char, LinkId>,
}

impl Linked {
    fn new(config: Config, text: &str) -> Self {
        let state = ClusterState::load(config, Rng::new(1), NOW, text).expect("good lines");
        let mut linked = Self { state, links: BTreeMap::new() };
        linked.tick(0);
        linked
    }

    fn now(ms: u64) -> Now {
        Now { mono: NOW.mono + ms, unix: NOW.unix + ms as i64 }
    }

    /// All connections that it wants come about.
    fn tick(&mut self, ms: u64) -> Vec<Action> {
        let actions = self.state.step(Self::now(ms), Event::Tick);
        for action in &actions {
            if let Action::Connect { link, ip, .. } = action {
                self.links.insert(ip.chars().next_back().expect("an address"), *link);
                let (peer_ip, local_ip) = (ip.clone(), "10.0.0.5".into());
                self.state.step(Self::now(ms), Event::Connected { link: *link, peer_ip, local_ip });
            }
        }
        actions
    }

    fn pong(&mut self, ms: u64, header: Header) {
        let who = header.ip.chars().next_back().expect("an address");
        let packet = Bytes::from(Message { header, body: Body::Pong(Gossip::default()) }.encode());
        self.state.step(Self::now(ms), Event::Received { link: self.links[&who], packet });
    }

    /// Somebody says that this one has failed.
    fn fails(&mut self, ms: u64, teller: Header, node: char) {
        self.state.step(Self::now(ms), Event::Closed { link: IN });
        let accepted = Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() };
        self.state.step(Self::now(ms), accepted);
        let packet = Bytes::from(Message { header: teller, body: Body::Fail(id(node)) }.encode());
        self.state.step(Self::now(ms), Event::Received { link: IN, packet });
    }

    fn has_failed(&self, node: char) -> bool {
        let infos = self.state.node_infos();
        infos.iter().find(|n| n.id == id(node)).expect("it is known").flags.has(NodeFlags::FAIL)
    }
}

fn five() -> Linked {
    Linked::new(Config::default(), &load().nodes_conf())
}

fn six() -> Header {
    header('6', 6, &[(10, 19)], None)
}

fn seven() -> Header {
    header('7', 7, &[(20, 16383)], None)
}

fn eight() -> Header {
    header('8', 7, &[], Some('7'))
}

/// An election may be under way, which must find the primary failed.
#[test]
fn a_failed_primary_with_slots_is_taken_back_after_two_timeouts_and_others_at_once() {
    let mut node = five();
    node.fails(0, six(), '7');
    node.fails(0, six(), '8');
    node.pong(1, eight());
    assert!(!node.has_failed('8'));
    node.pong(30_000, seven());
    assert!(node.has_failed('7'));
    node.pong(30_001, seven());
    assert!(!node.has_failed('7'));
}

/// A primary that was in a minority waits, so that the majority's news reach it first, but for five seconds at most.
#[test]
fn a_primary_that_comes_back_from_a_minority_waits_before_it_serves() {
    let mut node = five();
    for ms in (0..20_000).step_by(100) {
        node.tick(ms);
    }
    assert!(node.state.view().down.is_some(), "it hears of nobody");
    let serves = (20_000..40_000).step_by(100).find(|ms| {
        node.tick(*ms);
        for header in [six(), seven(), eight()] {
            node.pong(*ms, header);
        }
        node.state.view().down.is_none()
    });
    let waited = serves.expect("it serves again") - 20_000;
    assert!((4900..5200).contains(&waited), "{waited}");
}

#[test]
fn gossip_tells_of_a_tenth_of_the_nodes() {
    let mut text = load().nodes_conf();
    for n in 0..56 {
        let slot = 100 + n;
        let line = format!("{n:040x} 10.0.1.{n}:7000@17000 master - 0 0 {slot} connected {slot}\n");
        text.insert_str(text.find("vars").expect("the last line"), &line);
    }
    // Of 60 nodes; one slot each must not be another's.
    let text = text.replace("20-16383", "1000-16383");
    let mut node = Linked::new(Config::default(), &text);
    node.state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    let packet = Bytes::from(Message { header: six(), body: ping() }.encode());
    let actions = node.state.step(NOW, Event::Received { link: IN, packet });
    let Body::Pong(gossip) = Message::decode(only_packet(&actions)).expect("ours").body else {
        panic!("{actions:?}")
    };
    assert_eq!(gossip.entries.len(), 6);
}

#[test]
fn what_others_heard_counts_unless_it_lies_in_the_future() {
    let later = Linked::now(5000);
    let seconds = (later.unix / 1000) as u32;
    for (pong_received, taken) in [(seconds, true), (seconds + 10, false)] {
        let mut node = five();
        // It has answered: we wait for nothing ourselves.
        node.pong(1, eight());
        let entry = GossipEntry {
            id: id('8'),
            ping_sent: 0,
            pong_received,
            ip: "10.0.0.8".into(),
            port: 7008,
            cport: 17008,
            flags: NodeFlags::SLAVE,
            pport: 0,
        };
        let body = Body::Ping(Gossip { entries: vec![entry], ..Gossip::default() });
        let accepted = Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() };
        node.state.step(later, accepted);
        let packet = Bytes::from(Message { header: six(), body }.encode());
        node.state.step(later, Event::Received { link: IN, packet });
        let text = node.state.nodes_text(false);
        let line = text.lines().find(|line| line.starts_with(id('8').as_str())).expect("it is known");
        let pong: i64 = line.split(' ').nth(5).expect("a time").parse().expect("a number");
        assert_eq!(pong == i64::from(pong_received) * 1000, taken, "{line}");
    }
}

/// Of the replicas of the primary that has most, the one with the smallest name goes to the orphan, after five seconds
/// and if `cluster-migration-barrier` lets it.
#[test]
fn a_spare_replica_goes_to_an_orphan() {
    for (migration_barrier, goes) in [(1, true), (2, false)] {
        let config = Config { migration_barrier, ..Config::default() };
        let mut text = load().nodes_conf().replace("myself,", "").replace("slave ", "myself,slave ");
        let line = |me: char, of: char| {
            let n = me.to_digit(16).expect("a digit");
            format!("{} 10.0.0.{n}:70{n:02}@170{n:02} slave {} 0 0 7 connected\n", id(me), id(of))
        };
        text.insert_str(text.find("vars").expect("the last line"), &(line('9', '7') + &line('1', '6')));
        let mut node = Linked::new(config, &text);
        let mut follows = None;
        for ms in (0..20_000).step_by(100) {
            if ms == 3000 {
                node.fails(ms, six(), '1');
            }
            let mut actions = node.tick(ms);
            for header in [header('5', 5, &[(0, 9)], None), six(), seven(), header('9', 7, &[], Some('7'))] {
                node.pong(ms, header);
            }
            actions.extend(node.state.take_actions());
            let set =
                actions.iter().any(|a| matches!(a, Action::SetPrimary { id: to, .. } if *to == id('6')));
            follows = follows.or(set.then_some(ms));
        }
        assert_eq!(follows.is_some(), goes, "{follows:?}");
        assert!(follows.is_none_or(|ms| ms > 8000), "{follows:?}");
    }
}
