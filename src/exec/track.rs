//! What CLIENT TRACKING needs of a call: what the client has read is remembered.

use super::Executor;
use super::call::Call;
use crate::command::Client;
use crate::command::client::Caching;
use crate::command::spec::{flags, key};
use crate::keyspace::tracking::Stale;

impl Executor {
    /// Remembers the keys that a tracking client's command has read. Under the locks of those keys.
    #[cold]
    pub(super) fn track(&mut self, call: &Call<'_>, client: &mut Client) {
        let Some(tracks) = &client.tracks else { return };
        let wanted = match tracks.caching {
            Caching::All => !tracks.broadcasts,
            Caching::OptIn => tracks.said,
            Caching::OptOut => !tracks.said,
        };
        let of_keys = call.command.keys.iter().all(|spec| spec.flags & key::NOT_KEY == 0);
        if wanted && of_keys && call.command.has(flags::READONLY) {
            self.remember(call, client.id);
        }
        // CLIENT CACHING is for the next command or transaction.
        if !call.command.has(flags::KEEPS_CACHING) && !client.in_multi() && client.executing.is_none() {
            end_caching(client);
        }
    }

    fn remember(&mut self, call: &Call<'_>, client: u64) {
        let ks = &self.shared.keyspace;
        for at in call.command.key_positions(call.args).unwrap_or_default() {
            let key = call.args[at];
            ks.tracking.remember(ks.hashed(key).slot, key, client);
        }
        for (key, readers) in ks.tracking.make_room() {
            self.effects.stale.push(Stale { key, readers, by_command: false });
        }
    }
}

/// Forgets what CLIENT CACHING said.
pub(super) fn end_caching(client: &mut Client) {
    if let Some(tracks) = &mut client.tracks {
        tracks.said = false;
    }
}
