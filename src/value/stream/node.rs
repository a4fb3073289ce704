//! One block of a stream: a listpack that begins with a master entry and goes on with entries.
//!
//! ```text
//! master:  live-count deleted-count n field1..fieldn 0
//! entry:   flags ms-delta seq-delta            value1..valuen        elements   (same fields as the master)
//! entry:   flags ms-delta seq-delta n field1 value1..fieldn valuen   elements
//! ```
//!
//! Deltas count from the id under which the stream keeps the node; `elements` is the number of listpack
//! elements of the entry before it, so that one can walk backwards. Source: the description of the stream
//! listpack format in the Redis documentation and in RDB files.

use smallvec::SmallVec;

use super::StreamId;
use crate::encoding::entry::Encoded;
use crate::encoding::listpack::Iter;
use crate::encoding::{Item, Listpack};
use crate::value::Limits;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// No node grows beyond this, whatever the limits say.
const MAX_BYTES: usize = 1 << 30;

/// An entry as a reader sees it.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The id of the entry.
    pub id: StreamId,
    /// What XADD put into it.
    pub fields: Fields<'a>,
}

/// Fields with their values, in the order of XADD.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The master's field names where the entry shares them, otherwise they stand before each value.
    names: Option<Iter<'a>>,
    rest: Iter<'a>,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Item<'a>, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = match &mut self.names {
            Some(names) => names.next(),
            None => self.rest.next(),
        };
        Some((name?, self.rest.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// A node with a master entry of these fields, still without entries.
pub fn new<T: AsRef<[u8]>>(fields: &[T]) -> Listpack {
    let mut lp = Listpack::new();
    lp.push_back_int(0);
    lp.push_back_int(0);
    lp.push_back_int(fields.len() as i64 / 2);
    fields.iter().step_by(2).for_each(|f| lp.push_back(f.as_ref()));
    lp.push_back_int(0);
    lp
}

/// Whether the limits let the node take one more entry, with `added` bytes of fields and values.
pub fn has_room(lp: &Listpack, added: usize, limits: &Limits) -> bool {
    let most = match limits.stream_node_max_bytes {
        0 => MAX_BYTES,
        n => n.min(MAX_BYTES),
    };
    let mut head = lp.iter();
    let entries = int(head.next()).saturating_add(int(head.next())) as u64;
    lp.as_bytes().len() + added < most
        && (limits.stream_node_max_entries == 0 || entries < limits.stream_node_max_entries)
}

/// Appends an entry, whose id is greater than those in the node.
pub fn append<T: AsRef<[u8]>>(lp: &mut Listpack, first: StreamId, id: StreamId, fields: &[T]) {
    let master = Master::of(lp);
    let same = master.names.clone().count() * 2 == fields.len()
        && master.names.zip(fields.iter().step_by(2)).all(|(name, f)| name.is(f.as_ref()));
    let live = master.live;
    let n = fields.len() as i64 / 2;
    let mut entry: SmallVec<[Encoded<'_>; 12]> = SmallVec::new();
    entry.push(Encoded::int(if same { SAME_FIELDS } else { 0 }));
    entry.push(Encoded::int(id.ms.wrapping_sub(first.ms) as i64));
    entry.push(Encoded::int(id.seq.wrapping_sub(first.seq) as i64));
    if same {
        entry.extend(fields.iter().skip(1).step_by(2).map(|v| Encoded::text(v.as_ref())));
        entry.push(Encoded::int(n + 3));
    } else {
        entry.push(Encoded::int(n));
        entry.extend(fields.iter().map(|f| Encoded::text(f.as_ref())));
        entry.push(Encoded::int(2 * n + 4));
    }
    lp.push_back_all(&entry);
    set_count(lp, 0, live + 1);
}

/// What [`delete`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    NotFound,
    One,
    /// It was the only entry left; the node, unchanged, is to be dropped.
    Last,
}

/// Marks an entry as deleted.
pub fn delete(lp: &mut Listpack, first: StreamId, id: StreamId) -> Deleted {
    let mut entries = entries(lp, first);
    let Some(found) = entries.find_raw(id) else { return Deleted::NotFound };
    let master = Master::of(lp);
    let (live, dead) = (master.live, master.dead);
    if live == 1 {
        return Deleted::Last;
    }
    let pos = lp.end() - found.to_end;
    let flags = int(Some(lp.get(pos))) | DELETED;
    lp.replace_int(pos, flags);
    set_count(lp, 0, live - 1);
    set_count(lp, 1, dead + 1);
    Deleted::One
}

/// Number of live entries.
pub fn live(lp: &Listpack) -> u64 {
    int(lp.iter().next()) as u64
}

/// The id of the last entry, deleted ones included.
pub fn last_id(lp: &Listpack, first: StreamId) -> StreamId {
    entries(lp, first).raw_back().map_or(first, |raw| raw.id)
}

fn set_count(lp: &mut Listpack, index: usize, n: i64) {
    let pos = lp.seek(index).expect("a node begins with its counts");
    lp.replace_int(pos, n);
}

/// An integer of a checked node.
fn int(item: Option<Item<'_>>) -> i64 {
    item.and_then(|i| i.as_int()).expect("nodes are checked when they arrive")
}

/// The master entry.
struct Master<'a> {
    live: i64,
    dead: i64,
    names: std::iter::Take<Iter<'a>>,
    entries: Iter<'a>,
}

impl<'a> Master<'a> {
    fn of(lp: &'a Listpack) -> Self {
        let mut at = lp.iter();
        let (live, dead, n) = (int(at.next()), int(at.next()), int(at.next()) as usize);
        let names = at.clone().take(n);
        at.nth(n);
        Self { live, dead, names, entries: at }
    }
}

/// The live entries of a node, from both ends.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    first: StreamId,
    names: Iter<'a>,
    field_count: usize,
    rest: Iter<'a>,
}

