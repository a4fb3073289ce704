//! Every command of the real server, after its own description of its arguments, mostly spoiled: a word less, twice,
//! out of place, out of range. Each is sent alone, in a transaction and from a script; the answer must be the same
//! bytes, and `errorstats` must count the same.

use std::collections::BTreeMap;

use crate::allowed;
use crate::common::client::{Client, Reply, decode, encode, quoted};
use crate::generator::{Rng, Words};
use crate::{Difference, Pair, number, show};

/// Commands of one round, which begins with fresh data.
const ROUND: u64 = 25;
const ROUNDS: u64 = 60;

/// Not sent: they stop or change a server, wait, send more than one reply, or differ as a whole.
const LEFT_OUT: &[&str] = &[
    "acl|deluser",
    "acl|genpass",
    "acl|load",
    "acl|log",
    "acl|save",
    "acl|setuser",
    "auth",
    "bgrewriteaof",
    "bgsave",
    "client|kill",
    "client|no-evict",
    "client|pause",
    "client|reply",
    "client|tracking",
    "cluster|links",
    "config|rewrite",
    "config|set",
    "debug",
    "failover",
    "function|kill",
    "hello",
    "latency|doctor",
    "latency|graph",
    "memory|doctor",
    "memory|malloc-stats",
    "memory|purge",
    "memory|stats",
    "migrate",
    "module|load",
    "module|loadex",
    "module|unload",
    "monitor",
    "pfselftest",
    "psubscribe",
    "psync",
    "punsubscribe",
    "quit",
    "replconf",
    "replicaof",
    "reset",
    "restore-asking",
    "save",
    "script|debug",
    "script|kill",
    "shutdown",
    "slaveof",
    "ssubscribe",
    "subscribe",
    "sunsubscribe",
    "sync",
    "unsubscribe",
    "wait",
];

/// What they answer when it is no error depends on the server, its version or chance.
const VARIES: &[&str] = &[
    "acl|cat",
    "acl|dryrun",
    "acl|getuser",
    "acl|list",
    "acl|users",
    "client|id",
    "client|info",
    "client|list",
    "client|trackinginfo",
    "command",
    "command|count",
    "command|docs",
    "command|getkeysandflags",
    "command|info",
    "command|list",
    "config|get",
    "dbsize",
    "dump",
    "function|dump",
    "function|list",
    "hrandfield",
    "hscan",
    "info",
    "lastsave",
    "latency|histogram",
    "lolwut",
    "memory|usage",
    "object|encoding",
    "object|idletime",
    "object|refcount",
    "pfdebug",
    "pttl",
    "randomkey",
    "scan",
    "script|load",
    "slowlog|get",
    "slowlog|len",
    "sort",
    "sort_ro",
    "spop",
    "srandmember",
    "sscan",
    "time",
    "ttl",
    "expiretime",
    "pexpiretime",
    "xadd",
    "xautoclaim",
    "xclaim",
    "xinfo|consumers",
    "xinfo|groups",
    "xinfo|stream",
    "xpending",
    "zrandmember",
    "zscan",
];

/// What they do differs as well: which elements go, what id is new.
const MAY_SPLIT: &[&str] = &["spop", "xadd"];

const DATA: &[&str] = &[
    "FLUSHALL",
    "FUNCTION FLUSH",
    "SCRIPT FLUSH",
    "SET s0 hello EX 100000",
    "SET s1 10",
    "RPUSH l0 a b c 1 2",
    "RPUSH l1 3 1 2",
    "SADD t0 m1 m2 a",
    "SADD t1 1 2 3",
    "HSET h0 m1 v m2 10 a 1.5",
    "HSET h1 b x",
    "ZADD z0 1 m1 2 m2 2.5 a",
    "ZADD z1 0 a 0 b 0 m",
    "XADD x0 1-1 a b",
    "XADD x0 2-1 a b",
    "XADD x0 3-1 c d",
    "XGROUP CREATE x0 g 0",
    "XREADGROUP GROUP g c1 COUNT 2 STREAMS x0 >",
    "XADD x1 7-7 a b",
    "GEOADD y0 13.361389 38.115556 m1 15.087269 37.502669 m2",
    "GEOADD y1 1 1 a",
    "PFADD w0 a b c",
    "PFADD w1 x",
    "SETBIT b0 7 1",
    "SETBIT b1 100 1",
];

