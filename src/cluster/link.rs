//! Bus links. Two nodes keep two TCP connections: each pings over the one that it opened and
//! answers over the one that it accepted.

use super::node::NodeIx;
use crate::base::time::MonoMs;

/// Name of a link between the state machine and whoever owns the sockets.
///
/// The state machine numbers the links that it asks to open; the driver numbers those that it
/// accepts, with [`LinkId::inbound`]. The two ranges cannot meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

const INBOUND: u64 = 1 << 63;

impl LinkId {
    /// The id of the `n`th accepted connection.
    pub const fn inbound(n: u64) -> Self {
        Self(n | INBOUND)
    }

    /// The id of the `n`th connection that was asked for.
    pub const fn outbound(n: u64) -> Self {
        Self(n & !INBOUND)
    }

    /// Whether the peer opened it.
    pub const fn is_inbound(self) -> bool {
        self.0 & INBOUND != 0
    }
}

/// What the state machine keeps of a link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Outbound: always known. Inbound: once the peer's name was seen.
    pub node: Option<NodeIx>,
    /// When it was asked for or accepted, in monotonic milliseconds.
    pub created: MonoMs,
    /// False while the connection is being opened.
    pub up: bool,
    /// The other end's address, for peers that do not announce one.
    pub peer_ip: String,
    /// Our end's address, from which a node learns its own.
    pub local_ip: String,
}
