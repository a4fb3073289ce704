//! What must hold: at every moment (safety), and after the network has healed (convergence).

use std::collections::BTreeMap;

use keystead::cluster::message::{Body, Kind, Message};
use keystead::cluster::report::NodeInfo;
use keystead::cluster::{Action, NodeFlags, NodeId, View};

use crate::world::World;

/// Collected over the whole run, across crashes and restarts.
#[derive(Default)]
pub struct Checker {
    /// Voter and epoch: for whom.
    votes: BTreeMap<(NodeId, u64), NodeId>,
    /// Highest epoch that a node has told anybody.
    epochs_sent: BTreeMap<NodeId, u64>,
    /// Config epoch: which node served slots with it.
    served: BTreeMap<u64, NodeId>,
    /// Look for double votes only.
    pub only_votes: bool,
    /// Administrators give out epochs, too.
    pub epochs_collide: bool,
    pub violation: Option<String>,
    /// By a node's number: what its nodes.conf says of shards.
    written: BTreeMap<usize, Shards>,
}

/// Nodes and their shards.
type Shards = BTreeMap<NodeId, NodeId>;

impl Checker {
    pub fn new(only_votes: bool) -> Self {
        Self { only_votes, ..Self::default() }
    }

    fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// Every packet that leaves a node.
    pub fn sent(&mut self, packet: &[u8], to: NodeId) {
        // Receivers decode it whole; a look at three fields is enough here (see `message` for their places).
        let Some(sender) = packet.get(40..80).and_then(NodeId::parse) else {
            return self.fail("a node sent a packet without its name".into());
        };
        let kind = u16::from_be_bytes([packet[12], packet[13]]);
        let epoch = packet[16..24].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let highest = self.epochs_sent.entry(sender).or_default();
        if epoch < *highest && !self.only_votes {
            let text = format!("currentEpoch of {sender:?} went back from {highest} to {epoch}");
            return self.fail(text);
        }
        *highest = epoch;
        if kind == Kind::AuthAck as u16 {
            let first = *self.votes.entry((sender, epoch)).or_insert(to);
            if first != to {
                self.fail(format!("{sender:?} voted in epoch {epoch} for {first:?} and for {to:?}"));
            }
        }
    }

    /// What a node says and writes of shards in one step. `node` has the number `ix`.
    pub fn stepped(&mut self, ix: usize, actions: &[Action]) {
        let before = self.written.get(&ix).cloned().unwrap_or_default();
        if let Some(text) = actions.iter().find_map(|a| match a {
            Action::Persist { text, .. } => Some(text),
            _ => None,
        }) {
            self.wrote(ix, text);
        }
        let beliefs = [&before, &self.written.get(&ix).cloned().unwrap_or_default()];
        for action in actions {
            if let Action::Send { packet, .. } = action {
                self.told_shard(packet, &beliefs);
            }
        }
    }

    /// nodes.conf as a node has it: a real 7.4 does not start from one in which a replica and its primary
    /// are in different shards.
    pub fn wrote(&mut self, ix: usize, text: &str) {
        let mut shards = Shards::new();
        let mut primaries = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with("vars")) {
            let words: Vec<&str> = line.split(' ').collect();
            let shard = words[1].split(',').find_map(|field| field.strip_prefix("shard-id="));
            let shard = shard.and_then(|id| NodeId::parse(id.as_bytes()));
            let (Some(id), Some(shard)) = (NodeId::parse(words[0].as_bytes()), shard) else {
                return self.fail(format!("n{ix} writes no shard: {line}"));
            };
            shards.insert(id, shard);
            primaries.extend(NodeId::parse(words[3].as_bytes()).map(|primary| (id, primary)));
        }
        for (id, primary) in primaries {
            if shards.get(&id) != shards.get(&primary) {
                self.fail(format!("n{ix} writes {id:?} into another shard than {primary:?}:\n{text}"));
            }
        }
        self.written.insert(ix, shards);
    }

    /// A replica tells of its shard what it believes of its primary, or nothing. It believes what it wrote
    /// before a step or after it.
    fn told_shard(&mut self, packet: &[u8], beliefs: &[&Shards; 2]) {
        let Ok(message) = Message::decode(packet) else { return self.fail("no packet".into()) };
        let (Body::Ping(gossip) | Body::Pong(gossip) | Body::Meet(gossip)) = message.body else { return };
        let (sender, primary) = (message.header.sender, message.header.primary);
        match (gossip.extensions.shard_id, primary) {
            (Some(told), primary) => {
                let believed = |shards: &&Shards| shards.get(&primary.unwrap_or(sender)) == Some(&told);
                if !beliefs.iter().any(believed) {
                    self.fail(format!("{sender:?}, primary {primary:?}, tells shard {told:?}: {beliefs:?}"));
                }
            }
            (None, None) => self.fail(format!("{sender:?} is a primary and tells no shard")),
            // Its primary has not told it yet.
            (None, Some(_)) => {}
        }
    }

    /// Every view that a node's workers get; whether they serve by it. Without administrators that bump
    /// epochs, elections alone give them out, so one belongs to one node for ever. That is more than
    /// "no two nodes serve a slot with the same config epoch".
    pub fn published(&mut self, view: &View) -> bool {
        if !view.is_ok() || !(0..16384).any(|slot| view.slot(slot).is_mine()) {
            return false;
        }
        let owner = *self.served.entry(view.config_epoch).or_insert(view.myself);
        if owner != view.myself && !self.only_votes && !self.epochs_collide {
            let (epoch, other) = (view.config_epoch, view.myself);
            self.fail(format!("{owner:?} and {other:?} both serve with config epoch {epoch}"));
        }
        true
    }
}

