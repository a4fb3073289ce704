//! The machine: what goes in, what comes out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::action::{Action, Event, LinkId, Timing};
use super::instance::{Address, Instance, InstanceId, Kind, Link, LinkIx, Watch};
use super::links::Channel;
use super::scripts::Scripts;
use super::settings::Settings;
use crate::base::hex::random_id;
use crate::base::rng::Rng;
use crate::base::time::MonoMs;

/// Ticks are never further apart. Everything that has a moment of its own comes at that moment.
const TICK: MonoMs = 100;
/// A configuration that could not be written is tried again after so long, at first.
const SAVE_AGAIN: MonoMs = 1000;
const SAVE_AGAIN_MAX: MonoMs = 30_000;

/// One sentinel.
#[derive(Clone, Debug)]
pub struct Sentinel {
    /// Of the sentinel as a whole; [`Watch`] has those of a primary.
    pub settings: Settings,
    /// What SENTINEL DEBUG changes.
    pub timing: Timing,
    pub(super) my_id: String,
    pub(super) current_epoch: u64,
    /// When it was raised last; 0: not since the start.
    pub(super) epoch_since: MonoMs,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    /// By name.
    pub(super) primaries: BTreeMap<String, InstanceId>,
    pub(super) links: BTreeMap<LinkIx, Link>,
    pub(super) connections: BTreeMap<LinkId, (LinkIx, Channel)>,
    /// Addresses of names, as far as they are known.
    pub(super) names: BTreeMap<String, Name>,
    pub(super) tilt: Option<MonoMs>,
    pub(super) simulated: Simulated,
    pub(super) scripts: Scripts,
    pub(super) rng: Rng,
    /// The moment of the event being handled.
    pub(super) now: MonoMs,
    pub(super) out: Vec<Action>,
    last_tick: Option<MonoMs>,
    last_number: u64,
    /// What is to be remembered has changed during this step.
    changed: bool,
    /// Number of the last state handed out to be written, and of the last one on disk.
    generation: u64,
    saved: u64,
    save_again: Option<MonoMs>,
    save_delay: MonoMs,
}

/// What is known of a host name.
#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    pub ip: Option<String>,
    pub asked: MonoMs,
}

/// SENTINEL SIMULATE-FAILURE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Simulated {
    /// End the process once this sentinel was elected to lead a failover.
    pub crash_after_election: bool,
    /// End the process once the chosen replica was promoted.
    pub crash_after_promotion: bool,
}

impl Sentinel {
    /// A sentinel that watches nobody. `my_id` is new unless the configuration names one.
    pub fn new(settings: Settings, mut rng: Rng, now: MonoMs) -> Self {
        Self {
            settings,
            timing: Timing::default(),
            my_id: random_id(&mut rng),
            current_epoch: 0,
            epoch_since: 0,
            instances: BTreeMap::new(),
            primaries: BTreeMap::new(),
            links: BTreeMap::new(),
            connections: BTreeMap::new(),
            names: BTreeMap::new(),
            tilt: None,
            simulated: Simulated::default(),
            scripts: Scripts::default(),
            rng,
            now,
            out: Vec::new(),
            last_tick: None,
            last_number: 0,
            changed: false,
            generation: 0,
            saved: 0,
            save_again: None,
            save_delay: SAVE_AGAIN,
        }
    }

    /// Takes one event in; what is to be done comes out, in order.
    pub fn step(&mut self, now: MonoMs, event: Event) -> Vec<Action> {
        self.advance(now);
        match event {
            Event::Tick => self.tick(),
            Event::Connected { link, peer_ip, local_ip } => self.connected(link, peer_ip, local_ip),
            Event::Closed { link } => self.ended(link),
            Event::Reply { link, reply } => self.reply(link, reply),
            Event::Resolved { host, ip } => self.resolved(host, ip),
            Event::Persisted { generation, done } => self.persisted(generation, done),
            Event::ScriptStarted { script, pid } => self.scripts.started(script, pid),
            Event::ScriptEnded { script, end } => self.script_ended(script, end),
        }
        self.take_actions()
    }

