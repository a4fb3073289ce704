//! Sockets: how clients come in, what is read and written, and the way to a worker; and how the node reaches others.

pub mod accept;
pub mod connection;
pub mod dial;
pub mod listen;
pub mod mailbox;
