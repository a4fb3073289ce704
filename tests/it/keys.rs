//! Guarantees over many keys: scans under mutation, expiry in bulk, DUMP and RESTORE between servers.

use crate::common::client::{Client, Reply};
use crate::common::server::{Server, subject_is_real};
use crate::common::{SOON, wait_for};
use crate::workload::every_type;
use keystead::persist::rdb::checksum::crc64;
use std::collections::BTreeSet;

/// Runs a scan to its end, doing something else between its calls, and returns what it saw.
fn scan(client: &mut Client, command: &str, mut between: impl FnMut(&mut Client, usize)) -> Vec<String> {
    let mut seen = Vec::new();
    let mut cursor = "0".to_owned();
    for call in 0.. {
        let reply = client.run(&command.replace("CURSOR", &cursor));
        let [next, items] = reply.items() else { panic!("not a scan reply: {reply}") };
        seen.extend(items.items().iter().map(crate::common::client::Reply::text));
        cursor = next.text();
        if cursor == "0" {
            return seen;
        }
        assert!(call < 100_000, "the scan does not end");
        between(client, call);
    }
    seen
}

#[test]
fn scan_sees_every_key_that_stays() {
    let server = Server::subject();
    let mut client = server.connect();
    let lines: Vec<String> = (0..5000).map(|i| format!("SET stays:{i} v")).collect();
    client.pipeline(&lines);
    // Between the calls other keys come in numbers that make tables grow, and go again.
    let mut added = 0;
    let seen = scan(&mut client, "SCAN CURSOR COUNT 20", |client, call| {
        let mut lines = Vec::new();
        for _ in 0..100 {
            lines.push(format!("SET comes:{added} v"));
            added += 1;
        }
        if call % 3 == 0 {
            lines.extend((0..100).map(|i| format!("DEL comes:{}", added - 1 - i)));
        }
        if call < 100 {
            client.pipeline(&lines);
        }
    });
    let seen: BTreeSet<String> = seen.into_iter().filter(|k| k.starts_with("stays:")).collect();
    assert_eq!(seen.len(), 5000);
}

#[test]
fn scan_sees_every_key_that_stays_in_one_slot() {
    let server = Server::subject();
    let mut client = server.connect();
    let lines: Vec<String> = (0..3000).map(|i| format!("SET {{tag}}stays:{i} v")).collect();
    client.pipeline(&lines);
    let mut n = 0;
    let seen = scan(&mut client, "SCAN CURSOR COUNT 10", |client, call| {
        if call < 200 {
            let lines: Vec<String> = (n..n + 40)
                .flat_map(|i| [format!("SET {{tag}}comes:{i} v"), format!("DEL {{tag}}comes:{}", i - i % 2)])
                .collect();
            n += 40;
            client.pipeline(&lines);
        }
    });
    let seen: BTreeSet<String> = seen.into_iter().filter(|k| k.starts_with("{tag}stays:")).collect();
    assert_eq!(seen.len(), 3000);
}

#[test]
fn collection_scans_see_every_element_that_stays() {
    let server = Server::subject();
    let mut client = server.connect();
    let lines: Vec<String> = (0..2000)
        .flat_map(|i| {
            [format!("SADD s stays:{i}"), format!("HSET h stays:{i} v"), format!("ZADD z {i} stays:{i}")]
        })
        .collect();
    client.pipeline(&lines);
    for (command, key, add) in
        [("SSCAN", "s", "SADD s X"), ("HSCAN", "h", "HSET h X v"), ("ZSCAN", "z", "ZADD z 5 X")]
    {
        let mut n = 0;
        let seen = scan(&mut client, &format!("{command} {key} CURSOR COUNT 20"), |client, call| {
            if call < 100 {
                let lines: Vec<String> =
                    (n..n + 50).map(|i| add.replace('X', &format!("comes:{i}"))).collect();
                n += 50;
                client.pipeline(&lines);
            }
        });
        let seen: BTreeSet<String> = seen.into_iter().filter(|k| k.starts_with("stays:")).collect();
        assert_eq!(seen.len(), 2000, "{command}");
    }
}

#[test]
fn random_keys_come_from_all_of_them() {
    let server = Server::subject();
    let mut client = server.connect();
    client.pipeline(&(0..20).map(|i| format!("SET key:{i} v")).collect::<Vec<_>>());
    let seen: BTreeSet<String> = (0..1000).map(|_| client.run("RANDOMKEY").text()).collect();
    assert_eq!(seen.len(), 20);
}

