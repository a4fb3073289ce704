//! The server as a process: start, log, INFO, configuration files, signals, exit codes.

use crate::common::client::{Client, Reply};
use crate::common::server::{Launch, Server, free_port, fresh_dir, real, subject};
use crate::common::{SOON, wait_for};
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn info_has_the_fields_that_tools_read() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("SET k v");
    client.run("GET none");
    let info = client.run("INFO").text();
    for section in ["Server", "Clients", "Memory", "Stats", "Replication", "CPU", "Cluster", "Keyspace"] {
        assert!(info.contains(&format!("# {section}\r\n")), "# {section} in {info}");
    }
    for field in [
        "redis_version",
        "redis_mode",
        "os",
        "arch_bits",
        "multiplexing_api",
        "process_id",
        "run_id",
        "tcp_port",
        "uptime_in_seconds",
        "uptime_in_days",
        "hz",
        "executable",
        "connected_clients",
        "blocked_clients",
        "maxclients",
        "cluster_connections",
        "used_memory",
        "used_memory_human",
        "used_memory_rss",
        "used_memory_peak",
        "total_system_memory",
        "maxmemory",
        "maxmemory_policy",
        "mem_fragmentation_ratio",
        "mem_allocator",
        "loading",
        "rdb_changes_since_last_save",
        "rdb_bgsave_in_progress",
        "rdb_last_save_time",
        "rdb_last_bgsave_status",
        "aof_enabled",
        "total_connections_received",
        "total_commands_processed",
        "instantaneous_ops_per_sec",
        "total_net_input_bytes",
        "total_net_output_bytes",
        "rejected_connections",
        "sync_full",
        "sync_partial_ok",
        "sync_partial_err",
        "expired_keys",
        "evicted_keys",
        "keyspace_hits",
        "keyspace_misses",
        "pubsub_channels",
        "pubsub_patterns",
        "role",
        "connected_slaves",
        "master_failover_state",
        "master_replid",
        "master_replid2",
        "master_repl_offset",
        "second_repl_offset",
        "repl_backlog_active",
        "repl_backlog_size",
        "used_cpu_sys",
        "used_cpu_user",
        "cluster_enabled",
    ] {
        assert_ne!(client.info(field), "", "{field}");
    }
    assert!(client.info("redis_version").starts_with("7."));
    assert_eq!(client.info("tcp_port"), server.port.to_string());
    assert_eq!(client.info("process_id"), server.pid().to_string());
    assert_eq!(client.info("role"), "master");
    // 7.4 adds the number of hashes whose fields expire.
    assert!(client.info("db0").starts_with("keys=1,expires=0,avg_ttl=0"), "{}", client.info("db0"));
    assert_eq!(client.info("keyspace_misses"), "1");
    let stats = client.run("INFO commandstats").text();
    assert!(stats.contains("cmdstat_set:calls=1,usec="), "{stats}");
    assert!(stats.contains("rejected_calls=0,failed_calls=0"), "{stats}");
    client.expect("INFO nosuchsection", "\"\"");
    let some = client.run("INFO server clients").text();
    assert!(some.contains("# Server") && some.contains("# Clients") && !some.contains("# Stats"), "{some}");
}

#[test]
fn the_log_says_what_tools_wait_for() {
    let server = Server::subject();
    wait_for("ready", SOON, || server.log().contains("Ready to accept connections"));
    let log = server.log();
    let line = log.lines().find(|l| l.contains("Ready to accept connections")).expect("the line");
    // PID:ROLE DD Mon YYYY HH:MM:SS.mmm LEVEL TEXT
    assert!(line.starts_with(&format!("{}:M ", server.pid())), "{line}");
    assert!(line.contains(" * Ready"), "{line}");
}

