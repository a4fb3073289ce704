//! Level 6: the way of a command: gate, route, lock, run, log, unlock, reply.
//!
//! An [`Executor`] belongs to one thread. Workers decode requests and look commands up; from there
//! on every command, whoever sent it, goes through [`Executor::execute`].
//!
//! | file | concept |
//! |---|---|
//! | `shared` | what all executors of a node share |
//! | `host` | what an executor asks of its thread |
//! | `lookup` | which command a request names |
//! | `admit`, `rights`, `route` | whether a command may run: the gate, its user, the owner of its slot |
//! | `aside` | clients whose command cannot have its locks at once |
//! | `call` | the one place where a handler runs |
//! | `transaction`, `script` | EXEC; EVAL and FCALL |
//! | `blocked` | clients that are blocked on keys |
//! | `notices`, `track`, `observe` | who is told: subscribers to events, clients that track keys, MONITOR and the slow log |
//! | `upkeep` | eviction and expiry |
//! | `parcel` | keys that MIGRATE has sent |
//! | `libraries` | loading libraries of functions |
//! | `stats`, `histogram` | what is counted of each command |

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwapOption, Cache};

use crate::base::rng::Rng;
use crate::base::time::UnixMs;
use crate::cluster::view::View;
use crate::command::spec::flags;
use crate::command::table::{CommandEntry, Recent};
use crate::command::{Client, Command, CommandError, gate};
use crate::keyspace::board::Busy;
use crate::keyspace::db::Expiring;
use crate::keyspace::evict::Pool;
use crate::keyspace::{Audience, Db, Effects, Known, LockSet, Locked, UnitInfo};
use crate::resp::Reply;
use crate::value::Limits;

mod admit;
mod aside;
mod blocked;
mod call;
pub mod histogram;
mod host;
pub mod libraries;
mod lookup;
mod notices;
pub mod observe;
pub mod parcel;
pub mod rights;
mod route;
pub mod script;
mod shared;
pub mod stats;
mod track;
mod transaction;
pub mod upkeep;

pub use host::{After, Blocked, Host};
pub use shared::{MemoryLimit, Shared};

use admit::Admitted;
use blocked::register;
use call::{Call, Ended, Origin, Stopwatch};
use stats::CommandStats;

/// A command with more words than this is not brief, whatever its complexity: they may be elements.
const BRIEF_WORDS: usize = 6;

/// Runs commands on one thread.
pub struct Executor {
    /// The same for every executor of the node.
    pub shared: &'static Shared,
    /// This thread's counters; INFO adds those of all threads up.
    pub stats: Arc<CommandStats>,
    /// What commands of the server's own find in their context.
    node: Box<dyn Any + Send>,
    effects: Effects,
    rng: Rng,
    /// Keys that may be evicted next.
    pool: Pool,
    limits: Arc<Limits>,
    /// The published view, reloaded when it changes: one atomic load a command.
    view: Cache<&'static ArcSwapOption<View>, Option<Arc<View>>>,
    recent: Recent,
    stopwatch: Stopwatch,
    /// Work that was postponed because a shard was held; see [`Executor::do_chores`].
    chores: Vec<aside::Chore>,
    /// To whom is propagated what the script that runs does now (`redis.set_repl`).
    script_audience: Audience,
    /// When the last script was to run, memory was above its limit and nothing could be evicted.
    lacks_memory: bool,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// `shared` lives as long as the process: commands reach it without counting references. `node` is the
    /// state that the server's own commands ask for. `clock` tells nanoseconds since any moment; it measures
    /// what commands take.
    pub fn new(
        shared: &'static Shared,
        node: Box<dyn Any + Send>,
        stats: Arc<CommandStats>,
        seed: u64,
        clock: fn() -> u64,
    ) -> Self {
        Self {
            shared,
            node,
            stats,
            effects: Effects::seeded(!seed),
            rng: Rng::new(seed),
            pool: Pool::default(),
            limits: shared.limits.load_full(),
            view: Cache::new(&shared.view),
            recent: Recent::default(),
            stopwatch: Stopwatch::new(clock),
            chores: Vec::new(),
            script_audience: Audience::ALL,
            lacks_memory: false,
        }
    }

    /// Takes over what may have changed since the last batch of commands. To be called before each.
    pub fn refresh(&mut self) {
        let limits = self.shared.limits.load();
        if !Arc::ptr_eq(&limits, &self.limits) {
            self.limits = Arc::clone(&limits);
        }
        self.start_batch();
    }

    /// Time from now on is counted for the next command.
    pub fn start_batch(&mut self) {
        self.settle_times();
        self.stopwatch.start();
    }