#[test]
fn thousands_of_keys_expire_without_being_asked_for() {
    let server = Server::subject();
    let mut client = server.connect();
    client.pipeline(&(0..5000).map(|i| format!("SET key:{i} v PX {}", 50 + i % 200)).collect::<Vec<_>>());
    client.ok("SET stays v");
    wait_for("the keys expire", SOON, || client.run("DBSIZE").int() == 1);
    assert_eq!(client.info_int("expired_keys"), 5000);
    client.expect("GET stays", "\"v\"");
}

#[test]
fn dumped_values_restore_on_the_other_server() {
    let (ours, real) = (Server::subject(), Server::real());
    for (from, to) in [(&ours, &real), (&real, &ours), (&ours, &ours)] {
        let (mut from, mut to) = (from.connect(), to.connect());
        from.ok("FLUSHALL");
        every_type(&mut from, false);
        let keys = from.run("KEYS *");
        let keys: Vec<String> = keys.items().iter().map(crate::common::client::Reply::text).collect();
        // A dump does not carry the expiry, which the digest would show.
        for key in &keys {
            from.cmd(&["PERSIST", key]);
        }
        let dumps: Vec<_> = keys.iter().map(|key| from.cmd(&["DUMP", key])).collect();
        let mut digest = vec!["DEBUG", "DIGEST-VALUE"];
        digest.extend(keys.iter().map(String::as_str));
        let expected = from.cmd(&digest);
        to.ok("FLUSHALL");
        for (key, dump) in keys.iter().zip(&dumps) {
            let bytes = dump.bytes().expect("a dump");
            let reply = to.cmd(&[b"RESTORE", key.as_bytes(), b"0", bytes]);
            assert_eq!(reply.to_string(), "+OK", "RESTORE of {key}");
        }
        assert_eq!(to.cmd(&digest), expected);
        let dump = dumps[0].bytes().expect("a dump");
        let key = keys[0].as_bytes();
        assert_eq!(
            to.cmd(&[b"RESTORE", key, b"0", dump]).to_string(),
            "-BUSYKEY Target key name already exists."
        );
        assert_eq!(to.cmd(&[b"RESTORE", key, b"100000", dump, b"REPLACE"]).to_string(), "+OK");
        assert!(to.cmd(&[&b"PTTL"[..], key]).int() > 90_000);
        assert_eq!(
            to.cmd(&[b"RESTORE", key, b"9999999999999", dump, b"REPLACE", b"ABSTTL"]).to_string(),
            "+OK"
        );
        assert_eq!(to.cmd(&[&b"PEXPIRETIME"[..], key]).int(), 9_999_999_999_999);
        // One bit wrong anywhere and it is refused.
        for at in [0, dump.len() / 2, dump.len() - 1] {
            let mut damaged = dump.to_vec();
            damaged[at] ^= 1;
            let reply = to.cmd(&[&b"RESTORE"[..], b"damaged", b"0", &damaged]).text();
            assert_eq!(reply, "ERR DUMP payload version or checksum are wrong");
        }
    }
}

/// Release candidates of Redis 5.0 wrote such streams after XDEL, and Redis still loads them.
#[test]
fn a_stream_whose_length_is_off_is_counted_anew() {
    let server = Server::subject();
    let mut c = server.connect();
    for id in 1..=3 {
        c.run(&format!("XADD s {id}-0 f v"));
    }
    c.expect("XDEL s 2-0", ":1");
    let Reply::Bulk(mut dump) = c.run("DUMP s") else { panic!("no dump") };
    // The end of the only listpack, two entries, the last id 3-0.
    let at = memchr::memmem::find(&dump, b"\xff\x02\x03\x00").expect("the number of entries");
    dump[at + 1] = 3;
    let end = dump.len() - 8;
    let checksum = crc64(&dump[..end]);
    dump[end..].copy_from_slice(&checksum.to_le_bytes());
    let restore: [&[u8]; 5] = [b"RESTORE", b"t", b"0", &dump, b"REPLACE"];
    assert_eq!(c.cmd(&restore).to_string(), "+OK");
    c.expect("XRANGE t - +", "[[\"1-0\", [\"f\", \"v\"]], [\"3-0\", [\"f\", \"v\"]]]");
    if !subject_is_real() {
        c.expect("XLEN t", ":2");
        assert!(server.log().contains("counted anew"), "{}", server.log());
    }
    c.run("XADD t 4-0 f v");
    // What is written is right.
    c.ok("DEBUG RELOAD");
    let entries = c.run("XRANGE t - +").items().len();
    assert_eq!(entries, 3);
    if !subject_is_real() {
        c.expect("XLEN t", ":3");
    }
    for line in ["Done loading RDB, keys loaded: 2, keys expired: 0.", "DB reloaded by DEBUG RELOAD"] {
        assert!(server.log().contains(line), "{}", server.log());
    }
}

