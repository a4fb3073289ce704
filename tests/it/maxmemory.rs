//! `maxmemory` under its policies.

use crate::common::client::{Client, Reply};
use crate::common::server::Launch;
use crate::common::{SOON, wait_for};

fn fill(client: &mut Client, keys: u32) -> usize {
    let value = "x".repeat(1000);
    let lines: Vec<String> = (0..keys).map(|i| format!("SET key:{i} {value}")).collect();
    lines.chunks(500).flat_map(|chunk| client.pipeline(chunk)).filter(|r| r.to_string() == "+OK").count()
}

#[test]
fn noeviction_refuses_writes_and_serves_reads() {
    let server = Launch::subject().args(&["--maxmemory", "40mb"]).start();
    let mut client = server.connect();
    let stored = fill(&mut client, 60_000);
    assert!((5_000..45_000).contains(&stored), "{stored} of 60,000 fit");
    // Far over the limit, so that a few bytes more or less do not matter.
    client.ok("CONFIG SET maxmemory 10mb");
    client.expect("SET new v", "-OOM command not allowed when used memory > 'maxmemory'.");
    client.expect("LPUSH l v", "-OOM command not allowed when used memory > 'maxmemory'.");
    assert_eq!(client.run("GET key:0").text().len(), 1000);
    client.expect("DEL key:0", ":1");
    client.expect("EXPIRE key:1 100", ":1");
    assert_eq!(client.info_int("evicted_keys"), 0);
    assert_eq!(client.info("maxmemory_policy"), "noeviction");
    client.ok("MULTI");
    client.expect("SET a 1", "-OOM command not allowed when used memory > 'maxmemory'.");
    assert!(client.run("EXEC").text().starts_with("EXECABORT"));
    client.ok("CONFIG SET maxmemory 0");
    client.ok("SET new v");
}

#[test]
fn allkeys_lru_keeps_what_is_used() {
    let server =
        Launch::subject().args(&["--maxmemory", "40mb", "--maxmemory-policy", "allkeys-lru"]).start();
    let mut client = server.connect();
    let value = "x".repeat(1000);
    for round in 0..60 {
        let mut lines: Vec<String> =
            (0..1000).map(|i| format!("SET key:{} {value}", round * 1000 + i)).collect();
        // A hundred keys are used all the time.
        if round == 0 {
            lines.extend((0..100).map(|i| format!("SET hot:{i} {value}")));
        }
        for _ in 0..3 {
            lines.extend((0..100).map(|i| format!("GET hot:{i}")));
        }
        for reply in client.pipeline(&lines) {
            assert!(!reply.to_string().starts_with('-'), "{reply}");
        }
        // Use is remembered in seconds, so some must pass.
        if round % 10 == 9 {
            let second = client.info_int("uptime_in_seconds");
            wait_for("the next second", SOON, || client.info_int("uptime_in_seconds") > second);
        }
    }
    assert!(client.info_int("evicted_keys") > 10_000);
    assert!(client.info_int("used_memory") < 44 << 20);
    let kept = (0..100).filter(|i| client.run(&format!("EXISTS hot:{i}")).int() == 1).count();
    assert!(kept >= 80, "{kept} of the 100 used keys are left");
    let old = (0..1000).filter(|i| client.run(&format!("EXISTS key:{i}")).int() == 1).count();
    assert!(old < 500, "{old} of the 1000 oldest keys are left");
}

/// Keys with an expiry leave; the others stay, and when only those are left writes are refused.
#[test]
fn volatile_policies_spare_keys_that_stay() {
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let server = Launch::subject().args(&["--maxmemory", "40mb", "--maxmemory-policy", policy]).start();
        let mut client = server.connect();
        let value = "x".repeat(1000);
        let lines: Vec<String> = (0..1000).map(|i| format!("SET stays:{i} {value}")).collect();
        client.pipeline(&lines);
        for round in 0..30 {
            let key = |i| round * 1000 + i;
            let lines: Vec<String> =
                (0..1000).map(|i| format!("SET ends:{} {value} EX {}", key(i), 1000 + key(i))).collect();
            for reply in client.pipeline(&lines) {
                assert_eq!(reply.to_string(), "+OK", "{policy}");
            }
        }
        assert!(client.info_int("evicted_keys") > 1000, "{policy}");
        let stays: Vec<String> = (0..1000).map(|i| format!("EXISTS stays:{i}")).collect();
        assert!(client.pipeline(&stays).iter().all(|r| r.int() == 1), "{policy}");
        if policy == "volatile-ttl" {
            let early: Vec<String> = (0..1000).map(|i| format!("EXISTS ends:{i}")).collect();
            let left: i64 = client.pipeline(&early).iter().map(Reply::int).sum();
            assert!(left < 100, "{left} of the 1000 that end first are left");
        }
        client.ok("CONFIG SET maxmemory 1mb maxmemory-eviction-tenacity 100");
        // While another thread is about the last keys that may go, there are some.
        let refused = "-OOM command not allowed when used memory > 'maxmemory'.";
        wait_for("nothing can go any more", SOON, || client.run("SET new v").to_string() == refused);
        assert!(client.pipeline(&stays).iter().all(|r| r.int() == 1), "{policy}");
    }
}

