//! Down as this sentinel sees it, down as enough of them see it, and TILT.

use super::action::Level;
use super::instance::{InstanceId, Kind, Role};
use super::state::Sentinel;
use crate::base::time::MonoMs;

impl Sentinel {
    /// A process that stood still judges nothing for a while: what it did not hear says nothing of the others.
    ///
    /// Time is monotonic, so a wall clock that is set has no part in this.
    pub(super) fn watch_for_stalls(&mut self, since_last: MonoMs) {
        let now = self.now;
        if since_last > self.timing.tilt_trigger {
            if self.tilt.replace(now).is_none() {
                self.tell(Level::Warning, "+tilt", None, "#tilt mode entered".into());
            }
        } else if self.tilt.is_some_and(|since| now.saturating_sub(since) > self.timing.tilt_period) {
            self.tilt = None;
            self.tell(Level::Warning, "-tilt", None, "#tilt mode exited".into());
        }
    }

    /// Subjectively down: silent for longer than `down-after-milliseconds`, not in the role that it should have, or
    /// restarted and still not serving.
    pub(super) fn judge_alone(&mut self, id: InstanceId) {
        let now = self.now;
        let (instance, watch) = (self.at(id), self.watch(id));
        let silent = self.link(id).silence(now) > watch.down_after;
        let is_primary = instance.kind == Kind::Primary;
        let demoted = is_primary
            && instance.role == Role::Replica
            && now.saturating_sub(instance.role_since) > watch.down_after + 2 * self.timing.info_period;
        let rebooting =
            is_primary && watch.reboot.is_some_and(|t| now.saturating_sub(t) > watch.reboot_down_after);
        let down = silent || demoted || rebooting;
        if down == instance.sdown.is_some() {
            return;
        }
        let instance = self.at_mut(id);
        if down {
            (instance.sdown, instance.sdown_last) = (Some(now), now);
            self.event(Level::Warning, "+sdown", id);
            if is_primary {
                self.ask_replicas_for_news(id);
            }
        } else {
            (instance.sdown, instance.script_kill_sent) = (None, false);
            self.event(Level::Warning, "-sdown", id);
        }
    }

    /// Nobody is there, or nobody who answers. Shortens waits for what it would say; whether it is down is judged by
    /// silence alone, as one that restarts refuses connections, too.
    pub(super) fn is_absent(&self, id: InstanceId) -> bool {
        let link = self.link(id);
        self.at(id).sdown.is_some() || (link.refused && !link.commands.up)
    }

    /// Offsets that are fresh choose the better replica.
    fn ask_replicas_for_news(&mut self, primary: InstanceId) {
        for replica in self.replicas(primary) {
            if !self.at(replica).info_pending {
                self.ask_info(replica);
            }
        }
    }

    /// Objectively down: at least `quorum` sentinels find it down.
    pub(super) fn judge_together(&mut self, primary: InstanceId) {
        let quorum = self.watch(primary).quorum;
        let mut agreed = 0;
        if self.at(primary).sdown.is_some() {
            agreed = 1 + self.peers(primary).iter().filter(|id| self.at(**id).peer.says_down).count() as u32;
        }
        let (down, was) = (agreed >= quorum && agreed > 0, self.watch(primary).odown.is_some());
        if down && !was {
            let now = self.now;
            self.watch_mut(primary).odown = Some(now);
            self.event_with(Level::Warning, "+odown", primary, &format!("#quorum {agreed}/{quorum}"));
        } else if was && !down {
            self.watch_mut(primary).odown = None;
            self.event(Level::Warning, "-odown", primary);
        }
    }
}
