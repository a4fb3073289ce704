//! A block of a list: listpack entries with free room at both ends, so that pushing and popping at either
//! end moves nothing. Header and end mark of the listpack are added when it is written out.

use crate::base::size_class::size_class;
use crate::encoding::entry::{self, BACKED, Encoded};
use crate::encoding::listpack::{self, Iter};
use crate::encoding::{Item, Listpack};

/// Entries in order. Positions are offsets from the first entry.
#[derive(Default)]
pub struct Block {
    buf: Box<[u8]>,
    start: u32,
    end: u32,
    count: u32,
}

impl Block {
    /// The entries of a listpack.
    pub fn of(lp: &Listpack) -> Self {
        let entries = lp.entries();
        let mut buf = vec![0; size_class(entries.len())].into_boxed_slice();
        buf[..entries.len()].copy_from_slice(entries);
        Self { buf, start: 0, end: entries.len() as u32, count: lp.len() as u32 }
    }

    /// The entries of a listpack of `count` that somebody has written out.
    pub fn of_image(mut image: Vec<u8>, count: u32) -> Self {
        let (start, end) = (listpack::HEADER as u32, image.len() as u32 - 1);
        image.resize(size_class(image.len()), 0);
        Self { buf: image.into_boxed_slice(), start, end, count }
    }

    #[inline]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    #[inline]
    pub fn entries(&self) -> &[u8] {
        &self.buf[self.start as usize..self.end as usize]
    }

    /// Bytes of the block as a listpack.
    #[inline]
    pub fn listpack_bytes(&self) -> usize {
        (self.end - self.start) as usize + listpack::OVERHEAD
    }

