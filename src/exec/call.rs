//! The one place where a handler runs, whoever sent the command.
//!
//! What follows from who sent it is decided here and nowhere else:
//!
//! | origin | the gate asks about | may wait | dead keys | goes to the log | counted |
//! |---|---|---|---|---|---|
//! | client | everything | yes | as the node treats them | on a primary | when it ends |
//! | transaction | rights; EXEC was asked for all of it | no | as the node treats them | with its EXEC | when it ends |
//! | script | rights, and what stops writes | no | as the node treats them | with its script | when it ends |
//! | unblocked client | rights | goes on waiting | as the node treats them | on a primary | when it is served |
//! | stream of the primary | MULTI | no | are there | as it came, by [`Executor::commit`] | when it ends |
//! | append-only file | MULTI | no | are there | no | no |

use super::stats::CommandStats;
use super::track::remembers;
use super::{After, Executor, Host};
use crate::base::time::UnixMs;
use crate::command::client::Role;
use crate::command::spec::flags;
use crate::command::{Block, Client, Command, CommandError, Ctx, Outcome, Transaction, gate};
use crate::keyspace::board::Busy;
use crate::keyspace::db::Expiring;
use crate::keyspace::{Audience, Db, Known, Locked};
use crate::resp::Reply;

use std::sync::atomic::Ordering;

/// Who a command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Client,
    /// The queue of an EXEC.
    Transaction,
    /// A client that waited for a key, which has changed.
    Unblocked,
    /// A script, whoever called it.
    Script,
    /// Our primary. What it sent was accepted there.
    Primary,
    /// The append-only file that is loaded.
    File,
}

impl Origin {
    /// The origin of what comes over a connection.
    pub fn of(client: &Client) -> Self {
        match client.role {
            Role::Primary => Self::Primary,
            Role::File => Self::File,
            Role::Normal | Role::Replica => Self::Client,
        }
    }

    /// Whether its commands belong to something larger, at whose end clients that track by prefix are told.
    fn is_part(self) -> bool {
        matches!(self, Self::Transaction | Self::Script | Self::Unblocked)
    }

    /// Which conditions of the gate its commands are checked against.
    pub fn asked(self) -> u32 {
        match self {
            Self::Client => !0,
            // Rights may go between the queue and EXEC, or while a client waits.
            Self::Transaction | Self::Unblocked => gate::RESTRICTED,
            // The script itself was asked about the rest.
            Self::Script => gate::RESTRICTED | gate::STOPS_WRITES | gate::STALE | gate::MEMORY_LIMIT,
            Self::Primary | Self::File => gate::IN_MULTI,
        }
    }

    fn may_block(self) -> bool {
        matches!(self, Self::Client | Self::Unblocked)
    }
}

/// A command and its arguments.
pub(super) struct Call<'a> {
    /// The command's place in the table.
    pub id: usize,
    pub command: &'static Command,
    pub args: &'a [&'a [u8]],
    /// All its keys with their hashes, if somebody knows them already; see [`CommandEntry::keeps_to_keys`].
    ///
    /// [`CommandEntry::keeps_to_keys`]: crate::command::table::CommandEntry::keeps_to_keys
    pub keys: &'a [Known<'a>],
    pub now: UnixMs,
    /// So short that several in a row may be timed together.
    pub brief: bool,
}

/// How a call ended.
pub(super) enum Ended {
    Now(After),
    /// The command came to a shard that is held, and has done nothing.
    Aside(Busy),
    /// A script is to be run; nothing is counted yet.
    Script,
    /// The client waits for keys; nothing is counted yet.
    Blocks(Box<Block>),
    /// EXEC and its like: the executor goes on with them.
    Transaction(Transaction),
}

/// Calls that are timed together at most: with so many the clock costs a pipeline of GETs less than 2 % of its time,
/// and with one look for each it would be 7 %.
const TOGETHER: u64 = 8;
/// In nanoseconds. Calls are timed together only while the slow log and the latency monitor show none that is shorter
/// than this.
const TOO_LONG_TO_MISS: u64 = 1_000_000;

/// Measures what commands take, with one look at the clock a command: where one ends the next begins. Brief calls of
/// one command that follow each other in a pipeline share a look, and each is counted with an equal part.
pub(super) struct Stopwatch {
    clock: fn() -> u64,
    /// Nanoseconds of the clock when the last command ended.
    mark: u64,
    /// Calls that have ended since then and are not counted yet, all of the command `id`.
    uncounted: u64,
    id: usize,
    /// The command that follows is the same as the one that runs.
    next_is_alike: bool,
}

