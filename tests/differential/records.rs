//! What replicas are sent: the same commands to our server and to a real Redis, each with a replica
//! attached by PSYNC, and the records that both send side by side.
//!
//! A line of a script is a command on the main connection, or
//!
//! ```text
//! b! BLPOP l 0      on the connection b, which is blocked by it
//! ? EXISTS k        repeated until the reply is 0
//! ~ SPOP s          the server chooses at random: the arguments may differ, not their number
//! CONFIG ... ; SET  two commands whose records count together
//! = SPOP s 2 | ...  what we send where the Redis of the test, which is 7.0, sends something else, with
//!                   the reason above it; records divided by `|`, `now` for the moment
//! # ...             a reason
//! ```

use crate::common::client::{Client, Reply, encode, words};
use crate::common::server::{Launch, Server};
use crate::common::{SOON, wait_for};
use crate::show;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

type Words = Vec<Vec<u8>>;

/// The stream of a primary, as a replica reads it.
struct Stream {
    socket: TcpStream,
    bytes: Vec<u8>,
    /// What the last SELECT said.
    db: String,
}

impl Stream {
    fn attach(port: u16) -> Stream {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut stream = Stream { socket, bytes: Vec::new(), db: String::new() };
        for line in ["REPLCONF listening-port 1", "REPLCONF capa psync2", "PSYNC ? -1"] {
            stream.socket.write_all(&encode(&words(line))).expect("send");
            stream.line();
        }
        let mut line = stream.line();
        while line.is_empty() {
            line = stream.line();
        }
        let length: usize = line.strip_prefix('$').and_then(|n| n.parse().ok()).expect("the size of an RDB");
        while stream.bytes.len() < length {
            stream.fill();
        }
        stream.bytes.drain(..length);
        stream
    }

    fn fill(&mut self) {
        let mut chunk = [0; 4096];
        let n = self.socket.read(&mut chunk).expect("the primary's stream");
        assert!(n > 0, "the primary closed the stream");
        self.bytes.extend_from_slice(&chunk[..n]);
    }

    /// A line without its end. While a primary prepares it sends empty ones.
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&self.bytes[..end]).trim_end().to_owned();
                self.bytes.drain(..=end);
                return line;
            }
            self.fill();
        }
    }

    fn next(&mut self) -> Words {
        loop {
            if let Some((reply, length)) = crate::common::client::decode(&self.bytes) {
                self.bytes.drain(..length);
                return reply.items().iter().map(|word| word.bytes().expect("a bulk").to_vec()).collect();
            }
            self.fill();
        }
    }

    /// The records up to the one that publishes `mark`, each with its database in front.
    fn until(&mut self, mark: &str) -> Vec<Words> {
        let mut records = Vec::new();
        loop {
            let record = self.next();
            match record[0].to_ascii_lowercase().as_slice() {
                b"ping" | b"replconf" => {}
                b"select" => self.db = String::from_utf8_lossy(&record[1]).into_owned(),
                _ if record.last().is_some_and(|word| word == mark.as_bytes()) => return records,
                _ => {
                    let mut words = vec![self.db.clone().into_bytes()];
                    words.extend(record);
                    words[1].make_ascii_uppercase();
                    records.push(words);
                }
            }
        }
    }
}

/// A primary with a replica attached and its clients.
struct Primary {
    server: Server,
    stream: Stream,
    clients: HashMap<String, Client>,
    marker: Client,
    marks: usize,
}

impl Primary {
    fn start(launch: &Launch) -> Primary {
        let server = launch.clone().start();
        let stream = Stream::attach(server.port);
        let marker = server.connect();
        Primary { server, stream, clients: HashMap::new(), marker, marks: 0 }
    }

    fn client(&mut self, name: &str) -> &mut Client {
        self.clients.entry(name.to_owned()).or_insert_with(|| self.server.connect())
    }

