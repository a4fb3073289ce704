//! Hash values: a listpack of fields and values in turn, or a hash table; with times of fields see [`Timed`].

use super::Limits;
use super::distinct::distinct;
use super::form::form;
use super::record::{Record, Shape};
use super::table::{Search, Stage, Table};
use super::timed::Timed;
use crate::base::rng::Rng;
use crate::base::time::UnixMs;
use crate::encoding::item::IntText;
use crate::encoding::{Dense, Item};

/// A map from fields to values.
#[derive(Clone, Default)]
#[repr(transparent)]
pub struct Hash(Form);

form! { 1: Table(Table<Field>), 2: Timed(Timed) }

impl Default for Form {
    fn default() -> Self {
        Owned::Packed(Dense::new()).into()
    }
}

/// A record is the field and its value.
pub(super) struct Field;

impl Shape for Field {
    const HEAD: usize = 0;
    const TAIL: bool = true;
}

impl Hash {
    /// A hash without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// A hash from a listpack of fields and values in turn, converted if it is beyond the limits; `None`
    /// if a field occurs twice or a value is missing.
    pub fn from_listpack(pairs: Dense, limits: &Limits) -> Option<Self> {
        let n = pairs.len();
        if !n.is_multiple_of(2) || !distinct(pairs.iter().step_by(2)) {
            return None;
        }
        let longest = pairs.iter().map(|i| i.len()).max().unwrap_or(0);
        let mut hash = Self(Owned::Packed(pairs).into());
        if n / 2 > limits.hash_max_listpack_entries || longest > limits.hash_max_listpack_value {
            hash.make_table(0, limits);
        }
        Some(hash)
    }

    /// An empty hash in the encoding that suits `fields` fields, to be filled without conversions.
    pub fn with_capacity(fields: usize, limits: &Limits) -> Self {
        let mut hash = Self::new();
        if fields > limits.hash_max_listpack_entries {
            hash.make_table(fields, limits);
        }
        hash
    }

    /// Shows the lengths of the chains of the hash table; false if there is none.
    pub fn for_each_chain(&self, f: &mut impl FnMut(usize)) -> bool {
        match self.0.view() {
            View::Packed(_) => false,
            View::Timed(timed) => timed.for_each_chain(f),
            View::Table(table) => {
                table.for_each_chain(f);
                true
            }
        }
    }

