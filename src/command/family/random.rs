//! Random elements of collections: SRANDMEMBER, HRANDFIELD, ZRANDMEMBER.

use crate::base::rng::Rng;
use crate::command::{CommandError, Result, int};
use crate::encoding::Item;
use crate::resp::Reply;

/// How many random elements are wanted: a positive count of different ones, or a negative one of
/// any. Unlike Redis, which would build any reply, the number is bounded.
pub(super) fn count(arg: &[u8]) -> Result<i64> {
    const MOST: i64 = 1 << 28;
    match int(arg)? {
        i64::MIN => Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        n if n < -MOST => Err(CommandError::text("ERR value is out of range")),
        n => Ok(n),
    }
}

/// Refuses a count of pairs whose elements would be too many to count.
pub(super) fn pairs_count(count: Option<i64>, pairs: bool) -> Result<()> {
    match count {
        Some(n) if pairs && n.unsigned_abs() > (i64::MAX / 2) as u64 => {
            Err(CommandError::text("ERR value is out of range"))
        }
        _ => Ok(()),
    }
}

/// The answer of a key that is missing.
pub(super) fn reply_nothing(reply: &mut Reply, count: Option<i64>) {
    match count {
        Some(_) => reply.array(0),
        None => reply.null(),
    }
}

/// Replies with `count` random elements of a collection of `len`. `open` begins the array of so many,
/// `one` draws an element, `all` goes through all of them.
#[expect(clippy::too_many_arguments, reason = "one way for all collections: they differ in four closures")]
pub(super) fn reply_elements<T: Clone + Element, I: Iterator<Item = T>>(
    reply: &mut Reply,
    rng: &mut Rng,
    count: i64,
    len: usize,
    open: impl FnOnce(&mut Reply, usize),
    mut one: impl FnMut(&mut Rng) -> Option<T>,
    all: impl FnOnce() -> I,
    mut show: impl FnMut(&mut Reply, T),
) {
    if count < 0 {
        let n = count.unsigned_abs() as usize;
        open(reply, n);
        for _ in 0..n {
            if let Some(element) = one(rng) {
                show(reply, element);
            }
            // The client will not get it.
            if reply.is_cut_off() {
                break;
            }
        }
    } else {
        let n = (count as usize).min(len);
        open(reply, n);
        distinct(rng, n, len, one, all, |element| show(reply, element));
    }
}

/// Shows `n` different elements out of `len` to `show`, every choice of them with the same probability.
/// `one` draws an element, `all` goes through all of them.
fn distinct<T: Clone + Element, I: Iterator<Item = T>>(
    rng: &mut Rng,
    n: usize,
    len: usize,
    mut one: impl FnMut(&mut Rng) -> Option<T>,
    all: impl FnOnce() -> I,
    show: impl FnMut(T),
) {
    if n >= len {
        all().for_each(show);
    } else if n.saturating_mul(3) > len {
        // Many of them: drawn from all by the first steps of a shuffle.
        let mut elements: Vec<T> = all().collect();
        for i in 0..n {
            let j = i + rng.below((elements.len() - i) as u64) as usize;
            elements.swap(i, j);
        }
        elements.truncate(n);
        elements.into_iter().for_each(show);
    } else {
        // Few: drawn again when drawn before.
        let mut seen = std::collections::HashSet::with_capacity(n);
        let mut drawn = Vec::with_capacity(n);
        while drawn.len() < n {
            let Some(element) = one(rng) else { break };
            if seen.insert(element.identity()) {
                drawn.push(element);
            }
        }
        drawn.into_iter().for_each(show);
    }
}

/// An element that [`distinct`] draws.
pub(super) trait Element {
    /// What tells it from the others.
    fn identity(&self) -> Vec<u8>;
}

impl Element for Item<'_> {
    fn identity(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl<T> Element for (Item<'_>, T) {
    fn identity(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}
