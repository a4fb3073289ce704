//! Clients' sockets: how they come in, what is read and written, and the way to a worker.

pub mod accept;
pub mod connection;
pub mod listen;
pub mod mailbox;
