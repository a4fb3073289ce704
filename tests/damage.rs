//! Damaged data: every bit and every length of small files, and payloads whose checksum nobody compares.
//!
//! What must hold: an error that names the place and what was expected there, no crash, and no memory beyond what the
//! file honestly holds.

mod common;

use common::client::{Client, encode, words};
use common::server::{Launch, fresh_dir};
use keystead::base::rng::Rng;
use keystead::persist::aof::Manifest;
use keystead::persist::aof::stream::Commands;
use keystead::persist::rdb::checksum::crc64;
use keystead::persist::rdb::{Error, Reader, payload};
use keystead::resp::decode::decode;
use keystead::value::Limits;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(dir).expect("the seeds").map(|file| file.expect("a file").path());
    files
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a seed"))
        })
        .collect()
}

/// Data files with the checksum that they should have.
fn data_files() -> Vec<(String, Vec<u8>)> {
    let mut files = corpus("rdb");
    for (_, file) in &mut files {
        let body = file.len() - 8;
        let sum = crc64(&file[..body]);
        file[body..].copy_from_slice(&sum.to_le_bytes());
    }
    files
}

fn load(file: &[u8], verify: bool) -> Result<usize, Error> {
    let limits = Limits { verify_checksums: verify, ..Limits::default() };
    let mut records = 0;
    for record in Reader::with_checksum(file, limits, verify)? {
        record?;
        records += 1;
    }
    Ok(records)
}

/// The error names a place in the file.
fn names_its_place(error: &Error, file: &[u8], what: &str) {
    let text = error.to_string();
    assert!(text.starts_with(&format!("offset {}", error.offset)), "{what}: {text}");
    assert!(error.offset <= file.len() as u64, "{what}: {text}");
}

#[test]
fn a_data_file_that_is_cut_off_says_what_is_missing() {
    for (name, file) in data_files() {
        load(&file, true).unwrap_or_else(|e| panic!("{name}: {e}"));
        for end in 0..file.len() {
            let error = load(&file[..end], true).expect_err("it is cut off");
            let text = error.to_string();
            assert!(
                text.contains("expected ") && text.ends_with("found the end of the data"),
                "{name} {end}: {text}"
            );
            // Numbers of a fixed width are read as a whole or not at all.
            assert!(
                (end.saturating_sub(16)..=end).contains(&(error.offset as usize)),
                "{name} {end}: {text}"
            );
        }
    }
}

#[test]
fn no_bit_of_a_data_file_can_change_unnoticed() {
    for (name, file) in data_files() {
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Err(error) = load(&bad, true) {
                names_its_place(&error, &bad, &name);
                continue;
            }
            // Digits of the version that are another version's, and the mark of the field with it.
            let version = (5..9).contains(&(bit / 8));
            assert!(version, "{name}: bit {bit} was not missed");
        }
    }
}

/// Without a checksum a changed file may say something else, but nothing that does not hold together.
#[test]
fn no_bit_and_no_length_of_an_unchecked_data_file_does_harm() {
    let hostile: [&[u8]; 6] = [
        b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x81\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\xff\xff\xff\xff",
        b"\x80\x00\xff\xff\xff",
        b"\xc3\x05\x80\x7f\xff\xff\xff",
        b"\x7f\xff",
    ];
    for (name, file) in data_files() {
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            bounded(&name, &bad);
        }
        for at in 0..file.len() {
            for length in hostile {
                let mut bad = file[..at].to_vec();
                bad.extend_from_slice(length);
                bad.extend_from_slice(&file[at + 1..]);
                bounded(&name, &bad);
            }
            // Another type than the value's, wherever that stands.
            for kind in 0..=25 {
                let mut bad = file.clone();
                bad[at] = kind;
                bounded(&name, &bad);
            }
        }
    }
}

