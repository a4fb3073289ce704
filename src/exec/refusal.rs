//! The gate in its slow case: which command is refused when, in Redis's order and words.

use super::{Executor, Host, Passed};
use crate::base::time::UnixMs;
use crate::command::client::{Client, Queued, Role};
use crate::command::spec::flags;
use crate::command::table::Listed;
use crate::command::{Command, Fail, gate, is};
use crate::resp::Reply;

/// The reply to a name that is no command.
pub(super) fn unknown_command(args: &[&[u8]]) -> Fail {
    if ["post", "host:"].iter().any(|word| is(args[0], word)) {
        return Fail::OtherProtocol;
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
    Fail::owned(text)
}

pub(super) fn unknown_subcommand(container: &str, word: &[u8]) -> Fail {
    Fail::owned(format!(
        "ERR unknown subcommand '{}'. Try {} HELP.",
        shown(word, 128),
        container.to_ascii_uppercase()
    ))
}

/// At most `max` bytes of an argument, up to a NUL, as Redis shows it; what is not text becomes a
/// replacement character.
fn shown(arg: &[u8], max: usize) -> String {
    let arg = arg.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(&arg[..arg.len().min(max)]).replace(['\r', '\n'], " ")
}

impl Executor {
    /// Refuses, postpones or lets pass a command that a condition concerns; `bits` are those conditions.
    #[cold]
    pub(super) fn pass_gate(
        &mut self,
        host: &mut dyn Host,
        client: &mut Client,
        id: usize,
        listed: &Listed,
        bits: u32,
        now: UnixMs,
        reply: &mut Reply,
    ) -> Passed {
        // Our primary's stream was accepted by the primary.
        if client.role == Role::Primary {
            return Passed::Run;
        }
        let subscribed = || {
            Fail::owned(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                listed.name
            ))
        };
        let refusal = match self.refusal(host, bits, now) {
            Some(text) => Some(Fail::text(text)),
            None if bits & gate::SUBSCRIBED != 0 => Some(subscribed()),
            None => None,
        };
        if let Some(fail) = refusal {
            let fail = self.note_refusal(client, Some(listed.command), fail);
            self.fail(id, &fail, reply);
            return Passed::Answered;
        }
        if bits & (gate::PAUSED_ALL | gate::PAUSED_WRITES) != 0 && client.multi.is_none() {
            return Passed::Later;
        }
        Passed::Run
    }

    /// What a refusal means for a transaction: EXEC will refuse it too, and a refused EXEC ends it. `command`
    /// is not known when it was refused for its number of arguments. Returns what is answered.
    pub fn note_refusal(
        &mut self,
        client: &mut Client,
        command: Option<&'static Command>,
        fail: Fail,
    ) -> Fail {
        let commands = &self.shared.commands;
        let named = |name: &str| commands.find(name.as_bytes()).map(|id| commands.get(id).command);
        let command = match &fail {
            Fail::Arity(name) => command.or_else(|| named(name)),
            _ => command,
        };
        if command.is_some_and(|c| c.name == "exec") {
            client.multi = None;
            client.version += 1;
            self.unwatch(client);
            let why = fail.to_string();
            let why = why.strip_prefix("ERR ").unwrap_or(&why);
            return Fail::owned(format!("EXECABORT Transaction discarded because of: {why}"));
        }
        if let Some(multi) = &mut client.multi {
            multi.aborted = true;
        }
        fail
    }

    /// The text for the first condition that refuses the command.
    pub(super) fn refusal(&mut self, host: &mut dyn Host, bits: u32, now: UnixMs) -> Option<&'static str> {
        if bits & gate::UNAUTHENTICATED != 0 {
            return Some("NOAUTH Authentication required.");
        }
        if bits & gate::MEMORY_LIMIT != 0 && !self.make_room(host, now) {
            return Some("OOM command not allowed when used memory > 'maxmemory'.");
        }
        if bits & gate::SAVE_FAILED != 0 {
            return Some(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.",
            );
        }
        if bits & gate::FEW_REPLICAS != 0 {
            return Some("NOREPLICAS Not enough good replicas to write.");
        }
        if bits & gate::READ_ONLY != 0 {
            return Some("READONLY You can't write against a read only replica.");
        }
        if bits & gate::STALE != 0 {
            return Some("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
        }
        if bits & gate::LOADING != 0 {
            return Some("LOADING Redis is loading the dataset in memory");
        }
        None
    }

    /// Queues a command of a transaction. False for those that run at once all the same.
    #[cold]
    pub(super) fn queue(
        &mut self,
        client: &mut Client,
        id: usize,
        listed: &Listed,
        args: &[&[u8]],
        reply: &mut Reply,
    ) -> bool {
        let command = listed.command;
        let Some(multi) = &mut client.multi else { return false };
        if command.has(flags::NOT_QUEUED) {
            return false;
        }
        if command.has(flags::NO_MULTI) {
            multi.aborted = true;
            self.fail(id, &Fail::text("ERR Command not allowed inside a transaction"), reply);
        } else {
            multi.queue.push(Queued { command, id, argv: args.iter().map(|a| a.to_vec()).collect() });
            client.version += 1;
            reply.simple("QUEUED");
        }
        true
    }
}