/// What is used often stays, though other keys were used more recently.
#[test]
fn allkeys_lfu_keeps_what_is_used_often() {
    let server =
        Launch::subject().args(&["--maxmemory", "40mb", "--maxmemory-policy", "allkeys-lfu"]).start();
    let mut client = server.connect();
    let value = "x".repeat(1000);
    let mut lines: Vec<String> = (0..100).map(|i| format!("SET often:{i} {value}")).collect();
    for _ in 0..200 {
        lines.extend((0..100).map(|i| format!("GET often:{i}")));
    }
    client.pipeline(&lines);
    assert!(client.run("OBJECT FREQ often:0").int() > 7);
    for round in 0..60 {
        let lines: Vec<String> =
            (0..1000).map(|i| format!("SET once:{} {value}", round * 1000 + i)).collect();
        for reply in client.pipeline(&lines) {
            assert_eq!(reply.to_string(), "+OK");
        }
    }
    assert!(client.info_int("evicted_keys") > 10_000);
    let kept = (0..100).filter(|i| client.run(&format!("EXISTS often:{i}")).int() == 1).count();
    assert!(kept >= 95, "{kept} of the 100 used keys are left");
    // The count goes with the key into files.
    client.ok("CONFIG SET maxmemory 0");
    let before = client.run("OBJECT FREQ often:0").int();
    client.ok("DEBUG RELOAD");
    assert_eq!(client.run("OBJECT FREQ often:0").int(), before);
}

/// What is above the limit goes by itself: nobody writes, nobody even asks.
#[test]
fn a_limit_that_is_lowered_holds_without_traffic() {
    let server = Launch::subject().args(&["--maxmemory-policy", "allkeys-lru"]).start();
    let mut client = server.connect();
    fill(&mut client, 4_000);
    let limit = client.info_int("used_memory") - 2_000_000;
    client.ok(&format!("CONFIG SET maxmemory {limit}"));
    wait_for("memory below its limit", SOON, || client.info_int("used_memory") <= limit + 16 * 1024);
    let left = client.run("DBSIZE").int();
    assert!((1_000..3_900).contains(&left), "{left} keys are left of 4,000");
}

/// One value of two fifths of the limit, and then only reads.
#[test]
fn a_value_that_breaks_the_limit_is_made_up_for() {
    let server = Launch::subject().args(&["--maxmemory-policy", "allkeys-lru"]).start();
    let mut client = server.connect();
    // The request itself counts as well while it is read.
    let limit = client.info_int("used_memory") + 50_000_000;
    client.ok(&format!("CONFIG SET maxmemory {limit}"));
    fill(&mut client, 50_000);
    client.ok(&format!("SET big {}", "x".repeat(20_000_000)));
    wait_for("memory below its limit", SOON, || {
        client.run("GET key:1");
        client.info_int("used_memory") <= limit + 64 * 1024
    });
}

/// `used_memory`, read again a few times while it is above `enough`: another thread may hold something for a moment.
fn settled(client: &mut Client, enough: i64) -> i64 {
    let mut reads = (0..20).map(|_| client.info_int("used_memory"));
    let mut least = i64::MAX;
    while least > enough
        && let Some(used) = reads.next()
    {
        least = least.min(used);
    }
    least
}

/// A limit 100 KiB above what is used holds to within a few KiB, whatever goes.
#[test]
fn a_narrow_limit_is_honoured() {
    let policies = [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ];
    for policy in policies {
        let server = Launch::subject().args(&["--maxmemory-policy", policy]).start();
        let mut client = server.connect();
        // What a connection and the tables need once is there before it is measured.
        let line = |i: u32| format!("SET key:{i} {} EX 1000", "x".repeat(200));
        client.pipeline(&(0..2_000).map(line).collect::<Vec<_>>());
        let limit = client.info_int("used_memory") + 100 * 1024;
        client.ok(&format!("CONFIG SET maxmemory {limit}"));
        let mut highest = 0;
        for i in 2_000..5_000 {
            client.ok(&line(i));
            if i % 50 == 0 {
                highest = highest.max(settled(&mut client, limit + 16 * 1024));
            }
        }
        assert!(highest <= limit + 16 * 1024, "{policy}: {} bytes above the limit", highest - limit);
        assert!(highest >= limit - 64 * 1024, "{policy}: {} bytes below the limit", limit - highest);
        assert!(client.info_int("evicted_keys") > 1_000, "{policy}");
    }
}

