//! Sockets: how clients come in, what is read and written, and the way to a worker; TLS; and the links of the
//! control thread, with how the node reaches others.

pub mod accept;
pub mod connection;
pub mod dial;
pub mod link;
pub mod listen;
pub mod mailbox;
pub mod tls;
