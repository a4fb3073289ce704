//! Ends of the process that no user asks for, for tests of what is left behind; and leaked memory.

use crate::command::{CommandError, Ctx, DONE, Result};

pub fn panic(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    panic!("called by DEBUG PANIC");
}

pub fn assertion(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    assert!(args.is_empty(), "called by DEBUG ASSERT");
    DONE
}

/// As an allocation of half of all addresses would end.
pub fn out_of_memory(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let half = std::alloc::Layout::array::<u8>(usize::MAX / 2).expect("at most isize::MAX bytes");
    std::alloc::handle_alloc_error(half);
}

/// Dies as by a bad access: the report and the exit status are those of the signal.
pub fn segfault(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    if signal_hook::low_level::raise(signal_hook::consts::SIGSEGV).is_err() {
        std::process::abort();
    }
    DONE
}

pub fn no_restart(_ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    Err(CommandError::text(
        "ERR Not supported: the server does not start itself again; DEBUG SEGFAULT crashes it, SHUTDOWN ends it",
    ))
}

pub fn leak(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    std::mem::forget(args[2].to_vec());
    ctx.reply.ok();
    DONE
}
