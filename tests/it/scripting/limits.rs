//! What no script can do: end the process, fill its memory, leave something behind for the next one.

#[path = "../../../fuzz/src/sandbox.rs"]
mod sandbox;

use std::time::Duration;

use crate::common::SOON;
use crate::common::client::Client;
use crate::common::server::{Launch, subject_is_real};

use super::node;

/// What would make the interpreter go down the C stack without end, or allocate without end, is an error.
#[test]
fn no_script_ends_the_process() {
    let server = node("1");
    let mut client = server.connect();
    // To fill the memory of an interpreter has taken a busy machine half a minute.
    client.set_read_timeout(6 * SOON);
    let mut fails = |code: &str, why: &str| {
        let told = client.cmd(&["EVAL", code, "0"]).to_string();
        assert!(told.starts_with('-') && told.contains(why), "{code}: {told}");
        client.expect("PING", "+PONG");
    };
    // A real Redis ends at these.
    if !subject_is_real() {
        let deep = "string.rep('a', 200000)";
        fails(&format!("return string.find({deep}, string.rep('a?', 200000) .. 'b')"), "pattern too complex");
        fails(&format!("return {deep}:match(string.rep('a-', 200000) .. 'b')"), "pattern too complex");
        fails(&format!("return string.gsub({deep}, string.rep('(a)', 200000), '')"), "too many captures");
        fails(
            &format!("for w in string.gmatch({deep}, string.rep('a*', 200000)) do end"),
            "pattern too complex",
        );
        fails("local t = {} for i = 1, 1e9 do t[i] = string.rep('x', 1000000) .. i end", "not enough memory");
        fails("local s = string.rep('x', 2^29) return s .. s .. s", "not enough memory");
    }
    fails("return string.find('x', string.rep('(', 40))", "too many captures");
    fails("local function f(n) return f(n + 1) + 1 end return f(1)", "stack overflow");
    fails(
        "local function f() local ok, e = pcall(f) if not ok then error(e, 0) end end f()",
        "stack overflow",
    );
    fails("local t = {} for i = 1, 20000 do t = {t} end return cjson.encode(t)", "nest");
    fails("return cjson.decode(string.rep('[', 20000))", "nest");
    fails("return table.concat({}, 'x', 1, 3)", "invalid value");
    assert_eq!(client.cmd(&["EVAL", "return {('a-b'):find('-', 1, true)}", "0"]).to_string(), "[:2, :2]");
}

/// Bytes that look like what the libraries read, by a fixed seed.
fn hostile(seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    };
    const PARTS: [&[u8]; 16] = [
        b"{",
        b"[",
        b"\"",
        b"\\u",
        b"d800",
        b":1,",
        b"]",
        b"}",
        b"1e99",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff",
        b"\x91",
        b"\x81\xc0",
        b"\xdb\x7f\xff\xff\xff",
        b"\x00",
        b"-",
    ];
    let repeat = if next() % 8 == 0 { 2000 } else { 1 };
    let parts: Vec<u8> = (0..next() % 12).flat_map(|_| PARTS[next() % PARTS.len()].to_vec()).collect();
    parts.repeat(repeat)
}

#[test]
fn libraries_take_any_bytes() {
    let server = node("2");
    let mut client: Client = server.connect();
    let script = "for _, f in ipairs({cjson.decode, cmsgpack.unpack}) do pcall(f, ARGV[1]) end \
        for _, f in ipairs({'>I2s', 'Bc0', '!8dI7', 'i32c0'}) do pcall(struct.unpack, f, ARGV[1]) end \
        pcall(struct.pack, ARGV[1], 1, 2) pcall(struct.size, ARGV[1]) \
        local ok, v = pcall(cmsgpack.unpack, cmsgpack.pack({{ARGV[1]}, a = ARGV[1]})) \
        return ok and v.a == ARGV[1]";
    let mut seed = 8;
    for _ in 0..2000 {
        let bytes = hostile(&mut seed);
        let args: [&[u8]; 4] = [b"EVAL", script.as_bytes(), b"0", &bytes];
        assert_eq!(client.cmd(&args).to_string(), ":1", "{bytes:?}");
    }
}