    /// Runs a line of a script; returns the records that it brought about.
    fn run(&mut self, line: &str) -> Vec<Words> {
        if let Some((name, command)) = line.split_once("! ").filter(|(name, _)| name.len() == 1) {
            // The one before may be counted for a moment still.
            wait_for("nobody is blocked", SOON, || self.marker.info_int("blocked_clients") == 0);
            self.client(name).send(&words(command));
            wait_for(line, SOON, || self.marker.info_int("blocked_clients") == 1);
        } else if let Some(command) = line.strip_prefix("? ") {
            wait_for(line, SOON, || self.client("").run(command) == Reply::Int(0));
        } else {
            for command in line.strip_prefix("~ ").unwrap_or(line).split(" ; ") {
                self.client("").run(command);
            }
        }
        self.marks += 1;
        let mark = format!("mark:{}", self.marks);
        self.marker.run(&format!("PUBLISH end {mark}"));
        self.stream.until(&mark)
    }
}

fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis()
}

/// Equal words, or two moments less than a few seconds apart, also as the first part of a stream id.
fn alike(a: &[u8], b: &[u8]) -> bool {
    let moment = |word: &[u8]| {
        let digits = word.split(|b| *b == b'-').next()?;
        std::str::from_utf8(digits).ok()?.parse::<i64>().ok().filter(|n| (1 << 40..1 << 42).contains(n))
    };
    a == b || moment(a).zip(moment(b)).is_some_and(|(a, b)| (a - b).abs() < 5000)
}

fn same(ours: &[Words], theirs: &[Words], random: bool) -> bool {
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(a, b)| {
            let compared = if random { 2.min(a.len()) } else { a.len() };
            a.len() == b.len() && a.iter().zip(b).take(compared).all(|(a, b)| alike(a, b))
        })
}

fn told(records: &[Words]) -> String {
    let lines: Vec<String> = records.iter().map(show).collect();
    lines.join(" | ")
}

/// Runs a script on both servers; panics with every line whose records differ.
fn compare(settings: &[&str], script: &str) {
    let mut ours = Primary::start(&Launch::subject().args(settings));
    let mut theirs = Primary::start(&Launch::real().args(settings));
    let mut differences = Vec::new();
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let mut lines = script.lines().map(str::trim).filter(said).peekable();
    while let Some(line) = lines.next() {
        let (a, mut b) = (ours.run(line), theirs.run(line));
        if let Some(newer) = lines.next_if(|line| line.starts_with("= ")) {
            assert!(!same(&a, &b, line.starts_with('~')), "7.0 does not differ: {line}");
            let newer = newer[2..].replace("now", &unix_ms().to_string());
            b = newer.split(" | ").map(|record| words(&format!("0 {record}"))).collect();
        }
        if !same(&a, &b, line.starts_with('~')) {
            differences.push(format!("{line}\n  ours    {}\n  theirs  {}", told(&a), told(&b)));
        }
    }
    assert!(differences.is_empty(), "{} lines differ:\n{}", differences.len(), differences.join("\n"));
}

const LAZY: &[&str] = &[
    "--lazyfree-lazy-user-del",
    "yes",
    "--lazyfree-lazy-expire",
    "yes",
    "--lazyfree-lazy-server-del",
    "yes",
    "--lazyfree-lazy-eviction",
    "yes",
];

/// Where the server itself deletes.
const DELETIONS: &str = "
    SET a 1
    DEL a nosuch
    SET a 1
    UNLINK a
    SET a 1
    GETDEL a
    SADD s 1
    ~ SPOP s
    SADD s a b
    SREM s a b
    SET a 1
    EXPIRE a -1
    SET a 1
    PEXPIREAT a 1
    SET a 1
    GETEX a PXAT 1
    DEBUG SET-ACTIVE-EXPIRE 0
    SET a 1 PX 20
    ? EXISTS a
    DEBUG SET-ACTIVE-EXPIRE 1
    SET a 1 PX 20
    ? DBSIZE
";

