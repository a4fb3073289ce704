//! Level 6: the way of a command: gate, route, lock, run, log, unlock, reply.
//!
//! An [`Executor`] belongs to one thread. Workers decode requests and look commands up; from there
//! on every command, whoever sent it, goes through [`Executor::execute`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Cache};

use crate::base::rng::Rng;
use crate::base::time::UnixMs;
use crate::cluster::view::View;
use crate::command::client::Role;
use crate::command::spec::flags;
use crate::command::table::Listed;
use crate::command::{
    Client, Command, CommandTable, Ctx, Fail, Outcome, Request, TimeoutReply, Transaction, gate,
};
use crate::keyspace::db::Expiring;
use crate::keyspace::watch::Waiter;
use crate::keyspace::{Db, Effects, Hashed, Keyspace, LockSet, Locked};
use crate::resp::Reply;
use crate::value::Limits;

mod aside;
mod blocked;
mod refusal;
mod route;
pub mod stats;
mod transaction;
mod upkeep;

use blocked::register;
use route::Route;
use stats::CommandStats;

/// What all executors of a node share.
pub struct Shared {
    pub keyspace: Arc<Keyspace>,
    pub commands: CommandTable,
    /// Conditions of the node: bits of [`gate`].
    pub gate: AtomicU32,
    pub limits: ArcSwap<Limits>,
    pub memory: MemoryLimit,
    /// Who owns which slot; `None` outside cluster mode.
    pub view: ArcSwapOption<View>,
    /// This node follows a primary: its clients see dead keys as missing, and it deletes none.
    pub is_replica: AtomicBool,
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
    pub samples: AtomicU32,
    /// How many keys one command evicts before it goes on although memory is still too much; the
    /// next one continues (`maxmemory-eviction-tenacity`).
    pub most: AtomicU64,
    /// Bytes allocated now.
    pub used: fn() -> u64,
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

    /// How this node treats keys whose time has come.
    pub fn expiring(&self) -> Expiring {
        // While writes are paused nothing may change, not even by itself: a failover relies on it.
        let paused = self.gate.load(Ordering::Relaxed) & gate::PAUSED_WRITES != 0;
        if paused || self.is_replica.load(Ordering::Relaxed) { Expiring::Hide } else { Expiring::Delete }
    }
}

/// What the executor needs of whoever runs it.
pub trait Host {
    /// Fulfils a request and writes the reply. Must take no shard lock: it may be called with
    /// locks held, which `db` knows. A request that waits says so in what it returns.
    fn perform(
        &mut self,
        request: Request,
        client: &mut Client,
        db: &mut Db<'_, '_>,
        reply: &mut Reply,
    ) -> After;

    /// Sends a blocked client what its command answered.
    fn deliver(&mut self, waiter: &Arc<Waiter>, reply: Reply);

    /// Asks the owner of a blocked client to run its command again.
    fn retry(&mut self, waiter: &Arc<Waiter>);
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
    /// Run the same command again when the client is woken: the board says that it waits.
    Aside,
    /// The connection leaves its worker for a replication link.
    Detached,
}

/// How a client waits.
#[derive(Debug)]
pub struct Blocked {
    /// Registered with the keys.
    pub waiter: Arc<Waiter>,
    pub timeout: Option<Duration>,
    pub timeout_reply: TimeoutReply,
}

/// Runs commands on one thread.
pub struct Executor {
    pub shared: &'static Shared,
    pub stats: Arc<CommandStats>,
    effects: Effects,
    rng: Rng,
    limits: Arc<Limits>,
    /// The published view, reloaded when it changes: one atomic load a command.
    view: Cache<&'static ArcSwapOption<View>, Option<Arc<View>>>,
    /// What could not be done because a shard was held; see [`Executor::do_chores`].
    chores: Vec<aside::Chore>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// `shared` lives as long as the process: commands reach it without counting references.
    pub fn new(shared: &'static Shared, stats: Arc<CommandStats>, seed: u64) -> Self {
        let limits = shared.limits.load_full();
        let view = Cache::new(&shared.view);
        Self {
            shared,
            stats,
            effects: Effects::seeded(!seed),
            rng: Rng::new(seed),
            limits,
            view,
            chores: Vec::new(),
        }
    }

    /// To be called once per wake-up: what may have changed since the last one.
    pub fn refresh(&mut self) {
        let limits = self.shared.limits.load();
        if !Arc::ptr_eq(&limits, &self.limits) {
            self.limits = Arc::clone(&limits);
        }
    }

