//! Scripts: what their commands may do, which locks they hold, and who is told of one that takes long.
//!
//! # Locks
//!
//! A script is one command to everybody else: from its first command to its last no other one sees the keys that
//! it uses. It holds the shards of its declared keys, or all.
//!
//! - A script whose text shows that it uses no other keys ([`script::proof`]) takes theirs; from its first run on, also
//!   one of EVAL's, if it declares any.
//! - Any other takes all locks, until three runs have used declared keys alone; then it takes theirs. Once it has used
//!   another key it takes all for ever ([`Conduct`]). So do the scripts of a transaction, always.
//!
//! A script of the second kind that holds the locks of its keys and comes to another one all the same
//!
//! 1. takes all other locks, if all are free at that moment; nobody could tell the difference;
//! 2. else, if it has changed nothing, lets its locks go and begins anew with all of them, as a command that finds
//!    a shard held does (`exec::aside`): nobody has seen anything of it;
//! 3. else it keeps what it holds and waits for the rest, because letting go would show a half-done script.
//!
//! Only one script of the node can ever be at 3: before its first change such a script claims the right to wait so
//! (`Claim`), and begins anew later if another has it. Nobody else waits with locks in hand for longer than a
//! moment ([`PATIENCE`](crate::keyspace::locks)): not a proven script, which needs no more than it has; not
//! one without the claim, which has changed nothing. So what the one waits for is let go, and no order of events ends
//! in a deadlock, an error or a half-done script that others see.
//!
//! # Time
//!
//! Once a script has run for `busy-reply-threshold` it declares its locks as long
//! ([`Locked::declare_long`]): a client that needs one of them is told -BUSY, and everybody else goes on. SCRIPT KILL
//! is heard at every look ([`Calls::look`](script::Calls::look)), which functions that take long have, too. At each look after some
//! milliseconds the worker whose thread it is serves its other clients ([`Host::meanwhile`]): no client is to suffer
//! for the worker that its connection is at.
//!
//! | file | concept |
//! |---|---|
//! | `keys` | what is known before it runs: whether it writes, and keeps to its keys |
//! | `locks` | the locks that it holds, and how it comes to more |
//! | `calls` | what it asks of the node while it runs |
//! | `refusals` | what its commands are refused for |

mod calls;
mod keys;
mod locks;
mod refusals;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::call::{Call, Ended, Origin};
use super::upkeep::Room;
use super::{After, Executor, Host};
use crate::base::crc16::key_slot;
use crate::base::num::parse_i64;
use crate::base::time::UnixMs;
use crate::command::client::Aside;
use crate::command::spec::flags;
use crate::command::{Client, CommandError, gate};
use crate::keyspace::board::{Busy, Reason};
use crate::keyspace::{Audience, LockSet, Locked};
use crate::resp::Reply;
use crate::script::store::Conduct;
use crate::script::{self, Engine, Failure, Flags, Function, Given, Known, Library, Running, Store};

use keys::{is_proven, named_by};
pub(super) use keys::{keeps_to_its_keys, says_whether_it_writes, spared};
use locks::Claim;
pub use locks::Claims;

/// A script that has run for so long can be seen and killed, in milliseconds.
const SHOWN_AFTER: u64 = 5;
/// From one look at what goes on around a script to the next, in nanoseconds.
pub(super) const BETWEEN_LOOKS: u64 = 50_000;

/// What is to be run.
enum Subject {
    Script(Rc<Known>),
    Function(Arc<Library>, Arc<Function>),
}

impl Subject {
    fn flags(&self) -> Flags {
        match self {
            Self::Script(known) => known.script.flags,
            Self::Function(_, function) => function.flags,
        }
    }

    fn conduct(&self) -> &Conduct {
        match self {
            Self::Script(known) => &known.script.conduct,
            Self::Function(_, function) => &function.conduct,
        }
    }
}

const NO_SCRIPT: CommandError = CommandError::text("NOSCRIPT No matching script. Please use EVAL.");

