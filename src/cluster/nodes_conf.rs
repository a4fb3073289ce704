//! The text of nodes.conf: a line per node, and what must survive a restart. Real Redis 7.4 writes and reads
//! the same; 7.0 reads it, too, and takes what follows the port for a host name until it hears the real one.
//!
//! ```text
//! <id> <ip:port@cport>,[hostname],tls-port=0[,nodename=<name>],shard-id=<id> <flags> <primary|->
//!     <ping-sent> <pong-received> <epoch> <link> <slots...>
//! vars currentEpoch 6 lastVoteEpoch 5
//! ```
//!
//! CLUSTER NODES shows the same lines, with no more than the host name behind the address.

use std::fmt::Write as _;

use super::action::{Action, Level, Now};
use super::config::Config;
use super::message::is_host_name;
use super::node::{MYSELF, Node, NodeFlags, NodeId, NodeIx, Shard};
use super::state::ClusterState;
use crate::base::crc16::SLOTS;
use crate::base::rng::Rng;

/// Why a nodes.conf cannot be used. A node that started without it would vote twice, so it must not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct NodesConfError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// What follows a node's address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Its host name, if it has one: CLUSTER NODES, for a client that speaks TLS or not.
    Shown { tls: bool },
    /// All that the file keeps.
    Kept,
}

impl ClusterState {
    /// CLUSTER NODES.
    pub fn nodes_text(&self, tls: bool) -> String {
        let mut text = String::new();
        for (ix, _) in self.nodes.by_name() {
            self.write_node_line(ix, Names::Shown { tls }, &mut text);
            text.push('\n');
        }
        text
    }

    /// One line of CLUSTER NODES, without its end.
    pub fn node_line(&self, ix: NodeIx, tls: bool) -> String {
        let mut text = String::new();
        self.write_node_line(ix, Names::Shown { tls }, &mut text);
        text
    }

    /// The whole of nodes.conf.
    pub fn nodes_conf(&self) -> String {
        let mut text = String::new();
        for (ix, node) in self.nodes.by_name() {
            if !node.in_handshake() {
                self.write_node_line(ix, Names::Kept, &mut text);
                text.push('\n');
            }
        }
        let (epoch, vote) = (self.current_epoch, self.last_vote_epoch);
        let _ = writeln!(text, "vars currentEpoch {epoch} lastVoteEpoch {vote}");
        text
    }

