//! Who owns which slot and who is whose primary: the configuration, how it follows what others claim,
//! and how an administrator changes it.
//! Source: Redis Cluster specification, "Propagation of slots configuration", "UPDATE messages",
//! "Config epoch conflicts resolution".

use super::action::{Action, Keys, Level, Now};
use super::message::{Body, Header};
use super::node::{MYSELF, NodeFlags, NodeId, NodeIx, Shard};
use super::slots::SlotBitmap;
use super::state::ClusterState;
use crate::base::crc16::SLOTS;

impl ClusterState {
    /// Moves one slot in the map and in both bitmaps.
    pub(super) fn set_slot_owner(&mut self, slot: u16, owner: Option<NodeIx>) {
        let old = self.slots.owner(slot);
        if old == owner {
            return;
        }
        if let Some(old) = old {
            let node = &mut self.nodes[old];
            node.slots.clear(slot);
            node.slot_count -= 1;
        }
        if let Some(new) = owner {
            // Where primaries have replicas, a primary with its first slot may be given one.
            let had_none = self.nodes[new].slot_count == 0;
            if had_none && self.nodes.iter().any(|(_, n)| n.is_replica() && n.primary.is_some()) {
                self.nodes[new].flags.set(NodeFlags::MIGRATE_TO);
            }
            let node = &mut self.nodes[new];
            node.slots.set(slot);
            node.slot_count += 1;
        }
        self.slots.set_owner(slot, owner);
        // DELSLOTS and FLUSHSLOTS leave the mark, as in Redis.
        if owner.is_some_and(|owner| owner != MYSELF) {
            self.slots.migrating.remove(&slot);
        }
        self.todo.view = true;
        self.todo.health = true;
    }

    pub(super) fn drop_all_slots_of(&mut self, ix: NodeIx) {
        for slot in self.nodes[ix].slots.clone().iter() {
            self.set_slot_owner(slot, None);
        }
    }

    /// `claimer` says, with its config epoch, that these slots are its own: the higher epoch wins, and any epoch
    /// wins over an owner that does not claim the slot any more. Without the latter, a node that heard a new owner of
    /// lower epoch before the old one would leave the slot with the old one.
    pub(super) fn hear_slots(&mut self, claimer: NodeIx, epoch: u64, claimed: &SlotBitmap) {
        if claimer == MYSELF {
            return;
        }
        self.note_unclaimed(claimer, claimed);
        let my_primary = self.my_shards_primary();
        let mut taken_from_my_shard = 0;
        let mut lost = SlotBitmap::default();
        for slot in claimed.iter() {
            let owner = self.slots.owner(slot);
            // A slot being imported changes hands by the administrator's word only.
            if owner == Some(claimer) || self.slots.importing.contains_key(&slot) {
                continue;
            }
            let claimed_by_owner = !self.slots.unclaimed.get(slot);
            if claimed_by_owner && owner.is_some_and(|o| self.nodes[o].config_epoch >= epoch) {
                continue;
            }
            if owner == Some(MYSELF) {
                lost.set(slot);
            }
            if owner == Some(my_primary) {
                taken_from_my_shard += 1;
            }
            self.set_slot_owner(slot, Some(claimer));
            self.changed_durably();
        }
        let all_taken = taken_from_my_shard > 0 && self.nodes[my_primary].slot_count == 0;
        let same_slots = taken_from_my_shard == claimed.count();
        if all_taken && (self.config.allow_replica_migration || same_slots) {
            self.log_new_primary(claimer);
            self.follow_primary(claimer);
            self.changed_durably();
        } else if let Some(grand) =
            self.nodes[my_primary].primary.filter(|g| *g != MYSELF && my_primary != MYSELF)
        {
            // Our primary became a replica itself: no chains.
            let name = self.named(grand);
            let text = format!("I'm a sub-replica! Reconfiguring myself as a replica of grandmaster {name}");
            self.log(Level::Notice, text);
            self.follow_primary(grand);
            self.changed_durably();
        } else if lost.count() > 0 {
            self.out.push(Action::DropSlotKeys(lost));
        }
    }

    fn log_new_primary(&mut self, primary: NodeIx) {
        let name = self.named(primary);
        let text = format!("Configuration change detected. Reconfiguring myself as a replica of {name}");
        self.log(Level::Notice, text);
    }

    /// Notes which of the slots that we believe to be a node's it does not claim itself.
    pub(super) fn note_unclaimed(&mut self, owner: NodeIx, claimed: &SlotBitmap) {
        for slot in self.nodes[owner].slots.iter() {
            if claimed.get(slot) {
                self.slots.unclaimed.clear(slot);
            } else {
                self.slots.unclaimed.set(slot);
            }
        }
    }