    /// An administrator's command or a client's, at its time. Its actions are in
    /// [`take_actions`](Self::take_actions).
    pub fn at_time(&mut self, now: MonoMs) -> &mut Self {
        self.advance(now);
        self
    }

    /// Whatever comes first after a standstill finds it, not only a tick: an answer that waited in a socket must not
    /// decide anything before.
    fn advance(&mut self, now: MonoMs) {
        self.now = now;
        self.watch_for_stalls(self.last_tick.map_or(0, |last| now.saturating_sub(last)));
    }

    /// What the last call wants done.
    pub fn take_actions(&mut self) -> Vec<Action> {
        let mut actions = std::mem::take(&mut self.out);
        if std::mem::take(&mut self.changed) {
            // First, so that nothing of this step waits behind another's.
            actions.insert(0, Action::Persist { generation: self.generation, lines: self.lines() });
        }
        actions
    }

    /// When the next [`Event::Tick`] is due at the latest.
    pub fn next_tick(&self) -> MonoMs {
        let ordinary = self.now + TICK;
        let silences = self.instances.values().filter(|i| i.sdown.is_none()).filter_map(|instance| {
            let silence = self.links.get(&instance.link)?.silence(self.now);
            let limit = self.instances.get(&instance.primary)?.watch.as_ref()?.down_after;
            (silence > 0 && silence <= limit).then(|| self.now + limit - silence + 1)
        });
        silences.min().map_or(ordinary, |due| due.min(ordinary))
    }

    /// 40 hexadecimal digits: its run id, which the configuration file keeps.
    pub fn my_id(&self) -> &str {
        &self.my_id
    }

    /// The greatest epoch heard of.
    pub fn current_epoch(&self) -> u64 {
        self.current_epoch
    }

    fn tick(&mut self) {
        self.last_tick = Some(self.now);
        for primary in self.primary_ids() {
            for id in self.group(primary) {
                // The primary may have been switched meanwhile.
                if self.instances.contains_key(&id) {
                    self.attend(id);
                }
            }
            self.look_at(primary);
        }
        self.run_scripts();
        if self.save_again.is_some_and(|at| self.now >= at) {
            self.remember();
        }
    }

    /// What one instance needs now and then.
    fn attend(&mut self, id: InstanceId) {
        self.keep_links(id);
        self.ask_routinely(id);
        if self.tilt.is_none() {
            self.judge_alone(id);
            self.drop_stale(id);
        }
    }

    /// Decides about one primary: down, failover, whom to ask.
    pub(super) fn look_at(&mut self, primary: InstanceId) {
        if self.tilt.is_some() || !self.instances.contains_key(&primary) {
            return;
        }
        self.judge_together(primary);
        self.start_failover_if_due(primary);
        self.go_on_with_failover(primary);
        self.ask_others(primary, false);
    }

    /// What this sentinel must know after a restart has changed: it is written once at the end of the step.
    pub(super) fn remember(&mut self) {
        if !self.changed {
            self.changed = true;
            self.generation += 1;
            self.save_again = None;
        }
    }

