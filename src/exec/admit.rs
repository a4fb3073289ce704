//! Whether a command may run: the gate in its slow case, the slot's owner, and MULTI's queue. Which command
//! is refused when, in Redis's order and words.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use super::call::{Call, Origin};
use super::route::Route;
use super::script::{says_whether_it_writes, spared};
use super::upkeep::Room;
use super::{After, Executor, Host};
use crate::base::lossless;
use crate::base::time::UnixMs;
use crate::cluster::view::View;
use crate::command::client::{Client, Queued};
use crate::command::spec::flags;
use crate::command::table::CommandEntry;
use crate::command::{Command, CommandError, gate, is};
use crate::keyspace::{Db, Locked};
use crate::resp::Reply;

/// Conditions that send a command another way, but refuse none.
const NOT_REFUSING: u32 = gate::CLUSTER | gate::IN_MULTI | gate::ASKING | gate::RESTRICTED;

/// Data are being loaded, and whether anybody is told.
const LOADS: u32 = gate::LOADING | gate::LOADS_UNSEEN;

/// What was found out about a command that may run, and must still hold once its locks are taken.
#[derive(Default)]
pub(super) struct Admitted<'a> {
    /// The keys have a slot that may not be ours.
    pub clustered: bool,
    /// The client said ASKING before.
    pub asking: bool,
    /// `None` for the common case, one key in a slot that is ours and stays.
    route: Option<Route<'a>>,
    /// The view that this was found by.
    view: Option<*const View>,
}

/// The reply to a name that is no command.
pub(super) fn unknown_command(args: &[&[u8]]) -> CommandError {
    if ["post", "host:"].iter().any(|word| is(args[0], word)) {
        return CommandError::OtherProtocol;
    }
    let mut text = String::from("ERR unknown command '");
    text.push_str(&shown(args[0], 128));
    text.push_str("', with args beginning with: ");
    let mut room = 128usize;
    for arg in &args[1..] {
        if room == 0 {
            break;
        }
        let part = shown(arg, room);
        room = room.saturating_sub(part.len() + 3);
        text.push('\'');
        text.push_str(&part);
        text.push_str("' ");
    }
    CommandError::owned(text)
}

pub(super) fn unknown_subcommand(container: &str, word: &[u8]) -> CommandError {
    CommandError::owned(format!(
        "ERR unknown subcommand '{}'. Try {} HELP.",
        shown(word, 128),
        container.to_ascii_uppercase()
    ))
}

/// At most `max` bytes of an argument, up to a NUL, as Redis shows it.
fn shown(arg: &[u8], max: usize) -> String {
    let arg = arg.split(|b| *b == 0).next().unwrap_or_default();
    lossless::text(&arg[..arg.len().min(max)]).replace(['\r', '\n'], " ")
}