    /// Adds what was counted to what all threads see. To be called behind each run of commands:
    /// once a command it would cost a locked instruction each time.
    pub fn publish_counts(&mut self) {
        publish(&mut self.effects, &self.stats, &self.shared.keyspace);
    }

    /// Finds the command that `args` call: its id, or the error reply.
    #[inline(always)]
    pub fn look_up(&self, args: &[&[u8]]) -> Result<usize, Fail> {
        if let Some(id) = self.shared.commands.find(args[0]) {
            let listed = self.shared.commands.get(id);
            if listed.subcommands.is_empty() && listed.command.accepts(args.len()) {
                return Ok(id);
            }
        }
        self.look_up_odd(args)
    }

    #[cold]
    fn look_up_odd(&self, args: &[&[u8]]) -> Result<usize, Fail> {
        let Some(id) = self.shared.commands.find(args[0]) else { return Err(refusal::unknown_command(args)) };
        let listed = self.shared.commands.get(id);
        if !listed.subcommands.is_empty() && args.len() > 1 {
            return self.look_up_sub(id, listed, args);
        }
        self.fitting(id, listed, args)
    }

    fn fitting(&self, id: usize, listed: &Listed, args: &[&[u8]]) -> Result<usize, Fail> {
        if !listed.command.accepts(args.len()) {
            self.stats.reject(id);
            return Err(Fail::Arity(listed.name.clone()));
        }
        Ok(id)
    }

    fn look_up_sub(&self, container: usize, listed: &Listed, args: &[&[u8]]) -> Result<usize, Fail> {
        let Some(id) = self.shared.commands.find_sub(container, args[1]) else {
            return Err(refusal::unknown_subcommand(&listed.name, args[1]));
        };
        self.fitting(id, self.shared.commands.get(id), args)
    }

    /// Runs one command for `client`. `hashed` is the hash of its single key, if the caller has it.
    #[inline]
    pub fn execute(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        id: usize,
        args: &[&[u8]],
        hashed: Option<Hashed>,
        now: UnixMs,
        reply: &mut Reply,
    ) -> After {
        let shared = self.shared;
        let listed = shared.commands.get(id);
        let command = listed.command;
        let bits = (shared.gate.load(Ordering::Relaxed) | client_bits(client)) & listed.needs;
        // Who is at the wrong node is told so before what this one would refuse: a primary that became a
        // replica sends writers away.
        let early =
            if bits & gate::CLUSTER != 0 { bits & (gate::UNAUTHENTICATED | gate::LOADING) } else { bits };
        // ASKING is for one command, whatever becomes of it, or for the transaction that it begins.
        let asking = bits & gate::ASKING != 0;
        if asking && bits & gate::IN_MULTI == 0 && command.name != "multi" {
            client.asking = false;
        }
        if early & !NOT_REFUSING != 0 {
            match self.pass_gate(client, id, listed, early, now, reply) {
                Passed::Run => {}
                Passed::Answered => return After::Done,
                Passed::Later => {
                    client.asking = asking;
                    return After::Postponed;
                }
            }
        }
        let mut routed = None;
        if bits & gate::CLUSTER != 0 && client.role != Role::Primary {
            let view = self.view.load().as_deref();
            // The common case: one key, in a slot that is ours and stays.
            let mine = matches!((view, hashed), (Some(view), Some(h)) if view.serves(h.slot));
            let mut route = None;
            if !mine || bits & gate::IN_MULTI != 0 {
                let route = route.insert(Route::of(command, args));
                // Before the node knows of the cluster it serves no key.
                let starting = || Err(Fail::text("CLUSTERDOWN The cluster is down"));
                if let Err(fail) = view.map_or_else(
                    || if route.is_keyless() { Ok(()) } else { starting() },
                    |view| route.check(view, client, asking),
                ) {
                    if let Some(multi) = &mut client.multi {
                        multi.aborted = true;
                    }
                    self.fail(id, &fail, reply);
                    return After::Done;
                }
            }
            let late = bits & !(early | NOT_REFUSING);
            routed = Some((route, view.map(std::ptr::from_ref), asking));
            if late != 0 {
                match self.pass_gate(client, id, listed, late, now, reply) {
                    Passed::Run => {}
                    Passed::Answered => return After::Done,
                    Passed::Later => {
                        client.asking = asking;
                        return After::Postponed;
                    }
                }
            }
        }
        if bits & gate::IN_MULTI != 0 {
            if command.name == "exec" {
                return self.exec_transaction(host, client, id, now, reply);
            }
            if let Some((Some(route), view, asking)) = &routed
                && let Err(fail) = self.confirm_queued(route, *view, client, *asking, now)
            {
                if let Some(multi) = &mut client.multi {
                    multi.aborted = true;
                }
                self.fail(id, &fail, reply);
                return After::Done;
            }
            if self.queue(client, id, listed, args, reply) {
                return After::Done;
            }
        }
        let hashed = hashed.filter(|_| listed.single_key.is_some());
        let Some(mut locked) = self.lock_for(client, command, args, hashed) else {
            client.asking = asking;
            return After::Aside;
        };
        if !self.may_apply(client) {
            return After::Done;
        }
        if let Some((route, view, asking)) = routed
            && (route.is_some() || self.view.load().as_deref().map(std::ptr::from_ref) != view)
            && let route = route.unwrap_or_else(|| Route::of(command, args))
            && let Err(fail) = self.confirm_route(&route, view, client, asking, now, &mut locked)
        {
            drop(locked);
            self.fail(id, &fail, reply);
            return After::Done;
        }
        // A failover waits for writes that passed the gate before it closed: they take the locks that it
        // took in between, and stop here.
        if bits & gate::CLUSTER != 0
            && client.role != Role::Primary
            && shared.gate.load(Ordering::Relaxed) & listed.needs & gate::PAUSED_WRITES != 0
        {
            client.asking = asking;
            return After::Postponed;
        }
        let hint = listed.single_key.and_then(|at| Some((args.get(at).copied()?, hashed?)));
        let after = self.run(host, client, id, command, args, hint, now, &mut locked, reply, true);
        self.commit(client);
        drop(locked);
        if let Some(transaction) = after.1 {
            self.end_transaction(client, transaction);
        }
        after.0
    }

