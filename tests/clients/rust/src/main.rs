//! The `redis` crate against a node in both protocols, a cluster that loses a primary, sentinels that switch, and all
//! three of them over TLS with certificates of clients and with users. The servers are named in the variable RIG: see
//! run.py.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::streams::{StreamRangeReply, StreamReadOptions, StreamReadReply};
use redis::{
    Client, ClientTlsConfig, Commands, Connection, ConnectionAddr, ConnectionLike, ErrorKind, PushKind,
    RedisResult, Script, ServerErrorKind, TlsCertificates, TlsMode, pipe,
};
use serde_json::Value;

const LOOPBACK: &str = "127.0.0.1";

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        sleep(Duration::from_millis(20));
    }
}

fn url(port: &Value, protocol: &str) -> String {
    format!("redis://{LOOPBACK}:{port}/?protocol={protocol}")
}

fn kill(nodes: &Value, port: u16) {
    let nodes = nodes.as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["port"] == port).expect("one of ours");
    let done = Command::new("kill").args(["-9", &node["pid"].to_string()]).status().expect("run kill");
    assert!(done.success());
}

fn fresh(rig: &Value, protocol: &str) -> Connection {
    let mut c =
        Client::open(url(&rig["node"], protocol)).expect("an address").get_connection().expect("connect");
    let _: () = redis::cmd("FLUSHALL").query(&mut c).expect("FLUSHALL");
    c
}

fn types(rig: &Value, protocol: &str) -> RedisResult<()> {
    let mut c = fresh(rig, protocol);
    let _: () = c.set_ex("k", "v", 100)?;
    assert_eq!(c.get::<_, String>("k")?, "v");
    assert_eq!(c.mget::<_, Vec<Option<String>>>(&["k", "none"])?, [Some("v".to_owned()), None]);
    assert_eq!(c.rpush::<_, _, i64>("l", &["a", "b", "c"])?, 3);
    assert_eq!(c.lrange::<_, Vec<String>>("l", 0, -1)?, ["a", "b", "c"]);
    let _: () = c.hset_multiple("h", &[("f", 1), ("g", 2)])?;
    let all: std::collections::BTreeMap<String, i64> = c.hgetall("h")?;
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [("f".to_owned(), 1), ("g".to_owned(), 2)]);
    let _: () = c.zadd_multiple("z", &[(1.0, "one"), (2.5, "two")])?;
    let ranked: Vec<(String, f64)> = c.zrange_withscores("z", 0, -1)?;
    assert_eq!(ranked, [("one".to_owned(), 1.0), ("two".to_owned(), 2.5)]);
    let id: String = c.xadd("x", "*", &[("f", "v")])?;
    let range: StreamRangeReply = c.xrange_all("x")?;
    assert_eq!(range.ids[0].id, id);
    let read: Option<StreamReadReply> =
        c.xread_options(&["x"], &["0"], &StreamReadOptions::default().count(5))?;
    assert_eq!(read.expect("an entry").keys[0].ids[0].get::<String>("f").as_deref(), Some("v"));
    let found: Vec<String> = c.scan_match::<_, String>("k*")?.collect::<RedisResult<_>>()?;
    assert_eq!(found, ["k"]);
    let wrong = c.lpush::<_, _, i64>("k", "x").expect_err("a string is no list");
    assert_eq!(wrong.code(), Some("WRONGTYPE"));
    Ok(())
}

fn pipelines_and_transactions(rig: &Value) -> RedisResult<()> {
    let mut c = fresh(rig, "resp3");
    let mut many = pipe();
    (0..2000).for_each(|i| {
        many.set(format!("k:{i}"), i).ignore();
    });
    many.get("k:1999");
    assert_eq!(many.query::<(i64,)>(&mut c)?, (1999,));
    let both: (i64, i64) = pipe().atomic().incr("n", 1).incr("n", 41).query(&mut c)?;
    assert_eq!(both, (1, 42));
    let mut other = Client::open(url(&rig["node"], "resp2"))?.get_connection()?;
    let mut tries = 0;
    // A value that changes in between is read again.
    let last: (i64,) = redis::transaction(&mut c, &["n"], |c, pipe| {
        let n: i64 = c.get("n")?;
        tries += 1;
        if tries == 1 {
            let _: () = other.set("n", 100)?;
        }
        pipe.set("n", n + 1).ignore().get("n").query(c)
    })?;
    assert_eq!((last, tries), ((101,), 2));
    Ok(())
}

