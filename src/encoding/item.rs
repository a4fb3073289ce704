//! An element as a packed encoding holds it: text, or an integer that stands for its decimal text.

use crate::base::num::parse_i64;

/// One element, borrowed from where it is stored. Compares by the text that clients see.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A text.
    Bytes(&'a [u8]),
    /// An integer in canonical form: no leading zeros, no plus sign.
    Int(i64),
}

/// Room for the text of an integer item; `IntText::new()` costs nothing.
pub type IntText = itoa::Buffer;

impl<'a> Item<'a> {
    /// The text, without allocation: of the item itself or, for an integer, written into `buf`.
    #[inline]
    pub fn text<'b>(&self, buf: &'b mut IntText) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Item::Bytes(b) => b,
            Item::Int(n) => buf.format(n).as_bytes(),
        }
    }

    /// Appends the text to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text(&mut IntText::new()));
    }

    /// The text, in memory of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        self.text(&mut IntText::new()).to_vec()
    }

    /// Length of the text in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match *self {
            Item::Bytes(b) => b.len(),
            Item::Int(n) => {
                let digits = n.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
                digits + usize::from(n < 0)
            }
        }
    }

    /// Whether the text is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self, Item::Bytes([]))
    }

    /// The integer that the text spells in canonical form, if it does.
    pub fn as_int(&self) -> Option<i64> {
        match *self {
            Item::Bytes(b) => parse_i64(b),
            Item::Int(n) => Some(n),
        }
    }

    /// Whether the text equals `text`.
    #[inline]
    pub fn is(&self, text: &[u8]) -> bool {
        match *self {
            Item::Bytes(b) => b == text,
            Item::Int(n) => parse_i64(text) == Some(n),
        }
    }
}

impl PartialEq for Item<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Item::Bytes(a), b) => b.is(a),
            (a, Item::Bytes(b)) => a.is(b),
            (Item::Int(a), Item::Int(b)) => a == b,
        }
    }
}

impl Eq for Item<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_item_is_its_text() {
        for n in [0, 7, 10, -1, -10, 99_999, i64::MAX, i64::MIN] {
            let text = n.to_string();
            assert_eq!(Item::Int(n).to_vec(), text.as_bytes());
            assert_eq!(Item::Int(n).len(), text.len());
            assert_eq!(Item::Int(n), Item::Bytes(text.as_bytes()));
        }
        assert_ne!(Item::Int(1), Item::Bytes(b"01"));
        assert_eq!(Item::Bytes(b"12").as_int(), Some(12));
        assert!(Item::Bytes(b"").is_empty());
    }
}
