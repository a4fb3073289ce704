//! A script that takes long: it is killed, others are answered beside it, and nothing hides it from its end.

use std::time::Duration;

use crate::common::client::Client;
use crate::common::server::subject_is_real;
use crate::common::{SOON, wait_for};

use super::{ENDLESS, answered, node};

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
