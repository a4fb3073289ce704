//! The text of nodes.conf, which is also that of CLUSTER NODES: a line per node, and what must survive
//! a restart. Real Redis reads what we write, and the other way round.
//!
//! ```text
//! <id> <ip:port@cport[,hostname]> <flags> <primary|-> <ping-sent> <pong-received> <epoch> <link> <slots...>
//! vars currentEpoch 6 lastVoteEpoch 5 myShardId <id>
//! ```
//!
//! Redis 7.2 adds `,shard-id=<id>` to every address; 7.0 would take that for a part of the host name.
//! So we read it and keep our own shard id among the variables, of which all versions skip unknown ones.

use std::fmt::Write as _;

use super::action::Now;
use super::config::Config;
use super::message::is_host_name;
use super::node::{MYSELF, Node, NodeFlags, NodeId, NodeIx};
use super::state::ClusterState;
use crate::base::crc16::SLOTS;
use crate::base::rng::Rng;

/// Why a nodes.conf cannot be used. A node that started without it would vote twice, so it must not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct NodesConfError {
    pub line: usize,
    pub what: &'static str,
}

impl ClusterState {
    /// CLUSTER NODES.
    pub fn nodes_text(&self) -> String {
        let mut text = String::new();
        for (ix, _) in self.nodes.by_name() {
            self.write_node_line(ix, &mut text);
            text.push('\n');
        }
        text
    }

    /// One line of CLUSTER NODES, without its end.
    pub fn node_line(&self, ix: NodeIx) -> String {
        let mut text = String::new();
        self.write_node_line(ix, &mut text);
        text
    }

    /// The whole of nodes.conf.
    pub fn nodes_conf(&self) -> String {
        let mut text = String::new();
        for (ix, node) in self.nodes.by_name() {
            if !node.in_handshake() {
                self.write_node_line(ix, &mut text);
                text.push('\n');
            }
        }
        let (epoch, vote, shard) = (self.current_epoch, self.last_vote_epoch, self.me().shard_id);
        let _ = writeln!(text, "vars currentEpoch {epoch} lastVoteEpoch {vote} myShardId {shard}");
        text
    }

    fn write_node_line(&self, ix: NodeIx, text: &mut String) {
        let node = &self.nodes[ix];
        let address = &node.address;
        let _ = write!(text, "{} {}:{}@{}", node.id, address.ip, address.port, address.cport);
        if !node.hostname.is_empty() {
            let _ = write!(text, ",{}", node.hostname);
        }
        let primary = node.primary.map_or("-", |p| self.nodes[p].id.as_str());
        let ping_sent = self.now.to_unix(node.ping_sent.unwrap_or(0));
        let pong_received = self.now.to_unix(node.pong_received);
        let epoch = self.nodes[node.primary.unwrap_or(ix)].config_epoch;
        let link = if self.is_connected(ix) { "connected" } else { "disconnected" };
        let flags = node.flags.text();
        let _ = write!(text, " {flags} {primary} {ping_sent} {pong_received} {epoch} {link}");
        for (start, end) in node.slots.ranges() {
            let _ = if start == end { write!(text, " {start}") } else { write!(text, " {start}-{end}") };
        }
        if ix == MYSELF {
            for (slot, target) in &self.slots.migrating {
                let _ = write!(text, " [{slot}->-{}]", self.nodes[*target].id);
            }
            for (slot, source) in &self.slots.importing {
                let _ = write!(text, " [{slot}-<-{}]", self.nodes[*source].id);
            }
        }
    }

    pub(super) fn is_connected(&self, ix: NodeIx) -> bool {
        ix == MYSELF || self.nodes[ix].outbound.is_some_and(|l| self.links.get(&l).is_some_and(|l| l.up))
    }

