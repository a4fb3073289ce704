//! Replacing a failed primary: a replica asks the primaries for their votes in a new epoch, a majority
//! makes it the new owner of the slots. And the other side: whom a primary votes for.
//! Source: Redis Cluster specification, "Replica election and promotion".

use std::collections::BTreeSet;

use super::action::Level;
use super::message::{Body, Message, mflag};
use super::node::{MYSELF, NodeFlags, NodeId, NodeIx};
use super::state::ClusterState;
use crate::base::time::MonoMs;

/// Replicas of one primary wait so long before they ask, to hear each other's offsets,
const SETTLE_MS: u64 = 500;
/// and a random time below this, so that equals do not ask at once,
const SPREAD_MS: u64 = 500;
/// and this much for each sibling with newer data.
const RANK_STEP_MS: u64 = 1000;
/// A replica without siblings has nobody to compare itself with. What remains is not to ask in the
/// same instant, hence in the same epoch, as the replicas of other primaries that failed with its own:
/// each failed primary has its turn.
const LONE_SETTLE_MS: u64 = 100;
const LONE_STEP_MS: u64 = 250;
/// Votes are waited for two node timeouts, at least this long.
const VOTES_TIMEOUT_MIN_MS: u64 = 2000;
/// A voter refuses a second vote about one primary for two node timeouts; a new attempt comes after that.
const RETRY_MARGIN_MS: u64 = 500;

#[derive(Clone, Debug, Default)]
pub(super) struct Election {
    /// When to ask for votes. `None`: no election was scheduled.
    pub start_at: Option<MonoMs>,
    pub rank: usize,
    /// Without siblings: the turn of our primary among the failed ones, as far as it was known.
    pub turn: u64,
    /// The epoch that votes are asked in, once they are.
    pub epoch: u64,
    pub asked: bool,
    pub votes: BTreeSet<NodeId>,
    /// Last logged reason not to stand.
    obstacle: Option<Obstacle>,
}

/// Why a replica of a failed primary does not stand for election.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Obstacle {
    /// Its data is older than `cluster-replica-validity-factor` allows.
    DataAge,
    /// It never had its primary's data, and a sibling has.
    NoData,
}

impl ClusterState {
    fn votes_timeout_ms(&self) -> u64 {
        (self.config.node_timeout_ms * 2).max(VOTES_TIMEOUT_MIN_MS)
    }

    /// When the election under way needs a tick.
    pub(super) fn election_deadline(&self) -> Option<MonoMs> {
        let start = self.election.start_at?;
        (!self.election.asked && start > self.now.mono).then_some(start)
    }

    /// The next move of a replica whose primary failed or hands over. Called whenever something about
    /// that may have changed, and by every round of the timer.
    pub(super) fn run_failover(&mut self) {
        let me = self.me();
        let Some(primary) = me.primary else { return };
        let manual = self.manual.deadline.is_some();
        let called_for = manual && self.manual.can_start
            || !manual && self.nodes[primary].has_failed() && !self.config.replica_no_failover;
        if !me.is_replica() || !called_for || self.nodes[primary].slot_count == 0 {
            return;
        }
        if !manual && let Some(obstacle) = self.obstacle(primary) {
            if self.election.obstacle.replace(obstacle) != Some(obstacle) {
                let why = match obstacle {
                    Obstacle::DataAge => {
                        "Disconnected from master for longer than allowed. \
                         Please check the 'cluster-replica-validity-factor' configuration option."
                    }
                    Obstacle::NoData => "Never synchronized, and another replica may have the data.",
                };
                self.log(Level::Warning, format!("Currently unable to failover: {why}"));
            }
            return;
        }
        self.election.obstacle = None;
        let now = self.now.mono;
        let Some(start_at) = self.election.start_at else { return self.schedule_election(primary) };
        if now > start_at + self.votes_timeout_ms() + RETRY_MARGIN_MS {
            return self.schedule_election(primary);
        }
        if !self.election.asked {
            self.postpone_by_rank(primary, manual);
            if now >= self.election.start_at.unwrap_or(start_at) {
                self.ask_for_votes(primary);
            }
            return;
        }
        if now <= start_at + self.votes_timeout_ms() && self.election.votes.len() >= self.majority() {
            self.log(Level::Notice, "Failover election won: I'm the new master.".into());
            let epoch = self.election.epoch;
            if self.nodes[MYSELF].config_epoch < epoch {
                self.nodes[MYSELF].config_epoch = epoch;
                self.log(Level::Notice, format!("configEpoch set to {epoch} after successful failover"));
            }
            self.replace_primary();
        }
    }

