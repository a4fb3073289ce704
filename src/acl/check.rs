//! Whether a call is allowed. This is asked before each command of a user who may not do everything.

use smallvec::SmallVec;

use super::selector::{Access, READ, Selector, WRITE};
use super::user::User;

/// A key of a call, and what the call does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The position among the arguments.
    pub at: usize,
    /// What is done to the key.
    pub access: Access,
}

/// The keys of a call.
pub type Keys = SmallVec<[KeyUse; 8]>;

/// What a call wants to do.
pub trait Demand {
    /// The command's number in the catalogue.
    fn command(&self) -> usize;
    /// Allowed whoever asks: one must be able to log in.
    fn is_free(&self) -> bool;
    /// The argument that a first-argument rule looks at.
    fn first_arg(&self) -> Option<&[u8]>;
    /// The argument at a position; 0 is the command's name.
    fn arg(&self, at: usize) -> &[u8];
    /// Where the key of the call stands, if its command always has exactly one and no channel.
    fn single_key(&self) -> Option<usize> {
        None
    }
    /// What is done to that key.
    fn access_of_single_key(&self) -> Access {
        READ | WRITE
    }
    /// The keys of the call, each with what is done to it.
    fn keys(&self) -> Keys;
    /// The positions of channels, and whether they are patterns.
    fn channels(&self) -> (std::ops::Range<usize>, bool);
}

/// Why a call is refused, from what is told first to what is told last when selectors disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// The command, whatever its arguments are.
    Command,
    /// With the position of the argument, as the next one.
    Key(usize),
    /// A channel that no selector allows.
    Channel(usize),
}

impl User {
    /// Whether one of the selectors allows a call; else the reason that is nearest to being allowed.
    pub fn check(&self, demand: &impl Demand) -> Result<(), Denial> {
        if self.root.clearly_allows(demand) {
            return Ok(());
        }
        let mut keys = None;
        let mut reason = Denial::Command;
        for selector in self.all_selectors() {
            match selector.check(demand, &mut keys) {
                Ok(()) => return Ok(()),
                Err(denial) => reason = reason.max(denial),
            }
        }
        Err(reason)
    }

    /// Whether a selector that allows the call also allows to read any key there is: what SORT needs to follow
    /// its patterns.
    pub fn reads_any_key(&self, demand: &impl Demand) -> bool {
        let mut keys = None;
        self.all_selectors().any(|s| s.check(demand, &mut keys).is_ok() && s.reads_any_key())
    }
}

impl Selector {
    /// Whether the selector allows the command as such, and its one key. False says nothing.
    #[inline]
    pub fn clearly_allows(&self, demand: &impl Demand) -> bool {
        let Some(at) = demand.single_key() else { return false };
        self.commands.has(demand.command())
            && self.allows_key(demand.arg(at), || demand.access_of_single_key())
    }

    /// `keys` is filled by the first check that needs it.
    fn check(&self, demand: &impl Demand, keys: &mut Option<Keys>) -> Result<(), Denial> {
        if !demand.is_free() && !self.commands.allows(demand.command(), demand.first_arg()) {
            return Err(Denial::Command);
        }
        if !self.has_all_keys() {
            let refused = |key: &KeyUse| !self.allows_key(demand.arg(key.at), || key.access);
            let refused = keys.get_or_insert_with(|| demand.keys()).iter().copied().find(refused);
            if let Some(key) = refused {
                return Err(Denial::Key(key.at));
            }
        }
        if !self.has_all_channels() {
            let (positions, are_patterns) = demand.channels();
            for at in positions {
                if !self.allows_channel(demand.arg(at), are_patterns) {
                    return Err(Denial::Channel(at));
                }
            }
        }
        Ok(())
    }
}
