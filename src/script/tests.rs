//! Values between Lua and RESP, and the libraries of scripts, on whatever comes: nothing panics, and what is
//! answered is one well-formed reply.

use proptest::prelude::*;

use super::{Calls, Ended, Given, Stop, Store};
use crate::resp::Reply;
use crate::resp::decode::decode;

/// A command's answer, as bytes of one protocol.
#[derive(Clone, Debug)]
enum Answer {
    Int(i64),
    Bulk(Vec<u8>),
    Simple(String),
    Error(String),
    Null,
    Double(f64),
    Bool(bool),
    BigNumber(String),
    Verbatim(String),
    Array(Vec<Answer>),
    Map(Vec<(Answer, Answer)>),
    Set(Vec<Answer>),
}

impl Answer {
    fn write(&self, reply: &mut Reply) {
        match self {
            Self::Int(n) => reply.int(*n),
            Self::Bulk(bytes) => reply.bulk(bytes),
            Self::Simple(text) => reply.simple(text),
            Self::Error(text) => reply.error(&format!("ERR {text}")),
            Self::Null => reply.null(),
            Self::Double(x) => reply.double(*x),
            Self::Bool(yes) => reply.bool(*yes),
            Self::BigNumber(digits) => reply.big_number(digits.as_bytes()),
            Self::Verbatim(text) => reply.verbatim("txt", text),
            Self::Array(items) => {
                reply.array(items.len());
                items.iter().for_each(|item| item.write(reply));
            }
            Self::Map(pairs) => {
                reply.map(pairs.len());
                pairs.iter().for_each(|(name, value)| {
                    name.write(reply);
                    value.write(reply);
                });
            }
            Self::Set(items) => {
                reply.set(items.len());
                items.iter().for_each(|item| item.write(reply));
            }
        }
    }
}

fn answers() -> impl Strategy<Value = Answer> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Answer::Int),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Answer::Bulk),
        "[ -~]{0,20}".prop_map(Answer::Simple),
        "[ -~]{0,20}".prop_map(Answer::Error),
        Just(Answer::Null),
        any::<f64>().prop_map(Answer::Double),
        any::<bool>().prop_map(Answer::Bool),
        "-?[0-9]{1,30}".prop_map(Answer::BigNumber),
        "[ -~]{0,20}".prop_map(Answer::Verbatim),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Answer::Array),
            prop::collection::vec((inner.clone(), inner.clone()), 0..6).prop_map(Answer::Map),
            prop::collection::vec(inner, 0..8).prop_map(Answer::Set),
        ]
    })
}

/// Answers every command with the same.
struct Same<'a>(&'a Answer);

impl Calls for Same<'_> {
    fn call(&mut self, _args: &[&[u8]], resp3: bool, reply: &mut Reply) -> Result<(), Stop> {
        reply.set_resp3(resp3);
        self.0.write(reply);
        Ok(())
    }

    fn log(&mut self, _level: u8, _text: &str) {}

    fn set_propagated(&mut self, _: bool, _: bool) {}

    fn allows(&mut self, _args: &[&[u8]]) -> Option<bool> {
        None
    }

    fn look(&mut self) -> Result<u64, Stop> {
        Ok(0)
    }
}

/// Runs a script in which every command has this answer; its reply, to a client of this protocol.
fn run(code: &str, args: &[&[u8]], answer: &Answer, resp3: bool) -> (Ended, Vec<u8>) {
    let (store, engine) = (Store::default(), super::engine().expect("an interpreter"));
    let script = engine.keep(&store, code.as_bytes(), false).expect("no flags");
    let mut reply = Reply::new();
    reply.set_resp3(resp3);
    let given = Given { keys: &[], args };
    let ended = engine.run_script(&script, given, &mut Same(answer), &mut reply).expect("good code");
    (ended, reply.into_bytes())
}

fn assert_one_reply(bytes: &[u8], of: &str) {
    let read = decode(bytes).ok().flatten().map(|(_, len)| len);
    assert_eq!(read, Some(bytes.len()), "{of}: {}", String::from_utf8_lossy(bytes));
}

const ROUND_TRIPS: [&str; 6] = [
    "return redis.pcall('x')",
    "redis.setresp(3) return redis.pcall('x')",
    "local r = redis.pcall('x') return {r, {r, {r}}, {map = {a = r}}, {set = {b = true}}}",
    "redis.setresp(3) local r = redis.pcall('x') return {r, {map = {a = r}}}",
    "return {redis.call('x')}",
    "local ok, r = pcall(redis.call, 'x') return {tostring(ok), r}",
];

