//! The users of a running node, and who is logged in as whom.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use parking_lot::RwLock;

use super::DEFAULT_USER;
use super::catalog::Catalog;
use super::selector::READ;
use super::user::User;

/// One user through time: whoever is logged in sees each change at once.
type Account = Arc<ArcSwap<User>>;

/// All users by name. There is always a default one.
pub struct Accounts {
    by_name: RwLock<BTreeMap<Arc<str>, Account>>,
    default: Account,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    /// With this user as the default one.
    pub fn new(default: User) -> Self {
        let name = Arc::clone(&default.name);
        let default = Arc::new(ArcSwap::from_pointee(default));
        Self { by_name: RwLock::new(BTreeMap::from([(name, Arc::clone(&default))])), default }
    }

    /// The default user as it is now.
    pub fn default_user(&self) -> Arc<User> {
        self.default.load_full()
    }

    /// A user as it is now.
    pub fn get(&self, name: &[u8]) -> Option<Arc<User>> {
        Some(self.account(name)?.load_full())
    }

    fn account(&self, name: &[u8]) -> Option<Account> {
        self.by_name.read().get(std::str::from_utf8(name).ok()?).cloned()
    }

    /// Logs in as a user. Whether that is allowed was found out before.
    pub fn log_in(&self, name: &[u8]) -> Option<Login> {
        self.account(name).map(Login::new)
    }

    /// Logs in as the default user.
    pub fn log_in_as_default(&self) -> Login {
        Login::new(Arc::clone(&self.default))
    }

    /// All users, by name.
    pub fn all(&self) -> Vec<Arc<User>> {
        self.by_name.read().values().map(|account| account.load_full()).collect()
    }

    /// Puts a user in the place of the one of its name, or beside the others.
    pub fn put(&self, user: User) {
        let mut by_name = self.by_name.write();
        match by_name.get(&user.name) {
            Some(account) => account.store(Arc::new(user)),
            None => {
                by_name.insert(Arc::clone(&user.name), Arc::new(ArcSwap::from_pointee(user)));
            }
        }
    }

    /// Deletes a user: who is logged in as this user may do nothing from now on. False when there is none.
    pub fn remove(&self, name: &[u8], catalog: &dyn Catalog) -> bool {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        assert!(name != DEFAULT_USER, "the default user stays");
        let removed = self.by_name.write().remove(name);
        if let Some(account) = &removed {
            account.store(Arc::new(User::deleted(name, catalog)));
        }
        removed.is_some()
    }

    /// Has these users and no others. A default one that is not among them is as if nothing had been said of it.
    pub fn replace(&self, users: Vec<User>, catalog: &dyn Catalog) {
        let named: HashSet<Arc<str>> = users.iter().map(|user| Arc::clone(&user.name)).collect();
        let gone = self.all().into_iter().filter(|user| !named.contains(&user.name));
        for user in gone {
            if &*user.name == DEFAULT_USER {
                self.put(User::unprotected(catalog));
            } else {
                self.remove(user.name.as_bytes(), catalog);
            }
        }
        for user in users {
            self.put(user);
        }
    }
}

/// Who a connection is.
#[derive(Clone)]
pub struct Login {
    name: Arc<str>,
    account: Account,
    /// Reloaded when the user has changed: one atomic load a command.
    user: Cache<Account, Arc<User>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Login").field(&self.name).finish()
    }
}

impl Login {
    fn new(account: Account) -> Self {
        let name = Arc::clone(&account.load().name);
        Self { name, user: Cache::new(Arc::clone(&account)), account }
    }

    /// The user's name, which cannot change while somebody is logged in.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether its user may read a key, for whoever tells it of one.
    pub fn may_read(&self, key: &[u8]) -> bool {
        self.account.load().all_selectors().any(|selector| selector.allows_key(key, || READ))
    }

    /// The user as it is now.
    #[inline]
    pub fn user(&mut self) -> &User {
        self.user.load()
    }
}
