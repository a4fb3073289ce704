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
//! ([`Locked::declare_long`]): who needs one of them is told -BUSY, and everybody else goes on. SCRIPT KILL
//! is heard at every look ([`Calls::look`]), which functions that take long have, too. At each look after some
//! milliseconds the worker whose thread it is serves its other clients ([`Host::meanwhile`]): nobody is to suffer for
//! where its connection is.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::call::{Call, Ended, Origin};
use super::route::Route;
use super::upkeep::Room;
use super::{After, Executor, Host, Shared, lock_set};
use crate::base::crc16::key_slot;
use crate::base::num::parse_i64;
use crate::base::time::UnixMs;
use crate::command::client::Aside;
use crate::command::rights::Errand;
use crate::command::spec::{Begin, flags};
use crate::command::{Client, Command, CommandError, gate};
use crate::keyspace::board::{Busy, Reason};
use crate::keyspace::locks::PATIENCE;
use crate::keyspace::{Audience, Hashed, LockSet, Locked};
use crate::resp::Reply;
use crate::script::proof::Argument;
use crate::script::shebang::of_script;
use crate::script::store::Conduct;
use crate::script::{
    self, Calls, Engine, Failure, Flags, Function, Given, Known, Library, Running, Script, Stop, Store,
};

/// A script that has run for so long can be seen and killed, in milliseconds.
const SHOWN_AFTER: u64 = 5;
/// From one look at what goes on around a script to the next, in nanoseconds.
pub(super) const BETWEEN_LOOKS: u64 = 50_000;
/// How often a script that waits with locks in hand looks again.
const PAUSE: Duration = Duration::from_micros(50);

/// Who has the claim: a shard that it holds.
static CLAIMED: Mutex<Option<usize>> = Mutex::new(None);

/// The right to wait for locks with others in hand. See the module.
struct Claim(());

