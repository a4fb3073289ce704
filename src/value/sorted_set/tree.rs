//! The order of a large sorted set: a B+ tree that knows how many members each subtree has.
//!
//! A leaf keeps scores and words of records in two arrays, so that a search reads scores next to each
//! other and follows a word only where scores are equal. Inner nodes keep the lowest key and the count of
//! each child; rank and range by rank sum counts on one way down.

mod cursor;

use std::marker::PhantomData;
use std::ops::Range;

use super::{Scored, Shared};
pub use cursor::Cursor;

/// A leaf is 1 KiB with this many members.
const LEAF: usize = 63;
/// An inner node is 3.5 KiB with this many children.
const INNER: usize = 99;

/// A member in the order of the tree: by score, then by the record's key. It borrows the tree, so that the record
/// outlives it.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub score: f64,
    member: Shared<Scored>,
    tree: PhantomData<&'a Tree>,
}

struct Leaf {
    len: usize,
    scores: [f64; LEAF],
    members: [Shared<Scored>; LEAF],
}

struct Inner {
    len: usize,
    /// The lowest key below each child.
    scores: [f64; INNER],
    members: [Shared<Scored>; INNER],
    counts: [u32; INNER],
    children: [Option<Node>; INNER],
}

enum Node {
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

/// What is to be removed.
#[derive(Clone, Copy)]
enum Target<'a> {
    Rank(usize),
    Key(f64, &'a [u8]),
}

/// Keys in order, all different.
#[derive(Default)]
pub struct Tree {
    root: Option<Node>,
    len: usize,
}

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key that is not there.
    ///
    /// # Safety
    /// The owner of the record neither drops nor moves it while the key is in the tree.
    pub unsafe fn insert(&mut self, score: f64, member: Shared<Scored>) {
        let key = Key { score, member, tree: PhantomData };
        let root = self.root.get_or_insert_with(|| Node::Leaf(Leaf::new()));
        if let Some(right) = root.insert(key, true, true) {
            let mut inner = Inner::new();
            let left = self.root.take().expect("it was there just now");
            inner.put(0, left);
            inner.put(1, right);
            self.root = Some(Node::Inner(inner));
        }
        self.len += 1;
    }

    /// Removes a key; false if it is not there.
    pub fn remove(&mut self, score: f64, text: &[u8]) -> bool {
        self.take(Target::Key(score, text)).is_some()
    }

    /// Removes the key at a rank below the length. What is returned refers to a record whose owner is free
    /// to drop it from now on.
    pub fn remove_at(&mut self, rank: usize) -> Shared<Scored> {
        self.take(Target::Rank(rank)).expect("a rank below the length")
    }

    fn take(&mut self, target: Target<'_>) -> Option<Shared<Scored>> {
        let (member, _) = self.root.as_mut()?.remove(target)?;
        self.len -= 1;
        // A root with a single child, or with nothing, goes.
        loop {
            match &mut self.root {
                Some(Node::Inner(inner)) if inner.len == 1 => self.root = inner.children[0].take(),
                Some(Node::Leaf(leaf)) if leaf.len == 0 => self.root = None,
                _ => return Some(member),
            }
        }
    }

    /// How many keys come before this one.
    pub fn rank(&self, score: f64, text: &[u8]) -> usize {
        let mut rank = 0;
        let Some(mut node) = self.root.as_ref() else { return 0 };
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.seek(score, text),
                Node::Inner(inner) => {
                    let i = inner.seek(score, text);
                    rank += sum(&inner.counts[..i]);
                    node = inner.child(i);
                }
            }
        }
    }

    pub fn at(&self, rank: usize) -> Option<Key<'_>> {
        Cursor::forward(self, rank).next()
    }

    /// How many keys come before the first for which `before` is false; it is true for a prefix of them.
    pub fn count_while(&self, before: impl Fn(Key<'_>) -> bool) -> usize {
        let mut count = 0;
        let Some(mut node) = self.root.as_ref() else { return 0 };
        loop {
            match node {
                Node::Leaf(leaf) => return count + leaf.partition(&before),
                Node::Inner(inner) => {
                    // The child before the first whose lowest key is beyond.
                    let i = inner.partition(&before).saturating_sub(1);
                    count += sum(&inner.counts[..i]);
                    node = inner.child(i);
                }
            }
        }
    }

    /// Heap bytes.
    pub fn memory_bytes(&self) -> usize {
        self.root.as_ref().map_or(0, Node::memory_bytes)
    }
}

