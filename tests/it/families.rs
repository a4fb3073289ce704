//! Fields that expire, and SORT over keys that it does not name.

use crate::common::client::Client;
use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use crate::workload::digest;
use std::time::Duration;

/// A value of a line of INFO keyspace.
fn keyspace(client: &mut Client, field: &str) -> i64 {
    let line = client.info("db0");
    let value = line.split(',').find_map(|part| part.strip_prefix(field)?.strip_prefix('='));
    value.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Nobody looks at the fields that die: they go all the same, on the primary by the clock and on the replica
/// because it is told so.
#[test]
fn dead_fields_go_by_themselves_and_replicas_are_told_so() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", Duration::from_secs(60), || r.info("master_link_status") == "up");
    let mut lines = Vec::new();
    for i in 0..100 {
        lines.push(format!("HSET some:{i} stays 1 a 2 b 3"));
        lines.push(format!("HPEXPIRE some:{i} 50 FIELDS 2 a b"));
        lines.push(format!("HSET all:{i} a 2 b 3"));
        lines.push(format!("HPEXPIRE all:{i} 50 FIELDS 2 a b"));
        lines.push(format!("HSET later:{i} a 2 b 3"));
        lines.push(format!("HEXPIRE later:{i} 10000 FIELDS 1 a"));
        lines.push(format!("HSET later:{i} b 4"));
    }
    p.pipeline(&lines);
    wait_for("dead fields are gone", SOON, || p.info_int("expired_subkeys") == 400);
    p.expect("DBSIZE", ":200");
    p.expect("HLEN some:5", ":1");
    p.expect("EXISTS all:7", ":0");
    assert_eq!((keyspace(&mut p, "keys"), keyspace(&mut p, "subexpiry")), (200, 100));
    wait_for("the replica is told", SOON, || digest(&mut r) == digest(&mut p));
    r.expect("HLEN some:5", ":1");
    assert_eq!((keyspace(&mut r, "keys"), keyspace(&mut r, "subexpiry")), (200, 100));
    assert_eq!(r.run("HPEXPIRETIME later:3 FIELDS 2 a b"), p.run("HPEXPIRETIME later:3 FIELDS 2 a b"));
    // What is lost in other ways is counted, too.
    p.pipeline(&[
        "DEL later:1",
        "HDEL later:2 a",
        "HSET later:3 a 1",
        "HPERSIST later:4 FIELDS 1 a",
        "SET later:5 x",
    ]);
    assert_eq!(keyspace(&mut p, "subexpiry"), 95);
    p.pipeline(&["RENAME later:6 renamed", "COPY later:7 copied"]);
    assert_eq!(keyspace(&mut p, "subexpiry"), 96);
    p.ok("FLUSHALL");
    assert_eq!(keyspace(&mut p, "subexpiry"), 0);
}

/// A replica shows dead fields as missing and deletes none of them.
#[test]
fn a_replica_deletes_no_field_by_itself() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", Duration::from_secs(60), || r.info("master_link_status") == "up");
    p.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    p.run("HSET h a 1 b 2");
    p.run("HPEXPIRE h 1 FIELDS 1 a");
    wait_for("the replica has it", SOON, || r.run("HLEN h").to_string() == ":2");
    wait_for("the field is dead", SOON, || r.run("HEXISTS h a").to_string() == ":0");
    r.expect("HMGET h a b", "[nil, \"2\"]");
    r.expect("HGETALL h", "[\"b\", \"2\"]");
    r.expect("HRANDFIELD h 5", "[\"b\"]");
    r.expect("HTTL h FIELDS 2 a b", "[:-2, :-1]");
    r.expect("HLEN h", ":2");
    p.expect("HGET h a", "nil");
    wait_for("the replica is told", SOON, || r.run("HLEN h").to_string() == ":1");
}

/// OVERFLOW FAIL refuses the number and leaves the string as long as it would have become.
#[test]
fn a_string_that_bitfield_makes_longer_in_vain_is_longer_on_replicas() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", Duration::from_secs(60), || r.info("master_link_status") == "up");
    p.expect("BITFIELD k OVERFLOW FAIL INCRBY u2 100 9", "[nil]");
    p.expect("STRLEN k", ":13");
    p.ok("SET behind it");
    wait_for("the replica has it", SOON, || r.run("EXISTS behind").to_string() == ":1");
    r.expect("STRLEN k", ":13");
}

