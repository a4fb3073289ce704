//! A hash with fields that expire. It is a listpack of fields, values and times in turn, ordered by time, with the
//! fields that do not expire (time 0) at the end; or a hash table with the times beside it.
//!
//! A hash becomes one when its first field is given an expiry, and remains one, as in Redis. Other hashes pay nothing
//! for it.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::Limits;
use super::distinct::distinct;
use super::hash::{Field, find_in, pair, set_record};
use super::table::Table;
use crate::base::rng::Rng;
use crate::base::time::UnixMs;
use crate::encoding::item::IntText;
use crate::encoding::{Dense, Item};

/// The latest time that a field may have: 46 bits.
pub const LATEST: UnixMs = (1 << 46) - 1;

/// A hash with a time for each field, or none.
#[derive(Clone)]
pub struct Timed(Repr);

#[derive(Clone)]
enum Repr {
    Packed(Dense),
    Table(Box<Table<Field>>, Times),
}

/// The times of a table's fields.
#[derive(Clone, Default)]
struct Times {
    of: HashMap<Box<[u8]>, UnixMs, foldhash::fast::RandomState>,
    order: BTreeSet<(UnixMs, Box<[u8]>)>,
}

impl Times {
    fn get(&self, field: &[u8]) -> Option<UnixMs> {
        self.of.get(field).copied()
    }

    fn set(&mut self, field: &[u8], at: Option<UnixMs>) {
        if let Some((field, old)) = self.of.remove_entry(field) {
            self.order.remove(&(old, field));
        }
        if let Some(at) = at {
            self.of.insert(field.into(), at);
            self.order.insert((at, field.into()));
        }
    }
}

/// A field with its value and its time.
type Triple<'a> = (Item<'a>, Item<'a>, Option<UnixMs>);

fn time_item(item: Item<'_>) -> Option<UnixMs> {
    item.as_int().filter(|at| *at != 0)
}

fn triples(lp: &Dense) -> impl Iterator<Item = Triple<'_>> + Clone + '_ {
    let mut items = lp.iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?, time_item(items.next()?))))
}

impl Timed {
    /// Shows the lengths of the chains of the hash table; false if there is none.
    pub fn for_each_chain(&self, f: &mut impl FnMut(usize)) -> bool {
        let Repr::Table(table, _) = &self.0 else { return false };
        table.for_each_chain(f);
        true
    }

    /// A hash without times yet.
    pub fn from_pairs(pairs: &Dense) -> Self {
        let mut lp = Dense::new();
        for (field, value) in pairs.pairs() {
            lp.push_back_item(field);
            lp.push_back_item(value);
            lp.push_back_int(0);
        }
        Self(Repr::Packed(lp))
    }

    pub(super) fn from_table(table: Box<Table<Field>>) -> Self {
        Self(Repr::Table(table, Times::default()))
    }

    /// A hash from a listpack of fields, values and times, converted if it is beyond the limits; `None` if it
    /// is not one.
    pub fn from_listpack(lp: Dense, limits: &Limits) -> Option<Self> {
        let n = lp.len();
        if !n.is_multiple_of(3) || !distinct(lp.iter().step_by(3)) {
            return None;
        }
        let mut last = 0;
        for item in lp.iter().skip(2).step_by(3) {
            // Those that stay come last.
            let at = item.as_int().filter(|at| (0..=LATEST).contains(at))?;
            let rank = if at == 0 { UnixMs::MAX } else { at };
            if rank < last {
                return None;
            }
            last = rank;
        }
        let longest = triples(&lp).map(|(f, v, _)| f.len().max(v.len())).max().unwrap_or(0);
        let mut hash = Self(Repr::Packed(lp));
        if n / 3 > limits.hash_max_listpack_entries || longest > limits.hash_max_listpack_value {
            hash.make_table(limits);
        }
        Some(hash)
    }

    fn make_table(&mut self, limits: &Limits) {
        let Repr::Packed(lp) = &self.0 else { return };
        let mut table = Box::new(Table::new(limits.hash_seed));
        table.reserve(lp.len() / 3 + 1);
        let mut times = Times::default();
        let (mut f, mut v) = (IntText::new(), IntText::new());
        for (field, value, at) in triples(lp) {
            let field = field.text(&mut f);
            set_record(&mut table, field, value.text(&mut v));
            if at.is_some() {
                times.set(field, at);
            }
        }
        self.0 = Repr::Table(table, times);
    }