impl Claim {
    /// Claims it for a script that holds `shard`; otherwise a shard of who has it.
    fn try_for(shard: usize) -> Result<Self, usize> {
        let mut claimed = CLAIMED.lock();
        match *claimed {
            Some(other) => Err(other),
            None => {
                *claimed = Some(shard);
                Ok(Self(()))
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        *CLAIMED.lock() = None;
    }
}

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

/// How a command names what it runs.
fn named_by(command: &Command) -> (bool, bool, bool) {
    let name = command.name;
    (name.starts_with("fcall"), name.starts_with("evalsha"), name.ends_with("_ro"))
}

/// Whether the script that a command runs says in its first line that it writes, or that it does not; `None` if it says
/// nothing, or for other commands. What it says stands above what the command may do.
pub(super) fn says_whether_it_writes(shared: &Shared, command: &Command, args: &[&[u8]]) -> Option<bool> {
    if !command.has(flags::RUNS_SCRIPT) {
        return None;
    }
    let name = *args.get(1)?;
    let (of_function, by_sha, _) = named_by(command);
    let said = if of_function {
        shared.scripts.libraries().function(name)?.1.flags
    } else if by_sha {
        shared.scripts.script(name)?.flags
    } else {
        of_script(name).ok()?.0
    };
    (!said.has(Flags::SILENT)).then(|| !said.has(Flags::NO_WRITES))
}

/// Whether the script that a command runs needs no locks but those of its declared keys, as far as is known.
pub(super) fn keeps_to_its_keys(shared: &Shared, command: &Command, args: &[&[u8]]) -> bool {
    let Some(name) = args.get(1) else { return true };
    let store = &shared.scripts;
    let (of_function, by_sha, _) = named_by(command);
    if of_function {
        return store.libraries().function(name).is_some_and(|(_, f)| f.conduct.keeps_to_its_keys());
    }
    let Some(engine) = script::engine() else { return false };
    let known = if by_sha { engine.script(store, name) } else { engine.script_of(store, name) };
    match known {
        Some(known) => known.script.conduct.keeps_to_its_keys() || is_proven(shared, &known.script),
        // A text that is new shows before it first runs that it uses its keys alone. One that declares none takes all
        // locks all the same: in Redis what hangs without keys is in everybody's way, and an operator finds it by that.
        None if by_sha || args.get(2).is_none_or(|count| *count == b"0") => false,
        None => of_script(name).is_ok_and(|(_, body_at)| shows_its_keys(shared, &name[body_at..])),
    }
}

/// Whether the text of a script shows that it uses its declared keys alone.
fn is_proven(shared: &Shared, script: &Script) -> bool {
    script.conduct.is_proven(|| shows_its_keys(shared, &script.body))
}

fn shows_its_keys(shared: &Shared, body: &[u8]) -> bool {
    let calls = script::proof::calls(body);
    calls.is_some_and(|calls| calls.iter().all(|arguments| names_declared_keys(shared, arguments)))
}

/// Whether all keys that a call can name are declared ones.
fn names_declared_keys(shared: &Shared, arguments: &[Argument<'_>]) -> bool {
    let Some(Argument::Text(name)) = arguments.first() else { return false };
    let Some(id) = shared.commands.find(name) else { return false };
    let command = shared.commands.get(id).command;
    let fixed = command.keys.iter().all(|spec| matches!(spec.begin, Begin::Index(_)));
    let everywhere = flags::PATTERN_KEYS | flags::EACH_SHARD | flags::LOCK_ALL;
    if !fixed || command.flags & everywhere != 0 || !command.subcommands.is_empty() {
        return false;
    }
    let args: Vec<&[u8]> = arguments
        .iter()
        .map(|argument| if let Argument::Text(text) = argument { text } else { &b"?"[..] })
        .collect();
    let positions = command.key_positions(&args);
    positions.is_some_and(|positions| positions.iter().all(|at| arguments[*at] == Argument::Key))
}

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

/// One script that runs.
struct Run<'r, 'l> {
    executor: &'r mut Executor,
    host: &'r mut dyn Host,
    client: &'r mut Client,
    locked: &'r mut Locked<'l>,
    call: &'r Call<'r>,
    subject: &'r Subject,
    flags: Flags,
    read_only: bool,
    /// Memory was above its limit when it began.
    short_of_memory: bool,
    obeyed: bool,
    /// It has used a key that it did not declare.
    strayed: bool,
    declared: LockSet,
    wrote: bool,
    first_key: Option<&'r [u8]>,
    /// The slot of its keys in a cluster, once it was asked for: that of its first declared key, or of the first it used.
    slot: Option<u16>,
    /// What held it up before it had written, so that it is to run again.
    held_up: Option<Busy>,
    /// It may come to a key that it has not declared.
    may_stray: bool,
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
        // The script stands before its commands in what MONITOR shows.
        self.show(host, call, client, false);
        let result = script::engine()
            .ok_or(CommandError::text("ERR the interpreter for scripts cannot be started"))
            .and_then(|engine| Ok((self.begin_script(&engine, obeyed, call)?, engine)));
        let failure = match result {
            Ok(((subject, given), engine)) => {
                match self.run_subject(&engine, obeyed, &subject, given, call, host, client, locked, reply) {
                    Ok(failure) => failure,
                    Err(busy) => return Ended::Aside(busy),
                }
            }
            Err(fail) => {
                let text = fail.to_string();
                reply.set_resp3(client.resp3);
                reply.error(&text);
                Some(text.into())
            }
        };
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

    /// Finds what is to be run, and whether it may run now.
    fn begin_script<'a>(
        &mut self,
        engine: &Engine,
        obeyed: bool,
        call: &'a Call<'a>,
    ) -> Result<(Subject, Given<'a>), CommandError> {
        let (of_function, by_sha, read_only) = named_by(call.command);
        let store = &self.shared.scripts;
        if of_function {
            let found = store.libraries().function(call.args[1]).cloned();
            let (library, function) = found.ok_or(CommandError::text("ERR Function not found"))?;
            let given = given(call.args, true)?;
            let subject = Subject::Function(library, function);
            self.may_begin(obeyed, subject.flags(), read_only)?;
            return Ok((subject, given));
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
        self.may_begin(obeyed, known.script.flags, read_only)?;
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
    #[expect(clippy::too_many_arguments, reason = "all that a call is made of")]
    fn run_subject(
        &mut self,
        engine: &Engine,
        obeyed: bool,
        subject: &Subject,
        given: Given<'_>,
        call: &Call<'_>,
        host: &mut dyn Host,
        client: &mut Client,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) -> Result<Option<Failure>, Busy> {
        let shared = self.shared;
        if engine.is_running() {
            // Asked for meanwhile, on the thread of a script that takes long.
            let text = self.busy_fail().to_string();
            reply.error(&text);
            return Ok(Some(text.into()));
        }
        let (db, resp3) = (client.db, client.resp3);
        // Who holds a part holds the shards of the declared keys.
        let mut declared = locked.set();
        if declared == LockSet::ALL {
            declared = LockSet::NONE;
            given.keys.iter().for_each(|key| declared.add_slot(key_slot(key)));
        }
        let flags = subject.flags();
        let short_of_memory = !flags.has(Flags::ALLOW_OOM) && !obeyed && self.lacks_memory;
        let read_only = named_by(call.command).2 || flags.has(Flags::NO_WRITES);
        let may_stray = match subject {
            Subject::Script(known) => !is_proven(shared, &known.script),
            Subject::Function(..) => true,
        };
        loop {
            let began = self.stopwatch.now();
            let mut run = Run {
                executor: self,
                host,
                client,
                locked,
                call,
                subject,
                flags,
                read_only,
                short_of_memory,
                obeyed,
                strayed: false,
                declared,
                wrote: false,
                first_key: given.keys.first().copied(),
                slot: None,
                held_up: None,
                may_stray,
                claim: None,
                began,
                look_again: SHOWN_AFTER * 1_000_000,
                running: None,
                long: false,
            };
            reply.set_resp3(resp3);
            let ended = match subject {
                Subject::Script(known) => {
                    engine.run_script(known, given, &mut run, reply).unwrap_or_else(|text| {
                        shared.scripts.forget(&known.script);
                        script::Ended::Failed(text.into())
                    })
                }
                Subject::Function(library, function) => {
                    engine.run_function(library, &function.name, given, &mut run, reply)
                }
            };
            let (strayed, held_up) = (run.strayed, run.held_up);
            if let Some(running) = &run.running {
                shared.scripts.end(running);
            }
            self.script_audience = Audience::ALL;
            self.effects.audience = Audience::ALL;
            (client.db, client.resp3) = (db, resp3);
            reply.set_resp3(resp3);
            engine.tell_memory(&shared.scripts);
            subject.conduct().note(!strayed);
            return match ended {
                script::Ended::Again => match held_up {
                    Some(busy) => Err(busy),
                    None => continue,
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

impl Run<'_, '_> {
    /// Refuses a command, in the words that scripts know.
    fn refusal(&mut self, id: usize, args: &[&[u8]]) -> Option<String> {
        let shared = self.executor.shared;
        let entry = shared.commands.get(id);
        let command = entry.command;
        if command.has(flags::NOSCRIPT) && !shared.scripts.may_run_all.load(Ordering::Relaxed) {
            return Some("ERR This Redis command is not allowed from script".into());
        }
        if !self.obeyed {
            let call = Call { id, command, args, keys: &[], now: self.call.now, brief: false };
            let asked = self.executor.pass_rights(Origin::Script, self.host, self.client, &call);
            if let Err(fail) = asked {
                return Some(fail.to_string());
            }
        }
        let changes = command.has(flags::WRITE) || command.has(flags::MAY_REPLICATE);
        if changes && self.read_only {
            return Some("ERR Write commands are not allowed from read-only scripts.".into());
        }
        if self.obeyed {
            return None;
        }
        let bits = shared.gate.load(Ordering::Relaxed) & entry.needs & Origin::Script.asked();
        if bits & gate::STALE != 0 {
            return Some("ERR Can not execute the command on a stale replica".into());
        }
        // A script that has begun to write goes on.
        let short = command.has(flags::DENYOOM) && self.short_of_memory && !self.wrote;
        if short {
            return Some("OOM command not allowed when used memory > 'maxmemory'.".into());
        }
        let text = self.executor.refusal(self.host, bits & gate::STOPS_WRITES, self.call.now);
        if let Some(text) = text {
            return Some(text.into());
        }
        self.route_refusal(command, &entry.name, args)
    }

    /// Whether this node serves the keys of a command, and the script may use them.
    fn route_refusal(&mut self, command: &Command, name: &str, args: &[&[u8]]) -> Option<String> {
        if command.keys.is_empty() {
            return None;
        }
        let view = self.executor.view.load().as_deref()?;
        let route = Route::of(self.executor.shared, command, args);
        let slot = route.slot()?;
        if let Err(fail) = route.check(view, self.client, false) {
            let text = fail.to_string();
            return Some(match text.split(' ').next() {
                Some("CROSSSLOT") => format!(
                    "ERR Command '{name}' in script attempted to access keys that don't hash to the same slot"
                ),
                Some("CLUSTERDOWN") if view.slot(slot).owner().is_none() => {
                    "ERR Script attempted to access a slot not served".into()
                }
                Some("CLUSTERDOWN") if text.contains("read commands") => {
                    "ERR Script attempted to execute a write command while the cluster is down and readonly"
                        .into()
                }
                Some("CLUSTERDOWN") => {
                    "ERR Script attempted to execute a command while the cluster is down".into()
                }
                _ => "ERR Script attempted to access a non local key in a cluster node".into(),
            });
        }
        let first = *self.slot.get_or_insert_with(|| self.first_key.map_or(slot, key_slot));
        let crosses = !self.flags.has(Flags::SILENT) && !self.flags.has(Flags::ALLOW_CROSS_SLOT);
        (crosses && first != slot)
            .then(|| "ERR Script attempted to access keys that do not hash to the same slot".into())
    }

    /// Makes sure that the locks of a command are held. `key`: it has this one and no others. See the module.
    fn lock(&mut self, command: &Command, args: &[&[u8]], key: Option<Hashed>) -> Result<(), Stop> {
        if let Some(key) = key
            && self.locked.has_slot(key.slot)
        {
            self.strayed |= !self.declared.has_slot(key.slot);
            return Ok(());
        }
        let mut set = lock_set(self.executor.shared, command, args).unwrap_or(LockSet::NONE);
        if command.has(flags::EACH_SHARD) {
            set = LockSet::ALL;
        }
        self.strayed |= !self.declared.contains(&set);
        if self.locked.set().contains(&set) || self.locked.try_extend(LockSet::ALL) {
            return Ok(());
        }
        if !self.wrote {
            let missing = self.locked.missing(&set);
            self.held_up = missing.map(|shard| Busy { shard, key: false });
            return Err(Stop::Again);
        }
        // What has changed something without a claim has no locks: it has published, for instance.
        debug_assert!(self.claim.is_some() || self.locked.set().is_empty());
        while !(self.has_claim_for(&set) && self.locked.try_extend(set)) {
            self.look()?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Whether the claim is had; for a script that will hold one of these shards.
    fn has_claim_for(&mut self, set: &LockSet) -> bool {
        if self.claim.is_none() {
            self.claim = set.first().and_then(|shard| Claim::try_for(shard).ok());
        }
        self.claim.is_some()
    }

    /// Before the first change of a script that may stray.
    fn claim(&mut self) -> Result<(), Stop> {
        let held = self.locked.set();
        if self.wrote || !self.may_stray || self.claim.is_some() || held == LockSet::ALL {
            return Ok(());
        }
        let Some(shard) = held.first() else { return Ok(()) };
        let until = self.executor.stopwatch.now() + PATIENCE.as_nanos() as u64;
        loop {
            match Claim::try_for(shard) {
                Ok(claim) => {
                    self.claim = Some(claim);
                    return Ok(());
                }
                // Most scripts are through in a moment.
                Err(_) if self.executor.stopwatch.now() < until => std::thread::yield_now(),
                Err(shard) => {
                    self.held_up = Some(Busy { shard, key: false });
                    return Err(Stop::Again);
                }
            }
        }
    }

    /// Whether none of the keys that a command writes to is under way to another node. A script that has not written
    /// begins again later if one is, or is large and wanted by a snapshot.
    fn pass_keys_under_way(&mut self, command: &Command, args: &[&[u8]]) -> Result<bool, Stop> {
        if !command.has(flags::WRITE) || !self.executor.shared.keyspace.board.writers_look_first() {
            return Ok(true);
        }
        let positions = command.key_positions(args).unwrap_or_default();
        let keys = positions.iter().map(|at| args[*at]);
        let mut busy = self.locked.under_way(keys.clone());
        if !self.wrote {
            busy = busy.or_else(|| self.locked.save_ahead(self.client.db, keys));
        }
        match busy {
            None => Ok(true),
            Some(busy) if !self.wrote => {
                self.held_up = Some(busy);
                Err(Stop::Again)
            }
            Some(_) => Ok(false),
        }
    }

    /// Notes that the script can be seen and killed from now on.
    fn show(&mut self) {
        let function = match self.subject {
            Subject::Script(_) => None,
            Subject::Function(_, function) => Some(function.name.clone()),
        };
        let running = Arc::new(Running {
            function,
            command: self.call.args.iter().map(|arg| arg.to_vec()).collect(),
            worker: self.client.worker,
            since: self.call.now,
            began: self.began,
            wrote: AtomicBool::new(self.wrote),
            killed: AtomicBool::new(false),
        });
        self.executor.shared.scripts.begin(Arc::clone(&running));
        self.running = Some(running);
    }
}

impl Calls for Run<'_, '_> {
    fn call(&mut self, args: &[&[u8]], resp3: bool, reply: &mut Reply) -> Result<(), Stop> {
        let refuse = |run: &mut Self, reply: &mut Reply, text: &str| {
            run.executor.stats.count_error(text);
            reply.error(text);
            Ok(())
        };
        let id = match self.executor.look_up(args) {
            Ok(id) => id,
            Err(CommandError::Arity(_)) => {
                return refuse(self, reply, "ERR Wrong number of args calling Redis command from script");
            }
            Err(_) => return refuse(self, reply, "ERR Unknown Redis command called from script"),
        };
        if let Some(text) = self.refusal(id, args) {
            self.executor.stats.reject(id);
            return refuse(self, reply, &text);
        }
        let shared = self.executor.shared;
        let entry = shared.commands.get(id);
        let command = entry.command;
        let key = entry.single_key.and_then(|at| args.get(at)).map(|key| (*key, shared.keyspace.hashed(key)));
        self.lock(command, args, key.map(|(_, hashed)| hashed))?;
        if !self.pass_keys_under_way(command, args)? {
            return refuse(self, reply, "TRYAGAIN Script came to a key that is being migrated");
        }
        if command.has(flags::WRITE) || command.has(flags::MAY_REPLICATE) {
            self.claim()?;
            if self.running.as_ref().is_some_and(|running| !running.may_write()) {
                return Err(Stop::Killed);
            }
            self.wrote = true;
        }
        let call = Call { id, command, args, keys: key.as_slice(), now: self.call.now, brief: false };
        self.client.resp3 = resp3;
        self.executor.stopwatch.start();
        let ended = self.executor.call(Origin::Script, &call, self.host, self.client, self.locked, reply);
        if !matches!(ended, Ended::Now(After::Done)) {
            reply.clear();
            return refuse(self, reply, "ERR This Redis command is not allowed from script");
        }
        Ok(())
    }

    fn log(&mut self, level: u8, text: &str) {
        match level {
            0 => tracing::debug!("{text}"),
            1 => tracing::debug!("{text}"),
            2 => tracing::info!("{text}"),
            _ => tracing::warn!("{text}"),
        }
    }

    fn set_propagated(&mut self, files: bool, links: bool) {
        self.executor.script_audience = Audience { links, files };
    }

    fn allows(&mut self, args: &[&[u8]]) -> Option<bool> {
        let commands = &self.executor.shared.commands;
        let mut id = commands.find(args[0])?;
        if args.len() > 1 && !commands.get(id).subcommands.is_empty() {
            id = commands.find_sub(id, args[1])?;
        }
        let errand = Errand { id, entry: commands.get(id), args };
        Some(self.obeyed || self.client.user().is_none_or(|user| user.check(&errand).is_ok()))
    }

    fn look(&mut self) -> Result<u64, Stop> {
        let nanos = self.executor.stopwatch.now().saturating_sub(self.began);
        if nanos < self.look_again {
            return Ok(nanos);
        }
        self.look_again = nanos + BETWEEN_LOOKS;
        let elapsed = nanos / 1_000_000;
        if self.running.is_none() {
            self.show();
        }
        if self.executor.shared.scripts.ending.load(Ordering::Acquire) {
            // What it did is a half, which nobody may see.
            self.executor.effects.discard_records();
            return Err(Stop::Killed);
        }
        if self.running.as_ref().is_some_and(|running| running.killed.load(Ordering::Acquire)) {
            return Err(Stop::Killed);
        }
        let threshold = self.executor.shared.busy_after_ms.load(Ordering::Relaxed);
        if threshold != 0 && elapsed >= threshold && !self.long {
            self.long = true;
            let since: UnixMs = self.call.now;
            self.locked.declare_long(Reason::Script, since);
        }
        self.host.meanwhile(self.long);
        Ok(nanos)
    }
}
