//! Users and their rights across connections, files and links. What one connection sees of ACL stands in
//! `tests/sessions/acl.session`.

use std::fs;
use std::path::Path;

use crate::common::client::{Client, quoted};
use crate::common::server::{Launch, Server, fresh_dir, subject_is_real};
use crate::common::{SOON, wait_for};

const DENIED_KEY: &str = "-NOPERM No permissions to access a key";
const DENIED_CHANNEL: &str = "-NOPERM No permissions to access a channel";

/// A connection as a user whose password is `p`.
fn connect_as(server: &Server, user: &str) -> Client {
    let mut client = server.connect();
    client.ok(&format!("AUTH {user} p"));
    client
}

/// Runs a line that is refused. 7.0 has other words for it.
#[track_caller]
fn denied(client: &mut Client, line: &str, reply: &str) {
    let got = client.run(line).to_string();
    let told = if subject_is_real() { got.starts_with("-NOPERM ") } else { got == reply };
    assert!(told, "{line}: {got}");
}

fn is_closed(client: &mut Client) -> bool {
    client.set_read_timeout(SOON);
    client.closed()
}

#[test]
fn users_of_the_guides() {
    let server = Server::subject();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER readonly on >p ~* &* +@read");
    admin.ok("ACL SETUSER appuser on >p ~app:* &* +@read +@write -@dangerous");
    admin.ok("SET app:1 v");
    let mut reader = connect_as(&server, "readonly");
    reader.expect("GET app:1", "\"v\"");
    denied(&mut reader, "SET app:1 x", "-NOPERM User readonly has no permissions to run the 'set' command");
    let mut app = connect_as(&server, "appuser");
    app.ok("SET app:1 w");
    denied(&mut app, "GET other", DENIED_KEY);
    denied(&mut app, "FLUSHALL", "-NOPERM User appuser has no permissions to run the 'flushall' command");
    admin.ok("ACL SETUSER default off");
    // Clients that are connected stay; new ones must log in.
    admin.expect("PING", "+PONG");
    let mut new = server.connect();
    new.expect("PING", "-NOAUTH Authentication required.");
    new.expect("AUTH x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?");
    new.expect("AUTH default x", "-WRONGPASS invalid username-password pair or user is disabled.");
    new.ok("AUTH appuser p");
    new.expect("RESET", "+RESET");
    new.expect("PING", "-NOAUTH Authentication required.");
    admin.ok("ACL SETUSER default on");
    admin.expect("RESET", "+RESET");
    admin.expect("PING", "+PONG");
}

