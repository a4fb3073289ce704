//! Users of the node: what follows when their rights change, and what was refused to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::acl::log::{Context, Entry, Log, Reason, Refusal};
use crate::acl::{Denial, Rules};
use crate::command::client::Role;
use crate::command::{Client, gate};
use crate::config::Config;
use crate::config::choice::PubsubDefault;
use crate::exec::rights::Denied;
use crate::server::net::mailbox::Mail;
use crate::server::node::describe::describe_running;
use crate::server::node::{Node, unix_ms};

/// What was refused: the log of it, and counters for INFO.
#[derive(Debug, Default)]
pub struct Denials {
    log: Mutex<Log>,
    auth: AtomicU64,
    command: AtomicU64,
    key: AtomicU64,
    channel: AtomicU64,
}

impl Denials {
    fn counter(&self, reason: Reason) -> &AtomicU64 {
        match reason {
            Reason::Auth => &self.auth,
            Reason::Command => &self.command,
            Reason::Key => &self.key,
            Reason::Channel => &self.channel,
        }
    }

    /// Names and values for INFO, in Redis's order.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let get = |reason| self.counter(reason).load(Ordering::Relaxed);
        [
            ("acl_access_denied_auth", get(Reason::Auth)),
            ("acl_access_denied_cmd", get(Reason::Command)),
            ("acl_access_denied_key", get(Reason::Key)),
            ("acl_access_denied_channel", get(Reason::Channel)),
        ]
    }

    /// CONFIG RESETSTAT.
    pub fn reset_counters(&self) {
        for reason in [Reason::Auth, Reason::Command, Reason::Key, Reason::Channel] {
            self.counter(reason).store(0, Ordering::Relaxed);
        }
    }

    /// The newest entries of the log, the newest first.
    pub fn newest(&self, count: usize) -> Vec<Entry> {
        self.log.lock().newest(count).cloned().collect()
    }

    /// Forgets all but so many entries.
    pub fn truncate(&self, most: usize) {
        self.log.lock().truncate(most);
    }
}

/// What rules of users are read with, in a node of this configuration.
pub fn rules<'n>(node: &'n Node, config: &Config) -> Rules<'n> {
    Rules {
        catalog: &node.shared.commands,
        all_channels: config.acl_pubsub_default == PubsubDefault::AllChannels,
    }
}

impl Node {
    /// Makes a client the default user, as a new connection is.
    pub fn log_in_as_default(&self, client: &mut Client) {
        let open = self.people.accounts.default_user().admits_everybody();
        client.log_in(Some(self.people.accounts.log_in_as_default()), open);
    }

    /// Brings a client's conditions up to date after a change of its user.
    pub fn settle_client(&self, client: &mut Client) {
        client.settle_rights();
        if !client.is_authenticated() && self.people.accounts.default_user().admits_everybody() {
            client.set_authenticated(true);
        }
    }

    /// The configuration as it is told: `requirepass` only while it is a password of the default user, which
    /// ACL commands change as well.
    pub fn told_config(&self) -> Arc<Config> {
        let config = self.config.load_full();
        let password = &config.requirepass.0;
        if password.is_empty() || self.people.accounts.default_user().has_password(password) {
            return config;
        }
        let mut told = Config::clone(&config);
        told.requirepass.0.clear();
        Arc::new(told)
    }

    /// Gives the default user this password alone, or none (`requirepass`).
    pub fn set_default_password(&self, password: &[u8]) {
        let mut user = self.people.accounts.default_user().as_ref().clone();
        user.set_only_password(password);
        self.people.accounts.put(user);
        self.rights_changed(Some("default".into()));
    }

    /// To be called after each change of one user's rights, or of all users'. No command that begins later runs under
    /// the former rights: every command is checked until each worker has updated its clients.
    pub fn rights_changed(&self, user: Option<Arc<str>>) {
        let workers = self.life.threads.workers.get().map_or(0, Vec::len);
        {
            let mut pending = self.people.rights_pending.lock();
            *pending += workers;
            self.shared.set_gate(gate::RESTRICTED, *pending > 0);
        }
        self.send_all(|| Mail::Rights { user: user.clone() });
        if let Some(sentinel) = self.peers.sentinel.get()
            && self.config.load().aclfile.is_empty()
        {
            sentinel.write_users(self.people.accounts.all().iter().map(|user| user.declaration()).collect());
        }
    }

    /// A worker has looked at its clients after one change.
    pub fn rights_settled(&self) {
        let mut pending = self.people.rights_pending.lock();
        *pending -= 1;
        self.shared.set_gate(gate::RESTRICTED, *pending > 0);
    }

    /// Connections that have become a replica's belong to no worker.
    pub fn close_links_of_deleted_users(self: &Arc<Self>) {
        for entry in self.people.clients.all().iter().filter(|entry| entry.role == Role::Replica) {
            if self.people.accounts.get(entry.state.lock().user.as_bytes()).is_none() {
                self.peers.replication.kill(self, entry.id);
            }
        }
    }

    /// Notes a command that its user may not run.
    pub fn note_denied(&self, denied: &Denied<'_>) {
        let reason = match denied.denial {
            Denial::Command => Reason::Command,
            Denial::Key(_) => Reason::Key,
            Denial::Channel(_) => Reason::Channel,
        };
        let (client, errand) = (denied.client, &denied.errand);
        let refusal = Refusal {
            reason,
            context: denied.context,
            object: errand.object(denied.denial).to_vec(),
            user: client.user_name().into(),
        };
        self.note_refusal(refusal, || describe_running(self, client, &errand.entry.original, errand.args));
    }

    /// Notes a log-in that failed; `args`: the command by which it was tried.
    pub fn note_failed_login(&self, client: &Client, args: &[&[u8]], user: &[u8]) {
        let context = if client.in_multi() { Context::Multi } else { Context::Toplevel };
        let (object, user) = (args[0].to_vec(), user.to_vec());
        let name = String::from_utf8_lossy(args[0]).to_ascii_lowercase();
        let refusal = Refusal { reason: Reason::Auth, context, object, user };
        self.note_refusal(refusal, || describe_running(self, client, &name, args));
    }

    /// `client`: its line of CLIENT LIST.
    fn note_refusal(&self, refusal: Refusal, client: impl FnOnce() -> String) {
        self.people.denials.counter(refusal.reason).fetch_add(1, Ordering::Relaxed);
        let max = usize::try_from(self.config.load().acllog_max_len).unwrap_or(usize::MAX);
        if max > 0 {
            self.people.denials.log.lock().note(refusal, client(), unix_ms(), max);
        }
    }
}
