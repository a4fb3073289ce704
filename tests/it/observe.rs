//! Those who look on: MONITOR, the slow log, and clients that keep what they read and are told when it changes.

use crate::common::client::{Client, Reply};
use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use std::time::{Duration, Instant};

/// A line of MONITOR behind its time.
fn line(monitor: &mut Client) -> String {
    let Reply::Simple(line) = monitor.read() else { panic!("a line") };
    line.split_once(' ').expect("a time in front").1.to_owned()
}

/// A function that comes to a key that it did not declare, and whose shard is held, begins anew when that is free.
#[test]
fn a_script_that_begins_anew_is_shown_once() {
    let server = Server::subject();
    let (mut client, mut holder, mut monitor) = (server.connect(), server.connect(), server.connect());
    let body = "#!lua name=l\nredis.register_function('f', function(keys, args) \
        redis.call('GET', keys[1]) return redis.call('SET', args[1], 'v') end)";
    client.cmd(&["FUNCTION", "LOAD", body]);
    monitor.ok("MONITOR");
    let expected = ["\"FCALL\" \"f\" \"1\" \"a\" \"held\"", "\"GET\" \"a\"", "\"SET\" \"held\" \"v\""];
    // The function may be faster than the holder: it gives it more time with each attempt.
    let was_held = (0..20).any(|attempt| {
        holder.send(&["DEBUG", "HOLD-SHARD", "held", "0.5"]);
        (0..attempt * 20).for_each(|_| client.expect("GET meanwhile", "nil"));
        let began = Instant::now();
        client.ok("FCALL f 1 a held");
        let took = began.elapsed();
        assert_eq!(holder.read().to_string(), "+OK");
        client.run("ECHO end");
        let lines: Vec<String> = std::iter::repeat_with(|| line(&mut monitor))
            .take_while(|line| !line.contains("\"end\""))
            .filter(|line| !line.contains("meanwhile"))
            .map(|line| line.split_once("] ").expect("who sent it").1.to_owned())
            .collect();
        assert_eq!(lines, expected);
        took > Duration::from_millis(100)
    });
    assert!(was_held);
}

/// What is held of it is bounded: a script that only reads may never end.
#[test]
fn a_script_that_does_not_end_is_shown_meanwhile() {
    let server = Launch::subject().start();
    let (mut monitor, mut hanging, mut admin) = (server.connect(), server.connect(), server.connect());
    monitor.ok("MONITOR");
    hanging.send(&["EVAL", "while true do redis.call('GET', KEYS[1]) end", "1", "k"]);
    while !monitor.read().text().ends_with("lua] \"GET\" \"k\"") {}
    wait_for("it can be killed", SOON, || admin.run("SCRIPT KILL").to_string() == "+OK");
}

#[test]
fn a_monitor_sees_commands_in_their_order_and_no_secrets() {
    let server = Server::subject();
    let mut client = server.connect();
    let mut monitor = server.connect();
    let at = format!("127.0.0.1:{}", client.local_port());
    monitor.ok("MONITOR");
    client.ok("SELECT 3");
    client.ok("SET a \"x y\\n\\xff\"");
    client.ok("MULTI");
    for queued in ["SET k v", "GET k"] {
        client.run(queued);
    }
    client.run("EXEC");
    client.run("AUTH secret");
    client.run("HELLO 3 AUTH default secret SETNAME me");
    // Administration is not shown, nor what is refused before it runs.
    client.ok("CONFIG SET slowlog-max-len 128");
    client.run("NOSUCH");
    client.run("GET");
    client.run("MIGRATE 127.0.0.1 1 nokey 0 10 AUTH2 me secret");
    client.run("PING end");
    let expected = [
        "\"SELECT\" \"3\"",
        "\"SET\" \"a\" \"x y\\n\\xff\"",
        "\"MULTI\"",
        "\"SET\" \"k\" \"v\"",
        "\"GET\" \"k\"",
        "\"EXEC\"",
        "\"AUTH\" \"(redacted)\"",
        "\"HELLO\" \"3\" \"AUTH\" \"(redacted)\" \"(redacted)\" \"SETNAME\" \"me\"",
        "\"MIGRATE\" \"127.0.0.1\" \"1\" \"nokey\" \"0\" \"10\" \"AUTH2\" \"(redacted)\" \"(redacted)\"",
        "\"PING\" \"end\"",
    ];
    for words in expected {
        assert_eq!(line(&mut monitor), format!("[3 {at}] {words}"));
    }
    // RESET ends it.
    monitor.send(&["RESET"]);
    wait_for("the monitor is let go", SOON, || matches!(monitor.read(), Reply::Simple(s) if s == "RESET"));
    client.run("PING");
    monitor.expect("PING", "+PONG");
}

