//! Level 6: the way of a command: gate, route, lock, run, log, unlock, reply.
//!
//! An [`Executor`] belongs to one thread. Workers decode requests and look commands up; from there
//! on every command, whoever sent it, goes through [`Executor::execute`].

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Cache};

use crate::base::rng::Rng;
use crate::base::time::UnixMs;
use crate::cluster::view::View;
use crate::command::spec::flags;
use crate::command::table::{CommandEntry, Recent};
use crate::command::{Client, Command, CommandError, CommandTable, TimeoutReply, gate};
use crate::keyspace::board::Busy;
use crate::keyspace::db::{Expiring, Notice};
use crate::keyspace::tracking::{Changed, Stale};
use crate::keyspace::watch::Waiter;
use crate::keyspace::{Audience, Db, Effects, Keyspace, Known, LockSet, Locked, UnitInfo};
use crate::resp::Reply;
use crate::script::Store;
use crate::value::Limits;

mod admit;
mod aside;
mod blocked;
mod call;
pub mod histogram;
pub mod libraries;
mod notices;
pub mod observe;
pub mod parcel;
pub mod rights;
mod route;
pub mod script;
pub mod stats;
mod track;
mod transaction;
pub mod upkeep;

use admit::Admitted;
use blocked::register;
use call::{Call, Ended, Origin, Stopwatch};
use observe::{Observers, Seen};
use rights::Denied;
use stats::CommandStats;

/// A command with more words than this is not brief, whatever its complexity: they may be elements.
const BRIEF_WORDS: usize = 6;

