//! Programs of the user that are told of events and switches: a queue, a few at a time, tried again when they ask
//! for it (exit status 1) or were killed, ended when they run for too long.

use std::collections::VecDeque;

use super::action::{Action, Level, ScriptEnd};
use super::state::Sentinel;
use crate::base::time::MonoMs;

/// More wait than this: the oldest that does not run is dropped.
const QUEUE_MAX: usize = 256;
const RUNNING_MAX: usize = 16;
/// How often a script is tried.
const TRIES_MAX: u32 = 10;

/// The queue of scripts.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    queue: VecDeque<Script>,
    last: u64,
}

/// One script on its way.
#[derive(Clone, Debug)]
pub struct Script {
    /// Names it in events and actions; never used again.
    pub number: u64,
    /// The program.
    pub path: String,
    /// Without the program's own name.
    pub arguments: Vec<String>,
    /// Runs since.
    pub running: Option<MonoMs>,
    /// While it runs, once its process is known.
    pub pid: Option<u32>,
    /// Not before this moment.
    pub due: MonoMs,
    /// How often it was started.
    pub tries: u32,
    killed: bool,
}

impl Scripts {
    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Script> {
        self.queue.iter()
    }

    /// Number of those that run.
    pub fn running(&self) -> usize {
        self.queue.iter().filter(|s| s.running.is_some()).count()
    }

    /// Those that wait and those that run.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// None waits or runs.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn started(&mut self, number: u64, pid: u32) {
        if let Some(script) = self.queue.iter_mut().find(|s| s.number == number) {
            script.pid = Some(pid);
        }
    }
}

/// Waits before the next try: the delay, then twice as long each time.
fn retry_delay(first: MonoMs, tries: u32) -> MonoMs {
    first.saturating_mul(1 << tries.saturating_sub(1).min(16))
}

impl Sentinel {
    pub(super) fn schedule_script(&mut self, path: String, arguments: Vec<String>) {
        let scripts = &mut self.scripts;
        scripts.last += 1;
        let script = Script {
            number: scripts.last,
            path,
            arguments,
            running: None,
            pid: None,
            due: self.now,
            tries: 0,
            killed: false,
        };
        scripts.queue.push_back(script);
        if scripts.queue.len() > QUEUE_MAX
            && let Some(oldest) = scripts.queue.iter().position(|s| s.running.is_none())
        {
            scripts.queue.remove(oldest);
        }
        self.run_scripts();
    }

    /// Starts what is due, ends what runs for too long.
    pub(super) fn run_scripts(&mut self) {
        let (now, limit) = (self.now, self.timing.script_max_runtime);
        let mut room = RUNNING_MAX.saturating_sub(self.scripts.running());
        let mut timeouts = Vec::new();
        for script in &mut self.scripts.queue {
            match script.running {
                None if room > 0 && now >= script.due => {
                    room -= 1;
                    script.running = Some(now);
                    script.tries += 1;
                    script.killed = false;
                    self.out.push(Action::RunScript {
                        script: script.number,
                        path: script.path.clone(),
                        arguments: script.arguments.clone(),
                    });
                }
                Some(since) if now.saturating_sub(since) > limit && !script.killed => {
                    script.killed = true;
                    self.out.push(Action::KillScript { script: script.number });
                    timeouts.push(format!("{} {}", script.path, script.pid.unwrap_or_default()));
                }
                _ => {}
            }
        }
        for text in timeouts {
            self.tell(Level::Warning, "-script-timeout", None, text);
        }
    }

    pub(super) fn script_ended(&mut self, number: u64, end: ScriptEnd) {
        let (now, delay) = (self.now, self.timing.script_retry_delay);
        let Some(place) = self.scripts.queue.iter().position(|s| s.number == number) else { return };
        let script = &mut self.scripts.queue[place];
        let again = !matches!(end, ScriptEnd::Exit(code) if code != 1) && script.tries < TRIES_MAX;
        if again {
            (script.running, script.pid) = (None, None);
            script.due = now + retry_delay(delay, script.tries);
        } else {
            let (signal, code) = match end {
                ScriptEnd::Exit(code) => (0, code),
                ScriptEnd::Signal(signal) => (signal, 0),
                ScriptEnd::NotStarted => (0, 1),
            };
            let text = format!("{} {signal} {code}", script.path);
            self.scripts.queue.remove(place);
            if (signal, code) != (0, 0) {
                self.tell(Level::Warning, "-script-error", None, text);
            }
        }
        self.run_scripts();
    }
}
