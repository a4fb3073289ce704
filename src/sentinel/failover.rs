//! A failover and its phases.

use std::collections::BTreeMap;

use super::action::{Action, Level};
use super::instance::{InstanceId, Question, Reconf};
use super::state::Sentinel;
use super::vote::DESYNC_MAX;
use crate::base::time::MonoMs;

/// After an election that nobody won the next is tried within this time, at random.
const SPLIT_RETRY_MIN: MonoMs = 100;
const SPLIT_RETRY_SPREAD: MonoMs = 900;
/// A failover that found no good replica is tried again when there is one, but not sooner.
const NO_REPLICA_RETRY: MonoMs = 1000;

/// How far a failover is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// None is under way.
    #[default]
    None,
    /// Votes are being collected.
    WaitStart,
    /// We won: the best replica is chosen.
    SelectReplica,
    /// The chosen one is to be told, once its link is up.
    SendPromote,
    /// It was told, and its INFO does not call it a primary yet.
    WaitPromotion,
    /// The other replicas are told of it, `parallel-syncs` at a time.
    ReconfReplicas,
    /// Over: the promoted one takes the primary's place in what we watch.
    UpdateConfig,
}

impl Phase {
    /// The word of SENTINEL MASTER.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::WaitStart => "wait_start",
            Self::SelectReplica => "select_slave",
            Self::SendPromote => "send_slaveof_noone",
            Self::WaitPromotion => "wait_promotion",
            Self::ReconfReplicas => "reconf_slaves",
            Self::UpdateConfig => "update_config",
        }
    }
}

/// The failovers of one primary: the one under way, and what is remembered of the last.
#[derive(Clone, Debug, Default)]
pub struct Failover {
    /// How far the one under way is.
    pub phase: Phase,
    /// Which it asks votes in; of the last one once it is over.
    pub epoch: u64,
    /// When the phase began.
    pub since: MonoMs,
    /// When the last one of ours began, and up to a second more; 0: never.
    pub started: MonoMs,
    /// When we last voted for another sentinel's; 0: never.
    pub voted: MonoMs,
    /// An administrator asked for it: no agreement is needed.
    pub forced: bool,
    /// The replica that was chosen.
    pub promoted: Option<InstanceId>,
    /// The others were asked for their votes.
    pub canvassed: bool,
    /// Why the next one need not wait for twice the timeout.
    pub hurry: Option<Hurry>,
    /// The wait was told already.
    pub wait_told: bool,
}

/// An attempt that changed nothing and of which it is known that no other succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hurry {
    /// Every sentinel voted, and nobody won.
    Split {
        /// Not before this moment.
        retry: MonoMs,
    },
    /// There was no good replica.
    NoReplica {
        /// Not before this moment.
        retry: MonoMs,
    },
}

impl Failover {
    /// Whether one is under way, ours or one that another sentinel leads and we have learned of.
    pub fn in_progress(&self) -> bool {
        self.phase != Phase::None
    }

    /// The promoted replica serves as primary.
    pub fn is_promoted(&self) -> bool {
        matches!(self.phase, Phase::ReconfReplicas | Phase::UpdateConfig)
    }
}

impl Sentinel {
    pub(super) fn enter(&mut self, primary: InstanceId, phase: Phase) {
        let now = self.now;
        let failover = &mut self.watch_mut(primary).failover;
        (failover.phase, failover.since) = (phase, now);
    }

    pub(super) fn start_failover_if_due(&mut self, primary: InstanceId) {
        let watch = self.watch(primary);
        if watch.odown.is_none() || watch.failover.in_progress() {
            return;
        }
        if self.may_start(primary) {
            self.start_failover(primary);
        } else if !watch.failover.wait_told {
            let last = watch.failover.started.max(watch.failover.voted);
            let wait = (last + 2 * watch.failover_timeout).saturating_sub(self.now);
            self.watch_mut(primary).failover.wait_told = true;
            self.log(
                Level::Warning,
                format!("Next failover delay: I will not start a failover before {wait} ms from now"),
            );
        }
    }

    /// Twice the failover timeout lies between attempts, ours and those that we voted for, unless it is known that
    /// the last one came to nothing.
    fn may_start(&self, primary: InstanceId) -> bool {
        let (now, watch) = (self.now, self.watch(primary));
        let failover = &watch.failover;
        let last = failover.started.max(failover.voted);
        let waited = last == 0 || now >= last + 2 * watch.failover_timeout;
        waited
            || match failover.hurry {
                Some(Hurry::Split { retry }) => now >= retry,
                Some(Hurry::NoReplica { retry }) => now >= retry && self.select_replica(primary).is_some(),
                None => false,
            }
    }

    /// Begins a failover in a new epoch.
    pub(super) fn start_failover(&mut self, primary: InstanceId) {
        let (now, epoch) = (self.now, self.current_epoch + 1);
        self.raise_epoch(primary, epoch);
        self.event(Level::Warning, "+try-failover", primary);
        // Whoever stood against us tries again after the same time: not at the same moment.
        let started = (now + self.rng.below(DESYNC_MAX)).max(1);
        let failover = &mut self.watch_mut(primary).failover;
        *failover = Failover { epoch, started, voted: failover.voted, ..Failover::default() };
        self.enter(primary, Phase::WaitStart);
    }

