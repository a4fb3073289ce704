//! The command table: from a name to its declaration, under the names that the configuration gives.

use std::cell::Cell;
use std::collections::HashMap;

use super::family::FAMILIES;
use super::gate;
use super::spec::{Command, Mode};
use crate::acl::Catalog;
use crate::acl::category::Categories;

/// Rows of one family after the other.
pub type Families = [&'static [Command]];

/// A command under the name it goes by.
#[derive(Debug)]
pub struct CommandEntry {
    /// Lower case; a subcommand is `container|name`.
    pub name: String,
    /// The name before `rename-command`, by which users' rights speak of it.
    pub original: String,
    /// `rename-command` has taken its name away: nobody can call it.
    pub removed: bool,
    /// The row that declares it.
    pub command: &'static Command,
    /// Conditions under which the command must be looked at before it runs (see [`super::gate`]).
    pub needs: u32,
    /// Words of a call, at least and at most; none fits a container, which is called by its subcommands.
    words: (usize, usize),
    /// Where its key stands, if there is exactly one.
    pub single_key: Option<usize>,
    /// It needs the shards of its keys and no others.
    pub keeps_to_keys: bool,
    /// Its calls take about the same short time each.
    pub brief: bool,
    /// It runs scripts, or might, or is about them.
    pub scripted: bool,
    /// Ids of the subcommands, in the order of the declaration.
    pub subcommands: Vec<usize>,
}

impl CommandEntry {
    fn new(command: &'static Command, name: String, original: String, subcommands: Vec<usize>) -> Self {
        let words = if subcommands.is_empty() { command.words() } else { (usize::MAX, 0) };
        Self {
            removed: name.is_empty() || name.starts_with('|'),
            name,
            original,
            command,
            needs: gate::needs(command),
            words,
            single_key: command.single_key(),
            keeps_to_keys: command.keeps_to_keys(),
            brief: command.is_brief(),
            scripted: command.is_scripted(),
            subcommands,
        }
    }

    /// Whether a call of so many words, the name included, is complete and needs no look-up of a subcommand.
    #[inline(always)]
    pub fn fits(&self, words: usize) -> bool {
        self.words.0 <= words && words <= self.words.1
    }
}

/// The command that was called last, for the next look-up: pipelines call one command many times in a row.
#[derive(Debug, Default)]
pub struct Recent(Cell<(Spelling, usize)>);

/// Index of commands by name, without case.
#[derive(Debug)]
pub struct CommandTable {
    entries: Vec<CommandEntry>,
    /// Ids by the names before `rename-command`.
    originals: HashMap<&'static str, usize>,
    /// Open addressing over [`Spelling`]s.
    places: Box<[Place]>,
}

/// One place of the index. A spelling of length 0 is an empty place.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    spelling: Spelling,
    id: u16,
}

/// What a look-up compares first: the first eight bytes of a name, and its length.
/// Of names up to eight bytes that is everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spelling {
    word: u64,
    len: usize,
}

