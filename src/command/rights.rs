//! What a call needs rights to, and what is said when its user lacks them.

use std::ops::Range;

use super::shown;
use super::spec::{Channels, flags, key};
use super::table::CommandEntry;
use crate::acl::selector::{self, Access};
use crate::acl::{Demand, Denial, KeyUse, Keys};

/// A call as its user's rights are asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// The command's place in the table.
    pub id: usize,
    /// Its entry in the table.
    pub entry: &'a CommandEntry,
    /// All words, the name included.
    pub args: &'a [&'a [u8]],
}

impl Demand for Errand<'_> {
    fn command(&self) -> usize {
        self.id
    }

    fn is_free(&self) -> bool {
        self.entry.command.has(flags::NO_AUTH)
    }

    fn first_arg(&self) -> Option<&[u8]> {
        self.args.get(1).copied()
    }

    fn arg(&self, at: usize) -> &[u8] {
        self.args[at]
    }

    #[inline]
    fn single_key(&self) -> Option<usize> {
        self.entry.single_key.filter(|at| *at < self.args.len())
    }

    fn access_of_single_key(&self) -> Access {
        let command = self.entry.command;
        access(command.flags_in_use(command.keys[0].flags, self.args))
    }

    /// Keys that cannot be told are of a command that will refuse its arguments.
    fn keys(&self) -> Keys {
        let uses = self.entry.command.key_uses(self.args).unwrap_or_default();
        uses.into_iter().map(|(at, flags)| KeyUse { at, access: access(flags) }).collect()
    }

    fn channels(&self) -> (Range<usize>, bool) {
        let all = 1..self.args.len();
        match self.entry.command.channels {
            Channels::None => (0..0, false),
            Channels::First => (1..all.end.min(2), false),
            Channels::All => (all, false),
            Channels::Patterns => (all, true),
        }
    }
}

/// What a call that uses a key so does to it.
fn access(flags: u16) -> Access {
    let reads = if flags & key::ACCESS == 0 { 0 } else { selector::READ };
    let writes = flags & (key::UPDATE | key::INSERT | key::DELETE) != 0;
    reads | if writes { selector::WRITE } else { 0 }
}

impl Errand<'_> {
    /// What was refused: the command, the key or the channel.
    pub fn object(&self, denial: Denial) -> &[u8] {
        match denial {
            Denial::Command => self.entry.original.as_bytes(),
            Denial::Key(at) | Denial::Channel(at) => self.args[at],
        }
    }

    /// The reason in words; `in_full` with the name of the key or channel.
    pub fn reason(&self, denial: Denial, user: &str, in_full: bool) -> String {
        let object = shown(self.object(denial));
        match denial {
            Denial::Command => format!("User {user} has no permissions to run the '{object}' command"),
            Denial::Key(_) if in_full => {
                format!("User {user} has no permissions to access the '{object}' key")
            }
            Denial::Key(_) => "No permissions to access a key".into(),
            Denial::Channel(_) if in_full => {
                format!("User {user} has no permissions to access the '{object}' channel")
            }
            Denial::Channel(_) => "No permissions to access a channel".into(),
        }
    }
}