#[test]
fn the_slow_log_keeps_no_secrets() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("CONFIG SET slowlog-log-slower-than 0");
    client.ok("CONFIG SET requirepass secret maxmemory 0");
    client.ok("AUTH secret");
    let shown = client.run("SLOWLOG GET 2").to_string();
    assert!(shown.contains("[\"AUTH\", \"(redacted)\"]"), "{shown}");
    assert!(shown.contains("\"requirepass\", \"(redacted)\", \"maxmemory\", \"0\"]"), "{shown}");
}

/// Redis logs the command of a blocked client when it is served, under the client's own name.
#[test]
fn a_blocked_client_is_logged_when_it_is_served() {
    let server = Server::subject();
    let mut judge = server.connect();
    let mut blocked = server.connect();
    blocked.ok("CLIENT SETNAME sleeper");
    blocked.send(&["BLPOP", "list", "0"]);
    wait_for("it is blocked", SOON, || judge.info_int("blocked_clients") == 1);
    judge.ok("CONFIG SET slowlog-log-slower-than 0");
    judge.run("RPUSH list x");
    blocked.read();
    let shown = judge.run("SLOWLOG GET").to_string();
    let wanted =
        format!("[\"BLPOP\", \"list\", \"0\"], \"127.0.0.1:{}\", \"sleeper\"]", blocked.local_port());
    assert!(shown.contains(&wanted), "{shown}");
}

/// Alike commands of a pipeline may be timed together; what is slow among them is still known by its own time.
#[test]
fn a_slow_command_of_a_pipeline_does_not_make_the_others_slow() {
    let server = Server::subject();
    let mut client = server.connect();
    let mut lines = vec!["GET k".to_owned(); 30];
    lines.insert(10, "DEBUG SLEEP 0.05".to_owned());
    client.pipeline(&lines);
    let usec = |client: &mut crate::common::client::Client, command: &str| {
        let stats = client.run("INFO commandstats").text();
        let row = stats.lines().find_map(|l| l.strip_prefix(command)).expect("a row").to_owned();
        let field = |name: &str| {
            row.split(',').find_map(|f| f.strip_prefix(name)?.parse::<u64>().ok()).expect("a number")
        };
        (field("calls="), field("usec="))
    };
    let (calls, slow) = usec(&mut client, "cmdstat_get:");
    assert!(calls == 30 && slow < 40_000, "{calls} GETs took {slow} us");
    assert!(usec(&mut client, "cmdstat_debug:").1 >= 50_000);
    let shown = client.run("SLOWLOG GET").to_string();
    assert!(shown.contains("SLEEP") && !shown.contains("GET"), "{shown}");
    // With short ones to be shown each stands for itself.
    client.ok("CONFIG SET slowlog-log-slower-than 0");
    client.pipeline(&["GET k"; 5]);
    assert_eq!(client.run("SLOWLOG LEN").int(), 1 + 1 + 5);
}

#[test]
fn latencystats_shows_the_percentiles_that_are_configured() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("SET k v");
    client.ok("CONFIG SET latency-tracking-info-percentiles \"0 50.5 100\"");
    let text = client.run("INFO latencystats").text();
    let set = text.lines().find_map(|l| l.strip_prefix("latency_percentiles_usec_set:")).expect("of SET");
    let parts: Vec<(&str, f64)> = set
        .split(',')
        .map(|p| p.split_once('=').map(|(n, v)| (n, v.parse().expect("a number"))).unwrap())
        .collect();
    assert_eq!(parts.iter().map(|p| p.0).collect::<Vec<_>>(), ["p0", "p50.5", "p100"]);
    assert!(parts[0].1 > 0.0 && parts[0].1 <= parts[2].1, "{set}");
    assert!(!client.run("INFO").text().contains("Latencystats"), "only when it is asked for");
}

