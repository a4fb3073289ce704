//! One entry of a listpack: `<encoding and value><backlen>`.
//!
//! | first byte | holds |
//! |---|---|
//! | `0xxxxxxx` | 0 to 127 |
//! | `10xxxxxx` | string of up to 63 bytes |
//! | `110xxxxx` + 1 | signed 13-bit integer |
//! | `1110xxxx` + 1 | string of up to 4095 bytes |
//! | `0xf0` + 4 | string, 32-bit length |
//! | `0xf1` to `0xf4` | little-endian integer of 16, 24, 32, 64 bits |
//!
//! The backlen is the length of what precedes it, seven bits a byte, so that a reader may walk backwards. A [`BARE`]
//! entry has none: collections that nobody reads backwards do without it in memory. Source: the listpack
//! specification.

use super::Item;
use crate::base::num::parse_i64;

/// Marks the end of a listpack.
pub const END: u8 = 0xff;

/// Entries have a backlen: those of a listpack as files carry it.
pub const BACKED: bool = true;
/// Entries have no backlen.
pub const BARE: bool = false;

/// A value in the one form in which we store it. Two values are equal if and only if these bytes are.
#[derive(Clone, Debug)]
pub struct Encoded<'a> {
    head: [u8; 9],
    head_len: u8,
    body: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// Text that spells an integer in canonical form becomes that integer.
    #[inline]
    pub fn text(text: &'a [u8]) -> Self {
        match parse_i64(text) {
            Some(n) => Self::int(n),
            None => Self::string(text),
        }
    }

    /// As [`text`](Self::text), for an element that was read from somewhere else.
    pub fn item(item: Item<'a>) -> Self {
        match item {
            Item::Bytes(b) => Self::text(b),
            Item::Int(n) => Self::int(n),
        }
    }

    #[inline]
    fn string(body: &'a [u8]) -> Self {
        let mut head = [0; 9];
        let n = body.len();
        let head_len = if n < 64 {
            head[0] = 0x80 | n as u8;
            1
        } else if n < 4096 {
            head[0] = 0xe0 | (n >> 8) as u8;
            head[1] = n as u8;
            2
        } else {
            head[0] = 0xf0;
            head[1..5].copy_from_slice(&(n as u32).to_le_bytes());
            5
        };
        Self { head, head_len, body }
    }

    /// An integer, in the shortest form that holds it.
    pub fn int(n: i64) -> Self {
        let mut head = [0; 9];
        let le = n.to_le_bytes();
        let head_len = match n {
            0..=127 => {
                head[0] = n as u8;
                1
            }
            -4096..=4095 => {
                head[0] = 0xc0 | ((n >> 8) as u8 & 0x1f);
                head[1] = n as u8;
                2
            }
            _ => {
                let (mark, width) = match n {
                    -0x8000..=0x7fff => (0xf1, 2),
                    -0x80_0000..=0x7f_ffff => (0xf2, 3),
                    -0x8000_0000..=0x7fff_ffff => (0xf3, 4),
                    _ => (0xf4, 8),
                };
                head[0] = mark;
                head[1..=width].copy_from_slice(&le[..width]);
                width as u8 + 1
            }
        };
        Self { head, head_len, body: &[] }
    }

    /// Bytes before the backlen.
    #[inline]
    fn content_len(&self) -> usize {
        usize::from(self.head_len) + self.body.len()
    }

    /// Bytes of the whole entry.
    #[inline]
    pub fn size<const BACK: bool>(&self) -> usize {
        whole::<BACK>(self.content_len())
    }

    /// Writes the entry over `out`, which is exactly [`Encoded::size`] bytes.
    #[inline]
    pub fn write<const BACK: bool>(&self, out: &mut [u8]) {
        let (head, rest) = out.split_at_mut(usize::from(self.head_len));
        head.copy_from_slice(&self.head[..usize::from(self.head_len)]);
        let (body, back) = rest.split_at_mut(self.body.len());
        body.copy_from_slice(self.body);
        if BACK {
            write_backlen(self.content_len(), back);
        }
    }

    /// Appends the entry to `out`.
    #[inline]
    pub fn append_to<const BACK: bool>(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[..usize::from(self.head_len)]);
        out.extend_from_slice(self.body);
        if BACK {
            append_backlen(self.content_len(), out);
        }
    }

    /// Whether the entry that `bytes` starts with holds this value.
    #[inline]
    pub fn starts(&self, bytes: &[u8]) -> bool {
        let h = usize::from(self.head_len);
        bytes.len() >= self.content_len()
            && bytes[..h] == self.head[..h]
            && bytes[h..h + self.body.len()] == *self.body
    }
}

