//! A listpack: a sequence of short values in one allocation.
//!
//! `<total bytes u32><count u16><entry>...<0xff>`, little endian; a count of 65535 means "count them". The bytes of a
//! [`Listpack`] are those of Redis, so that RDB, DUMP and full syncs copy them. A [`Dense`] one is used in memory for
//! what is never read backwards: the same entries without their backlens and without the end mark. That saves a hash
//! of ten short fields 20 bytes of 167. Positions are byte offsets of entries and hold until the next change before
//! them.

use super::framed::{Frame, Framed};
use super::{Item, Malformed, entry};
use entry::{BACKED, BARE, END, Encoded};

/// Bytes of a listpack before its entries.
pub const HEADER: usize = 6;
/// Bytes of a listpack beside its entries.
pub const OVERHEAD: usize = HEADER + 1;
/// A listpack that grows by one element more stays below this, as in Redis: its total must fit into 32 bits.
const SAFE: usize = if cfg!(test) { 1 << 20 } else { 1 << 30 };
const COUNT_UNKNOWN: u16 = u16::MAX;

/// An owned sequence of entries, with their backlens or without. Always well-formed: bytes from outside enter
/// through [`Packed::from_listpack`] only.
#[derive(Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct Packed<const BACK: bool>(Framed<Total>);

/// A listpack as files and links carry it.
pub type Listpack = Packed<BACKED>;
/// A listpack without backlens and end mark.
pub type Dense = Packed<BARE>;

struct Total;

impl Frame for Total {
    const HEADER: usize = HEADER;

    #[inline]
    fn total(header: &[u8]) -> usize {
        u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
    }
}

impl<const BACK: bool> Default for Packed<BACK> {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    /// The listpack as files and links carry it.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes()
    }

    /// Replaces the value at `pos` by an integer.
    pub fn replace_int(&mut self, pos: usize, n: i64) {
        let old = entry::len_at::<BACKED>(&self.bytes()[pos..]);
        self.splice(pos, old, 1, &[Encoded::int(n)]);
    }

    /// Appends several values at once.
    pub fn push_back_all(&mut self, values: &[Encoded<'_>]) {
        self.splice(self.end(), 0, 0, values);
    }
}

impl Dense {
    /// The listpack with the same elements, as files and links carry it.
    pub fn to_listpack(&self) -> Vec<u8> {
        let mut left = self.entries();
        // Nearly every backlen is one byte.
        let mut out = Vec::with_capacity(left.len() + self.len() + OVERHEAD);
        out.extend_from_slice(&[0; HEADER]);
        while !left.is_empty() {
            let (content, rest) = left.split_at(entry::len_at::<BARE>(left));
            out.extend_from_slice(content);
            entry::append_backlen(content.len(), &mut out);
            left = rest;
        }
        out.push(END);
        let header = header(out.len(), self.len());
        out[..HEADER].copy_from_slice(&header);
        out
    }

    /// Whether elements of so many bytes may be added. If not, the caller has to convert to another encoding.
    #[inline]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes().len() + bytes <= SAFE
    }

    /// Inserts before the entry at `pos`, or at the end. The new entry is at `pos` then.
    pub fn insert(&mut self, pos: usize, text: &[u8]) {
        self.splice(pos, 0, 0, &[Encoded::text(text)]);
    }

    /// Inserts a member and its score, as [`Dense::insert`].
    pub fn insert_two(&mut self, pos: usize, a: &[u8], b: &[u8]) {
        self.splice(pos, 0, 0, &[Encoded::text(a), Encoded::text(b)]);
    }

    /// Replaces the value at `pos`.
    pub fn replace(&mut self, pos: usize, text: &[u8]) {
        let old = entry::len_at::<BARE>(&self.bytes()[pos..]);
        self.splice(pos, old, 1, &[Encoded::text(text)]);
    }

    /// Removes up to `count` entries from `pos` on. What followed them is at `pos` then.
    pub fn remove(&mut self, pos: usize, count: usize) {
        let mut to = pos;
        let mut gone = 0;
        while gone < count && to < self.end() {
            to += entry::len_at::<BARE>(&self.bytes()[to..]);
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
            left = &left[entry::len_at::<BARE>(left)..];
            for _ in 0..skip {
                left = left.get(entry::len_at::<BARE>(left)..)?;
            }
        }
        None
    }

    /// Appends a field and its value.
    pub fn push_back_two(&mut self, a: &[u8], b: &[u8]) {
        self.splice(self.end(), 0, 0, &[Encoded::text(a), Encoded::text(b)]);
    }

    /// The entry after the one at `pos`.
    #[inline]
    pub fn next(&self, pos: usize) -> Option<usize> {
        let next = pos + entry::len_at::<BARE>(&self.bytes()[pos..]);
        (next < self.end()).then_some(next)
    }

    /// Entries two at a time: fields and values, members and scores. An odd one at the end is left out.
    pub fn pairs(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>)> + Clone + '_ {
        let mut items = self.iter();
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }
}