const ODD: &[&str] = &[
    "",
    "0",
    "-1",
    "1",
    "2",
    "5",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "4294967296",
    "-2147483649",
    "nan",
    "inf",
    "-inf",
    "1.5",
    "1e5",
    "1e400",
    "1e-400",
    "0x10",
    "+1",
    "01",
    " 1",
    "1 ",
    "abc",
    "-",
    "+",
    "$",
    "*",
    ">",
    "(",
    "[",
    "(1",
    "[a",
    "=",
    "~",
    "foo bar",
    "100000000",
    "-0",
    ".5",
    "5.",
    "m1",
    "g",
    "0-0",
    "1-1",
    "5-*",
    "1-",
    "-1-1",
    "u8",
    "u64",
    "#1",
    "km",
    "COUNT",
    "LIMIT",
    "NX",
    "XX",
    "GT",
    "GET",
    "EX",
    "KEEPTTL",
    "WITHSCORES",
    "LEFT",
    "MIN",
    "STORE",
    "c1",
];

/// Returns its reply; an error as a pair, so that it does not end the script.
const PCALL: &str = "local r = redis.pcall(unpack(ARGV)) if type(r) == 'table' and r.err then return {'E', r.err} end return r";

/// An argument as COMMAND DOCS describes it.
struct Argument {
    name: String,
    kind: String,
    token: Option<String>,
    flags: Vec<String>,
    inner: Vec<Argument>,
}

impl Argument {
    fn read(described: &Reply) -> Argument {
        let texts =
            |reply: Option<&Reply>| reply.map_or(&[][..], Reply::items).iter().map(Reply::text).collect();
        Argument {
            name: field(described, "name").map(Reply::text).unwrap_or_default(),
            kind: field(described, "type").map(Reply::text).unwrap_or_default(),
            token: field(described, "token").map(Reply::text),
            flags: texts(field(described, "flags")),
            inner: arguments(described),
        }
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }
}

fn field<'a>(map: &'a Reply, name: &str) -> Option<&'a Reply> {
    let Reply::Map(pairs) = map else { panic!("a map of COMMAND DOCS: {map}") };
    pairs.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value)
}

fn arguments(described: &Reply) -> Vec<Argument> {
    field(described, "arguments").map_or(&[][..], Reply::items).iter().map(Argument::read).collect()
}

/// A command or subcommand.
struct Described {
    /// As in COMMAND LIST.
    name: String,
    group: String,
    arguments: Vec<Argument>,
}

impl Described {
    fn read(name: &Reply, docs: &Reply, all: &mut Vec<Described>) {
        let group = field(docs, "group").map(Reply::text).unwrap_or_default();
        all.push(Described { name: name.text(), group, arguments: arguments(docs) });
        if let Some(Reply::Map(inner)) = field(docs, "subcommands") {
            inner.iter().for_each(|(name, docs)| Described::read(name, docs, all));
        }
    }

    /// Those of the real server that are sent.
    fn all(client: &mut Client) -> Vec<Described> {
        client.run("HELLO 3");
        let Reply::Map(docs) = client.run("COMMAND DOCS") else { panic!("COMMAND DOCS") };
        let mut all = Vec::new();
        docs.iter().for_each(|(name, docs)| Described::read(name, docs, &mut all));
        all.retain(|command| !LEFT_OUT.contains(&&*command.name));
        // The order of a hash table.
        all.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(all.len() > 200, "only {} commands are described", all.len());
        all
    }