    /// The sender believes in an owner that was replaced: tell it by whom.
    pub(super) fn correct_outdated_claim(&mut self, sender: NodeIx, epoch: u64, claimed: &SlotBitmap) {
        let claimer = self.nodes[sender].primary.unwrap_or(sender);
        let newer = claimed.iter().find_map(|slot| {
            let owner = self.slots.owner(slot)?;
            let other = owner != claimer && owner != sender && !self.slots.unclaimed.get(slot);
            (other && self.nodes[owner].config_epoch > epoch).then_some(owner)
        });
        if let (Some(owner), Some(link)) = (newer, self.nodes[sender].outbound) {
            let id = self.nodes[owner].id;
            let to = self.nodes[sender].id;
            self.log(
                Level::Verbose,
                format!("Node {to} has old slots configuration, sending an UPDATE message about {id}"),
            );
            let node = &self.nodes[owner];
            let slots = node.slots.iter().filter(|slot| !self.slots.unclaimed.get(*slot)).collect();
            let body = Body::Update { config_epoch: node.config_epoch, node: node.id, slots };
            self.send(link, body);
        }
    }

    /// UPDATE: this is the configuration of `node` now.
    pub(super) fn hear_update(&mut self, node: NodeIx, epoch: u64, slots: &SlotBitmap) {
        if node == MYSELF || self.nodes[node].config_epoch >= epoch {
            return;
        }
        if self.nodes[node].is_replica() {
            self.make_primary(node);
        }
        self.nodes[node].config_epoch = epoch;
        self.changed_durably();
        self.hear_slots(node, epoch, slots);
    }

    /// Two primaries with one config epoch: the one with the smaller name takes a new one.
    pub(super) fn resolve_epoch_collision(&mut self, sender: NodeIx, header: &Header) {
        let other = &self.nodes[sender];
        let me = self.me();
        let both_primaries = header.primary.is_none() && other.is_primary() && me.is_primary();
        if !both_primaries || header.config_epoch != me.config_epoch || other.id <= me.id {
            return;
        }
        let other = self.named(sender);
        self.current_epoch += 1;
        self.nodes[MYSELF].config_epoch = self.current_epoch;
        self.changed_durably();
        let epoch = self.current_epoch;
        self.log(
            Level::Verbose,
            format!("WARNING: configEpoch collision with node {other}. configEpoch set to {epoch}"),
        );
    }

    fn max_epoch(&self) -> u64 {
        self.nodes.iter().map(|(_, n)| n.config_epoch).max().unwrap_or(0).max(self.current_epoch)
    }

    /// A new config epoch without votes, at an administrator's word. False if ours is the highest already.
    pub(super) fn bump_epoch_without_consensus(&mut self) -> bool {
        let max = self.max_epoch();
        let mine = self.me().config_epoch;
        if mine != 0 && mine == max {
            return false;
        }
        self.current_epoch = max + 1;
        self.nodes[MYSELF].config_epoch = self.current_epoch;
        self.changed_durably();
        let epoch = self.current_epoch;
        self.log(Level::Warning, format!("New configEpoch set to {epoch}"));
        true
    }

    /// This node becomes a replica of `primary`, whatever it was.
    pub(super) fn follow_primary(&mut self, primary: NodeIx) {
        assert!(primary != MYSELF, "a node cannot replicate itself");
        let me = &mut self.nodes[MYSELF];
        if me.is_primary() {
            me.flags.clear(NodeFlags::MASTER | NodeFlags::MIGRATE_TO);
            me.flags.set(NodeFlags::SLAVE);
            self.slots.migrating.clear();
            self.slots.importing.clear();
        }
        self.set_primary_of(MYSELF, Some(primary));
        self.election = super::election::Election::default();
        self.reset_manual_failover();
        self.changed();
        self.todo.announce = true;
    }

    /// Ties a replica to its primary, or unties it.
    pub(super) fn set_primary_of(&mut self, ix: NodeIx, primary: Option<NodeIx>) {
        let old = std::mem::replace(&mut self.nodes[ix].primary, primary);
        if old == primary {
            return;
        }
        if let Some(old) = old
            && self.nodes.get(old).is_some()
            && self.nodes.replicas_of(old).next().is_none()
        {
            self.nodes[old].flags.clear(NodeFlags::MIGRATE_TO);
        }
        if let Some(new) = primary {
            self.nodes[new].flags.set(NodeFlags::MIGRATE_TO);
            self.set_shard(ix, self.nodes[new].shard);
        }
        self.changed();
    }

