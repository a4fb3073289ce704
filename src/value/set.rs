//! Set values: an intset, a listpack, or a hash table.

use super::Limits;
use super::distinct::distinct;
use super::form::form;
use super::record::{Record, Shape};
use super::table::{Search, Stage, Table};
use crate::base::num::parse_i64;
use crate::base::rng::Rng;
use crate::encoding::item::IntText;
use crate::encoding::{Dense, IntSet, Item};

/// A set of byte strings.
#[derive(Clone, Default)]
#[repr(transparent)]
pub struct Set(Form);

form! { 1: Table(Table<Member>), 2: Ints(IntSet) }

impl Default for Form {
    fn default() -> Self {
        Owned::Ints(Box::default()).into()
    }
}

/// A record is the member alone.
struct Member;

impl Shape for Member {
    const HEAD: usize = 0;
    const TAIL: bool = false;
}

/// The bytes behind a set, for writers that can copy them.
#[derive(Clone, Copy, Debug)]
pub enum Packed<'a> {
    /// Sorted integers.
    IntSet(&'a IntSet),
    /// Members one after the other, in no useful order.
    Listpack(&'a Dense),
}

impl Set {
    /// A set without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set from a checked intset, converted if it is beyond the limits.
    pub fn from_intset(ints: IntSet, limits: &Limits) -> Self {
        let beyond = ints.len() > limits.set_max_intset_entries;
        let mut set = Self(Owned::Ints(Box::new(ints)).into());
        if beyond {
            set.make_table(0, limits);
        }
        set
    }

    /// A set from a listpack of members, converted if it is beyond the limits; `None` if a member
    /// occurs twice.
    pub fn from_listpack(members: Dense, limits: &Limits) -> Option<Self> {
        if !distinct(members.iter()) {
            return None;
        }
        let n = members.len();
        let longest = members.iter().map(|m| m.len()).max().unwrap_or(0);
        let mut set = Self(Owned::Packed(members).into());
        if n > limits.set_max_listpack_entries || longest > limits.set_max_listpack_value {
            set.make_table(0, limits);
        }
        Some(set)
    }

    /// An empty set in the encoding that suits `members` members, to be filled without conversions.
    pub fn with_capacity(members: usize, limits: &Limits) -> Self {
        let mut set = Self::new();
        if members > limits.set_max_intset_entries.max(limits.set_max_listpack_entries) {
            set.make_table(members, limits);
        }
        set
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0.view() {
            View::Ints(ints) => ints.len(),
            View::Packed(lp) => lp.len(),
            View::Table(t) => t.len(),
        }
    }

    /// Whether there is no member.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a member; false if it was there.
    #[inline]
    pub fn add(&mut self, member: &[u8], limits: &Limits) -> bool {
        match self.0.view_mut() {
            ViewMut::Table(t) => add_record(t, member),
            ViewMut::Packed(lp) => {
                if find(lp, member).is_some() {
                    return false;
                }
                if lp.len() < limits.set_max_listpack_entries
                    && member.len() <= limits.set_max_listpack_value
                    && lp.has_room(member.len())
                {
                    lp.push_back(member);
                    return true;
                }
                self.make_table(0, limits);
                self.add(member, limits)
            }
            ViewMut::Ints(_) => self.add_to_ints(member, limits),
        }
    }

    fn add_to_ints(&mut self, member: &[u8], limits: &Limits) -> bool {
        let ViewMut::Ints(ints) = self.0.view_mut() else { unreachable!("the caller looked") };
        if let Some(n) = parse_i64(member)
            // The first member decides; an empty set that may hold no integers is no intset.
            && (!ints.is_empty() || limits.set_max_intset_entries > 0)
        {
            let added = ints.insert(n);
            if ints.len() > limits.set_max_intset_entries {
                self.make_table(0, limits);
            }
            return added;
        }
        let longest = [ints.iter().next(), ints.iter().next_back()];
        let longest = longest.into_iter().flatten().map(|n| Item::Int(n).len()).max().unwrap_or(0);
        if ints.len() < limits.set_max_listpack_entries
            && longest.max(member.len()) <= limits.set_max_listpack_value
        {
            let mut lp = Dense::new();
            ints.iter().for_each(|n| lp.push_back_int(n));
            lp.push_back(member);
            self.0 = Owned::Packed(lp).into();
            return true;
        }
        self.make_table(0, limits);
        self.add(member, limits)
    }

    /// Converts to a hash table with room for at least `members`.
    fn make_table(&mut self, members: usize, limits: &Limits) {
        let mut table = Box::new(Table::new(limits.hash_seed));
        table.reserve(members.max(self.len() + 1));
        let mut buf = IntText::new();
        for member in self.iter() {
            add_record(&mut table, member.text(&mut buf));
        }
        self.0 = Owned::Table(table).into();
    }

    /// Shows the lengths of the chains of the hash table; false if there is none.
    pub fn for_each_chain(&self, f: &mut impl FnMut(usize)) -> bool {
        let View::Table(table) = self.0.view() else { return false };
        table.for_each_chain(f);
        true
    }

    /// Removes a member; false if it was not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self.0.view_mut() {
            ViewMut::Ints(ints) => parse_i64(member).is_some_and(|n| ints.remove(n)),
            ViewMut::Packed(lp) => find(lp, member).map(|pos| lp.remove(pos, 1)).is_some(),
            ViewMut::Table(t) => t.find(member).map(|place| t.remove(place)).is_some(),
        }
    }

    /// Whether `member` is in the set.
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match self.0.view() {
            View::Ints(ints) => parse_i64(member).is_some_and(|n| ints.contains(n)),
            View::Packed(lp) => find(lp, member).is_some(),
            View::Table(t) => t.get(member).is_some(),
        }
    }

    /// Begins to fetch the memory that an operation on `member` will touch, if the set is large; false if
    /// it is not. Waits for nothing; the second stage finds more to fetch once the first has arrived.
    #[inline]
    pub fn prefetch(&self, member: &[u8], stage: Stage) -> bool {
        let View::Table(t) = self.0.view() else { return false };
        t.prefetch(member, stage);
        true
    }

    /// Members in no particular order, the same while the set does not change.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> + Clone + '_ {
        let (ints, packed, table) = match self.0.view() {
            View::Ints(ints) => (Some(ints.iter()), None, None),
            View::Packed(lp) => (None, Some(lp.iter()), None),
            View::Table(t) => (None, None, Some(t.iter())),
        };
        let ints = ints.into_iter().flatten().map(Item::Int);
        let table = table.into_iter().flatten().map(|r| Item::Bytes(r.key()));
        ints.chain(packed.into_iter().flatten()).chain(table)
    }

    /// Shows some members, from the beginning where `at` is 0; returns where to go on, `None` at the end. Each is
    /// shown once, in the order of [`Set::iter`], if the set does not change between the steps.
    pub fn step(&self, at: usize, mut f: impl FnMut(Item<'_>)) -> Option<usize> {
        match self.0.view() {
            View::Table(t) => t.step(at, |r| f(Item::Bytes(r.key()))),
            _ => {
                self.iter().for_each(f);
                None
            }
        }
    }

    /// A member, each with the same probability.
    pub fn random(&self, rng: &mut Rng) -> Option<Item<'_>> {
        if self.is_empty() {
            return None;
        }
        let mut index = || rng.below(self.len() as u64) as usize;
        Some(match self.0.view() {
            View::Ints(ints) => Item::Int(ints.get(index())),
            View::Packed(lp) => lp.get(lp.seek(index())?),
            View::Table(t) => Item::Bytes(t.at(t.random(rng)?).key()),
        })
    }

    /// Removes a random member after showing it to `f`.
    pub fn pop_with<R>(&mut self, rng: &mut Rng, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let mut index = |n: usize| rng.below(n as u64) as usize;
        match self.0.view_mut() {
            ViewMut::Ints(ints) => {
                let n = ints.get(index(ints.len()));
                ints.remove(n);
                Some(f(Item::Int(n)))
            }
            ViewMut::Packed(lp) => {
                let pos = lp.seek(index(lp.len()))?;
                let result = f(lp.get(pos));
                lp.remove(pos, 1);
                Some(result)
            }
            ViewMut::Table(t) => {
                let place = t.random(rng)?;
                let record = t.remove(place);
                Some(f(Item::Bytes(record.key())))
            }
        }
    }

    /// One step of a scan: shows about `count` members and returns the cursor to go on with, 0 at the end.
    /// A member present from the first to the last step is shown at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(Item<'_>)) -> u64 {
        match self.0.view() {
            View::Table(t) => t.scan(cursor, count, |r| f(Item::Bytes(r.key()))),
            _ => {
                self.iter().for_each(f);
                0
            }
        }
    }

    /// The compact bytes, if the set is in a compact encoding.
    pub fn packed(&self) -> Option<Packed<'_>> {
        match self.0.view() {
            View::Ints(ints) => Some(Packed::IntSet(ints)),
            View::Packed(lp) => Some(Packed::Listpack(lp)),
            View::Table(_) => None,
        }
    }

    /// As OBJECT ENCODING shows it.
    pub fn encoding_name(&self) -> &'static str {
        match self.0.view() {
            View::Ints(_) => "intset",
            View::Packed(_) => "listpack",
            View::Table(_) => "hashtable",
        }
    }

    /// Heap bytes of the value, an estimate.
    pub fn memory_bytes(&self) -> usize {
        match self.0.view() {
            View::Ints(ints) => ints.memory_bytes(),
            View::Packed(lp) => lp.memory_bytes(),
            View::Table(t) => t.memory_bytes(),
        }
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

fn find(lp: &Dense, member: &[u8]) -> Option<usize> {
    lp.find(lp.first()?, member, 0)
}

/// Adds a member; false if it was there.
#[inline]
fn add_record(table: &mut Table<Member>, member: &[u8]) -> bool {
    let hash = table.hash(member);
    match table.search(hash, member) {
        Search::Found(_) => false,
        Search::Missing(vacancy) => {
            table.insert(vacancy, Record::new(hash, b"", member, b""));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn encodings_follow_the_limits() {
        let limits = Limits::default();
        let mut s = Set::new();
        for n in 0..512 {
            assert!(s.add(n.to_string().as_bytes(), &limits));
        }
        assert_eq!(s.encoding_name(), "intset");
        let mut wide = s.clone();
        assert!(wide.add(b"512", &limits));
        assert_eq!(wide.encoding_name(), "hashtable");
        assert!(s.add(b"x", &limits));
        assert_eq!(s.encoding_name(), "hashtable", "513 members are too many for a listpack");

        let mut s = Set::new();
        s.add(b"1", &limits);
        s.add(b"x", &limits);
        assert_eq!(s.encoding_name(), "listpack");
        for n in 0..126 {
            assert!(s.add(format!("m{n}").as_bytes(), &limits));
        }
        assert_eq!((s.encoding_name(), s.len()), ("listpack", 128));
        assert!(!s.add(b"1", &limits) && s.add(b"2", &limits));
        assert_eq!((s.encoding_name(), s.len()), ("hashtable", 129));
        assert!(s.contains(b"1") && s.contains(b"m77") && !s.contains(b"m126"));

        let mut s = Set::new();
        s.add(&[b'x'; 65], &limits);
        assert_eq!(s.encoding_name(), "hashtable");

        // Together they outgrow a listpack, whatever is configured.
        let limits = Limits { set_max_listpack_value: usize::MAX, ..limits };
        let mut s = Set::new();
        for (letter, encoding) in [(b'a', "listpack"), (b'b', "hashtable")] {
            assert!(s.add(&vec![letter; 600 << 10], &limits));
            assert_eq!(s.encoding_name(), encoding);
        }
    }

    #[test]
    fn every_encoding_behaves_as_a_set() {
        let small = Limits { set_max_listpack_entries: 20, set_max_intset_entries: 20, ..Limits::default() };
        for (seed, members) in [(1, 10u64), (2, 19), (3, 60), (4, 400)] {
            for letters in [false, true] {
                let mut rng = Rng::new(seed);
                let (mut s, mut model) = (Set::new(), BTreeSet::new());
                for _ in 0..3000 {
                    let n = rng.below(members);
                    let member = if letters && n.is_multiple_of(2) {
                        format!("m{n}")
                    } else {
                        (n * n * n * n).to_string()
                    };
                    let member = member.into_bytes();
                    match rng.below(5) {
                        0 | 1 => assert_eq!(s.add(&member, &small), model.insert(member)),
                        2 => assert_eq!(s.remove(&member), model.remove(&member)),
                        3 => assert_eq!(s.contains(&member), model.contains(&member)),
                        _ if rng.chance(1, 10) => {
                            let popped = s.pop_with(&mut rng, |m| m.to_vec());
                            assert_eq!(popped.is_some(), !model.is_empty());
                            popped.inspect(|m| assert!(model.remove(m)));
                        }
                        _ => assert!(s.random(&mut rng).is_none_or(|m| model.contains(&m.to_vec()))),
                    }
                    assert_eq!(s.len(), model.len());
                }
                assert_eq!(s.iter().map(|m| m.to_vec()).collect::<BTreeSet<_>>(), model);
                let mut seen = BTreeSet::new();
                s.scan(0, usize::MAX, |m| assert!(seen.insert(m.to_vec())));
                assert_eq!(seen, model);
            }
        }
    }

    #[test]
    fn a_member_twice_in_a_file_is_refused() {
        let mut lp = Dense::new();
        for m in ["a", "b", "3"] {
            lp.push_back(m.as_bytes());
        }
        assert_eq!(Set::from_listpack(lp.clone(), &Limits::default()).unwrap().encoding_name(), "listpack");
        lp.push_back(b"b");
        assert!(Set::from_listpack(lp, &Limits::default()).is_none());
    }
}
