//! What CLUSTER NODES, SLOTS, SHARDS, INFO, LINKS and their relatives show, as data; replies are made of
//! it by the commands.

use std::fmt::Write as _;
use std::sync::Arc;

use super::link::LinkId;
use super::message::Kind;
use super::node::{Address, MYSELF, Node, NodeFlags, NodeId, NodeIx};
use super::state::{ClusterState, Stats};
use super::view::{SlotView, View, ViewNode};
use crate::base::crc16::SLOTS;
use crate::base::time::UnixMs;

/// A node as reports show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Its place among the nodes.
    pub ix: NodeIx,
    /// Its name.
    pub id: NodeId,
    /// The shard that it belongs to.
    pub shard_id: NodeId,
    /// Where it is reached.
    pub address: Address,
    /// Empty without one.
    pub hostname: String,
    /// Empty without one.
    pub human_name: String,
    /// Its role and its failures, as seen from here.
    pub flags: NodeFlags,
    /// Whom it replicates.
    pub primary: Option<NodeId>,
    /// Its primary's for a replica.
    pub config_epoch: u64,
    /// The link state of CLUSTER NODES: whether our link to it is open.
    pub connected: bool,
    /// Own slots, both ends included; none for replicas.
    pub slots: Vec<(u16, u16)>,
    /// Bytes of the replication stream that it has written or applied, as last heard.
    pub replication_offset: u64,
}

impl NodeInfo {
    /// Whether it has the role of a replica.
    pub fn is_replica(&self) -> bool {
        self.flags.has(NodeFlags::SLAVE)
    }

    /// Whether it is FAIL.
    pub fn has_failed(&self) -> bool {
        self.flags.has(NodeFlags::FAIL)
    }

    /// `health` of CLUSTER SHARDS. A replica that never synchronised is `loading`.
    pub fn health(&self) -> &'static str {
        if self.flags.has(NodeFlags::FAIL | NodeFlags::PFAIL) {
            "fail"
        } else if self.is_replica() && self.replication_offset == 0 {
            "loading"
        } else {
            "online"
        }
    }
}

/// One row of CLUSTER SLOTS: the primary, then its replicas that have data and have not failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotRange {
    /// First slot.
    pub start: u16,
    /// Last slot, included.
    pub end: u16,
    /// The primary first.
    pub nodes: Vec<NodeInfo>,
}

/// One row of CLUSTER SHARDS, the primary first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Ranges of slots, both ends included.
    pub slots: Vec<(u16, u16)>,
    /// All nodes of the shard, failed ones included.
    pub nodes: Vec<NodeInfo>,
}

/// The figures of CLUSTER INFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// `cluster_state:ok`.
    pub ok: bool,
    /// Slots that have an owner.
    pub slots_assigned: u32,
    /// Slots whose owner is neither PFAIL nor FAIL.
    pub slots_ok: u32,
    /// Slots whose owner is PFAIL.
    pub slots_pfail: u32,
    /// Slots whose owner is FAIL.
    pub slots_fail: u32,
    /// All nodes known here, this one included.
    pub known_nodes: usize,
    /// Primaries with slots.
    pub size: usize,
    /// The greatest epoch seen.
    pub current_epoch: u64,
    /// The config epoch of this node, or of its primary.
    pub my_epoch: u64,
    /// Packets sent and received.
    pub stats: Stats,
}

/// One row of CLUSTER LINKS; the driver knows the buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// The id of the link.
    pub link: LinkId,
    /// Whether the peer opened it.
    pub inbound: bool,
    /// Who is at the other end.
    pub node: NodeId,
    /// When it was opened, in milliseconds since 1970.
    pub created: UnixMs,
}

impl ClusterState {
    /// The name of this node.
    pub fn my_id(&self) -> NodeId {
        self.me().id
    }

    /// The shard that this node belongs to.
    pub fn my_shard_id(&self) -> NodeId {
        self.me().shard.id
    }

    /// Where the primary is that this node replicates.
    pub fn my_primary(&self) -> Option<Address> {
        self.me().primary.map(|p| self.nodes[p].address.clone())
    }

    /// Whether this node is a replica.
    pub fn is_replica(&self) -> bool {
        self.me().is_replica()
    }

