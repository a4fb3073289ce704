//! Values and files there and back, and what happens to damaged ones.

use std::io::Read;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;
use crate::keyspace::snapshot::{Part, Position};
use crate::value::digest::Digest;
use crate::value::stream::Pending;
use crate::value::{Hash, Limits, List, Set, SortedSet, Stream, StreamId, Value};

fn string(bytes: &[u8]) -> Value {
    Value::String(Arc::new(bytes.to_vec()))
}

fn list<T: AsRef<[u8]>>(elements: &[T]) -> Value {
    let mut list = List::new();
    for e in elements {
        list.push_back(e.as_ref(), &Limits::default());
    }
    Value::List(Box::new(list))
}

fn set<T: AsRef<[u8]>>(members: &[T]) -> Value {
    let mut set = Set::new();
    for m in members {
        set.add(m.as_ref(), &Limits::default());
    }
    Value::Set(set)
}

fn hash<T: AsRef<[u8]>>(pairs: &[(T, T)]) -> Value {
    let mut hash = Hash::new();
    for (f, v) in pairs {
        hash.set(f.as_ref(), v.as_ref(), &Limits::default());
    }
    Value::Hash(hash)
}

fn zset<T: AsRef<[u8]>>(members: &[(T, f64)]) -> Value {
    let mut zset = SortedSet::new();
    for (m, s) in members {
        zset.add(m.as_ref(), *s, &Limits::default());
    }
    Value::SortedSet(zset)
}

/// A stream with deleted entries and two groups, one of which has pending entries of two consumers.
fn stream(entries: u64) -> Value {
    let mut s = Stream::new();
    for i in 1..=entries {
        let fields =
            if i % 3 == 0 { vec!["other".to_owned(), i.to_string()] } else { vec!["n".into(), "x".into()] };
        s.append(StreamId::new(1000 + i, i % 2), &fields, &Limits::default());
    }
    s.remove(StreamId::new(1002, 0));
    let mut group = crate::value::stream::Group::new(StreamId::new(1003, 1), Some(3));
    for (name, seq) in [("alice", 1003), ("bob", 1001)] {
        let consumer = group.add_consumer(name.as_bytes(), 77).unwrap();
        let pending = Pending { consumer, delivered_ms: 88, deliveries: 2 };
        group.assign(StreamId::new(seq, 1), pending);
        group.consumer_mut(consumer).active_ms = Some(77);
    }
    s.groups.insert(b"workers"[..].into(), group);
    s.groups.insert(b"idle"[..].into(), crate::value::stream::Group::new(StreamId::MIN, None));
    Value::Stream(Box::new(s))
}

/// A stream of two groups with so many entries pending for two consumers each.
fn pending(entries: u64) -> Value {
    let mut s = Stream::new();
    for name in ["g1", "g2"] {
        let mut group = crate::value::stream::Group::new(StreamId::new(entries, 0), None);
        let consumers = ["a", "b"].map(|name| group.add_consumer(name.as_bytes(), 77).unwrap());
        for i in 1..=entries {
            let consumer = consumers[i as usize % 2];
            group.assign(StreamId::new(i, 0), Pending { consumer, delivered_ms: 88, deliveries: i });
        }
        s.groups.insert(name.as_bytes().into(), group);
    }
    Value::Stream(Box::new(s))
}

/// One value of every type and encoding.
fn samples() -> Vec<(&'static str, Value)> {
    let names: Vec<String> = (0..300).map(|i| format!("member:{i}")).collect();
    let numbers: Vec<String> = (0..40).map(|i| (i * 1000 - 7000).to_string()).collect();
    let pairs: Vec<(String, String)> = names.iter().map(|n| (n.clone(), n.repeat(2))).collect();
    let scored: Vec<(String, f64)> =
        names.iter().enumerate().map(|(i, n)| (n.clone(), i as f64 / 8.0)).collect();
    vec![
        ("string", string(b"hello")),
        ("number", string(b"-12345")),
        ("long string", string(&b"compress me, please. ".repeat(30))),
        ("empty string", string(b"")),
        ("short list", list(&["a", "2", "", "-9999999999"])),
        ("long list", list(&vec!["x".repeat(100); 400])),
        ("list with a big element", list(&["y".repeat(20_000), "z".into()])),
        ("intset", set(&numbers)),
        ("small set", set(&["a", "b", "3"])),
        ("large set", set(&names)),
        ("small hash", hash(&[("f", "1"), ("g", "two")])),
        ("large hash", hash(&pairs)),
        ("small zset", zset(&[("a", -1.5), ("b", 1e17), ("c", f64::INFINITY), ("d", 0.1)])),
        ("large zset", zset(&scored)),
        ("stream", stream(250)),
        ("empty stream", Value::Stream(Box::default())),
    ]
}