    /// Checks a route again now that the locks are held: the slot may have moved meanwhile, and in
    /// a slot that is moving the keys decide.
    fn confirm_route(
        &mut self,
        route: &Route<'_>,
        routed_by: Option<*const View>,
        client: &Client,
        asking: bool,
        now: UnixMs,
        locked: &mut Locked<'_>,
    ) -> Result<(), Fail> {
        let Some(view) = self.view.load().as_deref() else { return Ok(()) };
        if routed_by != Some(std::ptr::from_ref(view)) {
            route.check(view, client, asking)?;
        }
        if view.moving {
            let expiring = self.shared.expiring();
            route.check_keys(view, &mut Db::new(locked, client.db, now, expiring, &mut self.effects))?;
        }
        Ok(())
    }

    /// A command that is about to be queued is told as early as the slot is moving where its keys are.
    fn confirm_queued(
        &mut self,
        route: &Route<'_>,
        routed_by: Option<*const View>,
        client: &Client,
        asking: bool,
        now: UnixMs,
    ) -> Result<(), Fail> {
        let moving = self.view.load().as_deref().is_some_and(|view| view.moving);
        let Some(slot) = route.slot().filter(|_| moving) else { return Ok(()) };
        let shared = self.shared;
        // Whoever holds the slot decides nothing of this; EXEC will look again.
        let Ok(mut locked) = shared.keyspace.try_lock_slot(slot, 0) else { return Ok(()) };
        self.confirm_route(route, routed_by, client, asking, now, &mut locked)
    }