    fn obstacle(&self, primary: NodeIx) -> Option<Obstacle> {
        let timeout = self.config.node_timeout_ms;
        let factor = self.config.replica_validity_factor;
        match self.facts.last_io {
            // A node timeout is taken off the age: that much silence made the primary fail, and is no fault of ours.
            Some(t) => {
                let age = (self.now.mono.saturating_sub(t)).saturating_sub(timeout);
                let allowed =
                    (self.config.repl_ping_period_s * 1000).saturating_add(timeout.saturating_mul(factor));
                (factor != 0 && age > allowed).then_some(Obstacle::DataAge)
            }
            None if factor != 0 => Some(Obstacle::DataAge),
            // A factor of 0 allows data of any age, but a replica without any lets siblings go first that have
            // some, or of which nothing is known yet.
            None => self
                .siblings(primary)
                .any(|n| n.repl_offset > 0 || n.repl_offset_time.is_none())
                .then_some(Obstacle::NoData),
        }
    }

    /// The primary's other replicas that could stand.
    fn siblings(&self, primary: NodeIx) -> impl Iterator<Item = &super::node::Node> {
        self.nodes
            .replicas_of(primary)
            .filter(|(ix, n)| *ix != MYSELF && !n.has_failed() && !n.flags.has(NodeFlags::NOFAILOVER))
            .map(|(_, n)| n)
    }

    /// Number of siblings with newer data.
    fn replica_rank(&self, primary: NodeIx) -> usize {
        self.siblings(primary).filter(|n| n.repl_offset > self.facts.offset).count()
    }

    /// Place of our primary among those that others will want to replace at the same time.
    fn failed_primary_rank(&self, primary: NodeIx) -> u64 {
        let own = self.nodes[primary].id;
        let unreachable = NodeFlags::FAIL | NodeFlags::PFAIL;
        self.nodes.iter().filter(|(_, n)| n.is_voting() && n.flags.has(unreachable) && n.id < own).count()
            as u64
    }

    /// A primary appeared with the epoch that we asked for votes in: that election is lost. The votes of that epoch
    /// went to a replica of another primary, so the new attempt need not wait until votes about ours expire.
    pub(super) fn hear_of_winner(&mut self, config_epoch: u64) {
        if self.election.asked && config_epoch == self.election.epoch {
            let delay = self.rng.below(LONE_SETTLE_MS);
            self.election.asked = false;
            self.election.votes.clear();
            self.election.start_at = Some(self.now.mono + delay);
            self.log(
                Level::Notice,
                format!(
                    "Epoch {config_epoch} was won by another node, asking again in {delay} milliseconds."
                ),
            );
        }
    }

    fn schedule_election(&mut self, primary: NodeIx) {
        let now = self.now.mono;
        let manual = self.manual.deadline.is_some();
        let lone = self.siblings(primary).next().is_none();
        let rank = if manual { 0 } else { self.replica_rank(primary) };
        let turn = if lone { self.failed_primary_rank(primary) } else { 0 };
        let delay = if manual {
            0
        } else if lone {
            LONE_SETTLE_MS + LONE_STEP_MS * turn
        } else {
            SETTLE_MS + self.rng.below(SPREAD_MS) + RANK_STEP_MS * rank as u64
        };
        self.election = Election { start_at: Some(now + delay), rank, turn, ..Election::default() };
        let offset = self.facts.offset;
        self.log(
            Level::Notice,
            format!("Start of election delayed for {delay} milliseconds (rank #{rank}, offset {offset})."),
        );
        // The siblings need our offset to find their rank.
        let siblings: Vec<NodeId> = self.siblings(primary).map(|n| n.id).collect();
        if !siblings.is_empty() {
            self.broadcast_pong(|n| siblings.contains(&n.id));
        }
        self.todo.failover = delay == 0;
        if delay == 0 {
            self.ask_for_votes(primary);
        }
    }

    /// A sibling turned out to have newer data, or another primary's replica to be before us: let it go first.
    fn postpone_by_rank(&mut self, primary: NodeIx, manual: bool) {
        if manual {
            return;
        }
        if self.siblings(primary).next().is_none() {
            let turn = self.failed_primary_rank(primary);
            let added = turn.saturating_sub(self.election.turn) * LONE_STEP_MS;
            self.election.start_at = self.election.start_at.map(|t| t + added);
            self.election.turn = turn.max(self.election.turn);
            return;
        }
        let rank = self.replica_rank(primary);
        if rank > self.election.rank {
            let added = (rank - self.election.rank) as u64 * RANK_STEP_MS;
            self.election.start_at = self.election.start_at.map(|t| t + added);
            self.election.rank = rank;
            self.log(
                Level::Notice,
                format!("Replica rank updated to #{rank}, added {added} milliseconds of delay."),
            );
        }
    }

