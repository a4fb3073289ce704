//! Sockets: how clients come in, what is read and written, and the way to a worker; TLS; and the links of the
//! control thread, with how the node reaches others.
//!
//! | file | concept |
//! |---|---|
//! | `listen`, `accept` | listening sockets; new connections, dealt out to the workers |
//! | `connection` | a client on its worker: socket, input that is not parsed, output that is not sent |
//! | `mailbox` | messages to a worker from other threads |
//! | `link`, `dial` | a connection of the control thread; how the node opens one |
//! | `tls` | sessions, certificates, and what may be spoken |

pub mod accept;
pub mod connection;
pub mod dial;
pub mod link;
pub mod listen;
pub mod mailbox;
pub mod tls;
