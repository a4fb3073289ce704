//! Zipmaps, the compact hashes of Redis before 2.6: read once, never written.
//!
//! `<count><length>field<length><free>value<free bytes>...<0xff>`; a length is one byte below 254, or 254 and
//! four bytes, little-endian. Source: the comment at the head of Redis's zipmap.

use crate::encoding::{Dense, Malformed};

const BAD: Malformed = Malformed("zipmap");
const END: u8 = 0xff;

/// The pairs of an untrusted zipmap, field and value in turn.
pub(super) fn to_listpack(bytes: &[u8]) -> Result<Dense, Malformed> {
    let (_count, mut rest) = bytes.split_first().ok_or(BAD)?;
    let mut pairs = Dense::new();
    loop {
        match *rest {
            [END] => return Ok(pairs),
            [] | [END, ..] => return Err(BAD),
            _ => {}
        }
        let (field, after) = text(rest, 0)?;
        let (value, after) = text(after, 1)?;
        pairs.push_back(field);
        pairs.push_back(value);
        rest = after;
    }
}

/// A text and what follows it. After the length stand `gap_width` bytes (0 or 1) that say how many unused
/// bytes follow the text.
fn text(bytes: &[u8], gap_width: usize) -> Result<(&[u8], &[u8]), Malformed> {
    let (length, rest) = match *bytes {
        [254, a, b, c, d, ref rest @ ..] => (u32::from_le_bytes([a, b, c, d]) as usize, rest),
        [short @ 0..254, ref rest @ ..] => (usize::from(short), rest),
        _ => return Err(BAD),
    };
    let (gap, rest) = rest.split_at_checked(gap_width).ok_or(BAD)?;
    let (text, rest) = rest.split_at_checked(length).ok_or(BAD)?;
    let gap = gap.first().map_or(0, |&gap| usize::from(gap));
    Ok((text, rest.get(gap..).ok_or(BAD)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world\0\0\xff";

    #[test]
    fn pairs_come_out_without_their_gaps() {
        let pairs = to_listpack(SAMPLE).unwrap();
        let texts: Vec<_> = pairs.iter().map(|i| i.to_vec()).collect();
        assert_eq!(texts, [b"foo".to_vec(), b"bar".to_vec(), b"hello".to_vec(), b"world".to_vec()]);
        let long = [b"\x01\xfe\x04\0\0\0long\x01\0x\xff".as_slice()].concat();
        assert_eq!(to_listpack(&long).unwrap().len(), 2);
    }

    #[test]
    fn every_cut_is_refused() {
        for cut in 0..SAMPLE.len() {
            assert!(to_listpack(&SAMPLE[..cut]).is_err(), "{cut}");
        }
        assert!(to_listpack(b"\x01\xfe\xff\xff\xff\xffab\xff").is_err());
        assert!(to_listpack(b"\x00\xff\xff").is_err());
    }
}