fn pubsub(rig: &Value) -> RedisResult<()> {
    let mut c = fresh(rig, "resp3");
    let mut old = Client::open(url(&rig["node"], "resp2"))?.get_connection()?;
    let mut listener = old.as_pubsub();
    listener.subscribe("news")?;
    listener.psubscribe("n*")?;
    assert_eq!(c.publish::<_, _, i64>("news", "hello")?, 2);
    assert_eq!(listener.get_message()?.get_payload::<String>()?, "hello");
    assert_eq!(listener.get_message()?.get_pattern::<String>()?, "n*");
    // In RESP3 messages come beside replies.
    let (sender, pushes) = std::sync::mpsc::channel();
    c.set_push_sender(sender);
    c.subscribe_resp3("own")?;
    assert_eq!(c.publish::<_, _, i64>("own", "hello")?, 1);
    assert_eq!(c.get::<_, Option<String>>("none")?, None);
    until("the push", || pushes.try_iter().any(|push| push.kind == PushKind::Message));
    Ok(())
}

/// Replies are cached by whoever asks to be told; here the telling itself.
fn tracking(rig: &Value) -> RedisResult<()> {
    let mut c = fresh(rig, "resp3");
    let (sender, pushes) = std::sync::mpsc::channel();
    c.set_push_sender(sender);
    let _: () = redis::cmd("CLIENT").arg("TRACKING").arg("ON").query(&mut c)?;
    assert_eq!(c.get::<_, Option<String>>("k")?, None);
    let mut other = Client::open(url(&rig["node"], "resp2"))?.get_connection()?;
    let _: () = other.set("k", "v")?;
    until("it is told", || {
        let _: () = redis::cmd("PING").query(&mut c).expect("PING");
        pushes.try_iter().any(|push| push.kind == PushKind::Invalidate)
    });
    Ok(())
}

const SWAP: &str = "local old = redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1]) return old";

fn scripts(rig: &Value) -> RedisResult<()> {
    let mut c = fresh(rig, "resp3");
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut c)?;
    let swap = Script::new(SWAP);
    assert_eq!(swap.key("k").arg("one").invoke::<Option<String>>(&mut c)?, None);
    assert_eq!(swap.key("k").arg("two").invoke::<Option<String>>(&mut c)?.as_deref(), Some("one"));
    let wrong = Script::new("return redis.call('INCR', KEYS[1])").key("k").invoke::<i64>(&mut c);
    assert!(wrong.expect_err("no number").to_string().contains("value is not an integer"));
    Ok(())
}

fn blocking(rig: &Value) -> RedisResult<()> {
    let mut c = fresh(rig, "resp3");
    let mut waiter = Client::open(url(&rig["node"], "resp3"))?.get_connection()?;
    let waits = std::thread::spawn(move || waiter.blpop::<_, Option<(String, String)>>("l", 30.0));
    until("it waits", || {
        let clients: String = redis::cmd("INFO").arg("clients").query(&mut c).expect("INFO");
        clients.contains("blocked_clients:1")
    });
    let _: () = c.rpush("l", "x")?;
    assert_eq!(waits.join().expect("it ends")?, Some(("l".into(), "x".into())));
    assert_eq!(c.blpop::<_, Option<(String, String)>>("l", 0.05)?, None);
    Ok(())
}

fn cluster(rig: &Value) -> RedisResult<ClusterConnection> {
    let nodes = rig["cluster"].as_array().expect("nodes").iter().map(|node| url(&node["port"], "resp3"));
    ClusterClient::builder(nodes).retries(3).min_retry_wait(20).max_retry_wait(100).build()?.get_connection()
}

fn a_cluster(rig: &Value) -> RedisResult<()> {
    let mut c = cluster(rig)?;
    let _: () = redis::cmd("FLUSHALL").query(&mut c)?;
    for i in 0..1000 {
        let _: () = c.set(format!("key:{i}"), i)?;
    }
    let names: Vec<String> = (0..1000).map(|i| format!("key:{i}")).collect();
    // Split by slot, and put together again.
    assert_eq!(c.mget::<_, Vec<i64>>(&names)?, (0..1000).collect::<Vec<_>>());
    assert_eq!(redis::cmd("DBSIZE").query::<i64>(&mut c)?, 1000);
    assert_eq!(Script::new(SWAP).key("{t}k").arg("one").invoke::<Option<String>>(&mut c)?, None);
    let mut both = cluster_pipe();
    both.incr("{t}n", 1).incr("m", 1);
    assert_eq!(both.query::<(i64, i64)>(&mut c)?, (1, 1));
    let crossed = redis::cmd("RENAME").arg("a").arg("b").query::<()>(&mut c).expect_err("two slots");
    assert_eq!(crossed.kind(), ErrorKind::Server(ServerErrorKind::CrossSlot), "{crossed}");
    Ok(())
}

