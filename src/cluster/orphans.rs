//! Replica migration: a spare replica moves to a primary that has lost all of its own.
//! Source: Redis Cluster specification, "Replica migration".

use super::action::Level;
use super::node::{MYSELF, NodeFlags, NodeIx};
use super::state::ClusterState;

/// A primary must be orphaned this long, lest a restart of its replica looks like a loss.
const DELAY_MS: u64 = 5000;

impl ClusterState {
    /// Part of every round of the timer.
    pub(super) fn migrate_to_orphan(&mut self) {
        let now = self.now.mono;
        let places = self.nodes.places();
        let mut most = 0;
        let mut target: Option<NodeIx> = None;
        for ix in &places {
            let working = self.nodes.working_replicas(*ix);
            let node = &mut self.nodes[*ix];
            if !node.is_primary() || node.has_failed() || *ix == MYSELF {
                node.orphaned_since = None;
                continue;
            }
            most = most.max(working);
            if working > 0 || node.slot_count == 0 || !node.flags.has(NodeFlags::MIGRATE_TO) {
                node.orphaned_since = None;
                continue;
            }
            node.orphaned_since.get_or_insert(now);
            target = target.or(Some(*ix));
        }
        let (Some(target), Some(primary)) = (target, self.me().primary) else { return };
        if !self.me().is_replica() || !self.config.allow_replica_migration || self.down.is_some() {
            return;
        }
        let spare = self.nodes.working_replicas(primary);
        if most < 2 || spare != most || spare <= self.config.migration_barrier {
            return;
        }
        // Of the replicas of the primaries that have most, only the one with the smallest name moves.
        let candidate = places
            .iter()
            .filter(|ix| self.nodes[**ix].is_primary() && self.nodes.working_replicas(**ix) == most)
            .flat_map(|ix| self.nodes.replicas_of(*ix))
            .filter(|(_, n)| !n.has_failed())
            .min_by_key(|(_, n)| n.id);
        if candidate.map(|(ix, _)| ix) != Some(MYSELF) {
            return;
        }
        if self.nodes[target].orphaned_since.is_some_and(|t| now > t + DELAY_MS) {
            let id = self.nodes[target].id;
            self.log(Level::Notice, format!("Migrating to orphaned master {id}"));
            self.follow_primary(target);
            self.changed_durably();
        }
    }
}