/// The keys and other arguments of a call.
fn given<'a>(args: &'a [&'a [u8]], of_function: bool) -> Result<Given<'a>, CommandError> {
    let wrong = if of_function {
        CommandError::text("ERR Bad number of keys provided")
    } else {
        CommandError::NotInteger
    };
    let count = parse_i64(args[2]).ok_or(wrong)?;
    let rest = &args[3..];
    if count > rest.len() as i64 {
        return Err(CommandError::text("ERR Number of keys can't be greater than number of args"));
    }
    let count =
        usize::try_from(count).map_err(|_| CommandError::text("ERR Number of keys can't be negative"))?;
    let (keys, args) = rest.split_at(count);
    Ok(Given { keys, args })
}

/// What is to be run, and what of that is known before it begins.
struct Task<'r> {
    call: &'r Call<'r>,
    subject: Subject,
    given: Given<'r>,
    flags: Flags,
    read_only: bool,
    /// Memory was above its limit when the script was asked for, and it does not say that it may run all the same.
    short_of_memory: bool,
    obeyed: bool,
    /// The shards of the keys that it declares.
    declared: LockSet,
    /// It may come to a key that it has not declared.
    may_stray: bool,
}

/// One run of a script. It may have to begin anew, and is another run then.
struct Run<'r, 'l> {
    executor: &'r mut Executor,
    host: &'r mut dyn Host,
    client: &'r mut Client,
    locked: &'r mut Locked<'l>,
    task: &'r Task<'r>,
    /// It has used a key that it did not declare.
    strayed: bool,
    wrote: bool,
    /// The slot of its keys in a cluster, once it was asked for: that of its first declared key, or of the first it
    /// used.
    slot: Option<u16>,
    /// What held it up before it had written, so that it is to run again.
    held_up: Option<Busy>,
    claim: Option<Claim>,
    /// Nanoseconds on the stopwatch of the executor.
    began: u64,
    /// Until it has run for so many nanoseconds there is nothing to look at.
    look_again: u64,
    running: Option<Arc<Running>>,
    long: bool,
}

impl Executor {
    /// Whether a command, by its place in the table, runs scripts; false if there is none there.
    #[inline]
    pub fn runs_scripts(&self, id: usize) -> bool {
        id < self.shared.commands.len() && self.shared.commands.get(id).command.has(flags::RUNS_SCRIPT)
    }

    /// Runs the script that a command asks for, under the locks that were taken for it.
    pub(super) fn run_script(
        &mut self,
        origin: Origin,
        call: &Call<'_>,
        host: &mut dyn Host,
        client: &mut Client,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) -> Ended {
        let began = self.stopwatch.began();
        let obeyed = client.role.is_obeyed();
        self.show_begin(host, call, client);
        let outer = client.runs_others;
        client.runs_others = outer.or(Some(call.command.name));
        let result = script::engine()
            .ok_or(CommandError::text("ERR the interpreter for scripts cannot be started"))
            .and_then(|engine| Ok((self.find_task(&engine, obeyed, call, locked.set())?, engine)));
        let failure = match result {
            Ok((task, engine)) => match self.run_task(&engine, &task, host, client, locked, reply) {
                Ok(failure) => failure,
                Err(busy) => {
                    host.show_held(false);
                    client.runs_others = outer;
                    return Ended::Aside(busy);
                }
            },
            Err(fail) => {
                let text = fail.to_string();
                reply.set_resp3(client.resp3);
                reply.error(&text);
                Some(text.into())
            }
        };
        host.show_held(true);
        client.runs_others = outer;
        if let Some(failure) = failure {
            self.stats.fail(call.id);
            if !failure.counted {
                self.stats.count_error(&failure.text);
            }
        }
        self.publish_notices(host, origin == Origin::Transaction);
        self.measure(host, call, client, began, false);
        Ended::Now(After::Done)
    }

    /// The script stands before its commands in what MONITOR shows. As long as it may begin anew they are held.
    fn show_begin(&self, host: &mut dyn Host, call: &Call<'_>, client: &Client) {
        if self.shared.observers.monitored.load(Ordering::Relaxed) {
            host.hold_shown();
        }
        self.show(host, call, client, false);
    }

