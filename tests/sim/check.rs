//! What must hold: at every moment (safety), and after the network has healed (convergence).

use std::collections::BTreeMap;

use keystead::cluster::message::{Body, Message};
use keystead::cluster::{NodeFlags, NodeId, SlotBitmap, View};

use crate::world::World;

/// What a node serves, as its workers were last told.
#[derive(Clone, Debug)]
pub struct Serving {
    pub config_epoch: u64,
    pub slots: SlotBitmap,
}

/// Collected over the whole run, across crashes and restarts.
#[derive(Default)]
pub struct Checker {
    /// Voter and epoch: for whom.
    votes: BTreeMap<(NodeId, u64), NodeId>,
    /// Highest epoch that a node has told anybody.
    epochs_sent: BTreeMap<NodeId, u64>,
    /// Config epoch: which node served slots with it.
    served: BTreeMap<u64, NodeId>,
    pub violation: Option<String>,
}

impl Checker {
    fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// Every packet that leaves a node.
    pub fn sent(&mut self, packet: &[u8], to: NodeId) {
        let message = match Message::decode(packet) {
            Ok(message) => message,
            Err(error) => return self.fail(format!("a node sent what is no packet: {error}")),
        };
        let (sender, epoch) = (message.header.sender, message.header.current_epoch);
        let highest = self.epochs_sent.entry(sender).or_default();
        if epoch < *highest {
            let text = format!("currentEpoch of {sender:?} went back from {highest} to {epoch}");
            return self.fail(text);
        }
        *highest = epoch;
        if message.body == Body::AuthAck {
            let first = *self.votes.entry((sender, epoch)).or_insert(to);
            if first != to {
                self.fail(format!("{sender:?} voted in epoch {epoch} for {first:?} and for {to:?}"));
            }
        }
    }

    /// Every view that a node's workers get. Without administrators that bump epochs, elections alone
    /// give them out, so one belongs to one node for ever.
    pub fn published(&mut self, view: &View) -> Option<Serving> {
        let slots: SlotBitmap = (0..16384).filter(|s| view.slot(*s).is_mine()).collect();
        if !view.is_ok() || slots.count() == 0 {
            return None;
        }
        let owner = *self.served.entry(view.config_epoch).or_insert(view.myself);
        if owner != view.myself {
            let (epoch, other) = (view.config_epoch, view.myself);
            self.fail(format!("{owner:?} and {other:?} both serve with config epoch {epoch}"));
        }
        Some(Serving { config_epoch: view.config_epoch, slots })
    }
}

/// `Ok` once all nodes agree on a whole cluster; else what is missing.
pub fn converged(world: &World) -> Result<(), String> {
    let mut first: Option<Vec<Option<NodeId>>> = None;
    let mut epochs = BTreeMap::new();
    for node in &world.nodes {
        let name = &node.name;
        let Some(state) = &node.state else { return Err(format!("{name} is down")) };
        if !state.is_ok() {
            return Err(format!("{name} says cluster_state:fail"));
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
        }
        let owners: Vec<Option<NodeId>> = (0..16384).map(|s| state.slot_owner(s)).collect();
        if owners.iter().any(Option::is_none) {
            return Err(format!("{name} sees slots without an owner"));
        }
        match &first {
            None => first = Some(owners),
            Some(first) if *first == owners => {}
            Some(_) => return Err(format!("{name} sees other owners than {}", world.nodes[0].name)),
        }
        let own = state.my_info();
        if own.is_replica() {
            let primary = own.primary.and_then(|p| infos.iter().find(|i| i.id == p));
            if primary.is_none_or(|p| p.is_replica()) {
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
