//! Sorted set values: a listpack of members and scores in turn, or a table beside a tree.

mod packed;
mod tree;

use std::ops::{Bound, Range};

use super::Limits;
use super::distinct::distinct;
use super::form::form;
use super::record::{Record, Shape, Shared};
use super::table::{Search, Stage, Table};
use crate::base::rng::Rng;
use crate::encoding::item::IntText;
use crate::encoding::{Dense, Item};
use tree::{Cursor, Tree};

/// Members with scores, ordered by score and then by the member's bytes. A score is never NaN.
#[derive(Clone, Default)]
#[repr(transparent)]
pub struct SortedSet(Form);

form! { 1: Full(Full) }

impl Default for Form {
    fn default() -> Self {
        Owned::Packed(Dense::new()).into()
    }
}

/// A record is the score and the member.
struct Scored;

impl Shape for Scored {
    const HEAD: usize = 8;
    const TAIL: bool = false;
}

impl Record<Scored> {
    #[inline]
    fn score(&self) -> f64 {
        f64::from_le_bytes(self.head().try_into().expect("the head is a score"))
    }
}

/// The large encoding. Every record of the table has its key in the tree and the other way round; the
/// table never moves a record.
struct Full {
    // Declared first, so dropped before the records that it refers to.
    tree: Tree,
    table: Table<Scored>,
}

/// What [`SortedSet::add`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Added {
    /// The member was not there.
    New,
    /// The member had this other score before.
    Moved(f64),
    /// The member had this score already.
    Same,
}

