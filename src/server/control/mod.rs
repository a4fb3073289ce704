//! The control thread: a tokio runtime for links, buses and timers, and the node's own clockwork.
//!
//! Replication, the cluster bus and everything else with sockets that are not clients' run as tasks here
//! ([`Control::spawn`]). They share the thread: a task must not compute for long, and DEBUG SLEEP stops all of them
//! together.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use crate::server::disk::{aof, rdb_file};
use crate::server::node::Node;
use crate::server::process::allocator;

pub mod bus;
pub mod clustering;
pub mod replication;
pub mod shard_channels;

/// The way to the control thread.
#[derive(Clone, Debug)]
pub struct Control {
    handle: Handle,
}

/// The clockwork turns at least this often, whatever `hz` says: pauses must end in time.
const LONGEST_TICK: Duration = Duration::from_millis(100);

impl Control {
    /// Starts the thread. It ends once the node is shut down, and all its tasks with it.
    pub fn start(node: &Arc<Node>) -> io::Result<thread::JoinHandle<()>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let control = Self { handle: runtime.handle().clone() };
        node.life.threads.runtimes.lock().push(runtime.handle().clone());
        assert!(node.life.threads.control.set(control).is_ok(), "there is one control thread");
        let node = Arc::clone(node);
        thread::Builder::new().name("control".into()).spawn(move || {
            crate::server::process::crash::guard_thread();
            runtime.block_on(clockwork(&node));
            // Tasks that still wait for a peer must not hold up the end.
            runtime.shutdown_background();
        })
    }

    /// Runs a task on the control thread, from any thread.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// The runtime of the control thread, for those who start tasks there later.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

async fn clockwork(node: &Arc<Node>) {
    tokio::spawn(watch_certificates(Arc::clone(node)));
    while !node.life.shutdown.begun.load(Ordering::Acquire) {
        tick(node);
        let every = Duration::from_millis(1000 / u64::from(node.config.load().hz.clamp(1, 500)));
        tokio::time::sleep(every.min(LONGEST_TICK)).await;
    }
}

/// Looks once a second whether the files of TLS have changed, on a thread that may wait for the disk.
async fn watch_certificates(node: Arc<Node>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let node = Arc::clone(&node);
        let look = move || {
            // Whoever changes the configuration now reads the files, too.
            if let Some(_one_at_a_time) = node.config_change.try_lock() {
                node.peers.tls.look(&node.config.load(), SystemTime::now());
            }
        };
        if tokio::task::spawn_blocking(look).await.is_err() {
            // The runtime ends.
            return;
        }
    }
}

/// What happens `hz` times a second.
fn tick(node: &Arc<Node>) {
    node.end_pause_in_time();
    if node.life.stopped.cron.load(Ordering::Relaxed) {
        return;
    }
    node.shared.keyspace.usage.set_clock(node.steady_s());
    node.records.counters.memory_peak.fetch_max(allocator::used(), Ordering::Relaxed);
    if !node.life.shutdown.closes_files() {
        rdb_file::cron(node);
        aof::cron(node);
    }
    let now = node.mono_ms();
    let commands = node.records.counters.commands.iter().map(|s| s.calls()).sum();
    let mut rates = node.records.counters.rates.lock();
    rates.commands.sample(now, commands);
    rates.command_nanos.sample(now, node.records.counters.commands.iter().map(|s| s.nanos()).sum());
    rates.input_bytes.sample(now, node.records.counters.net.input_bytes.load(Ordering::Relaxed));
    rates.output_bytes.sample(now, node.records.counters.net.output_bytes.load(Ordering::Relaxed));
    rates.rounds.sample(now, node.records.counters.net.rounds.load(Ordering::Relaxed));
    let (from_primary, to_replicas) = node.peers.replication.traffic();
    rates.repl_input_bytes.sample(now, from_primary);
    rates.repl_output_bytes.sample(now, to_replicas);
}
