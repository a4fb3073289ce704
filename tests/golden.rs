//! Files that redis-server 7.4.1 wrote (`tests/golden/files-7.4`, with the commands that made them): they load, and what
//! we write for the same commands has the same bytes where the format leaves no choice.

mod common;
#[path = "it/workload.rs"]
#[allow(dead_code)] // other tests use the rest
mod workload;

use common::client::{Client, Reply};
use common::server::{Launch, Server, fresh_dir};
use common::{SOON, wait_for};
use keystead::persist::aof::stream::{Commands, Item};
use keystead::persist::rdb::checksum::crc64;
use keystead::persist::rdb::{Reader, Record};
use keystead::value::Limits;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use workload::every_type;

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/files-7.4")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(files().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn text(name: &str) -> String {
    String::from_utf8(read(name)).expect("text")
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.trim().as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).expect("text"), 16).expect("hex")).collect()
}

/// A line of dumps.tsv.
struct Dump {
    key: String,
    kind: String,
    encoding: String,
    digest: String,
    payload: Vec<u8>,
}

fn dumps() -> Vec<Dump> {
    let rows = text("dumps.tsv");
    let rows = rows.lines().skip(1).map(|row| {
        let fields: Vec<_> = row.split('\t').collect();
        let [key, kind, encoding, digest, hex] = fields[..] else { panic!("{row}") };
        let [key, kind, encoding, digest] = [key, kind, encoding, digest].map(str::to_owned);
        Dump { key, kind, encoding, digest, payload: unhex(hex) }
    });
    rows.collect()
}

/// What was written after the first rewrite.
const LATER: [&str; 3] = ["written:later", "in:multi", "in:multi2"];

/// Every key of commands.txt is there with its type, its encoding and its digest; so are database 3 and the library.
fn holds_everything(client: &mut Client, later: usize) {
    let dumps = dumps();
    for dump in &dumps {
        let key = &dump.key;
        client.expect(&format!("TYPE {key}"), &format!("+{}", dump.kind));
        client.expect(&format!("DEBUG DIGEST-VALUE {key}"), &format!("[+{}]", dump.digest));
        has_encoding(client, dump);
    }
    client.expect("DBSIZE", &format!(":{}", dumps.len() + later));
    client.expect("PEXPIRETIME str:ttl", ":4102444800000");
    client.expect("PEXPIRETIME hfe:table", ":4102444805000");
    client.expect("HPEXPIRETIME hfe:packed FIELDS 3 a b c", "[:4102444800000, :-1, :4102444800000]");
    client.expect("XPENDING stream:one g1", "[:2, \"2-1\", \"4-1\", [[\"alice\", \"1\"], [\"bob\", \"1\"]]]");
    client.expect("FCALL f1 0 x", "\"x\"");
    client.ok("SELECT 3");
    client.expect("DBSIZE", ":1");
    client.expect("GET other:db", "\"x\"");
    client.ok("SELECT 0");
}

/// A short string that was changed in place is raw until it is loaded.
fn has_encoding(client: &mut Client, dump: &Dump) {
    let encoding = client.run(&format!("OBJECT ENCODING {}", dump.key)).text();
    let loaded = dump.encoding == "raw" && encoding == "embstr";
    assert!(encoding == dump.encoding || loaded, "{}: {encoding} for {}", dump.key, dump.encoding);
}

#[test]
fn data_files_load() {
    for name in ["all-types.rdb", "all-types-uncompressed.rdb"] {
        let dir = fresh_dir();
        fs::copy(files().join(name), dir.join("dump.rdb")).expect("copy");
        let server = Launch::subject().dir(&dir).start();
        holds_everything(&mut server.connect(), 0);
    }
}

/// A copy of one of the folders in a directory for a server.
fn folder(name: &str) -> PathBuf {
    let dir = fresh_dir();
    fs::create_dir(dir.join("appendonlydir")).expect("a folder");
    for file in fs::read_dir(files().join(name)).expect("the folder") {
        let file = file.expect("a file");
        fs::copy(file.path(), dir.join("appendonlydir").join(file.file_name())).expect("copy");
    }
    dir
}

fn serve(dir: &Path) -> Server {
    Launch::subject().args(&["--appendonly", "yes"]).dir(dir).start()
}

