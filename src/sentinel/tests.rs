//! The rules that a scripted case of the simulator does not show by itself.

use super::action::{Action, Event, ScriptEnd};
use super::instance::{Address, InstanceId, Role};
use super::settings::Line;
use super::state::Sentinel;
use crate::base::rng::Rng;
use crate::resp::decode::Value;

const START: u64 = 1_000_000;

fn words(lines: &str) -> Vec<Vec<String>> {
    lines.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn read(lines: &str) -> Sentinel {
    Sentinel::read(&words(lines), 26379, Rng::new(1), START).expect("good lines").0
}

const WATCH: &str = "monitor m 10.0.0.1 6379 2\nknown-replica m 10.0.0.2 6379\nknown-replica m 10.0.0.3 6379";

fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 40).collect()
}

/// What has been asked to be written last.
fn persisted(actions: &[Action]) -> Option<(u64, Vec<Line>)> {
    actions.iter().rev().find_map(|action| match action {
        Action::Persist { generation, lines } => Some((*generation, lines.clone())),
        _ => None,
    })
}

fn save(sentinel: &mut Sentinel, done: bool) {
    let actions = sentinel.take_actions();
    let (generation, _) = persisted(&actions).expect("something to write");
    sentinel.step(START, Event::Persisted { generation, done });
}

#[test]
fn lines_are_read_back_as_they_are_written() {
    let text = "myid bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\ndeny-scripts-reconfig no\nresolve-hostnames yes\n\
                announce-hostnames yes\nmonitor m db.example 6379 2\ndown-after-milliseconds m 5000\n\
                failover-timeout m 60000\nparallel-syncs m 3\nmaster-reboot-down-after-period m 7\n\
                auth-user m u\nauth-pass m p\nconfig-epoch m 4\nleader-epoch m 5\n\
                known-replica m 10.0.0.2 6379\n\
                known-sentinel m 10.0.1.2 26379 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\
                rename-command m config x\ncurrent-epoch 9\nannounce-ip 1.2.3.4\nannounce-port 5\n\
                sentinel-user su\nsentinel-pass sp";
    let written: Vec<String> =
        read(text).lines().into_iter().filter(|l| l.needed).map(|l| l.words.join(" ")).collect();
    assert_eq!(written, text.lines().collect::<Vec<_>>());
}

#[test]
fn lines_may_stand_in_any_order() {
    let turned: Vec<&str> = WATCH.lines().rev().collect();
    assert_eq!(read(&turned.join("\n")).replica_fields("m").map(|r| r.len()), Ok(2));
}

#[test]
fn what_stands_twice_is_healed_with_a_warning() {
    let text = format!(
        "myid {2}\n{WATCH}\nknown-slave m 10.0.0.2 6379\nknown-replica m 10.0.0.1 6379\n\
         known-sentinel m 10.0.1.1 1 {0}\nknown-sentinel m 10.0.1.2 2 {0}\nknown-sentinel m 10.0.1.3 3 {1}",
        id('a'),
        id('b'),
        id('b')
    );
    let (sentinel, warnings) = Sentinel::read(&words(&text), 26379, Rng::new(1), START).expect("healed");
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert_eq!(sentinel.replica_fields("m").map(|r| r.len()), Ok(2));
    let peers = sentinel.sentinel_fields("m").expect("m is watched");
    assert_eq!(peers.len(), 1);
    assert!(peers[0].contains(&("port", "2".to_owned())));
}

#[test]
fn one_vote_an_epoch_and_none_in_epochs_that_are_over() {
    let mut s = read(WATCH);
    save(&mut s, true);
    let ask = |s: &mut Sentinel, epoch, who: &str| {
        s.hear_question("10.0.0.1", 6379, epoch, Some(who));
        if persisted(&s.clone().take_actions()).is_some() {
            save(s, true);
        }
        let answer = s.answer("10.0.0.1", 6379, true);
        (answer.leader, answer.leader_epoch)
    };
    assert_eq!(ask(&mut s, 3, &id('a')), (Some(id('a')), 3));
    assert_eq!(ask(&mut s, 3, &id('b')), (Some(id('a')), 3), "the first one has it");
    assert_eq!(ask(&mut s, 2, &id('b')), (Some(id('a')), 3), "that epoch is over");
    assert_eq!(ask(&mut s, 4, &id('b')), (Some(id('b')), 4));
    assert_eq!(s.current_epoch(), 4);
    assert_eq!(s.answer("10.0.0.9", 6379, true).leader, None, "nobody watches that one");
}