#[test]
fn times_of_fields_come_through_a_reload() {
    let server = Server::subject();
    let mut c = server.connect();
    let mut lines = Vec::new();
    for i in 0..600 {
        lines.push(format!("HSET big f{i} v{i}"));
        lines.push(format!("HSET small f{} v{i}", i % 20));
    }
    for i in (0..600).step_by(3) {
        lines.push(format!("HPEXPIREAT big {} FIELDS 1 f{i}", 33_177_117_420_123_i64 + i));
        lines.push(format!("HPEXPIREAT small {} FIELDS 1 f{}", 33_177_117_420_123_i64 + i, i % 20));
    }
    c.pipeline(&lines);
    let times = |c: &mut Client| {
        let fields: Vec<String> = (0..600).map(|i| format!("f{i}")).collect();
        let fields = fields.join(" ");
        ["big", "small"].map(|key| c.run(&format!("HPEXPIRETIME {key} FIELDS 600 {fields}")))
    };
    let (before, sum) = (times(&mut c), digest(&mut c));
    c.expect("OBJECT ENCODING big", "\"hashtable\"");
    c.expect("OBJECT ENCODING small", "\"listpackex\"");
    c.ok("DEBUG RELOAD");
    assert_eq!((times(&mut c), digest(&mut c)), (before, sum));
    assert_eq!(keyspace(&mut c, "subexpiry"), 2);
}

/// The patterns reach every slot, alone, in a transaction, and in the stream of a primary.
#[test]
fn sort_reaches_keys_that_it_does_not_name() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", Duration::from_secs(60), || r.info("master_link_status") == "up");
    let lines: Vec<String> =
        (0..300).flat_map(|i| [format!("RPUSH l {i}"), format!("SET w:{i} {}", 300 - i)]).collect();
    p.pipeline(&lines);
    let want: Vec<String> = (0..300).rev().map(|i| format!("\"{i}\"")).collect();
    let want = format!("[{}]", want.join(", "));
    p.expect("SORT l BY w:*", &want);
    p.expect("SORT_RO l BY w:* GET #", &want);
    p.expect("SORT l BY w:* STORE d STORE e", ":300");
    p.expect("EXISTS d", ":0");
    p.pipeline(&["MULTI", "SORT l BY w:* GET w:* STORE f", "SORT l GET w:* LIMIT 0 1"]);
    p.expect("EXEC", "[:300, [\"300\"]]");
    wait_for("the replica has it", SOON, || digest(&mut r) == digest(&mut p));
    r.expect("LRANGE e 0 0", "[\"299\"]");
}

#[test]
fn a_cluster_node_sorts_within_the_slot() {
    let server = Launch::subject().cluster().start();
    let mut c = server.connect();
    c.ok("CLUSTER ADDSLOTSRANGE 0 16383");
    wait_for("the cluster is up", SOON, || c.run("CLUSTER INFO").text().contains("cluster_state:ok"));
    c.pipeline(&["RPUSH {a}l 1 2 3", "SET {a}w:1 9", "SET {a}w:2 8", "SET {a}w:3 7", "SET w:1 x"]);
    c.expect("SORT {a}l BY {a}w:* GET # GET {a}w:*", "[\"3\", \"7\", \"2\", \"8\", \"1\", \"9\"]");
    for (option, pattern) in
        [("BY", "w:*"), ("GET", "w:*"), ("BY", "{b}w:*"), ("GET", "*{a}"), ("BY", "{}{a}*")]
    {
        c.expect(
            &format!("SORT {{a}}l {option} {pattern}"),
            &format!(
                "-ERR {option} option of SORT denied in cluster mode when keys formed by the pattern may be in \
                 different slots."
            ),
        );
    }
    c.expect("SORT {a}l BY nosort GET #", "[\"1\", \"2\", \"3\"]");
}

/// Both targets are locked, and the last one counts.
#[test]
fn a_target_told_twice_is_the_last_one() {
    let server = Server::subject();
    let mut c = server.connect();
    c.run("GEOADD g 1 1 a 2 2 b");
    c.expect("GEORADIUS g 1 1 500 km STORE x STORE y STOREDIST z STORE count", ":2");
    c.expect("EXISTS x y z count", ":1");
    c.expect("ZRANGE count 0 -1", "[\"a\", \"b\"]");
    c.expect("COMMAND GETKEYS GEORADIUS g 1 1 5 km STOREDIST store", "[\"g\", \"store\"]");
}