#[test]
fn shutdown_ends_with_exit_code_zero() {
    for how in ["SHUTDOWN", "SHUTDOWN NOSAVE", "SHUTDOWN NOW", "SHUTDOWN FORCE"] {
        let mut server = Server::subject();
        assert!(server.connect().try_run(how).is_err(), "{how}: the connection closes without a reply");
        assert_eq!(server.wait_exit().code(), Some(0), "{how}");
        assert!(server.log().contains("bye bye"), "{how}: {}", server.log());
    }
}

#[test]
fn term_and_int_save_and_end_with_exit_code_zero() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::subject();
        let mut client = server.connect();
        client.ok("SET k v");
        client.ok(r#"CONFIG SET save "3600 1""#);
        server.signal(signal);
        assert_eq!(server.wait_exit().code(), Some(0), "{signal}");
        server.start_again();
        server.connect().expect("GET k", "\"v\"");
    }
}

#[test]
fn a_shutdown_waits_for_a_lagging_replica_and_can_be_called_off() {
    let mut server = Launch::subject().args(&["--repl-diskless-sync-delay", "0"]).start();
    let mut replica = Launch::subject().args(&["--replicaof", &format!("127.0.0.1 {}", server.port)]).start();
    wait_for("the replica follows", SOON, || {
        replica.connect().info("master_link_status") == "up"
            && server.connect().info("slave0").contains("online")
    });
    replica.signal("STOP");
    let (mut client, mut asker, mut writer) = (server.connect(), server.connect(), server.connect());
    client.ok("SET k v");
    asker.send(&["SHUTDOWN"]);
    wait_for("it waits", SOON, || client.info_int("shutdown_in_milliseconds") > 0);
    writer.send(&["SET", "k", "w"]);
    client.ok("SHUTDOWN ABORT");
    assert_eq!(asker.read().text(), "ERR Errors trying to SHUTDOWN. Check logs.");
    assert_eq!(writer.read().to_string(), "+OK", "writes were paused, and go on");
    assert_eq!(client.info("shutdown_in_milliseconds"), "");
    assert_eq!(client.run("SHUTDOWN ABORT").text(), "ERR No shutdown in progress.");
    asker.send(&["SHUTDOWN"]);
    wait_for("it waits again", SOON, || client.info_int("shutdown_in_milliseconds") > 0);
    replica.signal("CONT");
    assert_eq!(server.wait_exit().code(), Some(0));
    replica.connect().expect("GET k", "\"w\"");
    replica.kill();
}

