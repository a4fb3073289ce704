//! Figures of INFO and CLIENT LIST that say what has happened, and waits that others end.

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, wait_for};
use crate::workload::digest;

fn follow(replica: &mut Client, port: u16) {
    replica.ok(&format!("REPLICAOF 127.0.0.1 {port}"));
    wait_for("the link is up", SOON, || replica.info("master_link_status") == "up");
}

fn flags_of(client: &mut Client, id: &str) -> String {
    let line = client.run(&format!("CLIENT LIST ID {id}")).text();
    line.split(' ').find_map(|field| field.strip_prefix("flags=")).unwrap_or_default().to_owned()
}

#[test]
fn a_mass_expiry_moves_its_figures() {
    let server = Launch::subject().args(&["--hz", "10"]).start();
    let mut client = server.connect();
    let lines: Vec<String> = (0..30_000).map(|i| format!("SET k:{i} v PX {}", 200 + i % 50)).collect();
    for part in lines.chunks(1000) {
        client.pipeline(part);
    }
    wait_for("all are gone", SOON, || client.info_int("expired_keys") == 30_000);
    let stale: f64 = client.info("expired_stale_perc").parse().expect("a number");
    assert!(stale > 0.0 && stale <= 100.0, "{stale}");
    assert!(client.info_int("expired_time_cap_reached_count") >= 0);
    wait_for("it has cost something", SOON, || client.info_int("expire_cycle_cpu_milliseconds") > 0);
    client.ok("CONFIG RESETSTAT");
    let stale: f64 = client.info("expired_stale_perc").parse().expect("a number");
    assert!(stale < 1.0 && client.info_int("expired_keys") == 0, "{stale}");
}

#[test]
fn what_waits_for_a_replica_does_not_count_for_maxmemory() {
    let settings = ["--maxmemory", "60mb", "--maxmemory-policy", "allkeys-lru", "--repl-backlog-size", "1mb"];
    let more = ["--client-output-buffer-limit", "replica 0 0 0"];
    let primary = Launch::subject().args(&settings).args(&more).start();
    let replica = Launch::real().start();
    let (mut p, mut r) = (primary.connect(), replica.connect());
    follow(&mut r, primary.port);
    replica.signal("STOP");
    let value = "v".repeat(1 << 20);
    for i in 0..100 {
        // The same few keys: the data stay small, what the replica has to take does not.
        p.cmd(&["SET", &format!("k:{}", i % 4), &value]);
    }
    assert!(p.info_int("mem_not_counted_for_evict") > 80 << 20, "{}", p.info("mem_not_counted_for_evict"));
    assert!(p.info_int("used_memory") > 60 << 20);
    assert_eq!((p.info_int("evicted_keys"), p.run("DBSIZE").int()), (0, 4));
    replica.signal("CONT");
    wait_for("it has caught up", SOON, || digest(&mut p) == digest(&mut r));
    wait_for("nothing waits", SOON, || p.info_int("mem_not_counted_for_evict") < 2 << 20);
}

#[test]
fn an_error_in_the_stream_is_counted() {
    let (primary, replica) =
        (Server::subject(), Launch::subject().args(&["--replica-read-only", "no"]).start());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    follow(&mut r, primary.port);
    assert_eq!(r.info_int("unexpected_error_replies"), 0);
    r.ok("SET k string");
    p.run("LPUSH k element");
    wait_for("it is counted", SOON, || r.info_int("unexpected_error_replies") == 1);
    r.ok("CONFIG RESETSTAT");
    assert_eq!(r.info_int("unexpected_error_replies"), 0);
}

