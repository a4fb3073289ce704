//! What time alone brings about: connections, pings, suspicion, and the deadlines of everything else.

use super::message::Kind;
use super::node::{NodeFlags, NodeIx};
use super::state::ClusterState;
use crate::base::time::MonoMs;

/// Period of the timer's rounds.
pub(super) const CRON_MS: MonoMs = 100;
/// Every so many rounds one node is pinged at random,
const RANDOM_PING_ROUNDS: u64 = 10;
/// the one heard longest ago of so many.
const RANDOM_PING_SAMPLE: usize = 5;

impl ClusterState {
    pub(super) fn tick(&mut self) {
        let now = self.now.mono;
        self.started.get_or_insert(now);
        self.suspect_silent_nodes();
        self.expire_manual_failover();
        self.run_failover();
        if self.last_cron.is_none_or(|t| now >= t + CRON_MS) {
            self.last_cron = Some(now);
            self.cron_runs += 1;
            self.round();
        }
        if self.down.is_some() {
            self.todo.health = true;
        }
    }

    fn round(&mut self) {
        self.drop_stale_handshakes();
        self.connect_all();
        if self.cron_runs.is_multiple_of(RANDOM_PING_ROUNDS) {
            self.ping_at_random();
        }
        for ix in self.nodes.places() {
            self.keep_in_touch(ix);
        }
        self.migrate_to_orphan();
    }

    fn drop_stale_handshakes(&mut self) {
        let oldest = self.now.mono.saturating_sub(self.config.handshake_timeout_ms());
        let stale: Vec<NodeIx> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.in_handshake() && n.created < oldest)
            .map(|(ix, _)| ix)
            .collect();
        for ix in stale {
            self.remove_node(ix);
        }
    }

    fn connect_all(&mut self) {
        let missing: Vec<NodeIx> = self
            .nodes
            .iter()
            .filter(|(_, n)| {
                n.outbound.is_none()
                    && !n.flags.has(NodeFlags::MYSELF | NodeFlags::NOADDR)
                    && !n.address.ip.is_empty()
            })
            .map(|(ix, _)| ix)
            .collect();
        for ix in missing {
            self.connect(ix);
        }
    }

    fn ping_at_random(&mut self) {
        let mut oldest: Option<(MonoMs, NodeIx)> = None;
        for _ in 0..RANDOM_PING_SAMPLE {
            let ix = self.nodes.random(&mut self.rng);
            let node = &self.nodes[ix];
            let idle = node.outbound.is_some_and(|l| self.links.get(&l).is_some_and(|l| l.up))
                && node.ping_sent.is_none()
                && !node.flags.has(NodeFlags::MYSELF | NodeFlags::HANDSHAKE);
            if idle && oldest.is_none_or(|(t, _)| node.pong_received < t) {
                oldest = Some((node.pong_received, ix));
            }
        }
        if let Some((_, ix)) = oldest {
            self.ping(ix);
        }
    }

    fn ping(&mut self, ix: NodeIx) {
        if let Some(link) = self.nodes[ix].outbound {
            self.send_gossip(link, Kind::Ping);
        }
    }

    /// Pings a node that was not heard for a while, and renews a link on which nothing comes back.
    fn keep_in_touch(&mut self, ix: NodeIx) {
        let now = self.now.mono;
        let timeout = self.config.node_timeout_ms;
        let node = &self.nodes[ix];
        if node.flags.has(NodeFlags::MYSELF | NodeFlags::NOADDR | NodeFlags::HANDSHAKE) {
            return;
        }
        let Some((id, link)) = node.outbound.and_then(|l| Some((l, self.links.get(&l)?))) else { return };
        let stuck = |since: MonoMs| now > since + timeout / 2;
        if now > link.created + timeout && node.ping_sent.is_some_and(stuck) && stuck(node.data_received) {
            // Maybe only the connection is broken: a new one tells before the node timeout ends.
            self.close_link(id);
            return;
        }
        if !link.up {
            return;
        }
        let handing_over = self.me().is_primary() && self.manual.paused && self.manual.replica == Some(ix);
        let silent = now > node.pong_received + self.config.silence_ms();
        if node.ping_sent.is_none() && (silent || handing_over) {
            self.ping(ix);
        }
    }
}
