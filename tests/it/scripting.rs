//! Scripts beside other clients: killed, hanging, crossing each other's keys, replicated and saved.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, wait_for};

#[path = "../../fuzz/src/sandbox.rs"]
mod sandbox;

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

/// What needs every shard is refused as well, and hangs no worker.
#[test]
fn what_needs_all_shards_is_told_that_a_script_hangs() {
    const BUSY: &str =
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    for workers in ["1", "2"] {
        let server = node(workers);
        server.connect().ok("CONFIG SET busy-reply-threshold 20");
        let mut hanging = server.connect();
        hanging.send(&crate::common::client::words(ENDLESS));
        for line in
            ["SAVE", "BGSAVE", "BGREWRITEAOF", "REPLICAOF NO ONE", "FLUSHALL", "SWAPDB 0 1", "DEBUG RELOAD"]
        {
            answered(&server, line, BUSY);
        }
        server.connect().ok("SCRIPT KILL");
    }
}

/// Whoever sits on the worker that a script hangs is served by it all the same.
#[test]
fn connections_of_a_hanging_worker_are_answered() {
    if subject_is_real() {
        return;
    }
    let server = node("1");
    server.connect().ok("CONFIG SET busy-reply-threshold 20");
    let mut others: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|c| c.expect("PING", "+PONG"));
    let mut listener = server.connect();
    listener.run("SUBSCRIBE news");
    let mut blocked = server.connect();
    blocked.send(&["BLPOP", "none", "0.2"]);
    let mut hanging = server.connect();
    // It holds the lock of one key; what it sends behind the script must wait, in order.
    hanging.send(&["EVAL", "while true do redis.call('GET', KEYS[1]) end", "1", "k"]);
    hanging.send(&["PING", "behind"]);
    wait_for("the script is seen to hang", SOON, || others[0].run("GET k").to_string().starts_with("-BUSY"));
    assert_eq!(blocked.read().to_string(), "nil-array");
    for client in &mut others {
        client.expect("PING", "+PONG");
        client.expect(
            "EVAL \"return 1\" 0",
            "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        );
        client.expect(
            "SCRIPT LOAD \"return 1\"",
            "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        );
        assert!(client.run("MULTI").to_string().starts_with("+OK"));
        assert!(client.run("EVAL \"return 1\" 0").to_string().starts_with("+QUEUED"));
        let refused = client.run("EXEC").to_string();
        assert!(refused.starts_with('-') && refused.contains("BUSY"), "{refused}");
    }
    assert_eq!(others[1].run("PUBLISH news hello").to_string(), ":1");
    assert_eq!(listener.read().to_string(), "[\"message\", \"news\", \"hello\"]");
    let id = others[2].run("CLIENT ID").text();
    let killed = others[3].run(&format!("CLIENT KILL ID {}", id.trim_start_matches(':'))).to_string();
    assert_eq!(killed, ":1");
    wait_for("it is closed", SOON, || others[2].try_run("PING").is_err());
    others[1].ok("SCRIPT KILL");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user with SCRIPT KILL"));
    assert_eq!(hanging.read().to_string(), "\"behind\"");
    others[0].expect("EVAL \"return redis.call('SET', KEYS[1], 1)\" 1 k", "+OK");
    // A second one goes the same way.
    hanging.send(&crate::common::client::words(ENDLESS));
    wait_for("it is killed", SOON, || others[0].run("SCRIPT KILL").to_string() == "+OK");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
}

/// What comes from a client of scripts is not looked at before its turn, unless another script is in its way.
#[test]
fn a_client_that_ran_a_script_before_is_answered_beside_one_that_hangs() {
    if subject_is_real() {
        return;
    }
    let server = node("1");
    let [mut admin, mut hanging, mut other] = [(); 3].map(|()| server.connect());
    admin.ok("CONFIG SET busy-reply-threshold 600000");
    for _ in 0..20 {
        other.expect(r#"EVAL "return 1" 0"#, ":1");
        // Both come in one round.
        admin.send(&["DEBUG", "SLEEP", "0.1"]);
        hanging.send(&["EVAL", "while true do end", "0"]);
        other.expect("PING", "+PONG");
        assert_eq!(admin.read().to_string(), "+OK");
        wait_for("it can be killed", SOON, || {
            admin.try_run("SCRIPT KILL").is_ok_and(|told| told.to_string() == "+OK")
        });
        assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
    }
}

/// Before the threshold nobody is told -BUSY: clients of free keys go on, and the next script waits for its turn.
#[test]
fn a_script_below_the_threshold_delays_only_who_needs_what_it_holds() {
    if subject_is_real() {
        return;
    }
    let server = node("1");
    let [mut admin, mut other, mut second, mut hanging] = [(); 4].map(|()| server.connect());
    admin.ok("SET {x} 1");
    let code = "while true do redis.call('GET', KEYS[1]) end";
    let sha = admin.cmd(&["SCRIPT", "LOAD", code]).text();
    hanging.send(&["EVALSHA", &sha, "1", "{a}"]);
    wait_for("it holds its key", SOON, || {
        let mut probe = server.connect();
        probe.set_read_timeout(Duration::from_millis(100));
        probe.try_run("GET {a}").is_err()
    });
    second.send(&["EVAL", "return 'second'", "0"]);
    other.expect("GET {x}", "\"1\"");
    other.expect("PING", "+PONG");
    second.set_read_timeout(Duration::from_millis(100));
    assert!(second.try_read().is_err(), "it waits");
    second.set_read_timeout(SOON);
    admin.ok("SCRIPT KILL");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
    assert_eq!(second.read().to_string(), "\"second\"");
}

/// A text that the node sees for the first time is read before it runs: it needs no locks but those of its keys.
#[test]
fn a_new_script_that_keeps_to_its_keys_needs_no_others() {
    if subject_is_real() {
        return;
    }
    let server = node("2");
    let [mut admin, mut hanging] = [(); 2].map(|()| server.connect());
    admin.ok("CONFIG SET busy-reply-threshold 600000");
    admin.ok("SET {x} 1");
    let sha = admin.cmd(&["SCRIPT", "LOAD", "while true do redis.call('GET', KEYS[1]) end"]).text();
    hanging.send(&["EVALSHA", &sha, "1", "{a}"]);
    wait_for("it holds its key", SOON, || {
        let mut probe = server.connect();
        probe.set_read_timeout(Duration::from_millis(100));
        probe.try_run("GET {a}").is_err()
    });
    let mut number = 0;
    wait_for("a new script beside it", SOON, || {
        number += 1;
        // On the worker whose script hangs it would wait for its turn.
        let mut client = server.connect();
        client.set_read_timeout(Duration::from_millis(500));
        let told =
            client.try_run(&format!(r#"EVAL "return redis.call('GET', KEYS[1]) .. ' {number}'" 1 {{x}}"#));
        told.is_ok_and(|told| told.to_string() == format!("\"1 {number}\""))
    });
    admin.ok("SCRIPT KILL");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
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

/// Waits for its key's lock with the other's key unlocked, or not at all: see the module of `exec::script`.
const STRAYING: &str = "redis.call('SET', KEYS[1], 'half') \
    local n = 0 for i = 1, tonumber(ARGV[2]) do n = n + i % 7 end \
    if ARGV[1] ~= '' then \
        local seen = redis.call('GET', ARGV[1]) \
        if seen == 'half' then return 'torn' end \
        redis.call('INCR', ARGV[1] .. ':visits') \
    end \
    redis.call('SET', KEYS[1], 'whole') return 'done'";

/// Two scripts that had kept to their keys come to each other's at the same moment, both with changes made.
#[test]
fn scripts_that_stray_into_each_other_both_succeed_whole() {
    let server = node("2");
    let mut admin = server.connect();
    for round in 0..12 {
        // Another text is another script, of which nothing is known.
        let code = format!("{STRAYING} -- {round}");
        for _ in 0..4 {
            for key in ["a", "b"] {
                assert_eq!(admin.cmd(&["EVAL", &code, "1", key, "", "1"]).to_string(), "\"done\"");
            }
        }
        let told: Vec<String> = thread::scope(|scope| {
            let both = [("a", "b"), ("b", "a")].map(|(own, other)| {
                let (code, mut client) = (&code, server.connect());
                scope.spawn(move || client.cmd(&["EVAL", code, "1", own, other, "3000000"]).to_string())
            });
            both.map(|thread| thread.join().expect("it ends")).into()
        });
        assert_eq!(told, ["\"done\"", "\"done\""], "round {round}");
        assert_eq!(admin.run("MGET a b").to_string(), "[\"whole\", \"whole\"]");
        let visits = (round + 1).to_string();
        assert_eq!(admin.run("MGET a:visits b:visits").to_string(), format!("[\"{visits}\", \"{visits}\"]"));
    }
}

/// What would make the interpreter go down the C stack without end, or allocate without end, is an error.
#[test]
fn no_script_ends_the_process() {
    let server = node("1");
    let mut client = server.connect();
    // To fill the memory of an interpreter has taken a busy machine half a minute.
    client.set_read_timeout(6 * SOON);
    let mut fails = |code: &str, why: &str| {
        let told = client.cmd(&["EVAL", code, "0"]).to_string();
        assert!(told.starts_with('-') && told.contains(why), "{code}: {told}");
        client.expect("PING", "+PONG");
    };
    // A real Redis ends at these.
    if !subject_is_real() {
        let deep = "string.rep('a', 200000)";
        fails(&format!("return string.find({deep}, string.rep('a?', 200000) .. 'b')"), "pattern too complex");
        fails(&format!("return {deep}:match(string.rep('a-', 200000) .. 'b')"), "pattern too complex");
        fails(&format!("return string.gsub({deep}, string.rep('(a)', 200000), '')"), "too many captures");
        fails(
            &format!("for w in string.gmatch({deep}, string.rep('a*', 200000)) do end"),
            "pattern too complex",
        );
        fails("local t = {} for i = 1, 1e9 do t[i] = string.rep('x', 1000000) .. i end", "not enough memory");
        fails("local s = string.rep('x', 2^29) return s .. s .. s", "not enough memory");
    }
    fails("return string.find('x', string.rep('(', 40))", "too many captures");
    fails("local function f(n) return f(n + 1) + 1 end return f(1)", "stack overflow");
    fails(
        "local function f() local ok, e = pcall(f) if not ok then error(e, 0) end end f()",
        "stack overflow",
    );
    fails("local t = {} for i = 1, 20000 do t = {t} end return cjson.encode(t)", "nest");
    fails("return cjson.decode(string.rep('[', 20000))", "nest");
    fails("return table.concat({}, 'x', 1, 3)", "invalid value");
    assert_eq!(client.cmd(&["EVAL", "return {('a-b'):find('-', 1, true)}", "0"]).to_string(), "[:2, :2]");
}

/// Memory is made before a script is refused for the lack of it.
#[test]
fn scripts_evict_first_and_are_refused_only_when_nothing_can_go() {
    let server = node("2");
    let mut client = server.connect();
    let value = "x".repeat(10_000);
    let write = "for i = 1, 20 do redis.call('SET', KEYS[1] .. ':' .. i, ARGV[1]) end return 'done'";
    let used: usize = client.info("used_memory").parse().expect("bytes");
    client.ok(&format!("CONFIG SET maxmemory {}", used + (8 << 20)));
    client.ok("CONFIG SET maxmemory-policy allkeys-lru");
    for round in 0..200 {
        let told = client.cmd(&["EVAL", write, "1", &format!("k:{round}"), &value]).to_string();
        assert_eq!(told, "\"done\"", "round {round}");
    }
    assert_ne!(client.info("evicted_keys"), "0");
    client.ok("CONFIG SET maxmemory-policy noeviction");
    client.ok("CONFIG SET maxmemory 1");
    let told = client.cmd(&["EVAL", write, "1", "k", &value]).to_string();
    assert!(told.starts_with("-OOM command not allowed when used memory > 'maxmemory'."), "{told}");
    let flagged = client.cmd(&["EVAL", &format!("#!lua\n{write}"), "1", "k", &value]).to_string();
    assert!(flagged.starts_with("-OOM command not allowed when used memory > 'maxmemory'."), "{flagged}");
    // What does not write runs, and what says that it may write does.
    assert_eq!(client.cmd(&["EVAL", "return redis.call('EXISTS', KEYS[1])", "1", "no"]).to_string(), ":0");
    let allowed = format!("#!lua flags=allow-oom\n{write}");
    assert_eq!(client.cmd(&["EVAL", &allowed, "1", "k", &value]).to_string(), "\"done\"");
}

const FLAGGED: &str = "#!lua name=lib
local one = function() return 1 end
redis.register_function('plain', one)
redis.register_function{function_name='ro', callback=one, flags={'no-writes'}}
redis.register_function{function_name='stale', callback=one, flags={'no-writes', 'allow-stale'}}";
const READ_ONLY: &str = "-READONLY You can't write against a read only replica.";
const MASTER_DOWN: &str = "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
const LOADING: &str = "-LOADING Redis is loading the dataset in memory";
const NO_MEMORY: &str = "-OOM command not allowed when used memory > 'maxmemory'.";

/// A script's words count where a command's flags do: nothing is queued that may not run. As 7.0.15 answers.
#[test]
fn what_a_script_says_of_itself_is_asked_at_the_gate() {
    let server = node("2");
    let mut client = server.connect();
    client.cmd(&["FUNCTION", "LOAD", FLAGGED]);
    let queued = |client: &mut Client, line: &str, reply: &str| {
        client.expect(line, reply);
        client.ok("MULTI");
        client.expect(line, reply);
        client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    };
    client.ok("CONFIG SET maxmemory 1");
    client.expect("GET k", "nil");
    client.expect("FCALL ro 0", ":1");
    queued(&mut client, "FCALL plain 0", NO_MEMORY);
    queued(&mut client, "FCALL_RO plain 0", NO_MEMORY);
    // A queue takes memory, whatever is queued.
    for line in ["GET k", "FCALL ro 0"] {
        client.ok("MULTI");
        client.expect(line, NO_MEMORY);
        client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    }
    client.ok("CONFIG SET maxmemory 0");
    client.ok("CONFIG SET replica-serve-stale-data no");
    client.ok("REPLICAOF 127.0.0.1 1");
    queued(&mut client, "FCALL plain 0", READ_ONLY);
    queued(&mut client, "FCALL_RO plain 0", READ_ONLY);
    queued(&mut client, "FCALL ro 0", MASTER_DOWN);
    queued(&mut client, "EVAL \"#!lua\\nreturn 1\" 0", READ_ONLY);
    queued(&mut client, "EVAL_RO \"#!lua flags=no-writes\\nreturn 1\" 0", MASTER_DOWN);
    client.expect("FCALL stale 0", ":1");
    client.expect("FCALL nosuch 0", "-ERR Function not found");
}

/// They are in force from then on: what they say of themselves comes before that data are being loaded. As 7.0.15
/// answers.
#[test]
fn libraries_of_a_file_are_known_as_they_are_read() {
    let server = node("2");
    let mut client = server.connect();
    client.cmd(&["FUNCTION", "LOAD", FLAGGED]);
    for n in 0..200 {
        client.ok(&format!("SET k:{n} v"));
    }
    client.ok("SAVE");
    client.cmd(&[
        "FUNCTION",
        "LOAD",
        &FLAGGED
            .replace("lib", "later")
            .replace("'ro'", "'later'")
            .replace("plain", "p")
            .replace("'stale'", "'s'"),
    ]);
    client.expect("FCALL later 0", ":1");
    client.ok("CONFIG SET replica-serve-stale-data no");
    client.ok("CONFIG SET key-load-delay 100000");
    client.ok("REPLICAOF 127.0.0.1 1");
    let mut reloading = server.connect();
    reloading.send(&["DEBUG", "RELOAD", "NOSAVE"]);
    wait_for("the load", SOON, || client.run("FCALL nosuch 0").to_string() == LOADING);
    wait_for("the library", SOON, || client.run("FCALL ro 0").to_string() == MASTER_DOWN);
    client.expect("FCALL plain 0", READ_ONLY);
    client.expect("FCALL stale 0", LOADING);
    client.expect("FCALL later 0", LOADING);
}

/// SHUTDOWN without NOSAVE is refused while a script runs that nobody could see whole, as Redis refuses it.
#[test]
fn shutdown_beside_a_hanging_script() {
    let mut server = node("2");
    server.connect().ok("CONFIG SET busy-reply-threshold 20");
    let mut hanging = server.connect();
    hanging.send(&["EVAL", "redis.call('SET', KEYS[1], 'v') while true do end", "1", "k"]);
    answered(
        &server,
        "GET k",
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    );
    for line in ["SHUTDOWN", "SHUTDOWN SAVE"] {
        let told = server.connect().run(line).to_string();
        assert!(told.starts_with("-BUSY"), "{line}: {told}");
    }
    server.connect().send(&["SHUTDOWN", "NOSAVE"]);
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

/// A handler of errors and a finalizer are stopped as anything else is.
#[test]
fn a_script_cannot_hide_from_its_end_in_a_handler_or_a_finalizer() {
    // A real Redis hangs for ever.
    if subject_is_real() {
        return;
    }
    for code in [
        "xpcall(function() error('x') end, function() while true do end end)",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        // Whether that is refused or stopped.
        "pcall(function() getmetatable(newproxy(true)).__gc = function() while true do end end collectgarbage() end) while true do end",
    ] {
        let server = node("1");
        server.connect().ok("CONFIG SET busy-reply-threshold 20");
        let mut hanging = server.connect();
        hanging.send(&["EVAL", code, "0"]);
        answered(&server, "SCRIPT KILL", "+OK");
        let killed = hanging.read().to_string();
        assert!(killed.starts_with("-ERR Script killed by user with SCRIPT KILL..."), "{code}: {killed}");
        hanging.expect("PING", "+PONG");
    }
}

/// Libraries and globals are the same for the next script, whoever sends it.
#[test]
fn a_script_leaves_nothing_behind_for_the_next_one() {
    if subject_is_real() {
        return;
    }
    let server = node("1");
    let [mut first, mut second] = [(); 2].map(|()| server.connect());
    for code in [
        "x = 1",
        "rawset(_G, 'x', 1)",
        "redis.call = nil",
        "table.insert(_G, 'left')",
        "table.insert(math, 'left')",
        "table.insert(redis, 'left')",
    ] {
        let told = first.cmd(&["EVAL", code, "0"]).to_string();
        assert!(told.contains("Attempt to modify a readonly table"), "{code}: {told}");
    }
    let told = first.cmd(&["EVAL", "setfenv(0, {tostring = function() return 'left' end})", "0"]).to_string();
    assert!(told.contains("cannot change environment"), "{told}");
    // What finds nothing to move or to sort says nothing, as in Redis.
    first.expect("EVAL \"table.remove(math) table.sort(_G)\" 0", "nil");
    let told = first.cmd(&["EVAL", "loadstring('x = 1')()", "0"]).to_string();
    assert!(told.contains("Attempt to modify a readonly table"), "{told}");
    let code = "return {loadstring('return tostring(5)')(), tostring(math[1]), tostring(redis[1])}";
    assert_eq!(second.cmd(&["EVAL", code, "0"]).to_string(), r#"["5", "nil", "nil"]"#);
}

/// The results, attempts included, are those of Redis 7.0.15.
#[test]
fn handlers_of_xpcall_are_given_what_lua_gives_them() {
    let server = node("1");
    let mut client = server.connect();
    for (code, told) in [
        ("return {xpcall(function() return 1, 2, 3 end, tostring)}", "[:1, :1, :2, :3]"),
        ("return {select('#', xpcall(error, function() return 1, 2 end))}", "[:2]"),
        (
            "local ok, e = xpcall(function() error('x') end, function(e) return e .. '!' end) return {tostring(ok), e}",
            r#"["false", "user_script:1: x!"]"#,
        ),
        (
            "local ok, e = xpcall(function() error({err = 'mine'}) end, function(e) return e.err end) return {tostring(ok), e}",
            r#"["false", "mine"]"#,
        ),
        (
            "local n = 0 local ok, e = xpcall(error, function(e) n = n + 1 if n < 3 then error('y' .. n) end return 'got ' .. e end) return {n, e}",
            r#"[:3, "got user_script:1: y2"]"#,
        ),
        (
            "local ok, e = xpcall(error, function() error('y') end) return {tostring(ok), e}",
            r#"["false", "error in error handling"]"#,
        ),
        (
            "local ok, e = xpcall(error, 5) return {tostring(ok), e}",
            r#"["false", "error in error handling"]"#,
        ),
    ] {
        assert_eq!(client.cmd(&["EVAL", code, "0"]).to_string(), told, "{code}");
    }
}

/// Moves one to a key that it does not declare, and wakes those who wait for the lists.
const WAKING: &str = "redis.call('DECR', KEYS[1]) redis.call('RPUSH', 'l', 'x') \
    redis.call('RPUSH', 'm', 'x') redis.call('INCR', ARGV[1]) return 'done'";

#[test]
fn blocked_clients_and_transactions_see_no_half_of_a_script() {
    const RUNS: usize = 150;
    let node = node("2");
    let (server, ended) = (&node, &AtomicBool::new(false));
    let mut judge = server.connect();
    judge.ok("MSET a 1000 b 1000 c 1000");
    let popped = thread::scope(|scope| {
        let checker = scope.spawn(move || {
            let mut client = server.connect();
            let mut sums = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                for line in ["MULTI", "GET a", "GET b", "GET c"] {
                    client.run(line);
                }
                for all in [client.run("EXEC"), client.run("MGET a b c")] {
                    sums.push(all.items().iter().map(|n| n.text().parse::<i64>().unwrap()).sum::<i64>());
                }
            }
            sums
        });
        let poppers = ["BLPOP l 0.1", "BLPOP l 0.1", "BLMOVE m done LEFT RIGHT 0.1"].map(|line| {
            scope.spawn(move || {
                let (mut client, mut popped) = (server.connect(), 0);
                while !ended.load(Ordering::Relaxed) {
                    popped += usize::from(!client.run(line).to_string().starts_with("nil"));
                }
                popped
            })
        });
        let movers = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a")].map(|(from, to)| {
            scope.spawn(move || {
                let mut client = server.connect();
                for run in 0..RUNS {
                    // Another text is another script, of which nothing is known.
                    let code = format!("{WAKING} -- {}", run / 30);
                    let told = if run % 3 == 0 {
                        client.run("MULTI");
                        client.run(&format!("INCRBY {to} 0"));
                        client.cmd(&["EVAL", &code, "1", from, to]);
                        client.run("EXEC").items()[1].to_string()
                    } else {
                        client.cmd(&["EVAL", &code, "1", from, to]).to_string()
                    };
                    assert_eq!(told, "\"done\"");
                }
            })
        });
        let moved = movers.map(thread::ScopedJoinHandle::join);
        ended.store(true, Ordering::Relaxed);
        let popped = poppers.map(|popper| popper.join().unwrap());
        moved.into_iter().for_each(|mover| mover.unwrap());
        let sums = checker.join().unwrap();
        assert!(sums.len() > 10 && sums.iter().all(|sum| *sum == 3000), "{sums:?}");
        popped
    });
    // Each push woke one, or is there still.
    assert_eq!((popped[0] + popped[1]) as i64 + judge.run("LLEN l").int(), 4 * RUNS as i64);
    assert_eq!(judge.run("LLEN m").int() + judge.run("LLEN done").int(), 4 * RUNS as i64);
}

/// A replica whose only worker a script hangs acknowledges what it applies, and answers those who watch it.
#[test]
fn a_replica_with_a_hanging_script_keeps_its_place() {
    if subject_is_real() {
        return;
    }
    const BUSY: &str =
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    let (primary, replica) = (node("2"), node("1"));
    let (mut p, mut r) = (primary.connect(), replica.connect());
    p.ok("SET held 1");
    r.ok("CONFIG SET busy-reply-threshold 20");
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link", SOON, || r.info("master_link_status") == "up");
    let mut hanging = replica.connect();
    hanging.send(&["EVAL_RO", "while true do redis.call('GET', KEYS[1]) end", "1", "held"]);
    answered(&replica, "GET held", BUSY);
    // Its key is in another shard.
    p.ok("SET other 1");
    p.expect("WAIT 1 10000", ":1");
    for (line, reply) in [
        ("PING", "+PONG"),
        ("AUTH default any", "+OK"),
        ("PUBLISH __sentinel__:hello x", ":0"),
        ("GET other", "\"1\""),
        ("FUNCTION KILL", BUSY),
    ] {
        replica.connect().expect(line, reply);
    }
    assert_eq!(r.info("role"), "slave");
    assert_eq!(r.info("master_link_status"), "up");
    // This one waits for the script.
    p.ok("SET held 2");
    r.ok("SCRIPT KILL");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
    p.expect("WAIT 1 10000", ":1");
    r.expect("GET held", "\"2\"");
    assert_eq!(p.info("sync_full"), "1");
}

/// What functions of the interpreter do by themselves, without an instruction of Lua's between, is stopped, too.
#[test]
fn a_script_is_stopped_in_the_middle_of_a_function() {
    // A real Redis hangs for ever, or ends.
    if subject_is_real() {
        return;
    }
    let server = node("1");
    server.connect().ok("CONFIG SET busy-reply-threshold 20");
    let mut hanging = server.connect();
    for code in [
        "return string.find(('a'):rep(40), ('a*'):rep(20) .. 'b')",
        "return ('a'):rep(40):match(('(a*)'):rep(20) .. 'b')",
        "for word in ('a'):rep(40):gmatch(('a-'):rep(20) .. 'b') do end",
        "return ('a'):rep(40):gsub(('a?'):rep(40) .. ('a*'):rep(20) .. 'b', '')",
        "while true do pcall(string.find, ('a'):rep(40), ('a*'):rep(20) .. 'b') end",
        "while true do table.insert({}, -2147483648, 1) end",
        "return load(function() return ' ' end)",
        "local t = {} for i = 1, 100 do t = {t, t} end return t",
        "local t = {} for i = 1, 100 do t = {t, t} end return cjson.encode(t)",
        "local t = {} for i = 1, 15 do local of = {} for at = 1, 30 do of[at] = t end t = of end return cmsgpack.pack(t)",
        "local t = {} for i = 1, 2000000 do t[i] = i end while true do table.foreachi(t, rawlen or type) end",
        "local t = {} for i = 1, 1000000 do t[i] = i % 7 end while true do table.sort(t) table.sort(t, rawequal) end",
    ] {
        hanging.send(&["EVAL", code, "0"]);
        answered(&server, "SCRIPT KILL", "+OK");
        let killed = hanging.read().to_string();
        assert!(killed.starts_with("-ERR Script killed by user with SCRIPT KILL..."), "{code}: {killed}");
        hanging.expect("PING", "+PONG");
    }
    hanging.expect(
        "EVAL \"return {('ab'):rep(3), #('x'):rep(5000), ('hello'):find('l+')}\" 0",
        r#"["ababab", :5000, :3, :4]"#,
    );
}

/// What could fill the memory of the process, beside that of the interpreter, ends in an error.
#[test]
fn a_text_that_grows_without_end_is_an_error() {
    if subject_is_real() {
        return;
    }
    let server = node("1");
    let mut client = server.connect();
    client.set_read_timeout(6 * SOON);
    let many = "local s, t = ('x'):rep(10000000), {} for i = 1, 200 do t[i] = s end ";
    for (code, why) in [
        ("return cjson.encode(t)", "not enough memory"),
        ("return cmsgpack.pack(t)", "not enough memory"),
        ("return struct.pack(('s'):rep(200), unpack(t))", "not enough memory"),
        ("return t", "not enough memory"),
        ("return cmsgpack.unpack(('\\1'):rep(1000000))", "stack overflow (too many return values at once"),
        ("return struct.unpack(('b'):rep(1000000), s)", "stack overflow (too many results)"),
        ("return s:rep(1000000)", "not enough memory"),
    ] {
        let told = client.cmd(&["EVAL", &format!("{many}{code}"), "0"]).to_string();
        assert!(told.starts_with('-') && told.contains(why), "{code}: {told:.200}");
        client.expect("PING", "+PONG");
    }
}

/// WATCH is answered beside a script that hangs; its key counts as changed, because nobody sees what becomes of it.
#[test]
fn a_key_is_watched_beside_a_script_that_hangs() {
    let server = node("1");
    server.connect().ok("CONFIG SET busy-reply-threshold 20");
    let (mut hanging, mut client, mut other) = (server.connect(), server.connect(), server.connect());
    client.ok("SET k 1");
    other.ok("WATCH free");
    hanging.send(&crate::common::client::words(ENDLESS));
    answered(
        &server,
        "GET k",
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    );
    client.ok("WATCH k other");
    client.expect("WATCH", "-ERR wrong number of arguments for 'watch' command");
    other.ok("UNWATCH");
    client.ok("SCRIPT KILL");
    assert!(hanging.read().to_string().starts_with("-ERR Script killed by user"));
    client.ok("MULTI");
    client.expect("GET k", "+QUEUED");
    client.expect("EXEC", if subject_is_real() { "[\"1\"]" } else { "nil-array" });
    client.ok("WATCH k");
    client.ok("MULTI");
    client.expect("GET k", "+QUEUED");
    client.expect("EXEC", "[\"1\"]");
}

/// Keys that SETs in the increments of a server's AOF name, in their order.
fn keys_of_increments(server: &Server) -> Vec<String> {
    let folder = server.dir().join("appendonlydir");
    let files = std::fs::read_dir(folder).expect("a folder of increments");
    let mut names: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    names.retain(|name| name.to_string_lossy().contains(".incr."));
    names.sort();
    let bytes: Vec<u8> = names.iter().flat_map(|name| std::fs::read(name).expect("an increment")).collect();
    let (mut at, mut keys) = (0, Vec::new());
    // A command is an array of bulks, as a reply is.
    while let Some((command, len)) = crate::common::client::decode(&bytes[at..]) {
        at += len;
        if command.items()[0].text().eq_ignore_ascii_case("set") {
            keys.push(command.items()[1].text());
        }
    }
    assert_eq!(at, bytes.len());
    keys
}

/// Each target of `redis.set_repl`, alone and mixed in one script: what a file and a replica get of it, which is of
/// Redis 7.0.15. Both servers are asked.
#[test]
fn set_repl_tells_files_and_replicas_apart() {
    let code = "redis.call('SET', 'all:1:' .. ARGV[1], 1)
        redis.set_repl(redis.REPL_AOF) redis.call('SET', 'aof:' .. ARGV[1], 1)
        redis.set_repl(redis.REPL_REPLICA) redis.call('SET', 'replica:' .. ARGV[1], 1)
        redis.set_repl(redis.REPL_NONE) redis.call('SET', 'none:' .. ARGV[1], 1)
        redis.set_repl(redis.REPL_ALL) redis.call('SET', 'all:2:' .. ARGV[1], 1)";
    let settings =
        ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--repl-diskless-sync-delay", "0"];
    for launch in [Launch::subject(), Launch::real()] {
        let primary = launch.args(&settings).start();
        // One of the other kind reads the stream, and one of ours what that passes on.
        let (replica, second) = (Launch::real().args(&["--save", ""]).start(), Launch::subject().start());
        let (mut p, mut r, mut s) = (primary.connect(), replica.connect(), second.connect());
        r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        s.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        for client in [&mut r, &mut s] {
            wait_for("the link", SOON, || client.info("master_link_status") == "up");
        }
        let mut expected = Vec::new();
        for (at, target) in ["NONE", "AOF", "REPLICA", "ALL"].into_iter().enumerate() {
            // A database of its own, so that each reader must be told of it.
            p.ok(&format!("SELECT {}", at % 2));
            let one = format!("redis.set_repl(redis.REPL_{target}) redis.call('SET', 'alone:{target}', 1)");
            p.cmd(&["EVAL", &one, "0"]);
            p.ok(&format!("SET after:{target} 1"));
            p.cmd(&["EVAL", code, "0", target]);
            p.ok(&format!("SET last:{target} 1"));
            if matches!(target, "AOF" | "ALL") {
                expected.push(format!("alone:{target}"));
            }
            expected.push(format!("after:{target}"));
            expected.extend(["all:1", "aof", "all:2", "last"].map(|key| format!("{key}:{target}")));
        }
        p.expect("WAIT 2 20000", ":2");
        wait_for("the file", SOON, || keys_of_increments(&primary) == expected);
        let replicated: Vec<String> = expected
            .iter()
            .filter(|key| !key.starts_with("aof:") && *key != "alone:AOF")
            .cloned()
            .chain(["NONE", "AOF", "REPLICA", "ALL"].map(|target| format!("replica:{target}")))
            .chain(["alone:REPLICA".to_owned()])
            .collect();
        for client in [&mut r, &mut s] {
            let mut found = Vec::new();
            for db in 0..2 {
                client.ok(&format!("SELECT {db}"));
                found.extend(client.run("KEYS *").items().iter().map(super::common::client::Reply::text));
            }
            let mut wanted = replicated.clone();
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted);
        }
    }
}

/// Texts reach the log at their levels, and what cannot be a level is refused.
#[test]
fn redis_log_writes_to_the_log() {
    let server = Launch::subject().args(&["--loglevel", "notice"]).start();
    let mut client = server.connect();
    client.cmd(&[
        "EVAL",
        "redis.log(redis.LOG_DEBUG, 'a debug') redis.log(redis.LOG_WARNING, 'a warning', 7)",
        "0",
    ]);
    client.cmd(&["EVAL", "redis.log(redis.LOG_NOTICE, ('n'):rep(200))", "0"]);
    wait_for("the line", SOON, || server.log().contains(&"n".repeat(200)));
    assert!(server.log().contains("a warning 7") && !server.log().contains("a debug"));
}

/// Figures about scripts in INFO follow what there is.
#[test]
fn info_counts_scripts_functions_and_their_memory() {
    let server = node("1");
    let mut client = server.connect();
    for field in ["number_of_functions", "number_of_libraries", "number_of_cached_scripts"] {
        assert_eq!(client.info(field), "0", "{field}");
    }
    let library = |name: &str| {
        let pad = "-".repeat(100_000);
        format!(
            "#!lua name={name}\n redis.register_function('{name}1', function() end) redis.register_function('{name}2', function() end) --{pad}"
        )
    };
    let (before, of_scripts) =
        (client.info_int("used_memory_functions"), client.info_int("used_memory_scripts"));
    for name in ["one", "two"] {
        client.cmd(&["FUNCTION", "LOAD", &library(name)]);
    }
    assert_eq!(client.info("number_of_functions"), "4");
    assert_eq!(client.info("number_of_libraries"), "2");
    assert!(client.info_int("used_memory_functions") >= before + 200_000);
    client.cmd(&["FUNCTION", "DELETE", "one"]);
    assert_eq!(client.info("number_of_functions"), "2");
    client.cmd(&["EVAL", &format!("return 1 --{}", "-".repeat(300_000)), "0"]);
    assert_eq!(client.info("number_of_cached_scripts"), "1");
    assert!(client.info_int("used_memory_scripts") >= of_scripts + 300_000);
    let code = "local t = {} for i = 1, 50 do t[i] = ('x'):rep(100000) .. i end return #t";
    let before = client.info_int("used_memory_vm_eval");
    client.expect(&format!("EVAL \"{code}\" 0"), ":50");
    let after = client.info_int("used_memory_vm_eval");
    assert!(after > before, "{before} {after}");
    assert!(client.info_int("used_memory_vm_total") >= after);
    client.cmd(&["FUNCTION", "FLUSH"]);
    client.cmd(&["SCRIPT", "FLUSH"]);
    for field in ["number_of_functions", "number_of_libraries", "number_of_cached_scripts"] {
        assert_eq!(client.info(field), "0", "{field}");
    }
}

/// Random programs over all that scripts can reach: the node answers behind each, and the next script finds what the
/// first one found.
#[test]
fn random_scripts_leave_the_node_and_the_sandbox_as_they_were() {
    if subject_is_real() {
        return;
    }
    let count = std::env::var("KEYSTEAD_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let server = node("1");
    let (mut client, mut other) = (server.connect(), server.connect());
    other.ok("CONFIG SET busy-reply-threshold 5");
    client.set_read_timeout(Duration::from_millis(20));
    let clean = other.cmd(&["EVAL", sandbox::PROBE, "0"]).text();
    assert!(clean.contains("environment=true"), "{clean}");
    let mut rng = keystead::base::rng::Rng::new(7);
    for _ in 0..count {
        let bytes: Vec<u8> = (0..rng.below(200)).map(|_| rng.next_u64() as u8).collect();
        let code = sandbox::Program::of(&bytes, true);
        // It writes nothing, so that it can be killed.
        client.send(&["EVAL_RO", &code, "1", "key", "1"]);
        let begun = std::time::Instant::now();
        while let Err(error) = client.try_read() {
            assert!(begun.elapsed() < 3 * SOON, "{error}: {code}");
            other.run("SCRIPT KILL");
        }
        other.expect("PING", "+PONG");
        let now = other.cmd(&["EVAL", sandbox::PROBE, "0"]).text();
        assert!(now == clean, "{code}\n{clean}\n{now}");
    }
    assert!(server.resident() < 3 << 30, "{}", server.resident());
}

/// What a thread has compiled of a library goes with it, and of one that was refused at once.
#[test]
fn libraries_that_are_replaced_or_refused_leave_nothing_behind() {
    const TIMES: i64 = 3000;
    let server = Launch::subject().args(&["--io-threads", "1"]).start();
    let mut c = server.connect();
    let mut load = |times: i64| {
        for _ in 0..times {
            let (code, taken) =
                ("redis.register_function('f', function() return 1 end)", "#!lua name=other\n");
            assert_eq!(
                c.cmd(&["FUNCTION", "LOAD", "REPLACE", &format!("#!lua name=own\n{code}")]).text(),
                "own"
            );
            assert!(
                c.cmd(&["FUNCTION", "LOAD", &format!("{taken}{code}")]).text().contains("already exists")
            );
            c.expect("FCALL f 0", ":1");
        }
        c.info_int("used_memory")
    };
    let before = load(500);
    let grown = load(TIMES) - before;
    assert!(grown < 100 * TIMES, "{grown} bytes more after {TIMES} times");
}