impl<'a> Key<'a> {
    /// The record's key.
    #[inline]
    pub fn text(self) -> &'a [u8] {
        // SAFETY: the key is of a tree that is borrowed for `'a` (or is about to be inserted, under the same
        // promise), so it stays in it for as long, and with it the promise of `Tree::insert`.
        unsafe { self.member.key() }
    }

    /// Whether this is the key of that score and text.
    #[inline]
    fn is(self, score: f64, text: &[u8]) -> bool {
        self.score == score && self.text() == text
    }
}

impl Node {
    /// Adds a key; returns the new right sibling if the node had to split. `first` and `last` tell whether
    /// the node is at that end of its level: there, keys that arrive in order leave full nodes behind.
    fn insert(&mut self, key: Key<'_>, first: bool, last: bool) -> Option<Node> {
        match self {
            Node::Leaf(leaf) => leaf.insert(key, first, last).map(Node::Leaf),
            Node::Inner(inner) => inner.insert(key, first, last).map(Node::Inner),
        }
    }

    /// Removes a key if it is there; also tells whether it was the lowest of the node.
    fn remove(&mut self, target: Target<'_>) -> Option<(Shared<Scored>, bool)> {
        match self {
            Node::Leaf(leaf) => leaf.remove(target),
            Node::Inner(inner) => inner.remove(target),
        }
    }

    fn lowest(&self) -> Key<'_> {
        match self {
            Node::Leaf(leaf) => leaf.key(0),
            Node::Inner(inner) => inner.lowest(0),
        }
    }

    fn count(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len,
            Node::Inner(inner) => sum(&inner.counts[..inner.len]),
        }
    }

    /// How full the node is: members or children, and how many there may be.
    fn fill(&self) -> (usize, usize) {
        match self {
            Node::Leaf(leaf) => (leaf.len, LEAF),
            Node::Inner(inner) => (inner.len, INNER),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Node::Leaf(_) => size_of::<Leaf>(),
            Node::Inner(inner) => {
                let below: usize = (0..inner.len).map(|i| inner.child(i).memory_bytes()).sum();
                size_of::<Inner>() + below
            }
        }
    }

    /// Moves everything of `right`, of the same level, to the end of this node, where it fits.
    fn absorb(&mut self, right: Node) {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => left.absorb(&right),
            (Node::Inner(left), Node::Inner(mut right)) => left.take_from(&mut right, 0),
            _ => unreachable!("siblings are of one level"),
        }
    }
}

impl Leaf {
    fn new() -> Box<Self> {
        Box::new(Self { len: 0, scores: [0.0; LEAF], members: [Shared::VOID; LEAF] })
    }

