//! Scripts beside other clients: killed, hanging, crossing each other's keys, replicated and saved.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, wait_for};

fn node(workers: &str) -> Server {
    if subject_is_real() {
        Server::subject()
    } else {
        Launch::subject().args(&["--io-threads", workers]).start()
    }
}

const ENDLESS: &str = r#"EVAL "while true do end" 0"#;

/// Waits until a new connection gets this answer.
fn answered(server: &Server, line: &str, reply: &str) {
    // One that came before the script was known to hang gets no answer.
    wait_for(line, SOON, || {
        let mut client = server.connect();
        client.set_read_timeout(Duration::from_millis(500));
        client.try_run(line).is_ok_and(|told| told.to_string() == reply)
    });
}

#[test]
fn a_script_that_hangs_on_the_only_worker_is_killed_and_others_are_answered() {
    let server = node("1");
    server.connect().ok("CONFIG SET busy-reply-threshold 20");
    let mut hanging = server.connect();
    hanging.send(&crate::common::client::words(ENDLESS));
    const BUSY: &str =
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    answered(&server, "GET k", BUSY);
    if !subject_is_real() {
        server.connect().expect("PING", "+PONG");
        assert!(server.connect().info("redis_version").starts_with('7'));
        assert_eq!(server.connect().info("number_of_cached_scripts"), "1");
    }
    server.connect().ok("SCRIPT KILL");
    let killed = hanging.read().to_string();
    assert!(killed.starts_with("-ERR Script killed by user with SCRIPT KILL..."), "{killed}");
    hanging.expect("PING", "+PONG");
}

#[test]
fn a_script_cannot_hide_from_its_end_in_pcall() {
    let server = node("2");
    let mut hanging = server.connect();
    hanging.send(&crate::common::client::words(
        r#"EVAL "while true do pcall(function() while true do end end) end" 0"#,
    ));
    answered(&server, "SCRIPT KILL", "+OK");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
}

#[test]
fn a_script_that_has_written_is_stopped_by_the_end_of_the_node_alone() {
    let mut server = node("1");
    server.connect().ok("CONFIG SET busy-reply-threshold 20");
    let mut hanging = server.connect();
    hanging.send(&crate::common::client::words(r#"EVAL "redis.call('SET','k','v') while true do end" 0"#));
    answered(
        &server,
        "SCRIPT KILL",
        "-UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
    );
    let mut admin = server.connect();
    admin.send(&["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait_exit().success());
}

/// Moves one from its declared key to the key that it is told.
fn moving(round: u32) -> String {
    format!("redis.call('DECR', KEYS[1]) redis.call('INCR', ARGV[1]) return {round}")
}

#[test]
fn nobody_sees_half_of_a_script_whatever_keys_it_comes_to() {
    let server = node("2");
    let (a, b) = ("a", "b");
    let mut setup = server.connect();
    setup.ok("MSET a 1000 b 1000");
    let stop = AtomicBool::new(false);
    let mut refused = 0;
    thread::scope(|scope| {
        let checker = scope.spawn(|| {
            let mut client = server.connect();
            let mut sums = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let both = client.run("MGET a b");
                sums.push(both.items().iter().map(|n| n.text().parse::<i64>().unwrap()).sum::<i64>());
            }
            sums
        });
        for round in 0..20 {
            let script = moving(round);
            // It keeps to its keys until it is trusted.
            for key in [a, b, a, b] {
                setup.cmd(&["EVAL", &script, "1", key, key]);
            }
            let cross = |from: &'static str, to: &'static str| {
                let (script, server) = (script.clone(), &server);
                scope.spawn(move || {
                    let mut client = server.connect();
                    let run = |_| client.cmd(&["EVAL", &script, "1", from, to]).to_string();
                    (0..50).map(run).filter(|reply| reply.starts_with('-')).count()
                })
            };
            let both = [cross(a, b), cross(b, a)];
            refused += both.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
        }
        stop.store(true, Ordering::Relaxed);
        let sums = checker.join().unwrap();
        // A command of a script that was refused is not made good by anybody.
        let least = 2000 - refused as i64;
        assert!(sums.len() > 100 && sums.iter().all(|sum| (least..=2000).contains(sum)), "{sums:?}");
        assert!(refused <= 20, "{refused}");
    });
}

#[test]
fn what_a_script_does_is_one_unit_for_replicas_and_functions_go_with_the_data() {
    let mut primary = node("2");
    let library = "#!lua name=lib\nredis.register_function('both', function(keys) redis.call('SET', keys[1], 1) redis.call('SET', keys[2], 2) return 'done' end)";
    let mut client = primary.connect();
    assert_eq!(client.cmd(&["FUNCTION", "LOAD", library]).text(), "lib");
    let replica = node("2");
    let mut follower = replica.connect();
    follower.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link", SOON, || follower.info("master_link_status") == "up");
    assert_eq!(follower.run("FUNCTION LIST").items().len(), 1);
    let more = library.replace("name=lib", "name=more").replace("'both'", "'again'");
    client.cmd(&["FUNCTION", "LOAD", &more]);
    client.expect("FCALL both 2 x y", "\"done\"");
    client.expect("WAIT 1 5000", ":1");
    follower.expect("MGET x y", r#"["1", "2"]"#);
    assert_eq!(follower.run("FUNCTION LIST").items().len(), 2);
    follower.expect("FCALL both 2 x y", "-READONLY You can't write against a read only replica.");
    client.ok("SAVE");
    primary.restart();
    let mut client = primary.connect();
    client.expect("FCALL again 2 x y", "\"done\"");
    // A Redis loads the file.
    client.ok("SAVE");
    let real = Launch::real().dir(primary.dir()).start();
    real.connect().expect("FCALL both 2 x y", "\"done\"");
}

/// Bytes that look like what the libraries read, by a fixed seed.
fn hostile(seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    };
    const PARTS: [&[u8]; 16] = [
        b"{",
        b"[",
        b"\"",
        b"\\u",
        b"d800",
        b":1,",
        b"]",
        b"}",
        b"1e99",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff",
        b"\x91",
        b"\x81\xc0",
        b"\xdb\x7f\xff\xff\xff",
        b"\x00",
        b"-",
    ];
    let repeat = if next() % 8 == 0 { 2000 } else { 1 };
    let parts: Vec<u8> = (0..next() % 12).flat_map(|_| PARTS[next() % PARTS.len()].to_vec()).collect();
    parts.repeat(repeat)
}

#[test]
fn libraries_take_any_bytes() {
    let server = node("2");
    let mut client: Client = server.connect();
    let script = "for _, f in ipairs({cjson.decode, cmsgpack.unpack}) do pcall(f, ARGV[1]) end \
        for _, f in ipairs({'>I2s', 'Bc0', '!8dI7', 'i32c0'}) do pcall(struct.unpack, f, ARGV[1]) end \
        pcall(struct.pack, ARGV[1], 1, 2) pcall(struct.size, ARGV[1]) \
        local ok, v = pcall(cmsgpack.unpack, cmsgpack.pack({{ARGV[1]}, a = ARGV[1]})) \
        return ok and v.a == ARGV[1]";
    let mut seed = 8;
    for _ in 0..2000 {
        let bytes = hostile(&mut seed);
        let args: [&[u8]; 4] = [b"EVAL", script.as_bytes(), b"0", &bytes];
        assert_eq!(client.cmd(&args).to_string(), ":1", "{bytes:?}");
    }
}
