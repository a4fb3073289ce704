//! Which command a request names, and whether it has as many arguments as that takes.

use super::Executor;
use super::admit;
use crate::command::CommandError;
use crate::command::table::CommandEntry;

impl Executor {
    /// Finds the command that `args` call: its id, or the error reply.
    #[inline(always)]
    pub fn look_up(&self, args: &[&[u8]]) -> Result<usize, CommandError> {
        match self.shared.commands.find_again(args[0], &self.recent) {
            Some(id) if self.shared.commands.get(id).fits(args.len()) => Ok(id),
            _ => self.look_up_odd(args),
        }
    }

    #[cold]
    fn look_up_odd(&self, args: &[&[u8]]) -> Result<usize, CommandError> {
        let Some(id) = self.shared.commands.find(args[0]) else { return Err(admit::unknown_command(args)) };
        let entry = self.shared.commands.get(id);
        if !entry.subcommands.is_empty() && args.len() > 1 {
            return self.look_up_sub(id, entry, args);
        }
        Self::fitting(id, entry, args)
    }

    /// The id of the command that `args` name, whether or not they suit it.
    pub fn named(&self, args: &[&[u8]]) -> Option<usize> {
        let id = self.shared.commands.find(args.first()?)?;
        match args.get(1) {
            Some(word) if !self.shared.commands.get(id).subcommands.is_empty() => {
                self.shared.commands.find_sub(id, word)
            }
            _ => Some(id),
        }
    }

    fn fitting(id: usize, entry: &CommandEntry, args: &[&[u8]]) -> Result<usize, CommandError> {
        if !entry.command.accepts(args.len()) {
            return Err(CommandError::Arity(entry.name.clone()));
        }
        Ok(id)
    }

    fn look_up_sub(
        &self,
        container: usize,
        entry: &CommandEntry,
        args: &[&[u8]],
    ) -> Result<usize, CommandError> {
        let Some(id) = self.shared.commands.find_sub(container, args[1]) else {
            return Err(admit::unknown_subcommand(&entry.name, args[1]));
        };
        Self::fitting(id, self.shared.commands.get(id), args)
    }
}
