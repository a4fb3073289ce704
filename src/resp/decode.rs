//! Replies, read back: what a server answers this node when it is a client itself, and what a command answered
//! a script. Both protocol versions.
//! Source: "Redis serialization protocol specification".

use crate::base::num::{parse_f64, parse_i64};

/// How deep a reply may be nested. No server sends one that is nearly as deep.
const DEPTH_MAX: usize = 128;

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR ...`, without the sign
    Error(Vec<u8>),
    /// `:1`
    Int(i64),
    /// `$2`, then the bytes
    Bulk(Vec<u8>),
    /// `$-1`, `*-1`, `_`
    Null,
    /// `*2`, then the elements
    Array(Vec<Value>),
    /// `~2`, then the elements
    Set(Vec<Value>),
    /// `%2`, then keys and values by turns
    Map(Vec<(Value, Value)>),
    /// `>2`, then the elements; no reply to a command
    Push(Vec<Value>),
    /// `,1.5`
    Double(f64),
    /// The digits.
    BigNumber(Vec<u8>),
    /// `#t`
    Bool(bool),
    /// `=6`, then the format, a colon and the text
    Verbatim {
        /// Three letters.
        format: Vec<u8>,
        /// Without the format.
        text: Vec<u8>,
    },
}

impl Value {
    /// The text of a string of any kind.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The elements of an array or of a push.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(items) | Self::Push(items) => items,
            _ => &[],
        }
    }

    /// The number of an integer.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }
}

/// These bytes are no reply, whatever follows: a connection that they came over is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error in a reply: {0}")]
pub struct DecodeError(&'static str);

impl DecodeError {
    /// The reply ends too early.
    pub const INCOMPLETE: Self = Self("not complete");
    /// It is nested too deep.
    pub const TOO_DEEP: Self = Self("too deep");
}

/// The reply that `input` begins with and how many bytes it takes; `None` while it is incomplete. Takes memory for
/// what is there, not for what a length promises.
pub fn decode(input: &[u8]) -> Result<Option<(Value, usize)>, DecodeError> {
    let mut reader = Reader::new(input);
    Ok(reader.value(0)?.map(|value| (value, reader.at)))
}

/// What stands next in replies: a whole value, or how many follow that belong to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR ...`, without the sign
    Error(&'a [u8]),
    /// `:1`
    Int(i64),
    /// `$2`, then the bytes
    Bulk(&'a [u8]),
    /// `$-1`, `*-1`, `_`
    Null,
    /// So many elements follow.
    Array(usize),
    /// So many elements follow.
    Set(usize),
    /// So many pairs follow.
    Map(usize),
    /// So many elements follow.
    Push(usize),
    /// So many pairs follow, and then the reply that they are about.
    Attribute(usize),
    /// `,1.5`
    Double(f64),
    /// The digits.
    BigNumber(&'a [u8]),
    /// `#t`
    Bool(bool),
    /// `=6`, then the format, a colon and the text
    Verbatim {
        /// Three letters.
        format: &'a [u8],
        /// Without the format.
        text: &'a [u8],
    },
}

/// Reads replies piece by piece. Owns nothing.
#[derive(Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

/// `None`: the input ends before.
pub type Decoded<T> = Result<Option<T>, DecodeError>;

impl<'a> Reader<'a> {
    /// Reads from the start of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// Bytes that were not read yet.
    pub fn left(&self) -> usize {
        self.input.len() - self.at
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.input[self.at..];
        let mut from = 0;
        loop {
            let end = from + memchr::memchr(b'\n', &rest[from..])?;
            if end > 0 && rest[end - 1] == b'\r' {
                self.at += end + 1;
                return Some(&rest[..end - 1]);
            }
            from = end + 1;
        }
    }

    /// As many bytes, and the end of the line behind them.
    fn bytes(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let end = self.at.checked_add(len).and_then(|end| end.checked_add(2));
        let end = end.ok_or(DecodeError("a bad length"))?;
        let Some(bytes) = self.input.get(self.at..end) else { return Ok(None) };
        let Some(bytes) = bytes.strip_suffix(b"\r\n") else {
            return Err(DecodeError("a text without its end"));
        };
        self.at = end;
        Ok(Some(bytes))
    }

    /// The next piece, in which `depth` others that are not complete yet contain it.
    pub fn piece(&mut self, depth: usize) -> Decoded<Piece<'a>> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::TOO_DEEP);
        }
        let Some(line) = self.line() else { return Ok(None) };
        let Some((kind, head)) = line.split_first() else { return Err(DecodeError("an empty line")) };
        Ok(Some(match kind {
            b'+' => Piece::Simple(head),
            b'-' => Piece::Error(head),
            b':' => Piece::Int(parse_i64(head).ok_or(DecodeError("not an integer"))?),
            b',' => Piece::Double(parse_f64(head).unwrap_or(f64::NAN)),
            b'(' => Piece::BigNumber(head),
            b'#' => Piece::Bool(head == b"t"),
            b'_' => Piece::Null,
            b'$' | b'=' | b'!' => return self.text(*kind, head),
            b'*' | b'~' | b'>' | b'%' | b'|' => match (length(head)?, kind) {
                (None, _) => Piece::Null,
                (Some(count), b'*') => Piece::Array(count),
                (Some(count), b'~') => Piece::Set(count),
                (Some(count), b'>') => Piece::Push(count),
                (Some(count), b'%') => Piece::Map(count),
                (Some(count), _) => Piece::Attribute(count),
            },
            _ => return Err(DecodeError("unknown type")),
        }))
    }

    fn text(&mut self, kind: u8, head: &[u8]) -> Decoded<Piece<'a>> {
        let Some(len) = length(head)? else { return Ok(Some(Piece::Null)) };
        let Some(bytes) = self.bytes(len)? else { return Ok(None) };
        Ok(Some(match kind {
            b'!' => Piece::Error(bytes),
            // The format and a colon stand before verbatim text.
            b'=' if len < 4 => return Err(DecodeError("a text without its format")),
            b'=' => Piece::Verbatim { format: &bytes[..3], text: &bytes[4..] },
            _ => Piece::Bulk(bytes),
        }))
    }

    fn values(&mut self, count: usize, depth: usize) -> Decoded<Vec<Value>> {
        let mut values = Vec::new();
        for _ in 0..count {
            let Some(value) = self.value(depth + 1)? else { return Ok(None) };
            values.push(value);
        }
        Ok(Some(values))
    }

    fn pairs(&mut self, count: usize, depth: usize) -> Decoded<Vec<(Value, Value)>> {
        let mut pairs = Vec::new();
        for _ in 0..count {
            let Some(name) = self.value(depth + 1)? else { return Ok(None) };
            let Some(value) = self.value(depth + 1)? else { return Ok(None) };
            pairs.push((name, value));
        }
        Ok(Some(pairs))
    }

    fn value(&mut self, depth: usize) -> Decoded<Value> {
        let Some(piece) = self.piece(depth)? else { return Ok(None) };
        Ok(match piece {
            Piece::Simple(text) => Some(Value::Simple(text.to_vec())),
            Piece::Error(text) => Some(Value::Error(text.to_vec())),
            Piece::Int(n) => Some(Value::Int(n)),
            Piece::Bulk(text) => Some(Value::Bulk(text.to_vec())),
            Piece::Null => Some(Value::Null),
            Piece::Double(x) => Some(Value::Double(x)),
            Piece::BigNumber(digits) => Some(Value::BigNumber(digits.to_vec())),
            Piece::Bool(yes) => Some(Value::Bool(yes)),
            Piece::Verbatim { format, text } => {
                Some(Value::Verbatim { format: format.to_vec(), text: text.to_vec() })
            }
            Piece::Array(count) => self.values(count, depth)?.map(Value::Array),
            Piece::Set(count) => self.values(count, depth)?.map(Value::Set),
            Piece::Push(count) => self.values(count, depth)?.map(Value::Push),
            Piece::Map(count) => self.pairs(count, depth)?.map(Value::Map),
            // It stands before the reply that it is about.
            Piece::Attribute(count) => match self.pairs(count, depth)? {
                Some(_) => self.value(depth + 1)?,
                None => None,
            },
        })
    }
}