fn owner(owners: &[(NodeId, Vec<(u16, u16)>)], slot: u16) -> Option<NodeId> {
    let has =
        |(_, ranges): &&(NodeId, Vec<(u16, u16)>)| ranges.iter().any(|(a, b)| (*a..=*b).contains(&slot));
    owners.iter().find(has).map(|(id, _)| *id)
}

/// `Ok` once all nodes agree on a whole cluster; else what is missing.
pub fn converged(world: &World) -> Result<(), String> {
    let mut first = None;
    let mut epochs = BTreeMap::new();
    for node in &world.nodes {
        let name = &node.name;
        let Some(state) = &node.state else { return Err(format!("{name} is down")) };
        if !state.is_ok() {
            let missing: Vec<u16> = (0..16384).filter(|s| state.slot_owner(*s).is_none()).take(5).collect();
            return Err(format!("{name} says cluster_state:fail, slots without an owner: {missing:?}"));
        }
        let infos = state.node_infos();
        if infos.len() != world.nodes.len() {
            return Err(format!("{name} knows {} nodes", infos.len()));
        }
        let bad = NodeFlags::FAIL | NodeFlags::PFAIL | NodeFlags::HANDSHAKE | NodeFlags::NOADDR;
        for info in &infos {
            if info.flags.has(bad) {
                return Err(format!("{name} sees {:?} as {:?}", info.id, info.flags));
            }
            let truth = world.by_id(&info.id).and_then(|n| n.state.as_ref());
            let Some(truth) = truth else { return Err(format!("{name} knows a stranger {:?}", info.id)) };
            let own = truth.my_info();
            if (info.primary, info.is_replica()) != (own.primary, own.is_replica()) {
                return Err(format!("{name} mistakes the role of {:?}", info.id));
            }
            if info.shard_id != own.shard_id {
                return Err(format!("{name} mistakes the shard of {:?}", info.id));
            }
        }
        if state.info().slots_assigned != 16384 {
            return Err(format!("{name} sees slots without an owner"));
        }
        let owners: Vec<(NodeId, Vec<(u16, u16)>)> = infos.iter().map(|i| (i.id, i.slots.clone())).collect();
        match &first {
            None => first = Some(owners),
            Some(first) if first == &owners => {}
            Some(first) => {
                let differs = |slot: &u16| owner(first, *slot) != owner(&owners, *slot);
                let slot = (0..16384).find(differs).unwrap_or_default();
                let (theirs, other) = (owner(first, slot), &world.nodes[0].name);
                return Err(format!(
                    "slot {slot} is {:?}'s for {name} and {theirs:?}'s for {other}",
                    owner(&owners, slot)
                ));
            }
        }
        let own = state.my_info();
        if own.is_replica() {
            let primary = own.primary.and_then(|p| infos.iter().find(|i| i.id == p));
            if primary.is_none_or(NodeInfo::is_replica) {
                return Err(format!("{name} replicates no primary"));
            }
        } else if let Some(other) = epochs.insert(own.config_epoch, name.clone())
            && world.nodes.len() > 1
        {
            return Err(format!("{name} and {other} have config epoch {}", own.config_epoch));
        }
    }
    Ok(())
}