/// Each path by which a command comes to run, with a user who may touch `a:*` only.
#[test]
fn rights_hold_on_every_path() {
    let server = Launch::subject().args(&["--rename-command", "GETDEL", "fetch"]).start();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p ~a:* %R~r:* %W~w:* +@all -getdel");
    admin.run("RPUSH a:list 2 1");
    admin.run("FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function(keys, args) return redis.call('GET', args[1]) end)\"");
    let mut user = connect_as(&server, "u");
    for (line, reply) in [
        (
            "EVAL \"return redis.call('GET', 'b')\" 0",
            "ERR ACL failure in script: No permissions to access a key script: ab12, on @user_script:1.",
        ),
        (
            "EVAL \"return redis.pcall('GET', 'b')\" 0",
            "ERR ACL failure in script: No permissions to access a key",
        ),
        (
            "FCALL f 0 b",
            "ERR ACL failure in script: No permissions to access a key script: f, on @user_function:1.",
        ),
    ] {
        let got = user.run(line).text();
        // Names of scripts are their hashes.
        let words = |text: &str| text.split(" script:").next().map(str::to_owned);
        if subject_is_real() {
            assert!(got.contains("can't access at least one of the keys"), "{line}: {got}");
        } else {
            assert_eq!(words(&got), words(reply), "{line}: {got}");
        }
    }
    for (line, reply) in [
        ("EVAL \"return 1\" 1 b", DENIED_KEY),
        ("EVAL \"return 1\" 1 r:1", DENIED_KEY),
        ("EVAL_RO \"return 1\" 1 r:1", ":1"),
        ("EVAL \"return 1\" x b", "-ERR value is not an integer or out of range"),
        ("FCALL f 1 b a:1", DENIED_KEY),
        ("FCALL f 0 a:1", "nil"),
        // SORT looks at keys that nobody names.
        ("SORT a:list BY x_*", "-ERR BY option of SORT denied due to insufficient ACL permissions."),
        ("SORT a:list GET x", "-ERR GET option of SORT denied due to insufficient ACL permissions."),
        ("SORT a:list GET #", "-ERR GET option of SORT denied due to insufficient ACL permissions."),
        ("SORT a:list BY nosort", "[\"2\", \"1\"]"),
        ("SORT a:list STORE b", DENIED_KEY),
        ("SORT a:list STORE r:1", DENIED_KEY),
        ("SORT a:list STORE w:1", ":2"),
        // Keys whose places or uses depend on other words.
        ("MIGRATE 127.0.0.1 1 \"\" 0 10 KEYS a:1 b", DENIED_KEY),
        ("MIGRATE 127.0.0.1 1 b 0 10", DENIED_KEY),
        ("MIGRATE 127.0.0.1 1 a:none 0 10", "+NOKEY"),
        ("SET w:1 v", "+OK"),
        ("SET w:1 v GET", DENIED_KEY),
        ("SET w:1 get", "+OK"),
        ("SET r:1 v", DENIED_KEY),
        ("BITFIELD r:1 GET u8 0", "[:0]"),
        ("BITFIELD r:1 GET u8 set", "-ERR bit offset is not an integer or out of range"),
        ("BITFIELD r:1 SET u8 0 1", DENIED_KEY),
        ("XREAD STREAMS a:s b 0 0", DENIED_KEY),
        ("GEORADIUS a:g 0 0 1 m STORE b", DENIED_KEY),
        ("ZUNIONSTORE a:z 2 a:1 b", DENIED_KEY),
        ("ZUNIONSTORE a:z 9 a:1 b", "-ERR syntax error"),
        ("COPY r:1 w:2", ":0"),
        ("COPY w:1 r:2", DENIED_KEY),
        ("OBJECT ENCODING b", DENIED_KEY),
        ("WATCH b", DENIED_KEY),
        ("LMPOP 2 a:none b LEFT", DENIED_KEY),
        ("PUBLISH ch x", DENIED_CHANNEL),
        ("SPUBLISH ch x", DENIED_CHANNEL),
        ("SSUBSCRIBE ch", DENIED_CHANNEL),
        ("SUBSCRIBE ch", DENIED_CHANNEL),
        ("PSUBSCRIBE *", DENIED_CHANNEL),
        ("UNSUBSCRIBE ch", "[\"unsubscribe\", \"ch\", :0]"),
        // Rights speak of what a command was called before it was renamed.
        ("FETCH a:1", "-NOPERM User u has no permissions to run the 'getdel' command"),
    ] {
        if reply.starts_with("-NOPERM") {
            denied(&mut user, line, reply);
        } else {
            user.expect(line, reply);
        }
    }
}

/// In a transaction each command runs as whoever the connection is by then.
#[test]
fn a_transaction_may_change_its_user() {
    let server = Server::subject();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p ~a:* +@all -@dangerous");
    let mut client = server.connect();
    client.ok("MULTI");
    for line in
        ["SET b 1", "AUTH u p", "SET b 2", "EVAL \"return redis.pcall('SET', 'b', 3)\" 0", "SET a:1 4"]
    {
        client.expect(line, "+QUEUED");
    }
    let replies = client.run("EXEC");
    let texts: Vec<String> = replies.items().iter().map(crate::common::client::Reply::text).collect();
    assert_eq!((&*texts[0], &*texts[1], &*texts[4]), ("OK", "OK", "OK"), "{texts:?}");
    assert!(texts[2].starts_with("NOPERM "), "{texts:?}");
    assert!(texts[3].contains("ACL failure in script") || subject_is_real(), "{texts:?}");
    admin.expect("GET b", "\"1\"");
}