#[test]
fn a_vote_is_not_told_before_it_is_on_disk() {
    let mut s = read(WATCH);
    save(&mut s, true);
    s.hear_question("10.0.0.1", 6379, 1, Some(&id('a')));
    assert_eq!(s.answer("10.0.0.1", 6379, true).leader, None);
    save(&mut s, false);
    assert_eq!(s.answer("10.0.0.1", 6379, true).leader, None, "it could not be written");
    // It is tried again by itself.
    let again = s.step(START + 5000, Event::Tick);
    let (generation, lines) = persisted(&again).expect("another try");
    assert!(lines.iter().any(|l| l.words.join(" ") == "leader-epoch m 1"));
    s.step(START + 5000, Event::Persisted { generation, done: true });
    assert_eq!(s.answer("10.0.0.1", 6379, true).leader, Some(id('a')));
}

#[test]
fn after_a_restart_no_second_vote_is_cast_in_the_epoch() {
    let mut s = read(&format!("{WATCH}\nleader-epoch m 7\ncurrent-epoch 7"));
    save(&mut s, true);
    s.hear_question("10.0.0.1", 6379, 7, Some(&id('b')));
    assert_eq!(s.answer("10.0.0.1", 6379, true).leader, None);
}

/// Makes a replica look good: connected, heard of just now.
fn heal(s: &mut Sentinel, replica: InstanceId, priority: u32, offset: u64, run_id: &str) {
    let link = s.link_mut(replica);
    link.commands.up = true;
    link.last_ok = START;
    let instance = s.at_mut(replica);
    (instance.info_at, instance.run_id) = (Some(START), run_id.to_owned());
    (instance.replica.priority, instance.replica.offset) = (priority, offset);
}

#[test]
fn replicas_are_chosen_by_priority_then_offset_then_run_id() {
    let mut s = read(WATCH);
    let primary = s.primary_ids()[0];
    let [a, b] = s.replicas(primary)[..] else { panic!("two replicas") };
    let mut choose = |of_a: (u32, u64, char), of_b: (u32, u64, char)| {
        heal(&mut s, a, of_a.0, of_a.1, &id(of_a.2));
        heal(&mut s, b, of_b.0, of_b.1, &id(of_b.2));
        s.select_replica(primary).map(|chosen| if chosen == a { 'a' } else { 'b' })
    };
    assert_eq!(choose((100, 5, 'a'), (10, 1, 'b')), Some('b'));
    assert_eq!(choose((100, 5, 'b'), (100, 9, 'c')), Some('b'));
    assert_eq!(choose((100, 5, 'a'), (100, 5, 'b')), Some('a'));
    assert_eq!(choose((0, 9, 'a'), (100, 5, 'b')), Some('b'));
    assert_eq!(choose((0, 9, 'a'), (0, 5, 'b')), None);
    heal(&mut s, a, 100, 5, "");
    heal(&mut s, b, 100, 5, &id('b'));
    assert_eq!(s.select_replica(primary), Some(b), "one that does not say who it is comes last");
}

#[test]
fn an_election_takes_no_longer_than_the_failover_may() {
    let peers = format!("known-sentinel m 10.0.1.2 1 {}\nknown-sentinel m 10.0.1.3 1 {}", id('a'), id('b'));
    for (failover_timeout, longest) in [(3000, 3000), (60_000, 10_000)] {
        let mut s = read(&format!("{WATCH}\n{peers}\nfailover-timeout m {failover_timeout}"));
        let primary = s.primary_ids()[0];
        s.start_failover(primary);
        let mut aborts_at = |after| {
            s.now = START + after;
            s.go_on_with_failover(primary);
            s.take_actions().iter().any(|a| format!("{a:?}").contains("-failover-abort-not-elected"))
        };
        assert!(!aborts_at(longest));
        assert!(aborts_at(longest + 1));
    }
}

