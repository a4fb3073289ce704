//! Failure detection: silence makes a suspicion (PFAIL), a majority of primaries that suspect the same
//! node makes it a failure (FAIL), and a node that is heard again is cleared.
//! Source: Redis Cluster specification, "Failure detection".

use super::action::Level;
use super::message::{Body, Message};
use super::node::{MYSELF, Node, NodeFlags, NodeIx};
use super::state::ClusterState;
use crate::base::time::MonoMs;

/// A report that was not repeated for so many node timeouts is void.
const REPORT_VALIDITY: u64 = 2;
/// A failed primary that nobody replaced for so many node timeouts is taken back once it is heard.
const UNDO_AFTER: u64 = 2;

impl ClusterState {
    /// When this node, if it stays silent, is to be suspected. `None` if we wait for no answer from it.
    pub(super) fn suspicion_deadline(&self, node: &Node) -> Option<MonoMs> {
        if node.flags.has(
            NodeFlags::MYSELF | NodeFlags::NOADDR | NodeFlags::HANDSHAKE | NodeFlags::PFAIL | NodeFlags::FAIL,
        ) {
            return None;
        }
        // Any packet from it is a sign of life, also if the answer to our ping is stuck behind others.
        Some(node.ping_sent?.max(node.data_received) + self.config.node_timeout_ms + 1)
    }

    /// Suspects every node that was silent for the node timeout, and tells so at once to those who count.
    pub(super) fn suspect_silent_nodes(&mut self) {
        let now = self.now.mono;
        let silent: Vec<NodeIx> = self
            .nodes
            .iter()
            .filter(|(_, n)| self.suspicion_deadline(n).is_some_and(|t| t <= now))
            .map(|(ix, _)| ix)
            .collect();
        if silent.is_empty() {
            return;
        }
        for ix in &silent {
            let id = self.nodes[*ix].id;
            self.log(Level::Debug, format!("*** NODE {id} possibly failing"));
            self.nodes[*ix].flags.set(NodeFlags::PFAIL);
            self.todo.view = true;
            self.todo.health = true;
        }
        // Our suspicion travels with every packet; not to wait for the next ones makes failover faster
        // by up to a ping interval.
        if self.me().is_voting() {
            self.broadcast_pong(|n| !n.flags.has(NodeFlags::PFAIL | NodeFlags::FAIL));
        }
        for ix in silent {
            self.fail_if_majority_agrees(ix);
        }
    }

    pub(super) fn report_failure(&mut self, reporter: NodeIx, ix: NodeIx) {
        let (id, now) = (self.nodes[reporter].id, self.now.mono);
        if self.nodes[ix].failure_reports.insert(id, now).is_none() {
            let (reporter, node) = (self.named(reporter), self.named(ix));
            self.log(Level::Verbose, format!("Node {reporter} reported node {node} as not reachable."));
        }
        self.fail_if_majority_agrees(ix);
    }

    pub(super) fn withdraw_report(&mut self, reporter: NodeIx, ix: NodeIx) {
        let id = self.nodes[reporter].id;
        if self.nodes[ix].failure_reports.remove(&id).is_some() {
            let (reporter, node) = (self.named(reporter), self.named(ix));
            self.log(Level::Verbose, format!("Node {reporter} reported node {node} is back online."));
        }
    }

    /// Number of valid reports; outdated ones are dropped.
    pub(super) fn failure_reports(&mut self, ix: NodeIx) -> usize {
        let oldest = self.now.mono.saturating_sub(self.config.node_timeout_ms * REPORT_VALIDITY);
        let reports = &mut self.nodes[ix].failure_reports;
        reports.retain(|_, t| *t >= oldest);
        reports.len()
    }

    /// Turns our suspicion into a failure once a majority of the primaries with slots shares it, and
    /// makes everybody take it over.
    pub(super) fn fail_if_majority_agrees(&mut self, ix: NodeIx) {
        if !self.nodes[ix].is_suspected() || self.nodes[ix].has_failed() {
            return;
        }
        self.count_size();
        let agreeing = self.failure_reports(ix) + usize::from(self.me().is_voting());
        if agreeing < self.majority() {
            return;
        }
        let (id, node) = (self.nodes[ix].id, self.named(ix));
        self.log(Level::Notice, format!("Marking node {node} as failing (quorum reached)."));
        self.set_failed(ix);
        let message = Message { header: self.header(), body: Body::Fail(id) };
        self.broadcast(&message, |_| true);
    }

    /// FAIL message: the sender saw the majority, or was told by one who did.
    pub(super) fn hear_fail(&mut self, sender: NodeIx, ix: NodeIx) {
        if ix == MYSELF || self.nodes[ix].has_failed() {
            return;
        }
        let (from, about) = (self.named(sender), self.named(ix));
        self.log(Level::Notice, format!("FAIL message received from {from} about {about}"));
        self.set_failed(ix);
    }

    fn set_failed(&mut self, ix: NodeIx) {
        let now = self.now.mono;
        let node = &mut self.nodes[ix];
        node.flags.clear(NodeFlags::PFAIL);
        node.flags.set(NodeFlags::FAIL);
        node.fail_time = now;
        self.changed();
        self.todo.failover = true;
    }

    /// A node answered: suspicion ends at once, failure under conditions.
    pub(super) fn heard_alive(&mut self, ix: NodeIx) {
        if self.nodes[ix].is_suspected() {
            self.nodes[ix].flags.clear(NodeFlags::PFAIL);
            self.changed();
        } else if self.nodes[ix].has_failed() {
            self.clear_failure_if_possible(ix);
        }
    }

    /// A failed primary with slots is taken back only when nobody replaced it for a while: an election
    /// may be under way, and its winner's configuration must find it failed.
    fn clear_failure_if_possible(&mut self, ix: NodeIx) {
        let now = self.now.mono;
        let node = &self.nodes[ix];
        let name = self.named(ix);
        let text = if !node.is_voting() {
            let what = if node.is_replica() { "replica" } else { "master without slots" };
            format!("Clear FAIL state for node {name}:{what} is reachable again.")
        } else if now.saturating_sub(node.fail_time) > self.config.node_timeout_ms * UNDO_AFTER {
            format!(
                "Clear FAIL state for node {name}: is reachable again and nobody is serving its slots after some time."
            )
        } else {
            return;
        };
        self.log(Level::Notice, text);
        self.nodes[ix].flags.clear(NodeFlags::FAIL);
        self.changed();
    }
}
