//! Trouble that tests ask for: threads that stand still, a shard that is held, a bad disk, packets that are lost,
//! and clocks that nobody hears.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::is_on;
use crate::base::crc16::key_slot;
use crate::base::lossless;
use crate::base::num::{leading_i64, parse_f64, parse_i64};
use crate::cluster::NodeId;
use crate::command::{CommandError, Ctx, DONE, Outcome, Result, int, is, wrong_arguments};
use crate::keyspace::board::Reason;
use crate::resp::Reply;
use crate::server::commands::node;
use crate::server::disk::fault::{self, Step, Trouble};
use crate::server::net::mailbox::Mail;
use crate::server::node::{Node, unix_ms};

pub fn sleep(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let seconds = parse_f64(args[2]).filter(|s| *s > 0.0).unwrap_or(0.0);
    stop_all(node(ctx), ctx.client.worker, Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    ctx.reply.ok();
    DONE
}

/// Stops all threads, as a machine that stands still would: people use it to simulate a dead node. Called on
/// the thread of `worker`.
fn stop_all(node: &Node, worker: usize, time: Duration) {
    let Some(until) = Instant::now().checked_add(time) else { return };
    for other in (0..node.life.threads.workers.get().map_or(0, Vec::len)).filter(|w| *w != worker) {
        node.send(other, Mail::Sleep(until));
    }
    for runtime in node.life.threads.runtimes.lock().iter() {
        runtime.spawn(async move { sleep_until(until) });
    }
    node.life
        .stopped
        .until_ms
        .store(node.mono_ms().saturating_add(time.as_millis() as u64), Ordering::Release);
    sleep_until(until);
}

fn sleep_until(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Holds a shard as a script or a giant command would, but on a thread of its own; QUIETLY: without declaring
/// that it takes long.
pub fn hold_shard(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let time = parse_f64(args[3]).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let quietly = args.get(4).is_some_and(|word| is(word, "quietly"));
    let (Some(time), None) = (time, ctx.client.executing) else {
        return Err(CommandError::text("ERR Invalid arguments"));
    };
    if args.len() > 4 && !quietly {
        return Err(CommandError::Syntax);
    }
    let (slot, for_thread) = (key_slot(args[2]), Arc::clone(node(ctx)));
    let (worker, token, client) = (ctx.client.worker, ctx.client.token, ctx.client.id);
    let body = move || {
        let mut locked = for_thread.shared.keyspace.lock_slot(slot);
        if !quietly {
            locked.declare_long(Reason::Command("debug"), unix_ms());
        }
        std::thread::sleep(time);
        drop(locked);
        let mut reply = Reply::new();
        reply.ok();
        for_thread.send(worker, Mail::Resume { token, client, reply, written_to: 0 });
    };
    match std::thread::Builder::new().name("hold-shard".into()).spawn(body) {
        Ok(_) => Ok(Outcome::Suspended),
        Err(e) => Err(CommandError::owned(format!("ERR cannot start a thread: {e}"))),
    }
}

/// Severs the link that a node made (FROM), the one made to it (TO), or both.
pub fn cluster_link(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if !is(args[2], "kill") || args.len() != 5 {
        return Err(wrong_arguments("DEBUG", args[1]));
    }
    let bus = node(ctx)
        .peers
        .bus
        .get()
        .ok_or(CommandError::text("ERR Debug option only available for cluster mode enabled setup!"))?;
    let unknown = || CommandError::owned(format!("ERR Unknown node {}", lossless::text(args[4])));
    let peer = NodeId::parse(args[4]).filter(|id| bus.read(|state| state.knows(id))).ok_or_else(unknown)?;
    let [from, to, all] = ["from", "to", "all"].map(|word| is(args[3], word));
    if !(from || to || all) {
        return Err(CommandError::owned(format!("ERR Unknown direction {}", lossless::text(args[3]))));
    }
    bus.sever(peer, |inbound| all || if inbound { from } else { to });
    ctx.reply.ok();
    DONE
}

pub fn disk_fault(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match args {
        [_, _, off] if is(off, "off") => fault::clear(),
        [_, _, step, name, trouble] => {
            let (step, trouble) = fault_of(step, trouble).ok_or(CommandError::Syntax)?;
            fault::add(step, &String::from_utf8_lossy(name), trouble);
        }
        _ => return Err(CommandError::Syntax),
    }
    ctx.reply.ok();
    DONE
}

/// The words of DISK-FAULT.
fn fault_of(step: &[u8], trouble: &[u8]) -> Option<(Step, Trouble)> {
    let step = match step.to_ascii_lowercase().as_slice() {
        b"open" => Step::Open,
        b"write" => Step::Write,
        b"sync" => Step::Sync,
        b"truncate" => Step::Truncate,
        b"rename" => Step::Rename,
        b"remove" => Step::Remove,
        _ => return None,
    };
    let trouble = match trouble.to_ascii_lowercase().as_slice() {
        b"enospc" => Trouble::Error(libc::ENOSPC),
        b"erofs" => Trouble::Error(libc::EROFS),
        b"eio" => Trouble::Error(libc::EIO),
        b"short" => Trouble::Short,
        word => {
            let ms = parse_i64(word.strip_prefix(b"slow-")?)?;
            Trouble::Slow(Duration::from_millis(u64::try_from(ms).ok()?))
        }
    };
    Some((step, trouble))
}

pub fn aof_flush_sleep(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let us = u64::try_from(leading_i64(args[2])).unwrap_or(0);
    node(ctx).files.aof.flush_sleep_us.store(us, Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

pub fn set_active_expire(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    node(ctx).life.stopped.expiry.store(!is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

pub fn pause_cron(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    node(ctx).life.stopped.cron.store(is_on(args[2]), Ordering::Relaxed);
    ctx.reply.ok();
    DONE
}

pub fn drop_filter(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let kind = int(args[2])?;
    if let Some(bus) = node(ctx).peers.bus.get() {
        bus.drop_filter.store(kind, Ordering::Relaxed);
    }
    ctx.reply.ok();
    DONE
}

pub fn close_on_drop(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if let Some(bus) = node(ctx).peers.bus.get() {
        bus.close_on_drop.store(is_on(args[2]), Ordering::Relaxed);
    }
    ctx.reply.ok();
    DONE
}
