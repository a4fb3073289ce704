//! Taking locks without blocking a worker: a client whose command cannot have its shards, or would write to a key
//! under way, is put aside and its command runs again later. Work for which no client waits is postponed as a
//! [`Chore`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::call::Call;
use super::{After, Executor, Host, lock_set};
use crate::base::crc16::key_slot;
use crate::base::time::UnixMs;
use crate::command::client::Aside;
use crate::command::spec::{flags, key};
use crate::command::table::CommandEntry;
use crate::command::{Client, CommandError};
use crate::keyspace::board::{Busy, Waiting};
use crate::keyspace::db::Expiring;
use crate::keyspace::watch::{Dirty, Waiter};
use crate::keyspace::{Db, DbIndex, LockSet, Locked};
use crate::resp::Reply;

/// Work that an executor has postponed because a shard was held. It is not urgent: the flag of that WATCH is not read
/// any more, and the blocked client is claimed already.
pub(super) enum Chore {
    Unwatch(Vec<(DbIndex, Vec<u8>)>, Dirty),
    Forget(Arc<Waiter>),
}

/// The shards of keys, whatever their database.
fn shards_of<'a>(keys: impl IntoIterator<Item = &'a Vec<u8>>) -> LockSet {
    LockSet::of_slots(keys.into_iter().map(|key| key_slot(key)))
}