    /// A node that continues where its nodes.conf ends.
    pub fn load(config: Config, rng: Rng, now: Now, text: &str) -> Result<Self, NodesConfError> {
        let mut state = Self::new(Config::default(), rng, now);
        let lines: Vec<(usize, Vec<&str>)> = text
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line.split_ascii_whitespace().collect::<Vec<_>>()))
            .filter(|(_, words)| !words.is_empty())
            .collect();
        // All nodes first: lines refer to nodes of later lines.
        let mut myself = false;
        for (line, words) in lines.iter().filter(|(_, w)| w[0] != "vars") {
            myself |= state.load_node(words).map_err(|what| NodesConfError { line: *line, what })?;
        }
        if !myself {
            return Err(NodesConfError { line: lines.len(), what: "no line of this node (flag myself)" });
        }
        for (line, words) in &lines {
            let loaded =
                if words[0] == "vars" { state.load_vars(words) } else { state.load_relations(words) };
            loaded.map_err(|what| NodesConfError { line: *line, what })?;
        }
        let highest = state.nodes.iter().map(|(_, n)| n.config_epoch).max().unwrap_or(0);
        state.current_epoch = state.current_epoch.max(highest);
        state.out.clear();
        state.set_config(now, config);
        Ok(state)
    }

    /// Identity, address and flags. True for the line of this node.
    fn load_node(&mut self, words: &[&str]) -> Result<bool, &'static str> {
        if words.len() < 8 {
            return Err("too few fields");
        }
        let id = NodeId::parse(words[0].as_bytes()).ok_or("node id")?;
        let mut flags = NodeFlags::parse(words[2]).ok_or("flags")?;
        let myself = flags.has(NodeFlags::MYSELF);
        let ix = if myself {
            if self.nodes.find(&id) != Some(MYSELF) {
                if self.nodes.find(&id).is_some() {
                    return Err("node listed twice");
                }
                self.nodes.rename(MYSELF, id);
            }
            MYSELF
        } else {
            if self.nodes.find(&id).is_some() {
                return Err("node listed twice");
            }
            let node = Node::new(id, id, NodeFlags::NONE, self.now.mono);
            self.nodes.insert(node).ok_or("too many nodes")?
        };
        // A failure is kept, suspicion is for us to form anew.
        flags.clear(NodeFlags::PFAIL | NodeFlags::HANDSHAKE);
        if !flags.has(NodeFlags::MASTER | NodeFlags::SLAVE) && myself {
            flags.set(NodeFlags::MASTER);
        }
        let now = self.now;
        let node = &mut self.nodes[ix];
        node.flags = flags;
        if flags.has(NodeFlags::FAIL) {
            node.fail_time = now.mono;
        }
        if words[5] != "0" {
            node.pong_received = now.mono;
        }
        let epoch: u64 = words[6].parse().map_err(|_| "config epoch")?;
        if flags.has(NodeFlags::MASTER) || words[3] == "-" {
            node.config_epoch = epoch;
        }
        let mut parts = words[1].split(',');
        let (ip, port, cport) = parse_address(parts.next().unwrap_or_default()).ok_or("address")?;
        node.address.ip = ip;
        node.address.port = port;
        node.address.cport = cport;
        if let Some(hostname) = parts.next().filter(|h| is_host_name(h)) {
            hostname.clone_into(&mut node.hostname);
        }
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            match key {
                "shard-id" => node.shard_id = NodeId::parse(value.as_bytes()).ok_or("shard id")?,
                "nodename" => value.clone_into(&mut node.human_name),
                // Fields of later versions.
                _ => {}
            }
        }
        Ok(myself)
    }

    /// Whose replica a node is, and its slots.
    fn load_relations(&mut self, words: &[&str]) -> Result<(), &'static str> {
        let id = NodeId::parse(words[0].as_bytes()).ok_or("node id")?;
        let ix = self.nodes.find(&id).ok_or("node id")?;
        if words[3] != "-" {
            let primary = NodeId::parse(words[3].as_bytes()).ok_or("primary's id")?;
            // Redis creates a node for a primary that has no line; so do we, without an address.
            let primary = match self.nodes.find(&primary) {
                Some(primary) => primary,
                None => {
                    let flags = NodeFlags::MASTER | NodeFlags::NOADDR;
                    let node = Node::new(primary, primary, flags, self.now.mono);
                    self.nodes.insert(node).ok_or("too many nodes")?
                }
            };
            if primary == ix {
                return Err("a node replicates itself");
            }
            self.set_primary_of(ix, Some(primary));
        }
        for word in &words[8..] {
            self.load_slots(ix, word)?;
        }
        Ok(())
    }

    fn load_slots(&mut self, ix: NodeIx, word: &str) -> Result<(), &'static str> {
        if let Some(inner) = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
            let (slot, rest) = inner.split_once('-').ok_or("moving slot")?;
            let slot = parse_slot(slot).ok_or("moving slot")?;
            let (migrating, id) = match rest.split_at_checked(2) {
                Some((">-", id)) => (true, id),
                Some(("<-", id)) => (false, id),
                _ => return Err("moving slot"),
            };
            let id = NodeId::parse(id.as_bytes()).ok_or("node id of a moving slot")?;
            let other = match self.nodes.find(&id) {
                Some(other) => other,
                None => {
                    let node = Node::new(id, id, NodeFlags::MASTER | NodeFlags::NOADDR, self.now.mono);
                    self.nodes.insert(node).ok_or("too many nodes")?
                }
            };
            if migrating {
                self.slots.migrating.insert(slot, other);
            } else {
                self.slots.importing.insert(slot, other);
            }
            return Ok(());
        }
        let (start, end) = word.split_once('-').unwrap_or((word, word));
        let (start, end) = (parse_slot(start).ok_or("slot")?, parse_slot(end).ok_or("slot")?);
        for slot in start..=end {
            // The migrating mark of a slot is dropped when its owner changes; it is read after the slots.
            self.set_slot_owner(slot, Some(ix));
        }
        Ok(())
    }

    fn load_vars(&mut self, words: &[&str]) -> Result<(), &'static str> {
        for pair in words[1..].chunks(2) {
            let [key, value] = pair else { return Err("variable without a value") };
            match *key {
                "currentEpoch" => self.current_epoch = value.parse().map_err(|_| "currentEpoch")?,
                "lastVoteEpoch" => self.last_vote_epoch = value.parse().map_err(|_| "lastVoteEpoch")?,
                "myShardId" => {
                    let shard_id = NodeId::parse(value.as_bytes()).ok_or("myShardId")?;
                    // A replica's is its primary's.
                    let ix = self.my_shards_primary();
                    self.set_shard_id(ix, shard_id);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn parse_slot(text: &str) -> Option<u16> {
    text.parse().ok().filter(|slot| usize::from(*slot) < SLOTS)
}

/// `ip:port@cport`; the ip may be empty or contain colons, `@cport` may be missing.
fn parse_address(text: &str) -> Option<(String, u16, u16)> {
    let (ip, ports) = text.rsplit_once(':')?;
    let (port, cport) = match ports.split_once('@') {
        Some((port, cport)) => (port.parse().ok()?, cport.parse().ok()?),
        None => {
            let port: u16 = ports.parse().ok()?;
            (port, port.checked_add(10_000)?)
        }
    };
    Some((ip.to_owned(), port, cport))
}
