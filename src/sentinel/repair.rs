//! Replicas that are not what they should be: primaries that returned after they were replaced, and replicas of
//! somebody else.

use super::action::Level;
use super::instance::{Address, InstanceId, Role};
use super::state::Sentinel;
use crate::base::time::MonoMs;

/// So many hello periods must pass first: another sentinel may have promoted it, and will say so.
const NEWS_PERIODS: MonoMs = 4;

impl Sentinel {
    /// Whether our primary can be followed: known as one, up, heard of lately.
    fn primary_looks_sane(&self, primary: InstanceId) -> bool {
        let instance = self.at(primary);
        instance.role == Role::Primary
            && !self.is_down(primary)
            && instance.info_at.is_some_and(|at| self.now.saturating_sub(at) < 2 * self.timing.info_period)
    }

    /// Whether an instance has been up, and nothing else, for so long.
    fn up_for(&self, id: InstanceId, ms: MonoMs) -> bool {
        let instance = self.at(id);
        instance.sdown.is_none()
            && (instance.sdown_last == 0 || self.now.saturating_sub(instance.sdown_last) > ms)
    }

    /// Whether somebody may be failing over now: an epoch is as new as that. Its outcome comes with the next hello, and
    /// what it has promoted must not be told to follow meanwhile.
    fn is_epoch_fresh(&self, ms: MonoMs) -> bool {
        self.epoch_since != 0 && self.now.saturating_sub(self.epoch_since) <= ms
    }

    /// A replica acts as a primary although nobody promoted it: it is told to follow.
    pub(super) fn convert_to_replica_if_due(&mut self, id: InstanceId) {
        let (primary, wait) = (self.at(id).primary, NEWS_PERIODS * self.timing.publish_period);
        let due = !self.at(id).replica.promoted
            && self.primary_looks_sane(primary)
            && self.up_for(id, wait)
            && self.now.saturating_sub(self.at(id).role_since) > wait
            && !self.is_epoch_fresh(wait);
        if !due {
            return;
        }
        let address = self.at(primary).address.clone();
        if self.send_replicaof(id, Some(&address)) {
            self.event(Level::Notice, "+convert-to-slave", id);
        }
    }

    /// A replica follows somebody else, for longer than a failover takes: it is told whom to follow.
    pub(super) fn fix_primary_if_due(&mut self, id: InstanceId) {
        let primary = self.at(id).primary;
        let facts = &self.at(id).replica;
        let follows = Address::new(&facts.primary_host, facts.primary_port);
        let address = self.at(primary).address.clone();
        let wait = self.watch(id).failover_timeout;
        let due = !self.same(&follows, &address)
            && self.primary_looks_sane(primary)
            && self.up_for(id, wait)
            && self.now.saturating_sub(self.at(id).replica.primary_since) > wait;
        if due && self.send_replicaof(id, Some(&address)) {
            self.event(Level::Notice, "+fix-slave-config", id);
        }
    }
}
