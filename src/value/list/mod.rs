//! List values: one block of packed entries, or a deque of them.

mod block;
mod iter;

use std::collections::VecDeque;
use std::ops::Range;

use super::Limits;
use crate::encoding::entry::Encoded;
use crate::encoding::item::IntText;
use crate::encoding::{Item, Listpack, listpack};
use block::Block;
use iter::Blocks;
pub use iter::Iter;

/// A list: elements in order, cheap to change at both ends.
#[derive(Clone, Default)]
pub struct List(Repr);

#[derive(Clone)]
enum Repr {
    /// Redis's "listpack".
    One(Block),
    /// Redis's "quicklist".
    Many(Box<Many>),
}

impl Default for Repr {
    fn default() -> Self {
        Repr::One(Block::default())
    }
}

/// No block is empty, unless there is only one.
#[derive(Clone)]
struct Many {
    blocks: VecDeque<Block>,
    len: usize,
    bound: Bound,
}

/// How large a block may grow.
#[derive(Clone, Copy)]
struct Bound {
    bytes: usize,
    count: usize,
    /// Bytes of an entry that stands in a block by itself.
    alone: usize,
}

impl Bound {
    /// Reads `list-max-listpack-size`.
    fn of(limits: &Limits) -> Self {
        let alone = limits.list_packed_threshold;
        match limits.list_max_listpack_size {
            // Blocks limited by count are limited to the default size as well, as in Redis.
            n @ 0.. => Self { bytes: 8192, count: (n as usize).max(1), alone },
            n => {
                let bytes = 4096 << n.saturating_neg().min(5).saturating_sub(1);
                Self { bytes, count: usize::MAX, alone }
            }
        }
    }

    /// Whether a block is one entry that stands by itself.
    fn is_alone(self, block: &Block) -> bool {
        block.count() == 1 && block.entries().len() >= self.alone
    }

    /// Whether a block may take so many bytes and entries more.
    #[inline]
    fn allows(self, block: &Block, bytes: usize, count: usize) -> bool {
        block.listpack_bytes() + bytes <= self.bytes
            && block.count() + count <= self.count
            && bytes < self.alone
            && !self.is_alone(block)
    }
}

/// Where LINSERT puts an element relative to its pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards the head.
    Before,
    /// Towards the tail.
    After,
}

/// One block of a list as RDB stores it (quicklist nodes).
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// A single large element by itself.
    Plain(&'a [u8]),
    /// Some elements.
    Packed(PackedNode<'a>),
}

/// A block of elements that is written as a listpack.
#[derive(Clone, Copy)]
pub struct PackedNode<'a>(&'a Block);

impl PackedNode<'_> {
    /// Length of what [`PackedNode::write_to`] appends.
    pub fn len(&self) -> usize {
        self.0.listpack_bytes()
    }

    /// Never: a block has at least one element.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends the listpack's bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        listpack::write(self.0.entries(), self.0.count(), out);
    }
}

