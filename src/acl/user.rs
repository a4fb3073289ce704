//! A user: who it is, and what it may do.

use std::mem;
use std::sync::Arc;
use std::thread;

use super::DEFAULT_USER;
use super::catalog::Catalog;
use super::password::{self, Hash, Hashes};
use super::selector::Selector;

/// A user as it is at one moment. What changes is put in its place as a whole (see [`super::Accounts`]).
#[derive(Clone, Debug)]
pub struct User {
    /// What AUTH and ACL SETUSER call it.
    pub name: Arc<str>,
    /// Whether anybody may log in as this user.
    pub enabled: bool,
    /// Any password will do.
    pub nopass: bool,
    /// Whether payloads of RESTORE are to be looked through. They are in any case; the word is kept.
    pub sanitizes: bool,
    /// Their SHA-256; the words themselves are not kept.
    pub passwords: Hashes,
    /// What the rules outside of parentheses say.
    pub root: Selector,
    /// One for each pair of parentheses.
    pub selectors: Vec<Selector>,
    /// It was deleted: who is still logged in may do nothing.
    pub deleted: bool,
}

/// Rules of a large user.
const MANY: usize = 1_000;

/// Whoever has the user last, another thread frees it if it is large.
impl Drop for User {
    fn drop(&mut self) {
        if self.is_large() {
            let rules = (mem::take(&mut self.root), mem::take(&mut self.selectors));
            // They are freed here if there can be no such thread.
            let _ = thread::Builder::new().name("rules".into()).spawn(move || drop(rules));
        }
    }
}

impl User {
    /// A new user: off, without password or rights, but for channels if so configured.
    pub fn new(name: &str, catalog: &dyn Catalog, all_channels: bool) -> Self {
        Self {
            name: name.into(),
            enabled: false,
            nopass: false,
            sanitizes: true,
            passwords: Hashes::default(),
            root: Selector::new(catalog, all_channels),
            selectors: Vec::new(),
            deleted: false,
        }
    }

    /// The default user as long as nothing is said of it: everybody may do everything.
    pub fn unprotected(catalog: &dyn Catalog) -> Self {
        let mut user = Self::new(DEFAULT_USER, catalog, true);
        (user.enabled, user.nopass) = (true, true);
        user.root = Selector::everything(catalog);
        user
    }

    /// What is left of a user when it is deleted.
    pub fn deleted(name: &str, catalog: &dyn Catalog) -> Self {
        let mut user = Self::new(name, catalog, false);
        user.deleted = true;
        user
    }

    /// Whether it has so many rules that to copy or to free it takes longer than others should wait.
    pub fn is_large(&self) -> bool {
        let rules = |selectors: &[Selector]| selectors.iter().map(Selector::count).sum::<usize>();
        self.selectors.len() >= MANY || self.root.count() + rules(&self.selectors) >= MANY
    }

    /// All selectors.
    #[inline]
    pub fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Whether there is nothing to check: whatever the command, it is allowed.
    pub fn is_unrestricted(&self) -> bool {
        self.all_selectors().any(Selector::is_everything)
    }

    /// Whether one may log in with this password.
    pub fn admits(&self, password: &[u8]) -> bool {
        // Both are found out in any case, so that time does not tell which of them failed.
        let right = password::is_one_of(password, &self.passwords);
        self.enabled && (self.nopass || right)
    }

    /// Whether this is one of its passwords.
    pub fn has_password(&self, password: &[u8]) -> bool {
        password::is_one_of(password, &self.passwords)
    }

    /// Whether connections are this user without saying so.
    pub fn admits_everybody(&self) -> bool {
        self.enabled && self.nopass
    }

    /// `requirepass`: one password, or none needed if it is empty.
    pub fn set_only_password(&mut self, password: &[u8]) {
        self.passwords.clear();
        self.nopass = password.is_empty();
        if !password.is_empty() {
            self.passwords.entry(Hash::of(password), || ());
        }
    }

    /// Whether it may go on to listen to a channel, by whichever selector.
    pub fn may_hear(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all_selectors().any(|selector| selector.allows_channel(channel, is_pattern))
    }
}