    /// Number of fields. Fields that have expired count until they are deleted.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0.view() {
            View::Packed(lp) => lp.len() / 2,
            View::Table(t) => t.len(),
            View::Timed(t) => t.len(),
        }
    }

    /// Whether there is no field.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets a field; true if it is new.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        match self.0.view_mut() {
            ViewMut::Table(t) => set_record(t, field, value),
            ViewMut::Timed(t) => t.set(field, value, false, limits),
            ViewMut::Packed(lp) => {
                if field.len().max(value.len()) > limits.hash_max_listpack_value
                    || !lp.has_room(field.len() + value.len())
                {
                    self.make_table(0, limits);
                    return self.set(field, value, limits);
                }
                if let Some(pos) = find(lp, field) {
                    let pos = lp.next(pos).expect("a field has a value");
                    lp.replace(pos, value);
                    return false;
                }
                lp.push_back_two(field, value);
                if lp.len() / 2 > limits.hash_max_listpack_entries {
                    self.make_table(0, limits);
                }
                true
            }
        }
    }

    /// Converts to a hash table with room for at least `fields`.
    fn make_table(&mut self, fields: usize, limits: &Limits) {
        let mut table = Box::new(Table::new(limits.hash_seed));
        table.reserve(fields.max(self.len() + 1));
        for (field, value) in self.iter() {
            set_record(&mut table, field.text(&mut IntText::new()), value.text(&mut IntText::new()));
        }
        self.0 = Owned::Table(table).into();
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        match self.0.view() {
            View::Packed(lp) => lp.next(find(lp, field)?).map(|pos| lp.get(pos)),
            View::Table(t) => t.get(field).map(|r| Item::Bytes(r.tail())),
            View::Timed(t) => t.get(field),
        }
    }

    /// Whether the field is there.
    #[inline]
    pub fn contains(&self, field: &[u8]) -> bool {
        match self.0.view() {
            View::Packed(lp) => find(lp, field).is_some(),
            View::Table(t) => t.get(field).is_some(),
            View::Timed(t) => t.get(field).is_some(),
        }
    }

    /// See [`super::Set::prefetch`].
    #[inline]
    pub fn prefetch(&self, field: &[u8], stage: Stage) -> bool {
        let View::Table(t) = self.0.view() else { return false };
        t.prefetch(field, stage);
        true
    }

    /// Removes a field; false if it was not there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self.0.view_mut() {
            ViewMut::Packed(lp) => find(lp, field).map(|pos| lp.remove(pos, 2)).is_some(),
            ViewMut::Table(t) => t.find(field).map(|place| t.remove(place)).is_some(),
            ViewMut::Timed(t) => t.remove(field),
        }
    }

    /// Fields with their values in no particular order, the same while the hash does not change.
    pub fn iter(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>)> + Clone + '_ {
        let (packed, table, timed) = match self.0.view() {
            View::Packed(lp) => (Some(lp.pairs()), None, None),
            View::Table(t) => (None, Some(t.iter()), None),
            View::Timed(t) => (None, None, Some(t.iter())),
        };
        let table = table.into_iter().flatten().map(pair);
        let timed = timed.into_iter().flatten().map(|(field, value, _)| (field, value));
        packed.into_iter().flatten().chain(table).chain(timed)
    }

    /// Shows some fields with their values and times, from the beginning where `at` is 0; returns where to go on,
    /// `None` at the end. Each is shown once, in the order of [`Hash::iter`], if the hash does not change between
    /// the steps.
    pub fn step(&self, at: usize, mut f: impl FnMut(Item<'_>, Item<'_>, Option<UnixMs>)) -> Option<usize> {
        match self.0.view() {
            View::Table(t) => t.step(at, |r| f(Item::Bytes(r.key()), Item::Bytes(r.tail()), None)),
            View::Timed(t) => t.step(at, f),
            View::Packed(lp) => {
                lp.pairs().for_each(|(field, value)| f(field, value, None));
                None
            }
        }
    }

    /// A field and its value, each with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<(Item<'_>, Item<'_>)> {
        match self.0.view() {
            View::Packed(lp) => {
                let n = lp.len() as u64 / 2;
                let pos = lp.seek(if n > 0 { 2 * rng.below(n) as usize } else { return None })?;
                Some((lp.get(pos), lp.get(lp.next(pos)?)))
            }
            View::Table(t) => t.random(rng).map(|place| pair(t.at(place))),
            View::Timed(t) => t.random(rng),
        }
    }

    /// One step of a scan: shows about `count` fields and returns the cursor to go on with, 0 at the end.
    /// A field present from the first to the last step is shown at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(Item<'_>, Item<'_>)) -> u64 {
        match self.0.view() {
            View::Packed(lp) => {
                lp.pairs().for_each(|(field, value)| f(field, value));
                0
            }
            View::Table(t) => t.scan(cursor, count, |r| f(Item::Bytes(r.key()), Item::Bytes(r.tail()))),
            View::Timed(t) => t.scan(cursor, count, f),
        }
    }

    /// The listpack of fields and values in turn, if the hash is in that encoding.
    pub fn packed(&self) -> Option<&Dense> {
        match self.0.view() {
            View::Packed(lp) => Some(lp),
            View::Table(_) | View::Timed(_) => None,
        }
    }

    /// The hash with the times of its fields, if it ever had any.
    pub fn timed(&self) -> Option<&Timed> {
        if let View::Timed(t) = self.0.view() { Some(t) } else { None }
    }

    /// A hash with fields that expire, as it was read from a file or a payload.
    pub fn from_timed(timed: Timed) -> Self {
        Self(Owned::Timed(Box::new(timed)).into())
    }

    /// As [`Hash::set`], but a field that is there keeps its time.
    pub fn set_keeping_time(&mut self, field: &[u8], value: &[u8], limits: &Limits) {
        match self.0.view_mut() {
            ViewMut::Timed(t) => t.set(field, value, true, limits),
            _ => self.set(field, value, limits),
        };
    }

    /// When a field expires: `None` for a missing field, `Some(None)` for one that does not expire.
    pub fn time(&self, field: &[u8]) -> Option<Option<UnixMs>> {
        match self.0.view() {
            View::Timed(t) => t.time(field),
            _ => self.contains(field).then_some(None),
        }
    }

    /// Sets or removes the expiry of a field; nothing happens to a missing field.
    pub fn set_time(&mut self, field: &[u8], at: Option<UnixMs>, limits: &Limits) {
        if at.is_some() {
            let timed = match self.0.view_mut() {
                ViewMut::Timed(_) => None,
                ViewMut::Packed(lp) => Some(Timed::from_pairs(lp)),
                ViewMut::Table(t) => {
                    let table = std::mem::replace(t, Table::new(limits.hash_seed));
                    Some(Timed::from_table(Box::new(table)))
                }
            };
            if let Some(timed) = timed {
                *self = Self::from_timed(timed);
            }
        }
        if let ViewMut::Timed(t) = self.0.view_mut() {
            t.set_time(field, at);
        }
    }

    /// The time of the field that goes first.
    #[inline]
    pub fn next_time(&self) -> Option<UnixMs> {
        if let View::Timed(t) = self.0.view() { t.next_time() } else { None }
    }

    /// Whether a field is there, but its time is before `now`.
    #[inline]
    pub fn is_dead(&self, field: &[u8], now: UnixMs) -> bool {
        matches!(self.0.view(), View::Timed(t) if t.time(field).flatten().is_some_and(|at| at < now))
    }

    /// Takes out up to `max` fields whose time is before `now`; returns them.
    pub fn take_due(&mut self, now: UnixMs, max: usize) -> Vec<Vec<u8>> {
        if let ViewMut::Timed(t) = self.0.view_mut() { t.take_due(now, max) } else { Vec::new() }
    }

    /// Fields with their values and times.
    pub fn iter_timed(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>, Option<UnixMs>)> + '_ {
        let (plain, timed) = match self.0.view() {
            View::Timed(t) => (None, Some(t.iter())),
            _ => (Some(self.iter().map(|(field, value)| (field, value, None))), None),
        };
        plain.into_iter().flatten().chain(timed.into_iter().flatten())
    }

    /// Whether `now` is behind the time of one of its fields.
    #[inline]
    pub fn has_dead(&self, now: UnixMs) -> bool {
        self.next_time().is_some_and(|at| at < now)
    }

    /// As OBJECT ENCODING shows it.
    pub fn encoding_name(&self) -> &'static str {
        match self.0.view() {
            View::Packed(_) => "listpack",
            View::Timed(t) if t.packed().is_some() => "listpackex",
            View::Table(_) | View::Timed(_) => "hashtable",
        }
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        match self.0.view() {
            View::Packed(lp) => lp.memory_bytes(),
            View::Table(t) => t.memory_bytes(),
            View::Timed(t) => size_of::<Timed>() + t.memory_bytes(),
        }
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn find(lp: &Dense, field: &[u8]) -> Option<usize> {
    find_in(lp, field, 1)
}

