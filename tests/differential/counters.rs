//! What INFO counts: the same commands to our server and to a real Redis, and after each what has been counted.

use std::collections::BTreeMap;

use crate::Pair;
use crate::common::client::Client;

/// Counters by name; the calls of a command as `cmdstat_get.calls`.
type Counters = BTreeMap<String, i64>;

const FIELDS: &[&str] =
    &["keyspace_hits", "keyspace_misses", "rdb_changes_since_last_save", "total_error_replies"];

fn counters(client: &mut Client) -> Counters {
    let info = client.run("INFO everything").text();
    let mut counters = Counters::new();
    for (name, value) in info.lines().filter_map(|line| line.split_once(':')) {
        let number = |text: &str| text.parse().expect("a count");
        if FIELDS.contains(&name) {
            counters.insert(name.to_owned(), number(value));
        } else if name.starts_with("errorstat_") {
            counters.insert(name.to_owned(), number(value.trim_start_matches("count=")));
        } else if name.starts_with("cmdstat_") && name != "cmdstat_info" {
            let of_command = value.split(',').filter_map(|pair| pair.split_once('='));
            for (what, count) in of_command.filter(|(what, _)| what.ends_with("calls")) {
                counters.insert(format!("{name}.{what}"), number(count));
            }
        }
    }
    counters
}

/// What each command has added, nothing left out but zeros.
fn added(client: &mut Client, looker: &mut Client) -> Vec<Counters> {
    let mut before = counters(looker);
    let mut added = Vec::new();
    for line in COMMANDS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        client.run(line);
        let now = counters(looker);
        let more = |(name, n): (&String, &i64)| (name.clone(), n - before.get(name).unwrap_or(&0));
        added.push(now.iter().map(more).filter(|(_, n)| *n != 0).collect());
        before = now;
    }
    added
}

#[test]
fn info_counts_what_redis_counts() {
    let pair = Pair::start();
    let ours = added(&mut pair.ours.connect(), &mut pair.ours.connect());
    let theirs = added(&mut pair.real.connect(), &mut pair.real.connect());
    let lines = COMMANDS.lines().map(str::trim).filter(|line| !line.is_empty());
    let differ: Vec<String> = lines
        .zip(ours.iter().zip(&theirs))
        .filter(|(_, (a, b))| a != b)
        .map(|(line, (a, b))| format!("{line}\n  ours    {a:?}\n  theirs  {b:?}"))
        .collect();
    assert!(differ.is_empty(), "{} lines differ:\n{}", differ.len(), differ.join("\n"));
}

