//! How a server starts: mistakes in the configuration, the background, supervisors.

use crate::common::client::Client;
use crate::common::server::{Server, free_port, fresh_dir, real, subject, subject_is_real};
use crate::common::{SOON, wait_for};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Runs a server that is expected not to start; kills it if it does.
fn run(program: &Path, args: &[&str], dir: &Path) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the server");
    let start = std::time::Instant::now();
    while child.try_wait().expect("wait").is_none() && start.elapsed() < SOON {
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait_with_output().expect("the output of an ended process")
}

/// What a server says about a mistake, without its name and version.
fn complaint(program: &Path, args: &[&str], dir: &Path) -> String {
    let output = run(program, args, dir);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{} {args:?}: {text}", program.display());
    let (title, rest) = text.trim_start().split_once('\n').unwrap_or((&text, ""));
    assert!(title.starts_with("*** FATAL CONFIG FILE ERROR ("), "{} {args:?}: {text}", program.display());
    rest.to_owned()
}

#[test]
fn mistakes_of_a_file_are_told_as_redis_tells_them() {
    let dir = fresh_dir();
    for line in [
        "foo bar",
        "foo",
        "port 70000",
        "PORT x",
        "port",
        "port 1 2",
        "port 0x10",
        "port +1",
        "\"port\" 1a",
        "shutdown-on-sigint",
        "daemonize maybe",
        "appendfsync sometimes",
        "maxmemory 12xx",
        "maxmemory -1",
        "maxmemory 1.5gb",
        "maxmemory-clients 5x%",
        "maxmemory-clients 150%",
        "maxmemory-clients -5",
        "maxmemory-policy lru",
        "save \"60",
        "save 10",
        "save 0 1",
        "save a b",
        "save 60 100 30",
        "dir 'abc",
        "dir '/tmp'x",
        "dir /no/such/folder",
        "client-output-buffer-limit foo 1 2 3",
        "client-output-buffer-limit normal 1 2",
        "client-output-buffer-limit normal x 2 3",
        "client-output-buffer-limit normal 0 0 -1",
        "oom-score-adj-values 1 2",
        "oom-score-adj-values 1 2 5000",
        "notify-keyspace-events Q",
        "notify-keyspace-events K E",
        "unixsocketperm 999",
        "unixsocketperm 1777",
        "unixsocketperm -1",
        "rename-command nosuch x",
        "rename-command get",
        "rename-command get set",
        "rename-command get x\nrename-command get y",
        "rename-command get x\nrename-command set y\nrename-command y X",
        "replicaof a",
        "replicaof localhost abc",
        "replicaof localhost 99999",
        "sentinel monitor a 127.0.0.1 1 2",
        "user",
        "include",
        "latency-tracking-info-percentiles 101",
        "latency-tracking-info-percentiles abc",
        "dbfilename a/b",
        "appendfilename a/b",
        "appendfilename \"\"",
        "appenddirname a/b",
        "proc-title-template {foo}",
        "socket-mark-id 4294967296",
        "socket-mark-id -1",
        "databases 0",
        "repl-backlog-size 0",
        "maxclients 0",
        "client-query-buffer-limit 5",
        "proto-max-bulk-len 5",
        "slowlog-log-slower-than -2",
        "hash-max-listpack-entries -2",
        "bind 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
        "syslog-facility local9",
        "shutdown-on-sigterm save nosave",
        "shutdown-on-sigint later",
        "cluster-announce-hostname a_b",
        "enable-debug-command perhaps",
        "tls-auth-clients maybe",
        "supervised initd",
        "cluster-enabled yes\nreplicaof localhost 1",
    ] {
        fs::write(dir.join("bad.conf"), format!("# a comment\n\n  {line}  \n")).expect("write the file");
        let ours = complaint(&subject(), &["bad.conf"], &dir);
        assert_eq!(ours, complaint(&real(), &["bad.conf"], &dir), "{line}");
    }
    fs::remove_dir_all(dir).expect("remove the folder");
}

