//! List values: one block of packed entries, or a deque of them.

mod block;
mod bound;
mod many;
mod stored;
mod walk;

use std::collections::VecDeque;
use std::ops::Range;

use super::Limits;
use crate::encoding::entry::{BACKED, Encoded};
use crate::encoding::item::IntText;
use crate::encoding::{Item, Listpack, listpack};
use block::Block;
use bound::Bound;
use many::Many;
use stored::{Compressed, Stored, View};

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
    /// Either of them, as it is compressed in memory.
    Compressed(CompressedNode<'a>),
}

impl Node<'_> {
    /// Bytes of the element or the listpack.
    pub fn bytes(&self) -> usize {
        match self {
            Node::Plain(element) => element.len(),
            Node::Packed(packed) => packed.len(),
            Node::Compressed(compressed) => compressed.bytes(),
        }
    }

    /// Whether this is a large element without a listpack around it.
    pub fn is_plain(&self) -> bool {
        match self {
            Node::Plain(_) => true,
            Node::Packed(_) => false,
            Node::Compressed(compressed) => compressed.0.is_alone(),
        }
    }
}

/// A block that is compressed in memory.
#[derive(Clone, Copy)]
pub struct CompressedNode<'a>(&'a Compressed);

impl CompressedNode<'_> {
    /// Bytes of what is compressed.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// The compressed form.
    pub fn lzf(&self) -> &[u8] {
        self.0.lzf()
    }
}