#[test]
fn what_another_sentinel_said_counts_for_five_periods() {
    let mut s = read(&format!("{WATCH}\nknown-sentinel m 10.0.1.2 1 {}", id('a')));
    let primary = s.primary_ids()[0];
    let peer = s.peers(primary)[0];
    let facts = &mut s.at_mut(peer).peer;
    (facts.says_down, facts.answered, facts.leader) = (true, START, Some(id('b')));
    s.now = START + 5000;
    s.ask_others(primary, false);
    assert!(s.at(peer).peer.says_down);
    s.now += 1;
    s.ask_others(primary, false);
    assert!(!s.at(peer).peer.says_down && s.at(peer).peer.leader.is_none());
}

/// It was a primary when it was last looked at, and is one again: another sentinel has just promoted it.
#[test]
fn what_another_sentinel_promotes_is_not_told_to_follow() {
    let mut s = read(WATCH);
    let primary = s.primary_ids()[0];
    let replica = s.replicas(primary)[0];
    heal(&mut s, replica, 100, 0, &id('c'));
    heal(&mut s, primary, 100, 0, &id('d'));
    (s.at_mut(replica).role, s.at_mut(replica).role_since) = (Role::Primary, START);
    let converted = |s: &Sentinel, after: u64, epoch: Option<u64>| {
        let mut s = s.clone();
        s.now = START + after;
        s.at_mut(primary).info_at = Some(s.now);
        if let Some(epoch) = epoch {
            s.raise_epoch(primary, epoch);
        }
        s.now += 1000;
        s.convert_to_replica_if_due(replica);
        s.take_actions().iter().any(|action| format!("{action:?}").contains("+convert-to-slave"))
    };
    assert!(!converted(&s, 5000, None), "it may still be told by somebody else");
    assert!(converted(&s, 8000, None));
    assert!(!converted(&s, 8000, Some(1)), "a failover is under way");
    s.now = START;
    s.raise_epoch(primary, 1);
    assert!(converted(&s, 8000, None), "that one is over");
}

#[test]
fn replicas_that_were_cut_off_for_long_are_not_chosen() {
    let mut s = read(WATCH);
    let primary = s.primary_ids()[0];
    let [a, b] = s.replicas(primary)[..] else { panic!("two replicas") };
    heal(&mut s, a, 100, 5, &id('a'));
    heal(&mut s, b, 100, 9, &id('b'));
    // Ten times down-after-milliseconds of 30 seconds.
    s.at_mut(b).replica.link_down_ms = 300_001;
    assert_eq!(s.select_replica(primary), Some(a));
    s.at_mut(a).sdown = Some(START);
    assert_eq!(s.select_replica(primary), None);
    s.at_mut(b).replica.link_down_ms = 300_000;
    assert_eq!(s.select_replica(primary), Some(b));
    s.at_mut(b).info_at = Some(START - 30_001);
    assert_eq!(s.select_replica(primary), None, "its INFO is too old");
}

/// With the longest down-after-milliseconds, which says that nobody is ever down, replicas are good as before.
#[test]
fn the_longest_down_after_rules_no_replica_out() {
    let mut s = read(WATCH);
    let primary = s.primary_ids()[0];
    s.set("m", &["down-after-milliseconds", &i64::MAX.to_string()]).expect("it is taken");
    let [a, b] = s.replicas(primary)[..] else { panic!("two replicas") };
    heal(&mut s, a, 100, 5, &id('a'));
    heal(&mut s, b, 0, 9, &id('b'));
    s.at_mut(a).replica.link_down_ms = 300_001;
    assert_eq!(s.select_replica(primary), Some(a));
    s.at_mut(primary).sdown = Some(START);
    assert_eq!(s.select_replica(primary), Some(a));
    s.step(START + 1000, Event::Tick);
}