    /// Whether the cluster serves commands, as seen from here.
    pub fn is_ok(&self) -> bool {
        self.down.is_none()
    }

    /// The greatest epoch seen.
    pub fn current_epoch(&self) -> u64 {
        self.current_epoch
    }

    /// The epoch of the last vote that this node cast.
    pub fn last_vote_epoch(&self) -> u64 {
        self.last_vote_epoch
    }

    /// The settings in force.
    pub fn config(&self) -> &super::config::Config {
        &self.config
    }

    /// The name of a slot's owner.
    pub fn slot_owner(&self, slot: u16) -> Option<NodeId> {
        self.slots.owner(slot).map(|ix| self.nodes[ix].id)
    }

    /// What reports show of a node that is known.
    pub fn node_info(&self, ix: NodeIx) -> NodeInfo {
        let node = &self.nodes[ix];
        NodeInfo {
            ix,
            id: node.id,
            shard_id: node.shard.id,
            address: node.address.clone(),
            hostname: node.hostname.clone(),
            human_name: node.human_name.clone(),
            flags: node.flags,
            primary: node.primary.map(|p| self.nodes[p].id),
            config_epoch: self.nodes[node.primary.unwrap_or(ix)].config_epoch,
            connected: self.is_connected(ix),
            slots: node.slots.ranges(),
            replication_offset: if ix == MYSELF { self.facts.offset } else { node.repl_offset },
        }
    }

    /// What reports show of this node.
    pub fn my_info(&self) -> NodeInfo {
        self.node_info(MYSELF)
    }

    /// Every node, in the order of names.
    pub fn node_infos(&self) -> Vec<NodeInfo> {
        self.nodes.by_name().map(|(ix, _)| self.node_info(ix)).collect()
    }

