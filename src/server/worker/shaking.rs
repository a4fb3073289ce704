//! Handshakes of TLS. They cost a thousand times what a command costs, so a worker goes on with few of them in one
//! wake-up (`max-new-tls-connections-per-cycle`), and serves everybody else in between.

use std::time::{Duration, Instant};

use crate::server::net::tls::Shake;
use crate::server::process::clock::now_ns;
use crate::server::process::os_error::words;
use crate::server::worker::Worker;
use crate::server::worker::deadlines::Kind;

/// How long a client may take for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// A part of a handshake that takes less than so many nanoseconds (nothing new has come, or the end) is not rationed:
/// clients that stop half way and go must not pile up.
const DEAR_NS: u64 = 20_000;

impl Worker {
    #[inline]
    pub(super) fn is_handshaking(&self, token: usize) -> bool {
        self.connections.get(token).and_then(Option::as_ref).is_some_and(|c| c.stream.is_handshaking())
    }

    /// Sets the deadline of a new connection's handshake, if it must make one.
    pub(super) fn expect_handshake(&mut self, token: usize) {
        if self.is_handshaking(token) {
            self.deadlines.set(token, Kind::Handshake, Some(Instant::now() + PATIENCE));
        }
    }

    /// Goes on with a handshake. True when it is over, and the client may be read.
    pub(super) fn shake(&mut self, token: usize) -> bool {
        if self.shakes_left == 0 {
            self.ready.push(token);
            return false;
        }
        let Some(c) = self.connections[token].as_mut() else { return false };
        let began = now_ns();
        let outcome = c.stream.shake();
        self.shakes_left -= u32::from(now_ns().wrapping_sub(began) >= DEAR_NS);
        match outcome {
            Ok(Shake::Done) => {
                let is_refused = c.closing;
                self.deadlines.set(token, Kind::Handshake, None);
                if is_refused {
                    self.flush_now(token);
                }
                !is_refused
            }
            Ok(Shake::Read | Shake::Write) => false,
            Err(e) => {
                self.turn_away(token, &words(&e));
                false
            }
        }
    }

    pub(super) fn give_handshake_up(&mut self, token: usize) {
        self.turn_away(token, "the handshake takes too long");
    }

    fn turn_away(&mut self, token: usize, why: &str) {
        let Some(c) = self.connections[token].as_ref() else { return };
        let (addr, local) = (&c.client.addr, &c.client.local_addr);
        tracing::warn!("Error accepting a client connection: {why} (addr={addr} laddr={local})");
        self.close(token);
    }
}
