//! Replication ids. An id names one history of data; a node knows the id of the history that it continues and,
//! after a promotion, the one that it shares a beginning with.

use std::fmt;

use crate::base::rng::Rng;

/// Forty characters, of our own making hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReplId([u8; 40]);

impl ReplId {
    /// A new name for a history, drawn from `rng`.
    pub fn random(rng: &mut Rng) -> Self {
        let mut raw = [0; 20];
        rng.fill(&mut raw);
        let mut text = [0; 40];
        for (pair, byte) in text.chunks_exact_mut(2).zip(raw) {
            pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
        }
        Self(text)
    }

    /// The id that `text` spells: forty visible characters.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: [u8; 40] = text.try_into().ok()?;
        text.iter().all(u8::is_ascii_graphic).then_some(Self(text))
    }

    /// The 40 characters as the wire and INFO show them.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ids are made of visible characters")
    }

    fn is(&self, text: &[u8]) -> bool {
        self.0.eq_ignore_ascii_case(text)
    }
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which histories this node's stream continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    id: ReplId,
    /// The history that ours was before, and the first PSYNC offset at which the two differ.
    second: Option<(ReplId, u64)>,
}

impl History {
    /// A history that nobody shares yet.
    pub fn new(rng: &mut Rng) -> Self {
        Self { id: ReplId::random(rng), second: None }
    }

    /// What a primary continues after a restart with the id and offset that its file kept: the file's data are a
    /// point of the old history, and what follows is new.
    pub fn restarted(old: ReplId, offset: u64, rng: &mut Rng) -> Self {
        Self { id: ReplId::random(rng), second: Some((old, offset + 1)) }
    }

    /// Field `master_replid`: the name of what this node writes or follows.
    pub fn id(&self) -> ReplId {
        self.id
    }

    /// Field `master_replid2`: forty zeros where there is none.
    pub fn second_id(&self) -> String {
        self.second.map_or_else(|| "0".repeat(40), |(id, _)| id.to_string())
    }

    /// Field `second_repl_offset`: the first offset that the second id is not good for; -1 where there is none.
    pub fn second_offset(&self) -> i64 {
        self.second.map_or(-1, |(_, offset)| offset as i64)
    }

    /// A promotion at `offset`: the old id stays good up to there, so that siblings go on by partial
    /// resynchronisation. Returns the line to log.
    pub fn promote(&mut self, offset: u64, rng: &mut Rng) -> String {
        self.continue_as(ReplId::random(rng), offset);
        format!(
            "Setting secondary replication ID to {}, valid up to offset: {}. New replication ID is {}",
            self.second_id(),
            self.second_offset(),
            self.id
        )
    }

    /// Our primary continues our history under another id from `offset` on (`+CONTINUE` with an id).
    /// The same id changes nothing.
    pub fn continue_as(&mut self, id: ReplId, offset: u64) {
        if id != self.id {
            self.second = Some((self.id, offset + 1));
            self.id = id;
        }
    }

    /// We now hold the data of another history (after a full synchronisation).
    pub fn adopt(&mut self, id: ReplId) {
        *self = Self { id, second: None };
    }

    /// Nobody can continue from what we were: the stream was not kept for a while.
    pub fn forget(&mut self, rng: &mut Rng) {
        *self = Self::new(rng);
    }

    /// Whether a replica that followed `id` and wants the stream from PSYNC offset `from` on shares our history.
    pub(super) fn covers(&self, id: &[u8], from: i64) -> Coverage {
        if self.id.is(id) {
            return Coverage::Ours;
        }
        match &self.second {
            Some((second, valid_to)) if second.is(id) => {
                if u64::try_from(from).is_ok_and(|from| from <= *valid_to) {
                    Coverage::Ours
                } else {
                    Coverage::BeyondSecond(*valid_to)
                }
            }
            _ => Coverage::Foreign,
        }
    }
}

/// How a replica's history relates to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    Ours,
    /// It followed our second id beyond the point given, where we went another way.
    BeyondSecond(u64),
    Foreign,
}

/// A point in a history, and the database that the stream has selected there: what a saved file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedPosition {
    /// Names the history.
    pub id: ReplId,
    /// Bytes of it that the file holds.
    pub offset: u64,
    /// The next record of the stream runs there, unless it says SELECT.
    pub db: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forty_hexadecimal_digits() {
        let id = ReplId::random(&mut Rng::new(1));
        assert!(id.as_str().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_eq!(ReplId::parse(id.as_str().as_bytes()), Some(id));
        assert_eq!(ReplId::parse(b"?"), None);
        assert_eq!(ReplId::parse(&[b' '; 40]), None);
        assert_ne!(id, ReplId::random(&mut Rng::new(2)));
    }

    #[test]
    fn a_promotion_keeps_the_old_id_up_to_its_offset() {
        let mut rng = Rng::new(1);
        let mut history = History::new(&mut rng);
        assert_eq!((history.second_id(), history.second_offset()), ("0".repeat(40), -1));
        let old = history.id();
        let line = history.promote(100, &mut rng);
        assert!(line.contains(&format!("{old}, valid up to offset: 101. New")), "{line}");
        assert_eq!((history.second_id(), history.second_offset()), (old.to_string(), 101));
        let covers = |id: ReplId, from| history.covers(id.as_str().as_bytes(), from);
        assert_eq!(covers(history.id(), 500), Coverage::Ours);
        assert_eq!(covers(old, 101), Coverage::Ours);
        assert_eq!(covers(old, 102), Coverage::BeyondSecond(101));
        assert_eq!(covers(old, -1), Coverage::BeyondSecond(101));
        assert_eq!(history.covers(b"?", -1), Coverage::Foreign);
        history.forget(&mut rng);
        assert_eq!(history.covers(old.as_str().as_bytes(), 50), Coverage::Foreign);
    }
}
