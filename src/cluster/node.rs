//! A node as this node knows it: identity, flags, addresses, role, and what was heard of it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{BitOr, Index, IndexMut};

use super::link::LinkId;
use super::slots::SlotBitmap;
use crate::base::hex::random_digit;
use crate::base::rng::Rng;
use crate::base::time::MonoMs;

/// Length of a node id (and of a shard id) in hexadecimal characters.
pub const ID_LEN: usize = 40;

/// Name of a node or of a shard: 40 lower-case hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; ID_LEN]);

impl NodeId {
    /// On the wire, a node without a primary names this one: 40 zero bytes.
    pub const NULL_BYTES: [u8; ID_LEN] = [0; ID_LEN];

    /// A new name, drawn from `rng`.
    pub fn random(rng: &mut Rng) -> Self {
        let mut id = [0; ID_LEN];
        for c in &mut id {
            *c = random_digit(rng);
        }
        Self(id)
    }

    /// `None` unless `text` is 40 hexadecimal characters (capitals are accepted and kept low).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let id: [u8; ID_LEN] = text.try_into().ok()?;
        id.iter().all(u8::is_ascii_hexdigit).then(|| Self(id.map(|c| c.to_ascii_lowercase())))
    }

    /// The 40 characters as the wire carries them.
    pub fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }

    /// The 40 characters as texts show them.
    pub fn as_str(&self) -> &str {
        // All constructors leave only hexadecimal characters.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str()[..8])
    }
}

/// Node flags with their values on the wire (Redis Cluster bus, protocol version 1).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeFlags(pub u16);

impl NodeFlags {
    /// No flag at all.
    pub const NONE: Self = Self(0);
    /// A primary.
    pub const MASTER: Self = Self(1);
    /// A replica.
    pub const SLAVE: Self = Self(2);
    /// Not reachable from here for longer than the node timeout.
    pub const PFAIL: Self = Self(4);
    /// A majority of primaries could not reach it.
    pub const FAIL: Self = Self(8);
    /// The node that says so.
    pub const MYSELF: Self = Self(16);
    /// Its name is not known yet: we still wait for its first PONG.
    pub const HANDSHAKE: Self = Self(32);
    /// No address is known at which it could be reached.
    pub const NOADDR: Self = Self(64);
    /// Our first packet to it must be a MEET.
    pub const MEET: Self = Self(128);
    /// A primary that may receive a migrating replica: it has or had replicas.
    pub const MIGRATE_TO: Self = Self(256);
    /// A replica that never stands for election (`cluster-replica-no-failover`).
    pub const NOFAILOVER: Self = Self(512);

    /// Whether at least one of these flags is set.
    pub const fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    /// Sets these flags and leaves the others.
    pub fn set(&mut self, flags: Self) {
        self.0 |= flags.0;
    }

    /// Clears these flags and leaves the others.
    pub fn clear(&mut self, flags: Self) {
        self.0 &= !flags.0;
    }

    /// Sets these flags if `on`, otherwise clears them.
    pub fn put(&mut self, flags: Self, on: bool) {
        if on { self.set(flags) } else { self.clear(flags) }
    }