#[test]
fn folders_of_the_append_only_file_load() {
    for (name, later) in
        [("aof-incr-only", &LATER[..0]), ("aof-preamble", &LATER[..]), ("aof-no-preamble", &LATER[..])]
    {
        let server = serve(&folder(name));
        let mut client = server.connect();
        let there: Vec<_> =
            LATER.into_iter().filter(|key| client.run(&format!("EXISTS {key}")).int() == 1).collect();
        assert_eq!(there, later, "{name}");
        holds_everything(&mut client, later.len());
        if name == "aof-preamble" {
            assert_eq!(client.run("DEBUG DIGEST").text(), text("digest.txt").trim());
        }
    }
}

/// A folder of 7.4 goes on: an increment more, a rewrite, and nothing is lost.
#[test]
fn folders_of_the_append_only_file_are_continued() {
    let dir = folder("aof-preamble");
    let mut server = serve(&dir);
    let mut client = server.connect();
    client.ok("SET more x");
    client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    common::wait_for("the rewrite ends", common::SOON, || client.info("aof_rewrite_in_progress") == "0");
    let manifest =
        fs::read_to_string(dir.join("appendonlydir/appendonly.aof.manifest")).expect("the manifest");
    assert_eq!(
        manifest,
        "file appendonly.aof.3.base.rdb seq 3 type b\nfile appendonly.aof.3.incr.aof seq 3 type i\n"
    );
    let before = client.run("DEBUG DIGEST").text();
    let _ = client.try_run("SHUTDOWN NOSAVE");
    server.wait_exit();
    server.start_again();
    let mut client = server.connect();
    assert_eq!(client.run("DEBUG DIGEST").text(), before);
    holds_everything(&mut client, LATER.len() + 1);
}

/// Where the bytes of a value are ours to choose, and what we chose.
const CHOICES: [(&str, &str); 7] = [
    ("hfe:allttl", "the time in front is the first of its fields'; Redis keeps an older bound"),
    ("list:many", "nodes are filled to their limit; Redis estimates what an element adds"),
    ("set:packed", "a form that Redis 7.0 loads"),
    ("set:table", "the order of a table"),
    ("stream:empty", "a form that Redis 7.0 loads"),
    ("stream:many", "a form that Redis 7.0 loads"),
    ("stream:one", "a form that Redis 7.0 loads, and times of consumers"),
];

fn is_choice(key: &str) -> bool {
    CHOICES.iter().any(|(name, _)| *name == key)
}

/// The records of the entries of a file, each with the bytes that make it up, by database and key.
fn entries(file: &[u8]) -> BTreeMap<(u32, String), Vec<u8>> {
    let limits = Limits { hash_max_listpack_entries: 512, ..Limits::default() };
    let mut reader = Reader::open(file, limits).expect("a header");
    let mut entries = BTreeMap::new();
    let mut begin = reader.offset();
    while let Some(record) = reader.next() {
        let record = record.expect("a record");
        let bytes = file[begin as usize..reader.offset() as usize].to_vec();
        begin = reader.offset();
        if let Record::Entry(entry) = record {
            entries.insert((entry.db, String::from_utf8(entry.key).expect("text")), bytes);
        }
    }
    entries
}

fn run_commands(client: &mut Client) {
    for line in text("commands.txt").lines() {
        let reply = client.run(line);
        assert!(!matches!(reply, Reply::Error(_)), "{}: {reply}", &line[..line.len().min(60)]);
    }
    client.ok("SET written:after 1");
}

#[test]
fn the_same_commands_make_the_same_data_file() {
    let server = Launch::subject().args(&["--rdbcompression", "no"]).start();
    let mut client = server.connect();
    run_commands(&mut client);
    holds_everything(&mut client, 0);
    client.ok("SAVE");
    let ours = entries(&fs::read(server.dir().join("dump.rdb")).expect("the file"));
    let theirs = entries(&read("all-types-uncompressed.rdb"));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let differ: Vec<_> = ours.iter().filter(|(name, bytes)| theirs[*name] != **bytes).collect();
    let names: Vec<_> = differ.iter().map(|((_, key), _)| key.as_str()).collect();
    assert_eq!(names, CHOICES.map(|(name, _)| name));
    // Without groups, the forms of a stream differ in their number only.
    for (name, bytes) in differ.iter().filter(|((_, key), _)| key == "stream:many" || key == "stream:empty") {
        assert_eq!(bytes[1..], theirs[*name][1..], "{name:?}");
    }
}

