//! RDB files and DUMP payloads go from a real Redis 7.0 to us and back without a change of data.

mod common;

use common::client::{Client, Reply};
use common::server::{Launch, Server, real};
use keystead::persist::rdb::{
    Entry, Meta, Options, Preamble, Reader, Record, ReplicationInfo, VERSION_WRITTEN, Writer, encode_entry,
    payload,
};
use keystead::value::Limits;
use keystead::value::digest::Digest;
use std::fs;
use std::path::Path;
use std::process::Command;

const ID: &str = "00112233445566778899aabbccddeeff00112233";

/// A file as we decoded it.
#[derive(Default)]
struct Decoded {
    aux: Vec<(String, String)>,
    functions: Vec<Vec<u8>>,
    entries: Vec<Entry>,
}

fn decode(path: &Path, limits: &Limits) -> Decoded {
    let file = fs::File::open(path).expect("open the file");
    let size = file.metadata().expect("the size of the file").len();
    let mut reader = Reader::open(file, limits.clone()).expect("a header");
    let mut out = Decoded::default();
    for record in reader.by_ref() {
        match record.unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
            Record::Aux { name, value } => {
                let text = |b: Vec<u8>| String::from_utf8(b).expect("text");
                out.aux.push((text(name), text(value)));
            }
            Record::Function(code) => out.functions.push(code),
            Record::Entry(entry) => out.entries.push(entry),
            Record::SelectDb(_) | Record::ResizeDb { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(reader.offset(), size);
    assert_eq!(reader.empty_keys_skipped(), 0);
    out
}

/// What DEBUG DIGEST of a server with these entries says.
fn digest(entries: &[Entry]) -> String {
    let mut digest = Digest::default();
    let mut db = None;
    for entry in entries {
        if db != Some(entry.db) {
            digest.begin_database(entry.db);
            db = Some(entry.db);
        }
        digest.add_key(&entry.key, entry.value.as_ref(), entry.expire.is_some());
    }
    hex(&digest)
}

fn hex(digest: &Digest) -> String {
    digest.0.map(|b| format!("{b:02x}")).concat()
}

/// Writes what was decoded with our writer.
fn encode(decoded: &Decoded, path: &Path, options: Options, checksum: bool) {
    let mut w = Writer::new(fs::File::create(path).expect("create the file"), checksum);
    w.preamble(&Preamble {
        version: VERSION_WRITTEN,
        redis_version: "7.4.1",
        created: 1_700_000_000_000,
        used_memory: 1 << 20,
        replication: Some(ReplicationInfo { stream_db: 0, id: ID, offset: 4711 }),
        aof_base: false,
    })
    .expect("write");
    for code in &decoded.functions {
        w.function(code).expect("write");
    }
    for entries in decoded.entries.chunk_by(|a, b| a.db == b.db) {
        let expires = entries.iter().filter(|e| e.expire.is_some()).count();
        w.database(entries[0].db, entries.len() as u64, expires as u64).expect("write");
        let mut block = Vec::new();
        for e in entries {
            let meta = Meta { expire: e.expire, idle_s: e.idle_s, freq: e.freq };
            encode_entry(&mut block, &e.key, e.value.as_ref(), &meta, options);
        }
        w.entries(&block).expect("write");
    }
    w.finish().expect("write");
}

/// Data of every type in both of its encodings, with whatever a file can say about a key.
fn populate(c: &mut Client) {
    let pairs = |n: usize| (0..n).map(|i| format!(" field:{i} {}", i * i)).collect::<Vec<_>>().concat();
    let long = "a line that repeats itself, ".repeat(40);
    let mut lines: Vec<String> = vec![
        "SET int8 -12".into(),
        "SET int16 -32768".into(),
        "SET int32 2147483647".into(),
        "SET int64 -9223372036854775808".into(),
        "SET text hello".into(),
        r#"SET binary "\x00\xff\r\n\x80""#.into(),
        r#"SET empty """#.into(),
        format!("SET long \"{long}\""),
        "SETBIT sparse 800000 1".into(),
        "SET later v PXAT 33177117420123".into(),
        "RPUSH list:small a 1 -5 300 70000 5000000000 \"\" 007".into(),
        format!("RPUSH list:huge-elements {} {} x", "e".repeat(9000), "f".repeat(70_000)),
        "SADD set:ints 1 2 3 -40000".into(),
        "SADD set:wide-ints 1 9223372036854775807".into(),
        "SADD set:texts a b c 1".into(),
        format!("HSET hash:small{}", pairs(10)),
        format!("HSET hash:large{}", pairs(1000)),
        format!("HSET hash:long-value f \"{long}\""),
        "ZADD zset:small 1 a 2.5 b -inf c +inf d 1e100 e 0.1 f -0 g 3 123".into(),
        "XADD stream 1-1 f v".into(),
        "XADD stream 1-2 f w".into(),
        "XADD stream 5-0 other 1 f -7".into(),
        format!("XADD stream 6-0{}", pairs(100)),
        "XDEL stream 1-2".into(),
        "XGROUP CREATE stream readers 0".into(),
        "XGROUP CREATE stream unknown 1-1 ENTRIESREAD 1".into(),
        "XGROUP CREATECONSUMER stream readers idle".into(),
        "XREADGROUP GROUP readers alice COUNT 2 STREAMS stream >".into(),
        "XREADGROUP GROUP readers bob COUNT 1 STREAMS stream >".into(),
        "XACK stream readers 1-1".into(),
        "XCLAIM stream readers bob 0 5-0 RETRYCOUNT 9 TIME 1700000000000".into(),
        "XGROUP CREATE stream:new g $ MKSTREAM".into(),
        "XADD stream:emptied 9-9 a b".into(),
        "XDEL stream:emptied 9-9".into(),
        "SELECT 9".into(),
        "SET elsewhere 1 PXAT 33177117420124".into(),
        "SELECT 0".into(),
        "FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('one', function() return 1 end)\"".into(),
    ];
    for i in 0..2000 {
        lines.push(format!("RPUSH list:large element:{i} {}", i * 7919));
        lines.push(format!("SADD set:large member:{i}"));
        lines.push(format!("SADD set:many-ints {}", i * i));
        lines.push(format!("ZADD zset:large {} member:{}", f64::from(i) / 3.0, i % 1500));
        lines.push(format!("XADD stream:large {}-{i} n {i} text \"some value\"", i / 3 + 1));
    }
    for (line, reply) in lines.iter().zip(c.pipeline(&lines)) {
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply}");
    }
}

const STREAMS: [&str; 4] = ["stream", "stream:new", "stream:emptied", "stream:large"];

/// What a server says about its data beyond DEBUG DIGEST, which does not cover groups.
fn details(c: &mut Client) -> Vec<String> {
    let mut out: Vec<String> =
        STREAMS.iter().map(|key| c.run(&format!("XINFO STREAM {key} FULL COUNT 0")).to_string()).collect();
    for line in [
        "FUNCTION DUMP",
        "PEXPIRETIME later",
        "DBSIZE",
        "OBJECT ENCODING int64",
        "OBJECT ENCODING hash:small",
    ] {
        out.push(c.run(line).to_string());
    }
    out
}

fn start(settings: &[&str]) -> Server {
    let args: Vec<&str> = [&["--repl-diskless-sync", "no"], settings].concat();
    Launch::real().args(&args).start()
}

/// Real file, our reader, our writer, real server: nothing changes on the way. The limits of both servers agree,
/// because a packed sorted set forgets the sign of a zero.
fn there_and_back(settings: &[&str], limits: &Limits, options: Options, checksum: bool) {
    let mut server = start(settings);
    let mut c = server.connect();
    populate(&mut c);
    let theirs = c.run("DEBUG DIGEST").text();
    let before = details(&mut c);
    c.ok("SAVE");
    let path = server.dir().join("dump.rdb");

    let decoded = decode(&path, limits);
    for entry in decoded.entries.iter().filter(|e| e.db == 0) {
        let mut ours = Digest::default();
        ours.add_value(entry.value.as_ref(), entry.expire.is_some());
        let theirs = c.cmd(&[&b"DEBUG"[..], b"DIGEST-VALUE", &entry.key]);
        assert_eq!(hex(&ours), theirs.items()[0].text(), "{}", entry.key.escape_ascii());
    }
    assert_eq!(digest(&decoded.entries), theirs, "what we read");
    assert!(decoded.aux.iter().any(|(name, value)| name == "redis-ver" && value.starts_with("7.")));
    assert_eq!(decoded.functions.len(), 1);

    encode(&decoded, &path, options, checksum);
    let checked = Command::new(real().with_file_name("redis-check-rdb")).arg(&path).output();
    if let Ok(output) = checked {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    drop(c);
    server.restart();
    let mut c = server.connect();
    assert_eq!(c.run("DEBUG DIGEST").text(), theirs, "what they read");
    assert_eq!(details(&mut c), before);

    let again = decode(&path, limits);
    assert_eq!(digest(&again.entries), theirs, "what we read of our own");
    assert!(again.aux.contains(&("repl-id".into(), ID.into())));
    assert!(again.aux.contains(&("repl-offset".into(), "4711".into())));
    for (a, b) in decoded.entries.iter().zip(&again.entries) {
        assert_eq!((&a.key, a.expire, a.idle_s, a.freq), (&b.key, b.expire, b.idle_s, b.freq));
    }
}

#[test]
fn default_encodings_go_there_and_back() {
    there_and_back(&[], &Limits::default(), Options::default(), true);
}

#[test]
fn full_encodings_go_there_and_back() {
    let settings = [
        "--hash-max-listpack-entries",
        "0",
        "--zset-max-listpack-entries",
        "0",
        "--set-max-intset-entries",
        "0",
        "--list-max-listpack-size",
        "1",
        "--list-compress-depth",
        "1",
        "--rdbcompression",
        "no",
        "--maxmemory-policy",
        "allkeys-lfu",
    ];
    let limits = Limits {
        hash_max_listpack_entries: 0,
        zset_max_listpack_entries: 0,
        set_max_intset_entries: 0,
        set_max_listpack_entries: 0,
        list_max_listpack_size: 1,
        list_compress_depth: 1,
        ..Limits::default()
    };
    there_and_back(&settings, &limits, Options { compress: false }, false);
}

#[test]
fn large_packed_encodings_go_there_and_back() {
    let settings = [
        "--hash-max-listpack-entries",
        "5000",
        "--hash-max-listpack-value",
        "5000",
        "--zset-max-listpack-entries",
        "5000",
        "--set-max-intset-entries",
        "5000",
        "--list-max-listpack-size",
        "-5",
        "--stream-node-max-entries",
        "1000",
        "--rdbchecksum",
        "no",
        "--maxmemory-policy",
        "allkeys-lru",
    ];
    let limits = Limits {
        hash_max_listpack_entries: 5000,
        hash_max_listpack_value: 5000,
        zset_max_listpack_entries: 5000,
        set_max_intset_entries: 5000,
        set_max_listpack_entries: 5000,
        list_max_listpack_size: -5,
        stream_node_max_entries: 1000,
        ..Limits::default()
    };
    there_and_back(&settings, &limits, Options::default(), true);
}

#[test]
fn payloads_go_there_and_back() {
    let server = start(&[]);
    let mut c = server.connect();
    populate(&mut c);
    let keys: Vec<Vec<u8>> =
        c.run("KEYS *").items().iter().map(|k| k.bytes().expect("a key").to_vec()).collect();
    for key in keys {
        let name = String::from_utf8_lossy(&key).into_owned();
        let dump = c.cmd(&[&b"DUMP"[..], &key]);
        let theirs = dump.bytes().expect("a payload");
        let value = payload::restore(theirs, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let mut ours = Vec::new();
        payload::dump(&mut ours, value.as_ref(), Options::default());
        let reply = c.cmd(&[&b"RESTORE"[..], b"copy", b"0", &ours, b"REPLACE"]);
        assert_eq!(reply, Reply::Simple("OK".into()), "{name}");
        if !name.starts_with("later") {
            let digests = c.cmd(&[&b"DEBUG"[..], b"DIGEST-VALUE", &key, b"copy"]);
            assert_eq!(digests.items()[0], digests.items()[1], "{name}");
        }
        if STREAMS.contains(&name.as_str()) {
            let copy = c.run("XINFO STREAM copy FULL COUNT 0").to_string();
            assert_eq!(c.run(&format!("XINFO STREAM {name} FULL COUNT 0")).to_string(), copy, "{name}");
        }
    }
}
