//! Who belongs to a primary: added, confirmed, dropped; and the switch to another primary.

use std::collections::BTreeMap;

use super::action::Level;
use super::failover::Failover;
use super::instance::{Address, Instance, InstanceId, Kind, Link, LinkIx, Reconf, Role, Watch};
use super::links::Channel;
use super::state::Sentinel;
use crate::base::time::MonoMs;

/// A replica that is down and that its primary does not name is dropped after so long.
const STALE_REPLICA: MonoMs = 3_600_000;
/// After SENTINEL RESET another sentinel has so many hello periods to be heard of before it is dropped.
const CONFIRM_PERIODS: MonoMs = 5;

impl Sentinel {
    /// Whether hosts of this form may be used: names only with `resolve-hostnames`.
    pub(super) fn accepts_host(&self, host: &str) -> bool {
        !host.is_empty() && (self.settings.resolve_hostnames || host.parse::<std::net::IpAddr>().is_ok())
    }

    fn add(&mut self, kind: Kind, name: &str, address: Address, primary: Option<InstanceId>) -> InstanceId {
        let id = InstanceId(self.number());
        self.learn_name(&address.host);
        let link = self.take_link(kind, name, &address, id);
        let instance = Instance::new(kind, name, address, primary.unwrap_or(id), link, self.now);
        self.instances.insert(id, instance);
        id
    }

    /// A link to an address: that of the same sentinel beside another primary, or a new one.
    fn take_link(&mut self, kind: Kind, name: &str, address: &Address, id: InstanceId) -> LinkIx {
        let leads_there = |ix: &LinkIx| self.links.get(ix).is_some_and(|link| link.address == *address);
        let twin = self
            .instances
            .values()
            .filter(|i| kind == Kind::Sentinel && i.kind == kind && i.name == name)
            .map(|i| i.link)
            .find(leads_there);
        let ix = twin.unwrap_or_else(|| {
            let ix = LinkIx(self.number());
            self.links.insert(ix, Link::new(address.clone(), self.now));
            ix
        });
        if let Some(link) = self.links.get_mut(&ix) {
            link.users.push(id);
        }
        ix
    }

    /// An instance no longer uses its link, which goes with its last user.
    fn leave_link(&mut self, id: InstanceId) {
        let ix = self.at(id).link;
        let Some(link) = self.links.get_mut(&ix) else { return };
        link.users.retain(|user| *user != id);
        if link.users.is_empty() {
            self.close(ix, Channel::Commands);
            self.close(ix, Channel::Hellos);
            self.links.remove(&ix);
        }
    }

    pub(super) fn add_primary(&mut self, name: &str, address: Address, quorum: u32) -> InstanceId {
        let id = self.add(Kind::Primary, name, address, None);
        let watch = Watch {
            quorum,
            down_after: self.timing.default_down_after,
            failover_timeout: self.timing.default_failover_timeout,
            parallel_syncs: 1,
            auth_user: String::new(),
            auth_pass: String::new(),
            notification_script: String::new(),
            reconfig_script: String::new(),
            reboot_down_after: 0,
            renames: BTreeMap::new(),
            config_epoch: 0,
            leader: None,
            leader_epoch: 0,
            vote_generation: 0,
            odown: None,
            reboot: None,
            replicas: BTreeMap::new(),
            sentinels: BTreeMap::new(),
            failover: Failover::default(),
        };
        self.at_mut(id).watch = Some(Box::new(watch));
        self.primaries.insert(name.to_owned(), id);
        id
    }

    pub(super) fn add_replica(&mut self, primary: InstanceId, address: Address) -> InstanceId {
        let name = address.to_string();
        let id = self.add(Kind::Replica, &name, address, Some(primary));
        self.watch_mut(primary).replicas.insert(name, id);
        id
    }

    pub(super) fn add_sentinel(&mut self, primary: InstanceId, run_id: &str, address: Address) -> InstanceId {
        let id = self.add(Kind::Sentinel, run_id, address, Some(primary));
        run_id.clone_into(&mut self.at_mut(id).run_id);
        self.watch_mut(primary).sentinels.insert(run_id.to_owned(), id);
        id
    }