fn bounded(name: &str, file: &[u8]) {
    memory::reset();
    if let Err(error) = load(file, false) {
        names_its_place(&error, file, name);
    }
    // The reader's buffer, room for the elements that a count may promise, and what strings unpack to.
    let most = (8 << 20) + 400 * file.len();
    assert!(memory::peak() < most, "{name}: {} bytes for b\"{}\"", memory::peak(), file.escape_ascii());
}

/// What each thread has allocated, and the most that it had since it asked.
mod memory {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<usize> = const { Cell::new(0) };
        static PEAK: Cell<usize> = const { Cell::new(0) };
    }

    struct Counting;

    // SAFETY: it hands everything on to the system's allocator.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let now = NOW.get().saturating_add(layout.size());
            NOW.set(now);
            PEAK.set(PEAK.get().max(now));
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            NOW.set(NOW.get().saturating_sub(layout.size()));
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    pub fn reset() {
        NOW.set(0);
        PEAK.set(0);
    }

    pub fn peak() -> usize {
        PEAK.get()
    }
}

fn read_commands(file: &[u8]) -> (u64, Option<String>) {
    let mut commands = Commands::new(file, Vec::new(), 0);
    loop {
        match commands.next_item() {
            Ok(Some(_)) => {}
            Ok(None) => return (commands.offset(), None),
            Err(e) => return (e.offset, Some(e.to_string())),
        }
    }
}

#[test]
fn no_bit_and_no_length_of_an_increment_does_harm() {
    for (name, file) in corpus("aof") {
        for end in 0..file.len() {
            let (offset, error) = read_commands(&file[..end]);
            let whole = offset == end as u64;
            assert_eq!(error.is_none(), whole, "{name} {end}");
            if let Some(error) = error {
                assert_eq!(
                    error,
                    format!("offset {offset}: expected the rest of a command, found the end of the data")
                );
            }
        }
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            memory::reset();
            let (offset, error) = read_commands(&bad);
            if let Some(error) = error {
                assert!(error.starts_with(&format!("offset {offset}: expected ")), "{name}: {error}");
            }
            assert!(memory::peak() < (4 << 20) + 8 * bad.len(), "{name}: {} bytes", memory::peak());
        }
    }
    for hostile in
        ["*1\r\n$4611686018427387903\r\nabc", "*2147483647\r\n$1\r\na\r\n", "*1\r\n$99999999999999999999\r\n"]
    {
        memory::reset();
        let (_, error) = read_commands(hostile.as_bytes());
        assert!(error.is_some() && memory::peak() < 4 << 20, "{hostile:?}: {} bytes", memory::peak());
    }
}

/// A reply of another server, which a sentinel reads, has lengths within lengths.
#[test]
fn no_length_of_a_reply_takes_memory_for_what_is_not_there() {
    let heads = "*1000000\r\n%1000000\r\n".repeat(50);
    let reply = heads + &":1\r\n".repeat(1 << 16);
    memory::reset();
    assert_eq!(decode(reply.as_bytes()), Ok(None));
    assert!(memory::peak() < 32 * reply.len(), "{} bytes for {}", memory::peak(), reply.len());
}

#[test]
fn no_bit_of_a_manifest_does_harm() {
    for (name, file) in corpus("manifest") {
        for end in 0..file.len() {
            if let Err(e) = Manifest::parse(&file[..end]) {
                let text = e.to_string();
                assert!(
                    text.contains("at line ") || text == "Found an empty AOF manifest",
                    "{name} {end}: {text}"
                );
            }
        }
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Err(e) = Manifest::parse(&bad) {
                assert!(e.line > 0 && !e.text.is_empty(), "{name}: {e}");
            }
        }
    }
}

/// The log of a server that does not start with what is in `dir`.
fn refusal(dir: &Path, args: &[&str]) -> String {
    let out = Command::new(common::server::subject())
        .args(["--port", "0", "--unixsocket", "s.sock", "--save", "", "--dir"])
        .arg(dir)
        .args(args)
        .output()
        .expect("start the server");
    let log = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(1), "{log}");
    log
}

