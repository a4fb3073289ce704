//! The string family.

use crate::base::long_double::LongDouble;
use crate::base::time::UnixMs;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group::String, flags::*, key, one, range};
use crate::command::{CommandError, Result, int, is};
use crate::keyspace::db::SetExpire;
use crate::keyspace::lazy::Cause;
use crate::keyspace::{Event, event};
use crate::value::ValueRef;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("get", 2, String, get).complexity("O(1)").flags(READONLY | FAST).keys(&[one(1, key::RO | key::ACCESS)]).doc("1.0.0", "key", "Returns the string value of a key."),
    Command::new("set", -3, String, set).complexity("O(1)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE | key::VARIABLE_FLAGS)
            .notes("RW and ACCESS due to the optional `GET` argument")])
        .history(&[("2.6.12", "The options `EX`, `PX`, `NX` and `XX`."), ("6.0.0", "The option `KEEPTTL`."), ("6.2.0", "The options `GET`, `EXAT` and `PXAT`."), ("7.0.0", "`NX` and `GET` together.")])
        .doc("1.0.0", "key value [condition@2.6.12=<NX | XX>] [GET@6.2.0] [expiration=<EX \
             seconds@2.6.12 | PX milliseconds@2.6.12 | EXAT unix-time-seconds@6.2.0 | \
             PXAT unix-time-milliseconds@6.2.0 | KEEPTTL@6.0.0>]", "Sets the string value of a key, whatever its type was, and creates the key if it does not exist."),
    Command::new("setnx", 3, String, setnx).deprecated("2.6.12", "`SET` with `NX`").complexity("O(1)").flags(WRITE | DENYOOM | FAST).keys(&[one(1, key::OW | key::INSERT)]).doc("1.0.0", "key value", "Sets the string value of a key only when the key does not exist."),
    Command::new("setex", 4, String, setex).deprecated("2.6.12", "`SET` with `EX`").complexity("O(1)").flags(WRITE | DENYOOM).keys(&[one(1, key::OW | key::UPDATE)]).doc("2.0.0", "key seconds value", "Sets the string value and the expiry of a key."),
    Command::new("psetex", 4, String, psetex).deprecated("2.6.12", "`SET` with `PX`").complexity("O(1)").flags(WRITE | DENYOOM).keys(&[one(1, key::OW | key::UPDATE)]).doc("2.6.0", "key milliseconds value", "Sets the string value and the expiry in milliseconds of a key."),
    Command::new("getset", 3, String, getset).deprecated("6.2.0", "`SET` with `GET`").complexity("O(1)")
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc("1.0.0", "key value", "Sets a key to a new string value and returns the one before."),
    Command::new("getdel", 2, String, getdel).complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE)])
        .doc("6.2.0", "key", "Returns the string value of a key and deletes the key."),
    Command::new("getex", -2, String, getex).complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE).notes("RW and UPDATE because it changes the TTL")])
        .doc("6.2.0", "key [expiration=<EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | PERSIST>]", "Returns the string value of a key and sets or clears its expiry."),
    Command::new("mget", -2, String, mget).complexity("O(N)")
        .flags(READONLY | FAST)
        .keys(&[range(1, -1, 1, key::RO | key::ACCESS)])
        .tips(&["request_policy:multi_shard"])
        .doc("1.0.0", "key ...", "Returns the string values of several keys at one moment."),
    Command::new("mset", -3, String, mset).complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[range(1, -1, 2, key::OW | key::UPDATE)])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .doc("1.0.1", "data=(key value) ...", "Sets the string values of several keys at one moment."),
    Command::new("msetnx", -3, String, msetnx).complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[range(1, -1, 2, key::OW | key::INSERT)])
        .doc("1.0.1", "data=(key value) ...", "Sets the string values of several keys only when none of them exists."),
    Command::new("incr", 2, String, incr).complexity("O(1)").flags(WRITE | DENYOOM | FAST).keys(&[one(1, RWU)]).doc("1.0.0", "key", "Adds one to the integer value of a key; a missing key counts as 0."),
    Command::new("decr", 2, String, decr).complexity("O(1)").flags(WRITE | DENYOOM | FAST).keys(&[one(1, RWU)]).doc("1.0.0", "key", "Takes one from the integer value of a key; a missing key counts as 0."),
    Command::new("incrby", 3, String, incrby).complexity("O(1)").flags(WRITE | DENYOOM | FAST).keys(&[one(1, RWU)]).doc("1.0.0", "key increment", "Adds a number to the integer value of a key; a missing key counts as 0."),
    Command::new("decrby", 3, String, decrby).complexity("O(1)").flags(WRITE | DENYOOM | FAST).keys(&[one(1, RWU)]).doc("1.0.0", "key decrement", "Takes a number from the integer value of a key; a missing key counts as 0."),
    Command::new("incrbyfloat", 3, String, incrbyfloat).complexity("O(1)").flags(WRITE | DENYOOM | FAST).keys(&[one(1, RWU)]).doc("2.6.0", "key increment:double", "Adds a floating point number to the value of a key; a missing key counts as 0."),
    Command::new("append", 3, String, append).complexity("O(1)").flags(WRITE | DENYOOM | FAST).keys(&[one(1, key::RW | key::INSERT)]).doc("2.0.0", "key value", "Appends bytes to the string value of a key, and creates the key if it does not exist."),
    Command::new("strlen", 2, String, strlen).complexity("O(1)").flags(READONLY | FAST).keys(&[one(1, key::RO)]).doc("2.2.0", "key", "Returns the length of a string value."),
    Command::new("getrange", 4, String, getrange).complexity("O(N)").flags(READONLY).keys(&[one(1, key::RO | key::ACCESS)]).doc("2.4.0", "key start end", "Returns a part of the string value of a key."),
    Command::new("substr", 4, String, getrange).deprecated("2.0.0", "`GETRANGE`").complexity("O(N)").flags(READONLY).keys(&[one(1, key::RO | key::ACCESS)]).doc("1.0.0", "key start end", "Returns a part of the string value of a key: the old name of GETRANGE."),
    Command::new("setrange", 4, String, setrange).complexity("O(1)").flags(WRITE | DENYOOM).keys(&[one(1, key::RW | key::UPDATE)]).doc("2.2.0", "key offset value", "Overwrites a part of a string value from an offset on, and creates the key if it does not exist."),
];