    fn blocks(&self) -> bool {
        self.name.starts_with('b') && self.arguments.iter().any(|a| a.name == "timeout")
    }

    /// A call, spoiled in most cases.
    fn call(&self, rng: &mut Rng) -> Words {
        let mut call = Call { rng, group: &self.group, words: Vec::new(), keys: None };
        call.add(&self.arguments);
        let mut words = call.words;
        let tokens = tokens(&self.arguments);
        for _ in 0..rng.below(4) {
            spoil(rng, &mut words, &tokens);
        }
        if rng.below(10) == 0 {
            words.iter_mut().for_each(|word| word.make_ascii_lowercase());
        }
        let name = self.name.to_ascii_uppercase();
        let mut all: Words = name.split('|').map(|word| word.as_bytes().to_vec()).collect();
        all.append(&mut words);
        all
    }
}

fn tokens(arguments: &[Argument]) -> Vec<&str> {
    arguments.iter().flat_map(|a| a.token.as_deref().into_iter().chain(tokens(&a.inner))).collect()
}

fn spoil(rng: &mut Rng, words: &mut Words, tokens: &[&str]) {
    let odd = rng.pick(ODD).as_bytes().to_vec();
    let at = rng.below(words.len() as u64 + 1) as usize;
    match rng.below(8) {
        0 if at < words.len() => drop(words.remove(at)),
        1 if at < words.len() => words.insert(at, words[at].clone()),
        2 => words.truncate(at),
        3 => words.insert(at, odd),
        4 if !tokens.is_empty() => words.insert(at, rng.pick(tokens).as_bytes().to_vec()),
        5 => words.push(odd),
        _ if at < words.len() => words[at] = odd,
        _ => {}
    }
}

/// A call that is being put together.
struct Call<'a> {
    rng: &'a mut Rng,
    group: &'a str,
    words: Words,
    /// How many keys were announced.
    keys: Option<u64>,
}

impl Call<'_> {
    fn add(&mut self, arguments: &[Argument]) {
        for argument in arguments {
            if argument.is("optional") && self.rng.below(2) == 0 {
                continue;
            }
            let multiple = argument.is("multiple") || argument.is("multiple_token");
            let times = match self.keys.take_if(|_| argument.kind == "key") {
                Some(keys) => keys,
                None if multiple => 1 + self.rng.below(3),
                None => 1,
            };
            for time in 0..times {
                self.add_once(argument, time == 0 || argument.is("multiple_token"));
            }
        }
    }

    fn add_once(&mut self, argument: &Argument, with_token: bool) {
        if let Some(token) = argument.token.as_ref().filter(|_| with_token) {
            self.words.push(token.clone().into_bytes());
        }
        match argument.kind.as_str() {
            "pure-token" => {}
            "oneof" => {
                let at = self.rng.below(argument.inner.len() as u64) as usize;
                self.add_once(&argument.inner[at], true);
            }
            "block" => self.add(&argument.inner),
            _ => {
                let value = self.value(argument);
                self.words.push(value.into_bytes());
            }
        }
    }

    fn value(&mut self, argument: &Argument) -> String {
        let stream = self.group == "stream";
        let of: &[&str] = match (argument.kind.as_str(), argument.name.as_str()) {
            ("key", _) => return self.key(),
            (_, "numkeys") => {
                let keys = 1 + self.rng.below(2);
                self.keys = Some(keys);
                return keys.to_string();
            }
            ("double", "timeout") => &["0.01"],
            ("double", _) => &["0", "1", "2.5", "-1", "10", "1e3", "0.1", "-3.25"],
            ("unix-time", _) => &["9999999999", "9999999999999", "1"],
            ("pattern", _) => &["*", "s*", "[a-m]?", "none"],
            (_, "milliseconds" | "seconds") => &["100000", "0", "-1"],
            (_, "id" | "start" | "end" | "lastid" | "threshold") if stream => {
                &["0", "$", "1-1", "2-1", "5", "-", "+", "3-*", "99-1", ">"]
            }
            ("integer", _) => &["0", "1", "2", "3", "5", "-1", "10", "100", "15000"],
            (_, "min" | "max") => &["-inf", "+inf", "1", "(1", "[a", "[m", "-", "+"],
            (_, "start" | "stop" | "end") => &["0", "-1", "1", "2", "-100", "100"],
            (_, "encoding") => &["u8", "i8", "u1", "i64", "u63"],
            (_, "offset") => &["0", "1", "7", "100", "#1"],
            (_, "group") => &["g", "g", "nosuch"],
            (_, "consumer") => &["c1", "c2"],
            _ => &["m1", "m2", "a", "b", "10", "3", "1.5", "", "nosuch"],
        };
        self.rng.pick(of).to_owned()
    }

    /// Mostly one of the type that the command is for.
    fn key(&mut self) -> String {
        let own = match self.group {
            "bitmap" => "b",
            "sorted-set" => "z",
            "geo" => "y",
            "hash" => "h",
            "hyperloglog" => "w",
            "list" => "l",
            "set" => "t",
            "stream" => "x",
            _ => "s",
        };
        let other = self.rng.pick(&["s", "l", "t", "h", "z", "x", "y", "w", "b", "n"]);
        let letter = if self.rng.below(3) > 0 { own } else { other };
        format!("{letter}{}", self.rng.below(2))
    }
}

