//! Which replica is promoted: a good one of the lowest priority number, then the largest offset, then the smallest
//! run id.

use super::instance::InstanceId;
use super::state::Sentinel;
use crate::base::time::MonoMs;

/// A replica must have been heard of within so many ping periods.
const FRESH_PINGS: MonoMs = 5;
/// And its INFO be no older than so many of its periods while the primary is up.
const FRESH_INFOS: MonoMs = 3;
/// Its link to the primary may have been down for so many times `down-after-milliseconds`, beside the time that the
/// primary has been down.
const LINK_DOWN_TIMES: MonoMs = 10;

impl Sentinel {
    pub(super) fn select_replica(&self, primary: InstanceId) -> Option<InstanceId> {
        let good = self.replicas(primary).into_iter().filter(|id| self.is_good(*id));
        good.min_by(|a, b| {
            let (a, b) = (self.at(*a), self.at(*b));
            let by_offset = b.replica.offset.cmp(&a.replica.offset);
            // One that does not say who it is comes last.
            let by_id = a.run_id.is_empty().cmp(&b.run_id.is_empty()).then(a.run_id.cmp(&b.run_id));
            a.replica.priority.cmp(&b.replica.priority).then(by_offset).then(by_id)
        })
    }

    fn is_good(&self, id: InstanceId) -> bool {
        let (now, timing) = (self.now, self.timing);
        let (instance, link) = (self.at(id), self.link(id));
        let primary_down = self.at(instance.primary).sdown;
        let info_age = match primary_down {
            Some(_) => FRESH_PINGS * timing.ping_period,
            None => FRESH_INFOS * timing.info_period,
        };
        let link_down_max = LINK_DOWN_TIMES
            .saturating_mul(self.watch(id).down_after)
            .saturating_add(primary_down.map_or(0, |since| now.saturating_sub(since)));
        let fresh = |t: MonoMs, age: MonoMs| now.saturating_sub(t) <= age;
        instance.sdown.is_none()
            && link.commands.up
            && fresh(link.last_ok, FRESH_PINGS * timing.ping_period)
            && instance.info_at.is_some_and(|at| fresh(at, info_age))
            && instance.replica.priority != 0
            && instance.replica.link_down_ms <= i64::try_from(link_down_max).unwrap_or(i64::MAX)
    }
}
