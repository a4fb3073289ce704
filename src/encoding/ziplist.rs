//! Ziplists: what files of Redis before 7 hold instead of listpacks. Read only; they become listpacks.
//!
//! `<total bytes u32><offset of the last entry u32><count u16><entry>...<0xff>`, an entry being
//! `<length of the previous entry><encoding><value>`. Source: the RDB file format's description.

use super::listpack::Packed;
use super::{Item, Malformed};

const HEADER: usize = 10;
const END: u8 = 0xff;
const BAD: Malformed = Malformed("ziplist");

/// Converts untrusted ziplist bytes into a listpack with the same values.
pub fn to_listpack<const BACK: bool>(bytes: &[u8]) -> Result<Packed<BACK>, Malformed> {
    let mut out = Packed::new();
    for_each(bytes, |item| out.push_back_item(item))?;
    Ok(out)
}

/// Calls `f` with every value of untrusted ziplist bytes, in order.
pub fn for_each<'a>(bytes: &'a [u8], mut f: impl FnMut(Item<'a>)) -> Result<(), Malformed> {
    let u32_at = |i: usize| Some(u32::from_le_bytes(bytes.get(i..i + 4)?.try_into().ok()?) as usize);
    let total = u32_at(0).ok_or(BAD)?;
    let tail = u32_at(4).ok_or(BAD)?;
    if total != bytes.len() || total < HEADER + 1 || bytes[total - 1] != END {
        return Err(BAD);
    }
    let told = u16::from_le_bytes([bytes[8], bytes[9]]);
    let (mut at, mut last, mut previous_len, mut count) = (HEADER, HEADER, 0, 0usize);
    while at < total - 1 {
        let (item, previous, len) = one(&bytes[at..total - 1]).ok_or(BAD)?;
        if previous != previous_len {
            return Err(BAD);
        }
        f(item);
        (last, previous_len) = (at, len);
        at += len;
        count += 1;
    }
    if tail != last || (told != u16::MAX && usize::from(told) != count) {
        return Err(BAD);
    }
    Ok(())
}

/// One entry: its value, the length of the one before as it states it, and its own length.
fn one(b: &[u8]) -> Option<(Item<'_>, usize, usize)> {
    let (previous, at) = match *b.first()? {
        254 => (u32::from_le_bytes(b.get(1..5)?.try_into().ok()?) as usize, 5),
        255 => return None,
        n => (usize::from(n), 1),
    };
    let first = *b.get(at)?;
    let string = |from: usize, n: usize| {
        let to = from.checked_add(n)?;
        Some((Item::Bytes(b.get(from..to)?), previous, to))
    };
    let int = |width: usize| {
        let mut le = [0; 8];
        le[8 - width..].copy_from_slice(b.get(at + 1..=at + width)?);
        Some((Item::Int(i64::from_le_bytes(le) >> (64 - 8 * width)), previous, at + 1 + width))
    };
    match first {
        0..=0x3f => string(at + 1, usize::from(first)),
        0x40..=0x7f => string(at + 2, usize::from(first & 0x3f) << 8 | usize::from(*b.get(at + 1)?)),
        0x80 => {
            let n = u32::from_be_bytes(b.get(at + 1..at + 5)?.try_into().ok()?);
            string(at + 5, n as usize)
        }
        0xc0 => int(2),
        0xd0 => int(4),
        0xe0 => int(8),
        0xf0 => int(3),
        0xfe => int(1),
        0xf1..=0xfd => Some((Item::Int(i64::from(first & 0x0f) - 1), previous, at + 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::encoding::entry::BARE;

    /// `RPUSH l one 2 -3 300 70000 5000000000` and a 70-byte string, as Redis 6 wrote it.
    fn sample() -> Vec<u8> {
        let mut entries: Vec<Vec<u8>> = vec![
            [&[3][..], b"one"].concat(),
            vec![0xf3],
            vec![0xfe, 0xfd],
            vec![0xc0, 0x2c, 0x01],
            vec![0xf0, 0x70, 0x11, 0x01],
            vec![0xe0, 0x00, 0xf2, 0x05, 0x2a, 0x01, 0, 0, 0],
        ];
        entries.push([&[0x40, 70][..], &[b'x'; 70]].concat());
        let mut body = Vec::new();
        let (mut previous, mut last) = (0, 0);
        for e in entries {
            last = HEADER + body.len();
            body.push(previous as u8);
            body.extend_from_slice(&e);
            previous = e.len() + 1;
        }
        let total = HEADER + body.len() + 1;
        [&(total as u32).to_le_bytes()[..], &(last as u32).to_le_bytes(), &7u16.to_le_bytes(), &body, &[END]]
            .concat()
    }

    #[test]
    fn every_value_arrives() {
        let got: Vec<Vec<u8>> = to_listpack::<BARE>(&sample()).unwrap().iter().map(|i| i.to_vec()).collect();
        let long = "x".repeat(70);
        assert_eq!(
            got,
            ["one", "2", "-3", "300", "70000", "5000000000", &long].map(|s| s.as_bytes().to_vec())
        );
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_without_a_panic() {
        let good = sample();
        let mut rng = Rng::new(3);
        for _ in 0..5000 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            let _ = to_listpack::<BARE>(&bytes);
        }
        for cut in 0..good.len() {
            assert!(to_listpack::<BARE>(&good[..cut]).is_err());
        }
    }
}
