//! What each fuzz target does with its bytes: called by cargo-fuzz, and by a bounded run of `tests/fuzz.rs`.
//!
//! None may panic, run away or take much more memory than its input. What is accepted must survive being written
//! and read again.

use keystead::acl::{self, Rules};
use keystead::base::rng::Rng;
use keystead::cluster::message::{Message, packet_len};
use keystead::cluster::{ClusterState, Config as ClusterConfig, Now};
use keystead::command::CommandTable;
use keystead::command::spec::Mode;
use keystead::config;
use keystead::persist::aof::Manifest;
use keystead::persist::aof::stream::{Commands, Item};
use keystead::persist::rdb::{self, Options, Reader, Record, payload};
use keystead::repl::replica::{self, Replica};
use keystead::resp::decode::{Decoder, decode};
use keystead::resp::write_command;
use keystead::resp::{self, Reply};
use keystead::script::{self, Calls, Ended, Given, Stop, Store, libs};
use keystead::sentinel::Sentinel;
use keystead::value::digest::Digest;
use keystead::value::{Limits, Value};
use mlua::{Lua, MultiValue, Table};
use std::sync::{LazyLock, OnceLock};

pub mod sandbox;

/// A target by the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("rdb", rdb),
    ("restore", restore),
    ("functions", functions),
    ("aof", aof),
    ("manifest", manifest),
    ("requests", requests),
    ("replies", replies),
    ("bus", bus),
    ("nodes_conf", nodes_conf),
    ("config", configuration),
    ("users", users),
    ("psync", psync),
    ("hello", hello),
    ("lua_values", lua_values),
    ("cjson", cjson),
    ("cmsgpack", cmsgpack),
    ("struct", structs),
    ("sandbox", sandbox_holds),
];

fn unverified() -> Limits {
    Limits { verify_checksums: false, ..Limits::default() }
}

fn digest(value: &Value) -> Digest {
    let mut digest = Digest::default();
    digest.add_value(value.as_ref(), false);
    digest
}

/// A value that was accepted is written and read again.
fn there_and_back(value: &Value) {
    let mut dump = Vec::new();
    payload::dump(&mut dump, value.as_ref(), Options { compress: true });
    let again = payload::restore(&dump, &Limits::default()).expect("what was written");
    assert_eq!(digest(value), digest(&again));
}

/// A data file. Its checksum is not compared: a fuzzer would never come past it.
pub fn rdb(data: &[u8]) {
    let Ok(reader) = Reader::with_checksum(data, unverified(), false) else { return };
    for record in reader {
        match record {
            Ok(Record::Entry(entry)) => there_and_back(&entry.value),
            Ok(_) => {}
            Err(e) => {
                assert!(e.offset <= data.len() as u64);
                assert!(!e.to_string().is_empty());
            }
        }
    }
}

/// The value of a payload, without its footer.
pub fn restore(data: &[u8]) {
    let sealed = [data, &10_u16.to_le_bytes(), &[0; 8]].concat();
    if let Ok(value) = payload::restore(&sealed, &unverified()) {
        there_and_back(&value);
    }
}

/// The libraries of a payload, without its footer.
pub fn functions(data: &[u8]) {
    let sealed = [data, &10_u16.to_le_bytes(), &[0; 8]].concat();
    if let Ok(codes) = rdb::functions::restore(&sealed, false) {
        let again = rdb::functions::dump(codes.iter().map(Vec::as_slice));
        assert_eq!(rdb::functions::restore(&again, true).expect("what was written"), codes);
    }
}

/// An increment. Whatever is cut off behind an item is read the same.
pub fn aof(data: &[u8]) {
    let mut commands = Commands::new(data, Vec::new(), 0);
    let (mut written, mut at) = (Vec::new(), 0);
    loop {
        match commands.next_item() {
            Ok(Some(Item::Command(argv))) => {
                assert!(!argv.is_empty());
                write_command(&mut written, &argv);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(e) => {
                assert_eq!(e.offset, at);
                break;
            }
        }
        assert!(commands.offset() > at && commands.offset() <= data.len() as u64);
        at = commands.offset();
    }
    let mut again = Commands::new(&written[..], Vec::new(), 0);
    while again.next_item().expect("what was written").is_some() {}
}

pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(Manifest::parse(manifest.to_text().as_bytes()).expect("what was written"), manifest);
    }
}

/// Requests of clients, as a whole and as they come in.
pub fn requests(data: &[u8]) {
    for authenticated in [true, false] {
        let limits = resp::Limits { max_bulk: 512 << 20, authenticated };
        let (mut at, mut argv) = (0, Vec::new());
        while at < data.len() {
            argv.clear();
            let before = at;
            match resp::parse(data, &mut at, &mut argv, &limits) {
                Ok(resp::Parsed::Incomplete { need }) => {
                    assert!(need > data.len() - before && at == before && argv.is_empty());
                    break;
                }
                Ok(_) => assert!(at > before),
                Err(_) => break,
            }
        }
        let mut progress = resp::Progress::default();
        for end in 0..data.len().min(256) {
            if progress.advance(&data[..end], &limits).is_none() {
                break;
            }
        }
    }
}

