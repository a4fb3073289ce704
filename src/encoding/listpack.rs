//! A listpack: a sequence of short values in one allocation.
//!
//! `<total bytes u32><count u16><entry>...<0xff>`, little endian; a count of 65535 means "count them".
//! The bytes are those of Redis, so that RDB, DUMP and full syncs copy them. Positions are byte offsets
//! of entries and hold until the next change before them.

use super::framed::{Frame, Framed};
use super::{Item, Malformed, entry};
use entry::{END, Encoded};

/// Bytes of a listpack before its entries.
pub const HEADER: usize = 6;
/// Bytes of a listpack beside its entries.
pub const OVERHEAD: usize = HEADER + 1;
const COUNT_UNKNOWN: u16 = u16::MAX;

/// An owned listpack. Always well-formed: bytes from outside enter through [`Listpack::from_bytes`] only.
#[derive(Clone, PartialEq, Eq)]
pub struct Listpack(Framed<Total>);

struct Total;

impl Frame for Total {
    const HEADER: usize = HEADER;

    #[inline]
    fn total(header: &[u8]) -> usize {
        u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
    }
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    /// A listpack without elements: header and end mark.
    pub fn new() -> Self {
        Self(Framed::new(&[OVERHEAD as u8, 0, 0, 0, 0, 0, END]))
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
            return Ok(Self(Framed::new(bytes)));
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
        self.0.bytes()
    }

    /// The entries alone, without header and end mark.
    #[inline]
    pub(crate) fn entries(&self) -> &[u8] {
        let bytes = self.as_bytes();
        &bytes[HEADER..bytes.len() - 1]
    }

    /// Number of entries. Linear from 65535 entries on.
    #[inline]
    pub fn len(&self) -> usize {
        let bytes = self.as_bytes();
        match u16::from_le_bytes([bytes[4], bytes[5]]) {
            COUNT_UNKNOWN => self.iter().count(),
            n => usize::from(n),
        }
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.total() == HEADER + 1
    }

    /// Appends an element; a text that spells an integer is kept as one.
    pub fn push_back(&mut self, text: &[u8]) {
        self.splice(self.end(), 0, 0, &[Encoded::text(text)]);
    }

    /// Appends a field and its value.
    pub fn push_back_two(&mut self, a: &[u8], b: &[u8]) {
        self.splice(self.end(), 0, 0, &[Encoded::text(a), Encoded::text(b)]);
    }

    /// Appends an element that was read from somewhere else.
    pub fn push_back_item(&mut self, item: Item<'_>) {
        self.splice(self.end(), 0, 0, &[Encoded::item(item)]);
    }

    /// Appends several values at once.
    pub fn push_back_all(&mut self, values: &[Encoded<'_>]) {
        self.splice(self.end(), 0, 0, values);
    }

    /// Appends an integer.
    pub fn push_back_int(&mut self, n: i64) {
        self.splice(self.end(), 0, 0, &[Encoded::int(n)]);
    }

    /// Puts an element before all others.
    pub fn push_front(&mut self, text: &[u8]) {
        self.splice(HEADER, 0, 0, &[Encoded::text(text)]);
    }

    /// Position of the end mark: where an insertion appends.
    #[inline]
    pub fn end(&self) -> usize {
        self.0.total() - 1
    }

    /// Position of the first element.
    #[inline]
    pub fn first(&self) -> Option<usize> {
        (!self.is_empty()).then_some(HEADER)
    }

    /// Position of the last element.
    #[inline]
    pub fn last(&self) -> Option<usize> {
        self.prev(self.end())
    }

    /// The entry after the one at `pos`.
    #[inline]
    pub fn next(&self, pos: usize) -> Option<usize> {
        let next = pos + entry::len_at(&self.as_bytes()[pos..]);
        (next < self.end()).then_some(next)
    }

    /// The entry before `pos`, which may be the end.
    #[inline]
    pub fn prev(&self, pos: usize) -> Option<usize> {
        (pos > HEADER).then(|| pos - entry::len_before(&self.as_bytes()[HEADER..pos]))
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
        entry::decode(&self.as_bytes()[pos..]).0
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
        let old = entry::len_at(&self.as_bytes()[pos..]);
        self.splice(pos, old, 1, &[Encoded::text(text)]);
    }

    /// Replaces the value at `pos` by an integer.
    pub fn replace_int(&mut self, pos: usize, n: i64) {
        let old = entry::len_at(&self.as_bytes()[pos..]);
        self.splice(pos, old, 1, &[Encoded::int(n)]);
    }

    /// Removes up to `count` entries from `pos` on. What followed them is at `pos` then.
    pub fn remove(&mut self, pos: usize, count: usize) {
        let mut to = pos;
        let mut gone = 0;
        while gone < count && to < self.end() {
            to += entry::len_at(&self.as_bytes()[to..]);
            gone += 1;
        }
        self.splice(pos, to - pos, gone, &[]);
    }

    /// The first entry at or after `pos` that equals `text`; after each entry compared, `skip` are passed over.
    pub fn find(&self, pos: usize, text: &[u8], skip: usize) -> Option<usize> {
        let want = Encoded::text(text);
        let mut left = &self.entries()[pos - HEADER..];
        while !left.is_empty() {
            if want.starts(left) {
                return Some(self.end() - left.len());
            }
            left = &left[entry::len_at(left)..];
            for _ in 0..skip {
                left = left.get(entry::len_at(left)..)?;
            }
        }
        None
    }

    /// Heap bytes.
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    /// The elements from front to back.
    pub fn iter(&self) -> Iter<'_> {
        Iter { bytes: self.entries() }
    }

