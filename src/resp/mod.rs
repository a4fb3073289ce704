//! Level 1: the Redis serialization protocol, both directions, on plain bytes.

pub mod decode;
pub mod frame;
pub mod reply;
pub mod request;

pub use frame::write_command;
pub use reply::Reply;
pub use request::{Limits, Parsed, Progress, ProtocolError, parse};