#[test]
fn a_quorum_beyond_all_numbers_of_sentinels_is_taken() {
    let mut s = read("monitor m 10.0.0.1 6379 4294967296");
    let quorum = |s: &Sentinel, name: &str| {
        let line = s.lines().into_iter().find(|l| l.words[0] == "monitor" && l.words[1] == name);
        line.expect("it is watched").words[4].clone()
    };
    assert_eq!(quorum(&s, "m"), u32::MAX.to_string(), "not 0");
    s.monitor("n", "10.0.0.2", "1", "2147483648").expect("as in Redis");
    assert_eq!(quorum(&s, "n"), "2147483648");
    assert_eq!(s.monitor("o", "10.0.0.2", "x", "2147483648"), Err("ERR Invalid port".into()));
    assert_eq!(s.monitor("o", "10.0.0.2", "1", "x"), Err("ERR Invalid quorum".into()));
}

#[test]
fn scripts_that_ask_for_it_are_tried_again_later_and_ten_times_at_most() {
    let mut s = read(WATCH);
    s.schedule_script("/x".into(), vec!["a".into()]);
    let mut now = START;
    for attempt in 1..=10_u32 {
        let started = s.take_actions();
        let number = started.iter().find_map(|a| match a {
            Action::RunScript { script, .. } => Some(*script),
            _ => None,
        });
        let script = number.unwrap_or_else(|| panic!("try {attempt} starts"));
        s.step(now, Event::ScriptEnded { script, end: ScriptEnd::Exit(1) });
        let delay = 30_000 << (attempt - 1);
        let early = s.step(now + delay - 1, Event::Tick);
        assert!(!early.iter().any(|a| matches!(a, Action::RunScript { .. })), "not before {delay} ms");
        now += delay;
        s.at_time(now).run_scripts();
    }
    assert!(s.scripts().is_empty());
}

#[test]
fn a_script_that_says_another_error_is_not_tried_again() {
    let mut s = read(WATCH);
    s.schedule_script("/x".into(), vec![]);
    s.take_actions();
    let end = s.step(START, Event::ScriptEnded { script: 1, end: ScriptEnd::Exit(2) });
    assert!(end.iter().any(|a| matches!(a, Action::Publish { channel, payload }
        if channel == "-script-error" && payload == "/x 0 2")));
    assert!(s.scripts().is_empty());
}

#[test]
fn sentinels_of_several_primaries_share_a_link() {
    let mut s = read(&format!(
        "monitor a 10.0.0.1 1 1\nmonitor b 10.0.0.1 2 1\nknown-sentinel a 10.0.1.1 26379 {0}\n\
         known-sentinel b 10.0.1.1 26379 {0}",
        id('a')
    ));
    let refcount = |s: &Sentinel| s.sentinel_fields("b").expect("b is watched")[0][6].clone();
    assert_eq!(refcount(&s), ("link-refcount", "2".to_owned()));
    s.remove("a").expect("a is watched");
    assert_eq!(refcount(&s), ("link-refcount", "1".to_owned()));
}

/// As redis-sentinel answers: a sentinel counts from its first hello on, before it is connected to.
#[test]
fn a_sentinel_that_was_just_heard_of_counts_for_the_quorum_until_it_is_down() {
    let mut s = read(&format!("{WATCH}\ndown-after-milliseconds m 1000"));
    assert!(s.check_quorum("m").expect_err("alone").starts_with("NOQUORUM 1 usable Sentinels. Not enough"));
    s.hear_hello(&format!("10.0.1.1,26379,{},0,m,10.0.0.1,6379,0", id('a')));
    let reached = "OK 2 usable Sentinels. Quorum and failover authorization can be reached";
    assert_eq!(s.check_quorum("m"), Ok(reached.to_owned()));
    for now in (START..START + 1300).step_by(100) {
        s.step(now, Event::Tick);
    }
    assert!(s.check_quorum("m").expect_err("it never answered").starts_with("NOQUORUM 1 usable"));
}

#[test]
fn hellos_that_are_none_change_nothing() {
    let mut s = read(WATCH);
    s.take_actions();
    let good = format!("10.0.1.1,26379,{},0,m,10.0.0.1,6379,0", id('a'));
    for bad in [
        "",
        "x",
        &good.replace(&id('a'), "a"),
        &good.replace("26379", "port"),
        &good.replace(",m,", ",other,"),
        &format!("{good},more"),
        &good.replace("10.0.1.1", "not.an.address"),
    ] {
        s.hear_hello(bad);
        assert_eq!(s.take_actions(), [], "{bad}");
    }
    s.hear_hello(&good);
    assert_eq!(s.sentinel_fields("m").map(|f| f.len()), Ok(1));
}

