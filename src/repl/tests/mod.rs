//! A primary and its replicas in virtual time, over links that the test cuts where it likes.

mod world;

use super::primary::{self, Primary, Replconf, Target};
use super::replica::{self, Event};
use super::*;
use crate::base::rng::Rng;
use world::{Follower, Node, World, config, upstream};

#[test]
fn a_new_replica_copies_everything_and_follows() {
    let mut w = World::pair();
    w.node.write("before ");
    w.converge();
    w.node.write("after ");
    w.converge();
    assert_eq!((w.node.full_syncs, w.followers[0].data.as_str()), (1, "before after "));
    w.run(1500);
    let end = w.node.end();
    assert_eq!(w.node.primary.acknowledged_by(end), 1);
    assert_eq!(w.node.primary.acknowledged_by(end + 1), 0);
    assert_eq!(w.node.primary.good(w.now), 1);
    let mut info = String::new();
    w.node.primary.write_info(w.now, &mut info);
    assert_eq!(info, format!("slave0:ip=10.0.0.1,port=6380,state=online,offset={end},lag=0\r\n"));
    let role = &w.node.primary.role()[0];
    assert_eq!((role.ip.as_str(), role.port, role.offset), ("10.0.0.1", 6380, end));
    for line in [
        "Connecting to MASTER 10.0.0.9:6379",
        "Master replied to PING, replication can continue...",
        "Partial resynchronization not possible (no cached master)",
        "receiving streamed RDB from master with EOF",
        "MASTER <-> REPLICA sync: Finished with success",
    ] {
        assert_eq!(w.followers[0].logged(line), 1, "{line}");
    }
    for line in [
        "Replica 10.0.0.1:6380 asks for synchronization",
        "Full resync requested by replica 10.0.0.1:6380",
        "Starting BGSAVE for SYNC with target: replicas sockets",
        "Synchronization with replica 10.0.0.1:6380 succeeded",
    ] {
        assert_eq!(w.node.logged(line), 1, "{line}");
    }
}

#[test]
fn a_cut_link_goes_on_where_it_was() {
    let mut w = World::pair();
    w.converge();
    w.run(2000);
    for round in 0..5 {
        w.cut(0);
        w.node.write(&format!("missed {round} "));
        w.converge();
        w.run(2000);
    }
    assert_eq!(w.node.full_syncs, 1);
    assert_eq!(w.followers[0].logged("Successful partial resynchronization with master."), 5);
    assert_eq!(w.followers[0].logged("Reconnecting to MASTER 10.0.0.9:6379"), 5);
    assert_eq!(w.node.logged("accepted. Sending 9 bytes of backlog"), 5);
}

#[test]
fn a_replica_that_missed_too_much_copies_everything_again() {
    let mut w = World::pair();
    w.converge();
    w.cut(0);
    w.node.write("a long absence ");
    w.node.kept_from = Some(w.node.end());
    w.converge();
    assert_eq!(w.node.full_syncs, 2);
    assert_eq!(w.node.logged("for lack of backlog (Replica request was: 1)."), 1);
}

/// Whatever byte is the last that arrives, in either direction, the next attempt succeeds.
#[test]
fn a_cut_at_every_byte_heals() {
    let total = |w: &mut World| {
        w.node.write("some data ");
        w.cut_after = Some(usize::MAX);
        w.cut_back_after = Some(usize::MAX);
        w.converge();
        w.node.write("and more ");
        w.converge();
        (usize::MAX - w.cut_after.unwrap(), usize::MAX - w.cut_back_after.unwrap())
    };
    let (down, up) = total(&mut World::pair());
    assert!(down > 150 && up > 150, "{down} {up}");
    for diskless in [true, false] {
        for (cut, back) in (1..=down).map(|n| (Some(n), None)).chain((1..=up).map(|n| (None, Some(n)))) {
            let mut w = World::pair();
            w.node.primary.set_config(primary::Config { diskless, ..config() });
            w.node.write("some data ");
            (w.cut_after, w.cut_back_after) = (cut, back);
            w.run(500);
            w.node.write("and more ");
            w.converge();
            assert!(w.node.full_syncs <= 2);
            assert_eq!(w.node.primary.connected(), 1, "no link is left behind");
        }
    }
}