impl Stopwatch {
    pub fn new(clock: fn() -> u64) -> Self {
        Self { clock, mark: clock(), uncounted: 0, id: 0, next_is_alike: false }
    }

    pub fn start(&mut self) {
        self.mark = (self.clock)();
    }

    pub fn expect_alike(&mut self, alike: bool) {
        self.next_is_alike = alike;
    }

    /// Whether a brief call that has ended is counted together with the next one, by one look at the clock.
    /// `long_from`: calls that take so many nanoseconds are shown (slow log, latency monitor).
    #[inline(always)]
    pub fn leaves(&mut self, id: usize, long_from: u64) -> bool {
        let leaves = self.next_is_alike && self.uncounted < TOGETHER - 1 && long_from >= TOO_LONG_TO_MISS;
        if leaves {
            self.id = id;
            self.uncounted += 1;
        }
        leaves
    }

    /// Whether something was left to a call of another command than `id`.
    #[inline(always)]
    pub fn waits_for_another(&self, id: usize) -> bool {
        self.uncounted != 0 && self.id != id
    }

    /// Counts what was left to a call that did not come.
    #[inline]
    pub fn settle(&mut self, stats: &CommandStats, histogram: bool) {
        if self.uncounted != 0 {
            self.count(stats, self.id, self.mark, 0, histogram);
        }
    }

    /// When the command began that runs now.
    pub fn began(&self) -> u64 {
        self.mark
    }

    /// Counts `calls` that began at `began` and end now, and those that were left to them.
    /// Returns how many nanoseconds they took. `histogram`: they are counted in the command's histogram, too.
    #[inline(always)]
    pub fn count(&mut self, stats: &CommandStats, id: usize, began: u64, calls: u64, histogram: bool) -> u64 {
        self.mark = (self.clock)();
        let nanos = self.mark.wrapping_sub(began);
        stats.count_calls(id, std::mem::take(&mut self.uncounted) + calls, nanos, histogram);
        nanos
    }

    /// Nanoseconds on its clock.
    pub fn now(&self) -> u64 {
        (self.clock)()
    }
}

impl Executor {
    /// Runs a handler under locks, and counts, records and answers what follows from how it ended.
    #[inline(always)]
    pub(super) fn call(
        &mut self,
        origin: Origin,
        call: &Call<'_>,
        host: &mut dyn Host,
        client: &mut Client,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) -> Ended {
        let shared = self.shared;
        if self.stopwatch.waits_for_another(call.id) {
            self.settle_times();
        }
        let began = self.stopwatch.began();
        let expiring = self.prepare_effects(origin, call, client);
        let dirty_before = self.effects.dirty;
        reply.set_resp3(client.resp3);
        let mark = reply.len();
        let mut db = Db::new(locked, client.db, call.now, expiring, &mut self.effects);
        db.set_hints(call.keys);
        db.set_touch(!client.no_touch);
        let mut ctx = Ctx {
            db: &mut db,
            reply,
            client,
            limits: &self.limits,
            rng: &mut self.rng,
            command: call.command,
            id: call.id,
            commands: &shared.commands,
            clustered: shared.gate.load(Ordering::Relaxed) & gate::CLUSTER != 0,
            may_block: origin.may_block(),
            node: &*self.node,
        };
        let ended = match (call.command.run)(&mut ctx, call.args) {
            Ok(Outcome::Done) => Ended::Now(After::Done),
            Ok(Outcome::Block(block)) => {
                self.note_block(origin, call, host, client);
                return Ended::Blocks(block);
            }
            Ok(Outcome::Script) => return Ended::Script,
            Ok(Outcome::Aside(busy)) => {
                reply.truncate(mark);
                return Ended::Aside(busy);
            }
            Ok(Outcome::Transaction(transaction)) => Ended::Transaction(transaction),
            Ok(Outcome::Suspended) => Ended::Now(After::Suspended),
            Ok(Outcome::Detached) => Ended::Now(After::Detached),
            Err(fail) => {
                reply.truncate(mark);
                self.fail(call.id, &fail, reply);
                Ended::Now(After::Done)
            }
        };
        if self.effects.dirty != dirty_before && !self.effects.recorded {
            self.effects.record(client.db, call.args);
        }
        if client.tracks.is_some() {
            self.track(call, client);
        }
        self.publish_notices(host, origin.is_part());
        if !matches!(ended, Ended::Now(After::Postponed)) && origin != Origin::File {
            self.measure(host, call, client, began, origin == Origin::Script);
        }
        if !matches!(origin, Origin::Unblocked | Origin::File) {
            self.show(host, call, client, origin == Origin::Script);
        }
        ended
    }

