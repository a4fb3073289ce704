//! Random command sequences from a seed: mostly valid, now and then slightly wrong.

pub type Words = Vec<Vec<u8>>;

/// SplitMix64: the same sequence on every machine.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Command templates. A letter in braces is replaced:
/// K any key, S L T H Z X a key that is mostly of one type (string, list, set, hash, sorted set,
/// stream), Q a sorted set whose scores are all 0, V a value, M a member or field, I an integer, F a number, R a range index, B a score
/// bound, G a lexical bound, N a small count, D a stream ID, P a pattern, E an expiry that does not
/// pass while the test runs or is over at once, W a HyperLogLog, Y a sorted set of places, A a coordinate, C a distance,
/// 1 a list, 2 a set (SORT of a sorted set would change its encoding in Redis, and with it what it
/// remembers of -0), O the offset of a bit, J a bit, U an integer type of a bit field, 5 a value as DUMP writes it,
/// 6 the name of a type, 7 a script. `?` before a word makes it optional, `*` repeats the
/// rest.
const TEMPLATES: &[&str] = &[
    "SET {S} {V}",
    "SET {S} {V}",
    "SET {S} {I}",
    "SET {S} {V} ?NX",
    "SET {S} {V} ?XX ?GET",
    "SET {S} {V} ?KEEPTTL",
    "SET {S} {V} EX 1000",
    "SET {S} {V} PXAT 9999999999999",
    "SET {S} {V} EX {E}",
    "SET {S} {V} ?NX ?XX ?GET ?KEEPTTL PX 9000000",
    "SET {S} {V} EXAT 9999999999 ?GET",
    "SET {S} {V} PXAT 9999999999999 ?EX {E}",
    "GET {S}",
    "GET {S}",
    "GETSET {S} {V}",
    "GETDEL {S}",
    "GETEX {S} ?PERSIST",
    "GETEX {S} EX 5000",
    "GETEX {S} PX {E}",
    "GETEX {S} EXAT 9999999999 ?PERSIST",
    "GETEX {S} PXAT {E}",
    "SETNX {S} {V}",
    "SETEX {S} 1000 {V}",
    "PSETEX {S} {E} {V}",
    "MSET {S} {V} {S} {V}",
    "MSETNX {S} {V} {S} {V}",
    "MGET {S} {K} {S}",
    "INCR {S}",
    "DECR {S}",
    "INCRBY {S} {I}",
    "DECRBY {S} {I}",
    "INCRBYFLOAT {S} {F}",
    "APPEND {S} {V}",
    "STRLEN {S}",
    "GETRANGE {S} {R} {R}",
    "SUBSTR {S} {R} {R}",
    "SETRANGE {S} {N} {V}",
    "LCS {S} {S}",
    "LCS {S} {S} LEN",
    "LCS {S} {S} IDX ?WITHMATCHLEN",
    "LCS {S} {S} ?IDX ?LEN MINMATCHLEN {N}",
    "DEL {K}",
    "DEL {K} {K}",
    "UNLINK {K}",
    "EXISTS {K} {K}",
    "TYPE {K}",
    "RENAME {K} {K}",
    "RENAMENX {K} {K}",
    "COPY {K} {K} ?REPLACE",
    "COPY {K} {K} DB {N} ?REPLACE",
    "TOUCH {K} {K}",
    "OBJECT ENCODING {K}",
    "OBJECT FREQ {K}",
    "EXPIRE {K} 1000 ?NX",
    "EXPIRE {K} 2000 ?XX",
    "EXPIRE {K} 3000 ?GT",
    "PEXPIRE {K} 9000000 ?LT",
    "EXPIREAT {K} 9999999999",
    "PEXPIREAT {K} 9999999999999",
    "EXPIRE {K} {E}",
    "EXPIRE {K} {E} ?NX ?XX ?GT ?LT",
    "PEXPIREAT {K} 9999999999999 ?NX ?XX ?GT ?LT",
    "EXPIREAT {K} {E} ?GT ?LT",
    "TTL {K}",
    "PTTL {K}",
    "EXPIRETIME {K}",
    "PEXPIRETIME {K}",
    "PERSIST {K}",
    "DBSIZE",
    "KEYS {P}",
    "SCAN 0 COUNT 10000",
    "SCAN 0 COUNT 10000 MATCH {P}",
    "SCAN 0 COUNT 10000 TYPE set",
    "SCAN 0 COUNT 10000 TYPE {6} MATCH {P}",
    "LPUSH {L} *{V}",
    "RPUSH {L} *{V}",
    "RPUSH {L} *{I}",
    "LPUSHX {L} {V}",
    "RPUSHX {L} {V}",
    "LPOP {L}",
    "RPOP {L}",
    "LPOP {L} {N}",
    "RPOP {L} {N}",
    "LLEN {L}",
    "LRANGE {L} {R} {R}",
    "LRANGE {L} 0 -1",
    "LINDEX {L} {R}",
    "LSET {L} {R} {V}",
    "LINSERT {L} BEFORE {V} {V}",
    "LINSERT {L} AFTER {V} {V}",
    "LREM {L} {R} {V}",
    "LTRIM {L} {R} {R}",
    "RPOPLPUSH {L} {L}",
    "LMOVE {L} {L} LEFT RIGHT",
    "LMOVE {L} {L} RIGHT LEFT",
    "LMPOP 1 {L} LEFT ?COUNT {N}",
    "LMPOP 2 {L} {L} RIGHT COUNT {N}",
    "LMPOP {N} {L} {L} LEFT ?COUNT {R}",
    "LMOVE {L} {L} LEFT LEFT",
    "BLPOP {L} {L} 0.01",
    "BRPOP {L} 0.01",
    "BLMOVE {L} {L} LEFT RIGHT 0.01",
    "BLMOVE {L} {L} RIGHT LEFT 0.01",
    "BRPOPLPUSH {L} {L} 0.01",
    "BLMPOP 0.01 2 {L} {L} LEFT COUNT {N}",
    "LPOS {L} {V}",
    "LPOS {L} {V} RANK {R}",
    "LPOS {L} {V} COUNT {N}",
    "LPOS {L} {V} ?RANK {R} ?COUNT {N} MAXLEN {N}",
    "LPOS {L} {V} RANK {R} COUNT {N} MAXLEN {R}",
    "SADD {T} *{M}",
    "SADD {T} *{I}",
    "SADD {T} *{N}",
    "SREM {T} *{M}",
    "SREM {T} {N}",
    "SCARD {T}",
    "SISMEMBER {T} {M}",
    "SMISMEMBER {T} {M} {N}",
    "SMEMBERS {T}",
    "SMOVE {T} {T} {M}",
    "SINTER {T} {T}",
    "SUNION {T} {T}",
    "SDIFF {T} {T}",
    "SINTERSTORE {T} {T} {T}",
    "SUNIONSTORE {T} {T} {T}",
    "SDIFFSTORE {T} {T} {T}",
    "SINTERCARD 2 {T} {T}",
    "SINTERCARD 2 {T} {T} LIMIT {N}",
    "SINTERCARD {N} {T} {T} LIMIT {R}",
    "SRANDMEMBER {T} 0",
    "SSCAN {T} 0 COUNT 10000",
    "SSCAN {T} 0 COUNT 10000 MATCH m?",
    "SPOP {T} 100000",
    "HSET {H} {M} {V}",
    "HSET {H} {M} {V} {M} {V}",
    "HSET {H} {M} {I}",
    "HMSET {H} {M} {V}",
    "HSETNX {H} {M} {V}",
    "HGET {H} {M}",
    "HMGET {H} {M} {M}",
    "HDEL {H} *{M}",
    "HLEN {H}",
    "HEXISTS {H} {M}",
    "HSTRLEN {H} {M}",
    "HGETALL {H}",
    "HKEYS {H}",
    "HVALS {H}",
    "HINCRBY {H} {M} {I}",
    "HINCRBYFLOAT {H} {M} {F}",
    "HSCAN {H} 0 COUNT 10000",
    "HSCAN {H} 0 MATCH m1* COUNT 10000",
    "HRANDFIELD {H} 0 ?WITHVALUES",
    "ZADD {Z} {F} {M}",
    "ZADD {Z} {I} {M} {F} {M}",
    "ZADD {Z} ?NX ?XX ?CH {I} {M}",
    "ZADD {Z} ?GT ?LT ?CH {I} {M}",
    "ZADD {Z} INCR {F} {M}",
    "ZADD {Z} ?NX ?XX ?GT ?LT ?CH ?INCR {F} {M}",
    "ZADD {Q} 0 {M} 0 {M} 0 {M}",
    "ZINCRBY {Z} {F} {M}",
    "ZREM {Z} *{M}",
    "ZCARD {Z}",
    "ZSCORE {Z} {M}",
    "ZMSCORE {Z} {M} {M}",
    "ZRANK {Z} {M}",
    "ZREVRANK {Z} {M}",
    "ZCOUNT {Z} {B} {B}",
    "ZRANGE {Z} {R} {R} ?WITHSCORES",
    "ZRANGE {Z} 0 -1 WITHSCORES",
    "ZRANGE {Z} {R} {R} REV ?WITHSCORES",
    "ZREVRANGE {Z} {R} {R} ?WITHSCORES",
    "ZRANGEBYSCORE {Z} {B} {B} ?WITHSCORES",
    "ZRANGEBYSCORE {Z} {B} {B} LIMIT {R} {R}",
    "ZREVRANGEBYSCORE {Z} {B} {B} ?WITHSCORES",
    "ZRANGE {Z} {B} {B} BYSCORE",
    "ZRANGE {Z} {B} {B} BYSCORE ?REV LIMIT {R} {R} ?WITHSCORES",
    "ZRANGE {Q} {G} {G} BYLEX ?REV LIMIT {R} {R}",
    "ZRANGEBYLEX {Q} {G} {G} LIMIT {R} {R}",
    "ZREVRANGEBYSCORE {Z} {B} {B} LIMIT {R} {R} ?WITHSCORES",
    "ZRANGEBYLEX {Q} {G} {G}",
    "ZREVRANGEBYLEX {Q} {G} {G}",
    "ZLEXCOUNT {Q} {G} {G}",
    "ZPOPMIN {Z}",
    "ZPOPMAX {Z}",
    "ZPOPMIN {Z} {N}",
    "ZPOPMAX {Z} {N}",
    "ZREMRANGEBYRANK {Z} {R} {R}",
    "ZREMRANGEBYSCORE {Z} {B} {B}",
    "ZREMRANGEBYLEX {Q} {G} {G}",
    "ZSCAN {Z} 0 COUNT 10000",
    "ZSCAN {Z} 0 MATCH m1* COUNT 10000",
    "ZMPOP 1 {Z} MIN ?COUNT {N}",
    "ZMPOP 2 {Z} {Z} MAX COUNT {N}",
    "ZMPOP {N} {Z} {Z} MIN ?COUNT {R}",
    "BZPOPMIN {Z} {Z} 0.01",
    "BZPOPMAX {Z} 0.01",
    "BZMPOP 0.01 1 {Z} MIN COUNT {N}",
    "ZUNION 2 {Z} {Z} ?WITHSCORES",
    "ZUNION 2 {Z} {T} WEIGHTS {F} {F} AGGREGATE MAX WITHSCORES",
    "ZINTER 2 {Z} {Z} ?WITHSCORES",
    "ZINTER 2 {Z} {Z} AGGREGATE MIN WITHSCORES",
    "ZDIFF 2 {Z} {Z} ?WITHSCORES",
    "ZUNIONSTORE {Z} 2 {Z} {Z}",
    "ZUNIONSTORE {Z} 2 {Z} {T} WEIGHTS {F} {N} AGGREGATE SUM",
    "ZINTERSTORE {Z} 2 {Z} {Z} AGGREGATE MAX",
    "ZDIFFSTORE {Z} 2 {Z} {Z}",
    "ZINTERCARD 2 {Z} {Z} ?LIMIT {N}",
    "ZINTERCARD {N} {Z} {T} LIMIT {R}",
    "ZUNION {N} {Z} {Z} WEIGHTS {F} {F} AGGREGATE MIN WITHSCORES",
    "ZINTERSTORE {Z} {N} {Z} {Z} WEIGHTS {F} {F}",
    "ZRANGESTORE {Z} {Z} {R} {R} ?REV",
    "ZRANGESTORE {Z} {Z} {B} {B} BYSCORE",
    "ZRANGESTORE {Z} {Z} {B} {B} BYSCORE ?REV LIMIT {R} {R}",
    "ZRANGESTORE {Q} {Q} {G} {G} BYLEX ?REV",
    "ZRANDMEMBER {Z} 0 ?WITHSCORES",
    "XADD {X} {D} {M} {V}",
    "XADD {X} {D} {M} {V} {M} {V}",
    "XADD {X} MAXLEN {N} {D} {M} {V}",
    "XADD {X} NOMKSTREAM {D} {M} {V}",
    "XADD {X} ?NOMKSTREAM MAXLEN = {N} {D} {M} {V}",
    "XADD {X} MINID ?= {D} {D} {M} {V}",
    "XADD {X} MAXLEN ~ {N} LIMIT {N} {D} {M} {V}",
    "XADD {X} MAXLEN {N} LIMIT {N} {D} {M} {V}",
    "XLEN {X}",
    "XRANGE {X} - +",
    "XRANGE {X} {D} {D}",
    "XREVRANGE {X} + - COUNT {N}",
    "XDEL {X} {D}",
    "XTRIM {X} MAXLEN {N}",
    "XTRIM {X} MINID {D}",
    "XTRIM {X} MAXLEN ~ {N} ?LIMIT {N}",
    "XTRIM {X} MINID = {D} ?LIMIT {N}",
    "XSETID {X} {D}",
    "XSETID {X} {D} ENTRIESADDED {N} MAXDELETEDID {D}",
    "XSETID {X} {D} ENTRIESADDED {I}",
    "XREAD COUNT {N} STREAMS {X} {D}",
    "XREAD ?COUNT {N} STREAMS {X} {X} {D} {D}",
    "XREAD BLOCK 10 STREAMS {X} $",
    "SETBIT {S} {O} {J}",
    "SETBIT {S} {O} {J}",
    "GETBIT {S} {O}",
    "BITCOUNT {S}",
    "BITCOUNT {S} {R} {R} ?BYTE",
    "BITCOUNT {S} {R} {R} BIT",
    "BITPOS {S} {J}",
    "BITPOS {S} {J} {R}",
    "BITPOS {S} {J} {R} {R} ?BYTE",
    "BITPOS {S} {J} {R} {R} BIT",
    "BITOP AND {S} {S} {S}",
    "BITOP OR {S} {S} {S}",
    "BITOP XOR {S} {S} {S} {S}",
    "BITOP NOT {S} {S}",
    "BITFIELD {S} GET {U} {O} SET {U} {O} {I} GET {U} {O}",
    "BITFIELD {S} INCRBY {U} {O} {I} OVERFLOW SAT INCRBY {U} {O} {I}",
    "BITFIELD {S} OVERFLOW FAIL INCRBY {U} {O} {I} SET {U} {O} {I}",
    "BITFIELD {S} GET {U} #{N} SET {U} #{N} {I}",
    "BITFIELD_RO {S} GET {U} {O}",
    "BITFIELD {S} OVERFLOW WRAP INCRBY {U} #{N} {I} OVERFLOW FAIL INCRBY {U} #{N} {I}",
    "BITFIELD_RO {S} GET {U} {O} SET {U} {O} {I}",
    "BITPOS {S} {J} {R} {R} BIT",
    "BITCOUNT {S} {R}",
    "PFADD {W} *{M}",
    "PFADD {W} *{V}",
    "PFADD {W} *{I}",
    "PFADD {S} {V}",
    "PFCOUNT {W}",
    "PFCOUNT {W} {W}",
    "PFMERGE {W} {W} {W}",
    "PFDEBUG ENCODING {W}",
    "PFDEBUG DECODE {W}",
    "GET {W}",
    "GEOADD {Y} ?NX ?XX ?CH {A} {A} {M}",
    "GEOADD {Y} {A} {A} {M} {A} {A} {M}",
    "GEOADD {Y} {A} {A} {M} {A} {A} {M}",
    "GEODIST {Y} {M} {M} ?km",
    "GEOPOS {Y} {M} {M}",
    "GEOHASH {Y} {M} {M}",
    "GEOSEARCH {Y} FROMMEMBER {M} BYRADIUS {C} km ASC ?WITHDIST ?WITHCOORD ?WITHHASH",
    "GEOSEARCH {Y} FROMLONLAT {A} {A} BYBOX {C} {C} mi DESC ?WITHDIST",
    "GEOSEARCH {Y} FROMLONLAT {A} {A} BYRADIUS {C} ft COUNT {N} ASC",
    "GEOSEARCHSTORE {Y} {Y} FROMMEMBER {M} BYRADIUS {C} m ASC",
    "GEORADIUS {Y} {A} {A} {C} km ASC ?WITHDIST ?WITHHASH",
    "GEORADIUS {Y} {A} {A} {C} km DESC COUNT {N} STORE {Y}",
    "GEORADIUS {Y} {A} {A} {C} km STOREDIST {Z}",
    "GEOSEARCHSTORE {Z} {Y} FROMMEMBER {M} BYRADIUS {C} m ASC STOREDIST",
    "GEOSEARCHSTORE {Y} {Y} FROMLONLAT {A} {A} BYBOX {C} {C} km DESC COUNT {N}",
    "GEOSEARCH {Y} FROMMEMBER {M} BYBOX {C} {C} km ASC COUNT {N} ?ANY ?WITHHASH",
    "GEOSEARCH {Y} FROMMEMBER {M} FROMLONLAT {A} {A} BYRADIUS {C} km ASC",
    "GEORADIUS {Y} {A} {A} {C} km ASC ?WITHCOORD STORE {Y}",
    "GEORADIUSBYMEMBER {Y} {M} {C} km ?ASC COUNT {N} STORE {Y}",
    "GEORADIUSBYMEMBER {Y} {M} {C} km ASC STOREDIST {Z}",
    "GEORADIUS_RO {Y} {A} {A} {C} km ASC ?WITHCOORD",
    "GEORADIUSBYMEMBER {Y} {M} {C} km DESC ?WITHCOORD",
    "GEORADIUSBYMEMBER_RO {Y} {M} {C} km ASC",
    "SORT {1}",
    "SORT {1} ?DESC LIMIT {R} {R}",
    "SORT {1} ALPHA ?DESC",
    "SORT {2} ALPHA LIMIT {R} {R}",
    "SORT {Y} ALPHA ?DESC",
    "SORT {Y} BY nosort ?DESC LIMIT {R} {R}",
    "SORT {1} BY nosort ?DESC GET # GET s*",
    "SORT {1} BY s* ?ALPHA GET s* GET #",
    "SORT {1} BY h*->m1 ALPHA GET h*->m2",
    "SORT {2} ?ALPHA STORE {L}",
    "SORT {1} ALPHA STORE {L} STORE {L}",
    "SORT {1} BY s* LIMIT {R} {R} ?DESC ALPHA GET h*->m1 GET # STORE {L}",
    "SORT {1} BY h*->m2 ?DESC ALPHA GET s*",
    "SORT {K} LIMIT {R} {R} ALPHA GET s*->m1 STORE {L}",
    "SORT_RO {1} BY s* ALPHA STORE {L}",
    "SORT_RO {1} ALPHA",
    "XGROUP CREATE {X} g {D} ?MKSTREAM",
    "XGROUP SETID {X} g {D}",
    "XGROUP DELCONSUMER {X} g {M}",
    "XREADGROUP GROUP g {M} COUNT {N} STREAMS {X} >",
    "XREADGROUP GROUP g {M} ?NOACK STREAMS {X} >",
    "XREADGROUP GROUP g {M} STREAMS {X} {D}",
    "XACK {X} g {D} {D}",
    "XPENDING {X} g",
    "XCLAIM {X} g {M} 0 {D} {D} ?FORCE ?JUSTID",
    "XAUTOCLAIM {X} g {M} 0 {D} COUNT {N}",
    "XAUTOCLAIM {X} g {M} 0 {D} ?COUNT {N} JUSTID",
    "XAUTOCLAIM {X} g {M} 100000000 {D}",
    "XCLAIM {X} g {M} 0 {D} IDLE {N} RETRYCOUNT {N} ?FORCE ?JUSTID",
    "XCLAIM {X} g {M} {N} {D} TIME {N} LASTID {D} JUSTID",
    "XPENDING {X} g IDLE 100000000 {D} {D} {N} ?{M}",
    "XGROUP CREATECONSUMER {X} g {N}",
    "XGROUP CREATE {X} g {D} ?MKSTREAM ENTRIESREAD {N}",
    "XGROUP SETID {X} g {D} ENTRIESREAD {N}",
    "XGROUP DESTROY {X} g",
    "XREADGROUP GROUP g {M} ?COUNT {N} STREAMS {X} {X} > {D}",
    "RESTORE {K} 0 {V}",
    "RESTORE {K} 1000000 {5} ?REPLACE",
    "RESTORE {K} 9999999999999 {5} ?REPLACE ABSTTL",
    "RESTORE {K} 0 {5} ?REPLACE IDLETIME {R}",
    "RESTORE {K} 0 {5} ?REPLACE FREQ {I}",
    "MOVE {K} {N}",
    "WAIT 0 0",
    "PUBSUB CHANNELS {P}",
    "PUBSUB NUMPAT",
    "PUBSUB NUMSUB {M}",
    "PUBSUB SHARDCHANNELS {P}",
    "PUBSUB SHARDNUMSUB {M}",
    "SPUBLISH ch {V}",
    "ROLE",
    "CONFIG GET maxmemory-policy",
    "LATENCY LATEST",
    "MODULE LIST",
    "RESET",
    "MULTI",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH {K}",
    "UNWATCH",
    "PING",
    "PING {V}",
    "ECHO {V}",
    "SELECT {N}",
    "SELECT 0",
    "SWAPDB {N} {N}",
    "FLUSHDB",
    "PUBLISH ch {V}",
    "COMMAND GETKEYS SET {S} {V}",
    "OBJECT REFCOUNT {L}",
    "NOSUCH {V}",
    "CLIENT GETNAME",
    "CLIENT SETNAME {M}",
    "CLIENT GETREDIR",
    "CLIENT UNBLOCK {I}",
    "CLIENT KILL ID 999999",
    "CLIENT LIST TYPE {V}",
    "CLIENT NO-EVICT {V}",
    "CLIENT CACHING {V}",
    "CLIENT TRACKING {V}",
    "ACL WHOAMI",
    "COMMAND GETKEYS {X} {K} {N}",
    "COMMAND GETKEYS ZUNIONSTORE {Z} {N} {Z} {Z}",
    "COMMAND GETKEYS XREADGROUP GROUP g c STREAMS {X} {X} {D} {D}",
    "COMMAND GETKEYS SORT {L} STORE {L}",
    "SCRIPT EXISTS {V}",
    "EVALSHA {V} {N} {K}",
    "EVAL {7} {N} {K}",
    "EVAL {7} 1 {K} {V}",
    "EVAL_RO {7} 1 {K} {V}",
    "FCALL {V} {N} {K}",
    "FUNCTION {V}",
    "OBJECT {V} {K}",
    "XGROUP {V} {X} g",
    "XINFO {V} {X} g",
    "CONFIG GET hash-max-listpack-value",
    "MEMORY USAGE nosuch SAMPLES {N}",
    "LATENCY HISTORY {V}",
    "FLUSHDB ?ASYNC ?SYNC",
];