    /// The number of the state that is being built, for whoever must know when it is on disk.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_saved(&self, generation: u64) -> bool {
        self.saved >= generation
    }

    /// SENTINEL FLUSHCONFIG.
    pub fn flush_config(&mut self) {
        self.remember();
    }

    fn persisted(&mut self, generation: u64, done: bool) {
        if done {
            self.saved = self.saved.max(generation);
            self.save_delay = SAVE_AGAIN;
            // Votes may leave now.
            for primary in self.primary_ids() {
                self.look_at(primary);
            }
        } else if generation == self.generation {
            self.save_again = Some(self.now + self.save_delay);
            self.save_delay = (2 * self.save_delay).min(SAVE_AGAIN_MAX);
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn primary_ids(&self) -> Vec<InstanceId> {
        self.primaries.values().copied().collect()
    }

    /// A primary, its replicas and its other sentinels.
    pub(super) fn group(&self, primary: InstanceId) -> Vec<InstanceId> {
        let Some(watch) = self.instances.get(&primary).and_then(|i| i.watch.as_ref()) else { return vec![] };
        std::iter::once(primary)
            .chain(watch.replicas.values().copied())
            .chain(watch.sentinels.values().copied())
            .collect()
    }

    pub(super) fn replicas(&self, primary: InstanceId) -> Vec<InstanceId> {
        self.watch(primary).replicas.values().copied().collect()
    }

    pub(super) fn peers(&self, primary: InstanceId) -> Vec<InstanceId> {
        self.watch(primary).sentinels.values().copied().collect()
    }

    /// An instance that is known: whoever has its place got it from here in this step.
    pub(super) fn at(&self, id: InstanceId) -> &Instance {
        &self.instances[&id]
    }

    pub(super) fn at_mut(&mut self, id: InstanceId) -> &mut Instance {
        self.instances.get_mut(&id).expect("the instance is known")
    }

    /// The watch over the primary that an instance belongs to.
    pub(super) fn watch(&self, id: InstanceId) -> &Watch {
        let primary = self.at(id).primary;
        self.at(primary).watch.as_ref().expect("a primary is watched")
    }

    pub(super) fn watch_mut(&mut self, id: InstanceId) -> &mut Watch {
        let primary = self.at(id).primary;
        self.at_mut(primary).watch.as_mut().expect("a primary is watched")
    }

    pub(super) fn link(&self, id: InstanceId) -> &Link {
        &self.links[&self.at(id).link]
    }

    pub(super) fn link_mut(&mut self, id: InstanceId) -> &mut Link {
        let link = self.at(id).link;
        self.links.get_mut(&link).expect("an instance has its link")
    }

    /// The address of a host: itself, or what its name stands for as far as that is known.
    pub(super) fn ip_of<'a>(&'a self, host: &'a str) -> Option<&'a str> {
        if host.parse::<IpAddr>().is_ok() {
            return Some(host);
        }
        self.names.get(&host.to_ascii_lowercase())?.ip.as_deref()
    }

    /// Whether two addresses are one, as far as names are known.
    pub(super) fn same(&self, a: &Address, b: &Address) -> bool {
        if a.port != b.port {
            return false;
        }
        a.host.eq_ignore_ascii_case(&b.host)
            || matches!((self.ip_of(&a.host), self.ip_of(&b.host)), (Some(a), Some(b)) if a == b)
    }

    /// The host as clients, peers and the configuration are told it.
    pub(super) fn announced(&self, host: &str) -> String {
        if self.settings.announce_hostnames {
            return host.to_owned();
        }
        self.ip_of(host).unwrap_or(host).to_owned()
    }

    /// Looks a name up unless that was done lately.
    pub(super) fn learn_name(&mut self, host: &str) {
        if !self.settings.resolve_hostnames || host.is_empty() || host.parse::<IpAddr>().is_ok() {
            return;
        }
        let (now, key) = (self.now, host.to_ascii_lowercase());
        let again = 10 * self.timing.ping_period;
        if self.names.get(&key).is_some_and(|name| now.saturating_sub(name.asked) < again) {
            return;
        }
        self.names.entry(key).or_default().asked = now;
        self.out.push(Action::Resolve { host: host.to_owned() });
    }

    /// A name stands for this address.
    pub fn resolved(&mut self, host: String, ip: Option<String>) {
        let now = self.now;
        let name = self.names.entry(host.to_ascii_lowercase()).or_default();
        name.asked = now;
        // What was right before stays in use while nobody answers.
        if ip.is_some() {
            name.ip = ip;
        }
    }

    pub(super) fn is_down(&self, id: InstanceId) -> bool {
        let instance = self.at(id);
        instance.sdown.is_some() || instance.watch.as_ref().is_some_and(|w| w.odown.is_some())
    }

    pub(super) fn kind(&self, id: InstanceId) -> Kind {
        self.at(id).kind
    }
}
