//! Bytes from a client within text. Errors are `String`s and quote a client's bytes, which need not be UTF-8: a byte
//! that is not is held by one of the last 256 characters of Unicode, which are for private use, and becomes that byte
//! again when the error is sent.

use std::borrow::Cow;

/// What the byte 0 is held by.
const FIRST: u32 = 0x10_FF00;

/// Bytes as text, from which [`bytes()`] makes the same bytes again.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let is_held = |text: &str| text.chars().any(|c| c as u32 >= FIRST);
    match std::str::from_utf8(bytes) {
        Ok(text) if !is_held(text) => Cow::Borrowed(text),
        _ => {
            let mut held = String::with_capacity(2 * bytes.len());
            for chunk in bytes.utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c as u32 {
                        FIRST.. => held.extend(c.encode_utf8(&mut [0; 4]).bytes().map(holder)),
                        _ => held.push(c),
                    }
                }
                held.extend(chunk.invalid().iter().copied().map(holder));
            }
            Cow::Owned(held)
        }
    }
}

fn holder(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).expect("the last 256 characters")
}

/// The bytes of a text with parts by [`text()`].
pub fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match c as u32 {
            held @ FIRST.. => bytes.push((held - FIRST) as u8),
            _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_text_stays_as_it_is() {
        assert!(matches!(text("grün".as_bytes()), Cow::Borrowed("grün")));
        assert_eq!(bytes("grün"), "grün".as_bytes());
    }

    #[test]
    fn other_bytes_come_back_also_between_our_words() {
        for odd in [&b"\xff\xfe"[..], b"a\x80b", "\u{10FFFF}".as_bytes(), b"\xf4\x8f\xbf"] {
            let whole = format!("ERR no '{}' here", text(odd));
            assert_eq!(bytes(&whole), [b"ERR no '", odd, b"' here"].concat());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(any: Vec<u8>) {
            prop_assert_eq!(bytes(&text(&any)), any);
        }
    }
}
