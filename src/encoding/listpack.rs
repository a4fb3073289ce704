//! A listpack: a sequence of short values in one allocation.
//!
//! `<total bytes u32><count u16><entry>...<0xff>`, little endian; a count of 65535 means "count them".
//! The bytes are those of Redis, so that RDB, DUMP and full syncs copy them. Positions are byte offsets
//! of entries and hold until the next change before them.

use super::{Item, Malformed, entry};
use entry::{END, Encoded};

const HEADER: usize = 6;
/// Bytes of a listpack beside its entries.
pub const OVERHEAD: usize = HEADER + 1;
const COUNT_UNKNOWN: u16 = u16::MAX;

/// An owned listpack. Always well-formed: bytes from outside enter through [`Listpack::from_bytes`] only.
#[derive(Clone, PartialEq, Eq)]
pub struct Listpack {
    bytes: Vec<u8>,
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    pub fn new() -> Self {
        Self { bytes: vec![HEADER as u8 + 1, 0, 0, 0, 0, 0, END] }
    }

    /// Takes over bytes from outside after a full check. Values in an unusual encoding (text that spells
    /// an integer, an integer wider than needed) are stored anew, so that equal values have equal bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        validate(bytes, true)?;
        let mut at = HEADER;
        let mut canonical = true;
        while bytes[at] != END && canonical {
            let (item, len) = entry::decode(&bytes[at..]);
            canonical = Encoded::item(item).starts(&bytes[at..]);
            at += len;
        }
        if canonical {
            return Ok(Self { bytes: bytes.to_vec() });
        }
        let mut anew = Self::new();
        let mut at = HEADER;
        while bytes[at] != END {
            let (item, len) = entry::decode(&bytes[at..]);
            anew.push_back_item(item);
            at += len;
        }
        Ok(anew)
    }

    /// The listpack as files and links carry it.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The entries alone, without header and end mark.
    pub(crate) fn entries(&self) -> &[u8] {
        &self.bytes[HEADER..self.end()]
    }

    /// Number of entries. Linear from 65535 entries on.
    #[inline]
    pub fn len(&self) -> usize {
        match u16::from_le_bytes([self.bytes[4], self.bytes[5]]) {
            COUNT_UNKNOWN => self.iter().count(),
            n => usize::from(n),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER + 1
    }

    pub fn push_back(&mut self, text: &[u8]) {
        self.splice(self.end(), 0, 0, &[Encoded::text(text)]);
    }

    /// Appends a field and its value.
    pub fn push_back_two(&mut self, a: &[u8], b: &[u8]) {
        self.splice(self.end(), 0, 0, &[Encoded::text(a), Encoded::text(b)]);
    }

    pub fn push_back_item(&mut self, item: Item<'_>) {
        self.splice(self.end(), 0, 0, &[Encoded::item(item)]);
    }

    pub fn push_back_int(&mut self, n: i64) {
        self.splice(self.end(), 0, 0, &[Encoded::int(n)]);
    }

    pub fn push_front(&mut self, text: &[u8]) {
        self.splice(HEADER, 0, 0, &[Encoded::text(text)]);
    }

    /// Position of the end mark: where an insertion appends.
    #[inline]
    pub fn end(&self) -> usize {
        self.bytes.len() - 1
    }

    #[inline]
    pub fn first(&self) -> Option<usize> {
        (!self.is_empty()).then_some(HEADER)
    }

    #[inline]
    pub fn last(&self) -> Option<usize> {
        self.prev(self.end())
    }

    /// The entry after the one at `pos`.
    #[inline]
    pub fn next(&self, pos: usize) -> Option<usize> {
        let next = pos + entry::len_at(&self.bytes[pos..]);
        (next < self.end()).then_some(next)
    }

    /// The entry before `pos`, which may be the end.
    #[inline]
    pub fn prev(&self, pos: usize) -> Option<usize> {
        (pos > HEADER).then(|| pos - entry::len_before(&self.bytes[HEADER..pos]))
    }

    /// Position of entry `index`, counted from 0, or from the back with -1 the last.
    pub fn seek(&self, index: isize) -> Option<usize> {
        let (mut pos, steps, forward) =
            if index >= 0 { (self.first()?, index, true) } else { (self.last()?, -1 - index, false) };
        for _ in 0..steps {
            pos = if forward { self.next(pos)? } else { self.prev(pos)? };
        }
        Some(pos)
    }

    /// The value at `pos`, a position that one of the methods here gave.
    #[inline]
    pub fn get(&self, pos: usize) -> Item<'_> {
        entry::decode(&self.bytes[pos..]).0
    }

    /// Inserts before the entry at `pos`, or at the end. The new entry is at `pos` then.
    pub fn insert(&mut self, pos: usize, text: &[u8]) {
        self.splice(pos, 0, 0, &[Encoded::text(text)]);
    }

    /// Inserts a member and its score, as [`Listpack::insert`].
    pub fn insert_two(&mut self, pos: usize, a: &[u8], b: &[u8]) {
        self.splice(pos, 0, 0, &[Encoded::text(a), Encoded::text(b)]);
    }

    /// Replaces the value at `pos`.
    pub fn replace(&mut self, pos: usize, text: &[u8]) {
        let old = entry::len_at(&self.bytes[pos..]);
        self.splice(pos, old, 1, &[Encoded::text(text)]);
    }

    /// Removes up to `count` entries from `pos` on. What followed them is at `pos` then.
    pub fn remove(&mut self, pos: usize, count: usize) {
        let mut to = pos;
        let mut gone = 0;
        while gone < count && to < self.end() {
            to += entry::len_at(&self.bytes[to..]);
            gone += 1;
        }
        self.splice(pos, to - pos, gone, &[]);
    }

    /// The first entry at or after `pos` that equals `text`; after each entry compared, `skip` are passed over.
    pub fn find(&self, pos: usize, text: &[u8], skip: usize) -> Option<usize> {
        let want = Encoded::text(text);
        let end = self.end();
        let mut at = pos;
        while at < end {
            let here = &self.bytes[at..];
            if want.starts(here) {
                return Some(at);
            }
            at += entry::len_at(here);
            for _ in 0..skip {
                if at >= end {
                    return None;
                }
                at += entry::len_at(&self.bytes[at..]);
            }
        }
        None
    }

    /// Heap bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter { bytes: &self.bytes[HEADER..self.end()] }
    }

    /// Entries two at a time: fields and values, members and scores. An odd one at the end is left out.
    pub fn pairs(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>)> + Clone + '_ {
        let mut items = self.iter();
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }

    /// Replaces `old_bytes` (`old_count` entries) at `at` by `new`.
    pub(crate) fn splice(&mut self, at: usize, old_bytes: usize, old_count: usize, new: &[Encoded<'_>]) {
        let new_bytes: usize = new.iter().map(Encoded::len).sum();
        let before = self.bytes.len();
        if new_bytes > old_bytes {
            self.bytes.resize(before + new_bytes - old_bytes, 0);
        }
        self.bytes.copy_within(at + old_bytes..before, at + new_bytes);
        self.bytes.truncate(before + new_bytes - old_bytes);
        let mut to = at;
        for e in new {
            e.write(&mut self.bytes[to..to + e.len()]);
            to += e.len();
        }
        let total = u32::try_from(self.bytes.len()).expect("callers keep listpacks below 4 GiB");
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        let count = u16::from_le_bytes([self.bytes[4], self.bytes[5]]);
        let count = if count == COUNT_UNKNOWN {
            // Counting anew is what Redis does once the count is small again; nobody needs it to be.
            COUNT_UNKNOWN
        } else {
            u16::try_from(usize::from(count) + new.len() - old_count).unwrap_or(COUNT_UNKNOWN)
        };
        self.bytes[4..6].copy_from_slice(&count.to_le_bytes());
    }
}