#[test]
fn a_command_that_has_no_name_any_more_may_still_be_spoken_of() {
    let server = Launch::subject()
        .args(&["--rename-command", "CONFIG", "cfg", "--rename-command", "DEBUG", ""])
        .start();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u +config|get +debug");
    admin.expect(
        "ACL SETUSER u +cfg",
        "-ERR Error in ACL SETUSER modifier '+cfg': Unknown command or category name in ACL",
    );
    let shown = admin.run("ACL GETUSER u").to_string();
    assert!(shown.contains("+config|get") && shown.contains("+debug"), "{shown}");
    let dangerous = admin.run("ACL CAT dangerous").to_string();
    assert!(dangerous.contains("\"debug\"") && dangerous.contains("\"config|set\""), "{dangerous}");
    assert!(admin.run("DEBUG SLEEP 0").text().starts_with("ERR unknown command 'DEBUG'"));
    assert!(!admin.run("COMMAND LIST").to_string().contains("\"debug\""));
}

#[test]
fn a_blocked_client_whose_rights_go_is_refused_when_it_would_be_served() {
    let server = Server::subject();
    if subject_is_real() {
        // 7.2 and later ask again.
        return;
    }
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p ~* +@all");
    let mut user = connect_as(&server, "u");
    for (rule, answer) in [
        ("-blpop", "-NOPERM User u has no permissions to run the 'blpop' command"),
        ("resetkeys", DENIED_KEY),
    ] {
        user.send(&["BLPOP", "list", "0"]);
        wait_for("it is blocked", SOON, || admin.info_int("blocked_clients") == 1);
        admin.ok(&format!("ACL SETUSER u {rule}"));
        admin.expect("RPUSH list x", ":1");
        assert_eq!(user.read().to_string(), answer);
        admin.expect("LPOP list", "\"x\"");
        admin.expect("CLIENT NO-TOUCH OFF", "+OK");
        admin.ok("ACL SETUSER u +@all");
    }
    user.expect("PING", "+PONG");
}

#[test]
fn whoever_is_deleted_is_gone_whatever_it_does() {
    let server = Server::subject();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p allkeys allchannels +@all");
    admin.ok("ACL SETUSER other on >p allkeys allchannels +@all");
    let mut clients: Vec<Client> = (0..5).map(|_| connect_as(&server, "u")).collect();
    let mut other = connect_as(&server, "other");
    clients[0].send(&["BLPOP", "list", "0"]);
    clients[1].run("SUBSCRIBE ch");
    clients[2].ok("MULTI");
    clients[3].run("HELLO 3");
    wait_for("it is blocked", SOON, || admin.info_int("blocked_clients") == 1);
    admin.expect("ACL DELUSER u nosuch", ":1");
    for (at, client) in clients.iter_mut().enumerate() {
        assert!(is_closed(client), "client {at}");
    }
    other.expect("PING", "+PONG");
    admin.expect("ACL USERS", "[\"default\", \"other\"]");
    // Who deletes itself still hears of it.
    other.expect("ACL DELUSER other", ":1");
    assert!(is_closed(&mut other));
    admin.expect("ACL DELUSER default", "-ERR The 'default' user cannot be removed");
    // A new user of the same name is another one.
    admin.ok("ACL SETUSER u on >p");
    denied(
        &mut connect_as(&server, "u"),
        "GET x",
        "-NOPERM User u has no permissions to run the 'get' command",
    );
}

