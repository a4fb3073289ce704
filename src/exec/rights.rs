//! Whether a user may run a command: asked for every origin that is not obeyed, each time that a command is about to
//! run. Clients who may do everything never come here: one bit of their conditions says so.

use std::sync::atomic::Ordering;

use super::call::Call;
use super::{Executor, Host};
use crate::acl::Denial;
use crate::acl::log::Context;
use crate::command::rights::Errand;
use crate::command::table::CommandEntry;
use crate::command::{Client, gate};

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
    /// Whether the user of a client has to be asked about.
    pub(super) fn is_restricted(&self, client: &Client) -> bool {
        let bits = self.shared.gate.load(Ordering::Relaxed) | client.conditions();
        bits & gate::RESTRICTED != 0 && !client.role.is_obeyed()
    }

    /// Whether the user of `client` may make a call. A refusal is noted, and told in words.
    pub(super) fn check_rights(
        &self,
        host: &mut dyn Host,
        client: &mut Client,
        call: &Call<'_>,
        context: Context,
    ) -> Result<(), (Denial, String)> {
        if client.role.is_obeyed() {
            return Ok(());
        }
        let errand = Errand { id: call.id, entry: self.shared.commands.get(call.id), args: call.args };
        let Some(Err(denial)) = client.user().map(|user| user.check(&errand)) else { return Ok(()) };
        host.denied(&Denied { client, errand, denial, context });
        Err((denial, errand.reason(denial, client.user_name(), false)))
    }
}

/// Why a command of a transaction is not run although it was queued.
pub(super) fn refused_in_exec(denial: Denial) -> String {
    let reason = match denial {
        Denial::Command => "no permission to execute the command or subcommand",
        Denial::Key(_) => "no permission to touch the specified keys",
        Denial::Channel(_) => "no permission to access one of the channels used as argument to the command",
    };
    format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: {reason}"
    )
}
