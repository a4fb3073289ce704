//! What commands show.

use super::failover::Phase;
use super::instance::{InstanceId, Kind, Reconf};
use super::scripts::Scripts;
use super::state::{Sentinel, Simulated};
use crate::base::time::MonoMs;

/// Names and values of one instance, in order.
pub type Fields = Vec<(&'static str, String)>;

/// One line of INFO sentinel.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Of the primary.
    pub name: String,
    /// `ok`, `sdown` or `odown`.
    pub status: &'static str,
    /// `host:port`: of the promoted one once there is one.
    pub address: String,
    /// Number of replicas known.
    pub replicas: usize,
    /// Number of sentinels known, ourselves included.
    pub sentinels: usize,
}

impl Sentinel {
    /// Names of the primaries that are watched.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.primaries.keys().map(String::as_str)
    }

    /// SENTINEL MASTER.
    pub fn primary_fields(&self, name: &str) -> Result<Fields, String> {
        Ok(self.fields(self.named(name)?))
    }

    /// SENTINEL MASTERS.
    pub fn all_primary_fields(&self) -> Vec<Fields> {
        self.primaries.values().map(|id| self.fields(*id)).collect()
    }

    /// SENTINEL REPLICAS: those that want to be known.
    pub fn replica_fields(&self, name: &str) -> Result<Vec<Fields>, String> {
        let replicas = self.replicas(self.named(name)?).into_iter();
        Ok(replicas.filter(|id| self.at(*id).replica.announced).map(|id| self.fields(id)).collect())
    }

    /// SENTINEL SENTINELS.
    pub fn sentinel_fields(&self, name: &str) -> Result<Vec<Fields>, String> {
        Ok(self.peers(self.named(name)?).into_iter().map(|id| self.fields(id)).collect())
    }

    /// SENTINEL GET-MASTER-ADDR-BY-NAME.
    pub fn address_by_name(&self, name: &str) -> Option<(String, u16)> {
        let address = self.current_address(*self.primaries.get(name)?);
        Some((self.announced(&address.host), address.port))
    }

    /// SENTINEL INFO-CACHE: of each primary that is named, its own INFO and those of its replicas, with their ages.
    pub fn info_cache(&self, names: &[&str]) -> Vec<(String, Vec<(MonoMs, Option<Vec<u8>>)>)> {
        let cached = |id: InstanceId| {
            let instance = self.at(id);
            let age = instance.info_at.map_or(0, |at| self.now.saturating_sub(at));
            (age, instance.info_at.map(|_| instance.info.clone()))
        };
        let wanted = self.primaries.iter().filter(|(name, _)| names.contains(&name.as_str()));
        wanted
            .map(|(name, id)| {
                let all = std::iter::once(*id).chain(self.replicas(*id));
                (name.clone(), all.map(cached).collect())
            })
            .collect()
    }

    /// Of each primary that is watched.
    pub fn summaries(&self) -> Vec<Summary> {
        self.primaries
            .iter()
            .map(|(name, id)| {
                let (instance, watch) = (self.at(*id), self.watch(*id));
                let status = match (watch.odown, instance.sdown) {
                    (Some(_), _) => "odown",
                    (None, Some(_)) => "sdown",
                    (None, None) => "ok",
                };
                let address = self.current_address(*id);
                Summary {
                    name: name.clone(),
                    status,
                    address: super::instance::Address::new(&self.announced(&address.host), address.port)
                        .to_string(),
                    replicas: watch.replicas.len(),
                    sentinels: watch.sentinels.len() + 1,
                }
            })
            .collect()
    }

    /// For how long TILT has lasted, seconds. `None`: it is off.
    pub fn tilt_seconds(&self) -> Option<u64> {
        self.tilt.map(|since| self.now.saturating_sub(since) / 1000)
    }

    /// Those that wait or run.
    pub fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// What SENTINEL SIMULATE-FAILURE asked for.
    pub fn simulated(&self) -> Simulated {
        self.simulated
    }

    /// SENTINEL PENDING-SCRIPTS.
    pub fn script_fields(&self) -> Vec<(Vec<String>, Fields)> {
        self.scripts
            .iter()
            .map(|script| {
                let argv = std::iter::once(&script.path).chain(&script.arguments).cloned().collect();
                let (flags, time) = match script.running {
                    Some(since) => ("running", ("run-time", self.now.saturating_sub(since))),
                    None => ("scheduled", ("run-delay", script.due.saturating_sub(self.now))),
                };
                let fields = vec![
                    ("flags", flags.to_owned()),
                    ("pid", script.pid.unwrap_or(0).to_string()),
                    (time.0, time.1.to_string()),
                    ("retry-num", script.tries.to_string()),
                ];
                (argv, fields)
            })
            .collect()
    }

    fn fields(&self, id: InstanceId) -> Fields {
        let (now, instance, link) = (self.now, self.at(id), self.link(id));
        let ago = |t: MonoMs| now.saturating_sub(t).to_string();
        let mut out: Fields = vec![
            ("name", instance.name.clone()),
            ("ip", self.announced(&instance.address.host)),
            ("port", instance.address.port.to_string()),
            ("runid", instance.run_id.clone()),
            ("flags", self.flags(id)),
            ("link-pending-commands", link.commands.pending.len().to_string()),
            ("link-refcount", link.users.len().to_string()),
        ];
        if let Some(watch) = instance.watch.as_ref().filter(|w| w.failover.in_progress()) {
            out.push(("failover-state", watch.failover.phase.word().to_owned()));
        }
        out.push(("last-ping-sent", link.ping_waits.map_or_else(|| "0".to_owned(), ago)));
        out.push(("last-ok-ping-reply", ago(link.last_ok)));
        out.push(("last-ping-reply", ago(link.last_pong)));
        if let Some(since) = instance.sdown {
            out.push(("s-down-time", ago(since)));
        }
        if let Some(since) = instance.watch.as_ref().and_then(|w| w.odown) {
            out.push(("o-down-time", ago(since)));
        }
        out.push(("down-after-milliseconds", self.watch(id).down_after.to_string()));
        if instance.kind != Kind::Sentinel {
            out.push(("info-refresh", instance.info_at.map_or_else(|| "0".to_owned(), ago)));
            out.push(("role-reported", instance.role.word().to_owned()));
            out.push(("role-reported-time", ago(instance.role_since)));
        }
        match instance.kind {
            Kind::Primary => self.own_fields(id, &mut out),
            Kind::Replica => {
                let facts = &instance.replica;
                out.push(("master-link-down-time", facts.link_down_ms.to_string()));
                out.push(("master-link-status", if facts.link_up { "ok" } else { "err" }.to_owned()));
                out.push(("master-host", facts.primary_host.clone()));
                out.push(("master-port", facts.primary_port.to_string()));
                out.push(("slave-priority", facts.priority.to_string()));
                out.push(("slave-repl-offset", facts.offset.to_string()));
                out.push(("replica-announced", u8::from(facts.announced).to_string()));
            }
            Kind::Sentinel => {
                let facts = &instance.peer;
                out.push(("last-hello-message", ago(facts.hello)));
                out.push(("voted-leader", facts.leader.clone().unwrap_or_else(|| "?".to_owned())));
                out.push(("voted-leader-epoch", facts.leader_epoch.to_string()));
            }
        }
        out
    }

    fn own_fields(&self, id: InstanceId, out: &mut Fields) {
        let watch = self.watch(id);
        out.push(("config-epoch", watch.config_epoch.to_string()));
        out.push(("num-slaves", watch.replicas.len().to_string()));
        out.push(("num-other-sentinels", watch.sentinels.len().to_string()));
        out.push(("quorum", watch.quorum.to_string()));
        out.push(("failover-timeout", watch.failover_timeout.to_string()));
        out.push(("parallel-syncs", watch.parallel_syncs.to_string()));
        for (name, script) in [
            ("notification-script", &watch.notification_script),
            ("client-reconfig-script", &watch.reconfig_script),
        ] {
            if !script.is_empty() {
                out.push((name, script.clone()));
            }
        }
    }

    fn flags(&self, id: InstanceId) -> String {
        let (instance, link) = (self.at(id), self.link(id));
        let watch = instance.watch.as_ref();
        let failover = watch.map(|w| &w.failover);
        let reconf = instance.replica.reconf;
        let is_sentinel = instance.kind == Kind::Sentinel;
        let down = link.commands.is_down() || !link.commands.up;
        let deaf = !is_sentinel && !link.hellos.up;
        [
            (instance.sdown.is_some(), "s_down"),
            (watch.is_some_and(|w| w.odown.is_some()), "o_down"),
            (true, instance.kind.word()),
            (down || deaf, "disconnected"),
            (is_sentinel && instance.peer.says_down, "master_down"),
            (failover.is_some_and(|f| f.phase != Phase::None), "failover_in_progress"),
            (instance.replica.promoted, "promoted"),
            (reconf == Reconf::Sent, "reconf_sent"),
            (reconf == Reconf::InProgress, "reconf_inprog"),
            (reconf == Reconf::Done, "reconf_done"),
            (failover.is_some_and(|f| f.forced), "force_failover"),
            (instance.script_kill_sent, "script_kill_sent"),
            (watch.is_some_and(|w| w.reboot.is_some()), "master_reboot"),
        ]
        .into_iter()
        .filter_map(|(on, word)| on.then_some(word))
        .collect::<Vec<_>>()
        .join(",")
    }
}