    /// No fields at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of fields. Fields that have expired count until they are deleted.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Packed(lp) => lp.len() / 3,
            Repr::Table(t, _) => t.len(),
        }
    }

    /// Sets a field; true if it is new. Its expiry is removed unless `keep` is set.
    pub fn set(&mut self, field: &[u8], value: &[u8], keep: bool, limits: &Limits) -> bool {
        match &mut self.0 {
            Repr::Table(t, times) => {
                if !keep {
                    times.set(field, None);
                }
                set_record(t, field, value)
            }
            Repr::Packed(lp) => {
                if field.len().max(value.len()) > limits.hash_max_listpack_value
                    || !lp.has_room(field.len() + value.len())
                {
                    self.make_table(limits);
                    return self.set(field, value, keep, limits);
                }
                if let Some(pos) = find_in(lp, field, 2) {
                    let pos = lp.next(pos).expect("a field has a value");
                    lp.replace(pos, value);
                    if !keep {
                        self.set_time(field, None);
                    }
                    return false;
                }
                lp.push_back_two(field, value);
                lp.push_back_int(0);
                if lp.len() / 3 > limits.hash_max_listpack_entries {
                    self.make_table(limits);
                }
                true
            }
        }
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        match &self.0 {
            Repr::Packed(lp) => lp.next(find_in(lp, field, 2)?).map(|pos| lp.get(pos)),
            Repr::Table(t, _) => t.get(field).map(|r| Item::Bytes(r.tail())),
        }
    }

    /// When a field expires: `None` for a missing field, `Some(None)` for one that does not expire.
    pub fn time(&self, field: &[u8]) -> Option<Option<UnixMs>> {
        match &self.0 {
            Repr::Packed(lp) => {
                let pos = lp.next(lp.next(find_in(lp, field, 2)?)?)?;
                Some(time_item(lp.get(pos)))
            }
            Repr::Table(t, times) => t.get(field).map(|_| times.get(field)),
        }
    }

    /// Sets or removes the expiry of a field; nothing happens to a missing field.
    pub fn set_time(&mut self, field: &[u8], at: Option<UnixMs>) {
        match &mut self.0 {
            Repr::Table(t, times) => {
                if t.get(field).is_some() {
                    times.set(field, at);
                }
            }
            Repr::Packed(lp) => set_packed_time(lp, field, at),
        }
    }

    /// Removes a field; false if it was not there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.0 {
            Repr::Packed(lp) => find_in(lp, field, 2).map(|pos| lp.remove(pos, 3)).is_some(),
            Repr::Table(t, times) => {
                times.set(field, None);
                t.find(field).map(|place| t.remove(place)).is_some()
            }
        }
    }

    /// The time of the field that goes first.
    pub fn next_time(&self) -> Option<UnixMs> {
        match &self.0 {
            Repr::Packed(lp) => triples(lp).next()?.2,
            Repr::Table(_, times) => times.order.first().map(|(at, _)| *at),
        }
    }

    /// Takes out up to `max` fields whose time is before `now`; returns them.
    pub fn take_due(&mut self, now: UnixMs, max: usize) -> Vec<Vec<u8>> {
        let is_due = |at: Option<UnixMs>| at.is_some_and(|at| at < now);
        let due: Vec<Vec<u8>> = match &self.0 {
            Repr::Packed(lp) => triples(lp)
                .take(max)
                .take_while(|(_, _, at)| is_due(*at))
                .map(|(f, _, _)| f.to_vec())
                .collect(),
            Repr::Table(_, times) => times
                .order
                .iter()
                .take(max)
                .take_while(|(at, _)| *at < now)
                .map(|(_, f)| f.to_vec())
                .collect(),
        };
        for field in &due {
            self.remove(field);
        }
        due
    }

    /// Fields with their values and times.
    pub fn iter(&self) -> impl Iterator<Item = Triple<'_>> + Clone + '_ {
        let (packed, table) = match &self.0 {
            Repr::Packed(lp) => (Some(triples(lp)), None),
            Repr::Table(t, times) => {
                let timed = move |r| {
                    let (field, value) = pair(r);
                    (field, value, times.get(r.key()))
                };
                (None, Some(t.iter().map(timed)))
            }
        };
        packed.into_iter().flatten().chain(table.into_iter().flatten())
    }

    /// See [`super::Hash::step`].
    pub fn step(&self, at: usize, mut f: impl FnMut(Item<'_>, Item<'_>, Option<UnixMs>)) -> Option<usize> {
        match &self.0 {
            Repr::Table(t, times) => {
                t.step(at, |r| f(Item::Bytes(r.key()), Item::Bytes(r.tail()), times.get(r.key())))
            }
            Repr::Packed(lp) => {
                triples(lp).for_each(|(field, value, time)| f(field, value, time));
                None
            }
        }
    }

    /// A field and its value, each with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<(Item<'_>, Item<'_>)> {
        match &self.0 {
            Repr::Packed(lp) => {
                let n = lp.len() as u64 / 3;
                let pos = lp.seek(if n > 0 { 3 * rng.below(n) as usize } else { return None })?;
                Some((lp.get(pos), lp.get(lp.next(pos)?)))
            }
            Repr::Table(t, _) => t.random(rng).map(|place| pair(t.at(place))),
        }
    }

    /// See [`super::Hash::scan`].
    pub fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(Item<'_>, Item<'_>)) -> u64 {
        match &self.0 {
            Repr::Packed(lp) => {
                triples(lp).for_each(|(field, value, _)| f(field, value));
                0
            }
            Repr::Table(t, _) => t.scan(cursor, count, |r| f(Item::Bytes(r.key()), Item::Bytes(r.tail()))),
        }
    }

    /// The listpack of fields, values and times, if the hash is in that encoding.
    pub fn packed(&self) -> Option<&Dense> {
        match &self.0 {
            Repr::Packed(lp) => Some(lp),
            Repr::Table(..) => None,
        }
    }

    /// Heap bytes, without the allocator's rounding.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Repr::Packed(lp) => lp.memory_bytes(),
            Repr::Table(t, times) => {
                let fields: usize = times.of.keys().map(|field| 2 * (field.len() + 32)).sum();
                t.memory_bytes() + fields
            }
        }
    }
}