#[test]
fn listeners_go_when_their_channels_do() {
    let server = Server::subject();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p +@all resetchannels &a &b &p* &s");
    let mut clients: Vec<Client> = (0..6).map(|_| connect_as(&server, "u")).collect();
    for (client, line) in clients.iter_mut().zip([
        "SUBSCRIBE a",
        "SUBSCRIBE b",
        "PSUBSCRIBE p*",
        "SSUBSCRIBE s",
        "SUBSCRIBE pen",
        "PING",
    ]) {
        client.run(line);
    }
    // More rights cost nobody anything, nor does being off.
    admin.ok("ACL SETUSER u &more off");
    admin.ok("ACL SETUSER u resetchannels &a &pe*");
    for (at, gone) in [(1, true), (2, true), (3, true)] {
        assert_eq!(is_closed(&mut clients[at]), gone, "client {at}");
    }
    admin.expect("PUBLISH a x", ":1");
    assert_eq!(clients[0].read().to_string(), "[\"message\", \"a\", \"x\"]");
    admin.expect("PUBLISH pen x", ":1");
    assert_eq!(clients[4].read().to_string(), "[\"message\", \"pen\", \"x\"]");
    clients[5].expect("PING", "+PONG");
    assert!(connectable(&server, "u").is_none(), "it is off");
}

/// A connection as a user, if that may log in.
fn connectable(server: &Server, user: &str) -> Option<Client> {
    let mut client = server.connect();
    (client.run(&format!("AUTH {user} p")).text() == "OK").then_some(client)
}

fn write_file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("write a file");
    path.to_str().expect("a path").to_owned()
}

/// A `*` stands for a text that is not empty, for keys and for channels.
#[test]
fn an_empty_key_matches_the_empty_pattern_alone() {
    let server = Server::subject();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p +@all %R~* &**");
    let mut u = connect_as(&server, "u");
    u.expect("GET a", "nil");
    denied(&mut u, "GET \"\"", DENIED_KEY);
    denied(&mut u, "PUBLISH \"\" x", DENIED_CHANNEL);
    for (rules, is_allowed) in [("~**", false), ("%R~[^a]*", false), ("~", true), ("~*", true)] {
        admin.ok(&format!("ACL SETUSER u resetkeys {rules}"));
        if is_allowed {
            u.expect("GET \"\"", "nil");
        } else {
            denied(&mut u, "GET \"\"", DENIED_KEY);
        }
    }
    admin.ok("MSET \"\" v x v");
    admin.expect("KEYS **", "[\"x\"]");
    admin.expect("SCAN 0 MATCH **", "[\"0\", [\"x\"]]");
    u.ok("AUTH default p");
    u.run("PSUBSCRIBE *");
    admin.expect("PUBLISH \"\" x", ":0");
}