impl std::fmt::Debug for Listpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Entries in order; also from the back.
#[derive(Clone, Debug, Default)]
pub struct Iter<'a> {
    bytes: &'a [u8],
}

impl<'a> Iter<'a> {
    /// Iterates whole well-formed entries.
    #[inline]
    pub(crate) fn over(entries: &'a [u8]) -> Self {
        Self { bytes: entries }
    }

    /// Bytes of the entries still to come.
    #[inline]
    pub fn bytes_left(&self) -> usize {
        self.bytes.len()
    }

    /// What remains of this iterator after `front`, a copy of it that was shortened from the back.
    pub fn after(&self, front: &Iter<'a>) -> Iter<'a> {
        Iter { bytes: &self.bytes[front.bytes.len()..] }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.bytes.is_empty() {
            return None;
        }
        let (item, len) = entry::decode(self.bytes);
        self.bytes = &self.bytes[len..];
        Some(item)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let (rest, last) = self.bytes.split_at(self.bytes.len() - entry::len_before(self.bytes));
        self.bytes = rest;
        Some(entry::decode(last).0)
    }
}

/// Appends the listpack of these entries to `out`.
pub(crate) fn write(entries: &[u8], count: usize, out: &mut Vec<u8>) {
    let total = u32::try_from(entries.len() + OVERHEAD).expect("callers keep listpacks below 4 GiB");
    out.extend_from_slice(&total.to_le_bytes());
    out.extend_from_slice(&u16::try_from(count).unwrap_or(COUNT_UNKNOWN).to_le_bytes());
    out.extend_from_slice(entries);
    out.push(END);
}

/// Checks untrusted bytes: the frame, and with `deep` every entry and the count.
pub fn validate(bytes: &[u8], deep: bool) -> Result<(), Malformed> {
    let bad = Malformed("listpack");
    if bytes.len() < HEADER + 1
        || u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize != bytes.len()
        || bytes[bytes.len() - 1] != END
    {
        return Err(bad);
    }
    if !deep {
        return Ok(());
    }
    let body = &bytes[HEADER..bytes.len() - 1];
    let (mut at, mut count) = (0, 0usize);
    while at < body.len() {
        at += entry::check(&body[at..]).ok_or(bad)?;
        count += 1;
    }
    let told = u16::from_le_bytes([bytes[4], bytes[5]]);
    if told != COUNT_UNKNOWN && usize::from(told) != count {
        return Err(bad);
    }
    Ok(())
}