/// Moves a field to its place in the order of time: in front of the first that does not expire earlier.
fn set_packed_time(lp: &mut Dense, field: &[u8], at: Option<UnixMs>) {
    let Some(pos) = find_in(lp, field, 2) else { return };
    let Some(value_pos) = lp.next(pos) else { return };
    let value = lp.get(value_pos).to_vec();
    let old = lp.next(value_pos).and_then(|pos| time_item(lp.get(pos)));
    if old == at {
        return;
    }
    lp.remove(pos, 3);
    let Some(at) = at else {
        lp.push_back_two(field, &value);
        lp.push_back_int(0);
        return;
    };
    let before = triples(lp).take_while(|(_, _, time)| time.is_some_and(|time| time < at)).count();
    let pos = lp.seek(3 * before).unwrap_or_else(|| lp.end());
    lp.insert(pos, itoa::Buffer::new().format(at).as_bytes());
    lp.insert_two(pos, field, &value);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::value::Hash;

    #[test]
    fn both_encodings_behave_as_a_map_with_times() {
        let limits = Limits { hash_max_listpack_entries: 20, ..Limits::default() };
        for fields in [10, 300] {
            let mut rng = Rng::new(fields);
            let mut h = Hash::new();
            let mut model: BTreeMap<Vec<u8>, (Vec<u8>, Option<UnixMs>)> = BTreeMap::new();
            for round in 0..4000_i64 {
                let field = rng.below(fields).to_string().into_bytes();
                let at = round + rng.below(500) as i64;
                match rng.below(6) {
                    0 | 1 => {
                        let value = at.to_string().into_bytes();
                        assert_eq!(
                            h.set(&field, &value, &limits),
                            model.insert(field, (value, None)).is_none()
                        );
                    }
                    2 => assert_eq!(h.remove(&field), model.remove(&field).is_some()),
                    3 => {
                        h.set_time(&field, Some(at), &limits);
                        if let Some((_, time)) = model.get_mut(&field) {
                            *time = Some(at);
                        }
                    }
                    4 => {
                        h.set_time(&field, None, &limits);
                        if let Some((_, time)) = model.get_mut(&field) {
                            *time = None;
                        }
                    }
                    _ => {
                        let mut due = h.take_due(round, usize::MAX);
                        due.sort();
                        let gone = |(_, (_, at)): &(_, &(_, Option<i64>))| at.is_some_and(|at| at < round);
                        let want: Vec<Vec<u8>> = model.iter().filter(gone).map(|(f, _)| f.clone()).collect();
                        assert_eq!(due, want);
                        model.retain(|_, (_, at)| at.is_none_or(|at| at >= round));
                    }
                }
                assert_eq!(h.len(), model.len());
                assert_eq!(h.next_time(), model.values().filter_map(|(_, at)| *at).min());
            }
            let all: BTreeMap<_, _> =
                h.iter_timed().map(|(f, v, at)| (f.to_vec(), (v.to_vec(), at))).collect();
            assert_eq!(all, model);
        }
    }
}
