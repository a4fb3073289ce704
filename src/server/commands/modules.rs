//! MODULE and LOLWUT: there are no modules, and there is a picture.

use std::fmt::Write as _;

use crate::command::help::help;
use crate::command::spec::{Group::Server, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result, int, is};
use crate::config::set::allowed;
use crate::server::commands::node;

pub const COMMANDS: &[Command] = &[
    Command::container("module", Server, MODULE).doc("4.0.0", "", "Commands about modules."),
    Command::new("lolwut", -1, Server, lolwut).flags(READONLY | FAST).doc(
        "5.0.0",
        "[VERSION version]",
        "Draws a picture, and tells the version.",
    ),
];

const LISTING: Flags = ADMIN | NOSCRIPT;
const LOAD: Flags = ADMIN | NOSCRIPT | NO_ASYNC_LOADING;

const MODULE: &[Command] = &[
    Command::new("help", 2, Server, module_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "5.0.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("list", 2, Server, list)
        .flags(LISTING)
        .tips(&["nondeterministic_output_order"])
        .complexity("O(1)")
        .doc("4.0.0", "", "Lists the modules: there are none."),
    Command::new("load", -3, Server, load).flags(LOAD).complexity("O(1)").doc(
        "4.0.0",
        "path [arg ...]",
        "Is refused: this server has no modules.",
    ),
    Command::new("loadex", -3, Server, load).flags(LOAD).complexity("O(1)").doc(
        "7.0.0",
        "path [CONFIG configs=(name value) CONFIG...] [ARGS args ...]",
        "Is refused: this server has no modules.",
    ),
    Command::new("unload", 3, Server, unload).flags(LOAD).complexity("O(1)").doc(
        "4.0.0",
        "name",
        "Is refused: this server has no modules.",
    ),
];

fn module_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "module", MODULE);
    DONE
}

fn list(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.array(0);
    DONE
}

/// Asked first, as in Redis: who may not load modules does not hear that there are none.
fn may_load(ctx: &Ctx<'_, '_, '_>) -> Result<()> {
    if allowed(node(ctx).config.load().enable_module_command, ctx.client.is_local()) {
        return Ok(());
    }
    Err(CommandError::text(
        "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.",
    ))
}

fn load(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    may_load(ctx)?;
    Err(CommandError::text("ERR Error loading the extension. This server does not load modules."))
}

fn unload(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    may_load(ctx)?;
    Err(CommandError::text("ERR Error unloading module: no such module with that name"))
}

/// Columns and rows of the picture.
const WIDTH: usize = 66;
const HEIGHT: usize = 9;

/// Redis drew pictures in its versions 5 and 6, which took up to three numbers and two; all others tell what they are.
/// Here is one picture for both, slots as keystones of an arch: the one in the middle holds the others.
fn lolwut(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let numbers = match args {
        [_, word, version, rest @ ..] if is(word, "version") => match int(version)? {
            5 => Some(&rest[..rest.len().min(3)]),
            6 => Some(&rest[..rest.len().min(2)]),
            _ => None,
        },
        _ => None,
    };
    let version = crate::base::version::REDIS;
    let Some(numbers) = numbers else {
        ctx.reply.verbatim("txt", &format!("Redis ver. {version}\n"));
        return DONE;
    };
    for number in numbers {
        int(number)?;
    }
    let mut text = String::new();
    for row in 0..HEIGHT {
        text.extend((0..WIDTH).map(|column| stone(column, row, ctx.rng.next_u64())));
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    let _ = writeln!(text, "Keystead {}. Redis ver. {version}", env!("CARGO_PKG_VERSION"));
    ctx.reply.verbatim("txt", &text);
    DONE
}

/// What stands at a place of the picture: stones between two half circles, and the keystone.
fn stone(column: usize, row: usize, chance: u64) -> char {
    let x = (column as f64 - WIDTH as f64 / 2.0) / (WIDTH as f64 / 2.0);
    let y = 1.0 - row as f64 / HEIGHT as f64;
    match x.hypot(y) {
        // The keystone.
        r if (0.6..1.0).contains(&r) && x.abs() < 0.09 => '#',
        r if (0.6..1.0).contains(&r) => ['=', '-', '+', ':'][(chance % 4) as usize],
        _ => ' ',
    }
}