/// It comes by a full synchronisation as well, from a Redis that believes the wrong length.
#[test]
fn a_stream_whose_length_is_off_is_counted_anew_by_a_replica() {
    if subject_is_real() {
        return;
    }
    let (primary, replica) = (Server::real(), Server::subject());
    let (mut p, mut r) = (primary.connect(), replica.connect());
    for id in 1..=3 {
        p.run(&format!("XADD s {id}-0 f v"));
    }
    p.expect("XDEL s 2-0", ":1");
    let Reply::Bulk(mut dump) = p.run("DUMP s") else { panic!("no dump") };
    let at = memchr::memmem::find(&dump, b"\xff\x02\x03\x00").expect("the number of entries");
    dump[at + 1] = 3;
    let end = dump.len() - 8;
    let checksum = crc64(&dump[..end]);
    dump[end..].copy_from_slice(&checksum.to_le_bytes());
    let restore: [&[u8]; 4] = [b"RESTORE", b"t", b"0", &dump];
    assert_eq!(p.cmd(&restore).to_string(), "+OK");
    p.expect("XLEN t", ":3");
    r.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link is up", SOON, || r.info("master_link_status") == "up");
    r.expect("XLEN t", ":2");
    assert!(replica.log().contains("counted anew"), "{}", replica.log());
    assert!(
        replica.log().contains("Done loading RDB, keys loaded: 2, keys expired: 0."),
        "{}",
        replica.log()
    );
}

/// What `set-max-listpack-*` say, which Redis has since 7.2.
#[test]
fn small_sets_are_packed_up_to_both_limits() {
    if subject_is_real() {
        return;
    }
    let server = Server::subject();
    let mut c = server.connect();
    c.ok("CONFIG SET set-max-listpack-entries 3 set-max-listpack-value 5");
    for (add, encoding) in [
        ("SADD few a b c", "listpack"),
        ("SADD many a b c d", "hashtable"),
        ("SADD short 12345 x", "listpack"),
        ("SADD long 123456 x", "hashtable"),
        ("SADD ints 1 2 3 4", "intset"),
        ("SADD ints x", "hashtable"),
    ] {
        c.run(add);
        let key = add.split(' ').nth(1).expect("a key");
        assert_eq!(c.run(&format!("OBJECT ENCODING {key}")).text(), encoding, "{add}");
    }
    // A set that has grown does not shrink back.
    c.expect("SREM many a b", ":2");
    c.expect("OBJECT ENCODING many", "\"hashtable\"");
    c.expect("SADD few d", ":1");
    c.expect("OBJECT ENCODING few", "\"hashtable\"");
}

/// 7.4 reads a cursor as a plain integer first, which must not be negative, and then as `strtoull` does.
#[test]
fn a_cursor_may_be_written_in_more_than_one_way() {
    if subject_is_real() {
        // 7.0 takes negative numbers, and no space.
        return;
    }
    let server = Server::subject();
    let mut client = server.connect();
    for line in ["HSET h a 1", "SADD s a", "ZADD z 1 a"] {
        client.run(line);
    }
    let taken =
        ["00", "+0", "-0", "+5", " 5", "\t5", "007", "18446744073709551615", "-18446744073709551615", "0\0x"];
    let refused =
        ["", "-5", "-1", "5 ", "5a", "+", " ", "++5", "0x10", "18446744073709551616", "-9223372036854775808"];
    for scan in [&["SCAN"][..], &["HSCAN", "h"], &["SSCAN", "s"], &["ZSCAN", "z"], &["HSCAN", "missing"]] {
        let mut with = |cursor: &str| {
            let words: Vec<String> =
                scan.iter().map(|w| (*w).to_owned()).chain([cursor.to_owned()]).collect();
            client.cmd(&words).to_string()
        };
        for cursor in taken {
            assert!(with(cursor).starts_with("[\"0\", ["), "{scan:?} {cursor:?}");
        }
        for cursor in refused {
            assert_eq!(with(cursor), "-ERR invalid cursor", "{scan:?} {cursor:?}");
        }
    }
}