/// Replies of other servers and of our own commands.
pub fn replies(data: &[u8]) {
    let whole = first_reply(data);
    // It makes no difference in what pieces it comes.
    let mut decoder = Decoder::default();
    for byte in data {
        decoder.feed(&[*byte]);
        match decoder.next_reply() {
            Ok(None) => {}
            Ok(Some(_)) => return assert!(whole.is_some()),
            Err(_) => break,
        }
    }
    assert_eq!(whole, None);
}

/// Bytes of the reply that stands first, if it is whole.
fn first_reply(data: &[u8]) -> Option<usize> {
    decode(data).ok().flatten().map(|(_, len)| len)
}

/// A packet of the cluster bus.
pub fn bus(data: &[u8]) {
    // Its length is put right: a fuzzer would change little else.
    let mut packet = data.to_vec();
    if packet.len() > 8 {
        packet[4..8].copy_from_slice(&(data.len() as u32).to_be_bytes());
    }
    let _ = packet_len(data);
    if let Ok(message) = Message::decode(&packet) {
        let again = message.encode();
        assert_eq!(Message::decode(&again).expect("what was written").encode(), again);
    }
}

pub fn nodes_conf(data: &[u8]) {
    let load = |text: &str| {
        ClusterState::load(ClusterConfig::default(), Rng::new(1), Now { mono: 1, unix: 1 }, text)
    };
    if let Ok(state) = load(&String::from_utf8_lossy(data)) {
        load(&state.nodes_conf()).expect("what was written");
    }
}

/// A file of users.
pub fn users(data: &[u8]) {
    static COMMANDS: OnceLock<CommandTable> = OnceLock::new();
    let catalog = COMMANDS.get_or_init(|| CommandTable::new(Mode::Data, &[], &[]));
    let rules = Rules { catalog, all_channels: false };
    let Ok(users) = acl::file::read(data, "users.acl", &rules) else { return };
    let text = acl::file::write(&users);
    let again = acl::file::read(&text, "users.acl", &rules).expect("what was written");
    assert_eq!(acl::file::write(&again), text);
    for user in &users {
        assert_eq!(user.is_unrestricted(), again.iter().any(|a| a.name == user.name && a.is_unrestricted()));
    }
}

/// A configuration file, as a server's and as a sentinel's.
pub fn configuration(data: &[u8]) {
    for sentinel in [false, true] {
        if let Err(e) = config::file::load(data, sentinel, &mut |_| Ok(Vec::new())) {
            assert!(!e.to_string().is_empty());
        }
    }
    if let Some(words) = config::grammar::words(data) {
        let line: Vec<_> = words.iter().map(|word| config::grammar::quote(word)).collect();
        assert_eq!(config::grammar::words(&line.join(&b' ')), Some(words));
    }
}

/// What a primary sends, from its first answer on, in pieces.
pub fn psync(data: &[u8]) {
    let config = replica::Config {
        host: "primary".into(),
        port: 6379,
        user: None,
        password: None,
        listening_port: 6380,
        announce_ip: None,
        timeout_ms: 60_000,
    };
    let mut replica = Replica::new(0, config, None);
    let mut out = Vec::new();
    replica.step(0, replica::Event::Tick, &mut out);
    replica.step(0, replica::Event::Connected, &mut out);
    for (now, piece) in data.chunks(7).enumerate() {
        out.clear();
        replica.step(now as u64, replica::Event::Bytes(piece), &mut out);
        if out.contains(&replica::Action::RdbEnd) {
            replica.step(now as u64, replica::Event::Loaded(Ok(())), &mut out);
        }
        let sent: usize = out.iter().map(size).sum();
        assert!(sent < 64 << 10, "a few bytes make much");
    }
}

fn size(action: &replica::Action) -> usize {
    match action {
        replica::Action::Send(bytes) | replica::Action::Rdb(bytes) | replica::Action::Stream(bytes) => {
            bytes.len()
        }
        _ => 0,
    }
}

/// A sentinel's hello.
pub fn hello(data: &[u8]) {
    let lines = ["monitor m 10.0.0.1 6379 2", "known-replica m 10.0.0.2 6379"];
    let lines: Vec<Vec<String>> = lines.map(|line| line.split(' ').map(str::to_owned).collect()).to_vec();
    let (mut sentinel, _) = Sentinel::read(&lines, 26379, Rng::new(1), 1).expect("good lines");
    for line in String::from_utf8_lossy(data).lines() {
        sentinel.hear_hello(line);
    }
    sentinel.take_actions();
}

/// A reply that a script gets, and returns.
pub fn lua_values(data: &[u8]) {
    static STORE: LazyLock<Store> = LazyLock::new(Store::default);
    let Some(len) = first_reply(data) else { return };
    let engine = script::engine().expect("an interpreter");
    for code in ["return redis.pcall('x')", "redis.setresp(3) return redis.pcall('x')"] {
        let known = engine.keep(&STORE, code.as_bytes(), false).expect("no flags");
        for resp3 in [false, true] {
            let mut reply = Reply::new();
            reply.set_resp3(resp3);
            let given = Given { keys: &[], args: &[] };
            let ended = engine.run_script(&known, given, &mut Same(&data[..len]), &mut reply);
            match ended.expect("good code") {
                Ended::Failed(failure) => assert!(!failure.text.is_empty() && reply.is_empty()),
                _ => assert_eq!(first_reply(reply.bytes()), Some(reply.len())),
            }
        }
    }
}