/// The number 10, as every Redis since 7.0 reads it.
const DUMPED: &[u8] = b"\x00\xc0\x01\x0a\x00\x26\x78\xe7\xb6\xd1\x01\x11\xfc";

/// What scripts do with one key, whatever it holds, and with one argument.
const SCRIPTS: &[&str] = &[
    "return redis.call('TYPE',KEYS[1])",
    "return redis.pcall('INCR',KEYS[1])",
    "return redis.call('APPEND',KEYS[1],ARGV[1])",
    "return {redis.pcall('RPUSH',KEYS[1],'a'),redis.pcall('LRANGE',KEYS[1],0,-1)}",
    "return redis.call('NOSUCH',KEYS[1])",
    "return redis.pcall('SET',KEYS[1])",
    "return {1,2.9,'x',false,true,{3,{}},redis.status_reply('S'),redis.error_reply('E e')}",
    "return #KEYS+#ARGV",
    "return redis.error_reply(ARGV[1] or 'none')",
    "return KEYS[1]..ARGV[2]",
    "return tonumber(ARGV[1])",
];

/// One command.
pub fn command(rng: &mut Rng) -> Words {
    let mut template = rng.pick(TEMPLATES);
    // These end the setting of what follows too often otherwise.
    while matches!(template, "FLUSHDB" | "MULTI" | "DISCARD" | "RESET" | "SELECT {N}" | "SPOP {T} 100000")
        && !rng.one_in(4)
    {
        template = rng.pick(TEMPLATES);
    }
    let mut words = Vec::new();
    for part in template.split(' ') {
        if let Some(optional) = part.strip_prefix('?') {
            if rng.one_in(2) {
                words.push(fill(rng, optional));
            }
        } else if let Some(repeated) = part.strip_prefix('*') {
            let most = if rng.one_in(20) { 200 } else { 4 };
            for _ in 0..=rng.below(most) {
                words.push(fill(rng, repeated));
            }
        } else {
            words.push(fill(rng, part));
        }
    }
    // Since 7.2 a third argument of these may be WITHSCORE, and what is wrong with it is told by EXEC only.
    let grown = template.starts_with("ZRANK") || template.starts_with("ZREVRANK");
    // A wrong timeout might be a long one.
    let waits = ["BL", "BR", "BZ", "WAIT"].iter().any(|start| template.starts_with(start));
    // Without its count it draws lots.
    let chance = template.contains("RAND") || template.starts_with("SPOP");
    if rng.one_in(40) && !grown && !waits && !chance {
        spoil(rng, &mut words);
    }
    words
}