/// A sentinel whose `announce-ip` is empty, or a name where none is allowed: it stays where it was, and so does the
/// primary. A file with such an address could not be read again.
#[test]
fn a_hello_without_an_address_moves_nobody() {
    let mut s = read(WATCH);
    let good = format!("10.0.1.1,26379,{},0,m,10.0.0.1,6379,0", id('a'));
    s.hear_hello(&good);
    s.take_actions();
    for bad in [
        good.replace("10.0.1.1", ""),
        good.replace("10.0.1.1", "some.host"),
        good.replace("26379", "0"),
        good.replace("10.0.0.1,6379,0", ",6380,7"),
        good.replace("10.0.0.1,6379,0", "some.host,6380,7"),
        good.replace("10.0.0.1,6379,0", "10.0.0.2,0,7"),
    ] {
        let before = s.lines();
        s.hear_hello(&bad);
        assert_eq!(s.lines(), before, "{bad}");
    }
    s.hear_hello(&good.replace("10.0.0.1,6379,0", "10.0.0.2,6380,7"));
    assert_eq!(s.address_by_name("m"), Some(("10.0.0.2".into(), 6380)));
}

/// SENTINEL MONITOR takes port 0, as Redis does; the file that it leaves is read again.
#[test]
fn what_monitor_takes_is_read_again() {
    let mut s = read(WATCH);
    for (name, port) in [("none", "0"), ("last", "65535"), ("two words", "1")] {
        s.monitor(name, "127.0.0.1", port, "1").expect("it is taken");
    }
    let lines: Vec<_> = s.lines().into_iter().filter(|l| l.needed).map(|l| l.words).collect();
    let (again, warnings) = Sentinel::read(&lines, 26379, Rng::new(1), START).expect("its own lines");
    assert_eq!((again.lines(), warnings.len()), (s.lines(), 0));
}

#[test]
fn set_is_all_or_nothing() {
    let mut s = read(WATCH);
    let before = s.lines();
    let error = s.set("m", &["quorum", "5", "parallel-syncs", "0"]).expect_err("0 is refused");
    assert_eq!(error, "ERR Invalid argument '0' for SENTINEL SET 'parallel-syncs'");
    assert_eq!(s.lines(), before);
    s.set("m", &["quorum", "5", "rename-command", "CONFIG", "guess"]).expect("good values");
    assert!(s.lines().iter().any(|l| l.words.join(" ") == "rename-command m config guess"));
}

#[test]
fn passwords_are_not_told() {
    let mut s = read(WATCH);
    s.set("m", &["auth-pass", "secret"]).expect("a good value");
    let told = format!(
        "{:?}",
        s.take_actions().into_iter().filter(|a| !matches!(a, Action::Persist { .. })).collect::<Vec<_>>()
    );
    assert!(told.contains("auth-pass ******") && !told.contains("secret"), "{told}");
}

/// Connections authenticate first, under the names that commands have on that server.
#[test]
fn the_first_words_on_a_link() {
    let mut s = read(&format!("{WATCH}\nauth-user m u\nauth-pass m p\nrename-command m ping probe"));
    let actions = s.step(START, Event::Tick);
    let link = actions
        .iter()
        .find_map(|a| match a {
            Action::Connect { link, host, .. } if host == "10.0.0.1" => Some(*link),
            _ => None,
        })
        .expect("a link to the primary");
    let said =
        s.step(START, Event::Connected { link, peer_ip: "10.0.0.1".into(), local_ip: "10.0.1.9".into() });
    let sent: Vec<String> = said
        .iter()
        .filter_map(|a| match a {
            Action::Send { words, .. } => Some(words.join(" ")),
            _ => None,
        })
        .collect();
    let name = format!("CLIENT SETNAME sentinel-{}-cmd", &s.my_id()[..8]);
    assert_eq!(sent, ["AUTH u p", &name, "probe"]);
}