    /// The flags that are in `mask` as well.
    pub const fn only(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    /// The comma-separated text of CLUSTER NODES and nodes.conf.
    pub fn text(self) -> String {
        let names: Vec<&str> =
            FLAG_NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect();
        if names.is_empty() { "noflags".into() } else { names.join(",") }
    }

    /// Reads what [`text`](Self::text) writes. `None` for an unknown word.
    pub fn parse(text: &str) -> Option<Self> {
        let mut flags = Self::NONE;
        for word in text.split(',') {
            if word == "noflags" {
                continue;
            }
            flags.set(FLAG_NAMES.iter().find(|(_, name)| *name == word)?.0);
        }
        Some(flags)
    }
}

/// In the order in which they are printed.
const FLAG_NAMES: [(NodeFlags, &str); 8] = [
    (NodeFlags::MYSELF, "myself"),
    (NodeFlags::MASTER, "master"),
    (NodeFlags::SLAVE, "slave"),
    (NodeFlags::PFAIL, "fail?"),
    (NodeFlags::FAIL, "fail"),
    (NodeFlags::HANDSHAKE, "handshake"),
    (NodeFlags::NOADDR, "noaddr"),
    (NodeFlags::NOFAILOVER, "nofailover"),
];

impl BitOr for NodeFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for NodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Place of a node in [`Nodes`]; small, stable while the node is known, reused after it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIx(pub u16);

/// This node's own place. It is created first and never forgotten.
pub const MYSELF: NodeIx = NodeIx(0);

/// Where a node is reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Address {
    /// Empty while unknown.
    pub ip: String,
    /// The port for clients: plain, or TLS with `tls-cluster`.
    pub port: u16,
    /// The other client port (plain or TLS) where a node has both; 0 without.
    pub pport: u16,
    /// Bus port.
    pub cport: u16,
}

impl Address {
    /// The port for clients that speak TLS, or for those that do not; 0 without. `main`: the first one is for TLS.
    pub fn port_of(&self, main: bool, tls: bool) -> u16 {
        if main == tls { self.port } else { self.pport }
    }
}

/// Which extensions behind the gossip section a node understands, as far as its packets have shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Extended {
    /// Nothing was heard: it is told everything.
    #[default]
    Unknown,
    /// A version before 7.2: it logs a warning for each other extension.
    HostnamesOnly,
    /// A version that tells what it understands.
    All,
}

/// The shard that a node belongs to. A replica's is always its primary's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// The shard's name, of the same form as a node's.
    pub id: NodeId,
    /// False while the id is our own invention, because no primary of the shard has told it. It is kept to
    /// ourselves: others have invented another one.
    pub told: bool,
}

impl Shard {
    /// For a node that has not told its shard yet.
    pub fn invented(node: NodeId) -> Self {
        Self { id: node, told: false }
    }

    /// As a node has told it.
    pub fn told(id: NodeId) -> Self {
        Self { id, told: true }
    }
}

/// What is known here of one node, this one included.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name; a random one until the first PONG tells it.
    pub id: NodeId,
    /// The shard that it belongs to.
    pub shard: Shard,
    /// Its role, and what is wrong with it.
    pub flags: NodeFlags,
    /// When it was first heard of, in monotonic milliseconds.
    pub created: MonoMs,
    /// Epoch of its latest claim to its slots.
    pub config_epoch: u64,
    /// The slots that it owns.
    pub slots: SlotBitmap,
    /// How many these are.
    pub slot_count: u32,
    /// Whom it replicates. `None` for primaries, and for replicas whose primary is not known here.
    pub primary: Option<NodeIx>,
    /// When the ping that is still unanswered left.
    pub ping_sent: Option<MonoMs>,
    /// Last PONG, own or heard of by gossip. 0: never.
    pub pong_received: MonoMs,
    /// Last packet of any kind. 0: never.
    pub data_received: MonoMs,
    /// When it was marked FAIL, in monotonic milliseconds.
    pub fail_time: MonoMs,
    /// When we last voted for a replica of this primary.
    pub voted_time: Option<MonoMs>,
    /// The replication offset that its last packet told, in bytes.
    pub repl_offset: u64,
    /// When `repl_offset` was heard. `None`: never.
    pub repl_offset_time: Option<MonoMs>,
    /// Since when this primary with slots has no working replica.
    pub orphaned_since: Option<MonoMs>,
    /// Where it is reached.
    pub address: Address,
    /// The host name that it announces; empty without.
    pub hostname: String,
    /// The name for people that it announces; empty without.
    pub human_name: String,
    /// What may be told to it beside gossip.
    pub extended: Extended,
    /// The link that we opened to it.
    pub outbound: Option<LinkId>,
    /// The link that it opened to us.
    pub inbound: Option<LinkId>,
    /// Primaries that told us that it fails, and when they last did.
    pub failure_reports: BTreeMap<NodeId, MonoMs>,
}

