//! Sorted set values.

use std::ops::{Bound, Range};

use super::Limits;
use crate::base::rng::Rng;
use crate::encoding::{Item, Listpack};

/// Members with scores, ordered by score and then by the member's bytes. A score is never NaN.
#[derive(Clone, Debug, Default)]
pub struct SortedSet {
    items: Vec<(f64, Vec<u8>)>,
}

/// What [`SortedSet::add`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Added {
    New,
    /// The member had this other score before.
    Moved(f64),
    Same,
}

/// An end of a range by member, where all scores are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`
    Lowest,
    /// `+`
    Highest,
    Included(&'a [u8]),
    Excluded(&'a [u8]),
}

impl SortedSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// A sorted set from a listpack of members and scores in turn; `None` if a member occurs twice,
    /// a score is missing or no number, or the order is wrong.
    pub fn from_listpack(pairs: Listpack, limits: &Limits) -> Option<Self> {
        let mut set = Self::new();
        let mut items = pairs.iter();
        while let Some(member) = items.next() {
            let score = crate::base::num::parse_f64(&items.next()?.to_vec())?;
            if set.add(&member.to_vec(), score, limits) != Added::New {
                return None;
            }
        }
        Some(set)
    }

    /// An empty set in the encoding that suits `members` members, to be filled without conversions.
    pub fn with_capacity(_members: usize, _limits: &Limits) -> Self {
        Self::new()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Gives `member` this score, which is not NaN.
    pub fn add(&mut self, member: &[u8], score: f64, _limits: &Limits) -> Added {
        assert!(!score.is_nan(), "scores are checked where they arrive");
        let old = self.score(member);
        if old == Some(score) {
            return Added::Same;
        }
        self.remove(member);
        let at = self.items.partition_point(|(s, m)| (*s, &m[..]) < (score, member));
        self.items.insert(at, (score, member.to_vec()));
        old.map_or(Added::New, Added::Moved)
    }

    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.items.iter().find(|(_, m)| m == member).map(|(s, _)| *s)
    }

    /// Removes a member and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let (rank, score) = self.rank(member)?;
        self.items.remove(rank);
        Some(score)
    }

    /// Rank (from 0, lowest score first) and score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let rank = self.items.iter().position(|(_, m)| m == member)?;
        Some((rank, self.items[rank].0))
    }

    /// Member and score at a rank.
    pub fn at(&self, rank: usize) -> Option<(Item<'_>, f64)> {
        self.items.get(rank).map(|(s, m)| (Item::Bytes(&m[..]), *s))
    }

    pub fn first(&self) -> Option<(Item<'_>, f64)> {
        self.at(0)
    }

    pub fn last(&self) -> Option<(Item<'_>, f64)> {
        self.at(self.len().checked_sub(1)?)
    }

    /// Removes the lowest member after showing it to `f`.
    pub fn pop_first_with<R>(&mut self, f: impl FnOnce(Item<'_>, f64) -> R) -> Option<R> {
        let (score, member) = (!self.is_empty()).then(|| self.items.remove(0))?;
        Some(f(Item::Bytes(&member), score))
    }

    /// Removes the highest member after showing it to `f`.
    pub fn pop_last_with<R>(&mut self, f: impl FnOnce(Item<'_>, f64) -> R) -> Option<R> {
        let (score, member) = self.items.pop()?;
        Some(f(Item::Bytes(&member), score))
    }

    /// The ranks of the members with scores between the bounds; empty if there are none.
    pub fn score_range(&self, min: Bound<f64>, max: Bound<f64>) -> Range<usize> {
        let start = self.items.partition_point(|(s, _)| match min {
            Bound::Included(x) => *s < x,
            Bound::Excluded(x) => *s <= x,
            Bound::Unbounded => false,
        });
        let end = self.items.partition_point(|(s, _)| match max {
            Bound::Included(x) => *s <= x,
            Bound::Excluded(x) => *s < x,
            Bound::Unbounded => true,
        });
        start..end.max(start)
    }

    /// The ranks of the members between the bounds; empty if there are none. All scores must be equal,
    /// otherwise the result is some range within the set.
    pub fn lex_range(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = self.items.partition_point(|(_, m)| match min {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Included(x) => m.as_slice() < x,
            LexBound::Excluded(x) => m.as_slice() <= x,
        });
        let end = self.items.partition_point(|(_, m)| match max {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Included(x) => m.as_slice() <= x,
            LexBound::Excluded(x) => m.as_slice() < x,
        });
        start..end.max(start)
    }

    /// Members and scores of these ranks, a range within `0..len`; `.rev()` for descending order.
    pub fn range(
        &self,
        ranks: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (Item<'_>, f64)> + ExactSizeIterator + '_ {
        self.items[ranks].iter().map(|(s, m)| (Item::Bytes(&m[..]), *s))
    }

    /// All members and scores, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Item<'_>, f64)> + ExactSizeIterator + '_ {
        self.range(0..self.len())
    }

    /// Removes the members of these ranks, a range within `0..len`. Returns how many.
    pub fn remove_range(&mut self, ranks: Range<usize>) -> usize {
        self.items.drain(ranks).count()
    }

    /// A member and its score, each member with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<(Item<'_>, f64)> {
        let n = self.len() as u64;
        if n == 0 { None } else { self.at(rng.below(n) as usize) }
    }

    /// One step of a scan: shows about `count` members and returns the cursor to go on with, 0 at the end.
    /// A member present from the first to the last step is shown at least once.
    pub fn scan(&self, _cursor: u64, _count: usize, mut f: impl FnMut(Item<'_>, f64)) -> u64 {
        self.iter().for_each(|(member, score)| f(member, score));
        0
    }

    /// The listpack of members and scores in turn, if the set is in that encoding.
    pub fn packed(&self) -> Option<&Listpack> {
        None
    }

    pub fn encoding_name(&self) -> &'static str {
        "skiplist"
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        self.items.iter().map(|(_, m)| m.capacity() + 32).sum()
    }
}