    /// Takes as many steps as can be taken now.
    pub(super) fn go_on_with_failover(&mut self, primary: InstanceId) {
        if self.tilt.is_some() {
            return;
        }
        loop {
            let before = self.watch(primary).failover.phase;
            match before {
                Phase::None => return,
                Phase::WaitStart => self.wait_for_votes(primary),
                Phase::SelectReplica => self.select(primary),
                Phase::SendPromote => self.send_promote(primary),
                Phase::WaitPromotion => self.wait_for_promotion(primary),
                Phase::ReconfReplicas => self.reconfigure_replicas(primary),
                Phase::UpdateConfig => self.finish_failover(primary),
            }
            if self.watch(primary).failover.phase == before {
                return;
            }
        }
    }

    fn wait_for_votes(&mut self, primary: InstanceId) {
        let (epoch, forced) = (self.watch(primary).failover.epoch, self.watch(primary).failover.forced);
        let votes = self.votes(primary, epoch);
        let most = votes.iter().max_by_key(|(_, count)| **count).map(|(who, _)| who.clone());
        // Whoever is ahead gets our vote; at first that is ourselves.
        let choice = most.unwrap_or_else(|| self.my_id.clone());
        self.cast(primary, epoch, &choice);
        let watch = self.watch(primary);
        if !watch.failover.canvassed && self.is_saved(watch.vote_generation) {
            self.watch_mut(primary).failover.canvassed = true;
            self.ask_others(primary, true);
        }
        let votes = self.votes(primary, epoch);
        let needed = self.votes_needed(primary);
        let mine = votes.get(&self.my_id).copied().unwrap_or(0);
        if mine >= needed || forced {
            self.event(Level::Warning, "+elected-leader", primary);
            if self.simulated.crash_after_election {
                self.out.push(Action::Crash);
                return;
            }
            self.enter(primary, Phase::SelectReplica);
            self.event(Level::Warning, "+failover-state-select-slave", primary);
            return;
        }
        let split = self.is_split(primary, &votes);
        let waited = self.now.saturating_sub(self.watch(primary).failover.since);
        let limit = self.timing.election_timeout.min(self.watch(primary).failover_timeout);
        if split || waited > limit {
            self.event(Level::Warning, "-failover-abort-not-elected", primary);
            self.abort_failover(primary);
            if split {
                let retry = self.now + SPLIT_RETRY_MIN + self.rng.below(SPLIT_RETRY_SPREAD);
                self.watch_mut(primary).failover.hurry = Some(Hurry::Split { retry });
            }
        }
    }

    /// Nobody won, and nobody is left whose vote could make a leader: all have voted but those who are not there. Only
    /// where a majority is there; a minority would call elections without end.
    fn is_split(&self, primary: InstanceId, votes: &BTreeMap<String, u32>) -> bool {
        let (epoch, needed) = (self.watch(primary).failover.epoch, self.votes_needed(primary));
        let (peers, cast) = (self.peers(primary), votes.values().sum::<u32>());
        let absent = peers.iter().filter(|id| !self.has_voted(**id, epoch) && self.is_absent(**id)).count();
        let present = peers.len() as u32 + 1 - absent as u32;
        cast == present && present >= needed && votes.values().all(|count| *count < needed)
    }

    fn select(&mut self, primary: InstanceId) {
        let Some(replica) = self.select_replica(primary) else {
            self.event(Level::Warning, "-failover-abort-no-good-slave", primary);
            self.abort_failover(primary);
            let retry = self.now + NO_REPLICA_RETRY;
            self.watch_mut(primary).failover.hurry = Some(Hurry::NoReplica { retry });
            return;
        };
        self.event(Level::Warning, "+selected-slave", replica);
        self.at_mut(replica).replica.promoted = true;
        self.watch_mut(primary).failover.promoted = Some(replica);
        self.enter(primary, Phase::SendPromote);
        self.event(Level::Notice, "+failover-state-send-slaveof-noone", replica);
    }

    fn send_promote(&mut self, primary: InstanceId) {
        let Some(replica) = self.watch(primary).failover.promoted else { return };
        if self.send_replicaof(replica, None) {
            // Asked in the same breath: the promotion is seen as soon as it is done.
            self.ask_info(replica);
            self.event(Level::Notice, "+failover-state-wait-promotion", replica);
            self.enter(primary, Phase::WaitPromotion);
        } else {
            self.abort_if_stuck(primary);
        }
    }

    /// The chosen one was told. If it is gone another takes its place: nobody was told of the first one yet, and should
    /// it come back as a primary it is made to follow like any other that was not promoted.
    fn wait_for_promotion(&mut self, primary: InstanceId) {
        let Some(chosen) = self.watch(primary).failover.promoted else { return };
        if self.is_absent(chosen) && self.select_replica(primary).is_some() {
            self.log(Level::Warning, format!("{} is gone before it was promoted", self.describe(chosen)));
            self.at_mut(chosen).replica.promoted = false;
            self.watch_mut(primary).failover.promoted = None;
            self.enter(primary, Phase::SelectReplica);
            self.event(Level::Warning, "+failover-state-select-slave", primary);
            return;
        }
        self.abort_if_stuck(primary);
    }

