//! `maxmemory-clients`: when all clients together take more memory than that, those that take most are closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::client::Role;
use crate::server::net::mailbox::Mail;
use crate::server::node::connected::ClientEntry;
use crate::server::node::describe::describe_client;
use crate::server::worker::Worker;

/// A limit below this counts as this one: with less nobody could speak to the server any more, to set another.
const LEAST_LIMIT: usize = 128 << 10;

impl Worker {
    /// Has clients closed until the others take less than the limit, the greediest first.
    #[inline]
    pub(super) fn evict_clients(&mut self) {
        let config = self.node.config.load();
        let limit = config.maxmemory_clients.bytes(config.maxmemory) as usize;
        let memory = self.node.people.clients.memory();
        if limit > 0 && memory > limit.max(LEAST_LIMIT) && memory != self.spared_at {
            drop(config);
            self.close_greediest(limit.max(LEAST_LIMIT));
        }
    }

    #[cold]
    fn close_greediest(&mut self, limit: usize) {
        let node = Arc::clone(&self.node);
        // One worker looks for all.
        let Some(_turn) = node.people.clients.evicting.try_lock() else { return };
        let all = node.people.clients.all();
        // Read after the list: a client that is gone from the list is gone from the sum, and no other is closed in its
        // place.
        let memory = node.people.clients.memory();
        let size = |entry: &Arc<ClientEntry>| entry.usage.lock().total;
        let leaving = |entry: &&Arc<ClientEntry>| entry.evicted.load(Ordering::Relaxed);
        let going: usize = all.iter().filter(leaving).map(size).sum();
        let mut excess = memory.saturating_sub(limit).saturating_sub(going);
        let may_go = |entry: &&Arc<ClientEntry>| entry.role == Role::Normal && !entry.state.lock().no_evict;
        let rest = all.iter().filter(|entry| !leaving(entry)).filter(may_go);
        let mut greedy: Vec<_> = rest.map(|entry| (size(entry), entry)).collect();
        greedy.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        for (size, entry) in greedy {
            if excess == 0 {
                return;
            }
            tracing::info!("Evicting client: {}", describe_client(&node, entry));
            entry.evicted.store(true, Ordering::Relaxed);
            node.people.clients.evicted.fetch_add(1, Ordering::Relaxed);
            let token = entry.token.load(Ordering::Relaxed);
            node.send(entry.worker, Mail::Kill { token, client: entry.id, after_reply: false });
            excess = excess.saturating_sub(size);
        }
        if excess > 0 && going == 0 {
            self.spared_at = memory;
            tracing::warn!("Over client maxmemory after evicting all evictable clients");
        }
    }
}