/// How a command is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Alone,
    InTransaction,
    FromScript,
}

impl Way {
    /// The bytes that the command was answered with.
    fn run(self, client: &mut Client, words: &Words) -> Vec<u8> {
        match self {
            Way::Alone => answer(client, words),
            Way::InTransaction => {
                client.run("MULTI");
                let queued = answer(client, words);
                let all = answer(client, &vec![b"EXEC".to_vec()]);
                let one = all.strip_prefix(b"*1\r\n").map(<[u8]>::to_vec);
                one.unwrap_or_else(|| [queued, all].concat())
            }
            Way::FromScript => {
                let mut script = vec![b"EVAL".to_vec(), PCALL.as_bytes().to_vec(), b"0".to_vec()];
                script.extend_from_slice(words);
                let bytes = answer(client, &script);
                match decode(&bytes) {
                    Some((Reply::Array(pair), _)) if pair.len() == 2 && pair[0].text() == "E" => {
                        format!("-{}\r\n", pair[1].text()).into_bytes()
                    }
                    _ => bytes,
                }
            }
        }
    }
}

fn answer(client: &mut Client, words: &Words) -> Vec<u8> {
    client.send_raw(&encode(words));
    client.try_read_raw().map(|(_, bytes)| bytes).unwrap_or_else(|e| panic!("{}: {e}", show(words)))
}

/// How often each error was answered.
fn errors(client: &mut Client) -> BTreeMap<String, i64> {
    let info = client.run("INFO errorstats").text();
    let pairs = info.lines().filter_map(|line| line.strip_prefix("errorstat_")?.split_once(":count="));
    pairs.map(|(code, count)| (code.to_owned(), count.parse().expect("a count"))).collect()
}