    fn write_node_line(&self, ix: NodeIx, names: Names, text: &mut String) {
        let node = &self.nodes[ix];
        let address = &node.address;
        let port = match names {
            Names::Shown { tls } => address.port_of(self.config.tls, tls),
            Names::Kept => address.port,
        };
        let _ = write!(text, "{} {}:{port}@{}", node.id, address.ip, address.cport);
        match names {
            Names::Shown { .. } if node.hostname.is_empty() => {}
            Names::Shown { .. } => {
                let _ = write!(text, ",{}", node.hostname);
            }
            Names::Kept => self.write_kept_names(node, text),
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

    fn write_kept_names(&self, node: &Node, text: &mut String) {
        let other_port = if self.config.tls { "tcp-port" } else { "tls-port" };
        let _ = write!(text, ",{},{other_port}={}", node.hostname, node.address.pport);
        if !node.human_name.is_empty() {
            let _ = write!(text, ",nodename={}", node.human_name);
        }
        let _ = write!(text, ",shard-id={}", node.shard.id);
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
        // Reading has queued actions as if all had just happened. Only the lines about what was mended are kept.
        state.out.retain(|action| matches!(action, Action::Log { .. }));
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
            let node = Node::new(id, NodeFlags::NONE, self.now.mono);
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
                "shard-id" => {
                    let shard_id = NodeId::parse(value.as_bytes()).ok_or("shard id")?;
                    // An id that was invented is that of the node itself (see `Shard::invented`).
                    node.shard = if shard_id == id { Shard::invented(id) } else { Shard::told(shard_id) };
                }
                "nodename" => value.clone_into(&mut node.human_name),
                "tls-port" | "tcp-port" => {
                    let other = value.parse().map_err(|_| "port")?;
                    let address = &mut node.address;
                    // `tls-cluster` was changed since: what was the other port is the first one now.
                    let is_first = (key == "tls-port") == self.config.tls;
                    (address.port, address.pport) =
                        if is_first { (other, address.port) } else { (address.port, other) };
                }
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
                    let node = Node::new(primary, flags, self.now.mono);
                    self.nodes.insert(node).ok_or("too many nodes")?
                }
            };
            if primary == ix {
                return Err("a node replicates itself");
            }
            self.load_shard(ix, primary);
            self.set_primary_of(ix, Some(primary));
        }
        for word in &words[8..] {
            self.load_slots(ix, word)?;
        }
        Ok(())
    }

    /// A replica is in its primary's shard. Where the file says otherwise, the primary's line is believed.
    fn load_shard(&mut self, replica: NodeIx, primary: NodeIx) {
        let (shard, own) = (self.nodes[primary].shard, self.nodes[replica].shard);
        if !own.told || own.id == shard.id {
            return;
        }
        if shard.told {
            let (replica, primary) = (self.nodes[replica].id, self.nodes[primary].id);
            let text = format!(
                "Replica {replica} was in shard {} in the cluster configuration file, its primary {primary} \
                 in {}. The replica is in its primary's shard now.",
                own.id, shard.id
            );
            self.log(Level::Warning, text);
        } else {
            self.set_shard(primary, own);
        }
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
                    let node = Node::new(id, NodeFlags::MASTER | NodeFlags::NOADDR, self.now.mono);
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
            // Only a damaged file names two owners; the first line is believed, as in Redis.
            if self.slots.owner(slot).is_none() {
                self.set_slot_owner(slot, Some(ix));
            }
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
                    // Earlier versions of Keystead kept this node's shard here. A replica's is its primary's.
                    let id = NodeId::parse(value.as_bytes()).ok_or("myShardId")?;
                    self.set_shard(self.my_shards_primary(), Shard::told(id));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NoKeys;

    const NOW: Now = Now { mono: 50_000, unix: 1_700_000_000_000 };

    const REDIS_7_0: &str = "\
ffffffffffffffffffffffffffffffffffffffff 127.0.0.1:7003@17003 slave 07c37dfeb235213a872192d90877d0cd55635b91 0 1426238317239 4 connected
07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:7001@17001,host-a.example myself,master - 0 0 4 connected 0-5460 5462 [5462->-292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f] [77-<-292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f]
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f ::1:7002@17002 master,fail - 1426238316232 1426238317500 2 disconnected 5461 5463-16383
vars currentEpoch 6 lastVoteEpoch 5
";

    fn load(text: &str) -> Result<ClusterState, NodesConfError> {
        ClusterState::load(Config::default(), Rng::new(1), NOW, text)
    }

    #[test]
    fn a_file_of_redis_7_0_is_understood() {
        let mut state = load(REDIS_7_0).unwrap();
        assert_eq!((state.current_epoch, state.last_vote_epoch), (6, 5));
        let infos = state.node_infos();
        let (me, other, replica) = (&infos[0], &infos[1], &infos[2]);
        assert_eq!((me.slots.clone(), me.config_epoch), (vec![(0, 5460), (5462, 5462)], 4));
        assert_eq!(me.address.ip, "127.0.0.1");
        assert_eq!((other.address.ip.as_str(), other.address.cport), ("::1", 17002));
        assert!(other.has_failed());
        assert_eq!((replica.primary, replica.config_epoch), (Some(me.id), 4));
        // Own port and host name follow the configuration; moving slots and all else are kept.
        let text = state.nodes_conf();
        assert!(
            text.contains(" 5462 [5462->-292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f] [77-<-292f8"),
            "{text}"
        );
        assert_eq!(load(&text).unwrap().nodes_conf(), text);
        // And it starts as what it was.
        assert!(!state.take_actions().iter().any(|a| matches!(a, super::super::Action::SetPrimary { .. })));
    }

    #[test]
    fn shard_ids_of_redis_7_2_are_read_and_our_own_is_kept() {
        let shard = "ab".repeat(20);
        let text = REDIS_7_0.replace(",host-a.example", &format!(",,tls-port=0,shard-id={shard}"));
        let state = load(&text).unwrap();
        assert_eq!(state.my_shard_id().as_str(), shard);
        let replica = &state.node_infos()[2];
        assert_eq!(replica.shard_id.as_str(), shard, "a replica is in its primary's shard");
        assert_eq!(load(&state.nodes_conf()).unwrap().my_shard_id().as_str(), shard);
    }

    /// As a node of 7.4.1 wrote it: with host names, human names and shards.
    const REDIS_7_4: &str = include_str!("../../tests/golden/nodes-7.4.conf");

    #[test]
    fn a_file_of_redis_7_4_reads_back_as_it_was_written() {
        let config = Config {
            port: 23712,
            bus_port: 34712,
            announce_hostname: Some("node-1.example.org".into()),
            announce_human_name: Some("human-1".into()),
            ..Config::default()
        };
        let state = ClusterState::load(config, Rng::new(1), NOW, REDIS_7_4).unwrap();
        // Times and the state of links are not configuration, and nodes stand in no order.
        let lasting = |text: &str| -> Vec<Vec<String>> {
            let mut lines: Vec<Vec<String>> = text
                .lines()
                .map(|line| {
                    let words = line.split(' ').map(str::to_owned).enumerate();
                    words.filter(|(i, _)| ![4, 5, 7].contains(i)).map(|(_, word)| word).collect()
                })
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(lasting(&state.nodes_conf()), lasting(REDIS_7_4));
        let shown = state.nodes_text(false);
        assert!(shown.contains("@34714,node-3.example.org master"), "{shown}");
        assert!(!shown.contains("shard-id="), "{shown}");
    }

    #[test]
    fn a_slot_that_two_lines_name_belongs_to_the_first() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let text = format!(
            "{a} 10.0.0.1:1@2 myself,master - 0 0 1 connected 0-9 [9->-{b}]\n\
             {b} 10.0.0.2:1@2 master - 0 0 2 connected 5-19\n\
             {c} 10.0.0.3:1@2 slave {b} 0 0 2 connected 0 20\n"
        );
        let kept = load(&text).unwrap().nodes_conf();
        assert!(kept.contains(&format!(" 0-9 [9->-{b}]\n")), "{kept}");
        assert!(kept.contains(" 10-19\n") && kept.contains(" 20\n"), "{kept}");
    }

    /// A real 7.4 does not start from such a file.
    #[test]
    fn a_replica_in_another_shard_than_its_primary_is_healed_and_logged() {
        let (shard, other) = ("56af011f2ca4e770b2d9c1bb5f7972bb9c20f442", "ab".repeat(20));
        for line in [0, 2] {
            let lines = REDIS_7_4.lines().enumerate();
            let text: Vec<String> =
                lines.map(|(i, l)| if i == line { l.replace(shard, &other) } else { l.into() }).collect();
            let mut state = load(&text.join("\n")).unwrap();
            let infos = state.node_infos();
            let (replica, primary) = (&infos[0], &infos[1]);
            assert_eq!(replica.primary, Some(primary.id));
            assert_eq!(replica.shard_id, primary.shard_id);
            let primarys = if line == 0 { shard } else { &other };
            assert_eq!(primary.shard_id.as_str(), primarys, "the primary's line is believed");
            let logged = state.take_actions().iter().any(
                |a| matches!(a, Action::Log { level: Level::Warning, text } if text.contains("was in shard")),
            );
            assert!(logged);
        }
        let mut whole = load(REDIS_7_4).unwrap();
        assert!(!whole.take_actions().iter().any(|a| matches!(a, Action::Log { .. })));
        // A primary's line without a shard: its replica's says which.
        let text = REDIS_7_4.replacen(&format!("human-3,shard-id={shard}"), "human-3", 1);
        let infos = load(&text).unwrap().node_infos();
        assert_eq!((infos[0].shard_id.as_str(), infos[1].shard_id.as_str()), (shard, shard));
    }

    #[test]
    fn the_shard_of_a_file_of_our_first_version_is_kept() {
        let shard = "cd".repeat(20);
        let text = format!("{} myShardId {shard}\n", REDIS_7_0.trim_end());
        let state = load(&text).unwrap();
        assert_eq!(state.my_shard_id().as_str(), shard);
        assert_eq!(state.node_infos()[2].shard_id.as_str(), shard, "its replica's");
    }

    #[test]
    fn a_damaged_file_is_an_error_with_its_line() {
        for (good, bad, line, what) in [
            ("connected 0-5460", "connected 0-99999", 2, "slot"),
            ("myself,master", "master", 4, "no line of this node (flag myself)"),
            ("master,fail", "master,fial", 3, "flags"),
            ("currentEpoch 6", "currentEpoch x", 4, "currentEpoch"),
            ("::1:7002@17002", "::1:7002@170020", 3, "address"),
        ] {
            let text = REDIS_7_0.replace(good, bad);
            assert_eq!(load(&text).err(), Some(NodesConfError { line, what }), "{bad}");
        }
        assert!(load("vars currentEpoch").is_err());
    }

    #[test]
    fn no_text_makes_it_panic() {
        let mut rng = Rng::new(9);
        for _ in 0..2000 {
            let mut text = REDIS_7_0.as_bytes().to_vec();
            for _ in 0..=rng.below(6) {
                let at = rng.below(text.len() as u64) as usize;
                match rng.below(3) {
                    0 => text[at] = b" \n-,:@[]0a"[rng.below(10) as usize],
                    1 => {
                        text.remove(at);
                    }
                    _ => text.truncate(at + 1),
                }
            }
            let _ = load(&String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn a_new_node_reads_back_what_it_wrote() {
        let mut state = ClusterState::new(Config::default(), Rng::new(3), NOW);
        state.add_slots(NOW, &[1, 2, 3, 16383]).unwrap();
        state.flush_slots(NOW, &NoKeys).unwrap();
        state.set_config_epoch(NOW, 9).unwrap();
        let text = state.nodes_conf();
        assert_eq!(load(&text).unwrap().nodes_conf(), text);
    }
}