    fn abort_if_stuck(&mut self, primary: InstanceId) {
        let watch = self.watch(primary);
        if self.now.saturating_sub(watch.failover.since) > watch.failover_timeout {
            self.event(Level::Warning, "-failover-abort-slave-timeout", primary);
            self.abort_failover(primary);
        }
    }

    /// Makes an instance follow `address`, or nobody; its clients must find out where the primary is now.
    pub(super) fn send_replicaof(
        &mut self,
        id: InstanceId,
        address: Option<&super::instance::Address>,
    ) -> bool {
        if !self.link(id).commands.up {
            return false;
        }
        let (host, port) = match address {
            Some(address) => (self.announced(&address.host), address.port.to_string()),
            None => ("NO".to_owned(), "ONE".to_owned()),
        };
        let commands: [&[&str]; 6] = [
            &["MULTI"],
            &["SLAVEOF", &host, &port],
            &["CONFIG", "REWRITE"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["CLIENT", "KILL", "TYPE", "pubsub"],
            &["EXEC"],
        ];
        commands.iter().all(|words| self.send(id, Question::Other, words))
    }

    fn reconfigure_replicas(&mut self, primary: InstanceId) {
        let Some(promoted) = self.watch(primary).failover.promoted else { return };
        let (now, timeout) = (self.now, self.timing.slave_reconf_timeout);
        let parallel = self.watch(primary).parallel_syncs;
        let address = self.at(promoted).address.clone();
        let replicas = self.replicas(primary);
        let busy =
            |s: &Self, id: &InstanceId| matches!(s.at(*id).replica.reconf, Reconf::Sent | Reconf::InProgress);
        for id in &replicas {
            let facts = &self.at(*id).replica;
            let late = facts.reconf == Reconf::Sent && now.saturating_sub(facts.reconf_sent) > timeout;
            if late || (busy(self, id) && self.is_absent(*id)) {
                // It does not do as told, or is gone: it is repaired later.
                self.event(Level::Notice, "-slave-reconf-sent-timeout", *id);
                self.at_mut(*id).replica.reconf = Reconf::Done;
            }
        }
        let mut in_progress = replicas.iter().filter(|id| busy(self, id)).count() as u32;
        for id in &replicas {
            let facts = &self.at(*id).replica;
            let free = !facts.promoted && facts.reconf == Reconf::None;
            if in_progress < parallel && free && self.send_replicaof(*id, Some(&address)) {
                in_progress += 1;
                let facts = &mut self.at_mut(*id).replica;
                (facts.reconf, facts.reconf_sent) = (Reconf::Sent, now);
                self.event(Level::Notice, "+slave-reconf-sent", *id);
                self.ask_info(*id);
            }
        }
        self.end_if_reconfigured(primary, promoted);
    }

    fn end_if_reconfigured(&mut self, primary: InstanceId, promoted: InstanceId) {
        if self.at(promoted).sdown.is_some() {
            return;
        }
        let address = self.at(promoted).address.clone();
        let left: Vec<InstanceId> = self
            .replicas(primary)
            .into_iter()
            .filter(|id| {
                let instance = self.at(*id);
                !instance.replica.promoted
                    && instance.replica.reconf != Reconf::Done
                    && instance.sdown.is_none()
            })
            .collect();
        let watch = self.watch(primary);
        let timed_out = self.now.saturating_sub(watch.failover.since) > watch.failover_timeout;
        if !left.is_empty() && !timed_out {
            return;
        }
        if timed_out && !left.is_empty() {
            self.event(Level::Warning, "+failover-end-for-timeout", primary);
            for id in left {
                let told = self.at(id).replica.reconf != Reconf::None;
                if !told && self.send_replicaof(id, Some(&address)) {
                    self.at_mut(id).replica.reconf = Reconf::Sent;
                    self.event(Level::Notice, "+slave-reconf-sent-be", id);
                }
            }
        }
        self.event(Level::Warning, "+failover-end", primary);
        self.enter(primary, Phase::UpdateConfig);
    }

    /// From here on the promoted replica is the primary that is watched.
    pub(super) fn finish_failover(&mut self, primary: InstanceId) {
        let Some(promoted) = self.watch(primary).failover.promoted else { return };
        let (from, to) = (self.at(primary).address.clone(), self.at(promoted).address.clone());
        self.tell_switch(primary, &from, &to);
        self.switch_to(primary, to);
    }

    pub(super) fn abort_failover(&mut self, primary: InstanceId) {
        let now = self.now;
        let failover = &mut self.watch_mut(primary).failover;
        (failover.phase, failover.since, failover.forced) = (Phase::None, now, false);
        failover.wait_told = false;
        if let Some(replica) = failover.promoted.take() {
            self.at_mut(replica).replica.promoted = false;
        }
    }
}
