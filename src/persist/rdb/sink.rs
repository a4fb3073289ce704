//! Lengths and strings on the way out.
//!
//! A length is 6 bits in one byte (`00`), 14 bits in two (`01`), 32 bits after `0x80` or 64 bits after `0x81`,
//! big-endian. `11` in the upper bits marks a string in a special form: an integer of 1, 2 or 4 bytes
//! (little-endian), or LZF.

use crate::base::num::parse_i64;
use crate::encoding::lzf;

pub(super) const LENGTH_32: u8 = 0x80;
pub(super) const LENGTH_64: u8 = 0x81;
pub(super) const STRING_INT8: u8 = 0xc0;
pub(super) const STRING_INT16: u8 = 0xc1;
pub(super) const STRING_INT32: u8 = 0xc2;
pub(super) const STRING_LZF: u8 = 0xc3;

/// Strings up to this many bytes may be an integer of 32 bits.
pub(super) const INTEGER_TEXT_MAX: usize = 11;
/// Strings up to this many bytes are not worth compressing.
const COMPRESS_ABOVE: usize = 20;

#[inline]
pub(super) fn put_length(out: &mut Vec<u8>, length: u64) {
    if length < 1 << 6 {
        out.push(length as u8);
    } else if length < 1 << 14 {
        out.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes());
    } else if let Ok(length) = u32::try_from(length) {
        out.push(LENGTH_32);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(LENGTH_64);
        out.extend_from_slice(&length.to_be_bytes());
    }
}

/// A string in its shortest form; LZF is tried only if `compress`.
#[inline]
pub(super) fn put_string(out: &mut Vec<u8>, bytes: &[u8], compress: bool) {
    if bytes.len() <= INTEGER_TEXT_MAX {
        if let Some(n) = parse_i64(bytes)
            && put_small_integer(out, n)
        {
            return;
        }
    } else if compress && bytes.len() > COMPRESS_ABOVE && put_compressed(out, bytes) {
        return;
    }
    put_plain(out, bytes);
}

/// A string as it is. For bytes that are known to be no number and too short to compress.
#[inline]
pub(super) fn put_plain(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The decimal text of `n`, as a string.
pub(super) fn put_integer(out: &mut Vec<u8>, n: i64) {
    if !put_small_integer(out, n) {
        put_plain(out, itoa::Buffer::new().format(n).as_bytes());
    }
}

fn put_small_integer(out: &mut Vec<u8>, n: i64) -> bool {
    if let Ok(n) = i8::try_from(n) {
        out.extend_from_slice(&[STRING_INT8, n as u8]);
    } else if let Ok(n) = i16::try_from(n) {
        let [a, b] = n.to_le_bytes();
        out.extend_from_slice(&[STRING_INT16, a, b]);
    } else if let Ok(n) = i32::try_from(n) {
        let [a, b, c, d] = n.to_le_bytes();
        out.extend_from_slice(&[STRING_INT32, a, b, c, d]);
    } else {
        return false;
    }
    true
}

/// A string of so many bytes in its LZF form.
pub(super) fn put_lzf(out: &mut Vec<u8>, lzf: &[u8], bytes: usize) {
    put_lzf_head(out, lzf.len(), bytes);
    out.extend_from_slice(lzf);
}

fn put_lzf_head(out: &mut Vec<u8>, compressed: usize, bytes: usize) {
    out.push(STRING_LZF);
    put_length(out, compressed as u64);
    put_length(out, bytes as u64);
}

/// LZF if it saves at least four bytes, which its second length may cost.
fn put_compressed(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    // The compressed length stands before the data, so room for the longest head is kept and closed up.
    let start = out.len();
    const HEAD: usize = 1 + 9 + 9;
    out.extend_from_slice(&[0; HEAD]);
    if !lzf::compress(bytes, bytes.len() - 4, out) {
        out.truncate(start);
        return false;
    }
    let compressed = out.len() - start - HEAD;
    let mut head = Vec::with_capacity(HEAD);
    put_lzf_head(&mut head, compressed, bytes.len());
    out[start..start + head.len()].copy_from_slice(&head);
    out.copy_within(start + HEAD.., start + head.len());
    out.truncate(start + head.len() + compressed);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8], compress: bool) -> Vec<u8> {
        let mut out = vec![];
        put_string(&mut out, bytes, compress);
        out
    }

    #[test]
    fn lengths_in_golden_bytes() {
        for (n, want) in [
            (0, &[0x00][..]),
            (63, &[0x3f]),
            (64, &[0x40, 0x40]),
            (16383, &[0x7f, 0xff]),
            (16384, &[0x80, 0, 0, 0x40, 0]),
            (u64::from(u32::MAX), &[0x80, 0xff, 0xff, 0xff, 0xff]),
            (1 << 32, &[0x81, 0, 0, 0, 1, 0, 0, 0, 0]),
        ] {
            let mut out = vec![];
            put_length(&mut out, n);
            assert_eq!(out, want, "{n}");
        }
    }

    #[test]
    fn strings_in_golden_bytes() {
        assert_eq!(string(b"", true), [0]);
        assert_eq!(string(b"abc", true), b"\x03abc");
        assert_eq!(string(b"-128", true), [0xc0, 0x80]);
        assert_eq!(string(b"128", true), [0xc1, 0x80, 0]);
        assert_eq!(string(b"-32769", true), [0xc2, 0xff, 0x7f, 0xff, 0xff]);
        assert_eq!(string(b"2147483647", true), [0xc2, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(string(b"2147483648", true), b"\x0a2147483648");
        assert_eq!(string(b"007", true), b"\x03007", "only the canonical text may become a number");
        assert_eq!(string(&[b'a'; 40], true), [0xc3, 5, 40, 0, b'a', 0xe0, 30, 0]);
        assert_eq!(string(&[b'a'; 21], false)[0], 21);
        assert_eq!(string(&[b'a'; 20], true)[0], 20);
    }
}