impl<const BACK: bool> Packed<BACK> {
    /// See [`Framed::ALIGN`].
    pub const ALIGN: usize = Framed::<Total>::ALIGN;

    /// Bytes behind the entries.
    const TAIL: usize = if BACK { 1 } else { 0 };

    /// No elements yet.
    pub fn new() -> Self {
        let mut bytes = [END; OVERHEAD];
        bytes[..HEADER].copy_from_slice(&header(HEADER + Self::TAIL, 0));
        Self(Framed::new(&bytes[..HEADER + Self::TAIL]))
    }

    /// Takes over the bytes of a listpack from outside after a full check. Values in an unusual encoding (text that
    /// spells an integer, an integer wider than needed) are stored anew, so that equal values have equal bytes.
    pub fn from_listpack(bytes: &[u8]) -> Result<Self, Malformed> {
        let count = validate(bytes)?;
        let mut own = Vec::with_capacity(bytes.len());
        own.extend_from_slice(&[0; HEADER]);
        for item in Iter::over(&bytes[HEADER..bytes.len() - 1]) {
            Encoded::item(item).append_to::<BACK>(&mut own);
        }
        own.extend_from_slice(&[END][..Self::TAIL]);
        let header = header(own.len(), count);
        own[..HEADER].copy_from_slice(&header);
        Ok(Self(Framed::new(&own)))
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The entries alone, without header and end mark.
    #[inline]
    pub(crate) fn entries(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[HEADER..bytes.len() - Self::TAIL]
    }

    /// Number of entries. Linear from 65535 entries on.
    #[inline]
    pub fn len(&self) -> usize {
        let bytes = self.bytes();
        match u16::from_le_bytes([bytes[4], bytes[5]]) {
            COUNT_UNKNOWN => self.iter().count(),
            n => usize::from(n),
        }
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.end() == HEADER
    }

    /// Appends an element; a text that spells an integer is kept as one.
    pub fn push_back(&mut self, text: &[u8]) {
        self.splice(self.end(), 0, 0, &[Encoded::text(text)]);
    }

    /// Appends an element that was read from somewhere else.
    pub fn push_back_item(&mut self, item: Item<'_>) {
        self.splice(self.end(), 0, 0, &[Encoded::item(item)]);
    }

    /// Appends an integer.
    pub fn push_back_int(&mut self, n: i64) {
        self.splice(self.end(), 0, 0, &[Encoded::int(n)]);
    }

    /// Position behind the last entry: where an insertion appends.
    #[inline]
    pub fn end(&self) -> usize {
        self.0.total() - Self::TAIL
    }

    /// Position of the first element.
    #[inline]
    pub fn first(&self) -> Option<usize> {
        (!self.is_empty()).then_some(HEADER)
    }

    /// Position of entry `index`, counted from 0.
    pub fn seek(&self, index: usize) -> Option<usize> {
        let mut items = self.iter();
        if index > 0 {
            items.nth(index - 1)?;
        }
        (items.bytes_left() > 0).then(|| self.end() - items.bytes_left())
    }

    /// The value at `pos`, a position that one of the methods here gave.
    #[inline]
    pub fn get(&self, pos: usize) -> Item<'_> {
        entry::decode::<BACK>(&self.bytes()[pos..]).0
    }

    /// Heap bytes.
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    /// The elements from front to back.
    pub fn iter(&self) -> Iter<'_, BACK> {
        Iter { bytes: self.entries() }
    }

    /// Replaces `old_bytes` (`old_count` entries) at `at` by `new`.
    #[inline]
    fn splice(&mut self, at: usize, old_bytes: usize, old_count: usize, new: &[Encoded<'_>]) {
        let new_bytes: usize = new.iter().map(Encoded::size::<BACK>).sum();
        let bytes = self.bytes();
        let total = bytes.len() - old_bytes + new_bytes;
        let count = match u16::from_le_bytes([bytes[4], bytes[5]]) {
            // Redis recounts once the number would fit again; no reader depends on that.
            COUNT_UNKNOWN => usize::from(COUNT_UNKNOWN),
            n => usize::from(n) + new.len() - old_count,
        };
        self.0.splice(&header(total, count), at, old_bytes, new_bytes, |mut gap| {
            for e in new {
                let (here, rest) = gap.split_at_mut(e.size::<BACK>());
                e.write::<BACK>(here);
                gap = rest;
            }
        });
    }
}