fn length(head: &[u8]) -> Decoded<usize> {
    match parse_i64(head) {
        Some(-1) => Ok(None),
        Some(n) if n >= 0 => Ok(Some(n as usize)),
        _ => Err(DecodeError("a bad length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_both_protocols() {
        let bulk = |text: &str| Value::Bulk(text.into());
        for (wire, want) in [
            ("+OK\r\n", Value::Simple("OK".into())),
            ("-ERR no\r\n", Value::Error("ERR no".into())),
            (":-7\r\n", Value::Int(-7)),
            ("$3\r\na\r\n\r\n", bulk("a\r\n")),
            ("$-1\r\n", Value::Null),
            ("*-1\r\n", Value::Null),
            ("_\r\n", Value::Null),
            (
                "*2\r\n:1\r\n*1\r\n+x\r\n",
                Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Simple("x".into())])]),
            ),
            ("%1\r\n+k\r\n#t\r\n", Value::Map(vec![(Value::Simple("k".into()), Value::Bool(true))])),
            (">1\r\n$1\r\nm\r\n", Value::Push(vec![bulk("m")])),
            ("=8\r\ntxt:text\r\n", Value::Verbatim { format: b"txt".to_vec(), text: b"text".to_vec() }),
            ("~1\r\n:1\r\n", Value::Set(vec![Value::Int(1)])),
            ("|1\r\n+a\r\n+b\r\n:1\r\n", Value::Int(1)),
            ("!3\r\nERR\r\n", Value::Error("ERR".into())),
            ("(12\r\n", Value::BigNumber("12".into())),
            (",1.5\r\n", Value::Double(1.5)),
        ] {
            assert_eq!(decode(wire.as_bytes()), Ok(Some((want, wire.len()))), "{wire}");
            for cut in 0..wire.len() {
                assert_eq!(decode(&wire.as_bytes()[..cut]), Ok(None), "{wire} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for wire in ["\r\n", "x\r\n", ":a\r\n", "$-2\r\n", "$1\r\nabc\r\n", "=1\r\na\r\n"] {
            assert!(decode(wire.as_bytes()).is_err(), "{wire}");
        }
        assert!(decode("*1\r\n".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn nothing_is_believed_of_a_length_that_does_not_follow() {
        for wire in ["*999999999999\r\n:1\r\n", "$99999999999\r\nab\r\n", "%9223372036854775807\r\n"] {
            assert_eq!(decode(wire.as_bytes()), Ok(None), "{wire}");
        }
    }
}
