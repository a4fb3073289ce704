//! Level 2: Sentinel. What one sentinel knows, decides and does, as a pure state machine.
//!
//! Events go into [`Sentinel::step`], actions come out; `server::sentinel` drives it with sockets, a clock, a disk
//! and processes, `tests/sentinel_sim` with none of them. Where to look:
//!
//! | file | subject |
//! |---|---|
//! | [`instance`] | primaries, replicas, other sentinels, and the links to them |
//! | [`state`], [`action`] | the machine; what goes in, and what comes out |
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
//! Waits that are shorter than Redis's. None of them changes who may decide: a leader has the votes of a majority in an
//! epoch of its own, whatever made it stand. The cases are in `tests/sentinel_sim/waits.rs`; the seeds run with all.
//!
//! | Redis waits | here | why that is safe | case |
//! |---|---|---|---|
//! | twice `failover-timeout` after an election that nobody won | 0.1 to 1 s, once all voted that are there, if they are a majority | nothing was changed; the next epoch has votes of its own | `a_split_election_*` |
//! | the same after a failover without a good replica | 1 s, once there is one | nothing was changed | `a_lone_replica_is_promoted_as_soon_as_it_can_be_reached` |
//! | `failover-timeout` for a chosen replica that refuses connections or is down | chooses another at once | nobody was told of the first; should it be a primary it is made to follow | `a_chosen_replica_that_dies_is_replaced_by_another` |
//! | ten seconds for a replica that was told to follow and is gone | the next is told at once | it is repaired like any that follows somebody else | `a_replica_that_is_gone_gives_its_place_back` |
//! | for ever, while a promoted replica is dead and others still move | its leader votes in the next failover | one vote an epoch, as ever | `a_promoted_replica_that_dies_at_once_is_replaced` |
//! | the next tick, or INFO, at each step | goes on with each answer | no condition is left out | `a_dead_primary_is_replaced_soon_after_down_after` |
//!
//! Not shortened: `down-after-milliseconds`, also when connections are refused, because a process that restarts refuses, too
//! (`a_refused_connection_does_not_shorten_down_after`); twice `failover-timeout` in a minority
//! (`a_minority_waits_for_twice_the_timeout`); `failover-timeout` for a promotion where there is nobody else
//! (`a_promotion_that_does_not_come_is_given_up`); the repair of roles.
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
