//! Drives [`sentinel`](crate::sentinel): sockets, a clock, the configuration file, names and scripts.
//!
//! Whoever brings an event steps the machine under its lock and carries the actions out before it lets go, so that
//! they happen in the order of the steps. None of them waits: links have tasks, the file a thread of its own. What
//! must not leave before it is on disk is held back by the machine, or waits in [`Driver::command`].
//!
//! - `watching`: connections
//! - `file`: **where the configuration is written and fsynced**
//! - `scripts`: programs of the user

mod file;
mod scripts;
mod watching;

use std::collections::HashMap;
use std::io;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::UnboundedSender;

use crate::base::rng::Rng;
use crate::base::time::MonoMs;
use crate::pubsub::Space;
use crate::resp::write_command;
use crate::sentinel::settings::Mistake;
use crate::sentinel::{Action, Event, LinkId, Sentinel};
use crate::server::node::Node;
use crate::server::process::logging::log;
use crate::server::process::os_error::words;

pub use file::check_writable;

/// A command waits so long for the disk. Only a stuck one takes longer.
const DISK_WAIT: Duration = Duration::from_secs(2);
/// The machine's clock begins here, so that nothing seems to have happened at its first moment.
const EPOCH: MonoMs = 1_000_000;

/// A running sentinel.
pub struct Driver {
    node: Weak<Node>,
    machine: Mutex<Machine>,
    /// Signalled when a state was written, or could not be.
    disk: Condvar,
    /// Set when it runs.
    file: OnceLock<file::Writer>,
    links: Mutex<HashMap<LinkId, UnboundedSender<Vec<u8>>>>,
    scripts: scripts::Running,
}

struct Machine {
    sentinel: Sentinel,
    /// The last state handed to the disk, and the last one whose fate is known, with the error if it was not written.
    handed: u64,
    settled: u64,
    failure: Option<String>,
    /// SENTINEL SIMULATE-FAILURE: nothing more is done, and the process ends once the last state is settled.
    crashing: bool,
}

