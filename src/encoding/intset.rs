//! An intset: sorted distinct integers of one width in one allocation.
//!
//! `<width u32: 2, 4 or 8><count u32><integer>...`, little endian. The bytes are those of Redis.

use super::Malformed;
use super::framed::{Frame, Framed};

const HEADER: usize = 8;

/// An owned intset. The width only grows, as in Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct IntSet(Framed<WidthAndCount>);

struct WidthAndCount;

impl Frame for WidthAndCount {
    const HEADER: usize = HEADER;

    #[inline]
    fn total(header: &[u8]) -> usize {
        let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        HEADER + usize::from(header[0]) * count as usize
    }
}

impl Default for IntSet {
    fn default() -> Self {
        Self::new()
    }
}

impl IntSet {
    /// A set without members, of 16-bit integers.
    pub fn new() -> Self {
        Self(Framed::new(&[2, 0, 0, 0, 0, 0, 0, 0]))
    }

    /// Takes over untrusted bytes after a full check.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        validate(bytes, true)?;
        Ok(Self(Framed::new(bytes)))
    }

    /// The set as files and links carry it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        let bytes = self.as_bytes();
        u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize
    }

    /// Whether there is no member.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.total() == HEADER
    }

    #[inline]
    fn width(&self) -> usize {
        usize::from(self.as_bytes()[0])
    }

    /// The `index`th smallest member; `index < len`.
    #[inline]
    pub fn get(&self, index: usize) -> i64 {
        let w = self.width();
        let at = HEADER + index * w;
        read(&self.as_bytes()[at..at + w])
    }

    /// Whether `n` is a member; a binary search.
    #[inline]
    pub fn contains(&self, n: i64) -> bool {
        width_of(n) <= self.width() && self.search(n).is_ok()
    }

    /// Adds `n`; false if it was there.
    pub fn insert(&mut self, n: i64) -> bool {
        if width_of(n) > self.width() {
            self.widen(width_of(n));
        }
        let Err(index) = self.search(n) else { return false };
        let w = self.width();
        let header = header(w, self.len() + 1);
        self.0.splice(&header, HEADER + index * w, 0, w, |gap| gap.copy_from_slice(&n.to_le_bytes()[..w]));
        true
    }

    /// Removes `n`; false if it was not there.
    pub fn remove(&mut self, n: i64) -> bool {
        if width_of(n) > self.width() {
            return false;
        }
        let Ok(index) = self.search(n) else { return false };
        let w = self.width();
        let header = header(w, self.len() - 1);
        self.0.splice(&header, HEADER + index * w, w, 0, |_| {});
        true
    }

    /// Heap bytes.
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    /// Members in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + Clone + '_ {
        self.as_bytes()[HEADER..].chunks_exact(self.width()).map(read)
    }

    fn search(&self, n: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.get(middle).cmp(&n) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn widen(&mut self, width: usize) {
        let mut wide = Vec::with_capacity(HEADER + self.len() * width);
        wide.extend_from_slice(&header(width, self.len()));
        for n in self.iter() {
            wide.extend_from_slice(&n.to_le_bytes()[..width]);
        }
        self.0 = Framed::new(&wide);
    }
}

fn header(width: usize, count: usize) -> [u8; HEADER] {
    let count = u32::try_from(count).expect("the limit on intset entries is far below 4 G");
    let mut header = [0; HEADER];
    header[0] = width as u8;
    header[4..].copy_from_slice(&count.to_le_bytes());
    header
}

impl std::fmt::Debug for IntSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

fn width_of(n: i64) -> usize {
    if i16::try_from(n).is_ok() {
        2
    } else if i32::try_from(n).is_ok() {
        4
    } else {
        8
    }
}

#[inline]
fn read(bytes: &[u8]) -> i64 {
    match *bytes {
        [a, b] => i16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => unreachable!("the width is 2, 4 or 8"),
    }
}

/// Checks untrusted bytes: the frame, and with `deep` that the members ascend.
pub fn validate(bytes: &[u8], deep: bool) -> Result<(), Malformed> {
    let bad = Malformed("intset");
    let Some((head, body)) = bytes.split_at_checked(HEADER) else { return Err(bad) };
    let width = match u32::from_le_bytes([head[0], head[1], head[2], head[3]]) {
        w @ (2 | 4 | 8) => w as usize,
        _ => return Err(bad),
    };
    let count = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    if body.len() != count * width {
        return Err(bad);
    }
    if deep && !body.chunks_exact(width).map(read).is_sorted_by(|a, b| a < b) {
        return Err(bad);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::rng::Rng;

    /// The bytes that DUMP of redis-server 7.0.15 shows for `SADD s 5 1 3`, then `SADD s 100000`, then
    /// `SADD s -5000000000`.
    #[test]
    fn the_bytes_of_redis() {
        let mut s = IntSet::new();
        for n in [5, 1, 3] {
            assert!(s.insert(n));
        }
        assert_eq!(s.as_bytes(), b"\x02\0\0\0\x03\0\0\0\x01\0\x03\0\x05\0");
        s.insert(100_000);
        assert_eq!(s.as_bytes(), b"\x04\0\0\0\x04\0\0\0\x01\0\0\0\x03\0\0\0\x05\0\0\0\xa0\x86\x01\0");
        s.insert(-5_000_000_000);
        assert_eq!(s.as_bytes()[..16], *b"\x08\0\0\0\x05\0\0\0\0\x0e\xfa\xd5\xfe\xff\xff\xff");
    }

    #[test]
    fn behaves_as_a_sorted_set_of_integers() {
        let mut rng = Rng::new(4);
        let (mut s, mut model) = (IntSet::new(), BTreeSet::new());
        for round in 0..if cfg!(miri) { 300 } else { 20_000u64 } {
            let n = (rng.next_u64() as i64) >> (63 - rng.below(5 + round % 59));
            match rng.below(3) {
                0 => assert_eq!(s.remove(n), model.remove(&n)),
                1 => assert_eq!(s.contains(n), model.contains(&n)),
                _ => assert_eq!(s.insert(n), model.insert(n)),
            }
            assert_eq!(s.len(), model.len());
        }
        assert!(s.iter().eq(model.iter().copied()));
        assert!((0..s.len()).map(|i| s.get(i)).eq(model));
        assert_eq!(IntSet::from_bytes(s.as_bytes()), Ok(s));
    }

    #[test]
    fn damaged_bytes_are_refused() {
        for bad in [
            &b""[..],
            b"\x02\0\0\0\x01\0\0",
            b"\x03\0\0\0\0\0\0\0",
            b"\x02\x01\0\0\0\0\0\0",
            b"\x02\0\0\0\x02\0\0\0\x01\0",
            b"\x02\0\0\0\x02\0\0\0\x01\0\x01\0",
            b"\x02\0\0\0\x02\0\0\0\x02\0\x01\0",
            b"\x02\0\0\0\xff\xff\xff\xff\x01\0",
        ] {
            assert!(IntSet::from_bytes(bad).is_err(), "{bad:?}");
        }
    }
}
