//! Epochs and votes: SENTINEL IS-MASTER-DOWN-BY-ADDR, both sides, and who leads a failover.

use std::collections::BTreeMap;

use super::action::Level;
use super::instance::{InstanceId, Question};
use super::state::Sentinel;
use crate::base::time::MonoMs;
use crate::resp::decode::Value;

/// Whoever stood or voted for another waits a random part of this longer than usual before it stands again.
pub(super) const DESYNC_MAX: MonoMs = 1000;
/// What others said of a primary is forgotten after so many asking periods.
const STALE_ANSWER: MonoMs = 5;

/// The reply to SENTINEL IS-MASTER-DOWN-BY-ADDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub down: bool,
    /// Whom we voted for, and in which epoch.
    pub leader: Option<String>,
    pub leader_epoch: u64,
}

impl Sentinel {
    /// Another sentinel asks about a primary and, if `candidate` is given, for our vote. The answer is
    /// [`answer`](Self::answer), to be asked for once the actions of this are carried out.
    pub fn hear_question(&mut self, ip: &str, port: u16, epoch: u64, candidate: Option<&str>) {
        if let (Some((primary, _)), Some(candidate)) = (self.primary_at(ip, port), candidate) {
            self.cast(primary, epoch, candidate);
        }
    }

    /// What we say of the primary at an address. A vote that is not on disk is not told.
    pub fn answer(&self, ip: &str, port: u16, wants_vote: bool) -> Answer {
        let mut answer = Answer { down: false, leader: None, leader_epoch: 0 };
        let Some((primary, asked)) = self.primary_at(ip, port) else { return answer };
        answer.down = self.tilt.is_none() && self.at(asked).sdown.is_some();
        let watch = self.watch(primary);
        if wants_vote && self.is_saved(watch.vote_generation) {
            answer.leader.clone_from(&watch.leader);
            answer.leader_epoch = watch.leader_epoch;
        }
        answer
    }

    /// The primary at an address, and who is there: itself, or the replica that our failover has promoted already. The
    /// others take that one for the primary; if it dies while its replicas still move they need our vote.
    fn primary_at(&self, ip: &str, port: u16) -> Option<(InstanceId, InstanceId)> {
        let address = super::instance::Address::new(ip, port);
        self.primary_ids().into_iter().find_map(|primary| {
            let failover = &self.watch(primary).failover;
            let promoted = failover.promoted.filter(|_| failover.is_promoted());
            let mut here = std::iter::once(primary).chain(promoted);
            Some((primary, here.find(|id| self.same(&self.at(*id).address, &address))?))
        })
    }

    /// Epochs only grow. `primary`: whose failover, or hello, brought the new one.
    pub(super) fn raise_epoch(&mut self, primary: InstanceId, epoch: u64) {
        if epoch > self.current_epoch {
            (self.current_epoch, self.epoch_since) = (epoch, self.now);
            self.remember();
            self.tell(Level::Warning, "+new-epoch", Some(primary), epoch.to_string());
        }
    }

    /// Votes for `candidate` in `epoch`, unless a vote was cast in it or a later one. One vote an epoch, also after a
    /// crash: it counts for nobody before it is on disk.
    pub(super) fn cast(&mut self, primary: InstanceId, epoch: u64, candidate: &str) {
        self.raise_epoch(primary, epoch);
        let watch = self.watch(primary);
        if watch.leader_epoch >= epoch || self.current_epoch > epoch {
            return;
        }
        self.remember();
        let generation = self.generation();
        let watch = self.watch_mut(primary);
        watch.leader = Some(candidate.to_owned());
        (watch.leader_epoch, watch.vote_generation) = (epoch, generation);
        self.tell(Level::Warning, "+vote-for-leader", Some(primary), format!("{candidate} {epoch}"));
        if candidate != self.my_id {
            let desync = self.rng.below(DESYNC_MAX);
            let now = self.now;
            let failover = &mut self.watch_mut(primary).failover;
            // It has its time before this sentinel tries.
            (failover.voted, failover.hurry) = (now + desync, None);
        }
    }

