//! DUMP and RESTORE: a value as bytes that other servers take.

use crate::acl::category;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group, Group::Generic, flags::*, key, one};
use crate::command::{CommandError, Result, int, is};
use crate::keyspace::db::Expiring;
use crate::keyspace::event;
use crate::keyspace::lazy::Cause;
use crate::persist::rdb::{Options, payload};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("dump", 2, Generic, dump)
        .complexity("O(1)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc("2.6.0", "key", "Returns the value of a key in a form that RESTORE takes."),
    Command::new("restore", -4, Generic, restore)
        .complexity("O(1)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::OW | key::UPDATE)])
        .categories(category::DANGEROUS)
        .history(&[
            ("3.0.0", "The option `REPLACE`."),
            ("5.0.0", "The option `ABSTTL`."),
            ("5.0.0", "The options `IDLETIME` and `FREQ`."),
        ])
        .doc(
            "2.6.0",
            "key ttl serialized-value [REPLACE@3.0.0] [ABSTTL@5.0.0] [IDLETIME \
             seconds@5.0.0] [FREQ frequency@5.0.0]",
            "Creates a key from what DUMP returned.",
        ),
    Command::new("restore-asking", -4, Group::Server, restore)
        .flags(WRITE | DENYOOM | ASKING | SYSTEM)
        .keys(&[one(1, key::OW | key::UPDATE)])
        .categories(category::KEYSPACE | category::DANGEROUS)
        .complexity("O(1)")
        .history(&[
            ("3.0.0", "The option `REPLACE`."),
            ("5.0.0", "The option `ABSTTL`."),
            ("5.0.0", "The options `IDLETIME` and `FREQ`."),
        ])
        .doc(
            "3.0.0",
            "key ttl serialized-value [REPLACE@3.0.0] [ABSTTL@5.0.0] [IDLETIME \
             seconds@5.0.0] [FREQ frequency@5.0.0]",
            "Creates a key as RESTORE does, in a slot that this node imports.",
        ),
];

fn dump(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match ctx.db.read(args[1]) {
        None => ctx.reply.null(),
        Some(value) => {
            let mut out = Vec::new();
            payload::dump(&mut out, value, Options { compress: ctx.limits.compress_payloads });
            ctx.reply.bulk(&out);
        }
    }
    DONE
}

const INVALID_TTL: CommandError = CommandError::text("ERR Invalid TTL value, must be >= 0");

/// A taken name is an error before the TTL, and the TTL before the payload.
fn restore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (key, bytes) = (args[1], args[3]);
    let (mut replace, mut absolute, mut idle, mut freq) = (false, false, None, None);
    let mut options = args[4..].iter();
    while let Some(&option) = options.next() {
        if is(option, "replace") {
            replace = true;
        } else if is(option, "absttl") {
            absolute = true;
        } else if is(option, "idletime") && freq.is_none() && !options.as_slice().is_empty() {
            let n = int(options.next().ok_or(CommandError::Syntax)?)?;
            let valid = u64::try_from(n);
            idle = Some(valid.map_err(|_| CommandError::text("ERR Invalid IDLETIME value, must be >= 0"))?);
        } else if is(option, "freq") && idle.is_none() && !options.as_slice().is_empty() {
            let n = int(options.next().ok_or(CommandError::Syntax)?)?;
            let valid = u8::try_from(n);
            freq = Some(
                valid.map_err(|_| CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255"))?,
            );
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if !replace && ctx.db.exists(key) {
        return Err(CommandError::text("BUSYKEY Target key name already exists."));
    }
    let ttl = int(args[2])?;
    if ttl < 0 {
        return Err(INVALID_TTL);
    }
    let value = payload::restore(bytes, ctx.limits).map_err(|refused| CommandError::text(refused.reply()))?;
    let at = match ttl {
        0 => None,
        ttl if absolute => Some(ttl),
        ttl => Some(ttl.checked_add(ctx.db.now).ok_or(INVALID_TTL)?),
    };
    if at.is_some_and(|at| at <= ctx.db.now) && ctx.db.expiring() == Expiring::Delete {
        // A TTL that has passed: the key is not made, but REPLACE has deleted what was there.
        if ctx.db.remove_unseen(key) {
            ctx.db.changed(key, event::DEL);
            ctx.db.record_deletion(Cause::Server, key);
        }
        ctx.reply.ok();
        return DONE;
    }
    ctx.db.remove_unseen(key);
    ctx.db.insert(key, value, at);
    ctx.db.set_usage(key, idle, freq);
    ctx.db.changed(key, event::RESTORE);
    // Replicas are told the moment, never a duration.
    if let Some(at) = at.filter(|_| !absolute) {
        let mut text = itoa::Buffer::new();
        let mut record: Vec<&[u8]> = vec![b"RESTORE", key, text.format(at).as_bytes(), bytes];
        record.extend_from_slice(&args[4..]);
        record.push(b"ABSTTL");
        ctx.record(&record);
    }
    ctx.reply.ok();
    DONE
}