#[test]
fn a_server_names_the_file_the_place_and_what_it_expected() {
    let (_, file) = data_files().into_iter().find(|(name, _)| name == "small-values").expect("a seed");
    for end in (9..file.len()).step_by(file.len() / 8) {
        let dir = fresh_dir();
        fs::write(dir.join("dump.rdb"), &file[..end]).expect("write");
        let log = refusal(&dir, &[]);
        let error = load(&file[..end], true).expect_err("it is cut off");
        let said = format!("Fatal error loading the DB dump.rdb: {error}. Exiting.");
        assert!(log.contains(&said), "{end}: {log}");
    }
    let dir = fresh_dir();
    let folder = dir.join("appendonlydir");
    fs::create_dir(&folder).expect("a folder");
    let manifest =
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n";
    fs::write(folder.join("appendonly.aof.manifest"), manifest).expect("write");
    fs::write(folder.join("appendonly.aof.1.incr.aof"), "").expect("write");
    fs::write(folder.join("appendonly.aof.1.base.rdb"), &file[..file.len() / 2]).expect("write");
    let log = refusal(&dir, &["--appendonly", "yes"]);
    let error = load(&file[..file.len() / 2], true).expect_err("it is cut off");
    let said =
        format!("Error reading the RDB base file appendonly.aof.1.base.rdb, AOF loading aborted: {error}");
    assert!(log.contains(&said), "{log}");
    fs::write(folder.join("appendonly.aof.1.base.rdb"), &file).expect("write");
    fs::write(folder.join("appendonly.aof.1.incr.aof"), "*1\r\n$4\r\nPING\r\n*1\r\n#4\r\nPING\r\n")
        .expect("write");
    let log = refusal(&dir, &["--appendonly", "yes"]);
    assert!(
        log.contains("Bad file format reading the append only file appendonly.aof.1.incr.aof (offset 14: expected a command, found "),
        "{log}"
    );
}

/// A data file of these records.
fn file_of(records: &[u8]) -> Vec<u8> {
    let mut file = [b"REDIS0010", records, b"\xff"].concat();
    let sum = crc64(&file);
    file.extend_from_slice(&sum.to_le_bytes());
    file
}

/// A data file that holds this function library and nothing else.
fn file_of_library(code: &[u8]) -> Vec<u8> {
    file_of(&[&b"\xf5\x80"[..], &(code.len() as u32).to_be_bytes(), code].concat())
}

/// No server writes a key twice, so one of the two is wrong. Redis ends by an assertion.
#[test]
fn a_key_that_stands_twice_in_a_file_is_refused() {
    let dir = fresh_dir();
    let key = |db: u8, value: u8| [0xfe, db, 0, 1, b'k', 1, value];
    fs::write(dir.join("dump.rdb"), file_of(&[key(0, b'a'), key(1, b'b'), key(0, b'c')].concat()))
        .expect("write");
    let log = refusal(&dir, &[]);
    // Whichever of the two came second: they are read side by side.
    let said = |offset: u32| {
        format!(
            "Fatal error loading the DB dump.rdb: offset {offset}, key 'k': expected a key that is not there yet: \
             it occurs twice. Exiting."
        )
    };
    assert!(log.contains(&said(16)) || log.contains(&said(30)), "{log}");
}