impl std::fmt::Debug for CompressedNode<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} elements in {} bytes of LZF", self.0.count(), self.0.lzf().len())
    }
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
            Repr::Many(many) => many.push_back(&encoded),
        }
    }

    /// Puts an element before the head (LPUSH).
    #[inline]
    pub fn push_front(&mut self, value: &[u8], limits: &Limits) {
        let encoded = Encoded::text(value);
        match self.grow(value, limits) {
            Repr::One(block) => block.push_front(&encoded),
            Repr::Many(many) => many.push_front(&encoded),
        }
    }

    /// Converts to many blocks if one cannot take `value`.
    #[inline]
    fn grow(&mut self, value: &[u8], limits: &Limits) -> &mut Repr {
        let bound = Bound::of(limits);
        // A single block stays one, whatever it holds, until it is too large.
        let single = Bound { alone: usize::MAX, ..bound };
        match &mut self.0 {
            Repr::One(block) if !single.allows(View::Open(block), value.len(), 1) => self.make_many(limits),
            Repr::One(_) => {}
            Repr::Many(many) => many.bound = bound,
        }
        &mut self.0
    }

    fn make_many(&mut self, limits: &Limits) {
        if let Repr::One(block) = &mut self.0 {
            let block = std::mem::take(block);
            let len = block.count();
            let blocks = if len == 0 { VecDeque::new() } else { VecDeque::from([Stored::Open(block)]) };
            let (bound, depth) = (Bound::of(limits), limits.list_compress_depth);
            self.0 = Repr::Many(Box::new(Many { blocks, len, bound, depth }));
        }
    }

    /// After a removal: back to one block if that is well below the bound, as in Redis 7.2.
    #[inline]
    fn shrink(&mut self) {
        match &mut self.0 {
            Repr::One(block) => block.shrink(),
            Repr::Many(many) if many.blocks.len() <= 1 => self.shrink_to_one(),
            Repr::Many(_) => {}
        }
    }

    fn shrink_to_one(&mut self) {
        let Repr::Many(many) = &mut self.0 else { return };
        let Bound { bytes, count, .. } = many.bound;
        let half = Bound { bytes: bytes / 2, count: count / 2, alone: usize::MAX };
        match many.blocks.front_mut().map(Stored::open) {
            None => self.0 = Repr::default(),
            Some(block) if half.allows(View::Open(block), 0, 0) => {
                self.0 = Repr::One(std::mem::take(block));
            }
            Some(_) => {}
        }
    }

    /// The head.
    #[inline]
    pub fn front(&self) -> Option<Item<'_>> {
        self.end_block(VecDeque::front)?.iter().next()
    }

    /// The tail.
    #[inline]
    pub fn back(&self) -> Option<Item<'_>> {
        self.end_block(VecDeque::back)?.iter().next_back()
    }

    #[inline]
    fn end_block(&self, end: impl FnOnce(&VecDeque<Stored>) -> Option<&Stored>) -> Option<&Block> {
        match &self.0 {
            Repr::One(block) => Some(block),
            Repr::Many(many) => match end(&many.blocks)? {
                Stored::Open(block) => Some(block),
                Stored::Compressed(_) => unreachable!("the blocks at both ends are open"),
            },
        }
    }

    fn blocks(&self) -> impl ExactSizeIterator<Item = View<'_>> {
        (0..self.block_count()).map(|number| self.view(number).expect("a number of a block"))
    }

    fn block_count(&self) -> usize {
        match &self.0 {
            Repr::One(block) => usize::from(block.count() > 0),
            Repr::Many(many) => many.blocks.len(),
        }
    }

    fn view(&self, number: usize) -> Option<View<'_>> {
        match &self.0 {
            Repr::One(block) => (number == 0).then_some(View::Open(block)),
            Repr::Many(many) => many.blocks.get(number).map(Stored::view),
        }
    }

    /// Removes the first element after showing it to `f`.
    #[inline]
    pub fn pop_front_with<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let result = f(self.front()?);
        match &mut self.0 {
            Repr::One(block) => block.pop_front(),
            Repr::Many(many) => many.pop_front(),
        }
        self.shrink();
        Some(result)
    }

    /// Removes the last element after showing it to `f`.
    #[inline]
    pub fn pop_back_with<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let result = f(self.back()?);
        match &mut self.0 {
            Repr::One(block) => block.pop_back(),
            Repr::Many(many) => many.pop_back(),
        }
        self.shrink();
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

    /// Shows `f` the element at `index`, counted from 0.
    pub fn get_with<R>(&self, index: usize, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let (number, within) = self.locate(index)?;
        let mut room = None;
        let block = self.view(number)?.read(&mut room);
        Some(f(block.get(block.seek(within))))
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

    /// Replaces the element at `index`; false if there is none.
    pub fn set(&mut self, index: usize, value: &[u8], limits: &Limits) -> bool {
        let Some((number, within)) = self.locate(index) else { return false };
        let encoded = Encoded::text(value);
        if let Repr::One(block) = &mut self.0 {
            let pos = block.seek(within);
            let old = block.entry_bytes(pos);
            if block.listpack_bytes() - old + encoded.size::<BACKED>() <= Bound::of(limits).bytes {
                block.splice(pos, old, &encoded);
                return true;
            }
            self.make_many(limits);
        }
        let Repr::Many(many) = &mut self.0 else { unreachable!("converted above") };
        many.set(number, within, &encoded);
        true
    }

    /// Inserts beside the first element equal to `pivot`; false if there is none.
    pub fn insert(&mut self, side: Side, pivot: &[u8], value: &[u8], limits: &Limits) -> bool {
        let wanted = Encoded::text(pivot);
        let found = self.blocks().enumerate().find_map(|(number, view)| {
            let pos = view.read(&mut None).find_all(&wanted).next()?;
            Some((number, pos))
        });
        let Some((number, pos)) = found else { return false };
        let encoded = Encoded::text(value);
        match self.grow(value, limits) {
            Repr::One(block) => {
                let after = if side == Side::After { block.entry_bytes(pos) } else { 0 };
                block.splice(pos + after, 0, &encoded);
            }
            Repr::Many(many) => {
                let block = many.blocks[number].open();
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
        // The positions in one block that go.
        let mut chosen = |view: View<'_>| {
            if left == 0 {
                return Vec::new();
            }
            let mut room = None;
            let block = view.read(&mut room);
            let mut positions: Vec<usize> = block.find_all(&wanted).collect();
            if positions.len() > left {
                if count < 0 {
                    positions.drain(..positions.len() - left);
                } else {
                    positions.truncate(left);
                }
            }
            left -= positions.len();
            positions
        };
        let mut gone = 0;
        match &mut self.0 {
            Repr::One(block) => {
                let positions = chosen(View::Open(block));
                block.remove_all(&positions);
                gone = positions.len();
            }
            Repr::Many(many) => {
                let mut from_block = |stored: &mut Stored| {
                    let positions = chosen(stored.view());
                    if !positions.is_empty() {
                        stored.open().remove_all(&positions);
                        gone += positions.len();
                    }
                };
                if count >= 0 {
                    many.blocks.iter_mut().for_each(from_block);
                } else {
                    many.blocks.iter_mut().rev().for_each(&mut from_block);
                }
                many.len -= gone;
                if gone > 0 {
                    many.tidy();
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

    /// The blocks in order, as RDB writes them.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node<'_>> + '_ {
        let bound = match &self.0 {
            Repr::One(_) => Bound::NONE,
            Repr::Many(many) => many.bound,
        };
        self.blocks().map(move |view| match view {
            View::Compressed(compressed) => Node::Compressed(CompressedNode(compressed)),
            View::Open(block) => match bound.plain(block) {
                Some(element) => Node::Plain(element),
                None => Node::Packed(PackedNode(block)),
            },
        })
    }

    /// Whether blocks far from the ends are compressed.
    pub fn compresses(&self) -> bool {
        matches!(&self.0, Repr::Many(many) if many.depth > 0)
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
            self.make_many(limits);
        }
        let Repr::Many(many) = &mut self.0 else { unreachable!("converted above") };
        many.bound = bound;
        many.len += count;
        many.add_back(Block::of(listpack));
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
                let blocks: usize = many.blocks.iter().map(|stored| stored.view().memory_bytes()).sum();
                size_of::<Many>() + many.blocks.capacity() * size_of::<Stored>() + blocks
            }
        }
    }
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_list();
        self.for_each(|item| {
            shown.entry(&item);
        });
        shown.finish()
    }
}

#[cfg(test)]
mod tests;
