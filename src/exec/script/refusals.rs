//! What the commands of a script are refused for.

use std::sync::atomic::Ordering;

use super::Run;
use crate::base::crc16::key_slot;
use crate::command::spec::flags;
use crate::command::{Command, gate};
use crate::exec::call::{Call, Origin};
use crate::exec::route::Route;
use crate::script::Flags;

impl Run<'_, '_> {
    /// Refuses a command, in the words that scripts know.
    pub(super) fn refusal(&mut self, id: usize, args: &[&[u8]]) -> Option<String> {
        let shared = self.executor.shared;
        let entry = shared.commands.get(id);
        let command = entry.command;
        if command.has(flags::NOSCRIPT) && !shared.scripts.may_run_all.load(Ordering::Relaxed) {
            return Some("ERR This Redis command is not allowed from script".into());
        }
        if !self.task.obeyed {
            let call = Call { id, command, args, keys: &[], now: self.task.call.now, brief: false };
            let asked = self.executor.pass_rights(Origin::Script, self.host, self.client, &call);
            if let Err(fail) = asked {
                return Some(fail.to_string());
            }
        }
        let changes = command.has(flags::WRITE) || command.has(flags::MAY_REPLICATE);
        if changes && self.task.read_only {
            return Some("ERR Write commands are not allowed from read-only scripts.".into());
        }
        if self.task.obeyed {
            return None;
        }
        let bits = shared.gate.load(Ordering::Relaxed) & entry.needs & Origin::Script.asked();
        if bits & gate::STALE != 0 {
            return Some("ERR Can not execute the command on a stale replica".into());
        }
        // A script that has begun to write goes on.
        let short = command.has(flags::DENYOOM) && self.task.short_of_memory && !self.wrote;
        if short {
            return Some("OOM command not allowed when used memory > 'maxmemory'.".into());
        }
        let text = self.executor.refusal(self.host, bits & gate::STOPS_WRITES, self.task.call.now);
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
        let first =
            *self.slot.get_or_insert_with(|| self.task.given.keys.first().map_or(slot, |key| key_slot(key)));
        let crosses = !self.task.flags.has(Flags::SILENT) && !self.task.flags.has(Flags::ALLOW_CROSS_SLOT);
        (crosses && first != slot)
            .then(|| "ERR Script attempted to access keys that do not hash to the same slot".into())
    }
}
