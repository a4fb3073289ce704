//! CLUSTER FAILOVER: a replica takes over from a working primary without losing a write. The primary
//! pauses its clients and tells its offset; once the replica has reached it, it stands for election.
//! Source: Redis Cluster specification, "Manual failover".

use super::action::{Action, Level, Now};
use super::message::Body;
use super::message::Kind;
use super::node::{MYSELF, NodeIx};
use super::state::ClusterState;
use crate::base::time::MonoMs;

const TIMEOUT_MS: u64 = 5000;
/// The pause outlasts the attempt: clients must not write between a late promotion and the news of it.
const PAUSE_MS: u64 = TIMEOUT_MS * 2;

/// How CLUSTER FAILOVER goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailoverMode {
    /// Hand over in agreement with the primary.
    Default,
    /// Without the primary, but with the votes of the others.
    Force,
    /// Without anybody's consent.
    Takeover,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ManualFailover {
    /// Set while one is under way, on the primary as on the replica.
    pub deadline: Option<MonoMs>,
    /// On the primary: who takes over.
    pub replica: Option<NodeIx>,
    /// On the primary: its clients are paused, so its offset is final.
    pub paused: bool,
    /// On the replica: the primary's final offset.
    pub primary_offset: Option<u64>,
    /// On the replica: it has all data, or does not care.
    pub can_start: bool,
}

impl ManualFailover {
    pub(super) fn may_become_ready(&self) -> bool {
        self.deadline.is_some() && self.primary_offset.is_some() && !self.can_start
    }
}

impl ClusterState {
    /// CLUSTER FAILOVER [FORCE|TAKEOVER].
    pub fn failover(&mut self, now: Now, mode: FailoverMode) -> Result<(), String> {
        self.now = now;
        if !self.me().is_replica() {
            return Err("ERR You should send CLUSTER FAILOVER to a replica".into());
        }
        let Some(primary) = self.me().primary else {
            return Err("ERR I'm a replica but my master is unknown to me".into());
        };
        let node = &self.nodes[primary];
        let link = node.outbound.filter(|l| self.links.get(l).is_some_and(|l| l.up));
        if (node.has_failed() || link.is_none()) && mode == FailoverMode::Default {
            return Err("ERR Master is down or failed, please use CLUSTER FAILOVER FORCE".into());
        }
        self.reset_manual_failover();
        self.manual.deadline = Some(now.mono + TIMEOUT_MS);
        match mode {
            FailoverMode::Takeover => {
                self.log(Level::Notice, "Taking over the master (user request).".into());
                self.bump_epoch_without_consensus();
                self.replace_primary();
            }
            FailoverMode::Force => {
                self.log(Level::Notice, "Forced failover user request accepted.".into());
                self.manual.can_start = true;
                self.election.start_at = None;
                self.todo.failover = true;
            }
            FailoverMode::Default => {
                self.log(Level::Notice, "Manual failover user request accepted.".into());
                if let Some(link) = link {
                    self.send(link, Body::MfStart);
                }
            }
        }
        Ok(())
    }

    /// Our replica wants to take over.
    pub(super) fn hear_mfstart(&mut self, sender: NodeIx) {
        if self.nodes[sender].primary != Some(MYSELF) {
            return;
        }
        self.reset_manual_failover();
        let now = self.now.mono;
        self.manual.deadline = Some(now + TIMEOUT_MS);
        self.manual.replica = Some(sender);
        let name = self.named(sender);
        self.log(Level::Warning, format!("Manual failover requested by replica {name}."));
        self.out.push(Action::PauseClients { until: now + PAUSE_MS });
    }

    /// The driver has carried out [`Action::PauseClients`], and the replication facts are those of after it.
    pub fn clients_paused(&mut self, now: Now) {
        self.now = now;
        let Some(replica) = self.manual.replica else { return };
        self.manual.paused = true;
        if let Some(link) = self.nodes[replica].outbound {
            self.send_gossip(link, Kind::Ping);
        }
    }

    /// Our primary has paused its clients at this offset.
    pub(super) fn hear_paused_offset(&mut self, offset: u64) {
        if self.manual.deadline.is_some() && self.manual.primary_offset.is_none() && !self.manual.can_start {
            self.manual.primary_offset = Some(offset);
            self.log(
                Level::Notice,
                format!("Received replication offset for paused master manual failover: {offset}"),
            );
            self.check_manual_failover_offset();
        }
    }

    pub(super) fn check_manual_failover_offset(&mut self) {
        if self.manual.may_become_ready() && self.manual.primary_offset == Some(self.facts.offset) {
            self.manual.can_start = true;
            self.election.start_at = None;
            self.todo.failover = true;
            self.log(
                Level::Notice,
                "All master replication stream processed, manual failover can start.".into(),
            );
        }
    }

    pub(super) fn expire_manual_failover(&mut self) {
        if self.manual.deadline.is_some_and(|t| t < self.now.mono) {
            self.log(Level::Warning, "Manual failover timed out.".into());
            self.reset_manual_failover();
        }
    }

    pub(super) fn reset_manual_failover(&mut self) {
        if self.manual.replica.is_some() {
            self.out.push(Action::UnpauseClients);
        }
        self.manual = ManualFailover::default();
    }
}