fn digest(value: &Value) -> Digest {
    let mut d = Digest::default();
    d.add_value(value.as_ref(), false);
    d
}

fn dumped(value: &Value) -> Vec<u8> {
    let mut out = vec![];
    payload::dump(&mut out, value.as_ref(), Options::default());
    out
}

/// Values that Redis 7.4.1 dumped have its digest, also where they become tables. What we dump is compared with its
/// files in `tests/golden.rs`.
#[test]
fn dumps_of_redis_7_4_come_back() {
    let rows = include_str!("../../../tests/golden/files-7.4/dumps.tsv");
    for row in rows.lines().skip(1) {
        let [key, _, encoding, sum, hex] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        // The thresholds of 7.4.
        let limits = Limits { hash_max_listpack_entries: 512, ..Limits::default() };
        let value = payload::restore(&bytes, &limits).unwrap();
        // These keys had an expiry, of which a payload knows nothing.
        let sum_of = |value: &Value| {
            let mut d = Digest::default();
            d.add_value(value.as_ref(), key == "hfe:table" || key == "str:ttl");
            d.to_string()
        };
        assert_eq!(sum_of(&value), sum, "{key}");
        assert!(value.as_ref().encoding_name() == encoding || encoding == "raw", "{key}");
        // As a table they say the same.
        let small = Limits { hash_max_listpack_entries: 0, ..Limits::default() };
        let table = payload::restore(&bytes, &small).unwrap();
        let again = payload::restore(&dumped(&table), &limits).unwrap();
        assert_eq!(sum_of(&again), sum, "{key}");
    }
}

/// Release candidates of 7.4 wrote times without the first one in front.
#[test]
fn hashes_with_times_of_release_candidates_are_read() {
    let at: i64 = 33_177_117_420_000;
    let limits = Limits::default();
    let table = [b"\x16\x02\x81", &at.to_be_bytes()[..], b"\x01a\xc0\x01\x00\x01b\xc0\x02"].concat();
    let packed =
        [b"\x17\x16\x16\0\0\0\x03\0\x81a\x02\x01\x01\xf4", &at.to_le_bytes()[..], b"\x09\xff"].concat();
    for (body, fields) in [(table, 2), (packed, 1)] {
        let Value::Hash(hash) = payload::restore(&sealed(&body, 12), &limits).unwrap() else {
            panic!("a hash")
        };
        assert_eq!((hash.len(), hash.time(b"a"), hash.next_time()), (fields, Some(Some(at)), Some(at)));
    }
}

/// A hash with times may come from an attacker: order, range and count are checked.
#[test]
fn unsound_times_are_refused() {
    let limits = Limits::default();
    let refused = |body: &[u8]| payload::restore(&sealed(body, 12), &limits).is_err();
    let first = 5_i64.to_le_bytes();
    // A time beyond 46 bits, a field twice, none at all.
    assert!(refused(&[b"\x18", &first[..], b"\x01\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01a\x01b"].concat()));
    assert!(refused(&[b"\x18", &first[..], b"\x02\x01\x01a\x01b\x01\x01a\x01b"].concat()));
    assert!(refused(&[b"\x18", &first[..], b"\x00"].concat()));
    assert!(!refused(&[b"\x18", &first[..], b"\x01\x01\x01a\x01b"].concat()));
    // Fields, values and times that are not in order, or not in threes.
    let packed = |times: &[(&str, i64)]| {
        let mut lp = crate::encoding::Dense::new();
        for (field, at) in times {
            lp.push_back_two(field.as_bytes(), b"v");
            lp.push_back_int(*at);
        }
        let bytes = lp.to_listpack();
        [b"\x19", &first[..], &[bytes.len() as u8], &bytes].concat()
    };
    assert!(!refused(&packed(&[("a", 5), ("b", 5), ("c", 7), ("d", 0)])));
    assert!(refused(&packed(&[("a", 7), ("b", 5)])));
    assert!(refused(&packed(&[("a", 0), ("b", 5)])));
    assert!(refused(&packed(&[("a", -1)])));
    assert!(refused(&packed(&[("a", 1 << 46)])));
    assert!(refused(&packed(&[("a", 5), ("a", 6)])));
}

