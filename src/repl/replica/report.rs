//! What INFO and ROLE say about the link to the primary.

use std::fmt::Write as _;

use super::{Replica, State};
use crate::base::time::MonoMs;

impl Replica {
    /// Whether the stream is being followed (`master_link_status:up`).
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// Whether a full synchronisation is under way.
    pub fn is_syncing(&self) -> bool {
        matches!(self.state, State::Transfer(_) | State::Loading { .. })
    }

    /// When the primary was last heard.
    pub fn last_io(&self) -> MonoMs {
        self.last_io
    }

    /// When the link was lost; `None` while it is up or was never.
    pub fn down_since(&self) -> Option<MonoMs> {
        self.down_since
    }

    /// The state as ROLE names it.
    pub fn role_state(&self) -> &'static str {
        match self.state {
            State::Waiting { .. } => "connect",
            State::Connecting => "connecting",
            State::Handshake(_) => "handshake",
            State::Transfer(_) | State::Loading { .. } => "sync",
            State::Streaming { .. } => "connected",
        }
    }

    /// The offset as ROLE shows it: -1 unless connected.
    pub fn role_offset(&self) -> i64 {
        match (self.is_up(), self.position) {
            (true, Some(p)) => p.offset as i64,
            _ => -1,
        }
    }

    /// Appends the lines of INFO replication from `master_host` to `master_link_down_since_seconds`.
    pub fn write_info(&self, now: MonoMs, out: &mut String) {
        let ago = |then: MonoMs| now.saturating_sub(then) / 1000;
        let up = self.is_up();
        let last_io = if up { ago(self.last_io) as i64 } else { -1 };
        let applied = self.position.map_or(1, |p| p.offset);
        let read = if up { self.read_offset } else { applied };
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            write!(out, "{name}:{value}\r\n").expect("writing to a string");
        };
        line("master_host", &self.config.host);
        line("master_port", &self.config.port);
        line("master_link_status", &if up { "up" } else { "down" });
        line("master_last_io_seconds_ago", &last_io);
        line("master_sync_in_progress", &u8::from(self.is_syncing()));
        line("slave_read_repl_offset", &read);
        line("slave_repl_offset", &applied);
        if let State::Transfer(transfer) = &self.state {
            let total = transfer.total.unwrap_or(0);
            let left = transfer.total.map_or(-1, |total| total.saturating_sub(transfer.read) as i64);
            let percent = if total > 0 { transfer.read as f64 / total as f64 * 100.0 } else { 0.0 };
            line("master_sync_total_bytes", &total);
            line("master_sync_read_bytes", &transfer.read);
            line("master_sync_left_bytes", &left);
            line("master_sync_perc", &format_args!("{percent:.2}"));
            line("master_sync_last_io_seconds_ago", &ago(self.last_io));
        }
        if !up {
            line("master_link_down_since_seconds", &self.down_since.map_or(-1, |t| ago(t) as i64));
        }
    }
}