#[test]
fn a_wrong_password_is_told_and_tried_again() {
    let mut w = World::pair();
    w.node.password = Some("right");
    w.run(3000);
    // Without a password the primary answers PING, but no PSYNC.
    assert!(!w.followers[0].replica.is_up());
    w.followers[0].replica.set_config(replica::Config { password: Some("wrong".into()), ..upstream() });
    w.run(3000);
    assert!(
        w.followers[0].logged("Unable to AUTH to MASTER: -WRONGPASS invalid username-password pair") >= 2
    );
    let right = replica::Config { user: Some("u".into()), password: Some("right".into()), ..upstream() };
    w.followers[0].replica.set_config(right);
    w.converge();
}

#[test]
fn a_primary_that_is_not_ready_is_asked_again_without_losing_the_position() {
    let mut w = World::pair();
    w.converge();
    w.cut(0);
    w.node.psync_error = Some("-NOMASTERLINK Can't SYNC while not connected with my master");
    w.run(2000);
    w.node.psync_error = Some("-LOADING Redis is loading the dataset in memory");
    w.run(2000);
    assert!(w.followers[0].logged("Master is currently unable to PSYNC but should be in the future") >= 2);
    w.node.psync_error = None;
    w.converge();
    assert_eq!(w.node.full_syncs, 1);
}

#[test]
fn a_primary_from_before_psync_is_followed_by_sync() {
    let mut w = World::pair();
    w.node.knows_psync = false;
    w.node.write("old data ");
    w.node.primary.set_config(primary::Config { diskless: false, ..config() });
    w.converge();
    w.node.write("and news ");
    w.converge();
    assert_eq!(w.followers[0].logged("Retrying with SYNC..."), 1);
    assert_eq!(w.followers[0].replica.position(), None);
    for _ in 0..12 {
        w.run(10_000);
        w.node.write("a sign of life ");
    }
    assert_eq!(w.node.full_syncs, 0);
    assert_eq!(w.followers[0].logged("MASTER <-> REPLICA sync: Finished with success"), 1);
    assert_eq!(w.node.primary.connected(), 1, "it acknowledges nothing, and is not dropped for that");
}

#[test]
fn garbage_ends_the_attempt_and_the_next_one_succeeds() {
    for garbage in [
        &b"\0\xff\xfe garbage\r\n"[..],
        b"-ERR go away\r\n",
        b"+FULLRESYNC nonsense\r\n",
        b"$5\r\nhello\r\n",
        &[b'x'; 10_000],
        b"+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC short 1\r\n",
        b"+PONG\r\n+OK\r\n+OK\r\n+CONTINUE\r\n",
        b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n-ERR no\r\n-ERR no\r\n",
    ] {
        let mut w = World::pair();
        w.followers[0].step(0, Event::Tick);
        w.followers[0].step(0, Event::Connected);
        w.followers[0].step(0, Event::Bytes(garbage));
        w.followers[0].wants_connection = false;
        w.followers[0].step(0, Event::Closed("the test's end of it"));
        w.converge();
    }
}

/// The log has the words of Redis, and what the primary said as it said it.
#[test]
fn the_log_tells_why_a_primary_is_not_followed() {
    let mut f = Follower::new(upstream(), None, "");
    f.step(0, Event::Tick);
    f.step(0, Event::Failed("Connection refused"));
    assert_eq!(f.logged("Error condition on socket for SYNC: Connection refused"), 1);
    f.step(1001, Event::Tick);
    f.link = Some(1);
    f.step(1001, Event::Connected);
    let refusal = "NOPERM User rep has no permissions to run the 'psync' command";
    f.step(1001, Event::Bytes(format!("+PONG\r\n+OK\r\n+OK\r\n-{refusal}\r\n").as_bytes()));
    assert_eq!(f.logged(&format!("Unexpected reply to PSYNC from master: -{refusal}")), 1);
    f.step(1001, Event::Bytes(b"-NOPERM for \"sync\"\x07\r\n"));
    assert_eq!(f.logged("MASTER aborted replication with an error: NOPERM for \"sync\"\\x07"), 1);
}

#[test]
fn silence_in_every_phase_ends_the_attempt() {
    let phases: [(&[u8], &str); 4] = [
        (b"", "Timeout connecting to the MASTER..."),
        (b"+PONG\r\n", "Timeout connecting to the MASTER..."),
        (
            b"+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC 0123456789012345678901234567890123456789 5\r\n$9\r\n<ha",
            "Timeout receiving bulk data from MASTER...",
        ),
        (
            b"+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC 0123456789012345678901234567890123456789 5\r\n$6\r\n<half>",
            "MASTER timeout: no data nor PING received...",
        ),
    ];
    for (said, line) in phases {
        let mut f = Follower::new(upstream(), None, "");
        f.step(0, Event::Tick);
        f.link = Some(1);
        f.step(0, Event::Connected);
        for byte in said {
            f.step(0, Event::Bytes(&[*byte]));
        }
        f.step(60_000, Event::Tick);
        assert_eq!((f.logged(line), f.link), (0, Some(1)));
        f.step(60_001, Event::Tick);
        assert_eq!((f.logged(line), f.link), (1, None), "{line}");
    }
}

