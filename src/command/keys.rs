//! The generic family: keys and their expiry.

use super::Result;
use super::ctx::{Ctx, DONE};
use super::spec::{Command, Group::Generic, flags::*, key, range};

pub const COMMANDS: &[Command] = &[
    Command::new("del", -2, Generic, del)
        .flags(WRITE)
        .keys(&[range(1, -1, 1, key::RM | key::DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("1.0.0", "key [key ...]", "Deletes keys."),
    Command::new("exists", -2, Generic, exists)
        .flags(READONLY | FAST)
        .keys(&[range(1, -1, 1, key::RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("1.0.0", "key [key ...]", "Counts how many of the keys exist."),
];

fn del(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let mut deleted = 0;
    for key in &args[1..] {
        if ctx.db.remove(key) {
            ctx.db.changed(key);
            deleted += 1;
        }
    }
    ctx.reply.int(deleted);
    DONE
}

fn exists(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let n = args[1..].iter().filter(|key| ctx.db.entry(key).is_some()).count();
    ctx.reply.int(n as i64);
    DONE
}
