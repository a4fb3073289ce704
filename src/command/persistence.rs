//! Saving: SAVE, BGSAVE, LASTSAVE.

use super::ctx::Ctx;
use super::request::Request;
use super::spec::{Command, Group::Server, flags::*};
use super::{Fail, Result, is};

pub const COMMANDS: &[Command] = &[
    Command::new("save", 1, Server, save)
        .complexity("O(N)")
        .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI)
        .doc("1.0.0", "", "Saves the data to disk while the connection waits."),
    Command::new("bgsave", -1, Server, bgsave)
        .complexity("O(1)")
        .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING | LOCK_ALL)
        .doc("1.0.0", "[SCHEDULE]", "Saves the data to disk in the background."),
    Command::new("lastsave", 1, Server, lastsave)
        .complexity("O(1)")
        .flags(LOADING | STALE | FAST)
        .categories(&["@admin", "@dangerous"])
        .tips(&["nondeterministic_output"])
        .doc("1.0.0", "", "Returns the Unix time of the last successful save."),
];

fn save(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::Save)
}

fn bgsave(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    match args {
        [_] => Ctx::node(Request::BackgroundSave { schedule: false }),
        [_, word] if is(word, "schedule") => Ctx::node(Request::BackgroundSave { schedule: true }),
        _ => Err(Fail::Syntax),
    }
}

fn lastsave(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Ctx::node(Request::LastSave)
}