impl Spelling {
    #[inline(always)]
    fn of(name: &[u8]) -> Self {
        let len = name.len();
        let word = if let Some(first) = name.first_chunk::<8>() {
            u64::from_le_bytes(*first)
        } else if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4))
        } else {
            name.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b))
        };
        Self { word, len }
    }

    #[inline(always)]
    fn in_lower_case(self) -> Self {
        Self { word: lower_case(self.word), len: self.len }
    }

    /// Where a look-up begins. Long names share their first bytes, so their length counts too.
    #[inline(always)]
    fn place(self) -> usize {
        ((self.word ^ (self.len as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
    }
}

/// Eight bytes of text in lower case: a byte from `A` to `Z` gets the bit that tells the cases apart.
#[inline(always)]
fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let seven_bits = word & (0x7f * ONES);
    let from_a = seven_bits + (0x80 - b'A' as u64) * ONES;
    let above_z = seven_bits + (0x7f - b'Z' as u64) * ONES;
    let upper = from_a & !above_z & !word & (0x80 * ONES);
    word | upper >> 2
}

const PLACES: usize = 1 << 10;

impl CommandTable {
    /// The commands of `families`, and of this level, that exist in `mode`; some renamed, or removed by an
    /// empty new name (`rename-command`).
    pub fn new(mode: Mode, families: &Families, renames: &[(String, String)]) -> Self {
        let mut table = Self {
            entries: Vec::new(),
            originals: HashMap::new(),
            places: vec![Place::default(); PLACES].into_boxed_slice(),
        };
        let rows = FAMILIES.iter().chain(families).flat_map(|family| family.iter());
        for command in rows.filter(|row| row.exists_in(mode)) {
            let renamed = renames.iter().rev().find(|(from, _)| from.eq_ignore_ascii_case(command.name));
            let name = renamed.map_or(command.name.to_owned(), |(_, to)| to.to_ascii_lowercase());
            if !name.is_empty() {
                table.index(&name);
            }
            table.add(mode, name, command);
        }
        table
    }

    /// The next command will be found by `name`.
    fn index(&mut self, name: &str) {
        let id = self.entries.len();
        let spelling = Spelling::of(name.as_bytes()).in_lower_case();
        let mut at = spelling.place();
        while self.places[at].spelling.len != 0 {
            at = (at + 1) % PLACES;
        }
        self.places[at] = Place { spelling, id: id as u16 };
    }

    /// One without a name is kept as well, so that users' rights can speak of it.
    fn add(&mut self, mode: Mode, name: String, command: &'static Command) {
        let id = self.entries.len();
        self.originals.insert(command.name, id);
        let subcommands: Vec<_> = command.subcommands.iter().filter(|sub| sub.exists_below(mode)).collect();
        let container = name.clone();
        let ids = (id + 1..=id + subcommands.len()).collect();
        self.entries.push(CommandEntry::new(command, name, command.name.to_owned(), ids));
        for sub in subcommands {
            let name = format!("{container}|{}", sub.name);
            let original = format!("{}|{}", command.name, sub.name);
            self.entries.push(CommandEntry::new(sub, name, original, Vec::new()));
        }
    }

    /// As [`find`](Self::find), at once if `name` is spelled as it was last time.
    #[inline(always)]
    pub fn find_again(&self, name: &[u8], recent: &Recent) -> Option<usize> {
        let spelling = Spelling::of(name);
        let (last, id) = recent.0.get();
        // Of a longer name a spelling is not everything, and one of length 0 is that of no name yet.
        if spelling == last && !name.is_empty() {
            return Some(id);
        }
        let id = self.find(name)?;
        if name.len() <= 8 {
            recent.0.set((spelling, id));
        }
        Some(id)
    }

    /// The id of the command called `name`.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let spelling = Spelling::of(name).in_lower_case();
        let mut at = spelling.place();
        loop {
            let place = &self.places[at];
            if place.spelling == spelling {
                let id = usize::from(place.id);
                if name.len() <= 8 || self.entries[id].name.as_bytes().eq_ignore_ascii_case(name) {
                    // The empty name is what every empty place holds.
                    return (!name.is_empty()).then_some(id);
                }
            } else if place.spelling.len == 0 {
                return None;
            }
            at = (at + 1) % PLACES;
        }
    }

    /// The id of a container's subcommand.
    pub fn find_sub(&self, container: usize, word: &[u8]) -> Option<usize> {
        let mut subs = self.entries[container].subcommands.iter().copied();
        subs.find(|&id| self.entries[id].command.name.as_bytes().eq_ignore_ascii_case(word))
    }

    /// The command of an id that [`find`](Self::find) or [`find_sub`](Self::find_sub) gave.
    #[inline]
    pub fn get(&self, id: usize) -> &CommandEntry {
        &self.entries[id]
    }

    /// Commands and subcommands: ids are below it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No commands at all; never so in a node.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Top-level commands that can be called, each with its id.
    pub fn commands(&self) -> impl Iterator<Item = (usize, &CommandEntry)> {
        self.entries.iter().enumerate().filter(|(_, entry)| !entry.name.contains('|') && !entry.removed)
    }
}

/// Users' rights speak of commands by their original names.
impl Catalog for CommandTable {
    fn count(&self) -> usize {
        self.entries.len()
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        self.originals.get(name.as_str()).copied()
    }

    fn find_sub(&self, container: usize, word: &[u8]) -> Option<usize> {
        CommandTable::find_sub(self, container, word)
    }

    fn subcommands(&self, id: usize) -> &[usize] {
        &self.entries[id].subcommands
    }

    fn name(&self, id: usize) -> &str {
        &self.entries[id].original
    }

    fn categories(&self, id: usize) -> Categories {
        self.entries[id].command.acl_categories()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        let table = CommandTable::new(
            Mode::Data,
            &[],
            &[("get".into(), "Fetch".into()), ("set".into(), String::new())],
        );
        for (id, entry) in table.commands() {
            assert_eq!(table.find(entry.name.to_uppercase().as_bytes()), Some(id));
        }
        assert!(table.find(b"get").is_none() && table.find(b"set").is_none());
        assert_eq!(table.get(table.find(b"FETCH").unwrap()).command.name, "get");
        assert!(table.find(b"").is_none() && table.find(b"no-such-command").is_none());
    }

    #[test]
    fn what_was_called_last_is_found_again_and_nothing_else() {
        let (table, recent) = (CommandTable::new(Mode::Data, &[], &[]), Recent::default());
        assert_eq!(table.find_again(b"", &recent), None);
        let names = [
            "get",
            "GET",
            "get",
            "set",
            "unsubscribe",
            "UNSUBSCRIBE",
            "unsubscribo",
            "",
            "get",
            "zrangestore",
        ];
        for name in names.into_iter().flat_map(|name| [name, name]) {
            assert_eq!(table.find_again(name.as_bytes(), &recent), table.find(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn rows_are_well_formed() {
        let table = CommandTable::new(Mode::Data, &[], &[]);
        for entry in &table.entries {
            let c = entry.command;
            assert!(!c.summary.is_empty() && !c.since.is_empty(), "{} is documented", entry.name);
            assert!(c.name.bytes().all(|b| !b.is_ascii_uppercase()), "{}", entry.name);
            assert!(c.arity != 0 && c.accepts(c.arity.unsigned_abs() as usize), "{}", entry.name);
        }
    }
}