impl Machine {
    /// What it decided last is on disk when it ends, so that it goes on from there after a restart.
    fn crash_if_due(&self) {
        if self.crashing && self.settled >= self.handed {
            tracing::warn!("Sentinel simulated failure, as asked for: exit");
            std::process::exit(99);
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// Reads the `sentinel` lines.
    pub fn load(lines: &[Vec<String>], own_port: u16, seed: u64) -> Result<(Sentinel, Vec<String>), Mistake> {
        Sentinel::read(lines, own_port, Rng::new(seed), EPOCH)
    }

    /// Starts to watch.
    pub fn start(node: &Arc<Node>, sentinel: Sentinel, file: PathBuf) -> io::Result<()> {
        tracing::info!("Sentinel ID is {}", sentinel.my_id());
        let driver = Arc::new(Self {
            node: Arc::downgrade(node),
            machine: Mutex::new(Machine { sentinel, handed: 0, settled: 0, failure: None, crashing: false }),
            disk: Condvar::new(),
            file: OnceLock::new(),
            links: Mutex::default(),
            scripts: scripts::Running::default(),
        });
        let writer = file::Writer::start(file, Arc::downgrade(&driver))?;
        assert!(driver.file.set(writer).is_ok(), "it is started once");
        driver.command(Sentinel::begin);
        assert!(node.peers.sentinel.set(Arc::clone(&driver)).is_ok(), "there is one sentinel");
        if let Some(control) = node.life.threads.control.get() {
            control.spawn(driver.keep_time());
        }
        Ok(())
    }

    /// The address that its connections come from (`bind-source-addr`).
    fn bind_source(&self) -> String {
        self.node.upgrade().map_or_else(String::new, |node| node.config.load().bind_source_addr.clone())
    }

    /// Looks at the state, brought to the present.
    pub fn read<R>(&self, look: impl FnOnce(&Sentinel) -> R) -> R {
        let mut machine = self.machine.lock();
        let now = self.now();
        look(machine.sentinel.at_time(now))
    }

    /// A command that may change something. Returns when that is on disk, or could not be written.
    pub fn command<R>(self: &Arc<Self>, call: impl FnOnce(&mut Sentinel) -> R) -> R {
        let mut machine = self.machine.lock();
        let now = self.now();
        let result = call(machine.sentinel.at_time(now));
        let actions = machine.sentinel.take_actions();
        self.carry_out(&mut machine, actions);
        let (deadline, handed) = (Instant::now() + DISK_WAIT, machine.handed);
        while machine.settled < handed && !self.disk.wait_until(&mut machine, deadline).timed_out() {}
        result
    }

    /// Why the last state could not be written; `None` when it was.
    pub fn disk_failure(&self) -> Option<String> {
        self.machine.lock().failure.clone()
    }

    /// Looks a name of a host up, for a command that names one. Blocks for as long as that takes.
    pub fn resolve(self: &Arc<Self>, host: &str) {
        if self.read(|s| s.settings.resolve_hostnames) && host.parse::<std::net::IpAddr>().is_err() {
            let found = (host, 0).to_socket_addrs().ok().and_then(|mut found| found.next());
            self.step(Event::Resolved { host: host.to_owned(), ip: found.map(|a| a.ip().to_string()) });
        }
    }

    /// What is written of the node's own settings beside the sentinel's lines.
    pub fn write_directive(&self, name: &'static str, value: String) {
        if let Some(file) = self.file.get() {
            file.write_directive(name, value);
        }
    }

    /// The users that are written with the next state.
    pub fn write_users(&self, users: Vec<Vec<u8>>) {
        if let Some(file) = self.file.get() {
            file.write_users(users);
        }
    }

    fn now(&self) -> MonoMs {
        self.node.upgrade().map_or(EPOCH, |node| EPOCH + node.mono_ms())
    }

    pub(self) fn step(self: &Arc<Self>, event: Event) {
        let mut machine = self.machine.lock();
        let now = self.now();
        if let Event::Persisted { generation, .. } = event {
            machine.settled = machine.settled.max(generation);
            self.disk.notify_all();
            machine.crash_if_due();
        }
        if machine.crashing {
            return;
        }
        let actions = machine.sentinel.step(now, event);
        self.carry_out(&mut machine, actions);
    }

    /// A state was written, or not for this reason.
    pub(self) fn written(self: &Arc<Self>, generation: u64, outcome: io::Result<()>) {
        let failure = outcome.err().map(|e| words(&e));
        if let Some(why) = &failure {
            tracing::warn!("WARNING: Sentinel was not able to save the new configuration on disk!!!: {why}");
        }
        let done = failure.is_none();
        self.machine.lock().failure = failure;
        self.step(Event::Persisted { generation, done });
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            self.step(Event::Tick);
            let (due, now) = self.read(|s| (s.next_tick(), self.now()));
            tokio::time::sleep(Duration::from_millis(due.saturating_sub(now).max(1))).await;
        }
    }

    fn carry_out(self: &Arc<Self>, machine: &mut Machine, actions: Vec<Action>) {
        let Some(node) = self.node.upgrade() else { return };
        if machine.crashing {
            return;
        }
        for action in actions {
            match action {
                Action::Persist { generation, lines } => {
                    machine.handed = generation;
                    if let Some(file) = self.file.get() {
                        file.write(generation, lines);
                    }
                }
                Action::Connect { link, host, port } => watching::open(self, &node, link, host, port),
                Action::Close(link) => {
                    self.links.lock().remove(&link);
                }
                Action::Send { link, words } => {
                    if let Some(outlet) = self.links.lock().get(&link) {
                        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
                        let mut bytes = Vec::new();
                        write_command(&mut bytes, &words);
                        // Its task is gone when the connection is; the machine hears of that.
                        let _ = outlet.send(bytes);
                    }
                }
                Action::Resolve { host } => watching::resolve(self, &node, host),
                Action::Publish { channel, payload } => {
                    node.publish(Space::Global, channel.as_bytes(), payload.as_bytes());
                }
                Action::RunScript { script, path, arguments } => {
                    scripts::run(self, script, path, arguments);
                }
                Action::KillScript { script } => self.scripts.kill(script),
                Action::Crash => {
                    machine.crashing = true;
                    return machine.crash_if_due();
                }
                Action::Log { level, text } => log(level, &text),
            }
        }
    }
}