#[test]
fn payloads_are_restored_and_dumped_again() {
    // Which matches a compressed string has is the compressor's choice.
    let server = Launch::subject().args(&["--rdbcompression", "no"]).start();
    let mut client = server.connect();
    let plain = entries(&read("all-types-uncompressed.rdb"));
    for dump in dumps() {
        let key = dump.key.as_bytes();
        let reply = client.cmd(&[&b"RESTORE"[..], key, b"0", &dump.payload]);
        assert_eq!(reply.to_string(), "+OK", "{}", dump.key);
        // A payload says nothing of an expiry, a digest does.
        match dump.key.as_str() {
            "hfe:table" => client.expect("PEXPIREAT hfe:table 4102444805000", ":1"),
            "str:ttl" => client.expect("PEXPIREAT str:ttl 4102444800000", ":1"),
            _ => {}
        }
        client.expect(&format!("DEBUG DIGEST-VALUE {}", dump.key), &format!("[+{}]", dump.digest));
        has_encoding(&mut client, &dump);
        let ours = client.cmd(&[&b"DUMP"[..], key]);
        let ours = ours.bytes().expect("a payload");
        if !is_choice(&dump.key) {
            // Type and body. Behind them stand the version, the lowest that holds it with us and 12 always with 7.4,
            // and a checksum.
            let (kind, body) = ours[..ours.len() - 10].split_first().expect("a type");
            let expected = &plain[&(0, dump.key.clone())];
            assert!(*kind == dump.payload[0] && expected.ends_with(body), "{}", dump.key);
        }
    }
}

#[test]
fn libraries_are_restored_and_dumped_again() {
    let server = Server::subject();
    let mut client = server.connect();
    let payload = unhex(&text("function-dump.hex"));
    let reply = client.cmd(&[&b"FUNCTION"[..], b"RESTORE", &payload]);
    assert_eq!(reply.to_string(), "+OK");
    client.expect("FCALL f1 0 x", "\"x\"");
    client.ok("SET k v");
    client.expect("FCALL_RO ro 1 k", "\"v\"");
    let ours = client.run("FUNCTION DUMP");
    client.ok("FUNCTION FLUSH");
    let reply = client.cmd(&[&b"FUNCTION"[..], b"RESTORE", ours.bytes().expect("a payload")]);
    assert_eq!(reply.to_string(), "+OK");
    client.expect("FCALL f1 0 x", "\"x\"");
}

/// The commands of a file, without the times at which entries of streams were delivered.
fn commands(file: &[u8]) -> Vec<String> {
    let mut reader = Commands::new(file, Vec::new(), 0);
    let mut lines = Vec::new();
    while let Some(item) = reader.next_item().expect("a command") {
        let Item::Command(argv) = item else { continue };
        let mut argv: Vec<_> = argv.iter().map(|word| word.escape_ascii().to_string()).collect();
        if argv[0] == "XCLAIM" {
            let at = argv.iter().position(|word| word == "TIME").expect("a time");
            "then".clone_into(&mut argv[at + 1]);
        }
        lines.push(argv.join(" "));
    }
    lines
}

#[test]
fn the_same_commands_make_the_same_increment() {
    let mut server = Launch::subject().args(&["--appendonly", "yes"]).start();
    let mut client = server.connect();
    run_commands(&mut client);
    let _ = client.try_run("SHUTDOWN NOSAVE");
    server.wait_exit();
    let ours = fs::read(server.dir().join("appendonlydir/appendonly.aof.1.incr.aof")).expect("the increment");
    let theirs = commands(&read("aof-incr-only/appendonly.aof.1.incr.aof"));
    assert_eq!(commands(&ours), theirs);
}