#[test]
fn containers_help_and_what_cannot_be_is_refused() {
    let server = Server::subject();
    let mut client = server.connect();
    for container in ["SLOWLOG HELP", "LATENCY HELP", "MEMORY HELP", "MODULE HELP", "CLIENT HELP"] {
        let help = client.run(container);
        assert!(help.items().len() > 4, "{container}: {help}");
    }
    client.expect("MODULE LIST", "[]");
    for refused in ["MODULE LOAD /lib.so arg", "MODULE LOADEX /lib.so CONFIG a b", "MODULE UNLOAD name"] {
        assert!(matches!(client.run(refused), Reply::Error(_)), "{refused}");
    }
    let picture = client.run("LOLWUT VERSION 5 1 2").text();
    assert!(picture.contains("Redis ver. ") && picture.lines().count() > 5, "{picture}");
    for odd in ["x", "5 x", "5 1 1 x", "6 1 x"] {
        client.expect(&format!("LOLWUT VERSION {odd}"), "-ERR value is not an integer or out of range");
    }
    // Versions without a picture say what they are.
    let plain = client.run("LOLWUT").text();
    assert!(plain.starts_with("Redis ver. ") && plain.lines().count() == 1, "{plain}");
    for words in ["VERSION 7", "VERSION 4 x", "VERSION -1", "5", "VERSION"] {
        assert_eq!(client.run(&format!("LOLWUT {words}")).text(), plain);
    }
}

#[test]
fn memory_usage_grows_with_the_value_and_the_key() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok(&format!("SET short {}", "x".repeat(100)));
    client.ok(&format!("SET long {}", "x".repeat(100_000)));
    for n in 0..1000 {
        client.run(&format!("HSET h field{n} value{n}"));
        client.run(&format!("RPUSH l element{n}"));
        client.run(&format!("ZADD z {n} member{n}"));
        client.run(&format!("SADD s member{n}"));
        client.run(&format!("XADD x * field value{n}"));
    }
    for (key, low, high) in [
        ("short", 100, 250),
        ("long", 100_000, 140_000),
        ("h", 16_000, 120_000),
        ("l", 10_000, 60_000),
        ("z", 10_000, 200_000),
        ("s", 10_000, 120_000),
        ("x", 8_000, 120_000),
    ] {
        let bytes = client.run(&format!("MEMORY USAGE {key} SAMPLES 0")).int();
        assert!((low..=high).contains(&bytes), "{key} takes {bytes}");
    }
}

fn tracker(server: &Server, options: &str) -> Client {
    let mut client = server.connect();
    client.run("HELLO 3");
    client.ok(&format!("CLIENT TRACKING ON {options}"));
    client
}

fn stale(key: &str) -> String {
    format!("push [\"invalidate\", [\"{key}\"]]")
}

#[test]
fn a_redirection_tells_a_subscriber_until_it_is_gone() {
    let server = Server::subject();
    let mut writer = server.connect();
    let mut listener = server.connect();
    let id = listener.run("CLIENT ID").int();
    listener.run("SUBSCRIBE __redis__:invalidate");
    let mut old = server.connect();
    old.ok(&format!("CLIENT TRACKING ON REDIRECT {id}"));
    old.expect("CLIENT GETREDIR", &format!(":{id}"));
    old.run("GET k");
    writer.ok("SET k v");
    assert_eq!(listener.read().to_string(), "[\"message\", \"__redis__:invalidate\", [\"k\"]]");
    old.run("GET k");
    writer.ok("FLUSHALL");
    assert_eq!(listener.read().to_string(), "[\"message\", \"__redis__:invalidate\", nil]");
    let mut new = tracker(&server, &format!("REDIRECT {id}"));
    new.run("GET k");
    listener.shutdown();
    wait_for("the listener is gone", SOON, || writer.run(&format!("CLIENT LIST ID {id}")).text().is_empty());
    writer.ok("SET k v");
    assert_eq!(new.read().to_string(), format!("push [\"tracking-redir-broken\", :{id}]"));
    let info = new.run("CLIENT TRACKINGINFO").to_string();
    assert!(info.contains("\"broken_redirect\"") && info.contains(&format!(":{id}")), "{info}");
    let line = writer.run("CLIENT LIST").text();
    assert!(line.contains("flags=tR"), "{line}");
    old.expect(
        "CLIENT TRACKING ON REDIRECT 999999",
        "-ERR The client ID you want redirect to does not exist",
    );
}

