//! EXEC: all commands of a transaction under the locks of all their keys, as one unit of the log.

use std::sync::atomic::Ordering;

use super::call::{Call, Ended, Origin};
use super::route::Route;
use super::script::{BETWEEN_LOOKS, says_whether_it_writes, spared};
use super::{After, Executor, Host, Shared, lock_set};
use crate::base::crc16::key_slot;
use crate::base::time::UnixMs;
use crate::command::client::Multi;
use crate::command::spec::flags;
use crate::command::{Client, CommandError, Transaction, gate};
use crate::keyspace::board::Reason;
use crate::keyspace::{Db, DbIndex, Garbage, LockSet, Locked};
use crate::resp::Reply;

/// So many queued commands are freed by another thread: a millisecond's work at least.
const LONG_QUEUE: usize = 10_000;
/// A queue of so many is planned in pieces, between which others are served.
const PLANNED_AT_ONCE: usize = 256;

/// What the commands of a queue need together.
#[derive(Default)]
struct Plan {
    locks: LockSet,
    /// The conditions that concern one of them: bits of [`gate`].
    needs: u32,
}

impl Plan {
    fn of(shared: &Shared, multi: &Multi, host: &mut dyn Host) -> Self {
        let mut plan = Self::default();
        for (i, queued) in multi.queue.iter().enumerate() {
            if i > 0 && i % PLANNED_AT_ONCE == 0 {
                host.meanwhile(false);
            }
            let args: Vec<&[u8]> = queued.argv.iter().map(Vec::as_slice).collect();
            // A command whose keys cannot be found will refuse its arguments.
            plan.locks = plan.locks.union(lock_set(shared, queued.command, &args).unwrap_or(LockSet::NONE));
            // A script that leaves its keys cannot begin again once the transaction has written.
            if queued.command.has(flags::EACH_SHARD) || queued.command.has(flags::RUNS_SCRIPT) {
                plan.locks = LockSet::ALL;
            }
            let mut needs = gate::needs(queued.command) & !spared(shared, queued.command, &args);
            if says_whether_it_writes(shared, queued.command, &args) == Some(false) {
                needs &= !gate::PAUSED_WRITES;
            }
            plan.needs |= needs;
        }
        plan
    }
}

/// The route of all commands of a queue together.
fn route_of<'a>(shared: &Shared, multi: &'a Multi) -> Route<'a> {
    let mut route = Route::default();
    for queued in multi.queue.iter() {
        let args: Vec<&[u8]> = queued.argv.iter().map(Vec::as_slice).collect();
        route.add(shared, queued.command, &args);
    }
    route
}

impl Executor {
    /// Runs the queue of `client`, which is in MULTI.
    pub(super) fn exec_transaction(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
        reply: &mut Reply,
    ) -> After {
        let plan = client.multi().map(|multi| Plan::of(self.shared, multi, host)).unwrap_or_default();
        if self.is_paused_for(client, &plan) {
            return After::Postponed;
        }
        let Some(multi) = client.take_multi() else { return After::Done };
        let asking = client.conditions() & gate::ASKING != 0;
        client.set_asking(false);
        reply.set_resp3(client.resp3);
        let after = self.exec_queue(host, client, call, &plan, &multi, asking, reply);
        if matches!(after, After::Aside | After::Postponed) {
            client.resume_multi(multi);
            client.set_asking(asking);
        } else {
            self.drop_queue(multi);
        }
        after
    }

    /// Runs what was queued, unless something speaks against it. The client is put aside or postponed with its queue.
    #[expect(clippy::too_many_arguments, reason = "all that a transaction is made of")]
    fn exec_queue(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
        plan: &Plan,
        multi: &Multi,
        asking: bool,
        reply: &mut Reply,
    ) -> After {
        let began = self.stopwatch.began();
        // Where it belongs is told first, also if it is broken.
        if let Err(fail) = self.may_exec_here(client, multi, plan, asking) {
            self.unwatch(client);
            self.reject(call.id, &fail, reply);
            return After::Done;
        }
        if multi.aborted {
            self.unwatch(client);
            const BROKEN: &str = "EXECABORT Transaction discarded because of previous errors.";
            reply.error(BROKEN);
            self.show(host, call, client, false);
            self.stats.count_failed(call.id, BROKEN);
            self.measure(host, call, client, began, false);
            return After::Done;
        }
        let mut set = plan.locks;
        for (_, key) in &client.watched {
            set.add_slot(key_slot(key));
        }
        if let Err(fail) = self.may_exec(host, client, plan, call.now) {
            self.unwatch(client);
            self.reject(call.id, &fail, reply);
            return After::Done;
        }
        let Some(mut locked) = self.lock_queue_for(client, multi, set) else {
            if std::mem::take(&mut client.aside.busy) {
                return self.tell_busy(client, call, reply);
            }
            return After::Aside;
        };
        if !self.may_apply(client) {
            return After::Done;
        }
        // The gate may have closed for a failover meanwhile: see `Executor::look_again`.
        if self.is_paused_for(client, plan) {
            return After::Postponed;
        }
        if let Err(fail) = self.confirm_exec(client, multi, asking, call.now, &mut locked) {
            drop(locked);
            self.unwatch(client);
            self.reject(call.id, &fail, reply);
            return After::Done;
        }
        if self.is_dirty(client, call.now, &mut locked) {
            reply.null_array();
        } else {
            self.run_queue(host, client, multi, call.now, &mut locked, reply);
        }
        self.publish_notices(host, false);
        self.show(host, call, client, false);
        self.conclude(host, client, call.now, &mut locked);
        drop(locked);
        client.end_caching();
        self.unwatch(client);
        self.measure(host, call, client, began, false);
        After::Done
    }