    #[inline]
    fn key(&self, i: usize) -> Key<'_> {
        Key { score: self.scores[i], member: self.members[i], tree: PhantomData }
    }

    #[inline]
    fn partition(&self, before: impl Fn(Key<'_>) -> bool) -> usize {
        partition(0..self.len, |i| before(self.key(i)))
    }

    /// Index of the first key that is not before this one.
    #[inline]
    fn seek(&self, score: f64, text: &[u8]) -> usize {
        seek(&self.scores[..self.len], score, |i| self.key(i).text() < text)
    }

    fn insert(&mut self, key: Key<'_>, first: bool, last: bool) -> Option<Box<Self>> {
        let at = self.seek(key.score, key.text());
        if self.len < LEAF {
            self.put(at, key);
            return None;
        }
        let keep = match at {
            LEAF if last => LEAF,
            0 if first => 0,
            _ => LEAF / 2,
        };
        let mut right = Self::new();
        right.len = LEAF - keep;
        right.scores[..LEAF - keep].copy_from_slice(&self.scores[keep..]);
        right.members[..LEAF - keep].copy_from_slice(&self.members[keep..]);
        self.len = keep;
        if at < keep || keep == 0 {
            self.put(at, key);
        } else {
            right.put(at - keep, key);
        }
        Some(right)
    }

    #[inline]
    fn put(&mut self, at: usize, key: Key<'_>) {
        self.scores.copy_within(at..self.len, at + 1);
        self.members.copy_within(at..self.len, at + 1);
        self.scores[at] = key.score;
        self.members[at] = key.member;
        self.len += 1;
    }

    fn remove(&mut self, target: Target<'_>) -> Option<(Shared<Scored>, bool)> {
        let i = match target {
            Target::Rank(rank) => rank,
            Target::Key(score, text) => self.seek(score, text),
        };
        if i >= self.len {
            return None;
        }
        if let Target::Key(score, text) = target
            && !self.key(i).is(score, text)
        {
            return None;
        }
        let member = self.members[i];
        self.scores.copy_within(i + 1..self.len, i);
        self.members.copy_within(i + 1..self.len, i);
        self.len -= 1;
        Some((member, i == 0))
    }

    fn absorb(&mut self, right: &Self) {
        let (from, to) = (self.len, self.len + right.len);
        self.scores[from..to].copy_from_slice(&right.scores[..right.len]);
        self.members[from..to].copy_from_slice(&right.members[..right.len]);
        self.len = to;
    }
}

impl Inner {
    fn new() -> Box<Self> {
        Box::new(Self {
            len: 0,
            scores: [0.0; INNER],
            members: [Shared::VOID; INNER],
            counts: [0; INNER],
            children: [const { None }; INNER],
        })
    }

    #[inline]
    fn child(&self, i: usize) -> &Node {
        self.children[i].as_ref().expect("as many children as `len` says")
    }

    #[inline]
    fn child_mut(&mut self, i: usize) -> &mut Node {
        self.children[i].as_mut().expect("as many children as `len` says")
    }