impl<const BACK: bool> std::fmt::Debug for Packed<BACK> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, const BACK: bool> IntoIterator for &'a Packed<BACK> {
    type Item = Item<'a>;
    type IntoIter = Iter<'a, BACK>;

    fn into_iter(self) -> Iter<'a, BACK> {
        self.iter()
    }
}

/// Entries in order; also from the back, if they have backlens.
#[derive(Clone, Debug, Default)]
pub struct Iter<'a, const BACK: bool = BACKED> {
    bytes: &'a [u8],
}

impl<'a> Iter<'a> {
    /// Iterates whole well-formed entries.
    #[inline]
    pub(crate) fn over(entries: &'a [u8]) -> Self {
        Self { bytes: entries }
    }

    /// What remains of this iterator after `front`, a copy of it that was shortened from the back.
    pub fn after(&self, front: &Iter<'a>) -> Iter<'a> {
        Iter { bytes: &self.bytes[front.bytes.len()..] }
    }
}

impl<const BACK: bool> Iter<'_, BACK> {
    /// Bytes of the entries still to come.
    #[inline]
    pub fn bytes_left(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a, const BACK: bool> Iterator for Iter<'a, BACK> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.bytes.is_empty() {
            return None;
        }
        let (item, len) = entry::decode::<BACK>(self.bytes);
        self.bytes = &self.bytes[len..];
        Some(item)
    }

    /// Passes over `n` entries without decoding them.
    #[inline]
    fn nth(&mut self, n: usize) -> Option<Item<'a>> {
        let mut left = self.bytes;
        for _ in 0..n {
            if left.is_empty() {
                break;
            }
            left = &left[entry::len_at::<BACK>(left)..];
        }
        self.bytes = left;
        self.next()
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
        Some(entry::decode::<BACKED>(last).0)
    }
}

/// Appends the listpack of these entries to `out`.
pub(crate) fn write(entries: &[u8], count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(entries.len() + OVERHEAD, count));
    out.extend_from_slice(entries);
    out.push(END);
}

#[inline]
fn header(total: usize, count: usize) -> [u8; HEADER] {
    let total = u32::try_from(total).expect("callers keep listpacks below 4 GiB").to_le_bytes();
    let count = u16::try_from(count).unwrap_or(COUNT_UNKNOWN).to_le_bytes();
    [total[0], total[1], total[2], total[3], count[0], count[1]]
}