/// An entry before it is known to be live.
struct Raw<'a> {
    flags: i64,
    id: StreamId,
    fields: Fields<'a>,
    /// Bytes from its first element to the end mark.
    to_end: usize,
}

pub fn entries(lp: &Listpack, first: StreamId) -> Entries<'_> {
    let master = Master::of(lp);
    let mut names = lp.iter();
    let field_count = int(names.nth(2)) as usize;
    Entries { first, names, field_count, rest: master.entries }
}

impl<'a> Entries<'a> {
    /// Reads the entry that `at` begins with, leaving `at` after it.
    fn read(&self, at: &mut Iter<'a>) -> Option<Raw<'a>> {
        let to_end = at.bytes_left();
        let flags = int(Some(at.next()?));
        let ms = self.first.ms.wrapping_add(int(at.next()) as u64);
        let seq = self.first.seq.wrapping_add(int(at.next()) as u64);
        let (names, left) = if flags & SAME_FIELDS != 0 {
            (Some(self.names.clone()), self.field_count)
        } else {
            (None, int(at.next()) as usize)
        };
        let fields = Fields { names, rest: at.clone(), left };
        let values = if flags & SAME_FIELDS != 0 { left } else { 2 * left };
        at.nth(values); // The values and the element count.
        Some(Raw { flags, id: StreamId { ms, seq }, fields, to_end })
    }

    fn raw(&mut self) -> Option<Raw<'a>> {
        let mut at = self.rest.clone();
        let raw = self.read(&mut at);
        self.rest = at;
        raw
    }

    fn raw_back(&mut self) -> Option<Raw<'a>> {
        let whole = self.rest.clone();
        let elements = int(Some(self.rest.next_back()?)) as usize;
        if elements > 0 {
            self.rest.nth_back(elements - 1);
        }
        let mut at = whole.after(&self.rest);
        let after = at.bytes_left();
        self.read(&mut at).map(|raw| Raw { to_end: after, ..raw })
    }

    fn find_raw(&mut self, id: StreamId) -> Option<Raw<'a>> {
        while let Some(raw) = self.raw() {
            if raw.id == id && raw.flags & DELETED == 0 {
                return Some(raw);
            }
        }
        None
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let raw = self.raw()?;
            if raw.flags & DELETED == 0 {
                return Some(Entry { id: raw.id, fields: raw.fields });
            }
        }
    }
}

impl DoubleEndedIterator for Entries<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let raw = self.raw_back()?;
            if raw.flags & DELETED == 0 {
                return Some(Entry { id: raw.id, fields: raw.fields });
            }
        }
    }
}

/// What [`check`] learns about a node.
pub struct Checked {
    pub live: u64,
    /// The first entry, deleted or not.
    pub first_id: StreamId,
}

/// Checks the structure of a node from outside; the listpack itself is well-formed.
pub fn check(lp: &Listpack, first: StreamId) -> Option<Checked> {
    let mut at = lp.iter();
    let next = |at: &mut Iter<'_>| at.next()?.as_int();
    let (live, dead, n) = (next(&mut at)?, next(&mut at)?, usize::try_from(next(&mut at)?).ok()?);
    let skip = |at: &mut Iter<'_>, n: usize| (0..n).all(|_| at.next().is_some()).then_some(());
    skip(&mut at, n)?;
    if next(&mut at)? != 0 {
        return None;
    }
    let (mut seen_live, mut seen_dead, mut last, mut first_id) = (0, 0, None, None);
    while let Some(flags) = at.next() {
        let flags = flags.as_int()?;
        let (ms, seq) = (next(&mut at)?, next(&mut at)?);
        let id = StreamId { ms: first.ms.wrapping_add(ms as u64), seq: first.seq.wrapping_add(seq as u64) };
        if id < first || last.is_some_and(|last| id <= last) {
            return None;
        }
        last = Some(id);
        first_id = first_id.or(last);
        let elements = if flags & SAME_FIELDS != 0 {
            skip(&mut at, n)?;
            n.checked_add(3)?
        } else {
            let n = usize::try_from(next(&mut at)?).ok()?;
            let elements = n.checked_mul(2)?;
            skip(&mut at, elements)?;
            elements.checked_add(4)?
        };
        if next(&mut at)? != i64::try_from(elements).ok()? {
            return None;
        }
        if flags & DELETED != 0 { seen_dead += 1 } else { seen_live += 1 }
    }
    (live == seen_live && dead == seen_dead)
        .then(|| Checked { live: live as u64, first_id: first_id.unwrap_or(first) })
}
