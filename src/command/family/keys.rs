//! The generic family: keys whatever they hold. Expiry, OBJECT and DUMP are in files of their own.

use super::scan::{self, Scan};
use crate::acl::category;
use crate::base::glob;
use crate::base::time::UnixMs;
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Command, Group, Group::Generic, flags::*, key, one, range};
use crate::command::{CommandError, Outcome, Result, is, small_int};
use crate::encoding::Item;
use crate::keyspace::lazy::Cause;
use crate::keyspace::{Db, event};
use crate::resp::Reply;
use crate::value::Value;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("del", -2, Generic, del)
        .complexity("O(N)")
        .flags(WRITE)
        .keys(&[range(1, -1, 1, key::RM | key::DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("1.0.0", "key ...", "Deletes keys."),
    Command::new("unlink", -2, Generic, unlink)
        .complexity("O(N)")
        .flags(WRITE | FAST)
        .keys(&[range(1, -1, 1, key::RM | key::DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("4.0.0", "key ...", "Deletes keys; what takes long is freed in the background."),
    Command::new("exists", -2, Generic, exists)
        .complexity("O(N)")
        .flags(READONLY | FAST)
        .keys(&[range(1, -1, 1, key::RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .history(&[("3.0.3", "Several keys at once.")])
        .doc("1.0.0", "key ...", "Counts how many of the keys exist."),
    Command::new("type", 2, Generic, type_of)
        .complexity("O(1)")
        .flags(READONLY | FAST)
        .keys(&[one(1, key::RO)])
        .doc("1.0.0", "key", "Returns the type of the value of a key."),
    Command::new("touch", -2, Generic, touch)
        .complexity("O(N)")
        .flags(READONLY | FAST)
        .keys(&[range(1, -1, 1, key::RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("3.2.1", "key ...", "Counts how many of the keys exist and notes that they were used."),
    Command::new("keys", 2, Generic, keys)
        .complexity("O(N)")
        .flags(READONLY | EACH_SHARD)
        .categories(category::DANGEROUS)
        .tips(&["nondeterministic_output_order", "request_policy:all_shards"])
        .doc("1.0.0", "pattern", "Returns all keys that match a pattern."),
    Command::new("scan", -2, Generic, scan)
        .complexity("O(1)")
        .flags(READONLY | EACH_SHARD)
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
        .history(&[("6.0.0", "The option `TYPE`.")])
        .doc(
            "2.8.0",
            "cursor [MATCH pattern] [COUNT count] [TYPE type@6.0.0]",
            "Goes through the keys of the database step by step.",
        ),
    Command::new("randomkey", 1, Generic, randomkey)
        .complexity("O(1)")
        .flags(READONLY | EACH_SHARD)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("1.0.0", "", "Returns a random key."),
    Command::new("rename", 3, Generic, rename)
        .complexity("O(1)")
        .flags(WRITE)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::OW | key::UPDATE)])
        .doc("1.0.0", "key newkey", "Gives a key another name, and replaces what had that name."),
    Command::new("renamenx", 3, Generic, renamenx)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::DELETE), one(2, key::OW | key::INSERT)])
        .history(&[("3.2.0", "Equal names are no longer an error.")])
        .doc("1.0.0", "key newkey", "Gives a key another name only when no key has that name."),
    Command::new("copy", -3, Generic, copy)
        .complexity("O(N)")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RO | key::ACCESS), one(2, key::OW | key::UPDATE)])
        .doc(
            "6.2.0",
            "source destination [DB destination-db] [REPLACE]",
            "Copies the value of a key to another key.",
        ),
    Command::new("move", 3, Generic, move_key)
        .complexity("O(1)")
        .flags(WRITE | FAST)
        .keys(&[one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc("1.0.0", "key db", "Moves a key to another database."),
    Command::new("swapdb", 3, Group::Server, swapdb)
        .complexity("O(N) where N is the number of keys that are watched or waited for in both databases")
        .flags(WRITE | FAST | LOCK_ALL)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .doc("4.0.0", "index1:integer index2:integer", "Exchanges two databases."),
];

fn del(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    delete(ctx, &args[1..], Cause::User)
}

fn unlink(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    delete(ctx, &args[1..], Cause::Unlink)
}

fn delete(ctx: &mut Ctx<'_, '_, '_>, keys: &[&[u8]], cause: Cause) -> Result {
    let mut deleted = 0;
    for key in keys {
        if ctx.db.delete(key, cause) {
            ctx.db.changed(key, event::DEL);
            deleted += 1;
        }
    }
    ctx.reply.int(deleted);
    DONE
}

/// Does not count as a use of the keys, so it does not keep them from eviction. A key that is named twice counts
/// twice (page of EXISTS).
fn exists(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.db.set_touch(false);
    count_found(ctx, args)
}

/// Counts as a use of the keys even for a client that said CLIENT NO-TOUCH (page of that command).
fn touch(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.db.set_touch(true);
    count_found(ctx, args)
}

fn count_found(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let n = args[1..].iter().filter(|key| ctx.db.entry(key).is_some()).count();
    ctx.reply.int(n as i64);
    DONE
}

fn type_of(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.reply.simple(ctx.db.glance(args[1]).map_or("none", |entry| entry.kind().name()));
    DONE
}

fn keys(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (pattern, mut found, mut count) = (args[1], Reply::new(), 0);
    // No more is gathered than the client may be sent.
    found.begin(ctx.reply.room());
    // Each key that is there all the time is found; no moment is shown.
    let walked = ctx.db.for_each_by_shard(ctx.client.aside.tries, |entry| {
        if pattern == b"*" || glob::matches(pattern, entry.key()) {
            count += 1;
            found.bulk(entry.key());
        }
    });
    if let Err(busy) = walked {
        return Ok(Outcome::Aside(busy));
    }
    if found.is_cut_off() {
        ctx.reply.cut_off();
        return DONE;
    }
    ctx.reply.array(count);
    ctx.reply.append(found);
    DONE
}

fn scan(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let scan = Scan::parse(scan::cursor(args[1])?, &args[2..], scan::Of::Keys)?;
    let (mut found, mut dead, mut walked) = (Vec::new(), Vec::new(), Ok(()));
    let (mut steps, mut looked_up) = (0, 0);
    let next = scan.steps(|mut cursor, count| {
        // As many steps as would do in a sparse table; a step shows one bucket.
        while steps < count.saturating_mul(10) {
            let step = ctx.db.scan(cursor, ctx.client.aside.tries, &mut dead, &mut |entry| {
                if !scan.matches(Item::Bytes(entry.key())) {
                    return;
                }
                // Redis looks a key up to learn its type.
                looked_up += u64::from(scan.kind.is_some());
                if scan.kind.is_none_or(|kind| is(kind, entry.kind().name())) {
                    found.push(entry.key().to_vec());
                }
            });
            match step {
                Ok(next) => cursor = next,
                Err(busy) => {
                    walked = Err(busy);
                    break;
                }
            }
            steps += 1;
            if cursor == 0 || found.len() >= count {
                break;
            }
        }
        cursor
    });
    ctx.db.effects.hits += looked_up;
    // A look at a dead key deletes it.
    ctx.db.bury(dead);
    match walked {
        // A scan may stop anywhere; only one that has got nowhere waits.
        Err(busy) if steps == 0 => Ok(Outcome::Aside(busy)),
        _ => Scan::reply(ctx.reply, next, &found),
    }
}

fn randomkey(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    match ctx.db.random_key(ctx.rng, ctx.client.aside.tries) {
        Ok(Some(key)) => ctx.reply.bulk(&key),
        Ok(None) => ctx.reply.null(),
        Err(busy) => return Ok(Outcome::Aside(busy)),
    }
    DONE
}

/// All that a key is but its name.
struct Held {
    value: Value,
    expire: Option<UnixMs>,
    /// What OBJECT ENCODING says of a string beside its bytes.
    raw: bool,
    text: bool,
    /// When or how often it was used: a key that moves keeps it, a copy begins anew.
    access: Option<u32>,
}

impl Held {
    fn copy_of(db: &mut Db<'_, '_>, key: &[u8]) -> Option<Self> {
        let entry = db.entry(key)?;
        let value =
            entry.shared_string().map_or_else(|| entry.value().to_owned(), |s| Value::String(s.clone()));
        let (raw, text) = (entry.is_raw(), entry.is_text());
        Some(Self { value, expire: entry.expire(), raw, text, access: None })
    }

    fn take(db: &mut Db<'_, '_>, key: &[u8]) -> Option<Self> {
        db.touch(key);
        let entry = db.peek(key)?;
        let (raw, text, access) = (entry.is_raw(), entry.is_text(), Some(entry.access()));
        let (value, expire) = db.take(key)?;
        Some(Self { value, expire, raw, text, access })
    }

    /// Puts it under a key in place of what is there.
    fn put(self, db: &mut Db<'_, '_>, key: &[u8]) {
        db.remove(key);
        db.insert(key, self.value, self.expire);
        if self.raw {
            db.mark_raw(key);
        }
        if self.text {
            db.mark_text(key);
        }
        if let Some(access) = self.access {
            db.set_access(key, access);
        }
    }
}

fn rename(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    move_to(ctx, args[1], args[2])?;
    ctx.reply.ok();
    DONE
}

fn renamenx(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    // A missing source is an error also when the new name is taken (page of RENAMENX).
    if !ctx.db.exists(args[1]) {
        return Err(CommandError::NoSuchKey);
    }
    let free = !ctx.db.touch(args[2]);
    if free {
        move_to(ctx, args[1], args[2])?;
    } else if args[1] != args[2] {
        ctx.db.touch(args[1]);
    }
    ctx.reply.int(i64::from(free));
    DONE
}

/// RENAME: what had the new name is deleted, and the expiry moves along. A key may keep its own name (page of
/// RENAME).
fn move_to(ctx: &mut Ctx<'_, '_, '_>, from: &[u8], to: &[u8]) -> Result<()> {
    if from == to {
        return if ctx.db.touch(from) { Ok(()) } else { Err(CommandError::NoSuchKey) };
    }
    let held = Held::take(ctx.db, from).ok_or(CommandError::NoSuchKey)?;
    held.put(ctx.db, to);
    ctx.db.changed(from, event::RENAME_FROM.uncounted());
    ctx.db.changed(to, event::RENAME_TO);
    Ok(())
}

/// The number of a database as COPY and MOVE take it.
fn database(ctx: &Ctx<'_, '_, '_>, arg: &[u8]) -> Result<u16> {
    existing(ctx, small_int(arg)?)
}

fn existing(ctx: &Ctx<'_, '_, '_>, index: i32) -> Result<u16> {
    let exists = (0..ctx.db.keyspace().databases() as i32).contains(&index);
    if exists { Ok(index as u16) } else { Err(CommandError::text("ERR DB index is out of range")) }
}

const SAME: CommandError = CommandError::text("ERR source and destination objects are the same");

fn copy(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (source, destination, home) = (args[1], args[2], ctx.db.index());
    let (mut replace, mut there) = (false, home);
    let mut options = args[3..].iter();
    while let Some(&option) = options.next() {
        if is(option, "replace") {
            replace = true;
        } else if is(option, "db") {
            there = database(ctx, options.next().ok_or(CommandError::Syntax)?)?;
            if ctx.clustered && there != 0 {
                return Err(CommandError::text(
                    "ERR Copying to another database is not allowed in cluster mode",
                ));
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if source == destination && there == home {
        return Err(SAME);
    }
    let held = Held::copy_of(ctx.db, source);
    let copied = in_database(ctx, there, |db| match held {
        Some(held) if replace || !db.touch(destination) => {
            held.put(db, destination);
            db.changed(destination, event::COPY_TO);
            true
        }
        _ => false,
    });
    ctx.reply.int(i64::from(copied));
    DONE
}

fn move_key(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if ctx.clustered {
        return Err(CommandError::text("ERR MOVE is not allowed in cluster mode"));
    }
    let (key, home) = (args[1], ctx.db.index());
    let there = database(ctx, args[2])?;
    if there == home {
        return Err(SAME);
    }
    // Nothing moves when the source is missing or the name is taken there (page of MOVE).
    if !ctx.db.exists(key) || in_database(ctx, there, |db| db.touch(key)) {
        ctx.db.touch(key);
        ctx.reply.int(0);
        return DONE;
    }
    if let Some(held) = Held::take(ctx.db, key) {
        in_database(ctx, there, |db| held.put(db, key));
        ctx.db.changed(key, event::MOVE_FROM.uncounted());
        in_database(ctx, there, |db| db.changed(key, event::MOVE_TO));
    }
    ctx.reply.int(1);
    DONE
}

fn swapdb(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if ctx.clustered {
        return Err(CommandError::text("ERR SWAPDB is not allowed in cluster mode"));
    }
    let number = |arg, wrong| small_int(arg).map_err(|_| CommandError::text(wrong));
    let first = number(args[1], "ERR invalid first DB index")?;
    let second = number(args[2], "ERR invalid second DB index")?;
    let (first, second) = (existing(ctx, first)?, existing(ctx, second)?);
    ctx.db.swap(first, second);
    ctx.db.effects.dirty += 1;
    ctx.reply.ok();
    DONE
}

/// Does something in another database and comes back. A key has the same lock in every database.
fn in_database<R>(ctx: &mut Ctx<'_, '_, '_>, index: u16, f: impl FnOnce(&mut Db<'_, '_>) -> R) -> R {
    let home = ctx.db.index();
    ctx.db.select(index);
    let result = f(ctx.db);
    ctx.db.select(home);
    result
}