const COMMANDS: &str = r#"
    SET s0 hello
    SET s1 10
    RPUSH l0 a b c 1 2
    RPUSH l1 3 1 2
    SADD t0 m1 m2 a
    SADD t1 1 2 3
    HSET h0 m1 v m2 10 a 1.5
    ZADD z0 1 m1 2 m2 2.5 a
    XADD x0 1-1 a b
    XADD x0 2-1 a b
    XADD x0 3-1 c d
    XGROUP CREATE x0 g 0
    XREADGROUP GROUP g c1 COUNT 2 STREAMS x0 >
    XREADGROUP GROUP g c1 STREAMS x0 0
    SCAN 0 TYPE string COUNT 100
    SCAN 0 TYPE nosuch COUNT 100
    SCAN 0 TYPE list MATCH l* COUNT 100
    LCS s0 s1
    LCS l0 s1
    LCS s0 none
    SORT l0 ALPHA
    SORT l1 BY n* GET s* STORE zz
    EVAL_RO "return redis.call('set','s0','1')" 0
    EVAL "return redis.call('set','s0')" 0
    EVAL "return redis.pcall('nosuch')" 0
    EVAL "return redis.pcall('subscribe','a')" 0
    EVAL "return redis.pcall('incr','s0')" 0
    EVAL "redis.call('set','s5','1') redis.call('get','s5') return redis.call('lpush','s5','x')" 0
    XTRIM x0 MAXLEN 1
    XDEL x0 3-1 2-1
    XADD x0 MAXLEN 1 9-1 a b
    XADD x0 MAXLEN 1 10-1 a b
    XSETID x0 11-1
    XACK x0 g 1-1 2-1
    XCLAIM x0 g c2 0 10-1 FORCE
    XAUTOCLAIM x0 g c3 0 0
    XPENDING x0 g
    XINFO STREAM x0
    XINFO STREAM x0 FULL
    XINFO GROUPS x0
    XINFO CONSUMERS x0 g
    XGROUP CREATECONSUMER x0 g c9
    XGROUP DELCONSUMER x0 g c9
    XGROUP SETID x0 g 0
    XGROUP DESTROY x0 g
    XREAD COUNT 1 STREAMS x0 none 0 0
    SPOP t1 2
    SPOP t1
    SMOVE t0 t1 m1
    SINTERSTORE t5 t0 none
    SUNIONSTORE t5 t0 t1
    SINTERCARD 2 t0 t1
    LTRIM l0 1 -1
    LREM l0 0 b
    LINSERT l0 BEFORE c x
    LINSERT l0 BEFORE nosuch x
    LPUSHX none a
    LMPOP 1 l0 LEFT COUNT 2
    LMOVE l1 l2 LEFT LEFT
    LPOS l1 1
    LSET l1 0 z
    LSET l1 99 z
    ZADD z0 XX 1 none
    ZADD z0 CH 9 m1 8 m2
    ZINCRBY z0 1 m1
    ZRANGESTORE z9 z0 0 -1
    ZUNIONSTORE z9 2 z0 none
    ZPOPMIN z0
    ZREMRANGEBYRANK z9 0 1
    ZMPOP 1 z9 MIN
    ZUNION 2 z0 z9
    ZRANDMEMBER z0 2
    HDEL h0 m1 m2
    HINCRBY h0 q 1
    HSETNX h0 q 1
    HRANDFIELD h0 1
    SETBIT b0 7 1
    SETBIT b0 7 1
    BITFIELD b0 SET u8 0 5 SET u8 8 7 GET u8 0
    BITFIELD b0 GET u8 0
    BITOP AND b9 b0 none
    BITCOUNT b0
    BITPOS b0 1
    PFADD w0 a b c
    PFADD w0 a
    PFCOUNT w0
    PFCOUNT w0 none
    PFMERGE w9 w0 none
    PFDEBUG ENCODING w0
    PFDEBUG DECODE w0
    PFDEBUG GETREG w0
    PFDEBUG ENCODING none
    GEOADD g0 13.36 38.11 a 15.08 37.5 b
    GEODIST g0 a b
    GEOSEARCH g0 FROMMEMBER a BYRADIUS 200 km
    GEOSEARCHSTORE g9 g0 FROMMEMBER a BYRADIUS 200 km
    GEORADIUS g0 15 37 200 km STORE g8
    EXPIRE s0 100
    EXPIRE none 100
    EXPIRE s0 100 NX
    PERSIST s0
    PERSIST s0
    TTL s0
    TTL none
    TYPE s0
    TYPE none
    OBJECT ENCODING s0
    OBJECT ENCODING none
    OBJECT IDLETIME s0
    OBJECT REFCOUNT s0
    MEMORY USAGE s0
    MEMORY USAGE none
    DUMP s0
    DUMP none
    RESTORE r0 0 "\x00\xc0\x01\x0a\x00\x26\x78\xe7\xb6\xd1\x01\x11\xfc"
    RESTORE r0 0 x
    COPY s0 s9
    COPY none s9
    RENAME s9 s8
    RENAME none s8
    RENAMENX s8 s0
    MOVE s8 1
    MOVE none 1
    SWAPDB 0 1
    SWAPDB 0 1
    TOUCH s0 none
    EXISTS s0 s0 none
    UNLINK s0 none
    DEL none
    DEL s1 l1
    KEYS *
    DBSIZE
    MSET a 1 b 2
    MSETNX a 1 c 2
    MGET a b none
    GETEX a
    GETEX a EX 100
    GETEX none
    GETDEL a
    GETSET b 5
    SET b 1 GET
    SET b 1 NX
    SET b 1 XX
    SET b 1 NX GET
    SETNX b 1
    APPEND b x
    SETRANGE b 0 y
    SETRANGE none 0 ""
    GETRANGE b 0 1
    STRLEN b
    INCRBYFLOAT f 1.5
    SETEX e 100 v
    MULTI
    SET a 1
    NOSUCH
    EXEC
    MULTI
    INCR t0
    GET b
    EXEC
    WATCH b
    UNWATCH
    DISCARD
    SUBSCRIBE
    PUBLISH c m
    SPUBLISH c m
    PUBSUB NUMPAT
    CLIENT NOSUCH
    CLIENT KILL ID x
    CONFIG GET
    CONFIG SET nosuch 1
    CONFIG GET maxmemory
    OBJECT NOSUCH x
    GET
    GET a b
    FLUSHDB
    FLUSHALL
    SCRIPT LOAD "return 1"
    SCRIPT EXISTS x
    EVALSHA x 0
    EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
    FCALL nosuch 0
    FUNCTION LOAD x
    FUNCTION LIST
    ACL WHOAMI
    ACL SETUSER q badrule
    RESET
    SELECT 99
    SELECT 1
    SELECT 0
    DEBUG OBJECT none
    MIGRATE 127.0.0.1 1 none 0 10
"#;
