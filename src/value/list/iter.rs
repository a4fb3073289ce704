//! Reading a list in order.

use std::ops::Range;

use super::{Block, List};
use crate::encoding::{Item, listpack};

/// The blocks of either form.
#[derive(Clone)]
pub(super) enum Blocks<'a> {
    One(std::slice::Iter<'a, Block>),
    Many(std::collections::vec_deque::Iter<'a, Block>),
}

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a Block;

    #[inline]
    fn next(&mut self) -> Option<&'a Block> {
        match self {
            Blocks::One(it) => it.next(),
            Blocks::Many(it) => it.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Blocks::One(it) => it.size_hint(),
            Blocks::Many(it) => it.size_hint(),
        }
    }
}

impl DoubleEndedIterator for Blocks<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Blocks::One(it) => it.next_back(),
            Blocks::Many(it) => it.next_back(),
        }
    }
}

impl ExactSizeIterator for Blocks<'_> {}

/// Elements in order, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    list: &'a List,
    /// Indices still to come.
    left: Range<usize>,
    front: Option<(usize, listpack::Iter<'a>)>,
    back: Option<(usize, listpack::Iter<'a>)>,
}

impl<'a> Iter<'a> {
    pub(super) fn new(list: &'a List, range: Range<usize>) -> Self {
        Self { list, left: range, front: None, back: None }
    }

    /// The block of `index`, its number, and the position of the index in it.
    fn place(&self, index: usize) -> Option<(usize, &'a Block, usize)> {
        let (number, within) = self.list.locate(index)?;
        let block = self.list.block(number)?;
        Some((number, block, block.seek(within)))
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        let index = self.left.next()?;
        if self.front.is_none() {
            let (number, block, pos) = self.place(index)?;
            self.front = Some((number, listpack::Iter::over(&block.entries()[pos..])));
        }
        let (number, entries) = self.front.as_mut()?;
        entries.next().or_else(|| {
            *number += 1;
            *entries = self.list.block(*number)?.iter();
            entries.next()
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let index = self.left.next_back()?;
        if self.back.is_none() {
            let (number, block, pos) = self.place(index)?;
            let end = pos + block.entry_bytes(pos);
            self.back = Some((number, listpack::Iter::over(&block.entries()[..end])));
        }
        let (number, entries) = self.back.as_mut()?;
        entries.next_back().or_else(|| {
            *number = number.checked_sub(1)?;
            *entries = self.list.block(*number)?.iter();
            entries.next_back()
        })
    }
}

impl ExactSizeIterator for Iter<'_> {}