/// The file of all samples, in two databases, with expiries and usage.
fn sample_file() -> Vec<u8> {
    let mut w = Writer::new(vec![], true);
    w.preamble(&Preamble {
        version: VERSION_WITH_TIMES,
        redis_version: "7.4.1",
        created: 0,
        used_memory: 1 << 20,
        replication: None,
        aof_base: false,
    })
    .unwrap();
    w.function(b"#!lua name=lib\nredis.register_function('f', function() return 1 end)").unwrap();
    let samples = samples();
    for db in [0, 9] {
        w.database(db, samples.len() as u64, 1).unwrap();
        let mut block = vec![];
        for (name, value) in &samples {
            let meta = Meta {
                expire: name.starts_with("large").then_some(1_999_999_999_123),
                idle_s: name.starts_with("small").then_some(70),
                freq: name.starts_with("long").then_some(9),
            };
            encode_entry(&mut block, name.as_bytes(), value.as_ref(), &meta, Options::default());
        }
        w.entries(&block).unwrap();
    }
    w.finish().unwrap()
}

/// However small they are, and with the value in another place of memory each time.
#[test]
fn the_parts_of_a_record_make_up_the_record() {
    let names: Vec<String> = (0..20_000).map(|n| format!("element {n}")).collect();
    let mut timed = Hash::new();
    for (n, name) in names.iter().enumerate() {
        timed.set(name.as_bytes(), b"v", &Limits::default());
        let at = (n % 3 == 0).then_some(1_999_999_999_000 + n as i64);
        timed.set_time(name.as_bytes(), at, &Limits::default());
    }
    let mut values = samples();
    values.extend([
        ("many: list", list(&names)),
        ("many: set", set(&names)),
        ("many: hash", hash(&names.iter().map(|name| (name, name)).collect::<Vec<_>>())),
        ("many: zset", zset(&names.iter().map(|name| (name, name.len() as f64)).collect::<Vec<_>>())),
        ("many: timed", Value::Hash(timed)),
        ("many: stream", stream(20_000)),
        ("many: pending", pending(5000)),
        ("long", string(names.concat().as_bytes())),
    ]);
    let meta = Meta { expire: Some(1 << 41), idle_s: Some(5), freq: Some(1) };
    let cases = values.iter().flat_map(|value| [true, false].map(|compress| (value, compress)));
    for ((name, value), compress) in cases {
        let (mut whole, options) = (vec![], Options { compress });
        encode_entry(&mut whole, name.as_bytes(), value.as_ref(), &meta, options);
        for most in [1, 100, 4096] {
            let (mut out, mut from, mut parts, mut longest) = (vec![], Some(Position::START), 0, 0);
            while let Some(at) = from {
                let (begin, part) = (out.len(), Part { from: at, most });
                from = encode_part(&mut out, name.as_bytes(), value.as_ref(), &meta, options, part);
                parts += 1;
                longest = longest.max(out.len() - begin);
            }
            assert!(out == whole, "{name} in {parts} parts");
            if name.starts_with("many") || (*name == "long" && !compress) {
                assert!(parts >= 3 && longest < whole.len() / 2, "{name}: {parts} parts up to {longest}");
            }
        }
    }
}

fn read_all(file: &[u8]) -> Result<Vec<Record>> {
    Reader::open(file, Limits::default())?.collect()
}

