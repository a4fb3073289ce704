//! Level 2: who listens to which channels and patterns, and what a message looks like to them.
//!
//! The registry knows clients by their place (worker and token). It encodes each message once for each protocol, and
//! the caller sends it to the clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;

use crate::base::glob;
use crate::resp::Reply;

/// The two spaces of channel names: the global one, and the one whose channels belong to slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// SUBSCRIBE, PSUBSCRIBE, PUBLISH.
    Global,
    /// SSUBSCRIBE, SPUBLISH: the slot of a channel is that of a key of this name.
    Shard,
}

/// A client that listens to something.
#[derive(Debug)]
pub struct Subscriber {
    /// Id of the client.
    pub client: u64,
    /// Number of its worker.
    pub worker: usize,
    /// Its place at that worker.
    pub token: usize,
    resp3: AtomicBool,
}

impl Subscriber {
    /// `resp3`: messages are sent to it as pushes.
    pub fn new(client: u64, worker: usize, token: usize, resp3: bool) -> Self {
        Self { client, worker, token, resp3: AtomicBool::new(resp3) }
    }

    /// Follows a change of the client's protocol.
    pub fn set_resp3(&self, resp3: bool) {
        self.resp3.store(resp3, Ordering::Relaxed);
    }
}

/// Listeners of one channel or pattern by client.
type Listeners = HashMap<u64, Arc<Subscriber>>;

/// Who listens to what.
#[derive(Debug, Default)]
pub struct Registry {
    channels: DashMap<Vec<u8>, Listeners>,
    shard_channels: DashMap<Vec<u8>, Listeners>,
    patterns: RwLock<HashMap<Vec<u8>, Listeners>>,
}

impl Registry {
    fn space(&self, space: Space) -> &DashMap<Vec<u8>, Listeners> {
        match space {
            Space::Global => &self.channels,
            Space::Shard => &self.shard_channels,
        }
    }

    /// Lets `who` hear a channel. Twice is as good as once.
    pub fn subscribe(&self, space: Space, channel: &[u8], who: &Arc<Subscriber>) {
        self.space(space).entry(channel.to_vec()).or_default().insert(who.client, Arc::clone(who));
    }

    /// Ends what [`subscribe`](Self::subscribe) began. A channel without listeners is forgotten.
    pub fn unsubscribe(&self, space: Space, channel: &[u8], client: u64) {
        self.space(space).remove_if_mut(channel, |_, listeners| {
            listeners.remove(&client);
            listeners.is_empty()
        });
    }

    /// Lets `who` hear all global channels that match `pattern`.
    pub fn subscribe_pattern(&self, pattern: &[u8], who: &Arc<Subscriber>) {
        self.patterns.write().entry(pattern.to_vec()).or_default().insert(who.client, Arc::clone(who));
    }

    /// Ends what [`subscribe_pattern`](Self::subscribe_pattern) began.
    pub fn unsubscribe_pattern(&self, pattern: &[u8], client: u64) {
        let mut patterns = self.patterns.write();
        if let Some(listeners) = patterns.get_mut(pattern) {
            listeners.remove(&client);
            if listeners.is_empty() {
                patterns.remove(pattern);
            }
        }
    }

    /// Ends all that clients listen to, wherever that is: in one go, because channels and clients may be many.
    pub fn unsubscribe_all(&self, clients: &HashSet<u64>) {
        let leave = |listeners: &mut Listeners| {
            if clients.len() < listeners.len() {
                clients.iter().for_each(|client| drop(listeners.remove(client)));
            } else {
                listeners.retain(|client, _| !clients.contains(client));
            }
            !listeners.is_empty()
        };
        self.channels.retain(|_, listeners| leave(listeners));
        self.shard_channels.retain(|_, listeners| leave(listeners));
        self.patterns.write().retain(|_, listeners| leave(listeners));
    }

    /// Gives a message to everybody who listens; returns to how many. Messages of one channel are
    /// given out one after the other, so that all its listeners see the same order.
    pub fn publish(
        &self,
        space: Space,
        channel: &[u8],
        message: &[u8],
        mut deliver: impl FnMut(&Subscriber, Arc<[u8]>),
    ) -> usize {
        let mut receivers = 0;
        let kind = if space == Space::Global { "message" } else { "smessage" };
        if let Some(listeners) = self.space(space).get_mut(channel) {
            let mut encoded = Encoded::new(kind, [None, Some(channel), Some(message)]);
            for who in listeners.values() {
                deliver(who, encoded.for_client(who));
            }
            receivers += listeners.len();
        }
        if space == Space::Shard {
            return receivers;
        }
        for (pattern, listeners) in self.patterns.read().iter() {
            if !glob::matches(pattern, channel) {
                continue;
            }
            let mut encoded = Encoded::new("pmessage", [Some(pattern), Some(channel), Some(message)]);
            for who in listeners.values() {
                deliver(who, encoded.for_client(who));
            }
            receivers += listeners.len();
        }
        receivers
    }

