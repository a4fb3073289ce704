//! What rules must know of the commands that there are.

use super::category::Categories;

/// The commands of a server, numbered. Names are those that commands have before `rename-command`: rules mean
/// what a command does, not what it is called here.
pub trait Catalog {
    /// How many numbers there are; they begin at 0.
    fn count(&self) -> usize;
    /// The command of this name, in any case of letters.
    fn find(&self, name: &[u8]) -> Option<usize>;
    /// The subcommand of a command.
    fn find_sub(&self, container: usize, word: &[u8]) -> Option<usize>;
    /// All subcommands of a command; none for one that is none itself.
    fn subcommands(&self, id: usize) -> &[usize];
    /// In lower case; a subcommand is `container|name`.
    fn name(&self, id: usize) -> &str;
    /// Its categories.
    fn categories(&self, id: usize) -> Categories;
}

/// A command by its name, or a subcommand by `container|name`.
pub fn find_full(catalog: &dyn Catalog, name: &[u8]) -> Option<usize> {
    match name.iter().position(|b| *b == b'|') {
        None => catalog.find(name),
        Some(bar) => catalog.find_sub(catalog.find(&name[..bar])?, &name[bar + 1..]),
    }
}
