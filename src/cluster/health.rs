//! Whether the cluster serves, as this node sees it.

use super::action::Level;
use super::node::NodeFlags;
use super::state::ClusterState;
use super::view::Down;
use crate::base::crc16::SLOTS;

/// A primary that starts waits so long before it serves: others may have replaced it meanwhile, and it
/// should hear of that first.
const WRITABLE_DELAY_MS: u64 = 2000;
/// A primary that was in a minority waits a node timeout, within these bounds, before it serves again.
const REJOIN_DELAY_MIN_MS: u64 = 500;
const REJOIN_DELAY_MAX_MS: u64 = 5000;

impl ClusterState {
    pub(super) fn count_size(&mut self) {
        self.size = self.nodes.iter().filter(|(_, n)| n.is_voting()).count();
    }

    pub(super) fn update_health(&mut self) {
        let now = self.now.mono;
        self.count_size();
        let started = *self.started.get_or_insert(now);
        if self.me().is_primary() && self.down.is_some() && now < started + WRITABLE_DELAY_MS {
            return;
        }
        let unreachable = NodeFlags::FAIL | NodeFlags::PFAIL;
        let reachable = self.nodes.iter().filter(|(_, n)| n.is_voting() && !n.flags.has(unreachable)).count();
        let mut down = (self.config.require_full_coverage && !self.is_covered()).then_some(Down::Uncovered);
        if reachable < self.majority() {
            down = Some(Down::Minority);
            self.last_minority = Some(now);
        }
        if down == self.down {
            return;
        }
        if down.is_none() && self.me().is_primary() {
            let delay = self.config.node_timeout_ms.clamp(REJOIN_DELAY_MIN_MS, REJOIN_DELAY_MAX_MS);
            if self.last_minority.is_some_and(|t| now < t + delay) {
                return;
            }
        }
        if down.is_none() != self.down.is_none() {
            let word = if down.is_none() { "ok" } else { "fail" };
            self.log(Level::Notice, format!("Cluster state changed: {word}"));
        }
        self.down = down;
        self.todo.view = true;
    }

    /// Every slot has an owner, and none of the owners failed.
    fn is_covered(&self) -> bool {
        let covered: u32 =
            self.nodes.iter().filter(|(_, n)| !n.has_failed()).map(|(_, n)| n.slot_count).sum();
        covered as usize == SLOTS
    }
}
