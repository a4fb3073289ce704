//! Settings that no directive has: of tables, lists and checksums, of scripts, of reply buffers, of the allocator.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::is_on;
use crate::base::num::{parse_i64, parse_memory};
use crate::command::{CommandError, Ctx, DONE, Result, int, is, wrong_arguments};
use crate::server::commands::node;
use crate::server::node::{Node, REPLY_PEAK_MS};
use crate::server::process::allocator;
use crate::value::Limits;

pub fn dict_resizing(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.db.keyspace().tables_stay.store(!is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

pub fn packed_threshold(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    const MOST: u64 = 4 << 30;
    let text = std::str::from_utf8(args[2]).unwrap_or_default();
    let size = parse_memory(text).filter(|size| *size < MOST);
    let size = size.ok_or(CommandError::text(
        "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
    ))?;
    let list_packed_threshold = if size == 0 { usize::MAX } else { size as usize };
    change_limits(node(ctx), |limits| Limits { list_packed_threshold, ..limits });
    ctx.reply.ok();
    DONE
}

pub fn skip_checksums(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    change_limits(node(ctx), |limits| Limits { verify_checksums: !is_on(args[2]), ..limits });
    ctx.reply.ok();
    DONE
}

fn change_limits(node: &Node, change: impl FnOnce(Limits) -> Limits) {
    let _one_at_a_time = node.config_change.lock();
    let limits = change(Limits::clone(&node.shared.limits.load()));
    node.shared.limits.store(Arc::new(limits));
}

pub fn allow_in_scripts(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    node(ctx).shared.scripts.may_run_all.store(is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

pub fn reply_buffer(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    if is(args[2], "peak-reset-time") {
        let time = match args[3] {
            word if is(word, "never") => u64::MAX,
            word if is(word, "reset") => REPLY_PEAK_MS,
            word => u64::try_from(int(word)?).map_err(|_| CommandError::NotInteger)?,
        };
        node.people.reply_peak_ms.store(time, Ordering::Relaxed);
    } else if is(args[2], "resizing") {
        node.people.reply_resizing.store(is_on(args[3]), Ordering::Relaxed);
    } else {
        return Err(wrong_arguments("DEBUG", args[1]));
    }
    ctx.reply.ok();
    DONE
}

pub fn mallctl(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let value = args.get(3).map(|n| parse_i64(n).ok_or(CommandError::NotInteger)).transpose()?;
    let name = String::from_utf8_lossy(args[2]);
    match allocator::control(&name, value.map(|n| n as u64)) {
        Ok(number) => ctx.reply.int(number as i64),
        Err(text) => return Err(CommandError::owned(format!("ERR {text}"))),
    }
    DONE
}

pub fn mallctl_text(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = String::from_utf8_lossy(args[2]);
    match allocator::control_text(&name, args.get(3).copied()) {
        Ok(text) => ctx.reply.bulk(&text),
        Err(text) => return Err(CommandError::owned(format!("ERR {text}"))),
    }
    DONE
}
