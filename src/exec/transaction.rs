//! EXEC: all commands of a transaction under the locks of all their keys, as one unit of the log.

use std::sync::atomic::Ordering;

use super::route::Route;
use super::{After, Executor, Host, lock_set};
use crate::base::crc16::key_slot;
use crate::base::time::UnixMs;
use crate::command::client::{Aside, Multi, Role};
use crate::command::spec::flags;
use crate::command::{Client, Fail, Transaction, gate};
use crate::keyspace::{Db, LockSet, Locked};
use crate::resp::Reply;
use crate::resp::request::write_command;

impl Executor {
    /// Runs the queue of `client`, which is in MULTI.
    pub(super) fn exec_transaction(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        id: usize,
        now: UnixMs,
        reply: &mut Reply,
    ) -> After {
        let node_bits = self.shared.gate.load(Ordering::Relaxed);
        let writes = |c: &Client| {
            c.multi.iter().flat_map(|m| &m.queue).any(|q| gate::needs(q.command) & gate::PAUSED_WRITES != 0)
        };
        if node_bits & gate::PAUSED_WRITES != 0 && client.role != Role::Primary && writes(client) {
            return After::Postponed;
        }
        let Some(multi) = client.multi.take() else { return After::Done };
        reply.set_resp3(client.resp3);
        let asking = std::mem::take(&mut client.asking);
        if multi.aborted {
            self.unwatch(client);
            reply.error("EXECABORT Transaction discarded because of previous errors.");
            self.stats.count_error("EXECABORT");
            return After::Done;
        }
        let shared = self.shared;
        let ks = &*shared.keyspace;
        let mut set = LockSet::NONE;
        for (_, key) in &client.watched {
            set.add_slot(key_slot(key));
        }
        let mut route = Route::default();
        let mut needs = 0;
        for queued in &multi.queue {
            let args: Vec<&[u8]> = queued.argv.iter().map(Vec::as_slice).collect();
            // Keys that cannot be told are of a command that will refuse its arguments.
            set = set.union(lock_set(queued.command, &args).unwrap_or(LockSet::NONE));
            if queued.command.has(flags::EACH_SHARD) {
                set = LockSet::ALL;
            }
            route.add(queued.command, &args);
            needs |= gate::needs(queued.command);
        }
        let from_primary = client.role == Role::Primary;
        if !from_primary {
            if let Some(Err(fail)) = self.view.load().as_deref().map(|v| route.check(v, client, asking)) {
                self.unwatch(client);
                self.fail(id, &fail, reply);
                return After::Done;
            }
            // What was allowed when it was queued may be refused by now.
            let bits = node_bits & needs;
            if let Some(text) = self.refusal(bits, now) {
                self.unwatch(client);
                let text = format!("EXECABORT Transaction discarded because of: {text}");
                self.fail(id, &Fail::owned(text), reply);
                return After::Done;
            }
        }
        let held = match self.lock_set_for(client, set) {
            Some(mut locked) => match self.held_back(&multi, client, &mut locked) {
                false => Some(locked),
                true => None,
            },
            None => None,
        };
        let Some(mut locked) = held else {
            drop(route);
            client.multi = Some(multi);
            client.asking = asking;
            return After::Aside;
        };
        client.aside = Aside::default();
        if !self.may_apply(client) {
            return After::Done;
        }
        // As in `execute`: the gate may have closed for a failover meanwhile.
        if !from_primary && shared.gate.load(Ordering::Relaxed) & needs & gate::PAUSED_WRITES != 0 {
            drop((locked, route));
            client.multi = Some(multi);
            client.asking = asking;
            return After::Postponed;
        }
        self.effects.log_wanted = ks.log.is_wanted() && !from_primary;
        if !from_primary && let Err(fail) = self.confirm_route(&route, None, client, asking, now, &mut locked)
        {
            drop(locked);
            self.unwatch(client);
            self.fail(id, &fail, reply);
            return After::Done;
        }
        // A watched key whose time has come goes now, and marks the transaction.
        for (index, key) in &client.watched {
            Db::new(&mut locked, *index, now, shared.expiring(), &mut self.effects).exists(key);
        }
        let dirty = client.dirty.as_ref().is_some_and(|d| d.load(Ordering::Acquire));
        if dirty {
            self.commit(client);
            drop(locked);
            self.unwatch(client);
            reply.null_array();
            return After::Done;
        }
        let mut before = self.effects.take_records();
        reply.array(multi.queue.len());
        client.executing = Some(multi.queue.len());
        let mut ended = None;
        for queued in &multi.queue {
            let args: Vec<&[u8]> = queued.argv.iter().map(Vec::as_slice).collect();
            let started = std::time::Instant::now();
            let (after, transaction) = self.run(
                host,
                client,
                queued.id,
                queued.command,
                &args,
                None,
                now,
                &mut locked,
                reply,
                false,
            );
            debug_assert!(matches!(after, After::Done), "nothing waits inside a transaction");
            ended = transaction.or(ended);
            self.stats.count_call(queued.id, started.elapsed().as_nanos() as u64);
        }
        client.executing = None;
        client.asking = false;
        client.version += 1;
        self.wrap_records(&mut before);
        if !self.effects.ready.is_empty() {
            self.serve_blocked(host, now, &mut locked);
        }
        self.commit(client);
        drop(locked);
        self.unwatch(client);
        After::Done
    }

    /// Puts a client aside whose transaction would write to a key under way.
    fn held_back(&self, multi: &Multi, client: &mut Client, locked: &mut Locked<'_>) -> bool {
        let keys = multi.queue.iter().filter(|queued| queued.command.has(flags::WRITE)).flat_map(|queued| {
            let args: Vec<&[u8]> = queued.argv.iter().map(Vec::as_slice).collect();
            queued.command.key_positions(&args).unwrap_or_default().into_iter().map(|at| &*queued.argv[at])
        });
        let busy = if client.role == Role::Primary { None } else { locked.under_way(keys) };
        busy.is_some_and(|busy| self.put_aside(client, busy))
    }

    /// Puts MULTI in front of what the transaction recorded and EXEC behind it.
    fn wrap_records(&mut self, before: &mut Vec<(u16, Vec<u8>)>) {
        let runs = self.effects.take_records();
        for (db, records) in before.drain(..) {
            self.effects.record_raw(db, &records);
        }
        let (Some(first), Some(last)) = (runs.first().map(|r| r.0), runs.last().map(|r| r.0)) else { return };
        let word = |w: &str| {
            let mut out = Vec::new();
            write_command(&mut out, &[w]);
            out
        };
        self.effects.record_raw(first, &word("MULTI"));
        for (db, records) in &runs {
            self.effects.record_raw(*db, records);
        }
        self.effects.record_raw(last, &word("EXEC"));
    }

    /// DISCARD, UNWATCH and RESET, after the command's locks are released.
    pub(super) fn end_transaction(&mut self, client: &mut Client, transaction: Transaction) {
        match transaction {
            Transaction::Exec => {}
            Transaction::Unwatch => self.unwatch(client),
            Transaction::Discard | Transaction::Reset => {
                client.version += 1;
                client.multi = None;
                client.asking = false;
                self.unwatch(client);
            }
        }
    }
}