    /// Puts a node into a shard, and with it all its replicas: also over a primary that has become a
    /// replica itself. A real 7.4 does not start from a nodes.conf that says otherwise.
    pub(super) fn set_shard(&mut self, ix: NodeIx, shard: Shard) {
        let mut left = vec![ix];
        while let Some(ix) = left.pop() {
            if self.nodes[ix].shard == shard {
                continue;
            }
            self.nodes[ix].shard = shard;
            self.todo.save = true;
            self.todo.view = true;
            self.todo.announce |= ix == MYSELF;
            left.extend(self.nodes.iter().filter(|(_, n)| n.primary == Some(ix)).map(|(r, _)| r));
        }
    }

    pub(super) fn make_primary(&mut self, ix: NodeIx) {
        if self.nodes[ix].is_primary() {
            return;
        }
        self.set_primary_of(ix, None);
        let node = &mut self.nodes[ix];
        node.flags.clear(NodeFlags::SLAVE);
        node.flags.set(NodeFlags::MASTER);
        if ix == MYSELF {
            // It goes on with the id that it had as a replica, and has the say about it now.
            self.set_shard(MYSELF, Shard::told(self.me().shard.id));
        } else {
            node.flags.set(NodeFlags::MIGRATE_TO);
        }
        self.changed();
    }

    // What an administrator asks for. Errors are the replies, without the leading dash.

    /// CLUSTER ADDSLOTS and ADDSLOTSRANGE. All or none.
    pub fn add_slots(&mut self, now: Now, slots: &[u16]) -> Result<(), String> {
        self.now = now;
        self.check_free(slots)?;
        for slot in slots {
            self.slots.importing.remove(slot);
            self.set_slot_owner(*slot, Some(MYSELF));
        }
        self.changed_durably();
        Ok(())
    }

    /// CLUSTER DELSLOTS and DELSLOTSRANGE. All or none.
    pub fn del_slots(&mut self, now: Now, slots: &[u16]) -> Result<(), String> {
        self.now = now;
        self.check_assigned(slots)?;
        for slot in slots {
            self.set_slot_owner(*slot, None);
        }
        self.changed_durably();
        Ok(())
    }

    /// Whether ADDSLOTS would take them.
    pub fn check_free(&self, slots: &[u16]) -> Result<(), String> {
        self.check_slots(slots, |owner| owner.is_some(), "busy")
    }

    /// Whether DELSLOTS would take them.
    pub fn check_assigned(&self, slots: &[u16]) -> Result<(), String> {
        self.check_slots(slots, |owner| owner.is_none(), "unassigned")
    }

    fn check_slots(
        &self,
        slots: &[u16],
        refuse: impl Fn(Option<NodeIx>) -> bool,
        state: &str,
    ) -> Result<(), String> {
        let mut seen = SlotBitmap::default();
        for slot in slots {
            check_slot(*slot)?;
            if refuse(self.slots.owner(*slot)) {
                return Err(format!("ERR Slot {slot} is already {state}"));
            }
            if seen.get(*slot) {
                return Err(format!("ERR Slot {slot} specified multiple times"));
            }
            seen.set(*slot);
        }
        Ok(())
    }

    /// CLUSTER FLUSHSLOTS.
    pub fn flush_slots(&mut self, now: Now, keys: &dyn Keys) -> Result<(), String> {
        self.now = now;
        if keys.count() > 0 {
            return Err("ERR DB must be empty to perform CLUSTER FLUSHSLOTS.".into());
        }
        self.drop_all_slots_of(MYSELF);
        self.changed_durably();
        Ok(())
    }

    /// A primary that an administrator names as the other end of a move.
    fn move_partner(&self, id: &[u8], unknown: &str) -> Result<NodeIx, String> {
        let ix = NodeId::parse(id).and_then(|id| self.nodes.find(&id));
        let ix = ix.ok_or_else(|| format!("ERR {unknown} {}", String::from_utf8_lossy(id)))?;
        if self.nodes[ix].is_replica() {
            return Err("ERR Target node is not a master".into());
        }
        Ok(ix)
    }

    /// Whether SETSLOT is for this node at all.
    pub fn check_may_move(&self) -> Result<(), String> {
        if self.me().is_replica() {
            return Err("ERR Please use SETSLOT only with masters.".into());
        }
        Ok(())
    }

    /// CLUSTER SETSLOT slot MIGRATING id.
    pub fn set_slot_migrating(&mut self, now: Now, slot: u16, target: &[u8]) -> Result<(), String> {
        self.now = now;
        self.check_may_move()?;
        check_slot(slot)?;
        if self.slots.owner(slot) != Some(MYSELF) {
            return Err(format!("ERR I'm not the owner of hash slot {slot}"));
        }
        let target = self.move_partner(target, "I don't know about node")?;
        self.slots.migrating.insert(slot, target);
        self.changed();
        Ok(())
    }