/// A base of commands has the same commands: for each key, whatever the order of keys and of the elements of tables.
#[test]
fn the_same_data_make_the_same_base_of_commands() {
    let dir = folder("aof-no-preamble");
    let launch = Launch::subject().args(&["--appendonly", "yes", "--aof-use-rdb-preamble", "no"]).dir(&dir);
    let server = launch.start();
    let mut client = server.connect();
    client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    common::wait_for("the rewrite ends", common::SOON, || client.info("aof_rewrite_in_progress") == "0");
    let ours = fs::read(dir.join("appendonlydir/appendonly.aof.4.base.aof")).expect("the base");
    let theirs = read("aof-no-preamble/appendonly.aof.3.base.aof");
    let sorted = |file: &[u8]| {
        let lines = commands(file).into_iter();
        // The order of a table decides which members come in one command.
        let lines = lines.filter(|line| !line.contains("set:table"));
        // Scores are written as ZSCORE tells them; 7.4 writes 17 digits.
        let mut lines: Vec<_> = lines.map(|line| line.replace("1e+17", "100000000000000000")).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&ours), sorted(&theirs));
}

/// A file of one version.
fn file_of_version(version: u32, body: &[u8]) -> Vec<u8> {
    let head = if version == VALKEY { format!("VALKEY{version:03}") } else { format!("REDIS{version:04}") };
    let mut file = [head.as_bytes(), body, b"\xff"].concat();
    if version > 4 {
        let sum = crc64(&file);
        file.extend_from_slice(&sum.to_le_bytes());
    }
    file
}

const VALKEY: u32 = 80;

/// A short string with its length.
fn short(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() < 64 {
        [&[bytes.len() as u8], bytes].concat()
    } else {
        [&(bytes.len() as u16 | 0x4000).to_be_bytes(), bytes].concat()
    }
}

/// A listpack of short texts; numbers are kept as such.
fn listpack(elements: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        match element.parse::<i64>() {
            Ok(n @ 0..=127) => body.extend_from_slice(&[n as u8, 1]),
            Ok(n) => body.extend_from_slice(&[b"\xf4", &n.to_le_bytes()[..], b"\x09"].concat()),
            Err(_) => {
                let len = element.len() as u8;
                body.extend_from_slice(&[&[0x80 | len], element.as_bytes(), &[1 + len]].concat());
            }
        }
    }
    let size = (body.len() + 7) as u32;
    [&size.to_le_bytes()[..], &(elements.len() as u16).to_le_bytes(), &body, b"\xff"].concat()
}

/// `a` and 7.
const ZIPLIST: &[u8] = b"\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf8\xff";
const TIME_MS: &[u8] = b"\0\xd8\xc3\x2c\xbb\x03\0\0";

/// A stream of one entry and a group with it pending, in the first, second or third form.
fn stream(form: usize) -> Vec<u8> {
    let id = [&1_u64.to_be_bytes()[..], &0_u64.to_be_bytes()].concat();
    let entries = listpack(&["1", "0", "1", "f", "0", "2", "0", "0", "v", "4"]);
    let mut out = [b"\x01", &short(&id)[..], &short(&entries), b"\x01\x01\0"].concat();
    if form > 1 {
        // The first id, the greatest deleted one, and how many were added.
        out.extend_from_slice(b"\x01\0\0\0\x01");
    }
    out.extend_from_slice(b"\x01\x05group\x01\0");
    if form > 1 {
        out.push(1);
    }
    out.extend_from_slice(&[b"\x01", &id[..], TIME_MS, b"\x01\x01\x05alice", TIME_MS].concat());
    if form > 2 {
        out.extend_from_slice(TIME_MS);
    }
    [&out, &b"\x01"[..], &id].concat()
}

