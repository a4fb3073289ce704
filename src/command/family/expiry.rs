//! When keys expire. A key whose moment has passed is deleted at once, and replicas are told so;
//! otherwise they are told the moment and never a duration.

use crate::base::time::UnixMs;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group::Generic, flags::*, key, one};
use crate::command::{CommandError, Result, int, is, shown};
use crate::keyspace::db::Expiring;
use crate::keyspace::lazy::Cause;
use crate::keyspace::{EntryRef, event};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("expire", -3, Generic, expire)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .history(&[("7.0.0", "The options `NX`, `XX`, `GT` and `LT`.")])
        .doc(
            "1.0.0",
            "key seconds [condition@7.0.0=<NX | XX | GT | LT>]",
            "Sets how many seconds a key has left.",
        ),
    Command::new("pexpire", -3, Generic, pexpire)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .history(&[("7.0.0", "The options `NX`, `XX`, `GT` and `LT`.")])
        .doc(
            "2.6.0",
            "key milliseconds [condition@7.0.0=<NX | XX | GT | LT>]",
            "Sets how many milliseconds a key has left.",
        ),
    Command::new("expireat", -3, Generic, expireat)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .history(&[("7.0.0", "The options `NX`, `XX`, `GT` and `LT`.")])
        .doc(
            "1.2.0",
            "key unix-time-seconds [condition@7.0.0=<NX | XX | GT | LT>]",
            "Sets the second at which a key expires.",
        ),
    Command::new("pexpireat", -3, Generic, pexpireat)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .history(&[("7.0.0", "The options `NX`, `XX`, `GT` and `LT`.")])
        .doc(
            "2.6.0",
            "key unix-time-milliseconds [condition@7.0.0=<NX | XX | GT | LT>]",
            "Sets the millisecond at which a key expires.",
        ),
    Command::new("ttl", 2, Generic, ttl)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .history(&[("2.8.0", "A missing key is told from one that never expires.")])
        .doc("1.0.0", "key", "Returns how many seconds a key has left."),
    Command::new("pttl", 2, Generic, pttl)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .history(&[("2.8.0", "A missing key is told from one that never expires.")])
        .doc("2.6.0", "key", "Returns how many milliseconds a key has left."),
    Command::new("expiretime", 2, Generic, expiretime)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("7.0.0", "key", "Returns the second at which a key expires."),
    Command::new("pexpiretime", 2, Generic, pexpiretime)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("7.0.0", "key", "Returns the millisecond at which a key expires."),
    Command::new("persist", 2, Generic, persist)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .doc("2.2.0", "key", "Takes the expiry from a key."),
];

/// The unit of a command's numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

/// NX, XX, GT and LT of the EXPIRE family.
#[derive(Default)]
struct Condition {
    without: bool,
    with: bool,
    later: bool,
    earlier: bool,
}

impl Condition {
    fn parse(args: &[&[u8]]) -> Result<Self> {
        let mut c = Self::default();
        for word in args {
            let flag = match word {
                w if is(w, "nx") => &mut c.without,
                w if is(w, "xx") => &mut c.with,
                w if is(w, "gt") => &mut c.later,
                w if is(w, "lt") => &mut c.earlier,
                _ => {
                    let word = shown(word);
                    return Err(CommandError::owned(format!("ERR Unsupported option {word}")));
                }
            };
            *flag = true;
        }
        if c.without && (c.with || c.later || c.earlier) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if c.later && c.earlier {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(c)
    }

    /// Whether the expiry `old` may become `at`. A key without expiry counts as one that lives for ever: GT never
    /// gives it one, LT always does (page of EXPIRE).
    fn allows(&self, old: Option<UnixMs>, at: UnixMs) -> bool {
        let old_or_never = old.unwrap_or(UnixMs::MAX);
        !(self.without && old.is_some()
            || self.with && old.is_none()
            || self.later && (old.is_none() || at <= old_or_never)
            || self.earlier && old.is_some() && at >= old_or_never)
    }
}

fn expire(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    set_expiry(ctx, args, Unit::Seconds, now)
}

fn pexpire(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    set_expiry(ctx, args, Unit::Milliseconds, now)
}

fn expireat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_expiry(ctx, args, Unit::Seconds, 0)
}

fn pexpireat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    set_expiry(ctx, args, Unit::Milliseconds, 0)
}

fn set_expiry(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], unit: Unit, from: UnixMs) -> Result {
    let key = args[1];
    let condition = Condition::parse(&args[3..])?;
    let n = int(args[2])?;
    let invalid = || CommandError::ExpireTime(ctx.command.name.to_owned());
    let ms = if unit == Unit::Seconds { n.checked_mul(1000).ok_or_else(invalid)? } else { n };
    let at = ms.checked_add(from).ok_or_else(invalid)?;
    let Some(old) = ctx.db.expire_of(key) else {
        ctx.reply.int(0);
        return DONE;
    };
    ctx.db.touch(key);
    if !condition.allows(old, at) {
        ctx.reply.int(0);
        return DONE;
    }
    // A moment that has passed deletes the key, and the event is `del` (page of EXPIRE).
    // Only a primary deletes; a replica waits to be told.
    if at <= ctx.db.now && ctx.db.expiring() == Expiring::Delete {
        ctx.db.delete(key, Cause::Expiry);
        ctx.db.record_deletion(Cause::Expiry, key);
        ctx.db.changed(key, event::DEL);
    } else {
        ctx.db.set_expire(key, Some(at));
        ctx.record(&[b"PEXPIREAT", key, itoa::Buffer::new().format(at).as_bytes()]);
        ctx.db.changed(key, event::EXPIRE);
    }
    ctx.reply.int(1);
    DONE
}

/// Whole seconds, rounded to the nearest.
fn ttl(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    show(ctx, args[1], |at| (at - now).max(0).saturating_add(500) / 1000)
}

fn pttl(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let now = ctx.db.now;
    show(ctx, args[1], |at| (at - now).max(0))
}

/// Whole seconds, rounded to the nearest.
fn expiretime(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args[1], |at| at.saturating_add(500) / 1000)
}

fn pexpiretime(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    show(ctx, args[1], |at| at)
}

/// Replies with -2 for a missing key and -1 for one that never expires (page of TTL).
fn show(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], number: impl Fn(UnixMs) -> i64) -> Result {
    ctx.reply.int(match ctx.db.glance(key).map(EntryRef::expire) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => number(at),
    });
    DONE
}

fn persist(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.db.touch(args[1]);
    let volatile = matches!(ctx.db.expire_of(args[1]), Some(Some(_)));
    if volatile {
        ctx.db.set_expire(args[1], None);
        ctx.db.changed(args[1], event::PERSIST);
    }
    ctx.reply.int(i64::from(volatile));
    DONE
}
