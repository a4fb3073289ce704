//! The letters that CLIENT LIST shows as a client's `flags`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::keyspace::watch::Dirty;

/// All of them, in the order in which they are shown.
const LETTERS: &str = "OSMPxbtRBdcUreT";

/// What the flags of a client in CLIENT LIST are made of. Some are set by other threads at any time, so they are read
/// only when they are shown.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The letters that only the client itself changes, by [`Marks::bit`].
    pub own: u32,
    /// Set once the client to which its invalidations go is gone; `None`: it does not track.
    pub broken: Option<Arc<AtomicBool>>,
    /// Set once a key that it watches has changed.
    pub dirty: Option<Dirty>,
}

impl Marks {
    /// The bit of a letter.
    pub fn bit(letter: char) -> u32 {
        LETTERS.find(letter).map_or(0, |at| 1 << at)
    }

    /// The flags of a client as letters; `N` if there are none. `blocked`: it is blocked on keys, or waits for the
    /// end of a pause.
    pub fn text(&self, blocked: bool) -> String {
        let set = |flag: &Option<Arc<AtomicBool>>| flag.as_ref().is_some_and(|f| f.load(Ordering::Relaxed));
        let others = [(blocked, 'b'), (set(&self.broken), 'R'), (set(&self.dirty), 'd')];
        let bits =
            others.iter().filter(|(on, _)| *on).fold(self.own, |bits, (_, letter)| bits | Self::bit(*letter));
        let text: String = LETTERS.chars().filter(|letter| bits & Self::bit(*letter) != 0).collect();
        if text.is_empty() { "N".to_owned() } else { text }
    }
}
