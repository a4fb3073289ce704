//! List values.

use std::collections::VecDeque;
use std::ops::Range;

use super::Limits;
use crate::encoding::{Item, Listpack};

/// A list: elements in order, cheap to change at both ends.
#[derive(Clone, Debug, Default)]
pub struct List {
    items: VecDeque<Vec<u8>>,
}

/// Where LINSERT puts an element relative to its pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// One block of a list as RDB stores it (quicklist nodes).
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// A single large element by itself.
    Plain(&'a [u8]),
    Packed(PackedNode<'a>),
}

/// A block of elements that is written as a listpack.
#[derive(Clone, Copy, Debug)]
pub struct PackedNode<'a> {
    list: &'a List,
}

impl PackedNode<'_> {
    /// Appends the listpack's bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lp = Listpack::new();
        self.list.items.iter().for_each(|i| lp.push_back(i));
        out.extend_from_slice(lp.as_bytes());
    }
}

impl List {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn push_back(&mut self, value: &[u8], _limits: &Limits) {
        self.items.push_back(value.to_vec());
    }

    pub fn push_front(&mut self, value: &[u8], _limits: &Limits) {
        self.items.push_front(value.to_vec());
    }

    pub fn front(&self) -> Option<Item<'_>> {
        self.get(0)
    }

    pub fn back(&self) -> Option<Item<'_>> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Removes the first element after showing it to `f`.
    pub fn pop_front_with<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        self.items.pop_front().map(|v| f(Item::Bytes(&v)))
    }

    /// Removes the last element after showing it to `f`.
    pub fn pop_back_with<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        self.items.pop_back().map(|v| f(Item::Bytes(&v)))
    }

    pub fn pop_front(&mut self) -> Option<Vec<u8>> {
        self.pop_front_with(|i| i.to_vec())
    }

    pub fn pop_back(&mut self) -> Option<Vec<u8>> {
        self.pop_back_with(|i| i.to_vec())
    }

    /// The element at `index`, counted from 0.
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        self.items.get(index).map(|v| Item::Bytes(v))
    }

    /// Replaces the element at `index`; false if there is none.
    pub fn set(&mut self, index: usize, value: &[u8], _limits: &Limits) -> bool {
        self.items.get_mut(index).map(|v| *v = value.to_vec()).is_some()
    }

    /// Inserts beside the first element equal to `pivot`; false if there is none.
    pub fn insert(&mut self, side: Side, pivot: &[u8], value: &[u8], _limits: &Limits) -> bool {
        let Some(at) = self.items.iter().position(|v| v == pivot) else { return false };
        self.items.insert(at + usize::from(side == Side::After), value.to_vec());
        true
    }

    /// LREM: removes up to `count` elements equal to `value` from the head, up to `-count` from the tail,
    /// all for 0. Returns how many.
    pub fn remove(&mut self, value: &[u8], count: i64) -> usize {
        let most = if count == 0 { u64::MAX } else { count.unsigned_abs() };
        let mut gone = 0;
        let mut keep = |v: &Vec<u8>| {
            let hit = gone < most && v == value;
            gone += u64::from(hit);
            !hit
        };
        if count >= 0 {
            self.items.retain(&mut keep);
        } else {
            let mut back: VecDeque<_> = self.items.drain(..).rev().collect();
            back.retain(&mut keep);
            self.items = back.into_iter().rev().collect();
        }
        gone as usize
    }

    /// Keeps only the elements of `keep`, a range within `0..len`.
    pub fn trim(&mut self, keep: Range<usize>) {
        self.items.truncate(keep.end);
        self.items.drain(..keep.start.min(self.items.len()));
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Item<'_>> + ExactSizeIterator + '_ {
        self.range(0..self.len())
    }

    /// The elements of `range`, a range within `0..len`.
    pub fn range(
        &self,
        range: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = Item<'_>> + ExactSizeIterator + '_ {
        self.items.range(range).map(|v| Item::Bytes(v))
    }

    /// The blocks in order, as RDB writes them.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node<'_>> + '_ {
        std::iter::once(Node::Packed(PackedNode { list: self }))
    }

    /// Appends all elements of a listpack (a node read from a file).
    pub fn append_listpack(&mut self, listpack: &Listpack, limits: &Limits) {
        for item in listpack {
            self.push_back(item.text(&mut itoa::Buffer::new()), limits);
        }
    }

    pub fn encoding_name(&self) -> &'static str {
        "listpack"
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        self.items.iter().map(|v| v.capacity() + 24).sum()
    }
}