    /// Calls the handler and deals with its outcome, under locks.
    #[inline(always)]
    fn run(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        id: usize,
        command: &'static Command,
        args: &[&[u8]],
        hint: Option<(&[u8], Hashed)>,
        now: UnixMs,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
        may_block: bool,
    ) -> (After, Option<Transaction>) {
        let from_primary = client.role == Role::Primary;
        let expiring = if from_primary { Expiring::Ignore } else { self.shared.expiring() };
        // A replica's log is its primary's stream and nothing else.
        let replica = self.shared.is_replica.load(Ordering::Relaxed);
        self.effects.log_wanted = self.shared.keyspace.log.is_wanted() && !from_primary && !replica;
        let mut dirty_before = self.effects.dirty;
        self.effects.recorded = false;
        reply.set_resp3(client.resp3);
        let mark = reply.len();
        let mut db = Db::new(locked, client.db, now, expiring, &mut self.effects);
        if let Some((key, hashed)) = hint {
            db.set_hint(key, hashed);
        }
        db.set_touch(!client.no_touch);
        let mut ctx = Ctx {
            db: &mut db,
            reply,
            client,
            limits: &self.limits,
            rng: &mut self.rng,
            command,
            clustered: self.shared.gate.load(Ordering::Relaxed) & gate::CLUSTER != 0,
            may_block: may_block && !from_primary,
        };
        let (mut after, mut transaction) = (After::Done, None);
        match (command.run)(&mut ctx, args) {
            Ok(Outcome::Done) => {}
            Ok(Outcome::Block(block)) => after = register(&mut db, client, args, &block),
            Ok(Outcome::Aside(busy)) => {
                self.put_aside_or_wake(client, busy);
                return (After::Aside, None);
            }
            Ok(Outcome::Transaction(t)) => {
                transaction = Some(t);
                if matches!(t, Transaction::Reset) {
                    after = host.perform(Request::Reset, client, &mut db, reply);
                }
            }
            Ok(Outcome::Node(request)) => {
                // INFO and SAVE read what was counted so far.
                publish(db.effects, &self.stats, &self.shared.keyspace);
                dirty_before = 0;
                after = host.perform(*request, client, &mut db, reply);
            }
            Err(fail) => {
                let text = fail.to_string();
                reply.truncate(mark);
                reply.error(&text);
                self.stats.count_failed(id, &text);
            }
        }
        if self.effects.dirty != dirty_before && !self.effects.recorded && self.effects.log_wanted {
            self.effects.record(client.db, args);
        }
        // Clients blocked on keys that a transaction changes see what it leaves behind.
        if may_block && !self.effects.ready.is_empty() {
            self.serve_blocked(host, now, locked);
        }
        (after, transaction)
    }

    /// Whether `client` is not the stream of a primary that is followed no more. Its locks are held, and
    /// whom the node follows changes only with all locks held.
    #[inline]
    fn may_apply(&self, client: &Client) -> bool {
        client.upstream.as_ref().is_none_or(|u| self.shared.keyspace.log.accepts(u.ticket))
    }

    /// Appends what the command recorded to the log, while its locks are held.
    #[inline]
    fn commit(&mut self, client: &mut Client) {
        if client.upstream.is_some() {
            self.pass_on(client);
        }
        if self.effects.has_records() {
            client.written_to = self.effects.append_to(&self.shared.keyspace.log);
        }
    }

    /// Appends a command of our primary to our own log as it came, unless a transaction that it belongs
    /// to is not at its end.
    fn pass_on(&mut self, client: &mut Client) {
        if client.multi.is_none()
            && let Some(upstream) = &mut client.upstream
        {
            self.shared.keyspace.log.append_stream(upstream.ticket, &upstream.raw, client.db);
            upstream.raw.clear();
        }
    }

    fn fail(&mut self, id: usize, fail: &Fail, reply: &mut Reply) {
        let text = fail.to_string();
        reply.error(&text);
        self.stats.count_rejected(id, &text);
    }
}

fn publish(effects: &mut Effects, stats: &CommandStats, ks: &Keyspace) {
    stats.add_lookups(std::mem::take(&mut effects.hits), std::mem::take(&mut effects.misses));
    if effects.dirty != 0 {
        ks.stats.dirty.fetch_add(std::mem::take(&mut effects.dirty), Ordering::Relaxed);
    }
}

/// Whether a command may go on.
enum Passed {
    Run,
    Answered,
    Later,
}

#[inline(always)]
fn client_bits(client: &Client) -> u32 {
    let mut bits = 0;
    if !client.authenticated {
        bits |= gate::UNAUTHENTICATED;
    }
    if client.multi.is_some() {
        bits |= gate::IN_MULTI;
    }
    if client.is_subscribed_resp2() {
        bits |= gate::SUBSCRIBED;
    }
    if client.asking {
        bits |= gate::ASKING;
    }
    bits
}

/// Conditions that change a command's way and refuse nothing.
const NOT_REFUSING: u32 = gate::CLUSTER | gate::IN_MULTI | gate::ASKING;

/// The shards that a command needs. `None` when its keys cannot be told.
fn lock_set(command: &Command, args: &[&[u8]]) -> Option<LockSet> {
    if command.has(flags::LOCK_ALL) {
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