/// Each type of value with the version that brought it, a command and its answer.
fn types() -> Vec<(u32, u8, Vec<u8>, &'static str, &'static str)> {
    let pairs = "[\"a\", \"7\"]";
    let entry = "[[\"1-0\", [\"f\", \"v\"]]]";
    let packed = short(&listpack(&["a", "7"]));
    let timed = [TIME_MS, &b"\x02\0\x01a\x017\x01\x01b\x018"[..]].concat();
    let timed_packed = [TIME_MS, &short(&listpack(&["b", "8", "4102444800000", "a", "7", "0"]))].concat();
    vec![
        (1, 0, b"\x05hello".to_vec(), "GET", "\"hello\""),
        (1, 0, b"\xc0\x85".to_vec(), "GET", "\"-123\""),
        (1, 0, b"\xc1\x39\x30".to_vec(), "GET", "\"12345\""),
        (1, 0, b"\xc2\x15\xcd\x5b\x07".to_vec(), "GET", "\"123456789\""),
        (1, 0, b"\xc3\x05\x14\0a\xe0\x0a\0".to_vec(), "GET", "\"aaaaaaaaaaaaaaaaaaaa\""),
        (1, 1, b"\x02\x01a\xc0\x07".to_vec(), "LRANGE 0 -1", pairs),
        (1, 2, b"\x01\x01a".to_vec(), "SMEMBERS", "[\"a\"]"),
        (
            1,
            3,
            b"\x03\x01a\x011\x01b\x032.5\x01c\xfe".to_vec(),
            "ZRANGE 0 -1 WITHSCORES",
            "[\"a\", \"1\", \"b\", \"2.5\", \"c\", \"inf\"]",
        ),
        (1, 4, b"\x01\x01a\x017".to_vec(), "HGETALL", pairs),
        (2, 9, b"\x07\x01\x01a\x01\x007\xff".to_vec(), "HGETALL", pairs),
        (2, 10, short(ZIPLIST), "LRANGE 0 -1", pairs),
        (2, 11, b"\x0c\x02\0\0\0\x02\0\0\0\x01\0\x05\0".to_vec(), "SMEMBERS", "[\"1\", \"5\"]"),
        (2, 12, short(ZIPLIST), "ZRANGE 0 -1 WITHSCORES", pairs),
        (4, 13, short(ZIPLIST), "HGETALL", pairs),
        (7, 14, [b"\x01", &short(ZIPLIST)[..]].concat(), "LRANGE 0 -1", pairs),
        (
            8,
            5,
            [b"\x01\x01a", &1.5_f64.to_le_bytes()[..]].concat(),
            "ZRANGE 0 -1 WITHSCORES",
            "[\"a\", \"1.5\"]",
        ),
        (9, 15, stream(1), "XRANGE - +", entry),
        (10, 16, packed.clone(), "HGETALL", pairs),
        (10, 17, packed.clone(), "ZRANGE 0 -1 WITHSCORES", pairs),
        (
            10,
            18,
            [b"\x02\x02", &packed[..], b"\x01\x05plain"].concat(),
            "LRANGE 0 -1",
            "[\"a\", \"7\", \"plain\"]",
        ),
        (10, 19, stream(2), "XRANGE - +", entry),
        (11, 20, short(&listpack(&["a"])), "SMEMBERS", "[\"a\"]"),
        (11, 21, stream(3), "XRANGE - +", entry),
        (12, 24, timed, "HPEXPIRETIME FIELDS 2 a b", "[:-1, :4102444800000]"),
        (12, 25, timed_packed, "HPEXPIRETIME FIELDS 2 a b", "[:-1, :4102444800000]"),
    ]
}

