//! Threads that send keys to other nodes for MIGRATE: one for each target, with its connection. A thread closes the
//! connection and ends when it had nothing to send for some time.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::line::{Answers, Line};
use super::{Order, judge};
use crate::exec::Executor;
use crate::exec::parcel::Parcel;
use crate::exec::stats::CommandStats;
use crate::resp::Reply;
use crate::server::net::mailbox::Mail;
use crate::server::node::host::NodeHost;
use crate::server::node::{Node, unix_ms};
use crate::server::process::clock::now_ns;
use crate::server::process::crash;

/// As long as Redis keeps the connection of a MIGRATE.
const IDLE: Duration = Duration::from_secs(10);
/// As many connections as Redis keeps.
const MOST: usize = 64;
/// How often the end of a MIGRATE looks whether writes are still paused.
const PAUSED: Duration = Duration::from_millis(5);

type Target = (String, u16);

/// What a client asked for, which waits meanwhile.
#[derive(Debug)]
pub(super) struct Job {
    pub order: Order,
    /// `None` for a copy.
    pub parcel: Option<Parcel>,
    pub worker: usize,
    pub token: usize,
    pub client: u64,
}

/// All couriers of the node.
#[derive(Debug, Default)]
pub struct Couriers {
    by_target: Mutex<HashMap<Target, Sender<Box<Job>>>>,
    /// Connections that are open.
    pub sockets: AtomicUsize,
}

impl Couriers {
    /// Hands a job to the courier to its node. Gives it back if there is none and none can be started.
    pub(super) fn send(&self, node: &Arc<Node>, mut job: Box<Job>) -> Result<(), Box<Job>> {
        let target = (job.order.host.clone(), job.order.port);
        let mut by_target = self.by_target.lock();
        if let Some(courier) = by_target.get(&target) {
            match courier.send(job) {
                Ok(()) => return Ok(()),
                // It has died.
                Err(unsent) => job = unsent.0,
            }
        }
        if by_target.len() >= MOST
            && let Some(other) = by_target.keys().next().cloned()
        {
            // It finishes what it has and ends.
            by_target.remove(&other);
        }
        let (sender, jobs) = channel();
        let (node, of_thread) = (Arc::clone(node), target.clone());
        let started =
            std::thread::Builder::new().name("courier".into()).spawn(move || run(&node, of_thread, jobs));
        if started.is_err() {
            return Err(job);
        }
        // It lives as long as its sender.
        let sent = sender.send(job).map_err(|unsent| unsent.0);
        by_target.insert(target, sender);
        sent
    }
}

fn run(node: &Arc<Node>, target: Target, jobs: Receiver<Box<Job>>) {
    crash::guard_thread();
    // What it deletes is no command: nobody is to see it among the calls.
    let uncounted = Arc::new(CommandStats::new(node.shared.commands.len()));
    let mut executor =
        Executor::new(node.shared, Box::new(Arc::clone(node)), uncounted, unix_ms() as u64, now_ns);
    let mut line = Line::new(node);
    loop {
        let job = match jobs.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let mut by_target = node.peers.couriers.by_target.lock();
                // A command that has just found this courier has sent to it before it let go of the list.
                let Ok(job) = jobs.try_recv() else {
                    by_target.remove(&target);
                    return;
                };
                job
            }
        };
        let answers = line.exchange(&job.order);
        finish(node, &mut executor, *job, answers);
    }
}

/// Deletes what has arrived, and answers the client.
fn finish(node: &Arc<Node>, executor: &mut Executor, job: Job, answers: Answers) {
    let (arrived, result) = judge(&job.order, answers);
    let mut written_to = 0;
    if let Some(parcel) = &job.parcel {
        let mut host = NodeHost::new(node);
        loop {
            match executor.end_parcel(&mut host, parcel, &arrived, unix_ms()) {
                Some(end) => {
                    written_to = end;
                    break;
                }
                None => std::thread::sleep(PAUSED),
            }
        }
        node.shared.keyspace.log.ring();
    }
    let mut reply = Reply::new();
    match result {
        Ok(()) => reply.ok(),
        Err(text) => {
            reply.error(&text);
            node.records.counters.commands[job.worker].count_error(&text);
        }
    }
    node.send(job.worker, Mail::Resume { token: job.token, client: job.client, reply, written_to });
}