    /// Asks the others whether they find the primary down; while we stand, for their votes, too.
    /// `now_all`: without waiting for the period.
    pub(super) fn ask_others(&mut self, primary: InstanceId, now_all: bool) {
        let (now, period) = (self.now, self.timing.ask_period);
        let down = self.at(primary).sdown.is_some();
        let watch = self.watch(primary);
        let failover = &watch.failover;
        let stands = failover.in_progress()
            && watch.leader.as_ref() == Some(&self.my_id)
            && watch.leader_epoch == failover.epoch
            && self.is_saved(watch.vote_generation);
        let candidate = if stands { self.my_id.clone() } else { "*".to_owned() };
        let address = &self.at(primary).address;
        let (ip, port) =
            (self.ip_of(&address.host).unwrap_or(&address.host).to_owned(), address.port.to_string());
        // Votes are asked for in the epoch in which we gave ours, whatever was heard of since.
        let epoch = if stands { failover.epoch } else { self.current_epoch }.to_string();
        for peer in self.peers(primary) {
            let facts = &mut self.at_mut(peer).peer;
            if now.saturating_sub(facts.answered) > STALE_ANSWER * period {
                (facts.says_down, facts.leader) = (false, None);
            }
            let due = now_all || (now.saturating_sub(facts.asked) >= period && !facts.ask_pending);
            if !(down || now_all) || !due {
                continue;
            }
            let words = ["SENTINEL", "is-master-down-by-addr", &ip, &port, &epoch, &candidate];
            if self.send(peer, Question::IsDown, &words) {
                let facts = &mut self.at_mut(peer).peer;
                (facts.asked, facts.ask_pending) = (now, true);
            }
        }
    }

    /// What another sentinel answered.
    pub(super) fn hear_answer(&mut self, peer: InstanceId, reply: &Value) {
        let now = self.now;
        self.at_mut(peer).peer.ask_pending = false;
        let [down, leader, epoch] = reply.items() else { return };
        let (Some(down), Some(leader), Some(epoch)) = (down.int(), leader.text(), epoch.int()) else {
            return;
        };
        let facts = &mut self.at_mut(peer).peer;
        (facts.answered, facts.says_down) = (now, down == 1);
        if leader != "*" {
            let epoch = epoch as u64;
            let news = facts.leader_epoch != epoch;
            facts.leader = Some(leader.to_owned());
            facts.leader_epoch = epoch;
            if news {
                let text = format!("{} voted for {leader} {epoch}", self.at(peer).name);
                self.log(Level::Notice, text);
            }
        }
        let primary = self.at(peer).primary;
        self.look_at(primary);
    }

    /// Whether another sentinel's vote in an epoch is known.
    pub(super) fn has_voted(&self, peer: InstanceId, epoch: u64) -> bool {
        let facts = &self.at(peer).peer;
        facts.leader.is_some() && facts.leader_epoch == epoch
    }

    /// The votes cast in an epoch, as far as they are known here, our own among them once it is on disk.
    pub(super) fn votes(&self, primary: InstanceId, epoch: u64) -> BTreeMap<String, u32> {
        let mut votes = BTreeMap::new();
        for peer in self.peers(primary).into_iter().filter(|peer| self.has_voted(*peer, epoch)) {
            *votes.entry(self.at(peer).peer.leader.clone().unwrap_or_default()).or_default() += 1;
        }
        let watch = self.watch(primary);
        if let Some(leader) = &watch.leader
            && watch.leader_epoch == epoch
            && self.is_saved(watch.vote_generation)
        {
            *votes.entry(leader.clone()).or_default() += 1;
        }
        votes
    }

    /// How many votes make a leader: a majority of all known sentinels, and at least the quorum.
    pub(super) fn votes_needed(&self, primary: InstanceId) -> u32 {
        let watch = self.watch(primary);
        let voters = watch.sentinels.len() as u32 + 1;
        (voters / 2 + 1).max(watch.quorum)
    }
}