/// `master-reboot-down-after-period`: a primary that restarted and only loads is down after so long; by default never.
#[test]
fn a_primary_that_restarted_and_does_not_serve_is_down_after_its_time() {
    for period in [500, 0] {
        let mut s = read(&format!("{WATCH}\nmaster-reboot-down-after-period m {period}"));
        let primary = s.primary_ids()[0];
        s.at_mut(primary).run_id = id('a');
        s.hear_info(primary, format!("run_id:{}\r\nrole:master\r\n", id('b')).into_bytes());
        for now in (START..START + 2000).step_by(100) {
            s.link_mut(primary).last_ok = now;
            s.at_time(now).judge_alone(primary);
            assert_eq!(s.at(primary).sdown.is_some(), period > 0 && now > START + period, "{period} {now}");
        }
    }
}

/// A promotion cuts the connections of all sentinels together. One that was last heard of a whole ping ago is not down
/// for that: the new group is judged from the switch on.
#[test]
fn nobody_is_down_at_once_after_a_switch() {
    let mut s = read(&format!("{WATCH}\ndown-after-milliseconds m 1000"));
    let primary = s.primary_ids()[0];
    for id in s.group(primary) {
        let link = s.link_mut(id);
        (link.last_ok, link.ping_waits) = (START, None);
    }
    s.at_time(START + 990).switch_to(primary, Address::new("10.0.0.2", 6379));
    for (after, down) in [(20, false), (1000, false), (1001, true)] {
        for id in std::iter::once(primary).chain(s.replicas(primary)) {
            s.at_time(START + 990 + after).judge_alone(id);
            assert_eq!(s.at(id).sdown.is_some(), down, "{after}");
        }
    }
}

#[test]
fn a_busy_primary_that_is_down_has_its_script_ended() {
    let mut s = read(WATCH);
    let actions = s.step(START, Event::Tick);
    let links: Vec<_> = actions
        .iter()
        .filter_map(|a| match a {
            Action::Connect { link, host, .. } if host == "10.0.0.1" => Some(*link),
            _ => None,
        })
        .collect();
    let link = links[0];
    s.step(START, Event::Connected { link, peer_ip: String::new(), local_ip: "10.0.1.9".into() });
    // The replies to SETNAME and to the first ping.
    s.step(START, Event::Reply { link, reply: Value::Simple("OK".into()) });
    let busy = || Value::Error("BUSY Redis is busy running a script".into());
    let early = s.step(START + 10, Event::Reply { link, reply: busy() });
    let kills = |actions: &[Action]| {
        actions
            .iter()
            .filter(|a| matches!(a, Action::Send { words, .. } if words.join(" ") == "SCRIPT KILL"))
            .count()
    };
    assert_eq!(kills(&early), 0);
    let (mut now, mut killed) = (START, 0);
    while now < START + 40_000 {
        now += 100;
        let actions = s.step(now, Event::Tick);
        let asked =
            actions.iter().filter(|a| matches!(a, Action::Send { link: l, .. } if *l == link)).count();
        for _ in 0..asked {
            killed += kills(&s.step(now, Event::Reply { link, reply: busy() }));
        }
    }
    assert_eq!(killed, 1);
}

/// As at redis-sentinel: whom a group follows from now on counts as a primary, and is no news when it says so.
#[test]
fn the_primary_of_a_switch_changes_no_role_when_it_says_what_it_is() {
    let mut s = read(WATCH);
    let primary = s.primary_ids()[0];
    s.at_time(START + 10).switch_to(primary, Address::new("10.0.0.2", 6379));
    let told = |s: &mut Sentinel, info: &str| -> Vec<String> {
        s.hear_info(primary, info.into());
        let actions = s.take_actions();
        let channels = actions.into_iter().filter_map(|action| match action {
            Action::Publish { channel, .. } => Some(channel),
            _ => None,
        });
        channels.filter(|channel| channel.contains("role-change")).collect()
    };
    assert_eq!(told(&mut s, "role:master\r\n"), [""; 0]);
    assert_eq!(told(&mut s, "role:slave\r\n"), ["-role-change"]);
    assert_eq!(told(&mut s, "role:master\r\n"), ["+role-change"]);
}
