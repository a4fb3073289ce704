//! Reading a list in order. A compressed block is unpacked for as long as its elements are shown.

use std::ops::{ControlFlow, Range};

use super::List;
use crate::encoding::{Item, listpack};

impl List {
    /// Shows all elements from head to tail.
    pub fn for_each(&self, f: impl FnMut(Item<'_>)) {
        self.for_each_in(0..self.len(), f);
    }

    /// Shows the elements of `range`, a range within `0..len`.
    pub fn for_each_in(&self, range: Range<usize>, mut f: impl FnMut(Item<'_>)) {
        self.walk(range, |item| {
            f(item);
            ControlFlow::Continue(())
        });
    }

    /// Shows the elements of `range`, a range within `0..len`, until `f` has seen enough.
    pub fn walk(&self, range: Range<usize>, mut f: impl FnMut(Item<'_>) -> ControlFlow<()>) {
        self.check(&range);
        let Some((first, skipped)) = self.locate(range.start) else { return };
        let (mut left, mut skipped) = (range.len(), skipped);
        for number in first..self.block_count() {
            let mut room = None;
            let Some(block) = self.view(number).map(|view| view.read(&mut room)) else { return };
            let shown = left.min(block.count() - skipped);
            let from = block.seek(skipped);
            if listpack::Iter::over(&block.entries()[from..]).take(shown).try_for_each(&mut f).is_break() {
                return;
            }
            left -= shown;
            skipped = 0;
            if left == 0 {
                return;
            }
        }
    }

    /// Shows the elements of `range`, a range within `0..len`, from its end, until `f` has seen enough.
    pub fn walk_back(&self, range: Range<usize>, mut f: impl FnMut(Item<'_>) -> ControlFlow<()>) {
        self.check(&range);
        if range.is_empty() {
            return;
        }
        let Some((last, within)) = self.locate(range.end - 1) else { return };
        let (mut left, mut end) = (range.len(), Some(within + 1));
        for number in (0..=last).rev() {
            let mut room = None;
            let Some(block) = self.view(number).map(|view| view.read(&mut room)) else { return };
            let count = end.take().unwrap_or(block.count());
            let shown = left.min(count);
            let to = block.seek(count);
            let mut items = listpack::Iter::over(&block.entries()[..to]).rev().take(shown);
            if items.try_for_each(&mut f).is_break() {
                return;
            }
            left -= shown;
            if left == 0 {
                return;
            }
        }
    }

    fn check(&self, range: &Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "ranges are clamped by the caller");
    }
}