    /// Who listens to a channel itself.
    pub fn subscribers(&self, space: Space, channel: &[u8]) -> Vec<Arc<Subscriber>> {
        self.space(space).get(channel).map_or_else(Vec::new, |l| l.values().cloned().collect())
    }

    /// Channels that somebody listens to, those that match `pattern` if there is one.
    pub fn channels(&self, space: Space, pattern: Option<&[u8]>) -> Vec<Vec<u8>> {
        let wanted = |name: &[u8]| pattern.is_none_or(|p| glob::matches(p, name));
        self.space(space).iter().filter(|e| wanted(e.key())).map(|e| e.key().clone()).collect()
    }

    /// Channels that somebody listens to.
    pub fn channel_count(&self, space: Space) -> usize {
        self.space(space).len()
    }

    /// Listeners of a channel, those of patterns not counted.
    pub fn listeners(&self, space: Space, channel: &[u8]) -> usize {
        self.space(space).get(channel).map_or(0, |l| l.len())
    }

    /// Different patterns that somebody listens to.
    pub fn pattern_count(&self) -> usize {
        self.patterns.read().len()
    }
}

/// A message in both protocols, each made when it is first needed.
struct Encoded<'a> {
    kind: &'static str,
    parts: [Option<&'a [u8]>; 3],
    made: [Option<Arc<[u8]>>; 2],
}

impl<'a> Encoded<'a> {
    fn new(kind: &'static str, parts: [Option<&'a [u8]>; 3]) -> Self {
        Self { kind, parts, made: [None, None] }
    }

    fn for_client(&mut self, who: &Subscriber) -> Arc<[u8]> {
        let resp3 = who.resp3.load(Ordering::Relaxed);
        let (kind, parts) = (self.kind, &self.parts);
        let made = self.made[usize::from(resp3)].get_or_insert_with(|| {
            let mut out = Reply::new();
            out.set_resp3(resp3);
            out.push(1 + parts.iter().flatten().count());
            out.bulk_str(kind);
            parts.iter().flatten().for_each(|part| out.bulk(part));
            out.into_bytes().into()
        });
        Arc::clone(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(registry: &Registry, space: Space, channel: &str) -> Vec<(u64, String)> {
        let mut out = vec![];
        let n = registry.publish(space, channel.as_bytes(), b"m", |who, bytes| {
            out.push((who.client, String::from_utf8_lossy(&bytes).replace("\r\n", " ")));
        });
        assert_eq!(n, out.len());
        out.sort();
        out
    }

    #[test]
    fn a_session() {
        let registry = Registry::default();
        let a = Arc::new(Subscriber::new(1, 0, 0, false));
        let b = Arc::new(Subscriber::new(2, 0, 1, true));
        registry.subscribe(Space::Global, b"ch", &a);
        registry.subscribe(Space::Global, b"ch", &b);
        registry.subscribe_pattern(b"c*", &a);
        registry.subscribe(Space::Shard, b"ch", &b);
        assert_eq!(
            sent(&registry, Space::Global, "ch"),
            [
                (1, "*3 $7 message $2 ch $1 m ".into()),
                (1, "*4 $8 pmessage $2 c* $2 ch $1 m ".into()),
                (2, ">3 $7 message $2 ch $1 m ".into())
            ]
        );
        assert_eq!(sent(&registry, Space::Shard, "ch"), [(2, ">3 $8 smessage $2 ch $1 m ".into())]);
        assert_eq!(sent(&registry, Space::Global, "cx").len(), 1);
        b.set_resp3(false);
        assert!(sent(&registry, Space::Shard, "ch")[0].1.starts_with('*'));

        assert_eq!(registry.channels(Space::Global, Some(b"x*")), [] as [Vec<u8>; 0]);
        assert_eq!(registry.listeners(Space::Global, b"ch"), 2);
        registry.unsubscribe(Space::Global, b"ch", 1);
        registry.unsubscribe(Space::Global, b"ch", 2);
        registry.unsubscribe(Space::Global, b"ch", 2);
        registry.unsubscribe_pattern(b"c*", 1);
        assert_eq!((registry.channel_count(Space::Global), registry.pattern_count()), (0, 0));
        assert_eq!(registry.channel_count(Space::Shard), 1);
    }
}