    /// Says, before a handler runs, for whom and how its changes are recorded. Returns how it sees keys that have expired.
    #[inline(always)]
    fn prepare_effects(&mut self, origin: Origin, call: &Call<'_>, client: &Client) -> Expiring {
        let shared = self.shared;
        let replica = shared.is_replica.load(Ordering::Relaxed);
        // A script, too, obeys whoever called it.
        let obeyed = client.role.is_obeyed();
        let audience = if origin == Origin::Script { self.script_audience } else { Audience::ALL };
        self.effects.audience = audience;
        // A replica's log is its primary's stream and nothing else.
        self.effects.log_wanted =
            shared.keyspace.log.is_wanted() && !replica && !obeyed && (audience.links || audience.files);
        self.effects.recorded = false;
        self.effects.writer = client.id;
        self.effects.scripted = origin == Origin::Script;
        if call.command.has(flags::READS_COUNTERS) {
            self.publish_counts();
        }
        if obeyed { Expiring::Ignore } else { shared.expiring() }
    }

    /// A command that blocks has changed nothing but what waiting itself does.
    #[cold]
    fn note_block(&mut self, origin: Origin, call: &Call<'_>, host: &mut dyn Host, client: &Client) {
        // What it waits for has been looked at.
        if remembers(client, call.command) {
            self.remember(call, client.id);
        }
        // A reader of a group has made its consumer.
        self.publish_notices(host, origin.is_part());
        if origin != Origin::Unblocked {
            self.show(host, call, client, origin == Origin::Script);
        }
    }

    /// Answers a command that was called with an error.
    #[cold]
    pub(super) fn fail(&mut self, id: usize, fail: &CommandError, reply: &mut Reply) {
        let text = fail.to_string();
        reply.error(&text);
        self.stats.count_failed(id, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn pass(nanos: u64) {
        NOW.set(NOW.get() + nanos);
    }

    fn counted(stats: &CommandStats, id: usize) -> (u64, u64) {
        let counter = &stats.commands[id];
        (counter.calls.load(Ordering::Relaxed), counter.nanos.load(Ordering::Relaxed))
    }

    /// As a call does: what was left to another is settled, then it runs, then it is left or counted.
    fn run(watch: &mut Stopwatch, stats: &CommandStats, id: usize, nanos: u64, next_is_alike: bool) {
        watch.expect_alike(next_is_alike);
        if watch.waits_for_another(id) {
            watch.settle(stats, false);
        }
        let began = watch.began();
        pass(nanos);
        if !watch.leaves(id, u64::MAX) {
            watch.count(stats, id, began, 1, false);
        }
    }

    #[test]
    fn alike_calls_share_a_look_and_others_keep_their_own_time() {
        let (stats, mut watch) = (CommandStats::new(2), Stopwatch::new(|| NOW.get()));
        for i in 0..20 {
            run(&mut watch, &stats, 0, 10, i < 19);
        }
        assert_eq!(counted(&stats, 0), (20, 200));
        run(&mut watch, &stats, 1, 5000, false);
        run(&mut watch, &stats, 0, 10, false);
        assert_eq!((counted(&stats, 0), counted(&stats, 1)), ((21, 210), (1, 5000)));
    }

    #[test]
    fn a_call_that_waits_for_one_that_never_runs_is_counted() {
        let (stats, mut watch) = (CommandStats::new(2), Stopwatch::new(|| NOW.get()));
        run(&mut watch, &stats, 0, 10, true);
        assert_eq!(counted(&stats, 0), (0, 0));
        // The next one was refused.
        run(&mut watch, &stats, 1, 70, false);
        assert_eq!((counted(&stats, 0), counted(&stats, 1)), ((1, 10), (1, 70)));
        run(&mut watch, &stats, 0, 10, true);
        watch.settle(&stats, false);
        assert_eq!(counted(&stats, 0), (2, 20));
    }

    #[test]
    fn none_is_left_while_short_ones_are_to_be_shown() {
        let mut watch = Stopwatch::new(|| NOW.get());
        watch.expect_alike(true);
        assert!(!watch.leaves(0, TOO_LONG_TO_MISS - 1) && watch.leaves(0, TOO_LONG_TO_MISS));
    }
}
