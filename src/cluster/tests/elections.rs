//! When a replica stands, when it asks again, and what it leaves to others.

use super::*;

/// Replica 8 of 7, beside primaries 5 (slots 0-9), 6 (10-19) and 7 (the rest), as `siblings` says with further replicas
/// of 7. Its links to all are up.
fn replica(config: Config, siblings: &str) -> ClusterState {
    let mut text = load().nodes_conf().replace("myself,", "").replace("slave ", "myself,slave ");
    for digit in siblings.chars() {
        let line = format!("{} 10.0.0.9:7009@17009 slave {} 0 0 7 connected\n", id(digit), id('7'));
        text.insert_str(text.find("vars").expect("the last line"), &line);
    }
    let mut state = ClusterState::load(config, Rng::new(1), NOW, &text).expect("good lines");
    for action in state.step(NOW, Event::Tick) {
        if let Action::Connect { link, ip, .. } = action {
            state.step(NOW, Event::Connected { link, peer_ip: ip, local_ip: "10.0.0.8".into() });
        }
    }
    state.step(NOW, Event::Accepted { link: IN, peer_ip: "10.0.0.5".into(), local_ip: "10.0.0.8".into() });
    state
}

/// With data as new as they can be.
fn up_to_date() -> ClusterState {
    let mut state = replica(Config::default(), "");
    state.set_replication_facts(ReplicationFacts { offset: 1, last_io: Some(NOW.mono) });
    state
}

fn after(ms: u64) -> Now {
    Now { mono: NOW.mono + ms, unix: NOW.unix + ms as i64 }
}

/// A peer says something, on a connection of its own.
fn hear_at(state: &mut ClusterState, ms: u64, header: Header, body: Body) {
    state.step(after(ms), Event::Closed { link: IN });
    state.step(after(ms), Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    let packet = Bytes::from(Message { header, body }.encode());
    state.step(after(ms), Event::Received { link: IN, packet });
}

/// 5 says that this one has failed.
fn fails(state: &mut ClusterState, ms: u64, node: char) {
    hear_at(state, ms, header('5', 5, &[(0, 9)], None), Body::Fail(id(node)));
}

/// The millisecond at which it asks for votes, from `from` on; `None`: not before `to`.
fn asks(state: &mut ClusterState, from: u64, to: u64) -> Option<u64> {
    (from..to).find(|ms| sent(&state.step(after(*ms), Event::Tick)).contains(&Kind::AuthRequest))
}

#[test]
fn lone_replicas_of_primaries_that_failed_together_have_their_turns() {
    let mut state = up_to_date();
    fails(&mut state, 0, '7');
    let alone = asks(&mut state, 0, 1000).expect("it asks");
    assert!(alone < 200, "{alone}");
    // That of 6 goes first, whether 6 failed before or a little later.
    for (first, second) in [('6', '7'), ('7', '6')] {
        let mut state = up_to_date();
        fails(&mut state, 0, first);
        fails(&mut state, 20, second);
        let asked = asks(&mut state, 20, 1000).expect("it asks");
        assert!((alone + 250..alone + 300).contains(&asked), "{first} {second} {asked}");
    }
}

#[test]
fn an_election_that_another_has_won_is_begun_anew_at_once() {
    let mut state = up_to_date();
    fails(&mut state, 0, '7');
    let asked = asks(&mut state, 0, 1000).expect("it asks");
    // A replica of 6 has won that epoch.
    let winner = Header { current_epoch: 10, ..header('6', 10, &[(10, 19)], None) };
    hear_at(&mut state, asked + 1, winner, ping());
    let again = asks(&mut state, asked + 1, 5000).expect("it asks again");
    assert!(again - asked <= 101, "{asked} {again}");
}

#[test]
fn a_replica_without_data_lets_siblings_go_first_that_may_have_some() {
    let config = Config { replica_validity_factor: 0, ..Config::default() };
    let mut state = replica(config.clone(), "9");
    fails(&mut state, 0, '7');
    assert_eq!(asks(&mut state, 0, 2000), None, "nothing is known of the other");
    let sibling = |offset| Header { offset, ..header('9', 7, &[], Some('7')) };
    hear_at(&mut state, 2000, sibling(5), ping());
    assert_eq!(asks(&mut state, 2000, 4000), None, "the other has data");
    hear_at(&mut state, 4000, sibling(0), ping());
    assert!(asks(&mut state, 4000, 6000).is_some(), "nobody has any");
    // By any other factor one without data never stands.
    let mut state = replica(Config::default(), "");
    fails(&mut state, 0, '7');
    assert_eq!(asks(&mut state, 0, 2000), None);
}

#[test]
fn without_replica_migration_a_primary_follows_only_who_has_taken_just_its_slots() {
    let config = Config { allow_replica_migration: false, ..Config::default() };
    for (slots, follows) in [((0, 19), false), ((0, 9), true)] {
        let mut state = node();
        state.set_config(NOW, config.clone());
        let actions = hear(&mut state, header('6', 9, &[slots], None), ping());
        let set = actions.iter().any(|a| matches!(a, Action::SetPrimary { .. }));
        assert_eq!(set, follows, "{slots:?}");
    }
}

#[test]
fn an_update_tells_only_what_the_owner_claims_itself() {
    let mut state = node();
    hear(&mut state, header('7', 7, &[(21, 16383)], None), ping());
    state.step(NOW, Event::Closed { link: IN });
    state.step(NOW, Event::Accepted { link: IN, peer_ip: String::new(), local_ip: String::new() });
    // 6 believes in slots of 7 that it lost in an earlier epoch.
    let actions = hear(&mut state, header('6', 6, &[(10, 19), (30, 40)], None), ping());
    let told = actions.iter().find_map(|a| match a {
        Action::Send { packet, .. } => match Message::decode(packet).expect("ours").body {
            Body::Update { slots, .. } => Some(slots.ranges()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(told, Some(vec![(21, 16383)]));
}

#[test]
fn a_new_node_has_an_epoch_to_gain_by_bumpepoch_and_once_only() {
    let mut state = ClusterState::new(Config::default(), Rng::new(1), NOW);
    assert_eq!(state.bump_epoch(NOW), (true, 1));
    assert_eq!(state.bump_epoch(NOW), (false, 1));
}

#[test]
fn a_slot_that_is_lost_and_comes_back_moves_no_more() {
    let mut state = node();
    state.set_slot_migrating(NOW, 3, id('6').as_bytes()).expect("it is ours");
    assert!(state.nodes_conf().contains("[3->-"));
    hear(&mut state, header('6', 9, &[(3, 3), (10, 19)], None), ping());
    assert_eq!(state.slot_owner(3), Some(id('6')));
    assert!(!state.nodes_conf().contains("[3->-"), "{}", state.nodes_conf());
    state.set_slot_node(NOW, 3, id('5').as_bytes(), &NoKeys).expect("an administrator may");
    assert!(state.view().slot(3).is_mine() && !state.view().slot(3).is_moving());
}
