//! Level 2: Sentinel. What one sentinel knows, decides and does, as a pure state machine.
//!
//! Events go into [`Sentinel::step`], actions come out; `server::sentinel` drives it with sockets, a clock, a disk
//! and processes, `tests/sentinel_sim` with none of them. Where to look:
//!
//! | file | subject |
//! |---|---|
//! | [`instance`] | primaries, replicas, other sentinels, and the links to them |
//! | [`state`] | the machine: what goes in, what comes out, time |
//! | `links` | connections, what is asked over them, and when |
//! | `info`, `hello` | what INFO and `__sentinel__:hello` tell |
//! | `roster` | who belongs to a primary: added, renamed, dropped, switched |
//! | `down` | subjectively and objectively down, TILT |
//! | `vote` | epochs, **where a vote is cast** (`cast`), who leads |
//! | [`failover`], `select` | the phases of a failover, and which replica is promoted |
//! | `repair` | nodes whose role or primary is not what it should be |
//! | `events`, [`scripts`] | what is published, logged, and handed to programs |
//! | [`admin`], [`report`] | what commands change and show |
//! | [`settings`] | the `sentinel` lines of the configuration, both ways |
//!
//! Source of the rules, unless a file says otherwise: "High availability with Redis Sentinel".

pub mod action;
pub mod admin;
mod down;
mod events;
pub mod failover;
mod hello;
mod info;
pub mod instance;
mod links;
mod repair;
pub mod report;
mod roster;
pub mod scripts;
mod select;
pub mod settings;
pub mod state;
mod vote;

#[cfg(test)]
mod tests;

pub use action::{Action, Event, Level, LinkId, ScriptEnd, Timing};
pub use settings::Settings;
pub use state::Sentinel;
