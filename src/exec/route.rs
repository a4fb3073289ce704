//! Which node serves a command: MOVED, ASK, TRYAGAIN, CROSSSLOT and CLUSTERDOWN.
//! Source: Redis Cluster specification, "MOVED redirection", "ASK redirection" and "Multi-key operations".

use smallvec::SmallVec;

use super::Shared;
use super::script::says_whether_it_writes;
use crate::base::crc16::key_slot;
use crate::cluster::view::View;
use crate::command::spec::{KeyPositions, flags};
use crate::command::{Client, Command, CommandError};
use crate::keyspace::Db;

/// What of a command matters for its route; for EXEC the sum of what it will run.
#[derive(Clone, Debug, Default)]
pub(super) struct Route<'a> {
    /// The one slot of all keys; `None` without keys.
    slot: Option<u16>,
    keys: SmallVec<[&'a [u8]; 4]>,
    crosses: bool,
    writes: bool,
    /// The command says ASKING itself (RESTORE-ASKING).
    asking: bool,
    /// It is served wherever the keys are.
    anywhere: bool,
    channel: bool,
}

impl<'a> Route<'a> {
    /// The route of one command.
    pub fn of(shared: &Shared, command: &Command, args: &[&'a [u8]]) -> Self {
        let mut route = Self::default();
        route.add(shared, command, args);
        route
    }

    /// Takes a command into account.
    pub fn add(&mut self, shared: &Shared, command: &Command, args: &[&'a [u8]]) {
        let mut positions = KeyPositions::new();
        for spec in command.keys.iter().filter(|spec| !spec.is_unbalanced(args)) {
            if spec.positions(args, &mut positions) && spec.flags & crate::command::spec::key::NOT_KEY != 0 {
                self.channel = true;
            }
        }
        for at in positions {
            let slot = key_slot(args[at]);
            self.crosses |= *self.slot.get_or_insert(slot) != slot;
            self.keys.push(args[at]);
        }
        self.writes |=
            says_whether_it_writes(shared, command, args).unwrap_or_else(|| command.has(flags::WRITE));
        self.asking |= command.has(flags::ASKING);
        self.anywhere |= command.has(flags::ANYWHERE);
    }

    /// The slot of the keys.
    pub fn slot(&self) -> Option<u16> {
        self.slot
    }

    pub fn is_keyless(&self) -> bool {
        self.slot.is_none()
    }

    /// Whether this node serves the command, as far as can be told without looking at keys.
    pub fn check(&self, view: &View, client: &Client, asking: bool) -> Result<(), CommandError> {
        let Some(slot) = self.slot else { return Ok(()) };
        let state = view.slot(slot);
        if state.owner().is_none() {
            return Err(CommandError::text("CLUSTERDOWN Hash slot not served"));
        }
        if self.crosses {
            return Err(CommandError::text("CROSSSLOT Keys in request don't hash to the same slot"));
        }
        if !view.is_ok() {
            if self.channel {
                if !view.allow_pubsubshard_when_down {
                    return Err(CommandError::text("CLUSTERDOWN The cluster is down"));
                }
            } else if !view.allow_reads_when_down {
                return Err(CommandError::text("CLUSTERDOWN The cluster is down"));
            } else if self.writes {
                return Err(CommandError::text(
                    "CLUSTERDOWN The cluster is down and only accepts read commands",
                ));
            }
        }
        if state.is_mine() || (self.anywhere && state.is_importing()) {
            return Ok(());
        }
        if state.is_importing() && (asking || self.asking) {
            return Ok(());
        }
        // A replica serves its primary's slots to those who accept stale reads; channels to all.
        if state.is_my_primarys() && (self.channel || (client.readonly && !self.writes)) {
            return Ok(());
        }
        Err(CommandError::owned(
            view.moved(slot, client.tls).unwrap_or_else(|| "CLUSTERDOWN Hash slot not served".into()),
        ))
    }

    /// Whether the keys are here, in a slot that is moving. The shard is locked.
    pub fn check_keys(&self, view: &View, client: &Client, db: &Db<'_, '_>) -> Result<(), CommandError> {
        let Some(slot) = self.slot else { return Ok(()) };
        let state = view.slot(slot);
        let importing = state.is_importing() && !state.is_mine();
        if self.anywhere || self.channel || !(state.is_migrating() || importing) {
            return Ok(());
        }
        // A dead key counts as missing and stays: what its deletion brings about is settled in a call only.
        let present = self.keys.iter().filter(|k| db.view(k).is_some()).count();
        if present == self.keys.len() {
            return Ok(());
        }
        let try_again = CommandError::text("TRYAGAIN Multiple keys request during rehashing of slot");
        if importing {
            // One key named twice is one key.
            let several = self.keys.iter().any(|key| *key != self.keys[0]);
            return if several { Err(try_again) } else { Ok(()) };
        }
        if present > 0 {
            return Err(try_again);
        }
        Err(CommandError::owned(
            view.ask(slot, client.tls).unwrap_or_else(|| "CLUSTERDOWN Hash slot not served".into()),
        ))
    }
}
