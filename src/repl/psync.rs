//! PSYNC as the primary sees it: may the replica go on from where it was?

use super::id::{Coverage, History};

/// The bytes of the stream that are still kept: from `start` up to and without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Offset of the first byte that is kept.
    pub start: u64,
    /// Offset behind the last byte.
    pub end: u64,
}

/// The arguments of PSYNC. `?` and -1 ask for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The history that the replica followed, 40 characters.
    pub id: &'a [u8],
    /// The first byte wanted, counted from 1.
    pub from: i64,
}

/// The answer to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The stream from `offset` on brings it up to date, `bytes` of which are there already.
    Continue {
        /// Offset of its first byte in the log.
        offset: u64,
        /// Bytes of the log from there to its end.
        bytes: u64,
    },
    /// It must copy everything.
    Full(Refusal),
}

/// Why a replica cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It did not ask to.
    Requested,
    /// It followed another history.
    OtherHistory,
    /// It followed our former history beyond this offset.
    BeyondSecond(u64),
    /// What it misses is not kept any more, or it is ahead of us.
    OutOfWindow {
        /// True: it is ahead of us.
        ahead: bool,
    },
}

/// Decides a request. `window` is `None` while no stream is kept.
pub(super) fn decide(history: &History, window: Option<Window>, request: Request<'_>) -> Verdict {
    match history.covers(request.id, request.from) {
        Coverage::Foreign if request.id == b"?" => return Verdict::Full(Refusal::Requested),
        Coverage::Foreign => return Verdict::Full(Refusal::OtherHistory),
        Coverage::BeyondSecond(offset) => return Verdict::Full(Refusal::BeyondSecond(offset)),
        Coverage::Ours => {}
    }
    let end = window.map_or(0, |w| w.end);
    // The replica wants byte number `from`, which stands behind `from - 1` others.
    let offset = request.from.checked_sub(1).and_then(|n| u64::try_from(n).ok());
    match (window, offset) {
        (Some(w), Some(offset)) if (w.start..=w.end).contains(&offset) => {
            Verdict::Continue { offset, bytes: w.end - offset }
        }
        _ => Verdict::Full(Refusal::OutOfWindow { ahead: offset.is_some_and(|o| o > end) }),
    }
}

impl Refusal {
    /// The lines that say it in the log, for the replica called `name`.
    pub(super) fn lines(self, history: &History, request: Request<'_>, name: &str) -> Vec<String> {
        match self {
            Refusal::Requested => vec![format!("Full resync requested by replica {name}")],
            Refusal::OtherHistory => vec![format!(
                "Partial resynchronization not accepted: Replication ID mismatch \
                 (Replica asked for '{}', my replication IDs are '{}' and '{}')",
                request.id[..request.id.len().min(64)].escape_ascii(),
                history.id(),
                history.second_id()
            )],
            Refusal::BeyondSecond(offset) => vec![format!(
                "Partial resynchronization not accepted: Requested offset for second ID was {}, \
                 but I can reply up to {offset}",
                request.from
            )],
            Refusal::OutOfWindow { ahead } => {
                let mut lines = vec![format!(
                    "Unable to partial resync with replica {name} for lack of backlog (Replica request was: {}).",
                    request.from
                )];
                if ahead {
                    lines.push(format!(
                        "Warning: replica {name} tried to PSYNC with an offset that is greater than the \
                         master replication offset."
                    ));
                }
                lines
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn the_window_includes_both_ends() {
        let history = History::new(&mut Rng::new(1));
        let id = history.id();
        let ask = |from| {
            let request = Request { id: id.as_str().as_bytes(), from };
            decide(&history, Some(Window { start: 100, end: 150 }), request)
        };
        assert_eq!(ask(101), Verdict::Continue { offset: 100, bytes: 50 });
        assert_eq!(ask(151), Verdict::Continue { offset: 150, bytes: 0 });
        assert_eq!(ask(100), Verdict::Full(Refusal::OutOfWindow { ahead: false }));
        assert_eq!(ask(152), Verdict::Full(Refusal::OutOfWindow { ahead: true }));
        for odd in [0, -1, i64::MIN] {
            assert_eq!(ask(odd), Verdict::Full(Refusal::OutOfWindow { ahead: false }));
        }
    }

    #[test]
    fn without_a_window_everything_is_copied() {
        let history = History::new(&mut Rng::new(1));
        let id = history.id();
        let request = Request { id: id.as_str().as_bytes(), from: 1 };
        assert_eq!(decide(&history, None, request), Verdict::Full(Refusal::OutOfWindow { ahead: false }));
        let fresh = Request { id: b"?", from: -1 };
        assert_eq!(decide(&history, None, fresh), Verdict::Full(Refusal::Requested));
    }

    #[test]
    fn a_promoted_replica_serves_its_siblings() {
        let mut rng = Rng::new(1);
        let mut history = History::new(&mut rng);
        let old = history.id();
        history.promote(120, &mut rng);
        let ask =
            |id: &[u8], from| decide(&history, Some(Window { start: 0, end: 300 }), Request { id, from });
        assert_eq!(ask(old.as_str().as_bytes(), 121), Verdict::Continue { offset: 120, bytes: 180 });
        assert_eq!(ask(old.as_str().as_bytes(), 122), Verdict::Full(Refusal::BeyondSecond(121)));
        assert_eq!(ask(&[b'e'; 40], 122), Verdict::Full(Refusal::OtherHistory));
    }
}