    /// Forgets an instance; a primary with all that belongs to it.
    pub(super) fn forget(&mut self, id: InstanceId) {
        let (kind, name) = (self.kind(id), self.at(id).name.clone());
        match kind {
            Kind::Primary => {
                for member in self.group(id).into_iter().skip(1) {
                    self.forget(member);
                }
                self.primaries.remove(&name);
            }
            Kind::Replica => {
                self.watch_mut(id).replicas.remove(&name);
            }
            Kind::Sentinel => {
                self.watch_mut(id).sentinels.remove(&name);
            }
        }
        self.leave_link(id);
        self.instances.remove(&id);
    }

    pub(super) fn find_replica(&self, primary: InstanceId, address: &Address) -> Option<InstanceId> {
        self.replicas(primary).into_iter().find(|id| self.same(&self.at(*id).address, address))
    }

    /// A replica that the primary named for the first time.
    pub(super) fn discover_replica(&mut self, primary: InstanceId, address: &Address) {
        if !self.accepts_host(&address.host) || self.same(&self.at(primary).address, address) {
            return;
        }
        let id = self.add_replica(primary, address.clone());
        self.event(Level::Notice, "+slave", id);
        self.remember();
    }

    /// The primary names a replica that is known.
    pub(super) fn confirm_replica(&mut self, id: InstanceId) {
        let now = self.now;
        let instance = self.at_mut(id);
        instance.replica.listed = now;
        if instance.unconfirmed.take().is_some() {
            self.event(Level::Notice, "+slave", id);
        }
    }

    /// After a reset: what the primary does not name any more goes now that it has been asked.
    pub(super) fn drop_unconfirmed_replicas(&mut self, primary: InstanceId) {
        if self.watch(primary).failover.in_progress() {
            return;
        }
        for id in self.replicas(primary) {
            if self.at(id).unconfirmed.is_some() {
                self.forget(id);
                self.remember();
            }
        }
    }

    pub(super) fn confirm_sentinel(&mut self, id: InstanceId) {
        if self.at_mut(id).unconfirmed.take().is_some() {
            self.event(Level::Notice, "+sentinel", id);
        }
    }

    /// Drops what nobody has spoken of for long: replicas that are down and not named by a primary that is up, and
    /// sentinels from before a reset that were not heard of since.
    pub(super) fn drop_stale(&mut self, id: InstanceId) {
        let now = self.now;
        let instance = self.at(id);
        let primary = instance.primary;
        let stale = match instance.kind {
            Kind::Primary => false,
            Kind::Replica => {
                let long = |since: MonoMs| now.saturating_sub(since) > STALE_REPLICA;
                // A primary that was replaced is awaited for ever: it must not come back as one.
                !instance.replica.deposed
                    && instance.sdown.is_some_and(long)
                    && long(instance.replica.listed)
                    && !self.is_down(primary)
                    && self.at(primary).role == Role::Primary
                    && !self.watch(primary).failover.in_progress()
            }
            Kind::Sentinel => instance.unconfirmed.is_some_and(|since| {
                now.saturating_sub(since) > CONFIRM_PERIODS * self.timing.publish_period
            }),
        };
        if stale {
            self.log(Level::Notice, format!("forgetting {}", self.describe(id)));
            self.forget(id);
            self.remember();
        }
    }

    /// An instance is reached elsewhere from now on.
    pub(super) fn readdress(&mut self, id: InstanceId, address: Address) {
        self.leave_link(id);
        let (kind, name) = (self.kind(id), self.at(id).name.clone());
        let instance = self.at_mut(id);
        instance.address = address.clone();
        instance.info_pending = false;
        instance.peer.ask_pending = false;
        let link = self.take_link(kind, &name, &address, id);
        self.at_mut(id).link = link;
    }