#[test]
fn a_silent_replica_is_dropped_and_a_loading_one_is_not() {
    let mut w = World::pair();
    w.converge();
    let id = w.followers[0].link.unwrap();
    // It loads for long: only empty lines come.
    for _ in 0..100 {
        w.now += 1000;
        w.node.receive(w.now, id, b"\n");
        w.node.tick(w.now);
    }
    assert_eq!(w.node.primary.connected(), 1);
    let lag_ms = config().max_lag_ms;
    assert_eq!(w.node.primary.good(w.now + lag_ms), 1);
    assert_eq!(w.node.primary.good(w.now + lag_ms + 1000), 0);
    w.now += 60_001;
    assert_eq!(w.node.primary.good(w.now), 0);
    w.node.tick(w.now);
    assert_eq!(w.node.logged("Disconnecting timedout replica (streaming sync): 10.0.0.1:6380"), 1);
    assert!(w.node.links.is_empty());
}

#[test]
fn a_failed_load_copies_again() {
    let mut w = World::pair();
    w.followers[0].load_fails = true;
    w.run(500);
    assert!(w.followers[0].logged("Failed trying to load the MASTER synchronization DB: it is damaged") == 1);
    w.followers[0].load_fails = false;
    w.converge();
}

#[test]
fn siblings_of_a_promoted_replica_go_on_with_it() {
    let mut w = World::new(
        Node::new(config()),
        vec![Follower::new(upstream(), None, ""), Follower::new(upstream(), None, "")],
    );
    w.node.write("shared ");
    w.converge();
    w.node.write("history ");
    w.converge();
    w.run(2000);
    // The first takes over at its offset; it kept the same stream.
    let promoted = w.followers.remove(0);
    let position = promoted.replica.position().unwrap();
    w.cut(0);
    let mut node = Node::new(config());
    node.history.adopt(position.id);
    node.history.promote(position.offset, &mut Rng::new(7));
    node.data = promoted.data;
    node.stream = w.node.stream.clone();
    node.kept_from = Some(0);
    w.node = node;
    w.node.write("goes on ");
    w.converge();
    assert_eq!(w.node.full_syncs, 0);
    assert_eq!(w.followers[0].logged("Master replication ID changed to"), 1);
    assert_eq!(w.followers[0].replica.position().unwrap().id, w.node.history.id());
    // And again under the new id.
    w.run(2000);
    w.cut(0);
    w.node.write("once more ");
    w.converge();
    assert_eq!(w.node.full_syncs, 0);
}

#[test]
fn replicas_that_ask_together_share_a_snapshot() {
    let delayed = primary::Config { diskless_delay_ms: 5000, ..config() };
    let mut w = World::new(Node::new(delayed), vec![Follower::new(upstream(), None, "")]);
    w.node.write("data ");
    w.run(2000);
    w.followers.push(Follower::new(upstream(), None, ""));
    w.converge();
    assert_eq!(w.node.logged("Starting BGSAVE for SYNC"), 1);
    assert_eq!(w.node.full_syncs, 2);
    assert!(w.now >= 5000);

    let enough = primary::Config { diskless_max_replicas: 2, ..delayed };
    let both = vec![Follower::new(upstream(), None, ""), Follower::new(upstream(), None, "")];
    let mut w = World::new(Node::new(enough), both);
    w.converge();
    assert!(w.now < 1000, "the number expected is there");
}