/// Bytes that the backlen of a content of `n` bytes takes. The odd limits are those of Redis.
#[inline]
pub fn backlen_size(n: usize) -> usize {
    match n {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// Bytes of an entry with so many before its backlen.
#[inline]
fn whole<const BACK: bool>(content: usize) -> usize {
    if BACK { content + backlen_size(content) } else { content }
}

/// Appends the backlen of a content of `n` bytes.
#[inline]
pub fn append_backlen(n: usize, out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + backlen_size(n), 0);
    write_backlen(n, &mut out[at..]);
}

#[inline]
fn write_backlen(mut n: usize, out: &mut [u8]) {
    for (i, b) in out.iter_mut().enumerate().rev() {
        *b = (n & 127) as u8 | if i == 0 { 0 } else { 128 };
        n >>= 7;
    }
}

/// The content length of the entry that ends where `bytes` ends, read from its backlen.
#[inline]
fn read_backlen(bytes: &[u8]) -> Option<usize> {
    let mut n = 0;
    for (i, &b) in bytes.iter().rev().take(5).enumerate() {
        n |= usize::from(b & 127) << (7 * i);
        if b & 128 == 0 {
            return Some(n);
        }
    }
    None
}

/// Length of the entry that ends where `bytes` ends. The bytes were validated.
#[inline]
pub fn len_before(bytes: &[u8]) -> usize {
    let n = read_backlen(bytes).expect("a validated listpack has whole backlens");
    n + backlen_size(n)
}

/// Bytes before the backlen of the entry that `bytes` starts with; `None` where it is cut off or is the end mark.
#[inline]
fn content_len(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    // Short strings and small integers are nearly all there is.
    if first & 0xc0 == 0x80 {
        return Some(1 + usize::from(first & 0x3f));
    }
    Some(match first {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        b @ 0xe0..=0xef => 2 + (usize::from(b & 0x0f) << 8) + usize::from(*bytes.get(1)?),
        0xf0 => 5 + u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?) as usize,
        0xf1 => 3,
        0xf2 => 4,
        0xf3 => 5,
        0xf4 => 9,
        _ => return None,
    })
}

/// Length of the entry that `bytes` starts with. The bytes were validated and are not at the end mark.
#[inline]
pub fn len_at<const BACK: bool>(bytes: &[u8]) -> usize {
    whole::<BACK>(content_len(bytes).expect("an entry of a validated listpack"))
}

/// The entry that `bytes` starts with, and its length. The bytes were validated and are not at the end mark.
#[inline]
pub fn decode<const BACK: bool>(bytes: &[u8]) -> (Item<'_>, usize) {
    let first = bytes[0];
    // Short strings and small integers are nearly all there is.
    if first & 0xc0 == 0x80 {
        let n = usize::from(first & 0x3f);
        return (Item::Bytes(&bytes[1..=n]), whole::<BACK>(n + 1));
    }
    if first < 0x80 {
        return (Item::Int(i64::from(first)), whole::<BACK>(1));
    }
    let (item, content) = decode_rare(bytes);
    (item, whole::<BACK>(content))
}