const RWU: u16 = key::RW | key::ACCESS | key::UPDATE;

fn get(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    reply_string(ctx, args[1])?;
    DONE
}

/// Writes the string under `key`, or null. A large one goes out by reference.
fn reply_string(ctx: &mut Ctx<'_, '_, '_>, key: &[u8]) -> Result<bool> {
    let Some(entry) = ctx.db.entry(key) else {
        ctx.reply.null();
        return Ok(false);
    };
    match (entry.value(), entry.shared_string()) {
        (_, Some(shared)) => ctx.reply.bulk_shared(shared),
        (ValueRef::String(s), None) => ctx.reply.bulk(s),
        _ => return Err(CommandError::WrongType),
    }
    Ok(true)
}

/// How SET and its relatives treat a key that exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfMissing,
    IfPresent,
}

/// The options of SET and GETEX.
struct Options<'a> {
    condition: Condition,
    get: bool,
    /// The word that says until when the key lives, and the number behind it if it takes one.
    when: Option<(&'static str, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Parses what stands behind the value of SET, or behind the key of GETEX. A word may be repeated,
    /// the last one counts; two ways to say when exclude each other.
    fn parse(args: &[&'a [u8]], getex: bool) -> Result<Self> {
        let mut o = Self { condition: Condition::Always, get: false, when: None };
        let words = ["ex", "px", "exat", "pxat", if getex { "persist" } else { "keepttl" }];
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            if !getex && is(arg, "nx") && o.condition != Condition::IfPresent {
                o.condition = Condition::IfMissing;
            } else if !getex && is(arg, "xx") && o.condition != Condition::IfMissing {
                o.condition = Condition::IfPresent;
            } else if !getex && is(arg, "get") {
                o.get = true;
            } else {
                let word = words.into_iter().find(|w| is(arg, w)).ok_or(CommandError::Syntax)?;
                if o.when.is_some_and(|(said, _)| said != word) {
                    return Err(CommandError::Syntax);
                }
                let time = match word {
                    "keepttl" | "persist" => b"",
                    _ => *args.next().ok_or(CommandError::Syntax)?,
                };
                o.when = Some((word, time));
            }
        }
        Ok(o)
    }

    fn expire(&self, ctx: &Ctx<'_, '_, '_>) -> Result<SetExpire> {
        match self.when {
            None | Some(("persist", _)) => Ok(SetExpire::Clear),
            Some(("keepttl", _)) => Ok(SetExpire::Keep),
            Some((word, time)) => {
                let seconds = !word.starts_with('p');
                Ok(SetExpire::At(deadline(ctx, time, seconds, word.ends_with("at"))?))
            }
        }
    }
}

