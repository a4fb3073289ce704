//! Level 5: commands. Here is what all of them share; the commands stand in [`family`], one file each.
//!
//! To add a command: write `fn name(ctx, args) -> Result<Outcome, CommandError>` in its family's file and
//! a row for it in that file's `COMMANDS`. Nothing else needs to know. Commands that need the node itself
//! stand in the server's room of commands, in the same form.

pub mod client;
pub mod ctx;
pub mod error;
pub mod family;
pub mod gate;
pub mod help;
pub mod marks;
pub mod rights;
pub mod spec;
pub mod syntax;
pub mod table;

pub use client::Client;
pub use ctx::{Block, Collections, Ctx, DONE, Outcome, TimeoutReply, Transaction};
pub use error::CommandError;
pub use spec::{Command, Group, KeyPositions};
pub use table::{CommandTable, Families};

use std::borrow::Cow;
use std::time::Duration;

use crate::base::long_double::LongDouble;
use crate::base::lossless;
use crate::base::num::{parse_f64, parse_f64_of_any_size, parse_i64};
use crate::base::time::UnixMs;
use crate::encoding::Item;
use crate::resp::Reply;

/// An integer argument.
pub fn int(arg: &[u8]) -> Result<i64> {
    parse_i64(arg).ok_or(CommandError::NotInteger)
}

/// A double argument.
pub fn float(arg: &[u8]) -> Result<f64> {
    parse_f64(arg).ok_or(CommandError::NotFloat)
}

/// A count that is not negative.
pub fn non_negative(arg: &[u8]) -> Result<usize> {
    parse_i64(arg).and_then(|n| usize::try_from(n).ok()).ok_or(CommandError::NotPositive)
}

/// An integer of at least 1, or this error.
pub fn at_least_one(arg: &[u8], text: &'static str) -> Result<usize> {
    match parse_i64(arg) {
        Some(n @ 1..) => Ok(n as usize),
        _ => Err(CommandError::text(text)),
    }
}

/// An integer of 32 bits: the number of a database.
pub fn small_int(arg: &[u8]) -> Result<i32> {
    i32::try_from(int(arg)?).map_err(|_| {
        CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647")
    })
}

/// How long a blocking command waits, given in seconds; `None`: without limit. The end, counted from `now`, must not
/// exceed the range of times.
pub fn timeout(arg: &[u8], now: UnixMs) -> Result<Option<Duration>> {
    const WRONG: CommandError = CommandError::text("ERR timeout is not a float or out of range");
    let ms = parse_f64(arg).or_else(|| beyond_a_double(arg)).ok_or(WRONG)? * 1000.0;
    // The cast saturates, and the greatest number is refused below, too.
    wait_from(now, ms.ceil() as i64)
}

/// A number that is beyond a double but within the longer type in which Redis reads a timeout.
fn beyond_a_double(arg: &[u8]) -> Option<f64> {
    let long = LongDouble::parse(arg)?;
    let x = parse_f64_of_any_size(arg)?;
    Some(if x == 0.0 && long.is_positive() { f64::MIN_POSITIVE } else { x })
}

/// As [`timeout`], told in milliseconds.
pub fn timeout_ms(arg: &[u8], now: UnixMs) -> Result<Option<Duration>> {
    let wrong = CommandError::text("ERR timeout is not an integer or out of range");
    wait_from(now, parse_i64(arg).ok_or(wrong)?)
}

fn wait_from(now: UnixMs, ms: i64) -> Result<Option<Duration>> {
    let for_ms = u64::try_from(ms).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    now.checked_add(ms).ok_or(CommandError::text("ERR timeout is out of range"))?;
    Ok((for_ms > 0).then(|| Duration::from_millis(for_ms)))
}

/// The part of `0..len` from `start` to `stop`, both included, negative ones counted from the end.
pub fn clamp_range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from = if start < 0 { len.saturating_add(start).max(0) } else { start };
    let to = if stop < 0 { len.saturating_add(stop) } else { stop }.min(len - 1);
    if from > to { 0..0 } else { from as usize..to as usize + 1 }
}

/// Writes an element of a collection as a bulk string.
#[inline]
pub fn bulk_item(reply: &mut Reply, item: Item<'_>) {
    match item {
        Item::Bytes(bytes) => reply.bulk(bytes),
        Item::Int(n) => reply.bulk_int(n),
    }
}

/// The answer to a subcommand with arguments that it does not take.
pub fn wrong_arguments(container: &str, word: &[u8]) -> CommandError {
    let word = shown(word);
    CommandError::owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{word}'. Try {container} HELP."
    ))
}

/// An argument inside the text of an error: up to a NUL, where it ends for Redis.
pub fn shown(arg: &[u8]) -> Cow<'_, str> {
    lossless::text(up_to_nul(arg))
}

/// An argument as far as C reads it.
pub fn up_to_nul(arg: &[u8]) -> &[u8] {
    arg.split(|b| *b == 0).next().unwrap_or_default()
}

/// What follows leading white space as C counts it.
pub fn trim_start(text: &[u8]) -> &[u8] {
    let blank = text.iter().take_while(|b| matches!(b, b' ' | b'\t'..=b'\r')).count();
    &text[blank..]
}

/// Whether an argument is this word, in any case.
pub fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// A handler's result.
pub type Result<T = Outcome> = std::result::Result<T, CommandError>;
