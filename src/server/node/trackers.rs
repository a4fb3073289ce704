//! Clients that track keys, and the invalidations that are sent to them. See [`crate::keyspace::tracking`] for
//! the order in which these leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::acl::Login;
use crate::command::Client;
use crate::keyspace::tracking::{Changed, Stale};
use crate::resp::Reply;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;

/// The channel on which a subscriber hears of keys that another client tracks.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// A client that tracks.
#[derive(Debug)]
struct Tracker {
    worker: usize,
    token: usize,
    /// The client that is told in its place; 0: itself.
    redirect: u64,
    noloop: bool,
    broadcasts: bool,
    /// Its user, who hears of no key that it may not read.
    login: Option<Login>,
    /// Set when the client that is told is gone.
    broken: Arc<AtomicBool>,
}

/// All clients that track, and who wants to hear of all keys with which beginnings.
#[derive(Debug, Default)]
pub struct Trackers(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    trackers: BTreeMap<u64, Tracker>,
    prefixes: BTreeMap<Vec<u8>, BTreeSet<u64>>,
}

impl Trackers {
    /// Clients that track.
    pub fn len(&self) -> usize {
        self.0.read().trackers.len()
    }

    /// Nobody tracks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Beginnings of keys that somebody wants to hear of.
    pub fn prefixes(&self) -> usize {
        self.0.read().prefixes.len()
    }
}

/// Keys that an invalidation names; `None`: all.
type Keys = Option<Arc<[Box<[u8]>]>>;

impl Node {
    /// Enters a client that tracks, as its [`Client::tracks`] says; or, when it does not, forgets it.
    pub fn settle_tracking(&self, client: &Client) {
        let mut inner = self.people.trackers.0.write();
        inner.forget(client.id);
        if let Some(tracks) = &client.tracks {
            for prefix in &tracks.prefixes {
                inner.prefixes.entry(prefix.clone()).or_default().insert(client.id);
            }
            let tracker = Tracker {
                worker: client.worker,
                token: client.token,
                redirect: tracks.redirect,
                noloop: tracks.noloop,
                broadcasts: tracks.broadcasts,
                login: client.login.clone(),
                broken: Arc::clone(&tracks.broken),
            };
            inner.trackers.insert(client.id, tracker);
        }
        self.shared.keyspace.tracking.set_on(!inner.trackers.is_empty(), !inner.prefixes.is_empty());
    }

    /// Ends the tracking of a client.
    pub fn stop_tracking(&self, client: &mut Client) {
        if client.tracks.take().is_some() {
            client.version += 1;
            self.settle_tracking(client);
        }
    }

    /// Tells trackers that what they have read of these keys is not true any more. `writer`: the client whose
    /// command runs, or 0: it may not want to hear of what its commands do (NOLOOP). To be called under the locks of the keys.
    pub fn invalidate(&self, stale: &[Stale], writer: u64) {
        let inner = self.people.trackers.0.read();
        for one in stale {
            let mut keys = None;
            for id in &one.readers {
                let Some(tracker) = inner.trackers.get(id).filter(|tracker| !tracker.broadcasts) else {
                    continue;
                };
                if !(tracker.noloop && *id == writer) {
                    let keys = keys.get_or_insert_with(|| Arc::from([one.key.clone()]));
                    self.tell(*id, tracker, Some(Arc::clone(keys)));
                }
            }
        }
    }

    /// Tells those who hear of all keys, or of those with their prefixes, that these have changed: each of a key once,
    /// whoever changed it last. To be called under the locks of the keys.
    pub fn broadcast(&self, changed: &[Changed]) {
        let last: BTreeMap<&Box<[u8]>, u64> = changed.iter().map(|one| (&one.key, one.writer)).collect();
        let inner = self.people.trackers.0.read();
        for (prefix, clients) in &inner.prefixes {
            for id in clients {
                let Some(tracker) = inner.trackers.get(id) else { continue };
                let may_read = |key| tracker.login.as_ref().is_none_or(|login| login.may_read(key));
                let concerned = last.iter().filter(|(key, _)| key.starts_with(prefix) && may_read(key));
                let concerned = concerned.filter(|(_, writer)| !(tracker.noloop && *id == **writer));
                let keys: Vec<&Box<[u8]>> = concerned.map(|(key, _)| *key).collect();
                if !keys.is_empty() {
                    self.tell(*id, tracker, Some(keys.into_iter().cloned().collect()));
                }
            }
        }
    }

    /// Tells all trackers that nothing of what they have read is true any more.
    pub fn invalidate_all(&self) {
        let tracking = &self.shared.keyspace.tracking;
        if !tracking.is_on() {
            return;
        }
        tracking.clear();
        for (id, tracker) in &self.people.trackers.0.read().trackers {
            self.tell(*id, tracker, None);
        }
    }

    fn tell(&self, id: u64, tracker: &Tracker, keys: Keys) {
        let (token, redirect) = (tracker.token, tracker.redirect);
        if redirect == 0 {
            self.send(tracker.worker, Mail::Stale { token, client: id, keys, redirected: false });
        } else if let Some(other) = self.people.clients.get(redirect) {
            let token = other.token.load(Ordering::Relaxed);
            self.send(other.worker, Mail::Stale { token, client: redirect, keys, redirected: true });
        } else if !tracker.broken.swap(true, Ordering::Relaxed) {
            self.send(tracker.worker, Mail::RedirectionBroken { token, client: id, redirect });
        }
    }
}

impl Inner {
    fn forget(&mut self, client: u64) {
        if self.trackers.remove(&client).is_some_and(|tracker| tracker.broadcasts) {
            self.prefixes.retain(|_, clients| {
                clients.remove(&client);
                !clients.is_empty()
            });
        }
    }
}

/// An invalidation as `client` reads it: a push, or for a RESP2 subscriber to whom it is redirected a message.
/// `None`: it has no way to hear of it.
pub fn message(client: &Client, keys: Option<&[Box<[u8]>]>, redirected: bool) -> Option<Arc<[u8]>> {
    let mut reply = Reply::new();
    reply.set_resp3(client.resp3);
    if client.resp3 {
        reply.push(2);
        reply.bulk(b"invalidate");
    } else if redirected && client.subscriptions() > 0 {
        reply.array(3);
        reply.bulk(b"message");
        reply.bulk(CHANNEL);
    } else {
        return None;
    }
    match keys {
        None => reply.null(),
        Some(keys) => {
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
    }
    Some(reply.into_bytes().into())
}

/// Tells a client that the one to whom its invalidations go is gone.
pub fn broken_message(client: &Client, redirect: u64) -> Option<Arc<[u8]>> {
    if !client.resp3 {
        return None;
    }
    let mut reply = Reply::new();
    reply.set_resp3(true);
    reply.push(2);
    reply.bulk(b"tracking-redir-broken");
    reply.int(redirect as i64);
    Some(reply.into_bytes().into())
}