/// As [`decode`], and the bytes before the backlen.
fn decode_rare(bytes: &[u8]) -> (Item<'_>, usize) {
    let n = content_len(bytes).expect("an entry of a validated listpack");
    let int = |width: usize| {
        let mut le = [0; 8];
        le[8 - width..].copy_from_slice(&bytes[1..=width]);
        Item::Int(i64::from_le_bytes(le) >> (64 - 8 * width))
    };
    let item = match bytes[0] {
        b @ 0xc0..=0xdf => {
            let raw = (i64::from(b & 0x1f) << 8) | i64::from(bytes[1]);
            Item::Int(if raw > 4095 { raw - 8192 } else { raw })
        }
        0xe0..=0xef => Item::Bytes(&bytes[2..n]),
        0xf0 => Item::Bytes(&bytes[5..n]),
        0xf1 => int(2),
        0xf2 => int(3),
        0xf3 => int(4),
        _ => int(8),
    };
    (item, n)
}

/// The length of the entry that untrusted `bytes` start with: whole, and its backlen right.
pub fn check(bytes: &[u8]) -> Option<usize> {
    let n = content_len(bytes)?;
    let total = n.checked_add(backlen_size(n))?;
    let entry = bytes.get(..total)?;
    // The backlen must be what a backward walk reads, and take the bytes that it should.
    let mut back = [0; 5];
    let back = &mut back[..total - n];
    write_backlen(n, back);
    (entry[n..] == *back).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an entry with its backlen and without, reads both back, and returns the one with it.
    fn comes_back(e: &Encoded<'_>, item: Item<'_>) -> Vec<u8> {
        fn check<const BACK: bool>(e: &Encoded<'_>, item: Item<'_>) -> Vec<u8> {
            let mut bytes = vec![0; e.size::<BACK>()];
            e.write::<BACK>(&mut bytes);
            let mut appended = Vec::new();
            e.append_to::<BACK>(&mut appended);
            assert_eq!(appended, bytes);
            assert_eq!(decode::<BACK>(&bytes), (item, bytes.len()));
            assert_eq!(len_at::<BACK>(&bytes), bytes.len());
            assert!(e.starts(&bytes));
            bytes
        }
        let (backed, bare) = (check::<BACKED>(e, item), check::<BARE>(e, item));
        assert_eq!(backed[..bare.len()], bare);
        backed
    }

    #[test]
    fn integers_of_every_width_come_back() {
        let mut numbers = vec![0, 1, 127, 128, -1, -4096, -4097, 4095, 4096, i64::MIN, i64::MAX];
        for shift in [15, 16, 23, 24, 31, 32, 62] {
            let n = 1i64 << shift;
            numbers.extend([n - 1, n, n + 1, -n - 1, -n, -n + 1]);
        }
        for n in numbers {
            let e = Encoded::int(n);
            let bytes = comes_back(&e, Item::Int(n));
            assert_eq!(check(&bytes), Some(bytes.len()));
            assert_eq!(len_before(&bytes), bytes.len());
        }
    }

    #[test]
    fn strings_of_every_length_class_come_back() {
        for n in [0, 1, 63, 64, 125, 126, 127, 4095, 4096, 16_377, 16_378, 16_379, 2_097_146, 2_097_150] {
            let text = vec![b'x'; n];
            let e = Encoded::text(&text);
            let bytes = comes_back(&e, Item::Bytes(&text));
            assert_eq!(check(&bytes), Some(bytes.len()));
            assert_eq!(len_before(&bytes), bytes.len());
            assert_eq!(check(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn the_specified_bytes() {
        let of = |e: Encoded| {
            let mut out = vec![0; e.size::<BACKED>()];
            e.write::<BACKED>(&mut out);
            out
        };
        assert_eq!(of(Encoded::text(b"5")), [5, 1]);
        assert_eq!(of(Encoded::text(b"hi")), [0x82, b'h', b'i', 3]);
        assert_eq!(of(Encoded::text(b"-1")), [0xdf, 0xff, 2]);
        assert_eq!(of(Encoded::text(b"32767")), [0xf1, 0xff, 0x7f, 3]);
        assert_eq!(of(Encoded::text(b"007")), [0x83, b'0', b'0', b'7', 4]);
    }
}
