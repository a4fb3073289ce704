//! What INFO, ROLE, WAIT and the refusal of writes ask about replicas.

use std::fmt::Write as _;

use super::link::{Link, State};
use super::{LinkId, Primary};
use crate::base::time::MonoMs;

/// A replica as ROLE lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleEntry {
    /// The address that it announces, or the one that it came from.
    pub ip: String,
    /// The port that it announces; 0 if it told none.
    pub port: u16,
    /// Bytes of the stream that it has acknowledged.
    pub offset: u64,
}

impl Primary {
    /// Field `connected_slaves`.
    pub fn connected(&self) -> usize {
        self.attached().count()
    }

    /// The state of a connection; `None` if it said nothing about replication.
    pub fn state(&self, id: LinkId) -> Option<State> {
        self.replicas.get(&id).map(|link| link.state)
    }

    /// The state of the replica that goes by this address, whatever the case of its letters.
    pub fn find(&self, host: &str, port: u16) -> Option<State> {
        let named = |link: &&Link| link.port == port && link.ip().eq_ignore_ascii_case(host);
        self.attached().map(|(_, link)| link).find(named).map(|link| link.state)
    }

    /// Replicas that follow the stream and were heard within `min-replicas-max-lag`.
    pub fn good(&self, now: MonoMs) -> usize {
        // Lag counts in whole seconds, as the directive does.
        let fresh = |link: &&Link| lag_s(now, link) * 1000 <= self.config.max_lag_ms;
        self.online().filter(fresh).count()
    }

    /// WAIT: replicas that have applied the stream up to `offset`.
    pub fn acknowledged_by(&self, offset: u64) -> usize {
        self.online().filter(|link| link.acked >= offset).count()
    }

    /// WAITAOF: replicas that have the stream up to `offset` on disk.
    pub fn synced_by(&self, offset: u64) -> usize {
        self.online().filter(|link| link.synced >= offset).count()
    }

    /// The replicas of ROLE.
    pub fn role(&self) -> Vec<RoleEntry> {
        self.online()
            .map(|link| RoleEntry { ip: link.ip().to_owned(), port: link.port, offset: link.acked })
            .collect()
    }

    /// Appends the `slaveN` lines of INFO replication.
    pub fn write_info(&self, now: MonoMs, out: &mut String) {
        for (n, (_, link)) in self.attached().enumerate() {
            let lag = if link.state == State::Online { lag_s(now, link) } else { 0 };
            write!(
                out,
                "slave{n}:ip={},port={},state={},offset={},lag={lag}\r\n",
                link.ip(),
                link.port,
                link.state.name(),
                link.acked
            )
            .expect("writing to a string");
        }
    }

    fn online(&self) -> impl Iterator<Item = &Link> {
        self.replicas.values().filter(|link| link.state == State::Online)
    }
}

fn lag_s(now: MonoMs, link: &Link) -> MonoMs {
    now.saturating_sub(link.heard) / 1000
}
