//! What a script asks of the node while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BETWEEN_LOOKS, Run, Subject};
use crate::base::time::UnixMs;
use crate::command::CommandError;
use crate::command::rights::Errand;
use crate::command::spec::flags;
use crate::exec::After;
use crate::exec::call::{Call, Ended, Origin};
use crate::keyspace::Audience;
use crate::keyspace::board::Reason;
use crate::resp::Reply;
use crate::script::{Calls, Running, Stop};

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
                if let Some(id) = self.executor.named(args) {
                    self.executor.stats.reject(id);
                }
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
            if !std::mem::replace(&mut self.wrote, true) {
                // From here on it does not begin anew.
                self.host.show_held(true);
            }
        }
        let call = Call { id, command, args, keys: key.as_slice(), now: self.task.call.now, brief: false };
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
        Some(self.task.obeyed || self.client.user().is_none_or(|user| user.check(&errand).is_ok()))
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
            let since: UnixMs = self.task.call.now;
            self.locked.declare_long(Reason::Script, since);
        }
        self.host.meanwhile(self.long);
        Ok(nanos)
    }
}

impl Run<'_, '_> {
    /// Notes that the script can be seen and killed from now on.
    fn show(&mut self) {
        let function = match &self.task.subject {
            Subject::Script(_) => None,
            Subject::Function(_, function) => Some(function.name.clone()),
        };
        let running = Arc::new(Running {
            function,
            command: self.task.call.args.iter().map(|arg| arg.to_vec()).collect(),
            worker: self.client.worker,
            since: self.task.call.now,
            began: self.began,
            wrote: AtomicBool::new(self.wrote),
            killed: AtomicBool::new(false),
        });
        self.executor.shared.scripts.begin(Arc::clone(&running));
        self.running = Some(running);
    }
}
