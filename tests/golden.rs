//! Files that redis-server 7.4.1 wrote (`tests/golden/files-7.4`, with the commands that made them): they load, and what
//! we write for the same commands has the same bytes where the format leaves no choice.

mod common;
#[path = "it/workload.rs"]
#[allow(dead_code)] // other tests use the rest
mod workload;

use common::client::{Client, Reply};
use common::server::{Launch, Server, fresh_dir};
use keystead::persist::aof::stream::{Commands, Item};
use keystead::persist::rdb::checksum::crc64;
use keystead::persist::rdb::{Reader, Record};
use keystead::value::Limits;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
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

/// A file of one version: a string with an expiry, a list, and where there is one a checksum.
fn file_of_version(head: &[u8], body: &[u8], sum: bool) -> Vec<u8> {
    let mut file = [head, body, b"\xff"].concat();
    if sum {
        let sum = crc64(&file);
        file.extend_from_slice(&sum.to_le_bytes());
    }
    file
}

/// Every version that there was, and Valkey's own, with what each of them brought.
#[test]
fn every_version_is_read() {
    let old = b"\xfe\x00\xfd\x00\x48\x86\x7a\x00\x06string\x05hello\x01\x04list\x02\x01a\xc0\x07";
    let new = b"\xfa\x09redis-ver\x055.0.0\xfe\x00\xfb\x02\x01\xfc\x00\xd8\xc3\x2c\xbb\x03\x00\x00\x00\x06string\x05hello\x01\x04list\x02\x01a\xc0\x07";
    let slots = b"\xfe\x00\xf4\x40\x80\x02\x01\xfc\x00\xd8\xc3\x2c\xbb\x03\x00\x00\x00\x06string\x05hello\x01\x04list\x02\x01a\xc0\x07";
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for version in 1..=12 {
        let head = format!("REDIS{version:04}");
        let body = if version < 7 { &old[..] } else { &new[..] };
        files.push((head.clone(), file_of_version(head.as_bytes(), body, version > 4)));
    }
    files.push(("with slots".into(), file_of_version(b"REDIS0012", slots, true)));
    files.push(("VALKEY080".into(), file_of_version(b"VALKEY080", slots, true)));
    for (name, file) in files {
        let dir = fresh_dir();
        fs::write(dir.join("dump.rdb"), &file).expect("write");
        let server = Launch::subject().dir(&dir).start();
        let mut client = server.connect();
        client.expect("GET string", "\"hello\"");
        assert!(client.run("TTL string").int() > 1000, "{name}");
        client.expect("LRANGE list 0 -1", "[\"a\", \"7\"]");
        client.expect("DBSIZE", ":2");
    }
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