    #[inline]
    fn lowest(&self, i: usize) -> Key<'_> {
        Key { score: self.scores[i], member: self.members[i], tree: PhantomData }
    }

    #[inline]
    fn partition(&self, before: impl Fn(Key<'_>) -> bool) -> usize {
        partition(0..self.len, |i| before(self.lowest(i)))
    }

    /// The child that a key belongs below: the last whose lowest is not beyond it, or the first.
    #[inline]
    fn seek(&self, score: f64, text: &[u8]) -> usize {
        seek(&self.scores[..self.len], score, |i| self.lowest(i).text() <= text).saturating_sub(1)
    }

    /// States lowest key and count of a child anew.
    fn refresh(&mut self, i: usize) {
        self.refresh_lowest(i);
        let count = self.child(i).count();
        self.counts[i] = u32::try_from(count).expect("fewer than 2^32 members");
    }

    /// Makes a node child `i`, before those from `i` on.
    fn put(&mut self, i: usize, node: Node) {
        self.scores.copy_within(i..self.len, i + 1);
        self.members.copy_within(i..self.len, i + 1);
        self.counts.copy_within(i..self.len, i + 1);
        self.children[i..=self.len].rotate_right(1);
        self.children[i] = Some(node);
        self.len += 1;
        self.refresh(i);
    }

    fn take(&mut self, i: usize) -> Node {
        self.scores.copy_within(i + 1..self.len, i);
        self.members.copy_within(i + 1..self.len, i);
        self.counts.copy_within(i + 1..self.len, i);
        self.children[i..self.len].rotate_left(1);
        self.len -= 1;
        self.children[self.len].take().expect("as many children as `len` says")
    }

    /// Appends the children of `right` from `from` on.
    fn take_from(&mut self, right: &mut Inner, from: usize) {
        let (at, n) = (self.len, right.len - from);
        self.scores[at..at + n].copy_from_slice(&right.scores[from..right.len]);
        self.members[at..at + n].copy_from_slice(&right.members[from..right.len]);
        self.counts[at..at + n].copy_from_slice(&right.counts[from..right.len]);
        for k in 0..n {
            self.children[at + k] = right.children[from + k].take();
        }
        self.len += n;
        right.len = from;
    }

    fn insert(&mut self, key: Key<'_>, first: bool, last: bool) -> Option<Box<Self>> {
        let i = self.seek(key.score, key.text());
        let (first_child, last_child) = (first && i == 0, last && i + 1 == self.len);
        let split = self.child_mut(i).insert(key, first_child, last_child);
        let Some(new) = split else {
            self.counts[i] = self.counts[i].checked_add(1).expect("fewer than 2^32 members");
            if i == 0 {
                // Only the lowest child can get a new lowest key.
                self.refresh_lowest(0);
            }
            return None;
        };
        self.refresh(i);
        if self.len < INNER {
            self.put(i + 1, new);
            return None;
        }
        let keep = if last_child { INNER } else { INNER / 2 };
        let mut right = Self::new();
        right.take_from(self, keep);
        if i < keep && keep < INNER {
            self.put(i + 1, new);
        } else {
            right.put(i + 1 - keep, new);
        }
        Some(right)
    }

    fn refresh_lowest(&mut self, i: usize) {
        let Key { score, member, .. } = self.child(i).lowest();
        self.scores[i] = score;
        self.members[i] = member;
    }

    fn remove(&mut self, mut target: Target<'_>) -> Option<(Shared<Scored>, bool)> {
        let mut i = 0;
        match &mut target {
            Target::Rank(rank) => {
                while *rank >= self.counts[i] as usize {
                    *rank -= self.counts[i] as usize;
                    i += 1;
                }
            }
            Target::Key(score, text) => i = self.seek(*score, text),
        }
        let (member, lowest) = self.child_mut(i).remove(target)?;
        self.counts[i] -= 1;
        let (fill, most) = self.child(i).fill();
        if fill == 0 {
            self.take(i);
        } else {
            if lowest {
                self.refresh_lowest(i);
            }
            if fill < most / 4 && self.len > 1 {
                self.join(i);
            }
        }
        Some((member, lowest && i == 0))
    }

    /// Joins a child with its smaller neighbour, if both together leave room to grow.
    fn join(&mut self, i: usize) {
        let right_is_smaller = i + 1 < self.len && (i == 0 || self.counts[i + 1] < self.counts[i - 1]);
        let left = if right_is_smaller { i } else { i - 1 };
        let (filled, most) = self.child(left).fill();
        if filled + self.child(left + 1).fill().0 <= most * 3 / 4 {
            let right = self.take(left + 1);
            self.child_mut(left).absorb(right);
            self.refresh(left);
        }
    }
}

/// The first index in `range` for which `before` is false, which is true for a prefix.
#[inline]
fn partition(range: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut size) = (range.start, range.len());
    while size > 0 {
        let half = size / 2;
        if before(low + half) {
            low += half + 1;
            size -= half + 1;
        } else {
            size = half;
        }
    }
    low
}

/// How many of the ascending scores are below `score`, and of those equal to it, how many are a prefix
/// for which `before` is true. Counting reads all cache lines at once and never mispredicts; a binary
/// search waits for one line after the other.
#[inline]
fn seek(scores: &[f64], score: f64, before: impl Fn(usize) -> bool) -> usize {
    let below = scores.iter().filter(|s| **s < score).count();
    if scores.get(below) != Some(&score) {
        return below;
    }
    let not_above = scores.iter().filter(|s| **s <= score).count();
    partition(below..not_above, before)
}

#[inline]
fn sum(counts: &[u32]) -> usize {
    counts.iter().map(|&n| n as usize).sum()
}
