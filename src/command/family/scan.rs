//! What SCAN, SSCAN, HSCAN and ZSCAN have in common: a cursor, a pattern, a count.

use crate::base::glob;
use crate::base::num::{parse_i64, parse_u64_leniently};
use crate::command::ctx::DONE;
use crate::command::{CommandError, Result, int, is};
use crate::encoding::Item;
use crate::encoding::item::IntText;
use crate::resp::Reply;

/// What is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Keys,
    Hash,
    Members,
}

/// The arguments of a scan.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    cursor: u64,
    count: usize,
    pattern: Option<&'a [u8]>,
    /// The type of SCAN.
    pub(super) kind: Option<&'a [u8]>,
    /// HSCAN without values (7.4).
    pub(super) no_values: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn parse(cursor: u64, options: &[&'a [u8]], of: Of) -> Result<Self> {
        let mut scan = Self { cursor, count: 10, pattern: None, kind: None, no_values: false };
        let mut options = options.iter();
        while let Some(&option) = options.next() {
            if is(option, "novalues") {
                if of != Of::Hash {
                    return Err(CommandError::text("ERR NOVALUES option can only be used in HSCAN"));
                }
                scan.no_values = true;
                continue;
            }
            let value = options.next().copied().ok_or(CommandError::Syntax)?;
            if is(option, "count") {
                let count = int(value)?;
                scan.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
            } else if is(option, "match") {
                scan.pattern = (value != b"*").then_some(value);
            } else if of == Of::Keys && is(option, "type") {
                scan.kind = Some(value);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(scan)
    }

    /// Whether an element is wanted.
    pub(super) fn matches(&self, item: Item<'_>) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, item.text(&mut IntText::new())))
    }

    /// Runs `step` from the cursor on with the count that was asked for; returns the next cursor.
    pub(super) fn steps(&self, step: impl FnOnce(u64, usize) -> u64) -> u64 {
        step(self.cursor, self.count)
    }

    pub(super) fn reply(reply: &mut Reply, next: u64, found: &[Vec<u8>]) -> Result {
        reply.array(2);
        reply.bulk(itoa::Buffer::new().format(next).as_bytes());
        reply.array(found.len());
        for item in found {
            reply.bulk(item);
        }
        DONE
    }
}

/// The cursor: an unsigned number of 64 bits. What is a plain negative number is none; other texts are taken as
/// `strtoull` takes them, which is content with space, signs and leading zeros. Nothing counts behind a NUL.
pub(super) fn cursor(arg: &[u8]) -> Result<u64> {
    let text = arg.split(|b| *b == 0).next().unwrap_or_default();
    let number = match parse_i64(text) {
        Some(n) => u64::try_from(n).ok(),
        None => parse_u64_leniently(text),
    };
    number.ok_or(CommandError::text("ERR invalid cursor"))
}

/// The reply for a key that is missing.
pub(super) fn reply_nothing(reply: &mut Reply) -> Result {
    reply.raw(b"*2\r\n$1\r\n0\r\n*0\r\n");
    DONE
}