    /// CLUSTER SETSLOT slot IMPORTING id.
    pub fn set_slot_importing(&mut self, now: Now, slot: u16, source: &[u8]) -> Result<(), String> {
        self.now = now;
        self.check_may_move()?;
        check_slot(slot)?;
        if self.slots.owner(slot) == Some(MYSELF) {
            return Err(format!("ERR I'm already the owner of hash slot {slot}"));
        }
        let source = self.move_partner(source, "I don't know about node")?;
        self.slots.importing.insert(slot, source);
        self.changed();
        Ok(())
    }

    /// CLUSTER SETSLOT slot STABLE.
    pub fn set_slot_stable(&mut self, now: Now, slot: u16) -> Result<(), String> {
        self.now = now;
        self.check_may_move()?;
        check_slot(slot)?;
        self.slots.migrating.remove(&slot);
        self.slots.importing.remove(&slot);
        self.changed();
        Ok(())
    }

    /// CLUSTER SETSLOT slot NODE id: ends a move on either side.
    pub fn set_slot_node(&mut self, now: Now, slot: u16, id: &[u8], keys: &dyn Keys) -> Result<(), String> {
        self.now = now;
        self.check_may_move()?;
        check_slot(slot)?;
        let node = self.move_partner(id, "Unknown node")?;
        let was_mine = self.slots.owner(slot) == Some(MYSELF);
        let count = keys.count_in_slot(slot);
        if was_mine && node != MYSELF && count != 0 {
            return Err(format!(
                "ERR Can't assign hashslot {slot} to a different node while I still hold keys for this hash slot."
            ));
        }
        if count == 0 {
            self.slots.migrating.remove(&slot);
        }
        self.set_slot_owner(slot, Some(node));
        // A slot that this node gains is on disk before anybody is told. After a crash others would tell it what
        // they own, but nobody what it owns itself.
        if node == MYSELF {
            self.changed_durably();
        } else {
            self.changed();
        }
        // The new owner's claim must beat the old one's, and the others should learn of it at once.
        if node == MYSELF && self.slots.importing.remove(&slot).is_some() {
            if self.bump_epoch_without_consensus() {
                self.log(Level::Warning, format!("configEpoch updated after importing slot {slot}"));
            }
            self.broadcast_pong(|_| true);
        }
        // A primary that gave its last slot away follows the node that got it.
        if was_mine && node != MYSELF && self.me().slot_count == 0 && self.config.allow_replica_migration {
            self.log_new_primary(node);
            self.follow_primary(node);
            self.changed_durably();
        }
        Ok(())
    }

    /// After the start: takes slots without owner whose keys are here, and marks as importing those whose keys are
    /// here but that others own, so that an administrator can move the keys there.
    pub fn claim_data(&mut self, now: Now, keys: &dyn Keys) {
        self.now = now;
        if self.me().is_replica() || keys.count() == 0 {
            return;
        }
        for slot in 0..SLOTS as u16 {
            let owner = self.slots.owner(slot);
            if owner == Some(MYSELF)
                || self.slots.importing.contains_key(&slot)
                || keys.count_in_slot(slot) == 0
            {
                continue;
            }
            match owner {
                None => {
                    self.set_slot_owner(slot, Some(MYSELF));
                    let text =
                        format!("I have keys for unassigned slot {slot}. Taking responsibility for it.");
                    self.log(Level::Warning, text);
                }
                Some(owner) => {
                    self.slots.importing.insert(slot, owner);
                    let text = format!(
                        "I have keys for slot {slot}, but the slot is assigned to another node. Setting it to importing state."
                    );
                    self.log(Level::Warning, text);
                }
            }
            self.changed_durably();
        }
    }

    /// CLUSTER BUMPEPOCH: whether the epoch changed, and what it is.
    pub fn bump_epoch(&mut self, now: Now) -> (bool, u64) {
        self.now = now;
        let bumped = self.bump_epoch_without_consensus();
        (bumped, self.me().config_epoch)
    }

    /// CLUSTER SET-CONFIG-EPOCH, for tools that create clusters.
    pub fn set_config_epoch(&mut self, now: Now, epoch: i64) -> Result<(), String> {
        self.now = now;
        if epoch < 0 {
            return Err(format!("ERR Invalid config epoch specified: {epoch}"));
        }
        if self.nodes.len() > 1 {
            return Err(
                "ERR The user can assign a config epoch only when the node does not know any other node."
                    .into(),
            );
        }
        if self.me().config_epoch != 0 {
            return Err("ERR Node config epoch is already non-zero".into());
        }
        let epoch = epoch as u64;
        self.nodes[MYSELF].config_epoch = epoch;
        self.current_epoch = self.current_epoch.max(epoch);
        self.changed_durably();
        Ok(())
    }
}

fn check_slot(slot: u16) -> Result<(), String> {
    if usize::from(slot) < SLOTS { Ok(()) } else { Err("ERR Invalid or out of range slot".into()) }
}