/// Checks the bytes of an untrusted listpack, and returns how many entries it has.
fn validate(bytes: &[u8]) -> Result<usize, Malformed> {
    let bad = Malformed("listpack");
    if bytes.len() < HEADER + 1
        || u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize != bytes.len()
        || bytes[bytes.len() - 1] != END
    {
        return Err(bad);
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
    Ok(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::rng::Rng;

    fn of<const BACK: bool>(items: &[&str]) -> Packed<BACK> {
        let mut lp = Packed::new();
        for i in items {
            lp.push_back(i.as_bytes());
        }
        lp
    }

    /// The bytes within DUMP of redis-server 7.0.15 for `HSET h name Ada age 36 born -1815 big 5000000000`.
    #[test]
    fn the_bytes_of_redis() {
        let texts = ["name", "Ada", "age", "36", "born", "-1815", "big", "5000000000"];
        let (lp, dense): (Listpack, Dense) = (of(&texts), of(&texts));
        let golden: &[u8] = b"\x31\0\0\0\x08\0\x84name\x05\x83Ada\x04\x83age\x04\x24\x01\x84born\x05\xd8\xe9\x02\x83big\x04\xf4\0\xf2\x05\x2a\x01\0\0\0\x09\xff";
        assert_eq!(lp.as_bytes(), golden);
        assert_eq!(dense.to_listpack(), golden);
        assert_eq!(Listpack::from_listpack(golden), Ok(lp));
        assert_eq!(Dense::from_listpack(golden), Ok(dense));
        assert_eq!((Listpack::new().as_bytes(), &Dense::new().to_listpack()[..]), (EMPTY, EMPTY));
    }

    const EMPTY: &[u8] = b"\x07\0\0\0\0\0\xff";

    /// What a hash of ten fields of 6 + 6 bytes takes of a size class: 160 bytes, where a listpack takes 192.
    #[test]
    fn ten_short_fields_fit_a_smaller_class() {
        let mut lp = Dense::new();
        (0..10)
            .for_each(|n| lp.push_back_two(format!("field{n}").as_bytes(), format!("value{n}").as_bytes()));
        assert_eq!((lp.to_listpack().len(), lp.bytes().len(), lp.memory_bytes()), (167, 146, 160));
    }

    #[test]
    fn finds_with_entries_passed_over() {
        let lp: Dense = of(&["a", "1", "b", "a", "1", "b"]);
        let first = lp.first().unwrap();
        assert_eq!(lp.find(first, b"1", 0), lp.seek(1));
        assert_eq!(lp.find(first, b"1", 1), lp.seek(4));
        assert_eq!(lp.find(first, b"b", 1), lp.seek(2));
        assert_eq!(lp.find(first, b"z", 1), None);
        assert_eq!(lp.find(lp.end(), b"a", 0), None);
        assert_eq!((lp.seek(6), lp.seek(7), Dense::new().seek(0)), (None, None, None));
    }

    #[test]
    fn more_entries_than_the_count_can_say() {
        let mut lp = Dense::new();
        for _ in 0..70_000 {
            lp.push_back(b"1");
        }
        assert_eq!(lp.len(), 70_000);
        assert_eq!(Listpack::from_listpack(&lp.to_listpack()).unwrap().len(), 70_000);
        lp.remove(lp.first().unwrap(), 69_999);
        assert_eq!(lp.len(), 1);
    }

    #[test]
    fn unusual_encodings_are_stored_anew() {
        // The text "5", and 5 in 64 bits.
        let odd = b"\x13\0\0\0\x02\0\x815\x02\xf4\x05\0\0\0\0\0\0\0\x09\xff";
        let odd: Vec<u8> = [&(odd.len() as u32).to_le_bytes()[..], &odd[4..]].concat();
        assert_eq!(Listpack::from_listpack(&odd), Ok(of(&["5", "5"])));
        assert_eq!(Dense::from_listpack(&odd), Ok(of(&["5", "5"])));
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_without_a_panic() {
        let good: Dense = of(&["a", "", "17", "-70000", "5000000000", &"x".repeat(100), &"y".repeat(5000)]);
        let good = good.to_listpack();
        for cut in 0..good.len() {
            assert!(Listpack::from_listpack(&good[..cut]).is_err());
        }
        let mut rng = Rng::new(2);
        for _ in 0..if cfg!(miri) { 100 } else { 20_000 } {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(3) {
                // The long texts are no targets worth the time.
                let at = rng.below(60) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            if let Ok(lp) = Listpack::from_listpack(&bytes) {
                assert_eq!(lp.iter().count(), lp.iter().rev().count());
                let dense = Dense::from_listpack(&bytes).unwrap();
                assert_eq!(dense.to_listpack(), lp.as_bytes());
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        PushBack(Vec<u8>),
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
            (any::<usize>(), value()).prop_map(|(i, v)| Op::Insert(i, v)),
            (any::<usize>(), value()).prop_map(|(i, v)| Op::Replace(i, v)),
            (any::<usize>(), 0..4usize).prop_map(|(i, n)| Op::Remove(i, n)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn behaves_as_a_sequence(ops in proptest::collection::vec(op(), 1..40)) {
            let (mut lp, mut model) = (Dense::new(), Vec::<Vec<u8>>::new());
            for op in ops {
                match op {
                    Op::PushBack(v) => {
                        lp.push_back(&v);
                        model.push(v);
                    }
                    Op::Insert(i, v) => {
                        let i = i % (model.len() + 1);
                        lp.insert(lp.seek(i).unwrap_or(lp.end()), &v);
                        model.insert(i, v);
                    }
                    Op::Replace(i, v) if !model.is_empty() => {
                        let i = i % model.len();
                        lp.replace(lp.seek(i).unwrap(), &v);
                        model[i] = v;
                    }
                    Op::Remove(i, n) if !model.is_empty() => {
                        let i = i % model.len();
                        lp.remove(lp.seek(i).unwrap(), n);
                        model.drain(i..(i + n).min(model.len()));
                    }
                    Op::Replace(..) | Op::Remove(..) => {}
                }
                prop_assert_eq!(validate(&lp.to_listpack()), Ok(model.len()));
                prop_assert_eq!(lp.len(), model.len());
            }
            prop_assert!(lp.iter().map(|i| i.to_vec()).eq(model.iter().cloned()));
            let backed = Listpack::from_listpack(&lp.to_listpack()).unwrap();
            prop_assert!(backed.iter().rev().map(|i| i.to_vec()).eq(model.iter().rev().cloned()));
            prop_assert_eq!(Dense::from_listpack(backed.as_bytes()), Ok(lp.clone()));
            for v in &model {
                let first = model.iter().position(|m| m == v).unwrap();
                prop_assert_eq!(lp.find(lp.first().unwrap(), v, 0), lp.seek(first));
            }
        }
    }
}
