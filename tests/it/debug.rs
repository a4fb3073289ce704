//! DEBUG words that people and suites use, beside a real Redis where it has them.

use std::io::Read;

use crate::common::client::{Client, Reply};
use crate::common::server::{Launch, Server, fresh_dir, subject_is_real};
use crate::common::{SOON, wait_for};

#[test]
fn tables_are_described_in_redis_form() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("DEBUG POPULATE 1000");
    client.run("EXPIRE key:1 1000");
    let text = client.run("DEBUG HTSTATS 0").text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["[Dictionary HT]", "Hash table 0 stats (main hash table):"]);
    assert!(lines[2].starts_with(" table size: "), "{text}");
    assert_eq!(
        lines[3..],
        [
            " number of elements: 1000",
            "[Expires HT]",
            "Hash table 0 stats (main hash table):",
            " table size: 1",
            " number of elements: 1",
        ]
    );
    let text = client.run("DEBUG HTSTATS 9").text();
    assert_eq!(text.matches("No stats available for empty dictionaries").count(), 2, "{text}");
    for (kind, add) in [("s", "SADD s m"), ("h", "HSET h m"), ("z", "ZADD z 1 m")] {
        let value = |i: usize| if kind == "h" { format!("{add}{i} v") } else { format!("{add}{i}") };
        client.pipeline(&(0..1000).map(value).collect::<Vec<_>>());
        let Some(rest) = client.try_run(&format!("DEBUG HTSTATS-KEY {kind} FULL")).ok() else { panic!() };
        let text = rest.text();
        for part in [
            " number of elements: 1000\n different slots: ",
            "\n max chain length: ",
            "\n avg chain length (counted): ",
            "\n avg chain length (computed): ",
            "\n Chain length distribution:\n   ",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let counted: f64 = text
            .lines()
            .filter_map(|line| line.strip_prefix("   ")?.split_once(": "))
            .map(|(length, rest)| {
                let count = rest.split(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a count");
                length.parse::<f64>().expect("a length") * count
            })
            .sum();
        assert!((counted - 1000.0).abs() < 0.5, "{text}");
    }
}

#[test]
fn what_has_no_meaning_here_is_refused_with_the_reason() {
    let server = Server::subject();
    let mut client = server.connect();
    let help = client.run("DEBUG HELP").to_string();
    for words in ["CLIENT-ENFORCE-REPLY-LIST 1", "CRASH-AND-RECOVER", "RESTART 100", "STRUCTSIZE"] {
        let reply = client.run(&format!("DEBUG {words}")).to_string();
        assert!(reply.starts_with("-ERR Not supported: "), "{words}: {reply}");
        assert!(help.contains(words.split(' ').next().expect("a word")), "{words}");
    }
}

#[test]
fn the_server_can_be_crashed_in_several_ways() {
    for (word, said) in [("ASSERT", "called by DEBUG ASSERT"), ("OOM", "memory allocation of")] {
        let mut server = Server::subject();
        server.connect().send(&["DEBUG", word]);
        server.wait_exit();
        assert!(server.log().contains(said), "{word}: {}", server.log());
    }
}

#[test]
fn replicate_tells_replicas_what_did_not_happen_here() {
    let (primary, replica) = (Server::subject(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
    p.ok("DEBUG REPLICATE SET k v");
    wait_for("the replica has it", SOON, || r.run("EXISTS k").int() == 1);
    p.expect("EXISTS k", ":0");
}

#[test]
fn tables_stay_as_they_are_while_resizing_is_off() {
    fn buckets(client: &mut Client) -> u64 {
        let text = client.run("DEBUG HTSTATS 0").text();
        let size = text.lines().find_map(|line| line.strip_prefix(" table size: ")).expect("a size");
        size.parse().expect("a number")
    }
    let keys = |from: usize| (from..from + 1000).map(|i| format!("SET {{tag}}{i} v")).collect::<Vec<_>>();
    let server = Server::subject();
    let mut client = server.connect();
    client.pipeline(&keys(0));
    let before = buckets(&mut client);
    client.ok("DEBUG DICT-RESIZING 0");
    client.pipeline(&keys(1000));
    assert_eq!(buckets(&mut client), before);
    client.expect("DBSIZE", ":2000");
    client.expect("GET {tag}1999", "\"v\"");
    client.ok("DEBUG DICT-RESIZING 1");
    client.pipeline(&keys(2000));
    assert!(buckets(&mut client) > before);
}

#[test]
fn texts_of_the_allocator_can_be_read() {
    let server = Server::subject();
    let mut client = server.connect();
    assert!(client.run("DEBUG MALLCTL-STR version").text().starts_with('5'));
    assert!(client.run("DEBUG MALLCTL-STR nosuch").text().starts_with("ERR "));
    client.ok("DEBUG LEAK 'some text'");
}

#[test]
fn reload_keeps_merges_or_refuses() {
    for launch in [Launch::subject(), Launch::real()] {
        let mut server = launch.start();
        let mut client = server.connect();
        client.run("MSET a file b file");
        client.ok("SAVE");
        client.run("MSET a memory c memory");
        // What is there goes, unless it is said otherwise.
        client.ok("DEBUG RELOAD NOSAVE");
        client.expect("MGET a b c", r#"["file", "file", nil]"#);
        client.run("MSET a memory c memory");
        client.ok("DEBUG RELOAD NOSAVE NOFLUSH MERGE");
        client.expect("MGET a b c", r#"["file", "file", "memory"]"#);
        client.run("DEL a b");
        client.ok("DEBUG RELOAD NOFLUSH NOSAVE");
        client.expect("MGET a b c", r#"["file", "file", "memory"]"#);
        // Without MERGE a key that is there already ends the server.
        client.send(&["DEBUG", "RELOAD", "NOSAVE", "NOFLUSH"]);
        assert!(!server.wait_exit().success());
        assert!(server.log().contains("RDB has duplicated key"), "{}", server.log());
    }
}

#[test]
fn long_elements_stand_alone_from_the_threshold_on() {
    let nodes = |launch: Launch| {
        // Small nodes, so that the list is made of several from the start.
        let server = launch.args(&["--list-max-listpack-size", "10"]).start();
        let mut client = server.connect();
        let mut seen = Vec::new();
        for threshold in ["200b", "0"] {
            client.ok(&format!("DEBUG QUICKLIST-PACKED-THRESHOLD {threshold}"));
            client.run("DEL l");
            for i in 0..600 {
                let length = if i % 100 == 50 { 300 } else { 20 };
                client.cmd(&["RPUSH", "l", &"e".repeat(length)]);
            }
            let text = client.run("DEBUG OBJECT l").text();
            let field = text.split(' ').find_map(|field| field.strip_prefix("ql_nodes:"));
            seen.push(field.expect("the number of nodes").parse::<usize>().expect("a number"));
        }
        for wrong in ["abc", "4gb", "-1"] {
            client.expect(
                &format!("DEBUG QUICKLIST-PACKED-THRESHOLD {wrong}"),
                "-ERR argument must be a memory value bigger than 1 and smaller than 4gb",
            );
        }
        seen
    };
    let ours = nodes(Launch::subject());
    assert_eq!(ours, nodes(Launch::real()));
    assert!(ours[0] > ours[1]);
}

/// What DEBUG OBJECT says about the nodes of a list, and its serialized length. Files hold compressed blocks as they
/// are, so without `rdbcompression` that length tells how many there are, and how small.
fn list_facts(client: &mut Client, key: &str) -> (Vec<String>, i64) {
    let text = client.run(&format!("DEBUG OBJECT {key}")).text();
    let length = text.split(' ').find_map(|field| field.strip_prefix("serializedlength:"));
    let nodes = text.split(' ').filter(|field| field.starts_with("ql_")).map(str::to_owned).collect();
    (nodes, length.expect("the length").parse().expect("a number"))
}

#[test]
fn lists_are_compressed_as_in_redis() {
    let facts = |launch: Launch| {
        let server = launch.args(&["--list-max-listpack-size", "4", "--rdbcompression", "no"]).start();
        let mut client = server.connect();
        let mut seen = Vec::new();
        let fill = |client: &mut Client, key: &str| {
            for i in 0..42 {
                client.run(&format!("RPUSH {key} element-{i:04}-{}-{i:04}", "a".repeat(37)));
            }
            list_facts(client, key)
        };
        // The depth of a list is what was configured when it became one of several blocks.
        for depth in ["0", "1", "3", "6", "2147483647"] {
            client.ok(&format!("CONFIG SET list-compress-depth {depth}"));
            seen.push(fill(&mut client, &format!("depth:{depth}")));
        }
        client.ok("CONFIG SET list-compress-depth 1");
        seen.push(fill(&mut client, "depth:0"));
        client.run("COPY depth:1 l");
        for line in [
            "LSET l 17 short",
            "LINSERT l AFTER short between",
            "LPOP l 9",
            "RPOP l 9",
            "LPUSH l 1 2 3 4 5 6 7 8 9",
            "LTRIM l 3 -6",
            "DEBUG RELOAD",
        ] {
            client.run(line);
            seen.push(list_facts(&mut client, "l"));
        }
        let replies = [
            "LREM l 1 between",
            "LRANGE l 0 -1",
            "LINDEX l 9",
            "LPOS l short",
            "LPOS l short RANK -1",
            "SORT l ALPHA",
        ]
        .map(|line| client.run(line).to_string());
        (seen, replies)
    };
    let ((ours, replies), (theirs, expected)) = (facts(Launch::subject()), facts(Launch::real()));
    assert_eq!(replies, expected);
    assert_eq!(ours.len(), theirs.len());
    for ((nodes, length), (their_nodes, their_length)) in ours.iter().zip(&theirs) {
        assert_eq!(nodes, their_nodes);
        // LZF leaves a choice of matches: a block more or less would make 150 bytes.
        let difference = (length - their_length).abs();
        assert!(difference <= their_length / 50, "{length} and {their_length} for {nodes:?}");
    }
    assert!(ours[1].1 < ours[2].1 && ours[2].1 < ours[0].1 && ours[3].1 == ours[0].1);
}

#[test]
fn compressing_lists_saves_memory() {
    let server = Launch::subject().start();
    let mut client = server.connect();
    let mut used = |depth: &str| {
        client.ok(&format!("CONFIG SET list-compress-depth {depth}"));
        for i in 0..1000 {
            client.run(&format!("RPUSH depth:{depth} {i}:{}", "some text ".repeat(20)));
        }
        client.run(&format!("MEMORY USAGE depth:{depth} SAMPLES 0")).int()
    };
    let (open, compressed) = (used("0"), used("1"));
    assert!(open > 200_000 && compressed * 4 < open, "{open} and {compressed}");
}

#[test]
fn scripts_may_be_allowed_everything() {
    for launch in [Launch::subject(), Launch::real()] {
        let server = launch.start();
        let mut client = server.connect();
        let get = r#"EVAL "return redis.call('CONFIG','GET','maxmemory')" 0"#;
        assert!(client.run(get).to_string().contains("not allowed from script"));
        client.ok("DEBUG SET-DISABLE-DENY-SCRIPTS 1");
        client.expect(get, r#"["maxmemory", "0"]"#);
        client.ok("DEBUG SET-DISABLE-DENY-SCRIPTS 0");
        assert!(client.run(get).to_string().contains("not allowed from script"));
    }
}

#[test]
fn replies_are_forgotten_when_the_word_says() {
    let server = Launch::subject().start();
    let (mut seen, mut client) = (server.connect(), server.connect());
    let id = seen.run("CLIENT ID").int();
    let mut peak = || {
        let line = client.run(&format!("CLIENT LIST ID {id}")).text();
        let field = line.split(' ').find_map(|field| field.strip_prefix("rbp="));
        field.expect("the field").parse::<usize>().expect("a number")
    };
    seen.cmd(&["ECHO", &"x".repeat(3000)]);
    wait_for("it is seen", SOON, || peak() > 3000);
    seen.ok("DEBUG REPLYBUFFER PEAK-RESET-TIME 0");
    wait_for("the next reply is longer than none", SOON, || {
        seen.expect("PING", "+PONG");
        peak() < 100
    });
    seen.ok("DEBUG REPLYBUFFER PEAK-RESET-TIME NEVER");
    seen.cmd(&["ECHO", &"x".repeat(3000)]);
    seen.expect("PING", "+PONG");
    assert!(peak() > 3000);
}

#[test]
fn clients_are_shown_by_what_they_take() {
    for launch in [Launch::subject(), Launch::real()] {
        let server = launch.args(&["--maxmemory-clients", "100mb"]).start();
        let mut client = server.connect();
        let text = client.run("DEBUG CLIENT-EVICTION").text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 19, "{text}");
        assert!(lines[0].starts_with("bucket          0 -      32767: tot-mem: "), "{text}");
        assert!(
            lines[18].starts_with("bucket 4294967296+            : tot-mem:          0, clients: 0"),
            "{text}"
        );
        client.ok("SET k value");
        assert!(
            client.run("DEBUG SDSLEN k").text().starts_with("key_sds_len:1, key_sds_avail:0, key_zmalloc: ")
        );
        client.run("RPUSH l 1");
        client.expect("DEBUG SDSLEN l", "-ERR Not an sds encoded string.");
        // Redis takes seconds for it, or many.
        if server.log().contains("Keystead") {
            client.expect("DEBUG STRINGMATCH-TEST", "+Apparently Redis did not crash: test passed");
        }
    }
}

#[test]
fn words_do_what_they_say() {
    let described = |launch: Launch| {
        let server = launch.args(&["--list-max-listpack-size", "10"]).start();
        let mut client = server.connect();
        client.ok("DEBUG LOG 'a line of mine'");
        wait_for("it is logged", SOON, || server.log().contains("DEBUG LOG: a line of mine"));
        client.run("HSET h field 77777");
        client.pipeline(&(0..600).map(|i| format!("RPUSH l e{i:020}")).collect::<Vec<_>>());
        client.ok("SET n 12");
        ["h", "l", "n"].map(|key| {
            let text = client.run(&format!("DEBUG OBJECT {key}")).text();
            // Of addresses, clocks and what compression makes of it only the names.
            let told = |field: &str| ["encoding:", "refcount:", "ql_"].iter().any(|p| field.starts_with(p));
            let name = |field: &str| field.split(':').next().unwrap_or_default().to_owned();
            text.split(' ').map(|f| if told(f) { f.to_owned() } else { name(f) }).collect::<Vec<_>>()
        })
    };
    assert_eq!(described(Launch::subject()), described(Launch::real()));
    if subject_is_real() {
        return;
    }
    let server = Server::subject();
    let mut client = server.connect();
    client.run("HSET h field 77777");
    client.expect("DEBUG LISTPACK h", "+Listpack structure printed on stdout");
    wait_for("it is printed", SOON, || {
        server.log().contains("string \"field\"") && server.log().contains("integer 77777")
    });
    client.ok("DEBUG PAUSE-CRON 1");
    client.ok("SET dead v PX 1");
    client.ok("SET timer v PX 300");
    wait_for("time passes", SOON, || client.run("EXISTS timer").int() == 0);
    client.expect("DBSIZE", ":2");
    client.ok("DEBUG PAUSE-CRON 0");
    wait_for("the clock goes on", SOON, || client.run("DBSIZE").int() == 1);
    assert!(client.run("DEBUG MALLCTL arenas.narenas").int() > 0);
    assert!(client.run("DEBUG MALLCTL nosuch").text().starts_with("ERR "));
}

/// Every directive is written then, not only those that the file names or that differ.
#[test]
fn a_rewrite_may_be_made_to_state_everything() {
    let dir = fresh_dir();
    let file = dir.join("own.conf");
    std::fs::write(&file, "maxmemory 50mb\n").expect("write the file");
    let server = Launch::subject().file(&file).start();
    let mut client = server.connect();
    let stated =
        || std::fs::read_to_string(&file).expect("the file").contains("\nhash-max-listpack-entries ");
    client.ok("CONFIG REWRITE");
    assert!(!stated());
    client.ok("DEBUG CONFIG-REWRITE-FORCE-ALL");
    assert!(stated());
    std::fs::remove_dir_all(dir).expect("remove the directory");
}

/// The attribute stands before the reply that it belongs to. There is none in RESP2, for which 7.4 refuses it.
#[test]
fn an_attribute_is_shown_to_who_speaks_resp3() {
    let shown = |server: Server| {
        let mut client = server.connect();
        client.run("HELLO 3");
        client.send_raw(b"DEBUG PROTOCOL attrib\r\nECHO end\r\n");
        let mut raw = Vec::new();
        while !raw.ends_with(b"$3\r\nend\r\n") {
            let mut chunk = [0; 1000];
            let read = client.stream().read(&mut chunk).expect("a reply");
            raw.extend_from_slice(&chunk[..read]);
        }
        String::from_utf8(raw).expect("text")
    };
    let ours = shown(Server::subject());
    assert!(ours.starts_with("|1\r\n$14\r\nkey-popularity\r\n"), "{ours}");
    assert_eq!(ours, shown(Server::real()));
}

#[test]
fn words_take_the_arguments_that_redis_takes() {
    let server = Server::subject();
    let mut client = server.connect();
    client.ok("DEBUG POPULATE 2 empty 0");
    client.expect("GET empty:1", "\"value:1\"");
    client.ok("DEBUG POPULATE 2 cut 3");
    client.expect("GET cut:1", "\"val\"");
    client.ok("DEBUG AOF-FLUSH-SLEEP x");
    client.expect("DEBUG PROTOCOL attrib", "\"Some real reply following the attribute\"");
    client.ok("CONFIG SET list-max-listpack-size 2");
    client.run("RPUSH l a b c d e");
    for level in ["", " 0", " 1", " x"] {
        client.expect(&format!("DEBUG QUICKLIST l{level}"), "+Quicklist structure printed on stdout");
    }
    assert!(
        client
            .run("DEBUG QUICKLIST l 1 2")
            .to_string()
            .starts_with("-ERR unknown subcommand or wrong number")
    );
    if !subject_is_real() {
        // Redis has these since 7.2.
        for more in ["full", "other", "full more"] {
            client.run(&format!("DEBUG HTSTATS 0 {more}")).text();
        }
        let (fast, slow) =
            (client.run("DEBUG OBJECT l fast").to_string(), client.run("DEBUG OBJECT l").to_string());
        for part in [" serializedlength:", " ql_uncompressed_size:"] {
            assert!(slow.contains(part) && !fast.contains(part), "{slow} {fast}");
        }
    }
}

#[test]
fn links_of_the_cluster_bus_can_be_severed() {
    let plain = Server::subject();
    let refused = "-ERR Debug option only available for cluster mode enabled setup!";
    plain.connect().expect("DEBUG CLUSTERLINK KILL all x", refused);
    let nodes = [(); 2].map(|()| Launch::subject().args(&["--cluster-enabled", "yes"]).start());
    let [mut a, mut b] = [nodes[0].connect(), nodes[1].connect()];
    a.ok(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[1].port));
    let peer = b.run("CLUSTER MYID").text();
    // When each link was made, by its direction.
    let made = |client: &mut Client| -> Vec<(String, String)> {
        let links = client.run("CLUSTER LINKS");
        let field = |link: &Reply, name: &str| {
            let at = link
                .items()
                .iter()
                .position(|item| item.to_string() == format!("\"{name}\""))
                .expect("a field");
            link.items()[at + 1].to_string()
        };
        let mut made: Vec<_> =
            links.items().iter().map(|link| (field(link, "direction"), field(link, "create-time"))).collect();
        made.sort();
        made
    };
    wait_for("both links are there", SOON, || made(&mut a).len() == 2);
    for (words, changed) in [("from", [true, false]), ("to", [false, true]), ("ALL", [true, true])] {
        let before = made(&mut a);
        a.ok(&format!("DEBUG CLUSTERLINK KILL {words} {peer}"));
        wait_for("what was severed is made anew", SOON, || {
            let now = made(&mut a);
            now.len() == 2 && (0..2).all(|i| (now[i] != before[i]) == changed[i])
        });
    }
    let nobody = "0".repeat(40);
    a.expect(&format!("DEBUG CLUSTERLINK KILL all {nobody}"), &format!("-ERR Unknown node {nobody}"));
    a.expect(&format!("DEBUG CLUSTERLINK KILL x {peer}"), "-ERR Unknown direction x");
    for few in ["KILL", &format!("KILL {peer}"), &format!("CUT all {peer}")] {
        let reply = a.run(&format!("DEBUG CLUSTERLINK {few}")).to_string();
        assert!(
            reply.starts_with("-ERR unknown subcommand or wrong number of arguments for 'CLUSTERLINK'"),
            "{reply}"
        );
    }
}