/// Answers every command with the same bytes.
struct Same<'a>(&'a [u8]);

impl Calls for Same<'_> {
    fn call(&mut self, _: &[&[u8]], _: bool, reply: &mut Reply) -> Result<(), Stop> {
        reply.raw(self.0);
        Ok(())
    }

    fn log(&mut self, _: u8, _: &str) {}

    fn set_propagated(&mut self, _: bool, _: bool) {}

    fn allows(&mut self, _: &[&[u8]]) -> Option<bool> {
        None
    }

    fn look(&mut self) -> Result<u64, Stop> {
        Ok(0)
    }
}

thread_local! {
    static LUA: Lua = Lua::new();
}

/// Runs `script` as a function of a library and of texts; it may raise.
fn run(library: fn(&Lua) -> mlua::Result<Table>, script: &str, texts: &[&[u8]]) -> mlua::Result<()> {
    LUA.with(|lua| {
        let mut args = MultiValue::from_iter([mlua::Value::Table(library(lua)?)]);
        for text in texts {
            args.push_back(mlua::Value::String(lua.create_string(text)?));
        }
        lua.load(script).call(args)
    })
}

/// What the bytes say, written and read again.
fn both_ways(library: fn(&Lua) -> mlua::Result<Table>, read: &str, write: &str, data: &[u8]) {
    let script = format!(
        "local lib, data = ...
         local good, again = pcall(function() return lib.{write}(lib.{read}(data)) end)
         if good then lib.{read}(again) end"
    );
    run(library, &script, &[data]).expect("what was written");
}

pub fn cjson(data: &[u8]) {
    both_ways(libs::cjson::library, "decode", "encode", data);
}

pub fn cmsgpack(data: &[u8]) {
    both_ways(libs::cmsgpack::library, "unpack", "pack", data);
}

/// A format, a zero byte, and what it takes apart.
pub fn structs(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (format, bytes) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let script = "local lib, format, data = ...
        pcall(lib.size, format)
        pcall(function() return lib.pack(format, lib.unpack(format, data)) end)";
    run(libs::structs::library, script, &[format, bytes]).expect("nothing is raised");
}

/// A random program ends when it is told to, takes no more memory than it may, and leaves nothing for the next one.
pub fn sandbox_holds(data: &[u8]) {
    thread_local! {
        // Functions are those of the interpreter of this thread.
        static CLEAN: Vec<u8> = answer(sandbox::PROBE);
    }
    let code = sandbox::Program::of(&data[..data.len().min(300)], true);
    answer(&code);
    CLEAN.with(|clean| {
        assert!(clean.starts_with(b"$"), "{}", String::from_utf8_lossy(clean));
        let now = answer(sandbox::PROBE);
        assert!(
            now == *clean,
            "{code}\n{}\n{}",
            String::from_utf8_lossy(clean),
            String::from_utf8_lossy(&now)
        );
    });
}

/// The reply to a script that is soon told to end; nothing to what is no script.
fn answer(code: &str) -> Vec<u8> {
    static STORE: LazyLock<Store> = LazyLock::new(Store::default);
    let engine = script::engine().expect("an interpreter");
    let Ok(known) = engine.keep(&STORE, code.as_bytes(), false) else { return Vec::new() };
    let mut reply = Reply::new();
    let given = Given { keys: &[b"key"], args: &[b"1"] };
    let ended = engine.run_script(&known, given, &mut Hasty(100), &mut reply);
    match ended {
        Ok(Ended::Returned | Ended::ReturnedError(_)) => {
            assert_eq!(first_reply(reply.bytes()), Some(reply.len()), "{code}");
        }
        Ok(Ended::Failed(failure)) => assert!(!failure.text.is_empty()),
        Ok(Ended::Again) => panic!("nobody asked for that"),
        // A text that is too deep for the compiler, for instance.
        Err(text) => assert!(text.starts_with("ERR Error compiling"), "{text}"),
    }
    engine.tell_memory(&STORE);
    assert!(STORE.interpreters.load(std::sync::atomic::Ordering::Relaxed) < 2 << 30);
    reply.into_bytes()
}

/// Lets a script go on for so many looks.
struct Hasty(u32);

impl Calls for Hasty {
    fn call(&mut self, args: &[&[u8]], _: bool, reply: &mut Reply) -> Result<(), Stop> {
        reply.bulk(args[0]);
        Ok(())
    }

    fn log(&mut self, _: u8, _: &str) {}

    fn set_propagated(&mut self, _: bool, _: bool) {}

    fn allows(&mut self, _: &[&[u8]]) -> Option<bool> {
        Some(true)
    }

    fn look(&mut self) -> Result<u64, Stop> {
        self.0 = self.0.checked_sub(1).ok_or(Stop::Killed)?;
        Ok(0)
    }
}
