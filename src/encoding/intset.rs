//! An intset: sorted distinct integers of one width in one allocation.
//!
//! `<width u32: 2, 4 or 8><count u32><integer>...`, little endian. The bytes are those of Redis.

use super::Malformed;

const HEADER: usize = 8;

/// An owned intset. The width only grows, as in Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct IntSet {
    bytes: Vec<u8>,
}

impl Default for IntSet {
    fn default() -> Self {
        Self::new()
    }
}

impl IntSet {
    pub fn new() -> Self {
        Self { bytes: vec![2, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// Takes over untrusted bytes after a full check.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        validate(bytes, true)?;
        Ok(Self { bytes: bytes.to_vec() })
    }

    /// The set as files and links carry it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub fn len(&self) -> usize {
        (self.bytes.len() - HEADER) / self.width()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER
    }

    #[inline]
    fn width(&self) -> usize {
        usize::from(self.bytes[0])
    }

    /// The `index`th smallest member; `index < len`.
    #[inline]
    pub fn get(&self, index: usize) -> i64 {
        let w = self.width();
        let at = HEADER + index * w;
        read(&self.bytes[at..at + w])
    }

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
        let at = HEADER + index * w;
        let before = self.bytes.len();
        self.bytes.resize(before + w, 0);
        self.bytes.copy_within(at..before, at + w);
        self.bytes[at..at + w].copy_from_slice(&n.to_le_bytes()[..w]);
        self.write_count();
        true
    }

    /// Removes `n`; false if it was not there.
    pub fn remove(&mut self, n: i64) -> bool {
        if width_of(n) > self.width() {
            return false;
        }
        let Ok(index) = self.search(n) else { return false };
        let w = self.width();
        let at = HEADER + index * w;
        self.bytes.drain(at..at + w);
        self.write_count();
        true
    }

    /// Heap bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Members in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + Clone + '_ {
        self.bytes[HEADER..].chunks_exact(self.width()).map(read)
    }

    fn search(&self, n: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.get(middle).cmp(&n) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn widen(&mut self, width: usize) {
        let mut wide = Vec::with_capacity(HEADER + (self.len() + 1) * width);
        wide.extend_from_slice(&(width as u32).to_le_bytes());
        wide.extend_from_slice(&self.bytes[4..HEADER]);
        for n in self.iter() {
            wide.extend_from_slice(&n.to_le_bytes()[..width]);
        }
        self.bytes = wide;
    }

    fn write_count(&mut self) {
        let count = u32::try_from(self.len()).expect("the limit on intset entries is far below 4 G");
        self.bytes[4..HEADER].copy_from_slice(&count.to_le_bytes());
    }
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
