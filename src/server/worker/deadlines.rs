//! The deadlines of a worker's connections in the order of time, so that a wake-up looks only at those that are due,
//! however many connections there are.

use std::collections::BTreeSet;
use std::time::Instant;

/// What comes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The wait of a blocked client ends.
    Blocked,
    /// A client may have been silent for too long.
    Idle,
    /// Output that a client does not read may be too much by now.
    Output,
    /// A handshake must be over.
    Handshake,
}

/// At most one deadline of each kind a connection.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Instant, usize, Kind)>,
    /// By the connection's token.
    of: Vec<[Option<Instant>; 4]>,
}

impl Deadlines {
    /// Sets or, with `None`, cancels a deadline.
    pub fn set(&mut self, token: usize, kind: Kind, at: Option<Instant>) {
        if token >= self.of.len() {
            if at.is_none() {
                return;
            }
            self.of.resize(token + 1, [None; 4]);
        }
        let before = std::mem::replace(&mut self.of[token][kind as usize], at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, token, kind));
        }
        if let Some(at) = at {
            self.by_time.insert((at, token, kind));
        }
    }

    pub fn get(&self, token: usize, kind: Kind) -> Option<Instant> {
        self.of.get(token)?[kind as usize]
    }

    /// Cancels all that concerns a connection.
    pub fn forget(&mut self, token: usize) {
        for kind in [Kind::Blocked, Kind::Idle, Kind::Output, Kind::Handshake] {
            self.set(token, kind, None);
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, ..)| *at)
    }

    /// Takes one that is due.
    pub fn take_due(&mut self, now: Instant) -> Option<(usize, Kind)> {
        let &(at, token, kind) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(token, kind, None);
        Some((token, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn they_come_in_the_order_of_time_and_each_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::default();
        deadlines.set(7, Kind::Blocked, Some(at(20)));
        deadlines.set(3, Kind::Idle, Some(at(10)));
        deadlines.set(7, Kind::Idle, Some(at(30)));
        deadlines.set(9, Kind::Output, Some(at(5)));
        // Put off, brought forward, and cancelled.
        deadlines.set(3, Kind::Idle, Some(at(40)));
        deadlines.set(7, Kind::Idle, Some(at(15)));
        deadlines.forget(9);
        deadlines.set(100, Kind::Idle, None);
        assert_eq!((deadlines.next(), deadlines.get(9, Kind::Output)), (Some(at(15)), None));
        assert_eq!(deadlines.take_due(at(14)), None);
        assert_eq!(deadlines.take_due(at(20)), Some((7, Kind::Idle)));
        assert_eq!(deadlines.take_due(at(20)), Some((7, Kind::Blocked)));
        assert_eq!(deadlines.take_due(at(20)), None);
        assert_eq!(deadlines.take_due(at(40)), Some((3, Kind::Idle)));
        assert_eq!((deadlines.next(), deadlines.take_due(at(99))), (None, None));
    }
}