#[test]
fn a_replica_joins_a_snapshot_on_its_way_to_disk_but_not_one_to_sockets() {
    for (target, joined) in [(Target::Disk, true), (Target::Sockets, false)] {
        let mut primary =
            Primary::new(0, primary::Config { diskless: target == Target::Sockets, ..config() }, Rng::new(1));
        let mut history = History::new(&mut Rng::new(2));
        let mut out = vec![];
        let request = Request { id: b"?", from: -1 };
        let capa: [&[u8]; 2] = [b"capa", b"eof"];
        primary.replconf(0, 1, "a", &capa, &mut out);
        primary.psync(0, 1, "a", request, &mut history, None, &mut out);
        assert!(out.contains(&primary::Action::StartSnapshot(target, primary::Content::ALL)));
        let (ids, mark) = primary.snapshot_started(70, &history, &mut out);
        assert_eq!((ids, mark.len()), (vec![1], if joined { 0 } else { 40 }));
        primary.replconf(0, 2, "b", &capa, &mut out);
        let window = Some(Window { start: 70, end: 90 });
        out.clear();
        primary.psync(5, 2, "b", request, &mut history, window, &mut out);
        let told = primary::Action::Send(2, format!("+FULLRESYNC {} 70\r\n", history.id()).into_bytes());
        assert_eq!(out.contains(&told), joined);
        assert_eq!(primary.needed_from(), Some(70));
        if joined {
            assert_eq!(primary.file_ready(1234, &mut out), [1, 2]);
            primary.rdb_sent(9, 2, &mut out);
            assert!(out.contains(&primary::Action::Stream(2, 70)));
        } else {
            primary.stream_ready();
            primary.tick(200, Some(&mut history), true, &mut out);
            assert!(
                out.contains(&primary::Action::StartSnapshot(target, primary::Content::ALL)),
                "the next one is for it"
            );
        }
    }
}

/// Whoever waits for libraries alone is none of those for whom a snapshot of all data is put off.
#[test]
fn only_replicas_that_want_the_same_share_a_snapshot() {
    let config = primary::Config { diskless_delay_ms: 5000, diskless_max_replicas: 2, ..config() };
    let mut primary = Primary::new(0, config, Rng::new(1));
    let mut history = History::new(&mut Rng::new(2));
    let mut out = vec![];
    let request = Request { id: b"?", from: -1 };
    let all: [&[u8]; 2] = [b"capa", b"eof"];
    let libraries: [&[u8]; 4] = [b"capa", b"eof", b"rdb-filter-only", b"functions"];
    for (id, words) in [(1, &all[..]), (2, &libraries[..])] {
        primary.replconf(0, id, "a", words, &mut out);
        primary.psync(0, id, "a", request, &mut history, None, &mut out);
    }
    primary.tick(4900, Some(&mut history), true, &mut out);
    assert!(!out.iter().any(|a| matches!(a, primary::Action::StartSnapshot(..))), "{out:?}");
    primary.tick(5000, Some(&mut history), true, &mut out);
    assert!(out.contains(&primary::Action::StartSnapshot(Target::Sockets, primary::Content::ALL)));
    assert_eq!(primary.snapshot_started(0, &history, &mut out).0, [1]);
}

/// A slow replica takes longer than the snapshot. What follows the mark before it has said that it has all would hide
/// the mark from it, and it would wait for it for ever.
#[test]
fn an_rdb_between_marks_is_followed_by_nothing_while_it_is_on_its_way() {
    let mut primary = Primary::new(0, config(), Rng::new(1));
    let mut history = History::new(&mut Rng::new(2));
    let mut out = vec![];
    let request = Request { id: b"?", from: -1 };
    primary.replconf(0, 1, "a", &[b"capa", b"eof"], &mut out);
    primary.psync(0, 1, "a", request, &mut history, None, &mut out);
    primary.tick(10_000, Some(&mut history), true, &mut out);
    assert_eq!(primary.snapshot_started(70, &history, &mut out).0, [1]);
    primary.stream_ready();
    // The next one is for a replica that cannot take marks, and goes to a file; then another one fails.
    for id in [2, 3] {
        out.clear();
        let window = Some(Window { start: 70, end: 90 });
        let now = 20_000 * id;
        primary.psync(now, id, "b", request, &mut history, window, &mut out);
        primary.tick(now + 10_000, Some(&mut history), true, &mut out);
        assert!(out.contains(&primary::Action::Send(id, b"\n".to_vec())), "who waits is comforted");
        assert_eq!(primary.snapshot_started(90, &history, &mut out).0, [id]);
        if id == 2 {
            assert_eq!(primary.file_ready(1234, &mut out), [2]);
            primary.rdb_sent(now + 10_000, 2, &mut out);
        } else {
            primary.snapshot_failed(&mut out);
            assert!(out.contains(&primary::Action::Close(3)));
        }
        let to_first = out.iter().filter(|a| {
            matches!(
                a,
                primary::Action::Send(1, _) | primary::Action::Close(1) | primary::Action::Stream(1, _)
            )
        });
        assert_eq!(to_first.count(), 0, "{out:?}");
    }
    assert_eq!(primary.needed_from(), Some(70));
    out.clear();
    primary.rdb_sent(80_000, 1, &mut out);
    primary.replconf(80_000, 1, "a", &[b"ack", b"70"], &mut out);
    assert!(out.contains(&primary::Action::Stream(1, 70)));
}