#[test]
fn a_file_of_all_types_comes_back() {
    let file = sample_file();
    let mut reader = Reader::open(&file[..], Limits::default()).unwrap();
    assert_eq!(reader.version(), VERSION_WITH_TIMES);
    let mut entries = vec![];
    let (mut aux, mut functions, mut dbs) = (vec![], 0, vec![]);
    for record in reader.by_ref() {
        match record.unwrap() {
            Record::Aux { name, .. } => aux.push(String::from_utf8(name).unwrap()),
            Record::Function(code) => functions += usize::from(code.starts_with(b"#!lua")),
            Record::SelectDb(db) => dbs.push(db),
            Record::ResizeDb { keys, expires } => assert_eq!((keys, expires), (16, 1)),
            Record::Entry(entry) => entries.push(entry),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reader.offset(), file.len() as u64);
    assert_eq!(aux, ["redis-ver", "redis-bits", "ctime", "used-mem", "aof-base"]);
    assert_eq!((functions, dbs), (1, vec![0, 9]));
    let samples = samples();
    assert_eq!(entries.len(), 2 * samples.len());
    for (i, entry) in entries.iter().enumerate() {
        let (name, value) = &samples[i % samples.len()];
        assert_eq!(entry.key, name.as_bytes());
        assert_eq!(entry.db, if i < samples.len() { 0 } else { 9 });
        assert_eq!(digest(&entry.value), digest(value), "{name}");
        assert_eq!(entry.value.as_ref().encoding_name(), value.as_ref().encoding_name(), "{name}");
        assert_eq!(entry.expire, name.starts_with("large").then_some(1_999_999_999_123));
        assert_eq!(entry.idle_s, name.starts_with("small").then_some(70));
        assert_eq!(entry.freq, name.starts_with("long").then_some(9));
    }
}

/// The entries of a file, or what is wrong with it, as one thread reads it and as pieces of about `most` bytes say it.
type Outcome = (Vec<(u32, Vec<u8>, String)>, Option<String>);

fn noted(entry: &Entry) -> (u32, Vec<u8>, String) {
    let facts = format!("{} {:?} {:?} {:?}", digest(&entry.value), entry.expire, entry.idle_s, entry.freq);
    (entry.db, entry.key.clone(), facts)
}

fn in_order(file: &[u8]) -> Outcome {
    let mut entries = Vec::new();
    let reader = match Reader::with_checksum(file, Limits::default(), false) {
        Ok(reader) => reader,
        Err(e) => return (entries, Some(e.to_string())),
    };
    for record in reader {
        match record {
            Ok(Record::Entry(entry)) => entries.push(noted(&entry)),
            Ok(_) => {}
            Err(e) => return (entries, Some(e.to_string())),
        }
    }
    (entries, None)
}

/// With large entries as they come, and read again from their places.
fn in_pieces(file: &[u8], most: u64) -> Outcome {
    let streamed = cut(file, most, false);
    assert_eq!(cut(file, most, true), streamed, "ranges");
    streamed
}

fn cut(file: &[u8], most: u64, ranges: bool) -> Outcome {
    let mut entries = Vec::new();
    let mut reader = match Reader::with_checksum(file, Limits::default(), false) {
        Ok(reader) => reader,
        Err(e) => return (entries, Some(e.to_string())),
    };
    if ranges {
        reader.allow_ranges();
    }
    loop {
        let records: Vec<_> = match reader.next_piece(most) {
            Ok(None) => return (entries, None),
            Ok(Some(Piece::Record(record))) => vec![Ok(record)],
            Ok(Some(Piece::Fragment(fragment))) => fragment.entries(Limits::default()).collect(),
            Ok(Some(Piece::Range(range))) => {
                let bytes = &file[range.from as usize..(range.to as usize).min(file.len())];
                range.entries(bytes, Limits::default()).collect()
            }
            Err(e) => vec![Err(e)],
        };
        for record in records {
            match record {
                Ok(Record::Entry(entry)) => entries.push(noted(&entry)),
                Ok(_) => {}
                Err(e) => return (entries, Some(e.to_string())),
            }
        }
    }
}

#[test]
fn pieces_say_what_the_whole_file_says() {
    let golden = include_bytes!("../../../tests/golden/files-7.4/all-types.rdb");
    let old = include_bytes!("../../../fuzz/corpus/rdb/old-forms");
    let mixed = include_bytes!("../../../fuzz/corpus/rdb/functions-and-modules");
    for file in [&sample_file()[..], golden, old, mixed] {
        let whole = in_order(file);
        assert_eq!(whole.1, None);
        for most in [1, 300, 64 << 10] {
            assert_eq!(in_pieces(file, most), whole, "{most}");
        }
    }
    // Values that are too large to be held twice.
    let mut w = Writer::new(vec![], true);
    w.database(3, 1, 0).unwrap();
    let names: Vec<String> = (0..40_000).map(|i| format!("member:{i}")).collect();
    for (key, value) in [("a", set(&names)), ("b", string(&vec![b'x'; 3 << 20])), ("c", string(b"small"))] {
        let mut block = vec![];
        encode_entry(
            &mut block,
            key.as_bytes(),
            value.as_ref(),
            &Meta::default(),
            Options { compress: false },
        );
        w.entries(&block).unwrap();
    }
    let file = [b"REDIS0010", &w.finish().unwrap()[..]].concat();
    let whole = in_order(&file);
    assert_eq!((whole.0.len(), &whole.1), (3, &None));
    assert_eq!(in_pieces(&file, 1 << 10), whole);
}

#[test]
fn pieces_of_a_damaged_file_have_its_error() {
    let small = include_bytes!("../../../fuzz/corpus/rdb/small-values");
    let old = include_bytes!("../../../fuzz/corpus/rdb/old-forms");
    let streams = include_bytes!("../../../fuzz/corpus/rdb/streams");
    for file in [&small[..], old, streams] {
        for at in 9..file.len() {
            assert_eq!(in_pieces(&file[..at], 300), in_order(&file[..at]), "cut at {at}");
            for flip in [1, 0x10, 0x80] {
                let mut bad = file.to_vec();
                bad[at] ^= flip;
                assert_eq!(in_pieces(&bad, 300), in_order(&bad), "{flip} at {at}");
            }
        }
    }
}

#[test]
fn payloads_come_back_and_are_stable() {
    for (name, value) in samples() {
        let payload = dumped(&value);
        let back = payload::restore(&payload, &Limits::default()).unwrap();
        assert_eq!(digest(&back), digest(&value), "{name}");
        if !name.starts_with("large") {
            // Large tables have an order of their own.
            assert_eq!(dumped(&back), payload, "{name}");
        }
    }
}

#[test]
fn dump_in_golden_bytes() {
    // `SET k 10`, `DUMP k` on redis-server 7.0.15.
    assert_eq!(dumped(&string(b"10")), b"\x00\xc0\x0a\x0a\x00\x6e\x9f\x57\x45\x0e\xae\x63\xbb");
}

#[test]
fn refused_payloads_have_the_errors_of_restore() {
    let restore = |p: &[u8]| payload::restore(p, &Limits::default()).map(|_| ()).map_err(|e| e.reply());
    let footer = Err("ERR DUMP payload version or checksum are wrong");
    let format = Err("ERR Bad data format");
    let good = dumped(&string(b"10"));
    assert_eq!(restore(&good), Ok(()));
    assert_eq!(restore(b""), footer);
    assert_eq!(restore(&good[..9]), footer);
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1;
        assert_eq!(restore(&bad), footer, "bit of byte {i}");
    }
    assert_eq!(restore(&sealed(b"\x00\xc0\x0a", 13)), footer, "a version from the future");
    assert_eq!(restore(&sealed(b"\x00\xc0\x0a", 12)), Ok(()));
    for body in [
        &b"\x00\x05abc"[..],
        b"\xfa\x01a\x01b",
        b"\x02\x00",
        b"\x02\x02\x01a\x01a",
        b"\x00\x01ab",
        b"\x63\x01a",
    ] {
        assert_eq!(restore(&sealed(body, 10)), format, "{body:?}");
    }
}

