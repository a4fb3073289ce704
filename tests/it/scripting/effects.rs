//! What scripts bring about: in memory, for replicas and files, in the log and in INFO.

use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};

use super::node;

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
                found.extend(client.run("KEYS *").items().iter().map(crate::common::client::Reply::text));
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