impl Node {
    /// A node of this name without slots and without address, first heard of at `now`.
    pub fn new(id: NodeId, flags: NodeFlags, now: MonoMs) -> Self {
        Self {
            id,
            shard: Shard::invented(id),
            flags,
            created: now,
            config_epoch: 0,
            slots: SlotBitmap::default(),
            slot_count: 0,
            primary: None,
            ping_sent: None,
            pong_received: 0,
            data_received: 0,
            fail_time: 0,
            voted_time: None,
            repl_offset: 0,
            repl_offset_time: None,
            orphaned_since: None,
            address: Address::default(),
            hostname: String::new(),
            human_name: String::new(),
            extended: Extended::Unknown,
            outbound: None,
            inbound: None,
            failure_reports: BTreeMap::new(),
        }
    }

    /// Whether it has the role of a primary, with or without slots.
    pub fn is_primary(&self) -> bool {
        self.flags.has(NodeFlags::MASTER)
    }

    /// Whether it has the role of a replica, of a known primary or not.
    pub fn is_replica(&self) -> bool {
        self.flags.has(NodeFlags::SLAVE)
    }

    /// A primary with slots: it counts for majorities and may vote.
    pub fn is_voting(&self) -> bool {
        self.is_primary() && self.slot_count > 0
    }

    /// Whether it is FAIL: a majority says so.
    pub fn has_failed(&self) -> bool {
        self.flags.has(NodeFlags::FAIL)
    }

    /// Whether it is PFAIL: we cannot reach it, others may.
    pub fn is_suspected(&self) -> bool {
        self.flags.has(NodeFlags::PFAIL)
    }

    /// Whether its name is still unknown.
    pub fn in_handshake(&self) -> bool {
        self.flags.has(NodeFlags::HANDSHAKE)
    }

    /// Whether it is this node.
    pub fn is_myself(&self) -> bool {
        self.flags.has(NodeFlags::MYSELF)
    }
}

/// All nodes known here. Indexing by a [`NodeIx`] of a forgotten node is our own bug and asserts.
#[derive(Clone, Debug)]
pub struct Nodes {
    slab: Vec<Option<Node>>,
    by_id: BTreeMap<NodeId, NodeIx>,
}

impl Nodes {
    /// Only this node, at [`MYSELF`].
    pub fn new(myself: Node) -> Self {
        let by_id = BTreeMap::from([(myself.id, MYSELF)]);
        Self { slab: vec![Some(myself)], by_id }
    }

    /// Number of nodes, this one and handshakes included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Never: this node is always among them.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The place of the node of this name.
    pub fn find(&self, id: &NodeId) -> Option<NodeIx> {
        self.by_id.get(id).copied()
    }

    /// `None` for the place of a forgotten node.
    pub fn get(&self, ix: NodeIx) -> Option<&Node> {
        self.slab.get(usize::from(ix.0))?.as_ref()
    }