    /// Where clients find the primary: the promoted replica as soon as it is one.
    pub(super) fn current_address(&self, primary: InstanceId) -> Address {
        let failover = &self.watch(primary).failover;
        match failover.promoted {
            Some(promoted) if failover.is_promoted() => self.at(promoted).address.clone(),
            _ => self.at(primary).address.clone(),
        }
    }

    pub(super) fn tell_switch(&mut self, primary: InstanceId, from: &Address, to: &Address) {
        let text = format!(
            "{} {} {} {} {}",
            self.at(primary).name,
            self.announced(&from.host),
            from.port,
            self.announced(&to.host),
            to.port
        );
        self.tell(Level::Warning, "+switch-master", Some(primary), text);
    }

    /// The primary is another one from now on; the old one becomes its replica. Links, and what is known of the
    /// replicas, stay.
    pub(super) fn switch_to(&mut self, primary: InstanceId, address: Address) {
        let old = self.at(primary).address.clone();
        let promoted = self.find_replica(primary, &address);
        if self.same(&old, &address) {
            self.restart_watch(primary);
            return;
        }
        let deposed = self.add_replica(primary, old);
        self.swap_links(primary, deposed);
        self.at_mut(deposed).replica.deposed = true;
        match promoted {
            Some(promoted) => {
                self.swap_links(primary, promoted);
                let run_id = self.at(promoted).run_id.clone();
                self.forget(promoted);
                let now = self.now;
                let instance = self.at_mut(primary);
                // It counts as a primary from now on, also where its own word for it has not come yet.
                (instance.role, instance.role_since, instance.run_id) = (Role::Primary, now, run_id);
                instance.address = address;
            }
            None => {
                // The fresh link of the replica that is the old primary stands for the old address.
                self.readdress(primary, address);
                let now = self.now;
                let instance = self.at_mut(primary);
                (instance.role, instance.role_since) = (Role::Primary, now);
                instance.run_id.clear();
            }
        }
        self.restart_watch(primary);
        // The switch has cut connections at all sentinels together: with what was silent before counted in, all of them
        // could find the new primary down at once.
        let now = self.now;
        self.link_mut(primary).judge_anew(now);
        for id in self.replicas(primary) {
            self.link_mut(id).judge_anew(now);
            self.event(Level::Notice, "+slave", id);
        }
        self.remember();
    }

    /// Two instances exchange their links, with what is under way on them.
    fn swap_links(&mut self, a: InstanceId, b: InstanceId) {
        let (link_a, link_b) = (self.at(a).link, self.at(b).link);
        (self.at_mut(a).link, self.at_mut(b).link) = (link_b, link_a);
        for (ix, from, to) in [(link_a, a, b), (link_b, b, a)] {
            let Some(link) = self.links.get_mut(&ix) else { continue };
            for user in link.users.iter_mut().filter(|user| **user == from) {
                *user = to;
            }
            for (_, about) in link.commands.pending.iter_mut().filter(|(_, about)| *about == from) {
                *about = to;
            }
        }
        let (pending_a, pending_b) = (self.at(a).info_pending, self.at(b).info_pending);
        (self.at_mut(a).info_pending, self.at_mut(b).info_pending) = (pending_b, pending_a);
    }

    /// Nothing that was concluded of the primary holds any more.
    pub(super) fn restart_watch(&mut self, primary: InstanceId) {
        let instance = self.at_mut(primary);
        (instance.sdown, instance.info_at, instance.script_kill_sent) = (None, None, false);
        instance.hello_sent = 0;
        let watch = self.watch_mut(primary);
        (watch.odown, watch.reboot) = (None, None);
        watch.failover = Failover::default();
        let now = self.now;
        for id in self.replicas(primary) {
            let facts = &mut self.at_mut(id).replica;
            (facts.reconf, facts.promoted, facts.listed) = (Reconf::None, false, now);
        }
        for id in self.peers(primary) {
            let facts = &mut self.at_mut(id).peer;
            (facts.says_down, facts.leader) = (false, None);
        }
    }
}