/// A payload with a right footer.
fn sealed(body: &[u8], version: u16) -> Vec<u8> {
    let mut out = [body, &version.to_le_bytes()].concat();
    out.extend_from_slice(&checksum::crc64(&out).to_le_bytes());
    out
}

fn file_of(body: &[u8]) -> Vec<u8> {
    [b"REDIS0010", body, b"\xff\0\0\0\0\0\0\0\0"].concat()
}

#[test]
fn old_forms_are_read() {
    let restore = |body: &[u8]| payload::restore(&sealed(body, 6), &Limits::default()).unwrap();
    assert_eq!(digest(&restore(b"\x01\x02\x01a\x01b")), digest(&list(&["a", "b"])));
    assert_eq!(
        digest(&restore(b"\x03\x03\x01a\x031.5\x01b\xfe\x01c\xff")),
        digest(&zset(&[("a", 1.5), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY)]))
    );
    assert_eq!(digest(&restore(b"\x09\x0b\x01\x03foo\x03\x00bar\xff")), digest(&hash(&[("foo", "bar")])));
    // Total bytes, offset of the last entry, count; `a`, 2.
    let ziplist = b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf3\xff";
    let with = |head: &[u8]| [head, &[ziplist.len() as u8], ziplist].concat();
    assert_eq!(digest(&restore(&with(b"\x0a"))), digest(&list(&["a", "2"])));
    assert_eq!(digest(&restore(&with(b"\x0c"))), digest(&zset(&[("a", 2.0)])));
    assert_eq!(digest(&restore(&with(b"\x0d"))), digest(&hash(&[("a", "2")])));
    assert_eq!(digest(&restore(&with(b"\x0e\x01"))), digest(&list(&["a", "2"])));
}

