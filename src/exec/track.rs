//! What CLIENT TRACKING needs of a call: what the client has read is remembered.

use super::Executor;
use super::call::Call;
use crate::command::client::Caching;
use crate::command::spec::{flags, key};
use crate::command::{Client, Command};
use crate::keyspace::tracking::Stale;

impl Executor {
    /// Remembers the keys that a tracking client's command has read. Under the locks of those keys.
    #[cold]
    pub(super) fn track(&mut self, call: &Call<'_>, client: &mut Client) {
        if remembers(client, call.command) {
            self.remember(call, client.id);
        }
        // CLIENT CACHING is for the next command or transaction.
        if !call.command.has(flags::KEEPS_CACHING) && !client.in_multi() && client.executing.is_none() {
            client.end_caching();
        }
    }

    /// Remembers the keys of a command as read by the client of this id. Under the locks of those keys.
    pub(super) fn remember(&mut self, call: &Call<'_>, client: u64) {
        let ks = &self.shared.keyspace;
        for at in call.command.key_positions(call.args).unwrap_or_default() {
            let key = call.args[at];
            ks.tracking.remember(ks.hashed(key).slot, key, client);
        }
        for (key, readers) in ks.tracking.make_room() {
            self.effects.stale.push(Stale { key, readers });
        }
    }
}

/// Whether the keys that `command` reads are to be remembered for `client`.
pub(super) fn remembers(client: &Client, command: &Command) -> bool {
    let Some(tracks) = &client.tracks else { return false };
    let wanted = match tracks.caching {
        Caching::All => !tracks.broadcasts,
        Caching::OptIn => tracks.said,
        Caching::OptOut => !tracks.said,
    };
    wanted && command.has(flags::READONLY) && command.keys.iter().all(|spec| spec.flags & key::NOT_KEY == 0)
}
