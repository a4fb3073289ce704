//! Slots on the move, in redis-cli's order, while everything else goes wrong: IMPORTING at the target,
//! MIGRATING at the source, then NODE at the target, at the source, and at all other primaries. There is one
//! administrator, who begins as redis-cli does only if all nodes that answer agree and no slot is open. When
//! a node does not answer it gives up and leaves the slot open.

use keystead::cluster::{ClusterState, Keys, NodeId};

use crate::world::{Happening, World};

/// A move under way. Nodes are named by their ids, as in the commands.
#[derive(Clone, Debug)]
pub struct Move {
    slot: u16,
    source: NodeId,
    target: NodeId,
    next: Step,
    /// The node that has not answered yet, and its incarnation.
    asked: Option<(usize, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Import,
    Migrate,
    NodeAtTarget,
    NodeAtSource,
    /// NODE at this node, if it is another primary.
    NodeAt(usize),
}

/// Whether a node holds keys of the slot: its owner does, until they were sent to the target.
struct Held(bool);

impl Keys for Held {
    fn count_in_slot(&self, _slot: u16) -> u64 {
        u64::from(self.0)
    }

    fn count(&self) -> u64 {
        u64::from(self.0)
    }
}

impl World {
    /// Begins to move a slot between two primaries, as they see themselves. False if there are no two.
    pub fn begin_move(&mut self) -> bool {
        if self.moving || !self.answering_agree() {
            return false;
        }
        let primaries: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].state.as_ref().is_some_and(|s| !s.is_replica()))
            .collect();
        if primaries.len() < 2 {
            return false;
        }
        let at = self.rng.below(primaries.len() as u64) as usize;
        let other = (at + 1 + self.rng.below(primaries.len() as u64 - 1) as usize) % primaries.len();
        let infos = [primaries[at], primaries[other]]
            .map(|n| self.nodes[n].state.as_ref().map(ClusterState::my_info));
        let [Some(source), Some(target)] = infos else { return false };
        if source.slots.is_empty() {
            return false;
        }
        let (first, last) = source.slots[self.rng.below(source.slots.len() as u64) as usize];
        let slot = first + self.rng.below(u64::from(last - first) + 1) as u16;
        self.trace(|| format!("*** slot {slot} is to go from {:?} to {:?}", source.id, target.id));
        let m = Move { slot, source: source.id, target: target.id, next: Step::Import, asked: None };
        self.moving = true;
        self.at(self.now, Happening::Move(m));
        true
    }

    /// What redis-cli checks first. Open slots are settled on this occasion.
    fn answering_agree(&mut self) -> bool {
        let answering: Vec<usize> = (0..self.nodes.len()).filter(|n| self.answers(*n)).collect();
        let states = || answering.iter().filter_map(|n| self.nodes[*n].state.as_ref());
        if states().any(|s| !s.is_replica() && !s.open_slots().is_empty()) {
            self.settle_open_slots();
            return false;
        }
        let owners = |s: &ClusterState| (0..16384).map(|slot| s.slot_owner(slot)).collect::<Vec<_>>();
        let mut views = states().map(owners);
        let first = views.next();
        views.all(|view| Some(view) == first)
    }

    fn answers(&self, node: usize) -> bool {
        self.nodes[node].state.is_some() && !self.nodes[node].stopped
    }

    /// Looks whether the answer is there, and gives the next command.
    pub fn go_on_moving(&mut self, m: Move) {
        match self.next_command(m) {
            Some((at, m)) => self.at(at, Happening::Move(m)),
            None => self.moving = false,
        }
    }

    /// When to go on; `None` if the move is over.
    fn next_command(&mut self, mut m: Move) -> Option<(u64, Move)> {
        if let Some((node, incarnation)) = m.asked {
            if !self.lives(node, incarnation) {
                self.trace(|| format!("*** move of {}: n{node} is gone", m.slot));
                return None;
            }
            // The reply leaves when what it says is on disk.
            if self.is_behind(node) || self.nodes[node].stopped {
                return Some((self.now + 5, m));
            }
            m.asked = None;
        }
        if self.rng.chance(1, 40) {
            self.trace(|| format!("*** move of {}: the administrator goes home", m.slot));
            return None;
        }
        let by_id = |id: NodeId| self.nodes.iter().position(|n| n.id == Some(id));
        let (slot, source, target) = (m.slot, m.source, m.target);
        let (node, next) = match m.next {
            Step::Import => (by_id(target), Step::Migrate),
            Step::Migrate => (by_id(source), Step::NodeAtTarget),
            Step::NodeAtTarget => (by_id(target), Step::NodeAtSource),
            Step::NodeAtSource => (by_id(source), Step::NodeAt(0)),
            Step::NodeAt(n) if n >= self.nodes.len() => {
                self.moves += 1;
                return None;
            }
            Step::NodeAt(n) => (Some(n), Step::NodeAt(n + 1)),
        };
        let asked = node.filter(|n| self.answers(*n));
        let result = match asked {
            None => Err("no answer".to_owned()),
            Some(node) => self.admin(node, |s, now| {
                s.check_may_move()?;
                match m.next {
                    Step::Import => s.set_slot_importing(now, slot, source.as_bytes()),
                    Step::Migrate => s.set_slot_migrating(now, slot, target.as_bytes()),
                    step => {
                        let mine = s.slot_owner(slot) == Some(s.my_id());
                        let held = Held(mine && step != Step::NodeAtSource);
                        s.set_slot_node(now, slot, target.as_bytes(), &held)
                    }
                }
            }),
        };
        self.trace(|| format!("*** move of {slot}: {:?} {node:?}: {result:?}", m.next));
        // The others are told as a courtesy: what one of them answers does not matter.
        if result.is_err() && !matches!(m.next, Step::NodeAt(_)) {
            return None;
        }
        m.asked = asked.filter(|_| result.is_ok()).map(|n| (n, self.incarnation(n)));
        m.next = next;
        let at = self.now + 1 + self.rng.below(2 * self.latency_ms + 1);
        Some((at, m))
    }

    /// What `redis-cli --cluster fix` does with slots that were left open: nodes that import or migrate one
    /// are told that it is not so.
    pub fn settle_open_slots(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(state) = &self.nodes[node].state else { continue };
            if state.is_replica() || self.nodes[node].stopped {
                continue;
            }
            for slot in state.open_slots() {
                let _ = self.admin(node, |s, now| s.set_slot_stable(now, slot));
            }
        }
    }

    /// What `redis-cli --cluster fix` does with slots that no node says it owns: one primary takes each. It
    /// takes a target that has not heard of the source's epoch, and packets of the source that are under way
    /// for long, to lose a slot so; Redis has the same gap. Returns how many there were.
    pub fn adopt_orphan_slots(&mut self) -> u64 {
        let claims = |w: &World, slot: u16| {
            w.nodes.iter().filter_map(|n| n.state.as_ref()).any(|s| s.slot_owner(slot) == Some(s.my_id()))
        };
        let orphans: Vec<u16> = (0..16384).filter(|slot| !claims(self, *slot)).collect();
        let primary =
            (0..self.nodes.len()).find(|n| self.nodes[*n].state.as_ref().is_some_and(|s| !s.is_replica()));
        for slot in &orphans {
            let Some(node) = primary else { break };
            self.trace(|| format!("*** fix: n{node} takes slot {slot}"));
            let adopted = self.admin(node, |s, now| {
                // It may be without an owner already.
                let _ = s.del_slots(now, &[*slot]);
                let added = s.set_slot_stable(now, *slot).and_then(|()| s.add_slots(now, &[*slot]));
                s.bump_epoch(now);
                added
            });
            assert_eq!(adopted, Ok(()), "slot {slot} cannot be fixed");
        }
        orphans.len() as u64
    }
}