/// What scripts do, as one unit each.
const SCRIPTS: &str = r#"
    EVAL "return redis.call('SET', KEYS[1], ARGV[1])" 1 k v
    EVAL "redis.call('SET', KEYS[1], 1) redis.call('INCR', KEYS[1])" 1 k
    EVAL "return redis.call('GET', KEYS[1])" 1 k
    EVAL "redis.call('SELECT', 3) redis.call('SET', 'in3', 1)" 0
    SET k 2
    EVAL "redis.call('SET', 'a', 1) error('x')" 0
    EVAL "redis.call('SET', 'a', 1) redis.pcall('LPUSH', 'a', 1) redis.call('SET', 'b', 1)" 0
    EVAL "redis.set_repl(redis.REPL_NONE) redis.call('SET', 'a', 2)" 0
    EVAL "redis.set_repl(redis.REPL_REPLICA) redis.call('SET', 'a', 3)" 0
    EVAL "redis.call('SADD', 's', 1, 2) redis.call('DEL', 's', 'nosuch')" 0
    EVAL "redis.call('PUBLISH', 'c', 'm')" 0
    EVAL "redis.call('LPUSH', 'l', 1) redis.call('PUBLISH', 'c', 'm')" 0
    EVAL "return redis.call('LPOP', 'l')" 0
    EVAL_RO "return redis.call('GET', 'a')" 0
"#;

#[test]
fn scripts_are_recorded_as_redis_records_them() {
    compare(&[], SCRIPTS);
}

/// Commands that leave nothing of a key.
const EMPTIED: &str = "
    SADD s 1 2 3
    SPOP s 3
    SADD s 1 2 3
    SPOP s 4
    SET a 1
    RESTORE a 1 \"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\" REPLACE ABSTTL
    RESTORE a 1 \"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\" REPLACE ABSTTL
";

const EMPTIED_LAZILY: &str = "
    SADD s 1 2 3
    SPOP s 3
    = UNLINK s
    SET a 1
    RESTORE a 1 \"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\" REPLACE ABSTTL
    = UNLINK a
";

#[test]
fn deletions_are_recorded_as_redis_records_them() {
    compare(&[], DELETIONS);
    compare(LAZY, DELETIONS);
    compare(&[], EMPTIED);
    // 7.0 sends DEL for these in any case, later ones follow lazyfree-lazy-server-del.
    compare(LAZY, EMPTIED_LAZILY);
    // Dead on arrival.
    compare(&[], "DEBUG SET-ACTIVE-EXPIRE 0 \n SET a 1 \n SET a 2 PXAT 1 \n SET a 1 EXAT 1 \n ? EXISTS a");
}

#[test]
fn evictions_are_recorded_as_redis_records_them() {
    let script = "
        CONFIG SET maxmemory-policy allkeys-random
        SET a 1
        CONFIG SET maxmemory 1 ; SET b 1
        CONFIG SET maxmemory 0
    ";
    compare(&[], script);
    compare(LAZY, script);
}