#[test]
fn keys_whose_loss_is_waited_for_are_counted() {
    for launch in [Launch::subject()] {
        let server = launch.start();
        let mut client = server.connect();
        client.ok("XGROUP CREATE x g $ MKSTREAM");
        let mut readers: Vec<Client> = (0..2).map(|_| server.connect()).collect();
        for reader in &mut readers {
            reader.send(&["XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "x", ">"]);
        }
        let mut popper = server.connect();
        popper.send(&["BLPOP", "l", "0"]);
        wait_for("all wait", SOON, || client.info_int("blocked_clients") == 3);
        assert_eq!(client.info_int("total_blocking_keys"), 2);
        assert_eq!(client.info_int("total_blocking_keys_on_nokey"), 1);
        client.run("DEL x");
        for reader in &mut readers {
            let reply = reader.read().to_string();
            assert!(reply.starts_with("-UNBLOCKED") || reply.starts_with("-NOGROUP"), "{reply}");
        }
        wait_for("none of them waits", SOON, || client.info_int("total_blocking_keys_on_nokey") == 0);
        assert_eq!(client.info_int("total_blocking_keys"), 1);
    }
}

#[test]
fn a_replicas_own_volatile_keys_are_counted() {
    let (primary, replica) =
        (Server::subject(), Launch::subject().args(&["--replica-read-only", "no"]).start());
    let mut r = replica.connect();
    follow(&mut r, primary.port);
    r.ok("SET own v PX 300");
    r.ok("SET other v EX 1000");
    assert_eq!(r.info_int("slave_expires_tracked_keys"), 2);
    wait_for("one has died", SOON, || r.info_int("slave_expires_tracked_keys") == 1);
    r.expect("EXISTS own", ":0");
    r.ok("FLUSHALL");
    assert_eq!(r.info_int("slave_expires_tracked_keys"), 0);
}

#[test]
fn long_replies_move_the_figures_of_their_buffers() {
    let server = Launch::subject().args(&["--io-threads", "1"]).start();
    let mut client = server.connect();
    let lines: Vec<String> = (0..3000).map(|i| format!("RPUSH l {}{i}", "e".repeat(1000))).collect();
    client.pipeline(&lines);
    assert_eq!(client.info_int("reply_buffer_shrinks"), 0);
    client.run("LRANGE l 0 -1");
    assert!(client.info_int("reply_buffer_shrinks") >= 1 && client.info_int("reply_buffer_expands") >= 1);
    client.ok("CONFIG RESETSTAT");
    client.ok("DEBUG REPLYBUFFER RESIZING 0");
    client.run("LRANGE l 0 -1");
    assert_eq!(client.info_int("reply_buffer_shrinks"), 0, "what is not given back is not counted");
    client.ok("DEBUG REPLYBUFFER RESIZING 1");
    client.run("LRANGE l 0 -1");
    wait_for("it is given back", SOON, || client.info_int("reply_buffer_shrinks") >= 1);
}

#[test]
fn waits_for_replicas_show_and_can_be_ended() {
    for launch in [Launch::subject(), Launch::real()] {
        let server = launch.start();
        let (mut waiting, mut client) = (server.connect(), server.connect());
        let id = waiting.run("CLIENT ID").int().to_string();
        for (command, by_time) in [("WAIT 1 0", ":0"), ("WAIT 2 60000", ":0")] {
            waiting.send(&command.split(' ').collect::<Vec<_>>());
            wait_for("it waits", SOON, || flags_of(&mut client, &id) == "b");
            assert_eq!(client.info_int("blocked_clients"), 1);
            client.expect(&format!("CLIENT UNBLOCK {id}"), ":1");
            assert_eq!(waiting.read().to_string(), by_time, "{command}");
            waiting.send(&command.split(' ').collect::<Vec<_>>());
            wait_for("it waits again", SOON, || flags_of(&mut client, &id) == "b");
            client.expect(&format!("CLIENT UNBLOCK {id} ERROR"), ":1");
            assert_eq!(waiting.read().to_string(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
            assert_eq!(flags_of(&mut client, &id), "N");
            client.expect(&format!("CLIENT UNBLOCK {id}"), ":0");
        }
        assert_eq!(client.info("errorstat_UNBLOCKED"), "count=2");
    }
}

#[test]
fn waits_for_the_disk_can_be_ended_and_a_pause_shows() {
    let server = Launch::subject().start();
    let (mut waiting, mut client) = (server.connect(), server.connect());
    let id = waiting.run("CLIENT ID").int().to_string();
    waiting.send(&["WAITAOF", "0", "1", "0"]);
    wait_for("it waits", SOON, || flags_of(&mut client, &id) == "b");
    client.expect(&format!("CLIENT UNBLOCK {id} TIMEOUT"), ":1");
    assert_eq!(waiting.read().to_string(), "[:0, :0]");
    client.ok("CLIENT PAUSE 60000 WRITE");
    waiting.send(&["SET", "k", "v"]);
    wait_for("it is held", SOON, || flags_of(&mut client, &id) == "b");
    // A client that a pause holds is not unblocked by another.
    client.expect(&format!("CLIENT UNBLOCK {id}"), ":0");
    client.ok("CLIENT UNPAUSE");
    assert_eq!(waiting.read().to_string(), "+OK");
    assert_eq!(flags_of(&mut client, &id), "N");
}

#[test]
fn a_promotion_keeps_what_has_arrived_of_the_stream() {
    if subject_is_real() {
        return; // It holds a shard with a word of ours.
    }
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r, mut holder) = (primary.connect(), replica.connect(), replica.connect());
    follow(&mut r, primary.port);
    // The replica cannot apply the first write for a while, nor what comes behind it.
    holder.send(&["DEBUG", "HOLD-SHARD", "first", "1"]);
    p.ok("SET first v");
    let lines: Vec<String> = (0..5000).map(|i| format!("SET k:{i} v")).collect();
    p.pipeline(&lines);
    let end = p.info_int("master_repl_offset");
    wait_for("everything has arrived", SOON, || r.info_int("slave_read_repl_offset") >= end);
    r.expect("REPLICAOF NO ONE", "+OK");
    assert_eq!(r.info("role"), "master");
    r.expect("DBSIZE", ":5001");
    assert_eq!(holder.read().to_string(), "+OK");
    assert!(replica.log().contains("MASTER MODE enabled (user request from 'id="));
    // And it can follow again from there.
    follow(&mut r, primary.port);
    wait_for("the same data", SOON, || digest(&mut p) == digest(&mut r));
}

/// Looks of commands that are about to write count as none; OBJECT's do.
const LOOKUPS: &str = "SET a 1|GET a|GET no|EXISTS a no|TTL a|TTL no|TYPE no|MGET a no a|STRLEN a|GETSET a 2|\
    SET a 3 GET|GETDEL no|GETEX a|APPEND a x|HSET h f v|HGET h no|HGET no f|HMGET h f no|LPUSH l a b|\
    LRANGE l 0 -1|LPOP no|LMOVE l l2 LEFT LEFT|SADD s a b|SMISMEMBER no a|SINTER s no|SINTERSTORE d s no|SPOP no|\
    ZADD z 1 a|ZRANK no a|ZUNION 2 z no|ZUNIONSTORE d 2 z no|XADD x 1-1 f v|XREAD STREAMS x no 0 0|DEL a no|\
    EXPIRE no 1|RENAME no m|COPY no mm|DUMP no|TOUCH z no|SORT no|BITCOUNT no|PFCOUNT no|GEODIST no a b|SCAN 0|\
    RANDOMKEY|XCLAIM x g c 0 1-1|HINCRBY h c 1|HINCRBY h2 c 1|HINCRBYFLOAT h c 1|XGROUP CREATE no g 0|\
    XGROUP CREATE x g 0|XGROUP SETID x g 0|OBJECT ENCODING h|OBJECT ENCODING no|OBJECT REFCOUNT h|OBJECT IDLETIME h|\
    XAUTOCLAIM no g c 0 0|XAUTOCLAIM x g c 0 0|XCLAIM x g c 0 1-1|XCLAIM no g c 0 1-1|XPENDING x g|XACK x g 1-1";

#[test]
fn lookups_are_counted_as_redis_counts_them() {
    let servers = [Server::subject(), Server::real()];
    let [mut ours, mut theirs] = [0, 1].map(|i: usize| servers[i].connect());
    let counted =
        |client: &mut Client| ["keyspace_hits", "keyspace_misses"].map(|field| client.info_int(field));
    for command in LOOKUPS.split('|') {
        let grown = [&mut ours, &mut theirs].map(|client| {
            let before = counted(client);
            client.run(command);
            let after = counted(client);
            [after[0] - before[0], after[1] - before[1]]
        });
        assert_eq!(grown[0], grown[1], "{command}");
    }
}

/// The members, fields or elements of a value that is large in the eyes of Redis.
fn large(key: &str, kind: &str) -> String {
    let parts = 0..1_000;
    match kind {
        "set" => format!("SADD {key} {}", parts.map(|i| format!("m{i}")).collect::<Vec<_>>().join(" ")),
        "hash" => format!("HSET {key} {}", parts.map(|i| format!("f{i} v")).collect::<Vec<_>>().join(" ")),
        "zset" => format!("ZADD {key} {}", parts.map(|i| format!("{i} m{i}")).collect::<Vec<_>>().join(" ")),
        "list" => format!("RPUSH {key} {}", vec!["x".repeat(8_200); 100].join(" ")),
        "packed list" => {
            format!("RPUSH {key} {}", parts.map(|i| i.to_string()).collect::<Vec<_>>().join(" "))
        }
        "ints" => format!("SADD {key} {}", (0..300).map(|i| i.to_string()).collect::<Vec<_>>().join(" ")),
        "string" => format!("SET {key} {}", "x".repeat(2 << 20)),
        _ => panic!("{kind}"),
    }
}

const KINDS: [&str; 7] = ["set", "hash", "zset", "list", "packed list", "ints", "string"];

/// A lazy deletion counts if Redis leaves it to a thread: by its size as Redis measures it, and by the directives.
#[test]
fn what_is_freed_lazily_is_counted_as_redis_counts_it() {
    let servers = [Server::subject(), Server::real()];
    let mut clients = [0, 1].map(|i: usize| servers[i].connect());
    let mut same = |before: &[String], command: &str| {
        let grown = clients.each_mut().map(|client| {
            client.ok("FLUSHALL SYNC");
            for line in before {
                let reply = client.run(line).to_string();
                assert!(!reply.starts_with('-'), "{reply}");
            }
            wait_for("what went before is freed", SOON, || client.info("lazyfree_pending_objects") == "0");
            let counted = client.info_int("lazyfreed_objects");
            command.split('|').for_each(|command| drop(client.run(command)));
            wait_for("it is freed", SOON, || client.info("lazyfree_pending_objects") == "0");
            client.info_int("lazyfreed_objects") - counted
        });
        assert_eq!(grown[0], grown[1], "{command} after {:.60}", before.last().map_or("", String::as_str));
        grown[0]
    };
    same(&["DEBUG SET-ACTIVE-EXPIRE 0".to_owned()], "FLUSHALL");
    let few = ["DEBUG POPULATE 500".to_owned()];
    for (command, counts) in
        [("FLUSHALL", 0), ("FLUSHALL SYNC", 0), ("FLUSHDB SYNC", 0), ("FLUSHDB ASYNC", 500)]
    {
        assert_eq!(same(&few, command), counts, "{command}");
    }
    for kind in KINDS {
        same(&[large("k", kind)], "UNLINK k");
        same(&[large("k", kind)], "DEL k");
    }
    let over = |line: &str| [large("k", "set"), line.to_owned()];
    for yes in [
        "proto-max-bulk-len 512mb",
        "lazyfree-lazy-user-del yes",
        "lazyfree-lazy-user-flush yes",
        "lazyfree-lazy-server-del yes",
        "lazyfree-lazy-expire yes",
    ] {
        same(&[format!("CONFIG SET {yes}")], "FLUSHDB");
        same(&few, "FLUSHALL");
        same(&few, "FLUSHALL SYNC");
        same(&[large("k", "set")], "DEL k");
        same(&[large("k", "set")], "SET k v");
        same(&[large("k", "set")], "EXPIRE k -1");
        same(&[large("k", "hash")], "SINTERSTORE k nosuch");
        same(&over("SET other v"), "RENAME other k");
        // Nobody but the command that meets it is to delete it.
        same(&over("PEXPIRE k 1"), "DEBUG SLEEP 0.01|GET k");
    }
}

/// Long values, messages and what blocked clients get are sent on other ways than a short reply.
#[test]
fn all_that_is_sent_is_counted() {
    let server = Server::subject();
    let (mut judge, mut reader) = (server.connect(), server.connect());
    let long = "x".repeat(500_000);
    judge.ok(&format!("SET long {long}"));
    judge.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(reader.run("GET long").text().len(), 500_000);
    reader.send(&["BLPOP", "list", "0"]);
    wait_for("it waits", SOON, || judge.info_int("blocked_clients") == 1);
    judge.run(&format!("RPUSH list {long}"));
    reader.read();
    reader.run("SUBSCRIBE news");
    judge.run(&format!("PUBLISH news {long}"));
    reader.read();
    let mut asked = 0;
    wait_for("it is counted", SOON, || {
        asked += 1;
        judge.info_int("total_net_output_bytes") >= 1_500_000
    });
    assert!(asked < 100, "the replies of INFO alone would reach it");
    let (bytes, writes) =
        (judge.info_int("total_net_output_bytes"), judge.info_int("total_writes_processed"));
    assert!(bytes < 2_200_000 && writes > 4, "{bytes} bytes, {writes} times");
}