/// An end of a range by member, where all scores are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`
    Lowest,
    /// `+`
    Highest,
    /// From or to this member, itself included.
    Included(&'a [u8]),
    /// From or to this member, itself left out.
    Excluded(&'a [u8]),
}

impl SortedSet {
    /// A sorted set without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// A sorted set from a listpack of members and scores in turn, converted if it is beyond the limits;
    /// `None` if a member occurs twice, a score is missing or no number, or the order is wrong.
    pub fn from_listpack(pairs: Dense, limits: &Limits) -> Option<Self> {
        let n = pairs.len();
        if !n.is_multiple_of(2) || !packed::is_sound(&pairs) || !distinct(pairs.iter().step_by(2)) {
            return None;
        }
        let longest = pairs.iter().step_by(2).map(|i| i.len()).max().unwrap_or(0);
        let mut set = Self(Owned::Packed(pairs).into());
        if n / 2 > limits.zset_max_listpack_entries || longest > limits.zset_max_listpack_value {
            set.make_full(0, limits);
        }
        Some(set)
    }

    /// An empty set in the encoding that suits `members` members, to be filled without conversions.
    pub fn with_capacity(members: usize, limits: &Limits) -> Self {
        let mut set = Self::new();
        if members > limits.zset_max_listpack_entries {
            set.make_full(members, limits);
        }
        set
    }

    /// Shows the lengths of the chains of the hash table; false if there is none.
    pub fn for_each_chain(&self, f: &mut impl FnMut(usize)) -> bool {
        let View::Full(full) = self.0.view() else { return false };
        full.table.for_each_chain(f);
        true
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0.view() {
            View::Packed(lp) => lp.len() / 2,
            View::Full(full) => full.table.len(),
        }
    }

    /// Whether there is no member.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives `member` this score, which is not NaN.
    #[inline]
    pub fn add(&mut self, member: &[u8], score: f64, limits: &Limits) -> Added {
        assert!(!score.is_nan(), "scores are checked where they arrive");
        match self.0.view_mut() {
            ViewMut::Full(full) => full.add(member, score),
            ViewMut::Packed(lp) => {
                if let Some((pos, old)) = packed::find(lp, member) {
                    if old == score {
                        return Added::Same;
                    }
                    lp.remove(pos, 2);
                    packed::insert(lp, member, score);
                    return Added::Moved(old);
                }
                if lp.len() / 2 < limits.zset_max_listpack_entries
                    && member.len() <= limits.zset_max_listpack_value
                    && lp.has_room(member.len())
                {
                    packed::insert(lp, member, score);
                    return Added::New;
                }
                self.make_full(0, limits);
                self.add(member, score, limits)
            }
        }
    }

    /// Converts to the large encoding with room for at least `members`.
    fn make_full(&mut self, members: usize, limits: &Limits) {
        let mut full = Box::new(Full { tree: Tree::new(), table: Table::new(limits.hash_seed) });
        full.table.reserve(members.max(self.len() + 1));
        let mut buf = IntText::new();
        for (member, score) in self.iter() {
            full.add(member.text(&mut buf), score);
        }
        self.0 = Owned::Full(full).into();
    }

    /// The score of a member.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self.0.view() {
            View::Packed(lp) => packed::find(lp, member).map(|(_, score)| score),
            View::Full(full) => full.table.get(member).map(Record::score),
        }
    }

    /// See [`super::Set::prefetch`].
    #[inline]
    pub fn prefetch(&self, member: &[u8], stage: Stage) -> bool {
        let View::Full(full) = self.0.view() else { return false };
        full.table.prefetch(member, stage);
        true
    }

    /// Removes a member and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self.0.view_mut() {
            ViewMut::Packed(lp) => {
                let (pos, score) = packed::find(lp, member)?;
                lp.remove(pos, 2);
                Some(score)
            }
            ViewMut::Full(full) => full.remove(member),
        }
    }

    /// Rank (from 0, lowest score first) and score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self.0.view() {
            View::Packed(lp) => packed::rank(lp, member),
            View::Full(full) => {
                let score = full.table.get(member)?.score();
                Some((full.tree.rank(score, member), score))
            }
        }
    }

    /// Member and score at a rank.
    pub fn at(&self, rank: usize) -> Option<(Item<'_>, f64)> {
        match self.0.view() {
            View::Packed(lp) => packed::at(lp, rank),
            View::Full(full) => full.tree.at(rank).map(|key| (Item::Bytes(key.text()), key.score)),
        }
    }

    /// The member of the lowest score, with it.
    pub fn first(&self) -> Option<(Item<'_>, f64)> {
        self.at(0)
    }

    /// The member of the highest score, with it.
    pub fn last(&self) -> Option<(Item<'_>, f64)> {
        self.at(self.len().checked_sub(1)?)
    }

    /// Removes the lowest member after showing it to `f`.
    pub fn pop_first_with<R>(&mut self, f: impl FnOnce(Item<'_>, f64) -> R) -> Option<R> {
        if self.is_empty() { None } else { Some(self.remove_at_with(0, f)) }
    }

    /// Removes the highest member after showing it to `f`.
    pub fn pop_last_with<R>(&mut self, f: impl FnOnce(Item<'_>, f64) -> R) -> Option<R> {
        let rank = self.len().checked_sub(1)?;
        Some(self.remove_at_with(rank, f))
    }

    /// Removes the member at a rank below the length after showing it to `f`.
    fn remove_at_with<R>(&mut self, rank: usize, f: impl FnOnce(Item<'_>, f64) -> R) -> R {
        match self.0.view_mut() {
            ViewMut::Packed(lp) => {
                let (member, score) = packed::at(lp, rank).expect("a rank below the length");
                let result = f(member, score);
                packed::remove_range(lp, rank..rank + 1);
                result
            }
            ViewMut::Full(full) => {
                let record = full.remove_at(rank);
                f(Item::Bytes(record.key()), record.score())
            }
        }
    }

    /// The ranks of the members with scores between the bounds; empty if there are none.
    pub fn score_range(&self, min: Bound<f64>, max: Bound<f64>) -> Range<usize> {
        let start = self.count_while(|score, _| match min {
            Bound::Included(x) => score < x,
            Bound::Excluded(x) => score <= x,
            Bound::Unbounded => false,
        });
        let end = self.count_while(|score, _| match max {
            Bound::Included(x) => score <= x,
            Bound::Excluded(x) => score < x,
            Bound::Unbounded => true,
        });
        start..end.max(start)
    }

    /// The ranks of the members between the bounds; empty if there are none. All scores must be equal,
    /// otherwise the result is some range within the set.
    pub fn lex_range(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = self.count_while(|_, member| match min {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Included(x) => member < x,
            LexBound::Excluded(x) => member <= x,
        });
        let end = self.count_while(|_, member| match max {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Included(x) => member <= x,
            LexBound::Excluded(x) => member < x,
        });
        start..end.max(start)
    }

    /// How many members come before the first for which `before` is false.
    fn count_while(&self, before: impl Fn(f64, &[u8]) -> bool) -> usize {
        match self.0.view() {
            View::Packed(lp) => {
                let mut buf = IntText::new();
                packed::from(lp, 0)
                    .take_while(|(member, score)| before(*score, member.text(&mut buf)))
                    .count()
            }
            View::Full(full) => full.tree.count_while(|key| before(key.score, key.text())),
        }
    }

    /// Members and scores of these ranks, a range within `0..len`; `.rev()` for descending order.
    pub fn range(&self, ranks: Range<usize>) -> Iter<'_> {
        assert!(ranks.start <= ranks.end && ranks.end <= self.len(), "ranks are clamped by the caller");
        Iter { set: self, left: ranks, front: None, back: None }
    }

    /// All members and scores, lowest first.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// Removes the members of these ranks, a range within `0..len`. Returns how many.
    pub fn remove_range(&mut self, ranks: Range<usize>) -> usize {
        match self.0.view_mut() {
            ViewMut::Packed(lp) => packed::remove_range(lp, ranks.clone()),
            ViewMut::Full(full) => ranks.clone().for_each(|_| drop(full.remove_at(ranks.start))),
        }
        ranks.len()
    }

    /// A member and its score, each member with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<(Item<'_>, f64)> {
        match self.0.view() {
            View::Packed(_) if self.is_empty() => None,
            View::Packed(lp) => packed::at(lp, rng.below(self.len() as u64) as usize),
            View::Full(full) => {
                let record = full.table.at(full.table.random(rng)?);
                Some((Item::Bytes(record.key()), record.score()))
            }
        }
    }

    /// One step of a scan: shows about `count` members and returns the cursor to go on with, 0 at the end.
    /// A member present from the first to the last step is shown at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(Item<'_>, f64)) -> u64 {
        match self.0.view() {
            View::Packed(lp) => {
                packed::from(lp, 0).for_each(|(member, score)| f(member, score));
                0
            }
            View::Full(full) => full.table.scan(cursor, count, |r| f(Item::Bytes(r.key()), r.score())),
        }
    }

    /// The listpack of members and scores in turn, if the set is in that encoding.
    pub fn packed(&self) -> Option<&Dense> {
        match self.0.view() {
            View::Packed(lp) => Some(lp),
            View::Full(_) => None,
        }
    }

    /// As OBJECT ENCODING shows it.
    pub fn encoding_name(&self) -> &'static str {
        match self.0.view() {
            View::Packed(_) => "listpack",
            View::Full(_) => "skiplist",
        }
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        match self.0.view() {
            View::Packed(lp) => lp.memory_bytes(),
            View::Full(full) => full.table.memory_bytes() + full.tree.memory_bytes(),
        }
    }
}

