//! Lists and sorted sets as queues: elements are taken from one end, and clients may wait for some.
//!
//! Every blocking command first tries at once; when there is nothing it asks to be blocked and runs
//! again when one of its keys has changed. Replicas get the command that does not block.

use std::ops::Range;

use crate::command::ctx::{Ctx, DONE, TimeoutReply};
use crate::command::{CommandError, Result, at_least_one, is, timeout};

/// An end of collections of one type.
pub(super) trait QueueEnd: Copy {
    fn parse(word: &[u8]) -> Result<Self>;

    /// The command that takes this end without waiting.
    fn command(self) -> &'static [u8];

    /// Takes up to `count` elements of the collection under `key` and replies with the key and them in
    /// an array of their own, or without a count with the key and one element side by side. Returns how
    /// many; `None`, with no reply, when there is no such collection.
    fn take(self, ctx: &mut Ctx<'_, '_, '_>, key: &[u8], count: Option<usize>) -> Result<Option<usize>>;
}

/// LMPOP and ZMPOP.
pub(super) fn mpop<E: QueueEnd>(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (keys, end, count) = several::<E>(args, 1)?;
    if !take_first(ctx, &args[keys], end, Some(count))? {
        ctx.reply.null_array();
    }
    DONE
}

/// BLMPOP and BZMPOP.
pub(super) fn bmpop<E: QueueEnd>(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (keys, end, count) = several::<E>(args, 2)?;
    let timeout = timeout(args[1], ctx.db.now)?;
    if take_first(ctx, &args[keys.clone()], end, Some(count))? {
        return DONE;
    }
    let end = keys.end;
    ctx.wait(keys, timeout, TimeoutReply::NullArray, |at| {
        [&[args[0], args[1], b"1", args[at]], &args[end..]].concat()
    })
}

/// BLPOP, BZPOPMIN and their kin.
pub(super) fn bpop<E: QueueEnd>(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], end: E) -> Result {
    let last = args.len() - 1;
    let timeout = timeout(args[last], ctx.db.now)?;
    if take_first(ctx, &args[1..last], end, None)? {
        return DONE;
    }
    ctx.wait(1..last, timeout, TimeoutReply::NullArray, |at| vec![args[0], args[at], args[last]])
}

/// The keys, the end and the count of a command on several keys; the number of keys is argument `at`.
fn several<E: QueueEnd>(args: &[&[u8]], at: usize) -> Result<(Range<usize>, E, usize)> {
    let n = at_least_one(args[at], "ERR numkeys should be greater than 0")?;
    let keys = at + 1..(at + 1).saturating_add(n);
    let end = E::parse(args.get(keys.end).ok_or(CommandError::Syntax)?)?;
    let count = match &args[keys.end + 1..] {
        [] => 1,
        [word, count, rest @ ..] if is(word, "count") => {
            // A wrong count is told before what is wrong behind it.
            let count = at_least_one(count, "ERR count should be greater than 0")?;
            if !rest.is_empty() {
                return Err(CommandError::Syntax);
            }
            count
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok((keys, end, count))
}

/// Takes from the first collection that there is, in the order of the keys (page of BLPOP). False, with no reply,
/// when there is none. Replicas are told the pop of that one key.
fn take_first<E: QueueEnd>(
    ctx: &mut Ctx<'_, '_, '_>,
    keys: &[&[u8]],
    end: E,
    count: Option<usize>,
) -> Result<bool> {
    for key in keys {
        let Some(taken) = end.take(ctx, key, count)? else { continue };
        let mut number = itoa::Buffer::new();
        let mut record = vec![end.command(), *key];
        record.extend(count.map(|_| number.format(taken).as_bytes()));
        ctx.record(&record);
        return Ok(true);
    }
    Ok(false)
}