    /// Slots that are on their way from or to this node, ascending.
    pub fn open_slots(&self) -> Vec<u16> {
        let mut slots: Vec<u16> =
            self.slots.migrating.keys().chain(self.slots.importing.keys()).copied().collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// CLUSTER REPLICAS: lines as of CLUSTER NODES.
    pub fn replicas_lines(&self, id: &NodeId, tls: bool) -> Result<Vec<String>, String> {
        let ix = self.nodes.find(id).ok_or_else(|| format!("ERR Unknown node {id}"))?;
        if self.nodes[ix].is_replica() {
            return Err("ERR The specified node is not a master".into());
        }
        Ok(self.nodes.replicas_of(ix).map(|(r, _)| self.node_line(r, tls)).collect())
    }

    /// CLUSTER SLOTS, ascending.
    pub fn slot_ranges(&self) -> Vec<SlotRange> {
        let mut rows: Vec<(u16, u16, NodeIx)> = self
            .nodes
            .iter()
            .flat_map(|(ix, n)| n.slots.ranges().into_iter().map(move |(start, end)| (start, end, ix)))
            .collect();
        rows.sort_unstable();
        rows.into_iter()
            .map(|(start, end, owner)| {
                let replicas = self.nodes.replicas_of(owner).map(|(ix, _)| self.node_info(ix));
                let mut nodes = vec![self.node_info(owner)];
                nodes.extend(replicas.filter(|r| !r.has_failed() && r.replication_offset > 0));
                SlotRange { start, end, nodes }
            })
            .collect()
    }

    /// CLUSTER SHARDS: a shard is a primary with its replicas.
    pub fn shards(&self) -> Vec<Shard> {
        let heads = self.nodes.by_name().filter(|(_, n)| !n.in_handshake() && n.primary.is_none());
        heads
            .map(|(head, n)| Shard {
                slots: n.slots.ranges(),
                nodes: std::iter::once(head)
                    .chain(self.nodes.replicas_of(head).map(|(ix, _)| ix))
                    .map(|ix| self.node_info(ix))
                    .collect(),
            })
            .collect()
    }

    /// Counts slots by the state of their owners.
    pub fn info(&self) -> Info {
        let mut info = Info {
            ok: self.is_ok(),
            slots_assigned: 0,
            slots_ok: 0,
            slots_pfail: 0,
            slots_fail: 0,
            known_nodes: self.nodes.len(),
            size: self.nodes.iter().filter(|(_, n)| n.is_voting()).count(),
            current_epoch: self.current_epoch,
            my_epoch: self.nodes[self.my_shards_primary()].config_epoch,
            stats: self.stats,
        };
        for (_, node) in self.nodes.iter() {
            info.slots_assigned += node.slot_count;
            if node.has_failed() {
                info.slots_fail += node.slot_count;
            } else if node.is_suspected() {
                info.slots_pfail += node.slot_count;
            } else {
                info.slots_ok += node.slot_count;
            }
        }
        info
    }

    /// Whether a connection that was asked for is still wanted.
    pub fn wants_link(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether there is a node of this name.
    pub fn knows(&self, id: &NodeId) -> bool {
        self.nodes.find(id).is_some()
    }

    /// The open links whose peer is known.
    pub fn links(&self) -> Vec<LinkInfo> {
        self.links
            .iter()
            .filter(|(_, l)| l.up)
            .filter_map(|(id, l)| {
                let node = self.nodes.get(l.node?)?.id;
                let created = self.now.to_unix(l.created);
                Some(LinkInfo { link: *id, inbound: id.is_inbound(), node, created })
            })
            .collect()
    }

    /// What workers shall see from now on.
    pub fn view(&self) -> Arc<View> {
        let primary = self.me().primary;
        let mut slots: Box<[SlotView; SLOTS]> =
            vec![SlotView::UNBOUND; SLOTS].try_into().expect("as many as there are slots");
        for (slot, view) in slots.iter_mut().enumerate() {
            let owner = self.slots.owner(slot as u16);
            *view = SlotView::new(owner, owner == Some(MYSELF), owner.is_some() && owner == primary);
        }
        for slot in self.slots.migrating.keys() {
            slots[usize::from(*slot)].mark_migrating();
        }
        for slot in self.slots.importing.keys() {
            slots[usize::from(*slot)].mark_importing();
        }
        let view_node = |node: &Node| ViewNode {
            id: node.id,
            ip: node.address.ip.clone(),
            hostname: node.hostname.clone(),
            port: node.address.port_of(self.config.tls, false),
            tls_port: node.address.port_of(self.config.tls, true),
        };
        let count = self.nodes.iter().map(|(ix, _)| usize::from(ix.0) + 1).max().unwrap_or(0);
        let nodes = (0..count).map(|i| self.nodes.get(NodeIx(i as u16)).map(view_node)).collect();
        Arc::new(View {
            slots,
            nodes,
            myself: self.my_id(),
            shard_id: self.my_shard_id(),
            config_epoch: self.me().config_epoch,
            primary,
            is_replica: self.is_replica(),
            down: self.down,
            migrating_to: self.slots.migrating.iter().map(|(s, n)| (*s, *n)).collect(),
            allow_reads_when_down: self.config.allow_reads_when_down,
            allow_pubsubshard_when_down: self.config.allow_pubsubshard_when_down,
            preferred_endpoint: self.config.preferred_endpoint,
        })
    }
}

impl Info {
    /// The text of CLUSTER INFO; lines end with CR LF.
    pub fn text(&self, links_over_limit: u64) -> String {
        let mut text = format!(
            "cluster_state:{}\r\ncluster_slots_assigned:{}\r\ncluster_slots_ok:{}\r\n\
             cluster_slots_pfail:{}\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{}\r\n\
             cluster_size:{}\r\ncluster_current_epoch:{}\r\ncluster_my_epoch:{}\r\n",
            if self.ok { "ok" } else { "fail" },
            self.slots_assigned,
            self.slots_ok,
            self.slots_pfail,
            self.slots_fail,
            self.known_nodes,
            self.size,
            self.current_epoch,
            self.my_epoch,
        );
        let directions = [
            ("sent", &self.stats.sent, self.stats.total_sent()),
            ("received", &self.stats.received, self.stats.total_received()),
        ];
        for (direction, counts, total) in directions {
            for kind in Kind::ALL {
                let count = counts[kind as usize];
                if count > 0 {
                    let _ = write!(text, "cluster_stats_messages_{}_{direction}:{count}\r\n", kind.name());
                }
            }
            let _ = write!(text, "cluster_stats_messages_{direction}:{total}\r\n");
        }
        let _ = write!(text, "total_cluster_links_buffer_limit_exceeded:{links_over_limit}\r\n");
        text
    }
}