/// Libraries and globals are the same for the next script, whoever sends it.
#[test]
fn a_script_leaves_nothing_behind_for_the_next_one() {
    if subject_is_real() {
        return;
    }
    let server = node("1");
    let [mut first, mut second] = [(); 2].map(|()| server.connect());
    for code in [
        "x = 1",
        "rawset(_G, 'x', 1)",
        "redis.call = nil",
        "table.insert(_G, 'left')",
        "table.insert(math, 'left')",
        "table.insert(redis, 'left')",
    ] {
        let told = first.cmd(&["EVAL", code, "0"]).to_string();
        assert!(told.contains("Attempt to modify a readonly table"), "{code}: {told}");
    }
    let told = first.cmd(&["EVAL", "setfenv(0, {tostring = function() return 'left' end})", "0"]).to_string();
    assert!(told.contains("cannot change environment"), "{told}");
    // What finds nothing to move or to sort says nothing, as in Redis.
    first.expect("EVAL \"table.remove(math) table.sort(_G)\" 0", "nil");
    let told = first.cmd(&["EVAL", "loadstring('x = 1')()", "0"]).to_string();
    assert!(told.contains("Attempt to modify a readonly table"), "{told}");
    let code = "return {loadstring('return tostring(5)')(), tostring(math[1]), tostring(redis[1])}";
    assert_eq!(second.cmd(&["EVAL", code, "0"]).to_string(), r#"["5", "nil", "nil"]"#);
}

/// The results, attempts included, are those of Redis 7.0.15.
#[test]
fn handlers_of_xpcall_are_given_what_lua_gives_them() {
    let server = node("1");
    let mut client = server.connect();
    for (code, told) in [
        ("return {xpcall(function() return 1, 2, 3 end, tostring)}", "[:1, :1, :2, :3]"),
        ("return {select('#', xpcall(error, function() return 1, 2 end))}", "[:2]"),
        (
            "local ok, e = xpcall(function() error('x') end, function(e) return e .. '!' end) return {tostring(ok), e}",
            r#"["false", "user_script:1: x!"]"#,
        ),
        (
            "local ok, e = xpcall(function() error({err = 'mine'}) end, function(e) return e.err end) return {tostring(ok), e}",
            r#"["false", "mine"]"#,
        ),
        (
            "local n = 0 local ok, e = xpcall(error, function(e) n = n + 1 if n < 3 then error('y' .. n) end return 'got ' .. e end) return {n, e}",
            r#"[:3, "got user_script:1: y2"]"#,
        ),
        (
            "local ok, e = xpcall(error, function() error('y') end) return {tostring(ok), e}",
            r#"["false", "error in error handling"]"#,
        ),
        (
            "local ok, e = xpcall(error, 5) return {tostring(ok), e}",
            r#"["false", "error in error handling"]"#,
        ),
    ] {
        assert_eq!(client.cmd(&["EVAL", code, "0"]).to_string(), told, "{code}");
    }
}

/// What could fill the memory of the process, beside that of the interpreter, ends in an error.
#[test]
fn a_text_that_grows_without_end_is_an_error() {
    if subject_is_real() {
        return;
    }
    let server = node("1");
    let mut client = server.connect();
    client.set_read_timeout(6 * SOON);
    let many = "local s, t = ('x'):rep(10000000), {} for i = 1, 200 do t[i] = s end ";
    for (code, why) in [
        ("return cjson.encode(t)", "not enough memory"),
        ("return cmsgpack.pack(t)", "not enough memory"),
        ("return struct.pack(('s'):rep(200), unpack(t))", "not enough memory"),
        ("return t", "not enough memory"),
        ("return cmsgpack.unpack(('\\1'):rep(1000000))", "stack overflow (too many return values at once"),
        ("return struct.unpack(('b'):rep(1000000), s)", "stack overflow (too many results)"),
        ("return s:rep(1000000)", "not enough memory"),
    ] {
        let told = client.cmd(&["EVAL", &format!("{many}{code}"), "0"]).to_string();
        assert!(told.starts_with('-') && told.contains(why), "{code}: {told:.200}");
        client.expect("PING", "+PONG");
    }
}

/// Random programs over all that scripts can reach: the node answers behind each, and the next script finds what the
/// first one found.
#[test]
fn random_scripts_leave_the_node_and_the_sandbox_as_they_were() {
    if subject_is_real() {
        return;
    }
    let count = std::env::var("KEYSTEAD_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let server = node("1");
    let (mut client, mut other) = (server.connect(), server.connect());
    other.ok("CONFIG SET busy-reply-threshold 5");
    client.set_read_timeout(Duration::from_millis(20));
    let clean = other.cmd(&["EVAL", sandbox::PROBE, "0"]).text();
    assert!(clean.contains("environment=true"), "{clean}");
    let mut rng = keystead::base::rng::Rng::new(7);
    for _ in 0..count {
        let bytes: Vec<u8> = (0..rng.below(200)).map(|_| rng.next_u64() as u8).collect();
        let code = sandbox::Program::of(&bytes, true);
        // It writes nothing, so that it can be killed.
        client.send(&["EVAL_RO", &code, "1", "key", "1"]);
        let begun = std::time::Instant::now();
        while let Err(error) = client.try_read() {
            assert!(begun.elapsed() < 3 * SOON, "{error}: {code}");
            other.run("SCRIPT KILL");
        }
        other.expect("PING", "+PONG");
        let now = other.cmd(&["EVAL", sandbox::PROBE, "0"]).text();
        assert!(now == clean, "{code}\n{clean}\n{now}");
    }
    assert!(server.resident() < 3 << 30, "{}", server.resident());
}

/// What a thread has compiled of a library goes with it, and of one that was refused at once.
#[test]
fn libraries_that_are_replaced_or_refused_leave_nothing_behind() {
    const TIMES: i64 = 3000;
    let server = Launch::subject().args(&["--io-threads", "1"]).start();
    let mut c = server.connect();
    let mut load = |times: i64| {
        for _ in 0..times {
            let (code, taken) =
                ("redis.register_function('f', function() return 1 end)", "#!lua name=other\n");
            assert_eq!(
                c.cmd(&["FUNCTION", "LOAD", "REPLACE", &format!("#!lua name=own\n{code}")]).text(),
                "own"
            );
            assert!(
                c.cmd(&["FUNCTION", "LOAD", &format!("{taken}{code}")]).text().contains("already exists")
            );
            c.expect("FCALL f 0", ":1");
        }
        c.info_int("used_memory")
    };
    let before = load(500);
    let grown = load(TIMES) - before;
    assert!(grown < 100 * TIMES, "{grown} bytes more after {TIMES} times");
}
