//! A list of many blocks. The blocks near both ends are open; with a depth, those between are compressed.

use std::collections::VecDeque;
use std::ops::Range;

use super::block::Block;
use super::bound::Bound;
use super::stored::{Stored, View};
use crate::encoding::entry::{BACKED, Encoded};

/// No block is empty, unless there is only one. Each method that changes blocks restores that before it returns.
#[derive(Clone)]
pub(super) struct Many {
    pub blocks: VecDeque<Stored>,
    pub len: usize,
    pub bound: Bound,
    /// Blocks at either end that stay open; 0: all do. As in Redis, what was configured when the list got its
    /// second block.
    pub depth: usize,
}

impl Many {
    #[inline]
    pub fn push_back(&mut self, value: &Encoded<'_>) {
        self.len += 1;
        match self.blocks.back_mut() {
            Some(last) if self.bound.allows(last.view(), value.size::<BACKED>(), 1) => {
                last.open().push_back(value);
            }
            _ => {
                let mut block = Block::default();
                block.push_back(value);
                self.add_back(block);
            }
        }
    }

    #[inline]
    pub fn push_front(&mut self, value: &Encoded<'_>) {
        self.len += 1;
        match self.blocks.front_mut() {
            Some(first) if self.bound.allows(first.view(), value.size::<BACKED>(), 1) => {
                first.open().push_front(value);
            }
            _ => {
                let mut block = Block::default();
                block.push_front(value);
                self.blocks.push_front(Stored::Open(block));
                self.settle(self.depth);
            }
        }
    }

    /// A block more at the tail, whose elements are counted already.
    pub fn add_back(&mut self, block: Block) {
        self.blocks.push_back(Stored::Open(block));
        if let Some(number) = (self.blocks.len() - 1).checked_sub(self.depth) {
            self.settle(number);
        }
    }

    /// Removes the head.
    #[inline]
    pub fn pop_front(&mut self) {
        self.len -= 1;
        let block = self.blocks[0].open();
        block.pop_front();
        if block.count() == 0 {
            self.blocks.pop_front();
            self.settle(self.depth.saturating_sub(1));
        }
    }

    /// Removes the tail.
    #[inline]
    pub fn pop_back(&mut self) {
        self.len -= 1;
        let last = self.blocks.len() - 1;
        let block = self.blocks[last].open();
        block.pop_back();
        if block.count() == 0 {
            self.blocks.pop_back();
            self.settle(last.saturating_sub(self.depth));
        }
    }

    /// Opens or compresses the block `number`, if there is one, as its distance to the ends asks for.
    fn settle(&mut self, number: usize) {
        if self.depth == 0 {
            return;
        }
        let from_tail = self.blocks.len().saturating_sub(number + 1);
        let Some(stored) = self.blocks.get_mut(number) else { return };
        if number.min(from_tail) < self.depth {
            stored.open();
        } else {
            stored.compress(|block| self.bound.plain(block));
        }
    }

    /// Opens what has come near an end.
    fn settle_ends(&mut self) {
        let n = self.blocks.len();
        for number in 0..self.depth.min(n) {
            self.blocks[number].open();
            self.blocks[n - 1 - number].open();
        }
    }

    /// Settles what an insertion at block `number` has touched, and what it has moved away from the ends.
    fn settle_around(&mut self, number: usize) {
        let tail = self.blocks.len().saturating_sub(self.depth);
        let touched = [number, number + 1, number + 2, self.depth, self.depth + 1];
        let moved = [tail.checked_sub(1), tail.checked_sub(2)];
        touched.into_iter().chain(moved.into_iter().flatten()).for_each(|number| self.settle(number));
    }

    /// Replaces the entry `within` of a block.
    pub fn set(&mut self, number: usize, within: usize, value: &Encoded<'_>) {
        let block = self.blocks[number].open();
        let pos = block.seek(within);
        let old = block.entry_bytes(pos);
        if block.count() == 1 || block.listpack_bytes() - old + value.size::<BACKED>() <= self.bound.bytes {
            block.splice(pos, old, value);
            self.settle(number);
        } else {
            block.remove_all(&[pos]);
            self.len -= 1;
            self.insert_at(number, within, value);
        }
    }

    /// Inserts before the entry `index` of a block, or after its last; splits the block if it is full.
    pub fn insert_at(&mut self, number: usize, index: usize, value: &Encoded<'_>) {
        self.len += 1;
        self.place(number, index, value);
        self.settle_around(number);
    }

    fn place(&mut self, number: usize, index: usize, value: &Encoded<'_>) {
        let (bound, bytes) = (self.bound, value.size::<BACKED>());
        let allows = |block: &Block| bound.allows(View::Open(block), bytes, 1);
        let block = self.blocks[number].open();
        if block.count() == 0 || allows(block) {
            let pos = block.seek(index);
            block.splice(pos, 0, value);
            return;
        }
        let right = block.split_off(index);
        // The element belongs between the two halves now: at the end of the left one, at the start of the right one,
        // or in a block of its own.
        let fits = block.count() > 0 && allows(block);
        if fits {
            block.push_back(value);
        }
        let after = number + usize::from(block.count() > 0);
        if right.count() > 0 {
            self.blocks.insert(number + 1, Stored::Open(right));
        }
        if fits {
            return;
        }
        match self.blocks.get_mut(after) {
            Some(right) if right.count() == 0 || bound.allows(right.view(), bytes, 1) => {
                right.open().push_front(value);
            }
            _ => {
                let mut block = Block::default();
                block.push_back(value);
                self.blocks.insert(after, Stored::Open(block));
            }
        }
    }

    /// After removals anywhere: no block is empty, and neighbours that fit one block are joined.
    pub fn tidy(&mut self) {
        self.blocks.retain(|stored| stored.count() > 0);
        let mut joined: VecDeque<Stored> = VecDeque::with_capacity(self.blocks.len());
        for mut stored in self.blocks.drain(..) {
            let view = stored.view();
            match joined.back_mut() {
                Some(last) if self.bound.allows(last.view(), view.entries_bytes(), view.count()) => {
                    last.open().append(stored.open());
                }
                _ => {
                    if let Stored::Open(block) = &mut stored {
                        block.shrink();
                    }
                    joined.push_back(stored);
                }
            }
        }
        self.blocks = joined;
        (0..self.blocks.len()).for_each(|number| self.settle(number));
    }

    pub fn trim(&mut self, keep: Range<usize>) {
        let mut beyond = self.len - keep.end;
        while let Some(stored) = self.blocks.back_mut().filter(|_| beyond > 0) {
            let n = stored.count();
            if n > beyond {
                stored.open().truncate(n - beyond);
                break;
            }
            beyond -= n;
            self.blocks.pop_back();
        }
        let mut before = keep.start.min(keep.end);
        while let Some(stored) = self.blocks.front_mut().filter(|_| before > 0) {
            let n = stored.count();
            if n > before {
                stored.open().drop_front(before);
                break;
            }
            before -= n;
            self.blocks.pop_front();
        }
        self.len = keep.len();
        self.settle_ends();
    }
}