/// Nothing in these formats contains another of its kind without end; what pretends to is refused at the first level,
/// or by the parser of the language that it is written in.
#[test]
fn what_is_nested_deeply_is_refused() {
    const DEPTH: usize = 200_000;
    memory::reset();
    let (offset, error) = read_commands("*1\r\n".repeat(DEPTH).as_bytes());
    assert!(error.is_some_and(|e| e.starts_with("offset 0: expected a command, found ")), "offset {offset}");
    assert!(memory::peak() < 8 << 20, "{} bytes", memory::peak());

    let code = format!("#!lua name=deep\nlocal x = {}1{}", "{".repeat(DEPTH), "}".repeat(DEPTH));
    let file = file_of_library(code.as_bytes());
    load(&file, true).expect("the file itself is sound");
    let dir = fresh_dir();
    fs::write(dir.join("dump.rdb"), &file).expect("write");
    let log = refusal(&dir, &[]);
    assert!(log.contains("A function library cannot be loaded: "), "{log}");

    let server = Launch::subject().start();
    let mut client = server.connect();
    let payload = {
        let mut out = file[9..file.len() - 9].to_vec();
        out.extend_from_slice(b"\x0a\x00");
        let sum = crc64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    };
    for words in [
        &[&b"FUNCTION"[..], b"RESTORE", &payload][..],
        &[b"FUNCTION", b"LOAD", code.as_bytes()],
        &[b"EVAL", format!("return {}1{}", "(".repeat(DEPTH), ")".repeat(DEPTH)).as_bytes(), b"0"],
    ] {
        let reply = client.cmd(words).to_string();
        assert!(reply.starts_with("-ERR "), "{reply}");
    }
    client.expect("FUNCTION LIST", "[]");
    // As a key's value, a library is of an unknown type.
    let reply = client.cmd(&[&b"RESTORE"[..], b"k", b"0", &payload]).to_string();
    assert_eq!(reply, "-ERR Bad data format");
    client.expect("DBSIZE", ":0");
}

/// Transactions do not nest: a file of nothing but their beginnings is read and has no effect.
#[test]
fn transactions_that_begin_again_and_again_have_no_effect() {
    let dir = fresh_dir();
    let folder = dir.join("appendonlydir");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("appendonly.aof.manifest"), "file appendonly.aof.1.incr.aof seq 1 type i\n")
        .expect("write");
    let set = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n";
    let text = [set, &"*1\r\n$5\r\nMULTI\r\n".repeat(50_000), set].concat();
    fs::write(folder.join("appendonly.aof.1.incr.aof"), text).expect("write");
    let server = Launch::subject().dir(&dir).args(&["--appendonly", "yes"]).start();
    let mut client = server.connect();
    client.expect("DBSIZE", ":1");
    assert!(
        server.log().contains("Revert incomplete MULTI/EXEC transaction in AOF file"),
        "{}",
        server.log()
    );
    let left = fs::read_to_string(folder.join("appendonly.aof.1.incr.aof")).expect("the file");
    assert_eq!(left, set);
    drop(server);
    let _ = fs::remove_dir_all(&dir);
}

/// Commands that read and change a key of any type; those of another type are refused.
const COMMANDS: [&str; 44] = [
    "TYPE k",
    "OBJECT ENCODING k",
    "STRLEN k",
    "GETRANGE k 0 10",
    "APPEND k x",
    "INCR k",
    "SETRANGE k 3 y",
    "BITCOUNT k",
    "PFCOUNT k",
    "PFADD k a",
    "LLEN k",
    "LRANGE k 0 -1",
    "LPUSH k a 5",
    "RPOP k",
    "LINDEX k 3",
    "LREM k 0 a",
    "LINSERT k BEFORE a b",
    "LSET k 0 z",
    "LTRIM k 0 5",
    "SCARD k",
    "SMEMBERS k",
    "SADD k a 7",
    "SPOP k",
    "SREM k b",
    "HLEN k",
    "HGETALL k",
    "HSET k f v",
    "HDEL k a",
    "HRANDFIELD k 3",
    "HEXPIRE k 100 FIELDS 1 f",
    "ZCARD k",
    "ZRANGE k 0 -1 WITHSCORES",
    "ZADD k 1 a",
    "ZREM k b",
    "ZRANGEBYSCORE k -inf +inf",
    "ZPOPMIN k",
    "XLEN k",
    "XRANGE k - +",
    "XADD k * f v",
    "XDEL k 1-1",
    "XINFO STREAM k FULL",
    "XTRIM k MAXLEN 1",
    "DEBUG DIGEST-VALUE k",
    "DUMP k",
];

fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.below(seeds.len() as u64) as usize].clone();
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64) as usize;
        match rng.below(6) {
            0..3 => bytes[at] ^= 1 << rng.below(8),
            3 => bytes[at] = rng.next_u64() as u8,
            4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][rng.below(6) as usize],
            _ => {
                let other = &seeds[rng.below(seeds.len() as u64) as usize];
                let from = rng.below(other.len() as u64) as usize;
                bytes.truncate(at + 1);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// Keys beside the one that is tormented; no other may ever change.
fn others(client: &mut Client) -> Vec<String> {
    ["string", "list", "hash", "zset", "set", "stream"]
        .map(|key| client.run(&format!("DEBUG DIGEST-VALUE other:{key}")).to_string())
        .to_vec()
}

/// `KEYSTEAD_PAYLOADS=1000000` runs so many.
#[test]
fn payloads_that_nobody_checked_do_no_harm() {
    let fixed: Option<u64> = std::env::var("KEYSTEAD_PAYLOADS").ok().and_then(|n| n.parse().ok());
    let server = Launch::subject().args(&["--sanitize-dump-payload", "no"]).start();
    let mut client = server.connect();
    client.ok("DEBUG SET-SKIP-CHECKSUM-VALIDATION 1");
    client.pipeline(&[
        "SET other:string x",
        "RPUSH other:list a b 1",
        "HSET other:hash f v g w",
        "ZADD other:zset 1 a 2 b",
        "SADD other:set a b c",
        "XADD other:stream 1-1 f v",
    ]);
    let before = others(&mut client);
    let seeds: Vec<Vec<u8>> = corpus("restore").into_iter().map(|(_, seed)| seed).collect();
    let (mut rng, begun) = (Rng::new(fixed.unwrap_or(7)), Instant::now());
    let (mut runs, mut taken) = (0_u64, 0_u64);
    while fixed.map_or(begun.elapsed() < Duration::from_secs(5), |fixed| runs < fixed) {
        let mut payloads = Vec::new();
        let mut batch = Vec::new();
        for _ in 0..100 {
            let payload = [mutated(&mut rng, &seeds), b"\x0a\x00".to_vec(), vec![0; 8]].concat();
            batch.extend(encode(&[&b"RESTORE"[..], b"k", b"0", &payload, b"REPLACE"]));
            for _ in 0..5 {
                batch.extend(encode(&words(COMMANDS[rng.below(COMMANDS.len() as u64) as usize])));
            }
            batch.extend(encode(&words("DEL k")));
            payloads.push(payload);
        }
        let sent = client.try_send_raw(&batch);
        let replies: Result<Vec<_>, _> = sent.and_then(|()| (0..700).map(|_| client.try_read()).collect());
        let replies = replies.unwrap_or_else(|e| {
            let shown: Vec<_> = payloads.iter().map(|payload| payload.escape_ascii().to_string()).collect();
            panic!("{e} after one of {shown:#?}")
        });
        taken += replies.iter().step_by(7).filter(|reply| reply.to_string() == "+OK").count() as u64;
        runs += 100;
        if runs % 10_000 == 0 {
            assert_eq!(others(&mut client), before);
        }
    }
    assert_eq!(others(&mut client), before);
    println!("{runs} payloads, {taken} of them taken");
    assert!(taken > runs / 100 && taken < runs, "{taken} of {runs}");
    // What they left is whole: it is saved and comes back.
    client.expect("DBSIZE", ":6");
}

/// With the checksum, nothing of this kind comes so far.
#[test]
fn payloads_are_checked_by_default() {
    let limits = Limits::default();
    for (name, seed) in corpus("restore") {
        let sealed = |body: &[u8]| {
            let mut out = [body, b"\x0a\x00"].concat();
            let sum = crc64(&out);
            out.extend_from_slice(&sum.to_le_bytes());
            out
        };
        let good = sealed(&seed);
        payload::restore(&good, &limits).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let refused = payload::restore(&bad, &limits).expect_err("a changed bit");
            assert_eq!(refused.reply(), "ERR DUMP payload version or checksum are wrong", "{name} {bit}");
        }
    }
}