impl std::fmt::Debug for PackedNode<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl List {
    /// A list without elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::One(block) => block.count(),
            Repr::Many(many) => many.len,
        }
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends an element at the tail (RPUSH).
    #[inline]
    pub fn push_back(&mut self, value: &[u8], limits: &Limits) {
        let encoded = Encoded::text(value);
        match self.grow(value, limits) {
            Repr::One(block) => block.push_back(&encoded),
            Repr::Many(many) => {
                if !many.blocks.back().is_some_and(|b| many.bound.allows(b, encoded.len(), 1)) {
                    many.blocks.push_back(Block::default());
                }
                many.blocks.back_mut().expect("just made sure").push_back(&encoded);
                many.len += 1;
            }
        }
    }

    /// Puts an element before the head (LPUSH).
    #[inline]
    pub fn push_front(&mut self, value: &[u8], limits: &Limits) {
        let encoded = Encoded::text(value);
        match self.grow(value, limits) {
            Repr::One(block) => block.push_front(&encoded),
            Repr::Many(many) => {
                if !many.blocks.front().is_some_and(|b| many.bound.allows(b, encoded.len(), 1)) {
                    many.blocks.push_front(Block::default());
                }
                many.blocks.front_mut().expect("just made sure").push_front(&encoded);
                many.len += 1;
            }
        }
    }

    /// Converts to many blocks if one cannot take `value`.
    #[inline]
    fn grow(&mut self, value: &[u8], limits: &Limits) -> &mut Repr {
        let bound = Bound::of(limits);
        // A single block is one whatever it holds, until it is too large.
        let single = Bound { alone: usize::MAX, ..bound };
        match &mut self.0 {
            Repr::One(block) if !single.allows(block, value.len(), 1) => self.make_many(bound),
            Repr::One(_) => {}
            Repr::Many(many) => many.bound = bound,
        }
        &mut self.0
    }

    fn make_many(&mut self, bound: Bound) {
        if let Repr::One(block) = &mut self.0 {
            let block = std::mem::take(block);
            let len = block.count();
            let blocks = if len == 0 { VecDeque::new() } else { VecDeque::from([block]) };
            self.0 = Repr::Many(Box::new(Many { blocks, len, bound }));
        }
    }

    /// After a removal: back to one block if that is well below the bound, as in Redis 7.2.
    fn shrink(&mut self) {
        match &mut self.0 {
            Repr::One(block) => block.shrink(),
            Repr::Many(many) if many.blocks.len() <= 1 => {
                let Bound { bytes, count, .. } = many.bound;
                let half = Bound { bytes: bytes / 2, count: count / 2, alone: usize::MAX };
                let block = many.blocks.front_mut().map(std::mem::take).unwrap_or_default();
                if half.allows(&block, 0, 0) {
                    self.0 = Repr::One(block);
                } else if let Some(front) = many.blocks.front_mut() {
                    *front = block;
                }
            }
            Repr::Many(_) => {}
        }
    }

    /// The head.
    #[inline]
    pub fn front(&self) -> Option<Item<'_>> {
        self.blocks().next()?.iter().next()
    }

    /// The tail.
    #[inline]
    pub fn back(&self) -> Option<Item<'_>> {
        self.blocks().next_back()?.iter().next_back()
    }

    fn blocks(&self) -> impl DoubleEndedIterator<Item = &Block> + ExactSizeIterator + Clone {
        match &self.0 {
            Repr::One(block) if block.count() == 0 => Blocks::One([].iter()),
            Repr::One(block) => Blocks::One(std::slice::from_ref(block).iter()),
            Repr::Many(many) => Blocks::Many(many.blocks.iter()),
        }
    }

    /// Removes the first element after showing it to `f`.
    #[inline]
    pub fn pop_front_with<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let result = f(self.front()?);
        match &mut self.0 {
            Repr::One(block) => {
                block.pop_front();
                block.shrink();
            }
            Repr::Many(many) => {
                many.len -= 1;
                let block = many.blocks.front_mut()?;
                block.pop_front();
                if block.count() == 0 {
                    many.blocks.pop_front();
                    self.shrink();
                } else if many.blocks.len() == 1 {
                    self.shrink();
                }
            }
        }
        Some(result)
    }

    /// Removes the last element after showing it to `f`.
    #[inline]
    pub fn pop_back_with<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let result = f(self.back()?);
        match &mut self.0 {
            Repr::One(block) => {
                block.pop_back();
                block.shrink();
            }
            Repr::Many(many) => {
                many.len -= 1;
                let block = many.blocks.back_mut()?;
                block.pop_back();
                if block.count() == 0 {
                    many.blocks.pop_back();
                    self.shrink();
                } else if many.blocks.len() == 1 {
                    self.shrink();
                }
            }
        }
        Some(result)
    }

    /// Takes the head off.
    pub fn pop_front(&mut self) -> Option<Vec<u8>> {
        self.pop_front_with(|i| i.to_vec())
    }

    /// Takes the tail off.
    pub fn pop_back(&mut self) -> Option<Vec<u8>> {
        self.pop_back_with(|i| i.to_vec())
    }

    /// The element at `index`, counted from 0.
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        let (number, within) = self.locate(index)?;
        let block = self.block(number)?;
        Some(block.get(block.seek(within)))
    }

    /// The block that holds `index`, and the index within it.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        let len = self.len();
        if index >= len {
            return None;
        }
        let many = match &self.0 {
            Repr::One(_) => return Some((0, index)),
            Repr::Many(many) => many,
        };
        if index <= len / 2 {
            let mut before = 0;
            for (number, block) in many.blocks.iter().enumerate() {
                if index < before + block.count() {
                    return Some((number, index - before));
                }
                before += block.count();
            }
        } else {
            let mut from = len;
            for (number, block) in many.blocks.iter().enumerate().rev() {
                from -= block.count();
                if index >= from {
                    return Some((number, index - from));
                }
            }
        }
        None
    }

    fn block(&self, number: usize) -> Option<&Block> {
        match &self.0 {
            Repr::One(block) => (number == 0).then_some(block),
            Repr::Many(many) => many.blocks.get(number),
        }
    }

    /// Replaces the element at `index`; false if there is none.
    pub fn set(&mut self, index: usize, value: &[u8], limits: &Limits) -> bool {
        let Some((number, within)) = self.locate(index) else { return false };
        let encoded = Encoded::text(value);
        let bound = Bound::of(limits);
        let fits = |block: &Block, old: usize| {
            block.count() == 1 || block.listpack_bytes() - old + encoded.len() <= bound.bytes
        };
        if let Repr::One(block) = &mut self.0 {
            let pos = block.seek(within);
            let old = block.entry_bytes(pos);
            if block.listpack_bytes() - old + encoded.len() <= bound.bytes {
                block.splice(pos, old, &encoded);
                return true;
            }
            self.make_many(bound);
        }
        let Repr::Many(many) = &mut self.0 else { unreachable!("converted above") };
        let block = &mut many.blocks[number];
        let pos = block.seek(within);
        let old = block.entry_bytes(pos);
        if fits(block, old) {
            block.splice(pos, old, &encoded);
        } else {
            block.remove_all(&[pos]);
            many.len -= 1;
            many.insert_at(number, within, &encoded);
        }
        true
    }

    /// Inserts beside the first element equal to `pivot`; false if there is none.
    pub fn insert(&mut self, side: Side, pivot: &[u8], value: &[u8], limits: &Limits) -> bool {
        let wanted = Encoded::text(pivot);
        let found =
            self.blocks().enumerate().find_map(|(n, b)| b.find_all(&wanted).next().map(|pos| (n, pos)));
        let Some((number, pos)) = found else { return false };
        let encoded = Encoded::text(value);
        match self.grow(value, limits) {
            Repr::One(block) => {
                let after = if side == Side::After { block.entry_bytes(pos) } else { 0 };
                block.splice(pos + after, 0, &encoded);
            }
            Repr::Many(many) => {
                let block = &many.blocks[number];
                let index = block.index_of(pos) + usize::from(side == Side::After);
                many.insert_at(number, index, &encoded);
            }
        }
        true
    }

    /// LREM: removes up to `count` elements equal to `value` from the head, up to `-count` from the tail,
    /// all for 0. Returns how many.
    pub fn remove(&mut self, value: &[u8], count: i64) -> usize {
        let wanted = Encoded::text(value);
        let mut left = match count {
            0 => usize::MAX,
            n => usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX),
        };
        let mut gone = 0;
        let mut from_block = |block: &mut Block| {
            if left == 0 {
                return;
            }
            let mut positions: Vec<usize> = block.find_all(&wanted).collect();
            if positions.len() > left {
                if count < 0 {
                    positions.drain(..positions.len() - left);
                } else {
                    positions.truncate(left);
                }
            }
            block.remove_all(&positions);
            left -= positions.len();
            gone += positions.len();
        };
        match &mut self.0 {
            Repr::One(block) => from_block(block),
            Repr::Many(many) => {
                if count >= 0 {
                    many.blocks.iter_mut().for_each(from_block);
                } else {
                    many.blocks.iter_mut().rev().for_each(from_block);
                }
                many.len -= gone;
                if gone > 0 {
                    many.blocks.retain(|b| b.count() > 0);
                    many.join_small();
                }
            }
        }
        self.shrink();
        gone
    }

    /// Keeps only the elements of `keep`, a range within `0..len`.
    pub fn trim(&mut self, keep: Range<usize>) {
        assert!(keep.start <= keep.end && keep.end <= self.len(), "ranges are clamped by the caller");
        match &mut self.0 {
            Repr::One(block) => {
                block.truncate(keep.end);
                block.drop_front(keep.start);
            }
            Repr::Many(many) => many.trim(keep),
        }
        self.shrink();
    }

    /// The elements from head to tail.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// The elements of `range`, a range within `0..len`; `.rev()` for the other direction.
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        assert!(range.start <= range.end && range.end <= self.len(), "ranges are clamped by the caller");
        Iter::new(self, range)
    }

    /// The blocks in order, as RDB writes them.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node<'_>> + '_ {
        let bound = match &self.0 {
            Repr::One(_) => None,
            Repr::Many(many) => Some(many.bound),
        };
        let alone = move |block: &Block| {
            block.count() == 1 && block.listpack_bytes() > 8192 || bound.is_some_and(|b| b.is_alone(block))
        };
        self.blocks().map(move |block| match block.iter().next() {
            Some(Item::Bytes(b)) if alone(block) => Node::Plain(b),
            _ => Node::Packed(PackedNode(block)),
        })
    }

    /// Appends all elements of a listpack (a node read from a file).
    pub fn append_listpack(&mut self, listpack: &Listpack, limits: &Limits) {
        let bound = Bound::of(limits);
        let (bytes, count) = (listpack.as_bytes().len(), listpack.len());
        if count == 0 {
            return;
        }
        if bytes > bound.bytes || count > bound.count {
            let mut buf = IntText::new();
            listpack.iter().for_each(|item| self.push_back(item.text(&mut buf), limits));
            return;
        }
        if let Repr::One(block) = &mut self.0 {
            if block.count() == 0 {
                *block = Block::of(listpack);
                return;
            }
            self.make_many(bound);
        }
        let Repr::Many(many) = &mut self.0 else { unreachable!("converted above") };
        many.bound = bound;
        many.len += count;
        many.blocks.push_back(Block::of(listpack));
    }

    /// As OBJECT ENCODING shows it.
    pub fn encoding_name(&self) -> &'static str {
        match &self.0 {
            Repr::One(_) => "listpack",
            Repr::Many(_) => "quicklist",
        }
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Repr::One(block) => block.memory_bytes(),
            Repr::Many(many) => {
                let blocks: usize = many.blocks.iter().map(Block::memory_bytes).sum();
                size_of::<Many>() + many.blocks.capacity() * size_of::<Block>() + blocks
            }
        }
    }
}

