//! `maxmemory` with noeviction and allkeys-lru.

use crate::common::client::Client;
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
