//! The process: TIME and SHUTDOWN.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::command::spec::{EVERYWHERE, Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Outcome, Result, is};
use crate::exec::script::busy_fail;
use crate::server::commands::{node, scripting};
use crate::server::shutdown::{self, Shutdown};

pub const COMMANDS: &[Command] = &[
    Command::new("time", 1, Server, time)
        .flags(LOADING | STALE | FAST)
        .tips(&["nondeterministic_output"])
        .complexity("O(1)")
        .doc("2.6.0", "", "Tells the time of the server."),
    Command::new("shutdown", -1, Server, shutdown)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY | READS_COUNTERS)
        .complexity("O(N) where N is the number of keys, if they are saved")
        .history(&[("7.0.0", "The options `NOW`, `FORCE` and `ABORT`.")])
        .doc(
            "1.0.0",
            "[save-selector=<NOSAVE | SAVE>] [NOW@7.0.0] [FORCE@7.0.0] [ABORT@7.0.0]",
            "Ends the server.",
        )
        .modes(EVERYWHERE),
];

fn time(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
    ctx.reply.array(2);
    ctx.reply.bulk_int(micros / 1_000_000);
    ctx.reply.bulk_int(micros % 1_000_000);
    DONE
}

fn shutdown(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let mut how = Shutdown::default();
    for word in &args[1..] {
        let option = [
            ("save", &mut how.save),
            ("nosave", &mut how.nosave),
            ("now", &mut how.now),
            ("force", &mut how.force),
            ("abort", &mut how.abort),
        ]
        .into_iter()
        .find(|(name, _)| is(word, name));
        *option.ok_or(CommandError::Syntax)?.1 = true;
    }
    if (how.save && how.nosave) || (how.abort && args.len() > 2) {
        return Err(CommandError::Syntax);
    }
    let (node, client) = (node(ctx), &*ctx.client);
    if !how.nosave && !how.abort && scripting::one_takes_long(node.shared) {
        // It may have changed things that nobody has seen, and is not to be saved half done.
        return Err(busy_fail(&node.shared.scripts));
    }
    if !how.abort {
        shutdown::begin(node, how, Some((client.worker, client.token, client.id)));
        return Ok(Outcome::Suspended);
    }
    if !shutdown::abort(node) {
        return Err(CommandError::text("ERR No shutdown in progress."));
    }
    ctx.reply.ok();
    DONE
}
