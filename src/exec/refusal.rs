//! The gate in its slow case: which command is refused when, in Redis's order and words.

use super::{Executor, Passed};
use crate::base::time::UnixMs;
use crate::command::client::{Client, Queued, Role};
use crate::command::spec::flags;
use crate::command::table::Listed;
use crate::command::{Fail, gate};
use crate::resp::Reply;

/// The reply to a name that is no command.
pub(super) fn unknown_command(args: &[&[u8]]) -> Fail {
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

/// At most `max` bytes of an argument as text; what is not text becomes a replacement character.
fn shown(arg: &[u8], max: usize) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(max)]).replace(['\r', '\n'], " ")
}

impl Executor {
    /// Refuses, queues or lets pass a command that a condition concerns; `bits` are those conditions.
    #[cold]
    pub(super) fn pass_gate(
        &mut self,
        client: &mut Client,
        id: usize,
        listed: &Listed,
        bits: u32,
        args: &[&[u8]],
        now: UnixMs,
        reply: &mut Reply,
    ) -> Passed {
        let command = listed.command;
        // Our primary's stream was accepted by the primary.
        if client.role == Role::Primary {
            return self.queue_if_multi(client, id, listed, args, reply);
        }
        // EXEC is judged by what it will run.
        let (bits, denies_oom) = if command.name == "exec" && client.multi.is_some() {
            let queued = client.multi.iter().flat_map(|m| &m.queue);
            let needs = queued.clone().fold(0, |n, q| n | gate::needs(q.command));
            let node = self.shared.gate.load(std::sync::atomic::Ordering::Relaxed);
            let bits = (bits | (node & needs)) & !gate::IN_MULTI & !gate::CLUSTER;
            (bits, queued.clone().any(|q| q.command.has(flags::DENYOOM)))
        } else {
            (bits, command.has(flags::DENYOOM))
        };
        let refusal = self.refusal(listed, bits, denies_oom, now);
        if let Some(text) = refusal {
            if let Some(multi) = &mut client.multi {
                if command.name == "exec" {
                    client.multi = None;
                    self.unwatch(client);
                    self.fail(
                        id,
                        &Fail::owned(format!("EXECABORT Transaction discarded because of: {text}")),
                        reply,
                    );
                    return Passed::Answered;
                }
                multi.aborted = true;
            }
            self.fail(id, &Fail::text(text), reply);
            return Passed::Answered;
        }
        if bits & gate::SUBSCRIBED != 0 {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                listed.name
            );
            self.fail(id, &Fail::owned(text), reply);
            return Passed::Answered;
        }
        if bits & gate::PAUSED_ALL != 0 || bits & gate::PAUSED_WRITES != 0 {
            return Passed::Later;
        }
        self.queue_if_multi(client, id, listed, args, reply)
    }

    /// The text for the first condition that refuses the command.
    fn refusal(&mut self, listed: &Listed, bits: u32, denies_oom: bool, now: UnixMs) -> Option<&'static str> {
        if bits & gate::UNAUTHENTICATED != 0 {
            return Some("NOAUTH Authentication required.");
        }
        if bits & gate::MEMORY_LIMIT != 0 && denies_oom && !self.make_room(now) {
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
        let _ = listed;
        None
    }

    fn queue_if_multi(
        &mut self,
        client: &mut Client,
        id: usize,
        listed: &Listed,
        args: &[&[u8]],
        reply: &mut Reply,
    ) -> Passed {
        let command = listed.command;
        let Some(multi) = &mut client.multi else { return Passed::Run };
        if command.has(flags::NOT_QUEUED) {
            return Passed::Run;
        }
        if command.has(flags::NO_MULTI) {
            multi.aborted = true;
            self.fail(id, &Fail::text("ERR Command not allowed inside a transaction"), reply);
            return Passed::Answered;
        }
        multi.queue.push(Queued { command, id, argv: args.iter().map(|a| a.to_vec()).collect() });
        reply.simple("QUEUED");
        Passed::Answered
    }
}
