//! Which locks a script holds, and how it comes to more. See the module above.

use std::time::Duration;

use parking_lot::Mutex;

use super::Run;
use crate::command::Command;
use crate::command::spec::{flags, key};
use crate::exec::lock_set;
use crate::keyspace::board::Busy;
use crate::keyspace::locks::PATIENCE;
use crate::keyspace::{Hashed, LockSet};
use crate::script::{Calls, Stop};

/// How often a script that waits for locks while it holds some looks again.
const PAUSE: Duration = Duration::from_micros(50);

/// The right to wait for locks while holding some. One script of a node has it at a time, so that no two wait for
/// each other.
#[derive(Debug, Default)]
pub struct Claims(Mutex<Option<usize>>);

/// That right. See the module above.
pub(super) struct Claim(&'static Claims);

impl Claims {
    /// Claims it for a script that holds `shard`; otherwise a shard of the script that has it.
    fn try_for(&'static self, shard: usize) -> Result<Claim, usize> {
        let mut claimed = self.0.lock();
        match *claimed {
            Some(other) => Err(other),
            None => {
                *claimed = Some(shard);
                Ok(Claim(self))
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

impl Run<'_, '_> {
    /// Makes sure that the locks of a command are held. `key`: it has this one and no others. See the module.
    pub(super) fn lock(
        &mut self,
        command: &Command,
        args: &[&[u8]],
        key: Option<Hashed>,
    ) -> Result<(), Stop> {
        if let Some(key) = key
            && self.locked.has_slot(key.slot)
        {
            self.strayed |= !self.task.declared.has_slot(key.slot);
            return Ok(());
        }
        let mut set = lock_set(self.executor.shared, command, args).unwrap_or(LockSet::NONE);
        if command.has(flags::EACH_SHARD) {
            set = LockSet::ALL;
        }
        self.strayed |= !self.task.declared.contains(&set);
        if self.locked.set().contains(&set) || self.locked.try_extend(LockSet::ALL) {
            return Ok(());
        }
        if !self.wrote {
            let missing = self.locked.missing(&set);
            self.held_up = missing.map(|shard| Busy { shard, key: false });
            return Err(Stop::Again);
        }
        // What has changed something without a claim has no locks: it has published, for instance.
        debug_assert!(self.claim.is_some() || self.locked.set().is_empty());
        while !(self.has_claim_for(&set) && self.locked.try_extend(set)) {
            self.look()?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Whether this script has the claim; it tries for it if it will hold one of these shards.
    fn has_claim_for(&mut self, set: &LockSet) -> bool {
        if self.claim.is_none() {
            self.claim = set.first().and_then(|shard| self.executor.shared.claims.try_for(shard).ok());
        }
        self.claim.is_some()
    }

    /// Before the first change of a script that may stray.
    pub(super) fn claim(&mut self) -> Result<(), Stop> {
        let held = self.locked.set();
        if self.wrote || !self.task.may_stray || self.claim.is_some() || held == LockSet::ALL {
            return Ok(());
        }
        let Some(shard) = held.first() else { return Ok(()) };
        let until = self.executor.stopwatch.now() + PATIENCE.as_nanos() as u64;
        loop {
            match self.executor.shared.claims.try_for(shard) {
                Ok(claim) => {
                    self.claim = Some(claim);
                    return Ok(());
                }
                // Most scripts are through in a moment.
                Err(_) if self.executor.stopwatch.now() < until => std::thread::yield_now(),
                Err(shard) => {
                    self.held_up = Some(Busy { shard, key: false });
                    return Err(Stop::Again);
                }
            }
        }
    }

    /// Whether none of the keys that a command writes to is under way to another node. A script that has not written
    /// begins again later if one is, or is large and wanted by a snapshot.
    pub(super) fn pass_keys_under_way(&mut self, command: &Command, args: &[&[u8]]) -> Result<bool, Stop> {
        if !command.has(flags::WRITE) || !self.executor.shared.keyspace.board.writers_look_first() {
            return Ok(true);
        }
        let uses = command.key_uses(args).unwrap_or_default();
        let mut busy = self.locked.under_way(uses.iter().map(|(at, _)| args[*at]));
        if !self.wrote {
            let changed = uses.iter().filter(|(_, flags)| key::is_changed(*flags)).map(|(at, _)| args[*at]);
            busy = busy.or_else(|| self.locked.save_ahead(self.client.db, changed));
        }
        match busy {
            None => Ok(true),
            Some(busy) if !self.wrote => {
                self.held_up = Some(busy);
                Err(Stop::Again)
            }
            Some(_) => Ok(false),
        }
    }
}