#[test]
fn a_file_of_users_is_loaded_as_a_whole_or_not_at_all() {
    let dir = fresh_dir();
    let users = "user default on >admin ~* &* +@all\n\nuser u on >p ~a* +@all\nuser v on >p +@all &ch\n";
    let file = write_file(&dir, "users.acl", users);
    let mut server = Launch::subject().dir(&dir).args(&["--aclfile", &file]).start();
    let mut admin = server.connect();
    admin.expect("PING", "-NOAUTH Authentication required.");
    admin.ok("AUTH admin");
    let (mut u, mut v) = (connect_as(&server, "u"), connect_as(&server, "v"));
    v.run("SUBSCRIBE ch");
    denied(&mut u, "GET b", DENIED_KEY);
    // A mistake leaves everything as it was.
    write_file(&dir, "users.acl", "user u on nopass ~* +@all\nuser w +nosuch\nuser x on >secret y\n");
    let error = admin.run("ACL LOAD").text();
    for part in [
        "users.acl:2: Error in applying operation '+nosuch': Unknown command or category name in ACL. ",
        "users.acl:3: Syntax error. ",
        "WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("secret"), "{error}");
    denied(&mut u, "GET b", DENIED_KEY);
    admin.expect("ACL USERS", "[\"default\", \"u\", \"v\"]");
    // Whose user stays, stays connected, with its new rights.
    write_file(&dir, "users.acl", "user default on >admin ~* &* +@all\nuser u on >p ~b* +@all\n");
    admin.ok("ACL LOAD");
    if !subject_is_real() {
        // 7.2 and later look which clients are concerned.
        u.expect("GET b", "nil");
        denied(&mut u, "GET a", DENIED_KEY);
    }
    assert!(is_closed(&mut v));
    admin.ok("ACL SETUSER new on >p (+get ~x) allchannels");
    let listed = admin.run("ACL LIST").to_string();
    admin.ok("ACL SAVE");
    server.kill();
    server.start_again();
    let mut admin = server.connect();
    admin.ok("AUTH admin");
    assert_eq!(admin.run("ACL LIST").to_string(), listed);
    // A file that says nothing of the default user leaves it open, as if nothing had been said.
    write_file(&dir, "users.acl", "user u on >p ~b* +@all\n");
    admin.ok("ACL LOAD");
    server.connect().expect("PING", "+PONG");
    fs::remove_file(&file).expect("remove the file");
    let error = admin.run("ACL LOAD").text();
    assert!(error.starts_with("ERR Error loading ACLs, opening file '"), "{error}");
    drop(server);
    fs::remove_dir_all(dir).expect("remove the folder");
}

#[test]
fn requirepass_tells_the_password_that_is_asked_for() {
    if subject_is_real() {
        // It goes on to tell what was once set.
        return;
    }
    let dir = fresh_dir();
    let file = write_file(&dir, "users.acl", "user u on >p +@all\n");
    let server = Launch::subject().dir(&dir).args(&["--aclfile", &file, "--requirepass", "unused"]).start();
    let mut client = server.connect();
    client.expect("CONFIG GET requirepass", "[\"requirepass\", \"\"]");
    assert!(server.log().contains("requirepass has no effect"), "{}", server.log());
    client.ok("CONFIG SET requirepass unused");
    client.expect("CONFIG GET requirepass", "[\"requirepass\", \"unused\"]");
    server.connect().expect("PING", "-NOAUTH Authentication required.");
    client.ok("ACL SETUSER default resetpass >other");
    client.expect("CONFIG GET requirepass", "[\"requirepass\", \"\"]");
    server.connect().ok("AUTH other");
    client.ok("CONFIG SET requirepass \"\"");
    server.connect().expect("PING", "+PONG");
    drop(server);
    fs::remove_dir_all(dir).expect("remove the folder");
}

#[test]
fn users_are_written_to_the_configuration_and_read_again() {
    let dir = fresh_dir();
    let file = write_file(&dir, "node.conf", "# mine\nuser old on >p ~o* +get\nrequirepass first\n");
    let mut server = Launch::subject().dir(&dir).file(Path::new(&file)).start();
    let mut admin = server.connect();
    admin.ok("AUTH first");
    admin.ok("ACL SETUSER new on >p ~n* resetchannels &c (+set ~s*) +@read -mget");
    admin.run("ACL DELUSER old");
    admin.ok("CONFIG SET requirepass second");
    let listed = admin.run("ACL LIST").to_string();
    admin.ok("CONFIG REWRITE");
    let text = fs::read_to_string(&file).expect("the file");
    assert!(text.starts_with("# mine\nuser default on "), "{text}");
    assert!(!text.contains("user old") && text.contains("user new on "), "{text}");
    server.kill();
    server.start_again();
    let mut admin = server.connect();
    admin.ok("AUTH second");
    if !subject_is_real() {
        // 7.0 writes rules about commands anew each time.
        assert_eq!(admin.run("ACL LIST").to_string(), listed);
    }
    admin.expect("CONFIG GET requirepass", "[\"requirepass\", \"second\"]");
    drop(server);
    fs::remove_dir_all(dir).expect("remove the folder");
}

#[test]
fn passwords_are_told_nowhere() {
    let server = Server::subject();
    let mut admin = server.connect();
    let mut monitor = server.connect();
    monitor.ok("MONITOR");
    admin.ok("CONFIG SET slowlog-log-slower-than 0 loglevel debug");
    admin.ok("ACL SETUSER u on >hidden-1 #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b +@all ~*");
    let mut user = server.connect();
    user.ok("AUTH u hidden-1");
    user.run("HELLO 3 AUTH u hidden-1 SETNAME me");
    user.expect("AUTH u hidden-2", "-WRONGPASS invalid username-password pair or user is disabled.");
    user.run("HELLO 3 AUTH u hidden-2");
    user.run("AUTH hidden-3");
    user.run("MIGRATE 127.0.0.1 1 none 0 10 AUTH hidden-4");
    user.run("MIGRATE 127.0.0.1 1 none 0 10 AUTH2 u hidden-4");
    admin.run("ACL SETUSER u <hidden-5");
    admin.run("CONFIG SET requirepass hidden-6 masterauth hidden-6 masteruser hidden-6");
    admin.run("CONFIG SET requirepass \"\"");
    admin.expect("ECHO end", "\"end\"");
    let mut told = String::new();
    for line in ["SLOWLOG GET -1", "CLIENT LIST", "ACL LOG", "INFO everything"] {
        told += &admin.run(line).to_string();
    }
    while !told.contains("\\\"end\\\"") {
        told += &quoted(monitor.read().text().as_bytes());
    }
    told += &server.log();
    assert!(told.contains("(redacted)"), "something was told at all");
    assert!(!told.contains("hidden-"), "{told}");
    assert!(!told.contains("2bb80d537b1da3e38"), "{told}");
}

#[test]
fn a_start_that_fails_for_a_user_shows_no_password() {
    if subject_is_real() {
        // It shows the whole line.
        return;
    }
    let dir = fresh_dir();
    for (line, error) in [
        ("user u on >hidden oops", "Error in user declaration 'u': Syntax error"),
        (
            "user u on >hidden (+get",
            "Error in user declaration 'u': Unmatched parenthesis in selector definition.",
        ),
        (
            "user u >hidden\nuser u >hidden",
            "Error in user declaration 'u': Duplicate user found. A user can only be defined once in config files",
        ),
        ("user \"a b\" >hidden", "Spaces not allowed in ACL usernames"),
        (
            "user u >hidden +nosuch",
            "Error loading ACL rule '+nosuch' for the user named 'u': Unknown command",
        ),
    ] {
        let file = write_file(&dir, "bad.conf", line);
        let program = crate::common::server::subject();
        let output = std::process::Command::new(program).arg(&file).current_dir(&dir).output().expect("run");
        let text = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
        assert!(!output.status.success() && text.contains(error), "{line}: {text}");
        assert!(!text.contains("hidden"), "{text}");
    }
    fs::remove_dir_all(dir).expect("remove the folder");
}

#[test]
fn new_users_have_the_channels_of_the_configuration() {
    let server = Launch::subject().args(&["--acl-pubsub-default", "allchannels"]).start();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p +@all");
    connect_as(&server, "u").expect("PUBLISH x y", ":0");
    admin.ok("CONFIG SET acl-pubsub-default resetchannels");
    admin.ok("ACL SETUSER v on >p +@all");
    denied(&mut connect_as(&server, "v"), "PUBLISH x y", DENIED_CHANNEL);
    admin.ok("ACL SETUSER u reset on >p +@all");
    denied(&mut connect_as(&server, "u"), "PUBLISH x y", DENIED_CHANNEL);
}

#[test]
fn the_log_of_refusals_has_a_limit() {
    let server = Launch::subject().args(&["--acllog-max-len", "3"]).start();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p +get ~a");
    let mut user = connect_as(&server, "u");
    for key in ["k1", "k2", "k3", "k4", "k1", "k1"] {
        denied(&mut user, &format!("GET {key}"), DENIED_KEY);
    }
    let log = admin.run("ACL LOG").to_string();
    assert_eq!(log.matches("\"reason\"").count(), 3, "{log}");
    assert!(
        log.starts_with(
            "[[\"count\", :2, \"reason\", \"key\", \"context\", \"toplevel\", \"object\", \"k1\""
        ),
        "{log}"
    );
    if subject_is_real() {
        // 7.2 and later count, and keep nothing when the limit is 0.
        return;
    }
    assert_eq!(admin.info("acl_access_denied_key"), "6");
    admin.ok("CONFIG SET acllog-max-len 0");
    denied(&mut user, "GET k9", DENIED_KEY);
    assert_eq!(admin.info("acl_access_denied_key"), "7");
    admin.expect("ACL LOG 100", "[]");
    admin.ok("CONFIG RESETSTAT");
    assert_eq!(admin.info("acl_access_denied_key"), "0");
}

/// A client that hears of all keys with some beginning hears of those only that it may read. Redis tells it of all.
#[test]
fn who_tracks_hears_of_no_key_that_it_may_not_read() {
    if subject_is_real() {
        return;
    }
    let server = Server::subject();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p ~a:* %W~w:* +@all");
    let mut user = connect_as(&server, "u");
    user.run("HELLO 3");
    user.ok("CLIENT TRACKING ON BCAST");
    for key in ["b:1", "w:1", "a:1"] {
        admin.ok(&format!("SET {key} v"));
    }
    assert_eq!(user.read().to_string(), "push [\"invalidate\", [\"a:1\"]]");
    admin.ok("ACL SETUSER u resetkeys ~b:*");
    for key in ["a:2", "b:2"] {
        admin.ok(&format!("SET {key} v"));
    }
    assert_eq!(user.read().to_string(), "push [\"invalidate\", [\"b:2\"]]");
    user.ok("AUTH default x");
    admin.ok("SET a:3 v");
    assert_eq!(user.read().to_string(), "push [\"invalidate\", [\"a:3\"]]");
}

#[test]
fn a_replica_logs_in_as_a_user_and_goes_with_it() {
    let primary = Server::subject();
    let mut p = primary.connect();
    p.ok("ACL SETUSER replica on >p +psync +replconf +ping");
    p.ok("CONFIG SET requirepass admin");
    p.ok("SET k v");
    let replica = Launch::subject()
        .args(&["--masteruser", "replica", "--masterauth", "p"])
        .args(&["--replicaof", "127.0.0.1", &primary.port.to_string()])
        .start();
    let mut r = replica.connect();
    wait_for("it follows", SOON, || r.info("master_link_status") == "up");
    r.expect("GET k", "\"v\"");
    p.ok("SET k w");
    wait_for("it goes on", SOON, || r.run("GET k").text() == "w");
    p.expect("ACL DELUSER replica", ":1");
    wait_for("its link goes with its user", SOON, || {
        p.info("connected_slaves") == "0" && r.info("master_link_status") == "down"
    });
    p.ok("ACL SETUSER replica on >p +psync +replconf +ping");
    wait_for("it comes again", SOON, || r.info("master_link_status") == "up");
}

/// Rights of a user hold while it is changed on one connection and used on others.
#[test]
fn no_command_runs_under_rights_that_are_gone() {
    let server = Launch::subject().args(&["--io-threads", "2"]).start();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p allkeys allchannels +@all");
    let mut users: Vec<Client> = (0..8).map(|_| connect_as(&server, "u")).collect();
    for round in 0..50 {
        admin.ok("ACL SETUSER u -set");
        for (at, user) in users.iter_mut().enumerate() {
            let reply = user.run("SET k v").text();
            assert!(reply.starts_with("NOPERM"), "round {round}, client {at}: {reply}");
        }
        admin.ok("ACL SETUSER u +@all");
        for user in &mut users {
            user.ok("SET k v");
        }
    }
}

/// CLIENT KILL and CLIENT LIST know users.
#[test]
fn clients_are_known_by_their_users() {
    let server = Server::subject();
    let mut admin = server.connect();
    admin.ok("ACL SETUSER u on >p +@all");
    let (mut a, mut b) = (connect_as(&server, "u"), connect_as(&server, "u"));
    let listed = admin.run("CLIENT LIST").text();
    assert_eq!(listed.matches("user=u ").count(), 2, "{listed}");
    admin.expect("CLIENT KILL USER u", ":2");
    let help = admin.run("ACL HELP");
    assert!(help.items().len() > 24, "{help}");
    assert!(is_closed(&mut a) && is_closed(&mut b));
}

/// What is in each category, as Redis 7.4.1 has it.
#[test]
fn categories_hold_what_they_hold_in_redis() {
    if subject_is_real() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/facts/acl-cat-redis-7.4.1.tsv");
    let facts = fs::read_to_string(path).expect("read the facts");
    let server = Server::subject();
    let mut client = server.connect();
    let commands = client.run("COMMAND LIST");
    let known: Vec<String> = commands.items().iter().map(crate::common::client::Reply::text).collect();
    let mut categories = 0;
    for line in facts.lines() {
        let (category, commands) = line.split_once('\t').expect("a category and its commands");
        let mut theirs: Vec<&str> = commands.split([' ', ',']).filter(|name| !name.is_empty()).collect();
        theirs.retain(|name| known.iter().any(|known| known == name));
        theirs.sort_unstable();
        let reply = client.run(&format!("ACL CAT {category}"));
        let mut ours: Vec<String> = reply.items().iter().map(crate::common::client::Reply::text).collect();
        ours.sort_unstable();
        assert_eq!(ours, theirs, "{category}");
        categories += 1;
    }
    assert_eq!(categories, 21);
}

/// What guards a node without users: which of its commands are there, and who may use the dangerous ones.
#[test]
fn dangerous_commands_are_for_those_who_are_allowed() {
    let told = |server: &Server, line: &str| server.connect().run(line).text();
    let server = Launch::subject().args(&["--enable-debug-command", "no"]).start();
    for (line, name) in
        [("MODULE LOAD /x", "MODULE"), ("MODULE UNLOAD x", "MODULE"), ("DEBUG SLEEP 0", "DEBUG")]
    {
        let option = name.to_lowercase();
        let text = format!(
            "ERR {name} command not allowed. If the enable-{option}-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server."
        );
        assert_eq!(told(&server, line), text, "{line}");
    }
    assert_eq!(told(&server, "MODULE LIST"), "[]");
    assert_eq!(
        told(&server, "CONFIG SET dbfilename x.rdb"),
        "ERR CONFIG SET failed (possibly related to argument 'dbfilename') - can't set protected config"
    );
    let server = Launch::subject()
        .args(&["--enable-module-command", "local", "--enable-protected-configs", "local"])
        .start();
    assert!(told(&server, "MODULE LOAD /x").starts_with("ERR Error loading the extension."));
    assert_eq!(told(&server, "MODULE UNLOAD x"), "ERR Error unloading module: no such module with that name");
    assert_eq!(told(&server, "CONFIG SET dbfilename x.rdb"), "OK");
}

#[test]
fn addresses_may_be_of_both_families_and_may_be_missing() {
    // An address that no machine has is forgiven behind `-` only.
    let server = Launch::subject().args(&["--bind", "127.0.0.1", "-192.0.2.77", "-::1"]).start();
    server.connect().expect("PING", "+PONG");
    if let Ok(mut stream) = std::net::TcpStream::connect(("::1", server.port)) {
        use std::io::{Read, Write};
        stream.write_all(b"PING\r\n").expect("send");
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
        // A client of this machine that comes by the other family is no stranger.
        let listed = server.connect().run("CLIENT LIST").text();
        assert!(listed.contains("addr=[::1]:"), "{listed}");
    }
    let program = crate::common::server::subject();
    let port = crate::common::server::free_port().to_string();
    let output = std::process::Command::new(program)
        .args(["--port", &port, "--bind", "127.0.0.1", "192.0.2.77"])
        .output()
        .expect("run");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("192.0.2.77"), "{output:?}");
}

#[test]
fn the_unix_socket_has_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let dir = fresh_dir();
    let path = dir.join("s.sock");
    let socket = path.to_str().expect("a path");
    let server = Launch::subject().args(&["--unixsocket", socket, "--unixsocketperm", "700"]).start();
    server.connect().expect("PING", "+PONG");
    let mode = fs::metadata(&path).expect("the socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    drop(server);
    fs::remove_dir_all(dir).expect("remove the folder");
}