#[test]
fn strings_and_keys_are_recorded_as_redis_records_them() {
    compare(&[], "
        SET a 1
        SET a 1 NX
        SET a 2 XX
        SET a 2 EX 100
        SET a 2 PX 100000
        SET a 2 EXAT 33177117420
        SET a 2 PXAT 33177117420123
        SET a 2 KEEPTTL
        SET a 2 XX GET
        SET a 2 EX 100 GET NX
        SET a 2 EX 100 XX GET
        SETEX a 100 v
        PSETEX a 100000 v
        SETNX a v
        SETNX n v
        GETSET a w
        GETEX a
        GETEX a EX 100
        GETEX a PX 100000
        GETEX a PERSIST
        GETEX a PERSIST
        GETEX a EXAT 33177117420
        MSET a 1 b 2
        MSETNX a 1 c 2
        MSETNX d 1 e 2
        INCR a
        INCRBY a 5
        DECR a
        DECRBY a 2
        INCRBYFLOAT a 1.5
        EXPIRE a 100
        INCRBYFLOAT a 1.5
        APPEND a x
        APPEND a \"\"
        SETRANGE a 1 y
        SETRANGE nosuch 0 \"\"
        EXPIRE a 100
        EXPIRE a 100 NX
        PEXPIRE a 100000
        EXPIREAT a 33177117420
        PEXPIREAT a 33177117420000
        PERSIST a
        PERSIST a
        RENAME a z
        RENAMENX z b
        RENAMENX z y
        COPY y x
        COPY y x
        COPY y x REPLACE
        COPY y x DB 1
        MOVE y 1
        SELECT 1
        SET k v
        SWAPDB 0 1
        SELECT 0
        RESTORE r 0 \"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\"
        RESTORE r 100000 \"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\" REPLACE
        RESTORE r 33177117420123 \"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\" REPLACE ABSTTL
        RESTORE r 100000 \"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\" REPLACE IDLETIME 10
        PUBLISH c m
        FLUSHDB
        SET a 1
        FLUSHDB ASYNC
        FLUSHALL
        FLUSHALL ASYNC
        DEBUG POPULATE 2 p 3
    ");
}

#[test]
fn collections_are_recorded_as_redis_records_them() {
    compare(
        &[],
        "
        RPUSH l a b c
        LPUSH l a
        LPUSHX l b
        LPUSHX nosuch b
        LPOP l
        LPOP l 2
        LPOP l 0
        RPOP l 1
        LPOP nosuch
        RPUSH l a b c a
        LINSERT l BEFORE b x
        LINSERT l BEFORE nosuch x
        LSET l 0 y
        LREM l 0 a
        LREM l 0 nosuch
        LTRIM l 0 1
        LTRIM l 0 1
        LTRIM l 5 6
        RPUSH l a b c d e f
        RPOPLPUSH l m
        LMOVE l m LEFT RIGHT
        LMPOP 2 nosuch l LEFT
        LMPOP 2 nosuch l RIGHT COUNT 2
        LMPOP 1 nosuch LEFT
        BLPOP l 0
        RPUSH l a b
        BRPOP nosuch l 0
        BLMOVE l m RIGHT LEFT 0
        RPUSH l a b
        BRPOPLPUSH l m 0
        BLMPOP 0 1 l LEFT COUNT 10
        SADD s 1 2
        SADD s 1
        SREM s 1 9
        SREM s 9
        SADD s a b c d e f
        ~ SPOP s
        SPOP s 0
        ~ SPOP s 1
        SMOVE s t nosuch
        SADD v x
        SMOVE v t x
        SADD u 1 2 3
        SMOVE u u 1
        SADD t 1
        SMOVE u t 1
        SUNIONSTORE d u t
        SINTERSTORE d u nosuch
        SINTERSTORE d u nosuch
        SDIFFSTORE d u t
        HSET h a 1 b 2
        HSET h a 1
        HMSET h c 3
        HSETNX h a 2
        HSETNX h d 2
        HDEL h d nosuch
        HDEL h nosuch
        HINCRBY h a 5
        HINCRBYFLOAT h a 1.5
        HINCRBYFLOAT g f 0.1
        ZADD z 1 a 2 b
        ZADD z 1 a
        ZADD z CH 3 a
        ZADD z XX 3 nosuch
        ZADD z NX 5 a
        ZADD z GT 1 a
        ZADD z INCR 2 a
        ZADD z INCR 0 a
        ZADD z NX INCR 2 a
        ZINCRBY z 0.5 b
        ZINCRBY z 0 b
        ZREM z nosuch
        ZREM z a
        ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g
        ZPOPMIN z
        ZPOPMAX z 2
        ZPOPMIN z 0
        ZMPOP 2 nosuch z MIN
        ZMPOP 1 z MAX COUNT 2
        BZPOPMIN z 0
        ZADD z 1 a 2 b 3 c 4 d
        BZMPOP 0 1 z MIN COUNT 2
        ZREMRANGEBYRANK z 0 0
        ZREMRANGEBYSCORE z 100 200
        ZADD z 1 a 1 b
        ZREMRANGEBYLEX z [a [a
        ZRANGESTORE d z 0 -1
        ZRANGESTORE d z 50 60
        ZUNIONSTORE d 2 z nosuch
        ZINTERSTORE d 2 z nosuch
        ZDIFFSTORE d 1 z
    ",
    );
}

#[test]
fn blocked_clients_that_go_on_are_recorded_as_redis_records_them() {
    compare(
        &[],
        "
        b! BLPOP l 0
        RPUSH l a b
        b! BRPOP l2 m 0
        RPUSH m a b
        b! BLMOVE l3 l4 LEFT RIGHT 0
        # 7.0 writes the words as it keeps them, later ones as they came.
        RPUSH l3 a
        = RPUSH l3 a | LMOVE l3 l4 LEFT RIGHT
        b! BRPOPLPUSH l5 l6 0
        RPUSH l5 a b
        b! BLMPOP 0 2 l7 l8 LEFT COUNT 5
        RPUSH l8 a b c
        b! BZPOPMIN z 0
        ZADD z 1 a 2 b
        b! BZPOPMAX y z2 0
        ZADD z2 1 a
        b! BZMPOP 0 1 z3 MAX COUNT 2
        ZADD z3 1 a 2 b 3 c
        XGROUP CREATE x g $ MKSTREAM
        # A consumer that got nothing is told of, too: Redis leaves replicas without it.
        b! XREADGROUP GROUP g c BLOCK 0 STREAMS x >
        = XGROUP CREATECONSUMER x g c
        # How many entries a group has read is told with every read, so that replicas know its lag.
        XADD x 1-1 f v
        = XADD x 1-1 f v | MULTI | XCLAIM x g c 0 1-1 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 1-1 | XGROUP SETID x g 1-1 ENTRIESREAD 1 | EXEC
        b! XREADGROUP GROUP g c BLOCK 0 NOACK STREAMS x >
        XADD x 2-1 f v
        b! XREAD BLOCK 0 STREAMS x $
        XADD x 3-1 f v
        BLMOVE l9 l9 left right 0.01
        RPUSH l9 a b
        BLMOVE l9 l9 left right 0
    ",
    );
}

#[test]
fn streams_are_recorded_as_redis_records_them() {
    compare(
        &["--stream-node-max-entries", "3"],
        "
        XADD s 1-1 f v
        XADD s * f v
        DEL s
        XADD s 1-* f v
        XADD s 2 f v
        XADD s NOMKSTREAM 3 f v
        XADD nosuch NOMKSTREAM 3 f v
        XADD s MAXLEN 2 4 f v
        XADD s MAXLEN = 2 5 f v
        XADD s MAXLEN ~ 2 6 f v
        XADD s MAXLEN ~ 2 7 f v
        XADD s MINID ~ 6 8 f v
        XADD s MINID 6 9 f v
        XADD s MAXLEN ~ 1 LIMIT 2 10-* f v
        XADD s MAXLEN 3 11-* f v
        XADD s 12 f v
        XADD s 13 f v
        XADD s 14 f v
        XTRIM s MAXLEN 100
        XTRIM s MAXLEN ~ 100
        XTRIM s MAXLEN ~ 3
        XTRIM s MINID ~ 12
        XTRIM s MINID 13
        XTRIM s MAXLEN = 1
        XDEL s 99-1
        XADD s 20 f v
        XDEL s 20 99-1
        XADD s 21 f v
        XADD s 22 f v
        XADD s 23 f v
        XSETID s 30-0
        XSETID s 31-0 ENTRIESADDED 50 MAXDELETEDID 5-0
        XGROUP CREATE s g 0
        XGROUP CREATE s g 0
        XGROUP CREATE s h $ ENTRIESREAD 3
        XGROUP CREATE new g 0 MKSTREAM
        XGROUP CREATECONSUMER s g alice
        XGROUP CREATECONSUMER s g alice
        # How many entries a group has read is told with every read, so that replicas know its lag.
        XREADGROUP GROUP g alice COUNT 1 STREAMS s >
        = MULTI | XCLAIM s g alice 0 14-0 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 14-0 | XGROUP SETID s g 14-0 ENTRIESREAD 47 | EXEC
        XREADGROUP GROUP g bob COUNT 2 STREAMS s >
        = MULTI | XCLAIM s g bob 0 21-0 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 21-0 | XCLAIM s g bob 0 22-0 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 22-0 | XGROUP SETID s g 22-0 ENTRIESREAD 49 | EXEC
        XREADGROUP GROUP g carol STREAMS s >
        = MULTI | XCLAIM s g carol 0 23-0 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 23-0 | XGROUP SETID s g 23-0 ENTRIESREAD 50 | EXEC
        XREADGROUP GROUP g bob STREAMS s 0
        # A consumer that got nothing is told of, too: Redis leaves replicas without it.
        XREADGROUP GROUP g dave STREAMS s 0
        = XGROUP CREATECONSUMER s g dave
        XADD s 40-1 f v
        XADD s 40-2 f v
        XREADGROUP GROUP g erin NOACK STREAMS s >
        XREADGROUP GROUP g erin NOACK STREAMS s >
        XADD s 40-3 f v
        XADD t 40-3 f v
        XGROUP CREATE t g 0
        XREADGROUP GROUP g bob STREAMS s t > >
        = MULTI | XCLAIM s g bob 0 40-3 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 40-3 | XGROUP SETID s g 40-3 ENTRIESREAD 53 | XCLAIM t g bob 0 40-3 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 40-3 | XGROUP SETID t g 40-3 ENTRIESREAD 1 | EXEC
        XACK s g 40-3 99-1
        XACK s g 99-1
        XGROUP SETID s g 0
        XGROUP SETID s g $ ENTRIESREAD 7
        XGROUP DELCONSUMER s g dave
        XGROUP DELCONSUMER s g nosuch
        XGROUP DESTROY s h
        XGROUP DESTROY s nosuch
    ",
    );
}

#[test]
fn claims_are_recorded_as_redis_records_them() {
    compare(
        &[],
        "
        XADD s 1-1 f v
        XADD s 2-1 f v
        XADD s 3-1 f v
        XADD s 4-1 f v
        XADD s 5-1 f v
        XGROUP CREATE s g 0
        # How many entries a group has read is told with every read, so that replicas know its lag.
        XREADGROUP GROUP g alice STREAMS s >
        = MULTI | XCLAIM s g alice 0 1-1 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 1-1 | XCLAIM s g alice 0 2-1 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 2-1 | XCLAIM s g alice 0 3-1 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 3-1 | XCLAIM s g alice 0 4-1 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 4-1 | XCLAIM s g alice 0 5-1 TIME now RETRYCOUNT 1 FORCE JUSTID LASTID 5-1 | XGROUP SETID s g 5-1 ENTRIESREAD 5 | EXEC
        XCLAIM s g bob 0 1-1
        XCLAIM s g bob 0 1-1 2-1
        XCLAIM s g bob 1000000 3-1
        # A consumer that got nothing is told of, too: Redis leaves replicas without it.
        XCLAIM s g new 1000000 3-1
        = XGROUP CREATECONSUMER s g new
        XCLAIM s g bob 0 3-1 JUSTID
        XCLAIM s g bob 0 3-1 RETRYCOUNT 7
        XCLAIM s g bob 0 3-1 TIME 1000
        XCLAIM s g bob 0 3-1 IDLE 50
        XCLAIM s g bob 0 3-1 LASTID 9-1
        XCLAIM s g bob 0 99-1 LASTID 10-1
        XCLAIM s g bob 0 99-1
        XCLAIM s g bob 0 99-1 FORCE
        XACK s g 1-1
        XCLAIM s g bob 0 1-1 FORCE
        XDEL s 2-1
        XCLAIM s g bob 0 2-1
        XAUTOCLAIM s g carol 0 0 COUNT 2
        XAUTOCLAIM s g carol 0 0 COUNT 1 JUSTID
        XAUTOCLAIM s g carol 1000000 0
        XAUTOCLAIM s g newer 1000000 0
        = XGROUP CREATECONSUMER s g newer
        XDEL s 3-1
        XAUTOCLAIM s g dave 0 0
        XAUTOCLAIM s g dave 0 99-1
    ",
    );
}