/// The moment that an expiry argument of a string command means. Unlike those of EXPIRE it must be positive, and
/// its milliseconds must fit into 64 bits (page of SETEX: an invalid time is an error).
fn deadline(ctx: &Ctx<'_, '_, '_>, arg: &[u8], seconds: bool, absolute: bool) -> Result<UnixMs> {
    let n = int(arg)?;
    let invalid = || CommandError::ExpireTime(ctx.command.name.to_owned());
    if n <= 0 {
        return Err(invalid());
    }
    let ms = if seconds { n.checked_mul(1000).ok_or_else(invalid)? } else { n };
    if absolute { Ok(ms) } else { ms.checked_add(ctx.db.now).ok_or_else(invalid) }
}

fn set(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args.len() == 3 {
        ctx.db.set_string(args[1], args[2], SetExpire::Clear);
        ctx.db.changed(args[1], event::SET);
        ctx.reply.ok();
        return DONE;
    }
    let o = Options::parse(&args[3..], false)?;
    let expire = o.expire(ctx)?;
    if o.get {
        // The old value is the reply, whether or not the new one is set.
        reply_string(ctx, args[1])?;
    }
    if o.condition != Condition::Always && ctx.db.exists(args[1]) == (o.condition == Condition::IfMissing) {
        ctx.db.touch(args[1]);
        if !o.get {
            ctx.reply.null();
        }
        return DONE;
    }
    match expire {
        SetExpire::At(at) => put_until(ctx, args[1], args[2], at, matches!(o.when, Some(("pxat", _)))),
        expire => {
            ctx.db.set_string(args[1], args[2], expire);
            ctx.db.changed(args[1], event::SET);
            // What the client wants back concerns nobody else.
            if o.get {
                let told = args[3..].iter().copied().filter(|arg| !is(arg, "get"));
                ctx.record(&args[..3].iter().copied().chain(told).collect::<Vec<_>>());
            }
        }
    }
    if !o.get {
        ctx.reply.ok();
    }
    DONE
}

/// Sets a string that ends at a moment. Replicas are told the moment, unless the command is `told` as it came.
fn put_until(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], value: &[u8], at: UnixMs, told: bool) {
    ctx.db.set_string(key, value, SetExpire::At(at));
    ctx.db.changed(key, event::SET);
    ctx.db.notify(key, event::EXPIRE);
    if !told {
        ctx.record(&[&b"SET"[..], key, value, b"PXAT", itoa::Buffer::new().format(at).as_bytes()]);
    }
}

fn setnx(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let missing = !ctx.db.touch(args[1]);
    if missing {
        ctx.db.set_string(args[1], args[2], SetExpire::Clear);
        ctx.db.changed(args[1], event::SET);
    }
    ctx.reply.int(i64::from(missing));
    DONE
}

fn setex(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_for(ctx, args, true)
}

fn psetex(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_for(ctx, args, false)
}

fn set_for(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], seconds: bool) -> Result {
    let at = deadline(ctx, args[2], seconds, false)?;
    put_until(ctx, args[1], args[3], at, false);
    ctx.reply.ok();
    DONE
}

fn getset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    reply_string(ctx, args[1])?;
    ctx.db.set_string(args[1], args[2], SetExpire::Clear);
    ctx.db.changed(args[1], event::SET);
    ctx.record(&[&b"SET"[..], args[1], args[2]]);
    DONE
}

