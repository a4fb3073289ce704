//! FAILOVER: a primary hands its part over to one of its replicas.
//!
//! ```text
//! WaitingForSync --(a replica has acknowledged everything)--> InProgress --(it takes our PSYNC FAILOVER)--> over
//!        '----------(the time is up, and FORCE was said)----------^    '--(it refuses, or ABORT)--> primary again
//! ```
//!
//! Writes are paused all the while, so that the end of the stream stands still. Source: documentation of FAILOVER,
//! behaviour of redis-server 7.0.15.

use super::primary::{Primary, State};
use crate::base::time::MonoMs;

/// What FAILOVER asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// `TO`: the replica as it announces itself; `None`: whichever is first to have everything.
    pub to: Option<(String, u16)>,
    /// `FORCE`: hand over when the time is up, whatever the replica has.
    pub force: bool,
    /// `TIMEOUT`, in milliseconds.
    pub timeout_ms: Option<MonoMs>,
}

/// A handing over that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    to: Option<(String, u16)>,
    force: bool,
    deadline: Option<MonoMs>,
    in_progress: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// Follow this replica, asking it with PSYNC FAILOVER.
    HandOver {
        /// Its host and port.
        to: (String, u16),
        /// What to log.
        why: String,
    },
    /// Go on as primary, for this reason.
    Abort(&'static str),
}

impl Order {
    /// Begins. An error is the reply to the command.
    pub fn begin(self, now: MonoMs, primary: &Primary) -> Result<Failover, &'static str> {
        if primary.connected() == 0 {
            return Err("ERR FAILOVER requires connected replicas.");
        }
        if self.force && (self.to.is_none() || self.timeout_ms.is_none()) {
            return Err("ERR FAILOVER with force option requires both a timeout and target HOST and IP.");
        }
        if let Some((host, port)) = &self.to {
            match primary.find(host, *port) {
                None => return Err("ERR FAILOVER target HOST and PORT is not a replica."),
                Some(State::Online) => {}
                Some(_) => return Err("ERR FAILOVER target replica is not online."),
            }
        }
        Ok(Failover {
            deadline: self.timeout_ms.map(|ms| now.saturating_add(ms)),
            to: self.to,
            force: self.force,
            in_progress: false,
        })
    }
}

impl Failover {
    /// Field `master_failover_state`, for one that may be under way.
    pub fn state_name(this: Option<&Self>) -> &'static str {
        match this {
            None => "no-failover",
            Some(f) if f.in_progress => "failover-in-progress",
            Some(_) => "waiting-for-sync",
        }
    }

    /// Whether the node is a replica for the time being, which asks its former replica to take over.
    pub fn is_in_progress(&self) -> bool {
        self.in_progress
    }

    /// The replica as log lines name it.
    pub fn target(&self) -> String {
        self.to.as_ref().map_or_else(|| "any replica".to_owned(), |(host, port)| format!("{host}:{port}"))
    }

    /// Looks whether it is time to hand over. `end` is the end of the stream.
    pub fn look(&self, now: MonoMs, primary: &Primary, end: u64) -> Step {
        if self.in_progress {
            return Step::Wait;
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return match &self.to {
                Some(to) if self.force => Step::HandOver {
                    to: to.clone(),
                    why: format!("FAILOVER to {} time out exceeded, failing over.", self.target()),
                },
                _ => Step::Abort("Replica never caught up before timeout"),
            };
        }
        let wanted =
            |ip: &str, port| self.to.as_ref().is_none_or(|(h, p)| h.eq_ignore_ascii_case(ip) && *p == port);
        let ready = primary.role().into_iter().find(|r| r.offset == end && wanted(&r.ip, r.port));
        ready.map_or(Step::Wait, |r| Step::HandOver {
            why: format!("Failover target {}:{} is synced, failing over.", r.ip, r.port),
            to: (r.ip, r.port),
        })
    }

    /// The node follows `to` from now on.
    pub fn handed_over(&mut self, to: (String, u16)) {
        (self.to, self.in_progress) = (Some(to), true);
    }
}