impl Full {
    #[inline]
    fn add(&mut self, member: &[u8], score: f64) -> Added {
        let hash = self.table.hash(member);
        match self.table.search(hash, member) {
            Search::Missing(vacancy) => {
                let record = Record::new(hash, &score.to_le_bytes(), member, b"");
                let shared = record.share();
                self.table.insert(vacancy, record);
                // SAFETY: the table keeps the record where it is until `remove` or `remove_at`, which
                // take the key out of the tree first.
                unsafe { self.tree.insert(score, shared) };
                Added::New
            }
            Search::Found(place) => {
                let record = self.table.at(place);
                let (old, shared) = (record.score(), record.share());
                if old == score {
                    return Added::Same;
                }
                self.tree.remove(old, member);
                self.table.update(place, |r| r.head_mut().copy_from_slice(&score.to_le_bytes()));
                // SAFETY: as above; changing the score does not move the record.
                unsafe { self.tree.insert(score, shared) };
                Added::Moved(old)
            }
        }
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let place = self.table.find(member)?;
        let score = self.table.at(place).score();
        self.tree.remove(score, member);
        self.table.remove(place);
        Some(score)
    }

    /// Removes the member at a rank below the length.
    fn remove_at(&mut self, rank: usize) -> Record<Scored> {
        let member = self.tree.remove_at(rank);
        // SAFETY: the table owns the record until it is removed below.
        let place = self.table.find(unsafe { member.key() }).expect("what is in the tree is in the table");
        self.table.remove(place)
    }
}

impl Clone for Full {
    fn clone(&self) -> Self {
        let table = self.table.clone();
        let mut tree = Tree::new();
        let mut cursor = Cursor::forward(&self.tree, 0);
        while let Some(key) = cursor.next() {
            let place = table.find(key.text()).expect("what is in the tree is in the table");
            // SAFETY: the records of the copy, which the new table owns.
            unsafe { tree.insert(key.score, table.at(place).share()) };
        }
        Self { tree, table }
    }
}

impl<'a> IntoIterator for &'a SortedSet {
    type Item = (Item<'a>, f64);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for SortedSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Members and scores in order, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    set: &'a SortedSet,
    /// Ranks still to come.
    left: Range<usize>,
    front: Option<Walk<'a, packed::Members<'a>>>,
    /// A small set is read forwards into a buffer, which is then shown from its end.
    back: Option<Walk<'a, std::vec::IntoIter<(Item<'a>, f64)>>>,
}

/// One end of an iterator, which finds its place in the tree when it is first used.
#[derive(Clone)]
enum Walk<'a, P> {
    Packed(P),
    Full(Cursor<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Item<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rank = self.left.next()?;
        let walk = self.front.get_or_insert_with(|| match self.set.0.view() {
            View::Packed(lp) => Walk::Packed(packed::from(lp, rank)),
            View::Full(full) => Walk::Full(Cursor::forward(&full.tree, rank)),
        });
        match walk {
            Walk::Packed(members) => members.next(),
            Walk::Full(cursor) => cursor.next().map(|key| (Item::Bytes(key.text()), key.score)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let left = self.left.clone();
        self.left.next_back()?;
        let walk = self.back.get_or_insert_with(|| match self.set.0.view() {
            View::Packed(lp) => {
                let mut members = Vec::with_capacity(left.len());
                members.extend(packed::from(lp, left.start).take(left.len()));
                Walk::Packed(members.into_iter())
            }
            View::Full(full) => Walk::Full(Cursor::backward(&full.tree, left.end)),
        });
        match walk {
            Walk::Packed(members) => members.next_back(),
            Walk::Full(cursor) => cursor.previous().map(|key| (Item::Bytes(key.text()), key.score)),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests;
