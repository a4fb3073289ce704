//! The families of commands that need data and the client alone, one a file: each row beside its handler.

use super::table::Families;

pub mod bitmaps;
pub mod connection;
pub mod dump;
pub mod expiry;
pub mod geo;
pub mod hash_expiry;
pub mod hashes;
pub mod hyperloglog;
pub mod keys;
pub mod lcs;
pub mod list_moves;
pub mod lists;
mod members;
pub mod object;
mod queues;
mod random;
mod scan;
pub mod server;
pub mod set_algebra;
pub mod sets;
pub mod sort;
pub mod sorted_set_algebra;
pub mod sorted_set_pops;
pub mod sorted_set_ranges;
pub mod sorted_sets;
pub mod stream_groups;
pub mod stream_pending;
pub mod stream_reads;
pub mod streams;
pub mod strings;
pub mod transactions;

/// The families that need data and the client alone; the node brings its own.
pub const FAMILIES: &Families = &[
    strings::COMMANDS,
    lcs::COMMANDS,
    bitmaps::COMMANDS,
    hyperloglog::COMMANDS,
    keys::COMMANDS,
    expiry::COMMANDS,
    object::COMMANDS,
    dump::COMMANDS,
    lists::COMMANDS,
    list_moves::COMMANDS,
    sets::COMMANDS,
    set_algebra::COMMANDS,
    hashes::COMMANDS,
    hash_expiry::COMMANDS,
    streams::COMMANDS,
    stream_reads::COMMANDS,
    stream_groups::COMMANDS,
    stream_pending::COMMANDS,
    sorted_sets::COMMANDS,
    sorted_set_ranges::COMMANDS,
    sorted_set_pops::COMMANDS,
    sorted_set_algebra::COMMANDS,
    geo::COMMANDS,
    sort::COMMANDS,
    connection::COMMANDS,
    server::COMMANDS,
    transactions::COMMANDS,
];
