//! Clients that are blocked on keys: how they queue, and who runs their command when a key changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{After, Blocked, Executor, Host, lock_set};
use crate::base::time::UnixMs;
use crate::command::{Block, Client, Ctx, Group, Outcome, gate};
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
        while let Some((index, key)) = self.effects.ready.pop() {
            let mut db = Db::new(locked, index, now, Expiring::Ignore, &mut self.effects);
            let kind = db.kind(&key);
            for waiter in db.blocked_on(&key) {
                // A value of another type is not what the client waits for.
                if kind.is_none_or(|kind| self.awaits(&waiter, kind)) {
                    self.serve(host, &waiter, &key, now, locked);
                }
            }
        }
    }

    /// Whether a blocked client's command works on values of this type.
    fn awaits(&self, waiter: &Waiter, kind: Kind) -> bool {
        let id = self.shared.commands.find(&waiter.argv[0]);
        id.map(|id| self.shared.commands.get(id).command).is_some_and(|command| match command.group {
            Group::List => kind == Kind::List,
            Group::SortedSet => kind == Kind::SortedSet,
            // A group is gone with its stream, so its readers are told.
            Group::Stream => kind == Kind::Stream || command.name == "xreadgroup",
            _ => true,
        })
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
        let Some(set) = lock_set(command, &args) else { return };
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
        let mut client =
            Client { id: waiter.client, db: waiter.db, resp3: waiter.resp3, ..Client::default() };
        let mut reply = Reply::new();
        reply.set_resp3(waiter.resp3);
        let (dirty_before, expiring) = (self.effects.dirty, self.shared.expiring());
        self.effects.recorded = false;
        let mut db = Db::new(locked, waiter.db, now, expiring, &mut self.effects);
        let mut ctx = Ctx {
            db: &mut db,
            reply: &mut reply,
            client: &mut client,
            limits: &self.limits,
            rng: &mut self.rng,
            command,
            clustered: self.shared.gate.load(Ordering::Relaxed) & gate::CLUSTER != 0,
            may_block: true,
        };
        match (command.run)(&mut ctx, &args) {
            Ok(Outcome::Block(_)) => {
                // Somebody before it took what there was.
                waiter.claimed.store(false, Ordering::Release);
                return;
            }
            Ok(_) => {}
            Err(fail) => reply.error(&fail.to_string()),
        }
        if self.effects.dirty != dirty_before && !self.effects.recorded {
            self.effects.record(waiter.db, &args);
        }
        self.unblock(waiter, locked, now);
        host.deliver(waiter, reply);
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
pub(super) fn register(db: &mut Db<'_, '_>, client: &Client, args: &[&[u8]], block: &Block) -> After {
    let waiter = Arc::new(Waiter {
        client: client.id,
        worker: client.worker,
        token: client.token,
        db: db.index(),
        resp3: client.resp3,
        argv: block.argv.clone().unwrap_or_else(|| args.iter().map(|a| a.to_vec()).collect()),
        alone: block.keys.iter().map(|&at| args[at].to_vec()).zip(block.alone.iter().cloned()).collect(),
        claimed: AtomicBool::new(false),
    });
    for &at in &block.keys {
        db.block(args[at], &waiter);
    }
    After::Blocked(Box::new(Blocked { waiter, timeout: block.timeout, timeout_reply: block.timeout_reply }))
}
