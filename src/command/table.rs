//! The command table: from a name to its declaration, under the names that the configuration gives.

use super::gate;
use super::spec::Command;

/// Every family's rows.
const FAMILIES: &[&[Command]] = &[
    super::strings::COMMANDS,
    super::lcs::COMMANDS,
    super::keys::COMMANDS,
    super::expiry::COMMANDS,
    super::object::COMMANDS,
    super::dump::COMMANDS,
    super::lists::COMMANDS,
    super::list_moves::COMMANDS,
    super::sets::COMMANDS,
    super::set_algebra::COMMANDS,
    super::hashes::COMMANDS,
    super::streams::COMMANDS,
    super::stream_reads::COMMANDS,
    super::stream_groups::COMMANDS,
    super::sorted_sets::COMMANDS,
    super::sorted_set_ranges::COMMANDS,
    super::sorted_set_pops::COMMANDS,
    super::sorted_set_algebra::COMMANDS,
    super::connection::COMMANDS,
    super::cluster::COMMANDS,
    super::migrate::COMMANDS,
    super::persistence::COMMANDS,
    super::clients::COMMANDS,
    super::pubsub::COMMANDS,
    super::server::COMMANDS,
    super::replication::COMMANDS,
    super::transactions::COMMANDS,
];

/// A command under the name it goes by.
#[derive(Debug)]
pub struct Listed {
    /// Lower case; a subcommand is `container|name`.
    pub name: String,
    pub command: &'static Command,
    /// Conditions under which the command must be looked at before it runs (see [`super::gate`]).
    pub needs: u32,
    /// Ids of the subcommands, in the order of the declaration.
    pub subcommands: Vec<usize>,
}

/// Index of commands by name, without case.
#[derive(Debug)]
pub struct CommandTable {
    listed: Vec<Listed>,
    /// Open addressing over hashes of names; the ids of [`CommandTable::listed`] plus one.
    places: Box<[u16]>,
}

/// A name's place. Cheap and good enough for some hundred names: eight bytes are folded at a time.
#[inline(always)]
fn place_of(name: &[u8]) -> usize {
    let mut word = [0u8; 8];
    let n = name.len().min(8);
    word[..n].copy_from_slice(&name[..n]);
    let last = name.last().copied().unwrap_or(0) | 0x20;
    let x = (u64::from_le_bytes(word) | 0x2020_2020_2020_2020)
        ^ ((name.len() as u64) << 56)
        ^ (u64::from(last) << 48);
    (x.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize
}

const PLACES: usize = 1 << 11;

impl CommandTable {
    /// The table with some commands renamed, or removed by an empty new name (`rename-command`).
    pub fn new(renames: &[(String, String)]) -> Self {
        let mut table = Self { listed: Vec::new(), places: vec![0; PLACES].into_boxed_slice() };
        for command in FAMILIES.iter().flat_map(|f| f.iter()) {
            let renamed = renames.iter().rev().find(|(from, _)| from.eq_ignore_ascii_case(command.name));
            let name = renamed.map_or(command.name.to_owned(), |(_, to)| to.to_ascii_lowercase());
            if !name.is_empty() {
                table.add(name, command);
            }
        }
        table
    }

    /// Whether there is a command that a row calls `name`.
    pub fn is_command(name: &str) -> bool {
        FAMILIES.iter().flat_map(|f| f.iter()).any(|c| c.name.eq_ignore_ascii_case(name))
    }

    fn add(&mut self, name: String, command: &'static Command) {
        let id = self.listed.len();
        let mut at = place_of(name.as_bytes());
        while self.places[at] != 0 {
            at = (at + 1) % PLACES;
        }
        self.places[at] = id as u16 + 1;
        let first = id + 1;
        let subcommands = (first..first + command.subcommands.len()).collect();
        let container = name.clone();
        self.listed.push(Listed { name, command, needs: gate::needs(command), subcommands });
        for sub in command.subcommands {
            self.listed.push(Listed {
                name: format!("{container}|{}", sub.name),
                command: sub,
                needs: gate::needs(sub),
                subcommands: Vec::new(),
            });
        }
    }

    /// The id of the command called `name`.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let mut at = place_of(name);
        loop {
            let id = usize::from(self.places[at]).checked_sub(1)?;
            if self.listed[id].name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(id);
            }
            at = (at + 1) % PLACES;
        }
    }

    /// The id of a container's subcommand.
    pub fn find_sub(&self, container: usize, word: &[u8]) -> Option<usize> {
        let mut subs = self.listed[container].subcommands.iter().copied();
        subs.find(|&id| self.listed[id].command.name.as_bytes().eq_ignore_ascii_case(word))
    }

    #[inline]
    pub fn get(&self, id: usize) -> &Listed {
        &self.listed[id]
    }

    pub fn len(&self) -> usize {
        self.listed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Top-level commands, each with its id.
    pub fn commands(&self) -> impl Iterator<Item = (usize, &Listed)> {
        self.listed.iter().enumerate().filter(|(_, l)| !l.name.contains('|'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        let table = CommandTable::new(&[("get".into(), "Fetch".into()), ("set".into(), String::new())]);
        for (id, listed) in table.commands() {
            assert_eq!(table.find(listed.name.to_uppercase().as_bytes()), Some(id));
        }
        assert!(table.find(b"get").is_none() && table.find(b"set").is_none());
        assert_eq!(table.get(table.find(b"FETCH").unwrap()).command.name, "get");
        assert!(table.find(b"").is_none() && table.find(b"no-such-command").is_none());
    }

    #[test]
    fn rows_are_well_formed() {
        let table = CommandTable::new(&[]);
        for listed in &table.listed {
            let c = listed.command;
            assert!(!c.summary.is_empty() && !c.since.is_empty(), "{} is documented", listed.name);
            assert!(c.name.bytes().all(|b| !b.is_ascii_uppercase()), "{}", listed.name);
            assert!(c.arity != 0 && c.accepts(c.arity.unsigned_abs() as usize), "{}", listed.name);
        }
    }
}