    /// The locks of a transaction. `None`: the client was put aside, for a shard or because the transaction would
    /// write to a key under way.
    fn lock_queue_for(&self, client: &mut Client, multi: &Multi, set: LockSet) -> Option<Locked<'static>> {
        let mut locked = self.lock_set_for(client, set)?;
        let written = multi.queue.iter().filter(|queued| queued.command.has(flags::WRITE));
        let uses = written.flat_map(|queued| {
            let args: Vec<&[u8]> = queued.argv.iter().map(Vec::as_slice).collect();
            let uses = queued.command.key_uses(&args).unwrap_or_default();
            uses.into_iter().map(|(at, flags)| (&*queued.argv[at], flags))
        });
        self.pass_keys_under_way(client, &mut locked, uses).then_some(locked)
    }

    /// Whether writes are paused and the transaction has one.
    fn is_paused_for(&self, client: &Client, plan: &Plan) -> bool {
        self.asked_about(client, plan) & gate::PAUSED_WRITES != 0
    }

    /// The conditions that hold now and concern the queue.
    fn asked_about(&self, client: &Client, plan: &Plan) -> u32 {
        self.shared.gate.load(Ordering::Relaxed) & plan.needs & Origin::of(client).asked()
    }

    /// Whether this node serves the keys of the queue.
    fn may_exec_here(
        &mut self,
        client: &Client,
        multi: &Multi,
        plan: &Plan,
        asking: bool,
    ) -> Result<(), CommandError> {
        let bits = self.asked_about(client, plan);
        match self.view.load().as_deref() {
            Some(view) if bits & gate::CLUSTER != 0 => {
                route_of(self.shared, multi).check(view, client, asking)
            }
            _ => Ok(()),
        }
    }

    /// Whether the queue may run now: what was allowed when it was queued may be refused by now.
    fn may_exec(
        &mut self,
        host: &mut dyn Host,
        client: &Client,
        plan: &Plan,
        now: UnixMs,
    ) -> Result<(), CommandError> {
        let bits = self.asked_about(client, plan);
        match self.refusal(host, bits, now) {
            Some(text) => {
                Err(CommandError::owned(format!("EXECABORT Transaction discarded because of: {text}")))
            }
            None => Ok(()),
        }
    }

    fn confirm_exec(
        &mut self,
        client: &Client,
        multi: &Multi,
        asking: bool,
        now: UnixMs,
        locked: &mut Locked<'_>,
    ) -> Result<(), CommandError> {
        if client.role.is_obeyed() || self.view.load().is_none() {
            return Ok(());
        }
        self.confirm_route(&route_of(self.shared, multi), None, client, asking, now, locked)
    }

    /// Whether a watched key has changed. That its time has come counts as a change, although it is still there.
    fn is_dirty(&mut self, client: &Client, now: UnixMs, locked: &mut Locked<'_>) -> bool {
        let Some(dirty) = &client.dirty else { return false };
        let (expiring, effects) = (self.shared.expiring(), &mut self.effects);
        let mut has_died = |(index, key): &(DbIndex, Vec<u8>)| {
            Db::new(locked, *index, now, expiring, effects).has_died(key, dirty)
        };
        dirty.load(Ordering::Acquire) || client.watched.iter().any(|watched| has_died(watched))
    }

    fn run_queue(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        multi: &Multi,
        now: UnixMs,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) {
        let origin = match Origin::of(client) {
            Origin::Client => Origin::Transaction,
            obeyed => obeyed,
        };
        reply.array(multi.queue.len());
        client.executing = Some(multi.queue.len());
        client.runs_others = Some("exec");
        let mut look_again = self.stopwatch.now() + BETWEEN_LOOKS;
        for queued in multi.queue.iter() {
            if multi.is_long() && self.stopwatch.now() >= look_again {
                // The clients that are served meanwhile must not sleep for these locks.
                if !locked.is_declared() {
                    locked.declare_long(Reason::Command("exec"), now);
                }
                host.meanwhile(false);
                look_again = self.stopwatch.now() + BETWEEN_LOOKS;
            }
            let args: Vec<&[u8]> = queued.argv.iter().map(Vec::as_slice).collect();
            let call =
                Call { id: queued.id, command: queued.command, args: &args, keys: &[], now, brief: false };
            // Rights may have changed since the command was queued, and AUTH may stand before it.
            if let Err(fail) = self.pass_rights(origin, host, client, &call) {
                self.reject(call.id, &fail, reply);
                continue;
            }
            self.stopwatch.start();
            let mut ended = self.call(origin, &call, host, client, locked, reply);
            if matches!(ended, Ended::Script) {
                ended = self.run_script(origin, &call, host, client, locked, reply);
            }
            debug_assert!(
                matches!(ended, Ended::Now(After::Done) | Ended::Transaction(_)),
                "nothing waits inside a transaction"
            );
        }
        client.executing = None;
        client.runs_others = None;
        client.set_asking(false);
        client.version += 1;
    }

    /// A long queue takes so long to free that another thread does it.
    fn drop_queue(&self, multi: Box<Multi>) {
        if multi.queue.len() >= LONG_QUEUE {
            self.shared.keyspace.discard(Garbage::Buffers(multi));
        }
    }

    /// DISCARD, UNWATCH and RESET, after the command's locks are released.
    pub(super) fn end_transaction(&mut self, client: &mut Client, transaction: Transaction) {
        match transaction {
            Transaction::Exec => {}
            Transaction::Unwatch => self.unwatch(client),
            Transaction::Discard | Transaction::Reset => {
                if let Some(multi) = client.take_multi() {
                    self.drop_queue(multi);
                }
                client.set_asking(false);
                self.unwatch(client);
            }
        }
    }
}