/// Through each library and back, as far as that can take it.
const LIBRARIES: [&str; 4] = [
    "local r = redis.pcall('x') return {pcall(function() return cjson.decode(cjson.encode(r)) end)}",
    "local r = redis.pcall('x') return {pcall(function() return cmsgpack.unpack(cmsgpack.pack(r, r)) end)}",
    "redis.setresp(3) local r = redis.pcall('x') return {pcall(cjson.encode, r), pcall(cmsgpack.pack, r)}",
    "local r = redis.pcall('x') return {pcall(struct.pack, '>Ihs', r, r, r), pcall(bit.tohex, r)}",
];

/// What decoders are given by anybody.
const DECODERS: [&str; 5] = [
    "return {pcall(cjson.decode, ARGV[1])}",
    "return {pcall(cmsgpack.unpack, ARGV[1])}",
    "return {pcall(cmsgpack.unpack_one, ARGV[1], #ARGV[1] / 2)}",
    "return {pcall(struct.unpack, ARGV[2], ARGV[1])}",
    "return {pcall(struct.pack, ARGV[1], 1, 2, 3, 'x'), pcall(struct.size, ARGV[1]), pcall(string.format, ARGV[1], 1, 2)}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_pass_between_lua_and_resp(answer in answers(), resp3: bool) {
        for code in ROUND_TRIPS.iter().chain(&LIBRARIES) {
            let (ended, bytes) = run(code, &[], &answer, resp3);
            match ended {
                // An error is written by whoever ran the script.
                Ended::Failed(failure) => prop_assert!(!failure.text.is_empty() && bytes.is_empty()),
                _ => assert_one_reply(&bytes, code),
            }
        }
    }

    /// What RESP3 has a type for comes back as it was where the script speaks RESP3, too.
    #[test]
    fn resp3_comes_back_as_it_was(answer in answers()) {
        let mut plain = Reply::new();
        plain.set_resp3(true);
        answer.write(&mut plain);
        if let Answer::Bulk(_) | Answer::Bool(_) | Answer::BigNumber(_) | Answer::Verbatim(_) = answer {
            let (ended, bytes) = run(ROUND_TRIPS[1], &[], &answer, true);
            prop_assert_eq!(ended, Ended::Returned);
            prop_assert_eq!(bytes, plain.into_bytes());
        }
    }

    #[test]
    fn decoders_take_hostile_bytes(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[\\[\\]{}:,\"0-9eEtrufalsn \\\\.-]{0,80}".prop_map(String::into_bytes),
        ],
        format in "[<>!=bBhHlLiITfdsxc0-9 ]{0,20}",
    ) {
        for code in DECODERS {
            let (ended, reply) = run(code, &[&bytes, format.as_bytes()], &Answer::Null, true);
            match ended {
                Ended::Failed(failure) => prop_assert!(!failure.text.is_empty()),
                _ => assert_one_reply(&reply, code),
            }
        }
    }
}

/// Lua runs finalizers where nothing could stop them; whatever else a metatable can have, that of a proxy takes.
#[test]
fn proxies_take_no_finalizer() {
    let code = "local ran = 0
        for i = 1, 200 do
            local of = getmetatable(newproxy(true))
            local ok, told = pcall(function() of.__gc = function() ran = ran + 1 end end)
            if ok or not told:find('finalizers are not supported', 1, true) then return 'taken' end
            pcall(rawset, of, '__gc', function() ran = ran + 1 end)
        end
        collectgarbage()
        local proxy = newproxy(true)
        getmetatable(proxy).__len = function() return 7 end
        return {ran, #proxy, #newproxy(proxy)}";
    let (ended, bytes) = run(code, &[], &Answer::Null, false);
    assert_eq!((ended, bytes), (Ended::Returned, b"*3\r\n:0\r\n:7\r\n:7\r\n".to_vec()));
}

/// What a script leaves behind by an error inside `redis.call` is gone at the next call.
#[test]
fn a_call_that_fails_leaves_nothing_behind() {
    let code = "local depth
        depth = function(n)
            local ok, e = pcall(redis.call, 'x')
            if ok then return 'no error' end
            if n > 0 then return select(2, pcall(depth, n - 1)) end
            return e
        end
        for i = 1, 100 do depth(i % 50) end
        return {depth(0), tostring(select(2, pcall(redis.call))), tostring(select(2, pcall(redis.call, {})))}";
    let (ended, bytes) = run(code, &[], &Answer::Error("no".into()), false);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!(ended, Ended::Returned);
    assert!(text.starts_with("*3\r\n$6\r\nERR no\r\n"), "{text}");
    assert!(text.contains("at least one argument") && text.contains("must be strings or integers"), "{text}");
}