impl Many {
    /// Inserts before the entry `index` of a block, or after its last; splits the block if it is full.
    fn insert_at(&mut self, number: usize, index: usize, value: &Encoded<'_>) {
        self.len += 1;
        let bytes = value.len();
        let block = &mut self.blocks[number];
        if block.count() == 0 || self.bound.allows(block, bytes, 1) {
            let pos = block.seek(index);
            block.splice(pos, 0, value);
            return;
        }
        let right = block.split_off(index);
        if right.count() > 0 {
            self.blocks.insert(number + 1, right);
        }
        // Between the two now: at the end of the left one, at the start of the right one, or by itself.
        let left = &mut self.blocks[number];
        if left.count() > 0 && self.bound.allows(left, bytes, 1) {
            left.push_back(value);
            return;
        }
        let after = number + usize::from(left.count() > 0);
        match self.blocks.get_mut(after) {
            Some(right) if right.count() == 0 || self.bound.allows(right, bytes, 1) => {
                right.push_front(value);
            }
            _ => {
                let mut block = Block::default();
                block.push_back(value);
                self.blocks.insert(after, block);
            }
        }
    }

    /// Joins neighbours that fit one block.
    fn join_small(&mut self) {
        let mut joined: VecDeque<Block> = VecDeque::with_capacity(self.blocks.len());
        for mut block in self.blocks.drain(..) {
            match joined.back_mut() {
                Some(last) if self.bound.allows(last, block.entries().len(), block.count()) => {
                    last.append(&block);
                }
                _ => {
                    block.shrink();
                    joined.push_back(block);
                }
            }
        }
        self.blocks = joined;
    }

    fn trim(&mut self, keep: Range<usize>) {
        let mut beyond = self.len - keep.end;
        while let Some(block) = self.blocks.back_mut().filter(|_| beyond > 0) {
            let n = block.count();
            if n > beyond {
                block.truncate(n - beyond);
                break;
            }
            beyond -= n;
            self.blocks.pop_back();
        }
        let mut before = keep.start.min(keep.end);
        while let Some(block) = self.blocks.front_mut().filter(|_| before > 0) {
            let n = block.count();
            if n > before {
                block.drop_front(before);
                break;
            }
            before -= n;
            self.blocks.pop_front();
        }
        self.len = keep.len();
    }
}

impl<'a> IntoIterator for &'a List {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