    fn ask_for_votes(&mut self, primary: NodeIx) {
        self.current_epoch += 1;
        self.election.epoch = self.current_epoch;
        self.election.asked = true;
        self.changed_durably();
        let epoch = self.current_epoch;
        self.log(Level::Notice, format!("Starting a failover election for epoch {epoch}."));
        let mut header = self.header();
        if self.manual.deadline.is_some() {
            header.mflags |= mflag::FORCE_ACK;
        } else {
            // A node that has not heard of the failure yet hears of it before the request, on the same link;
            // so there is no need to wait for the news to spread.
            let failed = self.nodes[primary].id;
            let message = Message { header: header.clone(), body: Body::Fail(failed) };
            self.broadcast(&message, super::node::Node::is_voting);
        }
        self.broadcast(&Message { header, body: Body::AuthRequest }, |_| true);
    }

    pub(super) fn hear_vote(&mut self, sender: NodeIx, epoch: u64) {
        if self.nodes[sender].is_voting() && self.election.asked && epoch >= self.election.epoch {
            self.election.votes.insert(self.nodes[sender].id);
            self.todo.failover = true;
        }
    }

    /// The elected replica takes its primary's slots and its place.
    pub(super) fn replace_primary(&mut self) {
        let Some(old) = self.me().primary else { return };
        self.make_primary(MYSELF);
        for slot in self.nodes[old].slots.clone().iter() {
            // A slot that the old primary claimed no more belongs to a node that we have not heard of yet.
            if !self.slots.unclaimed.get(slot) {
                self.set_slot_owner(slot, Some(MYSELF));
            }
        }
        self.election = Election::default();
        self.reset_manual_failover();
        self.changed_durably();
        // Serve at once if all is covered now.
        self.update_health();
        self.broadcast_pong(|_| true);
    }

    /// A replica asks for our vote. Never more than one in an epoch: it is on disk before it leaves.
    pub(super) fn hear_auth_request(&mut self, sender: NodeIx, message: &Message) {
        let me = self.me();
        if !me.is_voting() {
            return;
        }
        let header = &message.header;
        let candidate = &self.nodes[sender];
        let name = self.named(sender);
        let epoch = header.current_epoch;
        if epoch < self.current_epoch {
            return self.deny(format!("{name}: reqEpoch ({epoch}) < curEpoch({})", self.current_epoch));
        }
        if epoch <= me.config_epoch {
            return self.deny(format!("{name}: its epoch {epoch} is taken by this node"));
        }
        if self.last_vote_epoch >= self.current_epoch {
            return self.deny(format!("{name}: already voted for epoch {}", self.current_epoch));
        }
        let forced = header.mflags & mflag::FORCE_ACK != 0;
        if !candidate.is_replica() {
            return self.deny(format!("{name}: it is a master node"));
        }
        let Some(primary) = candidate.primary else {
            return self.deny(format!("{name}: I don't know its master"));
        };
        if !self.nodes[primary].has_failed() && !forced {
            return self.deny(format!("{name}: its master is up"));
        }
        let pause = self.config.node_timeout_ms * 2;
        if let Some(left) = self.nodes[primary]
            .voted_time
            .and_then(|t| (t + pause).checked_sub(self.now.mono))
            .filter(|t| *t > 0)
        {
            return self.deny(format!("{name}: can't vote about this master before {left} milliseconds"));
        }
        // Its view of the slots must not be older than ours.
        let outdated = header.slots.iter().find_map(|slot| {
            let epoch = self.nodes[self.slots.owner(slot)?].config_epoch;
            (epoch > header.config_epoch).then_some((slot, epoch))
        });
        if let Some((slot, epoch)) = outdated {
            let requested = header.config_epoch;
            return self.deny(format!("{name}: slot {slot} epoch ({epoch}) > reqEpoch ({requested})"));
        }
        self.nodes[primary].voted_time = Some(self.now.mono);
        self.last_vote_epoch = self.current_epoch;
        self.changed_durably();
        let epoch = self.current_epoch;
        self.log(Level::Notice, format!("Failover auth granted to {name} for epoch {epoch}"));
        if let Some(link) = self.nodes[sender].outbound {
            self.send(link, Body::AuthAck);
        }
    }

    fn deny(&mut self, why: String) {
        self.log(Level::Warning, format!("Failover auth denied to {why}"));
    }
}
