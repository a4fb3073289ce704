//! A small sorted set: a listpack of members and scores in turn, in order.

use std::ops::Range;

use crate::base::num::{format_f64, parse_f64};
use crate::encoding::entry::BARE;
use crate::encoding::item::IntText;
use crate::encoding::{Dense, Item, listpack};

/// The number that a score element of a checked listpack spells.
#[inline]
pub fn score(item: Item<'_>) -> f64 {
    match item {
        Item::Int(n) => n as f64,
        Item::Bytes(text) => parse_f64(text).expect("scores are checked when they arrive"),
    }
}

/// Rank and score of a member.
pub fn rank(lp: &Dense, member: &[u8]) -> Option<(usize, f64)> {
    let mut pairs = lp.pairs().enumerate();
    pairs.find_map(|(rank, (m, s))| m.is(member).then(|| (rank, score(s))))
}

/// Position and score of a member.
pub fn find(lp: &Dense, member: &[u8]) -> Option<(usize, f64)> {
    let pos = lp.find(lp.first()?, member, 1)?;
    Some((pos, score(lp.get(lp.next(pos)?))))
}

pub fn at(lp: &Dense, rank: usize) -> Option<(Item<'_>, f64)> {
    from(lp, rank).next()
}

/// Members and scores from a rank on, which is at most the length.
pub fn from(lp: &Dense, rank: usize) -> Members<'_> {
    let mut items = lp.iter();
    if rank > 0 {
        items.nth(2 * rank - 1);
    }
    Members(items)
}

/// Members and scores in order.
#[derive(Clone)]
pub struct Members<'a>(listpack::Iter<'a, BARE>);

impl<'a> Iterator for Members<'a> {
    type Item = (Item<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, score(self.0.next()?)))
    }
}

/// Adds a member that is not there, in its place.
pub fn insert(lp: &mut Dense, member: &[u8], new: f64) {
    let mut pos = lp.first();
    while let Some(here) = pos {
        let score_at = lp.next(here).expect("a member has a score");
        let old = score(lp.get(score_at));
        if old > new || (old == new && lp.get(here).text(&mut IntText::new()) > member) {
            break;
        }
        pos = lp.next(score_at);
    }
    let at = pos.unwrap_or(lp.end());
    // An integral score is stored as an integer; so -0 becomes 0, as it does in Redis.
    let mut buf = IntText::new();
    if new == new.trunc() && new.abs() < 1e15 {
        lp.insert_two(at, member, buf.format(new as i64).as_bytes());
    } else {
        lp.insert_two(at, member, format_f64(new).as_bytes());
    }
}

pub fn remove_range(lp: &mut Dense, ranks: Range<usize>) {
    if let Some(pos) = lp.seek(2 * ranks.start) {
        lp.remove(pos, 2 * ranks.len());
    }
}

/// Whether pairs from outside are scores and in order.
pub fn is_sound(lp: &Dense) -> bool {
    let mut buf = IntText::new();
    let mut last: Option<(f64, Vec<u8>)> = None;
    lp.pairs().all(|(member, score)| {
        let score = match score {
            Item::Int(n) => Some(n as f64),
            Item::Bytes(text) => parse_f64(text),
        };
        let Some(score) = score else { return false };
        let member = member.text(&mut buf);
        let after = last.as_ref().is_none_or(|(s, m)| *s < score || (*s == score && m.as_slice() < member));
        last = Some((score, member.to_vec()));
        after
    })
}
