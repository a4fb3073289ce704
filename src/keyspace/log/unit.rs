//! Units: what the log is cut into. A unit is a command, or MULTI to EXEC, with the SELECT that it needs in
//! front; it is read whole or not at all by whoever keeps data.

use smallvec::SmallVec;

/// Whom a unit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// It changes data, or selects the database of what follows.
    Data,
    /// It belongs on a link to a replica and nowhere else (PING, REPLCONF GETACK): no file may hold it.
    LinkOnly,
    /// It changes data, and files hold something else in its place (`redis.set_repl`).
    Split,
}

/// What is known of a unit without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitInfo {
    /// Who may read it.
    pub kind: UnitKind,
    /// The slot of all keys that it changes; `None` when there are none, or several slots.
    pub slot: Option<u16>,
}

impl UnitInfo {
    /// A record for links to replicas, which no file holds.
    pub const LINK_ONLY: Self = Self { kind: UnitKind::LinkOnly, slot: None };

    /// A change of data; `slot` as in the field.
    pub const fn data(slot: Option<u16>) -> Self {
        Self { kind: UnitKind::Data, slot }
    }

    /// A change of data that files are told otherwise; `slot` as in the field.
    pub const fn split(slot: Option<u16>) -> Self {
        Self { kind: UnitKind::Split, slot }
    }
}

/// Slots are below 16,384, so that two bits above them are free.
const NO_SLOT: u16 = 0x4000;
/// In front of a slot, or of none.
const SPLIT: u16 = 0x8000;
/// With other bits where there is no slot.
const LINK_ONLY: u16 = 0x1000 | NO_SLOT;
/// The entry goes on in the next one: a unit may be longer than a length says.
const GOES_ON: u16 = 0x2000 | NO_SLOT;

/// The entry of one unit: six bytes, because small commands are not much longer.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(2))]
struct Entry {
    len: u32,
    tag: u16,
}

const _: () = assert!(size_of::<Entry>() == 6);

/// The units of one block, in their order.
#[derive(Debug, Default)]
pub(super) struct Units(SmallVec<[Entry; 4]>);

impl Units {
    #[inline]
    pub(super) fn push(&mut self, info: UnitInfo, mut len: u64) {
        while len > u64::from(u32::MAX) {
            self.0.push(Entry { len: u32::MAX, tag: GOES_ON });
            len -= u64::from(u32::MAX);
        }
        let tag = match info.kind {
            UnitKind::LinkOnly => LINK_ONLY,
            UnitKind::Data => info.slot.unwrap_or(NO_SLOT),
            UnitKind::Split => SPLIT | info.slot.unwrap_or(NO_SLOT),
        };
        self.0.push(Entry { len: len as u32, tag });
    }

    /// Each unit's length in bytes and what is known of it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, UnitInfo)> + '_ {
        let mut entries = self.0.iter();
        std::iter::from_fn(move || {
            let mut len = 0;
            loop {
                let entry = *entries.next()?;
                len += u64::from(entry.len);
                match entry.tag {
                    GOES_ON => {}
                    LINK_ONLY => return Some((len, UnitInfo::LINK_ONLY)),
                    tag if tag & SPLIT != 0 => return Some((len, UnitInfo::split(slot_of(tag & !SPLIT)))),
                    tag => return Some((len, UnitInfo::data(slot_of(tag)))),
                }
            }
        })
    }
}

fn slot_of(tag: u16) -> Option<u16> {
    (tag != NO_SLOT).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_kind_slot_and_any_length() {
        let long = 3 * u64::from(u32::MAX) + 17;
        let units = [
            (1, UnitInfo::data(Some(0))),
            (long, UnitInfo::data(Some(16383))),
            (u64::from(u32::MAX), UnitInfo::data(None)),
            (14, UnitInfo::LINK_ONLY),
            (3, UnitInfo::split(None)),
            (long, UnitInfo::split(Some(16383))),
            (1, UnitInfo::split(Some(0))),
        ];
        let mut index = Units::default();
        for (len, info) in units {
            index.push(info, len);
        }
        assert_eq!(index.iter().collect::<Vec<_>>(), units);
    }
}
