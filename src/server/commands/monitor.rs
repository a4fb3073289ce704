//! MONITOR.

use crate::command::spec::{Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result};
use crate::server::commands::node;

pub const COMMANDS: &[Command] = &[Command::new("monitor", 1, Server, monitor)
    .flags(ADMIN | NOSCRIPT | LOADING | STALE)
    .doc("1.0.0", "", "Shows the connection every command that the server runs.")];

fn monitor(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    if ctx.client.executing.is_some() {
        return Err(CommandError::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if ctx.client.monitors() {
        // As in Redis, which answers nothing.
        return DONE;
    }
    let node = node(ctx);
    node.monitor(ctx.client);
    ctx.reply.ok();
    DONE
}