#[test]
fn old_files_have_expiries_in_seconds_and_no_checksum() {
    let records: Vec<_> =
        Reader::open(&b"REDIS0003\xfe\x00\xfd\x10\0\0\0\x00\x01k\x01v\xff"[..], Limits::default())
            .unwrap()
            .collect::<Result<_>>()
            .unwrap();
    let Record::Entry(entry) = &records[1] else { panic!("{records:?}") };
    assert_eq!((entry.expire, &entry.key[..]), (Some(16_000), &b"k"[..]));
}

/// As 7.0.15 reads them: one millisecond before 1970 is no expiry, one second before is one.
#[test]
fn an_expiry_of_minus_one_millisecond_is_none() {
    let expiry = |bytes: &[u8]| {
        let file = file_of(&[bytes, b"\x00\x01k\x01v"].concat());
        let record = Reader::open(&file[..], Limits::default()).unwrap().next().unwrap().unwrap();
        let Record::Entry(entry) = record else { panic!("{record:?}") };
        entry.expire
    };
    assert_eq!(expiry(b"\xfc\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    assert_eq!(expiry(b"\xfc\xfe\xff\xff\xff\xff\xff\xff\xff"), Some(-2));
    assert_eq!(expiry(b"\xfd\xff\xff\xff\xff"), Some(-1000));
}

#[test]
fn errors_say_where_in_what_and_why() {
    for (file, want) in [
        (b"REDIX0010".to_vec(), "offset 9: expected the header of an RDB file, found 'REDIX0010'"),
        (b"REDIS0099".to_vec(), "offset 9: RDB version 99 is newer than this server understands"),
        (b"REDIS00x0".to_vec(), "offset 9: expected the version of an RDB file, found '00x0'"),
        (b"REDIS".to_vec(), "offset 0: expected the header of an RDB file, found the end of the data"),
        (file_of(b"\x1f\x01k"), "offset 10: value type 31 is not known to this version"),
        (
            file_of(b"\x02\x01k\x02\x01a\x01a"),
            "offset 17, key 'k': expected the members of a set: one occurs twice",
        ),
        (
            file_of(b"\x12\x01k\x01\x03"),
            "offset 14, key 'k': expected the kind of a list node (1 or 2), found 3",
        ),
        (
            file_of(b"\x07\x01k\x81\0\0\0\0\0\0\0\0"),
            "offset 21, key 'k': a value of the module 'AAAAAAAAA', which is not available here",
        ),
        (
            b"REDIS0010\xff\x01\0\0\0\0\0\0\0".to_vec(),
            "offset 18: RDB CRC error: expected 0000000000000001, the data gives ",
        ),
    ] {
        let error = read_all(&file).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
}

#[test]
fn empty_collections_of_old_files_are_skipped() {
    let file = file_of(b"\xfc\x01\0\0\0\0\0\0\0\x02\x01k\x00\x00\x01s\x01v");
    let mut reader = Reader::open(&file[..], Limits::default()).unwrap();
    let records: Vec<_> = reader.by_ref().collect::<Result<_>>().unwrap();
    assert!(matches!(&records[..], [Record::Entry(Entry { expire: None, .. })]), "{records:?}");
    assert_eq!(reader.empty_keys_skipped(), 1);
}

#[test]
fn slot_info_and_module_aux_are_records() {
    let file = file_of(b"\xf4\x05\x02\x01\xf7\x81\0\0\0\0\0\0\0\0\x02\x02\x01\x05\x00");
    let records = read_all(&file).unwrap();
    let [Record::SlotInfo { slot: 5, keys: 2, expires: 1 }, Record::ModuleAux { module }] = &records[..]
    else {
        panic!("{records:?}")
    };
    assert_eq!(module, "AAAAAAAAA");
}

#[test]
fn what_follows_the_file_is_given_back() {
    let bytes = [sample_file(), b"*1\r\n$4\r\nPING\r\n".to_vec()].concat();
    let mut reader = Reader::open(&bytes[..], Limits::default()).unwrap();
    reader.by_ref().for_each(|r| drop(r.unwrap()));
    let (mut rest, mut read) = reader.into_parts();
    rest.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"*1\r\n$4\r\nPING\r\n");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let file = small_file();
    assert!(read_all(&file).is_ok());
    for cut in 0..file.len() {
        assert!(read_all(&file[..cut]).is_err(), "cut at {cut} of {}", file.len());
    }
}

#[test]
fn a_flipped_bit_anywhere_is_an_error() {
    let file = small_file();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            // The sum of the body is its own proof; only in the version may a flip be harmless in itself.
            assert!(read_all(&bad).is_err(), "bit {bit} of byte {at}");
        }
    }
}