#[test]
fn who_wants_to_hear_of_beginnings_hears_of_all_keys_with_them() {
    let server = Server::subject();
    let mut writer = server.connect();
    let mut client = tracker(&server, "BCAST PREFIX a: PREFIX b:");
    assert_eq!(writer.info_int("tracking_total_prefixes"), 2);
    assert_eq!(writer.info_int("tracking_clients"), 1);
    writer.ok("SET c:1 x");
    writer.ok("SET a:1 x");
    writer.ok("MSET b:1 x b:2 y");
    assert_eq!(client.read().to_string(), stale("a:1"));
    assert_eq!(client.read().to_string(), "push [\"invalidate\", [\"b:1\", \"b:2\"]]");
    client.expect(
        "CLIENT TRACKING ON BCAST PREFIX a:1",
        "-ERR Prefix 'a:1' overlaps with an existing prefix 'a:'. Prefixes for a single client must not overlap.",
    );
    client.expect(
        "CLIENT TRACKING ON BCAST PREFIX x PREFIX y PREFIX xx",
        "-ERR Prefix 'x' overlaps with another provided prefix 'xx'. Prefixes for a single client must not overlap.",
    );
    client.expect("CLIENT TRACKING ON PREFIX z", "-ERR PREFIX option requires BCAST mode to be enabled");
    client.ok("CLIENT TRACKING OFF");
    client.expect("CLIENT TRACKING ON BCAST OPTIN", "-ERR OPTIN and OPTOUT are not compatible with BCAST");
    client
        .expect("CLIENT TRACKING ON OPTIN OPTOUT", "-ERR You can't specify both OPTIN mode and OPTOUT mode");
    client.expect(
        "CLIENT CACHING YES",
        "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    );
    assert_eq!(writer.info_int("tracking_total_prefixes"), 0);
}

#[test]
fn what_the_node_deletes_by_itself_is_stale_too() {
    let server = Server::subject();
    let mut writer = server.connect();
    let mut client = tracker(&server, "NOLOOP");
    writer.ok("SET soon x PX 1000");
    client.run("GET soon");
    assert_eq!(client.read().to_string(), stale("soon"), "by its time");
    writer.ok(&format!("SET big {}", "x".repeat(1000)));
    client.run("GET big");
    writer.ok("CONFIG SET maxmemory-policy allkeys-random maxmemory 1");
    assert_eq!(client.read().to_string(), stale("big"), "for want of memory");
    assert_eq!((writer.info_int("tracking_total_keys"), writer.info_int("tracking_total_items")), (0, 0));
}

/// A client that is gone, or has ended its tracking, is told nothing.
#[test]
fn tracking_ends_with_reset_and_with_the_connection() {
    let server = Server::subject();
    let mut writer = server.connect();
    let mut first = tracker(&server, "");
    let mut second = tracker(&server, "");
    first.run("GET k");
    second.run("GET k");
    assert_eq!(writer.info_int("tracking_total_items"), 2);
    first.expect("RESET", "+RESET");
    second.shutdown();
    wait_for("nobody tracks", SOON, || writer.info_int("tracking_clients") == 0);
    writer.ok("SET k v");
    first.run("HELLO 3");
    first.expect("PING", "+PONG");
}

/// What a client keeps is never older than what its last invalidation says, whatever other workers write.
#[test]
fn nobody_keeps_a_value_that_has_changed() {
    let server = Launch::subject().args(&["--io-threads", "4"]).start();
    let mut writers: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    let mut client = tracker(&server, "");
    client.set_read_timeout(Duration::from_secs(10));
    for round in 0..500 {
        let writer = &mut writers[round % 3];
        // The read and the write are under way at once.
        client.send(&["GET", "k"]);
        writer.ok(&format!("SET k {round}"));
        let kept = client.read().to_string();
        if kept == format!("\"{round}\"") {
            // The read came second: the value is the newest, and stale only when somebody writes again.
            client.expect("PING", "+PONG");
            writer.ok("SET k again");
            assert_eq!(client.read().to_string(), stale("k"));
        } else {
            assert_eq!(client.read().to_string(), stale("k"), "{kept} was read before {round} was written");
        }
    }
}

/// The cores on which the thread called `name` may run, as the kernel lists them; empty before it runs.
fn cores_of(server: &Server, name: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("threads");
    let status = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
        .find(|status| status.lines().next().is_some_and(|line| line.ends_with(&format!("\t{name}"))))
        .unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn threads_run_on_the_cores_that_are_listed() {
    let server = Launch::subject().args(&["--server-cpulist", "0", "--io-threads", "2"]).start();
    // A thread takes its place once it runs.
    let bound = |server: &Server, thread| wait_for(thread, SOON, || cores_of(server, thread) == "0");
    bound(&server, "worker-1");
    bound(&server, "free");
    let server = Launch::subject().args(&["--bio-cpulist", "0", "--io-threads", "2"]).start();
    wait_for("worker-1", SOON, || !cores_of(&server, "worker-1").is_empty());
    let all = cores_of(&server, "worker-1");
    bound(&server, "free");
    assert!(std::thread::available_parallelism().is_ok_and(|n| n.get() == 1) || all != "0", "{all}");
}

/// What the disk held up has the names of Redis.
#[test]
fn a_slow_disk_shows_in_latency_by_what_was_done_to_which_file() {
    let settings =
        ["--appendonly", "yes", "--latency-monitor-threshold", "40", "--rdb-key-save-delay", "500000"];
    let server = Launch::subject().args(&settings).start();
    let mut client = server.connect();
    let slow = |client: &mut Client, event: &str| {
        client.run(&format!("LATENCY HISTORY {event}")).items().iter().any(|s| s.items()[1].int() >= 50)
    };
    client.ok("DEBUG DISK-FAULT rename base SLOW-50");
    client.run("BGREWRITEAOF");
    wait_for("aof-rename", SOON, || slow(&mut client, "aof-rename"));
    client.ok("DEBUG DISK-FAULT OFF");
    wait_for("the rewrite ends", SOON, || client.info("aof_rewrite_in_progress") == "0");
    client.ok("DEBUG DISK-FAULT remove temp- SLOW-50");
    client.ok("MSET a 1 b 2");
    client.expect("BGSAVE", "+Background saving started");
    client.ok("FLUSHALL");
    wait_for("rdb-unlink-temp-file", SOON, || slow(&mut client, "rdb-unlink-temp-file"));
    client.ok("DEBUG DISK-FAULT OFF");
    // The rename of a data file is no event.
    client.run("LATENCY RESET");
    client.ok("CONFIG SET rdb-key-save-delay 0");
    client.ok("DEBUG DISK-FAULT rename dump SLOW-50");
    wait_for("the save ends", SOON, || client.info("rdb_bgsave_in_progress") == "0");
    client.ok("SAVE");
    client.expect("LATENCY HISTORY rdb-unlink-temp-file", "[]");
    client.expect("LATENCY HISTORY aof-rename", "[]");
}

/// What is kept is known by the names of keys alone: another database in its place is no change of theirs.
#[test]
fn swapdb_tells_trackers_nothing_as_in_redis() {
    for launch in [Launch::subject(), Launch::real()] {
        let server = launch.start();
        let mut writer = server.connect();
        writer.ok("SET k v");
        let mut client = tracker(&server, "");
        let mut broadcast = tracker(&server, "BCAST");
        client.expect("GET k", "\"v\"");
        writer.ok("SWAPDB 0 1");
        client.expect("PING", "+PONG");
        broadcast.expect("PING", "+PONG");
        // The name still stands for what was read.
        writer.ok("SET k w");
        assert_eq!(client.read().to_string(), stale("k"));
        assert_eq!(broadcast.read().to_string(), stale("k"));
    }
}

#[test]
fn a_second_monitor_of_a_connection_is_not_answered() {
    let server = Server::subject();
    let mut monitor = server.connect();
    monitor.ok("MONITOR");
    monitor.send(&["MONITOR"]);
    monitor.expect("PING", "+PONG");
    assert!(monitor.read().to_string().ends_with("\"PING\""));
    monitor.expect("RESET", "+RESET");
    monitor.ok("MONITOR");
}