fn a_cluster_that_loses_a_primary(rig: &Value) -> RedisResult<()> {
    let mut c = cluster(rig)?;
    let slot: u64 = redis::cmd("CLUSTER").arg("KEYSLOT").arg("{lost}").query(&mut c)?;
    let mut one = Client::open(url(&rig["cluster"][0]["port"], "resp2"))?.get_connection()?;
    let slots: Vec<redis::Value> = redis::cmd("CLUSTER").arg("SLOTS").query(&mut one)?;
    let owner = slots
        .into_iter()
        .find_map(|range| {
            let redis::Value::Array(parts) = range else { return None };
            let number = |value: &redis::Value| redis::from_redis_value_ref::<u64>(value).ok();
            let redis::Value::Array(node) = &parts[2] else { return None };
            ((number(&parts[0])?..=number(&parts[1])?).contains(&slot)).then(|| number(&node[1]))?
        })
        .expect("a node serves it");
    let _: () = c.set("{lost}", "v")?;
    kill(&rig["cluster"], owner as u16);
    // The synchronous client asks for the slots when it is made, not when a node is gone; pools make a new one.
    until("writes go on", || {
        cluster(rig).is_ok_and(|fresh| {
            c = fresh;
            c.set::<_, _, ()>("{lost}", "w").is_ok()
        })
    });
    assert_eq!(c.get::<_, String>("{lost}")?, "w");
    Ok(())
}

fn sentinels_that_switch(rig: &Value) -> RedisResult<()> {
    let watched = &rig["watched"];
    let guards: Vec<String> =
        watched["guards"].as_array().expect("ports").iter().map(|port| url(port, "resp2")).collect();
    let name = watched["name"].as_str().expect("a name").to_owned();
    let client = |kind| SentinelClient::build(guards.clone(), name.clone(), None, kind);
    let mut primaries = client(SentinelServerType::Master)?;
    let mut replicas = client(SentinelServerType::Replica)?;
    let mut c = primaries.get_connection()?;
    let _: () = c.set("k", "v")?;
    until("a replica has it", || {
        let value = replicas.get_connection().and_then(|mut r| r.get::<_, Option<String>>("k"));
        value.is_ok_and(|value| value.as_deref() == Some("v"))
    });
    let old: String = redis::cmd("CONFIG").arg("GET").arg("port").query::<Vec<String>>(&mut c)?.remove(1);
    kill(&watched["nodes"], old.parse().expect("a port"));
    assert!(c.set::<_, _, ()>("k", "lost").is_err());
    until("the client follows", || {
        primaries.get_connection().and_then(|mut c| c.set::<_, _, ()>("k", "w")).is_ok()
    });
    let mut c = primaries.get_connection()?;
    let now: String = redis::cmd("CONFIG").arg("GET").arg("port").query::<Vec<String>>(&mut c)?.remove(1);
    assert_ne!(now, old);
    until("the replica follows", || {
        let value = replicas.get_connection().and_then(|mut r| r.get::<_, Option<String>>("k"));
        value.is_ok_and(|value| value.as_deref() == Some("w"))
    });
    Ok(())
}

/// What a client over TLS shows, and whom it believes.
fn shown(rig: &Value) -> TlsCertificates {
    let folder = std::path::Path::new(rig["secured"]["folder"].as_str().expect("a folder"));
    let read = |name: &str| std::fs::read(folder.join(name)).expect("make-certs made it");
    TlsCertificates {
        client_tls: Some(ClientTlsConfig { client_cert: read("client.crt"), client_key: read("client.key") }),
        root_cert: Some(read("ca.crt")),
    }
}

fn password(rig: &Value) -> &str {
    rig["secured"]["password"].as_str().expect("a password")
}

/// The client is whom it says, and may do what that user may.
fn is_the_app(c: &mut impl ConnectionLike) -> RedisResult<()> {
    let _: () = c.set("app:{k}", "v")?;
    assert_eq!(c.get::<_, String>("app:{k}")?, "v");
    let refused = c.get::<_, String>("other:{k}").expect_err("not its key");
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    let _: () = c.set("app:{k}n", 1)?;
    assert_eq!(c.incr::<_, _, i64>("app:{k}n", 1)?, 2);
    Ok(())
}

fn a_user_over_tls(rig: &Value) -> RedisResult<()> {
    let word = password(rig).replace(" ", "%20");
    let at = format!("rediss://app:{word}@{LOOPBACK}:{}/", rig["secured"]["node"]);
    let mut c = Client::build_with_tls(at.as_str(), shown(rig))?.get_connection()?;
    assert_eq!(redis::cmd("ACL").arg("WHOAMI").query::<String>(&mut c)?, "app");
    is_the_app(&mut c)?;
    let big = "x".repeat(2_000_000);
    let _: () = c.set("app:big", &big)?;
    assert_eq!(c.get::<_, String>("app:big")?, big);
    let stranger = TlsCertificates { client_tls: None, ..shown(rig) };
    let served = Client::build_with_tls(at.as_str(), stranger)?.get_connection();
    assert!(served.is_err(), "a client without a certificate was served");
    Ok(())
}

