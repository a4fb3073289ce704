//! Level 2: who may do what. Users, their passwords and rights, the rules by which they are written, and the
//! question whether a command is allowed.
//!
//! Nothing here knows a command: a [`Catalog`] tells names, numbers and categories, and a [`Demand`] what one call
//! wants to do.
//!
//! | file | holds |
//! |---|---|
//! | `category` | the categories of commands, as bits |
//! | `catalog` | what rules must know of the commands that there are |
//! | `distinct` | lists without repetition |
//! | `password` | hashes of passwords |
//! | `commands` | the commands that a selector allows |
//! | `selector` | commands, keys and channels that are allowed together |
//! | `user` | a user: passwords, and one selector or more |
//! | `rule` | the words of ACL SETUSER |
//! | `text` | the same, written back |
//! | `check` | whether a call is allowed |
//! | `accounts` | the users of a running node, and who is logged in as whom |
//! | `file` | the file of users |
//! | `log` | what was refused lately |
//!
//! Source: the documentation of Redis, "Access Control List" and the pages of the ACL commands.

pub mod accounts;
pub mod catalog;
pub mod category;
pub mod check;
pub mod commands;
mod distinct;
pub mod file;
pub mod log;
pub mod password;
pub mod rule;
pub mod selector;
pub mod text;
pub mod user;

#[cfg(test)]
mod tests;

pub use accounts::{Accounts, Login};
pub use catalog::Catalog;
pub use check::{Demand, Denial, KeyUse, Keys};
pub use rule::{RuleError, Rules};
pub use selector::Selector;
pub use user::User;

/// The user that connections have before they say another.
pub const DEFAULT_USER: &str = "default";