#[test]
fn a_failed_snapshot_sends_its_replicas_away() {
    let mut primary = Primary::new(0, primary::Config { diskless: false, ..config() }, Rng::new(1));
    let mut history = History::new(&mut Rng::new(2));
    let mut out = vec![];
    let request = Request { id: b"?", from: -1 };
    primary.psync(0, 1, "a", request, &mut history, None, &mut out);
    primary.snapshot_delayed(0, &mut out);
    out.clear();
    primary.tick(900, Some(&mut history), true, &mut out);
    assert!(!out.contains(&primary::Action::StartSnapshot(Target::Disk, primary::Content::ALL)));
    primary.tick(1000, Some(&mut history), true, &mut out);
    assert!(out.contains(&primary::Action::StartSnapshot(Target::Disk, primary::Content::ALL)));
    assert!(out.contains(&primary::Action::Send(1, b"\n".to_vec())), "and it is comforted meanwhile");
    primary.snapshot_failed(&mut out);
    assert!(out.contains(&primary::Action::Close(1)));
}

#[test]
fn a_stream_without_readers_is_dropped_and_its_ids_with_it() {
    let mut w = World::pair();
    w.node.primary.set_config(primary::Config { backlog_ttl_ms: 30_000, ..config() });
    w.converge();
    let old = w.node.history.id();
    w.reachable = false;
    w.cut(0);
    w.run(31_000);
    assert_eq!(w.node.logged("Replication backlog freed after 30 seconds without connected replicas."), 1);
    w.node.write("unseen ");
    w.reachable = true;
    w.converge();
    assert_ne!(w.node.history.id(), old);
    assert_eq!(w.node.logged("Replication ID mismatch"), 1);
    assert_eq!(w.node.full_syncs, 2);
}

#[test]
fn a_stream_is_kept_for_ever_by_a_time_of_0() {
    let mut w = World::pair();
    w.node.primary.set_config(primary::Config { backlog_ttl_ms: 0, ..config() });
    w.converge();
    let old = w.node.history.id();
    w.reachable = false;
    w.cut(0);
    w.run(31_000);
    w.reachable = true;
    w.converge();
    assert_eq!((w.node.history.id(), w.node.full_syncs), (old, 1));
}

#[test]
fn pings_go_out_only_to_somebody() {
    let mut primary = Primary::new(0, config(), Rng::new(1));
    let mut history = History::new(&mut Rng::new(2));
    let mut out = vec![];
    let ping = primary::Action::Append(PING_RECORD);
    primary.tick(10_000, Some(&mut history), true, &mut out);
    assert!(!out.contains(&ping));
    let window = Some(Window { start: 0, end: 0 });
    let id = history.id();
    let request = Request { id: id.as_str().as_bytes(), from: 1 };
    primary.psync(10_000, 1, "a", request, &mut history, window, &mut out);
    primary.tick(19_999, Some(&mut history), true, &mut out);
    assert!(!out.contains(&ping));
    primary.tick(20_000, None, true, &mut out);
    assert!(!out.contains(&ping), "a replica passes on its primary's");
    primary.tick(20_000, Some(&mut history), true, &mut out);
    assert!(out.contains(&ping));
}

#[test]
fn an_acknowledgement_that_is_not_whole_is_no_report() {
    let words = |line: &'static str| line.split(' ').map(str::as_bytes).collect::<Vec<_>>();
    for (line, want) in [
        ("REPLCONF ACK 5", FromReplica::Reports),
        ("replconf ack 5 fack 3", FromReplica::Reports),
        ("REPLCONF GETACK *", FromReplica::Reports),
        ("REPLCONF ACK", FromReplica::Command),
        ("REPLCONF ACK 5 FACK", FromReplica::Command),
        ("REPLCONF capa eof", FromReplica::Command),
        ("PSYNC ? -1", FromReplica::Repeats),
    ] {
        assert_eq!(FromReplica::of(&words(line)), want, "{line}");
    }
}