/// Replicas are told the deletion alone: what the client reads concerns nobody else.
fn getdel(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if reply_string(ctx, args[1])? {
        ctx.db.delete(args[1], Cause::User);
        ctx.db.changed(args[1], event::DEL);
        ctx.db.record_deletion(Cause::User, args[1]);
    }
    DONE
}

fn getex(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let o = Options::parse(&args[2..], true)?;
    let key = args[1];
    if !reply_string(ctx, key)? {
        return DONE;
    }
    // The expiry is read last: for a missing key, or one of another type, a wrong one is not noticed.
    match o.expire(ctx)? {
        SetExpire::At(at) if at < ctx.db.now => {
            ctx.db.delete(key, Cause::Expiry);
            ctx.db.record_deletion(Cause::Expiry, key);
            ctx.db.changed(key, event::DEL);
        }
        SetExpire::At(at) => {
            ctx.db.set_expire(key, Some(at));
            ctx.record(&[&b"PEXPIREAT"[..], key, itoa::Buffer::new().format(at).as_bytes()]);
            ctx.db.changed(key, event::EXPIRE);
        }
        _ if o.when.is_some() && ctx.db.expire_of(key) != Some(None) => {
            ctx.db.set_expire(key, None);
            ctx.record(&[&b"PERSIST"[..], key]);
            ctx.db.changed(key, event::PERSIST);
        }
        _ => {}
    }
    DONE
}

/// A key of another type reads as missing (page of MGET).
fn mget(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.reply.array(args.len() - 1);
    for key in &args[1..] {
        // A key of another type counts as missing here.
        if reply_string(ctx, key).is_err() {
            ctx.reply.null();
        }
    }
    DONE
}

fn mset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_pairs(ctx, args)?;
    ctx.reply.ok();
    DONE
}

fn set_pairs(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<()> {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(ctx.command.name.to_owned()));
    }
    for pair in args[1..].chunks_exact(2) {
        ctx.db.set_string(pair[0], pair[1], SetExpire::Clear);
        ctx.db.changed(pair[0], event::SET);
    }
    Ok(())
}

/// All or nothing: one key that exists keeps the others from being set (page of MSETNX).
fn msetnx(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(ctx.command.name.to_owned()));
    }
    let any = args[1..].iter().step_by(2).any(|key| ctx.db.touch(key));
    if !any {
        set_pairs(ctx, args)?;
    }
    ctx.reply.int(i64::from(!any));
    DONE
}

fn incr(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    add(ctx, args[1], 1)
}

fn decr(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    add(ctx, args[1], -1)
}

fn incrby(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    add(ctx, args[1], int(args[2])?)
}

fn decrby(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    // The smallest number has no counterpart.
    let by = int(args[2])?.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(ctx, args[1], by)
}

fn add(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], by: i64) -> Result {
    let digits = &mut itoa::Buffer::new();
    let mut new = "";
    ctx.db.update_string(key, |old| {
        let old = match old {
            None => 0,
            Some(ValueRef::String(s)) => int(s)?,
            Some(_) => return Err(CommandError::WrongType),
        };
        let sum = old.checked_add(by);
        new = digits.format(sum.ok_or(CommandError::text("ERR increment or decrement would overflow"))?);
        Ok(new)
    })?;
    ctx.db.changed(key, event::INCRBY);
    ctx.reply.int_of(new);
    DONE
}

fn incrbyfloat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (key, by) = (args[1], args[2]);
    let mut text = std::string::String::new();
    ctx.db.update_string(key, |old| {
        let old = match old {
            None => LongDouble::ZERO,
            Some(ValueRef::String(s)) => LongDouble::parse(s).ok_or(CommandError::NotFloat)?,
            Some(_) => return Err(CommandError::WrongType),
        };
        let new = old + LongDouble::parse(by).ok_or(CommandError::NotFloat)?;
        if !new.is_finite() {
            return Err(CommandError::text("ERR increment would produce NaN or Infinity"));
        }
        text = new.to_string();
        Ok(text.as_bytes())
    })?;
    // Longer strings have one encoding only, `raw`.
    if text.len() <= 44 {
        ctx.db.mark_text(key);
    }
    ctx.db.changed(key, event::INCRBYFLOAT);
    // Replicas get the result: their floating point may differ.
    ctx.record(&[&b"SET"[..], key, text.as_bytes(), b"KEEPTTL"]);
    ctx.reply.bulk(text.as_bytes());
    DONE
}

