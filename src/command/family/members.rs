//! Members of sets by what they say, however their set keeps them, and an index of some of them.

use hashbrown::HashSet;
use smallvec::SmallVec;

use crate::encoding::Item;
use crate::encoding::item::IntText;
use crate::value;
use crate::value::set::Packed;

/// A member by what it says: text that spells an integer is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Member<'a> {
    /// An integer in canonical form.
    Int(i64),
    /// Any other text.
    Text(&'a [u8]),
}

/// A set of members.
pub type Members<'a> = HashSet<Member<'a>, foldhash::quality::RandomState>;

impl<'a> Member<'a> {
    /// What an element of a set says.
    pub fn of(item: Item<'a>) -> Self {
        match item {
            Item::Int(n) => Self::Int(n),
            Item::Bytes(text) => item.as_int().map_or(Self::Text(text), Self::Int),
        }
    }

    /// Cheap, and weak: who makes members collide makes a small index slow, no more.
    fn place(self) -> usize {
        let word = match self {
            Self::Int(n) => n as u64,
            Self::Text(text) => {
                let ends = (text.first_chunk::<8>(), text.last_chunk::<8>());
                let (head, tail) = match ends {
                    (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
                    _ => (text.iter().fold(0, |word, b| word << 8 | u64::from(*b)), 0),
                };
                head ^ tail.rotate_left(29) ^ text.len() as u64
            }
        };
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize
    }
}

const PLACES: usize = 512;
/// Members of a small index at most: their numbers, counted from 1, fit a byte, and most places are free.
const FEW: usize = 200;

/// A few members, found by open addressing.
pub struct Few<'a> {
    members: SmallVec<[Member<'a>; 128]>,
    /// The number of a member, 0: none.
    places: [u8; PLACES],
}

impl<'a> Few<'a> {
    /// At most [`FEW`].
    fn of(members: impl Iterator<Item = Member<'a>>) -> Self {
        let mut few = Self { members: SmallVec::new(), places: [0; PLACES] };
        // The iterator of a set goes through it much faster by itself than step by step.
        members.for_each(|member| {
            few.members.push(member);
            let mut at = member.place();
            while few.places[at] != 0 {
                at = (at + 1) % PLACES;
            }
            few.places[at] = few.members.len() as u8;
        });
        few
    }

    fn has(&self, member: Member<'_>) -> bool {
        let mut at = member.place();
        loop {
            match self.places[at] {
                0 => return false,
                number if self.members[usize::from(number) - 1] == member => return true,
                _ => at = (at + 1) % PLACES,
            }
        }
    }
}

/// A set that is asked for members of another one.
#[expect(clippy::large_enum_variant, reason = "lives on the stack of one command")]
pub enum Asked<'a> {
    /// Finds its members by itself.
    Itself(&'a value::Set),
    /// A listpack is searched from end to end each time: an index pays from a few questions on.
    Few(Few<'a>),
    /// The same, of many members.
    Many(Members<'a>),
}

impl<'a> Asked<'a> {
    /// `questions`: how many members it may be asked for.
    pub fn of(set: &'a value::Set, questions: usize) -> Self {
        match set.packed() {
            Some(Packed::Listpack(_)) if questions > 4 && set.len() > 4 => {
                let members = set.iter().map(Member::of);
                if set.len() <= FEW { Self::Few(Few::of(members)) } else { Self::Many(members.collect()) }
            }
            _ => Self::Itself(set),
        }
    }

    /// Whether it has a member.
    pub fn has(&self, member: Item<'_>) -> bool {
        match self {
            Self::Itself(set) => set.contains(member.text(&mut IntText::new())),
            Self::Few(few) => few.has(Member::of(member)),
            Self::Many(members) => members.contains(&Member::of(member)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Limits, Set};

    #[test]
    fn each_kind_of_index_has_what_the_set_has() {
        let limits = Limits { set_max_listpack_entries: 1000, ..Limits::default() };
        for len in [3, 100, FEW, FEW + 1, 900] {
            let mut set = Set::new();
            // Integers, text that differs in its middle or its length alone, and short text.
            let member = |n: usize| match n % 4 {
                0 => format!("{}", n as i64 - 50),
                1 => format!("a-long-head-{n:04}-and-a-long-tail"),
                2 if n < 64 => "x".repeat(n),
                _ => format!("{n}_"),
            };
            for n in 0..len {
                set.add(member(n).as_bytes(), &limits);
            }
            assert_eq!((set.len(), set.encoding_name()), (len, "listpack"));
            let asked = Asked::of(&set, 100);
            match &asked {
                Asked::Itself(_) => assert_eq!(len, 3),
                Asked::Few(_) => assert!(len <= FEW),
                Asked::Many(_) => assert!(len > FEW),
            }
            for n in 0..2 * len {
                let text = member(n);
                assert_eq!(
                    asked.has(Item::Bytes(text.as_bytes())),
                    set.contains(text.as_bytes()),
                    "{len} {text}"
                );
            }
        }
    }
}