#[test]
fn mistakes_of_the_command_line_are_told_as_redis_tells_them() {
    let dir = fresh_dir();
    fs::write(dir.join("good.conf"), "hz 20\ntimeout 1\n").expect("write the file");
    for args in [
        &["--foo"][..],
        &["--port"],
        &["--port", "x"],
        &["--port", "1", "--foo2", "4"],
        &["--port=7"],
        &["--port 7 8"],
        &["--save", "60", "1", "5"],
        &["--bind", "127.0.0.1", "--hz", "fast"],
        &["good.conf", "--hz", "fast"],
        &["good.conf", "not-a-name"],
        &["good.conf", "--port", "1", "--appendfsync", "soon", "--port", "x"],
    ] {
        let ours = complaint(&subject(), args, &dir);
        assert_eq!(ours, complaint(&real(), args, &dir), "{args:?}");
    }
    fs::remove_dir_all(dir).expect("remove the folder");
}

/// The users of such a file would be left out, and the node open to everybody.
#[test]
fn a_file_of_users_that_cannot_be_read_stops_the_start() {
    let dir = fresh_dir();
    let acl = dir.join("users.acl");
    let args = ["--port", "0", "--aclfile", acl.to_str().expect("a path")];
    let complaint = || last_words(&subject(), &args, &dir);
    let text = complaint();
    let begin = "# Aborting Redis startup because of ACL errors: Error loading ACLs, opening file '";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.ends_with("users.acl': No such file or directory\n"), "{text}");
    fs::write(&acl, "user default on nopass ~* &* +@all\nuser bob on >secret ~* +nosuch\n").expect("write");
    let text = complaint();
    assert!(text.contains("users.acl:2: Error in applying operation '+nosuch'"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    fs::remove_dir_all(dir).expect("remove the folder");
}

/// The warnings of a log, without who gave them when, and without those about the machine.
fn last_words(program: &Path, args: &[&str], dir: &Path) -> String {
    let output = run(program, args, dir);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{} {args:?}: {text}", program.display());
    let about_machine = |line: &str| {
        ["overcommit", "Redis version=", "Redis is starting", "Configuration loaded", "Server initialized"]
            .iter()
            .any(|words| line.contains(words))
    };
    let warning = |line: &str| Some(format!("{}\n", &line[line.find(" # ")? + 1..]));
    text.lines().filter(|line| !about_machine(line)).filter_map(warning).collect()
}

/// What is found out about users when there is a log is told there, in the words of Redis.
#[test]
fn users_that_are_wrong_stop_the_start_as_in_redis() {
    let dir = fresh_dir();
    fs::write(dir.join("good.acl"), "user b on\n").expect("write");
    fs::write(dir.join("bad.acl"), "user b on ~* ~x\nuser c +nope\nb\nuser e\nuser d >secret y\n")
        .expect("write");
    for lines in [
        "aclfile bad.acl",
        "aclfile nosuch.acl",
        "aclfile good.acl\nuser a on",
        "aclfile nosuch.acl\nuser a on",
        "user a on +nonsense",
        "user a on >secret +config|nope +nope",
        "user \"a b\" on",
    ] {
        // Redis looks at its users only once it listens.
        let port = free_port();
        fs::write(dir.join("users.conf"), format!("port {port}\n{lines}\n")).expect("write");
        let ours = last_words(&subject(), &["users.conf"], &dir);
        assert_eq!(ours, last_words(&real(), &["users.conf"], &dir), "{lines}");
        assert!(!ours.is_empty() && !ours.contains("secret"), "{lines}: {ours}");
    }
    fs::remove_dir_all(dir).expect("remove the folder");
}

/// The minus forgives that the machine has no such address, not that nobody knows the name.
#[test]
fn a_name_in_bind_must_be_known() {
    let dir = fresh_dir();
    let port = free_port().to_string();
    for program in [subject(), real()] {
        let words = last_words(&program, &["--port", &port, "--bind", "-", "127.0.0.1"], &dir).to_lowercase();
        let last = format!("# failed listening on port {port} (tcp), aborting.\n");
        assert!(words.ends_with(&last), "{}: {words}", program.display());
    }
    fs::remove_dir_all(dir).expect("remove the folder");
}

/// A server that has ended; its folder holds a file of 20,000 keys.
fn filled() -> Server {
    let mut server = Server::subject();
    server.connect().run("DEBUG POPULATE 20000 key 10");
    server.connect().ok("SAVE");
    server.kill();
    server
}

/// Starts a server that takes 20 seconds to load that file; its process and port.
fn load_slowly(program: &Path, filled: &Server, more: &[&str]) -> (Child, u16) {
    let port = free_port();
    let child = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--key-load-delay", "1000"])
        .args(["--loading-process-events-interval-bytes", "1024"])
        .args(more)
        .current_dir(filled.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("start the server");
    (child, port)
}

fn connect_soon(port: u16) -> Client {
    let mut client = None;
    wait_for("a connection", SOON, || {
        client = Client::try_connect(port).ok();
        client.is_some()
    });
    client.expect("a connection")
}

#[test]
fn a_signal_during_the_load_ends_the_start_and_keeps_the_file() {
    let filled = filled();
    let file = fs::read(filled.dir().join("dump.rdb")).expect("the file");
    for ending in ["TERM", "INT", "SHUTDOWN", "SHUTDOWN SAVE"] {
        let more = ["--save", "3600 1", "--pidfile", "node.pid", "--unixsocket", "node.sock"];
        let (mut child, port) = load_slowly(&subject(), &filled, &more);
        let mut client = connect_soon(port);
        assert_eq!(client.run("GET key:1").text(), "LOADING Redis is loading the dataset in memory");
        wait_for("it is under way", SOON, || client.info_int("loading_loaded_bytes") > 0);
        assert_eq!(client.info_int("loading_total_bytes"), file.len() as i64);
        if ending.starts_with("SHUTDOWN") {
            assert!(client.try_run(ending).is_err(), "{ending}: the connection closes without a reply");
        } else {
            let kill = Command::new("kill").arg(format!("-{ending}")).arg(child.id().to_string()).status();
            assert!(kill.is_ok_and(|status| status.success()));
        }
        wait_for("the end", SOON, || child.try_wait().expect("wait").is_some());
        assert_eq!(child.wait().expect("the status").code(), Some(0), "{ending}");
        assert!(fs::read(filled.dir().join("dump.rdb")).expect("the file") == file, "{ending}");
        for name in ["node.pid", "node.sock"] {
            assert!(!filled.dir().join(name).exists(), "{ending}: {name} is left");
        }
    }
}

#[test]
fn the_background_has_a_pid_file_a_log_and_an_orderly_end() {
    let dir = fresh_dir();
    let port = free_port();
    fs::write(
        dir.join("node.conf"),
        format!(
            "daemonize yes\nport {port}\nbind 127.0.0.1\nsave \"\"\ndir {}\npidfile node.pid\nlogfile node.log\n",
            dir.display()
        ),
    )
    .expect("write the file");
    // The parent leaves with success as soon as the child is on its own.
    let output = run(&subject(), &["node.conf"], &dir);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pid_file = dir.join("node.pid");
    let log = || fs::read_to_string(dir.join("node.log")).unwrap_or_default();
    wait_for("the server is ready", SOON, || log().contains("Ready to accept connections"));
    let pid: u32 = fs::read_to_string(&pid_file).expect("a pid file").trim().parse().expect("a number");
    let session = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = session.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(fields[3], pid.to_string(), "it leads a session of its own");
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/1")).expect("standard output"), Path::new("/dev/null"));
    assert_eq!(Client::connect(port).run("PING").text(), "PONG");
    let killed = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    wait_for("the process ends", SOON, || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(!pid_file.exists(), "{}", log());
    assert!(log().contains("Received SIGTERM scheduling shutdown..."), "{}", log());
    assert!(log().contains("bye bye..."), "{}", log());
    fs::remove_dir_all(dir).expect("remove the folder");
}

#[test]
fn systemd_is_told_about_the_start_and_the_end() {
    // Debian's redis-server is built with it, other builds may not be.
    if subject_is_real() {
        return;
    }
    let dir = fresh_dir();
    let socket = UnixDatagram::bind(dir.join("notify")).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a time limit");
    let mut child = Command::new(subject())
        // Under a supervisor the process stays where it is.
        .args(["--supervised", "auto", "--daemonize", "yes", "--save", "", "--bind", "127.0.0.1", "--port"])
        .arg(free_port().to_string())
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .current_dir(&dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("start the server");
    let until = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {word}: {e}"));
            if String::from_utf8_lossy(&buffer[..n]).lines().any(|line| line == word) {
                break;
            }
        }
    };
    until("READY=1");
    assert!(child.try_wait().expect("wait").is_none(), "it stays in the foreground");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    until("STOPPING=1");
    assert!(child.wait().expect("wait").success());
    fs::remove_dir_all(dir).expect("remove the folder");
}

/// While data are loaded most directives can be set; those that concern what is loaded, and from where, cannot.
#[test]
fn config_set_of_what_is_being_loaded_is_refused() {
    for program in [subject(), crate::common::server::real()] {
        let filled = filled();
        let (mut child, port) = load_slowly(&program, &filled, &["--enable-protected-configs", "yes"]);
        let mut client = connect_soon(port);
        wait_for("it is loading", SOON, || client.info("loading") == "1");
        for (command, reply) in [
            ("CONFIG SET appendonly yes", "-LOADING Redis is loading the dataset in memory"),
            ("CONFIG SET dir /tmp", "-LOADING Redis is loading the dataset in memory"),
            ("CONFIG SET repl-diskless-load swapdb", "-LOADING Redis is loading the dataset in memory"),
            // Nothing of it is taken.
            ("CONFIG SET maxmemory 1gb appendonly yes", "-LOADING Redis is loading the dataset in memory"),
            ("CONFIG GET maxmemory", r#"["maxmemory", "0"]"#),
            ("CONFIG SET maxmemory 1gb", "+OK"),
            ("CONFIG SET loglevel verbose", "+OK"),
        ] {
            client.expect(command, reply);
        }
        child.kill().expect("end the server");
        child.wait().expect("the status");
    }
}

/// While data are loaded, from either kind of file: who is answered, who is not, and what INFO says of it.
#[test]
fn what_is_answered_during_the_load() {
    const LOADING: &str = "-LOADING Redis is loading the dataset in memory";
    for (program, aof) in [(subject(), false), (crate::common::server::real(), false), (subject(), true)] {
        let filled = filled();
        let mut more = vec!["--appendonly", if aof { "yes" } else { "no" }];
        if aof {
            let commands = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n".repeat(20_000);
            fs::write(filled.dir().join("appendonly.aof"), commands).expect("write");
            more.extend(["--aof-use-rdb-preamble", "no"]);
        }
        let (mut child, port) = load_slowly(&program, &filled, &more);
        let mut client = connect_soon(port);
        wait_for("it is loading", SOON, || client.info_int("loading_loaded_bytes") > 0);
        assert_eq!(client.info_int("loading_rdb_used_mem") > 0, !aof, "{program:?}");
        for command in ["PING", "GET a", "EVAL return(1) 0", "SCRIPT EXISTS x", "BGREWRITEAOF", "SAVE"] {
            client.expect(command, LOADING);
        }
        for (command, reply) in [
            ("AUTH x y", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("CONFIG GET appendfsync", r#"["appendfsync", "everysec"]"#),
            ("PUBLISH channel x", ":0"),
            ("MULTI", "+OK"),
            ("GET a", LOADING),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
        ] {
            client.expect(command, reply);
        }
        let mut subscriber = connect_soon(port);
        subscriber.expect("SUBSCRIBE channel", r#"["subscribe", "channel", :1]"#);
        subscriber.expect("PING", LOADING);
        let refused = subscriber.run("GET a").to_string();
        assert!(refused.starts_with("-ERR Can't execute 'get': only (P|S)SUBSCRIBE"), "{refused}");
        child.kill().expect("end the server");
        child.wait().expect("the status");
    }
}

/// Two neighbours: a node that still loads takes no keys of others, which keep them, and gives none away.
#[test]
fn a_node_that_loads_takes_no_part_in_migrate() {
    for program in [subject(), crate::common::server::real()] {
        let filled = filled();
        let (mut child, port) = load_slowly(&program, &filled, &[]);
        let mut loads = connect_soon(port);
        wait_for("it is loading", SOON, || loads.info("loading") == "1");
        let source = Server::subject();
        let mut client = source.connect();
        client.ok("MSET a 1 b 2");
        let refused =
            "-ERR Target instance replied with error: LOADING Redis is loading the dataset in memory";
        client.expect(&format!("MIGRATE 127.0.0.1 {port} a 0 20000"), refused);
        client.expect(&format!("MIGRATE 127.0.0.1 {port} \"\" 0 20000 COPY KEYS a b"), refused);
        client.expect("MGET a b", r#"["1", "2"]"#);
        let away = format!("MIGRATE 127.0.0.1 {} key:1 0 20000", source.port);
        loads.expect(&away, "-LOADING Redis is loading the dataset in memory");
        client.expect("EXISTS key:1", ":0");
        child.kill().expect("end the server");
        child.wait().expect("the status");
    }
}