/// Finds a field in a listpack with `behind` elements behind each field.
#[inline(always)]
pub(super) fn find_in(lp: &Dense, field: &[u8], behind: usize) -> Option<usize> {
    lp.find(lp.first()?, field, behind)
}

pub(super) fn pair(r: &Record<Field>) -> (Item<'_>, Item<'_>) {
    (Item::Bytes(r.key()), Item::Bytes(r.tail()))
}

/// Sets a field; true if it is new.
#[inline]
pub(super) fn set_record(table: &mut Table<Field>, field: &[u8], value: &[u8]) -> bool {
    let hash = table.hash(field);
    match table.search(hash, field) {
        Search::Found(place) => {
            table.update(place, |r| r.set_tail(value));
            false
        }
        Search::Missing(vacancy) => {
            table.insert(vacancy, Record::new(hash, b"", field, value));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn encodings_follow_the_limits() {
        let limits = Limits::default();
        let mut h = Hash::new();
        for n in 0..128 {
            assert!(h.set(format!("f{n}").as_bytes(), b"1", &limits));
        }
        assert_eq!(h.encoding_name(), "listpack");
        assert!(!h.set(b"f5", &[b'x'; 64], &limits));
        assert_eq!(h.encoding_name(), "listpack");
        let mut wide = h.clone();
        assert!(!wide.set(b"f5", &[b'x'; 65], &limits));
        assert_eq!((wide.encoding_name(), wide.len()), ("hashtable", 128));
        assert!(h.set(b"f128", b"", &limits));
        assert_eq!((h.encoding_name(), h.len()), ("hashtable", 129));
        assert_eq!(h.get(b"f5").unwrap().to_vec(), [b'x'; 64]);
        assert_eq!(h.get(b"f128").unwrap().to_vec(), b"");
    }

    #[test]
    fn what_outgrows_a_listpack_becomes_a_table_whatever_is_configured() {
        let limits = Limits { hash_max_listpack_value: usize::MAX, ..Limits::default() };
        let value = vec![b'x'; 300 << 10];
        let mut h = Hash::new();
        for (field, encoding) in
            [(b"a", "listpack"), (b"b", "listpack"), (b"c", "listpack"), (b"d", "hashtable")]
        {
            assert!(h.set(field, &value, &limits));
            assert_eq!(h.encoding_name(), encoding);
        }
        assert_eq!((h.len(), h.get(b"a").unwrap().to_vec()), (4, value));
    }

    #[test]
    fn both_encodings_behave_as_a_map() {
        let small = Limits { hash_max_listpack_entries: 20, ..Limits::default() };
        for fields in [10, 19, 300] {
            let mut rng = Rng::new(fields);
            let (mut h, mut model) = (Hash::new(), BTreeMap::new());
            for round in 0..3000u64 {
                let field = rng.below(fields).to_string().into_bytes();
                match rng.below(4) {
                    0 | 1 => {
                        let value = round.pow(rng.below(4) as u32).to_string().into_bytes();
                        assert_eq!(h.set(&field, &value, &small), model.insert(field, value).is_none());
                    }
                    2 => assert_eq!(h.remove(&field), model.remove(&field).is_some()),
                    _ => assert_eq!(h.get(&field).map(|v| v.to_vec()), model.get(&field).cloned()),
                }
                assert_eq!(h.len(), model.len());
                if let Some((f, v)) = h.random(&mut rng) {
                    assert_eq!(model.get(&f.to_vec()), Some(&v.to_vec()));
                }
            }
            let all: BTreeMap<_, _> = h.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect();
            assert_eq!(all, model);
            let mut seen = BTreeMap::new();
            h.scan(0, usize::MAX, |f, v| drop(seen.insert(f.to_vec(), v.to_vec())));
            assert_eq!(seen, model);
        }
    }

    #[test]
    fn unsound_pairs_in_a_file_are_refused() {
        let mut lp = Dense::new();
        for m in ["a", "1", "b", "2", "a"] {
            lp.push_back(m.as_bytes());
        }
        assert!(Hash::from_listpack(lp.clone(), &Limits::default()).is_none(), "a value is missing");
        lp.push_back(b"3");
        assert!(Hash::from_listpack(lp, &Limits::default()).is_none(), "a field twice");
    }
}
