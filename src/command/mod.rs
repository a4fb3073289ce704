//! Level 5: commands. One file a family; each row stands beside its handler.
//!
//! To add a command: write `fn name(ctx, args) -> Result<Outcome, Fail>` in its family's file and
//! a row for it in that file's `COMMANDS`. Nothing else needs to know.

pub mod client;
pub mod connection;
pub mod ctx;
pub mod fail;
pub mod gate;
pub mod keys;
pub mod persistence;
pub mod request;
pub mod spec;
pub mod strings;
pub mod table;
pub mod transactions;

pub use client::Client;
pub use ctx::{Block, Ctx, DONE, Outcome, TimeoutReply, Transaction};
pub use fail::Fail;
pub use request::Request;
pub use spec::{Command, Group};
pub use table::CommandTable;

use crate::base::num::parse_i64;

/// An integer argument.
pub fn int(arg: &[u8]) -> Result<i64> {
    parse_i64(arg).ok_or(Fail::NotInteger)
}

/// A double argument.
pub fn float(arg: &[u8]) -> Result<f64> {
    crate::base::num::parse_f64(arg).ok_or(Fail::NotFloat)
}

/// Whether an argument is this word, in any case.
pub fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// A handler's result.
pub type Result<T = Outcome> = std::result::Result<T, Fail>;