    /// Tells, before a command of a batch, whether the one behind it is the same: then both may be timed together.
    #[inline]
    pub fn expect_alike(&mut self, alike: bool) {
        self.stopwatch.expect_alike(alike);
    }

    /// Time from now on is counted for no command of the batch.
    pub fn end_batch(&mut self) {
        self.stopwatch.expect_alike(false);
        self.settle_times();
    }

    /// Counts calls that were to be counted with a following one, which did not come.
    fn settle_times(&mut self) {
        self.stopwatch.settle(&self.stats, self.shared.observers.histograms.load(Ordering::Relaxed));
    }

    /// Adds what was counted to what all threads see. To be called after each run of commands: after each command
    /// it would cost a locked instruction.
    pub fn publish_counts(&mut self) {
        let effects = &mut self.effects;
        self.stats.add_lookups(std::mem::take(&mut effects.hits), std::mem::take(&mut effects.misses));
        if effects.dirty != 0 {
            let dirty = std::mem::take(&mut effects.dirty);
            self.shared.keyspace.stats.dirty.fetch_add(dirty, Ordering::Relaxed);
        }
    }

    /// Runs one command for `client`: admit, lock, look again, call, log, unlock. `keys`: what
    /// [`each_key`](Shared::each_key) tells of it, or nothing.
    #[expect(clippy::too_many_arguments, reason = "all that a call is made of")]
    #[inline]
    pub fn execute<'a>(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        id: usize,
        args: &'a [&'a [u8]],
        keys: &'a [Known<'a>],
        now: UnixMs,
        reply: &mut Reply,
    ) -> After {
        let shared = self.shared;
        let entry = shared.commands.get(id);
        let call = Call {
            id,
            command: entry.command,
            args,
            keys,
            now,
            brief: entry.brief && args.len() <= BRIEF_WORDS,
        };
        let bits = (shared.gate.load(Ordering::Relaxed) | client.conditions()) & entry.needs;
        let mut admitted = Admitted::default();
        if bits == gate::RESTRICTED && rights::are_clear(client, entry, id, args) {
            // An ordinary user who may run it.
        } else if bits != 0 {
            match self.admit(host, client, &call, entry, bits, reply) {
                Ok(passed) => admitted = passed,
                Err(after) => return after,
            }
        }
        // Both branches call `run` themselves: if they met here first, the locks would be copied.
        let mut busy = None;
        if entry.keeps_to_keys
            && let [(_, hashed)] = call.keys
        {
            match shared.keyspace.try_lock_slot(hashed.slot, client.aside.tries) {
                Ok(locked) => return self.run(host, client, &call, entry, &admitted, locked, reply),
                Err(held) => busy = Some(held),
            }
        }
        self.run_later(host, client, &call, entry, &admitted, busy, reply)
    }

    /// The rest of [`execute`](Self::execute) for a command that did not get its locks at once.
    #[expect(clippy::too_many_arguments, reason = "all that a call is made of")]
    #[inline(never)]
    fn run_later<'a>(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'a>,
        entry: &CommandEntry,
        admitted: &Admitted<'a>,
        busy: Option<Busy>,
        reply: &mut Reply,
    ) -> After {
        match self.lock_for(client, call, entry, busy) {
            Some(locked) => self.run(host, client, call, entry, admitted, locked, reply),
            None => self.wait_for_locks(host, client, call, admitted, reply),
        }
    }

    /// The client was put aside, or is told that a script holds what it needs.
    #[cold]
    fn wait_for_locks(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
        admitted: &Admitted<'_>,
        reply: &mut Reply,
    ) -> After {
        if std::mem::take(&mut client.aside.busy) {
            return if call.command.has(flags::ALLOW_BUSY) {
                self.watch_unseen(host, client, call, reply)
            } else {
                self.tell_busy(client, call, reply)
            };
        }
        client.set_asking(admitted.asking);
        After::Aside
    }

    /// Runs a command under its locks.
    #[expect(clippy::too_many_arguments, reason = "all that a call is made of")]
    #[inline(always)]
    fn run<'a>(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'a>,
        entry: &CommandEntry,
        admitted: &Admitted<'a>,
        mut locked: Locked<'static>,
        reply: &mut Reply,
    ) -> After {
        if !self.may_write(client, call, &mut locked) {
            return self.wait_for_locks(host, client, call, admitted, reply);
        }
        if let Err(after) = self.look_again(client, call, entry, admitted, &mut locked, reply) {
            return after;
        }
        let mut ended = self.call(Origin::of(client), call, host, client, &mut locked, reply);
        if matches!(ended, Ended::Script) {
            ended = self.run_script(Origin::of(client), call, host, client, &mut locked, reply);
        }
        self.conclude(host, client, call.now, &mut locked);
        match ended {
            Ended::Aside(busy) => {
                if !call.command.has(flags::ALLOW_BUSY) && self.is_busy(busy) {
                    return self.tell_busy(client, call, reply);
                }
                client.set_asking(admitted.asking);
                self.put_aside_or_wake(client, busy);
                After::Aside
            }
            Ended::Script => After::Done,
            Ended::Now(after) => {
                drop(locked);
                if !self.effects.dead.is_empty() {
                    self.bury(host, call.now);
                }
                after
            }
            Ended::Blocks(block) => {
                let mut db = Db::new(&mut locked, client.db, call.now, Expiring::Ignore, &mut self.effects);
                register(&mut db, client, call, &block)
            }
            Ended::Transaction(transaction) => {
                drop(locked);
                self.end_transaction(client, transaction);
                After::Done
            }
        }
    }

    /// Checks once more, under the locks, what may have changed since the command was admitted: the owner of its
    /// slot, the primary that is followed, and whether writes are paused.
    #[inline(always)]
    fn look_again<'a>(
        &mut self,
        client: &mut Client,
        call: &Call<'a>,
        entry: &CommandEntry,
        admitted: &Admitted<'a>,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) -> Result<(), After> {
        if client.role.is_obeyed() {
            return if self.may_apply(client) { Ok(()) } else { Err(After::Done) };
        }
        if admitted.clustered {
            self.confirm_slot(client, call, admitted, locked, reply)?;
        }
        // A failover waits for writes that passed the gate before it closed: they take the locks that it
        // took in between, and stop here.
        if self.shared.gate.load(Ordering::Relaxed) & entry.needs & gate::PAUSED_WRITES != 0
            && script::says_whether_it_writes(self.shared, call.command, call.args) != Some(false)
        {
            client.set_asking(admitted.asking);
            return Err(After::Postponed);
        }
        Ok(())
    }

    /// False for the stream of a primary that is not followed any more. Its locks are held, and
    /// whom the node follows changes only with all locks held.
    #[inline]
    fn may_apply(&self, client: &Client) -> bool {
        client.upstream.as_ref().is_none_or(|u| self.shared.keyspace.log.accepts(u.ticket))
    }

    /// Appends what a command or a transaction did to the log, and serves the clients that were blocked on its keys.
    #[inline(always)]
    fn conclude(&mut self, host: &mut dyn Host, client: &mut Client, now: UnixMs, locked: &mut Locked<'_>) {
        self.commit(client);
        if !self.effects.ready.is_empty() {
            self.serve_blocked(host, now, locked);
        }
    }

    /// Appends what the command recorded to the log as one unit, while its locks are held.
    #[inline]
    fn commit(&mut self, client: &mut Client) {
        if client.upstream.is_some() {
            self.pass_on(client);
        }
        if self.effects.has_records() {
            client.written_to = self.effects.append_to(&self.shared.keyspace.log, true);
        }
    }

    /// Appends a command of our primary to our own log as it came; commands of a transaction together, at its end.
    fn pass_on(&mut self, client: &mut Client) {
        if !client.in_multi()
            && let Some(upstream) = &mut client.upstream
            && !upstream.raw.is_empty()
        {
            let info = UnitInfo::data(self.effects.take_slot());
            self.shared.keyspace.log.append_stream(upstream.ticket, &upstream.raw, client.db, info);
            upstream.raw.clear();
        }
    }

    /// Answers a command that is not called with an error.
    fn reject(&mut self, id: usize, fail: &CommandError, reply: &mut Reply) {
        let text = fail.to_string();
        reply.error(&text);
        self.stats.count_rejected(id, &text);
    }
}

/// The shards that a command needs. `None` when its keys cannot be told.
fn lock_set(shared: &Shared, command: &Command, args: &[&[u8]]) -> Option<LockSet> {
    let any_key = (command.has(flags::PATTERN_KEYS)
        && crate::command::family::sort::reaches_other_slots(args))
        || (command.has(flags::RUNS_SCRIPT) && !script::keeps_to_its_keys(shared, command, args));
    if any_key || command.has(flags::LOCK_ALL) {
        return Some(LockSet::ALL);
    }
    let mut set = LockSet::NONE;
    if !command.keys.is_empty() {
        for at in command.key_positions(args)? {
            set.add_slot(crate::base::crc16::key_slot(args[at]));
        }
    }
    Some(set)
}
