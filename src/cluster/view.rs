//! What workers see of the cluster: immutable, published whole, read with one load a command.

use super::config::Endpoint;
use super::node::{NodeId, NodeIx};
use crate::base::crc16::SLOTS;

/// One slot as workers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotView {
    owner: u16,
    marks: u16,
}

const NO_OWNER: u16 = u16::MAX;
const MINE: u16 = 1;
const MIGRATING: u16 = 2;
const IMPORTING: u16 = 4;
const MY_PRIMARYS: u16 = 8;

impl SlotView {
    /// A slot without owner.
    pub const UNBOUND: Self = Self { owner: NO_OWNER, marks: 0 };

    /// The primary that serves it; `None` while nobody does.
    pub fn owner(self) -> Option<NodeIx> {
        (self.owner != NO_OWNER).then_some(NodeIx(self.owner))
    }

    /// This node owns it.
    #[inline]
    pub fn is_mine(self) -> bool {
        self.marks & MINE != 0
    }

    /// This node owns it and nobody moves it, so that all its keys are here: the common case of the data
    /// path, one test.
    #[inline]
    pub fn is_settled_here(self) -> bool {
        self.marks & (MINE | MIGRATING | IMPORTING) == MINE
    }

    /// An administrator moves it, so that its keys are here or elsewhere.
    #[inline]
    pub fn is_moving(self) -> bool {
        self.marks & (MIGRATING | IMPORTING) != 0
    }

    /// This node owns it and an administrator moves it away: keys that are gone are at the target (ASK).
    pub fn is_migrating(self) -> bool {
        self.marks & MIGRATING != 0
    }

    /// An administrator moves it here: served to clients that say ASKING.
    pub fn is_importing(self) -> bool {
        self.marks & IMPORTING != 0
    }

    /// The primary that this node replicates owns it: served to clients that said READONLY.
    pub fn is_my_primarys(self) -> bool {
        self.marks & MY_PRIMARYS != 0
    }

    pub(super) fn new(owner: Option<NodeIx>, mine: bool, my_primarys: bool) -> Self {
        Self {
            owner: owner.map_or(NO_OWNER, |n| n.0),
            marks: if mine { MINE } else { 0 } | if my_primarys { MY_PRIMARYS } else { 0 },
        }
    }

    pub(super) fn mark_migrating(&mut self) {
        self.marks |= MIGRATING;
    }

    pub(super) fn mark_importing(&mut self) {
        self.marks |= IMPORTING;
    }
}

/// Why the cluster does not serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Down {
    /// A slot has no owner, or its owner failed, and full coverage is required.
    Uncovered,
    /// Less than half of the primaries are reachable from here.
    Minority,
    /// Start, or the delay before serving again after a minority.
    Waiting,
}

/// A node's addresses for clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewNode {
    /// Name of the node.
    pub id: NodeId,
    /// Address; empty while unknown.
    pub ip: String,
    /// Empty where the node announces none.
    pub hostname: String,
    /// The port for clients.
    pub port: u16,
    /// The one for clients that speak TLS.
    pub tls_port: u16,
}

/// The cluster at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// By slot number.
    pub slots: Box<[SlotView; SLOTS]>,
    /// By [`NodeIx`]; `None` for places that no node has.
    pub nodes: Vec<Option<ViewNode>>,
    /// Name of this node.
    pub myself: NodeId,
    /// Name of its shard.
    pub shard_id: NodeId,
    /// Own config epoch: which of two claims to a slot is newer.
    pub config_epoch: u64,
    /// Whom this node replicates.
    pub primary: Option<NodeIx>,
    /// Whether this node is a replica, of a known primary or not.
    pub is_replica: bool,
    /// `None`: `cluster_state:ok`.
    pub down: Option<Down>,
    /// Targets of migrating slots, ascending by slot.
    pub migrating_to: Vec<(u16, NodeIx)>,
    /// Directive `cluster-allow-reads-when-down`.
    pub allow_reads_when_down: bool,
    /// Directive `cluster-allow-pubsubshard-when-down`.
    pub allow_pubsubshard_when_down: bool,
    /// Directive `cluster-preferred-endpoint-type`.
    pub preferred_endpoint: Endpoint,
}

impl View {
    /// What is known of one slot. Numbers beyond the last slot wrap around.
    #[inline]
    pub fn slot(&self, slot: u16) -> SlotView {
        self.slots[usize::from(slot) % SLOTS]
    }

    /// Whether whatever concerns this slot is served here, whoever asks.
    #[inline]
    pub fn serves(&self, slot: u16) -> bool {
        self.is_ok() && self.slot(slot).is_settled_here()
    }

    /// `cluster_state:ok`.
    pub fn is_ok(&self) -> bool {
        self.down.is_none()
    }

    /// The addresses of a node; `None` if there is none at that place.
    pub fn node(&self, ix: NodeIx) -> Option<&ViewNode> {
        self.nodes.get(usize::from(ix.0))?.as_ref()
    }

    /// Where the keys of a migrating slot go.
    pub fn migrating_target(&self, slot: u16) -> Option<NodeIx> {
        let at = self.migrating_to.binary_search_by_key(&slot, |(s, _)| *s).ok()?;
        Some(self.migrating_to[at].1)
    }

    /// `host:port` of MOVED and ASK, with the port for clients that speak TLS or that do not. The host is empty
    /// where the client shall keep the one that it used, and `?` where a host name is wanted and none is announced.
    pub fn endpoint(&self, ix: NodeIx, tls: bool) -> Option<String> {
        let node = self.node(ix)?;
        let host = match self.preferred_endpoint {
            Endpoint::Ip => node.ip.as_str(),
            Endpoint::Hostname if node.hostname.is_empty() => "?",
            Endpoint::Hostname => node.hostname.as_str(),
            Endpoint::Unknown => "",
        };
        Some(format!("{host}:{}", if tls { node.tls_port } else { node.port }))
    }

    /// `MOVED 12182 127.0.0.1:7000`, without the leading dash.
    pub fn moved(&self, slot: u16, tls: bool) -> Option<String> {
        Some(format!("MOVED {slot} {}", self.endpoint(self.slot(slot).owner()?, tls)?))
    }

    /// `ASK 12182 127.0.0.1:7000`, without the leading dash.
    pub fn ask(&self, slot: u16, tls: bool) -> Option<String> {
        Some(format!("ASK {slot} {}", self.endpoint(self.migrating_target(slot)?, tls)?))
    }
}
