//! What is known of a script before it runs: whether it writes, and whether it keeps to its declared keys.

use crate::command::spec::{Begin, flags};
use crate::command::{Command, gate};
use crate::exec::Shared;
use crate::script::proof::Argument;
use crate::script::shebang::of_script;
use crate::script::{self, Flags, Script};

/// How a command names what it runs.
pub(super) fn named_by(command: &Command) -> (bool, bool, bool) {
    let name = command.name;
    (name.starts_with("fcall"), name.starts_with("evalsha"), name.ends_with("_ro"))
}

/// Whether the script that a command runs says in its first line that it writes, or that it does not; `None` if it says
/// nothing, or for other commands. What it says stands above what the command may do.
pub(in crate::exec) fn says_whether_it_writes(
    shared: &Shared,
    command: &Command,
    args: &[&[u8]],
) -> Option<bool> {
    Some(!said_by(shared, command, args)?.has(Flags::NO_WRITES))
}

/// What the script that a command runs says of itself; `None` if it says nothing or is not known, or for other commands.
fn said_by(shared: &Shared, command: &Command, args: &[&[u8]]) -> Option<Flags> {
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
    (!said.has(Flags::SILENT)).then_some(said)
}

/// The conditions of [`gate::OF_SCRIPTS`] that do not concern a command, because of what the script that it runs says
/// of itself. One that says nothing is looked at command by command.
pub(in crate::exec) fn spared(shared: &Shared, command: &Command, args: &[&[u8]]) -> u32 {
    if !command.has(flags::RUNS_SCRIPT) {
        return 0;
    }
    let Some(said) = said_by(shared, command, args) else { return gate::OF_SCRIPTS };
    let mut spared = 0;
    if said.has(Flags::NO_WRITES) {
        spared |= gate::STOPS_WRITES | gate::MEMORY_LIMIT;
    }
    if said.has(Flags::ALLOW_OOM) {
        spared |= gate::MEMORY_LIMIT;
    }
    if said.has(Flags::ALLOW_STALE) {
        spared |= gate::STALE;
    }
    spared
}

/// Whether the script that a command runs needs no locks but those of its declared keys, as far as is known.
pub(in crate::exec) fn keeps_to_its_keys(shared: &Shared, command: &Command, args: &[&[u8]]) -> bool {
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
pub(super) fn is_proven(shared: &Shared, script: &Script) -> bool {
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