    /// Finds what is to be run, and whether it may run now. `held`: the shards that are locked for it.
    fn find_task<'a>(
        &mut self,
        engine: &Engine,
        obeyed: bool,
        call: &'a Call<'a>,
        held: LockSet,
    ) -> Result<Task<'a>, CommandError> {
        let read_only = named_by(call.command).2;
        let (subject, given) = self.find_subject(engine, call)?;
        let flags = subject.flags();
        self.may_begin(obeyed, flags, read_only)?;
        // A script that does not hold all shards holds those of its declared keys.
        let mut declared = held;
        if declared == LockSet::ALL {
            declared = LockSet::NONE;
            given.keys.iter().for_each(|key| declared.add_slot(key_slot(key)));
        }
        let may_stray = match &subject {
            Subject::Script(known) => !is_proven(self.shared, &known.script),
            Subject::Function(..) => true,
        };
        Ok(Task {
            call,
            subject,
            given,
            flags,
            read_only: read_only || flags.has(Flags::NO_WRITES),
            short_of_memory: !flags.has(Flags::ALLOW_OOM) && !obeyed && self.lacks_memory,
            obeyed,
            declared,
            may_stray,
        })
    }

    /// The script or function that a command names, and its keys and other arguments.
    fn find_subject<'a>(
        &self,
        engine: &Engine,
        call: &'a Call<'a>,
    ) -> Result<(Subject, Given<'a>), CommandError> {
        let (of_function, by_sha, _) = named_by(call.command);
        let store = &self.shared.scripts;
        if of_function {
            let found = store.libraries().function(call.args[1]).cloned();
            let (library, function) = found.ok_or(CommandError::text("ERR Function not found"))?;
            return Ok((Subject::Function(library, function), given(call.args, true)?));
        }
        // What cannot be a name is told before the number of keys is looked at, an unknown one after.
        if by_sha && call.args[1].len() != 40 {
            return Err(NO_SCRIPT);
        }
        let given = given(call.args, false)?;
        let known = if by_sha {
            engine.script(store, call.args[1]).ok_or(NO_SCRIPT)?
        } else {
            engine.keep(store, call.args[1], false)?
        };
        Ok((Subject::Script(known), given))
    }

    /// What the flags of a script refuse. One that says nothing of itself is looked at command by command.
    fn may_begin(&self, obeyed: bool, of_script: Flags, read_only: bool) -> Result<(), CommandError> {
        const MASTERDOWN: &str =
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
        let bits = self.shared.gate.load(Ordering::Relaxed);
        if of_script.has(Flags::SILENT) && bits & gate::STALE != 0 && !obeyed {
            return Err(CommandError::text(MASTERDOWN));
        }
        if of_script.has(Flags::SILENT) || obeyed {
            return Ok(());
        }
        let writes = !of_script.has(Flags::NO_WRITES);
        if bits & gate::CLUSTER != 0 && of_script.has(Flags::NO_CLUSTER) {
            return Err(CommandError::text("ERR Can not run script on cluster, 'no-cluster' flag is set."));
        }
        if read_only && writes {
            return Err(CommandError::text(
                "ERR Can not execute a script with write flag using *_ro command.",
            ));
        }
        if writes && bits & gate::READ_ONLY != 0 {
            return Err(CommandError::text("READONLY You can't write against a read only replica."));
        }
        if bits & gate::STALE != 0 && !of_script.has(Flags::ALLOW_STALE) {
            return Err(CommandError::text(MASTERDOWN));
        }
        if writes && bits & gate::SAVE_FAILED != 0 {
            return Err(CommandError::text(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.",
            ));
        }
        if writes && bits & gate::FEW_REPLICAS != 0 {
            return Err(CommandError::text("NOREPLICAS Not enough good replicas to write."));
        }
        if writes && !of_script.has(Flags::ALLOW_OOM) && self.lacks_memory {
            return Err(CommandError::text(
                "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
            ));
        }
        Ok(())
    }

    /// Makes room before scripts run, while no lock is held. What it finds lacking counts until the next time: a
    /// script that has begun to write goes on.
    pub fn make_room_for_scripts(&mut self, host: &mut dyn Host, now: UnixMs) {
        let limited = self.shared.gate.load(Ordering::Relaxed) & gate::MEMORY_LIMIT != 0;
        self.lacks_memory = limited && self.make_room(host, now) == Room::Lacking;
    }

    /// Runs a script or a function. The error that it ended in, if any, is answered. `Err`: it has done nothing,
    /// and is to run again when it gets all locks.
    fn run_task(
        &mut self,
        engine: &Engine,
        task: &Task<'_>,
        host: &mut dyn Host,
        client: &mut Client,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) -> Result<Option<Failure>, Busy> {
        if engine.is_running() {
            // Asked for meanwhile, on the thread of a script that takes long.
            let text = self.busy_fail().to_string();
            reply.error(&text);
            return Ok(Some(text.into()));
        }
        loop {
            let (ended, held_up) = self.run_once(engine, task, host, client, locked, reply);
            return match ended {
                script::Ended::Again => match held_up {
                    Some(busy) => Err(busy),
                    None => {
                        self.show_begin(host, task.call, client);
                        continue;
                    }
                },
                script::Ended::Returned => Ok(None),
                script::Ended::ReturnedError(failure) => Ok(Some(failure)),
                script::Ended::Failed(failure) => {
                    reply.error(&failure.text);
                    Ok(Some(failure))
                }
            };
        }
    }

    /// One run of a script, and what held it up if it is to begin anew. What it has changed of its client (SELECT, the
    /// protocol) is put back.
    fn run_once(
        &mut self,
        engine: &Engine,
        task: &Task<'_>,
        host: &mut dyn Host,
        client: &mut Client,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) -> (script::Ended, Option<Busy>) {
        let shared = self.shared;
        let scripts = &shared.scripts;
        let (db, resp3) = (client.db, client.resp3);
        let mut run = Run {
            began: self.stopwatch.now(),
            executor: self,
            host,
            client,
            locked,
            task,
            strayed: false,
            wrote: false,
            slot: None,
            held_up: None,
            claim: None,
            look_again: SHOWN_AFTER * 1_000_000,
            running: None,
            long: false,
        };
        reply.set_resp3(resp3);
        let ended = match &task.subject {
            Subject::Script(known) => {
                engine.run_script(known, task.given, &mut run, reply).unwrap_or_else(|text| {
                    scripts.forget(&known.script);
                    script::Ended::Failed(text.into())
                })
            }
            Subject::Function(library, function) => {
                engine.run_function(scripts, library, &function.name, task.given, &mut run, reply)
            }
        };
        let (strayed, held_up) = (run.strayed, run.held_up);
        if let Some(running) = &run.running {
            scripts.end(running);
        }
        self.script_audience = Audience::ALL;
        self.effects.audience = Audience::ALL;
        (client.db, client.resp3) = (db, resp3);
        reply.set_resp3(resp3);
        engine.tell_memory(scripts);
        task.subject.conduct().note(!strayed);
        (ended, held_up)
    }

    /// Whether a script that takes long holds what a command needs.
    pub(super) fn is_busy(&self, busy: Busy) -> bool {
        let holder = self.shared.keyspace.board.holder(busy.shard);
        !busy.key && holder.is_some_and(|holder| holder.reason == Reason::Script)
    }

    /// Answers -BUSY to a command that needs a shard of a script that takes long.
    #[cold]
    pub(super) fn tell_busy(&mut self, client: &mut Client, call: &Call<'_>, reply: &mut Reply) -> After {
        client.aside = Aside::default();
        reply.set_resp3(client.resp3);
        let fail = self.note_refusal(client, Some(call.command), self.busy_fail());
        self.reject(call.id, &fail, reply);
        After::Done
    }

    fn busy_fail(&self) -> CommandError {
        busy_fail(&self.shared.scripts)
    }
}

/// -BUSY, in the words for a script or for a function.
pub fn busy_fail(store: &Store) -> CommandError {
    let of_function = store.running().first().is_some_and(|running| running.function.is_some());
    CommandError::text(if of_function {
        "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
    } else {
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
    })
}