impl Executor {
    /// Takes the locks of a command that has not exactly one key, or whose key's shard was held (`busy`). `None`: the
    /// client was put aside.
    #[inline(never)]
    pub(super) fn lock_for(
        &self,
        client: &mut Client,
        call: &Call<'_>,
        entry: &CommandEntry,
        busy: Option<Busy>,
    ) -> Option<Locked<'static>> {
        if entry.keeps_to_keys && call.command.keys.is_empty() {
            return Some(self.shared.keyspace.lock_nothing());
        }
        let set = if entry.keeps_to_keys && !call.keys.is_empty() {
            LockSet::of_slots(call.keys.iter().map(|(_, hashed)| hashed.slot))
        } else {
            // A command whose keys cannot be found will refuse its arguments.
            lock_set(self.shared, call.command, call.args).unwrap_or(LockSet::NONE)
        };
        match busy {
            Some(busy) => self.lock_later(client, set, busy),
            None => self.lock_set_for(client, set),
        }
    }

    /// False: the command would write to a key that is under way, or that a snapshot has to save first, and the
    /// client was put aside.
    #[inline(always)]
    pub(super) fn may_write(
        &self,
        client: &mut Client,
        call: &Call<'_>,
        locked: &mut Locked<'static>,
    ) -> bool {
        if self.shared.keyspace.board.writers_look_first() && call.command.has(flags::WRITE) {
            let uses = call.command.key_uses(call.args).unwrap_or_default();
            return self.pass_keys_under_way(
                client,
                locked,
                uses.iter().map(|(at, flags)| (call.args[*at], *flags)),
            );
        }
        client.aside = Aside::default();
        true
    }

    /// False: the client was put aside, because one of the keys is under way, or is large, not saved yet by a
    /// snapshot and to be changed in place. `uses`: keys with bits of [`key`]. The primary's stream is never put
    /// aside: its thread encodes such a key part by part, and unlocks the shards between two parts.
    pub(super) fn pass_keys_under_way<'a>(
        &self,
        client: &mut Client,
        locked: &mut Locked<'static>,
        uses: impl Iterator<Item = (&'a [u8], u16)> + Clone,
    ) -> bool {
        let keys = uses.clone().map(|(key, _)| key);
        let changed = uses.filter(|(_, flags)| key::is_changed(*flags)).map(|(key, _)| key);
        let busy = if client.role.is_obeyed() {
            let (ks, set) = (&self.shared.keyspace, locked.set());
            while locked.save_ahead(client.db, changed.clone()).is_some() {
                *locked = ks.lock_nothing();
                *locked = ks.lock(set);
            }
            None
        } else {
            locked.under_way(keys).or_else(|| locked.save_ahead(client.db, changed))
        };
        match busy {
            Some(busy) => !self.put_aside(client, busy),
            None => {
                client.aside = Aside::default();
                true
            }
        }
    }

    /// As [`lock_for`](Self::lock_for), for a set of shards.
    pub(super) fn lock_set_for(&self, client: &mut Client, set: LockSet) -> Option<Locked<'static>> {
        let ks = &*self.shared.keyspace;
        match ks.try_lock(set, client.aside.tries) {
            Ok(locked) => Some(locked),
            Err(busy) => self.lock_later(client, set, busy),
        }
    }

    /// Puts a client aside, unless the locks are free by now. The thread that applies our primary's stream waits
    /// for them: it has nothing else to do.
    #[cold]
    fn lock_later(&self, client: &mut Client, set: LockSet, mut busy: Busy) -> Option<Locked<'static>> {
        let ks = &*self.shared.keyspace;
        if client.role.is_obeyed() {
            return Some(ks.lock(set));
        }
        if self.is_busy(busy) {
            client.aside = Aside { busy: true, ..Aside::default() };
            return None;
        }
        while !self.put_aside(client, busy) {
            match ks.try_lock(set, client.aside.tries) {
                Ok(locked) => return Some(locked),
                Err(again) => busy = again,
            }
        }
        None
    }

    /// WATCH, beside a script that holds the keys: it is answered, as in Redis, and all count as changed, because
    /// nobody hears of what the script does to them. (It is the one command with keys that a busy node answers.)
    #[cold]
    pub(super) fn watch_unseen(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
        reply: &mut Reply,
    ) -> After {
        let began = self.stopwatch.began();
        client.aside = Aside::default();
        reply.set_resp3(client.resp3);
        if client.in_multi() {
            self.fail(call.id, &CommandError::text("ERR WATCH inside MULTI is not allowed"), reply);
        } else {
            client.dirty.get_or_insert_default().store(true, Ordering::Release);
            for key in &call.args[1..] {
                let watched = (client.db, key.to_vec());
                if !client.watched.contains(&watched) {
                    client.watched.push(watched);
                    client.version += 1;
                }
            }
            reply.ok();
        }
        self.measure(host, call, client, began, false);
        self.show(host, call, client, false);
        After::Done
    }

    #[cold]
    pub(super) fn put_aside(&self, client: &mut Client, busy: Busy) -> bool {
        let who = Waiting { worker: client.worker, token: client.token, client: client.id };
        let aside = self.shared.keyspace.put_aside(who, busy, &mut client.aside.ticket);
        client.aside.tries += u32::from(aside);
        aside
    }

    /// Puts a client aside whose command itself met a held shard. Its worker holds it back already: it is woken at
    /// once if the shard is free by now.
    pub(super) fn put_aside_or_wake(&self, client: &mut Client, busy: Busy) {
        if !self.put_aside(client, busy) {
            let who = Waiting { worker: client.worker, token: client.token, client: client.id };
            self.shared.keyspace.board.wake(who);
        }
    }

    /// Does what was put off because a shard was held. To be called every now and then.
    pub fn do_chores(&mut self, now: UnixMs) {
        for chore in std::mem::take(&mut self.chores) {
            match chore {
                Chore::Unwatch(keys, dirty) => self.unwatch_keys(keys, dirty),
                Chore::Forget(waiter) => self.forget_waiter(&waiter, now),
            }
        }
    }

    /// Takes what another executor of this thread has left to do.
    pub fn take_over_chores(&mut self, other: &mut Self) {
        self.chores.append(&mut other.chores);
    }

    /// Takes the client's interest back from the keys it watched. No lock is held.
    pub fn unwatch(&mut self, client: &mut Client) {
        if let Some(dirty) = client.dirty.take() {
            client.version += 1;
            self.unwatch_keys(std::mem::take(&mut client.watched), dirty);
        }
    }

    fn unwatch_keys(&mut self, keys: Vec<(DbIndex, Vec<u8>)>, dirty: Dirty) {
        let shared = self.shared;
        match shared.keyspace.try_lock(shards_of(keys.iter().map(|(_, key)| key)), 0) {
            Ok(mut locked) => {
                for (index, key) in keys {
                    Db::new(&mut locked, index, 0, Expiring::Ignore, &mut self.effects).unwatch(&key, &dirty);
                }
            }
            Err(_) => self.chores.push(Chore::Unwatch(keys, dirty)),
        }
    }

    /// Takes a client that timed out or left out of all queues. The caller has claimed it.
    pub fn forget_waiter(&mut self, waiter: &Arc<Waiter>, now: UnixMs) {
        let shared = self.shared;
        match shared.keyspace.try_lock(shards_of(&waiter.argv[1..]), 0) {
            Ok(mut locked) => self.unblock(waiter, &mut locked, now),
            Err(_) => self.chores.push(Chore::Forget(Arc::clone(waiter))),
        }
    }
}