/// Makes a command slightly wrong: a word less, a word more, one twice, or one out of place.
fn spoil(rng: &mut Rng, words: &mut Words) {
    match rng.below(6) {
        0 => drop(words.pop()),
        1 => words.push(value(rng)),
        3 => words.extend(words.last().cloned()),
        4 if words.len() > 1 => drop(words.remove(1 + rng.below(words.len() as u64 - 1) as usize)),
        2 if words.len() > 1 => {
            let at = 1 + rng.below(words.len() as u64 - 1) as usize;
            words[at] = value(rng);
        }
        _ => words[0] = words[0].to_ascii_lowercase(),
    }
    if words.is_empty() {
        words.push(b"PING".to_vec());
    }
}

fn fill(rng: &mut Rng, part: &str) -> Vec<u8> {
    let Some(letter) = part.strip_prefix('{').and_then(|p| p.chars().next()) else {
        return part.as_bytes().to_vec();
    };
    match letter {
        'K' => {
            let kind = rng.pick(&["s", "l", "t", "h", "z", "x"]);
            format!("{kind}{}", rng.below(4)).into_bytes()
        }
        // One in thirty is of another type.
        'S' | 'L' | 'T' | 'H' | 'Z' | 'X' => {
            if rng.one_in(30) {
                return fill(rng, "{K}");
            }
            format!("{}{}", letter.to_ascii_lowercase(), rng.below(4)).into_bytes()
        }
        '1' => format!("l{}", rng.below(4)).into_bytes(),
        '2' => format!("t{}", rng.below(4)).into_bytes(),
        '5' => DUMPED.to_vec(),
        '6' => rng.pick(&["string", "list", "set", "zset", "hash", "stream", "nosuch"]).as_bytes().to_vec(),
        '7' => rng.pick(SCRIPTS).as_bytes().to_vec(),
        'W' => format!("w{}", rng.below(3)).into_bytes(),
        'Y' => format!("y{}", rng.below(3)).into_bytes(),
        'A' => coordinate(rng),
        'C' => match rng.below(12) {
            0 => number(rng),
            1 => b"0".to_vec(),
            _ => (rng.next() >> rng.below(8).wrapping_mul(5).wrapping_add(24)).to_string().into_bytes(),
        },
        'O' => match rng.below(20) {
            0 => integer(rng),
            _ => rng.below(300).to_string().into_bytes(),
        },
        'J' => rng.pick(&["0", "1", "0", "1", "0", "1", "2"]).as_bytes().to_vec(),
        'U' => match rng.below(30) {
            0 => value(rng),
            n if n < 15 => format!("u{}", 1 + rng.below(64)).into_bytes(),
            _ => format!("i{}", 1 + rng.below(65)).into_bytes(),
        },
        'Q' => format!("q{}", rng.below(2)).into_bytes(),
        'V' => value(rng),
        'M' => {
            if rng.one_in(20) {
                return value(rng);
            }
            format!("m{}", rng.below(12)).into_bytes()
        }
        'I' => integer(rng),
        'F' => number(rng),
        'R' => match rng.below(12) {
            0 => integer(rng),
            1 => b"0".to_vec(),
            2 => b"-1".to_vec(),
            _ => (rng.below(20) as i64 - 10).to_string().into_bytes(),
        },
        'B' => match rng.below(8) {
            0 => b"-inf".to_vec(),
            1 => b"+inf".to_vec(),
            2 => [b"(", &number(rng)[..]].concat(),
            _ => number(rng),
        },
        'G' => match rng.below(6) {
            0 => b"-".to_vec(),
            1 => b"+".to_vec(),
            2 => format!("(m{}", rng.below(12)).into_bytes(),
            3 if rng.one_in(4) => value(rng),
            _ => format!("[m{}", rng.below(12)).into_bytes(),
        },
        'E' => {
            let wrong = ["0", "-1", "abc", "9223372036854775807", "-9223372036854775808", "1.5", ""];
            if rng.one_in(3) { rng.pick(&wrong).as_bytes().to_vec() } else { b"1000000".to_vec() }
        }
        'N' => {
            if rng.one_in(15) {
                return integer(rng);
            }
            rng.below(6).to_string().into_bytes()
        }
        'D' => match rng.below(10) {
            0 => format!("{}-*", rng.below(40)).into_bytes(),
            1 => value(rng),
            2 => rng.below(40).to_string().into_bytes(),
            _ => format!("{}-{}", rng.below(200), rng.below(3)).into_bytes(),
        },
        'P' => rng.pick(&["*", "s*", "[a-m]?", "?1", "*[02]", "none*", "\\s*"]).as_bytes().to_vec(),
        other => panic!("no such letter in a template: {other}"),
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    match rng.below(12) {
        0 => Vec::new(),
        1 => integer(rng),
        2 => number(rng),
        3 => (0..rng.below(40)).map(|_| rng.next() as u8).collect(),
        4 => b"compressible ".repeat(1 + rng.below(30) as usize),
        5 => vec![b'a' + rng.below(26) as u8; 40 + rng.below(40) as usize],
        _ => rng
            .pick(&["a", "b", "hello", "world", "foo", "bar baz", "ohmytext", "mynewtext"])
            .as_bytes()
            .to_vec(),
    }
}

fn integer(rng: &mut Rng) -> Vec<u8> {
    match rng.below(24) {
        0 => rng
            .pick(&[
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775808",
                "4294967296",
                "2147483648",
                "-0",
                "+1",
                "01",
                " 1",
                "1 ",
                "0x10",
                "1e3",
                "abc",
                "",
            ])
            .as_bytes()
            .to_vec(),
        1 => (rng.next() as i64).to_string().into_bytes(),
        2 => ((rng.next() >> 40) as i64 - (1 << 23)).to_string().into_bytes(),
        _ => (rng.below(300) as i64 - 100).to_string().into_bytes(),
    }
}

fn coordinate(rng: &mut Rng) -> Vec<u8> {
    match rng.below(20) {
        0 => number(rng),
        1 => b"85.05112878".to_vec(),
        2..=8 => format!("{}.{}", rng.below(160) as i64 - 80, rng.below(1_000_000)).into_bytes(),
        _ => format!("{}.{}", rng.below(6), rng.below(1_000_000)).into_bytes(),
    }
}

fn number(rng: &mut Rng) -> Vec<u8> {
    match rng.below(16) {
        0 => rng
            .pick(&[
                "inf", "-inf", "+inf", "nan", "1e5", "1e-5", "1e20", "1.5e300", "0x1p3", ".5", "5.", "-0",
                "abc", "",
            ])
            .as_bytes()
            .to_vec(),
        1..=5 => (rng.below(40) as i64 - 20).to_string().into_bytes(),
        6 => format!("{}.{}", rng.below(1_000_000), rng.below(1_000_000)).into_bytes(),
        _ => format!("{}.{}", rng.below(20) as i64 - 10, rng.below(100)).into_bytes(),
    }
}