#[test]
fn replconf_refuses_what_it_cannot_use() {
    let mut primary = Primary::new(0, config(), Rng::new(1));
    let mut ask = |args: &[&[u8]]| primary.replconf(0, 1, "a", args, &mut vec![]);
    let error = |text: &str| Replconf::Error(text.into());
    assert_eq!(ask(&[b"listening-port", b"6380", b"ip-address", b"host", b"CAPA", b"new"]), Replconf::Ok);
    assert_eq!(ask(&[b"listening-port"]), error("ERR syntax error"));
    assert_eq!(ask(&[b"listening-port", b"x"]), error("ERR value is not an integer or out of range"));
    assert_eq!(ask(&[b"colour", b"red"]), error("ERR Unrecognized REPLCONF option: colour"));
    assert_eq!(
        ask(&[b"ip-address", &[b'1'; 300]]),
        error("ERR REPLCONF ip-address provided by replica instance is too long: 300 bytes")
    );
    assert_eq!(ask(&[b"rdb-only", b"2"]), error("ERR value is out of range, value must between 0 and 1"));
    assert_eq!(ask(&[b"rdb-filter-only", b"\"functions\" functions"]), Replconf::Ok);
    assert_eq!(ask(&[b"rdb-filter-only", b"\""]), error("ERR Missing rdb-filter-only values"));
    assert_eq!(ask(&[b"ack", b"5"]), Replconf::Silent);
    assert_eq!(primary.acknowledged_by(0), 0, "who is no replica acknowledges nothing");
}

#[test]
fn info_of_a_replica_tells_how_far_a_transfer_is() {
    let mut f = Follower::new(upstream(), None, "");
    let mut info = String::new();
    f.replica.write_info(0, &mut info);
    assert_eq!(
        info,
        "master_host:10.0.0.9\r\nmaster_port:6379\r\nmaster_link_status:down\r\n\
         master_last_io_seconds_ago:-1\r\nmaster_sync_in_progress:0\r\nslave_read_repl_offset:1\r\n\
         slave_repl_offset:1\r\nmaster_link_down_since_seconds:-1\r\n"
    );
    f.step(0, Event::Tick);
    f.step(0, Event::Connected);
    f.step(
        1000,
        Event::Bytes(
            b"+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC 0123456789012345678901234567890123456789 5\r\n$8\r\n<h",
        ),
    );
    info.clear();
    f.replica.write_info(3000, &mut info);
    assert!(
        info.contains(
            "master_sync_total_bytes:8\r\nmaster_sync_read_bytes:2\r\nmaster_sync_left_bytes:6\r\n\
             master_sync_perc:25.00\r\nmaster_sync_last_io_seconds_ago:2\r\n"
        ),
        "{info}"
    );
    assert_eq!((f.replica.role_state(), f.replica.role_offset()), ("sync", -1));
    f.step(3000, Event::Bytes(b"alf..>stream"));
    assert_eq!((f.replica.role_state(), f.replica.role_offset()), ("connected", 11));
    assert_eq!(f.data, "half..stream");
}

/// PSYNC FAILOVER is said once, and its answer decides whether the part was taken over.
#[test]
fn a_primary_that_hands_over_asks_for_it_and_heeds_the_answer() {
    use replica::{Action, Position, Replica};
    let id = ReplId::random(&mut Rng::new(3));
    for (answer, taken) in [
        (format!("+CONTINUE {id}\r\n"), true),
        (format!("+FULLRESYNC {id} 0\r\n"), true),
        ("-ERR PSYNC FAILOVER replid must match my replid.\r\n".to_owned(), false),
        ("-NOMASTERLINK Can't SYNC while failing over\r\n".to_owned(), false),
    ] {
        let mut link = Replica::new(0, upstream(), Some(Position { id, offset: 10 })).handing_over();
        let mut out = vec![];
        link.step(0, Event::Tick, &mut out);
        link.step(0, Event::Connected, &mut out);
        link.step(0, Event::Bytes(b"+PONG\r\n+OK\r\n+OK\r\n"), &mut out);
        let mut sent = out.iter().filter_map(|a| if let Action::Send(b) = a { Some(&b[..]) } else { None });
        let asked = format!("$5\r\nPSYNC\r\n$40\r\n{id}\r\n$2\r\n11\r\n$8\r\nFAILOVER\r\n");
        assert!(sent.next_back().unwrap().ends_with(asked.as_bytes()));
        out.clear();
        link.step(0, Event::Bytes(answer.as_bytes()), &mut out);
        assert_eq!(out.contains(&Action::TakenOver), taken, "{answer}");
        assert_eq!(out.contains(&Action::Refused), !taken, "{answer}");
        assert_eq!(out.contains(&Action::Close), !taken, "{answer}");
    }
}