/// The longest string that the client may build. Our primary has checked what it sends.
pub(super) fn longest(ctx: &Ctx<'_, '_, '_>) -> usize {
    if ctx.client.role.is_obeyed() { usize::MAX } else { ctx.limits.max_string }
}

fn check_length(len: Option<usize>, longest: usize) -> Result<()> {
    match len {
        Some(len) if len <= longest => Ok(()),
        _ => Err(CommandError::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)")),
    }
}

fn append(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (key, tail, longest) = (args[1], args[2], longest(ctx));
    let len = edit(
        ctx,
        key,
        |old| {
            let len = old.map_or(0, <[u8]>::len);
            check_length(len.checked_add(tail.len()), longest)?;
            Ok(Some(len))
        },
        |s, len| {
            s.truncate(len);
            s.extend_from_slice(tail);
        },
        false,
        event::APPEND,
    )?;
    ctx.reply.int(len as i64);
    DONE
}

fn setrange(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (key, part) = (args[1], args[3]);
    let offset = int(args[2])?;
    let Ok(offset) = usize::try_from(offset) else {
        return Err(CommandError::text("ERR offset is out of range"));
    };
    let longest = longest(ctx);
    let len = edit(
        ctx,
        key,
        |_| {
            // Nothing to write makes no key, and is not too long wherever it would stand.
            if part.is_empty() {
                return Ok(None);
            }
            check_length(offset.checked_add(part.len()), longest)?;
            Ok(Some(offset))
        },
        |s, at| {
            if s.len() < at + part.len() {
                s.resize(at + part.len(), 0);
            }
            s[at..at + part.len()].copy_from_slice(part);
        },
        true,
        event::SETRANGE,
    )?;
    ctx.reply.int(len as i64);
    DONE
}

/// Changes a string in place where that is possible. `check` sees the old value and says where to
/// change, or `None` to leave all as it is; `change` does it. A string that it makes from nothing is
/// `raw` where Redis shows it so. Returns the length after it.
fn edit(
    ctx: &mut Ctx<'_, '_, '_>,
    key: &[u8],
    check: impl FnOnce(Option<&[u8]>) -> Result<Option<usize>>,
    change: impl Fn(&mut Vec<u8>, usize),
    new_is_raw: bool,
    event: Event,
) -> Result<usize> {
    let (old_len, at) = ctx.db.inspect(key, |old| {
        let old = match old {
            Some(ValueRef::String(s)) => Some(s),
            None => None,
            Some(_) => return Err(CommandError::WrongType),
        };
        Ok((old.map(<[u8]>::len), check(old)?))
    })?;
    let exists = old_len.is_some();
    let Some(at) = at else {
        ctx.db.touch(key);
        return Ok(old_len.unwrap_or(0));
    };
    let edit = |s: &mut Vec<u8>| {
        change(s, at);
        s.len()
    };
    let len = if exists || new_is_raw {
        ctx.db.edit_string(key, edit)
    } else {
        let mut s = Vec::new();
        let len = edit(&mut s);
        ctx.db.replace_string(key, s, false);
        len
    };
    ctx.db.changed(key, event);
    Ok(len)
}

fn strlen(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let len = ctx.string(args[1])?.map_or(0, <[u8]>::len);
    ctx.reply.int(len as i64);
    DONE
}

fn getrange(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (start, end) = (int(args[2])?, int(args[3])?);
    match ctx.db.read(args[1]) {
        None => ctx.reply.bulk(b""),
        Some(ValueRef::String(s)) => ctx.reply.bulk(slice(s, start, end)),
        Some(_) => return Err(CommandError::WrongType),
    }
    DONE
}

/// The bytes from `start` to `end`, both included, negative ones counted from the end.
fn slice(s: &[u8], start: i64, end: i64) -> &[u8] {
    let len = s.len() as i64;
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let from = if start < 0 { (len.saturating_add(start)).max(0) } else { start };
    let to = if end < 0 { (len.saturating_add(end)).max(0) } else { end }.min(len - 1);
    if from > to || len == 0 { b"" } else { &s[from as usize..=to as usize] }
}