/// The neighbour that evicts nothing: writes are refused where the limit is.
#[test]
fn a_narrow_limit_refuses_where_nothing_may_go() {
    let server = Launch::subject().args(&["--maxmemory-policy", "noeviction"]).start();
    let mut client = server.connect();
    let line = |i: u32| format!("SET key:{i} {}", "x".repeat(200));
    client.pipeline(&(0..2_000).map(line).collect::<Vec<_>>());
    let limit = client.info_int("used_memory") + 100 * 1024;
    client.ok(&format!("CONFIG SET maxmemory {limit}"));
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    let refused = (2_000..5_000).find(|i| client.run(&line(*i)).to_string() == oom);
    assert!(refused.is_some(), "3,000 keys fit into 100 KiB");
    let used = settled(&mut client, limit + 16 * 1024);
    assert!(used <= limit + 16 * 1024, "{} bytes above the limit", used - limit);
    assert!(used >= limit - 64 * 1024, "{} bytes below the limit", limit - used);
    client.expect("DEL key:0 key:1 key:2 key:3 key:4 key:5 key:6 key:7 key:8 key:9", ":10");
    assert_eq!(client.info_int("evicted_keys"), 0);
}

/// Sixty-four is the most.
#[test]
fn as_many_samples_as_are_asked_for_are_taken() {
    let server = Launch::subject().args(&["--maxmemory-policy", "allkeys-lru"]).start();
    let mut client = server.connect();
    client.ok("CONFIG SET maxmemory-samples 64");
    client.expect("CONFIG GET maxmemory-samples", "[\"maxmemory-samples\", \"64\"]");
    fill(&mut client, 2_000);
    let second = client.info_int("uptime_in_seconds");
    wait_for("two seconds", SOON, || client.info_int("uptime_in_seconds") > second + 1);
    client.pipeline(&(0..1_000).map(|i| format!("GET key:{i}")).collect::<Vec<_>>());
    let limit = client.info_int("used_memory") - (100 << 10);
    client.ok(&format!("CONFIG SET maxmemory {limit}"));
    wait_for("some have gone", SOON, || client.info_int("used_memory") <= limit + 16 * 1024);
    assert!(client.info_int("evicted_keys") > 20);
    // Of sixty-four keys hardly ever all are used ones.
    let left: i64 = client
        .pipeline(&(0..1_000).map(|i| format!("EXISTS key:{i}")).collect::<Vec<_>>())
        .iter()
        .map(Reply::int)
        .sum();
    assert!(left >= 990, "{left} of the 1,000 used keys are left");
}

/// A replica leaves eviction to its primary; as a primary it sees to its limit itself, without a write.
#[test]
fn a_promoted_replica_sees_to_its_limit() {
    let primary = Launch::subject().start();
    let settings = ["--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lru"];
    let replica = Launch::subject().args(&settings).start();
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    fill(&mut p, 30_000);
    wait_for("the replica has everything", SOON, || r.run("DBSIZE").int() == 30_000);
    assert!(r.info_int("used_memory") > 20 << 20);
    assert_eq!(r.info_int("evicted_keys"), 0);
    r.ok("REPLICAOF NO ONE");
    wait_for("memory below its limit", SOON, || r.info_int("used_memory") <= (20 << 20) + 64 * 1024);
    assert!(r.info_int("evicted_keys") > 1_000);
}

/// What does not fit is loaded all the same, and then goes as the policy says.
#[test]
fn a_file_larger_than_the_limit_is_loaded() {
    for (policy, stays) in [("noeviction", true), ("allkeys-random", false)] {
        let mut server = Launch::subject().start();
        let mut client = server.connect();
        fill(&mut client, 20_000);
        client.ok("SAVE");
        server.kill();
        server.start_again_with(&["--maxmemory", "10mb", "--maxmemory-policy", policy]);
        let mut client = server.connect();
        if stays {
            client.expect("DBSIZE", ":20000");
            client.expect("SET new v", "-OOM command not allowed when used memory > 'maxmemory'.");
        } else {
            wait_for("memory below its limit", SOON, || {
                client.info_int("used_memory") <= (10 << 20) + 64 * 1024
            });
            assert!(client.run("DBSIZE").int() < 10_000);
        }
    }
}