    pub fn memory_bytes(&self) -> usize {
        self.buf.len()
    }

    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        Iter::over(self.entries())
    }

    #[inline]
    pub fn push_back(&mut self, value: &Encoded<'_>) {
        let n = value.size::<BACKED>();
        if self.buf.len() - (self.end as usize) < n {
            self.make_room(0, n);
        }
        let at = self.end as usize;
        value.write::<BACKED>(&mut self.buf[at..at + n]);
        self.end += n as u32;
        self.count += 1;
    }

    #[inline]
    pub fn push_front(&mut self, value: &Encoded<'_>) {
        let n = value.size::<BACKED>();
        if (self.start as usize) < n {
            self.make_room(n, 0);
        }
        self.start -= n as u32;
        let at = self.start as usize;
        value.write::<BACKED>(&mut self.buf[at..at + n]);
        self.count += 1;
    }

    /// Makes room for so many bytes before and after, by moving within the buffer if much of it is free.
    #[cold]
    fn make_room(&mut self, before: usize, after: usize) {
        let len = (self.end - self.start) as usize;
        let needed = len + before + after;
        let total = self.buf.len();
        // All free room goes to the side that asks, or half of it if the other side has been used, too.
        let place = |free: usize, in_use: bool| match (before > 0, in_use) {
            (true, false) => before + free,
            (true, true) => before + free / 2,
            (false, false) => 0,
            (false, true) => free / 2,
        };
        if needed + total / 8 <= total {
            let free = total - needed;
            let to = place(free, true);
            self.buf.copy_within(self.start as usize..self.end as usize, to);
            (self.start, self.end) = (to as u32, (to + len) as u32);
            return;
        }
        let total = size_class(needed);
        let to = place(total - needed, false);
        let mut grown = vec![0; total].into_boxed_slice();
        grown[to..to + len].copy_from_slice(self.entries());
        self.buf = grown;
        (self.start, self.end) = (to as u32, u32::try_from(to + len).expect("blocks are far below 4 GiB"));
    }

    /// Removes the first entry, which is there.
    #[inline]
    pub fn pop_front(&mut self) {
        self.start += entry::len_at::<BACKED>(self.entries()) as u32;
        self.count -= 1;
    }

    /// Removes the last entry, which is there.
    #[inline]
    pub fn pop_back(&mut self) {
        self.end -= entry::len_before(self.entries()) as u32;
        self.count -= 1;
    }

    #[inline]
    pub fn get(&self, pos: usize) -> Item<'_> {
        entry::decode::<BACKED>(&self.entries()[pos..]).0
    }

    /// Position of the entry at `index`; the end for the count itself.
    pub fn seek(&self, index: usize) -> usize {
        let entries = self.entries();
        if index <= self.count() / 2 {
            (0..index).fold(0, |pos, _| pos + entry::len_at::<BACKED>(&entries[pos..]))
        } else {
            (index..self.count()).fold(entries.len(), |pos, _| pos - entry::len_before(&entries[..pos]))
        }
    }

    /// Number of entries before `pos`.
    pub fn index_of(&self, pos: usize) -> usize {
        Iter::over(&self.entries()[..pos]).count()
    }

    /// Positions of the entries that equal `value`.
    pub fn find_all<'a>(&'a self, value: &'a Encoded<'_>) -> impl Iterator<Item = usize> + 'a {
        let entries = self.entries();
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < entries.len() {
                let here = &entries[at..];
                let pos = at;
                at += entry::len_at::<BACKED>(here);
                if value.starts(here) {
                    return Some(pos);
                }
            }
            None
        })
    }

    /// Bytes that the entry at `pos` takes.
    pub fn entry_bytes(&self, pos: usize) -> usize {
        entry::len_at::<BACKED>(&self.entries()[pos..])
    }

    /// Puts a value in the place of `old` bytes (0 or 1 entries) at `pos`.
    pub fn splice(&mut self, pos: usize, old: usize, value: &Encoded<'_>) {
        let n = value.size::<BACKED>();
        let tail = self.entries().len() - pos - old;
        if n > old && self.buf.len() - (self.end as usize) < n - old {
            self.make_room(0, n - old);
        }
        let at = self.start as usize + pos;
        self.buf.copy_within(at + old..at + old + tail, at + n);
        value.write::<BACKED>(&mut self.buf[at..at + n]);
        self.end = (at + n + tail) as u32;
        self.count += u32::from(old == 0);
    }

    /// Removes the entries at these positions, which ascend.
    pub fn remove_all(&mut self, positions: &[usize]) {
        let start = self.start as usize;
        let Some(&first) = positions.first() else { return };
        let mut to = start + first;
        for (i, &pos) in positions.iter().enumerate() {
            let from = start + pos + self.entry_bytes_at(start + pos);
            let until = positions.get(i + 1).map_or(self.end as usize, |next| start + next);
            self.buf.copy_within(from..until, to);
            to += until - from;
        }
        self.end = to as u32;
        self.count -= positions.len() as u32;
    }

    fn entry_bytes_at(&self, at: usize) -> usize {
        entry::len_at::<BACKED>(&self.buf[at..self.end as usize])
    }

    /// Removes the first `n` entries.
    pub fn drop_front(&mut self, n: usize) {
        self.start += self.seek(n) as u32;
        self.count -= n as u32;
    }

    /// Keeps only the first `n` entries.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.start + self.seek(n) as u32;
        self.count = n as u32;
    }

    /// Splits off the entries from `index` on.
    pub fn split_off(&mut self, index: usize) -> Self {
        let pos = self.seek(index);
        let moved = &self.entries()[pos..];
        let mut buf = vec![0; size_class(moved.len())].into_boxed_slice();
        buf[..moved.len()].copy_from_slice(moved);
        let right = Self { buf, start: 0, end: moved.len() as u32, count: self.count - index as u32 };
        self.end = self.start + pos as u32;
        self.count = index as u32;
        right
    }

    /// Appends all entries of another block.
    pub fn append(&mut self, other: &Self) {
        let n = other.entries().len();
        if self.buf.len() - (self.end as usize) < n {
            self.make_room(0, n);
        }
        let at = self.end as usize;
        self.buf[at..at + n].copy_from_slice(other.entries());
        self.end += n as u32;
        self.count += other.count;
    }

    /// Gives back memory where most of the buffer has become free.
    pub fn shrink(&mut self) {
        let len = self.entries().len();
        if self.buf.len() > 256 && len < self.buf.len() / 4 {
            let mut buf = vec![0; size_class(2 * len)].into_boxed_slice();
            let to = (buf.len() - len) / 2;
            buf[to..to + len].copy_from_slice(self.entries());
            self.buf = buf;
            (self.start, self.end) = (to as u32, (to + len) as u32);
        }
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        let entries = self.entries();
        let mut buf = vec![0; size_class(entries.len())].into_boxed_slice();
        buf[..entries.len()].copy_from_slice(entries);
        Self { buf, start: 0, end: entries.len() as u32, count: self.count }
    }
}