/// Whatever was answered with success before the end is in the file.
#[test]
fn the_last_save_has_every_acknowledged_write() {
    for ending in ["TERM", "SHUTDOWN SAVE"] {
        let mut server = Launch::subject().args(&["--rdb-key-save-delay", "50"]).start();
        let mut client = server.connect();
        client.run("DEBUG POPULATE 20000 key 10");
        client.ok(r#"CONFIG SET save "3600 1000000""#);
        let mut writer = server.connect();
        let writing = std::thread::spawn(move || {
            let mut acknowledged = 0;
            while let Ok(reply) = writer.try_run("INCR n") {
                acknowledged = reply.int();
            }
            acknowledged
        });
        wait_for("writes", SOON, || client.run("GET n").text().parse::<u32>().is_ok_and(|n| n > 100));
        if ending == "TERM" {
            server.signal("TERM");
        } else {
            assert!(client.try_run(ending).is_err());
        }
        assert_eq!(server.wait_exit().code(), Some(0));
        let acknowledged = writing.join().expect("the writer");
        server.start_again();
        let saved = server.connect().run("GET n").text().parse::<i64>().expect("a number");
        assert!(saved >= acknowledged, "{ending}: {saved} saved, {acknowledged} acknowledged");
    }
}

#[test]
fn config_set_changes_everything_or_nothing() {
    let server = Launch::subject().args(&["--enable-protected-configs", "yes"]).start();
    let mut client = server.connect();
    let taken = Server::subject();
    let score = || fs::read_to_string(format!("/proc/{}/oom_score_adj", server.pid())).expect("the score");
    let (before, dir) = (score(), client.run("CONFIG GET dir").to_string());
    client.ok("SET k v");
    for (sets, about, message) in [
        ("dir /no/such/folder", "dir", "No such file or directory"),
        (&format!("port {}", taken.port), "port", "Unable to listen on this port. Check server logs."),
        ("bind 1.2.3.4 dir /", "bind", "Failed to bind to specified addresses."),
    ] {
        let line =
            format!("CONFIG SET oom-score-adj relative oom-score-adj-values \"10 20 30\" hz 20 {sets}");
        let want = format!("ERR CONFIG SET failed (possibly related to argument '{about}') - {message}");
        assert_eq!(client.run(&line).text(), want);
        assert_eq!(score(), before, "{sets}");
        assert_eq!(client.run("CONFIG GET dir").to_string(), dir, "{sets}");
        client.ok("SAVE");
        assert!(server.dir().join("dump.rdb").exists(), "{sets}: the process has left its directory");
        fs::remove_file(server.dir().join("dump.rdb")).expect("remove the file");
        client.expect("CONFIG GET hz", "[\"hz\", \"10\"]");
        server.connect().expect("PING", "+PONG");
    }
    client.expect("CONFIG SET hz 20 timeout", "-ERR syntax error");
}

#[test]
fn the_addresses_change_while_the_port_stays() {
    let server = Server::subject();
    let mut client = server.connect();
    for (bind, open) in
        [("127.0.0.1 127.0.0.2", true), ("127.0.0.1", false), ("*", true), ("127.0.0.1 -::1", false)]
    {
        client.ok(&format!("CONFIG SET bind \"{bind}\""));
        server.connect().expect("PING", "+PONG");
        let reached = std::net::TcpStream::connect(("127.0.0.2", server.port)).is_ok();
        assert_eq!(reached, open, "{bind}");
    }
}

#[test]
fn resetstat_zeroes_counters_and_nothing_else() {
    let server = Server::subject();
    let mut client = server.connect();
    client.cmd(&["SET", "big", &"x".repeat(8 << 20)]);
    client.ok("SET e v EX 100");
    wait_for("the peak is seen", SOON, || client.info_int("used_memory_peak") > 8 << 20);
    client.run("DEL big");
    client.run("GET");
    client.ok("SAVE");
    assert!(
        client
            .run("INFO commandstats")
            .text()
            .contains("cmdstat_get:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,")
    );
    let keys = client.info("db0");
    let ttl = keys.split(',').find_map(|field| field.strip_prefix("avg_ttl="));
    let ttl: i64 = ttl.expect("the field").parse().expect("a number");
    assert!((90_000..=100_000).contains(&ttl), "{ttl}");
    assert!(client.info_int("eventloop_cycles") > 0 && client.info_int("eventloop_duration_sum") > 0);
    client.ok("CONFIG RESETSTAT");
    for (field, left) in [("rdb_saves", 0), ("total_error_replies", 0), ("total_connections_received", 0)] {
        assert_eq!(client.info_int(field), left, "{field}");
    }
    assert!(!client.run("INFO commandstats").text().contains("cmdstat_get"));
    assert!(client.info_int("used_memory_peak") > 8 << 20, "the peak is no counter");
}

#[test]
fn log_lines_name_the_present_role() {
    let server = Server::subject();
    let mut client = server.connect();
    let letter = || server.log().lines().last().and_then(|l| l.split([':', ' ']).nth(1).map(str::to_owned));
    client.ok("REPLICAOF 127.0.0.1 1");
    wait_for("a line of a replica", SOON, || letter().as_deref() == Some("S"));
    client.ok("REPLICAOF NO ONE");
    client.ok("SAVE");
    assert_eq!(letter().as_deref(), Some("M"), "{}", server.log());
}

#[test]
fn shutdown_save_and_nosave_do_as_they_say() {
    let mut server = Server::subject();
    server.connect().ok("SET k v");
    let _ = server.connect().try_run("SHUTDOWN SAVE");
    assert_eq!(server.wait_exit().code(), Some(0));
    server.start_again();
    let mut client = server.connect();
    client.expect("GET k", "\"v\"");
    client.ok("SET k changed");
    client.ok(r#"CONFIG SET save "3600 1""#);
    let _ = client.try_run("SHUTDOWN NOSAVE");
    server.wait_exit();
    server.start_again();
    server.connect().expect("GET k", "\"v\"");
}

#[test]
fn a_crash_leaves_a_report() {
    let mut server = Server::subject();
    let _ = server.connect().try_run("DEBUG SEGFAULT");
    let status = server.wait_exit();
    assert!(!status.success(), "{status}");
    let log = server.log();
    assert!(log.contains("crashed by signal"), "{log}");
    assert!(log.to_lowercase().contains("backtrace") || log.contains("STACK TRACE"), "{log}");
}

#[test]
fn debug_sleep_stops_the_whole_node() {
    let server = Server::subject();
    let mut sleeper = server.connect();
    let mut other = server.connect();
    let start = std::time::Instant::now();
    sleeper.send(&["DEBUG", "SLEEP", "0.5"]);
    let mut slow = std::time::Duration::ZERO;
    while start.elapsed().as_millis() < 450 {
        let asked = std::time::Instant::now();
        other.run("PING");
        slow = slow.max(asked.elapsed());
    }
    assert!(slow.as_millis() >= 300, "a PING meanwhile took {slow:?}");
    assert_eq!(sleeper.read().to_string(), "+OK");
}

/// Runs the server's binary to its end and returns exit code and output.
fn run(args: &[&str], input: Option<&str>) -> (Option<i32>, String) {
    let dir = fresh_dir();
    let mut command = Command::new(subject());
    command.args(args).current_dir(&dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(text) = input {
        let path = dir.join("input");
        fs::write(&path, text).expect("write the input");
        command.stdin(fs::File::open(path).expect("open the input"));
    } else {
        command.stdin(Stdio::null());
    }
    let output = command.output().expect("run the server");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let _ = fs::remove_dir_all(dir);
    (output.status.code(), text)
}

#[test]
fn version_and_help_answer_and_end() {
    let (code, text) = run(&["--version"], None);
    assert_eq!(code, Some(0));
    assert!(text.contains("v=") || text.to_lowercase().contains("keystead"), "{text}");
    let (code, text) = run(&["--help"], None);
    assert!(code.is_some(), "{text}");
    assert!(text.contains("Usage"), "{text}");
}

#[test]
fn a_wrong_directive_stops_the_start_with_line_and_text() {
    let (code, text) = run(&["-"], Some("# a comment\nport 0\nmaxmemory-policy nosuch\n"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("*** FATAL CONFIG FILE ERROR"), "{text}");
    assert!(text.contains("Reading the configuration file, at line 3"), "{text}");
    assert!(text.contains(">>> 'maxmemory-policy nosuch'"), "{text}");
    assert!(text.contains("argument(s) must be one of the following: volatile-lru"), "{text}");
    let (code, text) = run(&["--no-such-directive", "1"], None);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Bad directive or wrong number of arguments"), "{text}");
    let (code, text) = run(&["--port", "99999"], None);
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = run(&["/no/such/file.conf"], None);
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_taken_port_stops_the_start() {
    let server = Server::subject();
    let (code, text) = run(&["--port", &server.port.to_string(), "--bind", "127.0.0.1"], None);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Address already in use"), "{text}");
}

#[test]
fn a_configuration_file_is_read_and_rewritten_with_its_comments() {
    let dir = fresh_dir();
    let path = dir.join("node.conf");
    fs::write(dir.join("extra-1.conf"), "hz 20\n").expect("write");
    let text = format!(
        "# my comment\nmaxmemory 10mb\n\n# the name\nmaxmemory 20mb\nsave 900 1\nsave 300 10\nproc-title-template \"{{title}} {{listen-addr}}\"\ninclude {}/extra-*.conf\n",
        dir.display()
    );
    fs::write(&path, text).expect("write");
    // The file comes first, then what the harness adds.
    let port = crate::common::server::free_port();
    let mut child = Command::new(subject())
        .arg(&path)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", &dir.to_string_lossy()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    wait_for("ready", SOON, || crate::common::client::Client::try_connect(port).is_ok());
    let mut client = crate::common::client::Client::connect(port);
    let config = |client: &mut crate::common::client::Client, name: &str| {
        client.run(&format!("CONFIG GET {name}")).items().get(1).map_or_else(String::new, Reply::text)
    };
    assert_eq!(config(&mut client, "maxmemory"), "20971520");
    assert_eq!(config(&mut client, "save"), "900 1 300 10");
    assert_eq!(config(&mut client, "hz"), "20");
    client.ok("CONFIG SET maxmemory 30mb timeout 7");
    client.ok("CONFIG REWRITE");
    let rewritten = fs::read_to_string(&path).expect("read");
    assert!(rewritten.contains("# my comment\n") && rewritten.contains("# the name\n"), "{rewritten}");
    assert!(rewritten.contains("maxmemory 30mb"), "{rewritten}");
    assert!(rewritten.contains("timeout 7"), "{rewritten}");
    assert!(client.info("config_file").ends_with("node.conf"));
    fs::remove_file(&path).expect("remove the file");
    client.ok("CONFIG REWRITE");
    let anew = fs::read_to_string(&path).expect("a file that was gone is made anew");
    assert!(anew.starts_with("\n# Generated by CONFIG REWRITE\n") && anew.contains("timeout 7\n"), "{anew}");
    fs::remove_file(&path).expect("remove the file");
    fs::create_dir(&path).expect("create a directory");
    assert_eq!(client.run("CONFIG REWRITE").text(), "ERR Rewriting config file: Is a directory");
    let _ = client.try_run("SHUTDOWN NOSAVE");
    let _ = child.wait();
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn the_log_file_and_the_pid_file_are_written() {
    let dir = fresh_dir();
    let (log, pid) = (dir.join("my.log"), dir.join("my.pid"));
    let mut server = Launch::subject()
        .args(&["--logfile", &log.to_string_lossy(), "--pidfile", &pid.to_string_lossy()])
        .start();
    wait_for("the pid file", SOON, || {
        fs::read_to_string(&pid).is_ok_and(|p| p.trim() == server.pid().to_string())
    });
    let text = fs::read_to_string(&log).expect("the log file");
    assert!(text.contains("Ready to accept connections"), "{text}");
    let _ = server.connect().try_run("SHUTDOWN NOSAVE");
    server.wait_exit();
    assert!(!pid.exists(), "the pid file goes with the process");
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn every_command_is_described() {
    let server = Server::subject();
    let mut client = server.connect();
    let all = client.run("COMMAND");
    assert_eq!(all.items().len() as i64, client.run("COMMAND COUNT").int());
    let listed = client.run("COMMAND LIST");
    assert!(listed.items().len() >= all.items().len());
    for command in all.items() {
        let [name, arity, flags, first, ..] = command.items() else { panic!("{command}") };
        assert!(command.items().len() == 10, "{command}");
        assert!(arity.int() != 0 && first.int() >= 0 && !name.text().is_empty(), "{command}");
        assert!(matches!(flags, Reply::Array(_) | Reply::Set(_)), "{command}");
    }
    let docs = client.run("COMMAND DOCS get set");
    let text = docs.to_string();
    for part in [
        "\"get\"",
        "\"summary\"",
        "\"since\", \"1.0.0\"",
        "\"group\", \"string\"",
        "\"complexity\"",
        "\"arguments\"",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn redis_benchmark_runs_its_default_tests() {
    let _serial = crate::common::heavy();
    let server = Server::subject();
    let output = Command::new("redis-benchmark")
        .args(["-p", &server.port.to_string(), "-q", "-n", "2000", "-r", "1000", "-P", "4"])
        .stdin(Stdio::null())
        .output()
        .expect("run redis-benchmark");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.to_lowercase().contains("error"), "{text}\n{errors}");
    assert!(!text.contains("WARNING"), "{text}");
    for test in [
        "PING_INLINE",
        "PING_MBULK",
        "SET",
        "GET",
        "INCR",
        "LPUSH",
        "RPUSH",
        "LPOP",
        "RPOP",
        "SADD",
        "HSET",
        "SPOP",
        "ZADD",
        "ZPOPMIN",
        "LRANGE_100",
        "LRANGE_600",
        "MSET (10 keys)",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(test) && l.contains("requests per second")),
            "{test} in {text}"
        );
    }
}

#[test]
fn a_banner_with_mode_port_and_pid_stands_before_the_start_when_asked_for() {
    let server = Launch::subject().args(&["--always-show-logo", "yes"]).start();
    let log = server.log();
    let before = log.split("Server initialized").next().unwrap_or_default();
    assert!(before.contains(&format!("PID: {}", server.pid())), "{log}");
    assert!(before.contains("standalone mode") && before.contains("Port: "), "{log}");
    assert!(!Server::subject().log().contains("PID: "), "nobody asked for it");
}

/// Two neighbours of it: what the mode is, and a log that is a file; a terminal alone gets it unasked.
#[test]
fn the_banner_says_the_mode_and_goes_where_the_log_goes() {
    let server =
        Launch::subject().cluster().args(&["--always-show-logo", "yes", "--logfile", "own.log"]).start();
    let log = fs::read_to_string(server.dir().join("own.log")).expect("the log");
    let before = log.split("Server initialized").next().unwrap_or_default();
    assert!(before.contains(&format!("PID: {}", server.pid())), "{log}");
    assert!(before.contains("cluster mode") && before.contains(&format!("Port: {}", server.port)), "{log}");
    assert!(!server.log().contains("PID: "), "the standard output has nothing of it");
    // Without it a line says the same.
    let server = Launch::subject().cluster().start();
    let line = format!("Running mode=cluster, port={}.", server.port);
    assert!(server.log().contains(&line), "{}", server.log());
}

#[test]
fn the_end_says_how_many_replicas_are_in_sync() {
    for launch in [Launch::subject(), Launch::real()] {
        let mut server = launch.clone().args(&["--repl-diskless-sync-delay", "0"]).start();
        let _replica =
            Launch::subject().args(&["--replicaof", &format!("127.0.0.1 {}", server.port)]).start();
        wait_for("the replica follows", SOON, || server.connect().info("slave0").contains("online"));
        let _ = server.connect().try_run("SHUTDOWN NOSAVE");
        server.wait_exit();
        let log = server.log();
        assert!(log.contains("1 of 1 replicas are in sync when shutting down."), "{log}");
        // Without any there is nothing to say.
        let mut alone = launch.start();
        let _ = alone.connect().try_run("SHUTDOWN NOSAVE");
        alone.wait_exit();
        assert!(!alone.log().contains("in sync"), "{}", alone.log());
    }
}

/// A terminal gets it unasked. `script` gives the server one, and shows what is written to it.
#[test]
fn a_terminal_gets_the_banner_unasked() {
    for (program, port) in [(subject(), free_port()), (real(), free_port())] {
        let command = format!("exec {} --port {port} --save ''", program.display());
        let script = Command::new("script")
            .args(["-qfec", &command, "/dev/null"])
            .current_dir(fresh_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run script");
        wait_for("it answers", SOON, || {
            Client::try_connect(port).is_ok_and(|mut client| client.try_run("PING").is_ok())
        });
        let pid = Client::connect(port).info("process_id");
        let _ = Client::connect(port).try_run("SHUTDOWN NOSAVE");
        let shown = script.wait_with_output().expect("its end");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let before = shown.split("Server initialized").next().unwrap_or_default();
        assert!(before.contains(&format!("PID: {pid}")), "{shown}");
        assert!(before.contains(&format!("Port: {port}")), "{shown}");
    }
}
