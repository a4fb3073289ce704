//! Whether a user may run a command: asked for every origin whose rights the gate asks about, each time that a command
//! is about to run. Clients who may do everything never come here: one bit of their conditions says so.

use std::sync::atomic::Ordering;

use super::call::{Call, Origin};
use super::{Executor, Host};
use crate::acl::Denial;
use crate::acl::log::Context;
use crate::command::rights::Errand;
use crate::command::table::CommandEntry;
use crate::command::{Client, CommandError, gate};

/// A command that a user was not allowed to run.
#[derive(Debug)]
pub struct Denied<'a> {
    /// Who wanted to run it.
    pub client: &'a Client,
    /// What was to run.
    pub errand: Errand<'a>,
    /// What is not allowed.
    pub denial: Denial,
    /// Where it was refused.
    pub context: Context,
}

/// Whether a glance tells that the user of a client may run a command: nearly always. Kept out of the way of those who
/// need not be asked about.
#[inline(never)]
pub(super) fn are_clear(client: &mut Client, entry: &CommandEntry, id: usize, args: &[&[u8]]) -> bool {
    let errand = Errand { id, entry, args };
    client.user().is_some_and(|user| user.root.clearly_allows(&errand))
}

impl Executor {
    /// Refuses a call that the user of `client` may not make, in the words for its origin; the refusal is noted.
    pub(super) fn pass_rights(
        &self,
        origin: Origin,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
    ) -> Result<(), CommandError> {
        let entry = self.shared.commands.get(call.id);
        let bits = self.shared.gate.load(Ordering::Relaxed) | client.conditions();
        if bits & entry.needs & origin.asked() & gate::RESTRICTED == 0 {
            return Ok(());
        }
        let errand = Errand { id: call.id, entry, args: call.args };
        let Some(Err(denial)) = client.user().map(|user| user.check(&errand)) else { return Ok(()) };
        let context = match origin {
            Origin::Script => Context::Script,
            Origin::Transaction => Context::Multi,
            _ if client.in_multi() => Context::Multi,
            _ => Context::Toplevel,
        };
        host.denied(&Denied { client, errand, denial, context });
        Err(CommandError::owned(match origin {
            Origin::Transaction => refused_in_exec(denial),
            Origin::Script => {
                format!("ERR ACL failure in script: {}", errand.reason(denial, client.user_name(), false))
            }
            _ => format!("NOPERM {}", errand.reason(denial, client.user_name(), false)),
        }))
    }
}

/// Why a command of a transaction is not run although it was queued.
fn refused_in_exec(denial: Denial) -> String {
    let reason = match denial {
        Denial::Command => "no permission to execute the command or subcommand",
        Denial::Key(_) => "no permission to touch the specified keys",
        Denial::Channel(_) => "no permission to access one of the channels used as arguments",
    };
    format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: {reason}"
    )
}