/// Whether a difference is one of versions, or none.
fn may_differ(command: &Described, words: &Words, ours: &[u8], theirs: &[u8]) -> bool {
    let failed = |reply: &[u8]| reply.first() == Some(&b'-');
    if allowed::allowed(words, ours, theirs) {
        return true;
    }
    match command.name.as_str() {
        // These take fewer arguments since 7.2.
        "zrank" | "zrevrank" | "command|getkeys" | "command|getkeysandflags" => {
            return theirs.windows(11).any(|part| part.ends_with(b"rong number"));
        }
        // Since 7.4 an id may be `+`.
        "xread" | "xreadgroup" => return words.iter().any(|word| word == b"+"),
        // A cursor is read in one way by all since 7.4, and before the key is looked at.
        "sscan" | "hscan" | "zscan" | "scan" if ours == b"-ERR invalid cursor\r\n" => return true,
        // The count is bounded before the key is looked for.
        "srandmember" | "hrandfield" | "zrandmember" if ours == b"-ERR value is out of range\r\n" => {
            return true;
        }
        // What of a sorted set lies between two members is defined where all scores are equal.
        name if name.contains("lex") || words.iter().any(|word| word.eq_ignore_ascii_case(b"bylex")) => {
            return !failed(ours) && !failed(theirs);
        }
        _ => {}
    }
    // A timeout that is too long says so since 7.2.
    if command.blocks() && theirs == b"-ERR timeout is negative\r\n" && ours.starts_with(b"-ERR timeout is") {
        return true;
    }
    !failed(ours) && !failed(theirs) && (VARIES.contains(&&*command.name) || command.name.ends_with("|help"))
}

fn round(pair: &Pair, commands: &[Described], way: Way, seed: u64) -> Result<(), Difference> {
    let mut rng = Rng(seed);
    let clients = [&pair.ours, &pair.real].map(|server| {
        let (mut client, looker) = (server.connect(), server.connect());
        client.pipeline(DATA);
        (client, looker)
    });
    let [(mut ours, mut our_looker), (mut theirs, mut their_looker)] = clients;
    for at in 0..ROUND as usize {
        let command = &commands[rng.below(commands.len() as u64) as usize];
        let words = command.call(&mut rng);
        // Only 7.2 and later let scripts call what blocks; and a wrong timeout may be a long one.
        // A negative count is how many elements may come.
        let many = command.name.contains("rand") && words.iter().any(|w| w.starts_with(b"-") && w.len() > 4);
        if many {
            continue;
        }
        if way != Way::InTransaction && (command.blocks() || command.name.starts_with("xread")) {
            continue;
        }
        let before = [errors(&mut our_looker), errors(&mut their_looker)];
        let (a, b) = (way.run(&mut ours, &words), way.run(&mut theirs, &words));
        let counted = |now: BTreeMap<String, i64>, before: &BTreeMap<String, i64>| -> BTreeMap<String, i64> {
            let new = now.into_iter().map(|(code, n)| (code.clone(), n - before.get(&code).unwrap_or(&0)));
            new.filter(|(_, n)| *n != 0).collect()
        };
        let (n, m) =
            (counted(errors(&mut our_looker), &before[0]), counted(errors(&mut their_looker), &before[1]));
        let told = |what: String| Difference { at, what: format!("{way:?}: {}\n{what}", show(&words)) };
        if a != b && !may_differ(command, &words, &a, &b) {
            return Err(told(format!("ours   {}\ntheirs {}", quoted(&a), quoted(&b))));
        }
        if a == b && n != m {
            return Err(told(format!("{}\nerrorstats: ours {n:?} theirs {m:?}", quoted(&a))));
        }
        if a != b && (a.first() != b.first() || MAY_SPLIT.contains(&&*command.name)) {
            // From here on the data may differ.
            return Ok(());
        }
    }
    Ok(())
}

#[test]
fn every_command_refuses_the_same_in_the_same_words() {
    let pair = Pair::start();
    let commands = Described::all(&mut pair.real.connect());
    let seeds = match number("DIFF_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DIFF_SEEDS").unwrap_or(ROUNDS),
    };
    let mut failures = Vec::new();
    for seed in seeds {
        for way in [Way::Alone, Way::InTransaction, Way::FromScript] {
            if let Err(found) = round(&pair, &commands, way, seed) {
                failures.push(format!("DIFF_SEED={seed}, command {}, {}", found.at, found.what));
            }
        }
        if failures.len() >= 8 {
            break;
        }
    }
    assert!(failures.is_empty(), "{} rounds differ:\n\n{}", failures.len(), failures.join("\n\n"));
}