impl Executor {
    /// Refuses, postpones, queues or lets pass a command that some condition concerns.
    #[inline]
    pub(super) fn admit<'a>(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'a>,
        entry: &CommandEntry,
        bits: u32,
        reply: &mut Reply,
    ) -> Result<Admitted<'a>, After> {
        let mut bits = bits & Origin::of(client).asked();
        if bits & gate::OF_SCRIPTS != 0 {
            bits &= !spared(self.shared, call.command, call.args);
        }
        let mut admitted = Admitted { asking: bits & gate::ASKING != 0, ..Admitted::default() };
        admitted.clustered = bits & gate::CLUSTER != 0;
        // ASKING is for one command, whatever becomes of it, or for the transaction that it begins.
        if admitted.asking && bits & gate::IN_MULTI == 0 {
            client.set_asking(false);
        }
        if bits & (gate::RESTRICTED | gate::UNAUTHENTICATED) == gate::RESTRICTED {
            self.pass_rights(Origin::Client, host, client, call)
                .map_err(|fail| self.refuse(client, call, entry, fail, reply))?;
        }
        // A command that belongs to another node is sent there first, and only then refused for what this
        // node is: a primary that became a replica redirects its writers, it does not answer READONLY.
        let first = if admitted.clustered { gate::UNAUTHENTICATED | LOADS } else { !0 };
        if bits & first & !NOT_REFUSING != 0 {
            self.pass_gate(host, client, call, entry, bits & first, admitted.asking, reply)?;
        }
        if admitted.clustered {
            self.find_route(client, call, bits, &mut admitted, reply)?;
            if bits & !first & !NOT_REFUSING != 0 {
                self.pass_gate(host, client, call, entry, bits & !first, admitted.asking, reply)?;
            }
        }
        if bits & gate::IN_MULTI != 0 {
            self.pass_multi(host, client, call, entry, &admitted, reply)?;
        }
        Ok(admitted)
    }

    /// Answers a command that may not run.
    fn refuse(
        &mut self,
        client: &mut Client,
        call: &Call<'_>,
        entry: &CommandEntry,
        fail: CommandError,
        reply: &mut Reply,
    ) -> After {
        let fail = self.note_refusal(client, Some(entry.command), fail);
        self.reject(call.id, &fail, reply);
        After::Done
    }

    /// Refuses or postpones a command; `bits` are the conditions that concern it.
    #[expect(clippy::too_many_arguments, reason = "what a gate may have to ask, or to answer with")]
    #[cold]
    fn pass_gate(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
        entry: &CommandEntry,
        bits: u32,
        asking: bool,
        reply: &mut Reply,
    ) -> Result<(), After> {
        if bits & LOADS == LOADS && bits & gate::UNAUTHENTICATED == 0 {
            client.set_asking(asking);
            return Err(After::Postponed);
        }
        let subscribed = || {
            CommandError::owned(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                entry.name
            ))
        };
        // Redis asks for these last.
        let late = gate::STALE | gate::LOADING;
        let early = self.refusal(host, bits & !late, call.now).map(CommandError::Text);
        let refusal = early
            .or_else(|| (bits & gate::SUBSCRIBED != 0).then(subscribed))
            .or_else(|| self.refusal(host, bits & late, call.now).map(CommandError::Text))
            .or_else(|| {
                let monitors = bits & gate::MONITORS != 0;
                monitors.then(|| CommandError::text("ERR Replica can't interact with the keyspace"))
            });
        if let Some(fail) = refusal {
            return Err(self.refuse(client, call, entry, fail, reply));
        }
        let waits = bits & gate::PAUSED_ALL != 0
            || (bits & gate::PAUSED_WRITES != 0
                && says_whether_it_writes(self.shared, call.command, call.args) != Some(false));
        if waits {
            client.set_asking(asking);
            return Err(After::Postponed);
        }
        Ok(())
    }

    /// Finds out whose slot the keys are in. The common case are keys in a slot that is ours and stays.
    #[inline]
    fn find_route<'a>(
        &mut self,
        client: &mut Client,
        call: &Call<'a>,
        bits: u32,
        admitted: &mut Admitted<'a>,
        reply: &mut Reply,
    ) -> Result<(), After> {
        let view = self.view.load().as_deref();
        admitted.view = view.map(std::ptr::from_ref);
        let ours = match (view, call.keys) {
            (Some(view), [(_, h), more @ ..]) => {
                view.serves(h.slot) && more.iter().all(|(_, other)| other.slot == h.slot)
            }
            _ => false,
        };
        if ours && bits & gate::IN_MULTI == 0 {
            return Ok(());
        }
        let route = Route::of(self.shared, call.command, call.args);
        let checked = match view {
            Some(view) => route.check(view, client, admitted.asking),
            // Before the node knows of the cluster it serves no key.
            None if route.is_keyless() => Ok(()),
            None => Err(CommandError::text("CLUSTERDOWN The cluster is down")),
        };
        admitted.route = Some(route);
        checked.map_err(|fail| self.send_away(client, call.id, &fail, reply))
    }

    /// Answers with a redirection, or with why the cluster does not serve.
    fn send_away(&mut self, client: &mut Client, id: usize, fail: &CommandError, reply: &mut Reply) -> After {
        if let Some(multi) = client.multi_mut() {
            multi.aborted = true;
        }
        self.reject(id, fail, reply);
        After::Done
    }

    /// What becomes of a command behind MULTI: EXEC runs the queue, a few run at once, the rest is queued.
    #[cold]
    fn pass_multi(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
        entry: &CommandEntry,
        admitted: &Admitted<'_>,
        reply: &mut Reply,
    ) -> Result<(), After> {
        if call.command.has(flags::RUNS_QUEUE) {
            return Err(self.exec_transaction(host, client, call, reply));
        }
        if let Some(route) = &admitted.route
            && let Err(fail) = self.confirm_queued(route, admitted, client, call.now)
        {
            return Err(self.send_away(client, call.id, &fail, reply));
        }
        if self.queue(client, call, entry, reply) { Err(After::Done) } else { Ok(()) }
    }

    /// Before a command is queued: whether its keys are here, if their slot is moving.
    fn confirm_queued(
        &mut self,
        route: &Route<'_>,
        admitted: &Admitted<'_>,
        client: &Client,
        now: UnixMs,
    ) -> Result<(), CommandError> {
        let view = self.view.load().as_deref();
        let moving = |slot: &u16| view.is_some_and(|view| view.slot(*slot).is_moving());
        let Some(slot) = route.slot().filter(moving) else { return Ok(()) };
        let shared = self.shared;
        // Only an early answer: EXEC looks again, so a worker does not wait for the lock here.
        let Ok(mut locked) = shared.keyspace.try_lock_slot(slot, 0) else { return Ok(()) };
        self.confirm_route(route, admitted.view, client, admitted.asking, now, &mut locked)
    }

    /// Looks at the route again now that the locks are held.
    #[inline]
    pub(super) fn confirm_slot<'a>(
        &mut self,
        client: &mut Client,
        call: &Call<'a>,
        admitted: &Admitted<'a>,
        locked: &mut Locked<'_>,
        reply: &mut Reply,
    ) -> Result<(), After> {
        let view = self.view.load().as_deref().map(std::ptr::from_ref);
        if admitted.route.is_none() && view == admitted.view {
            return Ok(());
        }
        let route = match &admitted.route {
            Some(route) => Cow::Borrowed(route),
            None => Cow::Owned(Route::of(self.shared, call.command, call.args)),
        };
        self.confirm_route(&route, admitted.view, client, admitted.asking, call.now, locked)
            .map_err(|fail| self.send_away(client, call.id, &fail, reply))
    }

    /// Checks a route again now that the locks are held: the slot may have moved since `routed_by` was looked
    /// at, and in a slot that is moving the keys decide.
    pub(super) fn confirm_route(
        &mut self,
        route: &Route<'_>,
        routed_by: Option<*const View>,
        client: &Client,
        asking: bool,
        now: UnixMs,
        locked: &mut Locked<'_>,
    ) -> Result<(), CommandError> {
        let Some(view) = self.view.load().as_deref() else { return Ok(()) };
        if routed_by != Some(std::ptr::from_ref(view)) {
            route.check(view, client, asking)?;
        }
        if route.slot().is_some_and(|slot| view.slot(slot).is_moving()) {
            let expiring = self.shared.expiring();
            route.check_keys(view, client, &Db::new(locked, client.db, now, expiring, &mut self.effects))?;
        }
        Ok(())
    }

    /// What a refusal means for a transaction: EXEC will refuse it too, and a refused EXEC ends it. `command`
    /// is not known when it was refused for its number of arguments. Returns what is answered.
    pub fn note_refusal(
        &mut self,
        client: &mut Client,
        command: Option<&'static Command>,
        fail: CommandError,
    ) -> CommandError {
        let commands = &self.shared.commands;
        let named = |name: &str| commands.find(name.as_bytes()).map(|id| commands.get(id).command);
        let command = match &fail {
            CommandError::Arity(name) => command.or_else(|| named(name)),
            _ => command,
        };
        if command.is_some_and(|c| c.has(flags::RUNS_QUEUE)) {
            client.take_multi();
            self.unwatch(client);
            let why = fail.to_string();
            let why = why.strip_prefix("ERR ").unwrap_or(&why);
            return CommandError::owned(format!("EXECABORT Transaction discarded because of: {why}"));
        }
        if let Some(multi) = client.multi_mut() {
            multi.aborted = true;
        }
        fail
    }

    /// The text for the first condition that refuses the command.
    pub(super) fn refusal(
        &mut self,
        host: &mut dyn Host,
        bits: u32,
        now: UnixMs,
    ) -> Option<Cow<'static, str>> {
        let text = |text| Some(Cow::Borrowed(text));
        if bits & gate::UNAUTHENTICATED != 0 {
            return text("NOAUTH Authentication required.");
        }
        if bits & gate::MEMORY_LIMIT != 0 && self.make_room(host, now) == Room::Lacking {
            return text("OOM command not allowed when used memory > 'maxmemory'.");
        }
        if bits & gate::SAVE_FAILED != 0 {
            return text(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.",
            );
        }
        if bits & gate::LOG_FAILED != 0 {
            let why = self.shared.log_trouble.load();
            return Some(Cow::Owned(format!("MISCONF Errors writing to the AOF file: {why}")));
        }
        if bits & gate::FEW_REPLICAS != 0 {
            return text("NOREPLICAS Not enough good replicas to write.");
        }
        if bits & gate::READ_ONLY != 0 {
            return text("READONLY You can't write against a read only replica.");
        }
        if bits & gate::STALE != 0 {
            return text("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
        }
        if bits & gate::LOADING != 0 {
            return text("LOADING Redis is loading the dataset in memory");
        }
        None
    }

    /// Queues a command of a transaction. False for those that run at once all the same.
    fn queue(
        &mut self,
        client: &mut Client,
        call: &Call<'_>,
        entry: &CommandEntry,
        reply: &mut Reply,
    ) -> bool {
        let command = entry.command;
        let lost = client.dirty.as_ref().is_some_and(|dirty| dirty.load(Ordering::Relaxed));
        let Some(multi) = client.multi_mut() else { return false };
        if command.has(flags::NOT_QUEUED) {
            return false;
        }
        if command.has(flags::NO_MULTI) {
            multi.aborted = true;
            self.reject(call.id, &CommandError::text("ERR Command not allowed inside a transaction"), reply);
        } else if lost || multi.aborted {
            // EXEC will not run it, so it is not kept, either.
            reply.simple("QUEUED");
        } else {
            multi.bytes += call.args.iter().map(|a| a.len()).sum::<usize>();
            let argv = call.args.iter().map(|a| a.to_vec()).collect();
            multi.queue.push(Queued { command, id: call.id, argv });
            client.version += 1;
            reply.simple("QUEUED");
        }
        true
    }
}