    /// Entries two at a time: fields and values, members and scores. An odd one at the end is left out.
    pub fn pairs(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>)> + Clone + '_ {
        let mut items = self.iter();
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }

    /// Replaces `old_bytes` (`old_count` entries) at `at` by `new`.
    #[inline]
    fn splice(&mut self, at: usize, old_bytes: usize, old_count: usize, new: &[Encoded<'_>]) {
        let new_bytes: usize = new.iter().map(Encoded::len).sum();
        let bytes = self.as_bytes();
        let total = u32::try_from(bytes.len() - old_bytes + new_bytes).expect("callers stay below 4 GiB");
        let count = match u16::from_le_bytes([bytes[4], bytes[5]]) {
            // Redis counts anew once the count is small again; nobody needs it to be.
            COUNT_UNKNOWN => COUNT_UNKNOWN,
            n => u16::try_from(usize::from(n) + new.len() - old_count).unwrap_or(COUNT_UNKNOWN),
        };
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&total.to_le_bytes());
        header[4..].copy_from_slice(&count.to_le_bytes());
        self.0.splice(&header, at, old_bytes, new_bytes, |mut gap| {
            for e in new {
                let (here, rest) = gap.split_at_mut(e.len());
                e.write(here);
                gap = rest;
            }
        });
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::base::rng::Rng;

    fn of(items: &[&str]) -> Listpack {
        let mut lp = Listpack::new();
        for i in items {
            lp.push_back(i.as_bytes());
        }
        lp
    }

    /// The bytes within DUMP of redis-server 7.0.15 for `HSET h name Ada age 36 born -1815 big 5000000000`.
    #[test]
    fn the_bytes_of_redis() {
        let lp = of(&["name", "Ada", "age", "36", "born", "-1815", "big", "5000000000"]);
        let golden: &[u8] = b"\x31\0\0\0\x08\0\x84name\x05\x83Ada\x04\x83age\x04\x24\x01\x84born\x05\xd8\xe9\x02\x83big\x04\xf4\0\xf2\x05\x2a\x01\0\0\0\x09\xff";
        assert_eq!(lp.as_bytes(), golden);
        assert_eq!(Listpack::from_bytes(golden), Ok(lp));
    }

    #[test]
    fn finds_with_entries_passed_over() {
        let lp = of(&["a", "1", "b", "a", "1", "b"]);
        let first = lp.first().unwrap();
        assert_eq!(lp.find(first, b"1", 0), lp.seek(1));
        assert_eq!(lp.find(first, b"1", 1), lp.seek(4));
        assert_eq!(lp.find(first, b"b", 1), lp.seek(2));
        assert_eq!(lp.find(first, b"z", 1), None);
        assert_eq!(lp.find(lp.end(), b"a", 0), None);
        assert_eq!((lp.seek(6), lp.seek(-7), lp.seek(-1)), (None, None, lp.last()));
    }

    #[test]
    fn more_entries_than_the_count_can_say() {
        let mut lp = Listpack::new();
        for _ in 0..70_000 {
            lp.push_back(b"1");
        }
        assert_eq!(lp.len(), 70_000);
        assert_eq!(Listpack::from_bytes(lp.as_bytes()).unwrap().len(), 70_000);
        lp.remove(lp.first().unwrap(), 69_999);
        assert_eq!(lp.len(), 1);
    }

    #[test]
    fn unusual_encodings_are_stored_anew() {
        // The text "5", and 5 in 64 bits.
        let odd = b"\x13\0\0\0\x02\0\x815\x02\xf4\x05\0\0\0\0\0\0\0\x09\xff";
        let odd: Vec<u8> = [&(odd.len() as u32).to_le_bytes()[..], &odd[4..]].concat();
        assert_eq!(Listpack::from_bytes(&odd), Ok(of(&["5", "5"])));
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_without_a_panic() {
        let good = of(&["a", "", "17", "-70000", "5000000000", &"x".repeat(100), &"y".repeat(5000)]);
        let good = good.as_bytes();
        for cut in 0..good.len() {
            assert!(Listpack::from_bytes(&good[..cut]).is_err());
        }
        let mut rng = Rng::new(2);
        for _ in 0..if cfg!(miri) { 100 } else { 20_000 } {
            let mut bytes = good.to_vec();
            for _ in 0..=rng.below(3) {
                // The long texts are no targets worth the time.
                let at = rng.below(60) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            if let Ok(lp) = Listpack::from_bytes(&bytes) {
                assert_eq!(lp.iter().count(), lp.iter().rev().count());
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        PushBack(Vec<u8>),
        PushFront(Vec<u8>),
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Remove(usize, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let value = || {
            prop_oneof![
                any::<i64>().prop_map(|n| n.to_string().into_bytes()),
                (-5000..5000i64).prop_map(|n| n.to_string().into_bytes()),
                proptest::collection::vec(any::<u8>(), 0..150),
                (0..20_000usize).prop_map(|n| vec![b'x'; n]),
            ]
        };
        prop_oneof![
            value().prop_map(Op::PushBack),
            value().prop_map(Op::PushFront),
            (any::<usize>(), value()).prop_map(|(i, v)| Op::Insert(i, v)),
            (any::<usize>(), value()).prop_map(|(i, v)| Op::Replace(i, v)),
            (any::<usize>(), 0..4usize).prop_map(|(i, n)| Op::Remove(i, n)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn behaves_as_a_sequence(ops in proptest::collection::vec(op(), 1..40)) {
            let (mut lp, mut model) = (Listpack::new(), VecDeque::<Vec<u8>>::new());
            for op in ops {
                match op {
                    Op::PushBack(v) => {
                        lp.push_back(&v);
                        model.push_back(v);
                    }
                    Op::PushFront(v) => {
                        lp.push_front(&v);
                        model.push_front(v);
                    }
                    Op::Insert(i, v) => {
                        let i = i % (model.len() + 1);
                        lp.insert(lp.seek(i as isize).unwrap_or(lp.end()), &v);
                        model.insert(i, v);
                    }
                    Op::Replace(i, v) if !model.is_empty() => {
                        let i = i % model.len();
                        lp.replace(lp.seek(i as isize - model.len() as isize).unwrap(), &v);
                        model[i] = v;
                    }
                    Op::Remove(i, n) if !model.is_empty() => {
                        let i = i % model.len();
                        lp.remove(lp.seek(i as isize).unwrap(), n);
                        model.drain(i..(i + n).min(model.len()));
                    }
                    Op::Replace(..) | Op::Remove(..) => {}
                }
                prop_assert_eq!(validate(lp.as_bytes(), true), Ok(()));
                prop_assert_eq!(lp.len(), model.len());
            }
            prop_assert!(lp.iter().map(|i| i.to_vec()).eq(model.iter().cloned()));
            prop_assert!(lp.iter().rev().map(|i| i.to_vec()).eq(model.iter().rev().cloned()));
            for v in &model {
                let first = model.iter().position(|m| m == v).unwrap();
                prop_assert_eq!(lp.find(lp.first().unwrap(), v, 0), lp.seek(first as isize));
            }
        }
    }
}