fn a_user_in_a_cluster_over_tls(rig: &Value) -> RedisResult<()> {
    let ports = rig["secured"]["cluster"].as_array().expect("ports");
    let nodes = ports.iter().map(|port| format!("rediss://{LOOPBACK}:{port}/"));
    let mut c = ClusterClient::builder(nodes)
        .tls(TlsMode::Secure)
        .certs(shown(rig))
        .username("app")
        .password(password(rig))
        .build()?
        .get_connection()?;
    is_the_app(&mut c)?;
    for i in 0..500 {
        let _: () = c.set(format!("app:{i}"), i)?;
    }
    let names: Vec<String> = (0..500).map(|i| format!("app:{i}")).collect();
    assert_eq!(c.mget::<_, Vec<i64>>(&names)?, (0..500).collect::<Vec<_>>());
    Ok(())
}

fn users_of_sentinels_over_tls(rig: &Value) -> RedisResult<()> {
    let secured = &rig["secured"];
    let guards = secured["guards"].as_array().expect("ports").iter().map(|port| ConnectionAddr::TcpTls {
        host: LOOPBACK.into(),
        port: port.as_u64().expect("a port") as u16,
        insecure: false,
        tls_params: None,
    });
    let name = secured["name"].as_str().expect("a name");
    let mut primaries = SentinelClientBuilder::new(guards, name, SentinelServerType::Master)?
        .set_client_to_sentinel_username("guard")
        .set_client_to_sentinel_password(password(rig))
        .set_client_to_sentinel_certificates(shown(rig))
        .set_client_to_redis_tls_mode(TlsMode::Secure)
        .set_client_to_redis_username("app")
        .set_client_to_redis_password(password(rig))
        .set_client_to_redis_certificates(shown(rig))
        .build()?;
    let mut address =
        || Ok::<_, redis::RedisError>(primaries.get_client()?.get_connection_info().addr().to_string());
    let old = address()?;
    until("the sentinels begin", || {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &secured["admin"].to_string(), "SENTINEL", "FAILOVER", name]);
        command.output().expect("run redis-cli").stdout == b"OK\n"
    });
    until("the client follows", || address().is_ok_and(|now| now != old));
    until("it is served", || {
        primaries.get_connection().is_ok_and(|mut c| c.set::<_, _, ()>("app:k", "w").is_ok())
    });
    is_the_app(&mut primaries.get_connection()?)
}

fn main() {
    let rig = std::env::var("RIG").expect("RIG is set");
    let rig: Value = serde_json::from_str(&rig).expect("RIG is JSON");
    let only = std::env::args().nth(1).unwrap_or_default();
    println!("the redis crate, see tests/clients/rust/Cargo.lock");
    type Check<'a> = (&'a str, &'a dyn Fn() -> RedisResult<()>);
    let checks: [Check<'_>; 13] = [
        ("types in RESP2", &|| types(&rig, "resp2")),
        ("types in RESP3", &|| types(&rig, "resp3")),
        ("pipelines and transactions", &|| pipelines_and_transactions(&rig)),
        ("pub/sub in both protocols", &|| pubsub(&rig)),
        ("tracking", &|| tracking(&rig)),
        ("scripts", &|| scripts(&rig)),
        ("blocking", &|| blocking(&rig)),
        ("a cluster", &|| a_cluster(&rig)),
        ("a cluster that loses a primary", &|| a_cluster_that_loses_a_primary(&rig)),
        ("sentinels that switch", &|| sentinels_that_switch(&rig)),
        ("a user over TLS", &|| a_user_over_tls(&rig)),
        ("a user in a cluster over TLS", &|| a_user_in_a_cluster_over_tls(&rig)),
        ("users of sentinels over TLS that switch", &|| users_of_sentinels_over_tls(&rig)),
    ];
    let (mut passed, mut failed) = (0, 0);
    for (name, check) in checks.into_iter().filter(|(name, _)| name.contains(&only)) {
        match catch_unwind(AssertUnwindSafe(check)) {
            Ok(Ok(())) => {
                passed += 1;
                println!("test redis-rs: {name} ... ok");
            }
            failure => {
                failed += 1;
                println!("test redis-rs: {name} ... FAILED");
                if let Ok(Err(e)) = failure {
                    println!("{e}");
                }
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed");
    std::process::exit(i32::from(failed != 0));
}