/// The body of a file with all that a version knows, and the questions to its keys with the answers.
fn body_of_version(version: u32) -> (Vec<u8>, Vec<(String, &'static str)>) {
    let (mut body, mut questions) = (Vec::new(), Vec::new());
    if version >= 7 {
        body.extend_from_slice(b"\xfa\x09redis-ver\x055.0.0");
    }
    if version >= 10 {
        let code = b"#!lua name=lib\nredis.register_function('f', function() return 1 end)";
        body.extend_from_slice(&[b"\xf5", &short(code)[..]].concat());
        questions.push(("FCALL f 0".into(), ":1"));
    }
    body.extend_from_slice(b"\xfe\0");
    if version >= 7 {
        body.extend_from_slice(b"\xfb\x40\x80\x02");
    }
    if version >= 12 {
        body.extend_from_slice(b"\xf4\x40\x80\x02\x01");
    }
    for (n, (_, code, value, command, answer)) in types().into_iter().filter(|t| t.0 <= version).enumerate() {
        let key = format!("{n}:{code}");
        match n % 4 {
            0 => {
                body.extend_from_slice(b"\xfd\0\x48\x86\x7a");
                questions.push((format!("EXPIRETIME {key}"), ":2055620608"));
            }
            1 if version >= 3 => {
                body.extend_from_slice(&[b"\xfc", TIME_MS].concat());
                questions.push((format!("PEXPIRETIME {key}"), ":4102444800000"));
            }
            2 if version >= 9 => body.extend_from_slice(b"\xf9\x07"),
            3 if version >= 9 => body.extend_from_slice(b"\xf8\x05"),
            _ => questions.push((format!("TTL {key}"), ":-1")),
        }
        body.push(code);
        body.extend_from_slice(&short(key.as_bytes()));
        body.extend_from_slice(&value);
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        questions.push((format!("{name} {key} {rest}").trim_end().to_owned(), answer));
        if code == 15 || code == 19 || code == 21 {
            questions.push((format!("XPENDING {key} group"), "[:1, \"1-0\", \"1-0\", [[\"alice\", \"1\"]]]"));
        }
    }
    (body, questions)
}

/// Every version that there was, and Valkey's own, each with every type of value and every mark that it knows. Up to
/// its own version a real server reads the same file and says the same.
#[test]
fn every_type_of_every_version_is_read() {
    for version in (1..=12).chain([VALKEY]) {
        let (body, questions) = body_of_version(version);
        let file = file_of_version(version, &body);
        let load = |launch: Launch| {
            let dir = fresh_dir();
            fs::write(dir.join("dump.rdb"), &file).expect("write");
            let server = launch.dir(&dir).start();
            let mut client = server.connect();
            for (question, answer) in &questions {
                let told = client.run(question).to_string();
                assert_eq!(told, *answer, "version {version}: {question}");
            }
            client.run("DEBUG DIGEST").text()
        };
        let digest = load(Launch::subject());
        if version <= 10 {
            assert_eq!(digest, load(Launch::real()), "version {version}");
        }
    }
}

/// Times of fields came with 7.4: a file that has some says so, and older servers refuse it for that.
#[test]
fn a_file_says_the_lowest_version_that_knows_all_of_it() {
    let mut server = Launch::subject().args(&["--appendonly", "yes"]).start();
    let mut client = server.connect();
    let path = server.dir().join("dump.rdb");
    let says = |client: &mut Client, head: &[u8]| {
        client.ok("SAVE");
        assert_eq!(&fs::read(&path).expect("the file")[..9], head);
    };
    client.run("HSET h a 1 b 2");
    says(&mut client, b"REDIS0010");
    client.expect("HPEXPIREAT h 9999999999999 FIELDS 1 a", "[:1]");
    says(&mut client, b"REDIS0012");
    client.expect("HPERSIST h FIELDS 1 a", "[:1]");
    says(&mut client, b"REDIS0010");
    client.ok("SELECT 9");
    client.run("HSET h a 1 b 2");
    client.expect("HPEXPIREAT h 9999999999999 FIELDS 1 a", "[:1]");
    client.run("BGREWRITEAOF");
    wait_for("the rewrite", SOON, || {
        client.info("aof_rewrite_in_progress") == "0" && client.info("aof_rewrites") != "0"
    });
    let base = server.dir().join("appendonlydir/appendonly.aof.2.base.rdb");
    assert_eq!(&fs::read(base).expect("the base")[..9], b"REDIS0012");
    says(&mut client, b"REDIS0012");
    let _ = client.try_run("SHUTDOWN NOSAVE");
    server.wait_exit();
    let check = Command::new("redis-check-rdb").arg(&path).output().expect("redis-check-rdb");
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(told.contains("Can't handle RDB format version 12"), "{told}");
}

/// One data file, ten times from one server to the other, each time with writes.
#[test]
fn a_data_file_changes_hands_between_us_and_redis() {
    let dir = fresh_dir();
    let mut before: Option<String> = None;
    for turn in 0..10 {
        let launch = if turn % 2 == 0 { Launch::subject() } else { Launch::real() };
        let mut server = launch.dir(&dir).start();
        let mut client = server.connect();
        match &before {
            Some(before) => assert_eq!(&client.run("DEBUG DIGEST").text(), before, "turn {turn}"),
            None => {
                every_type(&mut client, true);
                client
                    .pipeline(&["XGROUP CREATE stream g 0", "XREADGROUP GROUP g c COUNT 2 STREAMS stream >"]);
            }
        }
        client.pipeline(&[
            format!("SET turn:{turn} x"),
            "INCR turns".into(),
            format!("XADD stream * turn {turn}"),
            format!("RPUSH longlist {}", "y".repeat(9000 * (turn % 2))),
        ]);
        before = Some(client.run("DEBUG DIGEST").text());
        client.ok("SAVE");
        let _ = client.try_run("SHUTDOWN NOSAVE");
        server.wait_exit();
    }
}