/// Without a checksum that ends the matter, every decoder sees the damage.
#[test]
fn flipped_bits_reach_no_panic_behind_the_checksum() {
    for (name, value) in samples() {
        if name.contains("large") || name.contains("long") {
            continue;
        }
        let payload = dumped(&value);
        let body = &payload[..payload.len() - 10];
        for at in 0..body.len().min(600) {
            for bit in 0..8 {
                let mut bad = body.to_vec();
                bad[at] ^= 1 << bit;
                if let Ok(value) = payload::restore(&sealed(&bad, 10), &Limits::default()) {
                    // What is accepted must be sound enough to be used.
                    let _ = (digest(&value), dumped(&value));
                }
            }
        }
    }
}

/// Counts that promise billions of elements must not allocate for them.
#[test]
fn hostile_counts_end_with_the_data() {
    for code in 0..=21u8 {
        for count in
            [&b"\x80\xff\xff\xff\xff"[..], b"\x81\xff\xff\xff\xff\xff\xff\xff\xff", b"\x81\0\0\0\x7f\0\0\0\0"]
        {
            let body = [&[code], count, b"\x01a\x01b"].concat();
            assert!(payload::restore(&sealed(&body, 10), &Limits::default()).is_err(), "type {code}");
        }
    }
}

fn small_file() -> Vec<u8> {
    let mut w = Writer::new(vec![], true);
    w.preamble(&Preamble {
        version: VERSION_WRITTEN,
        redis_version: "7.4.1",
        created: 0,
        used_memory: 0,
        replication: Some(ReplicationInfo { stream_db: 0, id: &"a".repeat(40), offset: 1 }),
        aof_base: false,
    })
    .unwrap();
    w.database(0, 4, 1).unwrap();
    let mut block = vec![];
    for (name, value) in [
        ("s", string(&b"abc".repeat(9))),
        ("l", list(&["a", "1"])),
        ("i", set(&["1", "2"])),
        ("h", hash(&[("f", "v")])),
        ("z", zset(&[("m", 1.5)])),
        ("x", stream(5)),
    ] {
        let meta = Meta { expire: Some(1 << 41), idle_s: Some(5), freq: Some(1) };
        encode_entry(&mut block, name.as_bytes(), value.as_ref(), &meta, Options::default());
    }
    w.entries(&block).unwrap();
    w.finish().unwrap()
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        (-40_000i64..40_000).prop_map(|n| n.to_string().into_bytes()),
        (0usize..5000, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let number = (-100_000i64..100_000).prop_map(|n| n.to_string().into_bytes());
    let score = prop_oneof![any::<f64>(), (-100i32..100).prop_map(f64::from)]
        .prop_filter("a number", |x| !x.is_nan())
        // A packed sorted set forgets the sign of a zero, as Redis's does.
        .prop_map(|x| if x == 0.0 { 0.0 } else { x });
    prop_oneof![
        text().prop_map(|s| string(&s)),
        prop::collection::vec(text(), 1..200).prop_map(|v| list(&v)),
        prop::collection::vec(text(), 1..200).prop_map(|v| set(&v)),
        prop::collection::vec(number, 1..600).prop_map(|v| set(&v)),
        prop::collection::vec((text(), text()), 1..200).prop_map(|v| hash(&v)),
        prop::collection::vec((text(), score), 1..200).prop_map(|v| zset(&v)),
        (3u64..400).prop_map(stream),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_value_comes_back(value in any_value(), compress: bool) {
        let mut out = vec![];
        payload::dump(&mut out, value.as_ref(), Options { compress });
        let back = payload::restore(&out, &Limits::default()).unwrap();
        prop_assert_eq!(digest(&back), digest(&value));
    }

    #[test]
    fn noise_with_a_right_footer_never_panics(
        code in 0u8..30, body in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let body = [&[code][..], &body].concat();
        let _ = payload::restore(&sealed(&body, 10), &Limits::default());
    }
}

/// Bytes changed, lost and added in payloads whose checksum is right all the same, as an attacker would send them.
#[test]
fn mutated_payloads_are_refused_or_sound() {
    let mut rng = Rng::new(20);
    let samples = samples();
    let mut accepted = 0;
    for _ in 0..6000 {
        let (_, value) = &samples[rng.below(samples.len() as u64) as usize];
        let mut payload = vec![];
        payload::dump(&mut payload, value.as_ref(), Options { compress: rng.chance(1, 4) });
        let mut body = payload[..payload.len() - 10].to_vec();
        mutate(&mut body, &mut rng);
        if let Ok(value) = payload::restore(&sealed(&body, 10), &Limits::default()) {
            accepted += 1;
            let value = used(value);
            let back = payload::restore(&dumped(&value), &Limits::default()).expect("our own payload");
            assert_eq!(digest(&back), digest(&value));
        }
    }
    assert!(accepted > 100, "only {accepted} mutants were accepted: nothing was proved");
}

fn mutate(body: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        // Heads say more than what follows them.
        let reach = if rng.chance(1, 2) { 40 } else { u64::MAX };
        let at = rng.below(reach.min(body.len() as u64)) as usize;
        match rng.below(4) {
            0 => body[at] = rng.next_u64() as u8,
            1 => body[at] ^= 1 << rng.below(8),
            2 if body.len() > 1 => drop(body.remove(at)),
            _ => body.insert(at, rng.next_u64() as u8),
        }
    }
    if rng.chance(1, 10) {
        body[0] = rng.below(22) as u8;
    }
}

/// A value after some commands have changed it.
fn used(mut value: Value) -> Value {
    let limits = Limits::default();
    match &mut value {
        Value::String(_) => {}
        Value::List(list) => {
            list.pop_front();
            list.push_front(b"new", &limits);
            list.push_back(&[b'n'; 500], &limits);
        }
        Value::Set(set) => {
            set.add(b"new", &limits);
            set.remove(b"a");
        }
        Value::Hash(hash) => {
            hash.set(b"f", b"new", &limits);
            hash.remove(b"g");
        }
        Value::SortedSet(zset) => {
            zset.add(b"a", 2.5, &limits);
            zset.remove(b"b");
        }
        Value::Stream(stream) => {
            if let Some(id) = stream.last_id().next() {
                stream.append(id, &["f", "v"], &limits);
            }
            if let Some(first) = stream.iter().next().map(|entry| entry.id) {
                stream.remove(first);
            }
        }
    }
    value
}