/// What all executors of a node share.
pub struct Shared {
    /// All data of the node.
    pub keyspace: Arc<Keyspace>,
    /// Names as `rename-command` left them.
    pub commands: CommandTable,
    /// Conditions of the node: bits of [`gate`].
    pub gate: AtomicU32,
    /// Directives that shape values; each executor takes a change over with its next batch of commands.
    pub limits: ArcSwap<Limits>,
    /// `maxmemory` and how keys are evicted.
    pub memory: MemoryLimit,
    /// Why the append-only file cannot be written, in the system's words.
    pub log_trouble: ArcSwap<String>,
    /// Who owns which slot; `None` outside cluster mode.
    pub view: ArcSwapOption<View>,
    /// This node follows a primary: its clients see dead keys as missing, and it deletes none.
    pub is_replica: AtomicBool,
    /// Scripts and functions.
    pub scripts: Store,
    /// `busy-reply-threshold` in milliseconds: a client that needs the locks of a script that has run for longer
    /// is told -BUSY; 0: none is.
    pub busy_after_ms: AtomicU64,
    /// Who looks at commands that have run.
    pub observers: Observers,
    /// Which script may wait for locks with others in hand.
    pub claims: script::Claims,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// `maxmemory` and how it is measured.
pub struct MemoryLimit {
    /// Bytes; 0: none.
    pub limit: AtomicU64,
    /// `maxmemory-policy`, by its number.
    pub policy: AtomicU8,
    /// `maxmemory-samples`: keys that are compared to find the one to evict.
    pub samples: AtomicU32,
    /// How many keys are evicted in one go; after that commands run although memory is still above its limit
    /// (`maxmemory-eviction-tenacity`).
    pub most: AtomicU64,
    /// Bytes allocated now.
    pub used: fn() -> u64,
    /// Values that are gone but whose memory is still being freed.
    pub being_freed: fn() -> usize,
}

impl Shared {
    /// Sets or clears a condition of the node.
    pub fn set_gate(&self, bit: u32, on: bool) {
        if on {
            self.gate.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.gate.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Whether memory is above `limit`, not counting what the log keeps for readers that are behind (replicas, the
    /// append-only file): keys that are evicted would make that longer still.
    pub fn is_above(&self, limit: u64) -> bool {
        let used = (self.memory.used)();
        used > limit && used.saturating_sub(self.keyspace.log.beyond_backlog()) > limit
    }

    /// Goes through the keys of a call with their hashes; through none if they cannot be told.
    #[inline(always)]
    pub fn each_key<'a>(&self, entry: &CommandEntry, args: &[&'a [u8]], mut f: impl FnMut(Known<'a>)) {
        if let Some(at) = entry.single_key {
            if let Some(key) = args.get(at) {
                f((key, self.keyspace.hashed(key)));
            }
        } else if !entry.command.keys.is_empty() {
            let positions = entry.command.key_positions(args).unwrap_or_default();
            positions.into_iter().for_each(|at| f((args[at], self.keyspace.hashed(args[at]))));
        }
    }

    /// How this node treats keys whose time has come.
    pub fn expiring(&self) -> Expiring {
        // While writes are paused nothing may change, not even by itself: a failover relies on it.
        let paused = self.gate.load(Ordering::Relaxed) & gate::PAUSED_WRITES != 0;
        if paused || self.is_replica.load(Ordering::Relaxed) { Expiring::Hide } else { Expiring::Delete }
    }
}

/// What the executor needs of whoever runs it.
pub trait Host {
    /// Sends a blocked client what its command answered. `written_to` is the end of the log behind what the
    /// command wrote; 0 when it wrote nothing.
    fn deliver(&mut self, waiter: &Arc<Waiter>, reply: Reply, written_to: u64);

    /// Publishes an event of a key. Must take no shard lock.
    fn notify(&mut self, notice: &Notice);

    /// Asks the owner of a blocked client to run its command again.
    fn retry(&mut self, waiter: &Arc<Waiter>);

    /// Tells those who track keys that these are stale: all, if `flushed`. `writer`: the client whose command
    /// changed them, or 0. Must take no shard lock.
    fn invalidate(&mut self, stale: &[Stale], flushed: bool, writer: u64);

    /// Tells those who hear of all keys that these have changed. Must take no shard lock.
    fn broadcast(&mut self, changed: &[Changed]);

    /// Shows a call that took at least [`Observers::long_from`].
    fn took_long(&mut self, seen: &Seen<'_>);

    /// Shows a call while somebody monitors. Must take no shard lock.
    fn ran(&mut self, seen: &Seen<'_>);

    /// What ran from now on may have to begin anew: it is shown once [`Host::show_held`] says that it stays.
    fn hold_shown(&mut self) {}

    /// Shows what was held, or forgets it; what runs from now on is shown at once.
    fn show_held(&mut self, _stays: bool) {}

    /// Notes that a user was not allowed to run a command. Must take no shard lock.
    fn denied(&mut self, denied: &Denied<'_>);

    /// Tells how long the node did something by itself, by the name of the event for the latency monitor.
    fn did(&mut self, event: &'static str, nanos: u64);

    /// Is called every now and then while a script runs on: time for whoever waits for this thread. `long`: it has
    /// run for longer than `busy-reply-threshold`.
    fn meanwhile(&mut self, _long: bool) {}
}

/// What is to happen to the connection after a command.
#[derive(Debug)]
pub enum After {
    /// The reply is complete.
    Done,
    /// The client waits.
    Blocked(Box<Blocked>),
    /// The connection waits for something else that its host knows (WAIT, a paused node); nothing
    /// more of it is run until the host says so.
    Suspended,
    /// Run the same command again later: the node is paused.
    Postponed,
    /// Run the same command again when the client, which is on the board, is woken.
    Aside,
    /// The connection leaves its worker for a replication link.
    Detached,
}

/// How a client waits.
#[derive(Debug)]
pub struct Blocked {
    /// Registered with the keys.
    pub waiter: Arc<Waiter>,
    /// From now on; `None`: for ever.
    pub timeout: Option<Duration>,
    /// What it gets when the time is over.
    pub timeout_reply: TimeoutReply,
}

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
    limits: Arc<Limits>,
    /// The published view, reloaded when it changes: one atomic load a command.
    view: Cache<&'static ArcSwapOption<View>, Option<Arc<View>>>,
    recent: Recent,
    stopwatch: Stopwatch,
    /// Work put off because a shard was held; see [`Executor::do_chores`].
    chores: Vec<aside::Chore>,
    /// To whom is propagated what the script that runs does now (`redis.set_repl`).
    script_audience: Audience,
    /// Memory was above its limit, and nothing could go, when the last script was to run.
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

    /// Counts calls that were left to one that did not come.
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

    /// Finds the command that `args` call: its id, or the error reply.
    #[inline(always)]
    pub fn look_up(&self, args: &[&[u8]]) -> Result<usize, CommandError> {
        match self.shared.commands.find_again(args[0], &self.recent) {
            Some(id) if self.shared.commands.get(id).fits(args.len()) => Ok(id),
            _ => self.look_up_odd(args),
        }
    }

    #[cold]
    fn look_up_odd(&self, args: &[&[u8]]) -> Result<usize, CommandError> {
        let Some(id) = self.shared.commands.find(args[0]) else { return Err(admit::unknown_command(args)) };
        let entry = self.shared.commands.get(id);
        if !entry.subcommands.is_empty() && args.len() > 1 {
            return self.look_up_sub(id, entry, args);
        }
        Self::fitting(id, entry, args)
    }

    /// The id of the command that `args` name, whether or not they suit it.
    pub fn named(&self, args: &[&[u8]]) -> Option<usize> {
        let id = self.shared.commands.find(args.first()?)?;
        match args.get(1) {
            Some(word) if !self.shared.commands.get(id).subcommands.is_empty() => {
                self.shared.commands.find_sub(id, word)
            }
            _ => Some(id),
        }
    }

    fn fitting(id: usize, entry: &CommandEntry, args: &[&[u8]]) -> Result<usize, CommandError> {
        if !entry.command.accepts(args.len()) {
            return Err(CommandError::Arity(entry.name.clone()));
        }
        Ok(id)
    }

    fn look_up_sub(
        &self,
        container: usize,
        entry: &CommandEntry,
        args: &[&[u8]],
    ) -> Result<usize, CommandError> {
        let Some(id) = self.shared.commands.find_sub(container, args[1]) else {
            return Err(admit::unknown_subcommand(&entry.name, args[1]));
        };
        Self::fitting(id, self.shared.commands.get(id), args)
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

    /// What may have changed between the first look and the locks: whose slot it is, whom the node follows,
    /// and whether writes are paused.
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

    /// What a command or a transaction did goes to the log, and those who waited for it are served.
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
