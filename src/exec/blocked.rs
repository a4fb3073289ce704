//! Clients that are blocked on keys: how they queue, and who runs their command when a key changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::call::{Call, Ended, Origin};
use super::route::Route;
use super::track::remembers;
use super::{After, Blocked, Executor, Host, lock_set};
use crate::base::time::UnixMs;
use crate::command::spec::flags;
use crate::command::{Block, Client, CommandError, Group};
use crate::keyspace::db::Expiring;
use crate::keyspace::watch::Waiter;
use crate::keyspace::{Db, Locked};
use crate::resp::Reply;
use crate::value::Kind;

impl Executor {
    /// Runs the commands of clients that are blocked on keys which changed, first come first
    /// served, under the locks of the command that changed them.
    #[cold]
    pub(super) fn serve_blocked(&mut self, host: &mut dyn Host, now: UnixMs, locked: &mut Locked<'_>) {
        // In the order in which they changed; a client that is served may change more of them.
        let mut at = 0;
        while let Some((index, key)) = self.effects.ready.get(at).cloned() {
            at += 1;
            let mut db = Db::new(locked, index, now, Expiring::Ignore, &mut self.effects);
            let kind = db.kind(&key);
            for waiter in db.blocked_on(&key) {
                // A value of another type is not what the client waits for, nor, for most, is that there is none.
                if kind.map_or(waiter.for_loss, |kind| self.awaits(&waiter, kind)) {
                    self.serve(host, &waiter, &key, now, locked);
                }
            }
        }
        self.effects.ready.clear();
        self.publish_notices(host, false);
    }

    /// Whether a blocked client's command works on values of this type.
    fn awaits(&self, waiter: &Waiter, kind: Kind) -> bool {
        let id = self.shared.commands.find(&waiter.argv[0]);
        id.map(|id| self.shared.commands.get(id).command).is_some_and(|command| match command.group {
            Group::List => kind == Kind::List,
            Group::SortedSet => kind == Kind::SortedSet,
            // A group is gone with its stream, so its readers are told.
            Group::Stream => kind == Kind::Stream || command.has(flags::WAITS_FOR_LOSS),
            _ => true,
        })
    }

    /// Whether this node still serves what a blocked client waits for; else what it is to be told. While a slot
    /// moves the client waits on, whichever end this node is.
    pub fn still_serves(&mut self, client: &Client, argv: &[&[u8]]) -> Result<(), CommandError> {
        let Some(id) = self.shared.commands.find(argv[0]) else { return Ok(()) };
        let Some(view) = self.view.load().as_deref() else { return Ok(()) };
        Route::of(self.shared, self.shared.commands.get(id).command, argv).check(view, client, true)
    }

    /// Counts the command of a client whose wait ended without what it waited for: by time, or with an error.
    pub fn count_unblocked(&self, waiter: &Waiter, error: Option<&str>) {
        let Some(id) = self.shared.commands.find(&waiter.argv[0]) else { return };
        self.stats.count_calls(id, 1, 0, false);
        if let Some(text) = error {
            self.stats.count_failed(id, text);
        }
    }

    /// Runs the command of a client that is blocked on `key`.
    fn serve(
        &mut self,
        host: &mut dyn Host,
        waiter: &Arc<Waiter>,
        key: &[u8],
        now: UnixMs,
        locked: &mut Locked<'_>,
    ) {
        let mut args: Vec<&[u8]> = waiter.argv.iter().map(Vec::as_slice).collect();
        let Some(id) = self.shared.commands.find(args[0]) else { return };
        let command = self.shared.commands.get(id).command;
        let Some(set) = lock_set(self.shared, command, &args) else { return };
        if !locked.set().contains(&set) {
            let alone = waiter.alone.iter().find(|(own, _)| own == key);
            match alone.filter(|(_, argv)| !argv.is_empty()) {
                Some((_, argv)) => args = argv.iter().map(Vec::as_slice).collect(),
                None if locked.try_extend(set) => {}
                // Somebody works on another shard that is needed.
                None => return host.retry(waiter),
            }
        }
        // It would write to a key that MIGRATE has sent away: its worker puts it aside.
        if locked
            .under_way(command.key_positions(&args).unwrap_or_default().iter().map(|at| args[*at]))
            .is_some()
        {
            return host.retry(waiter);
        }
        if !waiter.claim() {
            return;
        }
        let mut client = waiting_client(waiter);
        let mut reply = Reply::new();
        let call = Call { id, command, args: &args, keys: &[], now, brief: false };
        if let Err(fail) = self.pass_rights(Origin::Unblocked, host, &mut client, &call) {
            reply.set_resp3(client.resp3);
            self.reject(id, &fail, &mut reply);
            self.unblock(waiter, locked, now);
            return host.deliver(waiter, reply, 0);
        }
        self.start_batch();
        if let Ended::Blocks(_) = self.call(Origin::Unblocked, &call, host, &mut client, locked, &mut reply) {
            // Somebody before it took what there was.
            waiter.claimed.store(false, Ordering::Release);
            return;
        }
        if waiter.remembers {
            self.remember(&call, waiter.client);
        }
        self.commit(&mut client);
        self.unblock(waiter, locked, now);
        host.deliver(waiter, reply, client.written_to);
    }

    /// Takes a client out of the queues of its keys whose shards are locked; the rest forget it
    /// when they next look, since it is claimed.
    pub(super) fn unblock(&mut self, waiter: &Arc<Waiter>, locked: &mut Locked<'_>, now: UnixMs) {
        let mut db = Db::new(locked, waiter.db, now, Expiring::Ignore, &mut self.effects);
        for key in &waiter.argv[1..] {
            if db.lock_set().has_slot(crate::base::crc16::key_slot(key)) {
                db.unblock(key, waiter);
            }
        }
    }
}

/// Queues a blocked client with each of its keys.
pub(super) fn register(db: &mut Db<'_, '_>, client: &Client, call: &Call<'_>, block: &Block) -> After {
    let args = call.args;
    let waiter = Arc::new(Waiter {
        client: client.id,
        worker: client.worker,
        token: client.token,
        db: db.index(),
        resp3: client.resp3,
        no_touch: client.no_touch,
        login: client.login.clone(),
        argv: block.argv.clone().unwrap_or_else(|| args.iter().map(|a| a.to_vec()).collect()),
        alone: block.keys.iter().map(|&at| args[at].to_vec()).zip(block.alone.iter().cloned()).collect(),
        for_loss: block.for_loss,
        remembers: remembers(client, call.command),
        claimed: AtomicBool::new(false),
    });
    for &at in &block.keys {
        db.block(args[at], &waiter);
    }
    After::Blocked(Box::new(Blocked { waiter, timeout: block.timeout, timeout_reply: block.timeout_reply }))
}

/// A waiting client as its command sees it: the connection itself belongs to its worker.
fn waiting_client(waiter: &Waiter) -> Client {
    let mut client = Client {
        id: waiter.client,
        worker: waiter.worker,
        token: waiter.token,
        db: waiter.db,
        resp3: waiter.resp3,
        no_touch: waiter.no_touch,
        ..Client::default()
    };
    client.log_in(waiter.login.clone(), true);
    client
}