    /// `None` when the table is full (65,535 nodes), which a hostile peer could try to cause.
    pub fn insert(&mut self, node: Node) -> Option<NodeIx> {
        assert!(!self.by_id.contains_key(&node.id), "node {} exists", node.id);
        let place = match self.slab.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slab.len() < usize::from(u16::MAX) => {
                self.slab.push(None);
                self.slab.len() - 1
            }
            None => return None,
        };
        let ix = NodeIx(place as u16);
        self.by_id.insert(node.id, ix);
        self.slab[place] = Some(node);
        Some(ix)
    }

    /// Forgets a node. Its place may be given to another.
    pub fn remove(&mut self, ix: NodeIx) -> Node {
        assert!(ix != MYSELF, "a node cannot forget itself");
        let node = self.slab[usize::from(ix.0)].take().expect("node is known");
        self.by_id.remove(&node.id);
        node
    }

    /// Gives a node its real name, after a handshake. The name must be new.
    pub fn rename(&mut self, ix: NodeIx, id: NodeId) {
        assert!(!self.by_id.contains_key(&id), "node {id} exists");
        let node = &mut self[ix];
        let old = std::mem::replace(&mut node.id, id);
        self.by_id.remove(&old);
        self.by_id.insert(id, ix);
    }

    /// In the order of places: the same for the same history.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIx, &Node)> {
        self.slab.iter().enumerate().filter_map(|(i, n)| n.as_ref().map(|n| (NodeIx(i as u16), n)))
    }

    /// As [`iter`](Self::iter), for changes.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (NodeIx, &mut Node)> {
        self.slab.iter_mut().enumerate().filter_map(|(i, n)| n.as_mut().map(|n| (NodeIx(i as u16), n)))
    }

    /// As [`get`](Self::get), for changes.
    pub fn get_mut(&mut self, ix: NodeIx) -> Option<&mut Node> {
        self.slab.get_mut(usize::from(ix.0))?.as_mut()
    }

    /// Places of all nodes, for loops that change them.
    pub fn places(&self) -> Vec<NodeIx> {
        self.iter().map(|(ix, _)| ix).collect()
    }

    /// In the order of names, as CLUSTER NODES and nodes.conf list them.
    pub fn by_name(&self) -> impl Iterator<Item = (NodeIx, &Node)> {
        self.by_id.values().map(|ix| (*ix, &self[*ix]))
    }

    /// Any node, this one included, each with the same chance.
    pub fn random(&self, rng: &mut Rng) -> NodeIx {
        loop {
            let ix = NodeIx(rng.below(self.slab.len() as u64) as u16);
            if self.get(ix).is_some() {
                return ix;
            }
        }
    }

    /// The nodes that replicate `primary`, failed ones included.
    pub fn replicas_of(&self, primary: NodeIx) -> impl Iterator<Item = (NodeIx, &Node)> {
        self.iter().filter(move |(_, n)| n.primary == Some(primary) && n.is_replica())
    }

    /// Replicas of `primary` that are not FAIL.
    pub fn working_replicas(&self, primary: NodeIx) -> usize {
        self.replicas_of(primary).filter(|(_, n)| !n.has_failed()).count()
    }
}

impl Index<NodeIx> for Nodes {
    type Output = Node;
    fn index(&self, ix: NodeIx) -> &Node {
        self.get(ix).expect("node is known")
    }
}

impl IndexMut<NodeIx> for Nodes {
    fn index_mut(&mut self, ix: NodeIx) -> &mut Node {
        self.slab.get_mut(usize::from(ix.0)).and_then(Option::as_mut).expect("node is known")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_the_order_of_cluster_nodes() {
        let flags = NodeFlags::SLAVE | NodeFlags::MYSELF | NodeFlags::FAIL | NodeFlags::NOFAILOVER;
        assert_eq!(flags.text(), "myself,slave,fail,nofailover");
        assert_eq!(NodeFlags::parse("myself,slave,fail,nofailover"), Some(flags));
        assert_eq!(NodeFlags::NONE.text(), "noflags");
        assert_eq!(NodeFlags::parse("noflags"), Some(NodeFlags::NONE));
        assert_eq!(NodeFlags::parse("master,bogus"), None);
    }

    #[test]
    fn a_place_is_reused_after_its_node_was_forgotten() {
        let mut rng = Rng::new(3);
        let mut fresh = || {
            let id = NodeId::random(&mut rng);
            Node::new(id, NodeFlags::MASTER, 0)
        };
        let mut nodes = Nodes::new(fresh());
        let a = nodes.insert(fresh()).unwrap();
        let b = nodes.insert(fresh()).unwrap();
        nodes.remove(a);
        assert_eq!(nodes.insert(fresh()), Some(a));
        assert_eq!((nodes.len(), nodes.find(&nodes[b].id)), (3, Some(b)));
    }
}
